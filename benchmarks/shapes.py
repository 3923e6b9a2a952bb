"""The models that are timed, ours and the peer's, each ready for its next step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.peer_gpt import GPT, PeerConfig, make_optimizer, training_step
from minillm.accounting.shapes import Architecture
from minillm.config import ModelConfig
from minillm.flops import training_flops
from minillm.model import TransformerLM
from minillm.runs.demo import CONFIG, SHAPE
from minillm.train import TrainConfig, Trainer


class Size(NamedTuple):
    """A shape, and how many sequences make a batch."""

    shape: ModelConfig
    batch_size: int


SIZES = {
    "demo": Size(SHAPE, CONFIG.batch_size),
    "10M": Size(ModelConfig(4096, 256, d_model=320, n_layers=6, n_heads=5), 4),
}
# For who only wants to see that it works.
QUICK = {"tiny": Size(ModelConfig(256, 32, d_model=32, n_layers=2, n_heads=2), 4)}
SETTINGS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {"dtype": "bf16"},
    "float32, compiled": {"compile": True},
    "bf16, compiled": {"dtype": "bf16", "compile": True},
}


def text(shape: ModelConfig) -> np.ndarray:
    """Random ids; speed does not depend on what they say."""
    return np.random.default_rng(0).integers(0, shape.vocab_size, 200_000, np.uint16)


def trainer(size: Size, device: str = "cpu", **settings: Any) -> Trainer:
    """A training of ours, ready for its first step."""
    torch.manual_seed(0)
    model = TransformerLM(size.shape).to(device)
    model.train()
    config = TrainConfig(steps=10**6, batch_size=size.batch_size, **settings)
    return Trainer(model, text(size.shape), config)


def gpt(shape: ModelConfig) -> GPT:
    """A model of the peer, as deep and as wide."""
    return GPT(
        PeerConfig(
            shape.vocab_size,
            shape.context_length,
            shape.n_layers,
            shape.n_heads,
            shape.d_model,
            tie=shape.tie_embeddings,
        )
    )


def peer(
    size: Size, device: str = "cpu", dtype: str = "float32", compile: bool = False
) -> Callable[[], float]:
    """One step of the peer, for a model of the same shape."""
    model, data = gpt(size.shape).to(device), torch.from_numpy(text(size.shape))
    optimizer = make_optimizer(model)
    compiled: Any = torch.compile(model) if compile else model
    bf16 = dtype == "bf16"
    return lambda: training_step(compiled, optimizer, data, size.batch_size, bf16)


def flops(size: Size) -> int:
    """What a step of ours computes."""
    return training_flops(size.shape, size.batch_size, size.shape.context_length)


def peer_flops(size: Size) -> int:
    """What a step of the peer computes: its networks have two matrices, not three."""
    s = size.shape
    architecture = Architecture(
        *(s.vocab_size, s.context_length, s.d_model, s.n_layers, s.n_heads),
        mlp_matrices=2,
    )
    return training_flops(architecture, size.batch_size, s.context_length)
