r"""A run: what a training leaves behind, and how it goes on after an interruption.

**The question.** A training of a week will be interrupted: by a power cut, a full disk,
a colleague, or a loss that diverges. What must be on the disk, and in which state, so
that no more than the last minutes are lost?

A run is a folder. From its first moment other programs can load it
([`minillm.hub`][]):

| file | what it holds |
| --- | --- |
| `config.json` | the shape of the model |
| `tokenizer.json`, `tokenizer_config.json` | the tokenizer |
| `model.safetensors` | the weights that did best on the validation text |
| `last.safetensors` | the newest checkpoint: weights, optimizer, random states, step |
| `best.safetensors` | the checkpoint that did best |
| `train.toml` | the settings |
| `log.jsonl` | one line for each step, and for each sample |
| `loss.svg` | the loss curve, drawn at the end |

Each is written under another name and then renamed ([`minillm.files.writing`][]), so
there is a whole checkpoint whenever the power fails. Resuming is *exact*: on a CPU, in
float32, sixty steps, a crash and forty more give the same weights as a hundred, to the
last bit. That takes more than the weights: both moments of AdamW, the state of the
random number generator that samples the batches, and the step, on which the learning
rate depends.

A run is started and resumed by `minillm train` ([`minillm.runs.start`][]), and by
torchrun on several machines ([`minillm.training.distributed`][]). Then process 0 alone
writes.
"""

import json
import math
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from minillm.accounting.measure import measure_peak_flops
from minillm.files.reading import read_lines
from minillm.files.writing import atomic_write
from minillm.flops import param_count, training_flops
from minillm.generate import stream_text
from minillm.hub import save_llama
from minillm.runs.checks import check_memory, judge_first_loss
from minillm.runs.display import SAMPLING, training_display
from minillm.runs.result import counting_losses, draw_loss, run_result
from minillm.training.batches import check_ids
from minillm.training.distributed import any_rank, rank, world_size
from minillm.training.loop import Progress, Trainer
from minillm.training.loss import bits_per_byte
from minillm.training.settings import to_toml

__all__ = ["CHECKPOINTS", "Run"]

CHECKPOINTS = ("last.safetensors", "best.safetensors")
"""The checkpoints of a run; the first that exists is the newest."""


