r"""Exercises to chapter 5: learning.

Write each function in the place of its `raise NotImplementedError`, and ask, in
this folder:

    minillm exercises check train.cross_entropy   # one of them
    minillm exercises check train                 # those of this file

The functions change nothing that they are given: they return what is new.
"""

import math
from os import PathLike

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    r"""The mean surprise at the tokens that came, in nats: a tensor without axes.

    `logits` is (…, vocab), `targets` (…): the same axes before. Scores of 1000 must
    not overflow. PyTorch's `log_softmax` may be used, its `cross_entropy` may not.

    >>> round(cross_entropy(torch.zeros(1, 4), torch.tensor([2])).item(), 3)
    1.386
    """
    raise NotImplementedError


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> float:
    r"""Turn a loss, in nats per token, into bits per byte of the text.

    The text has `n_tokens` tokens and `n_bytes` bytes.

    >>> round(bits_per_byte(math.log(256), 100, 100), 6)
    8.0
    """
    raise NotImplementedError


def adamw_step(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Take one step of AdamW, and return the new `w`, `m` and `v`.

    $$m \leftarrow \beta_1 m + (1 - \beta_1)\,g \qquad
    v \leftarrow \beta_2 v + (1 - \beta_2)\,g^2$$

    $$w \leftarrow w - \eta\lambda w - \eta\,\frac{m / (1 - \beta_1^t)}
    {\sqrt{v / (1 - \beta_2^t)} + \epsilon}$$

    with `step` for $t$ (1 in the first step), `lr` for $\eta$ and `weight_decay` for
    $\lambda$.

    >>> one, zero = torch.ones(1), torch.zeros(1)
    >>> new = adamw_step(one, one, zero, zero, 1, 0.1, (0.9, 0.999), 0.0, 0.0)
    >>> [round(x.item(), 3) for x in new]
    [0.9, 0.1, 0.001]
    """
    raise NotImplementedError


def cosine_schedule(
    step: int, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int
) -> float:
    r"""The learning rate of a step: up in a line, then down along half a cosine.

    0 at step 0, `max_lr` at step `warmup_steps`, `min_lr` at `total_steps` and ever
    after.

    >>> [round(cosine_schedule(s, 1.0, 0.1, 10, 110), 3) for s in (0, 5, 10, 60, 110)]
    [0.0, 0.5, 1.0, 0.55, 0.1]
    """
    raise NotImplementedError


def clip_gradients(
    gradients: list[Tensor], max_norm: float
) -> tuple[list[Tensor], float]:
    r"""Shorten gradients, together one long vector, to at most `max_norm`.

    Returns the new gradients and the length that they had before.

    >>> clip_gradients([torch.tensor([3.0]), torch.tensor([4.0])], 10.0)
    ([tensor([3.]), tensor([4.])], 5.0)
    """
    raise NotImplementedError


def batch(
    tokens: NDArray[np.uint16], starts: list[int], context_length: int
) -> tuple[Tensor, Tensor]:
    r"""Cut one sequence of text for each start: inputs and targets, both (batch, seq).

    The target at each position is the token that comes next. Both are int64, the type
    of an index in PyTorch.

    >>> inputs, targets = batch(np.arange(10, dtype=np.uint16), [0, 4], 3)
    >>> inputs.tolist(), targets.tolist()
    ([[0, 1, 2], [4, 5, 6]], [[1, 2, 3], [5, 6, 7]])
    """
    raise NotImplementedError


def open_split(
    path: str | PathLike[str], fraction: float
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    r"""Open a file of tokens (written by `numpy.save`), and cut off the last part.

    Returns the tokens to train on and those to examine with; of n tokens, the second
    has `int(n * fraction)`. The file may be larger than the memory: nothing of it is
    read before somebody looks (`mmap_mode` of `numpy.load`), and neither part is a
    copy. Graded are the two parts, whether both are mapped, and whether the file can be
    written to through them; it must not.
    """
    raise NotImplementedError
