r"""Where the text comes from: extract, deduplicate, filter, and say what it was worth.

**The question.** Every chapter so far trained on a clean book. There are no terabytes
of clean books: models are trained on what a crawler brought back from the web. What
does cleaning consist of, and how do you know that a step has helped?

**Before this:** the model, its training ([`minillm.train`][]) and bits per byte, the
loss that can be compared across texts. **Next:** [`minillm.emergence`][].

The crawl of this chapter is built from the tales, by rules that stand in
[`minillm.corpus.crawl`][]. Its dirt is made, so its truth is known: `kind` says how a
page came about, and `text` what it should say. A *mirror* is the same text on another
site, a *near* copy has edited words, and a *leak* is a tale of the test set.

>>> from collections import Counter
>>> pages = crawl()
>>> kinds = Counter(page.kind for page in pages)
>>> len(pages), [kinds[kind] for kind in ("tale", "mirror", "near", "leak", "spam")]
(985, [183, 90, 158, 24, 120])

Each step below is forced by a failure of the one before. Whether it *helped* is asked
of small models that differ in nothing but their text: 105,000 weights, the same FLOPs,
three seeds ([`minillm.labs.curation`][]). Their losses are bits per byte of tales of
which the crawl has nothing.

>>> from functools import partial
>>> from statistics import fmean, median
>>> from minillm.inference.intervals import mean_interval
>>> from minillm.labs.bench import committed
>>> from minillm.labs.curation import BASE, BUDGETS, KEEPS, LAB
>>> from minillm.labs.curation import closing_table, compare_stages, gain, losses
>>> results = committed(LAB)
>>> compare = partial(compare_stages, results)

# 1. Train on everything, menus included

A server sends HTML. Python's parser takes the tags away, and this is left:

>>> htmls = [decode(page.html, page.declared)[0] for page in pages]
>>> strip_tags(htmls[1]).splitlines()[:2]
['Read this too: story number 642', 'Read this too: story number 83']

Four words in a hundred of a page of prose are menus, cookie notices and the like.
[`extract_text`][minillm.corpus.extraction.extract_text] decides for each block, by how
many words it has and how many of them are links:

>>> prose = {"tale", "mirror", "near", "leak", "quote", "part", "bulletin"}
>>> def score(function):
...     counts = zip(*(
...         precision_recall(function(html), page.text)
...         for page, html in zip(pages, htmls, strict=True) if page.kind in prose
...     ), strict=True)
...     both, found, true = map(sum, counts)
...     return f"precision {both / found:.3f}, recall {both / true:.4f}"
>>> score(strip_tags), score(extract_text)
('precision 0.959, recall 1.0000', 'precision 0.992, recall 0.9995')

The rest is a cookie notice written as a paragraph: no count of words tells it from
a paragraph of the page.
At equal FLOPs, bits per byte of unseen tales for three seeds:

>>> for name in ("html", "tags", "extracted"):
...     print(name, *(f"{loss:.2f}" for loss in losses(results, "tales", data=name)))
html 2.56 2.53 2.57
tags 2.51 2.51 2.53
extracted 2.47 2.48 2.45

# 2. Exact hashes miss one edited word

The same text stands on several sites. As HTML the copies differ in their frames; as
texts, exact copies go with a set, and that is where it ends:

>>> texts = [extract_text(html) for html in htmls]
>>> len(set(htmls)), len(set(texts))
(975, 844)

A copy with one other word has another hash. So compare what survives an edit: the runs
of five words, *shingles*, and of two sets the share that is common, their *Jaccard
similarity* ([`jaccard`][minillm.curation.jaccard]). If a share $e$ of the words is
replaced, a shingle survives with $q = (1 - e)^5$, and $J = q / (2 - q)$:

>>> near = next(page for page in pages if page.kind == "near" and page.edited == 0.02)
>>> same = [page for page in pages if page.original == near.original]
>>> tale = next(page for page in same if page.kind == "tale")
>>> sets = [shingles(page.text, 5) for page in (near, tale)]
>>> round(jaccard(*sets), 2), round(0.98**5 / (2 - 0.98**5), 2)
(0.83, 0.82)

Sets are large, and there are 484,620 pairs. Two inventions make this cheap. *MinHash*
([`minhash`][minillm.curation.minhash]) keeps 128 numbers of a set, and the share of
equal numbers estimates $J$. *Banding*, a form of locality-sensitive hashing
([`lsh_candidates`][minillm.curation.lsh_candidates]), cuts them into bands and proposes
only pairs that agree in one whole band or more. With $b$ bands of $r$ numbers that
happens with a probability of $1 - (1 - J^r)^b$
([`banding_curve`][minillm.corpus.duplicates.banding_curve]). Formula and experiment:

<div class="figure" markdown>

--8<-- "images/curation-bands.svg"

</div>

Against the exact pairs ([`alike`][minillm.corpus.duplicates.alike], slow and certain):

>>> exact = alike([shingles(text, 5) for text in texts], 0.7)
>>> signatures = np.stack([signature(text, 5, 128) for text in texts])
>>> print(len(exact), "pairs of J >= 0.7")
3295 pairs of J >= 0.7
>>> for bands in (8, 16, 32, 64):
...     found = candidates(signatures, bands)
...     print(f"{bands} bands: {len(exact - found)} missed, {len(found - exact)} false")
8 bands: 505 missed, 379 false
16 bands: 54 missed, 472 false
32 bands: 0 missed, 998 false
64 bands: 0 missed, 15782 false

A false candidate costs one comparison of two signatures, a missed one stays in the text
for good; so we take 32. If the crawl grows tenfold, its pairs become a hundred times as
many; signatures and bands take [about ten times as long](speed.md#cleaning-a-crawl).
[`Index`][minillm.corpus.duplicates.Index] keeps a page unless it is like one that it
has kept:

>>> index = Index(bands=32, threshold=0.5)
>>> kept = [i for i, row in enumerate(signatures) if index.add(row) is None]
>>> tales = [i for i in kept if pages[i].original >= 0]
>>> len(kept), len(tales), len({pages[i].original for i in tales})
(609, 222, 190)

Of 455 pages of tales and leaks 222 are left, of 190 different texts: what was edited by
a tenth has $J = 0.42$ and stays. And the model? The gain, in bits per byte, with its
interval ([chapter 12](evaluation.md) says how one is made); "none" if it holds zero:

>>> for domain in ("tales", "bulletins"):
...     print(domain, compare("extracted", "near", domain))
tales -0.05 ± 0.07, none
bulletins +0.77 ± 0.22

On tales it gained nothing, and could not: within this budget a model reads a fifth of
the text, so it hardly meets a copy twice. What has changed is the mixture. Bulletins
were never copied, so their share grew, and their loss fell. Then why deduplicate?

# 3. Duplicates straddle the split

Because of how a model is judged. Put half of a few tales' pages
aside for validation, and train on the rest; the validation text is the same before
and after removing copies ([`halves`][minillm.labs.repairs.halves]):

>>> for name in ("straddle", "divided"):
...     mean = {
...         group: fmean(losses(results, group, data=name))
...         for group in ("many", "none", "validation", "tales")
...     }
...     print(name, {group: round(loss, 2) for group, loss in mean.items()})
straddle {'many': 2.34, 'none': 2.5, 'validation': 2.43, 'tales': 2.46}
divided {'many': 2.56, 'none': 2.46, 'validation': 2.47, 'tales': 2.45}

Pages with three copies or more in the training text (`many`) are easy while the copies
are there, and lose that when they go; pages without a copy (`none`) do not suffer, nor
do tales of which neither text has anything. The validation loss rises all the same,
since it is a mean over both kinds of pages. The lower loss was memory, the higher one
is true: *the right repair made the validation loss rise.* On the right of the figure:

<div class="figure" markdown>

--8<-- "images/curation-leak.svg"

</div>

The same happens to a test set that stands somewhere on the web. On the left, three
short tales of the test split that are 40 times in the training text:

>>> for copies, name in ((0, "clean"), (40, "leak")):
...     leaked, unseen = (
...         fmean(losses(results, domain, data=name, copies=copies))
...         for domain in ("short", "tales")
...     )
...     print(f"{copies} copies: leaked {leaked:.2f}, unseen {unseen:.2f}")
0 copies: leaked 2.54, unseen 2.49
40 copies: leaked 2.31, unseen 2.47

The loss on what leaked falls by far more than the loss on what did not. Anyone who
reports only the first reports a memory. So deduplicate, then split, and keep what is
like the test out of the training text.

# 4. Rules against a classifier

What is unique need not be worth reading. [`RULES`][minillm.corpus.quality.RULES] has
nine rules from three papers. They drop tables, lists, code and most of what is not
English, and not one page of spam, which is written in sentences:

>>> passed = [i for i in kept if broken_rule(texts[i]) is None]
>>> def left(chosen, *kinds):
...     return [sum(pages[i].kind == kind for i in chosen) for kind in kinds]
>>> left(kept, "table", "links", "foreign", "spam", "bulletin")
[19, 2, 24, 120, 120]
>>> left(passed, "table", "links", "foreign", "spam", "bulletin")
[0, 0, 5, 120, 120]

So train a [`Classifier`][minillm.corpus.quality.Classifier]: twenty pages of tales that
you have picked by hand against a hundred pages of the crawl as they come.

>>> picked = sorted((p.url, p.text) for p in pages if p.kind == "tale")[:20]
>>> from random import Random
>>> judge = Classifier.fit([text for _, text in picked], Random(0).sample(texts, 100))
>>> scores = dict(zip(passed, judge.scores(texts[i] for i in passed), strict=True))
>>> for kind in ("tale", "leak", "quote", "spam", "bulletin"):
...     middle = median(scores[i] for i in passed if pages[i].kind == kind)
...     print(f"{kind}: {middle:.3f}")
tale: 0.296
leak: 0.078
quote: 0.007
spam: 0.001
bulletin: 0.002

It throws out the spam, and with it a domain of honest prose that was not among the
twenty pages. It has not learned what is good; it has learned what is like a tale, and
of tales it prefers the long ones:

>>> whole = [i for i in passed if pages[i].kind == "tale"]
>>> pairs = [(len(texts[i]), scores[i]) for i in whole]
>>> print(f"correlation of score and length {np.corrcoef(*zip(*pairs))[0, 1]:.2f}")
correlation of score and length 0.31

At equal FLOPs, keeping the best-scored three quarters of the characters:

>>> for domain in ("tales", "bulletins"):
...     print(domain, compare("rules", "classified", domain))
tales +0.08 ± 0.04
bulletins -1.61 ± 0.33

# 5. Too clean

The classifier ranks, so it can be asked for less: for half of the text, a quarter, a
tenth, or 3 % of it. But the budget stays, so the less is left, the more often it is
read. The lab tries this with two budgets, of 100 and of 400 steps. How often is each
text read through?

>>> for keep in KEEPS:
...     tokens, *_ = losses(results, "tokens", data="classified", keep=keep)
...     read = (f"{steps * 16 * 64 / tokens:.1f}" for steps in BUDGETS)
...     print(f"{keep:.0%} are {tokens:,} tokens, read", *read, "times")
100% are 1,234,621 tokens, read 0.1 0.3 times
50% are 587,629 tokens, read 0.2 0.7 times
25% are 291,642 tokens, read 0.4 1.4 times
10% are 115,992 tokens, read 0.9 3.5 times
3% are 31,037 tokens, read 3.3 13.2 times

What a filter gains over keeping everything, in bits per byte of unseen tales:

>>> for steps in BUDGETS:
...     runs = {
...         keep: [
...             result for result in results if result["config"]
...             == BASE | {"data": "classified", "keep": keep, "steps": steps}
...         ]
...         for keep in KEEPS
...     }
...     for keep in KEEPS[1:]:
...         fall, half = gain(runs[1.0], runs[keep], "tales")
...         print(f"{steps} steps, {keep:.0%}: {fall:+.2f} ± {half:.2f}")
100 steps, 50%: +0.01 ± 0.14
100 steps, 25%: -0.02 ± 0.06
100 steps, 10%: -0.14 ± 0.04
100 steps, 3%: -0.05 ± 0.18
400 steps, 50%: +0.09 ± 0.05
400 steps, 25%: +0.09 ± 0.07
400 steps, 10%: +0.07 ± 0.04
400 steps, 3%: +0.02 ± 0.01

<div class="figure" markdown>

--8<-- "images/curation-threshold.svg"

</div>

At the larger budget every threshold gains, and 3 %, which it reads 13 times, gains
least. Muennighoff et al. (2023, arXiv:2305.16264) measured it at scale: up to about
four readings, repeated text is nearly as good as new. At the smaller budget no
threshold gains anything that these runs could show, and a tenth loses. So the budget
matters:

>>> def tenth(steps):
...     whole, part = (
...         losses(results, "tales", data="classified", keep=keep, steps=steps)
...         for keep in (1.0, 0.1)
...     )
...     return [old - new for old, new in zip(whole, part, strict=True)]
>>> more = [late - early for late, early in zip(*map(tenth, (400, 100)), strict=True)]
>>> print("a tenth gains {:.2f} ± {:.2f} more".format(*mean_interval(more)))
a tenth gains 0.21 ± 0.08 more

Repetition does not explain it: the tenth that loses is read 0.9 times, the one that
gains 3.5 times. We do not know what does. For the other thresholds three seeds do not
tell the two budgets apart, or barely.

# 6. Contamination: has it seen the test?

[`contaminated`][minillm.corpus.contamination.contaminated] counts which share of a
test document's n-grams stands in the training text. Short n-grams find what everybody
says; from 8 words on, the five tales that leaked and the five that did not are apart:

>>> test = [*leaked_tales(), *unseen_tales()]  # five of each
>>> for n in (3, 8):
...     shares = contaminated(texts, test, n)
...     leaked, unseen = shares[:5].min(), shares[5:].max()
...     print(f"n = {n}: leaked {leaked:.2f} or more, unseen {unseen:.2f} or less")
n = 3: leaked 1.00 or more, unseen 0.32 or less
n = 8: leaked 1.00 or more, unseen 0.00 or less

What a paraphrase hides, and why neither a date nor a licence proves anything, stands in
[`minillm.corpus.contamination`][].

# 7. The mixture

What is left has two domains. How much of the budget does each get? A model reads
tokens, so shares are shares of tokens; a bulletin is shorter than a page of a tale, and
a share of documents says something else:

>>> domains = {"tales": ("tale", "mirror", "near"), "bulletins": ("bulletin",)}
>>> chosen = [
...     [texts[i] for i in passed if pages[i].kind in group]
...     for group in domains.values()
... ]
>>> documents = [len(domain) for domain in chosen]
>>> words = [sum(len(text.split()) for text in domain) for domain in chosen]
>>> [mixture(sizes, 1).round(2).tolist() for sizes in (documents, words)]
[[0.64, 0.36], [0.87, 0.13]]

What does a share buy? The same budget, with 0, 10 and 50 % of bulletins:

>>> for share in (0.0, 0.1, 0.5):
...     tales, bulletins = (
...         fmean(losses(results, domain, data="mixed", bulletins=share))
...         for domain in ("tales", "bulletins")
...     )
...     print(f"{share:.0%}: tales {tales:.2f}, bulletins {bulletins:.2f}")
0%: tales 2.40, bulletins 3.33
10%: tales 2.42, bulletins 1.93
50%: tales 2.52, bulletins 0.25

The first tenth is cheap: for 0.02 on the tales it buys 1.4 on the bulletins. The rest
costs the tales more. Which exchange is fair, no loss can say. With more than two
domains the usual dial is a temperature ([`mixture`][minillm.corpus.mixture.mixture]).

# What it was worth

Each repair against the stage before it, at equal FLOPs: its cost, and how far each loss
fell, with an interval that should hold the true gain 19 times in 20, over three seeds.
In brackets, the interval holds zero: no gain that these runs could show. `clean` drops
what shares 13 words in a row with a test tale, and is compared with `rules`.

>>> import json
>>> from minillm.files.reading import IMAGES
>>> data = IMAGES / "data" / "curation-seconds.json"
>>> seconds = json.loads(data.read_text(encoding="utf-8"))
>>> print("\n".join(closing_table(results, seconds)))
| repair | s per MB | tokens left | unseen tales | bulletins | leaked tales |
| --- | --- | --- | --- | --- | --- |
| `tags` | 0.07 | 2,513,005 | +0.04 ± 0.04 | (+0.07 ± 0.27) | +0.06 ± 0.02 |
| `extracted` | 0.07 | 2,264,127 | (+0.05 ± 0.07) | (-0.13 ± 0.29) | (+0.05 ± 0.05) |
| `near` | 0.07 | 1,344,073 | (-0.05 ± 0.07) | +0.77 ± 0.22 | (-0.05 ± 0.05) |
| `rules` | 0.05 | 1,234,621 | (+0.01 ± 0.05) | (+0.02 ± 0.26) | (+0.02 ± 0.05) |
| `classified` | 0.03 | 888,815 | +0.08 ± 0.04 | -1.61 ± 0.33 | +0.08 ± 0.04 |
| `clean` | 0.12 | 1,199,101 | (+0.01 ± 0.04) | (+0.09 ± 0.43) | (-0.01 ± 0.04) |

Two repairs made better models of tales: the classifier, which sold the bulletins for
it, and, barely, taking away the tags. Of eighteen such intervals about one excludes
zero by chance, so a single one that just does proves little. Extraction gained with
every seed, yet three seeds leave zero within its interval. On tales, deduplication,
rules and decontamination gained nothing that can be told from chance, which is not the
same as nothing: a gain below 0.05 these runs could not see. Two of them have another
reason: deduplication makes the validation loss true, and decontamination the test.

`minillm data clean FILES… --out DIR` does all this to files of any size, real WARCs
among them, and lists what it dropped and why ([`minillm.corpus.clean`][]).

# What we leave out

Language identification by a model, personal data, toxicity, and deduplication of single
paragraphs or substrings (Lee et al. 2022, arXiv:2107.06499). Texts without spaces:
shingles, n-grams, rules and `data clean` count words, so they need some way to cut
Chinese first. The crawl is small and its
dirt is ours; on a real one the shares differ, and so will the gains. Some real dirt,
without truth, lies [on your own disk][minillm.corpus.duplicates].

# References

Broder 1997, *On the resemblance and containment of documents*. Kohlschütter et al.
2010, *Boilerplate detection using shallow text features*. Raffel et al. 2020 (C4),
arXiv:1910.10683. Rae et al. 2021 (Gopher), arXiv:2112.11446. Lee et al. 2022,
arXiv:2107.06499. Muennighoff et al. 2023, arXiv:2305.16264. Penedo et al. 2024
(FineWeb), arXiv:2406.17557.
"""

