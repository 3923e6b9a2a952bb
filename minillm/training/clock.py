r"""The clock: where the time of a training step goes.

**The question.** [`minillm.flops`][] counts what a step must compute, and divides by
what the processor can do. The clock shows a longer time. Which operations took it?

PyTorch calls a function for every operation that a program runs, so the clock can be
read before and after each. [`Clock`][minillm.training.clock.Clock] does so, and notes
for each operation the part of the model, its FLOPs, and the bytes that it reads and
writes. On a little model it counts, product by product, what chapter 7 counts by
formula:

>>> from minillm.flops import training_flops
>>> config = ModelConfig(64, 16, d_model=32, n_layers=2, n_heads=2)
>>> step = profile_step(config, batch_size=2, seq_len=16, tries=2)
>>> sum(operation.flops for operation in step) == training_flops(config, 2, 16)
True

And it sees what that count leaves out: most operations of a step are not products.

>>> products = [operation for operation in step if operation.flops]
>>> len(step) > 5 * len(products)
True
>>> {"norms", "gate", "loss", "AdamW"} <= {o.part for o in step if not o.flops}
True

How long each *should* have taken is predicted by [`minillm.training.machine`][], from
three measurements of the processor.

**Before this:** [`minillm.systems`][]. **Next:** [`minillm.training.machine`][].
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from minillm.accounting.measure import stand_in
from minillm.accounting.shapes import Architecture, as_architecture, check_sizes
from minillm.config import ModelConfig
from minillm.training.loss import cross_entropy_fast
from minillm.training.optimizer import AdamW, clip_gradients, decay_matrices

__all__ = [
    "Clock",
    "Operation",
    "least_seconds",
    "now",
    "profile_step",
    "step_time",
]


def now() -> float:
    """Read the clock.

    Returns:
        With one thread, the seconds that the processor has spent on it, which do not
        pass while other programs have their turn; with several, those on the wall.

    Examples:
        >>> start = now()
        >>> now() >= start
        True
    """
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def least_seconds(run: Callable[[], Any], at_least: float, calls: int = 1) -> float:
    """Time a program again and again; the fastest time counts.

    Args:
        run: the program.
        at_least: how many seconds to go on; three times in any case.
        calls: how many calls are timed together.

    Returns:
        Seconds of one call, in the fastest of the tries: the others were disturbed.

    Examples:
        >>> called = []
        >>> least_seconds(lambda: called.append(1), at_least=0, calls=2) < 1
        True
        >>> len(called)
        6
    """
    times: list[float] = []
    while len(times) < 3 or sum(times) * calls < at_least:
        start = now()
        for _ in range(calls):
            run()
        times.append((now() - start) / calls)
    return min(times)


class Operation(NamedTuple):
    """One operation of a step.

    Attributes:
        part: the part of the model or of the step that it belongs to.
        name: PyTorch's name for it.
        flops: of its matrix products; 0 where there is none.
        n_bytes: bytes of the arrays that it reads and writes; 0 for a view, which only
            looks at an array in another way.
        seconds: how long it took.
    """

    part: str
    name: str
    flops: float
    n_bytes: float
    seconds: float


class Clock(TorchDispatchMode):
    """Note part, FLOPs, bytes and seconds of every operation that runs inside.

    Args:
        tracker: knows in which module the program is, in both passes.

    Attributes:
        phase: the part, for operations outside of the model.
        operations: what was noted.

    Examples:
        >>> with ModuleTracker() as tracker, Clock(tracker) as clock:
        ...     clock.phase = "mine"
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 2)
        >>> [(o.part, o.name, o.flops, o.n_bytes) for o in clock.operations][-1]
        ('mine', 'mm', 24, 64)
    """

    def __init__(self, tracker: ModuleTracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tracker, self.phase = tracker, ""
        self.operations: list[Operation] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation between two looks at the clock."""
        kwargs = kwargs or {}
        start = now()
        result = func(*args, **kwargs)
        seconds = now() - start
        packet = func._overloadpacket
        name = packet.__name__
        # A view has part of its argument's memory for a result, and writes nothing.
        view = name in VIEWS or any(
            r.alias_info is not None and not r.alias_info.is_write
            for r in func._schema.returns
        )
        arrays = [
            x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)
        ]
        moved = 0 if view else sum(x.numel() * x.element_size() for x in arrays)
        part = _part(self.tracker.parents) or self.phase
        flops = _flops(packet, args, kwargs, result)
        self.operations.append(Operation(part, name, flops, moved, seconds))
        return result


