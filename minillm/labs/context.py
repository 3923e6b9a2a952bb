r"""Lab 1: learning from the context, or the ability that is absent until it is not.

**The question.** A language model can pick up a rule from its prompt and use it a line
later, without any change of its weights. When does a model in training learn to do
*that*?

# A task that cannot be memorized

Each sequence is a *Markov chain* with $k$ states: the next state depends on the present
one, by a table of $k$ rows of probabilities. Each sequence has a random table of its
own (every row uniform among all rows that sum to one), and is the only one ever made
with it. So the weights can hold no table. A model must read it off the context: look up
what came after earlier occurrences of the present state. (The task is that of Edelman
et al. 2024, arXiv:2402.11004.)

>>> random = torch.Generator().manual_seed(0)
>>> chains = markov_chains(4, 64, 3, random)
>>> chains.shape, chains.unique().tolist()
(torch.Size([4, 64]), [0, 1, 2])

# Two baselines

Counting solves it, and the best way to count is known. Where the rows come from a
uniform distribution, the best guess at the next state is, for each candidate, how often
it followed the present state so far, plus one, as a share: the *bigram baseline*. If
you ignore the order, you can only count how often each state occurred: the *unigram
baseline*, which would be best if the states were independent. Both are evaluated over
the second half of the sequence, where there is something to count. (These sequences
are others than those of [`minillm.emergence`][], so the last digits differ.)

>>> chains = markov_chains(2000, 65, 3, random)
>>> bigram, unigram = count_lines(chains, 3)
>>> print(f"unigram {unigram.loss:.2f}, bigram {bigram.loss:.2f}")
unigram 1.00, bigram 0.87
>>> print(f"unigram {unigram.accuracy:.2f}, bigram {bigram.accuracy:.2f}")
unigram 0.49, bigram 0.59

A uniform guess among three has a loss of $\ln 3 = 1.10$. (Over *all* positions the
count of single states is hardly better: at first it has nothing to count.)

# What it takes inside

One layer of attention can find the earlier positions with the present state. But what
is wanted stands one position *after* them, and their vectors do not know what comes
after. Two layers can do it, in two moves: a head of the first copies to each position
which state came *before* it, and a head of the second looks for positions whose
predecessor is the present state. The pair is an *induction head* (Olsson et al. 2022,
arXiv:2209.11895). [`head_scores`][minillm.labs.context.head_scores] measures how much
of each is there.

**Told in** [`minillm.emergence`][], on the bench of [`minillm.labs.bench`][].
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minillm.config import ModelConfig
from minillm.flops import aligned, training_flops
from minillm.inference.attention_maps import attention_maps
from minillm.labs.bench import Config, Lab, Point, by_config, learn, plan
from minillm.model import TransformerLM
from minillm.train import cross_entropy

__all__ = [
    "BASE",
    "LAB",
    "HeadScores",
    "Score",
    "count_lines",
    "head_scores",
    "jump",
    "markov_chains",
]

# How many positions the committed attention maps show.
PICTURE = 24


def markov_chains(
    n: int, length: int, states: int, random: torch.Generator
) -> Int[Tensor, "n length"]:
    r"""Sample sequences, each from a Markov chain of its own.

    Args:
        n: how many.
        length: how long each.
        states: $k$, the number of states.
        random: the random number generator.

    Returns:
        The states, from 0 to $k - 1$. The first of each sequence is uniform.
    """
    # Exponential numbers, divided by their sum, are even among all rows with sum one.
    rows = -torch.rand(n, states, states, generator=random).clamp_min(1e-12).log()
    limits = (rows / rows.sum(-1, keepdim=True)).cumsum(-1)[..., :-1]
    chains = torch.randint(states, (n, length), generator=random)
    chance = torch.rand(n, length, 1, generator=random)
    each = torch.arange(n)
    for t in range(1, length):
        # A number between 0 and 1 falls into the interval of one of the states.
        chains[:, t] = (chance[:, t] > limits[each, chains[:, t - 1]]).sum(-1)
    return chains


class Score(NamedTuple):
    """How well something predicts the second half of the sequences.

    Attributes:
        loss: nats per state.
        accuracy: the share of states that were the most likely by its account.
    """

    loss: float
    accuracy: float


def _score(
    log_p: Float[Tensor, "n seq states"], targets: Int[Tensor, "n seq"]
) -> Score:
    half = targets.shape[1] // 2
    log_p, targets = log_p[:, half:], targets[:, half:]
    right = (log_p.argmax(-1) == targets).double().mean().item()
    return Score(cross_entropy(log_p, targets).item(), right)


def count_lines(chains: Int[Tensor, "n length"], states: int) -> tuple[Score, Score]:
    r"""Predict each state from counts of what came before it in the same sequence.

    With $n_{ab}$ how often $b$ followed $a$ so far, and $n_b$ how often $b$ occurred,

    $$p(b \mid a) = \frac{n_{ab} + 1}{\sum_c (n_{ac} + 1)} \qquad
    p(b) = \frac{n_b + 1}{\sum_c (n_c + 1)}.$$

    The first is the best prediction there is: the mean over all tables, each weighed by
    how well it explains the sequence so far (Edelman et al. 2024, section 2).

    Args:
        chains: the sequences.
        states: $k$, the number of states.

    Returns:
        The scores of the bigram and of the unigram baseline.
    """
    seen = torch.nn.functional.one_hot(chains, states).double()  # (n, T + 1, k)
    # Pair t is (state t - 1, state t); before the first state there is none.
    pairs = torch.zeros(*chains.shape, states, states, dtype=torch.float64)
    pairs[:, 1:] = seen[:, :-1, :, None] * seen[:, 1:, None, :]
    now = chains[:, :-1, None, None].expand(-1, -1, 1, states)
    bigram = (pairs.cumsum(1)[:, :-1].gather(2, now).squeeze(2) + 1).log()
    unigram = (seen.cumsum(1)[:, :-1] + 1).log()
    targets = chains[:, 1:]
    return _score(bigram, targets), _score(unigram, targets)


class HeadScores(NamedTuple):
    """How far a model's heads are what the task wants.

    Attributes:
        previous: of its attention, how much the best head of the first layer gives to
            the previous position.
        induction: of its attention, how much the best head of the last layer gives to
            positions *after* an earlier occurrence of the present state.
        even: what `induction` would be if the head attended to all positions alike.
    """

    previous: float
    induction: float
    even: float


def head_scores(model: TransformerLM, ids: Int[Tensor, "batch seq"]) -> HeadScores:
    r"""Measure the two heads that copy from the context, over the second half.

    Args:
        model: the model.
        ids: sequences of a task in which the past repeats itself.

    Returns:
        The scores.

    Examples:
        An untrained model attends to all positions about alike:

        >>> _ = torch.manual_seed(0)
        >>> model = TransformerLM(ModelConfig(3, 64, d_model=16, n_layers=2, n_heads=1))
        >>> chains = markov_chains(100, 64, 3, torch.Generator().manual_seed(0))
        >>> scores = head_scores(model, chains)
        >>> round(scores.previous, 1), round(scores.induction - scores.even, 1)
        (0.0, 0.0)
    """
    maps, half = attention_maps(model, ids), ids.shape[1] // 2
    previous = maps[0].diagonal(-1, dim1=-2, dim2=-1)[..., half - 1 :]
    # after[b, t, j]: the state before position j is the state at t, and j ≤ t.
    after = torch.zeros(len(ids), ids.shape[1], ids.shape[1])
    after[:, :, 1:] = (ids[:, :, None] == ids[:, None, :-1]).float()
    after = after.tril()
    found = (maps[-1] * after[:, None]).sum(-1)[..., half:]
    places = torch.arange(1, ids.shape[1] + 1)
    even = (after.sum(-1) / places)[:, half:]
    return HeadScores(
        previous.mean((0, 2)).max().item(),
        found.mean((0, 2)).max().item(),
        even.mean().item(),
    )


def _shape(config: Config) -> ModelConfig:
    return ModelConfig(
        config["states"],
        config["context"],
        config["width"],
        config["layers"],
        config["heads"],
    )


def _flops(config: Config) -> int:
    step = training_flops(_shape(config), config["batch"], config["context"])
    return step * config["steps"]


@cache
def _examination(states: int, context: int) -> Tensor:
    # The same new sequences for every model, and for the baselines.
    random = torch.Generator().manual_seed(2**31)
    return markov_chains(256, context + 1, states, random)


def _run(config: Config, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = TransformerLM(_shape(config))
    if config.get("planted"):
        _plant(model)
    states, context = config["states"], config["context"]
    chains = _examination(states, context)
    curve: list[list[float]] = []
    maps: dict[str, Any] = {}

    def draw(random: torch.Generator) -> tuple[Tensor, Tensor]:
        new = markov_chains(config["batch"], context + 1, states, random)
        return new[:, :-1], new[:, 1:]

    @torch.no_grad()
    def look(step: int) -> None:
        score = _score(model(chains[:, :-1]), chains[:, 1:])
        heads = head_scores(model, chains[:64, :-1])
        curve.append([step, *(round(x, 4) for x in (*score, *heads[:2]))])
        if step in (config["steps"] // 8, config["steps"]) and seed == 0:
            maps[str(step)] = _picture(model, chains[:1, :PICTURE])

    learn(model, draw, config, seed, look)
    bigram, unigram = count_lines(chains, states)
    result = {
        "curve": curve,
        "bigram": [round(x, 4) for x in bigram],
        "unigram": [round(x, 4) for x in unigram],
        "even": round(head_scores(model, chains[:64, :-1]).even, 4),
    }
    if maps:
        result |= {"chain": chains[0, :PICTURE].tolist(), "maps": maps}
    return result


def _plant(model: TransformerLM) -> None:
    """Make the first layer look at the previous position, whatever it has learned."""
    attn: Any = model.blocks[0].attn

    def previous(x: Tensor, *_: Any) -> Tensor:
        before = torch.nn.functional.pad(x, (0, 0, 1, 0))[..., :-1, :]
        return attn.o_proj(attn.v_proj(before))

    attn.forward = previous


def _picture(model: TransformerLM, ids: Tensor) -> list[list[list[float]]]:
    """What the first head of each layer looks at, in hundredths."""
    return [
        [[round(100 * weight) for weight in row] for row in layer[0, 0].tolist()]
        for layer in attention_maps(model, ids)
    ]


BASE = {
    "states": 3,
    "context": 64,
    "width": 32,
    "layers": 2,
    "heads": 1,
    "batch": 32,
    "lr": 3e-3,
    "steps": 1600,
}
"""The configuration from which the others differ in a number or two."""


def _points(quick: bool) -> list[Point]:
    if quick:
        configs = [
            BASE | {"steps": 1200, "width": width, "layers": layers}
            for width, layers in ((32, 1), (16, 2), (32, 2))
        ]
        return plan(configs, seeds=3)
    first = [
        BASE | {"width": width, "layers": layers}
        for width, layers in ((8, 2), (16, 2), (32, 2), (16, 1), (32, 1))
    ]
    then = [
        *(BASE | {"steps": steps} for steps in (200, 400, 800)),
        *(BASE | {"width": 64, "layers": layers} for layers in (2, 1)),
        BASE | {"heads": 2},
        BASE | {"planted": 1},
    ]
    larger = {"states": 8, "context": 96, "width": 64, "heads": 2, "batch": 64}
    return [*plan(first, 3), *plan(then, 3), (BASE | larger, 0)]


def jump(result: dict[str, Any]) -> float | None:
    r"""Find the compute at which a model began to use the order of its context.

    Args:
        result: what the lab measured of one model.

    Returns:
        The FLOPs of training until its loss first came closer to the bigram baseline
        than to the unigram baseline; `None` if it never did.

    Examples:
        >>> curve = [[0, 1.1], [100, 1.0], [200, 0.9]]
        >>> lines = {"bigram": [0.86], "unigram": [0.98]}
        >>> run = {"flops": 2e9, "config": {"steps": 200}, "curve": curve, **lines}
        >>> jump(run)
        2000000000.0
        >>> jump(run | {"curve": curve[:2]}) is None
        True
    """
    middle = (result["bigram"][0] + result["unigram"][0]) / 2
    for step, loss, *_ in result["curve"]:
        if loss < middle:
            return result["flops"] * step / result["config"]["steps"]
    return None


def _report(results: list[dict[str, Any]]) -> str:
    rows = [["states", "layers", "width", "heads", "planted", "steps"]]
    rows[0] += ["FLOPs", "seeds"]
    rows[0] += ["loss", "accuracy", "jumped", "at FLOPs"]
    for config, same in by_config(results):
        jumps = [at for at in map(jump, same) if at is not None]
        loss, accuracy = (
            sum(r["curve"][-1][i] for r in same) / len(same) for i in (1, 2)
        )
        rows.append([
            *(str(config[key]) for key in ("states", "layers", "width", "heads")),
            "yes" if config.get("planted") else "no",
            str(config["steps"]),
            f"{same[0]['flops']:.1e}",
            str(len(same)),
            f"{loss:.3f}",
            f"{accuracy:.3f}",
            f"{len(jumps)} of {len(same)}",
            f"{sum(jumps) / len(jumps):.1e}" if jumps else "never",
        ])
    lines = {
        r["config"]["states"]: f"{r['config']['states']} states: a loss of "
        f"{r['unigram'][0]:.3f} by the unigram baseline, {r['bigram'][0]:.3f} by the "
        "bigram baseline"
        for r in results
    }
    return "\n".join([aligned(rows), "", *lines.values()])


LAB = Lab("context", 1, _points, _run, _flops, _report)
