"""Learning from chats: the same loss however they are batched, and nothing else."""

from contextlib import nullcontext
from copy import deepcopy

import numpy as np
import pytest
import torch

from minillm.config import ModelConfig
from minillm.model import TransformerLM
from minillm.training import distributed
from minillm.training.imitation import sft_loss
from minillm.training.lora import add_lora, lora_weights, without_lora
from minillm.training.settings import TrainConfig
from minillm.training.tuner import Example, Tuner, pad
from minillm.training.tuning import MATRICES, TuneConfig, usual

SHAPE = ModelConfig(23, 16, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2)


def make(seed=0):
    torch.manual_seed(seed)
    return TransformerLM(SHAPE).double()


def example(random, n):
    mask = np.arange(n) >= random.integers(1, n)
    return Example(random.integers(23, size=n).astype(np.int32), mask)


def chats(n=9, sides=1):
    random = np.random.default_rng(0)
    lengths = random.integers(3, 17, size=(n, sides))
    return [tuple(example(random, k) for k in row) for row in lengths]


def surprise(model, e):
    """Minus the log-probabilities of what is learned, one token at a time."""
    found = []
    for t in range(1, len(e.ids)):
        if e.mask[t]:
            logits = model(torch.tensor(e.ids[:t][None].astype(np.int64)))[0, -1]
            found.append(-torch.log(torch.softmax(logits, -1))[int(e.ids[t])])
    return torch.stack(found)


def test_the_loss_is_the_mean_over_learned_tokens_each_chat_read_alone():
    model, items = make(), chats()
    tuner = Tuner(model, items, TrainConfig(batch_size=9))
    batch = tuner.sample(torch.Generator())
    assert sorted(batch.tolist()) == list(range(9))
    alone = torch.cat([surprise(model, e) for (e,) in items])
    torch.testing.assert_close(tuner.loss(batch, batch), alone.mean())
    # The chapter's function on the padded batch, and the evaluation.
    inputs, targets, mask = pad([e for (e,) in items])
    expected = sft_loss(model(inputs), targets, mask)
    torch.testing.assert_close(expected, alone.mean())
    assert tuner.evaluate(items) == pytest.approx(alone.mean().item())


def test_preferences_are_the_formula_written_out():
    model, start = make(), make(seed=1)
    items = chats(5, sides=2)
    tuner = Tuner(
        *(model, items, TrainConfig(batch_size=5)),
        reference=lambda: nullcontext(start),
        beta=0.3,
    )
    losses = []
    for a, b in items:
        gain = [surprise(start, e).sum() - surprise(model, e).sum() for e in (a, b)]
        losses.append(-torch.log(torch.sigmoid(0.3 * (gain[0] - gain[1]))))
    batch = tuner.sample(torch.Generator())
    torch.testing.assert_close(tuner.loss(batch, batch), torch.stack(losses).mean())
    assert tuner.evaluate(items) == pytest.approx(torch.stack(losses).mean().item())


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize(("n", "parts"), [(1, 4), (2, 1), (2, 2)])
def test_dividing_a_batch_changes_nothing(monkeypatch, sides, n, parts):
    """Among micro-batches, and among processes that average their losses."""
    model, items, start = make(), chats(8, sides), make(seed=1)
    reference = (lambda: nullcontext(start)) if sides == 2 else None
    config = TrainConfig(batch_size=8, grad_accum=parts)
    tuner = Tuner(model, items, config, reference=reference)
    batch = tuner.sample(torch.Generator())
    whole = tuner.loss(batch, batch)
    monkeypatch.setattr(distributed, "world_size", lambda: n)
    total = []
    for i in range(n):
        monkeypatch.setattr(distributed, "rank", lambda i=i: i)
        own_parts = distributed.share(batch, parts)
        total += [tuner.loss(own, batch) for own in own_parts]
    torch.testing.assert_close(sum(total) / n, whole)


