r"""Exercises to [`minillm.evaluation`][]."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minillm import evaluation
from minillm.exercises.exercise import Draw, Exercise, Mistake

__all__ = ["EXERCISES"]


@st.composite
def _counts(draw: Draw) -> tuple[int, int, int]:
    n = draw(st.integers(1, 8))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


def _interval(c: int, n: int, *, z: float = 1.96) -> tuple[float, float]:
    # The course's own has all digits of z; the task names two.
    p, square = c / n, z * z / n
    middle, half = p + square / 2, math.sqrt(p * (1 - p) * square + square**2 / 4)
    return (middle - half) / (1 + square), (middle + half) / (1 + square)


def _textbook(c: int, n: int) -> tuple[float, float]:
    half = 1.96 * math.sqrt(c / n * (1 - c / n) / n)
    return c / n - half, c / n + half


def _paired(
    a: Sequence[float], b: Sequence[float], *, root: bool = True, ddof: int = 1
) -> tuple[float, float]:
    rest = np.subtract(b, a)
    error = float(rest.std(ddof=ddof)) / (math.sqrt(len(rest)) if root else 1)
    return float(rest.mean()) - 1.96 * error, float(rest.mean()) + 1.96 * error


def _unpaired(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    error = math.sqrt(sum(float(np.var(x, ddof=1)) / len(x) for x in (a, b)))
    middle = float(np.mean(b)) - float(np.mean(a))
    return middle - 1.96 * error, middle + 1.96 * error


@st.composite
def _two_models(draw: Draw) -> tuple[Any, ...]:
    n = draw(st.integers(2, 6))
    scores = st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)
    return draw(scores), draw(scores)


def _best_choice(log_likelihoods: Sequence[float], choices: Sequence[str]) -> int:
    """Ask the course's own."""
    n_bytes = [len(choice.encode()) for choice in choices]
    ones = np.ones(len(choices), dtype=np.int64)
    scores = np.array(log_likelihoods)
    return evaluation.Choices(scores, ones, np.array(n_bytes)).best("byte")


def _best(scores: Any) -> int:
    return int(np.argmax(scores))


@st.composite
def _choices(draw: Draw) -> tuple[Any, ...]:
    words = st.sampled_from(["no", "maybe", "été", "δέλτα", "a"])
    choices = draw(st.lists(words, min_size=2, max_size=4))
    numbers = st.sampled_from([-2.0, -3.0, -4.0, -6.0, -8.0])
    n = len(choices)
    return draw(st.lists(numbers, min_size=n, max_size=n)), choices


def _best_of(n_models: int, n_questions: int) -> float:
    """The mean of the greatest of many, from the chance that none is greater."""
    n = n_questions
    chance = [math.comb(n, c) / 2**n for c in range(n + 1)]
    at_most = np.cumsum(chance) ** n_models
    return float(sum((1 - at_most[c]) for c in range(n)) / n)


