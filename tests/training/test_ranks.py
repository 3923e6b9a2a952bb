"""Several processes: messages, shards, layers cut up; and what happens if one fails."""

import itertools
import math
import os
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.config import ModelConfig
from minillm.model import TransformerLM
from minillm.training import messages, sharding
from minillm.training.distributed import rank, world_size
from minillm.training.loss import cross_entropy
from minillm.training.messages import (
    all_reduce_seconds,
    average_in_buckets,
    fit_messages,
    measure_messages,
    messages_table,
)
from minillm.training.optimizer import AdamW, decay_matrices
from minillm.training.pipeline import Stage, bubble, pipeline_step, schedule
from minillm.training.ranks import check_same_shapes, run_ranks
from minillm.training.tensor_parallel import tensor_parallel

SHAPE = ModelConfig(50, 8, 16, n_layers=4, n_heads=4, n_kv_heads=2, d_ff=24)
Weights = dict[str, np.ndarray]


def build() -> TransformerLM:
    torch.manual_seed(0)
    return TransformerLM(SHAPE).double()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(50, (4, 9), generator=torch.manual_seed(1))
    return ids[:, :-1], ids[:, 1:]


def shown(model: torch.nn.Module, grad: bool = False) -> Weights:
    found = dict(model.named_parameters())
    return {
        name: (w.grad if grad else w.detach()).numpy().copy()
        for name, w in found.items()
        if not grad or w.grad is not None
    }


# Predictions


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 1e-3), st.floats(1e6, 1e11))
def test_a_line_is_found_again(latency, bandwidth):
    sizes = [8.0 * 10**i for i in range(7)]
    found = fit_messages(sizes, [latency + s / bandwidth for s in sizes])
    assert found[0] == pytest.approx(latency, rel=1e-6, abs=1e-12)
    assert found[1] == pytest.approx(bandwidth, rel=1e-6)


def test_messages_that_cannot_be_fitted():
    with pytest.raises(ValueError, match="took no longer"):
        fit_messages([1, 1e6], [1.0, 0.5])
    with pytest.raises(ValueError, match="world"):
        all_reduce_seconds(1, 0, 1, 1)


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(0, [3, 1, 2, 4]), (16, [4, 2, 4]), (24, [6, 4]), (math.inf, [10])],
)
def test_a_message_for_each_bucket(monkeypatch, most, sizes):
    weights = torch.nn.ParameterList(torch.zeros(n) for n in (3, 1, 5, 2, 4))
    for i, w in enumerate(weights):
        w.grad = torch.full_like(w, i) if len(w) != 5 else None
    sent = []
    monkeypatch.setattr(messages, "world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda x: sent.append(len(x)))
    average_in_buckets(weights, most)
    assert sent == sizes
    assert [w.grad[0].item() for w in weights if w.grad is not None] == [0, 0.5, 1.5, 2]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 5))
def test_pieces_are_everything_once(sizes, world):
    seen = [np.zeros(size, int) for size in sizes]
    most = math.ceil(sum(sizes) / world)
    for r in range(world):
        own = sharding.pieces(sizes, r, world)
        assert sum(last - first for _, first, last in own) <= most
        for i, first, last in own:
            seen[i][first:last] += 1
    assert all((counts == 1).all() for counts in seen)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 9), st.booleans())
def test_the_bubble_is_that_of_the_formula(stages, micro_batches, early):
    plan = schedule(stages, micro_batches, early=early)
    expected = (stages - 1) / (micro_batches + stages - 1)
    assert bubble(plan) == pytest.approx(expected, abs=1e-12)
    for tasks in plan:
        assert all(a.end <= b.start for a, b in itertools.pairwise(tasks))
        # What is on the way and not yet back must be kept.
        kept, most = 0, 0
        for task in tasks:
            kept += -1 if task.back else 1
            most = max(most, kept)
        assert kept == 0 and (not early or most <= stages)


def test_stages_of_zero():
    with pytest.raises(ValueError, match="world"):
        sharding.zero_bytes(1, 0, 1)
    with pytest.raises(ValueError, match="stages 0 to 3; got 4"):
        sharding.zero_bytes(1, 2, 4)


