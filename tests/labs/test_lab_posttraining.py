"""The lab of post-training: its verifiers, its methods, and what is committed."""

import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.evaluation import pass_at_k
from minillm.flops import forward_flops, training_flops
from minillm.labs import judges, learners
from minillm.labs.answers import (
    END,
    TASKS,
    decode,
    draw_problems,
    encode,
    held_out,
    pack,
    reward,
)
from minillm.labs.bench import committed, run_lab
from minillm.labs.judges import Judge
from minillm.labs.learners import (
    METHODS,
    Learner,
    fine_tuned,
    learned_judge,
    shape,
)
from minillm.labs.posttraining import BASE, LAB, VARIANTS, compute, rates, runs
from minillm.model import TransformerLM
from minillm.posttraining import group_advantages, log_probs, policy_loss

TINY = BASE | {
    "rounds": 2,
    "prompts": 8,
    "samples": 4,
    "sft_steps": 60,
    "k": 4,
}


# Tasks and verifiers


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("task", TASKS)
def test_what_is_demonstrated_is_right_and_fits(task):
    for problem in draw_problems(task, 300, chance()):
        answer = TASKS[task].solve(problem, chance())
        assert TASKS[task].right(problem, answer), (problem, answer)
        assert len(problem) <= TASKS[task].prompt
        assert len(answer) <= TASKS[task].answer
        assert decode(encode(problem + answer)) == problem + answer


@pytest.mark.parametrize("task", TASKS)
def test_no_training_sees_what_is_held_out(task):
    assert len(set(held_out(task))) == TASKS[task].held_out
    assert set(draw_problems(task, 3000, chance())).isdisjoint(held_out(task))


def test_split_accepts_every_right_answer_and_no_other():
    problem = "10-12:"  # digits 3 to 9 that add up to 10, in any order
    right = {
        "".join(digits) + "."
        for n in (1, 2, 3)
        for digits in itertools.product("3456789", repeat=n)
        if sum(map(int, digits)) == 10
    }
    for n in (1, 2, 3):
        for digits in itertools.product("0123456789", repeat=n):
            answer = "".join(digits) + "."
            assert TASKS["split"].right(problem, answer) == (answer in right)
    for answer in (".", "", "73", "7.3.", "-73.", "73:"):
        assert not TASKS["split"].right(problem, answer)


def test_parity_accepts_every_right_answer_and_no_other():
    answers = {"".join(p) + "." for p in itertools.permutations("593214")}
    right = {a for a in answers if TASKS["parity"].right("593214:", a)}
    assert right == {a for a in answers if set(a[:2]) == {"2", "4"}}
    assert len(right) == 2 * 24
    for answer in ("24.", "243955.", "2439511.", "24395-.", "."):
        assert not TASKS["parity"].right("593214:", answer)


def test_the_table_is_fixed_and_has_no_rule():
    problems = [f"{n:03d}:" for n in range(1000)]
    answers = [TASKS["table"].solve(p, chance()) for p in problems]
    assert answers == [TASKS["table"].solve(p, chance(1)) for p in problems]
    counts = [answers.count(f"{digit}.") for digit in range(10)]
    assert sum(counts) == 1000 and min(counts) > 70
    # The answer to a number does not tell that of the next.
    assert 70 < sum(a == b for a, b in itertools.pairwise(answers)) < 130


@given(st.text("0123456789:-.", max_size=9))
@settings(max_examples=300)
def test_no_text_breaks_a_verifier(answer):
    problems = {
        "sort": "593214:",
        "split": "31-47:",
        "parity": "593214:",
        "table": "593:",
    }
    for task, problem in problems.items():
        assert TASKS[task].right(problem, answer) in {True, False}
    exact = reward("exact", "sort", "593214:", answer)
    in_order = reward("in order", "sort", "593214:", answer)
    position = reward("each position", "sort", "593214:", answer)
    assert exact <= in_order and exact == (position == 1 and len(answer) == 7)
    assert 0 <= position <= 1


def test_an_answer_that_does_not_end_is_wrong():
    # The bug that looks like learning: a checker that cuts at the right length.
    assert not TASKS["sort"].right("593214:", "123459")
    assert not TASKS["split"].right("10-12:", "73")
    assert not TASKS["parity"].right("593214:", "243951")
    assert reward("in order", "sort", "593214:", "7") == 0


def test_an_unknown_reward_is_refused():
    with pytest.raises(ValueError, match="no reward 'length'"):
        reward("length", "sort", "593214:", "123459.")


# Packing


