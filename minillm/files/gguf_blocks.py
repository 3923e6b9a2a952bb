r"""Blocks of a GGUF file, unpacked by hand.

**The question.** A file says that a matrix is of the kind Q4_K, and has 144 bytes for
each 256 weights. Which weights are these?

Every kind cuts a row into blocks. A block begins or ends with its scales, as float16,
and the levels of all its weights follow, packed into bytes. Here is one of the kind
Q4_0, for 32 weights: a scale of 0.5, and bytes of two levels each, of which the lower
four bits are the first half of the block and the upper four the second. A level of 8
stands for zero:

>>> scale = np.array([0.5], np.float16).view(np.uint8)
>>> block = np.concatenate([scale, np.full(16, 0x9A, np.uint8)])
>>> w = unpack(block[None], "Q4_0")
>>> w.shape, w[0, 0].item(), w[0, 16].item()  # 0xA is 10, and 0x9 is 9
((1, 32), 1.0, 0.5)

The others are variations. What a weight takes, all scales included, in bits:

>>> for kind, (weights, n_bytes) in BLOCKS.items():
...     print(kind, 8 * n_bytes / weights)
Q8_0 8.5
Q4_0 4.5
Q4_1 5.0
Q4_K 4.5
Q6_K 6.5625

- *Q8_0*: 32 levels of eight bits, $w = s q$.
- *Q4_0*: 32 levels of four bits, $w = s (q - 8)$.
- *Q4_1*: the same with a smallest weight, $w = s q + m$.
- *Q4_K*: eight groups of 32, each $w = s q - m$. The eight $s$ and $m$ are themselves
  quantized: integers of six bits, times one float16 for all eight.
- *Q6_K*: sixteen groups of 16 levels of six bits, four of them in one array and two in
  another; $w = s (q - 32)$, with the sixteen scales in eight bits.

The formats are those of llama.cpp, `ggml-quants.c`; a test compares each bit with the
package `gguf`.

**Used by** [`minillm.files.gguf_files`][].
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCKS", "unpack"]

# Of each kind: how many weights a block has, and how many bytes.
BLOCKS = {
    "Q8_0": (32, 34),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q4_K": (256, 144),
    "Q6_K": (256, 210),
}
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def unpack(data: Bytes, kind: str) -> Floats:
    r"""Turn the bytes of a matrix into its weights.

    Args:
        data: the bytes of the matrix, one row for each of its rows.
        kind: one of `BLOCKS`.

    Returns:
        The weights, (rows, weights of a row), in float32.

    Raises:
        ValueError: if the kind is not known here, or the rows are no whole blocks.

    Examples:
        >>> unpack(np.zeros((2, 68), np.uint8), "Q8_0").shape
        (2, 64)
        >>> unpack(np.zeros((1, 30), np.uint8), "Q8_0")
        Traceback (most recent call last):
        ValueError: a row of 30 bytes has no whole blocks of 34: the file is damaged
    """
    if kind not in BLOCKS:
        raise ValueError(
            f"blocks of the kind {kind!r} are not known here: take one of "
            f"{', '.join(BLOCKS)}"
        )
    _, n_bytes = BLOCKS[kind]
    n_rows, width = data.shape
    if width % n_bytes:
        raise ValueError(
            f"a row of {width} bytes has no whole blocks of {n_bytes}: the file is "
            "damaged"
        )
    blocks = np.ascontiguousarray(data).reshape(-1, n_bytes)
    return _UNPACK[kind](blocks).reshape(n_rows, -1)


def _floats(data: Bytes) -> Floats:
    """Bytes that are float16: one number for two."""
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def _nibbles(data: Bytes) -> Bytes:
    """The lower four bits of all bytes, then the upper four: twice as many numbers."""
    return np.concatenate([data & 0x0F, data >> 4], axis=-1)


def _q8_0(blocks: Bytes) -> Floats:
    return _floats(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _q4_0(blocks: Bytes) -> Floats:
    levels = _nibbles(blocks[:, 2:]).astype(np.float32) - 8
    return _floats(blocks[:, :2]) * levels


def _q4_1(blocks: Bytes) -> Floats:
    levels = _nibbles(blocks[:, 4:]).astype(np.float32)
    return _floats(blocks[:, :2]) * levels + _floats(blocks[:, 2:4])


def _q4_k(blocks: Bytes) -> Floats:
    d, d_min, packed = blocks[:, :2], blocks[:, 2:4], blocks[:, 4:16]
    # Eight scales and eight minima of six bits in twelve bytes: the first four of each
    # are the lower six bits of a byte; of the others, four bits lie in the last four
    # bytes, and the upper two on top of the first.
    a, b, c = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([a & 0x3F, (c & 0x0F) | ((a >> 2) & 0x30)], axis=-1)
    minima = np.concatenate([b & 0x3F, (c >> 4) | ((b >> 2) & 0x30)], axis=-1)
    s, m = _floats(d) * scales, _floats(d_min) * minima  # (blocks, 8) each
    # Each 32 bytes hold two groups: one in their lower bits, one in their upper.
    levels = _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return s[..., None] * levels.astype(np.float32) - m[..., None]


def _q6_k(blocks: Bytes) -> Floats:
    low, high = blocks[:, :128], blocks[:, 128:192]
    scales, d = blocks[:, 192:208].view(np.int8), blocks[:, 208:]
    # In each half of the block, 64 bytes hold four bits of 128 levels, and 32 bytes
    # two bits of each.
    low = _nibbles(low.reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    upper = (high.reshape(-1, 2, 1, 32) >> shifts) & 0x03
    levels = (low | (upper << 4)).astype(np.float32) - 32
    s = _floats(d) * scales.astype(np.float32)  # (blocks, 16)
    return s[..., None] * levels.reshape(-1, 16, 16)


_UNPACK = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q4_K": _q4_k,
    "Q6_K": _q6_k,
}
