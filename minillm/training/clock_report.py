r"""The clock's report: what a step took beside what it should have taken.

**The question.** Each operation of a step has a measured time
([`minillm.training.clock`][]) and a predicted one ([`minillm.training.machine`][]).
Do the two agree, and in which part of the step do they not?

One operation says little, so all of a part are added up, and the parts are compared.
The norms below should have taken one second:

>>> machine = Machine(1e9, ((1e3, 1e9),), call=0)
>>> step = [
...     Operation("head", "mm", flops=9e9, n_bytes=8, seconds=10),
...     Operation("norms", "mul", flops=0, n_bytes=1e9, seconds=20),
... ]
>>> for part, _, _, _, seconds, predicted in by_part(step, machine):
...     print(part, seconds, predicted)
norms 20 1.0
head 10 9.0

`minillm clock` prints the report of your machine. `python -m
minillm.training.clock_report` writes that of the demo's step, which chapter and figure
show.
"""

import json
import platform
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from minillm.accounting.shapes import Architecture
from minillm.config import DEMO, ModelConfig
from minillm.training.clock import Operation, profile_step, step_time
from minillm.training.machine import Machine, measure_machine, predicted_seconds

__all__ = ["by_part", "clock_lines", "clock_rows", "report"]


def by_part(
    operations: Iterable[Operation], machine: Machine
) -> list[tuple[str, int, float, float, float, float]]:
    """Add up the operations of each part.

    Args:
        operations: of a step.
        machine: what was measured.

    Returns:
        For each part its name, how many operations it has, FLOPs, bytes, seconds, and
        the predicted seconds; the slowest part first.

    Examples:
        >>> machine = Machine(1e9, ((1e3, 1e9),), call=0)
        >>> step = [Operation("head", "mm", 9e9, 8, 10)]
        >>> step += [Operation("head", "t", 0, 0, 1)]
        >>> step += [Operation("norms", "mul", 0, 1e9, 20)]
        >>> by_part(step, machine)
        [('norms', 1, 0, 1000000000.0, 20, 1.0), ('head', 2, 9000000000.0, 8, 11, 9.0)]
    """
    parts: dict[str, list[Operation]] = {}
    for operation in operations:
        parts.setdefault(operation.part, []).append(operation)
    rows = [
        (
            part,
            len(own),
            sum(o.flops for o in own),
            sum(o.n_bytes for o in own),
            sum(o.seconds for o in own),
            sum(predicted_seconds(o, machine) for o in own),
        )
        for part, own in parts.items()
    ]
    return sorted(rows, key=lambda row: -row[4])


def report(
    config: ModelConfig | Architecture, batch_size: int, seq_len: int, tries: int = 50
) -> dict[str, Any]:
    """Measure machine and step, and set prediction beside measurement.

    Args:
        config: the shape of the model.
        batch_size: sequences in a batch.
        seq_len: tokens in each.
        tries: how many steps are profiled.

    Returns:
        `machine`, `threads`, `peak_flops`, `bandwidth`, `call`, the list `parts` (as
        `by_part` returns it), the list `points` (name, FLOPs, bytes and seconds of each
        kind of operation that takes a thousandth of the step or more), and the seconds
        of a step: `step`, `operations` (their sum) and `predicted`.

    Examples:
        >>> found = report(ModelConfig(8, 4, 8, 1, 2), 1, 4, tries=1)
        >>> found["predicted"] > 0, len(found["parts"]) > 8
        (True, True)
    """
    quick = tries < 10
    machine = measure_machine(0 if quick else 0.1)
    operations = profile_step(config, batch_size, seq_len, tries)
    whole = step_time(config, batch_size, seq_len, 0 if quick else 5.0)
    parts = by_part(operations, machine)
    kinds: dict[tuple[str, str], list[Operation]] = {}
    for o in operations:
        kinds.setdefault((o.part, o.name), []).append(o)
    total = sum(o.seconds for o in operations)
    points = [
        [
            f"{part}: {name}",
            *(statistics.fmean(column) for column in zip(*numbers, strict=True)),
        ]
        for (part, name), own in kinds.items()
        if (numbers := [o[2:] for o in own])
        and sum(o.seconds for o in own) > total / 1000
    ]
    return {
        "machine": _machine_name(),
        "threads": torch.get_num_threads(),
        **machine._asdict(),
        "parts": parts,
        "points": points,
        "step": whole,
        "operations": total,
        "predicted": sum(row[5] for row in parts),
    }


