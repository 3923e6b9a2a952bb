r"""Has the model seen the test? Common n-grams, found twice.

Reports on large models have a table of *contamination*: which share of a benchmark
stands in the training text. They count runs of n words that both have; GPT-3 took 13
(Brown et al. 2020, arXiv:2005.14165, appendix C).
[`contaminated`][minillm.corpus.contamination.contaminated] does that, with the n-grams
themselves; [`gram_hashes`][minillm.corpus.contamination.gram_hashes] with 64 bits in
place of each, for [`minillm.corpus.clean`][].

>>> tale = "The emperor walked through the streets without any clothes on."
>>> contaminated(["He walked through the streets."], [tale], n=3).round(2)
array([0.25])

What no n-gram finds is the same said in other words:

>>> contaminated(["Naked, the ruler paraded along every road."], [tale], n=3)
array([0.])

Nor does a date prove anything. A text written after the training data was collected is
no copy of it, but a benchmark made of older texts may be; and a licence says who may
use a text, not who has.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float64, UInt64

from minillm.corpus.signatures import polynomials
from minillm.tokenizer.streams import check_lists

__all__ = ["contaminated", "gram_hashes"]

_WORDS = re.compile(r"\w+")


def contaminated(
    train: Iterable[str], test: Sequence[str], n: int
) -> Float64[np.ndarray, " docs"]:
    """Say how much of each test document stands in the training text, word for word.

    Capitals and punctuation make no difference. What is held in memory is the test
    text; the training text may be a stream.

    Args:
        train: the training documents.
        test: the test documents.
        n: words in an n-gram, at least one. A document of fewer words is one n-gram.

    Returns:
        For each test document the share of its n-grams that occur in some training
        document; 0 for one without words.

    Raises:
        ValueError: if `n` is not positive, or a string stands in place of a list.

    Examples:
        >>> train = ["He went out. The lamp burned all night, they say."]
        >>> contaminated(train, ["the lamp burned ALL night", "the moon rose"], n=3)
        array([1., 0.])
        >>> contaminated(train, ["the lamp burned and went out"], n=2).round(2)
        array([0.6])
    """
    check_lists(train=train, test=test)
    if n < 1:
        raise ValueError(f"an n-gram has at least one word; got n = {n}")

    def grams(text: str, n: int) -> list[tuple[str, ...]]:
        words = _WORDS.findall(text.lower())
        return list(zip(*(words[i:] for i in range(n)), strict=False))

    lengths = [min(n, len(_WORDS.findall(text))) for text in test]
    wanted = [
        grams(text, length) if length else []
        for text, length in zip(test, lengths, strict=True)
    ]
    unseen = {gram for each in wanted for gram in each}
    found: set[tuple[str, ...]] = set()
    for document in train:
        for length in {*lengths} - {0}:
            found.update(unseen.intersection(grams(document, length)))
    return np.array([
        sum(gram in found for gram in each) / max(1, len(each)) for each in wanted
    ])


def gram_hashes(text: str, n: int) -> UInt64[np.ndarray, " grams"]:
    r"""Hash the n-grams of words that `contaminated` compares.

    Args:
        text: the text; capitals and punctuation make no difference.
        n: words in an n-gram.

    Returns:
        The different hashes, in ascending order. A text of fewer words has none.

    Examples:
        >>> a = gram_hashes("He went out, they say.", 3)
        >>> b = gram_hashes("went out they", 3)
        >>> len(a), np.isin(b, a).all()
        (3, np.True_)
    """
    return np.unique(polynomials(_WORDS.findall(text.lower()), n, shorten=False))
