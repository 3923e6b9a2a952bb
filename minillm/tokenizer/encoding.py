r"""Encoding for use: one word, one text, many texts, a file.

[`encode_naive`][minillm.bpe.encode_naive] tries every merge on every word. The
[`Encoder`][minillm.tokenizer.encoding.Encoder] of this page tries those that a word
allows, and remembers the words that it has met. For long texts it hands over to
[`minillm.tokenizer.arrays`][].
"""

import heapq
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from minillm.files.writing import atomic_array
from minillm.tokenizer.cuts import SAFE_CUT, safe_pieces, split_specials
from minillm.tokenizer.learning import batches, check_workers, map_in_order, processes
from minillm.tokenizer.patterns import compile_pattern, pretokenize
from minillm.tokenizer.source import BLOCK, read_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from minillm.bpe import BPETokenizer
    from minillm.tokenizer.arrays import ArrayEncoder

__all__ = ["Encoder", "encode_batch", "encode_each", "encode_file"]

Pair = tuple[int, int]
Merge = tuple[bytes, bytes]

# From this many bytes on a word is merged with a heap.
LONG_WORD: Final = 64

# From this many characters on a text is worth the arrays.
LONG_TEXT: Final = 1 << 13

# How many distinct words are remembered, at most.
MEMORY: Final = 1 << 18


