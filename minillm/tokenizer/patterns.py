r"""Where a text may be cut: the pre-tokenizers, taken apart.

Byte-pair encoding never merges across the border of two *pre-tokens*. A regular
expression finds them: it cuts a text into words, numbers, punctuation and whitespace,
and loses nothing. This page takes the expressions of GPT-2 and its heirs apart.

>>> pretokenize("The cat's hat, 2026!", GPT2_PATTERN)
['The', ' cat', "'s", ' hat', ',', ' 2026', '!']

# GPT-2's pattern, piece by piece

An expression in alternatives is tried from left to right at each position. GPT-2
(Radford et al. 2019) has five kinds of them, and each is there for a text that needs
it. Some begin with a space and a question mark: one space, if there is one.

1. `'s|'t|'re|'ve|'m|'ll|'d` cuts English contractions, so that "cat" is one token with
   and without its "'s". Only the straight quote and small letters are meant:

    >>> pretokenize("cat's CAT'S cat’s", GPT2_PATTERN)
    ['cat', "'s", ' CAT', "'", 'S', ' cat', '’', 's']

2. ` ?\p{L}+` is a run of letters of any script with *one* space before it. The space
   belongs to the word that follows, so a sentence needs no tokens for its spaces:

    >>> pretokenize("the naïve кот", GPT2_PATTERN)
    ['the', ' naïve', ' кот']

3. ` ?\p{N}+` is the same for digits, so that "route66" does not get a token of its
   own:

    >>> pretokenize("route66 in 1926", GPT2_PATTERN)
    ['route', '66', ' in', ' 1926']

4. ` ?[^\s\p{L}\p{N}]+` is what is neither whitespace, letter nor digit. Without it,
   "dog.", "dog!" and "dog?" would be three words with nothing in common:

    >>> pretokenize("dog. dog!? (dog)", GPT2_PATTERN)
    ['dog', '.', ' dog', '!?', ' (', 'dog', ')']

5. `\s+(?!\S)|\s+` is whitespace. The first half takes a run of it but, if text follows,
   leaves the last character to it: an indented word is the same token as any other.

    >>> pretokenize("if x:\n    return", GPT2_PATTERN)
    ['if', ' x', ':', '\n   ', ' return']

# What GPT-4's pattern does otherwise

`cl100k_base` (GPT-3.5 and GPT-4) changes five things. Contractions are found in
capitals too; a word takes *any* one sign before it, not only a space, which helps code;
a number is cut into groups of three; line ends go with the punctuation before them; and
a run of whitespace is cut behind its last line end.

>>> pretokenize("CAT'S f(x) 12345;\n  y\n  z", GPT4_PATTERN)
['CAT', "'S", ' f', '(x', ')', ' ', '123', '45', ';\n', ' ', ' y', '\n', ' ', ' z']
>>> pretokenize("CAT'S f(x) 12345;\n  y\n  z", GPT2_PATTERN)
['CAT', "'", 'S', ' f', '(', 'x', ')', ' 12345', ';', '\n ', ' y', '\n ', ' z']

`o200k_base` (GPT-4o) keeps contractions with their word, cuts where a small letter is
followed by a capital, and lets a mark (the signs that Indic scripts put on a consonant)
stay inside its word:

>>> pretokenize("they've parseHTML हिन्दी", O200K_PATTERN)
["they've", ' parse', 'HTML', ' हिन्दी']
>>> pretokenize("they've parseHTML हिन्दी", GPT4_PATTERN)
['they', "'ve", ' parseHTML', ' ह', 'िन', '्द', 'ी']

# One pattern, three engines

A pattern is a program, and the engine that runs it matters. Ours is the `regex`
package; tiktoken uses Rust's `fancy-regex`, Hugging Face Oniguruma, and from version
1.0 on `fancy-regex`, too. The patterns here avoid what the three read differently, such
as the `{1,3}+` that tiktoken writes. [`minillm.tokenizer.dialects`][] lists the
differences, and translates.

What cannot be avoided is that each engine carries its own table of Unicode. In the
versions that the tests use, ours differs from both others in the kind of more than
17,000 code points. All but one of them are characters that the older tables do not know
yet: a script added last year is made of letters for one engine and of nothing for
another, and is cut accordingly. The one is U+0295, a letter without case that has been
a small one. On every other text whose characters all tables know, the ids are the same.
`python -m benchmarks.unicode_tables` lists the differences of the versions that you
have; to have those that were tested, install with `constraints.txt`.
"""

import math
from functools import lru_cache
from typing import Final

import regex  # type: ignore[import-untyped]  # it has no annotations

__all__ = [
    "BYTE_RANK",
    "BYTE_TO_CHAR",
    "CHAR_TO_BYTE",
    "DIGITS_PATTERN",
    "GPT2_PATTERN",
    "GPT4_PATTERN",
    "LLAMA3_PATTERN",
    "O200K_PATTERN",
    "compile_pattern",
    "pretokenize",
]

