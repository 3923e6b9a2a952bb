"""Steps: AdamW, the schedule and clipping, each against PyTorch's own."""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from minillm.training.optimizer import AdamW, clip_gradients, cosine_schedule

SHAPES = [(3, 4), (5,), (), (2, 1, 3)]


def weights(seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, dtype=torch.float64, generator=random).requires_grad_()
        for shape in SHAPES
    ]


def step_both(
    optimizers: list[torch.optim.Optimizer], seed: int, steps: int, absent: float = 0.2
) -> None:
    """Give both the same random gradients of all sizes, now and then none."""
    random = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        both = [
            [w for group in optimizer.param_groups for w in group["params"]]
            for optimizer in optimizers
        ]
        for one, other in zip(*both, strict=True):
            scale = 10 ** torch.empty(()).uniform_(-6, 3, generator=random)
            g = scale * torch.randn(one.shape, dtype=one.dtype, generator=random)
            has_gradient = torch.rand((), generator=random) >= absent
            one.grad, other.grad = (g, g.clone()) if has_gradient else (None, None)
        for optimizer in optimizers:
            optimizer.step()


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# AdamW


def test_two_steps_by_hand() -> None:
    w = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = AdamW([w], lr=0.1, betas=(0.5, 0.75), eps=1.0, weight_decay=0.2)
    w.grad = torch.tensor([3.0], dtype=torch.float64)
    optimizer.step()
    # Corrected, the means are 3 and 9, so the quotient is 3 / (3 + 1). The decay takes
    # 0.1 * 0.2 of the weight.
    assert w.item() == pytest.approx(1 - 0.02 - 0.1 * 3 / 4, abs=1e-15)
    before = w.item()
    w.grad = torch.tensor([-1.5], dtype=torch.float64)
    optimizer.step()
    # The mean of the gradients is (1.5 - 1.5) / 2 = 0, so only the decay is left.
    assert w.item() == pytest.approx(before * 0.98, abs=1e-15)


SETTINGS = st.fixed_dictionaries({
    "lr": st.floats(0, 0.1),
    "betas": st.tuples(st.floats(0, 0.999), st.floats(0, 0.9999)),
    "eps": st.sampled_from([1e-12, 1e-8, 1e-3, 1.0]),
    "weight_decay": st.floats(0, 1),
})


@settings(max_examples=20, deadline=None)
@given(SETTINGS, SETTINGS, st.integers(0, 2**31))
@example({}, {"lr": 0.02, "weight_decay": 0.5}, 0)
def test_against_torch(general: dict[str, Any], special: dict[str, Any], seed: int):
    ours, theirs = weights(seed), weights(seed)
    optimizers = [
        optimizer_class([{"params": ws[:2]}, {"params": ws[2:], **special}], **general)
        for optimizer_class, ws in ((AdamW, ours), (torch.optim.AdamW, theirs))
    ]
    step_both(optimizers, seed, steps=100)
    assert_close(ours, theirs)
    state, expected = (optimizer.state_dict()["state"] for optimizer in optimizers)
    assert state.keys() == expected.keys()
    for i in state:
        assert state[i].keys() == expected[i].keys()
        assert_close([*state[i].values()], [*expected[i].values()])


def test_the_same_defaults_as_torch() -> None:
    ours, theirs = AdamW(weights(0)), torch.optim.AdamW(weights(0))
    assert ours.defaults == {name: theirs.defaults[name] for name in ours.defaults}


@pytest.mark.parametrize("peer", [{"foreach": True}, {"fused": True}, {}])
def test_against_each_of_torchs_implementations(peer: dict[str, bool]) -> None:
    ours, theirs = weights(5), weights(5)
    step_both([AdamW(ours), torch.optim.AdamW(theirs, **peer)], seed=5, steps=100)
    assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_of_several_kinds_in_one_group(dtype: torch.dtype) -> None:
    ours, theirs = (
        [
            w.detach().to(kind).requires_grad_()
            for w, kind in zip(weights(6), kinds, strict=True)
        ]
        for kinds in [[dtype, torch.float64, dtype, torch.float64]] * 2
    )
    optimizers = [AdamW(ours, lr=0.01), torch.optim.AdamW(theirs, lr=0.01, fused=True)]
    random = torch.Generator().manual_seed(6)
    for _ in range(20):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=random).to(one.dtype)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    # The same kernel gives the same bits; what differs is how we come to it.
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
        state = optimizers[0].state[one]
        assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == one.dtype
        assert state["step"].dtype == torch.float32


