r"""Exercises that grade themselves, and tell you why.

What you have built you understand. So build it again: the exercises ask for the pieces
of the course, one function each, and compare yours with ours on inputs made for the
purpose. In a terminal:

```console
minillm exercises start my-course            # one file of stubs for each chapter
minillm exercises check my-course            # what is right, what is wrong, and why
minillm exercises check bpe.merge my-course --hint
```

In a notebook or a script, [`check`][minillm.exercises.check] grades a function where it
stands:

>>> def merge(ids, pair, new_id):
...     marked = [i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair]
...     taken = {i + 1 for i in marked}
...     return [
...         new_id if i in marked else ids[i]
...         for i in range(len(ids))
...         if i in marked or i not in taken
...     ]
>>> print(check("bpe.merge", merge))
bpe.merge: wrong result
  input      merge([7, 7, 7], (7, 7), 256)
  expected   [256, 7]
  got        [256, 256]
  looks like eats overlapping pairs
  After a merge both tokens are used up; the second cannot begin the next
  pair.

The inputs are the same in every run. The one that is shown is the smallest that could
be found, and a mistake is named if it gives the same wrong results as yours on all the
inputs that fail.

The inputs are made by hypothesis, the extra `exercises`; where it is missing,
`pip install hypothesis`.
"""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TypeVar, overload

# First of all, since it says what to install if hypothesis is missing.
from minillm.exercises.exercise import CHAPTERS, Exercise
from minillm.exercises import (
    accounting,
    aligning,
    judging,
    curation,
    decoding,
    differentiating,
    predicting,
    sampling,
    timing,
    tokenization,
    training,
    transformer,
)
from minillm.exercises.grader import grade
from minillm.exercises.report import Report

__all__ = ["EXERCISES", "check", "find_exercises"]

EXERCISES: dict[str, Exercise] = {
    exercise.name: exercise
    for chapter in (
        tokenization,
        transformer,
        differentiating,
        training,
        sampling,
        decoding,
        accounting,
        timing,
        curation,
        predicting,
        aligning,
        judging,
    )
    for exercise in chapter.EXERCISES
}
"""All exercises by name, in the order of the course."""

Function = TypeVar("Function", bound=Callable[..., Any])


@overload
def check(name: str) -> Callable[[Function], Function]: ...


@overload
def check(name: str, candidate: Any) -> Report: ...


def check(name: str, candidate: Any = None) -> Any:
    r"""Grade one function, in this process.

    The guard here is soft. An endless loop is interrupted, as if you had pressed
    Ctrl-C, after half a minute, and only in the main thread; a call that never comes
    back from C, or a crash, ends as it would without the grader. The command
    `minillm exercises check` works in a process of its own and survives all of these.

    Args:
        name: the exercise, like `bpe.merge`.
        candidate: your function; or your number, if the exercise asks for one. Without
            it, `check` is a decorator that prints its report.

    Returns:
        The report, which prints as text, or the decorator.

    Raises:
        ValueError: if there is no such exercise.
        TypeError: if the candidate is no function where one is asked for.

    Examples:
        As a decorator:

        >>> @check("bpe.compression_ratio")
        ... def ratio(text, ids):
        ...     if not ids:
        ...         raise ValueError("no ids")
        ...     return len(text) / len(ids)
        bpe.compression_ratio: wrong result
          input      compression_ratio('é', [0])
          expected   2.0
          got        1.0
          looks like characters for bytes
          len(text) counts characters; é is one character and two bytes.
        >>> check("bpe.murge", ratio)
        Traceback (most recent call last):
        ValueError: no exercise 'bpe.murge'; did you mean bpe.merge?
    """
    (exercise,) = find_exercises([name], chapters=False)
    if candidate is not None:
        return grade(exercise, candidate)

    def decorate(function: Function) -> Function:
        print(grade(exercise, function))
        return function

    return decorate


def find_exercises(names: list[str], *, chapters: bool = True) -> list[Exercise]:
    """Find exercises by their names, or by those of their chapters.

    Args:
        names: names like `bpe.merge` or, for all of a chapter, `bpe`; none for all.
        chapters: whether a chapter may be named.

    Returns:
        The exercises, in the order of the course.

    Raises:
        ValueError: if a name is unknown; the error has the nearest ones.

    Examples:
        >>> [exercise.name for exercise in find_exercises(["bpe.merge"])]
        ['bpe.merge']
        >>> find_exercises(["bpe.mrge"])
        Traceback (most recent call last):
        ValueError: no exercise 'bpe.mrge'; did you mean bpe.merge?
    """
    for name in names:
        if name in EXERCISES or (chapters and name in CHAPTERS):
            continue
        # The part behind the dot alone is a name that people try.
        short = {known.partition(".")[2]: known for known in EXERCISES}
        near = get_close_matches(name, [*EXERCISES, *CHAPTERS], n=2, cutoff=0.75)
        near = near or [short[s] for s in get_close_matches(name, short, n=2)]
        hint = (
            f"did you mean {' or '.join(near)}?"
            if near
            else "`minillm exercises list` has them all"
        )
        raise ValueError(f"no exercise {name!r}; {hint}")
    return [
        exercise
        for exercise in EXERCISES.values()
        if not names or exercise.name in names or exercise.chapter in names
    ]
