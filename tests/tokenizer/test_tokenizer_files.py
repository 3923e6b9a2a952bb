"""Tokenizers in files: written and read, by us and by other programs, and broken."""

import json
import random

import pytest
from bpe_cases import END, PATTERNS, TURNS, pre_tokenizer, saved, settled, their_ids
from fixtures import fixture

from minillm.bpe import GPT2_PATTERN, GPT4_PATTERN, BPETokenizer
from minillm.tokenizer import parts


@pytest.mark.parametrize(("whole", "ids"), [(True, [257]), (False, [256, 99])])
def test_whether_words_are_taken_whole_is_saved(tmp_path, whole, ids):
    vocab = {byte: bytes([byte]) for byte in range(256)} | {256: b"ab", 257: b"abc"}
    ours = BPETokenizer(vocab, [(b"a", b"b")], ignore_merges=whole)
    theirs = saved(ours, tmp_path / "tokenizer.json")
    loaded = BPETokenizer.load(tmp_path / "tokenizer.json")
    assert ours.encode("abc") == loaded.encode("abc") == their_ids(theirs, "abc") == ids


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_hugging_face_reads_ours(trained, tales, udhr, tmp_path, name):
    ours = trained[name]
    theirs = saved(ours, tmp_path / "tokenizer.json")
    generator = random.Random(name)
    turns = [*TURNS, "<e>", END]
    texts = [tales[40], settled(udhr[:100_000])]
    texts += ["".join(generator.choices(turns, k=12)) for _ in range(2000)]
    for text in texts:
        # To them a special token is always one.
        assert ours.encode(text, "all") == their_ids(theirs, text)
    ids = ours.encode(texts[0])
    assert theirs.decode(ids, skip_special_tokens=False) == ours.decode(ids)


@pytest.mark.parametrize(
    "name",
    [
        "gpt2",
        pytest.param("cl100k_base", marks=pytest.mark.check),
        pytest.param("o200k_base", marks=pytest.mark.check),
    ],
)
def test_hugging_face_reads_the_large_ones(like_tiktoken, tmp_path, tales, udhr, name):
    text = tales[40] + settled(udhr[:20_000])
    ours, theirs = like_tiktoken[name]
    reader = saved(ours, tmp_path / "tokenizer.json")
    assert their_ids(reader, text) == theirs.encode_ordinary(text)
    # The bound on what we read leaves room.
    size = (tmp_path / "tokenizer.json").stat().st_size
    assert 2 * size < parts.MAX_BYTES
    special, id_ = next(iter(ours.special_tokens.items()))
    assert their_ids(reader, special) == [id_]


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_saved_and_loaded_is_the_same(trained, tmp_path, name):
    ours = trained[name]
    ours.save(tmp_path / "tokenizer.json")
    loaded = BPETokenizer.load(tmp_path / "tokenizer.json")
    for part in ("vocab", "merges", "special_tokens", "pattern", "vocab_size"):
        assert getattr(loaded, part) == getattr(ours, part)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "tokenizer.json"]


@pytest.mark.parametrize("kind", ["gpt2", "llama3", "smollm2"])
def test_we_read_theirs(tmp_path, tales, udhr, kind):
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=kind == "llama3"))
    theirs.pre_tokenizer = pre_tokenizer(kind)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    byte_level = tokenizers.processors.ByteLevel(trim_offsets=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|begin|>", END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([*tales[:20], settled(udhr[:200_000])], trainer)
    begin = tokenizers.processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
    )
    theirs.post_processor = tokenizers.processors.Sequence([byte_level, begin])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = BPETokenizer.load(tmp_path / "tokenizer.json")
    assert ours.special_tokens == {"<|begin|>": 0, END: 1}
    assert ours.vocab_size == theirs.get_vocab_size() == 2000
    generator = random.Random(kind)
    texts = [tales[50], settled(udhr[300_000:400_000]), "a  1  22b \n 3"]
    texts += ["".join(generator.choices(TURNS, k=12)) for _ in range(3000)]
    for text in texts:
        assert ours.encode(text) == their_ids(theirs, text)
        assert list(ours.encode_iterable([text])) == their_ids(theirs, text)
    # And through ours back to theirs.
    again = saved(ours, tmp_path / "again.json")
    assert their_ids(again, texts[0]) == their_ids(theirs, texts[0])


