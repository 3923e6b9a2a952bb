"""Write the page about speed from what was measured: `python -m benchmarks.page`.

The numbers come from `images/data/bench`, which `python -m benchmarks` renews; nobody
writes them by hand. `make pages` calls this, and a test compares.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.command import NAMES, RESULTS, ROOT
from benchmarks.machine import BUSY
from benchmarks.measure import met, show
from minillm.files.writing import atomic_write

PAGE = ROOT / "docs" / "speed.md"
# bf16 beside float32, for the lesson on precision.
PRECISION = ROOT / "images" / "data" / "training-speed.md"

HEADINGS = {
    "tokenizer": "The tokenizer",
    "model": "The model",
    "decoding": "Writing in eight bits",
    "gradients": "Gradients by hand",
    "training": "Training",
    "sampling": "Sampling many sequences",
    "curation": "Cleaning a crawl",
    "start": "Until something happens",
}
TITLES = {
    "encode": "Encoding",
    "newest": "The newest programs",
    "long": "Words without an end",
    "file": "Files, with two processes",
    "train": "Learning tokens",
    "memory": "Memory",
    "step": "A step of training",
    "compiled": "The same, compiled",
    "decode": "Writing",
    "cache": "With and without a cache",
    "tokens": "A token in eight bits",
    "llama": "A token beside llama.cpp",
    "prompts": "A prompt in eight bits",
    "opened": "Opening a file",
    "pass": "Forward and backward, on the tape",
    "processes": "Two processes",
    "messages": "Gradients in one message",
    "lab": "For reinforcement learning",
    "extraction": "Text from HTML",
    "minhash": "Signatures of near duplicates",
    "growth": "Ten times as many pages",
    "commands": "An import",
    "site": "The site",
}
INTRODUCTION = """\
# How fast is it, beside the best?

*This page is written by a program from what another has measured.* `make bench`
measures again and writes it again, in about five minutes on two cores; `python -m
benchmarks NAME` measures one of its parts: {names}.

