"""The figures on gradients and the graphs of the widget show what the tape computes."""

import json
import math
from itertools import pairwise

import pytest
import torch

from minillm.drawing.gradients import GRAPHS, graph_data, measure_errors
from minillm.files.reading import IMAGES


@pytest.mark.check
def test_the_errors_are_those_of_today_where_rounding_does_not_rule():
    path = IMAGES / "data" / "gradient-error.json"
    committed, today = json.loads(path.read_text(encoding="utf-8")), measure_errors()
    assert committed.keys() == today.keys()
    for name, points in committed.items():
        best = min(points, key=lambda point: point[1])
        for (eps, before), (same, now) in zip(points, today[name], strict=True):
            assert eps == same
            # Left of the bottom the error is that of rounding, and processors differ.
            if eps > 5 * best[0]:
                assert now == pytest.approx(before, rel=0.05)
        again = min(today[name], key=lambda point: point[1])
        assert abs(math.log10(again[1] / best[1])) < 0.7


def test_what_the_chapter_says_of_the_bottoms():
    curves = json.loads((IMAGES / "data" / "gradient-error.json").read_text("utf-8"))
    bottom = {name: min(error for _, error in curve) for name, curve in curves.items()}
    for precision in ("float32", "float64"):
        one_sided, central = (
            bottom[f"{precision}, {kind}"] for kind in ("one-sided", "central")
        )
        assert central < one_sided / 5
    assert bottom["float32, central"] > 1e-4 > 1e-6 > bottom["float64, one-sided"]
    # The error of a one-sided difference shrinks with eps, of a central one with eps².
    for kind, power in (("one-sided", 1), ("central", 2)):
        at = {round(math.log10(eps), 1): e for eps, e in curves[f"float64, {kind}"]}
        assert math.log10(at[-1] / at[-3]) == pytest.approx(2 * power, abs=0.2)


@pytest.mark.parametrize("title", GRAPHS)
def test_the_graph_ends_with_the_gradients_of_torch(title):
    leaves, plan = GRAPHS[title]
    numbers = {
        name: torch.tensor(x, dtype=torch.float64, requires_grad=True)
        for name, x in leaves.items()
    }
    for name, made, _ in plan:
        if made:
            words = [f"numbers[{w!r}]" if w in numbers else w for w in made.split()]
            code = " ".join(words).replace("tanh ", "torch.tanh(")
            code += ")" * code.count("tanh")
            numbers[name] = eval(code)  # ruff: ignore[suspicious-eval-usage]  # our own plan, with two operators
            numbers[name].retain_grad()
    numbers["loss"].backward()
    last = graph_data()[title]["steps"][-1]
    expected = [numbers[name].grad.item() for name, *_ in plan]
    assert last["grads"] == pytest.approx(expected, abs=1e-6)
    values = [numbers[name].item() for name, *_ in plan]
    assert last["values"] == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize("title", GRAPHS)
def test_the_steps_follow_the_rules(title):
    graph = graph_data()[title]
    nodes, edges, steps = graph["nodes"], graph["edges"], graph["steps"]
    # Everything stands below what it is made from, and fits into the drawing.
    assert all(nodes[a]["row"] < nodes[b]["row"] for a, b in edges)
    assert all(46 <= node["x"] <= 314 for node in nodes)
    for a in nodes:
        for b in nodes:
            if a is not b and a["row"] == b["row"]:
                assert abs(a["x"] - b["x"]) >= 94
    passed_by: dict[int, float] = {}
    done: set[int] = set()
    for before, after in pairwise(steps):
        for old, new in zip(before["values"], after["values"], strict=True):
            assert old is None or old == new  # a value is never taken back
        for edge, share in after["passed"]:
            source, target = edges[edge]
            assert target in after["now"] and source not in done
            passed_by[source] = passed_by.get(source, 0.0) + share
        done |= set(after["now"]) if after["passed"] else set()
    # Each edge is used once, and the shares of a number add up to its gradient.
    used = [edge for step in steps for edge, _ in step["passed"]]
    assert sorted(used) == list(range(len(edges)))
    for i, total in passed_by.items():
        assert total == pytest.approx(steps[-1]["grads"][i], abs=1e-5)
