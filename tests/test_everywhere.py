"""Everywhere alike: strange surroundings, and the same bytes in all of them.

`journey.py` takes every command that has a path through paths with spaces and with
letters of four scripts. Here it is run where text is not UTF-8, where there is no home,
where the package cannot be written to, in other time zones, and by other Pythons.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
JOURNEY = Path(__file__).with_name("journey.py")

NEWER = [f"python3.{minor}" for minor in range(12, 20)]
IGNORED = shutil.ignore_patterns("__pycache__")
DOCTEST = """
import doctest, importlib, sys
sys.path.insert(0, sys.argv[1])
failed, tried = doctest.testmod(importlib.import_module("minillm." + sys.argv[2]))
sys.exit(failed or not tried)
"""


def run(
    *command: str | Path, cwd: Path, leave_out: tuple[str, ...] = (), **changed: str
) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in leave_out}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | {"OMP_NUM_THREADS": "1"} | changed,
        capture_output=True,
        check=False,
        timeout=900,
    )
    said = (done.stdout + done.stderr).decode("utf-8", errors="replace")
    assert done.returncode == 0, said[-3000:]
    return said


def written(said: str) -> dict[str, str]:
    lines = re.findall(r"^wrote (\w{16}) (.+)$", said, re.MULTILINE)
    return {path: digest for digest, path in lines}


@pytest.fixture(scope="module")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files that the journey leaves behind in ordinary surroundings."""
    home = tmp_path_factory.mktemp("at home")
    files = written(run(sys.executable, JOURNEY, home, cwd=ROOT, PYTHONUTF8="1"))
    assert len(files) > 12
    return files


def old_locale(folder: Path) -> dict[str, str]:
    """Code page 1252, if this system can make it; or ASCII, which knows still less."""
    if shutil.which("localedef"):
        made = subprocess.run(
            ["localedef", "-i", "en_US", "-f", "CP1252", folder / "en_US.CP1252"],
            capture_output=True,
            check=False,
        )
        if made.returncode == 0:
            return {"LOCPATH": str(folder), "LC_ALL": "en_US.CP1252"}
    return {"LC_ALL": "C"}


@pytest.mark.check
@pytest.mark.parametrize("ascii_alone", [False, True])
def test_where_text_is_not_utf8(
    at_home: dict[str, str], tmp_path: Path, ascii_alone: bool
) -> None:
    """As on a Windows of old. A file opened without its encoding is an error here."""
    locale = {"LC_ALL": "C"} if ascii_alone else old_locale(tmp_path)
    there = tmp_path / "where"
    there.mkdir()
    said = run(
        sys.executable, "-X", "utf8=0", "-X", "warn_default_encoding", JOURNEY, there,
        cwd=tmp_path, PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="cp1252",
        TZ="Pacific/Kiritimati", leave_out=("PYTHONUTF8", "LANG"), **locale,
    )  # fmt: skip
    assert written(said) == at_home


@pytest.mark.check
def test_without_a_home_in_a_package_that_cannot_be_written_to(
    at_home: dict[str, str], tmp_path: Path
) -> None:
    """No HOME, none of its kin, and nothing is left beside the package's own files."""
    install, there = tmp_path / "read only", tmp_path / "there"
    there.mkdir()
    for name in ("minillm", "images"):
        shutil.copytree(ROOT / name, install / name, ignore=IGNORED)
    before = sorted(install.rglob("*"))
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    said = run(
        sys.executable, "-B", JOURNEY, there, cwd=tmp_path, PYTHONPATH=str(install),
        PYTHONUTF8="1", TZ="America/St_Johns",
        leave_out=("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
                   "XDG_DATA_HOME", "MPLCONFIGDIR", "USERPROFILE"),
    )  # fmt: skip
    assert written(said) == at_home
    # As root one may write anywhere, so look.
    assert sorted(install.rglob("*")) == before


@pytest.mark.check
def test_a_home_that_cannot_be_written_to(tmp_path: Path) -> None:
    """Matplotlib and the hub keep things at home; the package must not depend on it."""
    home = tmp_path / "home"
    home.write_text("not a folder", encoding="utf-8")
    code = (
        "from pathlib import Path\n"
        "from minillm.drawing.kit import loss_curve, new_figure, save_figure\n"
        "figure, axes = new_figure()\n"
        "save_figure(figure, Path('a.svg'), 'nothing')"
    )
    run(sys.executable, "-c", code, cwd=tmp_path, HOME=str(home),
        leave_out=("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"))  # fmt: skip
    assert (tmp_path / "a.svg").stat().st_size > 100


# Other Pythons, and what is promised about versions


def pythons() -> list[str]:
    """This Python, and newer ones that are installed here."""
    installed = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))
    found = {"this": sys.executable}
    for python in [*filter(None, map(shutil.which, NEWER)), *map(str, installed)]:
        asked = subprocess.run(
            [python, "-V"], capture_output=True, encoding="utf-8", check=False
        )
        version = re.match(r"Python (3\.(\d+))", asked.stdout)
        if not asked.returncode and version and int(version[2]) > 11:
            found.setdefault(version[1], python)
    return list(found.values())


@pytest.mark.check
@pytest.mark.parametrize("python", pythons())
def test_newer_pythons_read_the_package(python: str, tmp_path: Path) -> None:
    """No warning in compiling it, and the chapters that need no library are right."""
    shutil.copytree(ROOT / "minillm", tmp_path / "minillm", ignore=IGNORED)
    run(python, "-W", "error", "-m", "compileall", "-q", "minillm", cwd=tmp_path)
    for chapter in (
        "config",
        "accounting.shapes",
        "accounting.cost",
        "accounting.memory",
        "accounting.roofline",
    ):
        run(python, "-I", "-c", DOCTEST, tmp_path, chapter, cwd=tmp_path)
