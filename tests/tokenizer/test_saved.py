"""What a tokenizer.json says, kept: compared with Hugging Face's `tokenizers`."""

import itertools
import json
import random

import pytest

from minillm.bpe import BPETokenizer, train_bpe
from minillm.tokenizer.patterns import GPT2_PATTERN, LLAMA3_PATTERN

tokenizers = pytest.importorskip("tokenizers")


def theirs(path, text, **options):
    return tokenizers.Tokenizer.from_file(str(path)).encode(text, **options).ids


@pytest.fixture
def path(tmp_path):
    """A small tokenizer.json."""
    tokenizer = BPETokenizer.train(["ab bc 1234"], 259, ["<e>"])
    tokenizer.save(tmp_path / "tokenizer.json")
    return tmp_path / "tokenizer.json"


def change(path, **parts):
    content = json.loads(path.read_bytes()) | parts
    path.write_text(json.dumps(content), encoding="utf-8")
    return content


def added(id_, content, *, special=False, normalized=False):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    kind = {"special": special, "normalized": normalized}
    return {"id": id_, "content": content} | flags | kind


# What stands around a text.


def template(*pieces, **ids):
    single = [
        {"Sequence": {"id": piece, "type_id": 0}}
        if piece == "A"
        else {"SpecialToken": {"id": piece, "type_id": 0}}
        for piece in pieces
    ]
    tokens = {
        name: {"id": name, "ids": ids_, "tokens": [name] * len(ids_)}
        for name, ids_ in ids.items()
    }
    kind = {"type": "TemplateProcessing", "single": single, "pair": single}
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    return kind | {"pair": pair, "special_tokens": tokens}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
BYTE_LEVEL["use_regex"] = True


@pytest.mark.parametrize(
    ("processor", "begin", "end"),
    [
        (template("e", "A", e=[258]), [258], []),
        (template("A", "e", e=[258]), [], [258]),
        (template("e", "f", "A", "e", e=[258], f=[97, 98]), [258, 97, 98], [258]),
        (template("A", e=[258]), [], []),
        (BYTE_LEVEL, [], []),
        (
            {
                "type": "Sequence",
                "processors": [
                    BYTE_LEVEL,
                    template("e", "A", e=[258]),
                    template("f", "A", f=[97]),
                ],
            },
            [97, 258],
            [],
        ),
        (
            {
                "type": "RobertaProcessing",
                "sep": ["<e>", 258],
                "cls": ["a", 97],
                "trim_offsets": True,
                "add_prefix_space": False,
            },
            [97],
            [258],
        ),
    ],
)
def test_a_template_survives(path, processor, begin, end):
    change(path, post_processor=processor)
    ours = BPETokenizer.load(path)
    assert (ours.begin_ids, ours.end_ids, ours.stop_ids) == (begin, end, [])
    expected = theirs(path, "ab bc")
    assert [*begin, *ours.encode("ab bc"), *end] == expected
    ours.save(path)
    assert theirs(path, "ab bc") == expected
    again = BPETokenizer.load(path)
    assert (again.begin_ids, again.end_ids) == (begin, end)


def test_what_stands_around_a_text_is_saved(path):
    ours = BPETokenizer.train(["ab bc 1234"], 260, ["<e>", "end"])
    for around in itertools.product([[], [258], [258, 97]], repeat=3):
        ours.begin_ids, ours.end_ids, ours.stop_ids = around
        ours.save(path)
        again = BPETokenizer.load(path)
        assert (again.begin_ids, again.end_ids, again.stop_ids) == around
        assert theirs(path, "ab") == [*around[0], *ours.encode("ab"), *around[1]]
        # They put as much around the second of two texts.
        both = [*theirs(path, "ab"), *theirs(path, "b")]
        assert theirs(path, "ab", pair="b") == both


def test_a_token_with_the_name_of_the_list_of_stops(path):
    ours = BPETokenizer.train(["ab bc 1234"], 260, ["<e>", "stop"])
    ours.begin_ids, ours.stop_ids = [259], [258]
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"a token named 'stop' .* another name"):
        ours.save(path)
    assert path.read_bytes() == before
    ours.begin_ids, ours.stop_ids = [258], [259]
    ours.save(path)
    assert BPETokenizer.load(path).stop_ids == [259]


