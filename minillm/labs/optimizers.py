r"""The same FLOPs, spent by AdamW and by Muon.

**The question.** [`minillm.training.muon`][] makes better steps, and each costs more.
Is it worth it for a model as small as the demo's, with as few tokens in a batch? And
what else would make that model better in the time that it takes?

Every run trains the demo's model on the demo's text, and gets the same FLOPs, a share
of those of the demo; the orthogonalization is counted. So Muon makes fewer steps:

>>> steps(BASE), steps(BASE | {"optimizer": "Muon"})
(562, 352)

`python -m minillm.labs.optimizers` trains what is missing in the committed results, and
draws the table anew. **Told in** [`minillm.training.muon`][], on the bench of
[`minillm.labs.bench`][].
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from statistics import fmean
from typing import Any, NamedTuple

import torch
from rich.console import Console

from minillm.bpe import BPETokenizer
from minillm.config import DEMO as SHAPE
from minillm.data import END_OF_TEXT, andersen, split, tokenize
from minillm.files.reading import IMAGES
from minillm.files.writing import atomic_write
from minillm.flops import training_flops
from minillm.labs.bench import Config, Lab, Point, by_config, plan, run_lab
from minillm.model import TransformerLM
from minillm.train import (
    AdamW,
    TrainConfig,
    bits_per_byte,
    clip_gradients,
    cosine_schedule,
    evaluate,
    get_batch,
)
from minillm.training.batches import Tokens
from minillm.training.loss import cross_entropy_fast
from minillm.training.muon import Muon, newton_schulz_flops, split_weights

__all__ = ["BASE", "LAB", "ONCE", "VARIANTS", "optimizers_table", "steps"]

DEMO = TrainConfig()

BASE: Config = {
    "optimizer": "AdamW",  # of the matrices in the blocks; the rest has AdamW
    "lr": DEMO.max_lr,
    "matrix_lr": 0.0,  # Muon's
    "steps": 5,  # of Newton and Schulz
    "batch": DEMO.batch_size,
    "schedule": "cosine",
    "embedding_lr": 1.0,  # times lr
    "embedding_std": 0.02,  # of the initial entries
    "share": 0.125,  # of the demo's FLOPs
}
"""The demo's settings, for an eighth of its FLOPs."""

RATES = {
    "lr": 3e-3,
    "schedule": "linear",
    "embedding_lr": 10.0,
    "embedding_std": 0.2,
}
MUON = {"optimizer": "Muon", "matrix_lr": 0.02}
VARIANTS: dict[str, Config] = {
    "A: the demo's settings": BASE,
    "B: twice the learning rate, that of the embedding ten times as large, linear "
    "decay": BASE | RATES,
    "B with Muon, a batch of 8": BASE | RATES | MUON | {"batch": 8},
    "B with Muon, for as many steps as B": BASE | RATES | MUON | {"share": 0.2},
}
"""The runs by name, each with three seeds."""

WHOLE = {"share": 1.0}
TIED = RATES | {"embedding_lr": 2.0, "embedding_std": 0.1, "tied": True}
ONCE: dict[str, Config] = {
    "A with Muon": BASE | MUON,
    "B with Muon": BASE | RATES | MUON,
    "B with Muon at half its rate": BASE | RATES | MUON | {"matrix_lr": 0.01},
    "B with Muon at twice its rate": BASE | RATES | MUON | {"matrix_lr": 0.04},
    "B with Muon, three steps of Newton and Schulz": BASE | RATES | MUON | {"steps": 3},
    "A with the embedding of B": BASE
    | {"embedding_lr": 10.0, "embedding_std": 0.2}
    | WHOLE,
    "C: B with tied embedding": BASE | TIED | WHOLE,
    "C with a weight decay of 1.0, not 0.3": BASE
    | TIED
    | WHOLE
    | {"weight_decay": 1.0},
    "C with Muon, a batch of 8": BASE | TIED | WHOLE | MUON | {"batch": 8},
}
"""Runs with one seed, which show a tendency and no more."""


def steps(config: Config) -> int:
    """Count the steps that a run can pay for.

    Args:
        config: the run.

    Returns:
        As many as cost its share of the demo's FLOPs.
    """
    demo = DEMO.steps * training_flops(SHAPE, DEMO.batch_size, SHAPE.context_length)
    return round(config["share"] * demo / step_flops(config))


def step_flops(config: Config) -> int:
    """Count the FLOPs of one step, those of the optimizer's products included.

    Args:
        config: the run.

    Returns:
        The FLOPs.

    Examples:
        >>> adamw, muon = BASE, BASE | {"optimizer": "Muon"}
        >>> f"{step_flops(muon) / step_flops(adamw):.2f}"
        '1.60'
    """
    flops = training_flops(SHAPE, config["batch"], SHAPE.context_length)
    if config["optimizer"] == "Muon":
        d, d_ff, n = SHAPE.d_model, SHAPE.d_ff, config["steps"]
        block = 4 * newton_schulz_flops(d, d, n) + 3 * newton_schulz_flops(d_ff, d, n)
        flops += SHAPE.n_layers * block
    return flops


class Text(NamedTuple):
    """The tales as tokens."""

    tokens: Tokens
    unseen: Tokens
    n_bytes: int


