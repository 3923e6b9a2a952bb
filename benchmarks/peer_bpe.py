"""The tokenizers that are installed beside ours: tiktoken, tokenizers, rustbpe.

The tables of GPT-2 and cl100k are those that `make fixtures` fetches.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import ROOT
from minillm.bpe import GPT2_PATTERN, GPT4_PATTERN, BPETokenizer

FIXTURES = Path(os.environ.get("MINILLM_FIXTURES") or ROOT / ".cache" / "fixtures")
# Under these names tiktoken looks for its files.
TIKTOKEN_CACHE = {
    "gpt2/vocab.bpe": "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
    "gpt2/encoder.json": "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
    "cl100k_base.tiktoken": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
}
HUGGING_FACE = "tokenizers"
RUSTBPE = "rustbpe"


def table(name: str) -> Path:
    """A file of `make fixtures`."""
    path = FIXTURES / name
    if not path.exists():
        raise FileNotFoundError(f"{name} is missing: `make fixtures` fetches it")
    return path


def ours(name: str) -> BPETokenizer:
    """A tokenizer of this package with a published table."""
    if name == "gpt2":
        files = table("gpt2/encoder.json"), table("gpt2/vocab.bpe")
        return BPETokenizer.from_gpt2_files(*files)
    return BPETokenizer.from_tiktoken_file(table(f"{name}.tiktoken"), GPT4_PATTERN)


def forget(tokenizer: BPETokenizer) -> None:
    """Make a tokenizer of ours as good as fresh, without loading it again."""
    tokenizer._encoder.arrays.forget()
    tokenizer._encoder.known.clear()


def tiktoken(name: str) -> Any:
    """The same of tiktoken, from our files, so that it asks no network."""
    import tiktoken

    with tempfile.TemporaryDirectory() as folder:
        for file, cached in TIKTOKEN_CACHE.items():
            shutil.copy(table(file), Path(folder) / cached)
        os.environ["TIKTOKEN_CACHE_DIR"] = folder
        return tiktoken.get_encoding(name)


def train_hugging_face(texts: Sequence[str], vocab_size: int) -> None:
    """Train as Hugging Face's tokenizers do, with all their threads."""
    import tokenizers

    byte_level = tokenizers.pre_tokenizers.ByteLevel
    hugging = tokenizers.Tokenizer(tokenizers.models.BPE())
    hugging.pre_tokenizer = byte_level(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=byte_level.alphabet(),
        show_progress=False,
    )
    hugging.train_from_iterator(texts, trainer)


def train_rustbpe(texts: Sequence[str], vocab_size: int) -> None:
    """Train as rustbpe does, with all its threads."""
    import rustbpe

    rustbpe.Tokenizer().train_from_iterator(
        iter(texts), vocab_size, pattern=GPT2_PATTERN
    )
