"""Blocks unpacked by hand, and models opened in eight bits."""

import numpy as np
import pytest
import torch

from minillm.bpe import BPETokenizer
from minillm.files.eight_bit_files import open_eight_bits, pays
from minillm.files.gguf_blocks import BLOCKS, unpack
from minillm.files.opening import open_model
from minillm.inference import eight_bit_layers
from minillm.inference.eight_bits import Plain, TwoDigits
from minillm.inference.quantized import stored

gguf = pytest.importorskip("gguf", reason="the peer of this chapter")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # some random scales are NaN
@pytest.mark.parametrize("kind", BLOCKS)
def test_each_bit_is_that_of_the_package(kind):
    _, n_bytes = BLOCKS[kind]
    random = np.random.default_rng(0)
    data = random.integers(0, 256, (40, 3 * n_bytes)).astype(np.uint8)
    found = unpack(data, kind)
    theirs = gguf.dequantize(data, gguf.GGMLQuantizationType[kind])
    assert found.dtype == np.float32
    assert found.shape == theirs.shape
    np.testing.assert_array_equal(
        found.view(np.uint32), np.ascontiguousarray(theirs).view(np.uint32)
    )


def test_sizes_are_those_of_the_package():
    for kind, size in BLOCKS.items():
        theirs = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        assert size == theirs


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"kind 'Q9'.*take one of Q8_0"):
        unpack(np.zeros((1, 34), np.uint8), "Q9")


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def file(request, tmp_path_factory):
    from test_gguf_files import a_model, a_tokenizer, write

    tokenizer: BPETokenizer = a_tokenizer()
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write(path, a_model(tokenizer, tie_embeddings=request.param), tokenizer)
    return path


@pytest.mark.parametrize("way", [Plain(), TwoDigits()], ids=["plain", "digits"])
def test_a_file_in_eight_bits_is_the_file_with_rounded_weights(file, way, monkeypatch):
    monkeypatch.setattr(eight_bit_layers, "fastest", lambda: way)
    found, whole = open_eight_bits(file), open_model(file)
    expected = stored(whole.model, 8, "row")
    ids = torch.tensor([[1, 2, 3, 200, 5]])
    with torch.inference_mode():
        a, b = found.model(ids), expected(ids)
    assert (a - b).norm() < 0.01 * b.norm()
    assert found.tokenizer.vocab == whole.tokenizer.vocab
    # Nothing is left of the float weights but the gains of the norms.
    assert all(weight.ndim == 1 for weight in found.model.parameters())


def test_only_files_for_this_processor_are_opened_so(file, monkeypatch):
    from minillm.files import eight_bit_files

    monkeypatch.setattr(eight_bit_files, "fastest", TwoDigits)
    assert pays(file)
    assert not pays(file, "cuda")
    assert not pays(file.parent)
    monkeypatch.setattr(eight_bit_files, "fastest", Plain)
    assert not pays(file)
