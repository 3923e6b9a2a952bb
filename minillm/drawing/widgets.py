r"""The data behind the site's widgets, computed by the package itself.

A widget lets a reader move what a chapter explains: step through merges, type a
sentence, choose a model, turn a temperature. Its buttons are JavaScript, in
`docs/assets/widgets`; its numbers are ours. `python -m minillm.drawing.widgets`
computes them and writes them as JavaScript, since a page that is opened from disk may
load a script but no data. A test computes them again.

What a reader types or chooses cannot be computed beforehand. For that, the JavaScript
has the few formulas that it needs, and a test holds each of them against the function
of this package that it copies.

The course does not explain this module.
"""

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

from minillm.bpe import GPT2_PATTERN, WordTokenizer, count_pairs, merge, train_bpe
from minillm.files.writing import atomic_write
from minillm.flops import CHIPS, PRESETS
from minillm.tokenizer.patterns import pretokenize

__all__ = ["fallbacks", "sampling_data", "tokenize_data", "watch_data", "write_all"]

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "docs" / "assets" / "widgets"
PAGES = ROOT / "images" / "data"

# Each text with as many merges as find a pair that occurs more than once.
WATCHED = {
    "The cat in the hat": (
        "the cat in the hat sat on the mat, and that cat ate the rat that ate the "
        "malt; what a fat cat",
        12,
    ),
    "Low, lower, lowest": (
        "low low low low low lower lower newest newest newest newest newest newest "
        "widest widest widest",
        15,
    ),
    "Andersen, The Fir-Tree": (
        "Far down in the forest, where the warm sun and the fresh air made a sweet "
        "resting-place, grew a pretty little fir-tree; and yet it was not happy, it "
        "wished so much to be tall like its companions--the pines and firs which grew "
        "around it.",
        26,
    ),
    "你好 🌍": ("你好! 你好吗? 我很好。 你呢? 我也很好。 🌍 🌎 🌏 🌍", 17),
}
VOCAB_SIZES = (512, 2048, 8192)
SENTENCE = "The emperor’s new clothes: unbelievable! 1837 🌍"
PROMPTS = (
    "Once upon a",
    "There was once a",
    "The little mermaid",
    "He looked at the",
)


def _bytes(token: bytes) -> str:
    # A byte string travels as the text of the same numbers.
    return token.decode("latin-1")


def watch_data(text: str, n_merges: int) -> list[dict[str, Any]]:
    r"""Train on a text, and keep every state that training passes through.

    Args:
        text: the text.
        n_merges: after how many merges to stop.

    Returns:
        For each state, from bytes on: `pieces`, the pre-tokens in order, each a list of
        tokens; `pairs`, the six most frequent pairs with their counts, the one to be
        merged next in front; `made`, the token that led here, empty at first.

    Examples:
        >>> states = watch_data("the cat in the hat", 1)
        >>> states[0]["pairs"][:2]
        [['t', 'h', 2], ['h', 'e', 2]]
        >>> states[1]["pieces"][0], states[1]["made"]
        (['th', 'e'], 'th')
    """
    vocab, merges = train_bpe([text], 256 + n_merges)
    pieces = [list(piece.encode()) for piece in pretokenize(text, GPT2_PATTERN)]
    ids = {token: id_ for id_, token in vocab.items()}
    states = []
    for step in range(len(merges) + 1):
        counts: dict[tuple[bytes, bytes], int] = {}
        for (a, b), n in chain.from_iterable(count_pairs(p).items() for p in pieces):
            counts[vocab[a], vocab[b]] = counts.get((vocab[a], vocab[b]), 0) + n
        # Most frequent first, of equals the greater: as the training breaks ties.
        best = sorted(counts, key=lambda pair: (counts[pair], pair), reverse=True)[:6]
        states.append({
            "made": _bytes(b"".join(merges[step - 1])) if step else "",
            "pairs": [[_bytes(a), _bytes(b), counts[a, b]] for a, b in best],
            "pieces": [[_bytes(vocab[i]) for i in piece] for piece in pieces],
        })
        if step < len(merges):
            left, right = merges[step]
            pair = ids[left], ids[right]
            pieces = [merge(piece, pair, 256 + step) for piece in pieces]
    return states


