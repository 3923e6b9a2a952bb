r"""Where the abstraction leaks: what a model cannot see in its tokens.

**The question.** A language model is said to take a text and to return a text. It takes
ids. What is inside a token it can only learn from where the token occurs. Which of the
oddities of language models are oddities of their tokens?

We look with a tokenizer of 4,096 tokens, learned from English fairy tales:

>>> from minillm.bpe import GPT4_PATTERN, BPETokenizer
>>> from minillm.data import andersen
>>> tales = andersen()
>>> tokenizer = BPETokenizer.train(tales, 4096)
>>> def tokens(text):
...     return [tokenizer.decode([id_]) for id_ in tokenizer.encode(text)]

**Letters.** How many times does the letter r occur in " strawberry"? The word arrives
as three numbers. Nothing in them says which letters they stand for, and in another word
the same letters have another number:

>>> tokens(" strawberry"), " strawberry".count("r")
([' straw', 'ber', 'ry'], 3)
>>> tokens(" straw"), tokens("straw")
([' straw'], ['st', 'ra', 'w'])

**Words.** " beautiful" in the middle of a sentence is one token. At its beginning the
same word is four, of which none is shared. What is one word to us the model must learn
twice:

>>> tokens(" beautiful"), tokens("Beautiful")
([' beautiful'], ['B', 'ea', 'ut', 'iful'])

**Numbers.** GPT-4's pattern cuts digits into groups of three from the left. So the 4 of
1234 stands alone, the 4 of 12345 does not, and neither group says whether it counts
thousands or tens:

>>> from minillm.tokenizer.patterns import pretokenize
>>> pretokenize("1234 + 1 = 1235, 12345", GPT4_PATTERN)
['123', '4', ' +', ' ', '1', ' =', ' ', '123', '5', ',', ' ', '123', '45']

**The space at the end.** A space belongs to the word after it. A prompt that ends in
one has taken it away from that word. Its tokens are not the beginning of those of the
sentence, and what the model has always seen there, " time", can no longer follow:

>>> tokens("Once upon a time")
['On', 'ce', ' upon', ' a', ' time']
>>> tokens("Once upon a ")
['On', 'ce', ' upon', ' a', ' ']

**Languages.** The merges went to the language of the training text. The same sentence
in another one takes more tokens, so it costs more, fills the context sooner, and asks
more steps of the model. Where no merge fits, each byte is a token:

>>> article_1 = {
...     "English": "All human beings are born free and equal in dignity and rights.",
...     "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
...     "Russian": "Все люди рождаются свободными и равными в своем достоинстве и "
...     "правах.",
...     "Chinese": "人人生而自由，在尊严和权利上一律平等。",
... }
>>> for language, sentence in article_1.items():
...     n_ids = len(tokenizer.encode(sentence))
...     print(f"{language:7} {len(sentence)} characters, {n_ids} tokens")
English 63 characters, 17 tokens
German  64 characters, 30 tokens
Russian 69 characters, 127 tokens
Chinese 19 characters, 57 tokens

**Glitch tokens.** " beautif" was merged on the way to " beautiful", and since then
never occurs by itself. It keeps its row in the model's table, but in all of the
training text there is no place from which that row could be learned. Such a token, met
in a prompt, means whatever noise its row began with. GPT-2 and GPT-3 had a famous one,
the name of a user of a forum that the tokenizer had seen more of than the model:

>>> from collections import Counter
>>> used = Counter(id_ for tale in tales for id_ in tokenizer.encode(tale))
>>> id_ = next(id_ for id_, token in tokenizer.vocab.items() if token == b" beautif")
>>> used[id_], tokenizer.decode([id_])
(0, ' beautif')
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from minillm.tokenizer.tokenizer import BPETokenizer
from minillm.tokenizer.words import Merge

__all__ = ["ShownWord", "show_merges"]


class ShownWord(NamedTuple):
    r"""A pre-token, or a special token, and how it was merged."""

    text: str
    steps: list[list[bytes]]
    ids: list[int]


def show_merges(
    tokenizer: BPETokenizer, text: str, allowed_special: Iterable[str] = ()
) -> list[ShownWord]:
    r"""Show how each word of a text becomes tokens, merge by merge.

    `minillm tokenizer show FOLDER TEXT --merges` prints the same in colours.

    Args:
        tokenizer: the tokenizer.
        text: the text.
        allowed_special: as for
            [`encode`][minillm.tokenizer.tokenizer.BPETokenizer.encode].

    Returns:
        For each pre-token its text, its tokens before the first merge and after each,
        and its ids in the end.

    Examples:
        >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 259)
        >>> for word in show_merges(tokenizer, "the bat"):
        ...     for step in word.steps:
        ...         print(*step)
        b't' b'h' b'e'
        b'th' b'e'
        b'the'
        b' ' b'b' b'a' b't'
        b' ' b'b' b'at'
    """
    rank: dict[Merge, int] = {}
    for i, merge in enumerate(tokenizer.merges):
        rank.setdefault(merge, i)
    words = []
    for piece, special in tokenizer.pre_tokens(text, allowed_special):
        if special:
            ids = tokenizer.encode(piece, "all")
            words.append(ShownWord(piece, [[piece.encode()]], ids))
        else:
            ids = tokenizer.encode(piece)
            end = [tokenizer.vocab[id_] for id_ in ids]
            words.append(ShownWord(piece, _steps(piece.encode(), end, rank), ids))
    return words


def _steps(
    piece: bytes, end: Sequence[bytes], rank: Mapping[Merge, int]
) -> list[list[bytes]]:
    tokens = [piece[i : i + 1] for i in range(len(piece))]
    steps = [tokens]
    while tokens != end:
        best = min(pairwise(tokens), key=lambda pair: rank.get(pair, len(rank)))
        if best not in rank:
            # No merge is left, and yet it is one token: it was taken whole.
            return [*steps, list(end)]
        i = list(pairwise(tokens)).index(best)
        tokens = [*tokens[:i], best[0] + best[1], *tokens[i + 2 :]]
        steps.append(tokens)
    return steps
