r"""The figures of chapter 11, drawn from the committed results of its lab.

The style is that of [`minillm.drawing.kit`][], and the panels are those of
[`minillm.drawing.labs`][].
"""

from pathlib import Path

from minillm.drawing.kit import BLUE, DASHED, GREEN, ORANGE, PURPLE
from minillm.drawing.labs import draw_band, new_panels, save_light
from minillm.labs.posttraining import runs

__all__ = ["POSTTRAINING_FIGURES"]


def hacked(path: Path) -> None:
    """Draw what the verifier said, and what was right, while both were hacked and not.

    Args:
        path: the SVG file to write.
    """
    figure, (left, right) = new_panels(2)
    for axes, name, title in (
        (left, "in order", "a verifier with a hole"),
        (right, "policy, sort", "the exact verifier"),
    ):
        same = runs(name)
        x = [row[0] for row in same[0]["curve"]]
        for column, label, colour in ((1, "reward", ORANGE), (2, "right", BLUE)):
            if name != "in order" and column == 1:
                continue  # there it is the same number
            curves = [[row[column] for row in r["curve"]] for r in same]
            draw_band(axes, x, curves, color=colour, label=label)
        axes.set(title=title, xlabel="round", ylim=(-0.03, 1.03))
    left.set(ylabel="mean over the samples of a round")
    left.legend(frameon=False, loc="center right")
    save_light(
        figure,
        path,
        "Reward and share of right answers: where the verifier has a hole, the reward "
        "rises to one and the right answers fall to zero",
    )


def tries(path: Path) -> None:
    """Draw pass@k before and after, on two tasks.

    Args:
        path: the SVG file to write.
    """
    figure, axes = new_panels(2)
    for panel, task in zip(axes, ("sort", "split"), strict=True):
        same = runs(f"policy, {task}, 400 rounds")
        k = [int(at) for at in same[0]["after"]["pass"]]
        for when, colour, style in (("before", PURPLE, DASHED), ("after", GREEN, "-")):
            curves = [list(r[when]["pass"].values()) for r in same]
            draw_band(
                panel, k, curves, color=colour, ls=style, label=when, marker="o", ms=4
            )
        panel.set(title=task, xscale="log", xlabel="tries k", ylim=(-0.03, 1.03))
        panel.set_xticks(k, [str(at) for at in k])
    axes[0].set(ylabel="pass@k, held-out problems")
    axes[0].legend(frameon=False, loc="lower right")
    save_light(
        figure,
        path,
        "Probability that one of k tries is right, before and after: sorting is above "
        "everywhere, splitting is above for few tries and below for many",
    )


POSTTRAINING_FIGURES = {
    "lab-posttraining-hacked.svg": hacked,
    "lab-posttraining-tries.svg": tries,
}
