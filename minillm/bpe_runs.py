r"""Long texts as arrays: runs between blanks, and a table to remember them.

Whoever counts words, or looks them up, does the same for each: cut it out, make a
string of it, look the string up. None of that is slow, but it is done in Python, once
for each of the two hundred thousand words in a megabyte. Here it is done for all words
of a block of text together, and three ideas make that possible.

**Runs.** Finding pre-tokens takes a regular expression; finding where blanks begin and
letters end takes a look at each byte and the next. So the text is first cut there, into
*runs* such as " cat's" or "(x", at places where every pre-tokenizer cuts too. Only a
run that is new is cut further:

>>> runs = find_runs(b"the cat's hat\n\n  f(x)", GPT2_PATTERN)
>>> [runs.raw[i:j] for i, j in zip(runs.starts.tolist(), runs.ends.tolist())]
[b'the', b" cat's", b' hat', b'\n\n ', b' f', b'(x', b')']

**Keys.** A run of up to 31 bytes is four integers of 64 bits, read from the text where
it stands, with its length in the last byte. Two runs are equal if their integers are.
Nothing has to be hashed in the hope that no two runs collide, and no string is made:

>>> [hex(word[3]) for word in runs.keys]
['0x200a0a', '0x0', '0x0', '0x300000000000000']

**A table.** A dictionary looks up one key. The [`Table`][minillm.bpe_runs.Table] of
this page looks up a hundred thousand with some ten operations on arrays.
"""

import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from minillm.bpe_cuts import WHITESPACE, last_safe_cut, next_safe_cut
from minillm.bpe_patterns import (
    DIGITS_PATTERN,
    GPT2_PATTERN,
    GPT4_PATTERN,
    LLAMA3_PATTERN,
    O200K_PATTERN,
    compile_pattern,
    pretokenize,
)

__all__ = [
    "Column",
    "RunCounter",
    "Runs",
    "Table",
    "ascii_pattern",
    "find_runs",
    "run_starts",
    "text_blocks",
    "word_cutter",
]

Ints = NDArray[np.int64]

# A text is worked on in blocks of this many characters: many words at once, and yet few
# enough that their arrays stay in the processor's cache.
BLOCK: Final = 1 << 20

# So many characters around a blank beyond ASCII are done without runs.
AROUND: Final = 1 << 14

# A key is this many integers of eight bytes, and holds a run of up to this many bytes.
WORDS: Final = 4
WIDTH: Final = 8 * WORDS - 1

# How many runs are cut into words at a time.
AT_A_TIME: Final = 1 << 14

# How many runs are remembered, and how many ids of them.
MEMORY: Final = 1 << 20

KINDS: Final = {
    GPT2_PATTERN: "word",
    DIGITS_PATTERN: "digit",
    GPT4_PATTERN: "line",
    LLAMA3_PATTERN: "line",
    O200K_PATTERN: "line",
}
"""How each pattern cuts at blanks. There is a proof in `run_starts` for each kind."""

_OTHER_BLANKS: Final = re.compile(f"[{''.join(c for c in WHITESPACE if c > '~')}]")

# `KEEP[k][n]` keeps those of the bytes 8k to 8k+7 that belong to a run of n bytes.
_KEEP: Final = np.array(
    [
        [(1 << 8 * min(max(n - 8 * k, 0), 8)) - 1 for n in range(WIDTH + 2)]
        for k in range(WORDS)
    ],
    np.uint64,
)


# In all patterns letters are the last thing that a pre-token holds, but for an
# apostrophe as in "don't"; digits are the last, too. So the byte after a letter or a
# digit that is not of its kind begins a pre-token. Two such bytes have a bit in common
# in these tables. Blanks are looked at apart, and beyond ASCII nothing is known.
_ENDS: Final = np.zeros(256, np.uint8)
_BEGINS: Final = np.zeros(256, np.uint8)
for _char in map(chr, range(128)):
    _ENDS[ord(_char)] = 1 * _char.isalpha() + 2 * _char.isdigit()
    if _char not in WHITESPACE:
        _BEGINS[ord(_char)] = 3 - _ENDS[ord(_char)] - (_char == "'")


