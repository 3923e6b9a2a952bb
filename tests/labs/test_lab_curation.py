"""Lab 4: the texts of its models, its statistics, and what its results promise."""

import json
from statistics import mean

import numpy as np
import pytest

from minillm.corpus.crawl import leaked_tales, unseen_tales
from minillm.corpus.duplicates import alike
from minillm.curation import contaminated, shingles
from minillm.emergence import LABS
from minillm.files.reading import IMAGES
from minillm.labs import curation as lab
from minillm.labs.bench import by_config, committed
from minillm.labs.curation import (
    BASE,
    BUDGETS,
    KEEPS,
    LAB,
    closing_table,
    gain,
    losses,
)
from minillm.labs.repairs import STAGES, classified, halves, short_leaks, stage

RESULTS = committed(LAB)


def test_each_stage_keeps_a_part_of_the_one_before():
    before = {page.url for page, _ in stage("extracted")}
    for name in ("exact", "near", "rules", "clean"):
        after = {page.url for page, _ in stage(name)}
        assert after < before
        before = after
    texts = [text for _, text in stage("exact")]
    assert len(set(texts)) == len(texts) == len({t for _, t in stage("extracted")})


def test_the_clean_text_shares_nothing_with_the_test_split():
    texts = [text for _, text in stage("clean")]
    assert contaminated(texts, [*leaked_tales(), *unseen_tales()], 13).max() == 0
    assert contaminated([t for _, t in stage("rules")], leaked_tales(), 13).min() > 0.7


def test_a_split_before_deduplication_straddles():
    for name, least in (("straddle", 10), ("divided", 0)):
        rest, aside = halves(name)
        sets = [shingles(text, 5) for _, text in (*aside, *rest)]
        # Above 0.68 no estimate by 128 hash functions misses the threshold of 0.5.
        crossing = [
            (i, j) for i, j in alike(sets, 0.68) if i < len(aside) <= j < len(sets)
        ]
        assert len(crossing) >= least
        assert least or not crossing
    assert halves("straddle")[1] == halves("divided")[1]


def test_what_is_kept_of_the_classified_text():
    whole = sum(len(text) for _, text in stage("rules"))
    for keep in (0.03, 0.25, 0.75):
        size = sum(len(text) for _, text in classified(keep))
        assert keep - 0.01 < size / whole <= keep
    assert classified(1.0) == stage("rules")
    urls = [page.url for page, _ in classified(0.25)]
    assert set(urls) < {page.url for page, _ in classified(0.75)}


def test_a_mixture_has_the_share_that_was_asked_for():
    bulletins = {p.url for p, _ in stage("clean") if p.kind == "bulletin"}
    assert len(bulletins) > 100
    pure, none = lab._mixed(1.0), lab._mixed(0.0)
    half = lab._mixed(0.5)
    assert len(pure) == len(none) == len(half) == lab.MIXED
    cut = lab.MIXED // 2
    assert half[:cut].tolist() == pure[:cut].tolist()
    assert half[cut:].tolist() == none[:cut].tolist()


def test_leaked_copies_are_in_the_training_text():
    clean = lab._training(BASE | {"data": "clean"})
    leak = lab._training(BASE | {"data": "leak", "copies": 10})
    added = lab._ids(tuple(short_leaks()))
    assert len(leak) == len(clean) + 10 * (len(added) - 1)
    assert leak[-len(added) :].tolist() == added.tolist()


def test_the_interval_against_scipy():
    stats = pytest.importorskip("scipy.stats", reason="the extra test is missing")
    before = [{"seed": i, "tales": x} for i, x in enumerate((2.5, 2.7, 2.65))]
    after = [{"seed": i, "tales": x} for i, x in enumerate((2.4, 2.65, 2.5))]
    fall, half = gain(before, after, "tales")
    falls = [0.1, 0.05, 0.15]
    low, high = stats.t.interval(0.95, 2, loc=mean(falls), scale=stats.sem(falls))
    assert (fall - half, fall + half) == pytest.approx((low, high), abs=1e-4)


