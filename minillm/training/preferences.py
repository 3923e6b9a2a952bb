r"""Preferences: better than, instead of good.

**The question.** For a poem there is no verifier. But people can say which of two poems
they like better. What can be learned from pairs?

# From rewards to pairs

Suppose there were a reward $r(y)$ for each answer $y$. (Everything here is given a
prompt, which is left out.) Preferences follow it, by the model of Bradley and Terry
(1952): the chosen answer $y_w$ beats the rejected $y_l$ with probability

$$P(y_w \succ y_l) = \sigma\bigl(r(y_w) - r(y_l)\bigr), \qquad
\sigma(x) = \frac{1}{1 + e^{-x}}.$$

One way is to learn $r$ from pairs by this formula, then to follow its policy gradient:
reinforcement learning from human feedback (Ouyang et al. 2022, arXiv:2203.02155).
Rafailov et al. (2023, arXiv:2305.18290) saw that the first step can be skipped.

# The reward that a policy stands for

With a KL penalty of weight $\beta$, the best policy is known in closed form
(their equation 4). It is the reference $\pi_\text{ref}$, reweighted:

$$\pi(y) = \frac1Z\, \pi_\text{ref}(y)\, e^{r(y) / \beta}
\quad\Longleftrightarrow\quad
r(y) = \beta \ln \frac{\pi(y)}{\pi_\text{ref}(y)} + \beta \ln Z.$$

Nobody can compute $Z$, a sum over all answers. But in a *difference* of rewards it
cancels. Put into the first formula, what is left has only log-probabilities of the two
answers under two models; its negative logarithm is
[`dpo_loss`][minillm.training.preferences.dpo_loss]. Three answers with known rewards
show that the difference comes back:

>>> import torch
>>> ref = torch.tensor([0.5, 0.3, 0.2]).log()
>>> r, beta = torch.tensor([2.0, 0.0, -1.0]), 0.5
>>> best = (ref + r / beta).log_softmax(0)
>>> margin = beta * ((best - ref)[0] - (best - ref)[1])
>>> round(margin.item(), 4)  # r[0] - r[1]
2.0

# Only the difference counts

The loss asks that chosen answers *gain on* rejected ones. It does not ask that they
become more likely. Both may fall, as long as the rejected ones fall further:

>>> def loss(chosen, rejected):  # from -1 and -3 under the reference
...     sides = torch.tensor([[chosen], [rejected], [-1.0], [-3.0]])
...     return round(dpo_loss(*sides, beta=0.1).item(), 3)
>>> loss(-1, -3), loss(-0.01, -5), loss(-5, -20)
(0.693, 0.555, 0.241)

The third is far better by this loss than the second, which is nearly certain of the
right answer. [`minillm.posttraining`][] measures what comes of it.

**Before this:** [`minillm.posttraining`][].
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["dpo_loss"]


def dpo_loss(
    chosen: Float[Tensor, " batch"],
    rejected: Float[Tensor, " batch"],
    ref_chosen: Float[Tensor, " batch"],
    ref_rejected: Float[Tensor, " batch"],
    beta: float,
) -> Float[Tensor, ""]:
    r"""Direct preference optimization (Rafailov et al. 2023, equation 7).

    $$-\ln \sigma\left(\beta \left[\ln \frac{\pi(y_w)}{\pi_\text{ref}(y_w)} -
    \ln \frac{\pi(y_l)}{\pi_\text{ref}(y_l)}\right]\right)$$

    Args:
        chosen: $\ln \pi(y_w)$, summed over the tokens of each chosen answer.
        rejected: $\ln \pi(y_l)$, the same for the rejected ones.
        ref_chosen: $\ln \pi_\text{ref}(y_w)$, from the model at the start, without
            gradient.
        ref_rejected: $\ln \pi_\text{ref}(y_l)$.
        beta: $\beta$, positive: how dear it is to move away from the reference; 0.1 is
            usual.

    Returns:
        The mean over the pairs.

    Raises:
        ValueError: if `beta` is not positive.

    Examples:
        At the start, model and reference are one. Every pair is a coin toss, and the
        loss is $\ln 2$, whatever the answers are:

        >>> import math
        >>> import torch
        >>> w, l = torch.tensor([-5.0, -70.0]), torch.tensor([-9.0, -1.0])
        >>> round(dpo_loss(w, l, w, l, beta=0.1).item(), 6) == round(math.log(2), 6)
        True
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive; got {beta}: 0.1 is usual")
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    # $-\ln \sigma(x)$; the library's form does not overflow where $\sigma$ is 0.
    return -F.logsigmoid(beta * margin).mean()
