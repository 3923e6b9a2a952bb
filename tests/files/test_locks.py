"""Two processes at once on one output: one works, the other is told in one line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_crash import TALES, TOKENIZER

from minillm.corpus.prepare import prepare
from minillm.labs.bench import Lab, plan, run_lab

Call = Callable[..., tuple[int, str]]
BUSY = "is working on {}: let it end, or choose another name"


@pytest.fixture
def call(call: Any) -> Call:
    return lambda *arguments: call(*arguments)[::2]  # exit code, error output


@contextmanager
def another_process(path: Path, **options: Any) -> Generator[subprocess.Popen[str]]:
    """Let another process hold the lock of a path."""
    code = (
        "import json, sys, time\n"
        "from minillm.files.writing import locked\n"
        "with locked(sys.argv[1], **json.loads(sys.argv[2])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path), json.dumps(options)],
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_bytes("\n\n\n".join(TALES).encode())
    prepare([tmp_path / "a.txt"], tmp_path / "data", tokenizer=TOKENIZER)
    return tmp_path / "data"


def commands(folder: Path, data: Path) -> dict[str, tuple[list[object], Path]]:
    """Each command that writes for long, and what it locks."""
    out = folder / "out"
    small = ("--context-length", 8, "--d-model", 4, "--n-layers", 1, "--n-heads", 1)
    text = data.parent / "a.txt"
    return {
        "demo": (["demo", "--out", out, "--steps", 1], out),
        "train": (["train", "--data", data, "--out", out, "--steps", 1, *small], out),
        "data": (["data", "prepare", text, "--out", out, "--vocab-size", 260], out),
        "lab": (["lab", "digits", "--quick", "--out", out, "--workers", 1], out),
    }


@pytest.mark.parametrize("name", ["demo", "train", "data", "lab"])
def test_the_second_is_told_and_writes_nothing(
    name: str, call: Call, tmp_path: Path, data: Path
) -> None:
    arguments, out = commands(tmp_path, data)[name]
    before = sorted(p.name for p in tmp_path.iterdir())
    with another_process(out):
        code, err = call(*arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert BUSY.format(out.resolve()) in err
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, ".out.lock"])


@pytest.mark.parametrize("signal_", [signal.SIGTERM, getattr(signal, "SIGKILL", 9)])
def test_the_lock_of_one_who_was_killed_is_free(
    signal_: int, call: Call, tmp_path: Path, data: Path
) -> None:
    arguments, out = commands(tmp_path, data)["data"]
    with another_process(out) as child:
        assert call(*arguments)[0] == 2
        child.send_signal(signal_)
        child.wait()
        assert call(*arguments)[0] == 0
    assert (out / "data.json").exists()


def test_a_run_that_goes_on_is_locked_from_inside(
    call: Call, tmp_path: Path, data: Path
) -> None:
    arguments, out = commands(tmp_path, data)["train"]
    assert call(*arguments)[0] == 0
    with another_process(out, inside=True):
        code, err = call(*arguments, "--resume")
        assert (code, BUSY.format(out.resolve()) in err) == (2, True)
        assert call(*arguments)[0] == 2


def _run(config: dict[str, Any], seed: int) -> dict[str, Any]:
    return {}


@pytest.mark.check
@pytest.mark.skipif(os.name != "posix", reason="processes need fork")
def test_two_labs_lose_no_result(tmp_path: Path) -> None:
    """Both want the same file: one has all its results in it, the other was told."""
    path = tmp_path / "results.json"
    points = plan([{"n": n} for n in range(30)], 1)
    lab = Lab("a", 1, list, _run, lambda config: 1, str)
    children = []
    for half in (points[:20], points[10:]):
        child = os.fork()
        if not child:
            try:
                run_lab(lab, half, path)
            except BlockingIOError:
                os._exit(2)
            os._exit(0)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]
    assert set(codes) <= {0, 2}
    run_lab(lab, points, path)
    found = json.loads(path.read_text(encoding="utf-8"))["points"]
    assert sorted(point["config"]["n"] for point in found) == list(range(30))


@pytest.mark.skipif(os.name != "posix", reason="processes need fork")
def test_two_graders_lose_no_progress(tmp_path: Path) -> None:
    """Here nobody is told: each waits for the other, whose record takes no time."""
    from minillm.exercises import EXERCISES
    from minillm.exercises.report import Report
    from minillm.exercises.workbook import Progress

    names = list(EXERCISES)[:20]
    # Both have read the file before either writes.
    both = Progress(tmp_path), Progress(tmp_path)
    child = os.fork()
    mine = names[: len(names) // 2] if child else names[len(names) // 2 :]
    for name in mine:
        both[not child].note(Report(name, "passed"))
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    found = Progress(tmp_path)
    assert {found.status(name) for name in names} == {"passed"}
