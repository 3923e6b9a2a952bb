"""How fast is a crawl cleaned? Beside resiliparse and datasketch, on the same pages.

Text is extracted from the same pages, whose truth is known, so that speed can be read
beside precision and recall. For near duplicates both sides get the same shingles, as
many hash functions and as many bands. Hash functions differ, so signatures do; what
must agree are the pairs that both call alike, up to the error that an estimate of a
similarity has. Both are compared with the exact pairs.
"""

from collections.abc import Callable

from benchmarks.command import main
from benchmarks.measure import Part, Record
from minillm.corpus.crawl import crawl
from minillm.corpus.duplicates import Index, alike
from minillm.corpus.extraction import decode, extract_text, precision_recall
from minillm.corpus.signatures import signature
from minillm.curation import shingles

K, LENGTH, BANDS = 5, 128, 32
PROSE = frozenset({"tale", "mirror", "near", "leak", "quote", "part", "bulletin"})


def extraction(record: Record) -> None:
    """Take the text out of each page of the crawl, its encoding known.

    The peer is the extractor with which DCLM was built: a parser in C, and rules in
    Cython. Precision and recall are those of words, over the pages of prose. The
    templates of the crawl are of our making, and our thresholds were chosen on them; on
    sites of others, the peer has seen more.
    """
    from resiliparse.extract.html2text import extract_plain_text

    pages = crawl()[: 100 if record.quick else None]
    htmls = [decode(page.html, page.declared)[0] for page in pages]

    def theirs(html: str) -> str:
        return extract_plain_text(html, main_content=True, alt_texts=False)

    def score(extract: Callable[[str], str]) -> str:
        counts = zip(
            *(
                precision_recall(extract(html), page.text)
                for html, page in zip(htmls, pages, strict=True)
                if page.kind in PROSE
            ),
            strict=True,
        )
        both, found, true = map(sum, counts)
        return f"precision {both / found:.3f}, recall {both / true:.4f}"

    note = f"{score(extract_text)}; theirs: {score(theirs)}"
    times = record.take_turns(
        {
            "us": lambda: [extract_text(html) for html in htmls],
            "them": lambda: [theirs(html) for html in htmls],
        },
        5,
        0.3,
    )
    record.row(
        *(f"{len(htmls)} pages", times["us"], "resiliparse", times["them"]),
        unit="MB/s",
        amount=sum(len(html) for html in htmls) / 1e6,
        note=note,
    )


def minhash(record: Record) -> None:
    """Sign each page of the crawl with 128 hash functions, shingles of five words.

    What is timed begins with the text and ends with the signatures.
    """
    from datasketch import MinHash

    texts = [page.text for page in crawl()][: 100 if record.quick else None]

    def theirs() -> list[MinHash]:
        signed = []
        for text in texts:
            one = MinHash(num_perm=LENGTH)
            one.update_batch([s.encode() for s in shingles(text, K)])
            signed.append(one)
        return signed

    found = record.take_turns(
        {"us": lambda: [signature(text, K, LENGTH) for text in texts], "them": theirs},
        5,
        0.6,
    )
    record.row(
        f"{len(texts)} pages, {LENGTH} hash functions",
        *(found["us"], "datasketch", found["them"]),
        target=("ratio >=", 3),
    )


def pairs(record: Record) -> None:
    """Decide about each page whether it is like one before: signatures and index."""
    from datasketch import MinHash, MinHashLSH

    texts = [page.text for page in crawl()][: 100 if record.quick else None]

    def ours() -> list[int | None]:
        index = Index(bands=BANDS, threshold=0.5)
        return [index.add(signature(text, K, LENGTH)) for text in texts]

    def theirs() -> list[int | None]:
        index = MinHashLSH(params=(BANDS, LENGTH // BANDS), num_perm=LENGTH)
        kept: dict[int, MinHash] = {}
        found: list[int | None] = []
        for i, text in enumerate(texts):
            one = MinHash(num_perm=LENGTH)
            one.update_batch([s.encode() for s in shingles(text, K)])
            like = [j for j in sorted(index.query(one)) if one.jaccard(kept[j]) >= 0.5]
            found.append(like[0] if like else None)
            if not like:
                index.insert(i, one)
                kept[i] = one
        return found

    exact = alike([shingles(text, K) for text in texts], 0.5)
    said = []
    for name, function in (("ours", ours), ("theirs", theirs)):
        found = function()
        dropped = {i for i, like in enumerate(found) if like is not None}
        wrong = sum((found[i], i) not in exact for i in dropped)
        kept = [i for i in range(len(texts)) if i not in dropped]
        left = sum(pair in exact for pair in _pairs(kept))
        said.append(
            f"{name}: {len(dropped)} dropped, {wrong} of them below J = 0.5, "
            f"{left} pairs of J >= 0.5 left"
        )
    times = record.take_turns({"us": ours, "them": theirs}, 3, 0.6)
    record.row(
        *(f"{len(texts)} pages", times["us"], "datasketch", times["them"]),
        note="; ".join(said),
    )


def _pairs(kept: list[int]) -> list[tuple[int, int]]:
    return [(i, j) for n, i in enumerate(kept) for j in kept[n + 1 :]]


def growth(record: Record) -> None:
    """Sign and decide about ten times as many pages; the peer is the smaller crawl.

    The larger crawl is ten crawls, each with words of its own: in every one, the same
    copies. All pairs are a hundred times as many; the work should be ten times.
    """
    texts = [page.text for page in crawl()][: 100 if record.quick else None]
    more = [
        " ".join(f"{word}{copy}" for word in text.split())
        for copy in range(10)
        for text in texts
    ]

    kept: dict[int, int] = {}

    def run(texts: list[str]) -> None:
        index = Index(bands=BANDS, threshold=0.5)
        new = [index.add(signature(text, K, LENGTH)) is None for text in texts]
        kept[len(texts)] = sum(new)

    times = record.take_turns({"ten": lambda: run(more), "one": lambda: run(texts)}, 3)
    record.row(
        f"{len(more):,} pages",
        [seconds / len(more) for seconds in times["ten"]],
        f"{len(texts):,} pages",
        [seconds / len(texts) for seconds in times["one"]],
        unit="pages/s",
        amount=1,
        note=f"{kept[len(more)]:,} kept of {len(more):,}; "
        f"{kept[len(texts)]:,} of {len(texts):,}",
    )


PARTS = {
    "extraction": Part(extraction, 30),
    "minhash": Part(minhash, 60),
    "pairs": Part(pairs, 60),
    "pairs growth": Part(growth, 40),
}

if __name__ == "__main__":
    main("curation", __doc__, PARTS)
