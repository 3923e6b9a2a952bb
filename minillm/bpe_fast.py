r"""The same answers, sooner.

[`minillm.bpe`][] says what the answers are. This page gives them in a time that one can
wait for. Each part says what it does otherwise.
"""

import heapq
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import islice, pairwise
from multiprocessing import get_context
from typing import Any, Final, TypeVar

from minillm.bpe_patterns import BYTE_RANK, GPT2_PATTERN, pretokenize
from minillm.bpe_source import (
    BLOCK,
    SAFE_CUT,
    check_training,
    report_shortage,
    source_documents,
    split_specials,
)

__all__ = ["count_chunks", "map_in_order", "merge_chunks", "processes", "train_bpe"]

Pair = tuple[int, int]
Merge = tuple[bytes, bytes]
Item = TypeVar("Item")
Result = TypeVar("Result")


def train_bpe(
    source: str | os.PathLike[str] | Iterable[str],
    vocab_size: int,
    special_tokens: Iterable[str] = (),
    *,
    pattern: str = GPT2_PATTERN,
    tie_break: str = "bytes",
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> tuple[dict[int, bytes], list[Merge]]:
    r"""Learn merges from text.

    The same result as [`train_bpe_naive`][minillm.bpe.train_bpe_naive]. Unlike it:

    - each distinct pre-token is kept once, with its count;
    - the text is read as a stream, so that memory grows with the number of distinct
      pre-tokens and not with the text;
    - after a merge only what it has changed is counted again;
    - the most frequent pair comes from a heap.

    Args:
        source: a path, or an iterable of texts.
        vocab_size: how many tokens there shall be.
        special_tokens: the special tokens, cut out of the text.
        pattern: the pre-tokenizer.
        tie_break: the rule for ties.
        workers: how many processes count; without it, this one alone. The result is the
            same. A script that asks for more has to guard what it does at its top level
            with `if __name__ == "__main__":`, since each process imports it.
        executor: counts in place of processes of our own: any executor in the manner
            of `concurrent.futures`, also one whose workers are on other machines.
            `workers` then says how many it has.
        progress: whether to show a bar.

    Returns:
        The vocabulary and the merges.

    Raises:
        ValueError: if there is no text, or if an argument is not what it should be.

    Examples:
        >>> vocab, merges = train_bpe(["the cat in the hat"], 259)
        >>> merges
        [(b't', b'h'), (b'th', b'e'), (b'a', b't')]
    """
    specials = check_training(vocab_size, special_tokens, tie_break)
    wanted = vocab_size - 256 - len(specials)
    with _progress_bar(progress) as advance:
        chunks = count_chunks(
            source, pattern, specials, workers, executor, advance("counting", None)
        )
        if not chunks:
            raise ValueError("there is no text to learn from: the source is empty")
        pairs = merge_chunks(chunks, wanted, tie_break, advance("merging", wanted))
    report_shortage(len(pairs), wanted)
    vocab = {byte: bytes([byte]) for byte in range(256)}
    merges = []
    for a, b in pairs:
        merges.append((vocab[a], vocab[b]))
        vocab[len(vocab)] = vocab[a] + vocab[b]
    for token in specials:
        vocab[len(vocab)] = token.encode()
    return vocab, merges


@contextmanager
def _progress_bar(
    show: bool,
) -> Generator[Callable[[str, int | None], Callable[[int], object]], None, None]:
    if not show:
        yield lambda _name, _total: lambda _done: None
        return
    from rich.progress import Progress

    with Progress() as bar:

        def start(name: str, total: int | None) -> Callable[[int], object]:
            task = bar.add_task(name, total=total)
            return lambda done: bar.update(task, advance=done)

        yield start


# Several processes.


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
    if workers is not None and workers < 1:
        raise ValueError(f"workers is at least 1, not {workers}")
    return workers or 1


# Counting.


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    r"""Put texts together until sending them costs little beside working on them."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BLOCK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _count(task: tuple[list[str], str, tuple[str, ...]]) -> Counter[bytes]:
    texts, pattern, specials = task
    parts = [part for text in texts for part in split_specials(text, specials)[::2]]
    if pattern in SAFE_CUT:
        # NumPy is loaded only when it is needed.
        from minillm.bpe_runs import RunCounter

        counter = RunCounter(pattern)
        for part in parts:
            counter.add(part)
        return counter.words()
    counts: Counter[bytes] = Counter()
    for part in parts:
        counts.update([word.encode() for word in pretokenize(part, pattern)])
    return counts


def count_chunks(
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
        Batches are counted anywhere and put together in their order, so that the result
        does not depend on who counts.

    Raises:
        ValueError: if `workers` is below 1.

    Examples:
        >>> count_chunks(["the cat in the hat", "the end"], GPT2_PATTERN)
        Counter({b'the': 2, b' cat': 1, b' in': 1, b' the': 1, b' hat': 1, b' end': 1})
    """
    n_workers = check_workers(workers)
    documents = source_documents(source, pattern, specials)
    tasks = ((batch, pattern, specials) for batch in batches(documents))
    counts: Counter[bytes] = Counter()
    with ExitStack() as stack:
        if executor is None and n_workers > 1:
            executor = stack.enter_context(processes(n_workers))
        results: Iterable[Counter[bytes]]
        if executor is None:
            results = map(_count, tasks)
        else:
            n_workers = workers or os.cpu_count() or 1
            results = map_in_order(_count, tasks, executor, n_workers)
        for result in results:
            counts.update(result)
            advance(1)
    return counts


# Merging.


def merge_chunks(
    chunks: Mapping[bytes, int],
    n_merges: int,
    tie_break: str,
    advance: Callable[[int], object] = id,
) -> list[Pair]:
    r"""Learn merges from distinct pre-tokens and their counts.

    Args:
        chunks: the pre-tokens and how often each occurs.
        n_merges: how many merges to learn.
        tie_break: the rule for ties.
        advance: is called after each merge.

    Returns:
        The merges as pairs of ids; the first makes the token 256.

    Examples:
        >>> merge_chunks({b"the": 2, b" hat": 1}, 2, "bytes")
        [(116, 104), (256, 101)]
    """
    words = [list(chunk) for chunk in chunks]
    weights = list(chunks.values())
    # How often each pair occurs, and in which words. The words are in ascending order;
    # some may have lost the pair since.
    counts: dict[Pair, int] = {}
    where: dict[Pair, list[int]] = {}

    def add(pair: Pair, index: int) -> None:
        if pair not in counts:
            counts[pair] = 0
            where[pair] = []
        counts[pair] += weights[index]
        if not where[pair] or where[pair][-1] != index:
            where[pair].append(index)

    for index, word in enumerate(words):
        for pair in pairwise(word):
            add(pair, index)

    tokens = [bytes([byte]) for byte in range(256)]
    order = _order(tie_break, tokens, words, where)
    heap = [(-count, order(pair), pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        entry = heapq.heappop(heap)
        pair = entry[2]
        if not counts[pair]:
            continue
        # A count can only fall, and a first place only move back. An entry that is out
        # of date is therefore too early in the heap, never too late: put it back where
        # it belongs, and look again.
        current = (-counts[pair], order(pair), pair)
        if current != entry:
            heapq.heappush(heap, current)
            continue
        merges.append(pair)
        a, b = pair
        new_id = len(tokens)
        tokens.append(tokens[a] + tokens[b])
        made: set[Pair] = set()
        for index in where[pair]:
            word, weight = words[index], weights[index]
            out: list[int] = []
            i, end = 0, len(word)
            while i < end:
                if word[i] != a or i + 1 == end or word[i + 1] != b:
                    out.append(word[i])
                    i += 1
                    continue
                if out:
                    counts[out[-1], a] -= weight
                    add((out[-1], new_id), index)
                    made.add((out[-1], new_id))
                if i + 2 < end:
                    counts[b, word[i + 2]] -= weight
                    add((new_id, word[i + 2]), index)
                    made.add((new_id, word[i + 2]))
                out.append(new_id)
                i += 2
            words[index] = out
        counts[pair] = 0
        del where[pair]
        for new_pair in made:
            # In "abab" the pair (ab, a) is made, and unmade by the next merge.
            if counts[new_pair]:
                heapq.heappush(heap, (-counts[new_pair], order(new_pair), new_pair))
        advance(1)
    return merges


# Every byte b as 255 - b, so that the greatest token comes first.
_COMPLEMENT: Final = bytes(range(255, -1, -1))


def _order(
    tie_break: str,
    tokens: list[bytes],
    words: list[list[int]],
    where: dict[Pair, list[int]],
) -> Callable[[Pair], tuple[Any, ...]]:
    r"""Turn the rule for ties into a function: the smaller its value, the better."""

    @cache
    def descending(id_: int) -> str:
        # A token that goes on is greater than one that ends, so the end gets the
        # greatest of all characters.
        return tokens[id_].translate(_COMPLEMENT).decode("latin-1") + "\u0100"

    def first_place(pair: Pair) -> tuple[int, int]:
        for n_stale, index in enumerate(where[pair]):
            place = 0
            for neighbours in pairwise(words[index]):
                if neighbours == pair:
                    del where[pair][:n_stale]
                    return index, place
                place += len(tokens[neighbours[0]])
        raise AssertionError("a pair with a count is in some word")

    if tie_break == "first":
        return first_place
    if tie_break == "bytes":
        return lambda pair: (descending(pair[0]), descending(pair[1]))
    return lambda pair: tuple([BYTE_RANK.get(id_, id_) for id_ in pair])
