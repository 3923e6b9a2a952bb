r"""Baselines: what a model has to beat before it deserves the name.

**The question.** A loss of 3.4 nats per token: is that good? A number says little
without others beside it. Three *baselines* that only count give the scale:

- *uniform*: every token is equally likely. It knows nothing.
- *unigram*: every token is as likely as it was frequent. It knows which words exist.
- *trigram*: every token is as likely as it was after the two before it. It knows
  phrases.

Trigrams with Kneser-Ney smoothing were the standard language model for decades.

**Before this:** [`minillm.training.loss`][]. **Next:** [`minillm.training.descent`][].
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KneserNey", "uniform_loss", "unigram_loss"]

# Ids that are counted at once.
CHUNK = 1 << 20

# A sequence of token ids; a list will do.
Ids = Sequence[int] | NDArray[Any]
# After each context: what followed it, how often.
_Followers = dict[tuple[int, ...], dict[int, int]]


def uniform_loss(vocab_size: int) -> float:
    r"""The uniform baseline: $\ln V$ nats, the loss with $V$ equally likely tokens.

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
    r"""The unigram baseline: the loss when each token is predicted by its frequency.

    One is added to every count (Laplace), or a token that was never seen would have the
    probability zero, and the loss would be infinite.

    Args:
        train_tokens: where the frequencies are counted.
        tokens: what is predicted, at least two; all but the first, so that every
            baseline and the model predict the same tokens.
        vocab_size: $V$.

    Returns:
        Nats per token.

    Raises:
        ValueError: if there is nothing to predict, or an id is not in the vocabulary.

    Examples:
        Three of four tokens were 0, so after adding one to each count, 0 has 4 of 6:

        >>> round(unigram_loss([0, 0, 0, 1], [1, 0, 0], vocab_size=2), 3)
        0.405
        >>> import math
        >>> round(-math.log(4 / 6), 3)
        0.405
    """
    if len(tokens) < 2:
        raise ValueError("nothing to predict: a text takes two tokens or more")
    counts, targets = (_counts(part, vocab_size) for part in (train_tokens, tokens[1:]))
    # $\ln p_j$ with $p_j = (c_j + 1) / (n + V)$
    log_p = np.log((counts + 1) / (len(train_tokens) + vocab_size))
    return float(-(targets @ log_p) / (len(tokens) - 1))


def _counts(tokens: Ids, vocab_size: int) -> NDArray[np.int64]:
    """How often each id occurs."""
    counts = np.zeros(vocab_size, np.int64)
    # `bincount` needs a copy in 64 bits; chunks keep that small for a mapped file.
    for start in range(0, len(tokens), CHUNK):
        chunk = np.asarray(tokens[start : start + CHUNK])
        found = np.bincount(chunk, minlength=vocab_size)
        if len(found) > vocab_size:
            raise ValueError(
                f"the vocabulary knows the ids 0 to {vocab_size - 1}; the text has "
                f"{len(found) - 1}: count with the tokenizer's own vocab_size"
            )
        counts += found
    return counts


def _mean_nll(probabilities: Iterable[float]) -> float:
    nll = [-math.log(p) for p in probabilities]
    if not nll:
        raise ValueError("nothing to predict: a text takes two tokens or more")
    return sum(nll) / len(nll)


class KneserNey:
    r"""The interpolated Kneser-Ney n-gram model.

    Counting phrases has a problem: most phrases of three words in a new text were not
    in the old one. So a *discount* $D$ is taken from the count of every phrase that was
    seen, and given to the prediction from the next shorter context $h'$:

    $$P(w \mid h) = \frac{\max(c(h w) - D, 0)}{\sum_u c(h u)}
    + \frac{D \cdot |\{u : c(h u) > 0\}|}{\sum_u c(h u)} \, P(w \mid h')$$

    The idea of Kneser and Ney concerns the shorter contexts. "Francisco" is frequent,
    but only after "San". After an unknown word it is a bad guess. So there, $c$ counts
    not how often a phrase occurred but *after how many different tokens*.
    (Kneser & Ney 1995; Chen & Goodman 1999, section 2.7, with one discount for each
    length, $D = n_1 / (n_1 + 2 n_2)$, where $n_k$ phrases have the count $k$; a half
    where $n_1 = 0$.)

    Below the single tokens lies the uniform distribution, so no probability is zero.

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
        """The cross-entropy of a text, all tokens but the first.

        Args:
            tokens: the text, at least two tokens.

        Returns:
            Nats per token.

        Raises:
            ValueError: if there is nothing to predict.
        """
        row = [int(token) for token in tokens]
        return _mean_nll(
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
