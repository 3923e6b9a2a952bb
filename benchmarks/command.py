"""The command of a benchmark, and the file that it keeps."""

import argparse
import inspect
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.measure import Part, Record
from minillm.files.writing import atomic_write

ROOT = Path(__file__).resolve().parent.parent
# What was measured, one file for each benchmark; the page of the site is made of it.
RESULTS = ROOT / "images" / "data" / "bench"
# Made by `make fixtures`.
SMOLLM2 = ROOT / ".cache" / "fixtures" / "SmolLM2-135M-Instruct.Q4_1.gguf"
# In the order of the page. The other modules help, or print something else than speed.
NAMES = (
    *("tokenizer", "model", "decoding", "gradients", "training", "sampling"),
    *("curation", "start"),
)


def run(
    name: str,
    parts: Mapping[str, Part],
    chosen: Sequence[str],
    out: Path | None,
    turns: int | None = None,
    quick: bool = False,
    cpu: bool = False,
) -> None:
    """Run parts of a benchmark, and write each into its file when it is done."""
    clock = time.process_time if cpu else time.perf_counter
    for part in chosen or parts:
        load, others = machine.load(), machine.others()
        if others is not None and others > machine.BUSY:
            print(f"the machine is busy: others use {others:.0%} of its cores")
        print(f"-- {name}, {part}", flush=True)
        record = Record(parts[part].seconds, turns, quick, clock)
        start, date = time.monotonic(), machine.now()
        with record.optional(part):
            parts[part].run(record)
        took = round(time.monotonic() - start, 1)
        print(f"   {took} s of {parts[part].seconds:.0f}", flush=True)
        if out is not None:
            about = inspect.getdoc(parts[part].run)
            entry: dict[str, Any] = {"about": about, "date": date, "seconds": took}
            entry |= {"load": load, "others": others}
            if cpu:
                entry["clock"] = "seconds of the processor, one thread"
            entry |= {"texts": record.texts, "rows": record.rows}
            keep(out / f"{name}.json", part, entry | {"missing": record.missing}, parts)


def keep(path: Path, part: str, entry: object, parts: Mapping[str, Part]) -> None:
    """Put a part into a file, beside the other parts that this machine measured."""
    torch = sys.modules.get("torch")
    found = {
        "machine": machine.describe(),
        "versions": machine.versions(),
        "threads": torch.get_num_threads() if torch else None,
    }
    kept: dict[str, Any] = {}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        # Figures of another machine, or of other versions, would not go with the new.
        if all(before[key] == found[key] for key in found):
            kept = before["parts"]
    kept[part] = entry
    found["parts"] = {name: kept[name] for name in parts if name in kept}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write((json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())


def main(name: str, doc: str, parts: Mapping[str, Part]) -> None:
    """The command of a benchmark: all its parts, or those that are named."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=doc.splitlines()[0]
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    add_options(parser)
    arguments = parser.parse_args()
    if unknown := [part for part in arguments.parts if part not in parts]:
        parser.error(f"there is no part {unknown[0]}: choose from {', '.join(parts)}")
    torch = sys.modules.get("torch")
    if torch and (arguments.cpu or arguments.quick):
        torch.set_num_threads(1)
    usual = None if arguments.quick or arguments.cpu or name not in NAMES else RESULTS
    run(
        *(name, parts, arguments.parts, arguments.out or usual),
        turns=arguments.turns,
        quick=arguments.quick,
        cpu=arguments.cpu,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that all benchmarks have."""
    parser.add_argument("--turns", type=int, help="how many rounds count")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="seconds instead of minutes, to see that it works; needs --out to be kept",
    )
    parser.add_argument("--cpu", action="store_true", help="one thread, its seconds")
    parser.add_argument(
        "--out", type=Path, help="where to keep (usual: images/data/bench)"
    )
