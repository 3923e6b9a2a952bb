"""Cutting a text, and how long it may take."""

import random
import time

import pytest

from minillm.tokenizer import patterns
from minillm.tokenizer.patterns import OURS, compile_pattern, pretokenize

TURNS = "aZß1²٣漢ा.,'’sS/-_ \t\n\r\u2003\u200d\u0301🌍\x1c\x85"


def one_by_one(text, pattern):
    """As `pretokenize`, by `finditer`."""
    pieces, end = [], 0
    for match in compile_pattern(pattern).finditer(text):
        pieces += [text[end : match.start()], match.group()]
        end = match.end()
    return [piece for piece in [*pieces, text[end:]] if piece]


@pytest.mark.parametrize("n", [2000, pytest.param(20_000, marks=pytest.mark.check)])
@pytest.mark.parametrize("pattern", sorted(OURS))
def test_all_matches_at_once_are_those_one_by_one(pattern, n):
    generator = random.Random(pattern)
    for _ in range(n):
        text = "".join(generator.choices(TURNS, k=generator.randint(0, 12)))
        assert pretokenize(text, pattern) == one_by_one(text, pattern)
        assert "".join(pretokenize(text, pattern)) == text


def test_a_long_text_has_more_time_than_one_match(monkeypatch):
    monkeypatch.setattr(patterns, "PATIENCE", 0.005)
    text = "one two " * 100_000
    before = time.process_time()
    assert len(pretokenize(text, r"\w+|\s")) == 400_000
    assert time.process_time() - before > 0.005


def test_one_match_has_no_more_time_than_that(monkeypatch):
    monkeypatch.setattr(patterns, "PATIENCE", 0.05)
    with pytest.raises(ValueError, match="takes too long for 'aaaaaaaa"):
        pretokenize("ok " * 1000 + "a" * 60, r"ok |(a|a)*b")


def test_cutting_again_looks_back(monkeypatch):
    """After a pause, what is behind is still behind."""
    monkeypatch.setattr(patterns, "PATIENCE", 0.002)
    text = "ab" * 200_000
    assert pretokenize(text, r"(?<=a)b|^a|(?<=b)a") == list(text)
