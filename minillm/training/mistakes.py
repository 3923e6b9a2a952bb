r"""Runs with one mistake each, for [`minillm.training.curves`][].

The loop is that of [`train_naive`][minillm.train.train_naive], on bytes, and each
mistake is one argument of a [`Case`][minillm.training.mistakes.Case]. All runs and
their three seeds take a few minutes: `python -m minillm.training.mistakes` writes them
to `images/data/curves.json`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from minillm.config import ModelConfig
from minillm.data import andersen, split
from minillm.files.reading import IMAGES
from minillm.files.writing import atomic_write
from minillm.model import TransformerLM
from minillm.training.baselines import KneserNey, unigram_loss
from minillm.training.batches import Tokens
from minillm.training.loss import cross_entropy_fast
from minillm.training.optimizer import (
    AdamW,
    clip_gradients,
    cosine_schedule,
    decay_matrices,
)

__all__ = ["CASES", "Case", "baselines", "record"]

SHAPE = ModelConfig(256, context_length=48, d_model=64, n_layers=2, n_heads=4)
"""The model of every run: its tokens are bytes."""
BATCH, STEPS = 8, 120
EVERY = 5
"""Steps in a point of the training curve; every second has a validation."""


@dataclass(frozen=True)
class Case:
    """A run, and what is wrong with it.

    Attributes:
        max_lr: the learning rate at the end of the warm-up.
        warmup_steps: how long the warm-up is.
        text: what is read: `"tales"`; `"few"`, a thousand bytes of them; `"leaky"`, the
            same and the validation text; `"two"`, tales and then as many bytes of
            numbers.
        in_order: whether the text is read from its beginning, over and over, instead of
            at random starts.
        shift: by how many positions the targets are ahead of the inputs.
        shown: whether the page shows it, or only names its numbers.
    """

    max_lr: float = 8e-3
    warmup_steps: int = 12
    text: str = "tales"
    in_order: bool = False
    shift: int = 1
    shown: bool = True


CASES = {
    "sound": Case(),
    "unshifted": Case(shift=0),
    "rate": Case(max_lr=0.1),
    "overfitting": Case(text="few"),
    "no warm-up": Case(max_lr=0.02, warmup_steps=0),
    "leak": Case(text="leaky"),
    "in order": Case(text="two", in_order=True),
    "shifted twice": Case(shift=2),
    # Not shown: what the two above that are compared with them would have done.
    "warm-up": Case(max_lr=0.02, shown=False),
    "shuffled": Case(text="two", shown=False),
}
"""The runs by name."""

# Bytes: of each half of a text of two sources, of a small text, of the held-out text.
SIZE, FEW, UNSEEN = 9_216, 1_000, 2_048


def texts(name: str) -> tuple[Tokens, Tokens]:
    """Make the training text and the validation text of a case.

    Args:
        name: which, see [`Case`][minillm.training.mistakes.Case].

    Returns:
        Both as bytes.
    """
    tales, unseen = (
        np.frombuffer("\n\n\n".join(part).encode(), np.uint8)
        for part in split(andersen())
    )
    unseen = unseen[:UNSEEN]
    if name == "few":
        return tales[:FEW], unseen
    if name == "leaky":
        return np.concatenate([tales[:FEW], unseen]), unseen
    if name == "two":
        random = Random(0)
        rows = [f"{random.randrange(10**6):06} | " for _ in range(SIZE // 9 + 1)]
        numbers = np.frombuffer("".join(rows).encode(), np.uint8)
        return np.concatenate([tales[:SIZE], numbers[:SIZE]]), unseen
    return tales, unseen


def batch(
    text: Tokens, case: Case, step: int, sampler: torch.Generator
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    """Read a batch, with the mistakes of a case.

    Args:
        text: the bytes.
        case: where to read, and how far the targets are ahead; 1 would be right.
        step: which step this is, from 1.
        sampler: of random starts.

    Returns:
        Inputs and targets.
    """
    n, last = SHAPE.context_length, len(text) - SHAPE.context_length - 2
    starts = torch.randint(last, (BATCH,), generator=sampler)
    if case.in_order:
        starts = ((step - 1) * BATCH + torch.arange(BATCH)) * n % last
    return _cut(text, starts.tolist(), case.shift)


def _cut(
    text: Tokens, starts: Sequence[int], shift: int
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    n = SHAPE.context_length
    rows = np.stack([text[start : start + n + 2] for start in starts])
    both = torch.from_numpy(rows.astype(np.int64))
    return both[:, :n], both[:, shift : shift + n]


def record(case: Case, seed: int, steps: int = STEPS) -> dict[str, list[list[float]]]:
    r"""Train a model, and record its losses.

    Args:
        case: how.
        seed: of weights and batches.
        steps: how many; fewer stop the same run early.

    Returns:
        `training` and `validation`: pairs of step and bits per byte. A point of the
        training curve is the mean over five batches.

    Examples:
        >>> curves = record(Case(), seed=0, steps=20)
        >>> [step for step, bits in curves["training"]], len(curves["validation"])
        ([3.0, 8.0, 13.0, 18.0], 2)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TransformerLM(SHAPE)
    sampler = torch.Generator().manual_seed(seed)
    text, unseen = texts(case.text)
    n = SHAPE.context_length
    probes = _cut(unseen, range(0, len(unseen) - n - 2, n), case.shift)
    optimizer = AdamW(decay_matrices(model, 0.3), betas=(0.9, 0.98))
    curves: dict[str, list[list[float]]] = {"training": [], "validation": []}
    losses: list[float] = []
    for step in range(1, steps + 1):
        inputs, targets = batch(text, case, step, sampler)
        loss = cross_entropy_fast(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(model.parameters(), 1.0)
        lr = cosine_schedule(step, case.max_lr, 0, case.warmup_steps, STEPS)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        losses.append(loss.item() / math.log(2))
        if step % EVERY == 0:
            point = [step - (EVERY - 1) / 2, round(fmean(losses[-EVERY:]), 3)]
            curves["training"].append(point)
        if step % (2 * EVERY) == 0:
            with torch.no_grad():
                nats = cross_entropy_fast(model(probes[0]), probes[1]).item()
            curves["validation"].append([step, round(nats / math.log(2), 3)])
    return curves


def baselines() -> dict[str, float]:
    """Count what a run has to beat.

    Returns:
        The losses of a unigram and of a bigram model, in bits per byte.
    """
    tales, unseen = texts("tales")
    losses = {
        "unigram": unigram_loss(tales, unseen, SHAPE.vocab_size),
        "bigram": KneserNey(tales, SHAPE.vocab_size, order=2).loss(unseen),
    }
    return {name: round(nats / math.log(2), 3) for name, nats in losses.items()}


if __name__ == "__main__":
    recorded = {n: [record(case, s) for s in range(3)] for n, case in CASES.items()}
    found = {"baselines": baselines(), "runs": recorded}
    with atomic_write(IMAGES / "data" / "curves.json") as file:
        file.write((json.dumps(found) + "\n").encode())
