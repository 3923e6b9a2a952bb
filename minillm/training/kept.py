r"""What a backward pass costs: bytes that the tape keeps, FLOPs that can replace them.

**The question.** By formula, [`minillm.flops`][] says how many bytes a step of training
must hold, and that its backward pass costs twice the forward pass. The tape has really
done the step. Does it agree?

**Before this:** [`minillm.training.by_hand`][].

# What must be held

Every function on the tape keeps the arrays in its formula. At the end of the forward
pass this is what they come to, in bytes for each token, part by part. (The weights and
the angles of rotary positions are the same for every batch, and are left out.)

>>> from minillm.config import ModelConfig
>>> from minillm.model import TransformerLM
>>> from minillm.training.layers import cross_entropy
>>> from minillm.training.by_hand import forward, on_tape
>>> config = ModelConfig(300, 32, d_model=32, n_layers=2, n_heads=4, d_ff=96)
>>> weights = on_tape(TransformerLM(config))
>>> inputs, targets = np.zeros((2, 32), np.int64), np.ones((2, 32), np.int64)
>>> marks = []
>>> loss = cross_entropy(forward(weights, config, inputs, marks), targets)
>>> parts = held([*marks, ("end", loss)], weights)
>>> {part: n / inputs.size for part, n in parts.items()}
{'embedding': 8.0, 'norms': 528.0, 'attention': 2304.0, 'ffn': 3328.0, 'end': 1468.0}

Most of it belongs to the feed-forward network, which widens every vector, and to the
$T$ probabilities of each attention head. `training_memory` predicts the same sum, to
the byte, once it is told two things. Our attention is not one fused kernel, which would
keep no probabilities at all, and compute them twice. But our norm is differentiated [as
a whole][minillm.training.layers.rms_norm], and keeps one array; PyTorch on a CPU keeps
two, 8 % more in all:

>>> from minillm.flops import training_flops, training_memory
>>> for fused_norms in (True, False):
...     predicted = training_memory(
...         config, 2, 32, fused_attention=False, fused_norms=fused_norms
...     )
...     print(round(predicted.activations / sum(parts.values()), 2))
1.0
1.08

# Memory for FLOPs

A block can keep nothing but its input, and compute the rest again when the walk comes
by: [`recompute`][minillm.training.kept.recompute] does it in ten lines (Chen et al.
2016, arXiv:1604.06174). Bytes held and FLOPs computed, without it and with it:

>>> for again in (False, True):
...     marks, before = [], Work.flops
...     logits = forward(weights, config, inputs, marks, again=again)
...     loss = cross_entropy(logits, targets)
...     total = sum(held([*marks, ("end", loss)], weights).values())
...     loss.backward()
...     counted = Work.flops - before
...     print(total, counted, counted == training_flops(config, 2, 32, again))
488704 15482880 True
110848 19415040 True

A quarter of the memory, for a quarter more FLOPs. The last column says that the tape
has done what the formula counts: three forward passes' worth, and a fourth of the
blocks where they are computed again.

Generating text has no backward pass. Then the weights are plain arrays, nothing is
recorded, and each array is freed as soon as the next one is made from it:

>>> plain = {name: w.value for name, w in weights.items()}
>>> forward(plain, config, inputs).constant
True

**Next:** [`minillm.training.depth`][], what becomes of a gradient in a deep model.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from minillm.training.tape import Array, Node, Operand, Work, in_order, record

__all__ = ["Work", "held", "recompute"]


def recompute(block: Callable[[Node], Node], x: Node) -> Node:
    """Run a block so that the tape keeps nothing of it but its input.

    Args:
        block: makes a node out of a node. Other leaves that it uses, its weights, get
            their gradients as usual.
        x: the input.

    Returns:
        The same result. In the backward pass the block runs a second time.

    Examples:
        >>> from minillm.training.layers import silu
        >>> gradients = []
        >>> for run in (lambda x: silu(silu(x)), lambda x: recompute(silu, silu(x))):
        ...     x = Node([1.0, 2.0])
        ...     run(x).backward(np.ones(2))
        ...     gradients.append(x.grad)
        >>> np.array_equal(*gradients)
        True
    """

    def pull(g: Array) -> Array:
        again = Node(x_value)
        block(again).backward(g)
        assert again.grad is not None
        return again.grad

    x_value = x.value
    # The tape of this first run is dropped at once, and only the result remains.
    return record(block(Node(x_value)).value, (x, pull))


def held(marks: Iterable[tuple[str, Node]], w: Mapping[str, Operand]) -> dict[str, int]:
    """Count the bytes that the tape holds, by the part of the model.

    Args:
        marks: the results of the parts in order, each with the name of its part.
        w: the weights, which are not counted.

    Returns:
        Bytes by part; an array that two parts keep is counted in the first. What the
        helper of a function keeps, such as the angles of `rope`, is left out.
    """
    seen = {
        id(_owner(x.value if isinstance(x, Node) else np.asarray(x)))
        for x in w.values()
    }
    parts: dict[str, int] = {}
    for part, node in marks:
        parts.setdefault(part, 0)
        for entry in in_order(node.entry):
            for _, pull in entry.parents or ():
                # What a function keeps are the variables that it closes over.
                for x in inspect.getclosurevars(
                    inspect.unwrap(pull)
                ).nonlocals.values():
                    if not isinstance(x, np.ndarray) or not x.ndim:
                        continue  # a shape, or a single number
                    if id(_owner(x)) not in seen:
                        seen.add(id(_owner(x)))
                        parts[part] += _owner(x).nbytes
    return parts


def _owner(x: Array) -> Array:
    """The array whose memory a view looks at."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x
