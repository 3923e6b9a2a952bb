"""What a model attends to, on the device of the model and as attention has it."""

import pytest
import torch

from minillm.config import ModelConfig
from minillm.inference.attention_maps import attention_maps
from minillm.model import TransformerLM

CONFIG = ModelConfig(50, 16, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2)


def test_the_mask_is_where_the_model_is(monkeypatch):
    """The device "meta" computes nothing, but minds where a tensor is."""
    model = TransformerLM(CONFIG).to("meta")
    made = []
    ones = torch.ones
    monkeypatch.setattr(
        torch, "ones", lambda *a, **k: (made.append(x := ones(*a, **k)), x)[1]
    )
    maps = attention_maps(model, torch.zeros(1, 5, dtype=torch.int64, device="meta"))
    assert [m.shape for m in maps] == [torch.Size([1, 4, 5, 5])] * 2
    assert {tensor.device.type for tensor in made} == {"meta"}


@torch.no_grad()
def test_the_maps_gather_what_attention_gathers():
    model = TransformerLM(CONFIG).double()
    ids = torch.randint(50, (2, 9), generator=torch.manual_seed(0))
    block = model.blocks[0]
    x = block.attn_norm(model.token_embedding(ids))
    v = block.attn.v_proj(x).unflatten(-1, (2, 8)).transpose(1, 2)
    gathered = attention_maps(model, ids)[0] @ v.repeat_interleave(2, dim=1)
    found = block.attn.o_proj(gathered.transpose(1, 2).flatten(2))
    assert found.allclose(block.attn(x))
    assert found.numpy() == pytest.approx(block.attn(x).numpy())
