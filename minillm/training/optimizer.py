r"""The step: how far to move each weight, and when.

**The question.** [`minillm.training.descent`][] found a rule that moves each weight by
about the learning rate, whatever the size of its gradient. How is it applied to a
million weights in one pass over memory? How large should the learning rate be, and
when? What if one gradient is absurdly long? And do all these numbers need 32 bits? The
last question is answered here, the others by the functions below.

**Before this:** [`minillm.training.descent`][]. **Next:** [`minillm.training.muon`][],
which has another step for matrices.

# Low precision: which numbers may have 16 bits

A number of 16 bits takes half the memory of one of 32, and processors built for it
multiply such numbers several times as fast. A floating-point number is a sign, an
exponent (how large it is) and a fraction (how exactly). float32 has 8 and 23 bits for
them, float16 has 5 and 10; *bfloat16*, bf16 for short, keeps all 8 bits of the exponent
and leaves 7 for the fraction. The largest number of each, the smallest that has full
precision, and the gap after 1:

>>> import torch
>>> for dtype in (torch.float32, torch.float16, torch.bfloat16):
...     limits = torch.finfo(dtype)
...     print(f"{limits.max:.0e}  {limits.smallest_normal:.0e}  {limits.eps:.0e}")
3e+38  1e-38  1e-07
7e+04  6e-05  1e-03
3e+38  1e-38  8e-03

Gradients are small. 1e-8 is nothing unusual, and in float16 it becomes zero. This is
why training in float16 multiplies the loss by a large number first, and divides the
gradients by it later (*loss scaling*; Micikevicius et al. 2018, arXiv:1710.03740,
section 3.2). bf16 needs no such care:

>>> [torch.tensor(1e-8, dtype=d).item() > 0 for d in (torch.float16, torch.bfloat16)]
[False, True]

What bf16 lacks is precision: eight significant bits, counting the leading one, are
between two and three decimal digits. From 256 to 512 only the even numbers exist, so a
sum of ones stops growing:

>>> count = torch.tensor(0.0, dtype=torch.bfloat16)
>>> for _ in range(1000):
...     count += 1
>>> count.item()
256.0

The same happens to a weight. A training step changes it by a thousandth of its size or
less, and every such change is rounded away:

>>> def after_a_thousand_steps(dtype):
...     w = torch.tensor(1.0, dtype=dtype)
...     for _ in range(1000):
...         w -= 0.001
...     return round(w.item(), 3)
>>> after_a_thousand_steps(torch.float32), after_a_thousand_steps(torch.bfloat16)
(0.0, 1.0)

So everything that is *summed up*, over time or over many terms, stays in float32: the
weights, their gradients, both moments of AdamW, and the sums over the vocabulary inside
the loss. The matrix multiplications, which are nearly all of the work, take their
inputs and give their results in bf16; inside, the processor adds in float32. This is a
kind of *mixed precision*, and PyTorch's `autocast` makes the choice for each operation:

>>> from minillm.config import ModelConfig
>>> from minillm.model import TransformerLM
>>> from minillm.training.loss import cross_entropy_fast
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

The error that this leaves in the loss is far below the noise between batches:

>>> exact = cross_entropy_fast(model(ids[:, :-1]), ids[:, 1:])
>>> abs(loss.item() / exact.item() - 1) < 0.002
True

It is faster only where the processor multiplies bf16 itself, which on PCs means the
instruction sets AVX-512-BF16 or AMX (elsewhere PyTorch imitates it), and the more so
the larger the matrices, since rounding is one more pass over each. `python -m
benchmarks.model step` measures it on your machine. How many times as fast as in float32
a step in bf16 was on ours, which has AVX-512-BF16 (two threads, nothing compiled):

--8<-- "images/data/training-speed.md"

The demo stays in float32 nevertheless, since few PCs have such a processor. Try both:
`minillm train --dtype bf16`.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["AdamW", "clip_gradients", "cosine_schedule", "decay_matrices"]

# Where PyTorch has one kernel for the whole of a step.
FUSED = {"cpu", "cuda"}
MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW(torch.optim.AdamW):
    r"""Same result as [`adamw`][minillm.training.descent.adamw], for a whole model.

    Unlike it: all weights of a group are moved in one call. A model has dozens of
    weight tensors, many of them tiny, and PyTorch's `torch.optim.AdamW(fused=True)`
    computes the rule for all of them in one pass over memory. This class is PyTorch's,
    with two additions. The fused kernel reads memory in order, so it is used only where
    every weight and gradient is contiguous; and loading refuses a state that belongs to
    other weights.

    Args:
        params: the weights, or groups of them with settings of their own.
        lr: $\eta$, the learning rate.
        betas: $\beta_1$ and $\beta_2$, the shares of the old moments kept, in $[0, 1)$.
        eps: $\epsilon$, which keeps the quotient finite.
        weight_decay: $\lambda$, the weight decay.

    Raises:
        ValueError: if a setting is out of its range.

    Examples:
        >>> from minillm.training.descent import adamw
        >>> w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
        >>> expected, memory = w.detach().clone(), {}
        >>> optimizer = AdamW([w], lr=0.1)
        >>> for _ in range(100):
        ...     optimizer.zero_grad()
        ...     (w**4).sum().backward()
        ...     optimizer.step()
        ...     expected = adamw(expected, 4 * expected**3, memory, lr=0.1)
        >>> torch.allclose(w, expected, rtol=1e-12)
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every weight that has a gradient.

        Args:
            closure: computes the loss anew, for optimizers that ask for it more than
                once; called once here.

        Returns:
            What the closure returned, if there is one.
        """
        loss = loss_of(closure)
        for group in self.param_groups:
            moved = [w for w in group["params"] if w.grad is not None]
            # `None` leaves the choice among the other implementations to PyTorch.
            group["fused"] = all(map(_fits_kernel, moved)) or None
            for w in moved if group["fused"] else ():
                if "step" in self.state[w]:  # which loading may leave on the CPU
                    self.state[w]["step"] = self.state[w]["step"].to(w.device)
        super().step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what an optimizer of this kind has saved.

        Args:
            state_dict: what `state_dict()` has returned.

        Raises:
            ValueError: if it is that of another kind, or of other weights.
        """
        weights = [w for group in self.param_groups for w in group["params"]]
        for i, state in state_dict["state"].items():
            shape = weights[i].shape if i in range(len(weights)) else None
            moments = [getattr(state.get(key), "shape", None) for key in MOMENTS]
            step = state.get("step")
            counted = isinstance(step, Tensor) and step.numel() == 1
            if shape is None or moments != [shape, shape] or not counted:
                raise ValueError(
                    f"its state {i} is that of another weight or optimizer"
                )
        for group in state_dict["param_groups"]:
            betas = group.get("betas", ())
            numbers = *betas, *(group.get(k) for k in ("lr", "eps", "weight_decay"))
            if len(betas) != 2 or not all(isinstance(n, float | int) for n in numbers):
                raise ValueError("its settings are not those of AdamW")
        super().load_state_dict(state_dict)


