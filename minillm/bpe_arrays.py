r"""Encoding long texts: where the time goes, and how NumPy takes it away.

[`Encoder`][minillm.bpe_encode.Encoder] does the same for each pre-token: cut it out,
make a string of it, look the string up, append its ids. None of that is slow, but it is
done in Python, once for each of the two hundred thousand words in a megabyte. Here the
same is done for all words of a block of text together, and four ideas make it possible.

**Runs.** Finding pre-tokens takes a regular expression, finding blanks takes a look at
each byte. So the text is first cut at blanks, into *runs* such as " cat's" or " f(x)",
at places where every pre-tokenizer cuts too. Only a run that is new is cut further:

>>> text = b"the cat's hat\n\n  f(x)"
>>> data = np.frombuffer(text + bytes(WIDTH), np.uint8)
>>> np.split(np.array(list(map(chr, text))), run_starts(data, "word")[1:])[1].tolist()
[' ', 'c', 'a', 't', "'", 's']
>>> run_starts(data, "word").tolist()
[0, 3, 9, 13, 16]

**Keys.** A run of up to 32 bytes is four integers of 64 bits, read from the text where
it stands. Two runs are equal if their integers are: nothing needs to be hashed with the
hope that no two runs collide, and no string is made.

**A table.** A dictionary looks up one key. The [`Table`][minillm.bpe_arrays.Table] of
this page looks up a hundred thousand with some ten operations on arrays.

**Merging in step.** New words are merged all at once: in each round every word makes
its next merge.

What remains to be done in Python is the work for runs that are new, so a text whose
words keep coming back is encoded several times faster than one whose words do not.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from itertools import chain, filterfalse
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from minillm.bpe_patterns import (
    DIGITS_PATTERN,
    GPT2_PATTERN,
    GPT4_PATTERN,
    LLAMA3_PATTERN,
    O200K_PATTERN,
    compile_pattern,
)
from minillm.bpe_source import WHITESPACE, last_safe_cut, next_safe_cut

if TYPE_CHECKING:
    from minillm.bpe_encode import Encoder

__all__ = ["ArrayEncoder", "Table", "ascii_pattern", "merge_in_step", "run_starts"]

Ints = NDArray[np.int64]
Words = list[NDArray[np.uint64]]

# A text is worked on in blocks of this many characters: many words at once, and yet few
# enough that their arrays stay in the processor's cache.
BLOCK: Final = 1 << 19

# A key is this many integers of eight bytes.
WORDS: Final = 4
WIDTH: Final = 8 * WORDS

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

_BLANK: Final = np.isin(np.arange(256), list(b"\t\n\v\f\r "))
_OTHER_BLANKS: Final = re.compile(f"[{''.join(c for c in WHITESPACE if c > '~')}]")

# KEEP[k][n] keeps those of the bytes 8k to 8k+7 that belong to a run of n bytes.
_KEEP: Final = np.array(
    [
        [(1 << 8 * min(max(n - 8 * k, 0), 8)) - 1 for n in range(WIDTH + 2)]
        for k in range(WORDS)
    ],
    np.uint64,
)


def run_starts(data: NDArray[np.uint8], kind: str) -> Ints:
    r"""Find the places at which runs begin.

    Every place is one at which the pre-tokenizer cuts too, whatever the text, and what
    it makes of a run does not depend on the runs around it. That holds for blanks in
    ASCII; a text with others is not given to this function.

    Args:
        data: the bytes of a text that does not end in a blank, or (for the kind
            `"line"`) ends in a line end, and `WIDTH` zeros.
        kind: how the pattern treats a stretch of blanks. `"word"` (GPT-2): the last
            one, if it is a space, goes with the text behind it; if it is something
            else, it stands alone. `"digit"` (SmolLM2): whether it does depends on what
            is behind, so the whole stretch begins a run. `"line"` (GPT-4): what ends in
            a line end goes with the text before; of what is left, the last blank goes
            with the text behind. If a slash follows, there is no cut (GPT-4o).

    Returns:
        The places, in order. The first is 0.
    """
    n = len(data) - WIDTH
    blank = _BLANK[data[:n]]
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
    return np.flatnonzero(is_start[:n])


class Column:
    r"""An array that grows at its end, twice as large each time it is full."""

    def __init__(self, dtype: type) -> None:
        self.array = np.zeros(1024, dtype)
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
        >>> table.add([np.array([7, 5], np.uint64)])
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

    def add(self, keys: Sequence[NDArray[np.uint64]]) -> None:
        """Add keys, all of them new and different from each other."""
        numbers = np.arange(len(self), len(self) + len(keys[0]))
        for column, words in zip(self.keys, keys, strict=True):
            column.extend(words)
        if 2 * len(self) > len(self.slots):
            self.slots = np.full(1 << (2 * len(self)).bit_length(), -1, np.int64)
            numbers = np.arange(len(self))
        place = self._places([column.array[numbers] for column in self.keys])
        while len(numbers):
            # Of several keys that want the same free place, the last one written stays.
            free = self.slots[place] < 0
            self.slots[place[free]] = numbers[free]
            left = self.slots[place] != numbers
            numbers, place = numbers[left], (place[left] + 1) % len(self.slots)


def merge_in_step(
    words: Sequence[bytes],
    byte_ids: Ints,
    pairs: Table,
    merged: Ints,
) -> list[list[int]]:
    r"""Merge many words at the same time.

    Args:
        words: the words.
        byte_ids: the id of each byte.
        pairs: the pairs that merge, in the order of their ranks.
        merged: what each pair becomes.

    Returns:
        The ids of each word.

    Examples:
        >>> pairs = Table(1)
        >>> pairs.add([pair_keys(np.array([97, 256]), np.array([98, 256]))])
        >>> merged = np.array([256, 257])
        >>> merge_in_step([b"abab", b"aba", b"c"], np.arange(256), pairs, merged)
        [[257], [256, 97], [99]]
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
    flat = all_ids[order].tolist()
    ends = np.cumsum(np.bincount(owners, minlength=len(words))).tolist()
    return [flat[i:j] for i, j in zip([0, *ends[:-1]], ends, strict=True)]


