"""Attention: by hand, in its properties, and against PyTorch's own."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.attention import (
    LayerCache,
    Linear,
    MultiHeadAttention,
    RotaryEmbedding,
    multi_head_attention_naive,
    scaled_dot_product_attention,
    softmax,
)

# Query heads and key/value heads: all kinds of sharing.
HEADS = [(1, 1), (4, 4), (4, 2), (6, 2), (4, 1)]

quick = settings(deadline=None, max_examples=30)


def randn(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=random)


def past(length):
    return torch.ones(length, length, dtype=torch.bool).tril()


def close(a, b, within=1e-12):
    """Equal up to the rounding of float64, relative to the largest number."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype == torch.float64
    return (a - b).abs().max() <= within * max(1.0, b.abs().max())


# Softmax and attention


def attend_by_hand(q, k, v, allowed):
    """Attention in Python's own numbers: the formula and nothing else."""
    gathered = []
    for i, query in enumerate(q):
        scores = {
            j: sum(a * b for a, b in zip(query, key, strict=True))
            for j, key in enumerate(k)
            if allowed[i][j]
        }
        weights = {j: math.exp(s / math.sqrt(len(query))) for j, s in scores.items()}
        total = sum(weights.values())
        gathered.append([
            sum(w / total * v[j][column] for j, w in weights.items())
            for column in range(len(v[0]))
        ])
    return gathered


def test_attention_by_hand():
    q, k, v = randn(5, 6), randn(7, 6, seed=1), randn(7, 3, seed=2)
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(3)) < 0.5
    mask[4] = False
    expected = attend_by_hand(q.tolist(), k.tolist(), v.tolist(), mask.tolist())
    found = scaled_dot_product_attention(q, k, v, mask)
    assert close(found, torch.tensor(expected, dtype=torch.float64))
    assert found[4].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_softmax_is_torchs(dim, size):
    x = size * randn(3, 4, 5)
    x[0, :2, 1] = -math.inf
    assert close(softmax(x, dim), torch.softmax(x, dim))
    assert close(softmax(x, dim).sum(dim), torch.ones_like(x.sum(dim)))


@given(st.lists(st.floats(-50, 50), min_size=1), st.floats(-1e3, 1e3))
@quick
def test_softmax_sees_only_differences(scores, shift):
    x = torch.tensor(scores, dtype=torch.float64)
    assert close(softmax(x + shift, 0), softmax(x, 0), within=1e-10)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_attention_is_torchs(leading):
    q, k = 3 * randn(*leading, 5, 8), randn(*leading, 7, 8, seed=1)
    v = randn(*leading, 7, 4, seed=2)
    fused = F.scaled_dot_product_attention
    assert close(scaled_dot_product_attention(q, k, v), fused(q, k, v))
    masks = [torch.ones(5, 7, dtype=torch.bool).tril(2)]
    # One mask for all queries, and one for each sequence: both are broadcast.
    masks.append(torch.arange(7)[None, :] < 4)
    if len(leading) == 2:
        masks.append(randn(2, 1, 1, 7, seed=3) < 0.5)
        masks.append(randn(2, 1, 5, 7, seed=4) < 0.5)
        masks.append(randn(2, 3, 5, 7, seed=5) < 0.5)
    for mask in masks:
        sees = mask.any(-1, keepdim=True).expand(*leading, 5, 1)
        found = scaled_dot_product_attention(q, k, v, mask)
        expected = fused(q, k, v, mask.expand(*leading, 5, 7))
        assert close(found.where(sees, 0), expected.where(sees, 0))
        assert not found.masked_select(~sees).any()


def test_a_query_that_sees_nothing_leaves_gradients_finite():
    q, k, v = (randn(3, 4, seed=seed).requires_grad_() for seed in range(3))
    mask = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
    scaled_dot_product_attention(q, k, v, mask).square().sum().backward()
    assert all(x.grad.isfinite().all() and x.grad.any() for x in (q, k, v))
    assert not q.grad[1].any()


