"""Deep models: gradients by block, against PyTorch, a closed form and the claims."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minillm.config import ModelConfig
from minillm.files.reading import IMAGES
from minillm.model import TransformerLM
from minillm.training.by_hand import by_autograd
from minillm.training.depth import (
    VARIANTS,
    fresh,
    gradient_norms,
    learn,
    power_of_ten,
    stacked,
    tales,
)
from minillm.training.layers import cross_entropy
from minillm.training.tape import Node

COURSE = VARIANTS["residuals, norm before"]


def test_the_last_variant_is_the_model_of_the_course():
    config = ModelConfig(64, 32, d_model=64, n_layers=3, n_heads=4)
    arrays = fresh(config, COURSE, seed=0)
    model = TransformerLM(config).double()
    names = {"embedding": "token_embedding.weight", "head": "lm_head.weight"}
    state = {names.get(n, n): torch.from_numpy(x) for n, x in arrays.items()}
    missing = model.load_state_dict(state, strict=False)
    assert missing.unexpected_keys == []
    assert all("norm" in name for name in missing.missing_keys)
    ids = np.random.default_rng(0).integers(0, 64, (4, 33))
    w = {name: Node(x) for name, x in arrays.items()}
    logits, stream = stacked(w, config, COURSE, ids[:, :-1])
    loss = cross_entropy(logits, ids[:, 1:])
    loss.backward()
    theirs = by_autograd(model, ids[:, :-1], ids[:, 1:])
    # The model has an eps under the root that matters little here.
    assert float(loss.value) == pytest.approx(theirs, rel=1e-9)
    for name, parameter in model.named_parameters():
        ours = {names.get(n, n): x for n, x in w.items()}.get(name)
        if ours is not None:
            np.testing.assert_allclose(ours.grad, parameter.grad.numpy(), atol=1e-10)
    assert len(stream) == 4


def post_norm(x, w, config):
    """The block of the first Transformer's order, in PyTorch."""
    d = config.d_model

    def norm(x):
        return F.rms_norm(x, (d,), eps=1e-5)

    for i in range(config.n_layers):
        p = {
            k.split(".", 2)[2]: v for k, v in w.items() if k.startswith(f"blocks.{i}.")
        }
        model = TransformerLM(config).double().blocks[0]
        y = torch.func.functional_call(
            model.attn, {k[5:]: v for k, v in p.items() if k.startswith("attn")}, (x,)
        )
        x = norm(x + y)
        y = torch.func.functional_call(
            model.ffn, {k[4:]: v for k, v in p.items() if k.startswith("ffn")}, (x,)
        )
        x = norm(x + y)
    return x


def test_norm_after_is_norm_after():
    config = ModelConfig(64, 32, d_model=64, n_layers=2, n_heads=4)
    variant = VARIANTS["residuals, norm after"]
    arrays = fresh(config, variant, seed=1, scale=3.0)
    w = {n: torch.from_numpy(x.copy()).requires_grad_() for n, x in arrays.items()}
    ids = np.random.default_rng(1).integers(0, 64, (4, 33))
    x = w["embedding"][torch.from_numpy(ids[:, :-1])].detach().requires_grad_()
    y = post_norm(x, w, config)
    logits = y @ w["head"].T
    F.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(ids[:, 1:]).flatten()
    ).backward()
    ours = gradient_norms(variant, 2, seed=1, scale=3.0)
    assert ours[0] == pytest.approx(x.grad.norm().item(), rel=1e-9)


def test_residuals_carry_the_gradient_unchanged_where_layers_do_nothing():
    for name in ("residuals alone", "residuals, norm before"):
        norms = gradient_norms(VARIANTS[name], 3, scale=0.0)
        assert norms == pytest.approx([norms[-1]] * 4)
    assert gradient_norms(VARIANTS["neither"], 3, scale=0.0)[:3] == [0, 0, 0]


def test_what_the_page_says_of_the_path():
    """Zero without both; a thousandfold at most, early, with both; the rest explode."""
    for seed in range(3):
        deep = {name: gradient_norms(v, 16, seed, 3.0) for name, v in VARIANTS.items()}
        assert math.isnan(deep["neither"][0]) and math.isnan(deep["residuals alone"][0])
        before, after = deep["residuals, norm before"], deep["residuals, norm after"]
        assert 300 < before[0] / before[-1] < 3000
        assert before[0] / before[3] > 3 * before[3] / before[-1]
        assert after[0] / after[-1] > 1e7
        assert deep["norms alone"][0] / deep["norms alone"][-1] > 1e9
        assert gradient_norms(VARIANTS["neither"], 16, seed)[0] == 0


def test_the_figure_is_of_today():
    committed = json.loads((IMAGES / "data" / "depth.json").read_text("utf-8"))
    assert len(committed) == 3
    for name, seeds in committed.items():
        for seed, norms in enumerate(seeds):
            today = gradient_norms(VARIANTS[name], 16, seed, 3.0)
            assert norms == pytest.approx(today, rel=1e-2)


def test_a_model_of_either_kind_learns_if_it_is_shallow():
    text = np.arange(500) % 5
    config = ModelConfig(8, 8, d_model=16, n_layers=1, n_heads=2)
    found = {n: learn(v, text, 0, config=config, steps=60) for n, v in VARIANTS.items()}
    assert found["residuals, norm before"] < 1.0 < math.log(8)
    assert all(loss < math.log(8) for loss in found.values())


def test_the_table_says_what_the_text_says():
    rows = (IMAGES / "data" / "depth.md").read_text(encoding="utf-8").splitlines()[2:]
    cells = [[cell.strip() for cell in row.split("|")[1:3]] for row in rows]
    spread = {name: [float(x) for x in cell.split(" to ")] for name, cell in cells}
    assert list(spread) == list(VARIANTS)
    nothing, norms, residuals, after, before = spread.values()
    assert nothing == [round(math.log(256), 2)] * 2
    assert max(*after, *before) < min(*norms, *residuals) < 4
    assert after[0] <= before[1] and before[0] <= after[1]  # they overlap


def test_it_reads_the_tales_as_bytes():
    config = ModelConfig(256, 8, d_model=16, n_layers=1, n_heads=2)
    loss = learn(VARIANTS["residuals alone"], tales(), 0, config=config, steps=3)
    assert abs(loss - math.log(256)) < 1


def test_powers():
    assert [power_of_ten(x) for x in (1, 0.02, 3e7, 0, math.inf)] == [
        *("0", "-2", "7", "zero", "overflow")
    ]
