r"""Ranks: a few processes of this machine that compute together, within a time limit.

**The question.** Two processes wait for each other in every collective operation. What
if one of them has died, or waits for something else? Then the other waits for ever,
unless somebody counts the seconds.

[`run_ranks`][minillm.training.ranks.run_ranks] starts processes, joins them in a group,
lets each call the same function, and returns what each returned. Whatever goes wrong in
whichever of them comes back as *one* error, and nothing is left running. It is meant
for experiments of seconds; trainings are started by torchrun
([`minillm.training.distributed`][]).

Ranks that agree on the number of a message and not on its size are the worst case: each
waits for bytes that the other does not send. So
[`check_same_shapes`][minillm.training.ranks.check_same_shapes] asks first.

>>> import torch
>>> check_same_shapes([torch.zeros(2, 3)])  # alone, a process agrees with itself
"""

import gc
import multiprocessing
import os
import queue
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from minillm.training.distributed import world_size

__all__ = ["check_same_shapes", "run_ranks"]


def check_same_shapes(arrays: Sequence[Tensor]) -> None:
    """Make sure that all ranks are about to send arrays of the same shapes.

    Args:
        arrays: what this rank will send, in order.

    Raises:
        ValueError: in every rank, if two of them differ.

    Examples:
        >>> check_same_shapes([])
    """
    if world_size() == 1:
        return
    mine = [(tuple(x.shape), str(x.dtype)) for x in arrays]
    theirs: list[Any] = [None] * world_size()
    dist.all_gather_object(theirs, mine)
    for rank, shapes in enumerate(theirs):
        if shapes != theirs[0]:
            i, (a, b) = _first_difference(theirs[0], shapes)
            raise ValueError(
                f"ranks must hold equal arrays; array {i} is {a} in rank 0 and {b} in "
                f"rank {rank}: give all of them the same model"
            )


def _first_difference(a: list[Any], b: list[Any]) -> tuple[int, tuple[str, str]]:
    length = max(len(a), len(b))
    padded = [
        [*(f"{shape} of {dtype}" for shape, dtype in x), *["missing"] * length][:length]
        for x in (a, b)
    ]
    i = next(i for i in range(length) if padded[0][i] != padded[1][i])
    return i, (padded[0][i], padded[1][i])


def run_ranks(
    work: Callable[..., Any], world: int, *arguments: Any, seconds: float = 60.0
) -> list[Any]:
    """Call a function in several processes that can send each other messages.

    Each process has one thread.

    Args:
        work: the function, at the top of a module. In it,
            [`rank`][minillm.training.distributed.rank] says who one is.
        world: how many processes.
        *arguments: passed to each.
        seconds: how long each collective operation may take, and, with ten more for
            the start, the whole.

    Returns:
        What each rank returned, in order.

    Raises:
        ValueError: if `world` is not positive; or what a rank has raised.
        ChildProcessError: if a rank ended without a word.
        RuntimeError: if a rank raised an error of another kind.
        TimeoutError: if the time is over.
    """
    if world < 1:
        raise ValueError(f"a group has one process at least; got world={world}")
    start = multiprocessing.get_context("spawn")
    words = start.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        ranks = [
            start.Process(
                target=_rank,
                args=(words, work, r, world, store, seconds, arguments),
                daemon=True,
            )
            for r in range(world)
        ]
        kept = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"
        try:
            for process in ranks:
                process.start()
            return _collect(ranks, words, seconds + 10)
        finally:
            os.environ.pop("OMP_NUM_THREADS")
            if kept is not None:
                os.environ["OMP_NUM_THREADS"] = kept
            for process in ranks:
                process.kill()
                process.join()


def _collect(ranks: list[Any], words: Any, seconds: float) -> list[Any]:
    """Wait for all; after the first failure, a moment for the one that caused it."""
    end = time.monotonic() + seconds
    told: dict[int, tuple[bool, Any]] = {}
    failed = False
    while len(told) < len(ranks) and time.monotonic() < end:
        try:
            r, fine, value = words.get(timeout=0.1)
            told[r] = fine, value
        except queue.Empty:
            fine = all(p.is_alive() or r in told for r, p in enumerate(ranks))
        if not fine and not failed:
            failed, end = True, min(end, time.monotonic() + 2)
    # One that died is the reason why others lost it; one that lost others is no reason.
    for r, process in enumerate(ranks):
        if r not in told and not process.is_alive():
            raise ChildProcessError(
                f"rank {r} of {len(ranks)} ended with code {process.exitcode} and no "
                "word: it was killed, or has crashed"
            )
    errors = [(r, value) for r, (fine, value) in told.items() if not fine]
    for r, (error, text) in sorted(errors, key=lambda e: "peer" in e[1][1]):
        if isinstance(error, ValueError):
            raise error
        raise RuntimeError(f"rank {r} of {len(ranks)} failed: {text}") from error
    if len(told) < len(ranks):
        silent = [r for r in range(len(ranks)) if r not in told]
        raise TimeoutError(
            f"ranks {silent} of {len(ranks)} did not finish within {seconds:g} "
            "seconds: they wait for each other, or need a higher limit"
        )
    return [told[r][1] for r in range(len(ranks))]


def _rank(
    words: Any,
    work: Callable[..., Any],
    rank: int,
    world: int,
    store: str,
    seconds: float,
    arguments: Any,
) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{store}",
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=seconds),
        )
        words.put((rank, True, work(*arguments)))
        # Nobody leaves while another may still wait for it.
        dist.barrier()
    except Exception as error:
        # An error of a kind that this module cannot send is sent as its text.
        sent = error if isinstance(error, ValueError) else None
        last = traceback.format_exception_only(error)[-1].strip()
        words.put((rank, False, (sent, last)))
    finally:
        dist.destroy_process_group()
        gc.collect()
