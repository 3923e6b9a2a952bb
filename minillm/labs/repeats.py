r"""The same test on models of language: what a second copy is worth.

**The question.** The models of [`minillm.labs.context`][] live in a world of three
states. Do models of real text have the same two heads, and can it be seen from outside?

Take random tokens, and write them twice in a row. The first copy is noise: nobody can
guess it. The second can be predicted with certainty, but only by finding the earlier
occurrence and reading on, since no such text was in any training set. So what the
second copy costs *less* has been learned from the context. (It may cost more, too: it
stands at later positions, after more noise. Repeated random tokens are the test of
Olsson et al. 2022, arXiv:2209.11895.)

>>> from minillm.config import ModelConfig
>>> _ = torch.manual_seed(0)
>>> model = TransformerLM(ModelConfig(50, 64, d_model=32, n_layers=2, n_heads=2))
>>> copies = measure_copies(model, length=20, n=4)
>>> abs(copies.first - copies.second) < 0.1  # untrained: the second is noise, too
True

`python -m minillm.labs.repeats runs/demo model.gguf` measures a run of this package, or
any model that [`minillm.hub`][] reads. **Told in** [`minillm.emergence`][].
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import torch

from minillm.files.opening import open_model
from minillm.files.reading import IMAGES
from minillm.files.writing import atomic_write
from minillm.flops import param_count
from minillm.inference.attention_maps import attention_maps
from minillm.model import TransformerLM
from minillm.train import cross_entropy

__all__ = ["Copies", "committed_copies", "measure_copies"]


class Copies(NamedTuple):
    """How a model reads the same noise twice.

    Attributes:
        first: nats per token of the first copy.
        second: nats per token of the second.
        induction: over the second copy, how much attention the best head of the model
            gives to the position after the same token in the first.
        previous: how much the best head gives to the previous position.
    """

    first: float
    second: float
    induction: float
    previous: float


@torch.no_grad()
def measure_copies(
    model: TransformerLM, length: int = 60, n: int = 8, seed: int = 0
) -> Copies:
    r"""Let a model read random tokens, twice in a row.

    Args:
        model: the model.
        length: tokens in a copy; two copies must fit into the context.
        n: how many such texts.
        seed: fixes the tokens.

    Returns:
        The losses, and the scores of the best heads.

    Raises:
        ValueError: if two copies do not fit.
    """
    if not 2 < 2 * length <= model.config.context_length:
        raise ValueError(
            f"two copies must fit into {model.config.context_length} tokens; got "
            f"length {length}: choose a shorter one"
        )
    random = torch.Generator().manual_seed(seed)
    noise = torch.randint(model.config.vocab_size, (n, length), generator=random)
    ids = torch.cat([noise, noise], dim=1)
    logits = model(ids[:, :-1])
    # The token that begins the second copy comes by surprise: nothing says that the
    # first is over. So does the first of all, which is never predicted.
    first = cross_entropy(logits[:, : length - 1], ids[:, 1:length])
    second = cross_entropy(logits[:, length:], ids[:, length + 1 :])
    # Place t of the second copy stands t - length in the first; what came next there is
    # one further: t - length + 1.
    best = {1: 0.0, length - 1: 0.0}
    for layer in attention_maps(model, ids):
        for back in best:
            seen = layer.diagonal(-back, dim1=-2, dim2=-1)[..., length - back :]
            best[back] = max(best[back], seen.mean((0, 2)).max().item())
    return Copies(first.item(), second.item(), best[length - 1], best[1])


def committed_copies() -> dict[str, Copies]:
    """Read what was measured.

    Returns:
        The measures of each model, by the name of its file.
    """
    committed = IMAGES / "data" / "lab-repeats.json"
    measured = json.loads(committed.read_text(encoding="utf-8"))
    return {
        name: Copies(*(m[x] for x in Copies._fields)) for name, m in measured.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what a second copy is worth.")
    parser.add_argument("models", nargs="+", type=Path, help="folders or GGUF files")
    parser.add_argument("--out", type=Path, help="a JSON file, extended")
    asked = parser.parse_args()
    out: dict[str, dict[str, float]] = {}
    if asked.out and asked.out.exists():
        out = json.loads(asked.out.read_text(encoding="utf-8"))
    for path in asked.models:
        model = open_model(path)[0]
        copies = measure_copies(model)
        out[path.stem] = {
            "parameters": param_count(model.config).total,
            **{name: round(x, 4) for name, x in copies._asdict().items()},
        }
        print(path.stem, json.dumps(out[path.stem]))
    if asked.out:
        with atomic_write(asked.out) as file:
            file.write((json.dumps(out, indent=1) + "\n").encode())
