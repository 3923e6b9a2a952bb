r"""Exercises to chapter 1: text to integers.

Write each function in the place of its `raise NotImplementedError`, and ask, in
this folder:

    minillm exercises check bpe.merge        # one of them
    minillm exercises check                  # all of them
    minillm exercises check bpe.merge --hint # three hints, one after the other

The examples in the docstrings can be run by themselves: `python -m doctest bpe.py`.
What is imported here may be used; the answers in `minillm` may be read, not called.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from minillm.bpe import GPT2_PATTERN
from minillm.tokenizer.patterns import pretokenize

Pair = tuple[int, int]


def compression_ratio(text: str, ids: list[int]) -> float:
    r"""Measure how many bytes of text, in UTF-8, one token stands for.

    Without tokens there is no ratio: raise a ValueError.

    >>> compression_ratio("naïve", [3, 7])
    3.0
    """
    raise NotImplementedError


def count_pairs(ids: list[int]) -> "Counter[Pair]":
    r"""Count how often each two tokens are neighbours.

    Pairs may overlap: three times the same token are two pairs of it.

    >>> count_pairs([7, 7, 7])
    Counter({(7, 7): 2})
    """
    raise NotImplementedError


def merge(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    r"""Put one new token in the place of two neighbours, wherever they occur.

    Where pairs overlap, the left one is taken. The old list stays as it was, and a list
    twice as long takes twice the work.

    >>> merge([1, 2, 3, 1, 2], (1, 2), 256)
    [256, 3, 256]
    >>> merge([7, 7, 7], (7, 7), 256)
    [256, 7]
    """
    raise NotImplementedError


def choose_pair(counts: Mapping[Pair, int], vocab: Mapping[int, bytes]) -> Pair:
    r"""Choose the most frequent pair.

    Among equally frequent ones, choose the greatest as a pair of byte strings:
    `vocab[id]` are the bytes of a token.

    >>> vocab = {1: b"a", 2: b"b", 3: b"z"}
    >>> choose_pair({(1, 2): 5, (3, 1): 5, (3, 2): 4}, vocab)
    (3, 1)
    """
    raise NotImplementedError


def train(texts: list[str], vocab_size: int) -> list[tuple[bytes, bytes]]:
    r"""Learn the merges of a byte-pair encoding.

    Cut each text into pre-tokens with `pretokenize(text, GPT2_PATTERN)`; a list of
    bytes for each is the start, and no merge goes across two of them. Then, until there
    are `vocab_size` tokens (256 of them are the bytes) or no pair is left: count the
    pairs of all rows together, choose as in `choose_pair`, merge everywhere. The
    functions above may be used.

    >>> train(["the cat in the hat"], 258)
    [(b't', b'h'), (b'th', b'e')]
    """
    raise NotImplementedError


def encode(
    text: str, vocab: Mapping[int, bytes], merges: list[tuple[bytes, bytes]]
) -> list[int]:
    r"""Turn a text into tokens, by doing to it what was done to the training text.

    Cut it into pre-tokens with `pretokenize(text, GPT2_PATTERN)`, begin with the ids of
    the bytes, and apply the merges in the order in which they were learned.

    >>> vocab = {i: bytes([i]) for i in range(256)} | {256: b"th", 257: b"the"}
    >>> encode("then the", vocab, [(b"t", b"h"), (b"th", b"e")])
    [257, 110, 32, 257]
    """
    raise NotImplementedError


def split_specials(text: str, specials: tuple[str, ...]) -> list[str]:
    r"""Cut the special tokens out of a text.

    Ordinary text stands at the even places of the result, also where it is empty, and
    special tokens at the odd ones. Where one special token begins another, the longer
    is found. There may be no special tokens.

    >>> split_specials("one<|end|>two", ("<|end|>",))
    ['one', '<|end|>', 'two']
    >>> split_specials("<e><e>", ("<e>", "<e><e>"))
    ['', '<e><e>', '']
    """
    raise NotImplementedError


def encode_stream(
    chunks: Iterable[str], encode: Callable[[str], list[int]]
) -> Iterator[int]:
    r"""Encode a text that comes in parts, as if it had come whole.

    `encode` turns text into ids. Its pre-tokens are words with the space *before* them,
    so nothing goes across the place between a letter and a space that follows it: what
    stands left of it may be encoded at once, and the rest must wait. Encode what is
    ready before you ask for the next part, and encode nothing twice.

    >>> def encode(text):
    ...     return [len(word) for word in pretokenize(text, GPT2_PATTERN)]
    >>> list(encode_stream(["t", "he c", "at"], encode)), encode("the cat")
    ([3, 4], [3, 4])
    """
    raise NotImplementedError
