"""Learning: loss, batches, examination and the loop, each against a second route."""

import math
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal, localcontext
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from minillm import train as train_module
from minillm.config import ModelConfig
from minillm.model import TransformerLM
from minillm.train import (
    Progress,
    TrainConfig,
    bits_per_byte,
    cosine_schedule,
    cross_entropy,
    evaluate,
    get_batch,
    perplexity,
    train,
    train_naive,
)

FLOAT32_MAX = torch.finfo(torch.float32).max


def tiny_model(
    context_length: int, seed: int = 0, vocab_size: int = 7
) -> TransformerLM:
    """A model with weights so large that every token of the context matters."""
    torch.manual_seed(seed)
    config = ModelConfig(vocab_size, context_length, d_model=8, n_layers=1, n_heads=2)
    model = TransformerLM(config)
    with torch.no_grad():
        for w in model.parameters():
            w.normal_()
    return model


def random_text(n: int, seed: int = 0, vocab_size: int = 7) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    return rng.integers(vocab_size, size=n).astype(np.uint16)


def weights_of(model: TransformerLM) -> list[Tensor]:
    return [w.detach().clone() for w in model.parameters()]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# The loss


def test_surprise_with_fifty_digits() -> None:
    logits, target = [0.5, -1.25, 2.0, 0.0], 1
    with localcontext() as context:
        context.prec = 50
        parts = [Decimal(x).exp() for x in logits]
        expected = -(parts[target] / sum(parts)).ln()
    ours = cross_entropy(
        torch.tensor([logits], dtype=torch.float64), torch.tensor([target])
    )
    assert ours.item() == pytest.approx(float(expected), rel=1e-15)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 3), max_size=3),
    st.integers(1, 9),
    st.floats(-3, 4),
    st.integers(0, 2**31),
)
def test_loss_and_gradient_against_torch(
    shape: list[int], vocab_size: int, size: float, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = 10**size * torch.randn(
        *shape, vocab_size, dtype=torch.float64, generator=random
    )
    targets = torch.randint(vocab_size, shape, generator=random)
    logits.requires_grad_()
    ours = cross_entropy(logits, targets)
    theirs = F.cross_entropy(logits.view(-1, vocab_size), targets.view(-1))
    assert ours.shape == ()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("logits", "target", "loss"),
    [
        ([1e30, 0.0], 0, 0.0),
        ([1e30, 0.0], 1, 1e30),
        ([FLOAT32_MAX, FLOAT32_MAX], 1, math.log(2)),
        ([-FLOAT32_MAX, -FLOAT32_MAX], 0, math.log(2)),
        ([-1e30, 0.0], 1, 0.0),
        ([-math.inf, 0.0, 0.0], 2, math.log(2)),
        ([-math.inf, 0.0], 0, math.inf),
    ],
)
def test_huge_logits(logits: list[float], target: int, loss: float) -> None:
    ours = cross_entropy(torch.tensor([logits]), torch.tensor([target]))
    assert ours.item() == pytest.approx(loss, rel=1e-6)


def test_bits_per_byte_is_the_length_of_a_code() -> None:
    # Three tokens with the probabilities 1/2, 1/4 and 1/8 take 1 + 2 + 3 bits.
    loss = math.log(2 * 4 * 8) / 3
    assert bits_per_byte(loss, n_tokens=3, n_bytes=4) == pytest.approx(6 / 4)
    assert perplexity(loss) == pytest.approx(4.0)
    assert perplexity(0.0) == 1
    with pytest.raises(ValueError, match="n_bytes must be at least 1; got 0"):
        bits_per_byte(loss, 3, 0)


# Batches


