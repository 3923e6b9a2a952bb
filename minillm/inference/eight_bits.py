r"""Eight bits, fast: a product of a row and a matrix of small integers.

**The question.** In eight bits a weight takes one byte instead of four, and is off by
at most half a step, a step being 1/127 of the largest weight
([`minillm.inference.quantized`][]). So a decoder that waits for memory should be four
times as fast. But PyTorch's public matrix products want
the same data type on both sides. To turn the levels back into float32 first would read
one byte and write four for each weight, every time:

>>> torch.ones(1, 4) @ torch.ones(4, 2, dtype=torch.int8)  # doctest: +ELLIPSIS
Traceback (most recent call last):
RuntimeError: ...

**Three ways** under one contract. Each keeps one byte a weight, and each computes
$y_i = s_i \sum_j q_{ij} x_j$:

- `Plain` turns the levels back, and multiplies. It is obviously right, and slow.
- `Mixed` calls a kernel that PyTorch keeps for its own compiler: levels in eight bits
  times bfloat16. The activations lose 16 of their 24 digits.
- `TwoDigits` calls the integer product that PyTorch has for quantized networks, int8
  times uint8.

The last needs whole numbers on *both* sides. Rounding the activations to eight bits is
not good enough, since they have outliers, and a row has one scale. But a number can be
written with two digits. With $z = 63\,x / \max|x|$, the first digit is $z$ rounded, and
the second is what that leaves, 126 times enlarged:

>>> x = torch.tensor([[0.02, -0.5, 40.0, 0.3]])
>>> z = 63 * x / x.abs().max()
>>> first = z.round()
>>> second = ((z - first) * 126).round()
>>> first.int().tolist(), second.int().tolist()
([[0, -1, 63, 0]], [[4, 27, 0, 60]])
>>> one, two = first * 40 / 63, (first + second / 126) * 40 / 63
>>> [round(y, 3) for y in one.flatten().tolist()]
[0.0, -0.635, 40.0, 0.0]
>>> [round(y, 3) for y in two.flatten().tolist()]
[0.02, -0.499, 40.0, 0.302]

Both digits are rows of the same product, so the weights still come out of memory once.
An entry is off by at most $\max|x| / (63 \cdot 252)$: a finer step than bfloat16 has
for the largest entries.

**Which one?** That depends on the processor and on the version of PyTorch. So it is not
looked up in a table but measured, once in a process, on the first
product ([`fastest`][minillm.inference.eight_bits.fastest]). A way that fails, or that
computes something else than `Plain`, is out of the race.

**Before this:** [`minillm.inference.quantized`][]. **Next:**
[`minillm.inference.eight_bit_layers`][], a model of such matrices.
"""

import functools
import time
import warnings
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor

from minillm.inference.quantized import Quantized, quantize

__all__ = [
    "Mixed",
    "Plain",
    "TwoDigits",
    "Way",
    "fastest",
]

Levels = Int8[Tensor, "d_out d_in"]
Scale = Float[Tensor, " d_out"]
Rows = Float[Tensor, "rows d_in"]


@runtime_checkable
class Way(Protocol):
    """How levels are kept, and how rows are multiplied by them.

    Examples:
        >>> isinstance(Plain(), Way), isinstance(fastest(), Way)
        (True, True)
    """

    def pack(self, levels: Levels, scale: Scale) -> Any:
        """Lay a matrix out as `multiply` wants it."""

    def prepare(self, x: Rows) -> Any:
        """Do what depends on the rows alone, once for all matrices that read them."""

    def multiply(self, prepared: Any, packed: Any) -> Float[Tensor, "rows d_out"]:
        """The product of rows and matrix, in the type of the rows."""


class Plain:
    r"""Turn the levels back into ordinary numbers, and multiply: the naive way.

    Examples:
        >>> levels = torch.tensor([[1, -2], [3, 0]], dtype=torch.int8)
        >>> packed = Plain().pack(levels, torch.tensor([0.5, 2.0]))
        >>> Plain().multiply(torch.tensor([[10.0, 1.0]]), packed).tolist()
        [[4.0, 60.0]]
    """

    def pack(self, levels: Levels, scale: Scale) -> tuple[Levels, Scale]:
        """Keep both as they are."""
        return levels, scale

    def prepare(self, x: Rows) -> Rows:
        """Nothing to do."""
        return x

    def multiply(
        self, prepared: Rows, packed: tuple[Levels, Scale]
    ) -> Float[Tensor, "rows d_out"]:
        """Convert, multiply, scale."""
        levels, scale = packed
        return F.linear(prepared, levels.to(prepared.dtype)) * scale.to(prepared.dtype)


