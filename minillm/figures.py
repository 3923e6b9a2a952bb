r"""Figures: drawn by code, from numbers that lie beside them.

`python -m minillm.figures` draws every picture of the course anew from the committed
numbers in `images/data`; the same numbers give the same file, to the byte.
`python -m minillm.figures --recompute` computes the numbers anew first, which trains
the demo model, and says how far they are from the committed ones. Trained numbers
differ a little between processors, so that comparison has a tolerance.

The pictures are SVG. Lines of text and axes have the colour of the text around them, so
that they follow a page from light to dark.
"""

import argparse
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minillm.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_all", "loss_curve", "new_figure", "save_figure"]

# An installed package carries the data of the labs inside.
_INSIDE = Path(__file__).resolve().parent / "images"
IMAGES = _INSIDE if _INSIDE.is_dir() else _INSIDE.parent.parent / "images"

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
            "drawing needs matplotlib, the extra 'plots': pip install 'minillm[plots]'"
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
    r"""Draw how a run learned, beside what counting alone achieves.

    Args:
        run: `bits` (pairs of step and bits per byte, on the training text, smoothed),
            `validation` (the same on the validation text) and `baselines` (name to bits
            per byte).
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
        axes.annotate(
            label,
            point,
            (0, height),
            textcoords="offset points",
            ha=ha,
            va=va,
            color=BLUE,
        )
    for (name, bits), colour in zip(
        run["baselines"].items(), (PURPLE, GREEN, ORANGE), strict=False
    ):
        axes.axhline(bits, color=colour, lw=1, ls=DASHED)
        axes.annotate(
            f"{name}, {bits:.2f}",
            (1, bits),
            (-4, 3),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            color=colour,
        )
    axes.set(xlabel="training step", ylabel="bits per byte of text", xlim=(0, None))
    axes.set_ylim(min(last, *run["baselines"].values()) - 0.35)
    axes.grid(axis="y")
    save_figure(
        figure, path, "Bits per byte against training step, beside three baselines"
    )


def summarize(log: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Condense the log of a run to what its loss curve shows.

    Args:
        log: the lines of `log.jsonl`.

    Returns:
        What [`loss_curve`][minillm.figures.loss_curve] draws.
    """
    result = next(line for line in log if line["event"] == "result")
    steps = [line for line in log if line["event"] == "step"]
    # Nats per token become bits per byte by one factor, that of the validation text.
    factor = result["tokens_per_byte"] / math.log(2)
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
    return {"bits": bits, "validation": validation, "baselines": baselines}


def draw_all(folder: Path) -> list[Path]:
    """Draw every figure of the course from the committed numbers.

    Args:
        folder: where to.

    Returns:
        The files that were written.

    Raises:
        ImportError: if matplotlib is missing.
    """
    # They are drawn in the style above, so they import it from here.
    from minillm.attention_figures import attention_grid, distance_curve
    from minillm.bpe_figures import compression_curve
    from minillm.curation_figures import CURATION_FIGURES
    from minillm.flops_figures import context_curve, roofline_curve, shares_curve
    from minillm.lab_figures import LAB_FIGURES
    from minillm.training_figures import descent_curve, schedule_curve

    data = IMAGES / "data"
    run = json.loads((data / "demo.json").read_text(encoding="utf-8"))
    points = json.loads((data / "compression.json").read_text(encoding="utf-8"))
    heads = json.loads((data / "heads.json").read_text(encoding="utf-8"))
    figures: dict[str, Callable[[Path], None]] = {
        "demo-loss.svg": lambda path: loss_curve(run, path),
        "compression.svg": lambda path: compression_curve(points, path),
        "attention-maps.svg": lambda path: attention_grid(heads, path),
        "rope-distance.svg": lambda path: distance_curve(heads, path),
        "descent.svg": descent_curve,
        "learning-rate.svg": schedule_curve,
        "flop-shares.svg": shares_curve,
        "flop-context.svg": context_curve,
        "roofline.svg": roofline_curve,
        **CURATION_FIGURES,
        **LAB_FIGURES,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in figures.items():
        draw(folder / name)
    return [folder / name for name in figures]


def recompute() -> float:
    """Train the demo model again, store its loss curve and what it discloses.

    Returns:
        The greatest difference to the numbers before, in bits per byte, over the
        validation points and the baselines; infinite if their number has changed.
    """
    import tempfile

    from minillm.demo import CONFIG, read_log, run_demo
    from minillm.industrialization import disclose, disclosure_table
    from minillm.milestones import Milestones, milestones_text
    from minillm.widgets import write_all

    data = IMAGES / "data"
    path = data / "demo.json"
    last = CONFIG.steps
    milestones = Milestones([1, 30, last // 40, last // 10, last // 4, last])
    with tempfile.TemporaryDirectory() as folder:
        run_demo(Path(folder) / "demo", watch=milestones)
        new = summarize(read_log(Path(folder) / "demo"))
        table = disclosure_table(disclose(Path(folder) / "demo"))
        # The site lets its readers draw from this model.
        write_all(run=Path(folder) / "demo")
    difference = math.inf
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        if len(_bits(old)) == len(_bits(new)):
            difference = max(
                abs(a - b) for a, b in zip(_bits(old), _bits(new), strict=True)
            )
    with atomic_write(path) as file:
        file.write((json.dumps(new) + "\n").encode())
    with atomic_write(data / "disclosure.md") as file:
        file.write((table + "\n").encode())
    with atomic_write(data / "milestones.json") as file:
        file.write((json.dumps(milestones.samples, indent=1) + "\n").encode())
    with atomic_write(data / "milestones.md") as file:
        shown = milestones_text(milestones.samples, new["baselines"])
        file.write((shown + "\n").encode())
    return difference


def _bits(run: dict[str, Any]) -> list[float]:
    return [*run["baselines"].values(), *(bits for _, bits in run["validation"])]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the figures of the course.")
    parser.add_argument("--recompute", action="store_true", help="train the demo first")
    if parser.parse_args().recompute:
        print(f"largest difference: {recompute():.4f} bits per byte")
    for written in draw_all(IMAGES):
        print(written)
