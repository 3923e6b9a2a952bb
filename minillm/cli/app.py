r"""The command `minillm`.

It connects the chapters to a terminal through the libraries `typer` and `rich`. Every
mistake of a caller ends in one line that names the remedy, and the exit code 2. To see
where an error comes from, `minillm --debug COMMAND` shows its traceback before that
line; so does the environment variable `MINILLM_DEBUG=1`.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from minillm.cli import clock as clock_cli
from minillm.cli import data as data_cli
from minillm.cli import evaluate as evaluate_cli
from minillm.cli import exercises as exercises_cli
from minillm.cli import flops as flops_cli
from minillm.cli import generate as generate_cli
from minillm.cli import lab as lab_cli
from minillm.cli import lecture as lecture_cli
from minillm.cli import notebook as notebook_cli
from minillm.cli import tokenizer as tokenizer_cli
from minillm.cli import train as train_cli
from minillm.cli import tune as tune_cli

__all__ = ["app", "main"]

# The variable reaches the processes that a command starts, too.
DEBUG = "MINILLM_DEBUG"

app = typer.Typer(
    name="minillm",
    help="The course that runs: build a small language model from nothing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line, and turn errors into one line and exit code 2."""
    # A Windows console may not know the characters that a model writes; and what is
    # typed may be no characters in the encoding of the terminal.
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if os.environ.get(DEBUG, "0") not in {"", "0"}:
            traceback.print_exc()
        print(f"error: {_one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None


def _one_line(error: Exception) -> str:
    # Errors of the operating system begin with a number that helps nobody.
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file'}: {error.strerror}"
    return " ".join(str(error).split())


def _version(wanted: bool) -> bool:
    if wanted:
        from minillm import __version__

        print(f"minillm {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """The course that runs: build a small language model from nothing."""
    if debug:
        os.environ[DEBUG] = "1"


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder for the run.")] = Path(
        "runs/demo"
    ),
    prompt: Annotated[str, typer.Option(help="How the sample begins.")] = (
        "Once upon a time"
    ),
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; fewer are faster.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Fixes the initial weights and the batches.")
    ] = 0,
    text: Annotated[
        Path | None,
        typer.Option(help="A text file of your own; two blank lines divide documents."),
    ] = None,
) -> None:
    """Train on fairy tales and let the model write. It takes about three minutes."""
    from rich.console import Console

    from minillm.data import read_documents
    from minillm.runs.demo import CONFIG, run_demo
    from minillm.training.settings import TrainConfig

    config = TrainConfig(steps=CONFIG.steps if steps is None else steps, seed=seed)
    documents = None if text is None else read_documents(text)
    run_demo(out, config=config, documents=documents, prompt=prompt, console=Console())


for command in (flops_cli.flops, flops_cli.cost, flops_cli.disclose, clock_cli.clock):
    app.command()(command)
app.command()(lab_cli.lab)
app.command()(generate_cli.generate)
app.command()(generate_cli.chat)
app.command()(evaluate_cli.evaluate)
app.command()(train_cli.train)
app.command()(tune_cli.tune)
app.add_typer(tokenizer_cli.app)
app.add_typer(data_cli.app)
app.command()(lecture_cli.lecture)
app.command()(notebook_cli.notebook)
app.add_typer(exercises_cli.app, name="exercises")