import numpy as np
from jaxtyping import UInt64

from minillm.corpus.contamination import contaminated
from minillm.corpus.crawl import crawl, leaked_tales, unseen_tales
from minillm.corpus.duplicates import (
    Index,
    alike,
    banding_curve,
    candidates,
    check_bands,
)
from minillm.corpus.extraction import (
    decode,
    extract_text,
    precision_recall,
    strip_tags,
)
from minillm.corpus.mixture import mixture
from minillm.corpus.quality import RULES, Classifier, broken_rule
from minillm.corpus.signatures import (
    BASE,
    MASK,
    hash_family,
    signature,
    stir,
    word_hash,
)

__all__ = [
    "RULES",
    "Classifier",
    "Index",
    "alike",
    "banding_curve",
    "broken_rule",
    "candidates",
    "contaminated",
    "crawl",
    "decode",
    "extract_text",
    "jaccard",
    "leaked_tales",
    "lsh_candidates",
    "minhash",
    "mixture",
    "precision_recall",
    "shingles",
    "signature",
    "strip_tags",
    "unseen_tales",
]


def shingles(text: str, k: int) -> set[str]:
    """Take all runs of k words out of a text.

    Args:
        text: the text; capitals and white space make no difference.
        k: words in a shingle, at least one.

    Returns:
        The different shingles, with single spaces. A text of fewer than k words is one
        shingle, and a text without words has none.

    Raises:
        ValueError: if `k` is not positive.

    Examples:
        >>> sorted(shingles("The king and the king", 2))
        ['and the', 'king and', 'the king']
        >>> shingles("Short", 2)
        {'short'}
    """
    if k < 1:
        raise ValueError(f"a shingle has at least one word; got k = {k}")
    words = text.lower().split()
    k = min(k, len(words))
    return {" ".join(words[i : i + k]) for i in range(len(words) - k + 1) if k}


