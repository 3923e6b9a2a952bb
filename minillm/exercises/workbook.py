r"""A learner's folder: the files of stubs, the progress, the hints, the solutions."""

import ast
import inspect
import json
import textwrap
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import minillm
from minillm.exercises import EXERCISES
from minillm.exercises.exercise import CHAPTERS, Exercise, chapter_text
from minillm.exercises.report import Report
from minillm.files.reading import read_json
from minillm.files.writing import atomic_write, locked

__all__ = ["Progress", "place", "solution", "start", "workbook", "workbooks"]

PROGRESS = "progress.json"
"""The file in a learner's folder that says what is done."""
STATUSES = ("passed", "wrong", "todo")


def start(folder: Path) -> tuple[list[Path], list[Path]]:
    """Write the files of stubs, and leave alone every file that is there.

    Args:
        folder: where; made if need be.

    Returns:
        The files that were written, and those that were there.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written, kept = start(Path(folder))
        ...     again, kept_now = start(Path(folder))
        >>> written[0].name, kept, again, kept_now == written
        ('bpe.py', [], [], True)
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, kept = [], []
    for chapter in CHAPTERS:
        path = folder / f"{chapter}.py"
        try:
            # Nobody's work is overwritten, not even if it appears at this moment.
            with atomic_write(path, replace=False) as file:
                file.write(chapter_text(chapter).encode())
            written.append(path)
        except FileExistsError:
            kept.append(path)
    return written, kept


def workbook(folder: Path) -> Path:
    """Make sure that a folder has exercises in it.

    Args:
        folder: a learner's folder.

    Returns:
        The same folder.

    Raises:
        ValueError: if there are none.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = start(Path(folder))
        ...     workbook(Path(folder)) == Path(folder)
        True
    """
    if not _has_exercises(folder):
        near = sorted(p.name for p in folder.glob("*") if p.is_dir())
        name = next((n for n in near if _has_exercises(folder / n)), "my-course")
        raise ValueError(
            f"no exercises in {folder.resolve()}: name their folder, as in `minillm "
            f"exercises check bpe.merge {name}`; `minillm exercises start {name}` "
            "writes them"
        )
    return folder


def workbooks(folder: Path) -> list[Path]:
    """Find the folders with exercises: this one, or those in it, one for a learner.

    Args:
        folder: a learner's folder, or a teacher's folder of these.

    Returns:
        The folders, in the order of their names.

    Raises:
        ValueError: if there are none.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for learner in ("ada", "alan"):
        ...         _ = start(Path(folder) / learner)
        ...     [path.name for path in workbooks(Path(folder))]
        ['ada', 'alan']
    """
    found = [p for p in sorted(folder.glob("*")) if p.is_dir() and _has_exercises(p)]
    return found if found and not _has_exercises(folder) else [workbook(folder)]


def _has_exercises(folder: Path) -> bool:
    # The chapters of the course have the same names, and are nobody's exercises.
    if folder.resolve() == Path(minillm.__file__).resolve().parent:
        return False
    return any((folder / f"{chapter}.py").is_file() for chapter in CHAPTERS)


class Progress:
    """What is done, and how many hints have been read.

    Args:
        folder: the learner's folder, where the file is, or will be.

    Raises:
        ValueError: if the file is not what this class writes.

    Examples:
        >>> import tempfile
        >>> from minillm.exercises.report import Report
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Progress(Path(folder)).note(Report("bpe.merge", "passed"))
        ...     progress = Progress(Path(folder))  # read again
        >>> progress.status("bpe.merge"), progress.status("bpe.count_pairs")
        ('passed', 'todo')
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / PROGRESS
        self.records = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.exists():
            return {}
        try:
            records = read_json(self.path)
            for record in records.values():
                hints = record.get("hints", 0)
                whole = type(hints) is int and hints >= 0
                if not whole or record.get("status", "todo") not in STATUSES:
                    raise ValueError
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{self.path} is not a record of progress: delete it, and check all"
            ) from error
        return records

    def status(self, name: str) -> str:
        """`passed`, `wrong`, or `todo`."""
        return self.records.get(name, {}).get("status", "todo")

    def note(self, report: Report) -> None:
        """Write down what the grader said."""
        when = datetime.now().astimezone().isoformat(timespec="seconds")
        with self._changing(report.name) as record:
            record |= {"status": report.status, "checked": when}
            record["says"] = "" if report.passed else report.mistake or report.headline

    def next_hint(self, exercise: Exercise) -> list[str]:
        """The hints read so far, and one more."""
        with self._changing(exercise.name) as record:
            record["hints"] = min(record.get("hints", 0) + 1, len(exercise.hints))
        return list(exercise.hints[: record["hints"]])

    @contextmanager
    def _changing(self, name: str) -> Generator[dict[str, Any]]:
        """Change one record, and write the file, in the order of the course."""
        # Hints can be asked for while all exercises are being checked. So each change
        # is made to what the file says then, and the other process waits its turn.
        with locked(self.path, wait=10):
            self.records = self._read()
            # What fails now is not written.
            yield self.records.setdefault(name, {})  # ruff: ignore[fallible-context-manager]
            ordered = {n: self.records[n] for n in EXERCISES if n in self.records}
            text = json.dumps(ordered, indent=2, ensure_ascii=False)
            with atomic_write(self.path) as file:
                file.write(f"{text}\n".encode())


def place(thing: Any) -> tuple[str, int, int]:
    """Say where something of the course stands: module, first and last line."""
    plain = inspect.unwrap(thing)
    lines, first = inspect.getsourcelines(plain)
    return plain.__module__, first, first + len(lines) - 1


def solution(exercise: Exercise) -> str:
    """Show our own function: the source without its docstring, and where it stands.

    Args:
        exercise: the exercise.

    Returns:
        Python source, with a comment above each part.

    Examples:
        >>> print(solution(EXERCISES["bpe.merge"]).splitlines()[1])
        def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """
    shown = [exercise.answer[0]]
    if exercise.reference.__module__.startswith(__package__) and (
        exercise.reference.__name__ != "<lambda>"
    ):
        shown.insert(0, exercise.reference)
    return "\n\n".join(_source(thing) for thing in shown)


def _source(thing: Any) -> str:
    module, first, last = place(thing)
    text = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
    lines = text.splitlines()
    for start_, end in sorted(_docstrings(ast.parse(text)), reverse=True):
        del lines[start_ - 1 : end]
    source = "\n".join(lines)
    return f"# {module.replace('.', '/')}.py, lines {first} to {last}\n{source}"


def _docstrings(tree: ast.AST) -> Iterable[tuple[int, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            yield node.body[0].lineno, node.body[0].end_lineno or 0
