r"""Text: where it comes from, and how it becomes one long sequence of token ids.

**The question.** A model is trained on a sequence of integers. What is in it, in which
order, and which part is held out, so that the model can be evaluated on text that it
was not trained on?

The course ships with one text, the fairy tales of Hans Christian Andersen in a
translation of the nineteenth century, so that everything runs without a network:

>>> tales = andersen()
>>> len(tales) > 100, sum(len(tale) for tale in tales) > 1_500_000
(True, True)
>>> next(tale for tale in tales if tale.startswith("THE UGLY DUCKLING"))[19:80]
'It was lovely summer weather in the country, and the golden c'

A text is a list of *documents*, here one for each tale. Two things happen only between
documents: the *held-out* part is split off there, and the token `<|endoftext|>` marks
that what follows has nothing to do with what came before.

For texts that do not fit into memory there is [`minillm.corpus.prepare`][].
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from minillm.bpe import BPETokenizer
from minillm.tokenizer.streams import check_lists, read_text

__all__ = [
    "END_OF_TEXT",
    "andersen",
    "end_of_text",
    "read_documents",
    "split",
    "stream_documents",
    "tokenize",
]

END_OF_TEXT = "<|endoftext|>"
"""The special token between two documents."""

# Two blank lines stand between two documents, one blank line between two paragraphs.
SEPARATOR: Final = "\n\n\n"

# A document has to be held in memory, so one that is longer is cut in two.
LONGEST: Final = 1 << 24


def andersen() -> list[str]:
    """Andersen's fairy tales, one string each, the title in capitals first.

    Returns:
        The tales, in the order of the book.

    Examples:
        >>> andersen()[0].splitlines()[0]
        'A STORY'
    """
    text = (files("minillm") / "corpus" / "andersen.txt").read_text(encoding="utf-8")
    return list(_cut([text], SEPARATOR, "the embedded corpus"))


def read_documents(path: str | PathLike[str]) -> list[str]:
    r"""Read a text file, and cut it where two or more empty lines follow each other.

    Args:
        path: a file of UTF-8 text.

    Returns:
        The documents, one or more, without the blank lines around them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is empty or is not text.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "two.txt"
        ...     _ = path.write_text("One.\n\nStill one.\n\n\nTwo.\n", encoding="utf-8")
        ...     read_documents(path)
        ['One.\n\nStill one.', 'Two.']
    """
    documents = list(stream_documents(path))
    if not documents:
        raise ValueError(f"{path} is empty: bring some text")
    return documents


def stream_documents(
    path: str | PathLike[str], *, separator: str = SEPARATOR, field: str = "text"
) -> Iterator[str]:
    r"""Read the documents of a file one by one, whatever the size of the file.

    Args:
        path: a file of UTF-8 text; or one of JSON objects, one in each line, if its
            name ends in `.jsonl`.
        separator: what stands between two documents of a text.
        field: under which name a JSON object holds its document.

    Returns:
        Each document that is not empty, as it is asked for.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not what it should be.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "tales.jsonl")
        ...     _ = path.write_bytes(b'{"text": "One."}\n{"text": "Two."}\n')
        ...     list(stream_documents(path))
        ['One.', 'Two.']
    """
    if Path(path).suffix.lower() == ".jsonl":
        return _json_documents(Path(path), field)
    return _cut(read_text(path), separator, str(path))


def _cut(chunks: Iterable[str], separator: str, name: str) -> Iterator[str]:
    """Cut a text that comes in chunks into its documents."""
    held, half, n_bytes = "", "", 0
    for i, chunk in enumerate(chunks):
        if "\0" in chunk:
            at = n_bytes + len(chunk[: chunk.index("\0")].encode())
            raise ValueError(
                f"{name} is not text: byte {at} is zero; bring a text file"
            )
        n_bytes += len(chunk.encode())
        # Some editors put an invisible mark before the first letter.
        new = half + (chunk.removeprefix("\ufeff") if i == 0 else chunk)
        # Half a line end at the end of a chunk waits for its other half.
        half = "\r" if new.endswith("\r") else ""
        held += new.removesuffix("\r").replace("\r\n", "\n")
        *whole, held = held.split(separator)
        while len(held) > LONGEST:
            end = held.rfind("\n", 0, LONGEST) + 1 or LONGEST
            whole.append(held[:end])
            held = held[end:]
        yield from filter(str.strip, (part.strip("\n") for part in whole))
    if (held + half).strip():
        yield (held + half).strip("\n")


def _json_documents(path: Path, field: str) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                document = json.loads(line)[field]
                document.encode()
            except (
                ValueError,
                KeyError,
                TypeError,
                AttributeError,
                RecursionError,
            ) as error:
                raise ValueError(
                    f"{path}, line {number} is no JSON object with a text under "
                    f"{field!r} ({type(error).__name__}: {error}); another name can be "
                    "given as the field"
                ) from error
            if document.strip():
                yield document


def split(
    documents: Sequence[str], fraction: float = 0.1
) -> tuple[list[str], list[str]]:
    r"""Split off the last part of a text for validation, between two documents.

    The *validation split* must be text that the model was not trained on, in substance
    too: cut in the middle of a tale, it would share the tale's names with the part
    before the cut, and predicting it would be too easy.

    Args:
        documents: the text, at least two documents.
        fraction: how much to hold out, of the characters, in $(0, 1)$. The cut is made
            between the two documents where it comes closest.

    Returns:
        The documents to train on, and those held out for validation.

    Raises:
        ValueError: if there is only one document, or a string in place of a list, or
            `fraction` is out of range.

    Examples:
        >>> split(["six...", "six...", "six...", "two"])
        (['six...', 'six...', 'six...'], ['two'])
    """
    check_lists(documents=documents)
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1; got {fraction}")
    if len(documents) < 2:
        raise ValueError(
            "one document cannot be split: put two blank lines where one text ends and "
            "the next begins"
        )
    ends = np.cumsum([len(document) for document in documents])
    # A cut after document i leaves `ends[i]` characters on the left.
    cut = int(np.abs(ends[:-1] - (1 - fraction) * ends[-1]).argmin()) + 1
    return list(documents[:cut]), list(documents[cut:])


def end_of_text(tokenizer: BPETokenizer) -> int:
    """Look up the id of `<|endoftext|>`.

    Args:
        tokenizer: the tokenizer.

    Returns:
        The id.

    Raises:
        ValueError: if the tokenizer has no such special token.

    Examples:
        >>> from minillm.bpe import BPETokenizer
        >>> end_of_text(BPETokenizer.train(["the cat"], 258, [END_OF_TEXT]))
        257
    """
    if END_OF_TEXT not in tokenizer.special_tokens:
        raise ValueError(
            f"the tokenizer has no {END_OF_TEXT}: train it with that special token"
        )
    return tokenizer.special_tokens[END_OF_TEXT]


def tokenize(documents: Iterable[str], tokenizer: BPETokenizer) -> NDArray[Any]:
    r"""Turn documents into one sequence of ids, with `<|endoftext|>` around each.

    It stands before the first, too: so even the first token of the text is predicted
    from something.

    Args:
        documents: the text.
        tokenizer: one that has `<|endoftext|>` as a special token.

    Returns:
        The sequence of ids, in the smallest unsigned type that holds them.

    Raises:
        ValueError: if the tokenizer has no `<|endoftext|>`, or the documents are one
            string.

    Examples:
        >>> from minillm.bpe import BPETokenizer
        >>> tokenizer = BPETokenizer(
        ...     {i: bytes([i]) for i in range(256)}, [], ["<|endoftext|>"]
        ... )
        >>> tokenize(["Hi", "yo"], tokenizer).tolist()
        [256, 72, 105, 256, 121, 111, 256]
    """
    check_lists(documents=documents)
    end = end_of_text(tokenizer)
    ids = [end]
    for document in documents:
        ids += tokenizer.encode(document)
        ids.append(end)
    return np.array(ids, dtype=np.min_scalar_type(tokenizer.vocab_size - 1))
