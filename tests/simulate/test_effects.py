"""Each effect of a real sensor against its formula: exactly where it is not random, within 3 σ where it is."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import ConfigError, InputError
from evlift.simulate.kernels import low_pass
from evlift.simulate.pixels import PixelArray
from evlift.simulate.readout import Columns
from evlift.simulate.sensor import SENSORS, Sensor


def watch(logs, times, sensor, seed=0, flows=None):
    """The events of a sensor that sees `logs` [T, H, W], step by step, and its pixels."""
    pixels = PixelArray(*logs[0].shape, sensor, seed)
    return [pixels.step(log, t, flows) for log, t in zip(logs, times, strict=True)], pixels


def still(grey, frames, height=64, width=80):
    """A scene at rest: log intensity of one grey value by Sensor's default response."""
    return [np.full((height, width), math.log(grey / 255 + 0.1), np.float32)] * frames


def per_pixel(events, height, width):
    return np.bincount(events.y.astype(np.int64) * width + events.x, minlength=height * width)


def poisson(counted, expected, sigmas=3):
    assert abs(counted - expected) <= sigmas * math.sqrt(expected), (counted, expected)


# Response


def test_lin_log_is_linear_below_the_knee():
    sensor = Sensor(response="lin-log", linlog_knee=20)
    grey = np.arange(256, dtype=np.uint8)[None]
    log = sensor.log_intensity(grey)[0]
    for value in range(256):
        expected = math.log(value) if value > 20 else value * math.log(20) / 20
        assert log[value] == pytest.approx(expected, abs=1e-6)
    assert np.all(np.diff(log) > 0)


@pytest.mark.parametrize("sensor", [Sensor(), Sensor(log_offset=0.01), Sensor(response="lin-log", linlog_knee=35)])
def test_intensity_inverts_the_response(sensor):
    grey = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_allclose(sensor.intensity(sensor.log_intensity(grey)), grey / 255, rtol=0, atol=1e-6)
    assert sensor.intensity(np.array([-100.0, 100.0])).tolist() == [0, 1]


