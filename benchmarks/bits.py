"""What do fewer bits cost, and what do drafts bring? One table for each.

python -m benchmarks.bits [small] [smollm2]

Writes images/data/bits.json, and the tables of two pages beside it. `small` trains the
model of the demo three times, for a fraction of its steps; `smollm2` needs `make
fixtures` and the package gguf.
"""

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.command import ROOT, SMOLLM2
from minillm.bpe import BPETokenizer
from minillm.config import VOCAB_SIZE
from minillm.data import END_OF_TEXT, andersen, split, tokenize
from minillm.files.writing import atomic_write
from minillm.hub import load_gguf
from minillm.inference.chat import encode_chat
from minillm.inference.decoder import Decoder
from minillm.inference.eight_bit_layers import to_eight_bits
from minillm.inference.eight_bits import Mixed, TwoDigits
from minillm.inference.quantized import Group, bits_per_weight, stored
from minillm.inference.speculative import (
    Draft,
    LookUp,
    Statistics,
    Trigram,
    speculate,
)
from minillm.model import KVCache, TransformerLM
from minillm.runs.demo import SHAPE
from minillm.train import TrainConfig, bits_per_byte, evaluate, train
from minillm.training.baselines import KneserNey

DATA = ROOT / "images" / "data"
STEPS, SEEDS = 400, 3
TOKENS = 4001  # of the held-out tales
SMOLLM2_TOKENS = 8192
SCHEMES: tuple[tuple[int, Group], ...] = (
    *((8, "tensor"), (8, "row"), (4, "tensor"), (4, "row"), (4, 32), (3, 32), (2, 32)),
)
LENGTHS = (2, 4, 8)
NEW = 64  # tokens of each text that is written
REPEAT = (
    "Correct the mistakes in this text and write it again: There was once a emperor "
    "who was so fond of new clothes that he spended all his money on them. He did not "
    "care for his soldiers, and he did not went to the theatre, but to show his new "
    "clothes. He had a coat for every hour of the day."
)


def losses(model: TransformerLM, evaluate_one: Callable[[TransformerLM], float]) -> Any:
    """The loss as it is, and through each scheme."""
    found = {"float32": evaluate_one(model)}
    for bits, group in SCHEMES:
        found[f"{bits} {group}"] = evaluate_one(stored(model, bits, group))
    return found


def drafts(
    model: TransformerLM, prompts: list[list[int]], makers: dict[str, Draft], t: float
) -> Any:
    """Write with and without drafts in turns; seconds of the processor, one thread."""
    decoder, found = Decoder(model), {}

    def alone(prompt: list[int]) -> None:
        cache = KVCache(model.config, batch_size=1)
        decoder.read(prompt, cache)
        for i in range(NEW):
            decoder(int(prompt[i % len(prompt)]), cache)

    for name, draft in makers.items():
        for k in LENGTHS:
            seen, theirs, ours = Statistics(), [], []
            for seed, prompt in enumerate(prompts):
                start = time.process_time()
                alone(prompt)
                middle = time.process_time()
                text = speculate(
                    model,
                    prompt,
                    draft,
                    k=k,
                    temperature=t,
                    seed=seed,
                    statistics=seen,
                    decoder=decoder,
                )
                n = len(list(islice(text, NEW)))
                ours.append((time.process_time() - middle) / n)
                theirs.append((middle - start) / NEW)
            found[f"{name} {k}"] = {
                "accepted": seen.accepted / max(seen.drafted, 1),
                "tokens": 1 + seen.accepted / seen.passes,
                "speed_up": statistics.median(
                    a / b for a, b in zip(theirs, ours, strict=True)
                ),
            }
    return found


def mean(x: Tensor) -> tuple[float, float]:
    """The mean, and its standard error."""
    return x.mean().item(), x.std().item() / len(x) ** 0.5


def small() -> Any:
    """Train three models, and put each through all of it."""
    training, validation = split(andersen())
    tokenizer = BPETokenizer.train(training, VOCAB_SIZE, [END_OF_TEXT])
    tokens, unseen = (tokenize(part, tokenizer) for part in (training, validation))
    unseen = unseen[:TOKENS]
    n_bytes = len(tokenizer.decode_bytes(unseen[1:].tolist()))
    counts = KneserNey(tokens, VOCAB_SIZE)
    prompts = [unseen[i : i + 16].tolist() for i in range(0, 2000, 1000)]
    found = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model = TransformerLM(SHAPE)
        train(model, tokens, TrainConfig(steps=STEPS, seed=seed))
        bits = losses(
            model.eval(),
            lambda m: bits_per_byte(evaluate(m, unseen), len(unseen) - 1, n_bytes),
        )
        model.requires_grad_(False)
        sampled = drafts(model, prompts, {"trigram": Trigram(counts)}, 1.0)
        greedy = drafts(
            model,
            prompts,
            {"trigram": Trigram(counts, greedy=True), "look-up": LookUp(VOCAB_SIZE)},
            0.0,
        )
        found.append({"bits": bits, "sampled": sampled, "greedy": greedy})
        print(seed, found[-1], flush=True)
    return found


