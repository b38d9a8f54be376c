"""Jumps of exposure and black level: undone, against the same video without them."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from evlift.simulate import Sensor, VideoSimulator, events_from_video
from evlift.simulate.steady import Steady

TIMES = np.arange(8) * 40_000


def scene(frames=8, speed=2.0, height=120, width=160):
    """A wall with dark and bright things on it, seen by a camera that moves by `speed` px a frame: uint8 [T, H, W]."""
    rng = np.random.default_rng(5)
    wide = np.full((height, width + 100), 140.0)
    for _ in range(60):
        y, x, radius = rng.integers(0, height), rng.integers(0, width + 100), int(rng.integers(3, 14))
        cv2.circle(wide, (int(x), int(y)), radius, float(rng.uniform(20, 230)), -1, cv2.LINE_AA)
    wide = cv2.GaussianBlur(wide, (0, 0), 1.0)
    ways = [np.float32([[1, 0, -speed * k], [0, 1, 0]]) for k in range(frames)]
    return np.stack([cv2.warpAffine(wide, way, (width, height)) for way in ways]).round().astype(np.uint8)


def distorted(frames, gain, offset):
    return np.clip(np.round(gain * frames.astype(float) + offset), 0, 255).astype(np.uint8)


def counts(events):
    volume = np.zeros((8, events.height, events.width, 2))
    np.add.at(volume, ((events.t - 1) // 40_000, events.y, events.x, events.p.astype(int)), 1)
    return volume


def agreement(events, truth):
    a, b = counts(events), counts(truth)
    return np.corrcoef(a.ravel(), b.ravel())[0, 1], a.sum() / b.sum()


def test_nothing_jumps_nothing_changes():
    frames, steady = scene(), Steady()
    for before, after in pairwise(frames):
        one, two = steady(before, after)
        assert one is before and two is after
    slow = [distorted(frames[0], 1, k) for k in range(20)]  # under six levels a frame: a slow exposure is left alone
    for before, after in pairwise(slow):
        assert steady(before, after)[1] is after


@pytest.mark.parametrize(("gain", "offset"), [(0.6, 100), (0.5, 0), (0.8, 40), (1, -15)])
@pytest.mark.parametrize("colour", [False, True])
def test_a_frame_in_another_scale(gain, offset, colour):
    frames = scene()
    if colour:
        frames = np.repeat(frames[..., None], 3, axis=3)
    jumping = frames.copy()
    jumping[3:5] = distorted(frames[3:5], gain, offset)
    truth = events_from_video(frames, TIMES)
    corr, rate = agreement(events_from_video(jumping, TIMES, steady=True), truth)
    assert corr > 0.98 and 0.98 < rate < 1.02, (corr, rate)
    without, _ = agreement(events_from_video(jumping, TIMES, steady=False), truth)
    assert without < 0.9


def test_the_first_frames_are_off():
    """Contrast rises: what was seen so far moves to the scale of what follows."""
    frames = scene()
    jumping = frames.copy()
    jumping[:2] = distorted(frames[:2], 0.5, 110)
    truth = events_from_video(frames, TIMES)
    steady = events_from_video(jumping, TIMES, steady=True)
    later = counts(steady)[2:], counts(truth)[2:]
    assert np.corrcoef(later[0].ravel(), later[1].ravel())[0, 1] > 0.9
    between = counts(steady)[1], counts(truth)[1]  # from the second frame, rewritten, to the third
    assert np.corrcoef(between[0].ravel(), between[1].ravel())[0, 1] > 0.8


def test_a_curve_that_is_no_line():
    """A frame with its shadows crushed, as in a DAVIS240b's first frames."""
    frames = scene()
    crushed = np.interp(np.arange(256), [0, 60, 120, 255], [0, 0, 100, 250]).round().astype(np.uint8)
    steady = Steady()
    before, after = steady(crushed[frames[0]], distorted(frames[1], 0.7, 70))
    flow_free = cv2.warpAffine(crushed[frames[0]], np.float32([[1, 0, -2], [0, 1, 0]]), (160, 120))
    middle = (slice(10, -10), slice(10, -10))
    assert np.abs(after[middle].astype(float) - flow_free[middle]).mean() < 4
    assert before is not None


def test_columns_that_failed_are_filled_in():
    frames = scene()
    broken = distorted(frames[3], 0.6, 100)
    broken[:, :14] = 30
    _, after = Steady()(frames[2], broken)
    assert np.abs(after[:, 2:].astype(float) - frames[3][:, 2:]).mean() < 4
    jumping = frames.copy()
    jumping[3] = broken
    corr, rate = agreement(events_from_video(jumping, TIMES, steady=True), events_from_video(frames, TIMES))
    assert corr > 0.85 and 0.85 < rate < 1.15, (corr, rate)


def test_a_change_for_good_is_measured_once():
    """Thirty dim frames of a scene at rest: a curve on a curve on a curve would wander."""
    bright, dim = scene(1)[0], distorted(scene(1)[0], 0.55, 10)
    steady, before = Steady(), bright
    seen = []
    for _ in range(30):
        before, after = steady(before, dim)
        seen.append(after)
        before = after
    assert all(np.array_equal(seen[0], later) for later in seen[1:])
    assert np.abs(seen[0].astype(float) - bright).mean() < 2.5
    _, back = steady(before, bright)
    assert np.array_equal(back, bright)


def test_what_is_no_jump_of_the_camera():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, 90, 90)).astype(np.uint8)
    frames = scene()
    for before, after in [
        (noise[0], noise[1]),
        (frames[0], 255 - frames[0]),
        (frames[0], np.full_like(frames[0], 250)),
        (np.full_like(frames[0], 20), np.full_like(frames[0], 90)),
        (frames[0, :12, :12], frames[1, :12, :12] // 2),
        (frames[0, :1, :1], frames[1, :1, :1] // 2),
    ]:
        one, two = Steady()(before, after)
        assert one is before and two is after


def test_who_is_steady_by_default():
    frames = scene()
    frames[4:] = distorted(frames[4:], 0.5, 110)
    for sensor, steady in [("ideal", False), (Sensor(0.3, 0.3), False), ("davis240", True), ("gen4-hd", True)]:
        events = events_from_video(frames, TIMES, sensor)
        np.testing.assert_array_equal(events.t, events_from_video(frames, TIMES, sensor, steady=steady).t)
    simulator = VideoSimulator(120, 160, "davis240", seed=4)
    parts = [simulator.push(frame, t) for frame, t in zip(frames, TIMES, strict=True)]
    np.testing.assert_array_equal(
        np.concatenate([part.t for part in parts]), events_from_video(frames, TIMES, "davis240", 4).t
    )
