r"""Lab 3: what does carry over from small to large.

**The question.** Is there anything about a large model that can be known beforehand,
from small ones? In 2020 a team at OpenAI drew the loss of language models against the
compute of their training, both on logarithmic scales, and found straight lines over
many powers of ten (Kaplan et al. 2020, arXiv:2001.08361, figure 1). Does a line through
models that train in seconds hit one that takes ten times as much?

# One budget, several sizes

A budget of $C$ FLOPs can be spent on a wide model that reads little or on a narrow one
that reads much. So one budget is a curve, with a best size in its middle: an *isoFLOP*
curve (Hoffmann et al. 2022, arXiv:2203.15556, section 3.2). Here the text is
Andersen's, in 512 tokens, so that the head of a small model is not all there is to it,
and the number of steps is what the budget buys:

>>> config = {"budget": 1e10, "width": 16, "layers": 2, "batch": 4}
>>> steps(config), steps(config | {"width": 32})
(318, 114)

# A line, and how sure it is

The best loss of each budget should fall as a power of the budget, $\ell = a\,C^{-b}$,
which is a straight line in logarithms: $\ln \ell = \ln a - b \ln C$. The line is fitted
to the small budgets alone. Points that lie off it tell how far a further one may lie:

>>> law = power_law([1.0, 10.0, 100.0, 1000.0], [4.0, 2.9, 2.0, 1.5])
>>> loss, low, high = law.at(10_000.0)
>>> print(f"{loss:.2f}, from {low:.2f} to {high:.2f}")
1.06, from 0.90 to 1.25

On the bench of [`minillm.labs.bench`][], told in [`minillm.emergence`][].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.data import END_OF_TEXT, andersen, split, tokenize
from minillm.flops import aligned, param_count, training_flops
from minillm.inference.intervals import STUDENT
from minillm.labs.bench import Config, Lab, Point, by_config, plan
from minillm.model import TransformerLM
from minillm.train import TrainConfig, bits_per_byte, evaluate, train

__all__ = [
    "LAB",
    "Forecast",
    "Law",
    "Prediction",
    "best_of_budget",
    "forecast",
    "power_law",
    "steps",
]

VOCAB_SIZE, CONTEXT = 512, 64


class Prediction(NamedTuple):
    """What a law says of a budget.

    Attributes:
        loss: the middle.
        low: the lower end of the interval that should hold 19 outcomes of 20.
        high: its upper end.
    """

    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class Law:
    r"""A power law $\ell = a\,C^{-b}$, fitted to points.

    Attributes:
        a: the factor.
        b: the exponent.
        spread: how far the points lie off the line, $s$, in logarithms.
        points: the budgets it was fitted to, in logarithms.
    """

    a: float
    b: float
    spread: float
    points: tuple[float, ...]

    def at(self, budget: float) -> Prediction:
        r"""Predict the loss of a budget.

        With $x = \ln C$, $n$ points $x_i$ of mean $\bar x$, and $t$ Student's for
        $n - 2$ freedoms, the logarithm of the outcome should lie within

        $$\pm\, t\, s \sqrt{1 + \frac1n
        + \frac{(x - \bar x)^2}{\sum_i (x_i - \bar x)^2}}.$$

        The 1 is the scatter of the outcome itself, the rest the doubt about the line,
        which grows with the distance. It trusts that the points scatter about a *line*.

        Args:
            budget: $C$, in FLOPs.

        Returns:
            The loss, and an interval.
        """
        n, x = len(self.points), math.log(budget)
        mean = sum(self.points) / n
        far = (x - mean) ** 2 / sum((point - mean) ** 2 for point in self.points)
        t = STUDENT[min(n - 2, len(STUDENT)) - 1]
        doubt = t * self.spread * math.sqrt(1 + 1 / n + far)
        middle = math.log(self.a) - self.b * x
        return Prediction(*(math.exp(middle + d) for d in (0, -doubt, doubt)))


def power_law(budgets: Sequence[float], losses: Sequence[float]) -> Law:
    r"""Fit $\ell = a\,C^{-b}$: a line through logarithms, by least squares.

    Args:
        budgets: $C$, at least two different ones, and three in all.
        losses: $\ell$, one for each.

    Returns:
        The law.

    Raises:
        ValueError: if there are too few points to tell how far they scatter, or one
            has no logarithm.

    Examples:
        >>> law = power_law([1, 10, 100], [3.0, 0.3, 0.03])
        >>> round(law.a, 9), round(law.b, 9), round(law.spread, 9)
        (3.0, 1.0, 0.0)
    """
    if len(budgets) < 3 or len(set(budgets)) < 2:
        raise ValueError(
            "a line, and how far points lie off it, take three points at two budgets "
            f"or more; got {len(budgets)} at {len(set(budgets))}"
        )
    for number in (*budgets, *losses):
        if not 0 < number < math.inf:
            raise ValueError(
                f"budgets and losses must be positive and finite; got {number}: leave "
                "that point out"
            )
    x, y = np.log(budgets), np.log(losses)
    slope, height = np.polyfit(x, y, 1)
    off = y - (height + slope * x)
    # Two numbers were chosen to make these small, so two do not count.
    spread = math.sqrt(float(off @ off) / (len(x) - 2))
    return Law(math.exp(height), -float(slope), spread, tuple(x.tolist()))


def best_of_budget(
    sizes: Sequence[float], losses: Sequence[float]
) -> tuple[float, float]:
    r"""Find the bottom of an isoFLOP curve.

    A parabola is laid through the best size that was tried and its two neighbours, over
    the logarithm of the size. Farther sizes would only bend it: the curve is steeper on
    one side than on the other.

    Args:
        sizes: parameters, three different ones or more.
        losses: one for each.

    Returns:
        The best size and its loss. Where the best that was tried has no neighbour on
        one side, it is returned as it is: the bottom is not bracketed.

    Examples:
        >>> size, loss = best_of_budget([10, 100, 1000], [3.0, 2.0, 3.0])
        >>> round(size), round(loss, 6)
        (100, 2.0)
        >>> best_of_budget([10, 100, 1000], [3.0, 2.0, 1.2])
        (1000, 1.2)
    """
    points = sorted(zip(sizes, losses, strict=True))
    best = min(range(len(points)), key=lambda i: points[i][1])
    if best in {0, len(points) - 1}:
        return points[best]
    near = points[best - 1 : best + 2]
    x, y = np.log([size for size, _ in near]), [loss for _, loss in near]
    curvature, slope, height = (float(c) for c in np.polyfit(x, y, 2))
    bottom = -slope / (2 * curvature)
    return math.exp(bottom), height + slope * bottom + curvature * bottom**2


def _shape(config: Config) -> ModelConfig:
    # A family that differs in nothing but its width. With a head for every 16 columns,
    # the largest alone would have two; and the default width of the FFN is a multiple
    # of 64, the same for all that are narrow.
    width = config["width"]
    return ModelConfig(
        VOCAB_SIZE, CONTEXT, width, config["layers"], n_heads=1, d_ff=4 * width
    )


def _step_flops(config: Config) -> int:
    return training_flops(_shape(config), config["batch"], CONTEXT)


def steps(config: Config) -> int:
    """Say how many steps of training a budget buys.

    Args:
        config: `budget`, in FLOPs, and the shape.

    Returns:
        The steps that come closest to it.

    Raises:
        ValueError: if it does not buy a step.
    """
    bought = round(config["budget"] / _step_flops(config))
    if bought < 1:
        raise ValueError(
            f"a budget of {config['budget']:.2g} FLOPs is too small: one step at width "
            f"{config['width']} takes {_step_flops(config):.2g}"
        )
    return bought


def _flops(config: Config) -> int:
    return steps(config) * _step_flops(config)


@cache
def _text() -> tuple[NDArray[Any], NDArray[Any], int]:
    training, unseen = split(andersen())
    tokenizer = BPETokenizer.train(training, VOCAB_SIZE, [END_OF_TEXT])
    tokens = tokenize(training, tokenizer)
    # Enough to tell models apart, and every model reads the same.
    examined = tokenize(unseen, tokenizer)[:20_000]
    return tokens, examined, len(tokenizer.decode_bytes(examined[1:].tolist()))


def _run(config: Config, seed: int) -> dict[str, Any]:
    tokens, unseen, n_bytes = _text()
    torch.manual_seed(seed)
    model = TransformerLM(_shape(config))
    n = steps(config)
    how = TrainConfig(
        steps=n,
        batch_size=config["batch"],
        # The wider a model, the more weights move together, and the shorter its steps.
        max_lr=0.2 / config["width"],
        warmup_steps=n // 10,
        # Written out, lest the results depend on what suits the demo.
        betas=(0.9, 0.95),
        weight_decay=0.1,
        seed=seed,
    )
    train(model, tokens, how)
    loss = evaluate(model, unseen)
    return {
        "loss": round(loss, 5),
        "bits_per_byte": round(bits_per_byte(loss, len(unseen) - 1, n_bytes), 5),
        "parameters": param_count(_shape(config)).total,
        "tokens": n * config["batch"] * CONTEXT,
    }


def _points(quick: bool) -> list[Point]:
    small: dict[float, tuple[int, ...]]
    small = {1e10: (6, 8, 12, 16), 2e10: (6, 8, 12, 16)}
    largest: dict[float, tuple[int, ...]] = {1e11: (24,)}
    if not quick:
        # Wide enough that each curve comes down and goes up again, for every seed.
        small = dict.fromkeys((1e10, 2e10, 4e10), (4, 6, 8, 12, 16, 24))
        largest = {4e11: (16, 24, 32, 48)}

    def configs(sizes: dict[float, tuple[int, ...]]) -> list[Config]:
        return [
            {"budget": budget, "width": width, "layers": 2, "batch": 4}
            for budget, widths in sizes.items()
            for width in widths
        ]

    # The largest is trained last, when the prediction is made and cannot be helped.
    seeds = 2 if quick else 3
    return [*plan(configs(small), seeds), *plan(configs(largest), seeds)]


class Forecast(NamedTuple):
    """What the small models of a sweep said of the largest, and what came.

    Attributes:
        bests: for each small budget and seed: the budget, the best size and its loss.
        law: the line through their losses.
        budget: the largest.
        outcomes: the best loss of the largest budget, one for each seed.
    """

    bests: list[tuple[float, float, float]]
    law: Law
    budget: float
    outcomes: list[float]


def forecast(results: Sequence[dict[str, Any]]) -> Forecast:
    r"""Fit the law to all budgets but the largest, and set the largest beside it.

    Args:
        results: of this lab, two budgets or more with three widths or more, and a
            larger one.

    Returns:
        Prediction and outcome.
    """
    largest = max(r["config"]["budget"] for r in results)
    curves: dict[tuple[float, int], list[dict[str, Any]]] = {}
    for r in results:
        curves.setdefault((r["config"]["budget"], r["seed"]), []).append(r)

    def best(curve: list[dict[str, Any]]) -> tuple[float, float]:
        sizes, losses = ([r[key] for r in curve] for key in ("parameters", "loss"))
        if len(curve) > 2:
            return best_of_budget(sizes, losses)
        return min(zip(sizes, losses, strict=True), key=lambda found: found[1])

    bests = [
        (budget, *best(c))
        for (budget, _), c in curves.items()
        if budget < largest and len(c) > 2
    ]
    law = power_law([budget for budget, *_ in bests], [loss for *_, loss in bests])
    outcomes = [best(c)[1] for (budget, _), c in curves.items() if budget == largest]
    return Forecast(bests, law, largest, outcomes)


def _report(results: list[dict[str, Any]]) -> str:
    rows = [["FLOPs", "width", "parameters", "tokens", "seeds", "loss"]]
    for config, same in by_config(results):
        rows.append([
            f"{config['budget']:.0e}",
            str(config["width"]),
            f"{same[0]['parameters']:,}",
            f"{same[0]['tokens']:,}",
            str(len(same)),
            f"{sum(r['loss'] for r in same) / len(same):.3f}",
        ])
    told = forecast(results)
    loss, low, high = told.law.at(told.budget)
    outcome = ", ".join(f"{loss:.3f}" for loss in told.outcomes)
    return (
        f"{aligned(rows)}\n\nfitted below {told.budget:.0e} FLOPs: loss falls as "
        f"C^-{told.law.b:.3f}\npredicted at {told.budget:.0e}: {loss:.3f}, from "
        f"{low:.3f} to {high:.3f}\ncame: {outcome}"
    )


LAB = Lab("scaling", 2, _points, _run, _flops, _report)
