r"""Starting a run, and resuming one.

**The question.** A folder exists. Is it a run to resume, one that must not be
overwritten, or one that another process is working on? And if it is resumed: is it
still the same training?

A new run appears under its name only when it is complete, with a checkpoint of step 0.
A resumed run takes its settings from its own files; settings that you give must agree
with them, or be forced. A lock keeps a second process away; the system releases it with
the process that holds it, so a crash leaves none behind.

**Before this:** [`minillm.runs.run`][].
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.corpus.prepare import Corpus
from minillm.files import writing as files
from minillm.hub import read_config
from minillm.model import TransformerLM
from minillm.runs.checks import check_memory
from minillm.runs.run import CHECKPOINTS, Run
from minillm.training.distributed import rank
from minillm.training.loop import Trainer
from minillm.training.settings import TrainConfig, differences, read_toml

__all__ = ["is_run", "locked", "resume", "start"]


def is_run(folder: str | PathLike[str]) -> bool:
    """Say whether a folder holds a run that can go on.

    Args:
        folder: the folder.

    Returns:
        Whether there is a checkpoint in it.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     is_run(folder)
        False
    """
    return any((Path(folder) / name).is_file() for name in CHECKPOINTS)


@contextmanager
def locked(folder: str | PathLike[str]) -> Generator[None, None, None]:
    """Keep other processes away from a run, for as long as the block runs.

    Args:
        folder: the run.

    Yields:
        Nothing. The system releases the lock with the process, however that ends.

    Raises:
        BlockingIOError: if another process trains in this folder.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(folder):
        ...     try:
        ...         with locked(folder):
        ...             pass
        ...     except BlockingIOError:
        ...         print("taken")
        taken
    """
    if rank():
        yield
        return
    with files.locked(folder, inside=True):
        yield


def start(
    folder: str | PathLike[str],
    corpus: Corpus,
    shape: ModelConfig,
    config: TrainConfig,
    *,
    device: str = "cpu",
) -> Run:
    """Begin a run, with everything in its folder that other programs need to load it.

    Args:
        folder: where to; it appears complete, with a checkpoint of step 0.
        corpus: the text.
        shape: the shape of the model.
        config: how to train.
        device: where to compute.

    Returns:
        The run.

    Raises:
        FileExistsError: if the folder exists and is not empty.
        ValueError: if the text does not fit the model, or the model the memory.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from minillm.bpe import BPETokenizer
        >>> from minillm.config import ModelConfig
        >>> from minillm.corpus.prepare import Corpus
        >>> from minillm.training.settings import TrainConfig
        >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 260)
        >>> ids = np.array(tokenizer.encode("the cat in the hat " * 9))
        >>> corpus = Corpus("a rhyme", ids, ids, tokenizer, 1)
        >>> config = TrainConfig(steps=2, warmup_steps=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     shape = ModelConfig(260, 8, 8, 1, 2)
        ...     run = start(Path(folder) / "run", corpus, shape, config)
        ...     is_run(run.folder), resume(run.folder, corpus, {}).trainer.done
        (True, 0)
    """
    check_memory(shape, config, device)
    torch.manual_seed(config.seed)
    model = TransformerLM(shape).to(device)
    run = Run(Path(folder), corpus, Trainer(model, corpus.training, config))
    create(run)
    return run


def resume(
    folder: str | PathLike[str],
    corpus: Corpus,
    given: Mapping[str, Mapping[str, Any]],
    *,
    device: str = "cpu",
    force: bool = False,
) -> Run:
    """Resume a run from its newest checkpoint.

    Args:
        folder: the run.
        corpus: the same text as before.
        given: settings that must be as they were; see
            [`read_toml`][minillm.training.settings.read_toml].
        device: where to compute.
        force: whether to go on although settings or text differ.

    Returns:
        The run.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if none is whole, the run has reached its last step, or something
            differs that must not.
    """
    folder = Path(folder)
    if (folder / "tune.toml").is_file():
        raise ValueError(
            f"{folder} holds a run of minillm tune: go on with it by that command"
        )
    shape, saved = read_config(folder), read_toml(folder / "train.toml")
    there = TrainConfig(**saved["train"])
    config = replace(there, **given.get("train", {}))
    wanted = replace(shape, **given.get("model", {}))
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    if (tokenizer.vocab, tokenizer.merges) != (
        corpus.tokenizer.vocab,
        corpus.tokenizer.merges,
    ):
        raise ValueError(
            f"{folder} has another tokenizer than the text, so the same ids mean other "
            "tokens: prepare the text with --tokenizer " + str(folder)
        )
    if changes := list(differences(shape, wanted)):
        raise ValueError(
            f"{folder} holds a model of another shape: {'; '.join(changes)}. That "
            "cannot be changed: start another run"
        )
    check_memory(shape, config, device)
    run = Run(
        folder,
        corpus,
        Trainer(TransformerLM(shape).to(device), corpus.training, config),
    )
    take_up(run, {"train": there}, force)
    return run


def create(run: Run) -> None:
    """Let the folder of a new run appear, with a checkpoint of step 0."""
    if rank():
        return
    folder, tables = run.folder, run.tables()
    tables.pop("model", None)  # it has a file of its own
    config = {k: v for table in tables.values() for k, v in asdict(table).items()}
    with files.atomic_folder(folder) as run.folder:
        run.keep()
        run.write_settings()
        run.log({"event": "config", **config})
        run.save("last.safetensors")
    run.folder = folder


def take_up(run: Run, there: Mapping[str, Any], force: bool) -> None:
    """Load the newest checkpoint, if the settings and the text are those of before."""
    texts, here = run.compare(run.load()["text"]), run.tables()
    changes = [d for name, was in there.items() for d in differences(was, here[name])]
    if (changes := changes + texts) and not force:
        raise ValueError(
            f"{run.folder} was {run.verb} differently: {'; '.join(changes)}. Leave it "
            "out to go on as before, or go on with what is new by --force"
        )
    done, steps = run.trainer.done, run.trainer.config.steps
    if done > steps or (done == steps and run.has_result()):
        raise ValueError(
            f"{run.folder} has reached its last step, {steps}: to go on, give more "
            "--steps, and --force"
        )
    if rank() == 0:
        run.write_settings()
        run.shorten_log()
