"""GGUF files: made by the `gguf` package, and read by us and by transformers."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from fixtures import fixture
from test_hub import loud, relative, some_ids

from minillm.bpe import BPETokenizer
from minillm.config import LinearScaling, ModelConfig
from minillm.data import andersen
from minillm.files import gguf_files as hub_gguf
from minillm.files.gguf_files import read_gguf
from minillm.files.opening import open_model
from minillm.generate import generate
from minillm.hub import load_gguf, save_llama
from minillm.tokenizer.parts import to_characters
from minillm.tokenizer.patterns import DIGITS_PATTERN, GPT2_PATTERN, LLAMA3_PATTERN

gguf = pytest.importorskip("gguf", reason="writes the files of these tests")

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = "A rose is a rose is a rose, said the little mermaid of 1837."
# No number is a default, and 64 can be quantized in blocks of 32.
SHAPE = {
    "context_length": 70,
    "d_model": 64,
    "n_layers": 3,
    "n_heads": 4,
    "n_kv_heads": 2,
    "d_ff": 96,
    "rope_theta": 700.0,
    "norm_eps": 0.001234,
}
MIXED = [
    "Once upon a time",
    "route66 in 1926, 3.14159! x = 12\tif",
    "cat's CAT'S  they've",
    "h\u00e9llo w\u00f6rld \u4f60\u597d \U0001f30d\n\n\n  tabs\t\tand   blanks  ",
    "def f(x):\n    return x ** 2\r\n",
    "<|im_start|>user\nHi<|im_end|>",
    "",
]


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("accelerate", reason="transformers reads GGUF with it")
    module = pytest.importorskip("transformers", reason="the peer of this chapter")
    module.utils.logging.disable_progress_bar()
    return module


def a_tokenizer(pattern=DIGITS_PATTERN):
    return BPETokenizer.train(
        [TEXT], 270, ["<|endoftext|>", "<|im_end|>"], pattern=pattern
    )


def a_model(tokenizer, **changes):
    return loud(ModelConfig(tokenizer.vocab_size, **(SHAPE | changes)))


THEIR_NAMES = {
    ours: theirs for theirs, ours in (hub_gguf.TOP_NAMES | hub_gguf.BLOCK_NAMES).items()
}


def their_name(ours):
    if ours.startswith("blocks."):
        _, i, rest = ours.split(".", 2)
        return f"blk.{i}.{THEIR_NAMES[rest]}"
    return THEIR_NAMES[ours]


def entries(model, tokenizer):
    """The table of a file, as llama.cpp's converter writes it."""
    config = model.config
    special = set(tokenizer.special_tokens.values())
    return {
        "llama.context_length": config.context_length,
        "llama.embedding_length": config.d_model,
        "llama.block_count": config.n_layers,
        "llama.feed_forward_length": config.d_ff,
        "llama.attention.head_count": config.n_heads,
        "llama.attention.head_count_kv": config.n_kv_heads,
        "llama.attention.layer_norm_rms_epsilon": config.norm_eps,
        "llama.rope.freq_base": config.rope_theta,
        "llama.rope.dimension_count": config.d_head,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [
            token.decode() if id_ in special else to_characters(token)
            for id_, token in sorted(tokenizer.vocab.items())
        ],
        "tokenizer.ggml.token_type": [
            3 if id_ in special else 1 for id_ in sorted(tokenizer.vocab)
        ],
        "tokenizer.ggml.merges": [
            f"{to_characters(left)} {to_characters(right)}"
            for left, right in tokenizer.merges
        ],
        "tokenizer.ggml.bos_token_id": tokenizer.special_tokens["<|endoftext|>"],
        "tokenizer.ggml.eos_token_id": tokenizer.special_tokens["<|im_end|>"],
    }


