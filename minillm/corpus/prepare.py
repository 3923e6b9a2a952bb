r"""Your own text: from files of any size to token files.

**The question.** The fairy tales fit into memory a thousand times over. A text worth
training on for a week does not. How does it become a sequence of ids?

By never holding more of it than one document and those that are being encoded. The
files are read three times: once to count documents, once to train a tokenizer on the
training part, once to encode. The result is a folder:

| file | what it holds |
| --- | --- |
| `train.npy`, `validation.npy` | a sequence of ids each, to be memory-mapped |
| `tokenizer.json` | what they mean |
| `data.json` | how many documents, tokens and bytes |

```console
minillm data prepare shakespeare.txt letters.jsonl --out data/mine
minillm train --data data/mine --out runs/mine
```

# What is held out

[`split`][minillm.data.split] holds out the end of a text. That needs the whole text in
memory, and if the text is several files, its end may be of another kind. Here the
*hash* of each document decides, a number that looks random but is always the same for
the same text. So a document stays in its split whatever is added or reordered, and a
document that occurs twice is never in both:

>>> round(hash_of("once upon a time"), 3), hash_of("once upon a time") < 0.1
(0.08, True)
>>> tales = [f"tale {i}" for i in range(1000)]
>>> sum(hash_of(tale) < 0.1 for tale in tales)
97
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from minillm.bpe import BPETokenizer
from minillm.config import VOCAB_SIZE
from minillm.data import (
    END_OF_TEXT,
    SEPARATOR,
    andersen,
    end_of_text,
    split,
    stream_documents,
    tokenize,
)
from minillm.files.reading import open_array, parse_json, read_utf8
from minillm.files.writing import atomic_array, atomic_folder, atomic_write, check_free
from minillm.tokenizer.encoding import encode_each
from minillm.tokenizer.streams import check_lists

__all__ = ["Corpus", "embedded_corpus", "hash_of", "load_corpus", "prepare"]

# A text without two blank lines anywhere is cut at one, or at every line.
SEPARATORS: Final = {SEPARATOR: "documents", "\n\n": "paragraphs", "\n": "lines"}
PARTS: Final = ("train", "validation")


def hash_of(document: str) -> float:
    r"""Turn a text into a number that looks random and depends on nothing else.

    Args:
        document: the text.

    Returns:
        A number in $[0, 1)$.

    Examples:
        >>> hash_of("a tale") == hash_of("a tale") != hash_of("another")
        True
    """
    digest = hashlib.blake2b(document.encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def prepare(
    paths: Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    vocab_size: int = VOCAB_SIZE,
    tokenizer: BPETokenizer | None = None,
    field: str = "text",
    validation: float = 0.1,
    workers: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    r"""Turn files into a folder of tokens that a model can be trained on.

    Args:
        paths: files of text, or of JSON lines; see
            [`stream_documents`][minillm.data.stream_documents].
        out: the folder, which appears when it is complete.
        vocab_size: how many tokens a new vocabulary has.
        tokenizer: one to use instead of a new one.
        field: under which name a JSON object holds its document.
        validation: which share of the documents is held out, in $(0, 1)$. At least one
            is, and at least one is not.
        workers: how many processes work.
        say: told about each step.

    Returns:
        What `data.json` says.

    Raises:
        FileExistsError: if the folder exists and is not empty.
        BlockingIOError: if another process is filling it.
        ValueError: if there are not two different documents, or a file is not what it
            should be.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "tales.txt"
        ...     _ = path.write_text("\n\n\n".join("abcdefgh"), encoding="utf-8")
        ...     out = Path(folder) / "data"
        ...     facts = prepare([path], out, vocab_size=257, workers=1)
        ...     training = load_corpus(out).training.tolist()
        >>> facts["documents"], training[:5]  # "a" is held out
        ({'train': 7, 'validation': 1}, [256, 98, 256, 99, 256])
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation must lie between 0 and 1; got {validation}")
    check_free(Path(out))
    check_lists(paths=paths)
    separator, limit = _survey(paths, field, validation, say)

    def documents() -> Iterator[tuple[bool, str]]:
        for path in paths:
            for document in stream_documents(path, separator=separator, field=field):
                yield hash_of(document) < limit, document

    # Created before the work starts, so that a second process fails at once.
    with atomic_folder(out) as folder:
        if tokenizer is None:
            say(f"learning {vocab_size:,} tokens from the rest")
            training = (document for aside, document in documents() if not aside)
            tokenizer = BPETokenizer.train(
                training, vocab_size, [END_OF_TEXT], workers=workers
            )
        end_of_text(tokenizer)
        say("encoding")
        counts = _write(documents(), tokenizer, workers, folder)
        tokenizer.save(folder / "tokenizer.json")
        facts = {
            "sources": [_name(path) for path in paths],
            "vocab_size": tokenizer.vocab_size,
            "tokenizer": _fingerprint(folder / "tokenizer.json"),
            **counts,
        }
        with atomic_write(folder / "data.json") as file:
            file.write((json.dumps(facts, indent=2) + "\n").encode())
    return facts


def _name(path: str | PathLike[str]) -> str:
    # Where the system's encoding lacks a letter, Python's strings hold bytes instead.
    return os.fsencode(Path(path).name).decode(errors="replace")


