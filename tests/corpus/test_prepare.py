"""Token files: what goes in comes out, on one side only, whatever the size."""

import itertools
import json
import re
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillm import data
from minillm.bpe import BPETokenizer
from minillm.corpus.prepare import embedded_corpus, hash_of, load_corpus, prepare
from minillm.data import END_OF_TEXT, read_documents, stream_documents, tokenize

BYTES = BPETokenizer({i: bytes([i]) for i in range(256)}, [], [END_OF_TEXT])
TALES = [f"Tale {i}.\n\nOnce there were {i} ducks." for i in range(40)]


def written(folder: Path, name: str, documents: list[str]) -> Path:
    path = folder / name
    if path.suffix == ".jsonl":
        lines = [json.dumps({"id": 1, "text": d}) + "\n" for d in documents]
        path.write_text("".join(lines), encoding="utf-8")
    else:
        path.write_text("\n\n\n".join(documents), encoding="utf-8")
    return path


def decoded(row: Any) -> list[str]:
    """The documents in a sequence of bytes and ends."""
    assert row[0] == row[-1] == 256
    (ends,) = np.nonzero(np.asarray(row) == 256)
    return [
        bytes(row[a + 1 : b].tolist()).decode() for a, b in itertools.pairwise(ends)
    ]


@pytest.mark.parametrize("workers", [None, 2])
def test_every_document_is_on_one_side_and_in_order(
    tmp_path: Path, workers: int | None
) -> None:
    text = written(tmp_path, "a.txt", TALES[:25])
    lines = written(tmp_path, "b.jsonl", TALES[25:])
    facts = prepare([text, lines], tmp_path / "out", tokenizer=BYTES, workers=workers)
    corpus = load_corpus(tmp_path / "out")
    aside = [tale for tale in TALES if hash_of(tale) < 0.1]
    assert 0 < len(aside) < 10
    assert decoded(corpus.validation) == aside
    assert decoded(corpus.training) == [t for t in TALES if t not in aside]
    assert facts["documents"] == {"train": 40 - len(aside), "validation": len(aside)}
    assert facts["tokens"] == {
        "train": len(corpus.training),
        "validation": len(corpus.validation),
    }
    assert facts["bytes"]["validation"] == sum(len(t.encode()) for t in aside)
    assert corpus.n_bytes(corpus.validation) == facts["bytes"]["validation"]
    assert facts["sources"] == ["a.txt", "b.jsonl"]
    assert isinstance(corpus.training, np.memmap)
    assert corpus.training.dtype == np.uint16


def test_the_vocabulary_is_learned_from_the_training_part_alone(tmp_path: Path) -> None:
    # Every held-out document is full of a word that no other has.
    tales = [t + " zyzzy" * 50 * (hash_of(t + " zyzzy" * 50) < 0.5) for t in TALES]
    tales = [t for t in tales if (hash_of(t) < 0.5) == ("zyzzy" in t)]
    path = written(tmp_path, "a.txt", tales)
    prepare([path], tmp_path / "out", vocab_size=300, validation=0.5)
    corpus = load_corpus(tmp_path / "out")
    training = [t for t in tales if "zyzzy" not in t]
    expected = BPETokenizer.train(training, 300, [END_OF_TEXT])
    assert corpus.tokenizer.vocab == expected.vocab
    assert corpus.training.tolist() == tokenize(training, expected).tolist()
    assert not any(b"zy" in token for token in corpus.tokenizer.vocab.values())


def test_a_document_keeps_its_side_whatever_is_around_it(tmp_path: Path) -> None:
    more = [*reversed(TALES), *TALES[:5], "Something else."]
    prepare([written(tmp_path, "a.txt", TALES)], tmp_path / "a", tokenizer=BYTES)
    prepare([written(tmp_path, "b.txt", more)], tmp_path / "b", tokenizer=BYTES)
    a, b = (load_corpus(tmp_path / name) for name in "ab")
    assert set(decoded(a.validation)) <= set(decoded(b.validation))
    assert set(decoded(b.training)).isdisjoint(decoded(b.validation))


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_neither_side_is_ever_empty(tmp_path: Path, share: float) -> None:
    path = written(tmp_path, "a.txt", ["one", "two", "three"])
    facts = prepare([path], tmp_path / "out", tokenizer=BYTES, validation=share)
    assert sorted(facts["documents"].values()) == [1, 2]
    assert facts["documents"]["validation"] == (1 if share < 0.5 else 2)


@pytest.mark.parametrize(
    ("text", "n", "said"),
    [
        ("a\n\n\nb\nb\n\nc", 2, ["2 documents"]),
        ("a\n\nb\nb\n\nc", 3, ["fewer than two documents", "3 paragraphs"]),
        ("a\nb\nc\nd", 4, ["fewer than two paragraphs", "4 lines"]),
    ],
)
def test_a_text_without_blank_lines_is_cut_finer(
    tmp_path: Path, text: str, n: int, said: list[str]
) -> None:
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    lines: list[str] = []
    facts = prepare(
        [tmp_path / "a.txt"], tmp_path / "out", tokenizer=BYTES, say=lines.append
    )
    assert sum(facts["documents"].values()) == n
    assert set(said) <= set(lines)