EXERCISES = (
    Exercise(
        name="evaluation.pass_at_k",
        title="Several tries",
        minutes=15,
        why="Two papers that report pass@10 from ten samples may mean different "
        "numbers.",
        answer=(evaluation.pass_at_k,),
        reference=evaluation.pass_at_k,
        inputs=_counts(),
        examples=((4, 1, 2), (8, 2, 4), (3, 3, 1), (5, 0, 5)),
        mistakes=(
            Mistake(
                "1 - (1 - p)^k from few samples",
                "That takes samples back after each try; on average it is too small.",
                lambda n, c, k: 1 - (1 - c / n) ** k,
            ),
            Mistake(
                "one try",
                "That is pass@1.",
                lambda n, c, k: c / n,
            ),
            Mistake(
                "chances added up",
                "Two tries may both be right, and count once.",
                lambda n, c, k: min(1.0, k * c / n),
            ),
            Mistake(
                "the chance of none",
                "The other side is asked for: one minus it.",
                lambda n, c, k: math.comb(n - c, k) / math.comb(n, k),
            ),
        ),
        hints=(
            "In how many ways can k be taken of n? And of the n - c wrong ones?",
            "math.comb(n, k); it is 0 where there are too few.",
            "1 - math.comb(n - c, k) / math.comb(n, k)",
        ),
    ),
    Exercise(
        name="evaluation.interval",
        title="None of twenty",
        minutes=20,
        why="The interval of the textbooks says that a model which failed twenty times "
        "can never succeed.",
        answer=(_interval, evaluation.binomial_interval),
        reference=_interval,
        inputs=st.integers(1, 30).flatmap(
            lambda n: st.tuples(st.integers(0, n), st.just(n))
        ),
        examples=((0, 20), (8, 10), (5, 5), (45, 100)),
        tolerance=1e-6,
        mistakes=(
            Mistake(
                "the deviation of what was seen",
                "The deviation depends on p, which is what you look for: put p under "
                "the root and solve.",
                _textbook,
            ),
            Mistake(
                "cut off at 0 and 1",
                "The deviation depends on p: put p under the root and solve, and "
                "nothing has to be cut.",
                lambda c, n: (
                    max(0.0, _textbook(c, n)[0]),
                    min(1.0, _textbook(c, n)[1]),
                ),
            ),
            Mistake(
                "one deviation",
                "1.96 of them hold 95 %, one holds 68 %.",
                lambda c, n: _interval(c, n, z=1.0),
            ),
        ),
        hints=(
            "Square both sides: (p̂ - p)² = 1.96² p(1 - p) / n, with p̂ = c / n.",
            "A quadratic equation for p: (1 + z²/n) p² - (2p̂ + z²/n) p + p̂² = 0.",
            "(p̂ + z²/2n ± z √(p̂(1 - p̂)/n + z²/4n²)) / (1 + z²/n)",
        ),
    ),
    Exercise(
        name="evaluation.paired_interval",
        title="The same questions",
        minutes=15,
        why="The same answers, counted in pairs, may decide what counted apart they do "
        "not.",
        answer=(_paired,),
        reference=_paired,
        inputs=_two_models(),
        examples=(
            ([0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]),
            ([0.0, 1.0, 1.0], [1.0, 1.0, 0.0]),
        ),
        mistakes=(
            Mistake(
                "unpaired",
                "Take the differences question by question first: then what is hard "
                "for both cancels.",
                _unpaired,
            ),
            Mistake(
                "the deviation of one question",
                "The mean of n differences varies less than one of them: by the root "
                "of n.",
                lambda a, b: _paired(a, b, root=False),
            ),
            Mistake(
                "divided by n",
                "The standard deviation with n - 1: the mean was taken from the same "
                "numbers.",
                lambda a, b: _paired(a, b, ddof=0),
            ),
            Mistake(
                "a minus b",
                "How much better b is: b minus a.",
                lambda a, b: _paired(b, a),
            ),
        ),
        hints=(
            "One difference for each question.",
            "Their mean, and their standard deviation by the root of n.",
            "numpy's std divides by n unless told ddof=1.",
        ),
    ),
    Exercise(
        name="evaluation.best_choice",
        title="Long answers lose",
        minutes=10,
        why="By the sum, the shortest choice wins; so benchmarks divide, and not all "
        "by the same.",
        answer=(evaluation.Choices,),
        reference=_best_choice,
        inputs=_choices(),
        examples=(
            ([-4.0, -6.0], ["no", "maybe"]),
            ([-4.0, -4.5], ["maybe", "été"]),
            ([-4.0, -4.5], ["maybe", "δέλτα"]),
        ),
        mistakes=(
            Mistake(
                "not divided",
                "A longer text is less likely, whatever it says.",
                lambda scores, choices: _best(scores),
            ),
            Mistake(
                "characters for bytes",
                "é is one character and two bytes: len(choice.encode()).",
                lambda scores, choices: _best([
                    s / len(c) for s, c in zip(scores, choices, strict=True)
                ]),
            ),
            Mistake(
                "the least likely",
                "Log-likelihoods are negative; the greatest is the nearest to zero.",
                lambda scores, choices: _best([
                    -s / len(c.encode()) for s, c in zip(scores, choices, strict=True)
                ]),
            ),
            Mistake(
                "times the bytes",
                "Per byte: divided.",
                lambda scores, choices: _best([
                    s * len(c.encode()) for s, c in zip(scores, choices, strict=True)
                ]),
            ),
        ),
        hints=(
            "How many bytes has a text? It is encoded.",
            "One quotient for each choice.",
            "max(range(n), key=…) takes the first among equals.",
        ),
    ),
    Exercise(
        name="evaluation.best_of",
        title="Luck, published",
        minutes=10,
        why="If you try twenty things and report the best, you report luck with it.",
        answer=(_best_of,),
        reference=_best_of,
        inputs=st.tuples(st.sampled_from([10, 20, 40]), st.sampled_from([50, 100])),
        examples=((20, 100),),
        tolerance=0.02,
        mistakes=(
            Mistake(
                "the mean of all",
                "That is what an honest report of all of them would show.",
                lambda n_models, n_questions: 0.5,
            ),
            Mistake(
                "one deviation up",
                "Among twenty, the best is further out: about 1.9 deviations.",
                lambda n_models, n_questions: 0.5 + 0.5 / math.sqrt(n_questions),
            ),
            Mistake(
                "three deviations up",
                "That is rarer than one in twenty: it takes hundreds.",
                lambda n_models, n_questions: 0.5 + 1.5 / math.sqrt(n_questions),
            ),
            Mistake(
                "1.96 deviations up, of however many",
                "That is the end of an interval of 95 %. How far out the best is "
                "depends on how many there are.",
                lambda n_models, n_questions: 0.5 + 0.98 / math.sqrt(n_questions),
            ),
        ),
        hints=(
            "The standard deviation of one score is 0.5 / sqrt(n_questions).",
            "So many normal numbers: how far out is the largest, on average?",
            "Or simulate: default_rng(0).binomial(n_questions, 0.5, (9999, n_models)).",
        ),
    ),
)
