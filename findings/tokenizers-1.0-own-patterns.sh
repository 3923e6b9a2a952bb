#!/usr/bin/env bash
# Expected: a tokenizer.json that `tokenizers` 0.23 reads, 1.0 reads as well, whatever
#   regular expression its `Split` holds.
# What happens: the wheel of 1.0.0rc3 has no general engine for expressions. It knows the
#   patterns of well-known models letter by letter (Llama 3's is read), and refuses any
#   other that looks ahead: "this `Split` pattern needs a system-regex backend".
# Version: tokenizers 1.0.0rc3 (a release candidate) and 0.23.3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install=("$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps)
"${install[@]}" --target "$folder/0.23.3" tokenizers==0.23.3
"${install[@]}" --target "$folder/1.0.0rc3" tokenizers==1.0.0rc3
cat >"$folder/try.py" <<'PYTHON'
import json
import sys

import tokenizers

# Each byte as GPT-2 writes it.
shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
letters = {chr(byte): i for i, byte in enumerate(shown)}
letters |= {chr(256 + i): len(shown) + i for i in range(256 - len(shown))}
llama3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
said = []
for name, pattern in (("Llama 3's", llama3), ("another", r"\p{L}+|\s+(?!\S)|\s")):
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    steps = [split | {"invert": False}, byte_level | {"use_regex": False}]
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": byte_level | {"use_regex": True},
        "model": {"type": "BPE", "vocab": letters, "merges": []},
    }
    path = sys.argv[1]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file)
    try:
        said.append(str(tokenizers.Tokenizer.from_file(path).encode("a b").ids))
    except Exception as error:
        said.append(f"refused: {error}")
    print(f"tokenizers {tokenizers.__version__}: {name}: {said[-1][:90]}")
new = tokenizers.__version__.startswith("1.")
ids = str([letters[c] for c in "aĠb"])
expected = [ids, "refused: this `Split`" if new else ids]
sys.exit(not all(s.startswith(e) for s, e in zip(said, expected)))
PYTHON
for version in 0.23.3 1.0.0rc3; do
    PYTHONPATH="$folder/$version" "$folder/venv/bin/python" "$folder/try.py" "$folder/t.json"
done