def test_a_division_that_does_not_come_out(monkeypatch):
    for module in ("tensor_parallel", "pipeline"):
        monkeypatch.setattr(f"minillm.training.{module}.world_size", lambda: 3)
    with pytest.raises(ValueError, match="n_heads=4 cannot be divided among 3 ranks"):
        tensor_parallel(build())
    with pytest.raises(ValueError, match="4 blocks cannot be divided among 3 stages"):
        Stage(build())


def test_alone_everything_is_the_model_itself():
    inputs, targets = batch()
    model = build()
    cross_entropy(model(inputs), targets).backward()
    expected = shown(model, grad=True)
    again = tensor_parallel(build())
    pipeline_step(Stage(again), inputs, targets, 16, 2)
    for name, grad in shown(again, grad=True).items():
        np.testing.assert_allclose(grad, expected[name], rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="batch of 4 cannot be divided into 3"):
        pipeline_step(Stage(again), inputs, targets, 16, 3)


# On several processes; what they call must be found by name


def averaged() -> list[Weights]:
    found = []
    for most in (0, 2000, math.inf):
        model = build()
        inputs, targets = batch()
        own = slice(rank(), None, world_size())
        cross_entropy(model(inputs[own]), targets[own]).backward()
        average_in_buckets(model, most)
        found.append(shown(model, grad=True))
    return found


def zero_and_plain(how: str) -> tuple[Weights, int]:
    """Take three steps, and show the weights and the bytes of the moments."""
    model = build()
    torch.nn.init.normal_(model.final_norm.weight)
    if how == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (world_size(),))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    if how == "zero":
        optimizer = AdamW(sharding.own_pieces(model, 0.1), lr=0.01)
    else:
        optimizer = AdamW(decay_matrices(model, 0.1), lr=0.01)
    inputs, targets = batch()
    own = slice(rank(), None, world_size())
    for _ in range(3):
        model.zero_grad()
        cross_entropy(model(inputs[own]), targets[own]).backward()
        if how == "zero":
            sharding.zero1_step(model, optimizer)
        else:
            if how == "plain":
                average_in_buckets(model)
            optimizer.step()
    if how == "fsdp":
        whole = {
            n: w.full_tensor().detach().numpy() for n, w in model.named_parameters()
        }
        return whole, 0
    return shown(model), sharding.state_bytes(optimizer)


def cut_across() -> tuple[Weights, float]:
    model, (inputs, targets) = tensor_parallel(build()), batch()
    loss = cross_entropy(model(inputs), targets)
    loss.backward()
    return shown(model, grad=True), loss.item()


def cut_along(early: bool) -> tuple[Weights, float]:
    model, (inputs, targets) = build(), batch()
    loss = pipeline_step(Stage(model), inputs, targets, 16, 4, early=early)
    return shown(model, grad=True), loss.item()


def everything() -> dict[str, object]:
    """All of the above in one group, since a process takes long to start."""
    found: dict[str, object] = {"averaged": averaged()}
    found |= {how: zero_and_plain(how) for how in ("plain", "zero", "fsdp")}
    found |= {"across": cut_across()}
    found |= {f"along {early}": cut_along(early) for early in (False, True)}
    return found


def disagree() -> None:
    check_same_shapes([torch.zeros(2), torch.zeros(2 + rank())])


def die() -> None:
    if rank() == 1:
        os._exit(7)
    dist.all_reduce(torch.zeros(1))


def fail() -> None:
    if rank() == 1:
        raise KeyError("mine")
    dist.all_reduce(torch.zeros(1))


def wait() -> None:
    time.sleep(60)


def wait_in_vain() -> None:
    if rank() == 0:
        dist.all_reduce(torch.zeros(1))
    time.sleep(60)


@pytest.fixture(scope="module")
def two() -> list[dict[str, object]]:
    return run_ranks(everything, 2, seconds=120)


@pytest.mark.check
def test_gradients_one_by_one_in_some_buckets_and_in_one(two):
    one_by_one, some, bucket = two[0]["averaged"]
    model, (inputs, targets) = build(), batch()
    cross_entropy(model(inputs), targets).backward()
    for name, grad in shown(model, grad=True).items():
        np.testing.assert_array_equal(one_by_one[name], bucket[name])
        np.testing.assert_array_equal(some[name], bucket[name])
        np.testing.assert_allclose(bucket[name], grad, rtol=1e-9, atol=1e-12)


