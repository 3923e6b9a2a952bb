"""Checkpoints: what goes in comes out, and half a file is never taken for a whole."""

import io
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import PEAK
from test_files import full_disk, names, posix
from torch import Tensor, nn

from minillm.config import ModelConfig
from minillm.model import TransformerLM
from minillm.train import cross_entropy, get_batch
from minillm.training.checkpoint import (
    DTYPES,
    load_checkpoint,
    read_extra,
    save_checkpoint,
)
from minillm.training.optimizer import AdamW, cosine_schedule

SHAPE = ModelConfig(9, 8, d_model=8, n_layers=2, n_heads=2, tie_embeddings=True)


class Odd(nn.Module):
    """Everything that a module may hold: odd types, shapes, strides and views."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3))
        self.short = nn.Parameter(torch.randn(5).bfloat16())
        self.scalar = nn.Parameter(torch.randn(()))
        self.empty = nn.Parameter(torch.randn(0, 3))
        self.register_buffer("empty_too", torch.randn(0, 3))
        self.register_buffer("turned", torch.randn(2, 3).T)
        self.register_buffer("top", self.weight.data[:2])
        self.register_buffer("again", self.weight.data)
        self.register_buffer("flags", torch.rand(3) > 0.5)
        self.register_buffer("count", torch.randint(9, (2,), dtype=torch.uint8))
        self.register_buffer("private", torch.randn(2), persistent=False)
        self.by_name = nn.ModuleDict({"model": nn.Linear(1, 1), "ä b": nn.Linear(1, 1)})


MODULES: dict[str, Callable[[], nn.Module]] = {
    "tied": lambda: TransformerLM(SHAPE),
    "batch norm": lambda: nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3)),
    "recurrent": lambda: nn.GRU(2, 3, num_layers=2),
    "odd": Odd,
    "empty": nn.Identity,
}


def saved(
    model: nn.Module, optimizer: torch.optim.Optimizer, step: int = 0, **extra: Any
) -> io.BytesIO:
    file = io.BytesIO()
    save_checkpoint(file, model, optimizer, step, **extra)
    file.seek(0)
    return file


def some_checkpoint() -> tuple[nn.Module, bytes]:
    model = nn.Linear(3, 2)
    optimizer = AdamW(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    return model, saved(model, optimizer, 5, note="hello").getvalue()


def assert_same(there: Any, here: Any) -> None:
    """Equal to the last bit, and of equal types, all the way down."""
    assert type(there) is type(here)
    if isinstance(there, Tensor):
        assert there.dtype == here.dtype
        assert torch.equal(there, here)
    elif isinstance(there, dict):
        assert there.keys() == here.keys()
        for key in there:
            assert_same(there[key], here[key])
    elif isinstance(there, (list, tuple)):
        assert len(there) == len(here)
        for a, b in zip(there, here, strict=True):
            assert_same(a, b)
    else:
        assert there == here


# What goes in comes out


@pytest.mark.parametrize("name", MODULES)
def test_any_module(name: str) -> None:
    torch.manual_seed(0)
    model, fresh = MODULES[name](), MODULES[name]()
    if name == "batch norm":
        model(torch.randn(4, 2, 5))
        assert model[1].num_batches_tracked == 1
    optimizer = torch.optim.SGD([*model.parameters(), torch.zeros(1)], lr=0.1)
    assert load_checkpoint(saved(model, optimizer, 123), fresh) == 123
    assert_same(dict(model.state_dict()), dict(fresh.state_dict()))


def test_tied_weights_are_written_once_and_stay_tied() -> None:
    model, fresh = TransformerLM(SHAPE), TransformerLM(SHAPE)
    optimizer = AdamW(model.parameters())
    file = saved(model, optimizer)
    written = safetensors.torch.load(file.getvalue()).keys()
    assert written == {
        f"model.{name}" for name in model.state_dict() if name != "lm_head.weight"
    }
    load_checkpoint(file, fresh)
    assert fresh.lm_head.weight is fresh.token_embedding.weight
    assert torch.equal(fresh.lm_head.weight, model.lm_head.weight)
    # Equal is not the same: two weights that happen to agree are both kept.
    twins = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    twins[1].load_state_dict(twins[0].state_dict())
    assert len(safetensors.torch.load(saved(twins, optimizer).getvalue())) == 4


class Counting(torch.optim.Optimizer):
    """Keeps numbers of Python beside each weight, as older optimizers do."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1, "limits": (1, (2.5, None))})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for w in group["params"]:
                n = self.state[w].get("n", 0) + 1
                self.state[w] = {"n": n, "past": (n, [0.5]), "mean": w.detach() / n}


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "ours": lambda ps: AdamW(ps, betas=(0.8, 0.9)),
    "torch's": lambda ps: torch.optim.AdamW(ps, amsgrad=True),
    "counting": Counting,
    "plain SGD": torch.optim.SGD,
    "momentum": lambda ps: torch.optim.SGD(ps, momentum=0.9, nesterov=True),
    "Adagrad": torch.optim.Adagrad,
    "ASGD": torch.optim.ASGD,
    "NAdam": torch.optim.NAdam,
    "RMSprop": lambda ps: torch.optim.RMSprop(ps, centered=True),
    "Rprop": torch.optim.Rprop,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_any_optimizer(name: str) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))

    def build() -> torch.optim.Optimizer:
        # The last bias gets no gradient, so no state either.
        groups = [
            {"params": [*model[0].parameters()]},
            {"params": [*model[1].parameters()]},
        ]
        groups[1]["lr"] = 0.03
        return OPTIMIZERS[name](groups)

    optimizer = build()
    for _ in range(3):
        optimizer.zero_grad()
        (model[0](torch.ones(2)) * model[1].weight).sum().backward()
        optimizer.step()
    fresh = build()
    load_checkpoint(saved(model, optimizer), model, fresh)
    assert_same(optimizer.state_dict(), fresh.state_dict())
    if name == "ours":
        assert type(fresh.param_groups[0]["betas"]) is tuple


