r"""Learning: how a pile of random numbers becomes a model of text.

**The question.** [`minillm.model`][] computes a score for every possible next token
from about a million weights, and the weights are random. Which million numbers would
make it *good*, and how can they be found without trying?

**Before this:** the model, and [`minillm.data`][], which turns text into one long row
of token ids. **Next:** [`minillm.generate`][] draws text from what has been learned.

# What "good" means: surprise

The text itself is the teacher. At every position the model spreads a probability of one
over all tokens, and then sees which came. If it gave that token the probability $p$,
its *surprise* is $-\ln p$: nothing if it was sure, and without bound if it had called
it impossible. The loss is the mean surprise over many positions.

>>> [round(-math.log(p), 2) for p in (1.0, 0.5, 0.01)]
[-0.0, 0.69, 4.61]

# How to get better: downhill

The loss is a smooth function of every weight. Its *gradient* says for each how the loss
would change if the weight grew a little; PyTorch computes it backwards through the
model at twice the cost of the pass forward ([`minillm.flops`][] counts it). So: take a
piece of text, compute the gradient, move every weight a little against it, repeat.

>>> w = torch.tensor(5.0, requires_grad=True)  # a "model" of one weight
>>> for _ in range(50):
...     loss = (w - 2) ** 2
...     (gradient,) = torch.autograd.grad(loss, w)
...     with torch.no_grad():
...         w -= 0.1 * gradient
>>> round(w.item(), 3)
2.0

Everything else in this chapter is about doing these four lines well: a better step
([`AdamW`][minillm.optimizer.AdamW]), of the right length at the right time
([`cosine_schedule`][minillm.optimizer.cosine_schedule]), never too long
([`clip_gradients`][minillm.optimizer.clip_gradients]).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from minillm.checkpoint import load_checkpoint, save_checkpoint
from minillm.model import TransformerLM
from minillm.optimizer import AdamW, clip_gradients, cosine_schedule

__all__ = [
    "AdamW",
    "Progress",
    "TrainConfig",
    "bits_per_byte",
    "clip_gradients",
    "cosine_schedule",
    "cross_entropy",
    "evaluate",
    "get_batch",
    "load_checkpoint",
    "measure_peak_flops",
    "perplexity",
    "save_checkpoint",
    "train",
]

# A row of token ids, in memory or memory-mapped from a file.
Tokens = NDArray[Any]


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
        The perplexity, 1 for a model that is always sure and right.

    Examples:
        >>> round(perplexity(math.log(2048)))
        2048
    """
    return math.exp(loss)


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


def get_batch(
    tokens: Tokens,
    batch_size: int,
    context_length: int,
    device: str | torch.device = "cpu",
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    r"""Cut some pieces out of the text, each with its continuation.

    One piece of $T + 1$ tokens gives $T$ lessons at once: at each of its positions,
    what comes next. So the targets are the inputs, one step later.

    Args:
        tokens: the text as one row of ids. A memory-mapped file will do: only the
            pieces are read.
        batch_size: $B$, how many pieces.
        context_length: $T$, how long each.
        device: where the result should be.
        generator: where the chance comes from; `None` for PyTorch's own.

    Returns:
        Inputs and targets, both int64.

    Raises:
        ValueError: if the text is not longer than one piece.

    Examples:
        >>> tokens = np.arange(100, dtype=np.uint16)
        >>> inputs, targets = get_batch(tokens, batch_size=2, context_length=5)
        >>> inputs.shape, torch.equal(targets, inputs + 1)
        (torch.Size([2, 5]), True)
    """
    if len(tokens) <= context_length:
        raise ValueError(
            f"a piece takes context_length + 1 = {context_length + 1} tokens; the text "
            f"has {len(tokens)}: bring more text or choose a shorter context"
        )
    # The last start that leaves room for the last target is len - T - 1.
    starts = torch.randint(
        len(tokens) - context_length, (batch_size,), generator=generator
    ).numpy()
    pieces = np.stack([tokens[s : s + context_length + 1] for s in starts])
    batch = torch.from_numpy(pieces.astype(np.int64)).to(device)  # (B, T + 1)
    # Each in memory of its own, so that `view` can flatten it.
    return batch[:, :-1].contiguous(), batch[:, 1:].contiguous()


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


@dataclass(frozen=True)
class TrainConfig:
    r"""How to train; the shape of the model is in its own configuration.

    The defaults train a million parameters on two CPU cores in about two minutes.

    Args:
        steps: how many steps.
        batch_size: $B$, pieces of text in a step.
        max_lr: the learning rate at the end of the warm-up.
        min_lr: the learning rate of the last step.
        warmup_steps: how long the rate rises.
        betas: see [`AdamW`][minillm.optimizer.AdamW].
        weight_decay: the pull towards zero, on matrices only: a gain of RMSNorm that is
            pulled to zero would silence its layer.
        max_norm: see [`clip_gradients`][minillm.optimizer.clip_gradients].
        eval_every: how many steps lie between two looks at the validation text.
        seed: fixes which pieces of text are drawn.

    Raises:
        ValueError: if a number is out of its range.

    Examples:
        >>> TrainConfig(steps=0)
        Traceback (most recent call last):
        ValueError: steps must be at least 1; got 0
    """

    steps: int = 1400
    batch_size: int = 8
    max_lr: float = 3e-3
    min_lr: float = 0.0
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    max_norm: float = 1.0
    eval_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_every"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1; got {getattr(self, name)}"
                )
        for name in ("max_lr", "max_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")
        for name in ("min_lr", "warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more; got {getattr(self, name)}")


