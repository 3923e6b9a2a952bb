"""How fast is the tokenizer, next to tiktoken and Hugging Face's tokenizers?

    python -m benchmarks.tokenizer [encode|file|train|long|memory] ...

All programs take turns on the same text in one process, and each figure is the median
of several turns. A ratio above 1 means that this package is the faster one.

The prose is the State of the Union addresses (a fixture: `make fixtures`), the code is
the standard library of the Python that runs this.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from minillm.bpe import (
    GPT2_PATTERN,
    GPT4_PATTERN,
    O200K_PATTERN,
    BPETokenizer,
    count_pairs,
    merge,
    train_bpe,
)
from minillm.bpe_patterns import pretokenize

FIXTURES = Path(os.environ.get("MINILLM_FIXTURES") or ".cache/fixtures")
# Under these names tiktoken looks for its files.
TIKTOKEN_CACHE = {
    "gpt2/vocab.bpe": "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
    "gpt2/encoder.json": "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
    "r50k_base.tiktoken": "0ea1e91bbb3a60f729a8dc8f777fd2fc07cd8df4",
    "cl100k_base.tiktoken": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base.tiktoken": "fb374d419588a4632f3f557e76b4b70aebbca790",
}
PATTERNS = {
    "r50k_base": GPT2_PATTERN,
    "cl100k_base": GPT4_PATTERN,
    "o200k_base": O200K_PATTERN,
}


def texts() -> dict[str, str]:
    """Prose of 10 MB and code of 20 MB."""
    sotu = FIXTURES / "sotu.txt"
    if not sotu.exists():
        raise SystemExit(f"{sotu} is missing; `make fixtures` fetches it")
    code, size = [], 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if "site-packages" in path.parts:
            continue
        code.append(path.read_text(encoding="utf-8", errors="replace"))
        size += len(code[-1])
        if size > 20_000_000:
            break
    prose = sotu.read_text(encoding="utf-8", errors="replace")
    return {"prose": prose, "code": "".join(code)}


def seconds(function: Callable[..., object], *arguments: object) -> tuple[float, Any]:
    """Call a function once. How long does it take, and what does it return?"""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def tiktoken_encoding(name: str) -> Any:
    """Load a tokenizer of tiktoken, from our files so that it asks no network."""
    import tiktoken

    with tempfile.TemporaryDirectory() as folder:
        for file, cached in TIKTOKEN_CACHE.items():
            shutil.copy(FIXTURES / file, Path(folder) / cached)
        os.environ["TIKTOKEN_CACHE_DIR"] = folder
        return tiktoken.get_encoding(name)


def fresh(name: str) -> BPETokenizer:
    """A tokenizer of ours, ready but without a memory."""
    if name == "gpt2":
        gpt2 = FIXTURES / "gpt2"
        return BPETokenizer.from_gpt2_files(gpt2 / "encoder.json", gpt2 / "vocab.bpe")
    path = FIXTURES / f"{name}.tiktoken"
    return BPETokenizer.from_tiktoken_file(path, PATTERNS[name])


def bench_encode(turns: int) -> None:
    """First half of a text with a fresh tokenizer, then the second with the same."""
    import tokenizers

    print("encoding            tiktoken     ours   / tiktoken      / tokenizers")
    for name in ("gpt2", "cl100k_base", "o200k_base"):
        theirs = tiktoken_encoding(name)
        tokenizer = fresh(name)
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save(Path(folder) / "tokenizer.json")
            hugging = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
        for kind, text in texts().items():
            middle = text.index(" ", len(text) // 2)
            rows: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
            for _ in range(turns):
                # Neither counts what it takes to load a tokenizer.
                tokenizer._encoder.arrays.forget()
                tokenizer._encoder.known.clear()
                for heat, part in (("cold", text[:middle]), ("warm", text[middle:])):
                    their_time, expected = seconds(theirs.encode_ordinary, part)
                    our_time, ids = seconds(tokenizer.encode, part)
                    if ids != expected:
                        raise SystemExit(f"{name}, {kind}: the ids differ")
                    rows[heat].append((their_time, our_time))
            sample = text[middle : middle + 2_000_000]
            slow, _ = seconds(hugging.encode, sample)
            size = len(text.encode()) / 2e6
            for heat, pairs in rows.items():
                theirs_s, ours_s = map(statistics.median, zip(*pairs, strict=True))
                ratio = statistics.median(a / b for a, b in pairs)
                against = (slow / len(sample.encode()) * 1e6) * size / ours_s
                print(
                    f"{name:12}{kind:6}{heat:5}{size / theirs_s:5.1f} MB/s "
                    f"{size / ours_s:5.1f} MB/s   {ratio:5.2f}        {against:6.1f}",
                    flush=True,
                )


def bench_file(turns: int) -> None:
    """`encode_file`, with one process and with two."""
    tokenizer = fresh("gpt2")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_bytes("".join(texts().values()).encode() * 3)
        ratios = []
        for _ in range(turns):
            times = []
            for workers in (1, 2):
                tokenizer._encoder.arrays.forget()
                out = Path(folder) / f"{workers}.npy"
                times.append(seconds(tokenizer.encode_file, path, out, workers)[0])
            ratios.append(times[0] / times[1])
        same = (Path(folder) / "1.npy").read_bytes() == out.read_bytes()
        size = path.stat().st_size / 1e6
    print(
        f"encode_file, {size:.0f} MB, two workers against one: "
        f"{statistics.median(ratios):.2f}x, same file: {same}"
    )


def minbpe_style(text: str, n_merges: int) -> None:
    """Train as minbpe does: count every pre-token again after each merge."""
    chunks = [list(piece.encode()) for piece in pretokenize(text, GPT2_PATTERN)]
    for i in range(n_merges):
        counts = count_pairs([])
        for chunk in chunks:
            counts.update(pairwise(chunk))
        pair = max(counts, key=counts.__getitem__)
        chunks = [merge(chunk, pair, 256 + i) for chunk in chunks]


def bench_train(turns: int) -> None:
    """10,000 tokens, against Hugging Face's trainer with all its threads."""
    import tokenizers

    byte_level = tokenizers.pre_tokenizers.ByteLevel
    for kind, text in texts().items():
        documents = [text[i : i + 100_000] for i in range(0, len(text), 100_000)]
        ratios = []
        for _ in range(turns):
            hugging = tokenizers.Tokenizer(tokenizers.models.BPE())
            hugging.pre_tokenizer = byte_level(add_prefix_space=False)
            trainer = tokenizers.trainers.BpeTrainer(
                vocab_size=10_000,
                initial_alphabet=byte_level.alphabet(),
                show_progress=False,
            )
            theirs, _ = seconds(hugging.train_from_iterator, documents, trainer)
            ours, _ = seconds(train_bpe, documents, 10_000)
            ratios.append((theirs / ours, theirs, ours))
        ratio, theirs, ours = map(statistics.median, zip(*ratios, strict=True))
        print(
            f"training on {kind}: tokenizers {theirs:.1f} s, ours {ours:.1f} s, "
            f"{ratio:.2f}x",
            flush=True,
        )
    sample = texts()["prose"][:200_000]
    slow, _ = seconds(minbpe_style, sample, 100)
    quick, _ = seconds(train_bpe, [sample], 356)
    print(f"a loop that counts again, 100 merges on 200 kB: {slow / quick:.0f}x")


