r"""Intervals: how far a score may be from what it estimates.

**The question.** A score is a mean over questions that happened to be asked. How far
off might it be? For shares of right answers there is a formula; for everything else the
sample itself is asked, by resampling, and for a handful of seeds by its spread.

**Before this:** [`minillm.evaluation`][], which shows what they are for.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, mean, stdev

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "STUDENT",
    "binomial_interval",
    "bootstrap_interval",
    "mean_interval",
    "questions_needed",
]

STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Nineteen of twenty draws of Student's t lie within ± these, for 1, 2, 3 … freedoms;
for more than ten, take the last."""


def binomial_interval(c: int, n: int, level: float = 0.95) -> tuple[float, float]:
    r"""Which rates go well with $c$ right answers of $n$?

    Those $p$ that are no further from $\hat p = c / n$ than $z$ of *their own* standard
    deviations, $|\hat p - p| \le z \sqrt{p (1 - p) / n}$. Solving the square for $p$
    gives both ends (Wilson 1927):

    $$\frac{\hat p + \frac{z^2}{2n} \pm z \sqrt{\frac{\hat p (1 - \hat p)}{n} +
    \frac{z^2}{4 n^2}}}{1 + z^2 / n}$$

    Args:
        c: how many are right, from 0 to `n`.
        n: how many questions, at least 1. Answers are independent.
        level: how often such an interval holds the true rate, about; in $(0, 1)$.

    Returns:
        The lowest and the highest of these rates.

    Raises:
        ValueError: if a number is out of its range.

    Examples:
        >>> [round(x, 3) for x in binomial_interval(8, 10)]
        [0.49, 0.943]
        >>> binomial_interval(11, 10)
        Traceback (most recent call last):
        ValueError: c must lie between 0 and n=10; got 11: count right answers
    """
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n}: without answers, no score")
    if not 0 <= c <= n:
        raise ValueError(
            f"c must lie between 0 and n={n}; got {c}: count right answers"
        )
    z = _z(level)
    p = c / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    # At the ends the formula gives exactly 0 or 1, and rounding something beside it.
    return (0.0 if c == 0 else low), (1.0 if c == n else high)


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}: 0.95 is usual")
    return NormalDist().inv_cdf((1 + level) / 2)


def questions_needed(
    p: float, q: float, power: float = 0.8, level: float = 0.95
) -> int:
    r"""How many questions tell two rates apart, if each model gets its own?

    $$n = \left(z_{(1 + \text{level}) / 2} + z_\text{power}\right)^2\;
    \frac{p (1 - p) + q (1 - q)}{(p - q)^2}$$

    Args:
        p: one rate.
        q: the other.
        power: how often the difference shall be found.
        level: the level of the interval that has to exclude zero.

    Returns:
        Questions for each of the two models.

    Raises:
        ValueError: if the rates are equal, or a number is outside $(0, 1)$.

    Examples:
        >>> questions_needed(0.40, 0.45), questions_needed(0.40, 0.60)
        (1531, 95)
    """
    if not (0 < p < 1 and 0 < q < 1) or p == q:
        raise ValueError(
            f"two different rates between 0 and 1 are needed; got {p} and {q}"
        )
    if not 0 < power < 1:
        raise ValueError(f"power must lie between 0 and 1; got {power}: 0.8 is usual")
    z = _z(level) + NormalDist().inv_cdf(power)
    return math.ceil(z**2 * (p * (1 - p) + q * (1 - q)) / (p - q) ** 2)


def bootstrap_interval(
    values: ArrayLike, level: float = 0.95, seed: int = 0, *, n_resamples: int = 10_000
) -> tuple[float, float]:
    r"""How far might the mean be off? Ask the sample itself.

    If we could draw other questions, we would see how the mean moves. We cannot, but
    the ones we have are the best picture of all: draw $n$ of them *with* replacement,
    take the mean, and do it ten thousand times. The middle 95 % of these means are the
    interval (Efron 1979; the *percentile* bootstrap). For a comparison, give the
    differences question by question: the pairs stay together.

    Args:
        values: one number for each question, at least two.
        level: the share of means inside; in $(0, 1)$.
        seed: fixes the resampling.
        n_resamples: how many means.

    Returns:
        The lowest and the highest of these means.

    Raises:
        ValueError: if there are fewer than two values, one is not a finite number, or
            `n_resamples` is below 1.

    Examples:
        Close to the formula where there is one, and where there is none, still there:

        >>> [round(x, 2) for x in bootstrap_interval([1] * 45 + [0] * 55)]
        [0.36, 0.55]
        >>> bootstrap_interval([0.5])
        Traceback (most recent call last):
        ValueError: an interval needs at least 2 values; got 1
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    if len(x) < 2:
        raise ValueError(f"an interval needs at least 2 values; got {len(x)}")
    if not np.isfinite(x).all():
        raise ValueError("a value is not a finite number: leave it out, and say so")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1; got {n_resamples}")
    _z(level)
    random = np.random.default_rng(seed)
    # In blocks of about a million numbers, so that memory does not grow with both.
    block = max(1, 10**6 // len(x))
    means = np.concatenate([
        x[random.integers(len(x), size=(min(block, n_resamples - i), len(x)))].mean(1)
        for i in range(0, n_resamples, block)
    ])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    r"""How far might the mean of a few runs be off?

    With three seeds there is nothing to resample. If the values scatter normally, with
    a standard deviation $s$ that is only known from themselves, the mean of all seeds
    that could have been taken lies within

    $$\bar x \pm t\, \frac{s}{\sqrt n}$$

    nineteen times in twenty, with Student's $t$ for $n - 1$ freedoms. To compare two
    ways, give the differences seed by seed; if the interval holds zero, these runs have
    shown no difference.

    Args:
        values: one number for each run, at least two.

    Returns:
        The mean, and half of the interval.

    Raises:
        ValueError: if there are fewer than two values.

    Examples:
        Three differences, all of them positive, are not yet a gain:

        >>> print("{:.2f} ± {:.2f}".format(*mean_interval([0.1, 0.2, 0.1])))
        0.13 ± 0.14
        >>> mean_interval([0.5])
        Traceback (most recent call last):
        ValueError: an interval needs at least 2 values; got 1
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 values; got {n}")
    t = STUDENT[min(n - 1, len(STUDENT)) - 1]
    return mean(values), t * stdev(values) / math.sqrt(n)
