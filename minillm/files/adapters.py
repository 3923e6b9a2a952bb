r"""Adapters: a thin layer in a folder of its own, as the package `peft` keeps it.

**The question.** Of a model with a LoRA ([`minillm.training.lora`][]), only the thin
products have learned anything. Kept alone they are a few megabytes, useful to everyone
who has the model. Under which names?

There is a common answer here, too: that of `peft`, which transformers, vLLM and others
read.

| file | what it holds |
| --- | --- |
| `adapter_config.json` | rank, scale, and which model it is for |
| `adapter_model.safetensors` | the thin matrices by name |
| `chat_template.jinja` | the form of a chat, if the model has none of its own |

**One rotation, again.** [`minillm.hub`][] puts the rows of query and key weights into
another order, head by head. What is added to a weight has to follow it. The rows of
$BA$ are those of $B$, so $B$ is reordered and $A$ stays:

>>> import torch
>>> from minillm.files.folders import to_halves
>>> a, b = torch.randn(2, 6), torch.randn(8, 2)
>>> torch.equal(to_halves(b @ a, n_heads=2), to_halves(b, n_heads=2) @ a)
True

Forget it, and the adapter loads everywhere and answers worse.

**For another model?** Names and shapes tell models of different size apart. Two of the
same shape differ in their numbers alone, so the file says by a hash of the weights
which ones it was learned beside, and is refused beside others.

**Before this:** [`minillm.training.lora`][], [`minillm.files.folders`][].
"""

import hashlib
import json
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from minillm.files.folders import BLOCK_NAMES, to_halves, to_pairs
from minillm.files.llama_files import read_safetensors
from minillm.files.reading import read_json
from minillm.files.writing import atomic_write
from minillm.model import TransformerLM
from minillm.training.checkpoint import compare
from minillm.training.lora import add_lora, lora_layers
from minillm.training.tuning import MOST_RANK

__all__ = ["ADAPTER", "base_of", "fingerprint", "load_adapter", "save_adapter"]

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""The files of an adapter."""

PREFIX = "base_model.model.model.layers."
# What our thin layer cannot be, and what leaves it as it is.
PLAIN: dict[str, list[Any]] = {
    "peft_type": ["LORA"],
    "bias": ["none"],
    "use_dora": [False],
    "use_rslora": [False],
    "fan_in_fan_out": [False],
    "lora_bias": [False],
    "modules_to_save": [None, []],
    "rank_pattern": [None, {}],
    "alpha_pattern": [None, {}],
    "layer_replication": [None, []],
    "alora_invocation_tokens": [None],
}


def fingerprint(model: TransformerLM) -> str:
    """Tell a model from every other by its weights.

    Args:
        model: the model, without thin layers.

    Returns:
        Sixteen hexadecimal digits.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(10, 4, 8, 1, 2))
        >>> before = fingerprint(model)
        >>> with torch.no_grad():
        ...     model.final_norm.weight[0] += 1e-6
        >>> before == fingerprint(model)
        False
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        # The memory itself; a copy of a large weight would take as much again.
        digest.update(weight.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def save_adapter(
    model: TransformerLM, folder: str | PathLike[str], base: str, made_for: str
) -> None:
    r"""Write the thin layers of a model.

    Args:
        model: the model with its thin layers.
        folder: where to; made if it does not exist. Other files in it stay.
        base: where the model without them is, a path or a name on the hub.
        made_for: its [`fingerprint`][minillm.files.adapters.fingerprint].

    Raises:
        ValueError: if the model has no thin layers.

    Examples:
        >>> import tempfile
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(10, 4, 64, 1, 2))
        >>> made_for = fingerprint(model)
        >>> _ = add_lora(model, rank=2, where=["q_proj", "w1"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_adapter(model, folder, "models/base", made_for)
        ...     read_json(Path(folder) / "adapter_config.json")["target_modules"]
        ...     base_of(folder)
        ['gate_proj', 'q_proj']
        'models/base'
    """
    layers = lora_layers(model)
    if not layers:
        raise ValueError("the model has no LoRA layers: add_lora makes them")
    tensors = {}
    for name, layer in layers.items():
        theirs, n_heads = _their_name(name, model)
        b = layer.b.detach().cpu()
        tensors[f"{theirs}.lora_A.weight"] = layer.a.detach().cpu().contiguous()
        tensors[f"{theirs}.lora_B.weight"] = (
            to_halves(b, n_heads) if n_heads else b
        ).contiguous()
    one = next(iter(layers.values()))
    rank = one.a.shape[0]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": one.scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
        "inference_mode": True,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / ADAPTER[0]) as file:
        file.write((json.dumps(config, indent=2) + "\n").encode())
    about = {"format": "pt", "made_for": made_for}
    with atomic_write(folder / ADAPTER[1]) as file:
        file.write(safetensors.torch.save(tensors, metadata=about))


