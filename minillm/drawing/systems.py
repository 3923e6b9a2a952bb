r"""The figures of the chapter on systems.

`python -m minillm.drawing.systems` measures anew what attention in blocks needs (on
Linux, which says how much memory a process had at most); the numbers of the other
figure are written by `python -m minillm.training.clock_report`.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.attention import scaled_dot_product_attention
from minillm.drawing.kit import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    draw_roof,
    label_at,
    new_figure,
    save_figure,
)
from minillm.files.reading import IMAGES, read_json
from minillm.systems import blockwise_attention
from minillm.tokenizer.parallel import processes
from minillm.training.clock import least_seconds

__all__ = ["blockwise_curves", "clock_points", "measure_blockwise"]

BLOCK = 256
LENGTHS = (128, 256, 512, 1024, 2048)


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    past = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).tril()
    return scaled_dot_product_attention(q, k, v, past)


KINDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "plain": _plain,
    "in blocks": lambda q, k, v: blockwise_attention(q, k, v, BLOCK),
    "PyTorch's fused kernel": lambda q, k, v: F.scaled_dot_product_attention(
        q, k, v, is_causal=True
    ),
}


def measure_blockwise(
    lengths: Sequence[int] = LENGTHS,
) -> dict[str, list[list[float]]]:
    """Measure time and memory of attention's two passes, for several lengths.

    There are four heads of 32 numbers, as in the demo, in float32, on one thread.

    Args:
        lengths: tokens in a sequence.

    Returns:
        For each kind, lists of length, seconds (of the fastest of three), and bytes at
        most beyond what the process had before.
    """
    found: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for length in lengths:
        for kind, rows in found.items():
            # Each in a process of its own, where nobody has left any memory behind.
            with processes(1) as fresh:
                rows.append([length, *fresh.submit(_measure, kind, length).result()])
    return found


def _measure(kind: str, length: int) -> tuple[float, float]:
    torch.set_num_threads(1)
    _both_passes(kind, 8)()  # what PyTorch sets up once is no part of it
    run = _both_passes(kind, length)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM = VmRSS
    run()
    most = _status("VmHWM") - before
    return least_seconds(run, at_least=0), most


def _both_passes(kind: str, length: int) -> Callable[[], None]:
    arrays = torch.randn(3, 1, 4, length, 32).requires_grad_()

    def run() -> None:
        KINDS[kind](*arrays).sum().backward()
        arrays.grad = None

    return run


def _status(name: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    kilobytes = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return float(kilobytes[1]) * 1024 if kilobytes else 0.0


def blockwise_curves(found: dict[str, list[list[float]]], path: Path) -> None:
    """Draw memory and time of attention against the length of the sequence.

    Args:
        found: what `measure_blockwise` returned.
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    figure, first = new_figure(7.2, 3.4)
    figure.delaxes(first)
    memory, seconds = figure.subplots(1, 2)
    for (kind, rows), colour in zip(found.items(), (ORANGE, BLUE, GREEN), strict=True):
        lengths = [row[0] for row in rows]
        for axes, column, unit in ((memory, 2, 1e6), (seconds, 1, 1e-3)):
            values = [row[column] / unit for row in rows]
            axes.loglog(lengths, values, color=colour, marker="o", ms=3, lw=1.4)
            if colour == GREEN:
                side = (lengths[-2], values[-2]), (-2, -12), colour, "left"
            else:
                side = (lengths[-1], values[-1]), (-10, 7), colour, "right"
            label_at(axes, kind, *side)
    for axes, label in ((memory, "memory at most, MB"), (seconds, "time, ms")):
        axes.set_xlabel("tokens $T$")
        axes.set_ylabel(label)
        axes.set_xticks(LENGTHS, map(str, LENGTHS))
        axes.minorticks_off()
        axes.grid(axis="y")
    save_figure(
        figure,
        path,
        "Memory and time of attention against the length: the memory of the plain "
        "version grows with its square, that of the others with the length",
    )


def clock_points(found: dict[str, Any], path: Path) -> None:
    """Draw the roof of a machine, and the operations of a step under it.

    An operation that is no product is placed as if it did one FLOP for each number
    that it moves.

    Args:
        found: what [`report`][minillm.training.clock_report.report] returned.
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    figure, axes = new_figure(7.2, 3.8)
    peak = found["peak_flops"] / 1e9
    speeds = [speed / 1e9 for _, speed in found["bandwidth"]]
    for speed, name in ((max(speeds), "cache"), (speeds[-1], "memory")):
        ridge = draw_roof(axes, peak, speed, 0.05, 1e3, lw=1)
        text, point = f"{name}, {speed:.0f} GB/s", (0.6 * ridge, 0.6 * peak)
        label_at(axes, text, point, (8, -4), INK, va="top")
    text = f"peak, {peak:.0f} GFLOP/s"
    label_at(axes, text, (1e3, peak), (0, 4), INK, "right", "baseline")
    colours = {
        "products": BLUE,
        "attention": GREEN,
        "AdamW and clipping": PURPLE,
        "norms, gates, loss, sums": ORANGE,
    }
    seen: set[str] = set()
    for name, flops, n_bytes, seconds in found["points"]:
        if n_bytes < 1e4:  # a few numbers; all call
            continue
        part = name.split(":")[0]
        kind = "norms, gates, loss, sums"
        if flops:
            kind = "attention" if part == "attention" else "products"
        elif part in ("AdamW", "clipping"):
            kind = "AdamW and clipping"
        work = flops or n_bytes / 4
        axes.plot(
            work / n_bytes,
            work / seconds / 1e9,
            color=colours[kind],
            marker="o",
            ms=4,
            ls="",
            label="" if kind in seen else kind,
        )
        seen.add(kind)
    axes.axvline(peak / max(speeds), color=INK, lw=0.6, ls=DASHED)
    axes.set(xscale="log", yscale="log", xlim=(0.05, 1e3), ylim=(0.2, 2 * peak))
    axes.set(xlabel="FLOPs for each byte", ylabel="GFLOP/s")
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    axes.grid(axis="y")
    save_figure(
        figure,
        path,
        "The operations of a training step under the roof of a machine: products near "
        "the peak, everything else where bandwidth or the cost of a call decides",
    )


DATA = IMAGES / "data"
SYSTEMS_FIGURES: dict[str, Callable[[Path], None]] = {
    "clock-roofline.svg": lambda path: clock_points(
        read_json(DATA / "clock.json"), path
    ),
    "blockwise.svg": lambda path: blockwise_curves(
        read_json(DATA / "blockwise.json"), path
    ),
}

if __name__ == "__main__":
    measured = measure_blockwise()
    text = json.dumps(measured) + "\n"
    (DATA / "blockwise.json").write_text(text, encoding="utf-8")
    print(text)
