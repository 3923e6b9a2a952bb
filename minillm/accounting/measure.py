r"""Measured: what a counter and a clock say about the same model.

**The question.** The count of [`minillm.flops`][] is a sum of formulas, and anyone who
gets a formula wrong will get it wrong in its test, too. Is there a judge that does not
know the formulas?

PyTorch can: it calls a function for every operation that a program runs, with the
tensors it runs on. `FlopCounterMode` is such a function. It knows one rule, $2mnp$ for
a product, and nothing of attention, layers or backward passes. Let it watch a whole
step of training:

>>> from minillm.flops import forward_flops, training_flops
>>> config = ModelConfig(100, 16, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2)
>>> seen = torch_flops(config, batch_size=3, seq_len=16)
>>> ours = forward_flops(config, 3, 16).total, training_flops(config, 3, 16)
>>> seen == ours, seen[1] / seen[0]
(True, 3.0)

The same integers. Sharing of keys and values, the backward pass that costs twice the
forward one, what is recomputed: nothing had to be told. The tests ask it about sixty
random shapes.

# A model without numbers

To count, the counter needs shapes only. PyTorch has a device for that, `meta`, on which
a tensor has a shape and no contents, takes no memory, and a product takes no time. So
the judge can hear cases that no laptop could run. GPT-2 XL has 1.6 billion parameters:

>>> from minillm.accounting.shapes import preset
>>> torch_flops(preset("gpt2-xl"), batch_size=1, seq_len=1024)[0]
3506703564800

# The counter's traps

A counter sees what is called, not what is meant, and gives no warning. Three cases in
which this one reads something else than the products of the model:

- On a CPU, it reads 0 for the fused kernel of attention. Attention has to be computed
  product by product; [`watched`][minillm.accounting.measure.watched] sees to that.
- For a product written as `einsum` it reads 0 when each sum has one term, as when the
  values of a single token are mixed: no product is called then, only multiplication
  number by number.
- A rotation written as a product with a matrix of sines and cosines is counted, though
  the model would not need it. Ours is written with complex numbers.

# The clock

Time needs numbers, memory and a real device:
[`step_seconds`][minillm.accounting.measure.step_seconds] runs the step on this machine.
FLOPs over seconds, over what the machine can do at best, is its utilization, which
[`mfu`][minillm.accounting.cost.mfu] explains. In a terminal, `minillm flops demo
--measure` asks both, the counter and the clock.

**Before this:** [`minillm.flops`][]. **Next:** [`minillm.accounting.opt`][], where the
judge is needed.
"""

import math
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from minillm.accounting.shapes import (
    Architecture,
    Recompute,
    as_architecture,
    check_sizes,
)
from minillm.config import ModelConfig
from minillm.model import Linear, TransformerLM
from minillm.training.loss import cross_entropy

__all__ = [
    "machine_memory",
    "measure_peak_flops",
    "stand_in",
    "step_seconds",
    "torch_flops",
    "watched",
]


