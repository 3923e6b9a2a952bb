r"""The figures of the labs, drawn from their committed results.

One module for the three, since they are read together; the style is that of
[`minillm.drawing.kit`][].
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minillm.drawing.kit import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    label_at,
    new_figure,
    save_figure,
)
from minillm.files.writing import atomic_write
from minillm.labs import context as lab_context
from minillm.labs import digits as lab_digits
from minillm.labs import scaling as lab_scaling
from minillm.labs.bench import by_config, committed
from minillm.labs.scaling import forecast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["LAB_FIGURES", "draw_band", "new_panels", "save_light"]

WIDTHS = {8: PURPLE, 16: GREEN, 32: BLUE, 64: ORANGE}


def save_light(figure: "Figure", path: Path, title: str) -> None:
    """Write a figure that is light: a page holds six, with hundreds of points.

    Args:
        figure: the figure.
        path: the SVG file to write.
        title: what it shows, for those who cannot see it.
    """
    for axes in figure.axes:
        axes.minorticks_off()
    save_figure(figure, path, title)
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", path.read_text(encoding="utf-8"))
    with atomic_write(path) as file:
        file.write(svg.encode())


def new_panels(columns: int, height: float = 3.4) -> "tuple[Figure, list[Axes]]":
    """Make a figure of several panels, side by side.

    Args:
        columns: how many.
        height: in inches.

    Returns:
        The figure, and the axes of each panel.
    """
    figure, axes = new_figure(height=height)
    axes.remove()
    return figure, list(figure.subplots(1, columns))


def draw_band(
    axes: "Axes", x: Sequence[float], runs: Sequence[Sequence[float]], **style: Any
) -> None:
    """Draw a line through the means, in a band from the lowest to the highest seed.

    Args:
        axes: where.
        x: the numbers below.
        runs: for each seed, its curve.
        **style: for the line; `color` is needed, for the band, too.
    """
    columns = list(zip(*runs, strict=True))
    axes.plot(x, [sum(c) / len(c) for c in columns], **style)
    low, high = [min(c) for c in columns], [max(c) for c in columns]
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, lw=0)


def _line(
    axes: "Axes", height: float, name: str, gap: float = 3, right: bool = False
) -> None:
    axes.axhline(height, color=INK, lw=1, ls=DASHED)
    label_at(
        axes,
        name,
        (0.98 if right else 0.02, height),
        (0, gap),
        INK,
        ha="right" if right else "left",
        va="bottom" if gap > 0 else "top",
        xycoords=("axes fraction", "data"),
    )


def _main_runs(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that differ from the base in width and layers only."""
    free = {"width": None, "layers": None}
    return [r for r in results if r["config"] | free == lab_context.BASE | free]


def context_steps(path: Path) -> None:
    """Draw loss and accuracy within each run, against the compute spent so far.

    Args:
        path: the SVG file to write.
    """
    results = _main_runs(committed(lab_context.LAB))
    figure, panels = new_panels(2)
    for axes, column, name in zip(panels, (1, 2), ("loss", "accuracy"), strict=True):
        for config, same in by_config(results):
            flops = same[0]["flops"] / config["steps"]
            x = [flops * row[0] for row in same[0]["curve"]][1:]
            runs = [[row[column] for row in r["curve"]][1:] for r in same]
            style = "-" if config["layers"] == 2 else DASHED
            label = f"{config['layers']} layers" if config["layers"] > 1 else "1 layer"
            draw_band(
                axes,
                x,
                runs,
                color=WIDTHS[config["width"]],
                ls=style,
                label=f"{label}, width {config['width']}",
            )
        # Where no curve runs through its name.
        states, gap = results[0]["unigram"][column - 1], 14 if column == 1 else -3
        _line(axes, states, "unigram baseline", gap, right=True)
        _line(axes, results[0]["bigram"][column - 1], "bigram baseline")
        axes.set(xscale="log", xlabel="FLOPs of training so far", ylabel=name)
    panels[0].set(ylim=(0.84, 1.06), yticks=[0.85, 0.9, 0.95, 1, 1.05])
    panels[1].set(ylim=(0.44, 0.63), yticks=[0.45, 0.5, 0.55, 0.6])
    panels[1].legend(
        frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(0, 0.86)
    )
    save_light(
        figure,
        path,
        "Loss and accuracy against compute within each run: two layers fall from one "
        "line to the other, one layer stays",
    )


