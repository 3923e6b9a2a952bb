r"""The same answers, sooner.

[`minillm.bpe`][] says what the answers are. This page gives them in a time that one can
wait for. Each part says what it does otherwise.
"""

import heapq
import os
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import islice, pairwise
from multiprocessing import get_context
from operator import add
from typing import Any, Final, TypeVar

from minillm.tokenizer.cuts import SAFE_CUT, split_specials
from minillm.tokenizer.patterns import BYTE_RANK, GPT2_PATTERN, pretokenize
from minillm.tokenizer.source import (
    BLOCK,
    check_training,
    report_shortage,
    source_documents,
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
    - the most frequent pair comes from a queue that keeps them in order.

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
    if vocab_size > sys.maxunicode + 1:
        raise ValueError(
            f"vocab_size is at most {sys.maxunicode + 1}, since this trainer writes a "
            f"token as a character; got {vocab_size}"
        )
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
        from minillm.tokenizer.words import RunCounter

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


# Merging.


def merge_chunks(
    chunks: Mapping[bytes, int],
    n_merges: int,
    tie_break: str,
    advance: Callable[[int], object] = id,
) -> list[Pair]:
    r"""Learn merges from distinct pre-tokens and their counts.

    Three ideas make this fast:

    - *A token is a character.* The token 300 is `chr(300)`, a word is a string of such
      characters, a pair a string of two. Then `word.split(pair)` finds all places of a
      pair at once, and `token.join` puts the new token there. Both are written in C.
    - *Only neighbours change.* Where `a b` becomes one token between `x` and `y`, the
      pairs `x a` and `b y` are lost, and two pairs with the new token gained. Nothing
      else is counted again.
    - *Rare pairs wait.* Counts never grow once a pair exists. So pairs wait in groups
      of equal count, and only those of the largest count are put in the order of the
      rule for ties. Most pairs are never looked at again.

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
    words = [chunk.decode("latin-1") for chunk in chunks]
    weight = list(chunks.values()).__getitem__
    # The words in which a pair occurs, once for each occurrence, in ascending order.
    # Some may have lost the pair since.
    where: dict[str, list[int]] = defaultdict(list)
    for index, word in enumerate(words):
        for pair in map(add, word, word[1:]):
            where[pair].append(index)
    counts = {pair: sum(map(weight, places)) for pair, places in where.items()}
    tokens = [bytes([byte]) for byte in range(256)]
    order = _order(tie_break, tokens, words, where)
    merges: list[Pair] = []
    queue = _Queue(counts, order)
    while len(merges) < n_merges and (pair := queue.pop()):
        a, b = pair[0], pair[1]
        merges.append((ord(a), ord(b)))
        new = chr(len(tokens))
        tokens.append(tokens[ord(a)] + tokens[ord(b)])
        for lost, gained, places in _replace(words, where.pop(pair), pair, new):
            count = sum(map(weight, places))
            counts[lost] -= count
            counts[gained] = count
            where[gained] = places
            queue.push(gained)
        advance(1)
    return merges


def _replace(
    words: list[str], indices: Iterable[int], pair: str, new: str
) -> list[tuple[str, str, list[int]]]:
    r"""Put a new token into words, and tell which pairs change, to which, and where."""
    a, b = pair[0], pair[1]
    # By neighbour: the words in which it stood left of the pair, and right of it.
    left: dict[str, list[int]] = defaultdict(list)
    right: dict[str, list[int]] = defaultdict(list)
    # Words in which the pair stood beside itself, as in "abab".
    twins: list[int] = []
    last = -1
    for index in indices:
        # All places in a word are done at its first turn. And two of five words have
        # lost the pair to merges since.
        if index == last or pair not in words[index]:
            continue
        last = index
        pieces = words[index].split(pair)
        words[index] = new.join(pieces)
        for before, after in pairwise(pieces):
            if before:
                left[before[-1]].append(index)
            if after:
                right[after[0]].append(index)
        if len(pieces) > 2:
            twins += [index] * pieces[1:-1].count("")
    changes = [(x + a, x + new, places) for x, places in left.items()]
    changes += [(b + y, new + y, places) for y, places in right.items()]
    return [*changes, (b + a, new + new, twins)] if twins else changes


class _Queue:
    r"""Pairs, of which the one with the largest count comes out first.

    A count may fall while its pair waits. The pair is then too early in the queue,
    never too late: when its turn comes it is put back to where it belongs.
    """

    def __init__(
        self, counts: Mapping[str, int], order: Callable[[str], tuple[Any, ...]]
    ) -> None:
        self.counts, self.order = counts, order
        self.waiting: dict[int, list[str]] = {}
        # The counts at which pairs wait, as a heap with the largest first …
        self.levels: list[int] = []
        # … and the pairs of the largest count, as a heap in the order of the rule.
        self.level = 0
        self.best: list[tuple[tuple[Any, ...], str]] = []
        for pair in counts:
            self.push(pair)

    def push(self, pair: str) -> None:
        count = self.counts[pair]
        if count == self.level and count:
            heapq.heappush(self.best, (self.order(pair), pair))
        elif count in self.waiting:
            self.waiting[count].append(pair)
        elif count:
            self.waiting[count] = [pair]
            heapq.heappush(self.levels, -count)

    def pop(self) -> str | None:
        while self.best or self.levels:
            if not self.best:
                self.level = -heapq.heappop(self.levels)
                for pair in self.waiting.pop(self.level):
                    self.push(pair)
                continue
            pair = heapq.heappop(self.best)[1]
            # A pair that has kept its count has kept its place, whatever the rule.
            if self.counts[pair] == self.level:
                return pair
            self.push(pair)
        return None


# Every byte b as 255 - b, so that the greatest token comes first.
_COMPLEMENT: Final = bytes(range(255, -1, -1))


def _order(
    tie_break: str,
    tokens: list[bytes],
    words: list[str],
    where: Mapping[str, list[int]],
) -> Callable[[str], tuple[Any, ...]]:
    r"""Turn the rule for ties into a function: the smaller its value, the better."""

    @cache
    def descending(token: str) -> str:
        # A token that goes on is greater than one that ends, so the end gets the
        # greatest of all characters.
        return tokens[ord(token)].translate(_COMPLEMENT).decode("latin-1") + "\u0100"

    def first_place(pair: str) -> tuple[int, int]:
        index = next(index for index in where[pair] if pair in words[index])
        before = words[index].partition(pair)[0]
        return index, sum(len(tokens[ord(token)]) for token in before)

    if tie_break == "first":
        return first_place
    if tie_break == "bytes":
        return lambda pair: (descending(pair[0]), descending(pair[1]))
    return lambda pair: tuple([BYTE_RANK.get(id_, id_) for id_ in map(ord, pair)])
