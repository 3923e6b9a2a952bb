"""Run all benchmarks, or those that are named."""

import argparse
import os
import subprocess
import sys
import time

from benchmarks.command import NAMES, ROOT, add_options

# If a benchmark does not keep to its time, it is ended; what it has measured is kept.
# At most so many seconds each, ten minutes in all; on a quiet machine it takes half.
LIMITS = {
    "tokenizer": 190,
    "model": 140,
    "decoding": 80,
    "gradients": 15,
    "training": 65,
    "sampling": 15,
    "curation": 55,
    "start": 40,
}


def main() -> None:
    """Start each benchmark in a process of its own, so that none warms up another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    add_options(parser)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in NAMES]:
        parser.error(f"there is no benchmark {unknown[0]}: choose from {NAMES}")
    options = [
        *(["--quick"] if arguments.quick else []),
        *(["--cpu"] if arguments.cpu else []),
        *(["--turns", str(arguments.turns)] if arguments.turns else []),
        *(["--out", str(arguments.out.resolve())] if arguments.out else []),
    ]
    start, failed = time.monotonic(), []
    for name in arguments.names or NAMES:
        begun = time.monotonic()
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        try:
            # Two pools of threads in one process, NumPy's and PyTorch's, hinder each
            # other, so there is one thread for either.
            more = {"OMP_NUM_THREADS": "1"} if name == "gradients" else {}
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | more,
                check=False,
                timeout=LIMITS[name],
            )
            if done.returncode:
                failed.append(f"{name} ended with code {done.returncode}")
        except subprocess.TimeoutExpired:
            failed.append(f"{name} took longer than {LIMITS[name]} s and was ended")
        print(f"== {name}: {time.monotonic() - begun:.0f} s", flush=True)
    print(f"== all: {time.monotonic() - start:.0f} s")
    if failed:
        sys.exit("; ".join(failed))


if __name__ == "__main__":
    main()
