r"""Text as it comes, and where it may be cut.

[`minillm.bpe`][] speaks of a text as if it stood in memory in one piece. A corpus does
not: it is read in blocks, and a block ends in the middle of a word. This page reads the
blocks and finds the places where a text can be cut in two so that nothing downstream
notices: no pre-token and no special token lies across such a cut, and the tokens left
of it do not depend on what comes after.

>>> parts = ["the c", "at sat on the m", "at"]
>>> list(safe_pieces(parts, GPT2_PATTERN))
['the', ' cat sat on the', ' mat']
"""

import codecs
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from minillm.tokenizer.patterns import (
    DIGITS_PATTERN,
    GPT2_PATTERN,
    GPT4_PATTERN,
    LLAMA3_PATTERN,
    O200K_PATTERN,
)

__all__ = [
    "SAFE_CUT",
    "WHITESPACE",
    "check_lists",
    "check_specials",
    "decode_blocks",
    "last_safe_cut",
    "next_safe_cut",
    "read_text",
    "safe_pieces",
    "source_documents",
    "special_splitter",
    "split_specials",
]

# A file is read in blocks of this many bytes.
BLOCK: Final = 1 << 20


# Lists of strings.


def check_lists(**given: object) -> None:
    """Refuse a string where a list of strings is wanted.

    To Python a string is a list, too: of strings of one character each. Where that is
    not what was meant, nothing else would fail.

    Args:
        given: what the caller passed, by the names of its parameters.

    Raises:
        ValueError: if one of them is a string.

    Examples:
        >>> check_lists(documents=["the cat"], names=("a", "b"))
        >>> check_lists(documents="the cat")
        Traceback (most recent call last):
        ValueError: documents is a list of strings, not the string 'the cat'; write \
['the cat']
    """
    for name, value in given.items():
        if isinstance(value, str):
            shown = repr(value if len(value) <= 40 else value[:37] + "...")
            raise ValueError(
                f"{name} is a list of strings, not the string {shown}; write [{shown}]"
            )


# Special tokens.


def check_specials(special_tokens: Iterable[str]) -> tuple[str, ...]:
    r"""Make sure that special tokens can be told apart.

    Args:
        special_tokens: the special tokens.

    Returns:
        The same, as a tuple.

    Raises:
        ValueError: if one is empty, occurs twice or is no text.

    Examples:
        >>> check_specials(["<a>", "<b>", "<a>"])
        Traceback (most recent call last):
        ValueError: the special token '<a>' is given twice
    """
    check_lists(special_tokens=special_tokens)
    names = tuple(special_tokens)
    seen = set()
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"a special token is a string that is not empty: {name!r}")
        if name in seen:
            raise ValueError(f"the special token {name!r} is given twice")
        seen.add(name)
    return names


