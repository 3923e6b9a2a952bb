"""Sampling side by side: the same distribution as sampling one by one."""

import itertools

import pytest
import torch

from minillm.config import ModelConfig
from minillm.generate import generate
from minillm.inference.batched import sample_batch
from minillm.model import TransformerLM

CONFIG = ModelConfig(5, 8, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2)
STOP = 0


def opinionated(config=CONFIG, seed=0):
    """A model in float64 that is far from giving every token the same probability."""
    torch.manual_seed(seed)
    model = TransformerLM(config).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=1.5 / weight.shape[-1] ** 0.5)
    return model


@torch.no_grad()
def exact(model, prompt, length, temperature=1.0):
    """The probability of every possible continuation, by brute force.

    Without any cache, one sequence at a time; ends with STOP or at the length.
    """
    found, open_ = {}, {(): 1.0}
    for _ in range(length):
        grown = {}
        for ids, p in open_.items():
            logits = model(torch.tensor([[*prompt, *ids]]))[0, -1] / temperature
            for i, q in enumerate(torch.softmax(logits, -1).tolist()):
                (found if i == STOP else grown)[*ids, i] = p * q
        open_ = grown
    return found | open_


def chi_square(counts, probabilities, n):
    """How far counts are from what they should be, and how far they may be.

    Outcomes that are expected fewer than five times are counted together, as the
    approximation wants it. The limit is the mean and six deviations of the chi-square
    distribution: one seed in a million would pass it by chance.
    """
    cells, rest = [], [0.0, 0.0]
    for outcome, p in probabilities.items():
        cell = [counts.get(outcome, 0), n * p]
        if cell[1] < 5:
            rest = [rest[0] + cell[0], rest[1] + cell[1]]
        else:
            cells.append(cell)
    if rest[1] >= 5:
        cells.append(rest)
    k = len(cells) - 1
    distance = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    return distance, k + 6 * (2 * k) ** 0.5


def count(sequences):
    counts = {}
    for ids in sequences:
        counts[tuple(ids)] = counts.get(tuple(ids), 0) + 1
    return counts


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_each_prompt_is_continued_with_its_own_exact_distribution(temperature):
    model, prompts, n = opinionated(), [[1], [2, 3, 4], [4, 1]], 4000
    out = sample_batch(
        model,
        prompts,
        3,
        n=n,
        temperature=temperature,
        stop_ids=[STOP],
        random=torch.Generator().manual_seed(0),
    )
    new = out.new_ids()
    for i, prompt in enumerate(prompts):
        counts = count(new[i * n : (i + 1) * n])
        probabilities = exact(model, prompt, 3, temperature)
        assert counts.keys() <= probabilities.keys()
        distance, limit = chi_square(counts, probabilities, n)
        assert distance < limit
        # The test tells: another prompt's distribution is far off.
        other = exact(model, prompts[i - 1], 3, temperature)
        distance, limit = chi_square(counts, other, n)
        assert distance > limit


def test_generate_has_the_same_distribution():
    model, n = opinionated(), 800
    # `generate` leaves the stop id out; where the text is short, it was there.
    written = [
        generate(model, [2, 3], 2, seed=seed, stop_ids=[STOP]) for seed in range(n)
    ]
    ended = [[*ids, STOP] if len(ids) < 2 else ids for ids in written]
    distance, limit = chi_square(count(ended), exact(model, [2, 3], 2), n)
    assert distance < limit


@pytest.mark.parametrize("n", [1, 3])
def test_greedy_is_what_generate_writes(n):
    model = opinionated()
    prompts = [[1, 2], [3], [4, 4, 4, 2], [2]]
    out = sample_batch(model, prompts, 4, n=n, temperature=0, stop_ids=[STOP])
    for i, ids in enumerate(out.new_ids()):
        whole = generate(model, prompts[i // n], 4, temperature=0, stop_ids=[STOP])
        assert [token for token in ids if token != STOP] == whole
    assert (out.log_probs == 0).all()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_the_model_reading_the_whole(temperature):
    model = opinionated()
    out = sample_batch(
        model, [[1], [2, 3, 4]], 4, n=50, temperature=temperature, stop_ids=[STOP]
    )
    with torch.no_grad():
        logits = model(out.ids[:, :-1]) / temperature
    log_p = logits.log_softmax(-1).gather(-1, out.ids[:, 1:, None])[..., 0]
    mask = out.mask[:, 1:]
    torch.testing.assert_close(out.log_probs[:, 1:][mask], log_p[mask])
    assert (out.log_probs[~out.mask] == 0).all()


def test_the_mask_covers_what_was_sampled_and_nothing_else():
    prompts = [[1], [2, 3, 4]]
    out = sample_batch(opinionated(), prompts, 4, n=200, stop_ids=[STOP])
    for row, mask, prompt in zip(
        out.ids.tolist(),
        out.mask.tolist(),
        itertools.chain.from_iterable([p] * 200 for p in prompts),
        strict=True,
    ):
        assert row[: len(prompt)] == prompt
        new = [i for i, sampled in zip(row, mask, strict=True) if sampled]
        # In one run, right after the prompt, up to the first stop or the limit.
        assert mask.index(True) == len(prompt)
        assert row[len(prompt) : len(prompt) + len(new)] == new
        assert STOP not in new[:-1] and (new[-1] == STOP or len(new) == 4)
        assert set(row[len(prompt) + len(new) :]) <= {STOP}


def test_it_stops_when_all_have_stopped():
    model = opinionated()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[STOP] = 0
    # All tokens are equally likely now, and each of them stops.
    out = sample_batch(model, [[1, 2], [3, 4]], 6, stop_ids=range(5))
    assert out.ids.shape == (2, 3) and out.mask.sum() == 2


def test_the_same_seed_gives_the_same_samples():
    model = opinionated()
    one, two, other = (
        sample_batch(model, [[1]], 6, n=9, random=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.ids, two.ids) and not torch.equal(one.ids, other.ids)


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([], {}, "there is no prompt: give at least one"),
        ([[1], []], {}, "the prompt is empty: give at least one id"),
        ([[1, 5]], {}, "the ids 0 to 4; got 5"),
        ([[1]], {"stop_ids": [-1]}, "the ids 0 to 4; got -1"),
        ([[1]], {"n": 0}, "n must be at least 1"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ([[1]], {"temperature": -1}, "temperature must be 0 or more"),
        ([[1]], {"temperature": float("nan")}, "temperature must be 0 or more"),
        ([[1], [1, 2, 3]], {"max_new_tokens": 6}, "3 [+] 6 tokens do not fit"),
    ],
)
def test_what_cannot_be_sampled_is_refused(prompts, settings, message):
    settings = {"max_new_tokens": 2} | settings
    with pytest.raises(ValueError, match=message):
        sample_batch(opinionated(), prompts, **settings)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_damaged_weights_give_no_samples(temperature):
    model = opinionated()
    model.final_norm.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="scores are not numbers"):
        sample_batch(model, [[1, 2]], 4, temperature=temperature)


def test_a_tiny_temperature_is_nearly_greedy():
    model = opinionated().float()
    greedy = sample_batch(model, [[1, 2]], 5, temperature=0)
    found = sample_batch(model, [[1, 2]], 5, temperature=1e-42)
    assert found.new_ids() == greedy.new_ids()
    assert found.log_probs.isfinite().all()
