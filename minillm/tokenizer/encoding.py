r"""Encoding for use: one text, many texts, a file.

[`encode_naive`][minillm.bpe.encode_naive] tries every merge on every word. The
[`Encoder`][minillm.tokenizer.encoding.Encoder] of this page tries those that a word
allows, and remembers the words that it has met. A long text goes to
[`minillm.tokenizer.arrays`][].
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from minillm.files.writing import atomic_array
from minillm.tokenizer.parallel import batches, check_workers, map_in_order, processes
from minillm.tokenizer.patterns import compile_pattern, pretokenize
from minillm.tokenizer.streams import (
    BLOCK,
    SAFE_CUT,
    check_lists,
    read_text,
    safe_pieces,
    split_specials,
)
from minillm.tokenizer.words import LONG_WORD, Merge, WordEncoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from minillm.tokenizer.arrays import ArrayEncoder

__all__ = ["Encoder", "encode_batch", "encode_each", "encode_file"]

# From this many characters on a text is worth the arrays.
LONG_TEXT: Final = 1 << 13

# How many distinct words are remembered, at most.
MEMORY: Final = 1 << 18


class _Memory(dict[str, list[int]]):
    """The ids of each word, which is encoded when it is first asked for."""

    def __init__(self, words: WordEncoder) -> None:
        self.words = words

    def __missing__(self, word: str) -> list[int]:
        ids = self.words.encode(word.encode())
        if len(word) < LONG_WORD:
            if len(self) >= MEMORY:
                self.clear()
            self[word] = ids
        return ids


class Encoder:
    r"""Merges for encoding, and a memory of what has been encoded.

    The same result as [`encode_naive`][minillm.bpe.encode_naive]. Unlike it:

    - a word (a pre-token) that has been met before is looked up;
    - a word that is a token is taken whole, if that is wanted;
    - of the merges only those are tried that the word allows, the lowest rank first;
    - a long word is merged piece by piece, in time proportional to its length, so that
      a megabyte of one letter is not a megabyte squared.

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
        >>> Encoder(ids, merges, GPT2_PATTERN).encode("the hat")
        [257, 32, 104, 97, 116]
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
        self.words = WordEncoder(ids, merges, whole)
        self.known = _Memory(self.words)

    def __getstate__(self) -> dict[str, Any]:
        # What goes to another process goes without the memory.
        return {"pattern": self.pattern, "words": self.words}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state | {"known": _Memory(state["words"])}

    @cached_property
    def arrays(self) -> "ArrayEncoder":
        """The encoder for long texts. It needs NumPy, which is loaded only now."""
        from minillm.tokenizer.arrays import ArrayEncoder

        return ArrayEncoder(self.words, self.pattern)

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
        words = pretokenize(text, self.pattern)
        return list(chain.from_iterable(map(self.known.__getitem__, words)))


# Many texts, and several processes.


@runtime_checkable
class _Tokenizer(Protocol):
    """What is used of a [`BPETokenizer`][minillm.bpe.BPETokenizer] here."""

    _found: dict[str, int]
    _encoder: Encoder

    @property
    def pattern(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...


def encode_batch(
    tokenizer: _Tokenizer,
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
        >>> from minillm.tokenizer.tokenizer import BPETokenizer
        >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 258)
        >>> encode_batch(tokenizer, ["the", "", "cat"], 1, ())
        [[257], [], [99, 97, 116]]
    """
    return [ids.tolist() for ids in encode_each(tokenizer, texts, workers, allowed)]


def _encode_array(
    tokenizer: _Tokenizer, text: str, allowed: tuple[str, ...]
) -> "NDArray[np.uint32]":
    """Encode a text without making a list of it, which takes longer than the rest."""
    import numpy as np

    parts = [
        [tokenizer._found[part]] if i % 2 else tokenizer._encoder.encode_any(part)
        for i, part in enumerate(split_specials(text, allowed))
    ]
    return np.concatenate([np.asarray(part, np.uint32) for part in parts])


_worker_tokenizer: _Tokenizer


def _start_worker(tokenizer: _Tokenizer) -> None:
    global _worker_tokenizer
    _worker_tokenizer = tokenizer


def _encode_in_worker(
    task: tuple[list[str], tuple[str, ...]],
) -> "list[NDArray[np.uint32]]":
    texts, allowed = task
    return [_encode_array(_worker_tokenizer, text, allowed) for text in texts]


def encode_each(
    tokenizer: _Tokenizer,
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
        >>> from minillm.tokenizer.tokenizer import BPETokenizer
        >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 258)
        >>> next(encode_each(tokenizer, repeat("the"), 1, ())).tolist()
        [257]
    """
    check_lists(texts=texts)
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
    tokenizer: _Tokenizer,
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
        >>> from minillm.tokenizer.tokenizer import BPETokenizer
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
