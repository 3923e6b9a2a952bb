r"""The same FLOPs, spent by AdamW and by Muon.

**The question.** [`minillm.training.muon`][] makes better steps, and each costs more.
Is it worth it for a model as small as the demo's, with as few tokens in a batch? And
what else would make that model better in the time that it takes?

Every run trains the demo's model on the demo's text, and gets the same FLOPs, a share
of those of the demo; the orthogonalization is counted. So Muon makes fewer steps:

>>> steps(VARIANTS["the demo's settings"]), steps(VARIANTS["Muon for the blocks"])
(1125, 704)

`python -m minillm.labs.optimizers` trains what is missing in the committed results, and
draws the table anew. **Told in** [`minillm.training.muon`][], on the bench of
[`minillm.labs.bench`][].
"""

import time
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch

from minillm.bpe import BPETokenizer
from minillm.config import VOCAB_SIZE, ModelConfig
from minillm.data import END_OF_TEXT, andersen, split, tokenize
from minillm.flops import training_flops
from minillm.labs.bench import Config, Lab, Point, plan
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
from minillm.training.loss import Tokens, cross_entropy_fast
from minillm.training.muon import Muon, newton_schulz_flops, split_weights

__all__ = ["BASE", "LAB", "VARIANTS", "optimizers_table", "steps"]

SHAPE = ModelConfig(VOCAB_SIZE, context_length=128, d_model=128, n_layers=2, n_heads=4)
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
    "share": 0.25,  # of the demo's FLOPs
}
"""The demo's settings, for a quarter of its FLOPs."""

VARIANTS: dict[str, Config] = {
    "the demo's settings": BASE,
    "Muon for the blocks": BASE | {"optimizer": "Muon", "matrix_lr": 0.02},
}
"""The runs by name."""


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
    decay, lr = DEMO.weight_decay, config["lr"]
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
    start = time.process_time()
    for step in range(1, total + 1):
        inputs, targets = get_batch(
            text.tokens, config["batch"], SHAPE.context_length, generator=random
        )
        loss = cross_entropy_fast(model(inputs), targets)
        model.zero_grad()
        loss.backward()
        clip_gradients(model.parameters(), DEMO.max_norm)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule(config["schedule"], step, total)
            optimizer.step()
    seconds = time.process_time() - start
    unseen = evaluate(model, text.unseen)
    bits = bits_per_byte(unseen, len(text.unseen) - 1, text.n_bytes)
    return {"training_seconds": round(seconds, 1), "bits": round(bits, 4)}


def _points(quick: bool) -> list[Point]:
    return plan(VARIANTS.values(), seeds=1 if quick else 3)


def _flops(config: Config) -> int:
    return steps(config) * step_flops(config)


LAB = Lab("optimizers", 1, _points, _run, _flops, lambda r: optimizers_table(r))


def optimizers_table(results: Sequence[dict[str, Any]]) -> str:
    """Write the results as Markdown, the shorter runs first.

    Args:
        results: as from [`run_lab`][minillm.labs.bench.run_lab].

    Returns:
        The table: for each variant its steps, its processor seconds in training, and
        the bits per byte of unseen tales, the mean and the range over seeds.
    """
    names = {str(config): name for name, config in VARIANTS.items()}
    lines = [
        "| setting | FLOPs of the demo | steps | tokens | seconds | seeds "
        "| bits per byte |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for config, same in sorted(by_config(results), key=lambda pair: pair[0]["share"]):
        bits = [r["bits"] for r in same]
        spread = f" ({min(bits):.3f} to {max(bits):.3f})" if len(bits) > 1 else ""
        count = steps(config)
        tokens = count * config["batch"] * SHAPE.context_length
        seconds = fmean(r["training_seconds"] for r in same)
        lines.append(
            f"| {names.get(str(config), 'another setting')} | {config['share']:.0%} "
            f"| {count:,} | {tokens:,} | {seconds:.0f} | {len(bits)} "
            f"| {fmean(bits):.3f}{spread} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what the committed results lack, and draw the table."""
    data = IMAGES / "data"
    path = data / f"lab-{LAB.name}.json"
    results = run_lab(LAB, LAB.points(False), path, console=Console(stderr=True))
    with atomic_write(data / "optimizers.md") as file:
        file.write(optimizers_table(results).encode())
    print(optimizers_table(results), end="")


if __name__ == "__main__":
    main()
