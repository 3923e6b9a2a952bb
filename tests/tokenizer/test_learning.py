"""The fast trainer against the naive one, and against Hugging Face's."""

import gc
import logging
import re
from contextlib import nullcontext

import pytest
from bpe_cases import (
    END,
    TIE_BREAKS,
    any_text,
    hugging_face_trainer,
    in_characters,
    patterns,
    settled,
    small_text,
    text_at_turns,
    their_merges,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minillm.bpe import GPT2_PATTERN, GPT4_PATTERN, train_bpe, train_bpe_naive


@settings(deadline=None, max_examples=300)
@given(
    st.lists(small_text | text_at_turns, min_size=1, max_size=5).filter(any),
    st.integers(0, 30),
    patterns,
    st.sampled_from(TIE_BREAKS),
    st.sampled_from([(), ("<e>",), ("ab", "a"), ("b", "bb", "bbb")]),
)
def test_both_trainers_learn_the_same(documents, n, pattern, tie_break, specials):
    size = 256 + n + len(specials)
    options = {"pattern": pattern, "tie_break": tie_break}
    try:
        expected = train_bpe_naive(documents, size, specials, **options)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            train_bpe(documents, size, specials, **options)
        return
    got = train_bpe(documents, size, specials, **options)
    assert got == expected
    vocab, merges = got
    assert len(vocab) == 256 + len(merges) + len(specials) <= size
    assert list(vocab) == list(range(len(vocab)))
    # Each token is made in one way only.
    assert len({left + right for left, right in merges}) == len(merges)


@pytest.mark.parametrize("tie_break", TIE_BREAKS)
@pytest.mark.parametrize("pattern", [GPT2_PATTERN, GPT4_PATTERN])
def test_both_trainers_learn_the_same_from_prose(tales, pattern, tie_break):
    documents = [tale[:1000] for tale in tales[:3]]
    options = {"pattern": pattern, "tie_break": tie_break}
    expected = train_bpe_naive(documents, 306, **options)
    assert train_bpe(documents, 306, **options) == expected
    options["special_tokens"] = [END]
    documents = [END.join(tale[:2000] for tale in tales[:2])]
    expected = train_bpe_naive(documents, 287, **options)
    assert train_bpe(documents, 287, **options) == expected


@pytest.mark.parametrize("size", [3000, pytest.param(16_000, marks=pytest.mark.check)])
def test_same_merges_as_hugging_face_on_the_corpus(tales, size):
    theirs = hugging_face_trainer(tales, size, [END])
    _, merges = train_bpe(tales, size, [END], tie_break="huggingface")
    assert len(merges) == size - 257
    assert in_characters(merges) == their_merges(theirs)


@settings(deadline=None, max_examples=50)
@given(st.lists(any_text, min_size=1, max_size=4).filter(any))
def test_same_merges_as_hugging_face_on_any_text(documents):
    documents = [settled(document) for document in documents]
    assume(any(documents))
    theirs = their_merges(hugging_face_trainer(documents, 300))
    _, merges = train_bpe(documents, 300, tie_break="huggingface")
    assert in_characters(merges) == theirs


def test_a_path_gives_what_its_text_gives(tmp_path, tales, monkeypatch):
    # Small blocks, so that they end inside characters, words and special tokens.
    text = f"naïve 🌍 \r\n {END}".join(tale[:1000] for tale in tales[:40])
    path = tmp_path / "tales.txt"
    path.write_bytes(text.encode())
    expected = train_bpe([text], 400, [END], pattern=GPT4_PATTERN)
    for block in (1 << 22, 997, 61):
        monkeypatch.setattr("minillm.tokenizer.streams.BLOCK", block)
        monkeypatch.setattr("minillm.tokenizer.parallel.TASK", block)
        for source in (path, str(path)):
            got = train_bpe(source, 400, [END], pattern=GPT4_PATTERN)
            assert got == expected


def test_special_tokens_are_cut_out_before_counting():
    documents = ["abab<e>abab", "<e><e>"]
    vocab, merges = train_bpe(documents, 259, ["<e>"])
    assert merges == [(b"a", b"b"), (b"ab", b"ab")] and vocab[258] == b"<e>"


def test_fewer_pairs_than_asked_for(caplog):
    with caplog.at_level(logging.WARNING):
        vocab, merges = train_bpe(["the cat"], 300, ["<e>"])
    assert len(merges) == 5 and len(vocab) == 256 + 5 + 1
    assert "learned 5 merges instead of 43" in caplog.text


@pytest.mark.parametrize("train", [train_bpe, train_bpe_naive])
def test_a_text_that_is_too_short_gives_what_it_has(train, caplog):
    vocab, merges = train(["abab"], 270, ["<e>", "<f>"])
    assert merges == [(b"a", b"b"), (b"ab", b"ab")]
    assert [vocab[id_] for id_ in range(256, len(vocab))] == [
        *(b"ab", b"abab"),
        *(b"<e>", b"<f>"),
    ]
    assert caplog.messages[0].startswith("learned 2 merges instead of 12:")
    # Where there is enough, the special tokens count and nothing is said.
    caplog.clear()
    vocab, merges = train(["abab"], 259, ["<e>", "<f>"])
    assert (len(vocab), len(merges), caplog.messages) == (259, 1, [])


def test_progress_can_be_shown(capsys):
    train_bpe(["the cat in the hat"], 259, progress=True)
    counting, merging = capsys.readouterr().out.splitlines()
    assert "counting" in counting
    assert "merging" in merging and "100%" in merging


@pytest.mark.parametrize("train", [train_bpe, train_bpe_naive])
@pytest.mark.parametrize(
    ("source", "size", "specials", "options", "message"),
    [
        ([], 300, [], {}, "no text"),
        ([""], 300, [], {}, "no text"),
        (["<e>"], 300, ["<e>"], {}, "no text"),
        (["ab"], 255, [], {}, "at least 256"),
        (["ab"], 257, ["<e>", "<f>"], {}, "at least 258"),
        (["ab"], 300, ["<e>", "<e>"], {}, "'<e>' is given twice"),
        (["ab"], 300, [""], {}, "not empty"),
        (["ab"], 300, "<e>", {}, "list of strings"),
        (["ab"], 300, [], {"tie_break": "last"}, "tie_break is one of"),
        (["ab"], 300, [], {"pattern": "("}, "no regular expression"),
        (["a\ud800b"], 300, [], {}, "surrogate"),
    ],
)
def test_training_refuses(train, source, size, specials, options, message):
    with pytest.raises(ValueError, match=message):
        train(source, size, specials, **options)


@pytest.mark.parametrize("train", [train_bpe, train_bpe_naive])
def test_training_on_a_string_that_is_no_path(train):
    with pytest.raises(FileNotFoundError, match="put it in a list"):
        train("the cat in the hat", 300)


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"ab\xffcd", 2),
        (b"a" * 100 + b"\xe4\xbd", 100),
        (b"\xc3\xa9" * 70 + b"\xc3x", 140),
    ],
)
def test_invalid_utf8_is_named_by_its_place(tmp_path, monkeypatch, data, offset):
    path = tmp_path / "broken.txt"
    path.write_bytes(data)
    for block in (1 << 22, 64, 1):
        monkeypatch.setattr("minillm.tokenizer.streams.BLOCK", block)
        with pytest.raises(ValueError, match=f"byte {offset} is 0x"):
            train_bpe(path, 300)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_left_as_it_was(enabled, fails):
    during = []

    def documents():
        during.append(gc.isenabled())
        yield "" if fails else "the cat"

    assert gc.isenabled()
    try:
        if not enabled:
            gc.disable()
        with pytest.raises(ValueError, match="no text") if fails else nullcontext():
            train_bpe(documents(), 258)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
    assert during == [False]
