r"""Three ways to learn from answers that can be checked.

**The question.** What differs between reinforcement learning, training on one's own
right answers, and preferences? Little: [`policy`][minillm.labs.learners.policy],
[`own`][minillm.labs.learners.own] and [`pairs`][minillm.labs.learners.pairs] are a loop
each. All else, the model, the demonstrations from which it starts, optimizer, schedule
and sampling, is the same [`Learner`][minillm.labs.learners.Learner].

**Used by** [`minillm.labs.posttraining`][], which names the entries of a configuration.
"""

import warnings
from collections.abc import Callable, Sized
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minillm.config import ModelConfig
from minillm.inference.batched import Samples, sample_batch
from minillm.labs.answers import (
    END,
    SIGNS,
    TASKS,
    decode,
    draw_problems,
    encode,
    pack,
    reward,
)
from minillm.labs.judges import JUDGED, STEPS, Judge
from minillm.model import TransformerLM
from minillm.train import AdamW, clip_gradients, cosine_schedule
from minillm.training.divergence import kl_estimates
from minillm.training.imitation import sft_loss
from minillm.training.policy import group_advantages, log_probs, policy_loss
from minillm.training.preferences import dpo_loss

__all__ = [
    "BATCH",
    "METHODS",
    "Learner",
    "fine_tuned",
    "own",
    "pairs",
    "policy",
    "shape",
]

BATCH = 64
"""Demonstrations, or pairs, in a step."""
SILENT = 20
"""After so many rounds without any gradient there is a warning."""
Config = dict[str, Any]


def shape(task: str) -> ModelConfig:
    """Give the shape of the model for a task.

    Args:
        task: its name.

    Returns:
        Two layers of width 64, and a context that holds the longest problem and answer.

    Examples:
        >>> shape("sort").context_length
        14
    """
    length = TASKS[task].prompt + TASKS[task].answer
    return ModelConfig(len(SIGNS), length, d_model=64, n_layers=2, n_heads=4)


class Learner:
    """A model, its optimizer, and a random number generator.

    Args:
        config: the run.
        seed: fixes weights, problems and samples.

    Attributes:
        model: the model.
        agreement: of how many pairs its learned reward, if it has one, prefers the
            right answer.

    Examples:
        >>> config = {"task": "sort", "samples": 3, "temperature": 1.0}
        >>> learner = Learner(config, seed=0)
        >>> samples, answers = learner.sample(["593214:", "000001:"])
        >>> [len(row) for row in answers], samples.ids.shape[0]
        ([3, 3], 6)
    """

    def __init__(self, config: Config, seed: int) -> None:
        torch.manual_seed(seed)
        self.config = config
        self.model = TransformerLM(shape(config["task"]))
        self.chance = torch.Generator().manual_seed(seed)
        self.weights = list(self.model.parameters())
        self.agreement: float | None = None
        self.restart()

    def restart(self) -> None:
        """Forget the optimizer's means, not the weights."""
        self.optimizer = AdamW(self.weights, betas=(0.9, 0.95), weight_decay=0.0)
        self.done = 0

    def step(self, loss: Tensor, max_lr: float, steps: int) -> None:
        """Take one step down a loss, of `steps` in all.

        Args:
            loss: the loss.
            max_lr: the highest learning rate; the first ten steps warm up.
            steps: how many steps there will be.
        """
        self.done += 1
        lr = cosine_schedule(self.done, max_lr, max_lr / 10, 10, steps)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        loss.backward()
        clip_gradients(self.weights, 1.0)
        self.optimizer.step()

    def imitate(
        self, pairs: list[tuple[str, str]], updates: int, max_lr: float, steps: int
    ) -> None:
        """Fine-tune on problems and answers.

        Args:
            pairs: the problems and their answers.
            updates: how many steps to take.
            max_lr: the highest learning rate.
            steps: how many steps there are in all, for the schedule.
        """
        ids, mask = pack(self.config["task"], pairs, self.config["learn"])
        for _ in range(updates):
            i = torch.randint(len(ids), (BATCH,), generator=self.chance)
            loss = sft_loss(self.model(ids[i, :-1]), ids[i, 1:], mask[i, 1:])
            self.step(loss, max_lr, steps)

    def sample(self, problems: list[str]) -> tuple[Samples, list[list[str]]]:
        """Answer each problem several times.

        Args:
            problems: the problems.

        Returns:
            The samples as tensors, and for each problem its answers as texts.
        """
        c = self.config
        samples = sample_batch(
            self.model,
            [encode(problem) for problem in problems],
            TASKS[c["task"]].answer,
            n=c["samples"],
            temperature=c["temperature"],
            stop_ids=[END],
            random=self.chance,
        )
        texts = [decode(ids) for ids in samples.new_ids()]
        n = c["samples"]
        return samples, [texts[i : i + n] for i in range(0, len(texts), n)]


