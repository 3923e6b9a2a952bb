r"""Counting words: every distinct one once, in as many processes as you like."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack

from minillm.tokenizer.parallel import batches, check_workers, map_in_order, processes
from minillm.tokenizer.patterns import pretokenize
from minillm.tokenizer.streams import SAFE_CUT, source_documents, split_specials

__all__ = ["count_words"]


def _one_by_one(
    texts: Iterable[list[str]], advance: Callable[[int], object]
) -> Iterator[str]:
    for batch in texts:
        yield from batch
        advance(1)


def _count(task: tuple[Iterable[str], str, tuple[str, ...]]) -> Counter[bytes]:
    texts, pattern, specials = task
    parts = (part for text in texts for part in split_specials(text, specials)[::2])
    if pattern in SAFE_CUT:
        # NumPy is loaded only when it is needed.
        from minillm.tokenizer.arrays import RunCounter

        counter = RunCounter(pattern)
        for part in parts:
            counter.add(part)
        return counter.words()
    counts: Counter[bytes] = Counter()
    for part in parts:
        counts.update([word.encode() for word in pretokenize(part, pattern)])
    return counts


def count_words(
    source: str | os.PathLike[str] | Iterable[str],
    pattern: str,
    specials: tuple[str, ...] = (),
    workers: int | None = None,
    executor: Executor | None = None,
    advance: Callable[[int], object] = id,
) -> Counter[bytes]:
    r"""Count the distinct pre-tokens of a text.

    Args:
        source: a path, or an iterable of texts.
        pattern: the pre-tokenizer.
        specials: the special tokens to cut out.
        workers: how many processes count.
        executor: what counts in place of processes of our own.
        advance: is called after each batch of texts.

    Returns:
        Each pre-token and how often it occurs, in the order of first appearance.
        Batches may be counted anywhere and are put together in their order, so that the
        result does not depend on where.

    Raises:
        ValueError: if `workers` is below 1.

    Examples:
        >>> from minillm.tokenizer.patterns import GPT2_PATTERN
        >>> count_words(["the cat in the hat", "the end"], GPT2_PATTERN)
        Counter({b'the': 2, b' cat': 1, b' in': 1, b' the': 1, b' hat': 1, b' end': 1})
    """
    n_workers = check_workers(workers)
    texts = batches(source_documents(source, pattern, specials))
    if executor is None and n_workers == 1:
        # One counter for all: what it has met in one batch it knows in the next.
        return _count((_one_by_one(texts, advance), pattern, specials))
    counts: Counter[bytes] = Counter()
    with ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(processes(n_workers))
        n_workers = workers or os.cpu_count() or 1
        tasks = ((batch, pattern, specials) for batch in texts)
        for result in map_in_order(_count, tasks, executor, n_workers):
            counts.update(result)
            advance(1)
    return counts
