r"""Messages: what it costs when processes talk to each other, predicted and measured.

**The question.** Two processes that share a batch must average their gradients in every
step. How long does that take, and how much of the time can be hidden?

A message of $s$ bytes takes a *latency* $\alpha$, however short it is, and $s / \beta$
for its bytes, with $\beta$ the *bandwidth* of the connection. Both can be read off a
line through the times of messages of several sizes. An all-reduce among $n$ ranks in a
ring consists of $2(n - 1)$ turns, in each of which every rank sends $1/n$ of the array
and receives as much:

$$t = 2 (n - 1) \left(\alpha + \frac{s}{n\,\beta}\right)$$

So a message is worth sending only if it is long. A model with many small weights is a
model with many small gradients, and there are three ways to send them (the first two by
[`average_in_buckets`][minillm.training.messages.average_in_buckets]):

- *one by one*: an all-reduce for each weight, $\alpha$ paid each time;
- *in one bucket*: all gradients in one array, sent when the backward pass is over;
- *overlapped*: buckets of some size, each sent as soon as its gradients are there,
  while the backward pass goes on with the layers below. This is what
  `DistributedDataParallel` does (Li et al. 2020, arXiv:2006.15704, section 3.2), and
  with it the trainer of this course.

`python -m minillm.training.messages` measures all of it, among processes of one thread
on this machine; [`minillm.systems`][] shows what came out. Overlap hides a message only
if something other than the processor moves the bytes. Between machines the network
does; on one machine the processor that computes must also copy them.

**Before this:** [`minillm.training.distributed`][].
"""

import copy
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from minillm.accounting.shapes import check_positive, check_sizes
from minillm.config import DEMO, ModelConfig
from minillm.model import TransformerLM
from minillm.training.distributed import rank, world_size, wrap
from minillm.training.loss import cross_entropy_fast
from minillm.training.ranks import run_ranks

__all__ = [
    "all_reduce_seconds",
    "average_in_buckets",
    "fit_messages",
    "measure_messages",
    "measure_steps",
    "messages_table",
]


def fit_messages(
    sizes: Sequence[float], seconds: Sequence[float]
) -> tuple[float, float]:
    r"""Fit $\alpha + s / \beta$ to the times of messages.

    The sizes reach from bytes to megabytes, so the line is fitted by *relative* error;
    otherwise the longest message alone would decide.

    Args:
        sizes: bytes of each message, at least two different ones.
        seconds: how long each took.

    Returns:
        The latency $\alpha$ in seconds, not below zero, and the bandwidth $\beta$ in
        bytes per second.

    Raises:
        ValueError: if there are not two different sizes, or times do not grow with
            them.

    Examples:
        >>> latency, bandwidth = fit_messages([0, 1000, 2000], [1.0, 2.0, 3.0])
        >>> round(latency, 6), round(bandwidth)
        (1.0, 1000)
        >>> fit_messages([1000], [1.0])
        Traceback (most recent call last):
        ValueError: a line needs two sizes at least; got [1000]
    """
    if len(set(sizes)) < 2:
        raise ValueError(f"a line needs two sizes at least; got {list(sizes)}")
    t, s = np.array(seconds, dtype=float), np.array(sizes, dtype=float)
    # Least squares of $(\alpha + s / \beta - t) / t$.
    rows = np.stack([1 / t, s / t], axis=1)
    (latency, per_byte), *_ = np.linalg.lstsq(rows, np.ones(len(t)))
    if latency < 0:
        latency, per_byte = 0.0, (s / t).sum() / ((s / t) ** 2).sum()
    if per_byte <= 0:
        raise ValueError("longer messages took no longer: measure longer ones")
    return float(latency), float(1 / per_byte)


def all_reduce_seconds(
    n_bytes: float, world: int, latency: float, bandwidth: float
) -> float:
    r"""Predict how long an all-reduce in a ring takes.

    Args:
        n_bytes: $s$, the size of the array.
        world: $n$, how many ranks.
        latency: $\alpha$, in seconds.
        bandwidth: $\beta$, in bytes per second, at which a rank sends and receives.

    Returns:
        Seconds; 0 for one rank.

    Raises:
        ValueError: if `world` or `bandwidth` is not positive.

    Examples:
        >>> [all_reduce_seconds(8e6, n, latency=0, bandwidth=1e9) for n in (1, 2, 4)]
        [0.0, 0.008, 0.012]
    """
    check_sizes(world=world)
    check_positive(bandwidth=bandwidth)
    return 2 * (world - 1) * (latency + n_bytes / (world * bandwidth))


def average_in_buckets(model: torch.nn.Module, most: float = math.inf) -> None:
    """Average the gradients over all ranks, those of a bucket in one message.

    Args:
        model: its weights have gradients.
        most: how many bytes a bucket holds; 0 sends one gradient after the other, and
            infinity all in one.

    Examples:
        >>> model = torch.nn.Linear(1, 1)
        >>> model(torch.ones(1)).backward()
        >>> average_in_buckets(model)  # alone
        >>> model.bias.grad.item()
        1.0
    """
    if world_size() == 1:
        return
    buckets: list[list[torch.Tensor]] = [[]]
    for w in model.parameters():
        if w.grad is None:
            continue
        if sum(g.nbytes for g in [*buckets[-1], w.grad]) > most:
            buckets.append([])
        buckets[-1].append(w.grad)
    for bucket in filter(None, buckets):  # the first is empty if no gradient fits
        flat = torch.cat([g.flatten() for g in bucket])
        dist.all_reduce(flat)
        flat /= world_size()
        parts = flat.split([g.numel() for g in bucket])
        for g, part in zip(bucket, parts, strict=True):
            g.copy_(part.view_as(g))