def base_of(folder: str | PathLike[str]) -> str:
    """Read which model an adapter is for.

    Args:
        folder: the folder of the adapter.

    Returns:
        A path, or a name on the hub.

    Raises:
        ValueError: if its description does not say it.

    Examples:
        See [`save_adapter`][minillm.files.adapters.save_adapter].
    """
    path = Path(folder) / ADAPTER[0]
    base = read_json(path).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ValueError(
            f"{path}: base_model_name_or_path must name the model that the adapter is "
            f"for; got {base!r:.80}"
        )
    return base


def load_adapter(model: TransformerLM, folder: str | PathLike[str]) -> None:
    r"""Put thin layers beside the matrices of a model, as a folder has them.

    Args:
        model: the model, changed in place: its own weights are frozen.
        folder: one that [`save_adapter`][minillm.files.adapters.save_adapter] or `peft`
            wrote.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, the adapter is of a kind that
            [`LoRA`][minillm.training.lora.LoRA] cannot be, or is for another model.

    Examples:
        >>> import tempfile
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(10, 4, 64, 1, 2))
        >>> made_for = fingerprint(model)
        >>> _ = add_lora(model, rank=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_adapter(model, folder, "models/base", made_for)
        ...     other = TransformerLM(ModelConfig(10, 4, 64, 1, 2))
        ...     try:
        ...         load_adapter(other, folder)
        ...     except ValueError as error:
        ...         print(str(error).partition(" is ")[2])
        an adapter for another model of this shape: take the one it was learned beside
    """
    folder = Path(folder)
    for name in ADAPTER:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}, so it is no complete adapter: fetch it, or "
                "save it as safetensors"
            )
    rank, alpha = _read_config(folder / ADAPTER[0])
    path = folder / ADAPTER[1]
    tensors = read_safetensors(path)
    _check_base(path, model)
    theirs = {name.split(".")[-3] for name in tensors if name.count(".") > 3}
    where = [ours for ours, name in _MODULES.items() if name in theirs]
    shapes = {
        f"{_their_name(f'blocks.{i}.{name}', model)[0]}.lora_{part}.weight": shape
        for i, block in enumerate(model.blocks)
        for name in where
        for part, shape in _shapes(block.get_parameter(f"{name}.weight"), rank).items()
    }
    wanted = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    try:
        compare(tensors, wanted, "its thin matrices and those of this model")
    except ValueError as error:
        raise ValueError(f"{path} is an adapter for another model: {error}") from None
    add_lora(model, rank, alpha, [name.split(".")[1] for name in where])
    with torch.no_grad():
        for name, layer in lora_layers(model).items():
            base, n_heads = _their_name(name, model)
            b = tensors[f"{base}.lora_B.weight"]
            layer.a.copy_(tensors[f"{base}.lora_A.weight"])
            layer.b.copy_(to_pairs(b, n_heads) if n_heads else b)


# Our names for the matrices of a block, and theirs.
_MODULES = {
    ours.removesuffix(".weight"): theirs.split(".")[1]
    for ours, theirs in BLOCK_NAMES.items()
    if "norm" not in ours
}


def _their_name(name: str, model: TransformerLM) -> tuple[str, int]:
    """Their name for a matrix of a block, and its heads to reorder, 0 for none."""
    _, i, ours = name.split(".", 2)
    theirs = BLOCK_NAMES[f"{ours}.weight"].removesuffix(".weight")
    heads = {
        "attn.q_proj": model.config.n_heads,
        "attn.k_proj": model.config.n_kv_heads,
    }
    return f"{PREFIX}{i}.{theirs}", heads.get(ours, 0)


def _shapes(weight: Tensor, rank: int) -> dict[str, tuple[int, int]]:
    d_out, d_in = weight.shape
    return {"A": (rank, d_in), "B": (d_out, rank)}


def _read_config(path: Path) -> tuple[int, float]:
    """Read rank and scale, and refuse by its name what cannot be represented here."""
    c = read_json(path)
    for key, allowed in PLAIN.items():
        found = c.get(key, allowed[0])
        if found not in allowed:
            raise ValueError(
                f"{path}: {key} is {found!r:.80}; only {allowed[0]!r} can be read here"
            )
    rank: Any = c.get("r")
    alpha: Any = c.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= MOST_RANK:
        raise ValueError(
            f"{path}: r must be an integer from 1 to {MOST_RANK}; got {rank!r:.80}"
        )
    if type(alpha) not in (int, float) or not 0 < alpha < float("inf"):
        raise ValueError(f"{path}: lora_alpha must be positive; got {alpha!r:.80}")
    return rank, float(alpha)


def _check_base(path: Path, model: TransformerLM) -> None:
    """Refuse an adapter that says it was learned beside other weights."""
    with safetensors.safe_open(path, framework="pt") as file:
        made_for = (file.metadata() or {}).get("made_for")
    if made_for is not None and made_for != fingerprint(model):
        raise ValueError(
            f"{path} is an adapter for another model of this shape: take the one it "
            "was learned beside"
        )