def test_five_steps_and_five_more_are_ten(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(9, size=200)
    random = torch.Generator().manual_seed(0)
    batches = [get_batch(tokens, 4, 8, generator=random) for _ in range(10)]

    def build(seed: int) -> tuple[TransformerLM, AdamW]:
        torch.manual_seed(seed)
        model = TransformerLM(SHAPE)
        return model, AdamW(model.parameters(), weight_decay=0.1)

    def go(model: TransformerLM, optimizer: AdamW, first: int, last: int) -> None:
        for step in range(first, last):
            for group in optimizer.param_groups:
                group["lr"] = cosine_schedule(step + 1, 0.1, 0.0, 2, 10)
            inputs, targets = batches[step]
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()

    straight = build(0)
    go(*straight, 0, 10)
    stopped = build(0)
    go(*stopped, 0, 5)
    save_checkpoint(tmp_path / "half", *stopped, step=5)
    resumed = build(1)
    step = load_checkpoint(tmp_path / "half", *resumed)
    go(*resumed, step, 10)
    for one, other in zip(straight, resumed, strict=True):
        assert_same(dict(one.state_dict()), dict(other.state_dict()))
    # The other half of the claim: without the optimizer's state it is not the same.
    forgetful = build(1)
    go(*forgetful, load_checkpoint(tmp_path / "half", forgetful[0]), 10)
    assert not torch.equal(forgetful[0].lm_head.weight, straight[0].lm_head.weight)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.text("abcxyz_", min_size=1)


@settings(deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=3))
def test_extra_values(extra: dict[str, Any]) -> None:
    model = nn.Linear(1, 1)
    file = saved(model, torch.optim.SGD(model.parameters()), **extra)
    assert_same(read_extra(file), extra)


# Files


