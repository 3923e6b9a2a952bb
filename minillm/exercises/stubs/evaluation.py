r"""Exercises to chapter 12: how good is it, and how sure are we?

Write each function in the place of its `raise NotImplementedError`, and ask, in
this folder:

    minillm exercises check evaluation.pass_at_k   # one of them
    minillm exercises check evaluation             # those of this file
"""

import math
from collections.abc import Sequence


def pass_at_k(n: int, c: int, k: int) -> float:
    r"""Of n samples c are right. How probable is a right one among k of them?

    All ways to take k of the n samples are equally likely, and k is at most n.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    raise NotImplementedError


def interval(c: int, n: int) -> tuple[float, float]:
    r"""The rates p from which c right answers of n are at most 1.96 deviations away.

    $$\left|\frac{c}{n} - p\right| \le 1.96 \sqrt{\frac{p (1 - p)}{n}}$$

    Return the lowest and the highest.

    >>> [round(x, 3) for x in interval(8, 10)]
    [0.49, 0.943]
    """
    raise NotImplementedError


def paired_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    r"""By how much is model b better than a, with 95 % certainty?

    Both were asked the same questions, at least two; entry i is what question i earned.
    The interval is the mean of the differences, minus and plus 1.96 of its standard
    errors; a standard error is the standard deviation (with n - 1) by the root of n.

    >>> [round(x, 2) for x in paired_interval([0, 0, 1, 1], [0, 1, 1, 1])]
    [-0.24, 0.74]
    """
    raise NotImplementedError


def best_choice(log_likelihoods: Sequence[float], choices: Sequence[str]) -> int:
    r"""Which choice has the greatest log-likelihood per byte (of UTF-8)?

    Return its index, the first among equals.

    >>> best_choice([-4.0, -6.0], ["no", "maybe"])
    1
    """
    raise NotImplementedError


def best_of(n_models: int, n_questions: int) -> float:
    r"""Predict: how good does the best of many equal models look?

    n_models models answer n_questions questions each. All of them are right with
    probability 0.5, at every question. The best of them is published. What score has
    it, on average? Return a share from 0 to 1; the grader computes it exactly and
    compares, within 2 %. Of twenty models and a hundred questions, with one digit:

    >>> round(best_of(20, 100), 1)
    0.6
    """
    raise NotImplementedError