@pytest.mark.check
def test_zero_moves_the_weights_to_the_same_bits(two):
    for each in two:
        for name, w in each["plain"][0].items():
            np.testing.assert_array_equal(each["zero"][0][name], w)
    n = sum(w.size for w in two[0]["plain"][0].values())
    # float64, and two moments
    assert [each["plain"][1] for each in two] == [16 * n] * 2
    assert sum(each["zero"][1] for each in two) == 16 * n
    assert two[0]["zero"][1] == 16 * math.ceil(n / 2)


@pytest.mark.check
def test_fully_shard_is_the_same_training(two):
    for name, w in two[0]["plain"][0].items():
        np.testing.assert_allclose(two[0]["fsdp"][0][name], w, rtol=1e-10, atol=1e-12)


@pytest.mark.check
def test_layers_cut_across_are_the_whole_model(two):
    model, (inputs, targets) = build(), batch()
    loss = cross_entropy(model(inputs), targets)
    loss.backward()
    whole = shown(model, grad=True)
    (first, loss_0), (second, loss_1) = (each["across"] for each in two)
    assert loss_0 == pytest.approx(loss.item(), rel=1e-12)
    assert loss_1 == pytest.approx(loss.item(), rel=1e-12)
    assert len(first) == len(whole)
    cut = 0
    for name, a in first.items():
        wanted, b = whole[name.replace(".part.", ".")], second[name]
        if a.shape != wanted.shape:
            dim = 1 if "o_proj" in name or "w2" in name else 0
            a, cut = np.concatenate([a, b], axis=dim), cut + 1
        np.testing.assert_allclose(a, wanted, rtol=1e-9, atol=1e-12, err_msg=name)
    assert cut == 7 * SHAPE.n_layers


@pytest.mark.check
@pytest.mark.parametrize("early", [False, True])
def test_layers_cut_along_are_the_whole_model(two, early):
    model, (inputs, targets) = build(), batch()
    loss = cross_entropy(model(inputs), targets)
    loss.backward()
    whole, found = shown(model, grad=True), {}
    for grads, own_loss in (each[f"along {early}"] for each in two):
        assert own_loss == pytest.approx(loss.item(), rel=1e-12)
        assert not found.keys() & grads.keys()  # each weight has one owner
        found |= grads
    assert found.keys() == whole.keys()
    for name, grad in whole.items():
        np.testing.assert_allclose(found[name], grad, rtol=1e-9, atol=1e-12)


@pytest.mark.check
@pytest.mark.parametrize(
    ("work", "error", "says", "seconds"),
    [
        (disagree, ValueError, r"array 1 is \(2,\).* in rank 0 and \(3,\)", 60),
        (die, ChildProcessError, "rank 1 of 2 ended with code 7", 60),
        (fail, RuntimeError, "rank 1 of 2 failed: KeyError: 'mine'", 60),
        (wait, TimeoutError, r"ranks \[0, 1\] of 2 did not finish", 1),
        # On a slow machine the start alone takes the time that all of it may take.
        (
            wait_in_vain,
            (RuntimeError, TimeoutError),
            "rank 0 of 2 failed: .*[Tt]imed? ?out|did not finish within 15",
            5,
        ),
    ],
)
def test_one_failure_is_one_error_and_nothing_hangs(work, error, says, seconds):
    start = time.monotonic()
    with pytest.raises(error, match=says):
        run_ranks(work, 2, seconds=seconds)
    assert time.monotonic() - start < 50


def test_no_ranks():
    with pytest.raises(ValueError, match="world=0"):
        run_ranks(die, 0)


@pytest.mark.check
def test_messages_are_measured():
    found = measure_messages(turns=2, config=ModelConfig(20, 8, 8, 1, 2))
    assert found["bandwidth"] > 0 and found["latency"] >= 0
    assert len(found["all_reduce"]["4"]) == len(found["sizes"])
    table = messages_table(found)
    assert table.count("\n| ") == 5 + 1 + len(found["sizes"])
