"""The tokenizers of others, each in a process of its own with its own packages.

Two versions of one package do not fit beside each other, so `make fixtures` puts each
program into a folder, and `tests/tokenizer/crossings.py` knows how it is started.
"""

import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import of_tests

# For each line that it reads, it loads the tokenizer anew and encodes every text once.
# It answers with the seconds of each text and a digest, of the ids if the line says so.
PROGRAM = """
import hashlib, sys, time
from array import array
texts = [open(path, encoding="utf-8", newline="").read() for path in sys.argv[2:]]
for line in sys.stdin:
    names = dict(sys=sys)
    exec({load!r}, names)
    answer, digest = [], hashlib.sha256()
    for text in texts:
        start = time.perf_counter()
        ids = names["encode"](text)
        answer.append(time.perf_counter() - start)
        if line.strip() == "ids":
            digest.update(array("I", map(int, ids)).tobytes())
    print(*answer, digest.hexdigest(), flush=True)
"""
NAMES = ("tokenizers", "tokenizers 1.0", "tokie", "fastokens", "gigatoken")


def named(name: str) -> str:
    """A program with its version.

    Raises:
        FileNotFoundError: if it is not there.
    """
    version = of_tests("crossings").version(name)
    if version is None:
        raise FileNotFoundError(f"{name} is missing: `make fixtures` installs it")
    return f"{name.split()[0]} {version}"


@contextmanager
def running(
    name: str, tokenizer: Path, *texts: Path
) -> Generator[Callable[[str], list[str]], None, None]:
    """Start a program, and yield what asks it to encode: "go", or "ids" for the ids."""
    files = [str(path) for path in (tokenizer, *texts)]
    command, environment = of_tests("crossings").started(name, PROGRAM, *files)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdin=pipe, stdout=pipe, text=True, encoding="utf-8"
    ) as child:

        def ask(line: str) -> list[str]:
            assert child.stdin
            assert child.stdout
            print(line, file=child.stdin, flush=True)
            if not (answer := child.stdout.readline()):
                raise RuntimeError(f"{name} has ended")
            return answer.split()

        yield ask
