"""What do a hundred steps make of SmolLM2? Ask it before and after `minillm tune`.

python -m benchmarks.tuned [FOLDER]

It learns to sort digits, by a thin layer, from chats that a program wrote. Needs `make
fixtures`, the packages gguf, transformers and peft, and some minutes; writes
images/data/tuned.json, and the table of the page beside it. The run is kept in FOLDER.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import torch

from benchmarks.command import ROOT, SMOLLM2
from minillm.files.opening import open_model
from minillm.files.writing import atomic_write
from minillm.generate import generate
from minillm.hub import save_llama
from minillm.inference.chat import encode_chat, turn_ends
from minillm.inference.decoder import Decoder

DATA = ROOT / "images" / "data"
STEPS, SEEDS, CHATS, ASKED = 100, 3, 900, 50
OTHER = "What is the capital of France?"


def question(digits: str) -> str:
    """Six digits, with spaces between them: one token each."""
    return f"Sort these digits: {' '.join(digits)}"


def answer(digits: str) -> str:
    """The same, in order."""
    return " ".join(sorted(digits))


def problems(seed: int) -> list[str]:
    """Different numbers of six digits."""
    return [f"{n:06d}" for n in Random(seed).sample(range(10**6), CHATS + ASKED)]


def ask(source: Path, digits: list[str]) -> dict[str, Any]:
    """The share of right answers, the first one, and what becomes of something else."""
    model, tokenizer, _ = open_model(source)
    decoder, ends = Decoder(model), turn_ends(tokenizer)

    def reply(text: str) -> str:
        ids = encode_chat(tokenizer, [("user", text)])
        settings = {"temperature": 0, "decoder": decoder, "stop_ids": ends}
        return tokenizer.decode([
            i for i in generate(model, ids, 40, **settings) if i not in ends
        ])

    replies = [reply(question(d)) for d in digits]
    right = [r.strip() == answer(d) for r, d in zip(replies, digits, strict=True)]
    return {
        "right": sum(right) / len(right),
        "first": [question(digits[0]), replies[0]],
        "other": [OTHER, reply(OTHER)],
    }


def read_by_peft(run: Path, folder: Path) -> float:
    """How far peft's logits of the run are from ours, at most."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base, tokenizer, template = open_model(SMOLLM2)
    save_llama(base, folder, tokenizer, chat_template=template)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(plain, run).eval()
    ours = open_model(run).model
    ids = torch.tensor([encode_chat(tokenizer, [("user", question("593214"))])])
    with torch.inference_mode():
        return float((theirs(ids).logits - ours(ids)).abs().max())


def tuned(seed: int, run: Path) -> dict[str, Any]:
    """Write the chats, tune, and ask."""
    digits = problems(seed)
    lines = [
        {"messages": [{"role": "user", "content": question(d)},
                      {"role": "assistant", "content": answer(d)}]}
        for d in digits[:CHATS]
    ]  # fmt: skip
    run.parent.mkdir(parents=True, exist_ok=True)
    chats = run.with_suffix(".jsonl")
    chats.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    command = [sys.executable, "-m", "minillm", "tune", SMOLLM2, chats, "--out", run]
    command += ["--steps", STEPS, "--eval-every", STEPS // 4, "--seed", seed]
    subprocess.run([str(part) for part in command], check=True)
    log = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    result = json.loads(log[-1])
    held_out = digits[CHATS:]
    return {
        "seed": seed,
        "loss": [result["baselines"]["before"], result["loss"]],  # before, after
        "before": ask(SMOLLM2, held_out),
        "after": ask(run, held_out),
        "adapter": (run / "adapter_model.safetensors").stat().st_size,
    }


def table(found: list[dict[str, Any]], off: float) -> str:
    """What was asked, and what came."""
    rows = ["| seed | right before | right after |", "| --- | ---: | ---: |"]
    for one in found:
        share = (f"{one[when]['right']:.0%}" for when in ("before", "after"))
        rows.append(f"| {one['seed']} | {' | '.join(share)} |")
    first = found[0]
    rows += [
        "",
        f"SmolLM2-135M, {STEPS} steps of 8 chats, asked {ASKED} questions that were "
        f"in no chat, greedily; the adapter has {first['adapter'] / 1e6:.1f} MB, "
        f"and peft's logits with it differ from ours by {off:.0e} at most. Asked "
        f'"{OTHER}", it says "{first["before"]["other"][1]}" before, and '
        f'"{first["after"]["other"][1]}" after.',
    ]
    return "\n".join(rows) + "\n"


def main() -> None:
    """Tune with each seed, and write down what it says."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(*sys.argv[1:2] or [temporary])
        found = [tuned(seed, folder / f"tuned-{seed}") for seed in range(SEEDS)]
        off = read_by_peft(folder / "tuned-0", folder / "base")
    for name, text in {
        "tuned.json": json.dumps({"runs": found, "peft": off}, indent=1) + "\n",
        "tuned.md": table(found, off),
    }.items():
        with atomic_write(DATA / name) as file:
            file.write(text.encode())


if __name__ == "__main__":
    main()
