"""Text to integers: what the chapter says, by hand and by other routes."""

import subprocess
import sys
from collections import Counter

from bpe_cases import TIE_BREAKS, any_text
from fixtures import fixture
from hypothesis import given
from hypothesis import strategies as st

from minillm.bpe import (
    GPT2_PATTERN,
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    WordTokenizer,
    choose_pair,
    compression_ratio,
    count_pairs,
    merge,
    train_bpe,
)
from minillm.tokenizer.patterns import pretokenize

HELLO = "Hello, 🌍! 你好!"


def test_one_string_four_tokenizers():
    gpt2 = BPETokenizer.from_gpt2_files(
        fixture("gpt2/encoder.json"), fixture("gpt2/vocab.bpe")
    )
    assert len(HELLO) == 13 and len(HELLO.encode()) == 20
    ratios = [
        compression_ratio(HELLO, tokenizer.encode(HELLO))
        for tokenizer in (CharTokenizer(), ByteTokenizer(), WordTokenizer(HELLO), gpt2)
    ]
    # tiktoken's ids for GPT-2 are 12.
    assert ratios == [20 / 13, 1, 20 / 5, 20 / 12]


@given(any_text)
def test_characters_and_bytes_come_back(text):
    for tokenizer in (CharTokenizer(), ByteTokenizer()):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= id_ < tokenizer.vocab_size for id_ in ids)


@given(any_text, any_text)
def test_words_come_back_if_known(known, other):
    words = WordTokenizer(known)
    assert words.decode(words.encode(known)) == known
    unknown = set(pretokenize(other, GPT2_PATTERN)) - set(words.words)
    assert words.encode(other).count(0) >= len(unknown)


def test_count_and_merge_by_hand():
    ids = list(b"aaabdaaabac")
    assert count_pairs(ids)[97, 97] == 4
    assert merge(ids, (97, 97), 256) == [256, 97, 98, 100, 256, 97, 98, 97, 99]
    assert merge([], (1, 2), 3) == [] and merge([1], (1, 1), 2) == [1]
    assert merge([1, 2, 1, 2], (1, 2), 3) == [3, 3]


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 3), st.integers(0, 3))
def test_merge_is_replacement_of_text(ids, a, b):
    # Strings know how to replace from left to right without overlap.
    text = "".join(map(str, ids)).replace(f"{a}{b}", "9")
    assert merge(ids, (a, b), 9) == [int(digit) for digit in text]


def test_three_rules_for_ties():
    words = ["low"] * 5 + ["lower"] * 2 + ["widest"] * 3 + ["newest"] * 6
    made = {
        rule: " ".join(
            (left + right).decode()
            for left, right in train_bpe(words, 262, tie_break=rule)[1]
        )
        for rule in TIE_BREAKS
    }
    # The first is the rule of Stanford's CS336, the second that of minbpe.
    assert made == {
        "bytes": "st est ow low west ne",
        "first": "es est lo low ne new",
        "huggingface": "es est lo low ew new",
    }


def test_rules_for_ties_are_not_the_order_of_ids():
    vocab = {byte: bytes([byte]) for byte in range(256)} | {256: b"ab"}
    a, b, space = b"ab "
    tied = Counter({(a, b): 2, (256, a): 2, (b, a): 2, (space, a): 2, (b, b): 1})
    assert choose_pair(tied, vocab, "first") == (a, b)
    # b"b" is greater than b"ab", and in GPT-2's order the space comes after letters.
    assert choose_pair(tied, vocab, "bytes") == (b, a)
    assert choose_pair(tied, vocab, "huggingface") == (a, b)


def test_importing_the_chapter_is_light():
    """Neither torch nor numpy is loaded before it is needed."""
    code = (
        "import sys, minillm.bpe; "
        "print(sorted({'torch', 'numpy', 'rich', 'pytest'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
