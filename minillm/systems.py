r"""Systems: one step on the clock; memory, machines and messages.

**The question.** Chapter 7 counted what a step of training must compute. Your processor
could do that much in about two thirds of the time that the step takes. What is the time
spent on, how much of it can be saved, and by what? And when a second processor helps:
why does the work not take half as long?

**Before this:** [`minillm.flops`][], which counts; [`minillm.attention`][], whose
matrix of scores is the problem of the second part; [`minillm.train`][], the loop.

# Time is not FLOPs

Time every operation of one step of the demo, on one thread, and add up by the part of
the model (milliseconds of the processor's time, which stands still while other programs
have their turn):

--8<-- "images/data/clock.md"

The products have all the FLOPs, by definition, and not all the time. A norm, a softmax
or a step of AdamW does little arithmetic for each number that it touches, so it waits
for memory; and the smallest operations are mostly overhead, a *call*. So measure three
things of a machine: the *peak* of a large product, the *bandwidth* for arrays of
several sizes, and the cost of a call. Every operation then has a place under the
[roofline](accounting/roofline.md) of chapter 7, the limit that peak and bandwidth set
together, and a predicted time ([`minillm.training.clock`][]):

<div class="figure" markdown>

--8<-- "images/clock-roofline.svg"

</div>

Adding up the predictions predicts the step, and the table says by how much it is off.
Where a part is far slower than predicted, something is going on that three numbers do
not know: exponentials, products too thin to reach the peak, memory that the system
hands out anew for each result. A faster program begins where this costs the most
milliseconds, here in attention. `minillm clock` prints the same for your machine.

# The matrix of scores fills the memory

Attention computes a score for every query and every key: $T \times T$ numbers for each
head, four times as many for a context of twice the length. The values that it returns
are only $T \times d$. What are the scores needed for? Softmax divides by a sum over the
whole row, so it seems that the row must be complete first.

It need not be. Read the keys in blocks, and keep three things for each query: the
largest score $m$ so far, the sum $\ell = \sum_j e^{s_j - m}$, and the gathered values
$o = \sum_j e^{s_j - m}\, v_j$. A new block brings a new largest score $m'$. Then

$$\begin{aligned}
e^{s_j - m'} &= e^{s_j - m} \cdot e^{m - m'} \\
\ell' &= \ell \cdot e^{m - m'} + \textstyle\sum_{j \text{ new}} e^{s_j - m'} \\
o' &= o \cdot e^{m - m'} + \textstyle\sum_{j \text{ new}} e^{s_j - m'}\, v_j
\end{aligned}$$

and at the end the result is $o / \ell$. This *online softmax* (Milakov & Gimelshein
2018, arXiv:1805.02867, algorithm 3) is exact: rescaling the old sum is all that it
takes. [`blockwise_attention`][minillm.systems.blockwise_attention] is built on it, and
holds the scores of one block at a time; its largest array here is the result itself:

>>> q, k, v = torch.randn(3, 256, 8, generator=torch.manual_seed(0)).double()
>>> past = torch.ones(256, 256, dtype=torch.bool).tril()
>>> plain = scaled_dot_product_attention(q, k, v, past)
>>> torch.allclose(blockwise_attention(q, k, v, block=32), plain, atol=1e-14)
True
>>> largest(lambda: scaled_dot_product_attention(q, k, v, past))
65536
>>> largest(lambda: blockwise_attention(q, k, v, block=32))  # 256 · 8 numbers out
2048

The backward pass would need the weights, and so the scores, again. It computes them
again, block by block: more FLOPs, fewer bytes. This is the idea of FlashAttention (Dao
et al. 2022, arXiv:2205.14135, section 3.1), and of the fused kernel that
[`minillm.model`][] uses:

<div class="figure" markdown>

--8<-- "images/blockwise.svg"

</div>

Timed were forward and backward pass of four heads, in blocks of 256, on one thread of a
CPU. At 2,048 tokens blocks take a tenth of the time and a twentieth of the memory, even
though they are written in Python: those that the mask hides are not computed, and the
arrays are small enough to stay in a cache of megabytes, where the plain version goes
through new memory again and again. PyTorch's kernel does the same in C++. On a GPU a
program chooses what stays in fast on-chip memory (*SRAM*): an A100 has 192 kB of it for
each of its 108 *streaming multiprocessors*, at 19 TB/s in all, and a large memory with
1.5 to 2 TB/s (the paper's section 2.1). A matrix of scores that is written out and read
back crosses the slow connection several times; a block is made to fit into the fast
memory and never leaves it. The authors measured 7.6 times the speed for GPT-2's
attention (figure 1). Later versions gain from better scheduling (FlashAttention-2: Dao
2023, arXiv:2307.08691).

# What messages cost

Data parallelism gives each process (its number is its *rank*) a share of the batch, and
*all-reduces* the gradients: every process gets the sum of all of them
([`minillm.training.distributed`][]). The sum over $n$ processes could be computed by
one that collects and answers: it would receive $n - 1$ gradients and send as many,
while the others wait. In a *ring*, everybody works. Each gradient is cut into $n$
chunks; in $n - 1$ turns each rank passes a chunk to its neighbour, which adds its own
(*reduce-scatter*), and in $n - 1$ more turns the finished chunks go around
(*all-gather*). Each rank sends $2(n - 1)$ chunks of $1/n$ each:

>>> gradients = [np.full(12, 10.0**rank) for rank in range(4)]
>>> sums, sent = ring_all_reduce(gradients)
>>> sums[2][:3].tolist(), sent == 2 * (4 - 1) / 4 * gradients[0].nbytes
([1111.0, 1111.0, 1111.0], True)

Less than twice the gradient, however many processes there are (Patarasuk & Yuan 2009).
But it is many messages, and each has a *latency* however short it is. A line through
the times of messages of several sizes gives both numbers
([`fit_messages`][minillm.training.messages.fit_messages]), and they predict what an
all-reduce of any size should take:

>>> sizes = [1e3, 1e5, 1e7]
>>> latency, bandwidth = fit_messages(sizes, [50e-6 + size / 2e9 for size in sizes])
>>> round(latency * 1e6), round(bandwidth / 1e9, 1)
(50, 2.0)
>>> one = all_reduce_seconds(4e6, 2, latency, bandwidth)
>>> many = 21 * all_reduce_seconds(4e6 / 21, 2, latency, bandwidth)  # by weight
>>> f"{one * 1e3:.1f} ms in one message, {many * 1e3:.1f} ms in 21"
'2.1 ms in one message, 4.1 ms in 21'

So much for the arithmetic. Measured between processes of one thread, on the machine of
the first table, but on the wall clock, which also counts waiting:

--8<-- "images/data/messages.md"

Without messages, two processes take little more than half of the time. Sent one by one,
the gradients cost nine tenths of what was gained, in the fastest turn; in the
[median turn](speed.md#gradients-in-one-message), the two processes are slower than one.
In one bucket they add less than a fifth, and the two passes are 1.6 times as fast as in
one process. Overlap hides nothing here, for two reasons. The processor that computes
must also copy the bytes. And PyTorch fills buckets of 25 MB, so most of the demo's 4 MB
leave only when the backward pass is over. A whole step gains less,
[1.3 times](speed.md#two-processes): clipping and AdamW are not divided, and there is a
second message, for the loss.

The prediction is not good here. With two ranks an all-reduce takes up to four times as
long, with four ranks, which share two cores, up to four and a half times. The line was
fitted to messages that are only copied; an all-reduce also adds, and each turn of the
ring waits for the slowest rank.

# Everybody holds everything

With data parallelism, each rank keeps all weights, all gradients, and both moments of
AdamW: 16 bytes for each parameter in float32, the same on every rank. *ZeRO*
(Rajbhandari et al. 2019, arXiv:1910.02054) lets each rank keep only a share. Its first
stage shares out the moments. Each rank updates the weights whose moments it has, then
fetches the others: reduce-scatter, step, all-gather. The messages are the two halves of
the ring, so no more bytes are sent than before, though in the second half they are
weights and not gradients:

>>> zero_bytes(1e9, world=8, stage=0) / 1e9, zero_bytes(1e9, world=8, stage=1) / 1e9
(16.0, 9.0)
>>> zero_bytes(1e9, world=8, stage=3) / 1e9
2.0

[`minillm.training.sharding`][] does it by hand, with the same weights to the last bit,
and sets PyTorch's `fully_shard`, which shares out gradients and weights as well (stage
3), beside it. When a single *layer* is too large, or its computation too slow, the
layers themselves are shared out: *tensor parallelism* cuts the matrices
([`minillm.training.tensor_parallel`][]), *pipeline parallelism* the stack
([`minillm.training.pipeline`][]).

# What decoding waits for

A step of training has hundreds of tokens for each weight that it reads; decoding has
one. For a large model the bandwidth decides alone, and the remedies are others: *fewer
bits* for each weight ([`minillm.inference.quantized`][]), *guess and check*, in which a
cheap model proposes several tokens for the expensive one to judge at once
([`minillm.inference.speculative`][]), and *many users*, whose sequences share each
weight that is read ([`minillm.inference.serving`][]).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minillm.attention import scaled_dot_product_attention
from minillm.training.messages import all_reduce_seconds, fit_messages
from minillm.training.sharding import zero1_step, zero_bytes

__all__ = [
    "all_reduce_seconds",
    "blockwise_attention",
    "fit_messages",
    "largest",
    "online_softmax_update",
    "ring_all_reduce",
    "scaled_dot_product_attention",
    "zero1_step",
    "zero_bytes",
]

State = tuple[Tensor, Tensor, Tensor]


def online_softmax_update(
    state: State,
    scores: Float[Tensor, "*batch queries block"],
    values: Float[Tensor, "*batch block d_v"],
) -> State:
    r"""Take in a block of scores and values: one step of an online softmax.

    Args:
        state: for each query the largest score so far, $m$; the sum $\ell$ of
            $e^{s_j - m}$; and the sum $o$ of $e^{s_j - m}\, v_j$. The first two are
            (…, queries, 1), the third (…, queries, d_v). Begin with $-\infty$, 0 and 0.
        scores: of the queries with the keys of the block; $-\infty$ where a query may
            not look.
        values: those of the block.

    Returns:
        The new state. At the end, $o / \ell$ is attention's result.

    Examples:
        Weights of 1, 2 and 4 sevenths, two scores first and then the third, which is
        larger than both:

        >>> scores = torch.tensor([[0.0, math.log(2), math.log(4)]])
        >>> values = torch.tensor([[7.0], [70.0], [700.0]])
        >>> state = torch.tensor([[-math.inf]]), torch.zeros(1, 1), torch.zeros(1, 1)
        >>> state = online_softmax_update(state, scores[:, :2], values[:2])
        >>> [round(x.item(), 3) for x in state]  # ln 2, (1 + 2) / 2, (7 + 2 · 70) / 2
        [0.693, 1.5, 73.5]
        >>> m, l, o = online_softmax_update(state, scores[:, 2:], values[2:])
        >>> round((o / l).item(), 3)  # (7 + 2 · 70 + 4 · 700) / 7
        421.0
    """
    m, total, o = state
    new_m = torch.maximum(m, scores.amax(dim=-1, keepdim=True))
    # A query that has seen nothing yet has a largest score of $-\infty$, from which
    # nothing can be subtracted.
    safe = new_m.masked_fill(new_m == -math.inf, 0.0)
    old = torch.exp(m - safe)  # e^(m - m')
    p = torch.exp(scores - safe)  # e^(s_j - m')
    return new_m, total * old + p.sum(dim=-1, keepdim=True), o * old + p @ values


def blockwise_attention(
    q: Float[Tensor, "*batch queries d"],
    k: Float[Tensor, "*batch keys d"],
    v: Float[Tensor, "*batch keys d_v"],
    block: int,
    causal: bool = True,
) -> Float[Tensor, "*batch queries d_v"]:
    r"""Same result as `scaled_dot_product_attention`, without the matrix of scores.

    Unlike it: queries and keys are taken in blocks, joined by
    [`online_softmax_update`][minillm.systems.online_softmax_update]; blocks that the
    causal mask hides are not computed; and the backward pass computes the weights again
    from $q$, $k$ and one number for each query, $\ln \sum_j e^{s_j}$.

    Args:
        q: the queries.
        k: the keys.
        v: the values.
        block: how many queries, and how many keys, are in a block.
        causal: whether a query sees only keys up to its own position. With fewer
            queries than keys, the queries are the last positions, as with a cache.

    Returns:
        For each query, a weighted mean of the values.

    Raises:
        ValueError: if `block` is not positive, or `causal` queries outnumber the keys.

    Examples:
        Whatever the blocks, the result is the same up to rounding:

        >>> q, k, v = torch.randn(3, 10, 4, generator=torch.manual_seed(0)).double()
        >>> plain = scaled_dot_product_attention(q, k, v)
        >>> [
        ...     torch.allclose(blockwise_attention(q, k, v, n, causal=False), plain)
        ...     for n in (1, 3, 10, 99)
        ... ]
        [True, True, True, True]
    """
    if block < 1:
        raise ValueError(f"a block has one position at least; got block={block}")
    if causal and q.shape[-2] > k.shape[-2]:
        raise ValueError(
            f"{q.shape[-2]} queries cannot be the last of {k.shape[-2]} positions: "
            "pass keys for all queries, or causal=False"
        )
    result: Tensor = cast("Any", _Blockwise).apply(q, k, v, block, causal)
    return result


class _Blockwise(torch.autograd.Function):
    """Forward and backward pass of `blockwise_attention`."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, block: int, causal: bool
    ) -> Tensor:
        out, logs = [], []
        for start in range(0, q.shape[-2] or 1, block):  # once, even for no queries
            rows = q[..., start : start + block, :]
            m = rows.new_full((*rows.shape[:-1], 1), -math.inf)
            o = rows.new_zeros(*rows.shape[:-1], v.shape[-1])
            state = m, torch.zeros_like(m), o
            for at, scores in _blocks(q, k, start, block, causal):
                state = online_softmax_update(state, scores, v[..., at, :])
            m, total, o = state
            # The largest score adds 1; a query that sees no key gathers zeros.
            out.append(o / total.clamp_min(1))
            logs.append(m + total.log())  # ln Σ_j e^(s_j)
        result = torch.cat(out, dim=-2)
        ctx.save_for_backward(q, k, v, result, torch.cat(logs, dim=-2))
        ctx.block, ctx.causal = block, causal
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (g,) = grads
        q, k, v, out, logs = ctx.saved_tensors
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        scale = 1 / math.sqrt(q.shape[-1])
        # $\sum_j p_j \bar p_j$, the term that softmax subtracts, is
        # $\bar o \cdot o$: it needs no row of weights.
        dots = (g * out).sum(dim=-1, keepdim=True)
        for start in range(0, q.shape[-2], ctx.block):
            rows = slice(start, start + ctx.block)
            for at, scores in _blocks(q, k, start, ctx.block, ctx.causal):
                p = torch.exp(scores - logs[..., rows, :])
                dv[..., at, :] += p.transpose(-2, -1) @ g[..., rows, :]
                dp = g[..., rows, :] @ v[..., at, :].transpose(-2, -1)
                ds = p * (dp - dots[..., rows, :]) * scale
                dq[..., rows, :] += ds @ k[..., at, :]
                dk[..., at, :] += ds.transpose(-2, -1) @ q[..., rows, :]
        return dq, dk, dv, None, None


