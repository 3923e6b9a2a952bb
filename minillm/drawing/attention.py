r"""What attention looks at, in a model that has learned one thing.

A model of two layers with two heads each learns to go on with texts that repeat
themselves: twelve different tokens, drawn at random, and then the same twelve again.
Nothing about the tokens themselves helps to guess the next. Only a place does: it
stands eleven positions back.

<div class="figure" markdown>

--8<-- "images/attention-maps.svg"

</div>

Each square is one head. Row $t$ shows how position $t$ shares its attention among the
positions up to itself: the larger a dot, the more. No row has dots right of the
diagonal, which is the causal mask. Nobody told the heads where to look.

`python -m minillm.drawing.attention` trains the model again, which takes seconds,
stores its numbers in `images/data`, and says how far they are from those before.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from minillm.config import ModelConfig
from minillm.drawing.kit import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    new_figure,
    save_figure,
)
from minillm.files.reading import IMAGES
from minillm.files.writing import atomic_write
from minillm.inference.attention_maps import attention_maps, attention_scores
from minillm.model import TransformerLM
from minillm.training.loss import cross_entropy
from minillm.training.optimizer import AdamW

__all__ = ["attention_grid", "distance_curve", "learn_to_repeat"]

PERIOD = 12
SHAPE = ModelConfig(32, 2 * PERIOD, d_model=64, n_layers=2, n_heads=2, d_ff=64)
COLOURS = (BLUE, GREEN, ORANGE, PURPLE)


def repeated_texts(n_texts: int, random: torch.Generator) -> Int[Tensor, "batch seq"]:
    """Texts of twelve different tokens, twice.

    Args:
        n_texts: how many.
        random: where the chance comes from.

    Returns:
        The ids.
    """
    order = torch.rand(n_texts, SHAPE.vocab_size, generator=random).argsort(dim=1)
    return order[:, :PERIOD].repeat(1, 2)


def learn_to_repeat(steps: int = 400, seed: int = 0) -> tuple[TransformerLM, float]:
    """Train the model of the figures.

    Args:
        steps: how many steps.
        seed: fixes its first weights and the texts.

    Returns:
        The model, and its last loss on the second halves, in nats per token.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TransformerLM(SHAPE)
    random = torch.Generator().manual_seed(seed)
    optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    loss = torch.tensor(math.nan)
    for _ in range(steps):
        ids = repeated_texts(32, random)
        # Only where the text repeats itself is there anything to know.
        loss = cross_entropy(model(ids[:, :-1])[:, PERIOD - 1 :], ids[:, PERIOD:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, loss.item()


def measure(model: TransformerLM) -> dict[str, Any]:
    """The numbers that the two figures show.

    Args:
        model: the trained model.

    Returns:
        `weights`, for one text: layer by head by query by key. `scores`: layer by head
        by distance, the mean over many texts and positions.
    """
    ids = repeated_texts(64, torch.Generator().manual_seed(1))
    scores = torch.stack(attention_scores(model, ids))
    weights = torch.cat(attention_maps(model, ids[:1]))
    means = [scores.diagonal(-n, -2, -1).mean(dim=(1, -1)) for n in range(16)]
    return {
        "weights": weights.mul(100).round().int().tolist(),  # in percent
        "scores": [
            [[round(x, 2) for x in head] for head in layer]
            for layer in torch.stack(means, dim=-1).tolist()
        ],
    }


def attention_grid(numbers: dict[str, Any], path: Path) -> None:
    r"""Draw where each head looks, one square for each.

    Args:
        numbers: what `measure` gave.
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    figure, axes = new_figure(height=2.3)
    axes.remove()
    panels = figure.subplots(1, 4, sharex=True, sharey=True)
    heads = [
        (f"layer {i + 1}, head {j + 1}", weights)
        for i, layer in enumerate(numbers["weights"])
        for j, weights in enumerate(layer)
    ]
    for panel, (name, weights), colour in zip(panels, heads, COLOURS, strict=True):
        dots = [
            (key, query, percent / 4)
            for query, row in enumerate(weights)
            for key, percent in enumerate(row)
            if percent >= 3
        ]
        x, y, sizes = zip(*dots, strict=True)
        panel.scatter(x, y, s=sizes, color=colour, linewidths=0)
        panel.plot([0, 23], [0, 23], color=INK, lw=0.5, alpha=0.4)
        panel.set_title(name, color=colour, fontsize=10)
        panel.set(xlabel="looks at", xticks=[0, 11, 23], yticks=[0, 11, 23])
        panel.set_aspect("equal")
    panels[0].set_ylabel("position")
    panels[0].invert_yaxis()
    save_figure(
        figure,
        path,
        "Four attention maps: both heads of the first layer look one position "
        "back, both of the second ten",
    )


def distance_curve(numbers: dict[str, Any], path: Path) -> None:
    r"""Draw the mean score of each head against the distance of key and query.

    Args:
        numbers: what `measure` gave.
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    figure, axes = new_figure(height=2.9)
    curves = [
        (f"layer {i + 1}, head {j + 1}", scores)
        for i, layer in enumerate(numbers["scores"])
        for j, scores in enumerate(layer)
    ]
    for (name, scores), colour in zip(curves, COLOURS, strict=True):
        axes.plot(
            range(len(scores)), scores, color=colour, marker="o", ms=3, label=name
        )
    # Above the picture: the crests of two heads lie too close for a name beside each.
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncols=4,
        frameon=False,
        handlelength=0,
        labelcolor="linecolor",
    )
    axes.set(xlabel="how many positions the key stands before the query")
    axes.set(ylabel="mean score", xticks=range(0, 16))
    axes.grid(axis="y")
    save_figure(
        figure,
        path,
        "Mean score against distance for four heads: waves, whose crests lie at a "
        "distance of one in the first layer and of ten in the second",
    )


def recompute() -> float:
    """Train the model again, and store its numbers.

    Returns:
        The greatest difference to the scores before; infinite if there were none.
    """
    path, difference = IMAGES / "data" / "heads.json", math.inf
    new = measure(learn_to_repeat()[0])
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        a, b = torch.tensor(old["scores"]), torch.tensor(new["scores"])
        difference = (a - b).abs().max().item()
    with atomic_write(path) as file:
        file.write((json.dumps(new) + "\n").encode())
    return difference


if __name__ == "__main__":
    print(f"largest difference: {recompute():.2f}")
