r"""How training becomes fast.

[`train_bpe_naive`][minillm.bpe.train_bpe_naive] goes through the whole text again for
each merge. In Andersen's tales that means more than a million pairs, thousands of
times:

>>> from minillm.bpe import GPT2_PATTERN, pretokenize, train_bpe
>>> from minillm.data import andersen
>>> tales = andersen()
>>> words = [word for tale in tales for word in pretokenize(tale, GPT2_PATTERN)]
>>> sum(len(word.encode()) - 1 for word in words)
1335334

Three observations turn hours into seconds, and none of them changes a single merge.

**Words come back.** A language has few words and uses them again and again. So each
distinct pre-token is kept once, with its count, and the text itself is not needed any
more. In the tales this leaves one pre-token in 28, and one pair in 15:

>>> len(words), len(set(words)), sum(len(word.encode()) - 1 for word in set(words))
(391418, 13834, 89148)

**A merge changes few words.** Counting even these pairs again after every merge is
mostly wasted: the pair of the thousandth merge occurs in only six of the 13,834 words,
and nothing has changed in the others.

>>> _, merges = train_bpe(tales, 256 + 1000)
>>> merges[-1], sum(b" mill" in word.encode() for word in set(words))
((b' m', b'ill'), 6)

**Most pairs never win.** Searching all counts for the largest one would again take
longer than the merge itself. So the pairs wait in a *priority queue*, which always has
the most frequent one on top. [`merge_pairs`][minillm.tokenizer.learning.merge_pairs]
below puts the three together.

The rest of the time goes into counting words. How that is done for a whole block of
text at once is told behind the scenes, in [`minillm.tokenizer.arrays`][], and so is
[how encoding becomes fast][minillm.tokenizer.encoding].
"""

import gc
import heapq
import logging
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from minillm.tokenizer.counting import count_words
from minillm.tokenizer.patterns import BYTE_RANK, GPT2_PATTERN
from minillm.tokenizer.streams import check_specials
from minillm.tokenizer.words import Merge, Pair

if TYPE_CHECKING:
    from minillm.tokenizer.positions import PairPositions, Positions

__all__ = ["check_training", "merge_pairs", "report_shortage", "train_bpe"]

TIE_BREAKS: Final = ("bytes", "first", "huggingface", "ids")


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
    specials = check_training(source, vocab_size, special_tokens, tie_break)
    wanted = vocab_size - 256 - len(specials)
    with _progress_bar(progress) as advance, _no_garbage_collection():
        words = count_words(
            source, pattern, specials, workers, executor, advance("counting", None)
        )
        if not words:
            raise ValueError("there is no text to learn from: the source is empty")
        pairs = merge_pairs(words, wanted, tie_break, advance("merging", wanted))
    report_shortage(len(pairs), wanted)
    vocab = {byte: bytes([byte]) for byte in range(256)}
    merges = []
    for a, b in pairs:
        merges.append((vocab[a], vocab[b]))
        vocab[len(vocab)] = vocab[a] + vocab[b]
    for token in specials:
        vocab[len(vocab)] = token.encode()
    return vocab, merges


def merge_pairs(
    counted: Mapping[bytes, int],
    n_merges: int,
    tie_break: str,
    advance: Callable[[int], object] = id,
) -> list[Pair]:
    r"""Learn merges from distinct pre-tokens and their counts.

    Two ideas make this fast:

    - *Only neighbours change.* Where `a b` becomes one token between `x` and `y`, the
      pairs `x a` and `b y` are lost, and two pairs with the new token gained. Nothing
      else is counted again. [`minillm.tokenizer.positions`][] finds out where that is.
    - *Rare pairs wait.* Counts never grow once a pair exists. So pairs wait in groups
      of equal count, and only those of the largest count are put in the order of the
      rule for ties. Most pairs are never looked at again.

    Args:
        counted: the pre-tokens and how often each occurs.
        n_merges: how many merges to learn.
        tie_break: the rule for ties.
        advance: is called after each merge.

    Returns:
        The merges as pairs of ids; the first makes the token 256.

    Examples:
        >>> merge_pairs({b"the": 2, b" hat": 1}, 2, "bytes")
        [(116, 104), (256, 101)]
    """
    # NumPy is loaded only when it is needed.
    from minillm.tokenizer.positions import PairPositions

    positions = PairPositions(counted)
    tokens = [bytes([byte]) for byte in range(256)]
    # Of each pair, by its number: the two tokens, how often they are neighbours, and
    # where they have been. Some positions may belong to another pair by now.
    pairs: list[Pair] = []
    counts: list[int] = []
    where: list[Positions] = []
    queue = _Queue(counts, _order(tie_break, tokens, pairs, where, positions))

    def add(pair: Pair, count: int, group: "Positions") -> None:
        pairs.append(pair)
        counts.append(count)
        where.append(group)
        queue.push(len(counts) - 1)

    for two_bytes, group, count in positions.renumber(positions.all(), 0, 0):
        add(divmod(two_bytes, 256), count, group)
    merges: list[Pair] = []
    while len(merges) < n_merges and (number := queue.pop()) is not None:
        a, b = pairs[number]
        new = len(tokens)
        merges.append((a, b))
        tokens.append(tokens[a] + tokens[b])
        left, right = len(tokens[a]), len(tokens[b])
        merged = positions.merge(number, where[number], left if a == b else 0)
        where[number] = []
        # In "abab" the pair in the middle changes twice: `b a`, `b ab`, `ab ab`.
        for shift in (-left, right):
            for lost, group, count in positions.renumber(merged, shift, len(counts)):
                counts[lost] -= count
                if not counts[lost]:
                    where[lost] = []  # gives back their memory
                x, y = pairs[lost]
                add((x, new) if shift < 0 else (new, y), count, group)
        advance(1)
    return merges


