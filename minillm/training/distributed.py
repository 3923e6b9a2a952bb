r"""Past one machine: several processes that train one model.

**The question.** A step reads a batch, and its pieces do not depend on each other. So
two machines could read half of it each. What do they have to tell each other, so that
both end up with the model that one would have made alone?

Very little, but in every step. The gradient of a mean is the mean of the gradients:

>>> pieces = torch.tensor([1.0, 2.0, 3.0, 4.0])
>>> def gradient(pieces):
...     w = torch.tensor(5.0, requires_grad=True)
...     return torch.autograd.grad(((w - pieces) ** 2).mean(), w)[0].item()
>>> gradient(pieces), (gradient(pieces[:2]) + gradient(pieces[2:])) / 2
(5.0, 5.0)

So each process keeps a copy of the model, computes the gradient of its share, and all
replace theirs by the mean of all. Equal weights and equal gradients make equal steps,
and the copies never drift apart. PyTorch's `DistributedDataParallel` does the telling
while the backward pass is still under way; `torchrun` starts the processes, and starts
them again if one dies:

```console
torchrun --standalone --nproc-per-node 2 -m minillm train --out runs/two
```

`--standalone` finds a free port for the processes of this one machine; without it, two
such jobs would meet at the same port. On several machines, call it on each with
`--nnodes`, `--node-rank` and `--rdzv-endpoint` instead. torchrun gives each of several
processes one thread unless `OMP_NUM_THREADS` says otherwise, so two processes keep two
cores busy. `--max-restarts 3` starts the job again, from its last checkpoint, if a
process dies.

A process that was not started like this is a world of one, and everything here does
nothing:

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
    "any_of_us",
    "gather_gradients",
    "joined",
    "mean",
    "rank",
    "share",
    "was_restarted",
    "world_size",
    "wrap",
]


def rank() -> int:
    """Say which of the processes this is.

    Returns:
        A number from 0. The process with number 0 does the writing.
    """
    return dist.get_rank() if _several() else 0


def world_size() -> int:
    """Say how many processes there are.

    Returns:
        Their number, 1 without torchrun.
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
        >>> with joined("cpu") as device:  # nobody to join
        ...     print(device)
        cpu
    """
    # torchrun tells each process who it is by these variables.
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    # This module keeps the group of its moment as the default of its arguments, and
    # wrapping a model imports it. Imported before there is a group, it keeps none.
    importlib.import_module("torch.distributed.nn.functional")
    # The processes find each other through a common store. It outlives a restart, with
    # the addresses of the dead still in it, so each attempt has a part of its own.
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
        # What the libraries below say when nobody answers differs between them.
        lost = re.search(r"(closed|reset) by peer", str(error), re.IGNORECASE)
        if lost or isinstance(error, dist.DistError):
            raise ConnectionError(
                f"process {rank()} has lost the others: one of them has ended; its own "
                "message says why. The last checkpoint is whole: go on with --resume"
            ) from error
        raise
    finally:
        dist.destroy_process_group()
        # The group ends its threads when nobody holds it any more, which a wrapped
        # model does. A thread that outlives Python aborts the process, now and then.
        gc.collect()


def share(starts: Int[Tensor, " batch"], parts: int) -> Sequence[Int[Tensor, " part"]]:
    r"""Take this process's share of a batch, in parts.

    Every process draws the same places, and reads the text only at its own.

    Args:
        starts: where the pieces of the whole batch begin.
        parts: in how many parts it goes through the model.

    Returns:
        For each part, where the pieces of this process begin.

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
    """Let a model tell its gradients to the other processes.

    Args:
        model: the model.

    Returns:
        The same model alone, or in its wrapping. Wrapping it also gives all processes
        the weights of process 0.

    Examples:
        >>> model = nn.Linear(1, 1)
        >>> wrap(model) is model  # alone
        True
    """
    if world_size() == 1:
        return model
    # The tables of the rotation are the same everywhere and need no sending. PyTorch
    # 2.13 has given the option another name.
    names = ("forward_sync_buffers", "broadcast_buffers")
    known = inspect.signature(DistributedDataParallel).parameters
    option: dict[str, Any] = {next(name for name in names if name in known): False}
    return DistributedDataParallel(model, **option)


def gather_gradients(model: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Say when a backward pass shall take the mean with the other processes.

    Args:
        model: what `wrap` returned.
        now: whether this is the last part of the batch. Before, gradients only add up.

    Returns:
        A context for forward and backward pass.

    Examples:
        >>> model = nn.Linear(1, 1)
        >>> with gather_gradients(model, now=False):  # alone, it changes nothing
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
        The mean, the same everywhere.
    """
    if world_size() > 1:
        dist.all_reduce(x)
        x = x / world_size()
    return x


def any_of_us(yes: bool, device: torch.device) -> bool:
    """Ask whether anything is so in any process.

    Args:
        yes: whether it is so here.
        device: where the model is.

    Returns:
        Whether it is so anywhere; all processes get the same answer.

    Examples:
        >>> any_of_us(False, torch.device("cpu"))  # alone
        False
    """
    if world_size() == 1:
        return yes
    flag = torch.tensor(int(yes), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())