ALONE = "one process, the whole batch"
SIZES = [4 * 8**i for i in range(2, 8)]  # 256 bytes to 8 MB


def _least_time(run: Callable[[], Any], turns: int) -> float:
    """The fastest of many calls that all ranks begin together."""
    times = []
    for _ in range(turns + 2):
        dist.barrier()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times[2:])


def measure_pairs(turns: int) -> list[float]:
    """Time a message to the other rank and back, and halve it.

    Args:
        turns: how many of each size.

    Returns:
        Seconds for each size, in rank 0.
    """
    found = []
    for size in SIZES:
        array = torch.zeros(size // 4)

        def there_and_back(array: torch.Tensor = array) -> None:
            if rank() == 0:
                dist.send(array, 1)
                dist.recv(array, 1)
            else:
                dist.recv(array, 0)
                dist.send(array, 0)

        found.append(_least_time(there_and_back, turns) / 2)
    return found


def measure_all_reduce(turns: int) -> list[float]:
    """Time an all-reduce of each size.

    Args:
        turns: how many of each size.

    Returns:
        Seconds for each size.
    """
    arrays = [torch.zeros(size // 4) for size in SIZES]
    return [_least_time(partial(dist.all_reduce, x), turns) for x in arrays]


def measure_steps(
    config: ModelConfig, turns: int, sequences: int = 2
) -> dict[str, list[float]]:
    """Time both passes, without messages and with gradients averaged in three ways.

    Args:
        config: the shape of the model.
        turns: how many steps of each kind, in turn.
        sequences: how many each rank reads.

    Returns:
        The seconds of each step, by kind.
    """
    torch.manual_seed(0)
    model = TransformerLM(config)
    # A wrapped model keeps its hooks, so it is another one.
    overlapped = wrap(copy.deepcopy(model))
    ids = torch.randint(config.vocab_size, (sequences, config.context_length + 1))

    def step(forward: torch.nn.Module, most: float | None) -> None:
        forward.zero_grad()
        cross_entropy_fast(forward(ids[:, :-1]), ids[:, 1:]).backward()
        if most is not None:
            average_in_buckets(model, most)

    kinds: dict[str, Callable[[], None]] = {
        "no messages": lambda: step(model, None),
        "one by one": lambda: step(model, 0),
        "in one bucket": lambda: step(model, math.inf),
        "overlapped": lambda: step(overlapped, None),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(turns + 1):
        for kind, run in kinds.items():
            dist.barrier()
            start = time.perf_counter()
            run()
            if turn:
                times[kind].append(time.perf_counter() - start)
    return times


def measure_messages(turns: int = 30, config: ModelConfig = DEMO) -> dict[str, Any]:
    """Measure messages, all-reduce and steps among processes of this machine.

    Args:
        turns: how often each.
        config: the model of the steps.

    Returns:
        `sizes`; `pair`, the seconds of a message of each; `latency` and `bandwidth`,
        fitted to them; `all_reduce`, for world 2 and 4 the measured seconds of each
        size; `steps`, the fastest of each kind, first that of one process alone; and
        how it was measured: `how`, `cores` and `load` (above the cores, others wanted
        them, too).

    Raises:
        RuntimeError: if a process fails.
    """
    pair = run_ranks(measure_pairs, 2, turns, seconds=300)[0]
    latency, bandwidth = fit_messages(SIZES, pair)
    found = {n: run_ranks(measure_all_reduce, n, turns, seconds=300)[0] for n in (2, 4)}
    whole = run_ranks(measure_steps, 1, config, turns, 4, seconds=300)[0]
    halves = run_ranks(measure_steps, 2, config, turns, 2, seconds=300)[0]
    steps = {ALONE: whole["no messages"], **halves}
    return {
        "sizes": SIZES,
        "pair": pair,
        "latency": latency,
        "bandwidth": bandwidth,
        "all_reduce": {str(n): times for n, times in found.items()},
        "steps": {kind: min(times) for kind, times in steps.items()},
        "how": f"Fastest of {turns} turns",
        "cores": os.cpu_count() or 1,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
    }


def messages_table(found: dict[str, Any]) -> str:
    """Write what was measured as two tables in Markdown.

    Args:
        found: what `measure_messages` returned.

    Returns:
        The tables.
    """
    lines = [
        "| forward and backward pass of the demo | time |",
        "|---|---|",
        *(
            f"| {kind if kind == ALONE else f'two, {kind}'} | {s * 1e3:.1f} ms |"
            for kind, s in found["steps"].items()
        ),
        "",
        f"A message takes {found['latency'] * 1e6:.0f} µs, and its bytes move at "
        f"{found['bandwidth'] / 1e9:.2f} GB a second. All-reduce, predicted from these "
        "two numbers and measured:",
        "",
        "| bytes | 2 ranks, predicted | measured | 4 ranks, predicted | measured |",
        "|---|---|---|---|---|",
    ]
    for i, size in enumerate(found["sizes"]):
        cells = [f"{size:,}"]
        for world in (2, 4):
            line = found["latency"], found["bandwidth"]
            cells.append(f"{all_reduce_seconds(size, world, *line) * 1e3:.2f} ms")
            cells.append(f"{found['all_reduce'][str(world)][i] * 1e3:.2f} ms")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"*{found['how']}; {found['cores']} cores, load average {found['load']:.1f}.*",
    ]
    return "\n".join(lines) + "\n"


def main(folder: Path = Path("images/data")) -> None:
    """Measure, and write what the page shows.

    Args:
        folder: where to.
    """
    found = measure_messages()
    text = json.dumps(found, indent=1) + "\n"
    (folder / "messages.json").write_text(text, encoding="utf-8")
    (folder / "messages.md").write_text(messages_table(found), encoding="utf-8")
    print(messages_table(found))


if __name__ == "__main__":
    main()
