"""The peer of the benchmarks: a GPT and its training step as most people write them.

A plain `nn.Module` in the manner of GPT-2, as the well-known teaching repositories have
it: learned positions, LayerNorm before each part, one fused product for queries, keys
and values, PyTorch's fused attention, a GELU MLP of four times the width, and a head
that is the embedding. It was written for these benchmarks and shares no line with the
package, so that the two can be compared.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GPT", "PeerConfig", "make_optimizer", "training_step"]


@dataclass(frozen=True)
class PeerConfig:
    """The shape of a GPT, in the field's usual letters."""

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    bias: bool = False
    tie: bool = True


class CausalSelfAttention(nn.Module):
    """All heads of one layer, with queries, keys and values out of one product."""

    def __init__(self, config: PeerConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mix each position with those before it."""
        b, t, d = x.shape
        q, k, v = (
            part.view(b, t, self.n_head, d // self.n_head).transpose(1, 2)
            for part in self.c_attn(x).split(d, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(b, t, d))


class MLP(nn.Module):
    """Four times wider, GELU, and back."""

    def __init__(self, config: PeerConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Process each position independently."""
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    """One layer, pre-norm."""

    def __init__(self, config: PeerConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the two parts say."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """The model: ids and targets in, logits and loss out."""

    def __init__(self, config: PeerConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                std = 0.02
                if name.endswith("c_proj.weight"):
                    std /= math.sqrt(2 * config.n_layer)
                nn.init.normal_(weight, std=std)
        if config.tie:
            self.lm_head.weight = self.wte.weight

    def forward(
        self, ids: Tensor, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Score the successors of every position, and measure the surprise."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.wte(ids) + self.wpe(positions)
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        if targets is None:
            return logits, None
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))
        return logits, loss


def make_optimizer(model: nn.Module, lr: float = 3e-3) -> torch.optim.AdamW:
    """PyTorch's AdamW as it comes, on a GPU fused; only matrices decay."""
    weights = [w for w in model.parameters() if w.requires_grad]
    on_gpu = any(w.is_cuda for w in weights)
    groups = [
        {"params": [w for w in weights if w.dim() >= 2], "weight_decay": 0.1},
        {"params": [w for w in weights if w.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=on_gpu or None)


def training_step(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    data: Tensor,
    batch_size: int,
    bf16: bool = False,
) -> float:
    """One step of the usual loop: sample, forward, backward, clip, step, report.

    `data` is a sequence of ids in memory; each chunk is cut out and cast by itself and
    stacked, which is how such loops read their files.
    """
    device, block_size = model.wte.weight.device, model.config.block_size
    starts = torch.randint(len(data) - block_size, (batch_size,)).tolist()
    x = torch.stack([data[i : i + block_size].long() for i in starts])
    y = torch.stack([data[i + 1 : i + 1 + block_size].long() for i in starts])
    x, y = x.to(device), y.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        _, loss = model(x, y)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()
