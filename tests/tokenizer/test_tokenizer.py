"""Special tokens, and from ids back to text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.bpe import BPETokenizer


def test_overlapping_special_tokens(trained):
    ours = trained["gpt2"]
    one, two = ours.special_tokens["<e>"], ours.special_tokens["<e><e>"]
    assert ours.encode("<e><e><e>", "all") == [two, one]
    assert ours.encode("<e><e><e>", ["<e>"]) == [one, one, one]
    assert ours.encode("<e>") == ours.encode("<") + ours.encode("e") + ours.encode(">")
    assert ours.decode([two, one]) == "<e><e><e>"


@pytest.mark.parametrize(
    ("allowed", "message"),
    [(["<f>"], "'<f>' is no special token"), ("<e>", "write {'<e>'}")],
)
def test_special_tokens_that_are_none(trained, allowed, message):
    with pytest.raises(ValueError, match=message):
        trained["gpt2"].encode("text", allowed)


@pytest.mark.parametrize(
    ("specials", "message"),
    [
        (["<e>", "<e>"], "given twice"),
        ([""], "not empty"),
        ({"<e>": 97}, "cannot have the id 97, which is that of b'a'"),
        ({"<e>": 300, "<f>": 300}, "cannot have the id 300"),
    ],
)
def test_special_tokens_that_cannot_be(specials, message):
    vocab = {byte: bytes([byte]) for byte in range(256)}
    with pytest.raises(ValueError, match=message):
        BPETokenizer(vocab, [], specials)


def test_special_tokens_get_the_next_free_ids():
    vocab = {byte: bytes([byte]) for byte in range(256)} | {300: b"<f>"}
    tokenizer = BPETokenizer(vocab, [], ["<e>", "<f>", "<g>"])
    assert tokenizer.special_tokens == {"<e>": 301, "<f>": 300, "<g>": 302}
    assert tokenizer.vocab_size == 303
    assert tokenizer.encode("<g>a<e>", "all") == [302, 97, 301]


def test_a_special_token_is_never_an_ordinary_one():
    tokenizer = BPETokenizer.train(["abab ba"], 258, ["ab"])
    assert tokenizer.encode("ab") == [97, 98]
    assert tokenizer.encode("ab", "all") == [tokenizer.special_tokens["ab"]]
    one_byte = BPETokenizer.train(["bb"], 257, ["a"])
    assert one_byte.special_tokens == {"a": 256}


@settings(deadline=None)
@given(st.lists(st.integers(0, 1499), max_size=20))
def test_any_tokens_are_some_text(trained, ids):
    ours = trained["gpt2"]
    data = b"".join(ours.vocab[id_] for id_ in ids)
    assert ours.decode_bytes(ids) == data
    assert ours.decode(ids) == data.decode("utf-8", "replace")
    assert ours.decode(np.array(ids, np.uint16)) == ours.decode(ids)


def test_halves_of_characters_are_decoded_as_asked(trained):
    ours = trained["gpt2"]
    assert ours.decode([97, 240]) == "a\ufffd"
    assert ours.decode([97, 240], "ignore") == "a"
    with pytest.raises(ValueError, match="can't decode byte 0xf0 in position 1"):
        ours.decode([97, 240], errors="strict")


@pytest.mark.parametrize("id_", [1500, -1, 10**12])
def test_ids_out_of_range(trained, id_):
    with pytest.raises(ValueError, match=f"no token {id_}: the ids .* end at 1499"):
        trained["gpt2"].decode([5, id_])
