"""What we write, read by other programs; what they write, read by us."""

import json
import os
import subprocess
import sys

import crossings
import pytest
from fixtures import FOLDER

from minillm.bpe import BPETokenizer
from minillm.data import andersen


def test_the_table_says_what_we_promise():
    """`tokenizers` in the version of today reads all; nobody but tokie misreads."""
    rows = [
        [cell.strip() for cell in line.replace(r"\|", "/").split("|")[1:-1]]
        for line in crossings.TABLE.read_text(encoding="utf-8").splitlines()
    ]
    assert [row[0].replace("/", "|") for row in rows[2:]] == list(crossings.ROWS)
    assert {row[1] for row in rows[2:]} == {"equal"}
    assert sum(row.count("**other ids**") for row in rows) == 1


@pytest.mark.check
def test_other_programs_read_what_we_write():
    missing = [p for p in crossings.READERS if crossings.version(p) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{missing} are not there: run `make fixtures`")
    programs = [p for p in crossings.READERS if p not in missing]
    expected = [
        [cell.strip() for cell in line.replace(r"\|", "\0").split("|")[1:-1]]
        for line in crossings.TABLE.read_text(encoding="utf-8").splitlines()
    ]
    del expected[1]
    columns = [0, *[1 + list(crossings.READERS).index(p) for p in programs]]
    expected = [[row[i].replace("\0", r"\|") for i in columns] for row in expected]
    assert crossings.table(programs) == expected
    if missing:
        pytest.skip(f"{missing} are not there: `make fixtures` and Node bring them")


BPEASY = """
import json, sys
from bpeasy.tokenizer import BPEasyTokenizer
texts = json.load(sys.stdin)
theirs = BPEasyTokenizer.train(
    iter(texts), vocab_size=700, special_tokens=["<|end|>"], max_token_length=64
)
theirs.export_to_huggingface_format(sys.argv[1])
ids = [theirs.encode(text, allowed_special="all") for text in texts]
tokens = sorted(theirs.vocab, key=theirs.vocab.get)
print(json.dumps([ids, [token.hex() for token in tokens]]))
"""


@pytest.mark.check
def test_we_read_and_learn_what_bpeasy_does(tmp_path):
    folder = FOLDER / "programs" / "bpeasy"
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail("bpeasy is not there: run `make fixtures`")
        pytest.skip("bpeasy is not there; `make fixtures` brings it")
    texts = andersen()[:6]
    path = tmp_path / "tokenizer.json"
    result = subprocess.run(
        [sys.executable, "-c", BPEASY, str(path)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(folder)},
        check=True,
    )
    ids, tokens = json.loads(result.stdout)
    ours = BPETokenizer.load(path)
    assert [ours.encode(text, "all") for text in texts] == ids
    # Ties are broken by their rule.
    learned = BPETokenizer.train(
        texts, 700, ["<|end|>"], pattern=ours.pattern, tie_break="ids"
    )
    expected = [bytes.fromhex(token) for token in tokens[256:]]
    assert [left + right for left, right in learned.merges] == expected[:443]


def test_same_merges_as_rustbpe():
    rustbpe = pytest.importorskip("rustbpe")
    texts = andersen()[:20]
    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator(iter(texts), 1200, pattern=crossings.LLAMA3_PATTERN)
    ranks = {bytes(token): rank for token, rank in theirs.get_mergeable_ranks()}
    tokens = sorted(ranks, key=ranks.__getitem__)
    ours = BPETokenizer.train(
        texts, 1200, pattern=crossings.LLAMA3_PATTERN, tie_break="ids"
    )
    assert [left + right for left, right in ours.merges] == tokens[256:]
    assert len(ours.merges) == 944
