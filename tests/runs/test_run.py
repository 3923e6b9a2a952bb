"""Runs: what lies in the folder, at every moment, and how they go on."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from filelock import FileLock
from test_files import full_disk, posix

import minillm
from minillm.accounting.disclosure import disclose
from minillm.cli.app import main
from minillm.config import ModelConfig
from minillm.corpus.prepare import load_corpus, prepare
from minillm.model import TransformerLM
from minillm.runs import run as run_module
from minillm.runs.run import Run
from minillm.train import Trainer
from minillm.training.settings import TrainConfig, read_toml

TALES = [f"Tale {i}.\n\nOnce there were {i} ducks in the pond." * 5 for i in range(40)]
SETTINGS = {
    "--context-length": 16,
    "--d-model": 16,
    "--n-layers": 1,
    "--n-heads": 2,
    "--batch-size": 2,
    "--steps": 12,
    "--eval-every": 4,
    "--eval-tokens": 50,
    "--warmup-steps": 2,
}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "tales.txt").write_text("\n\n\n".join(TALES), encoding="utf-8")
    prepare([folder / "tales.txt"], folder / "prepared", vocab_size=300)
    return folder / "prepared"


def words(data: Path, out: Path, *more: Any, **changes: Any) -> list[str]:
    """The command line of a small training."""
    options = SETTINGS | {f"--{k.replace('_', '-')}": v for k, v in changes.items()}
    given = [x for pair in options.items() for x in pair if pair[1] is not None]
    return ["train", *map(str, ["--data", data, "--out", out, *given, *more])]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr(run_module, "measure_peak_flops", lambda **_: 1e9)

    def call(arguments: list[str]) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["minillm", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        # Long lines are wrapped for the terminal.
        return exit_.value.code or 0, " ".join(out.split()), err  # type: ignore[return-value]

    return call


def weights(folder: Path, name: str = "last.safetensors") -> dict[str, Any]:
    return safetensors.torch.load_file(folder / name)


def assert_same_run(one: Path, other: Path) -> None:
    """The same to the last bit, in all that the clock has no part in."""
    for name in ("last.safetensors", "best.safetensors", "model.safetensors"):
        ours, theirs = weights(one, name), weights(other, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    logs = [
        [
            {k: v for k, v in event.items() if k not in {"seconds", "peak_flops"}}
            for event in read_log(folder)
        ]
        for folder in (one, other)
    ]
    assert logs[0] == logs[1]


def read_log(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# What a run leaves behind


@pytest.fixture(scope="session")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    subprocess.run(
        [sys.executable, "-m", "minillm", *words(data, out)],
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return out


def test_the_peak_is_measured_in_the_numbers_and_on_the_device_of_the_run(
    data: Path, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.dtype, str]] = []

    def peak(dtype: torch.dtype, device: torch.device) -> float:
        seen.append((dtype, torch.device(device).type))
        return 1e9

    monkeypatch.setattr(run_module, "measure_peak_flops", peak)
    for dtype in ("float32", "bf16"):
        code, _, err = call(
            words(data, tmp_path / dtype, dtype=dtype, device="cpu", steps=2)
        )
        assert code == 0, err
    assert seen == [(torch.float32, "cpu"), (torch.bfloat16, "cpu")]


def test_the_folder_of_a_run(finished: Path, data: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        ".lock",
        "best.safetensors",
        "config.json",
        "last.safetensors",
        "log.jsonl",
        "loss.svg",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "train.toml",
    ]
    model, tokenizer = minillm.load(finished)
    assert model.config == ModelConfig(300, 16, d_model=16, n_layers=1, n_heads=2)
    assert tokenizer.vocab_size == 300
    # The end of a text outlives the look at the validation text.
    end = tokenizer.special_tokens["<|endoftext|>"]
    entries = json.loads((finished / "config.json").read_text(encoding="utf-8"))
    assert entries["eos_token_id"] == entries["bos_token_id"] == end
    assert tokenizer.stop_ids == [end]
    saved = read_toml(finished / "train.toml")["train"]
    assert TrainConfig(**saved) == TrainConfig(
        steps=12, batch_size=2, eval_every=4, eval_tokens=50, warmup_steps=2
    )
    log = read_log(finished)
    assert [e["event"] for e in log] == [
        "config",
        *(["step"] * 4 + ["sample"]) * 3,
        "result",
    ]
    looks = [e["validation_loss"] for e in log if e.get("validation_loss")]
    assert log[-1]["loss"] == min(looks)
    best = weights(finished, "best.safetensors")["model.lm_head.weight"]
    assert torch.equal(best, model.lm_head.weight)
    # The last checkpoint is that of the last step.
    step = weights(finished)["optimizer.0.step"].item()
    assert step == 12
    assert disclose(finished)["data"].startswith("tales.txt")


def test_its_settings_start_the_same_run_again(
    call: Any, finished: Path, data: Path, tmp_path: Path
) -> None:
    given = ["train", "--data", data, "--out", tmp_path / "b"]
    file = ["--config", finished / "train.toml"]
    assert call([*map(str, [*given, *file])])[0] == 0
    for name in ("last.safetensors", "model.safetensors"):
        ours, theirs = weights(tmp_path / "b", name), weights(finished, name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    # The command line goes before the file.
    given[-1] = tmp_path / "c"
    assert call([*map(str, [*given, *file, "--steps", 3])])[0] == 0
    assert read_log(tmp_path / "c")[-2]["step"] == 3


def test_what_the_user_sees(call: Any, data: Path, tmp_path: Path) -> None:
    code, out, err = call(words(data, tmp_path / "a", prompt="Once"))
    assert (code, err) == (0, "")
    for part in ("a step keeps", "the first loss is 5.68", "ln 300 = 5.70", "tokens/s"):
        assert part in out
    assert "MFU" in out and "warning" not in out
    assert out.count("bits per byte on held-out text") == 3
    assert " Once" in out
    assert "Kneser-Ney trigram" in out


# Going on


@contextmanager
def in_step(number: int, happen: Callable[[Trainer], object]) -> Generator[None]:
    """Let something happen when a step begins."""
    step = Trainer.step

    def changed(self: Trainer) -> Any:
        if self.done == number - 1:
            happen(self)
        return step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", changed)
        yield


def interrupt(_: Trainer) -> None:
    signal.raise_signal(signal.SIGINT)


def fill_disk(_: Trainer) -> None:
    raise OSError(28, "No space left on device", "somewhere")


@torch.no_grad()
def spoil(trainer: Trainer) -> None:
    next(trainer.learned.parameters()).fill_(math.nan)


@pytest.mark.parametrize("stop", [3, 4, 7])
def test_an_interrupted_run_goes_on_to_the_same_end(
    call: Any,
    finished: Path,
    data: Path,
    tmp_path: Path,
    stop: int,
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with in_step(stop, interrupt):
        code, out, err = call(words(data, tmp_path / "a"))
    assert (code, err) == (130, "")
    assert f"keeps step {stop}; go on with --resume" in " ".join(out.split())
    assert signal.getsignal(signal.SIGINT) is handler
    assert minillm.load(tmp_path / "a")
    torch.manual_seed(99)
    code, out, _ = call(words(data, tmp_path / "a", "--resume"))
    assert code == 0
    assert f"after step {stop}" in " ".join(out.split())
    assert_same_run(tmp_path / "a", finished)


def test_resume_starts_where_there_is_nothing(
    call: Any, finished: Path, data: Path, tmp_path: Path
) -> None:
    assert call(words(data, tmp_path / "a", "--resume"))[0] == 0
    assert_same_run(tmp_path / "a", finished)


@pytest.fixture
def stopped(call: Any, data: Path, tmp_path: Path) -> Path:
    """A run that has been stopped after step 8 of 12."""
    with in_step(9, fill_disk):
        assert call(words(data, tmp_path / "run"))[0] == 2
    return tmp_path / "run"


def test_the_demo_overwrites_no_run(call: Any, stopped: Path) -> None:
    before = {p.name: p.read_bytes() for p in stopped.iterdir()}
    code, _, err = call(["demo", "--out", str(stopped), "--steps", "1"])
    assert code == 2
    assert "holds a run of minillm train, which the demo would overwrite" in err
    assert {p.name: p.read_bytes() for p in stopped.iterdir()} == before


def test_a_run_is_not_overwritten(call: Any, data: Path, stopped: Path) -> None:
    before = {p.name: p.read_bytes() for p in stopped.iterdir()}
    code, _, err = call(words(data, stopped))
    assert code == 2
    assert "holds a run already: go on with it by --resume" in err
    other = stopped.parent / "notes"
    other.mkdir()
    (other / "notes.txt").write_bytes(b"mine")
    code, _, err = call(words(data, other))
    assert (code, "not an empty folder" in err) == (2, True)
    assert [p.name for p in other.iterdir()] == ["notes.txt"]
    assert before == {p.name: p.read_bytes() for p in stopped.iterdir()}


def test_one_process_at_a_time(call: Any, data: Path, stopped: Path) -> None:
    with FileLock(stopped / ".lock"):
        code, _, err = call(words(data, stopped, "--resume"))
    assert code == 2
    assert "another process is working on" in err
    assert "let it end, or choose another name" in err
    assert call(words(data, stopped, "--resume"))[0] == 0


def test_other_settings_are_named_and_can_be_forced(
    call: Any, data: Path, stopped: Path
) -> None:
    changes = {"max_lr": 0.001, "steps": 10}
    code, _, err = call(words(data, stopped, "--resume", **changes))
    assert code == 2
    assert "steps is 12 there, 10 here; max_lr is 0.0015 there, 0.001 here" in err
    assert "--force" in err
    # What is not given stays as it was.
    assert TrainConfig(**read_toml(stopped / "train.toml")["train"]).steps == 12
    assert call(words(data, stopped, "--resume", "--force", **changes))[0] == 0
    saved = read_toml(stopped / "train.toml")["train"]
    assert (saved["max_lr"], saved["steps"]) == (0.001, 10)
    assert [e["step"] for e in read_log(stopped) if e["event"] == "step"] == [
        *range(1, 11)
    ]
    code, _, err = call(words(data, stopped, "--resume", steps=None))
    assert (code, "has reached its last step, 10" in err) == (2, True)


def test_settings_that_are_not_given_are_those_of_the_run(
    call: Any, finished: Path, data: Path, stopped: Path
) -> None:
    assert (
        call(["train", "--data", str(data), "--out", str(stopped), "--resume"])[0] == 0
    )
    assert_same_run(stopped, finished)


def test_another_shape_or_text_is_refused(
    call: Any, data: Path, stopped: Path, tmp_path: Path
) -> None:
    code, _, err = call(words(data, stopped, "--resume", "--force", d_model=32))
    assert code == 2
    assert "d_model is 16 there, 32 here" in err
    for name, size in (("more", 300), ("other", 290)):
        (tmp_path / "b.txt").write_text("\n\n\n".join([*TALES, name]), encoding="utf-8")
        tokenizer = minillm.load(stopped)[1] if size == 300 else None
        prepare(
            [tmp_path / "b.txt"], tmp_path / name, tokenizer=tokenizer, vocab_size=size
        )
    code, _, err = call(words(tmp_path / "other", stopped, "--resume", "--force"))
    assert (code, "has another tokenizer than the text" in err) == (2, True)
    code, _, err = call(words(tmp_path / "more", stopped, "--resume"))
    assert (code, "the text is ['tales.txt', " in err) == (2, True)
    assert call(words(tmp_path / "more", stopped, "--resume", "--force"))[0] == 0


def test_a_run_that_ended_between_its_last_step_and_its_result(
    call: Any, finished: Path, data: Path, tmp_path: Path
) -> None:
    def died(self: Run, *rest: Any) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_finish", died)
        assert call(words(data, tmp_path / "a"))[0] == 2
    assert call(words(data, tmp_path / "a", "--resume"))[0] == 0
    assert_same_run(tmp_path / "a", finished)
    code, _, err = call(words(data, tmp_path / "a", "--resume"))
    assert (code, "has reached its last step, 12: to go on" in err) == (2, True)


# What goes wrong


def test_a_torn_checkpoint_and_the_one_before(
    call: Any, finished: Path, data: Path, stopped: Path
) -> None:
    last = stopped / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    code, _, err = call(words(data, stopped, "--resume"))
    assert code == 2
    assert "last.safetensors is not a whole checkpoint" in err
    assert "remove it to go on from best.safetensors" in err
    last.unlink()
    assert call(words(data, stopped, "--resume"))[0] == 0
    assert_same_run(stopped, finished)


def test_a_torn_line_of_the_log(
    call: Any, finished: Path, data: Path, stopped: Path
) -> None:
    with (stopped / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event": "step", "step": 9}\n{"event": "st')
    assert call(words(data, stopped, "--resume"))[0] == 0
    assert_same_run(stopped, finished)


@posix
def test_a_full_disk_leaves_the_checkpoint_before(
    call: Any,
    finished: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save = Run.save

    def full(self: Run, name: str) -> None:
        if self.trainer.done == 8:
            with full_disk(1000):
                save(self, name)
        save(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save", full)
        code, _, err = call(words(data, tmp_path / "a"))
    assert code == 2
    assert "could not be written (File too large)" in err
    assert "the checkpoint of step 4 is still whole: make room" in err
    assert err.count("\n") == 1
    assert not list((tmp_path / "a").glob("*.tmp")) + list(
        (tmp_path / "a").glob(".*tmp")
    )
    assert call(words(data, tmp_path / "a", "--resume"))[0] == 0
    assert_same_run(tmp_path / "a", finished)


def test_a_loss_that_is_no_number_names_step_and_checkpoints(
    call: Any, data: Path, tmp_path: Path
) -> None:
    with in_step(10, spoil):
        code, _, err = call(words(data, tmp_path / "a"))
    assert code == 2
    assert "at step 10 the loss is nan" in err
    assert "last.safetensors, of step 8, and best.safetensors" in err
    assert err.count("\n") == 1
    everything = weights(tmp_path / "a").values()
    assert all(t.isfinite().all() for t in everything)


def test_a_first_loss_that_is_far_off(
    call: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(self: TransformerLM) -> None:
        torch.nn.init.normal_(self.lm_head.weight, std=1)

    monkeypatch.setattr(TransformerLM, "_start_small", too_large)
    code, out, err = call(words(data, tmp_path / "a", steps=1, warmup_steps=0))
    assert (code, err) == (0, "")
    assert "warning: the first loss is" in out
    assert "the model is confidently wrong: check the initialization" in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 96, "d_model": 98304}, "a step keeps"),
        ({"dtype": "float8"}, "dtype must be float32 or bf16; got 'float8'"),
        ({"batch_size": 3, "grad_accum": 2}, "not a multiple of grad_accum=2"),
        ({"context_length": 100_000}, "bring more text or choose a shorter context"),
        ({"device": "abacus"}, "the device 'abacus' cannot be used"),
        ({"config": "none.toml"}, "none.toml: No such file"),
        ({"n_heads": 3}, "d_model=16 is not a multiple of n_heads=3"),
    ],
)
def test_mistakes_leave_nothing_behind(
    call: Any, data: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    code, _, err = call(words(data, tmp_path / "out" / "a", **changes))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_tokens_that_are_not_the_models(call: Any, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    tokens = np.load(folder / "train.npy")
    for bad, message in (
        (tokens.astype(np.uint32) + 300, "the model knows the ids 0 to 299; the text"),
        (
            np.full(len(tokens), np.nan),
            "train.npy is not a .npy file with a one-dimensional",
        ),
    ):
        np.save(folder / "train.npy", bad)
        code, _, err = call(words(folder, tmp_path / "a"))
        assert (code, message in err) == (2, True)
        assert not (tmp_path / "a").exists()
    # The held-out ids are used later, and checked as early.
    np.save(folder / "train.npy", tokens)
    aside = np.load(folder / "validation.npy").astype(np.uint32)
    np.save(folder / "validation.npy", aside + 300)
    code, _, err = call(words(folder, tmp_path / "b"))
    assert (code, "the model knows the ids 0 to 299" in err) == (2, True)
    assert not (tmp_path / "b").exists()


# Real kills

# Starts the command again and again, in processes that need not import everything
# anew, and kills each: by turns from outside, at a random moment, and from inside,
# between a write and the renaming. Prints how often, and how often files were left.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path

import minillm.corpus.prepare, minillm.runs.demo, minillm.runs.start
from minillm.cli import app as cli
from minillm.runs import run

run.measure_peak_flops = lambda **_: 1e9
folder, arguments = Path(sys.argv[1]), sys.argv[2:]
last, log = folder / "last.safetensors", folder / "log.jsonl"
moments, limit, kills, left_over = random.Random(0), 0.1, 0, 0


def changed(path):
    return path.stat().st_mtime_ns if path.exists() else 0


def child(kill_at):
    fsync, calls = os.fsync, 0

    def mortal(fd):
        nonlocal calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(fd)

    os.fsync = mortal
    sys.argv = ["minillm", *arguments]
    try:
        cli.main()
    except SystemExit as error:
        os._exit(error.code or 0)


while True:
    before, began = changed(last), changed(log)
    from_inside = kills % 2
    pid = os.fork()
    if pid == 0:
        child(moments.randint(1, 12) if from_inside else 0)
    if not from_inside:
        while changed(log) == began and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.001)
        time.sleep(moments.uniform(0, limit))
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        break
    if status == 0:
        break
    assert os.WIFSIGNALED(status), status
    kills += 1
    # On a busy machine nothing is reached in so short a time.
    limit *= 1 if changed(last) > before else 1.5
    left = [*folder.glob(".*.tmp"), *folder.parent.glob(".*.tmp")]
    left_over += bool(left)
    for path in left:
        os.system(f"rm -r {path}")
    if folder.exists():
        minillm.load(folder)
    if log.exists() and '"result"' in log.read_text(encoding="utf-8"):
        break
print(kills, left_over)
"""


