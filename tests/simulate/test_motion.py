import math

import cv2
import numpy as np
import pytest

from evlift.errors import ConfigError
from evlift.simulate.motion import PATHS, Motion, SampledMotion, draw_motion, draw_path, matrices, shake_poses


def test_a_path_ends_at_the_identity_and_has_its_length():
    for seed in range(30):
        motion = draw_motion(seed, 192, 256)
        u = np.linspace(0, 1, 2001)
        poses = motion.poses(u)
        np.testing.assert_allclose(poses[-1], 0, atol=1e-12)
        steps = np.hypot(*np.diff(poses[:, :2], axis=0).T)
        assert steps.sum() == pytest.approx(motion.length_px, rel=1e-3)
        assert 2 <= motion.length_px <= 15
        # Smooth: no step is much longer than the mean, and none is zero.
        assert steps.max() < 1.7 * steps.mean() and steps.min() > 0.3 * steps.mean()
        np.testing.assert_allclose(poses[0, 2:], [motion.angle, motion.log_zoom])
        np.testing.assert_allclose(matrices(poses[-1:], 192, 256)[0], [[1, 0, 0], [0, 1, 0]], atol=1e-9)


def test_no_pixel_goes_further_than_corner_way():
    corners = np.array([[0, 0, 1], [255, 0, 1], [0, 191, 1], [255, 191, 1]]).T
    for seed in range(30):
        motion = draw_motion(seed, 192, 256, (3, 40))
        seen = matrices(motion.poses(np.linspace(0, 1, 500)), 192, 256) @ corners  # [K, 2, 4]
        ways = np.hypot(*np.diff(seen, axis=0).transpose(1, 0, 2)).sum(0)
        assert ways.max() <= motion.corner_way(192, 256)
        assert motion.corner_way(192, 256) < 3.5 * motion.length_px


def test_lengths_are_log_uniform_and_rotation_and_zoom_in_proportion():
    drawn = [draw_motion([7, k], 192, 256, (2, 32), 0.3, 0.5) for k in range(4000)]
    share = np.log2([motion.length_px for motion in drawn]) / 4 - 0.25
    np.testing.assert_allclose(np.histogram(share, 4, (0, 1))[0] / 4000, 0.25, atol=0.03)
    corner = np.array([160 / motion.length_px for motion in drawn])
    turned = corner * [motion.angle for motion in drawn]
    zoomed = corner * [motion.log_zoom for motion in drawn]
    assert turned.std() == pytest.approx(0.3, rel=0.1) and np.abs(turned).max() <= 0.6 + 1e-9
    assert zoomed.std() == pytest.approx(0.5, rel=0.1) and np.abs(zoomed).max() <= 1 + 1e-9
    still = draw_motion(0, 192, 256, (5, 5), 0, 0)
    assert (still.length_px, still.angle, still.log_zoom) == (pytest.approx(5), 0, 0)


def test_matrices_turn_zoom_and_move_about_the_centre():
    pose = np.array([[2.0, -1.0, math.pi / 2, math.log(3)]])
    m = matrices(pose, 5, 9)[0]  # centre (4, 2)
    np.testing.assert_allclose(m @ [4, 2, 1], [6, 1])
    np.testing.assert_allclose(m @ [5, 2, 1], [6, 4])  # a step right becomes three steps down (y down)
    np.testing.assert_allclose(m @ [4, 3, 1], [3, 1])
    picture = np.zeros((9, 9), np.float32)
    picture[4, 4] = 1
    moved = cv2.warpAffine(picture, matrices(np.array([[2.0, -1.0, 0, 0]]), 9, 9)[0], (9, 9))
    assert moved[3, 6] == 1


def test_straight_even_path():
    motion = Motion(length_px=10, heading=0, turn=0, swing=0, phase=0, angle=0, log_zoom=0)
    np.testing.assert_allclose(motion.poses(np.array([0, 0.25, 1]))[:, 0], [-10, -7.5, 0], atol=1e-9)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_ends_at_the_identity_and_has_its_length(path):
    u = np.linspace(0, 1, 4001)
    for seed in range(20):
        motion = draw_path(seed, 192, 256, path, (0.5, 50))
        poses = motion.poses(u)
        np.testing.assert_allclose(poses[-1], 0, atol=1e-12)
        assert 0.5 <= motion.length_px <= 50
        # Chords of a curve: where a path turns on the spot they cut its corner.
        assert np.hypot(*np.diff(poses[:, :2], axis=0).T).sum() == pytest.approx(motion.length_px, rel=0.02)


