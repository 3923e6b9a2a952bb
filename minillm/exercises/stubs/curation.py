r"""Exercises to chapter 9: where the text comes from.

Write each function in the place of its `raise NotImplementedError`, and ask, in
this folder:

    minillm exercises check curation.shingles   # one of them
    minillm exercises check curation            # those of this file

A document is a string here, and its words are what `split()` makes of it, unless an
exercise says otherwise.
"""


def shingles(text: str, k: int) -> set[str]:
    r"""Take all runs of k words out of a text.

    In small letters, joined by one space. A text of fewer than k words is one shingle;
    a text without words has none.

    >>> sorted(shingles("The king and the king", 2))
    ['and the', 'king and', 'the king']
    >>> shingles("Short", 2)
    {'short'}
    """
    raise NotImplementedError


def jaccard(a: list[str], b: list[str]) -> float:
    r"""Compare the shingles of two texts: how much of what either has do both have?

    The lists may name a shingle more than once; as in a set, it counts once. Two empty
    lists are equal.

    >>> jaccard(["a b", "b a", "a b"], ["a b"])
    0.5
    """
    raise NotImplementedError


def signatures(
    documents: list[list[int]], a: list[int], b: list[int]
) -> list[list[int]]:
    r"""Compute MinHash signatures.

    A document is a list of numbers, its hashed shingles, at least one. Hash function i
    is h_i(x) = (a_i * x + b_i) mod 101; entry i of a document's signature is the least
    value that h_i takes on it.

    >>> signatures([[1, 2], [2]], a=[1, 3], b=[0, 98])
    [[1, 0], [2, 3]]
    """
    raise NotImplementedError


def candidates(signatures: list[list[int]], bands: int) -> set[tuple[int, int]]:
    r"""Find the pairs of documents that agree in at least one whole band.

    Each signature is cut into that many bands of equal length; band s of one document
    is compared with band s of another. A pair (i, j) has i < j.

    >>> candidates([[1, 2, 3, 4], [1, 2, 9, 9], [7, 2, 9, 8]], bands=2)
    {(0, 1)}
    """
    raise NotImplementedError


def split(groups: list[int], every: int) -> tuple[list[int], list[int]]:
    r"""Deduplicate and split.

    Documents with the same number in `groups` are copies of each other. Keep the first
    of each group; of the kept ones, in order, every `every`-th (so the first of them is
    number 1) is for validation, and the others are for training. Return the positions
    of both, training first.

    >>> split([5, 5, 6, 7, 6, 8], every=2)
    ([0, 3], [2, 5])
    """
    raise NotImplementedError


def contaminated(train: list[str], test: list[str], n: int) -> list[float]:
    r"""For each test document, which share of its n-grams stands in the training text?

    An n-gram is n words in a row within one document, in small letters. Count every
    place of the test document, so an n-gram that occurs twice counts twice. A test
    document of fewer than n words gets 0.

    >>> contaminated(["the lamp burned"], ["The lamp burned all night", "rain"], 2)
    [0.5, 0.0]
    """
    raise NotImplementedError


def tuned_accuracy(
    tune_scores: list[float],
    tune_good: list[bool],
    test_scores: list[float],
    test_good: list[bool],
) -> float:
    r"""Choose a threshold, and say how good it is.

    A text is kept if its score is at least t. Choose t among the scores of the tuning
    texts: the one that is right about most of them, and of several the lowest. Return
    the share of test texts about which it is right.

    >>> tuned_accuracy([0.2, 0.6, 0.9], [False, True, True], [0.5, 0.7], [True, True])
    0.5
    """
    raise NotImplementedError
