r"""The figures of the chapter on curation, and the numbers that they are drawn from.

The style is that of [`minillm.drawing.kit`][]. `python -m minillm.drawing.curation`
makes the numbers anew that need no training: the experiment on bands, and the seconds
that each repair takes on this machine.
"""

import json
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from minillm.corpus.duplicates import banding_curve, candidates
from minillm.corpus.signatures import signature
from minillm.drawing.kit import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    ORANGE,
    label_at,
    new_figure,
    save_figure,
)
from minillm.files.reading import IMAGES
from minillm.files.writing import atomic_write
from minillm.labs.bench import committed
from minillm.labs.curation import BASE, BUDGETS, KEEPS, LAB, losses
from minillm.labs.repairs import seconds_per_megabyte

__all__ = [
    "CURATION_FIGURES",
    "banding_experiment",
    "bands_curve",
    "leak_curves",
    "threshold_curves",
]

LENGTH = 64
BANDS = {4: GREEN, 16: BLUE, 32: ORANGE}


def banding_experiment(trials: int = 300) -> dict[str, list[list[float]]]:
    """Count how often pairs of sets of a known similarity become candidates.

    Args:
        trials: pairs for each similarity.

    Returns:
        For each number of bands the points: the Jaccard similarity, and the share of
        pairs that were found.
    """
    found: dict[str, list[list[float]]] = {str(bands): [] for bands in BANDS}
    for tenth in range(1, 20):
        # Of 40 members both sets have `both`, and each has its half of the rest.
        both = 2 * tenth
        rows = np.stack([
            signature(" ".join(f"{trial}_{i}" for i in members), 1, LENGTH)
            for trial in range(trials)
            for half in (range(both, 20 + tenth), range(20 + tenth, 40))
            for members in [[*range(both), *half]]
        ])
        for bands in BANDS:
            hits = sum(j == i + 1 and i % 2 == 0 for i, j in candidates(rows, bands))
            found[str(bands)].append([both / 40, round(hits / trials, 4)])
    return found


def bands_curve(path: Path) -> None:
    """Draw the probability of becoming a candidate, by formula and by experiment.

    Args:
        path: the SVG file to write.
    """
    data = json.loads((IMAGES / "data" / "curation-bands.json").read_text("utf-8"))
    figure, axes = new_figure(height=3.2)
    x = [i / 100 for i in range(101)]
    for bands, colour in BANDS.items():
        rows = LENGTH // bands
        axes.plot(x, [banding_curve(s, bands, rows) for s in x], color=colour)
        axes.plot(*zip(*data[str(bands)], strict=True), "o", color=colour, ms=4)
        # Each name stands where its own curve has half its height.
        half = (1 - 0.5 ** (1 / bands)) ** (1 / rows)
        text = f"{bands} bands of {rows}"
        label_at(axes, text, (half, 0.5), (6, -4), colour, va="baseline")
    axes.set(xlabel="Jaccard similarity", ylabel="share of pairs found", xlim=(0, 1.15))
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.grid(axis="y")
    save_figure(
        figure,
        path,
        "Share of pairs found by banding against their similarity: curves by formula, "
        "points by experiment on them",
    )


def leak_curves(path: Path) -> None:
    """Draw what a leak does to the loss, and to which loss.

    Args:
        path: the SVG file to write.
    """
    results = committed(LAB)
    figure, axes = new_figure(height=3.4)
    axes.remove()
    left, right = figure.subplots(1, 2)

    def runs(domain: str, **config: Any) -> list[float]:
        return [r[domain] for r in results if r["config"] == BASE | config]

    copies = (0, 10, 40)
    for domain, name, colour in (
        ("tales", "unseen tales", BLUE),
        ("short", "the tales that leaked", ORANGE),
    ):
        values = [runs(domain, data="leak" if n else "clean", copies=n) for n in copies]
        left.plot(copies, [mean(v) for v in values], color=colour, marker="o", ms=4)
        for n, seeds in zip(copies, values, strict=True):
            left.plot([n] * len(seeds), seeds, "_", color=colour, ms=8)
        # Both names stand under or over the right end of their line, off the other.
        offset = (0, 6) if domain == "tales" else (-10, -2)
        end = copies[2], mean(values[2])
        label_at(left, name, end, offset, colour, "right", "baseline")
    left.set(
        xlabel="copies in the training text", ylabel="bits per byte", xlim=(-2, 43)
    )
    groups = ("none", "few", "many", "validation", "tales")
    names = ("none", "1–2", "3–12", "all", "unseen\ntales")
    for data, label, colour, style in (
        ("straddle", "split with all copies", ORANGE, "o"),
        ("divided", "deduplicated, then split", BLUE, "s"),
    ):
        values = [runs(group, data=data) for group in groups]
        for i, seeds in enumerate(values):
            right.plot([i] * len(seeds), seeds, "_", color=colour, ms=8)
        middle = [mean(v) for v in values]
        right.plot(range(len(groups)), middle, style, color=colour, ms=5, label=label)
    right.axvline(2.5, color=INK, lw=1, ls=DASHED, alpha=0.4)
    right.set_xticks(range(len(groups)), names)
    right.set_xlabel("validation pages, by their number of copies")
    right.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    for panel in (left, right):
        panel.grid(axis="y")
    save_figure(
        figure,
        path,
        "Left: the loss on test tales falls with their copies in the training text, "
        "that on unseen tales does not. Right: validation pages with copies in "
        "training have a lower loss only before deduplication",
    )


def threshold_curves(path: Path) -> None:
    """Draw what filtering ever harder does to the loss, at each budget.

    Args:
        path: the SVG file to write.
    """
    results = committed(LAB)
    figure, axes = new_figure(height=3.2)
    x = range(len(KEEPS))
    for steps, colour in zip(BUDGETS, (GREEN, BLUE), strict=True):
        runs = [
            losses(results, "tales", data="classified", keep=keep, steps=steps)
            for keep in KEEPS
        ]
        # Each seed is compared with itself: budgets differ more than thresholds do.
        falls = [[b - a for a, b in zip(runs[0], run, strict=True)] for run in runs]
        axes.plot(x, [mean(f) for f in falls], color=colour, marker="o", ms=4)
        for i, seeds in enumerate(falls[1:], 1):
            axes.plot([i] * len(seeds), seeds, "_", color=colour, ms=8)
        end = x[-1], mean(falls[-1])
        label_at(axes, f"{steps:,} steps", end, (8, -3), colour, va="baseline")
    axes.axhline(0, color=INK, lw=1, ls=DASHED, alpha=0.4)
    axes.set_xticks(x, [f"{keep:.0%}" for keep in KEEPS])
    axes.set(
        xlabel="share of the text that is kept, best scores first",
        ylabel="bits per byte, against\nkeeping everything",
        xlim=(-0.2, len(KEEPS) - 0.1),
    )
    axes.grid(axis="y")
    save_figure(
        figure,
        path,
        "How far the loss on unseen tales moves if a filter keeps less of the text: "
        "after 100 steps it hardly falls and then rises, after 400 it falls until half "
        "is left, and then rises again",
    )


CURATION_FIGURES = {
    "curation-bands.svg": bands_curve,
    "curation-leak.svg": leak_curves,
    "curation-threshold.svg": threshold_curves,
}

if __name__ == "__main__":
    for file_name, made in (
        ("curation-bands", banding_experiment()),
        ("curation-seconds", seconds_per_megabyte()),
    ):
        with atomic_write(IMAGES / "data" / f"{file_name}.json") as file:
            file.write((json.dumps(made) + "\n").encode())
