r"""The command `minillm`.

The course does not explain this module: it connects the chapters to a terminal through
the libraries `typer` and `rich`. Every mistake of a caller ends in one line that names
the remedy, and the exit code 2.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from minillm.cli import data as data_cli
from minillm.cli import exercises as exercises_cli
from minillm.cli import flops as flops_cli
from minillm.cli import generate as generate_cli
from minillm.cli import lab as lab_cli
from minillm.cli import lecture as lecture_cli
from minillm.cli import tokenizer as tokenizer_cli
from minillm.cli import train as train_cli

__all__ = ["app", "main"]

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
) -> None:
    """The course that runs: build a small language model from nothing."""


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
    seed: Annotated[int, typer.Option(help="Fixes the chance in training.")] = 0,
    text: Annotated[
        Path | None,
        typer.Option(help="A text file of your own; two blank lines divide documents."),
    ] = None,
) -> None:
    """Train on fairy tales and let the model write. It takes about three minutes."""
    from dataclasses import replace

    from rich.console import Console

    from minillm.data import read_documents
    from minillm.runs.demo import CONFIG, run_demo

    config = replace(CONFIG, seed=seed)
    if steps is not None:
        config = replace(
            config, steps=steps, warmup_steps=min(config.warmup_steps, steps // 10)
        )
    documents = None if text is None else read_documents(text)
    run_demo(out, config=config, documents=documents, prompt=prompt, console=Console())


for command in (flops_cli.flops, flops_cli.cost, flops_cli.disclose, lab_cli.lab):
    app.command()(command)
app.command()(generate_cli.generate)
app.command()(generate_cli.chat)
app.command()(train_cli.train)
app.add_typer(tokenizer_cli.app)
app.add_typer(data_cli.app)
app.command()(lecture_cli.lecture)
app.add_typer(exercises_cli.app, name="exercises")
