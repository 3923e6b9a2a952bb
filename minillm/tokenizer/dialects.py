r"""One pattern for all engines: regular expressions between dialects.

A pattern is a program, and each engine runs it its own way. This course runs `regex`,
Hugging Face's `tokenizers` runs Oniguruma (up to version 0.23) or `fancy-regex` (from
1.0), JavaScript runs its own. None of them complains; they cut another text:

| expression | `regex` | Oniguruma |
| --- | --- | --- |
| `\d{1,3}+` | one to three digits, for good | groups of one to three, repeated |
| `\d{3}?` | three digits | three digits or none |
| `^`, `$` | the ends of the text | the ends of every line |
| `(?m:.)` | `^` and `$` match at lines | `.` matches line ends, too |
| `[^\s[.,]]` | four characters and a `]` | none of three kinds of characters |
| `[a-z&&[^b]]` | letters, `&`, `[`, `^`, and a `]` | the letters but b |
| `\h` | a horizontal space | a hexadecimal digit |
| `\w` | zero-width joiners, too | ¹, ², ³, ¼, ½ and ¾, too (but not in `[\w]`) |
| `a*` | the empty text, wherever no a is | the empty text, with a character skipped |

So a pattern that crosses from one program to another is rewritten into what all engines
read alike. A text of one digit more than three shows the difference, and the cure:

>>> from minillm.tokenizer.patterns import pretokenize
>>> theirs = r"\d{1,3}+|\D+"
>>> pretokenize("1234", theirs), pretokenize("1234", portable(theirs, "oniguruma"))
(['123', '4'], ['1234'])

What cannot be rewritten is refused by its name. A tokenizer that cuts nearly right
gives a model that is quietly wrong.
"""

from typing import Final, NamedTuple, NoReturn

import regex  # type: ignore[import-untyped]  # it has no annotations

__all__ = ["leaves_nothing", "portable"]

# What every engine knows by the same name, apart from the age of its table.
_PROPERTIES: Final = frozenset({
    *("l", "lu", "ll", "lt", "lm", "lo", "m", "mn", "mc", "me", "n", "nd", "nl", "no"),
    *("p", "pc", "pd", "ps", "pe", "pi", "pf", "po", "s", "sm", "sc", "sk", "so"),
    *("z", "zs", "zl", "zp", "c", "cc", "cf", "alphabetic"),
    *("han", "hiragana", "katakana", "hangul", "latin", "greek", "cyrillic"),
    *("arabic", "hebrew", "thai", "devanagari"),
})
# `\w` alone, as each engine has it; a test compares every character. In brackets
# Oniguruma has no fractions.
_LETTERS: Final = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}"
_WORD: Final = {
    "regex": _LETTERS + r"\u200c\u200d",
    "oniguruma": _LETTERS + "²³¹¼½¾",
}
_ANY: Final = r"[\s\S]"
_START, _END = rf"(?<!{_ANY})", rf"(?!{_ANY})"
_LAST_LINE: Final = rf"(?=\n?{_END})"
_LINE_END: Final = rf"(?=\n|{_END})"
# Written as a character of their own, they would be syntax.
_SYNTAX: Final = frozenset(r"\^$.*+?()[]{}|/-&~")
_NAMED: Final = {"f": "\f", "v": "\v", "a": "\a", "e": "\x1b"}
# Two letters that are one in capitals or in a ligature: only Oniguruma says so.
_FOLDED: Final = regex.compile(r"ss|ff|fi|fl|st|[^\x00-\x7f]", regex.IGNORECASE)
_DEEPEST: Final = 50


class _Class(NamedTuple):
    """A bracketed class: an intersection of unions of texts and classes."""

    negated: bool
    unions: list[list["str | _Class"]]


class _Flags(NamedTuple):
    """What a group says about what is in it."""

    fold: bool = False  # upper case is lower case
    dotall: bool = False
    multiline: bool = False
    behind: bool = False  # in a lookbehind


