"""On a GPU, what a CPU finds: the model, training, writing, and the whole command."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_model import GQA, loud, shapes, some_ids
from test_run import data, read_log, words

from minillm.accounting.disclosure import disclose
from minillm.accounting.measure import machine_memory, measure_peak_flops
from minillm.config import ModelConfig
from minillm.flops import short
from minillm.generate import generate
from minillm.inference.decoder import suits
from minillm.model import KVCache
from minillm.runs.checks import check_memory, pick_device
from minillm.train import TrainConfig, Trainer
from minillm.training.descent import adamw
from minillm.training.loss import cross_entropy, cross_entropy_fast, evaluate
from minillm.training.optimizer import AdamW

__all__ = ["data"]  # a fixture

BACKENDS = {"cuda": torch.cuda, "mps": torch.backends.mps}
pytestmark = pytest.mark.device


@pytest.fixture(params=BACKENDS)
def device(request):
    if not BACKENDS[request.param].is_available():
        pytest.skip(f"PyTorch finds no {request.param} device here")
    return request.param


def near(found, expected, tolerance=1e-4):
    """Whether two tensors are the same up to a part of the largest number."""
    assert found.shape == expected.shape
    return (found.cpu() - expected).abs().max() <= tolerance * expected.abs().max()


def training(device, config=GQA, **settings):
    """A training of a model that knows something, on a text that repeats itself."""
    text = np.arange(2000) ** 2 % 37
    settings = {"steps": 60, "batch_size": 8, "warmup_steps": 2, **settings}
    return Trainer(loud(config).to(device), text, TrainConfig(**settings))


# The model


@shapes
def test_the_model_gives_the_same(device, config):
    lm, ids = loud(config), some_ids(config)
    expected = lm(ids)
    lm, ids = lm.to(device), ids.to(device)
    cache = KVCache(config, 2)
    parts = torch.cat([lm(ids[:, :4], cache), lm(ids[:, 4:], cache)], 1)
    for found in (lm(ids), parts):
        assert found.device.type == device
        assert near(found, expected)


@shapes
def test_its_gradients_are_the_same(device, config):
    def gradients(lm, ids):
        cross_entropy_fast(lm(ids[:, :-1]), ids[:, 1:]).backward()
        return [w.grad for w in lm.parameters()]

    ids = some_ids(config)
    ours = gradients(loud(config).to(device), ids.to(device))
    expected = gradients(loud(config), ids)
    assert all(near(a, b, 1e-3) for a, b in zip(ours, expected, strict=True))


def test_a_model_that_comes_back_is_the_same(device):
    lm, ids = loud(GQA), some_ids(GQA)
    expected = lm(ids)
    assert torch.equal(lm.to(device).cpu()(ids), expected)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e4, 1e30])
@pytest.mark.parametrize("loss", [cross_entropy, cross_entropy_fast])
def test_the_loss_of_extreme_scores_is_the_same(device, loss, size):
    def both(place):
        random = torch.Generator().manual_seed(0)
        logits = size * torch.randn(5, 37, generator=random)
        logits[2, :30] = -torch.inf
        logits = logits.to(place).requires_grad_()
        found = loss(logits, torch.tensor([3, 0, 36, 9, 9], device=place))
        found.backward()
        return found.detach(), logits.grad

    for found, expected in zip(both(device), both("cpu"), strict=True):
        assert expected.isfinite().all()
        assert near(found, expected, 1e-6)


# Training


@shapes
def test_training_goes_the_same_way(device, config):
    losses = {
        place: [progress.loss for progress in training(place, config).run()]
        for place in ("cpu", device)
    }
    assert losses["cpu"][-1] < 0.7 * losses["cpu"][0]
    # What rounding has moved, sixty steps carry on.
    for ours, expected in zip(losses[device], losses["cpu"], strict=True):
        assert ours == pytest.approx(expected, rel=0.02)
    assert losses[device][0] == pytest.approx(losses["cpu"][0], rel=1e-5)


@pytest.mark.parametrize(
    "settings", [{"grad_accum": 4}, {"dtype": "bf16"}, {"max_norm": 0.01}], ids=str
)
def test_training_in_other_ways_does_too(device, settings):
    first, other = (
        [progress.loss for progress in training(place, **settings).run()]
        for place in ("cpu", device)
    )
    rounded = "dtype" in settings  # to three digits
    assert other[0] == pytest.approx(first[0], rel=0.01 if rounded else 1e-5)
    assert other[-1] == pytest.approx(first[-1], rel=0.1 if rounded else 0.02)


def test_the_same_seed_gives_the_same_losses(device):
    one, two = (
        [progress.loss for progress in training(device).run()] for _ in range(2)
    )
    # A GPU adds in no certain order where many write to one place.
    assert one == pytest.approx(two, rel=1e-3)


def test_the_rule_of_the_optimizer_is_the_same(device):
    random = torch.Generator().manual_seed(0)
    weight, *gradients = torch.randn(6, 7, 5, generator=random)
    expected, state = weight.double(), {}
    moved = torch.nn.Parameter(weight.to(device))
    optimizer = AdamW([moved], weight_decay=0.1)
    optimizer.param_groups[0]["lr"] = 0.01
    for g in gradients:
        expected = adamw(expected, g.double(), state, 0.01, weight_decay=0.1)
        moved.grad = g.to(device)
        optimizer.step()
    assert near(moved.detach().cpu().double(), expected, 1e-5)


@pytest.mark.parametrize("goes", ["there", "back", "on"])
def test_a_checkpoint_goes_on_elsewhere(device, tmp_path, goes):
    source = "cpu" if goes == "there" else device
    target = "cpu" if goes == "back" else device
    before, after = training(source), training(target)
    for _ in range(10):
        before.step()
    before.save(tmp_path / "checkpoint")
    after.load(tmp_path / "checkpoint")
    weights = zip(before.model.parameters(), after.model.parameters(), strict=True)
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in weights)
    assert {w.device.type for w in after.model.parameters()} == {target}
    for _ in range(5):
        assert after.step().loss == pytest.approx(before.step().loss, rel=1e-3)
    moments = [s["exp_avg"].device.type for s in after.optimizer.state.values()]
    assert set(moments) == {target}


def test_an_examination_is_the_same(device):
    text = np.arange(500) ** 2 % 37
    lm = loud(GQA)
    assert evaluate(lm.to(device), text) == pytest.approx(evaluate(loud(GQA), text))


# In a process of its own: the type checker that tests put behind every annotation
# cannot be compiled.
COMPILED = """
import pytest, sys
from test_device import training

