r"""Lab 4: from demonstrations to rewards.

**The question.** [`minillm.posttraining`][] explains how a model learns from
demonstrations, from rewards and from preferences. Which of these does what, on the same
model, the same task and the same compute? Every run of this lab starts from a fresh
model of about 100,000 weights, fine-tunes it on a few demonstrations of a task
([`minillm.lab_answers`][]), and then trains it in one of three ways:

- *policy*: sample several answers to each prompt, score them, and follow the policy
  gradient ([`policy_loss`][minillm.posttraining.policy_loss]);
- *own*: keep the sampled answers that are right, and fine-tune on them;
- *pairs*: put a right and a wrong answer to the same prompt side by side
  ([`dpo_loss`][minillm.posttraining.dpo_loss]).

All three are one loop: `rounds` times, sample `samples` answers to `prompts` problems,
then take `updates` steps on them. The configuration has all that differs
([`BASE`][minillm.lab_posttraining.BASE]), and what it costs can be counted before it
runs, sampling and training apart:

>>> sampling, training = compute(BASE)
>>> f"{sampling:.2e} FLOPs of sampling, {training:.2e} of training"
'3.09e+11 FLOPs of sampling, 1.77e+12 of training'
>>> own = BASE | {"method": "own", "rounds": 8, "prompts": 3200, "updates": 400}
>>> compute(own) == (sampling, training)  # 8 x 3,200 prompts are 400 x 64
True

**What is measured.** Many answers are sampled to problems that no training has seen.
From the number of right ones per problem comes
[`pass_at_k`][minillm.evaluation.pass_at_k], the probability that one of $k$ answers is
right; `before` is the model after its demonstrations, `after` the model in the end.

**Told in** [`minillm.posttraining`][], on the bench of [`minillm.labs`][].
"""

from collections.abc import Callable
from functools import cache
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from minillm.config import ModelConfig
from minillm.evaluation import pass_at_k
from minillm.flops import aligned, forward_flops, training_flops
from minillm.inference.batched import Samples, sample_batch
from minillm.lab_answers import (
    END,
    SIGNS,
    TASKS,
    decode,
    draw_problems,
    encode,
    held_out,
    pack,
    reward,
)
from minillm.labs import Config, Lab, Point, by_config, plan
from minillm.model import TransformerLM
from minillm.posttraining import (
    dpo_loss,
    group_advantages,
    kl_estimates,
    log_probs,
    policy_loss,
    sft_loss,
)
from minillm.train import AdamW, clip_gradients, cosine_schedule

__all__ = ["BASE", "LAB", "VARIANTS", "Learner", "compute", "fine_tuned"]

BATCH = 64  # demonstrations, or pairs, in a step

BASE: Config = {
    "task": "sort",
    "demonstrations": 150,
    "sft_steps": 150,
    "learn": "answer",  # what of a demonstration is learned
    "method": "policy",
    "rounds": 400,
    "prompts": 64,
    "samples": 8,
    "updates": 1,
    "lr": 7e-4,
    "reward": "exact",
    "shift": 0.0,  # added to every reward
    "baseline": "scaled",  # or group (no division), batch, none
    "clip": 0.2,
    "mean": "tokens",  # or sequences
    "temperature": 1.0,  # of the sampling
    "scored_at": 1.0,  # and of the log-probabilities in the loss
    "kl": 0.0,
    "beta": 0.1,
    "k": 64,  # samples of each held-out problem
}
"""The configuration from which the others differ in a few entries."""

SPLIT = {"task": "split", "demonstrations": 1000, "sft_steps": 400, "lr": 1e-3}
BOOKED = {"task": "book", "demonstrations": 6400, "sft_steps": 900, "lr": 7e-4}
OWN = {"method": "own", "lr": 1e-3}
PAIRS = {"method": "pairs", "updates": 800, "rounds": 1, "prompts": 25600, "lr": 1e-3}
SHORT = {"rounds": 100}
HACKED = {"rounds": 200, "reward": "in order"}

VARIANTS: dict[str, Config] = {
    "policy, sort": BASE | {"k": 256},
    "policy, split": BASE | SPLIT | {"k": 256},
    "no baseline, 0 and 1": BASE | {"baseline": "none"},
    "no baseline, -1 and 0": BASE | {"baseline": "none", "shift": -1.0},
    "no baseline, 1 and 2": BASE | {"baseline": "none", "shift": 1.0},
    "in order": BASE | HACKED,
    "own, one round": BASE | OWN | {"rounds": 1, "prompts": 25600, "updates": 3200},
    "own, eight rounds": BASE | OWN | {"rounds": 8, "prompts": 3200, "updates": 400},
    "100 rounds": BASE | SHORT,
    "four updates": BASE | SHORT | {"updates": 4},
    "four updates, no clip": BASE | SHORT | {"updates": 4, "clip": None},
    "pairs": BASE | PAIRS,
}
"""The runs by name."""


