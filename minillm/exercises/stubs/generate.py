r"""Exercises to chapter 6: sampling.

Write each function in the place of its `raise NotImplementedError`, and ask, in
this folder:

    minillm exercises check generate.top_k   # one of them
    minillm exercises check generate         # those of this file

Logits may have any number of axes before the last, which is the vocabulary.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def temperature(logits: Tensor, t: float) -> Tensor:
    r"""Sharpen (t < 1) or flatten (t > 1) a distribution: the new *logits*.

    A temperature of 0 or less, or an infinite one, is a ValueError.

    >>> temperature(torch.tensor([1.0, 3.0]), 0.5).tolist()
    [2.0, 6.0]
    """
    raise NotImplementedError


def top_k(logits: Tensor, k: int) -> Tensor:
    r"""Keep the k largest scores, and put minus infinity in the place of the rest.

    Among equal scores the smaller id stays; a k larger than the vocabulary keeps all.

    >>> top_k(torch.tensor([1.0, 3.0, 2.0]), 2).tolist()
    [-inf, 3.0, 2.0]
    """
    raise NotImplementedError


def top_p(logits: Tensor, p: float) -> Tensor:
    r"""Keep the fewest tokens that together have a probability of at least p.

    The token that crosses p stays; the others get minus infinity. Among equal scores
    the smaller id comes first.

    >>> logits = torch.tensor([0.15, 0.50, 0.30, 0.05]).log()
    >>> top_p(logits, 0.7).isfinite().tolist()
    [False, True, True, False]
    """
    raise NotImplementedError


def attend_cached(
    q: Tensor, k: Tensor, v: Tensor, cached_k: Tensor, cached_v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Let one new token attend to those before it, whose keys and values are kept.

    `q`, `k`, `v` are (1, d), of the new token; the cached ones (n, d), where n may be
    0. Returns what the query gathers, (1, d), and the keys and values for the next
    step, (n + 1, d). The new token sees itself.

    >>> new, empty = torch.ones(1, 2), torch.zeros(0, 2)
    >>> [part.tolist() for part in attend_cached(new, new, 5 * new, empty, empty)]
    [[[5.0, 5.0]], [[1.0, 1.0]], [[5.0, 5.0]]]
    """
    raise NotImplementedError


def greedy(
    model: Callable[[list[int], list[int]], list[float]], prompt: list[int], n: int
) -> list[int]:
    r"""Continue a prompt by n tokens, always with the likeliest; return the new ones.

    `model(new_ids, cache)` reads the new ids, appends them to the list `cache`, and
    returns the scores of the next token. What is in the cache has been read: pass each
    token once. The last token that you return needs no reading.

    >>> def model(new_ids, cache):
    ...     cache.extend(new_ids)
    ...     return [1.0 if i == sum(cache) % 5 else 0.0 for i in range(5)]
    >>> greedy(model, [1, 2], 3)
    [3, 1, 2]
    """
    raise NotImplementedError


def quantize_rows(weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Round each row of a matrix to levels from -127 to 127, by its largest weight.

    Returns the levels, whole numbers in the type of the weights, and one scale for each
    row, such that `levels * scales[:, None]` is near the weights. A row of zeros has
    the scale 1.

    >>> levels, scales = quantize_rows(torch.tensor([[1.27, -0.64], [0.0, -254.0]]))
    >>> levels.tolist(), [round(s, 2) for s in scales.tolist()]
    ([[127.0, -64.0], [0.0, -127.0]], [0.01, 2.0])
    """
    raise NotImplementedError


def accept_draft(p: list[float], q: list[float], token: int, u: float) -> bool:
    r"""Say whether a drafted token is kept.

    The draft sampled `token` from the distribution `q`; the model's own is `p`. It is
    kept with the probability min(1, p/q) of that token. `u` is uniform in [0, 1): keep
    it if `u` is below that probability.

    >>> accept_draft([0.2, 0.8], [0.5, 0.5], token=0, u=0.3)
    True
    >>> accept_draft([0.2, 0.8], [0.5, 0.5], token=0, u=0.5)
    False
    >>> accept_draft([0.2, 0.8], [0.5, 0.5], token=1, u=0.99)
    True
    """
    raise NotImplementedError


def after_refusal(p: list[float], q: list[float]) -> list[float]:
    r"""Return the distribution to sample from when a drafted token was refused.

    Together with what is accepted it must make up exactly `p`: it is what `q` was short
    of, max(0, p - q), divided by its sum. `p` and `q` differ.

    >>> after_refusal([0.5, 0.25, 0.25], [0.25, 0.5, 0.25])
    [1.0, 0.0, 0.0]
    """
    raise NotImplementedError
