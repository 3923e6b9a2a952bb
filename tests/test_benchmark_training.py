"""The benchmark of training compares like with like, and runs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def test_the_peer_is_a_fair_one():
    """As deep, as wide, with as many heads, and within a tenth as heavy; it learns."""
    from benchmarks.peer_gpt import GPT, PeerConfig, make_optimizer, training_step
    from benchmarks.training import SHAPES
    from minillm.flops import param_count

    for shape, _ in SHAPES.values():
        peer = GPT(
            PeerConfig(
                shape.vocab_size,
                shape.context_length,
                shape.n_layers,
                shape.n_heads,
                shape.d_model,
                tie=shape.tie_embeddings,
            )
        )
        weights = sum(w.numel() for w in peer.parameters())
        assert weights == pytest.approx(param_count(shape).total, rel=0.1)
    torch.manual_seed(0)
    peer = GPT(PeerConfig(2, 8, 1, 1, 16))
    optimizer = make_optimizer(peer, lr=0.02)
    data = torch.tensor([0, 1] * 50)
    losses = [training_step(peer, optimizer, data, 8) for _ in range(30)]
    assert losses[0] == pytest.approx(0.693, abs=0.2)
    assert losses[-1] < 0.2


@pytest.mark.check
def test_the_benchmark_runs():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.training", "--cpu", "--eager"),
            *("--turns", "2", "--shapes", "demo"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("float32", "bf16", "the peer", "AdamW beside", "the loop around"):
        assert name in done.stdout
