"""The sensor against the model written out once more: float64, one pixel at a time."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evlift.errors import ConfigError, InputError
from evlift.simulate.pixels import LONGEST_STEP_US, PixelArray
from evlift.simulate.sensor import SENSORS, Sensor, get_sensor


def crossings(logs, times, on, off, refractory_us=0):
    """Events of one pixel, [(µs, p)], whose log intensity runs straight through `logs` at `times`."""
    events = []
    level = float(logs[0])
    last = -math.inf
    for k in range(1, len(logs)):
        before, after = float(logs[k - 1]), float(logs[k])
        while True:
            if after >= level + on and after > before:
                level, p = level + on, True
            elif after <= level - off and after < before:
                level, p = level - off, False
            else:
                break
            share = (level - before) / (after - before)
            t = times[k - 1] + math.ceil(share * (times[k] - times[k - 1]))
            t = min(max(t, times[k - 1] + 1), times[k])
            if t - last >= refractory_us:
                events.append((t, p))
                last = t
    return events


def run(logs, times, sensor, seed=0, flows=None, **keywords):
    """Rows (t, y, x, p) of a sensor that sees `logs` [T, H, W]; with thresholds of each pixel."""
    pixels = PixelArray(*logs.shape[1:], sensor, seed)
    parts = []
    for log, t in zip(logs, times, strict=True):
        c = pixels.step(log, t, flows, **keywords)
        parts.append(np.stack([c.t, c.y.astype(np.int64), c.x.astype(np.int64), c.p.astype(np.int64)], axis=1))
    return np.concatenate(parts), pixels.on, pixels.off


def expect(rows, logs, times, on, off, refractory_us=0):
    """Counts and polarities exactly, times to a microsecond, order of time."""
    assert np.all(np.diff(rows[:, 0]) >= 0)
    total = 0
    for y, x in np.ndindex(logs.shape[1:]):
        mine = rows[(rows[:, 1] == y) & (rows[:, 2] == x)]
        wanted = crossings(logs[:, y, x], times, float(on[y, x]), float(off[y, x]), refractory_us)
        assert [bool(p) for p in mine[:, 3]] == [p for _, p in wanted]
        np.testing.assert_allclose(mine[:, 0], [t for t, _ in wanted], rtol=0, atol=1)
        total += len(wanted)
    assert len(rows) == total


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    frames=arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))),
    start=st.integers(-(10**9), 10**12),
    gaps=st.lists(st.integers(1, 200_000), min_size=6, max_size=6),
    on=st.floats(0.03, 1.0),
    off=st.floats(0.03, 1.0),
    sigma=st.sampled_from([0.0, 0.05]),
    refractory=st.sampled_from([0, 700, 30_000]),
    seed=st.integers(0, 9),
)
def test_any_video_gives_the_events_of_the_plain_model(frames, start, gaps, on, off, sigma, refractory, seed):
    sensor = Sensor(on, off, threshold_sigma=sigma, refractory_us=refractory)
    times = [start + sum(gaps[:k]) for k in range(len(frames))]
    logs = np.stack([sensor.log_intensity(frame) for frame in frames])
    rows, on_of, off_of = run(logs, times, sensor, seed)
    expect(rows, logs, times, on_of, off_of, refractory)


def test_a_ramp_crosses_at_the_analytic_times():
    logs = np.array([0.0, 1.0], np.float32).reshape(2, 1, 1)
    rows, _, _ = run(logs, [1000, 11_000], Sensor(threshold_on=0.25))
    assert rows.tolist() == [[3500, 0, 0, 1], [6000, 0, 0, 1], [8500, 0, 0, 1], [11_000, 0, 0, 1]]
    rows, _, _ = run(-logs, [1000, 11_000], Sensor(threshold_off=0.375))
    assert rows.tolist() == [[4750, 0, 0, 0], [8500, 0, 0, 0]]


def test_the_remainder_is_kept_from_frame_to_frame():
    """A slow ramp over many frames crosses when it would have within one long interval."""
    frames = 4097
    slow = np.linspace(0, 4, frames, dtype=np.float32).reshape(-1, 1, 1)  # steps of 2⁻¹⁰: exact in float32
    times = [1000 * k for k in range(frames)]
    rows, _, _ = run(slow, times, Sensor(threshold_on=0.25))
    assert rows[:, 0].tolist() == [256_000 * k for k in range(1, 17)]
    back_and_forth = np.array([0, 0.2, 0, 0.2, 0, 0.3], np.float32).reshape(-1, 1, 1)
    rows, _, _ = run(back_and_forth, [0, 1000, 2000, 3000, 4000, 5000], Sensor(threshold_on=0.25, threshold_off=0.25))
    assert len(rows) == 1 and rows[0].tolist() == [4000 + math.ceil(0.25 / float(np.float32(0.3)) * 1000), 0, 0, 1]


def test_refractory_time_suppresses_the_crossing_and_moves_the_level_on():
    logs = np.array([0, 1, 1, 1.25], np.float32).reshape(-1, 1, 1)
    sensor = Sensor(threshold_on=0.25, refractory_us=5000)
    rows, _, _ = run(logs, [0, 10_000, 20_000, 30_000], sensor)
    # Crossings at 2500, 5000 (suppressed), 7500 (exactly 5000 later: emitted) and 10000 (suppressed). The level has
    # moved on to 1 by then, so that the next one comes at 1.25 and not before.
    assert rows[:, 0].tolist() == [2500, 7500, 30_000]


def test_refractory_time_counts_from_events_near_time_zero_and_before():
    logs = np.array([0, 0.5], np.float32).reshape(-1, 1, 1)
    for start in (-5000, -2500, 0):  # 0 µs is a time as any other
        rows, _, _ = run(logs, [start, start + 5000], Sensor(threshold_on=0.25, refractory_us=2501))
        assert rows[:, 0].tolist() == [start + 2500]


def test_events_of_a_long_step_are_sorted():
    """Longer than one digit of the radix sort, and with ties."""
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(3, 20, 30)).astype(np.float32)
    for span in (7, 65_535, 65_536, 3_000_000, LONGEST_STEP_US):
        times = [-span, 0, span]
        rows, on, off = run(logs, times, Sensor())
        expect(rows, logs, times, on, off)
        assert rows[:, 0].min() > -span and rows[:, 0].max() <= span
        same = np.diff(rows[:, 0]) == 0
        pixel = rows[:, 1] * 30 + rows[:, 2]
        within_frame = rows[1:, 0] != 0
        assert np.all(np.diff(pixel)[same & within_frame] >= 0)  # ties: in pixel order


def test_many_events_outgrow_the_buffer():
    logs = np.zeros((2, 2, 3), np.float32)
    logs[1] = [[5, 50, 100], [-5, -50, -100]]
    rows, on, off = run(logs, [0, 1000], Sensor(threshold_on=0.01, threshold_off=0.02))
    expect(rows, logs, [0, 1000], on, off)
    assert len(rows) > 20_000


def sample(image, x, y):
    height, width = image.shape
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    i, j = int(y), int(x)
    fy, fx = y - i, x - j
    k, m = min(i + 1, height - 1), min(j + 1, width - 1)
    upper = (1 - fx) * float(image[i, j]) + fx * float(image[i, m])
    lower = (1 - fx) * float(image[k, j]) + fx * float(image[k, m])
    return (1 - fy) * upper + fy * lower


@pytest.mark.parametrize("refractory", [0, 1500])
def test_along_the_flow_every_pixel_is_rendered_in_between(refractory):
    """All numbers are sums of few powers of two, so that float32 and float64 agree to the last bit."""
    rng = np.random.default_rng(3)
    height, width, times = 11, 13, [0, 8000]
    logs = (rng.integers(-256, 256, (2, height, width)) / 256).astype(np.float32)
    forward, backward = (rng.integers(-2, 3, (height, width, 2)).astype(np.float32) for _ in range(2))
    forward[:, 0] = backward[:, 0] = 0  # a column at rest, and one at the limit of steps
    forward[:, 1] = (4, 0)
    sensor = Sensor(threshold_on=0.1875, threshold_off=0.25, refractory_us=refractory)
    rows, on, off = run(logs, times, sensor, flows=(forward, backward), step_px=0.5, max_steps=4)
    total = 0
    for y, x in np.ndindex(height, width):
        f, b = forward[y, x].astype(float), backward[y, x].astype(float)
        steps = min(max(math.ceil(max(math.hypot(*f), math.hypot(*b)) / 0.5), 1), 4)
        line = [float(logs[0, y, x])]
        for k in range(1, steps):
            tau = k / steps
            to_before = -(1 - tau) * tau * f + tau**2 * b
            to_after = (1 - tau) ** 2 * f - tau * (1 - tau) * b
            a = sample(logs[0], x + to_before[0], y + to_before[1])
            c = sample(logs[1], x + to_after[0], y + to_after[1])
            line.append((1 - tau) * a + tau * c)
        line.append(float(logs[1, y, x]))
        at = [8000 * k // steps for k in range(steps + 1)]
        wanted = crossings(line, at, float(on[y, x]), float(off[y, x]), refractory)
        mine = rows[(rows[:, 1] == y) & (rows[:, 2] == x)]
        assert [bool(p) for p in mine[:, 3]] == [p for _, p in wanted]
        np.testing.assert_allclose(mine[:, 0], [t for t, _ in wanted], rtol=0, atol=1)
        total += len(wanted)
    assert len(rows) == total > 200


def test_without_flow_along_is_straight():
    rng = np.random.default_rng(1)
    logs = rng.normal(size=(4, 17, 40)).astype(np.float32)
    still = np.zeros((17, 40, 2), np.float32)
    straight, _, _ = run(logs, [0, 900, 1900, 4000], Sensor())
    along, _, _ = run(logs, [0, 900, 1900, 4000], Sensor(), flows=(still, still))
    np.testing.assert_array_equal(straight, along)


def test_mismatch_is_drawn_once_from_the_seed():
    sensor = Sensor(0.3, 0.2, threshold_sigma=0.03)
    one, same, other = (PixelArray(100, 120, sensor, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.on, same.on)
    assert (one.on != other.on).mean() > 0.99 and (one.on - 0.3 != one.off - 0.2).mean() > 0.99
    for drawn, nominal in ((one.on, 0.3), (one.off, 0.2)):
        assert drawn.mean() == pytest.approx(nominal, abs=0.002)
        assert drawn.std() == pytest.approx(0.03, rel=0.05)
    wild = PixelArray(100, 120, Sensor(0.2, 0.2, threshold_sigma=0.5), 0)
    assert wild.on.min() == np.float32(0.05)


def test_noise_has_its_rate_and_fills_the_time():
    still = np.zeros((11, 40, 50), np.float32)
    times = [20_000 * k for k in range(11)]
    rows, _, _ = run(still, times, Sensor(noise_hz=25))
    expected = 25 * 40 * 50 * 0.2
    assert len(rows) == pytest.approx(expected, abs=4 * expected**0.5)
    assert rows[:, 3].mean() == pytest.approx(0.5, abs=0.03)
    assert np.all(np.diff(rows[:, 0]) >= 0) and rows[:, 0].min() > 0 and rows[:, 0].max() <= 200_000
    by_time, _ = np.histogram(rows[:, 0], 20, (0, 200_000))
    assert by_time.min() > expected / 20 - 5 * (expected / 20) ** 0.5
    assert len(np.unique(rows[:, 1] * 50 + rows[:, 2])) > 1900
    again, _, _ = run(still, times, Sensor(noise_hz=25))
    np.testing.assert_array_equal(rows, again)


def test_log_intensity():
    sensor = Sensor(log_offset=0.1)
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = [[math.log(value / 255 + 0.1) for value in row] for row in grey.tolist()]
    np.testing.assert_allclose(sensor.log_intensity(grey), expected, rtol=0, atol=2e-7)
    assert sensor.log_intensity(grey).dtype == np.float32


def test_presets_and_mistakes():
    assert list(SENSORS) == ["ideal", "davis240", "davis346", "gen3-vga", "gen4-hd", "noisy-night"]
    assert get_sensor("ideal") == Sensor() == Sensor(0.2, 0.2, 0, 0, 0.1, 0)
    davis = get_sensor("davis240")
    assert davis.threshold_on < davis.threshold_off and davis.log_offset == 0.1
    assert get_sensor(davis) is davis
    with pytest.raises(ConfigError, match="no sensor 'dvs'; choose one of ideal"):
        get_sensor("dvs")
    with pytest.raises(ConfigError, match="threshold_on is 0"):
        Sensor(threshold_on=0)
    with pytest.raises(ConfigError, match=r"threshold_off is 1e-20; give 0\.0001 or more"):
        Sensor(threshold_off=1e-20)  # a level of 1 would never move by it
    with pytest.raises(ConfigError, match="log_offset is nan"):
        Sensor(log_offset=float("nan"))
    with pytest.raises(ConfigError, match="refractory_us is -1"):
        Sensor(refractory_us=-1)
    with pytest.raises(InputError, match="0×5"):
        PixelArray(0, 5)
    flow = np.zeros((4, 5, 2), np.float32)
    for flows in ((flow[:3], flow), (flow, flow[:, :4])):  # compiled code would read past their ends
        with pytest.raises(InputError, match="flows have shapes"):
            PixelArray(4, 5).step(np.zeros((4, 5), np.float32), 0, flows)
    with pytest.raises(InputError, match="step_px is 0"):
        PixelArray(4, 5).step(np.zeros((4, 5), np.float32), 0, (flow, flow), step_px=0)
    pixels = PixelArray(2, 3)
    with pytest.raises(InputError, match="resize"):
        pixels.step(np.zeros((3, 2), np.float32), 0)
    pixels.step(np.zeros((2, 3), np.float32), 5)
    for t in (5, 4):
        with pytest.raises(InputError, match="rising times"):
            pixels.step(np.zeros((2, 3), np.float32), t)
    with pytest.raises(InputError, match="cut the video"):
        pixels.step(np.zeros((2, 3), np.float32), 10 + LONGEST_STEP_US)


@pytest.mark.parametrize(
    ("sensor", "along", "count", "digest"),
    [
        (Sensor(), False, 9201, "8f0845ac98cf27d3"),
        (Sensor(), True, 15_718, "1bf488332b8bfed9"),
        (Sensor(0.1875, 0.375, refractory_us=5000), False, 5413, "e4c0cccff5c5c805"),
        (Sensor(0.1875, 0.375, refractory_us=5000), True, 7339, "3b8659fd7392b118"),
    ],
)
def test_without_noise_events_are_those_of_every_version_before(sensor, along, count, digest):
    """Results of training rest on these bytes. Log intensities in 512ths, so that no library's logarithm has a say."""
    rng = np.random.default_rng(11)
    logs = (rng.integers(-512, 513, (5, 19, 45)) / 512).astype(np.float32)
    flows = tuple((rng.integers(-8, 9, (19, 45, 2)) / 2).astype(np.float32) for _ in range(2)) if along else None
    pixels = PixelArray(19, 45, sensor)
    found, n = hashlib.sha256(), 0
    for log, t in zip(logs, (-700, 300, 40_300, 80_777, 3_000_000), strict=True):
        c = pixels.step(log, t, flows)
        n += len(c.t)
        for column in (c.x, c.y, c.t, c.p):
            found.update(column.tobytes())
    assert (n, found.hexdigest()[:16]) == (count, digest)
