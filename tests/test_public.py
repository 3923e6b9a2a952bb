"""The public interface: documented, shown at work, typed, and whole when installed."""

import ast
import doctest
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import minillm
from minillm.bpe import BPETokenizer
from minillm.exercises import EXERCISES
from minillm.tokenizer import tokenizer as bpe_tokenizer

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Public functions without an example, because one would show nothing: why, and what
# proves them instead. Everything else must be shown at work.
UNSHOWN = {
    "a command: docs/commands.md shows it, tests of its chapter run it": (
        "cli.app.main cli.clock.clock cli.data.clean cli.data.prepare "
        "cli.evaluate.evaluate "
        "cli.exercises.check cli.exercises.list_exercises cli.exercises.start "
        "cli.flops.cost cli.flops.disclose cli.flops.flops cli.generate.chat "
        "cli.generate.generate cli.lab.lab cli.lecture.lecture "
        "cli.notebook.notebook cli.tokenizer.decode cli.tokenizer.encode "
        "cli.tokenizer.show cli.tokenizer.train cli.train.train "
        "cli.tune.tune"
    ),
    "a notebook calls it: test_notebook runs the notebooks": (
        "cli.notebook_cells.like_a_prompt cli.notebook_cells.notebook "
        "cli.notebook_cells.show"
    ),
    "draws: test_figures draws it again": (
        "drawing.attention.attention_grid drawing.attention.distance_curve "
        "drawing.compression.compression_curve drawing.curation.bands_curve "
        "drawing.curation.leak_curves drawing.curation.threshold_curves "
        "drawing.figures.draw_all "
        "drawing.flops.context_curve drawing.flops.roofline_curve "
        "drawing.flops.shares_curve drawing.gradients.depth_curve "
        "drawing.gradients.error_curve drawing.kit.draw_roof drawing.kit.label_at "
        "drawing.kit.loss_curve drawing.kit.new_figure "
        "drawing.systems.blockwise_curves drawing.systems.clock_points "
        "drawing.kit.save_figure drawing.labs.draw_band drawing.labs.new_panels "
        "drawing.labs.save_light drawing.training.descent_curve "
        "drawing.training.schedule_curve runs.display.training_display "
        "runs.result.draw_loss"
    ),
    "trains or measures for seconds or minutes: tests of its chapter run it": (
        "corpus.prepare.embedded_corpus corpus.records.write_warc "
        "drawing.attention.learn_to_repeat drawing.compression.compression_points "
        "drawing.curation.banding_experiment drawing.gradients.measure_errors "
        "drawing.systems.measure_blockwise training.messages.measure_messages "
        "training.messages.measure_steps "
        "training.messages.messages_table "
        "labs.bench.learn labs.bench.read_results labs.bench.run_lab "
        "labs.learners.own labs.learners.pairs labs.learners.policy "
        "labs.repairs.seconds_per_megabyte labs.wordings.measure "
        "labs.wordings.says runs.demo.run_demo "
        "runs.milestones.Milestones runs.run.Run runs.tune.TuneRun runs.tune.begin "
        "runs.material.gather runs.tune.go_on runs.two_models.compare_models "
        "runs.two_models.measure "
        "training.mistakes.baselines"
    ),
    "writes pages of the site, which are compared, or starts processes": (
        "drawing.first_page.first_page_data drawing.first_page.write_first_page "
        "drawing.widgets.fallbacks drawing.widgets.sampling_data "
        "drawing.widgets.tokenize_data drawing.widgets.write_all "
        "exercises.pages.chapter_page exercises.pages.write_pages "
        "exercises.runner.grade_folder exercises.workbook.place files.opening.find "
        "tokenizer.parallel.processes training.ranks.run_ranks"
    ),
}


# A right answer to the exercise bpe.merge, as a learner would write it.
MERGE = """
def merge(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == tuple(pair):
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out
"""


def modules() -> Iterator[ModuleType]:
    yield minillm
    for found in pkgutil.walk_packages(minillm.__path__, "minillm."):
        # Stubs are for learners to fill in; __main__ runs the command line.
        if ".stubs" not in found.name and found.name != "minillm.__main__":
            yield importlib.import_module(found.name)


def public() -> Iterator[tuple[str, Any]]:
    """Every public function and class, under the name of the module that defines it."""
    for module in modules():
        for name in module.__all__:
            thing = getattr(module, name)
            here = getattr(thing, "__module__", None) == module.__name__
            if here and callable(thing):  # and not a configuration, say
                short = f"{module.__name__}.{name}".removeprefix("minillm.")
                yield short, thing


