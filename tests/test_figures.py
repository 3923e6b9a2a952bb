"""The committed figures are what the committed numbers give."""

import json
import xml.etree.ElementTree as ET

import pytest
from fixtures import fixture

from minillm.bpe import BPETokenizer
from minillm.bpe_figures import compression_points
from minillm.figures import IMAGES, INK, draw_all, summarize


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


def test_summary_converts_nats_to_bits_per_byte():
    import math

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
