"""The sensor in PyTorch against the one in numba, and its random effects against their formulas."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evlift.errors import ConfigError, InputError
from evlift.represent import VoxelGrid
from evlift.simulate.pixels import LONGEST_STEP_US, PixelArray
from evlift.simulate.sensor import Sensor
from evlift.simulate.torch_engine import TorchPixels, intensity

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def rows(x, y, t, p):
    """Events by pixel, then time: [N, 4] of y, x, t, p."""
    columns = np.stack([np.asarray(c).astype(np.int64) for c in (y, x, t, p)], axis=1)
    return columns[np.lexsort(columns.T[::-1])]


def run(logs, times, sensor, seed=0, device="cpu"):
    """Rows of every camera, of all steps over `logs` [T, B, H, W]; the pixels; each step's events."""
    pixels = TorchPixels(*logs.shape[1:], sensor, seed, device)
    steps = [pixels.step(torch.as_tensor(log, device=device), t) for log, t in zip(logs, times, strict=True)]
    made = [step.events() for step in steps]
    parts = [[rows(e.x, e.y, e.t, e.p) for e in events] for events in zip(*made, strict=True)]
    return [np.concatenate(part) for part in parts], pixels, steps


def from_numba(logs, times, sensor, on, off):
    """Rows of a camera of the other engine with those thresholds, over `logs` [T, H, W]."""
    pixels = PixelArray(*logs.shape[1:], sensor)
    pixels.on, pixels.off = (np.ascontiguousarray(c.expand(1, *logs.shape[1:])[0].cpu().numpy()) for c in (on, off))
    pixels._least = min(pixels.on.min(), pixels.off.min())
    parts = [pixels.step(log, int(t)) for log, t in zip(logs, times, strict=True)]
    return np.concatenate([rows(c.x, c.y, c.t, c.p) for c in parts])


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    frames=arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))),
    start=st.integers(-(10**9), 10**12),
    gaps=st.lists(st.integers(1, 200_000), min_size=5, max_size=5),
    late=st.integers(0, 10**6),
    on=st.floats(0.03, 1.0),
    off=st.floats(0.03, 1.0),
    sigma=st.sampled_from([0.0, 0.05]),
    refractory=st.sampled_from([0, 700, 30_000]),
    seed=st.integers(0, 9),
)
def test_the_same_events_as_in_numba(device, frames, start, gaps, late, on, off, sigma, refractory, seed):
    """The same counts and polarities, times to a microsecond, also where every camera has times of its own."""
    sensor = Sensor(on, off, threshold_sigma=sigma, refractory_us=refractory)
    logs = np.stack([[sensor.log_intensity(view) for view in frame] for frame in frames])
    times = start + np.array([sum(gaps[:k]) for k in range(len(frames))])[:, None] + late * np.arange(logs.shape[1])
    made, pixels, _ = run(logs, times, sensor, seed, device)
    for i, mine in enumerate(made):
        there = [c[i : i + 1] if len(c) > 1 else c for c in (pixels.on, pixels.off)]
        wanted = from_numba(logs[:, i], times[:, i], sensor, *there)
        np.testing.assert_array_equal(mine[:, [0, 1, 3]], wanted[:, [0, 1, 3]])
        np.testing.assert_allclose(mine[:, 2], wanted[:, 2], rtol=0, atol=1)


@pytest.mark.parametrize("device", DEVICES)
def test_a_large_batch_is_the_numba_engine_to_the_bit(device):
    """Order of the events within a microsecond included: by row, then column."""
    rng = np.random.default_rng(0)
    sensor = Sensor(0.11, 0.07, refractory_us=900)
    logs = np.stack([sensor.log_intensity(rng.integers(0, 256, (24, 33)).astype(np.uint8)) for _ in range(15)])
    logs = logs.reshape(5, 3, 24, 33)
    pixels = TorchPixels(3, 24, 33, sensor, device=device)
    others = [PixelArray(24, 33, sensor) for _ in range(3)]
    for log, t in zip(logs, (-500, 3000, 9000, 9001, 50_000), strict=True):
        events = pixels.step(torch.as_tensor(log, device=device), t).events()
        for mine, other, view in zip(events, others, log, strict=True):
            wanted = other.step(view, t)
            for name in "xytp":
                np.testing.assert_array_equal(getattr(mine, name), getattr(wanted, name))


