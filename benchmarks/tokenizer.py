"""How fast is the tokenizer, beside tiktoken, Hugging Face's tokenizers and rustbpe?

python -m benchmarks.tokenizer [PART ...] [--turns N] [--quick] [--cpu]
"""

import random
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks import peer_bpe, tokenizer_training
from benchmarks.command import main
from benchmarks.measure import Part, Record
from benchmarks.peer_bpe import HUGGING_FACE
from benchmarks.texts import MB, both, code, grow, noted
from minillm.bpe import BPETokenizer
from minillm.tokenizer import arrays, runs

# Which part of the speed of tiktoken it shall reach.
WARM = {"documentation": 1.0, "code": 0.7}
COLD = {"documentation": 0.7, "code": 0.6}


def encode(record: Record) -> None:
    """Encode the first half of a text cold, and then the second half warm.

    Cold means that the tokenizer has seen nothing yet; warm, that it remembers the
    words of the first half. The ids are those of tiktoken, all of them. Hugging Face's
    tokenizers read the first half megabyte of the second half.
    """
    names = ("gpt2",) if record.quick else ("gpt2", "cl100k_base", "o200k_base")
    read = both(record)
    left = len(names) * len(read)
    for name in names:
        with record.optional(f"encoding with the table of {name}"):
            for kind, text in read.items():
                _encode(record, name, kind, text, 1 / left)
                left -= 1


