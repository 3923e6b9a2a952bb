r"""Exercises to [`minillm.inference.quantized`][] and what follows it."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from minillm.exercises.exercise import Draw, Exercise, Mistake, tensors
from minillm.inference import quantized, speculative

__all__ = ["EXERCISES"]


def _quantize(
    weights: Tensor, *, axis: int | None = 1, sign: bool = False, cut: bool = False
) -> tuple[Tensor, Tensor]:
    sizes = weights if sign else weights.abs()
    largest = sizes.max().expand(len(weights)) if axis is None else sizes.amax(axis)
    scales = torch.where(largest > 0, largest / 127, 1.0)
    # Scales by column stand in a row, where the task wants them in a column.
    levels = weights / (scales.unsqueeze(0) if axis == 0 else scales.unsqueeze(1))
    return (levels.trunc() if cut else levels.round()), scales


@st.composite
def _matrices(draw: Draw) -> tuple[Any, ...]:
    # Few of their quotients lie half-way between two levels.
    values = (0.0, 1.0, -2.0, 0.5, -0.25, 5.0, 3.0)
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return (draw(tensors(*shape, values=values, dtype=torch.float64)),)


def _accept(p: list[float], q: list[float], token: int, u: float) -> bool:
    return u * q[token] < p[token]


def _residual(p: list[float], q: list[float]) -> list[float]:
    short = [max(0.0, a - b) for a, b in zip(p, q, strict=True)]
    return [x / sum(short) for x in short]


def _distribution(size: int) -> st.SearchStrategy[Any]:
    # Quarters and eighths: exact numbers, whose sums are exact too.
    cuts = st.lists(st.integers(1, 6), min_size=size, max_size=size)
    return cuts.map(lambda parts: [part / sum(parts) for part in parts])


@st.composite
def _drafted(draw: Draw) -> tuple[Any, ...]:
    size = draw(st.integers(2, 3))
    p, q = draw(_distribution(size)), draw(_distribution(size))
    token = draw(st.integers(0, size - 1))
    return p, q, token, draw(st.integers(0, 15)) / 16 + 1 / 64


@st.composite
def _pairs(draw: Draw) -> tuple[Any, ...]:
    size = draw(st.integers(2, 3))
    p = draw(_distribution(size))
    return p, draw(_distribution(size).filter(lambda q: q != p))


EXERCISES = (
    Exercise(
        name="generate.quantize_rows",
        title="A scale for each row",
        minutes=15,
        why="In eight bits four times as many weights come out of memory in the same "
        "time, and none is off by more than half a step.",
        answer=(quantized.quantize,),
        reference=_quantize,
        inputs=_matrices(),
        examples=(
            (torch.tensor([[1.0, -8.0], [0.5, 0.25]], dtype=torch.float64),),
            (torch.tensor([[0.0, 0.0], [-3.0, 1.0]], dtype=torch.float64),),
        ),
        mistakes=(
            Mistake(
                "scales per column",
                "A scale can stay outside of the sum only if the whole row shares it: "
                "take the maximum along axis 1.",
                lambda weights: _quantize(weights, axis=0),
            ),
            Mistake(
                "one scale for all",
                "A row of small weights is rounded to a few levels: each row has a "
                "scale of its own.",
                lambda weights: _quantize(weights, axis=None),
            ),
            Mistake(
                "forgets the sign",
                "The largest weight may be negative: take abs() first.",
                lambda weights: _quantize(weights, sign=True),
            ),
            Mistake(
                "cuts off instead of rounding",
                "Then a weight is off by up to a whole step: use round().",
                lambda weights: _quantize(weights, cut=True),
            ),
        ),
        hints=(
            "weights.abs().amax(dim=1) is the largest of each row.",
            "It shall become the level 127; where it is 0, torch.where gives 1.",
            "levels = (weights / scales[:, None]).round()",
        ),
    ),
    Exercise(
        name="generate.accept_draft",
        title="Keep the draft or not",
        minutes=10,
        why="A draft that is accepted by this rule changes nothing in what is "
        "written: the tokens come from the model's own distribution.",
        answer=(speculative.verify,),
        reference=_accept,
        inputs=_drafted(),
        examples=(
            ([0.2, 0.8], [0.5, 0.5], 0, 0.3),
            ([0.2, 0.8], [0.5, 0.5], 1, 0.99),
        ),
        mistakes=(
            Mistake(
                "p / q the wrong way round",
                "The draft is refused where it is surer of a token than the model: "
                "the probability is p / q.",
                lambda p, q, token, u: u * p[token] < q[token],
            ),
            Mistake(
                "keeps it with the model's probability",
                "It was drafted with the probability q, and kept with p: it would "
                "occur with p times q. Divide by q.",
                lambda p, q, token, u: u < p[token],
            ),
            Mistake(
                "keeps only what the model finds likelier",
                "A token with p < q must be kept sometimes, or it would never occur.",
                lambda p, q, token, u: p[token] >= q[token],
            ),
        ),
        hints=(
            "Look at one token only: p[token] and q[token].",
            "Where p is at least q, it is always kept.",
            "u < p[token] / q[token]; a ratio above 1 needs no min.",
        ),
    ),
    Exercise(
        name="generate.after_refusal",
        title="What the draft was short of",
        minutes=10,
        why="A refused token must be replaced by one that makes up for it, or what "
        "the draft likes would still be too frequent.",
        answer=(speculative.verify,),
        reference=_residual,
        inputs=_pairs(),
        examples=(([0.5, 0.25, 0.25], [0.25, 0.5, 0.25]), ([0.75, 0.25], [0.5, 0.5])),
        mistakes=(
            Mistake(
                "samples from p again",
                "What was accepted has already brought a part of p: only the rest is "
                "missing.",
                lambda p, q: list(p),
            ),
            Mistake(
                "what the draft had too much of",
                "q - p is where the draft was too eager. What is missing is p - q.",
                lambda p, q: _residual(q, p),
            ),
            Mistake(
                "does not sum to one",
                "Divide by the sum, which is the probability of a refusal.",
                lambda p, q: [max(0.0, a - b) for a, b in zip(p, q, strict=True)],
            ),
        ),
        hints=(
            "Subtract, token by token.",
            "A negative difference becomes 0.",
            "Divide each by the sum of all.",
        ),
    ),
)
