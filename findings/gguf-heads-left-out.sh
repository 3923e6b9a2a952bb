#!/usr/bin/env bash
# A Llama in GGUF that does not repeat its number of heads has other logits in transformers.
#
# Expectation: llama.attention.head_count_kv may be left out; then there are as many key
#   heads as heads, as GGUF's specification says and llama.cpp does. A file with the
#   entry and one without it are the same model.
# What happens: the rows of the queries' and keys' matrices lie in a file in another order
#   than in transformers, which puts them back only if both numbers of heads are given.
#   Without the entry the rows stay as they lie, and no word is said; the configuration
#   shown has the right number of key heads, and the logits are others.
# Version: transformers 5.23.0, gguf 0.19.0 (PyPI).
# Source: transformers, modeling_gguf_pytorch_utils.py, LlamaTensorProcessor.process; the
#   specification: ggml, docs/gguf.md, "[llm].attention.head_count_kv".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 transformers==5.23.0 gguf==0.19.0 \
    accelerate==1.15.0
cat > try.py <<'PY'
import gguf
import numpy as np
import torch
import transformers

D, F, V, HEADS = 16, 32, 20, 2
random = np.random.default_rng(0)
shapes = {
    "token_embd": (V, D), "output_norm": (D,), "output": (V, D), "blk.0.attn_norm": (D,),
    "blk.0.attn_q": (D, D), "blk.0.attn_k": (D, D), "blk.0.attn_v": (D, D),
    "blk.0.attn_output": (D, D), "blk.0.ffn_norm": (D,), "blk.0.ffn_gate": (F, D),
    "blk.0.ffn_up": (F, D), "blk.0.ffn_down": (D, F),
}
weights = {n: random.normal(size=s).astype(np.float32) for n, s in shapes.items()}


def logits(name, **entries):
    writer = gguf.GGUFWriter(name, "llama")
    writer.add_context_length(8)
    writer.add_embedding_length(D)
    writer.add_block_count(1)
    writer.add_feed_forward_length(F)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(V)
    for key, value in entries.items():
        getattr(writer, key)(value)
    for tensor, array in weights.items():
        writer.add_tensor(tensor + ".weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = transformers.LlamaForCausalLM.from_pretrained(
        ".", gguf_file=name, local_files_only=True
    )
    with torch.no_grad():
        return model.config.num_key_value_heads, model(torch.arange(8)[None]).logits


print("transformers", transformers.__version__, "gguf 0.19.0")
heads, given = logits("given.gguf", add_head_count_kv=HEADS)
same, left_out = logits("left_out.gguf")
apart = float((given - left_out).abs().max() / given.abs().max())
print("key heads:", heads, same, "- largest difference of logits:", round(apart, 3))
assert heads == same == HEADS and apart > 0.01, "the behaviour changed"
PY
venv/bin/python try.py 2> errors.txt || { cat errors.txt; exit 1; }