def test_a_ramp_of_any_size_crosses_at_the_analytic_times():
    """A ramp of size Δ gives ⌊Δ / C⌋ events; all cameras at once, each with a ramp of its own."""
    sizes = np.array([0.0, 0.2, 0.25, 1.0, 1.3, -0.3, -0.375, -2.0], np.float32)
    logs = np.stack([np.zeros(8, np.float32), sizes]).reshape(2, 8, 1, 1)
    made, _, _ = run(logs, [1000, 11_000], Sensor(threshold_on=0.25, threshold_off=0.375))
    for size, mine in zip(sizes.astype(float), made, strict=True):
        threshold = 0.25 if size > 0 else 0.375
        times = [1000 + math.ceil(10_000 * k * threshold / abs(size)) for k in range(1, int(abs(size) / threshold) + 1)]
        assert mine[:, 2].tolist() == times and (mine[:, 3] == (size > 0)).all()


def test_the_remainder_is_kept_over_thousands_of_frames():
    slow = np.linspace(0, 4, 4097, dtype=np.float32).reshape(-1, 1, 1, 1)  # steps of 2⁻¹⁰: exact in float32
    made, _, _ = run(slow, [1000 * k for k in range(4097)], Sensor(threshold_on=0.25))
    assert made[0][:, 2].tolist() == [256_000 * k for k in range(1, 17)]


def test_cameras_that_have_seen_their_last_frame_drop_out():
    """`words` for the first n: the others' events are those that they had."""
    rng = np.random.default_rng(1)
    logs = torch.as_tensor(rng.normal(size=(5, 3, 6, 7)).astype(np.float32))
    whole = TorchPixels(3, 6, 7)
    all_words = [whole.words(log, np.full(3, t)) for log, t in zip(logs, (0, 10, 20, 30, 40), strict=True)]
    part = TorchPixels(3, 6, 7)
    for log, t, n, words in zip(logs, (0, 10, 20, 30, 40), (3, 3, 2, 2, 1), all_words, strict=True):
        mine = part.words(log[:n], np.full(n, t))
        assert torch.equal(mine, words[part.layout.sample(words) < n])
    with pytest.raises(InputError, match="frames are"):
        part.words(logs[0], np.full(3, 50))


# Leak, bandwidth: no chance, closed forms.


def test_a_leak_fires_at_exact_times_and_whatever_the_frames():
    """A pixel at rest fires every 1 / rate; one that rises by 2 C/s and leaks 3 C/s fires at 5 Hz, and so on; the first
    time at a random phase."""
    seconds, phases = 4, []
    for times in ([0, seconds * 1_000_000], list(range(0, seconds * 1_000_000 + 1, 62_500))):
        n = len(times)
        slopes = np.repeat([0, 0.5, -1.0], 50)
        logs = (np.linspace(0, seconds, n)[:, None] * slopes).astype(np.float32).reshape(n, 3, 5, 10)
        made, _, _ = run(logs, times, Sensor(threshold_on=0.25, threshold_off=0.25, leak_hz=3))
        for mine, hz, p in zip(made, (3, 5, 1), (1, 1, 0), strict=True):
            assert (mine[:, 3] == p).all()
            for pixel in range(50):
                t = mine[mine[:, 0] * 10 + mine[:, 1] == pixel, 2]
                assert len(t) in (hz * seconds - 1, hz * seconds) or (p == 0 and len(t) in (2, 3))
                np.testing.assert_allclose(np.diff(t), 1e6 / hz, rtol=0, atol=1)
                assert t[0] <= 1e6 / hz * (2 - p)
                phases.append(t[0] * hz / 1e6)
    one, many = np.split(np.array(phases), 2)
    np.testing.assert_allclose(one, many, rtol=0, atol=6e-6)
    assert abs(one[:100].mean() - 0.5) < 3 / (12 * 100) ** 0.5


