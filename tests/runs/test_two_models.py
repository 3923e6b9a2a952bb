"""The page with the two models: its table is what the models give."""

import re

import pytest
import torch
from fixtures import fixture

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.files.opening import Opened, open_model
from minillm.files.reading import IMAGES
from minillm.flops import param_count
from minillm.hub import save_llama
from minillm.model import TransformerLM
from minillm.runs.demo import SHAPE
from minillm.runs.two_models import compare_models, measure, unseen_tale

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def table():
    """The committed table: for each row, the two cells."""
    text = (IMAGES / "data" / "two_models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    return {name.strip("*"): (a.strip("*"), b.strip("*")) for name, a, b in rows[2:]}


def small_model(vocab_size=None):
    torch.manual_seed(0)
    tokenizer = BPETokenizer.train([unseen_tale()], 300, ["<|endoftext|>"])
    config = ModelConfig(vocab_size or tokenizer.vocab_size, 32, 16, 1, 2)
    return Opened(TransformerLM(config).eval(), tokenizer, None)


@torch.no_grad()
def test_bits_per_byte_by_hand():
    opened = small_model()
    tale = "the duck said: quack"
    ids = [299, *opened.tokenizer.encode(tale)]
    logits = opened.model(torch.tensor([ids]))[0, :-1].double()
    found = logits.softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])
    assert measure(opened, tale) == pytest.approx(
        -found.log2().sum().item() / len(tale), rel=1e-5
    )


def test_the_table_is_made_of_its_models(tmp_path):
    for name in ("a", "b"):
        opened = small_model()
        save_llama(opened.model, tmp_path / name, opened.tokenizer)
    text = compare_models([tmp_path / "a", tmp_path / "b"], ["A", "B"])
    lines = text.splitlines()
    assert lines[0] == "|  | A | B |"
    n = sum(weight.numel() for weight in opened.model.parameters())
    assert lines[2] == f"| weights | {n:,} | {n:,} |"
    bits = f"**{measure(open_model(tmp_path / 'a'), unseen_tale()):.2f}**"
    assert lines[7] == f"| **bits per byte of the tale** | {bits} | {bits} |"
    samples = re.findall(r"^> Once upon a time.* …$", text, re.MULTILINE)
    assert len(samples) == 2 and samples[0] == samples[1] and len(samples[0]) > 40


def test_what_the_page_says(table):
    assert table["weights"][0] == f"{param_count(SHAPE).total:,}"
    assert table["weights"][1] == "134,515,008"
    demo, smollm2 = map(float, table["bits per byte of the tale"])
    # The larger model is better by far, and neither is better than is possible.
    assert 0.5 < smollm2 < 1.3 < demo < 2.5


@pytest.mark.check
def test_the_large_model_gives_its_column(table):
    opened = open_model(fixture(SMOLLM2))
    tale = unseen_tale()
    bits = float(table["bits per byte of the tale"][1])
    assert measure(opened, tale) == pytest.approx(bits, abs=0.006)
    ratio = len(tale.encode()) / len(opened.tokenizer.encode(tale))
    assert f"{ratio:.2f}" == table["bytes a token, in the tale"][1]
