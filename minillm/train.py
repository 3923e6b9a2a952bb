r"""Learning: how a million random numbers become a model of text.

>>> from minillm.train import *

**The question.** [`minillm.model`][] computes a logit for every possible next token
from about a million weights, and the weights are random. Which million numbers would
make it *good*, and how can they be found without trying them all?

**Before this:** the model, and a text as one long sequence of token ids, which
[`minillm.data`][] makes. **Next:** [`minillm.generate`][], which samples text from what
has been learned.

# What "good" means: cross-entropy

The text itself is the teacher. At every position the model assigns a probability to
every token, then sees which one occurred. This is *next-token prediction*. If that
token had the probability $p$, the model pays its *surprise*, $-\ln p$ (the *negative
log-likelihood*): nothing if it was certain, and without bound if it had called the
token impossible.

>>> import math
>>> [round(math.log(1 / p), 2) for p in (1.0, 0.5, 0.01)]
[0.0, 0.69, 4.61]

The mean surprise over many positions is the *cross-entropy*, the loss that training
makes small ([`minillm.training.loss`][]). A model that knows nothing gives each of $V$
tokens the probability $1/V$, so its loss is $\ln V$. A fresh one should start there. If
it starts far above, it is confidently wrong: check the initialization.

>>> import torch
>>> from minillm.config import ModelConfig
>>> from minillm.model import TransformerLM
>>> _ = torch.manual_seed(0)
>>> shape = ModelConfig(30, context_length=16, d_model=32, n_layers=1, n_heads=2)
>>> model = TransformerLM(shape)
>>> text = torch.randint(30, (400,)).numpy()  # 400 tokens of pure noise
>>> round(evaluate(model, text), 1), round(math.log(30), 1)
(3.4, 3.4)

# How to get better: downhill

The loss is a smooth function of every weight. Its *gradient* says for each weight how
the loss changes as the weight grows. *Backpropagation* computes it, going backwards
through the model from the loss to the first layer, at twice the cost of the forward
pass ([`minillm.flops`][] counts it). So: take some text, compute the gradient, move
every weight a little against it, repeat. The factor on the gradient is the *learning
rate*, the first of the *hyperparameters*: numbers that you choose and training does not
learn. With 0.1, a "model" of one weight finds the minimum of its loss:

>>> def descend(lr):
...     w = torch.tensor(5.0, requires_grad=True)
...     for _ in range(50):
...         loss = (w - 2) ** 2
...         (gradient,) = torch.autograd.grad(loss, w)
...         with torch.no_grad():
...             w -= lr * gradient
...     return w.item()
>>> round(descend(lr=0.1), 2)
2.0

With 0.001 the same 50 steps are not enough, and with 1.1 each step overshoots by more
than it corrects:

>>> round(descend(lr=0.001), 2), round(descend(lr=1.1), -3)
(4.71, 27000.0)

The demo has a million weights and half a million tokens to learn from, and more can go
wrong. Here is a small model, trained as it should be and with one mistake, and what it
reaches with three seeds: bits per byte, the lower the better
([`minillm.training.curves`][] shows the curves, and more mistakes).

>>> from minillm.training.curves import committed
>>> for name in ("sound", "in order", "warm-up", "no warm-up"):
...     ends = [run["validation"][-1][1] for run in committed()[name]]
...     print(f"{name:10} {min(ends):.2f} to {max(ends):.2f}")
sound      3.46 to 3.53
in order   4.49 to 5.07
warm-up    3.57 to 3.70
no warm-up 3.66 to 3.93

"In order" reads the text from its beginning instead of from anywhere. The last two have
a learning rate that is too high: begun gently, it does less harm. So a step of training
has four parts:

- a *batch* of sequences from anywhere in the text, since neighbours are alike
  ([`get_batch`][minillm.training.batches.get_batch]);
- *AdamW*, which gives each weight steps of a suitable size
  ([`minillm.training.descent`][] builds it in four steps from the lines above);
- a *learning-rate schedule*: a warm-up, then a decay
  ([`cosine_schedule`][minillm.training.optimizer.cosine_schedule]);
- *gradient clipping*, which brings the length of each gradient down to a limit
  ([`clip_gradients`][minillm.training.optimizer.clip_gradients]).

[`train_naive`][minillm.train.train_naive], below, puts them together in a dozen lines.

# What it learns, and what it only remembers

Train the fresh model on the noise above. There is nothing to learn: every token is
equally likely, whatever came before. The loss falls far below $\ln 30$ all the same:

>>> config = TrainConfig(steps=150, batch_size=16, max_lr=1e-2)
>>> losses = train_naive(model, text, config)
>>> losses[0] > 3.3, losses[-1] < 1.0
(True, True)

The model has memorized the 400 tokens. On other noise of the same kind it is now far
*worse* than a model that knows nothing:

>>> unseen = torch.randint(30, (400,)).numpy()
>>> evaluate(model, text) < 1.0, evaluate(model, unseen) > 5.0
(True, True)

This is *overfitting*, and it is why a loss on the training text proves nothing. Keep a
part of the text out of training, the *held-out* or *validation split*, and *evaluate*
on that ([`evaluate`][minillm.training.loss.evaluate]). How much a model memorizes
depends on its size and on the number of *epochs*, passes over the text. Here there were
many:

>>> tokens_read = config.steps * config.batch_size * shape.context_length
>>> tokens_read / len(text)
96.0

The demo makes about five passes; large models often make one. *Weight decay*, which
makes AdamW shrink every matrix a little at each step, helps against memorizing over
many epochs. In a single epoch there is little to memorize; there, weight decay acts on
the optimization instead: it keeps the weights small, and so the steps large in
proportion (D'Angelo et al. 2024, arXiv:2310.04415).

# Which losses can be compared

With the natural logarithm the loss is in *nats* per token. Such losses compare two
models only if both have the same tokenizer: longer tokens are fewer, and each is harder
to predict. *Bits per byte* divides the loss of the whole text, in bits, by its number
of bytes, which no tokenizer changes. *Perplexity*, $e$ to the loss, is the number of
equally likely tokens with the same loss:

>>> round(bits_per_byte(2.0, n_tokens=250, n_bytes=1000), 2)  # 4 bytes a token
0.72
>>> round(bits_per_byte(2.0, n_tokens=500, n_bytes=1000), 2)  # 2 bytes a token
1.44
>>> round(perplexity(math.log(30)), 6)
30.0

# What chance decides

Two things are random. The initial weights come from PyTorch's global random number
generator, which `torch.manual_seed` seeds. The batches come from a private one, seeded
with `TrainConfig.seed`, so they stay the same whatever else your program samples.
`minillm train --seed` and `minillm demo --seed` fix both. On one machine, with the same
number of threads, the same seeds give the same weights, to the last bit on a CPU.
Elsewhere they need not, since the order of additions differs.

# From here on

A real training run has to cope with large batches and several machines, and to survive
a power cut. The loop for that is [`Trainer`][minillm.training.loop.Trainer]; it takes
the same steps as the naive one, and a test holds the two equal.
[`TrainConfig`][minillm.training.settings.TrainConfig] lists the hyperparameters, and
[`minillm.training.baselines`][] says what a loss has to beat.
"""

