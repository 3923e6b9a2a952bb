r"""Lab 4: what each repair of a crawl is worth.

**The question.** Cleaning costs work and throws text away. Which step makes the model
better, at the same compute, and which only makes the corpus smaller?

Every model here has the same shape (104,688 weights), the same tokenizer, learned from
the twenty pages that a reader picked by hand, and, but for the two budgets of the
third experiment, the same number of training steps. Only the text differs. It comes
from [`minillm.corpus.crawl`][], by way of [`minillm.labs.repairs`][].

The plan has four experiments: the repairs one after the other; the split and the leak;
filtering ever harder (`keep`), at two budgets; and the mixture.

Losses are in bits per byte of text, on what no stage has seen: tales of which the crawl
has nothing, bulletins drawn anew, and the test tales that leaked.

>>> points = LAB.points(True)
>>> len(points), {config["steps"] for config, _ in points}
(18, {200})

On the bench of [`minillm.labs.bench`][], told in [`minillm.curation`][].
"""

from functools import cache
from itertools import pairwise
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.corpus.crawl import leaked_tales, unseen_tales
from minillm.data import END_OF_TEXT, tokenize
from minillm.flops import aligned, training_flops
from minillm.inference.intervals import mean_interval
from minillm.labs.bench import Config, Lab, Point, by_config, plan
from minillm.labs.repairs import (
    STAGES,
    TALES,
    bulletins,
    classified,
    halves,
    picked,
    short_leaks,
    stage,
)
from minillm.model import TransformerLM
from minillm.train import TrainConfig, bits_per_byte, evaluate, train

__all__ = [
    "BASE",
    "BUDGETS",
    "KEEPS",
    "LAB",
    "closing_table",
    "compare_stages",
    "gain",
    "losses",
]

SHAPE = ModelConfig(512, 64, 48, 2, n_heads=3)
BATCH = 16
MIXED = 400_000
DOMAINS = ("tales", "bulletins", "leaked")
BASE: Config = {
    "data": "html",
    "steps": 400,
    "keep": 0.75,
    "copies": 0,
    "bulletins": 0.1,
}
# Of the third experiment: steps, and shares of the text.
BUDGETS = (100, 400)
"""How many steps are trained where the text is filtered ever more."""

KEEPS = (1.0, 0.5, 0.25, 0.1, 0.03)
"""What share of the text is kept there."""


@cache
def _tokenizer() -> BPETokenizer:
    return BPETokenizer.train(picked(), SHAPE.vocab_size, [END_OF_TEXT])


@cache
def _ids(texts: tuple[str, ...]) -> NDArray[Any]:
    return tokenize(texts, _tokenizer())


def _training(config: Config) -> NDArray[Any]:
    name = config["data"]
    if name == "classified":
        texts = [text for _, text in classified(config["keep"])]
    elif name in {"straddle", "divided"}:
        texts = [text for _, text in halves(name)[0]]
    elif name == "leak":
        texts = [text for _, text in stage("clean")] + config["copies"] * short_leaks()
    elif name == "mixed":
        return _mixed(config["bulletins"])
    else:
        texts = [text for _, text in stage(name)]
    return _ids(tuple(texts))


def _mixed(share: float) -> NDArray[Any]:
    """Join tokens of both domains, the shorter repeated as often as it takes."""
    texts, n = stage("clean"), round(share * MIXED)
    other = _ids(tuple(t for page, t in texts if page.kind == "bulletin"))
    tales = _ids(tuple(t for page, t in texts if page.kind in TALES))
    parts = np.resize(other, n), np.resize(tales, MIXED - n)
    return np.concatenate([part for part in parts if len(part)])


def _bits(model: TransformerLM, texts: list[str], longest: int = 12_000) -> float:
    ids = _ids(tuple(texts))[:longest]
    n_bytes = len(_tokenizer().decode_bytes(ids[1:].tolist()))
    return round(bits_per_byte(evaluate(model, ids), len(ids) - 1, n_bytes), 5)


def _run(config: Config, seed: int) -> dict[str, Any]:
    tokens = _training(config)
    torch.manual_seed(seed)
    model = TransformerLM(SHAPE)
    how = TrainConfig(
        steps=config["steps"],
        batch_size=BATCH,
        max_lr=0.006,
        warmup_steps=config["steps"] // 10,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        seed=seed,
    )
    train(model, tokens, how)
    result = {
        "tokens": len(tokens),
        "tales": _bits(model, unseen_tales()),
        "bulletins": _bits(model, bulletins(10**6, 60)),
        "leaked": _bits(model, leaked_tales()),
        "short": _bits(model, short_leaks()),
    }
    if config["data"] in {"straddle", "divided"}:
        rest, aside = halves("straddle")
        for name, low, high in (("none", 0, 0), ("few", 1, 2), ("many", 3, 99)):
            copies = [p.original for p, _ in rest]
            texts = [t for p, t in aside if low <= copies.count(p.original) <= high]
            result[name] = _bits(model, texts)
        result["validation"] = _bits(model, [t for _, t in aside], 60_000)
    return result


