"""Long and large: what must not grow, does not.

`python tests/test_large.py 1024` encodes a text of so many megabytes and prints the
time and the highest memory of the process; the test does the same with 64.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from memory import PEAK

STEPS = """
import numpy as np, torch
from minillm.config import ModelConfig
from minillm.model import TransformerLM
from minillm.train import TrainConfig, Trainer
torch.set_num_threads(1)
text = np.arange(20_000) ** 2 % 61
config = TrainConfig(steps=10_000, batch_size=2, eval_every=500, eval_tokens=100)
trainer = Trainer(TransformerLM(ModelConfig(61, 8, 8, 1, 2)), text, config)
peaks = {}
for progress in trainer.run(text[:200]):
    if progress.step in (2_000, 10_000):
        peaks[progress.step] = peak()
print(json.dumps({"early": peaks[2_000], "late": peaks[10_000]}))
"""

ENCODE = """
from minillm.bpe import BPETokenizer
from minillm.data import andersen
tales = andersen()
tokenizer = BPETokenizer.train(tales[:20], 1000)
path, out, lazily, megabytes = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
prose = "".join(tales).encode()[:2**20].decode(errors="ignore")
with path.open("w", encoding="utf-8") as file:
    # Prose, and words that have not been there before: nothing can be remembered.
    for number in range(int(megabytes)):
        file.write(prose[: 2**19] + "\\n")
        file.writelines(f"a{number}b{i * i}c {i:x}d{number}\\n" for i in range(2**15))
start = time.perf_counter()
if lazily == "lazily":
    with path.open(encoding="utf-8") as file:
        n = sum(1 for _ in tokenizer.encode_iterable(file))
else:
    n = tokenizer.encode_file(path, out)
seconds = time.perf_counter() - start
print(json.dumps({"bytes": path.stat().st_size, "tokens": n,
                  "peak": peak(), "seconds": seconds}))
"""

CONTEXT = """
import torch
from minillm.config import ModelConfig
from minillm.generate import generate
from minillm.model import TransformerLM
torch.set_num_threads(1)
torch.manual_seed(0)
before = peak()
model = TransformerLM(ModelConfig(300, 32_768, 16, 1, 2)).eval()
ids = torch.randint(300, (32_700,)).tolist()
new = generate(model, ids, 60, temperature=0)
with torch.inference_mode():
    first = model(torch.tensor([ids]))[0, -1].argmax().item()
    last = model(torch.tensor([[*ids, *new[:-1]]]))[0, -1].argmax().item()
over = generate(model, [*ids, *new], 20, temperature=0)
print(json.dumps({"new": len(new), "right": [first, last] == [new[0], new[-1]],
                  "over": len(over), "used": peak() - before}))
"""

VOCABULARY = """
import itertools, numpy as np, torch
from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.generate import generate
from minillm.training.loss import cross_entropy_fast
from minillm.model import TransformerLM
from minillm.training.optimizer import AdamW
torch.set_num_threads(1)
single = [bytes([byte]) for byte in range(256)]
pairs = list(itertools.product(single, single))
# Every pair of bytes, and then pairs with one more, up to 200,000 with a special token.
threes = ((left + right, third) for (left, right), third in zip(
    itertools.cycle(pairs), itertools.chain.from_iterable([b] * 2**16 for b in single)))
merges = pairs + list(itertools.islice(threes, 200_000 - 256 - 2**16 - 1))
tokens = [*single, *(left + right for left, right in merges), b"<|end|>"]
tokenizer = BPETokenizer(dict(enumerate(tokens)), merges, ["<|end|>"])
folder = Path(sys.argv[1])
tokenizer.save(folder / "tokenizer.json")
again = BPETokenizer.load(folder / "tokenizer.json")
text = "the cat sat on the mat, naïvely 🦁 <|end|>"
ids = again.encode(text, allowed_special="all")
path = folder / "text.txt"
path.write_text(text, encoding="utf-8")
again.encode_file(path, folder / "ids.npy", allowed_special="all")
stored = np.load(folder / "ids.npy")
model = TransformerLM(ModelConfig(200_000, 16, 8, 1, 2))
batch = torch.tensor([ids[:15]])
before = cross_entropy_fast(model(batch)[:, :-1], batch[:, 1:])
before.backward()
AdamW(model.parameters(), lr=1e-3).step()
after = cross_entropy_fast(model(batch)[:, :-1], batch[:, 1:])
new = generate(model, ids[:3], 4, seed=0, top_k=50, top_p=0.9)
print(json.dumps({"size": again.vocab_size, "back": again.decode(ids) == text,
                  "last": ids[-1], "stored": stored.tolist() == ids,
                  "type": str(stored.dtype), "loss": before.item(),
                  "learns": after.item() < before.item(), "new": len(new)}))
"""


def measure(program: str, *arguments: object) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", PEAK + program, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.check
def test_ten_thousand_steps_do_not_grow():
    peaks = measure(STEPS)
    assert peaks["late"] < peaks["early"] + 2, peaks


@pytest.mark.check
@pytest.mark.parametrize("how", ["whole", "lazily"])
def test_a_text_of_any_size_is_encoded_in_constant_memory(how, tmp_path):
    """What has been seen is forgotten when it is too much: here after 16 megabytes.

    So from there on, the memory is the same; 32 megabytes are the tolerance, of 50
    that the text has grown by.
    """
    few, many = (6, 24) if how == "lazily" else (24, 64)
    small, large = (
        measure(ENCODE, tmp_path / "text", tmp_path / "ids.npy", how, megabytes)
        for megabytes in (few, many)
    )
    assert large["bytes"] > many * 900_000
    assert large["tokens"] > 0.9 * many / few * small["tokens"]
    assert large["peak"] < small["peak"] + 32, (small, large)


@pytest.mark.check
def test_a_context_of_32k():
    """The scores of one head alone would be four gigabytes."""
    seen = measure(CONTEXT)
    assert seen.pop("used") < 400
    assert seen == {"new": 60, "right": True, "over": 20}


@pytest.mark.check
def test_a_vocabulary_of_200k(tmp_path):
    seen = measure(VOCABULARY, tmp_path)
    assert seen.pop("loss") == pytest.approx(12.2, abs=0.1)  # ln 200,000
    assert seen == {
        "size": 200_000,
        "back": True,
        "last": 199_999,
        "stored": True,
        "type": "uint32",
        "learns": True,
        "new": 4,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder, "text"), Path(folder, "ids.npy")
        print(measure(ENCODE, *where, "whole", sys.argv[1]))
