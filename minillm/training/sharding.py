r"""Sharding: no rank keeps what another one has.

**The question.** With data parallelism, every rank holds all weights, all gradients and
both moments of AdamW. If the model does not fit into the memory of one machine, a
hundred such machines do not help. What could a rank do without?

Count the bytes for each parameter, in float32: 4 for the weight, 4 for the gradient, 8
for the two moments. The moments are half of it, and each is used for one weight only.
So let each rank update one $n$-th of the weights, and keep only their moments:

1. *reduce-scatter*: each rank gets the sum of the gradients of its own part;
2. it takes AdamW's step with that part;
3. *all-gather*: each rank gets the new weights of the others.

This is the first stage of *ZeRO* (Rajbhandari et al. 2019, arXiv:1910.02054, section
5.1). AdamW is elementwise, so sharing the step out changes nothing: if the gradients
are summed in the same order (with two ranks there is only one order), the weights are
the same to the last bit. The second stage drops the gradients of the others as soon as
they are summed up, the third also their weights, and fetches these again, layer by
layer, in both passes.

>>> [zero_bytes(1, world=4, stage=stage) for stage in (0, 1, 2, 3)]
[16.0, 10.0, 7.0, 4.0]

PyTorch's `fully_shard` is the third stage. The tests hold it, `zero1_step` and a plain
step side by side, on two processes.

What must be done *over all weights* needs a message more: the gradient norm, for
clipping, is the root of the sum of all squares, and each rank knows only those of its
own part.

**Before this:** [`minillm.training.distributed`][], [`minillm.training.messages`][].
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from minillm.accounting.shapes import check_sizes
from minillm.training.distributed import rank, world_size
from minillm.training.optimizer import AdamW
from minillm.training.ranks import check_same_shapes

__all__ = ["own_pieces", "pieces", "state_bytes", "zero1_step", "zero_bytes"]


def zero_bytes(n_params: float, world: int, stage: int) -> float:
    r"""Count the bytes that a rank keeps between steps, in float32 with AdamW.

    Args:
        n_params: $N$, the parameters of the model.
        world: $n$, how many ranks.
        stage: what is shared out: 0 nothing, 1 the moments, 2 also the gradients, 3
            also the weights.

    Returns:
        Bytes, without activations.

    Raises:
        ValueError: if `world` is not positive, or there is no such stage.

    Examples:
        >>> zero_bytes(100, world=2, stage=1)  # 4 + 4 + 8 / 2 each
        1200.0
    """
    check_sizes(world=world)
    if stage not in range(4):
        raise ValueError(f"ZeRO has the stages 0 to 3; got {stage}")
    weights, gradients, moments = 4.0, 4.0, 8.0
    shares = [1 if stage < first else world for first in (3, 2, 1)]
    return n_params * (
        weights / shares[0] + gradients / shares[1] + moments / shares[2]
    )


def pieces(sizes: Sequence[int], rank: int, world: int) -> list[tuple[int, int, int]]:
    r"""Say which numbers of which weights belong to a rank.

    All weights are thought of as one sequence of $N$ numbers. Each rank has
    $\lceil N / n \rceil$ in a row, the last ones what is left. The border may lie in
    the middle of a weight.

    Args:
        sizes: how many numbers each weight has.
        rank: whose part it is.
        world: $n$, how many ranks.

    Returns:
        For each weight that has numbers in the part: its index, and the first and the
        end of these numbers.

    Examples:
        >>> pieces([4, 3], rank=0, world=2), pieces([4, 3], rank=1, world=2)
        ([(0, 0, 4)], [(1, 0, 3)])
        >>> pieces([4, 4], rank=1, world=3)
        [(0, 3, 4), (1, 0, 2)]
    """
    each = -(-sum(sizes) // world)
    begin, end = each * rank, each * (rank + 1)
    found, at = [], 0
    for i, size in enumerate(sizes):
        first, last = max(begin - at, 0), min(end - at, size)
        if first < last:
            found.append((i, first, last))
        at += size
    return found


def own_pieces(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Cut out of a model's weights what this rank moves, grouped for an optimizer.

    Args:
        model: its weights are contiguous, and the same in every rank.
        weight_decay: of the matrices; vectors do not decay.

    Returns:
        Two groups, as [`decay_matrices`][minillm.training.optimizer.decay_matrices]
        makes them. Each piece is a view: if it moves, the weight of the model moves.

    Raises:
        ValueError: if another rank has a model of another shape.

    Examples:
        >>> model = nn.Linear(2, 3)
        >>> [[len(p) for p in group["params"]] for group in own_pieces(model, 0.1)]
        [[6], [3]]
    """
    weights = list(model.parameters())
    check_same_shapes(weights)
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for i, first, last in _matrices_first(weights, rank()):
        piece = nn.Parameter(weights[i].detach().view(-1)[first:last])
        groups[weights[i].ndim < 2].append(piece)
    decays = weight_decay, 0.0
    return [
        {"params": group, "weight_decay": decay}
        for group, decay in zip(groups, decays, strict=True)
    ]


