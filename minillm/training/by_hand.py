r"""A Transformer on the tape: PyTorch's gradients without PyTorch.

**The question.** Each derivative has been checked on its own. Do they add up to the
gradients of a whole model, and do those train it?

**Before this:** [`minillm.gradients`][] and its [layers][minillm.training.layers].

# The same numbers

The [forward pass][minillm.training.by_hand.forward] below takes the weights of a
[`TransformerLM`][minillm.model.TransformerLM] and computes its logits, operation by
operation. PyTorch has its own program for each operation and for each derivative. In
float64, rounding is far smaller than the difference that a mistake would make:

>>> _ = torch.manual_seed(0)
>>> config = ModelConfig(50, 16, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2)
>>> model = TransformerLM(config).double()
>>> ids = np.random.default_rng(0).integers(0, 50, (3, 17))
>>> inputs, targets = ids[:, :-1], ids[:, 1:]
>>> weights = on_tape(model)
>>> logits = forward(weights, config, inputs)
>>> theirs = model(torch.from_numpy(inputs)).detach().numpy()
>>> bool(np.abs(logits.value - theirs).max() < 1e-10)
True
>>> cross_entropy(logits, targets).backward()
>>> _ = by_autograd(model, inputs, targets)
>>> all(
...     np.abs(weights[name].grad - w.grad.numpy()).max() < 1e-10
...     for name, w in model.named_parameters()
... )
True

With the same gradients, training goes the same way. `python -m
minillm.training.by_hand` trains on the bytes of the fairy tales for two hundred steps,
once with each kind of gradient, and prints the losses side by side. Here are ten steps,
on a text that counts from 0 to 49 again and again:

>>> text = np.arange(200) % 50
>>> taped, theirs = (losses(model, text, by, 10) for by in (by_tape, by_autograd))
>>> np.allclose(taped, theirs, rtol=1e-10), theirs[0] - theirs[-1] > 0.1
(True, True)

How long a step takes beside PyTorch's is printed by `python -m benchmarks.gradients`
([results](../speed.md)).

**Next:** [`minillm.training.kept`][] counts what this costs.
"""

import copy
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Integer

from minillm.config import ModelConfig
from minillm.model import TransformerLM
from minillm.training.kept import recompute
from minillm.training.layers import attention, cross_entropy, rms_norm, rope, silu
from minillm.training.operations import add, embedding, matmul, mul, reshape, transpose
from minillm.training.tape import Node, Operand

__all__ = [
    "attend",
    "by_autograd",
    "by_tape",
    "feed_forward",
    "forward",
    "linear",
    "losses",
    "on_tape",
]

Weights = Mapping[str, Operand]
Marks = list[tuple[str, Node]]


def on_tape(model: TransformerLM) -> dict[str, Node]:
    """Put the weights of a model on the tape, without copying them.

    Args:
        model: the model, on the CPU.

    Returns:
        A leaf for each weight, by its name. If the embedding is tied to the head, both
        names have the same leaf, which then gets shares from both.
    """
    weights = {name: Node(w.detach().numpy()) for name, w in model.named_parameters()}
    if model.config.tie_embeddings:
        weights["lm_head.weight"] = weights["token_embedding.weight"]
    return weights


def linear(x: Operand, weight: Operand) -> Node:
    r"""Multiply vectors by a weight that is kept as (out, in), $y = x W^\top$.

    Args:
        x: (…, in).
        weight: (out, in).

    Returns:
        (…, out).

    Examples:
        >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]])).value.tolist()
        [[13.0]]
    """
    return matmul(x, transpose(weight, (1, 0)))