@lru_cache(maxsize=64)
def special_splitter(specials: tuple[str, ...]) -> "re.Pattern[str]":
    r"""Build the expression that finds special tokens, the longest first.

    Args:
        specials: the special tokens. With none, the expression matches nothing.

    Returns:
        An expression with one group, for `re.split`.

    Examples:
        Where one special token begins another, the longer wins:

        >>> special_splitter(("<e>", "<e><e>")).split("a<e><e><e>b")
        ['a', '<e><e>', '', '<e>', 'b']
    """
    if not specials:
        return re.compile(r"(?!)")
    longest_first = sorted(specials, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")


def split_specials(text: str, specials: tuple[str, ...]) -> list[str]:
    r"""Cut the special tokens out of a text.

    Args:
        text: any text.
        specials: the special tokens to look for.

    Returns:
        Ordinary text at the even places, special tokens at the odd ones.

    Examples:
        >>> split_specials("one<|end|>two", ("<|end|>",))
        ['one', '<|end|>', 'two']
    """
    return special_splitter(specials).split(text) if specials else [text]


# Cutting a stream.

# The 25 characters that Unicode calls white space. Neither `str.isspace` nor the `\s`
# of `re` will do: they add the four separators U+001C to U+001F, not whitespace
# for `regex`.
WHITESPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
_TEXT: Final = re.compile(f"[^{WHITESPACE}]")
_NO_LINE_END = WHITESPACE.replace("\n", "").replace("\r", "")
_WORD_WISE = f"(?<=[^{WHITESPACE}])[{WHITESPACE}]"
_LINE_WISE = f"(?<=[^{WHITESPACE}])[{_NO_LINE_END}]|(?<=[\r\n])[^{WHITESPACE}/]"
# The signs of ASCII but for the apostrophe.
_SIGN_WISE = r"|(?<=[A-Za-z0-9])[!-&(-/:-@\[-`{-~]"

SAFE_CUT: Final = {
    GPT2_PATTERN: _WORD_WISE + _SIGN_WISE,
    DIGITS_PATTERN: _WORD_WISE + _SIGN_WISE,
    GPT4_PATTERN: _LINE_WISE + _SIGN_WISE,
    LLAMA3_PATTERN: _LINE_WISE + _SIGN_WISE,
    O200K_PATTERN: _LINE_WISE + _SIGN_WISE,
}
r"""Where a text can be cut in two, for each pattern of which that is proved.

Two things have to hold. No match may go across the cut, and what is left of it must be
cut into the same pre-tokens whether or not anything follows. (What is right of it takes
care of itself: no pattern here looks back.)

*GPT-2 and SmolLM2:* between a character that is not whitespace and one that is. Their
alternatives are whitespace alone, or at most one space and then no whitespace, so no
match goes from the one to the other. The only ones that look ahead, `(?!\S)` and
`(?![^\s\p{N}])`, do so at the end of a run of whitespace; left of the cut each run is
followed by a character that is still in sight.

*GPT-4, Llama 3 and GPT-4o,* first, in the same place if the whitespace is no line end.
Their alternatives may begin with one sign, which may be whitespace, and go on without;
and punctuation may take line ends (GPT-4o's also slashes) behind it, but no other
whitespace. They look ahead as above; GPT-4's `(?![\s\S])`, the end of the text, is
asked for by whitespace only, and left of the cut there are none at the end.

Second, between a line end and a character that is neither whitespace nor slash. What
ends a match there is a line end: `\s*[\r\n]+` stops at the last one, and so does
punctuation with its line ends (and slashes: hence the exception). Left of the cut,
GPT-4's "whitespace up to the end of the text" would match too, but exactly as far as
`\s*[\r\n]+` does.

*All,* between a letter or digit and a sign that is no apostrophe, all in ASCII. Behind
a letter a match may go on with letters, marks (none is in ASCII) or a contraction;
behind a digit with digits. Nothing looks ahead there.

A test tries all texts of some length over characters of every kind.
"""


@lru_cache(maxsize=64)
def _last_cut(pattern: str) -> "re.Pattern[str]":
    # A greedy `.*` in front makes the match the last one. For a pattern about which we
    # have proved nothing, nothing is safe.
    return re.compile(f"(?s:.*)({SAFE_CUT.get(pattern, '(?!)')})")


def last_safe_cut(text: str, pattern: str, specials: tuple[str, ...] = ()) -> int:
    r"""Find the last place where a text that may go on can be cut in two.

    Args:
        text: the beginning of a stream.
        pattern: the pre-tokenizer.
        specials: the special tokens to look for.

    Returns:
        A place such that the left part, cut into pre-tokens alone, gives what it gives
        in any text that begins with `text`; 0 if there is none.

    Examples:
        The last word may go on, and the run of whitespace before it may not be over:

        >>> last_safe_cut("the cat  s", GPT2_PATTERN)
        7

        About a pattern of one's own nothing is known, except at special tokens. Here
        the second one may still become a longer one, `<e><e>`:

        >>> last_safe_cut("the cat<e> sat<e>", r"\w+|\W+", ("<e>", "<e><e>"))
        10
    """
    # A special token that begins at or before `known` is known in full.
    known = len(text) - max(map(len, specials), default=1)
    cut = 0
    if specials:
        for match in special_splitter(specials).finditer(text):
            if match.start() > known:
                break
            cut = match.end()
    # The character before the cut and the one after it must both be in sight, and no
    # special token may lie across the cut.
    match_ = _last_cut(pattern).match(text, cut, min(known + 2, len(text)))
    return match_.start(1) if match_ else cut


def next_safe_cut(text: str, pattern: str, start: int, end: int) -> int:
    r"""Find the first place from `start` on where a text can be cut in two.

    Args:
        text: a text.
        pattern: a pattern of this package.
        start: where to begin.
        end: where to stop.

    Returns:
        The place, or `end` if there is none before it.

    Examples:
        >>> next_safe_cut("one two three four", GPT2_PATTERN, 5, 18)
        7
        >>> next_safe_cut("f(x)", GPT2_PATTERN, 0, 4)  # not only at whitespace
        1
    """
    find = re.compile(SAFE_CUT[pattern])
    if find.match(text, start, end):
        return start
    # Inside whitespace there is no cut. To skip it is faster than to look for one.
    begin = _TEXT.search(text, start, end)
    cut = begin and find.search(text, begin.start(), end)
    return cut.start() if cut else end


def safe_pieces(
    stream: Iterable[str],
    pattern: str,
    specials: tuple[str, ...] = (),
    at_least: int = 1,
) -> Iterator[str]:
    r"""Regroup a stream so that no pre-token and no special token crosses two pieces.

    Args:
        stream: the parts of one text, cut anywhere.
        pattern: the pre-tokenizer. For one of this package, a piece is held back until
            a space, a line end or a sign shows where it may be cut; for any other,
            until a special token or the end of the stream.
        specials: the special tokens to look for.
        at_least: the number of characters to wait for before a cut is looked for.

    Yields:
        Pieces that may be encoded or counted each on its own.

    Examples:
        >>> list(safe_pieces(["the c", "at sat o", "n"], GPT2_PATTERN))
        ['the', ' cat sat', ' on']
    """
    held: list[str] = []
    size, wanted = 0, at_least
    for part in stream:
        held.append(part)
        size += len(part)
        if size < wanted:
            continue
        text = "".join(held)
        cut = last_safe_cut(text, pattern, specials)
        if cut:
            yield text[:cut]
        held, size = [text[cut:]], len(text) - cut
        # What is left has no cut in it. It is not searched again before it has doubled,
        # so that a megabyte of one letter, given letter by letter, is not searched a
        # million times.
        wanted = max(at_least, 2 * size)
    if size:
        yield "".join(held)


# Reading what a trainer is given.


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
        Its text, as [`read_text`][minillm.tokenizer.streams.read_text] does.

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
        ValueError: if the file is not UTF-8.

    Examples:
        >>> list(source_documents(["one", "two"], r" ?\w+", ()))
        ['one', 'two']
    """
    if not isinstance(source, str | os.PathLike):
        return iter(source)
    return safe_pieces(read_text(source), pattern, specials, at_least=BLOCK)
