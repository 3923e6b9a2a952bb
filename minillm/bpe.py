r"""Turn text into integers, and back.

**The question.** A model computes with numbers, and a text is not one. Which integers
shall stand for a text? Three things are wanted. There is a way back. No text is
impossible. And the row of integers, the *tokens*, is short: a model pays for each token
in it, and attention pays for each pair.

**One string, one number.** We run one string through four tokenizers and measure each
by the bytes of text that one token stands for, its *compression ratio*. Each step is
forced by a number that rules out the one before.

>>> text = "Hello, 🌍! 你好!"

*Characters.* Unicode has a number for each. The ratio is no problem; the vocabulary is.
GPT-2 small keeps 768 numbers for every token that it knows, and would need seven times
its own size (124 million) for a table of characters, most of which it never meets:

>>> characters = CharTokenizer()
>>> round(compression_ratio(text, characters.encode(text)), 2), characters.vocab_size
(1.54, 1114112)
>>> characters.vocab_size * 768
855638016

*Bytes.* In UTF-8 every text is a row of bytes, and there are only 256. Now the ratio is
the problem. It is 1, the worst there is: one token for each byte of the text.

>>> compression_ratio(text, ByteTokenizer().encode(text)), ByteTokenizer().vocab_size
(1.0, 256)

*Words.* The ratio is four times better. But the vocabulary holds the words of one text,
and to a word of any other it can only say "unknown". There is no way back:

>>> words = WordTokenizer(text)
>>> compression_ratio(text, words.encode(text)), words.vocab_size
(4.0, 6)
>>> words.decode(words.encode("Hello, world! 你好!"))
'Hello,<unk>! 你好!'

*Byte-pair encoding.* Start from the 256 bytes, so that no text is impossible, and give
whatever is frequent a token of its own, so that the row gets short. The size of the
vocabulary becomes a dial between bytes and words:

>>> for vocab_size in 256, 261, 266, 271:
...     tokenizer = BPETokenizer.train([text], vocab_size)
...     print(vocab_size, round(compression_ratio(text, tokenizer.encode(text)), 2))
256 1.0
261 1.33
266 2.0
271 4.0
>>> tokenizer.decode(tokenizer.encode("Hello, world! 你好!"))
'Hello, world! 你好!'

At 271 the tokens are the words, and what is no word is still spelled in bytes. That is
why nearly every language model uses it, and this chapter builds it.

**Before this:** nothing but Python. **Next:** [`minillm.attention`][]. Three pages go
deeper: [`minillm.bpe_patterns`][] (where a text is cut into words),
[`minillm.bpe_fast`][] (how all this becomes fast) and [`minillm.bpe_leaks`][] (what a
model cannot see in its tokens).
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import index
from typing import Any, SupportsIndex

from minillm.bpe_patterns import (
    BYTE_RANK,
    GPT2_PATTERN,
    GPT4_PATTERN,
    O200K_PATTERN,
    pretokenize,
)
from minillm.bpe_source import (
    check_training,
    report_shortage,
    safe_pieces,
    source_documents,
    split_specials,
)

__all__ = [
    "GPT2_PATTERN",
    "GPT4_PATTERN",
    "O200K_PATTERN",
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "ShownWord",
    "WordTokenizer",
    "compression_ratio",
    "count_pairs",
    "encode_naive",
    "merge",
    "show_merges",
    "train_bpe",
    "train_bpe_naive",
]

Pair = tuple[int, int]
Merge = tuple[bytes, bytes]


def compression_ratio(text: str, ids: Sequence[int]) -> float:
    r"""Measure how many bytes of text one token stands for.

    Args:
        text: the text.
        ids: its tokens.

    Returns:
        The bytes of the text in UTF-8, divided by the number of tokens. Bytes and not
        characters, so that scripts can be compared.

    Raises:
        ValueError: if there are no tokens.

    Examples:
        >>> compression_ratio("naïve", [3, 7])
        3.0
        >>> compression_ratio("", [])
        Traceback (most recent call last):
        ValueError: without ids there is no compression ratio
    """
    if not len(ids):
        raise ValueError("without ids there is no compression ratio")
    return len(text.encode()) / len(ids)


class CharTokenizer:
    r"""A token for each character: its number in Unicode.

    Examples:
        >>> CharTokenizer().encode("a🌍"), CharTokenizer().decode([97, 127757])
        ([97, 127757], 'a🌍')
    """

    vocab_size = 0x110000

    def encode(self, text: str) -> list[int]:
        """Turn text into the numbers of its characters."""
        return [ord(character) for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn numbers into the characters that bear them."""
        return "".join([chr(id_) for id_ in ids])


