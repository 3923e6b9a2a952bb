r"""From completing to answering."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minillm.model import TransformerLM
from minillm.train import cross_entropy

__all__ = [
    "dpo_loss",
    "group_advantages",
    "kl_estimates",
    "log_probs",
    "policy_loss",
    "sft_loss",
]


def sft_loss(
    logits: Float[Tensor, "batch seq vocab"],
    targets: Int[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
) -> Float[Tensor, ""]:
    if not mask.any():
        raise ValueError(
            "no token of the batch is learned, and a mean over nothing is not a "
            "number: leave the batch out, or check where the mask begins"
        )
    return cross_entropy(logits[mask], targets[mask])


def log_probs(
    model: TransformerLM, ids: Int[Tensor, "batch seq"], temperature: float = 1.0
) -> Float[Tensor, "batch seq-1"]:
    logits = model(ids[:, :-1]) / temperature
    # Position t scores the token at t + 1.
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)


def group_advantages(
    rewards: Float[Tensor, "groups size"], scale: bool = True
) -> Float[Tensor, "groups size"]:
    if rewards.shape[1] < 2:
        raise ValueError(
            f"a group has at least two samples; got {rewards.shape[1]}: one sample is "
            "its own mean, and has no deviation from it"
        )
    if not rewards.isfinite().all():
        raise ValueError("a reward is not a number: check the verifier")
    advantages = rewards - rewards.mean(1, keepdim=True)
    # The mean of equal numbers may differ from them by a rounding error, and dividing
    # by a deviation of the same size would make an advantage of it.
    equal = (rewards == rewards[:, :1]).all(1, keepdim=True)
    advantages = advantages.masked_fill(equal, 0.0)
    if scale:
        advantages = advantages / (rewards.std(1, keepdim=True) + 1e-6)
    return advantages


def policy_loss(
    log_probs: Float[Tensor, "batch seq"],
    old_log_probs: Float[Tensor, "batch seq"],
    advantages: Float[Tensor, " batch"],
    mask: Bool[Tensor, "batch seq"],
    clip: float | None = 0.2,
    per_sequence: bool = False,
) -> Float[Tensor, ""]:
    if not mask.any():
        raise ValueError("no token of the batch is learned")
    ratio = (log_probs - old_log_probs).masked_fill(~mask, 0.0).exp()
    gain = ratio * advantages[:, None]
    if clip is not None:
        gain = torch.minimum(
            gain, ratio.clamp(1 - clip, 1 + clip) * advantages[:, None]
        )
    gain = gain * mask
    if per_sequence:
        return -(gain.sum(1) / mask.sum(1).clamp_min(1)).mean()
    return -gain.sum() / mask.sum()


def kl_estimates(
    log_probs: Float[Tensor, "*shape"], ref_log_probs: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    k1 = log_probs - ref_log_probs
    return k1, torch.expm1(-k1) + k1


def dpo_loss(
    chosen: Float[Tensor, " batch"],
    rejected: Float[Tensor, " batch"],
    ref_chosen: Float[Tensor, " batch"],
    ref_rejected: Float[Tensor, " batch"],
    beta: float,
) -> Float[Tensor, ""]:
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    return -F.logsigmoid(beta * margin).mean()
