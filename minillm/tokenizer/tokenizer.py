r"""A tokenizer to keep: special tokens, what the numbers mean, streams, files.

[`minillm.bpe`][] has learned a vocabulary and merges, and encodes a text with them. A
program wants more of a tokenizer. This page puts the parts together.

>>> tokenizer = BPETokenizer.train(["the cat in the hat"], 260, ["<|end|>"])
>>> tokenizer.encode("the hat in the cat")
[257, 32, 104, 258, 32, 105, 110, 32, 257, 32, 99, 258]
>>> tokenizer.decode(tokenizer.encode("the hat in the cat"))
'the hat in the cat'

# Special tokens

A model has to be told where a document ends or who is speaking. That is not text, so it
gets tokens that no text can produce:

>>> tokenizer.special_tokens
{'<|end|>': 259}
>>> tokenizer.encode("the<|end|>", allowed_special={"<|end|>"})
[257, 259]

They have to be asked for. Suppose that a program puts what its users write between two
such tokens, and a user writes one too. Taken for what it looks like, it would end the
document, and the user's next words would be a new one, perhaps in somebody else's
voice:

>>> forged = "the<|end|>the cat"
>>> tokenizer.encode(forged, allowed_special="all")
[257, 259, 257, 32, 99, 258]

So by default the same characters are ordinary text, and no text of a user holds the id
259. Both decode alike; the difference is one that only the model sees:

>>> tokenizer.encode(forged)
[257, 60, 124, 101, 110, 100, 124, 62, 257, 32, 99, 258]
>>> tokenizer.decode(tokenizer.encode(forged)) == forged
True
>>> tokenizer.decode(tokenizer.encode(forged, allowed_special="all")) == forged
True

A program therefore never writes special tokens into a text in order to encode it. It
encodes the text alone, and puts the id where it wants it:

>>> [*tokenizer.encode("the<|end|>"), tokenizer.special_tokens["<|end|>"]][-1]
259

# What the numbers mean

`vocab_size` counts the bytes, the merges and the special tokens. It is the number of
rows that a model needs, so it is the largest id plus one even where a vocabulary has
holes:

>>> tokenizer.vocab_size == 256 + len(tokenizer.merges) + 1 == len(tokenizer.vocab)
True
>>> BPETokenizer({0: b"a", 7: b"b"}, []).vocab_size
8

# What stands around a text

Most models have read texts that begin with a certain token, and write another one when
they are done. Which ones belongs to the tokenizer, and is saved with it. `encode` adds
neither, since what it is given may be the middle of a text:

>>> end = tokenizer.special_tokens["<|end|>"]
>>> tokenizer.begin_ids, tokenizer.stop_ids = [end], [end]
>>> [*tokenizer.begin_ids, *tokenizer.encode("the hat")]
[259, 257, 32, 104, 258]

# Files

A tokenizer and its model belong together: the model has learned what these numbers
mean. `save` writes the `tokenizer.json` that Hugging Face's programs read, with the
pattern and the special tokens in it, and `load` reads it back:

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     tokenizer.save(folder + "/tokenizer.json")
...     loaded = BPETokenizer.load(folder + "/tokenizer.json")
>>> loaded.encode("the<|end|>", "all"), loaded.pattern == tokenizer.pattern
([257, 259], True)
>>> loaded.begin_ids, loaded.stop_ids
([259], [259])

# Many cores, many machines

A text is counted in batches, and it does not matter who counts them: they are put
together in their order. `workers=8` starts eight processes on this machine. Beyond one
machine, whatever can be used like `concurrent.futures` will do. Dask's
`client.get_executor()` is such an executor, and so is `MPIPoolExecutor` of `mpi4py`.
Here are threads in their place, with the same result as above:

>>> from concurrent.futures import ThreadPoolExecutor
>>> with ThreadPoolExecutor(2) as executor:
...     again = BPETokenizer.train(
...         ["the cat in the hat"], 260, ["<|end|>"], executor=executor
...     )
>>> again.merges == tokenizer.merges
True

What travels is text one way and counts the other, so a cluster pays where counting is
the work, on texts of many gigabytes. The file is read, and the merges are learned, by
the process that calls. (The tests train on a Dask cluster of two processes, and
get the merges that one process gets.)
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from operator import index
from typing import Any, SupportsIndex

from minillm.tokenizer.encoding import Encoder, encode_batch, encode_file
from minillm.tokenizer.formats import (
    read_gpt2_files,
    read_tiktoken_file,
    write_gpt2_files,
)
from minillm.tokenizer.learning import train_bpe
from minillm.tokenizer.loaded import read_tokenizer_json
from minillm.tokenizer.parts import Merge, Parts, check_explained, place_specials
from minillm.tokenizer.patterns import GPT2_PATTERN, pretokenize
from minillm.tokenizer.saved import write_tokenizer_json
from minillm.tokenizer.streams import (
    check_specials,
    safe_pieces,
    split_specials,
)

__all__ = ["BPETokenizer"]


class BPETokenizer:
    r"""A vocabulary, its merges, and what turns text into tokens and back with them.

    Args:
        vocab: the bytes of each token.
        merges: pairs of tokens, in the order in which they are to be merged. The parts
            of each and what they make are in the vocabulary.
        special_tokens: the special tokens with their ids; or without, as a list: those
            that the vocabulary does not hold then get the next free ids.
        pattern: the pre-tokenizer, a regular expression.
        ignore_merges: whether a pre-token that is a token is taken whole, whatever the
            merges say, as tiktoken does. Where merges make every token, as those
            learned here do, there is no difference. So without an answer, they must.
        added_tokens: tokens with their ids that are found in any text before it is cut,
            such as `<think>` or a run of eight spaces, though they are not special.
        begin_ids: the ids with which the model expects every text to begin.
        end_ids: the ids with which it expects every text to end; most often none.
        stop_ids: the ids that end what the model writes.

    Attributes:
        vocab: the bytes of each token, special ones included.
        merges: the merges, each once.
        special_tokens: the special tokens and their ids.
        added_tokens: the added tokens that are not special, and their ids.
        begin_ids: the ids that stand before a text. `encode` leaves them to you, since
            a text may be a part of a longer one.
        end_ids: the ids that stand behind it.
        stop_ids: the ids after which to stop.

    Raises:
        ValueError: if the parts do not fit together, or if a token is neither a byte
            nor merged nor special (which it would silently cease to be).

    Examples:
        >>> vocab = {0: b"a", 1: b"b", 2: b"ab"}
        >>> BPETokenizer(vocab, [(b"a", b"b")], ["<|end|>"]).encode("abba")
        [2, 1, 0]

        A special token has to be asked for. An added one need not be:

        >>> tokenizer = BPETokenizer(vocab, [(b"a", b"b")], added_tokens={"ba": 3})
        >>> tokenizer.encode("abba"), tokenizer.encode("baba")
        ([2, 3], [3, 3])
    """

    def __init__(
        self,
        vocab: Mapping[int, bytes],
        merges: Iterable[Merge],
        special_tokens: Iterable[str] | Mapping[str, int] | None = None,
        *,
        pattern: str = GPT2_PATTERN,
        ignore_merges: bool | None = None,
        added_tokens: Mapping[str, int] | None = None,
        begin_ids: Iterable[int] = (),
        end_ids: Iterable[int] = (),
        stop_ids: Iterable[int] = (),
    ) -> None:
        self.vocab = dict(vocab)
        # Of two equal merges the first is the one that is made.
        self.merges = list(dict.fromkeys((left, right) for left, right in merges))
        self.special_tokens = place_specials(
            self.vocab, self.merges, special_tokens or ()
        )
        self.added_tokens = place_specials(self.vocab, self.merges, added_tokens or {})
        # Both are cut out of a text before anything else is done to it.
        self._found = self.added_tokens | self.special_tokens
        if len(self._found) < len(self.added_tokens) + len(self.special_tokens):
            both = sorted(self.added_tokens.keys() & self.special_tokens)
            raise ValueError(f"{both} cannot be both added tokens and special ones")
        if ignore_merges is None:
            check_explained(self.vocab, self.merges, self._found.values())
        self.begin_ids, self.end_ids = list(begin_ids), list(end_ids)
        self.stop_ids = list(stop_ids)
        special_ids = set(self.special_tokens.values())
        added_ids = set(self.added_tokens.values())
        ordinary = {t: i for i, t in self.vocab.items() if i in added_ids}
        ordinary |= {
            t: i for i, t in self.vocab.items() if i not in special_ids | added_ids
        }
        self._encoder = Encoder(
            ordinary, self.merges, pattern, ignore_merges is not False
        )
        self._ignore_merges = ignore_merges is not False

    @property
    def pattern(self) -> str:
        """The pre-tokenizer. For another one, make another tokenizer."""
        return self._encoder.pattern

    @property
    def ignore_merges(self) -> bool:
        """Whether a pre-token that is a token is taken whole.

        Examples:
            A tokenizer that was trained reaches each of its tokens by merging, so that
            taking one whole only saves the work:

            >>> BPETokenizer.train(["the cat in the hat"], 259).ignore_merges
            True
        """
        return self._ignore_merges

    @property
    def vocab_size(self) -> int:
        """The largest id plus one: the number of rows in a model's tables."""
        return max(self.vocab, default=-1) + 1

    def __repr__(self) -> str:
        return (
            f"<BPETokenizer: vocab_size={self.vocab_size}, merges={len(self.merges)}, "
            f"special_tokens={self.special_tokens}>"
        )

    @classmethod
    def train(
        cls,
        source: str | os.PathLike[str] | Iterable[str],
        vocab_size: int,
        special_tokens: Iterable[str] = (),
        *,
        pattern: str = GPT2_PATTERN,
        **options: Any,
    ) -> "BPETokenizer":
        r"""Learn a tokenizer from text.

        Args:
            source: a path, or an iterable of texts.
            vocab_size: how many tokens there shall be.
            special_tokens: the special tokens.
            pattern: the pre-tokenizer.
            options: further arguments of
                [`train_bpe`][minillm.tokenizer.learning.train_bpe].

        Returns:
            The tokenizer.

        Examples:
            >>> BPETokenizer.train(["the cat in the hat"], 260, ["<|end|>"])
            <BPETokenizer: vocab_size=260, merges=3, special_tokens={'<|end|>': 259}>
        """
        specials = check_specials(special_tokens)
        vocab, merges = train_bpe(
            source, vocab_size, specials, pattern=pattern, **options
        )
        return cls(vocab, merges, specials, pattern=pattern)

    def encode(self, text: str, allowed_special: Iterable[str] = ()) -> list[int]:
        r"""Turn text into tokens.

        Args:
            text: any text.
            allowed_special: the special tokens that may be found in the text, or
                `"all"`. Others that stand in it are ordinary text.

        Returns:
            The tokens.

        Raises:
            ValueError: if the text holds half a surrogate pair, which has no UTF-8, or
                a byte for which the vocabulary has no token; or if what is allowed is
                no special token of this tokenizer.

        Examples:
            Of two special tokens of which one begins the other, the longer is found:

            >>> specials = ["<e>", "<e><e>"]
            >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 260, specials)
            >>> tokenizer.encode("<e><e><e>", allowed_special="all")
            [259, 258]
        """
        allowed = self._allowed(allowed_special)
        if not allowed:
            return self._encoder.encode(text)
        ids: list[int] = []
        for i, part in enumerate(split_specials(text, allowed)):
            ids += [self._found[part]] if i % 2 else self._encoder.encode(part)
        return ids

    def pre_tokens(
        self, text: str, allowed_special: Iterable[str] = ()
    ) -> Iterator[tuple[str, bool]]:
        r"""Cut a text as `encode` does before it merges anything.

        Args:
            text: any text.
            allowed_special: as for `encode`.

        Yields:
            Each pre-token, special token or added token, and whether it is one of the
            latter two, which no merge has made.

        Examples:
            >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 260, ["<|end|>"])
            >>> list(tokenizer.pre_tokens("the cat<|end|>", allowed_special="all"))
            [('the', False), (' cat', False), ('<|end|>', True)]
        """
        parts = split_specials(text, self._allowed(allowed_special))
        for i, part in enumerate(parts):
            for piece in [part] if i % 2 else pretokenize(part, self.pattern):
                yield piece, i % 2 == 1

    def _allowed(self, allowed_special: Iterable[str]) -> tuple[str, ...]:
        """Return what is to be found in a text: what is allowed, and what always is."""
        if allowed_special == "all":
            return tuple(self._found)
        if isinstance(allowed_special, str):
            raise ValueError(
                "allowed_special is 'all' or a collection of special tokens, not the "
                f"string {allowed_special!r}; write {{{allowed_special!r}}}"
            )
        allowed = dict.fromkeys([*allowed_special, *self.added_tokens])
        for name in allowed:
            if name not in self._found:
                raise ValueError(
                    f"{name!r} is no special token of this tokenizer; it has "
                    f"{list(self.special_tokens)}"
                )
        return tuple(allowed)

    def encode_iterable(
        self, chunks: Iterable[str], allowed_special: Iterable[str] = ()
    ) -> Iterator[int]:
        r"""Turn a text that comes in parts into tokens, as if it had come whole.

        Args:
            chunks: the parts, cut anywhere.
            allowed_special: as for `encode`.

        Yields:
            The tokens of all parts joined. What may still change is held back: for the
            patterns of this package the last run of text without whitespace (or, for
            those of GPT-4 and later, at worst the last line), for another pattern
            everything since the last special token.

        Examples:
            Encoding part by part is something else, since a cut may go through a word:

            >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 259)
            >>> tokenizer.encode("t") + tokenizer.encode("he cat")
            [116, 104, 101, 32, 99, 258]
            >>> list(tokenizer.encode_iterable(["t", "he cat"]))
            [257, 32, 99, 258]
        """
        allowed = self._allowed(allowed_special)
        for piece in safe_pieces(chunks, self.pattern, allowed):
            yield from self.encode(piece, allowed)

    def encode_batch(
        self,
        texts: Iterable[str],
        workers: int | None = None,
        *,
        allowed_special: Iterable[str] = (),
    ) -> list[list[int]]:
        r"""Encode many texts, each on its own.

        Args:
            texts: the texts.
            workers: how many processes to use; without it, this one alone. A script
                that asks for more has to guard what it does at its top level with
                `if __name__ == "__main__":`, since each process imports it.
            allowed_special: as for `encode`.

        Returns:
            The tokens of each text, in the order of the texts.

        Raises:
            ValueError: as `encode`; or if the texts are one string.

        Examples:
            >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 258)
            >>> tokenizer.encode_batch(["the", "", "cat"])
            [[257], [], [99, 97, 116]]
        """
        return encode_batch(self, texts, workers, self._allowed(allowed_special))

    def encode_file(
        self,
        path: str | os.PathLike[str],
        out: str | os.PathLike[str],
        workers: int | None = None,
        *,
        allowed_special: Iterable[str] = (),
    ) -> int:
        r"""Encode a file of any size into an array on disk.

        Args:
            path: a file of UTF-8 text.
            out: where to write. `numpy.load(out, mmap_mode="r")` opens the array, whose
                type is the smallest unsigned one that holds every id. The file appears
                when it is complete.
            workers: as for `encode_batch`. One process is the default because it is
                seldom the slower one: it remembers each word that it has met, while
                of several each has to start and to learn the words on its own. The
                page on speed compares the two.
            allowed_special: as for `encode`.

        Returns:
            The number of tokens.

        Raises:
            ValueError: if the file is not UTF-8; or as `encode`.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> import numpy as np
            >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 258)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path, out = Path(folder) / "text.txt", Path(folder) / "ids.npy"
            ...     _ = path.write_text("the cat", encoding="utf-8")
            ...     tokenizer.encode_file(path, out), np.load(out).tolist()
            (5, [257, 32, 99, 97, 116])
        """
        return encode_file(self, path, out, workers, self._allowed(allowed_special))

    def decode_bytes(self, ids: Iterable[SupportsIndex]) -> bytes:
        r"""Turn tokens into the bytes that they stand for.

        Args:
            ids: the tokens.

        Returns:
            The bytes, which need not be valid UTF-8.

        Raises:
            ValueError: if there is no token of that id.

        Examples:
            >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 258)
            >>> tokenizer.decode_bytes([257, 0xC3]), tokenizer.decode([257, 0xC3])
            (b'the\xc3', 'the�')
        """
        try:
            return b"".join(map(self.vocab.__getitem__, map(index, ids)))
        except KeyError as error:
            raise ValueError(
                f"there is no token {error}: the ids of this tokenizer end at "
                f"{self.vocab_size - 1}"
            ) from None

    def decode(self, ids: Iterable[SupportsIndex], errors: str = "replace") -> str:
        r"""Turn tokens into text.

        Args:
            ids: the tokens.
            errors: what to do with bytes that are no UTF-8, as in `bytes.decode`.

        Returns:
            The text.

        Raises:
            ValueError: if there is no token of that id, or (with `errors="strict"`) if
                the bytes are no text.

        Examples:
            Every text comes back. Not every sequence of tokens is a text: a character
            may be cut in two, and its halves are shown as U+FFFD.

            >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 259)
            >>> tokenizer.decode(tokenizer.encode("the 🌍"))
            'the 🌍'
            >>> tokenizer.decode(tokenizer.encode("the 🌍")[:-1])
            'the �'
            >>> tokenizer.decode([259])
            Traceback (most recent call last):
            ValueError: there is no token 259: the ids of this tokenizer end at 258
        """
        return self.decode_bytes(ids).decode("utf-8", errors)

    def _parts(self) -> Parts:
        return Parts(
            self.vocab,
            self.merges,
            self.special_tokens,
            self.pattern,
            self.ignore_merges,
            self.added_tokens,
            self.begin_ids,
            self.end_ids,
            self.stop_ids,
        )

    @classmethod
    def _from_parts(cls, parts: Parts) -> "BPETokenizer":
        vocab, merges, special_tokens, *_ = parts
        rest = parts._asdict()
        for name in ("vocab", "merges", "special_tokens"):
            del rest[name]
        return cls(vocab, merges, special_tokens, **rest)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a `tokenizer.json`, which `tokenizers` and `transformers` read too.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 258)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     tokenizer.save(Path(folder) / "tokenizer.json")
            ...     again = BPETokenizer.load(Path(folder) / "tokenizer.json")
            >>> again.merges
            [(b't', b'h'), (b'th', b'e')]
        """
        write_tokenizer_json(path, self._parts())

    def save_gpt2_files(
        self, vocab_json: str | os.PathLike[str], merges_txt: str | os.PathLike[str]
    ) -> None:
        """Write GPT-2's two files. They hold neither pattern nor special tokens.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 258)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     files = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
            ...     tokenizer.save_gpt2_files(*files)
            ...     BPETokenizer.from_gpt2_files(*files).merges == tokenizer.merges
            True
        """
        write_gpt2_files(vocab_json, merges_txt, self._parts())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "BPETokenizer":
        r"""Read a `tokenizer.json` of byte-level BPE.

        Args:
            path: the file, of this package or of Hugging Face's `tokenizers`.

        Returns:
            The tokenizer.

        Raises:
            ValueError: if the file is broken, or holds what cannot be represented here.
        """
        return cls._from_parts(read_tokenizer_json(path))

    @classmethod
    def from_gpt2_files(
        cls, vocab_json: str | os.PathLike[str], merges_txt: str | os.PathLike[str]
    ) -> "BPETokenizer":
        r"""Read GPT-2's `vocab.json` and `merges.txt`.

        Args:
            vocab_json: the tokens; OpenAI's name for it is `encoder.json`.
            merges_txt: the merges; OpenAI's name for it is `vocab.bpe`.

        Returns:
            The tokenizer, with `<|endoftext|>` special.

        Raises:
            ValueError: if a file is broken.
        """
        return cls._from_parts(read_gpt2_files(vocab_json, merges_txt))

    @classmethod
    def from_tiktoken_file(
        cls,
        path: str | os.PathLike[str],
        pattern: str,
        special_tokens: Iterable[str] | Mapping[str, int] = (),
    ) -> "BPETokenizer":
        r"""Read a rank file of tiktoken, such as `cl100k_base.tiktoken`.

        Args:
            path: the file.
            pattern: the pre-tokenizer that belongs to it, which it does not hold.
            special_tokens: the special tokens, with or without their ids.

        Returns:
            The tokenizer.

        Raises:
            ValueError: if the file is broken.

        Examples:
            >>> import base64, tempfile
            >>> from pathlib import Path
            >>> tokens = [bytes([byte]) for byte in range(256)] + [b"th", b"the"]
            >>> tokens = [base64.b64encode(token).decode() for token in tokens]
            >>> lines = [f"{token} {rank}" for rank, token in enumerate(tokens)]
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = Path(folder) / "small.tiktoken"
            ...     _ = path.write_text("\n".join(lines), encoding="utf-8")
            ...     BPETokenizer.from_tiktoken_file(path, GPT2_PATTERN).encode("the")
            [257]
        """
        return cls._from_parts(read_tiktoken_file(path, pattern, special_tokens))
