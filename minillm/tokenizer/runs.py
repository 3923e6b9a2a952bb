r"""Runs: pieces of text that are quicker to find than words.

Counting words and looking them up takes the same three steps for each: cut it out, make
a string of it, look the string up. None of them is slow, but Python takes them one by
one for the two hundred thousand words in a megabyte. Here NumPy takes them for all
words of a block of text together, and three ideas make that possible.

**Runs.** Finding pre-tokens takes a regular expression; finding where whitespace begins
and letters end takes one look at each byte and the next. So the text is first cut
there, into *runs* such as " cat's" or "(x", only at places where its pre-tokenizer cuts
too, and only a run that is new is cut further:

>>> runs = find_runs(b"the cat's hat\n\n  f(x)", GPT2_PATTERN)
>>> [runs.raw[i:j] for i, j in zip(runs.starts.tolist(), runs.ends.tolist())]
[b'the', b" cat's", b' hat', b'\n\n ', b' f', b'(x', b')']

**Keys.** A run of up to 23 bytes is three integers of 64 bits, read from the text where
it stands, with its length in the last byte. Two runs are equal if their integers are,
and no string has to be made:

>>> [hex(word[3]) for word in runs.keys]
['0x200a0a', '0x0', '0x300000000000000']

**A table** looks all keys of a block up at once: [`minillm.tokenizer.table`][]. What it
does not hold gets its number from a dictionary:

>>> numbers = RunNumbers(GPT2_PATTERN)
>>> numbers.of(b"the cat or the hat").tolist(), list(numbers.number)
([0, 1, 2, 3, 4], [b'the', b' cat', b' or', b' the', b' hat'])
>>> numbers.of(b"the hat or a cat").tolist()
[0, 4, 2, 5, 1]
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import count, groupby, islice
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minillm.tokenizer.patterns import (
    DIGITS_PATTERN,
    GPT2_PATTERN,
    GPT4_PATTERN,
    LLAMA3_PATTERN,
    O200K_PATTERN,
    compile_pattern,
)
from minillm.tokenizer.streams import WHITESPACE, next_safe_cut
from minillm.tokenizer.table import Column, Ints, Table

__all__ = ["RunNumbers", "Runs", "ascii_pattern", "find_runs", "text_blocks"]
__all__ += ["word_cutter"]

# A text is worked on in blocks of this many characters: many words at once, and yet few
# enough that their arrays stay in the processor's cache.
AT_ONCE: Final = 1 << 19

# In a first block most runs are new. If it is small, fewer are new in the next one.
FIRST_BLOCK: Final = 1 << 14

# A key is this many integers of eight bytes, and holds a run of up to this many bytes.
WORDS: Final = 3
WIDTH: Final = 8 * WORDS - 1

# Stands between texts in a block. It is no byte of UTF-8.
BETWEEN: Final = b"\xff"

SPACES: Final = {
    GPT2_PATTERN: "word",
    DIGITS_PATTERN: "digit",
    GPT4_PATTERN: "line",
    LLAMA3_PATTERN: "line",
    O200K_PATTERN: "line",
}
"""How each pattern cuts whitespace that is followed by text.

