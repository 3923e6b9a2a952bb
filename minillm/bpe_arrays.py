r"""Encoding long texts: where the time goes, and how arrays take it away.

[`Encoder`][minillm.bpe_encode.Encoder] goes through a text word by word. Most of its
time goes into cutting out words and looking them up; [`minillm.bpe_runs`][] does both
for all words of a block together. What is left is the work for new words, and of that
most is merging. So they are merged together as well, *in step*: in each round every
word makes its next merge.

What remains in Python is done once for each distinct run. A text whose words keep
coming back is therefore encoded several times faster than one whose words do not.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from minillm.bpe_runs import (
    BLOCK,
    WIDTH,
    WORDS,
    Column,
    Table,
    find_runs,
    text_blocks,
    word_cutter,
)

if TYPE_CHECKING:
    from minillm.bpe_encode import Encoder

__all__ = ["ArrayEncoder", "merge_in_step"]

Ints = NDArray[np.int64]

# Of a first block most runs are new. If it is small, fewer are new in the next one.
FIRST_BLOCK: Final = 1 << 16

# How many runs are remembered, at most, and how many words.
MEMORY: Final = 1 << 20


def merge_in_step(
    words: Sequence[bytes],
    byte_ids: Ints,
    pairs: Table,
    merged: Ints,
) -> tuple[Ints, Ints]:
    r"""Merge many words at the same time.

    Args:
        words: the words.
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
    never = len(merged)
    lengths = np.array([len(word) for word in words])
    ids = byte_ids[np.frombuffer(b"".join(words), np.uint8)]
    owner = np.repeat(np.arange(len(words)), lengths)

    def ranks_at(i: Ints) -> Ints:
        # The rank of the pair at i and i + 1, `never` where a word ends in between.
        j = np.minimum(i + 1, len(ids) - 1)
        rank = pairs.find([pair_keys(ids[i], ids[j])])
        return np.where((rank < 0) | (owner[i] != owner[j]) | (i == j), never, rank)

    rank = ranks_at(np.arange(len(ids)))
    done = []
    while True:
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        best = np.minimum.reduceat(rank, starts)
        sizes = np.diff(starts, append=len(ids))
        # Words without a merge are done, and leave.
        going = np.repeat(best < never, sizes)
        done.append((owner[~going], ids[~going]))
        if not going.any():
            break
        best_rank = np.repeat(best, sizes)[going]
        owner, ids, rank = owner[going], ids[going], rank[going]
        # In each other word the leftmost of the best pairs is merged.
        at = np.flatnonzero(rank == best_rank)
        at = at[np.diff(owner[at], prepend=-1) != 0]
        ids[at] = merged[rank[at]]
        stays = np.ones(len(ids), bool)
        stays[at + 1] = False
        owner, ids, rank = owner[stays], ids[stays], rank[stays]
        # The k-th merge has moved by the k tokens that have gone before it.
        at -= np.arange(len(at))
        changed = np.append(at, at[at > 0] - 1)
        rank[changed] = ranks_at(changed)
    owners, all_ids = map(np.concatenate, zip(*done, strict=True))
    order = np.argsort(owners, kind="stable")
    return all_ids[order], np.bincount(owners, minlength=len(words))


def pair_keys(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.uint64]:
    """Make one integer of two ids."""
    return left.astype(np.uint64) << np.uint64(32) | right.astype(np.uint64)


class ArrayEncoder:
    r"""An encoder for long texts.

    The same result as [`Encoder`][minillm.bpe_encode.Encoder]. Unlike it, it works on
    all runs of a block of text at once, and remembers runs, not pre-tokens.

    Args:
        encoder: has the merges, and encodes what needs special care.

    Examples:
        >>> from minillm.bpe_encode import Encoder
        >>> from minillm.bpe_patterns import GPT2_PATTERN
        >>> ids = {bytes([byte]): byte for byte in range(256)} | {b"at": 256}
        >>> encoder = Encoder(ids, [(b"a", b"t")], GPT2_PATTERN)
        >>> list(ArrayEncoder(encoder).encode("a cat sat"))  # in blocks
        [[97, 32, 99, 256], [32, 115, 256]]
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

    def encode(self, text: str) -> Iterator[list[int]]:
        """Encode a text, block by block."""
        first = BLOCK if len(self.runs) else FIRST_BLOCK
        for block, has_runs in text_blocks(text, self.encoder.pattern, first):
            if not has_runs:
                yield self.encoder.encode_words(block)
                continue
            try:
                ids = self._encode_block(block)
            except BaseException:
                # Also at Ctrl-C: what has been learned by half would be wrong later.
                self.forget()
                raise
            yield ids.tolist()

    def _encode_block(self, block: str) -> Ints:
        raw, starts, ends, keys = find_runs(block, self.encoder.pattern)
        run = self.runs.find(keys)
        run[ends - starts > WIDTH] = -1
        begin, size = self.run_begin.array[run], self.run_size.array[run]
        new = np.flatnonzero(run < 0)
        if len(new):
            number: dict[bytes, int] = defaultdict(count().__next__)
            places = map(slice, starts[new].tolist(), ends[new].tolist())
            texts = map(raw.__getitem__, places)
            which = np.array(list(map(number.__getitem__, texts)))
            begin_of, size_of = self._learn(list(number))
            begin[new], size[new] = begin_of[which], size_of[which]
            # Remember each of them, from where it stands first.
            at = new[np.diff(np.maximum.accumulate(which), prepend=-1) > 0]
            short = ends[at] - starts[at] <= WIDTH
            self.runs.add([word[at[short]] for word in keys])
            self.run_begin.extend(begin_of[short])
            self.run_size.extend(size_of[short])
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
