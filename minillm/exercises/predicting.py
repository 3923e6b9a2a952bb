r"""Exercises about emergence: predict, then run."""

import numpy as np
from hypothesis import strategies as st

from minillm.exercises.exercise import Exercise, Mistake

__all__ = ["EXERCISES"]

chances = st.sampled_from([0.1, 0.25, 0.5, 0.9])
lengths = st.integers(1, 10)


def _exact_match(p: float, k: int) -> float:
    return p**k


def _digit_accuracy(share: float, k: int) -> float:
    return float(share ** (1 / k))


def _run_both_models(p: float, q: float, k: int) -> float:
    """Let two models answer, digit by digit, and count what is right altogether."""
    chance = np.random.default_rng(0)
    right = []
    for digit in (p, q):
        digits = chance.random((400_000, k)) < digit
        right.append(int(digits.all(axis=1).sum()))
    return right[1] / right[0]


EXERCISES = (
    Exercise(
        name="emergence.exact_match",
        title="All digits at once",
        minutes=5,
        why="A measure that asks for everything at once stays at zero for long, and "
        "then jumps, while the model gets better evenly.",
        answer=(_exact_match,),
        reference=_exact_match,
        inputs=st.tuples(chances, lengths),
        examples=((0.9, 5), (0.5, 2)),
        mistakes=(
            Mistake(
                "the share of one digit",
                "One digit is right in p of all cases; all k of them are much rarer.",
                lambda p, k: p,
            ),
            Mistake(
                "any digit at all",
                "That is how often at least one digit is right.",
                lambda p, k: 1 - (1 - p) ** k,
            ),
            Mistake(
                "errors added up",
                "1 - k(1 - p) is right only for small errors, and below zero for "
                "large ones.",
                lambda p, k: 1 - k * (1 - p),
            ),
            Mistake(
                "divided by the length",
                "Probabilities of independent events are multiplied.",
                lambda p, k: p / k,
            ),
            Mistake(
                "times the length",
                "k digits are right more rarely than one, not more often: multiply p "
                "with itself.",
                lambda p, k: p * k,
            ),
        ),
        hints=(
            "Two digits: how often is the first right, and of these the second?",
            "Independent probabilities are multiplied.",
            "p times itself, k times.",
        ),
    ),
    Exercise(
        name="emergence.digit_accuracy",
        title="And backwards",
        minutes=5,
        why="Half of all answers of ten digits are right only when 93 digits of 100 "
        "are. Below that, nothing seems to happen.",
        answer=(_digit_accuracy,),
        reference=_digit_accuracy,
        inputs=st.tuples(chances, lengths),
        examples=((0.5, 10), (0.25, 2)),
        mistakes=(
            Mistake(
                "the same share",
                "Then only share ** k of the answers would be right.",
                lambda share, k: share,
            ),
            Mistake(
                "the power for the root",
                "That is the other direction: take the k-th root.",
                lambda share, k: share**k,
            ),
            Mistake(
                "errors shared out",
                "1 - (1 - share) / k is right only for small errors.",
                lambda share, k: 1 - (1 - share) / k,
            ),
            Mistake(
                "the square root",
                "The square root undoes two digits; here there are k.",
                lambda share, k: share**0.5,
            ),
            Mistake(
                "divided by the length",
                "The digits multiply to the share, they do not add up to it: take the "
                "k-th root.",
                lambda share, k: share / k,
            ),
        ),
        hints=(
            "Solve p ** k = share for p.",
            "What undoes a k-th power?",
            "share ** (1 / k)",
        ),
    ),
    Exercise(
        name="emergence.predict",
        title="Predict, then run",
        minutes=5,
        why="An eighth more on one measure is a leap on another. Nothing leapt.",
        answer=(_run_both_models,),
        reference=_run_both_models,
        inputs=st.tuples(
            st.sampled_from([0.7, 0.8]),
            st.sampled_from([0.9, 0.95, 0.99]),
            st.integers(4, 10),
        ),
        examples=((0.8, 0.9, 10),),
        tolerance=0.05,
        mistakes=(
            Mistake(
                "as much as a digit",
                "q / p is the growth for one digit; k of them multiply.",
                lambda p, q, k: q / p,
            ),
            Mistake(
                "k times the growth of a digit",
                "The same growth, k times over, multiplies: (q / p) ** k.",
                lambda p, q, k: 1 + k * (q / p - 1),
            ),
            Mistake(
                "half the errors, twice the answers",
                "Errors fall by (1 - p) / (1 - q), but the answers that are right grow "
                "by (q / p) ** k.",
                lambda p, q, k: (1 - p) / (1 - q),
            ),
            Mistake(
                "the share, not the growth",
                "q ** k is how many are right; by which factor did that grow?",
                lambda p, q, k: q**k,
            ),
        ),
        hints=(
            "What share of answers does each of the two models get right?",
            "p ** k and q ** k.",
            "Divide the second by the first.",
        ),
    ),
)
