r"""Operations on the tape: sums, products, and moving numbers about.

Each derivative stands on the line above its code. What is derived is always the same.
The result $y$ is known, its gradient $\bar y$ has arrived, and each input is owed its
share, $\bar x = \sum_i \bar y_i \, \partial y_i / \partial x$. Shares of numbers that
broadcasting has repeated are summed by the tape itself
([`Entry.receive`][minillm.training.tape.Entry.receive]).

**Before this:** [`minillm.training.tape`][]. **Next:** [`minillm.training.layers`][].
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from minillm.training.tape import Array, Node, Operand, product, record, values

__all__ = ["add", "embedding", "matmul", "mul", "reshape", "transpose"]


def add(a: Operand, b: Operand) -> Node:
    r"""The sum $c = a + b$: it hands its gradient on as it is.

    Args:
        a: an array, or a node.
        b: another, of a shape that broadcasts with the first.

    Returns:
        The sum.

    Raises:
        ValueError: if the shapes do not broadcast.

    Examples:
        >>> a, b = Node(np.ones((2, 3))), Node(np.ones(3))  # b is in both rows
        >>> add(a, b).backward(np.ones((2, 3)))
        >>> b.grad.tolist()
        [2.0, 2.0, 2.0]
    """
    x, y = values("add", a, b)
    # $\bar a = \bar c$ and $\bar b = \bar c$
    return record(x + y, (a, lambda g: g), (b, lambda g: g))


def mul(a: Operand, b: Operand) -> Node:
    r"""The product $c = a \odot b$ of numbers, entry by entry: each scales the other's.

    Args:
        a: an array, or a node.
        b: another, of a shape that broadcasts with the first.

    Returns:
        The product.

    Raises:
        ValueError: if the shapes do not broadcast.

    Examples:
        >>> a, b = Node([2.0, 3.0]), Node([[5.0], [7.0]])
        >>> mul(a, b).backward(np.ones((2, 2)))
        >>> a.grad.tolist(), b.grad.tolist()
        ([12.0, 12.0], [[5.0], [5.0]])
    """
    x, y = values("mul", a, b)
    # $\bar a = \bar c \odot b$ and $\bar b = \bar c \odot a$
    return record(x * y, (a, lambda g: g * y), (b, lambda g: g * x))


def reshape(a: Operand, shape: Sequence[int]) -> Node:
    """The same numbers in another shape: gradients go back to the old one.

    Args:
        a: an array, or a node.
        shape: the new shape; one size may be -1.

    Returns:
        The result.

    Examples:
        >>> a = Node(np.zeros((2, 3)))
        >>> reshape(a, (6,)).backward(np.arange(6.0))
        >>> a.grad.tolist()
        [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    """
    (x,) = values("reshape", a)
    old = x.shape
    return record(x.reshape(tuple(shape)), (a, lambda g: g.reshape(old)))


def transpose(a: Operand, axes: Sequence[int]) -> Node:
    """The axes in another order: gradients go back to the old one.

    Args:
        a: an array, or a node.
        axes: for each axis of the result, which axis of `a` it is, counted from 0.

    Returns:
        The result.

    Examples:
        >>> a = Node(np.zeros((2, 3)))
        >>> transpose(a, (1, 0)).backward(np.arange(6.0).reshape(3, 2))
        >>> a.grad.tolist()
        [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
    """
    (x,) = values("transpose", a)
    back = [axes.index(axis) for axis in range(x.ndim)]
    return record(x.transpose(axes), (a, lambda g: g.transpose(back)))


def matmul(a: Operand, b: Operand) -> Node:
    r"""The matrix product $C = AB$.

    An entry $c_{ij} = \sum_k a_{ik} b_{kj}$ uses $a_{ik}$ with slope $b_{kj}$, for all
    $j$. So $\bar a_{ik} = \sum_j \bar c_{ij} b_{kj}$, which is a product with $B$
    transposed; in the same way $\bar b_{kj} = \sum_i a_{ik} \bar c_{ij}$. You can find
    the transpositions again from the shapes: there is no other way to fit them.

    Args:
        a: (…, m, k), an array or a node.
        b: (…, k, n), an array or a node; the axes before the last two broadcast.

    Returns:
        (…, m, n), the product.

    Raises:
        ValueError: if the shapes do not fit.

    Examples:
        >>> a, b = Node(np.ones((2, 3))), Node(np.ones((3, 4)))
        >>> matmul(a, b).backward(np.ones((2, 4)))
        >>> a.grad.tolist(), b.grad.shape
        ([[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]], (3, 4))
        >>> matmul(a, a)
        Traceback (most recent call last):
        ValueError: matmul needs (…, m, k), (…, k, n); got (2, 3), (2, 3): transpose one
    """
    x, y = (t.value if isinstance(t, Node) else np.asarray(t) for t in (a, b))
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-2]:
        raise ValueError(
            f"matmul needs (…, m, k), (…, k, n); got {x.shape}, {y.shape}: "
            "transpose one"
        )
    if y.ndim == 2 < x.ndim:
        # One large product instead of many small ones, whose shares of $\bar B$ would
        # all have to be held and then summed.
        rows = matmul(reshape(a, (-1, x.shape[-1])), b)
        return reshape(rows, (*x.shape[:-1], y.shape[-1]))
    values("matmul", x[..., 0, 0], y[..., 0, 0])
    # $\bar A = \bar C B^\top$ and $\bar B = A^\top \bar C$
    return record(
        product(x, y),
        (a, lambda g: product(g, y.swapaxes(-1, -2))),
        (b, lambda g: product(x.swapaxes(-1, -2), g)),
    )


def check_ids(ids: Array, rows: int) -> None:
    """Refuse what is no integer, and what a table of so many rows does not have."""
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"ids must be integers; got {ids.dtype}: use .astype(int)")
    if ids.size and not 0 <= ids.min() <= ids.max() < rows:
        raise ValueError(
            f"ids must lie in 0 … {rows - 1}, the vocabulary; got {ids.min()} … "
            f"{ids.max()}: use the tokenizer of this model"
        )


def embedding(weight: Operand, ids: Integer[np.ndarray, "*batch"]) -> Node:
    r"""The vector of each id: row $i$ of the table.

    A row gets the sum of what comes back to all positions where its id stands.

    Args:
        weight: (V, d), an array or a node.
        ids: the ids, a plain array.

    Returns:
        (…, d), the vectors.

    Raises:
        TypeError: if the ids are not integers.
        ValueError: if an id is not in the table.

    Examples:
        >>> table = Node(np.zeros((3, 1)))
        >>> embedding(table, np.array([2, 0, 2])).backward(np.ones((3, 1)))
        >>> table.grad.ravel().tolist()
        [1.0, 0.0, 2.0]
    """
    (w,) = values("embedding", weight)
    check_ids(ids, len(w))
    shape, dtype = w.shape, w.dtype

    def pull(g: Array) -> Array:
        w_bar = np.zeros(shape, dtype)
        # `w_bar[ids] += g` would add only one of the shares of an id that repeats.
        np.add.at(w_bar, ids, g)
        return w_bar

    return record(w[ids], (weight, pull))
