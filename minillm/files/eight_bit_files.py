r"""A GGUF file opened in eight bits: the float weights are never all there.

**The question.** A file of 98 MB has 135 million weights in four or five bits each.
Unpacked to float32 they take 540 MB; a copy for the model and another for the decoder
later, a laptop is out of memory, and every token waits for 540 MB. Eight bits a
weight would do ([`minillm.inference.quantized`][]). How do you get from
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

from minillm.files.folders import check_size
from minillm.files.gguf_files import read_parts
from minillm.files.opening import Opened
from minillm.inference.eight_bit_layers import Product, partners, replace_matrices
from minillm.inference.eight_bits import Plain, fastest
from minillm.inference.quantized import Quantized, quantize
from minillm.model import TransformerLM
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


TABLE = "token_embedding.weight"


class _Packer:
    """Rounds matrices as they come, and lays each group of partners out as one."""

    def __init__(self) -> None:
        self.waiting: dict[str, Quantized] = {}
        self.products: dict[tuple[str, ...], Product] = {}

    def __call__(self, name: str, weights: Tensor) -> Tensor:
        """Keep a matrix, and return its shape without numbers; return a vector."""
        if weights.ndim != 2:
            return weights
        self.waiting[name] = _by_parts(weights)
        names = partners(name)
        # The table is looked up in as it is, and may be the head too.
        if name != TABLE and all(n in self.waiting for n in names):
            self.products[names] = Product([self.waiting.pop(n) for n in names])
        return torch.empty(weights.shape, device="meta")


def _by_parts(weights: Tensor) -> Quantized:
    """Round some rows at a time: the steps between would be as large as the matrix."""
    parts = [quantize(rows) for rows in weights.split(1024)]
    return Quantized(*map(torch.cat, zip(*parts, strict=True)))


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
    packer = _Packer()
    config, tensors, tokenizer, template = read_parts(file, packer)
    if config.tie_embeddings and TABLE in tensors:
        tensors["lm_head.weight"] = tensors[TABLE]
    where = f"{Path(file)}: weights and table"
    check_size(tensors, config, where)
    with torch.device("meta"):
        model = TransformerLM(config)
    compare(tensors, model.state_dict(), where)
    vectors = {name: part for name, part in tensors.items() if part.ndim == 1}
    model.load_state_dict(vectors, strict=False, assign=True)
    table = packer.waiting.pop(TABLE)

    def product(names: tuple[str, ...]) -> Product:
        if names not in packer.products:  # a tied head
            return Product([table])
        return packer.products.pop(names)

    model = replace_matrices(model, product, table)
    return Opened(model.eval(), tokenizer, template)