`"word"` (GPT-2): the last character, if it is a space, goes with the text behind it; if
it is something else, it stands alone. `"digit"` (SmolLM2): whether it does depends on
what is behind, so all of the whitespace begins a run. `"line"` (GPT-4): what ends in a
line end goes with the text before; of what is left, the last character goes with the
text behind. If a slash follows, there is no cut (GPT-4o).
"""

# `KEEP[k][n]` keeps those of the bytes 8k to 8k+7 that belong to a run of n bytes.
_KEEP: Final = np.array(
    [
        [(1 << 8 * min(max(n - 8 * k, 0), 8)) - 1 for n in range(WIDTH + 2)]
        for k in range(WORDS)
    ],
    np.uint64,
)

# Of each byte: whether it is a letter or a digit; whether it begins a pre-token when it
# stands behind a letter or a digit; whether it is whitespace. In all patterns letters
# are the last thing that a pre-token holds, but for an apostrophe as in "don't", and
# digits are the last, too. So each of them ends before what is not of its kind. Bytes
# beyond ASCII may be letters, digits or marks, so there is no cut beside them.
_LETTER, _DIGIT, _AFTER_LETTER, _AFTER_DIGIT, _SPACE = 1, 2, 1 << 2, 2 << 2, 1 << 6
_ASCII: Final = bytes(range(128))


def _kind(char: str) -> int:
    if char in WHITESPACE:
        return _SPACE
    if char.isalpha():
        return _LETTER | _AFTER_DIGIT
    if char.isdigit():
        return _DIGIT | _AFTER_LETTER
    return _AFTER_DIGIT if char == "'" else _AFTER_LETTER | _AFTER_DIGIT


_KIND: Final = bytes(map(_kind, _ASCII.decode())).ljust(256, b"\0")
_OTHER_SPACE: Final = re.compile(
    b"|".join(char.encode() for char in WHITESPACE if char > "~")
)


def _run_starts(raw: bytes, n: int, spaces: str) -> Ints:
    r"""Find the places in the first n bytes at which runs begin.

    The pre-tokenizer cuts at each of them, whatever the text, and what it makes of a
    run does not depend on the runs around it.

    Returns:
        The places, in order. The first is 0.
    """
    data = np.frombuffer(raw, np.uint8)
    kind = np.frombuffer(raw[:n].translate(_KIND), np.uint8)
    is_start = np.ones(n + 1, bool)
    is_start[1:n] = kind[:-1] & (kind[1:] >> 2) > 0
    space = kind == _SPACE
    # Whitespace beyond ASCII, and the edges of texts. All text without ASCII is little
    # of most texts, and still UTF-8, so that this is searched first.
    other = np.zeros(0, np.int64)
    if not raw.isascii():
        is_other = data[:n] == BETWEEN[0]
        if _OTHER_SPACE.search(raw.translate(None, _ASCII)):
            for match in _OTHER_SPACE.finditer(raw):
                is_other[slice(*match.span())] = True
        space |= is_other
        other = np.flatnonzero(is_other)
    # Whitespace goes from `begin` up to and without `end`. There is no cut in it if
    # some of it is beyond ASCII, nor at the edge of a text, which the patterns know.
    edges = np.flatnonzero(np.diff(space, prepend=False))
    begin, end = edges[: len(edges) // 2 * 2].reshape(-1, 2).T
    if len(other):
        plain = np.searchsorted(other, begin) == np.searchsorted(other, end)
        begin, end = begin[plain], end[plain]
    if spaces == "line":
        # A single space, as most whitespace is, holds no line end.
        at = np.flatnonzero((end - begin > 1) | (data[begin] != ord(" ")))
        line_ends = np.flatnonzero((data[:n] == 10) | (data[:n] == 13))
        last = np.append(-1, line_ends)[np.searchsorted(line_ends, end[at])]
        begin = begin.copy()
        begin[at] = np.maximum(begin[at], last + 1)
        after = end[at][begin[at] == end[at]]
        is_start[after[data[after] != ord("/")]] = True
    elif spaces == "word":
        is_start[end[data[end - 1] != ord(" ")]] = True
    is_start[begin[begin < end]] = True
    if spaces != "digit":
        is_start[end[end - begin > 1] - 1] = True
    if len(other):
        between = other[data[other] == BETWEEN[0]]
        is_start[between] = is_start[between + 1] = True
    return np.flatnonzero(is_start[:n])


class Runs(NamedTuple):
    r"""The runs of a block of text."""

    raw: bytes
    starts: Ints
    ends: Ints
    # One array for each integer of a key. A run that is longer has that of its
    # beginning.
    keys: list[NDArray[np.uint64]]


def find_runs(block: bytes, pattern: str) -> Runs:
    r"""Cut a block of text into runs.

    Args:
        block: a text in UTF-8 that begins and ends where its pattern cuts, or several
            with the byte 255 between them.
        pattern: one of the patterns of [`minillm.tokenizer.patterns`][].

    Returns:
        The runs. Cut into pre-tokens one by one, they give the pre-tokens of the texts.

    Examples:
        >>> runs = find_runs(b"one two\xffthree ", GPT2_PATTERN)
        >>> [runs.raw[i:j] for i, j in zip(runs.starts.tolist(), runs.ends.tolist())]
        [b'one', b' two', b'three ']
    """
    n, raw = len(block), block + bytes(8 * WORDS)
    starts = _run_starts(raw, n, SPACES[pattern])
    ends = np.append(starts[1:], n)
    if BETWEEN in block:
        is_text = np.frombuffer(raw, np.uint8)[starts] != BETWEEN[0]
        starts, ends = starts[is_text], ends[is_text]
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


def text_blocks(text: str, pattern: str) -> Iterator[bytes]:
    r"""Cut a long text into blocks, each as long as all before it, up to a limit.

    Args:
        text: any text.
        pattern: one of the patterns of [`minillm.tokenizer.patterns`][].

    Yields:
        The blocks in UTF-8. No pre-token lies across two of them.

    Examples:
        >>> blocks = text_blocks("so many words " * 60_000, GPT2_PATTERN)
        >>> [len(block) for block in blocks]
        [16387, 16389, 32779, 65557, 131115, 262229, 315544]
    """
    start = 0
    while start < len(text):
        size = min(max(start, FIRST_BLOCK), AT_ONCE)
        cut = next_safe_cut(text, pattern, start + size, len(text))
        yield text[start:cut].encode()
        start = cut


class RunNumbers:
    r"""Numbers for the distinct runs of a text, in the order of first appearance.

    Args:
        pattern: one of the patterns of [`minillm.tokenizer.patterns`][].

    Attributes:
        number: the number of each run. Other texts may be added; looking one up that is
            not there gives it the next number.
        n_bytes: the bytes of all runs that have a number.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.number: dict[bytes, int] = defaultdict(count().__next__)
        self.n_bytes = 0
        self.table, self.number_in_table = Table(WORDS), Column(np.int64)

    def __len__(self) -> int:
        return len(self.number)

    def last(self, n: int) -> list[bytes]:
        """Return the last n texts that got a number."""
        return list(islice(reversed(self.number), n))[::-1]

    def of(self, block: bytes) -> Ints:
        """Find the runs of a block, and the number of each."""
        raw, starts, ends, keys = find_runs(block, self.pattern)
        found, fits = self.table.find(keys), ends - starts <= WIDTH
        numbers: Ints = self.number_in_table.array[found]
        left = np.flatnonzero((found < 0) | ~fits)
        if len(left):
            n_before = len(self)
            places = map(slice, starts[left].tolist(), ends[left].tolist())
            given = map(self.number.__getitem__, map(raw.__getitem__, places))
            numbers[left] = np.fromiter(given, np.int64, len(left))
            self.n_bytes += sum(map(len, self.last(len(self) - n_before)))
            first = left[np.unique(numbers[left], return_index=True)[1]]
            first = first[fits[first]]
            self.table.add([word[first] for word in keys])
            self.number_in_table.extend(numbers[first])
        return numbers


