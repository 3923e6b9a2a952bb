r"""The script of a lecture: a chapter, cut into prose, examples and figures.

`minillm lecture bpe` takes the module itself as its script.
[`minillm.cli.chapter_parts`][] cuts every docstring where an example stands. Here its
prose is cut, into what is said in one breath, as Markdown for a terminal:

>>> steps = lecture_steps("bpe")
>>> steps[0]
Section(title='Turn text into integers, and back', code='')
>>> steps[2]
Prose(text='Which integers should stand for a text?')

[`minillm.cli.lecture_slides`][] puts the steps on slides, and
[`minillm.cli.lecture_show`][] gives the lecture.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

from minillm.cli.chapter_parts import Run, code, find, parts, pieces
from minillm.cli.lecture_prose import plain, sentences
from minillm.files.reading import IMAGES

__all__ = ["Answer", "Figure", "Prose", "Section", "lecture_steps", "told"]


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


Step = Section | Prose | Figure | Answer | Run
# Parts of a page that lead to other pages.
SIGNPOSTS = re.compile(r"\*\*(?:Before this|Next|Deeper|Used by)\b")
# A block that keeps its blank lines: something folded or fenced.
FOLDED = re.compile(r'\?\?\? \w+ "(.*?)"\n((?:    .*(?:\n|\Z)|\n)*)')
BLOCK = re.compile(
    r'(?ms)^```.*?^```$|^\?\?\? \w+ ".*?"\n(?:    [^\n]*(?:\n|\Z)|\n)*'
    r"|(?:^(?! *\n|```|\?\?\? )[^\n]+(?:\n|\Z))+"
)
SNIPPET = re.compile(r'--8<-- "(.*?)"')


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
    steps: list[Step] = []
    for part in parts(module):
        if part.node is None:
            title, _, text = (part.docstring or module.__name__).partition("\n")
            steps += [Section(title.rstrip(".")), *told(text)]
        elif len(inside := list(told(part.docstring))) > 1:
            source = code(part.node, part.lines, methods=True)
            steps += [Section(part.name, source), *inside]
    return steps


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
    for piece in pieces(docstring):
        if isinstance(piece, Run):
            yield piece
            continue
        for block in BLOCK.findall(plain(piece)):
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
