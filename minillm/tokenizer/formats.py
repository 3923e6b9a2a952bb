r"""Tokenizers as GPT-2 and tiktoken write them.

GPT-2 keeps the tokens in one file and the merges in another. tiktoken keeps one table,
from which the merges follow. The pattern is in none of them: to read one you have to
know it.
"""

import base64
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from minillm.files.reading import check, read_json, read_utf8
from minillm.files.writing import atomic_write
from minillm.tokenizer.parts import (
    MAX_BYTES,
    MAX_ID,
    Merge,
    Parts,
    to_bytes,
    to_characters,
)
from minillm.tokenizer.patterns import GPT2_PATTERN
from minillm.tokenizer.streams import check_specials

__all__ = [
    "read_gpt2_files",
    "read_tables",
    "read_tiktoken_file",
    "write_gpt2_files",
    "written_merges",
]

# A token of tiktoken is cut at every place; the longest of theirs have 128 bytes.
MAX_TOKEN = 1 << 10


# Tables of tokens, in GPT-2's characters.


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
    # Of a merge that is listed twice, the last place counts, in GPT-2 and `tokenizers`.
    return list(dict.fromkeys(reversed(merges)))[::-1]


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


# GPT-2


def read_gpt2_files(
    vocab_json: str | os.PathLike[str], merges_txt: str | os.PathLike[str]
) -> Parts:
    r"""Read GPT-2's `vocab.json` (or `encoder.json`) and `merges.txt` (or `vocab.bpe`).

    Args:
        vocab_json: an object from tokens to ids.
        merges_txt: a line for each merge, its two parts apart by a space. A first line
            that begins with `#version` is passed over.

    Returns:
        The parts of the tokenizer; `<|endoftext|>` is special if it is in the file.

    Raises:
        ValueError: if a file is not what it should be.
    """
    end = "<|endoftext|>"
    tokens = read_json(vocab_json, at_most=MAX_BYTES)
    specials = {end: tokens[end]} if type(tokens.get(end)) is int else {}
    lines = read_utf8(merges_txt, at_most=MAX_BYTES).splitlines()
    if lines and lines[0].startswith("#version"):
        del lines[0]
    try:
        vocab, merges = read_tables(tokens, list(filter(None, lines)), specials)
    except ValueError as error:
        message = f"{vocab_json} and {merges_txt} do not make a tokenizer: {error}"
        raise ValueError(message) from None
    return Parts(vocab, merges, specials, GPT2_PATTERN, ignore_merges=True)


def write_gpt2_files(
    vocab_json: str | os.PathLike[str],
    merges_txt: str | os.PathLike[str],
    parts: Parts,
) -> None:
    r"""Write GPT-2's `vocab.json` and `merges.txt`. The pattern is not part of them.

    Args:
        vocab_json: where to write the tokens.
        merges_txt: where to write the merges.
        parts: the parts of the tokenizer.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> vocab = {0: b" ", 1: b"a", 2: b" a"}
        >>> parts = Parts(vocab, [(b" ", b"a")], {}, GPT2_PATTERN, True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        ...     write_gpt2_files(*files, parts)
        ...     files[1].read_text(encoding="utf-8"), read_gpt2_files(*files) == parts
        ('#version: 0.2\nĠ a\n', True)
    """
    found = {**parts.added_tokens, **parts.special_tokens}
    names = {id_: token for token, id_ in found.items()}
    vocab = {
        names.get(id_) or to_characters(token): id_
        for id_, token in sorted(parts.vocab.items())
    }
    lines = ["#version: 0.2", *map(" ".join, written_merges(parts))]
    with atomic_write(vocab_json) as file:
        file.write(json.dumps(vocab, ensure_ascii=False).encode())
    with atomic_write(merges_txt) as file:
        file.write("\n".join([*lines, ""]).encode())


# tiktoken


def merges_from_ranks(ranks: Mapping[bytes, int]) -> list[Merge]:
    r"""Find the merges that a table of ranks stands for.

    tiktoken keeps no merges. It joins any two neighbours whose bytes together are a
    token, the lowest rank first. So every way to cut a token in two tokens is a merge.

    Args:
        ranks: each token and its rank.

    Returns:
        The merges, in the order of the tokens they make.

    Examples:
        >>> ranks = {b"a": 0, b"b": 1, b"ab": 2, b"ba": 3, b"aba": 4}
        >>> merges_from_ranks(ranks)
        [(b'a', b'b'), (b'b', b'a'), (b'a', b'ba'), (b'ab', b'a')]
    """
    merges: list[Merge] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = [pair for pair in cuts if pair[0] in ranks and pair[1] in ranks]
        merges += sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return merges


def read_tiktoken_file(
    path: str | os.PathLike[str],
    pattern: str,
    special_tokens: Mapping[str, int] | Iterable[str],
) -> Parts:
    r"""Read a rank file of tiktoken: on each line a token in base64 and its rank.

    Args:
        path: the file.
        pattern: the pre-tokenizer, which the file does not hold.
        special_tokens: the special tokens with their ids, or in the order in which they
            shall follow the ranks.

    Returns:
        The parts of the tokenizer.

    Raises:
        ValueError: if a line is not a token and a rank.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> ranks = {b"a": 0, b"b": 1, b"ab": 2}
        >>> lines = [base64.b64encode(t) + b" %d\n" % rank for t, rank in ranks.items()]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "two.tiktoken"
        ...     _ = path.write_bytes(b"".join(lines))
        ...     parts = read_tiktoken_file(path, GPT2_PATTERN, ["<|end|>"])
        >>> parts.merges, parts.special_tokens
        ([(b'a', b'b')], {'<|end|>': 3})
    """
    ranks: dict[bytes, int] = {}
    lines = read_utf8(path, at_most=MAX_BYTES).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            encoded, rank = line.split()
            token = base64.b64decode(encoded, validate=True)
            check(0 <= int(rank) < MAX_ID and token not in ranks, "out of range")
            check(len(token) <= MAX_TOKEN, "a token that is no token")
            ranks[token] = int(rank)
        except ValueError:
            message = f"{path}, line {number}: {line!r:.80} is not a token and a rank"
            raise ValueError(message) from None
    vocab = {rank: token for token, rank in ranks.items()}
    check(len(vocab) == len(ranks), f"{path}: two tokens have the same rank")
    if not isinstance(special_tokens, Mapping):
        first = max(vocab, default=-1) + 1
        special_tokens = {
            t: first + i for i, t in enumerate(check_specials(special_tokens))
        }
    vocab |= {id_: token.encode() for token, id_ in special_tokens.items()}
    merges = merges_from_ranks(ranks)
    return Parts(vocab, merges, dict(special_tokens), pattern, ignore_merges=True)