# Rotary embeddings


def turn_by_hand(x, positions, theta):
    """RoFormer, equation 34, pair by pair."""
    turned = []
    for row, m in zip(x, positions, strict=True):
        new = []
        for j in range(len(row) // 2):
            angle = m * theta ** (-2 * j / len(row))
            a, b = row[2 * j], row[2 * j + 1]
            new.append(a * math.cos(angle) - b * math.sin(angle))
            new.append(a * math.sin(angle) + b * math.cos(angle))
        turned.append(new)
    return torch.tensor(turned, dtype=torch.float64)


@pytest.mark.parametrize("theta", [10000.0, 500.0])
def test_rope_by_hand(theta):
    rope = RotaryEmbedding(6, 300, theta).double()
    x = randn(4, 6)
    assert close(rope(x), turn_by_hand(x.tolist(), [0, 1, 2, 3], theta))
    positions = [299, 7, 0, 7]
    expected = turn_by_hand(x.tolist(), positions, theta)
    assert close(rope(x, torch.tensor(positions)), expected)
    assert torch.equal(rope(x[:1]), x[:1])


def test_rope_positions_serve_all_heads():
    rope = RotaryEmbedding(4, 50).double()
    x = randn(2, 3, 5, 4)  # (B, H, T, d_h)
    positions = torch.tensor([[0, 1, 2, 3, 4], [40, 3, 3, 0, 49]])
    found = rope(x, positions)
    assert close(rope(x[:, 0], positions), found[:, 0])
    for b in range(2):
        for h in range(3):
            assert close(rope(x[b, h], positions[b]), found[b, h])
    assert close(rope(x), rope(x, torch.arange(5)))
    assert close(rope(x), rope(x, torch.arange(5).expand(2, 5)))


@given(
    st.integers(0, 400),
    st.integers(0, 400),
    st.integers(0, 111),
    st.sampled_from([50.0, 1e4, 5e5]),
)
@quick
def test_rope_scores_depend_on_the_distance_alone(m, n, shift, theta):
    rope = RotaryEmbedding(8, 512, theta).double()
    q, k = randn(1, 8), randn(1, 8, seed=1)

    def score(i, j):
        return (rope(q, torch.tensor([i])) * rope(k, torch.tensor([j]))).sum()

    assert close(score(m + shift, n + shift), score(m, n))


def test_rope_in_halves_is_one_permutation_away():
    # Hugging Face's Llama turns number j with number j + d_h / 2.
    rope = RotaryEmbedding(8, 20).double()
    x = randn(20, 8)
    to_halves = [0, 2, 4, 6, 1, 3, 5, 7]
    angles = torch.outer(
        torch.arange(20).double(), 10000.0 ** (-torch.arange(4).double() / 4)
    )
    cos, sin = angles.cos().tile(2), angles.sin().tile(2)
    halves = x[:, to_halves]
    swapped = torch.cat([-halves[:, 4:], halves[:, :4]], dim=1)
    assert close(halves * cos + swapped * sin, rope(x)[:, to_halves])


def test_rope_is_the_same_for_a_compiler(monkeypatch):
    # What is compiled has no complex numbers in it; here it runs without a compiler.
    rope, x = RotaryEmbedding(4, 50).double(), randn(2, 3, 5, 4)
    rows = torch.tensor([[0, 1, 2, 3, 4], [40, 3, 3, 0, 49]])
    calls = [(x,), (x, rows), (x, rows[1]), (x[0, 0], rows[1]), (x, None, 45)]
    expected = [rope(*call) for call in calls]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for call, turned in zip(calls, expected, strict=True):
        assert close(rope(*call), turned)


def test_rope_can_start_anywhere():
    rope, x = RotaryEmbedding(4, 50).double(), randn(2, 3, 5, 4)
    for start in (0, 1, 45):
        assert torch.equal(rope(x, start=start), rope(x, torch.arange(5) + start))


@pytest.mark.parametrize(
    ("rows", "call", "message"),
    [
        (3, {"start": 7}, "from 0 to 7; got 7 to 9: make a table with a larger"),
        (9, {}, "from 0 to 7; got 0 to 8"),
        (2, {"start": -1}, "got -1 to 0"),
        (1, {"positions": torch.tensor([-1])}, "got -1 to -1"),
        (2, {"positions": torch.tensor([[0, 8]])}, "got 0 to 8"),
    ],
)
def test_rope_refuses_positions_that_it_has_not(rows, call, message):
    with pytest.raises(ValueError, match=message):
        RotaryEmbedding(4, 8)(randn(rows, 4), **call)


def test_rope_refuses_vectors_of_another_width():
    with pytest.raises(ValueError, match="vectors of 4 numbers; got 2"):
        RotaryEmbedding(4, 8)(randn(3, 2))
    # Where shapes are not compared with the signature, as they are in these tests.
    with pytest.raises(ValueError, match=r"each of the 3 vectors has one .* got 1"):
        RotaryEmbedding(4, 8)._check(randn(3, 4), torch.tensor([5]), 0)


def test_rope_turns_nothing_and_all_that_it_has():
    rope = RotaryEmbedding(4, 8)
    assert rope(randn(8, 4)).shape == (8, 4)
    assert rope(randn(0, 4)).shape == rope(randn(0, 4), start=8).shape == (0, 4)
    assert rope(randn(0, 4), torch.zeros(0, dtype=torch.long)).shape == (0, 4)


def test_attention_reads_no_further_than_its_table():
    attn = MultiHeadAttention(8, 2, rope=RotaryEmbedding(4, 1))
    with pytest.raises(ValueError, match="from 0 to 0; got 0 to 4"):
        attn(randn(1, 5, 8).float())


def test_rope_takes_any_layout_and_leaves_its_input_alone():
    rope = RotaryEmbedding(4, 9).double()
    for x in (randn(4, 5).T, randn(5, 9)[:, 1:5], randn(5, 8)[:, ::2], randn(1, 4)):
        before = x.clone()
        assert torch.equal(rope(x), rope(x.contiguous()))
        assert torch.equal(x, before)


def test_rope_is_as_exact_far_out_as_near():
    rope = RotaryEmbedding(64, 100_001, theta=500_000.0)
    for j in (0, 1, 31):
        angle = 100_000 * 500_000.0 ** (-2 * j / 64)
        assert abs(rope.cos[-1, j].item() - math.cos(angle)) < 1e-7
        assert abs(rope.sin[-1, j].item() - math.sin(angle)) < 1e-7


def test_rope_survives_changes_of_dtype():
    rope, x = RotaryEmbedding(8, 2000), randn(2000, 8)
    exact = turn_by_hand(x.tolist(), range(2000), 10000.0)
    assert close(rope.double()(x), exact, within=1e-11)
    # There and back loses nothing, since the tables are made anew.
    assert close(rope.bfloat16().double()(x), exact, within=1e-11)
    # In bfloat16, only the input and the result are rounded, not the angles.
    for dtype, digits in ((torch.bfloat16, 2**-8), (torch.float16, 2**-11)):
        turned = rope.to(dtype)(x.to(dtype))
        assert turned.dtype == dtype
        assert (turned.double() - exact).abs().max() <= 2 * digits * x.abs().max()
    assert not rope.state_dict()


# Linear


def test_linear_is_torchs_without_a_bias():
    ours, theirs = Linear(5, 3).double(), nn.Linear(5, 3, bias=False).double()
    assert ours.weight.shape == (3, 5)
    theirs.load_state_dict(ours.state_dict())
    x = randn(2, 4, 5)
    assert close(ours(x), theirs(x))


def test_linear_keeps_the_variance():
    torch.manual_seed(0)
    for d_in, d_out in ((64, 1000), (1000, 64)):
        y = Linear(d_in, d_out)(torch.randn(1000, d_in))
        assert abs(y.var().item() - 1) < 0.05


# Multi-head attention


def attention(n_heads, n_kv_heads, rope=None, d_head=4, seed=0):
    torch.manual_seed(seed)
    d_model = n_heads * d_head
    return MultiHeadAttention(d_model, n_heads, n_kv_heads, rope).double()


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), HEADS)
def test_multi_head_attention_is_torchs(n_heads, n_kv_heads):
    ours = attention(n_heads, n_kv_heads)
    d = 4 * n_heads
    theirs = nn.MultiheadAttention(d, n_heads, bias=False, batch_first=True).double()

    def for_each_query_head(weight):
        heads = weight.unflatten(0, (n_kv_heads, 4))
        return heads.repeat_interleave(n_heads // n_kv_heads, dim=0).flatten(0, 1)

    q, k, v = ours.q_proj.weight, ours.k_proj.weight, ours.v_proj.weight
    assert k.shape == v.shape == (4 * n_kv_heads, d)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(
            torch.cat([q, for_each_query_head(k), for_each_query_head(v)])
        )
        theirs.out_proj.weight.copy_(ours.o_proj.weight)
    x = randn(3, 6, d)
    expected, _ = theirs(x, x, x, attn_mask=~past(6), need_weights=False)
    assert close(ours(x), expected)


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), HEADS)
def test_fused_attention_is_ours_head_by_head(n_heads, n_kv_heads):
    rope = RotaryEmbedding(4, 30)
    attn = attention(n_heads, n_kv_heads, rope)
    x = randn(2, 7, 4 * n_heads)
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [9, 11, 13, 15, 20, 25, 29]])

    naive = multi_head_attention_naive(x, *attn.parameters(), n_heads, rope)
    assert close(attn(x), naive)

    def by_a_loop(positions):
        heads = []
        for h in range(n_heads):
            group = h * n_kv_heads // n_heads
            q = x @ attn.q_proj.weight[4 * h : 4 * h + 4].T
            k = x @ attn.k_proj.weight[4 * group : 4 * group + 4].T
            v = x @ attn.v_proj.weight[4 * group : 4 * group + 4].T
            q, k = rope(q, positions), rope(k, positions)
            heads.append(scaled_dot_product_attention(q, k, v, past(7)))
        return torch.cat(heads, dim=-1) @ attn.o_proj.weight.T

    assert close(attn(x), by_a_loop(None))
    assert close(attn(x, positions), by_a_loop(positions))
    assert not close(attn(x, positions)[1], attn(x)[1], within=1e-3)


