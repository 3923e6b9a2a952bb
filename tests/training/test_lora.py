"""LoRA: the same function before, after merging, and the best of its rank between."""

import itertools

import pytest
import torch
from torch import nn

from minillm.config import ModelConfig
from minillm.generate import generate
from minillm.model import Linear, TransformerLM
from minillm.training.lora import LoRA, add_lora, merge_lora

CONFIG = ModelConfig(31, 12, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2)
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3")


def make():
    torch.manual_seed(0)
    return TransformerLM(CONFIG).double()


@pytest.mark.parametrize("where", [("q_proj", "v_proj"), ("w2",), ALL])
@pytest.mark.parametrize("rank", [1, 3])
def test_only_the_thin_matrices_learn_and_they_are_as_many_as_said(where, rank):
    model = make()
    frozen = {name: w.clone() for name, w in model.named_parameters()}
    learned = add_lora(model, rank, where=where)
    sizes = {
        name.split(".")[-2]: sum(w.shape)
        for name, w in frozen.items()
        if "proj" in name or ".w" in name
    }
    expected = sum(CONFIG.n_layers * rank * sizes[name] for name in where)
    assert sum(w.numel() for w in learned) == expected
    model(torch.tensor([[1, 2, 3]])).square().mean().backward()
    for weight in learned:
        assert weight.grad is not None and weight.requires_grad
    touched = [w for w in model.parameters() if w.requires_grad]
    assert {id(w) for w in touched} == {id(w) for w in learned}
    merge_lora(model)  # before any step, it changes nothing
    for name, weight in model.named_parameters():
        assert torch.equal(weight, frozen[name]) and weight.requires_grad


@pytest.mark.parametrize("alpha", [None, 8.0])
def test_merging_is_the_sum_written_out(alpha):
    model = make()
    before = {name: w.clone() for name, w in model.state_dict().items()}
    add_lora(model, 2, alpha, where=ALL)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, LoRA)}
    assert len(layers) == 2 * len(ALL)
    for layer in layers.values():
        nn.init.normal_(layer.a)
        nn.init.normal_(layer.b)
    ids = torch.tensor([[5, 6, 7, 8]])
    apart, written = model(ids), generate(model, [5, 6], 6, seed=1)
    merge_lora(model)
    torch.testing.assert_close(model(ids), apart)
    assert generate(model, [5, 6], 6, seed=1) == written
    scale = 1 if alpha is None else alpha / 2
    for name, layer in layers.items():
        added = torch.zeros_like(layer.linear.weight)
        for i, j, r in itertools.product(
            range(len(added)), range(added.shape[1]), range(2)
        ):
            added[i, j] += scale * layer.b[i, r].item() * layer.a[r, j].item()
        whole = model.state_dict()[f"{name}.weight"]
        torch.testing.assert_close(whole, before[f"{name}.weight"] + added)
    assert model.state_dict().keys() == before.keys()


def test_it_learns_the_best_approximation_of_its_rank():
    torch.manual_seed(1)
    base = Linear(12, 10).double()
    change = torch.randn(10, 12, dtype=torch.float64) / 12
    for rank in (1, 3):
        layer = LoRA(base, rank, alpha=2.0 * rank)
        for lr in (0.03, 0.003):
            optimizer = torch.optim.Adam([layer.a, layer.b], lr=lr)
            for _ in range(800):
                rest = layer(torch.eye(12).double()).T - base.weight - change
                loss = rest.square().sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        # Eckart and Young: what is left are the singular values beyond the rank.
        best = torch.linalg.svdvals(change)[rank:].square().sum().item()
        assert loss.item() == pytest.approx(best, rel=1e-3)


def test_what_cannot_be_is_refused():
    model = make()
    for where, message in (((), "is named"), (("q_proj", "qproj"), "matrix qproj")):
        with pytest.raises(ValueError, match=message):
            add_lora(model, 2, where=where)
    # What was refused has changed nothing.
    assert all(w.requires_grad for w in model.parameters())
    with pytest.raises(ValueError, match="rank must be at least 1; got 0"):
        add_lora(make(), 0)
    with pytest.raises(ValueError, match="train the matrix itself"):
        add_lora(make(), 16)
    with pytest.raises(ValueError, match="no LoRA layers"):
        merge_lora(model)
    add_lora(model, 2)
    with pytest.raises(ValueError, match="merge_lora first"):
        add_lora(model, 2)


def test_a_rank_that_cannot_be_leaves_the_model_as_it_was():
    model = make()
    model.final_norm.weight.requires_grad_(False)
    before = [weight.requires_grad for weight in model.parameters()]
    with pytest.raises(ValueError, match="rank"):
        add_lora(model, 0, where=ALL)
    # Of rank 12 the queries can be, and the keys, with half the rows, cannot.
    with pytest.raises(ValueError, match="rank"):
        add_lora(model, 12, where=ALL)
    assert [weight.requires_grad for weight in model.parameters()] == before
    assert not any(isinstance(part, LoRA) for part in model.modules())
