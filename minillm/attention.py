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
>>> (average @ x).squeeze(1).round(decimals=3).tolist()
[8.0, 4.0, 4.0, 4.0]

Three of four results are alike: the average has forgotten who said what. So the weights
must depend on the vectors. Second attempt: weigh each predecessor by how well its
vector matches one's own, by their dot product. Dot products may be negative and sum to
anything, so [`softmax`][minillm.attention.softmax] turns them into weights. Now a
position can choose. The last, a 4, looks for what resembles it. Its products are 4 · 8,
4 · 0, 4 · 4 and 4 · 4; the largest takes all the weight:

>>> [round(w, 2) for w in softmax(x[3] * x.squeeze(1), dim=0).tolist()]
[1.0, 0.0, 0.0, 0.0]

It has found the 8, and neither itself nor the other 4: a long vector matches
everything, and what a position *seeks*, what it *is found by* and what it *has to tell*
are one and the same. Third attempt: give it three vectors, each a learned product with
its own, the *query*, the *key* and the *value*. That is attention.

# The ladder

From here the chapter climbs. Each rung mends one failure of the rung below, and gives
the same numbers where both apply:

| rung | what it mends |
| --- | --- |
| dot products for weights | an average cannot choose |
| the causal mask | a position reads the answer that it should guess |
| scores divided by $\sqrt{d}$ | wide vectors: one key takes all the weight |
| many heads, by a loop | one mean cannot look at two places |
| all heads in one product | small products, one after the other |
| grouped-query heads | with a few long texts, their keys and values outgrow the model |
| the fused kernel | the matrix of scores outgrows the memory |

A model of two layers with two heads each has learned to go on with texts that repeat
themselves after twelve tokens, and this is what its four heads look at. Row $t$ shows
how position $t$ shares its attention among the positions up to itself: in the first
layer both heads look one position back, in the second ten, which together is where the
next token stood before. ([`minillm.drawing.attention`][] trains it.)

<div class="figure" markdown>

--8<-- "images/attention-maps.svg"

</div>