@cache
def _demonstrated(
    task: str, demonstrations: int, steps: int, learn: str, seed: int
) -> dict[str, Tensor]:
    learner = Learner({"task": task, "learn": learn}, seed)
    shown = draw_problems(task, demonstrations, learner.chance)
    pairs = [(p, TASKS[task].solve(p, learner.chance)) for p in shown]
    learner.imitate(pairs, steps, 2e-3, steps)
    return learner.model.state_dict()


def fine_tuned(config: Config, seed: int) -> Learner:
    """Train a model on demonstrations, the same one whenever it is asked for.

    Args:
        config: the run.
        seed: the seed.

    Returns:
        The learner, with a fresh optimizer.

    Examples:
        >>> from minillm.labs.posttraining import BASE
        >>> quick = BASE | {"demonstrations": 64, "sft_steps": 2}
        >>> one, two = fine_tuned(quick, seed=0), fine_tuned(quick, seed=0)
        >>> all(torch.equal(a, b) for a, b in zip(one.weights, two.weights))
        True
    """
    keys = ("task", "demonstrations", "sft_steps", "learn")
    learner = Learner(config, seed)
    learner.model.load_state_dict(_demonstrated(*(config[k] for k in keys), seed))
    learner.chance.manual_seed(1000 + seed)  # not the demonstrations once more
    return learner


