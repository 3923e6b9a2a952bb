"""How fast is the tokenizer, beside tiktoken, tokenizers, rustbpe and the newest ones?

python -m benchmarks.tokenizer [PART ...] [--turns N] [--quick] [--cpu]
"""

import hashlib
import random
import statistics
import tempfile
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import peer_bpe, peer_programs, tokenizer_training
from benchmarks.command import main
from benchmarks.measure import Part, Record, Target
from benchmarks.texts import MB, code, documentation, noted
from minillm.bpe import BPETokenizer

# Which part of the speed of tiktoken it shall reach: cold, and warm.
GOALS = {"documentation": (0.7, 1.0), "code": (0.6, 0.7)}


def encode(record: Record) -> None:
    """Encode the first half of a text cold, and then the second half warm.

    Cold means that the tokenizer has seen nothing yet; warm, that it remembers the
    words of the first half. The ids are those of tiktoken, all of them.
    """
    size = MB // 10 if record.quick else 10 * MB
    texts = {
        "documentation": noted(record, "documentation", documentation(size)),
        "code": noted(record, "code", code(2 * size)),
    }
    name = "cl100k_base"
    tokenizer, theirs = peer_bpe.ours(name), peer_bpe.tiktoken(name)
    for i, (kind, text) in enumerate(texts.items()):
        halves = _halves(text)
        if any(tokenizer.encode(h) != theirs.encode_ordinary(h) for h in halves):
            raise ValueError(f"{name}, {kind}: the ids differ")
        found = record.interleave(
            {
                "us": partial(_ours, record, tokenizer, halves),
                "tiktoken": partial(_timed, record, theirs.encode_ordinary, halves),
            },
            *(5, (0.4, 0.9)[i], 0),
        )
        for j, heat in enumerate(("cold", "warm")):
            _row(
                *(record, f"{name}, {kind}, {heat}", halves[j], j),
                *(found["us"], "tiktoken", found["tiktoken"]),
                ("ratio >=", GOALS[kind][j]),
            )


def newest(record: Record) -> None:
    """Encode the second half of a text of code warm, all in the same turns.

    The table is GPT-2's, which every program reads. Ours and tiktoken run here; each of
    the others reads the `tokenizer.json` that was saved here, in a process of its own,
    and times itself. Each loads it anew in every turn, which does not count, and
    encodes the first half first. All ids are compared once. gigatoken returns an array,
    the others a list. It is one text at once: in batches, several of them use more
    threads and are faster, and `tokenizers` can leave out the offsets, which it
    computes here.
    """
    text = noted(record, "code", code(MB // 10 if record.quick else 8 * MB))
    halves = _halves(text)
    tokenizer, theirs = peer_bpe.ours("gpt2"), peer_bpe.tiktoken("gpt2")
    ids = [tokenizer.encode(half) for half in halves]
    if ids != [theirs.encode_ordinary(half) for half in halves]:
        raise ValueError("the ids of tiktoken differ")
    digest = hashlib.sha256(b"".join(array("I", row).tobytes() for row in ids))
    programs: dict[str, Callable[[], list[float]]] = {
        "us": partial(_ours, record, tokenizer, halves),
        "tiktoken": partial(_timed, record, theirs.encode_ordinary, halves),
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = [folder / f"{i}.txt" for i in range(2)]
        for path, half in zip(files, halves, strict=True):
            path.write_bytes(half.encode())
        tokenizer.save(folder / "tokenizer.json")
        for name in peer_programs.NAMES:
            with record.optional(name):
                peer = peer_programs.named(name)
                child = peer_programs.running(name, folder / "tokenizer.json", *files)
                ask = stack.enter_context(child)
                if ask("ids")[-1] != digest.hexdigest():
                    raise ValueError("its ids differ")
                programs[peer] = lambda ask=ask: [float(s) for s in ask("go")[:2]]
        found = record.interleave(programs, 3, 1, 0)
    us, old = found.pop("us"), peer_programs.named("tokenizers")
    for peer, times in found.items():
        goal: Target | None = ("ratio >=", 5) if peer == old else None
        _row(record, "gpt2, code, warm", halves[1], 1, us, peer, times, goal)


def _halves(text: str) -> list[str]:
    middle = text.index(" ", len(text) // 2)
    return [text[:middle], text[middle:]]


def _ours(record: Record, tokenizer: BPETokenizer, halves: list[str]) -> list[float]:
    peer_bpe.forget(tokenizer)
    return _timed(record, tokenizer.encode, halves)


def _timed(
    record: Record, encode: Callable[[str], object], halves: list[str]
) -> list[float]:
    return [record.seconds(encode, half) for half in halves]


def _row(
    record: Record,
    case: str,
    half: str,
    i: int,
    ours: list[list[float]],
    peer: str,
    theirs: list[list[float]],
    target: Target | None,
) -> None:
    """A row about one of the two halves."""
    record.row(
        case,
        [times[i] for times in ours],
        peer,
        [times[i] for times in theirs],
        unit="MB/s",
        amount=len(half.encode()) / MB,
        target=target,
    )


def long(record: Record) -> None:
    """Encode a megabyte without a space, or of nothing else.

    Searched for its best pair again and again, such a word takes time that grows with
    the square of its length. tiktoken has another way for long ones since 0.13. Ours
    merges them piece by piece, and what repeats itself once. Five texts repeat a
    letter, a space, two letters, an emoji or a line break; the one with the smallest
    ratio has the row. Random letters do not repeat.
    """
    ours, theirs = peer_bpe.ours("gpt2"), peer_bpe.tiktoken("gpt2")
    size = 10_000 if record.quick else MB
    units = ("a", " ", "ab", "😀", "\n")
    letters = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=size))
    texts = {repr(unit): unit * (size // len(unit.encode())) for unit in units}
    texts["random letters"] = letters
    found = {}
    for i, (name, text) in enumerate(texts.items()):

        def us(text: str = text) -> None:
            peer_bpe.forget(ours)
            ours.encode(text)

        times = record.take_turns(
            {"us": us, "them": lambda text=text: theirs.encode_ordinary(text)},
            *(5, 1 / (len(texts) - i), 0),
        )
        found[name] = times["us"], times["them"]
    last = found.pop("random letters")
    worst = min(
        found,
        key=lambda name: statistics.median(
            b / a for a, b in zip(*found[name], strict=True)
        ),
    )
    case = f"{size // 1000:,} kB of {worst}, the smallest ratio of {len(units)}"
    us_, them = found[worst]
    record.row(case, us_, "tiktoken", them, target=("ratio >=", 0.5))
    case = f"{size // 1000:,} kB of random letters"
    record.row(case, last[0], "tiktoken", last[1])


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


PARTS = {
    "encode": Part(encode, 30),
    "newest": Part(newest, 45),
    "long": Part(long, 10),
    "file": Part(file, 20),
    **tokenizer_training.PARTS,
}

if __name__ == "__main__":
    main("tokenizer", __doc__, PARTS)
