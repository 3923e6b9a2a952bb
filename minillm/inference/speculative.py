r"""Guess and check: several tokens from one pass, and the same distribution.

**The question.** Reading eight tokens takes a model hardly longer than reading one: the
weights come out of memory once for all of them. But when it *writes*, it cannot read
the second token before it has chosen the first. Could somebody guess the next eight?

**A draft.** Let something cheap write a few tokens ahead: a trigram model that only
counts ([`KneserNey`][minillm.training.baselines.KneserNey]), or a search for the last
words in what was already said. The model then reads the whole draft in a single pass.
That gives its own distribution at each of these positions, and so it can say of each
token whether it would have chosen it. The draft is kept up to the first token that it
refuses.

**When to accept?** A greedy model accepts what it would have taken itself. A model that
samples must not simply accept what is likely, or its texts would come from another
distribution. The rule (Leviathan et al. 2023, arXiv:2211.17192, section 2.3; Chen et
al. 2023, arXiv:2302.01318, theorem 1): let the draft have chosen $x$ with probability
$q(x)$, and let the model give it $p(x)$.

- Accept $x$ with probability $\min(1, p(x) / q(x))$.
- If it is refused, sample from what the draft was short of, the *residual*
  $\max(0, p - q)$, divided by its sum.

**Why that is exact.** A token $x$ can come out in two ways. Either it is drafted and
accepted, with probability $q(x) \min(1, p(x) / q(x)) = \min(q(x), p(x))$; or a draft is
refused, and $x$ is sampled from the residual. A refusal has probability
$1 - \sum_y \min(q(y), p(y)) = \sum_y \max(0, p(y) - q(y))$, by which the residual had
been divided. So the two add up to

$$\min(q(x), p(x)) + \max(0,\, p(x) - q(x)) = p(x)$$

whatever $q$ is. A bad draft costs time, and never quality. By enumeration, in exact
fractions:

>>> from fractions import Fraction as F
>>> p, q = [F(5, 10), F(3, 10), F(2, 10)], [F(1, 10), F(7, 10), F(2, 10)]
>>> accepted = [min(qx, px) for px, qx in zip(p, q)]
>>> short = [max(F(0), px - qx) for px, qx in zip(p, q)]
>>> refused = 1 - sum(accepted)
>>> [a + refused * s / sum(short) for a, s in zip(accepted, short)] == p
True

With the ratio the wrong way round, $q / p$, it is not:

>>> wrong = [qx * min(F(1), qx / px) for px, qx in zip(p, q)]
>>> [w + (1 - sum(wrong)) * s / sum(short) for w, s in zip(wrong, short)] == p
False

**What it brings.** If each token of a draft of $k$ is accepted with the probability
$\alpha$, independently, a pass yields on average $(1 - \alpha^{k + 1}) / (1 - \alpha)$
tokens: the accepted ones, and one that the model gives for nothing. If drafting a token
takes the part $c$ of a pass, and reading the draft no more than reading one token, the
speed-up is (theorem 3.8 of Leviathan et al.)

$$\frac{1 - \alpha^{k + 1}}{(1 - \alpha)(k c + 1)}$$

>>> [round(speed_up(alpha, k=4, c=0.05), 2) for alpha in (0.2, 0.5, 0.8)]
[1.04, 1.61, 2.8]

Measured (`python -m benchmarks.bits`):

--8<-- "images/data/speculative.md"

*Accepted* is the share of all drafted tokens, so it is not $\alpha$: what follows a
refused token counts as refused. And look-up proposes nothing where it finds nothing,
and only as many tokens as follow up to the end of the text.

On a small model neither condition holds. One of a million weights does not wait for its
memory, so reading a long draft takes longer than reading one token: with look-up, 1.7
tokens a pass gain nothing. And the trigram is not free beside such a model: it costs
more than half of the speed. The large model waits for its memory, but look-up alone
guesses too little of its text to make it faster.

**Before this:** [`minillm.inference.decoder`][], [`minillm.training.baselines`][].
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from minillm.inference.checks import check_logits, check_prompt, check_temperature
from minillm.inference.decoder import Decoder
from minillm.model import KVCache, TransformerLM
from minillm.training.baselines import KneserNey

__all__ = [
    "Draft",
    "LookUp",
    "Statistics",
    "Trigram",
    "speculate",
    "speed_up",
    "verify",
]

Probabilities = NDArray[np.float64]


def speed_up(alpha: float, k: int, c: float) -> float:
    r"""How many times as fast it should be, by theorem 3.8 of Leviathan et al.

    Args:
        alpha: $\alpha$, how probable it is that a drafted token is accepted, in [0, 1].
        k: how many tokens are drafted.
        c: what drafting a token takes, in parts of a pass of the model.

    Returns:
        The ratio; below 1 it is a loss.

    Raises:
        ValueError: if a number is out of its range.

    Examples:
        >>> speed_up(1.0, k=4, c=0.0), speed_up(0.0, k=4, c=0.25)
        (5.0, 0.5)
    """
    if not 0 <= alpha <= 1 or k < 0 or not c >= 0:
        raise ValueError(
            f"alpha must lie in [0, 1], and k and c be 0 or more; got {alpha}, {k} and "
            f"{c}: write 80 % as 0.8"
        )
    tokens = sum(alpha**i for i in range(k + 1))
    return tokens / (k * c + 1)


def verify(
    draft: Sequence[int],
    q: Float[np.ndarray, "drafted vocab"],
    p: Float[np.ndarray, "drafted_and_one vocab"],
    random: np.random.Generator,
) -> list[int]:
    r"""Accept the beginning of a draft, and add one token, so that all come from $p$.

    Args:
        draft: the tokens that were guessed.
        q: for each of them, the distribution that it was sampled from.
        p: for each of them, the model's distribution there; and that after the last.
        random: the random number generator.

    Returns:
        The accepted tokens and one more: from the residual where one was refused, and
        from the last row of $p$ where all were accepted.

    Examples:
        A draft that the model would never write, and one of which it is sure:

        >>> random = np.random.default_rng(0)
        >>> p, q = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])
        >>> verify([0], q, p, random), verify([1], p[:1], p, random)
        ([1], [1, 1])
    """
    for i, token in enumerate(draft):
        # Multiplied out, since $q$ may be as small as it likes.
        if random.random() * q[i, token] < p[i, token]:
            continue
        residual = np.maximum(p[i] - q[i], 0.0)
        return [*draft[:i], _sample(residual, random)]
    return [*draft, _sample(p[len(draft)], random)]


def _sample(weights: Probabilities, random: np.random.Generator) -> int:
    """A token with a probability in proportion to its weight."""
    sums = np.cumsum(weights)
    # `searchsorted` on the right never stops at a weight of zero.
    return int(np.searchsorted(sums, random.random() * sums[-1], side="right"))


@runtime_checkable
class Draft(Protocol):
    """Something that guesses how a text goes on.

    Examples:
        >>> isinstance(LookUp(10), Draft)
        True
    """

    def propose(
        self, ids: Sequence[int], k: int, random: np.random.Generator
    ) -> tuple[list[int], Probabilities]:
        """Guess up to `k` tokens.

        Args:
            ids: the text so far.
            k: how many at most.
            random: the random number generator.

        Returns:
            The tokens, and the distribution that each was sampled from. One that was
            not sampled has the probability 1.
        """


class Trigram:
    r"""Drafts of a trigram model: nearly free, and sampled.

    Args:
        counts: the model.
        greedy: whether to take its likeliest token instead of sampling, for a model
            that writes greedily.

    Examples:
        >>> counts = KneserNey([0, 1, 2, 0, 1, 2, 0, 1, 2], vocab_size=3)
        >>> draft = Trigram(counts, greedy=True)
        >>> draft.propose([0, 1], 3, np.random.default_rng(0))[0]
        [2, 0, 1]
    """

    def __init__(self, counts: KneserNey, greedy: bool = False) -> None:
        self.counts, self.greedy = counts, greedy

    def propose(
        self, ids: Sequence[int], k: int, random: np.random.Generator
    ) -> tuple[list[int], Probabilities]:
        """Continue the last two tokens."""
        text, rows = list(ids[-2:]), []
        for _ in range(k):
            q = self.counts.probabilities(text[-2:])
            if self.greedy:
                q = _certain(int(q.argmax()), len(q))
            rows.append(q)
            text.append(_sample(q, random))
        return text[len(text) - k :], _stack(rows, self.counts.vocab_size)


class LookUp:
    r"""Drafts from the text itself: what came after these words the last time?

    Summaries, corrections and answers repeat much of what was said. (Prompt look-up
    decoding, Saxena 2023; the same idea as the *induction heads* of
    [`minillm.labs.context`][].)

    Args:
        vocab_size: $V$.
        longest: how many of the last tokens to look for; if they are not found, fewer,
            down to two.

    Examples:
        >>> draft, random = LookUp(10), np.random.default_rng(0)
        >>> draft.propose([1, 2, 3, 4, 5, 1, 2, 3], 2, random)[0]
        [4, 5]
        >>> draft.propose([1, 2, 3, 4, 5], 2, random)[0]
        []
    """

    def __init__(self, vocab_size: int, longest: int = 4) -> None:
        self.vocab_size, self.longest = vocab_size, longest

    def propose(
        self, ids: Sequence[int], k: int, random: np.random.Generator
    ) -> tuple[list[int], Probabilities]:
        """Copy what followed the latest occurrence of the longest end."""
        found: list[int] = []
        for n in range(min(self.longest, len(ids) - 1), 1, -1):
            end = list(ids[-n:])
            starts = range(len(ids) - n - 1, -1, -1)
            at = next((i for i in starts if list(ids[i : i + n]) == end), None)
            if at is not None:
                found = list(ids[at + n : at + n + k])
                break
        rows = [_certain(token, self.vocab_size) for token in found]
        return found, _stack(rows, self.vocab_size)


def _certain(token: int, vocab_size: int) -> Probabilities:
    q = np.zeros(vocab_size)
    q[token] = 1.0
    return q


def _stack(rows: list[Probabilities], vocab_size: int) -> Probabilities:
    return np.stack(rows) if rows else np.zeros((0, vocab_size))


@dataclass
class Statistics:
    """What became of the drafts.

    Attributes:
        passes: how often the model read something, the prompt not counted.
        drafted: how many tokens were guessed.
        accepted: how many of them the model kept.
    """

    passes: int = 0
    drafted: int = 0
    accepted: int = 0


def speculate(
    model: TransformerLM,
    ids: Sequence[int],
    draft: Draft,
    *,
    k: int = 4,
    temperature: float = 1.0,
    seed: int | None = None,
    statistics: Statistics | None = None,
    decoder: Decoder | None = None,
) -> Iterator[int]:
    r"""Continue a text from the model's own distribution, with the help of a draft.

    Same distribution as sampling token by token; at temperature 0 the same ids,
    except where two logits are equal up to rounding.

    Args:
        model: a model that [`suits`][minillm.inference.decoder.suits].
        ids: the prompt, at least one id and at most `context_length`.
        draft: what guesses.
        k: how many tokens at once, at least 1.
        temperature: divides the logits; 0 is greedy.
        seed: makes the sampling repeatable.
        statistics: is told what became of the drafts.
        decoder: one made of this model; `None` makes one.

    Returns:
        An iterator over the new ids, up to the end of the context.

    Raises:
        ValueError: if an argument is out of its range; or, while sampling, if the
            model's logits are not numbers, or the draft has another vocabulary.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(9, 32, 16, 1, 2)).double()
        >>> new = list(speculate(model, [1, 2, 3], LookUp(9), temperature=0))
        >>> text = torch.tensor([[1, 2, 3, *new]])
        >>> len(new), new == model(text)[0, 2:-1].argmax(-1).tolist()
        (29, True)
    """
    prompt = check_prompt(ids, model.config)
    check_temperature(temperature)
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}: a draft has some tokens")
    if decoder is not None:
        decoder.check(model)
    return _speculate(
        decoder or Decoder(model),
        prompt,
        draft,
        k,
        temperature,
        np.random.default_rng(seed),
        statistics or Statistics(),
    )


def _speculate(
    decoder: Decoder,
    ids: list[int],
    draft: Draft,
    k: int,
    temperature: float,
    random: np.random.Generator,
    statistics: Statistics,
) -> Iterator[int]:
    room = decoder.config.context_length
    cache = KVCache(decoder.config, batch_size=1)
    if len(ids) > 1:
        decoder.read(ids[:-1], cache)
    # The cache holds all but the last token, which is read together with the draft.
    while len(ids) < room:
        guess, q = draft.propose(ids, min(k, room - len(ids) - 1), random)
        logits = decoder.read([ids[-1], *guess], cache, last=len(guess) + 1)
        if q.shape[1] != logits.shape[1]:
            raise ValueError(
                f"the draft guesses among {q.shape[1]} ids, and the model knows "
                f"{logits.shape[1]}: make the draft for this model's vocabulary"
            )
        p = _distributions(logits, temperature)
        new = verify(guess, q, p, random)
        statistics.passes += 1
        statistics.drafted += len(guess)
        statistics.accepted += len(new) - 1
        ids += new
        cache.cut(len(ids) - 1)  # what was refused must not be seen again
        yield from new


def _distributions(
    logits: Float[Tensor, "positions vocab"], temperature: float
) -> Probabilities:
    """The softmax of each row; at temperature 0 all for the largest."""
    check_logits(logits)
    best = logits.argmax(-1, keepdim=True)
    if temperature == 0:
        p = torch.zeros_like(logits).double().scatter(-1, best, 1.0)
    else:
        # With the largest logit at 0, no temperature is too small to divide by.
        x = logits.double()
        p = ((x - x.gather(-1, best)) / temperature).softmax(-1)
    return np.asarray(p.numpy())
