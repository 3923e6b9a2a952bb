r"""The command `minillm train`.

It brings [`minillm.runs.run`][] to a terminal. The options for settings are not written
here; they are made from the fields of
[`TrainConfig`][minillm.training.settings.TrainConfig] and
[`ModelConfig`][minillm.config.ModelConfig].
"""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minillm.training.settings import TABLES, Setting, read_toml, settings

if TYPE_CHECKING:
    from minillm.config import ModelConfig
    from minillm.corpus.prepare import Corpus

__all__ = ["train"]

# The exit code of a program that was interrupted, by custom.
INTERRUPTED = 130


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting; what is not given is `None`."""
    own = [*inspect.signature(command).parameters.values()][:-1]
    made = [
        inspect.Parameter(
            setting.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                setting.kind | None,
                typer.Option(help=_help(setting), rich_help_panel=f"Settings: {table}"),
            ],
        )
        for table, kind in TABLES.items()
        for setting in settings(kind)
    ]
    command.__signature__ = inspect.Signature([*own, *made])  # type: ignore[attr-defined]
    return command


def _help(setting: Setting) -> str:
    text = setting.help[:1].upper() + setting.help[1:].replace("$", "")
    if setting.default is None:
        return text
    default = setting.default
    words = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text.rstrip('.')} ({words})."


@_with_settings
def train(
    out: Annotated[Path, typer.Option(help="The folder for the run.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="What `minillm data prepare` has made; without it, the fairy tales."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file with settings, like the train.toml of a run."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run, if there is one."),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Go on although settings or text have changed."),
    ] = False,
    prompt: Annotated[str, typer.Option(help="How samples begin.")] = "",
    device: Annotated[
        str, typer.Option(help="Where to compute: auto, cpu, cuda or mps.")
    ] = "auto",
    **options: Any,
) -> None:
    """Train a model on a text, and keep it safe.

    A setting that is given here goes before the file, and the file before the default.
    Ctrl-C saves and ends; --resume goes on.
    """
    from rich.console import Console

    from minillm.corpus.prepare import embedded_corpus, load_corpus
    from minillm.runs.checks import pick_device
    from minillm.training.distributed import joined, rank

    given = _given(config, options)
    chosen = pick_device(device)
    corpus = embedded_corpus() if data is None else load_corpus(data)
    with joined(chosen) as own:
        console = Console(quiet=rank() != 0)
        finished = _train(out, corpus, given, own, console, prompt, resume, force)
    if not finished:
        sys.exit(INTERRUPTED)


def _given(config: Path | None, options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of the file, and over them those of the command line."""
    given: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
    if config is not None:
        given = read_toml(config)
    for table, kind in TABLES.items():
        for setting in settings(kind):
            if options.get(setting.name) is not None:
                given[table][setting.name] = options[setting.name]
    return given


def _train(
    out: Path,
    corpus: "Corpus",
    given: dict[str, dict[str, Any]],
    device: str,
    console: Any,
    prompt: str,
    wants_to_resume: bool,
    force: bool,
) -> bool:
    """Start or resume a run and let it go; whether it came to its end."""
    import torch
    from rich.text import Text

    from minillm.runs.start import is_run, locked, resume, start
    from minillm.training.distributed import any_rank, rank, was_restarted
    from minillm.training.settings import TrainConfig

    # Process 0 decides for all: when another looks, the folder may be there already.
    exists = any_rank(rank() == 0 and is_run(out), torch.device(device))
    if exists and not (wants_to_resume or was_restarted()):
        raise FileExistsError(
            f"{out} holds a run already: go on with it by --resume, or choose another "
            "--out"
        )
    if exists:
        with locked(out):
            run = resume(out, corpus, given, device=device, force=force)
            console.print(Text(f"going on with {out} after step {run.trainer.done}"))
            return _go(run, console, prompt, device)
    shape = _shape(corpus, given["model"])
    run = start(out, corpus, shape, TrainConfig(**given["train"]), device=device)
    with locked(out):
        return _go(run, console, prompt, device)


def _shape(corpus: "Corpus", given: dict[str, Any]) -> "ModelConfig":
    """The demo's shape where nothing is given; what follows from it follows anew."""
    from minillm.config import ModelConfig
    from minillm.runs.demo import SHAPE

    usual = {
        name: getattr(SHAPE, name)
        for name in (
            "context_length",
            "d_model",
            "n_layers",
            "n_heads",
            "tie_embeddings",
        )
    }
    return ModelConfig(vocab_size=corpus.tokenizer.vocab_size, **(usual | given))


def _go(run: Any, console: Any, prompt: str, device: str) -> bool:
    from rich.text import Text

    from minillm.training.distributed import rank

    result = run.go(console, prompt, device)
    if rank():
        return run.trainer.done == run.trainer.config.steps
    if result is None:
        line = f"interrupted: {run.folder} keeps step {run.saved}; go on with --resume"
        console.print(Text(line))
        return False
    for name, bits in result["baselines"].items():
        console.print(f"{name:>20}: {bits:.3f} bits per byte")
    console.print(f"{'the model':>20}: {result['bits_per_byte']:.3f} bits per byte")
    console.print(Text(f"kept in {run.folder}: minillm generate {run.folder}"))
    return True
