"""What PyTorch counts, what the clock says, and what the figures show of it."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minillm.accounting import measure as flops_measure
from minillm.accounting.shapes import Recompute
from minillm.config import ModelConfig
from minillm.files.reading import IMAGES
from minillm.flops import forward_flops, opt_table, preset, training_flops

CONFIG = ModelConfig(50, 16, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2)


@pytest.mark.parametrize("recompute", [False, "full", "early_stop"])
@pytest.mark.parametrize("n_kv_heads", [1, 4])
@pytest.mark.parametrize("mlp_matrices", [2, 3])
def test_torch_counts_what_we_count(
    recompute: Recompute, n_kv_heads: int, mlp_matrices: int
) -> None:
    shape = replace(
        preset("demo"),
        vocab_size=31,
        context_length=8,
        d_model=24,
        n_layers=3,
        n_heads=4,
        n_kv_heads=n_kv_heads,
        d_ff=50,
        mlp_matrices=mlp_matrices,
    )
    # Longer than its context, too.
    seen = flops_measure.torch_flops(shape, 2, 11, recompute)
    ours = forward_flops(shape, 2, 11).total, training_flops(shape, 2, 11, recompute)
    assert seen == ours


@pytest.mark.check
def test_the_counter_judges_the_largest_row_of_the_famous_table() -> None:
    shape = replace(preset("opt-175b"), vocab_size=51200)
    _, step = flops_measure.torch_flops(shape, 1, 2048)
    row = opt_table("counted")[-1]
    # An update is of 2 * 2**20 tokens, hence of 1024 such sequences.
    assert row.flops_per_update == 1024 * step
    assert opt_table("published")[-1].flops_per_update != 1024 * step


def test_the_traps_are_still_there() -> None:
    """When this fails, PyTorch has become better: mend the chapter."""
    q = torch.ones(1, 2, 4, 8)
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert counter.get_total_flops() == 0
    with flops_measure.watched() as counter:
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert counter.get_total_flops() == 2 * 2 * (2 * 4 * 8 * 4)
    one = torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1, 8)
    with flops_measure.watched() as counter:
        torch.einsum("bhts,bhsd->bhtd", *one)
    assert counter.get_total_flops() == 0
    with flops_measure.watched() as counter:
        _ = one[0] @ one[1]
    assert counter.get_total_flops() == 2 * (2 * 8)


def test_step_seconds_runs_and_leaves_out_the_first() -> None:
    seconds = flops_measure.step_seconds(CONFIG, 1, 16, at_least=0)
    assert 0 < seconds < math.inf


def test_machine_memory_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flops_measure.machine_memory() > 1e6
    monkeypatch.delattr("os.sysconf", raising=False)
    assert flops_measure.machine_memory() == math.inf


@pytest.mark.parametrize("sizes", [(0, 8), (1, 0), (1, -8)])
def test_sizes_are_checked_before_anything_is_built(sizes: tuple[int, int]) -> None:
    for measure in (flops_measure.torch_flops, flops_measure.step_seconds):
        with pytest.raises(ValueError, match="must be a positive int"):
            measure(CONFIG, *sizes)


def test_figures_show_the_numbers_of_the_chapter() -> None:
    def texts(name: str) -> set[str]:
        svg = (IMAGES / name).read_text(encoding="utf-8")
        return set(re.findall(r">([^<>]+)</text>", svg))

    long = [
        forward_flops(replace(preset("gpt2-xl"), mlp_matrices=n), 1, 16384).shares()
        for n in (2, 3)
    ]
    scores, gated = (f"{100 * shares['attention']:.1f} %" for shares in long)
    assert (scores, gated) == ("61.8 %", "55.2 %")
    shown = texts("flop-context.svg")
    assert any(text.endswith(f"mixing: {scores}") for text in shown)
    assert any(text.endswith(f"SwiGLU: {gated}") for text in shown)
    assert "1,048,576" in shown
    shown = texts("flop-shares.svg")
    for accounting, ffn, attention in (("counted", 65, 35), ("published", 80, 20)):
        assert f"FFN, {accounting}: {ffn} %" in shown
        assert f"attention, {accounting}: {attention} %" in shown
    assert "ridge: 295 FLOPs a byte" in texts("roofline.svg")


def test_the_peak_is_that_of_the_fastest_try(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock by which the products take 4, 2 and 8 seconds.
    ticks = iter([0, 4, 10, 12, 20, 28])
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(flops_measure, "time", clock)
    assert flops_measure.measure_peak_flops(size=5, tries=3) == 5**3
