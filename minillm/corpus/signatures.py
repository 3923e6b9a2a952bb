r"""Signatures at speed: the numbers of MinHash, with the loops in NumPy.

[`minillm.curation`][] writes MinHash down as it is defined, one shingle and one hash
function at a time. [`signature`][minillm.corpus.signatures.signature] gives the same
numbers. Unlike that, it never makes a shingle: each *word* is hashed once and
remembered, and the hash of a shingle is a polynomial in the hashes of its words,
computed for all shingles of a text at once.

>>> a = "the old street lamp had served for many many years and now it was to retire"
>>> b = a.replace("retire", "rest")
>>> one, two = signature(a, 3, 128), signature(b, 3, 128)
>>> len(one), 0.7 < float((one == two).mean()) < 1
(128, True)

# One hash of 64 bits, for ever the same

Python's `hash` of a string differs from process to process, so that nobody can attack
a server's tables; a signature written by one process would be worthless to the next.
Here a word has the first eight bytes of its BLAKE2b digest. The family of hash
functions is $h_i(x) = a_i x + b_i \bmod 2^{64}$ with odd $a_i$: each is a permutation
of the 64-bit numbers, and costs one multiplication. Its quality rests on $x$, which is
therefore stirred once ([`stir`][minillm.corpus.signatures.stir], the finalizer of
MurmurHash3).

**Told in** [`minillm.curation`][]. **Next:** [`minillm.corpus.duplicates`][] finds the
pairs.
"""

import hashlib
from functools import lru_cache

import numpy as np
from jaxtyping import UInt64
from numpy.typing import NDArray

__all__ = ["hash_family", "polynomials", "signature", "stir", "word_hash"]

# The base of the polynomial: odd, and otherwise any number without a pattern.
BASE = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
STEP = 256


class _Words(dict[str, bytes]):
    """The hashes of words that came lately; a `dict` is faster than `lru_cache`."""

    def __missing__(self, word: str) -> bytes:
        if len(self) > 1 << 18:
            self.clear()
        data = word.encode("utf-8", errors="surrogatepass")
        self[word] = hashlib.blake2b(data, digest_size=8).digest()
        return self[word]


_WORDS = _Words()


def word_hash(word: str) -> int:
    """Hash a word.

    Args:
        word: the word.

    Returns:
        64 bits that look random, the same in every process.

    Examples:
        >>> hex(word_hash("lamp"))
        '0x6b04f701e315fc2a'
    """
    return int.from_bytes(_WORDS[word], "little")


def stir(x: UInt64[np.ndarray, "*n"]) -> UInt64[np.ndarray, "*n"]:
    """Make every bit of a number depend on every other; one to one.

    Args:
        x: the numbers.

    Returns:
        As many numbers.

    Examples:
        >>> stir(np.array([0, 1, 2], np.uint64)).tolist()
        [0, 12994781566227106604, 4233148493373801447]
    """
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))


@lru_cache
def hash_family(n: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    r"""Choose the hash functions $h_i(x) = a_i x + b_i \bmod 2^{64}$, once for all.

    A longer family begins with the shorter one.

    Args:
        n: how many, at least one.

    Returns:
        The $a_i$, all odd, and the $b_i$.

    Raises:
        ValueError: if `n` is not positive.

    Examples:
        >>> (hash_family(4)[0] == hash_family(8)[0][:4]).all()
        np.True_
    """
    if n < 1:
        raise ValueError(f"a signature needs at least one hash function; got n = {n}")
    i = np.arange(1, n + 1, dtype=np.uint64)
    return stir(2 * i) | np.uint64(1), stir(2 * i + np.uint64(1))


def signature(text: str, k: int, n: int) -> UInt64[np.ndarray, " n"]:
    r"""Compute `minhash(shingles(text, k), n)`, without making the shingles.

    Args:
        text: the text.
        k: words in a shingle, at least one.
        n: how many hash functions.

    Returns:
        For each hash function the least value over all shingles; $2^{64} - 1$
        everywhere for a text without words.

    Raises:
        ValueError: if `k` or `n` is not positive.

    Examples:
        >>> signature("a b c", 2, 4).shape
        (4,)
    """
    if k < 1:
        raise ValueError(f"a shingle has at least one word; got k = {k}")
    a, b = hash_family(n)
    x = polynomials(text.lower().split(), k, shorten=True)
    if not len(x):
        return np.full(n, MASK, np.uint64)
    least = np.full(n, MASK, np.uint64)
    # Some shingles at a time, always in the same memory: so it stays in the cache of
    # the processor. A row has all functions, since a minimum over rows is a single
    # instruction for several of them, and one along a row is not.
    table = np.empty((min(STEP, len(x)), n), np.uint64)
    for i in range(0, len(x), STEP):
        some = x[i : i + STEP, None]
        h = table[: len(some)]
        # $h_i(x) = a_i x + b_i \bmod 2^{64}$
        np.multiply(some, a, out=h)
        h += b
        np.minimum(least, h.min(axis=0), out=least)
    return least


def polynomials(words: list[str], k: int, *, shorten: bool) -> NDArray[np.uint64]:
    """Hash each run of k words.

    Args:
        words: the words.
        k: how many make a run.
        shorten: whether fewer words make one run; otherwise they make none.

    Returns:
        A hash for each run, in the order of the text.

    Examples:
        >>> len(polynomials(["a", "b", "c"], 2, shorten=False))
        2
    """
    k = min(k, len(words)) if shorten else k
    if not 0 < k <= len(words):
        return np.empty(0, np.uint64)
    # Bytes are joined faster than numbers of Python are turned into those of NumPy.
    hashed = np.frombuffer(b"".join(map(_WORDS.__getitem__, words)), "<u8")
    # $x = \sum_j h(w_j)\, c^{k - 1 - j}$, by Horner's rule over all runs at once
    x = hashed[: len(words) - k + 1].astype(np.uint64)
    for j in range(1, k):
        x *= np.uint64(BASE)
        x += hashed[j : len(words) - k + 1 + j]
    return stir(x)
