r"""Exercises to chapters 2 and 3: attention and the Transformer.

Write each function in the place of its `raise NotImplementedError`, and ask, in
this folder:

    minillm exercises check model.softmax    # one of them
    minillm exercises check model            # those of this file

Unless a docstring says otherwise, a tensor may have any number of axes before those
that are named, in float32 or float64, and the result has the type of the input. What
PyTorch has ready-made under the name of an exercise is not to be used.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def softmax(x: Tensor, dim: int) -> Tensor:
    r"""Turn scores into weights that are positive and sum to one along `dim`.

    Scores of 1000 must not overflow.

    >>> softmax(torch.tensor([1000.0, 1000.0]), 0).tolist()
    [0.5, 0.5]
    """
    raise NotImplementedError


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    r"""Divide each vector along the last axis by its root mean square.

    $$\frac{x_i}{\sqrt{\frac1d \sum_j x_j^2 + \epsilon}}\, g_i$$

    with `weight` for $g$.

    >>> rms_norm(torch.tensor([1.0, 7.0]), torch.tensor([1.0, 2.0]), 0.0).tolist()
    [0.20000000298023224, 2.799999952316284]
    """
    raise NotImplementedError


def rope(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    r"""Turn pairs of numbers by angles that grow with the position.

    `x` is (…, seq, d) and `positions` is (seq,). In the vector at position $m$, the
    pair $(x_{2j}, x_{2j+1})$ is turned counter-clockwise by the angle
    $m\,\theta^{-2j/d}$.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> [[round(v, 2) for v in row] for row in rope(x, torch.arange(2), 1e4).tolist()]
    [[1.0, 0.0], [0.54, 0.84]]
    """
    raise NotImplementedError


def causal_mask(n_queries: int, n_keys: int) -> Tensor:
    r"""Say which key each query may look at: a tensor of bool (n_queries, n_keys).

    `True` where it may: at itself and at what came before. The queries are the *last*
    of the keys: with a cache there are more keys than queries.

    >>> causal_mask(2, 3).tolist()
    [[True, True, False], [True, True, True]]
    """
    raise NotImplementedError


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    r"""Let each query gather the values whose keys resemble it.

    $$\operatorname{softmax}\!\left(\frac{Q K^\top}{\sqrt d}\right) V$$

    `q` is (…, queries, d), `k` (…, keys, d), `v` (…, keys, d_v); the mask (queries,
    keys) is `True` where a query may look. A query that may look nowhere gathers zeros.

    >>> q, k, mask = torch.zeros(1, 2), torch.zeros(3, 2), [[True, True, False]]
    >>> v = torch.tensor([[1.0], [5.0], [9.0]])
    >>> attention(q, k, v, torch.tensor(mask)).tolist()
    [[3.0]]
    """
    raise NotImplementedError


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    r"""Cut the last axis into heads: (batch, seq, d) to (batch, n_heads, seq, d_head).

    Head 0 gets the first d_head numbers of each vector, head 1 the next.

    >>> split_heads(torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 8]]]), 2).tolist()
    [[[[1, 2], [5, 6]], [[3, 4], [7, 8]]]]
    """
    raise NotImplementedError


def multi_head(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int
) -> Tensor:
    r"""Attend with several heads, causally: (batch, seq, d) to the same shape.

    Each weight is (out, in), so that a row of queries is `x @ w_q.T`. The functions
    above may be used.

    >>> one = torch.eye(2)
    >>> x = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]])
    >>> multi_head(x, one, one, one, 3 * one, 2).tolist()
    [[[3.0, 3.0], [3.0, 3.0]]]
    """
    raise NotImplementedError


def swiglu(x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
    r"""The feed-forward network $W_2\,(\operatorname{silu}(W_1 x) \odot W_3 x)$.

    $\operatorname{silu}(a) = a \cdot \sigma(a)$, and each weight is (out, in).

    >>> x, wide, back = torch.tensor([10.0]), torch.ones(3, 1), torch.ones(1, 3)
    >>> round(swiglu(x, wide, back, wide).item())
    300
    """
    raise NotImplementedError


def block(
    x: Tensor,
    attn_norm: Callable[[Tensor], Tensor],
    attn: Callable[[Tensor], Tensor],
    ffn_norm: Callable[[Tensor], Tensor],
    ffn: Callable[[Tensor], Tensor],
) -> Tensor:
    r"""One layer of the Transformer, with the norm before each part.

    Its four parts are given as functions. Each part adds to `x` what it makes of the
    normalized `x`; the second sees what the first has added.

    >>> half, double = (lambda x: x / 2), (lambda x: 2 * x)
    >>> block(torch.tensor([1.0]), half, double, half, double).tolist()
    [4.0]
    """
    raise NotImplementedError
