"""How fast is a crawl cleaned? Beside resiliparse and datasketch, on the same pages.

Text is extracted from the same pages, whose truth is known, so that speed can be read
beside precision and recall. For near duplicates both sides get the same shingles and as
many hash functions.
"""

from collections.abc import Callable

import numpy as np

from benchmarks.command import main
from benchmarks.measure import Part, Record
from minillm.corpus.crawl import crawl
from minillm.corpus.duplicates import Index
from minillm.corpus.extraction import decode, extract_text, precision_recall
from minillm.corpus.signatures import _WORDS, signature
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
        3,
        0.8,
    )
    record.row(
        *(f"{len(htmls)} pages", times["us"], "resiliparse", times["them"]),
        unit="MB/s",
        amount=sum(len(html.encode()) for html in htmls) / 1e6,
        note=note,
    )


def minhash(record: Record) -> None:
    """Sign each page of the crawl with 128 hash functions, shingles of five words.

    What is timed begins with the text and ends with the signatures. Ours hashes each
    word once, the peer each shingle, by SHA-1, as it comes. Neither remembers what the
    turn before has hashed.
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

    def ours() -> list[np.ndarray]:
        _WORDS.clear()
        return [signature(text, K, LENGTH) for text in texts]

    found = record.take_turns({"us": ours, "them": theirs}, 3, 0.8)
    record.row(
        f"{len(texts)} pages, {LENGTH} hash functions",
        *(found["us"], "datasketch", found["them"]),
        target=("ratio >=", 3),
    )


def growth(record: Record) -> None:
    """Sign and decide about ten times as many pages; the peer is the smaller crawl.

    The larger crawl is ten crawls, each with words of its own: in every one, the same
    copies. All pairs are a hundred times as many; the work should be ten times.
    """
    texts = [page.text for page in crawl()][: 50 if record.quick else 200]
    more = [
        " ".join(f"{word}{copy}" for word in text.split())
        for copy in range(10)
        for text in texts
    ]
    texts = more[: len(texts)]  # of words as long

    def run(texts: list[str]) -> None:
        index = Index(bands=BANDS, threshold=0.5)
        for text in texts:
            index.add(signature(text, K, LENGTH))

    times = record.take_turns({"ten": lambda: run(more), "one": lambda: run(texts)}, 3)
    record.row(
        f"{len(more):,} pages",
        [seconds / len(more) for seconds in times["ten"]],
        f"{len(texts):,} pages",
        [seconds / len(texts) for seconds in times["one"]],
        unit="pages/s",
        amount=1,
    )


PARTS = {
    "extraction": Part(extraction, 15),
    "minhash": Part(minhash, 20),
    "growth": Part(growth, 15),
}

if __name__ == "__main__":
    main("curation", __doc__, PARTS)
