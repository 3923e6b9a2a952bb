r"""A dictionary that is asked a hundred thousand things at once.

Looking one key up in Python's dictionary takes a tenth of a microsecond. The search is
the smaller part of it; the rest is building the key, and the step of a loop. The
[`Table`][minillm.tokenizer.table.Table] works the same way, with slots and a hash that
says where to look first, but takes each step for all keys together:

>>> table = Table(1)
>>> cat, hat = (int.from_bytes(word, "little") for word in (b" cat", b" hat"))
>>> table.add([np.array([cat, hat], np.uint64)])
>>> table.find([np.array([hat, 0, cat], np.uint64)]).tolist()
[1, -1, 0]
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
    r"""A dictionary from keys of several 64-bit integers to their numbers.

    The numbers count the keys in the order of adding. It is a hash table with open
    addressing: a key has a slot, and if that is taken, the next one, and so on. All
    operations are for many keys at once.

    Args:
        n_words: how many integers make a key.
    """

    def __init__(self, n_words: int) -> None:
        # Random odd factors, so that nobody can prepare a text whose keys collide. One
        # for each half of a word: in the product of a whole word and a factor, the last
        # byte changes only the last byte.
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
        """Find the numbers of keys, -1 for a key that is not in the table."""
        place = self._places(keys)
        found = self.slots[place].astype(np.int64)
        # Where another key has been found, look at the next slot.
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
        """Give the next numbers to keys that are new and differ from each other."""
        old = len(self)
        for column, words in zip(self.keys, keys, strict=True):
            column.extend(words)
        if 4 * len(self) > len(self.slots):
            self.slots = np.full(1 << (4 * len(self)).bit_length(), -1, np.int32)
            old = 0
        number = np.arange(old, len(self))
        place = self._places([column.array[number] for column in self.keys])
        while len(number):
            free = self.slots[place] < 0
            self.slots[place[free]] = number[free]
            # Of several that want the same slot one has got it; the others go on.
            left = self.slots[place] != number
            number, place = number[left], (place[left] + 1) % len(self.slots)