def test_gpt2_files_come_back(gpt2, tmp_path):
    paths = tmp_path / "vocab.json", tmp_path / "merges.txt"
    gpt2.save_gpt2_files(*paths)
    again = BPETokenizer.from_gpt2_files(*paths)
    assert again.vocab == gpt2.vocab and again.merges == gpt2.merges
    assert again.special_tokens == {END: 50256}
    theirs = json.loads(fixture("gpt2/encoder.json").read_bytes())
    assert json.loads(paths[0].read_bytes()) == theirs
    original = fixture("gpt2/vocab.bpe").read_text(encoding="utf-8")
    assert paths[1].read_text(encoding="utf-8") == original


@pytest.fixture
def document(tmp_path):
    """The content of a small tokenizer.json, to be broken."""
    BPETokenizer.train(["the cat in the hat"], 259, ["<e>"]).save(tmp_path / "x")
    return json.loads((tmp_path / "x").read_bytes())


def deep(depth):
    return "[" * depth + "]" * depth


BROKEN = [
    (["model", "merges", 0], ["x", "yz"], "needs the token 'yz'"),
    (["model", "merges", 0], ["a", "z"], "needs the token 'az'"),
    (["model", "merges", 0], ["x"], "merge 0 is not a pair"),
    (["model", "merges", 0], 7, "merge 0 is not a pair"),
    (["model", "merges", 0], [["a"], "b"], "merge 0 is not a pair"),
    (["model", "merges"], None, "merges are not a list"),
    (["model", "vocab"], [], "vocab is not an object"),
    (["model", "vocab", "a"], "7", "id '7' is not an integer"),
    (["model", "vocab", "a"], True, "id True is not an integer"),
    (["model", "vocab", "a"], -1, "id -1 is not an integer"),
    (["model", "vocab", "a"], 1e3, "id 1000.0 is not an integer"),
    (["model", "vocab", "a"], 10**30, "is not an integer from 0 to"),
    (["model", "vocab", "a"], 98, "two of its tokens have the same id"),
    (["model", "vocab", "a b"], 999, "' ' stands for no byte"),
    (["model", "type"], "Unigram", "Unigram"),
    (["model", "byte_fallback"], True, "byte_fallback true"),
    (["model", "continuing_subword_prefix"], "##", "continuing_subword_prefix"),
    (["model", "dropout"], 0.1, "dropout 0.1"),
    (["model"], None, "model is not an object"),
    (["normalizer"], {"type": "NFC"}, 'normalizer {"type": "NFC"}'),
    (["truncation"], {"max_length": 9}, "truncation"),
    (["decoder"], {"type": "WordPiece"}, "decoder"),
    (["post_processor"], {"type": "BertProcessing"}, "BertProcessing"),
    (["pre_tokenizer"], {"type": "Whitespace"}, "Whitespace"),
    (["pre_tokenizer"], None, "pre_tokenizer"),
    (["pre_tokenizer", "add_prefix_space"], True, "add_prefix_space"),
    (["pre_tokenizer"], {"type": "Sequence", "pretokenizers": 3}, "pre_tokenizer"),
    (["pre_tokenizer"], {"type": "Sequence", "pretokenizers": []}, "pre_tokenizer"),
    (["added_tokens"], {}, "added_tokens are not a list"),
    (["added_tokens", 0, "lstrip"], True, "lstrip"),
    (["added_tokens", 0, "rstrip"], True, "rstrip"),
    (["added_tokens", 0, "single_word"], True, "single_word"),
    (["added_tokens", 0, "id"], 5, "two of its tokens have the same id"),
    (["added_tokens", 0], "<e>", "lacks its id or content"),
    (["extra"], [1], "the entry 'extra' with [1]"),
    (["model", "cache"], 7, "the model's entry 'cache' with 7"),
    (["pre_tokenizer", "use_regex"], False, "pre_tokenizer"),
]


