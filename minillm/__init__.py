r"""minillm: the course that runs.

Read the chapters in this order; each is a module, and each runs:

1. [`minillm.bpe`][]: text to integers, and back
2. [`minillm.attention`][]: how one position learns from the positions before it, and
   [`minillm.rope`][], how it knows their distance
3. [`minillm.model`][]: the Transformer, attention stacked into a language model, and
   [`minillm.config`][], the numbers that fix its shape
4. [`minillm.gradients`][]: backpropagation, by hand
5. [`minillm.train`][]: learning, from the loss to the loop
6. [`minillm.generate`][]: sampling, from probabilities back to text
7. [`minillm.flops`][]: accounting: where the FLOPs, the bytes and the hours go
8. [`minillm.systems`][]: one step on the clock: memory, machines, messages
9. [`minillm.curation`][]: where the text comes from, and what cleaning it is worth
10. [`minillm.emergence`][]: more is different: what small models cannot tell
11. [`minillm.posttraining`][]: from completing to answering
12. [`minillm.evaluation`][]: how good is it, and how sure are we

Around them stand [`minillm.data`][] (the corpus), [`minillm.hub`][] (folders that other
programs read), the command line, the exercises, which grade themselves, and one package
of depth behind each chapter. The course begins on the page *What a language model is*,
`docs/language-model.md`.
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
            name on the hub; see [`minillm.files.opening`][].

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
    from minillm.files.opening import open_model

    return open_model(folder)[:2]
