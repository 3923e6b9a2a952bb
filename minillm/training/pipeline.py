r"""Pipeline parallelism: some of the blocks in each rank, one rank behind the other.

**The question.** Tensor parallelism needs four all-reduces a block, and the next layer
waits for each ([`minillm.training.tensor_parallel`][]). Can a model be divided so that
its parts have less to say to each other?

Give the first half of the blocks to one rank, the second to another, and send only the
activations between them. But while one computes, the other waits. So the batch is cut
into *micro-batches* that follow each other. The program below draws the schedule: each
line is a rank, `1` is the forward pass of the first micro-batch, `aa` its backward
pass, which takes twice as long, and a dot is a rank that waits.

>>> print(drawn(schedule(stages=4, micro_batches=4)))
1234.........ddccbbaa
.1234......ddccbbaa..
..1234...ddccbbaa....
...1234ddccbbaa......

The dots are the *bubble*, $(p - 1)/(m + p - 1)$ of the time for $p$ stages and $m$
micro-batches (Huang et al. 2018, arXiv:1811.06965, section 2.3):

>>> round(bubble(schedule(4, 4)), 3), round((4 - 1) / (4 + 4 - 1), 3)
(0.429, 0.429)

More micro-batches make it smaller, but each must keep its activations until its
backward pass. Going back as soon as possible does not shrink the bubble, and keeps at
most $p$ micro-batches at a time (*1F1B*; Narayanan et al. 2021, arXiv:2104.04473,
section 2.2.1):

>>> print(drawn(schedule(4, 6, early=True)))
1234......aa5bb6cc.dd.ee.ff
.123....aa4bb5cc6dd.ee.ff..
..12..aa3bb4cc5dd6ee.ff....
...1aa2bb3cc4dd5ee6ff......

**Before this:** [`minillm.training.tensor_parallel`][].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.accounting.shapes import check_sizes
from minillm.model import TransformerLM
from minillm.training.distributed import rank, world_size
from minillm.training.loss import cross_entropy_fast

__all__ = ["Stage", "Task", "bubble", "drawn", "pipeline_step", "schedule"]


class Task(NamedTuple):
    """What a rank does at some time.

    Attributes:
        start: when, in units of a forward pass.
        micro_batch: of which micro-batch, from 0.
        back: whether it is the backward pass, which takes two units.
    """

    start: int
    micro_batch: int
    back: bool

    @property
    def end(self) -> int:
        """When it is over."""
        return self.start + 1 + self.back


def schedule(
    stages: int, micro_batches: int, *, early: bool = False
) -> list[list[Task]]:
    """Plan who computes what when in a pipeline; messages take no time.

    Args:
        stages: $p$, how many ranks stand one behind the other.
        micro_batches: $m$, the parts of the batch.
        early: whether a backward pass goes before the next forward pass (1F1B), or all
            forward passes come first (GPipe).

    Returns:
        The tasks of each rank, in order.

    Raises:
        ValueError: if a number is not positive.

    Examples:
        >>> [task.end for task in schedule(1, 2)[0]]
        [1, 2, 4, 6]
    """
    check_sizes(stages=stages, micro_batches=micro_batches)
    orders = [_order(p, stages, micro_batches, early) for p in range(stages)]
    plan: list[list[Task]] = [[] for _ in range(stages)]
    ends: dict[tuple[int, int, bool], int] = {}
    # Each turn places the next task of each rank for which everything is ready.
    while any(map(len, orders)):
        for p, order in enumerate(orders):
            while order:
                i, back = order[0]
                before = (p, i, False) if back else (p - 1, i, False)
                after = (p + 1, i, True) if back else before
                needed = [x for x in {before, after} if 0 <= x[0] < stages]
                if not all(x in ends for x in needed):
                    break
                free = plan[p][-1].end if plan[p] else 0
                task = Task(max([free, *(ends[x] for x in needed)]), i, back)
                plan[p].append(task)
                ends[p, i, back] = task.end
                order.pop(0)
    return plan


def _order(p: int, stages: int, m: int, early: bool) -> list[tuple[int, bool]]:
    """In which order stage `p` goes about its micro-batches."""
    forward = [(i, False) for i in range(m)]
    if not early:
        return [*forward, *((i, True) for i in reversed(range(m)))]
    first = min(stages - p, m)  # so many are on the way before the first comes back
    order = forward[:first]
    for i in range(m):
        order += [(i, True), *forward[first + i : first + i + 1]]
    return order


def drawn(plan: list[list[Task]]) -> str:
    """Draw a schedule: digits forward, letters backward, dots where a rank waits.

    Args:
        plan: of at most nine micro-batches.

    Returns:
        A line for each rank.

    Examples:
        >>> print(drawn(schedule(2, 2)))
        12...bbaa
        .12bbaa..
    """
    width = max(task.end for tasks in plan for task in tasks)
    lines = []
    for tasks in plan:
        line = ["."] * width
        for start, i, back in tasks:
            line[start : start + 1 + back] = "abcdefghi"[i] * 2 if back else f"{i + 1}"
        lines.append("".join(line))
    return "\n".join(lines)


def bubble(plan: list[list[Task]]) -> float:
    """Say which share of the time the ranks wait.

    Args:
        plan: a schedule.

    Returns:
        A number in [0, 1).

    Examples:
        >>> bubble(schedule(1, 3)), bubble(schedule(2, 1))
        (0.0, 0.5)
    """
    width = max(task.end for tasks in plan for task in tasks)
    busy = sum(task.end - task.start for tasks in plan for task in tasks)
    return 1 - busy / (width * len(plan))


class Stage(nn.Module):
    """The part of a model that one rank of a pipeline computes.

    Args:
        model: the same model in every rank; the stage uses its weights.

    Raises:
        ValueError: if the blocks cannot be divided evenly.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(8, 4, 8, n_layers=2, n_heads=2))
        >>> len(Stage(model).blocks)  # alone, it has both
        2
    """

    def __init__(self, model: TransformerLM) -> None:
        super().__init__()
        n, layers = world_size(), model.config.n_layers
        if layers % n:
            raise ValueError(
                f"{layers} blocks cannot be divided among {n} stages: take a multiple "
                f"of {n}, or fewer ranks"
            )
        self.first, self.last = rank() == 0, rank() == n - 1
        each = layers // n
        self.blocks = model.blocks[rank() * each : (rank() + 1) * each]
        self.embedding = model.token_embedding if self.first else None
        self.ends = (
            nn.Sequential(model.final_norm, model.lm_head) if self.last else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute what the next stage reads, or the logits."""
        x = self.embedding(x) if self.embedding is not None else x
        for block in self.blocks:
            x = block(x)
        return self.ends(x) if self.ends is not None else x


