r"""Cross-entropy: how good a model is, as one number.

**The question.** Two models have read the same text. Which of them has learned more?

**Before this:** the model, whose logits say what it expects next. **Next:**
[`minillm.training.baselines`][] says which number is a good one.

# From a probability to a loss

A language model assigns a probability to every token, then sees which one occurred. If
that token had the probability $p$, the model pays $-\ln p$: the *negative
log-likelihood*, or *surprise*. The mean over all positions is the *cross-entropy*, and
it is the loss of this course. With the natural logarithm its unit is the *nat*.

# The gradient, by hand

In a small model the loss takes a part of the time that counts: there are $V$ logits at
every position, and automatic differentiation passes over all of them many times. You
know [from the tape][minillm.training.layers.cross_entropy] what it comes to for the
target $y$: $p - \mathbf 1_y$, the probabilities that the model gave, minus those that
would have been right, 1 at $y$ and 0 elsewhere. This is what learning does to the
logits: each is pushed down by the probability it claimed, and only that of the target
is pushed up.

>>> import math, torch
>>> logits = torch.zeros(1, 4, requires_grad=True)  # a quarter for each of four tokens
>>> cross_entropy_fast(logits, torch.tensor([2])).backward()
>>> logits.grad.tolist()
[[0.25, 0.25, -0.75, 0.25]]
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from minillm.model import TransformerLM
from minillm.training.batches import Tokens, check_ids

__all__ = [
    "bits_per_byte",
    "cross_entropy",
    "cross_entropy_fast",
    "evaluate",
    "perplexity",
]


def cross_entropy(
    logits: Float[Tensor, "*batch vocab"], targets: Int[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    r"""The mean negative log-likelihood of the targets, in nats.

    The probability of target $y$ is $p_y = e^{x_y} / \sum_j e^{x_j}$, so

    $$-\ln p_y = -\Bigl(x_y - \ln \sum_j e^{x_j}\Bigr).$$

    Args:
        logits: $x$, one number for every token of the vocabulary.
        targets: $y$, the tokens that occurred.

    Returns:
        The mean over all positions, a tensor without axes.

    Examples:
        With equal logits for four tokens the loss is $\ln 4$, whatever the target:

        >>> round(cross_entropy(torch.zeros(1, 4), torch.tensor([2])).item(), 3)
        1.386
        >>> round(math.log(4), 3)
        1.386

        Computed as the formula stands, a logit of 1000 would overflow. Taking the
        largest logit out of the sum first, as `log_softmax` does, is exact:

        >>> logits = torch.tensor([[1000.0, 0.0]])
        >>> logits.exp().sum().log().item()
        inf
        >>> cross_entropy(logits, torch.tensor([1])).item()
        1000.0
    """
    # $x_j - \ln \sum_k e^{x_k}$ for every token $j$, and of these the target's
    log_p = logits.log_softmax(dim=-1)
    return -log_p.gather(-1, targets.unsqueeze(-1)).mean()


class _CrossEntropy(torch.autograd.Function):
    """The loss, with one table kept for its gradient and no other."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        # Logits may be in low precision; sums over the vocabulary need float32.
        wide = torch.promote_types(logits.dtype, torch.float32)
        rows = logits.reshape(-1, logits.shape[-1])
        table = rows.log_softmax(dim=-1, dtype=wide)  # (B T, V)
        y = targets.reshape(-1, 1)
        loss = -table.gather(1, y).mean()
        # $p_j - [j = y]$, in the memory of the logarithms
        table.exp_().scatter_add_(1, y, table.new_full(y.shape, -1.0))
        ctx.save_for_backward(table)
        ctx.shape, ctx.dtype = logits.shape, logits.dtype
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (table,) = ctx.saved_tensors
        # In place again. PyTorch notices if the gradient is asked for a second time.
        table.mul_(gradient / len(table))
        return table.to(ctx.dtype).view(ctx.shape), None


def cross_entropy_fast(
    logits: Float[Tensor, "*batch vocab"], targets: Int[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    r"""Same result as [`cross_entropy`][minillm.training.loss.cross_entropy].

    Unlike it: the gradient is the formula above, computed in the memory of the
    logarithms, so it can be asked for only once and has no second derivative; and for
    16-bit logits the loss is float32.

    Args:
        logits: as for `cross_entropy`.
        targets: as for `cross_entropy`.

    Returns:
        The mean over all positions, a tensor without axes.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(2, 3, 50, generator=generator).double().requires_grad_()
        >>> y = torch.randint(50, (2, 3), generator=generator)
        >>> (naive,) = torch.autograd.grad(cross_entropy(x, y), x)
        >>> (fast,) = torch.autograd.grad(cross_entropy_fast(x, y), x)
        >>> torch.allclose(naive, fast, rtol=1e-12)
        True
        >>> cross_entropy_fast(x.bfloat16(), y).dtype
        torch.float32
    """
    # PyTorch does not annotate `apply`.
    return _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]


def perplexity(loss: float) -> float:
    r"""The number of equally likely tokens with the same loss: $e^{\text{loss}}$.

    Args:
        loss: nats per token.

    Returns:
        The perplexity: 1 for a model that is always sure and right, infinity if the
        number is too large for a float.

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

    A tokenizer with longer tokens makes fewer of them, and each is harder to predict,
    so losses and perplexities *per token* cannot be compared between models with
    different tokenizers. But all must predict the same bytes:

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

    A text longer than the context is read in windows. Laid end to end, each would
    predict its first tokens from almost no context. So windows overlap, and only the
    last `stride` predictions of each count: after the first window, every prediction
    that counts has a context of more than $T - \text{stride}$ tokens.

    Args:
        model: the model.
        tokens: the text as one sequence of ids, at least two.
        batch_size: how many windows are read at once.
        stride: how many new predictions each window makes; `None` for half of it.

    Returns:
        Nats per token.

    Raises:
        ValueError: if the text is too short or not the model's, or the stride too
            short or too long.

    Examples:
        >>> import numpy as np
        >>> from minillm.config import ModelConfig
        >>> from minillm.model import TransformerLM
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
            tokens[s : e + 1] for s, e in zip(starts[chosen], ends[chosen], strict=True)
        ]
        windows = np.stack(pieces)
        check_ids(windows, model.config.vocab_size)
        batch = torch.from_numpy(windows.astype(np.int64)).to(device)  # (B, T + 1)
        logits = model(batch[:, :-1]).float()
        x_y = logits.gather(-1, batch[:, 1:, None]).squeeze(-1)
        nll = logits.logsumexp(dim=-1) - x_y  # (B, T)
        for row, s, f in zip(nll, starts[chosen], froms[chosen], strict=True):
            total += row[f - s :].sum().item()
    return total / n
