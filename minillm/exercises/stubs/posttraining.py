r"""Exercises to chapter 11: from completing to answering.

Write each function in the place of its `raise NotImplementedError`, and ask, in
this folder:

    minillm exercises check posttraining.advantages   # one of them
    minillm exercises check posttraining              # those of this file

The functions change nothing that they are given.
"""

import torch
from torch import Tensor


def answer_mask(prompt: int, answer: int, width: int) -> Tensor:
    r"""Which targets are learned? A tensor of `width - 1` booleans.

    A sequence has `prompt` tokens of a question, `answer` tokens of its answer (the
    last of them ends it), and padding up to `width`. The targets are `ids[1:]`: target
    0 is token 1.

    >>> answer_mask(2, 2, 6).tolist()
    [False, True, True, False, False]
    """
    raise NotImplementedError


def sft_loss(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    r"""The mean of -ln p(target) over the targets that are learned.

    `logits` is (batch, seq, vocab), `targets` and `mask` (batch, seq); at least one
    entry of the mask is True. The result has no axes.

    >>> mask = torch.tensor([[True, False]])
    >>> round(sft_loss(torch.zeros(1, 2, 4), torch.tensor([[1, 2]]), mask).item(), 3)
    1.386
    """
    raise NotImplementedError


def log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    r"""How likely was each token but the first? (batch, seq - 1), as logarithms.

    `ids` is (batch, seq), and `logits`, (batch, seq, vocab), is what the model said
    when it read them: entry t is about what comes after token t.

    >>> log_probs(torch.zeros(1, 3, 2), torch.tensor([[0, 1, 1]])).exp().tolist()
    [[0.5, 0.5]]
    """
    raise NotImplementedError


def advantages(rewards: Tensor) -> Tensor:
    r"""How much better was each answer than the others to the same prompt?

    `rewards` is (prompts, answers), with at least two answers. The mean of its row is
    taken from each, and the rest is divided by the standard deviation of the row (with
    n - 1). Where all rewards of a row are equal, the advantages are zero.

    >>> [round(a, 2) for a in advantages(torch.tensor([[0.0, 0.0, 3.0]]))[0].tolist()]
    [-0.58, -0.58, 1.15]
    """
    raise NotImplementedError


def policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    r"""The clipped loss of PPO and GRPO, with a clip of 0.2.

    $$-\operatorname{mean}\, \min\bigl(\rho A,\;
    \operatorname{clip}(\rho, 0.8, 1.2)\, A\bigr) \qquad
    \rho = \frac{\pi}{\pi_\text{old}}$$

    `advantages` is (batch,), the rest (batch, seq). The mean is over the tokens under
    the mask. The result has no axes.

    >>> one = torch.ones(1, 1)
    >>> round(policy_loss(one, 0 * one, one[0], one > 0).item(), 3)
    -1.2
    """
    raise NotImplementedError


def penalized_loss(
    log_probs: Tensor, ref_log_probs: Tensor, rewards: Tensor, beta: float
) -> Tensor:
    r"""A loss whose *gradient* is that of REINFORCE with a KL penalty in the reward.

    All are (batch,), for whole answers, sampled from the model that learns. Each
    answer's advantage is its reward minus $\beta (\ln \pi - \ln \pi_\text{ref})$, minus
    the mean of these over the batch. The gradient that is wanted is the mean of
    $-A \nabla \ln \pi$: it is graded, not the loss.

    >>> lp = torch.zeros(2, requires_grad=True)
    >>> penalized_loss(lp, torch.zeros(2), torch.tensor([1.0, 0.0]), 0.1).backward()
    >>> lp.grad.tolist()
    [-0.25, 0.25]
    """
    raise NotImplementedError


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float,
) -> Tensor:
    r"""The loss of direct preference optimization, averaged over the pairs.

    Each tensor is (batch,): the log-probabilities of whole answers, from the model and
    from the reference. -1000 must not overflow.

    >>> zeros = torch.zeros(3)
    >>> round(dpo_loss(zeros, zeros, zeros, zeros, 0.1).item(), 4)
    0.6931
    """
    raise NotImplementedError


def verify(prompt: str, text: str, answer: int) -> float:
    r"""Reward an answer: 1.0 if the last whole number that the model wrote is `answer`.

    `text` is the prompt and what the model wrote after it. A number is a run of digits
    0 to 9. If the model wrote none, the reward is 0.0.

    >>> verify("2 + 2 =", "2 + 2 = 3. No: 4.", 4), verify("2 + 2 =", "2 + 2 = 44", 4)
    (1.0, 0.0)
    """
    raise NotImplementedError
