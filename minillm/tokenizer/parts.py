r"""What a tokenizer is made of, and how to read one from a file: with suspicion.

A tokenizer is a table of tokens, a list of merges, a pattern and a few special tokens
(`Parts`). Three programs have given it three shapes:

| file | written by | holds |
| --- | --- | --- |
| `tokenizer.json` | Hugging Face `tokenizers` | everything |
| `vocab.json` and `merges.txt` | GPT-2 | tokens and merges |
| `*.tiktoken` | tiktoken | tokens in order, from which the merges follow |

[`minillm.tokenizer.saved`][] knows the first, [`minillm.tokenizer.formats`][] the other
two. This page holds what all three need. A file comes from elsewhere, so nothing in it
is believed: whatever cannot be represented here is refused by its name, not ignored,
because a tokenizer that is nearly right gives a model that is quietly wrong.
"""

import json
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from minillm.tokenizer.cuts import check_specials
from minillm.tokenizer.patterns import BYTE_TO_CHAR, CHAR_TO_BYTE

__all__ = [
    "Parts",
    "load_json",
    "place_specials",
    "read_tables",
    "to_bytes",
    "to_characters",
    "written_merges",
]

Merge = tuple[bytes, bytes]

# The largest vocabularies in use have $2^{18}$ tokens and files of some 30 MB. A file
# beyond these bounds is broken or meant to harm: what is read takes many times its size
# in memory.
MAX_BYTES = 1 << 26
MAX_ID = 1 << 24


class Parts(NamedTuple):
    r"""What a tokenizer is made of, whatever file it came from."""

    vocab: dict[int, bytes]
    merges: list[Merge]
    special_tokens: dict[str, int]
    pattern: str
    ignore_merges: bool


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


# Reading with suspicion.


def check(condition: bool, message: str) -> None:
    """Refuse a file unless a condition holds."""
    if not condition:
        raise ValueError(message)


@contextmanager
def shallow() -> Generator[None, None, None]:
    """Refuse what is nested so deep that Python cannot look through it."""
    try:
        yield
    except RecursionError:
        raise ValueError("it is nested deeper than any tokenizer is") from None


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Read a file, unless it is larger than any tokenizer."""
    size = Path(path).stat().st_size
    check(size <= MAX_BYTES, f"{size} bytes are more than any tokenizer needs")
    return Path(path).read_bytes()


def load_json(path: str | os.PathLike[str]) -> Any:
    r"""Read a JSON file.

    Args:
        path: the file.

    Returns:
        What it holds.

    Raises:
        ValueError: if it is too large, nested too deep, not UTF-8 or not JSON.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "deep.json"
        ...     _ = path.write_text("[" * 100_000, encoding="utf-8")
        ...     load_json(path)
        Traceback (most recent call last):
        ValueError: it is nested deeper than any tokenizer is
    """
    try:
        with shallow():
            return json.loads(read_file(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        message = f"it is not JSON, or not all of it: {error}"
        raise ValueError(message) from None


def read_tables(
    tokens: Any, entries: Any, specials: Mapping[str, int]
) -> tuple[dict[int, bytes], list[Merge]]:
    r"""Read a table of tokens and a list of merges.

    Args:
        tokens: an object from tokens, in GPT-2's characters, to ids.
        entries: the merges; each is a list of two tokens, or a string with a space
            between them.
        specials: special tokens, which stand for their own characters.

    Returns:
        The vocabulary and the merges.

    Raises:
        ValueError: if one of them is not what it should be.

    Examples:
        >>> read_tables({"Ġ": 0, "a": 1, "Ġa": 2, "<e>": 3}, ["Ġ a"], {"<e>": 3})
        ({0: b' ', 1: b'a', 2: b' a', 3: b'<e>'}, [(b' ', b'a')])
    """
    check(isinstance(tokens, dict), "its vocab is not an object")
    for id_ in [*tokens.values(), *specials.values()]:
        if type(id_) is not int or not 0 <= id_ < MAX_ID:
            raise ValueError(
                f"the id {id_!r:.80} is not an integer from 0 to {MAX_ID - 1}"
            )
    for token, id_ in specials.items():
        check(
            tokens.get(token, id_) == id_,
            f"the added token {token!r:.80} has the id {id_}, but the vocabulary gives "
            f"it {tokens.get(token)}",
        )
    meaning = {
        token: token.encode() if token in specials else to_bytes(token)
        for token in tokens | specials
    }
    vocab = {id_: meaning[token] for token, id_ in (tokens | specials).items()}
    check(len(vocab) == len(meaning), "two of its tokens have the same id")
    return vocab, _read_merges(entries, meaning)


def _read_merges(entries: Any, tokens: Mapping[str, bytes]) -> list[Merge]:
    check(isinstance(entries, list), "its merges are not a list")
    merges = []
    for number, entry in enumerate(entries):
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if not isinstance(pair, list) or list(map(type, pair)) != [str, str]:
            raise ValueError(f"merge {number} is not a pair of tokens: {entry!r:.80}")
        for token in (*pair, pair[0] + pair[1]):
            if token not in tokens:
                raise ValueError(
                    f"merge {number}, {pair!r:.80}, needs the token {token!r:.80}, "
                    "which is not in the vocabulary"
                )
        merges.append((tokens[pair[0]], tokens[pair[1]]))
    return merges


def written_merges(parts: Parts) -> list[list[str]]:
    """Write the merges in GPT-2's characters.

    Args:
        parts: the parts of a tokenizer.

    Returns:
        The two sides of each.

    Examples:
        >>> written_merges(Parts({0: b" ", 1: b"a"}, [(b" ", b"a")], {}, "", False))
        [['Ġ', 'a']]
    """
    written = {token: to_characters(token) for token in parts.vocab.values()}
    return [[written[left], written[right]] for left, right in parts.merges]
