r"""The clock: where the time of a training step goes, and where it should go.

**The question.** [`minillm.flops`][] counts what a step must compute, and divides by
what the processor can do. The clock shows a longer time. Which operations took it, and
could you have known before?

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

And it sees what that count leaves out: most operations of a step are no products.

>>> products = [operation for operation in step if operation.flops]
>>> len(step) > 5 * len(products)
True
>>> {"norms", "gate", "loss", "AdamW"} <= {o.part for o in step if not o.flops}
True

# A machine in three numbers

How long should an operation take? Three measurements of the machine say it:

- the *peak*: how many FLOPs a large matrix product reaches in a second;
- the *bandwidth*: how many bytes a second it reads and writes, which depends on whether
  they fit into a cache, so it is measured for arrays of many sizes;
- the *cost of a call*: how long the smallest operation takes.

An operation waits for its arithmetic or for its bytes, whichever takes longer, and for
the call ([`roofline`][minillm.accounting.cost.roofline] has the first two):

$$t = t_{\text{call}} + \max\left(\frac{\text{FLOPs}}{\text{peak}},
\frac{\text{bytes}}{\text{bandwidth}(\text{bytes})}\right)$$

>>> machine = Machine(1e11, bandwidth=((1e3, 4e10), (1e6, 1e10)), call=2e-6)
>>> tiny = Operation("norms", "add", flops=0, n_bytes=1e3, seconds=0.0)
>>> large = Operation("head", "mm", flops=2e8, n_bytes=1e6, seconds=0.0)
>>> [f"{predicted_seconds(operation, machine):.1e}" for operation in (tiny, large)]
['2.0e-06', '2.0e-03']

The first is all call, the second all arithmetic. Adding up the predictions of all
operations predicts the step. `minillm clock` measures your machine, predicts the demo's
step, and then lets the clock judge.

**Before this:** [`minillm.systems`][]. **Next:** [`minillm.training.distributed`][].
"""

import json
import math
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
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
    "Machine",
    "Operation",
    "by_part",
    "clock_lines",
    "clock_rows",
    "measure_machine",
    "now",
    "predicted_seconds",
    "profile_step",
    "report",
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


class Machine(NamedTuple):
    """What a machine can do, measured.

    Attributes:
        peak_flops: FLOP/s of a large matrix product.
        bandwidth: pairs of bytes moved and bytes per second, in rising order.
        call: seconds of the smallest operation.
    """

    peak_flops: float
    bandwidth: tuple[tuple[float, float], ...]
    call: float


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


DEMO = ModelConfig(2048, context_length=128, d_model=128, n_layers=2, n_heads=4)
DEMO_BATCH = 4

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
    return _fastest(step, at_least)


def _fastest(run: Callable[[], Any], at_least: float, calls: int = 1) -> float:
    times: list[float] = []
    while len(times) < 3 or sum(times) * calls < at_least:
        start = now()
        for _ in range(calls):
            run()
        times.append((now() - start) / calls)
    return min(times)