def test_starts_are_uniform_and_the_last_one_is_reached() -> None:
    n, context_length, draws = 13, 3, 20_000
    random = torch.Generator().manual_seed(0)
    inputs, targets = get_batch(np.arange(n), draws, context_length, generator=random)
    # The last piece is 9, 10, 11 with the targets 10, 11, 12.
    seen = torch.bincount(inputs[:, 0], minlength=n)
    assert (seen > 0).tolist() == [
        start <= n - context_length - 1 for start in range(n)
    ]
    assert targets.max() == n - 1
    expected = draws / 10
    chi_square = ((seen[:10] - expected) ** 2 / expected).sum()
    # With 9 degrees of freedom, chance exceeds 27.9 once in a thousand times.
    assert chi_square < 27.9


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 20), st.integers(0, 999))
def test_targets_are_the_inputs_one_step_later(
    context_length: int, batch_size: int, more: int, seed: int
) -> None:
    tokens = random_text(context_length + more, seed, vocab_size=60_000)
    random = torch.Generator().manual_seed(seed)
    inputs, targets = get_batch(tokens, batch_size, context_length, generator=random)
    assert inputs.shape == targets.shape == (batch_size, context_length)
    assert inputs.dtype == targets.dtype == torch.int64
    pieces = [tokens[s : s + context_length + 1].tolist() for s in range(len(tokens))]
    for x, y in zip(inputs.tolist(), targets.tolist(), strict=True):
        assert [*x, y[-1]] in pieces
        assert x[1:] == y[:-1]
    # A loss over all positions at once flattens both.
    assert inputs.view(-1).shape == targets.view(-1).shape


class Watched(np.ndarray):  # type: ignore[type-arg]
    """An array that writes down how much of it is cut out or copied."""

    sizes: ClassVar[list[int]] = []

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            self.sizes.append(key.stop - key.start)
        return super().__getitem__(key)

    def astype(self, *args: Any, **kwargs: Any) -> Any:
        self.sizes.append(self.size)
        return super().astype(*args, **kwargs)


def test_a_memory_mapped_file_is_read_in_pieces(tmp_path: Path) -> None:
    tokens = random_text(1000, vocab_size=60_000)
    tokens.tofile(tmp_path / "tokens.bin")
    mapped = np.memmap(tmp_path / "tokens.bin", dtype=np.uint16, mode="r")
    batches = [
        get_batch(source, 4, 8, generator=torch.Generator().manual_seed(3))
        for source in (tokens, mapped)
    ]
    assert same([*batches[0]], [*batches[1]])
    Watched.sizes.clear()
    get_batch(mapped.view(Watched), 4, 8)
    assert Watched.sizes == [9] * 4
    # Nothing leads back to the file, which may be open for reading only.
    batches[1][0].zero_()
    assert np.array_equal(mapped, tokens)


def test_chance_comes_from_where_it_should() -> None:
    tokens = np.arange(1000)

    def draw(**options: Any) -> Tensor:
        return get_batch(tokens, 8, 4, **options)[0]

    seeds = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    one, again, other = (draw(generator=random) for random in seeds)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(again, draw(generator=seeds[1]))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    draw(generator=seeds[0])
    assert torch.equal(before, torch.get_rng_state())
    first = draw()
    torch.manual_seed(5)
    assert torch.equal(first, draw())


def test_devices() -> None:
    inputs, targets = get_batch(np.arange(9), 2, 3, device="meta")
    assert inputs.device.type == targets.device.type == "meta"
    with pytest.raises(RuntimeError, match="device"):
        get_batch(np.arange(9), 2, 3, device="abacus")


def test_a_text_for_one_piece_and_one_too_short() -> None:
    inputs, targets = get_batch(np.array([4, 5, 6]), 3, 2)
    assert inputs.tolist() == [[4, 5]] * 3
    assert targets.tolist() == [[5, 6]] * 3
    for n in (0, 2):
        message = rf"context_length \+ 1 = 3 tokens; the text has {n}: bring more text"
        with pytest.raises(ValueError, match=message):
            get_batch(np.arange(n), 3, 2)


# Examination


@torch.no_grad()
def loss_token_by_token(
    model: TransformerLM, tokens: NDArray[np.uint16], stride: int
) -> float:
    """Predict each token once, each in a pass of its own."""
    context_length, last = model.config.context_length, len(tokens) - 1
    surprises = []
    for i in range(1, len(tokens)):
        # The windows end at token T, T + stride, T + 2 stride, … and at the last. The
        # first that reaches token i predicts it.
        ends = (min(context_length + k * stride, last) for k in count())
        end = next(end for end in ends if end >= i)
        context = tokens[max(0, end - context_length) : i]
        logits = model(torch.tensor(context[None].astype(np.int64)))[0, -1]
        surprises.append(-logits.double().log_softmax(-1)[tokens[i]].item())
    return sum(surprises) / last


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_evaluate_token_by_token(data: st.DataObject) -> None:
    context_length = data.draw(st.integers(1, 6))
    stride = data.draw(st.integers(1, context_length))
    n = data.draw(st.integers(2, 20))
    batch_size = data.draw(st.integers(1, 5))
    seed = data.draw(st.integers(0, 999))
    model, tokens = tiny_model(context_length, seed), random_text(n, seed)
    ours = evaluate(model, tokens, batch_size=batch_size, stride=stride)
    # The model computes in float32, and in another order than we.
    assert ours == pytest.approx(loss_token_by_token(model, tokens, stride), abs=1e-4)


