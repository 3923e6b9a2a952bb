r"""Exercises to [`minillm.bpe`][]: text to integers."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from minillm import bpe
from minillm.bpe import GPT2_PATTERN
from minillm.exercises.exercise import Draw, Exercise, Mistake
from minillm.tokenizer import streams
from minillm.tokenizer.patterns import pretokenize

__all__ = ["EXERCISES"]

Pair = tuple[int, int]
ids = st.lists(st.integers(0, 2), max_size=8)
texts = st.text("ab é", max_size=10)


# Merging


def _merge(
    ids: list[int], pair: Pair, new_id: int, *, skip: int = 2, stop: int = 0
) -> list[int]:
    new_ids, i = [], 0
    while i < len(ids) - stop:
        if tuple(ids[i : i + 2]) == pair:
            new_ids.append(new_id)
            i += skip
        else:
            new_ids.append(ids[i])
            i += 1
    return new_ids


def _merge_eats(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    # Marks every pair, overlapping or not, and then replaces what is marked.
    starts = {i for i, both in enumerate(pairwise(ids)) if both == pair}
    covered = starts | {i + 1 for i in starts}
    return [
        new_id if i in starts else id_
        for i, id_ in enumerate(ids)
        if i in starts or i not in covered
    ]


def _merge_first(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    for i, both in enumerate(pairwise(ids)):
        if both == pair:
            return [*ids[:i], new_id, *ids[i + 2 :]]
    return ids[:]


def _merge_from_right(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    return _merge(ids[::-1], pair[::-1], new_id)[::-1]


def _merge_restart(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    row, i = ids[:], 0
    while i < len(row) - 1:
        if (row[i], row[i + 1]) == pair and new_id not in pair:
            row[i : i + 2] = [new_id]
            i = 0
        else:
            i += 1
    return row


# Training


def _train(
    texts: list[str],
    vocab_size: int,
    *,
    cut: bool = True,
    distinct: bool = False,
    recount: bool = True,
    extra: int = 0,
    choose: Callable[[Any, Any], Pair] | None = None,
) -> list[tuple[bytes, bytes]]:
    words = [
        w
        for text in texts
        for w in (pretokenize(text, GPT2_PATTERN) if cut else [text])
    ]
    if distinct:
        words = list(dict.fromkeys(words))
    rows = [list(word.encode()) for word in words]
    vocab = {i: bytes([i]) for i in range(256)}
    merges: list[tuple[bytes, bytes]] = []
    counts: Counter[Pair] = Counter()
    while len(merges) < vocab_size - 256 + extra:
        if recount or not merges:
            counts = sum((bpe.count_pairs(row) for row in rows), Counter())
        if not counts:
            break
        pair = (choose or _choose)(counts, vocab)
        merges.append((vocab[pair[0]], vocab[pair[1]]))
        new_id = len(vocab)
        vocab[new_id] = vocab[pair[0]] + vocab[pair[1]]
        rows = [bpe.merge(row, pair, new_id) for row in rows]
        if not recount:
            del counts[pair]
    return merges


def _choose(counts: Mapping[Pair, int], vocab: Mapping[int, bytes]) -> Pair:
    return max(counts, key=lambda pair: (counts[pair], vocab[pair[0]], vocab[pair[1]]))


def _reference_train(texts: list[str], vocab_size: int) -> list[tuple[bytes, bytes]]:
    if not any(texts):
        return []
    return bpe.train_bpe_naive(texts, vocab_size)[1]


# Encoding


def _encode_greedy(
    text: str, vocab: Mapping[int, bytes], merges: list[tuple[bytes, bytes]]
) -> list[int]:
    ids = {token: id_ for id_, token in vocab.items()}
    found = []
    for word in pretokenize(text, GPT2_PATTERN):
        rest = word.encode()
        while rest:
            token = max((t for t in ids if rest.startswith(t)), key=len)
            found.append(ids[token])
            rest = rest[len(token) :]
    return found


def _encode(
    text: str,
    vocab: Mapping[int, bytes],
    merges: list[tuple[bytes, bytes]],
    *,
    cut: bool = True,
    backwards: bool = False,
) -> list[int]:
    ids = {token: id_ for id_, token in vocab.items()}
    words = pretokenize(text, GPT2_PATTERN) if cut else [text]
    rows = [[ids[bytes([b])] for b in word.encode()] for word in words]
    for left, right in reversed(merges) if backwards else merges:
        rows = [
            bpe.merge(row, (ids[left], ids[right]), ids[left + right]) for row in rows
        ]
    return [id_ for row in rows for id_ in row]


TOKENIZERS = [
    bpe.train_bpe_naive([text], vocab_size)
    for text in ("abab aab ab abb", "ab b ab b aabb", "bba abba bab ba")
    for vocab_size in (257, 259, 261)
]


@st.composite
def _trained(draw: Draw) -> tuple[Any, ...]:
    return draw(texts), *draw(st.sampled_from(TOKENIZERS))


# Special tokens


def _split(text: str, specials: tuple[str, ...], pattern: str) -> list[str]:
    return re.split(f"({pattern})", text) if specials else [text]


def _longest_first(specials: tuple[str, ...]) -> list[str]:
    return sorted(specials, key=len, reverse=True)


# Streams


def _call_stream(function: Callable[..., Iterator[int]], chunks: list[str]) -> Any:
    """Feed chunks one by one, and note what came out before the last was taken."""
    log: list[str] = []

    def feed() -> Iterator[str]:
        for chunk in chunks:
            log.append("chunk")
            yield chunk

    def encode(text: str) -> list[int]:
        words = pretokenize(text, GPT2_PATTERN)
        return [hash_of(word) for word in words]

    result = []
    for id_ in function(feed(), encode):
        log.append("id")
        result.append(id_)
    # With this many spaces between words, something is ready before the end.
    ready = sum(" " in chunk for chunk in chunks[:-1]) > 3
    early = "id" in log[: len(log) - log[::-1].index("chunk")] if chunks else True
    return result, "in time" if early or not ready else "only at the end"


def hash_of(word: str) -> int:
    """A number for a word, the same in every run."""
    return sum(ord(c) * 31**i for i, c in enumerate(word)) % 1000


Encode = Callable[[str], list[int]]


def _stream(
    chunks: Iterable[str],
    encode: Encode,
    *,
    after: bool = False,
    flush: bool = True,
    inside: bool = False,
) -> Iterator[int]:
    rest = ""
    cut_at = re.compile(r"\s(?=\s)" if inside else r"\S(?=\s)")
    for chunk in chunks:
        rest += chunk
        cuts = [m.start() + 1 for m in cut_at.finditer(rest)]
        cut = (cuts[-1] if cuts else 0) + (after and bool(cuts))
        yield from encode(rest[:cut])
        rest = rest[cut:]
    if flush:
        yield from encode(rest)


def _stream_parts(chunks: Iterable[str], encode: Encode) -> Iterator[int]:
    for chunk in chunks:
        yield from encode(chunk)


def _stream_whole(chunks: Iterable[str], encode: Encode) -> Iterator[int]:
    yield from encode("".join(chunks))


def _letters_encoded(function: Any, chunks: list[str], encode: Encode) -> int:
    letters = 0

    def counting(text: str) -> list[int]:
        nonlocal letters
        letters += len(text)
        return encode(text)

    for _ in function(iter(chunks), counting):
        pass
    return letters


EXERCISES = (
    Exercise(
        name="bpe.compression_ratio",
        title="Measure a tokenizer by one number",
        minutes=5,
        why="A model pays for each token. How much text it gets for that is the first "
        "thing to know about a tokenizer, and bytes make scripts comparable.",
        answer=(bpe.compression_ratio,),
        reference=bpe.compression_ratio,
        inputs=st.tuples(texts, st.lists(st.integers(0, 9), max_size=4)),
        examples=(("é", [0]), ("ab", [])),
        mistakes=(
            Mistake(
                "characters for bytes",
                "len(text) counts characters; é is one character and two bytes.",
                lambda text, ids: bpe.compression_ratio("a" * len(text), ids),
            ),
            Mistake(
                "upside down",
                "Bytes per token, not tokens per byte: larger is better.",
                lambda text, ids: len(ids) / len(text.encode()) if ids else 1 / 0,
            ),
            Mistake(
                "no answer without tokens",
                "Without tokens there is no ratio, and Python's own ZeroDivisionError "
                "does not say so: raise a ValueError.",
                lambda text, ids: len(text.encode()) / len(ids),
            ),
        ),
        hints=(
            "A string has characters. Which method turns it into bytes?",
            "text.encode() are its bytes in UTF-8; how many, divided by how many ids?",
            "Before dividing: if there are no ids, raise ValueError with a sentence.",
        ),
    ),
    Exercise(
        name="bpe.count_pairs",
        title="Count neighbours",
        minutes=5,
        why="Byte-pair encoding is this count, repeated: the most frequent pair gets a "
        "token of its own.",
        answer=(bpe.count_pairs,),
        reference=bpe.count_pairs,
        inputs=st.tuples(ids),
        examples=(([],), ([7, 7, 7],)),
        growth=lambda n: ([i % 50 for i in range(n)],),
        mistakes=(
            Mistake(
                "steps over what it has counted",
                "Pairs overlap: the second token of one is the first of the next.",
                lambda ids: Counter(zip(ids[::2], ids[1::2], strict=False)),
            ),
            Mistake(
                "stops one pair short",
                "n tokens have n - 1 pairs; the last begins at place n - 2.",
                lambda ids: Counter((ids[i], ids[i + 1]) for i in range(len(ids) - 2)),
            ),
            Mistake(
                "order lost",
                "(1, 2) and (2, 1) are different pairs: a merge replaces one of them.",
                lambda ids: Counter((min(pair), max(pair)) for pair in pairwise(ids)),
            ),
            Mistake(
                "counts all pairs anew for each pair",
                "One walk along the row sees every pair once.",
                lambda ids: Counter({
                    pair: sum(1 for other in pairwise(ids) if other == pair)
                    for pair in pairwise(ids)
                }),
                kind="growth",
            ),
        ),
        hints=(
            "Walk along the row once, and look at each token and the one behind it.",
            "zip(ids, ids[1:]), or itertools.pairwise, gives the pairs.",
            "Counter takes any iterable and counts what is in it.",
        ),
    ),
    Exercise(
        name="bpe.merge",
        title="Merge a pair",
        minutes=15,
        why="Training and encoding are made of this step, so what goes wrong here goes "
        "wrong in every text.",
        answer=(bpe.merge,),
        reference=bpe.merge,
        inputs=st.tuples(
            ids, st.tuples(st.integers(0, 2), st.integers(0, 2)), st.just(256)
        ),
        examples=(
            ([7, 7, 7], (7, 7), 256),
            ([7, 7, 7, 7], (7, 7), 256),
            ([1, 2, 1, 2], (1, 2), 256),
            ([1, 2, 0], (1, 2), 256),
        ),
        growth=lambda n: ([1, 2] * n, (1, 2), 256),
        mistakes=(
            Mistake(
                "eats overlapping pairs",
                "After a merge both tokens are used up; the second cannot begin the "
                "next pair.",
                _merge_eats,
            ),
            Mistake(
                "steps on by one after a merge",
                "After a merge the search goes on two places further, behind both.",
                lambda ids, pair, new_id: _merge(ids, pair, new_id, skip=1),
            ),
            Mistake(
                "loses the last token",
                "The last token begins no pair, but it belongs to the result.",
                lambda ids, pair, new_id: _merge(ids, pair, new_id, stop=1),
            ),
            Mistake(
                "only the first occurrence",
                "The pair is replaced wherever it occurs.",
                _merge_first,
            ),
            Mistake(
                "from the right",
                "Where pairs overlap the left is taken: [7, 7, 7] becomes [256, 7].",
                _merge_from_right,
            ),
            Mistake(
                "begins again after each merge",
                "What lies left of a merge has been searched: go on from there.",
                _merge_restart,
                kind="growth",
            ),
        ),
        hints=(
            "Build a new list, and keep a place i in the old one.",
            "At place i there are two cases: the pair begins here (append new_id, go "
            "on by two), or it does not (append ids[i], go on by one).",
            "Mind the end: at the last token there is no ids[i + 1] to look at, and "
            "the token itself must not be lost.",
        ),
    ),
    Exercise(
        name="bpe.choose_pair",
        title="Break a tie",
        minutes=10,
        why="Ties are common, and two programs that break them differently learn "
        "different vocabularies from the same text.",
        answer=(bpe.choose_pair,),
        reference=lambda counts, vocab: bpe.choose_pair(counts, vocab, "bytes"),
        inputs=st.dictionaries(
            st.tuples(st.integers(0, 3), st.integers(0, 3)),
            st.integers(1, 3),
            min_size=1,
            max_size=5,
        ).map(lambda counts: (counts, {0: b"c", 1: b"b", 2: b"ba", 3: b"a"})),
        examples=(
            ({(0, 1): 2, (1, 0): 2}, {0: b"b", 1: b"a"}),
            ({(1, 0): 2, (0, 1): 2}, {0: b"a", 1: b"b"}),
            ({(0, 1): 1, (2, 0): 1}, {0: b"a", 1: b"z", 2: b"ab"}),
        ),
        mistakes=(
            Mistake(
                "the first that was seen",
                "max() returns the first of equals, so the order of counting decides.",
                lambda counts, vocab: max(counts, key=lambda pair: counts[pair]),
            ),
            Mistake(
                "the greater ids",
                "Ids say when a token was learned. Compare its bytes, vocab[id].",
                lambda counts, vocab: max(counts, key=lambda p: (counts[p], p)),
            ),
            Mistake(
                "the smaller bytes",
                "Among equally frequent pairs the greatest is chosen.",
                lambda counts, vocab: min(
                    counts, key=lambda p: (-counts[p], vocab[p[0]], vocab[p[1]])
                ),
            ),
            Mistake(
                "both byte strings joined",
                "A pair of byte strings is compared part by part: joined, (b'a', b'b') "
                "and (b'ab', b'') would be the same.",
                lambda counts, vocab: max(
                    counts, key=lambda p: (counts[p], vocab[p[0]] + vocab[p[1]])
                ),
            ),
        ),
        hints=(
            "max() takes a function `key`. What must it compare first?",
            "Tuples are compared part by part: first the count, then the rest.",
            "key=lambda pair: (counts[pair], bytes of the left, bytes of the right)",
        ),
    ),
    Exercise(
        name="bpe.train",
        title="Train a tokenizer",
        minutes=40,
        why="Here the vocabulary comes from, and the loop is six lines long.",
        answer=(bpe.train_bpe_naive, bpe.train_bpe, bpe.BPETokenizer),
        reference=_reference_train,
        inputs=st.tuples(
            st.lists(st.text("ab ", min_size=1, max_size=8), min_size=1, max_size=3),
            st.integers(256, 262),
        ),
        examples=(
            (["ab ab ba", "ab"], 259),
            (["ab", "ab", "ba ba ba"], 257),
            (["aaaa", "abab"], 260),
            (["ab"], 300),
        ),
        mistakes=(
            Mistake(
                "merges across words",
                "Cut the text into pre-tokens first: no pair goes across two of them.",
                lambda texts, vocab_size: _train(texts, vocab_size, cut=False),
            ),
            Mistake(
                "counts each word once",
                "A word that occurs ten times counts ten times.",
                lambda texts, vocab_size: _train(texts, vocab_size, distinct=True),
            ),
            Mistake(
                "counts only at the start",
                "A merge makes new pairs and takes old ones away: count again.",
                lambda texts, vocab_size: _train(texts, vocab_size, recount=False),
            ),
            Mistake(
                "one merge too many",
                "vocab_size counts the bytes too: there are vocab_size - 256 merges.",
                lambda texts, vocab_size: _train(texts, vocab_size, extra=1),
            ),
            Mistake(
                "ties to the first pair",
                "Among equally frequent pairs the greatest, as bytes, is merged.",
                lambda texts, vocab_size: _train(
                    texts, vocab_size, choose=lambda c, vocab: max(c, key=c.__getitem__)
                ),
            ),
        ),
        hints=(
            "Keep three things: the rows of ids (one for each pre-token), the bytes of "
            "each id, and the list of merges.",
            "One round: count the pairs of all rows, choose, append the two byte "
            "strings to the merges, give the pair the next id, merge in all rows.",
            "Two ends: enough merges, vocab_size - 256 of them; or no pair is left in "
            "any row, because every word is one token.",
        ),
    ),
    Exercise(
        name="bpe.encode",
        title="Encode a text",
        minutes=20,
        why="A model knows its tokens as training made them. A text that is cut in "
        "another way, even into known tokens, is in a language it has not seen.",
        answer=(bpe.encode_naive, bpe.BPETokenizer),
        reference=bpe.encode_naive,
        inputs=_trained(),
        examples=(
            (
                "abc",
                {i: bytes([i]) for i in range(256)}
                | {256: b"bc", 257: b"ab", 258: b"abc"},
                [(b"b", b"c"), (b"a", b"b"), (b"a", b"bc")],
            ),
            (
                "abc",
                {i: bytes([i]) for i in range(256)} | {256: b"bc", 257: b"ab"},
                [(b"b", b"c"), (b"a", b"b")],
            ),
            (
                "a b",
                {i: bytes([i]) for i in range(256)} | {256: b"a ", 257: b" b"},
                [(b"a", b" "), (b" ", b"b")],
            ),
        ),
        mistakes=(
            Mistake(
                "the longest token that fits",
                "The order of the merges decides, not the length of the tokens.",
                _encode_greedy,
            ),
            Mistake(
                "merges across words",
                "The text is cut into pre-tokens first, as in training.",
                lambda text, vocab, merges: _encode(text, vocab, merges, cut=False),
            ),
            Mistake(
                "merges in the wrong order",
                "Begin with the merge that was learned first: later ones build on it.",
                lambda text, vocab, merges: _encode(
                    text, vocab, merges, backwards=True
                ),
            ),
            Mistake(
                "never merges",
                "The bytes are only the start; then come the merges.",
                lambda text, vocab, merges: _encode(text, vocab, []),
            ),
        ),
        hints=(
            "You need the way back: from the bytes of a token to its id.",
            "Begin with one row of ids for each pre-token, one id for each byte.",
            "For each merge, in order: replace its pair in every row, as `merge` does.",
        ),
    ),
    Exercise(
        name="bpe.split_specials",
        title="Find special tokens",
        minutes=15,
        why="`<|end|>` stands for something that is no text. Cut wrongly, it is "
        "spelled out in bytes, or a longer token is taken for a shorter one.",
        answer=(streams.split_specials, streams.special_splitter),
        reference=streams.split_specials,
        inputs=st.tuples(
            st.text("ax|", max_size=8),
            st.lists(
                st.sampled_from(["x", "xx", "x|", "|x|"]), unique=True, max_size=3
            ).map(tuple),
        ),
        examples=(
            ("axxa", ("x", "xx")),
            ("a|xa", ("|x",)),
            ("aaa", ()),
            ("xx|x", ("x",)),
        ),
        mistakes=(
            Mistake(
                "the shorter token first",
                "An expression tries its alternatives in order: put the longest first.",
                lambda text, specials: _split(
                    text, specials, "|".join(map(re.escape, specials))
                ),
            ),
            Mistake(
                "special characters not escaped",
                '| means "or" in a regular expression: re.escape makes it a bar.',
                lambda text, specials: [
                    part or ""
                    for part in _split(
                        text, specials, "|".join(_longest_first(specials))
                    )
                ],
            ),
            Mistake(
                "empty text dropped",
                "Even places are text, odd ones special tokens; without the empty "
                "strings nobody can tell which is which.",
                lambda text, specials: [
                    part
                    for part in _split(
                        text,
                        specials,
                        "|".join(map(re.escape, _longest_first(specials))),
                    )
                    if part
                ],
            ),
            Mistake(
                "special tokens thrown away",
                "re.split keeps what it splits at only if that stands in a group.",
                lambda text, specials: re.split(
                    "|".join(map(re.escape, _longest_first(specials))) or "(?!)", text
                ),
            ),
        ),
        hints=(
            "re.split cuts a text at an expression. Which one finds any of the tokens?",
            "Join them with |, each through re.escape, the longest first.",
            "A group around the whole expression, (…), keeps the tokens in the result. "
            "Without special tokens the result is [text].",
        ),
    ),
    Exercise(
        name="bpe.encode_stream",
        title="Encode a stream",
        minutes=30,
        why="A file that does not fit into memory, or a text that is still being "
        "written, comes in parts, and a part may end in the middle of a word.",
        answer=(bpe.BPETokenizer, streams.safe_pieces, streams.last_safe_cut),
        reference=_stream,
        call=_call_stream,
        inputs=st.tuples(st.lists(st.text("ab ", max_size=4), max_size=5)),
        examples=((["a b"] * 6,), (["ab", "ab a"],), ([" a", " b"],)),
        growth=lambda n: (["a b "] * n, lambda text: list(text.encode())),
        work=_letters_encoded,
        mistakes=(
            Mistake(
                "each part by itself",
                "A word that is cut by the end of a part becomes two.",
                _stream_parts,
            ),
            Mistake(
                "the rest is lost",
                "When the parts are over, what is still waiting must be encoded.",
                lambda chunks, encode: _stream(chunks, encode, flush=False),
            ),
            Mistake(
                "cut behind the space",
                "The space belongs to the word after it: cut before it.",
                lambda chunks, encode: _stream(chunks, encode, after=True),
            ),
            Mistake(
                "cuts inside a run of spaces",
                "Two spaces may be one pre-token, or their last may belong to a word: "
                "cut between a letter and a space only.",
                lambda chunks, encode: _stream(chunks, encode, inside=True),
            ),
            Mistake(
                "waits for the end",
                "The whole text is never there at once: encode what is ready.",
                _stream_whole,
            ),
        ),
        hints=(
            "Keep a string `rest` of what cannot be encoded yet; each part is added.",
            "In `rest`, find the last place where a space follows something that is no "
            "space. Left of it everything is ready.",
            "After the loop, encode `rest`. A space at the very start is no place to "
            "cut: there is nothing left of it.",
        ),
    ),
)
