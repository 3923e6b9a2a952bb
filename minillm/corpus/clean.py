r"""Clean files of any size: `minillm data clean`.

**The question.** The functions of [`minillm.curation`][] work on texts in memory. What
does it take to run them over more files than fit there, on several cores, in a night in
which the machine may be switched off?

Two passes. The first looks at each record alone: decode, extract, rules, signature. It
is most of the work, and any process can do any part of it. What it finds of each file
is kept beside the output, so that a second start begins where the first ended. The
second pass compares records with each other, in the order of the files, and holds a
signature for each text that it keeps, about six kilobytes with its tables; never a
text. So the result depends on nothing but the files: not on the number of processes,
nor on how often the run was stopped.

>>> import tempfile
>>> folder = tempfile.TemporaryDirectory()
>>> path = Path(folder.name) / "mixed.txt"
>>> from minillm.data import andersen
>>> tale = andersen()[2]
>>> texts = [tale, "2200 3700 1250\n" * 40, tale.replace("the", "a", 1)]
>>> _ = path.write_text("\n\n\n".join(texts), encoding="utf-8")
>>> report = clean([path], Path(folder.name) / "out")
>>> report["kept"], {reason: it["count"] for reason, it in report["dropped"].items()}
(1, {'rule: letters': 1, 'like another': 1})
>>> report["dropped"]["like another"]["samples"][0]["name"]
'mixed.txt:3'
>>> folder.cleanup()

# Past one machine

`clean` takes any executor in the manner of `concurrent.futures` in place of processes
of its own. The workers get records and return verdicts, so they need this package and
nothing of your files. With Dask, whose workers may stand on other machines:

```python
from distributed import Client

from minillm.corpus.clean import clean

with Client("tcp://scheduler:8786") as client, client.get_executor() as executor:
    clean(paths, "clean", executor=executor, workers=64)
```

A test does this with two workers, and compares the bytes with those of one process.
`workers` says how many have work at a time, and with that how much is held in memory:
twice as many batches of a mebibyte.

# What it writes

The folder holds `texts.jsonl`, which `minillm data prepare` reads; `dropped.jsonl`,
with the name and the reason of everything that is not in it; and `report.json`, which
counts. Every record is in exactly one of the first two.
"""

import codecs
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minillm.corpus.contamination import gram_hashes
from minillm.corpus.duplicates import Index
from minillm.corpus.extraction import decode, extract_text
from minillm.corpus.quality import broken_rule
from minillm.corpus.records import Record, read_records
from minillm.corpus.signatures import signature
from minillm.files.writing import atomic_folder, atomic_write, locked
from minillm.tokenizer.parallel import check_workers, map_in_order, processes
from minillm.tokenizer.streams import check_lists

__all__ = ["Settings", "clean"]

BATCH = 1 << 20
SAMPLES = 3
# Parts of an older version are made again.
VERSION = 1


@dataclass(frozen=True)
class Settings:
    """What `clean` is asked to do.

    Attributes:
        k: words in a shingle.
        n: length of a signature.
        bands: of the signature.
        threshold: the estimated Jaccard similarity from which two texts are alike.
        gram: words of an n-gram that must not be shared with a text kept apart.
        field: where a JSON object has its text.
    """

    k: int = 5
    n: int = 128
    bands: int = 32
    threshold: float = 0.5
    gram: int = 13
    field: str = "text"

    def __post_init__(self) -> None:
        for name in ("k", "n", "bands", "gram"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1; got {getattr(self, name)}"
                )
        if self.n % self.bands:
            raise ValueError(
                f"a signature of n={self.n} cannot be cut into bands={self.bands} "
                "equal bands: let one divide the other"
            )
        if not 0 < self.threshold <= 1:
            raise ValueError(
                f"threshold is a similarity in (0, 1]; got {self.threshold}"
            )


