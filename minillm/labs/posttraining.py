r"""Lab 5: from demonstrations to rewards.

**The question.** [`minillm.posttraining`][] explains how a model learns from
demonstrations, from rewards and from preferences. Which of these does what, on the same
model, the same task and the same compute? Every run of this lab starts from a fresh
model of about 100,000 weights, fine-tunes it on a few demonstrations of a task
([`minillm.labs.answers`][]), and then trains it in one of three ways:

- *policy*: sample several answers to each prompt, score them, and follow the policy
  gradient ([`policy_loss`][minillm.training.policy.policy_loss]);
- *own*: keep the sampled answers that are right, and fine-tune on them;
- *pairs*: put a right and a wrong answer to the same prompt side by side
  ([`dpo_loss`][minillm.training.preferences.dpo_loss]).

All three are one loop: `rounds` times, sample `samples` answers to `prompts` problems,
then take `updates` steps on them. The configuration has all that differs
([`BASE`][minillm.labs.posttraining.BASE]), and what it costs can be counted before it
runs, sampling and training apart:

>>> cost = compute(BASE)
>>> f"{cost.sampling:.2e} FLOPs of sampling, {cost.training:.2e} of training"
'7.74e+10 FLOPs of sampling, 4.42e+11 of training'
>>> compute(VARIANTS["own, eight rounds"]) == compute(BASE)
True

**What is measured.** Many answers are sampled to problems that no training has seen.
From the number of right ones per problem comes
[`pass_at_k`][minillm.inference.tries.pass_at_k], the probability that one of $k$
answers is right; `before` is the model after its demonstrations, `after` the model in
the end.

**Told in** [`minillm.posttraining`][], on the bench of [`minillm.labs.bench`][].
"""

from functools import cache
from statistics import fmean
from typing import Any, NamedTuple

from minillm.flops import aligned, forward_flops, training_flops
from minillm.inference.tries import pass_at_k
from minillm.labs import judges
from minillm.labs.answers import TASKS, held_out
from minillm.labs.bench import Config, Lab, Point, by_config, committed, plan
from minillm.labs.learners import BATCH, METHODS, Learner, fine_tuned, shape

__all__ = ["BASE", "LAB", "VARIANTS", "Compute", "compute", "rates", "runs"]

