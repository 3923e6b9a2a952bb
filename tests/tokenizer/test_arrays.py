"""All words of a block together, against one word at a time."""

import concurrent.futures
import itertools
import random
import sys
from collections import Counter
from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest
from bpe_cases import PATTERNS, text_at_turns
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minillm.bpe import GPT2_PATTERN, GPT4_PATTERN, BPETokenizer
from minillm.tokenizer import arrays, encoding, runs
from minillm.tokenizer import table as table_module
from minillm.tokenizer.patterns import pretokenize


@settings(deadline=None, max_examples=500)
@given(
    st.lists(
        text_at_turns | st.text(st.sampled_from("a. \n/1\xa0\u2028"), max_size=50)
    ),
    st.sampled_from(sorted(PATTERNS)),
    st.sampled_from([1, 7, 1 << 19]),
)
@example(["a\n/\n  b \n/c\n"], "o200k", 1)
@example(["a  1 \n\n 2  b\n"], "digits", 1)
@example(["a", " a\0 a\0\0 ", "a "], "gpt2", 1)
@example([" " * 40, "a" * 40, "." * 40, "\n" * 40], "gpt4", 1)
@example(["a b c \xa0 d e\xa0\xa0 f g"], "gpt2", 1 << 19)
def test_encoding_with_arrays_is_encoding_word_by_word(trained, parts, name, block):
    encoder = trained[name]._encoder
    text = "".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "LONG_TEXT", 0)
        patch.setattr(runs, "FIRST_BLOCK", block)
        if len(parts) % 2:
            encoder.arrays.forget()
        # The second time everything is known.
        for _ in range(2):
            assert encoder.encode(text) == encoder.encode_words(text)


@settings(deadline=None)
@given(
    st.text(st.sampled_from("a. \n/1\xa0"), max_size=60),
    st.sampled_from(sorted(PATTERNS)),
    st.sampled_from([1, 7, 1 << 19]),
)
def test_no_word_lies_across_two_blocks(text, name, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "FIRST_BLOCK", block)
        blocks = list(runs.text_blocks(text, PATTERNS[name]))
    words = [w for b in blocks for w in pretokenize(b.decode(), PATTERNS[name])]
    assert words == pretokenize(text, PATTERNS[name])
    assert len(blocks) <= 1 or len(text) > block


def runs_of(text, pattern):
    raw, starts, ends, _ = runs.find_runs(text.encode(), pattern)
    bounds = zip(starts.tolist(), ends.tolist(), strict=True)
    return [raw[i:j].decode() for i, j in bounds]


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_whitespace_beyond_ascii_joins_its_neighbours_only(pattern):
    found = runs_of("no word 5\xa0000 so many\u2028 lines", pattern)
    assert found[:2] == ["no", " word"] and " 5\xa0000" in found
    assert found[-1] == " many\u2028 lines"


@given(st.lists(st.text(st.sampled_from("ab. "), max_size=40), min_size=1))
def test_keys_are_the_bytes_of_their_runs(parts):
    found = runs.find_runs(" ".join(parts).encode() + b" x", GPT2_PATTERN)
    ends = zip(found.starts.tolist(), found.ends.tolist(), strict=True)
    for number, (start, end) in enumerate(ends):
        key = b"".join(int(word[number]).to_bytes(8, "little") for word in found.keys)
        run = found.raw[start:end][: runs.WIDTH]
        assert key == run.ljust(runs.WIDTH, b"\0") + bytes([len(run)])


@pytest.mark.parametrize("kinds", ["aS1'. \n", "é/\xa0\u3000 \r"])
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_runs_begin_where_pre_tokens_do(pattern, kinds):
    """Tried on all texts of four characters of these kinds, in the middle and alone."""
    texts = ["".join(four) for four in itertools.product(kinds, repeat=4)]
    texts += [f"x{four} x" for four in texts]
    expected = [pretokenize(text, pattern) for text in texts]
    for text, words in zip(texts, expected, strict=True):
        found = runs_of(text, pattern)
        assert [w for run in found for w in pretokenize(run, pattern)] == words, found
    # Many texts in one block are cut like each alone.
    block = runs.BETWEEN.join(text.encode() for text in texts)
    raw, starts, ends, _ = runs.find_runs(block, pattern)
    bounds = zip(starts.tolist(), ends.tolist(), strict=True)
    together = [w for i, j in bounds for w in pretokenize(raw[i:j].decode(), pattern)]
    assert together == [word for words in expected for word in words]


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_runs_are_cut_together_as_each_alone(pattern):
    """All short ones, each among other neighbours every time."""
    short = [
        "".join(letters)
        for n in range(1, 5)
        for letters in itertools.product("aS1'.] \n\té", repeat=n)
    ]
    alone = {run: [w.encode() for w in pretokenize(run, pattern)] for run in short}
    for seed in range(3):
        random.Random(seed).shuffle(short)
        words, ends = runs.word_cutter(pattern)([run.encode() for run in short])
        bounds = pairwise([0, *ends.tolist()])
        for run, (start, end) in zip(short, bounds, strict=True):
            assert words[start:end] == alone[run], run


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_every_blank_of_ascii_ends_a_run(pattern):
    text = "a\t\tb\v\vc\f\fd\r\ne\r\n\r\nf\x08\x08g\x0e\x0eh\r\ri "
    counter = arrays.RunCounter(pattern)
    counter.add(text)
    assert counter.words() == Counter(w.encode() for w in pretokenize(text, pattern))


