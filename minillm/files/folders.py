r"""A model as a folder: our weights under their names, and back.

[`minillm.hub`][] tells which files a folder has and why rows of the query and key
weights change their order. Here it is done.

# What others write

Folders of the same model differ in small things. Where `transformers` reads a folder,
so does this module, and with the same weights:

| in the file | what it means |
| --- | --- |
| an output head, though the configuration says *tied* | the head of the file counts |
| only the head of a tied model | it is the embedding, too |
| names without `model.` in front | the model was saved without its head |
| `rotary_emb.inv_freq` | follows from the configuration; passed over |
| weights of different types | all take the smallest type that holds them all |
"""

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from minillm.accounting.shapes import param_count
from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.files.llama_files import (
    describe,
    describe_tokenizer,
    read_config,
    read_weights,
    text_ends,
)
from minillm.files.writing import atomic_write
from minillm.inference.templates import ChatTemplate
from minillm.model import TransformerLM
from minillm.training.checkpoint import compare

__all__ = ["assemble", "load_llama", "save_llama", "to_halves", "to_pairs"]

# Our names and theirs, for what every model has once …
TOP_NAMES = {
    "token_embedding.weight": "model.embed_tokens.weight",
    "final_norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
# … and for what is in every block, behind `blocks.{i}.` and `model.layers.{i}.`.
BLOCK_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn.q_proj.weight": "self_attn.q_proj.weight",
    "attn.k_proj.weight": "self_attn.k_proj.weight",
    "attn.v_proj.weight": "self_attn.v_proj.weight",
    "attn.o_proj.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn.w1.weight": "mlp.gate_proj.weight",
    "ffn.w2.weight": "mlp.down_proj.weight",
    "ffn.w3.weight": "mlp.up_proj.weight",
}
LARGEST_TABLE = 1 << 23  # angles: Llama 3.1 turns 64 pairs at 131,072 positions


