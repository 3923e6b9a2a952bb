r"""A Griffe extension that turns the modules of the course into literate pages.

mkdocstrings shows what documentation needs: a signature, a docstring, the source folded
away. A course needs more, and this extension prepares it:

- A bare `>>>` block in running prose is fenced, so that it is rendered as a session.
- The source of each object is split into rows: a run of comments on lines of their own
  is prose, and below it stands the code. The docstring, which is on the page already,
  is dropped; so are comments that speak to tools, such as `# noqa`.
- What has no docstring (a constant, a helper, a method such as `forward`) is not lost.
  It is shown in its place, before the next object that has one or inside its class.
- The page learns its chapter's number (from the syllabus in the package's docstring),
  how long it takes to read, and which imports its examples need.

The templates beside this file render what is stored in `obj.extra["literate"]`. Nothing
here knows MkDocs; any renderer that reads mkdocstrings' handler for Python will do.
"""

from __future__ import annotations

import ast
import builtins
import doctest
import inspect
import io
import re
import tokenize
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import griffe
from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Comments for tools, not for readers. What follows after another # is kept.
DIRECTIVE = re.compile(
    r"#\s*(?:noqa|type:|fmt:|mypy:|ruff:|pragma|pylint:|pyright:|isort:|!)[^#]*"
)
# Names of a module that are bookkeeping.
HIDDEN = {"__all__", "__version__"}
# Linking these in every signature would help nobody.
TOO_COMMON = re.compile(r"(typing|jaxtyping|collections\.abc|torch\.(nn$|Tensor$))")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass
class Row:
    """Prose, and the code that it speaks about.

    Attributes:
        prose: Markdown, may be empty.
        code: source, may be empty; indented as in its object.
        indent: the columns by which the prose was indented.
        names: the names in the code that stand for documented objects, and their paths.
    """

    prose: str = ""
    code: str = ""
    indent: int = 0
    names: dict[str, str] = field(default_factory=dict)

    def link(self, html: str) -> Markup:
        """Turn names in highlighted code into optional cross-references.

        Args:
            html: the code, as Pygments renders it.

        Returns:
            The same with links. A name after a dot belongs to something else, and one
            before an equals sign is a keyword: both are left alone.
        """

        def reference(match: re.Match[str]) -> str:
            name = match[2]
            if name not in self.names:
                return match[0]
            return (
                f"{match[1]}<autoref optional identifier="
                f'"{escape(self.names[name])}">{name}</autoref></span>'
            )

        pattern = r'(?<!<span class="o">\.</span>)(<span class="n[cdfe]?">)(\w+)</span>'
        return Markup(re.sub(pattern + r'(?!<span class="o">=<)', reference, html))


def fence(text: str) -> str:
    r"""Put a fence around each bare doctest of a Markdown text.

    Args:
        text: Markdown; what is fenced already is left alone.

    Returns:
        The text in which each `>>>` block, up to the next blank line, is fenced.

    Examples:
        >>> fence("One and one:\n\n>>> 1 + 1  # doctest: +SKIP\n2").splitlines()[2:]
        ['```pycon', '>>> 1 + 1', '2', '```']
    """
    lines: list[str] = []
    fenced, margin = False, None
    for line in [*text.split("\n"), ""]:
        bare = line.lstrip()
        if margin is None and bare.startswith("```"):
            fenced = not fenced
        if margin is None and not fenced and bare.startswith(">>>"):
            margin = line[: len(line) - len(bare)]
            lines.append(margin + "```pycon")
        if margin is not None and not bare:
            lines.append(margin + "```")
            margin = None
        if margin is not None:
            line = re.sub(r"\s*#\s*doctest:.*$|^\s*<BLANKLINE>$", "", line)
        lines.append(line)
    return "\n".join(lines[:-1])


