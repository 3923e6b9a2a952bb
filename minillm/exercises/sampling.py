r"""Exercises to [`minillm.generate`][]."""

import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from minillm import generate, model
from minillm.attention import LayerCache
from minillm.exercises.exercise import FLOATS, Draw, Exercise, Mistake, stacked, tensors

__all__ = ["EXERCISES"]

scores = stacked(st.integers(2, 4), dtype=FLOATS)


def _cutoff(logits: Tensor, k: int) -> Tensor:
    least = logits.sort(descending=True).values[..., min(k, logits.shape[-1]) - 1]
    return logits.masked_fill(logits < least.unsqueeze(-1), -math.inf)


def _top_k(
    logits: Tensor, k: int, *, fill: float = -math.inf, most: bool = True
) -> Tensor:
    order = logits.argsort(dim=-1, descending=most, stable=True)
    return logits.scatter(-1, order[..., k:], fill)


def _top_p(
    logits: Tensor,
    p: float,
    *,
    cross: bool = True,
    largest: bool = True,
    unsort: bool = True,
    at_p: bool = True,
) -> Tensor:
    order = logits.argsort(dim=-1, descending=largest, stable=True)
    ranked = logits.gather(-1, order)
    sorted_p = model.softmax(ranked.double(), dim=-1)
    before = sorted_p.cumsum(-1) - (sorted_p if cross else 0)
    gone = (before >= p) & (p < 1) if cross and at_p else before > p
    if not unsort:
        return ranked.masked_fill(gone, -math.inf)
    removed = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, gone)
    return logits.masked_fill(removed, -math.inf)


def _threshold(logits: Tensor, p: float) -> Tensor:
    small = model.softmax(logits.double(), dim=-1) < p
    return logits.masked_fill(small, -math.inf)


# The cache