def test_what_was_learned_by_half_is_forgotten(tales, monkeypatch):
    # The byte "x" has no token; the words before and behind it are new.
    vocab = {i: bytes([i]) for i in range(256) if i != ord("x")} | {256: b"th"}
    tokenizer = BPETokenizer(vocab, [(b"t", b"h")])
    text = " ".join(tales).replace("x", "y")[:40_000]
    expected = [id_ for word in text.split(" ") for id_ in tokenizer.encode(" " + word)]
    with pytest.raises(ValueError, match="no token for the byte 0x78"):
        tokenizer.encode(text[:20_000] + " xx " + text[20_000:])
    assert tokenizer.encode(" " + text) == expected

    # The same if somebody loses patience in the middle of a block.
    tokenizer = BPETokenizer(vocab, [(b"t", b"h")])
    with monkeypatch.context() as patch:
        patch.setattr(arrays, "merge_in_step", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tokenizer.encode(text)
    assert tokenizer.encode(" " + text) == expected


def test_arrays_forget(trained, tales, monkeypatch):
    ours = trained["gpt4"]
    monkeypatch.setattr(arrays, "MEMORY", 100)
    monkeypatch.setattr(runs, "FIRST_BLOCK", 1000)
    monkeypatch.setattr(runs, "AT_ONCE", 1000)
    again = BPETokenizer(
        ours.vocab, ours.merges, ours.special_tokens, pattern=GPT4_PATTERN
    )
    encoder = again._encoder
    assert encoder.encode(tales[3]) == encoder.encode_words(tales[3])
    assert len(encoder.arrays.runs) <= 100 < len(set(encoder.encode(tales[3])))


def test_threads_may_share_a_tokenizer(trained):
    encoder = trained["gpt2"]._encoder
    rng = random.Random(0)
    texts = [
        " ".join("".join(rng.choices("abcdef", k=6)) for _ in range(4000))
        for _ in range(16)
    ]
    expected = [encoder.encode_words(text) for text in texts]
    encoder.arrays.forget()
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert list(pool.map(encoder.encode, texts)) == expected
    finally:
        sys.setswitchinterval(before)


def test_keys_that_differ_only_in_the_last_bytes_of_words_do_not_collide():
    table = table_module.Table(runs.WORDS)
    letters = range(ord("A"), ord("A") + 30)
    keys = np.zeros((runs.WORDS, 27_000), np.uint64)
    for n, three in enumerate(itertools.product(letters, repeat=3)):
        keys[:3, n] = [ord("x") | letter << 56 for letter in three]
    table.slots = np.full(1 << 17, -1, np.int32)
    # Of so many places chosen at random, 24,500 are distinct.
    assert len(set(table._places(list(keys)).tolist())) > 20_000


@settings(deadline=None)
@given(
    st.lists(st.text(st.sampled_from("ab. 一\xa0"), max_size=30), max_size=30),
    st.sampled_from(sorted(PATTERNS)),
)
def test_words_are_counted_in_blocks_of_any_size(texts, name):
    pattern = PATTERNS[name]
    expected = Counter(w.encode() for t in texts for w in pretokenize(t, pattern))
    for enough, at_a_time, memory in (
        (1, 3, 5),
        (9, 3, 5),
        (1 << 14, 1 << 14, 1 << 20),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arrays, "FIRST_BLOCK", enough)
            patch.setattr(arrays, "AT_A_TIME", at_a_time)
            patch.setattr(arrays, "MEMORY", memory)
            counter = arrays.RunCounter(pattern)
            for text in texts:
                counter.add(text)
                assert counter.size < counter.enough
            assert list(counter.words().items()) == list(expected.items())


def test_long_texts_are_forgotten_by_their_bytes(monkeypatch):
    monkeypatch.setattr(arrays, "MEMORY", 50)
    monkeypatch.setattr(arrays, "FIRST_BLOCK", 100)
    monkeypatch.setattr(arrays, "AT_ONCE", 100)
    counter = arrays.RunCounter(GPT2_PATTERN)
    for number in range(20):
        counter.add(f" {number}一" * 20 + chr(0x4E10 + number) * 600 + " x y")
        assert counter.runs.n_bytes == sum(map(len, counter.runs.number))
        assert counter.runs.n_bytes <= runs.WIDTH * 50
    assert counter.words()[b" y"] == 20


@given(
    st.lists(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=2), max_size=60)
)
def test_a_table_is_a_dictionary(keys):
    table, known = table_module.Table(2), {}
    # Few slots, so that keys get into each other's way.
    table.slots = table.slots[:4].copy()
    for i in range(0, len(keys), 7):
        new = [key for key in map(tuple, keys[i : i + 7]) if key not in known]
        distinct = list(dict.fromkeys(new))
        known |= {key: len(known) + j for j, key in enumerate(distinct)}
        table.add(list(np.array(distinct, np.uint64).reshape(-1, 2).T))
    asked = [*map(tuple, keys), (0, 0), (1, 2)]
    found = table.find(list(np.array(asked, np.uint64).reshape(-1, 2).T))
    assert found.tolist() == [known.get(key, -1) for key in asked]


def test_a_text_without_blanks_is_many_blocks():
    for pattern in PATTERNS.values():
        blocks = runs.text_blocks("f(x);" * 1_000_000, pattern)
        assert max(map(len, blocks)) < 2 * runs.AT_ONCE
