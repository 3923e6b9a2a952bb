r"""What "good" means: the surprise at the text, as one number.

**The question.** Two models have read the same text. Which of them has learned more?

**Before this:** the model, whose scores say what it expects next. **Next:**
[`minillm.train`][] makes the number smaller.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from minillm.model import TransformerLM

__all__ = ["Tokens", "bits_per_byte", "cross_entropy", "evaluate", "perplexity"]

Tokens = NDArray[Any]
"""A row of token ids, in memory or memory-mapped from a file."""


def cross_entropy(
    logits: Float[Tensor, "*batch vocab"], targets: Int[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    r"""The mean surprise at the tokens that came, in nats.

    The probability of target $y$ is $p_y = e^{x_y} / \sum_j e^{x_j}$, and its surprise

    $$-\ln p_y = -\Bigl(x_y - \ln \sum_j e^{x_j}\Bigr).$$

    Args:
        logits: the scores $x$ of every token.
        targets: the tokens $y$ that came.

    Returns:
        The mean over all positions, a tensor without axes.

    Examples:
        Equal scores for four tokens: the surprise is $\ln 4$, whichever came.

        >>> round(cross_entropy(torch.zeros(1, 4), torch.tensor([2])).item(), 3)
        1.386
        >>> round(math.log(4), 3)
        1.386

        Computed as the formula stands, a score of 1000 would overflow. Taking the
        largest score out of the sum first, as `log_softmax` does, is exact:

        >>> scores = torch.tensor([[1000.0, 0.0]])
        >>> scores.exp().sum().log().item()
        inf
        >>> cross_entropy(scores, torch.tensor([1])).item()
        1000.0
    """
    # $x_j - \ln \sum_k e^{x_k}$ for every token $j$, and of these the one that came
    log_p = logits.log_softmax(dim=-1)
    return -log_p.gather(-1, targets.unsqueeze(-1)).mean()


def perplexity(loss: float) -> float:
    r"""How many equally likely tokens would surprise as much: $e^{\text{loss}}$.

    Args:
        loss: nats per token.

    Returns:
        The perplexity, 1 for a model that is always sure and right; infinity if the
        number is too large to be held.

    Examples:
        >>> round(perplexity(math.log(2048)))
        2048
    """
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> float:
    r"""The loss per byte of text, in bits: comparable across tokenizers.

    A tokenizer with longer tokens has fewer, and each is harder to guess, so losses
    and perplexities *per token* say nothing about two models with different tokenizers.
    Both must predict the same bytes, though:

    $$\text{bits per byte} = \frac{\text{loss} \cdot n_{\text{tokens}}}
    {\ln 2 \cdot n_{\text{bytes}}}$$

    It is also the size to which the model could compress the text, in bits for each
    byte of 8.

    Args:
        loss: nats per token.
        n_tokens: how many tokens were predicted.
        n_bytes: how many bytes of UTF-8 they stand for.

    Returns:
        Bits per byte.

    Raises:
        ValueError: if there are no bytes.

    Examples:
        Guessing among 256 bytes without any knowledge takes the full 8 bits. So does
        guessing among $256^2$ tokens of two bytes each, at twice the loss:

        >>> bits_per_byte(math.log(256), n_tokens=100, n_bytes=100)
        8.0
        >>> bits_per_byte(math.log(256**2), n_tokens=50, n_bytes=100)
        8.0
    """
    if n_bytes < 1:
        raise ValueError(f"n_bytes must be at least 1; got {n_bytes}")
    return loss * n_tokens / (math.log(2) * n_bytes)


@torch.inference_mode()
def evaluate(
    model: TransformerLM,
    tokens: Tokens,
    *,
    batch_size: int = 32,
    stride: int | None = None,
) -> float:
    r"""The loss over all of a text, each token but the first predicted exactly once.

    A text longer than the context is read in windows. Were they laid end to end, the
    first tokens of each would have to be guessed from almost nothing. So each window
    starts inside the one before, and only its last `stride` predictions count: after
    the first window, all of them have seen more than $T - \text{stride}$ tokens.

    Args:
        model: the model.
        tokens: the text as one row of ids, at least two.
        batch_size: how many windows are read at once.
        stride: how many new predictions each window makes; `None` for half of it.

    Returns:
        Nats per token.

    Raises:
        ValueError: if the text is too short, or the stride too short or too long.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> config = ModelConfig(100, 8, d_model=16, n_layers=1, n_heads=1)
        >>> model = TransformerLM(config)
        >>> round(evaluate(model, np.arange(100)), 1), round(math.log(100), 1)
        (4.6, 4.6)
    """
    context_length = model.config.context_length
    if stride is None:
        stride = max(1, context_length // 2)
    if len(tokens) < 2:
        raise ValueError(f"nothing to predict: the text has {len(tokens)} tokens")
    if not 0 < stride <= context_length:
        raise ValueError(
            f"stride must lie in 1 … {context_length}, the context; got {stride}"
        )
    device = next(model.parameters()).device
    total, n = 0.0, len(tokens) - 1
    # Prediction i is of token i + 1. Windows end at T, then every `stride` further on;
    # the last ends with the text. All but the first count from where the one before
    # it ended.
    ends = [*range(min(context_length, n), n, stride), n]
    froms = [0, *ends[:-1]]
    starts = [max(0, end - context_length) for end in ends]
    for i in range(0, len(ends), batch_size):
        chosen = slice(i, i + batch_size)
        pieces = [
            tokens[s : e + 1].astype(np.int64)
            for s, e in zip(starts[chosen], ends[chosen], strict=True)
        ]
        batch = torch.from_numpy(np.stack(pieces)).to(device)  # (B, T + 1)
        logits = model(batch[:, :-1]).float()
        x_y = logits.gather(-1, batch[:, 1:, None]).squeeze(-1)
        surprise = logits.logsumexp(dim=-1) - x_y  # (B, T)
        for row, s, f in zip(surprise, starts[chosen], froms[chosen], strict=True):
            total += row[f - s :].sum().item()
    return total / n
