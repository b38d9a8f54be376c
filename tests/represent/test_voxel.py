"""The voxel grid against the plain definition in float64, from columns and from packed words."""

import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import ConfigError, InputError
from evlift.events import Events, Window
from evlift.represent import REPRESENTATIONS, Histogram, TimeSurface, VoxelGrid, build


def reference(events, bins):
    """The definition, one event at a time, in float64."""
    grid = np.zeros((bins, events.height, events.width))
    t0, span = events.t_first, events.duration_us
    for x, y, t, p in zip(events.x, events.y, events.t.tolist(), events.p, strict=True):
        at = (t - t0) * (bins - 1) / span if span else 0.0
        k = int(at)
        w, v = at - k, 1.0 if p else -1.0
        grid[k, y, x] += v * (1 - w)
        if k + 1 < bins:
            grid[k + 1, y, x] += v * w
    return grid


def assert_equal_grids(grid, expected):
    assert grid.dtype == np.float32
    np.testing.assert_allclose(grid, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10), st.integers(0, 9))
def test_grid_is_the_definition_from_columns_and_words(stream, as_window, seed, bins, lead):
    events = stream(seed)
    before = [getattr(events, c).copy() for c in "xytp"]
    grid = VoxelGrid(bins)
    expected = reference(events, bins)
    out = np.full((bins, events.height, events.width), np.nan, np.float32)
    assert grid(events, out=out) is out
    assert_equal_grids(out, expected)
    assert_equal_grids(grid(as_window(events, lead)), expected)
    assert all(np.array_equal(a, getattr(events, c)) for a, c in zip(before, "xytp", strict=True))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_split_by_polarity_are_the_two_grids_of_shares(stream, as_window, seed, bins):
    events = stream(seed)
    grid = VoxelGrid(bins, polarity="split")
    assert grid.channels == 2 * bins
    expected = np.zeros((2, bins, events.height, events.width))
    t0, span = events.t_first, events.duration_us
    for x, y, t, p in zip(events.x, events.y, events.t.tolist(), events.p, strict=True):
        at = (t - t0) * (bins - 1) / span if span else 0.0
        for k in range(bins):
            expected[int(p), k, y, x] += max(0.0, 1 - abs(at - k))
    expected = expected.reshape(2 * bins, events.height, events.width)
    assert_equal_grids(grid(events), expected)
    assert_equal_grids(grid(as_window(events)), expected)


@pytest.mark.parametrize("bins", range(1, 11))
def test_events_on_bin_centres_fall_into_one_bin(as_window, bins):
    k = np.arange(bins)
    t = 500 + k * 1000
    if bins == 1:
        t = np.array([500])
    events = Events(k, k, t, np.ones(bins, bool), bins, bins)
    expected = np.zeros((bins, bins, bins))
    expected[k, k, k] = 1
    assert_equal_grids(VoxelGrid(bins)(events), expected)
    assert_equal_grids(VoxelGrid(bins)(as_window(events)), expected)


def test_polarity_is_signed_whatever_its_dtype(source):
    for p in (np.array([True, False]), np.array([1, 0], np.uint8), np.array([1, -1], np.int8)):
        grid = VoxelGrid(2)(source(Events([0, 1], [0, 0], [0, 10], p, 1, 2)))
        assert grid.tolist() == [[[1, 0]], [[0, -1]]]


@pytest.mark.parametrize("bins", [1, 2, 5])
def test_one_timestamp_goes_to_the_first_bin_and_none_to_no_bin(source, bins):
    grid = VoxelGrid(bins)
    out = np.full((bins, 2, 3), 7, np.float32)
    grid(source(Events([2, 2, 0], [1, 1, 0], [42, 42, 42], [1, 1, 0], 2, 3)), out=out)
    expected = np.zeros((bins, 2, 3))
    expected[0] = [[-1, 0, 0], [0, 0, 2]]
    assert_equal_grids(out, expected)
    grid(source(Events.empty(2, 3)), out=out)
    assert not out.any()


