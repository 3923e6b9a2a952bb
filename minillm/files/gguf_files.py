r"""A model in one file: GGUF, the format of llama.cpp.

**The question.** The folder of [`minillm.hub`][] has three files and spends two or four
bytes on a weight. A model for a laptop should be one file, and small. What gives?

**One file.** GGUF begins with a table of names and values. It says what `config.json`
says (`llama.block_count` and so on) and what `tokenizer.json` says
(`tokenizer.ggml.tokens`, `tokenizer.ggml.merges`). Then come the weights.

**Small.** The weights are *quantized*: rounded to a few levels. In the kind called
Q4_1, 32 neighbours of a row share their smallest number $m$ and a step $s$, of 16 bits
each, and each of the 32 is stored as one of 16 levels $q$, in 4 bits:
$w \approx m + s\,q$. By hand, on 32 numbers:

>>> import numpy as np
>>> w = np.random.default_rng(0).normal(size=32)
>>> m, s = w.min(), (w.max() - w.min()) / 15
>>> q = np.round((w - m) / s).astype(int)
>>> q[:5].tolist(), q.min().item(), q.max().item()
([10, 9, 12, 10, 7], 0, 15)
>>> bool((np.abs(m + s * q - w) <= s / 2 * 1.0001).all())
True

No weight is off by more than half a step, and instead of 32 bits it takes

>>> (16 + 16 + 32 * 4) / 32
5.0

What that costs in quality is measured in [`minillm.inference.quantized`][]. There are
some thirty such kinds. [`minillm.files.gguf_blocks`][] unpacks five of them by hand,
and the package `gguf`, by the makers of the format, all others. From there on the
weights are ordinary numbers; or, in [`minillm.files.eight_bit_files`][], rounded once
more, to eight bits by row, and never all unpacked at once.

**Which rotation?** [`minillm.hub`][] explains the two conventions, neighbours and
halves. llama.cpp turns neighbours, as we do, and its converter puts the rows of queries
and keys into that order. So there is nothing to do here; a program of the other
convention has to undo it.

**As llama.cpp reads it.** Some facts are not in the table and follow from others. With
Llama 3's pre-tokenizer, every text begins with the token that the table calls `bos`,
unless it says otherwise; a factor for the rotary positions without a kind is a linear
one; and a turn ends at any token with a well-known name, such as `<|eot_id|>`.
"""

from collections.abc import Callable, Collection
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm.bpe import BPETokenizer
from minillm.config import LinearScaling, ModelConfig
from minillm.files.gguf_blocks import BLOCKS, unpack
from minillm.inference.chat import MARKS, TURN_ENDS
from minillm.inference.templates import ChatTemplate
from minillm.tokenizer.parts import to_bytes
from minillm.tokenizer.patterns import DIGITS_PATTERN, GPT2_PATTERN, LLAMA3_PATTERN

if TYPE_CHECKING:
    import gguf

__all__ = ["Contents", "read_gguf"]

# Their names and ours, for what every model has once …
TOP_NAMES = {
    "token_embd.weight": "token_embedding.weight",
    "output_norm.weight": "final_norm.weight",
    "output.weight": "lm_head.weight",
}
# … and for what is in every block, behind `blk.{i}.` and `blocks.{i}.`.
BLOCK_NAMES = {
    "attn_norm.weight": "attn_norm.weight",
    "attn_q.weight": "attn.q_proj.weight",
    "attn_k.weight": "attn.k_proj.weight",
    "attn_v.weight": "attn.v_proj.weight",
    "attn_output.weight": "attn.o_proj.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "ffn_gate.weight": "ffn.w1.weight",
    "ffn_down.weight": "ffn.w2.weight",
    "ffn_up.weight": "ffn.w3.weight",
}
# llama.cpp knows the pre-tokenizers by the names of models.
PATTERNS = {
    "gpt-2": GPT2_PATTERN,
    "smollm": DIGITS_PATTERN,
    "llama-bpe": LLAMA3_PATTERN,
    "llama3": LLAMA3_PATTERN,
    "llama-v3": LLAMA3_PATTERN,
}
# Kinds of tokens. Of a control token and of one defined by a user the text is meant as
# it stands; an unused one stands for nothing.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
# Some files call the marks of a chat defined by a user; no text may forge them.
ROLES = {*MARKS, *TURN_ENDS}


class Contents(NamedTuple):
    r"""What is in a file: the shape, the weights by our names, and how to write text.

    The tokenizer knows which ids begin a text and which end one; the last is how a
    conversation is written, if the file says it.
    """

    config: ModelConfig
    tensors: dict[str, Tensor]
    tokenizer: BPETokenizer
    chat_template: ChatTemplate | None


def read_gguf(file: str | PathLike[str]) -> Contents:
    r"""Read a Llama model from a GGUF file.

    Args:
        file: the file.

    Returns:
        What is in it, unpacked to 32 bits a weight.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if the package `gguf` is missing.
        ValueError: if the file is damaged, or the model is of a kind that
            [`TransformerLM`][minillm.model.TransformerLM] cannot be.

    Examples:
        >>> read_gguf("no-such.gguf")
        Traceback (most recent call last):
        FileNotFoundError: there is no file no-such.gguf: `make smollm2` fetches one
    """
    return Contents(*read_parts(file, lambda _, weights: weights))


