"""The rules for what recordings get wrong, against slow statements of the same."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.events import rules
from evlift.events.readers import Columns, Problems
from evlift.events.rules import HORIZON_US, RESTART_US, WITNESSES, apply_rules


def columns(t, x=None, y=None, p=None):
    t = np.asarray(t, np.int64)
    zero = np.zeros(len(t), np.uint16)
    return Columns(
        zero if x is None else np.asarray(x, np.uint16),
        zero if y is None else np.asarray(y, np.uint16),
        t,
        np.ones(len(t), bool) if p is None else np.asarray(p, bool),
        1.0,
    )


def cut(whole, *at):
    bounds = [0, *sorted(at), len(whole.t)]
    return [Columns(*(c[a:b] for c in whole[:4]), 0.5) for a, b in pairwise(bounds)]


def run(chunks, height=4, width=4, **options):
    problems = Problems()
    parts = [events for events, _ in apply_rules(chunks, height, width, problems, **options)]
    joined = [np.concatenate([getattr(e, name) for e in parts] or [[]]) for name in "xytp"]
    return joined, problems.lines()


def restarts(t, i, top, horizon, witnesses, run):
    after, stretch = t[i + 1 : i + 1 + witnesses], t[i : i + run]
    near = [u for u in after if t[i] - horizon <= u <= t[i] + RESTART_US]
    back = [u for u in stretch if u >= top - RESTART_US]
    whole = len(after) == witnesses and len(stretch) == run
    return whole and t[i] < top - RESTART_US and len(near) > witnesses / 2 and len(back) <= run / 100


def slow(t, horizon=HORIZON_US, witnesses=WITNESSES, run=1000):
    """Numbers and times of the events that are kept, in their final order: the rule as the docstring tells it."""
    kept, top, shift = [], None, 0
    for i, now in enumerate(t):
        if top is not None and now < top - horizon:
            if not restarts(t, i, top, horizon, witnesses, run):
                continue
            shift, top = shift + top + 1 - now, now
        if top is None or now > top + horizon:
            after = list(t[i + 1 : i + 1 + witnesses])
            returned = [u for u in after if u < now - horizon and (top is None or u >= top - horizon)]
            stayed = [u for u in after if u >= now - horizon]
            if len(returned) > len(stayed) or (after and not stayed):
                continue
        kept.append((i, now + shift))
        top = now if top is None else max(top, now)
    return sorted(kept, key=lambda event: event[1])


times = st.lists(
    st.one_of(st.integers(0, 40_000), st.integers(-3_000_000, 3_000_000), st.sampled_from([0, 1 << 40])), max_size=80
)


@settings(deadline=None, max_examples=300)
@given(times, st.booleans(), st.lists(st.integers(0, 80), max_size=4))
def test_order_follows_the_rule_however_the_stream_is_cut(t, mostly_sorted, at):
    if mostly_sorted:
        t = sorted(t[: len(t) // 2]) + t[len(t) // 2 :]
    number = np.arange(len(t))  # each event its own pixel: nothing is a duplicate
    whole = columns(t, x=number)
    (x, _, found, _), _ = run(cut(whole, *(min(a, len(t)) for a in at)), height=1, width=100)
    assert list(zip(x.tolist(), found.tolist(), strict=True)) == slow(t)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(1, 130), st.integers(0, 4)), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from([-(1 << 50), 0, 1 << 40, 3_000_000])), max_size=6),
    st.integers(0, 1 << 30),
    st.lists(st.integers(0, 400), max_size=4),
)
def test_restarts_follow_the_rule_however_the_stream_is_cut(stretches, damaged, seed, at):
    rng = np.random.default_rng(seed)
    t = np.concatenate([start + rng.integers(-9_000, 9_000, n) + 10**k * np.arange(n) for start, n, k in stretches])
    for i, value in damaged:
        t[i % len(t)] = value
    whole = columns(t, x=np.arange(len(t)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "RESTART_EVENTS", 100)
        (x, _, found, _), _ = run(cut(whole, *(min(a, len(t)) for a in at)), height=1, width=1000)
    assert list(zip(x.tolist(), found.tolist(), strict=True)) == slow(t.tolist(), run=100)


def restarted(fall=5_000_000, events=3000):
    """Events every 100 µs up to `fall`, then as many from 7 µs on."""
    return np.r_[fall - 100 * np.arange(events)[::-1], 7 + 100 * np.arange(events)]


@pytest.mark.parametrize("at", [(), (2999, 3001, 3016), (3500,), (10, 4001)])
def test_a_clock_that_restarts_goes_on_after_the_last_time_that_was_believed(at):
    t = restarted()
    (_, _, found, _), problems = run(cut(columns(t), *at))
    assert found.tolist() == [*t[:3000], *(5_000_001 + 100 * np.arange(3000))]
    assert problems == [
        "the clock restarts after 0.299900 s: later events are shifted by 4.999994 s, images are not",
    ]


def test_damaged_times_neither_make_a_restart_nor_hide_one():
    t = restarted()
    good = [*t[:3000], *(5_000_001 + 100 * np.arange(3000))]
    for i, value in (
        (2999, 1 << 50),
        (2999, 2_000_000),
        (3000, 1 << 50),
        (3000, -(1 << 50)),
        (3005, 0),
        (3700, 4_999_000),
    ):
        damaged = t.copy()
        damaged[i] = value
        (_, _, found, _), problems = run([columns(damaged)])
        expected = np.delete(good, i)
        if i in (2999, 3000):  # time goes on after the last that is believed
            expected[i if i == 2999 else 3000 :] += expected[i - 1] + 1 - expected[i]
        if (i, value) == (3005, 0):  # early by little: it is put in its place
            assert len(found) == 6000
            continue
        assert found.tolist() == expected.tolist(), (i, value)
        assert len(problems) == 2 and any(line.startswith("1 × event") for line in problems)
    late = np.arange(10_000) * 1000
    late[5000:5900] -= 2_000_000  # a run too short for a restart
    (_, _, found, _), problems = run([columns(late)])
    assert found.tolist() == np.delete(late, slice(5000, 5900)).tolist()
    assert problems == ["900 × event over 10 ms late, set aside"]


def test_a_clock_that_restarts_for_ever_is_told_in_few_lines():
    t = np.concatenate([np.arange(1000) + 10_000_000 - 2_000_000 * k for k in range(5)] * 4)
    (_, _, found, _), problems = run([columns(t)])
    assert len(found) == 20_000 and (np.diff(found) >= 0).all()
    assert problems[-1] == "8 × further restart of the clock, time goes on likewise" and len(problems) == 9


def test_restarts_at_the_ends_of_time_stay_within_64_bits():
    far = (1 << 62) + np.arange(2000)
    for t in (np.r_[far, -far], np.r_[-far, far, -far], np.r_[restarted(), far, restarted(1 << 60), restarted()]):
        (_, _, found, _), _ = run([columns(t)])
        assert len(found) >= 2000 and (found[1:] >= found[:-1]).all()


def test_what_lies_outside_is_counted_and_the_rest_kept():
    whole = columns([1, 2, 3, 4], x=[0, 3, 4, 65535], y=[0, 3, 0, 0])
    (x, y, t, _), problems = run([whole])
    assert (x.tolist(), y.tolist(), t.tolist()) == ([0, 3], [0, 3], [1, 2])
    assert problems == ["2 × event outside the 4×4 sensor, set aside"]


def test_small_disorder_is_put_in_order_and_equal_times_keep_their_order():
    (x, _, t, _), problems = run([columns([10, 5, 10], x=[0, 1, 2])])
    assert (x.tolist(), t.tolist()) == ([1, 0, 2], [5, 10, 10])
    assert problems == ["1 × step back in time of up to 10 ms, put in order"]


def test_a_damaged_time_costs_one_event():
    t = np.arange(100) * 1000
    ahead, behind = t.copy(), t.copy()
    ahead[50] = 1 << 50
    behind[50] = -(1 << 50)
    (_, _, found, _), problems = run([columns(ahead)])
    assert found.tolist() == np.delete(t, 50).tolist()
    assert problems == ["1 × event whose time leaps ahead and back, set aside"]
    (_, _, found, _), problems = run([columns(behind)])
    assert found.tolist() == np.delete(t, 50).tolist()
    assert problems == ["1 × event over 10 ms late, set aside"]


def test_a_silence_is_believed():
    t = np.r_[np.arange(20), 3_600_000_000 + np.arange(20)]
    (_, _, found, _), problems = run([columns(t)])
    assert found.tolist() == t.tolist() and not problems


def test_duplicates_are_counted_over_chunks_and_dropped_on_demand():
    t, p = [5, 5, 5, 5, 6], [1, 1, 0, 1, 1]
    for at in ([], [1], [2, 3]):
        kept, problems = run(cut(columns(t, p=p), *at))
        assert kept[2].tolist() == t
        assert problems == ["2 × duplicate event, kept (drop them with --duplicates drop)"]
        kept, problems = run(cut(columns(t, p=p), *at), duplicates="drop")
        assert (kept[2].tolist(), kept[3].tolist()) == ([5, 5, 6], [True, False, True])
        assert problems == ["2 × duplicate event, dropped"]


def test_one_time_for_everything_does_not_pile_up(monkeypatch):
    monkeypatch.setattr("evlift.events.rules._MOST_HELD", 100)
    chunks = [columns(np.zeros(60)) for _ in range(5)]
    sizes = [len(e) for e, _ in apply_rules(chunks, 4, 4, Problems())]
    assert sum(sizes) == 300 and len(sizes) > 1


def test_a_crowd_out_of_order_stays_in_order_and_what_is_lost_is_counted(monkeypatch):
    monkeypatch.setattr("evlift.events.rules._MOST_HELD", 100)
    chunks = [columns(np.arange(1000, 1300)), columns([1100, 1250, 1299]), columns(np.full(200, 1300))]
    (_, _, t, _), problems = run(chunks)
    assert t.tolist() == [*range(1000, 1250), 1250, *range(1250, 1299), 1299, 1299, *[1300] * 200]
    assert "1 × event late among more than four million in 10 ms, set aside" in problems


@settings(deadline=None)
@given(
    st.integers(0, 1 << 40),
    st.lists(st.integers(-20_000, 1 << 30), max_size=50),
    st.lists(st.integers(0, 50), max_size=3),
)
def test_a_32_bit_clock_is_unwrapped(start, steps, at):
    from evlift.events.readers.reader import unwrap

    true = start + np.cumsum([0, *steps])
    counter = (true % (1 << 32)).astype(np.uint32)
    offset, last, found = 0, int(counter[0]), []
    bounds = [0, *sorted(min(a, len(true)) for a in at), len(true)]
    for a, b in pairwise(bounds):
        t, offset, last = unwrap(counter[a:b], 32, offset, last, Problems())
        found += t.tolist()
    assert np.array_equal(np.asarray(found) - found[0], true - true[0])