@pytest.mark.parametrize("bins", [1, 2, 3])
def test_crowded_pixels_and_more_events_than_a_cell_may_hold(as_window, bins):
    # 1.3 million events on three pixels: cells are spread several times within an interval.
    n = 1_300_000
    rng = np.random.default_rng(3)
    x = rng.integers(0, 3, n)
    t = np.sort(rng.integers(0, 900, n))
    p = (x == 0) | ((x == 1) & (rng.random(n) < 0.5))
    events = Events(x, np.zeros(n, int), t, p, 1, 3)
    at = (t - t[0]) * max(bins - 1, 0) / (t[-1] - t[0])
    v = np.where(p, 1.0, -1.0)
    expected = np.stack(
        [np.bincount(x, v * np.clip(1 - abs(at - k), 0, None), minlength=3) for k in range(bins)]
    ).reshape(bins, 1, 3)
    for source in (events, as_window(events)):
        # The balanced pixel's sum is a thousandth of what was added: 1e-5 of that sum is the bar for it.
        np.testing.assert_allclose(VoxelGrid(bins)(source), expected, rtol=1e-5, atol=2e-3)


def test_long_and_sparse_streams_keep_their_precision():
    for span in (3 * 10**9, 10**13, 10**15):
        rng = np.random.default_rng(0)
        t = np.sort(np.append(rng.integers(0, span, 998), [0, span]))
        events = Events(rng.integers(0, 9, 1000), rng.integers(0, 9, 1000), t, rng.integers(0, 2, 1000), 9, 9)
        assert_equal_grids(VoxelGrid(7)(events), reference(events, 7))
    with pytest.raises(InputError, match="span"):
        VoxelGrid(3)(Events([0, 0], [0, 0], [-(2**62), 2**62], [0, 1], 1, 1))


def test_strided_and_read_only_columns():
    table = np.random.default_rng(1).integers(0, 8, (2, 500)).astype(np.uint16).T
    t, p = np.arange(0, 2000, 2)[::2].copy(), np.arange(1000)[::2] % 3 == 0
    t.flags.writeable = False
    events = Events(table[:, 0], table[:, 1], t, p, 8, 8)
    assert_equal_grids(VoxelGrid(4)(events), reference(events, 4))
    assert_equal_grids(VoxelGrid(4)(events[::3]), reference(events[::3], 4))


def test_damaged_words_are_refused_and_leave_no_trace(as_window):
    rng = np.random.default_rng(2)
    n = 5000
    events = Events(rng.integers(0, 30, n), rng.integers(0, 20, n), np.sort(rng.integers(0, 9000, n)), n * [1], 20, 30)
    good = as_window(events)
    expected = VoxelGrid(5)(events)

    def damaged(**changes):
        parts = {k: changes.get(k, getattr(good, k)) for k in Window.__dataclass_fields__}
        return Window(**parts)

    def word(i, value):
        words = good.words.copy()
        words[i] = value
        return words

    outside = [good.words[2500] | 0x7FF, good.words[2500] | (0x3FF << 11)]
    for value in outside:
        with pytest.raises(InputError, match="outside the sensor"):
            VoxelGrid(5)(damaged(words=word(2500, value)))
    for i in (0, 2500):
        with pytest.raises(InputError, match="out of order"):
            VoxelGrid(10)(damaged(words=word(i, good.words[i] | (0x3FF << 22))))
    for offsets in (good.offsets[::-1].copy(), good.offsets * 3 + 1, good.offsets - 2**40, good.offsets[:1]):
        with pytest.raises(InputError, match="damaged"):
            VoxelGrid(5)(damaged(offsets=offsets))
    # The working memory was cleaned: the next grid holds nothing of the failed ones.
    assert np.array_equal(VoxelGrid(5)(good), VoxelGrid(5)(good))
    np.testing.assert_allclose(VoxelGrid(5)(good), expected, atol=1e-5)