def _attend_cached(
    q: Tensor, k: Tensor, v: Tensor, cached_k: Tensor, cached_v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    keys, values = torch.cat([cached_k, k]), torch.cat([cached_v, v])
    return model.scaled_dot_product_attention(q, keys, values), keys, values


def _attend_late(
    q: Tensor, k: Tensor, v: Tensor, *cached: Tensor
) -> tuple[Tensor, ...]:
    _, keys, values = _attend_cached(q, k, v, *cached)
    seen = cached if len(cached[0]) else (k, v)
    return model.scaled_dot_product_attention(q, *seen), keys, values


def _attend_masked(
    q: Tensor, k: Tensor, v: Tensor, *cached: Tensor
) -> tuple[Tensor, ...]:
    _, keys, values = _attend_cached(q, k, v, *cached)
    mask = torch.ones(1, len(keys), dtype=torch.bool).tril()
    return model.scaled_dot_product_attention(q, keys, values, mask), keys, values


def _attend_front(
    q: Tensor, k: Tensor, v: Tensor, cached_k: Tensor, cached_v: Tensor
) -> tuple[Tensor, ...]:
    keys, values = torch.cat([k, cached_k]), torch.cat([v, cached_v])
    return model.scaled_dot_product_attention(q, keys, values), keys, values


@st.composite
def _cache_inputs(draw: Draw) -> tuple[Any, ...]:
    n, d, dtype = draw(st.integers(0, 3)), draw(st.integers(1, 2)), draw(FLOATS)
    rows = 1, 1, 1, n, n
    return tuple(draw(tensors(row, d, dtype=dtype)) for row in rows)


class Reader:
    """A model of five tokens, whose scores depend on all that it has read, in order."""

    def __init__(self, seed: int) -> None:
        self.seed, self.read = seed, 0

    def __call__(self, new_ids: list[int], cache: list[int]) -> list[float]:
        cache.extend(new_ids)
        self.read += len(new_ids)
        state = self.seed
        for id_ in cache:
            state = (state * 31 + id_ + 7) % 1009
        return [float((state * (i + 3)) % 11) for i in range(5)]

    def __repr__(self) -> str:
        return f"model{self.seed}"


def _greedy(
    reader: Any, prompt: list[int], n: int, *, again: bool = False, whole: bool = False
) -> list[int]:
    cache: list[int] = []
    new, found = list(prompt), []
    for _ in range(n):
        if whole:
            cache = []
        marks = reader(new, cache)
        found.append(max(range(len(marks)), key=marks.__getitem__))
        if whole:
            new = [*prompt, *found]
        else:
            new = [*prompt, *found] if again else [found[-1]]
    return found


def _greedy_last(reader: Any, prompt: list[int], n: int) -> list[int]:
    cache: list[int] = []
    new, found = list(prompt), []
    for _ in range(n):
        marks = reader(new, cache)
        found.append(max(reversed(range(len(marks))), key=marks.__getitem__))
        new = [found[-1]]
    return found


def _call_greedy(function: Any, reader: Reader, prompt: list[int], n: int) -> Any:
    """The tokens, and how many the model had to read for them."""
    found = function(reader, prompt, n)
    return found, f"{reader.read} tokens read"


def _greedy_one_more(reader: Any, prompt: list[int], n: int) -> list[int]:
    cache: list[int] = []
    marks, found = reader(list(prompt), cache), []
    for _ in range(n):
        found.append(max(range(len(marks)), key=marks.__getitem__))
        marks = reader([found[-1]], cache)
    return found


def _greedy_prompt(reader: Any, prompt: list[int], n: int) -> list[int]:
    return [*prompt, *_greedy(reader, prompt, n)]


EXERCISES = (
    Exercise(
        name="generate.temperature",
        title="Temperature",
        minutes=5,
        why="The first dial of every program that writes; most people turn it without "
        "knowing what it divides.",
        answer=(generate.apply_temperature,),
        reference=generate.apply_temperature,
        inputs=st.tuples(scores, st.sampled_from([0.5, 2.0, 1.0, 0.0, -1.0])),
        examples=(
            (torch.tensor([1.0, 3.0]), 0.5),
            (torch.tensor([1.0, 3.0]), 0.0),
            (torch.tensor([1.0, 3.0]), math.inf),
        ),
        mistakes=(
            Mistake(
                "multiplies",
                "A high temperature brings the scores together: divide by it.",
                lambda x, t: x * t if 0 < t < math.inf else generate.top_k_filter(x, 0),
            ),
            Mistake(
                "divides the probabilities",
                "Probabilities divided by t do not sum to one: divide the logits.",
                lambda x, t: (
                    model.softmax(x, -1) / t
                    if 0 < t < math.inf
                    else generate.top_k_filter(x, 0)
                ),
            ),
            Mistake(
                "takes any temperature",
                "At 0 the result is infinite or NaN, and below the order turns round: "
                "say so with a ValueError.",
                lambda x, t: x / t,
            ),
            Mistake(
                "returns probabilities",
                "The new logits are asked for, so that other filters can follow.",
                lambda x, t: (
                    model.softmax(x / t, -1)
                    if 0 < t < math.inf
                    else generate.top_k_filter(x, 0)
                ),
            ),
        ),
        hints=(
            "Check the temperature first.",
            "0 < t < math.inf, or raise ValueError.",
            "Then one division.",
        ),
    ),
    Exercise(
        name="generate.top_k",
        title="The k likeliest",
        minutes=15,
        why="Each unlikely word is rarely drawn, but there are thousands of them, and "
        "one is enough to derail a sentence.",
        answer=(generate.top_k_filter,),
        reference=generate.top_k_filter,
        inputs=st.tuples(scores, st.integers(1, 5)),
        examples=(
            (torch.tensor([1.0, 3.0, 2.0, 3.0]), 2),
            (torch.tensor([2.0, 2.0, 1.0]), 1),
            (torch.tensor([1.0, 2.0]), 5),
        ),
        mistakes=(
            Mistake(
                "keeps all that tie",
                "Exactly k stay: comparing with the k-th score keeps its equals too.",
                _cutoff,
            ),
            Mistake(
                "zero for minus infinity",
                "A score of 0 is not impossible; exp(0) is 1.",
                lambda x, k: _top_k(x, k, fill=0.0),
            ),
            Mistake(
                "keeps the smallest",
                "Sorting goes upwards unless it is told otherwise: descending=True.",
                lambda x, k: _top_k(x, k, most=False),
            ),
            Mistake(
                "fails when k is larger than the vocabulary",
                "Then nothing is ruled out: min(k, vocabulary).",
                lambda x, k: _top_k(x, k) if k <= x.shape[-1] else x.topk(k).values,
            ),
        ),
        hints=(
            "You need the ids in the order of their scores, not only the k-th score.",
            "logits.argsort(dim=-1, descending=True, stable=True): stable puts the "
            "smaller id first among equals.",
            "logits.scatter(-1, order[..., k:], -math.inf) rules out the rest.",
        ),
    ),
    Exercise(
        name="generate.top_p",
        title="The likeliest share",
        minutes=25,
        why="How many words are possible depends on the place; top-p follows the model "
        "where top-k does not.",
        answer=(generate.top_p_filter,),
        reference=generate.top_p_filter,
        inputs=st.tuples(
            stacked(st.integers(2, 4), values=(0.0, 1.0, 2.0, 3.0, -1.0), dtype=FLOATS),
            st.sampled_from([0.3, 0.7, 0.95, 1.0]),
        ),
        examples=(
            (torch.tensor([1.0, 3.0, 0.0]), 0.95),
            (torch.tensor([0.0, 5.0]), 0.7),
            (torch.tensor([1.0, 1.0]), 1.0),
            (torch.tensor([1.0, 1.0]), 0.5),
            (torch.tensor([1.0, 1.0, 1.0, 1.0]), 0.75),
        ),
        mistakes=(
            Mistake(
                "drops the token that crosses p",
                "Look at the sum *before* a token: if one token is enough, it stays.",
                lambda x, p: _top_p(x, p, cross=False),
            ),
            Mistake(
                "one token too many at exactly p",
                "If those before it reach p, it goes: before >= p, not before > p.",
                lambda x, p: _top_p(x, p, at_p=False),
            ),
            Mistake(
                "begins with the least likely",
                "Sort downwards: the likeliest are to stay.",
                lambda x, p: _top_p(x, p, largest=False),
            ),
            Mistake(
                "leaves them sorted",
                "The scores must go back to the places of their ids: scatter.",
                lambda x, p: _top_p(x, p, unsort=False),
            ),
            Mistake(
                "p as a threshold",
                "Not each token must have p, but those that are kept, together.",
                _threshold,
            ),
        ),
        hints=(
            "Sort downwards, softmax, and add up from the left: cumsum.",
            "A token goes if those before it already reach p: cumsum minus its own.",
            "torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, gone) "
            "brings the decision back to the ids.",
        ),
    ),
    Exercise(
        name="generate.attend_cached",
        title="Attention with a cache",
        minutes=20,
        why="Keys and values of the past do not change. A model that keeps them reads "
        "each token once, and not once for every token after it.",
        answer=(LayerCache, model.MultiHeadAttention),
        reference=_attend_cached,
        inputs=_cache_inputs(),
        examples=(
            tuple(torch.tensor([[x]]) for x in (1.0, 2.0, 3.0, -1.0, 5.0)),
            (*(torch.tensor([[x]]) for x in (1.0, 2.0, 3.0)), *torch.zeros(2, 0, 1)),
        ),
        mistakes=(
            Mistake(
                "does not see itself",
                "First append the new key and value, then attend.",
                _attend_late,
            ),
            Mistake(
                "masked as if it were the first",
                "tril() on one row lets it see one key. The new token is the last and "
                "sees everything.",
                _attend_masked,
            ),
            Mistake(
                "appended in front",
                "The new token comes last: cat([cached, new]).",
                _attend_front,
            ),
            Mistake(
                "keeps nothing",
                "The next step needs the new key and value too: return both joined.",
                lambda q, k, v, ck, cv: (_attend_cached(q, k, v, ck, cv)[0], ck, cv),
            ),
        ),
        hints=(
            "torch.cat joins along the first axis.",
            "First join, then attend; no mask is needed.",
            "softmax(q @ keys.T / sqrt(d)) @ values, and return keys and values too.",
        ),
    ),
    Exercise(
        name="generate.greedy",
        title="Read each token once",
        minutes=20,
        why="Without the cache, a text twice as long takes four times the work. Here "
        "it is counted.",
        answer=(generate.generate, generate.stream),
        reference=_greedy,
        call=_call_greedy,
        inputs=st.tuples(
            st.builds(Reader, st.integers(0, 5)),
            st.lists(st.integers(0, 4), min_size=1, max_size=3),
            st.integers(0, 4),
        ),
        examples=((Reader(1), [1, 2], 4), (Reader(2), [0], 3)),
        mistakes=(
            Mistake(
                "reads the whole text again for each token",
                "What is in the cache has been read: pass only the newest token.",
                lambda *args: _greedy(*args, whole=True),
            ),
            Mistake(
                "passes the whole text to a cache that has it",
                "Then the model reads everything twice, and its positions are wrong.",
                lambda *args: _greedy(*args, again=True),
            ),
            Mistake(
                "reads the last token, too",
                "Nothing is asked after it: the model need not read it.",
                _greedy_one_more,
            ),
            Mistake(
                "returns the prompt too",
                "Only the new tokens are asked for.",
                _greedy_prompt,
            ),
            Mistake(
                "the last among equals",
                "Among equal scores the smaller id is taken.",
                _greedy_last,
            ),
        ),
        hints=(
            "Begin with an empty cache, and pass the whole prompt once.",
            "The scores that come back are those of the next token; take the largest.",
            "From then on the new ids are one: the token that was just chosen.",
        ),
    ),
)