def test_a_model_is_trained_as_its_configuration_says():
    config = BASE | {"data": "divided", "steps": 2}
    first, again = (lab._run(config, 0) for _ in range(2))
    assert first == again
    assert first != lab._run(config, 1)
    assert {"none", "few", "many", "validation"} <= first.keys()
    assert LAB.flops(config) * 200 == LAB.flops(BASE)


def test_committed_results_are_those_of_this_lab():
    assert LABS["curation"] is LAB
    plan = [(config, seed) for config, seed in LAB.points(False)]
    for result in RESULTS:
        assert (result["config"], result["seed"]) in plan
        assert result["flops"] == LAB.flops(result["config"])
    groups = by_config(RESULTS)
    for name in (*STAGES, "straddle", "divided"):
        assert len(dict_of(groups)[name]) >= 3, name
    # One budget for all repairs.
    assert len({r["flops"] for r in RESULTS if r["config"]["data"] in STAGES}) <= 2


def dict_of(groups):
    return {
        config["data"]: same
        for config, same in groups
        if config == BASE | {"data": config["data"]}
    }


def test_what_the_chapter_says_of_the_repairs():
    def tales(name):
        return losses(RESULTS, "tales", data=name)

    for worse, better in (("html", "tags"), ("tags", "extracted")):
        assert all(a > b for a, b in zip(tales(worse), tales(better), strict=True))
    # The classifier pays for its domain with the other.
    bulletins = (losses(RESULTS, "bulletins", data=n) for n in ("rules", "classified"))
    assert all(a + 1 < b for a, b in zip(*bulletins, strict=True))


def test_what_the_chapter_says_of_the_leak():
    for seed in range(3):
        before, after = (
            {g: losses(RESULTS, g, data=name)[seed] for g in ("none", "many", "tales")}
            for name in ("straddle", "divided")
        )
        # Copies in training make their pages easier, and no other text.
        assert before["many"] < before["none"] - 0.05
        assert after["many"] > before["many"] + 0.1
        assert abs(after["tales"] - before["tales"]) < 0.05


def test_the_closing_table_has_a_row_for_each_repair():
    seconds = json.loads((IMAGES / "data/curation-seconds.json").read_text("utf-8"))
    lines = closing_table(RESULTS, seconds)
    assert len(lines) == 2 + len(STAGES) - 1
    assert all(line.count("±") == 3 for line in lines[2:])
    assert all(np.isfinite(list(seconds.values())))


@pytest.mark.check
def test_a_committed_model_comes_out_again():
    result = next(r for r in RESULTS if r["config"]["data"] == "divided")
    again = lab._run(result["config"], result["seed"])
    for domain in ("tales", "many", "validation"):
        assert again[domain] == pytest.approx(result[domain], abs=0.02)


def test_what_the_chapter_says_of_filtering_and_of_the_mixture():
    def mean_of(domain, **config):
        runs = losses(RESULTS, domain, **config)
        assert len(runs) == 3
        return mean(runs)

    # At the larger budget the curve has a bottom, and at the smaller one it rises.
    small, large = (
        [mean_of("tales", data="classified", keep=k, steps=steps) for k in KEEPS]
        for steps in BUDGETS
    )
    assert min(large) in large[1:3]
    assert large[0] > min(large) + 0.05 < large[-1]
    assert small[KEEPS.index(0.1)] > small[0] + 0.1
    assert all(x < small[0] + 0.1 for x in small[:3])
    mixed = {
        share: [
            mean_of(d, data="mixed", bulletins=share) for d in ("tales", "bulletins")
        ]
        for share in (0.0, 0.1, 0.5)
    }
    assert mixed[0.0][0] < mixed[0.5][0]
    assert mixed[0.0][1] - mixed[0.1][1] > 1