@pytest.mark.parametrize("representation", [VoxelGrid(1), VoxelGrid(2), Histogram(2), TimeSurface()], ids=repr)
def test_damage_that_keeps_the_order_is_refused_too(as_window, representation):
    good = as_window(Events([0, 1, 1], [0, 0, 1], [1000, 1500, 3600], [1, 1, 1], 2, 2))
    representation(good)
    words = good.words | np.array([0, 0x3FF << 22, 0], np.uint32)  # 1023 µs after the start of its millisecond
    with pytest.raises(InputError, match="out of order"):
        representation(replace(good, words=words))
    offsets = np.append(0, good.offsets)  # the first event lies in the second millisecond
    with pytest.raises(InputError, match="do not fit their index"):
        representation(replace(good, offsets=offsets))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10))
def test_random_words_and_indices_never_leave_the_grid(seed, bins):
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 3000)), int(rng.integers(1, 12))
    words = rng.integers(0, 2**32, n, dtype=np.uint32)
    if rng.random() < 0.7:  # inside the sensor, so that only the times are wrong
        words &= np.uint32(0xFFC0_1C07 | 1 << 21)
    offsets = rng.integers(-5, n + 5, m + 1)
    if rng.random() < 0.7:
        offsets = np.sort(offsets)
        offsets[0], offsets[-1] = 0, n
    window = Window(words, offsets, 0, 0, 0, 1000 * m, 8, 8)
    guard = np.full((bins + 2, 8, 8), 5, np.float32)
    try:
        VoxelGrid(bins)(window, out=guard[1:-1])
    except InputError:
        pass
    assert (guard[0] == 5).all() and (guard[-1] == 5).all()
    assert not VoxelGrid(bins)(Events([0], [0], [0], [True], 8, 8))[0, 1:].any()  # nothing left behind


@pytest.mark.parametrize(
    "out",
    [
        np.empty((5, 4, 3), np.float32),
        np.empty((5, 3, 4)),
        np.empty((5, 3, 8), np.float32)[:, :, ::2],
        np.frombuffer(bytes(240), np.float32).reshape(5, 3, 4),
    ],
)
def test_an_output_that_does_not_fit_is_refused(out):
    with pytest.raises(InputError, match="out is"):
        VoxelGrid(5)(Events([0], [0], [0], [True], 3, 4), out=out)


def test_threads_do_not_share_working_memory():
    rng = np.random.default_rng(5)
    n = 200_000
    streams = [
        Events(rng.integers(0, 99, n), rng.integers(0, 99, n), np.sort(rng.integers(0, 10**5, n)), n * [i], 99, 99)
        for i in (0, 1)
    ]
    expected = [VoxelGrid(5)(e) for e in streams]
    wrong = []

    def work(i):
        for _ in range(20):
            if not np.array_equal(VoxelGrid(5)(streams[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_config_round_trip_and_its_errors():
    for name in REPRESENTATIONS:
        made = build({"name": name})
        assert made.config()["name"] == name and build(made.config()) == made
    assert build({"name": "voxel-grid", "bins": 3}) == VoxelGrid(3) and VoxelGrid(3).channels == 3
    for config in (
        {"name": "voxels"},
        {"name": ["voxel-grid"]},
        {},
        {"name": "voxel-grid", "bin": 3},
        {"name": "voxel-grid", "bins": 0},
    ):
        with pytest.raises(ConfigError):
            build(config)
    assert VoxelGrid(5).config() == {"name": "voxel-grid", "bins": 5}
    assert build(VoxelGrid(5, polarity="split").config()) == VoxelGrid(5, polarity="split") != VoxelGrid(5)
    with pytest.raises(ConfigError, match="polarity"):
        VoxelGrid(5, polarity="both")
    for bins in (-1, 2.5, True, "5", 10**6):
        with pytest.raises(ConfigError):
            VoxelGrid(bins)


def test_importing_loads_neither_torch_nor_numba():
    code = "import sys, evlift.represent; print([m for m in ('torch', 'numba', 'cv2', 'pyarrow') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert run.stdout.strip() == "[]"
