r"""Exercises to [`minillm.attention`][] and [`minillm.model`][]."""

import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from minillm import attention as chapter
from minillm import model
from minillm.exercises.exercise import FLOATS, Draw, Exercise, Mistake, stacked, tensors

__all__ = ["EXERCISES"]

sizes = st.integers(1, 3)


# Softmax and the norm


@st.composite
def _softmax_inputs(draw: Draw) -> tuple[Tensor, int]:
    x = draw(stacked(sizes, dtype=FLOATS))
    return x, draw(st.integers(-x.ndim, x.ndim - 1))


def _exp_sum(x: Tensor, dim: int) -> Tensor:
    return x.exp() / x.exp().sum(dim, keepdim=True)


def _shifted(x: Tensor, dim: int | tuple[int, ...], shift: Tensor) -> Tensor:
    e = (x - shift).exp()
    return e / e.sum(dim, keepdim=True)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    mean_square = (x * x).mean(-1, keepdim=True)
    return x / (mean_square + eps).sqrt() * weight


@st.composite
def _norm_inputs(draw: Draw) -> tuple[Tensor, Tensor, float]:
    d, dtype = draw(st.integers(1, 4)), draw(FLOATS)
    x = draw(stacked(d, dtype=dtype))
    weight = draw(tensors(d, dtype=dtype, values=(1.0, 2.0, -1.0)))
    return x, weight, draw(st.sampled_from([1e-5, 0.5, 1.0]))


# Positions