@pytest.mark.parametrize("which", ["weight", "gradient", "both"])
def test_any_layout(which: str) -> None:
    """The kernel reads memory in order, so it must not see what lies otherwise."""
    turned = torch.arange(12, dtype=torch.float64).view(4, 3).T - 5
    straight = turned.contiguous()
    assert not turned.is_contiguous()
    w, peer = (straight.clone().requires_grad_() for _ in range(2))
    if which in {"weight", "both"}:
        w = turned.clone(memory_format=torch.preserve_format).requires_grad_()
        assert not w.is_contiguous()
    optimizers = [AdamW([w], lr=0.1), torch.optim.AdamW([peer], lr=0.1, foreach=False)]
    for step in range(3):
        g = torch.roll(straight, step, 0)
        peer.grad, w.grad = g, g.clone()
        if which in {"gradient", "both"}:
            w.grad = g.T.contiguous().T
        for optimizer in optimizers:
            optimizer.step()
    assert_close([w], [peer])
    # Turning plain in the middle changes nothing either.
    for x, optimizer in zip((w, peer), optimizers, strict=True):
        x.grad = straight.clone()
        optimizer.step()
    assert_close([w], [peer])
    assert optimizers[0].state[w]["step"].item() == 4


def test_where_there_is_no_kernel_the_formula_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = weights(7), weights(7)
    optimizers = [
        kind(
            [{"params": ws[:2], "lr": 0.03}, {"params": ws[2:]}],
            eps=1e-3,
            betas=(0.8, 0.95),
            weight_decay=0.3,
        )
        for kind, ws in ((AdamW, ours), (torch.optim.AdamW, theirs))
    ]
    # With the kernel, without it, and with it again: one state serves both.
    step_both(optimizers, seed=1, steps=10)
    with monkeypatch.context() as patched:
        patched.setattr("minillm.training.optimizer.FUSED", set())
        patched.setattr(torch, "_fused_adamw_", None)
        step_both(optimizers, seed=2, steps=10)
    step_both(optimizers, seed=3, steps=10)
    assert_close(ours, theirs)
    state, expected = (optimizer.state_dict()["state"] for optimizer in optimizers)
    for i in state:
        assert_close([*state[i].values()], [*expected[i].values()])


@pytest.mark.parametrize("ours_first", [True, False])
def test_one_goes_on_where_the_other_stopped(ours_first: bool) -> None:
    classes = (AdamW, torch.optim.AdamW) if ours_first else (torch.optim.AdamW, AdamW)
    first, second = weights(1), weights(1)
    group = {"lr": 0.03, "betas": (0.8, 0.9), "weight_decay": 0.3}
    optimizers = [c(ws, **group) for c, ws in zip(classes, (first, first), strict=True)]
    reference = torch.optim.AdamW(second, **group)
    step_both([optimizers[0], reference], seed=2, steps=7)
    # The settings travel with the state, so the second need not be told of them.
    heir = classes[1](first)
    heir.load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    step_both([heir, reference], seed=3, steps=7)
    assert_close(first, second)


