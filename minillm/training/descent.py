r"""Downhill: from gradient descent to AdamW in four steps.

**The question.** The gradient says for every weight in which direction the loss grows.
Which step makes it fall, and fall fast?

**Before this:** the loss and its gradient, in [`minillm.train`][]. **Next:**
[`minillm.training.optimizer`][], where the last rule of this page becomes fast.

A *rule* here is a function: it takes the weights $w$, their gradient $g$ and a memory,
and returns the new weights. There are four, and a small problem defeats each but the
last. All problems are valleys with two weights,

$$f(w) = \tfrac12\,(\kappa\, w_0^2 + w_1^2),$$

$\kappa$ times as steep across ($w_0$) as along ($w_1$). The bottom is at zero, and
[`steps_needed`][minillm.training.descent.steps_needed] counts the steps in which a rule
comes within a hundredth of it from $(1, 1)$.

# Gradient descent, and the narrow valley

Move against the gradient. In a round valley with the right learning rate, one step is
enough:

>>> steps_needed(gradient_descent, kappa=1, lr=1.0)
1

Across the valley a step multiplies $w_0$ by $1 - \eta\kappa$, so with a learning rate
$\eta$ above $2 / \kappa$ each step overshoots by more than it corrects, and $w_0$
diverges. Along the valley that same learning rate is tiny: each step leaves $1 - \eta$
of the distance.

>>> steps_needed(gradient_descent, kappa=100, lr=0.021) is None  # never
True
>>> steps_needed(gradient_descent, kappa=100, lr=0.019)
241

Ten times as narrow is ten times as long:

>>> steps_needed(gradient_descent, kappa=1000, lr=0.0019)
2422

# Momentum: remember the direction

Across the valley the gradients of successive steps point to and fro and cancel; along
it they agree and add up. So move by their running sum (Polyak 1964):

>>> steps_needed(momentum, kappa=1000, lr=0.0019)
200

Still, one learning rate serves all weights, the steepest direction limits it, and a
narrower valley takes longer again:

>>> steps_needed(momentum, kappa=10_000, lr=0.00019)
2389

# Adam: a learning rate for each weight

So divide each weight's step by the usual size of *its* gradient, the root of a running
mean of squares. Then only the sign and the steadiness of a gradient matter, not its
size. One learning rate does for all these valleys, however narrow:

>>> [steps_needed(adam, kappa=k, lr=0.1) for k in (1, 100, 10_000)]
[92, 92, 92]

(These valleys run along the axes. Adam has a learning rate for each weight, not for
each direction, so in a diagonal valley $\kappa$ matters again.)

<div class="figure" markdown>

--8<-- "images/descent.svg"

</div>

# AdamW: weight decay, decoupled

*Weight decay* shrinks each weight a little at every step, so that only what the
gradient keeps asking for stays large. Over many epochs this limits memorizing; over a
single one it acts mainly on the optimization, as [`minillm.train`][] says. The old way
adds $\lambda w$ to the gradient (the derivative of a penalty $\frac{\lambda}{2} w^2$,
hence "L2"). But Adam divides whatever is in the gradient by its usual size, the decay
included. Take two weights of 2 that learn nothing, whose gradients only change sign,
one of size 1000 and one of size 0.001, for a hundred steps:

>>> import torch
>>> def after_noise(rule, **settings):
...     w, memory = torch.tensor([2.0, 2.0], dtype=torch.float64), {}
...     for i in range(100):
...         noise = torch.tensor([1e3, 1e-3], dtype=torch.float64) * (-1) ** i
...         w = rule(w, noise, memory, lr=0.01, **settings)
...     return [round(x, 2) for x in w.tolist()]
>>> after_noise(adam)
[1.98, 1.98]
>>> after_noise(adam, l2=0.1), after_noise(adam, l2=0.01)
([1.98, 1.1], [1.98, 1.1])
>>> after_noise(adamw, weight_decay=0.1), after_noise(adamw, weight_decay=0.01)
([1.79, 1.79], [1.96, 1.96])

With L2, the weight with large gradients does not decay at all, and the other moves by
nearly the full learning rate at each step, whatever $\lambda$ is. *Decoupled*, both
lose the same share: about $\eta \lambda$ times the number of steps. Here that is
$0.01 \cdot 0.1 \cdot 100$, a tenth, and a hundredth for the smaller $\lambda$. So
$\lambda$ alone does not say how strong the decay is; the learning rate and the number
of steps do as well. The two rules differ in the position of one line:

- Adam with L2: $g \leftarrow g + \lambda w$, before the two means;
- AdamW: $w \leftarrow w - \eta\lambda w$, beside them.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "adam",
    "adamw",
    "descend",
    "gradient_descent",
    "momentum",
    "steps_needed",
    "valley",
]

Weights = Float[Tensor, "*shape"]
Memory = dict[str, Any]


def gradient_descent(w: Weights, g: Weights, memory: Memory, lr: float) -> Weights:
    r"""Move against the gradient: $w \leftarrow w - \eta\,g$.

    Args:
        w: the weights.
        g: the gradient of the loss there.
        memory: not used by this rule.
        lr: $\eta$, the learning rate.

    Returns:
        The new weights.
    """
    return w - lr * g


def momentum(
    w: Weights, g: Weights, memory: Memory, lr: float, beta: float = 0.9
) -> Weights:
    r"""Move by the running sum of the gradients.

    $$m \leftarrow \beta m + g \qquad w \leftarrow w - \eta\,m$$

    Args:
        w: the weights.
        g: the gradient of the loss there.
        memory: an empty dictionary before the first step; $m$ afterwards.
        lr: $\eta$, the learning rate.
        beta: $\beta$, how much of the old sum is kept.

    Returns:
        The new weights.
    """
    m = memory["momentum_buffer"] = beta * memory.get("momentum_buffer", 0.0) + g
    return w - lr * m


def adam(
    w: Weights,
    g: Weights,
    memory: Memory,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    l2: float = 0.0,
) -> Weights:
    r"""Move by a mean of the gradients over the root of a mean of their squares.

    $$m \leftarrow \beta_1 m + (1 - \beta_1)\,g \qquad
    v \leftarrow \beta_2 v + (1 - \beta_2)\,g^2$$

    $$w \leftarrow w - \eta\,\frac{m / (1 - \beta_1^t)}
    {\sqrt{v / (1 - \beta_2^t)} + \epsilon}$$

    Both means start at zero and are too small at first; dividing by $1 - \beta^t$ makes
    up for it. (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.)

    Args:
        w: the weights.
        g: the gradient of the loss there.
        memory: an empty dictionary before the first step; $t$, $m$ and $v$ afterwards,
            under the names that PyTorch gives them.
        lr: $\eta$, the learning rate.
        betas: $\beta_1$ and $\beta_2$, how much of the old moments is kept.
        eps: $\epsilon$, which keeps the quotient finite.
        l2: $\lambda$, the decay inside the gradient.

    Returns:
        The new weights.

    Examples:
        Only the direction of a gradient counts. With a loss a thousand times as large,
        gradient descent diverges and the path of Adam stays the same:

        >>> steep = lambda w: valley(w, kappa=100)
        >>> steeper = lambda w: 1000 * valley(w, kappa=100)
        >>> path = lambda g: descend(adam, steps=50, gradient=g, lr=0.1)
        >>> torch.allclose(path(steep), path(steeper))
        True
    """
    beta1, beta2 = betas
    # The line that AdamW has elsewhere: $g \leftarrow g + \lambda w$
    g = g + l2 * w
    # $m \leftarrow \beta_1 m + (1 - \beta_1)\,g$
    m = memory["exp_avg"] = beta1 * memory.get("exp_avg", 0.0) + (1 - beta1) * g
    # $v \leftarrow \beta_2 v + (1 - \beta_2)\,g^2$
    v = memory["exp_avg_sq"] = (
        beta2 * memory.get("exp_avg_sq", 0.0) + (1 - beta2) * g**2
    )
    memory["step"] = memory.get("step", 0.0) + 1
    t = float(memory["step"])
    # $w - \eta\,(m / (1 - \beta_1^t)) / (\sqrt{v / (1 - \beta_2^t)} + \epsilon)$
    return w - lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)


def adamw(
    w: Weights,
    g: Weights,
    memory: Memory,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Weights:
    r"""Adam, with the weight decay outside the quotient.

    (Loshchilov & Hutter 2019, arXiv:1711.05101. Their algorithm 2 multiplies the decay
    by the schedule's factor $\eta_t$ and not by the learning rate $\alpha$; PyTorch
    multiplies by the learning rate, and so do we.)

    Args:
        w: the weights.
        g: the gradient of the loss there.
        memory: as for [`adam`][minillm.training.descent.adam].
        lr: $\eta$, the learning rate.
        betas: as for `adam`.
        eps: as for `adam`.
        weight_decay: $\lambda$, the weight decay.

    Returns:
        The new weights.
    """
    # The line that Adam with L2 has elsewhere: $w \leftarrow w - \eta\lambda w$
    w = w - lr * weight_decay * w
    return adam(w, g, memory, lr, betas, eps)


def valley(w: Float[Tensor, "2"], kappa: float) -> Float[Tensor, "2"]:
    r"""The gradient of $f(w) = \frac12 (\kappa w_0^2 + w_1^2)$.

    Args:
        w: the two weights.
        kappa: $\kappa$, how much steeper the valley is across than along.

    Returns:
        The gradient.

    Examples:
        >>> valley(torch.tensor([1.0, 2.0]), kappa=10).tolist()
        [10.0, 2.0]
    """
    return torch.tensor([kappa, 1.0], dtype=w.dtype) * w


def descend(
    rule: Callable[..., Tensor],
    steps: int,
    gradient: Callable[[Tensor], Tensor],
    **settings: Any,
) -> Float[Tensor, "points 2"]:
    r"""Compute the path of a rule from $(1, 1)$.

    Args:
        rule: one of the rules of this page.
        steps: how many steps to take.
        gradient: the gradient of the loss at a point.
        **settings: the learning rate, and what else the rule takes.

    Returns:
        The start, and the point after each step, in float64.
    """
    w = torch.ones(2, dtype=torch.float64)
    memory: Memory = {}
    path = [w]
    for _ in range(steps):
        w = rule(w, gradient(w), memory, **settings)
        path.append(w)
    return torch.stack(path)


def steps_needed(
    rule: Callable[..., Tensor], kappa: float, *, limit: int = 5000, **settings: Any
) -> int | None:
    r"""Count the steps after which a rule has reached the bottom, and stays there.

    Args:
        rule: one of the rules of this page.
        kappa: $\kappa$, how much steeper the valley is across than along.
        limit: after how many steps to give up.
        **settings: the learning rate, and what else the rule takes.

    Returns:
        The number of steps after which the distance to the bottom is at most 0.01 and
        remains so; `None` if there is no such number up to `limit`.

    Examples:
        >>> steps_needed(gradient_descent, kappa=1, lr=0.5)  # 1/2, 1/4, … below 0.01/√2
        8
    """
    path = descend(rule, limit, lambda w: valley(w, kappa), **settings)
    far = (~(path.norm(dim=1) <= 0.01)).nonzero()
    last = int(far.max())
    return last + 1 if last < limit else None
