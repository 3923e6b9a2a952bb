r"""Muon: the right step for a matrix.

**The question.** To AdamW a matrix of 16,384 weights is 16,384 numbers that happen to
lie next to each other. To the model it is one map, from vectors to vectors. Which step
is the right one for a map?

**Before this:** [`minillm.training.descent`][] and [`minillm.training.optimizer`][].

# A step of Adam has few directions

Any matrix is $U S V^\top$, its *singular value decomposition*: it takes the part of its
input along each column of $V$ (they are perpendicular and of length 1), multiplies it
by a *singular value*, a number $\sigma_i \ge 0$ of the diagonal $S$, and puts it out
along a column of $U$. So the singular values of a *step*, of what an optimizer adds to
a matrix, say how far each direction of the map is moved.

Train a small model on the bytes of a tale, and take the last of forty steps of AdamW.
In how many of 64 directions of a matrix lie nine tenths of the step's squared length?

>>> import numpy as np
>>> from minillm.config import ModelConfig
>>> from minillm.data import andersen
>>> from minillm.model import TransformerLM
>>> from minillm.training.loop import Trainer
>>> from minillm.training.settings import TrainConfig
>>> def directions(step):
...     share = torch.linalg.svdvals(step).square().cumsum(0)
...     return int((share < 0.9 * share[-1]).sum()) + 1
>>> text = np.frombuffer(andersen()[0].encode(), np.uint8).astype(int)
>>> _ = torch.manual_seed(0)
>>> model = TransformerLM(ModelConfig(256, 32, 64, n_layers=1, n_heads=2)).double()
>>> trainer = Trainer(model, text, TrainConfig(steps=60, batch_size=8))
>>> matrices, others = split_weights(model)
>>> for _ in range(40):
...     before = [w.detach().clone() for w in matrices]
...     _ = trainer.step()
>>> [directions(w - b) for w, b in zip(matrices, before, strict=True)]
[10, 9, 8, 7, 6, 5, 6]
>>> directions(torch.randn(64, 64, generator=torch.manual_seed(0)))  # random numbers
33

Adam gives every *weight* a step of about the same size, yet nearly all of the step goes
into a few *directions*: those in which the gradient is large. The others hardly move,
even if their gradients point the same way all the time.

# The steepest step within a norm

How far may a step go? By the loss's slope at one point we only know what happens
nearby, so the step $D$ must be small, and every rule says in its own way what "small"
means. Among all steps of size at most 1, take the one along which the loss falls
fastest. With the gradient $G$ and $\langle G, D\rangle = \sum_{ij} G_{ij} D_{ij}$, the
slope along $D$, that is:

| size of a step | steepest step | its rule |
| --- | --- | --- |
| length of all weights as one vector | $G / \lVert G \rVert$ | gradient descent |
| largest change of one weight | $\operatorname{sign} G$ | Adam, but for its means |
| largest singular value, the *spectral norm* | $U V^\top$ | Muon |

(Bernstein & Newhouse 2024, arXiv:2409.20325. We leave out minus signs.) The third size
is made for maps: a step of spectral norm $s$ changes no output by more than $s$ times
the length of its input. And why is its steepest step $U V^\top$? With $G = U S V^\top$,

$$\langle G, D\rangle = \sum_i \sigma_i\, u_i^\top D\, v_i \le \sum_i \sigma_i,$$

since $u_i^\top D\, v_i$ is at most the spectral norm of $D$, which is 1. $D = UV^\top$
makes each of them 1. It is the gradient with all its singular values set to 1, the
*orthogonalized* gradient. Against the other two, at the same spectral norm:

>>> G = torch.randn(6, 4, dtype=torch.float64, generator=torch.manual_seed(0))
>>> U, S, Vt = torch.linalg.svd(G, full_matrices=False)
>>> for D in (G, G.sign(), U @ Vt):
...     D = D / torch.linalg.matrix_norm(D, 2)
...     print(f"{(G * D).sum() / S.sum():.2f}")
0.77
0.75
1.00

# Singular values without a decomposition

A singular value decomposition at each step would be slow, and slower on a GPU. But some
matrix products act on singular values alone. Since $U^\top U$ and $V^\top V$ are the
identity,

$$X X^\top X = U S V^\top\, V S U^\top\, U S V^\top = U S^3 V^\top,$$

and so any *odd* polynomial can be applied to all singular values by products:

$$a X + b\,(XX^\top) X + c\,(XX^\top)^2 X = U\,(a S + b S^3 + c S^5)\,V^\top.$$

Wanted is a polynomial $p$ that, applied again and again, takes every number in $(0, 1]$
close to 1. Dividing $G$ by its length (at least its largest singular value) brings all
into that interval first. Newton and Schulz have $p(x) = \frac32 x - \frac12 x^3$, with
$p(1) = 1$ and $p'(1) = 0$, so that an error near 1 is squared at each step. Far from 1
it is slow. A small number grows by the slope at zero, 3/2:

>>> def repeat(a, b, c, x, steps):
...     for _ in range(steps):
...         x = a * x + b * x**3 + c * x**5
...     return x
>>> [round(repeat(1.5, -0.5, 0, 0.01, steps), 2) for steps in (5, 10, 15)]
[0.08, 0.53, 1.0]

Keller Jordan gave up the exact 1 and looked for the steepest slope at zero that still
keeps the numbers near 1 where they arrive. His are
[`COEFFICIENTS`][minillm.training.muon.COEFFICIENTS], with a slope of 3.4. Five steps
take what was 0.003 or more to somewhere around 1, and there it stays:

>>> x = torch.logspace(-2.5, 0, 10_000, dtype=torch.float64)
>>> for steps in (3, 5, 7):
...     y = repeat(*COEFFICIENTS, x, steps)
...     print(f"{y.min():.2f} {y.max():.2f}")
0.13 1.20
0.68 1.20
0.68 1.13

That is inexact, and exact enough: that all directions move alike matters, and not by
how much. [`newton_schulz`][minillm.training.muon.newton_schulz] does it to a matrix,
with $UV^\top$ beside it:

>>> X = newton_schulz(G)
>>> for matrix in (G / G.norm(), X):
...     print(*(round(s, 2) for s in torch.linalg.svdvals(matrix).tolist()))
0.73 0.61 0.24 0.2
1.07 0.77 0.75 0.75
>>> round(((X * (U @ Vt)).sum() / (X.norm() * (U @ Vt).norm())).item(), 2)  # cosine
0.99

# What it costs

A matrix of $m \times n$, $n \le m$, needs three products in each of the five steps:
$XX^\top$ on the short side, its square, and the last one, together $4n^2m + 2n^3$
FLOPs. It does not depend on the batch. Training one square matrix on a batch of $B$
tokens costs $6d^2B$ ([`minillm.flops`][]), so Muon adds $30d^3 / 6d^2B = 5d / B$. With
a width of 768 and half a million tokens in a batch, that is below one percent. The demo
has 128 and 512 tokens, and a square matrix of it costs more to orthogonalize than to
learn from the batch:

>>> from minillm.flops import training_flops
>>> from minillm.runs.demo import SHAPE
>>> 5 * 768 / 500_000, 5 * 128 / 512
(0.00768, 1.25)
>>> shapes = [tuple(w.shape) for w in split_weights(TransformerLM(SHAPE))[0]]
>>> added = sum(newton_schulz_flops(*shape) for shape in shapes)
>>> step = training_flops(SHAPE, 4, SHAPE.context_length)
>>> print(f"{added / step:.0%} of a step")
60% of a step

# Is it worth it?

For the demo's model, hardly. The runs of this table ([`minillm.labs.optimizers`][])
each got a share of the demo's FLOPs, those of the orthogonalization included. *A* has
the demo's settings. In *B* the learning rate is twice as large, and falls along a
straight line; the embedding has ten times that rate, and initial entries ten times as
large. In *C* the embedding is also the head, with twice the rate and initial entries
five times as large. Bits per byte of the held-out tales are the mean and the range over
seeds. Seconds are processor time in the training loop, on one thread of a machine that
had other work to do: compare them only within one share of the FLOPs, and ignore
differences below a tenth.

--8<-- "images/data/optimizers.md"

*Step for step* Muon is better: after as many steps as B, each of its seeds is ahead of
each seed of AdamW, by a hundredth of a bit, for 1.6 times the FLOPs and 1.4 times the
seconds. *FLOP for FLOP*, in a short run, it falls far behind, since it makes 352 steps
where AdamW makes 562: it is 0.07 bits worse. Half its learning rate makes up 0.01 of
them, three steps of Newton and Schulz 0.03, and a batch of 8, with half the relative
cost and fewer steps, none.
Where a batch has a thousand times as many tokens, the better step is nearly free; and
over *all* of the demo's FLOPs, where AdamW has steps enough, 1,732 steps of Muon are
worth 4,500 of AdamW, and take a fifth less time. One seed of each cannot tell the
losses apart, and it may be the larger batch that saves the time.

What made the short runs better is something else: what B changes, above all in the
embedding, whose rate and initial entries are both larger. In most steps most rows of
the embedding have no gradient, as their tokens are not in the batch, and with one rate
for all weights they learn too slowly. But what a short run shows need not last. After
an eighth of the FLOPs, B is 0.21 bits ahead of A. At the end the demo has 1.66, the
embedding of B makes that 1.65, and everything together 1.64. By then C has read the
text five times, and its loss is 3.47 nats there and 3.89 on held-out tales: the demo is
limited by its text, not by its optimizer. A weight decay of 1.0 narrows that gap, and
makes both losses worse.

**What this does not show.** The rates of B were found with one seed, among three
settings, in runs with a quarter of the FLOPs. Rows with one seed show a tendency, no
more.

**Next:** [`minillm.training.batches`][].
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minillm.training.optimizer import loss_of

__all__ = [
    "COEFFICIENTS",
    "Muon",
    "newton_schulz",
    "newton_schulz_flops",
    "split_weights",
]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""$a$, $b$ and $c$ of Keller Jordan (2024, *Muon*, kellerjordan.github.io)."""