def _blocks(
    q: Tensor, k: Tensor, start: int, block: int, causal: bool
) -> Iterator[tuple[slice, Tensor]]:
    """For the queries from `start` on, where each block of keys is, and the scores."""
    rows = q[..., start : start + block, :]
    past = k.shape[-2] - q.shape[-2]
    # The last of these queries stands at this position, and sees no key after it.
    end = past + start + rows.shape[-2] if causal else k.shape[-2]
    for first in range(0, end, block):
        at = slice(first, min(first + block, end))
        scores = rows @ k[..., at, :].transpose(-2, -1) / math.sqrt(q.shape[-1])
        if causal and at.stop > past + start + 1:
            shape = scores.shape[-2:]
            hidden = torch.ones(shape, dtype=torch.bool, device=q.device)
            scores.masked_fill_(hidden.triu(past + start - first + 1), -math.inf)
        yield at, scores


def largest(run: Callable[[], Any]) -> int:
    """Count the numbers in the largest array that a computation makes.

    Args:
        run: computes something.

    Returns:
        How many numbers it has; what a fused kernel keeps to itself is not seen.

    Examples:
        >>> largest(lambda: (torch.ones(3, 5) @ torch.ones(5, 4)).sum())
        20
    """
    sizes = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            found = (x for x in tree_leaves(result) if isinstance(x, Tensor))
            sizes.extend(x.numel() for x in found)
            return result

    with cast("Any", Watch)():
        run()
    return max(sizes)


