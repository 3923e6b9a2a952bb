r"""Checks before and after the first step: what can be known before hours are spent.

**The question.** A training that goes wrong mostly looks like one that goes right, only
slower or shorter. What can be known before it has cost anything?

- *Will it fit?* What a step keeps in memory can be counted
  ([`training_memory`][minillm.accounting.memory.training_memory]), and a process that
  runs out of memory is killed without a message. Checkpoints need no more: they are
  written tensor by tensor ([`minillm.training.checkpoint`][]).
- *Does it start where it should?* A model that knows nothing gives every token the
  same probability, so its loss is $\ln V$. A much higher loss means that it is
  confidently wrong from the start; a much lower one, that it was trained on the text,
  or sees the targets.
"""

import math
from dataclasses import replace

import torch

from minillm.accounting.measure import machine_memory
from minillm.accounting.memory import training_memory
from minillm.config import ModelConfig
from minillm.flops import short
from minillm.training.distributed import world_size
from minillm.training.settings import TrainConfig

__all__ = ["check_memory", "judge_first_loss", "judge_tuning", "pick_device"]

# A fresh model of ours is within a few hundredths of $\ln V$.
FAR = 0.5


def pick_device(name: str) -> str:
    """Choose where to compute.

    Args:
        name: `auto`, or a device of PyTorch.

    Returns:
        A device; for `auto` a GPU if there is one.

    Raises:
        ValueError: if PyTorch does not know the device, or cannot reach it.

    Examples:
        >>> pick_device("cpu")
        'cpu'
    """
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the device {name!r} cannot be used ({reason}): choose auto or cpu"
        ) from error
    return name


def check_memory(
    shape: ModelConfig,
    config: TrainConfig,
    device: str,
    *,
    seq_len: int | None = None,
    sequences: int = 1,
    learned: int | None = None,
    frozen: int = 0,
) -> str:
    """Compare what a step keeps with the memory that there is.

    Args:
        shape: the shape of the model.
        config: how it is trained.
        device: where.
        seq_len: how long the longest sequence is; `None` for the context.
        sequences: how many there are to one of the batch: two to a preference.
        learned: how many weights have a gradient; `None` for all.
        frozen: how many weights there are beside the model that have none.

    Returns:
        A sentence about it.

    Raises:
        ValueError: if it cannot fit.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> from minillm.training.settings import TrainConfig
        >>> small = ModelConfig(2048, 128, d_model=128, n_layers=4, n_heads=4)
        >>> check_memory(small, TrainConfig(), "cpu").split(", ")[0]
        'a step keeps 51.2MB'
        >>> large = ModelConfig(50257, 2048, d_model=12288, n_layers=96, n_heads=96)
        >>> try:
        ...     check_memory(large, TrainConfig(), "cpu")
        ... except ValueError as error:
        ...     print(str(error)[:20])
        a step keeps 3.64TB,
    """
    n_processes = world_size()
    n_sequences = max(1, config.batch_size // config.grad_accum // n_processes)
    size = 4 if config.dtype == "float32" else 2
    memory = training_memory(
        shape,
        n_sequences * sequences,
        shape.context_length if seq_len is None else seq_len,
        activation_bytes=size,
    )
    memory = replace(memory, weights=memory.weights + 4 * frozen)
    if learned is not None:
        memory = replace(memory, gradients=4 * learned, optimizer=8 * learned)
    if device.startswith("cuda"):
        there = float(torch.cuda.get_device_properties(device).total_memory)
    else:
        # Processes on one machine share its memory.
        there = machine_memory() / n_processes
    sentence = (
        f"a step keeps {short(memory.total)}B, {short(memory.activations)}B of it for "
        f"activations; there are {short(there)}B"
    )
    if memory.total > there:
        raise ValueError(
            f"{sentence}: a larger grad_accum or a smaller batch saves activations, a "
            "smaller model the rest"
        )
    return sentence


def judge_first_loss(loss: float, vocab_size: int) -> tuple[bool, str]:
    r"""Say whether the loss before any learning is what it should be.

    Args:
        loss: nats per token.
        vocab_size: $V$.

    Returns:
        Whether it is near $\ln V$, and a sentence about it.

    Examples:
        >>> judge_first_loss(7.6, 2048)
        (True, 'the first loss is 7.60, and ln 2048 = 7.62')
        >>> judge_first_loss(9.2, 2048)[0], judge_first_loss(2.0, 2048)[0]
        (False, False)
    """
    expected = math.log(vocab_size)
    sentence = f"the first loss is {loss:.2f}, and ln {vocab_size} = {expected:.2f}"
    if abs(loss - expected) <= FAR:
        return True, sentence
    reason = (
        "the model is confidently wrong: check the initialization"
        if loss > expected
        else "the model was trained on this text, or can see the next token"
    )
    return False, f"{sentence}: {reason}"


def judge_tuning(loss: float, vocab_size: int, preferences: bool) -> tuple[bool, str]:
    r"""Say whether the loss before any fine-tuning is what it should be.

    Args:
        loss: nats per learned token, or per preference.
        vocab_size: $V$.
        preferences: whether preferences are learned.

    Returns:
        Whether it may be, and a sentence about it. A model that has read text of this
        kind is below $\ln V$; for preferences, model and reference are still the same,
        and the loss is $\ln 2$.

    Examples:
        >>> judge_tuning(2.31, 49152, preferences=False)
        (True, 'the first loss is 2.31; guessing would have ln 49152 = 10.80')
        >>> judge_tuning(0.6931, 49152, preferences=True)
        (True, 'the first loss is 0.6931, and ln 2 = 0.6931')
        >>> judge_tuning(12.0, 49152, False)[0], judge_tuning(0.9, 49152, True)[0]
        (False, False)
    """
    if preferences:
        sentence = f"the first loss is {loss:.4f}, and ln 2 = {math.log(2):.4f}"
        if abs(loss - math.log(2)) < 0.05:  # in bf16, two kernels differ
            return True, sentence
        return False, f"{sentence}: the reference is not the model at the start"
    expected = math.log(vocab_size)
    sentence = (
        f"the first loss is {loss:.2f}; guessing would have ln {vocab_size} = "
        f"{expected:.2f}"
    )
    if loss < expected + FAR:
        return True, sentence
    return False, f"{sentence}: are these the model's own tokenizer and chat template?"
