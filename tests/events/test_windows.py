"""Windows against a brute-force search over all lengths, on columns and on packed words."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evlift.errors import ConfigError, InputError
from evlift.events import Events, open_recording, write_recording
from evlift.events.windows import Adaptive, ByCount, ByTime, cover

WHERE = ("before", "centred", "after")
names = itertools.count()


@st.composite
def events(draw):
    """Up to 60 events within some ms, bunched, so that times coincide and lengths of 1 µs matter."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, span = draw(st.integers(0, 60)), draw(st.sampled_from([1, 30, 400, 2500]))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    t = np.sort(rng.integers(0, span, n)) + draw(st.sampled_from([0, -700, 123_456_789_012]))
    return Events(rng.integers(0, width, n), rng.integers(0, height, n), t, rng.integers(0, 2, n), height, width)


def span(t, d, where):
    return {"before": (t - d, t), "centred": (t - d // 2, t - d // 2 + d), "after": (t, t + d)}[where]


def on_the_side(e, t, where):
    return sum(1 for s in e.t.tolist() if (s < t if where == "before" else s >= t if where == "after" else True))


def holds(e, t0, t1):
    return [i for i, s in enumerate(e.t.tolist()) if t0 <= s < t1]


def enough(rule, e, t0, t1):
    """The definition, read off the events one by one."""
    inside = holds(e, t0, t1)
    if isinstance(rule, ByCount):
        return len(inside) >= rule.count
    mass = {}
    for i in inside:
        cell = int(e.y[i]) // rule.patch, int(e.x[i]) // rule.patch
        mass[cell] = mass.get(cell, 0) + 1
    active = sum(m >= rule.threshold for m in mass.values())
    patches = math.ceil(e.height / rule.patch) * math.ceil(e.width / rule.patch)
    by_share = rule.share is not None and active >= 1 and active / patches >= rule.share - 1e-12
    return by_share or (rule.events is not None and len(inside) >= rule.events)


def shortest(rule, e, t, where, low, high):
    for d in range(low, high + 1):
        bounds = span(t, d, where)
        if enough(rule, e, *bounds) or len(holds(e, *bounds)) == on_the_side(e, t, where):
            return bounds
    return span(t, high, where)


def sources(e, folder):
    """The events themselves, and packed where they fit."""
    return e, write_recording(folder / f"r{next(names)}", e)


def times(e):
    first, last = e.t_first, e.t_last
    return [first - 900, first, first + 1, (first + last) // 2, last, last + 1, last + 1400]


slow = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@slow
@given(events(), st.integers(1, 70), st.data())
def test_by_count_is_the_shortest_window_with_as_many(tmp_path, e, count, data):
    rule, where = ByCount(count), data.draw(st.sampled_from(WHERE))
    t = data.draw(st.sampled_from(times(e)))
    for source in sources(e, tmp_path):
        found = rule.around(source, t, where)
        assert found == shortest(rule, e, t, where, 0, 10_000)
        assert rule.met(source, *found) == enough(rule, e, *found)


@slow
@given(events(), st.data())
def test_adaptive_is_the_shortest_window_in_which_enough_happens(tmp_path, e, data):
    most = data.draw(st.sampled_from([1, 2, 57, 300, 4000]))
    share = data.draw(st.sampled_from([None, 0.1, 0.3, 0.5, 1.0]))
    count = data.draw(st.none() if share else st.integers(1, 70)) if data.draw(st.booleans()) else 20
    rule = Adaptive(
        share=share,
        events=count if share or count else 5,
        patch=data.draw(st.integers(1, 10)),
        threshold=data.draw(st.integers(1, 6)),
        min_us=data.draw(st.integers(1, min(most, 60))),
        max_us=most,
    )
    where, t = data.draw(st.sampled_from(WHERE)), data.draw(st.sampled_from(times(e)))
    for source in sources(e, tmp_path):
        found = rule.around(source, t, where)
        assert found == shortest(rule, e, t, where, rule.min_us, rule.max_us)
        assert rule.met(source, *found) == enough(rule, e, *found)
        assert rule.met(source, -math.inf, math.inf) == enough(rule, e, e.t_first, e.t_last + 1)


def test_by_time_is_arithmetic():
    e = Events([1], [1], [500], [1], 4, 4)
    rule = ByTime(101)
    assert [rule.around(e, 1000, w) for w in WHERE] == [(899, 1000), (950, 1051), (1000, 1101)]
    assert rule.around(e, 999.2) == (899, 1000)  # as everywhere, a fractional bound is rounded up
    assert rule.met(e, 0, 101) and not rule.met(e, 0, 100)


def test_an_adaptive_window_by_hand(tmp_path):
    """Four patches of 2×2; τ = 2. Walking back from 100 µs, two of them are active once the event at 40 µs is in."""
    x, y = [0, 2, 0, 1, 2, 3, 0], [0, 0, 2, 0, 1, 0, 0]
    t = [10, 40, 50, 60, 70, 90, 95]  #  patches: A B C A B B A
    e = Events(x, y, t, np.ones(7, bool), 4, 4)
    for source in sources(e, tmp_path):
        rule = Adaptive(share=0.5, patch=2, threshold=2, min_us=1, max_us=1000)
        assert rule.around(source, 100) == (60, 100)  # B at 70 and 90, A at 60 and 95
        assert Adaptive(share=0.5, patch=2, threshold=3, min_us=1, max_us=1000).around(source, 100) == (10, 100)
        assert Adaptive(share=0.5, patch=2, threshold=3, min_us=1, max_us=80).around(source, 100) == (20, 100)
        assert Adaptive(share=0.75, patch=2, threshold=2, min_us=1, max_us=1000).around(source, 100) == (10, 100)
        assert Adaptive(share=None, events=3, min_us=1, max_us=1000).around(source, 100) == (70, 100)
        assert Adaptive(share=0.5, events=3, patch=2, threshold=2, min_us=1, max_us=1000).around(source, 100)[0] == 70
        assert Adaptive(share=None, events=3, min_us=50, max_us=1000).around(source, 100) == (50, 100)
        assert Adaptive(share=None, events=3, min_us=1, max_us=1000).around(source, 60, "centred") == (50, 71)
        assert Adaptive(share=None, events=2, min_us=1, max_us=1000).around(source, 41, "after") == (41, 61)


def test_no_events_and_times_outside(tmp_path):
    nothing = Events.empty(8, 8)
    for source in sources(nothing, tmp_path):
        assert ByCount(5).around(source, 70) == (70, 70)
        assert Adaptive(min_us=10).around(source, 70) == (60, 70)
        assert not Adaptive().met(source, 0, 100) and not ByCount(1).met(source, 0, 100)
        assert list(cover(source, ByTime(5))) == []
    far = 10**15
    for source in sources(Events([1, 2], [1, 2], [5, 9], [1, 0], 8, 8), tmp_path):
        assert ByCount(2).around(source, far) == (5, far)
        assert Adaptive(share=None, events=1, min_us=1, max_us=50).around(source, far) == (far - 50, far)
        assert Adaptive(share=None, events=1).around(source, -far) == (-far - 1000, -far)
        for where in WHERE:
            for t in (math.inf, -math.inf, 2**63 - 1, -(2**63)):
                assert Adaptive().met(source, *Adaptive().around(source, t, where)) is False
                ByCount(1).around(source, t, where)


@slow
@given(events(), st.data())
def test_covering_windows_hold_each_event_once(tmp_path, e, data):
    rule = data.draw(
        st.sampled_from([ByTime(37), ByCount(7), Adaptive(share=0.4, patch=3, threshold=2, min_us=5, max_us=90)])
    )
    for source in sources(e, tmp_path):
        windows = list(cover(source, rule))
        if not len(e):
            assert windows == []
            continue
        assert windows[0][0] == e.t_first and windows[-1][1] == e.t_last + 1
        assert all(a[1] == b[0] for a, b in itertools.pairwise(windows))
        for t0, t1 in windows[:-1]:
            assert (t0, t1) == rule.around(e, t0, "after")
        assert [i for w in windows for i in holds(e, *w)] == list(range(len(e)))


def test_a_stride_sets_the_times_and_cuts_nothing(tmp_path):
    e = Events([0] * 50, [0] * 50, np.arange(50) * 10, np.ones(50, bool), 2, 2)
    for source in sources(e, tmp_path):
        assert list(cover(source, ByTime(100), 200)) == [(0, 100), (200, 300), (400, 500)]
        assert list(cover(source, ByTime(100), 200, where="before", start_us=100, stop_us=350)) == [
            (0, 100),
            (200, 300),
        ]
        assert list(cover(source, ByCount(5), start_us=455, stop_us=10**6)) == [(455, 491)]
        assert list(cover(source, ByTime(300), start_us=-100, stop_us=350)) == [(-100, 200), (200, 350)]
    with pytest.raises(ConfigError, match="stride_us"):
        list(cover(e, ByTime(5), where="before"))


def test_a_share_is_read_as_the_fraction_it_stands_for():
    """0.1 · 30 is 3.0000000000000004 in floats: three patches of thirty are a tenth all the same."""
    e = Events([0, 1, 2], [0, 0, 0], [1, 2, 3], [1, 1, 1], 5, 6)
    assert Adaptive(share=0.1, patch=1, threshold=1, min_us=1).met(e, 1, 4)
    assert not Adaptive(share=0.1, patch=1, threshold=1, min_us=1).met(e, 1, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ByTime(0),
        lambda: ByTime(2.5),
        lambda: ByCount(0),
        lambda: ByCount(True),
        lambda: Adaptive(share=0),
        lambda: Adaptive(share=1.1),
        lambda: Adaptive(share=None),
        lambda: Adaptive(share=math.nan),
        lambda: Adaptive(events=0),
        lambda: Adaptive(patch=0),
        lambda: Adaptive(threshold=0),
        lambda: Adaptive(min_us=2, max_us=1),
        lambda: Adaptive(min_us=0),
        lambda: ByTime(5).around(Events.empty(2, 2), 0, "behind"),
        lambda: list(cover(Events([0], [0], [0], [0], 2, 2), ByTime(5), 0)),
    ],
)
def test_settings_that_make_no_sense(make):
    with pytest.raises(ConfigError):
        make()


def test_what_cannot_be_looked_up_is_named():
    for use in (lambda: list(cover([1], ByTime(5))), lambda: ByCount(5).around("file.raw", 5)):
        with pytest.raises(InputError, match=r"not in (list|str); convert"):
            use()


def test_damaged_words_and_index_are_refused_or_followed_within_bounds(tmp_path):
    rng = np.random.default_rng(0)
    n = 600
    e = Events(rng.integers(0, 64, n), rng.integers(0, 48, n), np.sort(rng.integers(0, 50_000, n)), [1] * n, 48, 64)
    refused = 0
    for trial in range(60):
        path = tmp_path / f"r{trial}"
        write_recording(path, e)
        with open(path / ("events.u32" if trial % 2 else "ms_index.npy"), "r+b") as f:
            raw = bytearray(f.read())
            for _ in range(20):
                raw[rng.integers(0 if trial % 2 else 136, len(raw) - 8)] = rng.integers(0, 256)
            f.seek(0)
            f.write(raw)
        r = open_recording(path)
        for t in rng.integers(-1000, 52_000, 10):
            for where in WHERE:
                for rule in (ByCount(40), Adaptive(share=0.3, threshold=2, max_us=40_000)):
                    try:
                        t0, t1 = rule.around(r, int(t), where)
                        assert t0 <= t1
                    except InputError as error:
                        refused += 1
                        assert "damaged" in str(error)
    assert refused > 20


def test_a_real_recording_moves_more_than_its_pauses(tmp_path):
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "slider_depth" / "events.txt"
    if not path.is_file():
        pytest.skip("the slider_depth sample (shared/data) is not here")
    t, x, y, p = np.loadtxt(path, max_rows=20_000).T
    e = Events(x.astype(int), y.astype(int), np.round(t * 1e6).astype(int), p.astype(int), 180, 240)
    rule = Adaptive(share=0.25, patch=16, threshold=16, min_us=1000, max_us=10**6)
    middle = (e.t_first + e.t_last) // 2
    windows = [rule.around(source, middle, where) for source in sources(e, tmp_path) for where in WHERE]
    assert windows[:3] == windows[3:]
    for t0, t1 in windows:
        assert rule.met(e, t0, t1) and not rule.met(e, t0 + 1, t1 - 1)