def test_bandwidth_low_passes_by_the_exact_solution():
    """A step of light, then rest: log intensity settles as 1 − exp(−2πf t), and the crossings with it."""
    sensor = Sensor(threshold_on=0.05, threshold_off=0.05, bandwidth_hz=40)
    grey = np.array([30, 200], np.float64)
    x0, x1 = np.log(grey / 255 + sensor.log_offset)
    times = np.arange(0, 40_001, 100)
    logs = np.full(len(times), x1)
    logs[0] = x0
    f = 40 * (200 / 255 + 0.1) / 1.1
    rate = 2 * math.pi * f * 1e-6  # per µs
    # The input is a ramp for 100 µs, then constant.
    after = x1 - (x1 - x0) * (1 - math.exp(-rate * 100)) / (rate * 100)
    settled = x1 - (x1 - after) * np.exp(-rate * (times[1:] - 100.0))
    made, _, _ = run(logs.astype(np.float32).reshape(-1, 1, 1, 1), times, sensor)
    crossed = x0 + 0.05 * np.arange(1, int((settled[-1] - x0) / 0.05) + 1)
    exact = 100 - np.log((x1 - crossed) / (x1 - after)) / rate
    assert len(made[0]) == len(crossed) > 20 and made[0][:, 3].all()
    inner = exact > 100
    np.testing.assert_allclose(made[0][inner, 2], exact[inner], rtol=2e-3, atol=3)


def test_bandwidth_of_a_ramp_is_that_of_small_steps():
    """A long step is exact: its end is where thousands of Euler steps along the same line end."""
    sensor = Sensor(threshold_on=0.01, threshold_off=0.01, bandwidth_hz=15)
    frames = np.log(np.array([40, 180, 20]) / 255 + sensor.log_offset)
    made, _, _ = run(frames.astype(np.float32).reshape(3, 1, 1, 1), [0, 8000, 14_000], sensor)
    y, level, count = frames[0], frames[0], 0
    ends = []
    for x0, x1, dt in ((frames[0], frames[1], 8e-3), (frames[1], frames[2], 6e-3)):
        a = 2 * math.pi * 15 * ((math.exp(x1) - sensor.log_offset) + 0.1) / 1.1
        n = 20_000
        for k in range(n):
            y += dt / n * a * (x0 + (x1 - x0) * (k + 0.5) / n - y)
        ends.append(y)
    for end, upto in zip(ends, (8000, 14_000), strict=True):
        steps = math.floor(abs(end - level) / 0.01 + 1e-4)
        here = made[0][(made[0][:, 2] > upto - (8000 if upto == 8000 else 6000)) & (made[0][:, 2] <= upto)]
        assert abs(len(here) - steps) <= 1 and (here[:, 3] == (end > level)).all()
        level += math.copysign(0.01 * len(here), end - level)
        count += len(here)
    assert count > 20


def textured(rng, steps, batch, height, width):
    """Frames that change smoothly, uint8 [T, B, H, W]."""
    t = np.arange(steps)[:, None, None, None]
    phase = rng.uniform(0, 7, (batch, height, width))
    return (127 + 110 * np.sin(0.35 * t + phase)).astype(np.uint8)


@pytest.mark.parametrize("response", ["log", "lin-log"])
def test_bandwidth_is_that_of_the_other_engine(response):
    """That one looks the cut-off up in a table of a thousandth of the intensity: a crossing in a thousand differs."""
    sensor = Sensor(response=response, threshold_on=0.1, threshold_off=0.07, bandwidth_hz=60, refractory_us=200)
    frames = textured(np.random.default_rng(0), 9, 2, 30, 40)
    logs, times = sensor.log_intensity(frames.reshape(-1, 40)).reshape(frames.shape), np.arange(9) * 3000
    made, pixels, _ = run(logs, times, sensor)
    sharp, _, _ = run(logs, times, replace(sensor, bandwidth_hz=0))
    for i, mine in enumerate(made):
        wanted = from_numba(logs[:, i], times, sensor, pixels.on, pixels.off)
        counts = [np.bincount(e[:, 0] * 40 + e[:, 1], minlength=1200) for e in (mine, wanted)]
        assert 3000 < len(wanted) < 0.9 * len(sharp[i])
        assert np.abs(counts[0] - counts[1]).sum() < 0.004 * len(wanted)


