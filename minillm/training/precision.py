r"""Mixed precision: which numbers may be short.

**The question.** A number of 16 bits takes half the memory of one of 32, and processors
built for it multiply such numbers several times as fast. Can a model be trained in 16
bits?

**Before this:** [`minillm.training.optimizer`][]. **Next:** back to
[`minillm.train`][], where `dtype = "bf16"` switches on what this page explains.

# Two ways to spend 16 bits

A floating-point number is a sign, an exponent and a fraction: the exponent says how
large it is, the fraction how exactly. float32 has 8 and 23 bits for them. float16 has 5
and 10; bfloat16 keeps all 8 bits of the exponent and leaves 7 for the fraction:

>>> import torch
>>> for dtype in (torch.float32, torch.float16, torch.bfloat16):
...     limits = torch.finfo(dtype)
...     print(f"{limits.max:.0e}  {limits.smallest_normal:.0e}  {limits.eps:.0e}")
3e+38  1e-38  1e-07
7e+04  6e-05  1e-03
3e+38  1e-38  8e-03

Gradients are small. A hundred-millionth is nothing unusual, and in float16 it is gone,
which is why training in float16 first multiplies the loss by a large number and later
divides the gradients by it (Micikevicius et al. 2018, arXiv:1710.03740, section 3.2).
bfloat16 needs no such care:

>>> [torch.tensor(1e-8, dtype=d).item() > 0 for d in (torch.float16, torch.bfloat16)]
[False, True]

# What bfloat16 loses

Eight significant bits, counting the one that is always there, are between two and three
decimal digits. Between 256 and 512 only the even numbers exist, so a sum of ones stops
growing:

>>> count = torch.tensor(0.0, dtype=torch.bfloat16)
>>> for _ in range(1000):
...     count += 1
>>> count.item()
256.0

This is what happens to a weight, too. A training step changes it by a thousandth of its
size or less, and such a change is rounded away, every time:

>>> def after_a_thousand_steps(dtype):
...     w = torch.tensor(1.0, dtype=dtype)
...     for _ in range(1000):
...         w -= 0.001
...     return round(w.item(), 3)
>>> after_a_thousand_steps(torch.float32), after_a_thousand_steps(torch.bfloat16)
(0.0, 1.0)

# What stays in float32

So whatever is *summed up*, over time or over many terms, keeps its 32 bits: the
weights, their gradients, AdamW's two means, and the sums over the vocabulary inside the
loss. What is left is the great mass of the work, the matrix products. Their inputs are
rounded to bfloat16 and so is the result; inside, the processor adds in float32. PyTorch
calls this *autocast*: it decides for each operation.

>>> from minillm.config import ModelConfig
>>> from minillm.training.loss_fast import cross_entropy_fast
>>> from minillm.model import TransformerLM
>>> _ = torch.manual_seed(0)
>>> model = TransformerLM(ModelConfig(100, 16, d_model=32, n_layers=2, n_heads=4))
>>> ids = torch.randint(100, (4, 17))
>>> with torch.autocast("cpu", torch.bfloat16):
...     logits = model(ids[:, :-1])
>>> loss = cross_entropy_fast(logits, ids[:, 1:])
>>> loss.backward()
>>> logits.dtype, loss.dtype
(torch.bfloat16, torch.float32)
>>> {w.dtype for w in model.parameters()} | {w.grad.dtype for w in model.parameters()}
{torch.float32}

The error that this leaves in the loss is far below the noise from one batch to the
next:

>>> exact = cross_entropy_fast(model(ids[:, :-1]), ids[:, 1:])
>>> abs(loss.item() / exact.item() - 1) < 0.002
True

# Does it pay on two cores?

Only where the processor multiplies bfloat16 itself, which on PCs means the instruction
sets AVX-512-BF16 or AMX; elsewhere PyTorch has to imitate it. And only where products
are large: rounding costs one more pass over every matrix. `python -m
benchmarks.model step` prints it for your machine. On the one where the course was
written, which has the first of the two, a step in bf16 was so many times as fast as in
float32 (two threads, nothing compiled):

--8<-- "images/data/training-speed.md"

So the demo stays in float32, which is the same on every machine, and a model ten times
as large should be tried in both.
"""

__all__: list[str] = []
