r"""A GGUF file opened in eight bits: the float weights are never all there.

**The question.** A file of 98 MB has 135 million weights in four or five bits each.
Unpacked to float32 they take 540 MB; a copy for the model and another for the decoder
later, a laptop is out of memory, and every token waits for 540 MB. Eight bits lose
nothing that could be measured ([`minillm.inference.quantized`][]). How do you get from
one to the other without the detour?

**Matrix by matrix.** Each is unpacked, rounded to eight bits by row, laid out for the
processor, and its float weights are given up before the next one is read. The file is
memory-mapped: what has been read of it can be dropped by the operating system.

`minillm generate` and `minillm chat` open GGUF files in this way where
[`pays`][minillm.files.eight_bit_files.pays] says so.
"""

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from minillm.attention import Linear
from minillm.files.folders import check_size
from minillm.files.gguf_files import read_parts
from minillm.files.opening import Opened
from minillm.inference.eight_bits import (
    EightBitEmbedding,
    EightBitLinear,
    Plain,
    fastest,
    replace_matrices,
)
from minillm.inference.quantized import Quantized, quantize
from minillm.model import Embedding, TransformerLM
from minillm.training.checkpoint import compare

__all__ = ["open_eight_bits", "pays"]


def pays(source: str | PathLike[str], device: torch.device | str = "cpu") -> bool:
    r"""Say whether a model is opened in eight bits.

    Args:
        source: what was named.
        device: where it will compute.

    Returns:
        Whether it is a GGUF file, the device is the CPU, and there is a product of
        eight bits that is faster than turning them back.

    Examples:
        >>> pays("runs/demo"), pays("model.gguf", "cuda")
        (False, False)
    """
    path = Path(source)
    if path.suffix != ".gguf" or torch.device(device).type != "cpu":
        return False
    return path.is_file() and not isinstance(fastest(), Plain)


Kept = Tensor | Quantized | EightBitLinear
TABLE = "token_embedding.weight"


def _keep(name: str, weights: Tensor) -> Kept:
    """Round a matrix, and lay it out; the gains of the norms are vectors, and stay."""
    if weights.ndim != 2:
        return weights
    matrix = quantize(weights)
    # The table is looked up in as it is, and may be the head too.
    return matrix if name == TABLE else EightBitLinear(matrix)


def open_eight_bits(file: str | PathLike[str]) -> Opened:
    r"""Open a GGUF file with all matrices in eight bits.

    Args:
        file: the file.

    Returns:
        The model, its tokenizer, and the form of its conversations. The model reads and
        writes as that of [`open_model`][minillm.files.opening.open_model] does, to
        rounding; it can neither learn nor be saved nor moved.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if the package `gguf` is missing.
        ValueError: if the file is damaged, or of a kind that cannot be read.

    Examples:
        >>> open_eight_bits("no-such.gguf")
        Traceback (most recent call last):
        FileNotFoundError: there is no file no-such.gguf: `make smollm2` fetches one
    """
    config, kept, tokenizer, template = read_parts(file, _keep)
    if config.tie_embeddings and TABLE in kept:
        kept["lm_head.weight"] = kept[TABLE]
    shapes = {name: _shape(part) for name, part in kept.items()}
    where = f"{Path(file)}: weights and table"
    check_size(shapes, config, where)
    with torch.device("meta"):
        model = TransformerLM(config)
    compare(shapes, model.state_dict(), where)
    vectors = {name: part for name, part in kept.items() if isinstance(part, Tensor)}
    model.load_state_dict(vectors, strict=False, assign=True)

    def new(name: str, part: Linear | Embedding) -> EightBitLinear | EightBitEmbedding:
        found = kept.pop(f"{name}.weight")
        if isinstance(found, Quantized):
            is_linear = isinstance(part, Linear)
            return EightBitLinear(found) if is_linear else EightBitEmbedding(found)
        assert isinstance(found, EightBitLinear)
        return found

    return Opened(replace_matrices(model, new).eval(), tokenizer, template)


def _shape(part: Kept) -> Tensor:
    """A tensor of the same shape, without numbers."""
    if isinstance(part, EightBitLinear):
        return part.weight
    there = part.levels if isinstance(part, Quantized) else part
    return torch.empty(there.shape, device="meta")
