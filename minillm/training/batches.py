r"""Batches: pieces of the text, drawn at random.

**The question.** A text has a million tokens, and a step can read a thousand. Which?

Not the next thousand: neighbours resemble each other, so a step would learn about one
page and forget the one before. A batch takes a few pieces from anywhere in the text;
their gradients together point roughly where that of the whole text would.

The text may be far larger than the memory. `numpy.load(path, mmap_mode="r")` opens a
file of ids as an array without reading it; the system fetches the pages that are
touched, and only those.

**Before this:** [`minillm.data`][]. **Next:** [`minillm.train`][].
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from minillm.training.loss import Tokens

__all__ = ["check_ids", "cut_pieces", "draw_starts", "get_batch"]


def draw_starts(
    n_tokens: int,
    batch_size: int,
    context_length: int,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " batch"]:
    r"""Draw where the pieces of a batch begin.

    Args:
        n_tokens: how long the text is.
        batch_size: $B$, how many pieces.
        context_length: $T$, how long each.
        generator: where the chance comes from; `None` for PyTorch's own.

    Returns:
        The place of the first token of each piece, all places equally likely.

    Raises:
        ValueError: if the text is not longer than one piece.

    Examples:
        A text of six tokens has one piece of five with a token behind it:

        >>> draw_starts(6, batch_size=3, context_length=5).tolist()
        [0, 0, 0]
    """
    if n_tokens <= context_length:
        raise ValueError(
            f"a piece takes context_length + 1 = {context_length + 1} tokens; the text "
            f"has {n_tokens}: bring more text or choose a shorter context"
        )
    # The last start that leaves room for the last target is len - T - 1.
    return torch.randint(n_tokens - context_length, (batch_size,), generator=generator)


def cut_pieces(
    tokens: Tokens,
    starts: Int[Tensor, " batch"],
    context_length: int,
    device: str | torch.device = "cpu",
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    r"""Cut pieces out of the text, each with its continuation.

    Args:
        tokens: the text as one row of ids.
        starts: where each piece begins.
        context_length: $T$, how long each.
        device: where the result should be.

    Returns:
        Inputs and targets, both int64.

    Examples:
        >>> tokens = np.arange(10, 20)
        >>> inputs, targets = cut_pieces(tokens, torch.tensor([0, 4]), 3)
        >>> inputs.tolist(), targets.tolist()
        ([[10, 11, 12], [14, 15, 16]], [[11, 12, 13], [15, 16, 17]])
    """
    pieces = np.stack([tokens[s : s + context_length + 1] for s in starts.tolist()])
    batch = torch.from_numpy(pieces.astype(np.int64)).to(device)  # (B, T + 1)
    # Each in memory of its own, so that `view` can flatten it.
    return batch[:, :-1].contiguous(), batch[:, 1:].contiguous()


def get_batch(
    tokens: Tokens,
    batch_size: int,
    context_length: int,
    device: str | torch.device = "cpu",
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    r"""Cut some pieces out of the text, at random, each with its continuation.

    One piece of $T + 1$ tokens gives $T$ lessons at once: at each of its positions,
    what comes next. So the targets are the inputs, one step later.

    Args:
        tokens: the text as one row of ids. A memory-mapped file will do: only the
            pieces are read.
        batch_size: $B$, how many pieces.
        context_length: $T$, how long each.
        device: where the result should be.
        generator: where the chance comes from; `None` for PyTorch's own.

    Returns:
        Inputs and targets, both int64.

    Raises:
        ValueError: if the text is not longer than one piece.

    Examples:
        >>> tokens = np.arange(100, dtype=np.uint16)
        >>> inputs, targets = get_batch(tokens, batch_size=2, context_length=5)
        >>> inputs.shape, torch.equal(targets, inputs + 1)
        (torch.Size([2, 5]), True)
    """
    starts = draw_starts(len(tokens), batch_size, context_length, generator)
    return cut_pieces(tokens, starts, context_length, device)


def check_ids(tokens: Tokens, vocab_size: int) -> None:
    """Refuse a text that the model has no embeddings for.

    Args:
        tokens: the text as one row of ids.
        vocab_size: how many ids the model knows.

    Raises:
        ValueError: if something in it is no integer, negative, or too large.

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
    extremes = (tokens.min(), tokens.max()) if len(tokens) else ()
    for id_ in extremes:
        if not 0 <= id_ < vocab_size:
            raise ValueError(
                f"the model knows the ids 0 to {vocab_size - 1}; the text has {id_}: "
                "tokenize it with the model's own tokenizer"
            )
