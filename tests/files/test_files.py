"""A file is whole or not there: failing writes, full disks, kills."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from minillm.files.writing import atomic_folder, atomic_write, locked

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such thing")


def write(path: Path | str, data: bytes) -> None:
    with atomic_write(path) as file:
        file.write(data)


def names(folder: Path) -> list[str]:
    # The file of a lock stays: who removed it might remove that of another.
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


@contextlib.contextmanager
def full_disk(size: int) -> Generator[None, None, None]:
    """Let no file of this process grow beyond `size` bytes."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_new_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as file:
        file.write(b"....t")
        file.seek(0)
        file.write(b"firs")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    with atomic_write(str(path)) as file:
        file.write(b"2nd")
        file.flush()
        assert path.read_bytes() == b"first"
    assert path.read_bytes() == b"2nd"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, SystemExit])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failing_write_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException], old: bytes | None
) -> None:
    path = tmp_path / "file"
    if old:
        path.write_bytes(old)
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b"new" * 10_000)
        raise error
    assert names(tmp_path) == (["file"] if old else [])
    assert not old or path.read_bytes() == old


@posix
def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with full_disk(1000), pytest.raises(OSError):
        # Less than the buffer, so the error comes from the flush and not from here.
        write(path, b"x" * 1001)
    with full_disk(1000), pytest.raises(OSError):
        write(path, b"x" * 10**6)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]
    with full_disk(1000):
        write(path, b"x" * 1000)
    assert path.read_bytes() == b"x" * 1000


@posix
def test_bytes_then_name_then_folder_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    path, fsync, replace = tmp_path / "file", os.fsync, Path.replace

    def spy_fsync(fd: int) -> None:
        status = os.fstat(fd)
        is_folder = os.path.samestat(status, tmp_path.stat())
        seen.append("folder" if is_folder else f"{status.st_size} bytes")
        fsync(fd)

    def spy_replace(self: Path, target: Path) -> Path:
        seen.append(f"rename to {target.name}")
        assert self.parent == target.parent
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    write(path, b"12345")
    assert seen == ["5 bytes", "rename to file", "folder"]


def test_two_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as one, atomic_write(path) as other:
        one.write(b"one")
        other.write(b"other")
    # The inner block ends first, so the outer one has the last word.
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["file"]


def test_a_relative_name_is_fixed_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with atomic_write("file") as file:
        file.write(b"here")
        os.chdir("elsewhere")
    assert (tmp_path / "file").read_bytes() == b"here"


@posix
def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    link.symlink_to(target)
    for data in (b"made", b"replaced"):
        write(link, data)
        assert link.is_symlink()
        assert target.read_bytes() == data
    assert names(tmp_path) == ["folder", "link"]


@posix
def test_the_usual_rights(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        write(tmp_path / "file", b"")
    finally:
        os.umask(umask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "missing" / "file", b"")
    assert names(tmp_path) == []


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write(tmp_path / "folder", b"data")
    assert names(tmp_path) == ["folder"]


def test_a_folder_is_complete_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "a") as folder:
        (folder / "file").write_bytes(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    (tmp_path / "a").mkdir()
    # What appears meanwhile is not replaced, and nothing is left beside it.
    message = "a exists and is not an empty folder"
    with (
        pytest.raises(FileExistsError, match=message),
        atomic_folder(tmp_path / "a") as one,
    ):
        (one / "file").write_bytes(b"second")
        (tmp_path / "a" / "file").write_bytes(b"first")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a" / "file").read_bytes() == b"first"


def test_a_folder_is_filled_by_one_alone(tmp_path: Path) -> None:
    message = r"another process is working on .*a: let it end, or choose another name"
    with atomic_folder(tmp_path / "a") as one:
        with (
            pytest.raises(BlockingIOError, match=message),
            atomic_folder(tmp_path / "a"),
        ):
            pass
        (one / "file").write_bytes(b"first")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["file"]
    # In a folder that was there, and by one who waits.
    with (
        locked(tmp_path / "b"),
        pytest.raises(BlockingIOError),
        locked(tmp_path / "b", wait=0.1),
    ):
        pass
    with locked(tmp_path / "a", inside=True), locked(tmp_path / "a"):
        assert (tmp_path / "a" / ".lock").exists()


def test_what_is_there_is_kept_if_so_wanted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path, replace=False) as file:
        file.write(b"mine")
    for meanwhile in (False, True):
        if meanwhile:
            path.unlink()
        with (
            pytest.raises(FileExistsError, match="file exists: choose another name"),
            atomic_write(path, replace=False) as file,
        ):
            file.write(b"new")
            path.write_bytes(b"mine")
        assert path.read_bytes() == b"mine"
        assert names(tmp_path) == ["file"]


