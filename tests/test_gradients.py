"""Gradients: each derivative against trying and against PyTorch; the tape itself."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.exercises import differentiating
from minillm.gradients import (
    Node,
    Scalar,
    Work,
    add,
    attention,
    check_gradient,
    cross_entropy,
    embedding,
    matmul,
    mul,
    record,
    reshape,
    rms_norm,
    rope,
    silu,
    softmax,
    transpose,
)
from minillm.model import (
    RMSNorm,
    RotaryEmbedding,
    scaled_dot_product_attention,
)

# What a central difference in float64 can tell apart is near 1e-9.
TRIED = 1e-7


def normal(*shape, seed=0):
    return np.random.default_rng(seed + 31 * len(shape)).normal(size=shape)


# Each derivative, by trying. A case names the operation that it checks, so that a
# reader can see which derivative is broken.

IDS = np.array([[2, 0, 2], [1, 2, 2]])
CASES = {
    "add": (add, [(2, 3), (2, 3)]),
    "add, new axis": (add, [(4, 2, 3), (3,)]),
    "add, repeated axis": (add, [(2, 1, 3), (2, 4, 1)]),
    "add, single number": (add, [(2, 3), ()]),
    "mul": (mul, [(2, 3), (2, 3)]),
    "mul, both repeated": (mul, [(3, 1), (2, 1, 4)]),
    "mul, by itself": (lambda x: mul(x, x), [(2, 3)]),
    "reshape": (lambda x: mul(reshape(x, (3, 2)), normal(3, 2)), [(2, 3)]),
    "transpose": (
        lambda x: mul(transpose(x, (2, 0, 1)), normal(4, 2, 3)),
        [(2, 3, 4)],
    ),
    "matmul": (matmul, [(2, 3), (3, 4)]),
    "matmul, batches": (matmul, [(5, 2, 3), (5, 3, 4)]),
    "matmul, one for all": (matmul, [(5, 6, 2, 3), (3, 4)]),
    "matmul, repeated batch": (matmul, [(5, 1, 2, 3), (4, 3, 2)]),
    "matmul, first repeated": (matmul, [(2, 3), (5, 3, 4)]),
    "matmul, by itself": (lambda x: matmul(x, x), [(3, 3)]),
    "silu": (silu, [(2, 3)]),
    "softmax": (softmax, [(2, 3, 4)]),
    "rms_norm": (lambda x, w: rms_norm(x, w, 0.1), [(2, 3, 4), (4,)]),
    "rms_norm, used twice": (lambda x: rms_norm(x, x, 0.1), [(4,)]),
    "embedding": (lambda w: embedding(w, IDS), [(3, 4)]),
    "rope": (lambda x: rope(x, 100.0), [(2, 5, 6)]),
    "attention": (attention, [(2, 5, 4), (2, 5, 4), (2, 5, 3)]),
    "attention, shared keys": (attention, [(2, 3, 5, 4), (2, 1, 5, 4), (2, 1, 5, 4)]),
    "attention, one for all three": (lambda x: attention(x, x, x), [(4, 6)]),
    "cross_entropy": (lambda x: cross_entropy(x, IDS), [(2, 3, 4)]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_derivative_agrees_with_trying(case):
    f, shapes = CASES[case]
    inputs = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    assert check_gradient(f, inputs) < TRIED


sizes = st.integers(1, 3)


@settings(deadline=None, max_examples=40)
@given(st.lists(sizes, max_size=3), st.data())
def test_any_shapes_that_broadcast(shape, data):
    """Drop axes in front and set others to 1, on both sides."""

    def thinned():
        kept = shape[data.draw(st.integers(0, len(shape))) :]
        return [data.draw(st.sampled_from([1, n])) for n in kept]

    a, b = normal(*thinned()), normal(*thinned(), seed=1)
    for f in (add, mul):
        assert check_gradient(f, [a, b]) < TRIED
    # One input for both places, which broadcasts against itself.
    column = normal(*(*thinned(), 1))
    assert check_gradient(lambda x: mul(x, add(x, np.ones(3))), [column]) < TRIED


@settings(deadline=None, max_examples=30)
@given(st.lists(sizes, max_size=2), sizes, sizes, sizes, st.data())
def test_any_matrices_that_fit(batch, m, k, n, data):
    first, second = (
        [data.draw(st.sampled_from([1, size])) for size in batch[cut:]]
        for cut in (0, data.draw(st.integers(0, len(batch))))
    )
    a, b = normal(*first, m, k), normal(*second, k, n, seed=1)
    assert check_gradient(matmul, [a, b]) < TRIED


# Each derivative, against PyTorch's


def torch_rope(x):
    return RotaryEmbedding(6, 5, theta=100.0).double()(x)


def torch_rms_norm(x, w):
    norm = RMSNorm(4, eps=0.1).double()
    return F.rms_norm(x, norm.weight.shape, w, 0.1)


def torch_attention(q, k, v):
    seq = q.shape[-2]
    past = torch.ones(seq, seq, dtype=torch.bool).tril()
    k, v = (x.expand(*q.shape[:-2], *x.shape[-2:]) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, past)


PEERS = {
    "add, repeated axis": torch.add,
    "mul, both repeated": torch.mul,
    "matmul, repeated batch": torch.matmul,
    "matmul, one for all": torch.matmul,
    "silu": F.silu,
    "softmax": lambda x: x.softmax(-1),
    "rms_norm": torch_rms_norm,
    "embedding": lambda w: F.embedding(torch.from_numpy(IDS), w),
    "rope": torch_rope,
    "attention": torch_attention,
    "attention, shared keys": torch_attention,
    "cross_entropy": lambda x: F.cross_entropy(
        x.flatten(0, 1), torch.from_numpy(IDS).flatten()
    ),
}


@pytest.mark.parametrize("case", PEERS)
def test_value_and_gradient_are_those_of_torch(case):
    f, shapes = CASES[case]
    inputs = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    nodes = [Node(x) for x in inputs]
    tensors = [torch.from_numpy(x.copy()).requires_grad_() for x in inputs]
    ours, theirs = f(*nodes), PEERS[case](*tensors)
    np.testing.assert_allclose(ours.value, theirs.detach().numpy(), atol=1e-12)
    seed = normal(*ours.value.shape, seed=9)
    ours.backward(seed)
    theirs.backward(torch.from_numpy(np.array(seed)))
    for node, tensor in zip(nodes, tensors, strict=True):
        assert node.grad.shape == node.value.shape
        np.testing.assert_allclose(node.grad, tensor.grad.numpy(), atol=1e-12)


def test_large_numbers_do_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        x = Node(np.array([[1000.0, 0.0, -1000.0]]))
        y = add(silu(x), softmax(x))
        assert y.value[0].tolist() == [1001.0, 0.0, 0.0]
        loss = cross_entropy(y, np.array([1]))
        assert loss.value == pytest.approx(1001)
        loss.backward()
        assert np.isfinite(x.grad).all()


# The tape of numbers


def test_scalars_against_torch():
    values = [0.5, -2.0, 1.5]
    ours = [Scalar(x) for x in values]
    theirs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in values]

    def f(a, b, c):
        h = a * b + c
        for _ in range(3):
            h = (h * a + b).tanh() + h * h
        return h * c

    y, z = f(*ours), f(*theirs)
    y.backward()
    z.backward()
    assert y.value == pytest.approx(z.item(), rel=1e-14)
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad == pytest.approx(b.grad.item(), rel=1e-12)


def test_slopes_of_several_losses_add_up_as_in_torch():
    def losses(a, b):
        shared = a * b
        inner = shared * a
        return [inner + shared, inner.tanh(), inner + shared, a, inner]

    ours = [Scalar(0.5), Scalar(-1.5)]
    theirs = [
        torch.tensor(x.value, dtype=torch.float64, requires_grad=True) for x in ours
    ]
    pairs = list(zip(losses(*ours), losses(*theirs), strict=True))
    for y, z in [*pairs, pairs[0]]:  # the first of them twice
        y.backward()
        z.backward(retain_graph=True)
        for a, b in zip(ours, theirs, strict=True):
            assert a.grad == pytest.approx(0 if b.grad is None else b.grad.item())
    assert pairs[0][0].grad == pytest.approx(1.0)


def test_scalars_and_arrays_are_one_rule():
    w, x = normal(4), normal(4, seed=1)
    scalars = [Scalar(float(n)) for n in w]
    total = Scalar(0.0)
    for number, n in zip(scalars, x, strict=True):
        total = total + number * Scalar(float(n))
    (total * total).backward()
    node = Node(w)
    y = matmul(reshape(node, (1, 4)), x.reshape(4, 1))
    mul(y, y).backward()
    np.testing.assert_allclose(node.grad, [s.grad for s in scalars], rtol=1e-12)


# The tape of arrays


def test_shares_add_up_and_no_gradient_is_anothers():
    x = normal(2, 3)
    a, b = Node(x), Node(x)
    y = add(add(a, b), a)
    y.backward(np.ones((2, 3)))
    np.testing.assert_array_equal(a.grad, np.full((2, 3), 2.0))
    np.testing.assert_array_equal(b.grad, np.ones((2, 3)))
    a.grad[:] = 7  # its owner may do what he likes
    np.testing.assert_array_equal(b.grad, np.ones((2, 3)))
    np.testing.assert_array_equal(y.grad, np.ones((2, 3)))


def test_the_seed_is_not_changed_and_no_leaf_shares_it():
    a, b, seed = Node(normal(3)), Node(normal(3)), np.ones(3)
    h = add(a, b)
    y = add(h, silu(h))
    y.backward(seed)
    np.testing.assert_array_equal(seed, np.ones(3))
    a, b = Node(normal(3)), Node(normal(3))
    y = add(a, b)
    y.backward(seed)
    a.grad[:] = 0
    for other in (b.grad, y.grad, seed):
        np.testing.assert_array_equal(other, np.ones(3))


def test_a_leaf_adds_up_over_passes():
    w = Node(2.0)
    for expected in (3.0, 6.0):
        mul(w, 3.0).backward()
        assert w.grad == expected


def test_a_node_that_is_still_held_keeps_its_gradient():
    x = Node(normal(3))
    h = silu(x)
    mul(h, h).backward(np.ones(3))
    np.testing.assert_allclose(h.grad, 2 * h.value)


def test_a_deep_tape_needs_no_deep_recursion():
    x = Node(1.0)
    y = x
    for _ in range(20_000):
        y = add(y, x)
    y.backward()
    assert x.grad == 20_001


def test_a_graph_that_doubles_is_walked_once():
    x = Node(1.0)
    y = x
    for _ in range(60):  # 2 ** 60 paths
        y = add(y, y)
    y.backward()
    assert int(x.grad) == 2**60


def test_constants_are_not_recorded():
    y = silu(matmul(normal(2, 3), normal(3, 2)))
    assert y.constant and y.entry.parents == ()
    x = Node(normal(2, 2))
    z = mul(x, y)
    assert not z.constant and len(z.entry.parents) == 1


def test_precision_is_that_of_the_arrays():
    x = Node(np.float32([[0.5, 1.0]]))
    w = Node(np.ones(2, np.float32))
    h = mul(silu(rms_norm(x, w)), 0.5)
    y = attention(rope(h), h, softmax(h))
    assert y.value.dtype == np.float32
    cross_entropy(y, np.array([1])).backward()
    assert x.grad.dtype == w.grad.dtype == np.float32


def test_the_walk_frees_what_the_tape_has_kept():
    x = Node(normal(100))
    y = silu(x)
    kept = weakref.ref(y.value)
    z = mul(y, y)
    del y
    gc.collect()
    assert kept() is not None  # mul needs it
    z.backward(np.ones(100))
    gc.collect()
    assert kept() is None


def test_a_value_that_no_formula_needs_is_freed_at_once():
    x = Node(normal(100))
    y = add(x, x)
    gone = weakref.ref(y.value)
    z = softmax(y)
    del y
    gc.collect()
    assert gone() is None
    z.backward(np.ones(100))
    assert x.grad is not None


def test_products_are_counted_forwards_and_backwards():
    before = Work.flops
    a, b = Node(normal(6, 5, 3)), Node(normal(3, 4))
    y = matmul(a, b)
    assert Work.flops - before == 2 * 6 * 5 * 3 * 4
    y.backward(np.ones((6, 5, 4)))
    assert Work.flops - before == 3 * 2 * 6 * 5 * 3 * 4
    before = Work.flops
    matmul(Node(normal(2, 3)), normal(3, 4)).backward(np.ones((2, 4)))
    assert Work.flops - before == 2 * 2 * 2 * 3 * 4  # a constant is owed nothing


# Bad input: the rule, the value, the remedy


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: Node([1, 2]), TypeError, "floating-point.*int64.*astype"),
        (lambda: Node(True), TypeError, "floating-point.*bool"),
        (lambda: Node(3j), TypeError, "floating-point.*complex"),
        (lambda: check_gradient(silu, [np.array([1])]), TypeError, "astype"),
        (
            lambda: add(Node(np.ones((2, 3))), np.ones(2)),
            ValueError,
            r"add .*broadcast.*\(2, 3\) and \(2,\).*reshape",
        ),
        (
            lambda: mul(Node(np.ones((2, 3))), np.ones((3, 2))),
            ValueError,
            r"mul .*broadcast.*\(2, 3\) and \(3, 2\)",
        ),
        (
            lambda: rms_norm(Node(np.ones((2, 3))), np.ones(2)),
            ValueError,
            r"rms_norm .*broadcast.*\(2, 3\) and \(2,\)",
        ),
        (
            lambda: matmul(np.ones((2, 3)), np.ones((2, 3))),
            ValueError,
            r"\(2, 3\), \(2, 3\): transpose",
        ),
        (lambda: matmul(np.ones(3), np.ones((3, 2))), ValueError, r"\(3,\)"),
        (
            lambda: matmul(np.ones((2, 2, 3)), np.ones((5, 3, 2))),
            ValueError,
            r"matmul .*broadcast",
        ),
        (
            lambda: attention(np.ones((4, 2)), np.ones((3, 2)), np.ones((3, 2))),
            ValueError,
            "as many keys as queries",
        ),
        (lambda: rope(np.ones((4, 3))), ValueError, "even; got 3"),
        (lambda: embedding(np.ones((3, 2)), np.array([3])), ValueError, "0 … 2.*3"),
        (lambda: embedding(np.ones((3, 2)), np.array([-1])), ValueError, "-1"),
        (
            lambda: cross_entropy(np.ones((1, 3)), np.array([5])),
            ValueError,
            "0 … 2.*5",
        ),
        (
            lambda: cross_entropy(np.ones((2, 3)), np.array([0])),
            ValueError,
            r"one target for each position \(2,\); got \(1,\)",
        ),
        (
            lambda: Node(np.ones((2, 1))).backward(),
            ValueError,
            r"one number, the loss; got shape \(2, 1\)",
        ),
        (
            lambda: Node(np.ones(2)).backward(np.ones((2, 1))),
            ValueError,
            r"\(2,\); got \(2, 1\): reshape",
        ),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("f", [embedding, cross_entropy])
def test_ids_with_decimals_are_refused(f):
    # Past the type checker, which says the same in tests.
    with pytest.raises(TypeError, match="integers; got float64"):
        getattr(f, "__wrapped__", f)(np.ones((1, 3)), np.array([0.0]))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32"])
def test_ids_of_any_integer_type_are_welcome(kind):
    """Bytes of a text are uint8, and token files uint16."""
    found = []
    for ids in (IDS, IDS.astype(kind)):
        x, table = Node(normal(2, 3, 4)), Node(normal(3, 4))
        cross_entropy(add(x, embedding(table, ids)), ids).backward()
        found.append((x.grad, table.grad))
    for plain, other in zip(*found, strict=True):
        np.testing.assert_array_equal(plain, other)


def test_a_second_backward_needs_a_second_forward():
    x = Node(normal(3))
    h = silu(x)
    loss, other = (matmul(reshape(h, (1, 3)), normal(3, 1, seed=s)) for s in (1, 2))
    loss.backward()
    grad = x.grad.copy()
    for again in (loss, other):  # the other one shares h, which is used up
        with pytest.raises(RuntimeError, match=r"used up.*forward pass again"):
            again.backward()
    # Nothing was added before it was noticed.
    np.testing.assert_array_equal(x.grad, grad)


def test_a_cycle_is_named():
    x = Node(1.0)
    y = silu(x)
    z = mul(y, y)
    y.entry.parents = ((z.entry, lambda g: g),)
    with pytest.raises(ValueError, match=r"cycle.*new Node"):
        z.backward()
    assert z.grad is None


# The judge itself


def test_the_judge_sees_each_wrong_entry():
    x = normal(3, 4)

    def wrong_in_one(x):
        def pull(g):
            share = g * 2 * x.value
            share[1, 2] *= 1.001
            return share

        return record(x.value**2, (x, pull))

    assert check_gradient(lambda x: mul(x, x), [x]) < TRIED
    assert check_gradient(wrong_in_one, [x]) > 1e-5


def test_the_judge_sees_a_forgotten_input_and_leaves_the_inputs():
    x, w = normal(2, 3), normal(3, seed=1)
    kept = x.copy(), w.copy()
    assert check_gradient(lambda x, w: mul(x, w.value), [x, w]) == pytest.approx(1)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(w, kept[1])


def test_the_judge_sees_the_missing_cross_term():
    def wrong(x):
        p = np.exp(x.value) / np.exp(x.value).sum(-1, keepdims=True)
        return record(p, (x, lambda g: g * p * (1 - p)))

    assert check_gradient(wrong, [normal(2, 4)]) > 0.1


def test_eps_makes_the_difference_it_should():
    """The error of a central difference is eps² / 6 times the third derivative."""
    x, eps = np.array([1.0]), 0.1
    # x³: slope 3, third derivative 6, and so 3 + eps².
    cube = lambda x: mul(x, mul(x, x))  # ruff: ignore[lambda-assignment]
    assert check_gradient(cube, [x], eps) == pytest.approx(eps**2 / (3 + eps**2))


# The exercises' references, which are written out, against the tape


def test_references_that_are_written_out_agree_with_the_tape():
    e = differentiating
    a, b, g = normal(2, 3, 4), normal(4, 5), normal(2, 3, 5, seed=2)
    nodes = Node(a), Node(b)
    matmul(*nodes).backward(g)
    for ours, node in zip(e._matmul(a, b, g), nodes, strict=True):
        np.testing.assert_allclose(ours, node.grad, rtol=1e-12)
    x, g = Node(a), normal(2, 3, 4, seed=3)
    y = softmax(x)
    y.backward(g)
    np.testing.assert_allclose(e._softmax(y.value, g), x.grad, atol=1e-14)
    targets = np.array([1, 0, 3])
    x = Node(a[0])
    cross_entropy(x, targets).backward()
    np.testing.assert_allclose(e._cross_entropy(a[0], targets), x.grad, atol=1e-14)
    table = Node(normal(3, 2))
    ids, g = IDS.ravel(), normal(6, 2, seed=4)
    embedding(table, ids).backward(g)
    np.testing.assert_allclose(e._embedding(g, ids, 3), table.grad, rtol=1e-12)
    for shape in ((4,), (3, 1), (1, 3, 1), (2, 1, 4)):
        x = Node(np.zeros(shape))
        add(x, np.zeros((2, 3, 4))).backward(a)
        np.testing.assert_allclose(e._sum_to_shape(a, shape), x.grad, rtol=1e-12)
    x, g = Node(normal(3)), normal(3, seed=5)
    add(x, mul(x, 3.0)).backward(g)
    ours = e._residual(g, lambda g: 3 * g)
    np.testing.assert_allclose(ours, x.grad, rtol=1e-12)
    scalars = [Scalar(0.5), Scalar(-2.0)]
    product = scalars[0] * scalars[1]
    loss = product * scalars[0]
    loss.backward()
    edges = [(2, 0, -2.0), (2, 1, 0.5), (3, 0, product.value), (3, 2, 0.5)]
    ours = [*scalars, product, loss]
    assert e._backward(edges, 4) == pytest.approx([s.grad for s in ours])
    x = normal(2, 2)
    tried = e._numerical(lambda x: float((x**3).sum()), x, 1e-5)
    np.testing.assert_allclose(tried, 3 * x**2, atol=1e-8)


def test_tanh_is_the_only_nonlinearity_that_scalars_need():
    x = Scalar(0.3)
    x.tanh().backward()
    assert x.grad == pytest.approx(1 - math.tanh(0.3) ** 2)


def test_a_gradient_of_nan_is_infinitely_wrong():
    def broken(x):
        return record(x.value * 2, (x, lambda g: g * np.nan))

    assert check_gradient(broken, [normal(2, 3)]) == math.inf
    # One bad input is not hidden by a good one after it.
    assert check_gradient(lambda x, y: add(broken(x), y), [normal(2), normal(2)]) > 1


def test_a_share_of_fewer_axes_belongs_to_every_entry():
    x = Node(normal(2, 3))
    # The derivative of a sum is one number, whatever the shape.
    record(x.value.sum(), (x, lambda g: g)).backward()
    assert x.grad.shape == (2, 3) and (x.grad == 1).all()
