r"""A chapter as a lecture: a slide on the screen, its examples run while you watch.

The steps come from [`minillm.cli.lecture_script`][], the slides from
[`minillm.cli.lecture_slides`][]. An example is shown, and when the speaker presses
Enter it runs, and what it printed appears below. What it should have printed is shown
only where that is something else. The standard library's `doctest` runs the examples,
the library `rich` draws.
"""

import doctest
import sys
import webbrowser
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.control import Control
from rich.padding import Padding
from rich.segment import ControlType
from rich.text import Text

try:
    import termios
except ImportError:  # on Windows: the status lines stay
    termios = None  # type: ignore[assignment]  # it is a module elsewhere

from minillm.cli.chapter_parts import Run, find
from minillm.cli.lecture_script import Answer, Figure, Prose, Section, lecture_steps
from minillm.cli.lecture_slides import Slide, code, draw, expected, folded, slides
from minillm.files.reading import IMAGES

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
    """The slides of a chapter, where the speaker is, and the state of the examples.

    Args:
        chapter: the name of a module, or the number of a chapter.
        console: where to write.

    Examples:
        >>> lecture = Lecture("config", Console(quiet=True))
        >>> lecture.all()  # how many examples printed something else
        0
    """

    def __init__(self, chapter: str, console: Console) -> None:
        self.module = find(chapter)
        self.console = console
        self.slides = slides(lecture_steps(chapter), console)
        # The first slide says what is to come.
        subjects = dict.fromkeys(s.title for s in self.slides if "." not in s.title[2:])
        names = [f"`{t}`" if t.isidentifier() else t for t in subjects]
        contents = " · ".join([f"`{self.module.__name__}`", *names[1:]])
        self.slides.insert(0, Slide(self.slides[0].title, [Prose(contents)]))
        self.ran: list[doctest.Example] = []
        self.names: dict[str, Any] = {}

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

    def output(self, step: Run) -> bool:
        """Run an example and write what it printed, and if that is wrong, what not.

        Args:
            step: the example.

        Returns:
            Whether it is right.
        """
        got, right = self.run(step)
        if not right:
            self._indented("✗ printed", "bold red")
        if got:
            self._indented(folded(got.rstrip(), self.console.width - 4), "bold")
        if not right:
            self._indented("✗ expected", "bold red")
            self._indented(folded(expected(step), self.console.width - 4), "bold")
        if got or not right:
            self.console.print()
        return right

    def _indented(self, text: str, style: str) -> None:
        self.console.print(Padding(Text(text, style), (0, 0, 0, 2)))

    def begin(self, at: int, *, clear: bool = True) -> None:
        """Write the title of a slide.

        Args:
            at: its number, from 0.
            clear: whether on an empty screen, if there is one.
        """
        if clear and self.console.is_terminal:
            self.console.clear()
        title = Section(self.slides[at].title)
        self.console.print(draw(title, self.console), "")

    def all(self) -> int:
        """Give the whole lecture without stopping.

        Returns:
            How many examples printed something else than they should.
        """
        wrong = 0
        for at, slide in enumerate(self.slides):
            self.begin(at, clear=False)
            for step in slide.steps:
                self.console.print(draw(step, self.console))
                if isinstance(step, Run):
                    wrong += not self.output(step)
                elif isinstance(step, Answer):
                    self.console.print(draw(Prose(step.text), self.console))
        return wrong

    def speak(self) -> None:
        """Give the lecture at the speed of the speaker."""
        at = 0
        while at < len(self.slides):
            at = self.present(at)

    def present(self, at: int) -> int:
        """Show a slide, and wait before each thing that the audience may guess.

        Args:
            at: its number, from 0.

        Returns:
            The slide to go to.
        """
        self.begin(at)
        for step in self.slides[at].steps:
            self.console.print(draw(step, self.console))
            if isinstance(step, Answer):
                if (to := self.ask(at, "answers")) is not None:
                    return to
                self.console.print(draw(Prose(step.text), self.console))
            elif isinstance(step, Run):
                if step.example.want and (to := self.ask(at, "runs it")) is not None:
                    return to
                self.output(step)
        to = self.ask(at, "goes on")
        return at + 1 if to is None else to

    def ask(self, at: int, what: str) -> int | None:
        """Wait for the speaker.

        Args:
            at: the slide that is shown.
            what: what Enter will do.

        Returns:
            The slide to go to; `None` to go on with this one.
        """
        slide = self.slides[at]
        figures = [step.path for step in slide.steps if isinstance(step, Figure)]
        keys = ["b back", *["c code"][: bool(slide.code)]]
        keys += [*["f figure"][: len(figures)], "s sections", "q quit"]
        while True:
            place = f"{at + 1}/{len(self.slides)}"
            match self._read(f"{place}  Enter {what}, {', '.join(keys)} "):
                case "":
                    return None
                case "q":
                    return len(self.slides)
                case "b":
                    return max(0, at - 1)
                case "c" if slide.code:
                    self.console.print(code(slide.code, self.console.width - 2), "")
                case "f" if figures:
                    for path in figures:
                        self._open(path)
                case answer if answer.isdecimal():
                    if 0 < int(answer) <= len(self.slides):
                        return int(answer) - 1
                    self._list(answer)
                case answer:
                    self._list(answer)

    def _open(self, path: str) -> None:
        """Open a figure beside the terminal; where there is no window, say where."""
        place = (IMAGES.parent / path).resolve()
        if not webbrowser.open(place.as_uri()):
            self.console.print(Text(f"no browser here: open {place}", "dim"))

    def _list(self, answer: str) -> None:
        """The sections, if they were asked for, and what can be typed."""
        last = ""
        for number, slide in enumerate(self.slides if answer == "s" else (), 1):
            if slide.title != last:
                self.console.print(f"{number:3}  {slide.title}", highlight=False)
            last = slide.title
        self.console.print("[dim]the number of a slide leads there[/dim]")

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
