"""Several processes: the same training as one, and what happens if one dies."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from test_run import data, read_log, words

from minillm.train import Trainer
from minillm.training import distributed

__all__ = ["data"]  # a fixture

# Trains in float64 and writes down the losses and the weights; `parts` and the folder
# come from the command line.
PROGRAM = """
import sys, json, weakref
from pathlib import Path
import numpy as np, torch, safetensors.torch
from minillm.training import distributed
from minillm.config import ModelConfig
from minillm.model import TransformerLM
from minillm.train import TrainConfig, train

folder, parts = Path(sys.argv[1]), int(sys.argv[2])
def main():
    rank = distributed.rank()
    torch.manual_seed(rank)  # other weights in each process, until they are joined
    model = TransformerLM(
        ModelConfig(50, 8, 16, 2, 2, tie_embeddings=True)
    ).double()
    tokens = np.random.default_rng(0).integers(50, size=500)
    config = TrainConfig(steps=20, batch_size=8, grad_accum=parts, warmup_steps=2)
    losses = []
    def report(p):
        losses.append([p.loss, p.gradient_norm])
    train(model, tokens, config, report=report)
    tensors = {n: w.detach() for n, w in model.named_parameters()}
    safetensors.torch.save_file(tensors, folder / f"{rank}.safetensors")
    (folder / f"{rank}.json").write_text(json.dumps(losses), encoding="utf-8")

with distributed.joined():
    group = torch.distributed.group.WORLD
    group = group and weakref.ref(group)  # alone, there is none
    main()