def tokenize_data() -> dict[str, Any]:
    """Learn tokenizers from the fairy tales.

    Returns:
        `merges`, pairs of ids in one flat list, for the largest vocabulary (a smaller
        one has the first of them); `sizes`; and `words`, those of the tales.
    """
    from minillm.data import andersen, split

    training, _ = split(andersen())
    vocab, merges = train_bpe(training, max(VOCAB_SIZES))
    ids = {token: id_ for id_, token in vocab.items()}
    words = WordTokenizer("\n\n\n".join(training)).words
    return {
        "merges": [ids[token] for pair in merges for token in pair],
        "sizes": VOCAB_SIZES,
        "words": words[1:],  # without <unk>
        "sentence": SENTENCE,
    }


def flops_data() -> dict[str, Any]:
    """The published shapes and the chips, from which all else is computed."""
    return {
        # The widget has no slider for experts.
        "presets": {
            name: asdict(shape)
            for name, shape in PRESETS.items()
            if shape.n_experts == 1
        },
        "chips": {name: chip._asdict() for name, chip in CHIPS.items()},
    }


def sampling_data(run: str | PathLike[str]) -> dict[str, Any]:
    """Ask a trained model what comes next.

    Args:
        run: the folder of a run, such as `runs/demo`.

    Returns:
        `steps`, for how many the model was trained; `tokens`, the vocabulary; and
        `prompts`, each with the scores (logits) for every token, rounded to a
        thousandth.
    """
    import torch

    from minillm import load
    from minillm.runs.demo import read_log

    steps = max(line["step"] for line in read_log(run) if line["event"] == "step")
    model, tokenizer = load(run)
    prompts = {}
    for prompt in PROMPTS:
        with torch.inference_mode():
            logits = model(torch.tensor([tokenizer.encode(prompt)]))[0, -1]
        prompts[prompt] = [round(x, 3) for x in (logits - logits.max()).tolist()]
    tokens = [_bytes(tokenizer.vocab[i]) for i in range(tokenizer.vocab_size)]
    return {"steps": steps, "tokens": tokens, "prompts": prompts}


def read(name: str, folder: Path = SCRIPTS) -> Any:
    """Read the data of a widget back from its script.

    Args:
        name: `"watch"`, `"tokenize"`, `"gradients"`, `"flops"` or `"sampling"`.
        folder: where the scripts are.

    Returns:
        The data.
    """
    script = (folder / f"data-{name}.js").read_text(encoding="utf-8")
    return json.loads(script.partition(" = ")[2].rstrip(";\n"))


def script(name: str, data: Any) -> str:
    r"""Write the data of a widget as a script.

    Args:
        name: the widget.
        data: whatever JSON can hold.

    Returns:
        JavaScript that stores the data where the widgets look for them.

    Examples:
        >>> script("watch", [1])
        'minillm.data.watch = [1];\n'
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # Two line ends that a script may not hold, and C1 controls that editors dislike.
    text = "".join(
        f"\\u{ord(c):04x}" if c in "\u2028\u2029" or "\x7f" <= c < "\xa1" else c
        for c in text
    )
    return f"minillm.data.{name} = {text};\n"


def shown(token: str) -> str:
    """Write a token for a table in Markdown, blanks made visible.

    Args:
        token: a token, as a text of its bytes.

    Returns:
        Markdown for code.

    Examples:
        >>> print(shown(" hat"), shown("a|b"))
        `␣hat` `a&#124;b`
    """
    text = token.encode("latin-1").decode("utf-8", "replace")
    text = text.replace(" ", "␣").replace("\n", "⏎")
    return f"`{text}`" if "|" not in text else f"`{text}`".replace("|", "&#124;")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""Write a table in Markdown.

    Args:
        head: the titles of the columns.
        rows: the rows.

    Returns:
        Its lines.

    Examples:
        >>> table(["a", "b"], [[1, 2]])
        '| a | b |\n|---|---|\n| 1 | 2 |\n'
    """
    lines = [head, *rows]
    text = ["| " + " | ".join(map(str, line)) + " |" for line in lines]
    return "\n".join([text[0], "|---" * len(head) + "|", *text[1:], ""])