def test_without_a_gradient_a_weight_rests() -> None:
    w, other = weights(0)[:2]
    before = w.detach().clone()
    optimizer = AdamW([w, other], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        other.grad = torch.ones_like(other)
        optimizer.step()
    # Not even decay touches it, and it has no state; its own count starts later.
    assert torch.equal(w, before)
    assert w not in optimizer.state
    w.grad = torch.ones_like(w)
    optimizer.step()
    assert [optimizer.state[x]["step"].item() for x in (w, other)] == [1, 4]
    AdamW([w]).step()


def test_decay_is_decoupled_from_the_gradient() -> None:
    # Two weights of the same size whose gradients differ by a factor of a million lose
    # the same share, which Adam with L2 would not do.
    w = torch.full((2,), 2.0, dtype=torch.float64, requires_grad=True)
    plain = torch.full((2,), 2.0, dtype=torch.float64, requires_grad=True)
    optimizers = [AdamW([w], lr=0.1, weight_decay=0.5), AdamW([plain], lr=0.1)]
    optimizers[1].param_groups[0]["weight_decay"] = 0.0
    for x in (w, plain):
        x.grad = torch.tensor([1e3, 1e-3], dtype=torch.float64)
    for optimizer in optimizers:
        optimizer.step()
    assert (plain - w).tolist() == pytest.approx([0.1 * 0.5 * 2.0] * 2, abs=1e-12)


def test_it_is_an_optimizer_of_torch() -> None:
    w = torch.ones(2, requires_grad=True)
    optimizer = AdamW([w], lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    scheduler.step()
    optimizer.add_param_group({"params": [torch.zeros(1)], "lr": 0.1})
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01] * 2
    clone = copy.deepcopy(optimizer)
    assert clone.state_dict().keys() == {"state", "param_groups"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lr": -1e-3}, "learning rate: -0.001"),
        ({"lr": math.nan}, "learning rate: nan"),
        ({"eps": -1.0}, "epsilon value: -1.0"),
        ({"weight_decay": -0.1}, "weight_decay value: -0.1"),
        ({"betas": (1.0, 0.9)}, "beta parameter at index 0: 1.0"),
        ({"betas": (0.9, -0.1)}, "beta parameter at index 1: -0.1"),
    ],
)
def test_settings_out_of_range(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdamW([torch.zeros(1)], **setting)


# The schedule


def test_the_schedule_at_its_corners() -> None:
    table = {
        0: 0.0,
        1: 0.1,
        9: 0.9,
        10: 1.0,
        # A quarter, half and three quarters of the way down; cos 45 degrees is 0.7071.
        35: 0.55 + 0.45 * 0.5**0.5,
        60: 0.55,
        85: 0.55 - 0.45 * 0.5**0.5,
        110: 0.1,
        111: 0.1,
        10_000: 0.1,
    }
    rates = {step: cosine_schedule(step, 1.0, 0.1, 10, 110) for step in table}
    assert rates == pytest.approx(table, abs=1e-15)
    # The top is reached once and left at once; so is the bottom.
    rate = [cosine_schedule(step, 1.0, 0.1, 10, 110) for step in range(112)]
    assert rate.count(1.0) == 1
    assert rate.index(0.1, 10) == 110


@pytest.mark.parametrize(
    ("warmup_steps", "total_steps", "rates"),
    [
        (0, 2, [1.0, 0.5, 0.0, 0.0]),
        (0, 0, [0.0, 0.0, 0.0, 0.0]),
        (1, 1, [0.0, 0.0, 0.0, 0.0]),
        (2, 2, [0.0, 0.5, 0.0, 0.0]),
        (1, 2, [0.0, 1.0, 0.0, 0.0]),
        # A warm-up longer than the training never arrives.
        (4, 2, [0.0, 0.25, 0.5, 0.75]),
    ],
)
def test_short_schedules(
    warmup_steps: int, total_steps: int, rates: list[float]
) -> None:
    ours = [cosine_schedule(s, 1.0, 0.0, warmup_steps, total_steps) for s in range(4)]
    assert ours == pytest.approx(rates, abs=1e-15)


@settings(deadline=None)
@given(
    st.integers(2, 20),
    st.integers(1, 40),
    st.floats(1e-5, 1),
    st.floats(0, 1),
)
def test_schedule_against_torch(
    warmup_steps: int, falling: int, max_lr: float, share: float
) -> None:
    total_steps, min_lr = warmup_steps + falling, share * max_lr
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=max_lr)
    # PyTorch counts from 0 where we ask for step 1, and reaches the top at step
    # `warmup_steps`, as we do.
    lr_scheduler = torch.optim.lr_scheduler
    rise = lr_scheduler.LinearLR(optimizer, 1 / warmup_steps, 1.0, warmup_steps - 1)
    fall = lr_scheduler.CosineAnnealingLR(optimizer, falling, min_lr)
    both = lr_scheduler.SequentialLR(optimizer, [rise, fall], [warmup_steps - 1])
    for step in range(1, total_steps + 1):
        ours = cosine_schedule(step, max_lr, min_lr, warmup_steps, total_steps)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        both.step()


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 50), st.floats(0, 1))
def test_shape_of_the_schedule(warmup_steps: int, falling: int, min_lr: float) -> None:
    total = warmup_steps + falling
    rate = [
        cosine_schedule(step, 1.0, min_lr, warmup_steps, total)
        for step in range(total + 1)
    ]
    rise, fall = rate[: warmup_steps + 1], rate[warmup_steps:]
    assert all(a < b for a, b in itertools.pairwise(rise))
    assert all(a >= b for a, b in itertools.pairwise(fall))
    # Half a cosine turned by half a turn is itself.
    mirrored = [1.0 + min_lr - r for r in reversed(fall)]
    assert fall == pytest.approx(mirrored, abs=1e-12)


