r"""The figures of the chapters on learning.

The points of the first two are computed by the chapters' own functions when the picture
is drawn. The curves of [`minillm.training.curves`][] come from committed numbers, and
that of the demo is in [`minillm.drawing.kit`][].
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

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
from minillm.files.reading import IMAGES, read_json
from minillm.runs.demo import CONFIG
from minillm.training.curves import committed
from minillm.training.descent import adam, descend, gradient_descent, momentum, valley
from minillm.training.mistakes import CASES, STEPS
from minillm.training.optimizer import cosine_schedule

__all__ = ["CURVE_FIGURES", "descent_curve", "schedule_curve"]


def descent_curve(path: Path) -> None:
    r"""Draw where three rules go in a narrow valley.

    Args:
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    kappa, steps = 20, 40
    rules: tuple[tuple[str, Callable[..., Tensor], str, dict[str, float]], ...] = (
        ("gradient descent", gradient_descent, ORANGE, {"lr": 1.9 / kappa}),
        ("momentum", momentum, GREEN, {"lr": 1.9 / kappa, "beta": 0.7}),
        ("Adam", adam, BLUE, {"lr": 0.1}),
    )
    figure, axes = new_figure(height=2.9)
    axes.remove()
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    along, across = torch.meshgrid(
        torch.linspace(-0.7, 1.2, 39, dtype=torch.float64),
        torch.linspace(-1.2, 1.2, 49, dtype=torch.float64),
        indexing="xy",
    )
    height = (kappa * across**2 + along**2) / 2
    for panel, (name, rule, colour, settings) in zip(panels, rules, strict=True):
        points = descend(rule, steps, lambda w: valley(w, kappa), **settings)
        panel.contour(
            along.numpy(),
            across.numpy(),
            height.numpy(),
            levels=[0.05, 0.3, 1, 3, 7],
            colors=INK,
            alpha=0.25,
            linewidths=0.8,
        )
        panel.plot(
            points[:, 1].numpy(), points[:, 0].numpy(), color=colour, marker="o", ms=2.5
        )
        panel.plot(0, 0, color=INK, marker="+", ms=9)
        panel.set_title(name, color=colour, fontsize=10)
        panel.set_xlabel("along the valley")
    panels[0].set_ylabel("across it")
    save_figure(
        figure,
        path,
        f"Paths of {steps} steps in a narrow valley: gradient descent jumps from wall "
        "to wall, momentum swings in, Adam goes straight to the bottom and past it",
    )


def schedule_curve(path: Path) -> None:
    r"""Draw the learning rate of the demo over the steps, the corners marked.

    Args:
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    c = CONFIG

    def rate(step: int) -> float:
        return cosine_schedule(step, c.max_lr, c.min_lr, c.warmup_steps, c.steps)

    figure, axes = new_figure(height=2.6)
    steps = range(0, c.steps + 1, 10)
    axes.plot(steps, [rate(step) for step in steps], color=BLUE)
    for step, text, offset, ha in (
        (1, f"first step: {rate(1):g}", (10, 2), "left"),
        (
            c.warmup_steps,
            f"step {c.warmup_steps}, the top: {c.max_lr:g}",
            (8, 9),
            "left",
        ),
        (c.steps, f"last step: {c.min_lr:g}", (0, 13), "right"),
    ):
        axes.plot(step, rate(step), color=ORANGE, marker="o", ms=5)
        label_at(axes, text, (step, rate(step)), offset, ORANGE, ha)
    axes.set(xlabel="training step", ylabel="learning rate")
    axes.set_xlim(-c.steps / 100, c.steps * 1.01)
    axes.grid(axis="y")
    save_figure(figure, path, "Learning rate: a line up, then half a cosine down")


def loss_of(case: str, path: Path) -> None:
    """Draw the loss of a run beside the sound one, without saying what is wrong.

    Args:
        case: the run, a name in [`CASES`][minillm.training.mistakes.CASES].
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    curves = committed()
    figure, axes = new_figure(height=2.5)
    # The sound run is in the text's own colour, where another is compared with it.
    others = [] if case == "sound" else [("sound", INK, INK, 0.35, "the sound run")]
    for name, thin, dots, alpha, label in [*others, (case, BLUE, ORANGE, 1.0, "")]:
        run = curves[name][0]
        axes.plot(*zip(*run["training"], strict=True), color=thin, lw=1.2, alpha=alpha)
        axes.plot(
            *zip(*run["validation"], strict=True),
            color=dots,
            alpha=alpha,
            marker="o",
            ms=3 if label else 4,
            lw=0 if not label else 0.8,
        )
    baselines = read_json(IMAGES / "data" / "curves.json")["baselines"]
    for name, bits in baselines.items():
        axes.axhline(bits, color=PURPLE, lw=1, ls=DASHED)
        right = axes.get_yaxis_transform()
        label_at(axes, name, (1, bits), (4, 0), PURPLE, xycoords=right)
    axes.set(xlabel="training step", ylabel="bits per byte", xlim=(0, STEPS + 1))
    highest = max(bits for part in run.values() for _, bits in part)
    axes.set_ylim(-0.2, max(8.6, highest + 0.4))
    axes.grid(axis="y")
    save_figure(
        figure,
        path,
        "Bits per byte against training step: a line for the training batches, dots "
        "for the validation text",
    )


CURVE_FIGURES = {
    f"curve-{letter}.svg": partial(loss_of, name)
    for letter, name in zip(
        "0abcdefg", (name for name, case in CASES.items() if case.shown), strict=True
    )
}
