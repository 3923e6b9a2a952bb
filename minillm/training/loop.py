r"""The production loop: what a training needs beyond its dozen lines.

**The question.** [`train_naive`][minillm.train.train_naive] is the whole of training,
as long as the batch fits into memory, one machine suffices, nothing goes wrong and
nobody pulls the plug. What does a loop need that runs for a week?

[`Trainer`][minillm.training.loop.Trainer] takes the same steps. Unlike the naive loop:

- *Gradient accumulation.* A batch too large for the memory goes through the model in
  *micro-batches*, whose gradients add up before the optimizer takes its one step.
- *Data parallelism.* Several processes share each batch and average their gradients
  ([`minillm.training.distributed`][]).
- *Mixed precision*: with `dtype="bf16"` the model computes in bfloat16
  ([`minillm.training.optimizer`][]).
- *Speed*: the loss has its gradient by hand, and `compile=True` has PyTorch fuse
  operations.
- *Early failure*: it stops before a step that would ruin the weights.
- *Resuming*: everything that the next step depends on can be saved and loaded again, so
  an interrupted run ends with the same weights as one that ran through.

What it learns from is a text, and its batches are sequences from anywhere in it. Five
short methods say so: what is refused, which sequences are in a batch, which loss they
have, what is evaluated, and how. [`minillm.training.tuner`][] replaces these five, and
learns from chats; all else is the same loop.

**Before this:** [`minillm.train`][]. **Next:** [`minillm.training.checkpoint`][].
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.model import TransformerLM
from minillm.training import distributed
from minillm.training.batches import check_ids, cut_sequences, sample_starts
from minillm.training.checkpoint import load_checkpoint, read_extra, save_checkpoint
from minillm.training.loss import cross_entropy_fast, evaluate
from minillm.training.optimizer import (
    AdamW,
    clip_gradients,
    cosine_schedule,
    decay_matrices,
)
from minillm.training.settings import TrainConfig

__all__ = ["Progress", "Trainer"]

# A rise of the loss is judged by the mean over this many steps: one odd batch is no
# reason to stop.
SMOOTH = 20


@dataclass(frozen=True)
class Progress:
    """What happened in one step.

    Attributes:
        step: how many steps are done.
        loss: nats per token, on this step's batch, before the step.
        lr: the learning rate.
        gradient_norm: the gradient norm before clipping.
        seconds: spent in training steps so far.
        validation_loss: nats per token on the validation text, after the step; `None`
            if it was not evaluated.
    """

    step: int
    loss: float
    lr: float
    gradient_norm: float
    seconds: float
    validation_loss: float | None = None


class Trainer:
    r"""A model in training, one step at a time.

    Everything that the next step depends on is in here, so that
    [`save`][minillm.training.loop.Trainer.save] can write it to a file and
    [`load`][minillm.training.loop.Trainer.load] go on as if nothing had happened.

    Args:
        model: the model, changed in place. It stays on the device where it is.
        tokens: the text as one sequence of ids.
        config: how to train.
        learned: the part of the model that learns, and that checkpoints hold; `None`
            for all of it.

    Attributes:
        model: the same model, as it was given: neither compiled nor distributed.
        learned: the part that learns.
        config: how to train.
        done: how many steps are done.

    Raises:
        ValueError: if the text is too short for one sequence or has an id that the
            model does not know (of a memory-mapped text, each step checks the ids that
            it reads), or the batch cannot be divided into equal micro-batches.

    Examples:
        Gradient accumulation: four micro-batches of one sequence make the same step as
        one batch of four.

        >>> import numpy as np
        >>> import torch
        >>> from minillm.config import ModelConfig
        >>> from minillm.model import TransformerLM
        >>> from minillm.training.settings import TrainConfig
        >>> text, weights = np.arange(100) % 7, []
        >>> for micro_batches in (1, 4):
        ...     _ = torch.manual_seed(0)
        ...     model = TransformerLM(ModelConfig(7, 8, 16, 1, 2)).double()
        ...     config = TrainConfig(batch_size=4, grad_accum=micro_batches)
        ...     Trainer(model, text, config).step().step
        ...     weights.append(model.lm_head.weight)
        1
        1
        >>> torch.allclose(*weights, rtol=1e-12)
        True
    """

    def __init__(
        self,
        model: TransformerLM,
        tokens: Any,
        config: TrainConfig,
        learned: nn.Module | None = None,
    ) -> None:
        self.model, self.tokens, self.config = model, tokens, config
        self.learned = model if learned is None else learned
        self.device = next(model.parameters()).device
        self.done, self.seconds = 0, 0.0
        self.losses: list[float] = []
        self.lowest = math.inf
        # What the first step would refuse is refused now.
        self.check(tokens)
        distributed.share(self.sample(torch.Generator()), config.grad_accum)
        groups = decay_matrices(self.learned, config.weight_decay)
        self.optimizer = AdamW(groups, betas=config.betas)
        # What runs is the wrapped model; wrapping puts prefixes before the names of the
        # weights, so what is saved and evaluated is the model itself.
        forward: Any = torch.compile(model) if config.compile else model
        self.forward = distributed.wrap(forward)
        # A private random number generator: the batches stay the same, whatever else
        # the program samples.
        self.sampler = torch.Generator().manual_seed(config.seed)

    def check(self, tokens: Any) -> None:
        """Refuse what the model cannot read.

        Args:
            tokens: what it shall learn from, or be evaluated on.

        Raises:
            ValueError: if there is an id that it does not know.
        """
        check_ids(tokens, self.model.config.vocab_size)

    def sample(self, generator: torch.Generator) -> Int[Tensor, " batch"]:
        """Choose what the next batch consists of.

        Args:
            generator: the random number generator.

        Returns:
            Where each sequence of the whole batch begins.
        """
        return sample_starts(
            len(self.tokens),
            self.config.batch_size,
            self.model.config.context_length,
            generator,
        )

    def loss(
        self, own: Int[Tensor, " part"], batch: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """Compute what a micro-batch contributes to the loss of its batch.

        Args:
            own: the sequences of the micro-batch.
            batch: those of the whole batch.

        Returns:
            The contribution. Those of one process add up to a loss, whose mean over all
            processes is the loss of the batch.
        """
        shape = self.model.config
        inputs, targets = cut_sequences(
            self.tokens, own, shape.context_length, self.device, shape.vocab_size
        )
        # The mean of a batch is the mean of the means of equal parts.
        loss = cross_entropy_fast(self.logits(self.forward, inputs), targets)
        return loss / self.config.grad_accum

    def evaluate(self, held_out: Any) -> float:
        """Compute the loss on what is held out.

        Args:
            held_out: a text, or what else the trainer learns from.

        Returns:
            Nats per token.
        """
        return evaluate(self.model, held_out)

    def step(self) -> Progress:
        """Take one step.

        Returns:
            What happened.

        Raises:
            FloatingPointError: if the loss is not finite, or has risen. The weights are
                then those after the step before.
            ValueError: if the batch has an id that the model does not know.
        """
        start = time.perf_counter()
        c, step = self.config, self.done + 1
        lr = cosine_schedule(step, c.max_lr, c.min_lr, c.warmup_steps, c.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self._gradients()
        norm = clip_gradients(self.learned.parameters(), c.max_norm)
        self._check(step, loss, norm)
        self.optimizer.step()
        self.done, self.seconds = step, self.seconds + time.perf_counter() - start
        return Progress(step, loss, lr, norm, self.seconds)

    def _gradients(self) -> float:
        """Compute the gradient of a batch, and return the loss."""
        batch = self.sample(self.sampler)
        micro_batches = distributed.share(batch, self.config.grad_accum)
        loss = torch.zeros((), device=self.device)
        self.optimizer.zero_grad()
        for i, own in enumerate(micro_batches, 1):
            last = i == len(micro_batches)
            with distributed.average_gradients(self.forward, last):
                part = self.loss(own, batch)
                part.backward()
            loss = loss + part.detach()
        return distributed.mean(loss).item()

    def logits(
        self, model: nn.Module, inputs: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq vocab"]:
        """Compute logits in the precision of this training.

        Args:
            model: the model, wrapped or not.
            inputs: the sequences.

        Returns:
            The logits.
        """
        if self.config.dtype == "float32":
            return model(inputs)
        # Matrix products, and with them the logits, are bf16; the loss is float32.
        with torch.autocast(self.device.type, torch.bfloat16):
            return model(inputs)

    def _check(self, step: int, loss: float, norm: float) -> None:
        """Stop before a step that would ruin the weights."""
        advice = f"try a max_lr below {self.config.max_lr}"
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"at step {step} the loss is {loss} and the gradient norm {norm}: "
                f"{advice}"
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

    def some(self, held_out: Any) -> Any:
        """Take as much of what is held out as an evaluation shall read.

        Args:
            held_out: a text, or what else the trainer learns from.

        Returns:
            The beginning of it, of `eval_tokens` tokens.
        """
        return np.asarray(held_out[: self.config.eval_tokens])

    def run(self, validation: Any = None) -> Iterator[Progress]:
        """Take all steps that are left, one for each turn of the caller's loop.

        Args:
            validation: a held-out text, evaluated every `eval_every` steps and after
                the last.

        Yields:
            What happened in each step.

        Raises:
            FloatingPointError: as `step`.
            ValueError: as `step`, or if the validation text has an id that the model
                does not know.
        """
        if validation is not None:
            validation = self.some(validation)
            self.check(validation)
        self.model.train()
        while self.done < self.config.steps:
            progress = self.step()
            due = self.done % self.config.eval_every == 0
            if validation is not None and (due or self.done == self.config.steps):
                loss = self.evaluate(validation)
                progress = replace(progress, validation_loss=loss)
            yield progress
        self.model.eval()

    def save(self, path: Any, **extra: Any) -> None:
        """Write everything that the next step depends on to a checkpoint.

        Args:
            path: where to, for
                [`save_checkpoint`][minillm.training.checkpoint.save_checkpoint].
            **extra: more to keep.
        """
        states = {"sampler": self.sampler.get_state(), "torch": torch.get_rng_state()}
        save_checkpoint(
            path,
            self.learned,
            self.optimizer,
            self.done,
            chance={name: _hex(state) for name, state in states.items()},
            seconds=self.seconds,
            losses=self.losses,
            # JSON has no infinity.
            lowest=None if math.isinf(self.lowest) else self.lowest,
            **extra,
        )

    def load(self, path: Any) -> dict[str, Any]:
        """Go on from a checkpoint.

        Args:
            path: the checkpoint.

        Returns:
            All that was saved beside model and optimizer.

        Raises:
            ValueError: if the file is not a checkpoint of such a run.
        """
        extra = read_extra(path)
        if "chance" not in extra:
            raise ValueError(f"{path} is a checkpoint, but of no training run")
        try:
            states = {name: _unhex(text) for name, text in extra["chance"].items()}
            losses = [float(loss) for loss in extra["losses"]]
            seconds = float(extra["seconds"])
            lowest = math.inf if extra["lowest"] is None else float(extra["lowest"])
            self.sampler.set_state(states["sampler"])
            torch.set_rng_state(states["torch"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = f"{error!r:.80}"
            raise ValueError(
                f"{path} is not a whole checkpoint ({reason}): use an earlier one"
            ) from error
        self.done = load_checkpoint(path, self.learned, self.optimizer)
        self.losses, self.seconds, self.lowest = losses, seconds, lowest
        return extra


def _hex(state: Tensor) -> str:
    return state.numpy().tobytes().hex()


def _unhex(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
