r"""LoRA: fine-tune a thin layer, and leave the rest alone.

**The question.** To fine-tune a model, every weight gets a gradient and two means of
AdamW: four numbers for each ([`minillm.accounting.memory`][]). A model that just fits
into memory can then be used, and not tuned. And for ten tasks there would be ten whole
models to keep. Do all weights have to move?

Hu et al. (2021, arXiv:2106.09685) let a matrix $W$ of $d_{out} \times d_{in}$ stay as
it is, and learn what is added to it as a product of two thin ones:

$$W + \frac{\alpha}{r}\, B A, \qquad A: r \times d_{in}, \quad B: d_{out} \times r.$$

$A$ starts at random and $B$ at zero, so training begins at the model as it was:

>>> from minillm.config import ModelConfig
>>> _ = torch.manual_seed(0)
>>> model = TransformerLM(ModelConfig(100, 16, d_model=64, n_layers=2, n_heads=4))
>>> ids = torch.tensor([[7, 3, 9]])
>>> before, weights = model(ids), sum(p.numel() for p in model.parameters())
>>> learned = add_lora(model, rank=4)
>>> torch.equal(model(ids), before)
True

**How many weights?** Each matrix has $r (d_{in} + d_{out})$ instead of
$d_{in} d_{out}$. By default the matrices of queries and values are changed, as in the
paper:

>>> sum(p.numel() for p in learned), 2 * 2 * 4 * (64 + 64), weights
(2048, 2048, 119616)

**Which rank?** With rank $r$, the best that can be added to $W$ is the best
approximation of rank $r$ to the change that is wanted. Its error is known: the singular
values beyond the $r$-th (Eckart and Young 1936). What a layer with a change of rank 4
learns when only rank 2 is allowed, by gradient descent, and by that theorem:

>>> change = torch.randn(16, 4) @ torch.randn(4, 16) / 16
>>> base = Linear(16, 16)
>>> layer = LoRA(base, rank=2, alpha=2.0)
>>> optimizer = torch.optim.Adam([layer.a, layer.b], lr=0.02)
>>> for _ in range(600):
...     loss = (layer(torch.eye(16)).T - base.weight - change).square().sum()
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
>>> best = torch.linalg.svdvals(change)[2:].square().sum()
>>> abs(loss.item() - best.item()) < 1e-3
True

**Afterwards** the product is added to $W$ once and for all
([`merge_lora`][minillm.training.lora.merge_lora]), and the model is as fast as before.
Or it is kept apart: a file of a few thousand numbers for each task.

# What we leave out

Whether LoRA learns as much as full fine-tuning depends on the data: with much of it,
and a rank that is too small, it does not (Biderman et al. 2024, arXiv:2405.09673).
Adapters in the form of the package `peft` are neither read nor written here.

**Before this:** [`minillm.posttraining`][].
"""

import math
from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minillm.model import Linear, TransformerLM

__all__ = ["LoRA", "add_lora", "merge_lora"]