def compute(config: Config) -> tuple[int, int]:
    """Count the FLOPs of a run after its demonstrations.

    Args:
        config: the run.

    Returns:
        Those of sampling, as if every answer had the greatest length; and those of
        training, the forward passes of a reference model included.
    """
    shape, task = _shape(config["task"]), TASKS[config["task"]]
    prompts, rounds, updates = (config[k] for k in ("prompts", "rounds", "updates"))
    batch, width = prompts * config["samples"], task.prompt + task.answer - 1
    sampling = forward_flops(shape, prompts, task.prompt).total + sum(
        forward_flops(shape, batch, 1, past=past).total
        for past in range(task.prompt, width)
    )
    if config["method"] == "policy":
        step = training_flops(shape, batch, width)
        if config["kl"]:
            step += forward_flops(shape, batch, width).total
        return rounds * sampling, rounds * updates * step
    sequences = BATCH if config["method"] == "own" else 2 * BATCH
    training = updates * training_flops(shape, sequences, width)
    if config["method"] == "pairs":  # at most half of the samples are right ones
        training += forward_flops(shape, batch, width).total
    return rounds * sampling, rounds * training


def _shape(task: str) -> ModelConfig:
    length = TASKS[task].prompt + TASKS[task].answer
    return ModelConfig(len(SIGNS), length, d_model=64, n_layers=2, n_heads=4)


