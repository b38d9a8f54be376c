"""Bilinear in space against DSEC's definition, event by event in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import InputError
from evlift.events import Events
from evlift.represent import Histogram, VoxelGrid, rectify


def reference(events, bins, places):
    """Every event shared among 4 pixels and 2 bins, what falls outside dropped."""
    grid = np.zeros((bins, events.height, events.width))
    t0, span = events.t_first, events.duration_us
    for x, y, t, p in zip(events.x, events.y, events.t.tolist(), events.p, strict=True):
        at = (t - t0) * (bins - 1) / span if span else 0.0
        rx, ry = places[y, x].astype(float)
        if not (abs(rx) < 1e6 and abs(ry) < 1e6):
            continue
        for k in (int(at), int(at) + 1):
            for row in (int(np.floor(ry)), int(np.floor(ry)) + 1):
                for column in (int(np.floor(rx)), int(np.floor(rx)) + 1):
                    if k < bins and 0 <= row < events.height and 0 <= column < events.width:
                        share = (1 - abs(k - at)) * (1 - abs(row - ry)) * (1 - abs(column - rx))
                        grid[k, row, column] += share if p else -share
    return grid


def pixel_centres(height, width):
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([0.0, 0.4, 3.0, 100.0]))
def test_it_is_the_shared_events_of_dsec(stream, as_window, seed, bins, shift):
    events = stream(seed)
    rng = np.random.default_rng(seed)
    places = pixel_centres(events.height, events.width)
    places += rng.normal(0, shift, places.shape) if shift else 0
    places[rng.random(places.shape[:2]) < 0.02] = rng.choice([-np.inf, np.inf, 1e30, -1e30])
    expected = reference(events, bins, places)
    kept = places.copy()
    for given_ in (events, as_window(events)):
        grid = VoxelGrid(bins)(given_)
        before = grid.copy()
        out = np.full_like(grid, np.nan)
        assert rectify(grid, places, out=out) is out
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=2e-5)
        assert np.array_equal(grid, before) and np.array_equal(places, kept)


def test_whole_places_move_pixels_and_the_border_drops():
    counts = Histogram(1)(Events([0, 1, 2], [0, 0, 1], [0, 1, 2], [1, 1, 0], 2, 3))
    centres = pixel_centres(2, 3)
    assert np.array_equal(rectify(counts, centres), counts)
    assert rectify(counts, centres + np.float32(1)).tolist() == [[[0, 0, 0]] * 2, [[0, 0, 0], [0, 1, 1]]]
    half = rectify(counts, centres - np.array([0.5, 0], np.float32))
    assert half.tolist() == [[[0, 0, 0], [0, 0.5, 0.5]], [[1, 0.5, 0], [0, 0, 0]]]


def test_places_too_far_for_float32_fall_outside():
    places = pixel_centres(2, 2).astype(float)
    places[0, 0], places[1, 1, 0] = 1e300, -1e300
    assert rectify(np.ones((1, 2, 2), np.float32), places).tolist() == [[[0, 1], [1, 0]]]


def test_what_does_not_fit_is_refused():
    grid, places = np.zeros((2, 3, 4), np.float32), pixel_centres(3, 4)
    for bad in (grid[0], grid.astype(float), grid[:0]):
        with pytest.raises(InputError, match="the grid is"):
            rectify(bad, places)
    for bad in (places[:2], places[..., 0], places.astype(int)):
        with pytest.raises(InputError, match="the places are"):
            rectify(grid, bad)
    places[1, 2, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        rectify(grid, places)
    with pytest.raises(InputError, match="own grid"):
        rectify(grid, pixel_centres(3, 4), out=grid)
    with pytest.raises(InputError, match="out is"):
        rectify(grid, pixel_centres(3, 4), out=np.zeros((1, 3, 4), np.float32))
    assert np.array_equal(rectify(grid[:, :, ::-1], pixel_centres(3, 4).astype(float)), grid)