@contextmanager
def watched() -> Generator[FlopCounterMode, None, None]:
    """Count the FLOPs of what runs inside, with attention as the products that it is.

    Yields:
        PyTorch's counter; `.get_total_flops()` reads it at any time.

    Examples:
        >>> with watched() as counter:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 2)
        >>> counter.get_total_flops()
        24
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def stand_in(
    config: ModelConfig | Architecture, seq_len: int, recompute: Recompute = False
) -> TransformerLM:
    """Build a model that does the same products as the one that is described.

    It is the model of this course. For an older architecture its feed-forward networks
    are replaced by the classical one of two matrices. Biases, learned positions and
    another kind of norm take part in no product and are left out.

    Args:
        config: the shape of the model.
        seq_len: how many tokens it must be able to read, if more than its context.
        recompute: how each block goes about its activations, as
            [`training_flops`][minillm.flops.training_flops] says.

    Returns:
        The model, untrained, on the default device.

    Examples:
        >>> old = Architecture(100, 16, 32, n_layers=2, n_heads=4, mlp_matrices=2)
        >>> stand_in(old, seq_len=64).blocks[0].ffn
        Sequential(
          (0): Linear(d_in=32, d_out=128)
          (1): GELU(approximate='none')
          (2): Linear(d_in=128, d_out=32)
        )
    """
    c = as_architecture(config)
    model = TransformerLM(
        ModelConfig(
            c.vocab_size,
            max(c.context_length, seq_len),
            c.d_model,
            c.n_layers,
            c.n_heads,
            c.n_kv_heads,
            c.d_ff,
            tie_embeddings=c.tie_embeddings,
        )
    )
    for block in model.blocks:
        if c.mlp_matrices == 2:
            block.ffn = nn.Sequential(
                Linear(c.d_model, c.d_ff), nn.GELU(), Linear(c.d_ff, c.d_model)
            )
        if recompute:
            reentrant = recompute != "early_stop"
            block.forward = partial(checkpoint, block.forward, use_reentrant=reentrant)
    return model


def torch_flops(
    config: ModelConfig | Architecture,
    batch_size: int,
    seq_len: int,
    recompute: Recompute = False,
) -> tuple[int, int]:
    """Let PyTorch count a forward pass, and a whole step with its backward pass.

    Args:
        config: the shape of the model.
        batch_size: $B$, how many sequences.
        seq_len: $T$, how many tokens in each.
        recompute: how each block goes about its activations.

    Returns:
        The FLOPs of the forward pass, and of forward and backward pass together.

    Raises:
        ValueError: if a size is not positive.
    """
    check_sizes(batch_size=batch_size, seq_len=seq_len)
    with torch.device("meta"):
        ids = torch.zeros(batch_size, seq_len, dtype=torch.int64)
        # The tables of the rotation are computed on the CPU wherever the model is.
        model = stand_in(config, seq_len, recompute).to("meta")
        with watched() as counter:
            loss = cross_entropy(model(ids), ids)
            forward = counter.get_total_flops()
            loss.backward()
            return forward, counter.get_total_flops()


def machine_memory() -> float:
    """Ask the system how much memory there is.

    Returns:
        Bytes, or infinity where the system does not say.

    Examples:
        >>> machine_memory() > 2**20  # more than a megabyte
        True
    """
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # Windows has no such function
        return math.inf


def step_seconds(
    config: ModelConfig | Architecture,
    batch_size: int,
    seq_len: int,
    recompute: Recompute = False,
    *,
    at_least: float = 2.0,
) -> float:
    """Time one forward and backward pass on this machine's CPU, in float32.

    Args:
        config: the shape of the model.
        batch_size: $B$, how many sequences.
        seq_len: $T$, how many tokens in each.
        recompute: how each block goes about its activations.
        at_least: how many seconds to go on. There are two passes at the least, since
            the first warms up and does not count.

    Returns:
        The time of the fastest, in seconds: the others were disturbed.

    Raises:
        ValueError: if a size is not positive.

    Examples:
        >>> step_seconds(ModelConfig(10, 4, 8, 1, 2), 1, 4, at_least=0) > 0
        True
    """
    check_sizes(batch_size=batch_size, seq_len=seq_len)
    model = stand_in(config, seq_len, recompute)
    ids = torch.zeros(batch_size, seq_len, dtype=torch.int64)
    times: list[float] = []
    while len(times) < 2 or sum(times) < at_least:
        start = time.perf_counter()
        cross_entropy(model(ids), ids).backward()
        times.append(time.perf_counter() - start)
        model.zero_grad()
    return min(times[1:])


def measure_peak_flops(
    size: int | None = None,
    tries: int = 10,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> float:
    r"""Measure how fast this machine multiplies matrices: the most a step can reach.

    Args:
        size: the matrices are `size` by `size`; `None` takes 1024 on a CPU, and 8192
            elsewhere, where less would not fill the device.
        tries: the fastest of this many products counts; the others were disturbed.
        dtype: the type of their numbers.
        device: where they are multiplied.

    Returns:
        FLOP per second; on a CPU with as many threads as PyTorch uses.

    Examples:
        >>> measure_peak_flops(size=64, tries=2) > 1e6  # a megaflop per second
        True
    """
    if size is None:
        size = 1024 if torch.device(device).type == "cpu" else 8192
    a = torch.randn(size, size).to(device, dtype)
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # a GPU has begun when `@` returns; `item` waits
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
