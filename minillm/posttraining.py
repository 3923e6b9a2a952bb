r"""Post-training: from completing to answering.

**The question.** A model that was trained to continue texts is asked: `593214:`. It has
read such lines, some followed by the sorted digits, some by anything else, and continues
with what is likely. How do we make it *answer*, and answer well?

**Before this:** [`minillm.train`][] and [`minillm.generate`][]. That a chat is one text
with marks in it, which the model merely continues, is told in
[`minillm.inference.chat`][]. **Next:** [`minillm.evaluation`][], how sure such
scores are.

All experiments are on one bench ([`minillm.labs.posttraining`][]): a model of 0.1
million weights, tasks whose answers a program can check ([`minillm.labs.answers`][]),
three seeds each, held-out problems only. Numbers below are shares of right answers,
one for each seed:

>>> from minillm.labs.posttraining import compute, runs, VARIANTS
>>> def scores(name, when="after", k=1):
...     return [round(r[when]["pass"][str(k)], 2) for r in runs(name)]

# 1. Show it what to do

Write a few problems with their answers, and train on them as on any text:
*supervised fine-tuning*, SFT. One thing is new. The problem is given, so its tokens
need not be predicted; a mask leaves them out of the loss
([`sft_loss`][minillm.posttraining.sft_loss]). Does the mask matter? Sorting, with 50
to 5,000 demonstrations, the loss on the answer, and on everything:

>>> for n in (50, 150, 500, 1500, 5000):
...     print(n, *(scores(f"{n} demonstrations, {w}") for w in ("answer", "all")))

The mask helps where demonstrations are few. And the end of the answer has to be under
it. Without, the model never learns to stop:

>>> [round(r["after"]["ended"], 2) for r in runs("demonstrations, unended")]

A checker that cuts the answer at the right length would not have noticed.

# 2. Let it try

With 150 demonstrations in 150 steps, a third of its answers are right, and no more
demonstrations are to be had. But the model can be asked several times, and a program
can tell which answers are right. Of 64 tries, one was right more often:

>>> scores("policy, sort", "before"), scores("policy, sort", "before", k=64)

So sample, keep what is right, and train on that: *rejection sampling*. At the same
number of FLOPs, sampling included, in one round, and in eight, each of which samples
from the model of the round before:

>>> scores("own, one round"), scores("own, eight rounds")

Nobody showed it a further answer.

# 3. Follow the reward

Rejection sampling throws wrong answers away. But a wrong answer says something, too,
and a reward may lie between right and wrong. What do we want? The greatest mean reward
$J = \sum_y \pi(y)\, R(y)$. Its gradient, since
$\nabla \pi = \pi \nabla \ln \pi$, is a mean over samples of the model itself:

$$\nabla J = \sum_y \pi(y)\, R(y)\, \nabla \ln \pi(y).$$

Sample, weight the gradient of each sample's log-probability by its reward, take a step
(REINFORCE, Williams 1992). With rewards of 0 and 1 this is rejection sampling, one step
a round. Now add a constant to all rewards. The mean of the gradient stays, since
$\sum_y \pi \nabla \ln \pi = \nabla 1 = 0$. Its variance does not. Three answers, the
first is right:

>>> p = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
>>> grad_log_p = torch.eye(3) - p  # of each answer, by the three logits
>>> for shift in (0.0, -0.3, -1.0, 1.0):
...     g = (torch.tensor([1.0, 0.0, 0.0]) + shift)[:, None] * grad_log_p
...     mean = p @ g
...     variance = (p @ (g - mean) ** 2).sum()
...     print(shift, [round(x, 2) for x in mean.tolist()], round(variance.item(), 2))

On the bench, without any *baseline* (what is subtracted), rewards of 0 and 1, of −1 and
0, and of 1 and 2. In expectation, these are the same training:

>>> for name in ("0 and 1", "-1 and 0", "1 and 2"):
...     print(name, scores(f"no baseline, {name}"))

The first has the least variance of the three, and it is the one in which wrong answers
weigh nothing. A baseline makes the choice of zero irrelevant. The cheapest one is the
mean of several answers to the *same* prompt
([`group_advantages`][minillm.posttraining.group_advantages]); this is GRPO (Shao et al.
2024, arXiv:2402.03300):

>>> scores("policy, sort")

It is no better here than 0 and 1 without any. What it buys is that it does not matter
which two numbers somebody chose.

**The loss is no guide.** Advantages of a group have a sum of zero, so the loss is zero
at every first step, and its gradient is not (see
[`policy_loss`][minillm.posttraining.policy_loss]). Watch the reward. **Groups that
agree teach nothing**: where all answers are right, or all wrong, all advantages are
zero. Their share, early and late in training:

>>> flat = [[row[5] for row in r["curve"]] for r in runs("policy, sort")]
>>> [(round(sum(f[:5]) / 5, 2), round(sum(f[-5:]) / 5, 2)) for f in flat]

**Entropy falls.** What is rewarded becomes likely, and the rest is forgotten. Nats per
token, before and after:

>>> [(r["before"]["entropy"], r["after"]["entropy"]) for r in runs("policy, sort")]

# 4. Use each sample more than once

Sampling is slow, so take four steps on each batch of samples. After the first, they are
samples of an *older* model. The ratio of the new probability to the old one corrects
the mean, and PPO's clipping (Schulman et al. 2017, arXiv:1707.06347, equation 7) takes
the gradient away from samples whose ratio has already gone far in the direction of
their advantage. A hundred rounds with one step each, with four, and with four unclipped:

>>> for name in ("100 rounds", "four updates", "four updates, no clip"):
...     print(name, scores(name))

# 5. What does it add?

With 256 tries, does the trained model solve more than it did before, or does it merely
find at once what it found sometimes? By
[`pass_at_k`][minillm.evaluation.pass_at_k], on two tasks:

>>> for task in ("sort", "split"):
...     for k in (1, 16, 256):
...         before, after = (scores(f"policy, {task}", w, k) for w in ("before", "after"))
...         print(task, k, before, after)

Two answers. To sort is one rule for all problems; what is learned on those that are
solved sometimes carries over to those that never were. Take the problems with no right
answer in 256 before, and see how often they are solved after:

>>> for r in runs("policy, sort"):
...     after = [b / 256 for a, b in zip(*r["counts"]) if a == 0]
...     print(len(after), "never solved; after:", round(sum(after) / len(after), 2))

To split a number has many right answers for each problem, and nothing that holds for
all. Reinforcement learning picks one of them and forgets the others: `pass@1` rises,
`pass@256` falls. (Yue et al. 2025, arXiv:2504.13837, found the second in large models,
and asked whether there is anything but.) If that is the reason, then a task without any
rule, where every problem is a fact by itself, must leave the unsolved ones unsolved.
The third task is a book of random numbers:

>>> for r in runs("policy, book"):
...     before, after = ([round(r[w]["pass"][k], 2) for k in ("1", "256")] for w in ("before", "after"))
...     new = [b / 256 for a, b in zip(*r["counts"]) if a == 0]
...     print(before, after, len(new), round(sum(new) / len(new), 2))

# 6. You get what you reward

Somebody wrote the verifier in haste: an answer is right if its digits are in order. All
right answers pass. Mean reward and share of right answers, from the samples of training:

>>> for r in runs("in order"):
...     at = {row[0]: row for row in r["curve"]}
...     print(*(f"{at[i][1]:.2f} {at[i][2]:.2f};" for i in (1, 50, 100, 200)), r["texts"][0])

<div class="figure" markdown>

--8<-- "images/lab-posttraining-hacked.svg"

</div>

The reward is perfect and the answers are worthless. Nothing in the curves of training
tells, since all of them are of the reward: only a number that is *not* trained on does.
Two repairs. A KL penalty ([`minillm.tuning.divergence`][]) keeps the model near its
start, so that it cannot go astray, and cannot get better either. A verifier that gives
credit for each right position is as good as the exact one:

>>> scores("in order"), scores("in order, KL 0.1"), scores("each position")

# 7. Prefer

Often there is no verifier, only someone who says which of two answers is better. From
such pairs, [`minillm.tuning.preferences`][] derives a loss that needs no reward
and no sampling while it trains, [`dpo_loss`][minillm.tuning.preferences.dpo_loss]. With
pairs of a right and a wrong answer from the same samples as above:

>>> scores("pairs")

Better than the demonstrations, and not as good as the answers that the pairs are made
of. What happens on the way has puzzled many. Mean log-probability of the chosen answers
and of the rejected ones:

>>> for r in runs("pairs"):
...     at = {row[0]: row for row in r["curve"]}
...     print(*(f"{i}: {at[i][2]:.1f} {at[i][3]:.1f};" for i in (1, 50, 800)))

*Both* fall at first. The loss asks for a difference, and the rejected answers give way
more easily.

# 8. Estimators, and what they are worth

Published variants differ in small things. Each is an experiment of one entry:

>>> for name in ("policy, sort", "baseline of the group", "baseline of the batch", "mean over sequences"):
...     print(name, scores(name, k=1))
>>> for name in ("sampled at 0.5", "sampled and scored at 0.5"):
...     print(name, scores(name, k=1))

# What we leave out

# References

"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minillm.model import TransformerLM
from minillm.train import cross_entropy
from minillm.tuning.divergence import kl_estimates
from minillm.tuning.preferences import dpo_loss

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
    r"""Cross-entropy over the tokens that are learned, and no others.

    Args:
        logits: the model's, for each position.
        targets: the token that comes next at each position.
        mask: True where the *target* is to be learned: the answer and the token that
            ends it. It is shifted like the targets, `mask[:, 1:]` for `ids[:, 1:]`.

    Returns:
        The mean over all learned tokens of the batch: a long answer weighs more than a
        short one.

    Raises:
        ValueError: if no token is learned.

    Examples:
        What stands outside the mask does not count, right or wrong:

        >>> logits, mask = torch.randn(2, 3, 5), torch.tensor([[0, 1, 1], [0, 0, 1]])
        >>> a = sft_loss(logits, torch.tensor([[4, 1, 2], [0, 0, 3]]), mask.bool())
        >>> b = sft_loss(logits, torch.tensor([[0, 1, 2], [1, 2, 3]]), mask.bool())
        >>> torch.equal(a, b)
        True

        A batch in which all answers were cut off has nothing to learn. The mean over
        nothing is not a number, and one step with it would ruin every weight:

        >>> torch.tensor([]).mean().item()
        nan
        >>> sft_loss(logits, torch.zeros(2, 3).long(), torch.zeros(2, 3).bool())
        Traceback (most recent call last):
        ValueError: no token of the batch is learned: leave the batch out
    """
    _need_tokens(mask)
    return cross_entropy(logits[mask], targets[mask])


def _need_tokens(mask: Bool[Tensor, "batch seq"]) -> None:
    if not mask.any():
        raise ValueError("no token of the batch is learned: leave the batch out")


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
    logits = model(ids[:, :-1]) / temperature
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)


def group_advantages(
    rewards: Float[Tensor, "groups size"], scale: bool = True
) -> Float[Tensor, "groups size"]:
    r"""Compare each answer with the others to the same prompt.

    $$A_i = \frac{R_i - \operatorname{mean}(R)}{\operatorname{std}(R)}$$

    (Shao et al. 2024, section 4.1.2.) The deviation is that of a sample, with $n - 1$.

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

        Neither the zero of the rewards nor their unit matters:

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
        ValueError: if no token was sampled.

    Examples:
        At the first step the model is the one that sampled. All ratios are one, and the
        loss of a group is the mean of advantages whose sum is zero. Its gradient is that
        of $-A \ln \pi$, as in REINFORCE:

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
    _need_tokens(mask)
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
