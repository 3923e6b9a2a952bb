"""Chapter 8: blockwise attention and the ring, beside what we did not write."""

import json
import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.attention import scaled_dot_product_attention
from minillm.drawing.systems import measure_blockwise
from minillm.files.reading import IMAGES
from minillm.systems import (
    all_reduce_seconds,
    blockwise_attention,
    largest,
    online_softmax_update,
    ring_all_reduce,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.manual_seed(seed), dtype=torch.float64)
    return made.requires_grad_()


# Blockwise attention


@settings(deadline=None, max_examples=30)
@given(
    queries=st.integers(1, 9),
    more=st.integers(0, 5),
    block=st.integers(1, 11),
    causal=st.booleans(),
    batch=st.lists(st.integers(1, 2), max_size=2),
)
def test_blocks_change_nothing(queries, more, block, causal, batch):
    keys = queries + more
    q, k = random(*batch, queries, 3), random(*batch, keys, 3, seed=1)
    v, g = random(*batch, keys, 2, seed=2), random(*batch, queries, 2, seed=3)
    mask = torch.ones(queries, keys, dtype=torch.bool)
    mask = mask.tril(more) if causal else mask
    plain = scaled_dot_product_attention(q, k, v, mask)
    expected = torch.autograd.grad(plain, (q, k, v), g)
    ours = blockwise_attention(q, k, v, block, causal)
    # float64, and sums of at most fourteen terms of size one.
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-13)
    for found, wanted in zip(
        torch.autograd.grad(ours, (q, k, v), g), expected, strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-13)


def test_it_agrees_with_the_fused_kernel():
    q, k, v = (random(2, 3, 64, 16, seed=i) for i in range(3))
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    ours = blockwise_attention(q, k, v, 24)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_the_gradient_is_that_of_trying():
    arrays = tuple(random(5, 3, seed=i) for i in range(3))
    assert torch.autograd.gradcheck(lambda *x: blockwise_attention(*x, 2), arrays)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(-800, 800), min_size=1, max_size=12),
    st.lists(st.integers(1, 4), min_size=12, max_size=12),
)
def test_the_online_softmax_in_any_blocks(scores, lengths):
    row = torch.tensor([scores], dtype=torch.float64)
    values = random(len(scores), 2)
    state = torch.tensor([[-math.inf]]), torch.zeros(1, 1), torch.zeros(1, 2)
    at = 0
    for length in lengths:
        part = row[:, at : at + length]
        if part.shape[1]:
            state = online_softmax_update(state, part, values[at : at + length])
        at += length
    m, total, gathered = state
    assert m.item() == max(scores)
    expected = torch.softmax(row, -1) @ values
    torch.testing.assert_close(gathered / total, expected, rtol=1e-9, atol=1e-12)


def test_a_query_that_has_seen_nothing_is_no_nan():
    hidden = torch.full((1, 3), -math.inf)
    state = torch.tensor([[-math.inf]]), torch.zeros(1, 1), torch.zeros(1, 2)
    m, total, gathered = online_softmax_update(state, hidden, torch.ones(3, 2))
    assert (m.item(), total.item(), gathered.tolist()) == (-math.inf, 0, [[0, 0]])


def test_no_array_is_as_large_as_the_scores():
    q = random(1, 2, 128, 4)

    def both_passes(attend):
        attend().sum().backward()

    mask = torch.ones(128, 128, dtype=torch.bool).tril()
    plain = largest(
        lambda: both_passes(lambda: scaled_dot_product_attention(q, q, q, mask))
    )
    ours = largest(lambda: both_passes(lambda: blockwise_attention(q, q, q, 16)))
    assert plain == 2 * 128 * 128
    assert ours == 2 * 128 * 4  # as large as the result


def test_nothing_to_ask_and_nothing_to_see():
    for queries, keys in ((0, 3), (2, 0), (0, 0)):
        q, k, v = torch.randn(queries, 4), torch.randn(keys, 4), torch.randn(keys, 5)
        inputs = [x.double().requires_grad_() for x in (q, k, v)]
        found = blockwise_attention(*inputs, 2, causal=False)
        assert torch.equal(found, torch.zeros(queries, 5).double())
        found.sum().backward()
        assert not any(x.grad.any() for x in inputs)