def write(path, model, tokenizer, kind=None, more=(), architecture="llama", **changes):
    """Write a file with the makers' own writer; None takes an entry out."""
    writer = gguf.GGUFWriter(path, architecture)
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    for name, value in (entries(model, tokenizer) | changes).items():
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif value is not None:
            writer.add_array(name, value)
    tensors = {
        their_name(name): weight.detach().numpy()
        for name, weight in model.named_parameters()
    }
    for name, array in (tensors | dict(more)).items():
        if array is None:
            continue
        if kind is not None and array.ndim == 2:
            writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_a_file_gives_the_model_that_was_written(tmp_path, tied):
    tokenizer = a_tokenizer()
    model = a_model(tokenizer, tie_embeddings=tied)
    path = write(tmp_path / "a.gguf", model, tokenizer)
    ours, again = load_gguf(path)
    assert ours.config == model.config
    assert not ours.training
    found, expected = ours.state_dict(), model.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (ours.lm_head.weight is ours.token_embedding.weight) == tied
    assert torch.equal(
        ours(some_ids(model.config, 70)), model(some_ids(model.config, 70))
    )
    assert again.vocab == tokenizer.vocab
    assert again.merges == tokenizer.merges
    assert again.special_tokens == tokenizer.special_tokens
    assert again.pattern == DIGITS_PATTERN


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_1", "Q4_0"])
@torch.no_grad()
def test_transformers_reads_the_same_in_it(transformers, tmp_path, kind):
    tokenizer = a_tokenizer()
    model = a_model(tokenizer, tie_embeddings=kind == "Q4_1")
    path = write(tmp_path / "a.gguf", model, tokenizer, gguf.GGMLQuantizationType[kind])
    theirs = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, local_files_only=True
    )
    ours, _ = load_gguf(path)
    ids = some_ids(model.config, 70)
    expected = theirs(ids).logits
    assert relative(ours(ids), expected) < 1e-5
    # Quantized weights are others, so this is no comparison of a model with itself.
    assert relative(model(ids), expected) > 1e-3


def test_loading_leaves_chance_alone(tmp_path):
    tokenizer = a_tokenizer()
    path = write(tmp_path / "a.gguf", a_model(tokenizer), tokenizer)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_gguf(path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("kind", "pattern", "whole"),
    [
        ("smollm", DIGITS_PATTERN, False),
        ("gpt-2", GPT2_PATTERN, False),
        ("llama-bpe", LLAMA3_PATTERN, True),
    ],
)
def test_pre_tokenizers_by_their_names(tmp_path, kind, pattern, whole):
    tokenizer = a_tokenizer(pattern)
    path = write(
        tmp_path / "a.gguf", a_model(tokenizer), tokenizer, tokenizer__ggml__pre=kind
    )
    _, again = load_gguf(path)
    assert (again.pattern, again.ignore_merges) == (pattern, whole)
    assert again.encode(TEXT + " 1837's") == tokenizer.encode(TEXT + " 1837's")


def test_what_stands_around_a_text(tmp_path):
    tokenizer = a_tokenizer()
    model, end, turn = a_model(tokenizer), *tokenizer.special_tokens.values()

    def ends(**changes):
        changes = {f"tokenizer__ggml__{name}": v for name, v in changes.items()}
        contents = read_gguf(write(tmp_path / "a.gguf", model, tokenizer, **changes))
        return contents.tokenizer.begin_ids, contents.tokenizer.stop_ids

    assert ends() == ([], [end, turn])
    assert ends(add_bos_token=False) == ([], [end, turn])
    assert ends(add_bos_token=True) == ([end], [end, turn])
    assert ends(add_bos_token=True, bos_token_id=None) == ([], [end, turn])
    # Llama 3 begins with it unless the file says otherwise.
    assert ends(pre="llama-bpe") == ([end], [end, turn])
    assert ends(pre="llama-bpe", add_bos_token=False) == ([], [end, turn])
    # Turns end by the names of their ends, whatever the table says …
    assert ends(eos_token_id=None) == ([], [end, turn])
    assert ends(eos_token_id=end) == ([], [end, turn])
    # … and by each of three entries. An id beyond the vocabulary means none.
    entries_ = {"eos_token_id": 65, "eot_token_id": 66, "eom_token_id": 67}
    assert ends(**entries_) == ([], [65, 66, 67, end, turn])
    assert ends(eot_token_id=2**32 - 1, bos_token_id=270) == ([], [end, turn])


