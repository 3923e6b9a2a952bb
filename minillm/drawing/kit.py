r"""The drawing kit: the style of every figure, and the loss curve of a run.

The pictures are SVG. Lines of text and axes have the colour of the text around them, so
that they follow a page from light to dark.
"""

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minillm.files.writing import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_roof", "label_at", "loss_curve", "new_figure", "save_figure"]

# Colours that are told apart on white and on near-black, also by colour-blind readers
# (after Okabe & Ito 2008), and a stand-in for the colour of the surrounding text.
BLUE, ORANGE, GREEN, PURPLE = "#3b82c4", "#d97706", "#1f9d78", "#b0659a"
INK = "#010203"
DASHED = (0, (5, 3))


def new_figure(width: float = 7.2, height: float = 3.6) -> "tuple[Figure, Axes]":
    """Begin a figure in the style of the course.

    Args:
        width: in inches.
        height: in inches.

    Returns:
        The figure, and its empty axes.

    Raises:
        ImportError: if matplotlib is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "drawing needs matplotlib, the extra 'plots': pip install matplotlib"
        ) from error
    mpl.rcParams.update(mpl.rcParamsDefault)
    mpl.rcParams.update({
        # Text stays text, and names inside the file do not depend on the day.
        "svg.fonttype": "none",
        "svg.hashsalt": "minillm",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": INK,
        "grid.alpha": 0.12,
    })
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def label_at(
    axes: "Axes",
    text: str,
    point: Sequence[float],
    offset: Sequence[float],
    colour: str,
    ha: str = "left",
    va: str = "center",
    **more: Any,
) -> None:
    """Write a name beside what it names, so that nobody has to look it up in a legend.

    Args:
        axes: where.
        text: the name.
        point: what it names, in the numbers of the axes.
        offset: how far from there, in points.
        colour: that of what it names.
        ha: which side of the text lies there.
        va: whether its top, its center, its bottom or its baseline does.
        **more: what else matplotlib's `annotate` takes.
    """
    axes.annotate(
        text,
        (point[0], point[1]),
        (offset[0], offset[1]),
        textcoords="offset points",
        ha=ha,
        va=va,
        color=colour,
        **more,
    )


def draw_roof(
    axes: "Axes", peak: float, bandwidth: float, low: float, high: float, **style: Any
) -> float:
    """Draw the roof of a machine: a slope of bandwidth, and from the ridge on the peak.

    Args:
        axes: both logarithmic.
        peak: FLOPs in a second.
        bandwidth: bytes in the same second.
        low: the arithmetic intensity at the left, in FLOPs for each byte.
        high: that at the right.
        **style: for the line.

    Returns:
        The intensity at the ridge.
    """
    ridge = peak / bandwidth
    axes.plot([low, ridge, high], [low * bandwidth, peak, peak], color=INK, **style)
    return ridge


def save_figure(figure: "Figure", path: Path, title: str) -> None:
    """Write a figure as SVG that inherits its colour and names its subject.

    Args:
        figure: the figure.
        path: the file to write.
        title: what it shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # A style sheet inside one picture would reach every other on the page, and so would
    # names: both are made the picture's own.
    svg = re.sub(r"<style[^>]*>.*?</style>\s*", "", svg, flags=re.DOTALL)
    name = path.stem
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace('xlink:href="#', f'xlink:href="#{name}-')
    svg = svg.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    # Standing alone, without a page to inherit from, it is grey: visible on any ground.
    svg = svg.replace(
        "<svg ",
        f'<svg role="img" aria-label="{title}" color="#777" stroke-linejoin="round" ',
        1,
    )
    with atomic_write(path) as file:
        file.write(("\n".join(line.rstrip() for line in svg.splitlines())).encode())
        file.write(b"\n")


def loss_curve(run: dict[str, Any], path: Path) -> None:
    r"""Draw how a run learned, beside three baselines.

    Args:
        run: `bits` (pairs of step and bits per byte, on the training text, smoothed),
            `validation` (the same on the validation text), `baselines` (name to bits
            per byte), and `unit`, what stands in place of bits per byte of text.
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    figure, axes = new_figure()
    axes.plot(*zip(*run["bits"], strict=True), color=BLUE, alpha=0.5, lw=1)
    axes.plot(*zip(*run["validation"], strict=True), color=BLUE, marker="o", ms=4)
    last = run["validation"][-1][1]
    # The names of the baselines stand at the right, where the curves have come down,
    # so that of the model stands at its beginning, if there is room.
    early = run["validation"][len(run["validation"]) // 4]
    side = "left" if early[0] < run["bits"][-1][0] / 2 else "right"
    for label, point, height, ha, va in (
        (f"the model on unseen text, in the end {last:.2f}", early, 6, side, "bottom"),
        ("on the text it learns from", run["bits"][-1], -10, "right", "top"),
    ):
        label_at(axes, label, point, (0, height), BLUE, ha, va)
    for (name, bits), colour in zip(
        run["baselines"].items(), (PURPLE, GREEN, ORANGE), strict=False
    ):
        axes.axhline(bits, color=colour, lw=1, ls=DASHED)
        label_at(
            axes,
            f"{name}, {bits:.2f}",
            (1, bits),
            (-4, 3),
            colour,
            "right",
            "baseline",
            xycoords=axes.get_yaxis_transform(),
        )
    unit = run.get("unit", "bits per byte of text")
    axes.set(xlabel="training step", ylabel=unit, xlim=(0, None))
    axes.set_ylim(min(last, *run["baselines"].values()) - 0.35)
    axes.grid(axis="y")
    what = "Loss against training step, beside the model before"
    if "unit" not in run:
        what = "Bits per byte against training step, beside three baselines"
    save_figure(figure, path, what)


def summarize(log: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Condense the log of a run to what its loss curve shows.

    Args:
        log: the lines of `log.jsonl`.

    Returns:
        What [`loss_curve`][minillm.drawing.kit.loss_curve] draws.
    """
    result = next(line for line in log if line["event"] == "result")
    steps = [line for line in log if line["event"] == "step"]
    # Nats per token become bits per byte by one factor, that of the validation text.
    # What is measured in another unit is drawn as it is.
    factor = 1.0 if "unit" in result else result["tokens_per_byte"] / math.log(2)
    width = max(1, len(steps) // 100)
    bits = []
    for i in range(0, len(steps) - width + 1, width):
        losses = [line["loss"] for line in steps[i : i + width]]
        middle = steps[i]["step"] + (width - 1) / 2
        bits.append([middle, round(sum(losses) / width * factor, 4)])
    validation = [
        [line["step"], round(line["validation_loss"] * factor, 4)]
        for line in steps
        if line["validation_loss"] is not None
    ]
    baselines = {name: round(b, 4) for name, b in result["baselines"].items()}
    found = {"bits": bits, "validation": validation, "baselines": baselines}
    return found | ({"unit": result["unit"]} if "unit" in result else {})
