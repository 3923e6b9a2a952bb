"""One pattern for all engines, compared with the engines."""

import json
import random
import unicodedata

import pytest
import regex

from minillm.bpe import GPT2_PATTERN, GPT4_PATTERN, O200K_PATTERN, BPETokenizer
from minillm.tokenizer.dialects import leaves_nothing, portable
from minillm.tokenizer.patterns import (
    DIGITS_PATTERN,
    LLAMA3_PATTERN,
    compile_pattern,
    pretokenize,
)

tokenizers = pytest.importorskip("tokenizers")
PRESETS = [GPT2_PATTERN, GPT4_PATTERN, LLAMA3_PATTERN, O200K_PATTERN, DIGITS_PATTERN]
# As tiktoken writes it.
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
# Kimi K2's, of which the classes are intersections.
KIMI = (
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def oniguruma(pattern, text):
    """Cut a text as Hugging Face's `Split` does."""
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return [piece for piece, _ in split.pre_tokenize_str(text)]


CUTS = {
    "oniguruma": oniguruma,
    "regex": lambda pattern, text: pretokenize(text, pattern),
}


@pytest.mark.parametrize("pattern", PRESETS)
@pytest.mark.parametrize("dialect", CUTS)
def test_our_patterns_are_portable_as_they_stand(pattern, dialect):
    assert portable(pattern, dialect) == pattern


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"\d{1,3}+|\D+", "1234"),
        (r" ?[^\s[.,]]+|.", "ab, [c]."),
        (r"^ab|.|\n", "ab\nab"),
        (r"ab$|.|\n", "ab\nab\n"),
        (r"[a-z&&[^b]]+|.", "abc&^]"),
        (r"(?m:.)+", "a\nb"),
        (r"\w+|.", "é²\u200da"),
        (r"[\w]+|.", "é²\u200da"),
        (r"\h+|.", "ab 1 z"),
        (r"a{2}?b|.", "aaab"),
        (r"\Ab|b\Z|b\z|.|\n", "bbab\n"),
        (r"\b.|.", "ab ²c-d"),
        (r"[a[^b]]+|b", "xabz"),
        (r"[^a-z&&[^b]]+|.", "abc1"),
        (KIMI, "Hello漢字world don't 12345\n  x"),
    ],
)
def test_what_oniguruma_reads_differently(pattern, text):
    """Each of these cut another text, or was no expression, before."""
    assert pretokenize(text, portable(pattern, "oniguruma")) == oniguruma(pattern, text)


@pytest.mark.parametrize("pattern", [CL100K, r"\d{3}+\D|\d+|\D", r"(?s:.)\w|$^x|.|\n"])
def test_what_is_written_for_oniguruma(pattern):
    generator = random.Random(pattern)
    for _ in range(300):
        text = "".join(generator.choices("ab1234 \r\n'sS²\u200d.", k=9))
        assert oniguruma(portable(pattern), text) == pretokenize(text, pattern)


@pytest.mark.parametrize("dialect", CUTS)
@pytest.mark.parametrize("pattern", [r"\w", r"[\w]", r"\W", r"[^\w]"])
def test_word_characters_are_those_of_each_engine(dialect, pattern):
    known = [
        character
        for character in map(chr, range(0x110000))
        if unicodedata.category(character) not in {"Cn", "Cs"}
        and not regex.fullmatch(r"\p{Cn}", character)
    ]
    translated = compile_pattern(portable(pattern, dialect))
    ours = set(filter(translated.fullmatch, known))
    if dialect == "regex":
        assert ours == set(filter(regex.compile(pattern).fullmatch, known))
        return
    split = tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(pattern), "removed", invert=True
    )
    theirs = set()
    for i in range(0, len(known), 20_000):
        for piece, _ in split.pre_tokenize_str("".join(known[i : i + 20_000])):
            theirs.update(piece)
    assert len(ours) > 100_000 and ours == theirs


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        (r"(\w)\1", r"`\1` at 4"),
        (r"a*", "may match the empty text"),
        (r"a|(?=b)", "may match the empty text"),
        (r"\Kab", r"`\K` at 0"),
        (r"\X", r"`\X` at 0"),
        (r"(?i:ss)", "`s` at 5"),
        (r"(?i:\p{Lu})", r"`\p{Lu}` at 4"),
        (r"(?x: a)", "`(?x:` at 0"),
        (r"(?<n>a)", "`(?<n` at 0"),
        (r"[[:alpha:]]", "`[:` at 1"),
        (r"(?:a|b){e}", "`{` at 7"),
        (r"[^\S\s]", r"`[^\S\s]` at 0"),
        (r"(?<=a+)b", "`+` at 5"),
        (r"(a", "`end` at 2"),
        (r"\p{Klingon}", r"`\p{Klingon}` at 0"),
        ("(?:" * 60 + "a" + ")" * 60, "`(` at 153"),
    ],
)
@pytest.mark.parametrize("dialect", CUTS)
def test_what_cannot_be_said_to_all_is_refused(pattern, what, dialect):
    with pytest.raises(ValueError, match="engine") as caught:
        portable(pattern, dialect)
    assert what in str(caught.value)


def test_a_dialect_that_there_is_not():
    with pytest.raises(ValueError, match="the dialect is one of"):
        portable("a", "perl")


# Random expressions, most of them dubious, on texts that tell the engines apart.

