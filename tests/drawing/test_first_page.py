"""The first page: its numbers are those of the committed run, and of the arithmetic."""

import json
import math
import re
from pathlib import Path

import pytest

from minillm.data import END_OF_TEXT, andersen, split, tokenize
from minillm.drawing import first_page
from minillm.drawing.widgets import read
from minillm.tokenizer.tokenizer import BPETokenizer

DATA = first_page.DATA
PAGE = Path(__file__).parents[2] / "docs" / "language-model.md"


@pytest.fixture(scope="module")
def data():
    return json.loads((DATA / "first_page.json").read_text(encoding="utf-8"))


def test_the_parts_of_the_page_are_written_from_the_numbers(data):
    for name, text in first_page.first_page_text(data).items():
        shown = (DATA / f"first_page-{name}.md").read_text(encoding="utf-8")
        assert shown == text + "\n"
        assert f'"images/data/first_page-{name}.md"' in PAGE.read_text(encoding="utf-8")


def test_probabilities_are_the_softmax_of_the_committed_logits(data):
    # The widget has all logits of the same run.
    committed = read("sampling")
    assert committed["steps"] == data["result"]["steps"]
    assert [*data["prompts"]] == [*first_page.PROMPTS]
    for prompt, tokens in data["prompts"].items():
        logits = committed["prompts"][prompt]
        total = math.fsum(map(math.exp, logits))
        best = sorted(range(len(logits)), key=lambda i: -logits[i])[: len(tokens)]
        expected = [(committed["tokens"][i], math.exp(logits[i]) / total) for i in best]
        for (token, p), (again, q) in zip(tokens, expected, strict=True):
            assert token == again
            # The logits of the widget are rounded to three digits.
            assert p == pytest.approx(q, rel=5e-3, abs=1e-4)


def test_results_are_those_of_the_committed_run(data):
    run = json.loads((DATA / "demo.json").read_text(encoding="utf-8"))
    milestone = json.loads((DATA / "milestones.json").read_text(encoding="utf-8"))[-1]
    result = data["result"]
    assert result["baselines"] == run["baselines"]
    assert [result["steps"], result["bits_per_byte"]] == run["validation"][-1]
    assert (result["steps"], result["loss"]) == (milestone["step"], milestone["loss"])
    assert data["start"] + data["written"] == milestone["text"]
    disclosed = (DATA / "disclosure.md").read_text(encoding="utf-8")
    assert f"{result['parameters']:,} parameters" in disclosed
    assert f"{result['tokens']:,} read" in disclosed


def test_bits_per_byte_follow_from_the_text(data):
    """3.22 and not 8: log2 of the vocabulary, times the tokens in a byte."""
    result = data["result"]
    training, unseen = split(andersen())
    tokenizer = BPETokenizer.train(training, result["vocab_size"], [END_OF_TEXT])
    n_tokens = len(tokenize(unseen, tokenizer)) - 1
    n_bytes = sum(len(tale.encode()) for tale in unseen)
    assert n_tokens / n_bytes == pytest.approx(result["tokens_per_byte"], abs=5e-5)
    uniform = math.log2(result["vocab_size"]) * n_tokens / n_bytes
    assert uniform == pytest.approx(result["baselines"]["uniform"], abs=1e-4)
    bits = result["loss"] / math.log(2) * n_tokens / n_bytes
    assert bits == pytest.approx(result["bits_per_byte"], abs=1e-3)


def test_the_prose_of_the_page_and_of_the_story_has_these_numbers(data):
    result = data["result"]
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    for number in (
        f"{result['vocab_size']:,} frequent pieces",
        f"{result['parameters']:,} numbers",
        f"there are {result['steps']:,}",
        f"loss = {result['loss']}",
        f"stands at {result['bits_per_byte']:.2f} bits per byte",
        f"a token of {1 / result['tokens_per_byte']:.1f} bytes",
        *(
            f"*{name[0].upper()}{name[1:]}*, {bits:.2f}:"
            for name, bits in result["baselines"].items()
        ),
    ):
        assert number in text, number
    story = (PAGE.parent / "demo.md").read_text(encoding="utf-8")
    assert f"{result['steps']:,} times" in story
    assert f"expect {result['bits_per_byte']:.2f}" in story
    sweep = json.loads((DATA / "sweep.json").read_text(encoding="utf-8"))
    (half,) = {round(row["bits"], 2) for row in sweep if row["bits"] < 1.77}
    assert f"from {half} to {result['bits_per_byte']:.2f}" in story
    assert f"trigram ({result['baselines']['Kneser-Ney trigram']:.2f})" in story


def test_a_run_is_asked_what_the_page_shows(tmp_path, monkeypatch):
    """On a model of a few steps: the pieces fit, and sum to one."""
    from minillm.runs import demo
    from minillm.train import TrainConfig

    monkeypatch.setattr(demo, "COUNTED", 1)
    config = TrainConfig(steps=2, warmup_steps=1, eval_every=2)
    result = demo.run_demo(tmp_path / "run", config=config, documents=andersen()[:6])
    found = first_page.first_page_data(tmp_path / "run")
    assert found["result"]["bits_per_byte"] == round(result["bits_per_byte"], 4)
    assert found["result"]["steps"] == 2
    for tokens in found["prompts"].values():
        ps = [p for _, p in tokens]
        assert len(ps) == first_page.SHOWN and ps == sorted(ps, reverse=True)
        assert 0 < sum(ps) <= 1
    shown = first_page.first_page_text(found)
    rows = shown["next"].split("\n")
    assert len(rows) == 3 + first_page.SHOWN
    assert {row.count(" | ") for row in rows} == {len(first_page.PROMPTS) - 1}
    assert re.match(r"> \*\*Once upon a time\*\*", shown["written"])
