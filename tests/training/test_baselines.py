"""What counting achieves, counted again with exact fractions."""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minillm.data import andersen
from minillm.training.baselines import KneserNey, uniform_loss, unigram_loss


def count(text: Sequence[int], phrase: tuple[int, ...], order: int) -> int:
    """How often a phrase of full length occurs; after how many tokens a shorter one."""
    n = len(phrase)
    places = [i for i in range(len(text)) if tuple(text[i : i + n]) == phrase]
    return len(places) if n == order else len({text[i - 1] for i in places if i > 0})


def exact_probability(
    text: Sequence[int],
    vocab_size: int,
    order: int,
    token: int,
    context: tuple[int, ...],
) -> Fraction:
    """The formula as it stands in the docstring, slowly."""
    n = len(context) + 1
    phrases = {tuple(text[i : i + n]) for i in range(len(text) - n + 1)}
    counts = {phrase: count(text, phrase, order) for phrase in phrases}
    of_count = Counter(counts.values())
    discount = Fraction(1, 2)
    if of_count[1]:
        discount = Fraction(of_count[1], of_count[1] + 2 * of_count[2])
    shorter = Fraction(1, vocab_size)
    if context:
        shorter = exact_probability(text, vocab_size, order, token, context[1:])
    followers = [c for phrase, c in counts.items() if phrase[:-1] == context and c > 0]
    if not followers:
        return shorter
    seen = max(counts.get((*context, token), 0) - discount, 0)
    return (seen + discount * len(followers) * shorter) / sum(followers)


# Worked examples


def test_uniform_and_unigram_by_hand() -> None:
    assert uniform_loss(1) == 0
    assert uniform_loss(10) == pytest.approx(math.log(10))
    # After adding one to each count, 0, 1 and 2 have 3, 2 and 1 of 6 parts.
    loss = unigram_loss([0, 1, 0], [2, 2, 0, 1], vocab_size=3)
    assert loss == pytest.approx(
        -(math.log(1 / 6) + math.log(3 / 6) + math.log(2 / 6)) / 3
    )
    # Of a text without tokens nothing is learned.
    assert unigram_loss([], [5, 6], vocab_size=7) == pytest.approx(uniform_loss(7))
    shares = [math.exp(-unigram_loss([0, 1, 0], [0, token], 3)) for token in range(3)]
    assert sum(shares) == pytest.approx(1)


def test_kneser_ney_by_hand() -> None:
    model = KneserNey([0, 1, 0, 1, 0, 2], vocab_size=4, order=2)
    # The phrases 01 and 10 occur twice and 02 once, so D = 1 / (1 + 2 * 2) = 1/5. Each
    # single token comes after one other only, so there D = 1, and all goes to the
    # uniform guess of 1/4. After 0, two tokens came in three places:
    # 1: (2 - 1/5) / 3 + 1/5 * 2 / 3 * 1/4 = 19/30, and so on.
    after_0 = [1 / 30, 19 / 30, 9 / 30, 1 / 30]
    assert model.probabilities([0]).tolist() == pytest.approx(after_0)
    assert model.probabilities([2]).tolist() == pytest.approx([1 / 4] * 4)
    assert model.probabilities([]).tolist() == pytest.approx([1 / 4] * 4)


def test_san_francisco() -> None:
    # 2 is frequent, but only after 1; 3 is rarer, and comes after many.
    text = [1, 2] * 9 + [0, 3, 4, 3, 5, 3, 6, 3]
    p = KneserNey(text, vocab_size=8, order=2).probabilities([7])
    assert text.count(2) > text.count(3)
    assert p[2] < p[3]


# Properties

