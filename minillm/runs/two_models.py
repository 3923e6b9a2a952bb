r"""One million and 135 million, in the same code.

**The question.** The model of [`minillm.runs.demo`][] has a million weights and was
trained on one book. Does anything but size separate it from a model that people use?

SmolLM2-135M-Instruct (Ben Allal et al. 2025, arXiv:2502.02737) is one of the smallest
of those. `make smollm2` fetches it, [`minillm.files.gguf_files`][] reads it, and from
there on the code is the same, line for line: the model, the cache, the sampling. Only
the numbers differ.

--8<-- "images/data/two_models.md"

The tale is *The Ugly Duckling*, the first of those that are held out from the demo's
model.
Bits per byte can be compared although the tokens differ, because both models must
predict the same bytes ([`minillm.training.loss.bits_per_byte`][]); both read windows of
128 tokens and of the whole tale, which is as far as each can look back.

Two warnings. Andersen's tales are in many places on the web, so the large model was
probably trained on this one: for that model it is not held out. And its weights are
rounded to four bits each, which costs a little accuracy.

To compute the table again, with a run of the demo and the fetched file:

```console
python -m minillm.runs.two_models runs/demo models/SmolLM2-135M-Instruct.Q4_1.gguf
```
"""

import argparse
from os import PathLike
from pathlib import Path

import numpy as np

from minillm.data import andersen, split
from minillm.files.opening import Opened, open_model
from minillm.files.reading import IMAGES
from minillm.files.writing import atomic_write
from minillm.generate import stream_text
from minillm.runs.demo import read_log
from minillm.runs.display import SAMPLING
from minillm.training.loss import bits_per_byte, evaluate

__all__ = ["compare_models", "measure", "unseen_tale"]

PROMPT = "Once upon a time"


def unseen_tale() -> str:
    """The first of the tales that the demo holds out.

    Returns:
        The tale, its title first.

    Examples:
        >>> unseen_tale().splitlines()[0]
        'THE UGLY DUCKLING'
    """
    return split(andersen())[1][0]


def measure(opened: Opened, tale: str) -> float:
    """Compute how well a model predicts a tale.

    Args:
        opened: the model.
        tale: the text.

    Returns:
        Bits per byte; the tale is read after the token that stands between documents.
    """
    start = opened.tokenizer.special_tokens["<|endoftext|>"]
    tokens = np.array([start, *opened.tokenizer.encode(tale)])
    loss = evaluate(opened.model, tokens)
    return bits_per_byte(loss, len(tokens) - 1, len(tale.encode()))


def compare_models(sources: list[str | PathLike[str]], names: list[str]) -> str:
    """Put models side by side, in a table of Markdown.

    Args:
        sources: where the models are, as for
            [`open_model`][minillm.files.opening.open_model].
        names: what to call them.

    Returns:
        The table, and below it a sample of each.
    """
    tale = unseen_tale()
    rows: dict[str, list[str]] = {
        "weights": [],
        "layers, width, heads (of keys)": [],
        "context, tokens": [],
        "vocabulary, tokens": [],
        "bytes a token, in the tale": [],
        "**bits per byte of the tale**": [],
    }
    samples = ""
    for name, source in zip(names, sources, strict=True):
        opened = open_model(source)
        model, tokenizer, _ = opened
        c = model.config
        cells = [
            f"{sum(weight.numel() for weight in model.parameters()):,}",
            f"{c.n_layers}, {c.d_model}, {c.n_heads} ({c.n_kv_heads})",
            f"{c.context_length:,}",
            f"{c.vocab_size:,}",
            f"{len(tale.encode()) / len(tokenizer.encode(tale)):.2f}",
            f"**{measure(opened, tale):.2f}**",
        ]
        for row, cell in zip(rows.values(), cells, strict=True):
            row.append(cell)
        pieces = stream_text(
            model,
            tokenizer,
            PROMPT,
            80,
            **SAMPLING,
            seed=0,
        )
        text = " ".join((PROMPT + "".join(pieces)).split())
        samples += f"\n{name} writes:\n\n> {text} …\n"
    lines = [["", *names], ["---"] * (len(names) + 1)]
    lines += [[what, *cells] for what, cells in rows.items()]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return table + samples


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Put two models side by side.")
    parser.add_argument("run", help="a run of the demo")
    parser.add_argument("smollm2", help="the GGUF file of SmolLM2")
    arguments = parser.parse_args()
    steps = read_log(arguments.run)[0]["steps"]
    written = compare_models(
        [arguments.run, arguments.smollm2],
        [
            f"The demo's model ({steps:,} steps)",
            Path(arguments.smollm2).name.split(".")[0],
        ],
    )
    with atomic_write(IMAGES / "data" / "two_models.md") as file:
        file.write(written.encode())
    print(written)
