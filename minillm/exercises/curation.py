r"""Exercises to [`minillm.curation`][]."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from minillm import curation
from minillm.exercises.exercise import Draw, Exercise, Mistake

__all__ = ["EXERCISES"]

texts = st.lists(st.sampled_from(["a", "b", "A", "king"]), max_size=6).map(" ".join)
bags = st.lists(st.sampled_from(["a b", "b a", "b c"]), max_size=4)
PRIME = 101


def _shingles(text: str, k: int, *, low: bool = True, whole: bool = True) -> set[str]:
    words = (text.lower() if low else text).split()
    if len(words) < k:
        return {" ".join(words)} if words and whole else set()
    return {" ".join(words[i : i + k]) for i in range(len(words) - k + 1)}


def _one_short(text: str, k: int) -> set[str]:
    words = text.lower().split()
    if len(words) <= k:
        return _shingles(text, k)
    return {" ".join(words[i : i + k]) for i in range(len(words) - k)}


def _characters(text: str, k: int) -> set[str]:
    text = text.lower()
    return {text[i : i + k] for i in range(max(1, len(text) - k + 1))} - {""}


def _jaccard(a: list[str], b: list[str]) -> float:
    return curation.jaccard(set(a), set(b))


def _bag(a: list[str], b: list[str]) -> float:
    one, two = Counter(a), Counter(b)
    return (one & two).total() / (one | two).total() if a or b else 1.0


def _containment(a: list[str], b: list[str]) -> float:
    one, two = set(a), set(b)
    if not one or not two:
        return float(one == two)
    return len(one & two) / min(len(one), len(two))


def _dice(a: list[str], b: list[str]) -> float:
    one, two = set(a), set(b)
    total = len(one) + len(two)
    return 2 * len(one & two) / total if total else 1.0


Documents = list[list[int]]


def _signatures(
    documents: Documents, a: list[int], b: list[int], *, shift: int = 0, best: Any = min
) -> Documents:
    return [
        [
            best((u * x + v + shift * i) % PRIME for x in document)
            for u, v in zip(a, b, strict=True)
        ]
        for i, document in enumerate(documents)
    ]


def _least_first(documents: Documents, a: list[int], b: list[int]) -> Documents:
    return _signatures([[min(document)] for document in documents], a, b)


def _candidates(
    signatures: Documents, bands: int, *, rows: bool = False, place: bool = True
) -> set[tuple[int, int]]:
    n = len(signatures[0])
    width = bands if rows else n // bands
    pairs: set[tuple[int, int]] = set()
    buckets: dict[Any, list[int]] = {}
    for j, row in enumerate(signatures):
        for start in range(0, n, width):
            key = (start if place else 0, *row[start : start + width])
            bucket = buckets.setdefault(key, [])
            pairs.update((i, j) for i in bucket if i < j)
            bucket.append(j)
    return pairs


def _all_bands(signatures: Documents, bands: int) -> set[tuple[int, int]]:
    n = len(signatures)
    return {
        (i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if signatures[i] == signatures[j]
    }


Halves = tuple[list[int], list[int]]


def _first_of_each(groups: Sequence[int], positions: Sequence[int]) -> list[int]:
    first: dict[int, int] = {}
    for i in positions:
        first.setdefault(groups[i], i)
    return sorted(first.values())


def _split(groups: list[int], every: int) -> Halves:
    kept = _first_of_each(groups, range(len(groups)))
    aside = kept[every - 1 :: every]
    return [i for i in kept if i not in aside], aside


def _split_first(groups: list[int], every: int) -> Halves:
    aside = range(len(groups))[every - 1 :: every]
    rest = [i for i in range(len(groups)) if i not in aside]
    return _first_of_each(groups, rest), _first_of_each(groups, aside)


def _split_all(groups: list[int], every: int) -> Halves:
    aside = list(range(len(groups)))[every - 1 :: every]
    return [i for i in range(len(groups)) if i not in aside], aside


def _split_last(groups: list[int], every: int) -> Halves:
    last = sorted({group: i for i, group in enumerate(groups)}.values())
    aside = last[every - 1 :: every]
    return [i for i in last if i not in aside], aside


def _grams(text: str, n: int, *, low: bool = True) -> list[tuple[str, ...]]:
    words = (text.lower() if low else text).split()
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _contaminated(
    train: list[str],
    test: list[str],
    n: int,
    *,
    low: bool = True,
    joined: bool = False,
    distinct: bool = False,
    of_train: bool = False,
    yes: bool = False,
) -> list[float]:
    train = [" ".join(train)] if joined else train
    known = {gram for text in train for gram in _grams(text, n, low=low)}
    found = []
    for text in test:
        grams: Any = _grams(text, n, low=low)
        grams = set(grams) if distinct else grams
        hits = sum(gram in known for gram in grams)
        total = len(known) if of_train else len(grams)
        found.append(float(hits > 0) if yes else hits / total if total else 0.0)
    return found


def _choose(scores: list[float], good: list[bool], *, low: bool = True) -> float:
    best = min(scores) if low else max(scores)
    for t in sorted(scores, reverse=not low):
        if _right(t, scores, good) > _right(best, scores, good):
            best = t
    return best


def _right(t: float, scores: list[float], good: list[bool]) -> float:
    return sum((s >= t) == g for s, g in zip(scores, good, strict=True)) / len(good)


def _accuracy(
    tune: list[float], tune_good: list[bool], test: list[float], test_good: list[bool]
) -> float:
    return _right(_choose(tune, tune_good), test, test_good)


@st.composite
def _scored(draw: Draw) -> tuple[Any, ...]:
    parts: list[Any] = []
    for _ in range(2):
        n = draw(st.integers(1, 5))
        score = st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])
        parts.append(draw(st.lists(score, min_size=n, max_size=n)))
        parts.append(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return tuple(parts)


@st.composite
def _banded(draw: Draw) -> tuple[Any, ...]:
    bands, rows = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    row = st.lists(st.integers(0, 1), min_size=bands * rows, max_size=bands * rows)
    return draw(st.lists(row, min_size=1, max_size=4)), bands


@st.composite
def _hashed(draw: Draw) -> tuple[Any, ...]:
    n = draw(st.integers(1, 3))
    numbers = st.lists(st.integers(0, 100), min_size=1, max_size=4)
    factor = st.lists(st.integers(1, 100), min_size=n, max_size=n)
    documents = draw(st.lists(numbers, min_size=1, max_size=3))
    return documents, draw(factor), draw(factor)


EXERCISES = (
    Exercise(
        name="curation.shingles",
        title="Shingles",
        minutes=8,
        why="They turn the question whether two texts are alike into one about sets.",
        answer=(curation.shingles,),
        reference=_shingles,
        inputs=st.tuples(texts, st.integers(1, 3)),
        examples=(("The king and the king", 2), ("a b c", 2), ("Short", 2), ("", 1)),
        mistakes=(
            Mistake(
                "the last shingle is missing",
                "A text of w words has w - k + 1 runs of k words.",
                _one_short,
            ),
            Mistake(
                "keeps capitals",
                "A copy whose title is in capitals would look like another text.",
                lambda text, k: _shingles(text, k, low=False),
            ),
            Mistake(
                "a short text has none",
                "Two short texts would then be alike whatever they say: take all of "
                "its words as one shingle.",
                lambda text, k: _shingles(text, k, whole=False),
            ),
            Mistake(
                "characters for words",
                "The runs that are asked for are runs of words.",
                _characters,
            ),
        ),
        hints=(
            "Make the text small, split it, and count how many runs it has.",
            "If there are fewer than k words, let k be their number.",
            "Join words[i : i + k] for each i in range(len(words) - k + 1), if k > 0.",
        ),
    ),
    Exercise(
        name="curation.jaccard",
        title="Jaccard similarity",
        minutes=5,
        why="The number that MinHash estimates; with anything else in its place the "
        "estimate would be wrong.",
        answer=(curation.jaccard,),
        reference=_jaccard,
        inputs=st.tuples(bags, bags),
        examples=((["a b", "b a", "a b"], ["a b"]), ([], []), ([], ["a b"])),
        mistakes=(
            Mistake(
                "bags for sets",
                "A shingle counts once, however often it occurs: MinHash cannot see "
                "how often.",
                _bag,
            ),
            Mistake(
                "divides by the smaller set",
                "That is containment. A quotation would be a copy of the book.",
                _containment,
            ),
            Mistake(
                "divides by the sum",
                "That is Dice's coefficient; the union counts what both have once.",
                _dice,
            ),
            Mistake(
                "counts twice below what both have",
                "len(a) + len(b) has the common ones twice; the union has them once.",
                lambda a, b: _dice(a, b) / 2 if a or b else 1.0,
            ),
        ),
        hints=(
            "Make sets of the lists first.",
            "Both: a & b. Either: a | b.",
            "len(a & b) / len(a | b), and 1.0 if both are empty.",
        ),
    ),
    Exercise(
        name="curation.signatures",
        title="MinHash",
        minutes=12,
        why="A kilobyte in place of a book, and still the similarity can be read off.",
        answer=(curation.minhash,),
        reference=_signatures,
        inputs=_hashed(),
        examples=(([[1, 2], [2]], [1, 3], [0, 98]), ([[3], [3]], [2], [5])),
        mistakes=(
            Mistake(
                "another hash function for each document",
                "Then entries of two documents say nothing about each other: equal "
                "documents get different signatures. The functions are chosen once.",
                lambda d, a, b: _signatures(d, a, b, shift=1),
            ),
            Mistake(
                "takes the largest",
                "That would estimate the same, but the least value is asked for.",
                lambda d, a, b: _signatures(d, a, b, best=max),
            ),
            Mistake(
                "hashes the least shingle",
                "The least value of a hash function need not be that of the least "
                "shingle: hash all, then take the least.",
                _least_first,
            ),
        ),
        hints=(
            "Three loops: documents, hash functions, shingles.",
            "The innermost is a min over (a_i * x + b_i) % 101.",
            "[[min((u * x + v) % 101 for x in d) for u, v in zip(a, b)] for d in "
            "documents]",
        ),
    ),
    Exercise(
        name="curation.candidates",
        title="Bands",
        minutes=15,
        why="It finds the few pairs worth comparing without looking at all.",
        answer=(curation.lsh_candidates,),
        reference=_candidates,
        inputs=_banded(),
        examples=(
            ([[1, 2, 3, 4], [1, 2, 9, 9], [7, 2, 9, 8]], 2),
            ([[1, 2, 3, 1, 2, 3], [1, 2, 9, 9, 2, 3]], 3),
            ([[1, 2, 3, 4], [3, 4, 1, 2]], 2),
        ),
        mistakes=(
            Mistake(
                "bands and rows exchanged",
                "`bands` says how many bands there are; each has len(signature) // "
                "bands entries.",
                lambda s, bands: _candidates(s, bands, rows=True),
            ),
            Mistake(
                "compares band 1 with band 2",
                "Bands belong to different hash functions: keep a table for each, or "
                "put the number of the band into the key.",
                lambda s, bands: _candidates(s, bands, place=False),
            ),
            Mistake(
                "one equal entry is enough",
                "All entries of a band have to be equal.",
                lambda s, bands: _candidates(s, len(s[0])),
            ),
            Mistake(
                "asks that all bands agree",
                "One is enough. That all agree is nearly never so, even for J = 0.9.",
                _all_bands,
            ),
        ),
        hints=(
            "Take one band after the other; how many entries has each?",
            "Put every document into a dictionary under the entries of its band.",
            "A new document forms a pair with all that lie there already.",
        ),
    ),
    Exercise(
        name="curation.split",
        title="Deduplicate, then split",
        minutes=10,
        why="In the other order copies stand on both sides, and the validation loss "
        "praises a good memory.",
        answer=(_split,),
        reference=_split,
        inputs=st.tuples(
            st.lists(st.integers(0, 3), min_size=1, max_size=7), st.integers(2, 3)
        ),
        examples=(([5, 5, 6, 7, 6, 8], 2), ([1, 1, 1, 1], 2), ([1, 2, 1, 2], 2)),
        mistakes=(
            Mistake(
                "splits first",
                "Deduplicating each side on its own leaves copies that stand on both.",
                _split_first,
            ),
            Mistake(
                "keeps the copies",
                "Only the first of each group is kept.",
                _split_all,
            ),
            Mistake(
                "keeps the last of each group",
                "The first is asked for: a stream can be cleaned before it has ended.",
                _split_last,
            ),
        ),
        hints=(
            "First make the list of positions that are kept.",
            "Remember the groups that have been seen.",
            "kept[every - 1 :: every] is for validation.",
        ),
    ),
    Exercise(
        name="curation.contaminated",
        title="Contamination",
        minutes=12,
        why="Every report on a large model has this table. Now you know what it does "
        "and does not say.",
        answer=(curation.contaminated,),
        reference=_contaminated,
        inputs=st.tuples(
            st.lists(texts, max_size=3), st.lists(texts, max_size=3), st.integers(1, 3)
        ),
        examples=(
            (["the lamp burned"], ["The lamp burned all night", "rain"], 2),
            (["a b", "c d"], ["b c"], 2),
            (["a b"], ["a b a b c"], 2),
            (["a b c d"], ["a b"], 2),
        ),
        mistakes=(
            Mistake(
                "joins the training documents",
                "The end of one and the beginning of the next make n-grams that stand "
                "nowhere.",
                lambda train, test, n: _contaminated(train, test, n, joined=True),
            ),
            Mistake(
                "keeps capitals",
                "Small letters are asked for on both sides.",
                lambda train, test, n: _contaminated(train, test, n, low=False),
            ),
            Mistake(
                "counts different n-grams once",
                "Every place of the test document counts.",
                lambda train, test, n: _contaminated(train, test, n, distinct=True),
            ),
            Mistake(
                "divides by the training text",
                "The share is one of the test document's n-grams.",
                lambda train, test, n: _contaminated(train, test, n, of_train=True),
            ),
            Mistake(
                "says yes or no",
                "One common phrase and a whole copy are then the same; a share is "
                "asked for.",
                lambda train, test, n: _contaminated(train, test, n, yes=True),
            ),
        ),
        hints=(
            "One set holds the n-grams of all training documents.",
            "Make n-grams of each document on its own.",
            "sum(gram in known for gram in grams) / len(grams), or 0.0 without grams.",
        ),
    ),
    Exercise(
        name="curation.tuned_accuracy",
        title="A threshold",
        minutes=12,
        why="A threshold chosen on the texts that judge it always looks good.",
        answer=(_accuracy,),
        reference=_accuracy,
        inputs=_scored(),
        examples=(
            ([0.2, 0.6, 0.9], [False, True, True], [0.5, 0.7], [True, True]),
            ([0.3, 0.7], [True, False], [0.5], [False]),
            ([0.1, 0.5, 0.9], [True, False, True], [0.5], [True]),
        ),
        mistakes=(
            Mistake(
                "tuned on the test set",
                "The threshold has seen the answers. Choose it on the tuning texts.",
                lambda a, b, c, d: _right(_choose(c, d), c, d),
            ),
            Mistake(
                "returns the accuracy on the tuning texts",
                "That is how the threshold was chosen, not how good it is.",
                lambda a, b, c, d: _right(_choose(a, b), a, b),
            ),
            Mistake(
                "takes the highest of several",
                "Of several thresholds that are equally right the lowest is asked for.",
                lambda a, b, c, d: _right(_choose(a, b, low=False), c, d),
            ),
        ),
        hints=(
            "Write a function that says how often a threshold is right.",
            "Try the tuning scores in ascending order; change only for a better one.",
            "Then call it once with the test texts.",
        ),
    ),
)
