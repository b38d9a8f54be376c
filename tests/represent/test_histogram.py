"""The stacked histogram against the plain definition in whole numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import ConfigError, InputError
from evlift.events import Events, Window
from evlift.represent import Histogram, VoxelGrid, build


def reference(events, bins, most=2**24):
    """The definition, one event at a time, in Python's whole numbers."""
    counts = np.zeros((2, bins, events.height, events.width))
    t0, span = events.t_first, max(events.duration_us, 1)
    for x, y, t, p in zip(events.x, events.y, events.t.tolist(), events.p, strict=True):
        counts[int(p), min((t - t0) * bins // span, bins - 1), y, x] += 1
    return np.minimum(counts, most).reshape(2 * bins, events.height, events.width)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(0, 9), st.sampled_from([1, 2, 255, None]))
def test_counts_are_the_definition_from_columns_and_words(stream, as_window, seed, bins, lead, most):
    events = stream(seed)
    before = [getattr(events, c).copy() for c in "xytp"]
    histogram = Histogram(bins, max_count=most)
    expected = reference(events, bins, most or 2**24)
    out = np.full((2 * bins, events.height, events.width), np.nan, np.float32)
    assert histogram(events, out=out) is out
    assert np.array_equal(out, expected)
    assert np.array_equal(histogram(as_window(events, lead)), expected)
    assert all(np.array_equal(a, getattr(events, c)) for a, c in zip(before, "xytp", strict=True))


def test_a_small_example_by_hand(source):
    # Two bins of 0..10 µs: 4 and below in the first, 5 and above in the second, the last event with them.
    events = Events([0, 1, 1, 0], [0, 0, 0, 0], [100, 104, 105, 110], [1, 0, 1, 1], 1, 2)
    assert Histogram(2)(source(events)).tolist() == [[[0, 1]], [[0, 0]], [[1, 0]], [[1, 1]]]
    assert Histogram(1)(source(events)).tolist() == [[[0, 1]], [[2, 1]]]  # the event count image


def test_one_timestamp_goes_to_the_first_bin_and_none_to_no_bin(source):
    out = np.full((6, 2, 3), 7, np.float32)
    Histogram(3)(source(Events([2, 2, 0], [1, 1, 0], [42, 42, 42], [1, 1, 0], 2, 3)), out=out)
    expected = np.zeros((6, 2, 3))
    expected[0, 0, 0], expected[3, 1, 2] = 1, 2
    assert np.array_equal(out, expected)
    Histogram(3)(source(Events.empty(2, 3)), out=out)
    assert not out.any()


def test_crowded_pixels_saturate_and_never_wrap(source):
    # 400,000 events on two pixels: far more than the 16 bits in which a bin is counted.
    n = 400_000
    x = np.arange(n) % 4 == 0
    events = Events(x.astype(int), np.zeros(n, int), np.arange(n), ~x, 1, 2)
    assert Histogram(1, max_count=None)(source(events)).tolist() == [[[0, n / 4]], [[3 * n / 4, 0]]]
    assert Histogram(2, max_count=70_000)(source(events)).ravel().tolist() == [0, 50_000, 0, 50_000] + [70_000, 0] * 2
    assert Histogram(1)(source(events)).tolist() == [[[0, 255]], [[255, 0]]]


def test_bounds_that_do_not_fall_on_whole_microseconds():
    t = np.array([0, 3, 4, 6, 7, 10])
    zero = np.zeros(6, int)
    counts = Histogram(3)(Events(zero, zero, t, zero + 1, 1, 1))[3:].ravel()  # bounds at 3.33 and 6.67 µs
    assert counts.tolist() == [2, 2, 2]


def test_damaged_words_are_refused_and_leave_no_trace(as_window):
    rng = np.random.default_rng(2)
    n = 5000
    events = Events(rng.integers(0, 30, n), rng.integers(0, 20, n), np.sort(rng.integers(0, 9000, n)), n * [1], 20, 30)
    good = as_window(events)

    def damaged(**changes):
        return Window(**{k: changes.get(k, getattr(good, k)) for k in Window.__dataclass_fields__})

    def word(i, value):
        words = good.words.copy()
        words[i] = value
        return words

    for value in (good.words[2500] | 0x7FF, good.words[2500] | (0x3FF << 11)):
        with pytest.raises(InputError, match="outside the sensor"):
            Histogram(5)(damaged(words=word(2500, value)))
    for i in (0, 2500):
        with pytest.raises(InputError, match="out of order"):
            Histogram(10)(damaged(words=word(i, good.words[i] | (0x3FF << 22))))
    for offsets in (good.offsets[::-1].copy(), good.offsets * 3 + 1, good.offsets - 2**40, good.offsets[:1]):
        with pytest.raises(InputError, match="damaged"):
            Histogram(5)(damaged(offsets=offsets))
    assert np.array_equal(Histogram(5)(good), Histogram(5)(events))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10))
def test_random_words_and_indices_never_leave_the_counts(seed, bins):
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 3000)), int(rng.integers(1, 12))
    words = rng.integers(0, 2**32, n, dtype=np.uint32)
    if rng.random() < 0.7:  # inside the sensor, so that only the times are wrong
        words &= np.uint32(0xFFC0_1C07 | 1 << 21)
    offsets = rng.integers(-5, n + 5, m + 1)
    if rng.random() < 0.7:
        offsets = np.sort(offsets)
        offsets[0], offsets[-1] = 0, n
    guard = np.full((2 * bins + 2, 8, 8), 5, np.float32)
    try:
        Histogram(bins)(Window(words, offsets, 0, 0, 0, 1000 * m, 8, 8), out=guard[1:-1])
    except InputError:
        pass
    assert (guard[0] == 5).all() and (guard[-1] == 5).all()
    assert Histogram(bins)(Events([0], [0], [0], [True], 8, 8)).sum() == 1  # nothing left behind


def test_the_total_is_that_of_the_split_voxel_grid(stream):
    events = stream(7, 30, 40)
    grid = VoxelGrid(4, polarity="split")(events).reshape(2, 4, 30, 40).sum(1)
    np.testing.assert_allclose(Histogram(1)(events), grid, rtol=1e-5, atol=1e-5)


def test_config_round_trip_and_its_errors():
    assert Histogram(10).config() == {"name": "histogram", "bins": 10, "max_count": 255}
    assert build(Histogram(3, max_count=None).config()) == Histogram(3, max_count=None)
    assert Histogram(10).channels == 20
    for bad in ({"bins": 0}, {"bins": 2.0}, {"max_count": 0}, {"max_count": True}, {"max_count": 2.5}):
        with pytest.raises(ConfigError):
            Histogram(**bad)
    with pytest.raises(InputError, match="out is"):
        Histogram(2)(Events.empty(3, 4), out=np.empty((2, 3, 4), np.float32))