class Mixed:
    """Levels times bfloat16, by a kernel that PyTorch's compiler uses.

    Same result as `Plain` on rows that were rounded to bfloat16. Unlike it: nothing is
    converted beforehand, for a few rows.

    Examples:
        What 1/3 becomes:

        >>> rounded, _ = Mixed().prepare(torch.tensor([[1 / 3]]))
        >>> round(rounded.item(), 6)
        0.333984
    """

    # With many rows, converting the matrix once costs less than the slower kernel.
    FEW = 16
    # The kernel reads so many levels of a row at a time. If the width is no multiple,
    # it reads past the end, unchecked: wrong numbers, or a process that is killed.
    AT_A_TIME = 16

    def pack(self, levels: Levels, scale: Scale) -> tuple[Levels, Scale]:
        """Keep the levels, and the scales in 16 bits."""
        return levels, scale.bfloat16()

    def prepare(self, x: Rows) -> tuple[Rows, torch.dtype]:
        """Round the rows. With float32 ones the kernel is a plain loop."""
        return x.bfloat16(), x.dtype

    def multiply(
        self, prepared: tuple[Rows, torch.dtype], packed: tuple[Levels, Scale]
    ) -> Float[Tensor, "rows d_out"]:
        """Call the kernel, or the product of bfloat16 numbers."""
        (x, dtype), (levels, scale) = prepared, packed
        if len(x) <= self.FEW and x.shape[1] % self.AT_A_TIME == 0:
            return torch._weight_int8pack_mm(x, levels, scale).to(dtype)
        return (F.linear(x, levels.bfloat16()) * scale).to(dtype)


class TwoDigits:
    r"""Whole numbers on both sides: activations with two digits of seven bits.

    Same result as `Plain`, but for what the second digit leaves out. Unlike it: integer
    products, in the layout of PyTorch's quantized networks.

    Examples:
        >>> rows, step, _ = TwoDigits().prepare(torch.tensor([[0.02, -0.5, 40.0, 0.3]]))
        >>> (rows / step).round().int().tolist()
        [[0, -1, 63, 0], [4, 27, 0, 60]]
    """

    # The largest digit. With a larger one, a processor that adds two products in 16
    # bits (2 · 127 · 127 just fits) would silently cut the sum off.
    TOP = 63

    def pack(self, levels: Levels, scale: Scale) -> Any:
        """Lay the levels out for the processor; they cannot be read from there."""
        zeros = torch.zeros(len(levels), dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are called prototypes
            weights = torch._make_per_channel_quantized_tensor(
                levels.contiguous(), scale.double(), zeros, 0
            )
            return torch.ops.quantized.linear_prepack(weights, None)

    # Both digits of one row, put together; in the order of `prepare`.
    TOGETHER = torch.tensor([[1.0, 0.5 / TOP]])

    def prepare(self, x: Rows) -> tuple[Tensor, float, Tensor | None]:
        """Write each row as two rows of whole steps."""
        unit = None
        if len(x) == 1:
            # A number costs fewer calls than a tensor. For a row of zeros any step will
            # do; a NaN makes every result NaN.
            largest = float(torch.linalg.vector_norm(x, torch.inf)) or 1.0
        else:
            # Each row by its own largest entry: one token may have outliers that the
            # others lack.
            unit = torch.linalg.vector_norm(x, torch.inf, 1, True).clamp_min(1e-30)
            x, largest = x / unit, 1.0
        step = largest / self.TOP
        # Rounded to steps: the formula above, in one call.
        first = torch.fake_quantize_per_tensor_affine(x, step, 0, -self.TOP, self.TOP)
        return torch.cat([first, (x - first) * (2 * self.TOP)]), step, unit

    def multiply(
        self, prepared: tuple[Tensor, float, Tensor | None], packed: Any
    ) -> Float[Tensor, "rows d_out"]:
        """Multiply both digits at once, and put them together again."""
        rows, step, unit = prepared
        # A zero at 64: the digits -63 … 63 become 1 … 127.
        y: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows, step, 64, packed
        )
        if unit is None:
            return self.TOGETHER @ y
        n = len(unit)
        return torch.add(y[:n], y[n:], alpha=0.5 / self.TOP) * unit


WAYS: tuple[Way, ...] = (Plain(), Mixed(), TwoDigits())
# How far a way may be from the plain product, in parts of the result: bfloat16 has
# eight digits, so an entry is off by 1/256 at most.
NEAR = 1 / 128


@functools.cache
def fastest() -> Way:
    """Measure, once in a process, which way is the fastest here.

    Returns:
        The one that multiplies a single row by some matrices in the least time, among
        those that run on this machine and compute what `Plain` does.

    Examples:
        >>> fastest() is fastest()
        True
    """
    random = torch.Generator().manual_seed(0)
    # Together larger than most caches of one core, as the weights of a model are.
    matrices = [quantize(torch.randn(1536, 576, generator=random)) for _ in range(8)]
    x = torch.randn(1, 576, generator=random)
    expected = Plain().multiply(x, Plain().pack(*_parts(matrices[0])))
    ready = []
    for way in WAYS:
        try:
            packed = [way.pack(*_parts(matrix)) for matrix in matrices]
            found = way.multiply(way.prepare(x), packed[0])
        except (RuntimeError, NotImplementedError, AttributeError):
            continue  # not in this build of PyTorch
        if (found - expected).norm() < NEAR * expected.norm():
            ready.append((way, packed))
    # They take turns, so that what else the machine does meets them alike.
    turns = [[_seconds(way, x, packed) for way, packed in ready] for _ in range(25)]
    times = [min(of_one) for of_one in zip(*turns, strict=True)]
    return ready[times.index(min(times))][0]


def _parts(matrix: Quantized) -> tuple[Levels, Scale]:
    return matrix.levels, matrix.scale[:, 0].float()


@torch.inference_mode()
def _seconds(way: Way, x: Rows, packed: list[Any]) -> float:
    start = time.perf_counter()
    for matrix in packed:
        way.multiply(way.prepare(x), matrix)
    return time.perf_counter() - start
