r"""The production loop, learning from chats.

**The question.** [`Trainer`][minillm.training.loop.Trainer] learns from sequences of
one length, cut from anywhere in a text. A chat has a beginning, an end, and a length of
its own. What is a batch of chats, and what is its loss?

**Padding.** The chats of a micro-batch are padded at the end to the length of the
longest. A position sees only what is before it, so padding changes nothing for the rest
and needs no mask in the model; and no chat sees another. (The alternative, several
chats in one sequence, wastes less, and then attention has to be kept from crossing
between them.) A batch is put in order of length before it is divided, so that little is
padded.

**Whose mean?** Micro-batches of a text have equally many tokens, and the loss of a
batch is the mean of theirs. Here, one micro-batch may have ten tokens to learn and
another a thousand. A mean of means would count the ten as much as the thousand; for
years several libraries did. Each micro-batch is weighted by its share of the tokens
that the whole batch learns, so dividing a batch changes nothing:

>>> from minillm.config import ModelConfig
>>> from minillm.training.settings import TrainConfig
>>> random, weights = np.random.default_rng(0), []
>>> chats = [
...     (Example(random.integers(7, size=n), np.arange(n) > n // 2),)
...     for n in range(4, 12)
... ]
>>> for micro_batches in (1, 4):
...     _ = torch.manual_seed(0)
...     model = TransformerLM(ModelConfig(7, 12, 16, 1, 2)).double()
...     config = TrainConfig(batch_size=8, grad_accum=micro_batches)
...     _ = Tuner(model, chats, config).step()
...     weights.append(model.lm_head.weight)
>>> torch.allclose(*weights, rtol=1e-12)
True

**In which order?** A few hundred chats are read several times, and each as often as the
others: every pass over them goes in a new order, which follows from the seed and the
number of the pass. So an interrupted run knows where it was.

**The reference** of preferences is the model at the start. With thin layers that is the
same model without them ([`without_lora`][minillm.training.lora.without_lora]);
otherwise it is a copy, which takes as much memory as the weights. It reads each pair
whenever the model does: what it says is not kept, since in another batch, padded to
another length, the last bits could differ.

**Before this:** [`minillm.training.loop`][]. **Used by** [`minillm.runs.tune`][].
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from minillm.model import TransformerLM
from minillm.training import distributed
from minillm.training.batches import check_ids
from minillm.training.loop import Trainer
from minillm.training.loss import cross_entropy_fast
from minillm.training.preferences import dpo_loss
from minillm.training.settings import TrainConfig

__all__ = ["Example", "Tuner", "pad"]


class Example(NamedTuple):
    """One text to learn from.

    Attributes:
        ids: the text.
        mask: True on the tokens that are learned.
    """

    ids: NDArray[Any]
    mask: NDArray[Any]


Item = tuple[Example, ...]  # one to imitate; or two, of which the first is preferred
Reference = Callable[[], AbstractContextManager[TransformerLM]]


def pad(
    examples: Sequence[Example], device: str | torch.device = "cpu"
) -> tuple[
    Int[Tensor, "batch seq"], Int[Tensor, "batch seq"], Bool[Tensor, "batch seq"]
]:
    """Put texts of different lengths into one batch.

    Args:
        examples: the texts, each of at least two ids.
        device: where the result should be.

    Returns:
        Inputs and targets, padded at the end with zeros; and where a *target* is
        learned, never on padding.

    Examples:
        >>> a = Example(np.array([5, 6, 7]), np.array([False, True, True]))
        >>> b = Example(np.array([8, 9]), np.array([False, True]))
        >>> [x.tolist() for x in pad([a, b])]
        [[[5, 6], [8, 9]], [[6, 7], [9, 0]], [[True, True], [True, False]]]
    """
    width = max(len(e.ids) for e in examples)
    ids = np.zeros((len(examples), width), np.int64)
    mask = np.zeros(ids.shape, np.bool_)
    for row, e in enumerate(examples):
        ids[row, : len(e.ids)], mask[row, : len(e.ids)] = e.ids, e.mask
    batch = torch.from_numpy(ids).to(device)
    learned = torch.from_numpy(mask).to(device)
    return batch[:, :-1], batch[:, 1:], learned[:, 1:]


class Tuner(Trainer):
    r"""Same as [`Trainer`][minillm.training.loop.Trainer]; unlike it, from examples.

    Args:
        model: the model, changed in place.
        items: for each, one example to imitate; or two, of which the first is
            preferred.
        config: how to train.
        learned: the part of the model that learns; `None` for all of it.
        reference: opens the model as it was at the start; for preferences only.
        beta: $\beta$ of [`dpo_loss`][minillm.training.preferences.dpo_loss].

    Raises:
        ValueError: if an example does not fit into the context or teaches nothing, an
            id is unknown, or the batch cannot be divided.

    Examples:
        Two answers to one prompt. At the start the loss of the pair is $\ln 2$:

        >>> from contextlib import nullcontext
        >>> from copy import deepcopy
        >>> from minillm.config import ModelConfig
        >>> from minillm.training.settings import TrainConfig
        >>> model = TransformerLM(ModelConfig(7, 12, 16, 1, 2))
        >>> start = deepcopy(model)
        >>> mask = np.array([False, True, True])
        >>> pair = tuple(Example(np.array([5, i, 0]), mask) for i in (1, 2))
        >>> config = TrainConfig(batch_size=1, steps=50, max_lr=1e-2, warmup_steps=1)
        >>> tuner = Tuner(model, [pair], config, reference=lambda: nullcontext(start))
        >>> losses = [tuner.step().loss for _ in range(50)]
        >>> round(losses[0], 4), losses[-1] < 0.3
        (0.6931, True)
    """

    def __init__(
        self,
        model: TransformerLM,
        items: Sequence[Item],
        config: TrainConfig,
        learned: nn.Module | None = None,
        *,
        reference: Reference | None = None,
        beta: float = 0.1,
    ) -> None:
        self.reference, self.beta = reference, beta
        self.lengths = [max(len(e.ids) for e in item) for item in items]
        # Of a pair, each counts as much as any other, however long it is.
        self.weights = [
            1 if reference else int(item[0].mask[1:].sum()) for item in items
        ]
        super().__init__(model, items, config, learned)

    def check(self, tokens: Sequence[Item]) -> None:
        """Refuse what the model cannot read, or what teaches nothing.

        Args:
            tokens: the items.

        Raises:
            ValueError: if there is such an item.
        """
        most = self.model.config.context_length
        for item in tokens:
            for e in item:
                check_ids(e.ids, self.model.config.vocab_size)
                if len(e.ids) > most + 1 or not e.mask[1:].any():
                    raise ValueError(
                        f"an example has at most {most + 1} tokens here, and at least "
                        f"one that is learned; got {len(e.ids)} and {e.mask[1:].sum()}"
                    )

    def sample(self, generator: torch.Generator) -> Int[Tensor, " batch"]:
        """Choose the next items: pass after pass, each in an order of its own.

        Args:
            generator: not used; the order follows from the seed and the step.

        Returns:
            Which items, the short ones first.
        """
        n, size = len(self.tokens), self.config.batch_size
        positions = range(self.done * size, (self.done + 1) * size)
        order = {i: self._order(i) for i in {p // n for p in positions}}
        chosen = [int(order[p // n][p % n]) for p in positions]
        return torch.tensor(sorted(chosen, key=lambda i: (self.lengths[i], i)))

    def _order(self, epoch: int) -> Int[Tensor, " items"]:
        seed = self.config.seed * 1_000_003 + epoch
        chance = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.tokens), generator=chance)

    def loss(
        self, own: Int[Tensor, " part"], batch: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """Compute what a micro-batch contributes to the loss of its batch.

        Args:
            own: the items of the micro-batch.
            batch: those of the whole batch.

        Returns:
            The contribution; see [`Trainer.loss`][minillm.training.loop.Trainer.loss].
        """
        part, whole = (
            sum(self.weights[i] for i in some.tolist()) for some in (own, batch)
        )
        loss = self._loss(self.forward, [self.tokens[i] for i in own.tolist()])
        return loss * (part / whole * distributed.world_size())

    def _loss(self, model: nn.Module, items: Sequence[Item]) -> Float[Tensor, ""]:
        """The mean loss of some items."""
        if self.reference is None:
            inputs, targets, mask = pad([e for (e,) in items], self.device)
            logits = self.logits(model, inputs)
            # As `sft_loss`; unlike it, in float32 whatever the logits are.
            return cross_entropy_fast(logits[mask], targets[mask])
        # All that are chosen, then all that are rejected, in one pass.
        both = [item[0] for item in items] + [item[1] for item in items]
        chosen, rejected = self._log_probs(model, both).chunk(2)
        with torch.no_grad(), self.reference() as start:
            ref_chosen, ref_rejected = self._log_probs(start, both).chunk(2)
        return dpo_loss(chosen, rejected, ref_chosen, ref_rejected, self.beta)

    def _log_probs(
        self, model: nn.Module, examples: Sequence[Example]
    ) -> Float[Tensor, " batch"]:
        """The log-probability of what is learned of each example."""
        inputs, targets, mask = pad(examples, self.device)
        logits = self.logits(model, inputs)[mask]
        wide = torch.promote_types(logits.dtype, torch.float32)
        log_p = logits.log_softmax(-1, dtype=wide).gather(-1, targets[mask][:, None])
        return log_p.new_zeros(mask.shape).masked_scatter(mask, log_p).sum(1)

    def some(self, held_out: Sequence[Item]) -> Sequence[Item]:
        """Take as many items as have `eval_tokens` tokens, and at least one.

        Args:
            held_out: the items.

        Returns:
            The first of them.
        """
        n_tokens = np.cumsum([sum(len(e.ids) for e in item) for item in held_out])
        return held_out[: max(1, int((n_tokens <= self.config.eval_tokens).sum()))]

    @torch.no_grad()
    def evaluate(self, held_out: Sequence[Item]) -> float:
        """Compute the mean loss of what is held out.

        Args:
            held_out: the items, as `some` has taken them.

        Returns:
            Nats per learned token; for preferences, the mean loss of a pair.
        """
        ordered = sorted(held_out, key=lambda item: max(len(e.ids) for e in item))
        size = max(1, self.config.batch_size // self.config.grad_accum)
        total, weight = 0.0, 0
        for i in range(0, len(ordered), size):
            items = ordered[i : i + size]
            n = len(items)
            if self.reference is None:
                n = sum(int(e.mask[1:].sum()) for (e,) in items)
            total += self._loss(self.model, items).item() * n
            weight += n
        return total / weight