class Run:
    """A run under way: a folder, a text, and a trainer.

    What is special about learning from a text is in the short methods at the end, which
    [`minillm.runs.tune`][] replaces.

    Args:
        folder: the folder.
        corpus: the text.
        trainer: what takes the steps.

    Attributes:
        settings: the file of its settings.
        verb: what was done to the model, for messages.
        folder: the folder.
        trainer: what takes the steps.
        best: the lowest loss on the validation text, in nats per token.
        saved: of which step the newest checkpoint is.

    Raises:
        ValueError: if the validation text has an id that the model does not know.
    """

    settings, verb = "train.toml", "trained"

    def __init__(self, folder: Path, corpus: Any, trainer: Trainer) -> None:
        self.folder, self.corpus, self.trainer = folder, corpus, trainer
        self.best, self.saved = math.inf, 0
        self.prepare()

    def text(self) -> list[Any]:
        """What identifies the text: its name and the sizes of its parts."""
        corpus = self.corpus
        return [corpus.name, len(corpus.training), len(corpus.validation)]

    def compare(self, there: list[Any]) -> list[str]:
        """Say how the text of a checkpoint differs from this one, if it does."""
        here = self.text()
        return [f"the text is {there} there, {here} here"] * (there != here)

    def write_settings(self) -> None:
        """Write down how the model is trained."""
        with atomic_write(self.folder / self.settings) as file:
            file.write(to_toml(self.tables()).encode())

    def save(self, name: str) -> None:
        """Write a checkpoint.

        Args:
            name: of the file.

        Raises:
            OSError: if it cannot be written. The file that was there before is.
        """
        # JSON has no infinity.
        best = None if math.isinf(self.best) else self.best
        try:
            self.trainer.save(self.folder / name, best=best, text=self.text())
        except OSError as error:
            raise OSError(
                f"{self.folder / name} could not be written ({error.strerror}); the "
                f"checkpoint of step {self.saved} is still whole: make room, and go on "
                "with --resume"
            ) from error
        self.saved = self.trainer.done

    def load(self) -> dict[str, Any]:
        """Load the newest checkpoint.

        Returns:
            What was kept beside model and optimizer.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is not whole. The message names one that may be.
        """
        paths = [self.folder / name for name in CHECKPOINTS]
        paths = [path for path in paths if path.is_file()]
        if not paths:
            raise FileNotFoundError(
                f"{self.folder} has no checkpoint, neither {CHECKPOINTS[0]} nor "
                f"{CHECKPOINTS[1]}: copy one into it, or start another run"
            )
        newest, *older = paths
        try:
            extra = self.trainer.load(newest)
        except ValueError as error:
            advice = f": remove it to go on from {older[0].name}" if older else ""
            raise ValueError(f"{error}{advice}") from error
        self.saved = self.trainer.done
        self.best = math.inf if extra["best"] is None else extra["best"]
        return extra

    def log(self, event: Mapping[str, Any]) -> None:
        """Append a line to the log.

        Args:
            event: what happened.
        """
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Read the log, without a last line that was not written to its end."""
        return read_lines(self.folder / "log.jsonl", torn=True)

    def has_result(self) -> bool:
        """Say whether the run came to its end, and not only to its last step."""
        return any(event["event"] == "result" for event in self.read_log())

    def shorten_log(self) -> None:
        """Take out what happened after the checkpoint; it will happen again."""
        kept = [
            json.dumps(event) + "\n"
            for event in self.read_log()
            if event["event"] != "result" and _step(event) <= self.saved
        ]
        with atomic_write(self.folder / "log.jsonl") as file:
            file.write("".join(kept).encode())

    def go(
        self, console: Console, prompt: str = "", device: str = "cpu"
    ) -> dict[str, Any] | None:
        """Take the steps that are left.

        Args:
            console: where to show what happens.
            prompt: how samples begin.
            device: the device of this process.

        Returns:
            The result, as it stands in the log; `None` if the user has interrupted.

        Raises:
            FloatingPointError: if the loss is not finite, or has risen. The message
                names the step, and the checkpoints that are left.
        """
        trainer, config = self.trainer, self.trainer.config
        console.print(Text(self.memory(device)))
        dtype = torch.float32 if config.dtype == "float32" else torch.bfloat16
        peak = world_size() * measure_peak_flops(dtype=dtype, device=device)
        n_tokens, flops = self.work()
        with (
            training_display(console, config.steps, n_tokens, flops, peak) as show,
            _interruptible() as interrupted,
        ):
            try:
                for progress in trainer.run(self.corpus.validation):
                    show(progress)
                    self._record(progress, console, prompt)
                    done = progress.step == config.steps
                    if not done and any_rank(interrupted(), trainer.device):
                        if rank() == 0 and self.saved < progress.step:
                            self.save("last.safetensors")
                        return None
            except FloatingPointError as error:
                raise FloatingPointError(
                    f"{error}. {self.folder} keeps {self._kept()}: go on from there "
                    "with --resume, a lower --max-lr and --force"
                ) from error
        if rank():
            return None
        return self._finish(peak, console)

    def _kept(self) -> str:
        """Name the checkpoints that are left."""
        newest = f"last.safetensors, of step {self.saved}"
        if math.isinf(self.best):
            return newest
        return f"{newest}, and best.safetensors, of validation loss {self.best:.3f}"

    def _record(self, progress: Progress, console: Console, prompt: str) -> None:
        """Log a step; after an evaluation, write a sample and a checkpoint."""
        if rank():
            return
        if progress.step == 1:
            good, sentence = self.judge(progress.loss)
            if not good:
                sentence = f"warning: {sentence}"
            console.print(Text(sentence, style="" if good else "bold red"))
        self.log({"event": "step", **asdict(progress)})
        loss = progress.validation_loss
        if loss is None:
            return
        console.print(f"step {progress.step}: {self.describe(loss)}")
        sample = self.write(prompt)
        console.print(Text(sample, style="dim"))
        self.log({"event": "sample", "step": progress.step, "text": sample})
        if loss < self.best:
            self.best = loss
            self.keep()
            self.save("best.safetensors")
        # The last file to be written is the first that is read.
        self.save("last.safetensors")

    def _finish(self, peak: float, console: Console) -> dict[str, Any]:
        """Log the result, and draw the loss curve."""
        result = self.result(peak)
        draw_loss([*self.read_log(), result], self.folder, console)
        # The result comes last: a log that has it belongs to a run that is complete.
        self.log(result)
        return result

    def prepare(self) -> None:
        """Find out what each evaluation reads, and how many bytes of text that is."""
        self.evaluated = self.corpus.validation[: self.trainer.config.eval_tokens]
        check_ids(np.asarray(self.evaluated), self.trainer.model.config.vocab_size)
        self.n_bytes = self.corpus.n_bytes(self.evaluated[1:])

    def tables(self) -> dict[str, Any]:
        """The settings by the table in which they stand."""
        return {"model": self.trainer.model.config, "train": self.trainer.config}

    def memory(self, device: str) -> str:
        """Say how large the model is and what a step needs; refuse what cannot fit."""
        shape = self.trainer.model.config
        sentence = check_memory(shape, self.trainer.config, device)
        return f"{param_count(shape).total:,} weights; {sentence}"

    def work(self) -> tuple[float, float]:
        """How many tokens a step reads, and how many FLOPs it takes."""
        shape, size = self.trainer.model.config, self.trainer.config.batch_size
        flops = training_flops(shape, size, shape.context_length)
        return size * shape.context_length, flops

    def judge(self, loss: float) -> tuple[bool, str]:
        """Say whether the loss of the first step is what it should be."""
        return judge_first_loss(loss, self.trainer.model.config.vocab_size)

    def describe(self, loss: float) -> str:
        """Say what an evaluation has found."""
        bits = bits_per_byte(loss, len(self.evaluated) - 1, self.n_bytes)
        return f"{loss:.3f} nats per token, {bits:.3f} bits per byte on held-out text"

    def write(self, prompt: str) -> str:
        """Let the model write."""
        model, tokenizer = self.trainer.model, self.corpus.tokenizer
        new = stream_text(model, tokenizer, prompt, 40, **SAMPLING, seed=0)
        return prompt + "".join(new)

    def keep(self) -> None:
        """Write the model down as others read it."""
        save_llama(self.trainer.model, self.folder, self.corpus.tokenizer)

    def result(self, peak: float) -> dict[str, Any]:
        """Put together what the log shall end with."""
        shape, config = self.trainer.model.config, self.trainer.config
        return run_result(
            shape,
            config,
            loss=self.best,
            counted=counting_losses(
                self.corpus.training, self.evaluated, shape.vocab_size
            ),
            n_tokens=len(self.evaluated) - 1,
            n_bytes=self.n_bytes,
            corpus=self.corpus.name,
            documents=self.corpus.documents,
            construction="a validation text held out; byte-pair encoding",
            device=self.trainer.device.type,
            processes=world_size(),
            seconds=self.trainer.seconds,
            peak_flops=peak,
        )


def _step(event: Mapping[str, Any]) -> float:
    """The step of a line of the log; a line without one precedes the first."""
    step = event.get("step", 0)
    return step if isinstance(step, int | float) else math.inf


@contextmanager
def _interruptible() -> Generator[Callable[[], bool], None, None]:
    """Turn Ctrl-C into a question that is asked between two steps."""
    pressed = 0

    def handler(signum: int, frame: Any) -> None:
        nonlocal pressed
        pressed += 1
        # Pressed twice, it ends the process at once. torchrun passes it on, so each of
        # its processes sees it twice.
        if pressed > 1 and world_size() == 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: pressed > 0
    finally:
        signal.signal(signal.SIGINT, before)
