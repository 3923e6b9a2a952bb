"""Training speed, beside a plain GPT in the usual loop.

    python -m benchmarks.training [--shapes demo 10M] [--turns 21] [--eager] [--cpu]

For each shape, one training step of every setting of ours and one of the peer
(`benchmarks/peer_gpt.py`, float32, not compiled, `torch.optim.AdamW` as it comes) take
turns in one process, in a new order each time. A ratio is the median over the turns of
the peer's seconds by ours: above 1, ours is faster. MFU is model FLOPs by seconds and
by what a product of two large matrices reached in the same run, in the same type of
numbers. A step of ours is that of the training loop, with all that it does.

On a machine that is busy with other things, `--cpu` counts the seconds of the processor
instead of those of the clock, with one thread.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch

from benchmarks.peer_gpt import GPT, PeerConfig, make_optimizer, training_step
from minillm.config import ModelConfig
from minillm.demo import CONFIG, SHAPE
from minillm.figures import IMAGES
from minillm.files import atomic_write
from minillm.flops import mfu, param_count, training_flops
from minillm.model import TransformerLM
from minillm.optimizer import AdamW
from minillm.train import TrainConfig, Trainer

SHAPES = {
    "demo": (SHAPE, CONFIG.batch_size),
    "10M": (ModelConfig(4096, 256, d_model=320, n_layers=6, n_heads=5), 4),
}
SETTINGS = {
    "float32": {},
    "bf16": {"dtype": "bf16"},
    "float32, compiled": {"compile": True},
    "bf16, compiled": {"dtype": "bf16", "compile": True},
}
WARM_UP = 2

clock: Callable[[], float] = time.perf_counter


def seconds(function: Callable[[], object]) -> float:
    """Call a function once. How long does it take?"""
    start = clock()
    function()
    return clock() - start


def alternate(
    programs: dict[str, Callable[[], object]], turns: int
) -> dict[str, list[float]]:
    """Let programs take turns, each turn in another order."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    order, chance = list(programs), random.Random(0)
    for turn in range(WARM_UP + turns):
        chance.shuffle(order)
        for name in order:
            taken = seconds(programs[name])
            if turn >= WARM_UP:
                times[name].append(taken)
    return times


def ratio(theirs: list[float], ours: list[float]) -> float:
    """How many times as fast ours is: the median over the turns."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def text(shape: ModelConfig) -> np.ndarray:
    """Random ids; speed does not depend on what they say."""
    return np.random.default_rng(0).integers(0, shape.vocab_size, 200_000, np.uint16)


def trainer(shape: ModelConfig, batch_size: int, **settings: object) -> Trainer:
    """A training of ours, ready for its first step."""
    torch.manual_seed(0)
    model = TransformerLM(shape)
    model.train()
    config = TrainConfig(steps=10**6, batch_size=batch_size, **settings)
    return Trainer(model, text(shape), config)


def peer(shape: ModelConfig, batch_size: int) -> Callable[[], float]:
    """One step of the peer, for a model of the same shape."""
    model = GPT(
        PeerConfig(
            shape.vocab_size,
            shape.context_length,
            shape.n_layers,
            shape.n_heads,
            shape.d_model,
            tie=shape.tie_embeddings,
        )
    )
    optimizer, data = make_optimizer(model), torch.from_numpy(text(shape))
    return lambda: training_step(model, optimizer, data, batch_size)


def compare(
    shape: ModelConfig, batch_size: int, names: list[str], turns: int
) -> dict[str, float]:
    """Print how fast each setting trains, and return the ratios to the peer."""
    matrices = {
        dtype: torch.randn(1024, 1024, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    }
    programs: dict[str, Callable[[], object]] = {
        str(dtype): lambda a=a: a @ a for dtype, a in matrices.items()
    }
    programs["the peer"] = peer(shape, batch_size)
    programs |= {
        name: trainer(shape, batch_size, **SETTINGS[name]).step for name in names
    }
    times = alternate(programs, turns)
    peaks = {dtype: 2 * 1024**3 / min(times[str(dtype)]) for dtype in matrices}
    for dtype, peak in peaks.items():
        print(f"  a product of matrices in {dtype}: {peak / 1e9:.0f} GFLOP/s")
    flops = training_flops(shape, batch_size, shape.context_length)
    tokens = batch_size * shape.context_length
    print(f"  {'':20}{'ratio':>7}{'ms':>9}{'tokens/s':>11}{'MFU':>7}")
    for name in [*names, "the peer"]:
        taken = statistics.median(times[name])
        row = f"  {name:20}{ratio(times['the peer'], times[name]):7.2f}"
        row += f"{1e3 * taken:9.1f}{tokens / taken:11,.0f}"
        if name != "the peer":  # its shape is another one, if not by much
            dtype = torch.bfloat16 if "bf16" in name else torch.float32
            row += f"{mfu(flops, taken, peaks[dtype]):7.0%}"
        print(row, flush=True)
    return {name: ratio(times["the peer"], times[name]) for name in names}


def compare_optimizers(shape: ModelConfig, turns: int) -> None:
    """Print how fast AdamW moves the weights of a model, beside PyTorch's."""
    programs = {}
    for name, kind, settings in (
        ("ours", AdamW, {}),
        ("PyTorch, default", torch.optim.AdamW, {}),
        ("PyTorch, foreach", torch.optim.AdamW, {"foreach": True}),
        ("PyTorch, fused", torch.optim.AdamW, {"fused": True}),
    ):
        weights = list(TransformerLM(shape).parameters())
        for w in weights:
            w.grad = torch.randn_like(w)
        programs[name] = kind(weights, **settings).step
    times = alternate(programs, 5 * turns)
    for name in list(programs)[1:]:
        print(
            f"  AdamW beside {name:18}{ratio(times[name], times['ours']):5.2f}"
            f"{1e3 * statistics.median(times['ours']):8.2f} ms by "
            f"{1e3 * statistics.median(times[name]):.2f} ms"
        )


