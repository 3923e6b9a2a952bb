"""The committed figures are what the committed numbers give."""

import xml.etree.ElementTree as ET

import pytest

from minillm.figures import INK, draw_all, summarize


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    pytest.importorskip("matplotlib", reason="the extra plots is not installed")
    return draw_all(tmp_path_factory.mktemp("images"))


def test_redrawing_gives_the_committed_files(drawn):
    from minillm.figures import IMAGES

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
