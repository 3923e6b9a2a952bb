"""Texts and tokenizers that many tests read, made once."""

import re
import shutil

import pytest
from bpe_cases import END, PATTERNS, TIKTOKEN_CACHE, TIKTOKEN_PATTERNS, TURNS
from fixtures import fixture

from minillm.bpe import BPETokenizer
from minillm.data import andersen


@pytest.fixture(scope="session")
def tales():
    return andersen()


@pytest.fixture(scope="session")
def trained(tales):
    """A tokenizer of each pattern, learned from text in which every turn occurs."""
    mixed = [*tales[:20], TURNS * 3, *(TURNS[i : i + 4] for i in range(len(TURNS)))]
    return {
        name: BPETokenizer.train(mixed, 1500, [END, "<e>", "<e><e>"], pattern=pattern)
        for name, pattern in PATTERNS.items()
    }


@pytest.fixture(scope="session")
def udhr():
    html = fixture("udhr.html").read_text(encoding="utf-8")
    return re.sub(r"<[^>]+>", " ", html)[:1_500_000]


@pytest.fixture(scope="session")
def tiktoken_encoding(tmp_path_factory):
    """tiktoken's own tokenizers, from a folder of ours so that it asks no network."""
    tiktoken = pytest.importorskip("tiktoken")
    folder = tmp_path_factory.mktemp("tiktoken")
    for name, cached in TIKTOKEN_CACHE.items():
        shutil.copy(fixture(name), folder / cached)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        yield tiktoken.get_encoding


@pytest.fixture(scope="session")
def gpt2():
    return BPETokenizer.from_gpt2_files(
        fixture("gpt2/encoder.json"), fixture("gpt2/vocab.bpe")
    )


@pytest.fixture(scope="session")
def like_tiktoken(gpt2, tiktoken_encoding):
    """Ours and theirs, for each of tiktoken's names."""
    pairs = {"gpt2": (gpt2, tiktoken_encoding("gpt2"))}
    for name, pattern in TIKTOKEN_PATTERNS.items():
        theirs = tiktoken_encoding(name)
        specials = theirs._special_tokens
        path = fixture(f"{name}.tiktoken")
        ours = BPETokenizer.from_tiktoken_file(path, pattern, specials)
        pairs[name] = (ours, theirs)
    return pairs
