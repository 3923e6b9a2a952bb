r"""Words without an end: merging piece by piece.

A word has five bytes or so, and then comes a space. In Chinese, in a base64 attachment,
or in a line of a thousand dashes, it does not come. Merging such a word pair by pair
needs the lowest rank again and again. Searched for each time, it takes time that grows
with the square of the length; kept in a heap, it takes microseconds for each byte. Can
one cut such a word, encode the pieces, and put the ids side by side?

Not anywhere. With merges for `ab` and `bc`, in this order, a cut in the middle of `ab`
gives other ids:

>>> from minillm.tokenizer.words import WordEncoder
>>> ids = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256, b"bc": 257}
>>> merge = WordEncoder(ids, [(b"a", b"b"), (b"b", b"c")]).merge
>>> merge(b"abc"), merge(b"a") + merge(b"bc")
([256, 99], [97, 257])

**Two tokens are enough to know.** Call tokens $x$ and $y$ *compatible* if merging the
bytes of both gives back $x$ and $y$: no merge crosses the border between them. Then

> a sequence of tokens is the encoding of its bytes **if and only if** each two
> neighbours in it are compatible.

Suppose that all neighbours are compatible, and that something else comes out. Then some
merge crosses a border. Take the first one, between $x$ and $y$. Until then no merge has
crossed any border, so the bytes of $x$ and $y$ have been merged exactly as they are
when they stand alone: the lowest rank of a sequence, leftmost first, is also the lowest
within any part that holds it. Alone, then, a merge would cross the same border, and the
two would not be compatible. The other direction is the same argument. Nothing is
assumed about the merges.

So encodings can be put together. If the last token of one and the first of the next are
compatible, the two side by side are the encoding of the whole:

>>> merge(b"abc") + merge(b"bc") == merge(b"abcbc")
True

**The walk.** Keep the ids of what has been read, and repeat:

1. Encode the next piece, 64 bytes.
2. If its first token is not compatible with the last one that was kept, drop that one,
   and try again from where it began.
3. Keep its tokens up to three quarters of it. The rest may still change with what
   follows, so the next piece begins there.

Each piece is remembered, so text that comes back is merged once.

**Equal runs at once.** If the next piece is the same again, the text has a period
there. How far does it go? The text is compared with itself, shifted by the period,
which takes no Python for each byte. Of 300 bytes with a period of three, the walk
merges two pieces, and takes 32 of the ids of the first five times:

>>> runs = merge_in_pieces(b"abc" * 100, merge, {256: b"ab", 99: b"c"})
>>> [(len(ids), times) for ids, times in runs]
[(32, 5), (40, 1)]

A megabyte of one letter is two pieces and a number as well.

**No quadratic case.** A piece is merged in constant time, and most pieces move the walk
on by 48 bytes. Two things could keep it from getting anywhere. Tokens may be longer
than a piece: if a piece begins a second time where one has begun before, pieces become
twice as long. And merges may be such that the end of a word decides about its
beginning, as in an exercise, not in a tokenizer that was learned from text: if the
pieces together have had sixteen times the bytes of the word, the whole word is merged
with the heap, in time proportional to its length times a logarithm.

What does not repeat gains less: random letters have no piece that comes back. How this
compares with programs in Rust stands on the page about speed.

# References

The crate `bpe` in GitHub's `rust-gems`, its README, Corollaries II and III: parts of an
encoding are encodings, and two that share a token can be joined. It keeps the last
token of each prefix, and walks back from the end. In Python a step for each byte costs
too much, so this page walks forwards, in pieces.
"""

from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["PIECE", "Times", "merge_in_pieces"]

# The bytes of a piece, to begin with.
PIECE: Final = 64

# With more bytes in all pieces than this many times those of the word, it is given up.
ENOUGH: Final = 16

Times = tuple[list[int], int]
"""Ids, and how many times they follow each other."""


