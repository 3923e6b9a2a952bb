"""The project around the package: what README, Makefile and pins promise."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import minillm

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "module", ["minillm", "minillm.bpe", "minillm.gradients", "minillm.flops"]
)
def test_importing_needs_no_torch(module):
    code = (
        f"import sys, {module}; print(sorted(sys.modules.keys() & {{'torch', 'rich'}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_flops_needs_nothing_but_the_standard_library():
    """Without site-packages, the chapter still imports and counts."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from minillm.config import ModelConfig\n"
        "from minillm.flops import forward_flops\n"
        "print(forward_flops(ModelConfig(10, 4, 8, 1, 2), 1, 4).total > 0)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True"


def test_readme_commands_are_targets():
    targets = set(re.findall(r"^([a-z0-9]+):", read("Makefile"), re.MULTILINE))
    promises = read("README.md") + read(".ci/run")
    promised = set(re.findall(r"`?make ([a-z0-9]+)", promises))
    assert promised - {"generate"} <= targets
    assert {"demo", "test", "check", "course", "serve", "figures", "bench"} <= targets


def test_readme_names_every_folder():
    named = set(re.findall(r"^\| `([a-z]+)/`", read("README.md"), re.MULTILINE))
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    folders = {
        line.split("/")[0] for line in tracked.stdout.splitlines() if "/" in line
    }
    assert folders - {".ci"} == named - {"runs", "models", "notebooks"}


def test_every_dependency_is_pinned_within_its_range():
    pins = dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)$", read("constraints.txt"), re.M))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    extras = PROJECT["optional-dependencies"]
    for line in [*PROJECT["dependencies"], *(d for e in extras.values() for d in e)]:
        requirement = Requirement(line)
        if requirement.name == "minillm":
            continue
        assert requirement.name in pins, f"{requirement.name} has no pin"
        assert requirement.specifier.contains(pins[requirement.name])


def test_classifiers_claim_what_is_tested():
    named = "Programming Language :: Python :: "
    claimed = {c.removeprefix(named) for c in PROJECT["classifiers"] if named in c}
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert claimed == {oldest}
    if os.environ.get("CI") == "true":
        assert f"{sys.version_info.major}.{sys.version_info.minor}" in claimed


def test_versions_agree():
    assert f"\nversion: {minillm.__version__}\n" in read("CITATION.cff")
    assert f"## {minillm.__version__}" in read("CHANGELOG.md")


def test_corpus_is_recorded():
    import hashlib

    corpus = (ROOT / "minillm" / "corpus" / "andersen.txt").read_bytes()
    # The text is data that every number of the demo depends on.
    assert hashlib.sha256(corpus).hexdigest() == (
        "3078d248041dac72e4c4ead23dcc94db2190a7d1d77e67e0424a27a6eb8369b4"
    )
    assert "minillm/corpus/andersen.txt" in read("NOTICE")


def test_the_vocabulary_is_checked(tmp_path, monkeypatch):
    """A phrase is found in prose and comments, not in code and not where allowed."""
    vocabulary = pytest.importorskip("vocabulary")
    monkeypatch.setattr(vocabulary, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("A row of ids.\n\n```\nrow of ids\n```\n", encoding="utf-8")
    assert [line.split(": ")[0] for line in vocabulary.reminders(page)] == ["page.md:1"]
    module = tmp_path / "module.py"
    module.write_text(
        '"""Whoever reads.\n\n>>> "row of ids"\n"""\nrow_of_ids = 1  # blank lines\n',
        encoding="utf-8",
    )
    assert [line[:11] for line in vocabulary.reminders(module)] == ["module.py:1"]
    monkeypatch.setattr(vocabulary, "ALLOWED", {"page.md": ("A row",)})
    assert not list(vocabulary.reminders(page))


def test_no_phrase_is_left():
    vocabulary = pytest.importorskip("vocabulary")
    files = vocabulary.files()
    assert len(files) > 200
    assert [line for path in files for line in vocabulary.reminders(path)] == []
