r"""Gradients: backpropagation by hand, so that nothing is left to believe.

**The question.** A model of a million weights makes a bad prediction. How much did each
weight contribute, and in which direction should it move? The *gradient* answers: for
each weight, the slope of the loss, how fast the loss rises as that weight grows.
Libraries compute it behind the call `loss.backward()`. This chapter builds that call.

**Before this:** [`minillm.model`][], the Transformer, whose gradient we want. You need
Python, matrix products, and the derivatives of a sum, a product and $e^x$.

# A slope by trying

Move one weight by a small $\epsilon$, compute the loss again, and divide the change by
$\epsilon$: that quotient, a *finite difference*, is close to the slope. The slope of
$w^3$ at 1 is 3. How far off is the quotient?

>>> for eps in (1e-1, 1e-4, 1e-8, 1e-12, 1e-16):
...     w = 1 + eps
...     print(f"{eps:.0e} {abs((w * w * w - 1) / eps - 3):.0e}")
1e-01 3e-01
1e-04 3e-04
1e-08 4e-09
1e-12 3e-04
1e-16 3e+00

A large $\epsilon$ measures a curve as if it were straight. A small one subtracts two
losses that agree in nearly all of their digits, and what is left is rounding; in the
last row, `1 + eps` *is* 1. So the error has a bottom. Stepping to both sides lowers it,
since the error of this *central difference* shrinks with $\epsilon^2$:

$$\frac{f(w + \epsilon) - f(w - \epsilon)}{2\epsilon}$$

In float32 even the bottom is high. (The loss here is that of a small network.)

<div class="figure" markdown>

--8<-- "images/gradient-error.svg"

</div>

Trying is right, and it stays with us as the judge of everything below
([`check_gradient`][minillm.gradients.check_gradient]). But it takes a pass through the
model for every weight. One step of the demo, whose model has 950,912 weights, would
take four hours on a machine that does 50 billion additions and multiplications (FLOPs)
a second:

>>> from minillm.flops import forward_flops, param_count, preset
>>> demo = preset("demo")
>>> passes, flops = param_count(demo).total, forward_flops(demo, 4, 128).total
>>> passes, round(passes * flops / 50e9 / 3600, 1)
(950912, 4.1)

# The chain rule, one number at a time

If $y$ depends on $x$, and the loss $\ell$ on $y$, their slopes multiply; if $x$ reaches
the loss by several paths, the slopes of the paths add up. Write $\bar x$ for
$\partial \ell / \partial x$, the slope of the loss in $x$. Then

$$\bar x = \sum_{y \text{ made from } x} \bar y \, \frac{\partial y}{\partial x}.$$

So record, for every number, what it was made from and with which slope: that record is
the *tape*; writing it is the *forward pass*. Then walk the tape backwards from the
loss, where $\bar\ell = 1$: the *backward pass*. A single walk gives the slopes of *all*
weights. This is *backpropagation* (Rumelhart, Hinton and Williams 1986), and
[`Scalar`][minillm.gradients.Scalar] below does it in thirty lines:

>>> w1, w2, x = Scalar(0.5), Scalar(-2.0), Scalar(1.5)
>>> loss = (w2 * (w1 * x).tanh() + x * x) * w1
>>> loss.backward()
>>> def f(w1):  # the same loss, to be tried
...     return (-2.0 * math.tanh(w1 * 1.5) + 1.5 * 1.5) * w1
>>> round(w1.grad, 6), round((f(0.5 + 1e-6) - f(0.5 - 1e-6)) / 2e-6, 6)
(0.084823, 0.084823)

Both paths from `w1` to the loss are counted. (Walk them yourself: [this graph, step by
step](backward.md).) The price is an object for each addition and each multiplication.
For one batch of the demo, how many FLOPs are there, and how many gigabytes would their
objects take?

>>> import tracemalloc
>>> tracemalloc.start()
>>> numbers = [w1 * w2 for _ in range(100_000)]
>>> bytes_each = tracemalloc.get_traced_memory()[0] / 100_000
>>> tracemalloc.stop()
>>> f"{flops:,}", f"{round(flops * bytes_each / 1e9, -2):.0f} GB"
('771,751,936', '200 GB')

# The same with arrays

So let one entry of the tape stand for a whole array. What is its slope, then? The
product of the demo's output head makes $512 \cdot 2048$ results out of $512 \cdot 128$
inputs: a table of 69 billion slopes (the *Jacobian*), nearly all of them zero. But the
chain rule never asks for the table. It asks for $\bar y$ *times* the table, and that is
as small as $x$. So each entry keeps a function, which takes $\bar y$ and returns the
share of $\bar x$ that comes by this path (a *vector-Jacobian product*).

[`minillm.training.tape`][] is this tape. [`minillm.training.operations`][] and
[`minillm.training.layers`][] derive the function for each operation of the model, from
the matrix product to the cross-entropy. Two rules hold for all of them:

- A tensor that is used twice gets two shares, and they are *added*.
- Where broadcasting repeated a number, that number was used many times, so its shares
  are *summed over the repeated axes*.

>>> w = Node([1.0, 2.0])
>>> y = mul(add(w, w), np.ones((3, 2)))  # w twice, in each of three rows
>>> y.backward(np.ones((3, 2)))  # as if the loss were the sum of y
>>> w.grad.tolist()
[6.0, 6.0]

Forget the first rule, and you find 3; forget the second, and the shapes do not fit.

# A Transformer trained by it

Eleven operations are enough for the whole model, and two of them only move numbers
about. [`minillm.training.by_hand`][] puts it on the tape: its logits and all its
gradients equal PyTorch's to $10^{-10}$, and two hundred steps on the fairy tales give
the same losses.

**What it costs.** [`Work`][minillm.training.tape.Work] counts the FLOPs of the tape's
matrix products. A product $C = AB$ owes two more in the backward pass, one for $\bar A$
and one for $\bar B$, each of the same size. So the backward pass costs twice the
forward pass:

>>> before = Work.flops
>>> a, b = Node(np.ones((5, 7))), Node(np.ones((7, 11)))
>>> c = matmul(a, b)
>>> forward = Work.flops - before
>>> c.backward(np.ones((5, 11)))
>>> forward == 2 * 5 * 7 * 11, (Work.flops - before) / forward
(True, 3.0)

It also costs memory. $\bar B = A^\top \bar C$ needs the input $A$, which must be kept
until the walk comes by. [`minillm.training.kept`][] counts these bytes, and buys them
back with FLOPs. Generating text needs neither: without a backward pass, nothing is
kept.

**When it fails.** Along each path from the loss to a weight, the gradient is a product
of as many slopes as there are layers on the way, and the paths add up.
[`minillm.training.depth`][] measures how it vanishes or explodes, and what norms and
residual connections do about that.

**Next:** [`minillm.train`][] turns gradients into steps.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from minillm.training.layers import (
    attention,
    cross_entropy,
    rms_norm,
    rope,
    silu,
    softmax,
)
from minillm.training.operations import add, embedding, matmul, mul, reshape, transpose
from minillm.training.tape import Array, Node, Work, record

__all__ = [
    "Node",
    "Scalar",
    "Work",
    "add",
    "attention",
    "check_gradient",
    "cross_entropy",
    "embedding",
    "matmul",
    "mul",
    "record",
    "reshape",
    "rms_norm",
    "rope",
    "silu",
    "softmax",
    "transpose",
]


class Scalar:
    r"""One number on the tape: what it was made from, and with which slopes.

    (After Karpathy's micrograd, 2020, which keeps a function where this keeps slopes.)

    Args:
        value: the number.
        parents: for each number that this one was made from, a pair of that number and
            the slope $\partial y / \partial x$.

    Attributes:
        value: the number.
        grad: the slope of the loss in this number, after `backward`.
        parents: as given.

    Examples:
        >>> a, b = Scalar(3.0), Scalar(4.0)
        >>> y = a * b + a
        >>> y.backward()
        >>> y.value, a.grad, b.grad
        (15.0, 5.0, 3.0)
    """

    def __init__(
        self, value: float, parents: "tuple[tuple[Scalar, float], ...]" = ()
    ) -> None:
        self.value, self.grad, self.parents = value, 0.0, parents

    def __add__(self, other: "Scalar") -> "Scalar":
        # $\partial (a + b) / \partial a = \partial (a + b) / \partial b = 1$
        return Scalar(self.value + other.value, ((self, 1.0), (other, 1.0)))

    def __mul__(self, other: "Scalar") -> "Scalar":
        # $\partial (ab) / \partial a = b$ and $\partial (ab) / \partial b = a$
        slopes = (self, other.value), (other, self.value)
        return Scalar(self.value * other.value, slopes)

    def tanh(self) -> "Scalar":
        """The hyperbolic tangent, an S-shaped curve from -1 to 1: a nonlinearity."""
        y = math.tanh(self.value)
        # $\partial \tanh(x) / \partial x = 1 - \tanh(x)^2$
        return Scalar(y, ((self, 1 - y * y),))

    def backward(self) -> None:
        r"""Compute the slope of this number in every number that it was made from.

        In numbers that were given, slopes are *added* to what `grad` holds, as in
        PyTorch: those of several losses add up, and a step of training begins by
        setting them to zero. Numbers in between hold the slopes of the last call.

        Raises:
            RecursionError: from some thousand numbers in a line. The tape of arrays
                keeps a stack of its own.

        Examples:
            Two losses that share a number, of slopes $3a^2$ and $2a + 1$ at 2:

            >>> a = Scalar(2.0)
            >>> square = a * a
            >>> (square * a).backward()
            >>> (square + a).backward()
            >>> a.grad
            17.0
        """
        order: list[Scalar] = []
        seen: set[Scalar] = set()

        def visit(number: Scalar) -> None:
            if number not in seen:
                seen.add(number)
                for parent, _ in number.parents:
                    visit(parent)
                order.append(number)

        visit(self)
        # What an earlier call left in between has been passed on already.
        for number in order:
            if number.parents:
                number.grad = 0.0
        self.grad += 1.0
        # In reverse, a number is reached only after everything that was made from it,
        # so all of its shares have arrived before they are passed on.
        for number in reversed(order):
            for parent, slope in number.parents:
                # $\bar x \leftarrow \bar x + \bar y \, \partial y / \partial x$
                parent.grad += number.grad * slope


def check_gradient(
    f: Callable[..., Node], inputs: Sequence[Array], eps: float = 1e-6
) -> float:
    r"""Compare the tape with trying, for every number of every input.

    The result of `f` may have any shape. Its entries are summed with random weights,
    since a plain sum can hide a mistake: the entries of a softmax always sum to one,
    so *their* slope is zero.

    Args:
        f: takes one node for each input, and returns a node.
        inputs: arrays of floating-point numbers; they are copied, in float64.
        eps: $\epsilon$, how far each number is moved to either side.

    Returns:
        The largest difference from the central difference, relative to the largest
        entry of that input's gradient (or to a thousandth of the result, if that is
        larger). A correct gradient stays below about $10^{-7}$; a NaN counts as
        infinitely wrong.

    Raises:
        TypeError: if an input does not consist of floating-point numbers.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(2, 3))
        >>> check_gradient(softmax, [x]) < 1e-7
        True

        One share of two lost, as by writing `=` for `+=`, is half the gradient:

        >>> def square(x):  # y = x · x, with the share of one factor only
        ...     return record(x.value * x.value, (x, lambda g: g * x.value))
        >>> round(check_gradient(square, [x]), 3)
        0.5
    """
    nodes = [Node(Node(x).value.astype(np.float64)) for x in inputs]
    y = f(*nodes)
    seed = np.random.default_rng(0).uniform(0.5, 1.5, y.value.shape)
    y.backward(seed)
    floor = 1e-3 * abs(float((y.value * seed).sum()))
    arrays, worst = [node.value.copy() for node in nodes], 0.0
    for array, node in zip(arrays, nodes, strict=True):
        tried = np.zeros(array.shape)
        for at in np.ndindex(array.shape):
            kept, sides = array[at], []
            for moved in (kept + eps, kept - eps):
                array[at] = moved
                sides.append((f(*map(Node, arrays)).value * seed).sum())
            array[at] = kept
            # $(f(x + \epsilon) - f(x - \epsilon)) / 2\epsilon$
            tried[at] = (sides[0] - sides[1]) / (2 * eps)
        taped = np.zeros(array.shape) if node.grad is None else node.grad
        scale = max(np.abs(tried).max(initial=0), floor, np.finfo(float).tiny)
        off = float(np.abs(taped - tried).max(initial=0) / scale)
        # `max` would pass over NaN, since no comparison with it is true.
        worst = math.inf if math.isnan(off) else max(worst, off)
    return worst
