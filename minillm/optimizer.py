r"""Steps: how far to move each weight, and when.

**The question.** The gradient says in which direction the loss falls. It does not say
how far to go, and a step of the same length in every direction, which is what plain
gradient descent takes, is almost always wrong.

**Before this:** the loss, in [`minillm.train`][], and its gradient, which PyTorch
computes. **Next:** back to [`minillm.train`][], whose loop uses all three parts below.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["AdamW", "clip_gradients", "cosine_schedule"]


class AdamW(torch.optim.Optimizer):
    r"""Gradient steps with a memory, and of a length of their own for each weight.

    Plain descent has one step length for all weights. Where the loss is a narrow
    valley, a length that is safe across it is far too short along it:

    >>> def steps_needed(optimizer_class, lr):
    ...     w = torch.tensor([1.0, 1.0], requires_grad=True)
    ...     optimizer = optimizer_class([w], lr=lr)
    ...     for step in range(10_000):
    ...         loss = (1000 * w[0] ** 2 + w[1] ** 2) / 2
    ...         if loss < 1e-6:
    ...             return step
    ...         optimizer.zero_grad()
    ...         loss.backward()
    ...         _ = optimizer.step()
    >>> steps_needed(torch.optim.SGD, lr=0.001) > 6000
    True
    >>> steps_needed(AdamW, lr=0.01) < 1000
    True

    AdamW keeps two running means for each weight: $m$ of its gradient $g$, which
    smooths the direction, and $v$ of $g^2$, which tells how large gradients usually are
    here. It moves by their quotient, so by about `lr` a step in every direction:

    $$m \leftarrow \beta_1 m + (1 - \beta_1)\,g \qquad
    v \leftarrow \beta_2 v + (1 - \beta_2)\,g^2$$

    $$w \leftarrow w - \eta\lambda w - \eta\,\frac{m / (1 - \beta_1^t)}
    {\sqrt{v / (1 - \beta_2^t)} + \epsilon}$$

    Both means start at zero and are too small at first; dividing by $1 - \beta^t$ makes
    up for it. (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.) The term
    $\eta\lambda w$ pulls every weight towards zero. It stands outside the quotient:
    inside, as in Adam with L2, weights with large gradients would hardly be pulled at
    all. (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.)

    Unlike `torch.optim.AdamW`, whose results it shares, it has no variants.

    Args:
        params: the weights, or groups of them with settings of their own.
        lr: $\eta$, the length of a step.
        betas: $\beta_1$ and $\beta_2$, how much of the old means is kept, in $[0, 1)$.
        eps: $\epsilon$, which keeps the quotient finite.
        weight_decay: $\lambda$, the pull towards zero.

    Raises:
        ValueError: if a setting is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more; got {value}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must lie in [0, 1); got {betas}")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every weight that has a gradient.

        Args:
            closure: computes the loss anew, for optimizers that ask for it more than
                once; called once here.

        Returns:
            What the closure returned, if there is one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            if weights:
                self._move(weights, group)
        return loss

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        for w in weights:
            if not self.state[w]:
                self.state[w]["step"] = torch.tensor(0.0)
                self.state[w]["exp_avg"] = torch.zeros_like(w)
                self.state[w]["exp_avg_sq"] = torch.zeros_like(w)
        states = [self.state[w] for w in weights]
        g = [w.grad for w in weights if w.grad is not None]
        m = [state["exp_avg"] for state in states]
        v = [state["exp_avg_sq"] for state in states]
        for state in states:
            state["step"] += 1
        t = [state["step"].item() for state in states]
        lr, eps, (beta1, beta2) = group["lr"], group["eps"], group["betas"]

        # A model has dozens of weight tensors, many of them tiny. PyTorch's `_foreach_`
        # functions do the same to each tensor of a list in one call.
        #
        # $w \leftarrow w - \eta\lambda w$
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        # $m \leftarrow \beta_1 m + (1 - \beta_1)\,g$
        torch._foreach_lerp_(m, g, 1 - beta1)
        # $v \leftarrow \beta_2 v + (1 - \beta_2)\,g^2$
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, g, g, 1 - beta2)
        # $\sqrt{v / (1 - \beta_2^t)} + \epsilon$
        root = torch._foreach_sqrt(v)
        torch._foreach_div_(root, [math.sqrt(1 - beta2**n) for n in t])
        torch._foreach_add_(root, eps)
        # $w \leftarrow w - \eta\, \frac{m}{1 - \beta_1^t} \,/\, (\dots)$
        torch._foreach_addcdiv_(weights, m, root, [-lr / (1 - beta1**n) for n in t])


def cosine_schedule(
    step: int, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int
) -> float:
    r"""The learning rate of a step: up in a line, then down along half a cosine.

    At first the running means of AdamW know little and the weights are far off, so the
    steps start short. Towards the end long steps only jump back and forth across the
    valley, so they become short again (Loshchilov & Hutter 2017, arXiv:1608.03983,
    equation 5, without restarts).

    <div class="figure" markdown>

    --8<-- "images/learning-rate.svg"

    </div>

    Args:
        step: $s$. The warm-up begins with 0 at step 0, so a loop that counts from 0
            asks for `step + 1`, or its first step would move nothing.
        max_lr: the rate at the end of the warm-up.
        min_lr: the rate from `total_steps` on.
        warmup_steps: how long the rate rises.
        total_steps: when it has come down.

    Returns:
        The learning rate.

    Examples:
        >>> rate = lambda step: cosine_schedule(step, 1.0, 0.1, 10, 110)
        >>> [round(rate(step), 3) for step in (0, 5, 10, 60, 110, 500)]
        [0.0, 0.5, 1.0, 0.55, 0.1, 0.1]
    """
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    if step >= total_steps:
        return min_lr
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def clip_gradients(params: Iterable[Tensor], max_norm: float) -> float:
    r"""Shorten the gradient, as one long vector, to at most `max_norm`.

    One odd piece of text can give a gradient a hundred times the usual length. Its
    direction is worth something; its length is not.

    Args:
        params: the weights; those without a gradient are passed over.
        max_norm: the greatest length allowed, positive.

    Returns:
        The length before clipping.

    Examples:
        >>> w = torch.zeros(2, requires_grad=True)
        >>> w.grad = torch.tensor([30.0, 40.0])
        >>> clip_gradients([w], max_norm=1.0)
        50.0
        >>> [round(g, 3) for g in w.grad.tolist()]
        [0.6, 0.8]
    """
    gradients = [w.grad for w in params if w.grad is not None]
    if not gradients:
        return 0.0
    lengths = torch.stack(torch._foreach_norm(gradients))
    length = float(torch.linalg.vector_norm(lengths))
    if length > max_norm:
        torch._foreach_mul_(gradients, max_norm / length)
    return length
