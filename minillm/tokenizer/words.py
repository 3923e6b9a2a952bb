r"""Runs into words: cutting many at once, and counting them.

A run such as "(x" or " cat's" may still be several pre-tokens. That is for the pattern
to say, and it is asked once for each distinct run. Even so there are many of them, and
two things make the asking cheap. Most runs are ASCII, for which Python's own `re` is
enough. And one call cuts thousands of them, if between them stands a byte that no
pre-token can hold:

>>> from minillm.tokenizer.patterns import GPT2_PATTERN
>>> words, ends = word_cutter(GPT2_PATTERN)([b"(x", b" cat's", b"]"])
>>> words, ends.tolist()
([b'(', b'x', b' cat', b"'s", b']'], [2, 4, 5])
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import count, groupby
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from minillm.tokenizer.patterns import compile_pattern, pretokenize
from minillm.tokenizer.runs import WIDTH, WORDS, Runs, find_runs, text_blocks
from minillm.tokenizer.table import Column, Table

__all__ = ["RunCounter", "ascii_pattern", "word_cutter"]

Ints = NDArray[np.int64]

# How many runs are cut into words at a time.
AT_A_TIME: Final = 1 << 14

# How many runs are remembered.
MEMORY: Final = 1 << 20

# A text of fewer characters is not worth the arrays.
SHORT: Final = 1 << 9

# Stands between runs in ASCII. It is no byte of UTF-8.
_BETWEEN: Final = b"\xff"


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
    r"""Build the function that cuts runs into pre-tokens.

    Args:
        pattern: one of the patterns of [`minillm.tokenizer.patterns`][].

    Returns:
        The function. It takes runs in UTF-8, and returns the pre-tokens of all, and how
        many of them there are up to the end of each run.

    Examples:
        >>> from minillm.tokenizer.patterns import GPT2_PATTERN
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
        pattern: one of the patterns of [`minillm.tokenizer.patterns`][].

    Examples:
        >>> from minillm.tokenizer.patterns import GPT2_PATTERN
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
        self.n_bytes = 0  # of these texts: without blanks one may be a line
        self.waiting: list[int] = []  # numbers of pre-tokens that are not counted yet
        self.times = np.zeros(0, np.int64)
        self.table = Table(WORDS)
        self.number_of_run = Column(np.int64)

    def add(self, text: str) -> None:
        """Count the pre-tokens of a text."""
        if len(text) < SHORT:
            self._add_words(text)
            return
        for block, has_runs in text_blocks(text, self.pattern):
            if has_runs:
                self._add_runs(find_runs(block, self.pattern))
                self._bound()
            else:
                self._add_words(block.decode())

    def _add_words(self, text: str) -> None:
        for word in pretokenize(text, self.pattern):
            self.waiting.append(self._number(word.encode()))
        if len(self.waiting) > AT_A_TIME:
            self._count_waiting()
            self._bound()

    def _count_waiting(self) -> None:
        self._count(np.array(self.waiting, np.int64))
        self.waiting.clear()

    def _bound(self) -> None:
        if len(self.number) > MEMORY or self.n_bytes > WIDTH * MEMORY:
            self._finish()

    def _number(self, text: bytes) -> int:
        number = self.number.get(text)
        if number is None:
            number = self.number[text] = len(self.number)
            self.n_bytes += len(text)
        return number

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
        self._count_waiting()
        texts, n_times = list(self.number), self.times
        self._begin()  # gives back what is not needed any more, before words are made
        # A word that is met for the first time gets the next number.
        number: dict[bytes, int] = defaultdict(count().__next__)
        total: NDArray[Any] = np.zeros(0)
        # Some at a time, since the words of all runs are many times as many.
        for i in range(0, len(texts), AT_A_TIME):
            words, ends = self.cut(texts[i : i + AT_A_TIME])
            times = np.repeat(n_times[i : i + AT_A_TIME], np.diff(ends, prepend=0))
            which = np.array(list(map(number.__getitem__, words)), np.int64)
            before, total = total, np.bincount(which, times, minlength=len(number))
            total[: len(before)] += before
        for word, n in zip(number, total.astype(np.int64).tolist(), strict=True):
            self.counts[word] += n

    def words(self) -> Counter[bytes]:
        """Return the counts, in the order of first appearance."""
        self._finish()
        return self.counts
