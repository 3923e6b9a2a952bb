r"""Where pairs are: at every position, the number of a pair.

A merge changes little, but it has to be found: all positions of a pair, the pairs
beside it that are lost, and those that are gained. Three ideas make this fast.

**A position knows its pair.** The distinct words are put behind each other. Each pair
has a number, and its position is where its second token begins; -1 stands where a word
begins, and behind the last one. At first every token is a byte, and the number of a
pair is that of its two bytes:

>>> th, ha, at = (256 * left + right for left, right in (b"th", b"ha", b"at"))
>>> positions = PairPositions({b"that": 3, b"hat": 1})
>>> positions.numbers.tolist() == [-1, th, ha, at, -1, ha, at, -1]
True

**A merge is a change of three numbers.** Where `h` and `a` become one token, there is
no pair any more, and the pairs to the left and to the right get new numbers. The tokens
themselves are not stored at all:

>>> merged = positions.merge(ha, [2, 5])
>>> positions.renumber(merged, -1, 70_000) == [(th, [1], 3)]
True
>>> positions.renumber(merged, 1, 70_001) == [(at, [3, 6], 3 + 1)]
True
>>> positions.numbers.tolist()
[-1, 70000, -1, 70001, -1, -1, 70001, -1]

Of the pairs that are lost there, we learn where they were and how often in the text.
The pairs gained in their place have the same positions and the same counts: `t`, `ha`
instead of `t`, `h`.

**Many positions at once.** NumPy takes each of these steps for all positions of a pair
together. That is worth it for frequent pairs. Most pairs are rare, and a loop over a
few positions is over before NumPy has begun.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

import numpy as np

from minillm.tokenizer.table import Ints

__all__ = ["PairPositions", "Positions"]

# With more positions than this a pair is merged with NumPy.
MANY: Final = 64

Positions = list[int] | Ints
"""Positions in ascending order: a list of a few, or an array of many."""


class PairPositions:
    r"""The numbers of the pairs in distinct words.

    Args:
        counted: the words and how often each occurs.

    Attributes:
        number: at every position the number of the pair, or -1.
        numbers: the same memory as an array of NumPy.
    """

    def __init__(self, counted: Mapping[bytes, int]) -> None:
        data = np.frombuffer(b"".join([b"-", *counted, b"-"]), np.uint8)
        sizes = np.fromiter(map(len, counted), np.int64, len(counted))
        counts = np.fromiter(counted.values(), np.int64, len(counted))
        # Python reads one number faster from an array of its own, NumPy many from one
        # of NumPy. They can share their memory.
        self.number = array("i", [-1]) * (len(data) - 1)
        self.numbers = np.frombuffer(self.number, np.int32)
        self.numbers[:] = data[:-1] * np.int32(256) + data[1:]
        self.numbers[np.append(0, np.cumsum(sizes))] = -1
        self.count = array("q", [0]) * (len(data) - 1)
        self.counts = np.frombuffer(self.count, np.int64)
        self.counts[:-1] = np.repeat(counts, sizes)

    def all(self) -> Ints:
        """Return all positions, in ascending order."""
        return np.arange(len(self.numbers))

    def merge(self, number: int, positions: Positions, size: int = 0) -> Positions:
        r"""Make one token of each pair with a number.

        Args:
            number: the number.
            positions: where the pair has been. Some may have another number by now.
            size: the bytes of a token if both are the same one, and 0 otherwise.

        Returns:
            Where it was.
        """
        if len(positions) > MANY:
            many = np.asarray(positions)
            many = many[self.numbers[many] == number]
            if len(many) > MANY and not size:
                self.numbers[many] = -1
                return many
            positions = many.tolist()
        numbers = self.number
        found = [at for at in positions if numbers[at] == number]
        if size:
            # In "aaa" the token in the middle goes with the first, not with the third.
            positions, found = found, []
            for at in positions:
                if not found or found[-1] != at - size:
                    found.append(at)
        for at in found:
            numbers[at] = -1
        return found

    def renumber(
        self, positions: Positions, shift: int, new: int
    ) -> Iterable[tuple[int, Positions, int]]:
        r"""Give new numbers to the pairs beside some positions.

        Args:
            positions: where tokens have been merged.
            shift: how far from there the pairs are.
            new: the first new number.

        Returns:
            For each new number: the number that is lost, where it was, and its count.
        """
        if isinstance(positions, list):
            return self._renumber_few(positions, shift, new)
        positions = positions + shift
        positions = positions[self.numbers[positions] >= 0]
        if not len(positions):
            return []
        positions = positions[np.argsort(self.numbers[positions], kind="stable")]
        lost = self.numbers[positions]
        is_first = np.append(True, lost[1:] != lost[:-1])
        self.numbers[positions] = np.cumsum(is_first, dtype=np.int32) + (new - 1)
        first = np.flatnonzero(is_first)
        counts = np.add.reduceat(self.counts[positions], first)
        # Copies, so that the memory of each can be given back when it is merged.
        groups = [
            positions[i:j].copy() if j - i > MANY else positions[i:j].tolist()
            for i, j in pairwise([*first.tolist(), len(positions)])
        ]
        return zip(lost[first].tolist(), groups, counts.tolist(), strict=True)

    def _renumber_few(
        self, positions: list[int], shift: int, new: int
    ) -> Iterable[tuple[int, Positions, int]]:
        numbers, count = self.number, self.count.__getitem__
        if len(positions) == 1:  # as with most pairs
            at = positions[0] + shift
            lost, numbers[at] = numbers[at], new if numbers[at] >= 0 else -1
            return [(lost, [at], count(at))] if lost >= 0 else []
        groups: dict[int, list[int]] = defaultdict(list)
        for at in positions:
            if (lost := numbers[at + shift]) >= 0:
                groups[lost].append(at + shift)
        for number, group in enumerate(groups.values(), new):
            for at in group:
                numbers[at] = number
        return [(lost, group, sum(map(count, group))) for lost, group in groups.items()]
