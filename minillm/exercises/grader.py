r"""The grader: compare a learner's function with ours, and say what is wrong.

It knows nothing of files and processes: it is given an
[`Exercise`][minillm.exercises.exercise.Exercise] and a function, calls both on the same
inputs, and looks for the smallest input on which they differ. Then it calls the known
mistakes of the exercise on the inputs that failed: the one that gives what the learner
gave, on all of them, is probably the one that was made.
"""

import _thread
import contextlib
import copy
import inspect
import io
import linecache
import math
import sys
import textwrap
import threading
import types
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from hypothesis import Phase, find, settings
from hypothesis.errors import Flaky, NoSuchExample

from minillm.exercises.exercise import Exercise, Mistake

__all__ = ["Report", "grade"]

SECONDS = 30.0
"""How long an exercise may take before it is interrupted."""
EXAMPLES = 30  # generated inputs, besides those that are always tried
SHRINKS = 100  # inputs tried in the search for a smaller one
VALUES = "value", "shape", "dtype", "type", "error"  # what results can be wrong in
WIDTH = 78  # columns of a report
GROWTH = 64, 256  # sizes at which work is counted


@dataclass(frozen=True)
class Report:
    """What the grader has to say about one exercise.

    Attributes:
        name: the exercise.
        status: `"passed"`, `"wrong"`, or `"todo"` for a stub nobody has filled in.
        kind: what is wrong: the value, the shape, the dtype, an error, …
        says: the same in a sentence or several.
        call: the smallest input that failed, as a call.
        expected: what our function returns.
        got: what the learner's returned.
        mistake: the name of the known mistake that it looks like.
        why: why that is one.
        inputs: how many inputs were tried.
    """

    name: str
    status: str
    kind: str = ""
    says: str = ""
    call: str = ""
    expected: str = ""
    got: str = ""
    mistake: str = ""
    why: str = ""
    inputs: int = 0

    @property
    def passed(self) -> bool:
        """Whether the exercise is solved."""
        return self.status == "passed"

    def as_dict(self) -> dict[str, Any]:
        """All attributes, under their names."""
        return asdict(self)

    def __str__(self) -> str:
        if self.passed:
            return f"{self.name}: passed, {self.inputs} input{'s' * (self.inputs > 1)}"
        if self.status == "todo":
            return f"{self.name}: not yet written"
        return "\n".join([f"{self.name}: {self.headline}", *self.details()])

    @property
    def headline(self) -> str:
        """One line about what is wrong."""
        if self.status == "todo":
            return "not yet written"
        return self.says.partition("\n")[0] or f"wrong {self.kind}"

    def details(self) -> list[str]:
        """Lines below the headline: the input, both results, the mistake."""
        lines = [f"  {line}" for line in self.says.splitlines()[1:]]
        labelled = ("input", self.call), ("expected", self.expected), ("got", self.got)
        for label, text in (*labelled, ("looks like", self.mistake)):
            if text:
                lines += _wrapped(f"  {label:<10} {text}", indent=13)
        return lines + _wrapped(f"  {self.why}" if self.why else "", indent=2)


def _wrapped(text: str, indent: int) -> list[str]:
    # A terminal is 80 columns wide, and the command indents once more.
    return textwrap.wrap(
        text,
        WIDTH,
        drop_whitespace=True,
        break_long_words=False,
        break_on_hyphens=False,
        subsequent_indent=" " * indent,
    )


@dataclass
class Outcome:
    """What one call came to: a value or an error, and what it did besides."""

    value: Any = None
    error: BaseException | None = None
    changed: bool = False


@dataclass
class Trial:
    """One input, what came of it, and what is wrong with that."""

    args: tuple[Any, ...]
    expected: Outcome
    got: Outcome
    problem: tuple[str, str] | None