def test_an_id_around_a_text_that_there_is_not(path):
    ours = BPETokenizer.load(path)
    before = path.read_bytes()
    ours.stop_ids = [999]
    with pytest.raises(ValueError, match="the id 999 around a text has no token"):
        ours.save(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (template("e", "A", e=[999]), "needs the token 999"),
        (template("e", "A", e="x"), "needs the token 'x'"),
        (template("f", "A", e=[258]), "names the token 'f', which the tokenizer lacks"),
        (template("e", e=[258]), "does not hold one text"),
        (template("A", "A"), "does not hold one text"),
        (template("A") | {"single": 3}, "broken: TypeError"),
        ([1], "post_processor is not an object"),
        ({"type": "BertProcessing"}, "BertProcessing"),
        ({"type": "RobertaProcessing", "cls": []}, "broken: IndexError"),
    ],
)
def test_a_broken_template_is_refused(path, processor, message):
    change(path, post_processor=processor)
    with pytest.raises(ValueError, match="cannot be read as a tokenizer") as caught:
        BPETokenizer.load(path)
    assert message in str(caught.value)


# Added tokens.


def test_added_tokens_are_found_in_any_text(path):
    tokens = [added(258, "<e>", special=True), added(259, "<think>")]
    tokens += [added(260, " " * 8), added(261, " " * 4), added(257, "ab")]
    change(path, added_tokens=tokens)
    ours = BPETokenizer.load(path)
    assert ours.special_tokens == {"<e>": 258}
    assert ours.added_tokens["<think>"] == 259
    turns = ["<think>", "<e>", " ", "    ", "a", "b", "1", "\n", "<thi", "é"]
    for _ in range(2):
        generator = random.Random(0)
        for _ in range(300):
            text = "".join(generator.choices(turns, k=9))
            ids = theirs(path, text)
            assert ours.encode(text, "all") == ids
            assert list(ours.encode_iterable(text, "all")) == ids
            assert ours.encode_batch([text], 1, allowed_special="all") == [ids]
            assert ours.decode(ids) == text
            assert "".join(piece for piece, _ in ours.pre_tokens(text)) == text
        # A reader that drops special tokens keeps these, and that is saved, too.
        reader = tokenizers.Tokenizer.from_file(str(path))
        assert reader.decode([259, 258, 97]) == "<think>a"
        ours.save(path)
    assert [t["special"] for t in json.loads(path.read_bytes())["added_tokens"]] == [
        *(False, True, False, False, False)
    ]


def test_files_are_cut_beside_added_tokens(path, tmp_path):
    import numpy as np

    ours = BPETokenizer.train(["ab bc 1234"], 259, ["<e>"])
    ours = BPETokenizer(
        ours.vocab, ours.merges, ours.special_tokens, added_tokens={"a b": 300}
    )
    text = "a b 12 a b<e>" * 90_000
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    ours.encode_file(tmp_path / "text.txt", tmp_path / "ids.npy")
    assert np.load(tmp_path / "ids.npy").tolist() == ours.encode(text)


def test_an_added_token_may_be_an_ordinary_one(path):
    """A byte, or one that merges make: it keeps its id, and the merges their part."""
    change(path, added_tokens=[added(97, "a"), added(257, "ab")])
    ours = BPETokenizer.load(path)
    for text in ("ab", "aab bc", "ba"):
        assert ours.encode(text) == theirs(path, text)
    ours.save(path)
    assert theirs(path, "aab") == BPETokenizer.load(path).encode("aab") == [97, 257]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([added(97, "a", special=True)], "'a' is also an ordinary one of the same id"),
        ([added(257, "ab", special=True)], "'ab' is also an ordinary one"),
        ([added(258, "<e>"), added(258, "<e>", special=True)], "both special and not"),
        (
            [added(258, "<e>", special=True), added(259, "e>b", normalized=True)],
            "'<e>' and 'e>b' overlap",
        ),
    ],
)
def test_added_tokens_that_cannot_be(path, tokens, message):
    change(path, added_tokens=tokens)
    with pytest.raises(ValueError, match="cannot be read as a tokenizer") as caught:
        BPETokenizer.load(path)
    assert message in str(caught.value)


def test_tokens_that_do_not_overlap_may_be_normalized_or_not(path):
    tokens = [added(258, "<e>", special=True), added(259, "<f>", normalized=True)]
    change(path, added_tokens=tokens)
    ours = BPETokenizer.load(path)
    assert ours.encode("<e><f>e>", "all") == theirs(path, "<e><f>e>")


def test_what_is_both_special_and_added():
    vocab = {0: b"a", 1: b"<e>"}
    with pytest.raises(ValueError, match="cannot be both added tokens and special"):
        BPETokenizer(vocab, [], ["<e>"], added_tokens={"<e>": 1})


# Ids.


@pytest.mark.parametrize("special", ["<e>", "###"])
def test_special_tokens_taken_for_text_are_text(tmp_path, special):
    """They stand outside the model, which would take `###` whole."""
    ours = BPETokenizer.train(["ab bc"], 258, [special])
    ours.save(tmp_path / "tokenizer.json")
    reader = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert reader.encode(special).ids == [257]
    reader.encode_special_tokens = True
    assert reader.encode(special).ids == ours.encode(special) == list(special.encode())


