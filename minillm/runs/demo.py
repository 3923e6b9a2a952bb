r"""The demo as one function: from raw text to a model that writes.

[`run_demo`][minillm.runs.demo.run_demo] is what `make demo` and `minillm demo` call. It

1. reads the tales and holds out the last tenth of them ([`minillm.data`][]);
2. trains a tokenizer on the rest and encodes both parts ([`minillm.bpe`][]);
3. computes the baselines ([`minillm.training.baselines`][]);
4. trains the model ([`minillm.train`][]), evaluating it on the held-out part;
5. samples text from it ([`minillm.generate`][]);
6. counts what it took ([`minillm.flops`][]), and writes everything to a folder.

`python -m benchmarks.sweep` trains the settings among which the demo's were chosen.
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
from rich.text import Text as PlainText

from minillm.accounting.measure import measure_peak_flops
from minillm.bpe import BPETokenizer
from minillm.config import DEMO, VOCAB_SIZE
from minillm.data import END_OF_TEXT, andersen, split, tokenize
from minillm.files.reading import read_lines
from minillm.files.writing import atomic_write, locked
from minillm.flops import mfu, param_count, training_flops
from minillm.generate import stream_text
from minillm.hub import save_llama
from minillm.model import TransformerLM
from minillm.runs.display import SAMPLING, training_display
from minillm.runs.result import counting_losses, draw_loss, run_result
from minillm.runs.run import CHECKPOINTS
from minillm.tokenizer.streams import check_lists
from minillm.training.batches import Tokens
from minillm.training.loop import Progress, Trainer
from minillm.training.loss import bits_per_byte
from minillm.training.settings import TrainConfig

__all__ = ["Text", "known_words", "read_log", "run_demo"]

SHAPE = DEMO
CONFIG = TrainConfig()
COUNTED = 30  # samples whose words are looked up in the corpus

# What lies in the folder of a run of `minillm train`, and not in that of a demo.
FOREIGN = (*CHECKPOINTS, "train.toml", "tune.toml")


def run_demo(
    folder: str | PathLike[str],
    *,
    config: TrainConfig | None = None,
    documents: Sequence[str] | None = None,
    prompt: str = "Once upon a time",
    console: Console | None = None,
    watch: "Callable[[TransformerLM, Text, Progress], None] | None" = None,
) -> dict[str, Any]:
    """Train a tokenizer and a model on the fairy tales, evaluate it, and let it write.

    Args:
        folder: where tokenizer, model, log and loss curve go, once all is done. What an
            earlier demo has left there is replaced.
        config: how to train; `None` for the defaults.
        documents: another text than the embedded one.
        prompt: how the sample begins.
        console: where to print; `None` for nowhere.
        watch: called after each step, with the model as it is then.

    Returns:
        The result, as it stands in the log.

    Raises:
        FileExistsError: if the folder holds something else than a demo.
        ValueError: if the text is too short to train and evaluate a model.
        BlockingIOError: if another process works on the same folder.
    """
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _check_place(Path(folder))
        return _run(
            Path(folder),
            config or CONFIG,
            documents,
            prompt,
            console or Console(quiet=True),
            watch,
        )


def _check_place(folder: Path) -> None:
    """Refuse a folder in which the demo would overwrite what is not a demo."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    foreign = any((folder / name).exists() for name in FOREIGN)
    if foreign or not (folder / "log.jsonl").is_file():
        what = "a run of minillm train" if foreign else "something else than a demo"
        raise FileExistsError(
            f"{folder} holds {what}, which the demo would overwrite: choose another "
            "--out"
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
        construction="the last tenth held out; byte-pair encoding learned on the rest",
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
    """A text, split into a training part and a held-out part.

    Attributes:
        training: the documents to train on.
        tokenizer: trained on these.
        tokens: their ids.
        unseen: the ids of the held-out part.
        n_bytes: how many bytes of UTF-8 the held-out part has.
    """

    training: list[str]
    tokenizer: BPETokenizer
    tokens: Tokens
    unseen: Tokens
    n_bytes: int

    def bits(self, loss: float) -> float:
        """Nats per token of the held-out part in bits per byte.

        Args:
            loss: nats per token.

        Returns:
            Bits per byte.
        """
        return bits_per_byte(loss, len(self.unseen) - 1, self.n_bytes)

    def score(self, name: str, loss: float) -> str:
        """One line that says how well something predicts the held-out part.

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
        f"{len(training)} documents to train on, {len(validation)} held out for "
        f"validation: {n_bytes:,} bytes"
    )
    console.rule("2. Text to integers", align="left")
    # The tokenizer, too, must not have seen what the model is evaluated on.
    tokenizer = BPETokenizer.train(training, VOCAB_SIZE, [END_OF_TEXT])
    tokens, unseen = (tokenize(part, tokenizer) for part in (training, validation))
    console.print(
        f"{tokenizer.vocab_size} different tokens, {len(tokens):,} in the text, of "
        f"{n_bytes / len(unseen[1:]):.2f} bytes on average"
    )
    return Text(training, tokenizer, tokens, unseen, n_bytes)


def _count(text: Text, console: Console) -> dict[str, float]:
    """The loss of each baseline, in nats per token."""
    console.rule("3. Baselines", align="left")
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
    n_tokens = config.batch_size * SHAPE.context_length
    flops = training_flops(SHAPE, config.batch_size, SHAPE.context_length)
    with training_display(console, config.steps, n_tokens, flops, peak) as show:
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

    console.print(PlainText(prompt, style="bold"), end="")
    for piece in sample(prompt, seed=0):
        console.print(PlainText(piece), end="")
    console.print("\n")
    written = ["".join(sample("", seed)) for seed in range(1, COUNTED + 1)]
    share, count = known_words(written, text.training)
    console.print(
        f"{share:.1%} of {count} words in {COUNTED} more samples are in the corpus"
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
    check_lists(texts=texts, corpus=corpus)
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
        >>> from pathlib import Path
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
    _check_place(folder)  # again, since the training has taken minutes
    save_llama(model, folder, tokenizer)
    with atomic_write(folder / "log.jsonl") as file:
        file.write("".join(json.dumps(line) + "\n" for line in log).encode())
    draw_loss(log, folder, console)
    kept = ", ".join(sorted(path.name for path in folder.iterdir()))
    console.print(PlainText(f"kept in {folder}: {kept}"))
