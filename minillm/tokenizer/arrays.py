r"""Long texts: all words of a block together.

[`minillm.tokenizer.encoding`][] encodes a short text word by word. For a long one it
comes here, and so does [`minillm.tokenizer.counting`][] when it counts words: runs are
found and looked up with NumPy, [as `runs` describes][minillm.tokenizer.runs]. What is
left is the work for runs that are new, and of that most is merging. So new words are
merged together as well, *in step*: in each round every word makes its next merge.

What remains in Python is done once for each distinct run. A text whose words keep
coming back is therefore encoded several times faster than one whose words do not.
"""

from collections import Counter
from collections.abc import Sequence
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from minillm.tokenizer.runs import (
    AT_ONCE,
    BETWEEN,
    FIRST_BLOCK,
    WIDTH,
    RunNumbers,
    text_blocks,
    word_cutter,
)
from minillm.tokenizer.table import Column, Ints, Table
from minillm.tokenizer.words import LONG_WORD, WordEncoder

__all__ = ["ArrayEncoder", "RunCounter", "merge_in_step"]

# Comes after every rank.
_NEVER: Final = 1 << 62

# With more runs than this, as many bytes as they could have, or four times as many ids,
# all are forgotten.
MEMORY: Final = 1 << 20

# How many runs are cut into words at a time.
AT_A_TIME: Final = 1 << 14


def _is_full(runs: RunNumbers) -> bool:
    return len(runs) > MEMORY or runs.n_bytes > WIDTH * MEMORY


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
        self.waiting: list[bytes] = []
        self.size, self.enough = 0, FIRST_BLOCK
        self._begin()

    def _begin(self) -> None:
        self.runs, self.times = RunNumbers(self.pattern), Column(np.int64)

    def add(self, text: str) -> None:
        """Count the pre-tokens of a text."""
        for block in text_blocks(text, self.pattern):
            # Short texts are counted together.
            self.waiting.append(block)
            self.size += len(block)
            if self.size >= self.enough:
                self.enough = min(2 * self.enough, AT_ONCE)
                self._count()

    def _count(self) -> None:
        numbers = self.runs.of(BETWEEN.join(self.waiting))
        self.waiting, self.size = [], 0
        self.times.extend(np.zeros(len(self.runs) - self.times.size, np.int64))
        np.add.at(self.times.array, numbers, 1)
        if _is_full(self.runs):
            self._finish()

    def _finish(self) -> None:
        counts, runs, times = self.counts, list(self.runs.number), self.times.array
        get = counts.get
        self._begin()  # gives back what is not needed any more, before words are made
        # Some at a time, since the words of all runs are many times as many.
        for i in range(0, len(runs), AT_A_TIME):
            words, ends = self.cut(runs[i : i + AT_A_TIME])
            n_words = np.diff(ends, prepend=0)
            of_words = np.repeat(times[i : i + len(n_words)], n_words).tolist()
            for word, n in zip(words, of_words, strict=True):
                counts[word] = get(word, 0) + n

    def words(self) -> Counter[bytes]:
        """Return the counts, in the order of first appearance."""
        if self.waiting:
            self._count()
        self._finish()
        return self.counts


def merge_in_step(
    words: Sequence[bytes],
    byte_ids: Ints,
    pairs: Table,
    merged: Ints,
) -> tuple[Ints, Ints]:
    r"""Merge many words at the same time.

    Args:
        words: the words, in UTF-8.
        byte_ids: the id of each byte.
        pairs: the pairs that merge, in the order of their ranks.
        merged: what each pair becomes.

    Returns:
        The ids of all words, one word after the other, and how many each has.

    Examples:
        >>> pairs = Table(1)
        >>> pairs.add([pair_keys(np.array([97, 256]), np.array([98, 256]))])
        >>> merged = np.array([256, 257])
        >>> words = [b"abab", b"aba", b"c"]
        >>> ids, sizes = merge_in_step(words, np.arange(256), pairs, merged)
        >>> ids.tolist(), sizes.tolist()
        ([257, 256, 97, 99], [1, 2, 1])
    """
    # Before, between and behind the words stands a token that merges with no other.
    data = np.frombuffer(BETWEEN + BETWEEN.join(words) + BETWEEN, np.uint8)
    edges = np.flatnonzero(data == BETWEEN[0])
    ids = byte_ids[data]
    ids[edges] = -1
    # The places of the neighbours of each token, as in a linked list.
    before, after = np.arange(len(ids)) - 1, np.arange(len(ids)) + 1

    def ranked(left: Ints) -> Ints:
        # The rank of the pair whose left token stands at a place, and the place.
        rank = pairs.find([pair_keys(ids[left], ids[after[left]])])
        return np.where(rank < 0, _NEVER, rank << 32 | left)

    order = np.append(ranked(np.arange(len(ids) - 1)), _NEVER)
    while True:
        # In each word, of the pairs with the lowest rank the leftmost.
        best = np.minimum.reduceat(order, edges)
        best = best[best < _NEVER]
        if not len(best):
            break
        at = best & 0xFFFFFFFF
        gone = after[at]
        ids[at], ids[gone] = merged[best >> 32], -1
        after[at] = after[gone]
        before[after[at]] = at
        order[gone] = _NEVER
        changed = np.append(before[at], at)
        order[changed] = ranked(changed)
    there = ids >= 0
    return ids[there], np.add.reduceat(there, edges[:-1], dtype=np.int64)


def pair_keys(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.uint64]:
    """Make one integer of two ids."""
    return left.astype(np.uint64) << np.uint64(32) | right.astype(np.uint64)