def test_paths_and_open_files(tmp_path: Path) -> None:
    model, data = some_checkpoint()
    optimizer = AdamW(model.parameters())
    path = tmp_path / "run.safetensors"
    for place in (path, str(path)):
        save_checkpoint(place, model, optimizer, 6, note="by path")
        assert load_checkpoint(place, nn.Linear(3, 2)) == 6
        assert read_extra(place) == {"note": "by path"}
    with path.open("wb") as file:
        save_checkpoint(file, model, optimizer, 7)
    with path.open("rb") as file:
        assert load_checkpoint(file, nn.Linear(3, 2)) == 7
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        assert read_extra(file) == {"note": "hello"}
    assert names(tmp_path) == [path.name]


def test_others_can_read_it(tmp_path: Path) -> None:
    model, data = some_checkpoint()
    (tmp_path / "file").write_bytes(data)
    with safetensors.safe_open(tmp_path / "file", framework="pt") as file:
        assert torch.equal(file.get_tensor("model.weight"), model.weight)
        assert {"optimizer.0.exp_avg", "optimizer.1.step"} <= {*file.keys()}
        assert json.loads(file.metadata()["minillm"])["step"] == 5


def test_a_compiled_model_keeps_its_names() -> None:
    class Compiled(nn.Module):
        """What `torch.compile` puts around a module."""

        def __init__(self, original: nn.Module) -> None:
            super().__init__()
            self._orig_mod = original

    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = AdamW(model.parameters())
    assert "_orig_mod.weight" in Compiled(model).state_dict()
    file = saved(Compiled(model), optimizer)
    assert b"_orig_mod" not in file.getvalue()
    load_checkpoint(file, other)
    assert torch.equal(model.weight, other.weight)
    file.seek(0)
    wrapped = Compiled(nn.Linear(3, 2))
    load_checkpoint(file, wrapped)
    assert torch.equal(model.weight, wrapped._orig_mod.weight)


def test_cut_off_anywhere() -> None:
    model, data = some_checkpoint()
    before = dict(model.state_dict())
    for n in range(len(data)):
        with pytest.raises(ValueError, match=r"not a whole checkpoint .* an earlier"):
            load_checkpoint(io.BytesIO(data[:n]), model)
    for other in (data + b"\0", data[:-1] + b"\0\0", bytes(len(data))):
        with pytest.raises(ValueError, match="is not a whole checkpoint"):
            read_extra(io.BytesIO(other))
    assert_same(before, dict(model.state_dict()))


class Trap:
    """What runs code when it is unpickled."""

    sprung = False

    def __reduce__(self) -> Any:
        return setattr, (Trap, "sprung", True)


def test_files_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "file"
    others = {
        "nothing": b"",
        "text": b"Once upon a time there was a checkpoint.",
        "json": b'{"__metadata__": {"minillm": "{}"}}',
        "weights": safetensors.torch.save({"weight": torch.ones(2, 3)}),
        "metadata": safetensors.torch.save({}, metadata={"minillm": "no JSON"}),
        "pickle": pickle.dumps(Trap()),
    }
    for data in others.values():
        path.write_bytes(data)
        with pytest.raises(ValueError, match="file is not a whole checkpoint"):
            load_checkpoint(path, nn.Linear(3, 2))
    assert not Trap.sprung
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "missing", nn.Linear(3, 2))


