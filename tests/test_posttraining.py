"""Post-training: every loss by a second route, and the bugs that look like learning."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minillm.config import ModelConfig
from minillm.inference.batched import sample_batch
from minillm.model import TransformerLM
from minillm.posttraining import (
    dpo_loss,
    group_advantages,
    kl_estimates,
    log_probs,
    policy_loss,
    sft_loss,
)

CONFIG = ModelConfig(4, 8, d_model=16, n_layers=2, n_heads=2)


def opinionated(seed=0):
    torch.manual_seed(seed)
    model = TransformerLM(CONFIG).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=1.5 / weight.shape[-1] ** 0.5)
    return model


def masked(batch=3, seq=5, seed=0):
    """Random ids and a mask with learned tokens in some rows and none in others."""
    random = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, seq, generator=random) < 0.5
    mask[0, 0], mask[-1] = True, False
    return torch.randint(4, (batch, seq), generator=random), mask


# Supervised fine-tuning


def test_sft_loss_is_torch_cross_entropy_with_ignored_targets():
    logits = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    targets, mask = masked()
    ours = sft_loss(logits, targets, mask)
    # torch leaves out targets of -100.
    theirs = F.cross_entropy(
        logits.flatten(0, 1), targets.masked_fill(~mask, -100).flatten()
    )
    torch.testing.assert_close(ours, theirs)
    (ours_grad,) = torch.autograd.grad(ours, logits, retain_graph=True)
    (theirs_grad,) = torch.autograd.grad(theirs, logits)
    torch.testing.assert_close(ours_grad, theirs_grad)
    assert (ours_grad[~mask] == 0).all() and (ours_grad[mask] != 0).any()


def test_a_batch_without_a_learned_token_is_refused():
    for loss in (
        lambda none: sft_loss(torch.randn(2, 3, 4), torch.zeros(2, 3).long(), none),
        lambda none: policy_loss(
            torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2), none
        ),
    ):
        with pytest.raises(ValueError, match="no token of the batch is learned"):
            loss(torch.zeros(2, 3, dtype=torch.bool))


# Log-probabilities


def test_log_probs_are_the_chain_rule_token_by_token():
    model, (ids, _) = opinionated(), masked()
    found = log_probs(model, ids)
    for b, row in enumerate(ids.tolist()):
        for t in range(1, len(row)):
            # The model reads nothing but the tokens before, and is asked for the next.
            p = torch.softmax(model(torch.tensor([row[:t]]))[0, -1], -1)
            assert math.isclose(found[b, t - 1].exp().item(), p[row[t]].item())


def test_log_probs_agree_with_the_distribution_that_was_sampled_from():
    # The bug that looks like learning: ids shifted by one against their scores. Scored
    # rightly, samples are as likely as the entropy says; shifted, far less.
    model = opinionated()
    out = sample_batch(model, [[1]], 7, n=400, random=torch.Generator().manual_seed(0))
    right = log_probs(model, out.ids)
    torch.testing.assert_close(right, out.log_probs[:, 1:])
    logits = model(out.ids[:, :-1]).log_softmax(-1)
    shifted = logits.gather(-1, out.ids[:, :-1, None])[..., 0]
    assert shifted.mean() < right.mean() - 0.1


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_log_probs_follow_the_temperature_of_the_sampling(temperature):
    # Temperature in the sampling and not in the ratio: every ratio is off from the
    # first step on.
    model = opinionated()
    out = sample_batch(model, [[1]], 7, n=50, temperature=temperature)
    new = log_probs(model, out.ids, temperature)
    torch.testing.assert_close(new, out.log_probs[:, 1:])
    wrong = (log_probs(model, out.ids) - out.log_probs[:, 1:]).exp()
    assert (wrong - 1).abs().max() > 0.1


# Advantages


rewards = arrays(float, (3, 4), elements=st.sampled_from([0.0, 0.1, 0.5, 1.0]))


@settings(deadline=None)
@given(rewards, st.booleans())
def test_advantages_are_standard_scores_of_each_row(array, scale):
    found = group_advantages(torch.from_numpy(array), scale)
    for row, scores in zip(array, found.tolist(), strict=True):
        mean = sum(row) / 4
        deviation = math.sqrt(sum((x - mean) ** 2 for x in row) / 3) if scale else 1
        if len(set(row)) == 1:
            assert scores == [0, 0, 0, 0]
        else:
            expected = [(x - mean) / deviation for x in row]
            assert scores == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_give_no_advantage_to_the_last_bit(dtype):
    # The mean of eight times 0.1 is not 0.1 in binary.
    for value in (0.0, 0.1, 0.7, 1 / 3, -1.1):
        for size in range(2, 12):
            row = torch.full((1, size), value, dtype=dtype)
            assert not group_advantages(row).any()


def test_impossible_groups_are_refused():
    with pytest.raises(ValueError, match="at least two answers; got 1"):
        group_advantages(torch.ones(3, 1))
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not a finite number"):
            group_advantages(torch.tensor([[0.0, bad]]))


# The policy gradient


def naive_policy_loss(new, old, advantages, mask, clip):
    """Token by token, as the formula stands in the paper."""
    total, count = 0.0, 0
    for b, row in enumerate(mask.tolist()):
        for t, counts in enumerate(row):
            if not counts:
                continue
            ratio = math.exp(new[b, t].item() - old[b, t].item())
            a = advantages[b].item()
            clipped = max(1 - clip, min(1 + clip, ratio))
            total += min(ratio * a, clipped * a)
            count += 1
    return -total / count


@pytest.mark.parametrize("clip", [-0.5, math.nan])
def test_a_negative_clip_is_refused(clip):
    one, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match=f"clip must be 0 or more, .*; got {clip}"):
        policy_loss(one, one, torch.ones(1), mask, clip=clip)


@pytest.mark.parametrize("clip", [0.1, 0.2, math.inf])
def test_policy_loss_is_the_formula(clip):
    _, mask = masked(6, 5)
    new, old = torch.randn(2, 6, 5, dtype=torch.float64) / 3
    advantages = torch.randn(6, dtype=torch.float64)
    ours = policy_loss(
        new, old, advantages, mask, None if math.isinf(clip) else clip
    ).item()
    assert math.isclose(ours, naive_policy_loss(new, old, advantages, mask, clip))


def test_what_is_outside_the_mask_never_counts():
    # Padding in a mean of tokens makes long answers in a batch dilute the short ones.
    _, mask = masked()
    new, old = torch.randn(2, 3, 5)
    advantages = torch.tensor([1.0, -1.0, 2.0])
    for per_sequence in (False, True):
        losses = []
        for junk in (0.0, -math.inf, math.nan, 100.0):
            lp = torch.where(mask, new, junk).requires_grad_()
            loss = policy_loss(
                lp, torch.where(mask, old, 0.0), advantages, mask, None, per_sequence
            )
            (gradient,) = torch.autograd.grad(loss, lp)
            assert (gradient[~mask] == 0).all()
            losses.append(loss.item())
        assert len(set(losses)) == 1 and math.isfinite(losses[0])
    wider = F.pad(mask, (0, 7))
    ours = policy_loss(F.pad(new, (0, 7)), F.pad(old, (0, 7)), advantages, wider)
    torch.testing.assert_close(ours, policy_loss(new, old, advantages, mask))


def test_means_over_tokens_and_over_sequences_weigh_long_answers_differently():
    mask = torch.tensor([[True, False, False], [True, True, True]])
    new, advantages = torch.zeros(2, 3), torch.tensor([1.0, -1.0])
    tokens = policy_loss(new, new, advantages, mask)
    sequences = policy_loss(new, new, advantages, mask, per_sequence=True)
    assert tokens.item() == pytest.approx((3 - 1) / 4)
    assert sequences.item() == pytest.approx(0.0)


@pytest.mark.parametrize(("advantage", "moves"), [(1.0, "up"), (-1.0, "down")])
@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.1, 1.5])
def test_clipping_stops_what_has_gone_far_and_lets_it_come_back(
    advantage, moves, ratio
):
    new = torch.tensor([[math.log(ratio)]], requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss = policy_loss(new, torch.zeros(1, 1), torch.tensor([advantage]), mask)
    (gradient,) = torch.autograd.grad(loss, new)
    far = ratio > 1.2 if moves == "up" else ratio < 0.8
    assert gradient.item() == pytest.approx(0.0 if far else -advantage * ratio)


def test_the_gradient_on_samples_is_that_of_the_mean_reward():
    """The whole chain against brute force: sample, score, differentiate.

    The mean reward over *all* answers is a finite sum, which autograd differentiates.
    REINFORCE must find the same gradient from samples alone, with every baseline.
    """
    model = opinionated()
    everything = torch.tensor([[1, a, b] for a in range(4) for b in range(4)])

    def reward(ids):
        return (ids[:, 1] == ids[:, 2]).double() + 0.3 * (ids[:, 1] == 2).double()

    p = log_probs(model, everything).sum(1).exp()
    exact = torch.autograd.grad((p * reward(everything)).sum(), model.lm_head.weight)[0]

    n = 40_000
    out = sample_batch(model, [[1]], 2, n=n, random=torch.Generator().manual_seed(0))
    mask = out.mask[:, 1:]
    for shift in (0.0, -reward(out.ids).mean()):
        new = log_probs(model, out.ids)
        loss = policy_loss(new, out.log_probs[:, 1:], reward(out.ids) + shift, mask)
        # The loss is a mean over tokens; the mean reward counts answers, of two each.
        estimate = -2 * torch.autograd.grad(loss, model.lm_head.weight)[0]
        error = (estimate - exact).norm() / exact.norm()
        assert error < 0.1
    # The ratio inverted: the same value at the first step, and uphill becomes downhill.
    new = log_probs(model, out.ids)
    inverted = policy_loss(out.log_probs[:, 1:], new, reward(out.ids), mask)
    wrong = -2 * torch.autograd.grad(inverted, model.lm_head.weight)[0]
    assert (wrong - exact).norm() / exact.norm() > 1.5


def test_the_first_loss_of_a_group_is_zero_and_its_gradient_is_not():
    model = opinionated()
    out = sample_batch(model, [[1], [2]], 3, n=8)
    advantages = group_advantages((out.ids == 3).sum(1).double().view(2, 8)).flatten()
    new = log_probs(model, out.ids)
    loss = policy_loss(new, out.log_probs[:, 1:], advantages, out.mask[:, 1:])
    assert abs(loss.item()) < 1e-12
    (gradient,) = torch.autograd.grad(loss, model.lm_head.weight)
    assert gradient.norm() > 0.01


# Preferences and divergence


def test_dpo_starts_at_ln_2_and_pushes_the_pair_apart():
    better, worse = torch.randn(2, 6, dtype=torch.float64)
    chosen, rejected = better.clone().requires_grad_(), worse.clone().requires_grad_()
    loss = dpo_loss(chosen, rejected, better, worse, beta=0.3)
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    # The derivative of $-\ln \sigma(\beta x)$ at 0 is $-\beta / 2$, shared by six.
    assert chosen.grad.tolist() == pytest.approx([-0.3 / 12] * 6)
    assert rejected.grad.tolist() == pytest.approx([0.3 / 12] * 6)


@settings(deadline=None)
@given(st.lists(st.floats(-40, 40), min_size=4, max_size=4), st.floats(0.05, 2))
def test_dpo_is_the_formula(sides, beta):
    chosen, rejected, ref_chosen, ref_rejected = sides
    ours = dpo_loss(*torch.tensor(sides, dtype=torch.float64)[:, None], beta=beta)
    x = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    assert ours.item() == pytest.approx(math.log1p(math.exp(-x)))


def test_dpo_finds_the_policy_of_the_closed_form():
    r"""Trained on all pairs, in the shares of Bradley and Terry.

    $\pi \propto \pi_\text{ref}\, e^{r / \beta}$ is known without any training.
    """
    ref = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    r, beta = torch.tensor([1.0, 0.0, -0.5], dtype=torch.float64), 0.7
    logits = ref.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12)

    def closure():
        optimizer.zero_grad()
        lp, loss = logits.log_softmax(0), 0.0
        for i in range(3):
            for j in range(3):
                one = dpo_loss(
                    lp[i, None], lp[j, None], ref[i, None], ref[j, None], beta
                )
                loss = loss + torch.sigmoid(r[i] - r[j]) * one
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = (ref + r / beta).softmax(0)
    torch.testing.assert_close(logits.detach().softmax(0), expected, rtol=1e-4, atol=0)


def test_beta_is_positive():
    with pytest.raises(ValueError, match="beta must be positive; got 0"):
        dpo_loss(*torch.zeros(4, 2), beta=0)


def test_both_estimates_have_the_divergence_as_their_mean():
    model, reference = opinionated(0), opinionated(1)
    everything = torch.tensor([[1, a, b] for a in range(4) for b in range(4)])
    lp, ref = (log_probs(m, everything).sum(1) for m in (model, reference))
    exact = F.kl_div(ref, lp, log_target=True, reduction="sum")
    k1, k3 = kl_estimates(lp, ref)
    for k in (k1, k3):
        torch.testing.assert_close((lp.exp() * k).sum(), exact)
    assert (k3 >= 0).all() and (k1 < 0).any()


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_nobody_sampled_with(temperature):
    with pytest.raises(ValueError, match="positive and finite"):
        log_probs(opinionated(), torch.tensor([[1, 2, 3]]), temperature)
