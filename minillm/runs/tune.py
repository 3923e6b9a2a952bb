r"""A fine-tuning as a run: from a model and a file to a folder that can be talked to.

**The question.** `minillm train` promises that no more than minutes are lost, and that
a resumed run ends with the same bits. What has to be added for a run that begins with a
model of others and a file of chats?

Nothing in the loop ([`minillm.runs.run`][]); only what is kept, and what has to be the
same when it goes on. With thin layers, the folder holds them alone:

| file | what it holds |
| --- | --- |
| `adapter_config.json`, `adapter_model.safetensors` | the adapter that did best |
| `chat_template.jinja` | the form of a chat, if the model had none |
| `last.safetensors`, `best.safetensors` | checkpoints of the thin layers |
| `tune.toml`, `log.jsonl`, `loss.svg` | as of any run |

If all weights learn, it is a Llama folder as any run is. A checkpoint says by a hash
which weights it began with and which chats it has read. Without the first the thin
layers mean nothing, and other weights are refused; other chats can be forced.

**Before this:** [`minillm.training.tuner`][], [`minillm.files.adapters`][],
[`minillm.runs.material`][].
"""

import platform
from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from minillm.files import writing as files
from minillm.files.adapters import save_adapter
from minillm.files.opening import is_adapter
from minillm.flops import forward_flops, param_count, training_flops
from minillm.generate import stream_text
from minillm.hub import save_llama
from minillm.inference.chat import turn_ends
from minillm.runs.checks import check_memory, judge_tuning
from minillm.runs.display import SAMPLING
from minillm.runs.material import Material
from minillm.runs.run import Run
from minillm.runs.start import create, take_up
from minillm.training.distributed import rank, world_size
from minillm.training.lora import add_lora, lora_weights, without_lora
from minillm.training.settings import TrainConfig, differences, read_toml
from minillm.training.tuner import Tuner
from minillm.training.tuning import TUNE_TABLES, TuneConfig, usual

__all__ = ["TuneRun", "begin", "go_on"]


