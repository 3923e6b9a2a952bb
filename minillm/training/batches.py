r"""Batches: sequences sampled from anywhere in the text.

**The question.** A text has a million tokens, and a step can read a thousand. Which?

Not the next thousand: neighbours resemble each other, so each step would learn about
one page and forget the one before. A batch takes a few sequences from anywhere in the
text; their mean gradient points roughly where that of the whole text would.

Every start is equally likely in every step, so chance decides how often a token is
read. An *epoch* is one pass over the text on average: as many steps as it takes to read
as many tokens as the text has.

The text may be far larger than the memory. `numpy.load(path, mmap_mode="r")` maps a
file of ids into memory without reading it; the system reads the pages that are touched,
and only those.

**Before this:** [`minillm.train`][]. **Next:** [`minillm.training.curves`][].
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Tokens", "check_ids", "cut_sequences", "get_batch", "sample_starts"]

Tokens = NDArray[Any]
"""A sequence of token ids, in memory or memory-mapped from a file."""


def sample_starts(
    n_tokens: int,
    batch_size: int,
    context_length: int,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " batch"]:
    r"""Sample where the sequences of a batch begin.

    Args:
        n_tokens: how long the text is.
        batch_size: $B$, how many sequences.
        context_length: $T$, how long each.
        generator: the random number generator; `None` for PyTorch's global one, which
            `torch.manual_seed` seeds.

    Returns:
        The position of the first token of each sequence, all equally likely.

    Raises:
        ValueError: if the text is not longer than one sequence.

    Examples:
        A text of six tokens has one sequence of five with a token behind it:

        >>> sample_starts(6, batch_size=3, context_length=5).tolist()
        [0, 0, 0]
    """
    if n_tokens <= context_length:
        raise ValueError(
            f"a sequence takes context_length + 1 = {context_length + 1} tokens; the "
            f"text has {n_tokens}: bring more text or choose a shorter context"
        )
    # The last start that leaves room for the last target is len - T - 1.
    return torch.randint(n_tokens - context_length, (batch_size,), generator=generator)


def cut_sequences(
    tokens: Tokens,
    starts: Int[Tensor, " batch"],
    context_length: int,
    device: str | torch.device = "cpu",
    vocab_size: int | None = None,
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    r"""Cut sequences out of the text, each with its targets.

    Args:
        tokens: the text as one sequence of ids.
        starts: where each sequence begins.
        context_length: $T$, how long each.
        device: where the result should be.
        vocab_size: $V$; ids beyond it are refused. `None` to skip the check.

    Returns:
        Inputs and targets, both int64.

    Raises:
        ValueError: if an id that was cut out is negative or not below `vocab_size`.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> tokens = np.arange(10, 20)
        >>> inputs, targets = cut_sequences(tokens, torch.tensor([0, 4]), 3)
        >>> inputs.tolist(), targets.tolist()
        ([[10, 11, 12], [14, 15, 16]], [[11, 12, 13], [15, 16, 17]])
    """
    rows = np.stack([tokens[s : s + context_length + 1] for s in starts.tolist()])
    if vocab_size is not None:
        check_ids(np.asarray(rows), vocab_size)
    batch = torch.from_numpy(rows.astype(np.int64)).to(device)  # (B, T + 1)
    # Each in memory of its own, so that `view` can flatten it.
    return batch[:, :-1].contiguous(), batch[:, 1:].contiguous()


def get_batch(
    tokens: Tokens,
    batch_size: int,
    context_length: int,
    device: str | torch.device = "cpu",
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    r"""Sample sequences from the text, each with its targets.

    $T + 1$ tokens make $T$ predictions to learn from at once: at each position, the
    next token. So the targets are the inputs, shifted by one.

    Args:
        tokens: the text as one sequence of ids. Of a memory-mapped file, only the
            sequences are read.
        batch_size: $B$, how many sequences.
        context_length: $T$, how long each.
        device: where the result should be.
        generator: the random number generator; `None` for PyTorch's global one, which
            `torch.manual_seed` seeds.

    Returns:
        Inputs and targets, both int64.

    Raises:
        ValueError: if the text is not longer than one sequence.

    Examples:
        >>> tokens = np.arange(100, dtype=np.uint16)
        >>> inputs, targets = get_batch(tokens, batch_size=2, context_length=5)
        >>> inputs.shape, torch.equal(targets, inputs + 1)
        (torch.Size([2, 5]), True)
    """
    starts = sample_starts(len(tokens), batch_size, context_length, generator)
    return cut_sequences(tokens, starts, context_length, device)


# Of a text that is not in memory, this much is looked at before a training begins.
BEGINNING = 4096


def check_ids(tokens: Tokens, vocab_size: int) -> None:
    """Refuse a text with ids that the model has no embeddings for.

    Of a memory-mapped text only the type and the beginning are checked here: looking at
    every id would read the whole file.
    [`cut_sequences`][minillm.training.batches.cut_sequences] can check what it reads.

    Args:
        tokens: the text as ids.
        vocab_size: how many ids the model knows.

    Raises:
        ValueError: if the ids are not integers, or one is negative or too large.

    Examples:
        >>> check_ids(np.array([3, 9]), vocab_size=9)
        Traceback (most recent call last):
        ValueError: the model knows the ids 0 to 8; the text has 9: tokenize it with \
the model's own tokenizer
    """
    if not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(
            f"token ids are integers; the text has numbers of type {tokens.dtype}: "
            "tokenize it again"
        )
    if isinstance(tokens, np.memmap):
        tokens = tokens[:BEGINNING]
    if not tokens.size:
        return
    for id_ in (tokens.min(), tokens.max()):
        if not 0 <= id_ < vocab_size:
            raise ValueError(
                f"the model knows the ids 0 to {vocab_size - 1}; the text has {id_}: "
                "tokenize it with the model's own tokenizer"
            )
