"""The widgets: their data is what the package computes today."""

import math
from itertools import pairwise

import pytest

from minillm.bpe import BPETokenizer, WordTokenizer, train_bpe_naive
from minillm.data import andersen, split
from minillm.drawing.widgets import (
    PAGES,
    PROMPTS,
    SCRIPTS,
    VOCAB_SIZES,
    WATCHED,
    read,
    watch_data,
    write_all,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("widgets")
    return {path.name: path for path in write_all(folder, folder)}


def test_computing_again_gives_the_committed_files(written):
    assert len(written) == 9
    for name, path in written.items():
        committed = (SCRIPTS if name.endswith(".js") else PAGES) / name
        assert path.read_bytes() == committed.read_bytes(), name


@pytest.mark.parametrize("title", WATCHED)
def test_the_states_are_those_of_a_training(title):
    text, n_merges = WATCHED[title]
    states = watch_data(text, n_merges)
    _, merges = train_bpe_naive([text], 256 + n_merges)
    assert len(states) == n_merges + 1
    for state, after, (left, right) in zip(states, states[1:], merges, strict=False):
        # The pair on top is the one that training merges.
        first, second, count = state["pairs"][0]
        assert (first.encode("latin-1"), second.encode("latin-1")) == (left, right)
        assert after["made"] == first + second
        # It is counted inside pre-tokens, and so often it is merged, or less often
        # where occurrences overlap.
        pairs = [pair for piece in state["pieces"] for pair in pairwise(piece)]
        assert pairs.count((first, second)) == count >= 2
        shorter = sum(map(len, state["pieces"])) - sum(map(len, after["pieces"]))
        assert 0 < shorter <= count
    for state in states:
        whole = "".join("".join(piece) for piece in state["pieces"])
        assert whole.encode("latin-1").decode() == text


def test_the_merges_are_those_of_the_tales():
    data = read("tokenize")
    training, _ = split(andersen())
    vocab = {i: bytes([i]) for i in range(256)}
    for a, b in zip(data["merges"][::2], data["merges"][1::2], strict=True):
        vocab[len(vocab)] = vocab[a] + vocab[b]
    # Each size is what training stops at: the merges of a smaller one come first.
    for size in VOCAB_SIZES[:2]:
        tokenizer = BPETokenizer.train(training, size)
        assert tokenizer.vocab == {i: vocab[i] for i in range(size)}
    assert ["<unk>", *data["words"]] == WordTokenizer("\n\n\n".join(training)).words


def test_the_scores_belong_to_the_vocabulary_of_the_demo():
    data = read("sampling")
    training, _ = split(andersen())
    tokenizer = BPETokenizer.train(training, 2048, ["<|endoftext|>"])
    expected = [tokenizer.vocab[i].decode("latin-1") for i in range(2048)]
    assert data["tokens"] == expected
    assert set(data["prompts"]) == set(PROMPTS)
    for logits in data["prompts"].values():
        assert len(logits) == 2048 and max(logits) == 0


def test_a_fixed_number_of_tokens_keeps_as_much_as_the_pages_say():
    kept = []
    for logits in read("sampling")["prompts"].values():
        weights = sorted((math.exp(x) for x in logits), reverse=True)
        kept.append(sum(weights[:8]) / sum(weights))
    assert max(kept) == pytest.approx(1 / 2, abs=0.03)
    assert min(kept) == pytest.approx(1 / 6, abs=0.01)