# Clipping


def with_gradients(seed: int, scale: float, dtype: torch.dtype) -> list[Tensor]:
    ws = [w.detach().to(dtype).requires_grad_() for w in weights(seed)]
    for w in (ws[0], ws[2], ws[3]):
        w.grad = scale * torch.ones_like(w).copysign(w) * w.detach().abs()
    return ws


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(-6, 6), st.floats(-3, 3))
def test_clipping_against_torch(seed: int, size: float, limit: float) -> None:
    max_norm = 10**limit
    ours = with_gradients(seed, 10**size, torch.float64)
    theirs = with_gradients(seed, 10**size, torch.float64)
    length = clip_gradients((w for w in ours), max_norm)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm).item()
    assert isinstance(length, float)
    assert length == pytest.approx(expected, rel=1e-12)
    # PyTorch divides by the length plus 1e-6, a little too much.
    theirs_factor = min(1, max_norm / (expected + 1e-6))
    factor = min(1, max_norm / expected) / theirs_factor
    for a, b in zip(ours, theirs, strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad * factor, rtol=1e-12, atol=0)
    assert clip_gradients(ours, max_norm) <= max_norm * (1 + 1e-12)


def test_what_is_short_enough_is_left_alone() -> None:
    w = torch.zeros(2, requires_grad=True)
    w.grad = torch.tensor([3.0, 4.0])
    for max_norm in (5.0, 6.0, math.inf):
        assert clip_gradients([w], max_norm) == 5
        assert w.grad.tolist() == [3.0, 4.0]
    w.grad = torch.zeros(2)
    assert clip_gradients([w], 1.0) == 0
    assert w.grad.tolist() == [0.0, 0.0]


def test_no_gradients_at_all() -> None:
    assert clip_gradients([], 1.0) == 0
    assert clip_gradients([torch.zeros(2, requires_grad=True)], 1.0) == 0


@pytest.mark.parametrize("bad", [-1.0, 0.0, math.nan])
def test_a_limit_that_is_no_length_is_refused(bad: float) -> None:
    w = torch.zeros(2, requires_grad=True)
    w.grad = torch.tensor([30.0, 40.0])
    with pytest.raises(ValueError, match=f"max_norm must be positive; got {bad}"):
        clip_gradients([w], bad)
    assert w.grad.tolist() == [30, 40]


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_gradient_that_is_no_number_is_reported(bad: float) -> None:
    w = torch.zeros(2, requires_grad=True)
    w.grad = torch.tensor([1.0, bad])
    assert not math.isfinite(clip_gradients([w], 1.0))


@pytest.mark.parametrize("lost", ["exp_avg", "exp_avg_sq", "step", "betas", "lr"])
def test_a_state_without_one_of_its_parts_is_refused(lost):
    w = torch.ones(2, requires_grad=True)
    optimizer = AdamW([w])
    w.sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    (saved["state"][0] if lost in saved["state"][0] else saved["param_groups"][0]).pop(
        lost
    )
    with pytest.raises(ValueError, match=r"of another weight|not those of AdamW"):
        AdamW([w]).load_state_dict(saved)


def test_the_state_of_another_optimizer_is_refused():
    w = torch.ones(2, requires_grad=True)
    other = torch.optim.SGD([w], lr=0.1, momentum=0.9)
    w.sum().backward()
    other.step()
    with pytest.raises(ValueError, match="another weight or optimizer"):
        AdamW([w]).load_state_dict(other.state_dict())
