#!/usr/bin/env bash
# Expected: in a pre-tokenizer of Hugging Face's `tokenizers`, `\w` and `[\w]` match the
#   same characters, as in every other engine.
# What happens: the six characters ² ³ ¹ ¼ ½ ¾ are matched by `\w` and not by `[\w]`, and
#   so `\w+` and `[\w]+` cut "m²" differently. (Oniguruma has a table of its own for
#   Latin-1 outside of brackets, and Unicode's inside.)
# Version: tokenizers 0.23.3, which runs Oniguruma. Source: oniguruma, ONIGENC_IS_CODE_WORD
#   against the ranges of CR_Word; found by asking for every character of Unicode.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import tokenizers
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

print("tokenizers", tokenizers.__version__)
found = {}
for pattern in (r"\w+", r"[\w]+"):
    split = Split(Regex(pattern), "isolated")
    found[pattern] = [piece for piece, _ in split.pre_tokenize_str("m² ¼l")]
    print(f"{pattern:8} cuts 'm² ¼l' into {found[pattern]}")
expected = {r"\w+": ["m²", " ", "¼l"], r"[\w]+": ["m", "² ¼", "l"]}
sys.exit(found != expected)
PYTHON
