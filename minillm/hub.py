r"""Folders that other programs read, and the other way round.

**The question.** A trained model is a set of named arrays. If only our own code can
read them, nobody else can use the model, and we can use nobody else's. Which names, in
which files?

There is a common answer: the layout in which Llama models are published, a folder with
these files.

| file | what it holds |
| --- | --- |
| `config.json` | the shape of the model |
| `model.safetensors` | the weights by name |
| `tokenizer.json` | the tokenizer |
| `tokenizer_config.json` | how other programs use it |

`transformers`, vLLM and others read such a folder, and the converter of llama.cpp makes
a GGUF file of it; a run of this course *is* one.

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

The files of llama.cpp are in our order, so [`minillm.files.gguf_files`][] reorders
nothing.

[`minillm.files.folders`][] holds what writes and reads such a folder,
[`save_llama`][minillm.files.folders.save_llama] and
[`load_llama`][minillm.files.folders.load_llama]. What is in the files, and what is
refused in them, is the subject of [`minillm.files.llama_files`][].
[`minillm.files.opening`][] turns such a folder into a model that writes.
"""

from os import PathLike

from minillm.bpe import BPETokenizer
from minillm.files.folders import (
    assemble,
    load_llama,
    save_llama,
    to_halves,
    to_pairs,
)
from minillm.files.gguf_files import read_gguf
from minillm.files.llama_files import read_config
from minillm.files.opening import open_model
from minillm.model import TransformerLM

__all__ = [
    "load_gguf",
    "load_llama",
    "open_model",
    "read_config",
    "save_llama",
    "to_halves",
    "to_pairs",
]


def load_gguf(file: str | PathLike[str]) -> tuple[TransformerLM, BPETokenizer]:
    r"""Read a model and its tokenizer from a GGUF file.

    [`minillm.files.gguf_files`][] tells what such a file holds.

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
