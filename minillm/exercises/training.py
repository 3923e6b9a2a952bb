r"""Exercises to [`minillm.train`][] and [`minillm.training.optimizer`][]."""

import math
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from minillm import train
from minillm.exercises.exercise import FLOATS, Draw, Exercise, Mistake, stacked, tensors
from minillm.training import batches, descent, optimizer
from minillm.training.loss import cross_entropy_fast

__all__ = ["EXERCISES"]

sizes = st.integers(1, 3)


@st.composite
def _scored(draw: Draw) -> tuple[Tensor, Tensor]:
    logits = draw(stacked(draw(st.integers(2, 4)), dtype=FLOATS))
    shape, n_rows = logits.shape[:-1], logits[..., 0].numel()
    chosen = st.lists(
        st.integers(0, logits.shape[-1] - 1), min_size=n_rows, max_size=n_rows
    )
    return logits, torch.tensor(draw(chosen)).reshape(shape)


def _surprise(logits: Tensor, targets: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1))


def _overflowing(logits: Tensor, targets: Tensor) -> Tensor:
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return -p.gather(-1, targets.unsqueeze(-1)).log().mean()


def _one_maximum(logits: Tensor, targets: Tensor) -> Tensor:
    shifted = logits - logits.max()
    log_p = shifted - shifted.exp().sum(-1, keepdim=True).log()
    return -log_p.gather(-1, targets.unsqueeze(-1)).mean()


def _floored(logits: Tensor, targets: Tensor) -> Tensor:
    p = logits.softmax(-1) + 1e-10
    return -p.gather(-1, targets.unsqueeze(-1)).log().mean()


def _all_tokens(logits: Tensor, targets: Tensor) -> Tensor:
    one_hot = torch.nn.functional.one_hot(targets, logits.shape[-1])
    return -(logits.log_softmax(-1) * one_hot).mean()


# AdamW


