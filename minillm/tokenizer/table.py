r"""A dictionary that is asked a hundred thousand things at once.

To look one key up in Python's dictionary takes a tenth of a microsecond. The search is
the smaller part of it; the rest is making the key, and the step of a loop. The
[`Table`][minillm.tokenizer.table.Table] works the same way, with slots and a hash that
says where to look first, but each of its steps is taken for all keys together:

>>> table = Table(1)
>>> cat, hat = (int.from_bytes(word, "little") for word in (b" cat", b" hat"))
>>> numbers, first = table.add([np.array([cat, hat, cat], np.uint64)])
>>> numbers.tolist(), table.find([np.array([hat, 0], np.uint64)]).tolist()
([0, 1, 0], [1, -1])
"""

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Column", "Table"]

Ints = NDArray[np.int64]


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
        # One for each half of a word: of a whole word times a factor, the last byte
        # would change the last byte only.
        self.factors = np.array(
            [secrets.randbits(64) | 1 for _ in range(2 * n_words + 1)], np.uint64
        )
        self.keys = [Column(np.uint64) for _ in range(n_words)]
        self.slots = np.full(1 << 10, -1, np.int32)

    def __len__(self) -> int:
        return self.keys[0].size

    def _places(self, keys: Sequence[NDArray[np.uint64]]) -> Ints:
        mixed = np.zeros(len(keys[0]), np.uint64)
        low, high = self.factors[1::2], self.factors[2::2]
        for word, a, b in zip(keys, low, high, strict=True):
            mixed += (word & np.uint64(0xFFFFFFFF)) * a + (word >> np.uint64(32)) * b
        mixed ^= mixed >> np.uint64(29)
        mixed *= self.factors[0]
        bits = len(self.slots).bit_length() - 1
        return (mixed >> np.uint64(64 - bits)).astype(np.int64)

    def find(self, keys: Sequence[NDArray[np.uint64]]) -> Ints:
        """Find the numbers of keys."""
        place = self._places(keys)
        found = self.slots[place].astype(np.int64)
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
        """Add keys that are not in the table yet, of which some may be equal.

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
        self.slots = np.full(1 << at_least.bit_length(), -1, np.int32)
        numbers = np.arange(len(self))
        place = self._places([column.array[numbers] for column in self.keys])
        while len(numbers):
            free = self.slots[place] < 0
            self.slots[place[free]] = numbers[free]
            left = self.slots[place] != numbers
            numbers, place = numbers[left], (place[left] + 1) % len(self.slots)
