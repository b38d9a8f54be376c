import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evlift.errors import ConfigError, InputError
from evlift.simulate import SENSORS, Sensor, VideoSimulator, events_from_video, shake


def texture(frames, speed, seed=0, height=64, width=80):
    """A soft random texture that moves by `speed` px a frame: uint8 RGB."""
    rng = np.random.default_rng(seed)
    phase, fx, fy = rng.uniform(0, 6, (3, 8)), rng.uniform(-0.4, 0.4, (3, 8)), rng.uniform(-0.4, 0.4, (3, 8))
    y, x = np.mgrid[:height, :width]
    out = []
    for k in range(frames):
        waves = np.sin(fx[..., None, None] * (x - speed * k) + fy[..., None, None] * y + phase[..., None, None])
        out.append(110 + 250 * waves.mean(1))
    return np.clip(np.stack(out).transpose(0, 2, 3, 1), 0, 255).astype(np.uint8)


def to_grey(frame):
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def columns(events):
    return [getattr(events, name) for name in "xytp"]


def test_brighter_is_on_and_constant_is_silent():
    frames = np.full((4, 5, 6, 3), 100, np.uint8)
    times = np.arange(4) * 1000
    assert len(events_from_video(frames, times)) == 0
    frames[2:, 1, 2] = 200
    events = events_from_video(frames, times)
    assert len(events) == math.floor((math.log(200 / 255 + 0.1) - math.log(100 / 255 + 0.1)) / 0.2) == 2
    assert events.p.all() and set(events.x) == {2} and set(events.y) == {1}
    assert events.t.min() > 1000 and events.t.max() <= 2000
    assert not events_from_video(frames[::-1], times).p.any()


def test_log_ramp_crosses_at_analytic_times():
    frames = np.zeros((2, 1, 1), np.uint8)
    frames[:, 0, 0] = 20, 240
    rise = math.log(240 / 255 + 0.1) - math.log(20 / 255 + 0.1)
    events = events_from_video(frames, np.array([0, 1_000_000]))
    expected = 0.2 * np.arange(1, math.floor(rise / 0.2) + 1) / rise * 1e6
    np.testing.assert_allclose(events.t, expected, atol=3)  # log intensity is float32


def test_first_frame_has_no_events_whatever_its_time():
    frames = texture(3, 0.5)
    base = events_from_video(frames, np.array([0, 10_000, 20_000]))
    for offset in (-50_000, 7, 10**12):
        moved = events_from_video(frames, np.array([0, 10_000, 20_000]) + offset)
        np.testing.assert_array_equal(moved.t - offset, base.t)
        np.testing.assert_array_equal(moved.x, base.x)


@pytest.mark.parametrize("sensor", list(SENSORS))
@pytest.mark.parametrize("interpolate", [True, False])
def test_streaming_is_the_whole_array(sensor, interpolate):
    frames = texture(6, 3.0)
    times = np.array([0, 40_000, 80_001, 110_000, 400_000, 440_000])
    whole = events_from_video(frames, times, sensor, 5, interpolate)
    simulator = VideoSimulator(64, 80, sensor, 5, interpolate)
    parts = []
    for frame, t in zip(frames, times, strict=True):
        buffer = frame.copy()
        parts.append(simulator.push(buffer, t))
        buffer[:] = 0  # a reader that reuses its buffer does no harm
    for joined, column in zip(map(np.concatenate, zip(*map(columns, parts), strict=True)), columns(whole), strict=True):
        np.testing.assert_array_equal(joined, column)
    for k, part in enumerate(parts):
        assert len(part) == 0 or (part.t.min() > times[k - 1] and part.t.max() <= times[k])
    assert len(whole) > 2500 and np.all(np.diff(whole.t) >= 0)


