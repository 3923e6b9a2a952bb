r"""The figures of the chapter on systems.

`python -m minillm.drawing.systems` measures anew what attention in blocks needs (on
Linux, which says how much memory a process had at most); the numbers of the other
figure are written by `python -m minillm.training.clock`.
"""

import ctypes
import json
import re
from collections.abc import Callable
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
    new_figure,
    save_figure,
)
from minillm.files.reading import IMAGES
from minillm.systems import blockwise_attention
from minillm.training.clock import now

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


def measure_blockwise(turns: int = 3) -> dict[str, list[list[float]]]:
    """Measure time and memory of attention's two passes, for several lengths.

    There are four heads of 32 numbers, as in the demo, in float32, on one thread.

    Args:
        turns: how often each is timed; the fastest counts.

    Returns:
        For each kind, lists of length, seconds, and bytes at most beyond what the
        process had before.
    """
    torch.set_num_threads(1)
    found: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for length in LENGTHS:
        arrays = torch.randn(3, 1, 4, length, 32).requires_grad_()
        for kind, attend in KINDS.items():

            def both(attend: Any = attend, arrays: Tensor = arrays) -> None:
                attend(*arrays).sum().backward()
                arrays.grad = None

            both()
            times = []
            for _ in range(turns):
                start = now()
                both()
                times.append(now() - start)
            found[kind].append([length, min(times), _peak(both)])
    return found


def _peak(run: Callable[[], None]) -> float:
    # What was freed before goes back to the system, and the maximum starts anew.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


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
            below = colour == GREEN
            axes.annotate(
                kind,
                (lengths[-2 if below else -1], values[-2 if below else -1]),
                (-2, -12) if below else (-10, 7),
                textcoords="offset points",
                ha="left" if below else "right",
                va="center",
                color=colour,
            )
    for axes, label in ((memory, "memory at most, MB"), (seconds, "time, ms")):
        axes.set_xlabel("tokens $T$")
        axes.set_ylabel(label)
        axes.set_xticks(LENGTHS, map(str, LENGTHS))
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
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
        found: what [`report`][minillm.training.clock.report] returned.
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    figure, axes = new_figure(7.2, 3.8)
    peak = found["peak_flops"] / 1e9
    speeds = [speed / 1e9 for _, speed in found["bandwidth"]]
    for speed, name in ((max(speeds), "cache"), (speeds[-1], "memory")):
        ridge = peak / speed
        axes.loglog([0.05, ridge, 1e3], [0.05 * speed, peak, peak], color=INK, lw=1)
        axes.annotate(
            f"{name}, {speed:.0f} GB/s",
            (0.6 * ridge, 0.6 * peak),
            (8, -4),
            textcoords="offset points",
            va="top",
            color=INK,
        )
    axes.annotate(
        f"peak, {peak:.0f} GFLOP/s",
        (1e3, peak),
        (0, 4),
        textcoords="offset points",
        ha="right",
        color=INK,
    )
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
    axes.set_xlabel("FLOPs for each byte")
    axes.set_ylabel("GFLOP/s")
    axes.set_xlim(0.05, 1e3)
    axes.set_ylim(0.2, 2 * peak)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    axes.grid(axis="y")
    save_figure(
        figure,
        path,
        "The operations of a training step under the roof of a machine: products near "
        "the peak, everything else where bandwidth or the cost of a call decides",
    )


def _read(name: str) -> Any:
    return json.loads((IMAGES / "data" / name).read_text(encoding="utf-8"))


SYSTEMS_FIGURES: dict[str, Callable[[Path], None]] = {
    "clock-roofline.svg": lambda path: clock_points(_read("clock.json"), path),
    "blockwise.svg": lambda path: blockwise_curves(_read("blockwise.json"), path),
}

if __name__ == "__main__":
    measured = measure_blockwise()
    text = json.dumps(measured) + "\n"
    (IMAGES / "data" / "blockwise.json").write_text(text, encoding="utf-8")
    print(text)
