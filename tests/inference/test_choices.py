"""The likelihood of choices: by the chain rule, and at the border of tokens."""

import itertools

import numpy as np
import pytest
import torch

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.evaluation import Choices, choice_log_likelihoods, score_choices
from minillm.model import TransformerLM

TEXT = "the cat sat on the mat and the rat ate the hat " * 20


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train([TEXT], 300)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    config = ModelConfig(tokenizer.vocab_size, 32, d_model=16, n_layers=2, n_heads=2)
    return TransformerLM(config).double()


def by_hand(model, ids, start):
    """Token by token, each from a reading of what is before it alone."""
    total = 0.0
    for t in range(start, len(ids)):
        p = torch.softmax(model(torch.tensor([ids[:t]]))[0, -1], -1)
        total += p[ids[t]].log().item()
    return total


def test_each_choice_is_scored_by_the_chain_rule(model, tokenizer):
    choices = [" cat", " rat ate the hat", " zebra"]
    found = score_choices(model, tokenizer, "the", choices)
    prompt = tokenizer.encode("the")
    for choice, score, n, size in zip(
        choices, found.log_likelihoods, found.n_tokens, found.n_bytes, strict=True
    ):
        ids = tokenizer.encode("the" + choice)
        assert score == pytest.approx(by_hand(model, ids, len(prompt)))
        assert (n, size) == (len(ids) - len(prompt), len(choice))
    assert (
        choice_log_likelihoods(model, tokenizer, "the", choices)
        == found.log_likelihoods
    ).all()


def test_all_choices_of_two_tokens_have_a_sum_of_one():
    tokenizer = BPETokenizer({i: bytes([i]) for i in range(256)}, [])
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(256, 8, 8, 1, 2)).double()
    with torch.no_grad():  # only these three bytes are possible
        logits = torch.full((256,), -1e9)
        logits[[97, 98, 99]] = 0
        forward = model.forward
        model.forward = lambda *args: forward(*args) + logits
    choices = ["".join(pair) for pair in itertools.product("abc", repeat=2)]
    p = np.exp(choice_log_likelihoods(model, tokenizer, "x", choices))
    assert p.sum() == pytest.approx(1)


def test_a_token_that_crosses_the_border_is_not_cut(model, tokenizer):
    # " the" is one token, so "… t" and "he" is not what the model has read in training.
    prompt, choice = "the cat sat on t", "he mat"
    whole = tokenizer.encode(prompt + choice)
    apart = tokenizer.encode(prompt) + tokenizer.encode(choice)
    assert whole != apart
    shared = next(
        i for i, (a, b) in enumerate(zip(whole, apart, strict=False)) if a != b
    )
    found = score_choices(model, tokenizer, prompt, [choice])
    assert found.log_likelihoods[0] == pytest.approx(by_hand(model, whole, shared))
    # Beside it, a choice that crosses nothing is scored from the same token on.
    both = score_choices(model, tokenizer, prompt, [choice, " zzz"])
    assert both.log_likelihoods[0] == found.log_likelihoods[0]
    ids = tokenizer.encode(prompt + " zzz")
    assert both.log_likelihoods[1] == pytest.approx(by_hand(model, ids, shared))


def test_a_choice_is_scored_alike_alone_and_in_company(model, tokenizer):
    choices = [" mat", " hat", " on the mat and the rat"]
    together = choice_log_likelihoods(model, tokenizer, "the", choices)
    for i, choice in enumerate(choices):
        alone = choice_log_likelihoods(model, tokenizer, "the", [choice])
        assert alone[0] == together[i]


def test_priors_are_those_of_the_neutral_prompt(model, tokenizer):
    choices = [" cat", " hat"]
    found = score_choices(model, tokenizer, "the rat ate the", choices, "on")
    expected = choice_log_likelihoods(model, tokenizer, "on", choices)
    assert (found.priors == expected).all()
    gains = found.log_likelihoods - expected
    assert found.best("prior") == gains.argmax()


def test_four_counts_four_winners():
    scores = Choices(
        np.array([-6.0, -7.0, -8.0, -9.0]),
        np.array([1, 2, 1, 1]),
        np.array([4, 5, 9, 2]),
        np.array([-5.0, -6.5, -7.0, -12.0]),
    )
    assert [scores.best(by) for by in ("total", "token", "byte", "prior")] == [
        *(0, 1, 2, 3)
    ]
    with pytest.raises(ValueError, match="there are no priors"):
        scores._replace(priors=None).best("prior")


def test_damaged_weights_choose_nothing():
    scores = Choices(np.array([np.nan, -1.0]), np.array([1, 1]), np.array([1, 1]))
    for by in ("total", "token", "byte"):
        with pytest.raises(ValueError, match=f"a score by {by} is not a number"):
            scores.best(by)
    # An impossible choice is one, and loses.
    impossible = scores._replace(log_likelihoods=np.array([-np.inf, -1.0]))
    assert impossible.best() == 1


@pytest.mark.parametrize(
    ("prompt", "choices", "message"),
    [
        ("the", [], "at least one choice"),
        ("the", [" cat", ""], "none of them ''"),
        ("", [" cat"], "a prompt and at least one choice"),
        (" t", ["he"], "no token of the prompt"),
        ("the", [" cat" * 40], "the model reads at most 32 tokens"),
    ],
)
def test_what_cannot_be_scored_is_refused(model, tokenizer, prompt, choices, message):
    with pytest.raises(ValueError, match=message):
        score_choices(model, tokenizer, prompt, choices)


def test_the_tokenizer_of_another_model_is_named(tokenizer):
    config = ModelConfig(50, 32, d_model=16, n_layers=1, n_heads=2)
    with pytest.raises(ValueError, match=r"the ids 0 to 49; got .*own tokenizer"):
        score_choices(TransformerLM(config), tokenizer, "the", [" cat"])