@pytest.mark.parametrize("learn", ["answer", "all", "unended"])
def test_the_mask_is_on_the_tokens_that_are_learned(learn):
    pairs = [("31-47:", "9859."), ("10-12:", "73.")]
    ids, mask = pack("split", pairs, learn)
    for row, learned, (problem, answer) in zip(ids, mask, pairs, strict=True):
        text = decode(row[learned].tolist())
        expected = {
            "answer": answer,
            "all": problem + answer,
            "unended": answer.removesuffix("."),
        }
        assert text == expected[learn]
        assert decode(row.tolist()).startswith(problem + answer)
        assert set(row[len(problem) + len(answer) :].tolist()) <= {END}


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="learn is one of answer, all, unended"):
        pack("split", [("10-12:", "73.")], "prompt")


# Counting


def test_compute_is_the_sum_of_its_steps():
    config = BASE | {"rounds": 3, "prompts": 5, "samples": 4, "updates": 2}
    model = shape("sort")
    cost = compute(config)
    step = forward_flops(model, 5, 7).total
    for past in range(7, 13):  # the last token of 14 is written and never read
        step += forward_flops(model, 20, 1, past=past).total
    assert cost.sampling == 3 * step
    assert cost.training == 3 * 2 * training_flops(model, 20, 13)
    assert cost.demonstrations == 150 * training_flops(model, 64, 13)
    with_kl = compute(config | {"kl": 0.1})
    assert with_kl.training - cost.training == 6 * forward_flops(model, 20, 13).total
    assert LAB.flops(config) == sum(cost)
    learned = compute(config | {"reward": "learned", "judged": 512})
    pairs = forward_flops(model, judges.JUDGED, 7).total
    for past in range(7, 13):
        pairs += forward_flops(model, 4 * judges.JUDGED, 1, past=past).total
    assert learned.sampling - cost.sampling == pairs
    judge = judges.STEPS * training_flops(model, 2 * judges.BATCH, 14)
    judge += 3 * forward_flops(model, 20, 14).total  # the scoring of three rounds
    assert learned.training - cost.training == judge


def test_what_is_compared_at_equal_compute_costs_the_same():
    cost = compute(VARIANTS["policy, sort"])
    for name in ("own, one round", "own, eight rounds", "each position"):
        assert compute(VARIANTS[name]) == cost
    # Equally many steps, so equal training; what is saved is the sampling.
    stale = [compute(VARIANTS[f"{n} updates"]) for n in ("four", "sixteen")]
    fresh = compute(VARIANTS["policy, sort, 400 rounds"])
    assert {c.training for c in stale} == {fresh.training}
    assert [fresh.sampling / c.sampling for c in stale] == [4, 16]
    assert sum(compute(VARIANTS["pairs"])) < sum(cost)


# Methods


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"baseline": "none", "shift": 1.0},
        {"baseline": "batch", "kl": 0.1, "clip": None},
        {"mean": "sequences", "updates": 2},
        {"temperature": 0.5, "scored_at": 0.5},
        {"method": "own"},
        {"method": "pairs"},
        {"task": "split"},
        {"reward": "learned", "judged": 8},
        {"rounds": 0, "learn": "unended"},
    ],
)
def test_every_method_runs_and_repeats_itself(changes, tmp_path, few_pairs):
    points = [(TINY | changes | {"sft_steps": 150, "prompts": 32}, 1)]
    one, two = (run_lab(LAB, points, tmp_path / name)[0] for name in ("a", "b"))
    for key in ("before", "after", "curve", "counts", "texts"):
        assert one[key] == two[key]
    assert one["flops"] == sum(compute(points[0][0]))
    trained = bool(points[0][0]["rounds"])
    assert (one["counts"][0] != one["counts"][1]) == trained
    assert LAB.report([one]).splitlines()[0].startswith("run")


def test_leaving_out_what_has_no_gradient_changes_no_gradient(monkeypatch):
    """The step of the lab, beside the loss over all samples, on the same samples."""
    config = TINY | {"rounds": 1, "prompts": 64, "sft_steps": 150}
    for mean in ("tokens", "sequences"):
        gradients = []
        learner = fine_tuned(config | {"mean": mean}, 0)
        reference = fine_tuned(config, 0).model

        def note(self, loss, *rest, gradients=gradients):
            self.model.zero_grad()
            loss.backward()
            gradients.append([w.grad.clone() for w in self.weights])

        monkeypatch.setattr(Learner, "step", note)
        METHODS["policy"](learner, reference)

        learner = fine_tuned(config, 0)
        problems = draw_problems("sort", 64, learner.chance)
        samples, answers = learner.sample(problems)
        rewards = torch.tensor([
            [float(TASKS["sort"].right(p, a)) for a in row]
            for p, row in zip(problems, answers, strict=True)
        ])
        flat = (rewards == rewards[:, :1]).all(1)
        assert flat.any() and not flat.all()
        note(
            learner,
            policy_loss(
                log_probs(learner.model, samples.ids),
                samples.log_probs[:, 1:],
                group_advantages(rewards).flatten(),
                samples.mask[:, 1:],
                per_sequence=mean == "sequences",
            ),
            gradients=gradients,
        )
        for ours, whole in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-6)


