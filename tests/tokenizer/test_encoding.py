"""The fast encoder against the naive one, and what it refuses."""

import numpy as np
import pytest
from bpe_cases import PATTERNS, any_text
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.bpe import BPETokenizer, encode_naive, show_merges
from minillm.tokenizer import encoding, words


@settings(deadline=None, max_examples=200)
@given(any_text, st.sampled_from(sorted(PATTERNS)))
def test_fast_encoding_is_naive_encoding(trained, text, name):
    ours = trained[name]
    ordinary = {i: t for i, t in ours.vocab.items() if i < 1500 - 3}
    expected = encode_naive(text, ordinary, ours.merges, pattern=ours.pattern)
    assert ours.encode(text) == expected
    assert ours.decode(expected) == text
    for whole in (True, False):
        again = BPETokenizer(
            ours.vocab, ours.merges, pattern=ours.pattern, ignore_merges=whole
        )
        assert again.encode(text) == expected


def test_a_long_word_may_have_the_token_0():
    tokenizer = BPETokenizer({0: b"a", 1: b"b", 2: b"ab"}, [(b"a", b"b")])
    for n in (1, 2, 10, 10_000):
        assert tokenizer.encode("ab" * n + "a" * n) == [2] * n + [0] * n


@settings(deadline=None, max_examples=200)
@given(st.text(st.sampled_from("ab "), max_size=300))
def test_long_words_are_merged_like_short_ones(text):
    tokenizer = BPETokenizer.train(["ab abab aabb abba baba aaaa bbbb" * 2], 280)
    expected = encode_naive(text, tokenizer.vocab, tokenizer.merges)
    with pytest.MonkeyPatch.context() as patch:
        for long in (1, 64, 10_000):
            patch.setattr(words, "LONG_WORD", long)
            patch.setattr(words, "ENDLESS", 10_000)
            again = BPETokenizer(tokenizer.vocab, tokenizer.merges)
            assert again.encode(text) == expected