@pytest.mark.parametrize(
    ("changes", "scaling"),
    [
        ({"scaling__type": "none"}, None),
        ({"scaling__type": "none", "scaling__factor": 4.0}, None),
        ({"scaling__type": "linear"}, None),
        ({"scaling__type": "linear", "scaling__factor": 4.0}, LinearScaling(4.0)),
        ({"scaling__factor": 4.0}, LinearScaling(4.0)),
        ({"scale_linear": 2.5}, LinearScaling(2.5)),
        ({"scale_linear": 2.5, "scaling__factor": 4.0}, LinearScaling(4.0)),
        ({"scaling__factor": 0.0}, None),
        ({"scaling__factor": 1.0}, None),
    ],
    ids=str,
)
def test_a_factor_stretches_positions(tmp_path, changes, scaling):
    tokenizer = a_tokenizer()
    changes = {f"llama__rope__{name}": value for name, value in changes.items()}
    path = write(tmp_path / "a.gguf", a_model(tokenizer), tokenizer, **changes)
    assert read_gguf(path).config.rope_scaling == scaling


@torch.no_grad()
def test_transformers_stretches_positions_alike(transformers, tmp_path):
    tokenizer = a_tokenizer()
    model = a_model(tokenizer, rope_scaling=LinearScaling(4.0))
    save_llama(model, tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path, local_files_only=True
    )
    path = write(
        tmp_path / "a.gguf", model, tokenizer, llama__rope__scaling__factor=4.0
    )
    ours, _ = load_gguf(path)
    ids = some_ids(model.config, 70)
    assert relative(ours(ids), theirs(ids).logits) < 1e-5
    assert relative(a_model(tokenizer)(ids), theirs(ids).logits) > 1e-3


def test_the_template_of_conversations(tmp_path):
    tokenizer = a_tokenizer()
    source = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    path = write(
        tmp_path / "a.gguf",
        a_model(tokenizer),
        tokenizer,
        tokenizer__chat_template=source,
    )
    template = open_model(path).chat_template
    assert template.render([("user", "A")]) == "<|endoftext|>A<|im_end|>"
    plain = write(tmp_path / "b.gguf", a_model(tokenizer), tokenizer)
    assert open_model(plain).chat_template is None


def test_a_token_of_no_use_stands_for_nothing(tmp_path):
    tokenizer = a_tokenizer()
    model = a_model(tokenizer)
    kinds = entries(model, tokenizer)["tokenizer.ggml.token_type"]
    unused = next(i for i, token in tokenizer.vocab.items() if token == b"Z")
    kinds[unused] = 5
    path = write(
        tmp_path / "a.gguf", model, tokenizer, tokenizer__ggml__token_type=kinds
    )
    again = load_gguf(path)[1]
    assert unused not in again.vocab
    with pytest.raises(ValueError, match="Z"):
        again.encode("Z")


def test_a_mark_of_chats_that_a_user_defined_is_a_special_one(tmp_path):
    tokenizer = a_tokenizer()
    model = a_model(tokenizer)
    kinds = entries(model, tokenizer)["tokenizer.ggml.token_type"]
    kinds[tokenizer.special_tokens["<|im_end|>"]] = 4
    path = write(
        tmp_path / "a.gguf", model, tokenizer, tokenizer__ggml__token_type=kinds
    )
    again = load_gguf(path)[1]
    assert again.special_tokens == tokenizer.special_tokens
    assert again.encode("<|im_end|>") == tokenizer.encode("<|im_end|>")


def test_a_token_that_a_user_defined_is_found_in_any_text(tmp_path):
    tokenizer = BPETokenizer.train(
        [TEXT], 270, ["<|endoftext|>", "<|im_end|>", "<think>"]
    )
    model = a_model(tokenizer)
    kinds = entries(model, tokenizer)["tokenizer.ggml.token_type"]
    id_ = tokenizer.special_tokens["<think>"]
    kinds[id_] = 4
    path = write(
        tmp_path / "a.gguf", model, tokenizer, tokenizer__ggml__token_type=kinds
    )
    again = load_gguf(path)[1]
    assert again.added_tokens == {"<think>": id_}
    # It is no special token: text may hold it, and decoding shows it.
    assert id_ in again.encode("a<think>b", allowed_special=())
    assert again.decode([id_]) == "<think>"


