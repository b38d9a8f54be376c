"""Filters against plain loops over single events, and in pieces against the whole."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import ConfigError, InputError
from evlift.events import Events
from evlift.events.filters import (
    BackgroundActivity,
    Crop,
    Flip,
    HotPixels,
    Polarity,
    RateLimit,
    Rectify,
    Refractory,
    Scale,
    filter_stream,
    find_hot_pixels,
    hot_pixels,
    rectify_map,
)

EVBENCH = Path(__file__).resolve().parents[3] / "shared" / "data" / "evbench"


@st.composite
def events(draw):
    """Few pixels and short times, so that events meet; strided and read-only columns too."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(0, 300))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    t = np.sort(rng.integers(0, draw(st.sampled_from([1, 40, 3000])), n)) + draw(st.sampled_from([0, -1500, 10**15]))
    e = Events(rng.integers(0, width, n), rng.integers(0, height, n), t, rng.integers(0, 2, n), height, width)
    for column in (e.x, e.y, e.t, e.p):
        column.flags.writeable = False
    return e[::2] if draw(st.booleans()) else e


def rows(e):
    return list(zip(e.x.tolist(), e.y.tolist(), e.t.tolist(), e.p.tolist(), strict=True))


def cuts(e, data):
    """The events in consecutive pieces, some of them empty."""
    at = sorted(data.draw(st.lists(st.integers(0, len(e)), max_size=6)))
    return [e[a:b] for a, b in zip([0, *at], [*at, len(e)], strict=True)]


def refractory_loop(e, us):
    last, kept = {}, []
    for x, y, t, p in rows(e):
        if (x, y) not in last or t - last[x, y] >= us:
            last[x, y] = t
            kept.append((x, y, t, p))
    return kept


def background_loop(e, us):
    kept, before = [], []
    for x, y, t, p in rows(e):
        if any(max(abs(x - u), abs(y - v)) == 1 and t - s < us for u, v, s in before):
            kept.append((x, y, t, p))
        before.append((x, y, t))
    return kept


