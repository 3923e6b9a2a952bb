r"""Exercises to [`minillm.systems`][]."""

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from minillm import systems
from minillm.exercises.exercise import Draw, Exercise, Mistake, tensors
from minillm.training import messages, pipeline, sharding, tensor_parallel
from minillm.training.machine import predicted_seconds
from minillm.training.tape import Array

__all__ = ["EXERCISES"]

sizes = st.integers(1, 4)


def arrays(*shape: int | SearchStrategy[int]) -> SearchStrategy[Array]:
    """Make arrays of float64."""
    return tensors(*shape, dtype=torch.float64).map(lambda tensor: tensor.numpy())


# The roofline of a product


def _product(
    m: int,
    n: int,
    p: int,
    peak: float,
    bandwidth: float,
    *,
    flops: int = 2,
    written: int = 1,
    number: int = 4,
) -> float:
    n_bytes = number * (m * n + n * p + written * m * p)
    return max(flops * m * n * p / peak, n_bytes / bandwidth)


def _added(m: int, n: int, p: int, peak: float, bandwidth: float) -> float:
    computing = 2 * m * n * p / peak
    return computing + 4 * (m * n + n * p + m * p) / bandwidth


# The online softmax

Parts = tuple[Array, Array, Array]


def _online(
    m: Array,
    total: Array,
    gathered: Array,
    scores: Array,
    values: Array,
    *,
    sums: bool = True,
    gather: bool = True,
    add: bool = True,
    own: bool = False,
) -> Parts:
    largest = scores.max(axis=-1, keepdims=True)
    new = largest if own else np.maximum(m, largest)
    old, p = np.exp(m - new), np.exp(scores - new)
    total = total * (old if sums else 1) + p.sum(axis=-1, keepdims=True)
    moved = p @ values
    if add:
        moved = moved + gathered * (old if gather else 1)
    return new, total, moved


def _not_shifted(
    m: Array, total: Array, gathered: Array, scores: Array, values: Array
) -> Parts:
    # The largest score is kept, and not used.
    new = np.maximum(m, scores.max(axis=-1, keepdims=True))
    p = np.exp(scores)
    return new, total + p.sum(axis=-1, keepdims=True), gathered + p @ values


@st.composite
def _states(draw: Draw) -> tuple[Any, ...]:
    queries, block, d = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(sizes)
    total = 1 + np.abs(draw(arrays(queries, 1)))
    m, gathered = draw(arrays(queries, 1)), draw(arrays(queries, d))
    return m, total, gathered, draw(arrays(queries, block)), draw(arrays(block, d))


_ONE, _TWO = np.array([[1.0]]), np.array([[2.0, 3.0]])


# Messages


def _fit(sizes: list[float], seconds: list[float]) -> tuple[float, float]:
    bandwidth = (sizes[1] - sizes[0]) / (seconds[1] - seconds[0])
    return seconds[0] - sizes[0] / bandwidth, bandwidth


