"""What a score means: every number by enumeration, simulation or another library."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.evaluation import (
    binomial_interval,
    bootstrap_interval,
    chance_corrected,
    pass_at_k,
    questions_needed,
    spread,
)
from minillm.inference.intervals import mean_interval


def binomial(n, p):
    return [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]


# pass@k


@given(st.integers(1, 7), st.data())
def test_pass_at_k_counts_the_subsets(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    samples = [True] * c + [False] * (n - c)
    subsets = list(itertools.combinations(samples, k))
    share = sum(map(any, subsets)) / len(subsets)
    assert pass_at_k(n, c, k) == pytest.approx(share)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_pass_at_k_is_unbiased_and_the_naive_estimate_is_not(p, k):
    n, truth = 12, 1 - (1 - p) ** k
    ours = sum(q * pass_at_k(n, c, k) for c, q in enumerate(binomial(n, p)))
    assert ours == pytest.approx(truth)
    naive = sum(q * (1 - (1 - c / n) ** k) for c, q in enumerate(binomial(n, p)))
    assert (naive == pytest.approx(truth)) == (k == 1)


def test_pass_at_k_does_not_overflow():
    assert pass_at_k(10**5, 1, 10) == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("n", "c", "k", "message"),
    [
        (4, 5, 1, "c must lie between 0 and n=4; got 5"),
        (4, -1, 1, "got -1"),
        (4, 1, 0, "k must lie between 1 and n=4; got 0"),
        (4, 1, 5, "got 5: take more samples"),
        (0, 0, 1, "k must lie between"),
    ],
)
def test_impossible_counts_are_refused(n, c, k, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(n, c, k)


# Intervals


@pytest.mark.parametrize(("c", "n"), [(0, 20), (1, 20), (8, 10), (45, 100), (7, 7)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_ends_of_the_binomial_interval_are_just_z_deviations_away(c, n, level):
    scipy_z = {0.8: 1.2815515655446004, 0.95: 1.959963984540054}[level]
    for end in binomial_interval(c, n, level):
        deviation = math.sqrt(end * (1 - end) / n)
        assert abs(c / n - end) == pytest.approx(scipy_z * deviation, abs=1e-9)


def coverage(interval, n, p):
    """How often an interval holds the true rate: over all outcomes, exactly."""
    covered = 0.0
    for c, q in enumerate(binomial(n, p)):
        low, high = interval(c, n)
        covered += q * (low <= p <= high)
    return covered


@pytest.mark.parametrize("n", [20, 100])
@pytest.mark.parametrize("p", [0.02, 0.1, 0.4, 0.5, 0.95])
def test_the_binomial_interval_covers_about_as_often_as_it_says(n, p):
    assert 0.89 < coverage(binomial_interval, n, p) <= 1


def test_the_textbook_interval_does_not():
    def textbook(c, n):
        p = c / n
        half = 1.96 * math.sqrt(p * (1 - p) / n)
        return p - half, p + half

    assert textbook(0, 20) == (0, 0)
    assert coverage(textbook, 20, 0.02) < 0.4


@pytest.mark.parametrize(("p", "q"), [(0.4, 0.45), (0.4, 0.6), (0.9, 0.95)])
def test_so_many_questions_find_the_difference_as_often_as_they_should(p, q):
    random, n = np.random.default_rng(0), questions_needed(p, q)
    a, b = random.binomial(n, [[p], [q]], (2, 20_000)) / n
    half = 1.96 * np.sqrt((a * (1 - a) + b * (1 - b)) / n)
    assert ((b - a) > half).mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.4, 0.4), "two different rates"),
        ((0.0, 0.4), "two different rates"),
        ((0.4, 0.5, 1.0), "power must lie between 0 and 1; got 1"),
        ((0.4, 0.5, 0.8, 0), "level must lie between 0 and 1; got 0"),
    ],
)
def test_impossible_questions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        questions_needed(*arguments)


def test_the_bootstrap_agrees_with_the_normal_interval_where_that_is_right():
    values = np.random.default_rng(1).gamma(2, size=2000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_bootstrap_of_three_values_is_an_enumeration():
    values = [0.0, 1.0, 5.0]
    means = sorted(sum(v) / 3 for v in itertools.product(values, repeat=3))
    # Of the 27 resamples, each has a probability of 3.7 %: at a level of 0.8 the ends
    # are the third from either side.
    low, high = bootstrap_interval(values, level=0.8)
    assert low in means[2:4] and high in means[-4:-2]


def test_pairs_stay_together():
    random = np.random.default_rng(2)
    a = random.integers(0, 2, 200).astype(float)
    b = a.copy()
    b[:10] = 1 - b[:10]
    paired = np.subtract(*bootstrap_interval(b - a)[::-1])
    unpaired = np.subtract(*bootstrap_interval(random.permutation(b) - a)[::-1])
    assert paired < unpaired / 2


def test_the_bootstrap_is_repeatable_and_needs_values():
    values = [0.0, 0.5, 1.0, 1.0]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    many = np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(many, seed=3) != bootstrap_interval(many, seed=4)
    for bad, message in (
        ([1.0], "at least 2 values; got 1"),
        ([1, math.nan], "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            bootstrap_interval(bad)
    with pytest.raises(ValueError, match="level must lie"):
        bootstrap_interval(values, level=1)
    with pytest.raises(ValueError, match="n_resamples must be at least 1; got 0"):
        bootstrap_interval(values, n_resamples=0)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_spread_finds_what_was_put_in(seed):
    random = np.random.default_rng(seed)
    of_seed, of_question = random.normal(0, 0.1, (40, 1)), random.normal(0, 0.3, 400)
    found = spread(0.5 + of_seed + of_question)
    # Both are known from the very numbers that were put in.
    assert found.mean == pytest.approx(0.5 + of_seed.mean() + of_question.mean())
    assert found.seeds == pytest.approx(of_seed.std(ddof=1))
    assert found.questions == pytest.approx(of_question.std(ddof=1) / 20)


def test_spread_needs_two_of_each():
    for shape in ((1, 5), (5, 1), (5,)):
        with pytest.raises(ValueError, match="two seeds and two questions"):
            spread(np.zeros(shape))


def test_luck_is_not_taken_for_seeds_or_questions():
    random = np.random.default_rng(0)
    found = [spread(random.random((5, 100)) < 0.5) for _ in range(400)]
    seeds, questions, rest = np.square(found)[:, 1:].mean(0)
    # The standard deviation of one score is that of a hundred coins.
    assert rest == pytest.approx(0.5**2 / 100, rel=0.02)
    # An estimate that may not be negative is above zero on average, but not by much.
    assert seeds < 0.4 * rest and questions < 0.1 * rest


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_of_a_spread_add_up_to_one_score(seed):
    random = np.random.default_rng(seed)
    shape, n = (200, 400), 400
    of_seed, of_question = random.normal(0, 0.1, (200, 1)), random.normal(0, 0.3, n)
    found = spread(0.5 + of_seed + of_question + random.normal(0, 0.5, shape))
    assert found.seeds == pytest.approx(0.1, rel=0.15)
    assert found.questions == pytest.approx(0.3 / 20, rel=0.15)
    assert found.rest == pytest.approx(0.5 / 20, rel=0.02)


@pytest.mark.parametrize("n", [2, 3, 12])
def test_the_interval_of_a_mean_holds_it_19_times_in_20(n):
    random, hits = np.random.default_rng(n), 0
    for values in random.normal(3, 2, (4000, n)):
        middle, half = mean_interval(values.tolist())
        assert middle == pytest.approx(values.mean())
        hits += abs(middle - 3) < half
    # The count has a standard deviation of 0.35 %; for many values t is too careful.
    assert 0.936 < hits / 4000 < 0.965


@pytest.mark.parametrize("n_choices", [2, 4, 5])
def test_guessing_is_zero_after_the_correction(n_choices):
    assert chance_corrected(1 / n_choices, n_choices) == pytest.approx(0)
    assert chance_corrected(1.0, n_choices) == 1
    assert chance_corrected(0.0, n_choices) < 0


@pytest.mark.parametrize("accuracy", [45, -0.1, math.nan])
def test_percent_is_no_share(accuracy):
    with pytest.raises(ValueError, match=r"in \[0, 1\]; got .*: write 45 % as 0\.45"):
        chance_corrected(accuracy, 4)


def test_one_choice_is_none():
    with pytest.raises(ValueError, match="at least 2 choices; got 1"):
        chance_corrected(0.5, 1)
