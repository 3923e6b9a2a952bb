"""How fast is the model, beside a plain GPT and beside transformers?

python -m benchmarks.model [PART ...] [--turns N] [--quick] [--cpu]
"""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks import shapes
from benchmarks.command import main
from benchmarks.machine import describe
from benchmarks.measure import Part, Record, Target
from benchmarks.shapes import QUICK, SETTINGS, SIZES, Size
from minillm.config import ModelConfig
from minillm.flops import mfu, param_count
from minillm.generate import generate
from minillm.hub import save_llama
from minillm.model import TransformerLM

PEER = "a plain GPT"
# How many times as fast as the peer in float32 each shall be. Those of bf16 hold where
# the processor multiplies such numbers itself.
GOALS = {
    ("demo", "float32"): 1.2,
    ("wide", "float32"): 1.0,
    ("10M", "float32"): 1.0,
    ("wide", "bf16"): 1.5,
    ("10M", "bf16"): 1.5,
    ("demo", "bf16, compiled"): 1.5,
}


# Width and layers of the models that write; in a hurry, of a tiny one.
WIDTHS = {False: ((128, 4), (512, 8)), True: ((32, 2),)}


def step(record: Record) -> None:
    """Take a training step: draw, forward, backward, clip, AdamW.

    Ours is the step of the training loop, with all that it does. The peer is a GPT in
    the usual manner in float32: LayerNorm, learned positions, one product for queries,
    keys and values, PyTorch's fused attention, a GELU, `torch.optim.AdamW`. MFU is
    measured against the fastest product of two large matrices in the same turns, in the
    same type of numbers.
    """
    _steps(record, ("float32", "bf16"))


def compiled(record: Record) -> None:
    """Take the same step with our model compiled by `torch.compile`.

    The peer is the same one, not compiled. What compiling takes is not counted.
    """
    _steps(record, ("float32, compiled", "bf16, compiled"))


def _steps(record: Record, settings: tuple[str, ...]) -> None:
    sizes = QUICK if record.quick else SIZES
    left = len(sizes)
    for name, size in sizes.items():
        if record.left() < 0:
            record.not_measured(name, "no time was left for it")
            continue
        with record.optional(name):
            _step(record, name, size, settings, 1 / left)
        left -= 1


