r"""Near duplicates at speed: the pairs worth comparing, by sorting and by a table.

[`minillm.curation`][] finds candidate pairs as they are defined. The functions here
give the same pairs. Unlike those,

- [`candidates`][minillm.corpus.duplicates.candidates] sorts the bands instead of
  keeping a table of them;
- [`Index`][minillm.corpus.duplicates.Index] never holds the texts, and decides about
  each when it comes.

Both work on the [signatures][minillm.corpus.signatures.signature] of texts:

>>> from minillm.corpus.signatures import signature
>>> a = "the old street lamp had served for many many years and now it was to retire"
>>> texts = [a, a.replace("retire", "rest"), "it rained all day long in the old street"]
>>> signatures = np.stack([signature(text, 2, 128) for text in texts])
>>> candidates(signatures, bands=32)
{(0, 1)}

[`alike`][minillm.corpus.duplicates.alike] is the oracle: slow, and exact.

# Real dirt, without truth

The dirt of [our crawl][minillm.corpus.crawl] is made, so you may doubt it. On your disk
lies some that is not: the licences of the Python packages that are installed there.
Many are one text with another name and another year. How many are left if the same ones
go, and how many if similar ones go, too?

>>> from importlib.metadata import distributions
>>> def licences():
...     for package in distributions():
...         for file in package.files or ():
...             path = package.locate_file(file)
...             if "LICENSE" in file.name.upper() and path.is_file():
...                 yield path.read_text(encoding="utf-8", errors="replace")
>>> texts = list(licences())
>>> index = Index(bands=32, threshold=0.5)
>>> unlike = sum(index.add(signature(text, 5, 128)) is None for text in texts)
>>> unlike <= len(set(texts)) <= len(texts)
True

Print the three numbers, and look at a few pairs. Nobody wrote down which of them are
copies, so you have to judge for yourself, as with any real crawl.

**Told in** [`minillm.curation`][].
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt64
from numpy.typing import NDArray

__all__ = [
    "Index",
    "alike",
    "banding_curve",
    "candidates",
]


def alike(sets: Sequence[set[str]], least: float) -> set[tuple[int, int]]:
    r"""Find all pairs of sets with a Jaccard similarity of `least` or more, exactly.

    The oracle: it looks at every pair that shares anything at all.

    Args:
        sets: the shingles of each document.
        least: in $(0, 1]$.

    Returns:
        Pairs $(i, j)$ with $i < j$.

    Examples:
        >>> alike([{"a", "b"}, {"b", "c"}, {"a", "b", "c"}], 0.5)
        {(0, 2), (1, 2)}
    """
    found = set()
    holders: dict[str, list[int]] = {}
    for j, shingles in enumerate(sets):
        common: Counter[int] = Counter()
        for shingle in shingles:
            before = holders.setdefault(shingle, [])
            common.update(before)
            before.append(j)
        found |= {
            (i, j)
            for i, both in common.items()
            if both >= least * (len(sets[i]) + len(sets[j]) - both)
        }
    return found


def candidates(
    signatures: UInt64[np.ndarray, "docs n"], bands: int
) -> set[tuple[int, int]]:
    r"""Find the pairs that agree in at least one band: `lsh_candidates`, by sorting.

    Args:
        signatures: one row for each document.
        bands: into how many bands a row is cut; must divide its length.

    Returns:
        Pairs $(i, j)$ of rows with $i < j$.

    Raises:
        ValueError: if the bands do not divide the signature.

    Examples:
        >>> rows = np.array([[1, 2, 3, 4], [1, 2, 9, 9], [7, 7, 9, 9]], np.uint64)
        >>> sorted(candidates(rows, 2))
        [(0, 1), (1, 2)]
    """
    check_bands(signatures.shape[1], bands)
    rows = signatures.shape[1] // bands
    found: set[tuple[int, int]] = set()
    for start in range(0, bands * rows, rows):
        band = np.ascontiguousarray(signatures[:, start : start + rows])
        keys = band.view(np.dtype((np.void, 8 * rows))).ravel()
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        ends = np.flatnonzero(ranked[1:] != ranked[:-1]) + 1
        for group in np.split(order, ends):
            if len(group) > 1:
                # A stable sort keeps each group in the order of the rows.
                i, j = np.triu_indices(len(group), 1)
                found.update(zip(group[i].tolist(), group[j].tolist(), strict=True))
    return found


def check_bands(n: int, bands: int) -> None:
    """Raise `ValueError` unless `bands` bands divide a signature of length n."""
    if bands < 1 or n % bands:
        raise ValueError(
            f"{bands} bands do not divide a signature of {n}: choose a divisor"
        )


def banding_curve(s: float, bands: int, rows: int) -> float:
    r"""Say how likely two documents become a candidate pair.

    A band agrees with probability $s^r$, so at least one of $b$ does with

    $$1 - (1 - s^r)^b$$

    (Leskovec, Rajaraman & Ullman, *Mining of massive datasets*, section 3.4.2).

    Args:
        s: their Jaccard similarity, in $[0, 1]$.
        bands: $b$.
        rows: $r$, the hash functions in a band.

    Returns:
        The probability.

    Examples:
        >>> [round(banding_curve(s, 16, 8), 3) for s in (0.3, 0.5, 0.7, 0.9)]
        [0.001, 0.061, 0.613, 1.0]
    """
    return 1 - (1 - s**rows) ** bands


class Index:
    """Decides about each document when it comes: new, or like one that was kept.

    It holds a signature for each document that it kept, never a text: about a kilobyte
    for 128 hash functions, beside the table of bands.

    Args:
        bands: into how many bands a signature is cut.
        threshold: the share of equal hash values from which two are called alike.

    Examples:
        >>> index = Index(bands=2, threshold=0.5)
        >>> rows = np.array([[1, 2, 3, 4], [1, 2, 3, 9], [5, 6, 7, 8]], np.uint64)
        >>> [index.add(row) for row in rows]  # the second is like row 0
        [None, 0, None]
    """

    def __init__(self, bands: int = 16, threshold: float = 0.7) -> None:
        self.bands, self.threshold = bands, threshold
        self.kept: dict[int, NDArray[np.uint64]] = {}
        self.table: dict[tuple[int, bytes], list[int]] = {}
        self.count = 0

    def add(self, row: UInt64[np.ndarray, " n"]) -> int | None:
        """Add a document, unless it is like one that was kept.

        Args:
            row: its signature.

        Returns:
            The number of the kept document that it is like, counted over all that
            came; `None` if there is none, and it is kept.

        Raises:
            ValueError: if the bands do not divide the signature.
        """
        check_bands(len(row), self.bands)
        rows, number = len(row) // self.bands, self.count
        self.count += 1
        keys = [
            (start, row[start : start + rows].tobytes())
            for start in range(0, len(row), rows)
        ]
        near = {other for key in keys for other in self.table.get(key, ())}
        for other in sorted(near):
            if (self.kept[other] == row).mean() >= self.threshold:
                return other
        self.kept[number] = row
        for key in keys:
            self.table.setdefault(key, []).append(number)
        return None
