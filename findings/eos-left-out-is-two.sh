#!/usr/bin/env bash
# A Llama config.json that names no end token has one in transformers: id 2.
#
# Expectation: where config.json does not say eos_token_id, the model has no end token, as
#   with many other entries whose absence means "none".
# What happens: LlamaConfig's defaults are those of the first Llama, bos 1 and eos 2, and
#   they are passed on to the generation settings. In a byte-level vocabulary, id 2 is an
#   ordinary byte, and generation stops at it. Only an explicit null means "none".
# Version: transformers 5.23.0 (PyPI).
# Source: transformers, models/llama/configuration_llama.py, class LlamaConfig.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.23.0
cat > try.py <<'PY'
import json
import pathlib

import transformers


def ends(**entries):
    folder = pathlib.Path("model")
    folder.mkdir(exist_ok=True)
    entries = {"model_type": "llama", "vocab_size": 260} | entries
    (folder / "config.json").write_text(json.dumps(entries), encoding="utf-8")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    settings = transformers.GenerationConfig.from_model_config(config)
    return settings.bos_token_id, settings.eos_token_id


print("transformers", transformers.__version__)
print("begin and end, where config.json names neither:", ends())
nothing = ends(bos_token_id=None, eos_token_id=None)
print("where it says null for both:", nothing)
assert (ends(), nothing) == ((1, 2), (None, None)), "the behaviour changed"
PY
venv/bin/python try.py 2> errors.txt || { cat errors.txt; exit 1; }
