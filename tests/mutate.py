"""Would a test notice? Changes single spots of the code and runs the tests on each.

`python -m tests.mutate` needs the extra `mutate`, and Linux or macOS: each change is
tried in a forked process, so that nothing is imported or collected twice. mutmut says
what to change (`a + b` to `a - b`, `<` to `<=`, an argument to `None`, and so on) in
functions that have no decorator. Only tests that run the function are tried, quickest
first: the examples of the module itself and the tests of its chapter.

A change that no test notices is printed. Either it changes nothing that anybody could
see, or a test is missing.
"""

import argparse
import ast
import contextlib
import difflib
import gc
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import NamedTuple

import hypothesis
import pytest
import torch

# What is changed: all functions of a module, or those that are named.
SAMPLING = {
    *("apply_temperature", "top_k_filter", "top_p_filter", "pick"),
    *("stream", "_decode", "_check", "generate", "stream_text"),
}
# Learning, and what a text goes through to become ids; not the files.
BPE = "bpe bpe_fast bpe_tokenizer bpe_encode bpe_cuts"
BPE += " bpe_arrays bpe_runs bpe_table bpe_words"
SCOPE: dict[str, set[str] | None] = {
    **dict.fromkeys(BPE.split()),
    "flops": None,
    "generate": SAMPLING,
}
HANGS = 120.0  # seconds after which a change has made an endless loop


class Mutant(NamedTuple):
    """One change.

    Attributes:
        path: the file.
        function: the name of the function, `Class.method` for a method.
        node: the function as it is after the change.
        difference: the lines that differ.
    """

    path: Path
    function: str
    node: ast.FunctionDef
    difference: str


def functions(source: str) -> dict[str, ast.FunctionDef]:
    """The functions and methods of a module, by name."""
    found = {}
    for node in ast.parse(source).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for child in inside:
            if isinstance(child, ast.FunctionDef):
                found[prefix + child.name] = child
    return found


def mutants_of(path: Path, names: set[str] | None) -> Iterator[Mutant]:
    """All changes to a module, or to those of its functions that are named."""
    # Not before it is needed: pytest imports this file, to look for examples in it.
    from mutmut.mutation.file_mutation import create_mutations, deep_replace

    source = path.read_text(encoding="utf-8")
    before = {name: ast.unparse(node) for name, node in functions(source).items()}
    tree, mutations, *_ = create_mutations(str(path), source)
    for mutation in mutations:
        if mutation.contained_by_top_level_function is None:
            continue
        changed = deep_replace(tree, mutation.original_node, mutation.mutated_node)
        lines = difflib.unified_diff(
            source.splitlines(), changed.code.splitlines(), n=0, lineterm=""
        )
        for name, node in functions(changed.code).items():
            if ast.unparse(node) != before[name] and (names is None or name in names):
                shown = "\n".join(f"    {line}" for line in list(lines)[2:])
                yield Mutant(path, name, node, shown)


def find(mutants: list[Mutant]) -> dict[tuple[str, str], list[FunctionType]]:
    """The functions to change, by file and name, however they are wrapped."""
    found: dict[tuple[str, str], list[FunctionType]] = {
        (str(mutant.path), mutant.function): [] for mutant in mutants
    }
    for thing in gc.get_objects():
        # Not isinstance, for which some objects compute their class, and warn.
        if type(thing) is FunctionType:
            code = thing.__code__
            found.get((code.co_filename, code.co_qualname), []).append(thing)
    assert all(found.values()), f"not found: {found}"
    return found


def install(mutant: Mutant, places: list[FunctionType]) -> None:
    """Put the changed code into a function, wherever it was imported to."""
    mutant.node.decorator_list = []
    code = compile(ast.Module([mutant.node], []), str(mutant.path), "exec")
    for function in places:
        scope = dict(function.__globals__)
        exec(code, scope)
        changed = scope[mutant.node.name]
        function.__code__ = changed.__code__
        function.__defaults__ = changed.__defaults__
        function.__kwdefaults__ = changed.__kwdefaults__


