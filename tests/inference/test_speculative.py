"""Guess and check: the distribution is the model's, whatever the draft."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.config import ModelConfig
from minillm.generate import generate
from minillm.inference.decoder import Decoder
from minillm.inference.speculative import (
    LookUp,
    Statistics,
    Trigram,
    speculate,
    speed_up,
    verify,
)
from minillm.model import TransformerLM
from minillm.training.baselines import KneserNey

CONFIG = ModelConfig(5, 24, d_model=16, n_layers=1, n_heads=2)


def opinionated() -> TransformerLM:
    torch.manual_seed(0)
    model = TransformerLM(CONFIG).double().eval().requires_grad_(False)
    for weight in model.parameters():
        weight.normal_(std=1.0 / weight.shape[-1] ** 0.5)
    return model


class Scripted(np.random.Generator):
    """A random number generator whose every outcome can be enumerated.

    Each call consumes one cell of a grid over [0, 1), at its middle.
    """

    def __init__(self, cells):
        super().__init__(np.random.PCG64())
        self.cells = iter(cells)

    def random(self):
        return next(self.cells)


distributions = st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any)


@settings(deadline=None, max_examples=25)
@given(distributions, distributions)
def test_the_first_token_has_exactly_the_probability_of_the_model(p_counts, q_counts):
    # All probabilities are multiples of one cell, so that the middle of each cell
    # stands for the whole of it: an enumeration, not a sample.
    p, q = (np.array(c) / sum(c) for c in (p_counts, q_counts))
    total = np.zeros(3)
    for draft in range(3):
        if not q[draft]:
            continue
        # Cells that both the acceptance and the residual respect.
        accept = min(1.0, p[draft] / q[draft])
        residual = np.maximum(p - q, 0)
        edges = [0.0, *np.cumsum(residual) / max(residual.sum(), 1e-300), 1.0]
        for low, high, kept in ((0.0, accept, True), (accept, 1.0, False)):
            if high - low < 1e-12:
                continue
            for a, b in itertools.pairwise(edges):
                if b - a < 1e-12:
                    continue
                random = Scripted([(low + high) / 2, (a + b) / 2])
                new = verify([draft], q[None], np.stack([p, p]), random)
                total[new[0]] += q[draft] * (high - low) * (b - a)
                assert (len(new) == 2) is kept
    np.testing.assert_allclose(total, p, atol=1e-9)


def chi_square(counts, expected):
    """How far counts are from what was expected, and a bound that chance seldom passes.

    Of 1 in 10,000 samples the statistic is above it (Wilson & Hilferty 1931).
    """
    seen = expected > 0
    assert not counts[~seen].any()
    statistic = ((counts - expected)[seen] ** 2 / expected[seen]).sum()
    n = int(seen.sum()) - 1
    return statistic, n * (1 - 2 / (9 * n) + 3.72 * math.sqrt(2 / (9 * n))) ** 3


def exact_pairs(model, prompt, temperature):
    """The probability of each two tokens after a prompt, from the model itself."""

    def after(ids):
        logits = model(torch.tensor([ids]))[0, -1] / temperature
        return torch.softmax(logits, -1).numpy()

    first = after(prompt)
    return np.stack([first[i] * after([*prompt, i]) for i in range(5)])


@pytest.mark.parametrize(("which", "temperature"), [("trigram", 1.0), ("look-up", 0.6)])
def test_samples_come_from_the_model(which, temperature):
    model, prompt = opinionated(), [1, 2, 3, 1, 2]
    counts = KneserNey([0, 1, 2, 3, 4, 1, 2, 3, 1, 2, 4] * 3, vocab_size=5)
    draft = Trigram(counts) if which == "trigram" else LookUp(5)
    n, seen, decoder = 300, np.zeros((5, 5)), Decoder(model)
    for seed in range(n):
        text = speculate(
            *(model, prompt, draft),
            k=2,
            temperature=temperature,
            seed=seed,
            decoder=decoder,
        )
        seen[next(text), next(text)] += 1
    expected = n * exact_pairs(model, prompt, temperature)
    # Rare pairs together, so that each cell is large enough for the statistic.
    rare = expected < 5
    counts_ = np.append(seen[~rare], seen[rare].sum())
    expected_ = np.append(expected[~rare], expected[rare].sum())
    statistic, bound = chi_square(counts_, expected_)
    assert statistic < bound


def test_the_wrong_ratio_would_be_noticed():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.7, 0.2])
    random, n, counts = np.random.default_rng(0), 3000, np.zeros(3)
    for _ in range(n):
        token = int(random.choice(3, p=q))
        kept = random.random() < min(1.0, q[token] / p[token])  # upside down
        short = np.maximum(p - q, 0)
        counts[token if kept else random.choice(3, p=short / short.sum())] += 1
    statistic, bound = chi_square(counts, n * p)
    assert statistic > bound


@pytest.mark.parametrize("k", [1, 3, 8])
def test_greedy_text_is_that_of_the_model(k):
    model, prompt = opinionated(), [1, 2, 3]
    expected = generate(model, prompt, 21, temperature=0)
    counts = KneserNey([*prompt, *expected], vocab_size=5)
    for draft in (Trigram(counts, greedy=True), LookUp(5)):
        seen = Statistics()
        found = list(
            speculate(model, prompt, draft, k=k, temperature=0, statistics=seen)
        )
        assert found == expected  # up to the end of the context, and not beyond
        assert seen.accepted <= seen.drafted
        assert seen.passes == len(found) - seen.accepted
    assert seen.accepted > 0


def test_look_up_copies_what_followed_the_longest_end():
    random = np.random.default_rng(0)
    # Behind (2, 3) comes 4 the first time and 0 the last; behind (1, 2, 3) only 4.
    ids = [1, 2, 3, 4, 2, 3, 0, 1, 2, 3]
    assert LookUp(5).propose(ids, 3, random)[0] == [4, 2, 3]
    assert LookUp(5, longest=2).propose(ids, 3, random)[0] == [0, 1, 2]
    found, q = LookUp(5).propose([1], 3, random)
    assert found == []
    assert q.shape == (0, 5)


def test_the_formula_is_the_mean_of_what_a_pass_yields():
    alpha, k = 0.7, 3
    # i tokens and then a refusal, or all of them; and one more in any case.
    mean = sum((i + 1) * alpha**i * (1 - alpha) for i in range(k)) + (k + 1) * alpha**k
    assert speed_up(alpha, k, 0.0) == pytest.approx(mean)


@pytest.mark.parametrize(
    "numbers",
    [(2, 4, 0.1), (-0.1, 4, 0.1), (0.5, -1, 0.1), (0.5, 4, -1.0), (math.nan, 4, 0)],
)
def test_no_speed_up_of_what_cannot_be(numbers):
    with pytest.raises(ValueError, match=r"alpha must lie in .* write 80 % as 0.8"):
        speed_up(*numbers)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"ids": []}, "the prompt is empty: give at least one id"),
        ({"ids": [1] * 25}, "at most 24 tokens; the prompt has 25: shorten it"),
        ({"ids": [1, 5]}, "knows the ids 0 to 4; got 5"),
        ({"ids": [-1]}, "knows the ids 0 to 4; got -1"),
        ({"k": 0}, "k must be at least 1; got 0"),
        ({"temperature": -1.0}, r"must be 0 or more, and finite; got -1\.0"),
        ({"temperature": math.nan}, "must be 0 or more, and finite; got nan"),
        ({"temperature": math.inf}, "must be 0 or more, and finite; got inf"),
        ({"decoder": Decoder(opinionated())}, "the decoder is of another model"),
    ],
)
def test_what_generate_refuses_is_refused_at_once(chosen, message):
    arguments = {"ids": [1, 2], "draft": LookUp(5), **chosen}
    with pytest.raises(ValueError, match=message):
        speculate(opinionated(), **arguments)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_damaged_weights_give_no_text(temperature):
    model = opinionated()
    model.final_norm.weight[0] = math.nan
    text = speculate(model, [1, 2], LookUp(5), temperature=temperature)
    with pytest.raises(ValueError, match="scores are not numbers"):
        next(text)


def test_a_tiny_temperature_is_nearly_greedy():
    model = opinionated()
    greedy = list(speculate(model, [1, 2], LookUp(5), temperature=0))
    for t in (1e-3, 1e-320):
        assert list(speculate(model, [1, 2], LookUp(5), temperature=t)) == greedy


def test_a_draft_of_another_vocabulary_is_refused():
    text = speculate(opinionated(), [1, 2, 1, 2], LookUp(6))
    with pytest.raises(ValueError, match="guesses among 6 ids, and the model knows 5"):
        next(text)
