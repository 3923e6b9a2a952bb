r"""Is it worth reading? Rules that others have published, and a classifier of ours.

A rule looks at numbers that need no understanding. Each here has its source, and its
threshold is the one that stands there:

>>> for rule in RULES[:3]:
...     print(rule.name, "|", rule.source)
words | Gopher: 50 to 100,000 words
word length | Gopher: a mean of 3 to 10 characters
letters | Gopher: 80 % of the words have a letter
>>> broken_rule("2200 3700 1250\n" * 40)
'letters'
>>> broken_rule("And so the king went to the sea again.\n" * 20)
'repeated lines'
>>> from minillm.data import andersen
>>> [broken_rule(tale) for tale in andersen()[:3]]
[None, None, None]

The *classifier* knows no rule. It is shown texts of which we want more and texts as
they come, and learns a weight for each word and each pair of words: logistic regression
on hashed counts, what fastText does (Joulin et al. 2016, arXiv:1607.01759) without its
hidden layer. GPT-3 chose its text in this way (Brown et al. 2020, arXiv:2005.14165,
appendix A), and so does DCLM (Li et al. 2024, arXiv:2406.11794, section 4.4).

>>> good = ["the king and the swan", "the swan flew to the sea"] * 10
>>> bad = ["buy shoes and save", "shoes for free to buy now"] * 10
>>> judge = Classifier.fit(good, bad)
>>> [round(judge.score(text), 1) for text in ("a swan and a king", "buy cheap shoes")]
[0.7, 0.0]

# References

Gopher: Rae et al. 2021, arXiv:2112.11446, appendix A.1.1. C4: Raffel et al. 2020,
arXiv:1910.10683, section 2.2. FineWeb: Penedo et al. 2024, arXiv:2406.17557, section
3.6.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from minillm.corpus.signatures import word_hash
from minillm.tokenizer.streams import check_lists

__all__ = ["RULES", "Classifier", "Measures", "Rule", "broken_rule"]

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
ENDS = (".", "!", "?", '"', "'", "”", "’")


@dataclass(frozen=True)
class Measures:
    """What the rules look at, computed once for a text.

    Attributes:
        text: the text.
        words: its words, as white space divides them.
        lines: its lines that are not empty.
    """

    text: str
    words: list[str]
    lines: list[str]

    def top_gram(self, n: int) -> float:
        """Say how much of the text its most frequent n-gram of words takes up."""
        grams = Counter(zip(*(self.words[i:] for i in range(n)), strict=False))
        if not grams:
            return 0.0
        gram, count = max(grams.items(), key=lambda item: (item[1], item[0]))
        length = sum(map(len, gram)) * count if count > 1 else 0
        return length / max(1, sum(map(len, self.words)))

    def repeated(self) -> float:
        """Say which share of the characters stands in lines that came before."""
        seen: set[str] = set()
        again = 0
        for line in self.lines:
            again += len(line) if line in seen else 0
            seen.add(line)
        return again / max(1, sum(map(len, self.lines)))

    def share(self, test: Callable[[str], bool], lines: bool = False) -> float:
        """Say which share of the words, or of the lines, passes a test."""
        of = self.lines if lines else self.words
        return sum(map(test, of)) / max(1, len(of))


@dataclass(frozen=True)
class Rule:
    """A rule that a page must keep.

    Attributes:
        name: a few words.
        source: where it was published, and its threshold.
        holds: whether a text keeps it.
    """

    name: str
    source: str
    holds: Callable[[Measures], bool]


RULES = (
    Rule(
        "words",
        "Gopher: 50 to 100,000 words",
        lambda m: 50 <= len(m.words) <= 100_000,
    ),
    Rule(
        "word length",
        "Gopher: a mean of 3 to 10 characters",
        lambda m: 3 <= sum(map(len, m.words)) / max(1, len(m.words)) <= 10,
    ),
    Rule(
        "letters",
        "Gopher: 80 % of the words have a letter",
        lambda m: m.share(lambda word: any(map(str.isalpha, word))) >= 0.8,
    ),
    Rule(
        "stop words",
        "Gopher: two of the, be, to, of, and, that, have, with",
        lambda m: len(STOP_WORDS & {word.lower() for word in m.words}) >= 2,
    ),
    Rule(
        "2-grams",
        "Gopher: the most frequent one takes up at most 20 % of the characters",
        lambda m: m.top_gram(2) <= 0.2,
    ),
    Rule(
        "braces",
        "C4: no curly bracket, which is a sign of code",
        lambda m: "{" not in m.text,
    ),
    Rule(
        "line ends",
        "FineWeb: more than 12 % of the lines end in punctuation",
        lambda m: m.share(lambda line: line.endswith(ENDS), lines=True) > 0.12,
    ),
    Rule(
        "repeated lines",
        "FineWeb: less than 10 % of the characters in lines that came before",
        lambda m: m.repeated() < 0.1,
    ),
    Rule(
        "short lines",
        "FineWeb: less than 67 % of the lines are shorter than 30 characters",
        lambda m: m.share(lambda line: len(line) < 30, lines=True) < 0.67,
    ),
)
"""The rules, in the order in which they are tried."""


def broken_rule(text: str) -> str | None:
    """Find the first rule that a text breaks.

    Args:
        text: the text.

    Returns:
        The name of the rule; `None` if it keeps them all.

    Examples:
        >>> broken_rule("Too short.")
        'words'
    """
    lines = [line for line in text.splitlines() if line.strip()]
    measures = Measures(text, text.split(), lines)
    return next((rule.name for rule in RULES if not rule.holds(measures)), None)


_WORD = re.compile(r"\w+")


def _counts(text: str, size: int) -> NDArray[np.float64]:
    """Count hashed words and pairs of words, and scale to length one."""
    words = _WORD.findall(text.lower())
    hashed = np.fromiter(map(word_hash, words), np.uint64, len(words))
    pairs = hashed[:-1] * np.uint64(31) + hashed[1:]
    slots = np.concatenate([hashed, pairs]) % np.uint64(size)
    x = np.bincount(slots.astype(np.int64), minlength=size).astype(np.float64)
    # A word that comes a hundred times does not say a hundred times as much; and the
    # length of a text must not decide.
    x = np.log1p(x)
    return x / max(1e-12, float(np.sqrt(x @ x)))


@dataclass(frozen=True)
class Classifier:
    r"""Logistic regression on hashed counts of words and pairs: $\sigma(w x + b)$.

    Attributes:
        weights: $w$, one for each slot of the hash table.
        bias: $b$.
    """

    weights: Float64[np.ndarray, " size"]
    bias: float

    @classmethod
    def fit(
        cls,
        good: Sequence[str],
        bad: Sequence[str],
        *,
        size: int = 1 << 12,
        steps: int = 300,
        lr: float = 20.0,
        decay: float = 1e-4,
    ) -> "Classifier":
        r"""Train on texts that are wanted and texts that are not.

        Gradient descent on the mean of $-y \ln p - (1 - y) \ln (1 - p)$, both classes
        with equal weight; its gradient is $(p - y) x$.

        Args:
            good: texts with $y = 1$, at least one.
            bad: texts with $y = 0$, at least one.
            size: slots of the hash table.
            steps: of gradient descent, over all texts each.
            lr: the learning rate.
            decay: how much of the weights a unit of learning rate takes away.

        Returns:
            The classifier; the same texts give the same one.

        Raises:
            ValueError: if there are no texts of one kind, or a string stands in place
                of a list.

        Examples:
            >>> Classifier.fit(["yes"], ["no"]).score("yes") > 0.9
            True
        """
        check_lists(good=good, bad=bad)
        if not good or not bad:
            raise ValueError(
                "a classifier learns from texts of both kinds; got "
                f"{len(good)} good and {len(bad)} bad: bring some of each"
            )
        x = np.stack([_counts(text, size) for text in [*good, *bad]])
        y = np.repeat([1.0, 0.0], [len(good), len(bad)])
        share = np.repeat([0.5 / len(good), 0.5 / len(bad)], [len(good), len(bad)])
        w, b = np.zeros(size), 0.0
        for _ in range(steps):
            # $p = \sigma(x w + b)$; the slope of the loss in $w$ is the sum of
            # $(p - y)\, x$, each with its share.
            error = share * (_sigmoid(x @ w + b) - y)
            w -= lr * (error @ x + decay * w)
            b -= lr * float(error.sum())
        return cls(w, b)

    def score(self, text: str) -> float:
        """Say how much a text is like the good ones.

        Args:
            text: the text.

        Returns:
            A probability, as far as the texts to judge are like those of training.

        Examples:
            >>> Classifier(np.zeros(16), 0.0).score("anything")
            0.5
        """
        return float(
            _sigmoid(_counts(text, len(self.weights)) @ self.weights + self.bias)
        )

    def scores(self, texts: Iterable[str]) -> Float64[np.ndarray, " n"]:
        """Score many texts.

        Args:
            texts: the texts.

        Returns:
            A score for each.

        Examples:
            >>> Classifier(np.zeros(16), 0.0).scores(["one", "two"]).tolist()
            [0.5, 0.5]
        """
        check_lists(texts=texts)
        return np.array([self.score(text) for text in texts], np.float64)


def _sigmoid(z: Any) -> Any:
    # Where $e^{-z}$ would overflow the result is 0 to all digits.
    return 1 / (1 + np.exp(-np.clip(z, -60, 60)))