def test_what_attention_cannot_do():
    q = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="block=0"):
        blockwise_attention(q, q, q, 0)
    with pytest.raises(ValueError, match="2 queries cannot be the last of 1 positions"):
        blockwise_attention(q, q[:1], q[:1], 4)


def test_what_the_page_says_of_the_figures():
    data = IMAGES / "data"
    found = json.loads((data / "blockwise.json").read_text(encoding="utf-8"))
    plain, blocks, fused = (rows[-1] for rows in found.values())
    # Length, seconds, bytes: blocks save both.
    assert blocks[1] == pytest.approx(plain[1] / 10, rel=0.05)
    assert blocks[2] == pytest.approx(plain[2] / 20, rel=0.05)
    assert fused[1] < blocks[1]
    # Twice the length: four times the memory, or twice, at most about.
    (_, _, before), (_, _, after) = found["PyTorch's fused kernel"][-2:]
    assert after < 2.5 * before
    clock = json.loads((data / "clock.json").read_text(encoding="utf-8"))
    products = sum(row[4] for row in clock["parts"] if row[2])
    assert products < 0.9 * clock["operations"]
    flops = sum(row[2] for row in clock["parts"])
    assert flops / clock["peak_flops"] == pytest.approx(2 / 3 * clock["step"], rel=0.1)
    slower = {row[0]: row[4] - row[5] for row in clock["parts"]}
    assert max(slower, key=lambda part: slower[part]) == "attention"
    # The goal for everything behind the backward pass.
    last = [r[4] for r in clock["parts"] if r[0] in ("AdamW", "clipping", "zeroing")]
    assert len(last) == 3 and sum(last) < 0.05 * clock["step"]

    messages = json.loads((data / "messages.json").read_text(encoding="utf-8"))
    steps, line = messages["steps"], (messages["latency"], messages["bandwidth"])
    whole, bare = steps["one process, the whole batch"], steps["no messages"]
    assert whole == pytest.approx(
        clock["step"], rel=0.05
    )  # the same machine, and quiet
    assert 0.5 < bare / whole < 0.56
    gained = whole - bare
    assert (steps["one by one"] - bare) / gained == pytest.approx(0.9, abs=0.02)
    assert 1.1 < steps["in one bucket"] / bare < 1.2
    assert whole / steps["in one bucket"] == pytest.approx(1.6, abs=0.05)
    assert steps["overlapped"] > steps["in one bucket"]
    for i, size in enumerate(messages["sizes"]):
        two, four = (
            messages["all_reduce"][str(n)][i] / all_reduce_seconds(size, n, *line)
            for n in (2, 4)
        )
        assert 1 < two < 4 and 2.5 < four < 4.5


@pytest.mark.check
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_time_and_memory_are_those_of_one_kind_alone():
    found = measure_blockwise([512])
    plain, blocks, fused = (rows[0] for rows in found.values())
    scores = 4 * 512 * 512 * 4  # bytes: one such array for each head
    assert plain[0] == 512 and plain[1] > 0
    assert fused[2] < scores < plain[2] / 4
    assert blocks[2] < plain[2] / 2


# The ring


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.lists(st.integers(0, 4), min_size=1, max_size=2))
def test_the_ring_sums(n, shape):
    parts = [np.random.default_rng(r).integers(-99, 99, shape) for r in range(n)]
    kept = [part.copy() for part in parts]
    sums, sent = ring_all_reduce(parts)
    assert len(sums) == n
    for found in sums:
        np.testing.assert_array_equal(found, np.sum(parts, axis=0))
    padded = math.ceil(parts[0].size / n) * n
    assert sent == 2 * (n - 1) * padded // n * parts[0].itemsize
    # Nobody's own array has changed.
    for part, before in zip(parts, kept, strict=True):
        np.testing.assert_array_equal(part, before)


def test_all_ranks_get_the_same_bits():
    parts = [np.random.default_rng(r).normal(size=1000) for r in range(5)]
    sums, _ = ring_all_reduce(parts)
    assert all(np.array_equal(sums[0], other) for other in sums)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([], "one rank at least"),
        ([np.zeros(2), np.zeros((1, 2))], r"rank 1 has \(1, 2\)"),
        ([np.zeros(2), np.zeros(2), np.zeros(2, int)], "rank 2 has"),
    ],
)
def test_ranks_that_disagree(parts, says):
    with pytest.raises(ValueError, match=says):
        ring_all_reduce(parts)
