r"""Encoding long texts: where the time goes, and how arrays take it away.

[`Encoder`][minillm.tokenizer.encoding.Encoder] goes through a text word by word. Most
of its time goes into cutting out words and looking them up;
[`minillm.tokenizer.runs`][] and [`minillm.tokenizer.table`][] do both for all words of
a block together. What is left is the work for new words, and of that most is merging.
So they are merged together as well, *in step*: in each round every word makes its next
merge.

What remains in Python is done once for each distinct run of up to 31 bytes, and each
time for a longer one. A text whose words keep coming back is therefore encoded several
times faster than one whose words do not.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import count, islice
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from minillm.tokenizer.runs import BLOCK, WIDTH, WORDS, find_runs, text_blocks
from minillm.tokenizer.table import Column, Table
from minillm.tokenizer.words import word_cutter

if TYPE_CHECKING:
    from minillm.tokenizer.encoding import Encoder

__all__ = ["ArrayEncoder", "merge_in_step"]

Ints = NDArray[np.int64]

# Of a first block most runs are new. If it is small, fewer are new in the next one.
FIRST_BLOCK: Final = 1 << 16

# Stands between words. It is no byte of UTF-8.
_BETWEEN: Final = b"\xff"

# Comes after every rank.
_NEVER: Final = 1 << 62

# When a block has brought more runs or words than this, or four times as many ids, all
# are forgotten.
MEMORY: Final = 1 << 20


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
        >>> _ = pairs.add([pair_keys(np.array([97, 256]), np.array([98, 256]))])
        >>> merged = np.array([256, 257])
        >>> words = [b"abab", b"aba", b"c"]
        >>> ids, sizes = merge_in_step(words, np.arange(256), pairs, merged)
        >>> ids.tolist(), sizes.tolist()
        ([257, 256, 97, 99], [1, 2, 1])
    """
    # Before, between and behind the words stands a token that merges with no other.
    data = np.frombuffer(_BETWEEN + _BETWEEN.join(words) + _BETWEEN, np.uint8)
    edges = np.flatnonzero(data == _BETWEEN[0])
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

    The same result as [`Encoder`][minillm.tokenizer.encoding.Encoder]. Unlike it, it
    works on all runs of a block of text at once, and remembers runs as well as
    pre-tokens. Several threads may share it; they take turns.

    Args:
        encoder: has the merges, and encodes what needs special care.

    Examples:
        >>> from minillm.tokenizer.encoding import Encoder
        >>> from minillm.tokenizer.patterns import GPT2_PATTERN
        >>> ids = {bytes([byte]): byte for byte in range(256)} | {b"at": 256}
        >>> encoder = Encoder(ids, [(b"a", b"t")], GPT2_PATTERN)
        >>> ArrayEncoder(encoder).encode("a cat sat").tolist()
        [97, 32, 99, 256, 32, 115, 256]
    """

    def __init__(self, encoder: "Encoder") -> None:
        self.encoder = encoder
        self.cut = word_cutter(encoder.pattern)
        self.byte_ids = np.array([-1 if i is None else i for i in encoder.byte_ids])
        # The pairs are in the order of their ranks, so their numbers can stand for
        # ranks.
        merged = [encoder.merged[rank] for rank in encoder.ranks.values()]
        self.merged = np.array(merged, np.int64)
        left_right = np.array(list(encoder.ranks), np.int64).reshape(-1, 2)
        self.pairs = Table(1)
        self.pairs.add([pair_keys(left_right[:, 0], left_right[:, 1])])
        # A thread that looks runs up while another learns would find half of them.
        self.lock = Lock()
        self.forget()

    def forget(self) -> None:
        """Start with an empty memory."""
        # A word that is looked up for the first time gets the next number.
        self.words: dict[bytes, int] = defaultdict(count().__next__)
        self.runs = Table(WORDS)
        # The ids of word number w are `word_size[w]` of all ids, from `word_begin[w]`
        # on. Those of a run are those of its words once more, in one piece.
        self.word_begin, self.word_size = Column(np.int64), Column(np.int64)
        self.run_begin, self.run_size = Column(np.int64), Column(np.int64)
        self.ids = Column(np.int64)

    def encode(self, text: str) -> Ints:
        """Encode a text."""
        first = BLOCK if len(self.runs) else FIRST_BLOCK
        ids = []
        for block, has_runs in text_blocks(text, self.encoder.pattern, first):
            if not has_runs:
                words = self.encoder.encode_words(block.decode())
                ids.append(np.array(words, np.int64))
                continue
            with self.lock:
                try:
                    ids.append(self._encode_block(block))
                except BaseException:
                    # Also at Ctrl-C: what was learned by half would be wrong later.
                    self.forget()
                    raise
        return np.concatenate(ids)

    def _encode_block(self, block: bytes) -> Ints:
        raw, starts, ends, keys = find_runs(block, self.encoder.pattern)
        run = self.runs.find(keys)
        is_long = ends - starts > WIDTH
        new = np.flatnonzero((run < 0) & ~is_long)
        long = np.flatnonzero(is_long)
        run[new], first = self.runs.add([word[new] for word in keys])
        at = np.append(new[first], long)
        if len(at):
            places = map(slice, starts[at].tolist(), ends[at].tolist())
            learned = self._learn(list(map(raw.__getitem__, places)))
            self.run_begin.extend(learned[0][: len(first)])
            self.run_size.extend(learned[1][: len(first)])
        begin, size = self.run_begin.array[run], self.run_size.array[run]
        if len(long):
            begin[long], size[long] = (each[len(first) :] for each in learned)
        ids = self._ids(begin, size)
        if max(len(self.runs), len(self.words), self.ids.size // 4) > MEMORY:
            self.forget()
        return ids

    def _ids(self, begin: Ints, size: Ints) -> Ints:
        # The i-th id of a word or run stands i places behind its first.
        offset = np.repeat(begin - np.cumsum(size) + size, size)
        return self.ids.array[offset + np.arange(len(offset))]

    def _learn(self, runs: list[bytes]) -> tuple[Ints, Ints]:
        r"""Encode new runs. Where do their ids begin, and how many are they?"""
        words, ends = self.cut(runs)
        n_known = len(self.words)
        number = np.array(list(map(self.words.__getitem__, words)))
        new = list(islice(reversed(self.words), len(self.words) - n_known))[::-1]
        self._learn_words(new)
        size = self.word_size.array[number]
        ids = self._ids(self.word_begin.array[number], size)
        last = np.cumsum(size)[ends - 1]
        size = np.diff(last, prepend=0)
        begin = self.ids.size + last - size
        self.ids.extend(ids)
        # What is long is not remembered, lest the memory have no bound.
        for word in new:
            if len(word) > WIDTH:
                del self.words[word]
        return begin, size

    def _learn_words(self, words: list[bytes]) -> None:
        encoder = self.encoder
        # A word that is a token has one id.
        ids = np.array([encoder.whole.get(word, -1) for word in words])
        size = np.ones(len(words), np.int64)
        begin = self.ids.size + np.arange(len(words))
        self.ids.extend(ids)
        left = np.flatnonzero(ids < 0).tolist()
        merge = [i for i in left if len(words[i]) <= WIDTH]
        if merge:
            short = [words[i] for i in merge]
            if None in encoder.byte_ids:
                for word in short:
                    encoder.ids_of_bytes(word)
            ids, sizes = merge_in_step(short, self.byte_ids, self.pairs, self.merged)
            size[merge] = sizes
            begin[merge] = self.ids.size + np.cumsum(sizes) - sizes
            self.ids.extend(ids)
        for i in left:
            if len(words[i]) > WIDTH:
                long = encoder.encode_word(words[i])
                begin[i], size[i] = self.ids.size, len(long)
                self.ids.extend(long)
        self.word_begin.extend(begin)
        self.word_size.extend(size)
