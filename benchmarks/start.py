"""How long until something happens: an import, a command, the site?

python -m benchmarks.start [PART ...] [--turns N] [--quick]
"""

import os
import subprocess
import sys
import tempfile
from functools import partial

from benchmarks.command import ROOT, main
from benchmarks.measure import Part, Record


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


def commands(record: Record) -> None:
    """Import the tokenizer; Python's own start is not counted."""
    programs = {
        "python": ("-c", "pass"),
        "import": ("-c", "import minillm.bpe"),
    }
    found = record.take_turns(
        {name: partial(_run, *command) for name, command in programs.items()}, 9
    )
    both = zip(found["import"], found["python"], strict=True)
    beyond = [max(a - b, 1e-6) for a, b in both]
    record.row("import minillm.bpe", beyond, target=("ours <=", 0.15))


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
            *(2, 1, 0),
        )
    record.row("mkdocs build --strict", found["site"], target=("ours <=", 10))


PARTS = {"commands": Part(commands, 8), "site": Part(site, 25)}

if __name__ == "__main__":
    main("start", __doc__, PARTS)