class _Queue:
    r"""Pairs, of which the one with the largest count comes out first.

    A count may fall while its pair waits. The pair is then too early in the queue,
    never too late: when its turn comes it is put back to where it belongs.
    """

    def __init__(self, counts: list[int], order: Callable[[int], Any]) -> None:
        self.counts, self.order = counts, order
        self.waiting: dict[int, list[int]] = {}
        # The counts at which pairs wait, as a heap with the largest first …
        self.levels: list[int] = []
        # … and the pairs of the largest count, as a heap in the order of the rule.
        self.level = 0
        self.best: list[tuple[Any, int]] = []

    def push(self, pair: int) -> None:
        count = self.counts[pair]
        if count == self.level and count:
            heapq.heappush(self.best, (self.order(pair), pair))
        elif count in self.waiting:
            self.waiting[count].append(pair)
        elif count:
            self.waiting[count] = [pair]
            heapq.heappush(self.levels, -count)

    def pop(self) -> int | None:
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
    pairs: list[Pair],
    where: "list[Positions]",
    positions: "PairPositions",
) -> Callable[[int], Any]:
    r"""Turn the rule for ties into a function: the smaller its value, the better."""

    @cache
    def descending(token: int) -> str:
        # A token that goes on is greater than one that ends, so the end gets the
        # greatest of all characters.
        return tokens[token].translate(_COMPLEMENT).decode("latin-1") + "\u0100"

    def by_bytes(pair: int) -> str:
        a, b = pairs[pair]
        return descending(a) + descending(b)

    def first_place(pair: int) -> int:
        at = next(at for at in where[pair] if positions.number[at] == pair)
        return int(at) - len(tokens[pairs[pair][0]])

    if tie_break == "first":
        return first_place
    if tie_break == "bytes":
        return by_bytes
    if tie_break == "ids":
        return pairs.__getitem__
    return lambda pair: tuple([BYTE_RANK.get(id_, id_) for id_ in pairs[pair]])


# What a trainer checks and says.


def check_training(
    source: str | os.PathLike[str] | Iterable[str],
    vocab_size: int,
    special_tokens: Iterable[str],
    tie_break: str,
) -> tuple[str, ...]:
    r"""Make sure that what is asked of a trainer is possible.

    Args:
        source: a path, or an iterable of texts.
        vocab_size: the number of tokens.
        special_tokens: the special tokens.
        tie_break: the rule for ties.

    Returns:
        The special tokens, as a tuple.

    Raises:
        FileNotFoundError: if the source is a path to no file.
        ValueError: if there is no such rule, or if bytes and special tokens alone are
            more than `vocab_size`.

    Examples:
        >>> check_training([], 256, ["<|end|>"], "bytes")
        Traceback (most recent call last):
        ValueError: vocab_size is at least 257 (256 bytes and 1 special tokens), not 256
    """
    specials = check_specials(special_tokens)
    if tie_break not in TIE_BREAKS:
        raise ValueError(f"tie_break is one of {TIE_BREAKS}, not {tie_break!r}")
    least = 256 + len(specials)
    if vocab_size < least:
        raise ValueError(
            f"vocab_size is at least {least} (256 bytes and {len(specials)} special "
            f"tokens), not {vocab_size}"
        )
    if isinstance(source, str | os.PathLike) and not Path(source).is_file():
        raise FileNotFoundError(
            f"there is no file {str(source)[:80]!r}. A string is taken for a path; to "
            "learn from a text itself, put it in a list"
        )
    return specials


def report_shortage(learned: int, wanted: int) -> None:
    r"""Say that a text has given fewer merges than were asked for.

    Args:
        learned: how many there are.
        wanted: how many there should be.

    Examples:
        >>> said = logging.Handler()
        >>> said.emit = lambda record: print(record.getMessage()[:30])
        >>> logging.getLogger("minillm").addHandler(said)
        >>> report_shortage(4, 4)
        >>> report_shortage(3, 4)
        learned 3 merges instead of 4:
        >>> logging.getLogger("minillm").removeHandler(said)
    """
    if learned < wanted:
        logging.getLogger("minillm").warning(
            "learned %d merges instead of %d: no pair of tokens is left in the text. "
            "More text gives more merges.",
            learned,
            wanted,
        )


@contextmanager
def _no_garbage_collection() -> Generator[None, None, None]:
    # Python looks through all lists again and again for some that refer to each other.
    # Here are hundreds of thousands, and all of them hold numbers.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


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