def test_a_smooth_path_is_that_of_draw_motion():
    assert draw_path(3, 40, 50, "smooth", (2, 9), 0.1, 0.2) == draw_motion(3, 40, 50, (2, 9), 0.1, 0.2)


def test_lengths_over_two_orders_of_magnitude():
    lengths = np.log10([draw_path([1, k], 192, 256, "shake", (0.5, 50)).length_px for k in range(1000)])
    np.testing.assert_allclose(np.histogram(lengths - np.log10(0.5), 4, (0, 2))[0] / 1000, 0.25, atol=0.05)


def speeds(motion, samples=400):
    return np.diff(motion.poses(np.linspace(0, 1, samples + 1))[:, :2], axis=0) * samples / motion.length_px


def test_saccades_jump_between_slow_drifts():
    shares = []
    for seed in range(50):
        velocity = speeds(draw_path(seed, 192, 256, "saccade", (10, 10)))
        pace = np.hypot(*velocity.T)
        assert pace.max() > 1.5 and np.abs(np.diff(velocity, axis=0)).max() < 0.25 * pace.max()  # no jolt
        shares.append((pace < 0.25).mean())
    assert np.mean(shares) > 0.3  # much of the time nearly at rest


def test_shake_goes_to_and_fro():
    turned = 0
    for seed in range(50):
        motion = draw_path(seed, 192, 256, "shake", (10, 10))
        velocity = speeds(motion)
        turned += (np.diff(np.sign(velocity), axis=0) != 0).any(axis=0).sum()
        net = np.hypot(*motion.poses(np.zeros(1))[0, :2])
        assert net < 10
    assert turned > 80  # of a hundred: nearly every path turns back in x and in y


def test_mixed_draws_each():
    drawn = [draw_path(seed, 192, 256, "mixed", (10, 10)) for seed in range(200)]
    smooth = sum(isinstance(motion, Motion) for motion in drawn)
    assert 40 < smooth < 95 and all(isinstance(motion, (Motion, SampledMotion)) for motion in drawn)


def test_shake_stays_within_its_amplitude_and_moves_at_its_frequency():
    times = np.arange(0, 20_000_000, 10_000)
    poses = shake_poses(times, 6.0, seed=3, hz=2.0)
    assert np.abs(poses[:, :2]).max() <= 6 and np.abs(poses[:, :2]).max() > 3 and np.all(poses[:, 3] == 0)
    power = np.abs(np.fft.rfft(poses[:, 0] - poses[:, 0].mean())) ** 2
    hz = np.fft.rfftfreq(len(times), 0.01)
    assert power[(hz > 0.35) & (hz < 5.2)].sum() > 0.97 * power.sum()
    np.testing.assert_array_equal(shake_poses(times[700:710], 6.0, seed=3, hz=2.0), poses[700:710])
    assert np.abs(shake_poses(times, 6.0, seed=4) - poses).max() > 1
    assert not shake_poses(times, 0.0).any()


def test_a_path_far_longer_than_its_picture_stays_finite():
    for path in ("smooth", "saccade", "shake"):
        for seed in range(5):
            poses = draw_path(seed, 1, 1, path, (10_000, 10_000), zoom=1e9).poses(np.linspace(0, 1, 33))
            assert np.isfinite(np.exp(np.abs(poses[:, 3]))).all() and np.isfinite(poses).all()


def test_mistakes():
    for bad in ((0, 5), (6, 5), (-1, 1), (1, math.inf), (1, 1e6)):
        with pytest.raises(ConfigError, match="motion_px"):
            draw_motion(0, 10, 10, bad)
    with pytest.raises(ConfigError, match="rotation is -1"):
        draw_motion(0, 10, 10, rotation=-1)
    with pytest.raises(ConfigError, match="positive frequency"):
        shake_poses(np.arange(3), 1.0, hz=0)
    with pytest.raises(ConfigError, match="no path 'jump'; choose one of smooth, saccade"):
        draw_path(0, 10, 10, "jump")
    with pytest.raises(ConfigError, match="zoom is nan"):
        draw_path(0, 10, 10, "shake", zoom=math.nan)
