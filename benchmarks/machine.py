"""What a figure depends on beside the programs: the machine, and who else uses it."""

import datetime
import importlib.metadata
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

# The sets of instructions on which the speed of matrices depends, as Linux names them.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
PACKAGES = (
    *("minillm", "numpy", "regex", "torch", "tiktoken", "tokenizers", "rustbpe"),
    *("transformers", "llama_cpp_python", "typer", "mkdocs-material", "datasketch"),
    "resiliparse",
)
# Above this share of the cores, others disturb what is measured.
BUSY = 0.1


def describe() -> dict[str, Any]:
    """The machine, as far as the system tells."""
    known: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        known.setdefault(name.strip(), value.strip())
    flags = (known.get("flags") or known.get("Features") or "").split()
    try:
        gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (AttributeError, ValueError, OSError):
        gigabytes = None
    found = {
        "processor": known.get("model name") or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "memory, GB": gigabytes and round(gigabytes),
        "system": f"{platform.system()}, {platform.machine()}",
    }
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    return found


def versions() -> dict[str, str]:
    """The versions of Python and of all that takes part, as far as it is here."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The date and the time of day, in the time of Greenwich."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")


def load() -> float | None:
    """How many programs wanted a core, on average over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def others(seconds: float = 0.5) -> float | None:
    """Which share of the cores other programs use while we do nothing, where known."""
    before = _busy_and_all()
    time.sleep(seconds)
    after = _busy_and_all()
    if before is None or after is None or after[1] == before[1]:
        return None
    return round((after[0] - before[0]) / (after[1] - before[1]), 2)


def _busy_and_all() -> tuple[int, int] | None:
    """How long all cores were busy since the start, and how long they were there."""
    first = _read("/proc/stat").partition("\n")[0].split()[1:9]
    if len(first) < 8:
        return None
    ticks = [int(value) for value in first]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle, and waiting for a disk


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
