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

**Before this:** [`minillm.posttraining`][]. **See also:**
[`minillm.training.tuning`][], to tune a model of yours; [`minillm.files.adapters`][],
how the products are kept in a file.
"""

import math
from collections.abc import Collection, Generator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minillm.model import Linear, TransformerLM
from minillm.tokenizer.streams import check_lists

__all__ = [
    "LoRA",
    "add_lora",
    "lora_layers",
    "lora_weights",
    "merge_lora",
    "without_lora",
]


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
    check_lists(where=where)
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


def lora_layers(model: nn.Module) -> dict[str, LoRA]:
    """List the thin products of a model.

    Args:
        model: the model.

    Returns:
        Each by the name of its matrix, such as `blocks.0.attn.q_proj`.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(100, 16, 64, 1, 4))
        >>> _ = add_lora(model, rank=2)
        >>> list(lora_layers(model))
        ['blocks.0.attn.q_proj', 'blocks.0.attn.v_proj']
    """
    return {name: p for name, p in model.named_modules() if isinstance(p, LoRA)}


def lora_weights(model: nn.Module) -> nn.ParameterDict:
    """Collect what learns in a model with thin products, and nothing else.

    Args:
        model: the model.

    Returns:
        A module that holds the very same parameters, so that a checkpoint of it is
        small.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(100, 16, 64, 1, 4))
        >>> _ = add_lora(model, rank=2, where=["w1"])
        >>> [(name, tuple(w.shape)) for name, w in lora_weights(model).items()]
        [('blocks/0/ffn/w1/a', (2, 64)), ('blocks/0/ffn/w1/b', (192, 2))]
    """
    # In a module, no name of a parameter may have a dot.
    return nn.ParameterDict({
        f"{name}.{part}".replace(".", "/"): weight
        for name, layer in lora_layers(model).items()
        for part, weight in (("a", layer.a), ("b", layer.b))
    })


@contextmanager
def without_lora(model: TransformerLM) -> Generator[TransformerLM, None, None]:
    """Let a model be as it was before its thin products, for as long as the block runs.

    Args:
        model: the model.

    Yields:
        The same model.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model, ids = TransformerLM(ModelConfig(100, 16, 64, 1, 4)), torch.ones(1, 3)
        >>> before = model(ids.long())
        >>> for weight in add_lora(model, rank=2):
        ...     _ = nn.init.normal_(weight)
        >>> with without_lora(model):
        ...     torch.equal(model(ids.long()), before)
        True
        >>> torch.equal(model(ids.long()), before)
        False
    """
    layers = list(lora_layers(model).values())
    scales = [layer.scale for layer in layers]
    try:
        for layer in layers:
            layer.scale = 0.0
        yield model
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scale = scale


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
