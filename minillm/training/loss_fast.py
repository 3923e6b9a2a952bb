r"""The loss, fast: its gradient by hand.

**The question.** In a small model the loss is a tenth of the work: a row of $V$ scores
for every position, and [`cross_entropy`][minillm.training.loss.cross_entropy] passes
over all of them many times, forwards and backwards. Must it?

PyTorch differentiates the loss piece by piece: the logarithm of a sum, a choice among
$V$ numbers, a mean. By hand, the derivative of the surprise at target $y$ after the
score $x_j$ is one short line:

$$\frac{\partial}{\partial x_j} \Bigl(\ln \sum_k e^{x_k} - x_y\Bigr)
= \frac{e^{x_j}}{\sum_k e^{x_k}} - [j = y] = p_j - [j = y].$$

The probability that the model gave, minus the one that would have been right. It is
what learning is about: every score is pushed down by the probability it claimed, and
only that of the token that came is pushed up.

>>> logits = torch.zeros(1, 4, requires_grad=True)  # a quarter for each of four tokens
>>> cross_entropy_fast(logits, torch.tensor([2])).backward()
>>> logits.grad.tolist()
[[0.25, 0.25, -0.75, 0.25]]

**Before this:** [`minillm.training.loss`][]. **Next:** [`minillm.training.descent`][].
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["cross_entropy_fast"]


class _Surprise(torch.autograd.Function):
    """The mean surprise, which keeps one table for its gradient and no other."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        # Scores may be short numbers; sums over the vocabulary need long ones.
        wide = torch.promote_types(logits.dtype, torch.float32)
        rows = logits.reshape(-1, logits.shape[-1])
        table = rows.log_softmax(dim=-1, dtype=wide)  # (N, V)
        y = targets.reshape(-1, 1)
        loss = -table.gather(1, y).mean()
        # $p_j - [j = y]$, in the memory of the logarithms
        table.exp_().scatter_add_(1, y, table.new_full(y.shape, -1.0))
        ctx.save_for_backward(table)
        ctx.shape, ctx.dtype = logits.shape, logits.dtype
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (table,) = ctx.saved_tensors
        # In place again. PyTorch notices if somebody asks a second time.
        table.mul_(gradient / len(table))
        return table.to(ctx.dtype).view(ctx.shape), None


def cross_entropy_fast(
    logits: Float[Tensor, "*batch vocab"], targets: Int[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    r"""Same result as [`cross_entropy`][minillm.training.loss.cross_entropy].

    Unlike it: the gradient is the formula above, computed where the logarithms were;
    it can be asked for once, and not differentiated again. Of scores in 16 bits the
    loss has 32.

    Args:
        logits: the scores of every token.
        targets: the tokens that came.

    Returns:
        The mean over all positions, a tensor without axes.

    Examples:
        >>> from minillm.training.loss import cross_entropy
        >>> random = torch.Generator().manual_seed(0)
        >>> x = torch.randn(2, 3, 50, generator=random).double().requires_grad_()
        >>> y = torch.randint(50, (2, 3), generator=random)
        >>> (naive,) = torch.autograd.grad(cross_entropy(x, y), x)
        >>> (fast,) = torch.autograd.grad(cross_entropy_fast(x, y), x)
        >>> torch.allclose(naive, fast, rtol=1e-12)
        True
        >>> cross_entropy_fast(x.bfloat16(), y).dtype
        torch.float32
    """
    return _Surprise.apply(logits, targets)  # type: ignore[no-untyped-call]
