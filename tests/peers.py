"""Other people's packages, which the tests compare with."""

import importlib
import os
from types import ModuleType

import pytest


def peer(name: str) -> ModuleType:
    """Import a peer for a test, which is skipped without it (or fails, in CI)."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        reason = f"{name} is not there ({error}); `make test` installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
