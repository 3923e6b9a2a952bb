r"""Lab 4: what each repair of a crawl is worth.

**The question.** Cleaning costs work and throws text away. Which step makes the model
better, at the same compute, and which only makes the corpus smaller?

Every model here has the same shape (104,688 weights), the same tokenizer, learned from
the twenty pages that a reader picked by hand, and, but for the two budgets of the
third experiment, the same number of training steps. Only the text differs. It comes
from [`minillm.corpus.crawl`][]; each stage works on what the one before has left:

| `data` | the text |
| --- | --- |
| `html` | what the servers sent |
| `tags` | without tags |
| `extracted` | the content alone |
| `exact` | each text once |
| `near` | no two texts alike: Jaccard estimated at 0.5 or more |
| `rules` | only what keeps the published rules |
| `classified` | of that the texts scored highest, `keep` of the characters |
| `clean` | as `rules`, without texts that share 13-grams with a test tale |
| `straddle`, `divided` | a few tales, half put aside, with and without their copies |
| `leak` | `clean`, and `copies` copies of the three shortest test tales that leaked |
| `mixed` | tales and bulletins, the share `bulletins` of the tokens being bulletins |

Losses are in bits per byte of text, on what no stage has seen: tales of which the crawl
has nothing, bulletins drawn anew, and the test tales that leaked.

>>> points = LAB.points(True)
>>> len(points), {config["steps"] for config, _ in points}
(18, {200})

On the bench of [`minillm.labs.bench`][], told in [`minillm.curation`][].
"""

import math
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from random import Random
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.corpus import dirt
from minillm.corpus.contamination import contaminated
from minillm.corpus.crawl import Page, crawl, leaked_tales, unseen_tales
from minillm.corpus.duplicates import Index, signature
from minillm.corpus.extraction import decode, extract_text, strip_tags
from minillm.corpus.quality import Classifier, broken_rule
from minillm.data import END_OF_TEXT, tokenize
from minillm.flops import aligned, training_flops
from minillm.labs.bench import Config, Lab, Point, by_config, plan
from minillm.model import TransformerLM
from minillm.train import TrainConfig, bits_per_byte, evaluate, train

__all__ = [
    "BASE",
    "LAB",
    "STAGES",
    "closing_table",
    "gain",
    "losses",
    "seconds_per_megabyte",
    "stage",
]

SHAPE = ModelConfig(512, 64, 48, 2, n_heads=3)
BATCH = 16
MIXED = 400_000
FEW = 30
TALES = frozenset({"tale", "near", "mirror"})
BASE: Config = {
    "data": "html",
    "steps": 400,
    "keep": 0.75,
    "copies": 0,
    "bulletins": 0.1,
}
STAGES = ("html", "tags", "extracted", "near", "rules", "classified", "clean")
"""The repairs, in order."""

# Nineteen of twenty means of so few runs lie within ± this, times their error.
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
Text = tuple[Page, str]


def _unlike(texts: list[Text]) -> list[Text]:
    """Keep the first of each group of texts that are alike."""
    index = Index(bands=32, threshold=0.5)
    return [(p, t) for p, t in texts if index.add(signature(t, 5, 128)) is None]


def _picked() -> list[str]:
    """Twenty pages of tales, as a reader would pick them by hand."""
    tales = sorted((p.url, p.text) for p in crawl() if p.kind == "tale")
    return [text for _, text in tales[:20]]


@cache
def stage(name: str) -> list[Text]:
    """Give the texts that a repair leaves, each with the page that it comes from.

    Args:
        name: the repair, one of [`STAGES`][minillm.labs.curation.STAGES] but
            `classified`, or `exact`.

    Returns:
        Pages and texts, in the order of the crawl.

    Examples:
        >>> len(stage("html")), len(stage("exact"))
        (983, 846)
    """
    if name == "html":
        return [(page, decode(page.html, page.declared)[0]) for page in crawl()]
    if name == "tags":
        return [(page, strip_tags(html)) for page, html in stage("html")]
    if name == "extracted":
        return [(page, extract_text(html)) for page, html in stage("html")]
    if name == "exact":
        first = {text: page for page, text in reversed(stage("extracted"))}
        return [(p, text) for p, text in stage("extracted") if first[text] is p]
    if name == "near":
        return _unlike(stage("exact"))
    if name == "rules":
        return [(p, text) for p, text in stage("near") if broken_rule(text) is None]
    texts = [text for _, text in stage("rules")]
    shared = contaminated([*leaked_tales(), *unseen_tales()], texts, 13)
    return [it for it, s in zip(stage("rules"), shared, strict=True) if s == 0]


@cache
def _scores() -> NDArray[np.float64]:
    bad = Random(0).sample([text for _, text in stage("extracted")], 100)
    judge = Classifier.fit(_picked(), bad)
    return judge.scores(text for _, text in stage("rules"))


def _classified(keep: float) -> list[Text]:
    """Take the texts with the highest scores, until a share of the text is reached."""
    texts = stage("rules")
    budget = keep * sum(len(text) for _, text in texts)
    chosen: list[int] = []
    for i in np.argsort(-_scores(), kind="stable").tolist():
        budget -= len(texts[i][1])
        if budget < 0 and chosen:
            break
        chosen.append(i)
    return [texts[i] for i in sorted(chosen)]


def _aside(page: Page) -> bool:
    """Say whether the pages of an original belong to the validation text."""
    return page.original % 2 == 0


