r"""Exercises to chapter 4: backpropagation by hand.

Write each function in the place of its `raise NotImplementedError`, and ask, in
this folder:

    minillm exercises check gradients.matmul    # one of them
    minillm exercises check gradients           # those of this file

All arrays are of float64. A bar is written `_bar`: `y_bar` is the gradient of the loss
with respect to `y`, in the shape of `y`. The functions change nothing that they are
given: they return what is new.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def numerical(f: Callable[[Array], float], x: Array, eps: float) -> Array:
    r"""Find the gradient of `f` at `x` by trying, one number of `x` after the other.

    Take the central difference, $(f(x + \epsilon) - f(x - \epsilon)) / 2\epsilon$. The
    result has the shape of `x`, which may have any number of axes. Graded is also what
    is left in `x`: what was there.

    >>> numerical(lambda x: float((x * x).sum()), np.array([1.0, 3.0]), 0.5).tolist()
    [2.0, 6.0]
    """
    raise NotImplementedError


def backward(edges: list[tuple[int, int, float]], n: int) -> list[float]:
    r"""Walk a tape of single numbers backwards.

    The numbers are called 0 to `n - 1`, in the order in which they were made; the last
    is the loss. An edge `(y, x, slope)` says that number `y` was made from number `x`
    and that its slope is $\partial y / \partial x$. Edges stand in the order of `y`.
    Return the slope of the loss in each number.

    >>> backward([(1, 0, 2.0), (2, 0, 5.0), (2, 1, 3.0)], 3)  # 2 is made from 0 and 1
    [11.0, 3.0, 1.0]
    """
    raise NotImplementedError


def sum_to_shape(y_bar: Array, shape: tuple[int, ...]) -> Array:
    r"""Undo broadcasting: an array of `shape` was repeated to the shape of `y_bar`.

    Broadcasting adds axes in front, and repeats along axes of size 1. Each number gets
    the sum over all its copies, and the result has the shape `shape`.

    >>> sum_to_shape(np.ones((2, 3)), (3,)).tolist()
    [2.0, 2.0, 2.0]
    >>> sum_to_shape(np.ones((2, 3)), (2, 1)).tolist()
    [[3.0], [3.0]]
    """
    raise NotImplementedError


def matmul(a: Array, b: Array, c_bar: Array) -> tuple[Array, Array]:
    r"""Given $\bar C$ for the product $C = AB$, return $\bar A$ and $\bar B$.

    `a` is (…, m, k), `b` is (k, n), `c_bar` is (…, m, n): the same `b` is used for
    every matrix in `a`.

    >>> a_bar, b_bar = matmul(np.array([[1.0, 2.0]]), np.eye(2), np.array([[3.0, 5.0]]))
    >>> a_bar.tolist(), b_bar.tolist()
    ([[3.0, 5.0]], [[3.0, 5.0], [6.0, 10.0]])
    """
    raise NotImplementedError


def softmax(p: Array, p_bar: Array) -> Array:
    r"""Given $\bar p$ for the probabilities $p$, the softmax of $x$, return $\bar x$.

    Both are (…, n), and the probabilities sum to one along the last axis.

    >>> softmax(np.array([0.25, 0.75]), np.array([1.0, 0.0])).tolist()
    [0.1875, -0.1875]
    """
    raise NotImplementedError


def cross_entropy(logits: Array, targets: NDArray[np.int64]) -> Array:
    r"""Return the gradient of the mean cross-entropy with respect to the logits.

    `logits` is (positions, vocab), `targets` is (positions,): the ids that came. The
    loss is the mean of $-\ln p_y$ over the positions. Scores of 1000 must not overflow.

    >>> cross_entropy(np.zeros((1, 4)), np.array([2])).tolist()
    [[0.25, 0.25, -0.75, 0.25]]
    """
    raise NotImplementedError


def embedding(y_bar: Array, ids: NDArray[np.int64], vocab_size: int) -> Array:
    r"""Given the gradient of looked-up vectors, return that of the table.

    Row `ids[t]` of a table of `vocab_size` rows was looked up for position `t`; `y_bar`
    is (positions, d). The result is (vocab_size, d).

    >>> embedding(np.array([[1.0], [10.0]]), np.array([2, 0]), 3).tolist()
    [[10.0], [0.0], [1.0]]
    """
    raise NotImplementedError


def residual(y_bar: Array, pull: Callable[[Array], Array]) -> Array:
    r"""Given $\bar y$ for $y = x + f(x)$, return $\bar x$.

    `pull` takes the gradient of the result of $f$, and returns that of its input.

    >>> residual(np.array([1.0, 2.0]), lambda g: 10 * g).tolist()
    [11.0, 22.0]
    """
    raise NotImplementedError
