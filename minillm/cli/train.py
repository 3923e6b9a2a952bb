r"""The command `minillm train`.

It brings [`minillm.runs.run`][] to a terminal. The options for settings are not written
here; they are made from the fields of
[`TrainConfig`][minillm.training.settings.TrainConfig] and
[`ModelConfig`][minillm.config.ModelConfig].
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minillm.cli.generate import Device
from minillm.training.settings import TABLES, Setting, read_toml, settings

if TYPE_CHECKING:
    from minillm.config import ModelConfig
    from minillm.corpus.prepare import Corpus

__all__ = ["train"]

# The exit code of a program that was interrupted, by custom.
INTERRUPTED = 130

Out = Annotated[Path, typer.Option(help="The folder for the run.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run, if there is one.")
]


def with_settings(
    tables: Mapping[str, type], usual: Mapping[str, Any] = MappingProxyType({})
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting; what is not given is `None`.

    Args:
        tables: dataclasses of settings by the table in which they stand.
        usual: defaults to show where those of the dataclass do not hold; `None` for
            one that depends on something.

    Returns:
        A decorator for a command that takes any options.
    """

    def decorate(command: Any) -> Any:
        own = [*inspect.signature(command).parameters.values()][:-1]
        made = [
            inspect.Parameter(
                setting.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    setting.kind | None,
                    typer.Option(
                        help=_help(setting, usual.get(setting.name, setting.default)),
                        rich_help_panel=f"Settings: {table}",
                    ),
                ],
            )
            for table, kind in tables.items()
            for setting in settings(kind)
        ]
        command.__signature__ = inspect.Signature([*own, *made])
        return command

    return decorate


def _help(setting: Setting, default: Any) -> str:
    text = setting.help[:1].upper() + setting.help[1:].replace("$", "")
    if default is None:
        return text
    words = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text.rstrip('.')} ({words})."


@with_settings(TABLES)
def train(
    out: Out,
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
    resume: Resume = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Go on although settings or text have changed."),
    ] = False,
    prompt: Annotated[str, typer.Option(help="How samples begin.")] = "",
    device: Device = "auto",
    **options: Any,
) -> None:
    """Train a model on a text, and keep it safe.

    A setting that is given here goes before the file, and the file before the default.
    Ctrl-C saves and ends; --resume goes on.
    """
    work = partial(_train, out, data, prompt, resume, force)
    launch(work, device, config, options, TABLES)


def launch(
    work: Callable[[dict[str, dict[str, Any]], str, Any], bool],
    device: str,
    config: Path | None,
    options: dict[str, Any],
    tables: Mapping[str, type],
) -> None:
    """Let each process of torchrun work by what is given, on a device of its own."""
    from rich.console import Console

    from minillm.runs.checks import pick_device
    from minillm.training.distributed import joined, rank

    given = read_given(config, options, tables)
    with joined(pick_device(device)) as own:
        finished = work(given, own, Console(quiet=rank() != 0))
    if not finished:
        sys.exit(INTERRUPTED)


def read_given(
    config: Path | None, options: dict[str, Any], tables: Mapping[str, type]
) -> dict[str, dict[str, Any]]:
    """Read the settings of a file, and over them those of the command line.

    Args:
        config: the file, if there is one.
        options: the options of the command.
        tables: dataclasses of settings by the table in which they stand.

    Returns:
        What was given, by table.
    """
    given: dict[str, dict[str, Any]] = {table: {} for table in tables}
    if config is not None:
        given = read_toml(config, tables)
    for table, kind in tables.items():
        for setting in settings(kind):
            if options.get(setting.name) is not None:
                given[table][setting.name] = options[setting.name]
    return given


def goes_on(out: Path, device: str, wants_to_resume: bool) -> bool:
    """Find out whether there is a run to go on with, alike for all processes.

    Args:
        out: its folder.
        device: where this process computes.
        wants_to_resume: whether the user has said so.

    Returns:
        Whether there is one.

    Raises:
        FileExistsError: if there is one, and the user has not said so.
    """
    import torch

    from minillm.runs.start import is_run
    from minillm.training.distributed import any_rank, rank, was_restarted

    # Process 0 decides for all: when another looks, the folder may be there already.
    exists = any_rank(rank() == 0 and is_run(out), torch.device(device))
    if exists and not (wants_to_resume or was_restarted()):
        raise FileExistsError(
            f"{out} holds a run already: go on with it by --resume, or choose another "
            "--out"
        )
    return exists


def let_go(run: Any, console: Any, prompt: str, device: str) -> dict[str, Any] | None:
    """Take the steps that are left, and say so if the user has interrupted.

    Args:
        run: the run.
        console: where to say it.
        prompt: how samples begin.
        device: where this process computes.

    Returns:
        The result, empty in other processes than the first; `None` if the run has not
        come to its end.
    """
    from rich.text import Text

    from minillm.training.distributed import rank

    if run.trainer.done:
        console.print(Text(f"going on with {run.folder} after step {run.trainer.done}"))
    result = run.go(console, prompt, device)
    if rank():
        return {} if run.trainer.done == run.trainer.config.steps else None
    if result is None:
        line = f"interrupted: {run.folder} keeps step {run.saved}; go on with --resume"
        console.print(Text(line))
    return result


def _train(
    out: Path,
    data: Path | None,
    prompt: str,
    wants_to_resume: bool,
    force: bool,
    given: dict[str, dict[str, Any]],
    device: str,
    console: Any,
) -> bool:
    """Start or resume a run and let it go; whether it came to its end."""
    from minillm.corpus.prepare import embedded_corpus, load_corpus
    from minillm.runs.start import locked, resume, start
    from minillm.training.settings import TrainConfig

    corpus = embedded_corpus() if data is None else load_corpus(data)
    if goes_on(out, device, wants_to_resume):
        with locked(out):
            run = resume(out, corpus, given, device=device, force=force)
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

    result = let_go(run, console, prompt, device)
    if not result:
        return result is not None
    for name, bits in result["baselines"].items():
        console.print(f"{name:>20}: {bits:.3f} bits per byte")
    console.print(f"{'the model':>20}: {result['bits_per_byte']:.3f} bits per byte")
    console.print(Text(f"kept in {run.folder}: minillm generate {run.folder}"))
    return True
