r"""The files of a Llama folder, read with suspicion.

A folder comes from elsewhere, so nothing in it is believed.

# What is refused

Whatever the configuration asks for and our model cannot do (biases, a rotation
stretched in another way than that of Llama 3, another architecture) is refused by its
name. A model that is nearly right still writes, only worse, and gives no hint why.

# More than one file

Weights beyond some gigabytes are cut into several files, *shards*, and an index,
`model.safetensors.index.json`, says which tensor is in which:

| `weight_map` | |
| --- | --- |
| `model.embed_tokens.weight` | `model-00001-of-00002.safetensors` |
| `model.norm.weight` | `model-00002-of-00002.safetensors` |

The index may name files of its own folder only; otherwise a folder that somebody sent
could have us open any file of the machine. And weights that are published as
`pytorch_model.bin` alone are not read: that format is Python's pickle, and reading it
can run code.
"""

from os import PathLike
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import safetensors.torch
from torch import Tensor

from minillm.bpe import BPETokenizer
from minillm.config import LinearScaling, ModelConfig, RopeScaling
from minillm.files.reading import read_json

__all__ = [
    "describe",
    "describe_tokenizer",
    "read_config",
    "read_weights",
    "text_ends",
]

# What a configuration means that does not say it: the defaults of transformers.
THEIR_CONTEXT, THEIR_EPS = 2048, 1e-6


def read_config(path: str | PathLike[str]) -> ModelConfig:
    """Read the shape of a model from the description of a Llama folder.

    Args:
        path: the folder, or its `config.json`.

    Returns:
        The shape.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or the model is of a kind that
            [`TransformerLM`][minillm.model.TransformerLM] cannot be.

    Examples:
        >>> import json, tempfile
        >>> config = ModelConfig(10, 4, 8, 1, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "config.json"
        ...     _ = path.write_text(json.dumps(describe(config)), encoding="utf-8")
        ...     read_config(folder) == config
        True
    """
    path = Path(path)
    if path.is_dir():
        path /= "config.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path.parent} has no config.json, so it is no complete model: train "
                "it again, or fetch the missing file"
            )
    c = read_json(path)
    # Rotary positions are spelled in two ways, with the base inside or outside. Where
    # it stands in both places the one inside counts, as it does for others.
    rope = c.get("rope_scaling") or c.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise ValueError(
            f"{path}: the rope parameters must be an object; got {rope!r:.80}"
        )
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    wanted: dict[str, tuple[Any, list[Any]]] = {
        "model_type": (c.get("model_type"), ["llama"]),
        "hidden_act": (c.get("hidden_act", "silu"), ["silu", "swish"]),
        "attention_bias": (c.get("attention_bias", False), [False]),
        "mlp_bias": (c.get("mlp_bias", False), [False]),
        "rope_type": (rope_type, ["default", "linear", "llama3"]),
        "partial_rotary_factor": (
            rope.get("partial_rotary_factor", c.get("partial_rotary_factor", 1.0)),
            [1.0, None],
        ),
        "quantization_config": (c.get("quantization_config"), [None]),
    }
    for key, (found, supported) in wanted.items():
        if found not in supported:
            known = " or ".join(map(repr, supported))
            raise ValueError(
                f"{path}: {key} is {found!r:.80}; only {known} can be read here"
            )
    try:
        config = ModelConfig(
            vocab_size=c["vocab_size"],
            context_length=c.get("max_position_embeddings", THEIR_CONTEXT),
            d_model=c["hidden_size"],
            n_layers=c["num_hidden_layers"],
            n_heads=c["num_attention_heads"],
            n_kv_heads=c.get("num_key_value_heads") or c["num_attention_heads"],
            d_ff=c["intermediate_size"],
            rope_theta=float(rope.get("rope_theta") or c.get("rope_theta") or 10000.0),
            norm_eps=float(c.get("rms_norm_eps", THEIR_EPS)),
            tie_embeddings=c.get("tie_word_embeddings", False),
            rope_scaling=_read_scaling(rope_type, rope),
        )
    except KeyError as error:
        raise ValueError(f"{path} does not say {error}: it is not complete") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error!s:.300}") from error
    if type(config.tie_embeddings) is not bool:
        raise ValueError(f"{path}: tie_word_embeddings must be true or false")
    if c.get("head_dim") not in (None, config.d_head):
        raise ValueError(
            f"{path}: head_dim is {c['head_dim']!r:.80}; only hidden_size / "
            f"num_attention_heads = {config.d_head} can be read here"
        )
    return config


def _read_scaling(
    kind: str | None, rope: dict[str, Any]
) -> LinearScaling | RopeScaling | None:
    if kind == "default":
        return None
    if kind == "linear":
        return LinearScaling(float(rope["factor"]))
    return RopeScaling(
        factor=float(rope["factor"]),
        low_freq_factor=float(rope["low_freq_factor"]),
        high_freq_factor=float(rope["high_freq_factor"]),
        original_context_length=rope["original_max_position_embeddings"],
    )