def context_models(path: Path) -> None:
    """Draw the final accuracy of each model against the compute of its training.

    Args:
        path: the SVG file to write.
    """
    results = [
        r
        for r in committed(lab_context.LAB)
        if r["config"]["states"] == 3 and "planted" not in r["config"]
    ]
    figure, axes = new_figure()
    for config, same in by_config(results):
        values = [r["curve"][-1][2] for r in same]
        middle = sum(values) / len(values)
        two = config["layers"] == 2
        axes.errorbar(
            same[0]["flops"],
            middle,
            [[middle - min(values)], [max(values) - middle]],
            color=WIDTHS[config["width"]],
            marker="o" if config["heads"] == 1 else "s",
            mfc=WIDTHS[config["width"]] if two else "none",
            capsize=3,
        )
    _line(axes, results[0]["unigram"][1], "unigram baseline", gap=-3)
    _line(axes, results[0]["bigram"][1], "bigram baseline")
    axes.set(xscale="log", xlabel="FLOPs of the whole training", ylim=(0.46, 0.63))
    axes.set_xlim(5e10, 4e12)
    axes.set_ylabel("accuracy of the trained model")
    for width, colour in WIDTHS.items():
        axes.plot([], [], "o", color=colour, label=f"width {width}")
    axes.plot([], [], "s", color=INK, label="two heads")
    axes.plot([], [], "o", color=INK, mfc="none", label="one layer")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    save_light(
        figure,
        path,
        "Final accuracy of many models against the compute of their training",
    )


def context_heads(path: Path) -> None:
    """Draw how the two heads form while the loss falls.

    Args:
        path: the SVG file to write.
    """
    results = [r for r in committed(lab_context.LAB) if r["config"] == lab_context.BASE]
    figure, axes = new_figure(height=3.2)
    x = [row[0] for row in results[0]["curve"]]
    bigram, unigram = results[0]["bigram"][0], results[0]["unigram"][0]
    even = results[0]["even"]
    learned = [
        [(unigram - row[1]) / (unigram - bigram) for row in r["curve"]] for r in results
    ]
    for name, colour, runs in (
        ("of the way from unigram to bigram", INK, learned),
        ("previous position, first layer", BLUE, _column(results, 3)),
        ("after the same state, second layer", ORANGE, _column(results, 4)),
    ):
        draw_band(axes, x, runs, color=colour, label=name)
    axes.axhline(even, color=ORANGE, lw=1, ls=DASHED)
    axes.set(xlabel="training step", ylim=(0, 1), ylabel="share", xlim=(0, x[-1]))
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    save_light(
        figure,
        path,
        "Attention to the previous position and to those after the same state, rising "
        "together while the loss falls",
    )


def _column(results: list[dict[str, Any]], column: int) -> list[list[float]]:
    return [[row[column] for row in r["curve"]] for r in results]