def _step(
    record: Record, name: str, size: Size, settings: tuple[str, ...], share: float
) -> None:
    matrices = {
        dtype: torch.randn(1024, 1024, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    }
    programs: dict[str, Callable[[], object]] = {
        str(dtype): lambda a=a: a @ a for dtype, a in matrices.items()
    }
    programs["peer"] = shapes.peer(size)
    ready = []
    for setting in settings:
        with record.optional(f"{name}, {setting}"):
            take = shapes.trainer(size, **SETTINGS[setting]).step
            take()  # compiles, and says early what does not work
            programs[setting] = take
            ready.append(setting)
    found = record.take_turns(programs, 30 if name == "demo" else 9, share)
    peaks = {dtype: 2 * 1024**3 / min(found[str(dtype)]) for dtype in matrices}
    theirs = mfu(
        shapes.peer_flops(size), statistics.median(found["peer"]), peaks[torch.float32]
    )
    has_bf16 = any("bf16" in i for i in describe()["instructions"])
    weights = param_count(size.shape).total
    for setting in ready:
        is_bf16 = "bf16" in setting
        peak = peaks[torch.bfloat16 if is_bf16 else torch.float32]
        utilization = mfu(shapes.flops(size), statistics.median(found[setting]), peak)
        goal = GOALS.get((name, setting)) if has_bf16 or not is_bf16 else None
        record.row(
            f"{name} ({weights / 1e6:.1f} M weights), {setting}",
            *(found[setting], PEER, found["peer"]),
            unit="tokens/s",
            amount=size.batch_size * size.shape.context_length,
            target=("ratio >=", goal) if goal else None,
            note=f"MFU {utilization:.0%}, peer {theirs:.0%}; {peak / 1e9:,.0f} GFLOP/s",
        )


def step_growth(record: Record) -> None:
    """Take a step of 2,048 tokens in sequences that grow longer."""
    lengths = (16, 32) if record.quick else (64, 256, 1024, 2048)
    tokens = lengths[-1]
    base = ModelConfig(4096, 1, d_model=256, n_layers=4, n_heads=4)
    for i, length in enumerate(lengths):
        size = Size(replace(base, context_length=length), tokens // length)
        found = record.take_turns(
            {"us": shapes.trainer(size).step, "them": shapes.peer(size)},
            *(9, 1 / (len(lengths) - i)),
        )
        case = f"{size.batch_size} × {length:,} tokens"
        record.row(
            *(case, found["us"], PEER, found["them"]), unit="tokens/s", amount=tokens
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


def decode_growth(record: Record) -> None:
    """Read a prompt that grows longer, and write 32 tokens after it."""
    lengths = (16, 64) if record.quick else (64, 256, 1024, 4096)
    config = ModelConfig(2048, lengths[-1] + 32, 256, 4, n_heads=4)
    model, theirs = pair(config)
    for i, length in enumerate(lengths):
        prompt = torch.randint(config.vocab_size, (length,)).tolist()
        found = record.take_turns(
            {
                "us": lambda: generate(model, prompt, 32, temperature=0),
                "them": lambda: theirs(prompt, 32),
            },
            *(5, 1 / (len(lengths) - i)),
        )
        case = f"{length:,} tokens before"
        record.row(case, found["us"], "transformers.generate", found["them"])


def cache(record: Record) -> None:
    """Write tokens with our cache, and with the whole text read again for each."""
    cases = (
        ((32, 2, 16),)
        if record.quick
        else (*((128, 4, 64), (128, 4, 256), (128, 4, 512), (512, 8, 128)),)
    )
    for i, (d_model, n_layers, n) in enumerate(cases):
        torch.manual_seed(0)
        config = ModelConfig(2048, n + 16, d_model, n_layers, d_model // 32)
        model = TransformerLM(config).eval()

        def write(
            use_cache: bool, model: TransformerLM = model, n: int = n
        ) -> list[int]:
            return generate(
                model, list(range(16)), n, temperature=0, use_cache=use_cache
            )

        same = write(True) == write(False)
        found = record.take_turns(
            {"with": lambda: write(True), "without": lambda: write(False)},
            *(3, 1 / (len(cases) - i), 0),
        )
        record.row(
            f"d = {d_model}, {n_layers} layers, {n} new tokens",
            *(found["with"], "without cache", found["without"]),
            unit="tokens/s",
            amount=n,
            target=("ratio >=", 10) if n == 512 else None,
            note="the same ids" if same else "some ids differ",
        )


def limits(record: Record) -> None:
    """Do nothing but what cannot be left out: how fast could anybody be?

    Of a training step in float32 that is the products of our matrices and the fused
    attention, forwards and backwards; of writing a token, one product of a row with
    each matrix, in the fastest layout that we know. Everything else is taken as free.
    The ratio to the others' whole work is what no arrangement of the same kernels can
    pass.
    """
    sizes = QUICK if record.quick else SIZES
    for i, (name, size) in enumerate(sizes.items()):
        programs = {"us": shapes.products(size), "them": shapes.peer(size)}
        found = record.take_turns(programs, 9, 0.6 / (len(sizes) - i))
        case = f"{name}, a step's products alone"
        record.row(case, found["us"], f"a step of {PEER}", found["them"])
    n = 4 if record.quick else 64
    for d_model, n_layers in WIDTHS[record.quick]:
        config = ModelConfig(2048, 256, d_model, n_layers, n_heads=d_model // 32)
        _, theirs = pair(config)
        rows = shapes.row_products(config)
        found = record.take_turns(
            {
                "us": lambda rows=rows: [rows() for _ in range(n)],
                "them": lambda theirs=theirs: theirs(list(range(16)), n),
            },
            *(5, 0.5),
        )
        record.row(
            f"d = {d_model}, {n_layers} layers, a token's products alone",
            *(found["us"], "transformers.generate", found["them"]),
            unit="tokens/s",
            amount=n,
            note=f"{4 * param_count(config).total / 1e6:,.0f} MB of weights",
        )


PARTS = {
    "step": Part(step, 90),
    "compiled": Part(compiled, 230),
    "step growth": Part(step_growth, 25),
    "decode": Part(decode, 25),
    "decode growth": Part(decode_growth, 25),
    "cache": Part(cache, 45),
    "limits": Part(limits, 30),
}

if __name__ == "__main__":
    main("model", __doc__, PARTS)
