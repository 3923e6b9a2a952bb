r"""Read files with suspicion.

Whoever wrote a file may have been interrupted, mistaken or hostile. A reader of this
course either understands a file, or says in one line which file it does not understand.
It never takes more time or memory than a fixed multiple of what lies on the disk,
whatever numbers stand in the file, and never runs anything that stands there.

The standard library reads JSON almost so. What is missing is said here, once:

>>> parse_json('{"steps": ' + "9" * 400 + "}", "a.json")
Traceback (most recent call last):
ValueError: a.json is not JSON (the number 999999999… is too long): write it again

A file that is larger than any of its kind is not even opened.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

__all__ = [
    "IMAGES",
    "check",
    "open_array",
    "parse_json",
    "read_json",
    "read_lines",
    "read_utf8",
]

# An installed package carries the committed results of the labs inside, since chapters
# quote them; in a checkout they lie beside the figures that are drawn from them.
_INSIDE = Path(__file__).resolve().parents[1] / "images"
IMAGES = _INSIDE if _INSIDE.is_dir() else _INSIDE.parents[1] / "images"

# What NumPy writes for one row of integers.
_HEADER = re.compile(
    r"\{'descr': '([<>|][ui][1248])', 'fortran_order': (?:False|True), "
    r"'shape': \((\d{1,18}),\), \} *\n"
)


def check(condition: bool, message: str) -> None:
    r"""Refuse a file unless a condition holds.

    Args:
        condition: what must be true of it.
        message: what to say if it is not.

    Raises:
        ValueError: with that message.

    Examples:
        >>> check(2 + 2 == 4, "it cannot count")
        >>> check(2 + 2 == 5, "it cannot count")
        Traceback (most recent call last):
        ValueError: it cannot count
    """
    if not condition:
        raise ValueError(message)


def read_utf8(path: str | os.PathLike[str], *, at_most: int | None = None) -> str:
    r"""Read a text file whole.

    Args:
        path: the file.
        at_most: refuse a file of more bytes than this.

    Returns:
        Its text.

    Raises:
        ValueError: if it is too large, or not UTF-8.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.txt"
        ...     _ = path.write_bytes("naïve".encode("latin-1"))
        ...     try:
        ...         read_utf8(path)
        ...     except ValueError as error:
        ...         print(str(error).replace(folder, ""))
        /a.txt is not UTF-8 at byte 2: write it again
    """
    if at_most is not None:
        size = Path(path).stat().st_size
        check(
            size <= at_most,
            f"{path} cannot be read: {size} bytes are more than {at_most}, the most "
            "that a file of its kind may have",
        )
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 at byte {error.start}: write it again"
        ) from None


def parse_json(text: str, name: object) -> Any:
    r"""Read JSON that no later step can stumble over.

    Args:
        text: the text.
        name: what to call it in an error.

    Returns:
        What it says.

    Raises:
        ValueError: if it is not JSON, is nested deeper than a hundred times, or holds
            an integer of more than 300 digits or half a surrogate pair: the first
            cannot be looked through, nor the second computed with, nor the third
            written.

    Examples:
        >>> parse_json("[" * 200 + "]" * 200, "a.json")
        Traceback (most recent call last):
        ValueError: a.json is not JSON (nested too deep): write it again
    """
    try:
        value = json.loads(text, parse_int=_integer)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        deep = True
    except ValueError as error:
        raise ValueError(f"{name} is not JSON ({error}): write it again") from None
    else:
        deep = _deeper(value, 100)
    if deep:
        raise ValueError(f"{name} is not JSON (nested too deep): write it again")
    return value


def _deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def _integer(digits: str) -> int:
    if len(digits) > 300:
        raise ValueError(f"the number {digits[:9]}… is too long")
    return int(digits)


def read_json(
    path: str | os.PathLike[str], *, at_most: int | None = None
) -> dict[str, Any]:
    """Read a file that must hold a JSON object.

    Args:
        path: the file.
        at_most: refuse a file of more bytes than this.

    Returns:
        The object.

    Raises:
        ValueError: if it is too large, or holds something else.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "facts.json"
        ...     _ = path.write_text('{"a": 1}', encoding="utf-8")
        ...     read_json(path)
        {'a': 1}
    """
    content = parse_json(read_utf8(path, at_most=at_most), path)
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold a JSON object; got {type(content).__name__}"
        )
    return content


def read_lines(
    path: str | os.PathLike[str], *, torn: bool = False
) -> list[dict[str, Any]]:
    r"""Read the log of a run: a JSON object in each line, which names its `event`.

    Args:
        path: the file.
        torn: whether to pass over lines that were not written to their end.

    Returns:
        The objects.

    Raises:
        ValueError: if a line holds something else.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "log.jsonl"
        ...     _ = path.write_text('{"event": "step"}\n{"eve', encoding="utf-8")
        ...     read_lines(path, torn=True)
        [{'event': 'step'}]
    """
    events = []
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            event = parse_json(line, f"{path}, line {number},")
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                raise ValueError(
                    f"{path}, line {number}, is no event of a run: train again"
                )
        except ValueError:
            if not torn:
                raise
        else:
            events.append(event)
    return events


def open_array(path: str | os.PathLike[str]) -> Any:
    r"""Open a row of integers in a `.npy` file, without reading it.

    `numpy.load` would do it too. It reads many kinds of files, and asks Python what
    their headers mean; here it is one kind.

    Args:
        path: the file, of [`atomic_array`][minillm.files.writing.atomic_array] or
            `numpy.save`.

    Returns:
        The row, mapped into memory.

    Raises:
        ValueError: if the file is damaged, or holds something else.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(folder + "/row.npy", np.array([1, 2, 3], np.uint16))
        ...     open_array(folder + "/row.npy").tolist()
        [1, 2, 3]
    """
    import numpy as np

    with Path(path).open("rb") as file:
        start = file.read(10)
        size = int.from_bytes(start[8:], "little")
        header = file.read(size).decode("latin-1")
        n_bytes = os.fstat(file.fileno()).st_size - len(start) - size
    found = _HEADER.fullmatch(header)
    if start[:8] != b"\x93NUMPY\x01\x00" or found is None:
        raise ValueError(f"{path} is not a .npy file with one row of integers")
    dtype, n = np.dtype(found[1]), int(found[2])
    if n_bytes != n * dtype.itemsize:
        raise ValueError(
            f"{path} is damaged: of {n} numbers in its header it holds "
            f"{max(n_bytes, 0) // dtype.itemsize}"
        )
    # Nothing cannot be mapped.
    if not n:
        return np.empty(0, dtype)
    return np.memmap(path, dtype, "r", offset=10 + size, shape=(n,))
