"""How fast is the model, beside a plain GPT and beside transformers?

python -m benchmarks.model [PART ...] [--turns N] [--quick] [--cpu]
"""

import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import shapes
from benchmarks.command import main
from benchmarks.measure import Part, Record, Target
from benchmarks.shapes import QUICK, SETTINGS, SIZES, Size
from minillm.config import ModelConfig
from minillm.flops import mfu, param_count
from minillm.generate import generate
from minillm.hub import save_llama
from minillm.model import TransformerLM

PEER = "a plain GPT"
SHOWN = {"float32": torch.float32, "bf16": torch.bfloat16}
COMPILED = "bf16, compiled"
# How many times as fast as the peer each shall be.
GOALS = {("demo", "float32"): 1.2, ("10M", "float32"): 1.0}
# Width and layers of the models that write; in a hurry, of a tiny one.
WIDTHS = {False: ((512, 8),), True: ((32, 2),)}


def step(record: Record) -> None:
    """Take a training step: sample a batch, forward, backward, clip, AdamW.

    Ours is the step of the training loop, with all that it does. The peer is a GPT in
    the usual manner: LayerNorm, learned positions, one product for queries, keys and
    values, PyTorch's fused attention, a GELU, `torch.optim.AdamW`, not fused. Ours
    computes two to five percent more for each token. The peer stays in float32: a row
    in bf16 says what bf16 brings, and not who is faster. MFU is measured against the
    fastest product of two large matrices in the same turns, in the same type of
    numbers.
    """
    sizes = QUICK if record.quick else SIZES
    for i, (name, size) in enumerate(sizes.items()):
        if record.left() < 0:
            record.not_measured(name, "no time was left for it")
            continue
        with record.optional(name):
            _step(record, name, size, 1 / (len(sizes) - i))


def compiled(record: Record) -> None:
    """Take our step of the small model in bf16, compiled by `torch.compile`.

    The peer is the same step, not compiled. What compiling takes is not counted.
    """
    size = QUICK["tiny"] if record.quick else SIZES["demo"]
    programs = {s: shapes.trainer(size, **SETTINGS[s]).step for s in ("bf16", COMPILED)}
    found = record.take_turns(programs, 30)
    record.row(
        *(f"demo, {COMPILED}", found[COMPILED], "not compiled", found["bf16"]),
        unit="tokens/s",
        amount=size.batch_size * size.shape.context_length,
    )


def _step(record: Record, name: str, size: Size, share: float) -> None:
    matrices = {
        dtype: torch.randn(1024, 1024, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    }
    programs: dict[str, Callable[[], object]] = {
        str(dtype): lambda a=a: a @ a for dtype, a in matrices.items()
    }
    programs["peer"] = shapes.peer(size)
    for setting in SHOWN:
        programs[setting] = shapes.trainer(size, **SETTINGS[setting]).step
    found = record.take_turns(programs, 30 if name == "demo" else 9, share)
    peaks = {dtype: 2 * 1024**3 / min(found[str(dtype)]) for dtype in matrices}
    theirs = mfu(
        shapes.peer_flops(size), statistics.median(found["peer"]), peaks[torch.float32]
    )
    weights = param_count(size.shape).total
    for setting, dtype in SHOWN.items():
        peak = peaks[dtype]
        utilization = mfu(shapes.flops(size), statistics.median(found[setting]), peak)
        goal = GOALS.get((name, setting))
        record.row(
            f"{name} ({weights / 1e6:.1f} M weights), {setting}",
            *(found[setting], PEER, found["peer"]),
            unit="tokens/s",
            amount=size.batch_size * size.shape.context_length,
            target=("ratio >=", goal) if goal else None,
            note=f"MFU {utilization:.0%} of {peak / 1e9:,.0f} GFLOP/s; peer "
            f"{theirs:.0%} of {peaks[torch.float32] / 1e9:,.0f}",
        )


def pair(
    config: ModelConfig, device: str = "cpu"
) -> tuple[TransformerLM, Callable[[list[int], int], list[int]]]:
    """A model of ours, and how transformers continues with the same weights."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = TransformerLM(config).eval().to(device)
    with tempfile.TemporaryDirectory() as folder:
        save_llama(model, folder)
        peer = transformers.LlamaForCausalLM.from_pretrained(folder).eval().to(device)

    def theirs(prompt: list[int], n: int) -> list[int]:
        ids = torch.tensor([prompt], device=device)
        found = peer.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=n,
            min_new_tokens=n,
            do_sample=False,
            pad_token_id=0,
        )
        return found[0, len(prompt) :].tolist()

    return model, theirs


def decode(record: Record) -> None:
    """Write 128 tokens after a prompt of 16, greedily, with a cache.

    Both compute with the same weights.
    """
    write(
        record,
        {
            f"d = {d}, {n} layers": ModelConfig(2048, 256, d, n, n_heads=d // 32)
            for d, n in WIDTHS[record.quick]
        },
        target=("ratio >=", 2),
    )


def write(
    record: Record,
    cases: dict[str, ModelConfig],
    device: str = "cpu",
    target: Target | None = None,
) -> None:
    """Let models of these shapes write, ours and transformers'."""
    n = 8 if record.quick else 128
    for i, (case, config) in enumerate(cases.items()):
        model, theirs = pair(config, device)
        prompt = torch.randint(config.vocab_size, (16,)).tolist()

        def us(model: TransformerLM = model, prompt: list[int] = prompt) -> list[int]:
            return generate(model, prompt, n, temperature=0)

        def them(theirs: Any = theirs, prompt: list[int] = prompt) -> list[int]:
            return theirs(prompt, n)

        same = sum(a == b for a, b in zip(us(), them(), strict=True))
        found = record.take_turns(
            {"us": us, "them": them}, 7, 1 / (len(cases) - i), warm_up=0
        )
        record.row(
            case,
            *(found["us"], "transformers.generate", found["them"]),
            unit="tokens/s",
            amount=n,
            target=target,
            note=f"{same} of {n} ids equal",
        )


def cache(record: Record) -> None:
    """Write 512 tokens with our cache, and with the whole text read again for each."""
    d_model, n_layers, n = (32, 2, 16) if record.quick else (128, 4, 512)
    torch.manual_seed(0)
    config = ModelConfig(2048, n + 16, d_model, n_layers, d_model // 32)
    model = TransformerLM(config).eval()

    def write(use_cache: bool) -> list[int]:
        return generate(model, list(range(16)), n, temperature=0, use_cache=use_cache)

    same = write(True) == write(False)
    found = record.take_turns(
        {"with": lambda: write(True), "without": lambda: write(False)}, *(3, 1, 0)
    )
    record.row(
        f"d = {d_model}, {n_layers} layers, {n} new tokens",
        *(found["with"], "without cache", found["without"]),
        unit="tokens/s",
        amount=n,
        target=None if record.quick else ("ratio >=", 10),
        note="the same ids" if same else "some ids differ",
    )


PARTS = {
    "step": Part(step, 35),
    "compiled": Part(compiled, 55),
    "decode": Part(decode, 20),
    "cache": Part(cache, 15),
}

if __name__ == "__main__":
    main("model", __doc__, PARTS)
