"""Text that comes in pieces, cut anywhere."""

import itertools

import pytest
import regex
from bpe_cases import END, PATTERNS, TURNS, text_at_turns
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minillm.bpe import GPT2_PATTERN, GPT4_PATTERN, O200K_PATTERN, BPETokenizer
from minillm.tokenizer.patterns import LLAMA3_PATTERN, pretokenize
from minillm.tokenizer.streams import (
    SAFE_CUT,
    last_safe_cut,
    safe_pieces,
    split_specials,
)

turns_and_specials = st.lists(
    st.sampled_from([*TURNS, "\r\n", "  \n", "<e>", "<e><e>", "it's", END, END[:-1]]),
    max_size=12,
).map("".join)


@settings(deadline=None, max_examples=300)
@given(text_at_turns | turns_and_specials, st.sampled_from(sorted(PATTERNS)))
@example("a \n \r\n b", "gpt4")
@example("\n\nb", "gpt2")
@example("a. \n/\n b", "o200k")
@example("<e><e><e> x", "gpt2")
@example("it'll've I'LL", "o200k")
def test_streams_are_encoded_like_the_whole_at_every_cut(trained, text, name):
    ours = trained[name]
    for allowed in ((), "all"):
        whole = ours.encode(text, allowed)
        assert list(ours.encode_iterable(text, allowed)) == whole
        for cut in range(len(text) + 1):
            parts = [text[:cut], "", text[cut:]]
            assert list(ours.encode_iterable(parts, allowed)) == whole


parts_of_specials = st.sampled_from([
    "<e>",
    "<e><e>",
    "<e",
    "<",
    "e>",
    ">",
    "a b",
    "a",
    " ",
    " c d",
    "b c",
])


@settings(deadline=None, max_examples=500)
@given(
    st.lists(text_at_turns | parts_of_specials, max_size=8),
    st.sampled_from(sorted(PATTERNS)),
    st.sampled_from([
        (),
        ("<e>", "<e><e>"),
        (" ", "\n \n"),
        ("e><",),
        ("a b", "a b c d"),
    ]),
)
@example(["<e><e", ">"], "gpt2", ("<e>", "<e><e>"))
@example(["xa b c ", "d"], "gpt2", ("a b c d",))
def test_safe_pieces_are_cut_where_nothing_notices(parts, name, specials):
    pattern = PATTERNS[name]
    text = "".join(parts)

    def cut(text):
        return [
            piece
            for part in split_specials(text, specials)
            for piece in pretokenize(part, pattern)
        ]

    for at_least in (1, 5):
        pieces = list(safe_pieces(parts, pattern, specials, at_least))
        assert "".join(pieces) == text
        assert [token for piece in pieces for token in cut(piece)] == cut(text)


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_every_safe_cut_of_every_short_text(name):
    """What the proof says, for all texts over these characters up to some length."""
    pattern = PATTERNS[name]
    safe = regex.compile(SAFE_CUT[pattern])
    n_cuts = 0
    for alphabet, length in (("aA1./'s \n\r\t\u0301", 4), ("a. \n/", 6)):
        for characters in itertools.product(alphabet, repeat=length):
            text = "".join(characters)
            for match in safe.finditer(text, overlapped=True):
                cut = match.start()
                left, right = pretokenize(text[:cut], pattern), text[cut:]
                assert left + pretokenize(right, pattern) == pretokenize(text, pattern)
                n_cuts += 1
    assert n_cuts > 10_000


def test_a_stream_is_not_held_back_for_long():
    for pattern in PATTERNS.values():
        assert last_safe_cut("one two three", pattern) == 7
    for pattern in (GPT4_PATTERN, O200K_PATTERN, LLAMA3_PATTERN):
        assert last_safe_cut("一二三。\n四五六", pattern) == 5
    # Of another pattern nothing is known, except at special tokens.
    assert last_safe_cut("one two three", r"\w+|\W+") == 0
    assert last_safe_cut("one<e> two three", r"\w+|\W+", ("<e>",)) == 6


def test_a_stream_without_a_cut_is_not_searched_again_and_again(monkeypatch):
    searched = 0

    def counting(text, *rest):
        nonlocal searched
        searched += len(text)
        return last_safe_cut(text, *rest)

    monkeypatch.setattr("minillm.tokenizer.streams.last_safe_cut", counting)
    assert "".join(safe_pieces("a" * 5000, GPT2_PATTERN)) == "a" * 5000
    assert searched <= 3 * 5000


def test_streams_with_another_pattern(trained):
    ours = trained["gpt2"]
    other = BPETokenizer(
        ours.vocab, ours.merges, ours.special_tokens, pattern=r"\w+|\W+"
    )
    text = "one two <e>three four"
    assert list(other.encode_iterable(text, ["<e>"])) == other.encode(text, ["<e>"])
