"""What all benchmarks share: taking turns, medians with their spread, the record.

Programs that are compared take turns in one process, in a new order each time, so that
whatever else the machine does meets them alike. A round that does not count comes first
where a part asks for it. A ratio is taken in each round and above 1 means that this
package is the faster one; what is printed and kept is the median of the rounds, with
the quartiles around it.

A benchmark is a module with `PARTS`. A part takes a `Record`, measures, and adds rows.
What fails or is missing is recorded as not measured, with the reason, and the next part
goes on. Each part has so many seconds; when they are spent, it takes no new turn.
"""

import contextlib
import importlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")
# A ratio that shall be reached, or a figure of ours that shall not be passed.
Target = tuple[str, float]  # ("ratio >=" or "ours <=", value)


class Part(NamedTuple):
    """One table of a benchmark."""

    run: Callable[["Record"], None]
    seconds: float  # how long it may take


class Record:
    """The rows of one part, and the time that is left for it.

    Attributes:
        turns: how many rounds count; each part divides it as it needs.
        quick: whether it is only to be seen that everything works.
        clock: what is read before and after.
        rows: what was measured.
        missing: what was not, and why.
        texts: what was read, and how many bytes it has.
    """

    def __init__(
        self,
        seconds: float,
        turns: int | None = None,
        quick: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.quick, self.clock, self.asked = quick, clock, turns
        self.end = time.monotonic() + seconds
        self.rows: list[dict[str, Any]] = []
        self.missing: list[dict[str, str]] = []
        self.texts: dict[str, dict[str, Any]] = {}

    def turns(self, usual: int) -> int:
        """How many rounds: what the caller asked for, one in a hurry, or the usual."""
        return self.asked or (1 if self.quick else usual)

    def left(self) -> float:
        """How many seconds are left."""
        return self.end - time.monotonic()

    def seconds(self, function: Callable[..., object], *arguments: object) -> float:
        """Call a function once. How long does it take?"""
        start = self.clock()
        function(*arguments)
        return self.clock() - start

    def interleave(
        self,
        programs: Mapping[str, Callable[[], Result]],
        usual: int,
        share: float = 1.0,
        warm_up: int = 1,
    ) -> dict[str, list[Result]]:
        """Let programs that time themselves take turns, and return what they found.

        They stop early, but not before the third round, when they have used their
        share of the time that is left.
        """
        found: dict[str, list[Result]] = {name: [] for name in programs}
        turns = self.turns(usual)
        end = time.monotonic() + share * self.left()
        order, chance = list(programs), random.Random(0)
        for turn in range(warm_up + turns):
            if turn - warm_up >= 3 and time.monotonic() > end:
                break
            chance.shuffle(order)
            for name in order:
                result = programs[name]()
                if turn >= warm_up:
                    found[name].append(result)
        return found

    def take_turns(
        self,
        programs: Mapping[str, Callable[[], object]],
        usual: int,
        share: float = 1.0,
        warm_up: int = 1,
    ) -> dict[str, list[float]]:
        """Let programs take turns, and return the seconds of each round."""
        timed = {
            name: lambda program=program: self.seconds(program)
            for name, program in programs.items()
        }
        return self.interleave(timed, usual, share, warm_up)

    def row(
        self,
        case: str,
        ours: Sequence[float],
        peer: str | None = None,
        theirs: Sequence[float] | None = None,
        *,
        unit: str = "s",
        amount: float | None = None,
        target: Target | None = None,
        **more: Any,
    ) -> None:
        """Add a row and print it.

        Args:
            case: what was done.
            ours: our seconds in each round; or another figure, if `unit` says so.
            peer: who did the same.
            theirs: its seconds in each round.
            unit: of both figures.
            amount: how much was done, if the figure is an amount by second.
            target: what should be reached.
            **more: goes into the record as it is.
        """
        figures = [
            [amount / value if amount else value for value in values]
            for values in (ours, theirs or [])
        ]
        row: dict[str, Any] = {"case": case, "unit": unit, "ours": spread(figures[0])}
        if theirs:
            # Of two amounts, the smaller one is the better; so of two times.
            ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
            row |= {"peer": peer, "theirs": spread(figures[1]), "ratio": spread(ratios)}
        row["turns"] = len(ours)
        if target:
            row["target"] = list(target)
        self.rows.append(row | more)
        print(line(self.rows[-1]), flush=True)

    def not_measured(self, what: str, why: object) -> None:
        """Note that something could not be measured, and why."""
        reason = " ".join(str(why).split())[:300] or type(why).__name__
        self.missing.append({"what": what, "why": reason})
        print(f"  {what}: not measured: {reason}", flush=True)

    @contextlib.contextmanager
    def optional(self, what: str) -> Generator[None, None, None]:
        """Go on if this fails: it is then recorded as not measured."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except (Exception, SystemExit) as error:  # whatever a peer can throw
            self.not_measured(what, f"{type(error).__name__}: {error}")


def spread(values: Sequence[float]) -> list[float]:
    """The lower quartile, the median and the upper quartile."""
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive")
        if len(values) > 1
        else [*values] * 3
    )
    return [float(f"{value:.4g}") for value in (low, middle, high)]


def met(row: Mapping[str, Any]) -> bool | None:
    """Whether the target of a row was reached; `None` if it has none."""
    if "target" not in row:
        return None
    what, value = row["target"]
    if what == "ratio >=":
        return row["ratio"][1] >= value
    return row["ours"][1] <= value


def show(figures: Sequence[float], unit: str) -> str:
    """A median with its unit, and the quartiles in brackets."""
    if unit == "s" and figures[1] < 1:
        figures, unit = [1000 * value for value in figures], "ms"
    low, middle, high = (f"{value:,.{digits(figures[1])}f}" for value in figures)
    between = "" if low == middle == high else f" ({low}–{high})"
    # The unit stays with its number where a line ends.
    return f"{middle}\N{NO-BREAK SPACE}{unit}".strip() + between


def digits(value: float) -> int:
    """How many digits after the point are worth reading."""
    return 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0


def line(row: Mapping[str, Any]) -> str:
    """A row for the terminal: the ratio first."""
    ratio = (
        show(row["ratio"], "x").replace("\N{NO-BREAK SPACE}x", "x", 1)
        if "ratio" in row
        else ""
    )
    theirs = f"; {row['peer']} {show(row['theirs'], row['unit'])}" if ratio else ""
    note = f"; {row['note']}" if "note" in row else ""
    goal = ""
    if "target" in row:
        goal = f"  [{' '.join(map(str, row['target']))}: "
        goal += "met]" if met(row) else "MISSED]"
    ours = show(row["ours"], row["unit"])
    return f"{ratio:>22}  {row['case']}: {ours}{theirs}{note}{goal}"


def of_tests(module: str) -> Any:
    """A module that helps the tests, and the benchmarks too."""
    tests = Path(__file__).resolve().parent.parent / "tests"
    folders = [str(tests), str(tests / "tokenizer")]
    sys.path += [folder for folder in folders if folder not in sys.path]
    return importlib.import_module(module)


ASK = "\nprint(round(peak() * 2**20))\n"


def peak(program: str, *arguments: str, limit: float) -> int:
    """Run a program in a process of its own, and say the peak of its memory in bytes.

    Raises:
        RuntimeError: if it fails; with the last line of what it says.
        subprocess.TimeoutExpired: if it takes longer than `limit` seconds.
    """
    done = subprocess.run(
        [sys.executable, "-c", of_tests("memory").PEAK + program + ASK, *arguments],
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return int(done.stdout.splitlines()[-1])
