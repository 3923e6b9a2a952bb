r"""Disclosure: what a report can say, and the one on GPT-4 does not.

**The question.** Reports on large models have become silent about how they were made.
What would the missing lines say, and how much work is it to write them?

The GPT-4 report, to be fair, says this much: GPT-4 is "a Transformer-style model
pre-trained to predict the next token in a document, using both publicly available data
(such as internet data) and data licensed from third-party providers", then fine-tuned
by reinforcement learning from human feedback. Then it says that it
"contains no further details" about a list of things
([`minillm.accounting.industrialization`][]; OpenAI 2023, arXiv:2303.08774, section 2).

Here is what it says and what it leaves out, and beside it what a run of this course
says, as
[`disclose`][minillm.accounting.disclosure.disclose] reads it from the folder that
`minillm demo` leaves behind (`minillm disclose` prints the same of yours):

--8<-- "images/data/disclosure.md"

**Before this:** [`minillm.accounting.industrialization`][].
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from minillm.accounting.cost import mfu
from minillm.files.reading import read_json, read_lines

__all__ = ["GPT4_REPORT", "disclose", "disclosure_table"]

_SILENT = "no further details"

GPT4_REPORT: dict[str, str] = {
    "architecture": "Transformer-style",
    "objective": "predict the next token in a document",
    "data": "publicly available and licensed",
    "fine-tuning": "reinforcement learning from human feedback",
    "model size": _SILENT,
    "hardware": _SILENT,
    "training compute": _SILENT,
    "dataset construction": _SILENT,
    "training method": _SILENT,
}
"""What section 2 of the GPT-4 report says, item by item, in short."""


def disclose(run: str | PathLike[str]) -> dict[str, str]:
    """Say of a run of ours, item by item, what the GPT-4 report is silent about.

    The words are those of this course and the same for every run; each number is read
    from two files that training left behind.

    Args:
        run: a folder that `minillm demo` left behind, with `config.json` and
            `log.jsonl`.

    Returns:
        A text for each item of `GPT4_REPORT`.

    Raises:
        FileNotFoundError: if the folder or one of the two files is missing.
        ValueError: if a file does not say what it should.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "config.json").write_text("{}", encoding="utf-8")
        ...     _ = (Path(folder) / "log.jsonl").write_text("", encoding="utf-8")
        ...     try:
        ...         disclose(folder)
        ...     except ValueError as error:
        ...         print(str(error).partition(" does ")[2])
        not say 'config', so it is no run of this version: train again
    """
    run = Path(run)
    try:
        shape = read_json(run / "config.json")
        log = {line["event"]: line for line in read_lines(run / "log.jsonl")}
    except ValueError as error:
        raise ValueError(f"{run} has a damaged file ({error}): train again") from error
    try:
        return _disclosed(shape, log["config"], log["result"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{run} does not say {error!s:.80}, so it is no run of this version: train "
            "again"
        ) from error


def _disclosed(
    shape: dict[str, Any], how: dict[str, Any], result: dict[str, Any]
) -> dict[str, str]:
    threads = result["threads"]
    used = mfu(result["flops"], result["seconds"], result["peak_flops"])
    return {
        "architecture": (
            f"Transformer: {shape['num_hidden_layers']} layers of width "
            f"{shape['hidden_size']}, {shape['num_attention_heads']} heads, SwiGLU of "
            f"width {shape['intermediate_size']}, RMSNorm, rotary positions"
        ),
        "objective": "predict the next token in a document",
        "data": f"{result['corpus']}, {result['documents']} documents to learn from",
        "fine-tuning": "none",
        "model size": f"{result['parameters']:,} parameters",
        "hardware": (
            f"{result['machine']}, {result['device']}, "
            f"{threads} thread{'s' * (threads > 1)}, "
            f"{result['peak_flops'] / 1e9:.0f} GFLOP/s at best"
        ),
        "training compute": (
            f"{result['flops']:.2e} FLOPs in {result['seconds']:.0f} seconds, "
            f"MFU {used:.0%}"
        ),
        "dataset construction": (
            f"{result['construction']}, {shape['vocab_size']:,} tokens; "
            f"{result['tokens']:,} read, in sequences sampled at random"
        ),
        "training method": (
            f"AdamW, {how['steps']:,} steps of {how['batch_size']} sequences, learning "
            f"rate {how['max_lr']} after {how['warmup_steps']} steps of warm-up, then "
            f"cosine decay, seed {how['seed']}"
        ),
    }


def disclosure_table(ours: Mapping[str, str]) -> str:
    """Set what the GPT-4 report says beside what a run of ours says.

    Args:
        ours: for each item of `GPT4_REPORT`, what our run says about it.

    Returns:
        A table in Markdown.

    Raises:
        ValueError: if an item is missing: we should not be silent either.

    Examples:
        >>> print(disclosure_table({item: "…" for item in GPT4_REPORT})[:78])
        | | GPT-4 report | this run |
        |---|---|---|
        | architecture | Transformer-style
    """
    missing = [item for item in GPT4_REPORT if item not in ours]
    if missing:
        raise ValueError(f"the run must say something about: {', '.join(missing)}")
    rows = [f"| {item} | {text} | {ours[item]} |" for item, text in GPT4_REPORT.items()]
    return "\n".join(["| | GPT-4 report | this run |", "|---|---|---|", *rows])
