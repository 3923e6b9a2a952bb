"""The Transformer on the tape: logits, gradients, losses, bytes and FLOPs."""

import gc
import inspect
import tracemalloc

import numpy as np
import pytest
import torch

from minillm.config import ModelConfig, RopeScaling
from minillm.flops import forward_flops, training_flops, training_memory
from minillm.model import TransformerLM
from minillm.training.by_hand import (
    by_autograd,
    by_tape,
    forward,
    losses,
    on_tape,
)
from minillm.training.kept import held, recompute
from minillm.training.layers import cross_entropy
from minillm.training.tape import Node, Work, in_order

SHAPES = {
    "one head": ModelConfig(11, 6, d_model=8, n_layers=1, n_heads=1),
    "many heads": ModelConfig(50, 16, d_model=32, n_layers=3, n_heads=4, d_ff=40),
    "shared keys": ModelConfig(50, 16, 32, 2, n_heads=4, n_kv_heads=2),
    "one key for all": ModelConfig(50, 16, 32, 2, n_heads=4, n_kv_heads=1),
    "tied, other base": ModelConfig(
        *(50, 16, 32, 2, 4),
        rope_theta=50.0,
        norm_eps=0.1,
        tie_embeddings=True,
    ),
}


# Attention is written out, and a norm differentiated as a whole.
AS_ON_TAPE = {"fused_attention": False, "fused_norms": True}


def made(config, dtype=torch.float64, seed=0):
    """A model whose weights are all random, the norms' too, and a batch for it."""
    torch.manual_seed(seed)
    model = TransformerLM(config)
    with torch.no_grad():
        for w in model.parameters():
            w.add_(0.3 * torch.randn_like(w))
    random = np.random.default_rng(seed)
    ids = random.integers(0, config.vocab_size, (3, config.context_length + 1))
    return model.to(dtype), ids[:, :-1].copy(), ids[:, 1:].copy()


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_and_gradients_are_those_of_torch(shape, again):
    config = SHAPES[shape]
    model, inputs, targets = made(config)
    weights = on_tape(model)
    logits = forward(weights, config, inputs, again=again)
    theirs = model(torch.from_numpy(inputs))
    np.testing.assert_allclose(
        logits.value, theirs.detach().numpy(), rtol=0, atol=1e-10
    )
    loss = cross_entropy(logits, targets)
    loss.backward()
    assert float(loss.value) == pytest.approx(by_autograd(model, inputs, targets))
    names = [name for name, _ in model.named_parameters()]
    assert {id(weights[name]) for name in names} == {id(w) for w in weights.values()}
    for name, w in model.named_parameters():
        np.testing.assert_allclose(
            weights[name].grad, w.grad.numpy(), rtol=0, atol=1e-10, err_msg=name
        )


def test_the_demo_in_float32():
    config = ModelConfig(2048, 128, d_model=128, n_layers=2, n_heads=4)
    torch.manual_seed(0)
    model = TransformerLM(config)
    ids = np.random.default_rng(0).integers(0, 2048, (2, 65))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    ours = by_tape(model, inputs, targets)
    taped = [w.grad.clone() for w in model.parameters()]
    assert all(g.dtype == torch.float32 for g in taped)
    assert ours == pytest.approx(by_autograd(model, inputs, targets), rel=1e-6)
    for a, w in zip(taped, model.parameters(), strict=True):
        torch.testing.assert_close(a, w.grad, rtol=1e-4, atol=1e-6)


def test_a_short_sequence_and_a_single_token():
    model, inputs, targets = made(SHAPES["shared keys"])
    for n in (1, 5):
        ours = by_tape(model, inputs[:, :n], targets[:, :n])
        assert ours == pytest.approx(by_autograd(model, inputs[:, :n], targets[:, :n]))


def test_stretched_positions_are_refused():
    scaling = RopeScaling(8.0, 1.0, 4.0, 8)
    config = ModelConfig(11, 6, 8, 1, 1, rope_scaling=scaling)
    with pytest.raises(ValueError, match="rope_scaling"):
        forward({}, config, np.zeros((1, 2), int))


def test_training_by_tape_is_training_by_autograd():
    model, *_ = made(SHAPES["tied, other base"])
    before = [w.clone() for w in model.parameters()]
    text = np.random.default_rng(1).integers(0, 50, 300) // 2
    taped, theirs = (
        losses(model, text, by, 30, batch_size=4) for by in (by_tape, by_autograd)
    )
    np.testing.assert_allclose(taped, theirs, rtol=1e-9)
    assert theirs[-1] < theirs[0] - 0.5
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.check
def test_two_hundred_steps_on_the_tales_have_the_same_losses(capsys):
    from minillm.training import by_hand

    by_hand.main()
    *_, last = capsys.readouterr().out.splitlines()
    assert float(last.rpartition(" ")[2]) < 1e-9


# What is held, what is computed


