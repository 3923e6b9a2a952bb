"""The lab of forgetting: its demonstrations, its batches, what is committed."""

import pytest

from minillm.flops import training_flops
from minillm.labs import forgetting
from minillm.labs.bench import committed, run_lab
from minillm.labs.forgetting import BASE, LAB, SHAPE, VARIANTS, compute, runs
from minillm.model import TransformerLM

TINY = BASE | {"tales": 2, "steps": 2, "demonstrations": 40}


def test_demonstrations_have_the_word_that_they_ask_for():
    text = forgetting._text()
    assert len(text.pairs) > 1000 and len(text.new) == forgetting.ASKED
    known = {word for word, _, _ in text.pairs}
    assert known.isdisjoint(text.new)
    for word, prompt, answer in text.pairs:
        assert f'"{word}"' in prompt and word in answer


def test_learned_are_the_answer_and_its_end_and_nothing_else():
    text = forgetting._text()
    ids, mask = forgetting._pack(text, text.pairs[:50])
    for row, learned, (_, prompt, answer) in zip(ids, mask, text.pairs, strict=False):
        said = text.tokenizer.decode(row[learned].tolist())
        assert said == answer + "<|endoftext|>"
        assert text.tokenizer.decode(row.tolist()).startswith(prompt + answer)


def test_old_text_costs_nothing():
    cost = compute(BASE)
    assert compute(BASE | {"old": 0.5, "demonstrations": 30}) == cost
    assert cost.tuning == 100 * training_flops(SHAPE, 32, 47)
    assert LAB.flops(BASE) == sum(cost)


@pytest.mark.check
def test_every_run_repeats_itself(tmp_path):
    points = [(TINY | {"old": old}, 0) for old in (0.0, 0.25)]
    once = run_lab(LAB, points, tmp_path / "a")
    forgetting._told.cache_clear()
    again = run_lab(LAB, points, tmp_path / "b")
    for key in ("before", "after", "seen", "new"):
        assert [r[key] for r in once] == [r[key] for r in again]
    assert once[0]["before"] == once[1]["before"]
    assert once[0]["after"] != once[1]["after"]
    assert LAB.report(once).startswith("old text")


def test_an_answer_without_the_word_or_without_an_end_is_no_answer(monkeypatch):
    text = forgetting._text()
    end = text.tokenizer.special_tokens["<|endoftext|>"]
    sentences = ["The cat sat.", "The cats sat.", "The cat sat.", "A dog."]
    written = [[*text.tokenizer.encode(s), end] for s in sentences]
    written[2] = written[2][:-1]

    class Said:
        def new_ids(self):
            return written

    monkeypatch.setattr(forgetting, "sample_batch", lambda *a, **k: Said())
    assert forgetting._obeys(TransformerLM(SHAPE), ["cat", "cat"], 0) == pytest.approx(
        0.25
    )


def test_what_is_committed_has_three_seeds_each():
    assert len(committed(LAB)) == 3 * len(VARIANTS)
    for name in VARIANTS:
        assert [r["seed"] for r in runs(name)] == [0, 1, 2]
    # The same start for all runs of a seed.
    assert len({(r["seed"], r["before"]) for r in committed(LAB)}) == 3
    for r in committed(LAB):
        assert r["tuning_flops"] == compute(r["config"]).tuning
