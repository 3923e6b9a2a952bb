r"""Grade a learner's files in a process of its own.

What a learner wrote may loop forever, exit, or crash the interpreter. So a child
process imports the files and grades; this one reads its messages, each a line of JSON.
When the child falls silent for too long it is killed, when it dies its last message
says where, and another child goes on with the exercises that are left.
"""

import contextlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from minillm.exercises import EXERCISES
from minillm.exercises.exercise import Exercise
from minillm.exercises.grader import SECONDS, grade
from minillm.exercises.guard import soft_guard
from minillm.exercises.report import Report, learners_lines

__all__ = ["grade_folder"]

# The child interrupts itself when the time is over, and can then say at which line. Who
# has not answered this much later does not listen: a call into C, or `except:`.
PATIENCE = 5.0
START = 120.0  # for the child to start, with PyTorch, on a slow and busy machine
MEMORY = 2 << 30  # bytes, beyond what the process has when it starts


def grade_folder(
    folder: Path, exercises: list[Exercise], *, seconds: float = SECONDS
) -> Iterator[Report]:
    """Grade exercises in a folder of files that `start` has written.

    Args:
        folder: where the files are.
        exercises: which to grade.
        seconds: how long each may take.

    Yields:
        A report for each, as soon as it is there.
    """
    waiting = [exercise.name for exercise in exercises]
    while waiting:
        for report in _one_child(folder, waiting, seconds):
            waiting.remove(report.name)
            yield report


def _one_child(folder: Path, names: list[str], seconds: float) -> Iterator[Report]:
    """Let one child grade as many exercises as it survives, at least one."""
    command = [sys.executable, "-m", __name__, str(folder), str(seconds), *names]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="ascii",
    )
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            lines.put(line)
        lines.put("")  # the child has ended

    threading.Thread(target=read, daemon=True).start()
    stage, patience = {"stage": "start", "name": names[0]}, START
    try:
        while stage["name"]:
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                says = f"no answer within {seconds:g} seconds, and it cannot be stopped"
                yield from _lost(stage, names, "endless", says)
                return
            if not line:
                says = _last_words(child.wait())
                yield from _lost(stage, names, "crash", says)
                return
            message = json.loads(line)
            if "report" in message:
                yield Report(**message["report"])
            else:
                stage, patience = message, seconds + PATIENCE
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _lost(
    stage: dict[str, str], names: list[str], kind: str, says: str
) -> Iterator[Report]:
    """Report what the child can no longer report itself."""
    if stage["stage"] == "start":
        raise RuntimeError(f"the process that grades did not start: {says}")
    name = stage["name"]
    # A file that cannot be imported takes all of its exercises with it.
    same_file = [n for n in names if n.partition(".")[0] == name.partition(".")[0]]
    for lost in same_file if stage["stage"] == "import" else [name]:
        where = "while the file was imported" if stage["stage"] == "import" else ""
        yield Report(lost, "wrong", kind, f"{says}\n{where}".strip())


def _last_words(code: int) -> str:
    if code < 0:
        return f"it crashed the interpreter (signal {-code})"
    return f"it ended the process, with exit code {code}"


# From here on: the child.


def main(folder: Path, seconds: float, names: list[str]) -> None:
    """Grade, and write one message for each step."""
    # The learner's output must not get between the messages.
    channel = os.fdopen(os.dup(1), "w", encoding="ascii")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)

    def send(**message: Any) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    limit_memory()
    # At the end, so that a learner's `random.py` is not imported by the libraries.
    sys.path.append(str(folder))
    modules: dict[str, ModuleType | Report] = {}
    for name in names:
        exercise = EXERCISES[name]
        if exercise.chapter not in modules:
            send(stage="import", name=name)
            modules[exercise.chapter] = load(folder, exercise, seconds)
        send(stage="grade", name=name)
        report = grade_in(modules[exercise.chapter], exercise, seconds)
        send(report=report.as_dict())
    send(stage="end", name="")


def limit_memory() -> None:
    """Set a limit to what the process may take, where the system can.

    Linux counts the addresses that a process has asked for, which PyTorch does freely;
    so the limit is relative to what there is before the learner's code begins.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def load(folder: Path, exercise: Exercise, seconds: float) -> ModuleType | Report:
    """Import a learner's file, or say why that fails."""
    path = folder / f"{exercise.chapter}.py"
    if not path.exists():
        says = f"there is no {path.name}\nminillm exercises start {folder} writes it."
        return Report(exercise.name, "wrong", "missing", says)
    spec = importlib.util.spec_from_file_location(f"learner_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    try:
        with soft_guard(seconds):
            spec.loader.exec_module(module)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        says = f"{path.name} does not import: {_first_line(error)}"
        return Report(exercise.name, "wrong", "import", says + _where(error, path))
    return module


def _first_line(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "it does not come to an end"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}".partition("\n")[0].rstrip(": ")


def _where(error: BaseException, path: Path) -> str:
    """The learner's own lines; a file that is no Python has one, and no calls."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"\n{path.name}, line {error.lineno}\n    {(error.text or '').strip()}"
    return learners_lines(error, path)


def grade_in(module: ModuleType | Report, exercise: Exercise, seconds: float) -> Report:
    """Grade the function of an exercise in an imported file."""
    if isinstance(module, Report):
        return Report(exercise.name, "wrong", module.kind, module.says)
    candidate = getattr(module, exercise.function, None)
    if not callable(candidate):
        says = (
            f"{exercise.chapter}.py has no function {exercise.function}\n"
            f"expected {exercise.stub.signature}"
        )
        return Report(exercise.name, "wrong", "missing", says)
    return grade(exercise, candidate, seconds=seconds)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
    # Threads that a learner has started shall not keep the process alive.
    os._exit(0)