def merge_in_pieces(
    word: bytes, merge: Callable[[bytes], list[int]], tokens: Mapping[int, bytes]
) -> list[Times]:
    r"""Merge a long word.

    The same result as `merge`. Unlike it, the work is proportional to the length.

    Args:
        word: the word.
        merge: merges a piece of it, the lowest rank first, of equal ones the leftmost.
        tokens: the bytes of each token.

    Returns:
        The ids, in runs.

    Examples:
        >>> from minillm.tokenizer.words import WordEncoder
        >>> words = WordEncoder({b"a": 0, b"b": 1, b"ab": 2}, [(b"a", b"b")])
        >>> tokens = {0: b"a", 1: b"b", 2: b"ab"}
        >>> runs = merge_in_pieces(b"ab" * 1_000_000 + b"a", words.merge, tokens)
        >>> [(len(ids), times) for ids, times in runs]
        [(24, 41666), (17, 1)]
    """
    walk = _Walk(word, merge, tokens)
    while walk.at < len(word):
        if walk.spent > ENOUGH * len(word):
            return [(merge(word), 1)]
        walk.step()
    return walk.kept


class _Walk:
    """What has been read of a word, and what is known about pieces and pairs."""

    def __init__(
        self,
        word: bytes,
        merge: Callable[[bytes], list[int]],
        tokens: Mapping[int, bytes],
    ) -> None:
        self.word, self.merge, self.tokens = word, merge, tokens
        self.at, self.length, self.spent = 0, PIECE, 0
        # The encoding of all bytes before `at`.
        self.kept: list[Times] = []
        self.began: set[int] = set()
        self.pieces: dict[bytes, Times] = {}
        self.pairs: dict[tuple[int, int], bool] = {}

    def step(self) -> None:
        """Keep the beginning of the next piece, or drop the last token."""
        piece = self.word[self.at : self.at + self.length]
        self.spent += len(piece)
        known = self.pieces.get(piece)
        if known is None:
            known = self.pieces[piece] = self.begin_of(piece)
        ids, n_bytes = known
        if self.kept and not self.compatible(self.kept[-1][0][-1], ids[0]):
            self.drop()
            return
        if self.at in self.began:
            # Its end was dropped before, and would be dropped again.
            self.began.clear()
            self.pieces.clear()
            self.length *= 2
            return
        self.began.add(self.at)
        times = 1
        if self.word.startswith(piece, self.at + n_bytes) and self.compatible(
            ids[-1], ids[0]
        ):
            same = _equal(self.word, self.at, self.at + n_bytes, len(piece))
            # The piece is there again after each `n_bytes`, the last time with its end.
            times += 1 + (same - len(piece)) // n_bytes
        self.keep(ids, times)
        self.at += n_bytes * times

    def begin_of(self, piece: bytes) -> Times:
        """Encode a piece: its ids up to three quarters of it, and their bytes."""
        ids = self.merge(piece)
        if len(piece) < self.length:
            return ids, len(piece)  # the word ends here
        n_ids, n_bytes = 1, len(self.tokens[ids[0]])
        for id_ in ids[1:]:
            size = len(self.tokens[id_])
            if 4 * (n_bytes + size) > 3 * len(piece):
                break
            n_ids, n_bytes = n_ids + 1, n_bytes + size
        return ids[:n_ids], n_bytes

    def compatible(self, left: int, right: int) -> bool:
        """Whether no merge crosses the border between two tokens."""
        pair = left, right
        if pair not in self.pairs:
            both = self.tokens[left] + self.tokens[right]
            self.pairs[pair] = self.merge(both) == [left, right]
        return self.pairs[pair]

    def keep(self, ids: list[int], times: int) -> None:
        """Append ids to what is kept."""
        if times == 1 and self.kept and self.kept[-1][1] == 1:
            self.kept[-1][0].extend(ids)
        else:
            self.kept.append((ids.copy(), times))

    def drop(self) -> None:
        """Take the last token back."""
        ids, times = self.kept.pop()
        self.at -= len(self.tokens[ids[-1]])
        if times > 1:
            self.kept.append((ids, times - 1))
        if len(ids) > 1:
            self.kept.append((ids[:-1] if times > 1 else ids, 1))
            if times == 1:
                ids.pop()


def _equal(word: bytes, left: int, right: int, known: int) -> int:
    """Count how many bytes from two places on are equal; `known` of them are."""
    step, end = known, len(word) - right
    while step:
        more = min(step, end - known)
        begin, other = left + known, right + known
        if more and word[begin : begin + more] == word[other : other + more]:
            known, step = known + more, 2 * step
        else:
            step = more // 2
    return known
