r"""The layers of a Transformer on the tape: norm, gate, positions, attention, loss.

Each could be composed of smaller operations, and attention is. The others are derived
as a whole, since several steps often shrink to one short formula, which is faster and
keeps less: softmax and cross-entropy together leave nothing but $p - \mathbf 1_y$.

**Before this:** [`minillm.training.operations`][]. **Next:**
[`minillm.training.by_hand`][] builds the model of them.
"""

import math

import numpy as np
from jaxtyping import Integer

from minillm.training.operations import add, check_ids, matmul, mul, transpose
from minillm.training.tape import Array, Node, Operand, record, values

__all__ = ["attention", "cross_entropy", "rms_norm", "rope", "silu", "softmax"]


def silu(a: Operand) -> Node:
    r"""The gate $y = x\,s$ with $s = \sigma(x) = 1 / (1 + e^{-x})$.

    The slope of $s$ is $e^{-x} / (1 + e^{-x})^2 = s(1 - s)$. By the product rule that
    of $y$ is $s + x\,s(1 - s) = s + y(1 - s)$.

    Args:
        a: an array, or a node.

    Returns:
        The gated numbers.

    Examples:
        >>> x = Node(0.0)
        >>> silu(x).backward()
        >>> float(x.grad)
        0.5
    """
    (x,) = values("silu", a)
    # $\sigma(x) = (1 + \tanh \frac x2) / 2$: the same function, without overflow
    s = (1 + np.tanh(x / 2)) / 2
    y = x * s
    # $\bar x = \bar y \odot (s + y(1 - s))$
    return record(y, (a, lambda g: g * (s + y * (1 - s))))


def softmax(a: Operand) -> Node:
    r"""Probabilities $p_i = e^{x_i} / \sum_j e^{x_j}$ along the last axis.

    Every $x_j$ is in every denominator. For $j = i$ the quotient rule gives
    $\partial p_i / \partial x_i = p_i - p_i^2$, otherwise
    $\partial p_i / \partial x_j = -p_i p_j$. Summed over all $p_i$:

    $$\bar x_j = \bar p_j\,p_j - \sum_i \bar p_i\, p_i p_j
    = p_j \Bigl(\bar p_j - \sum_i \bar p_i\, p_i\Bigr)$$

    Args:
        a: an array, or a node.

    Returns:
        The probabilities.

    Examples:
        Raising all scores alike changes nothing, so their gradients sum to zero:

        >>> x = Node([0.0, math.log(3)])
        >>> softmax(x).backward(np.array([1.0, 0.0]))
        >>> [round(g, 4) for g in x.grad.tolist()]
        [0.1875, -0.1875]
    """
    (x,) = values("softmax", a)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)

    def pull(g: Array) -> Array:
        # $\bar x = p \odot (\bar p - \sum_i \bar p_i\, p_i)$
        return p * (g - (g * p).sum(axis=-1, keepdims=True))

    return record(p, (a, pull))


def rms_norm(a: Operand, weight: Operand, eps: float = 1e-5) -> Node:
    r"""The root-mean-square norm: $y = w \odot n$, where $n = r x$.

    The factor is $r = (m + \epsilon)^{-1/2}$, with $m = \frac1d \sum_j x_j^2$. In $x_j$
    the slope of $m$ is $2 x_j / d$, so that of $r$ is
    $-\frac12 r^3 \cdot 2 x_j / d = -r^2 n_j / d$. By the product rule, that of
    $n_i = r x_i$ is $-x_i r^2 n_j / d = -r\, n_i n_j / d$, plus $r$ if $i = j$. Summed
    over all $n_i$, with $\bar n = \bar y \odot w$:

    $$\bar x_j = r \Bigl(\bar n_j - n_j\, \tfrac1d \sum_i \bar n_i n_i\Bigr)$$

    Args:
        a: (…, d), an array or a node.
        weight: $w$, (d,).
        eps: $\epsilon$, under the root.

    Returns:
        (…, d), the normalized vectors.

    Raises:
        ValueError: if the shapes do not broadcast.

    Examples:
        Making a vector longer does not change its direction, so the gradient is at
        right angles to the vector:

        >>> x = Node([3.0, 4.0])
        >>> rms_norm(x, np.ones(2), eps=0.0).backward(np.array([1.0, 0.0]))
        >>> bool(abs(x.grad @ x.value) < 1e-12)
        True
    """
    x, w = values("rms_norm", a, weight)
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    n = x * r

    def pull(g: Array) -> Array:
        n_bar = g * w
        # $\bar x = r (\bar n - n \cdot \frac1d \sum_i \bar n_i n_i)$
        return r * (n_bar - n * np.mean(n_bar * n, axis=-1, keepdims=True))

    # $\bar w = \bar y \odot n$, summed over all positions
    return record(n * w, (a, pull), (weight, lambda g: g * n))


