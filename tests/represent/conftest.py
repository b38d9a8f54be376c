"""Streams of events, and the same events as a window of packed words."""

import numpy as np
import pytest

from evlift.events import Events, Window
from evlift.events.packed import pack


def window_of(events, lead=0):
    """Events as a window of packed words, the recording's numbering starting ``lead`` events earlier."""
    ms = events.t // 1000
    first = int(ms[0]) if len(events) else 0
    count = int(ms[-1]) - first + 1 if len(events) else 0
    offsets = np.searchsorted(events.t, (first + np.arange(count + 1)) * 1000).astype(np.int64) + lead
    offsets[:1] -= lead // 2  # the window may begin inside its first millisecond
    t0 = events.t_first
    return Window(pack(events), offsets, lead, first, t0, events.t_last + 1, events.height, events.width)


def stream_of(seed, height=None, width=None):
    """0 to 300 events, anything from one time to 10 s, from before zero to today, any dtype of polarity."""
    rng = np.random.default_rng(seed)
    height, width = height or int(rng.integers(1, 41)), width or int(rng.integers(1, 41))
    n = int(rng.integers(0, 301)) if rng.random() < 0.9 else int(rng.integers(0, 3))
    span = rng.choice([1, 2, 3, 7, 1000, 4000, 50_000, 10**7])
    start = rng.choice([0, -12_345, 999, 1_700_000_000_000_000])
    dtype = rng.choice(["bool", "int8", "uint8"])
    p = rng.integers(0, 2, n)
    p = 2 * p - 1 if dtype == "int8" else p
    t = start + np.sort(rng.integers(0, span, n))
    return Events(rng.integers(0, width, n), rng.integers(0, height, n), t, p.astype(dtype), height, width)


@pytest.fixture(scope="session")
def as_window():
    return window_of


@pytest.fixture(scope="session")
def stream():
    return stream_of


@pytest.fixture(params=["columns", "words"])
def source(request):
    """Events as they are, or as a window of packed words."""
    return window_of if request.param == "words" else lambda events: events
