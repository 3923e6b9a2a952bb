r"""Lab 2: a skill made of many steps, and the ruler it is measured with.

**The question.** Arithmetic is the textbook example of an ability that "emerges": small
models score nothing, large ones score high, with little between (Wei et al. 2022,
arXiv:2206.07682, figure 2A). Did something new arise in the model, or in the score?

# Two tasks

*Sums.* Add two numbers of four digits. The digits of both go in, the units first, and
the five digits of the sum come out, the units first again, since there carrying starts:

>>> random = torch.Generator().manual_seed(0)
>>> inputs, targets = sums(1, 4, random)
>>> spell(inputs[0, :10]), spell(targets[0, -5:])  # 394 + 3793 = 4187
('4930+3973=', '78140')

*Code.* A code book with a symbol for each pair of symbols, at random, $32 \times 32$
entries. Eight pairs are to be looked up, one after the other. There is nothing to
understand in it; it has to be learned by heart:

>>> inputs, targets = codes(1, 8, random)
>>> [int(BOOK[a, b]) for a, b in inputs[0].reshape(-1, 2)] == targets[0, 1::2].tolist()
True

# Two rulers for one model

*Exact match* counts an answer as right if all of its symbols are. *Symbol accuracy* is
the share of symbols that are right. A model that has each of $k$ symbols with
probability $p$, and whose mistakes have nothing to do with each other, has all of them
with $p^k$:

>>> for p in (0.2, 0.4, 0.6, 0.8, 0.95):
...     print(f"{p:.2f} of the symbols, {p**8:.4f} of the answers")
0.20 of the symbols, 0.0000 of the answers
0.40 of the symbols, 0.0007 of the answers
0.60 of the symbols, 0.0168 of the answers
0.80 of the symbols, 0.1678 of the answers
0.95 of the symbols, 0.6634 of the answers

The left column climbs evenly. The right one says nothing, nothing, next to nothing, and
then a lot: a jump that the model did not make (Schaeffer et al. 2023, arXiv:2304.15004,
section 2). Which kind of jump these models make is measured on the same answers of the
same models, with both rulers and a third, the likelihood of the right symbols.

**Told in** [`minillm.emergence`][], on the bench of [`minillm.labs.bench`][].
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from minillm.config import ModelConfig
from minillm.flops import aligned, training_flops
from minillm.labs.bench import Config, Lab, Point, by_config, learn, plan
from minillm.model import TransformerLM

__all__ = ["BOOK", "LAB", "codes", "spell", "sums"]

PLUS, EQUALS = 10, 11

BOOK = torch.randint(32, (32, 32), generator=torch.Generator().manual_seed(7))
"""The code book: row and column are the pair, the entry is its symbol."""


def sums(
    n: int, digits: int, random: torch.Generator
) -> tuple[Int[Tensor, "n seq"], Int[Tensor, "n seq"]]:
    r"""Draw additions.

    Args:
        n: how many.
        digits: how many digits each of the two numbers has, leading zeros included.
            The sum has one more.
        random: where the chance comes from.

    Returns:
        What a model reads, and what it should say next: -1 where that is not asked.
    """
    a, b = torch.randint(10, (2, n, digits), generator=random)
    total, carry = [], torch.zeros(n, dtype=torch.long)
    for i in range(digits):
        place = a[:, i] + b[:, i] + carry
        total.append(place % 10)
        carry = place // 10
    answer = torch.stack([*total, carry], dim=1)
    sign = torch.ones(n, 1, dtype=torch.long)
    text = torch.cat([a, PLUS * sign, b, EQUALS * sign, answer], dim=1)
    inputs, targets = text[:, :-1], text[:, 1:].clone()
    targets[:, : -(digits + 1)] = -1
    return inputs, targets


def codes(
    n: int, pairs: int, random: torch.Generator
) -> tuple[Int[Tensor, "n seq"], Int[Tensor, "n seq"]]:
    r"""Draw pairs of symbols, to be looked up in the code book.

    Args:
        n: how many sequences.
        pairs: how many pairs in each.
        random: where the chance comes from.

    Returns:
        What a model reads, and what it should say: after the second symbol of each pair
        the entry of the book, and -1 where nothing is asked.
    """
    inputs = torch.randint(len(BOOK), (n, 2 * pairs), generator=random)
    targets = torch.full_like(inputs, -1)
    targets[:, 1::2] = BOOK[inputs[:, ::2], inputs[:, 1::2]]
    return inputs, targets


def spell(ids: Int[Tensor, "seq"]) -> str:
    """Write the ids of a sum as text.

    Args:
        ids: digits and signs.

    Returns:
        One character for each.
    """
    return "".join("0123456789+="[i] for i in ids.tolist())


class Task(NamedTuple):
    """What there is to do.

    Attributes:
        make: draws examples of a size.
        size: the size.
        vocab_size: how many symbols there are.
        answer: how many of them make an answer.
        layers: how many layers it takes.
    """

    make: Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]
    size: int
    vocab_size: int
    answer: int
    layers: int


TASKS = {"sums": Task(sums, 4, 12, 5, 2), "code": Task(codes, 8, 32, 8, 1)}


def _draw(task: str, n: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    return TASKS[task].make(n, TASKS[task].size, random)


@cache
def _examination(task: str) -> tuple[Tensor, Tensor]:
    # The same new ones for every model. Of $10^8$ sums, training sees at most 51,200.
    return _draw(task, 1000, torch.Generator().manual_seed(2**31))


def _shape(config: Config) -> ModelConfig:
    task, width = TASKS[config["task"]], config["width"]
    length = _examination(config["task"])[0].shape[1]
    heads = max(1, width // 16)
    return ModelConfig(task.vocab_size, length, width, task.layers, heads)


def _flops(config: Config) -> int:
    shape = _shape(config)
    step = training_flops(shape, config["batch"], shape.context_length)
    return step * config["steps"]


def _run(config: Config, seed: int) -> dict[str, Any]:
    task = config["task"]
    torch.manual_seed(seed)
    model = TransformerLM(_shape(config))
    inputs, targets = _examination(task)
    asked = targets[0] >= 0
    targets = targets[:, asked]
    curve: list[list[float]] = []

    @torch.no_grad()
    def look(step: int) -> None:
        # Where all earlier symbols were right, a model that writes by itself reads the
        # same as here. So it writes the whole answer right exactly if all are right.
        log_p = model(inputs)[:, asked].log_softmax(-1)
        right = log_p.argmax(-1) == targets
        likelihood = log_p.gather(-1, targets.unsqueeze(-1)).mean().item()
        exact, symbols = right.all(1).double().mean(), right.double().mean()
        curve.append([
            step,
            *(round(x, 4) for x in (exact.item(), symbols.item(), likelihood)),
        ])

    def draw(random: torch.Generator) -> tuple[Tensor, Tensor]:
        return _draw(task, config["batch"], random)

    learn(model, draw, config, seed, look)
    return {"curve": curve}


def _points(quick: bool) -> list[Point]:
    # Compute grows by width and by steps, as it did for the models in the papers.
    sizes = [(16, 200), (16, 400), (32, 400), (32, 800)]
    if not quick:
        sizes += [(8, 200), (16, 800), (64, 800)]
    configs = [
        {"task": task, "width": width, "steps": steps, "batch": 64, "lr": 3e-3}
        for width, steps in sorted(sizes)
        for task in ("code", "sums")
    ]
    return plan(configs, seeds=2 if quick else 5)


def _report(results: list[dict[str, Any]]) -> str:
    rows = [["task", "width", "steps", "FLOPs", "seeds"]]
    rows[0] += ["exact", "symbols", "p^k", "ln likelihood"]
    for config, same in by_config(results):
        exact, symbols, likelihood = (
            sum(r["curve"][-1][i] for r in same) / len(same) for i in (1, 2, 3)
        )
        k = TASKS[config["task"]].answer
        power = sum(r["curve"][-1][2] ** k for r in same) / len(same)
        rows.append([
            *(str(config[key]) for key in ("task", "width", "steps")),
            f"{same[0]['flops']:.1e}",
            str(len(same)),
            *(f"{x:.3f}" for x in (exact, symbols, power, likelihood)),
        ])
    return aligned(rows)


LAB = Lab("digits", 1, _points, _run, _flops, _report)
