r"""Fewer bits: the same model from a quarter of the bytes, and less.

**The question.** A decoder spends its time waiting for weights
([`minillm.inference.decoder`][]): each new token takes all of them out of memory once.
A weight of half the bytes comes in half the time. A float32 has 24 binary digits of
precision. How many of them does a language model need?

**Levels and a scale.** *Absmax quantization* stores each weight $w$ as a small integer,
its *level* $q$, and one scale $s$ for many weights, chosen so that the largest of them
still fits:

$$s = \frac{\max |w|}{2^{b-1} - 1} \qquad q = \operatorname{round}\frac{w}{s} \qquad
\hat w = s\,q$$

With $b = 8$ bits the levels run from -127 to 127. No weight is off by more than half a
step, $s / 2$:

>>> weights = torch.tensor([[0.30, -0.10, 0.02, 0.07], [0.05, 0.01, -0.03, 0.02]])
>>> by_row = quantize(weights, bits=8, group="row")
>>> by_row.levels.tolist()
[[127, -42, 8, 30], [127, 25, -76, 51]]
>>> [round(s, 6) for s in by_row.scale.flatten().tolist()]
[0.002362, 0.000394]
>>> off = (by_row.restore() - weights).abs()
>>> bool((off <= by_row.scale / 2 * 1.0001).all())
True

**Which weights share a scale?** In four bits there are 15 levels, from -7 to 7. One
scale for the whole matrix is set by the largest weight of all, and the second row,
whose weights are small, is all but wiped out:

>>> quantize(weights, bits=4, group="tensor").levels.tolist()
[[7, -2, 0, 2], [1, 0, -1, 0]]
>>> quantize(weights, bits=4, group="row").levels.tolist()
[[7, -2, 0, 2], [7, 1, -4, 3]]

A scale for each *row* costs two bytes a row, which is next to nothing. And it can stay
outside the sum, because each output of $y = W x$ is one row times $x$:

$$y_i = \sum_j s_i\, q_{ij}\, x_j = s_i \sum_j q_{ij}\, x_j$$

With a scale for each *column* it could not.

**Outliers.** A row, too, can be spoiled, by a single weight. Here are a thousand
ordinary weights, and the same with one that is thirty times as large as they are. How
large is the error of the ordinary ones in four bits, in percent of their length?

>>> row = torch.randn(1, 1024, generator=torch.manual_seed(0))
>>> spoiled = row.clone()
>>> spoiled[0, 0] = 30.0
>>> def lost(weights, group):
...     error = quantize(weights, bits=4, group=group).restore() - weights
...     return round(100 * (error[:, 1:].norm() / weights[:, 1:].norm()).item())
>>> lost(row, "row"), lost(spoiled, "row"), lost(spoiled, 32)
(16, 92, 20)

With one scale for each *group* of 32 neighbours, the large weight spoils only its own
group. A scale in 16 bits for each 32 weights of four bits makes 4.5 bits a weight. The
files of llama.cpp are made of such groups ([`minillm.files.gguf_files`][]). LLM.int8()
(Dettmers et al. 2022, arXiv:2208.07339, section 3) gives each row of the activations
and each column of the weights a scale (its product is $XW$, so its columns are our
rows), and keeps outlier features in 16 bits.

# What it costs

The error of a weight says little; what counts is the loss on a text that the model has
not seen. [`stored`][minillm.inference.quantized.stored] sends all matrices of a model
through few bits and back. In bits per byte (`python -m benchmarks.bits`):

--8<-- "images/data/bits.md"

Eight bits by row cost SmolLM2 about a tenth of a percent. With four, it is useless by
tensor, and worse by a ninth with groups of 32. The model of the demo hardly notices
four bits, however the scale is shared: what a small model tolerates says nothing about
a large one.

**How many tokens does such a figure take?** Rounding the weights moves the loss of one
token by about a tenth of a nat, up or down. On the first 256 tokens of that text, two
digits in eight bits seemed to cost 0.021 ± 0.006 nats; on 8,192 they cost a tenth of
that. The number after ± is the standard error of the mean, $\sigma / \sqrt n$ for $n$
tokens whose changes have the standard deviation $\sigma$: how far chance typically
moves the mean if the tokens are independent. Those of one page are not, so take more
text than the formula asks for.

# What we leave out

Rounding each weight for itself is the simplest method. Better ones look at the
activations and let the weights that are rounded later make up for earlier ones (GPTQ,
Frantar et al. 2022, arXiv:2210.17323). They need a text to calibrate on.

**Before this:** [`minillm.inference.decoder`][]. Fewer bytes become fewer milliseconds
in [`minillm.inference.eight_bits`][].
"""

import copy
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from minillm.attention import Linear
from minillm.model import Embedding, TransformerLM

__all__ = ["Quantized", "bits_per_weight", "quantize", "stored"]

Group = Literal["tensor", "row"] | int


