"""How much slower than PyTorch is a tape in NumPy?

    python -m benchmarks gradients

The model, its weights and the batch are the same; forward and backward pass are timed,
without the optimizer. Called in this way, NumPy and PyTorch have one thread each.
"""

import numpy as np
import torch

from benchmarks.command import main
from benchmarks.measure import Part, Record
from benchmarks.shapes import QUICK, SIZES, Size, text
from minillm.model import TransformerLM
from minillm.training.by_hand import by_autograd, by_tape

Batch = tuple[np.ndarray, np.ndarray]


def _ready(size: Size) -> tuple[TransformerLM, Batch]:
    torch.manual_seed(0)
    model, length = TransformerLM(size.shape), size.shape.context_length
    cut = text(size.shape)[: size.batch_size * (length + 1)].astype(np.int64)
    ids = cut.reshape(size.batch_size, length + 1)
    return model, (ids[:, :-1].copy(), ids[:, 1:].copy())


def pass_(record: Record) -> None:
    """Compute the loss of a batch and all gradients, by the tape and by PyTorch's.

    PyTorch runs eagerly, in float32 and with its fused attention. Each has one thread.
    """
    model, batch = _ready(QUICK["tiny"] if record.quick else SIZES["demo"])
    found = record.take_turns(
        {
            "tape": lambda: by_tape(model, *batch),
            "PyTorch": lambda: by_autograd(model, *batch),
        },
        40,
    )
    record.row(
        *("demo", found["tape"], "PyTorch, eager", found["PyTorch"]),
        target=("ratio >=", 0.17),
    )


PARTS = {"pass": Part(pass_, 8)}

if __name__ == "__main__":
    main("gradients", __doc__, PARTS)
