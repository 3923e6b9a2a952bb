r"""The figures of the chapter on gradients, and the graphs of its widget.

`python -m minillm.drawing.gradients` measures anew how far a gradient by trying is off.
The numbers of the other figure are written by `python -m minillm.training.depth`.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minillm.drawing.kit import (
    BLUE,
    DASHED,
    GREEN,
    ORANGE,
    PURPLE,
    label_at,
    new_figure,
    save_figure,
)
from minillm.files.reading import IMAGES
from minillm.gradients import (
    Node,
    Scalar,
    cross_entropy,
    matmul,
    reshape,
    silu,
)

__all__ = ["depth_curve", "error_curve", "graph_data", "measure_errors"]


def measure_errors() -> dict[str, list[list[float]]]:
    r"""Measure the error of a gradient by trying, for many $\epsilon$.

    The loss is the cross-entropy of a network of two layers with 800 weights. Fifty of
    the weights are tried.

    Returns:
        For each precision and kind of difference, such as `"float32, central"`, pairs
        of $\epsilon$ and the median of the relative errors.
    """
    random = np.random.default_rng(0)
    inputs, targets = random.normal(size=(32, 16)), random.integers(0, 9, 32)
    w1, w2 = random.normal(size=(16, 32)) / 4, random.normal(size=(32, 9)) / 6

    def loss(w: Any) -> Node:
        hidden = silu(matmul(inputs.astype(w.value.dtype), reshape(w, w1.shape)))
        return cross_entropy(matmul(hidden, w2.astype(w.value.dtype)), targets)

    exact = Node(w1.ravel())
    loss(exact).backward()
    assert exact.grad is not None
    curves = {}
    for name in ("float32", "float64"):
        at = w1.ravel().astype(name)

        def f(i: int, step: float, at: Any = at) -> float:
            moved = at.copy()
            moved[i] += step
            return float(loss(Node(moved)).value)

        for kind in ("one-sided", "central"):
            points = []
            for power in np.arange(0, 14.1 if name == "float64" else 6.6, 0.5):
                eps, errors = 10.0**-power, []
                for i in range(0, 500, 10):
                    down = eps if kind == "central" else 0.0
                    slope = (f(i, eps) - f(i, -down)) / (eps + down)
                    errors.append(abs(slope / exact.grad[i] - 1))
                points.append([float(f"{x:.2g}") for x in (eps, np.median(errors))])
            curves[f"{name}, {kind}"] = points
    return curves


def error_curve(curves: dict[str, list[list[float]]], path: Path) -> None:
    r"""Draw the error of a gradient by trying against $\epsilon$.

    Args:
        curves: what [`measure_errors`][minillm.drawing.gradients.measure_errors] says.
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    figure, axes = new_figure()
    for name, points in curves.items():
        colour = ORANGE if name.startswith("float32") else BLUE
        style = "-" if name.endswith("central") else DASHED
        axes.loglog(*zip(*points, strict=True), color=colour, ls=style, lw=1.4)
        eps, error = min(points, key=lambda point: point[1])
        axes.plot(eps, error, color=colour, marker="o", ms=4)
        if name.startswith("float64"):
            label_at(axes, name, (eps, error), (8, -7), colour, "right", "top")
        elif name.endswith("central"):
            # Their bottoms lie in other curves: the name stands above their start.
            name = "float32, one-sided and central"
            label_at(axes, name, points[-1], (0, 5), colour, va="bottom")
    axes.set_xlabel("$\\epsilon$, how far a weight is moved")
    axes.set_ylabel("relative error of the slope")
    axes.set_ylim(1e-11, 10)
    axes.grid(axis="y")
    save_figure(
        figure,
        path,
        "Error of a slope by trying: it falls as the step shrinks, then rises again",
    )


