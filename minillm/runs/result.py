r"""The result of a run: the last line of its log.

When a training is over, one line says what will be asked later: the loss on held-out
text, the baselines on the same text, what the model was trained on, and what that took.
[`minillm.runs.demo`][] and [`minillm.runs.run`][] write it; the loss curve and
`minillm disclose` are made from it.
"""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from minillm.config import ModelConfig
from minillm.drawing.kit import loss_curve, summarize
from minillm.flops import param_count, training_flops
from minillm.training.baselines import KneserNey, uniform_loss, unigram_loss
from minillm.training.batches import Tokens
from minillm.training.loss import bits_per_byte
from minillm.training.settings import TrainConfig

__all__ = ["counting_losses", "draw_loss", "run_result"]

# Trigrams of a long text would take more memory than there is.
LONGEST_FOR_TRIGRAMS = 2_000_000


def counting_losses(
    training: Tokens, unseen: Tokens, vocab_size: int
) -> dict[str, float]:
    """Compute the baselines.

    Args:
        training: the text that is counted.
        unseen: the held-out text that is predicted.
        vocab_size: how many tokens there are.

    Returns:
        Nats per token, by name. In a very long text no trigrams are counted.

    Examples:
        >>> import numpy as np
        >>> text = np.array([0, 1] * 20)
        >>> for name, loss in counting_losses(text, text[:10], 4).items():
        ...     print(f"{name}: {loss:.2f}")
        uniform: 1.39
        unigram: 0.74
        Kneser-Ney trigram: 0.17
    """
    losses = {
        "uniform": uniform_loss(vocab_size),
        "unigram": unigram_loss(training, unseen, vocab_size),
    }
    if len(training) <= LONGEST_FOR_TRIGRAMS:
        trigrams = KneserNey(training, vocab_size)
        losses["Kneser-Ney trigram"] = trigrams.loss(unseen)
    return losses


def run_result(
    shape: ModelConfig,
    config: TrainConfig,
    *,
    loss: float,
    counted: dict[str, float],
    n_tokens: int,
    n_bytes: int,
    **known: Any,
) -> dict[str, Any]:
    """Put the result together.

    Args:
        shape: the shape of the model.
        config: how it was trained.
        loss: nats per token of the held-out text.
        counted: the same for the baselines, by name.
        n_tokens: how many tokens of the held-out text were predicted.
        n_bytes: how many bytes they stand for.
        known: what only the caller knows: the `corpus` and the number of `documents` in
            it, the `construction` of the data, the `device` and its `peak_flops`, the
            `seconds` that it took, and more.

    Returns:
        One line of a log.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> from minillm.flops import training_flops
        >>> from minillm.training.settings import TrainConfig
        >>> shape = ModelConfig(8, context_length=4, d_model=8, n_layers=1, n_heads=2)
        >>> config = TrainConfig(steps=10, batch_size=2, warmup_steps=1)
        >>> sizes = {"n_tokens": 10, "n_bytes": 20}
        >>> result = run_result(shape, config, loss=0.7, counted={}, **sizes)
        >>> result["tokens"], round(result["bits_per_byte"], 3)
        (80, 0.505)
        >>> result["flops"] == 10 * training_flops(shape, batch_size=2, seq_len=4)
        True
    """
    step_flops = training_flops(shape, config.batch_size, shape.context_length)
    baselines = {
        name: bits_per_byte(counts, n_tokens, n_bytes)
        for name, counts in counted.items()
    }
    return {
        "event": "result",
        "loss": loss,
        "bits_per_byte": bits_per_byte(loss, n_tokens, n_bytes),
        "baselines": baselines,
        "tokens_per_byte": n_tokens / n_bytes,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "parameters": param_count(shape).total,
        "tokens": config.steps * config.batch_size * shape.context_length,
        "flops": config.steps * step_flops,
        **known,
    }


def draw_loss(log: Sequence[dict[str, Any]], folder: Path, console: Console) -> None:
    """Draw the loss curve of a run, if there is something to draw it with.

    Args:
        log: the lines of its log, with the result.
        folder: where `loss.svg` goes.
        console: where to say that matplotlib is missing.
    """
    try:
        loss_curve(summarize(log), folder / "loss.svg")
    except ImportError as error:
        console.print(Text(f"no loss curve: {error}"))
