r"""Tokenizers as other programs write them: three file formats, read with suspicion.

A tokenizer is a table of tokens, a list of merges, a pattern and a few special tokens
(`Parts`). Three programs have given it three shapes:

| file | written by | holds |
| --- | --- | --- |
| `tokenizer.json` | Hugging Face `tokenizers` | everything |
| `vocab.json` and `merges.txt` | GPT-2 | tokens and merges |
| `*.tiktoken` | tiktoken | tokens in order, from which the merges follow |

A file comes from elsewhere, so nothing in it is believed: whatever cannot be
represented here is refused by its name, not ignored, because a tokenizer that is nearly
right gives a model that is quietly wrong.
"""

import base64
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from minillm.bpe_patterns import (
    BYTE_TO_CHAR,
    CHAR_TO_BYTE,
    DIGITS_PATTERN,
    GPT2_PATTERN,
    compile_pattern,
)
from minillm.bpe_source import check_specials
from minillm.files import atomic_write

__all__ = [
    "Parts",
    "place_specials",
    "read_gpt2_files",
    "read_tiktoken_file",
    "read_tokenizer_json",
    "write_gpt2_files",
    "write_tokenizer_json",
]

Merge = tuple[bytes, bytes]

# The largest vocabularies in use have 2^18 tokens and files of some 30 MB. A file
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
            f"the token {characters!r} is not byte-level: {error} stands for no byte"
        ) from None


# tokenizer.json


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _refuse(what: str, value: object) -> NoReturn:
    shown = json.dumps(value)[:80]
    raise ValueError(
        f"{what} {shown} cannot be represented here: this package reads byte-level BPE"
    )


_TOO_DEEP = "it is nested deeper than any tokenizer is"


def _read(path: str | os.PathLike[str]) -> bytes:
    size = Path(path).stat().st_size
    _check(size <= MAX_BYTES, f"{size} bytes are more than any tokenizer needs")
    return Path(path).read_bytes()


def _load_json(path: str | os.PathLike[str]) -> Any:
    try:
        return json.loads(_read(path))
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        message = f"it is not JSON, or not all of it: {error}"
        raise ValueError(message) from None


def _read_pattern(pre_tokenizer: Any) -> str:
    r"""Translate the `pre_tokenizer` of a tokenizer.json into one pattern."""
    steps = pre_tokenizer
    if isinstance(steps, dict) and steps.get("type") == "Sequence":
        steps = steps.get("pretokenizers")
    else:
        steps = [steps]
    _check(
        isinstance(steps, list) and all(isinstance(step, dict) for step in steps),
        "its pre_tokenizer is not an object",
    )
    kinds = [step.get("type") for step in steps]
    if not kinds or kinds[-1] != "ByteLevel":
        _refuse("the pre_tokenizer", pre_tokenizer)
    last = steps[-1]
    if last.get("add_prefix_space"):
        _refuse("add_prefix_space in", last)
    # `use_regex` was added later; where it is missing it is meant.
    with_gpt2 = last.get("use_regex", True)
    if kinds == ["ByteLevel"] and with_gpt2:
        return GPT2_PATTERN
    if (
        kinds == ["Digits", "ByteLevel"]
        and with_gpt2
        and steps[0].get("individual_digits")
    ):
        return DIGITS_PATTERN
    if kinds == ["Split", "ByteLevel"] and not with_gpt2:
        split = steps[0]
        pattern = split.get("pattern")
        regular = isinstance(pattern, dict) and isinstance(pattern.get("Regex"), str)
        if regular and split.get("behavior") == "Isolated" and not split.get("invert"):
            compile_pattern(pattern["Regex"])
            return pattern["Regex"]
    _refuse("the pre_tokenizer", pre_tokenizer)


def _read_added(entries: Any) -> dict[str, int]:
    _check(isinstance(entries, list), "its added_tokens are not a list")
    specials: dict[str, int] = {}
    for entry in entries:
        valid = (
            isinstance(entry, dict)
            and isinstance(entry.get("content"), str)
            and type(entry.get("id")) is int
        )
        _check(valid, f"an added token lacks its id or content: {entry!r:.80}")
        for flag in ("single_word", "lstrip", "rstrip"):
            if entry.get(flag):
                _refuse(f"{flag} in the added token", entry)
        specials[entry["content"]] = entry["id"]
    return specials