class LoRA(nn.Module):
    r"""A matrix that stays, and a thin product beside it that learns.

    Args:
        linear: the matrix $W$; it gets no gradient any more.
        rank: $r$, at least 1.
        alpha: $\alpha$; the product is multiplied by $\alpha / r$.

    Attributes:
        linear: the same matrix.
        a: $A$, of the shape (rank, d_in).
        b: $B$, of the shape (d_out, rank); zero at the start.

    Raises:
        ValueError: if the rank is less than 1, or no saving.

    Examples:
        >>> layer = LoRA(Linear(8, 6), rank=2, alpha=2.0)
        >>> layer.a.shape, layer.b.shape, layer.linear.weight.requires_grad
        (torch.Size([2, 8]), torch.Size([6, 2]), False)
        >>> LoRA(Linear(8, 6), rank=4, alpha=4.0)
        Traceback (most recent call last):
        ValueError: rank 4 needs 56 weights for a matrix of 48: train the matrix itself
    """

    def __init__(self, linear: Linear, rank: int, alpha: float) -> None:
        super().__init__()
        d_out, d_in = linear.weight.shape
        _check_rank(linear, rank)
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        new = linear.weight.detach().new_zeros  # of the same type, on the same device
        self.a = nn.Parameter(new(rank, d_in).normal_(std=1 / math.sqrt(d_in)))
        self.b = nn.Parameter(new(d_out, rank))

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Multiply by the sum of both, without ever making it."""
        # $x W^\top + \frac{\alpha}{r} (x A^\top) B^\top$: two thin products.
        return self.linear(x) + self.scale * (x @ self.a.T @ self.b.T)


def _check_rank(linear: Linear, rank: int) -> None:
    d_out, d_in = linear.weight.shape
    if rank < 1:
        raise ValueError(f"the rank must be at least 1; got {rank}")
    if rank * (d_out + d_in) >= d_out * d_in:
        raise ValueError(
            f"rank {rank} needs {rank * (d_out + d_in)} weights for a matrix of "
            f"{d_out * d_in}: train the matrix itself"
        )


def add_lora(
    model: TransformerLM,
    rank: int,
    alpha: float | None = None,
    where: Collection[str] = ("q_proj", "v_proj"),
) -> list[nn.Parameter]:
    r"""Freeze a model, and put thin products beside some of its matrices.

    Args:
        model: changed in place.
        rank: $r$.
        alpha: $\alpha$; `None` takes `rank`, so that the product is not scaled.
        where: names of matrices in each block: of `q_proj`, `k_proj`, `v_proj`,
            `o_proj`, `w1`, `w2` and `w3`.

    Returns:
        The parameters that learn, for the optimizer.

    Raises:
        ValueError: if a name is unknown, or the model has such products already.

    Examples:
        See the beginning of this page.
    """
    if any(isinstance(part, LoRA) for part in model.modules()):
        raise ValueError("the model has LoRA layers already: merge_lora first")
    found = [
        (part, name, child)
        for part in model.blocks.modules()
        for name, child in part.named_children()
        if isinstance(child, Linear)
    ]
    unknown = set(where).difference(name for _, name, _ in found)
    if unknown or not where:
        raise ValueError(
            f"no matrix {', '.join(sorted(unknown)) or 'is named'}: there are q_proj, "
            "k_proj, v_proj, o_proj, w1, w2 and w3"
        )
    alpha = rank if alpha is None else alpha
    chosen = [place for place in found if place[1] in where]
    for *_, child in chosen:  # all of them, before the first is frozen
        _check_rank(child, rank)
    layers = [(part, name, LoRA(child, rank, alpha)) for part, name, child in chosen]
    model.requires_grad_(False)
    for part, name, layer in layers:
        setattr(part, name, layer)
    return [weight for *_, layer in layers for weight in (layer.a, layer.b)]


@torch.no_grad()
def merge_lora(model: TransformerLM) -> None:
    r"""Add each product to its matrix, and take it away.

    Args:
        model: changed in place; all of its weights can learn again.

    Raises:
        ValueError: if there is nothing to merge.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(100, 16, 64, 2, 4)).double()
        >>> for weight in add_lora(model, rank=2, where=["w1", "o_proj"]):
        ...     _ = nn.init.normal_(weight)
        >>> ids = torch.tensor([[7, 3, 9]])
        >>> before = model(ids)
        >>> merge_lora(model)
        >>> model(ids).allclose(before), type(model.blocks[0].ffn.w1).__name__
        (True, 'Linear')
    """
    found = False
    for part in list(model.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, LoRA):
                found = True
                child.linear.weight.add_(child.scale * (child.b @ child.a))
                setattr(part, name, child.linear)
    if not found:
        raise ValueError("the model has no LoRA layers: add_lora makes them")
    model.requires_grad_(True)
