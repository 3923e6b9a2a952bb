r"""Write files and folders so that they are either complete or not there.

A run that is stopped while it writes leaves half a file, and half a checkpoint is worse
than none: it looks like a whole one. The cure is old. Write under another name in the
same folder, ask the system to put the bytes on the disk, and only then rename. A rename
within one folder is atomic: a reader finds the old file or the new one. The new file
has the permissions of the one that it replaces.

A process killed mid-write leaves its temporary file behind: `.NAME.`, eight hexadecimal
digits, `.tmp`. The next writer of the same file removes it, unless it is still being
written. How can it know? Not by a process number, which may belong to another process
by now, nor by the clock, since a laptop may have slept. A writer *locks* what it
writes, and the system releases a lock together with its process, however that ends.
"""

import glob
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows, which refuses to remove a file that is open
    fcntl = None  # type: ignore[assignment]  # it is a module elsewhere

__all__ = ["atomic_array", "atomic_folder", "atomic_write", "check_free", "locked"]


@contextmanager
def atomic_write(
    path: str | os.PathLike[str], *, replace: bool = True
) -> Generator[BinaryIO, None, None]:
    r"""Open a file for writing that appears under its name only when it is whole.

    Args:
        path: where the file shall be. The folder must exist. A symbolic link is
            followed.
        replace: whether a file of that name is replaced.

    Yields:
        A binary file, to write and to seek in.

    Raises:
        FileExistsError: if there is a file that is not to be replaced.
        OSError: if the folder does not exist or cannot be written to.

    Examples:
        A block that fails leaves the old file as it was, and nothing beside it:

        >>> import tempfile
        >>> import os
        >>> from pathlib import Path
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "notes.txt"
        >>> with atomic_write(path) as file:
        ...     _ = file.write(b"first")
        >>> try:
        ...     with atomic_write(path) as file:
        ...         _ = file.write(b"sec")
        ...         raise KeyboardInterrupt
        ... except KeyboardInterrupt:
        ...     pass
        >>> path.read_bytes(), os.listdir(folder.name)
        (b'first', ['notes.txt'])
        >>> folder.cleanup()
    """
    target = Path(os.path.realpath(path))
    if not replace and target.exists():
        raise FileExistsError(f"{target} exists: choose another name")
    _clear(target)
    mode = _mode(target)
    unfinished, file = _open_unfinished(target, mode)
    # A second way to the same open file, since the lock must outlast the renaming.
    held = os.dup(file.fileno()) if fcntl else None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _set_mode(unfinished, mode)
        if replace:
            unfinished.replace(target)
        else:
            _rename_to_free(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    finally:
        if held is not None:
            os.close(held)
    _sync_folder(target.parent)


def _sync_folder(path: Path) -> None:
    # A new name lives in its folder, so the folder has to reach the disk too. Windows
    # can neither open a folder nor needs it.
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _other_name(target: Path) -> Path:
    # The random part keeps two writers of the same file apart.
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


def _left_over(target: Path) -> list[Path]:
    digits = "[0-9a-f]" * 8
    return [*target.parent.glob(f".{glob.escape(target.name)}.{digits}.tmp")]


def _clear(target: Path) -> None:
    """Remove what writers of this file left behind when they were killed."""
    for left in _left_over(target):
        # What is locked is being written; what cannot be opened belongs to others.
        with suppress(OSError), left.open("r+b") as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
        if not fcntl:
            with suppress(OSError):
                left.unlink()


def _mode(target: Path) -> int | None:
    """The permissions of what is about to be replaced; `None` if nothing is."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except OSError:
        return None


def _set_mode(unfinished: Path, mode: int | None) -> None:
    if mode is not None:
        with suppress(OSError):  # a file system without permissions
            unfinished.chmod(mode)


def _open_unfinished(target: Path, mode: int | None) -> tuple[Path, BinaryIO]:
    """Open a new file beside the target, with its permissions, and lock it."""
    # Never open to more readers than the old file was, not even for a moment. A new
    # file gets what the umask leaves, unlike one of `tempfile`.
    rights = 0o666 if mode is None else (mode & 0o666) | stat.S_IWUSR
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        unfinished = _other_name(target)
        file = os.fdopen(os.open(unfinished, flags, rights), "wb")
        if fcntl:
            # A few network file systems have no locks. There nothing is removed either.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        # Another writer may have taken it for a left one before it was locked.
        if os.fstat(file.fileno()).st_nlink or not fcntl:
            return unfinished, file
        file.close()


def _rename_to_free(unfinished: Path, target: Path) -> None:
    """Rename, unless that would replace a file, even one that appears only now."""
    if os.name == "nt":
        unfinished.rename(target)  # which Windows refuses if the name is taken
        return
    try:
        os.link(unfinished, target)
    except FileExistsError:
        raise FileExistsError(f"{target} exists: choose another name") from None
    unfinished.unlink()


@contextmanager
def atomic_array(
    path: str | os.PathLike[str], dtype: Any
) -> Generator[Callable[[Any], None], None, None]:
    r"""Write a sequence of numbers of unknown length as a `.npy` file, part by part.

    Args:
        path: where the file shall be. `numpy.load(path, mmap_mode="r")` opens it
            without reading it.
        dtype: the type of the numbers.

    Yields:
        A function that takes the next part.

    Raises:
        OSError: if the folder does not exist or cannot be written to.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_array(Path(folder) / "row.npy", np.uint16) as append:
        ...         append([1, 2])
        ...         append([3])
        ...     np.load(Path(folder) / "row.npy").tolist()
        [1, 2, 3]
    """
    # `minillm.bpe` imports this module, and must not need NumPy before it works.
    import numpy as np

    n = 0
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (0,)}
    with atomic_write(path) as file:

        def append(part: Any) -> None:
            nonlocal n
            file.write(np.asarray(part, dtype).tobytes())
            n += len(part)

        # The header says how many numbers follow, which is known at the end. NumPy
        # leaves room in it for any number, so it can be written again in its place.
        np.lib.format.write_array_header_1_0(file, header)
        # If the block fails, `atomic_write` clears up.
        yield append  # ruff: ignore[fallible-context-manager]
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (n,)})


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Generator[Path, None, None]:
    r"""Fill a folder that appears under its name only when all its files are there.

    Args:
        path: where the folder shall be. Folders around it are made.

    Yields:
        The folder to fill, under another name beside it.

    Raises:
        FileExistsError: if there is something of that name that is not empty.
        BlockingIOError: if another process is filling it.
        OSError: if the folder cannot be made.

    Examples:
        >>> import tempfile
        >>> outer = tempfile.TemporaryDirectory()
        >>> with atomic_folder(Path(outer.name) / "a" / "run") as folder:
        ...     _ = (folder / "notes.txt").write_bytes(b"first")
        >>> [path.name for path in Path(outer.name).glob("a/run/*")]
        ['notes.txt']
        >>> outer.cleanup()
    """
    target = Path(os.path.realpath(path))
    check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target):
        # The lock is ours alone, so what other writers have left is unfinished.
        for left in _left_over(target):
            shutil.rmtree(left, ignore_errors=True)
        unfinished, mode = _other_name(target), _mode(target)
        unfinished.mkdir(0o777 if mode is None else mode | stat.S_IRWXU)
        try:
            yield unfinished
            check_free(target)
            # Not every system renames a folder to a name that is taken, even by an
            # empty one.
            if target.exists():
                target.rmdir()
            _set_mode(unfinished, mode)
            unfinished.replace(target)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    _sync_folder(target.parent)


@contextmanager
def locked(
    path: str | os.PathLike[str], *, wait: float = 0.0, inside: bool = False
) -> Generator[None, None, None]:
    r"""Keep other processes away from a file or folder, for as long as the block runs.

    The lock is on a small file, `.NAME.lock`, which stays. The system releases the
    lock with its process, however that ends.

    Args:
        path: what is going to be written; it need not exist yet.
        wait: how many seconds to wait for another process.
        inside: whether the small file is called `.lock` and lies in the folder.

    Yields:
        Nothing.

    Raises:
        BlockingIOError: if another process holds the lock.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     try:
        ...         with locked(folder + "/results.json"):
        ...             with locked(folder + "/results.json"):
        ...                 pass
        ...     except BlockingIOError as error:
        ...         print(str(error).replace(os.path.realpath(folder), "…"))
        another process is working on …/results.json: let it end, or choose another name
    """
    # Imported here as in `atomic_array`; reading needs no lock.
    from filelock import FileLock, Timeout

    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.lock")
    lock = FileLock(target / ".lock" if inside else beside)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise BlockingIOError(
            f"another process is working on {target}: let it end, or choose another "
            "name"
        ) from None
    try:
        yield
    finally:
        lock.release()


def check_free(path: Path) -> None:
    """Make sure that nothing would be lost by a new folder of this name.

    Args:
        path: where the folder shall be.

    Raises:
        FileExistsError: if there is something of that name that is not empty.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_free(Path(folder))  # empty
        ...     check_free(Path(folder) / "new")
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(
            f"{path} exists and is not an empty folder: choose another name"
        )