SPLIT = {
    "type": "Split",
    "pattern": {"Regex": GPT4_PATTERN},
    "behavior": "Isolated",
    "invert": False,
}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([SPLIT | {"behavior": "Removed"}, BYTE_LEVEL], "Removed"),
        ([SPLIT | {"invert": True}, BYTE_LEVEL], "in Split, invert true"),
        ([SPLIT | {"pattern": {"String": " "}}, BYTE_LEVEL], "String"),
        ([SPLIT | {"pattern": {"Regex": "("}}, BYTE_LEVEL], "no regular expression"),
        ([SPLIT | {"pattern": 7}, BYTE_LEVEL], "in Split, the pattern 7"),
        ([SPLIT, BYTE_LEVEL | {"use_regex": True}], "pre_tokenizer"),
        ([SPLIT], "pre_tokenizer"),
        ([BYTE_LEVEL, SPLIT], "pre_tokenizer"),
        ([SPLIT, SPLIT, BYTE_LEVEL], '["Split", "Split", "ByteLevel"]'),
        (
            [
                {"type": "Digits", "individual_digits": False},
                BYTE_LEVEL | {"use_regex": True},
            ],
            "Digits",
        ),
    ],
)
def test_pre_tokenizers_that_cannot_be_represented(document, tmp_path, steps, message):
    path = tmp_path / "tokenizer.json"
    sequence = {"type": "Sequence", "pretokenizers": steps}
    path.write_text(json.dumps(document | {"pre_tokenizer": sequence}), "utf-8")
    with pytest.raises(ValueError, match="cannot be read as a tokenizer") as caught:
        BPETokenizer.load(path)
    assert message in str(caught.value)
    # As it should be, it is read.
    sequence["pretokenizers"] = [SPLIT, BYTE_LEVEL]
    path.write_text(json.dumps(document | {"pre_tokenizer": sequence}), "utf-8")
    assert BPETokenizer.load(path).pattern == GPT4_PATTERN


PLACES = [
    ["added_tokens", 0],
    ["decoder"],
    ["model", "merges", 0],
    ["model", "vocab", "a"],
    ["normalizer"],
    ["post_processor"],
    ["pre_tokenizer"],
]


@pytest.mark.parametrize("where", PLACES, ids=lambda where: where[-1])
def test_a_tokenizer_json_that_is_deep_anywhere(document, tmp_path, where):
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = "here"
    path = tmp_path / "tokenizer.json"
    before, after = json.dumps(document).split('"here"')
    # Deep for those who look through what was read, and for those who read.
    for depth in (10, 300, 600, 950, 5000, 100_000):
        for inside in (deep(depth), '{"processors":[' * depth + "0" + "]}" * depth):
            path.write_text(before + inside + after, encoding="utf-8")
            with pytest.raises(ValueError, match="cannot be read as a tok") as caught:
                BPETokenizer.load(path)
            assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize(("where", "value", "message"), BROKEN)
def test_a_broken_tokenizer_json_is_refused_by_name(
    document, tmp_path, where, value, message
):
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be read as a tokenizer") as caught:
        BPETokenizer.load(path)
    assert message in str(caught.value) and "tokenizer.json" in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"{}", b"\xff", deep(200_000).encode(), b"7" * 9999],
    ids=["empty", "cut", "null", "list", "object", "bytes", "deep", "number"],
)
def test_no_tokenizer_json_at_all(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as a tokenizer"):
        BPETokenizer.load(path)


def test_a_tokenizer_json_that_is_cut_anywhere(document, tmp_path):
    data = json.dumps(document).encode()
    path = tmp_path / "tokenizer.json"
    for end in range(0, len(data), 97):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match="cannot be read as a tokenizer"):
            BPETokenizer.load(path)


