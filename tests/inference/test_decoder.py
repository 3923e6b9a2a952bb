"""The fast decoder beside the model itself."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.config import ModelConfig, RopeScaling
from minillm.generate import generate
from minillm.inference import decoder as generate_fast
from minillm.inference.decoder import Decoder, Memory, read_prompt, suits
from minillm.model import KVCache, RMSNorm, TransformerLM

CONFIG = ModelConfig(31, 12, d_model=16, n_layers=2, n_heads=4, d_ff=24)


def opinionated(config: ModelConfig, seed: int = 0) -> TransformerLM:
    """A model in float64 whose weights, gains too, are far from what they start as."""
    torch.manual_seed(seed)
    model = TransformerLM(config).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=1.5 / weight.shape[-1] ** 0.5)
    return model


@st.composite
def shapes(draw):
    n_kv_heads = draw(st.integers(1, 3))
    n_heads = n_kv_heads * draw(st.integers(1, 3))
    return ModelConfig(
        vocab_size=draw(st.integers(2, 40)),
        context_length=12,
        d_model=n_heads * draw(st.sampled_from([2, 4, 6])),
        n_layers=draw(st.integers(1, 3)),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_ff=draw(st.integers(1, 30)),
        norm_eps=draw(st.sampled_from([1e-5, 0.1])),
        rope_theta=draw(st.sampled_from([10.0, 10000.0])),
        rope_scaling=draw(st.sampled_from([None, RopeScaling(4.0, 1.0, 4.0, 8)])),
        tie_embeddings=draw(st.booleans()),
    )


@settings(deadline=None, max_examples=40)
@given(shapes(), st.integers(0, 1000), st.data())
def test_the_decoder_scores_as_the_model_does(config, seed, data):
    model = opinionated(config, seed)
    length = data.draw(st.integers(2, 12))
    ids = data.draw(
        st.lists(
            st.integers(0, config.vocab_size - 1), min_size=length, max_size=length
        )
    )
    prompt = data.draw(st.integers(1, length - 1))
    whole = model(torch.tensor([ids]))[0]
    cache = KVCache(config, batch_size=1)
    model(torch.tensor([ids[:prompt]]), cache)
    decoder = Decoder(model)
    for t in range(prompt, length):
        torch.testing.assert_close(
            decoder(ids[t], cache), whole[t], rtol=1e-10, atol=1e-10
        )
    assert cache.length == length


@pytest.mark.parametrize(
    ("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)]
)
def test_in_few_digits_it_is_as_near_as_the_model(dtype, off):
    exact = opinionated(CONFIG)
    model = copy.deepcopy(exact).to(dtype)
    ids = torch.arange(12).unsqueeze(0)
    cache = KVCache(CONFIG, batch_size=1)
    model(ids[:, :4], cache)
    got = torch.stack([Decoder(model)(t, cache) for t in range(4, 12)])
    assert got.dtype == dtype
    expected = exact(ids)[0, 4:]
    assert (got - expected).norm() / expected.norm() < off


def test_generate_uses_it_for_all_but_the_prompt(monkeypatch):
    model, read = opinionated(CONFIG), []
    call = Decoder.__call__
    monkeypatch.setattr(
        Decoder,
        "__call__",
        lambda self, token, cache: read.append(token) or call(self, token, cache),
    )
    # A text longer than the context: after 12 tokens the last 6 are read again.
    ids = generate(model, [1, 2, 3], 14, temperature=0)
    assert ids == generate(model, [1, 2, 3], 14, temperature=0, use_cache=False)
    text = [1, 2, 3, *ids]
    assert read == [*text[3:12], *text[13:16]]


def test_a_model_that_has_learned_since_is_read_anew():
    model = opinionated(CONFIG)
    before = generate(model, [1], 8, temperature=0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.neg_()
    after = generate(model, [1], 8, temperature=0)
    assert before != after
    assert after == generate(model, [1], 8, temperature=0, use_cache=False)


class LoudNorm(RMSNorm):
    def forward(self, x):
        return 3 * super().forward(x)


def test_who_changes_a_part_sees_it_at_work():
    model = opinionated(CONFIG)
    usual = generate(model, [1], 8, temperature=0)
    model.final_norm = LoudNorm(16).double()
    model.blocks[0].attn_norm = LoudNorm(16).double()
    assert not suits(model)
    changed = generate(model, [1], 8, temperature=0)
    assert changed == generate(model, [1], 8, temperature=0, use_cache=False)
    assert changed != usual


@pytest.mark.parametrize(
    "listen", ["register_forward_hook", "register_forward_pre_hook"]
)
def test_who_listens_to_a_part_hears_every_token(listen):
    model, heard = opinionated(CONFIG), []
    getattr(model.blocks[1].ffn, listen)(lambda *seen: heard.append(seen[1]))
    generate(model, [1], 8, temperature=0)
    assert len(heard) == 8


def test_a_layer_without_positions_stays_without():
    model = opinionated(CONFIG)
    model.blocks[0].attn.rope = None
    assert suits(model)
    ids = generate(model, [1], 10, temperature=0)
    assert ids == generate(model, [1], 10, temperature=0, use_cache=False)


def test_a_large_model_is_not_copied(monkeypatch):
    model = TransformerLM(CONFIG)
    n_bytes = 4 * sum(w.numel() for w in model.parameters())
    for most, expected in ((n_bytes, True), (n_bytes - 1, False)):
        monkeypatch.setattr(generate_fast, "MOST_BYTES", most)
        assert suits(model) is expected


def test_a_module_of_others_does_not_suit():
    assert not suits(nn.Linear(2, 2))


def test_a_second_question_is_read_from_where_it_differs(monkeypatch):
    model, memory, read = opinionated(CONFIG), Memory(), []
    decoder, usual = Decoder(model), Decoder.read
    monkeypatch.setattr(
        Decoder,
        "read",
        lambda self, ids, cache, last=1: (
            read.append(list(ids)) or usual(self, ids, cache, last)
        ),
    )

    def answer(ids, n, **kept):
        return generate(model, ids, n, temperature=0, decoder=decoder, **kept)

    first = answer([1, 2, 3], 3, memory=memory)
    # What was written last has not been read.
    assert memory.ids == [1, 2, 3, *first[:-1]]
    second = [1, 2, 3, *first, 4, 5]
    read.clear()
    found = answer(second, 2, memory=memory)
    assert read[0] == [first[-1], 4, 5]
    assert found == answer(second, 2)
    # A text that begins otherwise, one that is only a part, and one that is too long.
    for ids in ([7, 2, 3, 4], [1, 2], [1] * 12):
        assert answer(ids, 9, memory=memory) == answer(ids, 9)


def test_several_tokens_behind_a_cache_do_not_see_the_future():
    model, ids = opinionated(CONFIG), [3, 1, 4, 1, 5, 9, 2, 6]
    whole = model(torch.tensor([ids]))[0]
    cache, decoder = KVCache(CONFIG, 1), Decoder(model)
    torch.testing.assert_close(decoder.read(ids[:3], cache)[0], whole[2])
    torch.testing.assert_close(decoder.read(ids[3:], cache, last=5), whole[3:])
    torch.testing.assert_close(read_prompt(model, ids, None, last=3), whole[5:])


def test_what_is_cut_is_forgotten():
    model, cache = opinionated(CONFIG), KVCache(CONFIG, 1)
    with pytest.raises(ValueError, match="holds 0 tokens; 1 cannot"):
        cache.cut(1)
    model(torch.tensor([[3, 1, 7, 7]]), cache)
    cache.cut(2)
    expected = model(torch.tensor([[3, 1, 4]]))[0, -1]
    torch.testing.assert_close(model(torch.tensor([[4]]), cache)[0, -1], expected)
