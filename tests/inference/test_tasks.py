"""Tasks in files: what is refused, what is written down, and how it goes on."""

import json

import numpy as np
import pytest
import torch

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.evaluation import binomial_interval, choice_log_likelihoods
from minillm.hub import save_llama
from minillm.inference import tasks
from minillm.inference.tasks import (
    Question,
    answer_questions,
    read_questions,
    summary,
)
from minillm.model import TransformerLM

LINES = [
    {"prompt": "the cat", "choices": [" sat", " rat", " on"], "answer": 0},
    {"prompt": "the", "choices": [" mat", " hat", " é"], "answer": 1},
    {"prompt": "on the", "choices": [" cat", " rat and the rat", " zz"], "answer": 2},
]


def write(path, lines):
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def make(seed=0):
    tokenizer = BPETokenizer.train(["the cat sat on the mat and the rat " * 9], 280)
    torch.manual_seed(seed)
    return TransformerLM(ModelConfig(280, 32, 16, 1, 2)), tokenizer


def test_answers_are_those_of_the_likelihoods(tmp_path):
    model, tokenizer = make()
    questions = read_questions(write(tmp_path / "task.jsonl", LINES))
    answered = list(
        answer_questions(
            model, tokenizer, questions, tmp_path / "log.jsonl", without="so"
        )
    )
    for line, (question, scores) in zip(LINES, answered, strict=True):
        expected = choice_log_likelihoods(
            model, tokenizer, line["prompt"], line["choices"]
        )
        assert (scores.log_likelihoods == expected).all()
        priors = choice_log_likelihoods(model, tokenizer, "so", line["choices"])
        assert (scores.priors == priors).all()
        assert (question.prompt, question.answer) == (line["prompt"], line["answer"])
    for by, share, low, high in summary(answered):
        right = sum(a.choices.best(by) == a.question.answer for a in answered)
        assert share == right / 3
        assert (low, high) == binomial_interval(right, 3)
    assert [row[0] for row in summary(answered)] == ["total", "token", "byte", "prior"]


def test_a_run_that_was_killed_goes_on_where_it_stopped(tmp_path, monkeypatch):
    model, tokenizer = make()
    questions = read_questions(write(tmp_path / "task.jsonl", LINES))
    log, asked = tmp_path / "log.jsonl", []
    score = tasks.score_choices

    def noted(model, tokenizer, prompt, *rest):
        asked.append(prompt)
        return score(model, tokenizer, prompt, *rest)

    monkeypatch.setattr(tasks, "score_choices", noted)
    first = answer_questions(model, tokenizer, questions, log)
    before = [next(first), next(first)]
    first.close()
    whole = log.read_text(encoding="utf-8")
    # The end of the last line is missing, at every place where it may break.
    for cut in range(1, len(whole.splitlines()[-1]) + 1, 40):
        log.write_text(whole[:-cut], encoding="utf-8")
        asked.clear()
        # In another order, and the file has grown in front.
        again = list(
            answer_questions(model, tokenizer, [questions[i] for i in (2, 1, 0)], log)
        )
        assert asked == ["on the", "the"]
        assert again[2].question == before[0].question
        for a, b in ((again[2], before[0]), (again[1], before[1])):
            assert (a.choices.log_likelihoods == b.choices.log_likelihoods).all()
    asked.clear()
    assert len(list(answer_questions(model, tokenizer, questions, log))) == 3
    assert asked == []


def test_answers_of_another_model_are_never_mixed_in(tmp_path):
    model, tokenizer = make()
    questions = read_questions(write(tmp_path / "task.jsonl", LINES))
    log = tmp_path / "log.jsonl"
    list(answer_questions(model, tokenizer, questions, log))
    before = log.read_bytes()
    for other, settings in (
        (make(1)[0], {}),
        (model, {"without": "so"}),
        (model, {"begin_ids": [1]}),
    ):
        with pytest.raises(ValueError, match="answers of another model, or"):
            list(answer_questions(other, tokenizer, questions, log, **settings))
    log.write_bytes(before.splitlines(keepends=True)[0] + b'{"key": 3}\n')
    with pytest.raises(ValueError, match="line 2, is no answer"):
        list(answer_questions(model, tokenizer, questions, log))