def test_the_usual_stride_is_half_the_context() -> None:
    tokens = random_text(50)
    for context_length, stride in ((1, 1), (6, 3), (7, 3)):
        model = tiny_model(context_length)
        assert evaluate(model, tokens) == evaluate(model, tokens, stride=stride)
        if stride > 1:
            assert evaluate(model, tokens) != evaluate(model, tokens, stride=stride - 1)


def test_evaluate_leaves_no_trace() -> None:
    model, tokens = tiny_model(4), random_text(30)
    before = weights_of(model)
    for training in (True, False):
        model.train(training)
        assert math.isfinite(evaluate(model, tokens))
        assert model.training is training
    assert same(before, weights_of(model))
    assert all(w.grad is None and not w.is_inference() for w in model.parameters())


def test_evaluate_refuses() -> None:
    model = tiny_model(4)
    vocab_size = model.config.vocab_size
    with pytest.raises(ValueError, match="token ids are integers; the text has"):
        evaluate(model, np.array([1.7, 2.2, 3.9]))
    for unknown in (-1, vocab_size):
        with pytest.raises(ValueError, match=f"the text has {unknown}: tokenize it"):
            evaluate(model, np.array([1, 2, unknown]))
    for n in (0, 1):
        with pytest.raises(ValueError, match=f"nothing to predict: the text has {n}"):
            evaluate(model, random_text(n))
    for stride in (-1, 0, 5):
        with pytest.raises(ValueError, match=f"in 1 … 4, the context; got {stride}"):
            evaluate(model, random_text(9), stride=stride)


# The loop


