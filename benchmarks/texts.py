"""What is read by the benchmarks: text that every installation of Python has.

The code is the standard library's and, where that is not enough, the code of the
installed packages. The documentation is what stands in their docstrings. No text of the
tests is among them. Both differ a little from one machine to the next, so each record
says how many bytes were read; programs that are compared read the same ones.
"""

import re
import sysconfig
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from benchmarks.measure import Record

MB = 1_000_000
DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)


def sources() -> Iterator[str]:
    """The files of the standard library, then those of the installed packages."""
    paths = sysconfig.get_paths()
    library, packages = Path(paths["stdlib"]), Path(paths["purelib"])
    for folder in (library, packages):
        for path in sorted(folder.rglob("*.py")):
            if folder == packages or "site-packages" not in path.parts:
                yield path.read_text(encoding="utf-8", errors="replace")


def paragraphs() -> Iterator[str]:
    """The paragraphs of their docstrings, each once, without examples."""
    seen = set()
    for source in sources():
        for docstring in DOCSTRING.findall(source):
            for paragraph in textwrap.dedent(docstring).split("\n\n"):
                text = paragraph.strip()
                if len(text) > 80 and ">>>" not in text and text not in seen:
                    seen.add(text)
                    yield text + "\n\n"


def up_to(pieces: Iterator[str], size: int) -> str:
    """Take pieces until there is so much, and cut off what is too much."""
    taken, length = [], 0
    for piece in pieces:
        taken.append(piece)
        length += len(piece)
        if length >= size:
            break
    return "".join(taken)[:size]


@cache
def code(size: int) -> str:
    """So many characters of code, or as many as there are."""
    return up_to(sources(), size)


@cache
def documentation(size: int) -> str:
    """So many characters of documentation, or as many as there are."""
    return up_to(paragraphs(), size)


def noted(record: Record, name: str, text: str) -> str:
    """Put down in the record what is read, and return it."""
    what = {
        "code": "sources of the standard library, then of installed packages",
        "documentation": "docstrings of the standard library and installed packages",
    }[name.partition(",")[0]]
    record.texts[name] = {"what": what, "bytes": len(text.encode())}
    return text


def documents(text: str, size: int = 100_000) -> list[str]:
    """A text in pieces, as trainers that work in parallel want it."""
    return [text[i : i + size] for i in range(0, len(text), size)]