from collections.abc import Callable

import torch

from minillm.model import TransformerLM
from minillm.training.batches import Tokens, get_batch
from minillm.training.checkpoint import load_checkpoint, read_extra, save_checkpoint
from minillm.training.loop import Progress, Trainer
from minillm.training.loss import (
    bits_per_byte,
    cross_entropy,
    evaluate,
    perplexity,
)
from minillm.training.optimizer import (
    AdamW,
    clip_gradients,
    cosine_schedule,
    decay_matrices,
)
from minillm.training.settings import TrainConfig

__all__ = [
    "AdamW",
    "Progress",
    "Tokens",
    "TrainConfig",
    "Trainer",
    "bits_per_byte",
    "clip_gradients",
    "cosine_schedule",
    "cross_entropy",
    "decay_matrices",
    "evaluate",
    "get_batch",
    "load_checkpoint",
    "perplexity",
    "read_extra",
    "save_checkpoint",
    "train",
    "train_naive",
]


def train_naive(
    model: TransformerLM, tokens: Tokens, config: TrainConfig
) -> list[float]:
    r"""Train a model on a text: the whole loop.

    Args:
        model: the model, changed in place, on the CPU.
        tokens: the text as one sequence of ids.
        config: the hyperparameters. Those of the production loop alone are ignored:
            `grad_accum`, `dtype`, `compile`, and when to evaluate or to stop.

    Returns:
        The loss of each step, in nats per token, before the weights move.

    Raises:
        ValueError: if the text is too short for one sequence.

    Examples:
        Two alternating tokens are soon predicted:

        >>> import numpy as np
        >>> from minillm.config import ModelConfig
        >>> _ = torch.manual_seed(0)
        >>> model = TransformerLM(ModelConfig(2, 8, d_model=16, n_layers=1, n_heads=1))
        >>> losses = train_naive(
        ...     model, np.array([0, 1] * 50), TrainConfig(steps=80, max_lr=0.01)
        ... )
        >>> round(losses[0], 1), losses[-1] < 0.1
        (0.7, True)
    """
    c, context_length = config, model.config.context_length
    sampler = torch.Generator().manual_seed(c.seed)
    optimizer = AdamW(decay_matrices(model, c.weight_decay), betas=c.betas)
    losses = []
    for step in range(1, c.steps + 1):
        inputs, targets = get_batch(
            tokens, c.batch_size, context_length, generator=sampler
        )
        loss = cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(model.parameters(), c.max_norm)
        for group in optimizer.param_groups:
            group["lr"] = cosine_schedule(
                step, c.max_lr, c.min_lr, c.warmup_steps, c.steps
            )
        optimizer.step()
        losses.append(loss.item())
    return losses


def train(
    model: TransformerLM,
    tokens: Tokens,
    config: TrainConfig,
    *,
    validation: Tokens | None = None,
    report: Callable[[Progress], None] | None = None,
) -> None:
    r"""Same result as [`train_naive`][minillm.train.train_naive].

    Unlike it: every setting counts, the model may be on any device, a held-out text is
    evaluated on the way, and a loss that rises or is not finite ends the training.

    Args:
        model: the model, changed in place. It stays on the device where it is.
        tokens: the text as one sequence of ids.
        config: the hyperparameters.
        validation: a held-out text, evaluated every `eval_every` steps and after the
            last.
        report: called after each step.

    Raises:
        FloatingPointError: if the loss is not finite, or has risen.
        ValueError: if the text is too short for one sequence, or a text has an id that
            the model does not know.

    Examples:
        >>> import numpy as np
        >>> from minillm.config import ModelConfig
        >>> _ = torch.manual_seed(0)
        >>> model = TransformerLM(ModelConfig(2, 8, d_model=16, n_layers=1, n_heads=1))
        >>> text, seen = np.array([0, 1] * 50), []
        >>> config = TrainConfig(steps=80, max_lr=0.01, eval_every=40)
        >>> train(model, text, config, validation=text, report=seen.append)
        >>> [p.step for p in seen if p.validation_loss is not None]
        [40, 80]
        >>> seen[-1].validation_loss < 0.1
        True
    """
    for progress in Trainer(model, tokens, config).run(validation):
        if report is not None:
            report(progress)
