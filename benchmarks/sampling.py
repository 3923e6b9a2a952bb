"""How fast are many sequences sampled, side by side and one after the other?

python -m benchmarks.sampling [PART ...] [--turns N] [--quick] [--cpu]
"""

import torch

from benchmarks.command import main
from benchmarks.measure import Part, Record
from minillm.config import ModelConfig
from minillm.generate import generate
from minillm.inference.batched import sample_batch
from minillm.model import TransformerLM

# The model of the lab, prompts of 7 tokens, answers of 7.
SHAPE = ModelConfig(13, 14, d_model=64, n_layers=2, n_heads=4)
NEW = 7


def lab(record: Record) -> None:
    """Sample 7 tokens for each of 512 prompts of the lab's model.

    The peer is `generate`, called once for each prompt. Nothing stops early.
    """
    n = 32 if record.quick else 512
    torch.manual_seed(0)
    model = TransformerLM(SHAPE).eval()
    prompts = torch.randint(13, (n, SHAPE.context_length - NEW)).tolist()
    found = record.take_turns(
        {
            "together": lambda: sample_batch(model, prompts, NEW),
            "in a loop": lambda: [generate(model, p, NEW) for p in prompts],
        },
        9,
    )
    record.row(
        f"{n} prompts",
        *(found["together"], "generate in a loop", found["in a loop"]),
        unit="tokens/s",
        amount=n * NEW,
        target=None if record.quick else ("ratio >=", 4),
    )


PARTS = {"lab": Part(lab, 12)}

if __name__ == "__main__":
    main("sampling", __doc__, PARTS)
