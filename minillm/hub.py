r"""Folders that other programs read, and the other way round.

**The question.** A trained model is a set of named arrays. If only our own code can
read them, nobody else can use the model, and we can use nobody else's. Which names, in
which files?

There is a common answer: the layout in which Llama models are published, three files in
a folder.

| file | what it holds |
| --- | --- |
| `config.json` | the shape of the model |
| `model.safetensors` | the weights by name |
| `tokenizer.json` | the tokenizer |

`transformers`, vLLM, llama.cpp and others read such a folder; a run of this course
*is* one.

# Two conventions for one rotation

The names differ from ours, which is a table. One thing differs in substance: which two
numbers of a head are turned as a pair ([`minillm.rope`][]), for us neighbours, in the
published code numbers half a head apart. So the rows of the query and key weights are
put into another order, head by head: those at even places first, then the odd ones.
Forget it, and only the first token comes out right.

>>> import torch
>>> rows = torch.arange(8.0).unsqueeze(1)  # two heads of four rows, one number each
>>> to_halves(rows, n_heads=2).squeeze(1).tolist()
[0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
>>> torch.equal(to_pairs(to_halves(rows, n_heads=2), n_heads=2), rows)
True

The files of llama.cpp are in our order, so [`minillm.formats.gguf_files`][] reorders
nothing.

What is in the three files, and what is refused in them, is the subject of
[`minillm.formats.llama_files`][].
[`minillm.formats.opening`][] makes of such a folder something that writes.
"""

import json
from os import PathLike
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.files.writing import atomic_write
from minillm.flops import param_count
from minillm.formats.gguf_files import read_gguf
from minillm.formats.llama_files import describe, read_config, read_weights
from minillm.model import TransformerLM
from minillm.training.checkpoint import compare

__all__ = [
    "load_gguf",
    "load_llama",
    "read_config",
    "save_llama",
    "to_halves",
    "to_pairs",
]

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
    """Undo [`to_halves`][minillm.hub.to_halves].

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
) -> None:
    r"""Write a model as a Llama folder.

    Args:
        model: the model.
        folder: where to; made if it does not exist. Other files in it stay.
        tokenizer: its tokenizer, if the folder is to hold that too.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    tensors = {}
    for ours, theirs, n_heads in _names(config):
        tensor = model.get_parameter(ours).detach().cpu()
        tensors[theirs] = (to_halves(tensor, n_heads) if n_heads else tensor).clone()
    end_of_text = tokenizer and tokenizer.special_tokens.get("<|endoftext|>")
    description = describe(config) | {
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": str(model.token_embedding.weight.dtype).removeprefix("torch."),
    }
    # The weights come last: a folder that has them is complete.
    with atomic_write(folder / "config.json") as file:
        file.write((json.dumps(description, indent=2) + "\n").encode())
    if tokenizer is not None:
        tokenizer.save(folder / "tokenizer.json")
    with atomic_write(folder / "model.safetensors") as file:
        file.write(safetensors.torch.save(tensors, metadata={"format": "pt"}))


def load_llama(folder: str | PathLike[str]) -> TransformerLM:
    r"""Read a model from a Llama folder.

    Args:
        folder: one that [`save_llama`][minillm.hub.save_llama] or `save_pretrained`
            wrote.

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
    config = read_config(folder)
    theirs = read_weights(folder)
    where = f"{folder}: weights and config.json"
    check_size(theirs, config, where)
    names = _names(config)
    # Tied heads are stored once; some programs store them twice.
    if config.tie_embeddings:
        theirs.pop("lm_head.weight", None)
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


def load_gguf(file: str | PathLike[str]) -> tuple[TransformerLM, BPETokenizer]:
    r"""Read a model and its tokenizer from a GGUF file.

    [`minillm.formats.gguf_files`][] tells what such a file holds.

    Args:
        file: the file.

    Returns:
        The model, in evaluation mode, on the CPU, with 32 bits a weight; the tokenizer.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if the package `gguf` is missing.
        ValueError: if the file is damaged, or the model is of a kind that
            [`TransformerLM`][minillm.model.TransformerLM] cannot be.

    Examples:
        >>> load_gguf("no-such.gguf")
        Traceback (most recent call last):
        FileNotFoundError: there is no file no-such.gguf: `make smollm2` fetches one
    """
    contents = read_gguf(file)
    where = f"{file}: weights and table"
    return assemble(contents.tensors, contents.config, where), contents.tokenizer


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
        The model, in evaluation mode. Its weights are copies, all of one type.

    Raises:
        ValueError: if a weight is missing, has another shape, or has no place.
    """
    check_size(tensors, config, where)
    # On the device "meta" tensors have shapes but no numbers: there is no point in
    # drawing 135 million of them by chance only to replace each.
    with torch.device("meta"):
        model = TransformerLM(config)
    embedding = tensors.get("token_embedding.weight")
    if config.tie_embeddings and embedding is not None:
        tensors = tensors | {"lm_head.weight": embedding}
    compare(tensors, model.state_dict(), where)
    dtype = tensors["token_embedding.weight"].dtype
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