def test_all_groups_equal_for_long_is_a_warning_with_the_reason():
    config = TINY | {"sft_steps": 1, "rounds": learners.SILENT, "prompts": 2}
    learner = fine_tuned(config, 0)
    before = [w.clone() for w in learner.weights]
    with pytest.warns(UserWarning, match="in 20 rounds all answers .* equal rewards"):
        METHODS["policy"](learner, fine_tuned(config, 0).model)
    assert all(map(torch.equal, before, learner.weights))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        METHODS["policy"](
            fine_tuned(config | {"rounds": learners.SILENT - 1}, 0), learner.model
        )


@pytest.mark.parametrize("baseline", ["scaled", "group", "batch", "none"])
def test_a_reward_that_is_not_a_number_stops_the_training(baseline, monkeypatch):
    config = TINY | {"sft_steps": 1, "prompts": 2, "baseline": baseline}
    learner = fine_tuned(config, 0)
    before = [w.clone() for w in learner.weights]
    monkeypatch.setattr(learners, "reward", lambda *args: math.nan)
    with pytest.raises(ValueError, match="not a finite number: look at the verifier"):
        METHODS["policy"](learner, learner.model)
    assert all(map(torch.equal, before, learner.weights))


@pytest.fixture
def few_pairs(monkeypatch):
    monkeypatch.setattr(learners, "JUDGED", 100)
    monkeypatch.setattr(learners, "STEPS", 40)


def test_a_judge_agrees_with_what_it_was_shown(few_pairs):
    config = TINY | {"judged": 32, "samples": 8, "sft_steps": 150}
    learner = fine_tuned(config, 0)
    learned_judge(learner)
    assert learner.agreement is not None and 0.3 < learner.agreement < 1
    # Padding and prompt are not read: the number is the one at the end of the answer.
    ids, mask = pack("split", [("31-47:", "9859."), ("10-12:", "73.")])
    model = Judge(TransformerLM(shape("split")))
    alone = [
        model.scores(*pack("split", [pair]))
        for pair in (("31-47:", "9859."), ("10-12:", "73."))
    ]
    torch.testing.assert_close(model.scores(ids, mask), torch.cat(alone))
    padded = ids.clone()
    padded[1, 9:] = 3
    torch.testing.assert_close(model.scores(padded, mask), torch.cat(alone))


@pytest.mark.parametrize("method", ["own", "pairs"])
def test_nothing_right_is_an_error_with_the_remedy(method):
    config = TINY | {"sft_steps": 1, "method": method}
    with pytest.raises(ValueError, match="start from more demonstrations"):
        METHODS[method](fine_tuned(config, 0), fine_tuned(config, 0).model)


# What is committed


def test_what_is_committed_has_three_seeds_and_is_of_a_known_variant():
    seeds = {}
    for r in committed(LAB):
        (name,) = (n for n, config in VARIANTS.items() if config == r["config"])
        seeds.setdefault(name, []).append(r["seed"])
    assert len(seeds) >= 6
    for name, found in seeds.items():
        assert sorted(found) == [0, 1, 2], name


def test_what_is_not_committed_says_how_to_make_it(monkeypatch):
    monkeypatch.setattr("minillm.labs.posttraining.committed", lambda lab: [])
    with pytest.raises(ValueError, match="minillm lab posttraining makes them"):
        runs("policy, sort")


def test_committed_results_agree_with_themselves():
    for r in committed(LAB):
        cost = compute(r["config"])
        assert (r["sampling_flops"], r["training_flops"]) == cost[1:]
        assert r["flops"] == sum(cost)
        k = r["config"]["k"]
        for when, counts in zip(("before", "after"), r["counts"], strict=True):
            assert len(counts) == TASKS[r["config"]["task"]].held_out
            for at, value in r[when]["pass"].items():
                each = [pass_at_k(k, c, int(at)) for c in counts]
                assert math.isclose(value, sum(each) / len(each), abs_tol=6e-5)


def test_the_same_start_is_the_same_in_every_run():
    starts = {}
    for r in committed(LAB):
        keys = ("task", "demonstrations", "sft_steps", "learn", "k")
        start = tuple(r["config"][key] for key in keys), r["seed"]
        # Another processor adds in another order, and the last digits differ.
        known = starts.setdefault(start, r["before"])
        for k, share in r["before"]["pass"].items():
            assert share == pytest.approx(known["pass"][k], abs=1e-3)


def test_rates_are_shares():
    found = rates("policy, sort", "after")
    assert len(found) == 3 and {len(row) for row in found} == {300}
    for row, r in zip(found, runs("policy, sort"), strict=True):
        assert sum(row) / 300 == pytest.approx(r["after"]["pass"]["1"], abs=6e-5)