class Source:
    """One module's source, ready to be cut into rows.

    Args:
        text: the source.
    """

    def __init__(self, text: str) -> None:
        self.tree = ast.parse(text)
        # Line 1 is lines[1], as in the tree.
        self.raw = ["", *text.split("\n")]
        self.lines = list(self.raw)
        self.prose: dict[int, str] = {}  # comments on lines of their own
        self.strings: dict[int, ast.Expr] = {}  # strings that document an attribute
        self.dropped: set[int] = set()  # what is on the page already
        depth = 0
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.OP:
                depth += (token.string in "([{") - (token.string in ")]}")
            if token.type != tokenize.COMMENT:
                continue
            number, column = token.start
            before = self.lines[number][:column]
            kept = DIRECTIVE.sub("", token.string).rstrip()
            if before.strip() or depth:
                self.lines[number] = (before + kept).rstrip()
            elif kept or not DIRECTIVE.match(token.string):
                self.prose[number] = kept[1:].removeprefix(" ")
            if not before.strip() and DIRECTIVE.match(token.string) and not kept:
                self.lines[number] = ""

    def lead(self, first: int) -> int:
        """Climb from a definition over the comments that stand directly above it.

        Args:
            first: the line of the definition.

        Returns:
            The first line of that run of comments.
        """
        while first - 1 in self.prose:
            first -= 1
        return first

    def drop(self, lines: range) -> None:
        """Leave lines out of all rows, and the blank lines below them.

        Args:
            lines: the lines.
        """
        self.dropped.update(lines)
        below = lines.stop
        while below < len(self.lines) and not self.raw[below].strip():
            self.dropped.add(below)
            below += 1

    def rows(
        self, first: int, last: int, *, names: dict[str, str], indent: int = 0
    ) -> list[Row]:
        """Cut some lines into rows.

        Args:
            first: the first line.
            last: the last line.
            names: the names that may become links.
            indent: how far the whole is indented in its file.

        Returns:
            The rows, without empty ones.
        """
        rows = [Row()]
        number = first - 1
        while number < last:
            number += 1
            line = self.lines[number]
            if number in self.dropped:
                continue
            if number in self.prose or number in self.strings:
                if rows[-1].code.strip():
                    rows.append(Row())
                if number in self.strings:
                    node = self.strings[number]
                    text = fence(inspect.cleandoc(ast.literal_eval(node.value)))
                    number = node.end_lineno or number
                else:
                    text = self.prose[number]
                if not rows[-1].prose:
                    rows[-1].indent = len(line) - len(line.lstrip()) - indent
                # Between two runs of comments lies a blank line: two paragraphs.
                rows[-1].prose += rows[-1].code + text + "\n"
                rows[-1].code = ""
            else:
                rows[-1].code += line[indent:] + "\n"
        for row in rows:
            # Where something was dropped, blank lines meet; one is enough.
            row.code = re.sub(r"\n{3,}", "\n\n", row.code).strip("\n")
            row.prose = row.prose.strip("\n")
            row.names = names
        return [row for row in rows if row.prose or row.code]


def start(node: ast.stmt) -> int:
    """Find the line on which a statement begins, decorators included.

    Args:
        node: the statement.

    Returns:
        Its line.
    """
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])


def span(node: ast.stmt) -> range:
    """Give the lines of a statement.

    Args:
        node: the statement.

    Returns:
        Its lines, decorators included.
    """
    return range(start(node), (node.end_lineno or node.lineno) + 1)


def docstring_node(node: ast.AST) -> ast.Expr | None:
    """Find the statement that is a docstring.

    Args:
        node: a module, class or function.

    Returns:
        The statement, if there is one.
    """
    match getattr(node, "body", None):
        case [ast.Expr(value=ast.Constant(value=str())) as first, *_]:
            return first
    return None


def is_documented(node: ast.stmt) -> bool:
    """Tell whether a definition gets a heading of its own.

    Args:
        node: any statement.

    Returns:
        Whether it is a function with a docstring, or a class with one somewhere in it.
    """
    if isinstance(node, ast.ClassDef) and any(map(is_documented, node.body)):
        return True
    return isinstance(node, Definition) and docstring_node(node) is not None


def attribute_strings(node: ast.AST) -> Iterator[ast.Expr]:
    """Find the strings that document the assignment above them.

    Args:
        node: a class or function.

    Yields:
        Their statements.
    """
    for inner in ast.walk(node):
        body = getattr(inner, "body", None)
        for above, below in pairwise(body) if isinstance(body, list) else ():
            match above, below:
                case (
                    ast.Assign() | ast.AnnAssign(),
                    ast.Expr(value=ast.Constant(value=str())),
                ):
                    yield below