def policy(learner: Learner, reference: TransformerLM) -> list[list[float]]:
    """Follow the policy gradient.

    Args:
        learner: changed in place.
        reference: the model before, for the KL term and the curve.

    Returns:
        About forty rows, taken from the samples of training: round, mean reward, share
        of right answers, nats of entropy per token, KL divergence from the reference in
        nats per answer, share of groups whose rewards are all equal.
    """
    c, curve, silent = learner.config, [], 0
    judge = learned_judge(learner) if c["reward"] == "learned" else None
    for done in range(1, c["rounds"] + 1):
        problems = draw_problems(c["task"], c["prompts"], learner.chance)
        samples, answers = learner.sample(problems)
        truth = _rewards("exact", c["task"], problems, answers)
        if judge is None:
            rewards = _rewards(c["reward"], c["task"], problems, answers)
        else:
            with torch.no_grad():
                scores = judge.scores(samples.ids, samples.mask)
            rewards = scores.view(len(problems), -1)
        advantages = _advantages(rewards + c["shift"], c["baseline"]).flatten()
        silent = 0 if advantages.any() else silent + 1
        if silent == SILENT:
            warnings.warn(
                f"in {SILENT} rounds all answers to a prompt had equal rewards (last: "
                f"{rewards.flatten()[0]:g}), so nothing is learned: start from more "
                "demonstrations, or give a reward for parts",
                stacklevel=2,
            )
        ids, mask, old = samples.ids, samples.mask[:, 1:], samples.log_probs[:, 1:]
        looks = done == 1 or done % max(1, c["rounds"] // 40) == 0
        if looks or c["kl"]:
            with torch.no_grad():
                there = log_probs(reference, ids, c["scored_at"])
        if looks:
            flat = (rewards == rewards[:, :1]).all(1).double().mean()
            entropy = -old[mask].mean()
            kl = ((old - there) * mask).sum(1).mean()
            row = (rewards.mean(), truth.mean(), entropy, kl, flat)
            curve.append([done, *(round(x.item(), 4) for x in row)])
        # Where the advantage is zero, so is the gradient, and nothing need be computed;
        # the loss is still the mean over all tokens, or all sequences, that there are.
        kept = (advantages != 0) | bool(c["kl"])
        each = c["mean"] == "sequences"
        share = kept.double().mean() if each else mask[kept].sum() / mask.sum()
        if not kept.any():
            continue
        for _ in range(c["updates"]):
            new = log_probs(learner.model, ids[kept], c["scored_at"])
            loss = share * policy_loss(
                new, old[kept], advantages[kept], mask[kept], c["clip"], each
            )
            if c["kl"]:
                k3 = kl_estimates(new, there)[1]
                loss = loss + c["kl"] * k3[mask].mean()
            learner.step(loss, c["lr"], c["rounds"] * c["updates"])
    return curve


def _rewards(
    name: str, task: str, problems: list[str], answers: list[list[str]]
) -> Float[Tensor, "groups size"]:
    return torch.tensor([
        [reward(name, task, p, a) for a in row]
        for p, row in zip(problems, answers, strict=True)
    ])


def _advantages(
    rewards: Float[Tensor, "groups size"], baseline: str
) -> Float[Tensor, "groups size"]:
    if not rewards.isfinite().all():
        raise ValueError("a reward is not a finite number: look at the verifier")
    if baseline == "none":
        return rewards
    if baseline == "batch":
        return rewards - rewards.mean()
    return group_advantages(rewards, scale=baseline == "scaled")


def _collect(learner: Learner, n: int) -> list[tuple[str, list[str], list[str]]]:
    """For each of `n` problems, the right and the wrong answers."""
    c, found = learner.config, []
    for start in range(0, n, 256):
        n_now = min(256, n - start)
        problems = draw_problems(c["task"], n_now, learner.chance)
        for p, row in zip(problems, learner.sample(problems)[1], strict=True):
            right = [a for a in row if TASKS[c["task"]].right(p, a)]
            found.append((p, right, [a for a in row if a not in right]))
    return found


def own(learner: Learner, reference: TransformerLM) -> list[list[float]]:
    """Fine-tune on the right ones among the samples.

    Args:
        learner: changed in place.
        reference: not needed.

    Returns:
        A row for each round: its number, and the share of samples that were right.
    """
    c, curve = learner.config, []
    for done in range(1, c["rounds"] + 1):
        pairs = [
            (p, a) for p, right, _ in _collect(learner, c["prompts"]) for a in right
        ]
        _need(pairs)
        share = len(pairs) / (c["prompts"] * c["samples"])
        curve.append([done, round(share, 4)])
        learner.imitate(pairs, c["updates"], c["lr"], c["rounds"] * c["updates"])
    return curve


def pairs(learner: Learner, reference: TransformerLM) -> list[list[float]]:
    """Prefer right answers to wrong ones. Each round starts from a new reference.

    Args:
        learner: changed in place.
        reference: not needed, since the first round starts from it.

    Returns:
        Rows on the way: step, loss, mean log-probability of chosen answers and of
        rejected ones, share of chosen answers that are less likely than at the start.
    """
    c, curve = learner.config, []
    for done in range(c["rounds"]):
        start = TransformerLM(learner.model.config)
        start.load_state_dict(learner.model.state_dict())
        sides = _sides(learner, c["prompts"])
        with torch.no_grad():
            refs = [_whole(start, *side) for side in sides]
        for step in range(c["updates"]):
            i = torch.randint(len(sides[0][0]), (BATCH,), generator=learner.chance)
            new = [_whole(learner.model, ids[i], mask[i]) for ids, mask in sides]
            loss = dpo_loss(new[0], new[1], refs[0][i], refs[1][i], c["beta"])
            fell = (new[0] < refs[0][i]).double().mean()
            row = (loss, new[0].mean(), new[1].mean(), fell)
            if step in (0, 24, 49, 99) or (step + 1) % 100 == 0:
                at = done * c["updates"] + step + 1
                curve.append([at, *(round(x.item(), 4) for x in row)])
            learner.step(loss, c["lr"], c["rounds"] * c["updates"])
    return curve


def _sides(
    learner: Learner, n: int
) -> list[tuple[Int[Tensor, "pairs seq"], Bool[Tensor, "pairs seq"]]]:
    """Sample answers to `n` problems: the right ones, and a wrong one beside each."""
    triples = [
        (p, a, b)
        for p, right, wrong in _collect(learner, n)
        for a, b in zip(right, wrong, strict=False)
    ]
    _need(triples)
    task = learner.config["task"]
    return [pack(task, [(t[0], t[i]) for t in triples]) for i in (1, 2)]


def learned_judge(learner: Learner) -> Judge:
    """Train a reward model on pairs of the learner's own answers, right beside wrong.

    Args:
        learner: the model that answers; its configuration says how many pairs are
            `judged`. Of how many other pairs the reward model prefers the right answer
            is noted in its `agreement`.

    Returns:
        The reward model.
    """
    chosen, rejected = _sides(learner, JUDGED)
    n = learner.config.get("judged", 512)
    judge = Judge(learner.model)
    judge.learn(
        (chosen[0][:n], chosen[1][:n]),
        (rejected[0][:n], rejected[1][:n]),
        learner.chance,
        STEPS,
    )
    rest = (chosen[0][n:], chosen[1][n:]), (rejected[0][n:], rejected[1][n:])
    learner.agreement = round(judge.agreement(*rest), 4)
    return judge


def _need(found: Sized) -> None:
    if not found:
        raise ValueError(
            "no sample can be learned from: all are wrong (or, for pairs, all answers "
            "to a prompt are alike): start from more demonstrations"
        )


def _whole(
    model: TransformerLM,
    ids: Int[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
) -> Float[Tensor, " batch"]:
    """The log-probability of each whole answer."""
    return (log_probs(model, ids) * mask[:, 1:]).sum(1)


METHODS: dict[str, Callable[[Learner, TransformerLM], list[list[float]]]] = {
    "policy": policy,
    "own": own,
    "pairs": pairs,
}