def _encode(record: Record, name: str, kind: str, text: str, share: float) -> None:
    tokenizer, theirs = peer_bpe.ours(name), peer_bpe.tiktoken(name)
    hugging = peer_bpe.hugging_face(tokenizer)
    middle = text.index(" ", len(text) // 2)
    halves = {"cold": text[:middle], "warm": text[middle:]}
    sample = halves["warm"][: MB // 2]
    for half in halves.values():
        if tokenizer.encode(half) != theirs.encode_ordinary(half):
            raise ValueError(f"{name}, {kind}: the ids differ")

    def us() -> list[float]:
        peer_bpe.forget(tokenizer)
        return [record.seconds(tokenizer.encode, half) for half in halves.values()]

    def them() -> list[float]:
        return [record.seconds(theirs.encode_ordinary, h) for h in halves.values()]

    found = record.interleave(
        {
            "us": us,
            "tiktoken": them,
            HUGGING_FACE: lambda: [record.seconds(hugging.encode, sample)],
        },
        *(5, share, 0),
    )
    for i, (heat, half) in enumerate(halves.items()):
        least = (WARM if heat == "warm" else COLD)[kind]
        size = len(half.encode()) / MB
        record.row(
            f"{name}, {kind}, {heat}",
            [times[i] for times in found["us"]],
            "tiktoken",
            [times[i] for times in found["tiktoken"]],
            unit="MB/s",
            amount=size,
            target=("ratio >=", least),
        )
    # As long as the whole half would have taken: reading is linear in the size.
    longer = size * MB / len(sample.encode())
    record.row(
        f"{name}, {kind}, warm",
        [times[1] for times in found["us"]],
        HUGGING_FACE,
        [longer * times[0] for times in found[HUGGING_FACE]],
        unit="MB/s",
        amount=size,
        target=("ratio >=", 5),
    )


def steps(record: Record) -> None:
    """Encode the first half of a text cold, and see which step takes how much of it.

    The rest is what stands between the steps: numbers for runs and words, their ids
    put together, and the list that is returned.
    """
    for name in ("gpt2", "o200k_base"):
        tokenizer = peer_bpe.ours(name)
        for kind, text in both(record).items():
            half = text[: len(text) // 2]
            rounds = [_steps(record, tokenizer, half) for _ in range(record.turns(3))]
            for step in rounds[0]:
                record.row(
                    f"{name}, {kind}: {step}", [each[step] for each in rounds], unit="%"
                )


def _steps(record: Record, tokenizer: BPETokenizer, text: str) -> dict[str, float]:
    peer_bpe.forget(tokenizer)
    encoder = tokenizer._encoder.arrays
    took: dict[str, float] = defaultdict(float)

    def timed(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = record.clock()
            result = function(*arguments)
            took[step] += record.clock() - start
            return result

        return call

    with ExitStack() as stack:
        for step, (owner, function) in {
            "finding runs": (runs, "find_runs"),
            "looking runs up": (encoder.runs.table, "find"),
            "cutting new runs into words": (encoder, "cut"),
            "merging new words": (arrays, "merge_in_step"),
        }.items():
            wrapped = timed(step, getattr(owner, function))
            stack.enter_context(patch.object(owner, function, wrapped))
        whole = record.seconds(tokenizer.encode, text)
    took["the rest"] = whole - sum(took.values())
    return {step: 100 * seconds / whole for step, seconds in took.items()}


def long(record: Record) -> None:
    """Encode a megabyte without a space, or of nothing else.

    Merging such a word pair by pair takes time that grows with the square of its
    length. Ours merges it piece by piece, and what repeats itself once; random letters
    do not repeat.
    """
    ours, theirs = peer_bpe.ours("gpt2"), peer_bpe.tiktoken("gpt2")
    size = 10_000 if record.quick else MB
    units = ("a", " ", "ab", "😀", "\n", "ab ")
    letters = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=size))
    texts = {repr(unit): unit * (size // len(unit.encode())) for unit in units}
    texts["random letters"] = letters
    for i, (name, text) in enumerate(texts.items()):

        def us(text: str = text) -> None:
            peer_bpe.forget(ours)
            ours.encode(text)

        found = record.take_turns(
            {"us": us, "them": lambda text=text: theirs.encode_ordinary(text)},
            *(5, 1 / (len(texts) - i), 0),
        )
        case = f"{size // 1000:,} kB of {name}"
        target = ("ratio >=", 0.5) if i < 5 else None
        record.row(case, found["us"], "tiktoken", found["them"], target=target)


def file(record: Record) -> None:
    """Encode a file with two processes, and with one.

    A peer of ours is ourselves: `encode_file` with `workers=1`.
    """
    tokenizer = peer_bpe.ours("gpt2")
    text = noted(record, "code", code(MB // 5 if record.quick else 40 * MB))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_bytes(text.encode())

        def by(workers: int) -> None:
            peer_bpe.forget(tokenizer)
            tokenizer.encode_file(path, Path(folder) / f"{workers}.npy", workers)

        found = record.take_turns({"1": lambda: by(1), "2": lambda: by(2)}, 5)
        written = [(Path(folder) / f"{n}.npy").read_bytes() for n in (1, 2)]
    record.row(
        *("encode_file, two workers", found["2"], "one worker", found["1"]),
        unit="MB/s",
        amount=len(text.encode()) / MB,
        target=("ratio >=", 1.5),
        note="the same file" if written[0] == written[1] else "the files DIFFER",
    )


def encode_growth(record: Record) -> None:
    """Encode more and more code, cold, with the table of GPT-2."""
    ours, theirs = peer_bpe.ours("gpt2"), peer_bpe.tiktoken("gpt2")

    def measure(text: str, share: float) -> None:
        def us() -> None:
            peer_bpe.forget(ours)
            ours.encode(text)

        turns, warm_up = (3, 1) if len(text) < 20 * MB else (1, 0)
        found = record.take_turns(
            {"us": us, "them": lambda: theirs.encode_ordinary(text)},
            *(turns, share, warm_up),
        )
        size = len(text.encode()) / MB
        record.row(
            *(f"{size:.1f} MB", found["us"], "tiktoken", found["them"]),
            unit="MB/s",
            amount=size,
        )

    grow(record, measure)


PARTS = {
    "encode": Part(encode, 110),
    "steps": Part(steps, 15),
    "long": Part(long, 15),
    "file": Part(file, 30),
    "encode growth": Part(encode_growth, 35),
    **tokenizer_training.PARTS,
}

if __name__ == "__main__":
    main("tokenizer", __doc__, PARTS)
