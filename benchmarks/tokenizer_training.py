"""How fast are tokens learned, in how much memory? Parts of `benchmarks.tokenizer`."""

import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import peer_bpe
from benchmarks.measure import Part, Record, Target, peak
from benchmarks.peer_bpe import HUGGING_FACE
from benchmarks.texts import MB, code, documentation, documents, noted
from minillm.bpe import train_bpe


def train(record: Record) -> None:
    """Learn 10,000 and 50,000 tokens from 10 MB of documentation.

    Ours runs in one thread; Hugging Face's trainer and rustbpe use all cores.
    """
    sizes = (500, 1_000) if record.quick else (10_000, 50_000)
    size = 10 * MB // (100 if record.quick else 1)
    pieces = documents(noted(record, "documentation", documentation(size)))
    for i, vocab_size in enumerate(sizes):
        case = f"{vocab_size:,} tokens"
        programs: dict[str, Callable[[], object]] = {
            "us": partial(train_bpe, pieces, vocab_size),
            HUGGING_FACE: partial(peer_bpe.train_hugging_face, pieces, vocab_size),
        }
        try:
            peer_bpe.train_rustbpe(pieces[:1], 300)
            programs["rustbpe"] = partial(peer_bpe.train_rustbpe, pieces, vocab_size)
        except ImportError as error:
            record.not_measured(f"rustbpe: {case}", error)
        found = record.take_turns(programs, 3, (0.4, 1)[i], warm_up=0)
        us = found.pop("us")
        for peer, theirs in found.items():
            # Of the smaller vocabulary it shall be so many times as fast as they are.
            judged = vocab_size == sizes[0] and peer == HUGGING_FACE
            goal: Target | None = ("ratio >=", 1.5) if judged else None
            record.row(case, us, peer, theirs, target=goal)


LEARN = """
import sys
from minillm.bpe import train_bpe
train_bpe(sys.argv[1], 10_000)
"""


def memory(record: Record) -> None:
    """Learn 10,000 tokens from a file, and say how much memory that took at its peak.

    The file is read as a stream. Where there is less code than that, it is repeated.
    """
    size = 2 if record.quick else 500
    text = noted(record, "code", code(size * MB)).encode()
    limit = max(record.left(), 10)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_bytes((text * -(-size * MB // len(text)))[: size * MB])
        try:
            used = peak(LEARN, str(path), limit=limit) / MB
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"it took more than {limit:.0f} seconds") from None
    target: Target | None = None if record.quick else ("ours <=", 600)
    record.row(f"{size} MB, 10,000 tokens", [used], unit="MB", target=target)


PARTS = {
    "train": Part(train, 30),
    "memory": Part(memory, 25),
}