def _matrices_first(
    weights: Sequence[Tensor], owner: int
) -> list[tuple[int, int, int]]:
    """The pieces of a rank in the order of the optimizer's groups."""
    found = pieces([w.numel() for w in weights], owner, world_size())
    return sorted(found, key=lambda piece: weights[piece[0]].ndim < 2)


def zero1_step(model: nn.Module, optimizer: AdamW) -> None:
    """Average the gradients and move all weights, each rank its own part of them.

    Args:
        model: its weights have gradients, each rank those of its share of the batch.
        optimizer: has the groups of
            [`own_pieces`][minillm.training.sharding.own_pieces].

    Examples:
        Alone, a rank owns everything, and the step is AdamW's:

        >>> from minillm.training.optimizer import decay_matrices
        >>> one, other = nn.Linear(2, 3), nn.Linear(2, 3)
        >>> _ = other.load_state_dict(one.state_dict())
        >>> sharded = AdamW(own_pieces(one, 0.01))
        >>> for model in (one, other):
        ...     model(torch.ones(2)).sum().backward()
        >>> zero1_step(one, sharded)
        >>> AdamW(decay_matrices(other, 0.01)).step()
        >>> torch.equal(one.weight, other.weight)
        True
    """
    weights, n = list(model.parameters()), world_size()
    grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    own = [piece for group in optimizer.param_groups for piece in group["params"]]
    # First the reduce-scatter, in the plainest way: a part is summed up at its owner.
    for owner in range(n):
        part = _flat(grads, _matrices_first(weights, owner))
        if n > 1:
            dist.reduce(part, owner)
        if owner == rank():
            shares = (part / n).split([len(piece) for piece in own])
            for piece, share in zip(own, shares, strict=True):
                piece.grad = share
    # Then the owner moves its part.
    optimizer.step()
    # Last the all-gather, as a broadcast by each owner.
    for owner in range(n) if n > 1 else ():
        theirs = _matrices_first(weights, owner)
        part = _flat([w.detach() for w in weights], theirs)
        dist.broadcast(part, owner)
        new = part.split([last - first for _, first, last in theirs])
        for (i, first, last), numbers in zip(theirs, new, strict=True):
            weights[i].detach().view(-1)[first:last] = numbers


def _flat(arrays: Sequence[Tensor], parts: Sequence[tuple[int, int, int]]) -> Tensor:
    chosen = [arrays[i].reshape(-1)[a:b] for i, a, b in parts]
    return torch.cat(chosen) if chosen else arrays[0].new_zeros(0)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Count the bytes of the moments that an optimizer keeps.

    Args:
        optimizer: after its first step.

    Returns:
        Bytes.

    Examples:
        >>> model = nn.Linear(2, 3)
        >>> model(torch.ones(2)).sum().backward()
        >>> optimizer = AdamW(model.parameters())
        >>> optimizer.step()
        >>> state_bytes(optimizer)  # nine parameters, two numbers each
        72
    """
    return sum(
        x.numel() * x.element_size()
        for state in optimizer.state.values()
        for x in state.values()
        if isinstance(x, Tensor) and x.ndim
    )