def test_an_unused_token_ends_nothing(tmp_path):
    tokenizer = a_tokenizer()
    model = a_model(tokenizer)
    kinds = entries(model, tokenizer)["tokenizer.ggml.token_type"]
    end = tokenizer.special_tokens["<|im_end|>"]
    kinds[end] = 5
    path = write(
        tmp_path / "a.gguf", model, tokenizer, tokenizer__ggml__token_type=kinds
    )
    assert end not in load_gguf(path)[1].stop_ids


# What llama.cpp itself makes of these files (llama-cpp-python 0.3.36, with keys and
# values in float32): the greedy text, how the prompt begins, and the ids at which it
# stops. Its logits differ from ours by a millionth.
PLAIN = [121, 182, 100, 100, 100, 23, 121, 171, 138, 117, 96, 192, 4, 23, 4, 81, 100]
PLAIN += [171, 211, 237, 75, 28, 73, 174]
BEGUN = [121, 75, 90, 23, 1, 37, 4, 121, 80, 17, 3, 255, 225, 76, 201, 73, 111, 111]
BEGUN += [103, 79, 78, 76, 13, 258]
BY_FOUR = [37, 251, 25, 112, 114, 121, 23, 23, 231, 205, 23, 76, 153, 25, 75, 77, 225]
BY_FOUR += [57, 26, 268, 26, 9, 184, 83]
BY_OLD_NAME = [76, 5, 25, 145, 26, 75, 113, 216, 117, 251, 182, 201, 110, 15, 84]
TIED = [263, 140, 187, 259, 1, 137, 170, 191, 114, 27, 27, 27, 75, 7, 5, 204, 229, 153]
TIED += [234, 137, 209, 191, 36]
ENDS = [269, 270, 271]


