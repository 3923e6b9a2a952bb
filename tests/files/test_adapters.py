"""Adapters: peft reads ours and we read peft's, with the same logits."""

import json
import shutil

import pytest
import safetensors.torch
import torch

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.files import adapters
from minillm.files.adapters import fingerprint, load_adapter, save_adapter
from minillm.files.opening import is_adapter, open_model
from minillm.hub import load_llama, save_llama
from minillm.inference.templates import ChatTemplate
from minillm.model import TransformerLM
from minillm.training.lora import add_lora, merge_lora
from minillm.training.tuning import MATRICES

# peft asks transformers for something by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")

SHAPE = ModelConfig(270, 32, d_model=48, n_layers=2, n_heads=6, n_kv_heads=2)
IDS = torch.tensor([[7, 3, 9, 200, 1, 1, 42, 5]])
TOKENIZER = BPETokenizer.train(
    ["what is a duck in the pond, my rose"], 270, ["<|endoftext|>"]
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    torch.manual_seed(0)
    model = TransformerLM(SHAPE)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    save_llama(model, folder, TOKENIZER)
    return folder


def tuned(base, where=MATRICES, alpha=8.0):
    model = load_llama(base)
    made_for = fingerprint(model)
    torch.manual_seed(1)
    for weight in add_lora(model, 2, alpha, where):
        torch.nn.init.normal_(weight, std=0.3)
    return model, made_for


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft")


def theirs(folder):
    transformers = pytest.importorskip("transformers")
    return transformers.LlamaForCausalLM.from_pretrained(folder)


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("where", [("q_proj", "v_proj"), ("k_proj",), MATRICES])
@torch.no_grad()
def test_peft_reads_ours(base, tmp_path, peft, where, monkeypatch):
    model, made_for = tuned(base, where)
    save_adapter(model, tmp_path, str(base), made_for)
    plain = theirs(base)(IDS).logits
    found = peft.PeftModel.from_pretrained(theirs(base), tmp_path)(IDS).logits
    assert relative(found, model(IDS)) < 1e-5
    assert relative(found, plain) > 1e-2
    if where != ("q_proj", "v_proj"):
        return
    # The adapter names its model.
    auto = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path)
    assert relative(auto(IDS).logits, model(IDS)) < 1e-5
    # With rows in our order instead, it loads as well and answers otherwise.
    monkeypatch.setattr(adapters, "to_halves", lambda b, n_heads: b)
    save_adapter(model, tmp_path, str(base), made_for)
    wrong = peft.PeftModel.from_pretrained(theirs(base), tmp_path)(IDS).logits
    assert relative(wrong, model(IDS)) > 1e-3


@pytest.mark.parametrize("targets", [["q_proj"], ["k_proj", "down_proj"], "all-linear"])
@torch.no_grad()
def test_we_read_pefts(base, tmp_path, peft, targets):
    config = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules=targets, task_type="CAUSAL_LM"
    )
    made = peft.get_peft_model(theirs(base), config)
    torch.manual_seed(2)
    for name, weight in made.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    made.save_pretrained(tmp_path)
    ours = load_llama(base)
    plain = ours(IDS)
    load_adapter(ours, tmp_path)
    assert relative(ours(IDS), made(IDS).logits) < 1e-5
    assert relative(ours(IDS), plain) > 1e-3
    merge_lora(ours)
    assert relative(ours(IDS), made(IDS).logits) < 1e-5


def test_what_is_written_is_read_to_the_bit(base, tmp_path):
    model, made_for = tuned(base, ("q_proj", "w2"), alpha=5.0)
    save_adapter(model, tmp_path, str(base), made_for)
    again = load_llama(base)
    load_adapter(again, tmp_path)
    ours, other = model.state_dict(), again.state_dict()
    assert ours.keys() == other.keys()
    assert all(torch.equal(ours[name], other[name]) for name in ours)
    assert torch.equal(model(IDS), again(IDS))


@pytest.fixture
def adapter(base, tmp_path):
    model, made_for = tuned(base)
    save_adapter(model, tmp_path / "adapter", str(base), made_for)
    return tmp_path / "adapter"