**Next:** [`minillm.rope`][] tells positions apart, [`minillm.model`][] stacks it all.
The letters are those of the [notation page](notation.md).
"""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.rope import RotaryEmbedding

__all__ = [
    "LayerCache",
    "Linear",
    "MultiHeadAttention",
    "RotaryEmbedding",
    "multi_head_attention_naive",
    "scaled_dot_product_attention",
    "softmax",
]


def softmax(x: Float[Tensor, "*shape"], dim: int) -> Float[Tensor, "*shape"]:
    r"""Turn scores into probabilities: positive, and summing to one along `dim`.

    $$\operatorname{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$

    Args:
        x: scores, any real numbers; $-\infty$ means "impossible". Where nothing is
            possible, the results are NaN.
        dim: the axis along which the results sum to one.

    Returns:
        The probabilities, in the shape of `x`.

    Examples:
        Only differences matter: each step of $\ln 2 \approx 0.693$ doubles the odds.

        >>> p = softmax(torch.tensor([0.0, math.log(2), math.log(4)]), dim=0)
        >>> (p * 7).round(decimals=3).tolist()
        [1.0, 2.0, 4.0]

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

    The third attempt above, for all positions at once: each asks with a *query*, each
    answers to a *key*, and how well the two match, by dot product, decides how much of
    the *value* is taken. (Vaswani et al. 2017, equation 1.)

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
        >>> q = torch.zeros(3, 2)
        >>> scaled_dot_product_attention(q, k, v).squeeze().round(decimals=3).tolist()
        [5.0, 5.0, 5.0]

        The first two of these have looked at positions that come after them. A model
        that is trained to guess the next token would find the answer there, and learn
        nothing else. With the causal mask, each position averages over its own past
        only:

        >>> past = torch.ones(3, 3, dtype=torch.bool).tril()
        >>> causal = scaled_dot_product_attention(q, k, v, past)
        >>> causal.squeeze().round(decimals=3).tolist()
        [2.0, 3.0, 5.0]

        A query that resembles the second key gathers the second value:

        >>> query = torch.tensor([[-50.0, 50.0]])
        >>> round(scaled_dot_product_attention(query, k, v).item(), 3)
        4.0

        Why divide by $\sqrt d$: if the entries of two vectors are independent, with
        mean 0 and variance 1, their dot product has variance $d$. Without the division,
        wide vectors start with scores so far apart that the largest takes all the
        weight, and nothing can be learned from the rest:

        >>> q, k = torch.randn(2, 1000, 256, generator=torch.manual_seed(0))
        >>> scores = q @ k.T
        >>> round(scores.var().item() / 256, 1)
        1.0
        >>> round(softmax(scores, dim=-1).amax(-1).mean().item(), 1)  # one key of 1000
        0.9
        >>> round(softmax(scores / 16, dim=-1).amax(-1).mean().item(), 2)
        0.02
    """
    # $Q K^\top / \sqrt d$: every query against every key
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., queries, keys)
    if mask is None:
        return softmax(scores, dim=-1) @ v
    # A score of $-\infty$ becomes a weight of zero. In a row that is all $-\infty$,
    # softmax divides nothing by nothing; there the weights are set to zero by hand.
    weights = softmax(scores.masked_fill(~mask, -math.inf), dim=-1)
    return weights.masked_fill(~mask, 0.0) @ v


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
        >>> _ = torch.manual_seed(1)
        >>> layer = Linear(256, 512)
        >>> y = layer(torch.randn(1000, 256, generator=torch.manual_seed(0)))
        >>> y.shape, round(y.std().item(), 1)
        (torch.Size([1000, 512]), 1.0)
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weight anew."""
        self.weight.normal_().div_(math.sqrt(self.weight.shape[1]))

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Multiply each vector along the last axis by the weight."""
        # $y = x W^\top$: the same product for rows, which is how batches are stored.
        return F.linear(x, self.weight)

    def extra_repr(self) -> str:
        """The sizes, for `print(model)`."""
        return f"d_in={self.weight.shape[1]}, d_out={self.weight.shape[0]}"


def multi_head_attention_naive(
    x: Float[Tensor, "*batch seq d_model"],
    w_q: Float[Tensor, "d_model d_model"],
    w_k: Float[Tensor, "d_kv d_model"],
    w_v: Float[Tensor, "d_kv d_model"],
    w_o: Float[Tensor, "d_model d_model"],
    n_heads: int,
    rope: RotaryEmbedding | None = None,
) -> Float[Tensor, "*batch seq d_model"]:
    r"""Several attentions, one after the other: causal, obviously right, and slow.

    One attention gives one weighted mean: it can look at the word before *or* at the
    subject of the sentence. Looking at both with half the weight each, it gathers
    their mean, and can no longer tell a 3 and a 5 from two 4s. So let $H$ heads look,
    each with its own query, key and value of $d_h = d / H$ numbers, and let $W_o$ mix
    what they bring home. (Vaswani et al. 2017, section 3.2.2.)

    Args:
        x: the vectors.
        w_q: $W_q$; rows $h\,d_h$ to $(h + 1)\,d_h - 1$ are those of head $h$.
        w_k: $W_k$, the same for keys. With fewer rows than $W_q$, neighbouring query
            heads share a head of keys and values.
        w_v: $W_v$, the same for values.
        w_o: $W_o$.
        n_heads: $H$, the number of query heads.
        rope: turns queries and keys by their positions; `None` for no positions.

    Returns:
        For each position, what it has gathered from itself and those before it.

    Examples:
        Two positions, each with a number and a mark: 1 at the first, -1 at the second.
        What has the second gathered with one head that averages, and what with two
        heads, each of which looks at one of the marks?

        >>> one, still = torch.eye(2), torch.zeros(2, 2)  # queries of zero: an average
        >>> w_q = torch.tensor([[0.0, -50.0], [0.0, 50.0]])  # the mark it wants
        >>> w_k = torch.tensor([[0.0, 1.0], [0.0, 1.0]])  # the mark
        >>> w_v = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # the number
        >>> for a, b in ((3.0, 5.0), (4.0, 4.0)):
        ...     x = torch.tensor([[a, 1.0], [b, -1.0]])
        ...     mean = multi_head_attention_naive(x, still, one, one, one, n_heads=1)
        ...     both = multi_head_attention_naive(x, w_q, w_k, w_v, one, n_heads=2)
        ...     print(mean[-1, 0].item(), both[-1].tolist())
        4.0 [3.0, 5.0]
        4.0 [4.0, 4.0]
    """
    d_head, seq = x.shape[-1] // n_heads, x.shape[-2]
    sharing = len(w_q) // len(w_k)  # query heads to one head of keys and values
    past = torch.ones(seq, seq, dtype=torch.bool, device=x.device).tril()
    heads = []
    for h in range(n_heads):
        mine = slice(h * d_head, (h + 1) * d_head)
        shared = slice(h // sharing * d_head, (h // sharing + 1) * d_head)
        q, k, v = x @ w_q[mine].T, x @ w_k[shared].T, x @ w_v[shared].T  # (..., T, d_h)
        if rope is not None:
            q, k = rope(q), rope(k)
        heads.append(scaled_dot_product_attention(q, k, v, past))
    return torch.cat(heads, dim=-1) @ w_o.T


class MultiHeadAttention(nn.Module):
    r"""Several attentions side by side, each over its own share of the vector.

    Same result as
    [`multi_head_attention_naive`][minillm.attention.multi_head_attention_naive]. Unlike
    it:

    - *All heads in one product.* The queries of all heads come out of one product with
      $W_q$, which is then cut into heads; so do keys and values. The loop computes five
      products for each head and one with $W_o$, 161 with 32 heads; here there are six.
      It is the same work in a few large pieces, and the more of them there are, the
      more of the time goes into starting them.
    - *The fused kernel.* The matrix of scores has $T^2$ numbers for each head.
      PyTorch's kernel goes through it in blocks and keeps none of them, forward or
      backward (FlashAttention, Dao et al. 2022, arXiv:2205.14135).
    - *A cache.* Keys and values of the past can be kept, see
      [`LayerCache`][minillm.attention.LayerCache].

    With `n_kv_heads` smaller than `n_heads`, several query heads share one head of keys
    and values (grouped-query attention, Ainslie et al. 2023, arXiv:2305.13245). That
    saves some weights, and shrinks the cache by $H / H_{kv}$.

    Args:
        d_model: $d$, the width of input and output.
        n_heads: $H$, the number of query heads.
        n_kv_heads: $H_{kv}$, the number of key and value heads; `None` means $H$.
        rope: turns queries and keys by their positions; `None` for no positions.

    Raises:
        ValueError: if the heads do not divide as they must.

    Examples:
        All heads at once equal one head after another:

        >>> attn = MultiHeadAttention(d_model=32, n_heads=4).double()
        >>> x = torch.randn(1, 5, 32, dtype=torch.float64)
        >>> w_q, w_k, w_v, w_o = attn.parameters()
        >>> expected = multi_head_attention_naive(x, w_q, w_k, w_v, w_o, n_heads=4)
        >>> attn(x).allclose(expected)
        True

        What sharing is for: in half precision, the keys and values of eight texts of
        4096 tokens in a model of 32 layers and width 4096 take 16 GiB, more than the
        model itself. With one head of them for four heads of queries it is a quarter.

        >>> 2 * 2 * 32 * 4096 * 8 * 4096 / 2**30
        16.0
        >>> from minillm.flops import param_count, preset
        >>> round(2 * param_count(preset("llama2-7b")).total / 2**30, 1)
        12.6

        Shared heads are ordinary heads whose weights are equal:

        >>> shared = MultiHeadAttention(32, n_heads=4, n_kv_heads=2).double()
        >>> def repeat(weight):  # each head of 8 rows twice
        ...     return weight.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1)
        >>> w_q, w_k, w_v, w_o = shared.parameters()
        >>> shared(x).allclose(
        ...     multi_head_attention_naive(x, w_q, repeat(w_k), repeat(w_v), w_o, 4)
        ... )
        True

        What the fused kernel is for: the scores of one of these texts, in float32, in
        one layer of 32 heads, in GiB.

        >>> 4 * 32 * 4096**2 / 2**30
        2.0
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        rope: RotaryEmbedding | None = None,
    ) -> None:
        super().__init__()
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        _check_heads(d_model, n_heads, n_kv_heads, rope)
        self.d_head, self.rope = d_model // n_heads, rope
        d_kv = self.d_head * n_kv_heads
        self.q_proj = Linear(d_model, d_model)
        self.k_proj = Linear(d_model, d_kv)
        self.v_proj = Linear(d_model, d_kv)
        self.o_proj = Linear(d_model, d_model)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        positions: Int[Tensor, "*pos seq"] | None = None,
        cache: "LayerCache | None" = None,
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
                shape = q.shape[2], k.shape[2]
                mask = torch.ones(shape, dtype=torch.bool, device=x.device).tril(start)
        # PyTorch's fused kernel computes `scaled_dot_product_attention` above without
        # ever holding the whole matrix of scores. A single new token sees everything.
        gathered = _fused(q, k, v, mask, causal=not start)
        return self.o_proj(gathered.transpose(1, 2).flatten(2))  # (B, T, d)

    def extra_repr(self) -> str:
        """The numbers of heads, for `print(model)`."""
        rows = len(self.q_proj.weight), len(self.k_proj.weight)
        n_heads, n_kv_heads = (n // self.d_head for n in rows)
        return f"n_heads={n_heads}, n_kv_heads={n_kv_heads}, d_head={self.d_head}"


class LayerCache:
    r"""The keys and values that one layer has computed so far.

    A model that writes would compute the keys and values of the whole text again for
    each new token; [chapter 6](generate.md) counts how often. They do not change when a
    token is added, so they can be kept. A model keeps one of these for each layer, in a
    [`KVCache`][minillm.model.KVCache].

    Args:
        shape: $(B, H_{kv}, T, d_h)$, with room for the whole context.

    Examples:
        >>> cache = LayerCache((1, 2, 8, 4))  # room for eight tokens
        >>> k = torch.zeros(1, 2, 3, 4)
        >>> _ = cache.append(k, k)
        >>> cache.append(k, k)[0].shape, cache.length
        (torch.Size([1, 2, 6, 4]), 6)
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
            ValueError: if the context is full, or the cache was made for another number
                of sequences or another model.
        """
        _check_room(self.shape, k.shape)
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


def _fused(
    q: Float[Tensor, "batch heads queries d"],
    k: Float[Tensor, "batch kv_heads keys d"],
    v: Float[Tensor, "batch kv_heads keys d"],
    mask: Bool[Tensor, "queries keys"] | None,
    causal: bool,
) -> Float[Tensor, "batch heads queries d"]:
    """Call PyTorch's kernel, in the precision in which it is fast."""
    # On a CPU it goes backwards in bfloat16 more slowly than in float32.
    narrow = q.requires_grad and q.is_cpu and q.dtype == torch.bfloat16
    if narrow:
        q, k, v = q.float(), k.float(), v.float()
    with torch.autocast("cpu", enabled=False) if narrow else nullcontext():
        gathered = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=causal,
            enable_gqa=k.shape[1] != q.shape[1],
        )
    return gathered.bfloat16() if narrow else gathered


def _check_heads(
    d_model: int, n_heads: int, n_kv_heads: int, rope: RotaryEmbedding | None
) -> None:
    """Refuse numbers of heads that do not divide what they share."""
    for name, whole, part in (
        ("d_model={} is not a multiple of n_heads={}", d_model, n_heads),
        ("n_heads={} is not a multiple of n_kv_heads={}", n_heads, n_kv_heads),
    ):
        if part < 1 or whole % part:
            raise ValueError(f"{name.format(whole, part)}: change one of them")
    if rope is not None and rope.d_head != d_model // n_heads:
        raise ValueError(
            f"the rotary embedding turns heads of {rope.d_head} numbers; d_model / "
            f"n_heads is {d_model // n_heads}: give it that d_head"
        )


def _check_room(shape: tuple[int, ...], new: torch.Size) -> None:
    """Refuse keys that the cache would repeat, or could not hold."""
    for axis, name in ((0, "sequences"), (1, "heads"), (3, "numbers in a head")):
        if shape[axis] != new[axis]:
            raise ValueError(
                f"the cache was made for {shape[axis]} {name}; got {new[axis]}: make "
                "one with this batch size and the config of this model"
            )