def rate_loop(e, rate, period):
    groups = {}
    for row in rows(e):
        groups.setdefault(row[2] // period, []).append(row)
    kept = []
    for k, group in sorted(groups.items()):
        r = Fraction(rate * period, 10**6)
        share = min(math.floor((k + 1) * r) - math.floor(k * r), len(group))
        kept += [row for j, row in enumerate(group) if j * share % len(group) < share]
    return kept


def integrate_loop(e, factor):
    factor = Fraction(factor).limit_denominator(1000)
    small = {}
    for y in range(e.height):
        for x in range(e.width):
            big = math.floor(x * factor), math.floor(y * factor)
            small[big] = small.get(big, 0) + 1
    level, kept = dict.fromkeys(small, 0), []
    for x, y, t, p in rows(e):
        big = math.floor(x * factor), math.floor(y * factor)
        level[big] += 1 if p else -1
        if level[big] == (small[big] if p else -small[big]):
            level[big] = 0
            kept.append((*big, t, p))
    return kept


quick = settings(max_examples=80, deadline=None)


@quick
@given(events(), st.sampled_from([1, 2, 25, 400, 1 << 61]), st.data())
def test_refractory(e, us, data):
    want = refractory_loop(e, us)
    assert rows(Refractory(us)(e)) == want
    assert [r for part in Refractory(us).stream(cuts(e, data)) for r in rows(part)] == want


@quick
@given(events(), st.sampled_from([1, 2, 25, 400, 1 << 61]), st.data())
def test_background_activity(e, us, data):
    want = background_loop(e, us)
    assert rows(BackgroundActivity(us)(e)) == want
    assert [r for part in BackgroundActivity(us).stream(cuts(e, data)) for r in rows(part)] == want


@quick
@given(events(), st.sampled_from([1, 900, 4_321, 50_000, 10**6, 10**12]), st.sampled_from([1, 70, 1000]), st.data())
def test_rate_limit(e, rate, period, data):
    want, limit = rate_loop(e, rate, period), RateLimit(rate, period)
    assert rows(limit(e)) == want
    assert [r for part in limit.stream(cuts(e, data)) for r in rows(part)] == want


@quick
@given(events(), st.sampled_from([1, 0.5, 1 / 3, 0.7, 0.1]), st.data())
def test_scale(e, factor, data):
    exact = Fraction(factor).limit_denominator(1000)
    small = Scale(factor)(e)
    assert (small.width, small.height) == (
        math.floor((e.width - 1) * exact) + 1,
        math.floor((e.height - 1) * exact) + 1,
    )
    assert rows(small) == [(math.floor(x * exact), math.floor(y * exact), t, p) for x, y, t, p in rows(e)]
    want, scale = integrate_loop(e, factor), Scale(factor, integrate=True)
    assert rows(scale(e)) == want
    parts = list(scale.stream(cuts(e, data)))
    assert [r for part in parts for r in rows(part)] == want
    assert {(part.height, part.width) for part in parts} == {(small.height, small.width)}


@quick
@given(events(), st.data())
def test_a_chain_of_filters_in_pieces_gives_what_the_whole_gives(e, data):
    chain = [
        HotPixels([(0, 0)]),
        Scale(0.5, integrate=data.draw(st.booleans())),
        Refractory(30),
        RateLimit(40_000),
        Flip("y"),
        BackgroundActivity(500),
        Polarity("on"),
    ]
    whole = e
    for each in chain:
        whole = each(whole)
    parts = list(filter_stream(chain, iter(cuts(e, data))))
    assert [r for part in parts for r in rows(part)] == rows(whole)
    assert all((part.height, part.width) == (whole.height, whole.width) for part in parts)


def test_the_rules_by_hand():
    x, t = [5, 5, 5, 6, 5, 7], [0, 90, 100, 150, 199, 260]
    e = Events(x, [3] * 6, t, [1, 0, 1, 1, 0, 1], 8, 9)
    # Dropped events do not prolong the dead time: 90 falls to 0, 100 is kept although 90 is near, 199 falls to 100.
    assert Refractory(100)(e).t.tolist() == [0, 100, 150, 260]
    # The pixel itself is no support; 150 has 100 next to it, 199 has 150; 260 has 150, which is 110 µs before it.
    assert BackgroundActivity(110)(e).t.tolist() == [150, 199]
    assert BackgroundActivity(111)(e).t.tolist() == [150, 199, 260]
    # 3 of 6 in one ms, evenly, the first kept; 1500 events a second are 1 and 2 in turn.
    assert RateLimit(3000)(e).t.tolist() == [0, 100, 199]
    two = Events([0] * 6, [0] * 6, [0, 1, 2, 1000, 1001, 1002], [1] * 6, 1, 1)
    assert RateLimit(1500)(two).t.tolist() == [0, 1000, 1002]


def test_nothing_dropped_is_the_same_object_and_the_input_stays():
    e = Events([1, 2], [1, 2], [3, 4], [0, 1], 8, 8)
    assert Refractory(5)(e) is e and RateLimit(10**6)(e) is e and HotPixels()(e) is e
    before = rows(e)
    for f in (Refractory(5), BackgroundActivity(5), Polarity("swap"), Polarity("merge"), Flip("y"), Scale(0.5, True)):
        f(e)
    assert rows(e) == before


def test_polarity_crop_and_flip():
    e = Events([1, 2, 3], [0, 4, 5], [3, 4, 4], [0, 1, 0], 6, 8)
    assert rows(Polarity("on")(e)) == [(2, 4, 4, True)]
    assert rows(Polarity("off")(e)) == [(1, 0, 3, False), (3, 5, 4, False)]
    assert Polarity("swap")(e).p.tolist() == [True, False, True] and Polarity("merge")(e).p.all()
    assert rows(Crop(2, 4, 3, 2)(e)) == [(0, 0, 4, True), (1, 1, 4, False)]
    assert Flip("x")(e).x.tolist() == [6, 5, 4] and Flip("y")(e).y.tolist() == [5, 1, 0]
    assert Flip("y")(Flip("y")(e)) == e


def test_hot_pixels_are_what_their_neighbours_are_not():
    counts = np.full((20, 30), 40)
    counts[5, 7], counts[12, 3:6], counts[0, 0], counts[19, 29] = 1000, 300, 206, 205
    assert hot_pixels(counts, 10**6) == [(7, 5), (3, 12), (4, 12), (5, 12), (0, 0)]  # 5 · (40 + 1) = 205 is not over
    assert hot_pixels(counts, 10**7) == [(7, 5)]  # 30 and 20 a second are no harm
    lamp = np.zeros((20, 30), int)
    lamp[4:8, 4:8] = 5000  # a bright thing that flickers is seen by pixels side by side
    assert hot_pixels(lamp, 10**6) == []
    lone = np.zeros((3, 1), int)
    lone[2] = 49
    assert hot_pixels(lone, 1000) == [] and hot_pixels(np.zeros((0, 5), int), 0) == []
    with pytest.raises(InputError, match="whole numbers"):
        hot_pixels(counts / 2, 10**6)


def test_hot_pixels_are_found_and_removed():
    rng = np.random.default_rng(3)
    n = 4000
    x, y, t = rng.integers(0, 40, n), rng.integers(0, 30, n), rng.integers(0, 10**6, n) - 500_000
    x[:400], y[:400], x[400:700], y[400:700] = 11, 0, 39, 29
    order = np.argsort(t)
    e = Events(x[order], y[order], t[order], rng.integers(0, 2, n), 30, 40)
    assert find_hot_pixels(e) == find_hot_pixels(e.chunks(77)) == [(11, 0), (39, 29)]
    clean = HotPixels()(e)
    assert rows(clean) == [r for r in rows(e) if r[:2] not in {(11, 0), (39, 29)}]
    assert list(HotPixels(find_hot_pixels(e)).stream([e])) == [clean]
    assert find_hot_pixels([]) == find_hot_pixels(Events.empty(5, 5)) == []
    with pytest.raises(ConfigError, match="find_hot_pixels"):
        HotPixels().stream([e])
    with pytest.raises(InputError, match=r"\(40, 0\)"):
        HotPixels([(40, 0)])(e)


@pytest.mark.parametrize("name", ["seq_0001", "seq_0003"])
def test_the_five_hot_pixels_of_a_real_sensor(name):
    path = EVBENCH / name / "events.txt"
    if not path.is_file():
        pytest.skip("the evbench sample (shared/data) is not here")
    t, x, y, p = np.loadtxt(path).T
    e = Events(x.astype(int), y.astype(int), np.round(t * 1e6).astype(int), p.astype(int), 180, 240)
    assert find_hot_pixels(e) == [(27, 70), (27, 69), (79, 177), (136, 63), (162, 83)]


def test_rectify_goes_to_the_nearest_pixel_and_drops_what_leaves():
    field = np.zeros((2, 3, 2), np.float32)
    field[0] = [(0.49, 0.5), (3.5, 1.49), (3.49, 0)]
    field[1] = [(-0.5, 1), (-0.51, 1), (np.nan, 1)]
    rectify = Rectify(field, size=(2, 4))
    e = Events([0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1], range(6), [1, 0, 1, 0, 1, 1], 2, 3)
    out = rectify(e)
    assert rows(out) == [(0, 1, 0, True), (3, 0, 2, True), (0, 1, 3, False)] and (out.height, out.width) == (2, 4)
    assert rectify.lost == 3
    assert Rectify(np.full((2, 3, 2), np.inf))(e) == Events.empty(2, 3)
    y, x = np.mgrid[:2, :3]
    assert Rectify(np.stack([x, y], -1).astype(float))(e) == e
    with pytest.raises(InputError, match="the map is for 3×2"):
        rectify(Events.empty(3, 3))
    with pytest.raises(InputError, match="floats"):
        Rectify(np.zeros((2, 3)))


def rotation(angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


@pytest.mark.parametrize(
    ("model", "D"),
    [
        ("radtan", [-0.37, 0.15, 0.0005, -0.0008]),  # about that of a DAVIS240C
        ("radtan", [-0.05, 0.07, 0.001, -0.0002, -0.02]),
        ("equidistant", [0.02, -0.01, 0.004, -0.001]),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_rectify_map_undoes_the_camera_model(model, D, turned):
    """Each rectified point is taken back through the models' own formulas, in float64, to the pixel it came from."""
    K = np.array([[199.0, 0, 132.2], [0, 198.8, 110.7], [0, 0, 1]])
    R, P = (rotation(0.02), np.array([[180.0, 0, 120, -9], [0, 180, 90, 0], [0, 0, 1, 0]])) if turned else (None, None)
    field = rectify_map(K, D, R, P, (180, 240), model)
    assert field.shape == (180, 240, 2) and field.dtype == np.float32
    M = (K if P is None else P[:, :3]) @ (np.eye(3) if R is None else R)
    rays = np.concatenate([field.astype(float), np.ones((180, 240, 1))], -1) @ np.linalg.inv(M).T
    a, b = rays[..., 0] / rays[..., 2], rays[..., 1] / rays[..., 2]
    k = [*D, 0, 0][:5]
    if model == "radtan":  # Brown and Conrady
        r2 = a * a + b * b
        radial = 1 + k[0] * r2 + k[1] * r2**2 + k[4] * r2**3
        u = a * radial + 2 * k[2] * a * b + k[3] * (r2 + 2 * a * a)
        v = b * radial + k[2] * (r2 + 2 * b * b) + 2 * k[3] * a * b
    else:  # Kannala and Brandt: θ + k1 θ³ + k2 θ⁵ + k3 θ⁷ + k4 θ⁹
        r = np.maximum(np.hypot(a, b), 1e-12)
        theta = np.arctan(r)
        bent = theta + sum(k[i] * theta ** (2 * i + 3) for i in range(4))
        u, v = a * bent / r, b * bent / r
    y, x = np.mgrid[:180, :240]
    error = np.hypot(u * K[0, 0] + K[0, 2] - x, v * K[1, 1] + K[1, 2] - y)
    assert error.max() < 1e-2 and np.median(error) < 1e-4


def test_rectify_map_names_what_does_not_fit():
    with pytest.raises(ConfigError, match="radtan or equidistant"):
        rectify_map(np.eye(3), [0] * 4, None, None, (4, 4), "fov")
    with pytest.raises(InputError, match="numbers for D"):
        rectify_map(np.eye(3), [0] * 3, None, None, (4, 4))
    with pytest.raises(InputError, match="K"):
        rectify_map(np.eye(4), [0] * 4, None, None, (4, 4))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Refractory(0),
        lambda: Refractory(1.5),
        lambda: BackgroundActivity(True),
        lambda: BackgroundActivity(1 << 62),
        lambda: RateLimit(0),
        lambda: RateLimit(10**13),
        lambda: RateLimit(5, 0),
        lambda: Polarity("up"),
        lambda: Flip("t"),
        lambda: Scale(0),
        lambda: Scale(2),
        lambda: Scale(math.nan),
        lambda: Scale(1e-9),
        lambda: HotPixels([1, 2]),
        lambda: Rectify(np.zeros((2, 2, 2)), size=(0, 5)),
    ],
)
def test_settings_that_make_no_sense(make):
    with pytest.raises(ConfigError):
        make()


def test_streams_that_do_not_follow_are_refused():
    a, b = Events([1], [1], [50], [1], 4, 4), Events([1], [1], [49], [1], 4, 4)
    wide = Events([1], [1], [60], [1], 4, 5)
    for f in (Refractory(5), BackgroundActivity(5), RateLimit(5000), Scale(0.5), HotPixels([(0, 0)])):
        with pytest.raises(InputError, match="order of time"):
            list(f.stream([a, b]))
        with pytest.raises(InputError, match="5×4"):
            list(f.stream([a, wide]))
    with pytest.raises(InputError, match="check the times"):
        Refractory(5)(Events([1], [1], [2**62], [1], 4, 4))


def test_changed_arrays_write_nowhere_outside():
    x = np.array([1, 2, 3], np.uint16)
    e = Events(x, [0, 1, 2], [1, 2, 3], [1, 1, 1], 4, 4)
    x[1] = 4
    field = np.zeros((4, 4, 2))
    for f in (Refractory(5), BackgroundActivity(5), HotPixels([(0, 0)]), Scale(0.5, integrate=True), Rectify(field)):
        with pytest.raises(InputError, match="lie outside 4×4"):
            f(e)
