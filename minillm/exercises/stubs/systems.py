r"""Exercises to chapter 8: systems.

Write each function in the place of its `raise NotImplementedError`, and ask, in
this folder:

    minillm exercises check systems.product_seconds  # one of them
    minillm exercises check systems                  # those of this file

Arrays are NumPy's, of float64. The functions change nothing that they are given: they
return what is new.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def product_seconds(m: int, n: int, p: int, peak: float, bandwidth: float) -> float:
    r"""Predict how long a product of matrices takes, $(m, n) \times (n, p)$.

    The machine does `peak` FLOP/s and moves `bandwidth` bytes/s, both at the same time;
    numbers have four bytes. Both factors are read once, the result is written once.

    >>> product_seconds(10, 10, 10, peak=1000.0, bandwidth=1e9)  # 2000 FLOPs
    2.0
    >>> product_seconds(1, 10, 10, peak=1e9, bandwidth=100.0)  # 480 bytes
    4.8
    """
    raise NotImplementedError


def online_softmax_update(
    m: Array, total: Array, gathered: Array, scores: Array, values: Array
) -> tuple[Array, Array, Array]:
    r"""Take a new block of scores and values into a running softmax.

    For each query, `m` is the largest score so far, `total` the sum of $e^{s - m}$, and
    `gathered` the sum of $e^{s - m}\, v$. The shapes: `m` and `total` (queries, 1),
    `gathered` (queries, d), `scores` (queries, block), `values` (block, d). Return all
    three as they are after the block. Scores of 1000 must not overflow.

    >>> zero = np.zeros((1, 1))
    >>> one, two = np.array([[1.0]]), np.array([[2.0]])
    >>> m, total, gathered = online_softmax_update(zero, one, two, zero, one)
    >>> m.tolist(), total.tolist(), gathered.tolist()
    ([[0.0]], [[2.0]], [[3.0]])
    """
    raise NotImplementedError


def chunk_to_send(rank: int, turn: int, n: int) -> int:
    r"""Say which chunk a rank sends in a turn of a ring all-reduce.

    There are `n` ranks and `n` chunks, both counted from 0. In turn 0, each rank sends
    the chunk of its own number to the rank above it; the last sends to rank 0. In every
    later turn it sends on the chunk that it received in the turn before. There are
    $2(n - 1)$ turns: in the first half the receiver adds, in the second it replaces.

    >>> [chunk_to_send(0, turn, 3) for turn in range(4)]
    [0, 2, 1, 0]
    """
    raise NotImplementedError


def mean_loss(losses: list[float], tokens: list[int]) -> float:
    r"""Compute the mean loss per token of a batch that several ranks share.

    Rank `i` has found the mean loss `losses[i]` over its `tokens[i]` tokens. The result
    is the loss that one process would find for all tokens.

    >>> mean_loss([1.0, 4.0], [2, 1])
    2.0
    """
    raise NotImplementedError


def fit_line(sizes: list[float], seconds: list[float]) -> tuple[float, float]:
    r"""Find latency and bandwidth in the times of two messages.

    A message of $s$ bytes takes $\alpha + s / \beta$ seconds. There are two messages of
    different sizes; return $\alpha$ in seconds and $\beta$ in bytes per second.

    >>> fit_line([0.0, 100.0], [1.0, 2.0])
    (1.0, 100.0)
    """
    raise NotImplementedError


def shard(size: int, rank: int, n: int) -> tuple[int, int]:
    r"""Say which of `size` numbers belong to a rank, as the first and the end.

    Each of `n` ranks has $\lceil \mathit{size} / n \rceil$ numbers in a row, in the
    order of the ranks, as far as there are any: the last ones may have fewer or none.

    >>> [shard(10, rank, 4) for rank in range(4)]
    [(0, 3), (3, 6), (6, 9), (9, 10)]
    >>> shard(2, 2, 3)
    (2, 2)
    """
    raise NotImplementedError


def column_then_row(x: Array, a: list[Array], b: list[Array]) -> Array:
    r"""Compute $\max(xA, 0)\, B$ as the ranks of tensor parallelism do.

    Rank `i` has the columns `a[i]` of $A$ and the rows `b[i]` of $B$. Each computes its
    part without asking the others; the result is what one all-reduce makes of the
    parts.

    >>> x = np.array([[1.0]])
    >>> a = [np.array([[1.0]]), np.array([[-1.0]])]
    >>> column_then_row(x, a, [np.array([[2.0]]), np.array([[3.0]])]).tolist()
    [[2.0]]
    """
    raise NotImplementedError


def bubble(stages: int, micro_batches: int) -> float:
    r"""Say which share of a pipeline's time its ranks wait.

    All forward passes take one unit of time in each stage, all backward passes two; a
    batch of `micro_batches` goes forward through all stages and then back.

    >>> bubble(2, 3)
    0.25
    """
    raise NotImplementedError