# Thresholds


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 400),
    threshold=st.integers(8, 128),
    frames=st.integers(2, 9),
    gap=st.sampled_from([1000, 33_333, 40_000]),
    rising=st.booleans(),
)
def test_a_ramp_of_size_d_gives_floor_d_over_c_events_at_the_exact_times(height, threshold, frames, gap, rising):
    """Sizes in 256ths, so that every crossing is a fraction of whole numbers."""
    sign = 1 if rising else -1
    logs = [np.full((1, 1), sign * height * k / 256, np.float32) for k in range(frames)]
    name = "threshold_on" if rising else "threshold_off"
    steps, _ = watch(logs, [gap * k for k in range(frames)], Sensor(**{name: threshold / 256}))
    events = Columns.join(steps)
    number = height * (frames - 1) // threshold
    assert len(events.t) == number and np.all(events.p == rising)
    exact = [-(-k * threshold * gap // height) for k in range(1, number + 1)]
    np.testing.assert_allclose(events.t, exact, rtol=0, atol=1)
    assert number < 10 or np.mean(events.t == exact) > 0.9  # the clock's tick is missed by rounding only


def test_refractory_time_limits_a_fast_pixel_to_the_closed_form():
    """Crossings every 100 µs, 250 µs of rest: an event with every third of them."""
    logs = [np.zeros((1, 1), np.float32), np.full((1, 1), 64, np.float32)]
    steps, _ = watch(logs, [0, 25_600], Sensor(threshold_on=0.25, refractory_us=250))
    assert steps[1].t.tolist() == list(range(100, 25_601, 300))


# Bandwidth


@pytest.mark.parametrize("grey", [0, 60, 255])
def test_after_a_step_of_light_events_come_along_an_exponential(grey):
    """y = x0 + (x1 − x0)(1 − exp(−2πf t)), f = bandwidth · (I/255 + 0.1) / 1.1: crossing k at −ln(1 − kC/D) / 2πf."""
    sensor = Sensor(threshold_on=0.05, threshold_off=0.05, bandwidth_hz=50)
    x0, x1 = math.log((128 if grey != 128 else 0) / 255 + 0.1), math.log(grey / 255 + 0.1)
    logs = [np.full((1, 1), x0, np.float32)] + [np.full((1, 1), x1, np.float32)] * 4000
    times = [-1] + [100 * k for k in range(4000)]
    events = Columns.join(watch(logs, times, sensor)[0])
    size, rate = abs(x1 - x0), 2e-6 * math.pi * 50 * (grey / 255 + 0.1) / 1.1
    number = int(size * (1 - math.exp(-rate * times[-1])) / 0.05)
    exact = [-math.log(1 - k * 0.05 / size) / rate for k in range(1, number + 1)]
    assert len(events.t) == number > 5 and np.all(events.p == (x1 > x0))
    # The line from frame to frame, the table's entries (0.06 %), and the 1 µs that the step takes.
    np.testing.assert_allclose(events.t, exact, rtol=1e-3, atol=3)


def test_the_low_pass_solves_its_equation_whatever_the_step():
    """A ramp, against the closed form y = x − s/a + s/a · exp(−a t), in steps much shorter and much longer than 1/a."""
    for steps in (3, 1000):
        turn = 5.0 / steps  # a · dt
        blend, lag = (np.array([v], np.float32) for v in (1 - math.exp(-turn), 1 - (1 - math.exp(-turn)) / turn))
        y = np.zeros((1, 1), np.float32)
        for k in range(steps):
            before, after = (np.full((1, 1), v / steps, np.float32) for v in (k, k + 1))
            out = np.empty_like(y)
            low_pass(before, after, y, np.float32(0), np.float32(1), blend, lag, out)
            y = out
        assert y[0, 0] == pytest.approx(1 - (1 - math.exp(-5)) / 5, abs=2e-6)


def test_a_sine_at_the_cut_off_loses_3_db():
    steps = 400  # a period
    turn = 2 * math.pi / steps
    blend, lag = (np.array([v], np.float32) for v in (1 - math.exp(-turn), 1 - (1 - math.exp(-turn)) / turn))
    x = [np.full((1, 1), math.sin(2 * math.pi * k / steps), np.float32) for k in range(4 * steps)]
    y, seen = np.zeros((1, 1), np.float32), []
    for before, after in itertools.pairwise(x):
        out = np.empty_like(y)
        low_pass(before, after, y, np.float32(0), np.float32(1), blend, lag, out)
        y = out
        seen.append(float(y[0, 0]))
    assert max(seen[-steps:]) == pytest.approx(1 / math.sqrt(2), abs=1e-3)


def test_unlimited_bandwidth_changes_nothing():
    rng = np.random.default_rng(0)
    logs = (rng.integers(-500, 500, (5, 9, 11)) / 512).astype(np.float32)
    flows = tuple((rng.integers(-6, 7, (9, 11, 2)) / 2).astype(np.float32) for _ in range(2))
    times = [0, 9000, 20_000, 30_000, 41_000]
    plain, fast = Sensor(0.1901, 0.2301), Sensor(0.1901, 0.2301, bandwidth_hz=1e12)
    for along in (None, flows):
        a, b = (Columns.join(watch(logs, times, sensor, flows=along)[0]) for sensor in (plain, fast))
        np.testing.assert_array_equal(per_pixel(a, 9, 11), per_pixel(b, 9, 11))
        assert len(a.t) == len(b.t) > 500
        np.testing.assert_allclose(a.t, b.t, rtol=0, atol=1)


def test_along_a_flow_that_rests_low_pass_and_leak_are_those_of_the_straight_line():
    rng = np.random.default_rng(5)
    logs = (rng.integers(-1000, 60, (6, 17, 40)) / 512).astype(np.float32)
    rest = np.zeros((17, 40, 2), np.float32)
    sensor = Sensor(0.1901, 0.2301, bandwidth_hz=40, leak_hz=3)
    times = [0, 900, 9000, 20_000, 50_000, 51_000]
    straight, along = (Columns.join(watch(logs, times, sensor, flows=f)[0]) for f in (None, (rest, rest)))
    np.testing.assert_array_equal(per_pixel(straight, 17, 40), per_pixel(along, 17, 40))
    assert len(straight.t) > 1000
    order = [np.lexsort((c.t, c.x, c.y)) for c in (straight, along)]
    np.testing.assert_allclose(straight.t[order[0]], along.t[order[1]], rtol=0, atol=2)


# Leak


def test_a_pixel_at_rest_leaks_at_its_rate_with_exact_times():
    """Over any mixture of steps, every pixel fires exactly every 1 / leak_hz, and the phases are uniform."""
    times = np.cumsum([0, *[7001] * 40, *[100_003] * 20, 1, *[33_333] * 30])
    steps, _ = watch(still(90, len(times)), times, Sensor(leak_hz=5))
    events = Columns.join(steps)
    assert np.all(events.p)
    order = np.lexsort((events.t, events.x, events.y))
    pixel, t = (events.y[order].astype(np.int64) * 80 + events.x[order]), events.t[order]
    same = pixel[1:] == pixel[:-1]
    assert np.abs(np.diff(t)[same] - 200_000).max() <= 1
    first = np.sort(t[np.concatenate([[True], ~same])])
    assert len(first) == 64 * 80
    # Kolmogorov–Smirnov against a uniform phase: 1.63 / √n is passed with a probability of 1 %.
    assert np.abs(first / 200_000 - np.arange(1, 5121) / 5120).max() < 1.63 / math.sqrt(5120)


def test_leak_adds_to_a_ramp():
    """A rise of s a second and a leak of r a second cross every C / (s + r); a fall slower than the leak is ON, too."""
    for slope in (1.0, -0.1):
        logs = [np.full((3, 4), slope * 0.05 * k, np.float32) for k in range(41)]
        steps, _ = watch(logs, [50_000 * k for k in range(41)], Sensor(leak_hz=2))
        events = Columns.join(steps)
        period = 0.2 / (slope + 0.4) * 1e6
        for y, x in np.ndindex(3, 4):
            mine = events.t[(events.y == y) & (events.x == x)]
            assert abs(len(mine) - 2e6 / period) <= 1
            np.testing.assert_allclose(np.diff(mine), period, rtol=0, atol=1.1)
        assert np.all(events.p)


def test_a_pixel_with_a_higher_threshold_leaks_more_rarely():
    steps, pixels = watch(still(90, 101), [100_000 * k for k in range(101)], Sensor(leak_hz=4, threshold_sigma=0.04))
    counts = per_pixel(Columns.join(steps), 64, 80).reshape(64, 80)
    assert np.abs(counts - 10 * 4 * 0.2 / pixels.on).max() <= 1


def test_hours_of_leaking_lose_no_event():
    """Far from where log intensity started, float32 is coarse; the bounds must stay on the safe side."""
    times = [0, *(10**9 * np.arange(1, 37))]  # ten hours
    steps, _ = watch(still(30, len(times), 3, 5), times, Sensor(leak_hz=10))
    counts = per_pixel(Columns.join(steps), 3, 5)
    assert np.abs(counts - 10 * 36_000).max() <= 1
    end = 36 * 10**9
    logs = [np.full((3, 5), math.log(0.1) + 0.001 * k, np.float32) for k in range(200)]
    pixels = PixelArray(3, 5, Sensor(leak_hz=10), 0)
    pixels.step(still(0, 1, 3, 5)[0], 0)
    for t in range(10**9, end + 1, 10**9):
        pixels.step(still(0, 1, 3, 5)[0], t)
    short = Columns.join([pixels.step(log, end + 1000 * (k + 1)) for k, log in enumerate(logs)])
    for y, x in np.ndindex(3, 5):  # 200 ms: (1 + 2) / 0.2 = 15 events a second
        np.testing.assert_allclose(np.diff(short.t[(short.y == y) & (short.x == x)]), 1e6 / 15, rtol=0, atol=500)


# Noise


@pytest.mark.parametrize("gap", [500, 40_000, 300_000])
@pytest.mark.parametrize("grey", [0, 100, 255])
def test_shot_noise_falls_with_light_at_any_frame_rate(grey, gap):
    frames = 3_000_000 // gap
    steps, _ = watch(still(grey, frames + 1), [gap * k for k in range(frames + 1)], Sensor(shot_noise_hz=8, noise_hz=2))
    events = Columns.join(steps)
    expected = (8 * (1 - 0.75 * grey / 255) + 2) * 3 * 64 * 80
    poisson(len(events.t), expected)
    poisson(np.count_nonzero(events.p), expected / 2)
    counts = per_pixel(events, 64, 80)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=3 * math.sqrt(2 / counts.size))
    by_time, _ = np.histogram(events.t, 10, (0, 3_000_000))
    assert np.abs(by_time - expected / 10).max() < 4 * math.sqrt(expected / 10)
    assert np.all(np.diff(events.t) >= 0)


def test_shot_noise_sees_the_light_of_its_own_pixel():
    log = np.where(np.arange(80) < 40, math.log(0.1), math.log(1.1)) + np.zeros((64, 80))
    steps, _ = watch([log.astype(np.float32)] * 2, [0, 4_000_000], Sensor(shot_noise_hz=5))
    poisson(np.count_nonzero(steps[1].x < 40), 5 * 4 * 64 * 40)
    poisson(np.count_nonzero(steps[1].x >= 40), 1.25 * 4 * 64 * 40)


def test_hot_pixels_have_their_number_and_rates():
    sensor = Sensor(hot_share=0.02, hot_hz=40)
    steps, pixels = watch(still(90, 51, 120, 160), [100_000 * k for k in range(51)], sensor, seed=4)
    events, noise = Columns.join(steps), pixels.noise
    assert abs(len(noise.places) - 384) < 3 * math.sqrt(384 * 0.98) and len(set(noise.places)) == len(noise.places)
    assert noise.rates.mean() == pytest.approx(40, abs=3 * 40 / math.sqrt(len(noise.rates)))  # exponential
    assert noise.rates.std() == pytest.approx(40, abs=3 * 40 * math.sqrt(2 / len(noise.rates)))
    counts = per_pixel(events, 120, 160)
    assert counts.sum() == counts[noise.places].sum() and np.all(events.p)
    poisson(counts.sum(), 5 * noise.rates.sum())
    deviations = (counts[noise.places] - 5 * noise.rates) / np.sqrt(5 * noise.rates)
    assert deviations[noise.rates > 4].std() == pytest.approx(1, abs=0.12)


# Times


def test_jitter_has_its_deviation_and_stays_between_the_frames():
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(2, 90, 110)).astype(np.float32)
    plain, shaken = (watch(logs, [0, 100_000], Sensor(jitter_us=sigma))[0][1] for sigma in (0, 25))
    columns = [np.lexsort((c.t, c.p, c.x, c.y)) for c in (plain, shaken)]
    for name in ("x", "y", "p"):
        np.testing.assert_array_equal(getattr(plain, name)[columns[0]], getattr(shaken, name)[columns[1]])
    # One event a pixel, so that sorting pairs them; none so near to a frame that it is mirrored.
    alone = (per_pixel(plain, 90, 110) == 1)[plain.y[columns[0]].astype(np.int64) * 110 + plain.x[columns[0]]]
    inside = alone & (np.abs(plain.t[columns[0]] - 50_000) < 49_800)
    moved = (shaken.t[columns[1]] - plain.t[columns[0]])[inside]
    n = len(moved)
    assert n > 400 and np.all(np.diff(shaken.t) >= 0)
    deviation = math.sqrt(25**2 + 1 / 12)
    assert abs(moved.mean()) < 3 * deviation / math.sqrt(n)
    assert moved.std() == pytest.approx(deviation, abs=3 * deviation / math.sqrt(2 * n))
    wild = watch(logs, [0, 100], Sensor(jitter_us=1000))[0][1]
    assert wild.t.min() >= 1 and wild.t.max() <= 100
    at_the_end = [np.zeros((90, 110), np.float32), np.full((90, 110), 0.2001, np.float32)]
    mirrored = watch(at_the_end, [0, 40_000], Sensor(jitter_us=25))[0][1].t
    assert mirrored.max() <= 40_000 and np.mean(mirrored == 40_000) < 0.05  # no heap at the frame


