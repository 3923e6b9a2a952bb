r"""Several tries: how probable is at least one success?

**The question.** A model may try $k$ times. Of $n$ samples, $c$ were right. What is the
probability that one of $k$ is?

The obvious estimate, $1 - (1 - c / n)^k$, puts a rounded number to the power of $k$: it
is biased, downwards, and all the more if there are few samples. Counting subsets is
not.

**Before this:** [`minillm.evaluation`][].
"""

import math

__all__ = ["pass_at_k"]


def pass_at_k(n: int, c: int, k: int) -> float:
    r"""Estimate the probability that at least one of $k$ samples is right.

    Of all $\binom{n}{k}$ ways to take $k$ of the $n$ samples, $\binom{n - c}{k}$ have
    no right one among them:

    $$1 - \binom{n - c}{k} \Big/ \binom{n}{k}$$

    The mean over these ways is unbiased, since each alone is (Chen et al. 2021,
    equation 1).

    Args:
        n: how many samples there are.
        c: how many of them are right, from 0 to `n`.
        k: how many tries, from 1 to `n`.

    Returns:
        The estimate.

    Raises:
        ValueError: if a number is out of its range.

    Examples:
        >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 1, 4)
        (0.25, 0.5, 1.0)
        >>> pass_at_k(4, 1, 8)
        Traceback (most recent call last):
        ValueError: k must lie between 1 and n=4; got 8: take more samples
    """
    if not 0 <= c <= n:
        raise ValueError(
            f"c must lie between 0 and n={n}; got {c}: count right answers"
        )
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and n={n}; got {k}: take more samples")
    # Whole numbers until the end: nothing overflows, and nothing is rounded before.
    return 1 - math.comb(n - c, k) / math.comb(n, k)