def portable(pattern: str, dialect: str = "regex") -> str:
    r"""Rewrite a pattern into what all engines read alike.

    Args:
        pattern: a regular expression.
        dialect: whose: `"regex"` or `"oniguruma"`.

    Returns:
        An expression that cuts every text as the pattern does in its own dialect. What
        all read alike already stays as it is, letter for letter.

    Raises:
        ValueError: if the pattern holds what cannot be said to all engines. The message
            names it.

    Examples:
        >>> portable(r"[a-z&&[^b]]+|\h", "oniguruma")
        '(?:(?=[^b])[a-z])+|[0-9a-fA-F]'
        >>> portable(r"^\p{N}{1,3}+")
        '(?<![\\s\\S])\\p{N}{1,3}'
        >>> try:
        ...     portable(r"(\w)\1")
        ... except ValueError as error:
        ...     print(str(error).partition(" of ")[0])
        not every engine reads the `\1` at 4
    """
    if dialect not in _WORD:
        raise ValueError(f"the dialect is one of {list(_WORD)}, not {dialect!r}")
    rewriter = _Rewriter(pattern, dialect)
    flags = _Flags()
    if pattern.startswith("(?i)"):
        rewriter.at, flags = 4, _Flags(fold=True)
    written = rewriter.alternatives(flags, 0)
    if rewriter.at < len(pattern):
        rewriter.refuse(1)
    if rewriter.empty:
        raise ValueError(
            f"the pattern {pattern!r:.80} may match the empty text, after which every "
            "engine goes on in its own way; let each alternative match a character"
        )
    return f"(?i:{written})" if flags.fold else written


def leaves_nothing(pattern: str) -> bool:
    r"""Tell whether a pattern certainly matches all of every text.

    Args:
        pattern: a pattern as `portable` returns it.

    Returns:
        Whether every character is matched, whatever stands around it, by an alternative
        that looks neither ahead nor back and gives back what it has taken.

    Examples:
        >>> leaves_nothing(r"\w+|\W"), leaves_nothing(r"\w+"), leaves_nothing(r"\w+|.")
        (True, False, False)
    """
    rewriter = _Rewriter(pattern, "regex")
    rewriter.alternatives(_Flags(), 0)
    plain = [
        choice
        for choice in rewriter.choices
        if not any(mark in choice for mark in ("(?=", "(?!", "(?<", "(?>", "++", "*+"))
        and "?+" not in choice
    ]
    match = regex.compile("|".join(plain) if plain else "(?!)").fullmatch
    characters = (chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000)
    return all(map(match, characters))


