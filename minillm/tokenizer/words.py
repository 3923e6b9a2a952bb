r"""One word: from its bytes to its ids.

[`encode_naive`][minillm.bpe.encode_naive] tries every merge on every word. A word
allows only a few of them: those of its neighbours. So look the neighbours up, merge the
pair that was learned first, and look up the two pairs that this has changed. A word
that does not end is cut into pieces: [`minillm.tokenizer.long_words`][].
"""

import heapq
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Final

from minillm.tokenizer.long_words import PIECE, Times, merge_in_pieces

__all__ = ["Merge", "Pair", "WordEncoder"]

Pair = tuple[int, int]
"""The ids of two neighbouring tokens."""

Merge = tuple[bytes, bytes]
"""The two tokens that a merge makes one of."""

# From this many bytes on a word is merged with a heap.
LONG_WORD: Final = 64

# From this many on it is merged piece by piece.
ENDLESS: Final = 8 * PIECE


class WordEncoder:
    r"""Merges, ready to be looked up.

    Args:
        ids: the id of each token, without the special ones.
        merges: the merges.
        whole: whether a word that is a token is taken whole.

    Raises:
        ValueError: if a merge needs a token that there is not.

    Examples:
        >>> ids = {bytes([byte]): byte for byte in range(256)}
        >>> ids |= {b"th": 256, b"the": 257}
        >>> words = WordEncoder(ids, [(b"t", b"h"), (b"th", b"e")])
        >>> words.encode(b"then"), words.encode(b"ath")
        ([257, 110], [97, 256])
    """

    def __init__(
        self, ids: Mapping[bytes, int], merges: Sequence[Merge], whole: bool = True
    ) -> None:
        self.byte_ids = [ids.get(bytes([byte])) for byte in range(256)]
        self.ids, self.whole = ids, ids if whole else {}
        # The rank of a merge is its index in the list; the lower goes first.
        self.ranks: dict[Pair, int] = {}
        self.merged: list[int] = []
        for rank, (left, right) in enumerate(merges):
            try:
                pair, new_id = (ids[left], ids[right]), ids[left + right]
            except KeyError as error:
                raise ValueError(
                    f"merge {rank}, {left!r} with {right!r}, needs the token {error}, "
                    "which is not in the vocabulary"
                ) from None
            self.ranks.setdefault(pair, rank)
            self.merged.append(new_id)

    def encode(self, word: bytes) -> list[int]:
        """Encode one word."""
        if word in self.whole:
            return [self.whole[word]]
        return [id_ for ids, times in self.encode_runs(word) for id_ in ids * times]

    def encode_runs(self, word: bytes) -> list[Times]:
        """Encode a word that is not taken whole, into runs of ids."""
        if len(word) < ENDLESS:
            return [(self.merge(word), 1)]
        if None in self.byte_ids:
            self.ids_of_bytes(word)  # says which byte is missing, and in what
        return merge_in_pieces(word, self.merge, self.tokens)

    @cached_property
    def tokens(self) -> dict[int, bytes]:
        """The bytes of each token."""
        return {id_: token for token, id_ in self.ids.items()}

    def merge(self, word: bytes) -> list[int]:
        """Merge a word, also if it is a token."""
        ids = self.ids_of_bytes(word)
        if len(ids) < LONG_WORD:
            return self._merge_short(ids)
        return self._merge_long(ids)

    def ids_of_bytes(self, word: bytes) -> list[int]:
        """Find the ids of single bytes. There may be bytes without one."""
        ids = []
        for byte in word:
            id_ = self.byte_ids[byte]
            if id_ is None:
                raise ValueError(
                    f"the vocabulary has no token for the byte 0x{byte:02x}, which is "
                    f"in {word.decode(errors='replace')!r:.80}"
                )
            ids.append(id_)
        return ids

    def _merge_short(self, ids: list[int]) -> list[int]:
        never = len(self.merged)
        ranks = [self.ranks.get(pair, never) for pair in pairwise(ids)]
        while ranks and (rank := min(ranks)) < never:
            i = ranks.index(rank)
            ids[i : i + 2] = [self.merged[rank]]
            # Only the pairs to the left and to the right have changed.
            del ranks[i]
            for j in (i - 1, i):
                if 0 <= j < len(ranks):
                    ranks[j] = self.ranks.get((ids[j], ids[j + 1]), never)
        return ids

    def _merge_long(self, ids: list[int]) -> list[int]:
        # Searching for the lowest rank again after each merge, a megabyte of one letter
        # would take a megabyte squared. So the ranks are a heap, and the tokens a
        # linked list: `after[i]` and `before[i]` are the neighbours of the token at i.
        # A token that has been merged away becomes -1.
        end = len(ids)
        after = list(range(1, end + 1))
        before = list(range(-1, end - 1))
        heap = [
            (self.ranks[pair], i)
            for i, pair in enumerate(pairwise(ids))
            if pair in self.ranks
        ]
        heapq.heapify(heap)
        while heap:
            rank, i = heapq.heappop(heap)
            j = after[i]
            if ids[i] < 0 or j == end or self.ranks.get((ids[i], ids[j])) != rank:
                continue
            ids[i], ids[j] = self.merged[rank], -1
            after[i] = after[j]
            if after[i] < end:
                before[after[i]] = i
            for left in (before[i], i):
                if left >= 0 and after[left] < end:
                    new_rank = self.ranks.get((ids[left], ids[after[left]]))
                    if new_rank is not None:
                        heapq.heappush(heap, (new_rank, left))
        return [id_ for id_ in ids if id_ >= 0]
