r"""Questions in a file, and the answers of a model, one line each.

**The question.** A benchmark that takes an hour gets interrupted, and its result gets
doubted. What has to be written down so that it can go on, and so that anyone can see
what was asked, and what was answered?

A task is a file of JSON lines: a prompt, the choices, and the index of the right one.

```json
{"prompt": "The capital of France is", "choices": [" Paris", " Rome"], "answer": 0}
```

The log has a line for each answer, with the likelihood of every choice, so that every
way of counting ([`Choices.best`][minillm.inference.choices.Choices.best]) can be
applied afterwards. Its first line says which weights were asked: another model's
answers are never mixed in. A question is recognized by its text, so the file may grow,
or be put in another order. And since each choice is scored by itself, no answer depends
on what was asked along with it.

**Before this:** [`minillm.inference.choices`][]. **Used by** the command
`minillm evaluate`.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillm.bpe import BPETokenizer
from minillm.files.adapters import fingerprint
from minillm.files.reading import parse_json, read_utf8
from minillm.files.writing import locked
from minillm.inference.choices import By, Choices, score_choices
from minillm.inference.intervals import binomial_interval
from minillm.model import TransformerLM

__all__ = ["Answered", "Question", "answer_questions", "read_questions", "summary"]


class Question(NamedTuple):
    """One question.

    Attributes:
        prompt: what comes before the answer.
        choices: the possible answers, at least two, all different.
        answer: the index of the right one.
    """

    prompt: str
    choices: tuple[str, ...]
    answer: int


class Answered(NamedTuple):
    """A question, and what a model makes of its choices."""

    question: Question
    choices: Choices


def read_questions(path: str | PathLike[str]) -> list[Question]:
    r"""Read a task.

    Args:
        path: a file of JSON lines; see the beginning of this page.

    Returns:
        The questions, in the order of the file.

    Raises:
        ValueError: if there is none, or a line is no question; the error names it.

    Examples:
        >>> import tempfile
        >>> line = '{"prompt": "2 + 2 =", "choices": [" 3", " 4"], "answer": 2}'
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "sums.jsonl"
        ...     _ = path.write_text(line, encoding="utf-8")
        ...     try:
        ...         read_questions(path)
        ...     except ValueError as error:
        ...         print(str(error).replace(folder, "…"))
        …/sums.jsonl, line 1: answer must be an index of the 2 choices, 0 to 1; got 2
    """
    questions = []
    for number, line in enumerate(read_utf8(path).split("\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            questions.append(_question(parse_json(line, where), where))
    if not questions:
        raise ValueError(f"{path} has no questions: write one JSON object a line")
    return questions


def _question(found: Any, where: str) -> Question:
    if not isinstance(found, dict) or not {"prompt", "choices", "answer"} <= set(found):
        raise ValueError(f"{where}: a question has a prompt, choices and an answer")
    prompt, choices, answer = (found[key] for key in ("prompt", "choices", "answer"))
    if not isinstance(prompt, str) or not prompt:
        raise ValueError(f"{where}: prompt must be a text; got {prompt!r:.40}")
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or not all(isinstance(choice, str) and choice for choice in choices)
        or len(set(choices)) < len(choices)
    ):
        raise ValueError(
            f"{where}: choices must be at least two different texts; got "
            f"{choices!r:.60}"
        )
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise ValueError(
            f"{where}: answer must be an index of the {len(choices)} choices, 0 to "
            f"{len(choices) - 1}; got {answer!r:.40}"
        )
    return Question(prompt, tuple(choices), answer)


def answer_questions(
    model: TransformerLM,
    tokenizer: BPETokenizer,
    questions: Sequence[Question],
    log: str | PathLike[str],
    *,
    without: str | None = None,
    begin_ids: Sequence[int] = (),
) -> Iterator[Answered]:
    r"""Ask what the log does not have yet, and write each answer down at once.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        questions: the questions.
        log: the file of answers, made if there is none.
        without: see [`score_choices`][minillm.inference.choices.score_choices].
        begin_ids: ids that stand before every text.

    Yields:
        The questions with their answers, in order.

    Raises:
        ValueError: if the log belongs to another model or other settings, or a question
            does not fit into the context.
        BlockingIOError: if another process writes the same log.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from minillm.config import ModelConfig
        >>> tokenizer = BPETokenizer.train(["the cat sat on the mat"], 260)
        >>> _ = torch.manual_seed(0)
        >>> model = TransformerLM(ModelConfig(260, 32, 16, 1, 2))
        >>> questions = [Question("the cat sat on the", (" cat", " mat"), 1)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = folder + "/log.jsonl"
        ...     (one,) = answer_questions(model, tokenizer, questions, log)
        ...     (two,) = answer_questions(model, tokenizer, questions, log)  # read
        ...     len(Path(log).read_text(encoding="utf-8").splitlines())
        2
        >>> bool((one.choices.log_likelihoods == two.choices.log_likelihoods).all())
        True
    """
    head = {
        "weights": fingerprint(model),
        "without": without,
        "begin_ids": list(begin_ids),
    }
    log = Path(log)
    with locked(log):
        known = _read_log(log, head)
        with log.open("a", encoding="utf-8") as file:
            if not known and not log.stat().st_size:
                file.write(json.dumps(head) + "\n")
            for question in questions:
                key = _key(question)
                if key not in known:
                    known[key] = _score(model, tokenizer, question, without, begin_ids)
                    file.write(json.dumps(_line(key, question, known[key])) + "\n")
                    file.flush()
                yield Answered(question, known[key])


def _score(
    model: TransformerLM,
    tokenizer: BPETokenizer,
    question: Question,
    without: str | None,
    begin_ids: Sequence[int],
) -> Choices:
    """Score a question, and say which one cannot be."""
    try:
        scores = score_choices(
            model, tokenizer, question.prompt, question.choices, without, begin_ids
        )
        if not _usable(scores, len(question.choices)):
            raise ValueError(
                "its scores are not finite, so the model's weights are damaged"
            )
    except ValueError as error:
        raise ValueError(f"the question {question.prompt!r:.40}: {error}") from error
    return scores


def _usable(scores: Choices, n: int) -> bool:
    """Whether there is one finite score for each choice, and something to divide by."""
    rows = [row for row in scores if row is not None]
    shaped = all(row.shape == (n,) and np.isfinite(row).all() for row in rows)
    return shaped and bool((scores.n_tokens > 0).all() and (scores.n_bytes > 0).all())


def _key(question: Question) -> str:
    asked = json.dumps([question.prompt, question.choices])
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def _line(key: str, question: Question, scores: Choices) -> dict[str, Any]:
    return {
        "key": key,
        "prompt": question.prompt,
        "choices": list(question.choices),
        "log_likelihoods": scores.log_likelihoods.tolist(),
        "n_tokens": scores.n_tokens.tolist(),
        "n_bytes": scores.n_bytes.tolist(),
        "priors": None if scores.priors is None else scores.priors.tolist(),
    }


def _read_log(log: Path, head: dict[str, Any]) -> dict[str, Choices]:
    if not log.exists() or not log.stat().st_size:
        return {}
    text = read_utf8(log)
    if not text.endswith("\n"):
        # Killed while writing: what is whole stays.
        text = text[: text.rfind("\n") + 1]
        log.write_text(text, encoding="utf-8")
    lines = text.splitlines()
    found = parse_json(lines[0], f"{log}, line 1,") if lines else head
    if found != head:
        raise ValueError(
            f"{log} has the answers of another model, or with another neutral prompt "
            "or beginning: name another file"
        )
    known = {}
    for number, line in enumerate(lines[1:], 2):
        entry = parse_json(line, f"{log}, line {number},")
        try:
            key, scores = _read_answer(entry, head["without"] is not None)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{log}, line {number}, is no answer ({error!r:.60}): name another file"
            ) from error
        known[key] = scores
    return known


def _read_answer(entry: Any, has_priors: bool) -> tuple[str, Choices]:
    question = Question(entry["prompt"], tuple(entry["choices"]), 0)
    key, priors = _key(question), entry["priors"]
    scores = Choices(
        np.array(entry["log_likelihoods"], dtype=np.float64),
        np.array(entry["n_tokens"], dtype=np.int64),
        np.array(entry["n_bytes"], dtype=np.int64),
        None if priors is None else np.array(priors, dtype=np.float64),
    )
    # What was understood is what would be written again.
    if (
        entry | _line(key, question, scores) != entry
        or not _usable(scores, len(question.choices))
        or (priors is not None) != has_priors
    ):
        raise ValueError("its parts do not agree")
    return key, scores


def summary(answered: Sequence[Answered]) -> list[tuple[By, float, float, float]]:
    r"""Count the right answers, by each way of counting.

    Args:
        answered: at least one question with its answer.

    Returns:
        For each way: its name, the share of right answers, and a 95 % interval.

    Examples:
        >>> question = Question("2 + 2 =", (" 3", " 4"), 1)
        >>> scores = Choices(np.array([-3.0, -2.0]), np.array([1, 1]), np.array([2, 2]))
        >>> by, share, low, high = summary([Answered(question, scores)] * 20)[0]
        >>> by, share, round(low, 2), high
        ('total', 1.0, 0.84, 1.0)
    """
    ways: tuple[By, ...] = ("total", "token", "byte", "prior")
    if answered[0].choices.priors is None:
        ways = ways[:-1]
    rows = []
    for by in ways:
        right = sum(a.choices.best(by) == a.question.answer for a in answered)
        share = right / len(answered)
        rows.append((by, share, *binomial_interval(right, len(answered))))
    return rows