def _read_merges(entries: Any, tokens: Mapping[str, bytes]) -> list[Merge]:
    _check(isinstance(entries, list), "its merges are not a list")
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


# All that may stand in a tokenizer.json. What a later version may add would not be
# understood, so it is refused.
_KEYS = {
    *("version", "truncation", "padding", "added_tokens", "normalizer"),
    *("pre_tokenizer", "post_processor", "decoder", "model"),
}
_MODEL_KEYS = {
    *("type", "dropout", "unk_token", "continuing_subword_prefix", "fuse_unk"),
    *("end_of_word_suffix", "byte_fallback", "ignore_merges", "vocab", "merges"),
}

# What may stand in its model without changing what we would do.
_HARMLESS: dict[str, tuple[object, ...]] = {
    "dropout": (None, 0, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
}


def _parse(data: Any) -> Parts:
    # What the reader of JSON lets pass may still be too deep to be looked through.
    try:
        return _parse_document(data)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def _parse_document(data: Any) -> Parts:
    _check(isinstance(data, dict), "it is not an object")
    for key in data.keys() - _KEYS:
        _refuse(f"the entry {key!r:.80} with", data[key])
    for key in ("normalizer", "truncation", "padding"):
        if data.get(key) is not None:
            _refuse(f"the {key}", data[key])
    decoder = data.get("decoder")
    if not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
        _refuse("the decoder", decoder)
    _check_post_processor(data.get("post_processor"))
    pattern = _read_pattern(data.get("pre_tokenizer"))
    model = data.get("model")
    _check(isinstance(model, dict), "its model is not an object")
    if model.get("type", "BPE") != "BPE":
        _refuse("the model type", model["type"])
    for key in model.keys() - _MODEL_KEYS:
        _refuse(f"the model's entry {key!r:.80} with", model[key])
    for key, allowed in _HARMLESS.items():
        if model.get(key) not in allowed:
            _refuse(f"the model's {key}", model[key])
    tokens = model.get("vocab")
    _check(isinstance(tokens, dict), "its vocab is not an object")
    specials = _read_added(data.get("added_tokens", []))
    ids = [*tokens.values(), *specials.values()]
    for id_ in ids:
        if type(id_) is not int or not 0 <= id_ < MAX_ID:
            raise ValueError(
                f"the id {id_!r:.80} is not an integer from 0 to {MAX_ID - 1}"
            )
    for token, id_ in specials.items():
        _check(
            tokens.get(token, id_) == id_,
            f"the added token {token!r:.80} has the id {id_}, but the vocabulary gives "
            f"it {tokens.get(token)}",
        )
    meaning = {
        token: token.encode() if token in specials else to_bytes(token)
        for token in tokens | specials
    }
    vocab = {id_: meaning[token] for token, id_ in (tokens | specials).items()}
    _check(len(vocab) == len(meaning), "two of its tokens have the same id")
    merges = _read_merges(model.get("merges"), meaning)
    return Parts(vocab, merges, specials, pattern, model.get("ignore_merges") is True)


def _check_post_processor(processor: Any) -> None:
    r"""Let pass what leaves ordinary text alone.

    A template puts special tokens around a text. That is for whoever builds the prompt
    to do, and is left out here.
    """
    if processor is None:
        return
    inner = processor.get("processors") if isinstance(processor, dict) else None
    if isinstance(inner, list):
        for step in inner:
            _check_post_processor(step)
        return
    kind = processor.get("type") if isinstance(processor, dict) else None
    if kind not in {"ByteLevel", "TemplateProcessing"}:
        _refuse("the post_processor", processor)


def read_tokenizer_json(path: str | os.PathLike[str]) -> Parts:
    r"""Read the `tokenizer.json` of Hugging Face's `tokenizers`.

    Args:
        path: the file. Byte-level BPE is read, with the pre-tokenizers `ByteLevel`
            alone (GPT-2), `Sequence[Split, ByteLevel]` (Llama 3) and
            `Sequence[Digits, ByteLevel]` (SmolLM2).

    Returns:
        The parts of the tokenizer. Every added token is taken for a special one. What a
        post-processor puts around a text is left out.

    Raises:
        ValueError: if the file is cut short, is not what it says, or holds something
            that cannot be represented here.
    """
    try:
        return _parse(_load_json(path))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a tokenizer: {error}") from None


def _written_merges(parts: Parts) -> list[list[str]]:
    written = {token: to_characters(token) for token in parts.vocab.values()}
    return [[written[left], written[right]] for left, right in parts.merges]


def write_tokenizer_json(path: str | os.PathLike[str], parts: Parts) -> None:
    r"""Write the `tokenizer.json` of Hugging Face's `tokenizers`.

    Args:
        path: where to write.
        parts: the parts of the tokenizer.

    Raises:
        ValueError: if a special token is spelled like an ordinary one, which the format
            cannot express.
    """
    special_ids = {id_: token for token, id_ in parts.special_tokens.items()}
    vocab: dict[str, int] = {}
    for id_, token in sorted(parts.vocab.items()):
        written = special_ids.get(id_) or to_characters(token)
        _check(
            written not in vocab,
            f"the token {written!r} has two ids, {vocab.get(written)} and {id_}; "
            "tokenizer.json can express only one",
        )
        vocab[written] = id_
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    pre_tokenizer: dict[str, Any] = byte_level | {"use_regex": True}
    if parts.pattern != GPT2_PATTERN:
        split = {
            "type": "Split",
            "pattern": {"Regex": parts.pattern},
            "behavior": "Isolated",
            "invert": False,
        }
        pre_tokenizer = {
            "type": "Sequence",
            "pretokenizers": [split, byte_level | {"use_regex": False}],
        }
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": id_, "content": token, **flags, "special": True}
            for id_, token in sorted(special_ids.items())
        ],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": parts.ignore_merges,
            "vocab": vocab,
            "merges": _written_merges(parts),
        },
    }
    text = json.dumps(document, ensure_ascii=False, indent=1)
    with atomic_write(path) as file:
        file.write(text.encode() + b"\n")


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
        tokens = _load_json(vocab_json)
        _check(isinstance(tokens, dict), "it is not an object")
        specials = {end: tokens[end]} if end in tokens else {}
    except ValueError as error:
        raise ValueError(f"{vocab_json} cannot be read: {error}") from None
    try:
        lines = _read(merges_txt).decode().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{merges_txt} is not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise ValueError(f"{merges_txt} cannot be read: {error}") from None
    if lines and lines[0].startswith("#version"):
        del lines[0]
    document = {
        "pre_tokenizer": {"type": "ByteLevel"},
        "decoder": {"type": "ByteLevel"},
        "added_tokens": [{"content": end, "id": id_} for id_ in specials.values()],
        "model": {"vocab": tokens, "merges": list(filter(None, lines))},
    }
    try:
        return _parse(document)._replace(ignore_merges=True)
    except ValueError as error:
        message = f"{vocab_json} and {merges_txt} do not make a tokenizer: {error}"
        raise ValueError(message) from None


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
    """
    special_ids = {id_: token for token, id_ in parts.special_tokens.items()}
    vocab = {
        special_ids.get(id_) or to_characters(token): id_
        for id_, token in sorted(parts.vocab.items())
    }
    lines = ["#version: 0.2", *map(" ".join, _written_merges(parts))]
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
    """
    ranks: dict[bytes, int] = {}
    try:
        lines = _read(path).splitlines()
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            encoded, rank = line.split()
            token = base64.b64decode(encoded, validate=True)
            _check(0 <= int(rank) < MAX_ID and token not in ranks, "out of range")
            ranks[token] = int(rank)
        except ValueError:
            message = f"{path}, line {number}: {line!r:.80} is not a token and a rank"
            raise ValueError(message) from None
    vocab = {rank: token for token, rank in ranks.items()}
    _check(len(vocab) == len(ranks), f"{path}: two tokens have the same rank")
    if not isinstance(special_tokens, Mapping):
        first = max(vocab, default=-1) + 1
        special_tokens = {t: first + i for i, t in enumerate(special_tokens)}
    vocab |= {id_: token.encode() for token, id_ in special_tokens.items()}
    merges = merges_from_ranks(ranks)
    return Parts(vocab, merges, dict(special_tokens), pattern, ignore_merges=True)
