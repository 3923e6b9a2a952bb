"""The Transformer: by hand, part by part against PyTorch, and its one rule."""

import cmath
import math
import os
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from minillm import attention, model
from minillm.accounting.shapes import param_count
from minillm.config import ModelConfig
from minillm.model import (
    Embedding,
    KVCache,
    RMSNorm,
    RotaryEmbedding,
    SwiGLU,
    TransformerBlock,
    TransformerLM,
    silu,
)

# Every number differs from every other and from the defaults, where it can.
GQA = ModelConfig(
    vocab_size=37,
    context_length=11,
    d_model=24,
    n_layers=3,
    n_heads=6,
    n_kv_heads=2,
    d_ff=20,
    rope_theta=700.0,
    norm_eps=1e-2,
)
CONFIGS = {
    "gqa": GQA,
    "mha": replace(GQA, n_kv_heads=6),
    "mqa": replace(GQA, n_kv_heads=1),
    "tied": replace(GQA, tie_embeddings=True),
}
shapes = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
quick = settings(deadline=None, max_examples=20)


def loud(config, seed=0):
    """A model whose every weight matters: a fresh one has logits near zero."""
    torch.manual_seed(seed)
    lm = TransformerLM(config)
    with torch.no_grad():
        for name, weight in lm.named_parameters():
            if name.endswith("norm.weight"):
                weight.uniform_(0.5, 1.5)
            else:
                weight.normal_(std=1.5 / math.sqrt(weight.shape[1]))
    return lm


def some_ids(config, batch_size=2, length=None, seed=0):
    random = torch.Generator().manual_seed(seed)
    length = length or config.context_length
    return torch.randint(config.vocab_size, (batch_size, length), generator=random)


def randn(*shape):
    random = torch.Generator().manual_seed(0)
    return torch.randn(*shape, dtype=torch.float64, generator=random)