def newton_schulz(G: Float[Tensor, "m n"], steps: int = 5) -> Float[Tensor, "m n"]:
    r"""Bring all singular values of a matrix near 1, and leave its directions.

    Args:
        G: the matrix.
        steps: how often the polynomial is applied.

    Returns:
        About $U V^\top$ for $G = U S V^\top$; zero for zero.

    Examples:
        A diagonal matrix has its singular values on the diagonal:

        >>> G = torch.diag(torch.tensor([5.0, 1.0, 0.1]))
        >>> [round(x, 1) for x in newton_schulz(G).diagonal().tolist()]
        [0.7, 0.8, 0.7]
    """
    if G.shape[0] > G.shape[1]:  # X X^T is cheaper on the short side
        return newton_schulz(G.mT, steps).mT
    a, b, c = COEFFICIENTS
    # The length is at least the largest singular value, and much cheaper.
    X = G / G.norm().clamp(min=1e-7)
    for _ in range(steps):
        A = X @ X.mT
        # $aX + (bA + cA^2)X$, each sum within the product that it follows.
        X = torch.addmm(X, torch.addmm(A, A, A, beta=b, alpha=c), X, beta=a)
    return X


def newton_schulz_flops(m: int, n: int, steps: int = 5) -> int:
    """Count the FLOPs of [`newton_schulz`][minillm.training.muon.newton_schulz].

    Args:
        m: the rows of the matrix.
        n: its columns.
        steps: how often the polynomial is applied.

    Returns:
        Those of its products.

    Examples:
        PyTorch counts the same, whichever side is longer:

        >>> from torch.utils.flop_counter import FlopCounterMode
        >>> with FlopCounterMode(display=False) as counter:
        ...     _ = newton_schulz(torch.ones(3, 2)), newton_schulz(torch.ones(2, 3))
        >>> counter.get_total_flops() == 2 * newton_schulz_flops(3, 2)
        True
    """
    n, m = sorted((m, n))
    return steps * (4 * n * n * m + 2 * n**3)


