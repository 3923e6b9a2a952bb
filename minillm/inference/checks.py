r"""What a model can be asked for, refused before anything is computed.

A prompt, a temperature and the logits that come back are checked here, once for every
way to sample: [`generate`][minillm.generate.generate],
[`sample_batch`][minillm.inference.batched.sample_batch] and
[`speculate`][minillm.inference.speculative.speculate]. What one of them refuses, none
of them takes.
"""

import math
import operator
from collections.abc import Iterable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from minillm.config import ModelConfig

__all__ = ["check_ids", "check_logits", "check_prompt", "check_temperature"]


def check_ids(ids: Iterable[Any], vocab_size: int) -> list[int]:
    """Refuse ids that the model does not know.

    Args:
        ids: integers, of whatever library.
        vocab_size: how many ids the model knows.

    Returns:
        The same, as Python's own integers.

    Raises:
        ValueError: if one is unknown, or is no integer.

    Examples:
        >>> check_ids([2, 50], vocab_size=50)
        Traceback (most recent call last):
        ValueError: the model knows the ids 0 to 49; got 50: is this its own tokenizer?
    """
    found = []
    for i in ids:
        try:
            found.append(operator.index(i))
        except TypeError:
            raise ValueError(
                f"ids are integers; got {i!r:.40}: encode the text with the model's "
                "own tokenizer"
            ) from None
        if not 0 <= found[-1] < vocab_size:
            raise ValueError(
                f"the model knows the ids 0 to {vocab_size - 1}; got {found[-1]}: "
                "is this its own tokenizer?"
            )
    return found


def check_prompt(ids: Iterable[Any], config: ModelConfig) -> list[int]:
    """Refuse a prompt that the model cannot read.

    Args:
        ids: the prompt.
        config: the shape of the model.

    Returns:
        The prompt, as a list.

    Raises:
        ValueError: if it is empty, longer than the context, or has unknown ids.

    Examples:
        >>> check_prompt([], ModelConfig(50, 8, d_model=16, n_layers=1, n_heads=2))
        Traceback (most recent call last):
        ValueError: the prompt is empty: give at least one id, such as that of \
<|endoftext|>
    """
    found = check_ids(ids, config.vocab_size)
    if not found:
        raise ValueError(
            "the prompt is empty: give at least one id, such as that of <|endoftext|>"
        )
    if len(found) > config.context_length:
        raise ValueError(
            f"the model reads at most {config.context_length} tokens; the prompt has "
            f"{len(found)}: shorten it"
        )
    return found


def check_temperature(temperature: float, greedy: bool = True) -> None:
    """Refuse what logits cannot be divided by.

    Args:
        temperature: the temperature.
        greedy: whether 0 stands for the largest logit.

    Raises:
        ValueError: if it is negative, not finite, or 0 where nothing is greedy.

    Examples:
        >>> check_temperature(0)
        >>> check_temperature(-1.0)
        Traceback (most recent call last):
        ValueError: the temperature must be 0 or more, and finite; got -1.0: 1 changes \
nothing
    """
    if not (0 < temperature < math.inf or (greedy and temperature == 0)):
        rule = "0 or more, and finite" if greedy else "positive and finite"
        raise ValueError(
            f"the temperature must be {rule}; got {temperature}: 1 changes nothing"
        )


def check_logits(logits: Float[Tensor, "*batch vocab"]) -> None:
    """Refuse logits that no token can be sampled from, greedily or not.

    The largest of logits that are not numbers is whichever the library names, and would
    be sampled for ever.

    Args:
        logits: those of one position, or of several.

    Raises:
        ValueError: if one is NaN or infinite, or all of a position are minus infinity.

    Examples:
        >>> import torch
        >>> check_logits(torch.tensor([[0.5, -math.inf], [-math.inf, -math.inf]]))
        Traceback (most recent call last):
        ValueError: no token is possible: all are banned, or have a score of minus \
infinity; ban fewer
    """
    if not (logits < math.inf).all():
        raise ValueError(
            "the model's scores are not numbers (NaN or infinite): its weights are "
            "damaged, or its training diverged; go back to an earlier checkpoint"
        )
    if not (logits > -math.inf).any(-1).all():
        raise ValueError(
            "no token is possible: all are banned, or have a score of minus infinity; "
            "ban fewer"
        )