def close(a, b, within=1e-12):
    """Equal up to the rounding of float64, relative to the largest number."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype == torch.float64
    return (a - b).abs().max() <= within * max(1.0, b.abs().max())


# The parts


def test_rms_norm_by_hand():
    norm = RMSNorm(2, eps=0.5).double()
    norm.load_state_dict({"weight": torch.tensor([1.0, 10.0])})
    # The mean square of 1 and 2 is 2.5; with epsilon under the root, 3.
    expected = torch.tensor([1 / math.sqrt(3), 20 / math.sqrt(3)]).double()
    assert close(norm(torch.tensor([1.0, 2.0]).double()), expected, within=1e-7)
    assert RMSNorm(2)(torch.zeros(2)).tolist() == [0, 0]


@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_rms_norm_is_torchs(eps):
    ours, theirs = RMSNorm(7, eps).double(), nn.RMSNorm(7, eps).double()
    nn.init.uniform_(ours.weight, 0.5, 1.5)
    theirs.load_state_dict(ours.state_dict())
    x = randn(2, 3, 7)
    assert close(ours(x), theirs(x))
    formula = x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * ours.weight
    assert close(ours(x), formula)


def test_rms_norm_sums_squares_in_float32():
    # In bfloat16 a sum of 4096 squares would stop growing at 256.
    norm, x = RMSNorm(4096).bfloat16(), torch.ones(4096, dtype=torch.bfloat16)
    assert torch.equal(norm(x), x)


def test_silu_is_torchs():
    x = torch.linspace(-800, 800, 9999, dtype=torch.float64)
    assert close(silu(x), F.silu(x))


def test_swiglu_is_made_of_torchs_linears():
    ours = SwiGLU(6, 10).double()
    w1, w3 = (nn.Linear(6, 10, bias=False).double() for _ in range(2))
    w2 = nn.Linear(10, 6, bias=False).double()
    for name, theirs in (("w1", w1), ("w2", w2), ("w3", w3)):
        theirs.load_state_dict(getattr(ours, name).state_dict())
    x = randn(2, 3, 6)
    assert close(ours(x), w2(nn.SiLU()(w1(x)) * w3(x)))


def test_embedding_is_torchs():
    ours, theirs = Embedding(9, 4).double(), nn.Embedding(9, 4).double()
    theirs.load_state_dict(ours.state_dict())
    ids = torch.tensor([[8, 0], [3, 3]])
    assert torch.equal(ours(ids), theirs(ids))


def test_the_parts_of_the_chapter_before_are_here_too():
    for name in set(model.__all__) & set(attention.__all__):
        assert getattr(model, name) is getattr(attention, name)
    only_there = set(attention.__all__) - set(model.__all__)
    assert only_there == {"LayerCache", "multi_head_attention_naive"}


def test_a_block_stands_alone():
    rope = RotaryEmbedding(GQA.d_head, 11, GQA.rope_theta)
    block, x = TransformerBlock(GQA, rope).double(), randn(2, 5, 24)
    h = x + block.attn(F.rms_norm(x, (24,), block.attn_norm.weight, 1e-2))
    assert close(block(x), h + block.ffn(F.rms_norm(h, (24,), None, 1e-2)))
    # Positions reach the attention: every second one is another matter than each.
    assert close(block(x, torch.arange(5) + 6), block(x))
    assert not close(block(x, 2 * torch.arange(5)), block(x), within=1e-3)


# The whole


def forward_by_hand(state, config, ids):
    """The model for one sequence, in numpy, position by position and head by head."""
    w = {name: tensor.double().numpy() for name, tensor in state.items()}

    def norm(x, weight):
        return x / np.sqrt((x * x).mean() + config.norm_eps) * weight

    def turn(x, position):
        pairs = x.reshape(-1, 2) @ np.array([1, 1j])
        for j in range(len(pairs)):
            angle = position * config.rope_theta ** (-2 * j / len(x))
            pairs[j] *= cmath.exp(1j * angle)
        return np.stack([pairs.real, pairs.imag], axis=1).reshape(-1)

    def heads(x, n_heads):
        return x.reshape(n_heads, config.d_head)

    stream = [w["token_embedding.weight"][i] for i in ids]
    for layer in range(config.n_layers):
        b = {
            name.removeprefix(f"blocks.{layer}."): array
            for name, array in w.items()
            if name.startswith(f"blocks.{layer}.")
        }
        keys, values = [], []
        for t, x in enumerate(stream):
            h = norm(x, b["attn_norm.weight"])
            q = heads(b["attn.q_proj.weight"] @ h, config.n_heads)
            k = heads(b["attn.k_proj.weight"] @ h, config.n_kv_heads)
            keys.append([turn(row, t) for row in k])
            values.append(heads(b["attn.v_proj.weight"] @ h, config.n_kv_heads))
            gathered = []
            for i in range(config.n_heads):
                g = i // (config.n_heads // config.n_kv_heads)
                query = turn(q[i], t)
                scores = np.array([query @ key[g] for key in keys])
                weights = np.exp(scores / math.sqrt(config.d_head))
                weights /= weights.sum()
                seen = zip(weights, values, strict=True)
                gathered.append(sum(a * value[g] for a, value in seen))
            x = x + b["attn.o_proj.weight"] @ np.concatenate(gathered)
            h = norm(x, b["ffn_norm.weight"])
            gate = b["ffn.w1.weight"] @ h
            gate = gate / (1 + np.exp(-gate))
            up = b["ffn.w3.weight"] @ h
            stream[t] = x + b["ffn.w2.weight"] @ (gate * up)
    return torch.from_numpy(
        np.stack([
            w["lm_head.weight"] @ norm(x, w["final_norm.weight"]) for x in stream
        ])
    )


@shapes
def test_the_model_by_hand(config):
    # Built in float32 and widened afterwards: nothing may stay rounded.
    lm, ids = loud(config).double(), some_ids(config)
    logits = lm(ids)
    for b in range(2):
        expected = forward_by_hand(lm.state_dict(), config, ids[b].tolist())
        assert close(logits[b], expected)
        # And a sequence does not care who is beside it.
        assert close(lm(ids[b : b + 1])[0], logits[b])


@shapes
def test_names_and_shapes_are_the_contract(config):
    d, d_kv, d_ff = config.d_model, config.n_kv_heads * config.d_head, config.d_ff
    expected = {"token_embedding.weight": (config.vocab_size, d)}
    for i in range(config.n_layers):
        expected |= {
            f"blocks.{i}.attn_norm.weight": (d,),
            f"blocks.{i}.attn.q_proj.weight": (d, d),
            f"blocks.{i}.attn.k_proj.weight": (d_kv, d),
            f"blocks.{i}.attn.v_proj.weight": (d_kv, d),
            f"blocks.{i}.attn.o_proj.weight": (d, d),
            f"blocks.{i}.ffn_norm.weight": (d,),
            f"blocks.{i}.ffn.w1.weight": (d_ff, d),
            f"blocks.{i}.ffn.w2.weight": (d, d_ff),
            f"blocks.{i}.ffn.w3.weight": (d_ff, d),
        }
    expected["final_norm.weight"] = (d,)
    expected["lm_head.weight"] = (config.vocab_size, d)
    lm = TransformerLM(config)
    found = {name: tuple(tensor.shape) for name, tensor in lm.state_dict().items()}
    assert found == expected
    tied = lm.lm_head.weight is lm.token_embedding.weight
    assert tied == config.tie_embeddings
    assert sum(p.numel() for p in lm.parameters()) == param_count(config).total


def test_tied_weights_stay_tied():
    lm = loud(CONFIGS["tied"])
    for same in (lm.double(), lm.bfloat16()):
        assert same.lm_head.weight is same.token_embedding.weight
    twin = TransformerLM(CONFIGS["tied"])
    twin.load_state_dict(lm.float().state_dict())
    assert twin.lm_head.weight is twin.token_embedding.weight
    assert torch.equal(twin(some_ids(GQA)), lm(some_ids(GQA)))


# The start of training


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n_layers", [1, 8])
def test_the_first_loss_is_that_of_a_guess(tied, n_layers):
    torch.manual_seed(0)
    config = ModelConfig(500, 32, 64, n_layers, 4, tie_embeddings=tied)
    lm, ids = TransformerLM(config), some_ids(config, 8, 32)
    targets = some_ids(config, 8, 32, seed=1)
    loss = F.cross_entropy(lm(ids).flatten(0, 1), targets.flatten())
    # Logits of standard deviation s = 0.02 sqrt(d) = 0.16 add about s^2 / 2 to ln V.
    assert abs(loss.item() - math.log(500)) < 0.03


def test_deep_models_start_no_louder_than_shallow_ones():
    def loudness(n_layers):
        torch.manual_seed(0)
        lm = TransformerLM(ModelConfig(100, 16, 64, n_layers, 4))
        stream = []
        lm.final_norm.register_forward_pre_hook(lambda _, x: stream.append(x[0]))
        lm(some_ids(lm.config, 8))
        return stream[0].square().mean().sqrt().item()

    # Without the factor in `reset_parameters`, the ratio would be near sqrt(16) = 4.
    assert 0.5 < loudness(16) / loudness(1) < 2


def test_starting_weights_have_the_stated_sizes():
    torch.manual_seed(0)
    config = ModelConfig(1000, 16, 128, 8, 4, d_ff=256)
    lm = TransformerLM(config)
    block = lm.blocks[3]
    stds = {
        lm.token_embedding: 0.02,
        lm.lm_head: 0.02,
        block.attn.q_proj: 1 / math.sqrt(128),
        block.ffn.w1: 1 / math.sqrt(128),
        block.attn.o_proj: 1 / math.sqrt(128 * 2 * 8),
        block.ffn.w2: 1 / math.sqrt(256 * 2 * 8),
    }
    for part, std in stds.items():
        assert abs(part.weight.std().item() / std - 1) < 0.05


# The one rule


@given(st.integers(1, 10), st.integers(0, 99))
@quick
def test_the_past_does_not_depend_on_the_future(t, seed):
    lm, ids = loud(GQA), some_ids(GQA, seed=seed)
    changed = ids.clone()
    changed[:, t:] = (ids[:, t:] + 1 + seed % 36) % 37
    with torch.no_grad():
        before, after = lm(ids), lm(changed)
    assert torch.equal(before[:, :t], after[:, :t])
    assert (before[:, t:] != after[:, t:]).any(-1).all()


@shapes
def test_each_score_depends_on_all_of_its_past(config):
    lm, ids = loud(config).double(), some_ids(config, 1)

    def summary(x):
        for block in lm.blocks:
            x = block(x)
        return lm.lm_head(lm.final_norm(x)).logsumexp(-1)

    vectors = lm.token_embedding(ids).detach()
    jacobian = torch.autograd.functional.jacobian(summary, vectors)  # (1, T, 1, T, d)
    sees = jacobian.abs().amax(dim=(0, 2, 4)) > 0
    assert torch.equal(sees, torch.ones_like(sees).tril())


# The cache


@given(st.sampled_from(list(CONFIGS)), st.sets(st.integers(1, 10)))
@quick
def test_a_cache_changes_nothing(name, cuts):
    config = CONFIGS[name]
    lm, ids = loud(config).double(), some_ids(config, 3)
    with torch.no_grad():
        expected, cache, end = lm(ids), KVCache(config, 3), 0
        for piece in torch.tensor_split(ids, sorted(cuts), dim=1):
            found = lm(piece, cache)
            start, end = end, end + piece.shape[1]
            assert close(found, expected[:, start:end])
            assert cache.length == end


@shapes
def test_a_cache_changes_little_in_float32(config):
    lm, ids = loud(config), some_ids(config, 3)
    cache = KVCache(config, 3)
    with torch.no_grad():
        expected = lm(ids)
        steps = [lm(ids[:, :4], cache)]
        steps += [lm(ids[:, t : t + 1], cache) for t in range(4, 11)]
    found = torch.cat(steps, dim=1)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_cache_reads_each_token_once():
    lm, ids = loud(GQA), some_ids(GQA)
    rows = []
    lm.blocks[0].attn.k_proj.register_forward_hook(
        lambda _, inputs, __: rows.append(inputs[0].shape[1])
    )
    cache = KVCache(GQA, 2)
    for start, end in ((0, 5), (5, 6), (6, 7)):
        lm(ids[:, start:end], cache)
    assert rows == [5, 1, 1]
    # Grouped-query attention makes it smaller: two heads here instead of six.
    assert cache.layers[0].k.shape == (2, 2, 11, 4)


def test_a_full_cache_refuses_and_stays_as_it_was():
    lm, ids = loud(GQA).double(), some_ids(GQA)
    cache = KVCache(GQA, 2)
    lm(ids[:, :9], cache)
    too_long = "at most 11 tokens; got 9 cached and 3 new: pass only the last"
    with pytest.raises(ValueError, match=too_long):
        lm(ids[:, :3], cache)
    assert close(lm(ids[:, 9:], cache), lm(ids)[:, 9:])
    with pytest.raises(ValueError, match="got 11 cached and 1 new"):
        lm(ids[:, :1], cache)


# Gradients


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_are_those_of_finite_differences(tied):
    config = ModelConfig(3, 3, 4, 2, 2, n_kv_heads=1, d_ff=3, tie_embeddings=tied)
    lm = loud(config).double()
    ids = torch.tensor([[2, 0, 2]])
    names = [name for name, _ in lm.named_parameters()]
    weights = [p.detach().clone().requires_grad_() for p in lm.parameters()]

    def logits(*weights):
        return functional_call(lm, dict(zip(names, weights, strict=True)), ids)

    assert torch.autograd.gradcheck(logits, weights, atol=1e-7, rtol=1e-6)


# Dtypes


@shapes
def test_the_model_runs_in_bfloat16(config):
    lm, ids = loud(config), some_ids(config)
    exact = lm.double()(ids)
    found = lm.bfloat16()(ids)
    assert found.dtype == torch.bfloat16
    # Each of three layers rounds a few times to eight bits.
    assert (found.double() - exact).norm() < 0.05 * exact.norm()
    cache = KVCache(config, 2)
    steps = [lm(ids[:, t : t + 1], cache) for t in range(11)]
    assert (torch.cat(steps, dim=1).double() - exact).norm() < 0.05 * exact.norm()


def test_the_model_runs_under_mixed_precision():
    lm, ids = loud(GQA), some_ids(GQA)
    exact = lm(ids)
    with torch.autocast("cpu", torch.bfloat16):
        found = lm(ids)
    assert 0 < (found.float() - exact).norm() < 0.05 * exact.norm()
    found.float().logsumexp(-1).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in lm.parameters())


# In a process of its own: the type checker that tests put behind every annotation
# cannot be compiled.
COMPILED = """
import sys, torch, warnings
from minillm.config import ModelConfig
from minillm.hub import load_llama, save_llama
from minillm.model import TransformerLM

