"""Downhill: every rule against PyTorch's own, and the claims of the lecture."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.training.descent import (
    adam,
    adamw,
    descend,
    gradient_descent,
    momentum,
    steps_needed,
    valley,
)

PEERS = {
    gradient_descent: lambda ws, lr: torch.optim.SGD(ws, lr=lr),
    momentum: lambda ws, lr, beta=0.9: torch.optim.SGD(ws, lr=lr, momentum=beta),
    adam: lambda ws, lr, l2=0.0, **more: torch.optim.Adam(
        ws, lr=lr, weight_decay=l2, **more
    ),
    adamw: lambda ws, lr, **more: torch.optim.AdamW(ws, lr=lr, **more),
}


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        (gradient_descent, {}),
        (momentum, {}),
        (momentum, {"beta": 0.3}),
        (adam, {}),
        (adam, {"betas": (0.5, 0.7), "eps": 0.1, "l2": 0.3}),
        (adamw, {}),
        (adamw, {"betas": (0.5, 0.7), "eps": 0.1, "weight_decay": 0.3}),
    ],
)
def test_rules_against_torch(rule: Any, more: dict[str, Any]) -> None:
    random = torch.Generator().manual_seed(0)
    w = torch.randn(3, 2, dtype=torch.float64, generator=random)
    theirs = w.clone().requires_grad_()
    optimizer = PEERS[rule]([theirs], lr=0.05, **more)
    memory: dict[str, Any] = {}
    for _ in range(100):
        g = torch.randn(3, 2, dtype=torch.float64, generator=random)
        before, g_before = w.clone(), g.clone()
        w_new = rule(w, g, memory, lr=0.05, **more)
        # A rule is a function: it changes nothing but its memory.
        assert torch.equal(w, before)
        assert torch.equal(g, g_before)
        w, theirs.grad = w_new, g
        optimizer.step()
    torch.testing.assert_close(w, theirs.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kappa", [3, 100, 1000])
def test_gradient_descent_has_a_closed_form_and_a_limit(kappa: int) -> None:
    lr = 1.9 / kappa
    path = descend(gradient_descent, 50, lambda w: valley(w, kappa), lr=lr)
    assert path[-1].tolist() == pytest.approx(
        [(1 - lr * kappa) ** 50, (1 - lr) ** 50], rel=1e-12
    )
    # From the closed form, the first n with both parts small enough.
    n = next(
        n
        for n in range(10_000)
        if math.hypot((1 - lr * kappa) ** n, (1 - lr) ** n) <= 0.01
    )
    assert steps_needed(gradient_descent, kappa, lr=lr) == n
    assert steps_needed(gradient_descent, kappa, lr=2.01 / kappa) is None


def test_the_valley_is_the_gradient_of_its_formula() -> None:
    w = torch.tensor([0.7, -1.3], dtype=torch.float64, requires_grad=True)
    (17 * w[0] ** 2 + w[1] ** 2).div(2).backward()
    assert torch.equal(valley(w.detach(), 17), w.grad)


def test_steps_needed_means_and_stays_there() -> None:
    # Momentum passes through the bottom many times before it stays.
    n = steps_needed(momentum, 100, lr=0.019)
    path = descend(momentum, 300, lambda w: valley(w, 100), lr=0.019).norm(dim=1)
    assert (path[n:] <= 0.01).all()
    assert path[n - 1] > 0.01
    assert (path[: n - 1] <= 0.01).any()
    # At the limit the answer is not known yet.
    assert steps_needed(momentum, 100, lr=0.019, limit=n) == n
    assert steps_needed(momentum, 100, lr=0.019, limit=n - 1) is None


def test_adam_is_blind_to_kappa_only_along_the_axes() -> None:
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)

    def askew(kappa: int) -> torch.Tensor:
        return descend(adam, 60, lambda w: turn.T @ valley(turn @ w, kappa), lr=0.1)

    straight = [
        descend(adam, 60, lambda w, k=k: valley(w, k), lr=0.1) for k in (10, 1000)
    ]
    torch.testing.assert_close(*straight, rtol=1e-6, atol=1e-6)
    assert (askew(10) - askew(1000)).abs().max() > 0.1


@settings(max_examples=25, deadline=None)
@given(
    st.floats(1e-4, 0.1), st.sampled_from([0, 1e-3, 0.1, 0.5]), st.integers(0, 2**31)
)
def test_l2_and_decoupled_decay_agree_only_without_decay(
    lr: float, decay: float, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    one = other = torch.randn(4, dtype=torch.float64, generator=random) + 3
    memories: list[dict[str, Any]] = [{}, {}]
    for _ in range(5):
        g = torch.randn(4, dtype=torch.float64, generator=random)
        one = adam(one, g, memories[0], lr, l2=decay)
        other = adamw(other, g, memories[1], lr, weight_decay=decay)
    assert torch.equal(one, other) == (decay == 0)
