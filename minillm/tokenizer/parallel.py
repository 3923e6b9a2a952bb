r"""Several processes: work handed out in order, and no more of it than needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import Any, Final, TypeVar

__all__ = ["batches", "check_workers", "map_in_order", "processes"]

Item = TypeVar("Item")
Result = TypeVar("Result")

# A task holds texts of at least this many characters.
TASK: Final = 1 << 20


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    executor: Executor,
    workers: int,
) -> Iterator[Result]:
    r"""Do what `executor.map` does, without reading all items at once.

    Args:
        function: what to do.
        items: with what.
        executor: where.
        workers: how many can work at the same time. Twice as many items are under way.

    Yields:
        The results, in the order of the items.

    Examples:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from itertools import count
        >>> with ThreadPoolExecutor(2) as pool:
        ...     squares = map_in_order(lambda i: i * i, count(), pool, workers=2)
        ...     [next(squares) for _ in range(5)]
        [0, 1, 4, 9, 16]
    """
    items = iter(items)
    under_way: deque[Future[Result]] = deque()
    for item in islice(items, 2 * workers):
        under_way.append(executor.submit(function, item))
    while under_way:
        result = under_way.popleft().result()
        for item in islice(items, 1):
            under_way.append(executor.submit(function, item))
        yield result


def processes(workers: int, *initializer: Any) -> ProcessPoolExecutor:
    """Start processes. A forked one may inherit a held lock, so they start afresh."""
    return ProcessPoolExecutor(workers, get_context("spawn"), *initializer)


def check_workers(workers: int | None) -> int:
    r"""Return how many processes shall work.

    Args:
        workers: how many are asked for; None for this one alone.

    Returns:
        The number.

    Raises:
        ValueError: if it is below 1.

    Examples:
        >>> check_workers(None), check_workers(3)
        (1, 3)
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is at least 1, not {workers}")
    return workers or 1


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    r"""Put texts together until sending them costs little beside working on them.

    Args:
        texts: the texts.

    Yields:
        Lists of texts, of a million characters or more but for the last.

    Examples:
        >>> [len(batch) for batch in batches(["a" * 400_000] * 7)]
        [3, 3, 1]
    """
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= TASK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
