r"""Turn text into integers, and back.

**The question.** A model computes with numbers, and a text is not one. Which integers
should stand for a text? We want three things: a way back to the text, no text that is
impossible, and a short sequence. Each integer is the *id* of a *token*, a chunk of text
that the model knows, and the fewer tokens a text takes, the less there is to compute.

**One string, one number.** We run one string through four tokenizers and measure each
by its *compression ratio*: how many bytes of text one token stands for, on average.
Each step is forced by a number that rules out the one before.

>>> text = "Hello, 🌍! 你好!"

*Characters.* Unicode has a number for each, its *code point*. The problem is the size
of the vocabulary. GPT-2 small, a model of 124 million numbers, keeps 768 of them for
every token that it knows. For all code points it would need seven times its own size.
(Some 160,000 belong to a character so far; these alone would double it.) And it would
never meet most of them:

>>> characters = CharTokenizer()
>>> round(compression_ratio(text, characters.encode(text)), 2), characters.vocab_size
(1.54, 1114112)
>>> characters.vocab_size * 768
855638016

*Bytes.* In UTF-8 every text is a sequence of bytes, and a byte has only 256 values. Now
the problem is the ratio. It is 1, the lowest of the four: one token for each byte of
the text.

>>> compression_ratio(text, ByteTokenizer().encode(text)), ByteTokenizer().vocab_size
(1.0, 256)

*Words.* [`pretokenize`][minillm.bpe.pretokenize] cuts a text into words. An emoji is
not a letter, so it forms a word with the punctuation after it, and our string has five
words. (Each includes the space before it; we will see why.)

>>> pretokenize(text, GPT2_PATTERN)
['Hello', ',', ' 🌍!', ' 你好', '!']

The ratio is four times better: 20 bytes in 5 tokens. But the vocabulary holds the five
words of one text and a token for "unknown", and every word that was not in that text
becomes this token. There is no way back:

>>> words = WordTokenizer(text)
>>> compression_ratio(text, words.encode(text)), words.vocab_size
(4.0, 6)
>>> words.decode(words.encode("Hello, world! 你好!"))
'Hello,<unk>! 你好!'

*Byte-pair encoding.* Start from the 256 bytes, so that no text is impossible, and give
each frequent run of bytes a token of its own, so that the sequence gets short. The size
of the vocabulary becomes a dial between bytes and words:

>>> for vocab_size in 256, 261, 266, 271:
...     tokenizer = BPETokenizer.train([text], vocab_size)
...     print(vocab_size, round(compression_ratio(text, tokenizer.encode(text)), 2))
256 1.0
261 1.33
266 2.0
271 4.0
>>> tokenizer.decode(tokenizer.encode("Hello, world! 你好!"))
'Hello, world! 你好!'

At 271 the tokens are the words, and anything else is still spelled in bytes. That is
why most language models use byte-pair encoding, and this chapter builds it.

How large should the vocabulary be? The text alone does not say: each token also costs
the model a vector of its own, and the demo takes 2,048. This is what the dial does on
Andersen's tales, with a vocabulary learned from most of them and the ratio measured on
the rest:

<div class="figure" markdown>

--8<-- "images/compression.svg"

</div>

Every doubling gives less than the one before. At 19,468 tokens each word of the tales
that it was learned from is one token, no pair is left to merge, and the curve ends.
GPT-2 has 50,257 tokens, learned from web pages; a quarter of that, learned from tales,
does as well on tales. A vocabulary suits the kind of text that it was learned from.

**Before this:** nothing but Python. **Deeper**, when you have read the chapter:
[`minillm.tokenizer.patterns`][] (where a text is cut into words),
[`minillm.tokenizer.tokenizer`][] (special tokens, streams, files),
[`minillm.tokenizer.leaks`][] (what a model cannot see in its tokens) and
[`minillm.tokenizer.learning`][] (how training becomes fast).
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from minillm.tokenizer.leaks import ShownWord, show_merges
from minillm.tokenizer.learning import check_training, report_shortage, train_bpe
from minillm.tokenizer.patterns import (
    BYTE_RANK,
    GPT2_PATTERN,
    GPT4_PATTERN,
    O200K_PATTERN,
    pretokenize,
)
from minillm.tokenizer.streams import read_text, split_specials
from minillm.tokenizer.tokenizer import BPETokenizer
from minillm.tokenizer.words import Merge, Pair

__all__ = [
    "GPT2_PATTERN",
    "GPT4_PATTERN",
    "O200K_PATTERN",
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "ShownWord",
    "WordTokenizer",
    "choose_pair",
    "compression_ratio",
    "count_pairs",
    "encode_naive",
    "merge",
    "pretokenize",
    "show_merges",
    "train_bpe",
    "train_bpe_naive",
]


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
        """Turn ids into the characters with these numbers."""
        return "".join([chr(id_) for id_ in ids])


class ByteTokenizer:
    r"""A token for each byte of the text in UTF-8.

    Examples:
        UTF-8 spends one byte on an ASCII character and up to four on others:

        >>> ByteTokenizer().encode("aé🌍")
        [97, 195, 169, 240, 159, 140, 141]

        Part of a character is not text. It becomes the replacement character, U+FFFD:

        >>> ByteTokenizer().decode([97, 195])
        'a�'
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

        The text that is lost is not the worst of it. A language model is judged by how
        well it predicts the next token, and "unknown" is easy to predict. A tokenizer
        that knows no word makes every model perfect:

        >>> WordTokenizer("").encode("the dog in the fog")
        [0, 0, 0, 0, 0]

        So two models can be compared by their predictions only if no word is unknown.
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
    r"""Count how often each pair of tokens stands side by side.

    Byte-pair encoding (Gage 1994; for words, Sennrich et al. 2016, arXiv:1508.07909; of
    any text, from its bytes, Radford et al. 2019) repeats one step: find the two tokens
    that most often stand side by side, and let a new token stand for both.

    Args:
        ids: a sequence of ids.

    Returns:
        The counts, in the order in which the pairs first appear.

    Examples:
        The bytes of "the cat in the hat", and the pairs that occur more than once:

        >>> ids = list(b"the cat in the hat")
        >>> [(chr(a) + chr(b), n) for (a, b), n in count_pairs(ids).items() if n > 1]
        [('th', 2), ('he', 2), ('e ', 2), ('at', 2)]

        Pairs may overlap. Three equal tokens in a row are two pairs:

        >>> count_pairs([7, 7, 7])
        Counter({(7, 7): 2})
    """
    return Counter(pairwise(ids))


