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
it impossible. The loss is the mean surprise over many positions;
[`minillm.training.loss`][] computes it.

>>> [round(-math.log(p), 2) for p in (1.0, 0.5, 0.01)]
[-0.0, 0.69, 4.61]

# How to get better: downhill

The loss is a smooth function of every weight. Its *gradient* says for each how the loss
would change if the weight grew a little; PyTorch computes it backwards through the
model at twice the cost of the pass forward ([`minillm.flops`][] counts it). So: take a
piece of text, compute the gradient, move every weight a little against it, repeat. How
little is the *learning rate*, here 0.1:

>>> w = torch.tensor(5.0, requires_grad=True)  # a "model" of one weight
>>> for _ in range(50):
...     loss = (w - 2) ** 2
...     (gradient,) = torch.autograd.grad(loss, w)
...     with torch.no_grad():
...         w -= 0.1 * gradient
>>> round(w.item(), 3)
2.0

Everything else in this chapter is about doing these four lines well: a better step
([`AdamW`][minillm.training.optimizer.AdamW]), of the right length at the right time
([`cosine_schedule`][minillm.training.optimizer.cosine_schedule]), never too long
([`clip_gradients`][minillm.training.optimizer.clip_gradients]).

[`train`][minillm.train.train] is the loop. Around it stand
[`minillm.training.distributed`][], which shares the work among machines, and
[`minillm.training.checkpoint`][], which keeps what a long training must not lose.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.model import TransformerLM
from minillm.training import distributed
from minillm.training.batches import check_ids, cut_pieces, draw_starts, get_batch
from minillm.training.checkpoint import load_checkpoint, read_extra, save_checkpoint
from minillm.training.loss import (
    Tokens,
    bits_per_byte,
    cross_entropy,
    evaluate,
    perplexity,
)
from minillm.training.loss_fast import cross_entropy_fast
from minillm.training.optimizer import AdamW, clip_gradients, cosine_schedule
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
    "evaluate",
    "get_batch",
    "load_checkpoint",
    "measure_peak_flops",
    "perplexity",
    "save_checkpoint",
    "train",
]

# Rises of the loss are judged by the mean of so many steps: one odd piece of text is
# no reason to stop.
SMOOTH = 20


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


