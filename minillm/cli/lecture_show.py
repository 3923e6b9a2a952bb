r"""A chapter as a lecture: its prose on the screen, its examples run while you watch.

The steps come from [`minillm.cli.lecture_script`][]. The prose of a step is rendered,
an example is shown, and when the speaker presses Enter it runs, and its output appears
beside the expected one. The standard library's `doctest` runs the examples, the library
`rich` draws.
"""

import doctest
import sys
from types import TracebackType
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.markdown import Markdown
from rich.padding import Padding
from rich.rule import Rule
from rich.segment import ControlType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

try:
    import termios
except ImportError:  # on Windows: the status lines stay
    termios = None  # type: ignore[assignment]

from minillm.cli.lecture_script import Code, Prose, Run, Section, find, lecture_steps

__all__ = ["Lecture"]


class _Recorder(doctest.DocTestRunner):
    """Runs one example at a time and keeps what it printed."""

    got, right = "", False

    def report_start(self, *_: Any) -> None:
        pass

    def report_success(self, out: Any, test: Any, example: Any, got: str) -> None:
        # Of a traceback, the last part: what the docstring has to say as well.
        if example.exc_msg is not None:
            lines = got.splitlines()
            got = "\n".join(x for x in lines if not x.startswith((" ", "Traceback")))
        self.got, self.right = got, True

    def report_failure(self, out: Any, test: Any, example: Any, got: str) -> None:
        self.got, self.right = got, False

    def report_unexpected_exception(
        self,
        out: Any,
        test: Any,
        example: Any,
        exc_info: tuple[type[BaseException], BaseException, TracebackType],
    ) -> None:
        self.got, self.right = f"{exc_info[0].__name__}: {exc_info[1]}", False