def run_starts(data: NDArray[np.uint8], kind: str) -> Ints:
    r"""Find the places at which runs begin.

    Every place is one at which the pre-tokenizer cuts too, whatever the text, and what
    it makes of a run does not depend on the runs around it. That holds for blanks in
    ASCII; a text with others is not given to this function.

    Args:
        data: the bytes of a text that does not end in a blank, or (for the kind
            `"line"`) ends in a line end, and eight zeros for each word of a key.
        kind: how the pattern treats a stretch of blanks. `"word"` (GPT-2): the last
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
    # The blanks of ASCII are 9 to 13 and 32. Below 9, the subtraction wraps around.
    blank = (data[:n] - np.uint8(9) < 5) | (data[:n] == ord(" "))
    edges = np.flatnonzero(blank[1:] != blank[:-1]) + 1
    if blank[0]:
        edges = np.append(0, edges)
    # Stretches of blanks: from `begin` up to and without `end`.
    begin, end = edges[::2], edges[1::2]
    if len(end) < len(begin):
        end = np.append(end, n)
    is_start = np.zeros(n + 1, bool)
    is_start[0] = True
    if kind == "line":
        line_ends = np.flatnonzero((data[:n] == 10) | (data[:n] == 13))
        line_ends = np.append(-1, line_ends)
        last = line_ends[np.searchsorted(line_ends, end) - 1]
        begin = np.maximum(begin, last + 1)
        is_start[end[(begin == end) & (data[end] != ord("/"))]] = True
    elif kind == "word":
        is_start[end[data[end - 1] != ord(" ")]] = True
    is_start[begin[begin < end]] = True
    if kind != "digit":
        is_start[end[end - begin > 1] - 1] = True
    is_start[1:n] |= (_ENDS[data[: n - 1]] & _BEGINS[data[1:n]]) > 0
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
        pattern: one of the patterns of [`minillm.bpe_patterns`][].

    Returns:
        The runs.
    """
    raw = block + bytes(8 * WORDS)
    starts = run_starts(np.frombuffer(raw, np.uint8), KINDS[pattern])
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
        pattern: one of the patterns of [`minillm.bpe_patterns`][].
        first: the size of the first block, in characters. The next ones double.

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
    # What is left without ASCII is hardly ever much.
    data = np.frombuffer(raw, np.uint8)
    return bool(_OTHER_BLANKS.search(data[data > 127].tobytes().decode()))


class Column:
    r"""An array that grows at its end, twice as large each time it is full.

    Examples:
        >>> column = Column(np.int64)
        >>> column.extend([3, 1])
        >>> column.extend(np.array([2]))
        >>> column.array[: column.size].tolist()
        [3, 1, 2]
    """

    def __init__(self, dtype: type) -> None:
        self.array: NDArray[Any] = np.zeros(1024, dtype)
        self.size = 0

    def extend(self, values: NDArray[Any] | list[int]) -> None:
        """Append values."""
        end = self.size + len(values)
        if end > len(self.array):
            more = np.zeros(max(end, len(self.array)), self.array.dtype)
            self.array = np.append(self.array, more)
        self.array[self.size : end] = values
        self.size = end


class Table:
    r"""A dictionary from keys of some 64-bit integers to their numbers.

    It is a hash table with open addressing: a key has a place, and if that is taken,
    the next one, and so on. All operations are for many keys at once.

    Args:
        n_words: how many integers make a key.

    Examples:
        The numbers count the keys in the order of adding; -1 is for a key that is not
        there:

        >>> table = Table(1)
        >>> numbers, first = table.add([np.array([7, 5, 7], np.uint64)])
        >>> numbers.tolist(), first.tolist()
        ([0, 1, 0], [0, 1])
        >>> table.find([np.array([5, 6, 7], np.uint64)]).tolist()
        [1, -1, 0]
    """

    def __init__(self, n_words: int) -> None:
        # Odd factors at random, so that nobody can prepare a text whose keys collide.
        self.factors = np.array(
            [secrets.randbits(64) | 1 for _ in range(n_words + 1)], np.uint64
        )
        self.keys = [Column(np.uint64) for _ in range(n_words)]
        self.slots = np.full(1 << 10, -1, np.int64)

    def __len__(self) -> int:
        return self.keys[0].size

    def _places(self, keys: Sequence[NDArray[np.uint64]]) -> Ints:
        mixed = np.zeros(len(keys[0]), np.uint64)
        for word, factor in zip(keys, self.factors[1:], strict=True):
            mixed += word * factor
        mixed ^= mixed >> np.uint64(29)
        mixed *= self.factors[0]
        bits = len(self.slots).bit_length() - 1
        return (mixed >> np.uint64(64 - bits)).astype(np.int64)

    def find(self, keys: Sequence[NDArray[np.uint64]]) -> Ints:
        """Find the numbers of keys."""
        place = self._places(keys)
        found = self.slots[place]
        # Where another key has been found, look at the next place.
        open_ = np.flatnonzero(self._other(keys, found))
        while len(open_):
            place[open_] = (place[open_] + 1) % len(self.slots)
            found[open_] = self.slots[place[open_]]
            keys_left = [word[open_] for word in keys]
            open_ = open_[self._other(keys_left, found[open_])]
        return found

    def _other(self, keys: Sequence[NDArray[np.uint64]], found: Ints) -> NDArray[Any]:
        other = keys[0] != self.keys[0].array[found]
        for word, column in zip(keys[1:], self.keys[1:], strict=True):
            other |= word != column.array[found]
        return other & (found >= 0)

    def add(self, keys: Sequence[NDArray[np.uint64]]) -> tuple[Ints, Ints]:
        """Add new keys, of which some may be equal.

        Returns:
            The number of each, and where each number comes first.
        """
        old, n = len(self), len(keys[0])
        if 4 * (old + n) > len(self.slots):
            self._grow(4 * (old + n))
        place = self._places(keys)
        # Until it is known which of them are equal, each has a number of its own.
        for column, words in zip(self.keys, keys, strict=True):
            column.extend(words)
        number = np.arange(old, old + n)
        left = np.arange(n)[::-1]
        while len(left):
            at = place[left]
            free = self.slots[at] < 0
            # Of several that want the same place the last one written stays. That is
            # the first of them, as they are written backwards.
            self.slots[at[free]] = old + left[free]
            number[left] = self.slots[at]
            left = left[self._other([word[left] for word in keys], number[left])]
            place[left] = (place[left] + 1) % len(self.slots)
        first = np.flatnonzero(number == np.arange(old, old + n))
        renamed = np.zeros(n, np.int64)
        renamed[first] = np.arange(old, old + len(first))
        self.slots[place[first]] = renamed[first]
        for column, words in zip(self.keys, keys, strict=True):
            column.size = old
            column.extend(words[first])
        return renamed[number - old], first

    def _grow(self, at_least: int) -> None:
        self.slots = np.full(1 << at_least.bit_length(), -1, np.int64)
        numbers = np.arange(len(self))
        place = self._places([column.array[numbers] for column in self.keys])
        while len(numbers):
            free = self.slots[place] < 0
            self.slots[place[free]] = numbers[free]
            left = self.slots[place] != numbers
            numbers, place = numbers[left], (place[left] + 1) % len(self.slots)