def measure_machine(at_least: float = 0.1) -> Machine:
    """Measure what this machine can do, with as many threads as PyTorch uses.

    Args:
        at_least: how many seconds to spend on each of about a dozen measurements.

    Returns:
        Peak, bandwidth by size, and the cost of a call.

    Examples:
        >>> machine = measure_machine(at_least=0)
        >>> 0 < machine.call < 1, len(machine.bandwidth)
        (True, 6)
    """
    size = 1024 if at_least else 64
    x = torch.randn(size, size)
    peak = 2 * size**3 / _fastest(lambda: x @ x, 10 * at_least)
    bandwidth = []
    for power in range(16, 27, 2):  # 64 kB to 67 MB
        numbers = 2**power // 12
        a, b, c = torch.ones(3, numbers)  # two arrays are read, one is written
        calls = max(1, 2**20 // numbers) if at_least else 1
        seconds = _fastest(partial(torch.add, a, b, out=c), at_least, calls)
        bandwidth.append((float(12 * numbers), seconds))
    one = torch.ones(1)
    call = _fastest(lambda: torch.add(one, one, out=one), at_least, 1000)
    # A part of the time of a small array is the call.
    return Machine(
        peak,
        tuple((n, n / max(t - call, t / 2)) for n, t in bandwidth),
        call,
    )


def predicted_seconds(operation: Operation, machine: Machine) -> float:
    """Predict how long an operation takes.

    Args:
        operation: its FLOPs and bytes.
        machine: what was measured.

    Returns:
        Seconds: the call, and the longer of computing and moving. A view is only a
        call.

    Examples:
        >>> view = Operation("attention", "transpose", flops=0, n_bytes=0, seconds=0)
        >>> predicted_seconds(view, Machine(1e11, ((1e3, 1e10),), call=1e-6))
        1e-06
    """
    moving = 0.0
    if operation.n_bytes:
        moving = operation.n_bytes / _bandwidth(operation.n_bytes, machine.bandwidth)
    return machine.call + max(operation.flops / machine.peak_flops, moving)


def _bandwidth(n_bytes: float, measured: Sequence[tuple[float, float]]) -> float:
    """The bandwidth at the measured size that is nearest, as sizes double."""
    return min(measured, key=lambda pair: abs(math.log(pair[0] / n_bytes)))[1]


def by_part(
    operations: Iterable[Operation], machine: Machine
) -> list[tuple[str, int, float, float, float, float]]:
    """Add up the operations of each part.

    Args:
        operations: of a step.
        machine: what was measured.

    Returns:
        For each part its name, how many operations it has, FLOPs, bytes, seconds, and
        the predicted seconds; the slowest part first.

    Examples:
        >>> machine = Machine(1e9, ((1e3, 1e9),), call=0)
        >>> step = [Operation("head", "mm", 9e9, 8, 10)]
        >>> step += [Operation("head", "t", 0, 0, 1)]
        >>> step += [Operation("norms", "mul", 0, 1e9, 20)]
        >>> by_part(step, machine)
        [('norms', 1, 0, 1000000000.0, 20, 1.0), ('head', 2, 9000000000.0, 8, 11, 9.0)]
    """
    parts: dict[str, list[Operation]] = {}
    for operation in operations:
        parts.setdefault(operation.part, []).append(operation)
    rows = [
        (
            part,
            len(own),
            sum(o.flops for o in own),
            sum(o.n_bytes for o in own),
            sum(o.seconds for o in own),
            sum(predicted_seconds(o, machine) for o in own),
        )
        for part, own in parts.items()
    ]
    return sorted(rows, key=lambda row: -row[4])


def report(
    config: ModelConfig | Architecture, batch_size: int, seq_len: int, tries: int = 50
) -> dict[str, Any]:
    """Measure machine and step, and set prediction beside measurement.

    Args:
        config: the shape of the model.
        batch_size: sequences in a batch.
        seq_len: tokens in each.
        tries: how many steps are profiled.

    Returns:
        `machine`, `threads`, `peak_flops`, `bandwidth`, `call`, the list `parts` (as
        `by_part` returns it), the list `points` (name, FLOPs, bytes and seconds of each
        kind of operation that takes a thousandth of the step or more), and the seconds
        of a step: `step`, `operations` (their sum) and `predicted`.

    Examples:
        >>> found = report(ModelConfig(8, 4, 8, 1, 2), 1, 4, tries=1)
        >>> found["predicted"] > 0, len(found["parts"]) > 8
        (True, True)
    """
    quick = tries < 10
    machine = measure_machine(0 if quick else 0.1)
    operations = profile_step(config, batch_size, seq_len, tries)
    whole = step_time(config, batch_size, seq_len, 0 if quick else 5.0)
    parts = by_part(operations, machine)
    kinds: dict[tuple[str, str], list[Operation]] = {}
    for o in operations:
        kinds.setdefault((o.part, o.name), []).append(o)
    total = sum(o.seconds for o in operations)
    points = [
        [
            f"{part}: {name}",
            *(statistics.fmean(column) for column in zip(*numbers, strict=True)),
        ]
        for (part, name), own in kinds.items()
        if (numbers := [o[2:] for o in own])
        and sum(o.seconds for o in own) > total / 1000
    ]
    return {
        "machine": _machine_name(),
        "threads": torch.get_num_threads(),
        **machine._asdict(),
        "parts": parts,
        "points": points,
        "step": whole,
        "operations": total,
        "predicted": sum(row[5] for row in parts),
    }


def clock_rows(found: dict[str, Any]) -> list[list[str]]:
    """Write what was measured as the cells of a table.

    Args:
        found: what `report` returned.

    Returns:
        A row of titles, one for each part, and one for the whole.

    Examples:
        >>> part = ["head", 13, 6e8, 1e7, 0.03, 0.02]
        >>> found = {"parts": [part], "operations": 0.03, "predicted": 0.02}
        >>> for row in clock_rows(found):
        ...     print(row)
        ['part of the step', 'operations', 'FLOPs', 'time', 'in ms', 'predicted']
        ['head', '13', '100%', '100%', '30.00', '20.00']
        ['all', '13', '100%', '100%', '30.00', '20.00']
    """
    parts = found["parts"]
    flops = sum(part[2] for part in parts)
    rows = [["part of the step", "operations", "FLOPs", "time", "in ms", "predicted"]]
    totals = [sum(column) for column in list(zip(*parts, strict=True))[1:]]
    for name, count, own, _, seconds, predicted in [*parts, ["all", *totals]]:
        rows.append([
            name,
            str(count),
            f"{own / flops:.0%}",
            f"{seconds / found['operations']:.0%}",
            f"{seconds * 1e3:.2f}",
            f"{predicted * 1e3:.2f}",
        ])
    return rows


def clock_lines(found: dict[str, Any]) -> list[str]:
    """Say what was measured of the machine and of the whole step.

    Args:
        found: what `report` returned.

    Returns:
        Four lines.

    Examples:
        >>> machine = {"machine": "CPU", "threads": 1, "peak_flops": 9e10, "call": 2e-6}
        >>> step = {"step": 0.05, "operations": 0.04, "predicted": 0.03}
        >>> bandwidth = [[1e6, 4e10], [1e9, 8e9]]
        >>> for line in clock_lines(machine | step | {"bandwidth": bandwidth}):
        ...     print(line)
        CPU, threads: 1.
        Peak 90 GFLOP/s; bandwidth 40 GB/s at best, 8 GB/s for large; 2.0 µs a call.
        Predicted: 30.0 ms. The operations took 40.0 ms: the prediction is off by -25%.
        The whole step took 50.0 ms; what its operations did not take is Python.
    """
    widths = [speed for _, speed in found["bandwidth"]]
    error = found["predicted"] / found["operations"] - 1
    return [
        f"{found['machine']}, threads: {found['threads']}.",
        f"Peak {found['peak_flops'] / 1e9:.0f} GFLOP/s; bandwidth "
        f"{max(widths) / 1e9:.0f} GB/s at best, {widths[-1] / 1e9:.0f} GB/s for large; "
        f"{found['call'] * 1e6:.1f} µs a call.",
        f"Predicted: {found['predicted'] * 1e3:.1f} ms. The operations took "
        f"{found['operations'] * 1e3:.1f} ms: the prediction is off by {error:+.0%}.",
        f"The whole step took {found['step'] * 1e3:.1f} ms; what its operations did "
        "not take is Python.",
    ]


def main(folder: Path = Path("images/data")) -> None:
    """Measure the demo's step, and write what page and figure show.

    Args:
        folder: where to.
    """
    torch.set_num_threads(1)
    found = report(DEMO, DEMO_BATCH, DEMO.context_length, tries=100)
    text = json.dumps(found, indent=1) + "\n"
    (folder / "clock.json").write_text(text, encoding="utf-8")
    titles, *rows = clock_rows(found)
    lines = [titles, ["---"] * len(titles), *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    said = " ".join(clock_lines(found))
    (folder / "clock.md").write_text(f"{table}\n{said}\n", encoding="utf-8")
    print(f"{table}\n{said}")


def _machine_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return text.split("model name\t: ")[1].split("\n")[0]
    except (OSError, IndexError):  # not Linux, or another processor
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