class Learner:
    """A model, its optimizer, and a random number generator.

    Args:
        config: the run.
        seed: fixes weights, problems and samples.

    Attributes:
        model: the model.
    """

    def __init__(self, config: Config, seed: int) -> None:
        torch.manual_seed(seed)
        self.config = config
        self.model = TransformerLM(_shape(config["task"]))
        self.chance = torch.Generator().manual_seed(seed)
        self.weights = list(self.model.parameters())
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
    # Facts that were never shown cannot be known: only of the book all are.
    shown = draw_problems(task, demonstrations, learner.chance, task == "book")
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
    """
    keys = ("task", "demonstrations", "sft_steps", "learn")
    learner = Learner(config, seed)
    learner.model.load_state_dict(_demonstrated(*(config[k] for k in keys), seed))
    learner.chance.manual_seed(1000 + seed)  # not the demonstrations once more
    return learner


def _policy(learner: Learner, reference: TransformerLM) -> list[list[float]]:
    c, curve = learner.config, []
    for done in range(1, c["rounds"] + 1):
        problems = draw_problems(c["task"], c["prompts"], learner.chance)
        samples, answers = learner.sample(problems)
        truth, rewards = (
            torch.tensor([
                [reward(name, c["task"], p, a) for a in row]
                for p, row in zip(problems, answers, strict=True)
            ])
            for name in ("exact", c["reward"])
        )
        advantages = _advantages(rewards + c["shift"], c["baseline"]).flatten()
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
        for _ in range(c["updates"]):
            new = log_probs(learner.model, ids, c["scored_at"])
            loss = policy_loss(
                new, old, advantages, mask, c["clip"], c["mean"] == "sequences"
            )
            if c["kl"]:
                k3 = kl_estimates(new, there)[1]
                loss = loss + c["kl"] * k3[mask].mean()
            learner.step(loss, c["lr"], c["rounds"] * c["updates"])
    return curve


def _advantages(rewards: Tensor, baseline: str) -> Tensor:
    if baseline == "none":
        return rewards
    if baseline == "batch":
        return rewards - rewards.mean()
    return group_advantages(rewards, scale=baseline == "scaled")


def _collect(learner: Learner) -> list[tuple[str, list[str], list[str]]]:
    """For each problem of a round, the right and the wrong answers."""
    c, found = learner.config, []
    for start in range(0, c["prompts"], 256):
        n = min(256, c["prompts"] - start)
        problems = draw_problems(c["task"], n, learner.chance)
        for p, row in zip(problems, learner.sample(problems)[1], strict=True):
            right = [a for a in row if TASKS[c["task"]].right(p, a)]
            found.append((p, right, [a for a in row if a not in right]))
    return found


def _own(learner: Learner, reference: TransformerLM) -> list[list[float]]:
    c, curve = learner.config, []
    for done in range(1, c["rounds"] + 1):
        pairs = [(p, a) for p, right, _ in _collect(learner) for a in right]
        share = len(pairs) / (c["prompts"] * c["samples"])
        curve.append([done, round(share, 4)])
        learner.imitate(pairs, c["updates"], c["lr"], c["rounds"] * c["updates"])
    return curve


def _pairs(learner: Learner, reference: TransformerLM) -> list[list[float]]:
    c, curve = learner.config, []
    for done in range(c["rounds"]):
        start = TransformerLM(learner.model.config)
        start.load_state_dict(learner.model.state_dict())
        triples = [
            (p, a, b)
            for p, right, wrong in _collect(learner)
            for a, b in zip(right, wrong, strict=False)
        ]
        sides = [pack(c["task"], [(t[0], t[i]) for t in triples]) for i in (1, 2)]
        with torch.no_grad():
            refs = [_whole(start, *side) for side in sides]
        for step in range(c["updates"]):
            i = torch.randint(len(triples), (BATCH,), generator=learner.chance)
            new = [_whole(learner.model, ids[i], mask[i]) for ids, mask in sides]
            loss = dpo_loss(new[0], new[1], refs[0][i], refs[1][i], c["beta"])
            fell = (new[0] < refs[0][i]).double().mean()
            row = (loss, new[0].mean(), new[1].mean(), fell)
            if step in (0, 24, 49, 99) or (step + 1) % 100 == 0:
                at = done * c["updates"] + step + 1
                curve.append([at, *(round(x.item(), 4) for x in row)])
            learner.step(loss, c["lr"], c["rounds"] * c["updates"])
    return curve


def _whole(model: TransformerLM, ids: Tensor, mask: Tensor) -> Tensor:
    """The log-probability of each whole answer."""
    return (log_probs(model, ids) * mask[:, 1:]).sum(1)


METHODS: dict[str, Callable[[Learner, TransformerLM], list[list[float]]]] = {
    "policy": _policy,
    "own": _own,
    "pairs": _pairs,
}


def _examine(learner: Learner) -> tuple[dict[str, Any], list[int], list[list[str]]]:
    """Answer the held-out problems: scores, right answers of each, and the texts."""
    c = learner.config
    quiz = Learner(c | {"samples": c["k"], "temperature": 1.0}, seed=0)
    quiz.model, problems = learner.model, list(held_out(c["task"]))
    samples, texts = quiz.sample(problems)
    counts = [
        sum(TASKS[c["task"]].right(p, a) for a in row)
        for p, row in zip(problems, texts, strict=True)
    ]
    ended = [a.endswith(".") for row in texts for a in row]
    at = {k: fmean(pass_at_k(c["k"], n, k) for n in counts) for k in _powers(c["k"])}
    scores = {
        "pass": {str(k): round(p, 4) for k, p in at.items()},
        "entropy": round(-samples.log_probs[samples.mask].mean().item(), 4),
        "distinct": round(fmean(len(set(row)) for row in texts), 2),
        "ended": round(fmean(ended), 4),
    }
    return scores, counts, texts


def _powers(most: int) -> list[int]:
    return [4**i for i in range(most.bit_length()) if 4**i <= most]


def _run(config: Config, seed: int) -> dict[str, Any]:
    learner = fine_tuned(config, seed)
    reference = fine_tuned(config, seed).model
    before, counts_before, texts_before = _examine(learner)
    curve = METHODS[config["method"]](learner, reference)
    after, counts_after, texts_after = _examine(learner)
    sampling, training = compute(config)
    some = list(held_out(config["task"]))[:4]
    return {
        "sampling_flops": sampling,
        "training_flops": training,
        "before": before,
        "after": after,
        "counts": [counts_before, counts_after],
        "curve": curve,
        "texts": [
            [p, texts_before[i][:4], texts_after[i][:4]] for i, p in enumerate(some)
        ],
    }


def _points(quick: bool) -> list[Point]:
    if quick:
        names = ("policy, sort", "no baseline, 1 and 2", "in order")
        return plan([VARIANTS[name] | {"k": 64, "rounds": 150} for name in names], 1)
    return plan(VARIANTS.values(), seeds=3)


def _report(results: list[dict[str, Any]]) -> str:
    rows = [["run", "FLOPs", "seeds", "before", "after", "pass@k before", "after"]]
    for config, same in by_config(results):
        names = [n for n, known in VARIANTS.items() if known == config]
        changed = {k: v for k, v in config.items() if v != BASE[k]}
        k = str(config["k"])
        scores = [
            f"{fmean(r[when]['pass'][at] for r in same):.3f}"
            for at in ("1", k)
            for when in ("before", "after")
        ]
        name = names[0] if names else str(changed)
        rows.append([name, f"{same[0]['flops']:.1e}", str(len(same)), *scores])
    return aligned(rows)


LAB = Lab(
    "posttraining", 1, _points, _run, lambda config: sum(compute(config)), _report
)
