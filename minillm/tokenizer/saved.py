r"""The `tokenizer.json` of Hugging Face: everything about a tokenizer in one file.

It says how a text is cut (`pre_tokenizer`), which tokens there are and how they are
merged (`model`), which of them are special (`added_tokens`), and how bytes become text
again (`decoder`):

>>> import json, tempfile
>>> from minillm.tokenizer.tokenizer import BPETokenizer
>>> tokenizer = BPETokenizer.train(["the cat in the hat"], 260, ["<|end|>"])
>>> with tempfile.TemporaryDirectory() as folder:
...     tokenizer.save(folder + "/tokenizer.json")
...     with open(folder + "/tokenizer.json", encoding="utf-8") as file:
...         document = json.load(file)
>>> document["pre_tokenizer"]["type"], document["model"]["merges"]
('ByteLevel', [['t', 'h'], ['th', 'e'], ['a', 't']])
>>> document["added_tokens"][0]["id"], document["added_tokens"][0]["content"]
(259, '<|end|>')

The format can say much more than byte-level BPE: other models, normalizers that change
the text. Whatever cannot be represented here is refused by its name. Three things are
read with care:

- *The pattern* is in another dialect ([`minillm.tokenizer.dialects`][]).
- *An added token* has the id that the file says, also where ids before it are missing:
  rows of a model belong to ids. `tokenizers` counts on from its vocabulary instead, so
  we write `<|filler-7|>` for each id that is missing, and pass over it in reading.
- *A template* says which ids stand before a text and behind it. It may list tokens that
  it does not use; under the name `stop` we list those that end a reply.
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

from minillm.files.reading import check, read_json
from minillm.files.writing import atomic_write
from minillm.tokenizer.dialects import leaves_nothing, portable
from minillm.tokenizer.formats import read_tables, written_merges
from minillm.tokenizer.parts import MAX_BYTES, Merge, Parts, to_characters
from minillm.tokenizer.patterns import DIGITS_PATTERN, GPT2_PATTERN, compile_pattern

__all__ = ["read_tokenizer_json", "write_tokenizer_json"]

FILLER: Final = "<|filler-{}|>"
# More missing ids than this are left out; few programs then read the file alike.
MOST_FILLERS: Final = 1 << 12


def _refuse(what: str, value: object) -> NoReturn:
    shown = json.dumps(value)[:80]
    raise ValueError(
        f"{what} {shown} cannot be represented here: this package reads byte-level BPE"
    )


def _read_pattern(pre_tokenizer: Any) -> str:
    r"""Translate the `pre_tokenizer` of a tokenizer.json into one pattern."""
    steps = pre_tokenizer
    if isinstance(steps, dict) and steps.get("type") == "Sequence":
        steps = steps.get("pretokenizers")
    else:
        steps = [steps]
    check(
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
        return _read_split(steps[0])
    _refuse("the pre_tokenizer", pre_tokenizer if len(kinds) == 1 else kinds)


def _read_split(split: dict[str, Any]) -> str:
    pattern = split.get("pattern")
    if not isinstance(pattern, dict) or not isinstance(pattern.get("Regex"), str):
        _refuse("in Split, the pattern", pattern)
    compile_pattern(pattern["Regex"])
    translated = portable(pattern["Regex"], "oniguruma")
    compile_pattern(translated)
    behavior, invert = split.get("behavior"), bool(split.get("invert"))
    # To remove what is not matched is to keep all, where the pattern matches all.
    if (behavior, invert) == ("Removed", True) and leaves_nothing(translated):
        return translated
    if behavior != "Isolated":
        _refuse("in Split, the behavior", behavior)
    if invert:
        _refuse("in Split, invert", split["invert"])
    return translated


def _read_added(entries: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Read the special tokens, and those that are found in any text."""
    check(isinstance(entries, list), "its added_tokens are not a list")
    specials: dict[str, int] = {}
    others: dict[str, int] = {}
    turns: tuple[list[str], list[str]] = [], []
    for entry in entries:
        valid = (
            isinstance(entry, dict)
            and isinstance(entry.get("content"), str)
            and type(entry.get("id")) is int
        )
        check(valid, f"an added token lacks its id or content: {entry!r:.80}")
        for flag in ("single_word", "lstrip", "rstrip"):
            if entry.get(flag):
                _refuse(f"{flag} in the added token", entry)
        if entry["content"] == FILLER.format(entry["id"]):
            continue
        kind = specials if entry.get("special", True) else others
        kind[entry["content"]] = entry["id"]
        turns[bool(entry.get("normalized"))].append(entry["content"])
    _check_turns(*turns)
    return specials, others


def _check_turns(first: list[str], second: list[str]) -> None:
    """Refuse tokens of which it matters that some are looked for before others."""
    sizes = sum(map(len, first)), sum(map(len, second))
    check(sizes[0] * sizes[1] < 1 << 26, "it has too many added tokens of two kinds")
    for one in first:
        for other in second:
            check(
                not _overlaps(one, other) and not _overlaps(other, one),
                f"the added tokens {one!r:.80} and {other!r:.80} overlap, and only one "
                "of the two is marked as normalized",
            )