@posix
def test_a_file_is_not_taken_between_its_last_byte_and_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "file", Path.replace

    def late(self: Path, target: Path) -> Path:
        monkeypatch.undo()
        write(path, b"quick")  # which removes what it takes for left over
        assert self.exists()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", late)
    write(path, b"slow")
    assert path.read_bytes() == b"slow"


@posix
def test_what_killed_writers_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "fi[l]e*"
    left = [tmp_path / f".{path.name}.{8 * d}.tmp" for d in "0f"]
    others = [
        tmp_path / name
        for name in (".other.00000000.tmp", f".{path.name}.tmp", "file.00000000.tmp")
    ]
    for file in (*left, *others):
        file.write_bytes(b"half")
    write(path, b"whole")
    assert names(tmp_path) == sorted(file.name for file in (path, *others))
    # One that is being written is none of these, in this process or another.
    with atomic_write(path) as slow:
        slow.write(b"slow")
        code = f"from test_files import write; write({str(path)!r}, b'quick')"
        here = Path(__file__).parent
        subprocess.run([sys.executable, "-c", code], cwd=here, check=True)
        assert path.read_bytes() == b"quick"
        assert len(names(tmp_path)) == 2 + len(others)
    assert path.read_bytes() == b"slow"
    # The same for folders, which are locked from the side.
    (tmp_path / ".run.00000000.tmp" / "a").mkdir(parents=True)
    with atomic_folder(tmp_path / "run"):
        assert not (tmp_path / ".run.00000000.tmp").exists()


@posix
@pytest.mark.check
def test_a_real_kill(tmp_path: Path) -> None:
    path, size = tmp_path / "file", 2_000_000
    program = (
        "import itertools, sys\n"
        "from minillm.files.writing import atomic_folder, atomic_write\n"
        "for letter in itertools.cycle((b'a', b'b', b'c')):\n"
        "    with atomic_write(sys.argv[1]) as file:\n"
        f"        [file.write(letter * {size // 100}) for _ in range(100)]\n"
    )
    left_over = 0
    for seed in range(10):
        child = subprocess.Popen([sys.executable, "-c", program, str(path)])
        while not path.exists():
            time.sleep(0.01)
        time.sleep(random.Random(seed).uniform(0.05, 0.3))
        child.send_signal(signal.SIGKILL)
        child.wait()
        data = path.read_bytes()
        assert data == data[:1] * size
        left_over += len(list(tmp_path.glob(".file.*.tmp")))
    # Otherwise no kill hit a write, and the test has shown nothing.
    assert left_over


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o664])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_replaced_file_keeps_its_permissions(
    tmp_path: Path, mode: int, umask: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    before = os.umask(umask)
    try:
        with atomic_write(path) as file:
            file.write(b"new")
            # Nobody can read on the way what could not be read before.
            (unfinished,) = (p for p in tmp_path.iterdir() if p != path)
            assert not unfinished.stat().st_mode & 0o777 & ~(mode | 0o200)
        # A new file gets what the umask leaves.
        write(tmp_path / "new", b"new")
        with atomic_folder(tmp_path / "folder"):
            pass
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o666 & ~umask
        assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == mode


@posix
def test_a_folder_that_was_made_before_keeps_its_permissions(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir(0o700)
    with atomic_folder(target) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a").write_bytes(b"a")
    assert target.stat().st_mode & 0o777 == 0o700
    assert names(target) == ["a"]
