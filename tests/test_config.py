"""The shape of a model: what is filled in, and what is refused."""

import json
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.config import ModelConfig, RopeScaling

SHAPE = {
    "vocab_size": 50,
    "context_length": 16,
    "d_model": 24,
    "n_layers": 2,
    "n_heads": 6,
}


def test_what_may_be_left_out() -> None:
    config = ModelConfig(50, 16, 24, 2, 6)
    assert config == ModelConfig(**SHAPE)
    assert (config.n_kv_heads, config.d_ff, config.d_head) == (6, 64, 4)
    assert (config.rope_theta, config.norm_eps) == (10000.0, 1e-5)
    assert config.tie_embeddings is False


@settings(deadline=None)
@given(st.integers(1, 2000))
def test_d_ff_is_eight_thirds_rounded_up_to_64(half: int) -> None:
    d = 2 * half
    d_ff = ModelConfig(1, 1, d_model=d, n_layers=1, n_heads=1).d_ff
    assert d_ff % 64 == 0
    assert 3 * (d_ff - 64) < 8 * d <= 3 * d_ff


def test_what_is_given_is_kept() -> None:
    config = ModelConfig(
        **SHAPE,
        n_kv_heads=3,
        d_ff=70,
        rope_theta=5e5,
        norm_eps=1e-6,
        tie_embeddings=True,
    )
    assert (config.n_kv_heads, config.d_ff, config.d_head) == (3, 70, 4)
    assert (config.rope_theta, config.norm_eps) == (5e5, 1e-6)
    assert config.tie_embeddings is True


def test_it_survives_json() -> None:
    config = ModelConfig(**SHAPE, n_kv_heads=2, norm_eps=1e-6)
    again = ModelConfig(**json.loads(json.dumps(asdict(config))))
    assert again == config
    assert hash(again) == hash(config)


def test_it_is_frozen() -> None:
    config = ModelConfig(**SHAPE)
    with pytest.raises(FrozenInstanceError):
        config.d_model = 32  # type: ignore[misc]
    assert replace(config, n_layers=3).n_layers == 3


@pytest.mark.parametrize("name", [*SHAPE, "n_kv_heads", "d_ff"])
@pytest.mark.parametrize("value", [0, -4, True])
def test_sizes_are_positive_ints(name: str, value: int) -> None:
    with pytest.raises(
        ValueError, match=f"{name} must be a positive int; got {value!r}"
    ):
        ModelConfig(**(SHAPE | {name: value}))


@pytest.mark.parametrize("name", ["rope_theta", "norm_eps"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_floats_are_positive(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive; got {value!r}"):
        ModelConfig(**SHAPE, **{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 25}, "d_model=25 is not a multiple of n_heads=6: change one"),
        ({"n_kv_heads": 4}, "n_heads=6 is not a multiple of n_kv_heads=4: change one"),
        ({"n_kv_heads": 12}, "n_heads=6 is not a multiple of n_kv_heads=12"),
        ({"d_model": 18}, "must be even, since RoPE turns pairs; got 18 / 6 = 3"),
    ],
)
def test_sizes_that_do_not_fit(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**(SHAPE | changes))


def test_scaling_keeps_the_fast_and_slows_the_slow() -> None:
    scaling = RopeScaling(32.0, 1.5, 6.0, 400)
    # From 400 tokens on, less than one and a half turns, more than six, and between.
    turn = 2 * math.pi / 400
    assert scaling.slow(1.4 * turn) == pytest.approx(1.4 * turn / 32, rel=1e-15)
    assert scaling.slow(6.1 * turn) == pytest.approx(6.1 * turn, rel=1e-15)
    halfway = 3.75 * turn * (1 + 1 / 32) / 2
    assert scaling.slow(3.75 * turn) == pytest.approx(halfway, rel=1e-15)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 0.0), (0, math.inf), (1, -1.0), (1, math.nan), (2, 0.0), (3, 0), (3, -8)],
)
def test_scaling_wants_positive_numbers(place: int, value: float) -> None:
    numbers: list[Any] = [8.0, 1.0, 4.0, 8192]
    numbers[place] = value
    with pytest.raises(ValueError, match=f"must be positive; got {value!r}"):
        RopeScaling(*numbers)


def test_scaling_wants_its_bounds_in_order() -> None:
    with pytest.raises(ValueError, match="must be less than high_freq_factor"):
        RopeScaling(8.0, 4.0, 4.0, 8192)


def run(program: str) -> str:
    """What a program prints, run without the type checker that is behind our tests."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_sizes_of_another_type() -> None:
    program = (
        "from minillm.config import ModelConfig\n"
        "for value in (2.0, '2'):\n"
        "    try: ModelConfig(50, 16, 24, n_layers=value, n_heads=6)\n"
        "    except ValueError as error: print(error)\n"
    )
    message = "n_layers must be a positive int; got "
    assert run(program).splitlines() == [message + "2.0", message + "'2'"]


def test_a_shape_needs_no_torch() -> None:
    assert run("import minillm.config, sys; print('torch' in sys.modules)") == "False\n"