def ascii_pattern(pattern: str) -> "re.Pattern[bytes]":
    r"""Translate a pre-tokenizer for text in ASCII, for which `re` is enough.

    Args:
        pattern: one of the patterns of [`minillm.tokenizer.patterns`][].

    Returns:
        An expression for bytes that cuts ASCII in the same way, and several times
        faster than `regex` does. It takes the byte 255 for an end of the text, so that
        many texts can be cut at once.

    Examples:
        >>> ascii_pattern(r" ?\p{L}+|[^\s\p{L}\p{N}]").pattern
        b' ?[a-zA-Z]+|[^\\xff\\sa-zA-Z0-9]'
    """
    letters = {"L": "a-zA-Z", "Lu": "A-Z", "Ll": "a-z", "N": "0-9"}
    beyond = {"[^": r"[^\xff", r"\S": r"[^\xff\s]", r"[\s\S]": r"[^\xff]"}
    inside = False

    def translate(match: "re.Match[str]") -> str:
        nonlocal inside
        found = match.group()
        if found in {"[", "[^", "]"}:
            inside = found != "]"
        if match.group(1):
            # There are no title-case letters, modifiers or marks in ASCII.
            kind = letters.get(match.group(1), "")
            return kind if inside else f"[{kind}]"
        return beyond.get(found, found)

    parts = r"\\p\{(\w+)\}|\[\\s\\S\]|\\.|\[\^?|\]"
    return re.compile(re.sub(parts, translate, pattern).encode())


def word_cutter(pattern: str) -> Callable[[Sequence[bytes]], tuple[list[bytes], Ints]]:
    r"""Build the function that cuts many runs into pre-tokens at once.

    Args:
        pattern: one of the patterns of [`minillm.tokenizer.patterns`][].

    Returns:
        The function. It takes runs in UTF-8, and returns the pre-tokens of all, and how
        many of them there are up to the end of each run.

    Examples:
        >>> words, ends = word_cutter(GPT2_PATTERN)(["naïve(x)".encode(), b" f()"])
        >>> words, ends.tolist()
        ([b'na\xc3\xafve', b'(', b'x', b')', b' f', b'()'], [4, 6])
    """
    cut = compile_pattern(pattern).findall
    cut_ascii = ascii_pattern(pattern).findall

    def cut_all(runs: Sequence[bytes]) -> tuple[list[bytes], Ints]:
        words: list[bytes] = []
        for is_ascii, group in groupby(runs, bytes.isascii):
            if is_ascii:
                words += cut_ascii(BETWEEN.join(group))
            else:
                for run in group:
                    words += [word.encode() for word in cut(run.decode())]
        # Where a run ends, a word ends.
        run_ends = np.cumsum(list(map(len, runs)))
        word_ends = np.cumsum(list(map(len, words)))
        return words, np.searchsorted(word_ends, run_ends) + 1

    return cut_all
