"""Long words, piece by piece: the same ids as pair by pair, in linear work."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.bpe import BPETokenizer, encode_naive
from minillm.tokenizer import long_words, words
from minillm.tokenizer.long_words import merge_in_pieces
from minillm.tokenizer.words import WordEncoder


def flat(runs):
    return [id_ for ids, times in runs for id_ in ids * times]


def encoder(merges):
    """An encoder of the bytes and these merges, which any order may be."""
    tokens = dict.fromkeys([bytes([byte]) for byte in range(256)])
    tokens |= dict.fromkeys(left + right for left, right in merges)
    return WordEncoder({token: i for i, token in enumerate(tokens)}, merges)


@st.composite
def tables(draw):
    """Merges in any order: also such as no training would give."""
    tokens = [b"a", b"b", b"c"]
    pairs = []
    for _ in range(draw(st.integers(0, 12))):
        pair = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        if pair not in pairs:
            pairs.append(pair)
            tokens.append(pair[0] + pair[1])
    return draw(st.permutations(pairs))


# Text that repeats itself, with a period that no piece knows, and stops doing so.
texts = st.lists(
    st.tuples(st.text("abc", min_size=1, max_size=7), st.integers(1, 40)), max_size=6
).map(lambda parts: "".join(unit * n for unit, n in parts))


@settings(deadline=None, max_examples=200)
@given(tables(), texts, st.sampled_from([1, 2, 5, 16]))
def test_pieces_give_what_the_heap_gives(merges, text, piece):
    encode = encoder(merges)
    word = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_words, "PIECE", piece)
        runs = merge_in_pieces(word, encode.merge, encode.tokens)
    assert flat(runs) == encode._merge_long(encode.ids_of_bytes(word))


@settings(deadline=None, max_examples=50)
@given(texts)
def test_pieces_give_what_the_naive_encoder_gives(text):
    tokenizer = BPETokenizer.train(["ab abab aabb abba cabc bacbac aaaa" * 2], 290)
    expected = encode_naive(text, tokenizer.vocab, tokenizer.merges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "ENDLESS", 1)
        patch.setattr(long_words, "PIECE", 8)
        assert BPETokenizer(tokenizer.vocab, tokenizer.merges).encode(text) == expected


def test_the_end_of_a_word_may_change_its_beginning():
    """Merges that begin at the right: each letter decides about the one before it."""
    letters = [bytes([letter]) for letter in range(200)]
    merges = [(left, right) for left, right in itertools.pairwise(letters)][::-1]
    encode = encoder(merges)
    for n in (199, 200):
        word = b"".join(letters[:n]) * 10
        runs = merge_in_pieces(word, encode.merge, encode.tokens)
        assert flat(runs) == encode._merge_long(encode.ids_of_bytes(word))
    # What such merges cannot do is to go on for ever, so that it is not given up.
    assert len(flat(runs)) == 1000


def test_a_token_may_be_longer_than_a_piece():
    dashes = [b"-" * (1 << n) for n in range(9)]
    encode = encoder([(token, token) for token in dashes])
    word = b"-" * 100_000
    (ids, times), rest = merge_in_pieces(word, encode.merge, encode.tokens)
    assert [encode.tokens[id_] for id_ in ids] == [b"-" * 512] * len(ids)
    assert len(ids) * times * 512 + rest[1] * 512 >= 100_000 - 512


def work(encode, word):
    """The bytes of all that is merged for a word."""
    n_bytes = 0

    def merge(piece):
        nonlocal n_bytes
        n_bytes += len(piece)
        return encode.merge(piece)

    merge_in_pieces(word, merge, encode.tokens)
    return n_bytes


@pytest.mark.parametrize(
    "unit", ["a", " ", "ab", "😀", "\n", "abcdefg", "=" * 500 + "-", "的一是"]
)
def test_what_repeats_is_merged_once(like_tiktoken, unit):
    ours, _ = like_tiktoken["gpt2"]
    text = unit * (200_000 // len(unit.encode()))
    assert work(ours._encoder.words, text.encode()) < 10_000


def test_what_does_not_repeat_takes_twice_the_work_for_twice_the_length(like_tiktoken):
    import random

    ours, theirs = like_tiktoken["gpt2"]
    text = "".join(random.Random(0).choices("abcdefghij", k=40_000))
    half, whole = (work(ours._encoder.words, text[:n].encode()) for n in (20_000, None))
    assert 1.2 * len(text) < whole < 2.1 * half < 4 * len(text)
    assert ours.encode(text) == theirs.encode_ordinary(text)


def test_a_walk_that_goes_nowhere_is_given_up(monkeypatch):
    encode = encoder([(b"a", b"b")])
    monkeypatch.setattr(long_words, "ENOUGH", 0)
    merged = []

    def merge(piece):
        merged.append(len(piece))
        return encode.merge(piece)

    runs = merge_in_pieces(b"ab" * 500, merge, encode.tokens)
    assert flat(runs) == [256] * 500 and merged[-1] == 1000
