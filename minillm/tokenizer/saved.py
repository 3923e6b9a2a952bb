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

Other programs should read it as we do, so two things are written in their way:

- *The pattern*, in what all engines read alike ([`minillm.tokenizer.dialects`][]).
- *A missing id.* `tokenizers` counts added tokens on from its vocabulary, whatever ids
  the file gives them, so we write `<|filler-7|>` for each id that is missing.

[`minillm.tokenizer.loaded`][] reads it.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from minillm.files.reading import check
from minillm.files.writing import atomic_write
from minillm.tokenizer.dialects import portable
from minillm.tokenizer.formats import written_merges
from minillm.tokenizer.parts import Parts, to_characters
from minillm.tokenizer.patterns import DIGITS_PATTERN, GPT2_PATTERN

__all__ = ["write_tokenizer_json"]

FILLER: Final = "<|filler-{}|>"
# More missing ids than this are left out; few programs then read the file alike.
MOST_FILLERS: Final = 1 << 12


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
        >>> from minillm.tokenizer.loaded import read_tokenizer_json
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