def test_ticks_round_up_and_late_ones_come_with_the_next_frame():
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(6, 9, 11)).astype(np.float32)
    times = [5 + 10_007 * k for k in range(6)]
    fine, coarse = (watch(logs, times, Sensor(tick_us=tick))[0] for tick in (1, 1000))
    exact, ticks = Columns.join(fine), Columns.join(coarse)
    ceiled = -(-exact.t // 1000) * 1000
    in_time = ceiled <= times[-1]
    assert not np.all(in_time)  # the last ones would come with a further frame
    for name, expected in (("t", ceiled), ("x", exact.x), ("y", exact.y), ("p", exact.p)):
        np.testing.assert_array_equal(getattr(ticks, name), expected[in_time])
    for step, before, after in zip(coarse[1:], times, times[1:], strict=False):
        assert step.t.min() > before and step.t.max() <= after


def send(arrivals, hz, wait):
    """A bus, in exact fractions of a microsecond: times sent, rounded up, and the number of lost events."""
    free, sent, lost = 0, [], 0  # in units of 1 / hz µs · hz, that is: all times are multiplied by hz / 1e6
    for t in arrivals:
        at = t * hz
        out = max(at, free)
        if out - at > wait * hz:
            lost += 1
            continue
        free = out + 1_000_000
        sent.append(-(-out // hz))
    return sent, lost


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    hz=st.sampled_from([1000, 8000, 15_625, 250_000, 2_000_000]),
    wait=st.sampled_from([0, 10, 1000, 10**6]),
    gaps=st.lists(st.integers(1, 60_000), min_size=1, max_size=8),
    start=st.sampled_from([0, -77, 1_700_000_000_000_000]),
    seed=st.integers(0, 5),
)
def test_the_readout_is_a_queue_that_never_exceeds_its_rate(hz, wait, gaps, start, seed):
    logs = np.random.default_rng(seed).normal(size=(len(gaps) + 1, 4, 5)).astype(np.float32)
    times = [start + int(t) for t in np.cumsum([0, *gaps])]
    free = Columns.join(watch(logs, times, Sensor())[0])
    steps, pixels = watch(logs, times, Sensor(readout_hz=hz, readout_wait_us=wait))
    slow = Columns.join(steps)
    expected, lost = send([int(t) - start for t in free.t], hz, wait)
    in_time = [start + t for t in expected if start + t <= times[-1]]
    assert slow.t.tolist() == in_time and pixels.lost == lost
    for step, before, after in zip(steps[1:], times, times[1:], strict=False):
        assert np.all((step.t > before) & (step.t <= after))
    span = 2000  # µs: any window of it
    most = np.searchsorted(slow.t, slow.t + span) - np.arange(len(slow.t))
    assert not len(slow.t) or most.max() <= hz * span / 1e6 + 1


def test_what_waits_for_the_readout_comes_out_after_the_scene_has_come_to_rest():
    logs = [np.zeros((10, 10), np.float32), *[np.full((10, 10), 0.2001, np.float32)] * 5]
    sensor = Sensor(readout_hz=10_000, readout_wait_us=10**6)
    steps, pixels = watch(logs, [0, 1000, 4000, 7000, 10_000, 20_000], sensor)
    assert [len(step.t) for step in steps] == [0, 1, 30, 30, 30, 9] and pixels.lost == 0
    assert Columns.join(steps).t.tolist() == [1000 + 100 * k for k in range(100)]
    pixel = Columns.join(steps)
    assert (pixel.y.astype(int) * 10 + pixel.x).tolist() == list(range(100))  # first come, first served


# All together


@pytest.mark.parametrize("name", SENSORS)
@pytest.mark.parametrize("along", [False, True])
def test_the_same_seed_gives_the_same_bytes(name, along):
    sensor = replace(SENSORS[name], tick_us=3) if name == "noisy-night" else SENSORS[name]
    rng = np.random.default_rng(8)
    grey = rng.integers(0, 256, (6, 33, 47)).astype(np.uint8)
    logs = [sensor.log_intensity(frame) for frame in grey]
    times = [123 + 20_000 * k for k in range(6)]
    flows = tuple(rng.normal(0, 2, (33, 47, 2)).astype(np.float32) for _ in range(2)) if along else None
    runs = [watch(logs, times, sensor, seed, flows)[0] for seed in (1, 1, 2)]
    one, same, other = (Columns.join(steps) for steps in runs)
    for column in ("x", "y", "t", "p"):
        assert getattr(one, column).tobytes() == getattr(same, column).tobytes()
    assert len(one.t) > 1000 and np.all(np.diff(one.t) >= 0)
    assert one.x.max() < 47 and one.y.max() < 33
    for step, before, after in zip(runs[0][1:], times, times[1:], strict=False):
        assert np.all((step.t > before) & (step.t <= after))
    if name != "ideal":
        assert len(one.t) != len(other.t) or not np.array_equal(one.t, other.t)


def test_a_cut_ends_the_scene_and_not_the_camera():
    sensor = SENSORS["noisy-night"]
    rng = np.random.default_rng(0)
    pixels = PixelArray(20, 30, replace(sensor, shot_noise_hz=0, leak_hz=0, hot_share=0), 0)
    before = pixels.on.copy()
    pixels.step(np.zeros((20, 30), np.float32), 0)
    pixels.reset()
    assert not len(pixels.step(np.full((20, 30), 5, np.float32), 1000).t)  # no event across
    assert not len(pixels.step(np.full((20, 30), 5, np.float32), 2000).t)
    assert len(pixels.step(rng.normal(size=(20, 30)).astype(np.float32), 900_000).t)
    np.testing.assert_array_equal(pixels.on, before)
    pixels.reset()
    with pytest.raises(InputError, match="rising times"):
        pixels.step(np.zeros((20, 30), np.float32), 900_000)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("sensor", [Sensor(), Sensor(bandwidth_hz=30, leak_hz=1)])
@pytest.mark.parametrize("along", [False, True])
def test_a_frame_that_is_not_finite_is_refused(bad, sensor, along):
    flows = (np.full((5, 70, 2), 3, np.float32),) * 2 if along else None
    for x in (0, 40, 69):  # inside a block of pixels, and in what is left of a row
        log = np.zeros((5, 70), np.float32)
        log[3, x] = bad
        pixels = PixelArray(5, 70, sensor)
        if not math.isfinite(bad):
            with pytest.raises(InputError, match="not finite"):
                pixels.step(log, 0)
        pixels.step(np.zeros((5, 70), np.float32), 0)
        with pytest.raises(InputError, match="not finite"):
            pixels.step(log, 1000, flows)


def test_flow_that_is_not_finite_does_no_harm():
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(2, 9, 11)).astype(np.float32)
    for bad in (math.nan, math.inf, -math.inf, 1e30):
        flow = np.full((9, 11, 2), bad, np.float32)
        steps, _ = watch(logs, [0, 1000], Sensor(), flows=(flow, flow))
        assert len(steps[1].t) > 100


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("response", "linear", "response is 'linear'"),
        ("linlog_knee", 1, "linlog_knee is 1"),
        ("bandwidth_hz", -1, "bandwidth_hz is -1"),
        ("leak_hz", math.nan, "leak_hz is nan"),
        ("shot_noise_hz", -0.1, "shot_noise_hz is -0.1"),
        ("hot_share", 1.5, "hot_share is 1.5"),
        ("hot_hz", math.inf, "hot_hz is inf"),
        ("jitter_us", -1, "jitter_us is -1"),
        ("tick_us", 0, "tick_us is 0"),
        ("tick_us", 1.5, "tick_us is 1.5"),
        ("readout_hz", -1, "readout_hz is -1"),
        ("gamma", 0, "gamma is 0"),
        ("dynamic_range_db", -1, "dynamic_range_db is -1"),
    ],
)
def test_settings_out_of_range(field, value, message):
    with pytest.raises(ConfigError, match=message):
        Sensor(**{field: value})
