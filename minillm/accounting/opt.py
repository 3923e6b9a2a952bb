r"""The famous table, rebuilt: where the FLOPs of eight models went, and did not.

**The question.** The table that Roller posted says where the computation goes in models
from 760 million to 175 billion parameters. Its shares of attention and feed-forward
network (FFN) are not those that [`minillm.flops`][] counts. Dashed, as it was
published; solid, as counted:

<div class="figure" markdown>

--8<-- "images/flop-shares.svg"

</div>

A table of percentages does not say how it was made. Can one find out?

# What is known

Eight models, their layers $L$ and widths $d$ those of the OPT team's own list of jobs
(metaseq, `opt_job_constants.py`; 760M is the shape that the GPT-3 report calls
"Large", and was not released as an OPT), sequences of 2048 tokens, five figures each.
One simple formula gives all forty figures, to the last printed digit. For each token it
adds

| column | published | counted | what it stands for |
|---|---|---|---|
| MHA, each layer | $2d^2 + 8Td$ | $8d^2$ | the four projections |
| FFN, each layer | $16d^2$ | $16d^2$ | two products with $4d$ |
| attn, each layer | $4Td$ | $4Td$ | scores, values mixed |
| logit | $2dV$ | $2dV$ | the head |

then makes the first three a third larger, as recomputing the forward pass would, and
takes three times all of it, for forward and backward.

>>> rows = [row.cells() for row in opt_table("published")]
>>> printed = [line.split() for line in PRINTED_OPT_TABLE.splitlines()]
>>> pairs = [pair for row in zip(rows, printed) for pair in zip(*row)]
>>> sum(a == b for a, b in pairs) - len(rows)  # the eight names are not figures
40

What differs from a count is one entry of four, the first.

# What is wrong

The projections of attention are four products of $(T, d) \times (d, d)$, hence $8d^2$ a
token; no $T$ can be in it. Narayanan et al. 2021 (arXiv:2104.04473, appendix) count the
same, $6Bsh^2$ and $2Bsh^2$ in their letters. And so does the counter, watching a layer
of attention as wide as that of OPT-175B:

>>> import torch
>>> from minillm.attention import MultiHeadAttention
>>> from minillm.accounting.measure import watched
>>> d, T = 12288, 2048
>>> with torch.device("meta"):  # tensors with a shape and no numbers
...     layer, x = MultiHeadAttention(d, n_heads=96), torch.zeros(1, T, d)
>>> with watched() as counter:
...     _ = layer(x)
>>> projections = counter.get_total_flops() // T - 4 * T * d
>>> projections == 8 * d**2, projections == 2 * d**2 + 8 * T * d
(True, False)

In a terminal, `minillm flops opt-175b --measure` lets it watch the whole model. How
$2d^2 + 8Td$ came into the table, we do not know. What else can be said of it stands at
[`opt_table`][minillm.accounting.opt.opt_table].

**Before this:** [`minillm.accounting.measure`][], the judge. **Next:**
[`minillm.accounting.memory`][].
"""

from typing import Literal, NamedTuple

__all__ = ["PRINTED_OPT_TABLE", "OptRow", "opt_table"]


class OptRow(NamedTuple):
    """One model of the famous table.

    Attributes:
        name: the size by which the model goes.
        flops_per_update: FLOPs of one step of training, over the whole batch.
        mha: the share of the projections of attention, in [0, 1].
        ffn: the share of the feed-forward network.
        attn: the share of the scores and the mixing of values.
        logit: the share of the head.
    """

    name: str
    flops_per_update: float
    mha: float
    ffn: float
    attn: float
    logit: float

    def cells(self) -> list[str]:
        """The row in the digits that the table printed."""
        return [
            self.name,
            f"{self.flops_per_update:.1E}",
            f"{self.mha:.0%}",
            f"{self.ffn:.0%}",
            f"{self.attn:.1%}",
            f"{self.logit:.1%}",
        ]


PRINTED_OPT_TABLE = """\
760M  4.3E+15  35%  44%  14.8%  5.8%
1.3B  1.3E+16  32%  51%  12.7%  5.0%
2.7B  2.5E+16  29%  56%  11.2%  3.3%
6.7B  1.1E+17  24%  65%   8.1%  2.4%
13B   4.1E+17  22%  69%   6.9%  1.6%
30B   9.0E+17  20%  74%   5.3%  1.0%
66B   9.5E+17  18%  77%   4.3%  0.6%
175B  2.4E+18  17%  80%   3.3%  0.3%"""
"""The table as it was posted: name, FLOPs per update, MHA, FFN, attn, logit."""

