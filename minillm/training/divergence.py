r"""How far has the model moved? Estimates of the KL divergence.

**The question.** A penalty for moving away from the reference needs a distance:

$$\operatorname{KL}(\pi \,\|\, \pi_\text{ref}) =
\sum_y \pi(y) \ln \frac{\pi(y)}{\pi_\text{ref}(y)}.$$

The sum is over all possible answers. There are samples from $\pi$. What can be computed
from those?

# Two estimates

With $\rho = \ln \pi(y) - \ln \pi_\text{ref}(y)$ for a sample $y$, $k_1 = \rho$ has the
right mean by definition, but half of its values may be negative. Adding something whose
mean is zero keeps it unbiased: $e^{-\rho} - 1$ is such a thing, since
$\sum_y \pi(y)\, \pi_\text{ref}(y) / \pi(y) = 1$. The sum $k_3 = e^{-\rho} - 1 + \rho$
is never negative (Schulman 2020, *Approximating KL divergence*), and GRPO uses it
(Shao et al. 2024, arXiv:2402.03300, equation 4). Over all of four answers, each with
its probability:

>>> p = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
>>> ref = torch.tensor([0.25, 0.25, 0.25, 0.25], dtype=torch.float64)
>>> k1, k3 = kl_estimates(p.log(), ref.log())
>>> exact = (p * (p / ref).log()).sum()
>>> [round(x.item(), 4) for x in (exact, p @ k1, p @ k3)]
[0.1064, 0.1064, 0.1064]
>>> [round((p @ (k - exact) ** 2).sqrt().item(), 2) for k in (k1, k3)]  # deviation
[0.43, 0.16]

# Good as a number, not as a loss

What trains is the gradient. An estimate that is right on average need not have a
gradient that is: samples are held fixed when it is taken, and the true divergence also
changes because *other samples* become likely. Let the logits of $\pi$ learn:

>>> logits = p.log().requires_grad_()
>>> def gradient(of):
...     (g,) = torch.autograd.grad(of, logits)
...     return [round(x, 2) + 0.0 for x in g.tolist()]
>>> lp = logits.log_softmax(0)
>>> gradient((lp.exp() * (lp - ref.log())).sum())  # of the divergence itself
[0.15, 0.02, -0.07, -0.1]
>>> k1, k3 = kl_estimates(logits.log_softmax(0), ref.log())
>>> gradient(p @ k1)  # the mean of the gradients of its samples
[0.0, 0.0, 0.0, 0.0]
>>> k1, k3 = kl_estimates(logits.log_softmax(0), ref.log())
>>> gradient(p @ k3)
[0.15, 0.05, -0.05, -0.15]

$k_1$ as a loss does nothing at all but add noise, and $k_3$ goes down another hill,
that of $\operatorname{KL}(\pi_\text{ref} \,\|\, \pi)$: its gradient is $\pi -
\pi_\text{ref}$. Near the reference the two hills are alike. (Tang & Munos 2025,
arXiv:2506.09477.)

**Before this:** [`minillm.posttraining`][].
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["kl_estimates"]


def kl_estimates(
    log_probs: Float[Tensor, "*shape"], ref_log_probs: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    r"""Estimate the KL divergence from samples of the first model, in two ways.

    Args:
        log_probs: $\ln \pi(y)$ of samples from $\pi$.
        ref_log_probs: $\ln \pi_\text{ref}(y)$ of the same.

    Returns:
        $k_1 = \rho$ and $k_3 = e^{-\rho} - 1 + \rho$ for each sample, with $\rho$ the
        difference of the two arguments.

    Examples:
        >>> new, ref = torch.tensor([[-1.0, -2.0], [-1.0, -1.0]])
        >>> k1, k3 = kl_estimates(new, ref)
        >>> k1.tolist(), [round(k, 3) for k in k3.tolist()]
        ([0.0, -1.0], [0.0, 0.718])
    """
    k1 = log_probs - ref_log_probs
    # `expm1` is $e^x - 1$ without the loss of digits where $x$ is small.
    return k1, torch.expm1(-k1) + k1