def _flops(config: Config) -> int:
    return config["steps"] * training_flops(SHAPE, BATCH, SHAPE.context_length)


def _points(quick: bool) -> list[Point]:
    repairs = [BASE | {"data": name} for name in STAGES]
    splits = [BASE | {"data": name} for name in ("straddle", "divided")]
    leaks = [BASE | {"data": "leak", "copies": n} for n in (10, 40)]
    cleaner = [
        BASE | {"data": "classified", "keep": keep, "steps": steps}
        for steps in BUDGETS
        for keep in KEEPS
    ]
    mixtures = [
        BASE | {"data": "mixed", "bulletins": share} for share in (0.0, 0.1, 0.5)
    ]
    if quick:
        return plan([c | {"steps": 200} for c in (*repairs, *splits)], 2)
    return [
        *plan([*repairs, *splits, *leaks], 3),
        *plan([*cleaner, *mixtures], 3),
    ]


def gain(
    before: list[dict[str, Any]], after: list[dict[str, Any]], domain: str
) -> tuple[float, float]:
    r"""Say by how much a repair lowered a loss, seed against seed.

    Args:
        before: the results of one configuration, one for each seed.
        after: those of the other, with the same seeds.
        domain: which loss.

    Returns:
        The mean difference, positive if the loss fell, and half of the interval that
        should hold the true one 19 times in 20
        ([`mean_interval`][minillm.inference.intervals.mean_interval]).

    Examples:
        >>> before, after = ([{"tales": x, "seed": i} for i, x in enumerate(row)]
        ...                  for row in ([2.3, 2.4, 2.5], [2.2, 2.2, 2.4]))
        >>> mean, half = gain(before, after, "tales")
        >>> print(f"{mean:.2f} ± {half:.2f}")
        0.13 ± 0.14
    """
    seeds = {r["seed"]: r[domain] for r in before}
    falls = [seeds[r["seed"]] - r[domain] for r in after if r["seed"] in seeds]
    return mean_interval(falls)


def losses(results: list[dict[str, Any]], domain: str, **config: Any) -> list[float]:
    """Pick the losses of one configuration, one for each seed.

    Args:
        results: of this lab.
        domain: which loss.
        **config: what differs from the base of the lab.

    Returns:
        Bits per byte, in the order of the seeds.

    Examples:
        >>> results = [{"config": BASE | {"data": "near"}, "seed": 0, "tales": 2.5}]
        >>> losses(results, "tales", data="near")
        [2.5]
    """
    same = [r for r in results if r["config"] == BASE | config]
    return [r[domain] for r in sorted(same, key=lambda r: r["seed"])]


def compare_stages(
    results: list[dict[str, Any]], before: str, after: str, domain: str
) -> str:
    """Say what one stage gained over another, in a line.

    Args:
        results: of this lab.
        before: the one.
        after: the other.
        domain: which loss.

    Returns:
        The gain, positive if the loss fell, with its interval; "none" if that holds 0.

    Examples:
        >>> results = [
        ...     {"config": BASE | {"data": name}, "seed": seed, "tales": loss + seed}
        ...     for name, loss in (("near", 2.5), ("rules", 2.25)) for seed in (0, 1)
        ... ]
        >>> compare_stages(results, "near", "rules", "tales")
        '+0.25 ± 0.00'
    """
    old, new = (
        [r for r in results if r["config"] == BASE | {"data": name}]
        for name in (before, after)
    )
    fall, half = gain(old, new, domain)
    return f"{fall:+.2f} ± {half:.2f}{'' if abs(fall) > half else ', none'}"


def closing_table(
    results: list[dict[str, Any]], seconds: dict[str, float]
) -> list[str]:
    """Say for each repair what it cost and what it gained.

    Args:
        results: of this lab.
        seconds: for each repair, of processor time for a megabyte of HTML.

    Returns:
        The lines of a table in Markdown. A gain is a fall of the loss against the stage
        before, with the interval of [`gain`][minillm.labs.curation.gain], in brackets
        if that holds zero.
    """
    before = {"clean": "rules"}
    lines = [
        "| repair | s per MB | tokens left | unseen tales | bulletins | leaked tales |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for last, name in pairwise(STAGES):
        (tokens, *_) = losses(results, "tokens", data=name)
        cells = [f"`{name}`", f"{seconds[name]:.2f}", f"{tokens:,}"]
        old = before.get(name, last)
        for domain in DOMAINS:
            found = compare_stages(results, old, name, domain)
            none = found.removesuffix(", none")
            cells.append(found if found == none else f"({none})")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _report(results: list[dict[str, Any]]) -> str:
    rows = [["data", "keep", "copies", "bulletins", "FLOPs", "seeds", *DOMAINS]]
    for config, same in by_config(results):
        rows.append([
            config["data"],
            f"{config['keep']:g}",
            f"{config['copies']}",
            f"{config['bulletins']:g}",
            f"{same[0]['flops']:.1e}",
            f"{len(same)}",
            *(f"{mean(r[domain] for r in same):.3f}" for domain in DOMAINS),
        ])
    return aligned(rows)


LAB = Lab("curation", 1, _points, _run, _flops, _report)