class Lecture:
    """The steps of a chapter, where the speaker is, and the state of the examples.

    Args:
        chapter: the name of a module, or the number of a chapter.
        console: where to write.

    Examples:
        >>> lecture = Lecture("config", Console(quiet=True))
        >>> lecture.all()  # how many examples printed something else
        0
    """

    def __init__(self, chapter: str, console: Console) -> None:
        self.steps = lecture_steps(chapter)
        self.module = find(chapter)
        self.console = console
        self.ran: list[doctest.Example] = []
        self.names: dict[str, Any] = {}

    @property
    def sections(self) -> list[int]:
        """The steps at which a section begins."""
        return [i for i, step in enumerate(self.steps) if isinstance(step, Section)]

    def run(self, step: Run) -> tuple[str, bool]:
        """Run an example in the state that its docstring has reached.

        Args:
            step: the example. After a step back, or a jump, those before it in its
                docstring run again first, from a clean state, as `doctest` would.

        Returns:
            What it printed, and whether that is what stands in the docstring.
        """
        if self.ran != step.before:
            self.ran, self.names = [], vars(self.module).copy()
            for example in step.before:
                self._run(example)
        return self._run(step.example)

    def _run(self, example: doctest.Example) -> tuple[str, bool]:
        if not self.ran:
            self.names = vars(self.module).copy()
        recorder = _Recorder(verbose=False)
        test = doctest.DocTest(
            [example], self.names, self.module.__name__, None, None, None
        )
        test.globs = self.names  # not a copy: what an example defines stays
        recorder.run(test, out=lambda _: None, clear_globs=False)
        self.ran = [*self.ran, example]
        return recorder.got, recorder.right

    def show(self, at: int) -> None:
        """Write a step on the screen; an example without its output.

        Args:
            at: the number of the step.
        """
        match self.steps[at]:
            case Section(title):
                number = self.sections.index(at) + 1
                self.console.print(Rule(f"{number}. {title}", align="left"))
            case Prose(text):
                self.console.print(Padding(Markdown(text), (0, 0, 1, 0)))
            case Code(text):
                self.console.print(self._code(text), "")
            case Run(example):
                first, *rest = example.source.rstrip("\n").split("\n")
                shown = "\n".join([f">>> {first}", *(f"... {line}" for line in rest)])
                self.console.print(self._code(shown, "pycon"))

    def show_output(self, step: Run, got: str, right: bool) -> None:
        """Write what an example printed beside what it should print.

        Args:
            step: the example.
            got: what it printed.
            right: whether that is right.
        """
        want = step.example.want
        if step.example.exc_msg is not None:
            want = step.example.exc_msg
        if want or got:
            mark = Text("✓", "bold green") if right else Text("✗", "bold red")
            self.console.print(self._side_by_side(got.rstrip(), want.rstrip(), mark))
        self.console.print()

    def _side_by_side(self, got: str, want: str, mark: Text) -> RenderableType:
        half = (self.console.width - 8) // 2
        widest = max(map(cell_len, [*got.splitlines(), *want.splitlines()]), default=0)
        parts = [Text(self._folded(t, self.console.width - 4)) for t in (got, want)]
        if widest > half:
            heads = [Text("printed", "dim"), Text("expected", "dim")]
            return Group(mark, heads[0], parts[0], heads[1], parts[1])
        table = Table(
            box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim"
        )
        table.add_column("", width=1)
        table.add_column("printed", width=half)
        table.add_column("expected", width=half)
        table.add_row(mark, *parts)
        return table

    def _code(self, text: str, language: str = "python") -> Syntax:
        folded = self._folded(text, self.console.width)
        return Syntax(folded, language, theme="ansi_dark", background_color="default")

    @staticmethod
    def _folded(text: str, width: int) -> str:
        """Break lines that are too long, at a space if there is one, with a sign."""
        lines = []
        for line in text.expandtabs(4).splitlines():
            indent = " " * (len(line) - len(line.lstrip()) + 2)
            while cell_len(line) > width:
                end = len(line)
                while cell_len(line[:end]) > width:
                    end -= 1
                blank = line.rfind(" ", len(indent) + 3, end + 1)
                end = blank if blank > 0 else end
                lines.append(line[:end])
                line = f"{indent}↪ {line[end:].lstrip()}"
            lines.append(line)
        return "\n".join(lines)

    def all(self) -> int:
        """Give the whole lecture without stopping.

        Returns:
            How many examples printed something else than they should.
        """
        wrong = 0
        for at, step in enumerate(self.steps):
            self.show(at)
            if isinstance(step, Run):
                got, right = self.run(step)
                self.show_output(step, got, right)
                wrong += not right
        return wrong

    def speak(self) -> None:
        """Give the lecture at the speed of the speaker."""
        at = 0
        while at < len(self.steps):
            step = self.steps[at]
            self.show(at)
            following = self.steps[at + 1] if at + 1 < len(self.steps) else None
            if isinstance(step, Run):
                target = self.ask(at, "run")
                if target != at + 1:
                    at = target
                    continue
                self.show_output(step, *self.run(step))
            if isinstance(following, Section | Code) and not isinstance(step, Section):
                at = self.ask(at, "go on")
            else:
                at += 1

    def ask(self, at: int, what: str) -> int:
        """Wait for the speaker.

        Args:
            at: where the lecture is.
            what: what Enter will do.

        Returns:
            The step to go to.
        """
        while True:
            place = f"{at + 1}/{len(self.steps)}"
            answer = self._read(f"{place}  Enter {what}, b back, s sections, q quit ")
            if answer == "q":
                return len(self.steps)
            if answer == "":
                return at + 1
            if answer == "b":
                return self.stop_before(at)
            if answer.isdecimal() and 0 < int(answer) <= len(self.sections):
                return self.sections[int(answer) - 1]
            for n, i in enumerate(self.sections if answer == "s" else (), 1):
                section = self.steps[i]
                assert isinstance(section, Section)
                self.console.print(f"{n:3}  {section.title}", highlight=False)
            self.console.print("[dim]the number of a section leads there[/dim]")

    def _read(self, hint: str) -> str:
        """Show the status line until the speaker has typed something, then clear it."""
        # What was typed while an example ran is forgotten: its echo is on the screen
        # already, and clearing the status would clear another line.
        terminal = self.console.is_terminal and sys.stdin.isatty() and termios
        if terminal:
            terminal.tcflush(sys.stdin, terminal.TCIFLUSH)
        # Not `input`, which goes through readline once that is loaded: with an empty
        # line it moves to no new line, and what follows is drawn over the status.
        try:
            line = self.console.input(f"[dim]{hint}[/dim]", stream=sys.stdin)
        except KeyboardInterrupt:
            line = ""
        if not line:
            self.console.print()
            return "q"
        if terminal and len(hint) + len(line) < self.console.width:
            up = (ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)
            self.console.control(Control(*up))
        return line.strip().lower()

    def stop_before(self, at: int) -> int:
        """Find what was on the screen before.

        Args:
            at: where the lecture is.

        Returns:
            The step with which that began: a section, code, or what follows an example.
        """
        begin = [
            i
            for i in range(at + 1)
            if isinstance(self.steps[i], Section | Code)
            or (i and isinstance(self.steps[i - 1], Run))
        ]
        return begin[-2] if len(begin) > 1 else 0
