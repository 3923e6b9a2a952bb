r"""A machine in three numbers, which predict how long an operation takes.

**The question.** [`minillm.training.clock`][] says how long each operation of a step
took. Could you have known before?

Three measurements of the machine say it:

- the *peak*: how many FLOPs a large matrix product reaches in a second;
- the *bandwidth*: how many bytes a second it reads and writes, which depends on whether
  they fit into a cache, so it is measured for arrays of many sizes;
- the *cost of a call*: how long the smallest operation takes.

An operation waits for its arithmetic or for its bytes, whichever takes longer, and for
the call ([`roofline`][minillm.accounting.roofline.roofline] has the first two):

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

**Before this:** [`minillm.training.clock`][].
**Next:** [`minillm.training.distributed`][].
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from minillm.training.clock import Operation, least_seconds

__all__ = ["Machine", "measure_machine", "predicted_seconds"]


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
    peak = 2 * size**3 / least_seconds(lambda: x @ x, 10 * at_least)
    bandwidth = []
    for power in range(16, 27, 2):  # 64 kB to 67 MB
        numbers = 2**power // 12
        a, b, c = torch.ones(3, numbers)  # two arrays are read, one is written
        calls = max(1, 2**20 // numbers) if at_least else 1
        seconds = least_seconds(partial(torch.add, a, b, out=c), at_least, calls)
        bandwidth.append((float(12 * numbers), seconds))
    one = torch.ones(1)
    call = least_seconds(lambda: torch.add(one, one, out=one), at_least, 1000)
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
