"""The command `minillm tune`.

It brings [`minillm.runs.tune`][] to a terminal, as `minillm.cli.train` does for
`minillm train`.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from minillm.cli.generate import Device
from minillm.cli.train import Out, Resume, goes_on, launch, let_go, with_settings
from minillm.training.tuning import TUNE_TABLES, TuneConfig, usual

__all__ = ["tune"]


# The learning rate depends on what is learned, and how.
@with_settings(TUNE_TABLES, usual(False, TuneConfig().rank) | {"max_lr": None})
def tune(
    source: Annotated[
        str,
        typer.Argument(
            help="The model: a run, any Llama folder, a GGUF file, or a name on the "
            "hub."
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            help="A file of JSON lines: messages; or prompt, chosen, rejected."
        ),
    ],
    out: Out,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file with settings, like the tune.toml of a run."),
    ] = None,
    resume: Resume = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Go on although settings or chats have changed."),
    ] = False,
    device: Device = "auto",
    **options: Any,
) -> None:
    """Fine-tune a model on chats or preferences.

    A thin layer learns, or the whole model.

    A setting that is given here goes before the file, and the file before the default.
    Ctrl-C saves and ends; --resume goes on.
    """
    work = partial(_tune, source, data, out, resume, force)
    launch(work, device, config, options, TUNE_TABLES)


def _tune(
    source: str,
    data: Path,
    out: Path,
    wants_to_resume: bool,
    force: bool,
    given: dict[str, dict[str, Any]],
    device: str,
    console: Any,
) -> bool:
    """Start or resume a run and let it go; whether it came to its end."""
    from rich.text import Text

    from minillm.files.writing import check_free
    from minillm.runs.material import gather
    from minillm.runs.start import locked
    from minillm.runs.tune import begin, go_on
    from minillm.training.settings import read_toml

    exists, tuned = goes_on(out, device, wants_to_resume), given["tune"]
    if exists and (out / "tune.toml").is_file():
        tuned = read_toml(out / "tune.toml", TUNE_TABLES)["tune"] | tuned
    if not exists:
        check_free(out)  # before the model is read
    material = gather(source, data, TuneConfig(**tuned).validation)
    if exists:
        with locked(out):
            run = go_on(out, material, given, device=device, force=force)
            result = let_go(run, console, "", device)
    else:
        run = begin(out, material, given, device=device)
        with locked(out):
            result = let_go(run, console, "", device)
    if result:
        (before,) = result["baselines"].values()
        line = f"{result['unit']}, held out: {before:.3f} before, {result['loss']:.3f}"
        console.print(f"{line} at best")
        console.print(Text(f"kept in {out}: minillm chat {out}"))
    return result is not None