device, dtype, tolerance = *sys.argv[1:3], float(sys.argv[3])
settings = {"steps": 20, "dtype": dtype}
plain, compiled = (
    [progress.loss for progress in training(device, compile=c, **settings).run()]
    for c in (False, True)
)
assert compiled == pytest.approx(plain, rel=tolerance), (plain, compiled)
print("compiled")
"""


@pytest.mark.check
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.02), ("bf16", 0.1)])
def test_a_compiled_training_goes_the_same_way(device, tmp_path, dtype, tolerance):
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, device, dtype, str(tolerance)],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        cwd=Path(__file__).parent,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.stdout == "compiled\n", done.stderr


def test_the_peak_of_a_device_is_that_of_its_work(device):
    """A product that is not waited for would seem to take no time at all."""
    peak = measure_peak_flops(dtype=torch.bfloat16, device=device)
    small = measure_peak_flops(256, dtype=torch.bfloat16, device=device)
    # No chip that there is multiplies at a hundred thousand million million a second.
    assert small < peak < 1e17


def test_its_memory_is_what_counts(device):
    huge = ModelConfig(50257, 2048, d_model=12288, n_layers=96, n_heads=96)
    if device == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    else:
        there = machine_memory()
    with pytest.raises(ValueError, match=re.escape(f"there are {short(there)}B")):
        check_memory(huge, TrainConfig(), device)
    assert pick_device("auto") == device


# Writing


@shapes
@pytest.mark.parametrize("use_cache", [True, False])
def test_the_same_text_is_written(device, config, use_cache):
    here, there = loud(config).eval(), loud(config).eval().to(device)
    assert suits(there)
    settings = {"use_cache": use_cache}
    for draw in (
        {"temperature": 0},
        {"seed": 1, "top_k": 9},
        {"seed": 2, "top_p": 0.9},
    ):
        # Longer than the context, so that it is left behind twice.
        found, expected = (
            generate(lm, [3, 1, 4], 25, **draw, **settings) for lm in (there, here)
        )
        assert found == expected


# The command


def test_a_run_of_the_command(device, data, tmp_path, call, monkeypatch):
    """Train, be interrupted, go on, and write: as on a CPU."""
    step = Trainer.step

    def interrupted(self):
        progress = step(self)
        if progress.step == 7:
            signal.raise_signal(signal.SIGINT)
        return progress

    monkeypatch.setattr(Trainer, "step", interrupted)
    there = words(data, tmp_path / "there", device=device)
    code, out, _ = call(*there)
    assert code == 130, out
    monkeypatch.setattr(Trainer, "step", step)
    code, out, err = call(*there, "--resume")
    assert (code, err) == (0, "")
    assert "after step 7" in " ".join(out.split())
    assert call(*words(data, tmp_path / "here", device="cpu"))[0] == 0
    logs = [read_log(tmp_path / name) for name in ("there", "here")]
    for ours, expected in zip(*logs, strict=True):
        assert ours["event"] == expected["event"]
        if ours["event"] == "step":
            assert ours["loss"] == pytest.approx(expected["loss"], rel=1e-3)
    assert f", {device}, " in str(disclose(tmp_path / "there"))
    code, out, err = call("generate", tmp_path / "there", "Once", "--max-new-tokens", 9)
    assert (code, err) == (0, "")
    assert out.startswith("Once")