def loss_of(closure: Callable[[], Any] | None) -> Any:
    """What an optimizer returns: the loss, if there is something to compute it."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _fits_kernel(w: Tensor) -> bool:
    plain = w.is_contiguous() and w.grad is not None and w.grad.is_contiguous()
    return plain and w.device.type in FUSED and w.is_floating_point()


def decay_matrices(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    r"""Group the weights of a model: matrices decay, vectors do not.

    The vectors are the gains of RMSNorm. A gain that decays to zero would silence its
    layer, and there are too few of them to memorize anything.

    Args:
        model: the model.
        weight_decay: $\lambda$ of the matrices.

    Returns:
        Two groups, as an optimizer takes them.

    Examples:
        >>> from torch import nn
        >>> layers = nn.Sequential(nn.Linear(2, 3, bias=False), nn.RMSNorm(3))
        >>> groups = decay_matrices(layers, 0.3)
        >>> [([w.ndim for w in g["params"]], g["weight_decay"]) for g in groups]
        [([2], 0.3), ([1], 0.0)]
    """
    weights = list(model.parameters())
    return [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": weight_decay},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]


def cosine_schedule(
    step: int, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int
) -> float:
    r"""The *learning-rate schedule*: linear warm-up, then cosine decay.

    At first the moments of AdamW are averages over few gradients and the weights are
    far off, so the *warm-up* takes small steps. Towards the end, large steps only jump
    back and forth across the valley, so they become small again (Loshchilov & Hutter
    2017, arXiv:1608.03983, equation 5, without restarts).

    <div class="figure" markdown>

    --8<-- "images/learning-rate.svg"

    </div>

    Args:
        step: $s$. The warm-up begins with 0 at step 0, so a loop that counts from 0
            asks for `step + 1`, or its first step would move nothing.
        max_lr: the learning rate at the end of the warm-up.
        min_lr: the learning rate from `total_steps` on.
        warmup_steps: for how many steps the learning rate rises.
        total_steps: the step at which it has come down to `min_lr`.

    Returns:
        The learning rate.

    Examples:
        Ten steps up, a hundred down. The corners, each with its neighbours:

        >>> rate = lambda step: round(cosine_schedule(step, 1.0, 0.1, 10, 110), 4)
        >>> [rate(step) for step in (0, 1, 2)]  # the loop's first step asks for 1
        [0.0, 0.1, 0.2]
        >>> [rate(step) for step in (9, 10, 11)]
        [0.9, 1.0, 0.9998]
        >>> [rate(step) for step in (109, 110, 111)]
        [0.1002, 0.1, 0.1]
        >>> rate(60)  # halfway down
        0.55
    """
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    if step >= total_steps:
        return min_lr
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def clip_gradients(params: Iterable[Tensor], max_norm: float) -> float:
    r"""Clip the gradient norm: scale the gradient down to at most `max_norm`.

    The *gradient norm* is the length of the gradient of all weights together, as one
    vector. One odd sequence can make it a hundred times its usual size. The direction
    of such a gradient is worth something; its length is not.

    How often it acts depends on `max_norm`. The demo sets it to 1; the median norm
    there is about 1.6, and more than nine of ten steps are clipped (`make check` trains
    the demo and counts them). So in the demo clipping is no safeguard against rare
    accidents: it *normalizes* nearly every gradient to length 1. AdamW divides by the
    usual size of the gradient anyway; what remains is that no step counts for much more
    than another in its moments.

    Args:
        params: the weights; those without a gradient are passed over.
        max_norm: the largest norm allowed, positive.

    Returns:
        The norm before clipping.

    Raises:
        ValueError: if `max_norm` is not positive: a negative one would turn the
            gradient round.

    Examples:
        >>> w = torch.zeros(2, requires_grad=True)
        >>> w.grad = torch.tensor([30.0, 40.0])
        >>> clip_gradients([w], max_norm=1.0)
        50.0
        >>> [round(g, 3) for g in w.grad.tolist()]
        [0.6, 0.8]
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive; got {max_norm}: 1 is usual")
    gradients = [w.grad for w in params if w.grad is not None]
    if not gradients:
        return 0.0
    norm = _norm(gradients)
    if math.isinf(norm):  # Squares beyond 3e38 overflow float32: a norm of 2e19.
        norm = _norm(gradients, torch.float64)
    if norm > max_norm:
        torch._foreach_mul_(gradients, max_norm / norm)
    return norm


def _norm(gradients: list[Tensor], dtype: torch.dtype | None = None) -> float:
    norms = torch.stack(torch._foreach_norm(gradients, dtype=dtype))
    return float(torch.linalg.vector_norm(norms))