def rope(a: Operand, theta: float = 10000.0) -> Node:
    r"""Rotary positions: turn each pair of numbers by an angle.

    Turning is a product with a matrix $R$ whose columns are orthogonal, $y = R x$. So
    $\bar x = R^\top \bar y$, and $R^\top$ turns back by the same angle. Turning keeps
    nothing but its angles.

    Args:
        a: (…, T, d_h), an array or a node; its rows stand at positions 0 … T - 1.
        theta: $\theta$, the base of the speeds; see [`minillm.rope`][].

    Returns:
        (…, T, d_h), neighbours $2j$ and $2j + 1$ turned by $m\,\theta^{-2j/d_h}$.

    Raises:
        ValueError: if $d_h$ is odd.

    Examples:
        >>> x = Node(np.ones((2, 2)))
        >>> y = rope(x)
        >>> y.backward(y.value)  # turned, and turned back
        >>> np.allclose(x.grad, x.value)
        True
    """
    (x,) = values("rope", a)
    seq, d_head = x.shape[-2:]
    if d_head % 2:
        raise ValueError(f"rope turns pairs: d_head must be even; got {d_head}")
    angles = np.outer(np.arange(seq), theta ** (-np.arange(0, d_head, 2) / d_head))
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)

    def turn(x: Array, sign: int) -> Array:
        y, s = np.empty_like(x), sign * sin
        even, odd = x[..., ::2], x[..., 1::2]
        y[..., ::2], y[..., 1::2] = even * cos - odd * s, even * s + odd * cos
        return y

    # $\bar x = R^\top \bar y$: the sine changes its sign, the cosine does not
    return record(turn(x, 1), (a, lambda g: turn(g, -1)))


def attention(q: Operand, k: Operand, v: Operand) -> Node:
    r"""Causal attention, $\operatorname{softmax}(Q K^\top / \sqrt{d_h} + M)\, V$.

    It is made of operations that have their derivatives, so it needs none of its own:
    the tape has the chain rule. $M$ is a constant, $-\infty$ above the diagonal, where
    the probabilities become zero and nothing flows back.

    Args:
        q: (…, T, d_h), the queries.
        k: (…, T, d_h), the keys. Axes before the last two broadcast, so that several
            heads of queries can share one of keys and values.
        v: (…, T, d_v), the values.

    Returns:
        (…, T, d_v), for each query a weighted mean of the values up to its position.

    Raises:
        ValueError: if the shapes do not fit.

    Examples:
        The first position sees itself alone, so its value is not mixed:

        >>> q, v = Node(np.zeros((2, 4))), Node(np.array([[2.0], [4.0]]))
        >>> y = attention(q, q, v)
        >>> y.value.ravel().tolist()
        [2.0, 3.0]
        >>> y.backward(np.array([[0.0], [1.0]]))
        >>> v.grad.ravel().tolist()
        [0.5, 0.5]
    """
    x, y = (t.value if isinstance(t, Node) else np.asarray(t) for t in (q, k))
    if x.ndim < 2 or y.ndim < 2 or x.shape[-2] != y.shape[-2]:
        raise ValueError(
            "causal attention needs as many keys as queries, (…, T, d_h) both; got "
            f"{x.shape} and {y.shape}"
        )
    future = np.triu(np.full((x.shape[-2],) * 2, -np.inf, x.dtype), k=1)  # M
    k_transposed = transpose(k, [*range(y.ndim - 2), y.ndim - 1, y.ndim - 2])
    # Scaling the queries gives the same scores as scaling the products, and is less.
    scores = matmul(mul(q, 1 / math.sqrt(x.shape[-1])), k_transposed)  # (…, T, T)
    return matmul(softmax(add(scores, future)), v)


def cross_entropy(logits: Operand, targets: Integer[np.ndarray, "*batch"]) -> Node:
    r"""The mean of $-\ln p_y$ over all positions, $p$ being the softmax of the logits.

    With $-\ln p_y = \ln \sum_j e^{x_j} - x_y$, the first term has the slope
    $e^{x_i} / \sum_j e^{x_j} = p_i$ in $x_i$, the second $-1$ in $x_y$ alone. So the
    gradient is what the model expected, less what came:

    $$\bar x = \frac{\bar\ell}{n} (p - \mathbf 1_y)$$

    Args:
        logits: (…, V), an array or a node.
        targets: $y$, the ids that came, a plain array in the shape of the other axes.

    Returns:
        The mean over all $n$ positions, a node without axes.

    Raises:
        TypeError: if the targets are not integers.
        ValueError: if a target is not in the vocabulary, or the shapes do not fit.

    Examples:
        >>> logits = Node(np.zeros((1, 4)))
        >>> cross_entropy(logits, np.array([2])).backward()
        >>> logits.grad.tolist()
        [[0.25, 0.25, -0.75, 0.25]]
    """
    (x,) = values("cross_entropy", logits)
    check_ids(targets, x.shape[-1])
    if targets.shape != x.shape[:-1]:
        raise ValueError(
            f"cross_entropy needs one target for each position {x.shape[:-1]}; got "
            f"{targets.shape}: reshape the targets"
        )
    n, shape, came = targets.size, x.shape, targets.ravel()
    # Subtracting the largest score first keeps `exp` from overflowing.
    x = x.reshape(n, -1) - x.max(axis=-1).reshape(n, 1)
    p = np.exp(x)
    total = p.sum(axis=-1, keepdims=True)
    # $\frac1n \sum (\ln \sum_j e^{x_j} - x_y)$
    loss = np.mean(np.log(total[:, 0]) - x[np.arange(n), came])
    p /= total

    def pull(g: Array) -> Array:
        # $\bar x = \frac{\bar\ell}{n} (p - \mathbf 1_y)$
        x_bar = p * (g / n)
        x_bar[np.arange(n), came] -= g / n
        return x_bar.reshape(shape)

    return record(loss, (logits, pull))
