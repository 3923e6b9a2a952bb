r"""What a tokenizer is made of.

A tokenizer is a table of tokens, a list of merges, a pattern, and some tokens that are
found before anything is cut (`Parts`). Three programs have given it three shapes:

| file | written by | holds |
| --- | --- | --- |
| `tokenizer.json` | Hugging Face `tokenizers` | everything |
| `vocab.json` and `merges.txt` | GPT-2 | tokens and merges |
| `*.tiktoken` | tiktoken | tokens in order, from which the merges follow |

[`minillm.tokenizer.saved`][] writes the first and [`minillm.tokenizer.loaded`][] reads
it; [`minillm.tokenizer.formats`][] has the other two. A file comes from elsewhere, so
nothing in it is believed: whatever cannot be represented here is refused by its name,
not ignored, because a tokenizer that is nearly right gives a model that is quietly
wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from minillm.tokenizer.patterns import BYTE_TO_CHAR, CHAR_TO_BYTE
from minillm.tokenizer.streams import check_specials
from minillm.tokenizer.words import Merge

__all__ = [
    "Merge",
    "Parts",
    "check_explained",
    "place_specials",
    "to_bytes",
    "to_characters",
]


# The largest vocabularies in use have $2^{18}$ tokens and files of some 30 MB. A file
# beyond these bounds is broken or meant to harm: what is read takes many times its size
# in memory.
MAX_BYTES: Final = 1 << 26
MAX_ID: Final = 1 << 24

_NONE: Final[Mapping[str, int]] = MappingProxyType({})


class Parts(NamedTuple):
    r"""What a tokenizer is made of, whatever file it came from.

    Special tokens are found only where they are allowed, added ones in any text. The
    ids that begin and end a text belong around it, and those that stop end a reply.
    """

    vocab: Mapping[int, bytes]
    merges: Sequence[Merge]
    special_tokens: Mapping[str, int]
    pattern: str
    ignore_merges: bool
    added_tokens: Mapping[str, int] = _NONE
    begin_ids: Sequence[int] = ()
    end_ids: Sequence[int] = ()
    stop_ids: Sequence[int] = ()


def place_specials(
    vocab: dict[int, bytes],
    merges: Iterable[Merge],
    special_tokens: Iterable[str] | Mapping[str, int],
) -> dict[str, int]:
    r"""Give each special token its id, and a place in the vocabulary.

    Args:
        vocab: the bytes of each token. What is missing is added.
        merges: the merges.
        special_tokens: the special tokens with their ids; or without, as a list: those
            that the vocabulary does not hold then get the next free ids.

    Returns:
        The special tokens and their ids.

    Raises:
        ValueError: if a special token is empty or occurs twice, or if its id is taken.

    Examples:
        >>> vocab = {0: b"a", 1: b"<e>"}
        >>> place_specials(vocab, [], ["<e>", "<f>"]), vocab
        ({'<e>': 1, '<f>': 2}, {0: b'a', 1: b'<e>', 2: b'<f>'})
        >>> place_specials(vocab, [], {"<e>": 0})
        Traceback (most recent call last):
        ValueError: the special token '<e>' cannot have the id 0, which is that of b'a'
    """
    names = check_specials(special_tokens)
    if isinstance(special_tokens, Mapping):
        placed = dict(special_tokens)
    else:
        # The vocabulary that `train_bpe` returns holds the special tokens already. A
        # byte or a merged token is another one, even where it is spelled alike.
        wanted = {name.encode() for name in names}
        ids: dict[bytes, list[int]] = {token: [] for token in wanted}
        for id_, token in sorted(vocab.items()):
            if token in wanted:
                ids[token].append(id_)
        ordinary = {left + right for left, right in merges} & wanted
        ordinary |= {token for token in wanted if len(token) == 1}
        next_id = max(vocab, default=-1) + 1
        placed = {}
        for name in names:
            token = name.encode()
            free = ids[token][token in ordinary :]
            if free:
                placed[name] = free[-1]
            else:
                placed[name], next_id = next_id, next_id + 1
    for name, id_ in placed.items():
        if vocab.setdefault(id_, name.encode()) != name.encode():
            raise ValueError(
                f"the special token {name!r} cannot have the id {id_}, which is that "
                f"of {vocab[id_]!r}"
            )
    return placed


def check_explained(
    vocab: Mapping[int, bytes], merges: Iterable[Merge], named: Iterable[int]
) -> None:
    r"""Make sure that each token is a byte, or made by a merge, or named.

    Args:
        vocab: the bytes of each token.
        merges: the merges.
        named: the ids of special and added tokens.

    Raises:
        ValueError: if a token is none of these.

    Examples:
        The vocabulary that a trainer returns holds its special tokens. Passed on
        without their names, they would be words like others, which any text may hold:

        >>> vocab = {0: b"a", 1: b"b", 2: b"ab", 3: b"END"}
        >>> check_explained(vocab, [(b"a", b"b")], {3})
        >>> try:
        ...     check_explained(vocab, [(b"a", b"b")], {})
        ... except ValueError as error:
        ...     print(str(error).partition(":")[0])
        the token 3, b'END', is neither a byte nor made by a merge
    """
    named = set(named)
    known = {bytes([byte]) for byte in range(256)}
    known |= {left + right for left, right in merges}
    for id_, token in sorted(vocab.items()):
        if id_ in named:
            continue
        if token not in known:
            raise ValueError(
                f"the token {id_}, {token!r:.80}, is neither a byte nor made by a "
                "merge: if it is special, name it in special_tokens; if a word that "
                "is a token is to be taken whole, say ignore_merges=True"
            )
        known.discard(token)  # a second one would be another


def to_characters(token: bytes) -> str:
    r"""Write bytes as GPT-2's printable characters.

    Args:
        token: any bytes.

    Returns:
        One character a byte.

    Examples:
        >>> to_characters("é\n".encode()), to_bytes("ĠcafÃ©").decode()
        ('Ã©Ċ', ' café')
    """
    return "".join([BYTE_TO_CHAR[byte] for byte in token])


def to_bytes(characters: str) -> bytes:
    r"""Read GPT-2's printable characters as bytes.

    Args:
        characters: one character a byte.

    Returns:
        The bytes.

    Raises:
        ValueError: if a character stands for no byte.

    Examples:
        >>> to_bytes("a b")
        Traceback (most recent call last):
        ValueError: the token 'a b' is not byte-level: ' ' stands for no byte
    """
    try:
        return bytes([CHAR_TO_BYTE[character] for character in characters])
    except KeyError as error:
        raise ValueError(
            f"the token {characters!r:.80} is not byte-level: {error} stands for no "
            "byte"
        ) from None
