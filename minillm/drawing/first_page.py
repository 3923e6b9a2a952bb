r"""The numbers of the first page: what the demo's model predicts, and how well.

The page *What a language model is* shows three prompts with the most probable next
tokens, a text that the model wrote, and the bits per byte that it reached. All of that
comes from one trained model. `python -m minillm.drawing.first_page --run runs/demo`
asks it and writes the answers to `images/data`;
`python -m minillm.drawing.figures --recompute` trains the demo and does the same.

From the same numbers and those of `benchmarks.sweep` comes the table that tells the
story of the demo's settings.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from minillm import load
from minillm.files.reading import IMAGES
from minillm.files.writing import atomic_write
from minillm.generate import generate
from minillm.runs.demo import read_log
from minillm.runs.display import SAMPLING

__all__ = ["first_page_data", "first_page_text", "settings_table", "write_first_page"]

PROMPTS = ("There was once a", "The little mermaid", "Once upon a")
START = "Once upon a time"
SHOWN = 6
DATA = IMAGES / "data"
# What the names of benchmarks.sweep stand for.
SETTINGS = {
    "before": "4 layers, 8 sequences in a step",
    "half the depth, half the batch": "2 layers, 4 sequences in a step",
    "the same, half the rate, more decay": "the same, with half the learning rate and "
    "three times the weight decay",
    "a vocabulary of 1024, narrower": "2 layers, 4 sequences, 1,024 token ids, vectors "
    "of 96 numbers instead of 128",
}


def first_page_data(run: str | PathLike[str]) -> dict[str, Any]:
    """Ask a trained model what the first page shows.

    Args:
        run: the folder of a run, such as `runs/demo`.

    Returns:
        `prompts` (each with its most probable next tokens and their probabilities),
        `written` (a text that begins with `start`) and `result` (sizes, losses and
        baselines of the run).

    Raises:
        FileNotFoundError: if there is no such run.
    """
    model, tokenizer = load(run)
    prompts = {}
    for prompt in PROMPTS:
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode(prompt)]))[0, -1]
        top = logits.softmax(dim=-1).topk(SHOWN)
        prompts[prompt] = [
            [tokenizer.decode([id_]), round(p, 4)]
            for p, id_ in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]
    ids = generate(model, tokenizer.encode(START), 60, **SAMPLING, seed=0)
    log = read_log(run)
    result = next(line for line in log if line["event"] == "result")
    return {
        "prompts": prompts,
        "start": START,
        "written": tokenizer.decode(ids),
        "result": {
            "vocab_size": tokenizer.vocab_size,
            "steps": max(line["step"] for line in log if line["event"] == "step"),
            "parameters": result["parameters"],
            "tokens": result["tokens"],
            "loss": round(result["loss"], 3),
            "tokens_per_byte": round(result["tokens_per_byte"], 4),
            "bits_per_byte": round(result["bits_per_byte"], 4),
            "baselines": {k: round(v, 4) for k, v in result["baselines"].items()},
        },
    }


def first_page_text(data: Mapping[str, Any]) -> dict[str, str]:
    r"""Write the numbers as the parts of the page.

    Args:
        data: what [`first_page_data`][minillm.drawing.first_page.first_page_data]
            found.

    Returns:
        Markdown by name: `next`, the table of next tokens; `written`, the sample.

    Examples:
        >>> data = {"prompts": {"A": [[" b", 0.5], ["`", 0.25]]}, "start": "A",
        ...         "written": " b\nc"}
        >>> parts = first_page_text(data)
        >>> print(parts["next"])
        | after “A” |
        | --- |
        | `␣b` 50% |
        | `` ` `` 25% |
        | all others 25% |
        >>> parts["written"].splitlines()
        ['> **A** b<br>', '> c']
    """
    columns = [
        [*(f"{_code(token)} {p:.0%}" for token, p in tokens),
         f"all others {1 - sum(p for _, p in tokens):.0%}"]
        for tokens in data["prompts"].values()
    ]  # fmt: skip
    heads = [f"after “{prompt}”" for prompt in data["prompts"]]
    lines = [heads, ["---"] * len(heads), *zip(*columns, strict=True)]
    text = "**" + data["start"] + "**" + data["written"].rstrip()
    paragraphs = [line for line in text.split("\n") if line.strip()]
    return {
        "next": "\n".join(f"| {' | '.join(line)} |" for line in lines),
        "written": "\n".join(
            "> " + line for line in "<br>\n".join(paragraphs).split("\n")
        ),
    }


def _code(token: str) -> str:
    shown = token.replace(" ", "␣").replace("\n", "⏎").replace("|", "∣")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def settings_table(sweep: Sequence[Mapping[str, Any]], demo: Mapping[str, Any]) -> str:
    r"""Tell how the settings of the demo were found, in one table.

    Args:
        sweep: the results of `benchmarks.sweep`: each setting trained for the same
            time, with how long one of its steps takes (in steps of the first).
        demo: the result of the demo, which has the last setting.

    Returns:
        Markdown; the last row is the demo, the run that the loss curve shows.

    Examples:
        >>> sweep = [{"name": "before", "ratio": 1, "steps": 7, "parameters": 2000,
        ...           "bits": 1.9}]
        >>> demo = {"steps": 20, "parameters": 1000, "bits_per_byte": 1.66}
        >>> print(settings_table(sweep, demo).splitlines()[-1])
        | **the demo** | 1.00 × | 20 | 0.0 million | **1.66** |
    """
    lines = [
        "| setting | time of a step (first row = 1 ×) | steps | parameters "
        "| bits per byte |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    rows = sorted(sweep, key=lambda row: -row["bits"])
    lines += [
        f"| {SETTINGS.get(row['name'], row['name'])} | {row['ratio']:.2f} × "
        f"| {row['steps']:,} | {row['parameters'] / 1e6:.1f} million "
        f"| {row['bits']:.2f} |"
        for row in rows
    ]
    lines.append(
        f"| **the demo** | {rows[-1]['ratio']:.2f} × | {demo['steps']:,} "
        f"| {demo['parameters'] / 1e6:.1f} million | **{demo['bits_per_byte']:.2f}** |"
    )
    return "\n".join(lines)


def write_first_page(run: str | PathLike[str] | None = None) -> list[Path]:
    """Write the numbers, and the parts of the page that show them.

    Args:
        run: a trained model; `None` keeps the committed numbers.

    Returns:
        The files.
    """
    path = DATA / "first_page.json"
    data = json.loads(path.read_text("utf-8")) if run is None else first_page_data(run)
    sweep = json.loads((DATA / "sweep.json").read_text(encoding="utf-8"))
    written = {path: json.dumps(data, indent=1, ensure_ascii=False)}
    for name, text in first_page_text(data).items():
        written[DATA / f"first_page-{name}.md"] = text
    written[DATA / "demo-settings.md"] = settings_table(sweep, data["result"])
    for target, text in written.items():
        with atomic_write(target) as file:
            file.write((text + "\n").encode())
    return list(written)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the numbers of the first page.")
    parser.add_argument("--run", help="a trained model, such as runs/demo")
    for written_file in write_first_page(parser.parse_args().run):
        print(written_file)
