r"""Baselines: what a model has to beat before it deserves the name.

**The question.** A loss of 3.4 nats per token: is that good? A number says little
without others beside it. Three predictors that need no learning, only counting, give
the scale:

- *uniform*: every token is equally likely. Knows nothing.
- *unigram*: every token is as likely as it was frequent. Knows which words exist.
- *trigram*: every token is as likely as it was after the two before it. Knows phrases.

The third, done well, was the best there was for decades, and done well means: with the
smoothing of Kneser and Ney.

**Before this:** [`minillm.data`][]. **Next:** [`minillm.train`][], whose model looks
back over a hundred tokens instead of two.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KneserNey", "uniform_loss", "unigram_loss"]

# One row of token ids; a list will do.
Ids = Sequence[int] | NDArray[Any]
# After each context: what followed it, how often.
_Followers = dict[tuple[int, ...], dict[int, int]]


def uniform_loss(vocab_size: int) -> float:
    r"""The loss of a guess among $V$ equally likely tokens: $\ln V$ nats.

    Args:
        vocab_size: $V$.

    Returns:
        Nats per token.

    Examples:
        >>> round(uniform_loss(2048), 2)
        7.62
    """
    return math.log(vocab_size)


def unigram_loss(train_tokens: Ids, tokens: Ids, vocab_size: int) -> float:
    r"""The loss of guessing each token by its frequency alone.

    One is added to every count (Laplace), or a token that was never seen would have the
    probability zero, and its surprise would be infinite.

    Args:
        train_tokens: where the frequencies are counted.
        tokens: what is predicted, at least two; all but the first, so that every
            baseline and the model predict the same tokens.
        vocab_size: $V$.

    Returns:
        Nats per token.

    Raises:
        ValueError: if there is nothing to predict.

    Examples:
        Three of four tokens were 0, so after adding one it has 4 of 6 parts:

        >>> round(unigram_loss([0, 0, 0, 1], [1, 0, 0], vocab_size=2), 3)
        0.405
        >>> round(-math.log(4 / 6), 3)
        0.405
    """
    counts = Counter(map(int, train_tokens))
    total = len(train_tokens) + vocab_size
    return _mean_surprise((counts[int(token)] + 1) / total for token in tokens[1:])


def _mean_surprise(probabilities: Iterable[float]) -> float:
    surprise = [-math.log(p) for p in probabilities]
    if not surprise:
        raise ValueError("nothing to predict: a text takes two tokens or more")
    return sum(surprise) / len(surprise)


class KneserNey:
    r"""The interpolated Kneser-Ney n-gram model.

    Counting phrases has one trouble: most phrases of three words that one will ever
    read were never read before. So a little is taken from every phrase that was seen, a
    *discount* $D$, and given to the prediction of the next shorter context $h'$:

    $$P(w \mid h) = \frac{\max(c(h w) - D, 0)}{\sum_u c(h u)}
    + \frac{D \cdot |\{u : c(h u) > 0\}|}{\sum_u c(h u)} \, P(w \mid h')$$

    The idea of Kneser and Ney concerns the shorter contexts. "Francisco" is frequent,
    but only after "San". As a guess after an unknown word it is useless. So there, $c$
    counts not how often a phrase occurred but *after how many different tokens*.
    (Kneser & Ney 1995; Chen & Goodman 1999, section 2.7, with one discount for each
    length, $D = n_1 / (n_1 + 2 n_2)$, where $n_k$ phrases have the count $k$; a half
    where $n_1 = 0$.)

    Below the single tokens lies the uniform guess, so no probability is zero.

    Args:
        tokens: the text to count in.
        vocab_size: $V$.
        order: how many tokens a phrase has; 3 makes a trigram.

    Examples:
        The probabilities after any context, seen or not, sum to one:

        >>> model = KneserNey([0, 1, 2, 0, 1, 3, 0, 1, 2], vocab_size=5)
        >>> sums = [model.probabilities(h).sum() for h in ([0, 1], [4, 4], [])]
        >>> [round(float(total), 9) for total in sums]
        [1.0, 1.0, 1.0]
        >>> int(model.probabilities([0, 1]).argmax())
        2
    """

    def __init__(self, tokens: Ids, vocab_size: int, order: int = 3) -> None:
        self.vocab_size, self.order = vocab_size, order
        row = [int(token) for token in tokens]

        def phrases_of(length: int) -> Iterable[tuple[int, ...]]:
            return zip(*(row[i:] for i in range(length)), strict=False)

        phrases = Counter(phrases_of(order))
        # For each length, from single tokens up: what followed a context, how often;
        # and the discount.
        self.levels: list[tuple[_Followers, float]] = []
        for length in range(order, 0, -1):
            followers: _Followers = defaultdict(dict)
            for (*context, token), count in phrases.items():
                followers[tuple(context)][token] = count
            of_count = Counter(phrases.values())
            once, twice = of_count[1], of_count[2]
            # Where no phrase has the count 1, the formula would take nothing, and what
            # was not seen would be impossible.
            discount = once / (once + 2 * twice) if once else 0.5
            self.levels.insert(0, (dict(followers), discount))
            # Dropping the first token of each distinct phrase leaves the shorter ones,
            # counted by how many different tokens they came after.
            phrases = Counter(phrase[1:] for phrase in set(phrases_of(length)))

    def probabilities(self, context: Sequence[int]) -> NDArray[np.float64]:
        """The distribution of the next token.

        Args:
            context: the tokens before it; only the last `order - 1` matter.

        Returns:
            One probability for each token of the vocabulary.
        """
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for followers, discount in self._matching(context):
            total = sum(followers.values())
            p *= discount * len(followers) / total
            p[list(followers)] += (np.array([*followers.values()]) - discount) / total
        return p

    def probability(self, token: int, context: Sequence[int]) -> float:
        """The probability of one token, without computing all the others.

        Args:
            token: the token.
            context: the tokens before it.

        Returns:
            Its probability.
        """
        p = 1 / self.vocab_size
        for followers, discount in self._matching(context):
            total = sum(followers.values())
            p *= discount * len(followers) / total
            p += max(followers.get(token, 0) - discount, 0) / total
        return p

    def loss(self, tokens: Ids) -> float:
        """The mean surprise over a text, all but its first token.

        Args:
            tokens: the text, at least two tokens.

        Returns:
            Nats per token.

        Raises:
            ValueError: if there is nothing to predict.
        """
        row = [int(token) for token in tokens]
        return _mean_surprise(
            self.probability(row[i], row[max(0, i + 1 - self.order) : i])
            for i in range(1, len(row))
        )

    def _matching(self, context: Sequence[int]) -> list[tuple[dict[int, int], float]]:
        """What was seen after ever longer ends of the context, while there is any."""
        found = []
        for n, (followers, discount) in enumerate(self.levels):
            end = tuple(context[len(context) - n :])
            if len(end) < n or end not in followers:
                break
            found.append((followers[end], discount))
        return found
