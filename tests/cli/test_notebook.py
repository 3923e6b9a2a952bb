"""Each chapter is a notebook that runs from top to bottom and prints what it says."""

import doctest
import importlib.util
import json
import os
import re
import sys

import pytest

from minillm.cli.chapter_parts import Part, Run, chapters, find, parts
from minillm.cli.lecture_script import lecture_steps
from minillm.cli.notebook import notebook as command
from minillm.cli.notebook_cells import (
    chapter_cells,
    exercise_cells,
    import_lines,
    like_a_prompt,
    notebook,
    source,
)
from minillm.cli.notebook_prose import markdown
from minillm.exercises import EXERCISES

NAMES = list(chapters().values())


def missing(name):
    """Skip on a user's machine, fail where everything should be installed."""
    if importlib.util.find_spec(name) is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} is not installed: pip install -e '.[notebook,test]'")
    return pytest.importorskip(name)


def printed(cell):
    """What a cell printed, and the error that ended it, as at a prompt."""
    out, error = "", None
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            out += output.text
        elif output.output_type == "execute_result":
            out += output.data["text/plain"] + "\n"
        elif output.output_type == "error":
            error = f"{output.ename}: {output.evalue}\n"
    return out, error


def is_as_told(example, cell):
    """Whether a cell printed what its example says, by the rules of doctest."""
    out, error = printed(cell)
    flags = sum(flag for flag, on in example.options.items() if on)
    check = doctest.OutputChecker().check_output
    if example.exc_msg is not None:
        return error is not None and check(example.exc_msg, error, flags)
    return error is None and check(example.want, out, flags)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One kernel for all: starting one and importing PyTorch takes seconds."""
    for name in ("nbclient", "ipykernel"):
        missing(name)
    from jupyter_client.manager import KernelManager

    manager = KernelManager()
    folder = tmp_path_factory.mktemp("kernel")
    manager.start_kernel(env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=str(folder))
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def execute(text, kernel):
    """Run a notebook in a kernel that is there, from a clean namespace."""
    import nbformat
    from nbclient import NotebookClient

    made = nbformat.reads(text, as_version=4)
    manager, client = kernel
    runner = NotebookClient(made, km=manager, timeout=60, allow_errors=True)
    runner.kc = client
    reset = nbformat.v4.new_code_cell("%reset -f")
    made.cells.insert(0, reset)
    runner.execute(reset_kc=False)
    return made.cells[1:]


@pytest.mark.check
@pytest.mark.filterwarnings("ignore")  # of other people's event loops
@pytest.mark.parametrize("chapter", NAMES)
def test_a_notebook_prints_what_the_chapter_says(chapter, kernel):
    cells = chapter_cells(chapter)
    graded = exercise_cells(chapter)
    ran = execute(notebook(chapter), kernel)
    assert len(ran) == len(cells) + len(graded)
    wrong = [
        (cell.text, printed(done))
        for cell, done in zip(cells, ran, strict=False)
        if cell.example and not is_as_told(cell.example, done)
    ]
    assert wrong == []
    for cell, done in zip([*cells, *graded], ran, strict=True):
        if cell.kind == "code" and not cell.example:
            out, error = printed(done)
            assert error is None, (cell.text, error)
        if "@check" in cell.text:
            assert "not yet written" in out
        if cell.text.startswith("show("):
            (output,) = done.outputs
            assert re.match(r"@|def |class ", output.data["text/plain"])


def test_the_notebook_is_the_chapter():
    import nbformat

    made = nbformat.reads(notebook("bpe"), as_version=4)
    assert made.cells[0].source == "# Turn text into integers, and back"
    text = "\n".join(cell.source for cell in made.cells)
    # Formulas, figures and words are there; links that lead nowhere are not.
    assert "data:image/svg+xml;base64," in text and 'alt="Bytes for each token' in text
    assert not re.search(r"\]\[|--8<--|<div", text)
    steps = lecture_steps("bpe")
    told = [step.example for step in steps if isinstance(step, Run)]
    kept = [cell.example for cell in chapter_cells("bpe") if cell.example]
    assert [(e.source, e.want) for e in kept] == [(e.source, e.want) for e in told]
    assert len(told) > 30
    # The code of the chapter is not in it.
    assert "show(merge)" in text and "while i < len(ids)" not in text
    names = [name for name in EXERCISES if f'@check("{name}")' in text]
    assert names == [e.name for e in EXERCISES.values() if e.chapter == "bpe"]


def test_each_exercise_is_in_one_notebook():
    cells = "".join(cell.text for name in NAMES for cell in exercise_cells(name))
    assert sorted(re.findall(r'@check\("(.*?)"\)', cells)) == sorted(EXERCISES)
    assert '@check("model.softmax")' in "".join(
        cell.text for cell in exercise_cells("attention")
    )
    assert exercise_cells("tokenizer.words") == []


def test_a_notebook_is_the_same_each_time_and_valid():
    nbformat = pytest.importorskip("nbformat")
    text = notebook("config")
    assert text == notebook("config")
    nbformat.validate(json.loads(text))


def test_errors_that_are_meant_do_not_stop_a_notebook():
    cells = json.loads(notebook("config"))["cells"]
    tagged = [cell for cell in cells if cell["metadata"].get("tags")]
    assert tagged and all(c["outputs"][0]["ename"] == "ValueError" for c in tagged)


def test_what_examples_need_is_imported():
    named = {part.name: part for part in parts(find("bpe"))}
    (line,) = import_lines(find("bpe"), named["merge"])
    assert line.startswith("from minillm.bpe import ") and "merge, " in line
    uses = Part("", ">>> torch.arange(3)\n>>> RotaryEmbedding\n")
    assert import_lines(find("rope"), uses) == [
        "import torch",
        "from minillm.rope import RotaryEmbedding",
    ]


def test_markdown_keeps_code_and_formulas():
    text = markdown("# A\n\n```\n# no heading\n```\n\n$x_1 \\to x_2$.")
    assert text == "## A\n\n```\n# no heading\n```\n\n$x_1 \\to x_2$."


def test_code_is_that_of_the_package():
    from minillm.bpe import BPETokenizer, merge

    assert source(merge).startswith("def merge(ids") and '"""' not in source(merge)
    assert "def encode" not in source(BPETokenizer)
    like_a_prompt()  # outside a notebook it does nothing


def test_the_command_writes_and_overwrites_nothing(tmp_path, capsys):
    command("config", tmp_path / "new")
    path = tmp_path / "new" / "config.ipynb"
    assert str(path) in capsys.readouterr().out
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="there already"):
        command("config", tmp_path / "new")
    for name in NAMES:
        (tmp_path / "new" / f"{name}.ipynb").touch()
    command("all", tmp_path / "new")
    assert capsys.readouterr().out.count("stays") == len(NAMES)
    assert path.read_text(encoding="utf-8") == "mine"


def test_without_nbformat_the_command_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nbformat", None)
    with pytest.raises(ImportError, match="pip install nbformat"):
        notebook("config")
