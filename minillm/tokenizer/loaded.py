r"""The `tokenizer.json` of Hugging Face, read with care.

[`minillm.tokenizer.saved`][] says what is in the file. The format can say much more
than byte-level BPE: other models, normalizers that change the text. Whatever cannot be
represented here is refused by its name:

>>> import tempfile
>>> from pathlib import Path
>>> document = {"normalizer": {"type": "NFC"}, "decoder": {"type": "ByteLevel"}}
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "tokenizer.json"
...     _ = path.write_text(json.dumps(document), encoding="utf-8")
...     try:
...         read_tokenizer_json(path)
...     except ValueError as error:
...         print(str(error).partition("tokenizer: ")[2].partition(": this")[0])
the normalizer {"type": "NFC"} cannot be represented here

Three things have to be understood:

- *The pattern* is in another dialect ([`minillm.tokenizer.dialects`][]).
- *An added token* has the id that the file says, also where ids before it are missing:
  rows of a model belong to ids. What only fills such a hole is passed over.
- *A template* says which ids stand before a text and behind it. It may list tokens that
  it does not use; under the name `stop` we list those that end a reply.
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from minillm.files.reading import check, read_json
from minillm.tokenizer.dialects import leaves_nothing, portable
from minillm.tokenizer.formats import read_tables
from minillm.tokenizer.parts import MAX_BYTES, Merge, Parts
from minillm.tokenizer.patterns import DIGITS_PATTERN, GPT2_PATTERN, compile_pattern
from minillm.tokenizer.saved import FILLER

__all__ = ["read_tokenizer_json"]


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