class TuneRun(Run):
    """Same as [`Run`][minillm.runs.run.Run]; unlike it, of a model and its chats.

    Args:
        folder: the folder.
        corpus: the material.
        trainer: what takes the steps.
        tune: how the model is tuned.
    """

    settings, verb = "tune.toml", "tuned"
    corpus: Material

    def __init__(
        self, folder: Path, corpus: Material, trainer: Tuner, tune: TuneConfig
    ) -> None:
        self.tune = tune
        super().__init__(folder, corpus, trainer)

    def text(self) -> list[Any]:
        """What identifies the material: the file, a hash of its chats, the model."""
        m = self.corpus
        return [m.name, len(m.training), len(m.validation), m.digest, m.made_for]

    def compare(self, there: list[Any]) -> list[str]:
        """Say how the chats of a checkpoint differ; refuse one of another model."""
        *there, made_for = there
        *here, own = self.text()
        if made_for != own:
            raise ValueError(
                f"{self.folder} was tuned from another model than {self.corpus.base}: "
                "name the one whose weights it began with"
            )
        return [f"the chats are {there} there, {here} here"] * (there != here)

    def prepare(self) -> None:
        """Refuse held-out items that cannot be read."""
        self.trainer.check(self.corpus.validation)

    def tables(self) -> dict[str, Any]:
        """The settings by the table in which they stand."""
        return {"train": self.trainer.config, "tune": self.tune}

    def go(
        self, console: Console, prompt: str = "", device: str = "cpu"
    ) -> dict[str, Any] | None:
        """Evaluate the model as it is, unless that was done; then take the steps.

        Args:
            console: where to show what happens.
            prompt: not used: samples answer the first held-out prompt.
            device: the device of this process.

        Returns:
            As [`Run.go`][minillm.runs.run.Run.go].
        """
        m = self.corpus
        console.print(
            f"{len(m.training):,} to learn from, {len(m.validation):,} held out, of up "
            f"to {m.longest} tokens"
        )
        if not rank() and self.before is None:  # the log is that of rank 0
            loss = self.trainer.evaluate(self.trainer.some(m.validation))
            self.log({"event": "before", "loss": loss})
            console.print(f"before: {self.describe(loss)}")
            console.print(Text(self.write(""), style="dim"))
        return super().go(console, prompt, device)

    @property
    def before(self) -> float | None:
        """The loss of the model as it was, once it is known."""
        found = [e["loss"] for e in self.read_log() if e["event"] == "before"]
        return found[0] if found else None

    def memory(self, device: str) -> str:
        """Say how large the model is and what a step needs; refuse what cannot fit."""
        return _memory(self.corpus, self.trainer.config, self.tune, device)

    def work(self) -> tuple[float, float]:
        """How many tokens a step reads, and about how many FLOPs it takes."""
        m, shape = self.corpus, self.trainer.model.config
        n = self.trainer.config.batch_size * (1 + m.preferences)
        lengths = [len(e.ids) - 1 for item in m.training for e in item]
        mean = max(1, round(sum(lengths) / len(lengths)))
        flops = float(training_flops(shape, n, mean))
        if self.tune.rank:
            flops *= 2 / 3  # no gradient of the weights that stay
        if m.preferences:
            flops += forward_flops(shape, n, mean).total  # of the reference
        return n * mean, flops

    def judge(self, loss: float) -> tuple[bool, str]:
        """Say whether the loss of the first step is what it should be."""
        vocab_size = self.trainer.model.config.vocab_size
        return judge_tuning(loss, vocab_size, self.corpus.preferences)

    def describe(self, loss: float) -> str:
        """Say what an evaluation has found."""
        return f"{loss:.3f} {self._unit()}, held out"

    def _unit(self) -> str:
        preferences = self.corpus.preferences
        return "nats per preference" if preferences else "nats per token of an answer"

    def write(self, prompt: str) -> str:
        """Let the model answer the first held-out prompt."""
        m, example = self.corpus, self.corpus.validation[0][0]
        ids = example.ids[: example.mask.argmax()].tolist()
        ids = ids[-self.trainer.model.config.context_length :]
        new = stream_text(
            self.trainer.model,
            m.tokenizer,
            ids,
            40,
            **SAMPLING,
            seed=0,
            stop_ids=turn_ends(m.tokenizer),
        )
        return f"{m.question}\n{''.join(new)}"

    def keep(self) -> None:
        """Write the adapter, or the whole model."""
        m, model = self.corpus, self.trainer.model
        if self.tune.rank:
            save_adapter(model, self.folder, m.base, m.made_for)
            if m.template is not None and not m.own_form:
                with files.atomic_write(self.folder / "chat_template.jinja") as file:
                    file.write(m.template.source.encode())
        else:
            save_llama(model, self.folder, m.tokenizer, chat_template=m.template)

    def result(self, peak: float) -> dict[str, Any]:
        """Put together what the log shall end with."""
        config, (n_tokens, flops) = self.trainer.config, self.work()
        return {
            "event": "result",
            "loss": self.best,
            "unit": self._unit(),
            "baselines": {"before": self.before},
            "base": self.corpus.base,
            "corpus": self.corpus.name,
            "documents": len(self.corpus.training),
            "parameters": param_count(self.trainer.model.config).total,
            "learned": sum(w.numel() for w in self.trainer.learned.parameters()),
            "tokens": config.steps * n_tokens,
            "flops": config.steps * flops,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": self.trainer.device.type,
            "processes": world_size(),
            "seconds": self.trainer.seconds,
            "peak_flops": peak,
        }


