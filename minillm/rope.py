r"""Rotary positions: how attention learns what stands where.

**The question.** A dot product knows nothing of order. The last word of "dog bites man"
gathers from the words before it what it would gather from "bites dog man": the same
vectors, weighed by the same scores, in another order of summation.

>>> from minillm.attention import scaled_dot_product_attention
>>> q, k, v = torch.randn(3, 4, 8, generator=torch.manual_seed(0)).double()
>>> other_order = [2, 0, 3, 1]
>>> in_order = scaled_dot_product_attention(q, k, v)
>>> in_order.allclose(scaled_dot_product_attention(q, k[other_order], v[other_order]))
True

The first Transformer *added* a vector for each position to the input. Then a model that
has learned "the word before" at position 5 must learn it again at position 500: the
score of two positions depends on both. What we want is that it depends on how far they
are apart, and on nothing else.

**Before this:** [`minillm.attention`][], and complex numbers. **Next:**
[`minillm.model`][].

# From the wish to the formula

Say that a query $q$ at position $m$ and a key $k$ at position $n$ are changed before
they are compared, and start with vectors of two numbers. Written as complex numbers,
their dot product is $\operatorname{Re}(q\,\bar k)$, the bar being the conjugate:

>>> q, k = complex(1, 2), complex(3, -1)
>>> 1 * 3 + 2 * -1, (q * k.conjugate()).real
(1, 1.0)

The simplest change is a product with a number $r_m$ for each position, of length 1 so
that no position is louder than another. The score becomes

$$\operatorname{Re}(q\,r_m \, \bar k\, \bar r_n)
= \operatorname{Re}(q\,\bar k \cdot r_m \bar r_n),$$

and it depends on the distance alone if $r_m \bar r_n$ does. Take $n = 0$, where we may
choose $r_0 = 1$: then $r_m \bar r_n = r_{m-n}$ for all $m$ and $n$. One step further is
always the same factor, $r_{m+1} = r_m\, r_1$, so $r_m = r_1^m$. And a number of length
1 is $e^{i\alpha}$ for some angle $\alpha$. Hence

$$r_m = e^{i m \alpha} :$$

a turn by an angle that grows evenly with the position. Only the speed is left to
choose. (Su et al. 2021, RoFormer, arXiv:2104.09864, section 3.4.1.)

>>> import cmath
>>> def turn(x, m, speed=0.3):
...     return x * cmath.exp(1j * m * speed)
>>> def score(m, n):
...     return round((turn(q, m) * turn(k, n).conjugate()).real, 9)
>>> score(5, 3) == score(92, 90) == score(2, 0), score(5, 3) == score(5, 4)
(True, False)

# Which speed? All of them

A fast pair tells neighbours apart, but soon comes round: after 44 steps of one radian
it stands almost where it began. A slow pair does not come round, but hardly moves
between neighbours.

>>> import math
>>> [round(math.cos(m * 1.0), 4) for m in (0, 1, 44)]
[1.0, 0.5403, 0.9998]
>>> [round(math.cos(m * 0.01), 4) for m in (0, 1, 44)]
[1.0, 1.0, 0.9048]

So a head of $d_h$ numbers has $d_h / 2$ pairs, each with a speed of its own, from one
radian a position down to $\theta^{2/d_h - 1}$, like the hands of a clock; the base
$\theta$ is usually 10,000. A model of two
layers that has learned to repeat shows what it can do with them. Its heads score keys
by distance, in waves whose crests lie where it wants to look: one position back in the
first layer and ten in the second, eleven together. The text repeats itself after
twelve, and the next token is the one that stood eleven positions back. (A single head
that looks eleven back would do, too; training found this way.)
([`minillm.drawing.attention`][] trains it and shows where its heads look.)

<div class="figure" markdown>

--8<-- "images/rope-distance.svg"

</div>

# Which two numbers are a pair?

Nothing above says which two of the $d_h$ numbers make a pair. RoFormer, GPT-J and the
weights of Llama as Meta published them take neighbours, $2j$ and $2j + 1$
(*interleaved*), and so does this course. GPT-NeoX and everything in Hugging Face's
Llama format take $j$ and $j + d_h / 2$ (*half-split*). The two are one permutation
apart: put the even places first, and one becomes the other. Scores do not change when
query and key are permuted alike, so neither is better; but weights that were trained
with one give garbage with the other, except at position 0, which is not turned.
[`minillm.hub`][] permutes.

>>> def in_halves(x):  # number j is turned with number j + d / 2
...     a, b = x.chunk(2, dim=-1)
...     return torch.cat([a * rope.cos - b * rope.sin, a * rope.sin + b * rope.cos], -1)
>>> rope = RotaryEmbedding(d_head=8, context_length=5).double()
>>> x = torch.randn(5, 8, generator=torch.manual_seed(0)).double()
>>> even_first = [0, 2, 4, 6, 1, 3, 5, 7]
>>> in_halves(x[:, even_first]).allclose(rope(x)[:, even_first])
True
>>> wrong = in_halves(x)
>>> [wrong[m].allclose(rope(x)[m]) for m in range(5)]
[True, False, False, False, False]
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.config import LinearScaling, RopeScaling

__all__ = ["RotaryEmbedding"]


class RotaryEmbedding(nn.Module):
    r"""Turn each vector by an angle that grows with its position.

    The derivation stands at the top of this chapter: number $j$ of the $d_h / 2$ pairs
    of the vector at position $m$ is turned in its plane by the angle $m\,\theta_j$.

    $$\begin{pmatrix} x'_{2j} \\ x'_{2j+1} \end{pmatrix} =
    \begin{pmatrix} \cos m\theta_j & -\sin m\theta_j \\
    \sin m\theta_j & \cos m\theta_j \end{pmatrix}
    \begin{pmatrix} x_{2j} \\ x_{2j+1} \end{pmatrix}$$

    with the speeds $\theta_j = \theta^{-2j/d_h}$. Read as a complex number, a pair is
    $x_{2j} + i\,x_{2j+1}$, and turning it is one product, with $e^{i m \theta_j}$. That
    is how it is computed.

    Args:
        d_head: $d_h$, the width of the vectors, even.
        context_length: $T$, positions run from 0 to $T - 1$.
        theta: $\theta$, the base. The slowest pair turns once in
            $2\pi\theta^{1 - 2/d_h}$ positions, so longer contexts want a larger base.
        scaling: slows some of the pairs; `None` for none.

    Raises:
        ValueError: from the call, if a position is not in the table, or the vectors
            have another width.

    Examples:
        The same distance gives the same score, wherever the two stand:

        >>> rope = RotaryEmbedding(d_head=8, context_length=100).double()
        >>> q, k = torch.randn(2, 1, 8, generator=torch.manual_seed(0)).double()
        >>> def score(m, n):
        ...     return (rope(q, torch.tensor([m])) * rope(k, torch.tensor([n]))).sum()
        >>> score(5, 3).allclose(score(92, 90)), score(5, 3).allclose(score(5, 4))
        (True, False)
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        d_head: int,
        context_length: int,
        theta: float = 10000.0,
        scaling: LinearScaling | RopeScaling | None = None,
    ) -> None:
        super().__init__()
        self.d_head, self.context_length, self.theta = d_head, context_length, theta
        self.scaling = scaling
        # The tables follow from the arguments, so checkpoints need not carry them.
        cos, sin = self.tables()
        self.register_buffer("cos", cos.to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("sin", sin.to(torch.get_default_dtype()), persistent=False)
        self.turns = torch.complex(self.cos, self.sin)  # e^(i m θ_j)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines of every angle, in float64: (T, d_h / 2) each."""
        j = torch.arange(self.d_head // 2, dtype=torch.float64, device="cpu")
        m = torch.arange(self.context_length, dtype=torch.float64, device="cpu")
        speeds = self.theta ** (-2 * j / self.d_head)
        if self.scaling is not None:
            speeds = speeds.apply_(self.scaling.slow)
        # $m\,\theta_j$ for every position and every pair
        angles = torch.outer(m, speeds)
        return angles.cos(), angles.sin()

    def extra_repr(self) -> str:
        """The sizes, for `print(model)`."""
        sizes = f"d_head={self.d_head}, context_length={self.context_length}"
        stretched = "" if self.scaling is None else f", scaling={self.scaling}"
        return f"{sizes}, theta={self.theta}{stretched}"

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> "RotaryEmbedding":
        # PyTorch calls this when a model changes its dtype or device, and does not
        # annotate it. `model.double()` would otherwise widen numbers that had been
        # rounded to float32, and `model.bfloat16()` would leave angles of two digits.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        cos, sin = self.tables()
        dtype = torch.promote_types(self.cos.dtype, torch.float32)
        self.cos = cos.to(self.cos.device, dtype)
        self.sin = sin.to(self.sin.device, dtype)
        self.turns = torch.complex(self.cos, self.sin)
        return self

    def forward(
        self,
        x: Float[Tensor, "*batch seq d_head"],
        positions: Int[Tensor, "*pos seq"] | None = None,
        start: int = 0,
    ) -> Float[Tensor, "*batch seq d_head"]:
        """Turn `x`, whose rows stand at `positions`, or else at `start` and after."""
        self._check(x, positions, start)
        at = slice(start, start + x.shape[-2]) if positions is None else positions
        wide = torch.promote_types(x.dtype, self.cos.dtype)
        if torch.compiler.is_compiling():
            # A compiler makes one loop of the formula as it stands, and has no code for
            # complex numbers.
            a, b = x.to(wide).unflatten(-1, (-1, 2)).unbind(-1)
            cos, sin = _for_all_heads(self.cos[at], x), _for_all_heads(self.sin[at], x)
            turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
            return turned.flatten(-2).to(x.dtype)  # (..., T, d_h)
        # The copy lies in memory as complex numbers must, wherever `x` came from.
        x_copy = x.to(wide, copy=True, memory_format=torch.contiguous_format)
        pairs = torch.view_as_complex(x_copy.unflatten(-1, (-1, 2)))
        # $x' = x\, e^{i m \theta_j}$
        turned = pairs * _for_all_heads(self.turns[at], x)  # (..., T, d_h / 2)
        return torch.view_as_real(turned).flatten(-2).to(x.dtype)  # (..., T, d_h)

    def _check(self, x: Tensor, positions: Tensor | None, start: int) -> None:
        # Indexing would count a negative position from the end of the table, and a
        # table that is cut to one row would be stretched over all of `x`.
        rows, width = x.shape[-2:]
        if width != self.d_head:
            raise ValueError(
                f"the table turns vectors of {self.d_head} numbers; got {width}: make "
                f"a RotaryEmbedding({width}, …)"
            )
        first, last = start, start + rows - 1
        if positions is not None:
            if positions.shape[-1] != rows:
                raise ValueError(
                    f"each of the {rows} vectors has one position; got "
                    f"{positions.shape[-1]}: give as many"
                )
            if torch.compiler.is_compiling() or not positions.numel():
                return  # a compiled program does not look at the numbers
            first, last = int(positions.min()), int(positions.max())
        if first < 0 or last >= self.context_length:
            raise ValueError(
                f"positions run from 0 to {self.context_length - 1}; got {first} to "
                f"{last}: make a table with a larger context_length"
            )


def _for_all_heads(table: Tensor, x: Tensor) -> Tensor:
    """Give a table that has a row of positions per sequence an axis for heads."""
    while 2 < table.ndim < x.ndim:
        table = table.unsqueeze(-3)
    return table
