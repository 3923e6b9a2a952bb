"""The house: the folder listing is the syllabus, and its rooms build on each other."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import minillm

PACKAGE = Path(minillm.__file__).parent
SYLLABUS = re.findall(r"^\d+\. \[`minillm\.(\w+)`\]", minillm.__doc__ or "", re.M)

# What a chapter needs beside it: shapes, positions, texts, and files of other programs.
BESIDE = {"config", "rope", "data", "hub"}

# The chapter that stands in front of each room. A room never looks into it, nor into a
# later one. Rooms without a chapter build on all of them, and no chapter on those.
ROOMS = {
    "tokenizer": "bpe",
    "training": "train",
    "inference": "generate",
    "accounting": "flops",
    "labs": "emergence",
    "files": "hub",
}
BEHIND = {"runs", "cli", "drawing", "exercises"}
# One room of several chapters: the corpus stands behind data, and behind curation.
SHARED = {"corpus"}
# In the order of reading: what is beside the chapters stands where it is first needed.
ORDER = [
    *("bpe", "data", "rope", "attention", "config", "model", "gradients", "train"),
    *("generate", "flops", "systems", "curation", "emergence", "posttraining"),
    *("evaluation", "hub"),
]


def modules() -> dict[str, Path]:
    """Every module by its dotted name; a package goes by its own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if "stubs" not in parts:
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports anywhere: lazily, or for types only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


GRAPH = {name: set(imports(path)) - {name} for name, path in MODULES.items()}


def room(module: str) -> str:
    """The package inside ours that a module lies in; of a chapter, its own name."""
    return module.split(".")[1] if "." in module else ""


def test_the_top_level_is_the_syllabus() -> None:
    top = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert top == set(SYLLABUS) | BESIDE
    assert len(SYLLABUS) >= 7
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == set(ROOMS) | BEHIND | SHARED
    assert set(ORDER) >= top
    assert len([p for p in PACKAGE.iterdir() if p.name != "__pycache__"]) < 30


def test_the_chapters_stand_in_the_order_of_reading() -> None:
    assert [name for name in ORDER if name in SYLLABUS] == SYLLABUS


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_a_room_never_imports_its_own_chapter_or_a_later_one(package: str) -> None:
    later = {f"minillm.{name}" for name in ORDER[ORDER.index(ROOMS[package]) :]}
    later |= {m for m in MODULES if room(m) in BEHIND}
    inside = {module: GRAPH[module] for module in MODULES if room(module) == package}
    assert len(inside) > 1
    assert {module: found & later for module, found in inside.items()} == {
        module: set() for module in inside
    }


def test_no_chapter_builds_on_what_is_behind_the_scenes() -> None:
    behind = {m for m in MODULES if room(m) in BEHIND}
    assert {name: GRAPH[f"minillm.{name}"] & behind for name in SYLLABUS} == {
        name: set() for name in SYLLABUS
    }


def test_no_import_goes_in_a_circle() -> None:
    try:
        list(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_a_circle_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "lazy.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
        "    from minillm import bpe\ndef f():\n    from minillm.files import writing\n"
        "    from minillm.model import Linear\n    import minillm.data\n",
        encoding="utf-8",
    )
    assert set(imports(path)) == {
        *("minillm.bpe", "minillm.files.writing", "minillm.model", "minillm.data")
    }


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    names = {name.rpartition(".")[2] for name in MODULES} - {"__main__"}
    assert names & sys.stdlib_module_names == set()
