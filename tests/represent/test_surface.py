"""The time surface against the plain definition in float64."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import ConfigError, InputError
from evlift.events import Events, Window
from evlift.represent import TimeSurface, build


def reference(events, decay):
    surface = np.zeros((2, events.height, events.width))
    for x, y, t, p in zip(events.x, events.y, events.t.tolist(), events.p, strict=True):
        surface[int(p), y, x] = math.exp(-(events.t_last - t) / decay)
    return surface


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 700.5, 50_000, 1e9]), st.integers(0, 9))
def test_surface_is_the_definition_from_columns_and_words(stream, as_window, seed, decay, lead):
    events = stream(seed)
    surface = TimeSurface(decay)
    out = np.full((2, events.height, events.width), np.nan, np.float32)
    assert surface(events, out=out) is out
    # Below 1e-37 float32 itself has fewer digits.
    np.testing.assert_allclose(out, reference(events, decay), rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(surface(as_window(events, lead)), reference(events, decay), rtol=1e-5, atol=1e-37)


def test_a_small_example_by_hand(source):
    events = Events([0, 1, 0, 2], [0, 0, 0, 0], [0, 500, 1000, 2000], [1, 1, 1, 0], 1, 3)
    surface = TimeSurface(1000)(source(events))
    np.testing.assert_allclose(surface, [[[0, 0, 1]], [[math.exp(-1), math.exp(-1.5), 0]]], rtol=1e-6)
    assert not TimeSurface(1000)(source(Events.empty(1, 3))).any()


def test_events_long_ago_and_spans_beyond_32_bits():
    events = Events([0, 1, 2], [0, 0, 0], [-(10**14), 0, 10**10], [1, 1, 1], 1, 3)
    np.testing.assert_allclose(TimeSurface(10**10)(events)[1, 0], [0, math.exp(-1), 1], rtol=1e-6)
    with pytest.raises(InputError, match="span"):
        TimeSurface(1)(Events([0, 0], [0, 0], [-(2**62), 2**62], [0, 1], 1, 1))


def test_damaged_words_are_refused(as_window):
    n = 3000
    events = Events(np.arange(n) % 30, np.arange(n) % 20, np.arange(n) * 3, np.arange(n) % 2, 20, 30)
    good = as_window(events)
    for change, message in ((0x7FF, "outside"), (0x3FF << 11, "outside"), (0x3FF << 22, "out of order")):
        words = good.words.copy()
        words[1500] |= np.uint32(change)
        with pytest.raises(InputError, match=message):
            TimeSurface()(Window(words, *(getattr(good, k) for k in list(Window.__dataclass_fields__)[1:])))
    for offsets in (good.offsets[::-1].copy(), good.offsets * 3 + 1, good.offsets[:1]):
        with pytest.raises(InputError, match="index"):
            TimeSurface()(Window(good.words, offsets, 0, 0, 0, 9000, 20, 30))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_words_and_indices_never_leave_the_surface(seed):
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 3000)), int(rng.integers(1, 12))
    words = rng.integers(0, 2**32, n, dtype=np.uint32)
    offsets = np.sort(rng.integers(-5, n + 5, m + 1))
    guard = np.full((4, 8, 8), 5, np.float32)
    for mask in (0xFFFF_FFFF, 0xFFC0_1C07 | 1 << 21):
        try:
            TimeSurface()(Window(words & np.uint32(mask), offsets, 0, 0, 0, 1000 * m, 8, 8), out=guard[1:-1])
        except InputError:
            pass
        assert (guard[0] == 5).all() and (guard[-1] == 5).all()


def test_config_round_trip_and_its_errors():
    assert TimeSurface(30_000).config() == {"name": "time-surface", "decay_us": 30_000.0}
    assert build(TimeSurface(30_000).config()) == TimeSurface(30_000) and TimeSurface().channels == 2
    for decay in (0, -1, math.inf, math.nan, "5", True):
        with pytest.raises(ConfigError):
            TimeSurface(decay)