def pipeline_step(
    stage: Stage,
    inputs: Int[Tensor, "batch seq"],
    targets: Int[Tensor, "batch seq"],
    d_model: int,
    micro_batches: int,
    *,
    early: bool = True,
) -> Float[Tensor, ""]:
    """Compute the loss of a batch and the gradients of this rank's stage.

    Args:
        stage: this rank's.
        inputs: the whole batch, in every rank.
        targets: the same.
        d_model: the width of what stages send each other.
        micro_batches: into how many parts the batch is cut.
        early: the order; see [`schedule`][minillm.training.pipeline.schedule].

    Returns:
        The loss, in every rank.

    Raises:
        ValueError: if the batch cannot be divided evenly.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(8, 4, 8, n_layers=2, n_heads=2))
        >>> ids = torch.zeros(4, 4, dtype=torch.int64)
        >>> pipeline_step(Stage(model), ids, ids, 8, micro_batches=2).shape
        torch.Size([])
    """
    if len(inputs) % micro_batches:
        raise ValueError(
            f"a batch of {len(inputs)} cannot be divided into {micro_batches} "
            "micro-batches of one size"
        )
    xs, ys = inputs.chunk(micro_batches), targets.chunk(micro_batches)
    shape = *xs[0].shape, d_model
    dtype = next(stage.parameters()).dtype
    loss = torch.zeros((), dtype=dtype)
    read: dict[int, Tensor] = {}
    made: dict[int, Tensor] = {}
    # Sending must not wait for the neighbour, who may be sending, too.
    sent: list[tuple[Any, Tensor]] = []
    receive, send = _mail(shape, dtype, sent)
    for _, i, back in schedule(world_size(), micro_batches, early=early)[rank()]:
        if not back:
            read[i] = xs[i] if stage.first else receive(rank() - 1).requires_grad_()
            made[i] = stage(read[i])
            if stage.last:
                made[i] = cross_entropy_fast(made[i], ys[i]) / micro_batches
                loss += made[i].detach()
            else:
                send(made[i].detach(), rank() + 1)
        else:
            # From here on, nothing of this micro-batch is kept.
            made.pop(i).backward(None if stage.last else receive(rank() + 1))
            x = read.pop(i)
            if not stage.first and x.grad is not None:
                send(x.grad, rank() - 1)
    for work, _ in sent:
        work.wait()
    if world_size() > 1:
        dist.broadcast(loss, world_size() - 1)
    return loss


def _mail(
    shape: tuple[int, ...], dtype: torch.dtype, sent: list[tuple[Any, Tensor]]
) -> tuple[Callable[[int], Tensor], Callable[[Tensor, int], None]]:
    def receive(source: int) -> Tensor:
        x = torch.empty(shape, dtype=dtype)
        dist.recv(x, source)
        return x

    def send(x: Tensor, target: int) -> None:
        x = x.contiguous()
        sent.append((dist.isend(x, target), x))  # kept until it has arrived

    return receive, send
