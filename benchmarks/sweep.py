"""Which settings make the best of the demo's two minutes?

    python -m benchmarks.sweep [NAME ...] [--budget 0.5] [--cpu]
    python -m benchmarks.sweep --redraw

Every setting gets the same time: as many steps as fit into the time that 1,400 steps of
the first one take (times the budget), by the ratio of their step times, measured in
turns. Results are kept in `images/data/sweep.json`, one for each name and budget, and
the page of the demo shows them (`minillm.drawing.first_page` writes its table).
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.data import END_OF_TEXT, andersen, split, tokenize
from minillm.drawing.first_page import write_first_page
from minillm.files.reading import IMAGES
from minillm.files.writing import atomic_write
from minillm.model import TransformerLM
from minillm.train import TrainConfig, Trainer, bits_per_byte, evaluate

RESULTS = IMAGES / "data" / "sweep.json"
STEPS = 1400

SHAPE = {
    "vocab_size": 2048,
    "context_length": 128,
    "d_model": 128,
    "n_layers": 4,
    "n_heads": 4,
}
CONFIG = TrainConfig(
    steps=STEPS, batch_size=8, max_lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1
)
SMALL = {"n_layers": 2}, {"batch_size": 4, "betas": (0.9, 0.98)}
# What each differs in from the first: in shape, and in training.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "before": ({}, {}),
    "half the depth, half the batch": SMALL,
    "the same, half the rate, more decay": (
        SMALL[0],
        SMALL[1] | {"max_lr": 1.5e-3, "weight_decay": 0.3},
    ),
    "the same, lr 0.005": (SMALL[0], SMALL[1] | {"max_lr": 5e-3}),
    "the same, tied embedding": (SMALL[0] | {"tie_embeddings": True}, SMALL[1]),
    "the same, a batch of 2": (SMALL[0], SMALL[1] | {"batch_size": 2}),
    "the same, one layer more": (SMALL[0] | {"n_layers": 3}, SMALL[1]),
    "a vocabulary of 1024, narrower": (
        {"vocab_size": 1024, "d_model": 96, "n_heads": 3},
        SMALL[1],
    ),
}


class Setting:
    """One setting, with the text in its own tokens."""

    def __init__(self, name: str) -> None:
        shape, training = SETTINGS[name]
        self.shape = ModelConfig(**(SHAPE | shape))
        self.config = replace(CONFIG, **training)
        documents, unseen = split(andersen())
        vocab_size = self.shape.vocab_size
        tokenizer = BPETokenizer.train(documents, vocab_size, [END_OF_TEXT])
        self.tokens = tokenize(documents, tokenizer)
        self.unseen = tokenize(unseen, tokenizer)
        self.n_bytes = sum(len(document.encode()) for document in unseen)

    def trainer(self, steps: int) -> Trainer:
        """A training of so many steps."""
        torch.manual_seed(self.config.seed)
        model = TransformerLM(self.shape)
        return Trainer(model, self.tokens, replace(self.config, steps=steps))

    def bits(self, model: TransformerLM) -> float:
        """How well a model predicts the unseen text."""
        loss = evaluate(model, self.unseen)
        return bits_per_byte(loss, len(self.unseen) - 1, self.n_bytes)


def step_ratio(setting: Setting, clock: Callable[[], float], turns: int = 15) -> float:
    """How long a step takes, in steps of the first setting."""
    trainers = [s.trainer(10**6) for s in (setting, Setting("before"))]
    times: list[list[float]] = [[], []]
    for _ in range(turns):
        for i in random.sample(range(2), 2):
            start = clock()
            trainers[i].step()
            times[i].append(clock() - start)
    return statistics.median(a / b for a, b in zip(*times, strict=True))


def measure(name: str, budget: float, clock: Callable[[], float]) -> dict[str, Any]:
    """Train with one setting, within the budget."""
    setting = Setting(name)
    ratio = step_ratio(setting, clock)
    steps = round(STEPS * budget / ratio)
    trainer = setting.trainer(steps)
    for _ in trainer.run():
        pass
    return {
        "name": name,
        "budget": budget,
        "ratio": round(ratio, 3),
        "steps": steps,
        "parameters": sum(w.numel() for w in trainer.model.parameters()),
        "bits": round(setting.bits(trainer.model), 4),
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown, the best of each budget last."""
    lines = [
        "| setting | budget | a step takes | steps | weights | bits per byte |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r['name']} | {r['budget']:.0%} | {r['ratio']:.2f} | {r['steps']:,} "
        f"| {r['parameters']:,} | {r['bits']:.3f} |"
        for r in sorted(results, key=lambda r: (r["budget"], -r["bits"]))
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked for, and draw the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SETTINGS))
    parser.add_argument("--budget", type=float, default=1.0)
    parser.add_argument("--cpu", action="store_true", help="one thread, its seconds")
    parser.add_argument("--redraw", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in SETTINGS]:
        parser.error(f"there is no setting {unknown[0]!r}: choose from {[*SETTINGS]}")
    clock = time.perf_counter
    if arguments.cpu:
        torch.set_num_threads(1)
        clock = time.process_time
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    for name in [] if arguments.redraw else arguments.names or SETTINGS:
        result = measure(name, arguments.budget, clock)
        key = name, arguments.budget
        results = [r for r in results if (r["name"], r["budget"]) != key] + [result]
        print(result, flush=True)
        with atomic_write(RESULTS) as file:
            file.write((json.dumps(results, indent=1) + "\n").encode())
    write_first_page()
    print(table(results), end="")


if __name__ == "__main__":
    main()
