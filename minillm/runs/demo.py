r"""The demo: from raw text to a model that talks, in about three minutes.

**The question.** The chapters build the parts one by one. Do they fit together?

This module is the whole course as one function,
[`run_demo`][minillm.runs.demo.run_demo]:

1. [`minillm.data`][] reads the tales and puts the last tenth of them aside.
2. [`minillm.bpe`][] learns a vocabulary from the rest and turns all into ids.
3. [`minillm.training.baselines`][] says what can be had by counting.
4. [`minillm.model`][] and [`minillm.train`][] learn to do better.
5. [`minillm.generate`][] writes.
6. [`minillm.flops`][] says what it took.

With the defaults it learns like this. The dashed lines are what counting achieves on
the same text, the dots the examination of the model:

<div class="figure" markdown>

--8<-- "images/demo-loss.svg"

</div>

# What got it

A first version had twice the depth, batches twice as large, and needed the same time.
It ended above the trigram, at 1.75 bits per byte: a model of that size has to read more
than fits into two minutes. Half of it reads faster, a smaller batch makes more steps of
the same text, and together they learn more. Each row of this table had the same share
of the two minutes, on the same processor:

--8<-- "images/data/sweep.md"

`python -m benchmarks.sweep` trains them again, or others. The demo is the last row. It
takes three times as many steps as the first version, so each may be shorter; and it
reads the same text several times over, so weight decay has to hold it back from
learning the text by heart.

What the user sees while it runs is drawn by the library `rich`, which the course does
not explain.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.data import END_OF_TEXT, andersen, split, tokenize
from minillm.files.reading import read_lines
from minillm.files.writing import atomic_write, locked
from minillm.flops import mfu, param_count
from minillm.generate import stream_text
from minillm.hub import save_llama
from minillm.model import TransformerLM
from minillm.runs.display import training_display
from minillm.runs.result import counting_losses, draw_loss, run_result
from minillm.train import (
    Progress,
    Tokens,
    TrainConfig,
    Trainer,
    bits_per_byte,
    measure_peak_flops,
)

__all__ = ["Text", "known_words", "read_log", "run_demo"]

VOCAB_SIZE = 2048
SHAPE = ModelConfig(VOCAB_SIZE, context_length=128, d_model=128, n_layers=2, n_heads=4)
CONFIG = TrainConfig()
SAMPLING = {"temperature": 0.8, "top_p": 0.95}


def run_demo(
    folder: str | PathLike[str],
    *,
    config: TrainConfig | None = None,
    documents: Sequence[str] | None = None,
    prompt: str = "Once upon a time",
    console: Console | None = None,
    watch: "Callable[[TransformerLM, Text, Progress], None] | None" = None,
) -> dict[str, Any]:
    """Train a tokenizer and a model on the fairy tales, examine it, and let it write.

    Args:
        folder: where tokenizer, model, log and loss curve go, once all is done.
        config: how to train; `None` for the defaults.
        documents: another text than the embedded one.
        prompt: how the sample begins.
        console: where to print; `None` for nowhere.
        watch: called after each step, with the model as it is then.

    Returns:
        The result, as it stands in the log.

    Raises:
        ValueError: if the text is too short to train and examine a model.
        BlockingIOError: if another process works on the same folder.
    """
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        return _run(
            Path(folder),
            config or CONFIG,
            documents,
            prompt,
            console or Console(quiet=True),
            watch,
        )


def _run(
    folder: Path,
    config: TrainConfig,
    documents: Sequence[str] | None,
    prompt: str,
    console: Console,
    watch: "Callable[[TransformerLM, Text, Progress], None] | None",
) -> dict[str, Any]:
    text = _prepare(documents or andersen(), console)
    counted = _count(text, console)
    model, log, peak = _learn(text, config, console, watch)
    known = _write(model, text, prompt, console)

    console.rule("6. Accounting", align="left")
    result = run_result(
        SHAPE,
        config,
        loss=log[-1]["validation_loss"],
        counted=counted,
        n_tokens=len(text.unseen) - 1,
        n_bytes=text.n_bytes,
        known_words=known,
        corpus="Andersen's fairy tales" if documents is None else "another text",
        documents=len(text.training),
        construction="the last tenth put aside; byte-pair encoding learned on the rest",
        device="cpu",
        seconds=log[-1]["seconds"],
        peak_flops=peak,
    )
    flops, seconds = result["flops"], result["seconds"]
    console.print(
        f"{result['parameters']:,} parameters, {result['tokens']:,} tokens, "
        f"{flops:.2e} FLOPs, {seconds:.0f} seconds, MFU {mfu(flops, seconds, peak):.0%}"
    )
    log = [{"event": "config", **asdict(config)}, *log, result]
    _save(folder, model, text.tokenizer, log, console)
    return result


@dataclass(frozen=True)
class Text:
    """A text, cut into a part to learn from and one to examine with.

    Attributes:
        training: the documents to learn from.
        tokenizer: learned from these.
        tokens: the ids of the same.
        unseen: the ids of the other part.
        n_bytes: how many bytes of UTF-8 the other part has.
    """

    training: list[str]
    tokenizer: BPETokenizer
    tokens: Tokens
    unseen: Tokens
    n_bytes: int

    def bits(self, loss: float) -> float:
        """Nats per token of the unseen part in bits per byte.

        Args:
            loss: nats per token.

        Returns:
            Bits per byte.
        """
        return bits_per_byte(loss, len(self.unseen) - 1, self.n_bytes)

    def score(self, name: str, loss: float) -> str:
        """One line that says how well something predicts the unseen part.

        Args:
            name: what predicts.
            loss: nats per token.

        Returns:
            The line, in the markup of `rich`.
        """
        bits = f"[bold]{self.bits(loss):.3f} bits per byte[/bold]"
        return f"{name:>20}: {loss:.3f} nats per token, {bits}"


def _prepare(documents: Sequence[str], console: Console) -> Text:
    console.rule("1. Text", align="left")
    training, validation = split(documents)
    n_bytes = sum(len(document.encode()) for document in validation)
    console.print(
        f"{len(training)} documents to learn from, {len(validation)} put aside to "
        f"examine: {n_bytes:,} bytes"
    )
    console.rule("2. Text to integers", align="left")
    # The tokenizer, too, must not have seen what the model is examined on.
    tokenizer = BPETokenizer.train(training, VOCAB_SIZE, [END_OF_TEXT])
    tokens, unseen = (tokenize(part, tokenizer) for part in (training, validation))
    console.print(
        f"{tokenizer.vocab_size} different tokens, {len(tokens):,} in the text, of "
        f"{n_bytes / len(unseen[1:]):.2f} bytes on average"
    )
    return Text(training, tokenizer, tokens, unseen, n_bytes)


def _count(text: Text, console: Console) -> dict[str, float]:
    """What counting alone achieves, in nats per token."""
    console.rule("3. What counting achieves", align="left")
    losses = counting_losses(text.tokens, text.unseen, VOCAB_SIZE)
    for name, loss in losses.items():
        console.print(text.score(name, loss))
    return losses


def _learn(
    text: Text,
    config: TrainConfig,
    console: Console,
    watch: "Callable[[TransformerLM, Text, Progress], None] | None",
) -> tuple[TransformerLM, list[dict[str, Any]], float]:
    """The trained model, the log of its training, and the peak of this machine."""
    console.rule("4. Learning", align="left")
    torch.manual_seed(config.seed)
    model = TransformerLM(SHAPE)
    peak = measure_peak_flops()
    console.print(
        f"{param_count(SHAPE).total:,} weights; this machine multiplies matrices at "
        f"{peak / 1e9:.0f} GFLOP/s"
    )
    log: list[dict[str, Any]] = []
    with training_display(console, SHAPE, config, peak) as show:
        for progress in Trainer(model, text.tokens, config).run(text.unseen):
            log.append({"event": "step", **asdict(progress)})
            show(progress)
            if watch is not None:
                watch(model, text, progress)
    console.print(text.score("the model", log[-1]["validation_loss"]))
    return model, log, peak


def _write(model: TransformerLM, text: Text, prompt: str, console: Console) -> float:
    """Let the model write, and say how many of its words exist."""
    console.rule("5. Writing", align="left")

    def sample(prompt: str, seed: int) -> Iterator[str]:
        return stream_text(model, text.tokenizer, prompt, 120, **SAMPLING, seed=seed)

    console.print(prompt, style="bold", end="", markup=False)
    for piece in sample(prompt, seed=0):
        console.print(piece, end="", markup=False, highlight=False)
    console.print("\n")
    written = ["".join(sample("", seed)) for seed in range(1, 31)]
    share, count = known_words(written, text.training)
    console.print(
        f"{share:.1%} of {count} words in thirty more samples are words of the corpus"
    )
    return share


def known_words(texts: Iterable[str], corpus: Iterable[str]) -> tuple[float, int]:
    """How many of the words in some texts are words of a corpus.

    A word is a run of letters, in lower case. The last one of each text does not count,
    since it may have been cut off.

    Args:
        texts: what was written.
        corpus: what the words are compared with.

    Returns:
        The share in [0, 1], and the number of words.

    Raises:
        ValueError: if the texts have no words.

    Examples:
        >>> known_words(["The duck quacked happ"], ["A duck!", "the pond"])
        (0.6666666666666666, 3)
    """
    word = re.compile(r"[^\W\d_]+")
    known = {w.lower() for text in corpus for w in word.findall(text)}
    written = [w.lower() for text in texts for w in word.findall(text)[:-1]]
    if not written:
        raise ValueError("there are no words in these texts: sample longer ones")
    return sum(w in known for w in written) / len(written), len(written)


def read_log(folder: str | PathLike[str]) -> list[dict[str, Any]]:
    r"""Read the log of a run.

    Args:
        folder: the run.

    Returns:
        The lines of its `log.jsonl`: one `config`, one `step` each, one `result`.

    Raises:
        FileNotFoundError: if there is no log.
        ValueError: if it is damaged.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     line = '{"event": "step", "step": 1}\n'
        ...     _ = (Path(folder) / "log.jsonl").write_text(line, encoding="utf-8")
        ...     read_log(folder)
        [{'event': 'step', 'step': 1}]
    """
    return read_lines(Path(folder) / "log.jsonl")


def _save(
    folder: Path,
    model: TransformerLM,
    tokenizer: BPETokenizer,
    log: list[dict[str, Any]],
    console: Console,
) -> None:
    save_llama(model, folder, tokenizer)
    with atomic_write(folder / "log.jsonl") as file:
        file.write("".join(json.dumps(line) + "\n" for line in log).encode())
    draw_loss(log, folder, console)
    kept = ", ".join(sorted(path.name for path in folder.iterdir()))
    console.print(f"kept in {folder}: {kept}")