@pytest.mark.parametrize(
    "change",
    [
        {"key": "0" * 16},
        {"log_likelihoods": [-1.0]},
        {"log_likelihoods": [float("nan")] * 3},
        {"n_tokens": [1, 1, 0]},
        {"n_tokens": [1.5, 1, 1]},
        {"n_bytes": [10**30] * 3},
        {"priors": [0.0] * 3},
        {"prompt": 3},
    ],
)
def test_an_answer_that_does_not_fit_its_question_is_not_counted(tmp_path, change):
    model, tokenizer = make()
    questions = read_questions(write(tmp_path / "task.jsonl", LINES))
    log = tmp_path / "log.jsonl"
    list(answer_questions(model, tokenizer, questions, log))
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    # What a later version adds is passed over; what is known must be right.
    for more in ({"extra": 1}, change):
        lines[2] = json.dumps(json.loads(lines[2]) | more) + "\n"
        log.write_text("".join(lines), encoding="utf-8")
        if more is not change:
            assert len(list(answer_questions(model, tokenizer, questions, log))) == 3
    with pytest.raises(ValueError, match=r"line 3, is no answer .* another file") as e:
        list(answer_questions(model, tokenizer, questions, log))
    assert str(log) in str(e.value)


def test_a_question_that_cannot_be_asked_is_named(tmp_path):
    model, tokenizer = make()
    log = tmp_path / "log.jsonl"
    long = Question("the cat " * 99, (" sat", " mat"), 0)
    with pytest.raises(ValueError, match=r"the question 'the cat the.*: the model re"):
        list(answer_questions(model, tokenizer, [long], log))
    with torch.no_grad():
        model.final_norm.weight.fill_(float("nan"))
    asked = [Question("the", (" cat", " mat"), 0)]
    with pytest.raises(ValueError, match=r"the question 'the': its scores are not fin"):
        list(answer_questions(model, tokenizer, asked, tmp_path / "other.jsonl"))
    # Nothing of it was written down.
    assert len((tmp_path / "other.jsonl").read_text(encoding="utf-8").split("\n")) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "has no questions"),
        ("[]", "line 1: a question has a prompt, choices and an answer"),
        ("{", "line 1 is not JSON"),
        ({"prompt": ""}, "prompt must be a text; got ''"),
        ({"prompt": 3}, "prompt must be a text; got 3"),
        ({"choices": [" a"]}, "at least two different texts"),
        ({"choices": [" a", " a"]}, "at least two different texts"),
        ({"choices": [" a", ""]}, "at least two different texts"),
        ({"choices": " ab"}, "at least two different texts"),
        ({"answer": 3}, "an index of the 3 choices, 0 to 2; got 3"),
        ({"answer": -1}, "got -1"),
        ({"answer": True}, "got True"),
        ({"answer": " sat"}, "got ' sat'"),
    ],
)
def test_what_is_no_question_is_refused_with_its_line(tmp_path, line, message):
    text = line if isinstance(line, str) else json.dumps(LINES[0] | line)
    path = tmp_path / "task.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_questions(path)


def test_the_command_says_how_sure_it_is(tmp_path, call):
    model, tokenizer = make()
    save_llama(model, tmp_path / "model", tokenizer)
    task = write(tmp_path / "task.jsonl", LINES)
    log = tmp_path / "new" / "log.jsonl"
    command = ("evaluate", tmp_path / "model", task, "--out", log)
    code, out, _ = call(*command, "--without", "so")
    assert code == 0 and "3 questions; guessing has 0.333" in out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("by ")] == [
        *("total", "token", "byte", "prior")
    ]
    assert len(log.read_text(encoding="utf-8").splitlines()) == 4
    again = call(*command, "--without", "so")
    assert again[1] == out
    code, _, error = call(*command)
    assert code == 2 and "another neutral prompt" in error
    write(task, [LINES[0] | {"answer": 9}])
    code, _, error = call(*command)
    assert code == 2 and "line 1: answer must be an index" in error


def test_likelihoods_survive_the_log_to_the_last_bit(tmp_path):
    model, tokenizer = make()
    questions = read_questions(write(tmp_path / "task.jsonl", LINES))
    log = tmp_path / "log.jsonl"
    one, two = (
        list(answer_questions(model, tokenizer, questions, log)) for _ in range(2)
    )
    for a, b in zip(one, two, strict=True):
        for x, y in zip(a.choices[:3], b.choices[:3], strict=True):
            assert np.array_equal(x, y) and x.dtype == y.dtype