class ByteTokenizer:
    r"""A token for each byte of the text in UTF-8.

    Examples:
        UTF-8 spends one byte on an ASCII character and up to four on others:

        >>> ByteTokenizer().encode("aé🌍")
        [97, 195, 169, 240, 159, 140, 141]

        A part of a character is no text. It is shown as the character U+FFFD:

        >>> ByteTokenizer().decode([97, 195])
        'a\ufffd'
    """

    vocab_size = 256

    def encode(self, text: str) -> list[int]:
        """Turn text into its bytes."""
        return list(text.encode())

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Turn bytes into text. `errors` is that of `bytes.decode`."""
        return bytes(ids).decode("utf-8", errors)


class WordTokenizer:
    r"""A token for each word of one text, and one, `<unk>`, for all other words.

    Args:
        text: the text whose words are known.
        pattern: what counts as a word.

    Examples:
        >>> words = WordTokenizer("the cat in the hat")
        >>> words.encode("the cat in the hat"), words.encode("the dog in the fog")
        ([1, 2, 3, 4, 5], [1, 0, 3, 4, 0])

        Lost text is not the worst of it. A language model is measured by how well it
        guesses the next token, and "unknown" is easy to guess. A tokenizer that knows
        nothing makes a perfect model:

        >>> WordTokenizer("").encode("the dog in the fog")
        [0, 0, 0, 0, 0]

        So two models can be compared by their guesses only if nothing is unknown.
    """

    def __init__(self, text: str, pattern: str = GPT2_PATTERN) -> None:
        self.pattern = pattern
        self.words = ["<unk>", *dict.fromkeys(pretokenize(text, pattern))]
        self.vocab_size = len(self.words)
        self._ids = {word: id_ for id_, word in enumerate(self.words) if id_}

    def encode(self, text: str) -> list[int]:
        """Turn text into the numbers of its words, 0 for an unknown one."""
        return [self._ids.get(word, 0) for word in pretokenize(text, self.pattern)]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn numbers into words."""
        return "".join([self.words[id_] for id_ in ids])


def count_pairs(ids: Sequence[int]) -> Counter[Pair]:
    r"""Count how often each two tokens are neighbours.

    Byte-pair encoding (Gage 1994; for words, Sennrich et al. 2016, arXiv:1508.07909)
    repeats one step: find the two tokens that most often stand side by side, and let a
    new token stand for both.

    Args:
        ids: a row of tokens.

    Returns:
        The counts, in the order in which the pairs first appear.

    Examples:
        The bytes of "the cat in the hat", and the pairs that occur more than once:

        >>> ids = list(b"the cat in the hat")
        >>> [(chr(a) + chr(b), n) for (a, b), n in count_pairs(ids).items() if n > 1]
        [('th', 2), ('he', 2), ('e ', 2), ('at', 2)]

        Pairs may overlap. Three times the same token are two pairs of it:

        >>> count_pairs([7, 7, 7])
        Counter({(7, 7): 2})
    """
    return Counter(pairwise(ids))


def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    r"""Put one new token in the place of two neighbours, wherever they occur.

    Args:
        ids: a row of tokens.
        pair: the two neighbours.
        new_id: the token for both.

    Returns:
        The new row. Where pairs overlap, the left one is taken.

    Examples:
        "th" comes first of the four pairs that occur twice, and gets the number 256:

        >>> ids = merge(list(b"the cat in the hat"), (ord("t"), ord("h")), 256)
        >>> ids[:5], len(ids)
        ([256, 101, 32, 99, 97], 16)

        Count again. "h" is gone from most places, and "th" has become a partner:

        >>> [(pair, n) for pair, n in count_pairs(ids).items() if n > 1]
        [((256, 101), 2), ((101, 32), 2), ((97, 116), 2)]
        >>> ids = merge(ids, (256, 101), 257)
        >>> [(pair, n) for pair, n in count_pairs(ids).items() if n > 1]
        [((257, 32), 2), ((97, 116), 2)]
        >>> ids = merge(ids, (257, 32), 258)
        >>> ids
        [258, 99, 97, 116, 32, 105, 110, 32, 258, 104, 97, 116]

        Three merges have turned 18 tokens into 12; 257 is "the", and 258 is "the" with
        the space behind it. That last one is a mistake. "the." and "the," would come to
        have tokens of their own, and the vocabulary would fill with words in all their
        surroundings. So a text is first cut into *pre-tokens*, words with the space
        *before* them, and no merge goes across a cut:

        >>> pretokenize("the cat in the hat", GPT2_PATTERN)
        ['the', ' cat', ' in', ' the', ' hat']
        >>> merge([7, 7, 7], (7, 7), 8)
        [8, 7]
    """
    new_ids = []
    i = 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            new_ids.append(new_id)
            i += 2
        else:
            new_ids.append(ids[i])
            i += 1
    return new_ids