BASE: Config = {
    "task": "sort",
    "demonstrations": 150,
    "sft_steps": 150,
    "learn": "answer",  # what of a demonstration is learned
    "method": "policy",
    "rounds": 100,
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

SPLIT: Config = {"task": "split", "demonstrations": 1000, "sft_steps": 400, "lr": 1e-3}
LONG: Config = {"rounds": 400, "k": 256}
# As many samples as the policy has in 100 rounds, and as many FLOPs of training.
OWN: Config = {"method": "own", "lr": 1e-3, "rounds": 8, "prompts": 800, "updates": 100}
ONCE: Config = {"rounds": 1, "prompts": 6400}
CHANGES: dict[str, Config] = {
    "policy, sort": {},
    "policy, split": SPLIT,
    "no baseline, 0 and 1": {"baseline": "none"},
    "no baseline, -1 and 0": {"baseline": "none", "shift": -1.0},
    "no baseline, 1 and 2": {"baseline": "none", "shift": 1.0},
    "own, eight rounds": OWN,
    "own, one round": OWN | ONCE | {"updates": 800},
    "KL 0.1": {"kl": 0.1},
    "in order": {"reward": "in order"},
    "in order, KL 0.1": {"reward": "in order", "kl": 0.1},
    "each position": {"reward": "each position"},
    "learned reward": {"reward": "learned", "judged": 512, "rounds": 60},
    "pairs": ONCE | {"method": "pairs", "updates": 200, "lr": 3e-4},
    "unended": {"rounds": 0, "learn": "unended"},
    "four updates": {"updates": 4},
    "four updates, no clip": {"updates": 4, "clip": None},
    "sixteen updates": {"rounds": 25, "updates": 16},
    "sixteen updates, no clip": {"rounds": 25, "updates": 16, "clip": None},
    "baseline of the group": {"baseline": "group"},
    "baseline of the batch": {"baseline": "batch"},
    "sampled at 0.5": {"temperature": 0.5},
    "sampled and scored at 0.5": {"temperature": 0.5, "scored_at": 0.5},
    "split, mean over sequences": SPLIT | {"mean": "sequences"},
    "policy, sort, 400 rounds": LONG,
    "policy, split, 400 rounds": SPLIT | LONG,
    "policy, parity": {"task": "parity", "rounds": 200},
    "policy, table": {"task": "table", "rounds": 200},
}
CHANGES |= {
    f"{n} demonstrations, {learn}": {
        "rounds": 0,
        "demonstrations": n,
        "sft_steps": 300,
        "learn": learn,
    }
    for n in (50, 500, 5000)
    for learn in ("answer", "all")
}
VARIANTS: dict[str, Config] = {name: BASE | some for name, some in CHANGES.items()}
"""The runs by name; with no rounds, only the demonstrations are learned."""


class Compute(NamedTuple):
    """The FLOPs of a run, by what they are spent on.

    Attributes:
        demonstrations: learning from these.
        sampling: as if every answer had the greatest length.
        training: all that comes after, the forward passes of a reference included. What
            [`policy`][minillm.labs.learners.policy] saves where no answer stands out is
            not taken off.
    """

    demonstrations: int
    sampling: int
    training: int


def compute(config: Config) -> Compute:
    """Count the FLOPs of a run before it starts.

    Args:
        config: the run.

    Returns:
        The FLOPs.
    """
    model, task = shape(config["task"]), TASKS[config["task"]]
    prompts, rounds, updates = (config[k] for k in ("prompts", "rounds", "updates"))
    batch, width = prompts * config["samples"], task.prompt + task.answer - 1
    sampling = rounds * _sampling(config, prompts)
    shown = config["sft_steps"] * training_flops(model, BATCH, width)
    if config["method"] == "policy":
        step = training_flops(model, batch, width)
        if config["kl"]:
            step += forward_flops(model, batch, width).total
        training = rounds * updates * step
        if config["reward"] == "learned":
            sampling += _sampling(config, judges.JUDGED)
            pairs = training_flops(model, 2 * judges.BATCH, width + 1)
            scoring = forward_flops(model, batch, width + 1).total
            training += judges.STEPS * pairs + rounds * scoring
        return Compute(shown, sampling, training)
    sequences = BATCH if config["method"] == "own" else 2 * BATCH
    training = updates * training_flops(model, sequences, width)
    if config["method"] == "pairs":  # at most half of the samples are right ones
        training += forward_flops(model, batch, width).total
    return Compute(shown, sampling, rounds * training)


def _sampling(config: Config, prompts: int) -> int:
    model, task = shape(config["task"]), TASKS[config["task"]]
    return forward_flops(model, prompts, task.prompt).total + sum(
        forward_flops(model, prompts * config["samples"], 1, past=past).total
        for past in range(task.prompt, task.prompt + task.answer - 1)
    )


Examined = tuple[dict[str, Any], list[int], list[list[str]]]
START = ("task", "demonstrations", "sft_steps", "learn", "k")


def _examine(learner: Learner) -> Examined:
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


def _lengths(task: str, texts: list[list[str]]) -> list[float | None]:
    """How many characters the right answers have on average, and the wrong ones."""
    found: dict[bool, list[int]] = {True: [], False: []}
    for problem, row in zip(held_out(task), texts, strict=True):
        for answer in row:
            found[TASKS[task].right(problem, answer)].append(len(answer))
    return [round(fmean(some), 3) if some else None for some in found.values()]


def _powers(most: int) -> list[int]:
    return [4**i for i in range(most.bit_length()) if 4**i <= most]


@cache
def _before(start: tuple[tuple[str, Any], ...], seed: int) -> Examined:
    # Runs that differ in what comes later start from the same model.
    return _examine(fine_tuned(BASE | dict(start), seed))


def _run(config: Config, seed: int) -> dict[str, Any]:
    learner = fine_tuned(config, seed)
    reference = fine_tuned(config, seed).model
    start = {key: config[key] for key in START}
    before, counts_before, texts_before = _before(tuple(start.items()), seed)
    curve = METHODS[config["method"]](learner, reference)
    after, counts_after, texts_after = _examine(learner)
    cost = compute(config)
    some = list(held_out(config["task"]))[:4]
    return {
        "sampling_flops": cost.sampling,
        "training_flops": cost.training,
        "before": before,
        "after": after,
        "counts": [counts_before, counts_after],
        "curve": curve,
        "agreement": learner.agreement,
        "lengths": [
            _lengths(config["task"], texts) for texts in (texts_before, texts_after)
        ],
        "texts": [
            [p, texts_before[i][:4], texts_after[i][:4]] for i, p in enumerate(some)
        ],
    }


def _points(quick: bool) -> list[Point]:
    if quick:
        names = (
            "policy, sort",
            "no baseline, 1 and 2",
            "in order",
            "own, eight rounds",
        )
        return plan([VARIANTS[name] for name in names], seeds=1)
    return plan(VARIANTS.values(), seeds=3)


def _report(results: list[dict[str, Any]]) -> str:
    rows = [["run", "FLOPs", "seeds", "before", "after", "pass@k before", "after"]]
    for config, same in by_config(results):
        names = [n for n, known in VARIANTS.items() if known == config]
        changed = {k: v for k, v in config.items() if v != BASE.get(k)}
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


def runs(name: str) -> list[dict[str, Any]]:
    """Read the committed results of a variant.

    Args:
        name: one of [`VARIANTS`][minillm.labs.posttraining.VARIANTS].

    Returns:
        One dictionary for each seed.

    Raises:
        ValueError: if nothing is committed for it.

    Examples:
        >>> [r["seed"] for r in runs("policy, sort")]
        [0, 1, 2]
    """
    found = [r for r in committed(LAB) if r["config"] == VARIANTS[name]]
    if not found:
        raise ValueError(f"no results of {name!r}: minillm lab posttraining makes them")
    return sorted(found, key=lambda r: r["seed"])


def rates(name: str, when: str) -> list[list[float]]:
    """Read how often each held-out problem was solved.

    Args:
        name: the variant.
        when: `before` or `after`.

    Returns:
        (seeds, problems): the share of right answers.
    """
    i = ("before", "after").index(when)
    return [[c / r["config"]["k"] for c in r["counts"][i]] for r in runs(name)]
