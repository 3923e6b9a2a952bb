r"""From a name to something that writes.

**The question.** [`minillm.files.folders`][] reads a model and [`minillm.bpe`][] a
tokenizer. Three facts are still missing before the two can write, and all are in the
files: which ids stand *before* a text, which one *ends* it, and how a conversation is
written down.

Llama 3, for example, has never seen a text without `<|begin_of_text|>` in front, and
its last token is `<|eot_id|>`, not `<|endoftext|>`. Without the first it writes worse;
without the second it never stops, and answers itself.

Each may stand in several files. The first that says it counts:

- *Before a text:* the template around a text in `tokenizer.json`; `bos_token` in
  `tokenizer_config.json`, if `add_bos_token` is true there.
- *The end:* `eos_token_id` in `generation_config.json`; the same in `config.json`;
  `eos_token` in `tokenizer_config.json`.
- *A conversation:* all of `chat_template.jinja`; `chat_template` in
  `tokenizer_config.json`.

A GGUF file has the same in its table. The first two become part of the tokenizer.
[`open_model`][minillm.files.opening.open_model] takes any of these: a run of the
course, a folder, a GGUF file, a name on the hub. An adapter
([`minillm.files.adapters`][]) is opened with the model that it names, and becomes part
of it.
"""

import re
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from minillm.bpe import BPETokenizer
from minillm.files.adapters import ADAPTER, base_of, load_adapter
from minillm.files.folders import assemble, load_llama
from minillm.files.gguf_files import read_gguf
from minillm.files.reading import read_json
from minillm.inference.templates import ChatTemplate
from minillm.model import TransformerLM
from minillm.training.lora import merge_lora

__all__ = [
    "Opened",
    "find",
    "is_adapter",
    "open_model",
    "read_begin_ids",
    "read_chat_template",
    "read_stop_ids",
]

# What a Llama folder needs; not the pickled weights that may lie beside them.
WANTED = [
    *ADAPTER,
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "*.safetensors",
    "*.safetensors.index.json",
]
# Folders of the course: a missing run is no name on the hub.
OURS = {"runs", "models"}


class Opened(NamedTuple):
    r"""A model in evaluation mode, its tokenizer, and the form of its conversations.

    The tokenizer knows which ids stand before a text and which ones end it. Without a
    chat template, the last is `None`.
    """

    model: TransformerLM
    tokenizer: BPETokenizer
    chat_template: ChatTemplate | None


def open_model(source: str | PathLike[str]) -> Opened:
    r"""Read a model and all that it takes to let it write.

    Args:
        source: a run, a Llama folder, an adapter, a GGUF file, or a name on the hub,
            `owner/name`.

    Returns:
        The model, its tokenizer, and the form of its conversations.

    Raises:
        FileNotFoundError: if there is no such thing, or a file of it is missing.
        ImportError: if a package is missing that is needed to read it.
        ValueError: if a file is not what it should be.

    Examples:
        A folder that we write says where a text ends:

        >>> import tempfile
        >>> from minillm.config import ModelConfig
        >>> from minillm.files.folders import save_llama
        >>> tokenizer = BPETokenizer.train(["a rose is a rose"], 260, ["<|endoftext|>"])
        >>> config = ModelConfig(260, 8, d_model=16, n_layers=1, n_heads=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_llama(TransformerLM(config), folder, tokenizer)
        ...     opened = open_model(folder)
        >>> opened.tokenizer.begin_ids, opened.tokenizer.stop_ids
        ([], [259])
    """
    path = find(source)
    if path.is_file():
        contents = read_gguf(path)
        where = f"{path}: weights and table"
        model = assemble(contents.tensors, contents.config, where)
        return Opened(model, contents.tokenizer, contents.chat_template)
    if is_adapter(path):
        return _open_adapter(path)
    model = load_llama(path)
    tokenizer = BPETokenizer.load(path / "tokenizer.json")
    tokenizer.begin_ids = read_begin_ids(path, tokenizer)
    tokenizer.stop_ids = read_stop_ids(path, tokenizer)
    return Opened(model, tokenizer, read_chat_template(path))


def is_adapter(path: str | PathLike[str]) -> bool:
    """Say whether a folder holds an adapter, and no whole model.

    Args:
        path: the folder.

    Returns:
        Whether it does.

    Examples:
        >>> is_adapter("no such folder")
        False
    """
    path = Path(path)
    return (path / ADAPTER[0]).is_file() and not (path / "config.json").is_file()


def _open_adapter(folder: Path) -> Opened:
    """Open the model that an adapter is for, and add the adapter to it."""
    base = base_of(folder)
    try:
        if is_adapter(base):
            raise ValueError(
                "it is an adapter itself: open that one, save it whole by save_llama, "
                "and tune the result"
            )
        model, tokenizer, template = open_model(base)
    except OSError as error:
        raise FileNotFoundError(
            f"{folder} is an adapter for {base:.200}, which cannot be opened "
            f"({error!s:.300}): bring it back, or write where it is now into "
            f"{ADAPTER[0]}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{folder} is an adapter for {base:.200}: {error!s:.400}"
        ) from error
    load_adapter(model, folder)
    merge_lora(model)
    return Opened(model, tokenizer, read_chat_template(folder) or template)


