"""Remind a writer of the field's words: phrases that this course does not use.

`python tests/vocabulary.py` looks through pages, docstrings, comments and help texts,
those of tests and benchmarks too, and prints each place with what to say instead. It is
part of `make lint`. A line that must keep its words, a quotation for example, is
allowed in `ALLOWED`.
"""

import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = ("minillm", "benchmarks", "tests")

# What is found, as a regular expression, and what to say instead.
PHRASES = {
    r"rows? of (ids|tokens|integers|bytes)": "sequence of …",
    r"draws? (of )?text|draw(s|ing|n)? (a|the) (next )?(token|word)s?": "sample",
    r"put aside|the examination|looks at unseen": "held-out, evaluation, validation",
    r"gathers? gradients": "all-reduce, average the gradients",
    r"a world of (one|two)": "world size 1",
    r"surprises? (of|at) (a|the) token": "cross-entropy, negative log-likelihood",
    r"what counting alone": "unigram, bigram or trigram baseline",
    r"rulers?": "metric",
    r"short numbers?": "low precision, bf16",
    r"numbers? with a decimal point": "floating-point number",
    r"shorten(s|ed)? (the|a|its) gradients?": "clip the gradient norm",
    r"the pull (is|of|towards)": "weight decay",
    r"blanks?(?! lines?\b)": "space, whitespace",
    r"think(s)? by (itself|themselves)": "be processed independently",
    r"[Ww]hoever": "if you …, anyone who …",
    r"(?<=[.;:!?] )Who [a-z]+s ": "if you …",
    r"that one can wait for": "fast enough to use",
    r"examined on|is examined": "evaluated on",
    r"pip install 'minillm": "pip install and the library's own name",
    r"previous[- ]place head|place after the same": "position",
}
FOUND = re.compile("|".join(f"(?P<p{i}>\\b(?:{p})\\b)" for i, p in enumerate(PHRASES)))

# Places that keep their words: the file, and a part of the line.
ALLOWED: dict[str, tuple[str, ...]] = {
    "tests/test_project.py": ("A row of ids", "Whoever reads"),
    # A sentence that is compared with the tale of the emperor.
    "tests/test_curation.py": ("the ruler paraded",),
    # A text to tokenize.
    "tests/files/test_gguf_files.py": ("and   blanks",),
}


def passages(path: Path) -> Iterator[tuple[int, str]]:
    """The prose of a file: all of a page, strings and comments of code."""
    if path.suffix == ".md":
        fenced = False
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            fenced ^= line.lstrip().startswith("```")
            if not fenced:
                yield number, line
        return
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in {tokenize.STRING, tokenize.COMMENT}:
                for offset, line in enumerate(token.string.split("\n")):
                    if not line.lstrip().startswith((">>>", "...")):
                        yield token.start[0] + offset, line


def reminders(path: Path) -> Iterator[str]:
    """One line for each phrase in a file."""
    name = path.relative_to(ROOT).as_posix()
    for number, line in passages(path):
        if any(part in line for part in ALLOWED.get(name, ())):
            continue
        for match in FOUND.finditer(line):
            better = list(PHRASES.values())[int((match.lastgroup or "p0")[1:])]
            yield f"{name}:{number}: {match[0].strip()!r}: say {better}"


def files() -> list[Path]:
    """Everything that a reader may see."""
    code = [p for f in FOLDERS for p in (ROOT / f).rglob("*.py")]
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "images").rglob("*.md")]
    pages += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return sorted({*code, *pages} - {Path(__file__).resolve()})


if __name__ == "__main__":
    lines = [line for path in files() for line in reminders(path)]
    print(*lines, sep="\n", end="\n" if lines else "")
    sys.exit(bool(lines))