@pytest.mark.parametrize("cause", ["not JSON", "disk full", "no fsync"])
@posix
def test_a_failing_write_leaves_the_old_checkpoint(
    tmp_path: Path, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = some_checkpoint()
    path = tmp_path / "run.safetensors"
    path.write_bytes(data)
    new = nn.Linear(300, 2), torch.optim.SGD([torch.zeros(1)])
    if cause == "not JSON":
        with pytest.raises(TypeError, match="set is not JSON serializable"):
            save_checkpoint(path, *new, 6, note={1, 2})
    elif cause == "disk full":
        with full_disk(len(data)), pytest.raises(OSError):
            save_checkpoint(path, *new, 6)
    else:
        monkeypatch.setattr(os, "fsync", lambda fd: os.close(-1))
        with pytest.raises(OSError):
            save_checkpoint(path, *new, 6)
    assert path.read_bytes() == data
    assert load_checkpoint(path, model) == 5
    assert names(tmp_path) == [path.name]


# Checkpoints that do not fit


def test_another_model_is_named() -> None:
    _, data = some_checkpoint()
    cases = {
        "checkpoint and model differ: weight is [2, 3] there, [2, 4] here": nn.Linear(
            4, 2
        ),
        "bias is [2] there, missing here": nn.Linear(3, 2, bias=False),
        "0.bias is missing there, [2] here; 0.weight is missing there, [2, 3] here; "
        "bias is [2] there, missing here, and 1 more": nn.Sequential(nn.Linear(3, 2)),
    }
    for message, other in cases.items():
        before = [w.detach().clone() for w in other.parameters()]
        with pytest.raises(ValueError) as error:
            load_checkpoint(io.BytesIO(data), other)
        assert message in str(error.value)
        assert all(map(torch.equal, before, other.parameters()))


def test_another_optimizer_leaves_the_model_alone() -> None:
    _, data = some_checkpoint()
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    optimizer = AdamW([{"params": [w]} for w in model.parameters()])
    with pytest.raises(ValueError, match="different number of parameter groups"):
        load_checkpoint(io.BytesIO(data), model, optimizer)
    assert torch.equal(before, model.weight)
    assert math.isfinite(load_checkpoint(io.BytesIO(data), model))


SAVED = """
import torch
from torch import nn
from minillm.train import AdamW, save_checkpoint

def trained(width):
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(8)))
    optimizer = AdamW(model.parameters())
    for w in model.parameters():
        w.grad = torch.ones_like(w)
    optimizer.step()
    return model, optimizer

save_checkpoint(sys.argv[1], *trained(8), step=1)  # what a first save loads is no part
model, optimizer = trained(1024)
before, state = peak(), 3 * sum(4 * w.numel() for w in model.parameters()) / 2**20
save_checkpoint(sys.argv[1], model, optimizer, step=1)
print((peak() - before) / state)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such counter")
def test_saving_takes_no_second_copy_of_the_state(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PEAK + SAVED, str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # It was 3 before tensors were written one by one. A hundred megabytes of state are
    # far above what the interpreter takes and gives back meanwhile.
    assert float(done.stdout) < 0.1


def test_every_type_of_number_is_read_by_the_library(tmp_path: Path) -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for i, dtype in enumerate(DTYPES):
                values = torch.arange(-3, 4).to(dtype)
                self.register_buffer(f"b{i}", values)
                self.register_buffer(f"scalar{i}", values[0].clone())
                self.register_buffer(f"turned{i}", torch.ones(2, 3).to(dtype).T)
            self.register_buffer("empty", torch.zeros(0, 3))

    model = Many()
    save_checkpoint(
        tmp_path / "a", model, torch.optim.SGD([torch.ones(1)]), 1, é="ü" * 3
    )
    read = safetensors.torch.load_file(tmp_path / "a")
    state = {f"model.{name}": t for name, t in model.state_dict().items()}
    assert read.keys() == state.keys()
    for name, t in state.items():
        assert read[name].dtype == t.dtype
        assert torch.equal(read[name], t)
    # Numbers begin at multiples of their size, or reading them in place would fail.
    data = (tmp_path / "a").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    assert end % 8 == 0
    for name, entry in json.loads(data[8:end]).items():
        if name != "__metadata__":
            start = entry["data_offsets"][0]
            assert start % state[name].element_size() == 0
    assert read_extra(tmp_path / "a") == {"é": "ü" * 3}
    model.register_buffer("bad", torch.zeros(1, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"bad has the type torch.complex64"):
        save_checkpoint(tmp_path / "a", model, torch.optim.SGD([torch.ones(1)]), 1)
    assert data == (tmp_path / "a").read_bytes()
