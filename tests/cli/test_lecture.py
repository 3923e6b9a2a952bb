"""Every chapter can be given as a lecture, and each of its examples comes out right."""

import io
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

import minillm
from minillm.cli.lecture_script import (
    Code,
    Prose,
    Run,
    Section,
    chapters,
    find,
    lecture_steps,
    plain,
)
from minillm.cli.lecture_show import Lecture

PACKAGE = Path(minillm.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("[a-z]*.py")
    if "exercises" not in path.parts
)


def given(chapter, monkeypatch=None, answers=()):
    """A lecture, and what it wrote; with answers, what the speaker types."""
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    lecture = Lecture(chapter, console)
    if monkeypatch:
        line = iter(answers)

        def read(prompt="", stream=None):
            console.print(prompt)
            # A line, or nothing at the end of the input.
            return next((answer + "\n" for answer in line), "")

        monkeypatch.setattr(console, "input", read)
    return lecture, console.file


@pytest.mark.parametrize(
    "module",
    [
        # The examples of all are tests already, so those beside the chapters may wait.
        name
        if name in chapters().values()
        else pytest.param(name, marks=pytest.mark.check)
        for name in MODULES
    ],
)
def test_the_lecture_of_every_module_runs_through(module):
    lecture, output = given(module)
    assert lecture.all() == 0
    text = output.getvalue()
    assert max(map(cell_len, text.splitlines())) <= 80
    runs = [step for step in lecture.steps if isinstance(step, Run)]
    silent = [step for step in runs if not step.example.want]
    assert len(re.findall(r"^✓", text, re.M)) == len(runs) - len(silent)
    prose = [step.text for step in lecture.steps if isinstance(step, Prose)]
    assert not re.search(r"\]\[|--8<--|<div", "".join(prose))


def test_the_syllabus_is_that_of_the_package():
    assert list(chapters().items())[:2] == [(1, "bpe"), (2, "attention")]
    assert find("1") is find("bpe") is find("minillm.bpe")
    with pytest.raises(ValueError, match="nearest: attention"):
        find("atention")


def test_every_example_of_the_module_is_in_its_lecture():
    import doctest

    examples = sum(
        len(test.examples) for test in doctest.DocTestFinder().find(find("bpe"))
    )
    runs = [step for step in lecture_steps("bpe") if isinstance(step, Run)]
    assert len(runs) == examples > 30


SAMPLE = '''\
r"""A sample with a figure.

<div class="figure" markdown>

--8<-- "images/x.svg"

</div>

>>> one = 1
>>> one + 1
3
"""


class Box:
    """A box.

    Args:
        width: how
            wide.

    Examples:
        Of three:

        >>> Box(3).twice
        6
    """

    def __init__(self, width):
        self.width = width

    @property
    def twice(self):
        """Two of them.

        >>> Box("a").twice / 2
        Traceback (most recent call last):
        TypeError: unsupported operand type(s) for /: 'str' and 'int'
        """
        # The comment stays.
        return 2 * self.width


def hidden():
    return 1
'''