# Stands between runs in ASCII. It is no byte of UTF-8.
_BETWEEN: Final = b"\xff"


def ascii_pattern(pattern: str) -> "re.Pattern[bytes]":
    r"""Translate a pre-tokenizer for text in ASCII, for which `re` is enough.

    Args:
        pattern: one of the patterns of [`minillm.bpe_patterns`][].

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
    r"""Build the function that cuts runs into pre-tokens.

    Args:
        pattern: one of the patterns of [`minillm.bpe_patterns`][].

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
                words += cut_ascii(_BETWEEN.join(group))
            else:
                for run in group:
                    words += [word.encode() for word in cut(run.decode())]
        # Where a run ends, a word ends.
        run_ends = np.cumsum(list(map(len, runs)))
        word_ends = np.cumsum(list(map(len, words)))
        return words, np.searchsorted(word_ends, run_ends) + 1

    return cut_all


class RunCounter:
    r"""Counts pre-tokens by counting runs, and cutting each distinct one once.

    Args:
        pattern: one of the patterns of [`minillm.bpe_patterns`][].

    Examples:
        >>> counter = RunCounter(GPT2_PATTERN)
        >>> counter.add("the cat in the hat")
        >>> counter.words()
        Counter({b'the': 1, b' cat': 1, b' in': 1, b' the': 1, b' hat': 1})
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.cut = word_cutter(pattern)
        self.counts: Counter[bytes] = Counter()
        self._begin()

    def _begin(self) -> None:
        # Each distinct text has a number, in the order of first appearance. A text is a
        # run, or a pre-token that was cut out before: cut again, it stays as it is.
        self.number: dict[bytes, int] = {}
        self.times = np.zeros(0, np.int64)
        self.table = Table(WORDS)
        self.number_of_run = Column(np.int64)

    def add(self, text: str) -> None:
        """Count the pre-tokens of a text."""
        for block, has_runs in text_blocks(text, self.pattern):
            if has_runs:
                self._add_runs(find_runs(block, self.pattern))
            else:
                text = block.decode()
                words = [word.encode() for word in pretokenize(text, self.pattern)]
                self._count(np.array([self._number(word) for word in words], np.int64))
            if len(self.number) > MEMORY:
                self._finish()

    def _number(self, text: bytes) -> int:
        return self.number.setdefault(text, len(self.number))

    def _count(self, numbers: Ints) -> None:
        times = np.bincount(numbers, minlength=len(self.number))
        times[: len(self.times)] += self.times
        self.times = times

    def _add_runs(self, runs: Runs) -> None:
        raw, starts, ends, keys = runs
        run = self.table.find(keys)
        is_long = ends - starts > WIDTH
        new = np.flatnonzero((run < 0) & ~is_long)
        run[new], first = self.table.add([word[new] for word in keys])
        # Each run that is new or too long for the table gets its number in its turn.
        is_long[new[first]] = True
        at = np.flatnonzero(is_long)
        bounds = zip(starts[at].tolist(), ends[at].tolist(), strict=True)
        given = np.array([self._number(raw[i:j]) for i, j in bounds], np.int64)
        short = ends[at] - starts[at] <= WIDTH
        self.number_of_run.extend(given[short])
        numbers = self.number_of_run.array[run]
        numbers[at] = given
        self._count(numbers)

    def _finish(self) -> None:
        counts = self.counts
        texts = list(self.number)
        # Some at a time, since the words of all runs are many times as many.
        for i in range(0, len(texts), AT_A_TIME):
            words, ends = self.cut(texts[i : i + AT_A_TIME])
            times = np.repeat(self.times[i : i + AT_A_TIME], np.diff(ends, prepend=0))
            for word, n in zip(words, times.tolist(), strict=True):
                counts[word] += n
        self._begin()

    def words(self) -> Counter[bytes]:
        """Return the counts, in the order of first appearance."""
        self._finish()
        return self.counts
