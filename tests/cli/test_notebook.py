"""Each chapter is a notebook that runs from top to bottom and prints what it says."""

import ast
import doctest
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minillm.cli.lecture_script import Run, chapters, find, lecture_steps
from minillm.cli.notebook import notebook as command
from minillm.cli.notebook_cells import (
    chapter_cells,
    exercise_cells,
    import_lines,
    like_a_prompt,
    markdown,
    notebook,
    source,
)
from minillm.exercises import EXERCISES

NAMES = list(chapters().values())


def missing(name):
    """Skip on a user's machine, fail where everything should be installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is not installed: pip install 'minillm[notebook,test]'")
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