def test_missing_ids_are_filled(tmp_path):
    ours = BPETokenizer.train(["ab bc"], 257)
    ours = BPETokenizer(ours.vocab, ours.merges, {"<e>": 260, "<f>": 262})
    path = tmp_path / "tokenizer.json"
    ours.save(path)
    content = json.loads(path.read_bytes())
    assert [t["id"] for t in content["added_tokens"]] == list(range(257, 263))
    assert theirs(path, "<f>ab<e>") == ours.encode("<f>ab<e>", "all")
    again = BPETokenizer.load(path)
    assert again.vocab == ours.vocab and again.special_tokens == ours.special_tokens


def test_ids_that_nobody_can_fill(tmp_path):
    """Ordinary ids with holes, or a hole of millions: the file has the ids it has."""
    path = tmp_path / "tokenizer.json"
    ours = BPETokenizer({0: b"a", 7: b"b"}, [], {"<e>": 9})
    ours.save(path)
    assert BPETokenizer.load(path).vocab == ours.vocab
    assert theirs(path, "ab<e>") == [0, 7, 9]
    far = BPETokenizer({0: b"a"}, [], {"<e>": 10**6})
    far.save(path)
    assert path.stat().st_size < 10_000
    assert BPETokenizer.load(path).vocab == far.vocab


def test_a_hole_in_a_file_stays_one(path):
    """`tokenizers` counts on from its vocabulary; we believe the file."""
    change(path, added_tokens=[added(300, "<e>", special=True)])
    assert theirs(path, "<e>") == [258]
    assert BPETokenizer.load(path).encode("<e>", "all") == [300]


def test_a_merge_that_is_listed_twice_has_its_last_rank(path):
    content = json.loads(path.read_bytes())
    tokens = content["model"]["vocab"] | {"ab": 256, "bc": 257}
    pairs = [["a", "b"], ["b", "c"], ["a", "b"]]
    change(path, model=content["model"] | {"vocab": tokens, "merges": pairs})
    assert BPETokenizer.load(path).encode("abc") == theirs(path, "abc") == [97, 257]


# Patterns.


def test_removed_and_inverted_is_isolated_where_nothing_is_left(path):
    split = {"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}}
    split |= {"behavior": "Removed", "invert": True}
    last = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    last["trim_offsets"] = True
    steps = {"type": "Sequence", "pretokenizers": [split, last]}
    change(path, pre_tokenizer=steps)
    ours = BPETokenizer.load(path)
    assert ours.pattern == LLAMA3_PATTERN
    assert ours.encode("ab bc\n 1234  ") == theirs(path, "ab bc\n 1234  ")
    # A pattern that leaves something out would have to lose it.
    split["pattern"]["Regex"] = r"\w+"
    change(path, pre_tokenizer=steps)
    with pytest.raises(ValueError, match="Removed"):
        BPETokenizer.load(path)


def test_smollm2_is_saved_as_they_save_it(path):
    from minillm.tokenizer.patterns import DIGITS_PATTERN

    ours = BPETokenizer.train(["ab bc 1234"], 258, pattern=DIGITS_PATTERN)
    ours.save(path)
    steps = json.loads(path.read_bytes())["pre_tokenizer"]["pretokenizers"]
    assert [step["type"] for step in steps] == ["Digits", "ByteLevel"]
    assert BPETokenizer.load(path).pattern == DIGITS_PATTERN


# What the constructor makes impossible.


def test_special_tokens_cannot_be_lost():
    """The idiom that gave `special_tokens == {}` without a word."""
    for name in ("<|endoftext|>", "END", "a", "ab"):
        vocab, merges = train_bpe(["ab ab END"], 260, [name])
        with pytest.raises(ValueError, match="neither a byte nor made") as caught:
            BPETokenizer(vocab, merges)
        assert "name it in special_tokens" in str(caught.value)
        tokenizer = BPETokenizer(vocab, merges, [name])
        assert tokenizer.special_tokens == {name: max(vocab)}
        assert max(vocab) not in tokenizer.encode(name)
    # Two, of which one is named.
    vocab, merges = train_bpe(["ab ab END"], 260, ["<e>", "<f>"])
    with pytest.raises(ValueError, match="'<f>'"):
        BPETokenizer(vocab, merges, ["<e>"])


def test_what_is_compiled_cannot_be_changed():
    tokenizer = BPETokenizer.train(["ab"], 257)
    for name, value in (("pattern", r"\w"), ("ignore_merges", False)):
        with pytest.raises(AttributeError):
            setattr(tokenizer, name, value)
    assert tokenizer.pattern == GPT2_PATTERN