class Trainer:
    r"""A model on its way through training, one step at a time.

    Everything that the next step depends on is in here, so that
    [`save`][minillm.train.Trainer.save] can write it down and
    [`load`][minillm.train.Trainer.load] go on as if nothing had happened.

    Args:
        model: the model, changed in place. It stays on the device where it is.
        tokens: the text as one row of ids.
        config: how to train.

    Attributes:
        model: the same model, as it was given: neither compiled nor distributed.
        config: how to train.
        done: how many steps are done.

    Raises:
        ValueError: if the text is too short for one piece or has an id that the model
            does not know, or a batch cannot be divided as it should.

    Examples:
        A batch too large for the memory goes through the model in parts. The gradients
        add up, and the step is the same:

        >>> import numpy as np
        >>> from minillm.config import ModelConfig
        >>> text, weights = np.arange(100) % 7, []
        >>> for parts in (1, 4):
        ...     _ = torch.manual_seed(0)
        ...     model = TransformerLM(ModelConfig(7, 8, 16, 1, 2)).double()
        ...     Trainer(model, text, TrainConfig(grad_accum=parts)).step().step
        ...     weights.append(model.lm_head.weight)
        1
        1
        >>> torch.allclose(*weights, rtol=1e-12)
        True
    """

    def __init__(
        self, model: TransformerLM, tokens: Tokens, config: TrainConfig
    ) -> None:
        check_ids(tokens, model.config.vocab_size)
        # What the first step would refuse is refused now.
        starts = draw_starts(
            len(tokens),
            config.batch_size,
            model.config.context_length,
            torch.Generator(),
        )
        distributed.share(starts, config.grad_accum)
        self.model, self.tokens, self.config = model, tokens, config
        self.device = next(model.parameters()).device
        weights = list(model.parameters())
        self.optimizer = AdamW(
            [
                {"params": [w for w in weights if w.ndim > 1]},
                {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
            ],
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        # What runs is the model in its wrappings; they put prefixes before the names of
        # the weights, so what is saved and examined is the model itself.
        forward: nn.Module = model
        if config.compile:
            forward = torch.compile(model)  # type: ignore[assignment]
        self.forward = distributed.wrap(forward)
        # Chance of its own: whatever else draws numbers, the pieces are the same.
        self.sampler = torch.Generator().manual_seed(config.seed)
        self.done, self.seconds = 0, 0.0
        self.losses: list[float] = []
        self.lowest = math.inf

    def step(self) -> Progress:
        """Take one step.

        Returns:
            What happened.

        Raises:
            FloatingPointError: if the loss is no longer a number, or has risen. The
                weights are then those after the step before.
        """
        start = time.perf_counter()
        c, step = self.config, self.done + 1
        lr = cosine_schedule(step, c.max_lr, c.min_lr, c.warmup_steps, c.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self._gradients()
        norm = clip_gradients(self.model.parameters(), c.max_norm)
        self._check(step, loss, norm)
        self.optimizer.step()
        self.done, self.seconds = step, self.seconds + time.perf_counter() - start
        return Progress(step, loss, lr, norm, self.seconds)

    def _gradients(self) -> float:
        """Compute the gradient of a batch, and return the loss."""
        c, context_length = self.config, self.model.config.context_length
        starts = draw_starts(
            len(self.tokens), c.batch_size, context_length, self.sampler
        )
        parts = distributed.share(starts, c.grad_accum)
        loss = torch.zeros((), device=self.device)
        self.optimizer.zero_grad()
        for i, part in enumerate(parts):
            inputs, targets = cut_pieces(self.tokens, part, context_length, self.device)
            with distributed.gather_gradients(self.forward, i == len(parts) - 1):
                # The mean of the whole batch is the mean of the means of its parts.
                part_loss = cross_entropy_fast(self._logits(inputs), targets)
                part_loss = part_loss / len(parts)
                part_loss.backward()
            loss = loss + part_loss.detach()
        return distributed.mean(loss).item()

    def _logits(
        self, inputs: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq vocab"]:
        if self.config.dtype == "float32":
            return self.forward(inputs)
        # Products are computed in 16 bits, and so are the logits; the loss adds them up
        # in 32.
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.forward(inputs)

    def _check(self, step: int, loss: float, norm: float) -> None:
        """Stop before a step that would spoil the weights."""
        advice = f"try a max_lr below {self.config.max_lr}"
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"at step {step} the loss is {loss} and the gradient {norm}: {advice}"
            )
        self.losses = [*self.losses, loss][-SMOOTH:]
        if len(self.losses) == SMOOTH:
            mean = fmean(self.losses)
            if mean > self.lowest + self.config.max_rise:
                raise FloatingPointError(
                    f"at step {step} the loss has risen: its mean over {SMOOTH} steps "
                    f"was {self.lowest:.3f} at best and is {mean:.3f} now: {advice}"
                )
            self.lowest = min(self.lowest, mean)

    def run(self, validation: Tokens | None = None) -> Iterator[Progress]:
        """Take all steps that are left, one for each turn of the caller's loop.

        Args:
            validation: another text, looked at every `eval_every` steps and after the
                last.

        Yields:
            What happened in each step.

        Raises:
            FloatingPointError: as `step`.
            ValueError: if the validation text has an id that the model does not know.
        """
        if validation is not None:
            validation = validation[: self.config.eval_tokens]
            check_ids(validation, self.model.config.vocab_size)
        self.model.train()
        while self.done < self.config.steps:
            progress = self.step()
            looks = self.done % self.config.eval_every == 0
            if validation is not None and (looks or self.done == self.config.steps):
                loss = evaluate(self.model, validation)
                progress = replace(progress, validation_loss=loss)
            yield progress
        self.model.eval()

    def save(self, path: Any, **extra: Any) -> None:
        """Write down everything that the next step depends on.

        Args:
            path: where to, for
                [`save_checkpoint`][minillm.training.checkpoint.save_checkpoint].
            **extra: more to keep.
        """
        chance = {"sampler": self.sampler.get_state(), "torch": torch.get_rng_state()}
        save_checkpoint(
            path,
            self.model,
            self.optimizer,
            self.done,
            chance={name: _hex(state) for name, state in chance.items()},
            seconds=self.seconds,
            losses=self.losses,
            # JSON has no infinity.
            lowest=None if math.isinf(self.lowest) else self.lowest,
            **extra,
        )

    def load(self, path: Any) -> dict[str, Any]:
        """Go on from where a checkpoint was written.

        Args:
            path: the checkpoint.

        Returns:
            All that was kept beside model and optimizer.

        Raises:
            ValueError: if the file is not a checkpoint of such a run.
        """
        extra = read_extra(path)
        if "chance" not in extra:
            raise ValueError(f"{path} is a checkpoint, but of no training run")
        try:
            chance = {name: _unhex(text) for name, text in extra["chance"].items()}
            losses = [float(loss) for loss in extra["losses"]]
            seconds = float(extra["seconds"])
            lowest = math.inf if extra["lowest"] is None else float(extra["lowest"])
            self.sampler.set_state(chance["sampler"])
            torch.set_rng_state(chance["torch"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = f"{error!r:.80}"
            raise ValueError(
                f"{path} is not a whole checkpoint ({reason}): use an earlier one"
            ) from error
        self.done = load_checkpoint(path, self.model, self.optimizer)
        self.losses, self.seconds, self.lowest = losses, seconds, lowest
        return extra


def _hex(state: Tensor) -> str:
    return state.numpy().tobytes().hex()


def _unhex(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


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
        FloatingPointError: if the loss is no longer a number, or has risen.
        ValueError: if the text is too short for one piece, or a text has an id that the
            model does not know.

    Examples:
        A text of two words that take turns is soon no surprise:

        >>> import numpy as np
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
    for progress in Trainer(model, tokens, config).run(validation):
        if report is not None:
            report(progress)


def measure_peak_flops(
    size: int | None = None,
    tries: int = 10,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> float:
    r"""How fast this machine multiplies matrices: the most that training can reach.

    Args:
        size: the matrices are `size` by `size`; `None` takes 1024 on a CPU, and 8192
            elsewhere, where less would not fill the device.
        tries: the fastest of so many products counts; the others were disturbed.
        dtype: the type of their numbers.
        device: where they are multiplied.

    Returns:
        FLOP per second; on a CPU with as many threads as PyTorch uses.
    """
    if size is None:
        size = 1024 if torch.device(device).type == "cpu" else 8192
    a = torch.randn(size, size).to(device, dtype)
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # a GPU has begun when `@` returns; `item` waits
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