def jaccard(a: set[str], b: set[str]) -> float:
    r"""Compare two sets: how much of what either has do both have?

    $$J(A, B) = \frac{|A \cap B|}{|A \cup B|}$$

    Args:
        a: $A$.
        b: $B$.

    Returns:
        A number in $[0, 1]$; 1 for two empty sets.

    Examples:
        >>> jaccard({"a b", "b c", "c d"}, {"b c", "c d", "d e"})
        0.5
    """
    # $J = |A \cap B| \,/\, |A \cup B|$
    return len(a & b) / len(a | b) if a | b else 1.0


def minhash(shingles: set[str], n: int) -> UInt64[np.ndarray, " n"]:
    r"""Sign a set: for each of n hash functions, the least value over its members.

    If $h$ puts all shingles in a random order, the first of $A \cup B$ is as likely to
    be any of them. It lies in both sets with probability $J(A, B)$, and then, and only
    then, both have the same least value (Broder 1997, *On the resemblance and
    containment of documents*). So the share of equal entries estimates $J$, with a
    standard error of $\sqrt{J (1 - J) / n}$.

    Args:
        shingles: the set, as [`shingles`][minillm.curation.shingles] makes it.
        n: how many hash functions; the same ones for every document, always.

    Returns:
        The least values; $2^{64} - 1$ everywhere for an empty set.

    Raises:
        ValueError: if `n` is not positive.

    Examples:
        >>> a = minhash({f"word {i}" for i in range(0, 300)}, 512)
        >>> b = minhash({f"word {i}" for i in range(100, 400)}, 512)
        >>> abs((a == b).mean() - 0.5) < 3 * (0.5 * 0.5 / 512) ** 0.5
        np.True_
    """
    a, b = hash_family(n)
    least = np.full(n, MASK, np.uint64)
    for shingle in shingles:
        x = 0
        for word in shingle.split():
            x = (x * BASE + word_hash(word)) & MASK
        # $h_i(x) = a_i x + b_i \bmod 2^{64}$: NumPy drops what is above 64 bits
        least = np.minimum(least, a * stir(np.array([x], np.uint64)) + b)
    return least


def lsh_candidates(
    signatures: UInt64[np.ndarray, "docs n"], bands: int
) -> set[tuple[int, int]]:
    """Find the pairs worth comparing: those that agree in at least one whole band.

    Args:
        signatures: one row for each document.
        bands: into how many bands a row is cut; must divide its length.

    Returns:
        Pairs (i, j) of rows with i < j.

    Raises:
        ValueError: if the bands do not divide the signature.

    Examples:
        >>> rows = np.array([[1, 2, 3, 4], [1, 2, 9, 9], [7, 2, 9, 8]], np.uint64)
        >>> lsh_candidates(rows, bands=2)
        {(0, 1)}
        >>> sorted(lsh_candidates(rows, bands=4))
        [(0, 1), (0, 2), (1, 2)]
    """
    n = signatures.shape[1]
    check_bands(n, bands)
    pairs: set[tuple[int, int]] = set()
    for start in range(0, n, n // bands):
        buckets: dict[bytes, list[int]] = {}
        for j, row in enumerate(signatures):
            bucket = buckets.setdefault(row[start : start + n // bands].tobytes(), [])
            pairs.update((i, j) for i in bucket)
            bucket.append(j)
    return pairs
