"""Every chapter can be given as a lecture, and each of its examples comes out right."""

import ast
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
from minillm.cli.chapter_parts import Run, chapters, find, pieces
from minillm.cli.lecture_formulas import readable
from minillm.cli.lecture_prose import plain, sentences
from minillm.cli.lecture_script import (
    Answer,
    Figure,
    Prose,
    Section,
    lecture_steps,
    told,
)
from minillm.cli.lecture_show import Lecture
from minillm.cli.lecture_slides import folded, slides
from minillm.files.reading import IMAGES

PACKAGE = Path(minillm.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("[a-z]*.py")
    if "exercises" not in path.parts
)


def given(chapter, monkeypatch=None, answers=(), height=None):
    """A lecture, and what it wrote; with answers, what the speaker types."""
    console = Console(file=io.StringIO(), width=80, height=height, force_terminal=False)
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
        # The examples of all are tests already, so all but one may wait.
        name if name == "bpe" else pytest.param(name, marks=pytest.mark.check)
        for name in MODULES
    ],
)
def test_the_lecture_of_every_module_runs_through(module):
    lecture, output = given(module)
    assert lecture.all() == 0
    text = output.getvalue()
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "✗" not in text
    steps = [step for slide in lecture.slides for step in slide.steps]
    prose = "".join(step.text for step in steps if isinstance(step, Prose | Answer))
    assert not re.search(r"\]\[|--8<--|<div|\?\?\?", prose)
    assert not re.search(r"^(Args|Returns|Raises|Yields|Attributes):", prose, re.M)
    figures = [step.path for step in steps if isinstance(step, Figure)]
    assert all((IMAGES.parent / path).is_file() for path in figures)


def a_projector():
    return Console(file=io.StringIO(), width=100, height=30)


@pytest.mark.parametrize("chapter", chapters().values())
def test_a_chapter_is_as_many_slides_as_an_hour_holds_and_each_fits(chapter):
    console = a_projector()
    shown = Lecture(chapter, console).slides
    assert 25 <= len(shown) <= 60
    for slide in shown:
        before = len(console.file.getvalue().splitlines())
        for step in slide.steps:
            console.print(draw_whole(step, console))
        height = len(console.file.getvalue().splitlines()) - before
        # Title, space and the line for the keys come on top. One long example is alone.
        assert height <= 25 or len(slide.steps) <= 6, (slide.title, height)


def draw_whole(step, console):
    from rich.console import Group

    from minillm.cli.lecture_slides import draw, expected

    behind = expected(step) + "\n" if isinstance(step, Run) else ""
    return Group(draw(step, console), behind) if behind else draw(step, console)


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

**Before this:** nothing.

<div class="figure" markdown>

--8<-- "images/x.svg"

</div>

One is less than two, and we can count on that. What is one and one? Guess:

>>> one = 1
>>> one + 1
3

??? note "Answer"

    Two, and $\\frac12$ is a half.

    It is.

# The end

Another.

# References

Nobody 2020.
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

    def silent(self):
        """One sentence and no example."""


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
        "Section Figure Prose Prose Run Run Answer Section Prose "
        "Section Prose Prose Run Section Prose Run"
    )
    sections = [s for s in steps if isinstance(s, Section)]
    assert [s.title for s in sections] == [
        "A sample with a figure", "The end", "Box", "Box.twice",
    ]  # fmt: skip
    assert steps[1] == Figure("images/x.svg")
    assert steps[6] == Answer("Answer", "Two, and `1/2` is a half.\n\nIt is.")
    assert sections[0].code == ""
    assert "A box" not in sections[2].code and "self.width = width" in sections[2].code
    assert "return 2 * self.width" in sections[2].code and "Two" not in sections[2].code
    assert sections[3].code.startswith("@property")
    assert "The comment stays." in sections[3].code


def test_what_is_looked_up_is_no_part_of_a_lecture():
    docstring = (
        "Halve it.\n\nArgs:\n    x: a number.\n\nReturns:\n    Half of it.\n\n"
        "Raises:\n    ValueError: never.\n\nExamples:\n    Of one:\n\n    >>> 1 / 2\n"
        "    0.5\n\nAttributes:\n    y: a number."
    )
    halve, of_one, example = told(docstring)
    assert (halve, of_one) == (Prose("Halve it."), Prose("Of one:"))
    assert isinstance(example, Run)


