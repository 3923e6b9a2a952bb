r"""The policy gradient: samples, weighted by what they are worth.

**The question.** A model has sampled answers, and a program has scored them. Which
number has a gradient that makes good answers more likely?

Three functions, in the order in which they are used: how likely was each token
([`log_probs`][minillm.training.policy.log_probs]), how much better was the answer than
others to the same prompt
([`group_advantages`][minillm.training.policy.group_advantages]), and the product of the
two, clipped ([`policy_loss`][minillm.training.policy.policy_loss]).

**The puzzle of the zero.** Advantages of a group add up to zero. So at the first step
on new samples the loss is zero if all answers are equally long, and says nothing but
which are longer if they are not. It stays there, whether the model learns or not: after
each step come new samples, and they are a group again. What moves is the gradient. So
plot the reward, the entropy, the share of groups that disagree; never this loss.

**Before this:** [`minillm.posttraining`][].
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minillm.inference.checks import check_temperature
from minillm.model import TransformerLM

__all__ = ["group_advantages", "log_probs", "policy_loss"]


def log_probs(
    model: TransformerLM, ids: Int[Tensor, "batch seq"], temperature: float = 1.0
) -> Float[Tensor, "batch seq-1"]:
    r"""How likely was each token, given those before it?

    Args:
        model: the model.
        ids: the sequences. Padding at the end changes nothing before it.
        temperature: the one that was sampled with. With another one, these are the
            log-probabilities of a distribution that nobody sampled from.

    Returns:
        $\ln \pi(y_t \mid y_{<t})$ for every token but the first, which follows nothing.

    Raises:
        ValueError: if the temperature is not positive and finite.

    Examples:
        Entry $t$ belongs to token $t + 1$. Their sum is the log-probability of the
        whole, and over all sequences of two tokens after a first one, the
        probabilities add up to one:

        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(3, 8, 8, 1, 2)).double()
        >>> ids = torch.tensor([[0, a, b] for a in range(3) for b in range(3)])
        >>> round(log_probs(model, ids).sum(1).exp().sum().item(), 6)
        1.0
    """
    # A greedy choice has no probability to learn from.
    check_temperature(temperature, greedy=False)
    logits = model(ids[:, :-1]) / temperature
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)


def group_advantages(
    rewards: Float[Tensor, "groups size"], scale: bool = True
) -> Float[Tensor, "groups size"]:
    r"""Compare each answer with the others to the same prompt.

    $$A_i = \frac{R_i - \operatorname{mean}(R)}{\operatorname{std}(R)}$$

    (Shao et al. 2024, section 4.1.2.) The deviation is that of a sample, with $n - 1$;
    $10^{-6}$ is added to it, so rewards should differ by much more than that.

    Args:
        rewards: one row for each prompt, at least two answers in each.
        scale: whether to divide by the standard deviation. Without (Liu et al. 2025,
            *Dr. GRPO*, arXiv:2503.20783), prompts on which the answers disagree weigh
            more.

    Returns:
        The advantages, each row with a sum of zero; all zero where all are equal.

    Raises:
        ValueError: if a group has fewer than two answers, or a reward is not a number.

    Examples:
        One right answer of four, and none:

        >>> advantages = group_advantages(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]))
        >>> [[round(a, 2) for a in row] for row in advantages.tolist()]
        [[1.5, -0.5, -0.5, -0.5], [0.0, 0.0, 0.0, 0.0]]

        Neither the zero of the rewards nor their unit matters, as long as they differ
        by much more than $10^{-6}$:

        >>> r = torch.tensor([[0.0, 1.0, 3.0]])
        >>> group_advantages(r).allclose(group_advantages(10 * r - 7), atol=1e-4)
        True
    """
    if rewards.shape[1] < 2:
        raise ValueError(
            f"a group needs at least two answers; got {rewards.shape[1]}: alone, an "
            "answer is its own mean"
        )
    if not rewards.isfinite().all():
        raise ValueError("a reward is not a finite number: look at the verifier")
    advantages = rewards - rewards.mean(1, keepdim=True)
    if scale:
        advantages = advantages / (rewards.std(1, keepdim=True) + 1e-6)
    # The mean of equal numbers can be off by a rounding error, which the division would
    # then make as large as an advantage.
    equal = (rewards == rewards[:, :1]).all(1, keepdim=True)
    return advantages.masked_fill(equal, 0.0)


def policy_loss(
    log_probs: Float[Tensor, "batch seq"],
    old_log_probs: Float[Tensor, "batch seq"],
    advantages: Float[Tensor, " batch"],
    mask: Bool[Tensor, "batch seq"],
    clip: float | None = 0.2,
    per_sequence: bool = False,
) -> Float[Tensor, ""]:
    r"""Make samples with a positive advantage more likely, and the others less.

    With $\rho_t = \pi(y_t) / \pi_\text{old}(y_t)$, the ratio of what the model gives to
    a token now to what it gave when the token was sampled (Schulman et al. 2017,
    equation 7, as a loss):

    $$-\operatorname{mean}_t\, \min\bigl(\rho_t A,\;
    \operatorname{clip}(\rho_t, 1 - \epsilon, 1 + \epsilon)\, A\bigr)$$

    Args:
        log_probs: of the sampled tokens, from the model that learns.
        old_log_probs: of the same, from the model that sampled; without gradient.
        advantages: $A$, one for each sequence; without gradient.
        mask: True on the tokens that were sampled: neither prompt nor padding.
        clip: $\epsilon$; `None` does not clip.
        per_sequence: take the mean of each sequence first, then of all. A token of a
            long answer then weighs less than one of a short answer.

    Returns:
        The loss: the mean over all masked tokens.

    Raises:
        ValueError: if no token was sampled, or `clip` is negative.

    Examples:
        At the first step the model is the one that sampled. All ratios are one, and the
        loss of a group is the mean of advantages whose sum is zero. Its gradient is
        that of $-A \ln \pi$, as in REINFORCE:

        >>> lp = torch.tensor([[-1.0], [-2.0], [-0.5], [-1.5]], requires_grad=True)
        >>> a = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))[0]
        >>> mask = torch.ones(4, 1, dtype=torch.bool)
        >>> loss = policy_loss(lp, lp.detach(), a, mask)
        >>> loss.backward()
        >>> round(loss.item(), 6) + 0.0, [round(g, 2) for g in lp.grad[:, 0].tolist()]
        (0.0, [-0.22, 0.22, 0.22, -0.22])

        Later, a good sample whose ratio is above 1.2 is left alone; a bad one that has
        become more likely is not:

        >>> new = torch.tensor([[0.5], [0.5]], requires_grad=True)
        >>> a = torch.tensor([1.0, -1.0])
        >>> policy_loss(new, torch.zeros(2, 1), a, mask[:2]).backward()
        >>> [round(g, 2) for g in new.grad[:, 0].tolist()]  # the second: exp(0.5) / 2
        [0.0, 0.82]
    """
    if clip is not None and not clip >= 0:
        raise ValueError(f"clip must be 0 or more, or None; got {clip}: 0.2 is usual")
    if not mask.any():
        raise ValueError("no token of the batch is learned: leave the batch out")
    # Under the mask anything may stand, even minus infinity, and must not reach `exp`.
    ratio = (log_probs - old_log_probs).masked_fill(~mask, 0.0).exp()
    gain = ratio * advantages[:, None]
    if clip is not None:
        clipped = ratio.clamp(1 - clip, 1 + clip) * advantages[:, None]
        gain = torch.minimum(gain, clipped)
    gain = gain.masked_fill(~mask, 0.0)
    if per_sequence:
        return -(gain.sum(1) / mask.sum(1).clamp_min(1)).mean()
    return -gain.sum() / mask.sum()