def pair_keys(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.uint64]:
    """Make one integer of two ids."""
    return left.astype(np.uint64) << np.uint64(32) | right.astype(np.uint64)


def ascii_pattern(pattern: str) -> "re.Pattern[bytes]":
    r"""Translate a pre-tokenizer for text in ASCII, for which `re` is enough.

    Args:
        pattern: one of the patterns of [`minillm.bpe_patterns`][].

    Returns:
        An expression for bytes that cuts ASCII in the same way, and several times
        faster than `regex` does.

    Examples:
        >>> ascii_pattern(r" ?\p{L}+|[^\s\p{L}\p{N}]").pattern
        b' ?[a-zA-Z]+|[^\\sa-zA-Z0-9]'
    """
    letters = {"L": "a-zA-Z", "Lu": "A-Z", "Ll": "a-z", "N": "0-9"}
    inside = False

    def translate(match: "re.Match[str]") -> str:
        nonlocal inside
        if match.group() in "[]":
            inside = match.group() == "["
        if not match.group(1):
            return match.group()
        # There are no title-case letters, modifiers or marks in ASCII.
        kind = letters.get(match.group(1), "")
        return kind if inside else f"[{kind}]"

    return re.compile(re.sub(r"\\p\{(\w+)\}|\\.|[\[\]]", translate, pattern).encode())


