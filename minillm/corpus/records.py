r"""Read what a crawler left: WARC, HTML, text or JSON lines, one record at a time.

A file from the web is damaged sooner or later, and a run over a thousand files must not
end at the first. So nothing here raises because of what a file *contains*: what cannot
be read comes out as a record, too, with a `problem` in place of data, and can be
counted.

>>> import tempfile
>>> folder = tempfile.TemporaryDirectory()
>>> path = Path(folder.name) / "texts.jsonl"
>>> _ = path.write_bytes(b'{"text": "One."}\nnot JSON\n{"txt": "Two."}\n')
>>> for record in read_records(path):
...     print(record.name, record.problem or record.data)
texts.jsonl:1 b'One.'
texts.jsonl:2 not a JSON object with a text
texts.jsonl:3 not a JSON object with a text
>>> folder.cleanup()

[WARC](https://iipc.github.io/warc-specifications/) (ISO 28500) is the format of web
archives, Common Crawl's among them: for each page a record with what the server sent,
headers included, each compressed alone. Reading and writing it is the work of the
library `warcio`, in the extra `curation`.

Whatever a record claims to be, at most [`LONGEST`][minillm.corpus.records.LONGEST]
bytes of it are held in memory.
"""

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, Final

from minillm.corpus.crawl import Page
from minillm.data import stream_documents

__all__ = ["LONGEST", "Record", "read_records", "write_warc"]

LONGEST: Final = 1 << 24
"""More bytes than any page or text of use has."""

HTML_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})


@dataclass(frozen=True)
class Record:
    """One page or text, or the reason why there is none.

    Attributes:
        name: an address, or a file and a number.
        data: what was found.
        declared: the encoding that was named with it; empty if none was.
        html: whether it is HTML; otherwise it is text.
        problem: why it cannot be used; empty if it can.
    """

    name: str
    data: bytes = b""
    declared: str = ""
    html: bool = False
    problem: str = ""


def read_records(path: str | PathLike[str], *, field: str = "text") -> Iterator[Record]:
    r"""Read the records of a file.

    Args:
        path: a file named `.warc` or `.warc.gz`; `.html` or `.htm`; `.jsonl`; any other
            is text in UTF-8, whose documents two blank lines divide.
        field: where a JSON object has its text.

    Returns:
        Every record, readable or not, as it is asked for.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if a WARC is to be read and warcio is missing.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "two.txt"
        ...     _ = path.write_text("One.\n\n\nTwo.\n", encoding="utf-8")
        ...     [(record.name, record.data) for record in read_records(path)]
        [('two.txt:1', b'One.'), ('two.txt:2', b'Two.')]
    """
    path = Path(path)
    ends = path.name.lower()
    if ends.endswith((".warc", ".warc.gz")):
        return _warc(path)
    if ends.endswith((".html", ".htm")):
        return _html(path)
    return _json_lines(path, field) if ends.endswith(".jsonl") else _text(path)


def _html(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        yield _whole(path.name, file.read(LONGEST + 1), "", html=True)


def _whole(name: str, data: bytes, declared: str, *, html: bool) -> Record:
    if len(data) > LONGEST:
        return Record(name, problem=f"more than {LONGEST >> 20} MiB")
    return Record(name, data, declared, html)


def _text(path: Path) -> Iterator[Record]:
    number = 0
    try:
        for number, text in enumerate(stream_documents(path), 1):
            yield Record(f"{path.name}:{number}", text.encode(), "utf-8")
    except ValueError:
        yield Record(f"{path.name}:{number + 1}", problem="not UTF-8, unread from here")


def _json_lines(path: Path, field: str) -> Iterator[Record]:
    with path.open("rb") as file:
        number = 0
        # A line is read in parts, so that one without an end is no danger.
        while line := file.readline(LONGEST + 1):
            number += 1
            name = f"{path.name}:{number}"
            if len(line) > LONGEST:
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST)
                yield Record(name, problem=f"more than {LONGEST >> 20} MiB")
                continue
            if not line.strip():
                continue
            try:
                data = json.loads(line)[field].encode()
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                yield Record(name, problem="not a JSON object with a text")
            else:
                yield Record(name, data, "utf-8")


def _warcio(module: str) -> Any:
    try:
        return import_module(f"warcio.{module}")
    except ImportError as error:
        raise ImportError(
            "WARC is read and written by warcio, the extra 'curation': "
            "pip install warcio"
        ) from error


def _warc(path: Path) -> Iterator[Record]:
    open_archive = _warcio("archiveiterator").ArchiveIterator
    # What damaged archives make the library raise, as far as we have seen.
    damage = (
        _warcio("exceptions").ArchiveLoadFailed,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        AttributeError,
    )
    number, end = 0, 0
    with path.open("rb") as file:
        records = open_archive(file)
        while True:
            number += 1
            name = f"{path.name}:{number}"
            try:
                record = next(records)
                page = _page(record, name)
                records.read_to_end(record)
                end = records.get_record_offset() + records.get_record_length()
            except StopIteration:
                break
            except damage:
                yield Record(name, problem="damaged WARC, unread from here")
                return
            yield page
        # To the library a file that ends within a header looks like one that is over.
        file.seek(end)
        if file.read(LONGEST).strip():
            yield Record(name, problem="a truncated WARC record")


def _page(record: Any, place: str) -> Record:
    """Turn a record of warcio into one of ours."""
    kind = record.rec_type
    name = record.rec_headers.get_header("WARC-Target-URI") or place
    if kind not in {"response", "resource", "conversion"}:
        return Record(name, problem=f"a WARC record of type {kind}, no page")
    headers = record.http_headers or record.rec_headers
    named = (headers.get_header("Content-Type") or "").lower()
    media, _, parameters = named.partition(";")
    _, _, charset = parameters.partition("charset=")
    if record.http_headers and record.http_headers.get_statuscode() != "200":
        return Record(name, problem="an answer other than 200")
    if media.strip() not in HTML_TYPES | {"text/plain"}:
        return Record(name, problem="neither HTML nor text")
    data = record.content_stream().read(LONGEST + 1)
    left = getattr(record.raw_stream, "limit", 0)
    if left > 0 and len(data) <= LONGEST:
        return Record(name, problem="a truncated WARC record")
    declared = charset.split(";")[0].strip(" \"'")
    return _whole(name, data, declared, html=media.strip() in HTML_TYPES)


def write_warc(pages: Iterable[Page], path: str | PathLike[str]) -> None:
    """Write pages of the crawl as a WARC, compressed if the name ends in `.gz`.

    Args:
        pages: the pages.
        path: the file to write. The same pages give the same bytes.

    Raises:
        ImportError: if warcio is missing.
    """
    headers_of = _warcio("statusandheaders").StatusAndHeaders
    write = _warcio("warcwriter").WARCWriter
    with Path(path).open("wb") as file:
        writer = write(file, gzip=str(path).endswith(".gz"))
        for number, page in enumerate(pages):
            media = f"text/html; charset={page.declared}"
            record = writer.create_warc_record(
                page.url,
                "response",
                payload=BytesIO(page.html),
                length=len(page.html),
                http_headers=headers_of(
                    "200 OK", [("Content-Type", media)], protocol="HTTP/1.1"
                ),
                # Otherwise each writing would choose another date and another id.
                warc_headers_dict={
                    "WARC-Date": "2026-01-01T00:00:00Z",
                    "WARC-Record-ID": f"<urn:uuid:{number:032x}>",
                },
            )
            writer.write_record(record)