def ring_all_reduce(
    parts: Sequence[NDArray[Any]],
) -> tuple[list[NDArray[Any]], int]:
    r"""Give every rank the sum over all, by messages between neighbours in a ring.

    Args:
        parts: the array of each rank, all of one shape and type.

    Returns:
        The sum, once for each rank, and how many bytes each rank has sent: $2(n - 1)/n$
        times its array, which is padded to a multiple of $n$ numbers.

    Raises:
        ValueError: if there is no rank, or two have arrays that differ in shape or
            type.

    Examples:
        Two ranks: each sends half, and gets half back.

        >>> sums, sent = ring_all_reduce([np.array([1.0, 2.0]), np.array([3.0, 4.0])])
        >>> [rank.tolist() for rank in sums], sent
        ([[4.0, 6.0], [4.0, 6.0]], 16)
        >>> ring_all_reduce([np.zeros(2), np.zeros(3)])
        Traceback (most recent call last):
        ValueError: rank 1 has (3,) float64, rank 0 (2,) float64: all need one model
    """
    n = len(parts)
    if not n:
        raise ValueError("an all-reduce needs one rank at least; got none")
    for r, part in enumerate(parts):
        if (part.shape, part.dtype) != (parts[0].shape, parts[0].dtype):
            raise ValueError(
                f"rank {r} has {part.shape} {part.dtype}, rank 0 {parts[0].shape} "
                f"{parts[0].dtype}: all need one model"
            )
    padding = -parts[0].size % n
    chunks = [np.split(np.pad(part.ravel(), (0, padding)), n) for part in parts]
    sent = 0
    for turn in range(2 * (n - 1)):
        # Reduce-scatter: rank $r$ begins with chunk $r$. After $n - 1$ turns the chunk
        # that it would send next is complete, and all-gather goes on with it.
        moving = [(r - turn) % n for r in range(n)]
        messages = [chunks[r][moving[r]].copy() for r in range(n)]
        for r, message in enumerate(messages):
            mine = chunks[(r + 1) % n]
            adding = turn < n - 1
            mine[moving[r]] = mine[moving[r]] + message if adding else message
        sent += messages[0].nbytes
    whole = [np.concatenate(own)[: parts[0].size] for own in chunks]
    return [array.reshape(parts[0].shape) for array in whole], sent