def _reference_step(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    lr, betas, eps, weight_decay = rest
    weight = torch.nn.Parameter(w.clone())
    weight.grad = g
    adamw = optimizer.AdamW([weight], lr, betas, eps, weight_decay)
    # The state before this step, under the names that PyTorch gives it.
    state = {
        "step": torch.tensor(step - 1.0),
        "exp_avg": m.clone(),
        "exp_avg_sq": v.clone(),
    }
    adamw.state[weight] = state
    adamw.step()
    return weight.detach(), state["exp_avg"], state["exp_avg_sq"]


def _adamw(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    *,
    inside: bool = False,
    corrected: bool = True,
    eps_inside: bool = False,
    decay_rate: bool = True,
    late: int = 0,
    squared: bool = True,
    decay_late: bool = False,
    keep_corrected: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    if inside:
        g, weight_decay = g + weight_decay * w, 0.0
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * (g * g if squared else g.abs())
    t = step - late
    m_hat, v_hat = (
        mean / (1 - beta**t) if corrected and t else mean
        for mean, beta in zip((m, v), betas, strict=True)
    )
    root = (v_hat + eps).sqrt() if eps_inside else v_hat.sqrt() + eps
    decay = weight_decay * (lr if decay_rate else 1.0)
    if decay_late:
        return (w - lr * m_hat / root) * (1 - decay), m, v
    new = w - decay * w - lr * m_hat / root
    return (new, m_hat, v_hat) if keep_corrected else (new, m, v)


@st.composite
def _adamw_inputs(draw: Draw) -> tuple[Any, ...]:
    n = draw(sizes)
    w, g, m = (
        draw(tensors(n, values=(1.0, 2.0, -1.0, 0.5), dtype=torch.float64))
        for _ in range(3)
    )
    v = draw(tensors(n, values=(1.0, 4.0, 0.25), dtype=torch.float64))
    step, lr = draw(st.integers(1, 5)), draw(st.sampled_from([0.1, 0.01]))
    betas = draw(st.sampled_from([(0.9, 0.999), (0.8, 0.95)]))
    rest = draw(st.sampled_from([1e-8, 0.1])), draw(st.sampled_from([0.0, 0.1, 0.5]))
    return w, g, m, v, step, lr, betas, *rest


_ONE = torch.ones(1, dtype=torch.float64)


# The schedule


def _cosine(
    step: int,
    max_lr: float,
    min_lr: float,
    warmup_steps: int,
    total_steps: int,
    *,
    late: int = 0,
    span: bool = True,
    floor: bool = True,
    clamp: bool = True,
    whole: bool = False,
) -> float:
    if step < warmup_steps:
        return max_lr * (step + late) / warmup_steps
    if clamp and step >= total_steps:
        return min_lr
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    if not span:
        progress = step / total_steps
    if whole:
        progress = (step - warmup_steps) / total_steps
    low = min_lr if floor else 0.0
    return low + (max_lr - low) * (1 + math.cos(math.pi * progress)) / 2


def _linear(
    step: int, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int
) -> float:
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return max_lr + (min_lr - max_lr) * progress


# Clipping


def _reference_clip(
    gradients: list[Tensor], max_norm: float
) -> tuple[list[Tensor], float]:
    weights = [torch.zeros_like(g).requires_grad_() for g in gradients]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.clone()
    norm = optimizer.clip_gradients(weights, max_norm)
    return [w.grad for w in weights if w.grad is not None], norm


def _norm(gradients: list[Tensor]) -> float:
    return math.sqrt(sum(float((g * g).sum()) for g in gradients))


def _shorter(gradients: list[Tensor], factor: float) -> list[Tensor]:
    return [g * factor for g in gradients]


def _each(gradients: list[Tensor], max_norm: float) -> tuple[list[Tensor], float]:
    clipped = [g * min(1.0, max_norm / (_norm([g]) or 1.0)) for g in gradients]
    return clipped, _norm(gradients)


def _always(gradients: list[Tensor], max_norm: float) -> tuple[list[Tensor], float]:
    norm = _norm(gradients)
    return _shorter(gradients, max_norm / norm if norm else 1.0), norm


def _after(gradients: list[Tensor], max_norm: float) -> tuple[list[Tensor], float]:
    clipped = _shorter(gradients, min(1.0, max_norm / (_norm(gradients) or 1.0)))
    return clipped, _norm(clipped)


def _greatest(gradients: list[Tensor], max_norm: float) -> tuple[list[Tensor], float]:
    norm = max(_norm([g]) for g in gradients)
    return _shorter(gradients, min(1.0, max_norm / (norm or 1.0))), norm


# Batches


def _reference_batch(
    tokens: Any, starts: list[int], context_length: int
) -> tuple[Tensor, Tensor]:
    return batches.cut_sequences(tokens, torch.tensor(starts), context_length)


def _batch(
    tokens: Any, starts: list[int], context_length: int, *, ahead: int
) -> tuple[Tensor, Tensor]:
    pieces = [tokens[s : s + context_length + 2].astype(np.int64) for s in starts]
    rows = [torch.from_numpy(piece) for piece in pieces]
    inputs = torch.stack([row[:context_length] for row in rows])
    return inputs, torch.stack([row[ahead : ahead + context_length] for row in rows])


@st.composite
def _batch_inputs(draw: Draw) -> tuple[Any, ...]:
    length = draw(sizes)
    ids = draw(st.lists(st.integers(0, 9), min_size=length + 2, max_size=8))
    starts = st.lists(st.integers(0, len(ids) - length - 2), min_size=1, max_size=2)
    return np.array(ids, dtype=np.uint16), draw(starts), length


_TEXT = np.array([3, 1, 4, 1, 5, 9], dtype=np.uint16)


def _bytes_made(function: Callable[..., Any], *args: Any) -> int:
    """Count the bytes that a call asks NumPy for, at the most at one time.

    PyTorch's are not seen; but what it makes of a NumPy array, it makes of pieces.

    Args:
        function: what to call.
        args: its arguments.

    Returns:
        The bytes.
    """
    tracemalloc.start()
    try:
        function(*args)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _call_open(function: Callable[..., Any], ids: list[int], fraction: float) -> Any:
    """Write tokens to a file, let the candidate open it, and look at what it holds."""
    # Windows does not delete a file that is still mapped; then the folder stays.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "tokens.npy"
        np.save(path, np.array(ids, dtype=np.uint16))
        parts = function(path, fraction)
        mapped = [
            isinstance(part, np.memmap) and not part.flags.owndata for part in parts
        ]
        written = [getattr(part, "mode", "r") for part in parts if len(part)]
        safe = "read-only" if set(written) <= {"r"} else "can be written to"
        return [np.array(part) for part in parts], all(mapped), safe


def _open(path: Any, fraction: float, mode: Any = "r") -> tuple[Any, Any]:
    tokens = np.load(path, mmap_mode=mode)
    cut = len(tokens) - int(len(tokens) * fraction)
    return tokens[:cut], tokens[cut:]


def _opened(path: Any, fraction: float, how: str) -> tuple[Any, Any]:
    tokens = np.load(path, mmap_mode="r")
    n = int(len(tokens) * fraction)
    if how == "first":
        return tokens[n:], tokens[:n]
    if how == "negative":
        return tokens[:-n], tokens[-n:]
    cut = int(len(tokens) * (1 - fraction))
    return tokens[:cut], tokens[cut:]


EXERCISES = (
    Exercise(
        name="train.cross_entropy",
        title="Surprise",
        minutes=15,
        why="This number is what training makes small; everything else serves it.",
        answer=(train.cross_entropy, cross_entropy_fast),
        reference=train.cross_entropy,
        forbidden=frozenset({"cross_entropy_loss", "nll_loss_nd"}),
        inputs=_scored(),
        examples=(
            (torch.tensor([[1000.0, 0.0]]), torch.tensor([1])),
            (torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([1, 1])),
            (torch.tensor([[0.0, 1.0], [1000.0, 0.0]]), torch.tensor([1, 0])),
            (torch.tensor([[0.0, 40.0]]), torch.tensor([0])),
        ),
        mistakes=(
            Mistake(
                "one maximum for the whole batch",
                "Each position needs the maximum of its own logits: beside a logit of "
                "1000 elsewhere, all of its exponentials are zero.",
                _one_maximum,
            ),
            Mistake(
                "a small number added to the probability",
                "It hides the infinity and bounds the loss at -ln 1e-10 = 23, where "
                "there is no gradient: take the logarithm first, as log_softmax does.",
                _floored,
            ),
            Mistake(
                "overflows",
                "exp(1000) is infinite and log(0) too: log_softmax takes the largest "
                "score out first.",
                _overflowing,
            ),
            Mistake(
                "the sum for the mean",
                "A sum grows with the batch, and the learning rate would have to "
                "shrink with it.",
                lambda x, y: _surprise(x, y).sum(),
            ),
            Mistake(
                "mean over the vocabulary too",
                "One token came at each position: divide by the positions alone.",
                _all_tokens,
            ),
            Mistake(
                "the sign lost",
                "A logarithm of a probability is negative, a surprise is not.",
                lambda x, y: -_surprise(x, y).mean(),
            ),
            Mistake(
                "in bits",
                "Nats: the natural logarithm.",
                lambda x, y: _surprise(x, y).mean() / math.log(2),
            ),
        ),
        hints=(
            "The loss of one token is minus the logarithm of its probability.",
            "logits.log_softmax(-1) has these logarithms for every token; gather one.",
            "gather wants an index with as many axes: targets.unsqueeze(-1). Then the "
            "mean, and the sign.",
        ),
    ),
    Exercise(
        name="train.bits_per_byte",
        title="A loss that can be compared",
        minutes=5,
        why="Longer tokens are harder to guess. Two models with different tokenizers "
        "can be compared only per byte.",
        answer=(train.bits_per_byte,),
        reference=train.bits_per_byte,
        inputs=st.tuples(
            st.sampled_from([1.0, 2.5, 4.0]), st.integers(1, 50), st.integers(1, 99)
        ),
        examples=((2.0, 10, 40),),
        mistakes=(
            Mistake(
                "nats for bits",
                "A bit is ln 2 nats: divide by math.log(2).",
                lambda loss, n_tokens, n_bytes: loss * n_tokens / n_bytes,
            ),
            Mistake(
                "the ratio upside down",
                "The loss of the whole text is loss times tokens; then per byte.",
                lambda loss, n_tokens, n_bytes: loss * n_bytes / n_tokens / math.log(2),
            ),
            Mistake(
                "per token still",
                "That is bits per token; the text has another number of bytes.",
                lambda loss, n_tokens, n_bytes: loss / math.log(2),
            ),
            Mistake(
                "times ln 2",
                "A nat is the larger unit, so there are more bits: divide by ln 2.",
                lambda loss, n_tokens, n_bytes: loss * n_tokens / n_bytes * math.log(2),
            ),
        ),
        hints=(
            "How many nats does the whole text take?",
            "loss * n_tokens; and how many bits is a nat?",
            "Divide by math.log(2), and by the bytes.",
        ),
    ),
    Exercise(
        name="train.adamw_step",
        title="One step of AdamW",
        minutes=30,
        why="Llama was trained with it (Touvron et al. 2023, arXiv:2302.13971, section "
        "2.3), and nearly every wrong version of it still learns, only worse.",
        answer=(descent.adamw, optimizer.AdamW),
        reference=_reference_step,
        inputs=_adamw_inputs(),
        examples=(
            (_ONE, 2 * _ONE, _ONE, _ONE, 2, 0.1, (0.9, 0.999), 1e-8, 0.5),
            (_ONE, 2 * _ONE, 0 * _ONE, 0 * _ONE, 1, 0.1, (0.9, 0.999), 0.1, 0.0),
            (_ONE, 2 * _ONE, _ONE, _ONE, 2, 0.1, (0.9, 0.999), 0.1, 0.5),
        ),
        mistakes=(
            Mistake(
                "weight decay inside Adam",
                "Added to the gradient, the decay is divided by the root of v like "
                "everything else. AdamW subtracts it from the weight directly.",
                lambda *args: _adamw(*args, inside=True),
            ),
            Mistake(
                "no correction of the means",
                "Both means start at zero and are too small at first: divide by "
                "1 - beta ** step.",
                lambda *args: _adamw(*args, corrected=False),
            ),
            Mistake(
                "steps counted from zero",
                "The first step is step 1: with 0, 1 - beta ** 0 is nothing.",
                lambda *args: _adamw(*args, late=1),
            ),
            Mistake(
                "eps inside the root",
                "Here eps is added to the root, not under it.",
                lambda *args: _adamw(*args, eps_inside=True),
            ),
            Mistake(
                "weight decay without the learning rate",
                "The decay is lr times weight_decay, so that a schedule moves both.",
                lambda *args: _adamw(*args, decay_rate=False),
            ),
            Mistake(
                "the corrected means returned",
                "The next step needs m and v as they are, and corrects them anew.",
                lambda *args: _adamw(*args, keep_corrected=True),
            ),
            Mistake(
                "decay after the step",
                "The decay is a share of the weight before the step, not after it.",
                lambda *args: _adamw(*args, decay_late=True),
            ),
            Mistake(
                "the gradient not squared",
                "v is the mean of the *squared* gradient; its root is taken later.",
                lambda *args: _adamw(*args, squared=False),
            ),
        ),
        hints=(
            "First the two means, each of the old and the new, by beta to 1 - beta.",
            "m_hat = m / (1 - beta1 ** step), and v_hat in the same way; what is "
            "returned are m and v, not these.",
            "w - lr * weight_decay * w - lr * m_hat / (v_hat.sqrt() + eps)",
        ),
    ),
    Exercise(
        name="train.cosine_schedule",
        title="Up in a line, down along a cosine",
        minutes=15,
        why="An error by one here costs a step that moves nothing, or a rate that "
        "rises again at the end.",
        answer=(optimizer.cosine_schedule,),
        reference=optimizer.cosine_schedule,
        inputs=st.tuples(
            st.integers(0, 14),
            st.sampled_from([1.0, 2.0]),
            st.sampled_from([0.0, 0.5]),
            st.integers(0, 4),
            st.integers(6, 12),
        ),
        examples=(
            (0, 1.0, 0.0, 2, 10),
            (1, 1.0, 0.5, 2, 10),
            (4, 1.0, 0.5, 2, 10),
            (12, 1.0, 0.5, 2, 10),
            (0, 1.0, 0.0, 0, 10),
        ),
        mistakes=(
            Mistake(
                "off by one in the warm-up",
                "The rate is 0 at step 0 and max_lr *at* warmup_steps: the loop asks "
                "for step + 1, the schedule does not add it.",
                lambda *args: _cosine(*args, late=1),
            ),
            Mistake(
                "the cosine starts at step 0",
                "It begins when the warm-up is over: progress counts from there.",
                lambda *args: _cosine(*args, span=False),
            ),
            Mistake(
                "the cosine spans all steps",
                "It runs from the end of the warm-up to total_steps: divide by "
                "total_steps - warmup_steps.",
                lambda *args: _cosine(*args, whole=True),
            ),
            Mistake(
                "falls to zero",
                "The cosine swings between max_lr and min_lr.",
                lambda *args: _cosine(*args, floor=False),
            ),
            Mistake(
                "rises again at the end",
                "After total_steps the cosine would go up: stay at min_lr.",
                lambda *args: _cosine(*args, clamp=False),
            ),
            Mistake(
                "down in a line",
                "Half a cosine: slow at both ends, fast in between.",
                _linear,
            ),
        ),
        hints=(
            "Three cases: before warmup_steps, from total_steps on, and between.",
            "Between, progress goes from 0 to 1: (step - warmup_steps) over what?",
            "(1 + cos(pi * progress)) / 2 goes from 1 to 0.",
        ),
    ),
    Exercise(
        name="train.clip_gradients",
        title="Clip a gradient",
        minutes=15,
        why="One odd sequence can give a gradient a hundred times the usual norm, and "
        "undo an hour of training.",
        answer=(optimizer.clip_gradients,),
        reference=_reference_clip,
        forbidden=frozenset({"_foreach_norm"}),
        # PyTorch divides by norm + 1e-6, which is as good.
        tolerance=1e-5,
        inputs=st.tuples(
            st.lists(tensors(sizes, dtype=torch.float64), min_size=1, max_size=3),
            st.sampled_from([0.5, 1.0, 4.0]),
        ),
        examples=(
            ([3 * _ONE, 4 * _ONE], 1.0),
            ([3 * _ONE, 4 * _ONE], 10.0),
            ([0 * _ONE], 1.0),
        ),
        mistakes=(
            Mistake(
                "each tensor by itself",
                "The gradient is one long vector: clipped apart, it changes direction.",
                _each,
            ),
            Mistake(
                "lengthens short ones",
                "Only what is longer than max_norm is scaled.",
                _always,
            ),
            Mistake(
                "the length after clipping",
                "What is returned is the length before: it is what one watches.",
                _after,
            ),
            Mistake(
                "clamps each number",
                "The whole vector is scaled, so that its direction stays.",
                lambda gradients, most: (
                    [g.clamp(-most, most) for g in gradients],
                    _norm(gradients),
                ),
            ),
            Mistake(
                "the sum of the lengths",
                "Squares add up, lengths do not: the root of the sum of all squares.",
                lambda gradients, most: (
                    _shorter(
                        gradients,
                        min(1.0, most / (sum(_norm([g]) for g in gradients) or 1)),
                    ),
                    float(sum(_norm([g]) for g in gradients)),
                ),
            ),
            Mistake(
                "the greatest of the lengths",
                "All tensors together are one vector: the root of the sum of all "
                "squares.",
                _greatest,
            ),
        ),
        hints=(
            "One number first: the root of the sum of all squares in all tensors.",
            "By which factor does the vector have to shrink, to be max_norm long?",
            "Multiply every tensor by max_norm / norm, but only if norm > max_norm.",
        ),
    ),
    Exercise(
        name="train.batch",
        title="Cut a batch",
        minutes=15,
        why="Inputs and targets that are equal give a loss of zero and a model that "
        "has learned to copy.",
        answer=(batches.cut_sequences, train.get_batch),
        reference=_reference_batch,
        inputs=_batch_inputs(),
        examples=((_TEXT, [0, 2], 3),),
        # A text of n² tokens: the work must not grow with it.
        growth=lambda n: (np.zeros(n * n, dtype=np.uint16), [0, 2], 3),
        work=_bytes_made,
        mistakes=(
            Mistake(
                "targets are the inputs",
                "The target is the token that comes *next*: one step later.",
                lambda tokens, starts, n: _batch(tokens, starts, n, ahead=0),
            ),
            Mistake(
                "targets two steps ahead",
                "The target is the token that comes next: one step later.",
                lambda tokens, starts, n: _batch(tokens, starts, n, ahead=2),
            ),
            Mistake(
                "one token short",
                "A sequence of context_length + 1 tokens gives context_length inputs.",
                lambda tokens, starts, n: _batch(tokens, starts, n - 1, ahead=1),
            ),
            Mistake(
                "converts the whole text",
                "Of a text of gigabytes a batch needs a few kilobytes: cut first, then "
                "convert the pieces.",
                lambda tokens, starts, n: _reference_batch(
                    tokens.astype(np.int64), starts, n
                ),
                kind="growth",
            ),
            Mistake(
                "not int64",
                "PyTorch looks up embeddings by int64, or int32.",
                lambda tokens, starts, n: tuple(
                    part.int() for part in _reference_batch(tokens, starts, n)
                ),
            ),
        ),
        hints=(
            "Cut one sequence of context_length + 1 tokens for each start.",
            "All but the last of a piece are inputs, all but the first are targets.",
            "torch.from_numpy(np.stack(pieces).astype(np.int64)) before you cut.",
        ),
    ),
    Exercise(
        name="train.open_split",
        title="A text larger than the memory",
        minutes=15,
        why="A training text has gigabytes, and a batch needs a few kilobytes of it.",
        answer=(train.get_batch,),
        reference=_open,
        call=_call_open,
        inputs=st.tuples(
            st.lists(st.integers(0, 9), min_size=1, max_size=12),
            st.sampled_from([0.1, 0.25, 0.5]),
        ),
        examples=(
            ([1, 2, 3, 4, 5, 6, 7, 8, 9, 0], 0.1),
            ([1, 2, 3], 0.5),
            ([1, 2, 3], 0.1),
        ),
        mistakes=(
            Mistake(
                "reads the whole file",
                "numpy.load reads everything unless it is told mmap_mode='r'.",
                lambda path, fraction: tuple(
                    np.array(p) for p in _open(path, fraction)
                ),
            ),
            Mistake(
                "opens it for writing",
                "With mmap_mode='r+', a slip writes into the training text on disk.",
                lambda path, fraction: _open(path, fraction, "r+"),
            ),
            Mistake(
                "evaluates on the beginning",
                "The *last* part is cut off.",
                lambda path, fraction: _opened(path, fraction, "first"),
            ),
            Mistake(
                "cuts at -n, also where n is 0",
                "tokens[:-0] is empty and tokens[-0:] is everything: cut at len - n.",
                lambda path, fraction: _opened(path, fraction, "negative"),
            ),
            Mistake(
                "rounds the other part",
                "int(n * fraction) tokens are cut off, so the rest is rounded up.",
                lambda path, fraction: _opened(path, fraction, "rest"),
            ),
        ),
        hints=(
            "numpy.load(path, mmap_mode='r') gives an array that reads when asked.",
            "A slice of it is a view, and reads nothing either.",
            "Cut at len(tokens) - int(len(tokens) * fraction).",
        ),
    ),
)