def to_halves(
    weight: Float[Tensor, "rows d_model"], n_heads: int
) -> Float[Tensor, "rows d_model"]:
    """Reorder the rows of a query or key weight, from neighbouring pairs to halves.

    Args:
        weight: the weight; its rows are heads of equal size, one after the other.
        n_heads: how many heads.

    Returns:
        The same rows, in each head those at even places first.
    """
    return weight.unflatten(0, (n_heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def to_pairs(
    weight: Float[Tensor, "rows d_model"], n_heads: int
) -> Float[Tensor, "rows d_model"]:
    """Undo [`to_halves`][minillm.files.folders.to_halves].

    Args:
        weight: the weight.
        n_heads: how many heads.

    Returns:
        The same rows, in each head first and second half interleaved.
    """
    return weight.unflatten(0, (n_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def save_llama(
    model: TransformerLM,
    folder: str | PathLike[str],
    tokenizer: BPETokenizer | None = None,
    *,
    chat_template: str | ChatTemplate | None = None,
) -> None:
    r"""Write a model as a Llama folder.

    Args:
        model: the model.
        folder: where to; made if it does not exist. Other files in it stay.
        tokenizer: its tokenizer, if the folder is to hold that too.
        chat_template: how a conversation is written, in Jinja; see
            [`minillm.inference.templates`][]. What its variables stand for goes along
            if it is a `ChatTemplate`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    tensors = {}
    for ours, theirs, n_heads in _names(config):
        tensor = model.get_parameter(ours).detach().cpu()
        tensors[theirs] = (to_halves(tensor, n_heads) if n_heads else tensor).clone()
    begin, ends = (None, []) if tokenizer is None else text_ends(tokenizer)
    description = describe(config) | {
        # Left out, they would be 1 and 2 for transformers.
        "bos_token_id": begin,
        "eos_token_id": ends if len(ends) > 1 else ends[0] if ends else None,
        "torch_dtype": str(model.token_embedding.weight.dtype).removeprefix("torch."),
    }
    # The weights come last: a folder that has them is complete.
    with atomic_write(folder / "config.json") as file:
        file.write((json.dumps(description, indent=2) + "\n").encode())
    if tokenizer is not None:
        tokenizer.save(folder / "tokenizer.json")
        form = chat_template if isinstance(chat_template, ChatTemplate) else None
        source: Any = form.source if form else chat_template
        settings = describe_tokenizer(tokenizer, config.context_length, source)
        if form is not None:
            settings |= form.tokens  # what its variables stand for
        with atomic_write(folder / "tokenizer_config.json") as file:
            file.write((json.dumps(settings, indent=2) + "\n").encode())
    with atomic_write(folder / "model.safetensors") as file:
        file.write(safetensors.torch.save(tensors, metadata={"format": "pt"}))


def load_llama(folder: str | PathLike[str]) -> TransformerLM:
    r"""Read a model from a Llama folder.

    Args:
        folder: one that [`save_llama`][minillm.files.folders.save_llama] or
            `save_pretrained` wrote.

    Returns:
        The model, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: if the folder or one of its files is missing.
        ValueError: if a file is damaged, or the model is of a kind that
            [`TransformerLM`][minillm.model.TransformerLM] cannot be.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> config = ModelConfig(100, 16, d_model=32, n_layers=2, n_heads=4)
        >>> model = TransformerLM(config)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_llama(model, folder)
        ...     copy = load_llama(folder)
        >>> ids = torch.tensor([[1, 2, 3]])
        >>> copy.config == config, torch.equal(copy(ids), model(ids))
        (True, True)
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: train a model first")
    theirs = dict(_usual_names(read_weights(folder)))
    config = _settle_head(theirs, read_config(folder), folder)
    where = f"{folder}: weights and config.json"
    check_size(theirs, config, where)
    names = _names(config)
    ours = {name: theirs.pop(file) for name, file, _ in names if file in theirs}
    # What is left has no place in this model, and is named as it stands in the file.
    ours |= theirs
    model = assemble(ours, config, where)
    # Only now is it known that the rows are as many as the heads need.
    with torch.no_grad():
        for name, _, n_heads in names:
            if n_heads:
                weight = model.get_parameter(name)
                weight.copy_(to_pairs(weight, n_heads))
    return model


def _usual_names(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The weights by the names that most folders have."""
    for name, tensor in tensors.items():
        if name.endswith("rotary_emb.inv_freq"):
            continue
        bare = name.startswith(("embed_tokens.", "layers.", "norm."))
        yield f"model.{name}" if bare else name, tensor


def _settle_head(
    tensors: dict[str, Tensor], config: ModelConfig, folder: Path
) -> ModelConfig:
    """Let the weights decide whether the head is the embedding; it is stored once."""
    embedding, head = TOP_NAMES["token_embedding.weight"], TOP_NAMES["lm_head.weight"]
    if not config.tie_embeddings or head not in tensors:
        return config
    if embedding in tensors and not torch.equal(tensors[embedding], tensors[head]):
        warnings.warn(
            f"{folder}: config.json says that embedding and head are tied, but the "
            "weights have another head; it is kept, and the model is not tied",
            stacklevel=3,
        )
        return replace(config, tie_embeddings=False)
    tensors.setdefault(embedding, tensors.pop(head))
    return config


def check_size(tensors: dict[str, Tensor], config: ModelConfig, where: str) -> None:
    """Refuse a configuration that asks for far more than the weights that there are.

    A line of it can name any number, and a model of that many layers would be made
    before anything could be compared.

    Args:
        tensors: the weights.
        config: the shape.
        where: what the two come from, for an error.

    Raises:
        ValueError: if it asks for more than twice as many weights, or for so long a
            context that the table of its angles would dwarf them.
    """
    there = sum(tensor.numel() for tensor in tensors.values())
    angles = config.context_length * config.d_head // 2
    if angles > (most := max(LARGEST_TABLE, there // 2)):
        raise ValueError(
            f"{where}: a context of {config.context_length:,} tokens makes a table of "
            f"{angles:,} angles, and these weights allow {most:,}: write down a "
            "shorter context"
        )
    here = param_count(config).total
    if here > 2 * there:
        raise ValueError(
            f"{where} differ: {there:,} weights there, {here:,} in the configuration"
        )


def assemble(
    tensors: dict[str, Tensor], config: ModelConfig, where: str
) -> TransformerLM:
    """Make a model of weights.

    Args:
        tensors: the weights by our names; a tied head may be missing.
        config: the shape.
        where: what the two come from, for an error.

    Returns:
        The model, in evaluation mode. Its weights are copies, all of the smallest type
        that holds every one of them.

    Raises:
        ValueError: if a weight is missing, has another shape, or has no place.

    Examples:
        >>> model = TransformerLM(ModelConfig(10, 4, 8, 1, 2))
        >>> again = assemble(model.state_dict(), model.config, "a model and itself")
        >>> again.training, torch.equal(again.lm_head.weight, model.lm_head.weight)
        (False, True)
    """
    check_size(tensors, config, where)
    # On the device "meta" tensors have shapes but no numbers: there is no point in
    # sampling 135 million of them only to replace each.
    with torch.device("meta"):
        model = TransformerLM(config)
    embedding = tensors.get("token_embedding.weight")
    if config.tie_embeddings and embedding is not None:
        tensors = tensors | {"lm_head.weight": embedding}
    compare(tensors, model.state_dict(), where)
    # Of float16 and bfloat16, neither holds the other.
    dtype = reduce(torch.promote_types, {w.dtype for w in tensors.values()})
    copies = {name: tensor.to(dtype, copy=True) for name, tensor in tensors.items()}
    model.to(dtype).load_state_dict(copies, assign=True)
    if config.tie_embeddings:
        model.lm_head.weight = model.token_embedding.weight
    return model.eval()


def _names(config: ModelConfig) -> list[tuple[str, str, int]]:
    """For each weight: our name, theirs, and the heads to reorder, 0 for none."""
    names = [(ours, theirs, 0) for ours, theirs in TOP_NAMES.items()]
    if config.tie_embeddings:
        names.pop()
    heads = {
        "attn.q_proj.weight": config.n_heads,
        "attn.k_proj.weight": config.n_kv_heads,
    }
    for i in range(config.n_layers):
        names += [
            (f"blocks.{i}.{ours}", f"model.layers.{i}.{theirs}", heads.get(ours, 0))
            for ours, theirs in BLOCK_NAMES.items()
        ]
    return names