LETTERS = "aabbsSkKſK123²½é.,[]&^- \t\n\n\r漢\u200d\u0301fßﬀ_-"
ATOMS = [
    *("a", "b", "s", "k", ".", "é", "²", " ", "-", "]", "&", "^", "$", "{"),
    *(r"\d", r"\w", r"\W", r"\s", r"\S", r"\h", r"\H", r"\D", r"\A", r"\z", r"\Z"),
    *(r"\b", r"\B", r"\R", r"\e", r"\v", r"\f", r"\n", r"\t", r"\-", r"\.", r"\pL"),
    *(r"\p{L}", r"\p{N}", r"\P{L}", r"\p{^L}", r"\p{Han}", r"\x61", r"\x{62}"),
    *(r"\u0062", r"\xe9", "(?i:s)", "(?i:k)", "(?i:ss)", "(?i:[ks])", "(?m:.)"),
    *("(?s:.)", "(?m:^)"),
]
MEMBERS = [
    *("a", "b", "a-c", "-", "&", "&&", "[b]", "[^b]", "[a-c&&[^b]]", ".", ",", "["),
    *("^", "²", "--", "~~", "|", "é", r"\s", r"\w", r"\W", r"\d", r"\D", r"\h"),
    *(r"\p{L}", r"\]", r"\[", r"\n", r"\x61", r"\-"),
]
COUNTS = [
    *("", "", "", "", "*", "+", "?", "*?", "+?", "??", "*+", "++", "?+", "+*"),
    *("{2}", "{1,2}", "{1,}", "{,2}", "{2}?", "{1,2}?", "{1,2}+", "{2}+", "{2}*"),
]
GROUPS = ["(?:", "(", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?m:", "(?s:"]


def dubious(generator, depth=0):
    """Make an expression that some engine may read in its own way."""

    def atom():
        x = generator.random()
        if x < 0.25:
            members = generator.choices(MEMBERS, k=generator.randint(1, 4))
            return "[" + generator.choice(["", "^"]) + "".join(members) + "]"
        if x < 0.45 and depth < 3:
            return generator.choice(GROUPS) + dubious(generator, depth + 1) + ")"
        return generator.choice(ATOMS)

    return "|".join(
        "".join(
            atom() + generator.choice(COUNTS) for _ in range(generator.randint(1, 3))
        )
        for _ in range(generator.randint(1, 2 if depth else 3))
    )


@pytest.mark.parametrize("dialect", CUTS)
@pytest.mark.parametrize("n", [1500, pytest.param(12_000, marks=pytest.mark.check)])
def test_any_expression_is_refused_or_cuts_as_in_its_dialect(dialect, n):
    n_compared = 0
    for seed in range(n):
        generator = random.Random(seed)
        pattern = dubious(generator)
        try:
            translated = portable(pattern, dialect)
        except ValueError:
            continue
        try:
            CUTS[dialect](pattern, "a")
        except Exception:
            continue  # no expression in its own dialect
        for _ in range(8):
            text = "".join(generator.choices(LETTERS, k=generator.randint(0, 9)))
            theirs = CUTS[dialect](pattern, text)
            for cut in CUTS.values():
                assert cut(translated, text) == theirs, (pattern, translated, text)
        n_compared += 1
    assert n_compared > n / 20


def test_a_range_that_ends_at_a_bracket_is_refused():
    assert CUTS["regex"](r"[\--[b]+|.", "-1A[]") == ["-1A[", "]"]
    with pytest.raises(ValueError, match="alike"):
        portable(r"[\--[b]", "regex")


def test_whether_a_pattern_matches_all():
    assert all(map(leaves_nothing, PRESETS))
    assert not leaves_nothing(r"\s+(?!\S)|\S")
    assert not leaves_nothing(r"\S++|\s")


# In files.


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "tokenizer.json"
    BPETokenizer.train(["ab bc 1234 1234"], 262, ["<e>"], pattern=r"\w+|\W").save(path)
    return path, json.loads(path.read_bytes())


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"\d{1,3}+|\D+", "1234 1234 ab"),
        (r" ?[^\s[.,]]+|.", "ab bc"),
        (r"^ab|.|\n", "ab\nab"),
        (r"[a-z&&[^b]]+|.", "ab bc"),
    ],
)
def test_a_file_is_read_as_hugging_face_reads_it(document, pattern, text):
    path, content = document
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern
    path.write_text(json.dumps(content), encoding="utf-8")
    theirs = tokenizers.Tokenizer.from_file(str(path)).encode(text).ids
    ours = BPETokenizer.load(path)
    assert ours.encode(text) == theirs
    # And written again, it is read alike again.
    ours.save(path)
    assert tokenizers.Tokenizer.from_file(str(path)).encode(text).ids == theirs


def test_a_file_with_what_cannot_be_said_is_refused(document):
    path, content = document
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"(a)\1|."
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="not every engine reads"):
        BPETokenizer.load(path)


def test_a_pattern_that_cannot_be_said_is_not_written(tmp_path):
    ours = BPETokenizer.train(["ab"], 256, pattern=r"(?V1)\w+|\W")
    with pytest.raises(ValueError, match=r"reads the `\(\?V1` at 0"):
        ours.save(tmp_path / "tokenizer.json")
    assert not list(tmp_path.iterdir())