def test_an_adapter_is_opened_with_its_model(base, adapter, call):
    assert is_adapter(adapter) and not is_adapter(base)
    model, _ = tuned(base)
    opened = open_model(adapter)
    torch.testing.assert_close(opened.model(IDS), model(IDS))
    assert opened.tokenizer.merges == TOKENIZER.merges
    assert opened.chat_template is None
    (adapter / "chat_template.jinja").write_text("{{ 1 }}", encoding="utf-8")
    assert open_model(adapter).chat_template.render([]) == "1"
    code, out, err = call("generate", adapter, "a rose", "--seed", 0, "--device", "cpu")
    assert (code, err) == (0, "")
    # It is not what the model writes without it.
    assert call("generate", base, "a rose", "--seed", 0, "--device", "cpu")[1] != out


def test_a_whole_model_is_made_of_both(adapter, tmp_path):
    model, tokenizer, _ = open_model(adapter)
    template = ChatTemplate("{{ eos_token }}", {"eos_token": "<|endoftext|>"})
    save_llama(model, tmp_path / "whole", tokenizer, chat_template=template)
    again = open_model(tmp_path / "whole")
    assert torch.equal(again.model(IDS), model(IDS))
    assert again.chat_template.render([]) == "<|endoftext|>"


def change(folder, **entries):
    path = folder / "adapter_config.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(known | entries), encoding="utf-8")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only 'LORA' can be read here"),
        ({"use_dora": True}, "use_dora is True; only False"),
        ({"use_rslora": True}, "use_rslora is True"),
        ({"bias": "all"}, "bias is 'all'; only 'none'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is"),
        ({"r": 0}, "r must be an integer from 1 to 65536; got 0"),
        ({"r": 10**20}, "r must be an integer from 1 to 65536; got 1000"),
        ({"r": True}, "r must be an integer from 1 to 65536; got True"),
        ({"lora_alpha": "8"}, "lora_alpha must be positive; got '8'"),
        (
            {"r": 3},
            r"is an adapter for another model: .* is \[2, 48\] there, \[3, 48\]",
        ),
        ({"base_model_name_or_path": None}, "must name the model"),
        ({"base_model_name_or_path": "runs/none"}, "which cannot be opened"),
        ({"base_model_name_or_path": "0" * 5000}, "which cannot be opened"),
        ({"base_model_name_or_path": __file__}, "an adapter for .*py: .* no GGUF"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(adapter, entries, message):
    change(adapter, **entries)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_model(adapter)


def test_another_model_is_refused(base, adapter, tmp_path):
    other = TransformerLM(SHAPE)
    save_llama(other, tmp_path / "other", TOKENIZER)
    for name, message in (
        ("other", "is an adapter for another model of this shape: take the one"),
        ("smaller", "is an adapter for another model: .* differ: .*layers.1"),
        ("adapter", "it is an adapter itself: open that one"),
    ):
        if name == "smaller":
            small = ModelConfig(270, 32, d_model=48, n_layers=1, n_heads=6)
            save_llama(TransformerLM(small), tmp_path / name, TOKENIZER)
            # Of an adapter that does not say it, the shapes still tell.
            path = adapter / "adapter_model.safetensors"
            tensors = safetensors.torch.load_file(path)
            safetensors.torch.save_file(tensors, path, {"format": "pt"})
        change(adapter, base_model_name_or_path=str(tmp_path / name))
        with pytest.raises(ValueError, match=message):
            open_model(adapter)


def test_damaged_and_missing_files(adapter, tmp_path):
    path = adapter / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=r"adapter_model.safetensors is damaged"):
        open_model(adapter)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no adapter_model.safetensors"):
        open_model(adapter)
    path.write_bytes(whole)
    safetensors.torch.save_file({"odd": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"adapter for another model: .* odd is"):
        open_model(adapter)
    shutil.rmtree(adapter)
    with pytest.raises(FileNotFoundError):
        open_model(adapter)


def test_nothing_thin_nothing_written(base, tmp_path):
    with pytest.raises(ValueError, match="has no LoRA layers"):
        save_adapter(load_llama(base), tmp_path, "x", "y")
    assert not list(tmp_path.iterdir())
