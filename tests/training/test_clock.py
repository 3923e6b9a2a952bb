"""The clock sees every operation, and counts what formulas count."""

import json

import pytest
import torch
from typer.testing import CliRunner

from minillm.accounting.shapes import Architecture
from minillm.cli.app import app
from minillm.config import ModelConfig
from minillm.flops import training_flops
from minillm.hub import save_llama
from minillm.model import TransformerLM
from minillm.training.clock import Operation, profile_step
from minillm.training.clock_report import by_part
from minillm.training.machine import Machine, predicted_seconds


@pytest.mark.parametrize(
    ("config", "batch", "length"),
    [
        (ModelConfig(40, 12, 24, n_layers=2, n_heads=3), 2, 12),
        (ModelConfig(40, 12, 32, n_layers=1, n_heads=4, n_kv_heads=2), 1, 7),
        (ModelConfig(9, 6, 8, 1, 1, tie_embeddings=True), 3, 5),
        (Architecture(40, 12, 24, n_layers=2, n_heads=2, mlp_matrices=2), 2, 9),
    ],
)
def test_the_products_are_those_of_the_formula(config, batch, length):
    step = profile_step(config, batch, length, tries=1)
    assert sum(o.flops for o in step) == training_flops(config, batch, length)
    assert all(o.seconds >= 0 for o in step)


def test_parts_and_bytes():
    config = ModelConfig(40, 12, 24, n_layers=2, n_heads=3, d_ff=64)
    step = profile_step(config, 2, 12, tries=1)
    # Each layer has a product forward and two backward: seven layers in a block.
    products = [(o.part, o.n_bytes) for o in step if o.name == "mm"]
    assert len(products) == 3 * (7 * 2 + 1)
    assert {part for part, _ in products} == {"projections", "feed-forward", "head"}
    tokens, d, vocab = 2 * 12, 24, 40
    head = {n_bytes for part, n_bytes in products if part == "head"}
    assert head == {4 * (tokens * d + d * vocab + tokens * vocab)}
    assert {o.n_bytes for o in step if o.name in ("t", "view", "transpose")} == {0}
    # AdamW reads and writes weight, gradient and both moments, and counts steps.
    n = sum(w.numel() for w in TransformerLM(config).parameters())
    (moved,) = (row[3] for row in by_part(step, ONE) if row[0] == "AdamW")
    assert 4 * 4 * n <= moved < 4 * 4 * n + 1000
    assert {"norms", "rotation", "attention", "gate", "loss", "clipping"} <= {
        o.part for o in step
    }


ONE = Machine(peak_flops=1.0, bandwidth=((1.0, 1.0), (1e6, 10.0)), call=0.5)


@pytest.mark.parametrize(
    ("flops", "n_bytes", "seconds"),
    [(0, 0, 0.5), (7, 2, 7.5), (7, 9, 9.5), (0, 1e6, 1e5 + 0.5)],
)
def test_an_operation_waits_for_what_takes_longer(flops, n_bytes, seconds):
    operation = Operation("head", "mm", flops, n_bytes, 0)
    assert predicted_seconds(operation, ONE) == seconds


def test_the_command(tmp_path):
    save_llama(TransformerLM(ModelConfig(20, 8, 8, 1, 2)), tmp_path)
    threads = torch.get_num_threads()
    try:
        arguments = ["clock", str(tmp_path), "--steps", "1", "--threads", "1"]
        done = CliRunner().invoke(app, arguments)
        found = CliRunner().invoke(app, [*arguments, "--json"])
    finally:
        torch.set_num_threads(threads)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split()[:2] == ["part", "of"]
    assert any(line.startswith("all ") for line in lines)
    assert "the prediction is off by" in done.output
    report = json.loads(found.output)
    assert report["threads"] == 1 and report["predicted"] > 0
    total = sum(row[4] for row in report["parts"])
    assert report["operations"] == pytest.approx(total)


def test_a_model_too_large_for_the_machine():
    done = CliRunner().invoke(app, ["clock", "opt-175b"])
    assert isinstance(done.exception, ValueError)
    assert "take a smaller --batch or --context" in str(done.exception)
