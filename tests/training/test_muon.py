"""Muon: the polynomial, the step, PyTorch's own, and a run that goes on."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from minillm.config import ModelConfig
from minillm.model import TransformerLM
from minillm.train import load_checkpoint, save_checkpoint
from minillm.training.muon import (
    COEFFICIENTS,
    Muon,
    newton_schulz,
    newton_schulz_flops,
    split_weights,
)


def polynomial(x, steps):
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        x = a * x + b * x**3 + c * x**5
    return x


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 7), st.integers(0, 2**31))
def test_it_acts_on_singular_values_and_on_nothing_else(m, n, steps, seed):
    random = torch.Generator().manual_seed(seed)
    G = torch.randn(m, n, dtype=torch.float64, generator=random)
    U, S, Vt = torch.linalg.svd(G, full_matrices=False)
    expected = U @ torch.diag(polynomial(S / G.norm(), steps)) @ Vt
    torch.testing.assert_close(newton_schulz(G, steps), expected, rtol=0, atol=1e-9)


def test_five_steps_bring_what_is_not_tiny_near_one():
    x = torch.logspace(-2.5, 0, 100_000, dtype=torch.float64)
    for steps in (5, 6, 9):
        y = polynomial(x, steps)
        assert y.min() > 0.67 and y.max() < 1.21
    # Below three thousandths, five steps are not enough, and nothing flips its sign.
    assert polynomial(torch.tensor(1e-3), 5) < 0.5
    assert (polynomial(torch.linspace(1e-9, 1, 1000), 5) > 0).all()


def test_zero_stays_zero():
    assert newton_schulz(torch.zeros(3, 4)).eq(0).all()


def test_no_step_of_that_spectral_norm_is_steeper():
    random = torch.Generator().manual_seed(0)
    G = torch.randn(7, 5, generator=random, dtype=torch.float64)
    U, S, Vt = torch.linalg.svd(G, full_matrices=False)
    assert (G * (U @ Vt)).sum().item() == pytest.approx(S.sum().item())
    for _ in range(100):
        D = torch.randn(7, 5, generator=random, dtype=torch.float64)
        D /= torch.linalg.matrix_norm(D, 2)
        assert (G * D).sum() < S.sum()


def pair(shapes, seed=0):
    random = torch.Generator().manual_seed(seed)
    ours = [torch.randn(*s, generator=random).requires_grad_() for s in shapes]
    return ours, [w.detach().clone().requires_grad_() for w in ours]


SHAPES = [(16, 16), (48, 16), (16, 48)]


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="an older PyTorch")
@pytest.mark.parametrize("like_adamw", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_it_is_that_of_pytorch(monkeypatch, like_adamw, exact):
    """PyTorch orthogonalizes in bf16; with that exchanged, nothing else differs."""
    if exact:
        monkeypatch.setattr(
            torch.optim._muon,
            "_zeropower_via_newtonschulz",
            lambda G, coefficients, steps, eps: newton_schulz(G, steps),
        )
    ours, theirs = pair(SHAPES)
    start = [w.detach().clone() for w in ours]
    adjust = "match_rms_adamw" if like_adamw else "original"
    settings = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.3}
    a = Muon(ours, **settings, like_adamw=like_adamw)
    b = torch.optim.Muon(theirs, **settings, adjust_lr_fn=adjust)
    random = torch.Generator().manual_seed(1)
    for _ in range(10):
        for w, v in zip(ours, theirs, strict=True):
            w.grad = torch.randn(w.shape, generator=random)
            v.grad = w.grad.clone()
        a.step()
        b.step()
    for w, v, w0 in zip(ours, theirs, start, strict=True):
        moved = (v - w0).norm()
        assert (w - v).norm() < (1e-6 if exact else 0.02) * moved
        assert moved > 0.1


def test_a_run_that_was_saved_goes_on(tmp_path):
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(20, 8, 16, n_layers=1, n_heads=2))
    other = copy.deepcopy(model)
    ids = torch.randint(20, (4, 8))

    def train(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            model(ids).logsumexp(-1).mean().backward()
            optimizer.step()

    straight = Muon(split_weights(model)[0])
    train(model, straight, 5)
    interrupted = Muon(split_weights(other)[0])
    train(other, interrupted, 2)
    save_checkpoint(tmp_path / "half", other, interrupted, step=2)
    resumed = TransformerLM(other.config)
    optimizer = Muon(split_weights(resumed)[0], lr=7.0, momentum=0.0)
    assert load_checkpoint(tmp_path / "half", resumed, optimizer) == 2
    train(resumed, optimizer, 3)
    for name, w in resumed.state_dict().items():
        assert torch.equal(w, model.state_dict()[name]), name


def test_it_moves_the_matrices_of_the_blocks_and_no_other():
    model = TransformerLM(ModelConfig(20, 8, 16, n_layers=3, n_heads=2))
    matrices, others = split_weights(model)
    assert len(matrices) == 3 * 7
    assert all(w is not model.token_embedding.weight for w in matrices)
    assert {id(w) for w in [*matrices, *others]} == {id(w) for w in model.parameters()}
    with pytest.raises(ValueError, match=r"shape \(16,\): give it to AdamW"):
        Muon(others)


def test_a_matrix_without_a_gradient_stays(monkeypatch):
    (w, v), _ = pair([(3, 3), (3, 3)])
    before = w.detach().clone()
    v.grad = torch.ones(3, 3)
    optimizer = Muon([w, v])
    assert optimizer.step(lambda: 7) == 7
    assert torch.equal(w, before) and "momentum_buffer" not in optimizer.state[w]


def test_the_products_are_on_the_short_side():
    for m, n in ((3, 5), (5, 3), (4, 4)):
        with FlopCounterMode(display=False) as counter:
            newton_schulz(torch.ones(m, n), 2)
        assert counter.get_total_flops() == newton_schulz_flops(m, n, 2)
    assert newton_schulz_flops(3, 5) == newton_schulz_flops(5, 3)