def test_each_pass_reads_each_item_once_and_in_another_order():
    tuner = Tuner(make(), chats(10), TrainConfig(batch_size=4))
    read = []
    for tuner.done in range(5):  # two passes
        read.append(tuner.sample(torch.Generator()).tolist())
        lengths = [tuner.lengths[i] for i in read[-1]]
        assert lengths == sorted(lengths)
    flat = [i for batch in read for i in batch]
    assert sorted(flat) == sorted([*range(10)] * 2)
    other = Tuner(make(), chats(10), TrainConfig(batch_size=4, seed=1))
    assert other.sample(torch.Generator()).tolist() != read[0]
    # A batch may be larger than the file.
    large = Tuner(make(), chats(3), TrainConfig(batch_size=7))
    assert len(large.sample(torch.Generator())) == 7


@pytest.mark.parametrize("sides", [1, 2])
def test_only_thin_layers_move_and_without_them_it_is_the_model_before(sides):
    model, items = make(), chats(6, sides)
    before = deepcopy(model)
    add_lora(model, 2, where=MATRICES)
    learned = lora_weights(model)
    tuner = Tuner(
        *(model, items, TrainConfig(steps=6, batch_size=3, max_lr=1e-2), learned),
        reference=(lambda: without_lora(model)) if sides == 2 else None,
    )
    losses = [progress.loss for progress in tuner.run()]
    assert losses[-1] < losses[0]
    if sides == 2:
        assert losses[0] == pytest.approx(np.log(2), abs=1e-12)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    with without_lora(model):
        assert torch.equal(model(ids), before(ids))
    assert not torch.equal(model(ids), before(ids))
    moved = {name for name, w in model.named_parameters() if w.grad is not None}
    assert moved == {name.replace("/", ".") for name in learned}
    kept = {n: w for n, w in model.named_parameters() if n not in moved}
    for name, weight in kept.items():
        plain = name.replace(".linear.", ".")
        assert torch.equal(weight, before.get_parameter(plain))


def test_a_step_in_bf16_begins_at_ln_2():
    """The reference computes in the same precision, if not with the same kernels."""
    model = make().float()
    add_lora(model, 2, where=MATRICES)
    tuner = Tuner(
        *(model, chats(4, 2), TrainConfig(batch_size=4, dtype="bf16")),
        lora_weights(model),
        reference=lambda: without_lora(model),
    )
    assert tuner.step().loss == pytest.approx(np.log(2), abs=1e-3)


def test_what_cannot_be_learned_is_refused():
    long = (Example(np.arange(18) % 23, np.arange(18) > 3),)
    silent = (Example(np.arange(5), np.arange(5) < 1),)  # only the first token
    unknown = (Example(np.array([3, 23]), np.array([False, True])),)
    for item, message in (
        (long, "at most 17 tokens here"),
        (silent, "at least one that is learned; got 5 and 0"),
        (unknown, "the model knows the ids 0 to 22; the text has 23"),
    ):
        with pytest.raises(ValueError, match=message):
            Tuner(make(), [*chats(3), item], TrainConfig(batch_size=2))
        tuner = Tuner(make(), chats(3), TrainConfig(batch_size=2))
        with pytest.raises(ValueError, match=message):
            list(tuner.run([item]))
    fits = (Example(np.arange(17) % 23, np.arange(17) > 3),)
    Tuner(make(), [fits], TrainConfig(batch_size=1)).step()


def test_an_evaluation_reads_as_much_as_it_may():
    tuner = Tuner(make(), chats(3), TrainConfig(batch_size=1, eval_tokens=30))
    held_out = [(Example(np.arange(12), np.arange(12) > 3),)] * 5
    assert len(tuner.some(held_out)) == 2
    assert len(tuner.some(held_out[:1] * 1)) == 1
    tuner = Tuner(make(), chats(3), TrainConfig(batch_size=1, eval_tokens=2))
    assert len(tuner.some(held_out)) == 1


def test_settings_that_cannot_be():
    for settings, message in (
        ({"alpha": 0.0}, "alpha must be positive and finite; got 0.0"),
        ({"beta": float("nan")}, "beta must be positive and finite; got nan"),
        ({"validation": 0.0}, "validation must lie between 0 and 1"),
        ({"where": "q_proj,w9"}, "where names 'w9': choose all, or of q_proj"),
    ):
        with pytest.raises(ValueError, match=message):
            TuneConfig(**settings)
    assert TuneConfig(rank=0).alpha == 0
    assert usual(True, 0)["max_lr"] < usual(True, 8)["max_lr"]
