"""How fast is the model, next to a plain GPT and to transformers?

    python -m benchmarks.model [train|decode|cache] ...

`train`: a step (forward, backward, clipping, AdamW) against a GPT in the manner of
nanoGPT, of equal size: LayerNorm, learned positions, GELU, the fused attention kernel,
`torch.optim.AdamW`. Its feed-forward network is one and a half times as wide as ours,
since it has two matrices where ours has three.

`decode`: tokens per second against `transformers.generate`, on the same weights.

`cache`: 512 new tokens with our cache and without it.

All take turns in one process. The first figure of a line is the ratio, the median over
the turns; above 1 means that this package is the faster one. On a machine that others
use too, `--threads 1 --clock cpu` counts the seconds of this process alone.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minillm.config import ModelConfig
from minillm.demo import SHAPE
from minillm.flops import mfu, training_flops
from minillm.generate import generate
from minillm.hub import save_llama
from minillm.model import TransformerLM
from minillm.optimizer import AdamW, clip_gradients
from minillm.train import cross_entropy

WIDE = ModelConfig(4096, context_length=256, d_model=256, n_layers=4, n_heads=4)


class PeerBlock(nn.Module):
    """One layer of the first GPTs: attention, then two matrices around a GELU."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_1 = nn.LayerNorm(d_model, bias=False)
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.norm_2 = nn.LayerNorm(d_model, bias=False)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add what both parts say."""
        q, k, v = (
            part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm_1(x)).chunk(3, dim=-1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class Peer(nn.Module):
    """A GPT with as many weights in its matrices as a model of ours."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d = config.d_model
        self.tokens = nn.Embedding(config.vocab_size, d)
        self.positions = nn.Embedding(config.context_length, d)
        self.blocks = nn.Sequential(*[
            PeerBlock(d, config.n_heads, 3 * config.d_ff // 2)
            for _ in range(config.n_layers)
        ])
        self.norm = nn.LayerNorm(d, bias=False)
        self.head = nn.Linear(d, config.vocab_size, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Score every token as the successor of each id."""
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.blocks(x)))


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Matrices decay, gains do not."""
    weights = list(model.parameters())
    return [
        {"params": [w for w in weights if w.ndim > 1]},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]


def step_of_ours(config: ModelConfig, bf16: bool) -> Callable[[Tensor, Tensor], float]:
    """One step of training, as `minillm.train.train` takes it."""
    model = TransformerLM(config)
    optimizer = AdamW(groups(model), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    weights = list(model.parameters())

    def step(inputs: Tensor, targets: Tensor) -> float:
        with (
            torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
        ):
            logits = model(inputs)
        loss = cross_entropy(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(weights, 1.0)
        optimizer.step()
        return loss.item()

    return step


def step_of_peer(config: ModelConfig) -> Callable[[Tensor, Tensor], float]:
    """One step of training with PyTorch's own loss, clipping and optimizer."""
    model = Peer(config)
    optimizer = torch.optim.AdamW(
        groups(model), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1
    )

    def step(inputs: Tensor, targets: Tensor) -> float:
        logits = model(inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


clock = time.perf_counter


def take_turns(
    runs: dict[str, Callable[[], Any]], turns: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Seconds of each turn of each run, one after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm_up + turns):
        for name, run in runs.items():
            start = clock()
            run()
            if turn >= warm_up:
                seconds[name].append(clock() - start)
    return seconds


def ratio(theirs: list[float], ours: list[float]) -> float:
    """How many times as fast ours is: the median over turns that lie side by side."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def train(turns: int) -> None:
    """A training step at two sizes, in float32 and under bf16 autocast."""
    a = torch.randn(1024, 1024)
    for name, config, batch_size in (
        ("demo", SHAPE, 8),
        ("wide", WIDE, 16),
    ):
        torch.manual_seed(0)
        length = config.context_length
        ids = torch.randint(config.vocab_size, (batch_size, length + 1))
        batch = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        ours, mixed = step_of_ours(config, False), step_of_ours(config, True)
        peer = step_of_peer(config)
        seconds = take_turns(
            {
                "ours": lambda ours=ours: ours(*batch),
                "ours, bf16": lambda mixed=mixed: mixed(*batch),
                "peer": lambda peer=peer: peer(*batch),
                "product": lambda: a @ a,
            },
            turns,
        )
        peak = 2 * 1024**3 / min(seconds.pop("product"))
        n_ours = sum(p.numel() for p in TransformerLM(config).parameters())
        n_peer = sum(p.numel() for p in Peer(config).parameters())
        print(
            f"{name}: d={config.d_model}, {config.n_layers} layers, T={length}, batch "
            f"{batch_size}; {n_ours:,} weights, the peer {n_peer:,}; "
            f"peak {peak / 1e9:.0f} GFLOP/s"
        )
        flops = training_flops(config, batch_size, length)
        for who, times in seconds.items():
            median = statistics.median(times)
            print(
                f"{ratio(seconds['peer'], times):6.2f}x  {who:12}"
                f"{1e3 * median:8.1f} ms  {batch_size * length / median:9,.0f} tokens/s"
                f"  MFU {mfu(flops, median, peak):.0%}"
            )


def decode(turns: int, n_new: int = 128) -> None:
    """Greedy decoding after a prompt of 16, against transformers on our weights."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for d_model, n_layers in ((128, 4), (512, 8)):
        torch.manual_seed(0)
        config = ModelConfig(2048, 256, d_model, n_layers, n_heads=d_model // 32)
        model = TransformerLM(config).eval()
        with tempfile.TemporaryDirectory() as folder:
            save_llama(model, folder)
            peer = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
        prompt = torch.randint(config.vocab_size, (1, 16))

        def ours() -> list[int]:
            return generate(model, prompt[0].tolist(), n_new, temperature=0)

        def theirs() -> list[int]:
            ids = peer.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=n_new,
                do_sample=False,
                pad_token_id=0,
            )
            return ids[0, 16:].tolist()

        same = sum(a == b for a, b in zip(ours(), theirs(), strict=True))
        seconds = take_turns({"ours": ours, "theirs": theirs}, turns, warm_up=1)
        print(
            f"{ratio(seconds['theirs'], seconds['ours']):6.2f}x  d={d_model}, "
            f"{n_layers} layers: {n_new / statistics.median(seconds['ours']):,.0f} "
            f"tokens/s, transformers "
            f"{n_new / statistics.median(seconds['theirs']):,.0f}; "
            f"{same} of {n_new} ids equal"
        )


def cache(turns: int, n_new: int = 512) -> None:
    """512 new tokens with the cache, and with the whole text read again for each."""
    for d_model, n_layers in ((128, 4), (512, 8)):
        torch.manual_seed(0)
        config = ModelConfig(2048, n_new + 16, d_model, n_layers, d_model // 32)
        model = TransformerLM(config).eval()
        runs = {
            use_cache: lambda use_cache=use_cache, model=model: generate(
                model, list(range(16)), n_new, temperature=0, use_cache=use_cache
            )
            for use_cache in (True, False)
        }
        same = runs[True]() == runs[False]()
        seconds = take_turns(runs, turns, warm_up=0)
        print(
            f"{ratio(seconds[False], seconds[True]):6.1f}x  d={d_model}, {n_layers} "
            f"layers: {n_new / statistics.median(seconds[True]):,.0f} tokens/s with "
            f"cache, {n_new / statistics.median(seconds[False]):,.0f} without; "
            f"ids {'equal' if same else 'differ'}"
        )


PARTS = {"train": (train, 30), "decode": (decode, 5), "cache": (cache, 1)}


def main() -> None:
    """Run the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--turns", type=int, help="how many turns each takes")
    parser.add_argument("--threads", type=int, help="how many threads PyTorch uses")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    arguments = parser.parse_args()
    if arguments.clock == "cpu":
        global clock
        clock = time.process_time
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in arguments.parts or PARTS:
        if name not in PARTS:
            parser.error(f"there is no part {name}: choose from {', '.join(PARTS)}")
        print(f"-- {name}")
        run, turns = PARTS[name]
        run(arguments.turns or turns)


if __name__ == "__main__":
    main()