class _Rewriter:
    """Reads a pattern from left to right, and writes it down again."""

    def __init__(self, pattern: str, dialect: str) -> None:
        self.pattern, self.dialect = pattern, dialect
        self.at = 0
        self.choices: list[str] = []  # the alternatives of the whole
        self.empty = False  # whether what was read last may match the empty text

    def refuse(self, length: int) -> NoReturn:
        what = self.pattern[self.at : self.at + length] or "end"
        raise ValueError(
            f"not every engine reads the `{what}` at {self.at} of the pattern "
            f"{self.pattern!r:.80} alike; write it in another way"
        )

    def ahead(self, text: str) -> bool:
        return self.pattern.startswith(text, self.at)

    def take(self, expression: str) -> "regex.Match[str] | None":
        match = regex.compile(expression).match(self.pattern, self.at)
        if match:
            self.at = match.end()
        return match

    # Groups and repeats.

    def alternatives(self, flags: _Flags, depth: int) -> str:
        if depth > _DEEPEST:
            self.refuse(1)
        written: list[str] = []
        run = ""
        begin, empty_so_far, any_empty = 0, True, False
        while self.at < len(self.pattern) and not self.ahead(")"):
            if self.take(r"\|"):
                if depth == 0:
                    self.choices.append("".join(written[begin:]))
                written.append("|")
                begin = len(written)
                any_empty |= empty_so_far
                run, empty_so_far = "", True
                continue
            start = self.at
            atom = self.atom(flags, depth)
            source = self.pattern[start : self.at]
            # Letters side by side, for what they may be together.
            run = run + source[-1] if len(source) <= 2 else ""
            if flags.fold and _FOLDED.search(run):
                self.at = start
                self.refuse(len(source))
            written.append(self.repeat(atom, flags, depth))
            empty_so_far &= self.empty
        self.empty = any_empty or empty_so_far
        if depth == 0:
            self.choices.append("".join(written[begin:]))
        return "".join(written)

    def repeat(self, atom: str, flags: _Flags, depth: int) -> str:
        start = self.at
        if (self.empty or flags.behind) and self.take(r"(?=[*+?{])"):
            # Where the empty text is repeated, each engine stops in its own way.
            self.refuse(1)
        if self.take(r"[*+?]"):
            self.empty |= self.pattern[start] != "+"
            self.take(r"[?+]")
            if self.take(r"[*+?{]"):
                self.at -= 1
                self.refuse(1)
            return atom + self.pattern[start : self.at]
        if not self.ahead("{"):
            return atom
        match = self.take(r"\{(\d*)(,?)(\d*)\}")
        if match is None or not (match[1] or match[3]):
            self.at = start
            self.refuse(1)
        least, most = int(match[1] or 0), int(match[3] or match[1])
        if match[3] and least > most:
            self.at = start
            self.refuse(len(match[0]))
        exact = not match[2]
        count = match[0] if match[1] else f"{{0,{most}}}"
        mark = self.take(r"[?+*]")
        fixed = exact and self.dialect == "regex"
        self.empty |= not least or (mark is not None and mark[0] in "?*" and not fixed)
        if self.take(r"[*+?{]"):
            self.at -= 1
            self.refuse(1)
        if mark is None:
            return atom + count
        if mark[0] == "?" and not exact:
            return f"{atom}{count}?"
        if self.dialect == "oniguruma":
            return f"(?:{atom}{count}){mark[0]}"
        if mark[0] == "?":
            return atom + count
        if mark[0] == "*":
            self.at -= 1
            self.refuse(1)
        # Possessive. At the end of the whole nothing could ask for anything back.
        is_last = depth == 0 and (self.at == len(self.pattern) or self.ahead("|"))
        return atom + count if is_last else f"(?>{atom}{count})"

    def atom(self, flags: _Flags, depth: int) -> str:
        start, character = self.at, self.pattern[self.at]
        self.empty = character in "^$"
        if character in "*+?{":
            self.refuse(1)
        if character == "(":
            return self.group(flags, depth)
        if character == "[":
            return self.bracketed(flags)
        if character == "\\":
            return self.escape(flags)
        self.at += 1
        if character in "^$" and flags.behind:
            self.at = start
            self.refuse(1)
        if character == "^":
            if self.dialect == "oniguruma":
                return rf"(?:{_START}|(?<=\n)(?={_ANY}))"
            return rf"(?:{_START}|(?<=\n))" if flags.multiline else _START
        if character == "$":
            by_line = self.dialect == "oniguruma" or flags.multiline
            return _LINE_END if by_line else _LAST_LINE
        if character == ".":
            return _ANY if flags.dotall else "."
        return rf"\{character}" if character in "]}" else character

    def group(self, flags: _Flags, depth: int) -> str:
        start = self.at
        match = self.take(r"\((?:\?(?:<?[=!]|[:>]|([ims]+):))?(?!\?)")
        # Flags have other names: the `m` of Oniguruma is the `s` of others.
        named = (match[1] or "") if match else ""
        known = "im" if self.dialect == "oniguruma" else "ims"
        if match is None or set(named) - set(known) or flags.behind:
            self.at = start
            self.refuse(4)
        dotall = "m" if self.dialect == "oniguruma" else "s"
        inner = flags._replace(
            fold=flags.fold or "i" in named,
            dotall=flags.dotall or dotall in named,
            multiline=flags.multiline or "m" in named,
            behind=match[0] in {"(?<=", "(?<!"},
        )
        written = self.alternatives(inner, depth + 1)
        if not self.take(r"\)"):
            self.refuse(1)
        self.empty |= match[0] in {"(?=", "(?!", "(?<=", "(?<!"}
        is_named = named or match[0] == "("
        opening = ("(?i:" if "i" in named else "(?:") if is_named else match[0]
        return f"{opening}{written})"

    # Characters.

    def escape(self, flags: _Flags) -> str:
        start = self.at
        plain = self.take(r"\\[sS]") or (not flags.fold and self.take(r"\\[dD]"))
        if plain:
            return str(plain[0])
        if not flags.fold and (match := self.take(r"\\([wWhH])")):
            members = self.members(match[1], _WORD[self.dialect])
            return f"[{'^' if match[1].isupper() else ''}{members}]"
        if (
            not flags.behind
            and not flags.fold
            and (match := self.take(r"\\([AbBRzZ])"))
        ):
            return self.assertion(match[1], start)
        return self.character(flags)

    def members(self, letter: str, word: str) -> str:
        if letter in "wW":
            return word
        if self.dialect != "oniguruma":
            self.at -= 2
            self.refuse(2)
        return "0-9a-fA-F"

    def assertion(self, letter: str, start: int) -> str:
        word = f"[{_WORD[self.dialect]}]"
        theirs = self.dialect == "oniguruma"
        known = {
            "A": _START,
            "b": rf"(?:(?<={word})(?!{word})|(?<!{word})(?={word}))",
            "B": rf"(?:(?<={word})(?={word})|(?<!{word})(?!{word}))",
            "R": r"(?>\r\n|[\n-\r\x85\u2028\u2029])",
            "Z": _LAST_LINE if theirs else _END,
        }
        known |= {"z": _END} if theirs else {}
        if letter not in known:
            self.at = start
            self.refuse(2)
        self.empty = letter != "R"
        return known[letter]

    def character(self, flags: _Flags) -> str:
        """Read an escape that stands for one character, or for a property."""
        start = self.at
        if match := self.take(r"\\[pP]\{\^?(\w+)\}"):
            if match[1].lower() in _PROPERTIES and not flags.fold:
                return str(match[0])
            self.at = start
            self.refuse(len(match[0]))
        elif match := self.take(r"\\(?:[tnr]|x[0-7][0-9a-fA-F]|[^a-zA-Z0-9])"):
            return str(match[0])
        elif match := self.take(r"\\([fvae])"):
            if self.dialect == "oniguruma" or match[1] != "e":
                return _literal(_NAMED[match[1]])
        elif match := self.take(r"\\(?:u([0-9a-fA-F]{4})|x\{([0-9a-fA-F]{1,6})\})"):
            if match[1] or self.dialect == "oniguruma":
                return self.literal_of(match[1] or match[2], start)
        elif self.dialect == "regex" and (
            match := self.take(r"\\(?:x([0-9a-fA-F]{2})|U([0-9a-fA-F]{8}))")
        ):
            return self.literal_of(match[1] or match[2], start)
        self.at = start
        self.refuse(2)

    def literal_of(self, digits: str, start: int) -> str:
        number = int(digits, 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            self.at = start
            self.refuse(2)
        return _literal(chr(number))

    # Classes.

    def bracketed(self, flags: _Flags) -> str:
        start = self.at
        class_ = self.class_(flags, 0)
        source = self.pattern[start : self.at]
        # Upper and lower case of what is not named one by one: each engine has its own.
        fold_is_plain = regex.fullmatch(r"\[[ -Z_a-z]+\]", source)
        written = _write_class(class_)
        # `regex` takes the complement of everything, such as `[^\s\S]`, for everything.
        mixed = source[1] == "^" and regex.search(r"\\[SDPWH]|\{\^", source)
        mixed = mixed and regex.search(r"\\[sdwh]|\\p\{(?!\^)", source)
        is_plain = written[0] == "["
        if (
            mixed
            or (flags.fold and not fold_is_plain)
            or (flags.behind and not is_plain)
        ):
            self.at = start
            self.refuse(len(source))
        return written

    def class_(self, flags: _Flags, depth: int) -> _Class:
        opening = self.take(r"\[\^?")
        assert opening is not None
        unions: list[list[str | _Class]] = [[]]
        if self.ahead("]"):
            if self.dialect == "oniguruma":
                self.refuse(1)
            self.at += 1
            unions[-1].append(r"\]")
        while not self.take(r"\]"):
            if self.at >= len(self.pattern) or self.ahead("[:") or depth > _DEEPEST:
                self.refuse(2)
            if self.dialect == "oniguruma" and self.ahead("["):
                unions[-1].append(self.class_(flags, depth + 1))
            elif self.dialect == "oniguruma" and self.take("&&"):
                unions.append([])
            else:
                unions[-1].append(self.item(flags, depth))
        if not all(unions):
            self.refuse(1)
        return _Class(len(opening[0]) > 1, unions)

    def item(self, flags: _Flags, depth: int) -> "str | _Class":
        start = self.at
        if match := self.take(r"\\([wWhH])"):
            word = _LETTERS if self.dialect == "oniguruma" else _WORD["regex"]
            members = self.members(match[1], word)
            return _Class(True, [[members]]) if match[1].isupper() else members
        if match := self.take(r"\\[sSdD]|\\[pP]\{\^?\w+\}"):
            if match[0][1] in "pP":
                self.at = start
                self.character(flags)
            return str(match[0])
        low = self.end_of_range(flags, depth)
        if self.dialect == "regex" and self.ahead("-["):
            self.refuse(2)  # a range up to `[` here, a class in a class elsewhere
        if not self.take(r"-(?=[^\]\[])"):
            return low
        if self.take(r"\\(?=[sSdDwWhHpP])"):
            self.at = start
            self.refuse(4)
        return f"{low}-{self.end_of_range(flags, depth)}"

    def end_of_range(self, flags: _Flags, depth: int) -> str:
        if self.ahead("\\"):
            return self.character(flags)
        # One minus alone; two may be a difference of classes, somewhere.
        if match := self.take(r"-(?!-)|[^-\[\]&~|]|[&~|](?![&~|])|\["):
            is_end = self.pattern[self.at - 2] in "[^" or self.ahead("]")
            bare = is_end and depth == 0
            if match[0] == "-":
                return "-" if bare else r"\-"
            return r"\[" if match[0] == "[" else str(match[0])
        self.refuse(2)


def _literal(character: str) -> str:
    if character in _SYNTAX:
        return rf"\{character}"
    return (
        character
        if character.isprintable()
        else f"\\x{ord(character):02x}"
        if (ord(character) < 0x80)
        else character
    )


def _write_class(class_: _Class) -> str:
    """Write a class without any in it, or else as assertions about one character."""
    unions = [_flat(union) for union in class_.unions]
    if len(unions) == 1 and not unions[0][1]:
        return f"[{'^' * class_.negated}{unions[0][0]}]"
    tests = []
    for members, others in unions:
        choices = [f"[{members}]"] * bool(members) + [_write_class(c) for c in others]
        tests.append(choices[0] if len(choices) == 1 else f"(?:{'|'.join(choices)})")
    first, *rest = tests
    both = "".join([f"(?={test})" for test in rest]) + first
    return rf"(?:(?!{both}){_ANY})" if class_.negated else f"(?:{both})"


def _flat(union: list[str | _Class]) -> tuple[str, list[_Class]]:
    """Take classes apart that only add to the one around them."""
    members, others = "", []
    for item in union:
        if isinstance(item, str):
            members += item
        elif item.negated or len(item.unions) > 1:
            others.append(item)
        else:
            inner, more = _flat(item.unions[0])
            members, others = members + inner, others + more
    return (rf"\{members}" if members.startswith("^") else members), others