@dataclass(frozen=True)
class Progress:
    """What happened in one step of [`train`][minillm.train.train].

    Attributes:
        step: how many steps are done.
        loss: nats per token, on this step's batch, before the step.
        lr: the learning rate.
        gradient_norm: the length of the gradient before clipping.
        seconds: spent in training steps so far.
        validation_loss: nats per token on the validation text, after the step; `None`
            if nobody looked.
    """

    step: int
    loss: float
    lr: float
    gradient_norm: float
    seconds: float
    validation_loss: float | None = None


def train(
    model: TransformerLM,
    tokens: Tokens,
    config: TrainConfig,
    *,
    validation: Tokens | None = None,
    report: Callable[[Progress], None] | None = None,
) -> None:
    r"""Train a model on a text: the loop.

    Args:
        model: the model, changed in place. It stays on the device where it is.
        tokens: the text as one row of ids.
        config: how to train.
        validation: another text, looked at every `eval_every` steps and after the last.
        report: called after each step.

    Raises:
        FloatingPointError: if the loss is no longer a number.
        ValueError: if the text is too short for one piece, or a text has an id that the
            model does not know.

    Examples:
        A text of two words that take turns is soon no surprise:

        >>> from minillm.config import ModelConfig
        >>> _ = torch.manual_seed(0)
        >>> model = TransformerLM(ModelConfig(2, 8, d_model=16, n_layers=1, n_heads=1))
        >>> text = np.array([0, 1] * 50)
        >>> round(evaluate(model, text), 1), round(math.log(2), 1)
        (0.7, 0.7)
        >>> train(model, text, TrainConfig(steps=40, warmup_steps=5, max_lr=0.02))
        >>> evaluate(model, text) < 0.2
        True
    """
    vocab_size, context_length = model.config.vocab_size, model.config.context_length
    for text in (tokens, validation):
        if text is not None and len(text) and (largest := text.max()) >= vocab_size:
            raise ValueError(
                f"the model knows the ids 0 to {vocab_size - 1}; the text has "
                f"{largest}: tokenize it with the model's own tokenizer"
            )
    device = next(model.parameters()).device
    random = torch.Generator().manual_seed(config.seed)
    weights = list(model.parameters())
    optimizer = AdamW(
        [
            {"params": [w for w in weights if w.ndim > 1]},
            {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
        ],
        betas=config.betas,
        weight_decay=config.weight_decay,
    )
    model.train()
    seconds = 0.0
    for step in range(1, config.steps + 1):
        start = time.perf_counter()
        lr = cosine_schedule(
            step, config.max_lr, config.min_lr, config.warmup_steps, config.steps
        )
        for group in optimizer.param_groups:
            group["lr"] = lr
        inputs, targets = get_batch(
            tokens, config.batch_size, context_length, device, random
        )
        loss = cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        norm = clip_gradients(weights, config.max_norm)
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"at step {step} the loss is {loss.item()} and the gradient {norm}: "
                f"try a max_lr below {config.max_lr}"
            )
        optimizer.step()
        seconds += time.perf_counter() - start
        looked = None
        if validation is not None and (
            step % config.eval_every == 0 or step == config.steps
        ):
            looked = evaluate(model, validation)
        if report is not None:
            report(Progress(step, loss.item(), lr, norm, seconds, looked))
    model.eval()


def measure_peak_flops(size: int = 1024, tries: int = 10) -> float:
    r"""How fast this machine multiplies matrices: the most that training can reach.

    Args:
        size: the matrices are `size` by `size`.
        tries: the fastest of so many products counts; the others were disturbed.

    Returns:
        FLOP per second, in float32, with as many threads as PyTorch uses.
    """
    a = torch.randn(size, size)
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
