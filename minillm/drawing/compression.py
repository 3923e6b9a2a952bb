r"""The figure of the tokenizer chapter: compression against the size of the vocabulary.

The points are in `images/data/compression.json`. They are computed from the embedded
tales, with GPT-2's two files for its own point, by

```sh
python -m minillm.drawing.compression encoder.json vocab.bpe
```

and nothing in them depends on the machine.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from minillm.bpe import BPETokenizer, train_bpe
from minillm.data import andersen, split
from minillm.drawing.kit import BLUE, ORANGE, label_at, new_figure, save_figure
from minillm.files.reading import IMAGES
from minillm.files.writing import atomic_write

__all__ = ["compression_curve", "compression_points"]


def compression_points(gpt2: BPETokenizer) -> dict[str, Any]:
    r"""Measure on tales that no merge was learned from.

    Args:
        gpt2: GPT-2's tokenizer.

    Returns:
        `bytes`, of the unseen tales; `ours`, pairs of vocabulary size and number of
        tokens; `gpt2`, such a pair.
    """
    seen, unseen = split(andersen())
    # The merges of a small vocabulary are the first ones of a large one, so one
    # training is enough. It ends when every word of the text is one token.
    vocab, merges = train_bpe(seen, 1 << 15)
    sizes = [round(256 * 2 ** (k / 2)) for k in range(14)]
    sizes = [*(size for size in sizes if size < len(vocab)), len(vocab)]
    ours = []
    for size in sizes:
        part = {id_: vocab[id_] for id_ in range(size)}
        ours.append([size, _count(BPETokenizer(part, merges[: size - 256]), unseen)])
    return {
        "bytes": sum(len(tale.encode()) for tale in unseen),
        "ours": ours,
        "gpt2": [gpt2.vocab_size, _count(gpt2, unseen)],
    }


def _count(tokenizer: BPETokenizer, texts: list[str]) -> int:
    return sum(len(tokenizer.encode(text)) for text in texts)


def compression_curve(points: dict[str, Any], path: Path) -> None:
    r"""Draw how many bytes a token stands for, against the size of the vocabulary.

    Args:
        points: what
            [`compression_points`][minillm.drawing.compression.compression_points]
            returns.
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    sizes, counts = zip(*points["ours"], strict=True)
    ratios = [points["bytes"] / count for count in counts]
    gpt2_size, gpt2_count = points["gpt2"]
    gpt2_ratio = points["bytes"] / gpt2_count
    figure, axes = new_figure()
    axes.plot(sizes, ratios, color=BLUE, marker="o", ms=4)
    axes.plot(gpt2_size, gpt2_ratio, color=ORANGE, marker="o", ms=7)
    for text, point, offset, colour, alignment in (
        ("learned from other tales", (sizes[5], ratios[5]), (10, -8), BLUE, "left"),
        (
            f"GPT-2: {gpt2_size:,} tokens, {gpt2_ratio:.2f}",
            (gpt2_size, gpt2_ratio),
            (4, -18),
            ORANGE,
            "right",
        ),
        (
            f"{sizes[-1]:,}: no pair is left, {ratios[-1]:.2f}",
            (sizes[-1], ratios[-1]),
            (0, 12),
            BLUE,
            "center",
        ),
    ):
        label_at(axes, text, point, offset, colour, alignment)
    axes.set_xscale("log", base=2)
    axes.minorticks_off()
    ticks = [256 * 2**k for k in range(0, 9, 2)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set(xlabel="tokens in the vocabulary", ylabel="bytes of text for each token")
    axes.set_ylim(0, 5)
    axes.grid(axis="y")
    save_figure(
        figure,
        path,
        "Bytes for each token on unseen tales against the size of the vocabulary: a "
        "curve that rises ever more slowly, and a point for GPT-2",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compute the points of the figure.")
    parser.add_argument("vocab_json", help="GPT-2's vocab.json, or encoder.json")
    parser.add_argument("merges_txt", help="GPT-2's merges.txt, or vocab.bpe")
    given = parser.parse_args()
    new = compression_points(
        BPETokenizer.from_gpt2_files(given.vocab_json, given.merges_txt)
    )
    with atomic_write(IMAGES / "data" / "compression.json") as file:
        file.write((json.dumps(new) + "\n").encode())
    print(json.dumps(new))
