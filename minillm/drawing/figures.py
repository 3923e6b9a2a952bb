r"""Every figure of the course, drawn anew.

`python -m minillm.drawing.figures` draws them from the committed numbers in
`images/data`; the same numbers give the same file, to the byte. With `--recompute` it
computes the numbers first, which trains the demo model, and prints how far they are
from the committed ones. Trained numbers differ a little between processors, so that
comparison has a tolerance.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minillm.accounting.disclosure import disclose, disclosure_table
from minillm.drawing.attention import attention_grid, distance_curve
from minillm.drawing.compression import compression_curve
from minillm.drawing.curation import CURATION_FIGURES
from minillm.drawing.first_page import write_first_page
from minillm.drawing.flops import context_curve, roofline_curve, shares_curve
from minillm.drawing.gradients import depth_curve, error_curve
from minillm.drawing.kit import loss_curve, summarize
from minillm.drawing.labs import LAB_FIGURES
from minillm.drawing.posttraining import POSTTRAINING_FIGURES
from minillm.drawing.systems import SYSTEMS_FIGURES
from minillm.drawing.training import CURVE_FIGURES, descent_curve, schedule_curve
from minillm.drawing.widgets import write_all
from minillm.files.reading import IMAGES
from minillm.files.writing import atomic_write
from minillm.runs.demo import CONFIG, read_log, run_demo
from minillm.runs.milestones import Milestones, milestones_text

__all__ = ["draw_all"]


def draw_all(folder: Path) -> list[Path]:
    """Draw every figure of the course from the committed numbers.

    Args:
        folder: where to.

    Returns:
        The files that were written.

    Raises:
        ImportError: if matplotlib is missing.
    """
    data = IMAGES / "data"
    run = json.loads((data / "demo.json").read_text(encoding="utf-8"))
    points = json.loads((data / "compression.json").read_text(encoding="utf-8"))
    heads = json.loads((data / "heads.json").read_text(encoding="utf-8"))
    errors = json.loads((data / "gradient-error.json").read_text(encoding="utf-8"))
    depth = json.loads((data / "depth.json").read_text(encoding="utf-8"))
    figures: dict[str, Callable[[Path], None]] = {
        "demo-loss.svg": lambda path: loss_curve(run, path),
        "compression.svg": lambda path: compression_curve(points, path),
        "attention-maps.svg": lambda path: attention_grid(heads, path),
        "rope-distance.svg": lambda path: distance_curve(heads, path),
        "gradient-error.svg": lambda path: error_curve(errors, path),
        "gradient-depth.svg": lambda path: depth_curve(depth, path),
        "descent.svg": descent_curve,
        "learning-rate.svg": schedule_curve,
        "flop-shares.svg": shares_curve,
        "flop-context.svg": context_curve,
        "roofline.svg": roofline_curve,
        **SYSTEMS_FIGURES,
        **CURVE_FIGURES,
        **CURATION_FIGURES,
        **LAB_FIGURES,
        **POSTTRAINING_FIGURES,
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
        write_first_page(run=Path(folder) / "demo")
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
