"""Whatever is in a file: a right answer, or one clear error. See `tests/fuzz.py`."""

import json
import os
import random
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz import CUT, FOUND, LONGEST, TARGETS, attempt, damage, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
slow = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def memory_for_folders(monkeypatch):
    """Thousands of little folders need no disk."""
    if Path("/dev/shm").is_dir():
        monkeypatch.setattr("tempfile.tempdir", "/dev/shm")


def look(name, chance):
    """Damage a valid input by what `chance` says, and give it to a target."""
    data = damage(name, chance.choice(seeds(name)), chance)
    attempt(name, data)


@pytest.mark.parametrize("name", TARGETS)
def test_valid_files_are_read(name):
    assert {attempt(name, data) for data in seeds(name)} == {"read"}


@pytest.mark.parametrize("name", TARGETS)
@settings(slow, max_examples=40, derandomize=True)
@given(chance=st.randoms(use_true_random=False))
def test_damaged_files_are_read_right_or_refused(name, chance):
    look(name, chance)


@pytest.mark.check
@pytest.mark.parametrize("name", TARGETS)
@settings(slow, max_examples=300, derandomize=True)
@given(chance=st.randoms(use_true_random=False))
def test_many_damaged_files(name, chance):
    look(name, chance)


@pytest.mark.parametrize("name", TARGETS)
def test_files_cut_short_and_files_missing(name):
    data = seeds(name)[0]
    for keep in sorted({0, 1, 7, 8, 9, len(data) // 3, len(data) - 1}):
        attempt(name, data[:keep])
    for n_parts in range(len(TARGETS[name].files)):
        attempt(name, CUT.join(data.split(CUT)[:n_parts]))


@pytest.mark.parametrize(
    "path",
    sorted(FOUND.glob("*/*")),
    ids=lambda p: f"{p.parent.name}-{p.name}",
)
def test_what_was_found_once(path):
    attempt(path.parent.name, path.read_bytes())


@pytest.mark.parametrize(
    ("pattern", "outcome"),
    [("(a|a)*b|c", "read"), ("a{9999999}", "refused"), ("(a{999}){999}", "refused")],
)
def test_a_pattern_may_be_a_trap(pattern, outcome, monkeypatch):
    """It is refused, or it ends with an error that says so when a text falls in."""
    from minillm.tokenizer import patterns as bpe_patterns

    monkeypatch.setattr(bpe_patterns, "PATIENCE", 0.2)
    document = json.loads(seeds("tokenizer")[1])
    document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern
    assert attempt("tokenizer", json.dumps(document).encode()) == outcome
    if outcome == "read":
        with pytest.raises(ValueError, match="takes too long for 'aaaaa"):
            bpe_patterns.pretokenize("a" * 40, pattern)


def test_the_search_would_find_something(monkeypatch):
    """A reader that trusts its files is caught by the same few attempts."""
    from minillm.files import llama_files as hub_files

    monkeypatch.setattr(
        hub_files, "read_json", lambda path: json.loads(path.read_text("utf-8"))
    )
    with pytest.raises(AssertionError, match=r"(JSON|Unicode)DecodeError"):
        for seed in range(1000):
            look("shards", random.Random(seed))


@pytest.mark.skipif(os.name != "posix", reason="memory is limited through the system")
def test_memory_and_time_are_limited(monkeypatch):
    import time

    from fuzz import Target

    def greedy(folder):
        bytearray(1 << 30)

    def hanging(folder):
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass

    monkeypatch.setattr("fuzz.SECONDS", 0.1)
    for read, error in ((greedy, MemoryError), (hanging, AssertionError)):
        bad = Target(("a",), lambda: [(b"",)], read)
        monkeypatch.setattr("fuzz.warm", {"bad": bad}.get)
        with pytest.raises(error):
            attempt("bad", b"")


# Many small values in few bytes, one large value, and nothing.
HOSTILE = {
    "lists": b"[" + b"[]," * 30_000 + b"[]]",
    "objects": b"{" + b",".join(b'"%d":{}' % i for i in range(12_000)) + b"}",
    "lines": b"\n" * 100_000,
    "words": b"YQ== 1\n" * 15_000,
    "long": b'"' + b"a" * 100_000 + b'"',
    "zeros": b"\0" * 100_000,
    "settings": b"[train]\n" + b"".join(b"a%d=[]\n" % i for i in range(12_000)),
}


# Python itself takes more for a program; the grader's process has a limit of its own.
@pytest.mark.check
@pytest.mark.parametrize("name", [name for name in TARGETS if name != "learner"])
def test_memory_is_a_multiple_of_the_file(name):
    """Python's own memory is counted: 22 times a list of lists, 98 times TOML."""
    for blob in HOSTILE.values():
        data = CUT.join([blob] * len(TARGETS[name].files))
        attempt(name, data)
        tracemalloc.start()
        try:
            attempt(name, data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # Texts are read in blocks of a megabyte, however small they are.
        assert peak < 120 * len(data) + (4 << 20)


@pytest.mark.parametrize(
    ("more", "outcome"),
    [pytest.param(0, "read", marks=pytest.mark.check), (1, "refused")],
)
@pytest.mark.parametrize("d_model", [4, 64, 512])
def test_a_long_context_is_read_or_refused_in_bounded_memory(d_model, more, outcome):
    """One number makes a table of all positions, whose width the weights decide."""
    from fuzz import files_of, scratch, small_model, small_tokenizers

    from minillm.files.folders import LARGEST_TABLE, save_llama

    context = 2 * LARGEST_TABLE // d_model + more
    with scratch() as folder:
        save_llama(small_model(d_model=d_model), folder, small_tokenizers()[0])
        facts = json.loads((folder / "config.json").read_bytes())
        parts = files_of(folder, "model.safetensors", "tokenizer.json")
    longer = json.dumps(facts | {"max_position_embeddings": context}).encode()
    data = CUT.join([*parts, longer, b"{}", b"{}"])
    assert attempt("llama", data) == outcome


class Hostile:
    """A result that answers no question."""

    def __eq__(self, other):
        raise RuntimeError("not comparable")

    def __repr__(self):
        raise RuntimeError("not shown")

    def __len__(self):
        return -1

    __hash__ = None


def knot():
    """A list that holds itself, and lists within lists."""
    inner = []
    inner.append(inner)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    return inner, deep


def raising(error):
    def candidate(*args):
        raise error

    return candidate


RESULTS = [
    *(None, float("nan"), float("inf"), 10**400, -1, "\ud800", b"\xff" * 10**6, ""),
    *(Hostile(), [Hostile()], Hostile, knot(), (i for i in range(3)), range(10**12)),
    *(np.zeros((0, 3)), np.array(["a"]), np.array([None]), torch.zeros(2, 0).bool()),
    *(torch.tensor(1j), torch.empty(1, device="meta"), {1: {2: {3: set()}}}, print),
]
ERRORS = [
    *(RecursionError(), MemoryError(), SystemExit(3), GeneratorExit(), StopIteration()),
    *(Exception("\ud800"), Warning(), OSError(1, "x" * 10**6), AssertionError()),
]


@pytest.mark.check
@pytest.mark.parametrize("i", range(len(RESULTS) + len(ERRORS)))
def test_the_grader_survives_any_result(i):
    from minillm.exercises import EXERCISES
    from minillm.exercises.grader import grade

    results = [lambda *args, r=result: r for result in RESULTS]
    candidate = [*results, *map(raising, ERRORS)][i]
    exercises = list(EXERCISES.values())
    for exercise in (exercises[i], exercises[-i - 1]):
        report = grade(exercise, candidate, examples=3, shrink=False)
        assert report.status == "wrong", report
        assert json.dumps(report.as_dict())
        assert all(len(line) < LONGEST for line in report.details())


if find_spec("atheris"):  # an extra of its own, which is not built everywhere

    @pytest.mark.check
    def test_the_coverage_guided_search_runs(tmp_path):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz", "settings"),
                *("--seconds", "1", "--corpus", str(tmp_path)),
            ],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "2 valid inputs: read, read" in done.stdout
        assert any((tmp_path / "settings").iterdir())