def attend(x: Node, w: Weights, name: str, config: ModelConfig) -> Node:
    """Let each position gather from those before it.

    Args:
        x: (B, T, d), the normalized vectors.
        w: the weights.
        name: what their names begin with, such as `"blocks.0.attn."`.
        config: the shape of the model.

    Returns:
        (B, T, d), what was gathered.

    Examples:
        >>> config = ModelConfig(9, 4, d_model=8, n_layers=1, n_heads=2)
        >>> model, x = TransformerLM(config).double(), np.ones((1, 3, 8))
        >>> ours = attend(Node(x), on_tape(model), "blocks.0.attn.", config)
        >>> theirs = model.blocks[0].attn(torch.from_numpy(x))
        >>> np.allclose(ours.value, theirs.detach().numpy())
        True
    """
    batch, seq, d = x.value.shape
    shared, d_head = config.n_kv_heads, config.d_head

    def heads(which: str, group: int) -> Node:
        y = linear(x, w[f"{name}{which}_proj.weight"])
        y = reshape(y, (batch, seq, shared, group, d_head))
        return transpose(y, (0, 2, 3, 1, 4))  # (B, H_kv, group, T, d_h)

    # A group of query heads shares a head of keys, which broadcasting repeats for it.
    q, k = heads("q", config.n_heads // shared), heads("k", 1)
    q, k = rope(q, config.rope_theta), rope(k, config.rope_theta)
    y = attention(q, k, heads("v", 1))  # (B, H_kv, group, T, d_h)
    y = reshape(transpose(y, (0, 3, 1, 2, 4)), (batch, seq, d))
    return linear(y, w[f"{name}o_proj.weight"])


def feed_forward(x: Node, w: Weights, name: str) -> Node:
    r"""The feed-forward network, $W_2 (\operatorname{silu}(W_1 x) \odot W_3 x)$.

    Args:
        x: (…, d), the normalized vectors.
        w: the weights.
        name: what their names begin with, such as `"blocks.0.ffn."`.

    Returns:
        (…, d).

    Examples:
        >>> model = TransformerLM(ModelConfig(9, 4, 8, n_layers=1, n_heads=2)).double()
        >>> ours = feed_forward(Node(np.ones((3, 8))), on_tape(model), "blocks.0.ffn.")
        >>> theirs = model.blocks[0].ffn(torch.ones(3, 8).double())
        >>> np.allclose(ours.value, theirs.detach().numpy())
        True
    """
    gate, up = linear(x, w[f"{name}w1.weight"]), linear(x, w[f"{name}w3.weight"])
    return linear(mul(silu(gate), up), w[f"{name}w2.weight"])


def forward(
    w: Weights,
    config: ModelConfig,
    ids: Integer[np.ndarray, "batch seq"],
    marks: Marks | None = None,
    *,
    again: bool = False,
) -> Node:
    """The forward pass of [`TransformerLM`][minillm.model.TransformerLM], on the tape.

    Args:
        w: the weights by their names, nodes or plain arrays.
        config: the shape of the model.
        ids: the token ids.
        marks: a list that gets the result of each part, with the name of the part.
        again: whether to [`recompute`][minillm.training.kept.recompute] each block
            in the backward pass.

    Returns:
        (B, T, V), the logits.

    Raises:
        ValueError: if the model stretches its rotary positions.
    """
    if config.rope_scaling is not None:
        raise ValueError("rope_scaling is not on the tape: use a model without it")
    noted: Marks = marks if marks is not None else []
    eps = config.norm_eps

    def mark(part: str, node: Node) -> Node:
        if not again:
            noted.append((part, node))
        return node

    def block(x: Node, i: int) -> Node:
        name = f"blocks.{i}."
        h = mark("norms", rms_norm(x, w[name + "attn_norm.weight"], eps))
        x = add(x, mark("attention", attend(h, w, name + "attn.", config)))
        h = mark("norms", rms_norm(x, w[name + "ffn_norm.weight"], eps))
        return add(x, mark("ffn", feed_forward(h, w, name + "ffn.")))

    x = embedding(w["token_embedding.weight"], ids)
    noted.append(("embedding", x))
    for i in range(config.n_layers):
        if again:
            x = recompute(partial(block, i=i), x)
            noted.append(("blocks", x))
        else:
            x = block(x, i)
    return linear(rms_norm(x, w["final_norm.weight"], eps), w["lm_head.weight"])


Ids = Integer[np.ndarray, "batch seq"]


def by_tape(model: TransformerLM, inputs: Ids, targets: Ids) -> float:
    """Give each weight of a model its gradient, computed by the tape.

    Args:
        model: the model, on the CPU.
        inputs: ids.
        targets: the ids that came next.

    Returns:
        The loss.
    """
    weights = on_tape(model)
    loss = cross_entropy(forward(weights, model.config, inputs), targets)
    loss.backward()
    for name, w in model.named_parameters():
        w.grad = torch.from_numpy(weights[name].grad)
    return float(loss.value)


def by_autograd(model: TransformerLM, inputs: Ids, targets: Ids) -> float:
    """Give each weight of a model its gradient, computed by PyTorch.

    Args:
        model: the model, on the CPU.
        inputs: ids.
        targets: the ids that came next.

    Returns:
        The loss.
    """
    model.zero_grad()
    logits = model(torch.from_numpy(inputs)).flatten(0, 1)
    loss = F.cross_entropy(logits, torch.from_numpy(targets).flatten())
    loss.backward()
    return loss.item()


def losses(
    model: TransformerLM,
    tokens: Integer[np.ndarray, "n"],
    gradients: Callable[[TransformerLM, Ids, Ids], float],
    steps: int,
    *,
    batch_size: int = 8,
    lr: float = 2e-3,
) -> list[float]:
    """Train a copy of a model by AdamW, and note the loss of each step.

    Args:
        model: the model to begin with; it stays as it is.
        tokens: the text as ids.
        gradients: how the gradients are computed: `by_tape` or `by_autograd`.
        steps: how many steps.
        batch_size: sequences in a batch, the same ones for either kind of gradient.
        lr: the learning rate.

    Returns:
        The losses, each before its step.
    """
    model, random = copy.deepcopy(model), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    window, found = np.arange(model.config.context_length + 1), []
    for _ in range(steps):
        starts = random.integers(0, len(tokens) - len(window) + 1, (batch_size, 1))
        ids = tokens[starts + window].astype(np.int64)
        found.append(gradients(model, ids[:, :-1], ids[:, 1:]))
        optimizer.step()
    return found


def main() -> None:
    """Train on the fairy tales twice, and print both series of losses."""
    import time

    from minillm.data import andersen

    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(256, 64, d_model=64, n_layers=2, n_heads=4))
    text = np.frombuffer("\n\n\n".join(andersen()).encode(), np.uint8)
    series = []
    for gradients in (by_tape, by_autograd):
        start = time.perf_counter()
        series.append(losses(model.double(), text, gradients, steps=200))
        print(f"{gradients.__name__}: {time.perf_counter() - start:.0f} seconds")
    print("step   by tape        by autograd")
    for step in (1, 10, 50, 100, 150, 200):
        print(f"{step:4}", *(f"{found[step - 1]:.12f}" for found in series))
    worst = max(abs(a - b) for a, b in zip(*series, strict=True))
    print(f"largest difference in 200 steps: {worst:.0e}")


if __name__ == "__main__":
    main()