def _rope(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    rope = model.RotaryEmbedding(x.shape[-1], 10, theta).to(x.dtype)
    return rope(x, positions)


def _turn(
    x: Tensor,
    positions: Tensor,
    theta: float,
    *,
    sign: int = 1,
    power: int = 2,
    first: int = 0,
    halves: bool = False,
) -> Tensor:
    d = x.shape[-1]
    j = torch.arange(d // 2, dtype=torch.float64)
    angles = torch.outer(positions.double() + first, theta ** (-power * j / d))
    cos, sin = angles.cos().to(x.dtype), sign * angles.sin().to(x.dtype)
    a, b = (
        (x[..., : d // 2], x[..., d // 2 :]) if halves else (x[..., ::2], x[..., 1::2])
    )
    turned = a * cos - b * sin, a * sin + b * cos
    return torch.cat(turned, -1) if halves else torch.stack(turned, -1).flatten(-2)


@st.composite
def _rope_inputs(draw: Draw) -> tuple[Tensor, Tensor, float]:
    seq = draw(sizes)
    x = draw(stacked(seq, draw(st.sampled_from([2, 4])), dtype=FLOATS))
    places = draw(st.lists(st.integers(0, 9), min_size=seq, max_size=seq))
    return x, torch.tensor(places), draw(st.sampled_from([100.0, 10000.0]))


# Attention


def _causal_mask(n_queries: int, n_keys: int) -> Tensor:
    # Query i stands at place n_keys - n_queries + i among the keys.
    everything = torch.ones(n_queries, n_keys, dtype=torch.bool)
    return everything.tril(n_keys - n_queries)


@st.composite
def _attention_inputs(draw: Draw) -> tuple[Any, ...]:
    queries, keys, d, dtype = draw(sizes), draw(sizes), draw(st.just(4)), draw(FLOATS)
    batch = draw(st.lists(st.integers(1, 2), max_size=2))
    q = draw(tensors(*batch, queries, d, dtype=dtype))
    k = draw(tensors(*batch, keys, d, dtype=dtype))
    v = draw(tensors(*batch, keys, draw(st.integers(1, 2)), dtype=dtype))
    seen = st.lists(st.booleans(), min_size=keys, max_size=keys)
    mask = draw(st.lists(seen, min_size=queries, max_size=queries))
    return q, k, v, torch.tensor(mask)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    *,
    scale: Callable[[int], float] = math.sqrt,
    dim: int = -1,
    zeros: bool = True,
    fill: float = -math.inf,
) -> Tensor:
    scores = q @ k.transpose(-2, -1) / scale(q.shape[-1])
    weights = model.softmax(scores.masked_fill(~mask, fill), dim=dim)
    return (weights.masked_fill(~mask, 0.0) if zeros else weights) @ v


def _mask_afterwards(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    weights = model.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
    return weights.masked_fill(~mask, 0.0) @ v


def _split_heads(x: Tensor, n_heads: int) -> Tensor:
    # (B, T, d) → (B, T, H, d_h) → (B, H, T, d_h)
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


@st.composite
def _heads_inputs(draw: Draw) -> tuple[Tensor, int]:
    heads = draw(sizes)
    width = heads * draw(st.integers(1, 2))
    values = [float(i) for i in range(10)]
    return draw(tensors(draw(sizes), draw(sizes), width, values=values)), heads


def _multi_head(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int
) -> Tensor:
    attention = model.MultiHeadAttention(x.shape[-1], n_heads).to(x.dtype)
    names = ["q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"]
    attention.load_state_dict(dict(zip(names, (w_q, w_k, w_v, w_o), strict=True)))
    with torch.no_grad():
        return attention(x)


def _several(
    x: Tensor,
    *weights: Any,
    causal: bool = True,
    output: bool = True,
    turned: bool = False,
    whole_scale: bool = False,
    in_order: bool = True,
    output_turned: bool = False,
) -> Tensor:
    w_q, w_k, w_v, w_o, n_heads = weights
    if turned:
        w_q, w_k, w_v, w_o = (w.T for w in (w_q, w_k, w_v, w_o))
    q, k, v = (_split_heads(x @ w.T, n_heads) for w in (w_q, w_k, w_v))
    seq = x.shape[1]
    mask = _causal_mask(seq, seq) if causal else torch.ones(seq, seq, dtype=torch.bool)
    scale = (lambda d: math.sqrt(x.shape[-1])) if whole_scale else math.sqrt
    heads = _attend(q, k, v, mask, scale=scale)
    joined = heads.transpose(1, 2).flatten(2) if in_order else heads.reshape(x.shape)
    w_o = w_o if output_turned else w_o.T
    return joined @ w_o if output else joined


@st.composite
def _multi_inputs(draw: Draw) -> tuple[Any, ...]:
    heads = draw(st.integers(1, 2))
    d, dtype = 2 * heads, draw(FLOATS)
    weights = [draw(tensors(d, d, dtype=dtype)) for _ in range(4)]
    x = draw(tensors(draw(st.integers(1, 2)), draw(sizes), d, dtype=dtype))
    return x, *weights, heads


# The feed-forward network and the block


def _swiglu(x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
    return (model.silu(x @ w1.T) * (x @ w3.T)) @ w2.T


@st.composite
def _swiglu_inputs(draw: Draw) -> tuple[Any, ...]:
    d, wide, dtype = draw(st.integers(1, 2)), draw(sizes), draw(FLOATS)
    shapes = (wide, d), (d, wide), (wide, d)
    weights = [draw(tensors(*shape, dtype=dtype)) for shape in shapes]
    return draw(stacked(d, dtype=dtype)), *weights


class Line:
    """A function whose text is its definition, so that an input can be read."""

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b

    def __call__(self, x: Tensor) -> Tensor:
        return self.a * x + self.b

    def __repr__(self) -> str:
        return f"(lambda x: {self.a} * x + {self.b})"


def _block(x: Tensor, attn_norm: Any, attn: Any, ffn_norm: Any, ffn: Any) -> Tensor:
    x = x + attn(attn_norm(x))
    return x + ffn(ffn_norm(x))


def _block_post(x: Tensor, norm1: Any, attn: Any, norm2: Any, ffn: Any) -> Tensor:
    x = norm1(x + attn(x))
    return norm2(x + ffn(x))


def _block_bare(x: Tensor, norm1: Any, attn: Any, norm2: Any, ffn: Any) -> Tensor:
    return ffn(norm2(attn(norm1(x))))


def _block_normed(x: Tensor, norm1: Any, attn: Any, norm2: Any, ffn: Any) -> Tensor:
    x = norm1(x)
    x = x + attn(x)
    x = norm2(x)
    return x + ffn(x)


_lines = st.builds(Line, st.integers(1, 3), st.integers(0, 2))

EXERCISES = (
    Exercise(
        name="model.softmax",
        title="Softmax that does not overflow",
        minutes=10,
        why="Attention and sampling both turn scores into weights with it, and float32 "
        "overflows at a score of 89.",
        answer=(chapter.softmax,),
        reference=chapter.softmax,
        forbidden=frozenset({"softmax", "log_softmax"}),
        inputs=_softmax_inputs(),
        examples=(
            (torch.tensor([1000.0, 1000.0]), 0),
            (torch.tensor([[1.0, 2.0], [3.0, 5.0]]), 0),
            (torch.tensor([[1.0, 2.0], [3.0, 5.0]]), 1),
            (torch.tensor([[0.0, 0.0], [900.0, 900.0]]), 1),
        ),
        mistakes=(
            Mistake(
                "overflows",
                "exp(1000) is infinite: take the largest score off first, which "
                "changes nothing but the size.",
                _exp_sum,
            ),
            Mistake(
                "always the last axis",
                "The weights sum to one along dim, whichever that is.",
                lambda x, dim: _shifted(x, -1, x.amax(-1, keepdim=True)),
            ),
            Mistake(
                "always the first axis",
                "The weights sum to one along dim, whichever that is.",
                lambda x, dim: _shifted(x, 0, x.amax(0, keepdim=True)),
            ),
            Mistake(
                "sums over all axes",
                "Each row along dim sums to one by itself: sum with dim and keepdim.",
                lambda x, dim: _shifted(x, tuple(range(x.ndim)), x.amax()),
            ),
            Mistake(
                "one maximum for all rows",
                "A row far below the largest score of another underflows to 0 / 0: "
                "take the maximum along dim.",
                lambda x, dim: _shifted(x, dim, x.amax()),
            ),
        ),
        hints=(
            "exp of every score, divided by the sum of these along dim. When is exp "
            "too large?",
            "Subtracting the same number from all scores of a row cancels out.",
            "x.amax(dim, keepdim=True) is what to subtract; keepdim lets it broadcast.",
        ),
    ),
    Exercise(
        name="model.rms_norm",
        title="The norm",
        minutes=10,
        why="Without it the vectors grow from block to block, until float32 cannot "
        "hold them.",
        answer=(model.RMSNorm,),
        reference=_rms_norm,
        forbidden=frozenset({"rms_norm", "layer_norm"}),
        inputs=_norm_inputs(),
        examples=(
            (torch.tensor([[3.0, 4.0], [1.0, 7.0]]), torch.tensor([1.0, 2.0]), 1e-5),
            (torch.zeros(2), torch.ones(2), 1e-5),
        ),
        mistakes=(
            Mistake(
                "eps outside the root",
                "The formula has eps under the root, added to the mean square.",
                lambda x, w, eps: x / ((x * x).mean(-1, keepdim=True).sqrt() + eps) * w,
            ),
            Mistake(
                "mean over the wrong axis",
                "Each vector is normalized by itself, along the last axis.",
                lambda x, w, eps: x / ((x * x).mean(0, keepdim=True) + eps).sqrt() * w,
            ),
            Mistake(
                "mean over all axes",
                "Each vector is normalized by itself, along the last axis.",
                lambda x, w, eps: x / ((x * x).mean() + eps).sqrt() * w,
            ),
            Mistake(
                "the sum for the mean",
                "The root of the *mean* square: a sum would make wide vectors small.",
                lambda x, w, eps: x / ((x * x).sum(-1, keepdim=True) + eps).sqrt() * w,
            ),
            Mistake(
                "subtracts the mean",
                "That is LayerNorm. RMSNorm leaves the mean where it is.",
                lambda x, w, eps: _rms_norm(x - x.mean(-1, keepdim=True), w, eps),
            ),
            Mistake(
                "forgets the weight",
                "Each number is multiplied by its own learned factor at the end.",
                lambda x, w, eps: x / ((x * x).mean(-1, keepdim=True) + eps).sqrt(),
            ),
        ),
        hints=(
            "Read the name backwards: square, mean, root.",
            "The mean is along the last axis, and keepdim=True lets it broadcast.",
            "x / (mean of squares + eps).sqrt() * weight",
        ),
    ),
    Exercise(
        name="model.rope",
        title="Positions as angles",
        minutes=30,
        why="Attention by itself knows no order. With the wrong pairs a trained model "
        "still runs, and writes nonsense.",
        answer=(model.RotaryEmbedding,),
        reference=_rope,
        inputs=_rope_inputs(),
        examples=(
            (torch.tensor([[1.0, 0.0, 1.0, 2.0]]), torch.tensor([3]), 100.0),
            (torch.tensor([[1.0, 2.0]]), torch.tensor([0]), 100.0),
        ),
        mistakes=(
            Mistake(
                "halves for pairs",
                "The pairs lie side by side, 0 with 1 and 2 with 3. Hugging Face's "
                "Llama pairs j with j + d/2, one permutation apart.",
                lambda *args: _turn(*args, halves=True),
            ),
            Mistake(
                "turns the other way",
                "The first becomes x cos - y sin, the second x sin + y cos.",
                lambda *args: _turn(*args, sign=-1),
            ),
            Mistake(
                "theta to the power -j/d",
                "The exponent is -2j/d: j counts pairs, and there are d/2.",
                lambda *args: _turn(*args, power=1),
            ),
            Mistake(
                "positions counted from one",
                "The position is given: at position 0 nothing turns.",
                lambda *args: _turn(*args, first=1),
            ),
        ),
        hints=(
            "Make a table of angles first, (seq, d/2): torch.outer of the positions "
            "and theta ** (-2j/d) for j = 0, 1, …, d/2 - 1.",
            "x[..., 0::2] are the first numbers of all pairs, x[..., 1::2] the second; "
            "turn both with the cosines and sines of the table.",
            "torch.stack([first, second], -1).flatten(-2) puts the pairs side by side.",
        ),
    ),
    Exercise(
        name="model.causal_mask",
        title="Nobody looks ahead",
        minutes=10,
        why="A model that can see the next token learns to copy it, reaches a loss of "
        "zero, and writes nonsense.",
        answer=(model.MultiHeadAttention,),
        reference=_causal_mask,
        inputs=st.integers(1, 4).flatmap(
            lambda n: st.tuples(st.integers(1, n), st.just(n))
        ),
        examples=((2, 4), (3, 3)),
        mistakes=(
            Mistake(
                "upside down",
                "True is where a query *may* look.",
                lambda q, k: ~_causal_mask(q, k),
            ),
            Mistake(
                "looks forwards",
                "A query sees itself and what came before, the lower triangle.",
                lambda q, k: torch.ones(q, k, dtype=torch.bool).triu(k - q),
            ),
            Mistake(
                "does not see itself",
                "The diagonal belongs to it: a token may look at itself.",
                lambda q, k: torch.ones(q, k, dtype=torch.bool).tril(k - q - 1),
            ),
            Mistake(
                "queries counted from the first key",
                "With a cache the queries are the last of the keys: query i stands at "
                "place n_keys - n_queries + i.",
                lambda q, k: torch.ones(q, k, dtype=torch.bool).tril(),
            ),
            Mistake(
                "zeros and ones",
                "A mask is of bool; 0.0 and 1.0 are numbers to calculate with.",
                lambda q, k: torch.ones(q, k).tril(k - q),
            ),
        ),
        hints=(
            "Start with as many queries as keys. Which half of the square is True?",
            "torch.ones(…, dtype=torch.bool).tril() keeps the lower triangle.",
            "tril takes a number that moves the diagonal to the right. By how much, if "
            "the last query stands at the last key?",
        ),
    ),
    Exercise(
        name="model.attention",
        title="Attention",
        minutes=25,
        why="The one step in which a position learns something of another.",
        answer=(chapter.scaled_dot_product_attention,),
        reference=chapter.scaled_dot_product_attention,
        forbidden=frozenset({"scaled_dot_product_attention"}),
        inputs=_attention_inputs(),
        examples=(
            (
                torch.tensor([[2.0, 0.0], [0.0, 1.0]]),
                torch.tensor([[1.0, 0.0], [3.0, 1.0]]),
                torch.tensor([[1.0], [2.0]]),
                torch.tensor([[True, False], [True, True]]),
            ),
            (
                torch.ones(1, 2),
                torch.ones(1, 2),
                torch.ones(1, 1),
                torch.tensor([[False]]),
            ),
            (
                # What it may look at scores far below any number that seems low.
                torch.tensor([[300.0]]),
                torch.tensor([[-300.0], [1.0]]),
                torch.tensor([[1.0], [2.0]]),
                torch.tensor([[True, False]]),
            ),
        ),
        mistakes=(
            Mistake(
                "a large negative number for minus infinity",
                "A score may lie below -10000, too: only -inf is below all of them. A "
                "row that is all -inf then gives NaN: set its weights to zero.",
                lambda *args: _attend(*args, fill=-1e4, zeros=False),
            ),
            Mistake(
                "not scaled",
                "Dot products grow with the width: divide by the root of d.",
                lambda *args: _attend(*args, scale=lambda d: 1.0),
            ),
            Mistake(
                "scaled by d",
                "A dot product of d terms has variance d, so a width of *root* d.",
                lambda *args: _attend(*args, scale=float),
            ),
            Mistake(
                "mask upside down",
                "True is where a query may look; elsewhere the score becomes -inf.",
                lambda q, k, v, mask: _attend(q, k, v, ~mask),
            ),
            Mistake(
                "softmax over the queries",
                "The weights of one query sum to one: along the keys, the last axis.",
                lambda *args: _attend(*args, dim=-2),
            ),
            Mistake(
                "masked after the softmax",
                "Set to zero afterwards, the weights that are left do not sum to one: "
                "put -inf in the scores.",
                _mask_afterwards,
            ),
            Mistake(
                "a row of nothing becomes NaN",
                "Softmax over -inf alone is 0 / 0: set the weights to zero there.",
                lambda *args: _attend(*args, zeros=False),
            ),
            Mistake(
                "mask ignored",
                "Where the mask is False the score becomes -inf.",
                lambda q, k, v, mask: _attend(q, k, v, torch.ones_like(mask)),
            ),
        ),
        hints=(
            "Scores are q @ k.transpose(-2, -1), divided by the root of the width.",
            "scores.masked_fill(~mask, -inf), then softmax along the keys, then @ v.",
            "A row that is masked altogether is NaN by now: masked_fill(~mask, 0.0) on "
            "the weights repairs it.",
        ),
    ),
    Exercise(
        name="model.split_heads",
        title="Cut vectors into heads",
        minutes=10,
        why="The shapes fit in two wrong ways as well, and such a model still trains, "
        "only badly.",
        answer=(model.MultiHeadAttention,),
        reference=_split_heads,
        inputs=_heads_inputs(),
        examples=((torch.arange(16.0).reshape(1, 4, 4), 2),),
        mistakes=(
            Mistake(
                "reshaped without a transposition",
                "reshape only counts numbers: heads would mix positions.",
                lambda x, h: x.reshape(x.shape[0], h, x.shape[1], -1),
            ),
            Mistake(
                "heads interleaved",
                "A head gets neighbouring numbers: cut into (n_heads, d_head).",
                lambda x, h: x.unflatten(-1, (-1, h)).permute(0, 3, 1, 2),
            ),
            Mistake(
                "heads behind the positions",
                "The heads lead, so that a product works on each by itself: swap axes "
                "1 and 2.",
                lambda x, h: x.unflatten(-1, (h, -1)),
            ),
        ),
        hints=(
            "First only cut the last axis: (batch, seq, n_heads, d_head).",
            "x.unflatten(-1, (n_heads, -1)), or view, does that.",
            "Then axes 1 and 2 change places: transpose(1, 2).",
        ),
    ),
    Exercise(
        name="model.multi_head",
        title="Several heads",
        minutes=30,
        why="One head takes one mean. Several look at several things, at the same "
        "price.",
        answer=(chapter.multi_head_attention_naive, model.MultiHeadAttention),
        reference=_multi_head,
        inputs=_multi_inputs(),
        examples=(
            (
                torch.tensor([[[1.0, 0.0, 2.0, 1.0], [0.0, 1.0, 1.0, -1.0]]]),
                torch.eye(4),
                torch.eye(4) + 1,
                torch.arange(16.0).reshape(4, 4) / 16,
                torch.arange(16.0).reshape(4, 4).T / 16 + torch.eye(4),
                2,
            ),
        ),
        mistakes=(
            Mistake(
                "looks ahead",
                "Attention is causal here: use the mask.",
                lambda *args: _several(*args, causal=False),
            ),
            Mistake(
                "forgets the output weight",
                "w_o mixes what the heads bring home.",
                lambda *args: _several(*args, output=False),
            ),
            Mistake(
                "weights the wrong way round",
                "They are (out, in): x @ w.T, not x @ w.",
                lambda *args: _several(*args, turned=True),
            ),
            Mistake(
                "the output weight the wrong way round",
                "w_o is (out, in), like the others: joined @ w_o.T.",
                lambda *args: _several(*args, output_turned=True),
            ),
            Mistake(
                "scaled by the width of the model",
                "The dot products have d_head terms: divide by the root of that.",
                lambda *args: _several(*args, whole_scale=True),
            ),
            Mistake(
                "heads joined without a transposition",
                "Before they are joined, the heads go back behind the positions.",
                lambda *args: _several(*args, in_order=False),
            ),
        ),
        hints=(
            "Queries, keys and values are x @ w.T, each cut by split_heads.",
            "Your attention works on all heads at once, with causal_mask(seq, seq).",
            "heads.transpose(1, 2).flatten(2) joins them; then @ w_o.T.",
        ),
    ),
    Exercise(
        name="model.swiglu",
        title="The feed-forward network",
        minutes=10,
        why="Most of the weights of a large model are in these three matrices.",
        answer=(model.SwiGLU,),
        reference=_swiglu,
        forbidden=frozenset({"silu"}),
        inputs=_swiglu_inputs(),
        examples=(
            (
                torch.tensor([1.0, -2.0]),
                torch.tensor([[1.0, 0.5], [2.0, 1.0], [0.0, 1.0]]),
                torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]),
                torch.tensor([[0.5, 0.0], [1.0, 4.0], [3.0, 1.0]]),
            ),
        ),
        mistakes=(
            Mistake(
                "gate and value swapped",
                "silu is on w1, and w3 is what it lets through.",
                lambda x, w1, w2, w3: _swiglu(x, w3, w2, w1),
            ),
            Mistake(
                "sigmoid for silu",
                "silu(a) is a times sigmoid(a).",
                lambda x, w1, w2, w3: ((x @ w1.T).sigmoid() * (x @ w3.T)) @ w2.T,
            ),
            Mistake(
                "no gate",
                "The two widened vectors are multiplied, number by number.",
                lambda x, w1, w2, w3: model.silu(x @ w1.T) @ w2.T,
            ),
            Mistake(
                "ReLU",
                "silu is smooth: a little of a negative number passes.",
                lambda x, w1, w2, w3: ((x @ w1.T).relu() * (x @ w3.T)) @ w2.T,
            ),
        ),
        hints=(
            "Widen twice: a = x @ w1.T and b = x @ w3.T.",
            "The gate is a * torch.sigmoid(a).",
            "(gate * b) @ w2.T",
        ),
    ),
    Exercise(
        name="model.block",
        title="The block",
        minutes=10,
        why="The sums are what lets a gradient reach the first of a hundred layers.",
        answer=(model.TransformerBlock,),
        reference=_block,
        inputs=st.tuples(tensors(sizes), _lines, _lines, _lines, _lines),
        examples=(
            (torch.tensor([1.0]), Line(2, 0), Line(3, 1), Line(1, 2), Line(2, 1)),
        ),
        mistakes=(
            Mistake(
                "norm after the sum",
                "That is the first Transformer. Here the norm stands before each part.",
                _block_post,
            ),
            Mistake(
                "nothing is added",
                "Each part adds to x: x + attn(…).",
                _block_bare,
            ),
            Mistake(
                "the norm replaces x",
                "Only the part sees the normalized x; the sum keeps x as it was.",
                _block_normed,
            ),
            Mistake(
                "both parts side by side",
                "The second part sees what the first has added.",
                lambda x, n1, attn, n2, ffn: x + attn(n1(x)) + ffn(n2(x)),
            ),
            Mistake(
                "without the norms",
                "Each part sees the normalized x.",
                lambda x, n1, attn, n2, ffn: x + attn(x) + ffn(x + attn(x)),
            ),
        ),
        hints=(
            "Two lines, one for each part.",
            "x = x + attn(attn_norm(x)) is the first.",
            "The second is the same with ffn, on the new x.",
        ),
    ),
)