class Encoder:
    r"""Merges for encoding, and a memory of what has been encoded.

    The same result as [`encode_naive`][minillm.bpe.encode_naive]. Unlike it:

    - a word (a pre-token) that has been met before is looked up;
    - a word that is a token is taken whole, if that is wanted;
    - of the merges only those are tried that the word allows, the lowest rank first;
    - a long word is merged with a heap, in time proportional to its length (times a
      logarithm), so that a megabyte of one letter is not a megabyte squared.

    Args:
        ids: the id of each token, without the special ones.
        merges: the merges.
        pattern: the pre-tokenizer.
        whole: whether a word that is a token is taken whole.

    Raises:
        ValueError: if a merge needs a token that there is not.

    Examples:
        >>> from minillm.tokenizer.patterns import GPT2_PATTERN
        >>> ids = {bytes([byte]): byte for byte in range(256)}
        >>> ids |= {b"th": 256, b"the": 257}
        >>> merges = [(b"t", b"h"), (b"th", b"e")]
        >>> encoder = Encoder(ids, merges, GPT2_PATTERN)
        >>> encoder.encode("the hat"), encoder.encode_word(b"ath")
        ([257, 32, 104, 97, 116], [97, 256])
    """

    def __init__(
        self,
        ids: Mapping[bytes, int],
        merges: Sequence[Merge],
        pattern: str,
        whole: bool = True,
    ) -> None:
        compile_pattern(pattern)
        self.pattern = pattern
        self.byte_ids = [ids.get(bytes([byte])) for byte in range(256)]
        self.whole = ids if whole else {}
        # The rank of a merge is its place in the list; the lower goes first.
        self.ranks: dict[Pair, int] = {}
        self.merged: list[int] = []
        for rank, (left, right) in enumerate(merges):
            try:
                pair, new_id = (ids[left], ids[right]), ids[left + right]
            except KeyError as error:
                raise ValueError(
                    f"merge {rank}, {left!r} with {right!r}, needs the token {error}, "
                    "which is not in the vocabulary"
                ) from None
            self.ranks.setdefault(pair, rank)
            self.merged.append(new_id)
        self.known: dict[str, list[int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # What goes to another process goes without the memory.
        state = self.__dict__ | {"known": {}}
        state.pop("arrays", None)
        return state

    @cached_property
    def arrays(self) -> "ArrayEncoder":
        """The encoder for long texts. It needs NumPy, which is loaded only now."""
        from minillm.tokenizer.arrays import ArrayEncoder

        return ArrayEncoder(self)

    def encode(self, text: str) -> list[int]:
        """Encode ordinary text."""
        ids = self.encode_any(text)
        return ids if isinstance(ids, list) else ids.tolist()

    def encode_any(self, text: str) -> "list[int] | NDArray[np.int64]":
        """Encode ordinary text: an array if it is long and the pattern ours."""
        try:
            if len(text) < LONG_TEXT or self.pattern not in SAFE_CUT:
                return self.encode_words(text)
            return self.arrays.encode(text)
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the text holds {error.object[error.start]!r}, one half of a "
                "surrogate pair, which has no UTF-8; read it with errors='replace'"
            ) from None

    def encode_words(self, text: str) -> list[int]:
        """Encode ordinary text word by word."""
        known = self.known
        ids: list[int] = []
        for word in pretokenize(text, self.pattern):
            # Looked up once: another thread may clear the memory after that.
            if (found := known.get(word)) is not None:
                ids += found
                continue
            new = self.encode_word(word.encode())
            ids += new
            if len(word) < LONG_WORD:
                if len(known) >= MEMORY:
                    known.clear()
                known[word] = new
        return ids

    def encode_word(self, word: bytes) -> list[int]:
        """Encode one word."""
        if word in self.whole:
            return [self.whole[word]]
        ids = self.ids_of_bytes(word)
        if len(ids) < LONG_WORD:
            return self._merge_short(ids)
        return self._merge_long(ids)

    def ids_of_bytes(self, word: bytes) -> list[int]:
        """Find the ids of single bytes. There may be bytes without one."""
        ids = []
        for byte in word:
            id_ = self.byte_ids[byte]
            if id_ is None:
                raise ValueError(
                    f"the vocabulary has no token for the byte 0x{byte:02x}, which is "
                    f"in {word.decode(errors='replace')!r:.80}"
                )
            ids.append(id_)
        return ids

    def _merge_short(self, ids: list[int]) -> list[int]:
        never = len(self.merged)
        ranks = [self.ranks.get(pair, never) for pair in pairwise(ids)]
        while ranks and (rank := min(ranks)) < never:
            i = ranks.index(rank)
            ids[i : i + 2] = [self.merged[rank]]
            # Only the pairs to the left and to the right have changed.
            del ranks[i]
            for j in (i - 1, i):
                if 0 <= j < len(ranks):
                    ranks[j] = self.ranks.get((ids[j], ids[j + 1]), never)
        return ids

    def _merge_long(self, ids: list[int]) -> list[int]:
        # The tokens are a linked list: `after[i]` and `before[i]` are the places of the
        # neighbours of the token at i. A token that has been merged away becomes -1.
        end = len(ids)
        after = list(range(1, end + 1))
        before = list(range(-1, end - 1))
        heap = [
            (self.ranks[pair], i)
            for i, pair in enumerate(pairwise(ids))
            if pair in self.ranks
        ]
        heapq.heapify(heap)
        while heap:
            rank, i = heapq.heappop(heap)
            j = after[i]
            if ids[i] < 0 or j == end or self.ranks.get((ids[i], ids[j])) != rank:
                continue
            ids[i], ids[j] = self.merged[rank], -1
            after[i] = after[j]
            if after[i] < end:
                before[after[i]] = i
            for left in (before[i], i):
                if left >= 0 and after[left] < end:
                    new_rank = self.ranks.get((ids[left], ids[after[left]]))
                    if new_rank is not None:
                        heapq.heappush(heap, (new_rank, left))
        return [id_ for id_ in ids if id_ >= 0]


# Encoding with several processes.


def encode_batch(
    tokenizer: "BPETokenizer",
    texts: Iterable[str],
    workers: int | None,
    allowed: tuple[str, ...],
) -> list[list[int]]:
    r"""Encode many texts.

    Args:
        tokenizer: the tokenizer.
        texts: the texts.
        workers: how many processes to use.
        allowed: the special tokens that may be found.

    Returns:
        The tokens of each.

    Examples:
        >>> from minillm.bpe import BPETokenizer
        >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 258)
        >>> encode_batch(tokenizer, ["the", "", "cat"], 1, ())
        [[257], [], [99, 97, 116]]
    """
    if check_workers(workers) == 1:
        return [tokenizer.encode(text, allowed) for text in texts]
    return [ids.tolist() for ids in encode_each(tokenizer, texts, workers, allowed)]


def _encode_array(
    tokenizer: "BPETokenizer", text: str, allowed: tuple[str, ...]
) -> "NDArray[np.uint32]":
    """Encode a text without making a list of it, which takes longer than the rest."""
    import numpy as np

    parts = [
        [tokenizer.special_tokens[part]]
        if i % 2
        else tokenizer._encoder.encode_any(part)
        for i, part in enumerate(split_specials(text, allowed))
    ]
    return np.concatenate([np.asarray(part, np.uint32) for part in parts])


_worker_tokenizer: "BPETokenizer"


def _start_worker(tokenizer: "BPETokenizer") -> None:
    global _worker_tokenizer
    _worker_tokenizer = tokenizer


def _encode_in_worker(
    task: tuple[list[str], tuple[str, ...]],
) -> "list[NDArray[np.uint32]]":
    texts, allowed = task
    return [_encode_array(_worker_tokenizer, text, allowed) for text in texts]


def encode_each(
    tokenizer: "BPETokenizer",
    texts: Iterable[str],
    workers: int | None,
    allowed: tuple[str, ...],
) -> Iterator["NDArray[np.uint32]"]:
    r"""Encode texts one after the other, without reading all of them at once.

    Args:
        tokenizer: the tokenizer.
        texts: the texts.
        workers: how many processes to use.
        allowed: the special tokens that may be found.

    Yields:
        The tokens of each, as an array.

    Examples:
        Nothing is encoded before it is asked for, so there may be no end of texts:

        >>> from itertools import repeat
        >>> from minillm.bpe import BPETokenizer
        >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 258)
        >>> next(encode_each(tokenizer, repeat("the"), 1, ())).tolist()
        [257]
    """
    n_workers = check_workers(workers)
    if n_workers == 1:
        for text in texts:
            yield _encode_array(tokenizer, text, allowed)
        return
    with processes(n_workers, _start_worker, (tokenizer,)) as pool:
        tasks = ((batch, allowed) for batch in batches(texts))
        for arrays in map_in_order(_encode_in_worker, tasks, pool, n_workers):
            yield from arrays


def encode_file(
    tokenizer: "BPETokenizer",
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    workers: int | None,
    allowed: tuple[str, ...],
) -> int:
    r"""Encode a file into a `.npy` file.

    Args:
        tokenizer: the tokenizer.
        path: the file.
        out: where to write.
        workers: how many processes to use.
        allowed: the special tokens that may be found.

    Returns:
        The number of tokens.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from minillm.bpe import BPETokenizer
        >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 258)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, out = Path(folder) / "text.txt", Path(folder) / "ids.npy"
        ...     _ = path.write_text("the", encoding="utf-8")
        ...     encode_file(tokenizer, path, out, 1, ()), np.load(out).tolist()
        (1, [257])
    """
    import numpy as np

    dtype = np.min_scalar_type(max(tokenizer.vocab_size - 1, 0))
    pieces = safe_pieces(read_text(path), tokenizer.pattern, allowed, at_least=BLOCK)
    n_ids = 0
    with atomic_array(out, dtype) as append:
        for ids in encode_each(tokenizer, pieces, workers, allowed):
            append(ids)
            n_ids += len(ids)
    return n_ids