**The ratio comes first.** It says how many times as fast as the other program this
package is: above 1, ours is the faster one. Both got the same input and took turns, in
random order, in one process or, where a table says so or a start is timed, in processes
of their own. A figure is the median of the turns. The quartiles stand in brackets; of
three turns they say little.
"""
# Where the time or the memory goes, for parts whose target is missed.
REASONS = {
    "encode": (
        "Where it is missed: what was met before is found and looked up in NumPy "
        "([how](tokenizer/runs.md)). What is new gets numbers in a dictionary of "
        "Python, is cut by `re` and merged in step, and that takes the larger part of "
        "the time."
    ),
    "file": (
        "Where it is missed: starting two processes takes 0.4 seconds, and each of "
        "them learns the words of the text on its own, while one process alone has "
        "read the whole file in less than two seconds."
    ),
    "train": (
        "Where it is missed: with 50,000 tokens, most of the time goes into rare "
        "pairs, of which each merge takes some ten microseconds of Python."
    ),
    "memory": (
        "Where it is missed: about a million distinct runs are remembered at a time "
        "([how](tokenizer/arrays.md)). A good part of the peak is no longer used: the "
        "C library of Linux keeps what NumPy has freed. With "
        "`MALLOC_MMAP_THRESHOLD_=262144` in the environment it gives it back, and the "
        "peak is about a third lower."
    ),
    "step": (
        "Where it is missed: both sides spend most of a step in the same products of "
        "matrices (MFU says how much), which leaves little to win in float32. What we "
        "win with the loss and AdamW, root-mean-square norms, rotary positions and "
        "gated layers take again: they are more, and smaller, operations."
    ),
    "decode": (
        "Where it is missed: each token takes all weights out of memory once, on both "
        "sides, and that is most of the time."
    ),
    "llama": (
        "Where it is missed: the peer reads five bits of a weight where ours reads "
        "eight, and it is one program, while a token of ours is hundreds of calls of "
        "PyTorch."
    ),
    "processes": (
        "Where it is missed: the two passes are divided, and gradients are averaged "
        "([how long](systems.md#minillm.systems--what-messages-cost)); clipping and "
        "AdamW are not, but "
        "take under a millisecond. The larger part of the difference has not been "
        "traced; a step also averages its loss."
    ),
    "cache": (
        "Where it is missed: with the cache, a token of so small a model is a hundred "
        "small operations, and calling them takes longer than they do. Without it, "
        "each token is a few products that are large enough for both cores."
    ),
    "site": (
        "Where it is missed: the site has grown to nearly 180 pages since the target "
        "was set. More than four fifths of the time are spent in mkdocstrings, "
        "Pygments and the index of the search."
    ),
    "minhash": (
        "Where it is missed: about half of the time goes into cutting the text into "
        "words and looking up their hashes, the rest into products of 64-bit integers, "
        "which AVX-512 has an instruction for and AVX2 has not."
    ),
}
# What the tokenizer's tables mean for a reader, below them.
TERABYTE = """\
**How the newest programs do it.** They are written in Rust, and each part of the work
is done in another way than here. *Cutting:* none of them runs a general engine on a
pattern that it knows. [tokenizers 1.0](https://github.com/huggingface/tokenizers),
[gigatoken](https://github.com/marcelroed/gigatoken) and
[fastokens](https://github.com/crusoecloud/fastokens) look up the class of each byte in
a table, dozens of bytes at a time by SIMD, and find the ends of words in the bits that
result. The first two have nothing else, so they refuse other patterns. *Looking up:* an
entry of gigatoken's cache holds a word of up to 15 bytes and up to four ids in 32
bytes, half a cache line, so that finding it reads memory once, and the processor is
told beforehand which line it will be. *Merging* matters less, since each keeps the
words that it has met. [tokie](https://github.com/chonkie-inc/tokie) merges a short new
word by rank, and for a long one walks an automaton that finds the longest token, in a
time that grows with the length only; fastokens merges with a heap. What NumPy can do of
this, ours does ([runs](tokenizer/runs.md), [arrays](tokenizer/arrays.md)).

**For a terabyte,** train the tokenizer here and encode with the fastest program that
reads its `tokenizer.json` and gives your ids. [Most do](tokenizer/crossings.md), but
compare a few megabytes first. Ours is fast enough for what one machine trains on.
"""
# What nobody should read into the tables.
NEVER = (
    "Other processors than this one. All figures are of one machine.",
    "Other systems than Linux. On Windows and macOS the ratios may differ.",
    "GPUs. `python -m benchmarks.gpu` measures on one, and prints what it finds.",
    "nanoGPT itself. Its counterpart here was written for the comparison, in the same "
    "manner, so that both sides can be read and changed.",
    "The quality of what is learned at equal speed; the [demo](runs/demo.md) is about "
    "that.",
    "Text in other languages than English and Python.",
)


def load(folder: Path = RESULTS) -> dict[str, Any]:
    """Read what was measured, by benchmark."""
    return {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in NAMES
        if (folder / f"{name}.json").exists()
    }


def rows(results: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All rows, each with the name of its benchmark and part."""
    for name, result in results.items():
        for part, entry in result["parts"].items():
            for row in entry["rows"]:
                yield f"{HEADINGS[name]}, {TITLES[part].lower()}", row


def page(results: Mapping[str, Any]) -> str:
    """The whole page as Markdown."""
    pieces = [INTRODUCTION.format(names=", ".join(f"`{name}`" for name in NAMES))]
    pieces += [targets(results), *machines(results)]
    for name, result in results.items():
        pieces.append(f"## {HEADINGS[name]}\n")
        for part, entry in result["parts"].items():
            pieces += [f"### {TITLES[part]}\n", entry["about"] + "\n"]
            if entry["rows"]:
                pieces.append(table(entry["rows"]))
            if part in REASONS and any(met(row) is False for row in entry["rows"]):
                pieces.append(REASONS[part] + "\n")
            pieces.append(small_print(entry))
        if name == "tokenizer":
            pieces.append(TERABYTE)
    pieces.append("## What was not measured\n")
    absent = [
        f"- {HEADINGS[name]}, {TITLES[part].lower()}: "
        f"{missing['what']}: {missing['why']}\n"
        for name, result in results.items()
        for part, entry in result["parts"].items()
        for missing in entry["missing"]
    ]
    absent += [f"- {HEADINGS[n]}: not at all yet\n" for n in NAMES if n not in results]
    pieces.append("".join(absent) + "".join(f"- {line}\n" for line in NEVER))
    return "\n".join(pieces)


def targets(results: Mapping[str, Any]) -> str:
    """How many targets are met, and which are missed by how much."""
    judged = [(where, row) for where, row in rows(results) if "target" in row]
    missed = [(where, row) for where, row in judged if not met(row)]
    text = f"**Targets met: {len(judged) - len(missed)} of {len(judged)}.**"
    slower = sum(
        row["ratio"][1] < 1
        for _, row in rows(results)
        if "ratio" in row and "target" not in row
    )
    text += f" Of the rows without a target, {slower} are below 1."
    if not missed:
        return text + "\n"
    lines = [
        f"- {where}: {row['case']}"
        f"{', beside ' + row['peer'] if 'peer' in row else ''}: "
        f"{figure(row)}, and should be {goal(row)}\n"
        for where, row in missed
    ]
    return f"{text} Missed:\n\n" + "".join(lines)


def figure(row: Mapping[str, Any]) -> str:
    """What the target of a row is about."""
    if row["target"][0] == "ratio >=":
        return show(row["ratio"], "times")
    return show(row["ours"], row["unit"])


def goal(row: Mapping[str, Any]) -> str:
    """What a row should have reached."""
    what, value = row["target"]
    if what == "ratio >=":
        return f"at least {value:g}"
    if row["unit"] == "s" and value < 1:
        return f"at most {1000 * value:g}\N{NO-BREAK SPACE}ms"
    return f"at most {value:g}\N{NO-BREAK SPACE}{row['unit']}"


def machines(results: Mapping[str, Any]) -> Iterator[str]:
    """Where and when it was measured, and whether others disturbed."""
    told = set()
    for name, result in results.items():
        where, versions = result["machine"], result["versions"]
        text = (
            f"{where['processor']}, {where['cores']} cores "
            f"({', '.join(where['instructions']) or 'instructions not known'}), "
            f"{where['memory, GB']} GB of memory, {where['system']}; "
            + ", ".join(f"{name} {version}" for name, version in versions.items())
        )
        if text not in told:
            yield f"**Measured on:** {text}.\n"
        told.add(text)
        parts = list(result["parts"].values())
        others = max(entry["others"] or 0.0 for entry in parts)
        said = [
            f"begun {parts[0]['date']}",
            f"{sum(entry['seconds'] for entry in parts):,.0f} seconds",
            f"load average {parts[0]['load']}",
            *([f"{result['threads']} threads of PyTorch"] if result["threads"] else []),
        ]
        busy = (
            f" **The machine was busy:** before a part began, other programs used up "
            f"to {others:.0%} of its cores. Ratios suffer less than seconds."
        )
        yield f"*{HEADINGS[name]}:* {', '.join(said)}.{busy * (others > BUSY)}\n"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of one part, without the columns that none of them needs."""
    cells = [
        {
            "ratio": f"**{show(r['ratio'], '')}**" if "ratio" in r else "",
            "what": r["case"].replace("|", "\\|").replace("\n", "\\n"),
            "minillm": show(r["ours"], r["unit"]),
            "the other": show(r["theirs"], r["unit"]) if "ratio" in r else "",
            "which is": r.get("peer", ""),
            "target": f"{goal(r)}: {'met' if met(r) else '**missed**'}"
            if "target" in r
            else "",
            "turns": str(r["turns"]),
            "note": r.get("note", ""),
        }
        for r in rows
    ]
    used = [name for name in cells[0] if any(row[name] for row in cells)]
    lines = [f"| {' | '.join(used)} |", "|" + " --- |" * len(used)]
    lines += [f"| {' | '.join(row[name] for name in used)} |" for row in cells]
    return "\n".join(lines) + "\n"


def small_print(entry: Mapping[str, Any]) -> str:
    """What was read, how long it took, and what else has to be known."""
    said = [
        f"{name}: {text['bytes'] / 1e6:.1f} MB, {text['what']}"
        for name, text in entry["texts"].items()
    ]
    said.append(f"took {entry['seconds']:.0f} s")
    if "clock" in entry:
        said.append(entry["clock"])
    return f"*{'; '.join(said)}.*\n"


def precision(results: Mapping[str, Any]) -> str:
    """How many times as fast as in float32 a step in bf16 was, at each size."""
    ratios = {
        row["case"]: row["ratio"][1]
        for row in results["model"]["parts"]["step"]["rows"]
    }
    lines = ["| | float32 | bf16 |", "| --- | ---: | ---: |"]
    for case, ratio in ratios.items():
        size, _, setting = case.rpartition(", ")
        if setting == "bf16":
            gain = ratio / ratios[f"{size}, float32"]
            lines.append(f"| {size} | 1.00 | {gain:.2f} |")
    return "\n".join(lines) + "\n"


def written(results: Mapping[str, Any]) -> dict[Path, str]:
    """The files that are made of the results, and what shall be in them."""
    files = {PAGE: page(results)}
    if "step" in results.get("model", {}).get("parts", {}):
        files[PRECISION] = precision(results)
    return files


if __name__ == "__main__":
    for path, text in written(load()).items():
        with atomic_write(path) as file:
            file.write(text.encode())
        print(f"{path} is written")
