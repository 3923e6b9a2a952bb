r"""Text as it comes: the path or the texts that a trainer is given.

A file is read in blocks, however long it is, and [`minillm.tokenizer.cuts`][] makes of
the blocks pieces that can be counted one by one, as documents are:

>>> list(source_words(["the cat", "sat"], r" ?\w+", ()))
[b'the', b' cat', b'sat']
"""

import codecs
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from minillm.tokenizer.cuts import (
    check_specials,
    safe_pieces,
    split_specials,
)
from minillm.tokenizer.patterns import pretokenize

__all__ = [
    "check_training",
    "decode_blocks",
    "read_text",
    "report_shortage",
    "source_documents",
    "source_words",
]

TIE_BREAKS: Final = ("bytes", "first", "huggingface")

# A file is read in blocks of this many bytes.
BLOCK: Final = 1 << 20


def check_training(
    vocab_size: int, special_tokens: Iterable[str], tie_break: str
) -> tuple[str, ...]:
    r"""Make sure that what is asked of a trainer is possible.

    Args:
        vocab_size: the number of tokens.
        special_tokens: the special tokens.
        tie_break: the rule for ties.

    Returns:
        The special tokens, as a tuple.

    Raises:
        ValueError: if there is no such rule, or if bytes and special tokens alone are
            more than `vocab_size`.

    Examples:
        >>> check_training(256, ["<|end|>"], "bytes")
        Traceback (most recent call last):
        ValueError: vocab_size is at least 257 (256 bytes and 1 special tokens), not 256
    """
    specials = check_specials(special_tokens)
    if tie_break not in TIE_BREAKS:
        raise ValueError(f"tie_break is one of {TIE_BREAKS}, not {tie_break!r}")
    least = 256 + len(specials)
    if vocab_size < least:
        raise ValueError(
            f"vocab_size is at least {least} (256 bytes and {len(specials)} special "
            f"tokens), not {vocab_size}"
        )
    return specials


def report_shortage(learned: int, wanted: int) -> None:
    r"""Say that a text has given fewer merges than were asked for.

    Args:
        learned: how many there are.
        wanted: how many there should be.

    Examples:
        >>> said = logging.Handler()
        >>> said.emit = lambda record: print(record.getMessage()[:30])
        >>> logging.getLogger("minillm").addHandler(said)
        >>> report_shortage(4, 4)
        >>> report_shortage(3, 4)
        learned 3 merges instead of 4:
        >>> logging.getLogger("minillm").removeHandler(said)
    """
    if learned < wanted:
        logging.getLogger("minillm").warning(
            "learned %d merges instead of %d: no pair of tokens is left in the text. "
            "More text gives more merges.",
            learned,
            wanted,
        )


def read_text(path: str | os.PathLike[str]) -> Iterator[str]:
    r"""Read a file of UTF-8 text in blocks.

    Args:
        path: the file.

    Yields:
        Its text, line ends unchanged. A character that lies across two blocks is in the
        second.

    Raises:
        ValueError: if the file is not UTF-8. The message names the first wrong byte.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "latin-1.txt")
        ...     _ = path.write_bytes("naïve".encode("latin-1"))
        ...     try:
        ...         list(read_text(path))
        ...     except ValueError as error:
        ...         print(str(error).replace(folder, ""))
        /latin-1.txt is not UTF-8: byte 2 is 0xef, invalid continuation byte
    """
    with Path(path).open("rb") as file:
        yield from decode_blocks(file.read, path)


def decode_blocks(
    read: Callable[[int], bytes], name: str | os.PathLike[str]
) -> Iterator[str]:
    r"""Read UTF-8 text in blocks from a file that is open, such as standard input.

    Args:
        read: returns so many bytes of it, or fewer at its end.
        name: what to call it in an error.

    Yields:
        Its text, as [`read_text`][minillm.tokenizer.source.read_text] does.

    Raises:
        ValueError: if the file is not UTF-8.

    Examples:
        >>> import io
        >>> list(decode_blocks(io.BytesIO("naïve".encode()).read, "input"))
        ['naïve']
        >>> list(decode_blocks(io.BytesIO(b"na\xefve").read, "input"))
        Traceback (most recent call last):
        ValueError: input is not UTF-8: byte 2 is 0xef, invalid continuation byte
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    while True:
        data = read(BLOCK)
        # The decoder keeps the first bytes of a character that is not complete.
        start = offset - len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            wrong = error.object[error.start]
            raise ValueError(
                f"{name} is not UTF-8: byte {start + error.start} is "
                f"0x{wrong:02x}, {error.reason}"
            ) from None
        if text:
            yield text
        if not data:
            return
        offset += len(data)


def source_documents(
    source: str | os.PathLike[str] | Iterable[str],
    pattern: str,
    specials: tuple[str, ...],
) -> Iterator[str]:
    r"""Turn what a trainer is given into texts that can be counted one by one.

    Args:
        source: a path, or an iterable of texts.
        pattern: the pre-tokenizer.
        specials: the special tokens.

    Returns:
        The texts, or the pieces of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not UTF-8.

    Examples:
        >>> list(source_documents(["one", "two"], r" ?\w+", ()))
        ['one', 'two']
    """
    if not isinstance(source, str | os.PathLike):
        return iter(source)
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"there is no file {str(source)[:80]!r}. A string is taken for a path; to "
            "learn from a text itself, put it in a list"
        )
    return safe_pieces(read_text(source), pattern, specials, at_least=BLOCK)


def source_words(
    source: str | os.PathLike[str] | Iterable[str],
    pattern: str,
    specials: tuple[str, ...],
) -> Iterator[bytes]:
    r"""Cut what a trainer is given into pre-tokens, one by one.

    Args:
        source: a path, or an iterable of texts.
        pattern: the pre-tokenizer.
        specials: the special tokens, which are left out.

    Yields:
        The pre-tokens in UTF-8, at least one.

    Raises:
        ValueError: if there is no text.

    Examples:
        >>> list(source_words(["the cat<|end|>sat"], r" ?\w+", ("<|end|>",)))
        [b'the', b' cat', b'sat']
    """
    is_empty = True
    for document in source_documents(source, pattern, specials):
        for text in split_specials(document, specials)[::2]:
            for word in pretokenize(text, pattern):
                is_empty = False
                yield word.encode()
    if is_empty:
        raise ValueError("there is no text to learn from: the source is empty")