# Name, layers, width, and tokens in a batch in units of $2^{20}$. The number of heads
# changes no count.
_OPT_RUNS = (
    ("760M", 24, 1536, 0.5),
    ("1.3B", 24, 2048, 1),
    ("2.7B", 32, 2560, 1),
    ("6.7B", 32, 4096, 2),
    ("13B", 40, 5120, 4),
    ("30B", 48, 7168, 4),
    ("66B", 64, 9216, 2),
    ("175B", 96, 12288, 2),
)


def opt_table(
    accounting: Literal["published", "counted"] = "published",
) -> list[OptRow]:
    r"""Rebuild the famous table, as it was published or as the products count.

    **The team had it right.** Its report of January 2022, with Roller among the
    authors, puts the training of OPT-175B on 300 billion tokens at about
    $4.30 \cdot 10^{23}$ FLOPs (metaseq, *175B Training Run Completed*). That is the
    count with $8d^2$ and recomputation, and not the total that the table implies:

    >>> from minillm.flops import preset, training_flops
    >>> sequence = training_flops(preset("opt-175b"), 1, 2048, recompute="full")
    >>> print(f"{sequence / 2048 * 300e9:.3e}")
    4.302e+23
    >>> update = opt_table("published")[-1].flops_per_update  # of 2 * 2**20 tokens
    >>> print(f"{update / (2 * 2**20) * 300e9:.2e}")
    3.49e+23

    It fits the clock, too. The same report says about 33 days on 1024 A100s, and the
    paper that followed says 147 TFLOP/s on each (Zhang et al. 2022,
    arXiv:2205.01068, section 1):

    >>> print(f"{4.30e23 / (33 * 86400 * 1024) / 1e12:.0f} TFLOP/s")
    147 TFLOP/s

    **What is inferred.** The vocabulary is taken as 51,200, the size that Megatron used
    for GPT models; OPT's own 50,272 gives 36 of the 40 figures and makes the logits of
    the four smallest models one digit too small. That the factor 4/3 stands for
    recomputation, we take from its size. That the formula is the one behind the sheet
    is nearly certain: among all of this form with small whole coefficients, the next
    best gives 25 figures.

    **What remains.** As counted, projections and FFN stay at one to two for every size,
    so that at this length the FFN tends to two thirds and never to four fifths. What
    fades as models grow is the scores and the logits, because $T$ and $V$ stayed while
    $d$ grew.

    >>> for row in opt_table("counted"):
    ...     print("".join(cell.rjust(8) for cell in row.cells()))
        760M 2.9E+15     25%     50%   16.6%    8.7%
        1.3B 9.5E+15     27%     53%   13.3%    6.9%
        2.7B 1.9E+16     28%     56%   11.2%    4.4%
        6.7B 9.0E+16     30%     60%    7.5%    2.9%
         13B 3.4E+17     31%     61%    6.1%    1.9%
         30B 7.9E+17     31%     63%    4.5%    1.2%
         66B 8.6E+17     32%     64%    3.5%    0.7%
        175B 2.3E+18     32%     65%    2.7%    0.4%
    >>> all(row.ffn == 2 * row.mha for row in opt_table("counted"))
    True

    The count of the chapter, product by product, gives the same shares:

    >>> from minillm.flops import Architecture, forward_flops
    >>> shape = Architecture(51200, 2048, 12288, 96, 96, mlp_matrices=2)
    >>> shares = forward_flops(shape, 1, 2048).shares()
    >>> shares["ffn"] == opt_table("counted")[-1].ffn
    True

    The trend holds; its size was a choice of accounting, and from a picture nobody can
    tell. To understand it, you have to build it.

    Args:
        accounting: `"published"` for the formula behind the posted table, `"counted"`
            for the products of the same shapes, times three, without recomputation.

    Returns:
        Eight rows, from the smallest model to the largest.

    Raises:
        ValueError: if `accounting` is neither.
    """
    if accounting not in {"published", "counted"}:
        raise ValueError(
            f'accounting must be "published" or "counted"; got {accounting!r}'
        )
    T, V = 2048, 51200
    rows = []
    for name, n_layers, d, batch in _OPT_RUNS:
        # FLOPs of a layer for each token, in the order of the columns.
        if accounting == "counted":
            mha, recomputed = 8 * d**2, 1.0
        else:
            mha, recomputed = 2 * d**2 + 8 * T * d, 4 / 3
        per_layer = [mha, 16 * d**2, 4 * T * d]
        parts = [recomputed * n_layers * flops for flops in per_layer] + [2 * d * V]
        forward = sum(parts)
        update = 3 * forward * batch * 2**20
        rows.append(OptRow(name, update, *(part / forward for part in parts)))
    return rows
