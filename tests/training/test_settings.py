"""Settings: one list, the same in code, in a file and on the command line."""

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from minillm.cli import train as train_cli
from minillm.cli.app import app
from minillm.config import ModelConfig
from minillm.training.settings import (
    TrainConfig,
    differences,
    parse_toml,
    read_toml,
    settings,
    to_toml,
)

SHAPE = ModelConfig(300, 16, d_model=32, n_layers=1, n_heads=2, tie_embeddings=True)
POSITIVE = st.floats(1e-12, 1e12)
CONFIGS = st.builds(
    TrainConfig,
    steps=st.integers(1, 10**12),
    max_lr=POSITIVE,
    max_rise=st.just(float("inf")) | POSITIVE,
    min_lr=st.floats(0, 1),
    betas=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2),
    seed=st.integers(-5, 2**40),
    dtype=st.sampled_from(["float32", "bf16"]),
    compile=st.booleans(),
)


@given(CONFIGS)
def test_a_file_brings_back_what_was_written(config: TrainConfig) -> None:
    tables = parse_toml(to_toml({"model": SHAPE, "train": config}), "it")
    assert TrainConfig(**tables["train"]) == config
    assert ModelConfig(vocab_size=300, **tables["model"]) == SHAPE


def test_a_file_may_say_little(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[train]\nmax_lr = 1\nbetas = [0, 0.5]", encoding="utf-8")
    assert read_toml(path) == {
        "model": {},
        "train": {"max_lr": 1.0, "betas": (0.0, 0.5)},
    }
    assert type(read_toml(path)["train"]["max_lr"]) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nstpes = 3", "it has no setting 'stpes': did you mean 'steps'?"),
        ("[model]\nlayers = 3", "has no setting 'layers': did you mean 'n_layers'?"),
        ("[model]\nvocab_size = 3", "it has no setting 'vocab_size'"),
        ("[trian]", "it has no table 'trian': did you mean 'train'?"),
        ("steps = 3", "it has no table 'steps': did you mean"),
        ("train = 3", r"it: train must be a table, \[train\]"),
        ("[train]\nsteps = 3.5", "it: steps must be of type int; got 3.5"),
        ("[train]\nsteps = true", "it: steps must be of type int; got True"),
        ("[train]\ncompile = 1", "it: compile must be of type bool; got 1"),
        ("[train]\nmax_lr = '1'", "it: max_lr must be of type float; got '1'"),
        ("[train]\ndtype = 16", "it: dtype must be of type str; got 16"),
        ("[train]\nbetas = [0.9]", r"it: betas must be 2 numbers; got \[0.9\]"),
        ("[train]\nbetas = 0.9", "it: betas must be 2 numbers; got 0.9"),
        ("[train]\nbetas = ['a', 0.9]", "it: betas must be of type float; got 'a'"),
        ("[train", "it is not TOML"),
    ],
)
def test_files_with_mistakes(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_toml(text, "it")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grad_accum": 0}, "grad_accum must be at least 1; got 0"),
        ({"batch_size": 9, "grad_accum": 2}, "batch_size=9 is not a multiple of"),
        ({"max_rise": 0.0}, "max_rise must be positive; got 0.0"),
        ({"eval_tokens": 1}, "eval_tokens must be at least 2; got 1"),
        ({"betas": (0.9, 1.0)}, r"betas must lie in \[0, 1\); got \(0.9, 1.0\)"),
        ({"betas": (-0.1, 0.9)}, "betas must lie in"),
        ({"dtype": "fp8"}, "dtype must be float32 or bf16; got 'fp8'"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_every_field_is_a_setting_with_a_description() -> None:
    assert [s.name for s in settings(TrainConfig)] == [
        f.name for f in fields(TrainConfig)
    ]
    for setting in [*settings(TrainConfig), *settings(ModelConfig)]:
        assert setting.help.strip(".")
        assert not {"[", "`", "]"} & set(setting.help)
    assert {s.name: s.default for s in settings(TrainConfig)}["betas"] == (0.9, 0.98)


def test_every_setting_is_an_option_and_reaches_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    options = {p.name for p in command.params}
    expected = [*settings(TrainConfig), *settings(ModelConfig)]
    assert {s.name for s in expected} <= options
    seen = {}
    monkeypatch.setattr(
        train_cli, "read_given", lambda c, given, tables: seen.update(given)
    )
    # Any value but the default: another number, another word, the other truth.
    words = []
    wanted: dict[str, Any] = {}
    for s in expected:
        flag = f"--{s.name.replace('_', '-')}"
        if s.kind is bool:
            wanted[s.name] = not s.default
            words += [flag if wanted[s.name] else f"--no-{flag[2:]}"]
        elif s.name == "betas":
            wanted[s.name], words = (0.5, 0.25), [*words, flag, "0.5", "0.25"]
        elif s.kind is str:
            wanted[s.name], words = "bf16", [*words, flag, "bf16"]
        else:
            wanted[s.name], words = s.kind(7), [*words, flag, "7"]
    monkeypatch.setattr(sys, "argv", ["minillm", "train", "--out", "x", *words])
    monkeypatch.setattr("minillm.runs.checks.pick_device", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        app(standalone_mode=False)
    assert {name: seen[name] for name in wanted} == wanted


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[train]\nsteps = 5\nseed = 7\n[model]\nd_model = 8", "utf-8")
    given = train_cli.read_given(
        path, {"steps": 6, "seed": None, "n_layers": 3}, train_cli.TABLES
    )
    assert given == {
        "train": {"steps": 6, "seed": 7},
        "model": {"d_model": 8, "n_layers": 3},
    }
    # What says no is said, too.
    given = train_cli.read_given(None, {"compile": False}, train_cli.TABLES)
    assert given["train"] == {"compile": False}


def test_differences_are_named() -> None:
    other = replace(TrainConfig(), max_lr=0.5, betas=(0.1, 0.2))
    assert list(differences(TrainConfig(), other)) == [
        "max_lr is 0.0015 there, 0.5 here",
        "betas is (0.9, 0.98) there, (0.1, 0.2) here",
    ]
    assert list(differences(other, other)) == []
