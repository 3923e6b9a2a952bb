r"""Write a file so that it is either complete or not there.

A run that is stopped while it writes leaves half a file, and half a checkpoint is worse
than none: it looks like one. The cure is old. Write under another name in the same
folder, ask the system to put the bytes on the disk, and only then rename. A rename
within one folder is a single act: whoever opens the name finds the old file or the new.
"""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_write"]


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
