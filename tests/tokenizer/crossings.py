"""Which program reads what we write.

Saves tokenizers of every kind, lets the programs of others read them and encode texts,
and writes down who gives our ids. A test repeats it, and the site shows the table.

    PYTHONPATH=tests python tests/tokenizer/crossings.py
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fixtures import FOLDER, PROGRAMS

from minillm.bpe import GPT4_PATTERN, O200K_PATTERN, BPETokenizer
from minillm.data import andersen
from minillm.tokenizer.patterns import DIGITS_PATTERN, LLAMA3_PATTERN

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "images/data/crossings.md"

TEXTS = [
    "The cat's hat, isn't it? WE'LL see 12345 of them; f(x)=3.14!",
    "  if x:\n\t\treturn  y \r\n\n   ",
    "naïve 漢字 हिन्दी 🌍 ² e\u0301",
    "one<|end|>two<|late|> and <think> eight        spaces",
    " \n trailing \n ",
    "",
]


class Program(NamedTuple):
    """A program of others: how it is named, and code that reads what we write."""

    package: str
    code: str


PYTHON = """
import json, sys
{load}
print(json.dumps([[int(i) for i in encode(text)] for text in json.load(sys.stdin)]))
"""
JAVASCRIPT = """
const { Tokenizer } = require("@huggingface/tokenizers");
const read = (path) => JSON.parse(require("fs").readFileSync(path, "utf8"));
const tokenizer = new Tokenizer(read(process.argv[1]), {});
console.log(JSON.stringify(read(0).map((text) => tokenizer.encode(text).ids)));
"""
HUGGING_FACE = """
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
encode = lambda text: tokenizer.encode(text).ids
"""
READERS = {
    "tokenizers": Program("", HUGGING_FACE),
    "tokenizers 1.0": Program("tokenizers", HUGGING_FACE),
    "tokenizers.js": Program("@huggingface/tokenizers", ""),
    "tokie": Program(
        "tokie",
        "import tokie\ntokenizer = tokie.Tokenizer.from_json(sys.argv[1])\n"
        "encode = lambda text: tokenizer.encode(text).ids",
    ),
    "fastokens": Program(
        "fastokens",
        "import fastokens\ntokenizer = fastokens.Tokenizer.from_file(sys.argv[1])\n"
        "encode = lambda text: tokenizer.encode(text, add_special_tokens=True).ids",
    ),
    "gigatoken": Program(
        "gigatoken",
        "import gigatoken\nencode = gigatoken.Tokenizer(sys.argv[1]).encode",
    ),
}


def small() -> dict[str, Any]:
    """The parts of a tokenizer that each row changes in one thing."""
    learned = BPETokenizer.train(andersen()[:2], 300, ["<|end|>"])
    return {
        "vocab": learned.vocab,
        "merges": learned.merges,
        "special_tokens": learned.special_tokens,
    }


def own(**changes: Any) -> Callable[[], BPETokenizer]:
    return lambda: BPETokenizer(**(small() | changes))


def of_tiktoken(name: str, pattern: str, **specials: int) -> Callable[[], BPETokenizer]:
    named = {f"<|{token}|>": id_ for token, id_ in specials.items()}
    path = FOLDER / f"{name}.tiktoken"
    return lambda: BPETokenizer.from_tiktoken_file(path, pattern, named)


LATE = {"<|end|>": 299, "<|late|>": 310}
ROWS: dict[str, Callable[[], BPETokenizer]] = {
    "GPT-2's pattern": own(),
    "GPT-4's": own(pattern=GPT4_PATTERN),
    "Llama 3's": own(pattern=LLAMA3_PATTERN),
    "GPT-4o's": own(pattern=O200K_PATTERN),
    "SmolLM2's": own(pattern=DIGITS_PATTERN),
    r"one of your own: `\w+|\s+$|[^\w]`": own(pattern=r"\w+|\s+$|[^\w]"),
    "an id that is missing": own(special_tokens=LATE),
    "added tokens, not special": own(added_tokens={"<think>": 300, " " * 8: 301}),
    "a text begins with `<|end|>`": own(begin_ids=[299], stop_ids=[299]),
    "`cl100k_base`": of_tiktoken(
        "cl100k_base", GPT4_PATTERN, endoftext=100257, endofprompt=100276
    ),
    "`o200k_base`": of_tiktoken(
        "o200k_base", O200K_PATTERN, endoftext=199999, endofprompt=200018
    ),
}


def version(name: str) -> str | None:
    """The version of a program, or None where it is not there."""
    if not READERS[name].package:
        import tokenizers

        return str(tokenizers.__version__)
    if name == "tokenizers.js" and shutil.which("node") is None:
        return None
    package = READERS[name].package
    there = (FOLDER / "programs" / package.strip("@").replace("/", "-")).is_dir()
    return PROGRAMS[package] if there else None


def started(
    name: str, program: str, *arguments: str
) -> tuple[list[str], dict[str, str]]:
    """How a program is started: its command, and the environment that it needs."""
    package, code = READERS[name]
    folder = FOLDER / "programs" / package.strip("@").replace("/", "-")
    environment = dict(os.environ)
    if name == "tokenizers.js":
        environment["NODE_PATH"] = str(folder / "node_modules")
        return ["node", "-e", JAVASCRIPT, *arguments], environment
    if package:
        environment["PYTHONPATH"] = str(folder)
    return [sys.executable, "-c", program.format(load=code), *arguments], environment


def read(name: str, path: Path) -> list[list[int]] | None:
    """Let a program read a file, and encode the texts. None if it refuses."""
    command, environment = started(name, PYTHON, str(path))
    result = subprocess.run(
        command,
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
        check=False,
    )
    return json.loads(result.stdout) if result.returncode == 0 else None


def cell(tokenizer: BPETokenizer, theirs: list[list[int]] | None) -> str:
    """Say how their ids compare with ours."""
    bare = [tokenizer.encode(text, "all") for text in TEXTS]
    begin, end = tokenizer.begin_ids, tokenizer.end_ids
    if theirs is None:
        return "refuses"
    if theirs == [[*begin, *ids, *end] for ids in bare]:
        return "equal"
    return "equal, but for the beginning" if theirs == bare else "**other ids**"


def table(programs: list[str]) -> list[list[str]]:
    """A row for each file, a column for each program."""
    rows = [["what is saved", *[f"{p.split()[0]} {version(p)}" for p in programs]]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        for name, make in ROWS.items():
            tokenizer = make()
            tokenizer.save(path)
            # A bar would end the cell.
            rows.append([name.replace("|", r"\|")])
            rows[-1] += [cell(tokenizer, read(program, path)) for program in programs]
    return rows


def written(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    missing = [name for name in READERS if version(name) is None]
    if missing:
        raise SystemExit(f"{missing} are not there: run `make fixtures`")
    TABLE.write_text(written(table(list(READERS))), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))
