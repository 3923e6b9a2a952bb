"""How long until something happens: imports, commands, doctests, the site?

python -m benchmarks.start [PART ...] [--turns N] [--quick]
"""

import os
import subprocess
import sys
import tempfile

from benchmarks.command import ROOT, main
from benchmarks.measure import Part, Record

# In seconds beyond Python's own start.
IMPORTS = {"minillm": 0.05, "minillm.flops": 0.05, "minillm.bpe": 0.15}
PEERS = ("tiktoken", "tokenizers", "torch", "transformers")


def _run(*command: str, **more: str) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | more,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1])


def imports(record: Record) -> None:
    """Import a module in a new process: the time beyond Python's own start.

    The other libraries are there for the scale.
    """
    names = [*IMPORTS, *(() if record.quick else PEERS)]
    programs = {"": lambda: _run("-c", "pass")}
    for name in names:
        with record.optional(f"import {name}"):
            _run("-c", f"import {name}")
            programs[name] = lambda name=name: _run("-c", f"import {name}")
    found = record.take_turns(programs, 15)
    bare = found.pop("")
    record.row("Python itself", bare)
    for name, taken in found.items():
        beyond = [max(a - b, 1e-6) for a, b in zip(taken, bare, strict=True)]
        goal = IMPORTS.get(name)
        record.row(f"import {name}", beyond, target=("ours <=", goal) if goal else None)


def commands(record: Record) -> None:
    """Run a command that only has to say something, beside `pip --help`."""
    programs = {
        "minillm --help": lambda: _run("-m", "minillm", "--help"),
        "minillm flops gpt2": lambda: _run("-m", "minillm", "flops", "gpt2"),
        "pip --help": lambda: _run("-m", "pip", "--help"),
    }
    found = record.take_turns(programs, 9)
    theirs = found.pop("pip --help")
    for command, ours in found.items():
        record.row(command, ours, "pip --help", theirs)


def doctests(record: Record) -> None:
    """Run the doctests of chapters that need no PyTorch, as a reader would."""
    chapters = (
        ("accounting/shapes",)
        if record.quick
        else ("bpe", "tokenizer/tokenizer", "accounting/shapes")
    )
    for chapter in chapters:
        found = record.take_turns(
            {chapter: lambda: _run("-m", "doctest", f"minillm/{chapter}.py")}, 5, 0.5
        )
        record.row(f"python -m doctest minillm/{chapter}.py", found[chapter])


def site(record: Record) -> None:
    """Build the whole site, strictly."""
    if record.quick:
        record.not_measured("the site", "it takes too long for a quick look")
        return
    with tempfile.TemporaryDirectory() as folder:
        found = record.take_turns(
            {
                "site": lambda: _run(
                    *("-m", "mkdocs", "build", "--strict", "--quiet", "-d", folder),
                    NO_MKDOCS_2_WARNING="1",
                )
            },
            2,
        )
    record.row("mkdocs build --strict", found["site"], target=("ours <=", 10))


PARTS = {
    "imports": Part(imports, 30),
    "commands": Part(commands, 15),
    "doctests": Part(doctests, 15),
    "site": Part(site, 45),
}

if __name__ == "__main__":
    main("start", __doc__, PARTS)