def _shard(size: int, rank: int, n: int) -> tuple[int, int]:
    each = -(-size // n)
    return min(rank * each, size), min((rank + 1) * each, size)


def _column_then_row(x: Array, a: list[Array], b: list[Array]) -> Array:
    parts = [np.maximum(x @ own, 0) @ rows for own, rows in zip(a, b, strict=True)]
    return np.sum(parts, axis=0)


@st.composite
def _cut(draw: Draw) -> tuple[Any, ...]:
    rows, d, out, ranks = (draw(st.integers(1, 2)) for _ in range(4))
    widths = [draw(st.integers(1, 2)) for _ in range(ranks)]
    a = [draw(arrays(d, width)) for width in widths]
    return draw(arrays(rows, d)), a, [draw(arrays(width, out)) for width in widths]


@st.composite
def _timed(draw: Draw) -> tuple[Any, ...]:
    first = float(draw(st.sampled_from([0, 8, 100])))
    more = float(draw(st.sampled_from([8, 64, 1000])))
    start = draw(st.sampled_from([0.5, 1.0, 2.0]))
    return [first, first + more], [start, start + draw(st.sampled_from([0.25, 4.0]))]


EXERCISES = (
    Exercise(
        name="systems.product_seconds",
        title="The roofline of a product",
        minutes=10,
        why="Before you make something faster, you must know what it waits for.",
        answer=(predicted_seconds,),
        reference=_product,
        inputs=st.tuples(
            *(st.integers(1, 8) for _ in range(3)),
            st.sampled_from([1.0, 8.0, 64.0]),
            st.sampled_from([1.0, 4.0, 64.0]),
        ),
        examples=((10, 10, 10, 1000.0, 1e9), (1, 10, 10, 1e9, 100.0)),
        mistakes=(
            Mistake(
                "counts a multiplication with its addition as one FLOP",
                "Each number of the result is n multiplications and n additions: 2n.",
                lambda *args: _product(*args, flops=1),
            ),
            Mistake(
                "counts a FLOP as two",
                "2mnp has both, the multiplications and the additions.",
                lambda *args: _product(*args, flops=4),
            ),
            Mistake(
                "adds both times",
                "The machine computes and moves at the same time: the longer decides.",
                _added,
            ),
            Mistake(
                "forgets the result",
                "The result must be written to memory, too.",
                lambda *args: _product(*args, written=0),
            ),
            Mistake(
                "counts numbers for bytes",
                "A number in float32 has four bytes.",
                lambda *args: _product(*args, number=1),
            ),
        ),
        hints=(
            "How long would the FLOPs take alone, and how long the bytes?",
            "2 * m * n * p FLOPs; m * n + n * p + m * p numbers of four bytes.",
            "max(flops / peak, n_bytes / bandwidth)",
        ),
    ),
    Exercise(
        name="systems.online_softmax_update",
        title="Softmax, block by block",
        minutes=20,
        why="Every fused kernel of attention is this step, in a loop.",
        answer=(systems.online_softmax_update,),
        reference=_online,
        inputs=_states(),
        examples=(
            (0 * _ONE, _ONE, 2 * _ONE, 0 * _ONE, _ONE),
            (0 * _ONE, _ONE, _TWO, np.array([[1.0, -1.0]]), np.ones((2, 2))),
            (_ONE, _ONE, _TWO, np.array([[1000.0]]), np.ones((1, 2))),
        ),
        mistakes=(
            Mistake(
                "forgets to rescale the old sum",
                "The old total was summed up with the old largest score: multiply it "
                "by exp(m - new_m), too.",
                lambda *args: _online(*args, sums=False),
            ),
            Mistake(
                "forgets to rescale the old values",
                "What was gathered was weighted with the old largest score: multiply "
                "it by exp(m - new_m), too.",
                lambda *args: _online(*args, gather=False),
            ),
            Mistake(
                "forgets what was gathered",
                "The new block comes on top of the old ones.",
                lambda *args: _online(*args, add=False),
            ),
            Mistake(
                "the largest score of the block alone",
                "The largest score so far may lie in an earlier block: np.maximum of m "
                "and that of the block.",
                lambda *args: _online(*args, own=True),
            ),
            Mistake(
                "does not subtract the largest score",
                "exp(1000) overflows. Both sums are relative to the largest score.",
                _not_shifted,
            ),
        ),
        hints=(
            "The new largest score comes first: everything else is relative to it.",
            "exp(s - new_m) = exp(s - m) * exp(m - new_m), for every old score.",
            "gathered * np.exp(m - new_m) + np.exp(scores - new_m) @ values",
        ),
    ),
    Exercise(
        name="systems.chunk_to_send",
        title="Around the ring",
        minutes=15,
        why="One formula is the whole of a ring all-reduce.",
        answer=(systems.ring_all_reduce,),
        reference=lambda rank, turn, n: (rank - turn) % n,
        inputs=st.integers(2, 5).flatmap(
            lambda n: st.tuples(
                st.integers(0, n - 1), st.integers(0, 2 * n - 3), st.just(n)
            )
        ),
        examples=((0, 1, 3), (2, 3, 3), (1, 0, 4), (3, 5, 5)),
        mistakes=(
            Mistake(
                "goes around the wrong way",
                "What comes in is from the rank below, so the number falls with the "
                "turns.",
                lambda rank, turn, n: (rank + turn) % n,
            ),
            Mistake(
                "always its own chunk",
                "That is right in turn 0 only: then it sends on what it received.",
                lambda rank, turn, n: rank,
            ),
            Mistake(
                "the chunk that comes in",
                "That is the chunk of the next turn; this one was received before.",
                lambda rank, turn, n: (rank - turn - 1) % n,
            ),
            Mistake(
                "does not go around",
                "After chunk 0 comes the last one: take the remainder.",
                lambda rank, turn, n: rank - turn,
            ),
        ),
        hints=(
            "What did the rank below send in the turn before?",
            "chunk(rank, turn) = chunk(rank - 1, turn - 1)",
            "(rank - turn) % n",
        ),
    ),
    Exercise(
        name="systems.mean_loss",
        title="The mean over all tokens",
        minutes=5,
        why="Sequences of different lengths give ranks unequal numbers of tokens.",
        answer=(messages.average_in_buckets,),
        reference=lambda losses, tokens: float(np.dot(losses, tokens) / sum(tokens)),
        inputs=st.integers(1, 3).flatmap(
            lambda n: st.tuples(
                st.lists(st.sampled_from([0.5, 1.0, 2.0, 8.0]), min_size=n, max_size=n),
                st.lists(st.integers(1, 9), min_size=n, max_size=n),
            )
        ),
        examples=(([1.0, 4.0], [2, 1]), ([1.0, 2.0, 8.0], [5, 1, 1])),
        mistakes=(
            Mistake(
                "the mean of means",
                "A rank with few tokens must not count as much as one with many.",
                lambda losses, tokens: sum(losses) / len(losses),
            ),
            Mistake(
                "the sum of means",
                "Divide, too: by all tokens.",
                lambda losses, tokens: sum(losses),
            ),
            Mistake(
                "the sum over tokens",
                "That is the loss of all tokens together: divide by their number.",
                lambda losses, tokens: float(np.dot(losses, tokens)),
            ),
            Mistake(
                "divides by the ranks",
                "Losses were summed over tokens, so divide by the tokens.",
                lambda losses, tokens: float(np.dot(losses, tokens) / len(tokens)),
            ),
        ),
        hints=(
            "What is the sum of the losses of all tokens of rank i?",
            "losses[i] * tokens[i]",
            "Sum these over the ranks, and divide by sum(tokens).",
        ),
    ),
    Exercise(
        name="systems.fit_line",
        title="Latency and bandwidth",
        minutes=10,
        why="Two measurements predict all others.",
        answer=(messages.fit_messages,),
        reference=_fit,
        inputs=_timed(),
        examples=(([0.0, 100.0], [1.0, 2.0]), ([100.0, 300.0], [2.0, 3.0])),
        mistakes=(
            Mistake(
                "the slope for the bandwidth",
                "The slope is seconds for each byte; bandwidth is bytes per second.",
                lambda s, t: (_fit(s, t)[0], 1 / _fit(s, t)[1]),
            ),
            Mistake(
                "no latency",
                "That divides all of the time by the bytes. A part of it passes "
                "whatever the size.",
                lambda s, t: (0.0, s[1] / t[1]),
            ),
            Mistake(
                "the shorter message for the latency",
                "The shorter one has bytes, too: subtract the time for them.",
                lambda s, t: (t[0], _fit(s, t)[1]),
            ),
        ),
        hints=(
            "What do the two times differ by, and what the two sizes?",
            "bandwidth = (sizes[1] - sizes[0]) / (seconds[1] - seconds[0])",
            "latency = seconds[0] - sizes[0] / bandwidth",
        ),
    ),
    Exercise(
        name="systems.shard",
        title="Which part is mine?",
        minutes=10,
        why="A weight that nobody moves, or that two ranks move, is found late.",
        answer=(sharding.pieces,),
        reference=_shard,
        inputs=st.integers(1, 5).flatmap(
            lambda n: st.tuples(st.integers(0, 12), st.integers(0, n - 1), st.just(n))
        ),
        examples=((10, 3, 4), (10, 1, 4), (2, 2, 3), (8, 1, 2)),
        mistakes=(
            Mistake(
                "loses the remainder",
                "Rounded down, the shares do not reach the end: round up.",
                lambda size, rank, n: (rank * (size // n), (rank + 1) * (size // n)),
            ),
            Mistake(
                "reads beyond the end",
                "The last ranks may have fewer numbers, or none.",
                lambda size, rank, n: (
                    rank * -(-size // n),
                    (rank + 1) * -(-size // n),
                ),
            ),
            Mistake(
                "reads the wrong shard",
                "Ranks are counted from 0, so rank 0 has the first numbers.",
                lambda size, rank, n: _shard(size, rank + 1, n),
            ),
            Mistake(
                "first and length",
                "The second number is where the part ends.",
                lambda size, rank, n: (
                    _shard(size, rank, n)[0],
                    _shard(size, rank, n)[1] - _shard(size, rank, n)[0],
                ),
            ),
        ),
        hints=(
            "How many numbers has each rank, rounded up? -(-size // n) rounds up.",
            "Rank i begins at i times that, and ends where the next begins.",
            "Neither may be more than size: min(..., size).",
        ),
    ),
    Exercise(
        name="systems.column_then_row",
        title="One all-reduce is enough",
        minutes=15,
        why="Where you cut decides how often the ranks must talk.",
        answer=(tensor_parallel.tensor_parallel,),
        reference=_column_then_row,
        inputs=_cut(),
        examples=(
            (
                np.array([[1.0, 2.0]]),
                [np.array([[1.0], [1.0]]), np.array([[-1.0], [0.0]])],
                [np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])],
            ),
            (
                np.array([[1.0]]),
                [np.array([[1.0, 2.0]]), np.array([[3.0, -1.0]])],
                [np.eye(2), 2 * np.eye(2)],
            ),
        ),
        mistakes=(
            Mistake(
                "concatenates the results",
                "Each rank has a part of every sum, not some of the sums: add them.",
                lambda x, a, b: np.concatenate(
                    [
                        np.maximum(x @ own, 0) @ rows
                        for own, rows in zip(a, b, strict=True)
                    ],
                    axis=1,
                ),
            ),
            Mistake(
                "the first rank's part only",
                "The others have hidden numbers, too.",
                lambda x, a, b: np.maximum(x @ a[0], 0) @ b[0],
            ),
            Mistake(
                "the nonlinearity at the end",
                "It belongs to the hidden numbers, between the products. Each rank "
                "has its own, whole, so it needs nobody for it.",
                lambda x, a, b: np.maximum(
                    np.sum(
                        [x @ own @ rows for own, rows in zip(a, b, strict=True)], axis=0
                    ),
                    0,
                ),
            ),
            Mistake(
                "the mean for the sum",
                "All-reduce adds; only gradients are averaged.",
                lambda x, a, b: _column_then_row(x, a, b) / len(a),
            ),
            Mistake(
                "adds the weights up first",
                "The ranks have different columns of A, and different rows of B: add "
                "up the results.",
                lambda x, a, b: np.maximum(x @ sum(a), 0) @ sum(b),
            ),
        ),
        hints=(
            "What can rank 0 compute with a[0] and b[0] alone?",
            "np.maximum(x @ a[i], 0) @ b[i] has the shape of the result.",
            "Add these up over the ranks.",
        ),
    ),
    Exercise(
        name="systems.bubble",
        title="The bubble",
        minutes=10,
        why="It says how many micro-batches a pipeline needs to be worth it.",
        answer=(pipeline.bubble,),
        reference=lambda p, m: (p - 1) / (m + p - 1),
        inputs=st.tuples(st.integers(1, 6), st.integers(1, 9)),
        examples=((2, 3), (4, 4), (4, 1)),
        mistakes=(
            Mistake(
                "divides by the useful time",
                "The share of the whole time is asked for: the bubble belongs to it.",
                lambda p, m: (p - 1) / m,
            ),
            Mistake(
                "one stage too many",
                "With one stage, nobody waits: p - 1 stages are ahead of the last.",
                lambda p, m: p / (m + p),
            ),
            Mistake(
                "the useful share",
                "That is the share of the time in which a rank works.",
                lambda p, m: m / (m + p - 1),
            ),
        ),
        hints=(
            "Draw it for two stages and one micro-batch: when does each rank work?",
            "A rank works 3m units, and waits for the p - 1 others: 3(p - 1) units.",
            "(p - 1) / (m + p - 1)",
        ),
    ),
)