def train_bpe_naive(
    source: str | os.PathLike[str] | Iterable[str],
    vocab_size: int,
    special_tokens: Iterable[str] = (),
    *,
    pattern: str = GPT2_PATTERN,
    tie_break: str = "bytes",
) -> tuple[dict[int, bytes], list[Merge]]:
    r"""Learn merges from text, counting everything again after each.

    Args:
        source: a path (`str` or `PathLike`) to a file of UTF-8 text, or the texts
            themselves: any other iterable of strings. Nothing is merged across two.
        vocab_size: how many tokens there shall be. 256 are the bytes, the last ones are
            the special tokens, and those between are learned.
        special_tokens: strings that stand for something other than text, such as the
            end of a document. They are cut out of the text before anything is counted.
        pattern: the pre-tokenizer, a regular expression.
        tie_break: which of the most frequent pairs to merge. `"bytes"`: the greater, as
            a pair of byte strings. `"first"`: the one seen first. `"huggingface"`: the
            smaller as a pair of ids, with the bytes numbered in the order of the
            characters that GPT-2 writes for them.

    Returns:
        The vocabulary, from ids to bytes, and the merges in the order of learning. If
        no pair is left to merge, there are fewer, and a message says how many.

    Raises:
        ValueError: if there is no text, or if an argument is not what it should be.

    Examples:
        The number of tokens is that of bytes, merges and special tokens together:

        >>> vocab, merges = train_bpe_naive(["the cat in the hat"], 260, ["<|end|>"])
        >>> merges
        [(b't', b'h'), (b'th', b'e'), (b'a', b't')]
        >>> len(vocab) == 256 + len(merges) + 1, vocab[256], vocab[259]
        (True, b'th', b'<|end|>')
    """
    # The text becomes rows of bytes, one for each pre-token.
    specials = check_training(vocab_size, special_tokens, tie_break)
    chunks = [
        list(piece.encode())
        for document in source_documents(source, pattern, specials)
        for text in split_specials(document, specials)[::2]
        for piece in pretokenize(text, pattern)
    ]
    if not chunks:
        raise ValueError("there is no text to learn from: the source is empty")
    vocab = {byte: bytes([byte]) for byte in range(256)}
    merges: list[Merge] = []
    while len(vocab) < vocab_size - len(specials):
        counts: Counter[Pair] = Counter()
        for chunk in chunks:
            counts.update(count_pairs(chunk))
        if not counts:
            break
        pair = choose_pair(counts, vocab, tie_break)
        merges.append((vocab[pair[0]], vocab[pair[1]]))
        new_id = len(vocab)
        vocab[new_id] = vocab[pair[0]] + vocab[pair[1]]
        chunks = [merge(chunk, pair, new_id) for chunk in chunks]
    report_shortage(len(merges), vocab_size - 256 - len(specials))
    for token in specials:
        vocab[len(vocab)] = token.encode()
    return vocab, merges