@pytest.mark.parametrize("response", ["log", "lin-log"])
def test_intensity_is_the_inverse_of_the_response(response):
    sensor = Sensor(response=response)
    log = np.linspace(-3, 6, 1001, dtype=np.float32)
    mine = intensity(torch.as_tensor(log), sensor)
    np.testing.assert_allclose(mine.numpy(), sensor.intensity(log), rtol=0, atol=3e-6)


# Readout and clock: no chance either; the other engine's events to the microsecond.


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    start=st.integers(-(10**6), 10**12),
    readout=st.sampled_from([0.0, 3e3, 1e5, 5e5, 1.7e6, 66e6]),
    wait=st.sampled_from([0, 50, 1000, 100_000]),
    tick=st.sampled_from([1, 7, 1000]),
    refractory=st.sampled_from([0, 500]),
)
def test_the_readout_is_that_of_the_other_engine(device, seed, start, readout, wait, tick, refractory):
    """Who is delayed and for how long, who is lost, what comes only with the next frame."""
    rng = np.random.default_rng(seed)
    sensor = Sensor(0.1, 0.15, refractory_us=refractory, readout_hz=readout, readout_wait_us=wait, tick_us=tick)
    logs = sensor.log_intensity(textured(rng, 5, 3, 7, 9).reshape(-1, 9)).reshape(5, 3, 7, 9)
    times = start + np.cumsum(rng.integers(1, 4000, (5, 3)), axis=0)
    pixels = TorchPixels(3, 7, 9, sensor, device=device)
    others = [PixelArray(7, 9, sensor) for _ in range(3)]
    made: list[list[np.ndarray]] = [[] for _ in range(6)]
    for log, now in zip(logs, times, strict=True):
        events = pixels.step(torch.as_tensor(log, device=device), now).events()
        for i, (mine, other, view, t) in enumerate(zip(events, others, log, now, strict=True)):
            wanted = other.step(view, int(t))
            assert np.all(mine.t <= t) and (mine.t % tick == 0).all()
            if readout in (0.0, 1e5, 5e5):  # whole microseconds a service: no rounding to differ by
                np.testing.assert_array_equal(mine.t, wanted.t)
            made[2 * i].append(rows(mine.x, mine.y, mine.t, mine.p))
            made[2 * i + 1].append(rows(wanted.x, wanted.y, wanted.t, wanted.p))
    assert abs(pixels.lost - sum(other.lost for other in others)) <= (0 if readout in (0.0, 1e5, 5e5) else 2)
    for mine, wanted in zip(made[::2], made[1::2], strict=True):
        mine, wanted = np.sort(np.concatenate(mine)[:, 2]), np.sort(np.concatenate(wanted)[:, 2])
        n = min(len(mine), len(wanted))  # rounding may put an event on either side of the last frame's time
        assert max(len(mine), len(wanted)) - n <= (0 if readout in (0.0, 1e5, 5e5) else 2)
        if len(mine) == len(wanted):
            np.testing.assert_allclose(mine, wanted, rtol=0, atol=tick)


def test_a_burst_passes_at_the_readouts_rate_and_no_faster():
    """By hand: 100 events at one moment, 10 µs each, patience 200 µs: those sent within 200 µs pass, 21 of them."""
    logs = np.zeros((2, 1, 10, 10), np.float32)
    logs[1] = 0.25
    sensor = Sensor(threshold_on=0.25, readout_hz=1e5, readout_wait_us=200)
    made, pixels, _ = run(logs, [0, 1000], sensor)
    # All fire at the frame's own time: the first goes out at once, the others come with the next frame.
    assert made[0][:, 2].tolist() == [1000] and pixels.lost == 79
    events = pixels.step(torch.as_tensor(logs[1]), 2000).events()[0]
    assert events.t.tolist() == [1000 + 10 * k for k in range(1, 21)]