def test_the_loop_against_one_made_of_torch() -> None:
    config = TrainConfig(
        steps=6,
        batch_size=3,
        max_lr=0.02,
        min_lr=0.001,
        warmup_steps=2,
        betas=(0.8, 0.9),
        weight_decay=0.5,
        max_norm=0.7,
        seed=11,
    )
    tokens = random_text(200)
    ours, theirs = tiny_model(5).double(), tiny_model(5).double()
    reports: list[Progress] = []
    train(ours, tokens, config, report=reports.append)

    random = torch.Generator().manual_seed(11)
    named = [*theirs.named_parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [w for name, w in named if "norm" not in name]},
            {"params": [w for name, w in named if "norm" in name], "weight_decay": 0.0},
        ],
        betas=(0.8, 0.9),
        weight_decay=0.5,
    )
    down = [0.001 + 0.019 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)]
    expected = []
    for lr in [0.01, *down]:
        starts = torch.randint(200 - 5, (3,), generator=random)
        ids = torch.tensor([tokens[s : s + 6].tolist() for s in starts])
        loss = F.cross_entropy(theirs(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = math.sqrt(sum((w.grad**2).sum().item() for _, w in named))
        assert norm > 0.7
        for _, w in named:
            w.grad *= 0.7 / norm
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        expected.append((loss.item(), lr, norm))
    assert [p.step for p in reports] == [1, 2, 3, 4, 5, 6]
    for p, (loss, lr, norm) in zip(reports, expected, strict=True):
        assert (p.loss, p.lr, p.gradient_norm) == pytest.approx((loss, lr, norm), 1e-10)
    for a, (_, b) in zip(ours.parameters(), named, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_training_learns_and_depends_on_nothing_but_the_seed() -> None:
    text = np.tile(random_text(10), 20)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        model = TransformerLM(ModelConfig(7, 8, d_model=16, n_layers=1, n_heads=2))
        before = evaluate(model, text)
        torch.manual_seed(len(runs))
        chance = torch.get_rng_state()
        config = TrainConfig(steps=60, warmup_steps=5, max_lr=0.02, seed=seed)
        train(model, text, config)
        assert torch.equal(chance, torch.get_rng_state())
        assert evaluate(model, text) < before / 3
        assert not model.training
        runs.append(weights_of(model))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_when_it_looks_at_the_validation_text() -> None:
    model, text, other = tiny_model(4), random_text(50, 0), random_text(30, 1)
    losses: dict[int, float] = {}
    seconds: list[float] = []

    def report(p: Progress) -> None:
        seconds.append(p.seconds)
        if p.validation_loss is not None:
            losses[p.step] = p.validation_loss
            assert p.validation_loss == evaluate(model, other)

    config = TrainConfig(steps=8, eval_every=3, batch_size=2)
    train(model, text, config, validation=other, report=report)
    assert [*losses] == [3, 6, 8]
    assert seconds == sorted(seconds)
    seen: list[Progress] = []
    train(model, text, config, report=seen.append)
    assert all(p.validation_loss is None for p in seen)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_training(bad: float) -> None:
    model, steps = tiny_model(4), []

    def report(p: Progress) -> None:
        steps.append(p.step)
        if p.step == 3:
            with torch.no_grad():
                model.final_norm.weight[0] = bad
            steps.append(weights_of(model))

    with pytest.raises(
        FloatingPointError, match=r"step 4 the loss is nan .* below 0.1"
    ):
        train(model, random_text(50), TrainConfig(steps=9, max_lr=0.1), report=report)
    *done, last = steps
    assert done == [1, 2, 3]
    # The weights are those after the last good step: no other has become NaN.
    now = weights_of(model)
    assert all(
        torch.equal(a.nan_to_num(), b.nan_to_num())
        for a, b in zip(now, last, strict=True)
    )


def test_texts_that_do_not_fit_are_refused_before_the_first_step() -> None:
    model, good = tiny_model(4), random_text(50)
    bad = np.array([0, 6, 7, 1, 2, 3])
    before = weights_of(model)
    for texts in ({"tokens": bad}, {"tokens": good, "validation": bad}):
        with pytest.raises(ValueError, match="ids 0 to 6; the text has 7: tokenize"):
            train(model, config=TrainConfig(), **texts)
    for short in (good[:0], good[:4]):
        with pytest.raises(ValueError, match="bring more text"):
            train(model, short, TrainConfig())
    assert same(before, weights_of(model))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"batch_size": -1}, "batch_size must be at least 1; got -1"),
        ({"eval_every": 0}, "eval_every must be at least 1; got 0"),
        ({"max_lr": 0.0}, "max_lr must be positive; got 0.0"),
        ({"max_lr": math.nan}, "max_lr must be positive; got nan"),
        ({"max_norm": -1.0}, "max_norm must be positive; got -1.0"),
        ({"min_lr": -0.1}, "min_lr must be 0 or more; got -0.1"),
        ({"warmup_steps": -1}, "warmup_steps must be 0 or more; got -1"),
        (
            {"steps": 60, "warmup_steps": 100},
            "warmup_steps must be at most steps=60; got 100",
        ),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more; got -0.1"),
    ],
)
def test_settings_out_of_range(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**setting)