def depth_curve(norms: dict[str, list[list[float]]], path: Path) -> None:
    """Draw the gradient norm at each of sixteen blocks, for three seeds.

    Args:
        norms: for each way to stack layers, a list of norms for each seed.
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    figure, axes = new_figure()
    for (name, seeds), colour in zip(
        norms.items(), (PURPLE, ORANGE, GREEN), strict=True
    ):
        for seed in seeds:
            axes.semilogy(range(len(seed)), seed, color=colour, lw=1.2)
        at = 5
        height = math.exp(sum(math.log(seed[at]) for seed in seeds) / len(seeds))
        side = (8, 7), colour, "left", "bottom"
        if name == "norms alone":
            side = (-6, -10), colour, "right", "top"
        label_at(axes, name, (at, height), *side)
    axes.set(
        xlabel="block, from the first to the output of the last",
        ylabel="norm of the gradient",
    )
    axes.set_xlim(0, len(seeds[0]) - 1)
    axes.grid(axis="y")
    save_figure(
        figure,
        path,
        "Norm of the gradient at each of sixteen blocks: with the norm before the "
        "layers it stays level, with the norm after them or without residuals it "
        "grows by many powers of ten towards the first block",
    )


# The graphs of the widget: name, what it is made from, where it stands (in a field 360
# wide, rows from the top).

Plan = Sequence[tuple[str, str, tuple[int, int]]]
GRAPHS: dict[str, tuple[dict[str, float], Plan]] = {
    "A number used twice": (
        {"w1": 0.5, "x": 1.5, "w2": -2.0},
        (
            ("w1", "", (52, 0)),
            ("x", "", (180, 0)),
            ("w2", "", (308, 0)),
            ("a", "w1 * x", (124, 1)),
            ("h", "tanh a", (150, 2)),
            ("s", "x * x", (308, 2)),
            ("p", "w2 * h", (204, 3)),
            ("q", "p + s", (250, 4)),
            ("loss", "q * w1", (156, 5)),
        ),
    ),
    "A small network": (
        {"w1": 0.8, "x": 1.5, "w2": -0.5, "-y": -1.0},
        (
            ("w1", "", (70, 0)),
            ("x", "", (190, 0)),
            ("a", "w1 * x", (130, 1)),
            ("w2", "", (290, 1)),
            ("h", "tanh a", (130, 2)),
            ("p", "w2 * h", (210, 3)),
            ("-y", "", (70, 3)),
            ("e", "p + -y", (140, 4)),
            ("loss", "e * e", (140, 5)),
        ),
    ),
}


def graph_data() -> dict[str, Any]:
    """Walk small graphs with the tape of numbers, and note every step.

    Returns:
        By title: `nodes`, each with `name`, `made` and the place `x`, `row`; `edges`,
        pairs of indices; and `steps`, each with `says`, with the `values` and `grads`
        that are known by then, and with what it is about: `now`, nodes, and `passed`,
        edges with the shares that went along them.

    Examples:
        >>> steps = graph_data()["A number used twice"]["steps"]
        >>> steps[1]["says"]
        'a = w1 × x = 0.750.'
        >>> steps[-2]["says"]
        'h passes its gradient on: −1.000 × 0.597 = −0.597 to a.'
    """
    return {title: _walk(*graph) for title, graph in GRAPHS.items()}


def _walk(leaves: dict[str, float], plan: Plan) -> dict[str, Any]:
    numbers: dict[str, Scalar] = {}
    for name, made, _ in plan:
        match made.split():
            case []:
                numbers[name] = Scalar(leaves[name])
            case ["tanh", x]:
                numbers[name] = numbers[x].tanh()
            case [x, "*", y]:
                numbers[name] = numbers[x] * numbers[y]
            case [x, "+", y]:
                numbers[name] = numbers[x] + numbers[y]
    names = list(numbers)
    labels = [_shown(name) for name in names]
    index = {id(number): i for i, number in enumerate(numbers.values())}
    edges = [
        [index[id(parent)], i]
        for i, number in enumerate(numbers.values())
        for parent, _ in number.parents
    ]
    values: list[float | None] = [leaves.get(name) for name in names]
    grads: list[float | None] = [None] * len(names)
    steps: list[dict[str, Any]] = []

    def step(says: str, now: list[int], passed: list[list[float]]) -> None:
        known = [[_rounded(x) for x in row] for row in (values, grads)]
        steps.append(
            {"says": says, "values": known[0], "grads": known[1]}
            | {"now": now, "passed": passed}
        )

    leaf_indices = [i for i, name in enumerate(names) if name in leaves]
    step("Forward: the numbers that are given.", leaf_indices, [])
    for i, (name, made, _) in enumerate(plan):
        if made:
            number = values[i] = numbers[name].value
            step(f"{name} = {_shown(made)} = {_digits(number)}.", [i], [])
    grads[-1] = 1.0
    step("Backward: the slope of the loss in itself is 1.", [len(names) - 1], [])
    for i in reversed(range(len(names))):
        number_i, bar = numbers[names[i]], grads[i]
        if not number_i.parents or bar is None:
            continue
        passed: list[list[float]] = []
        told: list[str] = []
        for parent, slope in number_i.parents:
            at = index[id(parent)]
            grads[at] = (grads[at] or 0.0) + bar * slope
            edge = [k for k, pair in enumerate(edges) if pair == [at, i]]
            passed.append([edge[len(told) % len(edge)], _rounded(bar * slope)])
            told.append(
                f"{_digits(bar)} × {_digits(slope)} = {_digits(bar * slope)} "
                f"to {labels[at]}"
            )
        step(f"{names[i]} passes its gradient on: {', '.join(told)}.", [i], passed)
    return {
        "nodes": [
            {"name": _shown(name), "made": _shown(made), "x": x, "row": row}
            for name, made, (x, row) in plan
        ],
        "edges": edges,
        "steps": steps,
    }


def _shown(made: str) -> str:
    return made.replace("*", "×").replace("-", "−")


def _digits(x: float) -> str:
    return f"{x:.3f}".replace("-", "−")


def _rounded(x: float | None) -> Any:
    return None if x is None else round(x, 6)


if __name__ == "__main__":
    errors = json.dumps(measure_errors()) + "\n"
    (IMAGES / "data" / "gradient-error.json").write_text(errors, encoding="utf-8")
