r"""Attention: how one position learns from the positions before it.

**The question.** In "The duck swam away because it was", everything that helps to guess
the next word stands somewhere to the left: *duck*, *swam*, *it*. Where exactly differs
from sentence to sentence, so no fixed rule such as "look three words back" will do. How
can a position find out *by itself* which of its predecessors matter?

**Before this:** [`minillm.bpe`][] turns text into ids, and a table gives each id a
vector of $d$ numbers. So a sentence is $T$ vectors, one for each position.

# Three attempts

Take four positions whose vectors hold a single number, and let each gather from its
past. The plainest summary of the past is its *average*, which is a product with a
matrix of weights, one row for each position:

>>> x = torch.tensor([[8.0], [0.0], [4.0], [4.0]])
>>> past = torch.ones(4, 4).tril()
>>> average = past / past.sum(dim=1, keepdim=True)
>>> average[3].tolist()
[0.25, 0.25, 0.25, 0.25]
>>> (average @ x).squeeze(1).tolist()
[8.0, 4.0, 4.0, 4.0]

Three of four results are alike: the average has forgotten who said what. So the weights
must depend on the vectors. Second attempt: weigh each predecessor by how well its
vector matches one's own, by their dot product. Dot products may be negative and sum to
anything, so [`softmax`][minillm.attention.softmax] turns them into weights. Now a
position finds what resembles it: the last, asked to look for itself, looks at 8, where
the product is largest, and at nothing else.

>>> [round(w, 2) for w in softmax(x[3] * x.squeeze(1), dim=0).tolist()]
[1.0, 0.0, 0.0, 0.0]

That is not what it looked for: a long vector matches everything, and what a position
*seeks*, what it *is found by* and what it *has to tell* are one and the same. Third
attempt: give it three vectors, each a learned product with its own, the *query*, the
*key* and the *value*. That is attention, and the rest of this chapter builds it.

**Next:** [`minillm.model`][] stacks it. The letters are those of the
[notation page](notation.md).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.config import RopeScaling

__all__ = [
    "LayerCache",
    "Linear",
    "MultiHeadAttention",
    "RotaryEmbedding",
    "scaled_dot_product_attention",
    "softmax",
]


def softmax(x: Float[Tensor, "*shape"], dim: int) -> Float[Tensor, "*shape"]:
    r"""Turn scores into probabilities: positive, and summing to one along `dim`.

    $$\operatorname{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$

    Args:
        x: scores, any real numbers; $-\infty$ means "impossible".
        dim: the axis along which the results sum to one.

    Returns:
        The probabilities, in the shape of `x`.

    Examples:
        Only differences matter: each step of $\ln 2 \approx 0.693$ doubles the odds.

        >>> softmax(torch.tensor([0.0, math.log(2), math.log(4)]), dim=0) * 7
        tensor([1., 2., 4.])

        Written as in the formula, a score of 1000 overflows:

        >>> torch.exp(torch.tensor(1000.0)).item()
        inf
        >>> softmax(torch.tensor([1000.0, 1000.0]), dim=0).tolist()
        [0.5, 0.5]
    """
    # Subtracting the largest score divides numerator and denominator by the same
    # number, so it changes nothing but the size of what `exp` has to hold.
    e = torch.exp(x - x.amax(dim=dim, keepdim=True))
    return e / e.sum(dim=dim, keepdim=True)


def scaled_dot_product_attention(
    q: Float[Tensor, "*batch queries d"],
    k: Float[Tensor, "*batch keys d"],
    v: Float[Tensor, "*batch keys d_v"],
    mask: Bool[Tensor, "*mask #queries #keys"] | None = None,
) -> Float[Tensor, "*batch queries d_v"]:
    r"""Let each query gather the values whose keys resemble it.

    $$\operatorname{Attention}(Q, K, V) =
    \operatorname{softmax}\!\left(\frac{Q K^\top}{\sqrt d}\right) V$$

    The plainest way to use the past is its average: every position gets a weight of
    $1/t$, and the model cannot choose. So let it choose: each position asks with a
    *query*, each answers to a *key*, and how well the two match, by dot product,
    decides how much of the *value* is taken. (Vaswani et al. 2017, equation 1.)

    Args:
        q: the queries.
        k: the keys, as wide as the queries.
        v: the values, as many as the keys.
        mask: `True` where a query may look; broadcast to (…, queries, keys). A query
            that may look nowhere gathers zeros.

    Returns:
        For each query, a weighted mean of the values.

    Examples:
        Queries of zeros match all keys alike, which is the plain average again:

        >>> v = torch.tensor([[2.0], [4.0], [9.0]])
        >>> k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> scaled_dot_product_attention(torch.zeros(3, 2), k, v).squeeze().tolist()
        [5.0, 5.0, 5.0]

        With the causal mask, each position averages over its own past only:

        >>> past = torch.ones(3, 3, dtype=torch.bool).tril()
        >>> q = torch.zeros(3, 2)
        >>> scaled_dot_product_attention(q, k, v, past).squeeze().tolist()
        [2.0, 3.0, 5.0]

        A query that resembles the second key gathers the second value:

        >>> query = torch.tensor([[-50.0, 50.0]])
        >>> round(scaled_dot_product_attention(query, k, v).item(), 3)
        4.0

        Why divide by $\sqrt d$: a dot product of $d$ products of unit variance has
        variance $d$. Without the division, wide heads start with scores so far apart
        that the largest takes all the weight, and nothing can be learned from the rest:

        >>> q, k = torch.randn(2, 1000, 256, generator=torch.manual_seed(0))
        >>> scores = q @ k.T
        >>> round(scores.var().item() / 256, 1)
        1.0
        >>> round(softmax(scores, dim=-1).amax(-1).mean().item(), 1)  # one key of 1000
        0.9
        >>> round(softmax(scores / 16, dim=-1).amax(-1).mean().item(), 1)
        0.0
    """
    # $Q K^\top / \sqrt d$: every query against every key
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., queries, keys)
    if mask is None:
        return softmax(scores, dim=-1) @ v
    # A score of $-\infty$ becomes a weight of zero. In a row that is all $-\infty$,
    # softmax divides nothing by nothing; there the weights are set to zero by hand.
    weights = softmax(scores.masked_fill(~mask, -math.inf), dim=-1)
    return weights.masked_fill(~mask, 0.0) @ v


class RotaryEmbedding(nn.Module):
    r"""Turn each vector by an angle that grows with its position.

    Attention compares vectors by their dot product, and a dot product knows nothing of
    order: without this, "dog bites man" and "man bites dog" gather the same. So the
    vector at position $m$ is cut into pairs of numbers, and pair $j$ is turned in its
    plane by the angle $m\,\theta_j$:

    $$\begin{pmatrix} x'_{2j} \\ x'_{2j+1} \end{pmatrix} =
    \begin{pmatrix} \cos m\theta_j & -\sin m\theta_j \\
    \sin m\theta_j & \cos m\theta_j \end{pmatrix}
    \begin{pmatrix} x_{2j} \\ x_{2j+1} \end{pmatrix},
    \qquad \theta_j = \theta^{-2j/d_h}$$

    Read as complex numbers, a pair is $x_{2j} + i\,x_{2j+1}$, and turning it is one
    product, with $e^{i m \theta_j}$. That is how it is computed.

    Two vectors turned by $m$ and $n$ then have a dot product that depends on $m - n$
    alone: a model that has learned "the word before" at position 5 knows it at
    position 500. (Su et al. 2021, RoFormer, arXiv:2104.09864, section 3.2.2. The pairs
    lie side by side, as there; Hugging Face's Llama puts the second of each pair in the
    other half, one permutation apart, and [`minillm.hub`][] permutes.)

    Args:
        d_head: $d_h$, the width of the vectors, even.
        context_length: $T$, positions run from 0 to $T - 1$.
        theta: $\theta$, the base. The slowest pair turns once in about $2\pi\theta$
            positions, so longer contexts want a larger base.
        scaling: slows some of the pairs; `None` for none.

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
        scaling: RopeScaling | None = None,
    ) -> None:
        super().__init__()
        self.d_head, self.context_length, self.theta = d_head, context_length, theta
        self.scaling = scaling
        # The tables follow from three numbers, so checkpoints need not carry them.
        cos, sin = self.tables()
        self.register_buffer("cos", cos.to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("sin", sin.to(torch.get_default_dtype()), persistent=False)
        self.turns = torch.complex(self.cos, self.sin)  # $e^{i m \theta_j}$

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

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> "RotaryEmbedding":
        # PyTorch calls this when a model changes its dtype or device. `model.double()`
        # would otherwise widen numbers that had been rounded to float32 already, and
        # `model.bfloat16()` would leave angles of two digits.
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


def _for_all_heads(table: Tensor, x: Tensor) -> Tensor:
    """Give a table that has a row of positions per sequence an axis for heads."""
    while 2 < table.ndim < x.ndim:
        table = table.unsqueeze(-3)
    return table


class Linear(nn.Module):
    r"""A matrix product $y = W x$, without a bias.

    The weight is kept as (out, in), so each *row* of $W$ is one feature that looks at
    the whole input. Its entries start as normal numbers of variance $1 / d_{in}$: a sum
    of $d_{in}$ products of unit variance then has unit variance again, and neither
    fades nor explodes from layer to layer.

    Args:
        d_in: the width of the input.
        d_out: the width of the output.

    Examples:
        >>> layer = Linear(256, 512)
        >>> y = layer(torch.randn(1000, 256, generator=torch.manual_seed(0)))
        >>> y.shape, round(y.std().item(), 1)
        (torch.Size([1000, 512]), 1.0)
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_out, d_in) / math.sqrt(d_in))

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Multiply each vector along the last axis by the weight."""
        # $y = x W^\top$: the same product for rows, which is how batches are stored.
        return F.linear(x, self.weight)


class LayerCache:
    r"""The keys and values that one layer has computed so far.

    The keys and values of the past do not change when a token is added, so they can be
    kept. A model keeps one of these for each layer, in a
    [`KVCache`][minillm.model.KVCache].

    Args:
        shape: $(B, H_{kv}, T, d_h)$, with room for the whole context.
    """

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.shape, self.length = shape, 0
        self.k = self.v = torch.empty(0)

    def append(
        self,
        k: Float[Tensor, "batch kv_heads new d_head"],
        v: Float[Tensor, "batch kv_heads new d_head"],
    ) -> tuple[
        Float[Tensor, "batch kv_heads seq d_head"],
        Float[Tensor, "batch kv_heads seq d_head"],
    ]:
        """Store the keys and values of new tokens behind the old ones.

        Args:
            k: the keys of the new tokens.
            v: their values.

        Returns:
            All keys and all values so far, the new ones last.

        Raises:
            ValueError: if the context is full.
        """
        start, end = self.length, self.length + k.shape[-2]
        if end > self.shape[-2]:
            raise ValueError(
                f"the cache holds {self.shape[-2]} tokens; got {end}: "
                "start a new one from the last part of the text"
            )
        if start == 0:
            # Only now are the dtype and the device known.
            self.k, self.v = k.new_empty(self.shape), v.new_empty(self.shape)
        self.k[:, :, start:end], self.v[:, :, start:end] = k, v
        self.length = end
        return self.k[:, :, :end], self.v[:, :, :end]


class MultiHeadAttention(nn.Module):
    r"""Several attentions side by side, each over its own share of the vector.

    One attention gives one weighted mean: it can look at the word before *or* at the
    subject of the sentence. $H$ heads of width $d_h = d / H$ look at $H$ things at the
    same price. All their queries come out of one product with $W_q$, which is then cut
    into heads, and $W_o$ mixes what they bring home.

    With `n_kv_heads` smaller than `n_heads`, several query heads share one head of keys
    and values, and the cache shrinks by that factor (grouped-query attention, Ainslie
    et al. 2023, arXiv:2305.13245).

    Args:
        d_model: $d$, the width of input and output.
        n_heads: $H$, the number of query heads.
        n_kv_heads: $H_{kv}$, the number of key and value heads; `None` means $H$.
        rope: turns queries and keys by their positions; `None` for no positions.

    Examples:
        All heads at once equal one head after another:

        >>> attn = MultiHeadAttention(d_model=32, n_heads=4).double()
        >>> x = torch.randn(1, 5, 32, dtype=torch.float64)
        >>> past = torch.ones(5, 5, dtype=torch.bool).tril()
        >>> heads = [
        ...     scaled_dot_product_attention(
        ...         x @ attn.q_proj.weight[h : h + 8].T,
        ...         x @ attn.k_proj.weight[h : h + 8].T,
        ...         x @ attn.v_proj.weight[h : h + 8].T,
        ...         past,
        ...     )
        ...     for h in range(0, 32, 8)
        ... ]
        >>> attn(x).allclose(attn.o_proj(torch.cat(heads, dim=-1)))
        True
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        rope: RotaryEmbedding | None = None,
    ) -> None:
        super().__init__()
        self.d_head, self.rope = d_model // n_heads, rope
        d_kv = self.d_head * (n_kv_heads or n_heads)
        self.q_proj = Linear(d_model, d_model)
        self.k_proj = Linear(d_model, d_kv)
        self.v_proj = Linear(d_model, d_kv)
        self.o_proj = Linear(d_model, d_model)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        positions: Int[Tensor, "*pos seq"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """Let each position of `x` gather from those before it, and from the cache."""
        start = cache.length if cache is not None else 0
        # Cut the last axis into heads, and let the heads lead: (B, H, T, d_h).
        q, k, v = (
            proj(x).unflatten(-1, (-1, self.d_head)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.rope is not None:
            q, k = self.rope(q, positions, start), self.rope(k, positions, start)
        mask = None
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H_kv, S, d_h), S = everything read so far
            if start and q.shape[2] > 1:
                # The query in row t stands at position start + t.
                mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(start)
                mask = mask.to(x.device)
        # PyTorch's fused kernel computes `scaled_dot_product_attention` above without
        # ever holding the whole matrix of scores. A single new token sees everything.
        gathered = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None and q.shape[2] > 1,
            enable_gqa=k.shape[1] != q.shape[1],
        )
        return self.o_proj(gathered.transpose(1, 2).flatten(2))  # (B, T, d)
