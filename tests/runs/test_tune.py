"""Fine-tuning as a run: what is kept, how it goes on, and what is refused."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from test_files import posix
from test_run import (
    KILLER,
    assert_same_run,
    fill_disk,
    in_step,
    interrupt,
    read_log,
    spoil,
)

import minillm
from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.files.adapters import load_adapter
from minillm.files.opening import open_model
from minillm.hub import load_llama, save_llama
from minillm.inference.chat import MARKS, encode_chat
from minillm.model import TransformerLM
from minillm.runs import checks
from minillm.runs import run as run_module

SETTINGS = {"--steps": 12, "--eval-every": 4, "--batch-size": 2, "--max-lr": 0.01}
END = "<|endoftext|>"


def a_base(folder: Path, specials: tuple[str, ...] = (END,), **more: Any) -> Path:
    tokenizer = BPETokenizer.train(["what is a duck in the pond"] * 9, 270, specials)
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(270, 96, 32, 2, 4, 2, d_ff=48, **more))
    save_llama(model, folder, tokenizer)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_base(tmp_path_factory.mktemp("models") / "base")


def turn(who: str, what: str) -> dict[str, str]:
    return {"role": who, "content": what}


CHATS = [
    {"messages": [turn("user", f"what is {i}?"), turn("assistant", f"a duck{'!' * n}")]}
    for i, n in ((i, i % 4) for i in range(20))
]
PREFERENCES = [
    {
        "prompt": c["messages"][:1],
        "chosen": c["messages"][1:],
        "rejected": [turn("assistant", f"the pond{'.' * (i % 3)}")],
    }
    for i, c in enumerate(CHATS)
]


def write(path: Path, lines: list[Any]) -> Path:
    text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("chats")
    return {
        "chats": write(folder / "chats.jsonl", CHATS),
        "preferences": write(folder / "preferences.jsonl", PREFERENCES),
    }


def words(base: Path, data: Path, out: Path, *more: Any, **changes: Any) -> list[str]:
    given = {"--rank": 2, "--device": "cpu"} | SETTINGS
    given |= {f"--{k.replace('_', '-')}": v for k, v in changes.items()}
    pairs = [x for pair in given.items() for x in pair if pair[1] is not None]
    return ["tune", *map(str, [base, data, "--out", out, *pairs, *more])]


@pytest.fixture(autouse=True)
def peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "measure_peak_flops", lambda **_: 1e9)


# What lies in the folder


def test_a_thin_layer_and_what_belongs_to_it(
    call: Any, base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, said, err = call(*words(base, files["chats"], out))
    assert (code, err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == [
        *(".lock", "adapter_config.json", "adapter_model.safetensors"),
        *("best.safetensors", "chat_template.jinja", "last.safetensors"),
        *("log.jsonl", "loss.svg", "tune.toml"),
    ]
    said = " ".join(said.split())
    for part in (
        "to learn from",
        "which learn; a step keeps",
        "the first loss is 5.",
        "tokens/s",
        "MFU",
        "nats per token of an answer, held out",
        f"kept in {out}"[:20],
    ):
        assert part in said
    log = read_log(out)
    looks = [e["validation_loss"] for e in log if e.get("validation_loss")]
    assert [e["event"] for e in log] == [
        *("config", "before"),
        *(["step"] * 4 + ["sample"]) * 3,
        "result",
    ]
    assert log[-1]["loss"] == min(looks) < log[1]["loss"]
    assert log[-1]["baselines"] == {"before": log[1]["loss"]}
    # What is kept did best, and is what a chat opens.
    model = load_llama(base)
    load_adapter(model, out)
    best = safetensors.torch.load_file(out / "best.safetensors")
    for name, weight in model.named_parameters():
        key = f"model.{name.replace('.', '/')}"
        assert (key in best) == name.endswith((".a", ".b"))
        assert key not in best or torch.equal(best[key], weight)
    opened = open_model(out)
    ids = encode_chat(opened.tokenizer, [("user", "what is 3?")], opened.chat_template)
    assert opened.tokenizer.decode(ids) == "user:\nwhat is 3?\nassistant:\n"
    seen, plain = torch.tensor([ids]), load_llama(base)
    torch.testing.assert_close(opened.model(seen), model(seen))
    assert not torch.equal(opened.model(seen), plain(seen))
    # The checkpoint holds no weights that stay.
    assert (out / "last.safetensors").stat().st_size < 100_000


def test_all_weights_and_a_chat(
    call: Any, base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    """It learns to answer and to stop, and chat shows it."""
    out, more = tmp_path / "run", {"rank": 0, "steps": 120, "eval_every": 60}
    code, _, err = call(*words(base, files["chats"], out, batch_size=8, **more))
    assert (code, err) == (0, "")
    model, tokenizer = minillm.load(out)
    assert model.config == load_llama(base).config
    assert tokenizer.stop_ids == [tokenizer.special_tokens[END]]
    settings = ("--temperature", 0, "--system", "", "--device", "cpu")
    _, before, _ = call("chat", base, *settings, typed="what is 5?\n")
    _, after, err = call("chat", out, *settings, typed="what is 5?\n")
    assert err == ""
    assert after.startswith("> a duck") and len(after) < 30
    assert "a duck" not in before


def test_a_model_that_can_chat_keeps_its_form(
    call: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    base = a_base(tmp_path / "base", (*MARKS, END))
    code, _, err = call(*words(base, files["chats"], tmp_path / "a", steps=1))
    assert (code, err) == (0, "")
    assert not (tmp_path / "a" / "chat_template.jinja").exists()
    assert open_model(tmp_path / "a").chat_template is None


def test_preferences_begin_at_ln_2_and_fall(
    call: Any, base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    for rank in (0, 2):
        out = tmp_path / str(rank)
        code, said, err = call(*words(base, files["preferences"], out, rank=rank))
        assert (code, err) == (0, "")
        assert "the first loss is 0.6931, and ln 2 = 0.6931" in said
        log = read_log(out)
        assert log[1]["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert log[-1]["loss"] < log[1]["loss"] - 0.01


# Going on


@pytest.fixture(scope="session")
def finished(
    base: Path, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[Any, Path]:
    folder, runs = tmp_path_factory.mktemp("finished"), {}
    for kind, rank in (("chats", 2), ("preferences", 0)):
        runs[kind, rank] = folder / kind
        command = words(base, files[kind], runs[kind, rank], rank=rank)
        subprocess.run(
            [sys.executable, "-m", "minillm", *command],
            check=True,
            capture_output=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    return runs


def same(one: Path, other: Path) -> None:
    """The same to the last bit, in all that the clock has no part in."""
    for folder in (one, other):
        # What others read has another name where a thin layer is kept.
        adapter = folder / "adapter_model.safetensors"
        if adapter.exists():
            shutil.copy(adapter, folder / "model.safetensors")
    assert_same_run(one, other)


@pytest.mark.parametrize(("kind", "rank"), [("chats", 2), ("preferences", 0)])
@pytest.mark.parametrize("stop", [3, 8])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    call: Any,
    base: Path,
    files: dict[str, Path],
    finished: dict[Any, Path],
    tmp_path: Path,
    kind: str,
    rank: int,
    stop: int,
) -> None:
    command = words(base, files[kind], tmp_path / "a", rank=rank)
    with in_step(stop, interrupt):
        code, said, err = call(*command)
    assert (code, err) == (130, "")
    assert f"keeps step {stop}; go on with --resume" in " ".join(said.split())
    assert open_model(tmp_path / "a")
    torch.manual_seed(99)
    code, said, err = call(*command, "--resume")
    assert (code, err) == (0, "")
    assert f"after step {stop}" in " ".join(said.split())
    same(tmp_path / "a", finished[kind, rank])


@pytest.fixture
def stopped(call: Any, base: Path, files: dict[str, Path], tmp_path: Path) -> Path:
    """A run that has been stopped after step 8 of 12."""
    with in_step(9, fill_disk):
        assert call(*words(base, files["chats"], tmp_path / "run"))[0] == 2
    return tmp_path / "run"


def test_what_must_be_the_same_when_it_goes_on(
    call: Any, base: Path, files: dict[str, Path], stopped: Path, tmp_path: Path
) -> None:
    chats = files["chats"]
    again = ("--resume", "--force")
    for command, message in (
        (words(base, chats, stopped), "holds a run already: go on with it by --resume"),
        (words(base, chats, stopped, *again, rank=4), "other thin layers: rank is 2"),
        (words(base, chats, stopped, "--resume", max_lr=0.1), "max_lr is 0.01 there"),
    ):
        code, _, err = call(*command)
        assert (code, message in err) == (2, True), err
    # Another model of the same shape: its thin layers would mean nothing.
    with torch.no_grad():
        model, tokenizer = minillm.load(base)
        model.final_norm.weight[0] += 1e-4
        save_llama(model, tmp_path / "near", tokenizer)
    code, _, err = call(*words(tmp_path / "near", chats, stopped, *again))
    assert (code, "was tuned from another model than" in err) == (2, True)
    # Other chats can be forced.
    more = write(tmp_path / "chats.jsonl", CHATS[:-1])
    code, _, err = call(*words(base, more, stopped, "--resume"))
    assert (code, "the chats are ['chats.jsonl', " in err) == (2, True)
    assert call(*words(base, more, stopped, *again))[0] == 0
    code, _, err = call(*words(base, more, stopped, "--resume"))
    assert (code, "has reached its last step, 12" in err) == (2, True)
    code, _, err = call("train", "--out", str(stopped), "--resume")
    assert (code, "holds a run of minillm tune" in err) == (2, True)


def test_a_run_of_training_is_a_model_and_no_run_to_go_on_with(
    call: Any, base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(base, tmp_path / "run")
    (tmp_path / "run" / "last.safetensors").write_bytes(b"")
    code, _, err = call(*words(base, files["chats"], tmp_path / "run", "--resume"))
    assert (code, "holds a run of minillm train" in err) == (2, True)


def test_settings_of_a_file(
    call: Any,
    base: Path,
    files: dict[str, Path],
    finished: dict[Any, Path],
    tmp_path: Path,
) -> None:
    toml = finished["chats", 2] / "tune.toml"
    command = ["tune", base, files["chats"], "--out", tmp_path / "a"]
    assert call(*command, "--config", toml, "--device", "cpu")[0] == 0
    same(tmp_path / "a", finished["chats", 2])
    code, _, err = call("train", "--out", tmp_path / "b", "--config", toml)
    assert (code, "has no table 'tune'" in err) == (2, True)


# What goes wrong


def edited(**entries: Any) -> list[Any]:
    return [*CHATS[:3], entries]


LONG = [turn("user", "what?"), turn("assistant", "a duck " * 60)]


@pytest.mark.parametrize(
    ("lines", "changes", "message"),
    [
        (
            edited(messages=[turn("user", "a")]),
            {},
            "line 4: a chat ends with an answer",
        ),
        (edited(messages=LONG[::-1]), {}, "line 4: message 1 is of 'assistant'"),
        (edited(messages=LONG), {}, "not fit into the model's context of 96: shorten"),
        (CHATS[:1], {}, "one prompt cannot be split"),
        (CHATS, {"rank": 40}, "rank 40 needs 2560 weights for a matrix of 1024"),
        (CHATS, {"where": "w4"}, "where names 'w4'"),
        (CHATS, {"batch_size": 3, "grad_accum": 2}, "not a multiple of grad_accum=2"),
        (CHATS, {"validation": 2}, "validation must lie between 0 and 1; got 2"),
        (CHATS, {"device": "abacus"}, "the device 'abacus' cannot be used"),
    ],
)
def test_mistakes_leave_nothing_behind(
    call: Any, base: Path, tmp_path: Path, lines: Any, changes: Any, message: str
) -> None:
    data = write(tmp_path / "chats.jsonl", lines)
    code, _, err = call(*words(base, data, tmp_path / "out" / "a", **changes))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_before_the_first_step(
    call: Any,
    base: Path,
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thin layer needs less than all weights, and a pair more than a chat."""
    needed = {}
    for kind, rank in (("chats", 2), ("chats", 0), ("preferences", 0)):
        monkeypatch.setattr(checks, "machine_memory", lambda: 1e3)
        out = tmp_path / "a"
        code, _, err = call(*words(base, files[kind], out, rank=rank, batch_size=1))
        assert (code, "there are 1kB: a larger grad_accum" in err) == (2, True), err
        assert not out.exists()
        (number,) = [w for w in err.split() if w.endswith(("kB,", "MB,"))][:1]
        unit = {"k": 1e3, "M": 1e6}[number[-3]]
        needed[kind, rank] = float(number[:-3]) * unit
    assert needed["chats", 2] < needed["chats", 0] < needed["preferences", 0]