# A group that is still held has threads that may abort the process at its end.
assert group is None or group() is None
"""


def torchrun(
    *arguments: Any, n: int = 2, **more: Any
) -> "subprocess.CompletedProcess[str]":
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", n]
    return subprocess.run(
        [sys.executable, *map(str, [*launcher, *arguments])],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | more,
    )


def shares(monkeypatch: pytest.MonkeyPatch, n: int, parts: int) -> list[list[Any]]:
    """What each of `n` processes takes of a batch of 24, part by part."""
    monkeypatch.setattr(distributed, "world_size", lambda: n)
    taken = []
    for i in range(n):
        monkeypatch.setattr(distributed, "rank", lambda i=i: i)
        taken.append([
            part.tolist() for part in distributed.share(torch.arange(24), parts)
        ])
    return taken


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_each_piece_is_read_by_one_process_once(
    monkeypatch: pytest.MonkeyPatch, n: int, parts: int
) -> None:
    taken = shares(monkeypatch, n, parts)
    everything = [*itertools.chain(*itertools.chain(*taken))]
    assert sorted(everything) == list(range(24))
    sizes = {len(part) for process in taken for part in process}
    assert sizes == {24 // (n * parts)}
    assert all(len(process) == parts for process in taken)


def test_a_batch_that_cannot_be_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"batch_size=24 .* multiple of 10"):
        shares(monkeypatch, 2, 5)


def test_without_torchrun_nothing_happens() -> None:
    model = torch.nn.Linear(1, 1)
    with distributed.joined() as device:
        assert device == "cpu"
        assert distributed.wrap(model) is model
        assert not distributed.any_rank(False, torch.device("cpu"))
        assert distributed.any_rank(True, torch.device("cpu"))
    assert not distributed.was_restarted()


def test_only_what_other_processes_cause_is_put_down_to_them() -> None:
    with pytest.raises(RuntimeError, match="mine"), distributed.joined():
        raise RuntimeError("mine")


@pytest.mark.check
@pytest.mark.parametrize("parts", [1, 2])
def test_two_processes_train_the_model_of_one(tmp_path: Path, parts: int) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    results = []
    for n in (1, 2):
        folder = tmp_path / str(n)
        folder.mkdir()
        done = torchrun(program, folder, parts, n=n)
        assert done.returncode == 0, done.stderr
        for rank in range(n):
            tensors = safetensors.torch.load_file(folder / f"{rank}.safetensors")
            text = (folder / f"{rank}.json").read_text(encoding="utf-8")
            results.append((tensors, np.array(json.loads(text))))
    (one, losses), *others = results
    assert len(others) == 2
    for tensors, their_losses in others:
        assert np.abs(losses - their_losses).max() < 1e-10
        for name in one:
            assert (one[name] - tensors[name]).abs().max() < 1e-10
    # Both copies are the same to the last bit, or they would drift apart.
    assert all(torch.equal(others[0][0][name], others[1][0][name]) for name in one)


@pytest.mark.check
def test_the_command_under_torchrun(data: Path, tmp_path: Path) -> None:
    """It trains, one process writes, a dead one ends the job, a restart goes on."""
    arguments = words(data, tmp_path / "two", batch_size=4)
    done = torchrun("-m", "minillm", *arguments)
    assert done.returncode == 0, done.stderr
    # Both have printed the same, had both printed.
    assert done.stdout.count("the first loss is") == 1
    log = read_log(tmp_path / "two")
    assert [e["step"] for e in log if e["event"] == "step"] == [*range(1, 13)]
    assert log[-1]["processes"] == 2
    alone = words(data, tmp_path / "one", batch_size=4)
    subprocess.run([sys.executable, "-m", "minillm", *alone], check=True)
    ours, theirs = (
        [e["loss"] for e in read_log(tmp_path / name) if e["event"] == "step"]
        for name in ("one", "two")
    )
    # In float32, and summed in another order.
    assert ours == pytest.approx(theirs, abs=1e-4)

    # Process 1 dies after step 6; the newest checkpoint is of step 4.
    mortal = tmp_path / "mortal.py"
    mortal.write_text(
        "import os, sys\n"
        "from minillm.cli.app import main\n"
        "from minillm.train import Trainer\n"
        "step = Trainer.step\n"
        "def mortal(self):\n"
        "    first = os.environ['TORCHELASTIC_RESTART_COUNT'] == '0'\n"
        "    if first and self.done == 6 and os.environ['RANK'] == '1':\n"
        "        os._exit(7)\n"
        "    return step(self)\n"
        "Trainer.step = mortal\n"
        "main()\n",
        encoding="utf-8",
    )
    arguments = words(data, tmp_path / "dead", batch_size=4)
    done = torchrun(mortal, *arguments)
    assert done.returncode != 0
    assert "exitcode  : 7" in done.stderr
    assert "rank      : 1" in done.stderr
    assert not (tmp_path / "dead" / "loss.svg").exists()
    arguments = words(data, tmp_path / "again", batch_size=4)
    done = torchrun("--max-restarts", 1, mortal, *arguments)
    assert done.returncode == 0, done.stderr
    # The line is folded, where depends on the name of the folder.
    assert "after step 4" in " ".join(done.stdout.split())
    ours, theirs = (
        safetensors.torch.load_file(tmp_path / name / "last.safetensors")
        for name in ("two", "again")
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.check
def test_mistakes_under_torchrun(data: Path, tmp_path: Path) -> None:
    done = torchrun("-m", "minillm", *words(data, tmp_path / "a", batch_size=3))
    assert done.returncode != 0
    assert "batch_size=3 cannot be divided evenly among 2 processes" in done.stderr
    assert not (tmp_path / "a").exists()


def test_trainers_know_only_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pieces that a process cuts out are its own."""
    from minillm.config import ModelConfig
    from minillm.model import TransformerLM
    from minillm.training.settings import TrainConfig

    monkeypatch.setattr(distributed, "share", lambda starts, parts: [starts[:1]])
    seen = []
    cut = "minillm.training.loop.cut_sequences"

    def watched(tokens: Any, starts: Any, *rest: Any) -> Any:
        from minillm.training.batches import cut_sequences

        seen.append(len(starts))
        return cut_sequences(tokens, starts, *rest)

    monkeypatch.setattr(cut, watched)
    model = TransformerLM(ModelConfig(7, 4, d_model=8, n_layers=1, n_heads=2))
    Trainer(model, np.arange(50) % 7, TrainConfig(batch_size=6)).step()
    assert seen == [1]