def _memory(
    material: Material, config: TrainConfig, tune: TuneConfig, device: str
) -> str:
    """Say how large the model is and what a step needs; refuse what cannot fit."""
    shape = material.model.config
    n = param_count(shape).total
    thin = [
        tune.rank * sum(weight.shape)
        for name, weight in material.model.named_parameters()
        # Once it has a thin layer, the matrix is called `q_proj.linear.weight`.
        if name.replace(".linear.", ".").split(".")[-2] in tune.matrices
        and not name.endswith((".a", ".b"))
    ]
    learned = sum(thin) if tune.rank else n
    sentence = check_memory(
        *(shape, config, device),
        seq_len=material.longest,
        sequences=1 + material.preferences,
        learned=learned,
        # All weights learn: the reference is a copy. Thin layers are weights, too.
        frozen=learned if tune.rank else n * material.preferences,
    )
    return f"{n:,} weights, {learned:,} of which learn; {sentence}"


def _tuner(
    material: Material, config: TrainConfig, tune: TuneConfig, device: str
) -> Tuner:
    """Put together what takes the steps."""
    if tune.rank and is_adapter(material.base):
        raise ValueError(
            f"{material.base} is an adapter, and another one beside it could not be "
            "loaded by other programs: save it whole by save_llama, and tune that; or "
            "--rank 0"
        )
    _memory(material, config, tune, device)
    model = material.model.to(device)
    torch.manual_seed(config.seed)
    learned = None
    reference: Any = None
    if tune.rank:
        add_lora(model, tune.rank, tune.alpha, tune.matrices)
        learned = lora_weights(model)
        reference = lambda: without_lora(model)  # ruff: ignore[lambda-assignment]
    elif material.preferences:
        start = deepcopy(model).requires_grad_(False)
        reference = lambda: nullcontext(start)  # ruff: ignore[lambda-assignment]
    return Tuner(
        *(model, material.training, config, learned),
        reference=reference if material.preferences else None,
        beta=tune.beta,
    )


def begin(
    folder: str | PathLike[str],
    material: Material,
    given: Mapping[str, Mapping[str, Any]],
    *,
    device: str = "cpu",
) -> TuneRun:
    """Begin to tune, with everything in the folder that a chat needs.

    Args:
        folder: where to; it appears complete, with a checkpoint of step 0.
        material: the model and what it shall learn.
        given: settings of the tables `train` and `tune`.
        device: where to compute.

    Returns:
        The run.

    Raises:
        FileExistsError: if the folder exists and is not empty.
        ValueError: if something cannot work.
    """
    tune = TuneConfig(**given["tune"])
    defaults = usual(material.preferences, tune.rank)
    config = TrainConfig(**(defaults | dict(given["train"])))
    run = TuneRun(Path(folder), material, _tuner(material, config, tune, device), tune)
    create(run)
    return run


def go_on(
    folder: str | PathLike[str],
    material: Material,
    given: Mapping[str, Mapping[str, Any]],
    *,
    device: str = "cpu",
    force: bool = False,
) -> TuneRun:
    """Resume from the newest checkpoint.

    Args:
        folder: the run.
        material: the same model and chats as before.
        given: settings, which must be as they were.
        device: where to compute.
        force: whether to go on although settings or chats differ.

    Returns:
        The run.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if none is whole, the run has reached its last step, or something
            differs that must not.
    """
    folder = Path(folder)
    if not (folder / TuneRun.settings).is_file():
        raise ValueError(
            f"{folder} holds a run of minillm train: to tune that model, name it first "
            "and choose another --out"
        )
    saved = read_toml(folder / TuneRun.settings, TUNE_TABLES)
    there, tuned = TrainConfig(**saved["train"]), TuneConfig(**saved["tune"])
    config, tune = (
        replace(there, **given["train"]),
        replace(tuned, **given["tune"]),
    )
    fixed = ("rank", "alpha", "where")
    if any(getattr(tuned, name) != getattr(tune, name) for name in fixed):
        raise ValueError(
            f"{folder} has other thin layers: {'; '.join(differences(tuned, tune))}. "
            "That cannot be changed: choose another --out"
        )
    run = TuneRun(folder, material, _tuner(material, config, tune, device), tune)
    take_up(run, {"train": there, "tune": tuned}, force)
    return run