def test_attention_knows_distances_and_not_places():
    attn = attention(4, 2, RotaryEmbedding(4, 100))
    x = randn(1, 6, 16)
    assert close(attn(x, torch.arange(6) + 94), attn(x))
    assert not close(attn(x, 2 * torch.arange(6)), attn(x), within=1e-3)


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), HEADS)
def test_each_position_sees_its_past_and_nothing_else(n_heads, n_kv_heads):
    attn = attention(n_heads, n_kv_heads, RotaryEmbedding(4, 6))
    x = randn(1, 6, 4 * n_heads)
    jacobian = torch.autograd.functional.jacobian(attn, x)  # (1, T, d, 1, T, d)
    sees = jacobian.abs().amax(dim=(0, 2, 3, 5)) > 0
    assert torch.equal(sees, past(6))


@given(st.sampled_from(HEADS), st.sets(st.integers(1, 8)), st.booleans())
@quick
def test_a_cache_changes_nothing(heads, cuts, turned):
    attn = attention(*heads, rope=RotaryEmbedding(4, 9) if turned else None)
    x = randn(2, 9, 4 * heads[0])
    cache = LayerCache((2, heads[1], 9, 4))
    pieces = torch.tensor_split(x, sorted(cuts), dim=1)
    found = torch.cat([attn(piece, cache=cache) for piece in pieces], dim=1)
    assert cache.length == 9
    assert close(found, attn(x))


