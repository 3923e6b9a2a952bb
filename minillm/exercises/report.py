"""What the grader says: a report, with the input and both results in Python's words.

The same words go to a terminal, to a notebook and, as a dictionary, to other programs.
"""

import inspect
import linecache
import math
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minillm.exercises.compare import Outcome
from minillm.exercises.exercise import Exercise

__all__ = ["Report"]

WIDTH = 78  # columns of a report
USUAL = (torch.float32, torch.int64, torch.bool)  # dtypes that need no name


@dataclass(frozen=True)
class Report:
    """What the grader has to say about one exercise.

    Attributes:
        name: the exercise.
        status: `"passed"`, `"wrong"`, or `"todo"` for a stub nobody has filled in.
        kind: what is wrong: the value, the shape, the dtype, an error, …
        says: the same in a sentence or several.
        call: the smallest input that failed, as a call.
        expected: what our function returns.
        got: what the learner's returned.
        mistake: the name of the known mistake that it looks like.
        why: why that is one.
        inputs: how many inputs were tried.
    """

    name: str
    status: str
    kind: str = ""
    says: str = ""
    call: str = ""
    expected: str = ""
    got: str = ""
    mistake: str = ""
    why: str = ""
    inputs: int = 0

    @property
    def passed(self) -> bool:
        """Whether the exercise is solved."""
        return self.status == "passed"

    def as_dict(self) -> dict[str, Any]:
        """All attributes, under their names."""
        return asdict(self)

    def __str__(self) -> str:
        if self.passed:
            return f"{self.name}: passed, {self.inputs} input{'s' * (self.inputs > 1)}"
        if self.status == "todo":
            return f"{self.name}: not yet written"
        return "\n".join([f"{self.name}: {self.headline}", *self.details()])

    @property
    def headline(self) -> str:
        """One line about what is wrong."""
        if self.status == "todo":
            return "not yet written"
        return self.says.partition("\n")[0] or f"wrong {self.kind}"

    def details(self) -> list[str]:
        """Lines below the headline: the input, both results, the mistake."""
        lines = [f"  {line}" for line in self.says.splitlines()[1:]]
        labelled = ("input", self.call), ("expected", self.expected), ("got", self.got)
        for label, text in (*labelled, ("looks like", self.mistake)):
            if text:
                lines += _wrapped(f"  {label:<10} {text}", indent=13)
        return lines + _wrapped(f"  {self.why}" if self.why else "", indent=2)


def _wrapped(text: str, indent: int) -> list[str]:
    # A terminal is 80 columns wide, and the command indents once more.
    return textwrap.wrap(
        text,
        WIDTH,
        drop_whitespace=True,
        break_long_words=False,
        break_on_hyphens=False,
        subsequent_indent=" " * indent,
    )


def learners_lines(error: BaseException, candidate: Any, most: int = 3) -> str:
    """Cut a traceback to the lines of the learner's own file.

    Args:
        error: what was raised.
        candidate: the learner's function, or the path of the file.
        most: how many calls to show, the last ones.

    Returns:
        Two lines for each call, each after a line break.
    """
    code = getattr(inspect.unwrap(candidate), "__code__", None)
    own = str(candidate) if code is None else code.co_filename
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if name == own:
            where = traceback.tb_frame.f_code.co_name
            line = linecache.getline(name, traceback.tb_lineno).strip()
            inside = "" if where == "<module>" else f", in {where}"
            place = f"{Path(name).name}, line {traceback.tb_lineno}{inside}"
            frames.append(f"\n{place}\n    {line}")
        traceback = traceback.tb_next
    return "".join(frames[-most:])


def show_call(exercise: Exercise, args: tuple[Any, ...]) -> str:
    """Write arguments as the call that passes them."""
    return f"{exercise.function}({', '.join(map(show, args))})"


def show_outcome(outcome: Outcome, beside: Outcome | None = None) -> str:
    """Write a value, or the error that came instead of one.

    Args:
        outcome: what to write.
        beside: what it is compared with. Where six digits would make both look alike,
            all digits are shown.

    Returns:
        The value in Python's words, or the error in its own.
    """
    if outcome.error is not None:
        text = f"{outcome.error!s:.400}".partition("\n")[0]
        return f"{type(outcome.error).__name__}{': ' if text else ''}{text}"
    short = show(outcome.value)
    if beside is None or beside.error is not None or show(beside.value) != short:
        return short
    return show(outcome.value, digits=17)


def show(value: Any, most: int = 400, digits: int = 6) -> str:
    """Write a value as Python would take it, shortened where it is long."""
    try:
        text = _written(value, most, digits)
    except Exception:  # nested without end, or of a class that cannot be shown
        text = f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[:most]}…"


def _written(value: Any, most: int, digits: int) -> str:
    if isinstance(value, torch.Tensor):
        kind = "" if value.dtype in USUAL else f", dtype={value.dtype}"
        text = f"tensor({show(value.detach().tolist(), most, digits)}{kind})"
    elif isinstance(value, np.ndarray):
        text = f"array({show(value.tolist(), most, digits)}, dtype={value.dtype})"
    elif isinstance(value, float):
        text = f"{value:.{digits}g}" if math.isfinite(value) else repr(value)
        text += "" if set(text) & set(".en") else ".0"
    elif isinstance(value, list | tuple):
        inside = ", ".join(show(part, most, digits) for part in value)
        if isinstance(value, list):
            text = f"[{inside}]"
        else:
            text = f"({inside}{',' if len(value) == 1 else ''})"
    elif isinstance(value, dict):
        text = _mapping(dict(value))
    else:
        text = repr(value)
    return text


def _mapping(value: dict[Any, Any]) -> str:
    """Write a dictionary; of a vocabulary, what is there besides the 256 bytes."""
    if all(value.get(i) == bytes([i]) for i in range(256)):
        more = {i: token for i, token in value.items() if i not in range(256)}
        return f"{{i: bytes([i]) for i in range(256)}} | {more!r}"
    return repr(value)


def size_of(args: tuple[Any, ...]) -> int:
    """How much there is to read in some arguments."""
    return len(show(args, 100_000))
