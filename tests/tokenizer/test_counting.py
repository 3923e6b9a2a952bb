"""Counting words: in any number of processes, in bounded memory."""

import concurrent.futures
import random
import tracemalloc
from unittest.mock import Mock

import numpy as np
import pytest
from bpe_cases import END, PATTERNS, TIE_BREAKS

from minillm.bpe import BPETokenizer, train_bpe


@pytest.mark.parametrize("tie_break", TIE_BREAKS)
def test_parallel_counting_changes_nothing(tales, monkeypatch, tmp_path, tie_break):
    monkeypatch.setattr("minillm.tokenizer.streams.BLOCK", 20_000)
    monkeypatch.setattr("minillm.tokenizer.parallel.TASK", 20_000)
    path = tmp_path / "tales.txt"
    path.write_bytes(END.join(tales[:20]).encode())
    for source in (tales[:20], path):
        alone = train_bpe(source, 600, [END], tie_break=tie_break)
        with concurrent.futures.ThreadPoolExecutor(3) as executor:
            executor.submit = Mock(wraps=executor.submit)
            options = {"executor": executor, "workers": 3, "tie_break": tie_break}
            assert train_bpe(source, 600, [END], **options) == alone
        assert executor.submit.call_count > 3


def test_processes_change_nothing(tales, tmp_path):
    documents = tales[:30]
    assert train_bpe(documents, 500, workers=2) == train_bpe(documents, 500)
    tokenizer = BPETokenizer.train(documents, 500, [END])
    expected = [tokenizer.encode(tale) for tale in documents]
    assert [list(ids) for ids in tokenizer.encode_batch(documents, 2)] == expected
    path = tmp_path / "tales.txt"
    path.write_bytes("".join(documents).encode())
    tokenizer.encode_file(path, tmp_path / "ids.npy", workers=2)
    ids = np.load(tmp_path / "ids.npy", mmap_mode="r")
    assert ids.tolist() == tokenizer.encode("".join(documents))


@pytest.mark.parametrize("name", ["gpt2", "other"])
def test_memory_grows_with_distinct_words_only(monkeypatch, tmp_path, name):
    pattern = PATTERNS.get(name, r"\w+|\W+")
    for place in ("streams.BLOCK", "parallel.TASK", "arrays.AT_ONCE", "runs.AT_ONCE"):
        monkeypatch.setattr(f"minillm.tokenizer.{place}", 1 << 14)
    words = [f" {letter}{number}" for letter in "abcdef" for number in range(50)]

    def stream(n):
        generator = random.Random(0)
        for _ in range(n):
            yield "".join(generator.choices(words, k=2000))

    def peak(source):
        tracemalloc.start()
        train_bpe(source, 300, pattern=pattern)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(stream(1))  # Imports, and what is cached, are paid for once.
    # The text gets longer by 150,000 bytes, the memory does not.
    assert peak(stream(28)) - peak(stream(8)) < 30_000
    # A file cannot be cut by a pattern of which nothing is proved.
    if name in PATTERNS:
        short, long = tmp_path / "short.txt", tmp_path / "long.txt"
        short.write_text("\n".join(stream(8)), encoding="utf-8")
        long.write_text("\n".join(stream(28)), encoding="utf-8")
        assert long.stat().st_size - short.stat().st_size > 150_000
        peak(short)
        assert peak(long) - peak(short) < 30_000


def test_no_workers():
    with pytest.raises(ValueError, match="at least 1"):
        train_bpe(["ab"], 300, workers=0)


@pytest.mark.check
def test_a_cluster_counts_like_one_process(tales, tmp_path, monkeypatch):
    """Dask's workers are processes that share nothing with this one but a socket."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("minillm.tokenizer.streams.BLOCK", 50_000)
    monkeypatch.setattr("minillm.tokenizer.parallel.TASK", 50_000)
    path = tmp_path / "tales.txt"
    path.write_bytes(END.join(tales[:40]).encode())
    alone = train_bpe(path, 1000, [END], tie_break="first")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):
        workers = set(client.run(lambda: __import__("os").getpid()).values())
        there = train_bpe(
            path, 1000, [END], tie_break="first", executor=executor, workers=2
        )
    assert len(workers) == 2 and there == alone
