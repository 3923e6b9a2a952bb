r"""Text: where it comes from, and how it becomes one long row of token ids.

**The question.** A model is trained on a row of integers. What is in the row, in which
order, and which part of it is kept away from the model, so that it can be examined on
something it has not seen?

The course ships with one text, the fairy tales of Hans Christian Andersen in a
translation of the nineteenth century, so that everything runs without a network:

>>> tales = andersen()
>>> len(tales) > 100, sum(len(tale) for tale in tales) > 1_500_000
(True, True)
>>> next(tale for tale in tales if tale.startswith("THE UGLY DUCKLING"))[19:80]
'It was lovely summer weather in the country, and the golden c'

A text is a list of *documents*, here one for each tale. Two things happen only between
documents: the examination part is cut off there, and the token `<|endoftext|>` marks
that what follows has nothing to do with what came before.
"""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minillm.bpe import BPETokenizer

__all__ = ["END_OF_TEXT", "andersen", "read_documents", "split", "tokenize"]

END_OF_TEXT = "<|endoftext|>"
"""The special token between two documents."""

# Two blank lines stand between two documents, one blank line between two paragraphs.
SEPARATOR = "\n\n\n"


def andersen() -> list[str]:
    """Andersen's fairy tales, one string each, the title in capitals first.

    Returns:
        The tales, in the order of the book.

    Examples:
        >>> andersen()[0].splitlines()[0]
        'A STORY'
    """
    return _documents(_corpus().read_bytes(), "the embedded corpus")


def read_documents(path: str | PathLike[str]) -> list[str]:
    r"""Read a text file, and cut it where two or more lines in a row are blank.

    Args:
        path: a file of UTF-8 text.

    Returns:
        The documents, one or more, without the blank lines around them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is empty or is not text.
    """
    return _documents(Path(path).read_bytes(), str(path))


def _corpus() -> Any:
    return files("minillm") / "corpus" / "andersen.txt"


def _documents(data: bytes, name: str) -> list[str]:
    try:
        # Some editors put an invisible mark before the first letter.
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not UTF-8 text: byte {error.start} is "
            f"{data[error.start]:#04x}; save it as UTF-8"
        ) from error
    if "\0" in text:
        raise ValueError(
            f"{name} is not text: byte {data.index(0)} is zero; bring a text file"
        )
    text = text.replace("\r\n", "\n")
    documents = [part.strip("\n") for part in text.split(SEPARATOR)]
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise ValueError(f"{name} is empty: bring some text")
    return documents


def split(
    documents: Sequence[str], fraction: float = 0.1
) -> tuple[list[str], list[str]]:
    r"""Cut off the last part of a text for examination, between two documents.

    The *validation* part must be text that the model has not seen, and not only in the
    letter: cut in the middle of a tale, it would share the tale's names with the part
    before the cut, and the examination would be too easy.

    Args:
        documents: the text, at least two documents.
        fraction: how much to cut off, of the characters, in $(0, 1)$. The cut is made
            between the two documents where it comes closest.

    Returns:
        The documents to train on, and those to examine with.

    Raises:
        ValueError: if there is only one document, or `fraction` is out of range.

    Examples:
        >>> split(["six...", "six...", "six...", "two"])
        (['six...', 'six...', 'six...'], ['two'])
    """
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


def tokenize(documents: Iterable[str], tokenizer: BPETokenizer) -> NDArray[Any]:
    r"""Turn documents into one row of ids, with `<|endoftext|>` around each.

    It stands before the first, too: so even the first token of the text is predicted
    from something.

    Args:
        documents: the text.
        tokenizer: one that has `<|endoftext|>` as a special token.

    Returns:
        One row of ids, in the smallest unsigned type that holds them.

    Raises:
        ValueError: if the tokenizer has no `<|endoftext|>`.

    Examples:
        >>> tokenizer = BPETokenizer(
        ...     {i: bytes([i]) for i in range(256)}, [], ["<|endoftext|>"]
        ... )
        >>> tokenize(["Hi", "yo"], tokenizer).tolist()
        [256, 72, 105, 256, 121, 111, 256]
    """
    if END_OF_TEXT not in tokenizer.special_tokens:
        raise ValueError(
            f"the tokenizer has no {END_OF_TEXT}: train it with that special token"
        )
    end = tokenizer.special_tokens[END_OF_TEXT]
    ids = [end]
    for document in documents:
        ids += tokenizer.encode(document)
        ids.append(end)
    return np.array(ids, dtype=np.min_scalar_type(tokenizer.vocab_size - 1))