@cache
def _text() -> Text:
    training, validation = split(andersen())
    tokenizer = BPETokenizer.train(training, SHAPE.vocab_size, [END_OF_TEXT])
    tokens, unseen = (tokenize(part, tokenizer) for part in (training, validation))
    return Text(tokens, unseen, sum(len(tale.encode()) for tale in validation))


def schedule(kind: str, step: int, total: int) -> float:
    """Compute the learning rate as a share of the largest.

    Args:
        kind: `cosine`, or `linear`, a straight line down to zero.
        step: the step, from 1.
        total: how many there are.

    Returns:
        The share.

    Examples:
        >>> [round(schedule(kind, 775, 1000), 3) for kind in ("cosine", "linear")]
        [0.146, 0.25]
    """
    warmup = min(100, total // 10)
    if kind == "linear" and step > warmup:
        return (total - step) / (total - warmup)
    return cosine_schedule(step, 1.0, 0.0, warmup, total)


def _run(config: Config, seed: int) -> dict[str, Any]:
    text, total = _text(), steps(config)
    torch.manual_seed(seed)
    model = TransformerLM(replace(SHAPE, tie_embeddings=config.get("tied", False)))
    embedding = model.token_embedding.weight
    with torch.no_grad():
        embedding.mul_(config["embedding_std"] / 0.02)
    matrices, others = split_weights(model)
    muon = config["optimizer"] == "Muon"
    rest = [w for w in others if w is not embedding]
    decay, lr = config.get("weight_decay", DEMO.weight_decay), config["lr"]
    groups: list[dict[str, Any]] = [
        {"params": [embedding], "peak": lr * config["embedding_lr"]},
        {"params": [w for w in rest if w.ndim > 1], "peak": lr},
        {"params": [w for w in rest if w.ndim < 2], "peak": lr, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if muon:
        group = {"params": matrices, "peak": config["matrix_lr"]}
        optimizers.append(Muon([group], steps=config["steps"]))
    else:
        groups.append({"params": matrices, "peak": lr})
    optimizers.append(AdamW(groups, betas=DEMO.betas, weight_decay=decay))
    random = torch.Generator().manual_seed(seed)
    losses = []
    start = time.process_time()
    for step in range(1, total + 1):
        inputs, targets = get_batch(
            text.tokens, config["batch"], SHAPE.context_length, generator=random
        )
        loss = cross_entropy_fast(model(inputs), targets)
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        clip_gradients(model.parameters(), DEMO.max_norm)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule(config["schedule"], step, total)
            optimizer.step()
    seconds = time.process_time() - start
    unseen = evaluate(model, text.unseen)
    bits = bits_per_byte(unseen, len(text.unseen) - 1, text.n_bytes)
    return {
        "training_seconds": round(seconds, 1),
        "training_loss": round(fmean(losses[-100:]), 3),
        "validation_loss": round(unseen, 3),
        "bits": round(bits, 4),
    }


def _points(quick: bool) -> list[Point]:
    if quick:
        return plan(VARIANTS.values(), seeds=1)
    return plan(VARIANTS.values(), seeds=3) + plan(ONCE.values(), seeds=1)


def _flops(config: Config) -> int:
    return steps(config) * step_flops(config)


def optimizers_table(results: Sequence[dict[str, Any]]) -> str:
    """Write the results as Markdown, the shorter runs first.

    Args:
        results: as from [`run_lab`][minillm.labs.bench.run_lab].

    Returns:
        The table: for each variant its steps, its processor seconds in training, and
        the bits per byte of unseen tales, the mean and the range over seeds.

    Examples:
        >>> once = {"config": BASE, "seed": 0, "training_seconds": 27.1, "bits": 2.12}
        >>> table = optimizers_table([once, once | {"seed": 1, "bits": 2.10}])
        >>> print(table.splitlines()[-1].removeprefix("| A: the demo's settings "))
        | 12.5% | 562 | 27 | 2 | 2.110 (2.100 to 2.120) |
    """
    lines = [
        "| setting | FLOPs | steps | seconds | seeds | bits |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for config, same in sorted(by_config(results), key=lambda pair: pair[0]["share"]):
        bits = [r["bits"] for r in same]
        spread = f" ({min(bits):.3f} to {max(bits):.3f})" if len(bits) > 1 else ""
        names = [name for name, c in (VARIANTS | ONCE).items() if c == config]
        count = steps(config)
        seconds = fmean(r["training_seconds"] for r in same)
        lines.append(
            f"| {names[0] if names else 'another setting'} | {config['share']:.1%} "
            f"| {count:,} | {seconds:.0f} | {len(bits)} "
            f"| {fmean(bits):.3f}{spread} |"
        )
    return "\n".join(lines) + "\n"


LAB = Lab("optimizers", 1, _points, _run, _flops, optimizers_table)


def main() -> None:
    """Train what the committed results lack, and draw the table."""
    data = IMAGES / "data"
    path = data / f"lab-{LAB.name}.json"
    results = run_lab(LAB, LAB.points(False), path, console=Console(stderr=True))
    with atomic_write(data / "optimizers.md") as file:
        file.write(optimizers_table(results).encode())


if __name__ == "__main__":
    main()