def smollm2() -> Any:
    """The same with SmolLM2, as it is in its file."""
    model, tokenizer = load_gguf(SMOLLM2)
    model.requires_grad_(False)
    ids = tokenizer.encode("\n\n".join(split(andersen())[1]))[: SMOLLM2_TOKENS + 1]
    n_bytes = len(tokenizer.decode_bytes(ids[1:]))
    chunks = [ids[i : i + 257] for i in range(0, len(ids) - 1, 256)]

    @torch.inference_mode()
    def nats(m: TransformerLM) -> Tensor:
        each = [
            F.cross_entropy(
                m(torch.tensor([chunk[:-1]]))[0],
                torch.tensor(chunk[1:]),
                reduction="none",
            )
            for chunk in chunks
        ]
        return torch.cat(each)

    def bits_of(m: TransformerLM) -> float:
        return bits_per_byte(nats(m).mean().item(), len(ids) - 1, n_bytes)

    bits = losses(model, bits_of)
    print(bits, flush=True)
    exact = nats(model)
    prompt = encode_chat(tokenizer, [("user", REPEAT)])
    copied = drafts(model, [prompt], {"look-up": LookUp(model.config.vocab_size)}, 0.0)
    eight = {}
    for way in (Mixed(), TwoDigits()):
        more = nats(to_eight_bits(copy.deepcopy(model), way)) - exact
        eight[type(way).__name__] = {"all": mean(more), "first": mean(more[:256])}
    return {"bits": bits, "greedy": copied, "tokens": len(exact), "eight": eight}


def write(found: dict[str, Any]) -> None:
    """Keep what was found, and write the tables."""
    texts = {"bits.json": json.dumps(found, indent=1)}
    if {"small", "smollm2"} <= found.keys():
        texts |= {"bits.md": bits_table(found), "speculative.md": drafts_table(found)}
    for name, text in texts.items():
        with atomic_write(DATA / name) as file:
            file.write((text + "\n").encode())


def _spread(values: Iterable[float], digits: int) -> str:
    values = sorted(values)
    low, high = (f"{v:.{digits}f}" for v in (values[0], values[-1]))
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if low == high else f"{middle} ({low}–{high})"


def bits_table(found: dict[str, Any]) -> str:
    """Bits per byte, for each way to store a model."""
    shape = (SHAPE.d_model, SHAPE.d_model)
    rows = [
        "| Stored as | bits a weight | demo, bits per byte | SmolLM2, bits per byte |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in found["smollm2"]["bits"]:
        bits, _, group = name.partition(" ")
        label, takes = "float32", "32"
        if group:
            who: Group = int(group) if group.isdigit() else group
            takes = f"{bits_per_weight(int(bits), who, shape):.1f}"
            label = f"{bits} bits, a scale for "
            label += f"{group} weights" if group.isdigit() else f"a {group}"
        small = _spread((one["bits"][name] for one in found["small"]), 3)
        rows.append(
            f"| {label} | {takes} | {small} | {found['smollm2']['bits'][name]:.3f} |"
        )
    ways = " and ".join(
        f"{one['all'][0]:.4f} ± {one['all'][1]:.4f} (`{name}`)"
        for name, one in found["smollm2"]["eight"].items()
    )
    rows += [
        "",
        f"The demo's model after {STEPS} steps, {SEEDS} seeds (median, and the range), "
        f"on {TOKENS - 1:,} tokens of the held-out tales; SmolLM2-135M as unpacked "
        f"from its file of five bits a weight, on {found['smollm2']['tokens']:,} of "
        "its tokens. Multiplied as the decoder does, in eight bits by row, it loses "
        f"{ways} nats per token (with the standard error of the mean).",
    ]
    return "\n".join(rows)


def drafts_table(found: dict[str, Any]) -> str:
    """What became of drafts, and what they brought."""
    rows = [
        "| Model, draft | k | accepted | tokens a pass | times as fast |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]

    def add(label: str, cases: list[dict[str, Any]]) -> None:
        for name in cases[0]:
            draft, _, k = name.rpartition(" ")
            share = _spread((100 * one[name]["accepted"] for one in cases), 0)
            tokens = _spread((one[name]["tokens"] for one in cases), 2)
            ratio = _spread((one[name]["speed_up"] for one in cases), 2)
            rows.append(f"| {label}, {draft} | {k} | {share} % | {tokens} | {ratio} |")

    add("demo, sampled", [one["sampled"] for one in found["small"]])
    add("demo, greedy", [one["greedy"] for one in found["small"]])
    add("SmolLM2 corrects a text, greedy", [found["smollm2"]["greedy"]])
    rows += [
        "",
        f"{NEW} tokens a text; the demo's model after {STEPS} steps, {SEEDS} seeds "
        "(median, and the range). Seconds of the processor, in one thread, in turns "
        "with the decoder alone, which is not charged for choosing its tokens.",
    ]
    return "\n".join(rows)


def main() -> None:
    """Do the parts that are named, or both."""
    torch.set_num_threads(1)
    path = DATA / "bits.json"
    for name in sys.argv[1:] or ("small", "smollm2"):
        new = {"small": small, "smollm2": smollm2}[name]()
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write(kept | {name: new})


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