def choose_pair(
    counts: Mapping[Pair, int], vocab: Mapping[int, bytes], tie_break: str
) -> Pair:
    r"""Choose the most frequent pair, and one of them where there are several.

    Ties are common: rare pairs are many, and their counts are small. No rule is better
    than another, but two programs that differ in theirs learn different vocabularies
    from the same text, and their models cannot read each other's tokens.

    Args:
        counts: how often each pair occurs, in the order of first appearance.
        vocab: the bytes of each token.
        tie_break: the rule, as for [`train_bpe_naive`][minillm.bpe.train_bpe_naive].

    Returns:
        The pair.

    Examples:
        Four words, 5, 2, 3 and 6 times, and six merges, by three rules:

        >>> words = ["low"] * 5 + ["lower"] * 2 + ["widest"] * 3 + ["newest"] * 6
        >>> for rule in "bytes", "first", "huggingface":
        ...     _, merges = train_bpe_naive(words, 262, tie_break=rule)
        ...     print(rule, [(left + right).decode() for left, right in merges])
        bytes ['st', 'est', 'ow', 'low', 'west', 'ne']
        first ['es', 'est', 'lo', 'low', 'ne', 'new']
        huggingface ['es', 'est', 'lo', 'low', 'ew', 'new']
    """
    most = max(counts.values())
    tied = [pair for pair, count in counts.items() if count == most]
    if tie_break == "first":
        return tied[0]
    if tie_break == "bytes":
        return max(tied, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    # Hugging Face numbers the bytes in the order of the characters that GPT-2 writes
    # for them; a merged token has its number from 256 on either way.
    return min(tied, key=lambda pair: tuple(BYTE_RANK.get(id_, id_) for id_ in pair))


def encode_naive(
    text: str,
    vocab: Mapping[int, bytes],
    merges: Iterable[Merge],
    *,
    pattern: str = GPT2_PATTERN,
) -> list[int]:
    r"""Encode a text by doing to it what was done to the training text.

    Args:
        text: any text.
        vocab: the bytes of each token.
        merges: the merges, in the order they were learned.
        pattern: the pre-tokenizer of the training.

    Returns:
        The tokens of the text.

    Examples:
        "then" was never seen, but it begins like "the":

        >>> vocab, merges = train_bpe_naive(["the cat in the hat"], 259)
        >>> encode_naive("then", vocab, merges)
        [257, 110]
        >>> [vocab[id_] for id_ in encode_naive("then", vocab, merges)]
        [b'the', b'n']
    """
    ids = {token: id_ for id_, token in vocab.items()}
    chunks = [
        [ids[bytes([byte])] for byte in piece.encode()]
        for piece in pretokenize(text, pattern)
    ]
    for left, right in merges:
        pair, new_id = (ids[left], ids[right]), ids[left + right]
        chunks = [merge(chunk, pair, new_id) for chunk in chunks]
    return [id_ for chunk in chunks for id_ in chunk]


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
            merges say. For merges learned here it makes no difference. tiktoken does
            it; a `tokenizer.json` says whether to.

    Attributes:
        vocab: the bytes of each token, special ones included.
        merges: the merges.
        special_tokens: the special tokens and their ids.
        pattern: the pre-tokenizer.

    Raises:
        ValueError: if the parts do not fit together.

    # Special tokens

    A model has to be told where a document ends or who is speaking. That is not text,
    so it gets tokens that no text can produce:

    >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 260, ["<|end|>"])
    >>> tokenizer.special_tokens
    {'<|end|>': 259}
    >>> tokenizer.encode("the<|end|>", allowed_special={"<|end|>"})
    [257, 259]

    They have to be asked for. A program that lets its users write `<|end|>` and takes
    it for the token lets them end the document, or speak with the voice of another. So
    by default the same characters are ordinary text, and both decode alike:

    >>> tokenizer.encode("the<|end|>")
    [257, 60, 124, 101, 110, 100, 124, 62]
    >>> tokenizer.decode([257, 259]) == tokenizer.decode(tokenizer.encode("the<|end|>"))
    True

    # What the numbers mean

    `vocab_size` counts the bytes, the merges and the special tokens. It is the number
    of rows that a model needs, so it is the largest id plus one even where a vocabulary
    has holes:

    >>> tokenizer.vocab_size == 256 + len(tokenizer.merges) + 1 == len(tokenizer.vocab)
    True

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
    """

    def __init__(
        self,
        vocab: Mapping[int, bytes],
        merges: Iterable[Merge],
        special_tokens: Iterable[str] | Mapping[str, int] | None = None,
        *,
        pattern: str = GPT2_PATTERN,
        ignore_merges: bool = True,
    ) -> None:
        self.vocab = dict(vocab)
        self.merges = [(left, right) for left, right in merges]
        self.pattern = pattern
        self.ignore_merges = ignore_merges
        self.special_tokens = place_specials(
            self.vocab, self.merges, special_tokens or ()
        )
        special_ids = set(self.special_tokens.values())
        ordinary = {t: i for i, t in self.vocab.items() if i not in special_ids}
        self._encoder = Encoder(ordinary, self.merges, pattern, ignore_merges)

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
            options: further arguments of [`train_bpe`][minillm.bpe.train_bpe].

        Returns:
            The tokenizer.

        Examples:
            >>> BPETokenizer.train(["the cat in the hat"], 260, ["<|end|>"])
            <BPETokenizer: vocab_size=260, merges=3, special_tokens={'<|end|>': 259}>
        """
        specials = list(special_tokens)
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
            ids += [self.special_tokens[part]] if i % 2 else self._encoder.encode(part)
        return ids

    def pre_tokens(
        self, text: str, allowed_special: Iterable[str] = ()
    ) -> Iterator[tuple[str, bool]]:
        r"""Cut a text as `encode` does before it merges anything.

        Args:
            text: any text.
            allowed_special: as for `encode`.

        Yields:
            Each pre-token or special token, and whether it is a special one.

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
        if allowed_special == "all":
            return tuple(self.special_tokens)
        if isinstance(allowed_special, str):
            raise ValueError(
                "allowed_special is 'all' or a collection of special tokens, not the "
                f"string {allowed_special!r}; write {{{allowed_special!r}}}"
            )
        allowed = tuple(allowed_special)
        for name in allowed:
            if name not in self.special_tokens:
                raise ValueError(
                    f"{name!r} is no special token of this tokenizer; it has "
                    f"{list(self.special_tokens)}"
                )
        return allowed

    def encode_iterable(
        self, chunks: Iterable[str], allowed_special: Iterable[str] = ()
    ) -> Iterator[int]:
        r"""Turn a text that comes in parts into tokens, as if it had come whole.

        Args:
            chunks: the parts, cut anywhere.
            allowed_special: as for [`encode`][minillm.bpe.BPETokenizer.encode].

        Yields:
            The tokens of all parts joined. What may still change is held back: for the
            patterns of this package the last run of text without a blank (or, for those
            of GPT-4 and later, at worst the last line), for another pattern everything
            since the last special token.

        Examples:
            Encoding part by part is something else, since a cut may go through a word:

            >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 259)
            >>> tokenizer.encode("the c") + tokenizer.encode("at")
            [257, 32, 99, 258]
            >>> list(tokenizer.encode_iterable(["t", "he c", "at"]))
            [257, 32, 99, 258]
            >>> list(tokenizer.encode_iterable(["t", "he cat"])) == tokenizer.encode(
            ...     "the cat"
            ... )
            True
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
            allowed_special: as for [`encode`][minillm.bpe.BPETokenizer.encode].

        Returns:
            The tokens of each text, in the order of the texts.

        Raises:
            ValueError: as `encode`.
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
            workers: as for `encode_batch`.
            allowed_special: as for [`encode`][minillm.bpe.BPETokenizer.encode].

        Returns:
            The number of tokens.

        Raises:
            ValueError: if the file is not UTF-8; or as `encode`.
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
            Every text comes back. Not every row of tokens is a text: a character may be
            cut in two, and its halves are shown as U+FFFD.

            >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 259)
            >>> tokenizer.decode(tokenizer.encode("the 🌍"))
            'the 🌍'
            >>> tokenizer.decode(tokenizer.encode("the 🌍")[:-1])
            'the \ufffd'
            >>> tokenizer.decode([259])
            Traceback (most recent call last):
            ValueError: there is no token 259: the ids of this tokenizer end at 258
        """
        return self.decode_bytes(ids).decode("utf-8", errors)

    def _parts(self) -> "Parts":
        return Parts(
            self.vocab,
            self.merges,
            self.special_tokens,
            self.pattern,
            self.ignore_merges,
        )

    @classmethod
    def _from_parts(cls, parts: "Parts") -> "BPETokenizer":
        vocab, merges, special_tokens, pattern, ignore_merges = parts
        return cls(
            vocab,
            merges,
            special_tokens,
            pattern=pattern,
            ignore_merges=ignore_merges,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a `tokenizer.json`, which `tokenizers` and `transformers` read too."""
        write_tokenizer_json(path, self._parts())

    def save_gpt2_files(
        self, vocab_json: str | os.PathLike[str], merges_txt: str | os.PathLike[str]
    ) -> None:
        """Write GPT-2's two files. They hold neither pattern nor special tokens."""
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
        """
        return cls._from_parts(read_tiktoken_file(path, pattern, special_tokens))


# The fast versions of what this page explains, and what is built on them.
from minillm.bpe_encode import Encoder, encode_batch, encode_file  # ruff: ignore[module-import-not-at-top-of-file]
from minillm.bpe_fast import train_bpe  # ruff: ignore[module-import-not-at-top-of-file]
from minillm.bpe_formats import (  # ruff: ignore[module-import-not-at-top-of-file]
    Parts,
    place_specials,
    read_gpt2_files,
    read_tiktoken_file,
    read_tokenizer_json,
    write_gpt2_files,
    write_tokenizer_json,
)
from minillm.bpe_leaks import ShownWord, show_merges  # ruff: ignore[module-import-not-at-top-of-file]