def test_a_full_cache_refuses_and_stays_as_it_was():
    cache = LayerCache((2, 1, 5, 4))
    k, v = randn(2, 1, 6, 4), randn(2, 1, 6, 4, seed=1)
    cache.append(k[:, :, :3], v[:, :, :3])
    with pytest.raises(ValueError, match="holds 5 tokens; got 6: start a new one"):
        cache.append(k[:, :, 3:], v[:, :, 3:])
    assert cache.length == 3
    all_k, all_v = cache.append(k[:, :, 3:5], v[:, :, 3:5])
    assert torch.equal(all_k, k[:, :, :5])
    assert torch.equal(all_v, v[:, :, :5])


def test_attention_runs_in_bfloat16():
    attn = attention(4, 2, RotaryEmbedding(4, 16))
    x = randn(2, 16, 16)
    exact = attn(x)
    found = attn.bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16
    # A handful of roundings to 8 bits each.
    assert (found.double() - exact).norm() <= 0.02 * exact.norm()


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_in_bfloat16_are_those_of_float64(autocast):
    attn, x = attention(4, 2, RotaryEmbedding(4, 16)), randn(2, 16, 16)
    exact = torch.autograd.grad(attn(x).square().sum(), list(attn.parameters()))
    attn, x = (attn.float(), x.float()) if autocast else (attn.bfloat16(), x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = attn(x)
    assert y.dtype == torch.bfloat16
    found = torch.autograd.grad(y.float().square().sum(), list(attn.parameters()))
    for a, b in zip(found, exact, strict=True):
        assert (a.double() - b).norm() < 0.03 * b.norm()


# What does not fit together


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((10, 3), "d_model=10 is not a multiple of n_heads=3: change one of them"),
        ((12, 4, 3), "n_heads=4 is not a multiple of n_kv_heads=3: change one"),
        ((12, 4, 0), "n_heads=4 is not a multiple of n_kv_heads=0: change one"),
        ((12, 0), "d_model=12 is not a multiple of n_heads=0: change one"),
        ((12, 2, 4), "n_heads=2 is not a multiple of n_kv_heads=4: change one"),
    ],
)
def test_heads_that_do_not_divide_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(*sizes)