def bench_long(turns: int) -> None:
    """A megabyte without a blank, or of nothing else."""
    theirs, ours = tiktoken_encoding("gpt2"), fresh("gpt2")
    for unit in ("a", " ", "ab", "😀", "\n", "ab "):
        text = unit * (1_000_000 // len(unit.encode()))
        pairs = [
            (
                seconds(theirs.encode_ordinary, text)[0],
                seconds(ours.encode, text)[0],
            )
            for _ in range(turns)
        ]
        a, b = map(statistics.median, zip(*pairs, strict=True))
        print(f"a megabyte of {unit!r}: tiktoken {a:.2f} s, ours {b:.2f} s")


def bench_memory(path: str) -> None:
    """The peak memory of a process that trains on a file."""
    code = (
        "import resource, sys; from minillm.bpe import train_bpe; "
        "train_bpe(sys.argv[1], 10_000); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    time_, done = seconds(
        lambda: (
            subprocess.run(
                [sys.executable, "-c", code, path], capture_output=True, check=True
            ).stdout
        )
    )
    size = Path(path).stat().st_size / 1e6
    print(f"training on {size:.0f} MB: peak {int(done) / 1024:.0f} MiB, {time_:.0f} s")


def main() -> None:
    """Run what is asked for, or all but the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    benches = {
        "encode": bench_encode,
        "file": bench_file,
        "train": bench_train,
        "long": bench_long,
    }
    parser.add_argument("which", nargs="*", help=f"{', '.join(benches)} (all)")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--memory", metavar="FILE", help="measure training on a file")
    arguments = parser.parse_args()
    if arguments.memory:
        bench_memory(arguments.memory)
        return
    for name in arguments.which or benches:
        benches[name](arguments.turns)


if __name__ == "__main__":
    main()
