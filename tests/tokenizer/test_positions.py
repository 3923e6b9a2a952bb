"""Merging few positions and many: the same merges, whatever the text."""

import pytest
from bpe_cases import TIE_BREAKS, small_text, text_at_turns
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.bpe import train_bpe, train_bpe_naive
from minillm.tokenizer import positions
from minillm.tokenizer.positions import PairPositions


@settings(deadline=None, max_examples=100)
@given(
    st.lists(small_text | text_at_turns, min_size=1, max_size=5).filter(any),
    st.sampled_from(TIE_BREAKS),
    st.sampled_from([0, 1, 2, 1 << 30]),
)
def test_numpy_and_python_merge_the_same(documents, tie_break, many):
    expected = train_bpe_naive(documents, 280, tie_break=tie_break)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions, "MANY", many)
        assert train_bpe(documents, 280, tie_break=tie_break) == expected


@pytest.mark.parametrize("many", [0, 64, 1 << 30])
@pytest.mark.parametrize("word", ["a" * 1001, "ab" * 500, "aab" * 300 + "a"])
def test_a_long_word(monkeypatch, word, many):
    expected = train_bpe_naive([word], 268)
    monkeypatch.setattr(positions, "MANY", many)
    assert train_bpe([word], 268) == expected


def test_each_position_of_a_long_word_is_looked_at_once():
    """However often the pair is in it. Else learning from a blob would never end."""

    class Watched(list):
        turns = 0

        def __getitem__(self, i):
            self.turns += 1
            return super().__getitem__(i)

    where = PairPositions({b"a" * 1000: 1})
    where.number = Watched(where.number)
    number = 256 * ord("a") + ord("a")
    merged = where.merge(number, list(range(1, 1000)), size=1)
    assert merged == list(range(1, 1000, 2))
    assert where.number.turns <= 1000


@pytest.mark.parametrize("many", [0, 1 << 30])
def test_a_word_ends_where_the_next_begins(monkeypatch, many):
    monkeypatch.setattr(positions, "MANY", many)
    where = PairPositions({b"ab": 2, b"ba": 3})
    ab = 256 * ord("a") + ord("b")
    first = [at for number, at, _ in where.renumber(where.all(), 0, 0) if number == ab]
    assert [list(at) for at in first] == [[1]]
    merged = where.merge(0, first[0])
    assert list(where.renumber(merged, -1, 2)) == []
    assert list(where.renumber(merged, 1, 2)) == []
    assert where.numbers.tolist() == [-1, -1, -1, 1, -1]