def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    r"""Replace a pair of neighbours by one new token, wherever it occurs.

    Args:
        ids: a sequence of ids.
        pair: the two neighbours.
        new_id: the id of the token for both.

    Returns:
        The new sequence.

    Examples:
        "the cat in the hat" by hand. Here are all counts, with a dot for the space:

        >>> names = {byte: chr(byte) for byte in range(256)} | {ord(" "): "·"}
        >>> def show_counts(ids):
        ...     pairs = count_pairs(ids).items()
        ...     print(*[f"{names[a]}+{names[b]}:{n}" for (a, b), n in pairs])
        >>> ids = list(b"the cat in the hat")
        >>> show_counts(ids)
        t+h:2 h+e:2 e+·:2 ·+c:1 c+a:1 a+t:2 t+·:1 ·+i:1 i+n:1 n+·:1 ·+t:1 ·+h:1 h+a:1

        Four pairs occur twice, and only one can be merged. Where counts are equal, our
        trainer below takes the pair with the greater bytes. Here that is "th", since
        "t" comes after "h", "e" and "a". It gets the id 256. "t" and "h" are gone from
        these two positions, and "th" has become a neighbour of "e":

        >>> ids, names[256] = merge(ids, (ord("t"), ord("h")), 256), "th"
        >>> show_counts(ids)
        th+e:2 e+·:2 ·+c:1 c+a:1 a+t:2 t+·:1 ·+i:1 i+n:1 n+·:1 ·+th:1 ·+h:1 h+a:1

        Three pairs occur twice now, and "th" with "e" is the greatest. The second merge
        makes "the":

        >>> ids, names[257] = merge(ids, (256, ord("e")), 257), "the"
        >>> show_counts(ids)
        the+·:2 ·+c:1 c+a:1 a+t:2 t+·:1 ·+i:1 i+n:1 n+·:1 ·+the:1 ·+h:1 h+a:1

        Two pairs are left that occur twice. The third merge makes "the" with the space
        after it:

        >>> ids, names[258] = merge(ids, (257, ord(" ")), 258), "the·"
        >>> show_counts(ids)
        the·+c:1 c+a:1 a+t:2 t+·:1 ·+i:1 i+n:1 n+·:1 ·+the·:1 the·+h:1 h+a:1
        >>> ids
        [258, 99, 97, 116, 32, 105, 110, 32, 258, 104, 97, 116]

        Three merges have turned 18 tokens into 12. But the last one is a mistake. In a
        longer text "the." and "the," would get tokens of their own, and the vocabulary
        would fill with words plus whatever follows them. So a text is first cut into
        *pre-tokens*, words with the space *before* them, and no merge crosses a cut:

        >>> pretokenize("the cat in the hat", GPT2_PATTERN)
        ['the', ' cat', ' in', ' the', ' hat']

        Where two occurrences of a pair overlap, the left one is merged:

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
            themselves: any other iterable of strings. No merge crosses from one text
            to the next.
        vocab_size: how many tokens there should be. 256 are the bytes, the last ones
            are the special tokens, and those between are learned.
        special_tokens: strings that stand for something other than text, such as the
            end of a document. They are cut out of the text before anything is counted.
        pattern: the pre-tokenizer, a regular expression.
        tie_break: which of the most frequent pairs to merge. `"bytes"`: the greater, as
            a pair of byte strings. `"first"`: the one seen first. `"huggingface"`: the
            smaller as a pair of ids, with the bytes numbered as Hugging Face does.
            `"ids"`: the same with the bytes as they are, which is the rule of the
            packages `rustbpe`, `bpeasy` and `gigatoken`.

    Returns:
        The vocabulary, from ids to bytes, and the merges in the order of learning. If
        no pair is left to merge, there are fewer, and a message says how many.

    Raises:
        ValueError: if there is no text, or if an argument is not what it should be.

    Examples:
        The third merge differs from the one by hand, which crossed a cut. Bytes,
        merges and special tokens together make up the vocabulary:

        >>> vocab, merges = train_bpe_naive(["the cat in the hat"], 260, ["<|end|>"])
        >>> merges
        [(b't', b'h'), (b'th', b'e'), (b'a', b't')]
        >>> len(vocab) == 256 + len(merges) + 1, vocab[256], vocab[259]
        (True, b'th', b'<|end|>')
    """
    specials = check_training(source, vocab_size, special_tokens, tie_break)
    # A path gives one text, read here in one piece.
    if isinstance(source, str | os.PathLike):
        source = ["".join(read_text(source))]
    # The texts become sequences of bytes, one for each pre-token. Cut at the special
    # tokens, every second part of a text is one of them, and is left out.
    chunks = [
        list(word.encode())
        for text in source
        for part in split_specials(text, specials)[::2]
        for word in pretokenize(part, pattern)
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
    r"""Choose the most frequent pair, by a rule where several tie.

    Ties are common, since most pairs are rare and small counts coincide. No rule is
    right or wrong, but two programs with different rules learn different vocabularies
    from the same text, and their models cannot read each other's tokens.

    Args:
        counts: how often each pair occurs, in the order of first appearance.
        vocab: the bytes of each token.
        tie_break: the rule, as for [`train_bpe_naive`][minillm.bpe.train_bpe_naive].

    Returns:
        The pair.

    Examples:
        Of two pairs that occur twice, "b" with "a" has the greater bytes:

        >>> letters = {byte: bytes([byte]) for byte in b"ab"}
        >>> choose_pair(count_pairs(list(b"ababa")), letters, "bytes")
        (98, 97)
        >>> choose_pair(count_pairs(list(b"ababa")), letters, "first")
        (97, 98)

        Four words that occur 5, 2, 3 and 6 times, and six merges by each of four rules.
        (The last two number the letters of English alike, and the space otherwise: for
        `"huggingface"` it comes after them.)

        >>> words = [" low"] * 5 + [" lower"] * 2 + [" widest"] * 3 + [" newest"] * 6
        >>> for rule in "bytes", "first", "huggingface", "ids":
        ...     _, merges = train_bpe_naive(words, 262, tie_break=rule)
        ...     print(rule, [(left + right).decode() for left, right in merges])
        bytes ['st', 'est', 'ow', 'low', ' low', 'west']
        first ['es', 'est', ' l', ' lo', ' low', ' n']
        huggingface ['es', 'est', 'lo', ' lo', ' low', 'ew']
        ids ['es', 'est', ' l', 'ow', ' low', ' n']
    """
    most = max(counts.values())
    tied = [pair for pair, count in counts.items() if count == most]
    if tie_break == "first":
        return tied[0]
    if tie_break == "bytes":
        return max(tied, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    if tie_break == "ids":
        return min(tied)
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
