#!/usr/bin/env bash
# PyTorch's products with weights of 8 and 4 bits are fast for bfloat16 activations only.
#
# Expectation: _weight_int8pack_mm and _weight_int4pack_mm_for_cpu take activations in
#   float32, float16 and bfloat16. A product waits for the weights, which are of the same
#   bytes, so the three take about the same time, and less than a plain one in float32,
#   which reads four or eight times as many.
# What happens: bfloat16 has kernels with vector instructions; the two others fall into a
#   plain loop, without a word. For one row of activations they take 20 to 60 times as long
#   (8 and 4 bits; 50 to 130 for eight rows), and over 10 times as long as the plain
#   product. Who stores weights in fewer bits and computes in float32 gets a slower model.
# Version: torch 2.13.0 (CPU), on x86-64 with AVX-512.
# Source: torch, aten/src/ATen/native/cpu/int8mm_kernel.cpp and int4mm_kernel.cpp: the
#   vectorized tinygemm_kernel is specialized for BFloat16; seconds measured here.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy
cat > try.py <<'PY'
import sys
import time

import torch

torch.set_num_threads(1)
N, K, GROUP = 1536, 576, 32
by_8 = torch.randint(-127, 128, (N, K), dtype=torch.int8)
by_4 = torch._convert_weight_to_int4pack_for_cpu(
    torch.randint(0, 16, (N, K), dtype=torch.int32), 1
)
plain = torch.randn(N, K)


def least(run):
    run()
    times = []
    for _ in range(9):
        start = time.process_time()
        for _ in range(3):
            run()
        times.append((time.process_time() - start) / 3)
    return 1e3 * min(times)


def products(x):
    one, pairs = torch.rand(N).to(x.dtype), torch.rand(K // GROUP, N, 2).to(x.dtype)
    return {
        "8 bits": lambda: torch._weight_int8pack_mm(x, by_8, one),
        "4 bits": lambda: torch._weight_int4pack_mm_for_cpu(x, by_4, GROUP, pairs),
    }


print("torch", torch.__version__)
ratios = []
for rows in (1, 8):
    x = torch.randn(rows, K)
    print(f"{rows} rows, plain float32: {least(lambda: x @ plain.T):.3f} ms")
    times = {
        (name, dtype): least(run)
        for dtype in (torch.bfloat16, torch.float16, torch.float32)
        for name, run in products(x.to(dtype)).items()
    }
    for (name, dtype), ms in times.items():
        ratio = ms / times[name, torch.bfloat16]
        print(f"{rows} rows, {name}, {dtype}: {ms:.3f} ms, {ratio:.0f} times bfloat16")
        if dtype != torch.bfloat16:
            ratios.append(ratio)
if min(ratios) < 5:
    sys.exit("this has changed: all three types are about as fast")
PY
venv/bin/python try.py
