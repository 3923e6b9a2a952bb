r"""Steps: how far to move each weight, and when.

**The question.** [`minillm.training.descent`][] found a rule that moves each weight by
about the learning rate, whatever the size of its gradient. How is that computed for a
million weights without wasting the time of the machine? How large should the rate be,
when? And what if one gradient is absurdly long?

**Before this:** [`minillm.training.descent`][]. **Next:** back to [`minillm.train`][],
whose loop uses all three parts below.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from minillm.training.descent import adamw

__all__ = ["AdamW", "clip_gradients", "cosine_schedule"]

# Where PyTorch has a kernel for the whole of a step.
FUSED = {"cpu", "cuda"}
MEANS = ("exp_avg", "exp_avg_sq")


class AdamW(torch.optim.Optimizer):
    r"""AdamW for all weights of a model at once.

    The rule is [`adamw`][minillm.training.descent.adamw].

    It is an optimizer of PyTorch's: with groups of weights that have settings of their
    own, with a state that can be saved, and ready for PyTorch's learning rate
    schedulers. Its results and its state are those of `torch.optim.AdamW`; unlike it,
    it has no variants.

    >>> from minillm.training.descent import adamw
    >>> w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    >>> expected, memory = w.detach().clone(), {}
    >>> optimizer = AdamW([w], lr=0.1)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     (w**4).sum().backward()
    ...     optimizer.step()
    ...     expected = adamw(expected, 4 * expected**3, memory, lr=0.1)
    >>> torch.allclose(w, expected, rtol=1e-12)
    True

    Args:
        params: the weights, or groups of them with settings of their own.
        lr: $\eta$, the learning rate.
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
            self._move(group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what an optimizer of this kind has saved.

        Args:
            state_dict: what `state_dict()` has returned.

        Raises:
            ValueError: if it is that of another kind, or of other weights.
        """
        weights = [w for group in self.param_groups for w in group["params"]]
        for i, state in state_dict["state"].items():
            shape = weights[i].shape if i in range(len(weights)) else None
            means = [getattr(state.get(key), "shape", None) for key in MEANS]
            step = state.get("step")
            counted = isinstance(step, Tensor) and step.numel() == 1
            if shape is None or means != [shape, shape] or not counted:
                raise ValueError(
                    f"its state {i} is that of another weight or optimizer"
                )
        for group in state_dict["param_groups"]:
            betas = group.get("betas", ())
            numbers = *betas, *(group.get(k) for k in ("lr", "eps", "weight_decay"))
            if len(betas) != 2 or not all(isinstance(n, float | int) for n in numbers):
                raise ValueError("its settings are not those of AdamW")
        super().load_state_dict(state_dict)

    def _move(self, group: dict[str, Any]) -> None:
        # A model has dozens of weight tensors, many of them tiny. PyTorch has a kernel
        # that computes the rule for a list of them in one call, in one pass over
        # memory. It wants them to be of one kind, and laid out plainly.
        alike: dict[tuple[torch.device, torch.dtype], list[tuple[Tensor, ...]]] = {}
        for w in group["params"]:
            g, device = w.grad, w.device
            if g is None:
                continue
            state = self.state[w]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=device)
                state["exp_avg"] = torch.zeros_like(w)
                state["exp_avg_sq"] = torch.zeros_like(w)
            if device.type in FUSED and w.is_contiguous() and g.is_contiguous():
                t = state["step"]
                if t.device != device:  # as loading may leave it
                    t = state["step"] = t.to(device)
                row = (w, g, state["exp_avg"], state["exp_avg_sq"], t)
                alike.setdefault((device, w.dtype), []).append(row)
            else:
                rule = {name: group[name] for name in ("betas", "eps", "weight_decay")}
                w.copy_(adamw(w, g, state, group["lr"], **rule))
        for rows in alike.values():
            weights, gradients, m, v, steps = map(list, zip(*rows, strict=True))
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                weights,
                gradients,
                m,
                v,
                [],  # for a variant that we do not have
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )


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
        Ten steps up, a hundred down. The corners, each with its neighbours:

        >>> rate = lambda step: round(cosine_schedule(step, 1.0, 0.1, 10, 110), 4)
        >>> [rate(step) for step in (0, 1, 2)]  # the loop's first step asks for 1
        [0.0, 0.1, 0.2]
        >>> [rate(step) for step in (9, 10, 11)]
        [0.9, 1.0, 0.9998]
        >>> [rate(step) for step in (109, 110, 111)]
        [0.1002, 0.1, 0.1]
        >>> rate(60)  # halfway down
        0.55
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
    length = _length(gradients)
    if math.isinf(length):  # Squares beyond 3e38 are no float32: a length of 2e19.
        length = _length(gradients, torch.float64)
    if length > max_norm:
        torch._foreach_mul_(gradients, max_norm / length)
    return length


def _length(gradients: list[Tensor], dtype: torch.dtype | None = None) -> float:
    lengths = torch.stack(torch._foreach_norm(gradients, dtype=dtype))
    return float(torch.linalg.vector_norm(lengths))
