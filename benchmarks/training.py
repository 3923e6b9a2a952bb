"""What does training need beside the model: an optimizer, and messages?

    python -m benchmarks.training [PART ...] [--turns N] [--quick] [--cpu]

The steps themselves are compared by `python -m benchmarks.model step compiled`.
"""

from itertools import chain

import torch

from benchmarks.command import main
from benchmarks.measure import Part, Record
from benchmarks.shapes import QUICK, SIZES
from minillm.config import DEMO
from minillm.model import TransformerLM
from minillm.training.messages import measure_steps
from minillm.training.optimizer import AdamW
from minillm.training.ranks import run_ranks


def optimizer(record: Record) -> None:
    """Move all weights by AdamW, beside the fastest of PyTorch's three ways."""
    size = QUICK["tiny"] if record.quick else SIZES["10M"]
    weights = [list(TransformerLM(size.shape).parameters()) for _ in range(2)]
    for w in chain(*weights):
        w.grad = torch.randn_like(w)
    found = record.take_turns(
        {
            "us": AdamW(weights[0]).step,
            "them": torch.optim.AdamW(weights[1], fused=True).step,
        },
        50,
    )
    record.row("10M", found["us"], "PyTorch, fused", found["them"])


def messages(record: Record) -> None:
    """Average the gradients of two processes, in one message or one by one.

    Each process has one thread and half of the demo's batch; timed are forward and
    backward pass with the averaging. The peer sends a message for each weight.
    """
    turns = 2 if record.quick else record.turns(60)
    found = run_ranks(measure_steps, 2, DEMO, turns, seconds=max(record.left(), 60))[0]
    record.row(
        *("demo, in one bucket", found["in one bucket"]),
        *("one by one", found["one by one"]),
    )


PARTS = {"optimizer": Part(optimizer, 6), "messages": Part(messages, 25)}

if __name__ == "__main__":
    main("training", __doc__, PARTS)
