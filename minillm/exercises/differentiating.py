r"""Exercises to [`minillm.gradients`][]."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from minillm import gradients
from minillm.exercises.exercise import Draw, Exercise, Mistake, tensors
from minillm.training.tape import Array, Entry

__all__ = ["EXERCISES"]

sizes = st.integers(1, 3)


def arrays(*shape: int | SearchStrategy[int], **options: Any) -> SearchStrategy[Array]:
    """Make arrays of float64."""
    made = tensors(*shape, dtype=torch.float64, **options)
    return made.map(lambda tensor: tensor.numpy())


# By trying. The inputs name their function, so that a report can be read.

FUNCTIONS: dict[str, Callable[[Array], float]] = {
    "sum of squares": lambda x: float((x * x).sum()),
    "sum of cubes": lambda x: float((x * x * x).sum()),
    "product": lambda x: float(x.prod()),
}


def _call_numerical(
    function: Callable[..., Any], f: str, x: Array, eps: float
) -> tuple[Any, Array]:
    """Pass the function itself, and look at what is left in `x`."""
    return function(FUNCTIONS[f], x, eps), x


def _numerical(f: Callable[[Array], float], x: Array, eps: float) -> Array:
    slopes, moved = np.zeros(x.shape), x.copy()
    for at in np.ndindex(x.shape):
        moved[at] = x[at] + eps
        above = f(moved)
        moved[at] = x[at] - eps
        slopes[at] = (above - f(moved)) / (2 * eps)
        moved[at] = x[at]
    return slopes


def _one_sided(f: Callable[[Array], float], x: Array, eps: float) -> Array:
    steps = np.eye(x.size).reshape(-1, *x.shape) * eps
    return np.array([(f(x + s) - f(x)) / eps for s in steps]).reshape(x.shape)


def _row_by_row(f: Callable[[Array], float], x: Array, eps: float) -> Array:
    slopes = np.zeros(x.shape)
    for i in range(len(x)):
        step = np.zeros(x.shape)
        step[i] = eps
        slopes[i] = (f(x + step) - f(x - step)) / (2 * eps)
    return slopes


def _never_put_back(f: Callable[[Array], float], x: Array, eps: float) -> Array:
    slopes, moved = np.zeros(x.shape), x.copy()
    for at in np.ndindex(x.shape):
        moved[at] = x[at] + eps
        above = f(moved)
        moved[at] = x[at] - eps
        slopes[at] = (above - f(moved)) / (2 * eps)
    return slopes


def _moves_the_input(f: Callable[[Array], float], x: Array, eps: float) -> Array:
    slopes = _numerical(f, x, eps)
    x += eps
    return slopes


# The tape of single numbers


def _backward(edges: list[tuple[int, int, float]], n: int) -> list[float]:
    bar = [0.0] * (n - 1) + [1.0]
    for y, x, slope in reversed(edges):
        bar[x] += bar[y] * slope
    return bar


def _walked(
    edges: list[tuple[int, int, float]],
    n: int,
    *,
    add: bool = True,
    forwards: bool = False,
    multiply: bool = True,
) -> list[float]:
    bar = [0.0] * (n - 1) + [1.0]
    for y, x, slope in edges if forwards else reversed(edges):
        share = bar[y] * slope if multiply else bar[y] + slope
        bar[x] = bar[x] + share if add else share
    return bar


@st.composite
def _graphs(draw: Draw) -> tuple[Any, ...]:
    n = draw(st.integers(2, 5))
    slope = st.sampled_from([2.0, -1.0, 3.0, 0.5])
    edges = [
        (y, x, draw(slope))
        for y in range(1, n)
        for x in range(y)
        # Each number is made from the one before, and perhaps from others.
        if x == y - 1 or draw(st.booleans())
    ]
    return edges, n


# Broadcasting


def _sum_to_shape(y_bar: Array, shape: tuple[int, ...]) -> Array:
    new = y_bar.ndim - len(shape)
    y_bar = y_bar.sum(axis=tuple(range(new)))
    once = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return y_bar.sum(axis=once, keepdims=True)


def _other_axis(y_bar: Array, shape: tuple[int, ...]) -> Array:
    new = y_bar.ndim - len(shape)
    y_bar = y_bar.sum(axis=tuple(range(len(shape), y_bar.ndim))) if new else y_bar
    once = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return y_bar.sum(axis=once, keepdims=True)


def _first_copy(y_bar: Array, shape: tuple[int, ...]) -> Array:
    y_bar = y_bar[(0,) * (y_bar.ndim - len(shape))]
    return y_bar[tuple(slice(size) for size in shape)]


@st.composite
def _repeated(draw: Draw) -> tuple[Any, ...]:
    full = draw(st.lists(st.integers(2, 3), min_size=1, max_size=3))
    shape = full[draw(st.integers(0, len(full) - 1)) :]
    return draw(arrays(*full)), tuple(1 if draw(st.booleans()) else n for n in shape)


# Products


def _matmul(a: Array, b: Array, c_bar: Array) -> tuple[Array, Array]:
    a_bar = c_bar @ b.T
    b_bar = a.reshape(-1, a.shape[-1]).T @ c_bar.reshape(-1, c_bar.shape[-1])
    return a_bar, b_bar


@st.composite
def _factors(draw: Draw) -> tuple[Any, ...]:
    m, k, n = (draw(sizes) for _ in range(3))
    batch = draw(st.lists(st.integers(1, 2), max_size=1))
    a, b = draw(arrays(*batch, m, k)), draw(arrays(k, n))
    return a, b, draw(arrays(*batch, m, n))


_SQUARE = np.array([[1.0, 2.0], [0.0, 1.0]])


# Layers


def _softmax(p: Array, p_bar: Array) -> Array:
    return p * (p_bar - (p_bar * p).sum(axis=-1, keepdims=True))


@st.composite
def _probabilities(draw: Draw) -> tuple[Any, ...]:
    shape = *draw(st.lists(st.integers(1, 2), max_size=2)), draw(st.integers(2, 3))
    x = np.exp(draw(arrays(*shape, values=(0.0, 1.0, -1.0, 2.0))))
    return x / x.sum(axis=-1, keepdims=True), draw(arrays(*shape))


def _probability(logits: Array) -> Array:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _cross_entropy(logits: Array, targets: Array) -> Array:
    bar = _probability(logits)
    bar[np.arange(len(targets)), targets] -= 1
    return bar / len(targets)


def _overflowing(logits: Array, targets: Array) -> Array:
    e = np.exp(logits)
    bar = e / e.sum(axis=-1, keepdims=True)
    bar[np.arange(len(targets)), targets] -= 1
    return bar / len(targets)


def _logits_less_target(logits: Array, targets: Array) -> Array:
    return (logits - np.eye(logits.shape[-1])[targets]) / len(targets)


@st.composite
def _scored(draw: Draw) -> tuple[Any, ...]:
    n, vocab = draw(sizes), draw(st.integers(2, 4))
    targets = draw(st.lists(st.integers(0, vocab - 1), min_size=n, max_size=n))
    return draw(arrays(n, vocab)), np.array(targets)


def _embedding(y_bar: Array, ids: Array, vocab_size: int) -> Array:
    bar = np.zeros((vocab_size, y_bar.shape[-1]))
    np.add.at(bar, ids, y_bar)
    return bar


def _last_share(y_bar: Array, ids: Array, vocab_size: int) -> Array:
    bar = np.zeros((vocab_size, y_bar.shape[-1]))
    bar[ids] += y_bar
    return bar


def _mean_share(y_bar: Array, ids: Array, vocab_size: int) -> Array:
    times = np.bincount(ids, minlength=vocab_size)[:, None]
    return _embedding(y_bar, ids, vocab_size) / np.maximum(times, 1)


def _by_position(y_bar: Array, ids: Array, vocab_size: int) -> Array:
    bar = np.zeros((vocab_size, y_bar.shape[-1]))
    bar[: len(ids)] = y_bar[:vocab_size]
    return bar


@st.composite
def _looked_up(draw: Draw) -> tuple[Any, ...]:
    n, vocab = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    ids = draw(st.lists(st.integers(0, vocab - 1), min_size=n, max_size=n))
    return draw(arrays(n, st.integers(1, 2))), np.array(ids), vocab


# Residual connections


PULLS: dict[str, Callable[[Array], Array]] = {
    "f(x) = 3 x": lambda g: 3 * g,
    "f(x) = -x / 2": lambda g: -g / 2,
    "f(x) = reversed x": lambda g: np.flip(g, axis=-1).copy(),
}


def _call_residual(function: Callable[..., Any], y_bar: Array, f: str) -> Any:
    return function(y_bar, PULLS[f])


def _residual(y_bar: Array, pull: Callable[[Array], Array]) -> Array:
    return y_bar + pull(y_bar)


def _in_place(y_bar: Array, pull: Callable[[Array], Array]) -> Array:
    y_bar += pull(y_bar)
    return y_bar


EXERCISES = (
    Exercise(
        name="gradients.numerical",
        title="A slope by trying",
        minutes=15,
        why="It is slow, and it knows nothing of the chain rule: so it can judge all "
        "the others.",
        answer=(gradients.check_gradient,),
        reference=_numerical,
        call=_call_numerical,
        inputs=st.tuples(
            st.sampled_from(sorted(FUNCTIONS)),
            arrays(sizes) | arrays(sizes, st.integers(1, 2)),
            st.sampled_from([0.5, 0.25]),
        ),
        examples=(
            ("sum of cubes", np.array([1.0, 2.0]), 0.5),
            ("product", np.array([[2.0, 3.0], [4.0, 5.0]]), 0.5),
        ),
        mistakes=(
            Mistake(
                "one-sided difference",
                "Step to both sides: then the error shrinks with the square of eps.",
                _one_sided,
            ),
            Mistake(
                "forgets the two",
                "The two points are 2 * eps apart.",
                lambda f, x, eps: 2 * _numerical(f, x, eps),
            ),
            Mistake(
                "moves all numbers at once",
                "That is the slope in one direction. Each number has a slope of its "
                "own: move it alone.",
                lambda f, x, eps: np.full(
                    x.shape, (f(x + eps) - f(x - eps)) / (2 * eps)
                ),
            ),
            Mistake(
                "moves a row at once",
                "x[i] is a whole row of a matrix: np.ndindex(x.shape) gives the index "
                "of every number.",
                _row_by_row,
            ),
            Mistake(
                "does not put the number back",
                "When the second number is tried, the first must stand where it was.",
                _never_put_back,
            ),
            Mistake(
                "mutates its input",
                "The caller still needs x: move the numbers of a copy.",
                _moves_the_input,
            ),
        ),
        hints=(
            "Two calls of f for each number: with it raised, and with it lowered.",
            "np.ndindex(x.shape) gives every index of x; work in a copy of x.",
            "(above - below) / (2 * eps), and then put the number back.",
        ),
    ),
    Exercise(
        name="gradients.backward",
        title="The chain rule on a tape",
        minutes=20,
        why="This loop is backpropagation. All else is which slopes there are.",
        answer=(gradients.Scalar.backward,),
        reference=_backward,
        inputs=_graphs(),
        examples=(
            ([(1, 0, 2.0), (2, 0, 5.0), (2, 1, 3.0)], 3),
            ([(1, 0, 2.0), (2, 1, 3.0), (3, 1, 4.0), (3, 2, 5.0)], 4),
        ),
        mistakes=(
            Mistake(
                "forgets to accumulate",
                "A number that is used twice gets a share from each use: += and not =.",
                lambda edges, n: _walked(edges, n, add=False),
            ),
            Mistake(
                "walks forwards",
                "A number can pass its slope on only when that is complete: begin at "
                "the loss.",
                lambda edges, n: _walked(edges, n, forwards=True),
            ),
            Mistake(
                "begins with nothing",
                "The slope of the loss in itself is 1; all others are multiples of it.",
                lambda edges, n: [0.0] * n,
            ),
            Mistake(
                "adds slopes along a path",
                "Along a path slopes multiply; different paths add up.",
                lambda edges, n: _walked(edges, n, multiply=False),
            ),
        ),
        hints=(
            "What is the slope of the loss in the loss itself?",
            "Go through the edges from the last to the first. By then the slope of y "
            "is complete.",
            "bar[x] += bar[y] * slope",
        ),
    ),
    Exercise(
        name="gradients.sum_to_shape",
        title="Undo broadcasting",
        minutes=15,
        why="Broadcasting copies without a trace, and every copy has a gradient.",
        answer=(Entry.receive,),
        reference=_sum_to_shape,
        inputs=_repeated(),
        examples=(
            (np.array([[1.0, 2.0], [3.0, 4.0]]), (2,)),
            (np.array([[1.0, 2.0], [3.0, 4.0]]), (2, 1)),
            (np.array([[1.0, 2.0], [3.0, 4.0]]), (1,)),
        ),
        mistakes=(
            Mistake(
                "sums over the wrong axis",
                "Shapes are aligned at their ends, so new axes stand in front.",
                _other_axis,
            ),
            Mistake(
                "the mean for the sum",
                "Each copy has moved the loss: their shares add up.",
                lambda y_bar, shape: (
                    _sum_to_shape(y_bar, shape)
                    / (y_bar.size / np.prod(shape, dtype=int))
                ),
            ),
            Mistake(
                "one copy only",
                "All copies count, not the first.",
                _first_copy,
            ),
            Mistake(
                "the first axis only",
                "Several axes may be new, and axes of size 1 were repeated, too: sum "
                "over all of these.",
                lambda y_bar, shape: (
                    y_bar if y_bar.shape == shape else y_bar.sum(axis=0)
                ),
            ),
            Mistake(
                "new axes only",
                "Axes of size 1 were repeated as well; they stay, with size 1.",
                lambda y_bar, shape: y_bar.sum(
                    axis=tuple(range(y_bar.ndim - len(shape)))
                ),
            ),
        ),
        hints=(
            "Which axes of y_bar are longer than those of shape, or not in it at all?",
            "y_bar.ndim - len(shape) axes in front are new: sum over them first.",
            "Then sum over the axes where shape has a 1, with keepdims=True.",
        ),
    ),
    Exercise(
        name="gradients.matmul",
        title="Backwards through a matrix product",
        minutes=20,
        why="Nearly all FLOPs of a backward pass are these two products.",
        answer=(gradients.matmul, gradients.Node),
        reference=_matmul,
        inputs=_factors(),
        examples=(
            (
                _SQUARE,
                np.array([[1.0, 0.0], [3.0, 1.0]]),
                np.array([[1.0, 5.0], [2.0, 0]]),
            ),
            (np.stack([_SQUARE, 2 * _SQUARE]), _SQUARE, np.ones((2, 2, 2))),
            (np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), np.array([[2.0]])),
        ),
        mistakes=(
            Mistake(
                "transposes the wrong factor",
                "For a_bar the factor is b transposed, for b_bar it is a transposed: "
                "the shapes fit in no other way.",
                lambda a, b, c_bar: (c_bar @ b, a @ c_bar),
            ),
            Mistake(
                "the results exchanged",
                "First the gradient of a, then that of b.",
                lambda a, b, c_bar: _matmul(a, b, c_bar)[::-1],
            ),
            Mistake(
                "does not sum over the batch",
                "The same b was used for every matrix in a, so all shares add up.",
                lambda a, b, c_bar: (c_bar @ b.T, a.swapaxes(-1, -2) @ c_bar),
            ),
            Mistake(
                "forgets the incoming gradient",
                "These are the slopes of the sum of c. Multiply by c_bar, not by ones.",
                lambda a, b, c_bar: _matmul(a, b, np.ones_like(c_bar)),
            ),
        ),
        hints=(
            "c[i, j] is the sum of a[i, k] * b[k, j]: with which slope does a[i, k] "
            "enter it, and into which other entries?",
            "a_bar = c_bar @ b.T, by that sum. b_bar has the shape of b.",
            "For b_bar, make a and c_bar one long matrix each, with "
            "reshape(-1, a.shape[-1]) and so on; then a.T @ c_bar sums over the batch.",
        ),
    ),
    Exercise(
        name="gradients.softmax",
        title="Backwards through softmax",
        minutes=20,
        why="Here each input moves every output, and attention is full of it.",
        answer=(gradients.softmax, gradients.Node),
        reference=_softmax,
        inputs=_probabilities(),
        examples=(
            (np.array([0.25, 0.75]), np.array([1.0, 0.0])),
            (np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([[1.0, 3.0], [2.0, 4.0]])),
        ),
        mistakes=(
            Mistake(
                "no cross term",
                "Raising one score lowers all other probabilities: their gradients "
                "come back, too.",
                lambda p, p_bar: p_bar * p * (1 - p),
            ),
            Mistake(
                "cross term over all axes",
                "Each row along the last axis has its own sum: axis=-1.",
                lambda p, p_bar: p * (p_bar - (p_bar * p).sum()),
            ),
            Mistake(
                "the sum without p",
                "The sum is over p_bar * p: each output counts as much as it moves.",
                lambda p, p_bar: p * (p_bar - p_bar.sum(axis=-1, keepdims=True)),
            ),
            Mistake(
                "p left out in front",
                "All of it is multiplied by p: an impossible token does not move.",
                lambda p, p_bar: p_bar - (p_bar * p).sum(axis=-1, keepdims=True),
            ),
        ),
        hints=(
            "The slope of p[i] in x[j] is p[i] - p[i] ** 2 if i == j, and else "
            "-p[i] * p[j].",
            "Sum p_bar[i] times this over all i. The second term is there for i == j, "
            "as well.",
            "p * (p_bar - (p_bar * p).sum(axis=-1, keepdims=True))",
        ),
    ),
    Exercise(
        name="gradients.cross_entropy",
        title="Backwards through the loss",
        minutes=15,
        why="Every backward pass of a language model begins with this array.",
        answer=(gradients.cross_entropy, gradients.Node),
        reference=_cross_entropy,
        inputs=_scored(),
        examples=(
            (np.array([[1000.0, 0.0]]), np.array([1])),
            (np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([1, 1])),
        ),
        mistakes=(
            Mistake(
                "the sum for the mean",
                "The loss is the mean over the positions, so each counts 1 / n.",
                lambda x, y: _cross_entropy(x, y) * len(y),
            ),
            Mistake(
                "mean over the vocabulary too",
                "One token came at each position: divide by the positions alone.",
                lambda x, y: _cross_entropy(x, y) / x.shape[-1],
            ),
            Mistake(
                "the sign lost",
                "Raising the score of the token that came lowers the loss: there the "
                "gradient is negative.",
                lambda x, y: -_cross_entropy(x, y),
            ),
            Mistake(
                "logits for probabilities",
                "It is the probability less one: take the softmax first.",
                _logits_less_target,
            ),
            Mistake(
                "overflows",
                "exp(1000) is infinite: subtract the largest score first.",
                _overflowing,
            ),
        ),
        hints=(
            "-ln p of the target is ln of the sum of all exp(x), minus the x of the "
            "target. Differentiate each of the two.",
            "The first gives the softmax, the second 1 at the target.",
            "p[np.arange(len(targets)), targets] -= 1, then divide by len(targets).",
        ),
    ),
    Exercise(
        name="gradients.embedding",
        title="Backwards through a look-up",
        minutes=10,
        why="A frequent token is looked up many times in a batch, and `bar[ids] += g` "
        "counts it once.",
        answer=(gradients.embedding, gradients.Node),
        reference=_embedding,
        inputs=_looked_up(),
        examples=(
            (np.array([[1.0], [10.0]]), np.array([2, 0]), 3),
            (np.array([[1.0], [10.0], [4.0]]), np.array([1, 0, 1]), 3),
        ),
        mistakes=(
            Mistake(
                "forgets to accumulate",
                "bar[ids] += y_bar keeps one share of an id that repeats. np.add.at "
                "adds them all.",
                _last_share,
            ),
            Mistake(
                "the mean for the sum",
                "Each use has moved the loss: the shares add up.",
                _mean_share,
            ),
            Mistake(
                "rows by position",
                "Row t of y_bar belongs to row ids[t] of the table.",
                _by_position,
            ),
        ),
        hints=(
            "Begin with zeros, one row for each token of the vocabulary.",
            "Go through the positions: row ids[t] gets y_bar[t] added.",
            "A loop will do; so will np.add.at(bar, ids, y_bar).",
        ),
    ),
    Exercise(
        name="gradients.residual",
        title="Around the layer and through it",
        minutes=10,
        why="The path around is why a model of a hundred layers can be trained.",
        answer=(gradients.add, gradients.Node),
        reference=_residual,
        call=_call_residual,
        inputs=st.tuples(
            arrays(sizes, st.integers(1, 3)), st.sampled_from(sorted(PULLS))
        ),
        examples=(
            (np.array([1.0, 2.0]), "f(x) = 3 x"),
            (np.array([1.0, 2.0]), "f(x) = reversed x"),
        ),
        mistakes=(
            Mistake(
                "through the layer only",
                "x reaches y by two paths. The other one has slope 1.",
                lambda y_bar, pull: pull(y_bar),
            ),
            Mistake(
                "around the layer only",
                "x reaches y by two paths, and one leads through f.",
                lambda y_bar, pull: y_bar.copy(),
            ),
            Mistake(
                "through the layer twice",
                "f sees x, and so pull gets y_bar, not what has been added up.",
                lambda y_bar, pull: y_bar + pull(y_bar + pull(y_bar)),
            ),
            Mistake(
                "mutates the incoming gradient",
                "The same array may be the gradient of another node: `a + b` makes a "
                "new one, `a += b` does not.",
                _in_place,
                kind="in place",
            ),
        ),
        hints=(
            "x is used twice: what comes back from each use?",
            "Around the layer comes y_bar as it is, through it comes pull(y_bar).",
            "y_bar + pull(y_bar)",
        ),
    ),
)