class Quantized(NamedTuple):
    r"""A matrix as levels and scales.

    Attributes:
        levels: $q$, one small integer for each weight.
        scale: $s$, one for each group: (rows, groups of a row), or (1, 1) for one scale
            in all.
    """

    levels: Int8[Tensor, "d_out d_in"]
    scale: Float[Tensor, "#d_out groups"]

    def restore(self) -> Float[Tensor, "d_out d_in"]:
        """The weights that the levels stand for, $s q$."""
        per_group = self.levels.unflatten(1, (self.scale.shape[1], -1))
        return (per_group * self.scale.unsqueeze(-1)).flatten(1)


def quantize(
    weights: Float[Tensor, "d_out d_in"], bits: int = 8, group: Group = "row"
) -> Quantized:
    r"""Round weights to a few levels, by absmax.

    Args:
        weights: the matrix.
        bits: $b$, for each level, from 2 to 8.
        group: which weights share a scale: all of the `"tensor"`, those of a `"row"`,
            or, if an integer, that many neighbours in a row.

    Returns:
        Levels between $-(2^{b-1} - 1)$ and $2^{b-1} - 1$, and the scales, in float32 at
        least. Where all weights of a group are zero, or so small that the scale would
        not be a normal number, the scale is 1 and all levels are 0.

    Raises:
        ValueError: if there are no such bits, the group does not divide the row, or a
            weight is not finite.

    Examples:
        Two levels beside zero are what two bits give:

        >>> quantize(torch.tensor([[0.9, -0.2, -1.0, 0.6]]), bits=2).levels.tolist()
        [[1, 0, -1, 1]]

        A scale in the 16 bits of the weights would be rounded, and 127 of its steps
        would end somewhere else than at the largest weight:

        >>> quantize(torch.tensor([[0.3, 0.1]]).bfloat16()).scale.dtype
        torch.float32
        >>> quantize(torch.ones(2, 48), bits=4, group=32)
        Traceback (most recent call last):
        ValueError: a row of 48 weights cannot be cut into groups of 32: take a divisor
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"a level has 2 to 8 bits; got {bits}: 8 and 4 are usual")
    n_rows, width = weights.shape
    size = group if isinstance(group, int) else width
    if size < 1 or width % size:
        raise ValueError(
            f"a row of {width} weights cannot be cut into groups of {size}: "
            "take a divisor"
        )
    if not weights.isfinite().all():
        raise ValueError(
            "a weight is not finite, so no scale fits: the model is damaged, or its "
            "training diverged"
        )
    top = 2 ** (bits - 1) - 1
    groups = weights.unflatten(1, (-1, size))  # (d_out, groups, size)
    largest = groups.abs().amax(dim=-1)
    if group == "tensor":
        largest = largest.amax().view(1, 1)
    # A group of zeros has no largest weight to divide by; any scale gives zeros back.
    # So do the smallest numbers, which have too few digits to be cut into steps.
    wide = torch.promote_types(weights.dtype, torch.float32)
    scale = largest.to(wide) / top
    scale = torch.where(scale >= torch.finfo(wide).tiny, scale, 1.0)
    levels = (groups / scale.unsqueeze(-1)).round_()
    return Quantized(levels.to(torch.int8).view(n_rows, width), scale)


def bits_per_weight(
    bits: int, group: Group, shape: tuple[int, int], scale_bits: int = 16
) -> float:
    r"""Count what a weight takes, its share of the scales included.

    Args:
        bits: for each level.
        group: which weights share a scale, as for
            [`quantize`][minillm.inference.quantized.quantize].
        shape: rows and columns of the matrix.
        scale_bits: for each scale.

    Returns:
        Bits.

    Examples:
        >>> bits_per_weight(4, 32, (576, 576))
        4.5
        >>> round(bits_per_weight(8, "row", (576, 576)), 3)
        8.028
    """
    rows, width = shape
    if isinstance(group, int):
        return bits + scale_bits / group
    return bits + scale_bits / (width if group == "row" else rows * width)


@torch.no_grad()
def stored(model: TransformerLM, bits: int, group: Group) -> TransformerLM:
    """Copy a model whose matrices have gone through few bits and come back.

    It is as large and as slow as before, and shows what the bits cost. The gains of the
    norms, a vector each, stay as they are.

    Args:
        model: the model, which is not changed.
        bits: for each level.
        group: which weights share a scale.

    Returns:
        The copy.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(50, 8, d_model=32, n_layers=1, n_heads=2))
        >>> ids = torch.arange(8).unsqueeze(0)
        >>> exact = model(ids)
        >>> for bits in (8, 4, 2):
        ...     off = (stored(model, bits, "row")(ids) - exact).norm() / exact.norm()
        ...     print(bits, bool(off < 0.02), bool(off < 0.5))
        8 True True
        4 False True
        2 False False
    """
    model = copy.deepcopy(model)
    done = set()
    for part in model.modules():
        # A tied head is the embedding, and must not be rounded twice.
        if isinstance(part, Linear | Embedding) and id(part.weight) not in done:
            part.weight.copy_(quantize(part.weight, bits, group).restore())
            done.add(id(part.weight))
    return model