TEXTS = st.lists(st.integers(0, 4), max_size=14)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(1, 3), st.lists(st.integers(0, 5), max_size=2))
@example([0, 1] * 5, 3, [0, 1])
@example([0, 1, 2], 3, [0, 1])
def test_against_exact_fractions(
    text: list[int], order: int, before: list[int]
) -> None:
    context = tuple(before[: order - 1])
    model = KneserNey(text, vocab_size=6, order=order)
    exact = [exact_probability(text, 6, order, token, context) for token in range(6)]
    assert sum(exact) == 1
    assert model.probabilities(context).tolist() == pytest.approx(
        [float(p) for p in exact], rel=1e-12
    )


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 30), max_size=200),
    st.integers(1, 5),
    st.lists(st.integers(0, 32), max_size=6),
)
def test_they_sum_to_one(text: list[int], order: int, unseen: list[int]) -> None:
    model = KneserNey(text, vocab_size=33, order=order)
    for context in (unseen, text[:3], text[-4:], text[:2] + unseen[:1]):
        p = model.probabilities(context)
        assert p.sum() == pytest.approx(1, abs=1e-12)
        # Nothing is impossible, or its surprise would be infinite.
        assert p.min() > 0
        assert p.tolist() == [model.probability(token, context) for token in range(33)]
        last = context[len(context) - min(len(context), order - 1) :]
        assert p.tolist() == model.probabilities(last).tolist()


@settings(deadline=None)
@given(TEXTS, st.lists(st.integers(0, 5), min_size=2, max_size=12))
def test_the_loss_is_the_mean_surprise(text: list[int], other: list[int]) -> None:
    model = KneserNey(text, vocab_size=6)
    surprises = [
        -math.log(model.probabilities(other[:i])[other[i]])
        for i in range(1, len(other))
    ]
    loss = model.loss(other)
    assert loss == pytest.approx(sum(surprises) / len(surprises), rel=1e-12)
    rows = [np.array(row, dtype=np.uint8) for row in (text, other)]
    assert KneserNey(rows[0], vocab_size=6).loss(rows[1]) == loss
    expected = unigram_loss(text, other, 6)
    assert unigram_loss(*rows, 6) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("text", [[], [3]])
def test_a_text_with_nothing_to_predict(text: list[int]) -> None:
    for loss in (
        lambda: unigram_loss([0, 1], text, 6),
        lambda: KneserNey([0, 1], 6).loss(text),
    ):
        with pytest.raises(ValueError, match="nothing to predict: a text takes two"):
            loss()


def test_a_text_in_which_nothing_occurs_once() -> None:
    # The discount of the formula would be 0, and a surprise infinite. 010 and 101 occur
    # nine times each, so half a count in nine is left for the uniform guess of 1/3.
    model = KneserNey([0, 1] * 10, vocab_size=3)
    assert model.probability(2, [0, 1]) == pytest.approx(1 / 2 / 9 / 3)
    assert math.isfinite(model.loss([2, 2, 0, 1, 2]))


def test_the_more_it_knows_the_less_it_is_surprised() -> None:
    # The letters of a tale, of which the end is unseen.
    tale = next(tale for tale in andersen() if tale.startswith("THE SNOW QUEEN"))
    text, unseen = tale[:30_000].encode(), tale[30_000:33_000].encode()
    text, unseen = list(text), list(unseen)
    losses = [KneserNey(text, 256, order).loss(unseen) for order in (1, 2, 3, 4)]
    losses = [uniform_loss(256), *losses]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] == pytest.approx(unigram_loss(text, unseen, 256), rel=0.01)


def test_unigrams_of_a_text_longer_than_a_chunk(monkeypatch: pytest.MonkeyPatch):
    """In any number of chunks, and without a Python object for each token."""
    text = np.random.default_rng(0).integers(50, size=10_000).astype(np.uint16)
    whole = unigram_loss(text, text[:999], 60)
    counts = Counter(text.tolist())
    terms = [-math.log((counts[t] + 1) / (10_000 + 60)) for t in text[1:999].tolist()]
    assert whole == pytest.approx(math.fsum(terms) / 998, rel=1e-12)
    monkeypatch.setattr("minillm.training.baselines.CHUNK", 7)
    assert unigram_loss(text, text[:999], 60) == whole


def test_unigrams_are_counted_by_numpy() -> None:
    """Four million tokens in some hundredths of a second; one by one it took 1.4."""

    class Counted(np.ndarray):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            raise AssertionError("read token by token")

    text = (np.arange(100) % 7).astype(np.uint16).view(Counted)
    assert unigram_loss(text, text, 7) == pytest.approx(math.log(7), abs=0.01)
