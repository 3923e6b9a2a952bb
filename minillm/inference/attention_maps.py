r"""Looking into a model: what each of its heads looks at.

A model never holds the weights of its attention: the fused kernel
([`MultiHeadAttention`][minillm.attention.MultiHeadAttention]) returns what they gather,
and no more. To see them, this module computes them once more, in the open.

**Used by** [`minillm.drawing.attention`][], and by two experiments that look for heads
of a certain kind ([`minillm.labs.context`][], [`minillm.labs.repeats`][]).
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minillm.model import TransformerLM

__all__ = ["attention_maps", "attention_scores"]


@torch.no_grad()
def attention_scores(
    model: TransformerLM, ids: Int[Tensor, "batch seq"]
) -> list[Float[Tensor, "batch heads seq seq"]]:
    r"""Compute the attention scores $q \cdot k / \sqrt{d_h}$, before mask and softmax.

    Args:
        model: the model.
        ids: what it reads.

    Returns:
        For each layer the scores: queries down, keys across.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(3, 8, d_model=16, n_layers=2, n_heads=2))
        >>> scores = attention_scores(model, torch.tensor([[0, 1, 2, 0]]))
        >>> len(scores), scores[0].shape
        (2, torch.Size([1, 2, 4, 4]))
    """
    x, scores = model.token_embedding(ids), []
    block: Any
    for block in model.blocks:
        attn, h = block.attn, block.attn_norm(x)
        q, k = (
            proj(h).unflatten(-1, (-1, attn.d_head)).transpose(1, 2)
            for proj in (attn.q_proj, attn.k_proj)
        )
        if attn.rope is not None:
            q, k = attn.rope(q), attn.rope(k)
        # Several query heads may share one key head.
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        scores.append(q @ k.transpose(-2, -1) / math.sqrt(attn.d_head))
        x = block(x)
    return scores


def attention_maps(
    model: TransformerLM, ids: Int[Tensor, "batch seq"]
) -> list[Float[Tensor, "batch heads seq seq"]]:
    r"""Compute how much each position looks at each other, in every layer and head.

    Args:
        model: the model.
        ids: what it reads.

    Returns:
        For each layer the weights. Row $t$ is where position $t$ looks: it sums to one,
        and is zero after $t$.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(3, 8, d_model=16, n_layers=2, n_heads=2))
        >>> maps = attention_maps(model, torch.tensor([[0, 1, 2, 0]]))
        >>> maps[1].sum(-1).allclose(torch.ones(1, 2, 4)), maps[1][0, 0, 0].tolist()
        (True, [1.0, 0.0, 0.0, 0.0])
    """
    shape = ids.shape[1], ids.shape[1]
    future = torch.ones(shape, dtype=torch.bool, device=ids.device).triu(1)
    return [
        scores.masked_fill(future, -math.inf).softmax(-1)
        for scores in attention_scores(model, ids)
    ]