def bound_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Collect the names that some code binds.

    Args:
        nodes: its statements.

    Returns:
        What it assigns, imports, defines or takes as an argument.
    """
    bound = set()
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.alias():
                bound.add((node.asname or node.name).partition(".")[0])
    return bound


def free_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Collect the names that some code reads and does not bind.

    Args:
        nodes: its statements.

    Returns:
        The names; one that is bound anywhere in the code is left out, so that a local
        variable never links to the function whose name it shares.
    """
    read, bound = set(), set()
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                read.add(name)
            case ast.Name(id=name) | ast.arg(arg=name):
                bound.add(name)
            case ast.alias():
                read.add(node.asname or node.name)
    return read - bound


class LiterateExtension(griffe.Extension):
    """Store rows in `extra["literate"]` of each object of a package."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Prepare every module, once the whole package is read.

        Args:
            pkg: the package.
            **kwargs: of no interest.
        """
        syllabus = pkg.docstring.value if pkg.docstring else ""
        numbers = chapter_numbers(syllabus, pkg.name)
        for module in modules(pkg):
            prepare(module)
            module.extra["literate"]["number"] = numbers.get(module.path, 0)


def modules(module: griffe.Module) -> Iterator[griffe.Module]:
    """Walk through a package.

    Args:
        module: the package, or any module of it.

    Yields:
        The module and those below it.
    """
    yield module
    for member in list(module.members.values()):
        if isinstance(member, griffe.Module):
            yield from modules(member)


def prepare(module: griffe.Module) -> None:
    """Prepare one module, from top to bottom.

    Args:
        module: the module.
    """
    source = Source("\n".join(module.lines))
    paths = import_paths(module)
    fence_docstring(module)
    module.extra["literate"] |= {
        "minutes": minutes(source),
        "code": code_lines(source),
        "imports": imports(source, module.path, exports(module)),
        "before": before(module),
    }
    docstring = docstring_node(source.tree)
    told = docstring.end_lineno or 0 if docstring else 0  # the last line on the page
    loose: list[ast.stmt] = []
    obj: griffe.Object | None = None
    for node in source.tree.body:
        name = defined_name(node)
        member = module.members.get(name)
        told_already = obj is not None and obj.is_attribute and is_string(node)
        if node is docstring or name in HIDDEN or told_already:
            source.drop(span(node))
        elif isinstance(member, griffe.Object) and member.lineno in span(node):
            first = source.lead(start(node))
            if member.is_attribute and not member.docstring and name in exports(module):
                text = "\n".join(source.prose[n] for n in range(first, node.lineno))
                member.docstring = griffe.Docstring(text, parent=member)
                source.drop(range(first, node.lineno))
            if not (member.docstring or is_documented(node)):
                loose.append(node)
                continue
            lead = source.rows(told + 1, first - 1, names=names(loose, paths))
            if lead and not lead[-1].code:
                # A comment that stands alone speaks about all that follows.
                member.extra["literate"]["intro"] = lead.pop().prose
            member.extra["literate"]["lead"] = lead
            prepare_object(member, node, source, paths)
            loose, told, obj = [], span(node)[-1], member
            continue
        loose.append(node)
    if obj:
        last = len(source.lines) - 1
        tail = source.rows(told + 1, last, names=names(loose, paths))
        obj.extra["literate"]["tail"] = tail


def chapter_numbers(syllabus: str, package: str) -> dict[str, int]:
    """Read the numbers of the chapters.

    Args:
        syllabus: a numbered list of links, ``1. [`minillm.bpe`][]: ...``.
        package: the name of the package.

    Returns:
        Each chapter's path with its number.
    """
    listed = rf"^(\d+)\. \[`({package}\.\w+)`\]\[\]"
    found = re.findall(listed, syllabus, re.MULTILINE)
    return {path: int(number) for number, path in found}


# Sections of a docstring that are reference: folded on the page, not read in a lecture.
REFERENCE = re.compile(
    r"^(Args|Attributes|Raises|Returns|Yields|Receives|Warns):\n(?:[ ]+.*\n|\n)*",
    re.MULTILINE,
)