class _Finished(BaseException):
    """Leaves the search for inputs; not an `Exception`, so that nothing catches it."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


def grade(
    exercise: Exercise,
    candidate: Any,
    *,
    seconds: float = SECONDS,
    watch: bool = True,
    shrink: bool = True,
    examples: int = EXAMPLES,
) -> Report:
    """Grade one function.

    Args:
        exercise: what it should do.
        candidate: the function. For an exercise whose answer is a number, the number
            will do.
        seconds: when to interrupt it. The guard is soft: Python code is stopped, a call
            that never returns from C is not, nor is a crash. It needs the main thread.
        watch: whether to notice that the candidate calls the answer.
        shrink: whether to look for a smaller input than the first that fails.
        examples: how many inputs to make, besides those that are always tried.

    Returns:
        The report.

    Raises:
        TypeError: if the candidate cannot be called.
        KeyboardInterrupt: if the user has asked for it.

    Examples:
        >>> from minillm.exercises import find_exercises
        >>> (exercise,) = find_exercises(["bpe.compression_ratio"])
        >>> grade(exercise, lambda text, ids: 0.0, examples=5).status
        'wrong'
    """
    if not callable(candidate):
        if exercise.stub.parameters:
            raise TypeError(
                f"{exercise.name} is graded as a function; got {candidate!r}: pass the "
                "function itself, without calling it"
            )
        number = candidate

        def candidate() -> Any:
            return number

    if problem := wrong_signature(exercise, candidate):
        return Report(exercise.name, "wrong", "signature", problem)
    session = _Session(exercise, candidate, watch, shrink, examples)
    try:
        with soft_guard(seconds) as guard:
            return session.run()
    except _Finished as finished:
        return finished.report
    except KeyboardInterrupt as stop:
        if not guard.is_set():
            raise
        where = learners_lines(stop, candidate)
        says = f"no answer within {seconds:g} seconds" + where
        return session.report("endless", says, session.args)


def wrong_signature(exercise: Exercise, candidate: Callable[..., Any]) -> str | None:
    """Say what is wrong with the parameters of a function, if anything is."""
    try:
        signature = inspect.signature(candidate)
    except (ValueError, TypeError):
        return None  # a builtin that does not tell
    wanted, given = list(exercise.stub.parameters), list(signature.parameters)
    try:
        signature.bind(*wanted)
        fits = sorted(wanted) != sorted(given) or wanted == given
    except TypeError:
        fits = False
    if fits:
        return None
    return (
        f"it takes ({', '.join(given)}), and should take ({', '.join(wanted)})\n"
        f"expected {exercise.stub.signature}"
    )


@contextlib.contextmanager
def soft_guard(seconds: float) -> Generator[threading.Event, None, None]:
    """Interrupt what runs in the block, as Ctrl-C would, when the time is over.

    Args:
        seconds: when.

    Yields:
        An event that is set if that has happened.
    """
    over, done, lock = threading.Event(), threading.Event(), threading.Lock()

    def interrupt() -> None:
        with lock:
            if not done.is_set():
                over.set()
                _thread.interrupt_main()

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    if threading.current_thread() is threading.main_thread():
        timer.start()
    try:
        yield over
    finally:
        with lock:
            done.set()
        timer.cancel()


class _Enough(BaseException):
    """Ends the search for a smaller input."""


class _Session:
    """The grading of one function."""

    def __init__(
        self,
        exercise: Exercise,
        candidate: Any,
        watch: bool,
        shrink: bool,
        examples: int,
    ) -> None:
        self.exercise, self.candidate = exercise, candidate
        self.shrink, self.examples = shrink, examples
        self.answers = answer_codes(exercise) if watch else frozenset()
        self.forbidden = exercise.forbidden if watch else frozenset()
        self.args: tuple[Any, ...] | None = None
        self.trials: list[Trial] = []

    def run(self) -> Report:
        for args in self.exercise.examples:
            self.trials.append(self.trial(args))

        def collect(args: tuple[Any, ...]) -> bool:
            self.trials.append(self.trial(args))
            return False

        self.search(collect, self.examples, (Phase.generate,))
        bad = [trial for trial in self.trials if trial.problem]
        if bad:
            return self.explain(bad)
        self.count_work()
        return Report(self.exercise.name, "passed", inputs=len(self.trials))

    def search(
        self,
        condition: Callable[[tuple[Any, ...]], bool],
        most: int,
        phases: tuple[Phase, ...],
    ) -> None:
        """Let hypothesis look for an input; the same ones come in every run."""
        options = settings(
            max_examples=most,
            phases=phases,
            derandomize=True,
            database=None,
            deadline=None,
        )
        # A function that answers differently the second time confuses hypothesis.
        with contextlib.suppress(NoSuchExample, Flaky, _Enough):
            find(self.exercise.inputs, condition, settings=options, random=Random(0))

    def trial(self, args: tuple[Any, ...]) -> Trial:
        """Call both functions on one input, and compare."""
        self.args = args
        expected = attempt(self.exercise, self.exercise.reference, args)
        with self.watching():
            got = attempt(self.exercise, self.candidate, args)
        if isinstance(got.error, NotImplementedError):
            raise _Finished(Report(self.exercise.name, "todo"))
        problem = self.compare(expected, got)
        return Trial(args, expected, got, problem)

    def compare(self, expected: Outcome, got: Outcome) -> tuple[str, str] | None:
        problem = difference(expected, got, self.exercise.tolerance)
        if problem and problem[0] == "error" and got.error is not None:
            where = learners_lines(got.error, self.candidate)
            return "error", f"{problem[1]}{where}"
        if problem:
            return problem
        if got.changed:
            return "in place", "it changes its input: make a new one instead"
        if self.exercise.inspect and (says := self.exercise.inspect(got.value)):
            return "memory", says
        return None

    @contextlib.contextmanager
    def watching(self) -> Generator[None, None, None]:
        """Notice a call of the answer, by whatever name it was imported."""
        used = []

        def hook(frame: types.FrameType, event: str, arg: Any) -> None:
            if event == "call" and frame.f_code in self.answers:
                used.append(f"minillm's own {frame.f_code.co_qualname}")
            elif event == "c_call" and arg.__name__ in self.forbidden:
                used.append(f"PyTorch's own {arg.__name__}")

        if not self.answers | self.forbidden:
            yield
            return
        before = sys.getprofile()
        sys.setprofile(hook)
        try:
            yield
        finally:
            sys.setprofile(before)
        if used:
            says = (
                f"it calls {used[0]}\nThat is the answer; the exercise is to write it."
            )
            raise _Finished(Report(self.exercise.name, "wrong", "answer", says))

    def report(
        self, kind: str, says: str, args: tuple[Any, ...] | None = None
    ) -> Report:
        call = show_call(self.exercise, args) if args else ""
        name, inputs = self.exercise.name, max(1, len(self.trials))
        return Report(name, "wrong", kind, says, call, inputs=inputs)

    def explain(self, bad: list[Trial]) -> Report:
        """Say what is wrong, by the smallest input and the likeliest mistake."""
        assert bad[0].problem is not None
        kind = bad[0].problem[0]
        smallest = self.smaller(bad[0], kind)
        assert smallest.problem is not None
        kind, says = smallest.problem
        report = self.report(kind, says + self.generality(bad), smallest.args)
        if kind in VALUES:
            report = replace(
                report,
                expected=self.expected(smallest),
                got=show_outcome(smallest.got),
            )
        return self.name(report, [smallest, *bad])

    def expected(self, trial: Trial) -> str:
        """What is right; where one number is all the answer, how far it is off."""
        right, given = trial.expected.value, trial.got.value
        if trial.args or self.exercise.tolerance is None:
            return show_outcome(trial.expected)
        within = f"within {100 * self.exercise.tolerance:g} %"
        if not isinstance(given, int | float) or not 0 < abs(given) < math.inf:
            return f"a positive number, {within}"
        return f"{right / given:.4g} times as much, {within}"

    def smaller(self, first: Trial, kind: str) -> Trial:
        """Find the smallest input that fails in the same way."""
        found = [first]
        tried = 0

        def fails(args: tuple[Any, ...]) -> bool:
            nonlocal tried
            tried += 1
            if tried > SHRINKS:
                raise _Enough
            trial = self.trial(args)
            if trial.problem and trial.problem[0] == kind:
                found.append(trial)
                return True
            return False

        if self.shrink:
            # Hypothesis calls `fails` with ever smaller inputs; the last is the least.
            self.search(fails, EXAMPLES, (Phase.generate, Phase.shrink))
        return min(reversed(found), key=lambda trial: size_of(trial.args))

    def generality(self, bad: list[Trial]) -> str:
        """Say so if all inputs of some number of axes pass, and all others fail."""

        def axes_of(trial: Trial) -> int | None:
            first = trial.args[0] if trial.args else None
            return first.ndim if isinstance(first, torch.Tensor) else None

        tried = Counter(axes_of(trial) for trial in self.trials)
        failed = Counter(axes_of(trial) for trial in bad)
        right = [n for n in tried if not failed[n] and tried[n] > 2]
        # An input of zeros may pass by chance.
        mostly = all(3 * failed[n] >= tried[n] for n in failed)
        if not right or not mostly or None in tried:
            return ""
        parts = (sorted(f"{n}-D" for n in axes) for axes in (right, failed))
        good, listed = (" and ".join(part) for part in parts)
        return f"\nRight for every {good} input that was tried, wrong for {listed}."

    def name(self, report: Report, bad: list[Trial]) -> Report:
        """Find the known mistake that gives the same wrong results."""
        mistakes = self.exercise.mistakes
        if report.kind not in VALUES:
            likely = [m for m in mistakes if m.kind == report.kind][:1]
        else:
            # The learner may have made two mistakes. Then one of them gives what is
            # shown, and half or more of what else is wrong in the same way.
            same = [trial for trial in bad if kind_of(trial) == report.kind]
            good = [trial for trial in self.trials if not trial.problem]
            fits: dict[Mistake, tuple[int, bool]] = {}
            for mistake in mistakes:
                if mistake.kind == "value" and self.alike(mistake.function, bad[0]):
                    n = sum(self.alike(mistake.function, trial) for trial in same)
                    # Of two, the one that is also right where the learner was right.
                    fits[mistake] = (
                        n,
                        all(self.alike(mistake.function, t) for t in good),
                    )
            likely = [m for m in fits if 2 * fits[m][0] >= len(same)]
            likely.sort(key=lambda m: fits[m], reverse=True)
        if not likely:
            return report
        return replace(report, mistake=likely[0].name, why=likely[0].sentence)

    def alike(self, mistake: Callable[..., Any], trial: Trial) -> bool:
        wrong = attempt(self.exercise, mistake, trial.args)
        return not difference(wrong, trial.got, self.exercise.tolerance)

    def count_work(self) -> None:
        """Compare the work for a small and a large input, counted and not timed."""
        if self.exercise.growth is None:
            return
        count = self.exercise.work or lines_run
        small, large = (count(self.candidate, *self.exercise.growth(n)) for n in GROWTH)
        times = GROWTH[1] // GROWTH[0]
        # Halfway, on a scale of powers, between growing like n and growing like n².
        if large > small * times**1.5:
            says = (
                f"right, but the work grows too fast\nAn input {times} times as long "
                f"takes {large / small:.1f} times as many steps, not {times}."
            )
            raise _Finished(self.name(self.report("growth", says), []))


def kind_of(trial: Trial) -> str:
    """In what respect a trial failed."""
    return trial.problem[0] if trial.problem else ""


def attempt(
    exercise: Exercise, function: Callable[..., Any], args: tuple[Any, ...]
) -> Outcome:
    """Call a function on a copy of the arguments, and note what comes of it."""
    given = copy.deepcopy(args)
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        try:
            value = exercise.call(function, *given)
        except KeyboardInterrupt:
            raise
        except (Exception, SystemExit) as error:
            return Outcome(error=error)
    return Outcome(value, changed=difference(Outcome(args), Outcome(given)) is not None)


def answer_codes(exercise: Exercise) -> frozenset[types.CodeType]:
    """The code objects of the answer: of functions, and of all methods of classes."""
    codes = set()
    for answer in (*exercise.answer, exercise.reference):
        members = vars(answer).values() if isinstance(answer, type) else [answer]
        for member in members:
            plain = inspect.unwrap(getattr(member, "__func__", member))
            if isinstance(plain, types.FunctionType):
                codes.add(plain.__code__)
    return frozenset(codes)


def difference(
    expected: Outcome, got: Outcome, tolerance: float | None = None
) -> tuple[str, str] | None:
    """Say in what respect two outcomes differ.

    Args:
        expected: the one that is right.
        got: the other.
        tolerance: how far numbers may be apart, relative to the expected one.

    Returns:
        The kind of the difference and a sentence, or `None`.
    """
    if expected.error is not None:
        wanted = type(expected.error).__name__
        if got.error is None:
            return "error", f"it should raise {wanted}"
        same = isinstance(got.error, type(expected.error))
        return None if same else ("error", f"it should raise {wanted}")
    if got.error is not None:
        text = str(got.error)
        says = f"{type(got.error).__name__}{': ' if text else ''}{text}"
        return "error", f"it raises {says.splitlines()[0]}"
    return value_difference(expected.value, got.value, tolerance)


def value_difference(
    expected: Any, got: Any, tolerance: float | None
) -> tuple[str, str] | None:
    """Compare two values of any of the types that exercises return."""
    if isinstance(expected, torch.Tensor | np.ndarray):
        return array_difference(expected, got, tolerance)
    if isinstance(expected, bool) or isinstance(got, bool):
        return None if expected is got else ("value", "wrong result")
    if isinstance(expected, int | float):
        if isinstance(got, torch.Tensor | np.ndarray | np.generic) and not got.ndim:
            got = got.item()
        if not isinstance(got, int | float):
            return wrong_type(expected, got)
        exact = isinstance(expected, int) and tolerance is None
        close = math.isclose(got, expected, rel_tol=tolerance or 1e-9, abs_tol=1e-12)
        return None if (got == expected if exact else close) else ("value", WRONG)
    if isinstance(expected, list | tuple):
        if not isinstance(got, list | tuple):
            return wrong_type(expected, got)
        if len(expected) != len(got):
            return "value", WRONG
        pairs = zip(expected, got, strict=True)
        found = (value_difference(*pair, tolerance) for pair in pairs)
        return next(filter(None, found), None)
    if isinstance(expected, dict):
        if not isinstance(got, dict):
            return wrong_type(expected, got)
        return None if dict(expected) == dict(got) else ("value", WRONG)
    if isinstance(expected, str | bytes):
        if type(got) is not type(expected):
            return wrong_type(expected, got)
        return None if expected == got else ("value", WRONG)
    return None  # functions and models among the arguments


WRONG = "wrong result"


def wrong_type(expected: Any, got: Any) -> tuple[str, str]:
    """Describe a result of another type."""
    wanted, given = type(expected).__name__, type(got).__name__
    forgot = "\nDoes it end without `return`?" if got is None else ""
    return "type", f"it returns {given}, and should return {wanted}{forgot}"


def array_difference(
    expected: Any, got: Any, tolerance: float | None
) -> tuple[str, str] | None:
    """Compare two tensors or two arrays: kind, shape, dtype, entries."""
    if not isinstance(got, torch.Tensor | np.ndarray) or isinstance(
        expected, torch.Tensor
    ) != isinstance(got, torch.Tensor):
        return wrong_type(expected, got)
    if tuple(expected.shape) != tuple(got.shape):
        return "shape", (
            f"wrong shape: expected {tuple(expected.shape)}, got {tuple(got.shape)}"
        )
    if expected.dtype != got.dtype:
        return "dtype", f"wrong dtype: expected {expected.dtype}, got {got.dtype}"
    a, b = (
        torch.as_tensor(x if isinstance(x, torch.Tensor) else x.astype(np.float64))
        for x in (expected, got)
    )
    # Sums in another order differ in their last digits, and no further.
    precise = str(expected.dtype).endswith("64")
    rtol = tolerance or (1e-9 if precise else 1e-4)
    close = torch.isclose(
        b.double(), a.double(), rtol, 1e-12 if precise else 1e-6, equal_nan=True
    )
    return None if bool(close.all()) else ("value", WRONG)


def learners_lines(error: BaseException, candidate: Any, most: int = 3) -> str:
    """Cut a traceback to the lines of the learner's own file.

    Args:
        error: what was raised.
        candidate: the learner's function, or the path of the file.
        most: how many calls to show, the last ones.

    Returns:
        Two lines for each call, each after a line break.
    """
    code = getattr(inspect.unwrap(candidate), "__code__", None)
    own = str(candidate) if code is None else code.co_filename
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if name == own:
            where = traceback.tb_frame.f_code.co_name
            line = linecache.getline(name, traceback.tb_lineno).strip()
            inside = "" if where == "<module>" else f", in {where}"
            place = f"{Path(name).name}, line {traceback.tb_lineno}{inside}"
            frames.append(f"\n{place}\n    {line}")
        traceback = traceback.tb_next
    return "".join(frames[-most:])


def lines_run(function: Callable[..., Any], *args: Any) -> int:
    """Count the lines of Python that a call runs, loops line by line."""
    lines = 0

    def tracer(frame: types.FrameType, event: str, arg: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        function(*args)
    finally:
        sys.settrace(before)
    return lines


def size_of(args: tuple[Any, ...]) -> int:
    """How much there is to read in some arguments."""
    return len(show(args, 100_000))


def show_call(exercise: Exercise, args: tuple[Any, ...]) -> str:
    """Write arguments as the call that passes them."""
    return f"{exercise.function}({', '.join(map(show, args))})"


def show_outcome(outcome: Outcome) -> str:
    """Write a value, or the error that came instead of one."""
    if outcome.error is not None:
        text = str(outcome.error).partition("\n")[0]
        return f"{type(outcome.error).__name__}{': ' if text else ''}{text}"
    return show(outcome.value)


def show(value: Any, most: int = 400) -> str:
    """Write a value as Python would take it, shortened where it is long."""
    if isinstance(value, torch.Tensor):
        kind = "" if value.dtype in USUAL else f", dtype={value.dtype}"
        text = f"tensor({show(value.detach().tolist(), most)}{kind})"
    elif isinstance(value, np.ndarray):
        text = f"array({show(value.tolist(), most)}, dtype={value.dtype})"
    elif isinstance(value, float):
        text = f"{value:.6g}" if math.isfinite(value) else repr(value)
        text += "" if set(text) & set(".en") else ".0"
    elif isinstance(value, list | tuple):
        inside = ", ".join(show(part, most) for part in value)
        if isinstance(value, list):
            text = f"[{inside}]"
        else:
            text = f"({inside}{',' if len(value) == 1 else ''})"
    elif isinstance(value, dict):
        text = repr(dict(value))
    else:
        text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


USUAL = (torch.float32, torch.int64, torch.bool)