class ArrayEncoder:
    r"""An encoder for long texts.

    The same result as [`Encoder`][minillm.bpe_encode.Encoder]. Unlike it, it works on
    all runs of a block of text at once, and remembers runs, not pre-tokens.

    Args:
        encoder: has the merges, and encodes what needs special care.
    """

    def __init__(self, encoder: "Encoder") -> None:
        self.encoder = encoder
        self.kind = KINDS[encoder.pattern]
        self.cut = compile_pattern(encoder.pattern).findall
        self.cut_ascii = ascii_pattern(encoder.pattern).findall
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
        self.words: dict[bytes, tuple[int, ...]] = {}
        self.runs = Table(WORDS)
        # The ids of run number r begin at `first[r]` of all ids and are `count[r]`.
        self.first, self.count = Column(np.int64), Column(np.int64)
        self.ids = Column(np.int64)

    def encode(self, text: str) -> Iterator[list[int]]:
        """Encode a text, block by block."""
        # The last run and the blanks behind it are left to the encoder, since there
        # "the end of the text" is something that the patterns know about.
        end = last_safe_cut(text, self.encoder.pattern)
        start = 0
        while start < end:
            cut = next_safe_cut(text, self.encoder.pattern, start + BLOCK, end)
            block = text[start:cut]
            if not block.isascii() and _OTHER_BLANKS.search(block):
                yield self.encoder.encode_words(block)
            else:
                yield self._encode_block(block).tolist()
            start = cut
        yield self.encoder.encode_words(text[end:])

    def _encode_block(self, block: str) -> Ints:
        raw = block.encode() + bytes(WIDTH)
        data = np.frombuffer(raw, np.uint8)
        starts = run_starts(data, self.kind)
        ends = np.append(starts[1:], len(raw) - WIDTH)
        lengths = np.minimum(ends - starts, WIDTH + 1)
        # The eight bytes from any place on, as an integer.
        eight = np.ndarray((len(raw) - 7,), "<u8", raw, strides=(1,))
        keys = [eight[starts + 8 * k] & _KEEP[k][lengths] for k in range(WORDS)]
        run = self.runs.find(keys)
        run[lengths > WIDTH] = -1
        known = run >= 0
        first, count = np.zeros_like(starts), np.zeros_like(starts)
        first[known] = self.first.array[run[known]]
        count[known] = self.count.array[run[known]]
        new = np.flatnonzero(~known)
        if len(new):
            bounds = zip(starts[new].tolist(), ends[new].tolist(), strict=True)
            number: dict[bytes, int] = {}
            which = np.array([
                number.setdefault(raw[i:j], len(number)) for i, j in bounds
            ])
            begin, size = self._learn(list(number))
            first[new], count[new] = begin[which], size[which]
            # Remember each of them, from where it stands first.
            at = new[np.diff(np.maximum.accumulate(which), prepend=-1) > 0]
            short = lengths[at] <= WIDTH
            self.runs.add([word[at[short]] for word in keys])
            self.first.extend(begin[short])
            self.count.extend(size[short])
        # All ids, run by run: the i-th id of a run stands i places behind its first.
        offset = np.repeat(first - np.cumsum(count) + count, count)
        ids = self.ids.array[offset + np.arange(len(offset))]
        if max(len(self.runs), len(self.words), self.ids.size // 4) > MEMORY:
            self.forget()
        return ids

    def _learn(self, runs: list[bytes]) -> tuple[Ints, Ints]:
        r"""Encode new runs. Where do their ids begin, and how many are they?"""
        words: list[bytes] = []
        ends = []
        for run in runs:
            if run.isascii():
                words += self.cut_ascii(run)
            else:
                words += [piece.encode() for piece in self.cut(run.decode())]
            ends.append(len(words))
        new = dict.fromkeys(filterfalse(self.words.__contains__, words))
        self._learn_words(list(new))
        ids = list(map(self.words.__getitem__, words))
        ends_of_words = np.append(0, np.cumsum(list(map(len, ids))))
        last = ends_of_words[ends]
        size = np.diff(last, prepend=0)
        begin = self.ids.size + last - size
        self.ids.extend(list(chain.from_iterable(ids)))
        # What is long is not remembered, lest the memory have no bound.
        for word in new:
            if len(word) > WIDTH:
                del self.words[word]
        return begin, size

    def _learn_words(self, words: list[bytes]) -> None:
        encoder = self.encoder
        merge = []
        for word in words:
            if word in encoder.whole:
                self.words[word] = (encoder.whole[word],)
            elif len(word) <= WIDTH:
                merge.append(word)
            else:
                self.words[word] = tuple(encoder.encode_word(word))
        if merge:
            if None in encoder.byte_ids:
                for word in merge:
                    encoder.ids_of_bytes(word)
            ids = merge_in_step(merge, self.byte_ids, self.pairs, self.merged)
            self.words.update(zip(merge, map(tuple, ids), strict=True))