VIEWS = {"_unsafe_view", "_reshape_alias", "promote_types"}
FUSED = "_scaled_dot_product_flash_attention_for_cpu"

# The parts of the model, by the last words of a module's name.
PARTS = {
    "norm": "norms",
    "rope": "rotation",
    "_proj": "projections",
    "attn": "attention",
    "w1": "feed-forward",
    "w2": "feed-forward",
    "w3": "feed-forward",
    "ffn.0": "feed-forward",
    "ffn.2": "feed-forward",
    "ffn": "gate",
    "ffn.1": "gate",
    "lm_head": "head",
    "token_embedding": "embedding",
}


def _part(parents: Iterable[str]) -> str:
    """The part that the innermost of these modules is."""
    inside = max(parents, key=len, default="")
    for ending, part in PARTS.items():
        if inside.endswith(ending):
            return part
    return "residual sums" if ".blocks." in inside else ""


def _flops(packet: Any, args: Any, kwargs: Any, result: Any) -> float:
    if packet.__name__.startswith(FUSED):
        # PyTorch's counter passes over this kernel; see `minillm.accounting.measure`.
        # Two products forward. The gradient needs four, and a fifth to compute the
        # weights again, which the model does not need and so does not count.
        backward = packet.__name__ != FUSED
        q, k = args[1:3] if backward else args[:2]
        return (8 if backward else 4) * q.numel() * k.shape[-2]
    count = flop_registry.get(packet)
    return count(*args, **kwargs, out_val=result) if count else 0


def _step(
    config: ModelConfig | Architecture, batch_size: int, seq_len: int
) -> Callable[..., None]:
    """Build a model, and a function that takes one step with it."""
    check_sizes(batch_size=batch_size, seq_len=seq_len)
    torch.manual_seed(0)
    model = stand_in(config, seq_len)
    optimizer = AdamW(decay_matrices(model, 0.1))
    ids = torch.randint(as_architecture(config).vocab_size, (batch_size, seq_len + 1))

    def step(phase: Callable[[str], None] = lambda name: None) -> None:
        phase("zeroing")
        optimizer.zero_grad()
        phase("embedding")
        logits = model(ids[:, :-1])
        phase("loss")
        loss = cross_entropy_fast(logits, ids[:, 1:])
        loss.backward()
        phase("clipping")
        clip_gradients(model.parameters(), 1.0)
        phase("AdamW")
        optimizer.step()

    return step


def profile_step(
    config: ModelConfig | Architecture, batch_size: int, seq_len: int, tries: int = 20
) -> list[Operation]:
    """Time every operation of a step of training: forward, backward, clipping, AdamW.

    Args:
        config: the shape of the model.
        batch_size: sequences in a batch.
        seq_len: tokens in each.
        tries: how many steps; of each operation the fastest time counts, since the
            others were disturbed.

    Returns:
        The operations in the order in which they ran.

    Raises:
        ValueError: if a size is not positive.

    Examples:
        >>> step = profile_step(ModelConfig(8, 4, 8, 1, 2), 1, 4, tries=1)
        >>> [o.name for o in step if o.part == "head" and o.flops]  # one, and two back
        ['mm', 'mm', 'mm']
    """
    step = _step(config, batch_size, seq_len)
    step()  # the first makes the optimizer's moments
    best: dict[tuple[str, str, int], Operation] = {}
    for _ in range(tries):
        with ModuleTracker() as tracker, Clock(tracker) as clock:

            def phase(name: str, clock: Clock = clock) -> None:
                clock.phase = name

            step(phase)
        # Now and then PyTorch needs a view more or less, so an operation is found
        # again by its part, its name and its number among those.
        seen: Counter[tuple[str, str]] = Counter()
        for operation in clock.operations:
            key = *operation[:2], seen[operation[:2]]
            seen[operation[:2]] += 1
            known = best.setdefault(key, operation)
            if operation.seconds < known.seconds:
                best[key] = operation
    return list(best.values())


def step_time(
    config: ModelConfig | Architecture,
    batch_size: int,
    seq_len: int,
    at_least: float = 2.0,
) -> float:
    """Time a whole step, without a look at the clock in between.

    Args:
        config: the shape of the model.
        batch_size: sequences in a batch.
        seq_len: tokens in each.
        at_least: how many seconds to go on.

    Returns:
        Seconds of the fastest step.

    Raises:
        ValueError: if a size is not positive.

    Examples:
        >>> step_time(ModelConfig(8, 4, 8, 1, 2), 1, 4, at_least=0) > 0
        True
    """
    step = _step(config, batch_size, seq_len)
    step()
    return least_seconds(step, at_least)
