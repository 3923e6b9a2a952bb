"""What does training need beside the model: loop, optimizer, files, processes?

    python -m benchmarks.training [PART ...] [--turns N] [--quick] [--cpu]

The steps themselves are compared by `python -m benchmarks.model step compiled`.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.command import ROOT, main
from benchmarks.measure import Part, Record
from benchmarks.shapes import QUICK, SIZES, trainer
from minillm.model import TransformerLM
from minillm.train import Trainer
from minillm.training.clock import DEMO
from minillm.training.messages import measure_steps
from minillm.training.optimizer import AdamW
from minillm.training.ranks import run_ranks


def _sizes(record: Record) -> dict:
    if record.quick:
        return QUICK
    return {name: SIZES[name] for name in ("demo", "10M")}


@contextmanager
def marks(of: Trainer, record: Record) -> Generator[list[float], None, None]:
    """Note when forward begins, backward ends, and the optimizer begins and ends."""
    noted: list[float] = []
    backward = torch.Tensor.backward

    def note(*_: object) -> None:
        noted.append(record.clock())

    def backward_and_note(*arguments: Any, **more: Any) -> None:
        backward(*arguments, **more)
        note()

    of.model.register_forward_pre_hook(note)
    of.optimizer.register_step_pre_hook(note)
    of.optimizer.register_step_post_hook(note)
    with mock.patch.object(torch.Tensor, "backward", backward_and_note):
        yield noted


def loop(record: Record) -> None:
    """Do what is neither forward, nor backward, nor the optimizer's step.

    It is given as a share of the whole step: drawing and cutting the batch, the loss as
    a number, clipping, the schedule, watching for a loss that rises.
    """
    sizes = _sizes(record)
    for name, size in sizes.items():
        of = trainer(size)
        shares = []
        with marks(of, record) as noted:
            for _ in range(2 + record.turns(200 if name == "demo" else 15)):
                noted.clear()
                whole = record.seconds(of.step)
                forward, backward_end, step, step_end = noted
                work = backward_end - forward + step_end - step
                shares.append(100 * (1 - work / whole))
        record.row(name, shares[2:], unit="%", target=("ours <=", 3))


def optimizer(record: Record) -> None:
    """Move all weights by AdamW, beside PyTorch's three ways to do it."""
    for name, size in _sizes(record).items():
        programs = {}
        makers: tuple[tuple[str, Any, dict[str, Any]], ...] = (
            ("us", AdamW, {}),
            ("PyTorch, as it comes", torch.optim.AdamW, {}),
            ("PyTorch, foreach", torch.optim.AdamW, {"foreach": True}),
            ("PyTorch, fused", torch.optim.AdamW, {"fused": True}),
        )
        for kind, make, settings in makers:
            weights = list(TransformerLM(size.shape).parameters())
            for w in weights:
                w.grad = torch.randn_like(w)
            programs[kind] = make(weights, **settings).step
        found = record.take_turns(programs, 50, 0.5)
        us = found.pop("us")
        for kind, theirs in found.items():
            record.row(name, us, kind, theirs)


def checkpoint(record: Record) -> None:
    """Write model, optimizer and all chance to a file, and go on from it.

    The peer is `torch.save` of the two dictionaries, and `torch.load`. Both wait until
    the disk has the file.
    """
    for name, size in _sizes(record).items():
        of = trainer(size)
        of.step()
        parts = {"model": of.model, "optimizer": of.optimizer}
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = Path(folder) / "ours", Path(folder) / "theirs"

            def write(path: Path = theirs, parts: dict = parts) -> None:
                with path.open("wb") as file:
                    torch.save({k: v.state_dict() for k, v in parts.items()}, file)
                    file.flush()
                    os.fsync(file.fileno())

            def read(path: Path = theirs, parts: dict = parts) -> None:
                state = torch.load(path, weights_only=True)
                for k, v in parts.items():
                    v.load_state_dict(state[k])

            of.save(ours)
            write()
            found = record.take_turns(
                {
                    "save": lambda: of.save(ours),
                    "torch.save": write,
                    "load": lambda: of.load(ours),
                    "torch.load": read,
                },
                *(9, 0.5),
            )
            megabytes = ours.stat().st_size / 1e6
        for what in ("save", "load"):
            peer = f"torch.{what}"
            case = f"{name}, {what} {megabytes:,.0f} MB"
            record.row(case, found[what], peer, found[peer])


def ddp(record: Record) -> None:
    """Train with two processes of one thread each, started by torchrun, over gloo.

    The batch is the same, and each process takes half of it. The peer is ourselves with
    one process: of one thread, and of two.
    """
    name = "tiny" if record.quick else "10M"
    steps = 2 if record.quick else 3
    found = record.interleave(
        {
            "two": lambda: _processes(name, 2, 1, steps, record),
            "one process, one thread": lambda: _processes(name, 1, 1, steps, record),
            "one process, two threads": lambda: _processes(name, 1, 2, steps, record),
        },
        *(2, 1, 0),
    )
    two = found.pop("two")
    for peer, theirs in found.items():
        record.row(f"{name}, two processes", two, peer, theirs)


def _processes(
    name: str, processes: int, threads: int, steps: int, record: Record
) -> float:
    """The seconds of a step, as the first of so many processes measures them."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    worker = ["--module", "benchmarks.worker", name, str(threads), str(steps)]
    done = subprocess.run(
        [sys.executable, *torchrun, str(processes), *worker],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        timeout=max(record.left(), 60),
        check=False,
    )
    said = re.search(r"seconds: (\S+)", done.stdout)
    if said is None:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1])
    return float(said[1])


def messages(record: Record) -> None:
    """Average the gradients of two processes, in one message or as they come.

    Each process has one thread and half of the demo's batch; timed are forward and
    backward pass with the averaging. The peer sends a message for each weight.
    """
    turns = 2 if record.quick else record.turns(60)
    found = run_ranks(measure_steps, 2, DEMO, turns, seconds=max(record.left(), 60))[0]
    each = found.pop("one by one")
    for kind, times in found.items():
        record.row(f"demo, gradients: {kind}", times, "one by one", each)


PARTS = {
    "loop": Part(loop, 20),
    "optimizer": Part(optimizer, 10),
    "checkpoint": Part(checkpoint, 15),
    "ddp": Part(ddp, 70),
    "messages": Part(messages, 30),
}

if __name__ == "__main__":
    main("training", __doc__, PARTS)