def test_both_readers_get_the_same_pieces_with_or_without_tables():
    docstring = (
        "See [it][a.b].\n\nArgs:\n    x: a size.\n\nExamples:\n    Of one:\n\n"
        "    >>> x[0][1]\n    2\n\n    The end.\n\nAttributes:\n    y: one.\n"
    )
    seen, example, end = pieces(docstring)
    assert seen == "See it.\n\nOf one:\n\n" and end.strip("\n") == "The end."
    assert example.example.source == "x[0][1]\n"
    found = pieces(docstring, tables=True)
    with_tables = "".join(piece for piece in found if isinstance(piece, str))
    assert "Args:\n    x: a size." in with_tables
    assert "Attributes:\n    y: one." in with_tables


def test_what_belongs_together_is_on_one_slide():
    words = "which takes most of a line, and here is the rest of it"
    long = " ".join(f"Sentence {n}, {words}." for n in range(12))
    text = f"{long}\n\nA short one.\n\nSo:\n\n>>> n = 2\n>>> n + 1\n3\n"
    steps = [Section("One"), *told(text), Section("Two"), Prose("It is.")]
    shown = slides(steps, a_projector())
    assert [slide.title for slide in shown] == ["One"] * (len(shown) - 1) + ["Two"]
    # The long paragraph is cut into equal parts; the rest is one slide.
    counts = [len(slide.steps) for slide in shown]
    assert counts[-2:] == [4, 1] and sum(counts[:-2]) == 12
    assert max(counts[:-2]) - min(counts[:-2]) <= 1 < len(counts[:-2])
    assert [type(step).__name__ for step in shown[-2].steps] == [
        "Prose", "Prose", "Run", "Run",
    ]  # fmt: skip
    lower = slides(steps, Console(file=io.StringIO(), width=100, height=12))
    assert len(lower) > len(shown)
    lines = r"$$\begin{aligned} a &= 1 \\ b &= 2 \\ c &= 3 \end{aligned}$$"
    steps = [Section("One"), *told(f"First, {words}. Next, {words}. Then\n\n{lines}")]
    *_, last = slides(steps, a_projector())
    words_before, formula = (step.text for step in last.steps[-2:])
    assert words_before.endswith("Then") and "c = 3" in formula


def test_a_wrong_example_is_counted_and_shown(sample):
    lecture, output = given("sample")
    assert lecture.all() == 1
    assert re.search(r"✗ printed\s+2\s+✗ expected\s+3\s", output.getvalue())
    assert output.getvalue().count("✗") == 2


def test_enter_runs_the_next_example_and_shows_the_answer(sample, monkeypatch):
    lecture, output = given("sample", monkeypatch, ["", "", "", ""])
    lecture.speak()
    text = output.getvalue()
    assert text.index(">>> one + 1") < text.index("runs it") < text.index("✗ printed")
    assert text.index("Answer?") < text.index("answers") < text.index("is a half")
    assert "Another" not in text  # it waits before the next slide


def test_back_and_jump_start_from_a_clean_state(sample, monkeypatch):
    # Past the second example, back to before it, past it again, to slide 6 and out.
    answers = ["", "", "", "b", "", "", "6", "", "q"]
    lecture, output = given("sample", monkeypatch, answers)
    assert [slide.title for slide in lecture.slides][5] == "Box.twice"
    lecture.speak()
    text = output.getvalue()
    assert text.count(">>> one = 1") == 2
    assert text.count("✗ printed") == 2  # one is still known after the step back
    assert "TypeError" in text and "Box(3)" not in text


def test_code_and_figures_come_on_demand(sample, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(uri) or False)
    answers = ["", "f", "c", "5", "c", "f", "q"]
    lecture, output = given("sample", monkeypatch, answers)
    lecture.speak()
    text = output.getvalue()
    assert [uri.rpartition("/images/")[2] for uri in opened] == ["x.svg"]
    assert "no browser here" in text
    assert text.count("self.width = width") == 1
    # Keys that do nothing here are explained.
    assert text.count("the number of a slide leads there") == 2


def test_an_example_starts_from_what_came_before_it_and_nothing_else(sample):
    lecture, _ = given("sample")
    _, count = told(">>> n = 0\n>>> n = n + 1; n\n1\n")
    for _ in range(2):  # the second time, from the beginning
        assert lecture.run(count) == ("1\n", True)


