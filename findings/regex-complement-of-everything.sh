#!/usr/bin/env bash
# Expected: `[^\s\S]`, a character that is neither whitespace nor anything else, matches
#   nothing, as in Python's `re`.
# What happens: in the package `regex` it matches every character, and so does the
#   complement of any property joined with its opposite, such as `[^\d\D]`.
# Version: regex 2026.11.15. Found by random expressions, compared with other engines.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check regex==2026.11.15
"$folder/venv/bin/python" - <<'PYTHON'
import re
import sys
from importlib.metadata import version

import regex

print("regex", version("regex"))
found = {}
for pattern in (r"[^\s\S]", r"[^\d\D]", r"[^\p{L}\P{L}]"):
    found[pattern] = regex.findall(pattern, "a 1")
    print(f"{pattern:14} regex finds {found[pattern]} in 'a 1'")
theirs = re.findall(r"[^\s\S]", "a 1")
print(f"the first      re finds    {theirs}")
sys.exit(theirs != [] or set(map(tuple, found.values())) != {("a", " ", "1")})
PYTHON