def test_a_file_of_a_billion_merges(tmp_path):
    path, small = tmp_path / "huge", tmp_path / "small"
    # A file with a hole: it takes no space, and reading all of it takes ten billion
    # bytes of memory.
    with path.open("wb") as file:
        file.truncate(10**10)
    small.write_bytes(b"{}")
    for read in (
        lambda: BPETokenizer.load(path),
        lambda: BPETokenizer.from_gpt2_files(path, small),
        lambda: BPETokenizer.from_gpt2_files(small, path),
        lambda: BPETokenizer.from_tiktoken_file(path, GPT2_PATTERN),
    ):
        with pytest.raises(ValueError, match="huge cannot be read") as caught:
            read()
        assert "10000000000 bytes are more than" in str(caught.value)


def test_a_special_token_spelled_like_an_ordinary_one_cannot_be_saved(tmp_path):
    tokenizer = BPETokenizer.train(["bb"], 257, ["a"])
    with pytest.raises(ValueError, match="'a' has two ids, 97 and 256"):
        tokenizer.save(tmp_path / "tokenizer.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"YQ== 0\nYg==", "line 2"),
        (b"YQ== 0\n!!! 1", "line 2"),
        (b"YQ== zero", "line 1"),
        (b"YQ== 0\nYg== 0", "same rank"),
        (b"YQ== 0\nYQ== 1", "line 2"),
        (b"YQ== -1", "line 1"),
        (b"YQ== 16777216", "line 1"),
    ],
)
def test_a_broken_tiktoken_file(tmp_path, content, message):
    path = tmp_path / "x.tiktoken"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        BPETokenizer.from_tiktoken_file(path, GPT2_PATTERN, [])


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        (b"{", b"", "is not JSON"),
        (b"[]", b"", "must hold a JSON object"),
        (b'{"a": 0, "b": 1}', b"#version: 0.2\na b\n", "needs the token 'ab'"),
        (b'{"a": 0, "b": 1}', b"a b c\n", "is not a pair"),
        (b'{"a": 0}', b"\xff", "not UTF-8 at byte 0"),
    ],
)
def test_broken_gpt2_files(tmp_path, vocab, merges, message):
    (tmp_path / "vocab.json").write_bytes(vocab)
    (tmp_path / "merges.txt").write_bytes(merges)
    with pytest.raises(ValueError, match=message):
        BPETokenizer.from_gpt2_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


def test_real_smollm2(tmp_path, tales):
    """The vocabulary of SmolLM2, from its model file: 21 bytes have no token."""
    gguf = pytest.importorskip("gguf")
    tokenizers = pytest.importorskip("tokenizers")
    reader = gguf.GGUFReader(fixture("SmolLM2-135M-Instruct.Q4_1.gguf"))
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = reader.fields["tokenizer.ggml.merges"].contents()
    vocab = {token: id_ for id_, token in enumerate(tokens)}
    pairs = [tuple(line.split(" ")) for line in merges]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, pairs))
    theirs.pre_tokenizer = pre_tokenizer("smollm2")
    theirs.decoder = tokenizers.decoders.ByteLevel()
    theirs.add_special_tokens(tokens[:17])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = BPETokenizer.load(tmp_path / "tokenizer.json")
    for text in (tales[60], "  12 345  x\n", "naïve café 你好"):
        assert ours.encode(text) == their_ids(theirs, text)
    missing = set(range(256)) - {b[0] for b in ours.vocab.values() if len(b) == 1}
    assert len(missing) == 21
    # U+40000 in UTF-8 begins with one of them. Theirs drops it without a word.
    assert 0xF1 in missing
    with pytest.raises(ValueError, match="no token for the byte 0xf1"):
        ours.encode("\U00040000")