def shown() -> list[Any]:
    """Every object that an example names, found as the example would find it."""
    finder, parser = doctest.DocTestFinder(), doctest.DocTestParser()
    tests = [test for module in modules() for test in finder.find(module)]
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        tests.append(parser.get_doctest(text, {}, path.name, str(path), 0))
    found = []
    for test in tests:
        names: dict[str, Any] = dict(test.globs)
        for example in test.examples:
            for node in ast.walk(ast.parse(example.source)):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    exec(compile(ast.Module([node], []), "example", "exec"), names)
                elif isinstance(node, ast.Name):
                    found.append(names.get(node.id))
                elif isinstance(node, ast.Attribute) and isinstance(
                    node.value, ast.Name
                ):
                    owner = names.get(node.value.id)
                    found.append(getattr(owner, node.attr, None))
    return found


def without_example() -> set[str]:
    named = {id(thing) for thing in shown()}
    return {
        name
        for name, thing in public()
        # A record is shown by what returns it.
        if not is_dataclass(thing)
        and not (inspect.isclass(thing) and issubclass(thing, tuple))
        and callable(thing)
        and id(thing) not in named
    }


def test_every_public_name_is_documented() -> None:
    absent = []
    for name, thing in public():
        absent += [name] * (not inspect.getdoc(thing))
        for member, value in vars(thing).items() if inspect.isclass(thing) else ():
            function = getattr(value, "fget", getattr(value, "__func__", value))
            if inspect.isfunction(function) and not member.startswith("_"):
                absent += [f"{name}.{member}"] * (not function.__doc__)
    assert absent == []
    assert not [module for module in modules() if not module.__doc__]


def test_every_public_function_is_shown_at_work() -> None:
    """By an example that pytest runs, unless the list above says why not."""
    listed = {name for names in UNSHOWN.values() for name in names.split()}
    assert without_example() == listed


def test_every_method_of_the_tokenizer_is_shown_at_work() -> None:
    tests = doctest.DocTestFinder().find(bpe_tokenizer)
    examples = "".join(example.source for test in tests for example in test.examples)
    methods = [name for name in vars(BPETokenizer) if not name.startswith("_")]
    assert [name for name in methods if f".{name}" not in examples] == []


# Installed, without the repository


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | {"PYTHONUTF8": "1"} | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive of the repository, and the wheel built from that alone."""
    folder = tmp_path_factory.mktemp("built")
    hatch = (sys.executable, "-m", "hatchling", "build", "-d", folder)
    run(*hatch, "-t", "sdist", cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    run(*hatch, "-t", "wheel", cwd=source)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory):
    """A new environment with the wheel, and beside it only our dependencies."""
    folder = tmp_path_factory.mktemp("an environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", code, cwd=folder).strip())
    # Files that end in .pth are not followed there, so our own checkout is not seen.
    there = sysconfig.get_path("purelib")
    (packages / "dependencies.pth").write_text(there, encoding="utf-8")
    install = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index")
    run(sys.executable, *install, built[1], cwd=folder)
    return python, packages


@pytest.mark.check
def test_the_wheel_is_small_and_has_everything(built: tuple[Path, Path]) -> None:
    assert built[1].stat().st_size < 3_000_000
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "minillm", "images", "py.typed"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout.split()
    ours = {name for name in names if ".dist-info/" not in name}
    inside = [n if n.startswith("minillm/") else f"minillm/{n}" for n in tracked]
    assert ours == set(inside)
    licenses = {Path(name).name for name in names if "/licenses/" in name}
    assert licenses == {"LICENSE", "NOTICE"}


@pytest.mark.check
def test_the_installed_package_works_without_the_repository(
    installed: tuple[Path, Path], tmp_path: Path
) -> None:
    python, packages = installed
    away = tmp_path / "ein Ordner für Übungen"
    away.mkdir()
    command = python.parent / "minillm"

    code = "import minillm, sys; print(minillm.__file__, 'torch' in sys.modules)"
    said = run(python, "-c", code, cwd=away)
    assert said == f"{packages / 'minillm' / '__init__.py'} False\n"
    assert minillm.__version__ in run(command, "--version", cwd=away)
    assert "demo" in run(command, "--help", cwd=away)
    code = "from minillm.data import andersen; print(len(andersen()))"
    assert int(run(python, "-c", code, cwd=away)) > 100

    said = run(command, "demo", "--steps", "50", cwd=away, OMP_NUM_THREADS="1")
    assert "Once upon a time" in said
    assert (away / "runs" / "demo" / "model.safetensors").exists()

    run(command, "exercises", "start", "Übungen 1", cwd=away)
    stub = away / "Übungen 1" / "bpe.py"
    text = stub.read_text(encoding="utf-8")
    assert "def merge(" in text
    own = text.replace("def merge(", "def unused(") + MERGE
    stub.write_text(own, encoding="utf-8")
    said = run(command, "exercises", "check", "bpe.merge", "Übungen 1", cwd=away)
    assert f"1 of {len(EXERCISES)} done" in said


@pytest.mark.check
@pytest.mark.parametrize("chapter", ["bpe", "emergence"])
def test_the_installed_package_gives_its_lectures(
    installed: tuple[Path, Path], tmp_path: Path, chapter: str
) -> None:
    run(installed[0], "-m", "minillm", "lecture", chapter, "--all", cwd=tmp_path)