GPT2_PATTERN: Final = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
"""The pre-tokenizer of GPT-2 and GPT-3, and of `ByteLevel` in `tokenizers`."""

_CONTRACTION: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"

# tiktoken writes the end of the text as `\s++$`. Here it is "whitespace with nothing
# behind", which no engine can misread.
GPT4_PATTERN: Final = (
    _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?![\s\S])|" + _BLANKS
)
"""The pre-tokenizer of `cl100k_base`: GPT-3.5 and GPT-4."""

LLAMA3_PATTERN: Final = (
    _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _BLANKS
)
"""Llama 3's. Like GPT-4's, but the end of the text is nothing special."""

_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

O200K_PATTERN: Final = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTION}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTION}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _BLANKS
)
"""The pre-tokenizer of `o200k_base`: GPT-4o and later."""

DIGITS_PATTERN: Final = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+"
    r"|\s+(?![^\s\p{N}])|\s+"
)
"""SmolLM2's: GPT-2's, after every digit has been set apart."""


OURS: Final = frozenset({
    *(GPT2_PATTERN, GPT4_PATTERN, LLAMA3_PATTERN, O200K_PATTERN, DIGITS_PATTERN),
})
# What a pattern of another may be and take: its characters, the product of all numbers
# of repeats in it, and the seconds until a match is found.
LONGEST_PATTERN: Final = 10_000
MOST_REPEATS: Final = 10_000
PATIENCE: Final = 5.0


@lru_cache(maxsize=64)
def compile_pattern(pattern: str) -> "regex.Pattern[str]":
    r"""Compile a pre-tokenizer, once.

    Args:
        pattern: a regular expression in the language of the `regex` package. The
            standard library's `re` knows no `\p{L}`.

    Returns:
        The compiled expression.

    Raises:
        ValueError: if the expression is not one.

    Examples:
        >>> compile_pattern(r"(")
        Traceback (most recent call last):
        ValueError: the pattern '(' is no regular expression: missing ) at position 1
    """
    try:
        # Each repeat is written out when it is compiled, a billion of them too.
        counts = regex.findall(r"\{(\d*),?(\d*)\}", pattern)
        repeats = math.prod(max(int(n or 1) for n in pair) or 1 for pair in counts)
        if repeats > MOST_REPEATS or len(pattern) > LONGEST_PATTERN:
            raise ValueError("it is too large")
        return regex.compile(pattern)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        message = f"the pattern {pattern!r:.80} is no regular expression: {error}"
        raise ValueError(message) from None


def pretokenize(text: str, pattern: str) -> list[str]:
    r"""Cut a text into pre-tokens.

    Args:
        text: any text.
        pattern: a regular expression. What lies between two of its matches becomes a
            pre-token too, so no pattern can lose text (tiktoken drops it).

    Returns:
        The pre-tokens. Joined, they are the text again.

    Raises:
        ValueError: if the pattern is no regular expression, or takes more than five
            seconds to find one match.

    Examples:
        >>> pretokenize("a1b22", r"\d"), pretokenize("a1b22", r"\d+")
        (['a', '1', 'b', '2', '2'], ['a', '1', 'b', '22'])
    """
    compiled = compile_pattern(pattern)
    if pattern in OURS:
        # They match every character, and take no longer for one than for another.
        found: list[str] = compiled.findall(text)
        return found
    pieces: list[str] = []
    begin = end = 0
    while True:
        # A pattern from a file may be a trap: that of `(a|a)*b` takes twice as long for
        # each further letter. A long text may take its time, but no match may.
        try:
            for match in compiled.finditer(text, begin, timeout=PATIENCE):
                # A match may be empty, as that of `x*` is before every other letter.
                pieces += [text[end : match.start()], match.group()]
                end = match.end()
        except TimeoutError:
            if end > begin:
                begin = end
                continue
            raise ValueError(
                f"the pattern {pattern!r:.80} takes too long for "
                f"{text[end : end + 40]!r}: use another tokenizer"
            ) from None
        return [piece for piece in [*pieces, text[end:]] if piece]


# Bytes as printable characters. A JSON file cannot hold the byte 0xFF, so GPT-2 writes
# each byte as one character: the printable ones as themselves, the others, in order, as
# the characters from U+0100 on. A space becomes Ġ, a line end Ċ.
_PRINTABLE = [*b"!\"#$%&'()*+,-./", *range(0x30, 0x7F)]
_PRINTABLE += [*range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_TO_CHAR: Final = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(0x100 + i) for i, byte in enumerate(_OTHERS)
}
"""GPT-2's character for each byte."""

CHAR_TO_BYTE: Final = {character: byte for byte, character in BYTE_TO_CHAR.items()}
"""The way back."""

BYTE_RANK: Final = {
    byte: rank
    for rank, byte in enumerate(sorted(range(256), key=lambda byte: BYTE_TO_CHAR[byte]))
}
"""The place of each byte in the order of these characters."""