def clock_rows(found: dict[str, Any]) -> list[list[str]]:
    """Write what was measured as the cells of a table.

    Args:
        found: what `report` returned.

    Returns:
        A row of titles, one for each part, and one for the whole.

    Examples:
        >>> part = ["head", 13, 6e8, 1e7, 0.03, 0.02]
        >>> found = {"parts": [part], "operations": 0.03, "predicted": 0.02}
        >>> for row in clock_rows(found):
        ...     print(row)
        ['part of the step', 'operations', 'FLOPs', 'time', 'in ms', 'predicted']
        ['head', '13', '100%', '100%', '30.00', '20.00']
        ['all', '13', '100%', '100%', '30.00', '20.00']
    """
    parts = found["parts"]
    flops = sum(part[2] for part in parts)
    rows = [["part of the step", "operations", "FLOPs", "time", "in ms", "predicted"]]
    totals = [sum(column) for column in list(zip(*parts, strict=True))[1:]]
    for name, count, own, _, seconds, predicted in [*parts, ["all", *totals]]:
        rows.append([
            name,
            str(count),
            f"{own / flops:.0%}",
            f"{seconds / found['operations']:.0%}",
            f"{seconds * 1e3:.2f}",
            f"{predicted * 1e3:.2f}",
        ])
    return rows


def clock_lines(found: dict[str, Any]) -> list[str]:
    """Say what was measured of the machine and of the whole step.

    Args:
        found: what `report` returned.

    Returns:
        Four lines.

    Examples:
        >>> machine = {"machine": "CPU", "threads": 1, "peak_flops": 9e10, "call": 2e-6}
        >>> step = {"step": 0.05, "operations": 0.04, "predicted": 0.03}
        >>> bandwidth = [[1e6, 4e10], [16e6, 8e9]]
        >>> for line in clock_lines(machine | step | {"bandwidth": bandwidth}):
        ...     print(line)
        CPU, threads: 1.
        Peak 90 GFLOP/s; bandwidth 40 GB/s at best, 8 GB/s for 16 MB; 2.0 µs a call.
        Predicted: 30.0 ms. The operations took 40.0 ms: the prediction is off by -25%.
        The whole step took 50.0 ms; the rest is Python, and chance.
    """
    widths = [speed for _, speed in found["bandwidth"]]
    error = found["predicted"] / found["operations"] - 1
    return [
        f"{found['machine']}, threads: {found['threads']}.",
        f"Peak {found['peak_flops'] / 1e9:.0f} GFLOP/s; bandwidth "
        f"{max(widths) / 1e9:.0f} GB/s at best, {widths[-1] / 1e9:.0f} GB/s for "
        f"{found['bandwidth'][-1][0] / 1e6:.0f} MB; "
        f"{found['call'] * 1e6:.1f} µs a call.",
        f"Predicted: {found['predicted'] * 1e3:.1f} ms. The operations took "
        f"{found['operations'] * 1e3:.1f} ms: the prediction is off by {error:+.0%}.",
        f"The whole step took {found['step'] * 1e3:.1f} ms; the rest is Python, and "
        "chance.",
    ]


def main(folder: Path = Path("images/data")) -> None:
    """Measure the demo's step, and write what page and figure show.

    Args:
        folder: where to.
    """
    torch.set_num_threads(1)
    found = report(DEMO, 4, DEMO.context_length, tries=100)
    text = json.dumps(found, indent=1) + "\n"
    (folder / "clock.json").write_text(text, encoding="utf-8")
    titles, *rows = clock_rows(found)
    lines = [titles, ["---"] * len(titles), *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    said = " ".join(clock_lines(found))
    (folder / "clock.md").write_text(f"{table}\n{said}\n", encoding="utf-8")
    print(f"{table}\n{said}")


def _machine_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return text.split("model name\t: ")[1].split("\n")[0]
    except (OSError, IndexError):  # not Linux, or another processor
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