def context_maps(path: Path) -> None:
    """Draw what the two layers look at, before the jump and after it.

    Args:
        path: the SVG file to write.
    """
    run = next(
        r
        for r in committed(lab_context.LAB)
        if r["config"] == lab_context.BASE | {"width": 16} and "maps" in r
    )
    figure, panels = new_panels(4, height=2.1)
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    shots = [
        (f"layer {layer + 1}, step {step}", weights)
        for step, layers in run["maps"].items()
        for layer, weights in enumerate(layers)
    ]
    for axes, (title, weights) in zip(panels, shots, strict=True):
        # All squares of one shade in one outline: vector graphics of bearable size.
        for shade in range(1, 6):
            corners = [
                (j + x, t + y)
                for t, row in enumerate(weights)
                for j, percent in enumerate(row)
                if round(percent / 20) == shade
                for x, y in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))
            ]
            if corners:
                codes = [Outline.MOVETO, *[Outline.LINETO] * 3, Outline.CLOSEPOLY]
                outline = Outline(corners, codes * (len(corners) // 5))
                axes.add_patch(PathPatch(outline, fc=BLUE, alpha=shade / 5, lw=0))
        size = len(weights)
        axes.set(xlim=(0, size), ylim=(size, 0), aspect="equal")
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    save_light(
        figure,
        path,
        "Attention of both layers before and after the jump: even rows become a line "
        "beside the diagonal, and columns after the same state",
    )


def digits_metrics(path: Path) -> None:
    """Draw the same models by three metrics.

    Args:
        path: the SVG file to write.
    """
    results = committed(lab_digits.LAB)
    figure, panels = new_panels(3, height=3.2)
    metrics = ("answers right", "symbols right", "ln likelihood of a symbol")
    for task, colour in (("code", BLUE), ("sums", ORANGE)):
        same_task = [r for r in results if r["config"]["task"] == task]
        groups = sorted(by_config(same_task), key=lambda group: group[1][0]["flops"])
        x = [same[0]["flops"] for _, same in groups]
        for column, axes in enumerate(panels, 1):
            values = [[r["curve"][-1][column] for r in same] for _, same in groups]
            means = [sum(v) / len(v) for v in values]
            axes.errorbar(
                x,
                means,
                [
                    [m - min(v) for m, v in zip(means, values, strict=True)],
                    [max(v) - m for m, v in zip(means, values, strict=True)],
                ],
                color=colour,
                marker="o",
                ms=4,
                capsize=2,
                label=task,
            )
        power = [
            sum(r["curve"][-1][2] ** lab_digits.TASKS[task].answer for r in same)
            / len(same)
            for _, same in groups
        ]
        label = "$p^k$" if task == "sums" else None
        panels[0].plot(x, power, "x", color=INK, ms=7, label=label)
    for axes, name in zip(panels, metrics, strict=True):
        axes.set(xscale="log", xlabel="FLOPs of training", ylabel=name)
    panels[1].set_ylim(0, 1.03)
    panels[0].legend(frameon=False, fontsize=8, loc="upper left")
    save_light(
        figure,
        path,
        "Share of right answers, share of right symbols and likelihood of the same "
        "models against compute",
    )


def scaling_law(path: Path) -> None:
    """Draw the isoFLOP curves, and the line through their bottoms.

    Args:
        path: the SVG file to write.
    """
    results = committed(lab_scaling.LAB)
    told = forecast(results)
    budgets = sorted({r["config"]["budget"] for r in results})
    figure, (left, right) = new_panels(2)
    for budget, colour in zip(
        budgets, (PURPLE, GREEN, BLUE, ORANGE, INK), strict=False
    ):
        points = [
            (same[0]["parameters"], sum(r["loss"] for r in same) / len(same))
            for config, same in by_config(results)
            if config["budget"] == budget
        ]
        left.plot(*zip(*points, strict=True), color=colour, marker="o", ms=4)
        label_at(
            left,
            _power(budget),
            points[-1],
            (4, 0),
            colour,
            "left",
            "baseline",
            fontsize=8,
        )
    left.set(xscale="log", xlabel="parameters", ylabel="loss on unseen text, nats")
    x = [budgets[0] * (budgets[-1] / budgets[0]) ** (i / 40) for i in range(43)]
    law = [told.law.at(c) for c in x]
    right.plot(x, [p.loss for p in law], color=BLUE)
    right.fill_between(
        x, [p.low for p in law], [p.high for p in law], color=BLUE, alpha=0.15, lw=0
    )
    right.plot(
        [b for b, *_ in told.bests],
        [loss for *_, loss in told.bests],
        "o",
        color=BLUE,
        ms=4,
        label="best of each small budget",
    )
    right.plot(
        [told.budget] * len(told.outcomes),
        told.outcomes,
        "x",
        color=ORANGE,
        label="the largest, trained last",
    )
    right.set(xscale="log", yscale="log", xlabel="FLOPs of the whole training")
    right.legend(frameon=False, fontsize=8, loc="lower left")
    ticks = [3, 3.5, 4, 4.5, 5]
    right.set_yticks(ticks, [str(tick) for tick in ticks])
    save_light(
        figure,
        path,
        "Loss against size for several budgets, and the best loss against the budget "
        "with a fitted line, its interval and the outcome",
    )


def _power(number: float) -> str:
    """A round number as a power of ten: 2e10 is $2·10^{10}$."""
    digit, exponent = f"{number:.0e}".split("e")
    times = "" if digit == "1" else rf"{digit}\cdot"
    return f"${times}10^{{{int(exponent)}}}$"


LAB_FIGURES = {
    "lab-context-steps.svg": context_steps,
    "lab-context-models.svg": context_models,
    "lab-context-heads.svg": context_heads,
    "lab-context-maps.svg": context_maps,
    "lab-digits.svg": digits_metrics,
    "lab-scaling.svg": scaling_law,
}
