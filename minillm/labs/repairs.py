r"""Lab 4, the texts: what each repair of the crawl leaves.

One name for each text that a model of [`minillm.labs.curation`][] is trained on; each
stage works on what the one before has left:

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
| `straddle`, `divided` | a few tales, half held out, with and without their copies |
| `leak` | `clean`, and `copies` copies of the three shortest test tales that leaked |
| `mixed` | tales and bulletins, the share `bulletins` of the tokens being bulletins |

>>> for name in ("extracted", "exact", "near", "rules"):
...     print(name, sum(len(text) for _, text in stage(name)) // 1000, "kB")
extracted 4838 kB
exact 4420 kB
near 2810 kB
rules 2648 kB
"""

import time
from collections.abc import Callable
from functools import cache
from random import Random

import numpy as np
from numpy.typing import NDArray

from minillm.corpus import dirt
from minillm.corpus.contamination import contaminated
from minillm.corpus.crawl import Page, crawl, leaked_tales, unseen_tales
from minillm.corpus.duplicates import Index
from minillm.corpus.extraction import decode, extract_text, strip_tags
from minillm.corpus.quality import Classifier, broken_rule
from minillm.corpus.signatures import signature

__all__ = [
    "STAGES",
    "TALES",
    "bulletins",
    "classified",
    "halves",
    "picked",
    "seconds_per_megabyte",
    "short_leaks",
    "stage",
]

STAGES = ("html", "tags", "extracted", "near", "rules", "classified", "clean")
"""The repairs, in order."""

TALES = frozenset({"tale", "near", "mirror"})
"""The kinds of pages that hold a tale, whole or in part, and nothing else."""

FEW = 30
Text = tuple[Page, str]


def _unlike(texts: list[Text]) -> list[Text]:
    """Keep the first of each group of texts that are alike."""
    index = Index(bands=32, threshold=0.5)
    return [(p, t) for p, t in texts if index.add(signature(t, 5, 128)) is None]


def picked() -> list[str]:
    """Give twenty pages of tales, as a reader would pick them by hand.

    Returns:
        Their texts.

    Examples:
        >>> len(picked())
        20
    """
    tales = sorted((p.url, p.text) for p in crawl() if p.kind == "tale")
    return [text for _, text in tales[:20]]


@cache
def stage(name: str) -> list[Text]:
    """Give the texts that a repair leaves, each with the page that it comes from.

    Args:
        name: the repair, one of [`STAGES`][minillm.labs.repairs.STAGES] but
            `classified`, or `exact`.

    Returns:
        Pages and texts, in the order of the crawl.

    Examples:
        >>> len(stage("html")), len(stage("exact"))
        (985, 844)
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
    judge = Classifier.fit(picked(), bad)
    return judge.scores(text for _, text in stage("rules"))


def classified(keep: float) -> list[Text]:
    """Take the texts with the highest scores, until a share of the text is reached.

    Args:
        keep: the share of the characters, in (0, 1].

    Returns:
        Pages and texts, in the order of the crawl.

    Examples:
        >>> {page.kind for page, _ in classified(0.03)}
        {'tale'}
    """
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


def halves(name: str) -> tuple[list[Text], list[Text]]:
    """Split the pages of a few tales, before removing copies or after.

    Args:
        name: `straddle` or `divided`.

    Returns:
        The texts for training, and those for validation, which are the same for both.

    Examples:
        >>> [[len(part) for part in halves(name)] for name in ("straddle", "divided")]
        [[64, 15], [19, 15]]
    """
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


def short_leaks() -> list[str]:
    """Give the three shortest of the test tales that leak.

    Returns:
        The tales.

    Examples:
        >>> [len(tale) for tale in short_leaks()]
        [4849, 5450, 4749]
    """
    return [tale for tale in leaked_tales() if len(tale) < 6000]


def bulletins(seed: int, n: int) -> list[str]:
    """Write bulletins that are not in the crawl.

    Args:
        seed: not that of a crawl.
        n: how many.

    Returns:
        The bulletins.

    Examples:
        >>> bulletins(10**6, 1)[0].split()[:2]
        ['At', 'Saltmarsh']
    """
    random = Random(seed)
    return [dirt.bulletin(random) for _ in range(n)]


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
