r"""Tensor parallelism: every layer shared out among the ranks.

**The question.** With data parallelism, each process computes every layer. If one layer
is too large or too slow, the layers themselves must be divided among the processes.
Where do you cut, so that few messages are needed?

A feed-forward network is a product, a nonlinearity and a product, $f(xA)B$. Cut $A$
into *columns*: each rank computes some of the hidden numbers, all of each, so it can
apply the nonlinearity alone. Then cut $B$ into *rows*, those that meet these numbers.
Each rank has a sum over its part of the hidden numbers, and one all-reduce adds them:

>>> import torch
>>> from minillm.model import silu
>>> x, a, b = torch.randn(3, 4, 4, generator=torch.manual_seed(0)).double()
>>> columns, rows = a.chunk(2, dim=1), b.chunk(2, dim=0)
>>> partial = [silu(x @ columns[rank]) @ rows[rank] for rank in (0, 1)]
>>> torch.allclose(partial[0] + partial[1], silu(x @ a) @ b)
True

Cut the other way round, and every rank has *part of the sum* for every hidden number.
The nonlinearity of a part is not the part of the nonlinearity, so the sum must be sent
before it, and once more at the end:

>>> rows, across = a.chunk(2, dim=0), x.chunk(2, dim=1)
>>> hidden = [across[rank] @ rows[rank] for rank in (0, 1)]
>>> torch.allclose(silu(hidden[0]) + silu(hidden[1]), silu(hidden[0] + hidden[1]))
False

Attention is cut by heads: queries, keys and values by columns, the output by rows. In
the backward pass the roles are exchanged: what was summed up has its gradient
everywhere, and what was copied needs the sum of the gradients. So a block needs four
all-reduces of the size of its activations in each step, two forward and two backward
(Shoeybi et al. 2019, arXiv:1909.08053, section 3), and the next layer waits for each.

**Before this:** [`minillm.training.sharding`][].
"""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from minillm.model import TransformerLM
from minillm.training.distributed import rank, world_size

__all__ = ["tensor_parallel"]


class _Copied(torch.autograd.Function):
    """The same in every rank; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class _Summed(torch.autograd.Function):
    """The sum over all ranks; each rank's part has the gradient of the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0]


class _Shared(nn.Module):
    """A part of a block of which each rank computes a share of the sum."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor, *more: Any) -> Tensor:
        # PyTorch's `apply` has no types.
        copied, summed = cast("Any", _Copied).apply, cast("Any", _Summed).apply
        shared: Tensor = summed(self.part(copied(x), *more))
        return shared


def tensor_parallel(model: TransformerLM) -> TransformerLM:
    """Leave in each block of a model only what this rank computes.

    Heads and hidden numbers are shared out. Embedding, norms and head stay whole, in
    every rank the same.

    Args:
        model: the same model in every rank, changed in place.

    Returns:
        The model. Its gradients are those of the whole model, or the rank's part of
        them.

    Raises:
        ValueError: if heads or hidden numbers cannot be divided evenly.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(8, 4, 8, n_layers=1, n_heads=2))
        >>> tensor_parallel(model) is model  # alone, it stays as it is
        True
    """
    n, c = world_size(), model.config
    for name in ("n_heads", "n_kv_heads", "d_ff"):
        if getattr(c, name) % n:
            raise ValueError(
                f"{name}={getattr(c, name)} cannot be divided among {n} ranks: take a "
                f"multiple of {n}, or fewer ranks"
            )
    if n == 1:
        return model
    block: Any
    for block in model.blocks:
        columns = block.attn.q_proj, block.attn.k_proj, block.attn.v_proj
        for layer in (*columns, block.ffn.w1, block.ffn.w3):
            _keep(layer, dim=0)  # weights are (out, in): a column of A is a row here
        for layer in (block.attn.o_proj, block.ffn.w2):
            _keep(layer, dim=1)
        block.attn, block.ffn = _Shared(block.attn), _Shared(block.ffn)
    return model


def _keep(layer: Any, dim: int) -> None:
    part = layer.weight.detach().chunk(world_size(), dim)[rank()]
    layer.weight = nn.Parameter(part.clone())