@pytest.mark.parametrize(
    ("pre", "changes", "begins", "ends", "greedy"),
    [
        ("smollm", {}, [65, 259, 263], ENDS, PLAIN),
        ("llama-bpe", {}, [269, 65, 259], ENDS, BEGUN),
        ("llama-bpe", {"tokenizer__ggml__add_bos_token": False}, [65], ENDS, PLAIN),
        (
            "gpt-2",
            {"tokenizer__ggml__eot_token_id": 66, "tokenizer__ggml__eom_token_id": 67},
            [65],
            [66, 67, *ENDS],
            PLAIN,
        ),
        ("smollm", {"tokenizer__ggml__eot_token_id": 2**32 - 1}, [65], ENDS, PLAIN),
        ("smollm", {"llama__rope__scaling__factor": 4.0}, [65], ENDS, BY_FOUR),
        ("smollm", {"llama__rope__scale_linear": 2.5}, [65], ENDS, BY_OLD_NAME),
        (
            "smollm",
            {"llama__rope__scaling__type": "none", "llama__rope__scaling__factor": 4.0},
            [65],
            ENDS,
            PLAIN,
        ),
        ("smollm", {"tie_embeddings": True}, [65], ENDS, TIED),
    ],
)
def test_llama_cpp_reads_the_same(tmp_path, pre, changes, begins, ends, greedy):
    changes = dict(changes)
    specials = ["<|endoftext|>", "<|im_end|>", "<|eot_id|>"]
    pattern = hub_gguf.PATTERNS[pre]
    tokenizer = BPETokenizer.train([TEXT], 272, specials, pattern=pattern)
    model = a_model(tokenizer, tie_embeddings=changes.pop("tie_embeddings", False))
    path = write(
        tmp_path / "a.gguf", model, tokenizer, tokenizer__ggml__pre=pre, **changes
    )
    lm, tokenizer, _ = open_model(path)
    text = "A rose is 1837, said   the mermaid"
    ids = [*tokenizer.begin_ids, *tokenizer.encode(text)]
    assert ids[: len(begins)] == begins
    assert tokenizer.stop_ids == ends
    assert generate(lm, ids, 24, temperature=0, stop_ids=ends) == greedy


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "gpt2"}, "general.architecture is 'gpt2'; only 'llama'"),
        ({"llama__rope__scaling__type": "yarn"}, "rope.scaling.type is 'yarn'; only"),
        ({"llama__rope__dimension_count": 8}, "dimension_count is 8; only 16 can"),
        ({"llama__attention__key_length": 32}, "attention.key_length is 32; only 16"),
        ({"tokenizer__ggml__model": "llama"}, "ggml.model is 'llama'; only 'gpt2'"),
        ({"tokenizer__ggml__pre": "qwen2"}, "ggml.pre is 'qwen2'; only .*'smollm'"),
        ({"tokenizer__ggml__pre": None}, "does not say tokenizer.ggml.pre"),
        ({"tokenizer__ggml__tokens": None}, "does not say tokenizer.ggml.tokens"),
        ({"tokenizer__ggml__token_type": [1, 1]}, "token_type has 2 entries for 270"),
        ({"tokenizer__ggml__merges": ["a b c"]}, "the merge 'a b c' is not a pair"),
        ({"tokenizer__ggml__merges": ["Z Q"]}, "needs the token b'ZQ'"),
        ({"llama__block_count": None}, "does not say llama.block_count"),
        ({"llama__attention__head_count": 5}, "d_model=64 is not a multiple of n_he"),
        ({"more": {"rope_freqs.weight": np.ones(8, np.float32)}}, "rope_freqs.weight"),
    ],
    ids=str,
)
def test_a_model_of_another_kind_is_refused_by_name(tmp_path, changes, message):
    tokenizer = a_tokenizer()
    path = write(tmp_path / "a.gguf", a_model(tokenizer), tokenizer, **changes)
    with pytest.raises(ValueError, match=message) as error:
        load_gguf(path)
    assert str(path) in str(error.value)


ROWS = np.ones((5, 64), np.float32)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"blk.0.attn_q.bias": ROWS[0]}, r"attn_q.bias is \[64\] there, missing here"),
        ({"blk.1.ffn_up.weight": None}, r"1.ffn.w3.weight is missing there"),
        ({"blk.2.attn_k.weight": ROWS}, r"k_proj.weight is \[5, 64\] there, \[32, 64"),
        ({"token_embd.weight": None}, r"token_embedding.weight is missing there"),
        ({"mystery": ROWS}, r"mystery is \[5, 64\] there, missing here"),
    ],
    ids=str,
)
def test_weights_and_table_that_disagree_are_named(tmp_path, more, message):
    tokenizer = a_tokenizer()
    for tied in (True, False):
        model = a_model(tokenizer, tie_embeddings=tied)
        path = write(tmp_path / "a.gguf", model, tokenizer, more=more)
        with pytest.raises(ValueError, match=f"weights and table differ: .*{message}"):
            load_gguf(path)


def test_a_file_cut_short_is_refused_wherever_it_is_cut(tmp_path):
    tokenizer = a_tokenizer()
    path = write(tmp_path / "a.gguf", a_model(tokenizer), tokenizer)
    data = path.read_bytes()
    for keep in [0, 3, 10, 30, 1000, 6000, len(data) // 2, len(data) - 200]:
        path.write_bytes(data[:keep])
        with pytest.raises(ValueError, match=r"a.gguf cannot be read as a model: "):
            load_gguf(path)
    path.write_bytes(b"PK" + data[2:])
    with pytest.raises(ValueError, match="cannot be read as a model: it is no GGUF"):
        load_gguf(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"there is no file .*a.gguf: `make smo"
    ):
        load_gguf(tmp_path / "a.gguf")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.gguf"
    path.touch()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match="pip install gguf"):
        load_gguf(path)


