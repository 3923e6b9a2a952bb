"""Whatever is in a file: a right answer, or one clear error. See `tests/fuzz.py`."""

import os
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from fuzz import CUT, FOUND, TARGETS, attempt, damage, seeds
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
@settings(slow, max_examples=40)
@given(chance=st.randoms(use_true_random=False))
def test_damaged_files_are_read_right_or_refused(name, chance):
    look(name, chance)


@pytest.mark.check
@pytest.mark.parametrize("name", TARGETS)
@settings(slow, max_examples=500)
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


def test_the_search_would_find_something(monkeypatch):
    """A reader that trusts its files is caught by the same few attempts."""
    import json

    from minillm import hub_files

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
