"""Rules for all tests: one about skipping, one about threads."""

import io
import os
import sys

import pytest
import torch

# Two test processes with two threads each would wait for each other on two cores.
torch.set_num_threads(1)


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command in this process: exit code, output, error output."""
    # Not before pytest has arranged for the package's types to be checked.
    from minillm.cli.app import main

    def call(*arguments, typed=""):
        monkeypatch.setattr(sys, "argv", ["minillm", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code or 0, *capsys.readouterr()

    return call


def _fail_instead_of_skipping(report, reason):
    """In CI everything is installed, so a test that is skipped has proved nothing."""
    if os.environ.get("CI") == "true" and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    # A test of a GPU may skip anywhere: there is none.
    if item.get_closest_marker("device") or hasattr(report, "wasxfail"):
        return report
    return _fail_instead_of_skipping(report, call.excinfo and call.excinfo.value)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    return _fail_instead_of_skipping(report, report.longrepr)