def test_sections_are_listed_and_nonsense_is_answered(sample, monkeypatch):
    lecture, output = given("sample", monkeypatch, ["s", "xyz", "99"])
    lecture.speak()
    assert "  6  Box.twice" in output.getvalue()
    assert output.getvalue().count("the number of a slide leads there") == 3


def test_long_lines_continue_behind_a_sign():
    lines = folded("    x = " + "abc, " * 30, 40).splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert all(line.startswith("      ↪ abc,") for line in lines[1:])
    assert "".join(lines).count("abc,") == 30
    wide = folded("你" * 50, 21).splitlines()
    assert max(map(cell_len, wide)) <= 21 and "".join(wide).count("你") == 50
    assert folded("é" * 100, 30).replace("  ↪ ", "").replace("\n", "") == ("é" * 100)


def test_formulas_and_links_are_readable():
    (prose,) = told(r"[the loss][minillm.train.x] of $\frac{a}{b} \le 2$")
    assert prose.text == "the loss of `a/b ≤ 2`"
    assert "```text\na · b\n```" in plain("$$a \\cdot b$$")
    assert plain("costs $5 and no more") == "costs $5 and no more"
    assert plain("`^` and `$` are `$x$`") == "`^` and `$` are `$x$`"
    below = plain("$$\\begin{aligned} a &= 1 \\\\ b' &= 2 \\end{aligned}$$")
    assert "```text\na = 1\nb′ = 2\n```" in below
    two = plain("$$m = 1 \\qquad w = 2$$")
    assert "```text\nm = 1\nw = 2\n```" in two


def test_no_formula_of_the_course_keeps_its_tex():
    formulas = set()
    for path in PACKAGE.rglob("*.py"):
        if "lecture" in path.stem:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
                text = re.sub(r"`[^`]*`", "", ast.get_docstring(node) or "")
                formulas |= {
                    m[1] for m in re.findall(r"(\$\$?)(?!\s)(.+?)\1", text, re.S)
                }
    assert len(formulas) > 300
    left = {tex: readable(tex) for tex in formulas}
    assert {tex: text for tex, text in left.items() if re.search(r"[\\{}$]", text)} == {
        tex: left[tex]
        for tex in formulas
        if r"\{" in tex  # a set has braces
    }


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"\frac{f(w + \epsilon) - f(w)}{2\epsilon}", "(f(w + ε) - f(w)) / 2ε"),
        (r"\frac{a}{bcd \cdot e} x", "(a / (bcd · e)) x"),
        (r"\ln \frac{\pi(y)}{\pi_\text{ref}(y)}.", "ln (π(y) / π_ref(y))."),
        (r"e^{i\theta} x_{2j+1}^2", "e^(iθ) x₂ⱼ₊₁²"),
        (r"\binom{n - c}{k} \Big/ \binom{n}{k}", "C(n - c, k) / C(n, k)"),
        (r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}", "[a, b; c, d]"),
        (r"-\bar y^\top \sqrt 2 \ne -1", "-ȳᵀ √2 ≠ -1"),
    ],
)
def test_a_formula_means_what_its_tex_means(tex, text):
    assert readable(tex) == text


def test_sentences():
    held = "It holds (see Xu et al. 2020. Not all)."
    asked = "Then what follows from it? So:"
    assert sentences(f"{held} {asked}") == [held, asked]
    assert sentences("All of it holds for all of us. Then what?") == [
        "All of it holds for all of us. Then what?"
    ]
    assert sentences("`a.b` is a name of two parts. *Bytes* have 8 bits each.") == [
        "`a.b` is a name of two parts.", "*Bytes* have 8 bits each.",
    ]  # fmt: skip


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
    assert b">>> " in lines and b"expected" not in lines
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
    said = capsys.readouterr().out
    assert "examples, each as expected" in said and said.count(">>> ") >= 3
    # With "q" at the first stop the beginning is all that is shown.
    monkeypatch.setattr(Console, "input", lambda self, prompt="", stream=None: "q\n")
    lecture("1")
    said = capsys.readouterr().out
    assert "count_pairs" in said and ">>> " not in said


def test_the_command_says_how_many_are_wrong(monkeypatch):
    from minillm.cli.lecture import lecture

    monkeypatch.setattr(Lecture, "run", lambda self, step: ("nothing", False))
    with pytest.raises(ValueError, match=r"\d+ examples printed something else"):
        lecture("config", everything=True)
