r"""The tape: arrays that know what they were made from.

**The question.** A record of every single number is larger than any memory. What is the
least that a record of whole arrays must hold, so that a walk backwards can still find
every gradient?

**Before this:** [`minillm.gradients`][] and its tape of single numbers. Unlike it:

- *An array is one entry.* An [`Entry`][minillm.training.tape.Entry] keeps, for each
  array that its value was made from, a function from $\bar y$ to a share of $\bar x$,
  where a [`Scalar`][minillm.gradients.Scalar] keeps a slope.
- *Values are not on it.* A [`Node`][minillm.training.tape.Node] is a value with an
  entry. When the forward pass lets go of a node, its value is freed, unless some
  function of the tape still needs it.
- *It is used up.* Each function is dropped as soon as it has run, and with it what it
  has kept. So memory falls during the walk, and a second walk is an error.

**Next:** [`minillm.training.operations`][] puts functions on it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "Entry",
    "Node",
    "Operand",
    "Pull",
    "Result",
    "Work",
    "product",
    "record",
    "values",
]

Array = NDArray[Any]
"""An array of floating-point numbers, of any shape."""

Result = Array | np.floating[Any]
"""What NumPy returns: an array, or a single number where no axes are left."""

Pull = Callable[[Array], Result]
r"""Turns $\bar y$ into a share of $\bar x$."""


class Entry:
    r"""One entry of the tape: a gradient, and the functions that pass it on.

    It does not hold the value. Once the forward pass is over, only those arrays remain
    that some function still needs.

    Attributes:
        shape: that of the value, and of the gradient.
        grad: the shares of $\bar x$ that have come in; `None` before the first.
        parents: entries of what the value was made from, each with the function that
            turns $\bar y$ into its share; `None` once they have been used.

    Examples:
        Shares come in one by one. The value here is (2,), and was repeated three times:

        >>> entry = Entry((2,))
        >>> entry.receive(np.ones((3, 2)))
        >>> entry.receive(np.array([0.5, 0.0]))
        >>> entry.grad.tolist()
        [3.5, 3.0]
    """

    __slots__ = ("grad", "parents", "shape")

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.grad: Array | None = None
        self.parents: tuple[tuple[Entry, Pull], ...] | None = ()

    def receive(self, share: Result) -> None:
        """Add a share, summed over the axes along which the value was repeated."""
        g: Array = np.asarray(share)
        if g.ndim < len(self.shape):
            g = np.broadcast_to(g, self.shape)
        new = g.ndim - len(self.shape)
        axes = tuple(
            axis
            for axis, size in enumerate(g.shape)
            if axis < new or self.shape[axis - new] < size
        )
        if axes:
            g = g.sum(axis=axes, keepdims=True).reshape(self.shape)
        if self.grad is not None:
            # Not `+=`: the array may be the gradient of another entry as well.
            self.grad = np.asarray(self.grad + g)
        else:
            # A leaf's gradient is for its owner to change, so it is a copy.
            self.grad = g if self.parents else np.array(g, order="C")


class Node:
    r"""An array whose gradient can be asked for.

    Args:
        value: floating-point numbers of any shape.

    Attributes:
        value: the array.
        entry: its place on the tape.
        constant: whether it is the result of an operation on plain arrays alone.

    Raises:
        TypeError: if the value is not made of floating-point numbers.

    Examples:
        >>> x = Node([1.0, 2.0, 3.0])
        >>> x.grad is None
        True
        >>> square = record(x.value @ x.value, (x, lambda g: 2 * x.value * g))
        >>> square.backward()
        >>> x.grad.tolist()
        [2.0, 4.0, 6.0]

        The walk has used up the tape, and its memory is free again:

        >>> square.backward()
        Traceback (most recent call last):
        RuntimeError: backward() has used up this tape: run the forward pass again

        A leaf, which is made from nothing, adds up its gradients over several walks. To
        begin anew, make a new node. Until the walk is over, do not change a value in
        place: the tape may still need it.
    """

    def __init__(self, value: Any) -> None:
        self.value = np.asarray(value)
        if not np.issubdtype(self.value.dtype, np.floating):
            raise TypeError(
                f"a gradient needs floating-point numbers; got {self.value.dtype} of "
                f"shape {self.value.shape}: pass .astype(float), or leave ids as plain "
                "arrays"
            )
        self.entry, self.constant = Entry(self.value.shape), False

    @property
    def grad(self) -> Array | None:
        r"""$\bar x$, the gradient of the loss, in the shape of the value."""
        return self.entry.grad

    def backward(self, seed: Array | None = None) -> None:
        r"""Compute the gradient of this node for everything it was made from.

        Args:
            seed: $\bar y$ for this node, in its shape; `None` means 1, and the node
                must be a single number, the loss.

        Raises:
            RuntimeError: if part of the tape has been used up by an earlier call.
            ValueError: if the node is not a single number and there is no seed, the
                seed has another shape, or the tape has a cycle.
        """
        if seed is None and self.value.size != 1:
            raise ValueError(
                f"backward() starts from one number, the loss; got shape "
                f"{self.value.shape}: reduce it, or pass the gradient of each entry"
            )
        dtype = self.value.dtype
        seed = np.ones_like(self.value) if seed is None else np.asarray(seed, dtype)
        if seed.shape != self.value.shape:
            raise ValueError(
                f"the seed must have the node's shape {self.value.shape}; got "
                f"{seed.shape}: reshape it"
            )
        order = in_order(self.entry)
        self.entry.receive(seed)
        while order:
            # Popped and emptied, an entry is free as soon as nobody else holds it.
            entry = order.pop()
            if not entry.parents:
                continue
            assert entry.grad is not None  # from whatever was made from it
            for parent, pull in entry.parents:
                parent.receive(pull(entry.grad))
            entry.parents = None


def in_order(last: Entry) -> list[Entry]:
    """List the entries that lead to the last, each after those it was made from."""
    # The recursion of `Scalar.backward` with a stack of our own: a deep model has more
    # entries in a line than Python allows nested calls.
    order: list[Entry] = []
    open_: dict[Entry, bool] = {}  # whether what an entry was made from is being listed
    stack = [(last, False)]
    while stack:
        entry, left = stack.pop()
        if left:
            open_[entry] = False
            order.append(entry)
        elif entry.parents is None:
            raise RuntimeError(
                "backward() has used up this tape: run the forward pass again"
            )
        elif open_.get(entry):
            raise ValueError(
                f"the tape has a cycle: a value of shape {entry.shape} is made from "
                "itself; give each result a new Node"
            )
        elif entry not in open_:
            open_[entry] = True
            stack.append((entry, True))
            stack.extend((parent, False) for parent, _ in entry.parents)
    return order


Operand = Node | Array | float
"""What an operation takes: a node, or a constant."""


def record(value: Result, *parents: tuple[Operand, Pull]) -> Node:
    r"""Write a result on the tape.

    Args:
        value: the result $y$.
        parents: what it was made from, each with the function that turns $\bar y$ into
            its share of $\bar x$. The function of a constant is dropped, and with it
            all that it would keep.

    Returns:
        The node of the result.

    Examples:
        An operation of your own, $y = x^2$ with $\bar x = 2 x \bar y$:

        >>> x = Node(3.0)
        >>> y = record(x.value**2, (x, lambda g: 2 * x.value * g))
        >>> y.backward()
        >>> float(x.grad)
        6.0
    """
    node = Node(value)
    node.entry.parents = tuple(
        (parent.entry, pull)
        for parent, pull in parents
        if isinstance(parent, Node) and not parent.constant
    )
    node.constant = not node.entry.parents
    return node


class Work:
    """What the tape has computed so far, in this process.

    Attributes:
        flops: additions and multiplications in matrix products, forward and backward.
    """

    flops = 0


def product(x: Array, y: Array) -> Array:
    """Multiply matrices, and count the FLOPs: two for each step of each sum.

    Args:
        x: (…, m, k).
        y: (…, k, n).

    Returns:
        (…, m, n), the product.

    Examples:
        >>> before = Work.flops
        >>> product(np.ones((2, 3)), np.ones((3, 4))).shape, Work.flops - before
        ((2, 4), 48)
    """
    z = np.matmul(x, y)
    Work.flops += 2 * z.size * x.shape[-1]
    return z


def values(name: str, *operands: Operand) -> list[Array]:
    """Take the arrays out of nodes, and make sure that their shapes broadcast.

    Args:
        name: of the operation, for the error.
        operands: nodes, arrays or numbers.

    Returns:
        The arrays.

    Raises:
        ValueError: if the shapes do not broadcast.

    Examples:
        >>> values("add", Node(np.ones((2, 3))), np.ones(2))
        Traceback (most recent call last):
        ValueError: add needs shapes that broadcast; got (2, 3) and (2,): reshape one
    """
    plain = [x.value if isinstance(x, Node) else x for x in operands]
    # A number of Python takes the precision of the arrays beside it.
    dtype = np.result_type(*plain)
    arrays = [np.asarray(x, dtype if np.isscalar(x) else None) for x in plain]
    try:
        np.broadcast_shapes(*(x.shape for x in arrays))
    except ValueError:
        shapes = " and ".join(str(x.shape) for x in arrays)
        raise ValueError(
            f"{name} needs shapes that broadcast; got {shapes}: reshape one"
        ) from None
    return arrays
