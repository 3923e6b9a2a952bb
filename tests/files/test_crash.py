"""A failure at each step that writes: afterwards the old or the new file is whole.

Each writer of the package replaces something old. Its steps are opening a file, each
write, flush, fsync, rename, link, and each new folder. It is run again and again, and
fails at the first step, then the second, until it comes to its end: the process is
killed, or the disk is full from there on. Then all files must be old or new, to the
byte, and the same writer, run again, must end with the new ones and remove what the
killed one left.
"""

import errno
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.corpus.prepare import Corpus, prepare
from minillm.files.writing import atomic_array, atomic_folder, atomic_write
from minillm.hub import save_llama
from minillm.labs.bench import Lab, run_lab
from minillm.model import TransformerLM
from minillm.runs.run import Run
from minillm.runs.start import start as start_run
from minillm.train import TrainConfig, Trainer, save_checkpoint

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills need fork")

UNFINISHED = re.compile(r"\..*\.[0-9a-f]{8}\.tmp")
CALLS = ("fsync", "replace", "rename", "link", "mkdir")


class Failing(io.BufferedWriter):
    """A file in which a step can fail, half-way through."""

    step: Callable[[str], None]

    def write(self, data: Any) -> int:
        try:
            Failing.step("write")
        except BaseException:
            super().write(bytes(data)[: len(data) // 2])
            super().flush()
            Failing.step("after")
            raise
        return super().write(data)

    def flush(self) -> None:
        if not self.closed:
            Failing.step("flush")
        super().flush()


@contextmanager
def failing(at: int, fail: Callable[[], None]) -> Generator[list[str], None, None]:
    """Call `fail` at step number `at`, from 1, and at all after it."""
    steps: list[str] = []

    def step(name: str) -> None:
        if name == "after":  # a killed process has written half before it dies
            fail_hard()
            return
        steps.append(name)
        if len(steps) >= at:
            if name == "write":
                raise Stop
            fail()

    class Stop(BaseException):
        pass

    def fail_hard() -> None:
        fail()

    def opened(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if not set(mode) & set("wxa+") or mode == "r+b":
            return real_open(self, mode, *rest, **options)
        step(f"open {mode}")
        file = Failing(io.FileIO(self, mode.replace("b", "").replace("+", "")))
        return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8")

    def created(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            step("open")
        return real_create(path, flags, *rest, **options)

    def wrapped(descriptor: int, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode != "wb":
            return real_wrap(descriptor, mode, *rest, **options)
        return Failing(io.FileIO(descriptor, "w"))

    real_open, real_create, real_wrap = Path.open, os.open, os.fdopen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", opened)
        patch.setattr(os, "open", created)
        patch.setattr(os, "fdopen", wrapped)
        patch.setattr(Failing, "step", staticmethod(step), raising=False)
        for name in CALLS:
            patch.setattr(os, name, counted(name, getattr(os, name), step))
        yield steps


def counted(name: str, real: Any, step: Callable[[str], None]) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        step(name)
        return real(*args, **options)

    return call


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


def killed() -> None:
    os._exit(9)


def contents(folder: Path) -> dict[str, bytes]:
    """All finished files, by name; a lock is no content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.endswith(".lock")
        and not any(UNFINISHED.fullmatch(p) for p in path.relative_to(folder).parts)
    }


def unfinished(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if UNFINISHED.fullmatch(p.name)]


# What is written.

Writer = Callable[[Path, int], object]
WRITERS: dict[str, Writer] = {}


def writer(function: Writer) -> Writer:
    WRITERS[function.__name__] = function
    return function


SHAPE = ModelConfig(7, 8, 4, 1, 1, d_ff=2)
TOKENIZER = BPETokenizer({i: bytes([i]) for i in range(256)}, [], ["<|endoftext|>"])
TALES = [f"tale {i}" for i in range(9)]


def model(version: int) -> TransformerLM:
    torch.manual_seed(version)
    return TransformerLM(SHAPE)


@writer
def a_file(folder: Path, version: int) -> None:
    with atomic_write(folder / "file") as file:
        for _ in range(3):
            file.write(str(version).encode() * 20_000)


@writer
def a_row(folder: Path, version: int) -> None:
    with atomic_array(folder / "row.npy", np.uint16) as append:
        append([version] * 5)
        append([version] * 6000)


@writer
def checkpoints(folder: Path, version: int) -> None:
    trained = model(version)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    save_checkpoint(folder / "last.safetensors", trained, optimizer, version)


@writer
def tokenizers(folder: Path, version: int) -> None:
    tokenizer = BPETokenizer({0: b"a", 1: b"b"}, [], [f"<{version}>"])
    tokenizer.save(folder / "tokenizer.json")
    tokenizer.save_gpt2_files(folder / "vocab.json", folder / "merges.txt")


@writer
def encoded_files(folder: Path, version: int) -> None:
    TOKENIZER.encode_file(Path(__file__), folder / f"{version > 0}.npy")


@writer
def models(folder: Path, version: int) -> None:
    save_llama(model(version), folder, TOKENIZER)


@writer
def prepared_data(folder: Path, version: int) -> None:
    if version:
        text = folder.parent / "a.txt"
        text.write_bytes("\n\n\n".join(TALES).encode())
        prepare([text], folder / "data", tokenizer=TOKENIZER)


@writer
def lab_results(folder: Path, version: int) -> None:
    points = [({"n": n}, 0) for n in range(2 if version else 1)]
    lab = Lab("a", 1, list, lambda c, s: {"seconds": 0, **c}, lambda c: 1, str)
    run_lab(lab, points, folder / "results.json")


@writer
def exercises(folder: Path, version: int) -> None:
    from minillm.exercises import workbook

    if version:
        workbook.start(folder)


@writer
def progress(folder: Path, version: int) -> None:
    from minillm.exercises.report import Report
    from minillm.exercises.workbook import Progress as Record

    class Clock:
        now = staticmethod(lambda: Clock)
        astimezone = now
        isoformat = staticmethod(lambda timespec: "now")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minillm.exercises.workbook.datetime", Clock)
        status = ["wrong", "passed"][version]
        Record(folder).note(Report("bpe.merge", status, says="no"))


def a_run(folder: Path, version: int) -> Run:
    tokens = np.arange(60, dtype=np.uint8) % 7
    corpus = Corpus("tales", tokens, tokens, TOKENIZER, 3)
    config = TrainConfig(steps=4, batch_size=1, seed=version, eval_tokens=20)
    return Run(folder, corpus, Trainer(model(version), tokens, config))


@writer
def runs_that_start(folder: Path, version: int) -> None:
    if version:
        run = a_run(folder, version)
        start_run(folder / "run", run.corpus, SHAPE, run.trainer.config)


@writer
def runs_that_go_on(folder: Path, version: int) -> None:
    run = a_run(folder, version)
    run.write_settings()
    run.best = 2.0 - version
    save_llama(run.trainer.model, run.folder, run.corpus.tokenizer)
    run.save("best.safetensors")
    run.save("last.safetensors")


# The steps.


@pytest.fixture(scope="module")
def fast_disk() -> Iterator[Path]:
    """The steps are counted, not timed: memory does as well as a disk."""
    root = Path("/dev/shm")
    folder = (root if root.is_dir() else Path("/tmp")) / f"minillm-crash-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def before(name: str, folder: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What a writer leaves, first and last."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "work").mkdir(parents=True)
    WRITERS[name](folder / "work", 0)
    old = contents(folder / "work")
    shutil.copytree(folder / "work", folder / "old")
    WRITERS[name](folder / "work", 1)
    new = contents(folder / "work")
    assert new != old
    return old, new


def again(folder: Path) -> Path:
    shutil.rmtree(folder / "work")
    shutil.copytree(folder / "old", folder / "work")
    return folder / "work"


def check(folder: Path, old: dict[str, bytes], new: dict[str, bytes]) -> None:
    found = contents(folder)
    assert found.keys() <= old.keys() | new.keys()
    for file in old.keys() | new.keys():
        assert found.get(file) in (old.get(file), new.get(file)), f"{file} is torn"


def finish(name: str, folder: Path, new: dict[str, bytes]) -> None:
    """Starting the same again gives what was wanted, if it is not there already."""
    if contents(folder) != new or unfinished(folder):
        WRITERS[name](folder, 1)
    assert contents(folder) == new


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_at_every_step(name: str, fast_disk: Path) -> None:
    old, new = before(name, fast_disk)
    for at in count(1):
        folder = again(fast_disk)
        try:
            with failing(at, full) as steps:
                WRITERS[name](folder, 1)
        except OSError as error:
            assert re.search(r"No space left|could not be written", str(error))
        else:
            assert len(steps) < at
            break
        check(folder, old, new)
        assert not unfinished(folder)
        finish(name, folder, new)
    assert at > 5


@pytest.mark.check
@pytest.mark.parametrize("name", WRITERS)
def test_a_kill_at_every_step(name: str, fast_disk: Path) -> None:
    old, new = before(name, fast_disk)
    left_over = 0
    for at in count(1):
        folder = again(fast_disk)
        child = os.fork()
        if not child:
            with failing(at, killed):
                WRITERS[name](folder, 1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.waitstatus_to_exitcode(status):
            break
        assert os.waitstatus_to_exitcode(status) == 9
        check(folder, old, new)
        left_over += len(unfinished(folder))
        finish(name, folder, new)
        assert not unfinished(folder)
    assert at > 5
    assert left_over


@pytest.mark.parametrize("name", WRITERS)
def test_a_limit_to_the_size_of_files(name: str, fast_disk: Path) -> None:
    """The system itself refuses to write on, after so many bytes."""
    import resource

    old, new = before(name, fast_disk)
    sizes = {len(data) for file, data in new.items() if data != old.get(file)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in sorted({0, 1, *(s // 2 for s in sizes), *(s - 1 for s in sizes)}):
        folder = again(fast_disk)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(OSError):
                WRITERS[name](folder, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        check(folder, old, new)
        assert not unfinished(folder)


def test_the_log_of_a_run_loses_its_last_line_at_most(fast_disk: Path) -> None:
    """It grows line by line; what was torn off is passed over when it goes on."""
    event = {"event": "step", "step": 2, "loss": 1.0}
    for at in range(1, 20):
        shutil.rmtree(fast_disk / "log", ignore_errors=True)
        (fast_disk / "log").mkdir()
        run = a_run(fast_disk / "log", 0)
        run.saved = 2
        run.log({"event": "step", "step": 1})
        child = os.fork()
        if not child:
            with failing(at, killed):
                run.log(event)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert run.read_log() in (
            [{"event": "step", "step": 1}],
            [{"event": "step", "step": 1}, event],
        )
        run.shorten_log()
        run.log(event)
        lines = (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["step"] for line in lines] in ([1, 2], [1, 2, 2])
        if os.waitstatus_to_exitcode(status) == 0:
            break
    assert at > 2


def test_a_careless_writer_is_caught(fast_disk: Path) -> None:
    def careless(folder: Path, version: int) -> None:
        (folder / "a").write_bytes(str(version).encode() * 100)
        with atomic_folder(folder / str(version)):
            pass
        with atomic_write(folder / "b") as file:
            file.write(b"whole")

    WRITERS["careless"] = careless
    try:
        with pytest.raises(AssertionError, match="a is torn"):
            test_a_full_disk_at_every_step("careless", fast_disk)
        with pytest.raises(AssertionError, match="a is torn"):
            test_a_kill_at_every_step("careless", fast_disk)
        with pytest.raises(AssertionError, match="a is torn"):
            test_a_limit_to_the_size_of_files("careless", fast_disk)
    finally:
        del WRITERS["careless"]