def test_tokenizers_and_folders_that_do_not_serve(
    call: Any, files: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    bare = a_base(tmp_path / "bare", ())
    code, _, err = call(*words(bare, files["chats"], tmp_path / "a"))
    assert (code, "no special token that ends a text" in err) == (2, True)
    code, _, err = call(*words(tmp_path / "none", files["chats"], tmp_path / "a"))
    assert code == 2
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_bytes(b"mine")
    code, _, err = call(*words(base, files["chats"], tmp_path / "b"))
    assert (code, "is not an empty folder" in err) == (2, True)


def test_an_adapter_is_not_tuned_by_another(
    call: Any, files: dict[str, Path], finished: dict[Any, Path], tmp_path: Path
) -> None:
    adapter = finished["chats", 2]
    code, _, err = call(*words(adapter, files["chats"], tmp_path / "a"))
    assert (code, "is an adapter, and another one beside it" in err) == (2, True)
    assert (
        call(*words(adapter, files["chats"], tmp_path / "a", rank=0, steps=1))[0] == 0
    )
    assert minillm.load(tmp_path / "a")


def test_a_loss_that_is_no_number(
    call: Any, base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    with in_step(10, spoil):
        code, _, err = call(*words(base, files["chats"], tmp_path / "a"))
    assert code == 2
    assert "at step 10 the loss is nan" in err
    assert "last.safetensors, of step 8, and best.safetensors" in err
    assert err.count("\n") == 1
    assert open_model(tmp_path / "a")


def test_a_first_loss_that_is_far_off(
    call: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    base = a_base(tmp_path / "base")
    model, tokenizer = minillm.load(base)
    with torch.no_grad():
        model.lm_head.weight.mul_(100)
    save_llama(model, base, tokenizer)
    code, said, _ = call(*words(base, files["chats"], tmp_path / "a", steps=1))
    assert code == 0
    said = " ".join(said.split())
    assert "warning: the first loss is" in said
    assert "the model's own tokenizer and chat template?" in said


# What takes longer: kills, processes, a real model


def run(*command: Any, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | more,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@posix
@pytest.mark.check
def test_killed_at_random_moments_it_ends_the_same(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    options = {"steps": 40, "eval_every": 5}
    run("-m", "minillm", *words(base, files["chats"], straight, **options))
    again = words(base, files["chats"], killed, "--resume", **options)
    killer = "import minillm.runs.tune\n" + KILLER
    kills, _ = map(int, run("-c", killer, killed, *again).split()[-2:])
    assert kills >= 4
    same(straight, killed)


@pytest.mark.check
def test_two_processes_learn_what_one_does(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    for kind in ("chats", "preferences"):
        logs = []
        for n, start in ((1, []), (2, launcher)):
            out = tmp_path / f"{kind}-{n}"
            command = words(base, files[kind], out, batch_size=4, max_lr=1e-3)
            run(*start, "-m", "minillm", *command)
            logs.append(read_log(out))
        losses = [[e["loss"] for e in log if e["event"] == "step"] for log in logs]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
