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
the text, templates. Whatever cannot be represented here is refused by its name.
"""

import json
import os
from typing import Any, NoReturn

from minillm.files.writing import atomic_write
from minillm.tokenizer.parts import (
    Parts,
    check,
    load_json,
    read_tables,
    shallow,
    to_characters,
    written_merges,
)
from minillm.tokenizer.patterns import DIGITS_PATTERN, GPT2_PATTERN, compile_pattern

__all__ = ["read_tokenizer_json", "write_tokenizer_json"]


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
    if split.get("behavior") != "Isolated":
        _refuse("in Split, the behavior", split.get("behavior"))
    if split.get("invert"):
        _refuse("in Split, invert", split["invert"])
    pattern = split.get("pattern")
    if not isinstance(pattern, dict) or not isinstance(pattern.get("Regex"), str):
        _refuse("in Split, the pattern", pattern)
    compile_pattern(pattern["Regex"])
    return pattern["Regex"]


def _read_added(entries: Any) -> dict[str, int]:
    check(isinstance(entries, list), "its added_tokens are not a list")
    specials: dict[str, int] = {}
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
        specials[entry["content"]] = entry["id"]
    return specials


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
    _check_post_processor(data.get("post_processor"))
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
    specials = _read_added(data.get("added_tokens", []))
    vocab, merges = read_tables(model.get("vocab"), model.get("merges"), specials)
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
    if kind not in ("ByteLevel", "TemplateProcessing"):
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

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "tokenizer.json"
        ...     _ = path.write_text('{"version": "1.0", "added', encoding="utf-8")
        ...     try:
        ...         read_tokenizer_json(path)
        ...     except ValueError as error:
        ...         print(str(error).split(": ")[1])
        it is not JSON, or not all of it
    """
    try:
        with shallow():
            return _parse(load_json(path))
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
        ...     read_tokenizer_json(path) == parts
        True
    """
    special_ids = {id_: token for token, id_ in parts.special_tokens.items()}
    vocab: dict[str, int] = {}
    for id_, token in sorted(parts.vocab.items()):
        written = special_ids.get(id_) or to_characters(token)
        check(
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
            "merges": written_merges(parts),
        },
    }
    text = json.dumps(document, ensure_ascii=False, indent=1)
    with atomic_write(path) as file:
        file.write(text.encode() + b"\n")