class Runner:
    """A plugin for pytest that runs the collected tests once for each change."""

    def __init__(self, mutants: list[Mutant], jobs: int, seconds: float) -> None:
        self.mutants = mutants
        self.jobs = jobs
        self.seconds = seconds
        self.survivors: list[Mutant] = []
        self.tried = Counter[str]()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        runs = self.watch(session)
        self.places = find(self.mutants)
        gc.freeze()  # so that the processes share what is there
        sources = {m.path: functions(m.path.read_text("utf-8")) for m in self.mutants}
        children: dict[int, tuple[Mutant, float]] = {}
        proved: set[tuple[Path, str]] = set()
        for mutant in self.mutants:
            self.tried[mutant.path.stem] += 1
            times = runs[str(mutant.path)].get(mutant.function, {})
            chosen = quick(times, self.seconds)
            if not chosen:
                self.report(mutant, "no test runs it")
                continue
            if mutant[:2] not in proved:
                # Tests that fail without a change would seem to notice every change.
                same = mutant._replace(node=sources[mutant.path][mutant.function])
                _, status = os.waitpid(self.start(session, same, chosen), 0)
                if status:
                    raise RuntimeError(f"{mutant.function} fails unchanged")
                proved.add(mutant[:2])
            while len(children) >= self.jobs:
                self.collect(children)
            pid = self.start(session, mutant, chosen)
            children[pid] = mutant, time.monotonic() + HANGS
        while children:
            self.collect(children)
        return True

    def watch(self, session: pytest.Session) -> dict[str, dict[str, dict[str, float]]]:
        """Run all tests unchanged: which of them run which function, and how long."""
        # In a process of its own, so that this one starts no thread.
        reader, writer = os.pipe()
        if not (pid := os.fork()):
            with contextlib.suppress(Exception), os.fdopen(writer, "w") as pipe:
                json.dump(self.times(session), pipe)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            text = pipe.read()
        os.waitpid(pid, 0)
        if not text:
            raise RuntimeError("a test fails, and nothing is changed yet")
        return json.loads(text)

    def times(self, session: pytest.Session) -> dict[str, dict[str, dict[int, float]]]:
        """Run all tests: seconds, by file, function and number of the test."""
        runs = {str(mutant.path): defaultdict(dict) for mutant in self.mutants}
        called: set[CodeType] = set()

        def note(frame: FrameType, event: str, _: object) -> None:
            if event == "call" and frame.f_code.co_filename in runs:
                called.add(frame.f_code)

        for number, (test, after) in enumerate(in_row(session.items)):
            called.clear()
            start = time.monotonic()
            sys.setprofile(note)
            run_test(session, test, after)
            sys.setprofile(None)
            seconds = time.monotonic() - start
            for code in called:
                runs[code.co_filename][code.co_qualname][number] = seconds
        return runs

    def start(self, session: pytest.Session, mutant: Mutant, chosen: list[int]) -> int:
        """Fork a process that makes the change, and ends with 1 if a test fails."""
        if pid := os.fork():
            return pid
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        try:
            install(mutant, self.places[str(mutant.path), mutant.function])
            for test, after in in_row([session.items[number] for number in chosen]):
                run_test(session, test, after)
        except BaseException:
            os._exit(1)
        os._exit(0)

    def collect(self, children: dict[int, tuple[Mutant, float]]) -> None:
        """Wait until a process has ended, or has had its time."""
        while True:
            for pid, (mutant, end) in children.items():
                ended, status = os.waitpid(pid, os.WNOHANG)
                if not ended and time.monotonic() > end:
                    os.kill(pid, signal.SIGKILL)
                    ended, status = os.waitpid(pid, 0)
                if ended:
                    del children[pid]
                    if status == 0:
                        self.report(mutant, "survived")
                    return
            time.sleep(0.01)

    def report(self, mutant: Mutant, what: str) -> None:
        self.survivors.append(mutant)
        name = f"{mutant.path.stem}.{mutant.function}"
        print(f"\n{name}: {what}\n{mutant.difference}", flush=True)


def in_row(tests: list[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item]]:
    """Each test with the one after it, which tells what fixtures to keep."""
    return zip_longest(tests, tests[1:])


def run_test(session: pytest.Session, test: pytest.Item, after: pytest.Item) -> None:
    """Run one test, and raise if it fails."""
    test.ihook.pytest_runtest_protocol(item=test, nextitem=after)
    if session.testsfailed:
        raise RuntimeError(f"{test.nodeid} fails")


def quick(times: dict[str, float], seconds: float) -> list[int]:
    """The numbers of the quickest tests that together take the time that one has."""
    chosen, total = [], 0.0
    for number, one in sorted(times.items(), key=lambda entry: entry[1]):
        total += one
        if chosen and total > seconds:
            break
        chosen.append(int(number))
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description="Change the code; do tests notice?")
    words = "modules or functions: bpe, flops.products"
    parser.add_argument("what", nargs="*", default=sorted(SCOPE), help=words)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    words = "seconds of tests for one change; the slowest tests are left out"
    parser.add_argument("--seconds", type=float, default=20.0, help=words)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    # The same inputs each time, and none kept: a score that anybody can repeat.
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile(
        "mutate", derandomize=True, database=None, deadline=None, phases=phases
    )
    package = Path(__file__).resolve().parent.parent / "minillm"
    scope: dict[str, set[str] | None] = {}
    for word in asked.what:
        module, _, function = word.partition(".")
        if function:
            scope[module] = {*(scope.get(module) or ()), function}
        else:
            scope[module] = SCOPE[module]
    paths = {module: package / f"{module}.py" for module in scope}
    mutants = [m for name, path in paths.items() for m in mutants_of(path, scope[name])]
    print(f"{len(mutants)} changes", flush=True)
    runner = Runner(mutants, asked.jobs, asked.seconds)
    start = time.monotonic()
    tests = [str(path) for path in paths.values()]
    # The parts of a chapter have its tests.
    chapters = dict.fromkeys(module.partition("_")[0] for module in scope)
    tests += [f"tests/test_{chapter}.py" for chapter in chapters]
    options = ["-q", "-s", "--tb=short", "--assert=plain", "-m", "not check"]
    options += ["-p", "no:cacheprovider", "-p", "no:faulthandler", "-o", "timeout=0"]
    options += ["--hypothesis-profile=mutate", "--no-header"]
    with contextlib.chdir(package.parent):
        code = pytest.main([*options, *tests], plugins=[runner])
    missed = Counter(mutant.path.stem for mutant in runner.survivors)
    print(f"\n{'module':14} {'changes':>8} {'noticed':>8} {'share':>7}")
    for module, tried in runner.tried.items():
        noticed = tried - missed[module]
        print(f"{module:14} {tried:8} {noticed:8} {noticed / tried:7.1%}")
    print(f"in {(time.monotonic() - start) / 60:.0f} minutes")
    sys.exit(code)


if __name__ == "__main__":
    main()
