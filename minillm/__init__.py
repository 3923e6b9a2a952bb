r"""minillm: the course that runs.

Read the chapters in this order; each is a module, and each runs:

0. [`minillm.config`][]: the numbers that fix a model's shape
1. [`minillm.bpe`][]: text to integers, and back
2. [`minillm.attention`][]: how one position learns from the positions before it, and
   [`minillm.rope`][], how it knows where they stand
3. [`minillm.model`][]: the Transformer, attention stacked into a language model
4. [`minillm.train`][]: learning, from the loss to the loop
5. [`minillm.generate`][]: sampling, from probabilities back to text
6. [`minillm.flops`][]: accounting: where the FLOPs, the bytes and the hours go
9. [`minillm.curation`][]: where the text comes from, and what cleaning it is worth
7. [`minillm.emergence`][]: more is different: what small models cannot tell

Around them stand [`minillm.data`][] (the corpus), [`minillm.training.baselines`][]
(what a model has to beat), [`minillm.hub`][] (folders that other programs read), the
command line and [`minillm.exercises`][], which grade themselves.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from minillm.bpe import BPETokenizer
    from minillm.model import TransformerLM

__all__ = ["load"]
__version__ = "2.0.0"


def load(folder: "str | PathLike[str]") -> "tuple[TransformerLM, BPETokenizer]":
    r"""Load a model and its tokenizer, ready to generate.

    Args:
        folder: a run of this package, any Llama folder in the layout of Hugging Face
            (`config.json`, `model.safetensors`, `tokenizer.json`), a GGUF file, or a
            name on the hub; see [`minillm.formats.opening`][].

    Returns:
        The model, in evaluation mode, and its tokenizer.

    Raises:
        FileNotFoundError: if the folder or one of its files is missing.
        ValueError: if a file is not what it should be.

    Examples:
        >>> import tempfile
        >>> from minillm.bpe import BPETokenizer
        >>> from minillm.config import ModelConfig
        >>> from minillm.hub import save_llama
        >>> from minillm.model import TransformerLM
        >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 260)
        >>> config = ModelConfig(260, 16, 8, 1, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_llama(TransformerLM(config), folder, tokenizer)
        ...     model, again = load(folder)
        >>> model.config == config, again.merges == tokenizer.merges
        (True, True)
    """
    # Imported here, so that `import minillm` costs nothing.
    from minillm.formats.opening import open_model

    return open_model(folder)[:2]
