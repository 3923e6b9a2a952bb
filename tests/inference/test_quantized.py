"""Fewer bits, and the products that compute with them."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.config import ModelConfig
from minillm.generate import generate
from minillm.inference import eight_bits
from minillm.inference.decoder import Decoder, read_prompt, suits
from minillm.inference.eight_bit_layers import Product, to_eight_bits
from minillm.inference.eight_bits import WAYS, Plain, TwoDigits, fastest
from minillm.inference.quantized import bits_per_weight, quantize, stored
from minillm.model import KVCache, TransformerLM

CONFIG = ModelConfig(
    vocab_size=31,
    context_length=12,
    d_model=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    d_ff=48,
)


def opinionated(config: ModelConfig = CONFIG, seed: int = 0) -> TransformerLM:
    torch.manual_seed(seed)
    model = TransformerLM(config).eval().requires_grad_(False)
    for weight in model.parameters():
        weight.normal_(std=1.5 / weight.shape[-1] ** 0.5)
    return model


@settings(deadline=None, max_examples=25)
@given(
    st.integers(2, 8),
    st.sampled_from(["tensor", "row", 4, 8]),
    st.integers(1, 5),
    st.integers(0, 1000),
)
def test_no_weight_is_off_by_more_than_half_a_step(bits, group, rows, seed):
    random = torch.Generator().manual_seed(seed)
    weights = torch.randn(rows, 16, generator=random).double()
    levels, scale = found = quantize(weights, bits, group)
    top = 2 ** (bits - 1) - 1
    assert levels.dtype == torch.int8
    assert levels.abs().amax() == top  # the largest weight uses the last level
    steps = scale.expand(rows, -1).repeat_interleave(16 // scale.shape[1], dim=1)
    assert ((found.restore() - weights).abs() <= steps / 2 * (1 + 1e-9)).all()
    # The largest of each group comes back as it was.
    groups = weights.view(rows, scale.shape[1], -1)
    largest = groups.abs().amax(-1) if group != "tensor" else groups.abs().amax()
    torch.testing.assert_close(scale * top, largest.expand_as(scale))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e4, 0.02, 1e-5, 1e-7, 1e-30, 1e-36, 2e-44])
@pytest.mark.parametrize("bits", [8, 4])
def test_half_a_step_in_every_precision(dtype, size, bits):
    weights = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    weights = (weights * size).to(dtype)
    levels, scale = found = quantize(weights, bits)
    off = (found.restore().double() - weights.double()).abs()
    # The result is a float32, and rounded to it.
    within = scale.double() / 2 * (1 + 1e-5)
    assert (off <= within).all()
    assert levels.abs().max() <= 2 ** (bits - 1) - 1


def test_zeros_stay_zeros():
    assert not quantize(torch.zeros(3, 8), 4, 4).restore().any()
    for small in (torch.zeros(1, 3).half(), torch.tensor([[1e-44, 0.0, -5e-45]])):
        levels, scale = quantize(small)
        assert scale.item() == 1
        assert not levels.any()


@pytest.mark.parametrize(
    ("weights", "bits", "group", "message"),
    [
        (torch.ones(2, 8), 1, "row", "2 to 8 bits; got 1"),
        (torch.ones(2, 8), 9, "row", "2 to 8 bits; got 9"),
        (torch.ones(2, 8), 4, 3, "8 weights cannot be cut into groups of 3"),
        (torch.ones(2, 8), 4, 0, "groups of 0"),
        (torch.tensor([[1.0, torch.nan]]), 8, "row", "not finite"),
    ],
)
def test_what_cannot_be_rounded_is_refused(weights, bits, group, message):
    with pytest.raises(ValueError, match=message):
        quantize(weights, bits, group)


def test_bits_are_counted_as_they_lie_in_memory():
    weights = torch.randn(6, 64)
    for group in ("tensor", "row", 16):
        levels, scale = quantize(weights, 4, group)
        bits = 4 * levels.numel() + 16 * scale.numel()
        assert bits_per_weight(4, group, (6, 64)) == bits / weights.numel()


def test_a_tied_matrix_is_rounded_once():
    tied = ModelConfig(31, 12, 32, 1, 4, tie_embeddings=True)
    model = opinionated(tied)
    once = quantize(model.lm_head.weight, 4, 8).restore()
    found = stored(model, 4, 8)
    assert found.lm_head.weight is found.token_embedding.weight
    torch.testing.assert_close(found.lm_head.weight, once)
    assert not torch.equal(model.lm_head.weight, once)  # the model itself is kept


# The door


def ways() -> list:
    """Those that this build of PyTorch has."""
    found = []
    for way in WAYS:
        try:
            Product([quantize(torch.ones(2, 32))], way)(torch.ones(1, 32))
        except (RuntimeError, NotImplementedError, AttributeError):
            continue
        found.append(way)
    return found


@pytest.mark.parametrize("way", ways(), ids=lambda way: type(way).__name__)
@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("width", [8, 27, 96, 100])  # kernels read blocks of a row
def test_every_way_computes_what_a_plain_product_computes(way, n, width):
    random = torch.Generator().manual_seed(n)
    matrices = [
        quantize(torch.randn(rows, width, generator=random)) for rows in (40, 8, 16)
    ]
    x = torch.randn(n, width, generator=random)
    x[:, 5] = 50.0  # an outlier
    weights = torch.cat([m.restore() for m in matrices]).double()
    expected = x.double() @ weights.T
    y = Product(matrices, way)(x)
    assert y.shape == (n, 64)
    assert y.dtype == torch.float32
    # An entry of x is off by 1/256 of itself in bfloat16, and by 1/252 of a 63rd of
    # the largest in two digits; the sum of what that makes is a bound, not a guess.
    # Sums and scales in bfloat16 add their own eight digits.
    if isinstance(way, TwoDigits):
        off = x.abs().amax(-1, keepdim=True) / 63 / 252 * torch.ones_like(x)
        bound = off.double() @ weights.abs().T + 1e-5 * expected.abs() + 1e-4
    elif isinstance(way, Plain):
        bound = 1e-4 + 1e-5 * expected.abs()
    else:
        bound = x.abs().double() @ weights.abs().T / 256 + expected.abs() / 100
    assert ((y - expected).abs() <= bound).all()


@pytest.mark.parametrize("way", ways(), ids=lambda way: type(way).__name__)
def test_what_is_not_a_number_stays_so(way):
    product = Product([quantize(torch.randn(8, 32))], way)
    for rows in (1, 3):
        x = torch.zeros(rows, 32)
        assert not product(x).any()
        x[0, 0] = torch.nan
        assert product(x)[0].isnan().all()


def test_a_way_that_computes_something_else_is_out_of_the_race(monkeypatch):
    class Wrong(Plain):
        def multiply(self, prepared, packed):
            return torch.zeros(1, 1536)

    class Missing(Plain):
        def pack(self, levels, scale):
            raise NotImplementedError

    plain = Plain()
    monkeypatch.setattr(eight_bits, "WAYS", (Wrong(), Missing(), plain))
    monkeypatch.setattr(eight_bits, "fastest", fastest.__wrapped__)
    assert eight_bits.fastest() is plain


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_of_eight_bits_is_the_model_with_rounded_weights(tied):
    config = ModelConfig(31, 12, 32, 2, 4, n_kv_heads=2, d_ff=48, tie_embeddings=tied)
    model = opinionated(config)
    expected = stored(model, 8, "row")
    eight = to_eight_bits(copy.deepcopy(model), Plain())
    ids = torch.arange(12).unsqueeze(0)
    torch.testing.assert_close(eight(ids), expected(ids), rtol=1e-4, atol=1e-4)
    assert "d_in=32" in repr(eight)
    assert suits(eight)


def test_the_decoder_of_eight_bits_is_its_model():
    model = to_eight_bits(opinionated(), Plain())
    ids = list(range(10))
    whole = model(torch.tensor([ids]))[0]
    cache, decoder = KVCache(CONFIG, 1), Decoder(model)
    torch.testing.assert_close(decoder.read(ids[:3], cache)[0], whole[2])
    torch.testing.assert_close(decoder(3, cache), whole[3])
    # Several tokens behind a cache do not see each other's future.
    torch.testing.assert_close(decoder.read(ids[4:], cache, last=6), whole[4:])
    torch.testing.assert_close(read_prompt(model, ids, None, last=10), whole)


def test_generating_from_eight_bits():
    model = to_eight_bits(opinionated())
    ids = generate(model, [1, 2, 3], 14, temperature=0)
    assert ids == generate(model, [1, 2, 3], 14, temperature=0, use_cache=False)