# Random effects: counts within three standard deviations of the formula.


def still(grey, sensor, shape=(11, 2, 40, 50)):
    return np.full(shape, math.log(grey / 255 + sensor.log_offset), np.float32), [20_000 * k for k in range(shape[0])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_noise_has_the_rate_of_its_formula(device, grey):
    """Shot noise falls linearly with intensity to a quarter; the other kind does not."""
    for sensor, hz in ((Sensor(shot_noise_hz=25), 25 * (1 - 0.75 * grey / 255)), (Sensor(noise_hz=25), 25)):
        logs, times = still(grey, sensor)
        made, _, _ = run(logs, times, sensor, device=device)
        for mine in made:
            expected = hz * 40 * 50 * 0.2
            assert abs(len(mine) - expected) < 3 * expected**0.5
            assert abs(mine[:, 3].sum() - expected / 2) < 3 * (expected / 2) ** 0.5
            by_time, _ = np.histogram(mine[:, 2], 20, (0.5, 200_000.5))
            assert by_time.sum() == len(mine) and by_time.min() > expected / 20 - 5 * (expected / 20) ** 0.5
            assert np.isin([0, 39], mine[:, 0]).all() and np.isin([0, 49], mine[:, 1]).all()


def test_hot_pixels_fire_at_their_rates():
    logs, times = still(100, Sensor(), (11, 2, 100, 120))
    made, pixels, _ = run(logs, times, Sensor(hot_share=0.01, hot_hz=100))
    places, rates = pixels.hot
    share = 0.01 * 2 * 100 * 120
    assert abs(len(places) - share) < 3 * share**0.5 and len(np.unique(places)) == len(places)
    assert abs(rates.mean() - 100) < 3 * 100 / len(rates) ** 0.5
    counts = np.zeros((2, 100, 120), np.int64)
    for mine, count in zip(made, counts, strict=True):
        assert mine[:, 3].all()
        np.add.at(count, (mine[:, 0], mine[:, 1]), 1)
    assert counts.sum() == counts.ravel()[places].sum()
    expected = rates * 0.2
    assert abs(counts.sum() - expected.sum()) < 3 * expected.sum() ** 0.5
    # Each pixel by its own rate: χ² of as many Poisson numbers, of the busy ones.
    busy = expected > 5
    chi2 = ((counts.ravel()[places] - expected) ** 2 / expected)[busy].sum()
    assert abs(chi2 - busy.sum()) < 4 * (2 * busy.sum()) ** 0.5


def test_jitter_has_its_spread_and_stays_within_the_step():
    n = 20_000
    logs = np.zeros((3, 1, 100, n // 100), np.float32)
    logs[1:] = np.array([0.25, 0.75], np.float32)[:, None, None, None]  # crosses 0.5 at 2000 µs
    made, _, _ = run(logs, [0, 1000, 3000], Sensor(threshold_on=0.5, jitter_us=30))
    t = made[0][:, 2] - 2000
    assert len(t) == n and abs(t.mean()) < 3 * 30 / n**0.5
    assert t.std() == pytest.approx(30, rel=0.02)
    assert np.percentile(t, 75) == pytest.approx(0.6745 * 30, abs=1)  # as of a Gaussian
    wide, _, _ = run(logs, [0, 1000, 3000], Sensor(threshold_on=0.5, jitter_us=2000))
    assert wide[0][:, 2].min() > 1000 and wide[0][:, 2].max() <= 3000 and len(wide[0]) == n


def test_mismatch_has_its_spread():
    pixels = TorchPixels(2, 100, 120, Sensor(0.3, 0.2, threshold_sigma=0.03), 1)
    for drawn, nominal in ((pixels.on, 0.3), (pixels.off, 0.2)):
        assert drawn.shape == (2, 100, 120)
        assert float(drawn.mean()) == pytest.approx(nominal, abs=0.001)
        assert float(drawn.std()) == pytest.approx(0.03, rel=0.03)
    assert float((pixels.on[0] - pixels.on[1]).std()) == pytest.approx(0.03 * 2**0.5, rel=0.03)
    wild = TorchPixels(1, 100, 120, Sensor(0.2, 0.2, threshold_sigma=0.5))
    assert float(wild.on.min()) == float(np.float32(0.05))


# Grids.


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    frames=arrays(np.uint8, st.tuples(st.just(2), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))),
    span=st.sampled_from([1, 7, 1000, 50_000, LONGEST_STEP_US]),
    bins=st.sampled_from([1, 2, 5]),
    polarity=st.sampled_from(["signed", "split"]),
)
def test_grids_are_those_of_the_events(device, frames, span, bins, polarity):
    sensor = Sensor(0.1, 0.15)
    logs = np.stack([[sensor.log_intensity(view) for view in frame] for frame in frames])
    _, _, steps = run(logs, [5, 5 + span], sensor, device=device)
    grid = VoxelGrid(bins, polarity)
    made = steps[1].voxel_grid(grid)
    assert made.dtype == torch.float32 and made.device.type == device
    expected = np.stack([grid(events) for events in steps[1].events()])
    np.testing.assert_allclose(made.cpu().numpy(), expected, rtol=0, atol=1e-4)
    assert steps[1].counts().tolist() == [len(events) for events in steps[1].events()]


NOISY = dict(
    threshold_sigma=0.03,
    refractory_us=300,
    leak_hz=5,
    shot_noise_hz=20,
    noise_hz=5,
    hot_share=0.01,
    hot_hz=90,
    jitter_us=40,
    tick_us=5,
    readout_hz=1e6,
)


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_seed_gives_the_same_bits(device):
    rng = np.random.default_rng(2)
    logs = rng.normal(size=(4, 3, 30, 40)).astype(np.float32)

    def words(seed):
        made, _, steps = run(logs, [0, 900, 4000, 30_000], Sensor(bandwidth_hz=200, **NOISY), seed, device)
        return np.concatenate(made), torch.stack([step.voxel_grid() for step in steps]).cpu()

    one, again, other = words(3), words(3), words([3, 1])
    np.testing.assert_array_equal(one[0], again[0])
    assert torch.equal(one[1], again[1]) and len(one[0]) > 10_000
    assert len(one[0]) != len(other[0])


def test_frames_are_left_alone():
    frames = [torch.randn(2, 6, 7) for _ in range(4)]
    kept = [frame.clone() for frame in frames]
    pixels = TorchPixels(2, 6, 7, Sensor(bandwidth_hz=100, **NOISY))
    for k, frame in enumerate(frames):
        pixels.step(frame, 1000 * k)
    assert all(torch.equal(a, b) for a, b in zip(frames, kept, strict=True))


def test_what_cannot_be_simulated_is_refused():
    for shape in ((0, 4, 5), (1, 0, 5), (1, 4, 65_537)):
        with pytest.raises(InputError, match="cannot be simulated"):
            TorchPixels(*shape)
    with pytest.raises(InputError, match="no room"):
        TorchPixels(4, 65_536, 65_536)
    pixels = TorchPixels(2, 3, 4)
    for bad in (torch.zeros(2, 4, 3), torch.zeros(1, 3, 4), torch.zeros(2, 3, 4).double()):
        with pytest.raises(InputError, match=r"give torch.float32 \[2, 3, 4\]"):
            pixels.step(bad, 0)
    pixels.step(torch.zeros(2, 3, 4), 5)
    for t in (5, [6, 5], 4):
        with pytest.raises(InputError, match="rising times"):
            pixels.step(torch.zeros(2, 3, 4), t)
    with pytest.raises(InputError, match="cut the video"):
        pixels.step(torch.zeros(2, 3, 4), [6, 10 + LONGEST_STEP_US])
    for bad in (torch.nan, torch.inf, -1e30):  # so many events would have no room, and no number
        with pytest.raises(InputError, match="not finite"):
            pixels.step(torch.full((2, 3, 4), bad), 6)
    assert pixels.step(torch.zeros(2, 3, 4), 6).total == 0  # what was refused changed nothing
    with pytest.raises(ConfigError, match="tick_us"):
        TorchPixels(1, 2, 3, Sensor(tick_us=2**30))
