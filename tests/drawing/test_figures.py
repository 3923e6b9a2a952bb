"""The committed figures are what the committed numbers give."""

import json
import math
import xml.etree.ElementTree as ET

import pytest
import torch
from fixtures import fixture

from minillm.bpe import BPETokenizer
from minillm.drawing.attention import learn_to_repeat, measure
from minillm.drawing.compression import compression_points
from minillm.drawing.figures import draw_all
from minillm.drawing.kit import INK, summarize
from minillm.files.reading import IMAGES


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    pytest.importorskip("matplotlib", reason="the extra plots is not installed")
    return draw_all(tmp_path_factory.mktemp("images"))


def test_redrawing_gives_the_committed_files(drawn):
    committed = {path.name: path.read_bytes() for path in IMAGES.glob("*.svg")}
    assert {path.name: path.read_bytes() for path in drawn} == committed


def test_drawing_twice_gives_the_same(drawn, tmp_path):
    for first, second in zip(drawn, draw_all(tmp_path), strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_figures_follow_the_page(drawn):
    for path in drawn:
        svg = path.read_text(encoding="utf-8")
        root = ET.fromstring(svg)
        assert root.get("aria-label")
        assert "currentColor" in svg
        assert INK not in svg
        # A style sheet or a name of one picture would reach the others on the page.
        assert "<style" not in svg
        names = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(names) == len(set(names)) > 0
        assert all(name.startswith(path.stem) for name in names)


def check_crests(numbers):
    # One back in the first layer, ten in the second: eleven together.
    crests = [[s.index(max(s)) for s in layer] for layer in numbers["scores"]]
    assert crests == [[1, 1], [10, 10]]
    for layer, back in zip(numbers["weights"], (1, 10), strict=True):
        for head in layer:
            assert sum(head[t][t - back] for t in range(12, 23)) > 50 * 11
            assert all(head[t][t + 1 :] == [0] * (23 - t) for t in range(24))
            assert all(abs(sum(row) - 100) <= 12 for row in head)


def test_heads_look_where_the_chapter_says():
    check_crests(json.loads((IMAGES / "data" / "heads.json").read_text("utf-8")))


@pytest.mark.check
def test_heads_learn_where_to_look():
    before = torch.get_rng_state()
    model, loss = learn_to_repeat()
    # Sampling elsewhere in the program is not disturbed.
    assert torch.equal(torch.get_rng_state(), before)
    assert loss < 0.02
    check_crests(measure(model))


def test_summary_converts_nats_to_bits_per_byte():
    log = [
        {"event": "config"},
        {"event": "step", "step": 1, "loss": 4.0, "validation_loss": None},
        {"event": "step", "step": 2, "loss": 2.0, "validation_loss": 3.0},
        {"event": "result", "tokens_per_byte": 0.5, "baselines": {"uniform": 4.0}},
    ]
    summary = summarize(log)
    bit = 0.5 / math.log(2)
    assert summary["bits"] == [[1.0, round(4 * bit, 4)], [2.0, round(2 * bit, 4)]]
    assert summary["validation"] == [[2, round(3 * bit, 4)]]
    assert summary["baselines"] == {"uniform": 4.0}


@pytest.fixture
def compression():
    return json.loads((IMAGES / "data" / "compression.json").read_bytes())


@pytest.mark.check
def test_points_of_compression_are_computed(compression):
    files = fixture("gpt2/encoder.json"), fixture("gpt2/vocab.bpe")
    assert compression_points(BPETokenizer.from_gpt2_files(*files)) == compression


def test_what_the_chapter_says_of_its_figure(compression):
    ratio = {size: compression["bytes"] / n for size, n in compression["ours"]}
    doublings = [256 << k for k in range(7)]
    gains = [ratio[2 * size] - ratio[size] for size in doublings[:-1]]
    assert gains == sorted(gains, reverse=True) and gains[-1] > 0
    assert max(ratio) == 19_468
    size, n = compression["gpt2"]
    assert size == 50_257
    # Ours does as well between these two sizes, of which the first is nearer.
    assert ratio[11_585] < compression["bytes"] / n < ratio[16_384]
    assert 11_585 < size / 4 < 16_384


def test_the_model_of_the_figures_learns_and_its_measures_are_shares():
    """A few steps of what `recompute` does with hundreds."""
    model, after = learn_to_repeat(steps=30)
    again, same = learn_to_repeat(steps=30)
    assert after == same and after < learn_to_repeat(steps=1)[1]
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    weights = torch.tensor(measure(model)["weights"])  # layer, head, query, key
    assert weights.shape[-2] == weights.shape[-1] > 20
    assert not weights.triu(1).any()
    # In percent, each rounded on its own.
    assert (weights.sum(-1) - 100).abs().max() <= weights.shape[-1] / 2