Kept = TypeVar("Kept")


def read_parts(
    file: str | PathLike[str], keep: Callable[[str, Tensor], Kept]
) -> tuple[ModelConfig, dict[str, Kept], BPETokenizer, ChatTemplate | None]:
    r"""Read a file as [`read_gguf`][minillm.files.gguf_files.read_gguf] does.

    Args:
        file: the file.
        keep: what is kept of each matrix or vector: it is given our name and the
            weights in 32 bits, one after the other.

    Returns:
        The shape, what was kept by our names, the tokenizer, and the template.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if the package `gguf` is missing.
        ValueError: if the file is damaged, or of a kind that cannot be read.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: `make smollm2` fetches one")
    try:
        import gguf
    except ImportError:
        raise ImportError(
            "reading GGUF needs the package gguf: pip install gguf"
        ) from None
    try:
        _check_lengths(path)
        reader = gguf.GGUFReader(path)
        table = _Table(reader.fields)
        config = _read_config(table, {tensor.name for tensor in reader.tensors})
        tokenizer = _read_tokenizer(table)
        template = _read_template(table)
        packed = [(_our_name(t.name), t.data, t.tensor_type) for t in reader.tensors]
        # The library makes some small arrays of each token, 200 MB in all.
        del reader, table
        tensors = {
            name: keep(name, _weights(data, kind)) for name, data, kind in packed
        }
    except DAMAGED as error:
        message = f"{path} cannot be read as a model: {error!s:.300}"
        raise ValueError(message) from error
    return config, tensors, tokenizer, template


def _weights(data: NDArray[Any], kind: "gguf.GGMLQuantizationType") -> Tensor:
    if kind.name in BLOCKS and data.ndim == 2:
        return torch.from_numpy(unpack(data, kind.name))
    import gguf

    # Plain numbers are a part of the mapped file, which nobody may change: a copy.
    return torch.tensor(gguf.dequantize(data, kind))


# What the library and our own reading stumble over in a damaged table.
DAMAGED = (
    ValueError,
    IndexError,
    OverflowError,
    NotImplementedError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
)
# The sizes of numbers in the table, by the number of their kind.
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
TEXT, ROW = 8, 9
LONGEST_ROW = 1 << 20  # the largest vocabularies have a quarter of that


def _check_lengths(path: Path) -> None:
    """Refuse a table that promises more than the file holds.

    The library believes each length, and would make a list of $2^{60}$ entries out of a
    file of fifty bytes.

    Raises:
        ValueError: if it does.
    """
    with path.open("rb") as file:
        size = path.stat().st_size

        def number(n_bytes: int) -> int:
            data = file.read(n_bytes)
            if len(data) < n_bytes:
                raise ValueError("it ends in the middle of its table")
            return int.from_bytes(data, "little")

        def skip(n_bytes: int) -> None:
            if n_bytes > size - file.tell():
                raise ValueError(f"it promises {n_bytes} bytes, and ends before")
            file.seek(n_bytes, 1)

        if file.read(4) != b"GGUF" or number(4) not in (2, 3):
            raise ValueError("it is no GGUF file of version 2 or 3")
        number(8)
        for _ in range(number(8)):
            skip(number(8))  # the name
            kind, n = number(4), 1
            if kind == ROW:
                kind, n = number(4), number(8)
            if n > LONGEST_ROW or kind not in (*SIZES, TEXT):
                raise ValueError(f"it has a row of {n} values of kind {kind}")
            if kind != TEXT:
                skip(n * SIZES[kind])
                continue
            for _ in range(n):
                skip(number(8))


class _Table:
    """The names and values at the beginning of a file."""

    def __init__(self, fields: "dict[str, gguf.ReaderField]") -> None:
        self.fields = fields

    def __getitem__(self, name: str) -> Any:
        if name not in self.fields:
            raise ValueError(f"it does not say {name}")
        return self.fields[name].contents()

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self.fields else default

    def expect(self, name: str, supported: Any, default: Any = None) -> None:
        """Refuse by its name what cannot be represented here."""
        found = self.get(name, default)
        if found != supported:
            raise ValueError(
                f"{name} is {found!r}; only {supported!r} can be read here"
            )


def _read_config(table: _Table, names: set[str]) -> ModelConfig:
    table.expect("general.architecture", "llama")
    if "rope_freqs.weight" in names:
        raise ValueError(
            "rope_freqs.weight, a stretched rotation, cannot be read here; the same "
            "model as a folder of config.json and safetensors can"
        )
    heads = table["llama.attention.head_count"]
    config = ModelConfig(
        vocab_size=len(table["tokenizer.ggml.tokens"]),
        context_length=table["llama.context_length"],
        d_model=table["llama.embedding_length"],
        n_layers=table["llama.block_count"],
        n_heads=heads,
        n_kv_heads=table.get("llama.attention.head_count_kv", heads),
        d_ff=table["llama.feed_forward_length"],
        rope_theta=table.get("llama.rope.freq_base", 10000.0),
        # Stored in 32 bits: 1e-5 comes back as 9.999999747378752e-06.
        norm_eps=float(f"{table['llama.attention.layer_norm_rms_epsilon']:.7g}"),
        tie_embeddings="output.weight" not in names,
        rope_scaling=_read_scaling(table),
    )
    for name in ("rope.dimension_count", "attention.key_length"):
        table.expect(f"llama.{name}", config.d_head, config.d_head)
    return config


def _read_scaling(table: _Table) -> LinearScaling | None:
    """The stretching of positions; as in llama.cpp, a factor alone is linear."""
    kind = table.get("llama.rope.scaling.type", "linear")
    if kind not in {"linear", "none"}:
        raise ValueError(
            f"llama.rope.scaling.type is {kind!r}; only 'linear' or 'none' can be read "
            "here"
        )
    # The second is an older name of the first.
    older = table.get("llama.rope.scale_linear", 0.0)
    factor = table.get("llama.rope.scaling.factor", older)
    return None if kind == "none" or factor in {0.0, 1.0} else LinearScaling(factor)


def _read_tokenizer(table: _Table) -> BPETokenizer:
    table.expect("tokenizer.ggml.model", "gpt2")
    kind = table["tokenizer.ggml.pre"]
    if kind not in PATTERNS:
        raise ValueError(
            f"tokenizer.ggml.pre is {kind!r}; only {list(PATTERNS)} can be read here"
        )
    tokens = table["tokenizer.ggml.tokens"]
    kinds = table.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    if len(kinds) != len(tokens):
        raise ValueError(
            f"tokenizer.ggml.token_type has {len(kinds)} entries for {len(tokens)} "
            "tokens: fetch the file again"
        )
    vocab, special_tokens, added_tokens = {}, {}, {}
    for id_, (token, kind_) in enumerate(zip(tokens, kinds, strict=True)):
        if kind_ == CONTROL or (kind_ == USER_DEFINED and token in ROLES):
            special_tokens[token] = id_
        elif kind_ == USER_DEFINED:
            added_tokens[token] = id_
        elif kind_ != UNUSED:
            vocab[id_] = to_bytes(token)
    # An unused token is never written, so it cannot end anything.
    written = {*vocab, *special_tokens.values(), *added_tokens.values()}
    merges = []
    for merge in table["tokenizer.ggml.merges"]:
        pair = merge.split(" ")
        if len(pair) != 2:
            raise ValueError(f"the merge {merge!r} is not a pair of tokens")
        merges.append((to_bytes(pair[0]), to_bytes(pair[1])))
    return BPETokenizer(
        vocab,
        merges,
        special_tokens,
        added_tokens=added_tokens,
        pattern=PATTERNS[kind],
        # Llama 3 takes a word that is a token whole, whatever the merges say.
        ignore_merges=PATTERNS[kind] == LLAMA3_PATTERN,
        begin_ids=_read_begin_ids(table, PATTERNS[kind] == LLAMA3_PATTERN),
        stop_ids=_read_stop_ids(table, tokens, written),
    )


def _read_begin_ids(table: _Table, usual: bool) -> list[int]:
    """What begins a text; where the file does not say whether, Llama 3 has it."""
    begin = _read_id(table, "bos")
    begins = table.get("tokenizer.ggml.add_bos_token", usual)
    return [begin] if begins and begin is not None else []


def _read_stop_ids(
    table: _Table, tokens: list[str], written: Collection[int]
) -> list[int]:
    """What ends a text, a turn, or a message; some files say it by the text alone."""
    named = [_read_id(table, name) for name in ("eos", "eot", "eom")]
    known = [id_ for id_, token in enumerate(tokens) if token in TURN_ENDS]
    ends = {id_ for id_ in (*named, *known) if id_ is not None}
    return sorted(ends.intersection(written))


def _read_id(table: _Table, name: str) -> int | None:
    """The id of a special token. Some files write 4294967295 where there is none."""
    id_ = table.get(f"tokenizer.ggml.{name}_token_id")
    there = type(id_) is int and 0 <= id_ < len(table["tokenizer.ggml.tokens"])
    return id_ if there else None


def _read_template(table: _Table) -> ChatTemplate | None:
    source = table.get("tokenizer.chat_template")
    if source is None:
        return None
    tokens = table["tokenizer.ggml.tokens"]
    named = {name: _read_id(table, name) for name in ("bos", "eos")}
    texts = {f"{n}_token": tokens[id_] for n, id_ in named.items() if id_ is not None}
    return ChatTemplate(source, texts)


def _our_name(theirs: str) -> str:
    """Our name for a weight; one that has no place here keeps its own."""
    if theirs.startswith("blk."):
        _, i, rest = theirs.split(".", 2)
        return f"blocks.{i}.{BLOCK_NAMES.get(rest, rest)}"
    return TOP_NAMES.get(theirs, theirs)