def _overlaps(one: str, other: str) -> bool:
    """Tell whether the other may begin within the one."""
    return any(other.startswith(one[i : i + len(other)]) for i in range(len(one)))


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
    check(isinstance(data, dict), "it is not an object")
    for key in sorted(data.keys() - _KEYS):
        _refuse(f"the entry {key!r:.80} with", data[key])
    for key in ("normalizer", "truncation", "padding"):
        if data.get(key) is not None:
            _refuse(f"the {key}", data[key])
    decoder = data.get("decoder")
    if not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
        _refuse("the decoder", decoder)
    pattern = _read_pattern(data.get("pre_tokenizer"))
    model = data.get("model")
    check(isinstance(model, dict), "its model is not an object")
    if model.get("type", "BPE") != "BPE":
        _refuse("the model type", model["type"])
    for key in sorted(model.keys() - _MODEL_KEYS):
        _refuse(f"the model's entry {key!r:.80} with", model[key])
    for key, allowed in _HARMLESS.items():
        if model.get(key) not in allowed:
            _refuse(f"the model's {key}", model[key])
    specials, added = _read_added(data.get("added_tokens", []))
    vocab, merges = read_tables(
        model.get("vocab"), model.get("merges"), specials | added
    )
    _check_spelling(specials, added, merges)
    whole = model.get("ignore_merges") is True
    around = _read_template(data.get("post_processor"), vocab)
    return Parts(vocab, merges, specials, pattern, whole, added, *around)


def _check_spelling(
    specials: Mapping[str, int], added: Mapping[str, int], merges: Iterable[Merge]
) -> None:
    """Refuse added tokens that are something else at the same time."""
    check(not specials.keys() & added, "an added token is both special and not")
    made = {left + right for left, right in merges}
    for token in specials:
        check(
            len(token.encode()) > 1 and token.encode() not in made,
            f"the special token {token!r:.80} is also an ordinary one of the same id, "
            "so that any text can hold it: give it an id of its own",
        )


Around = tuple[list[int], list[int], list[int]]


def _read_template(processor: Any, vocab: Mapping[int, bytes]) -> Around:
    """Read the ids before a text, those behind it, and those that end a reply."""
    if processor is None:
        return [], [], []
    check(isinstance(processor, dict), "its post_processor is not an object")
    kind = processor.get("type")
    if kind == "Sequence" and isinstance(processor.get("processors"), list):
        begin: list[int] = []
        end: list[int] = []
        stop: list[int] = []
        for step in processor["processors"]:
            before, behind, more = _read_template(step, vocab)
            begin, end, stop = before + begin, end + behind, stop + more
        return begin, end, stop
    try:
        if kind == "TemplateProcessing":
            ids = {name: t["ids"] for name, t in processor["special_tokens"].items()}
            pieces = [
                "" if "Sequence" in piece else piece["SpecialToken"]["id"]
                for piece in processor["single"]
            ]
            check(pieces.count("") == 1, "its template does not hold one text")
            for name in filter(None, pieces):
                what = f"its template names the token {name!r:.80}, which the tokenizer"
                check(name in ids, f"{what} lacks")
            at = pieces.index("")
            begin = [id_ for name in pieces[:at] for id_ in ids[name]]
            end = [id_ for name in pieces[at + 1 :] for id_ in ids[name]]
            stop = ids.get("stop", []) if "stop" not in pieces else []
        elif kind == "RobertaProcessing":
            begin, end, stop = [processor["cls"][1]], [processor["sep"][1]], []
        elif kind == "ByteLevel":  # says where in the text a token came from
            begin, end, stop = [], [], []
        else:
            _refuse("the post_processor", processor)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"its post_processor is broken: {error!r:.80}") from None
    for id_ in [*begin, *end, *stop]:
        check(
            type(id_) is int and id_ in vocab,
            f"its post_processor needs the token {id_!r:.80}, which there is not",
        )
    return begin, end, stop


def read_tokenizer_json(path: str | os.PathLike[str]) -> Parts:
    r"""Read the `tokenizer.json` of Hugging Face's `tokenizers`.

    Args:
        path: the file. Byte-level BPE is read, with the pre-tokenizers `ByteLevel`
            alone (GPT-2), `Sequence[Split, ByteLevel]` (Llama 3) and
            `Sequence[Digits, ByteLevel]` (SmolLM2).

    Returns:
        The parts of the tokenizer, what stands around a text among them.

    Raises:
        ValueError: if the file is cut short, is not what it says, or holds something
            that cannot be represented here.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "tokenizer.json"
        ...     _ = path.write_text('{"version": "1.0", "added', encoding="utf-8")
        ...     try:
        ...         read_tokenizer_json(path)
        ...     except ValueError as error:
        ...         print("is not JSON" in str(error))
        True
    """
    try:
        return _parse(read_json(path, at_most=MAX_BYTES))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a tokenizer: {error}") from None


