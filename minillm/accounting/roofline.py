r"""The roofline: which of its two limits a chip meets first.

**The question.** A chip has two speeds: FLOPs it can do in a second, and bytes it can
fetch in a second. Its data sheet leads with the first. Which of the two does your
program meet?

Working on both at once, a chip needs for a computation at least

$$\max\left(\frac{\text{FLOPs}}{\text{peak}},
\frac{\text{bytes}}{\text{bandwidth}}\right).$$

Which of the two is larger depends on the *arithmetic intensity*, FLOPs for each byte.
Drawn against it, the best possible speed rises in a line and then stays flat, like a
roof, with the ridge at peak / bandwidth (Williams et al. 2009).

A model answers in two phases. *Prefill* reads the prompt, all tokens at once. *Decode*
writes the answer, one token at a time, since each depends on the last. They stand on
two sides of the ridge (both scales are logarithmic):

<div class="figure" markdown>

--8<-- "images/roofline.svg"

</div>

These are its points:

>>> from minillm.accounting.cost import CHIPS
>>> from minillm.accounting.memory import bytes_moved
>>> from minillm.accounting.shapes import preset
>>> from minillm.flops import forward_flops
>>> chip = CHIPS["h100"]
>>> def step(name, batch_size, seq_len, past):
...     work = preset(name), batch_size, seq_len
...     flops = forward_flops(*work, past=past).total
...     n_bytes = bytes_moved(*work, past=past)
...     return roofline(flops, n_bytes, chip.peak_flops, chip.bandwidth)
>>> prefill = step("llama2-7b", 1, 2048, past=0)
>>> decode = step("llama2-7b", 1, 1, past=2048)
>>> prefill.bound, round(prefill.intensity)
('compute', 2048)
>>> decode.bound, round(decode.intensity)
('memory', 1)

That the intensities are the numbers of new tokens has a reason: each number that is
fetched, a weight or a cached key, is used for one multiplication and one addition by
each new token, two FLOPs for its two bytes. The chip could do 295 FLOPs in the time of
one byte; decoding gives it one, and the arithmetic waits.

>>> round(decode.ridge), f"{1 / decode.seconds:.0f} tokens/s at best"
(295, '234 tokens/s at best')

Sequences that are decoded side by side share the fetched weights, but each has a cache
of its own to fetch, so the gain has an end. Sharing keys and values among query heads
(the second model) moves that end:

>>> for name in ("llama2-7b", "llama3-8b"):
...     batches = [step(name, b, 1, past=2048) for b in (1, 8, 64, 512)]
...     print([round(batch.intensity) for batch in batches])
[1, 5, 11, 13]
[1, 7, 32, 54]

**Before this:** [`minillm.accounting.cost`][]. **Next:**
[`minillm.accounting.industrialization`][].
"""

from typing import NamedTuple

from minillm.accounting.shapes import check_positive

__all__ = ["Roofline", "roofline"]


class Roofline(NamedTuple):
    """How long a computation must take on a chip, and which of its two limits says so.

    Attributes:
        intensity: FLOPs for each byte moved.
        ridge: the intensity at which the chip's two limits are equal.
        seconds: the least time: the slower of computing and moving.
        bound: `"compute"` or `"memory"`.
    """

    intensity: float
    ridge: float
    seconds: float
    bound: str


def roofline(
    flops: float, n_bytes: float, peak_flops: float, bandwidth: float
) -> Roofline:
    """Ask which limit of a chip a computation meets first.

    Args:
        flops: what is computed.
        n_bytes: what is moved.
        peak_flops: FLOP/s of the chip, for dense products in the format used.
        bandwidth: bytes/s of its memory.

    Returns:
        Intensity, ridge, least time, and the limit that decides.

    Raises:
        ValueError: if a figure is not positive.

    Examples:
        A chip with the ridge at 50 FLOPs a byte:

        >>> for flops in (1e9, 1e11):
        ...     roof = roofline(flops, n_bytes=1e9, peak_flops=1e11, bandwidth=2e9)
        ...     print(roof.ridge, roof.intensity, roof.seconds, roof.bound)
        50.0 1.0 0.5 memory
        50.0 100.0 1.0 compute
    """
    check_positive(
        flops=flops, n_bytes=n_bytes, peak_flops=peak_flops, bandwidth=bandwidth
    )
    compute, memory = flops / peak_flops, n_bytes / bandwidth
    return Roofline(
        intensity=flops / n_bytes,
        ridge=peak_flops / bandwidth,
        seconds=max(compute, memory),
        bound="compute" if compute >= memory else "memory",
    )