def test_a_rotation_of_other_heads_is_refused():
    """One of a single pair would otherwise turn every pair alike."""
    with pytest.raises(ValueError, match=r"turns heads of 2 numbers; .* is 8: give it"):
        MultiHeadAttention(32, 4, rope=RotaryEmbedding(2, 16))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 2, 9, 4), "the cache was made for 2 sequences; got 1"),
        ((1, 1, 9, 4), "the cache was made for 1 heads; got 2"),
        ((1, 2, 9, 1), "the cache was made for 1 numbers in a head; got 4"),
    ],
)
def test_a_cache_of_another_shape_is_refused(shape, message):
    cache = LayerCache(shape)
    new = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match=message):
        cache.append(new, new)
    assert cache.length == 0


def test_attention_says_how_large_it_is():
    attn = MultiHeadAttention(32, 4, 2, RotaryEmbedding(8, 16))
    assert repr(attn).splitlines() == [
        "MultiHeadAttention(",
        "  n_heads=4, n_kv_heads=2, d_head=8",
        "  (rope): RotaryEmbedding(d_head=8, context_length=16, theta=10000.0)",
        "  (q_proj): Linear(d_in=32, d_out=32)",
        "  (k_proj): Linear(d_in=32, d_out=16)",
        "  (v_proj): Linear(d_in=32, d_out=16)",
        "  (o_proj): Linear(d_in=32, d_out=32)",
        ")",
    ]
