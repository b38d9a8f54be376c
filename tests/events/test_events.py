"""Events: what they take, what they refuse, and their slices against plain comparisons."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evlift.errors import InputError
from evlift.events import Events


@st.composite
def events(draw, max_size=200):
    n = draw(st.integers(0, max_size))
    height, width = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    t = np.sort(rng.integers(0, draw(st.sampled_from([1, 50, 5000, 10**7])), n)) + draw(st.integers(-(10**6), 10**12))
    return Events(rng.integers(0, width, n), rng.integers(0, height, n), t, rng.integers(0, 2, n), height, width)


def rows(e):
    return list(zip(e.x.tolist(), e.y.tolist(), e.t.tolist(), e.p.tolist(), strict=True))


def test_columns_of_the_right_dtype_are_kept_and_others_converted():
    x, t, p = np.array([3, 4], np.uint16), np.array([5, 9], np.int64), np.array([True, False])
    e = Events(x, x, t, p, 10, 20)
    assert e.x is x and e.y is x and e.t is t and e.p is p
    for dtype in (np.int8, np.uint8, np.int32, np.int64, np.uint64):
        e = Events(x.astype(dtype), x.astype(dtype), t.astype(dtype), p.astype(dtype), 10, 20)
        assert [a.dtype for a in (e.x, e.y, e.t, e.p)] == [np.uint16, np.uint16, np.int64, bool]
        assert rows(e) == [(3, 3, 5, True), (4, 4, 9, False)]
    assert Events([1], [2], [3], [-1], 5, 5).p.tolist() == [False]
    assert Events([1, 1], [2, 2], [3, 3], np.array([-1, 1], np.int8), 5, 5).p.tolist() == [False, True]
    assert len(Events([], [], [], [], 5, 5)) == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": [0, 8]}, "width is 8"),
        ({"x": [-1, 3]}, "from -1"),
        ({"y": [0, 6]}, "height is 6"),
        ({"t": [5, 4]}, "goes back from 5 to 4"),
        ({"t": [0.5, 1.5]}, "whole numbers"),
        ({"t": np.array([1, 2**63], np.uint64)}, "beyond 64 bits"),
        ({"p": [0, 2]}, "polarity"),
        ({"p": [-1, 0]}, "polarity"),
        ({"p": np.array([0, 255], np.uint8)}, "polarity"),
        ({"p": [True]}, r"\[2, 2, 2, 1\]"),
        ({"x": [[1, 2]]}, "shape"),
        ({"height": 0}, "height"),
        ({"width": 2.5}, "width"),
        ({"width": 65537}, "width"),
    ],
)
def test_what_cannot_be_events_is_refused_in_one_line(change, says):
    parts = {"x": [0, 7], "y": [0, 5], "t": [1, 2], "p": [0, 1], "height": 6, "width": 8} | change
    with pytest.raises(InputError, match=says) as error:
        Events(**parts)
    assert "\n" not in str(error.value) and ";" in str(error.value)


@given(events(), st.integers(-(10**6) - 5, 10**12), st.integers(0, 10**7), st.sampled_from([0, 0.25, 0.5]))
def test_between_is_half_open(e, t0, length, fraction):
    if len(e):  # bounds on, just before and just after events matter most
        t0 = e.t[t0 % len(e)] + t0 % 3 - 1
    t0, t1 = t0 + fraction, t0 + length + fraction
    part = e.between(t0, t1)
    assert rows(part) == [r for r in rows(e) if t0 <= r[2] < t1]
    assert len(part) == 0 or np.shares_memory(part.t, e.t)
    assert e.between(float("-inf"), float("inf")) == e
    if length:
        with pytest.raises(InputError, match="ends"):
            e.between(t1, t0)
    with pytest.raises(InputError, match="NaN"):
        e.between(float("nan"), 0)
    with pytest.raises(InputError, match="time"):
        e.between("1", 2)


@given(events(), st.integers(1, 10**6))
def test_windows_and_chunks_put_together_are_the_events(e, duration):
    duration = max(duration, e.duration_us // 50)
    windows = list(e.windows(duration))
    assert [r for w in windows for r in rows(w)] == rows(e)
    assert all(w.duration_us < duration for w in windows)
    assert len(windows) == (-(-(e.duration_us + 1) // duration) if len(e) else 0)
    chunks = list(e.chunks(7))
    assert [r for c in chunks for r in rows(c)] == rows(e) and all(len(c) == 7 for c in chunks[:-1])
    if len(e):
        assert Events.concatenate(windows) == e == Events.concatenate(iter(chunks))
    start = e.t_first + 3
    assert [rows(w) for w in e.windows(10, start, start + 25)] == [
        rows(e.between(start + a, start + b)) for a, b in ((0, 10), (10, 20), (20, 25))
    ]


@given(events())
def test_crop_and_flip_follow_their_definitions(e):
    x0, y0 = e.width // 3, e.height // 4
    w, h = max(1, e.width // 2), max(1, e.height // 2)
    cut = e.crop(x0, y0, w, h)
    inside = [r for r in rows(e) if x0 <= r[0] < x0 + w and y0 <= r[1] < y0 + h]
    assert rows(cut) == [(x - x0, y - y0, t, p) for x, y, t, p in inside] and (cut.height, cut.width) == (h, w)
    assert rows(e.flip_x()) == [(e.width - 1 - x, y, t, p) for x, y, t, p in rows(e)]
    assert e.flip_x().flip_x() == e
    assert cut.x.dtype == e.flip_x().x.dtype == np.uint16
    for box in ((0, 0, e.width + 1, 1), (-1, 0, 1, 1), (0, e.height, 1, 1), (0, 0, 0, 1)):
        with pytest.raises(InputError, match="crop"):
            e.crop(*box)


def test_concatenate_refuses_overlap_other_sizes_and_nothing():
    a, b = Events([0], [0], [5], [1], 2, 2), Events([1], [1], [4], [0], 2, 2)
    assert rows(Events.concatenate([b, Events.empty(2, 2), a])) == [(1, 1, 4, False), (0, 0, 5, True)]
    for parts in ([a, b], [a, Events.empty(3, 2)], []):
        with pytest.raises(InputError):
            Events.concatenate(parts)


def test_slices_equality_pickling_and_repr():
    e = Events([0, 1, 2], [0, 0, 0], [10, 20, 30], [1, 0, 1], 4, 5)
    assert e[1:] == Events([1, 2], [0, 0], [20, 30], [0, 1], 4, 5) and e[1:] != e and e != "events"
    assert pickle.loads(pickle.dumps(e)) == e
    assert repr(e) == "Events(3, 5×4, 10..30 µs, 67% on)" and repr(e[:0]) == "Events(none, 5×4)"
    with pytest.raises(InputError):
        e[::-1]
    with pytest.raises(TypeError):
        e[0]
    with pytest.raises(InputError):
        list(e.chunks(0))
    with pytest.raises(InputError):
        list(e.windows(0))
    with pytest.raises(AttributeError):
        e.height = 3


def test_importing_events_loads_nothing_heavy():
    heavy = ("torch", "numba", "cv2", "pyarrow", "simplejpeg", "evlift.represent")
    code = f"import sys, evlift.events; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert run.stdout.strip() == "[]"
