"""What do two processes bring that train together?

    python -m benchmarks.training [PART ...] [--turns N] [--quick] [--cpu]

The steps themselves are compared by `python -m benchmarks.model step compiled`.
"""

import statistics
import time

from benchmarks import shapes
from benchmarks.command import main
from benchmarks.measure import Part, Record
from benchmarks.shapes import QUICK, SIZES
from minillm.config import DEMO
from minillm.training.messages import measure_steps
from minillm.training.ranks import run_ranks


def steps(size: shapes.Size, n: int) -> list[float]:
    """Time steps of the trainer, in each of the processes that share a batch."""
    trainer, times = shapes.trainer(size), []
    for _ in range(n):
        start = time.perf_counter()
        trainer.step()
        times.append(time.perf_counter() - start)
    return times[n // 5 :]


def processes(record: Record) -> None:
    """Train with two processes that share a batch, and with one. Each has one thread.

    Timed is the whole step of the training loop. Both kinds are started anew in every
    turn, and the median of a turn's steps counts. On two cores one process of two
    threads needs no messages: several processes are for several machines.
    """
    size = QUICK["tiny"] if record.quick else SIZES["demo"]
    n = 5 if record.quick else 40
    found = record.interleave(
        {
            "one": lambda: [statistics.median(run_ranks(steps, 1, size, n)[0])],
            "two": lambda: [statistics.median(run_ranks(steps, 2, size, n)[0])],
            "threads": lambda: [statistics.median(steps(size, n))],
        },
        *(3, 1, 0),
    )
    one, two, threads = ([seconds for (seconds,) in row] for row in found.values())
    case = "demo, two processes"
    record.row(case, two, "one process", one, target=("ratio >=", 1.5))
    record.row(case, two, "one process, two threads", threads)


def messages(record: Record) -> None:
    """Average the gradients of two processes, in one message or one by one.

    Each process has one thread and half of the demo's batch; timed are forward and
    backward pass with the averaging. The peer sends a message for each weight.
    """
    turns = 2 if record.quick else record.turns(60)
    found = run_ranks(measure_steps, 2, DEMO, turns, seconds=max(record.left(), 60))[0]
    record.row(
        *("demo, in one bucket", found["in one bucket"]),
        *("one by one", found["one by one"]),
    )


PARTS = {"processes": Part(processes, 40), "messages": Part(messages, 20)}

if __name__ == "__main__":
    main("training", __doc__, PARTS)
