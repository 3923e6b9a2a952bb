r"""A chapter as a notebook: prose, examples and exercises as cells.

A notebook has no text of its own. [`minillm.cli.chapter_parts`][] cuts the chapter, as
for a lecture, and each piece becomes a cell:

- prose is Markdown, with formulas and figures;
- an example is code, and below it stands what it prints, until you run it;
- code of the package is imported, never copied: `show(merge)` displays the source of
  what is installed;
- an exercise is a function to be written, which is graded whenever its cell runs.

>>> [cell.kind for cell in chapter_cells("config")[:3]]
['markdown', 'code', 'markdown']

Each docstring starts afresh, as it does under `doctest`. So before its examples a cell
imports what they use, and a name from an earlier section cannot get in the way:

>>> cells = chapter_cells("rope")
>>> print(next(cell.text for cell in cells if cell.text.startswith("import")))
import torch
from minillm.rope import RotaryEmbedding
"""

import ast
import builtins
import doctest
import inspect
import re
import textwrap
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

from minillm.cli.chapter_parts import (
    Part,
    Run,
    chapters,
    code,
    find,
    parts,
    pieces,
)
from minillm.cli.notebook_prose import markdown

if TYPE_CHECKING:
    from minillm.exercises.exercise import Exercise

__all__ = ["Cell", "chapter_cells", "exercise_cells", "like_a_prompt", "notebook"]
__all__ += ["show"]

FIRST = """\
from minillm.cli.notebook_cells import like_a_prompt, show

like_a_prompt()  # cells print what the same lines print at Python's prompt"""
RULE = "---\n\n# Exercises\n\nWrite the functions, and run their cells: each is graded."


@dataclass
class Cell:
    """One cell.

    Attributes:
        kind: `"markdown"` or `"code"`.
        text: what it holds.
        example: the example of a docstring that it runs, if it does.
    """

    kind: str
    text: str
    example: doctest.Example | None = None


def chapter_cells(chapter: str) -> list[Cell]:
    """Turn a chapter into cells.

    Args:
        chapter: the name of a module, or the number of a chapter.

    Returns:
        The cells, without the exercises.

    Raises:
        ValueError: if there is no such chapter.
    """
    module = find(chapter)
    whole = module.__name__
    cells: list[Cell] = []
    for part in parts(module):
        imports = import_lines(module, part)
        begun = False
        if part.node:
            level = "##" if "." in part.name else "#"
            cells.append(Cell("markdown", f"{level}# `{part.name}`"))
        # Of a class the arguments are what it is; of a function they are looked up.
        tables = not part.node or isinstance(part.node, ast.ClassDef)
        for piece in pieces(part.docstring, tables=tables):
            if isinstance(piece, Run):
                if not begun and imports:
                    cells.append(Cell("code", "\n".join(imports)))
                begun = True
                source = re.sub(r" *# doctest:.*", "", piece.example.source).rstrip()
                cells.append(Cell("code", source, piece.example))
            elif cells:
                cells.append(Cell("markdown", markdown(piece)))
            else:
                title, _, rest = piece.partition("\n\n")
                cells.append(Cell("markdown", f"# {title.removesuffix('.')}"))
                cells += [Cell("code", FIRST), Cell("markdown", markdown(rest))]
        if part.node and "\n" in code(part.node, part.lines, methods=False):
            root = part.name.partition(".")[0]
            line = "" if begun else f"from {whole} import {root}\n"
            cells.append(Cell("code", f"{line}show({part.name})"))
    return [cell for cell in cells if cell.text]


def import_lines(module: ModuleType, part: Part) -> list[str]:
    """Find what the examples of a docstring need to be imported.

    Args:
        module: the chapter.
        part: what has the docstring.

    Returns:
        Lines of Python. The object itself is always among what they import.
    """
    names = [part.name.partition(".")[0]] if part.name else []
    bound = set(dir(builtins))
    for example in doctest.DocTestParser().get_examples(part.docstring):
        tree = ast.parse(example.source)
        names += [name for name in _loaded(tree) if name not in bound]
        bound |= _bound(tree)
    found = _imported(module)
    lines: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        # What the chapter itself offers is imported from it, wherever it is defined.
        public = name in getattr(module, "__all__", ()) or name not in found
        if public and name in vars(module):
            lines.setdefault(module.__name__, []).append(name)
        elif name in found:
            lines.setdefault(found[name][0], []).append(found[name][1])
    plain = sorted(f"import {alias}" for alias in lines.pop("", ()))
    return [*plain, *(_from(name, lines[name]) for name in sorted(lines))]


def _from(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(sorted(names))}"
    if len(line) <= 88:
        return line
    listed = textwrap.fill(", ".join(sorted(names)), 84)
    return f"from {module} import (\n{textwrap.indent(listed, '    ')},\n)"


def _loaded(tree: ast.AST) -> list[str]:
    """The names that some code reads, in the order of the tree."""
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return [node.id for node in names if isinstance(node.ctx, ast.Load)]


def _bound(tree: ast.AST) -> set[str]:
    """The names that some code makes, at any depth."""
    bound = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.alias(name=name, asname=alias):
                bound.add(alias or name.partition(".")[0])
    return bound


