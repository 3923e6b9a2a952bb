r"""The command `minillm clock`: where the time of a training step goes on this machine.

It prints what [`minillm.training.clock_report`][] measures.
"""

import json
from typing import Annotated, Any

import typer

__all__ = ["clock"]


def clock(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A name like gpt2, a run's folder, or a config.json."
        ),
    ] = "demo",
    batch: Annotated[int, typer.Option(min=1, help="Sequences in a batch.")] = 4,
    context: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens in each; by default all that it can read."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads; by default PyTorch's choice.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="How many steps are timed.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time every operation of a training step.

    A prediction stands beside it. For that, peak, bandwidth and the cost of a call are
    measured first. It takes half a minute.
    """
    import torch

    from minillm.cli.flops import read_shape
    from minillm.flops import aligned
    from minillm.training.clock_report import clock_lines, clock_rows, report

    shape = read_shape(model)
    length = context or shape.context_length
    _check_memory(model, shape, batch, length)
    if threads is not None:
        torch.set_num_threads(threads)
    found = report(shape, batch, length, steps)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(aligned(clock_rows(found)))
    print()
    print(*clock_lines(found), sep="\n")


def _check_memory(model: str, shape: Any, batch: int, length: int) -> None:
    from minillm.accounting.measure import machine_memory
    from minillm.accounting.memory import training_memory
    from minillm.flops import short

    needed, here = training_memory(shape, batch, length).total, machine_memory()
    if needed > here:
        raise ValueError(
            f"a step of {model} needs {short(needed)} bytes, and this machine has "
            f"{short(here)}: take a smaller --batch or --context, or another model"
        )
