"""Are our likelihoods of choices those of lm-evaluation-harness?

python -m benchmarks.harness

Needs `pip install lm_eval`. Writes images/data/harness.md: the same model and the same
questions, scored by both, with the versions.
"""

import importlib
import tempfile
import warnings
from importlib.metadata import version

import torch

from benchmarks.command import ROOT
from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.evaluation import choice_log_likelihoods
from minillm.files.writing import atomic_write
from minillm.hub import save_llama
from minillm.model import TransformerLM

TEXT = "the cat sat on the mat and the rat ate the hat of the bat " * 50
END = "<|endoftext|>"
# Shorter and longer choices, one of them in words that the tokenizer has never seen.
QUESTIONS = {
    "the cat sat": (" on the mat", " on", " zebra é"),
    "the rat ate the": (" hat", " bat of the cat"),
    "once upon a": (" time", " mat"),
}


def main() -> None:
    """Score every choice twice, and write both down."""
    # It is installed for this one comparison only, by hand.
    instance = importlib.import_module("lm_eval.api.instance")
    huggingface = importlib.import_module("lm_eval.models.huggingface")

    tokenizer = BPETokenizer.train([TEXT], 330, [END])
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(330, 64, 32, 2, 2)).eval()
    with torch.no_grad():  # far from giving every token the same probability
        for weight in model.parameters():
            weight.normal_(std=1.5 / weight.shape[-1] ** 0.5)
    pairs = [(p, c) for p, choices in QUESTIONS.items() for c in choices]
    with tempfile.TemporaryDirectory() as folder:
        save_llama(model, folder, tokenizer)
        peer = huggingface.HFLM(
            pretrained=folder,
            device="cpu",
            dtype="float32",
            batch_size=1,
            prefix_token_id=tokenizer.special_tokens[END],
        )
        asked = [
            instance.Instance("loglikelihood", {}, pair, i)
            for i, pair in enumerate(pairs)
        ]
        theirs = [found[0] for found in peer.loglikelihood(asked)]
    ours = [
        float(x)
        for prompt, choices in QUESTIONS.items()
        for x in choice_log_likelihoods(model, tokenizer, prompt, choices)
    ]
    worst = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    names = ("lm_eval", "transformers", "torch")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    rows = ["| Prompt | Choice | ours | theirs |", "| --- | --- | ---: | ---: |"]
    rows += [
        f"| `{prompt}` | `{choice}` | {a:.4f} | {b:.4f} |"
        for (prompt, choice), a, b in zip(pairs, ours, theirs, strict=True)
    ]
    rows += ["", f"Greatest difference {worst:.0e} nats, in float32; {versions}."]
    with atomic_write(ROOT / "images" / "data" / "harness.md") as file:
        file.write(("\n".join(rows) + "\n").encode())
    print("\n".join(rows))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