def _imported(module: ModuleType) -> dict[str, tuple[str, str]]:
    """What a module imports: by name, from where (nowhere for modules) and as what."""
    found = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            source = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                found[alias.asname or alias.name] = source, ast.unparse(alias)
    return found


def exercise_cells(chapter: str) -> list[Cell]:
    """Turn the exercises of a chapter into cells.

    Args:
        chapter: its name.

    Returns:
        For each exercise what it asks for, with hints that are folded, and its stub
        under the grader. Nothing if there are none.

    Examples:
        >>> cells = exercise_cells("emergence")
        >>> print(cells[0].text.splitlines()[2])
        # Exercises
    """
    from minillm.exercises import EXERCISES
    from minillm.exercises.exercise import chapter_text

    def home(exercise: "Exercise") -> str:
        # One file of stubs serves two chapters: the answer says which.
        where = exercise.answer[0].__module__.removeprefix("minillm.")
        return where if where in chapters().values() else exercise.chapter

    cells: list[Cell] = []
    ready: set[str] = set()
    for exercise in (e for e in EXERCISES.values() if home(e) == chapter):
        text = chapter_text(exercise.chapter)
        if exercise.chapter not in ready:
            ready.add(exercise.chapter)
            head = [n for n in ast.parse(text).body if not isinstance(n, ast.Expr)]
            is_stub = [isinstance(node, ast.FunctionDef) for node in head]
            lines = [ast.unparse(node) for node in head[: is_stub.index(True)]]
            lines.append("from minillm.exercises import check")
            cells += [Cell("markdown", RULE)] if not cells else []
            cells.append(Cell("code", "\n".join(lines)))
        hints = "\n".join(
            f"<details><summary>Hint {n}</summary>\n\n{hint}\n\n</details>"
            for n, hint in enumerate(exercise.hints, 1)
        )
        about = f"*{exercise.why}* About {exercise.minutes} minutes."
        cells.append(Cell("markdown", f"## {exercise.title}\n\n{about}\n\n{hints}"))
        begin, end = exercise.stub.lines
        stub = "\n".join(text.splitlines()[begin - 1 : end])
        cells.append(Cell("code", f'@check("{exercise.name}")\n{stub}'))
    return cells


def notebook(chapter: str) -> str:
    """Write a chapter as a notebook.

    Args:
        chapter: the name of a module, or the number of a chapter.

    Returns:
        The text of an `.ipynb` file, the same each time.

    Raises:
        ImportError: if the extra `notebook` is missing.
        ValueError: if there is no such chapter.
    """
    try:
        import nbformat
        from nbformat import v4
    except ImportError as error:
        raise ImportError(
            "a notebook is written by nbformat, the extra 'notebook': "
            "pip install nbformat"
        ) from error
    made = v4.new_notebook(
        metadata={
            "kernelspec": {
                "name": "python3", "display_name": "Python 3", "language": "python"
            },
            "language_info": {"name": "python"},
        }
    )  # fmt: skip
    name = find(chapter).__name__.removeprefix("minillm.")
    for number, cell in enumerate([*chapter_cells(chapter), *exercise_cells(name)]):
        new: Any = v4.new_code_cell if cell.kind == "code" else v4.new_markdown_cell
        entry = new(cell.text, id=f"cell-{number}")
        if cell.example:
            entry.outputs = _expected(cell.example)
            if cell.example.exc_msg is not None:
                # Running all cells goes on after an error that is meant.
                entry.metadata["tags"] = ["raises-exception"]
        made.cells.append(entry)
    nbformat.validate(made)
    return nbformat.writes(made)


def _expected(example: doctest.Example) -> list[Any]:
    """What an example prints, as the output of a cell."""
    from nbformat import v4

    if example.exc_msg is not None:
        name, _, value = example.exc_msg.strip().partition(": ")
        shown = [example.exc_msg.strip()]
        return [v4.new_output("error", ename=name, evalue=value, traceback=shown)]
    want = re.sub(r"^<BLANKLINE>$", "", example.want, flags=re.MULTILINE)
    return [v4.new_output("stream", name="stdout", text=want)] if want else []


# What a notebook calls


def like_a_prompt() -> None:
    """Let cells print what the same lines print at Python's prompt.

    That is the value of each expression, also inside a block, as `repr` writes it. The
    examples of the chapters are written for it. Outside a notebook nothing happens.
    """
    from IPython import get_ipython

    shell: Any = get_ipython()
    if shell:
        shell.ast_node_interactivity = "all"
        shell.display_formatter.formatters["text/plain"].pprint = False


def show(thing: Any) -> Any:
    """Display the code of a function or a class, without its docstring.

    Args:
        thing: the function, class, method or property.

    Returns:
        What a notebook displays.
    """
    from IPython.display import Code as Highlighted

    if isinstance(thing, property):
        thing = thing.fget
    elif isinstance(thing, cached_property):
        thing = thing.func
    return Highlighted(source(thing), language="python")


def source(thing: Any) -> str:
    r"""Take the code of a function or a class.

    Args:
        thing: the function or class.

    Returns:
        Its source, without docstring, and without methods that have one.

    Examples:
        >>> from minillm.bpe import CharTokenizer
        >>> print(source(CharTokenizer.decode))
        def decode(self, ids: Iterable[int]) -> str:
            return "".join([chr(id_) for id_ in ids])
    """
    text = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    return code(node, text.splitlines(), methods=False)
