r"""TODO."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, UInt64

from minillm.corpus.contamination import contaminated
from minillm.corpus.crawl import crawl, leaked_tales, unseen_tales
from minillm.corpus.duplicates import (
    BASE,
    MASK,
    Index,
    alike,
    banding_curve,
    candidates,
    check_bands,
    hash_family,
    signature,
    stir,
    word_hash,
)
from minillm.corpus.extraction import (
    decode,
    extract_text,
    precision_recall,
    strip_tags,
)
from minillm.corpus.quality import RULES, Classifier, broken_rule

__all__ = [
    "RULES",
    "Classifier",
    "Index",
    "alike",
    "banding_curve",
    "broken_rule",
    "candidates",
    "contaminated",
    "crawl",
    "decode",
    "extract_text",
    "jaccard",
    "leaked_tales",
    "lsh_candidates",
    "minhash",
    "mixture",
    "precision_recall",
    "shingles",
    "signature",
    "strip_tags",
    "unseen_tales",
]


def shingles(text: str, k: int) -> set[str]:
    """Take all runs of k words out of a text.

    Args:
        text: the text; capitals and white space make no difference.
        k: words in a shingle, at least one.

    Returns:
        The different shingles, with single spaces. A text of fewer than k words is one
        shingle, and a text without words has none.

    Raises:
        ValueError: if `k` is not positive.

    Examples:
        >>> sorted(shingles("The king and the king", 2))
        ['and the', 'king and', 'the king']
        >>> shingles("Short", 2)
        {'short'}
    """
    if k < 1:
        raise ValueError(f"a shingle has at least one word; got k = {k}")
    words = text.lower().split()
    k = min(k, len(words))
    return {" ".join(words[i : i + k]) for i in range(len(words) - k + 1) if k}


def jaccard(a: set[str], b: set[str]) -> float:
    r"""Compare two sets: how much of what either has do both have?

    $$J(A, B) = \frac{|A \cap B|}{|A \cup B|}$$

    Args:
        a: $A$.
        b: $B$.

    Returns:
        A number in $[0, 1]$; 1 for two empty sets.

    Examples:
        >>> jaccard({"a b", "b c", "c d"}, {"b c", "c d", "d e"})
        0.5
    """
    # J = |A ∩ B| / |A ∪ B|
    return len(a & b) / len(a | b) if a | b else 1.0


def minhash(shingles: set[str], n: int) -> UInt64[np.ndarray, " n"]:
    r"""Sign a set: for each of n hash functions, the least value over its members.

    If $h$ puts all shingles in a random order, the first of $A \cup B$ is as likely to
    be any of them. It lies in both sets with probability $J(A, B)$, and then, and only
    then, both have the same least value (Broder 1997, *On the resemblance and
    containment of documents*). So the share of equal entries estimates $J$, with a
    standard error of $\sqrt{J (1 - J) / n}$.

    Args:
        shingles: the set, as [`shingles`][minillm.curation.shingles] makes it.
        n: how many hash functions; the same ones for every document, always.

    Returns:
        The least values; $2^{64} - 1$ everywhere for an empty set.

    Raises:
        ValueError: if `n` is not positive.

    Examples:
        >>> a = minhash({f"word {i}" for i in range(0, 300)}, 512)
        >>> b = minhash({f"word {i}" for i in range(100, 400)}, 512)
        >>> abs((a == b).mean() - 0.5) < 3 * (0.5 * 0.5 / 512) ** 0.5
        np.True_
    """
    a, b = hash_family(n)
    least = np.full(n, MASK, np.uint64)
    for shingle in shingles:
        x = 0
        for word in shingle.split():
            x = (x * BASE + word_hash(word)) & MASK
        # h_i(x) = a_i x + b_i mod 2^64, where NumPy drops what is above 64 bits
        least = np.minimum(least, a * stir(np.array([x], np.uint64)) + b)
    return least


def lsh_candidates(
    signatures: UInt64[np.ndarray, "docs n"], bands: int
) -> set[tuple[int, int]]:
    """Find the pairs worth comparing: those that agree in at least one whole band.

    Args:
        signatures: one row for each document.
        bands: into how many bands a row is cut; must divide its length.

    Returns:
        Pairs (i, j) of rows with i < j.

    Raises:
        ValueError: if the bands do not divide the signature.

    Examples:
        >>> rows = np.array([[1, 2, 3, 4], [1, 2, 9, 9], [7, 2, 9, 8]], np.uint64)
        >>> lsh_candidates(rows, bands=2)
        {(0, 1)}
        >>> sorted(lsh_candidates(rows, bands=4))
        [(0, 1), (0, 2), (1, 2)]
    """
    n = signatures.shape[1]
    check_bands(n, bands)
    pairs: set[tuple[int, int]] = set()
    for start in range(0, n, n // bands):
        buckets: dict[bytes, list[int]] = {}
        for j, row in enumerate(signatures):
            bucket = buckets.setdefault(row[start : start + n // bands].tobytes(), [])
            pairs.update((i, j) for i in bucket)
            bucket.append(j)
    return pairs


def mixture(tokens: Sequence[int], temperature: float) -> Float64[np.ndarray, " n"]:
    r"""Turn the sizes of domains into the shares in which they are read.

    $$p_i = \frac{n_i^{1 / T}}{\sum_j n_j^{1 / T}}$$

    At $T = 1$ each domain is read in proportion to its size, and as $T$ grows all
    become equal (Arivazhagan et al. 2019, arXiv:1907.05019).

    Args:
        tokens: $n_i$, the tokens of each domain, positive.
        temperature: $T$, positive.

    Returns:
        $p_i$, which sum to one.

    Raises:
        ValueError: if a number is not positive.

    Examples:
        >>> [mixture([900, 100], t).round(2).tolist() for t in (1, 2, 100)]
        [[0.9, 0.1], [0.75, 0.25], [0.51, 0.49]]
    """
    if temperature <= 0 or min(tokens) <= 0:
        raise ValueError(
            "sizes and the temperature must be positive; got "
            f"{min(tokens)} and {temperature}: leave empty domains out"
        )
    # In logarithms, where n^(1 / T) cannot overflow at small T.
    logs = np.log(np.array(tokens, np.float64)) / temperature
    p = np.exp(logs - logs.max())
    return p / p.sum()
