r"""Accounting: where the FLOPs, the bytes, the hours and the dollars go.

**The question.** Each layer of a Transformer does two things. *Attention* lets the
positions tell each other what they know; the *feed-forward network* (FFN) processes
each position independently. The famous paper is named after attention. Which of the two
costs more computation, and is it the same one in the small model on this laptop and in
a model a hundred thousand times its size? Guess before you read on.

**Before this:** [`minillm.model`][], whose every matrix product is counted here.

# Two answers

In 2022 Stephen Roller, of the team that trained OPT, posted a table of where the
computation goes in eight models. It is often shown as a warning: in a small model the
two share the work about equally, in a large one the FFN does nearly all of it, so if
you study small models, you study the wrong half.

>>> for row in [opt_table("published")[0], opt_table("published")[-1]]:
...     print(f"{row.name}: attention {row.mha + row.attn:.0%}, FFN {row.ffn:.0%}")
760M: attention 50%, FFN 44%
175B: attention 20%, FFN 80%

Here are the same two models, counted product by product as this chapter will do it:

>>> for row in [opt_table("counted")[0], opt_table("counted")[-1]]:
...     print(f"{row.name}: attention {row.mha + row.attn:.0%}, FFN {row.ffn:.0%}")
760M: attention 42%, FFN 50%
175B: attention 35%, FFN 65%

(`mha` are the projections of attention, `attn` is what it does with them; the rest, up
to 100%, is the head.) The direction is the same, but the FFN gains fifteen points where
it gained thirty-six. One of the two counts must be wrong about something. To say which,
we build the count from its smallest piece (here), let a program that knows nothing of
our formulas check the sum ([`minillm.accounting.measure`][]), and then go back to the
table ([`minillm.accounting.opt`][]).

# What is counted

A *FLOP* is one addition or one multiplication of two floating-point numbers. FLOPs,
with a small s, says how many; FLOP/s, how many in a second. Only matrix products are
counted. What is left out (norms, softmax, gates, rotations, sums) touches each
number a few times, while a product uses each number once for every column of a matrix,
and those have hundreds or thousands. PyTorch's own counter leaves out the same.

# Notation

| symbol | meaning | symbol | meaning |
|---|---|---|---|
| $B$ | sequences in a batch | $d_h = d/H$ | width of a head |
| $T$ | tokens in a sequence | $d_{ff}$ | hidden width of the FFN |
| $d$ | width of the residual stream | $V$ | size of the vocabulary |
| $L$ | layers | $N$ | parameters |
| $H, H_{kv}$ | query heads, key/value heads | $D$ | tokens of training |

**Next:** [`minillm.accounting.measure`][] and [`minillm.accounting.opt`][], named
above, then [`minillm.accounting.memory`][] (bytes),
[`minillm.accounting.cost`][] (hours and dollars), [`minillm.accounting.roofline`][]
(which limit a chip meets) and [`minillm.accounting.industrialization`][] (what the
rumours imply). In a terminal, `minillm flops gpt2` prints what this page counts.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from minillm.accounting.cost import CHIPS, mfu, training_cost
from minillm.accounting.memory import bytes_moved, inference_memory, training_memory
from minillm.accounting.opt import OptRow, opt_table
from minillm.accounting.roofline import roofline
from minillm.accounting.shapes import (
    PRESETS,
    Architecture,
    Recompute,
    as_architecture,
    check_positive,
    check_sizes,
    param_count,
    preset,
)
from minillm.config import ModelConfig

__all__ = [
    "CHIPS",
    "PRESETS",
    "Architecture",
    "FlopCount",
    "OptRow",
    "Product",
    "aligned",
    "bytes_moved",
    "forward_flops",
    "inference_memory",
    "matmul_flops",
    "mfu",
    "opt_table",
    "param_count",
    "preset",
    "products",
    "products_table",
    "roofline",
    "short",
    "six_nd",
    "training_cost",
    "training_flops",
    "training_memory",
]


def matmul_flops(m: int, n: int, p: int) -> int:
    r"""Count the FLOPs of one matrix product, $(m, n) \times (n, p)$: $2mnp$.

    The result has $m \cdot p$ entries. Each is a sum of $n$ products: $n$
    multiplications, and $n$ additions if the first adds to zero. So each costs $2n$.
    Some people count a multiplication and its addition as one *MAC*; their numbers are
    half of ours.

    Args:
        m: rows of the first matrix, and of the result.
        n: columns of the first matrix, rows of the second: what is summed over.
        p: columns of the second matrix, and of the result.

    Returns:
        The number of additions and multiplications.

    Examples:
        Two rows times two columns, each a sum of three products:

        >>> matmul_flops(2, 3, 2)
        24

        PyTorch has a counter that watches every operation as it runs. It agrees:

        >>> import torch
        >>> from torch.utils.flop_counter import FlopCounterMode
        >>> with FlopCounterMode(display=False) as counter:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 2)
        >>> counter.get_total_flops()
        24
    """
    return 2 * m * n * p


class Product(NamedTuple):
    r"""One kind of matrix product in the forward pass.

    Attributes:
        part: `"projections"`, `"attention"`, `"ffn"`, `"head"` or `"embedding"`.
        name: what the product is for.
        times: how often it is done.
        m: rows of the first matrix.
        n: what is summed over.
        p: columns of the second matrix.
        learned: whether the second matrix is a weight, and not an activation too.
    """

    part: str
    name: str
    times: int
    m: int
    n: int
    p: int
    learned: bool = True

    @property
    def flops(self) -> int:
        """What all of them cost together."""
        return self.times * matmul_flops(self.m, self.n, self.p)

    @property
    def params(self) -> int:
        """How many weights each token is multiplied by, over all layers."""
        return self.times * self.n * self.p if self.learned else 0


def products(
    config: ModelConfig | Architecture,
    batch_size: int,
    seq_len: int,
    *,
    past: int = 0,
    causal_half: bool = False,
    embedding_product: bool = False,
) -> list[Product]:
    r"""List every matrix product of a forward pass, in the order of the model.

    | part | for | product | how often | FLOPs together |
    |---|---|---|---|---|
    | projections | queries | $(BT, d) \times (d, Hd_h)$ | $L$ | $2LBTd\,Hd_h$ |
    | | keys, values | $(BT, d) \times (d, H_{kv}d_h)$ | $2L$ | $4LBTd\,H_{kv}d_h$ |
    | attention | scores | $(T, d_h) \times (d_h, T)$ | $LBH$ | $2LBHT^2d_h$ |
    | | values mixed | $(T, T) \times (T, d_h)$ | $LBH$ | $2LBHT^2d_h$ |
    | projections | output | $(BT, Hd_h) \times (Hd_h, d)$ | $L$ | $2LBTd\,Hd_h$ |
    | ffn | in, gate | $(BT, d) \times (d, d_{ff})$ | $2L$ | $4LBTd\,d_{ff}$ |
    | | out | $(BT, d_{ff}) \times (d_{ff}, d)$ | $L$ | $2LBTd\,d_{ff}$ |
    | head | logits | $(BT, d) \times (d, V)$ | 1 | $2BTdV$ |

    Some large models have $E$ FFNs in a layer, *experts*, of which each token meets
    $k$. Then the three rows of the FFN count these $k$, and a router,
    $(BT, d) \times (d, E)$ in each layer, stands before them.

    Two rows multiply activations with activations and have no parameters. Theirs is the
    only cost that grows with $T^2$, and sharing keys and values among heads (GQA) does
    not lower it: all $H$ query heads still score all positions.

    Args:
        config: the shape of the model.
        batch_size: $B$, how many sequences.
        seq_len: $T$, how many new tokens in each.
        past: how many tokens each sequence has in its KV cache already; the new ones
            look at these too.
        causal_half: count only the pairs that the causal mask lets through, position
            $t$ with the $t$ positions up to it: $T(T+1)/2$ instead of $T^2$. A fused
            kernel skips most of the rest. The default counts the full square, as
            PyTorch's counter and most papers do.
        embedding_product: count the look-up of token vectors as the product with a
            one-hot matrix that it could be. Nobody computes it so, but some published
            counts include it.

    Returns:
        One [`Product`][minillm.flops.Product] for each row of the table.

    Raises:
        ValueError: if a size is not positive.

    Examples:
        >>> tiny = ModelConfig(100, 8, d_model=16, n_layers=1, n_heads=2, d_ff=40)
        >>> for product in products(tiny, batch_size=1, seq_len=8)[:4]:
        ...     print(product.name, product.times, (product.m, product.n, product.p))
        queries 1 (8, 16, 16)
        keys, values 2 (8, 16, 16)
        scores 2 (8, 8, 8)
        values mixed 2 (8, 8, 8)
    """
    check_sizes(batch_size=batch_size, seq_len=seq_len)
    if past:
        check_sizes(past=past)
    c = as_architecture(config)
    tokens, d = batch_size * seq_len, c.d_model
    # Row by row, (T, d_h) × (d_h, columns). Half a square is not a matrix, but it is a
    # list of pairs, and a list is a matrix of one column.
    rows, columns = seq_len, past + seq_len
    if causal_half:
        rows, columns = seq_len * past + seq_len * (seq_len + 1) // 2, 1
    layers, heads = c.n_layers, c.n_layers * batch_size * c.n_heads
    # Each token meets `n_active` experts: as much work as if these saw all tokens.
    widen, experts = c.mlp_matrices - 1, layers * c.n_active
    gated = "in, gate" if c.mlp_matrices == 3 else "in"
    listed = [
        Product("projections", "queries", layers, tokens, d, d),
        Product("projections", "keys, values", 2 * layers, tokens, d, c.d_kv),
        Product("attention", "scores", heads, rows, c.d_head, columns, learned=False),
        Product(
            "attention", "values mixed", heads, rows, columns, c.d_head, learned=False
        ),
        Product("projections", "output", layers, tokens, d, d),
        Product("ffn", gated, widen * experts, tokens, d, c.d_ff),
        Product("ffn", "out", experts, tokens, c.d_ff, d),
        Product("head", "logits", 1, tokens, d, c.vocab_size),
    ]
    if c.n_experts > 1:
        router = Product("ffn", "router", layers, tokens, d, c.n_experts)
        listed.insert(5, router)
    if embedding_product:
        listed.insert(0, Product("embedding", "look-up", 1, tokens, c.vocab_size, d))
    return listed


def products_table(listed: Sequence[Product]) -> str:
    """Write products as a table: how often, shape, FLOPs, share, parameters.

    Args:
        listed: what [`products`][minillm.flops.products] returns.

    Returns:
        Lines of text, columns aligned, and a line of totals.

    Examples:
        The model that `make demo` trains, on one sequence. The last column counts the
        parameters that are factors of a product: all 950,912 but the 262,144 of the
        embedding, which is looked up, and the 640 of the norms.

        >>> print(products_table(products(preset("demo"), batch_size=1, seq_len=128)))
        product       times                     shape  FLOPs   share  params
        queries           2   (128, 128) x (128, 128)  8.39M    4.3%   32.8k
        keys, values      4   (128, 128) x (128, 128)  16.8M    8.7%   65.5k
        scores            8     (128, 32) x (32, 128)  8.39M    4.3%       0
        values mixed      8    (128, 128) x (128, 32)  8.39M    4.3%       0
        output            2   (128, 128) x (128, 128)  8.39M    4.3%   32.8k
        in, gate          4   (128, 128) x (128, 384)  50.3M   26.1%    197k
        out               2   (128, 384) x (384, 128)  25.2M   13.0%   98.3k
        logits            1  (128, 128) x (128, 2048)  67.1M   34.8%    262k
        total                                           193M  100.0%    688k
    """
    total = sum(product.flops for product in listed)
    rows = [["product", "times", "shape", "FLOPs", "share", "params"]]
    rows += [
        [
            row.name,
            str(row.times),
            f"({row.m}, {row.n}) x ({row.n}, {row.p})",
            short(row.flops),
            f"{row.flops / total:.1%}",
            short(row.params),
        ]
        for row in listed
    ]
    params = sum(product.params for product in listed)
    rows.append(["total", "", "", short(total), "100.0%", short(params)])
    return aligned(rows)


@dataclass(frozen=True)
class FlopCount:
    r"""What a forward pass costs, part by part.

    Attributes:
        projections: queries, keys, values and output of attention, over all layers.
        attention: scores and mixed values, over all layers.
        ffn: the feed-forward network, over all layers.
        head: the logits.
        embedding: 0, unless the look-up is counted as a product.
    """

    projections: int
    attention: int
    ffn: int
    head: int
    embedding: int = 0

    @property
    def layers(self) -> int:
        """All that happens inside the blocks."""
        return self.projections + self.attention + self.ffn

    @property
    def total(self) -> int:
        """The whole forward pass."""
        return self.layers + self.head + self.embedding

    def shares(self) -> dict[str, float]:
        """The parts as fractions of the total, which sum to one."""
        parts = asdict(self)
        if not self.embedding:
            del parts["embedding"]
        return {name: flops / self.total for name, flops in parts.items()}

    def as_dict(self) -> dict[str, int]:
        """The parts and the total, under their names."""
        return {**asdict(self), "total": self.total}


def forward_flops(
    config: ModelConfig | Architecture,
    batch_size: int,
    seq_len: int,
    *,
    past: int = 0,
    causal_half: bool = False,
    embedding_product: bool = False,
) -> FlopCount:
    r"""Count the FLOPs of a forward pass.

    The sum over the [table above][minillm.flops.products], which is

    $$L\,\bigl[2BT(2d \cdot Hd_h + 2d \cdot H_{kv}d_h) + 4BHT^2d_h + 6BTd\,d_{ff}\bigr]
    + 2BTdV$$

    for the model of this course. PyTorch's counter, run over that model, gives the same
    integer for any configuration; [`minillm.accounting.measure`][] lets it, and names
    the cases in which a counter is silently wrong.

    What a longer context changes: the scores grow with $T^2$, all else with $T$. GPT-2
    XL was trained with 1024 tokens, and the FFN has more than half of the work. At
    sixteen times that length the scores would have it:

    <div class="figure" markdown>

    --8<-- "images/flop-context.svg"

    </div>

    Args:
        config: the shape of the model.
        batch_size: $B$, how many sequences.
        seq_len: $T$, how many new tokens in each.
        past: how many tokens are in the KV cache already.
        causal_half: count only the pairs that the causal mask lets through.
        embedding_product: count the look-up as a product.

    Returns:
        The parts, with `.total` and `.shares()`.

    Examples:
        GPT-2 small, on the 1024 tokens of its context. Karpathy's sizing notebook for
        nanoGPT prints the same twelve digits:

        >>> forward_flops(preset("gpt2"), 1, 1024).total
        291648307200

        GPT-2 XL, with its two matrices, and with the three of SwiGLU at the same hidden
        width, as answers to the first assignment of Stanford's CS336 count it:

        >>> from dataclasses import replace
        >>> xl = preset("gpt2-xl")
        >>> forward_flops(xl, 1, 1024).total
        3506703564800
        >>> forward_flops(replace(xl, mlp_matrices=3), 1, 1024).total
        4513336524800

        The ends of the curves above, and their middle:

        >>> for length in (1024, 16384, 2**20):
        ...     shares = forward_flops(xl, 1, length).shares()
        ...     print(f"{length:7}", *(f"{k} {v:.1%}" for k, v in shares.items()))
           1024 projections 28.7% attention 9.2% ffn 57.4% head 4.7%
          16384 projections 12.1% attention 61.8% ffn 24.1% head 2.0%
        1048576 projections 0.3% attention 99.0% ffn 0.6% head 0.0%

        The switches change what they say and nothing else:

        >>> full, half = (
        ...     forward_flops(xl, 1, 1024, causal_half=half) for half in (False, True)
        ... )
        >>> half.attention / full.attention == 1025 / 2048, half.ffn == full.ffn
        (True, True)
        >>> forward_flops(xl, 1, 1024, embedding_product=True).embedding == full.head
        True
    """
    listed = products(
        config,
        batch_size,
        seq_len,
        past=past,
        causal_half=causal_half,
        embedding_product=embedding_product,
    )
    parts = dict.fromkeys(("projections", "attention", "ffn", "head", "embedding"), 0)
    for product in listed:
        parts[product.part] += product.flops
    return FlopCount(**parts)


def training_flops(
    config: ModelConfig | Architecture,
    batch_size: int,
    seq_len: int,
    recompute: Recompute = False,
    *,
    causal_half: bool = False,
) -> int:
    r"""Count the FLOPs of one step of training: three times the forward pass.

    Take one product $Y = XW$ of shape $(m, n) \times (n, p)$. The backward pass is
    given the gradient of the loss with respect to $Y$ and owes two more, each a
    product:

    $$\frac{\partial \ell}{\partial X} = \frac{\partial \ell}{\partial Y}\, W^\top
    \quad (m, p) \times (p, n), \qquad
    \frac{\partial \ell}{\partial W} = X^\top \frac{\partial \ell}{\partial Y}
    \quad (n, m) \times (m, p).$$

    The same three numbers in another order, so each costs $2mnp$ again:

    >>> m, n, p = 5, 7, 11
    >>> matmul_flops(m, p, n) + matmul_flops(n, m, p) == 2 * matmul_flops(m, n, p)
    True

    That holds for every product of the model, those of attention included. The loss,
    clipping and AdamW work number by number and add no product.

    **Recomputation.** The backward pass needs the activations of the forward pass, and
    keeping them takes memory. One can keep only the input of each block and compute the
    rest again when its turn comes: `"full"` adds the forward pass of all layers once
    more, though not the head's. (PyTorch's default `checkpoint` stops as soon as it has
    the last activation that it needs, so it never redoes the last product of a block,
    the one with $W_2$. That is `"early_stop"`.)

    Args:
        config: the shape of the model.
        batch_size: $B$, how many sequences.
        seq_len: $T$, how many tokens in each.
        recompute: `False`, `"full"` (or `True`) or `"early_stop"`.
        causal_half: count only the pairs that the causal mask lets through.

    Returns:
        The FLOPs of forward and backward pass together.

    Raises:
        ValueError: if `recompute` is none of these.

    Examples:
        >>> config = preset("opt-175b")
        >>> forward = forward_flops(config, 1, 2048)
        >>> training_flops(config, 1, 2048) == 3 * forward.total
        True
        >>> full = training_flops(config, 1, 2048, recompute="full")
        >>> full == 4 * forward.layers + 3 * forward.head
        True

        A third more FLOPs is what the saved memory costs:

        >>> print(f"{full / training_flops(config, 1, 2048):.3f}")
        1.332
    """
    if recompute not in (False, True, "full", "early_stop"):
        raise ValueError(
            f'recompute must be False, "full" or "early_stop"; got {recompute!r}'
        )
    forward = forward_flops(config, batch_size, seq_len, causal_half=causal_half)
    flops = 3 * forward.total
    if recompute:
        flops += forward.layers
    if recompute == "early_stop":
        c = as_architecture(config)
        met = c.n_active * batch_size * seq_len
        flops -= c.n_layers * matmul_flops(met, c.d_ff, c.d_model)
    return flops


def six_nd(n_params: float, tokens: float) -> float:
    r"""Estimate the FLOPs of a whole training run: $C \approx 6ND$.

    A parameter that enters a product is multiplied once and added once for each token:
    2 FLOPs forward, 4 backward. Kaplan et al. 2020 (arXiv:2001.08361, section 2.1) made
    the rule famous. It has two gaps, and both can be named: which parameters are $N$,
    and the scores of attention, which have no parameters.

    Args:
        n_params: $N$, the number of parameters.
        tokens: $D$, the number of tokens read during training.

    Returns:
        The estimate, in FLOPs.

    Examples:
        GPT-3's own report gives $3.14 \cdot 10^{23}$ for 174.6 billion parameters and
        300 billion tokens (Brown et al. 2020, table D.1):

        >>> print(f"{six_nd(174.6e9, 300e9):.2e}")
        3.14e+23

        With $N$ the parameters that enter products, head included and embedding not,
        only the scores are missing, and adding them gives the exact count:

        >>> config, tokens = preset("gpt2"), 1024
        >>> n, exact = param_count(config), training_flops(config, 1, tokens)
        >>> scores = 3 * forward_flops(config, 1, tokens).attention
        >>> six_nd(n.in_products, tokens) + scores == exact
        True

        Two other readings of $N$. The total adds positions, norms and biases, which
        cost nothing (and the embedding, where the head is another matrix). Kaplan's $N$
        leaves out the head too, which in a small model is a quarter of the work:

        >>> for reading in (n.in_products, n.total, n.non_embedding):
        ...     print(f"{six_nd(reading, tokens) / exact:.3f}")
        0.867
        0.874
        0.597

        The larger the model, the less it matters:

        >>> config, tokens = preset("gpt3"), 2048
        >>> n, exact = param_count(config), training_flops(config, 1, tokens)
        >>> for reading in (n.in_products, n.total, n.non_embedding):
        ...     print(f"{six_nd(reading, tokens) / exact:.3f}")
        0.973
        0.973
        0.970
    """
    check_positive(n_params=n_params, tokens=tokens)
    return 6 * n_params * tokens


def short(number: float) -> str:
    """Write a large number in three digits: k, M, G, T, P, E or Z, a thousand apart.

    Args:
        number: zero or more.

    Returns:
        The digits and the letter.

    Examples:
        >>> short(291648307200), short(3.14e23), short(12)
        ('292G', '314Z', '12')
    """
    letters = iter("kMGTPEZ")
    letter = ""
    while number >= 999.5 and (bigger := next(letters, "")):
        number, letter = number / 1000, bigger
    return f"{number:.3g}{letter}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Set cells in columns, the first to the left and the others to the right.

    Args:
        rows: all of the same length.

    Returns:
        A line for each row.

    Examples:
        >>> print(aligned([["head", "4.7%"], ["ffn", "57.4%"]]))
        head   4.7%
        ffn   57.4%
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([
            row[0].ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
        ])
        for row in rows
    )
