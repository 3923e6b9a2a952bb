"""How fast are tokens learned, in how much memory? Parts of `benchmarks.tokenizer`."""

import subprocess
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import peer_bpe
from benchmarks.measure import Part, Record, Target, peak
from benchmarks.peer_bpe import HUGGING_FACE, RUSTBPE
from benchmarks.texts import MB, code, documentation, documents, noted
from minillm.bpe import train_bpe

# What is learned, from how many MB of which text, beside whom, and how many times as
# fast it shall be.
CASES = (
    (10_000, 10, documentation, HUGGING_FACE, 1.5),
    (10_000, 10, documentation, RUSTBPE, None),
    (50_000, 10, documentation, RUSTBPE, 0.8),
    (10_000, 100, code, RUSTBPE, 1.0),
)
TRAINERS = {
    HUGGING_FACE: peer_bpe.train_hugging_face,
    RUSTBPE: peer_bpe.train_rustbpe,
}


def train(record: Record) -> None:
    """Learn tokens, beside the program whose speed is the aim.

    Ours runs in one thread; Hugging Face's trainer and rustbpe use all cores. The
    vocabularies are not compared here, since the programs break ties differently.
    """
    for i, (vocab_size, megabytes, source, peer, goal) in enumerate(CASES):
        case = f"{vocab_size:,} tokens, {megabytes} MB of {source.__name__}"
        text = source(megabytes * MB // (1000 if record.quick else 1))
        pieces = documents(noted(record, f"{source.__name__}, {megabytes} MB", text))
        n = 1000 if record.quick else vocab_size
        with record.optional(f"{peer}: {case}"):
            found = record.take_turns(
                {
                    "us": partial(train_bpe, pieces, n),
                    peer: partial(TRAINERS[peer], pieces, n),
                },
                *(3, 1 / (len(CASES) - i), 0),
            )
            target: Target | None = ("ratio >=", goal) if goal else None
            record.row(case, found["us"], peer, found[peer], target=target)


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
    "train": Part(train, 50),
    "memory": Part(memory, 25),
}