@contextmanager
def marks(of: Trainer) -> Generator[list[float]]:
    """Note when forward begins, backward ends, and the optimizer begins and ends."""
    noted: list[float] = []
    backward = torch.Tensor.backward

    def note(*_: object) -> None:
        noted.append(clock())

    def backward_and_note(*arguments: object, **more: object) -> None:
        backward(*arguments, **more)
        note()

    of.model.register_forward_pre_hook(note)
    of.optimizer.register_step_pre_hook(note)
    of.optimizer.register_step_post_hook(note)
    with mock.patch.object(torch.Tensor, "backward", backward_and_note):
        yield noted


def loop_overhead(shape: ModelConfig, batch_size: int, turns: int) -> float:
    """The share of a step that is neither forward, nor backward, nor the optimizer."""
    of = trainer(shape, batch_size)
    shares = []
    with marks(of) as noted:
        for _ in range(WARM_UP + 3 * turns):
            noted.clear()
            whole = seconds(of.step)
            forward, backward_end, step, step_end = noted
            work = backward_end - forward + step_end - step
            shares.append(1 - work / whole)
    return statistics.median(shares[WARM_UP:])


def main() -> None:
    """Measure what is asked for."""
    global clock
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--write", action="store_true", help="renew the lesson's table")
    parser.add_argument("--cpu", action="store_true", help="one thread, its seconds")
    arguments = parser.parse_args()
    if arguments.cpu:
        torch.set_num_threads(1)
        clock = time.process_time
    names = [n for n in SETTINGS if not (arguments.eager and "compiled" in n)]
    ratios: dict[str, dict[str, float]] = {}
    print(f"threads: {torch.get_num_threads()}")
    for name in arguments.shapes:
        shape, batch_size = SHAPES[name]
        print(
            f"{name}: {param_count(shape).total:,} weights, a batch of {batch_size} "
            f"by {shape.context_length} tokens"
        )
        ratios[name] = compare(shape, batch_size, names, arguments.turns)
        compare_optimizers(shape, arguments.turns)
        share = loop_overhead(shape, batch_size, arguments.turns)
        print(f"  the loop around forward, backward and step: {share:.1%} of a step")
    if arguments.write:
        lines = [f"| | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
        for name, row in ratios.items():
            # To our own float32, since that is what the lesson asks.
            shares = [row[setting] / row["float32"] for setting in names]
            lines.append(f"| {name} | {' | '.join(f'{s:.2f}' for s in shares)} |")
        with atomic_write(IMAGES / "data" / "training-speed.md") as file:
            file.write(("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