@posix
@pytest.mark.check
def test_killed_at_random_moments_it_ends_the_same(data: Path, tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    options = {"steps": 100, "eval_every": 5}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(*command: Any) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-m", "minillm", *words(data, straight, **options))
    again = words(data, killed, "--resume", **options)
    kills, left_over = map(int, run("-c", KILLER, killed, *again).split()[-2:])
    # Half of them in the middle of a write, and some of those are seen.
    assert kills >= 6
    assert left_over >= 2
    assert (killed / "loss.svg").is_file()
    assert_same_run(straight, killed)


# What users call things


@pytest.mark.parametrize("name", ["run [lr=0.1]", "a[/x]", "[bold]b", "c:fire:"])
def test_names_are_shown_as_they_are(
    data: Path, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"steps": 2, "eval_every": 1}
    code, out, err = call(words(data, Path(name), "--prompt", name, **changes))
    assert code == 0, err
    # Spaces are where the terminal's lines are wrapped.
    shown = out.replace(" ", "")
    assert f"keptin{name}:".replace(" ", "") in shown
    assert shown.count(name.replace(" ", "")) == 2 + 2  # and a sample each evaluation
    more = words(data, Path(name), "--resume", "--force", **(changes | {"steps": 3}))
    code, out, err = call(more)
    assert code == 0, err
    assert f"goingonwith{name}afterstep2".replace(" ", "") in out.replace(" ", "")
    code, out, err = call(["disclose", name])
    assert code == 0, err
    assert name.split()[0] in out


def test_the_end_token_of_a_run_stays(data: Path, tmp_path: Path, call: Any) -> None:
    code, _, err = call(words(data, tmp_path / "a"))
    assert code == 0, err
    config = json.loads((tmp_path / "a" / "config.json").read_text(encoding="utf-8"))
    _, tokenizer = minillm.load(tmp_path / "a")
    assert config["eos_token_id"] == tokenizer.special_tokens["<|endoftext|>"]


def test_a_run_without_checkpoints_says_so(data: Path, finished: Path) -> None:
    corpus = load_corpus(data)
    config = TrainConfig(**read_toml(finished / "train.toml")["train"])
    trainer = Trainer(minillm.load(finished)[0], corpus.training, config)
    run = Run(finished.parent / "nowhere", corpus, trainer)
    with pytest.raises(FileNotFoundError, match="has no checkpoint, neither last"):
        run.load()


def test_the_demo_leaves_a_run_alone(
    data: Path, tmp_path: Path, call: Any, finished: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    code, _, err = call(["demo", "--out", str(out), "--steps", "1"])
    assert code == 2
    assert f"{out} holds a run of minillm train" in err
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    # Without its checkpoints it is a run still, and so is any other model a stranger.
    for name in ("last.safetensors", "best.safetensors"):
        (out / name).unlink()
    assert call(["demo", "--out", str(out), "--steps", "1"])[0] == 2
    for name in ("train.toml", "log.jsonl"):
        (out / name).unlink()
    code, _, err = call(["demo", "--out", str(out), "--steps", "1"])
    assert code == 2
    assert "holds something else than a demo" in err
