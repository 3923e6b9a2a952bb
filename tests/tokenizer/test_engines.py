"""The patterns, against other engines of regular expressions."""

import random
import unicodedata
from pathlib import Path

import pytest
import regex
from bpe_cases import END, TURNS, any_text, patterns
from hypothesis import given

from minillm.bpe import GPT4_PATTERN, O200K_PATTERN
from minillm.tokenizer.patterns import LLAMA3_PATTERN, pretokenize


@given(any_text, patterns)
def test_no_pattern_loses_text(text, pattern):
    pieces = pretokenize(text, pattern)
    assert "".join(pieces) == text and all(pieces)


@pytest.mark.parametrize("name", ["gpt2", "r50k_base", "cl100k_base", "o200k_base"])
def test_same_ids_as_tiktoken(like_tiktoken, tales, udhr, name):
    ours, theirs = like_tiktoken[name]
    generator = random.Random(name)
    texts = [
        *tales[:5],
        udhr[:300_000],
        "Hello world, naïve café 你好 🙂",
        Path(__file__).read_text(encoding="utf-8"),
        *(
            "".join(generator.choices(TURNS, k=generator.randint(1, 12)))
            for _ in range(20000)
        ),
    ]
    for text in texts:
        assert ours.encode(text) == theirs.encode_ordinary(text)
    text = f"a{END}b <|endofprompt|>"
    for specials in ((), (END,), "all"):
        allowed = set(specials) if specials != "all" else "all"
        expected = theirs.encode(text, allowed_special=allowed, disallowed_special=())
        assert ours.encode(text, allowed_special=specials) == expected
    assert ours.vocab_size == theirs.n_vocab


def test_ids_that_everybody_knows(like_tiktoken):
    text = "Hello world, naïve café 你好 🙂"
    known = {
        "gpt2": [15496, 995, 11, 41492, 40304, 220, 19526, 254, 25001, 121, 32485],
        "cl100k_base": [9906, 1917, 11, 95980, 588, 53050, 220, 57668, 53901, 28584],
        "o200k_base": [13225, 2375, 11, 153475, 737, 30469, 220, 177519, 26192],
    }
    for name, ids in known.items():
        assert like_tiktoken[name][0].encode(text) == ids


def test_each_letter_is_the_same_to_tiktoken(like_tiktoken):
    """Every 29th assigned code point, where its kind decides the cut."""
    characters = [
        character
        for character in map(chr, range(0x110000))
        if unicodedata.category(character) not in {"Cn", "Co", "Cs"}
    ]
    for name in ("gpt2", "cl100k_base", "o200k_base"):
        ours, theirs = like_tiktoken[name]
        text = "|".join(f"a{c}b {c} 'S{c} A{c}'" for c in characters[::29])
        assert ours.encode(text) == theirs.encode_ordinary(text)


def test_a_possessive_quantifier_is_read_differently(like_tiktoken):
    """Why GPT-4's pattern here is not written as tiktoken writes it."""
    tokenizers = pytest.importorskip("tokenizers")
    theirs = like_tiktoken["cl100k_base"][1]
    assert r"\p{N}{1,3}+" in theirs._pat_str and "{1,3}+" not in GPT4_PATTERN

    def cut(pattern, text):
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        return [piece for piece, _ in split.pre_tokenize_str(text)]

    number = "1234567"
    assert cut(r"\p{N}{1,3}+", number) == ["1234567"]
    assert pretokenize(number, r"\p{N}{1,3}+") == ["123", "456", "7"]
    ids = theirs.encode(number)
    assert [theirs.decode([id_]) for id_ in ids] == ["123", "456", "7"]
    # As it is written here all three agree.
    for pattern in (GPT4_PATTERN, LLAMA3_PATTERN, O200K_PATTERN):
        assert r"\p{N}{1,3}|" in pattern
        assert cut(pattern, number) == ["123", "456", "7"]
        assert pretokenize(number, pattern) == ["123", "456", "7"]


def characters_of_a_kind(kind, engine):
    """All characters that match, to an engine of regular expressions."""
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    if engine == "regex":
        return set(regex.findall(kind, everything))
    if engine == "tiktoken":
        tiktoken = pytest.importorskip("tiktoken")
        ranks = {bytes([byte]): byte for byte in range(256)}
        only = tiktoken.Encoding(
            "kind", pat_str=kind, mergeable_ranks=ranks, special_tokens={}
        )
        return set(only.decode(only.encode_ordinary(everything)))
    tokenizers = pytest.importorskip("tokenizers")
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(kind), "removed")
    rest = {c for piece, _ in split.pre_tokenize_str(everything) for c in piece}
    return set(everything) - rest


@pytest.mark.check
def test_engines_agree_on_what_all_of_them_know():
    engines = ("regex", "tiktoken", "tokenizers")
    known = [characters_of_a_kind(r"\P{Cn}", engine) for engine in engines]
    known_to_all = set.intersection(*known)
    assert len(known_to_all) > 250_000
    for kind in (r"\p{L}", r"\p{N}", r"\p{M}", r"\s", r"\p{Lu}", r"\p{Ll}"):
        ours, *others = (characters_of_a_kind(kind, engine) for engine in engines)
        for theirs in others:
            # U+0295 was a small letter, and is one without case in newer tables.
            expected = {"\u0295"} if kind == r"\p{Ll}" else set()
            assert (ours ^ theirs) & known_to_all <= expected


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base", "o200k_base"])
def test_same_ids_as_tiktoken_on_characters_that_both_know(like_tiktoken, name):
    tiktoken = pytest.importorskip("tiktoken")
    single_bytes = {bytes([byte]): byte for byte in range(256)}
    known_to_theirs = tiktoken.Encoding(
        "known", pat_str=r"\P{Cn}", mergeable_ranks=single_bytes, special_tokens={}
    ).encode_ordinary
    known_to_ours = regex.compile(r"\P{Cn}").match
    ours, theirs = like_tiktoken[name]
    generator = random.Random(name)
    n_known = 0
    for _ in range(4000):
        drawn = map(chr, generator.choices(range(0x110000), k=24))
        drawn = [
            character
            for character in drawn
            if not 0xD800 <= ord(character) < 0xE000 and character != "\u0295"
            if known_to_ours(character) and known_to_theirs(character)
        ]
        n_known += len(drawn)
        # Mostly rare scripts, so common characters are put between.
        drawn += generator.choices(TURNS, k=6)
        generator.shuffle(drawn)
        text = "".join(drawn)
        assert ours.encode(text) == theirs.encode_ordinary(text)
        assert ours.decode(ours.encode(text)) == text
    assert n_known > 20_000
