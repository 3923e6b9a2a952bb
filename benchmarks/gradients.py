"""How much slower than PyTorch is a tape in NumPy?

    python -m benchmarks.gradients [PART ...] [--turns N] [--quick] [--cpu]

The model, its weights and the batch are the same; forward and backward pass are timed,
without the optimizer.
"""

import gc
from collections import defaultdict
from collections.abc import Callable
from unittest import mock

import numpy as np
import torch

from benchmarks.command import main
from benchmarks.measure import Part, Record
from benchmarks.shapes import QUICK, SIZES, Size, text
from minillm.flops import training_memory
from minillm.model import TransformerLM
from minillm.training.by_hand import by_autograd, by_tape, forward, on_tape
from minillm.training.kept import held
from minillm.training.layers import cross_entropy

Batch = tuple[np.ndarray, np.ndarray]


def _sizes(record: Record) -> dict[str, Size]:
    return QUICK if record.quick else {"demo": SIZES["demo"]}


def _ready(size: Size) -> tuple[TransformerLM, Batch]:
    torch.manual_seed(0)
    model, length = TransformerLM(size.shape), size.shape.context_length
    cut = text(size.shape)[: size.batch_size * (length + 1)].astype(np.int64)
    ids = cut.reshape(size.batch_size, length + 1)
    return model, (ids[:, :-1].copy(), ids[:, 1:].copy())


def pass_(record: Record) -> None:
    """Compute the loss of a batch and all gradients, by the tape and by PyTorch's.

    PyTorch runs eagerly, in float32 and with its fused attention.
    """
    for name, size in _sizes(record).items():
        model, batch = _ready(size)
        found = record.take_turns(
            {
                "tape": lambda: by_tape(model, *batch),
                "PyTorch": lambda: by_autograd(model, *batch),
            },
            40,
        )
        record.row(
            *(name, found["tape"], "PyTorch, eager", found["PyTorch"]),
            target=("ratio >=", 0.17),
        )


def operations(record: Record) -> None:
    """Ask where the tape spends its time: matrix products, or all else.

    Given as the share of a pass that is spent in NumPy's `matmul`.
    """
    for name, size in _sizes(record).items():
        model, batch = _ready(size)
        shares = []
        for _ in range(2 + record.turns(20)):
            spent: dict[str, float] = defaultdict(float)
            with mock.patch.object(np, "matmul", _timed(record, spent)):
                whole = record.seconds(by_tape, model, *batch)
            shares.append(100 * spent["matmul"] / whole)
        record.row(f"{name}, matrix products", shares[2:], unit="%")


def _timed(record: Record, spent: dict[str, float]) -> Callable[..., np.ndarray]:
    product = np.matmul

    def timed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        start = record.clock()
        z = product(x, y)
        spent["matmul"] += record.clock() - start
        return z

    return timed


def memory(record: Record) -> None:
    """Count what the tape keeps for the backward pass, in megabytes.

    Beside it stands what the formula of `training_memory` expects: attention written
    out, each norm differentiated as a whole.
    """
    for name, size in _sizes(record).items():
        model, (inputs, targets) = _ready(size)
        weights = on_tape(model)
        loss = cross_entropy(forward(weights, size.shape, inputs), targets)
        kept = sum(held([("all", loss)], weights).values())
        predicted = training_memory(
            size.shape, *inputs.shape, fused_attention=False, fused_norms=True
        )
        record.row(
            *(name, [kept / 1e6], "the formula", [predicted.activations / 1e6]),
            unit="MB",
            target=("ratio >=", 0.95),
        )
        gc.collect()


PARTS = {
    "pass": Part(pass_, 40),
    "operations": Part(operations, 20),
    "memory of the tape": Part(memory, 10),
}

if __name__ == "__main__":
    main("gradients", __doc__, PARTS)
