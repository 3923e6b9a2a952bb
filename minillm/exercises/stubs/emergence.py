r"""Exercises to chapter 10: more is different.

Write each function in the place of its `raise NotImplementedError`, and ask, in
this folder:

    minillm exercises check emergence.exact_match   # one of them
    minillm exercises check emergence               # those of this file

A sum of two long numbers is right only if every digit is. Suppose that a model gets
each digit right with probability p, whatever the others are.
"""


def exact_match(p: float, k: int) -> float:
    r"""How often is an answer of k digits right, if each digit is with probability p?

    >>> exact_match(0.5, 2)
    0.25
    """
    raise NotImplementedError


def digit_accuracy(share: float, k: int) -> float:
    r"""How good must each digit be, so that this share of all k-digit answers is right?

    >>> digit_accuracy(0.25, 2)
    0.5
    """
    raise NotImplementedError


def predict(p: float, q: float, k: int) -> float:
    r"""Predict, then run: by how much does the share of right answers grow?

    A model that gets each of k digits right with probability p becomes a better one,
    with probability q. Return the factor by which the share of answers that are right
    altogether grows. The grader runs 400,000 answers of each model and compares, within
    5 %. From 80 % of digits to 90 %, an eighth more, with answers of ten digits:

    >>> round(predict(0.8, 0.9, 10), 1)
    3.2
    """
    raise NotImplementedError
