r"""Write files and folders so that they are either complete or not there.

A run that is stopped while it writes leaves half a file, and half a checkpoint is worse
than none: it looks like one. The cure is old. Write under another name in the same
folder, ask the system to put the bytes on the disk, and only then rename. A rename
within one folder is a single act: whoever opens the name finds the old file or the new.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["atomic_array", "atomic_folder", "atomic_write", "check_free"]


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Generator[BinaryIO, None, None]:
    r"""Open a file for writing that appears under its name only when it is whole.

    Args:
        path: where the file shall be. The folder must exist; a file of that name is
            replaced. A symbolic link is followed.

    Yields:
        A binary file, to write and to seek in.

    Raises:
        OSError: if the folder does not exist or cannot be written to.

    Examples:
        A block that fails leaves the old file as it was, and nothing beside it:

        >>> import tempfile
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
    # The random part keeps two writers of the same file apart. Mode "x" refuses to open
    # a file that exists and, unlike `tempfile`, gives the new one the usual rights.
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    # The new name lives in the folder, so the folder has to reach the disk too. Windows
    # can neither open a folder nor needs it.
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def atomic_array(
    path: str | os.PathLike[str], dtype: Any
) -> Generator[Callable[[Any], None], None, None]:
    r"""Write a row of numbers of unknown length as a `.npy` file, part by part.

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
        OSError: if the folder cannot be made.

    Examples:
        >>> import tempfile
        >>> outer = tempfile.TemporaryDirectory()
        >>> with atomic_folder(Path(outer.name) / "a" / "run") as folder:
        ...     _ = (folder / "notes.txt").write_bytes(b"first")
        >>> os.listdir(Path(outer.name) / "a"), os.listdir(Path(outer.name) / "a/run")
        (['run'], ['notes.txt'])
        >>> outer.cleanup()
    """
    target = Path(os.path.realpath(path))
    check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    unfinished.mkdir()
    try:
        yield unfinished
        check_free(target)
        # Not every system renames a folder to a name that is taken, even by an empty
        # one.
        if target.exists():
            target.rmdir()
        unfinished.replace(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


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