@pytest.mark.parametrize("shape", ["one head", "many heads", "shared keys"])
def test_what_the_tape_holds_by_the_formulas_of_its_parts(shape):
    c = SHAPES[shape]
    model, inputs, targets = made(c, torch.float32)
    weights, marks = on_tape(model), []
    loss = cross_entropy(forward(weights, c, inputs, marks), targets)
    parts = held([*marks, ("end", loss)], weights)
    d, d_kv, seq = c.d_model, c.n_kv_heads * c.d_head, inputs.shape[1]
    expected = {
        "embedding": 8,  # ids
        "norms": 4 * c.n_layers * 2 * (d + 1),
        # the input of the projections; queries, keys, values; weights; the input of W_o
        "attention": 4 * c.n_layers * (d + d + 2 * d_kv + c.n_heads * seq + d),
        "ffn": 4 * c.n_layers * (d + 4 * c.d_ff),
        "end": 4 * (d + 1 + d + c.vocab_size) + 8,
    }
    assert {part: n / inputs.size for part, n in parts.items()} == expected
    # The formula copies shared keys for every head.
    predicted = training_memory(c, *inputs.shape, **AS_ON_TAPE).activations
    copies = 4 * c.n_layers * 2 * (d - d_kv) * inputs.size
    assert sum(parts.values()) + copies == predicted


def test_what_the_demo_holds_by_the_formula_and_by_the_allocator():
    """Three routes to one number: closures, the formula, and what Python allocated."""
    c = ModelConfig(2048, 128, d_model=128, n_layers=4, n_heads=4)
    model, inputs, targets = made(c, torch.float32)
    weights = on_tape(model)
    predicted = training_memory(c, *inputs.shape, **AS_ON_TAPE)
    tracemalloc.start()
    loss = cross_entropy(forward(weights, c, inputs), targets)
    gc.collect()
    allocated, _ = tracemalloc.get_traced_memory()
    loss.backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Ids and targets were there before; angles and the entries themselves are small.
    assert allocated == pytest.approx(predicted.activations, rel=0.05)
    # The walk frees what it has used while the gradients of the weights come in; some
    # arrays of the backward pass come and go.
    assert peak < 1.1 * (predicted.activations + predicted.gradients)
    tape = cross_entropy(forward(weights, c, inputs), targets)
    total = sum(held([("all", tape)], weights).values())
    assert total == predicted.activations


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("again", [False, True])
def test_flops_are_those_of_the_formula(shape, again):
    config = SHAPES[shape]
    model, inputs, targets = made(config)
    before = Work.flops
    logits = forward(on_tape(model), config, inputs, again=again)
    first = Work.flops - before
    assert first == forward_flops(config, *inputs.shape).total
    cross_entropy(logits, targets).backward()
    total = training_flops(config, *inputs.shape, recompute=again)
    assert Work.flops - before == total
    if not again:
        assert total == 3 * first


def test_recomputation_holds_one_array_for_each_block():
    c = SHAPES["many heads"]
    model, inputs, targets = made(c, torch.float32)
    weights, marks = on_tape(model), []
    loss = cross_entropy(forward(weights, c, inputs, marks, again=True), targets)
    parts = held([*marks, ("end", loss)], weights)
    d = c.d_model
    assert {part: n / inputs.size for part, n in parts.items()} == {
        "embedding": 8,
        "blocks": 4 * c.n_layers * d,
        "end": 4 * (d + 1 + d + c.vocab_size) + 8,
    }


def test_recomputing_runs_the_block_twice_and_drops_its_first_tape():
    runs = []

    def block(x):
        runs.append(x)
        h = cross_entropy(x, np.array([1]))
        return h

    x = Node(np.array([[1.0, 2.0]]))
    y = recompute(block, x)
    assert len(runs) == 1 and runs[0] is not x
    assert [entry.shape for entry in in_order(y.entry)] == [(1, 2), ()]
    y.backward()
    assert len(runs) == 2
    plain = Node(x.value)
    cross_entropy(plain, np.array([1])).backward()
    np.testing.assert_array_equal(x.grad, plain.grad)


def test_without_leaves_nothing_is_recorded():
    config = SHAPES["shared keys"]
    model, inputs, _ = made(config)
    plain = {name: w.value for name, w in on_tape(model).items()}
    logits = forward(plain, config, inputs)
    assert logits.constant and logits.entry.parents == ()


def test_no_function_on_the_tape_keeps_a_node():
    """A node would keep its value alive, needed or not, and `held` would not see it."""
    config = SHAPES["many heads"]
    model, inputs, targets = made(config)
    loss = cross_entropy(forward(on_tape(model), config, inputs), targets)
    for entry in in_order(loss.entry):
        for _, pull in entry.parents:
            kept = inspect.getclosurevars(inspect.unwrap(pull)).nonlocals
            assert not [x for x in kept.values() if isinstance(x, Node)], kept