@pytest.mark.parametrize("steps", [1, 7, 10, 60, 101, 999, 1000, 4500])
def test_every_training_decays(steps: int) -> None:
    c = TrainConfig(steps=steps)
    rates = [
        cosine_schedule(step, c.max_lr, c.min_lr, c.warmup_steps, c.steps)
        for step in range(1, steps + 1)
    ]
    assert rates[-1] == c.min_lr
    assert rates.index(max(rates)) <= steps // 10
    assert c.warmup_steps == min(100, steps // 10)


# The naive loop


def test_the_naive_loop_and_the_production_loop_are_equal() -> None:
    config = TrainConfig(
        steps=25,
        batch_size=3,
        max_lr=0.02,
        warmup_steps=4,
        weight_decay=0.5,
        max_norm=0.7,
        max_rise=math.inf,
        seed=3,
    )
    text = random_text(80)
    for _ in range(2):
        ours, naive = (tiny_model(4, seed=1).double() for _ in range(2))
        reports: list[Progress] = []
        train(ours, text, config, report=reports.append)
        losses = train_naive(naive, text, config)
        # In float64; the loss and its gradient are computed in another order.
        np.testing.assert_allclose([p.loss for p in reports], losses, rtol=1e-10)
        for a, b in zip(weights_of(ours), weights_of(naive), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
        # Micro-batches change nothing either.
        config = replace(config, grad_accum=3)
    # Clipping and decay were at work, or their place would not matter.
    assert any(p.gradient_norm > config.max_norm for p in reports)


def test_the_naive_loop_reads_what_its_seed_says() -> None:
    runs = []
    for seed in (1, 1, 2):
        model = tiny_model(4)
        chance = torch.get_rng_state()
        config = TrainConfig(steps=5, seed=seed)
        runs.append(train_naive(model, random_text(80), config))
        assert torch.equal(chance, torch.get_rng_state())
    assert runs[0] == runs[1] != runs[2]


# The trainer


def trainer_of(config: TrainConfig, seed: int = 0, **more: Any) -> train_module.Trainer:
    return train_module.Trainer(tiny_model(4, seed, **more), random_text(200), config)


@pytest.mark.parametrize("stop", [1, 25])
def test_a_saved_trainer_goes_on_to_the_last_bit(tmp_path: Path, stop: int) -> None:
    config = TrainConfig(steps=30, batch_size=4, warmup_steps=3, max_rise=50)
    straight = trainer_of(config)
    reports = [straight.step() for _ in range(30)]
    stopped = trainer_of(config)
    for _ in range(stop):
        stopped.step()
    stopped.save(tmp_path / "half", note="hello")
    torch.manual_seed(5)
    fresh = trainer_of(config, seed=1)
    assert fresh.load(tmp_path / "half")["note"] == "hello"
    assert fresh.done == stop
    assert fresh.seconds == stopped.seconds
    # What the next warning of a rise depends on, too.
    assert (fresh.losses, fresh.lowest) == (stopped.losses, stopped.lowest)
    rest = [fresh.step() for _ in range(30 - stop)]
    assert [(p.step, p.loss, p.lr, p.gradient_norm) for p in rest] == [
        (p.step, p.loss, p.lr, p.gradient_norm) for p in reports[stop:]
    ]
    assert same(weights_of(straight.model), weights_of(fresh.model))
    assert (fresh.losses, fresh.lowest) == (straight.losses, straight.lowest)
    with pytest.raises(ValueError, match="is a checkpoint, but of no training run"):
        train_module.save_checkpoint(
            tmp_path / "other", straight.model, straight.optimizer, 3
        )
        fresh.load(tmp_path / "other")


def test_chance_of_pytorch_is_kept(tmp_path: Path) -> None:
    trainer = trainer_of(TrainConfig())
    torch.manual_seed(3)
    trainer.save(tmp_path / "a")
    expected = torch.rand(3)
    torch.manual_seed(4)
    trainer.load(tmp_path / "a")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_parts_of_a_batch_make_the_same_step(parts: int) -> None:
    runs = []
    for n in (1, parts):
        config = TrainConfig(steps=5, batch_size=6, grad_accum=n, warmup_steps=2)
        model = tiny_model(4).double()
        trainer = train_module.Trainer(model, random_text(200), config)
        sizes: list[int] = []
        model.register_forward_pre_hook(lambda m, ids, s=sizes: s.append(len(ids[0])))
        reports = [trainer.step() for _ in range(5)]
        assert sizes == [6 // n] * n * 5
        runs.append(([[p.loss, p.gradient_norm] for p in reports], weights_of(model)))
    (losses, one), (their_losses, other) = runs
    np.testing.assert_allclose(losses, their_losses, rtol=1e-12)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_bf16_computes_in_16_bits_and_keeps_weights_and_loss_in_32() -> None:
    losses, seen = [], []
    for dtype in ("float32", "bf16"):
        trainer = trainer_of(TrainConfig(dtype=dtype, batch_size=4))
        head = trainer.model.lm_head
        head.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
        losses.append(trainer.step().loss)
        assert {w.dtype for w in trainer.model.parameters()} == {torch.float32}
        state = trainer.optimizer.state_dict()["state"][0]
        assert state["exp_avg"].dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16]
    # Close, and not the same.
    assert 0 < abs(losses[0] - losses[1]) < 0.05 * losses[0]


def test_a_loss_that_rises_stops_training_before_the_step() -> None:
    trainer = trainer_of(TrainConfig(max_rise=0.5, max_lr=0.1))
    # One high loss is an odd piece of text; the mean of twenty must rise.
    for step, loss in enumerate([3.0] * 20 + [9.0], 1):
        trainer._check(step, loss, 1.0)
        trainer.losses[-1] = min(loss, 3.0)
    assert trainer.lowest == pytest.approx(3.0)
    for step in range(22, 30):
        trainer._check(step, 4.0, 1.0)
    before = weights_of(trainer.model)
    with pytest.raises(
        FloatingPointError,
        match=r"at step 3\d the loss has risen: its mean over 20 steps was 3.000 at "
        r"best and is 3.5\d\d now: try a max_lr below 0.1",
    ):
        for step in range(30, 40):
            trainer._check(step, 4.0, 1.0)
    assert same(before, weights_of(trainer.model))
    patient = trainer_of(TrainConfig(max_rise=math.inf))
    for step, loss in enumerate([3.0] * 20 + [900.0] * 20, 1):
        patient._check(step, loss, 1.0)


def test_ids_are_checked_before_anything_else() -> None:
    model = tiny_model(4)
    for bad, message in (
        (np.array([0, -1, 2] * 9), "ids 0 to 6; the text has -1: tokenize"),
        (np.array([0.0, math.nan] * 9), "integers; the text has numbers of type float"),
    ):
        for texts in ({"tokens": bad}, {"tokens": random_text(50), "validation": bad}):
            with pytest.raises(ValueError, match=message):
                train(model, config=TrainConfig(), **texts)


def test_ids_of_a_mapped_text_are_checked_when_they_are_read(tmp_path: Path) -> None:
    """Seventeen gigabytes of zeros, which take no room on the disk."""
    path = tmp_path / "tokens.bin"
    with path.open("wb") as file:
        file.truncate(2 * 2**33)
    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    config = TrainConfig(steps=2, batch_size=2, eval_tokens=20)
    train(tiny_model(4), tokens, config, validation=tokens)
    model = tiny_model(4)
    # A wrong beginning is seen before a training starts, what lies behind it later.
    bad = np.full(10_000, 7, np.uint16)
    bad.tofile(path)
    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    with pytest.raises(ValueError, match="ids 0 to 6; the text has 7: tokenize"):
        train_module.Trainer(model, tokens, config)
    bad[:6200] = 0
    bad.tofile(path)
    tokens = np.memmap(path, dtype=np.uint16, mode="r")[2000:]
    config = replace(config, batch_size=64)
    before = weights_of(model)
    trainer = train_module.Trainer(model, tokens, config)
    with pytest.raises(ValueError, match="ids 0 to 6; the text has 7: tokenize"):
        trainer.step()
    assert same(before, weights_of(model))
    assert trainer.done == 0
    # What is evaluated is read as a whole anyway, so it is checked before the first
    # step.
    with pytest.raises(ValueError, match="ids 0 to 6; the text has 7: tokenize"):
        train(model, random_text(50), config, validation=tokens[4200:])
    assert same(before, weights_of(model))


def test_only_so_much_of_the_validation_text_is_looked_at() -> None:
    model, other = tiny_model(4), random_text(300, 1)
    config = TrainConfig(steps=1, eval_tokens=30)
    losses: list[Any] = []
    train(
        model,
        random_text(50),
        config,
        validation=other,
        report=lambda p: losses.append(p.validation_loss),
    )
    assert losses == [evaluate(model, other[:30])]


COMPILED = """
import sys
import numpy as np
import torch
from minillm.config import ModelConfig
from minillm.model import TransformerLM
from minillm.train import TrainConfig, Trainer

path, losses, weights = sys.argv[1], [], []
for compile in (True, False):
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(7, 4, d_model=8, n_layers=1, n_heads=2))
    config = TrainConfig(steps=2, batch_size=2, warmup_steps=1, compile=compile)
    trainer = Trainer(model, np.arange(200) % 7, config)
    losses.append([trainer.step().loss for _ in range(2)])
    if compile:
        assert trainer.forward is not model
        trainer.save(path)
        weights = [w.detach().clone() for w in model.parameters()]
np.testing.assert_allclose(*losses, rtol=1e-4)
trainer.load(path)
assert all(map(torch.equal, weights, model.parameters()))
"""


@pytest.mark.check
def test_a_compiled_model_is_saved_under_its_own_names(tmp_path: Path) -> None:
    # In a process of its own: the compiler and the checks of types do not agree.
    command = [sys.executable, "-c", COMPILED, str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"_orig_mod" not in (tmp_path / "a").read_bytes()