def find(source: str | PathLike[str]) -> Path:
    r"""Find a model on this machine, or fetch it from the hub.

    Args:
        source: a path, or a name on the hub, `owner/name`. What exists as a path is
            one; so is what begins with a folder that exists, or that the course makes.

    Returns:
        The folder or file.

    Raises:
        FileNotFoundError: if there is neither.
        ImportError: if it is a name, and the package `huggingface_hub` is missing.
    """
    path, name = Path(source), str(source)
    if path.exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        return path
    if path.parent.exists() or path.parent.name in OURS:
        return path
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError:
        raise ImportError(
            f"there is no folder {name}; to look for it on the hub needs the package "
            "huggingface_hub: pip install huggingface_hub"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=WANTED))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"there is no folder {name}, and it could not be fetched from the hub: "
            f"{reason[:200]}"
        ) from error


def read_begin_ids(folder: Path, tokenizer: BPETokenizer) -> list[int]:
    r"""Read which ids stand before a text.

    Args:
        folder: a Llama folder with a tokenizer.
        tokenizer: that tokenizer.

    Returns:
        The ids, most often none or one.

    Raises:
        ValueError: if a file is damaged, or names a token that there is not.

    Examples:
        >>> import tempfile
        >>> tokenizer = BPETokenizer.train(["the cat"], 258, ["<s>"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tokenizer.save(Path(folder) / "tokenizer.json")
        ...     path = Path(folder) / "tokenizer_config.json"
        ...     text = '{"add_bos_token": true, "bos_token": "<s>"}'
        ...     _ = path.write_text(text, encoding="utf-8")
        ...     read_begin_ids(Path(folder), tokenizer)
        [257]
    """
    if tokenizer.begin_ids:
        return tokenizer.begin_ids
    path = folder / "tokenizer.json"
    processor = read_json(path).get("post_processor") or {}
    try:
        for step in processor.get("processors", [processor]):
            if step.get("type") != "TemplateProcessing":
                continue
            # Such as `[{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]`
            names = []
            for piece in step["single"]:
                if "SpecialToken" not in piece:
                    break
                names.append(piece["SpecialToken"]["id"])
            return [_special_id(name, tokenizer, path) for name in names]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: the post_processor is not what it should be ({error!r:.80})"
        ) from error
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    if settings.get("add_bos_token") and settings.get("bos_token"):
        return [_special_id(_text(settings["bos_token"]), tokenizer, path)]
    return []


def read_stop_ids(folder: Path, tokenizer: BPETokenizer) -> list[int]:
    r"""Read which ids end a text.

    Args:
        folder: a Llama folder with a tokenizer.
        tokenizer: that tokenizer.

    Returns:
        The ids, in order. If no file says it they are the tokenizer's own, or else that
        of `<|endoftext|>`, if there is one.

    Raises:
        ValueError: if a file is damaged, or names a token that there is not.

    Examples:
        >>> import tempfile
        >>> tokenizer = BPETokenizer.train(["the cat"], 258, ["</s>"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "tokenizer_config.json"
        ...     _ = path.write_text('{"eos_token": "</s>"}', encoding="utf-8")
        ...     read_stop_ids(Path(folder), tokenizer)
        [257]
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        found = read_json(path).get("eos_token_id") if path.is_file() else None
        if found is not None and found != []:  # no end at all is not meant
            ids = found if isinstance(found, list) else [found]
            if any(type(id_) is not int or id_ < 0 for id_ in ids):
                raise ValueError(
                    f"{path}: eos_token_id must be integers; got {found!r:.80}"
                )
            return sorted(ids)
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    if settings.get("eos_token"):
        return [_special_id(_text(settings["eos_token"]), tokenizer, path)]
    if tokenizer.stop_ids:
        return tokenizer.stop_ids
    end_of_text = tokenizer.special_tokens.get("<|endoftext|>")
    return [] if end_of_text is None else [end_of_text]


def read_chat_template(folder: Path) -> ChatTemplate | None:
    r"""Read how a model's conversations are written down.

    Args:
        folder: a Llama folder.

    Returns:
        The template, or `None` if the folder has none. Of several, the one that is
        called `default`.

    Raises:
        ValueError: if a file is damaged, or there are several and none is the default.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "chat_template.jinja"
        ...     _ = path.write_text("{{ messages[0].content }}!", encoding="utf-8")
        ...     read_chat_template(Path(folder)).render([("user", "Hello")])
        'Hello!'
    """
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    source = settings.get("chat_template")
    if (whole := folder / "chat_template.jinja").is_file():
        path, source = whole, _read_text(whole)
    if isinstance(source, list):
        named = {
            t.get("name"): t.get("template") for t in source if isinstance(t, dict)
        }
        source = named.get("default", source)
    if source is None:
        return None
    if not isinstance(source, str):
        raise ValueError(
            f"{path}: the chat_template must be a text, or a list of which one is "
            f"named 'default'; got {source!r:.80}"
        )
    tokens = {
        name: _text(value)
        for name, value in settings.items()
        if name.endswith("_token") and isinstance(_text(value), str)
    }
    return ChatTemplate(source, tokens)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}") from error


def _text(token: Any) -> Any:
    """A token is written as a string, or as an object with more about it."""
    return token.get("content") if isinstance(token, dict) else token


def _special_id(name: Any, tokenizer: BPETokenizer, path: Path) -> int:
    if not isinstance(name, str) or name not in tokenizer.special_tokens:
        raise ValueError(
            f"{path} names the token {name!r:.80}, which the tokenizer lacks"
        )
    return tokenizer.special_tokens[name]
