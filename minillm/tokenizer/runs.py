r"""Long texts as arrays: runs.

Whoever counts words, or looks them up, does the same for each: cut it out, make a
string of it, look the string up. None of that is slow, but it is done in Python, once
for each of the two hundred thousand words in a megabyte. Here it is done for all words
of a block of text together, and three ideas make that possible.

**Runs.** Finding pre-tokens takes a regular expression; finding where blanks begin and
letters end takes a look at each byte and the next. So the text is first cut there, into
*runs* such as " cat's" or "(x", only at places where its pre-tokenizer cuts too. Only a
run that is new is cut further:

>>> runs = find_runs(b"the cat's hat\n\n  f(x)", GPT2_PATTERN)
>>> [runs.raw[i:j] for i, j in zip(runs.starts.tolist(), runs.ends.tolist())]
[b'the', b" cat's", b' hat', b'\n\n ', b' f', b'(x', b')']

**Keys.** A run of up to 31 bytes is four integers of 64 bits, read from the text where
it stands, with its length in the last byte. Two runs are equal if their integers are.
Nothing has to be hashed in the hope that no two runs collide, and no string is made:

>>> [hex(word[3]) for word in runs.keys]
['0x200a0a', '0x0', '0x0', '0x300000000000000']

**A table.** A dictionary looks up one key. The [`Table`][minillm.tokenizer.table.Table]
of the next page looks up a hundred thousand with some ten operations on arrays.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from minillm.tokenizer.cuts import WHITESPACE, last_safe_cut, next_safe_cut
from minillm.tokenizer.patterns import (
    DIGITS_PATTERN,
    GPT2_PATTERN,
    GPT4_PATTERN,
    LLAMA3_PATTERN,
    O200K_PATTERN,
)

__all__ = ["Runs", "find_runs", "run_starts", "text_blocks"]

Ints = NDArray[np.int64]

# A text is worked on in blocks of this many characters: many words at once, and yet few
# enough that their arrays stay in the processor's cache.
BLOCK: Final = 1 << 20

# So many characters around a blank beyond ASCII are done without runs.
AROUND: Final = 1 << 14

# A key is this many integers of eight bytes, and holds a run of up to this many bytes.
WORDS: Final = 4
WIDTH: Final = 8 * WORDS - 1

BLANKS: Final = {
    GPT2_PATTERN: "word",
    DIGITS_PATTERN: "digit",
    GPT4_PATTERN: "line",
    LLAMA3_PATTERN: "line",
    O200K_PATTERN: "line",
}
"""How each pattern cuts at blanks. `run_starts` says what each kind means."""

_OTHER_BLANKS: Final = re.compile(f"[{''.join(c for c in WHITESPACE if c > '~')}]")

# `KEEP[k][n]` keeps those of the bytes 8k to 8k+7 that belong to a run of n bytes.
_KEEP: Final = np.array(
    [
        [(1 << 8 * min(max(n - 8 * k, 0), 8)) - 1 for n in range(WIDTH + 2)]
        for k in range(WORDS)
    ],
    np.uint64,
)


# Of each byte: whether it is a letter or a digit; whether it begins a pre-token when it
# stands behind a letter or a digit; whether it is a blank. In all patterns letters are
# the last thing that a pre-token holds, but for an apostrophe as in "don't", and digits
# are the last, too. So each of them ends before what is not of its kind. Bytes beyond
# ASCII may be letters, digits or marks, so there is no cut beside them.
_LETTER, _DIGIT, _AFTER_LETTER, _AFTER_DIGIT, _BLANK = 1, 2, 1 << 2, 2 << 2, 1 << 6


def _kind(char: str) -> int:
    if char in WHITESPACE:
        return _BLANK
    if char.isalpha():
        return _LETTER | _AFTER_DIGIT
    if char.isdigit():
        return _DIGIT | _AFTER_LETTER
    return _AFTER_DIGIT if char == "'" else _AFTER_LETTER | _AFTER_DIGIT


_KIND: Final = bytes(map(_kind, map(chr, range(128)))).ljust(256, b"\0")


def run_starts(data: NDArray[np.uint8], blanks: str) -> Ints:
    r"""Find the places at which runs begin.

    Every place is one at which the pre-tokenizer cuts too, whatever the text, and what
    it makes of a run does not depend on the runs around it. That holds for blanks in
    ASCII; a text with others is not given to this function.

    Args:
        data: the bytes of a text that does not end in a blank, or (for the kind
            `"line"`) ends in a line end, and eight zeros for each word of a key.
        blanks: how the pattern treats a stretch of blanks. `"word"` (GPT-2): the last
            one, if it is a space, goes with the text behind it; if it is something
            else, it stands alone. `"digit"` (SmolLM2): whether it does depends on what
            is behind, so the whole stretch begins a run. `"line"` (GPT-4): what ends in
            a line end goes with the text before; of what is left, the last blank goes
            with the text behind. If a slash follows, there is no cut (GPT-4o).

    Returns:
        The places, in order. The first is 0.

    Examples:
        >>> data = np.frombuffer(b"the  cat's(x)" + bytes(8 * WORDS), np.uint8)
        >>> run_starts(data, "word").tolist()  # "the", " ", " cat's", "(x" and ")"
        [0, 3, 4, 10, 12]
    """
    n = len(data) - 8 * WORDS
    kind = np.frombuffer(data[:n].tobytes().translate(_KIND), np.uint8)
    is_start = np.ones(n + 1, bool)
    is_start[1:n] = kind[:-1] & (kind[1:] >> 2) > 0
    # Stretches of blanks: from `begin` up to and without `end`.
    blank = kind == _BLANK
    edges = np.flatnonzero(np.diff(blank, prepend=False))
    begin, end = edges[::2], edges[1::2]
    if len(end) < len(begin):
        end = np.append(end, n)
    if blanks == "line":
        # A single space, as most stretches are, holds no line end.
        at = np.flatnonzero((end - begin > 1) | (data[begin] != ord(" ")))
        line_ends = np.flatnonzero((data[:n] == 10) | (data[:n] == 13))
        last = np.append(-1, line_ends)[np.searchsorted(line_ends, end[at])]
        begin[at] = np.maximum(begin[at], last + 1)
        after = end[at][begin[at] == end[at]]
        is_start[after[data[after] != ord("/")]] = True
    elif blanks == "word":
        is_start[end[data[end - 1] != ord(" ")]] = True
    is_start[begin[begin < end]] = True
    if blanks != "digit":
        is_start[end[end - begin > 1] - 1] = True
    return np.flatnonzero(is_start[:n])


class Runs(NamedTuple):
    r"""The runs of a block of text."""

    raw: bytes
    starts: Ints
    ends: Ints
    # Four integers for each run; of a run that is longer, its beginning.
    keys: list[NDArray[np.uint64]]


def find_runs(block: bytes, pattern: str) -> Runs:
    r"""Cut a block of text into runs.

    Args:
        block: the text in UTF-8, as `text_blocks` yields it.
        pattern: one of the patterns of [`minillm.tokenizer.patterns`][].

    Returns:
        The runs.
    """
    raw = block + bytes(8 * WORDS)
    starts = run_starts(np.frombuffer(raw, np.uint8), BLANKS[pattern])
    ends = np.append(starts[1:], len(raw) - 8 * WORDS)
    lengths = np.minimum(ends - starts, WIDTH)
    # The eight bytes from any place on, as an integer.
    eight = np.ndarray((len(raw) - 7,), "<u8", raw, strides=(1,))
    keys = [eight[starts] & _KEEP[0][lengths]]
    for k in range(1, WORDS):
        # Most runs are short, and end before the second word of their keys.
        longer = np.flatnonzero(lengths > 8 * k)
        keys.append(np.zeros(len(starts), np.uint64))
        keys[k][longer] = eight[starts[longer] + 8 * k] & _KEEP[k][lengths[longer]]
    keys[-1] |= lengths.astype(np.uint64) << np.uint64(56)
    return Runs(raw, starts, ends, keys)


def text_blocks(
    text: str, pattern: str, first: int = BLOCK
) -> Iterator[tuple[bytes, bool]]:
    r"""Cut a long text into blocks.

    Args:
        text: any text.
        pattern: one of the patterns of [`minillm.tokenizer.patterns`][].
        first: about the size of the first block, in characters. Each further one is as
            large as all before it together, but not larger than `BLOCK`.

    Yields:
        Each block in UTF-8, and whether it can be cut into runs. That is not so around
        blanks beyond ASCII, nor for the last word and the blanks behind it, since there
        "the end of the text" is something that the patterns know about.

    Examples:
        >>> list(text_blocks("the cat sat on the mat", GPT2_PATTERN))
        [(b'the cat sat on the', True), (b' mat', False)]
    """
    end = last_safe_cut(text, pattern)
    start = 0
    while start < end:
        size = min(max(start, first), BLOCK)
        cut = next_safe_cut(text, pattern, start + size, end)
        block = text[start:cut]
        raw = block.encode()
        start, whole = cut, start
        if not _has_other_blanks(raw):
            yield raw, True
            continue
        # A book has few of them, and none of its pages shall be slow for one.
        blank = cast("re.Match[str]", _OTHER_BLANKS.search(block))
        start = next_safe_cut(text, pattern, whole + blank.end() + AROUND, end)
        before = last_safe_cut(block[: blank.start()], pattern)
        if before > AROUND:
            yield block[:before].encode(), True
            whole += before
        yield text[whole:start].encode(), False
    yield text[end:].encode(), False


def _has_other_blanks(raw: bytes) -> bool:
    # Without ASCII little is left of most texts, and it is still UTF-8.
    data = np.frombuffer(raw, np.uint8)
    return bool(_OTHER_BLANKS.search(data[data > 127].tobytes().decode()))
