"""Llama folders: there and back, and against Hugging Face's own reading of them."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import load
from minillm.bpe import BPETokenizer
from minillm.config import LinearScaling, ModelConfig, RopeScaling
from minillm.files import folders
from minillm.generate import generate
from minillm.hub import load_llama, save_llama, to_halves, to_pairs
from minillm.model import TransformerLM

# No number is a default of ours or of theirs, or equal to another.
SHAPE = {
    "vocab_size": 97,
    "context_length": 200,
    "d_model": 48,
    "n_layers": 3,
    "n_heads": 6,
    "d_ff": 80,
    "norm_eps": 1e-3,
}
CONFIGS = {
    "mha": ModelConfig(**SHAPE, rope_theta=700.0),
    "gqa": ModelConfig(**SHAPE, n_kv_heads=2, rope_theta=500000.0),
    "gqa-tied": ModelConfig(**SHAPE, n_kv_heads=3, tie_embeddings=True),
    "mqa-tied": ModelConfig(
        **SHAPE, n_kv_heads=1, rope_theta=100000.0, tie_embeddings=True
    ),
    # Of the four pairs, one is fast, two are between, and one is slow.
    "llama3": ModelConfig(
        **SHAPE,
        n_kv_heads=2,
        rope_theta=60.0,
        rope_scaling=RopeScaling(6.0, 1.5, 7.0, 90),
    ),
    "linear": ModelConfig(**SHAPE, n_kv_heads=2, rope_scaling=LinearScaling(3.0)),
}
THEIR_OPTIONS = {"local_files_only": True}
shapes = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@pytest.fixture(scope="module")
def transformers():
    module = pytest.importorskip("transformers", reason="the peer of this chapter")
    module.utils.logging.disable_progress_bar()
    return module


@torch.no_grad()
def make_loud(model):
    """Give a model weights of which every one matters: fresh ones hide errors."""
    random = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.ndim == 1:
            weight.uniform_(0.5, 1.5, generator=random)
        else:
            weight.normal_(std=1.5 / math.sqrt(weight.shape[1]), generator=random)
    return model.eval()


def loud(config):
    return make_loud(TransformerLM(config))


def some_ids(config, length=200):
    random = torch.Generator().manual_seed(1)
    return torch.randint(config.vocab_size, (2, length), generator=random)


def relative(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture
def folder(tmp_path):
    """A folder of ours that can be damaged."""
    save_llama(loud(CONFIGS["gqa"]), tmp_path)
    return tmp_path


def rewrite(folder, **changes):
    """Change entries of `config.json`; None takes one out."""
    path = folder / "config.json"
    entries = json.loads(path.read_text(encoding="utf-8")) | changes
    entries = {key: value for key, value in entries.items() if value is not None}
    path.write_text(json.dumps(entries), encoding="utf-8")


def rewrite_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


# The permutation


@given(st.integers(1, 5), st.integers(1, 6))
@settings(deadline=None)
def test_pairs_and_halves_are_inverse(n_heads, half):
    rows = torch.arange(n_heads * 2 * half * 3.0).view(-1, 3)
    halves = to_halves(rows, n_heads)
    assert torch.equal(to_pairs(halves, n_heads), rows)
    for h in range(n_heads):
        ours = rows[h * 2 * half : (h + 1) * 2 * half]
        theirs = halves[h * 2 * half : (h + 1) * 2 * half]
        assert torch.equal(theirs, torch.cat([ours[0::2], ours[1::2]]))


# There and back


@shapes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_model_comes_back_as_it_was(config, dtype, tmp_path):
    lm = loud(config).to(dtype)
    save_llama(lm, tmp_path / "new" / "run")
    copy = load_llama(str(tmp_path / "new" / "run"))
    assert copy.config == config
    assert not copy.training
    expected, found = lm.state_dict(), copy.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(tensor.dtype == dtype for tensor in found.values())
    tied = copy.lm_head.weight is copy.token_embedding.weight
    assert tied == config.tie_embeddings


def test_saving_leaves_four_files_and_what_was_there(tmp_path):
    config = ModelConfig(300, 16, 8, 1, 1, d_ff=8)
    tokenizer = BPETokenizer.train(["a rose is a rose"], 262, ["<|endoftext|>"])
    (tmp_path / "log.jsonl").write_text("{}", encoding="utf-8")
    for _ in range(2):
        lm = TransformerLM(config)
        before = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
        save_llama(lm, tmp_path, tokenizer)
        assert all(torch.equal(before[n], t) for n, t in lm.state_dict().items())
    names = {"config.json", "model.safetensors", "tokenizer.json", "log.jsonl"}
    names.add("tokenizer_config.json")
    assert {path.name for path in tmp_path.iterdir()} == names
    model, again = load(tmp_path)
    assert torch.equal(model(some_ids(config, 9)), lm(some_ids(config, 9)))
    assert again.encode("a rose, déjà vu") == tokenizer.encode("a rose, déjà vu")


def test_nothing_here_needs_transformers():
    code = "import sys, minillm.hub; print('transformers' in sys.modules)"
    run = [sys.executable, "-c", code]
    assert subprocess.check_output(run, encoding="utf-8") == "False\n"


# Against Hugging Face


def their_rope(config):
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    scaling = config.rope_scaling
    if isinstance(scaling, LinearScaling):
        return rope | {"rope_type": "linear", "factor": scaling.factor}
    return rope | (
        {}
        if scaling is None
        else {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context_length,
        }
    )


def theirs_from(transformers, config, **extra):
    return make_loud(
        transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=config.vocab_size,
                max_position_embeddings=config.context_length,
                hidden_size=config.d_model,
                num_hidden_layers=config.n_layers,
                num_attention_heads=config.n_heads,
                num_key_value_heads=config.n_kv_heads,
                intermediate_size=config.d_ff,
                rms_norm_eps=config.norm_eps,
                tie_word_embeddings=config.tie_embeddings,
                rope_parameters=their_rope(config),
                **extra,
            )
        )
    )


class ExactAngles(torch.nn.Module):
    """Their rotation, with angles in float64."""

    def __init__(self, config):
        super().__init__()
        self.config = config

    def speeds(self):
        j = torch.arange(self.config.d_head // 2, dtype=torch.float64)
        speeds = self.config.rope_theta ** (-2 * j / self.config.d_head)
        s = self.config.rope_scaling
        if s is None:
            return speeds
        if isinstance(s, LinearScaling):
            return speeds / s.factor
        # As in Llama 3.1's own `apply_scaling`, by wavelengths.
        length = 2 * math.pi / speeds
        longest = s.original_context_length / s.low_freq_factor
        shortest = s.original_context_length / s.high_freq_factor
        smooth = s.original_context_length / length - s.low_freq_factor
        smooth /= s.high_freq_factor - s.low_freq_factor
        between = (1 - smooth) * speeds / s.factor + smooth * speeds
        slow = torch.where(length > longest, speeds / s.factor, between)
        return torch.where(length < shortest, speeds, slow)

    def forward(self, x, position_ids):
        angles = (position_ids[..., None].double() * self.speeds()).tile(2)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def exact(theirs, config):
    """Their model in float64, also where it would compute in float32 nevertheless."""
    theirs.double()
    theirs.model.rotary_emb = ExactAngles(config)
    for name, norm in list(theirs.named_modules()):
        if type(norm).__name__ == "LlamaRMSNorm":
            better = torch.nn.RMSNorm(config.d_model, config.norm_eps)
            better.weight = norm.weight
            theirs.set_submodule(name, better)
    return theirs


@torch.no_grad()
def assert_same(ours, theirs, length=200):
    """Equal as far as float32 goes, and in float64 but for its rounding.

    Their model in float64 keeps angles of 32 bits: some 1e-7 of an angle, which at
    position 1000 is 1e-4 of a turn. So what they compute is compared with what they
    would compute, were the angles exact; that is their error in float32.
    """
    ids = some_ids(ours.config, length)
    found, expected = ours(ids), theirs(ids).logits
    assert found.dtype == expected.dtype == torch.float32
    truth = exact(theirs, ours.config)(ids).logits
    their_error, our_error = relative(expected, truth), relative(found, truth)
    assert relative(found, expected) <= max(1e-5, 2 * their_error)
    assert our_error <= max(1e-5, their_error)
    assert relative(ours.double()(ids), truth) <= 1e-12


@shapes
def test_we_read_what_they_write(transformers, config, tmp_path):
    theirs = theirs_from(transformers, config)
    theirs.save_pretrained(tmp_path)
    ours = load_llama(tmp_path)
    assert ours.config == config
    assert_same(ours, theirs)


@shapes
def test_they_read_what_we_write(transformers, config, tmp_path):
    ours = loud(config)
    save_llama(ours, tmp_path)
    theirs, report = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path, local_files_only=True, output_loading_info=True
    )
    assert not any(report.values())
    assert_same(ours, theirs.eval())


def test_the_comparison_sees_a_wrong_permutation(transformers, tmp_path, monkeypatch):
    theirs = theirs_from(transformers, CONFIGS["gqa"])
    theirs.save_pretrained(tmp_path)
    monkeypatch.setattr(folders, "to_pairs", lambda weight, n_heads: weight)
    ids = some_ids(CONFIGS["gqa"])
    with torch.no_grad():
        found, expected = load_llama(tmp_path)(ids), theirs(ids).logits
    # The first token is right, as the chapter says, and the rest is garbage.
    assert relative(found[:, 0], expected[:, 0]) < 1e-5
    assert relative(found[:, 1:], expected[:, 1:]) > 0.1


@pytest.mark.parametrize("theta", [700.0, 10000.0, 500000.0])
def test_far_positions_are_the_same(transformers, tmp_path, theta):
    scaling = RopeScaling(8.0, 1.0, 4.0, 300) if theta > 1e5 else None
    config = ModelConfig(97, 2000, 32, 2, 4, 2, 96, theta, rope_scaling=scaling)
    theirs = theirs_from(transformers, config)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_llama(tmp_path / "theirs")
    assert ours.config == config
    assert_same(ours, theirs, 2000)
    save_llama(loud(config), tmp_path / "ours")
    again = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "ours", local_files_only=True
    )
    assert_same(loud(config), again.eval(), 2000)


def test_stretched_positions_are_others(tmp_path):
    """What the comparison would not see if the scaling were ignored by both."""
    config = CONFIGS["llama3"]
    ids = some_ids(config)
    with torch.no_grad():
        stretched = loud(config)(ids)
        plain = loud(replace(config, rope_scaling=None))(ids)
    assert relative(stretched[:, :1], plain[:, :1]) < 1e-5
    assert relative(stretched, plain) > 0.1


def test_a_model_in_bfloat16_stays_one(transformers, tmp_path):
    theirs = theirs_from(transformers, CONFIGS["gqa"]).bfloat16()
    theirs.save_pretrained(tmp_path)
    ours = load_llama(tmp_path)
    ids = some_ids(CONFIGS["gqa"], 20)
    with torch.no_grad():
        found, expected = ours(ids), theirs(ids).logits
    assert found.dtype == expected.dtype == torch.bfloat16
    assert relative(found.double(), expected.double()) < 0.1
    save_llama(ours, tmp_path / "ours")
    again = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "ours", local_files_only=True
    )
    assert again.dtype == torch.bfloat16


def test_greedy_text_is_theirs_token_by_token(transformers, tmp_path):
    text = "A rose is a rose is a rose, said the little mermaid."
    tokenizer = BPETokenizer.train([text], 270, ["<|endoftext|>"])
    end = tokenizer.special_tokens["<|endoftext|>"]
    config = ModelConfig(tokenizer.vocab_size, 60, 48, 2, 6, 3, 64)
    ours = loud(config)
    save_llama(ours, tmp_path, tokenizer)
    options = {"local_files_only": True}
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, **options)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path, **options)
    assert theirs.generation_config.eos_token_id == end
    for prompt in ("A rose", "mermaid's  42", "été\n\n the"):
        inputs = their_tokenizer(prompt, return_tensors="pt")
        ids = tokenizer.encode(prompt)
        assert inputs["input_ids"].tolist() == [ids]
        found = generate(ours, ids, 40, temperature=0, stop_ids=[end])
        expected = theirs.generate(**inputs, do_sample=False, max_new_tokens=40)
        expected = expected[0, len(ids) :].tolist()
        assert found == (expected[:-1] if end in expected else expected)
        assert len(set(found)) > 5


# Spellings


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 700.5},
        {"rope_theta": 700.5, "rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 700.5}},
        {"rope_parameters": {"rope_theta": 700.5}},
        {"rope_parameters": {"rope_theta": 700.5}, "rope_theta": 800.0},
        {"rope_scaling": {"type": "default"}, "rope_theta": 700.5, "head_dim": 8},
    ],
    ids=str,
)
def test_both_spellings_of_the_base_are_read(folder, changes):
    rewrite(folder, rope_theta=None)
    rewrite(folder, **changes)
    assert load_llama(folder).config == replace(CONFIGS["gqa"], rope_theta=700.5)


def test_what_may_be_left_out_of_a_config(tmp_path):
    config = ModelConfig(**SHAPE)
    save_llama(TransformerLM(config), tmp_path)
    optional = (
        "architectures num_key_value_heads head_dim rope_theta tie_word_embeddings "
        "hidden_act attention_bias mlp_bias bos_token_id eos_token_id torch_dtype"
    )
    rewrite(tmp_path, **dict.fromkeys(optional.split()))
    assert load_llama(tmp_path).config == config


def test_a_tied_head_may_be_stored_twice(tmp_path):
    lm = loud(CONFIGS["gqa-tied"])
    save_llama(lm, tmp_path)

    def twice(tensors):
        assert "lm_head.weight" not in tensors
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    rewrite_weights(tmp_path, twice)
    ids = some_ids(lm.config)
    assert torch.equal(load_llama(tmp_path)(ids), lm(ids))


def test_a_stretched_rotation_is_read_in_both_spellings(folder):
    scaling = CONFIGS["llama3"].rope_scaling
    wanted = replace(CONFIGS["gqa"], rope_theta=700.5, rope_scaling=scaling)
    rope = their_rope(wanted)
    rewrite(folder, rope_theta=None, rope_parameters=rope)
    assert load_llama(folder).config == wanted
    del rope["rope_theta"]
    rewrite(folder, rope_theta=700.5, rope_parameters=None, rope_scaling=rope)
    assert load_llama(folder).config == wanted
    rope["type"] = rope.pop("rope_type")
    rope["factor"] = int(rope["factor"])
    rewrite(folder, rope_scaling=rope)
    assert load_llama(folder).config == wanted


# What others load, and so do we


def same_as_theirs(transformers, folder, **options):
    """Load a folder with both programs, and compare; our model and their report."""
    theirs, report = transformers.LlamaForCausalLM.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, **options
    )
    ours = load_llama(folder)
    ids = some_ids(ours.config, 50)
    with torch.no_grad():
        assert relative(ours(ids), theirs.eval()(ids).logits) < 1e-5
    return ours, report


def test_another_head_in_a_tied_folder_is_kept(transformers, tmp_path):
    lm = loud(CONFIGS["gqa-tied"])
    save_llama(lm, tmp_path)
    head = loud(CONFIGS["gqa"]).lm_head.weight.detach()
    rewrite_weights(tmp_path, lambda tensors: tensors.update({"lm_head.weight": head}))
    with pytest.warns(UserWarning, match="are tied, but the weights have another head"):
        ours, _ = same_as_theirs(transformers, tmp_path)
    assert not ours.config.tie_embeddings
    assert torch.equal(ours.lm_head.weight, head)
    assert torch.equal(ours.token_embedding.weight, lm.token_embedding.weight)


def test_a_tied_folder_may_hold_the_head_alone(transformers, tmp_path):
    lm = loud(CONFIGS["gqa-tied"])
    save_llama(lm, tmp_path)

    def rename(tensors):
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")

    rewrite_weights(tmp_path, rename)
    ours, _ = same_as_theirs(transformers, tmp_path)
    assert ours.lm_head.weight is ours.token_embedding.weight
    assert torch.equal(ours.token_embedding.weight, lm.token_embedding.weight)


def test_a_model_saved_without_its_head_is_read(transformers, tmp_path):
    theirs = theirs_from(transformers, CONFIGS["gqa-tied"])
    theirs.model.save_pretrained(tmp_path)
    names = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert "embed_tokens.weight" in names
    ours, _ = same_as_theirs(transformers, tmp_path)
    with torch.no_grad():
        ids = some_ids(ours.config, 20)
        assert relative(ours(ids), theirs(ids).logits) < 1e-5


def test_speeds_that_follow_from_the_config_are_passed_over(transformers, folder):
    old = {
        f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4)
        for i in range(3)
    }
    rewrite_weights(folder, lambda tensors: tensors.update(old))
    same_as_theirs(transformers, folder)


def test_what_old_configs_leave_out_has_their_defaults(transformers, tmp_path):
    config = ModelConfig(97, 2048, 48, 2, 6, norm_eps=1e-6)
    save_llama(loud(config), tmp_path)
    rewrite(tmp_path, rms_norm_eps=None, max_position_embeddings=None)
    rewrite(tmp_path, hidden_act="swish")
    ours, _ = same_as_theirs(transformers, tmp_path)
    assert ours.config == config


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_weights_of_eight_bits_are_read_as_float32(tmp_path, name):
    lm = loud(CONFIGS["gqa"])
    save_llama(lm, tmp_path)
    narrow = getattr(torch, name)

    def shorten(tensors):
        for key, tensor in tensors.items():
            tensors[key] = tensor.to(narrow)

    rewrite_weights(tmp_path, shorten)
    expected = [weight.to(narrow).float() for weight in lm.parameters()]
    ours = load_llama(tmp_path)
    found = dict(ours.named_parameters())
    assert {weight.dtype for weight in found.values()} == {torch.float32}
    norm = found["final_norm.weight"]
    assert torch.equal(norm, lm.final_norm.weight.to(narrow).float())
    assert sum(w.numel() for w in found.values()) == sum(w.numel() for w in expected)
    assert ours(some_ids(ours.config, 9)).isfinite().all()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "bool", "complex64"])
@pytest.mark.parametrize("where", ["q_proj", "norm", "embed_tokens", "inv_freq"])
def test_numbers_that_are_no_weights_are_refused_by_name(folder, dtype, where):
    def change(tensors):
        tensors["inv_freq"] = torch.ones(2)
        key = next(key for key in tensors if where in key)
        tensors[key] = tensors[key].to(getattr(torch, dtype))

    rewrite_weights(folder, change)
    with pytest.raises(ValueError, match=f"{where}.*holds numbers of type {dtype}; on"):
        load_llama(folder)


def test_no_weight_is_shortened_to_the_type_of_another(folder):
    def change(tensors):
        for key in tensors:
            if "embed_tokens" in key:
                tensors[key] = tensors[key].half()
        tensors["model.norm.weight"] *= 1e5  # more than a float16 holds

    rewrite_weights(folder, change)
    ours = load_llama(folder)
    assert {weight.dtype for weight in ours.parameters()} == {torch.float32}
    assert ours.final_norm.weight.isfinite().all()


def test_transformers_decodes_as_we_do(transformers, tmp_path):
    text = 'f( x ) , do n\'t !  "a" .'
    tokenizer = BPETokenizer.train([text], 270, ["<|endoftext|>", "<|end|>"])
    tokenizer.stop_ids = [tokenizer.special_tokens["<|end|>"]]
    lm = TransformerLM(ModelConfig(tokenizer.vocab_size, 16, 8, 1, 2))
    template = "{{ messages[0].content }}"
    save_llama(lm, tmp_path, tokenizer, chat_template=template)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert type(theirs).__name__ in {"PreTrainedTokenizerFast", "TokenizersBackend"}
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.decode(tokenizer.encode(text)) == text
    assert (theirs.bos_token, theirs.eos_token) == ("<|endoftext|>", "<|end|>")
    assert (theirs.model_max_length, theirs.chat_template) == (16, template)
    assert load(tmp_path)[1].stop_ids == tokenizer.stop_ids


# Shards


@pytest.fixture
def shards(transformers, tmp_path):
    """A folder of theirs in several files, and the model in it."""
    theirs = theirs_from(transformers, CONFIGS["gqa"])
    theirs.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) >= 3
    return tmp_path, theirs


INDEX = "model.safetensors.index.json"


def rewrite_index(folder, change):
    path = folder / INDEX
    entries = json.loads(path.read_text(encoding="utf-8"))
    change(entries["weight_map"])
    path.write_text(json.dumps(entries), encoding="utf-8")


def test_shards_are_read(shards):
    folder, theirs = shards
    assert not (folder / "model.safetensors").exists()
    assert_same(load_llama(folder), theirs)


def test_a_whole_file_goes_before_shards(shards):
    folder, _ = shards
    other = loud(CONFIGS["gqa"])
    with torch.no_grad():
        other.final_norm.weight.fill_(3.0)
    save_llama(other, folder)
    assert torch.equal(load_llama(folder).final_norm.weight, other.final_norm.weight)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "/etc/secret.safetensors",
        "sub/secret.safetensors",
        "..\\secret.safetensors",
        "C:secret.safetensors",
        "pytorch_model.bin",
        "..",
        "",
        7,
        None,
    ],
)
def test_an_index_cannot_leave_its_folder(shards, name):
    folder, _ = shards
    save_llama(loud(CONFIGS["gqa"]), folder / "sub")
    for place in (folder / "sub", folder.parent):
        model = folder / "sub" / "model.safetensors"
        (place / "secret.safetensors").write_bytes(model.read_bytes())
    rewrite_index(folder, lambda places: places.update({"model.norm.weight": name}))
    with pytest.raises(ValueError, match="only a safetensors file of the same folder"):
        load_llama(folder)


def test_a_missing_shard_is_named(shards):
    folder, _ = shards
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {shard.name}"):
        load_llama(folder)


def test_a_shard_cut_short_is_named(shards):
    folder, _ = shards
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{shard.name} is damaged"):
        load_llama(folder)


def test_an_index_that_promises_too_much_or_too_little(shards):
    folder, _ = shards
    first = sorted(folder.glob("model-*.safetensors"))[0].name
    rewrite_index(folder, lambda places: places.update(mystery=first))
    with pytest.raises(ValueError, match=f"{first} lacks mystery, which the index"):
        load_llama(folder)
    rewrite_index(
        folder, lambda places: (places.pop("mystery"), places.pop("model.norm.weight"))
    )
    with pytest.raises(ValueError, match=r"final_norm.weight is missing there"):
        load_llama(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object; got list"),
        ("{}", "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"weight_map": ["a"]}', "has no weight_map"),
        ("[" * 100_000, "is not JSON"),
    ],
    ids=range(6),
)
def test_a_damaged_index_is_refused(shards, text, message):
    folder, _ = shards
    (folder / INDEX).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{INDEX} {message}"):
        load_llama(folder)


def test_weights_of_two_types_become_one(folder):
    def half(tensors):
        tensors["model.norm.weight"] = tensors["model.norm.weight"].half()

    rewrite_weights(folder, half)
    assert {w.dtype for w in load_llama(folder).parameters()} == {torch.float32}


def test_a_loaded_model_holds_no_file(folder):
    """On Windows a file that is mapped into memory could not be replaced."""
    model = load_llama(folder)
    ids = some_ids(model.config, 9)
    expected = model(ids)
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(-4000, 2)
        file.write(bytes(4000))
    assert torch.equal(model(ids), expected)


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; only 'llama' can be read"),
        ({"model_type": None}, "model_type is None; only 'llama' can be read"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' or 'swish'"),
        ({"attention_bias": True}, "attention_bias is True; only False"),
        ({"mlp_bias": True}, "mlp_bias is True; only False"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_type is 'yarn'"),
        ({"rope_scaling": {"type": "linear"}}, "does not say 'factor'"),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2}},
            "'dynamic'; only 'default' or 'linear' or 'llama3' can be read here",
        ),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "rope_type is 'dynamic'"),
        ({"rope_scaling": "llama3"}, "rope parameters must be an object; got 'llama3'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "does not say 'factor'"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; only 1.0"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is .*; only None"),
        ({"head_dim": 16}, "head_dim is 16; only hidden_size / .* = 8"),
        ({"hidden_size": None}, "does not say 'hidden_size'"),
        ({"vocab_size": 0}, "vocab_size must be a positive int; got 0"),
        ({"num_attention_heads": 5}, "d_model=48 is not a multiple of n_heads=5"),
        ({"num_key_value_heads": 4}, "n_heads=6 is not a multiple of n_kv_heads=4"),
        ({"rms_norm_eps": "small"}, "config.json: "),
    ],
    ids=str,
)
def test_a_model_of_another_kind_is_refused_by_name(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(ValueError, match=message) as error:
        load_llama(folder)
    assert str(folder / "config.json") in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 98}, r"weight is \[97, 48\] there, \[98, 48\] here"),
        ({"intermediate_size": 81}, r"ffn.w1.weight is \[80, 48\] there, \[81, 48\]"),
        ({"num_key_value_heads": 3}, r"k_proj.weight is \[16, 48\] there, \[24, 48\]"),
        ({"num_hidden_layers": 4}, r"blocks.3.* is missing there, .* and 6 more"),
        ({"num_hidden_layers": 2}, r"model.layers.2.* there, missing here"),
    ],
    ids=str,
)
def test_weights_and_config_that_disagree_are_named(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(
        ValueError, match=f"weights and config.json differ: .*{message}"
    ):
        load_llama(folder)


def test_tensors_too_many_or_too_few_are_named(folder):
    bias = "model.layers.0.self_attn.q_proj.bias"
    rewrite_weights(folder, lambda tensors: tensors.update({bias: torch.zeros(48)}))
    with pytest.raises(ValueError, match=rf"{bias} is \[48\] there, missing here"):
        load_llama(folder)
    rewrite_weights(
        folder, lambda tensors: (tensors.pop(bias), tensors.pop("model.norm.weight"))
    )
    with pytest.raises(ValueError, match=r"final_norm.weight is missing there"):
        load_llama(folder)


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_truncated_weights_are_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged .*: write it"):
        load_llama(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON .*: write it again"),
        ("", "is not JSON"),
        ("[1]", "must hold a JSON object; got list"),
        (b"\xff\xfe\x00", "is not UTF-8 at byte 0"),
    ],
    ids=str,
)
def test_a_damaged_config_is_refused(folder, text, message):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "config.json").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        load_llama(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {name}.*train it again"):
        load_llama(folder)


def test_pickled_weights_are_refused_by_name(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(
        FileNotFoundError, match=r"pytorch_model.bin is pickled, .* could run code"
    ):
        load_llama(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere: train"):
        load_llama(tmp_path / "nowhere")