def fallbacks(data: dict[str, Any]) -> dict[str, str]:
    """Write what a page shows where no script runs.

    Args:
        data: the data of the widgets, by name.

    Returns:
        Markdown, by the name of the widget.
    """
    from minillm.bpe import BPETokenizer, ByteTokenizer, CharTokenizer

    states = next(iter(data["watch"].values()))["states"]
    merges = [
        [n, *map(shown, before["pairs"][0][:2]), before["pairs"][0][2]]
        for n, before in enumerate(states[:8], 1)
    ]
    flat = data["tokenize"]["merges"]
    vocab = {i: bytes([i]) for i in range(256)}
    pairs = []
    for a, b in zip(flat[::2], flat[1::2], strict=True):
        pairs.append((vocab[a], vocab[b]))
        vocab[len(vocab)] = vocab[a] + vocab[b]
    graph = next(iter(data["gradients"].values()))
    last = graph["steps"][-1]
    slopes = [
        [node["name"], node["made"] or "given", f"{value:.3f}", f"{grad:.3f}"]
        for node, value, grad in zip(
            graph["nodes"], last["values"], last["grads"], strict=True
        )
    ]
    rows: list[list[object]] = []
    kinds: list[tuple[str, Any]] = [
        ("characters", CharTokenizer()),
        ("bytes", ByteTokenizer()),
        *(
            (
                f"BPE, {size:,} tokens",
                BPETokenizer({i: vocab[i] for i in range(size)}, pairs[: size - 256]),
            )
            for size in VOCAB_SIZES
        ),
    ]
    n_bytes = len(SENTENCE.encode())
    for name, tokenizer in kinds:
        n = len(tokenizer.encode(SENTENCE))
        rows.append([name, n, f"{n_bytes / n:.2f}"])
    prompt, logits = next(iter(data["sampling"]["prompts"].items()))
    total = sum(map(math.exp, logits))
    order = sorted(range(len(logits)), key=lambda i: -logits[i])[:8]
    likely = [
        [shown(data["sampling"]["tokens"][i]), f"{math.exp(logits[i]) / total:.1%}"]
        for i in order
    ]
    return {
        "watch": table(["merge", "left", "right", "how often"], merges),
        "tokenize": f"“{SENTENCE}” has {n_bytes} bytes.\n\n"
        + table(["tokenizer", "tokens", "bytes per token"], rows),
        "gradients": table(["number", "made from", "value", "gradient"], slopes),
        "sampling": f"What a model expects after “{prompt}”, trained for "
        f"{data['sampling']['steps']} steps:\n\n"
        + table(["next token", "probability"], likely),
    }


def write_all(
    scripts: Path = SCRIPTS,
    pages: Path = PAGES,
    run: str | PathLike[str] | None = None,
) -> list[Path]:
    """Compute the data of all widgets, and write them.

    Args:
        scripts: where the scripts go.
        pages: where the Markdown for readers without scripts goes.
        run: a trained model for the sampling; `None` keeps the committed scores.

    Returns:
        The files.
    """
    # Its chapter's figures import the style of all, and draw_all imports them.
    from minillm.drawing.gradients import graph_data

    data: dict[str, Any] = {
        "watch": {
            title: {"text": text, "states": watch_data(text, n_merges)}
            for title, (text, n_merges) in WATCHED.items()
        },
        "tokenize": tokenize_data(),
        "gradients": graph_data(),
        "flops": flops_data(),
        "sampling": read("sampling") if run is None else sampling_data(run),
    }
    written = {
        scripts / f"data-{name}.js": script(name, part) for name, part in data.items()
    }
    for name, text in fallbacks(data).items():
        written[pages / f"{name}.md"] = text
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(text.encode())
    return list(written)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compute the data of the widgets.")
    parser.add_argument("--run", help="a trained model for the sampling: runs/demo")
    for path in write_all(run=parser.parse_args().run):
        print(path)