def clean(
    paths: Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    apart: Sequence[str | PathLike[str]] = (),
    settings: Settings | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Extract, filter and deduplicate the texts of many files.

    Args:
        paths: the files; see [`read_records`][minillm.corpus.records.read_records].
        out: the folder, which appears when it is complete.
        apart: files of test texts: what shares an n-gram with one is dropped.
        settings: thresholds; `None` for those of the course.
        workers: how many processes work; without it, this one alone.
        executor: works in place of processes of our own, as in
            [`train_bpe`][minillm.tokenizer.learning.train_bpe]; `workers` then says
            how many it has.
        say: told about each file.

    Returns:
        The report, as in `report.json`.

    Raises:
        FileExistsError: if the folder exists and is not empty.
        FileNotFoundError: if there is no such file.
        BlockingIOError: if another process is filling the folder.
        ImportError: if a WARC is to be read and warcio is missing.
    """
    settings, out = settings or Settings(), Path(out)
    n_workers = check_workers(workers)
    check_lists(paths=paths, apart=apart)
    for path in [*paths, *apart]:
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path}: check the name")
    held = _apart(apart, settings)
    parts_folder = out.with_name(f".{out.name}.parts")
    with atomic_folder(out) as folder, locked(parts_folder):
        parts_folder.mkdir(exist_ok=True)
        own = processes(n_workers) if n_workers > 1 and executor is None else None
        try:
            parts = [
                _part(
                    Path(path), parts_folder, settings, held, own or executor, n_workers
                )
                for path in paths
            ]
        finally:
            if own is not None:
                own.shutdown(cancel_futures=True)
        names = [Path(path).name for path in paths]
        report = {"files": names, "settings": asdict(settings)}
        report |= _compare(parts, folder, settings, say)
        with atomic_write(folder / "report.json") as file:
            file.write((json.dumps(report, indent=1) + "\n").encode())
    rmtree(parts_folder, ignore_errors=True)
    return report


def _apart(paths: Iterable[str | PathLike[str]], settings: Settings) -> NDArray[Any]:
    """Hash all n-grams of the texts that are kept apart."""
    held = []
    for path in paths:
        for record in read_records(path, field=settings.field):
            if record.problem:  # dropped in silence, it would be trained on
                raise ValueError(
                    f"{record.name}, to be kept apart, cannot be read "
                    f"({record.problem}): mend it, or name the right field"
                )
            held.append(gram_hashes(_text_of(record)[0], settings.gram))
    return np.unique(np.concatenate([np.empty(0, np.uint64), *held]))


def _text_of(record: Record) -> tuple[str, str]:
    text, encoding = decode(record.data, record.declared)
    return extract_text(text) if record.html else text.strip(), encoding


# The first pass: each record alone.


def _part(
    path: Path,
    folder: Path,
    settings: Settings,
    held: NDArray[Any],
    executor: Executor | None,
    workers: int,
) -> Path:
    """Look at the records of a file, unless an earlier start has done so."""
    facts = path.stat()
    what = [str(path.resolve()), facts.st_size, facts.st_mtime_ns, asdict(settings)]
    mark = hashlib.sha256(json.dumps([VERSION, what]).encode() + held.tobytes())
    part = folder / f"{mark.hexdigest()[:32]}.jsonl"
    if part.exists():
        return part
    tasks = ((batch, settings, held) for batch in _batches(path, settings.field))
    results: Iterator[list[str]]
    if executor is None:
        results = map(_examine, tasks)
    else:
        results = map_in_order(_examine, tasks, executor, workers)
    with atomic_write(part) as file:
        for lines in results:
            file.write("".join(f"{line}\n" for line in lines).encode())
    return part


def _batches(path: Path, field: str) -> Iterator[list[Record]]:
    batch, size = [], 0
    for record in read_records(path, field=field):
        batch.append(record)
        size += len(record.data) + 100
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _examine(task: tuple[list[Record], Settings, NDArray[Any]]) -> list[str]:
    records, settings, held = task
    return [json.dumps(_verdict(record, settings, held)) for record in records]


def _verdict(record: Record, settings: Settings, held: NDArray[Any]) -> dict[str, Any]:
    """Say what can be said of a record without looking at any other."""
    verdict: dict[str, Any] = {"name": record.name, "bytes": len(record.data)}
    if record.problem:
        return verdict | {"reason": record.problem}
    text, encoding = _text_of(record)
    # Half a surrogate pair is no text, and no file of UTF-8 could hold it.
    text = text.encode("utf-8", errors="replace").decode()
    verdict |= {"text": text}
    if record.declared and not _same(encoding, record.declared):
        verdict["encoding"] = f"declared {record.declared[:40]}, read as {encoding}"
    if not text:
        return verdict | {"reason": "no text"}
    if rule := broken_rule(text):
        return verdict | {"reason": f"rule: {rule}"}
    if np.isin(gram_hashes(text, settings.gram), held).any():
        return verdict | {"reason": "shares words with a text kept apart"}
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    row = signature(text, settings.k, settings.n)
    return verdict | {"digest": digest, "row": row.astype("<u8").tobytes().hex()}


def _same(used: str, declared: str) -> bool:
    """Whether two names mean one encoding, such as `utf8` and `UTF-8`."""
    try:
        one, other = (codecs.lookup(name.strip()).name for name in (used, declared))
    except (LookupError, ValueError):
        return False
    # With its mark at the beginning, UTF-8 is UTF-8 all the same.
    return one.removesuffix("-sig") == other.removesuffix("-sig")


# The second pass: all of them, in order.


def _compare(
    parts: Sequence[Path], folder: Path, settings: Settings, say: Callable[[str], None]
) -> dict[str, Any]:
    """Drop copies, write both files, and count."""
    index = Index(settings.bands, settings.threshold)
    digests: dict[str, str] = {}
    names: dict[int, str] = {}
    counts = {"records": 0, "bytes": 0, "kept": 0, "kept_bytes": 0}
    dropped: dict[str, dict[str, Any]] = {}
    encodings: dict[str, int] = {}
    with (
        atomic_write(folder / "texts.jsonl") as texts,
        atomic_write(folder / "dropped.jsonl") as rest,
    ):
        for verdict in _verdicts(parts):
            counts["records"] += 1
            counts["bytes"] += verdict["bytes"]
            if note := verdict.get("encoding"):
                encodings[note] = encodings.get(note, 0) + 1
            reason, like = verdict.get("reason"), None
            if reason is None:
                if like := digests.get(verdict["digest"]):
                    reason = "the same as another"
                else:
                    row = np.frombuffer(bytes.fromhex(verdict["row"]), "<u8")
                    number = index.count
                    found = index.add(row.astype(np.uint64))
                    if found is not None:
                        reason, like = "like another", names[found]
                    else:
                        names[number] = digests[verdict["digest"]] = verdict["name"]
            if reason is None:
                counts["kept"] += 1
                counts["kept_bytes"] += len(verdict["text"].encode())
                line = {"text": verdict["text"], "source": verdict["name"]}
                texts.write((json.dumps(line) + "\n").encode())
                continue
            gone = {"name": verdict["name"], "reason": reason}
            gone |= {"like": like} if like else {}
            rest.write((json.dumps(gone) + "\n").encode())
            group = dropped.setdefault(reason, {"count": 0, "bytes": 0, "samples": []})
            group["count"] += 1
            group["bytes"] += verdict["bytes"]
            if len(group["samples"]) < SAMPLES:
                start = " ".join(verdict.get("text", "")[:200].split())[:80]
                group["samples"].append(gone | {"text": start})
    say(f"{counts['records']:,} records, {counts['kept']:,} kept")
    return {**counts, "dropped": dropped, "encodings": encodings}


def _verdicts(parts: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for part in parts:
        with part.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
