r"""Tokenizers as GPT-2 and tiktoken write them.

GPT-2 keeps the tokens in one file and the merges in another. tiktoken keeps one table,
from which the merges follow. The pattern is in none of them: who reads one has to know
it.
"""

import base64
import json
import os
from collections.abc import Iterable, Mapping

from minillm.files.writing import atomic_write
from minillm.tokenizer.parts import (
    MAX_ID,
    Merge,
    Parts,
    check,
    load_json,
    read_file,
    read_tables,
    shallow,
    to_characters,
    written_merges,
)
from minillm.tokenizer.patterns import GPT2_PATTERN

__all__ = ["read_gpt2_files", "read_tiktoken_file", "write_gpt2_files"]

# A token of tiktoken is cut at every place; the longest of theirs have 128 bytes.
MAX_TOKEN = 1 << 10


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
    try:
        tokens = load_json(vocab_json)
        check(isinstance(tokens, dict), "it is not an object")
        specials = {end: tokens[end]} if type(tokens.get(end)) is int else {}
    except ValueError as error:
        raise ValueError(f"{vocab_json} cannot be read: {error}") from None
    try:
        lines = read_file(merges_txt).decode().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{merges_txt} is not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise ValueError(f"{merges_txt} cannot be read: {error}") from None
    if lines and lines[0].startswith("#version"):
        del lines[0]
    try:
        with shallow():
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
    special_ids = {id_: token for token, id_ in parts.special_tokens.items()}
    vocab = {
        special_ids.get(id_) or to_characters(token): id_
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
    try:
        lines = read_file(path).splitlines()
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
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
        special_tokens = {t: first + i for i, t in enumerate(special_tokens)}
    vocab |= {id_: token.encode() for token, id_ in special_tokens.items()}
    merges = merges_from_ranks(ranks)
    return Parts(vocab, merges, dict(special_tokens), pattern, ignore_merges=True)