def _survey(
    paths: Sequence[str | PathLike[str]],
    field: str,
    validation: float,
    say: Callable[[str], None],
) -> tuple[str, float]:
    """Find out where the text can be cut, and below which hash it is held out."""
    for separator, name in SEPARATORS.items():
        n, low, high = 0, 1.0, 0.0
        for path in paths:
            for document in stream_documents(path, separator=separator, field=field):
                n, value = n + 1, hash_of(document)
                low, high = min(low, value), max(high, value)
        if low < high:
            say(f"{n:,} {name}")
            break
        say(f"fewer than two {name}")
    else:
        raise ValueError(
            f"{', '.join(map(str, paths))}: {'one line' if n else 'no text'} cannot be "
            "split into training and validation text: bring more"
        )
    # One document at least on either side, however few there are.
    limit = min(max(validation, float(np.nextafter(low, 1))), high)
    return separator, limit


def _write(
    documents: Iterable[tuple[bool, str]],
    tokenizer: BPETokenizer,
    workers: int | None,
    folder: Path,
) -> dict[str, dict[str, int]]:
    """Encode each document into the file of its side, and count."""
    end, dtype = end_of_text(tokenizer), np.min_scalar_type(tokenizer.vocab_size - 1)
    # Encoders read ahead: the splits of documents under way wait in a queue.
    sides: deque[bool] = deque()
    n_documents, n_bytes, n_tokens = [0, 0], [0, 0], [1, 1]

    def texts() -> Iterator[str]:
        for aside, document in documents:
            sides.append(aside)
            n_documents[aside] += 1
            n_bytes[aside] += len(document.encode())
            yield document

    with (
        atomic_array(folder / "train.npy", dtype) as train,
        atomic_array(folder / "validation.npy", dtype) as validation,
    ):
        files = (train, validation)
        for append in files:
            append([end])
        for ids in encode_each(tokenizer, texts(), workers, ()):
            aside = sides.popleft()
            files[aside](ids)
            files[aside]([end])
            n_tokens[aside] += len(ids) + 1
    counts = {"documents": n_documents, "bytes": n_bytes, "tokens": n_tokens}
    return {what: dict(zip(PARTS, n, strict=True)) for what, n in counts.items()}


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Corpus:
    """A text to train on, as ids.

    Attributes:
        name: what it is.
        training: the part to train on.
        validation: the held-out part.
        tokenizer: what the ids mean.
        documents: of how many documents the training part consists.
    """

    name: str
    training: NDArray[Any]
    validation: NDArray[Any]
    tokenizer: BPETokenizer
    documents: int

    def n_bytes(self, tokens: NDArray[Any]) -> int:
        """Count the bytes of text that some of its ids stand for.

        Args:
            tokens: the ids.

        Returns:
            The bytes; special tokens are no text and count nothing.
        """
        lengths = np.zeros(self.tokenizer.vocab_size, np.int64)
        for id_, token in self.tokenizer.vocab.items():
            lengths[id_] = len(token)
        lengths[list(self.tokenizer.special_tokens.values())] = 0
        return int(lengths[tokens].sum())


def embedded_corpus(vocab_size: int = VOCAB_SIZE) -> Corpus:
    """Make the fairy tales a corpus, with the last tenth held out for validation.

    Args:
        vocab_size: how many tokens the vocabulary has.

    Returns:
        The corpus.
    """
    parts = split(andersen())
    tokenizer = BPETokenizer.train(parts[0], vocab_size, [END_OF_TEXT])
    training, validation = (tokenize(part, tokenizer) for part in parts)
    return Corpus(
        "Andersen's fairy tales", training, validation, tokenizer, len(parts[0])
    )


def load_corpus(folder: str | PathLike[str]) -> Corpus:
    r"""Open a folder that `prepare` has made.

    Args:
        folder: the folder.

    Returns:
        The corpus. Its ids stay on disk until they are needed.

    Raises:
        FileNotFoundError: if the folder or one of its files is missing.
        ValueError: if a file is damaged, or the tokenizer is not the one that the ids
            were made with.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}: make it with minillm data prepare"
        )
    for name in ("data.json", "tokenizer.json", "train.npy", "validation.npy"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}: make it with minillm data prepare"
            )
    try:
        facts = parse_json(read_utf8(folder / "data.json"), "it")
        made_with, counts = facts["tokenizer"], [facts["tokens"][p] for p in PARTS]
        documents, name = facts["documents"]["train"], ", ".join(facts["sources"])
        if any(type(n) is not int for n in (*counts, documents)):
            raise ValueError("a number of tokens or documents that is none")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'data.json'} is damaged ({error!r:.200}): prepare the data "
            "again"
        ) from error
    rows = [_open(folder / f"{p}.npy", n) for p, n in zip(PARTS, counts, strict=True)]
    if _fingerprint(folder / "tokenizer.json") != made_with:
        raise ValueError(
            f"{folder}: its tokens were made with another tokenizer.json: prepare the "
            "data again with this one, or bring the old one back"
        )
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    return Corpus(name or str(folder), rows[0], rows[1], tokenizer, documents)


def _open(path: Path, n_tokens: int) -> NDArray[Any]:
    try:
        row: NDArray[Any] = open_array(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): prepare it again") from error
    if row.dtype.kind != "u" or len(row) != n_tokens:
        raise ValueError(
            f"{path} has {len(row)} numbers of the type {row.dtype}, and data.json "
            f"counts {n_tokens!r:.80} tokens: prepare the data again"
        )
    return row
