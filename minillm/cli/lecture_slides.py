r"""The slides of a lecture: as many steps on each as can be read from the last row.

A slide has one subject, and no more lines than fit. What belongs together stays
together: a sentence that ends with a colon and the example behind it, an example
without output and the one that uses it. The slides of one subject are about equally
full, so that no last sentence is left alone.

>>> from minillm.cli.lecture_script import lecture_steps
>>> shown = slides(lecture_steps("bpe"), Console(width=100, height=30))
>>> 30 <= len(shown) <= 60
True
>>> shown[1].title
'Turn text into integers, and back'

The course does not explain this module: it is [`minillm.cli.lecture_script`][], put on
pages for [`minillm.cli.lecture_show`][].
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

from minillm.cli.chapter_parts import Run
from minillm.cli.lecture_script import Answer, Figure, Prose, Section, Step

__all__ = ["Slide", "folded", "slides"]

# Lines on a slide to which another thought is added only up to here, and lines of one
# thought; more are a page to read, not one to listen to.
FULL, MOST = 6, 12
# Lines that are too few for a slide of their own.
ALONE = 3
# Columns of prose; a longer line is lost on the way back to its margin.
WIDE = 84
# Lines of a terminal that are not the slide: its title, its status, margins.
AROUND = 6


@dataclass
class Slide:
    """What is on the screen at once.

    Attributes:
        title: what it is about.
        steps: in their order, without sections.
        code: the source of the function that it is about, if it is about one.
    """

    title: str
    steps: list[Step] = field(default_factory=list)
    code: str = ""


def draw(step: Step, console: Console) -> RenderableType:
    """Draw a step, an example without its output, an answer without its text.

    Args:
        step: the step.
        console: for how wide a terminal.

    Returns:
        What `rich` can print.
    """
    width = min(console.width - 2, WIDE)
    match step:
        case Prose(text):
            return Padding(Markdown(text), (0, console.width - 2 - width, 1, 2))
        case Figure(path):
            return Padding(Text(f"▒ {path}   (f opens it)", "cyan"), (0, 0, 1, 2))
        case Answer(title):
            return Padding(Text(f"{title.rstrip('?')}?", "bold cyan"), (0, 0, 1, 2))
        case Run(example):
            first, *rest = example.source.rstrip("\n").split("\n")
            shown = "\n".join([f">>> {first}", *(f"... {line}" for line in rest)])
            return Padding(code(shown, console.width - 2, "pycon"), (0, 0, 0, 2))
        case Section(title):
            return Rule(Text(title, "bold"), align="left", style="cyan")


def code(text: str, width: int, language: str = "python") -> Syntax:
    """Draw source.

    Args:
        text: the source.
        width: how wide it may be.
        language: for the colours.

    Returns:
        What `rich` can print.
    """
    shown = folded(text, width)
    return Syntax(shown, language, theme="ansi_dark", background_color="default")


def folded(text: str, width: int) -> str:
    """Break lines that are too long, at a space if there is one, with a sign.

    Args:
        text: some lines.
        width: how many columns there are.

    Returns:
        The lines.

    Examples:
        >>> print(folded("one, two, three", 10))
        one, two,
          ↪ three
    """
    lines = []
    for line in text.expandtabs(4).splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        while cell_len(line) > width:
            end = len(line)
            while cell_len(line[:end]) > width:
                end -= 1
            space = line.rfind(" ", len(indent) + 3, end + 1)
            end = space if space > 0 else end
            lines.append(line[:end])
            line = f"{indent}↪ {line[end:].lstrip()}"
        lines.append(line)
    return "\n".join(lines)


def expected(step: Run) -> str:
    """What an example should print; of an error, its last line.

    Args:
        step: the example.

    Returns:
        The text, without the newline at its end.
    """
    message = step.example.exc_msg
    return (step.example.want if message is None else message).rstrip("\n")


def slides(steps: Iterable[Step], console: Console) -> list[Slide]:
    """Put the steps of a lecture on slides.

    Args:
        steps: the lecture.
        console: the terminal that they have to fit.

    Returns:
        The slides.

    Examples:
        >>> steps = [Section("One"), Prose("It is."), Section("Two"), Prose("So.")]
        >>> [slide.title for slide in slides(steps, Console(width=80))]
        ['One', 'Two']
    """
    most = max(4, min(MOST, console.height - AROUND))
    shown: list[Slide] = []
    for section, inside in _sections(steps):
        pages: list[Page] = []
        for thought in _thoughts(inside):
            units = [(unit, sum(_height(s, console) for s in unit)) for unit in thought]
            pages += _evenly(units, most)
        for page, _ in _joined(pages, min(FULL, most), most):
            shown.append(Slide(section.title, page, section.code))
    return shown


Unit = list[Step]
Page = tuple[list[Step], int]


def _sections(steps: Iterable[Step]) -> list[tuple[Section, list[Unit]]]:
    """Each section with its steps, those together that must not be separated."""
    found: list[tuple[Section, list[Unit]]] = []
    joined = False
    for step in steps:
        if isinstance(step, Section):
            found.append((step, []))
            joined = False
            continue
        units = found[-1][1]
        # An answer stands below its question.
        if joined or (isinstance(step, Answer) and units):
            units[-1].append(step)
        else:
            units.append([step])
        # It ends with a colon, or with no stop at all and a formula behind it.
        leads = isinstance(step, Prose) and bool(re.search(r"[:,\w]$", step.text))
        joined = leads or (isinstance(step, Run) and not step.example.want)
    return found


def _thoughts(units: Iterable[Unit]) -> list[list[Unit]]:
    """Paragraphs, each with the examples behind it."""
    found: list[list[Unit]] = []
    for unit in units:
        first = unit[0]
        if not found or (isinstance(first, Prose) and first.begins):
            found.append([])
        found[-1].append(unit)
    return found


def _height(step: Step, console: Console) -> int:
    """How many lines a step will have taken when all of it is shown."""
    lines = len(console.render_lines(draw(step, console)))
    if isinstance(step, Run) and (want := expected(step)):
        lines += len(folded(want, console.width - 4).splitlines()) + 1
    if isinstance(step, Answer):
        lines += len(console.render_lines(draw(Prose(step.text), console)))
    return lines


def _evenly(units: Sequence[tuple[Unit, int]], most: int) -> list[Page]:
    """As few pages as may be, filled alike: by the lowest limit that makes no more."""
    fewest = _pages(units, most)
    for limit in range(1, most):
        if len(pages := _pages(units, limit)) == len(fewest):
            return pages
    return fewest


def _pages(units: Sequence[tuple[Unit, int]], limit: int) -> list[Page]:
    """Fill page after page; what is too high for one has one of its own."""
    pages: list[Page] = []
    for unit, height in units:
        if pages and pages[-1][1] + height <= limit:
            steps, filled = pages.pop()
            pages.append((steps + unit, filled + height))
        else:
            pages.append((list(unit), height))
    return pages


def _joined(pages: Sequence[Page], full: int, most: int) -> list[Page]:
    """Fill pages that are not full, up to more where a few words would be alone."""
    joined: list[Page] = []
    for steps, height in pages:
        before, filled = joined[-1] if joined else ([], most)
        few = min(height, filled) <= ALONE
        if filled + height <= (most if few else full):
            joined[-1] = (before + steps, filled + height)
        else:
            joined.append((steps, height))
    return joined
