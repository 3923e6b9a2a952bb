"""The lab of optimizers: equal FLOPs, its runs, what is committed and what is said."""

from statistics import fmean

import pytest
import torch

from minillm.files.reading import IMAGES
from minillm.flops import training_flops
from minillm.labs import optimizers
from minillm.labs.bench import committed, run_lab
from minillm.labs.optimizers import (
    BASE,
    LAB,
    ONCE,
    SHAPE,
    VARIANTS,
    optimizers_table,
    schedule,
    step_flops,
    steps,
)
from minillm.runs import demo
from minillm.train import TrainConfig, train
from minillm.training.loss import bits_per_byte, evaluate

TINY = BASE | {"share": 0.002}
MUON = {"optimizer": "Muon", "matrix_lr": 0.02}
KINDS = ("cosine", "linear")
WHOLE = optimizers._text


@pytest.fixture
def short(monkeypatch):
    """Evaluate on little: it is most of the time of so short a run."""
    text = WHOLE()
    text = text._replace(unseen=text.unseen[:1000], n_bytes=3000)
    monkeypatch.setattr(optimizers, "_text", lambda: text)
    return text


def test_it_is_the_shape_and_the_training_of_the_demo():
    assert SHAPE == demo.SHAPE
    assert demo.CONFIG == optimizers.DEMO
    assert steps(BASE | {"share": 1.0}) == demo.CONFIG.steps


def test_every_variant_gets_its_share_of_the_flops():
    demo_flops = 4500 * training_flops(SHAPE, 4, 128)
    for config in (VARIANTS | ONCE).values():
        left = config["share"] * demo_flops - LAB.flops(config)
        assert abs(left) <= step_flops(config) / 2


def test_the_settings_of_the_demo_train_as_the_demo_does(short):
    text, total = short, steps(TINY)
    torch.manual_seed(3)
    model = demo.TransformerLM(SHAPE)
    train(model, text.tokens, TrainConfig(steps=total, seed=3))
    loss = evaluate(model, text.unseen)
    bits = bits_per_byte(loss, len(text.unseen) - 1, text.n_bytes)
    assert optimizers._run(TINY, 3)["bits"] == pytest.approx(bits, abs=6e-5)


def test_every_setting_counts(short):
    changes = (
        *({}, {"embedding_std": 0.2}, {"embedding_lr": 9.0}, {"schedule": "linear"}),
        *({"batch": 2}, {"lr": 0.01}, {"tied": True}, {"weight_decay": 9.0}),
        *(MUON, MUON | {"steps": 2}),
    )
    found = [optimizers._run(TINY | change, 0)["bits"] for change in changes]
    assert len(set(found)) == len(changes)


def test_a_run_repeats_itself(short, tmp_path):
    once, again = (run_lab(LAB, [(TINY | MUON, 1)], tmp_path / x) for x in "ab")
    assert once[0]["bits"] == again[0]["bits"]
    assert "another setting" in LAB.report(once)


def test_a_line_ends_at_zero():
    shares = [[schedule(kind, s, 1000) for s in (50, 550, 1000)] for kind in KINDS]
    assert shares[0] == shares[1] == pytest.approx([0.5, 0.5, 0.0])
    assert schedule("linear", 325, 1000) < schedule("cosine", 325, 1000)


def test_the_committed_table_is_that_of_the_committed_results():
    results = committed(LAB)
    points = [(r["config"], r["seed"]) for r in results]
    planned = LAB.points(False)
    assert len(points) == len(planned) and all(p in points for p in planned)
    table = (IMAGES / "data" / "optimizers.md").read_text(encoding="utf-8")
    ordered = [results[points.index(point)] for point in planned]
    assert table == optimizers_table(ordered)
    assert "another setting" not in table


def bits(name):
    config = (VARIANTS | ONCE)[name]
    return [r["bits"] for r in committed(LAB) if r["config"] == config]


def test_the_table_says_what_the_page_says():
    a, b, batch, steps = (bits(name) for name in VARIANTS)
    assert max(steps) < min(b) < max(b) < min(batch) < max(batch) < min(a)
    assert fmean(b) - fmean(steps) == pytest.approx(0.01, abs=0.005)
    assert fmean(a) - fmean(b) == pytest.approx(0.21, abs=0.005)
    assert bits("B with Muon")[0] == pytest.approx(fmean(batch), abs=0.005)
    assert bits("A with Muon")[0] > max(a)
    half, twice, three = (bits(name)[0] for name in [*ONCE][2:5])
    whole = bits("B with Muon")[0]
    assert max(b) < three < half < whole < twice
    behind = [x - y for x, y in ((whole, fmean(b)), (whole, half), (whole, three))]
    assert behind == pytest.approx([0.07, 0.01, 0.03], abs=0.005)
    tied = bits("C: B with tied embedding")[0]
    assert tied < bits("A with the embedding of B")[0] < 1.66
    assert bits("C with a weight decay of 1.0, not 0.3")[0] > tied
    muon = bits("C with Muon, a batch of 8")[0]
    assert abs(tied - muon) < max(b) - min(b)
    assert (round(tied, 2), round(muon, 2)) == (1.64, 1.64)
    times = [
        r["seconds"]
        for name in ("C: B with tied embedding", "C with Muon, a batch of 8")
        for r in committed(LAB)
        if r["config"] == ONCE[name]
    ]
    assert times[1] == pytest.approx(0.8 * times[0], rel=0.05)
    (c,) = [r for r in committed(LAB) if r["bits"] == tied]
    losses = c["training_loss"], c["validation_loss"]
    assert losses == pytest.approx((3.47, 3.89), abs=0.005)
