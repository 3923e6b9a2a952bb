"""Serving, counted: two policies on one trace, and the room that is wasted."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.inference.serving import EACH, Request, random_trace, simulate, waste

traces = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 20), st.integers(1, 20)),
    min_size=1,
    max_size=12,
).map(lambda rows: sorted(Request(float(a), p, n) for a, p, n in rows))


@settings(deadline=None, max_examples=80)
@given(traces, st.integers(1, 4), st.booleans())
def test_every_token_is_written_once_and_paid_for(trace, seats, continuous):
    served = simulate(trace, seats, continuous)
    tokens = sum(request.new for request in trace)
    assert served.used * served.steps * seats == pytest.approx(tokens)
    # A step costs one, and a little for each token; beside that, it may be idle.
    assert served.time >= served.steps + EACH * tokens - 1e-9
    assert served.time <= trace[-1].arrival + served.steps + EACH * tokens + 1e-9
    assert served.mean_wait >= min(request.new for request in trace) * (1 + EACH) - 1e-9


@settings(deadline=None, max_examples=80)
@given(traces)
def test_with_one_seat_both_do_the_same(trace):
    assert simulate(trace, 1, continuous=True) == simulate(trace, 1, continuous=False)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 4))
def test_who_does_not_wait_for_the_last_takes_no_more_steps(lengths, seats):
    trace = [Request(0.0, 1, n) for n in lengths]
    static, continuous = (simulate(trace, seats, c) for c in (False, True))
    batches = [lengths[i : i + seats] for i in range(0, len(lengths), seats)]
    assert static.steps == sum(max(batch) for batch in batches)
    assert max(lengths) <= continuous.steps <= static.steps
    assert continuous.steps >= sum(lengths) / seats


def test_a_late_request_is_waited_for():
    trace = [Request(0.0, 1, 1), Request(100.0, 1, 1)]
    served = simulate(trace, 4, continuous=True)
    assert served.steps == 2
    assert served.time == pytest.approx(101 + EACH)


@settings(deadline=None, max_examples=80)
@given(traces, st.integers(1, 40))
def test_paging_wastes_less_than_a_block_for_each(trace, block):
    assert 0 <= waste(trace, 40, block) < block * len(trace)
    assert waste(trace, 40, None) == sum(40 - r.prompt - r.new for r in trace)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate([], 1, True), "got 0 and 1"),
        (lambda: simulate([Request(0, 1, 1)], 0, True), "got 1 and 0"),
        (
            lambda: simulate([Request(2, 1, 1), Request(1, 1, 1)], 1, True),
            "sort them",
        ),
        (lambda: waste([Request(0, 9, 9)], 16, None), "16 tokens; a request needs 18"),
        (lambda: waste([Request(0, 9, 1)], 16, 0), "at least one token; got 0"),
        (lambda: waste([Request(0, 9, 1)], 16, -4), "at least one token; got -4"),
        (lambda: waste([Request(0, 9, -3)], 16, 4), "and wants one; got .*new=-3"),
        (lambda: simulate([Request(0, 5, 0)], 2, True), "wants one; got .*new=0"),
        (lambda: simulate([Request(0, 0, 5)], 2, True), "at least one .*prompt=0"),
        (lambda: simulate([Request(math.nan, 5, 5)], 2, True), "got .*arrival=nan"),
    ],
)
def test_what_cannot_be_served_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_trace_is_in_order_and_repeatable():
    trace = random_trace(200, every=5.0, seed=3)
    assert trace == sorted(trace, key=lambda request: request.arrival)
    assert trace == random_trace(200, 5.0, 3) != random_trace(200, 5.0, 4)
    assert 800 < trace[-1].arrival < 1200