def test_seeds():
    frames, times = texture(4, 2.0), np.arange(4) * 40_000
    one, same, other = (events_from_video(frames, times, "noisy-night", seed) for seed in (1, 1, 2))
    for a, b in zip(columns(one), columns(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(one) != len(other) or (one.t != other.t).any()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    frames=arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(13, 19), st.integers(13, 19))),
    gaps=st.lists(st.integers(1, 100_000), min_size=5, max_size=5),
    interpolate=st.booleans(),
)
def test_any_video_ends_within_a_threshold_of_its_last_frame(frames, gaps, interpolate):
    times = np.cumsum([0, *gaps])[: len(frames)]
    events = events_from_video(frames, times, Sensor(0.15, 0.25), interpolate=interpolate)
    assert np.all(np.diff(events.t) >= 0)
    level = np.log(frames[0] / 255 + 0.1)
    np.add.at(level, (events.y, events.x), np.where(events.p, 0.15, -0.25))
    rest = np.log(frames[-1] / 255 + 0.1) - level
    assert rest.max() < 0.15 + 1e-5 and rest.min() > -0.25 - 1e-5
    if len(events):
        assert events.t.min() > 0 and events.t.max() <= times[-1]


def test_interpolation_gives_the_events_of_a_faster_camera():
    """A texture at 6 px a frame, against the same one filmed twenty times as often, in bins of 10 ms."""
    fine, coarse = np.arange(101) * 2000, np.arange(6) * 40_000
    truth = events_from_video(texture(101, 0.3), fine, interpolate=False)

    def volume(events):
        counts = np.zeros((20, 64, 80, 2))
        np.add.at(counts, ((events.t - 1) // 10_000, events.y, events.x, events.p.astype(int)), 1)
        return counts[:, 8:-8, 8:-8].ravel()

    def agreement(interpolate):
        events = events_from_video(texture(6, 6.0), coarse, interpolate=interpolate)
        return np.corrcoef(volume(truth), volume(events))[0, 1], volume(events).sum() / volume(truth).sum()

    straight, along = agreement(False), agreement(True)
    assert along[0] > 0.8 > 0.6 > straight[0] and 0.9 < along[1] < 1.1, (straight, along)


def test_times_between_frames_of_any_spacing():
    """A pixel whose log intensity rises by a tenth of a threshold a millisecond, filmed at irregular times."""
    times = np.array([0, 40_000, 41_000, 73_000, 200_000])
    rise = 0.02 * times / 1000
    sensor = Sensor(0.2, 0.2, log_offset=0.01)
    levels = (np.exp(np.log(0.05) + rise[:3]) - 0.01) * 255
    frames = np.round(levels).astype(np.uint8)[:, None, None]
    log = np.log(frames[:, 0, 0] / 255 + 0.01)
    expected = [np.interp(log[0] + 0.2 * k, log, times[:3]) for k in range(1, int((log[-1] - log[0]) / 0.2) + 1)]
    events = events_from_video(frames, times[:3], sensor)
    np.testing.assert_allclose(events.t, np.ceil(expected), atol=1)
    late = events_from_video(frames, times[:3] * 7 + 5, sensor)
    np.testing.assert_allclose(late.t, np.ceil(np.array(expected) * 7 + 5), atol=7)


def test_no_events_across_a_cut():
    """Two shots as one video give the events of the two shots, and nothing in between."""
    shots = [texture(5, 2.0, seed=1), texture(4, 2.0, seed=7)]
    frames, times = np.concatenate(shots), np.arange(9) * 40_000
    joined = events_from_video(frames, times)
    parts = [events_from_video(shots[0], times[:5]), events_from_video(shots[1], times[5:])]
    for column, apart in zip(columns(joined), map(np.concatenate, zip(*map(columns, parts), strict=True)), strict=True):
        np.testing.assert_array_equal(column, apart)
    assert not ((joined.t > times[4]) & (joined.t <= times[5])).any()
    across = events_from_video(frames, times, cuts=False)
    assert ((across.t > times[4]) & (across.t <= times[5])).sum() > len(joined) / 4
    told = VideoSimulator(64, 80, cuts=False)
    events = [told.push(frame, t, cut=k == 5) for k, (frame, t) in enumerate(zip(frames, times, strict=True))]
    np.testing.assert_array_equal(np.concatenate([part.t for part in events]), joined.t)
    kept = VideoSimulator(64, 80)
    events = [kept.push(frame, t, cut=False) for frame, t in zip(frames, times, strict=True)]
    np.testing.assert_array_equal(np.concatenate([part.t for part in events]), across.t)


def test_time_rises_across_a_cut_and_the_camera_stays_the_same():
    simulator = VideoSimulator(64, 80, Sensor(threshold_sigma=0.03), seed=3)
    shot = texture(3, 2.0)
    one = [simulator.push(frame, 40_000 * k) for k, frame in enumerate(shot)]
    with pytest.raises(InputError, match="rising times"):
        simulator.push(shot[0], 80_000, cut=True)
    again = [simulator.push(frame, 120_000 + 40_000 * k, cut=k == 0) for k, frame in enumerate(shot)]
    for a, b in zip(one, again, strict=True):  # the same thresholds, from a fresh start
        np.testing.assert_array_equal(a.t + 120_000, b.t)
        np.testing.assert_array_equal(a.x, b.x)


def test_grey_and_colour_may_take_turns():
    frames, times = texture(6, 1.0), np.arange(6) * 40_000
    whole = events_from_video(np.stack([to_grey(frame) for frame in frames]), times)
    for sensor in ("ideal", SENSORS["davis240"]):
        simulator = VideoSimulator(64, 80, sensor)
        parts = [
            simulator.push(to_grey(f) if k % 2 else f, t) for k, (f, t) in enumerate(zip(frames, times, strict=True))
        ]
        if sensor == "ideal":
            np.testing.assert_array_equal(np.concatenate([part.t for part in parts]), whole.t)


@pytest.mark.parametrize("pattern", ["flat", "texture"])
def test_light_that_goes_on_is_no_cut(pattern):
    frame = np.full((64, 80, 3), 60, np.uint8) if pattern == "flat" else texture(1, 0)[0] // 2
    frames = np.stack([frame] * 4 + [2 * frame] * 3)
    events = events_from_video(frames, np.arange(7) * 40_000)
    before, after = (np.log(to_grey(each) / 255 + 0.1) for each in (frame, 2 * frame))
    expected = np.floor((after - before) / 0.2 + 1e-6)
    assert len(events) == pytest.approx(expected.sum(), rel=0.01) and events.p.all()


def test_an_interpolator_of_ones_own():
    """A texture at 6 px a frame: with the true frames in between the events are those of a faster camera."""
    fast = texture(26, 1.2)
    coarse, times = fast[::5], np.arange(26) * 8000

    def between(before, after):
        k = next(k for k in range(0, 26, 5) if np.array_equal(fast[k], before))
        assert np.array_equal(fast[k + 5], after)
        return fast[k + 1 : k + 5]

    truth = events_from_video(fast, times, interpolate=False)
    ours = events_from_video(coarse, times[::5], interpolate=between)
    for a, b in zip(columns(truth), columns(ours), strict=True):
        np.testing.assert_array_equal(a, b)
    grey = events_from_video(coarse, times[::5], interpolate=lambda a, b: np.stack([to_grey(f) for f in between(a, b)]))
    np.testing.assert_array_equal(grey.t, truth.t)

    straight = events_from_video(coarse, times[::5], interpolate=False)
    for still in (lambda a, b: (np.zeros((64, 80, 2)), np.zeros((64, 80, 2))), lambda a, b: None):
        same = events_from_video(coarse, times[::5], interpolate=still)
        np.testing.assert_array_equal(same.t, straight.t)


def test_more_frames_between_than_microseconds():
    frames = texture(3, 3.0)
    many = np.repeat(frames[1:2], 9, axis=0)
    events = events_from_video(frames, np.array([0, 4, 5]), interpolate=lambda a, b: many)
    assert len(events) > 100 and events.t.max() <= 5 and np.all(np.diff(events.t) >= 0)


def test_an_interpolator_by_name(tmp_path, monkeypatch):
    (tmp_path / "mine_between.py").write_text("def nothing(before, after):\n    return None\nnumber = 3\n")
    monkeypatch.chdir(tmp_path)
    frames, times = texture(4, 3.0), np.arange(4) * 40_000
    events = events_from_video(frames, times, interpolate="python:mine_between.nothing")
    np.testing.assert_array_equal(events.t, events_from_video(frames, times, interpolate=False).t)
    for name, why in [
        ("fast", "interpolator 'fast' names no function"),
        ("python:nothing", "names no function"),
        ("python:mine_between.number", "has no function 'number'"),
        ("python:not_there.nothing", "cannot be imported"),
    ]:
        with pytest.raises(ConfigError, match=why):
            VideoSimulator(4, 4, interpolate=name)


@pytest.mark.parametrize(
    ("gives", "why"),
    [
        (np.zeros((2, 64, 80, 3)), r"gave float64 \[2, 64, 80, 3\]; give two flows \[64, 80, 2\]"),
        (np.zeros((2, 80, 64, 3), np.uint8), r"gave uint8 \[2, 80, 64, 3\]"),
        ((np.zeros((64, 80, 2)),), "gave flows of"),
        ((np.zeros((64, 80, 2)), np.zeros((64, 80))), "gave flows of"),
        ((np.zeros((64, 80, 2)), np.full((64, 80, 2), np.nan)), "not finite"),
        ("frames", "gave str"),
    ],
)
def test_an_interpolator_that_is_wrong(gives, why):
    with pytest.raises(ConfigError, match=why):
        events_from_video(texture(2, 1.0), np.arange(2) * 40_000, interpolate=lambda a, b: gives)


def test_shake_moves_a_still_video():
    frames = np.repeat(texture(1, 0), 12, axis=0)
    times = np.arange(12) * 40_000
    assert len(events_from_video(frames, times)) == 0
    before = frames.copy()
    moved = shake(frames, 8, seed=1, times_us=times)
    np.testing.assert_array_equal(frames, before)
    assert moved.shape == frames.shape and moved.dtype == np.uint8
    assert len(events_from_video(moved, times)) > 2000
    np.testing.assert_array_equal(moved, shake(frames, 8, seed=1, times_us=times))
    np.testing.assert_array_equal(moved, shake(frames, 8, seed=1))  # 25 frames a second
    assert (moved != shake(frames, 8, seed=2)).any()
    np.testing.assert_array_equal(shake(frames, 0), frames)
    assert shake(frames[..., 0], 8).shape == (12, 64, 80)


def test_mistakes():
    with pytest.raises(InputError, match="at least one frame"):
        events_from_video(np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0, np.int64))
    with pytest.raises(InputError, match="float64"):
        events_from_video(np.zeros((2, 4, 4, 3)), np.arange(2))
    with pytest.raises(InputError, match="one integer a frame"):
        events_from_video(np.zeros((2, 4, 4, 3), np.uint8), np.arange(3))
    with pytest.raises(InputError, match="one integer a frame"):
        events_from_video(np.zeros((2, 4, 4, 3), np.uint8), np.array([0.0, 1.0]))
    with pytest.raises(InputError, match="rising times"):
        events_from_video(np.zeros((2, 4, 4, 3), np.uint8), np.array([5, 5]))
    with pytest.raises(InputError, match=r"\[5, 4\]; give uint8 \[4, 4, 3\]"):
        VideoSimulator(4, 4).push(np.zeros((5, 4), np.uint8), 0)
    with pytest.raises(InputError, match="one a frame"):
        shake(np.zeros((2, 4, 4, 3), np.uint8), 1, times_us=np.arange(3))
