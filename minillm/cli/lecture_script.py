r"""The script of a lecture: a chapter, cut into prose, examples and code.

`minillm lecture bpe` takes the module itself as its script. Every docstring is cut
where an example stands, and its prose is written as Markdown for a terminal. The
standard library's `doctest` finds the examples; what is left to do stands below.

>>> steps = lecture_steps("bpe")
>>> steps[0]
Section(title='minillm.bpe')
>>> [type(step).__name__ for step in steps[1:4]]
['Prose', 'Run', 'Prose']

[`minillm.cli.lecture_show`][] gives the lecture.
"""

import ast
import doctest
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

import minillm

__all__ = ["Code", "Prose", "Run", "Section", "chapters", "code", "find"]
__all__ += ["lecture_steps", "sections"]

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass
class Section:
    """The beginning of a docstring: a module, a function, a class, a method."""

    title: str


@dataclass
class Prose:
    """Text in Markdown."""

    text: str


@dataclass
class Code:
    """Source without its docstring."""

    text: str


@dataclass
class Run:
    """An example, and what came before it in the same docstring.

    Attributes:
        example: what `doctest` has found.
        before: the examples that have to run first.
    """

    example: doctest.Example
    before: list[doctest.Example] = field(default_factory=list)


Step = Section | Prose | Code | Run
# The sections of a docstring that are looked up, up to the next line at its margin.
REFERENCE = re.compile(
    r"^(?:Args|Returns|Raises|Yields):\n(?:[ ]+.*(?:\n|\Z)|\n)*", re.MULTILINE
)


def chapters() -> dict[int, str]:
    """Read the syllabus.

    Returns:
        The number and the name of each chapter, as the package lists them.

    Examples:
        >>> [chapters()[number] for number in (1, 2, 3)]
        ['bpe', 'attention', 'model']
    """
    listed = r"^(\d+)\. \[`minillm\.(\w+)`\]"
    found = re.findall(listed, minillm.__doc__ or "", re.MULTILINE)
    return {int(number): name for number, name in found}


def find(chapter: str) -> ModuleType:
    """Import a chapter.

    Args:
        chapter: the name of a module, or the number of a chapter.

    Returns:
        The module.

    Raises:
        ValueError: if there is none; the message gives the nearest.

    Examples:
        >>> find("1").__name__
        'minillm.bpe'
        >>> find("optimiser")
        Traceback (most recent call last):
        ValueError: no chapter 'optimiser'; the nearest: optimizer
    """
    if chapter.isdecimal():
        chapter = chapters().get(int(chapter), chapter)
    name = chapter.removeprefix("minillm.")
    # Chapters come first, so that `data` is the chapter and not a group of commands.
    there = sorted(_modules(), key=lambda path: (path.count("."), path))
    short = {path.rpartition(".")[2]: path for path in reversed(there)}
    if name not in there and name not in short:
        near = get_close_matches(name, [*there, *short]) or chapters().values()
        raise ValueError(f"no chapter {chapter!r}; the nearest: {', '.join(near)}")
    return importlib.import_module(f"minillm.{name if name in there else short[name]}")


def _modules() -> list[str]:
    """Every module with something to tell, by its name inside the package."""
    here = Path(minillm.__file__).parent
    paths = [path.relative_to(here) for path in here.rglob("[a-z]*.py")]
    names = [".".join(path.with_suffix("").parts) for path in paths]
    return ["exercises", *(name for name in names if ".stubs." not in name)]


def lecture_steps(
    chapter: str, write: Callable[[str], str] | None = None
) -> list[Step]:
    """Cut a module into the steps of a lecture.

    Args:
        chapter: the name of a module, or the number of a chapter.
        write: turns the prose of a docstring into Markdown; by default for a terminal.

    Returns:
        The steps. What has no docstring is left to the page.

    Raises:
        ValueError: if there is no such chapter.
    """
    module = find(chapter)
    source = inspect.getsource(module)
    tree = ast.parse(source)
    write = write or plain
    steps: list[Step] = [Section(module.__name__)]
    steps += told(ast.get_docstring(tree) or "", write=write)
    lines = source.splitlines()
    for node in tree.body:
        if isinstance(node, Definition) and ast.get_docstring(node):
            steps += definition(node, lines, "", write)
    return steps


def definition(
    node: Definition, lines: list[str], owner: str, write: Callable[[str], str]
) -> Iterator[Step]:
    """Cut a function or a class into steps, methods after their class.

    Args:
        node: the definition.
        lines: the source of its module.
        owner: the class of a method, with a dot.
        write: turns prose into Markdown.

    Yields:
        A section, its prose and examples, its code.
    """
    yield Section(owner + node.name)
    # Of a class the arguments are what it is; of a function they are looked up.
    is_class = isinstance(node, ast.ClassDef)
    docstring = ast.get_docstring(node) or ""
    yield from told(docstring, reference=is_class, write=write)
    text = code(node, lines)
    if len(text.splitlines()) > 1:
        yield Code(text)
    for method in methods(node):
        yield from definition(method, lines, f"{owner}{node.name}.", write)


def methods(node: Definition) -> list[ast.FunctionDef]:
    """Find the methods that are told on their own.

    Args:
        node: a class, or a function, which has none.

    Returns:
        Those with a docstring.
    """
    return [
        inner
        for inner in node.body
        if isinstance(node, ast.ClassDef)
        and isinstance(inner, ast.FunctionDef)
        and ast.get_docstring(inner)
    ]


