r"""What an exercise is made of.

The text that a learner gets (signature, task, examples) is a real file of Python in the
folder `stubs`. Everything else about an exercise is one
[`Exercise`][minillm.exercises.exercise.Exercise] in the module of its chapter.
"""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import torch

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ImportError as error:
    raise ImportError(
        "the exercises need hypothesis, which makes their inputs: "
        "pip install hypothesis"
    ) from error

__all__ = ["CHAPTERS", "Exercise", "Mistake", "Stub", "chapter_text", "tensors"]

CHAPTERS: dict[str, str] = {
    "bpe": "Text to integers",
    "model": "Attention and the Transformer",
    "gradients": "Gradients",
    "train": "Learning",
    "generate": "Sampling",
    "flops": "Accounting",
    "systems": "Systems",
    "curation": "Where the text comes from",
    "emergence": "More is different",
    "posttraining": "From completing to answering",
    "evaluation": "How good, and how sure",
}
"""The chapters that have exercises, in the order of the course."""


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that many people give.

    Attributes:
        name: what the mistake does, in a few words.
        sentence: why it is one.
        function: the wrong answer, as a function of the same arguments.
        kind: how it shows: `"value"` by its results, `"growth"` by its work.
    """

    name: str
    sentence: str
    function: Callable[..., Any]
    kind: str = "value"


@dataclass(frozen=True)
class Stub:
    """The part of a file of stubs that belongs to one exercise.

    Attributes:
        parameters: the names of the parameters.
        signature: the line that begins with `def`.
        docstring: the task, with its examples.
        lines: the first and the last line, counted from 1.
    """

    parameters: tuple[str, ...]
    signature: str
    docstring: str
    lines: tuple[int, int]


def plain_call(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function; what an exercise does unless it says otherwise."""
    return function(*args)


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise.

    Attributes:
        name: the chapter and the function, like `bpe.merge`.
        title: what there is to do.
        minutes: about how long it takes.
        why: what it is good for.
        answer: what in the course is the answer; the first is the place to read.
        reference: the function that gives the expected results.
        inputs: makes arguments, as tuples.
        mistakes: wrong answers that are recognised.
        hints: three, each of which gives away more.
        examples: arguments that are always tried.
        tolerance: how far a number may be off, relative to the expected one; `None` for
            the accuracy of its type.
        forbidden: names in PyTorch that would be the answer.
        call: calls a candidate, where that takes more than its arguments.
        growth: makes arguments of size n for a count of the work, which must not grow
            faster than n does.
        work: counts the work of a call; `None` for lines of Python.
    """

    name: str
    title: str
    minutes: int
    why: str
    answer: tuple[Any, ...]
    reference: Callable[..., Any]
    inputs: SearchStrategy[tuple[Any, ...]]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, str, str]
    examples: tuple[tuple[Any, ...], ...] = ()
    tolerance: float | None = None
    forbidden: frozenset[str] = frozenset()
    call: Callable[..., Any] = plain_call
    growth: Callable[[int], tuple[Any, ...]] | None = None
    work: Callable[..., int] | None = None

    @property
    def chapter(self) -> str:
        """The part of the name before the dot: that of a chapter and of a file."""
        return self.name.partition(".")[0]

    @property
    def function(self) -> str:
        """The part of the name behind the dot: that of the learner's function."""
        return self.name.partition(".")[2]

    @property
    def stub(self) -> Stub:
        """Signature and task."""
        return stubs(self.chapter)[self.function]


def chapter_text(chapter: str) -> str:
    """Read the file that a learner starts from.

    Args:
        chapter: its name, one of [`CHAPTERS`][minillm.exercises.exercise.CHAPTERS].

    Returns:
        The text of the file.

    Examples:
        >>> "def merge(" in chapter_text("bpe")
        True
    """
    folder = files("minillm.exercises") / "stubs"
    return (folder / f"{chapter}.py").read_text(encoding="utf-8")


@cache
def stubs(chapter: str) -> dict[str, Stub]:
    """Find the stubs in the file of a chapter, by the names of their functions."""
    text = chapter_text(chapter)
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = Stub(
                parameters=tuple(arg.arg for arg in node.args.args),
                signature=f"def {node.name}({ast.unparse(node.args)})",
                docstring=ast.get_docstring(node) or "",
                lines=(node.lineno, node.end_lineno or node.lineno),
            )
    return found


Draw = Callable[..., Any]
"""What hypothesis passes to a strategy that is written as a function."""

# Few different numbers, none of them special: what fails with them is easy to read.
NUMBERS = (0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 4.0, -0.25)


@st.composite
def tensors(
    draw: Draw,
    *shape: int | SearchStrategy[int],
    values: Any = NUMBERS,
    dtype: torch.dtype | SearchStrategy[torch.dtype] | None = None,
) -> torch.Tensor:
    """Make tensors, in float32 unless told otherwise.

    Args:
        draw: given by hypothesis.
        shape: the size of each axis, or what draws it.
        values: the entries are chosen among these.
        dtype: the type of the entries, or what draws it.

    Returns:
        A strategy for tensors.

    Examples:
        >>> made = tensors(2, st.integers(1, 3))
        >>> from hypothesis import find
        >>> find(made, lambda tensor: tensor.shape[1] > 1).tolist()
        [[0.0, 0.0], [0.0, 0.0]]
    """
    sizes = [size if isinstance(size, int) else draw(size) for size in shape]
    n, base = int(torch.Size(sizes).numel()), len(values)
    # One number, whose digits are the entries: much faster than a draw for each, and
    # the smaller it is, the more zeros are among them.
    number = draw(st.integers(0, base**n - 1))
    entries = [values[number // base**i % base] for i in range(n)]
    kind = draw(dtype) if isinstance(dtype, SearchStrategy) else dtype
    return torch.tensor(entries, dtype=kind or torch.float32).reshape(sizes)


FLOATS = st.sampled_from([torch.float32, torch.float64])
"""The two types that a function on tensors should take."""


@st.composite
def stacked(
    draw: Draw, /, *shape: int | SearchStrategy[int], **options: Any
) -> torch.Tensor:
    """Make tensors with up to two further axes before those of `shape`."""
    batch = draw(st.lists(st.integers(1, 2), max_size=2))
    return draw(tensors(*batch, *shape, **options))
