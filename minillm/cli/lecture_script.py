r"""The script of a lecture: a chapter, cut into prose, examples and figures.

`minillm lecture bpe` takes the module itself as its script. Every docstring is cut
where an example stands, and its prose is written as Markdown for a terminal. The
standard library's `doctest` finds the examples; what is left to do stands below.

>>> steps = lecture_steps("bpe")
>>> steps[0]
Section(title='Turn text into integers, and back', code='')
>>> steps[2]
Prose(text='Which integers should stand for a text?')

[`minillm.cli.lecture_slides`][] puts the steps on slides, and
[`minillm.cli.lecture_show`][] gives the lecture.
"""

import ast
import doctest
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

import minillm
from minillm.cli.lecture_prose import plain, sentences
from minillm.files.reading import IMAGES

__all__ = [
    "Answer",
    "Figure",
    "Prose",
    "Run",
    "Section",
    "chapters",
    "find",
    "lecture_steps",
]

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass
class Section:
    """What the next slides are about: a part of the lecture, a function, a class.

    Attributes:
        title: as it is shown.
        code: the source of a function or class without its docstrings; of the lecture
            itself, nothing.
    """

    title: str
    code: str = ""


@dataclass
class Prose:
    """A sentence, list, table or formula, in Markdown.

    Attributes:
        text: the Markdown.
        begins: whether a paragraph begins here.
    """

    text: str
    begins: bool = field(default=True, repr=False, compare=False)


@dataclass
class Figure:
    """A picture, by its path in the repository."""

    path: str


@dataclass
class Answer:
    """What a page folds away: a text to be shown when the audience has thought.

    Attributes:
        title: what it is.
        text: in Markdown.
    """

    title: str
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


Step = Section | Prose | Figure | Answer | Run
# The sections of a docstring that are looked up, up to the next line at its margin.
TABLES = re.compile(
    r"^(?:Args|Returns|Raises|Yields|Attributes):\n(?:[ ]+.*(?:\n|\Z)|\n)*",
    re.MULTILINE,
)
# Parts of a page that lead to other pages.
SIGNPOSTS = re.compile(r"\*\*(?:Before this|Next|Deeper|Used by)\b")
# A block that keeps its blank lines: something folded or fenced.
FOLDED = re.compile(r'\?\?\? \w+ "(.*?)"\n((?:    .*(?:\n|\Z)|\n)*)')
BLOCK = re.compile(
    r'(?ms)^```.*?^```$|^\?\?\? \w+ ".*?"\n(?:    [^\n]*(?:\n|\Z)|\n)*'
    r"|(?:^(?! *\n|```|\?\?\? )[^\n]+(?:\n|\Z))+"
)
SNIPPET = re.compile(r'--8<-- "(.*?)"')


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


def lecture_steps(chapter: str) -> list[Step]:
    """Cut a module into the steps of a lecture.

    Args:
        chapter: the name of a module, or the number of a chapter.

    Returns:
        The steps. What has no docstring is left to the page, and so is a function with
        one sentence and no example.

    Raises:
        ValueError: if there is no such chapter.
    """
    module = find(chapter)
    source = inspect.getsource(module)
    tree = ast.parse(source)
    title, _, text = (ast.get_docstring(tree) or module.__name__).partition("\n")
    steps: list[Step] = [Section(title.rstrip("."))]
    steps += told(text)
    lines = source.splitlines()
    for node in tree.body:
        if isinstance(node, Definition) and ast.get_docstring(node):
            steps += definition(node, lines, "")
    return steps


def definition(node: Definition, lines: list[str], owner: str) -> Iterator[Step]:
    """Cut a function or a class into steps, methods after their class.

    Args:
        node: the definition.
        lines: the source of its module.
        owner: the class of a method, with a dot.

    Yields:
        A section, its prose and examples.
    """
    methods = [
        inner
        for inner in node.body
        if isinstance(node, ast.ClassDef)
        and isinstance(inner, ast.FunctionDef)
        and ast.get_docstring(inner)
    ]
    documented = [node, *methods]
    hidden = [inner.body[0] for inner in documented]
    gone = {n for inner in hidden for n in range(first(inner), inner.end_lineno or 0)}
    kept = range(first(node), node.end_lineno or 0)
    code = textwrap.dedent("\n".join(lines[n] for n in kept if n not in gone))
    steps = list(told(ast.get_docstring(node) or ""))
    if len(steps) > 1:
        code = re.sub(r"\n{3,}", "\n\n", code).strip()
        yield Section(owner + node.name, code)
        yield from steps
    for method in methods:
        yield from definition(method, lines, f"{owner}{node.name}.")


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


def told(docstring: str) -> Iterator[Step]:
    r"""Cut a docstring where its examples stand, and its prose into blocks.

    Args:
        docstring: the docstring. Its tables of arguments, results and errors are left
            to the page, and so are its references and what leads to other pages.

    Yields:
        Sections, prose, figures, answers and examples.

    Examples:
        >>> [type(step).__name__ for step in told("One and one:\n\n>>> 1 + 1\n2")]
        ['Prose', 'Run']
        >>> list(told("# Why\n\nSince.\n\nArgs:\n    x: a size."))
        [Section(title='Why', code=''), Prose(text='Since.')]
    """
    before: list[doctest.Example] = []
    for part in doctest.DocTestParser().parse(docstring):
        if isinstance(part, doctest.Example):
            yield Run(part, list(before))
            before.append(part)
            continue
        for block in BLOCK.findall(textwrap.dedent(TABLES.sub("", plain(part)))):
            if block.startswith("# References"):
                return
            yield from _block(block.strip("\n"))


def _block(block: str) -> Iterator[Step]:
    """The steps in one block of prose: one or none."""
    if match := FOLDED.fullmatch(block):
        yield Answer(match[1], textwrap.dedent(match[2]).strip())
    elif match := SNIPPET.fullmatch(block.strip()):
        if match[1].endswith(".svg"):
            yield Figure(match[1])
        elif (path := IMAGES.parent / match[1]).is_file():
            yield Prose(path.read_text(encoding="utf-8").strip())
    elif block.startswith("# "):
        yield Section(block.removeprefix("# "))
    elif re.match(r"[|`]{3}|\||[-*] |\d+\. | ", block):  # a table, list or formula
        yield Prose(block)
    elif not SIGNPOSTS.match(block):
        for n, sentence in enumerate(sentences(block)):
            yield Prose(sentence, begins=n == 0)
