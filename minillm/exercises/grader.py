r"""The grader: compare a learner's function with ours, and say what is wrong.

It knows nothing of files and processes: it is given an
[`Exercise`][minillm.exercises.exercise.Exercise] and a function, calls both on the same
inputs, and looks for the smallest input on which they differ. Then it calls the known
mistakes of the exercise on the inputs that failed: the one that gives what the learner
gave, on all of them, is probably the one that was made. If it explains only some, there
may be a second one, which explains the rest.
"""

import contextlib
import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from hypothesis import Phase, find, settings
from hypothesis.errors import Flaky, NoSuchExample

from minillm.exercises.compare import Outcome, difference
from minillm.exercises.exercise import Exercise, Mistake
from minillm.exercises.guard import (
    answer_codes,
    attempt,
    lines_run,
    soft_guard,
    watched,
)
from minillm.exercises.report import (
    Report,
    learners_lines,
    show_call,
    show_outcome,
    size_of,
)

__all__ = ["grade"]

SECONDS = 30.0
"""How long an exercise may take before it is interrupted."""
EXAMPLES = 30  # generated inputs, besides those that are always tried
SHRINKS = 100  # inputs tried in the search for a smaller one
VALUES = "value", "shape", "dtype", "type", "error"  # what results can be wrong in
GROWTH = 64, 256  # sizes at which work is counted


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
        candidate: the function.
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
        raise TypeError(
            f"{exercise.name} is graded as a function; got {candidate!r}: pass the "
            "function itself, without calling it"
        )
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
        with watched(self.answers, self.forbidden) as used:
            got = attempt(self.exercise, self.candidate, args)
        if used:
            says = (
                f"it calls {used[0]}\nThat is the answer; the exercise is to write it."
            )
            raise _Finished(Report(self.exercise.name, "wrong", "answer", says))
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
        return None

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
                expected=show_outcome(smallest.expected, smallest.got),
                got=show_outcome(smallest.got, smallest.expected),
            )
        return self.name(report, [smallest, *bad])

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
        first = likely[0] if likely else None
        if first:
            report = replace(report, mistake=first.name, why=first.sentence)
        if second := self.second(first, bad):
            why = f"On other inputs it looks like “{second.name}”. {second.sentence}"
            report = replace(report, why=f"{report.why} {why}".strip())
        return report

    def second(self, first: Mistake | None, bad: list[Trial]) -> Mistake | None:
        """Find the mistake that explains most of what the first does not."""
        rest = [
            trial
            for trial in bad[1:]
            if kind_of(trial) in VALUES
            and not (first and self.alike(first.function, trial))
        ]
        if len(rest) < 2:
            return None
        for mistake in self.exercise.mistakes:
            if mistake.kind == "value" and mistake is not first:
                n = sum(self.alike(mistake.function, trial) for trial in rest)
                if 2 * n > len(rest):
                    return mistake
        return None

    def alike(self, mistake: Callable[..., Any], trial: Trial) -> bool:
        wrong = attempt(self.exercise, mistake, trial.args)
        return not difference(wrong, trial.got, self.exercise.tolerance)

    def count_work(self) -> None:
        """Compare the work for a small and a large input, counted and not timed."""
        if self.exercise.growth is None:
            return
        count = self.exercise.work or lines_run
        work = []
        for n in GROWTH:
            self.args = self.exercise.growth(n)
            try:
                work.append(count(self.candidate, *self.args))
            except Exception as error:
                # What is right for short inputs may still fail for long ones.
                says = f"it raises {type(error).__name__} for a longer input: {error}"
                says += learners_lines(error, self.candidate)
                raise _Finished(self.report("error", says)) from None
        small, large = work
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