@pytest.fixture
def sample(monkeypatch, tmp_path):
    import importlib.util

    path = tmp_path / "sample.py"
    path.write_text(SAMPLE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("sample", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sample", module)
    spec.loader.exec_module(module)
    for part in ("cli.lecture_show", "cli.lecture_script"):
        monkeypatch.setattr(f"minillm.{part}.find", lambda chapter: module)


def test_a_module_is_cut_into_steps(sample):
    steps = lecture_steps("sample")
    kinds = " ".join(type(step).__name__ for step in steps)
    assert kinds == (
        "Section Prose Run Run Section Prose Run Code Section Prose Run Code"
    )
    assert [s.title for s in steps if isinstance(s, Section)] == [
        "sample", "Box", "Box.twice",
    ]  # fmt: skip
    prose = [step.text for step in steps if isinstance(step, Prose)]
    assert "`images/x.svg`" in prose[0]
    assert "- `width`: how\n        wide." in prose[1] and prose[1].endswith(
        "Of three:"
    )
    code = [step.text for step in steps if isinstance(step, Code)]
    assert "twice" not in code[0] and "A box" not in code[0]
    assert code[1].startswith("@property") and "The comment stays." in code[1]


def test_what_is_looked_up_is_no_part_of_a_lecture():
    from minillm.cli.lecture_script import told

    docstring = (
        "Halve it.\n\nArgs:\n    x: a number.\n\nReturns:\n    Half of it.\n\n"
        "Raises:\n    ValueError: never.\n\nExamples:\n    Of one:\n\n    >>> 1 / 2\n"
        "    0.5\n"
    )
    manual = [step for step in told(docstring) if isinstance(step, Prose)]
    lecture = list(told(docstring, reference=False))
    assert "**Arguments**" in manual[0].text and "never" in manual[0].text
    assert lecture[0] == Prose("Halve it.\n\nOf one:") and isinstance(lecture[1], Run)
    # A chapter of functions alone.
    steps = lecture_steps("data")
    prose = "\n".join(step.text for step in steps if isinstance(step, Prose))
    assert "**Raises**" not in prose and "**Returns**" not in prose


def test_a_wrong_example_is_counted_and_shown(sample):
    lecture, output = given("sample")
    assert lecture.all() == 1
    assert re.search(r"✗ +2 +3 *\n", output.getvalue())
    assert "✓" in output.getvalue()


def test_enter_runs_the_next_example(sample, monkeypatch):
    lecture, output = given("sample", monkeypatch, ["", ""])
    lecture.speak()
    text = output.getvalue()
    assert text.index(">>> one + 1") < text.index("✗")
    assert "Box" not in text.replace("sample", "")  # it waits before the next section


def test_back_and_jump_start_from_a_clean_state(sample, monkeypatch):
    # To the second example, one back (before it), forward, then to section 3 and out.
    lecture, output = given("sample", monkeypatch, ["", "b", "", "", "3", "", "q"])
    lecture.speak()
    text = output.getvalue()
    assert text.count(">>> one = 1") == 2
    assert text.count("✗") == 1  # one is still known after the step back
    assert "TypeError" in text and "Box(3)" not in text


def test_an_example_starts_from_what_came_before_it_and_nothing_else(sample):
    from minillm.cli.lecture_script import told

    lecture, _ = given("sample")
    _, count = told(">>> n = 0\n>>> n = n + 1; n\n1\n")
    for _ in range(2):  # the second time, from the beginning
        assert lecture.run(count) == ("1\n", True)


def test_sections_are_listed_and_nonsense_is_answered(sample, monkeypatch):
    lecture, output = given("sample", monkeypatch, ["s", "xyz", "99"])
    lecture.speak()
    assert "  3  Box.twice" in output.getvalue()
    assert output.getvalue().count("the number of a section leads there") == 3


def test_long_lines_continue_behind_a_sign():
    folded = Lecture._folded("    x = " + "abc, " * 30, 40).splitlines()
    assert all(len(line) <= 40 for line in folded)
    assert all(line.startswith("      ↪ abc,") for line in folded[1:])
    assert "".join(folded).count("abc,") == 30
    wide = Lecture._folded("你" * 50, 21).splitlines()
    assert max(map(cell_len, wide)) <= 21 and "".join(wide).count("你") == 50
    assert Lecture._folded("é" * 100, 30).replace("  ↪ ", "").replace("\n", "") == (
        "é" * 100
    )


def test_formulas_and_links_are_readable():
    assert plain(r"[the loss][minillm.train.x] of $\frac{a}{b} \le 2$") == (
        r"the loss of `\frac{a}{b} ≤ 2`"
    )
    assert "```text\na · b\n```" in plain("$$a \\cdot b$$")
    assert plain("costs $5 and no more") == "costs $5 and no more"


# The command


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("width", [80, 100])
def test_nothing_is_drawn_over_the_status_line(width):
    import fcntl
    import pty
    import struct
    import termios

    # As in a long lecture: once anything has loaded readline, `input` uses it.
    program = (
        "import readline\nfrom minillm.cli.lecture import lecture\nlecture('config')\n"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
    ):
        os.close(theirs)
        shown = b""
        for stop, answer in enumerate([b"\n"] * 5 + [b"q\n"], 1):
            while shown.count(b"q quit ") < stop:
                shown += os.read(ours, 1 << 16)
            os.write(ours, answer)
        with suppress(OSError):  # how Linux says that the other side is closed
            while more := os.read(ours, 1 << 16):
                shown += more
    os.close(ours)
    lines = re.sub(rb"\x1b\[[\d;]*m", b"", shown)
    assert b"expected" in lines
    # After each answer the cursor is on a new line, goes up and clears the status.
    assert len(re.findall(rb"q quit (q?\r\n\x1b\[1A\x1b\[2K)", lines)) == 6
    assert lines.count(b"q quit ") == 6


def test_the_command_lists_and_gives(monkeypatch, capsys):
    from minillm.cli.lecture import lecture

    lecture()
    listed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in listed] == [
        [str(number), name] for number, name in chapters().items()
    ]
    lecture("config", everything=True)
    assert capsys.readouterr().out.count("✓") >= 3
    # Whoever types nothing at the first stop has seen the beginning alone.
    monkeypatch.setattr(Console, "input", lambda self, prompt="", stream=None: "q\n")
    lecture("1")
    said = capsys.readouterr().out
    assert said and "✓" not in said


def test_the_command_says_how_many_are_wrong(monkeypatch):
    from minillm.cli.lecture import lecture

    monkeypatch.setattr(Lecture, "run", lambda self, step: ("nothing", False))
    with pytest.raises(ValueError, match=r"\d+ examples printed something else"):
        lecture("config", everything=True)
