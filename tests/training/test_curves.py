"""Bad loss curves: the mistakes are the mistakes, and the committed runs show them."""

import math

import numpy as np
import pytest
import torch

from minillm.bpe import ByteTokenizer
from minillm.files.reading import IMAGES, read_json
from minillm.training.baselines import KneserNey, unigram_loss
from minillm.training.curves import committed
from minillm.training.mistakes import (
    BATCH,
    CASES,
    SHAPE,
    STEPS,
    UNSEEN,
    Case,
    batch,
    record,
    texts,
)

T = SHAPE.context_length


def ends(name, part):
    return [run[part][-1][1] for run in committed()[name]]


def test_the_committed_runs_are_of_these_cases():
    assert list(committed()) == list(CASES)
    for runs in committed().values():
        assert len(runs) == 3
        for run in runs:
            steps = [step for step, _ in run["validation"]]
            assert steps == list(range(10, STEPS + 1, 10))
            assert len(run["training"]) == STEPS // 5
            assert all(0 <= bits < 20 for part in run.values() for _, bits in part)


def test_texts():
    tales, unseen = texts("tales")
    assert len(unseen) == UNSEEN and len(tales) > 1_500_000
    ByteTokenizer().decode(unseen.tolist(), errors="strict")
    few, _ = texts("few")
    assert np.array_equal(few, tales[: len(few)])
    leaky, same = texts("leaky")
    assert same.tobytes() in leaky.tobytes()
    assert unseen.tobytes() not in tales.tobytes()
    two, _ = texts("two")
    half = len(two) // 2
    assert np.array_equal(two[:half], tales[:half])
    assert set(bytes(two[half:])) == set(b"0123456789 |")
    # A pass over it takes as many steps as the page says.
    assert len(two) / (BATCH * T) == 48


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_targets_are_so_far_ahead(shift):
    text = np.arange(1000) % 256
    sampler = torch.Generator().manual_seed(0)
    inputs, targets = batch(text, Case(shift=shift), 1, sampler)
    assert inputs.shape == (BATCH, T)
    assert torch.equal((inputs + shift) % 256, targets)


def test_in_order_is_in_order_and_begins_again():
    text = np.arange(2000) % 251
    case, sampler = Case(in_order=True), torch.Generator()
    first, second = (batch(text, case, step, sampler)[0] for step in (1, 2))
    read = torch.cat([first.flatten(), second.flatten()]).numpy()
    assert np.array_equal(read, text[: 2 * BATCH * T])
    later = batch(text, case, 1 + (2000 // (BATCH * T)) * 5, sampler)[0]
    assert later.shape == first.shape


def test_the_same_seed_gives_the_same_curve_and_another_another():
    short = [record(Case(), seed, steps=20) for seed in (0, 0, 1)]
    assert short[0] == short[1] != short[2]


@pytest.mark.parametrize("name", ["sound", "unshifted", "rate"])
def test_the_beginning_is_of_today(name):
    today = record(CASES[name], 0, steps=20)["training"]
    for at, (_, bits) in enumerate(today):
        assert bits == pytest.approx(committed()[name][0]["training"][at][1], rel=0.02)


def test_the_baselines_are_of_today():
    tales, unseen = texts("tales")
    said = read_json(IMAGES / "data" / "curves.json")["baselines"]
    assert said["unigram"] == round(unigram_loss(tales, unseen, 256) / math.log(2), 3)
    part = KneserNey(tales[:100_000], 256, order=2).loss(unseen) / math.log(2)
    assert said["bigram"] == pytest.approx(part, abs=0.1)


# What the page says, for every seed


def test_the_sound_run_falls_below_the_unigram_baseline_with_no_gap():
    said = read_json(IMAGES / "data" / "curves.json")["baselines"]
    for run in committed()["sound"]:
        validation = [bits for _, bits in run["validation"]]
        assert run["training"][0][1] == pytest.approx(8, abs=0.6)
        assert said["bigram"] < validation[-1] < said["unigram"] - 0.7
        assert validation == sorted(validation, reverse=True)
        assert abs(run["training"][-1][1] - validation[-1]) < 0.2


def test_targets_that_are_the_inputs_are_copied():
    assert max(ends("unshifted", "training") + ends("unshifted", "validation")) < 0.1


def test_a_rate_that_is_too_high_stays_near_the_unigram_baseline():
    assert min(ends("rate", "validation")) > max(ends("sound", "validation")) + 0.3
    assert CASES["rate"].max_lr / CASES["sound"].max_lr == pytest.approx(12.5)


def test_overfitting_turns_and_a_leak_hides_it():
    for run in committed()["overfitting"]:
        validation = [bits for _, bits in run["validation"]]
        assert validation[-1] > min(validation) + 0.05
        assert run["training"][-1][1] < validation[-1] - 1
    for run, sound in zip(
        committed()["leak"], ends("sound", "validation"), strict=True
    ):
        assert abs(run["training"][-1][1] - run["validation"][-1][1]) < 0.15
        assert run["validation"][-1][1] < sound
    read = STEPS * BATCH * T
    assert read // len(texts("few")[0]) == 46 and read // len(texts("leaky")[0]) == 15


def test_a_text_read_in_order_has_its_period_and_shuffling_ends_it():
    for name, jumps in (("in order", True), ("shuffled", False)):
        for run in committed()[name]:
            late = [bits for step, bits in run["validation"] if step >= 40]
            assert (max(late) > min(late) + 1) == jumps
    for run in committed()["in order"]:
        tales = [bits for step, bits in run["validation"] if step in {20, 70}]
        numbers = [bits for step, bits in run["validation"] if step in {40, 90}]
        assert max(tales) < min(numbers)


def test_targets_that_are_shifted_twice_end_below_the_unigram_and_far_from_the_bigram():
    said = read_json(IMAGES / "data" / "curves.json")["baselines"]
    for bits in ends("shifted twice", "validation"):
        assert said["unigram"] - bits < bits - said["bigram"]
        assert bits < said["unigram"]


def test_a_warm_up_helps_two_seeds_of_three():
    pairs = zip(
        ends("no warm-up", "validation"), ends("warm-up", "validation"), strict=True
    )
    gains = sorted(round(without - with_, 2) for without, with_ in pairs)
    assert gains[0] <= 0 and gains[1:] == [0.16, 0.28]
