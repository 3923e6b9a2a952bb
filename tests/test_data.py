"""Text: the embedded corpus, files good and bad, the cut, and the sequence of ids."""

import hashlib
import itertools
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from minillm.bpe import BPETokenizer
from minillm.data import END_OF_TEXT, andersen, read_documents, split, tokenize

BYTES = {i: bytes([i]) for i in range(256)}
SHA256 = "3078d248041dac72e4c4ead23dcc94db2190a7d1d77e67e0424a27a6eb8369b4"


def read(folder: Path, data: bytes) -> list[str]:
    (folder / "text.txt").write_bytes(data)
    return read_documents(folder / "text.txt")


# The embedded corpus


def test_the_corpus_is_what_it_was() -> None:
    data = (files("minillm") / "corpus" / "andersen.txt").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256


def test_the_tales() -> None:
    tales = andersen()
    assert len(tales) == len(set(tales)) == 118
    titles = []
    for tale in tales:
        assert tale.isascii()
        assert "\r" not in tale
        title, blank, *rest = tale.split("\n")
        assert title.isupper()
        assert blank == ""
        assert len("\n".join(rest)) > 500
        titles.append(title)
    assert len(set(titles)) == 118
    assert {"THE UGLY DUCKLING", "THE LITTLE MERMAID", "THE SNOW QUEEN"} <= {*titles}


def test_the_corpus_is_a_file_like_any_other(tmp_path: Path) -> None:
    data = (files("minillm") / "corpus" / "andersen.txt").read_bytes()
    assert read(tmp_path, data) == andersen()


# Files


def test_documents_are_cut_at_two_blank_lines(tmp_path: Path) -> None:
    text = b"\n\nOne.\n\nStill one.\n\n\nTwo.\n\n\n\n\n  Three.\n"
    documents = ["One.\n\nStill one.", "Two.", "  Three."]
    assert read(tmp_path, text) == documents
    assert read_documents(str(tmp_path / "text.txt")) == documents
    assert read(tmp_path, text.replace(b"\n", b"\r\n")) == documents
    assert read(tmp_path, b"\xef\xbb\xbf" + text) == documents


def is_document(text: str) -> bool:
    cuts = "\n\n\n" in text or text != text.strip("\n")
    return not cuts and bool(text.strip()) and not text.startswith("\ufeff")


PLAIN = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n")
DOCUMENTS = st.lists(
    st.text(st.one_of(PLAIN, st.just("\n"))).filter(is_document), min_size=1, max_size=5
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DOCUMENTS, st.integers(3, 6), st.booleans(), st.booleans())
def test_documents_written_are_documents_read(
    tmp_path: Path, documents: list[str], n: int, crlf: bool, bom: bool
) -> None:
    text = ("\n" * n).join(documents)
    text = text.replace("\n", "\r\n") if crlf else text
    assert read(tmp_path, text.encode("utf-8-sig" if bom else "utf-8")) == documents


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty: bring some text"),
        (b"\n \n\n\n\t\r\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"ab\0cd", "is not text: byte 2 is zero; bring a text file"),
        ("ä\0".encode(), "byte 2 is zero"),
        (b"\xef\xbb\xbf\0", "byte 3 is zero"),
        ("Märchen".encode("latin-1"), "is not UTF-8: byte 1 is 0xe4"),
        ("äöü".encode() + b"\xff", "byte 6 is 0xff"),
        (b"\xef\xbb\xbfab\xff", "byte 5 is 0xff"),
        ("tale".encode("utf-16"), "is not UTF-8: byte 0 is 0xff"),
        ("tale".encode("utf-16-le"), "is not text: byte 1 is zero"),
        (b"cut off: \xc3", "byte 9 is 0xc3"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"text\.txt .*{message}"):
        read(tmp_path, data)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_documents(tmp_path / "missing.txt")


# The cut


@settings(deadline=None)
@given(
    st.lists(st.text("ab", max_size=9), min_size=2, max_size=9),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
)
@example(["", ""], 0.5)
def test_the_cut_is_the_closest_there_is(documents: list[str], fraction: float) -> None:
    before = list(documents)
    training, validation = split(documents, fraction)
    assert training + validation == documents == before
    assert training and validation
    total = sum(map(len, documents))

    def distance(left: Sequence[str]) -> float:
        return abs(sum(map(len, left)) - (1 - fraction) * total)

    possible = [distance(documents[:i]) for i in range(1, len(documents))]
    assert distance(training) == pytest.approx(min(possible))


def test_the_last_tenth_of_the_tales() -> None:
    training, validation = split(andersen())
    sizes = [sum(map(len, part)) for part in (training, validation)]
    assert sizes[1] / sum(sizes) == pytest.approx(0.1, abs=0.01)
    assert split(andersen(), 0.1) == (training, validation)


def test_what_cannot_be_split() -> None:
    for documents in ([], ["one"]):
        with pytest.raises(ValueError, match="one document cannot be split: put two"):
            split(documents)
    for fraction in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"between 0 and 1; got {fraction}"):
            split(["a", "b"], fraction)


# The sequence of ids


@settings(deadline=None)
@given(st.lists(st.text(), max_size=4))
@example(["<|endoftext|>"])
def test_the_documents_can_be_read_off_the_row(documents: list[str]) -> None:
    tokenizer = BPETokenizer(BYTES, [], [END_OF_TEXT])
    row = tokenize(documents, tokenizer)
    (ends,) = np.nonzero(row == 256)
    # One before all, and one after each; what only looks like one is text.
    assert ends[0] == 0
    assert ends[-1] == len(row) - 1
    assert len(ends) == len(documents) + 1
    between = itertools.pairwise(ends)
    assert [bytes(row[a + 1 : b].tolist()).decode() for a, b in between] == documents


def test_merges_do_not_cross_documents() -> None:
    tokenizer = BPETokenizer.train(["abab"], 258, [END_OF_TEXT])
    assert tokenize(iter(["ab", "a", "b"]), tokenizer).tolist() == [
        257, 256, 257, 97, 257, 98, 257
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("largest_id", "dtype"),
    [(256, "uint16"), (65_535, "uint16"), (65_536, "uint32")],
)
def test_the_smallest_type_that_holds_the_ids(largest_id: int, dtype: str) -> None:
    tokenizer = BPETokenizer(BYTES, [], {END_OF_TEXT: largest_id})
    row = tokenize(["a"], tokenizer)
    assert row.dtype == dtype
    assert row.tolist() == [largest_id, 97, largest_id]


def test_a_tokenizer_without_the_end() -> None:
    with pytest.raises(ValueError, match=r"has no <\|endoftext\|>: train it with that"):
        tokenize(["a"], BPETokenizer(BYTES, [], ["<|end|>"]))