# Streams


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("ab\n\r", max_size=60), st.integers(1, 7))
def test_pieces_of_any_size_give_the_same_documents(
    tmp_path: Path, text: str, size: int
) -> None:
    # Line ends of the two usual kinds; a lone "\r" is text.
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    ours = list(data._cut(pieces, "\n\n\n", "it"))
    whole = text.replace("\r\n", "\n").split("\n\n\n")
    parts = [part.strip("\n") for part in whole]
    assert ours == [part for part in parts if part.strip()]


def test_a_document_too_long_to_hold_is_cut_at_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "LONGEST", 20)
    (tmp_path / "a.txt").write_text("0123456789\n" * 5 + "x" * 30, encoding="utf-8")
    parts = list(stream_documents(tmp_path / "a.txt"))
    assert parts == ["0123456789"] * 5 + ["x" * 20, "x" * 10]


def test_the_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    document = "the cat sat on the mat. " * 4000
    peaks = []
    for n in (100, 400):
        path = tmp_path / f"{n}.txt"
        with path.open("w", encoding="utf-8") as file:
            for i in range(n):
                file.write(f"{i} {document}\n\n\n")
        tracemalloc.start()
        assert sum(1 for _ in stream_documents(path)) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert path.stat().st_size > 38e6
    assert peaks[1] < 1.2 * peaks[0] < 30e6


def test_one_rule_for_both_ways_to_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", TALES)
    assert list(stream_documents(path)) == read_documents(path) == TALES


# Mistakes


@pytest.fixture
def call(call: Any) -> Any:
    return partial(call, "data", "prepare")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "no text cannot be split"),
        ("a.txt", b"just this", "one line cannot be split"),
        ("a.txt", b"same\n\n\nsame", "one line cannot be split"),
        ("a.txt", b"ab\n\n\nc\0d", "is not text: byte 6 is zero"),
        ("a.txt", b"ab\n\n\nc\xffd", "is not UTF-8: byte 6 is 0xff"),
        ("a.jsonl", b'{"text": "a"}\nnope', "line 2 is no JSON object with a text"),
        ("a.jsonl", b'{"text": "a"}\n\n{"body": "b"}', "line 3 is no JSON object"),
        (
            "a.jsonl",
            b'{"text": 7}',
            "line 1 is no JSON object with a text under 'text'",
        ),
        ("a.jsonl", b"[1]", "line 1 is no JSON object"),
        ("a.jsonl", b'{"text": "\\ud800"}', "line 1 is no JSON object"),
    ],
)
def test_files_that_are_no_text(
    call: Any, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    code, _, err = call(tmp_path / name, "--out", tmp_path / "out")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_command(call: Any, tmp_path: Path) -> None:
    lines = [json.dumps({"body": t}) for t in TALES]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    given = (tmp_path / "a.jsonl", "--field", "body", "--out", tmp_path / "out")
    code, out, _ = call(*given, "--vocab-size", 280)
    assert code == 0
    assert "40 documents" in out
    assert load_corpus(tmp_path / "out").tokenizer.vocab_size == 280
    code, _, err = call(*given)
    assert (code, "choose another name" in err) == (2, True)
    again = (*given[:-1], tmp_path / "again", "--tokenizer", tmp_path / "out")
    assert call(*again)[0] == 0
    ours = [(tmp_path / name / "train.npy").read_bytes() for name in ("out", "again")]
    assert ours[0] == ours[1]
    vocab = {i: bytes([i]) for i in range(256)}
    BPETokenizer(vocab, [], ["<x>"]).save(tmp_path / "no-end.json")
    code, _, err = call(
        *given[:-1], tmp_path / "x", "--tokenizer", tmp_path / "no-end.json"
    )
    assert (code, "has no <|endoftext|>" in err) == (2, True)
    code, _, err = call(tmp_path / "missing.txt", "--out", tmp_path / "x")
    assert (code, "missing.txt: No such file" in err) == (2, True)
    code, _, err = call(*given[:-1], tmp_path / "x", "--validation", 1)
    assert (code, "between 0 and 1; got 1.0" in err) == (2, True)
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_not_what_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match=r"no folder .* minillm data prepare"):
        load_corpus(folder)
    prepare([written(tmp_path, "a.txt", TALES)], folder, tokenizer=BYTES)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = BPETokenizer({**BYTES.vocab, 256: b"ab"}, [(b"a", b"b")], [END_OF_TEXT])
    other.save(tmp_path / "other.json")
    longer = folder / "longer.npy"
    np.save(longer, np.zeros(3, np.uint16))
    cases = [
        ("tokenizer.json", (tmp_path / "other.json").read_bytes(), "another tokenizer"),
        ("train.npy", files["train.npy"][:-9], "train.npy is damaged"),
        ("train.npy", longer.read_bytes(), "data.json counts"),
        ("validation.npy", b"", "validation.npy is damaged"),
        ("data.json", b"{}", "data.json is damaged"),
        ("data.json", b"{", "data.json is damaged"),
        ("data.json", None, "has no data.json"),
    ]
    for name, content, message in cases:
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
            load_corpus(folder)
        (folder / name).write_bytes(files[name])
    assert len(load_corpus(folder).training)


def test_the_embedded_corpus_counts_its_bytes() -> None:
    corpus = embedded_corpus(260)
    _, validation = data.split(data.andersen())
    n = sum(len(document.encode()) for document in validation)
    assert corpus.n_bytes(corpus.validation) == n
    assert corpus.documents == 118 - len(validation)