class ArrayEncoder:
    r"""An encoder for long texts.

    The same result as encoding word by word. Unlike it, it works on all runs of a block
    of text at once, and remembers runs. Several threads may share it; they take turns.

    Args:
        words: has the merges, and encodes long words.
        pattern: one of the patterns of [`minillm.tokenizer.patterns`][].

    Examples:
        >>> from minillm.tokenizer.patterns import GPT2_PATTERN
        >>> ids = {bytes([byte]): byte for byte in range(256)} | {b"at": 256}
        >>> encoder = ArrayEncoder(WordEncoder(ids, [(b"a", b"t")]), GPT2_PATTERN)
        >>> encoder.encode("a cat sat").tolist()
        [97, 32, 99, 256, 32, 115, 256]
    """

    def __init__(self, words: WordEncoder, pattern: str) -> None:
        self.words, self.pattern = words, pattern
        self.cut = word_cutter(pattern)
        self.byte_ids = np.array([-1 if i is None else i for i in words.byte_ids])
        # The pairs are in the order of their ranks, so their numbers can stand for
        # ranks.
        merged = [words.merged[rank] for rank in words.ranks.values()]
        self.merged = np.array(merged, np.int64)
        left_right = np.array(list(words.ranks), np.int64).reshape(-1, 2)
        self.pairs = Table(1)
        self.pairs.add([pair_keys(left_right[:, 0], left_right[:, 1])])
        # A thread that looks runs up while another learns would find half of them.
        self.lock = Lock()
        self.forget()

    def forget(self) -> None:
        """Start with an empty memory."""
        # A pre-token is a run too: cut again, it stays as it is.
        self.runs = RunNumbers(self.pattern)
        # The ids of run number r are `size[r]` of all ids, from `begin[r]` on.
        self.begin, self.size = Column(np.int64), Column(np.int64)
        self.ids = Column(np.int64)

    def encode(self, text: str) -> Ints:
        """Encode a text."""
        ids = [np.zeros(0, np.int64)]
        for block in text_blocks(text, self.pattern):
            with self.lock:
                try:
                    ids.append(self._encode_block(block))
                except BaseException:
                    # Also at Ctrl-C: what was learned by half would be wrong later.
                    self.forget()
                    raise
        return np.concatenate(ids) if len(ids) != 2 else ids[1]

    def _encode_block(self, block: bytes) -> Ints:
        numbers = self.runs.of(block)
        if len(self.runs) > self.size.size:
            self._learn(self.runs.last(len(self.runs) - self.size.size))
        ids = self._ids(numbers)
        if _is_full(self.runs) or self.ids.size > 4 * MEMORY:
            self.forget()
        return ids

    def _ids(self, numbers: Ints) -> Ints:
        begin, size = self.begin.array[numbers], self.size.array[numbers]
        if len(numbers) == 1:
            # One run, perhaps of a megabyte: no index for each of its ids.
            return self.ids.array[begin[0] : begin[0] + size[0]].copy()
        # The i-th id of a run stands i places behind its first.
        offset = np.repeat(begin - np.cumsum(size) + size, size)
        ids: Ints = self.ids.array[offset + np.arange(len(offset))]
        return ids

    def _learn(self, runs: list[bytes]) -> None:
        """Encode the runs that got the last numbers."""
        n_known = self.size.size
        words, ends = self.cut(runs)
        numbers = np.array(list(map(self.runs.number.__getitem__, words)), np.int64)
        for column in (self.begin, self.size):
            column.extend(np.zeros(len(self.runs) - n_known, np.int64))
        # Words first. Most runs are one, and share its number.
        new, first = np.unique(numbers, return_index=True)
        first = first[new >= n_known]
        self._learn_words(numbers[first], [words[i] for i in first.tolist()])
        # Then runs of several words: the ids of their words, in one piece.
        n_words = np.diff(ends, prepend=0)
        several = np.flatnonzero(n_words > 1)
        parts = numbers[np.repeat(n_words > 1, n_words)]
        ends = np.cumsum(n_words[several])
        ends = np.cumsum(self.size.array[parts])[ends - 1]
        self._append(n_known + several, self._ids(parts), np.diff(ends, prepend=0))

    def _learn_words(self, numbers: Ints, words: list[bytes]) -> None:
        # A word that is a token has one id.
        ids = np.array([self.words.whole.get(word, -1) for word in words], np.int64)
        whole = np.flatnonzero(ids >= 0)
        self._append(numbers[whole], ids[whole], np.ones(len(whole), np.int64))
        left = np.flatnonzero(ids < 0).tolist()
        short = [i for i in left if len(words[i]) < LONG_WORD]
        if short:
            merge = [words[i] for i in short]
            if None in self.words.byte_ids:
                for word in merge:
                    self.words.ids_of_bytes(word)
            merged = merge_in_step(merge, self.byte_ids, self.pairs, self.merged)
            self._append(numbers[short], *merged)
        for i in left:
            if len(words[i]) >= LONG_WORD:
                runs = self.words.encode_runs(words[i])
                # Made an array before it is repeated: a run may be a megabyte.
                arrays = [np.tile(np.array(ids, np.int64), n) for ids, n in runs]
                long = np.concatenate(arrays)
                self._append(numbers[[i]], long, np.array([len(long)]))

    def _append(self, numbers: Ints, ids: Ints, size: Ints) -> None:
        """Remember the ids of runs, given one run after the other."""
        self.begin.array[numbers] = self.ids.size + np.cumsum(size) - size
        self.size.array[numbers] = size
        self.ids.extend(ids)