def minutes(source: Source) -> int:
    """Estimate how long the lecture of a module takes: its prose and its examples.

    Args:
        source: the module.

    Returns:
        Minutes: 200 words of prose in each, or twelve lines of an example, which is
        slow, since examples are read to be understood. Arguments, errors and the code
        itself are left out: they are looked up.
    """
    told = [
        REFERENCE.sub("", inspect.cleandoc(ast.literal_eval(node.value)) + "\n")
        for node in [
            *filter(None, docstrings(source.tree)),
            *attribute_strings(source.tree),
        ]
    ]
    lines = "\n".join(told).split("\n")
    example = re.compile(r"\s*(>>>|\.\.\.)")
    words = sum(len(line.split()) for line in lines if not example.match(line))
    words += sum(len(text.split()) for text in source.prose.values())
    examples = sum(1 for line in lines if example.match(line))
    return max(1, round(words / 200 + examples / 12))


def code_lines(source: Source) -> int:
    """Count the lines of code that stand beside the lecture of a module.

    Args:
        source: the module.

    Returns:
        Lines, without comments on lines of their own, docstrings and empty lines.
    """
    told: set[int] = set(source.prose)
    for node in filter(None, docstrings(source.tree)):
        told.update(span(node))
    lines = enumerate(source.raw)
    return sum(1 for number, line in lines if line.strip() and number not in told)