@pytest.mark.check
@pytest.mark.parametrize("unit", ["a", " ", "ab", "😀"])
def test_a_megabyte_of_the_same(like_tiktoken, unit):
    ours, theirs = like_tiktoken["cl100k_base"]
    text = unit * ((1 << 20) // len(unit.encode()))
    assert ours.encode(text) == theirs.encode_ordinary(text)


def test_pathological_text_takes_no_quadratic_work(like_tiktoken, monkeypatch):
    """A word of n bytes is merged with at most 3 n steps of the heap."""
    pops = 0

    def counting_pop(heap, pop=words.heapq.heappop):
        nonlocal pops
        pops += 1
        return pop(heap)

    for name in ("gpt2", "cl100k_base"):
        ours, theirs = like_tiktoken[name]
        for unit in ("a", "ab", "abc", "😀", "!", "中"):
            text = unit * (30_000 // len(unit))
            expected = theirs.encode_ordinary(text)
            with monkeypatch.context() as patch:
                patch.setattr(words.heapq, "heappop", counting_pop)
                patch.setattr(words, "ENDLESS", 1 << 20)
                pops = 0
                assert ours.encode(text) == expected
            assert pops <= 3 * len(text.encode())
        for text in (" " * 30_000, "\n" * 30_000, " \n" * 20_000):
            assert ours.encode(text) == theirs.encode_ordinary(text)


def test_a_word_that_is_a_token_is_taken_whole():
    vocab = {byte: bytes([byte]) for byte in range(256)} | {256: b"ab", 257: b"abc"}
    merges = [(b"a", b"b")]
    whole = BPETokenizer(vocab, merges, ignore_merges=True)
    assert whole.encode("abc") == [257]
    assert BPETokenizer(vocab, merges, ignore_merges=False).encode("abc") == [256, 99]
    steps = show_merges(whole, "abc")[0].steps
    assert steps == [[b"a", b"b", b"c"], [b"ab", b"c"], [b"abc"]]


def test_memory_of_the_encoder_is_bounded(trained, monkeypatch):
    ours = trained["gpt2"]
    text = " ".join(map(str, range(500)))
    expected = ours.encode(text)
    monkeypatch.setattr(encoding, "MEMORY", 50)
    again = BPETokenizer(ours.vocab, ours.merges, ours.special_tokens)
    assert again.encode(text) == expected
    assert len(again._encoder.known) <= 50


def test_lone_surrogates_are_refused(trained):
    for text in ("a\ud800b", "\udfff" * 100):
        with pytest.raises(ValueError, match="one half of a surrogate pair"):
            trained["gpt2"].encode(text)


def test_a_byte_without_a_token_is_named():
    vocab = {i: bytes([b]) for i, b in enumerate(b"abcdefgh")} | {8: b"\xc3"}
    tokenizer = BPETokenizer(vocab, [])
    assert tokenizer.encode("abc") == [0, 1, 2]
    for text in ("aé", "aé" * 100):
        with pytest.raises(ValueError, match="no token for the byte 0xa9"):
            tokenizer.encode(text)


def test_a_merge_without_its_tokens():
    vocab = {byte: bytes([byte]) for byte in range(256)}
    with pytest.raises(ValueError, match="needs the token b'ab'"):
        BPETokenizer(vocab, [(b"a", b"b")])


def test_a_merge_that_is_listed_twice_has_its_first_rank():
    vocab = {byte: bytes([byte]) for byte in range(256)} | {256: b"ab", 257: b"bc"}
    merges = [(b"a", b"b"), (b"b", b"c"), (b"a", b"b")]
    tokenizer = BPETokenizer(vocab, merges)
    assert tokenizer.encode("abc") == [256, 99]
    assert show_merges(tokenizer, "abc")[0].steps == [[b"a", b"b", b"c"], [b"ab", b"c"]]


def test_batches(trained):
    texts = ["one", "", "two <e>"]
    ours = trained["gpt4"]
    assert ours.encode_batch(texts) == [ours.encode(text) for text in texts]
    allowed = ours.encode_batch(texts, allowed_special="all")
    assert allowed == [ours.encode(text, "all") for text in texts]
    assert ours.encode_batch([]) == []


@pytest.mark.parametrize("size", [256, 257, 2000, 70_000])
def test_files_are_encoded_into_the_smallest_type(tmp_path, size):
    tokenizer = BPETokenizer.train(["ab" * 9], 256)
    tokenizer = BPETokenizer(
        tokenizer.vocab, [], {"<e>": size - 1} if size > 256 else []
    )
    path, out = tmp_path / "text.txt", tmp_path / "ids.npy"
    text = "naïve\r\n <e>" * 10
    path.write_bytes(text.encode())
    n_ids = tokenizer.encode_file(path, out, allowed_special="all")
    ids = np.load(out, mmap_mode="r")
    assert ids.tolist() == tokenizer.encode(text, "all") and n_ids == len(ids)
    assert ids.dtype == np.min_scalar_type(size - 1)
    assert sorted(tmp_path.iterdir()) == [out, path]


def test_a_file_that_cannot_be_encoded_leaves_the_old_one(trained, tmp_path):
    path, out = tmp_path / "text.txt", tmp_path / "ids.npy"
    path.write_bytes(b"good " * 10)
    trained["gpt2"].encode_file(path, out)
    before = out.read_bytes()
    path.write_bytes(b"good " * 10 + b"\xff")
    with pytest.raises(ValueError, match="byte 50 is 0xff"):
        trained["gpt2"].encode_file(path, out)
    assert out.read_bytes() == before and sorted(tmp_path.iterdir()) == [out, path]


def test_an_empty_file(trained, tmp_path):
    (tmp_path / "empty.txt").touch()
    assert trained["gpt2"].encode_file(tmp_path / "empty.txt", tmp_path / "x.npy") == 0
    assert np.load(tmp_path / "x.npy").shape == (0,)