def _halves(name: str) -> tuple[list[Text], list[Text]]:
    """Split the pages of tales, before removing copies (`straddle`) or after."""
    # The validation text is the same: one page of every second original. What differs
    # is whether copies of it are among the training pages.
    # Few tales, so that a small budget reads each copy more than once.
    tales = [
        it for it in stage("extracted") if it[0].kind in TALES and it[0].original < FEW
    ]
    unlike = {page.url for page, _ in _unlike(tales)}
    held = {p.original: p for p, _ in reversed(tales) if _aside(p) and p.url in unlike}
    aside = [it for it in tales if it[0] is held.get(it[0].original)]
    rest = [it for it in tales if it[0] is not held.get(it[0].original)]
    if name == "divided":
        rest = [it for it in rest if it[0].url in unlike]
    return rest, aside


def _short() -> list[str]:
    return [tale for tale in leaked_tales() if len(tale) < 6000]


def _bulletins(seed: int, n: int) -> list[str]:
    random = Random(seed)
    return [dirt.bulletin(random) for _ in range(n)]


@cache
def _tokenizer() -> BPETokenizer:
    return BPETokenizer.train(_picked(), SHAPE.vocab_size, [END_OF_TEXT])


@cache
def _ids(texts: tuple[str, ...]) -> NDArray[Any]:
    return tokenize(texts, _tokenizer())


def _training(config: Config) -> NDArray[Any]:
    name = config["data"]
    if name == "classified":
        texts = [text for _, text in _classified(config["keep"])]
    elif name in {"straddle", "divided"}:
        texts = [text for _, text in _halves(name)[0]]
    elif name == "leak":
        texts = [text for _, text in stage("clean")] + config["copies"] * _short()
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
        "bulletins": _bits(model, _bulletins(10**6, 60)),
        "leaked": _bits(model, leaked_tales()),
        "short": _bits(model, _short()),
    }
    if config["data"] in {"straddle", "divided"}:
        rest, aside = _halves("straddle")
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
        for steps in (100, 400)
        for keep in (1.0, 0.25, 0.03)
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
        should hold the true one 19 times in 20: Student's $t$ times the standard error.

    Examples:
        >>> before, after = ([{"tales": x, "seed": i} for i, x in enumerate(row)]
        ...                  for row in ([2.3, 2.4, 2.5], [2.2, 2.2, 2.4]))
        >>> mean, half = gain(before, after, "tales")
        >>> print(f"{mean:.2f} ± {half:.2f}")
        0.13 ± 0.14
    """
    seeds = {r["seed"]: r[domain] for r in before}
    falls = [seeds[r["seed"]] - r[domain] for r in after if r["seed"] in seeds]
    error = stdev(falls) / math.sqrt(len(falls))
    return mean(falls), STUDENT[len(falls)] * error


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


def closing_table(
    results: list[dict[str, Any]], seconds: dict[str, float]
) -> list[str]:
    """Say for each repair what it cost and what it gained.

    Args:
        results: of this lab.
        seconds: for each repair, of processor time for a megabyte of HTML.

    Returns:
        The lines of a table in Markdown. A gain is a fall of the loss against the stage
        before, with the interval of [`gain`][minillm.labs.curation.gain].
    """
    runs = {
        name: [r for r in results if r["config"] == BASE | {"data": name}]
        for name in STAGES
    }
    before = {"clean": "rules"}
    lines = [
        "| repair | s per MB | tokens left | unseen tales | bulletins | leaked tales |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for last, name in pairwise(STAGES):
        old, new = runs[before.get(name, last)], runs[name]
        cells = [f"`{name}`", f"{seconds[name]:.2f}", f"{new[0]['tokens']:,}"]
        for domain in ("tales", "bulletins", "leaked"):
            fall, half = gain(old, new, domain)
            sure = "" if abs(fall) > half else ", none"
            cells.append(f"{fall:+.3f} ± {half:.3f}{sure}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def seconds_per_megabyte(tries: int = 3) -> dict[str, float]:
    """Measure what each repair costs on this machine.

    Args:
        tries: the fastest of so many counts.

    Returns:
        Seconds of processor time for a megabyte of HTML, one process.
    """
    size = sum(len(page.html) for page in crawl()) / 1e6
    test = [*leaked_tales(), *unseen_tales()]
    html = [text for _, text in stage("html")]
    exact = [text for _, text in stage("exact")]
    near, rules = ([text for _, text in stage(name)] for name in ("near", "rules"))
    judge = Classifier(np.zeros(1 << 12), 0.0)
    work: dict[str, Callable[[], object]] = {
        "tags": lambda: [strip_tags(page) for page in html],
        "extracted": lambda: [extract_text(page) for page in html],
        "near": lambda: _unlike([(crawl()[0], text) for text in exact]),
        "rules": lambda: [broken_rule(text) for text in near],
        "classified": lambda: judge.scores(rules),
        "clean": lambda: contaminated(test, rules, 13),
    }
    fastest = {}
    for name, function in work.items():
        times = []
        for _ in range(tries):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        fastest[name] = round(min(times) / size, 4)
    return fastest


def _report(results: list[dict[str, Any]]) -> str:
    domains = ("tales", "bulletins", "leaked")
    rows = [["data", "keep", "copies", "bulletins", "FLOPs", "seeds", *domains]]
    for config, same in by_config(results):
        rows.append([
            config["data"],
            f"{config['keep']:g}",
            f"{config['copies']}",
            f"{config['bulletins']:g}",
            f"{same[0]['flops']:.1e}",
            f"{len(same)}",
            *(f"{mean(r[domain] for r in same):.3f}" for domain in domains),
        ])
    return aligned(rows)


LAB = Lab("curation", 1, _points, _run, _flops, _report)
