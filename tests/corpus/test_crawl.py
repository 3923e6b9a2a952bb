"""The crawl: the same bytes for a seed, and a truth that is true."""

import hashlib
from itertools import combinations

import numpy as np
import pytest

from minillm.corpus import dirt
from minillm.corpus.crawl import crawl, leaked_tales, unseen_tales
from minillm.corpus.duplicates import Index
from minillm.corpus.extraction import decode, extract_text, strip_tags
from minillm.corpus.quality import Classifier, broken_rule
from minillm.corpus.signatures import signature
from minillm.curation import jaccard, precision_recall, shingles
from minillm.data import andersen, split


def test_the_same_seed_gives_the_same_bytes():
    digest = hashlib.sha256(b"".join(page.html for page in crawl())).hexdigest()
    # The committed results of the lab depend on every one of them.
    assert digest == "083610602970b4ebf75d8d9af3294d02dae931f9e189d2b26d8d846fa7f98d10"
    assert crawl(1) != crawl(0)


def test_the_truth_is_true():
    tales, n_training = andersen(), len(split(andersen())[0])
    originals = {}
    for page in crawl():
        if page.kind == "tale":
            assert page.text in tales[page.source]
            originals[page.original] = page
    for page in crawl():
        if page.kind == "mirror":
            assert page.text == originals[page.original].text
        if page.kind == "near":
            words = originals[page.original].text.split()
            # The title is another, and so is the share that was replaced.
            edited = page.text.split()[-len(words) + 12 :]
            same = sum(a == b for a, b in zip(edited, words[12:], strict=True))
            assert page.text != originals[page.original].text
            assert same / len(edited) > 1 - page.edited - 0.05
        if page.kind in {"leak", "part"}:
            assert page.source >= n_training
            assert tales[page.source] in leaked_tales()
        elif page.source is not None:
            assert page.source < n_training


def test_the_test_split_is_halved():
    _, test = split(andersen())
    assert sorted([*leaked_tales(), *unseen_tales()]) == sorted(test)
    paragraphs = {
        p for tale in unseen_tales() for p in tale.split("\n\n") if len(p) > 200
    }
    assert len(paragraphs) > 50
    for page in crawl():
        assert not any(paragraph in page.text for paragraph in paragraphs)


def test_extraction_keeps_the_content_and_less_of_the_frame():
    prose = {"tale", "mirror", "near", "leak", "quote", "part", "bulletin"}
    counts = {extract_text: [0, 0, 0], strip_tags: [0, 0, 0]}
    for page in crawl():
        if page.kind in prose:
            html, _ = decode(page.html, page.declared)
            for function, total in counts.items():
                new = precision_recall(function(html), page.text)
                counts[function] = [a + b for a, b in zip(total, new, strict=True)]
    both, found, true = counts[extract_text]
    naive_both, naive_found, _ = counts[strip_tags]
    assert both / found > 0.99 > 0.97 > naive_both / naive_found
    assert both / true > 0.999


def test_beside_an_extractor_that_others_use():
    """On our own templates, which is no feat: words found and words kept too many."""
    html2text = pytest.importorskip("resiliparse.extract.html2text")
    counts = {name: [0, 0, 0] for name in ("ours", "theirs")}
    for page in crawl()[::4]:
        if page.kind in {"tale", "mirror", "near", "leak", "bulletin"}:
            html, _ = decode(page.html, page.declared)
            peer = html2text.extract_plain_text(html, main_content=True)
            for name, text in (("ours", extract_text(html)), ("theirs", peer)):
                new = precision_recall(text, page.text)
                counts[name] = [a + b for a, b in zip(counts[name], new, strict=True)]
    for name, least in (("ours", 0.99), ("theirs", 0.97)):
        both, found, true = counts[name]
        assert both / found > least
        assert both / true > 0.999


def test_every_copy_is_alike_until_a_tenth_is_edited():
    """The truth of the crawl against the exact similarity, and that against a formula.

    A shingle of k words survives if none of them was replaced: q = (1 - e)^k of them
    do, so J = q / (2 - q).
    """
    originals = {p.original: p for p in crawl() if p.kind == "tale"}
    found = {0.02: [], 0.05: [], 0.1: []}
    for page in crawl():
        if page.kind == "near" and page.edited in found:
            pair = (page.text, originals[page.original].text)
            found[page.edited].append(jaccard(*(shingles(text, 5) for text in pair)))
    for edited, values in found.items():
        q = (1 - edited) ** 5
        # A word may be replaced by itself, so a copy is a little more alike.
        assert len(values) > 15
        assert q / (2 - q) - 0.02 < np.mean(values) < q / (2 - q) + 0.04


def test_near_copies_are_dropped_and_nothing_unlike():
    index, kept = Index(bands=32, threshold=0.5), []
    pages = [p for p in crawl() if p.kind in {"tale", "mirror", "near", "bulletin"}]
    for page in pages:
        like = index.add(signature(page.text, 5, 128))
        if like is not None:
            assert pages[like].original == page.original >= 0
        else:
            kept.append(page)
    assert sum(p.kind == "bulletin" for p in kept) == 120
    # Two that were kept are unlike, as far as 128 hash functions can tell: four
    # standard errors at J = 0.5 are 0.18.
    by_original = {}
    for page in kept:
        by_original.setdefault(page.original, []).append(shingles(page.text, 5))
    del by_original[-1]
    pairs = [pair for same in by_original.values() for pair in combinations(same, 2)]
    assert len(pairs) > 10
    assert max(jaccard(*pair) for pair in pairs) < 0.68
    assert len(by_original) == len({p.original for p in pages} - {-1})


@pytest.mark.parametrize(
    ("write", "rules"),
    [
        (dirt.table, {"letters", "word length"}),
        (dirt.code, {"letters", "braces", "line ends"}),
        (dirt.links, {"letters", "line ends"}),
        (dirt.repeats, {"stop words", "2-grams", "repeated lines"}),
        (dirt.bulletin, {None}),
        (dirt.spam, {None}),
    ],
)
def test_which_rule_catches_which_dirt(write, rules):
    from random import Random

    assert {broken_rule(write(Random(seed))) for seed in range(20)} <= rules


def test_a_classifier_learns_the_domain_it_was_shown():
    """Good prose of another kind passes or fails with the bad texts it was shown."""
    tales, spam, bulletins = (
        [p.text for p in crawl() if p.kind == kind]
        for kind in ("tale", "spam", "bulletin")
    )
    small = {"size": 1 << 10, "steps": 100}
    judge = Classifier.fit(tales[:20], spam[:40], **small)
    assert judge.scores(tales[20:60]).min() > judge.scores(spam[40:]).max()
    assert judge.scores(bulletins[40:]).min() > 0.5
    judge = Classifier.fit(tales[:20], [*spam[:20], *bulletins[:20]], **small)
    assert judge.scores(tales[20:60]).min() > judge.scores(spam[40:]).max()
    assert judge.scores(bulletins[40:]).max() < 0.5
    with pytest.raises(ValueError, match="both kinds; got 0 good and 1 bad"):
        Classifier.fit([], ["x"])
