"""Chapter 9: shingles, MinHash, bands, contamination, and what the lecture claims."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.corpus.contamination import gram_hashes
from minillm.corpus.duplicates import alike
from minillm.corpus.signatures import hash_family, stir
from minillm.curation import (
    banding_curve,
    candidates,
    contaminated,
    crawl,
    jaccard,
    leaked_tales,
    lsh_candidates,
    minhash,
    mixture,
    precision_recall,
    shingles,
    signature,
    unseen_tales,
)

SIGNED = "0x299b3de5852be24f"

# Few words, so that shingles repeat; and what could break a split at spaces.
WORDS = st.lists(
    st.sampled_from(["a", "b", "The", "the", "é", "x.y", "—"]), max_size=14
)
TEXTS = WORDS.flatmap(
    lambda words: st.sampled_from([" ", "\n", " \t "]).map(lambda gap: gap.join(words))
)


@given(TEXTS, st.integers(1, 6))
def test_shingles_against_a_loop(text, k):
    words = text.lower().split()
    expected = set()
    for i in range(len(words)):
        if i + k <= len(words):
            expected.add(" ".join(words[i : i + k]))
    if words and len(words) < k:
        expected = {" ".join(words)}
    assert shingles(text, k) == expected


@given(TEXTS, st.integers(1, 5), st.integers(1, 9))
def test_fast_signature_is_minhash_of_shingles(text, k, n):
    naive = minhash(shingles(text, k), n)
    fast = signature(text, k, n)
    assert naive.dtype == fast.dtype == np.uint64
    assert naive.tolist() == fast.tolist()


def test_a_signature_never_changes():
    """Written down by one process, read by another, years later."""
    assert minhash({"the lamp", "lamp burned"}, 3).tolist() == [
        int(x) for x in signature("the lamp burned", 2, 3)
    ]
    assert hex(int(signature("the lamp burned", 2, 2)[0])) == SIGNED


def test_a_longer_signature_begins_with_the_shorter():
    text = "the old street lamp had served for many years"
    assert (signature(text, 2, 64)[:16] == signature(text, 2, 16)).all()


def test_the_hash_family_permutes():
    """Odd factors are invertible modulo 2^64, and stirring is one to one."""
    a, _ = hash_family(300)
    assert (a % 2 == 1).all()
    assert len(set(a.tolist())) == 300
    for factor in a[:50].tolist():
        assert factor * pow(factor, -1, 1 << 64) % (1 << 64) == 1
    x = np.arange(1 << 16, dtype=np.uint64)
    assert len(np.unique(stir(x))) == len(x)


@pytest.mark.parametrize("overlap", [0, 30, 100, 170, 200])
def test_equal_entries_estimate_jaccard(overlap):
    """Mean within 4 standard errors, for sets whose similarity is known exactly."""
    a = {f"left {i}" for i in range(200 - overlap)} | {f"b {i}" for i in range(overlap)}
    b = {f"right {i}" for i in range(200 - overlap)} | {
        f"b {i}" for i in range(overlap)
    }
    n, j = 4096, jaccard(a, b)
    assert j == pytest.approx(overlap / (400 - overlap))
    estimate = (minhash(a, n) == minhash(b, n)).mean()
    assert abs(estimate - j) <= 4 * (j * (1 - j) / n) ** 0.5


def test_text_is_compared_without_case_and_spaces_alone():
    assert (
        signature("The  Lamp\nburned", 2, 8) == signature("the lamp burned", 2, 8)
    ).all()
    assert (
        signature("lamp the burned", 2, 8) != signature("the lamp burned", 2, 8)
    ).any()


def test_without_words():
    assert shingles(" \n ", 3) == set()
    assert minhash(set(), 4).tolist() == [2**64 - 1] * 4 == signature("", 3, 4).tolist()
    assert jaccard(set(), set()) == 1


@given(st.lists(st.sets(st.sampled_from("abcde")), max_size=5), st.floats(0.01, 1))
def test_the_oracle_against_all_pairs(sets, least):
    assert alike(sets, least) == {
        (i, j)
        for (i, a), (j, b) in combinations(enumerate(sets), 2)
        if a & b and jaccard(a, b) >= least
    }


SIGNATURES = st.integers(1, 3).flatmap(
    lambda rows: st.integers(1, 4).flatmap(
        lambda bands: st.tuples(
            st.just(bands),
            st.lists(
                st.lists(
                    st.integers(0, 2), min_size=rows * bands, max_size=rows * bands
                ),
                min_size=1,
                max_size=9,
            ),
        )
    )
)


@given(SIGNATURES)
def test_candidates_by_tables_by_sorting_and_by_definition(case):
    bands, rows = case
    signatures = np.array(rows, np.uint64)
    width = signatures.shape[1] // bands
    expected = {
        (i, j)
        for i, j in combinations(range(len(rows)), 2)
        if any(
            rows[i][s : s + width] == rows[j][s : s + width]
            for s in range(0, bands * width, width)
        )
    }
    assert lsh_candidates(signatures, bands) == expected
    assert candidates(signatures, bands) == expected


@pytest.mark.parametrize("function", [lsh_candidates, candidates])
def test_bands_must_divide(function):
    with pytest.raises(ValueError, match="5 bands do not divide a signature of 16"):
        function(np.zeros((2, 16), np.uint64), 5)
    with pytest.raises(ValueError, match="0 bands"):
        function(np.zeros((2, 16), np.uint64), 0)


def test_the_banding_curve_by_experiment():
    """Share of caught pairs against 1 - (1 - s^r)^b, within 4 standard errors."""
    trials, n = 400, 32
    for bands, s in ((4, 0.8), (8, 0.6), (16, 0.4)):
        both, each = round(200 * s), round(100 * (1 - s))
        j = both / (both + 2 * each)
        caught = 0
        for trial in range(trials):
            a = {f"{trial} both {i}" for i in range(both)}
            b = a | {f"{trial} right {i}" for i in range(each)}
            a |= {f"{trial} left {i}" for i in range(each)}
            rows = np.stack([signature_of(x, n) for x in (a, b)])
            caught += len(lsh_candidates(rows, bands))
        p = banding_curve(j, bands, n // bands)
        assert 0.02 < p < 0.98
        assert abs(caught / trials - p) < 4 * (p * (1 - p) / trials) ** 0.5


def signature_of(members, n):
    """A set of strings as a text whose shingles of one word they are."""
    return signature(" ".join(m.replace(" ", "_") for m in sorted(members)), 1, n)


@pytest.mark.parametrize("bad", [0, -1])
def test_numbers_that_must_be_positive(bad):
    with pytest.raises(ValueError, match="a shingle has at least one word"):
        shingles("a b", bad)
    with pytest.raises(ValueError, match="a shingle has at least one word"):
        signature("a b", bad, 4)
    with pytest.raises(ValueError, match="at least one hash function"):
        minhash({"a"}, bad)
    with pytest.raises(ValueError, match="an n-gram has at least one word"):
        contaminated(["a"], ["a"], bad)
    with pytest.raises(ValueError, match="must be positive"):
        mixture([1, 2], bad)
    with pytest.raises(ValueError, match="leave empty domains out"):
        mixture([1, 0], 1.0)
    with pytest.raises(ValueError, match=r"must be positive; got 1 and nan"):
        mixture([1, 2], float("nan"))


@given(st.lists(TEXTS, max_size=4), st.lists(TEXTS, max_size=3), st.integers(1, 4))
def test_contamination_against_a_search_for_phrases(train, test, n):
    def phrase(text):
        import re

        return " ".join(re.findall(r"\w+", text.lower()))

    expected = []
    for text in test:
        words = phrase(text).split()
        length = min(n, len(words))
        grams = [
            " ".join(words[i : i + length]) for i in range(len(words) - length + 1)
        ]
        grams = grams if length else []
        hits = [any(f" {g} " in f" {phrase(t)} " for t in train) for g in grams]
        expected.append(sum(hits) / len(hits) if hits else 0.0)
    assert contaminated(iter(train), test, n).tolist() == pytest.approx(expected)


def test_hashed_grams_agree_with_contaminated():
    texts = [page.text for page in crawl() if page.kind in {"leak", "part", "quote"}]
    for n in (5, 13):
        held = gram_hashes("\n".join(leaked_tales()), n)
        shares = contaminated(leaked_tales(), texts, n)
        by_hash = [bool(np.isin(gram_hashes(text, n), held).any()) for text in texts]
        # Joining the tales makes n-grams across two of them, which no page has.
        assert by_hash == (shares > 0).tolist()


def test_a_paraphrase_hides():
    """What no n-gram finds: the same said in other words."""
    tale = "The emperor walked through the streets without any clothes on."
    retold = "Naked, the ruler paraded along every road."
    assert contaminated([retold], [tale], 3).tolist() == [0.0]


def test_leaks_are_found_and_unseen_tales_are_clean():
    texts = [page.text for page in crawl()]
    leaked = contaminated(texts, leaked_tales(), 13)
    unseen = contaminated(texts, unseen_tales(), 13)
    assert leaked.min() > 0.95
    assert unseen.max() == 0


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=5), st.floats(0.05, 50))
@settings(max_examples=50)
def test_mixture_is_a_tempered_distribution(tokens, temperature):
    p = mixture(tokens, temperature)
    assert p.sum() == pytest.approx(1)
    for i, j in combinations(range(len(tokens)), 2):
        ratio = (np.log(tokens[i]) - np.log(tokens[j])) / temperature
        if abs(ratio) < 50:
            assert np.log(p[i] / p[j]) == pytest.approx(ratio, abs=1e-6)
    assert mixture(tokens, 1.0).tolist() == pytest.approx([
        n / sum(tokens) for n in tokens
    ])


def test_precision_and_recall_count_words():
    found, true = "a a b c", "a b b d e"
    both, n_found, n_true = precision_recall(found, true)
    assert (both, n_found, n_true) == (2, 4, 5)
    assert both == sum((Counter("aabc") & Counter("abbde")).values())