def split_weights(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    r"""Say which weights Muon moves: the matrices of the blocks.

    The embedding and the head stay with AdamW. Neither maps vectors to vectors as the
    blocks do: an embedding is looked up row by row, so each row is a step of its own,
    and a head ends in logits. The gains of the norms are vectors.

    Args:
        model: the model.

    Returns:
        The matrices of its blocks, and all other weights.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> from minillm.model import TransformerLM
        >>> model = TransformerLM(ModelConfig(100, 16, 32, n_layers=2, n_heads=4))
        >>> [len(weights) for weights in split_weights(model)]
        [14, 7]
    """
    weights = list(model.named_parameters())
    matrices = [w for name, w in weights if "blocks." in name and w.ndim == 2]
    chosen = {id(w) for w in matrices}
    return matrices, [w for _, w in weights if id(w) not in chosen]


class Muon(torch.optim.Optimizer):
    r"""Momentum, orthogonalized.

    $$M \leftarrow \mu M + (1 - \mu)\, G \qquad
    W \leftarrow (1 - \eta\lambda)\, W -
    \eta\, s \operatorname{NS}\bigl(\mu M + (1 - \mu)\, G\bigr)$$

    The mean $M$ stands where AdamW has its first moment. There is no second one: all
    singular values become the same anyhow. What is orthogonalized lies a part of the
    way from $M$ to today's gradient (*Nesterov momentum*).

    The factor $s$ makes one learning rate serve all shapes. Jordan takes
    $\sqrt{\max(1, \text{rows} / \text{columns})}$. The other one,
    $0.2 \sqrt{\max(\text{rows}, \text{columns})}$, makes the root mean square of the
    step's entries about 0.2. The authors found 0.2 to 0.4 in steps of AdamW, so its
    learning rate serves here, too (Liu et al. 2025, arXiv:2502.16982, section 2.2).

    Args:
        params: matrices, or groups of them with settings of their own.
        lr: $\eta$, the learning rate.
        momentum: $\mu$, how much of the old mean is kept.
        weight_decay: $\lambda$, decoupled as in AdamW.
        steps: of Newton and Schulz.
        like_adamw: whether $s$ is the second of the two.

    Raises:
        ValueError: if a weight is not a matrix.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> from minillm.model import TransformerLM
        >>> from minillm.training.optimizer import AdamW
        >>> model = TransformerLM(ModelConfig(100, 16, 32, n_layers=2, n_heads=4))
        >>> matrices, others = split_weights(model)
        >>> optimizers = [Muon(matrices, lr=0.02), AdamW(others, lr=1e-3)]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        steps: int = 5,
        like_adamw: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "steps": steps,
            "like_adamw": like_adamw,
        }
        super().__init__(params, defaults)
        for w in (w for group in self.param_groups for w in group["params"]):
            if w.ndim != 2:
                raise ValueError(
                    f"Muon moves matrices; got a weight of shape {tuple(w.shape)}: "
                    "give it to AdamW"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every matrix that has a gradient.

        Args:
            closure: computes the loss anew, for optimizers that ask for it more than
                once; called once here.

        Returns:
            What the closure returned, if there is one.
        """
        loss = loss_of(closure)
        for group in self.param_groups:
            lr, mu = group["lr"], group["momentum"]
            for w in (w for w in group["params"] if w.grad is not None):
                if "momentum_buffer" not in self.state[w]:
                    self.state[w]["momentum_buffer"] = torch.zeros_like(w)
                # $M \leftarrow \mu M + (1 - \mu)\,G$
                mean = self.state[w]["momentum_buffer"].lerp_(w.grad, 1 - mu)
                direction = newton_schulz(w.grad.lerp(mean, mu), group["steps"])
                w.mul_(1 - lr * group["weight_decay"])
                w.add_(direction, alpha=-lr * _scale(w, group["like_adamw"]))
        return loss


def _scale(w: Tensor, like_adamw: bool) -> float:
    rows, columns = w.shape
    if like_adamw:
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))
