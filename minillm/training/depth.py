r"""Deep models: where gradients vanish, where they explode, and what residuals do.

**The question.** On its way to the first layer a gradient passes through every other,
and each multiplies it by its own slopes. What is left of it after sixteen blocks?

**Before this:** [`minillm.training.by_hand`][], and the forward side of the same story
in [`TransformerBlock`][minillm.model.TransformerBlock].

# A product of slopes

With a slope of a half in each of 32 layers, a four-billionth of the gradient is left;
with a slope of two, it is four billion times as large:

>>> print(f"{0.5**32:.1e} {2.0**32:.1e}")
2.3e-10 4.3e+09

A *residual connection* changes the product. The slope of $x + f(x)$ is $1 + f'$. Over
all layers that multiplies out to 1, plus terms with one $f'$, plus terms with two, and
so on. The 1 is the path around all layers, and on it the gradient arrives as it was. A
*norm* changes $f'$: it brings its input to a fixed size, so a larger input has a
smaller slope.

# Measured

There are five ways to stack the same layers with or without these two
([`VARIANTS`][minillm.training.depth.VARIANTS]). For each, take the gradient at the
input of the first of sixteen blocks, and divide its norm by that at the output of the
last. As powers of ten, for three seeds: with fresh weights, and then with weights three
times as large, as they may become during training.

>>> for name, variant in VARIANTS.items():
...     powers = []
...     for scale in (1.0, 3.0):
...         for seed in range(3):
...             norms = gradient_norms(variant, 16, seed, scale)
...             powers.append(power_of_ten(norms[0] / norms[-1]))
...     print(f"{name:22}", *powers)
neither                zero zero zero overflow overflow overflow
norms alone            2 2 2 10 9 9
residuals alone        0 0 0 overflow overflow overflow
residuals, norm after  0 0 0 8 8 8
residuals, norm before 0 0 0 3 3 3

With neither, nothing reaches the first block of a fresh model: the gradient is *zero*,
less than a float64 can hold. With larger weights even the forward pass overflows. Norms
alone stop the overflow, and the gradient still grows at every block. Residuals alone
make a perfect start, and do not survive the growth of the weights.

The last two differ in one place. With the norm *after* the sum, as in the first
Transformer, it stands on the path of the 1 and rescales the gradient at every layer.
With the norm *before* the layer (*pre-norm*), the path stays clear; most of the factor
of a thousand that is left arises in the first three blocks, where the residual stream
is still small beside what is added to it (Xiong et al. 2020, arXiv:2002.04745).

<div class="figure" markdown>

--8<-- "images/gradient-depth.svg"

</div>

# What it does to learning

The loss after a hundred steps on the bytes of the fairy tales: twelve blocks, AdamW
with a learning rate of 0.002, equal FLOPs for all, lowest to highest of three seeds. A
model that has learned nothing has 5.55, the logarithm of 256.

--8<-- "images/data/depth.md"

With neither, not even the frequency of letters is learned, since the head is given
zeros. For the rest, AdamW hides much of what was measured above: it divides each
gradient by its usual size, so a constant factor does not matter to it. Norms alone and
residuals alone fall behind. Between the last two there is no difference that three
seeds could show. A hundred steps may be too few for one: fresh weights, too, could not
tell them apart. `python -m minillm.training.depth` trains them again.

**Next:** [`minillm.train`][], where the gradient norm is watched, and clipped.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Integer
from numpy.typing import NDArray

from minillm.config import ModelConfig
from minillm.training.by_hand import attend, feed_forward, linear
from minillm.training.layers import cross_entropy, rms_norm
from minillm.training.operations import add, embedding
from minillm.training.tape import Node

__all__ = ["VARIANTS", "Variant", "gradient_norms", "learn", "power_of_ten"]


class Variant(NamedTuple):
    """A way to stack layers.

    Attributes:
        residual: whether a layer's result is added to its input.
        norm: `"before"` the layer, `"after"` it (after the sum, if there is one), or
            `"none"`.
    """

    residual: bool
    norm: str


VARIANTS = {
    "neither": Variant(False, "none"),
    "norms alone": Variant(False, "before"),
    "residuals alone": Variant(True, "none"),
    "residuals, norm after": Variant(True, "after"),
    "residuals, norm before": Variant(True, "before"),
}
"""The ways that are compared, by name; the last is that of the course."""

LEARNED = ModelConfig(256, 32, d_model=32, n_layers=12, n_heads=2)
"""The shape that is trained, on bytes."""

Weights = dict[str, NDArray[Any]]


def fresh(
    config: ModelConfig, variant: Variant, seed: int, scale: float = 1.0
) -> Weights:
    """Make fresh weights: entries of variance 1 / d_in, as in the model of the course.

    Args:
        config: the shape.
        variant: with residuals, what is added starts smaller by the root of twice the
            number of blocks, so that the sum of all starts at the size of one.
        seed: of the random numbers.
        scale: makes the matrices of the blocks larger.

    Returns:
        The weights by name, in float64. Norms have none.
    """
    random, d = np.random.default_rng(seed), config.d_model
    last = scale / math.sqrt(2 * config.n_layers) if variant.residual else scale

    def matrix(d_out: int, d_in: int, factor: float) -> NDArray[Any]:
        return factor * random.normal(size=(d_out, d_in)) / math.sqrt(d_in)

    w = {
        "embedding": random.normal(size=(config.vocab_size, d)),
        "head": matrix(config.vocab_size, d, 0.1),
    }
    for i in range(config.n_layers):
        for part, d_out, d_in, factor in (
            ("attn.q_proj", d, d, scale),
            ("attn.k_proj", d, d, scale),
            ("attn.v_proj", d, d, scale),
            ("attn.o_proj", d, d, last),
            ("ffn.w1", config.d_ff, d, scale),
            ("ffn.w3", config.d_ff, d, scale),
            ("ffn.w2", d, config.d_ff, last),
        ):
            w[f"blocks.{i}.{part}.weight"] = matrix(d_out, d_in, factor)
    return w


def stacked(
    w: dict[str, Node],
    config: ModelConfig,
    variant: Variant,
    ids: Integer[np.ndarray, "batch seq"],
) -> tuple[Node, list[Node]]:
    """Run a stack of blocks.

    Args:
        w: the weights by name.
        config: the shape.
        variant: how the layers are stacked.
        ids: the token ids.

    Returns:
        The logits; and the input of each block, with the output of the last.
    """
    ones = np.ones(config.d_model)

    def norm(x: Node, place: str) -> Node:
        return rms_norm(x, ones) if place == variant.norm else x

    x = embedding(w["embedding"], ids)
    stream = [x]
    for i in range(config.n_layers):
        name = f"blocks.{i}."
        for part in ("attn.", "ffn."):
            h = norm(x, "before")
            y = (
                attend(h, w, name + part, config)
                if part == "attn."
                else feed_forward(h, w, name + part)
            )
            x = norm(add(x, y) if variant.residual else y, "after")
        stream.append(x)
    return linear(norm(x, "before"), w["head"]), stream


def gradient_norms(
    variant: Variant, n_layers: int, seed: int = 0, scale: float = 1.0
) -> list[float]:
    """Measure the gradient at the input of each block of a fresh model.

    Args:
        variant: how the layers are stacked.
        n_layers: how many blocks.
        seed: of weights and ids.
        scale: how much larger the weights are than fresh ones.

    Returns:
        The norm of the gradient at the input of each block, and at the output of the
        last; infinite or NaN where a float64 cannot hold the numbers.

    Examples:
        >>> len(gradient_norms(VARIANTS["neither"], n_layers=2))
        3
    """
    config = ModelConfig(64, 32, d_model=64, n_layers=n_layers, n_heads=4)
    ids = np.random.default_rng(seed).integers(0, 64, (4, 33))
    w = {name: Node(x) for name, x in fresh(config, variant, seed, scale).items()}
    # Numbers that are too large are what is to be shown.
    with np.errstate(all="ignore"):
        logits, stream = stacked(w, config, variant, ids[:, :-1])
        cross_entropy(logits, ids[:, 1:]).backward()
        return [float(np.linalg.norm(x.grad)) for x in stream if x.grad is not None]


def power_of_ten(ratio: float) -> str:
    """Write the order of magnitude of a ratio.

    Args:
        ratio: not negative.

    Returns:
        The nearest power of ten, or what it is instead.

    Examples:
        >>> power_of_ten(2e-5), power_of_ten(0.0), power_of_ten(math.nan)
        ('-5', 'zero', 'overflow')
    """
    if ratio == 0:
        return "zero"
    return str(round(math.log10(ratio))) if math.isfinite(ratio) else "overflow"


def learn(
    variant: Variant,
    tokens: Integer[np.ndarray, "n"],
    seed: int,
    *,
    config: ModelConfig,
    steps: int,
    lr: float = 2e-3,
) -> float:
    """Train a fresh model by AdamW.

    Args:
        variant: how the layers are stacked.
        tokens: the text as ids.
        seed: of weights and batches.
        config: the shape.
        steps: how many steps, of eight sequences each.
        lr: the learning rate.

    Returns:
        The mean loss over the last tenth of the steps; NaN if it stopped being a
        number.

    Examples:
        One block is not deep, and learns to count to eight in any way:

        >>> config = ModelConfig(8, 8, d_model=16, n_layers=1, n_heads=2)
        >>> loss = learn(
        ...     VARIANTS["neither"], np.arange(99) % 8, 0, config=config, steps=60
        ... )
        >>> loss < math.log(8) / 2
        True
    """
    arrays = fresh(config, variant, seed)
    # The optimizer and the tape look at the same memory.
    parameters = {n: torch.nn.Parameter(torch.from_numpy(x)) for n, x in arrays.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr)
    random, window = np.random.default_rng(seed), np.arange(config.context_length + 1)
    losses = []
    for _ in range(steps):
        starts = random.integers(0, len(tokens) - len(window) + 1, (8, 1))
        ids = tokens[starts + window].astype(np.int64)
        w = {name: Node(x) for name, x in arrays.items()}
        with np.errstate(all="ignore"):
            logits, _ = stacked(w, config, variant, ids[:, :-1])
            loss = cross_entropy(logits, ids[:, 1:])
            loss.backward()
        losses.append(float(loss.value))
        for name, parameter in parameters.items():
            parameter.grad = torch.from_numpy(w[name].grad)
        optimizer.step()
    last = losses[-max(1, steps // 10) :]
    return math.fsum(last) / len(last)


def tales() -> Integer[np.ndarray, "n"]:
    """The fairy tales, byte by byte."""
    from minillm.data import andersen

    return np.frombuffer("\n\n\n".join(andersen()).encode(), np.uint8)


def main(folder: Path = Path("images/data")) -> None:
    """Measure and train, and write what the figure and the table show.

    Args:
        folder: where to.
    """
    table = "| stacked with | loss |\n|---|---|\n"
    for name, variant in VARIANTS.items():
        found = [
            learn(variant, tales(), seed, config=LEARNED, steps=100)
            for seed in range(3)
        ]
        print(name, found, flush=True)
        table += f"| {name} | {min(found):.2f} to {max(found):.2f} |\n"
    norms = {}
    for name, variant in VARIANTS.items():
        seeds = [gradient_norms(variant, 16, seed, scale=3.0) for seed in range(3)]
        if np.isfinite(seeds).all():
            norms[name] = [[float(f"{x:.3g}") for x in seed] for seed in seeds]
    (folder / "depth.md").write_text(table, encoding="utf-8")
    (folder / "depth.json").write_text(json.dumps(norms) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
