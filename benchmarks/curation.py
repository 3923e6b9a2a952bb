"""How fast are near duplicates found? Beside datasketch, on the same pages.

The same pages, the same shingles, as many hash functions and bands. Hash functions
differ, so signatures do; what must agree are the pairs that both call alike, up to the
error that an estimate of a similarity has. Both are compared with the exact pairs.
"""

from benchmarks.command import main
from benchmarks.measure import Part, Record
from minillm.corpus.crawl import crawl
from minillm.corpus.duplicates import Index, alike, signature
from minillm.curation import shingles

K, LENGTH, BANDS = 5, 128, 32


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
    for name, function in (("ours", ours), ("datasketch's", theirs)):
        found = function()
        dropped = {i for i, like in enumerate(found) if like is not None}
        wrong = sum((found[i], i) not in exact for i in dropped)
        kept = [i for i in range(len(texts)) if i not in dropped]
        left = sum(pair in exact for pair in _pairs(kept))
        print(
            f"   {name}: {len(dropped)} pages dropped, {wrong} of them below J = 0.5; "
            f"{left} pairs of J >= 0.5 left"
        )
    times = record.take_turns({"us": ours, "them": theirs}, 3, 0.6)
    record.row(f"{len(texts)} pages", times["us"], "datasketch", times["them"])


def _pairs(kept: list[int]) -> list[tuple[int, int]]:
    return [(i, j) for n, i in enumerate(kept) for j in kept[n + 1 :]]


PARTS = {"minhash": Part(minhash, 60), "pairs": Part(pairs, 60)}

if __name__ == "__main__":
    main("curation", __doc__, PARTS)