def docstrings(tree: ast.Module) -> Iterator[ast.Expr | None]:
    """Walk through the docstrings of a module, its own first.

    Args:
        tree: the module.

    Yields:
        The statement of each, or `None` where something has none.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | Definition):
            yield docstring_node(node)


def imports(source: Source, name: str, exported: set[str]) -> list[str]:
    """Find the imports that make the examples of a module run.

    Args:
        source: the module.
        name: how it is imported.
        exported: what `from … import *` brings.

    Returns:
        Lines of Python: the module's names, and what its examples use beyond them of
        what the module itself imports. Empty if there are no examples.
    """
    used: set[str] = set()
    parser = doctest.DocTestParser()
    for docstring in filter(None, docstrings(source.tree)):
        bound = {*dir(builtins), *exported}
        examples = parser.get_examples(ast.literal_eval(docstring.value))
        for tree in (ast.parse(example.source) for example in examples):
            bound |= bound_names([tree])
            used |= free_names([tree]) - bound
        used |= {""} if examples else set()
    if not used:
        return []
    plain: set[str] = set()
    chosen: dict[str, set[str]] = {}
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for alias in node.names:
            if (alias.asname or alias.name) not in used:
                continue
            if isinstance(node, ast.Import):
                plain.add(ast.unparse(ast.Import([alias])))
            else:
                chosen.setdefault(node.module or "", set()).add(ast.unparse(alias))
    return [
        *sorted(plain),
        f"from {name} import *",
        *(
            f"from {module} import {', '.join(sorted(chosen[module]))}"
            for module in sorted(chosen)
        ),
    ]


def before(module: griffe.Module) -> str:
    """Take what comes before a chapter out of its docstring: it stands at the top.

    What comes next is taken out, too: the foot of the page says it, in the order of the
    navigation.

    Args:
        module: the module.

    Returns:
        Markdown; empty where the docstring does not say, or says more than a sentence,
        which is then better read in its place.
    """
    for section in module.docstring.parsed if module.docstring else ():
        if section.kind is griffe.DocstringSectionKind.text:
            # What follows in the same paragraph stays a paragraph, also below a table.
            section.value = re.sub(
                r"(\n\n)?\s*\*\*Next:\*\*\s+(?:(?!\.\s|\n\n)[\s\S])*\.(?=\s|$)",
                lambda match: match[1] or "",
                section.value,
            )
            found = re.search(
                r"\*\*Before this:\*\*\s+((?:(?!\.\s|\n\n).)*\.)\s*(?=\*\*|\n\n|$)",
                section.value,
                re.DOTALL,
            )
            if found:
                section.value = section.value.replace(found[0], "", 1)
                return found[1]
    return ""


def prepare_object(
    obj: griffe.Object, node: ast.stmt, source: Source, paths: dict[str, str]
) -> None:
    """Prepare a function, class or constant, and what is in it.

    Args:
        obj: the object.
        node: its statement.
        source: its module.
        paths: where the names of the module lead.
    """
    fence_docstring(obj)
    lines = source.raw[start(node) : span(node)[-1] + 1]
    docstring = docstring_node(node)
    if docstring and docstring.lineno > node.lineno:
        source.drop(span(docstring))
    for string in attribute_strings(node):
        source.strings[string.lineno] = string
    for inner in node.body if isinstance(node, ast.ClassDef) else ():
        member = obj.members.get(defined_name(inner))
        if not isinstance(member, griffe.Object) or member.lineno not in span(inner):
            continue
        inner_docstring = docstring_node(inner)
        if not isinstance(inner, Definition):
            # A field is told in its class: no heading of its own.
            member.docstring = None
        elif inner.name == "__init__" and inner_docstring:
            # mkdocstrings has put it into the docstring of the class.
            source.drop(span(inner_docstring))
        elif inner.name == "__post_init__" and inner_docstring:
            source.strings[inner_docstring.lineno] = inner_docstring
            member.docstring = None
        elif is_documented(inner):
            prepare_object(member, inner, source, paths)
            source.drop(range(source.lead(start(inner)), span(inner)[-1] + 1))
    first = source.lead(start(node))
    rows = source.rows(
        first, span(node)[-1], names=names([node], paths), indent=node.col_offset
    )
    if docstring and isinstance(node, Definition) and len(node.body) == 1:
        # A body that is only a docstring still has to be a body.
        rows[-1].code += "\n    ..."
    obj.extra["literate"] |= {"rows": rows, "source": dedent("\n".join(lines))}
    if isinstance(obj, griffe.Function):
        obj.extra["literate"]["call"] = call(obj)


def call(function: griffe.Function) -> str:
    """Write how a function is called, for its heading.

    Args:
        function: the function.

    Returns:
        The names of its parameters. Of many, those that may be left out are dots.
    """
    parameters = list(function.parameters)
    if parameters and parameters[0].name in {"self", "cls"}:
        del parameters[0]
    if len(parameters) > 4:
        parameters = [parameter for parameter in parameters if parameter.required]
    stars = {"var_positional": "*", "var_keyword": "**"}
    shown = [stars.get(p.kind.name, "") + p.name for p in parameters]
    left_out = len(function.parameters) - len(parameters) > 1
    return f"({', '.join([*shown, '…'] if left_out else shown)})"


def fence_docstring(obj: griffe.Object) -> None:
    """Fence the bare doctests of an object's docstring, outside its `Examples:`.

    Args:
        obj: the object.
    """
    for section in obj.docstring.parsed if obj.docstring else ():
        if section.kind is griffe.DocstringSectionKind.text:
            section.value = fence(section.value)


def import_paths(module: griffe.Module) -> dict[str, str]:
    """Find where the names of a module lead, and forget what it merely imports.

    Args:
        module: the module.

    Returns:
        Each name with the path of what it stands for.
    """
    paths = {}
    for name, member in list(module.members.items()):
        if not isinstance(member, griffe.Alias):
            paths[name] = member.path
            continue
        paths[name] = member.target_path
        # An imported object is told where it is defined. Resolving the alias first
        # lets references by the shorter path find their way there.
        with suppress(griffe.GriffeError):
            member.resolve_target()
        del module.members[name]
    return paths


def names(nodes: Iterable[ast.AST], paths: dict[str, str]) -> dict[str, str]:
    """Choose the names in some code that may become links.

    Args:
        nodes: the statements.
        paths: where the names of the module lead.

    Returns:
        A part of `paths`.
    """
    free = free_names(nodes)
    return {
        name: path
        for name, path in paths.items()
        if name in free and "." in path and not TOO_COMMON.match(path)
    }


def exports(module: griffe.Module) -> set[str]:
    """Read the public names of a module.

    Args:
        module: the module.

    Returns:
        What `__all__` lists.
    """
    return {str(name) for name in module.exports or ()}


def is_string(node: ast.stmt) -> bool:
    """Tell whether a statement is nothing but a string.

    Args:
        node: the statement.

    Returns:
        Whether it is.
    """
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def defined_name(node: ast.stmt) -> str:
    """Find the one name that a statement defines.

    Args:
        node: the statement.

    Returns:
        The name of a function, class, constant or field; empty for anything else.
    """
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return node.name
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return ""
