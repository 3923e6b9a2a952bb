#!/usr/bin/env bash
# Expected: `tokenizers` decodes an added token to the text that it was found in.
# What happens: with a byte-level decoder an added token is read as GPT-2's characters for
#   bytes if all of its characters are among them. So "<café>" comes back as "<caf\ufffd>",
#   while "<кафе>", whose letters stand for no byte, comes back whole.
# Version: tokenizers 0.23.3. Source: `ByteLevel::decode_chain`, which gets tokens without
#   being told which of them were added.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

print("tokenizers", tokenizers.__version__)
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_tokens([AddedToken("<café>"), AddedToken("<кафе>")])
found = {}
for text in ("<café>", "<кафе>", "café"):
    ids = tokenizer.encode(text).ids
    found[text] = tokenizer.decode(ids)
    print(f"{text!r} -> {ids} -> {found[text]!r}")
expected = {"<café>": "<caf\ufffd>", "<кафе>": "<кафе>", "café": "café"}
sys.exit(found != expected)
PYTHON
