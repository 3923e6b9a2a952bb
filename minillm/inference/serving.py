r"""Many users: the same weights for all of them at once.

**The question.** A decoder takes all weights out of memory for one token
([`minillm.inference.decoder`][]). For eight users it could take them out once, and
compute eight tokens: a little more time, and several times the throughput. But users
come when they like, and one wants a word, another a page. How long does each of them
wait?

Nothing is served here. The time and the memory of a server are *counted*, on a trace of
requests, so that the same trace can be served in two ways.

**One step** of a batch costs a fixed time, for the weights, and a little for each
sequence in it. Take the fixed part as the unit of time, and a twentieth of it for each
sequence.

**Static batching** collects requests, and answers them together until the *last* of
them is done. A sequence that ends early leaves its seat empty. Here eight requests, all
there from the beginning, have four seats. Numbers of new tokens:

>>> lengths = [10, 100, 20, 30, 100, 10, 10, 40]
>>> requests = [Request(arrival=0, prompt=50, new=n) for n in lengths]
>>> static = simulate(requests, seats=4, continuous=False)
>>> static.steps, round(static.used, 2)
(200, 0.4)

Two batches of 100 steps each, and of the seats that were paid for, two in five wrote
something.

**Continuous batching** looks after *every step* whether a seat is free, and gives it to
the next request (Yu et al. 2022, "Orca", OSDI, section 3; there *iteration-level
scheduling*):

>>> continuous = simulate(requests, seats=4, continuous=True)
>>> continuous.steps, round(continuous.used, 2)
(110, 0.73)
>>> round(static.time / continuous.time, 2)
1.71

Each of them gets the same tokens; only the time changes.

**The cache is the other limit.** Keys and values of each sequence must lie somewhere,
and nobody knows beforehand how long it will be. If each gets room for the longest that
is allowed, most of it stays empty. *Paging* (Kwon et al. 2023, "PagedAttention",
arXiv:2309.06180, section 4) cuts the memory into blocks of, say, 16 tokens, and gives a
sequence one more block whenever it needs one. What is wasted is less than a block for
each sequence:

>>> longest = 1024
>>> waste(requests, longest, block=None), waste(requests, longest, block=16)
(7472, 48)

The same in bytes, for a model like SmolLM2 with 30 layers, 3 heads of keys and values
of 64 numbers each, in 16 bits:

>>> bytes_per_token = 2 * 2 * 30 * 3 * 64
>>> [round(waste(requests, longest, b) * bytes_per_token / 1e6, 1) for b in (None, 16)]
[172.2, 1.1]

On a trace as it might come, of 200 requests at random times and of random lengths:

>>> trace = random_trace(200, every=12.0, seed=0)
>>> found = [simulate(trace, seats=8, continuous=c) for c in (False, True)]
>>> found[0].mean_wait > 2 * found[1].mean_wait
True

# What we leave out

Reading a prompt is one step here, whatever its length. A server cuts long prompts into
chunks, so that other users' answers do not stall meanwhile (*chunked prefill*); and if
many prompts begin alike, it keeps the blocks of that beginning once for all of them
(*prefix caching*).

**Before this:** [`minillm.inference.decoder`][]; [`minillm.inference.batched`][]
computes several sequences at once.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Request", "Served", "random_trace", "simulate", "waste"]

# What a sequence adds to a step, in parts of what the weights take.
EACH = 0.05


class Request(NamedTuple):
    """What a user wants.

    Attributes:
        arrival: when it comes, in steps of an empty batch.
        prompt: how many tokens it has.
        new: how many tokens the answer will have, which the server does not know.
    """

    arrival: float
    prompt: int
    new: int


class Served(NamedTuple):
    """What serving a trace took.

    Attributes:
        steps: how often the weights were read.
        time: until the last answer was complete, in steps of an empty batch.
        used: the share of the seats that wrote something, over all steps.
        mean_wait: the mean *latency*, from the arrival of a request to its last token.
    """

    steps: int
    time: float
    used: float
    mean_wait: float


def simulate(requests: Sequence[Request], seats: int, continuous: bool) -> Served:
    r"""Serve a trace, step by step.

    Args:
        requests: in the order of their arrival, at least one.
        seats: how many sequences are in a batch at most.
        continuous: whether a seat is given away as soon as it is free, or all seats
            together when all are.

    Returns:
        What it took.

    Raises:
        ValueError: if there is nothing to serve, nowhere to do it, a request is
            impossible, or they are not in order.

    Examples:
        Alone, a request takes its steps, each a little longer for its own sake:

        >>> served = simulate([Request(arrival=3, prompt=5, new=4)], 1, continuous=True)
        >>> served.steps, round(served.time, 2), round(served.mean_wait, 2)
        (4, 7.2, 4.2)
    """
    if not requests or seats < 1:
        raise ValueError(
            f"serving takes a request and a seat; got {len(requests)} and {seats}"
        )
    _check(requests)
    arrivals = [request.arrival for request in requests]
    if arrivals != sorted(arrivals):
        raise ValueError("requests come in the order of their arrival: sort them")
    waiting = deque(requests)
    running: list[tuple[Request, int]] = []  # each with the tokens that it still needs
    now, steps, written, waits = 0.0, 0, 0, 0.0
    while waiting or running:
        if not running and waiting[0].arrival > now:
            now = waiting[0].arrival  # nobody is there
        if continuous or not running:
            while waiting and waiting[0].arrival <= now and len(running) < seats:
                request = waiting.popleft()
                running.append((request, request.new))
        now += 1 + EACH * len(running)
        steps += 1
        written += len(running)
        waits += sum(now - request.arrival for request, left in running if left == 1)
        running = [(request, left - 1) for request, left in running if left > 1]
    return Served(steps, now, written / (steps * seats), waits / len(requests))


def waste(requests: Sequence[Request], longest: int, block: int | None) -> int:
    r"""Count the room in the cache that requests hold and never fill.

    Args:
        requests: all of them.
        longest: how many tokens a sequence may have.
        block: how many tokens are given at once; `None` for the longest, at the start.

    Returns:
        Tokens, at the moment when each has its last one.

    Raises:
        ValueError: if a request is impossible or longer than that, or a block empty.

    Examples:
        >>> waste([Request(0, prompt=10, new=7)], longest=32, block=4)
        3
    """
    _check(requests)
    size = longest if block is None else block
    if size < 1:
        raise ValueError(f"a block has at least one token; got {size}: 16 is usual")
    total = 0
    for request in requests:
        length = request.prompt + request.new
        if length > longest:
            raise ValueError(
                f"a sequence may have {longest} tokens; a request needs {length}"
            )
        total += math.ceil(length / size) * size - length
    return total


def _check(requests: Sequence[Request]) -> None:
    for request in requests:
        if request.prompt < 1 or request.new < 1 or not math.isfinite(request.arrival):
            raise ValueError(
                "a request comes at some time, with at least one token, and wants one; "
                f"got {request}: leave it out"
            )


def random_trace(n: int, every: float, seed: int) -> list[Request]:
    r"""Make up requests: at random times, a few of them long.

    Args:
        n: how many.
        every: how many steps lie between two of them, on average.
        seed: fixes them.

    Returns:
        The requests, in the order of their arrival. The gaps follow an exponential
        distribution; the logarithms of the lengths a normal one, since most answers are
        short and a few are very long.

    Examples:
        >>> trace = random_trace(3, every=10.0, seed=0)
        >>> len(trace), trace == random_trace(3, every=10.0, seed=0)
        (3, True)
    """
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(every, n))
    prompts = np.clip(random.lognormal(4.0, 0.8, n), 1, 512).astype(int)
    new = np.clip(random.lognormal(4.0, 0.8, n), 1, 512).astype(int)
    return [
        Request(float(a), int(p), int(k))
        for a, p, k in zip(arrivals, prompts, new, strict=True)
    ]