def describe(config: ModelConfig) -> dict[str, Any]:
    """Write the shape of a model as `config.json` has it.

    Args:
        config: the shape.

    Returns:
        What [`read_config`][minillm.files.llama_files.read_config] reads, in JSON's
        types.

    Examples:
        >>> config = ModelConfig(10, 4, 8, 1, 2)
        >>> facts = describe(config)
        >>> facts["hidden_size"], facts["num_hidden_layers"], facts["head_dim"]
        (8, 1, 4)
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.d_ff,
        "rope_theta": config.rope_theta,
        "rope_scaling": _describe_scaling(config.rope_scaling),
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }


def text_ends(tokenizer: BPETokenizer) -> tuple[int | None, list[int]]:
    """Tell what begins a text and what ends it, for programs that ask for it.

    Args:
        tokenizer: the tokenizer.

    Returns:
        The first id of a text, or `None`, and the ids that end one. Where the tokenizer
        does not say it, both are `<|endoftext|>`, if it has that.

    Examples:
        >>> text_ends(BPETokenizer.train(["the"], 258, ["<|endoftext|>"]))
        (257, [257])
        >>> text_ends(BPETokenizer.train(["the"], 257))
        (None, [])
    """
    usual = tokenizer.special_tokens.get("<|endoftext|>")
    begin = tokenizer.begin_ids[0] if tokenizer.begin_ids else usual
    ends = sorted(tokenizer.stop_ids)
    return begin, ends or ([] if usual is None else [usual])


def describe_tokenizer(
    tokenizer: BPETokenizer, context_length: int, chat_template: str | None = None
) -> dict[str, Any]:
    """Write what `tokenizer_config.json` has, without which others decode differently.

    Args:
        tokenizer: the tokenizer.
        context_length: how many tokens its model reads.
        chat_template: how a conversation is written, in Jinja.

    Returns:
        The entries, in JSON's types.

    Examples:
        The second entry keeps "don 't" from becoming "don't" on the way back:

        >>> facts = describe_tokenizer(BPETokenizer.train(["the"], 257), 128)
        >>> facts["tokenizer_class"], facts["clean_up_tokenization_spaces"]
        ('PreTrainedTokenizerFast', False)
    """
    names = {id_: name for name, id_ in tokenizer.special_tokens.items()}
    begin, ends = text_ends(tokenizer)
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        "bos_token": None if begin is None else names.get(begin),
        "eos_token": names.get(ends[0]) if ends else None,
        "chat_template": chat_template,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def _describe_scaling(
    scaling: LinearScaling | RopeScaling | None,
) -> dict[str, Any] | None:
    if isinstance(scaling, RopeScaling):
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context_length,
        }
    if isinstance(scaling, LinearScaling):
        return {"rope_type": "linear", "factor": scaling.factor}
    return None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all weights of a Llama folder, from one file or from several.

    Args:
        folder: the folder.

    Returns:
        The weights by the names that they have in the files. Those of 8 bits, which
        torch cannot multiply, come as float32.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, the index is not what it should be, or a
            tensor holds integers, truth values or complex numbers.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from safetensors.torch import save_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_file({"a": torch.ones(2)}, Path(folder) / "model.safetensors")
        ...     read_weights(Path(folder))["a"].tolist()
        [1.0, 1.0]
    """
    single, index = folder / "model.safetensors", "model.safetensors.index.json"
    if single.is_file():
        return read_safetensors(single)
    if not (folder / index).is_file():
        pickled = [path.name for path in sorted(folder.glob("*.bin"))]
        raise FileNotFoundError(
            f"{folder} has no model.safetensors, so it is no complete model: "
            + (
                f"{pickled[0]} is pickled, and reading it could run code; "
                "fetch the weights as safetensors"
                if pickled
                else "train it again, or fetch the missing file"
            )
        )
    places = read_json(folder / index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{folder / index} has no weight_map: fetch it again")
    for name in places.values():
        # On Windows both slashes divide a path, and "C:" begins one.
        plain = isinstance(name, str) and name[:200].endswith(".safetensors")
        if not plain or {PurePosixPath(name).name, PureWindowsPath(name).name} != {
            name
        }:
            raise ValueError(
                f"{folder / index} names the file {name!r:.80}; only a safetensors "
                "file of the same folder can be read here"
            )
    tensors = {}
    for shard in sorted(set(places.values())):
        if not (folder / shard).is_file():
            raise FileNotFoundError(
                f"{folder} has no {shard}, so it is no complete model: fetch it"
            )
        found = read_safetensors(folder / shard)
        for name in [name for name, place in places.items() if place == shard]:
            if name not in found:
                raise ValueError(
                    f"{folder / shard} lacks {name:.80}, which the index promises"
                )
            tensors[name] = found[name]
    return tensors


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the weights of one file.

    Args:
        path: the file.

    Returns:
        The weights by the names in the file; those of 8 bits come as float32.

    Raises:
        ValueError: if the file is damaged, or holds something else than weights.
    """
    try:
        found = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is damaged ({error!s:.200}): write it again"
        ) from error
    return {name: _as_weight(tensor, name, path) for name, tensor in found.items()}


def _as_weight(tensor: Tensor, name: str, path: Path) -> Tensor:
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind.startswith("float8"):
        return tensor.float()
    if kind not in {"float64", "float32", "float16", "bfloat16"}:
        raise ValueError(
            f"{path}: {name:.80} holds numbers of type {kind}; only floating-point "
            "weights can be read here: fetch the model without quantization"
        )
    return tensor
