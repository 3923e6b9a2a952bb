"""How fast is the model on a GPU, beside a plain GPT and beside transformers?

    python -m benchmarks.gpu [PART ...] [--turns N] [--quick]

It needs a GPU that PyTorch calls `cuda`; in a hurry it does with a processor. What it
measures is printed, and kept only where `--out` says.
"""

import statistics
import sys

import torch

from benchmarks import shapes
from benchmarks.command import main
from benchmarks.measure import Part, Record
from benchmarks.model import PEER, write
from benchmarks.shapes import QUICK, SETTINGS, SIZES, Size
from minillm.accounting.measure import measure_peak_flops
from minillm.config import ModelConfig
from minillm.flops import mfu, param_count

# The shape of the smallest GPT-2. Its vocabulary is rounded up, as is usual.
GPT2 = ModelConfig(50304, 1024, d_model=768, n_layers=12, n_heads=12)


def where(record: Record) -> str:
    """The device: a GPU, or the processor if it is only to be seen that it works."""
    return "cpu" if record.quick and not torch.cuda.is_available() else "cuda"


def gpu_step(record: Record) -> None:
    """Take a training step on a GPU, both sides with the same numbers, compiled or not.

    On a GPU the peer, too, computes in bf16 and is compiled, and its AdamW is PyTorch's
    fused one: so such a model is usually trained. MFU is measured against the fastest
    product of two large matrices of the same numbers.
    """
    device = where(record)
    sizes = (
        QUICK
        if record.quick
        else {"GPT-2": Size(GPT2, batch_size=16), "demo": SIZES["demo"]}
    )
    peaks = {
        dtype: measure_peak_flops(256 if record.quick else None, dtype=t, device=device)
        for dtype, t in (("float32", torch.float32), ("bf16", torch.bfloat16))
    }
    left = len(sizes) * len(SETTINGS)
    for name, size in sizes.items():
        weights = param_count(size.shape).total
        for setting, chosen in SETTINGS.items():
            with record.optional(f"{name}, {setting}"):
                programs = {
                    "us": shapes.trainer(size, device=device, **chosen).step,
                    "them": shapes.peer(size, device=device, **chosen),
                }
                # Not counted: the first steps compile, and choose among kernels.
                found = record.take_turns(programs, 30, 1 / left, warm_up=3)
                peak = peaks[setting.partition(",")[0]]
                ours, theirs = (
                    mfu(flops(size), statistics.median(found[side]), peak)
                    for side, flops in (
                        ("us", shapes.flops),
                        ("them", shapes.peer_flops),
                    )
                )
                record.row(
                    f"{name} ({weights / 1e6:.1f} M weights), {setting}",
                    *(found["us"], PEER, found["them"]),
                    unit="tokens/s",
                    amount=size.batch_size * size.shape.context_length,
                    note=f"MFU {ours:.1%}, peer {theirs:.1%}; {peak / 1e12:,.0f} "
                    "TFLOP/s",
                )
            left -= 1


def gpu_decode(record: Record) -> None:
    """Write 128 tokens after a prompt of 16 on a GPU, greedily, with a cache."""
    sizes = {"tiny": QUICK["tiny"].shape}
    if not record.quick:
        sizes = {"GPT-2": GPT2, "demo": SIZES["demo"].shape}
    write(record, sizes, where(record))


PARTS = {"gpu step": Part(gpu_step, 150), "gpu decode": Part(gpu_decode, 40)}

if __name__ == "__main__":
    if not torch.cuda.is_available() and "--quick" not in sys.argv:
        print("PyTorch finds no GPU here")
        sys.exit()
    main("gpu", __doc__, PARTS)