def write_tokenizer_json(path: str | os.PathLike[str], parts: Parts) -> None:
    r"""Write the `tokenizer.json` of Hugging Face's `tokenizers`.

    Args:
        path: where to write.
        parts: the parts of the tokenizer.

    Raises:
        ValueError: if a special token is spelled like an ordinary one, which the format
            cannot express.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> vocab = {0: b"a", 1: b"b", 2: b"ab"}
        >>> parts = Parts(vocab, [(b"a", b"b")], {}, GPT2_PATTERN, True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "tokenizer.json"
        ...     write_tokenizer_json(path, parts)
        ...     read_tokenizer_json(path)[:5] == parts[:5]
        True
    """
    found = {i: token for token, i in parts.added_tokens.items()}
    found |= {i: token for token, i in parts.special_tokens.items()}
    made = {left + right for left, right in parts.merges}
    made |= {bytes([byte]) for byte in range(256)}
    # An added token that merges make, too, is a part of the model.
    apart = {
        id_
        for id_, token in found.items()
        if token in parts.special_tokens or parts.vocab[id_] not in made
    }
    n, last = len(parts.vocab) - len(apart), max(apart, default=0)
    ordinary = parts.vocab.keys() - apart
    fillers = set(range(n, last)) - apart
    if ordinary == set(range(n)) and len(fillers) <= MOST_FILLERS:
        found |= {id_: FILLER.format(id_) for id_ in fillers}
    else:
        ordinary, apart = set(parts.vocab), set()
    vocab: dict[str, int] = {}
    for id_ in [*sorted(ordinary), *sorted(apart)]:
        written = found.get(id_) or to_characters(parts.vocab[id_])
        check(
            written not in vocab,
            f"the token {written!r} has two ids, {vocab.get(written)} and {id_}; "
            "tokenizer.json can express only one",
        )
        vocab[written] = id_
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": id_,
                "content": token,
                **flags,
                "special": token not in parts.added_tokens,
            }
            for id_, token in sorted(found.items())
        ],
        "normalizer": None,
        "pre_tokenizer": _write_pattern(parts.pattern),
        "post_processor": _write_template(parts, found),
        "decoder": _BYTE_LEVEL | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": parts.ignore_merges,
            "vocab": {t: id_ for t, id_ in vocab.items() if id_ in ordinary},
            "merges": written_merges(parts),
        },
    }
    text = json.dumps(document, ensure_ascii=False, indent=1)
    with atomic_write(path) as file:
        file.write(text.encode() + b"\n")


_BYTE_LEVEL: Final[dict[str, Any]] = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
}


def _write_pattern(pattern: str) -> dict[str, Any]:
    """Write a pattern as other programs write it."""
    if pattern == GPT2_PATTERN:
        return _BYTE_LEVEL | {"use_regex": True}
    if pattern == DIGITS_PATTERN:
        digits = {"type": "Digits", "individual_digits": True}
        steps = [digits, _BYTE_LEVEL | {"use_regex": True}]
    else:
        split = {
            "type": "Split",
            "pattern": {"Regex": portable(pattern)},
            "behavior": "Isolated",
            "invert": False,
        }
        steps = [split, _BYTE_LEVEL | {"use_regex": False}]
    return {"type": "Sequence", "pretokenizers": steps}


def _write_template(parts: Parts, found: Mapping[int, str]) -> dict[str, Any] | None:
    """Write what stands around a text, and around each of two."""
    around = [*parts.begin_ids, *parts.end_ids]
    if not around and not parts.stop_ids:
        return None
    for id_ in [*around, *parts.stop_ids]:
        check(id_ in parts.vocab, f"the id {id_} around a text has no token")
    names = {
        id_: found.get(id_) or to_characters(parts.vocab[id_])
        for id_ in [*around, *parts.stop_ids]
    }
    tokens = {
        names[id_]: {"id": names[id_], "ids": [id_], "tokens": [names[id_]]}
        for id_ in around
    }
    if parts.stop_ids:
        check(
            "stop" not in tokens,
            "a token named 'stop' around a text cannot be told from the list of ids "
            "that end a reply: give it another name",
        )
        tokens["stop"] = {
            "id": "stop",
            "ids": list(parts.stop_ids),
            "tokens": [names[id_] for id_ in parts.stop_ids],
        }

    def side(text: str, type_id: int) -> list[dict[str, Any]]:
        def special(id_: int) -> dict[str, Any]:
            return {"SpecialToken": {"id": names[id_], "type_id": type_id}}

        return [
            *map(special, parts.begin_ids),
            {"Sequence": {"id": text, "type_id": type_id}},
            *map(special, parts.end_ids),
        ]

    return {
        "type": "TemplateProcessing",
        "single": side("A", 0),
        "pair": side("A", 0) + side("B", 1),
        "special_tokens": tokens,
    }