def code(node: Definition, lines: list[str]) -> str:
    r"""Take the code of a definition out of its source.

    Args:
        node: the definition, which has a docstring.
        lines: the source that it lies in.

    Returns:
        Its lines, without the docstring and without methods that are told on their own.

    Examples:
        >>> text = 'def double(x):\n    "Double it."\n    return 2 * x'
        >>> print(code(ast.parse(text).body[0], text.splitlines()))
        def double(x):
            return 2 * x
    """
    hidden = [*methods(node), node.body[0]]
    gone = {n for inner in hidden for n in range(first(inner), inner.end_lineno or 0)}
    kept = range(first(node), node.end_lineno or 0)
    text = textwrap.dedent("\n".join(lines[n] for n in kept if n not in gone))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def first(node: ast.stmt) -> int:
    """Find the line, from 0, in which a statement begins, decorators included.

    Args:
        node: the statement.

    Returns:
        The line.
    """
    return (
        min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]) - 1
    )


def told(
    docstring: str,
    *,
    reference: bool = True,
    write: Callable[[str], str] | None = None,
) -> Iterator[Step]:
    r"""Cut a docstring where its examples stand.

    Args:
        docstring: the docstring.
        reference: whether arguments, results and errors are told as well.
        write: turns prose into Markdown; by default for a terminal.

    Yields:
        Prose and examples in turn.

    Examples:
        >>> [type(step).__name__ for step in told("One and one:\n\n>>> 1 + 1\n2")]
        ['Prose', 'Run']
    """
    before: list[doctest.Example] = []
    for part in doctest.DocTestParser().parse(docstring):
        if isinstance(part, doctest.Example):
            yield Run(part, list(before))
            before.append(part)
        elif text := (write or plain)(part if reference else REFERENCE.sub("", part)):
            yield Prose(text)


SIGNS = {
    r"\times": "×", r"\cdot": "·", r"\to": "→", r"\infty": "∞", r"\approx": "≈",
    r"\le": "≤", r"\ge": "≥", r"\dots": "…", r"\ldots": "…", r"\,": " ", r"\;": " ",
    r"\quad": "  ", r"\theta": "θ", r"\sum": "Σ", r"\sqrt": "√", r"\partial": "∂",
    r"\mapsto": "↦", r"\ell": "ℓ", r"\top": "ᵀ", r"\lfloor": "⌊", r"\rfloor": "⌋",
    r"\bigl": "", r"\bigr": "", r"\left": "", r"\right": "", r"\in": "∈",
}  # fmt: skip


def formula(match: re.Match[str]) -> str:
    """Write a formula for a terminal: its TeX, with the common signs as characters.

    Args:
        match: a formula between dollars.

    Returns:
        Markdown for code.
    """
    tex = re.sub(r"\\(?:text|mathrm|operatorname|mathbf)\{([^}]*)\}", r"\1", match[2])
    tex = re.sub(r"\\[a-zA-Z]+|\\.", lambda m: SIGNS.get(m[0], m[0]), tex)
    if match[1] == "$$":
        return f"\n\n```text\n{textwrap.dedent(tex).strip()}\n```\n\n"
    return f"`{' '.join(tex.split())}`"


def plain(text: str) -> str:
    r"""Write the prose of a docstring as Markdown for a terminal.

    Args:
        text: prose as it stands in a docstring.

    Returns:
        Markdown: links are words, formulas are code, figures are named, the sections
        of a docstring are lists.

    Examples:
        >>> print(plain("See [`minillm.bpe`][], $a \\to b$.\n\nArgs:\n    x: a size."))
        See `minillm.bpe`, `a → b`.
        <BLANKLINE>
        **Arguments**
        <BLANKLINE>
        - `x`: a size.
    """
    text = re.sub(
        r'^ *--8<-- "(.*?)"$',
        r"*(Here the page shows* `\1` *.)*",
        sections(text),
        flags=re.M,
    )
    text = re.sub(r"^ *</?div.*>$", "", text, flags=re.M)
    text = re.sub(r"(\$\$?)(?!\s)(.+?)\1", formula, text, flags=re.S)
    text = re.sub(r"\[([^\]]+)\]\[[^\]]*\]", r"\1", text)
    return text.strip()


def sections(text: str) -> str:
    r"""Write the sections of a docstring as Markdown.

    Args:
        text: prose as it stands in a docstring.

    Returns:
        The same, with a list in the place of each section such as `Args:`.

    Examples:
        >>> print(sections("Halve it.\n\nRaises:\n    ValueError: if odd."))
        Halve it.
        <BLANKLINE>
        **Raises**
        <BLANKLINE>
        - `ValueError`: if odd.
    """
    lines, title = [], ""
    for line in textwrap.dedent(text).splitlines():
        if match := re.fullmatch(
            r"(Args|Returns|Raises|Yields|Attributes|Examples):", line
        ):
            title = {"Args": "Arguments"}.get(match[1], match[1])
            lines += [f"**{title}**", ""] if title != "Examples" else []
        elif line.strip() and not line.startswith(" "):
            title = ""
            lines.append(line)
        elif title in {"Arguments", "Raises", "Attributes"}:
            lines.append(re.sub(r"^    (\*{0,2}[\w.]+): ", r"- `\1`: ", line))
        else:
            lines.append(line.removeprefix("    ") if title else line)
    return textwrap.dedent("\n".join(lines))