lm = TransformerLM(ModelConfig(37, 11, 24, 2, 6, n_kv_heads=2))
ids = torch.randint(37, (2, 11))
# Inductor warns of what it cannot make code for, as of complex numbers.
warnings.filterwarnings("error", message=".*code generation")
compiled = torch.compile(lm, fullgraph=True)
torch.testing.assert_close(compiled(ids), lm(ids))
compiled(ids).logsumexp(-1).sum().backward()
assert all(p.grad.isfinite().all() for p in lm.parameters())
save_llama(compiled, sys.argv[1])
assert torch.equal(load_llama(sys.argv[1])(ids), lm(ids))
print("compiled")
"""


@pytest.mark.check
def test_the_model_compiles_whole(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, tmp_path / "saved"],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.stdout == "compiled\n", done.stderr


# Errors


def test_too_long_a_text_is_refused():
    lm = TransformerLM(GQA)
    lm(some_ids(GQA, 1, 11))
    with pytest.raises(ValueError, match="at most 11 tokens; got 0 cached and 12 new"):
        lm(some_ids(GQA, 1, 12))


@pytest.mark.parametrize("bad", [-1, 37])
def test_an_unknown_id_is_an_error(bad):
    with pytest.raises(IndexError):
        TransformerLM(GQA)(torch.tensor([[0, bad]]))


# Starting anew


@pytest.mark.parametrize("tied", [False, True])
def test_weights_can_be_drawn_anew_and_anywhere(tied):
    """Twice, or in memory that held something else, they are those of a new model."""
    config = ModelConfig(20, 16, d_model=8, n_layers=3, n_heads=2, tie_embeddings=tied)
    torch.manual_seed(0)
    expected = TransformerLM(config).state_dict()
    with torch.device("meta"):
        empty = TransformerLM(config)
    empty.to_empty(device="cpu")
    for weight in empty.parameters():
        weight.data.fill_(math.nan)
    used = TransformerLM(config)
    used.reset_parameters()
    for lm in (empty, used):
        torch.manual_seed(0)
        lm.reset_parameters()
        found = lm.state_dict()
        if tied:  # a tied head is not sampled for itself
            assert lm.lm_head.weight is lm.token_embedding.weight
        assert list(found) == list(expected)
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name
        ids = torch.arange(16).unsqueeze(0)
        assert lm(ids).isfinite().all()


def test_a_model_says_how_large_its_parts_are():
    shown = repr(TransformerLM(ModelConfig(50, 16, 32, 1, 4, 2, d_ff=48, norm_eps=0.1)))
    for part in (
        "(token_embedding): Embedding(vocab_size=50, d_model=32)",
        "(attn_norm): RMSNorm(d_model=32, eps=0.1)",
        "n_heads=4, n_kv_heads=2, d_head=8",
        "(w1): Linear(d_in=32, d_out=48)",
        "(lm_head): Linear(d_in=32, d_out=50)",
    ):
        assert part in shown


# For other programs


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@torch.no_grad()
def test_the_model_is_exported_with_any_length(heads):
    lm = TransformerLM(ModelConfig(50, 16, 32, 2, *heads)).eval()
    length = torch.export.Dim("length", min=1, max=16)
    ids = torch.randint(50, (1, 7), generator=torch.manual_seed(0))
    exported = torch.export.export(lm, (ids,), dynamic_shapes={"ids": {1: length}})
    for n in (1, 2, 7, 16):
        ids = torch.randint(50, (1, n))
        assert exported.module()(ids).allclose(lm(ids), atol=1e-6)


@torch.no_grad()
def test_onnx_runs_the_model_at_any_length(tmp_path):
    pytest.importorskip("onnxscript", reason="torch writes ONNX with it")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the peer of this test")
    lm = TransformerLM(ModelConfig(50, 16, 32, 2, 4, 2)).eval()
    length = torch.export.Dim("length", min=1, max=16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            lm,
            (torch.zeros(1, 7, dtype=torch.int64),),
            tmp_path / "model.onnx",
            dynamo=True,
            dynamic_shapes={"ids": {1: length}},
            verbose=False,
        )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for n in (1, 2, 7, 16):
        ids = torch.randint(50, (1, n))
        (found,) = session.run(None, {"ids": ids.numpy()})
        assert torch.from_numpy(found).allclose(lm(ids), atol=1e-5)


def test_a_cache_for_more_sequences_is_refused():
    config = ModelConfig(50, 16, 32, 2, 4)
    cache = KVCache(config, batch_size=2)
    with pytest.raises(ValueError, match="made for 2 sequences; got 1: make one with"):
        TransformerLM(config)(torch.tensor([[1, 2, 3]]), cache)