def test_nothing_here_needs_gguf_before_a_file_is_read():
    code = "import sys, minillm.hub; print('gguf' in sys.modules)"
    run = [sys.executable, "-c", code]
    assert subprocess.check_output(run, encoding="utf-8") == "False\n"


# A real model: SmolLM2, 135 million parameters


@pytest.fixture(scope="module")
def smollm2():
    return load_gguf(fixture(SMOLLM2))


@pytest.fixture(scope="module")
def their_smollm2(transformers):
    path = fixture(SMOLLM2)
    options = {"gguf_file": path.name, "local_files_only": True}
    return (
        transformers.LlamaForCausalLM.from_pretrained(path.parent, **options),
        transformers.AutoTokenizer.from_pretrained(path.parent, **options),
    )


@pytest.mark.check
def test_the_shape_of_a_real_model(smollm2):
    model, tokenizer = smollm2
    assert model.config == ModelConfig(
        vocab_size=49152,
        context_length=8192,
        d_model=576,
        n_layers=30,
        n_heads=9,
        n_kv_heads=3,
        d_ff=1536,
        rope_theta=1e5,
        norm_eps=1e-5,
        tie_embeddings=True,
    )
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert len(tokenizer.special_tokens) == 17
    missing = set(range(256)) - {t[0] for t in tokenizer.vocab.values() if len(t) == 1}
    assert len(missing) == 21
    # Five of them cannot be in UTF-8 text at all; 0x04 can, and is not dropped.
    with pytest.raises(ValueError, match="no token for the byte 0x04"):
        tokenizer.encode("a\x04")


@pytest.mark.check
def test_the_tokenizer_of_a_real_model_is_that_of_transformers(smollm2, their_smollm2):
    _, tokenizer = smollm2
    _, theirs = their_smollm2
    for text in MIXED:
        expected = theirs(text)["input_ids"]
        assert tokenizer.encode(text, allowed_special="all") == expected
        assert theirs.decode(expected) == tokenizer.decode(expected) == text
    # From this file transformers does not take the rule that sets digits apart. That
    # shows where several spaces stand before one; with the rule, we agree again.
    text = "a  1\n\n2   345"
    assert tokenizer.encode(text) != theirs(text)["input_ids"]
    tokenizers = pytest.importorskip("tokenizers", reason="the peer of this chapter")
    steps = tokenizers.pre_tokenizers
    theirs.backend_tokenizer.pre_tokenizer = steps.Sequence([
        steps.Digits(individual_digits=True),
        steps.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    for piece in [text, *MIXED, andersen()[3]]:
        expected = theirs(piece)["input_ids"]
        assert tokenizer.encode(piece, allowed_special="all") == expected


@pytest.mark.check
@torch.no_grad()
def test_the_logits_of_a_real_model_are_those_of_transformers(smollm2, their_smollm2):
    (model, tokenizer), (theirs, _) = smollm2, their_smollm2
    for text in (
        "Once upon a time there were 25 tin soldiers, all brothers.",
        MIXED[3],
    ):
        ids = torch.tensor([tokenizer.encode(text)])
        assert relative(model(ids), theirs(ids).logits) <= 1e-5
    # A long text, so that far positions count: Andersen's tale of 1000 tokens.
    ids = torch.tensor([tokenizer.encode(andersen()[3])[:1000]])
    assert relative(model(ids), theirs(ids).logits) <= 1e-4


@pytest.mark.check
def test_a_real_model_writes_what_it_writes_in_transformers(smollm2, their_smollm2):
    (model, tokenizer), (theirs, _) = smollm2, their_smollm2
    chat = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
    for prompt in ("Once upon a time", chat + "<|im_start|>assistant\n"):
        ids = tokenizer.encode(prompt, allowed_special="all")
        found = generate(model, ids, 100, temperature=0, stop_ids=[2])
        expected = theirs.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=100,
        )[0, len(ids) :].tolist()
        if "France" in prompt:
            assert expected.pop() == tokenizer.special_tokens["<|im_end|>"]
            assert tokenizer.decode(found) == "The capital of France is Paris."
        else:
            assert len(found) == 100
        assert found == expected
