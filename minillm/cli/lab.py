r"""The command `minillm lab`: repeat an experiment of [`minillm.emergence`][].

It passes the arguments to [`minillm.labs.bench`][].
"""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["lab"]


def lab(
    name: Annotated[
        str,
        typer.Argument(
            help="context, curation, digits, forgetting, optimizers, posttraining or "
            "scaling."
        ),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="A reduced version, of a few minutes.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="The file of results; what it has is not done again."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE changes a number in all configurations."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Leave out models whose training takes more FLOPs."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; by default one for each core.")
    ] = None,
) -> None:
    """Find out when an ability appears. Many little models are trained for it."""
    import os

    from rich.console import Console

    from minillm.emergence import LABS
    from minillm.labs import forgetting, optimizers, posttraining
    from minillm.labs.bench import change, run_lab

    after = (forgetting.LAB, optimizers.LAB, posttraining.LAB)
    labs = LABS | {lab.name: lab for lab in after}
    if name not in labs:
        raise ValueError(f"no lab {name!r}: there are {', '.join(labs)}")
    chosen = labs[name]
    points = chosen.points(quick)
    for setting in settings or []:
        points = change(points, setting)
    if out is None:
        out = Path("runs/labs") / f"{name}{'-quick' if quick else ''}.json"
    results = run_lab(
        chosen,
        points,
        out,
        workers=(os.cpu_count() or 1) if workers is None else workers,
        budget=budget,
        console=Console(stderr=True),
    )
    try:
        report = chosen.report(results)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{out} holds a result that cannot be reported ({error!r:.80}): name "
            "another file"
        ) from error
    print(report)
    print(f"kept in {out}; to continue a run that was stopped, start it again")
