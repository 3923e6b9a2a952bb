"""The models that are timed, ours and the peer's, each ready for its next step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.peer_gpt import GPT, PeerConfig, make_optimizer, training_step
from minillm.accounting.shapes import Architecture
from minillm.config import ModelConfig
from minillm.flops import training_flops
from minillm.model import Linear, TransformerLM
from minillm.runs.demo import CONFIG, SHAPE
from minillm.train import TrainConfig, Trainer


class Size(NamedTuple):
    """A shape, and how many sequences make a batch."""

    shape: ModelConfig
    batch_size: int


SIZES = {
    "demo": Size(SHAPE, CONFIG.batch_size),
    "wide": Size(ModelConfig(4096, 256, d_model=256, n_layers=4, n_heads=4), 16),
    "10M": Size(ModelConfig(4096, 256, d_model=320, n_layers=6, n_heads=5), 4),
    "30M": Size(ModelConfig(8192, 256, d_model=512, n_layers=8, n_heads=8), 4),
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


def _matrices(config: ModelConfig) -> list[torch.Tensor]:
    """All that rows are multiplied by."""
    parts = TransformerLM(config).modules()
    return [part.weight.detach() for part in parts if isinstance(part, Linear)]


def products(size: Size) -> Callable[[], None]:
    """The matrix products and the attention of a step of ours, and nothing else."""
    c, n = size.shape, size.batch_size * size.shape.context_length
    work = [
        (w, torch.randn(n, w.shape[1]), torch.randn(n, w.shape[0]))
        for w in _matrices(c)
    ]
    heads = (size.batch_size, c.n_heads, c.context_length, c.d_head)
    q, k, v = (torch.randn(heads, requires_grad=True) for _ in range(3))
    gradient = torch.randn(heads)

    def run() -> None:
        for w, x, g in work:
            x @ w.T
            g @ w
            g.T @ x
        for _ in range(c.n_layers):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            torch.autograd.grad(y, (q, k, v), gradient)

    return run


def row_products(config: ModelConfig) -> Callable[[], None]:
    """One row times each matrix of a model."""
    work = [(torch.randn(1, w.shape[1]), w.T.contiguous()) for w in _matrices(config)]

    def run() -> None:
        for x, w in work:
            x @ w

    return run


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
