r"""The parts of a chapter: its docstrings, their examples, the code below them.

A lecture and a notebook have no text of their own. Both read the module itself, here,
and each writes it in its way:

>>> [part.name for part in parts(find("bpe"))][:3]
['', 'compression_ratio', 'CharTokenizer']

The standard library's `doctest` finds the examples. The course does not explain this
module: it serves [`minillm.cli.lecture_script`][] and
[`minillm.cli.notebook_cells`][].
"""

import ast
import doctest
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

import minillm
from minillm.cli.lecture_formulas import readable

__all__ = ["Part", "Run", "chapters", "code", "find", "parts", "pieces"]

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass
class Part:
    """A docstring, and what it is about.

    Attributes:
        name: the function or class, a method behind its class and a dot; of the module
            itself, nothing.
        docstring: the docstring.
        node: the function, class or method; of the module, none.
        lines: the source of the module.
    """

    name: str
    docstring: str
    node: Definition | None = field(default=None, repr=False)
    lines: Sequence[str] = field(default=(), repr=False)


@dataclass
class Run:
    """An example, and what came before it in the same docstring.

    Attributes:
        example: what `doctest` has found.
        before: the examples that have to run first.
    """

    example: doctest.Example
    before: list[doctest.Example] = field(default_factory=list)


# What is below the name of a section of a docstring, up to the next line at its margin.
BELOW = r"((?:[ ]+.*(?:\n|\Z)|\n)*)"
# The sections that are looked up.
TABLES = re.compile(
    rf"^(?:Args|Returns|Raises|Yields|Attributes):\n{BELOW}", re.MULTILINE
)
EXAMPLES = re.compile(rf"^Examples:.*\n{BELOW}", re.MULTILINE)
# What only a page of the site can use.
DIV = re.compile(r"^ *</?div.*>$\n*", re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\[[^\]]*\]")


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
        >>> find("quantised")
        Traceback (most recent call last):
        ValueError: no chapter 'quantised'; the nearest: quantized
    """
    if chapter.isdecimal():
        chapter = chapters().get(int(chapter), chapter)
    name = chapter.removeprefix("minillm.")
    # Chapters come first, so that `data` is the chapter and not a group of commands.
    there = sorted(_modules(), key=lambda path: (path.count("."), path))
    short = {path.rpartition(".")[2]: path for path in reversed(there)}
    if name not in there and name not in short:
        names = list(dict.fromkeys([*there, *short]))
        near = get_close_matches(name, names) or chapters().values()
        raise ValueError(f"no chapter {chapter!r}; the nearest: {', '.join(near)}")
    return importlib.import_module(f"minillm.{name if name in there else short[name]}")


def _modules() -> list[str]:
    """Every module with something to tell, by its name inside the package."""
    here = Path(minillm.__file__).parent
    paths = [path.relative_to(here) for path in here.rglob("[a-z]*.py")]
    names = [".".join(path.with_suffix("").parts) for path in paths]
    return ["exercises", *(name for name in names if ".stubs." not in name)]


def parts(module: ModuleType) -> Iterator[Part]:
    """Take a module apart.

    Args:
        module: the module.

    Yields:
        The module itself, and whatever in it has a docstring: functions, and classes
        with their methods after them.
    """
    source = inspect.getsource(module)
    tree = ast.parse(source)
    yield Part("", ast.get_docstring(tree) or "")
    lines = source.splitlines()
    for node in tree.body:
        if isinstance(node, Definition) and (docstring := ast.get_docstring(node)):
            yield Part(node.name, docstring, node, lines)
            for method in _methods(node):
                name = f"{node.name}.{method.name}"
                yield Part(name, ast.get_docstring(method) or "", method, lines)


def _methods(node: Definition) -> list[ast.FunctionDef]:
    """The methods of a class that have a docstring; a function has none."""
    return [
        inner
        for inner in node.body
        if isinstance(node, ast.ClassDef)
        and isinstance(inner, ast.FunctionDef)
        and ast.get_docstring(inner)
    ]


def code(node: Definition, lines: Sequence[str], *, methods: bool) -> str:
    r"""Take the code of a function or a class out of its source.

    Args:
        node: the function or class, which has a docstring.
        lines: the source that it lies in.
        methods: whether the methods that have a docstring are part of it.

    Returns:
        Its lines, without docstrings; a formula in a comment is written in one line.

    Examples:
        >>> text = 'def half(x):\n    "Halve it."\n\n    # $x^2 / x$\n    return x / 2'
        >>> print(code(ast.parse(text).body[0], text.splitlines(), methods=True))
        def half(x):
            # x² / x
            return x / 2
    """
    documented = _methods(node)
    hidden = [node.body[0], *(m.body[0] if methods else m for m in documented)]
    gone = {n for inner in hidden for n in range(_first(inner), inner.end_lineno or 0)}
    kept = range(_first(node), node.end_lineno or 0)
    # A docstring takes the blank line below it along.
    gone |= {n for n in kept if not lines[n].strip() and n - 1 in gone}
    text = textwrap.dedent("\n".join(lines[n] for n in kept if n not in gone))
    text = re.sub(
        r"^ *#.*$",
        lambda comment: re.sub(r"\$(.+?)\$", lambda tex: readable(tex[1]), comment[0]),
        text,
        flags=re.MULTILINE,
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _first(node: ast.stmt) -> int:
    """The line, from 0, in which a statement begins, decorators included."""
    decorators = getattr(node, "decorator_list", ())
    return min([node.lineno, *(d.lineno for d in decorators)]) - 1


def pieces(docstring: str, *, tables: bool = False) -> Iterator[str | Run]:
    r"""Cut a docstring where its examples stand.

    Args:
        docstring: the docstring.
        tables: whether arguments, results and errors are told, too.

    Yields:
        Examples, and between them the prose as it is written, but with words in the
        place of links.

    Examples:
        >>> one, example = pieces("One and one:\n\n>>> 1 + 1\n2\n")
        >>> one, example.example.source
        ('One and one:\n\n', '1 + 1\n')
    """
    text = docstring if tables else TABLES.sub("", docstring)
    text = EXAMPLES.sub(lambda match: textwrap.dedent(match[1]), text)
    before: list[doctest.Example] = []
    for piece in doctest.DocTestParser().parse(text):
        if isinstance(piece, doctest.Example):
            yield Run(piece, list(before))
            before.append(piece)
        elif piece.strip():
            yield LINK.sub(r"\1", DIV.sub("", piece))
