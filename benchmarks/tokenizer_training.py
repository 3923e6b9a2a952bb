"""How fast are tokens learned, in how much memory? Parts of `benchmarks.tokenizer`."""

import subprocess
import tempfile
from pathlib import Path

from benchmarks import peer_bpe
from benchmarks.measure import Part, Record, Target, peak
from benchmarks.peer_bpe import HUGGING_FACE
from benchmarks.texts import MB, both, code, documents, grow, noted
from minillm.bpe import train_bpe

# How many times as fast as Hugging Face's trainer it shall be.
GOALS = {"documentation": 1.5, "code": 1.0}


def train(record: Record) -> None:
    """Learn 10,000 tokens, and 356 of them as a naive loop would.

    Ours runs in one thread; Hugging Face's trainer and rustbpe use all cores.
    """
    vocab_size = 1_000 if record.quick else 10_000
    kinds = both(record)
    for i, (kind, text) in enumerate(kinds.items()):
        _train(
            *(record, f"{kind}, {vocab_size:,} tokens", text, vocab_size, 3),
            share=(0.4, 0.8)[i],
            target=("ratio >=", GOALS[kind]),
        )
    sample = kinds["documentation"][: 20_000 if record.quick else 100_000]
    found = record.take_turns(
        {
            "us": lambda: train_bpe([sample], 356),
            "them": lambda: peer_bpe.train_naively(sample, 356),
        },
        *(3, 1, 0),
    )
    record.row(
        f"documentation, {len(sample) // 1000} kB, 356 tokens",
        *(found["us"], "a loop that counts again", found["them"]),
        target=("ratio >=", 100),
    )


def _train(
    record: Record,
    case: str,
    text: str,
    vocab_size: int,
    turns: int,
    share: float,
    target: Target | None = None,
) -> None:
    pieces = documents(text)
    programs = {
        "us": lambda: train_bpe(pieces, vocab_size),
        HUGGING_FACE: lambda: peer_bpe.train_hugging_face(pieces, vocab_size),
    }
    try:
        peer_bpe.train_rustbpe(pieces[:1], 300)
        programs["rustbpe"] = lambda: peer_bpe.train_rustbpe(pieces, vocab_size)
    except ImportError as error:
        record.not_measured(f"rustbpe: {case}", error)
    found = record.take_turns(programs, turns, share, warm_up=0)
    us = found.pop("us")
    for peer, theirs in found.items():
        goal = target if peer == HUGGING_FACE else None
        record.row(case, us, peer, theirs, target=goal)


def train_growth(record: Record) -> None:
    """Learn 10,000 tokens from more and more code."""
    vocab_size = 1_000 if record.quick else 10_000

    def measure(text: str, share: float) -> None:
        size = len(text.encode()) / MB
        turns = 3 if size < 5 else 1
        _train(record, f"{size:.1f} MB", text, vocab_size, turns, share)

    grow(record, measure)


def vocabulary_growth(record: Record) -> None:
    """Learn more and more tokens from 10 MB of documentation."""
    text = both(record)["documentation"]
    sizes = (500, 1_000) if record.quick else (1_000, 3_000, 10_000, 25_000, 50_000)
    for vocab_size in sizes:
        if record.left() < 0:
            record.not_measured(f"{vocab_size:,} tokens", "no time was left for it")
            continue
        _train(record, f"{vocab_size:,} tokens", text, vocab_size, 1, 0.3)


LEARN = """
import sys
who, path = sys.argv[1:]
if who == "us":
    from minillm.bpe import train_bpe
    train_bpe(path, 10_000)
else:
    from benchmarks.peer_bpe import train_hugging_face
    file = open(path, encoding="utf-8")
    train_hugging_face(iter(lambda: file.read(100_000), ""), 10_000)
"""


def memory(record: Record) -> None:
    """Learn 10,000 tokens from a file, and say how much memory that took at its peak.

    The file is read as a stream. Where there is less code than that, it is repeated.
    """
    sizes = (1, 2) if record.quick else (30, 500)
    text = noted(record, "code", code(sizes[-1] * MB)).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        for size in sizes:
            times = -(-size * MB // len(text))
            path.write_bytes((text * times)[: size * MB])
            us = _peak("us", path, record)
            # What they need at 500 MB takes too long to find out.
            theirs = [_peak("them", path, record)] if size == sizes[0] else None
            record.row(
                f"{size} MB, learning 10,000 tokens",
                *([us], HUGGING_FACE, theirs),
                unit="MB",
                target=("ours <=", 600) if size == 500 else None,
            )


def _peak(who: str, path: Path, record: Record) -> float:
    limit = max(record.left(), 10)
    try:
        return peak(LEARN, who, str(path), limit=limit) / MB
    except subprocess.TimeoutExpired:
        raise TimeoutError(
            f"{path.stat().st_size / MB:.0f} MB took more than {limit:.0f} seconds"
        ) from None


PARTS = {
    "train": Part(train, 70),
    "train growth": Part(train_growth, 90),
    "vocabulary growth": Part(vocabulary_growth, 50),
    "memory": Part(memory, 110),
}
