r"""Data parallelism: several processes that train one model.

**The question.** The sequences of a batch do not depend on each other, so two machines
could read half of them each. What must they send each other, so that both end up with
the model that one machine would have trained alone?

The gradient of a mean is the mean of the gradients:

>>> import torch
>>> batch = torch.tensor([1.0, 2.0, 3.0, 4.0])
>>> def gradient(batch):
...     w = torch.tensor(5.0, requires_grad=True)
...     return torch.autograd.grad(((w - batch) ** 2).mean(), w)[0].item()
>>> gradient(batch), (gradient(batch[:2]) + gradient(batch[2:])) / 2
(5.0, 5.0)

So each process keeps a copy of the model and computes the gradient of its share of the
batch; then all replace theirs by the average. This is *data parallelism*. Equal weights
and equal gradients make equal steps, so the copies never drift apart. The operation
that gives every process the sum over all is called *all-reduce*, a process's number is
its *rank*, and the number of processes is the *world size*.

# What it costs

One number per parameter and step. For the million weights of the demo in float32 these
are 4 MB; for the 1.56 billion of GPT-2 XL, gigabytes:

>>> round(1_557_611_200 * 4 / 1e9, 1)
6.2

[`minillm.systems`][] builds the all-reduce by hand, and [`minillm.training.messages`][]
measures what messages cost and what it helps to send few and early. PyTorch's
`DistributedDataParallel` does both: it collects gradients in *buckets* of up to 25 MB
and sends each as soon as the backward pass has filled it, while that goes on with the
layers below.

# How to start it

`torchrun` starts the processes:

```console
torchrun --standalone --nproc-per-node 2 -m minillm train --out runs/two
```

`--standalone` finds a free port for the processes of this one machine; without it, two
such jobs would meet at the same port. On several machines, call it on each with
`--nnodes`, `--node-rank` and `--rdzv-endpoint` instead. torchrun gives each of several
processes one thread unless `OMP_NUM_THREADS` says otherwise, so two processes keep two
cores busy. (One process of two threads does so without messages, and is
[faster](../speed.md#two-processes): several processes are for several machines, or for
trying this out.) If a process dies, torchrun ends the others and gives up; with
`--max-restarts 3` it restarts all of them, up to three times, and the run resumes from
its last checkpoint.

A process that was not started by torchrun has world size 1: every function here is a
no-op.

>>> rank(), world_size(), mean(torch.tensor(3.0)).item()
(0, 1, 3.0)
"""

import gc
import importlib
import inspect
import os
import re
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

__all__ = [
    "any_rank",
    "average_gradients",
    "joined",
    "mean",
    "rank",
    "share",
    "was_restarted",
    "world_size",
    "wrap",
]


def rank() -> int:
    """Look up the rank of this process.

    Returns:
        A number from 0. Rank 0 writes the files.
    """
    return dist.get_rank() if _several() else 0


def world_size() -> int:
    """Look up the world size.

    Returns:
        The number of processes, 1 without torchrun.
    """
    return dist.get_world_size() if _several() else 1


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


def was_restarted() -> bool:
    """Say whether torchrun has started this job again after a failure.

    Returns:
        Whether it has.

    Examples:
        >>> was_restarted()
        False
    """
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def joined(device: str = "cpu") -> Generator[str, None, None]:
    """Join the other processes, if torchrun has started any.

    Args:
        device: where the model will be; of several GPUs, each process takes its own.

    Yields:
        The device of this process.

    Raises:
        ConnectionError: if another process ends before its time.
        RuntimeError: what goes wrong inside for another reason.

    Examples:
        >>> with joined("cpu") as device:  # no other process
        ...     print(device)
        cpu
    """
    # torchrun sets these variables for each process.
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    # This module captures the default process group at import, and wrapping a model
    # imports it. Imported before there is a group, it captures none.
    importlib.import_module("torch.distributed.nn.functional")
    # The processes find each other through a common store. It outlives a restart, with
    # the addresses of dead processes still in it, so each attempt has its own prefix.
    store, own_rank, size = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        "nccl" if device.startswith("cuda") else "gloo",
        store=PrefixStore(f"attempt {attempt}", store),
        rank=own_rank,
        world_size=size,
    )
    try:
        yield device
    except RuntimeError as error:
        # The backends word a lost connection differently.
        lost = re.search(r"(closed|reset) by peer", str(error), re.IGNORECASE)
        if lost or isinstance(error, dist.DistError):
            raise ConnectionError(
                f"process {rank()} has lost the others: one of them has ended; its own "
                "message says why. The last checkpoint is whole: go on with --resume"
            ) from error
        raise
    finally:
        dist.destroy_process_group()
        # The group ends its threads once nothing refers to it, and a wrapped model
        # does. A thread that outlives Python sometimes aborts the process.
        gc.collect()


def share(starts: Int[Tensor, " batch"], parts: int) -> Sequence[Int[Tensor, " part"]]:
    r"""Take this process's share of a batch, in micro-batches.

    Every process samples the same starts, and reads the text only at its own.

    Args:
        starts: where the sequences of the whole batch begin.
        parts: how many micro-batches there are.

    Returns:
        For each micro-batch, where the sequences of this process begin.

    Raises:
        ValueError: if the batch cannot be divided evenly.

    Examples:
        >>> [part.tolist() for part in share(torch.arange(6), parts=3)]
        [[0, 1], [2, 3], [4, 5]]
    """
    n = world_size()
    if len(starts) % (parts * n):
        raise ValueError(
            f"batch_size={len(starts)} cannot be divided evenly among {n} processes "
            f"with grad_accum={parts}: make it a multiple of {parts * n}"
        )
    return starts.view(parts, n, -1)[:, rank()].unbind()


def wrap(model: nn.Module) -> nn.Module:
    """Make a model average its gradients with those of the other processes.

    Args:
        model: the model.

    Returns:
        The model, wrapped if there are other processes. Wrapping also gives all of them
        the weights of rank 0.

    Examples:
        >>> from torch import nn
        >>> model = nn.Linear(1, 1)
        >>> wrap(model) is model  # alone
        True
    """
    if world_size() == 1:
        return model
    # The tables of the rotation are the same in every process and need not be sent.
    # PyTorch 2.13 has renamed the option.
    names = ("forward_sync_buffers", "broadcast_buffers")
    known = inspect.signature(DistributedDataParallel).parameters
    option: dict[str, Any] = {next(name for name in names if name in known): False}
    return DistributedDataParallel(model, **option)


def average_gradients(model: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Say whether a backward pass averages gradients with the other processes.

    Args:
        model: what `wrap` returned.
        now: whether this is the last micro-batch; before it, gradients only add up.

    Returns:
        A context for forward and backward pass.

    Examples:
        >>> model = nn.Linear(1, 1)
        >>> with average_gradients(model, now=False):  # alone, it changes nothing
        ...     model(torch.ones(1)).backward()
        >>> model.bias.grad.tolist()
        [1.0]
    """
    if now or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return model.no_sync()


def mean(x: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Take the mean of a number over all processes.

    Args:
        x: the number of this process.

    Returns:
        The mean, the same in every process.
    """
    if world_size() > 1:
        dist.all_reduce(x)
        x = x / world_size()
    return x


def any_rank(yes: bool, device: torch.device) -> bool:
    """Ask whether a condition holds in any process.

    Args:
        yes: whether it holds here.
        device: where the model is.

    Returns:
        Whether it holds in any; all processes get the same answer.

    Examples:
        >>> any_rank(False, torch.device("cpu"))  # alone
        False
    """
    if world_size() == 1:
        return yes
    flag = torch.tensor(int(yes), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())
