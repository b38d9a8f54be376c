import math

import cv2
import numpy as np
import pytest

from evlift.simulate.camera import Camera, draw_camera, planes, project, rotations, through
from evlift.simulate.motion import draw_path


def test_rotations_against_opencv():
    vectors = np.random.default_rng(0).normal(0, 1, (20, 3))
    vectors[0] = 0
    vectors[1] = 1e-9, 0, 0
    for vector, matrix in zip(vectors, rotations(vectors), strict=True):
        np.testing.assert_allclose(matrix, cv2.Rodrigues(vector)[0], atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.3])
def test_maps_against_points_in_space(share):
    """A R r + ρ b is what projecting the point itself gives, with OpenCV's pin-hole camera."""
    height, width = 60, 80
    camera = Camera(draw_path(2, height, width, "smooth", (12, 12)), share, 90.0)
    rng = np.random.default_rng(1)
    pixels = rng.uniform(0, 60, (7, 2))
    z0, depth = 5.0, rng.uniform(2, 30, 7)
    k = np.array([[90.0, 0, 39.5], [0, 90, 29.5], [0, 0, 1]])
    points = np.column_stack([pixels, np.ones(7)]) @ np.linalg.inv(k).T * depth[:, None]
    u = np.array([0.0, 0.6, 1.0])
    for pose, a, b in zip(camera.poses(u), *camera.maps(camera.motion.poses(u), height, width), strict=True):
        expected, _ = cv2.projectPoints(points, pose[:3], pose[3:] * z0, k, None)
        seen = [project(a + np.outer(b, [0, 0, z0 / z]), pixel) for pixel, z in zip(pixels, depth, strict=True)]
        np.testing.assert_allclose(seen, expected[:, 0], atol=1e-9)
    np.testing.assert_allclose(seen, pixels, atol=1e-9)  # at the end: the picture


def test_the_middle_of_the_picture_follows_the_path_at_the_mean_depth():
    for seed in range(10):
        motion = draw_path(seed, 120, 160, "smooth", (10, 10), zoom=0)
        camera = draw_camera(seed, motion, 120, 160, relief=True)
        assert 0.5 <= camera.share <= 1.5 and camera.focal_px == 160
        poses = motion.poses(np.linspace(0, 1, 9))
        seen = project(planes(camera, poses, 120, 160), np.array([79.5, 59.5]))
        np.testing.assert_allclose(seen - [79.5, 59.5], poses[:, :2], atol=0.1)


def test_a_planar_path_has_the_affine_maps_and_goes_on_after_its_end():
    motion = draw_path(0, 40, 50, "saccade", (9, 9))
    poses = through(motion, np.array([0.75, 1, 1.25]))
    np.testing.assert_allclose(poses[2], -poses[0])
    np.testing.assert_allclose(poses[1], 0, atol=1e-12)
    maps = planes(motion, poses, 40, 50)
    np.testing.assert_array_equal(maps[:, 2], np.tile([0, 0, 1], (3, 1)))


def test_a_wild_path_keeps_the_picture_before_the_camera():
    for seed in range(20):
        motion = draw_path(seed, 20, 300, "mixed", (1000, 1000), zoom=5)
        camera = draw_camera(seed, motion, 20, 300, relief=bool(seed % 2))
        u = np.linspace(0, 2, 33)
        a, b = camera.maps(through(camera.motion, u), 20, 300)
        poses = camera.poses(u[:17])
        assert np.abs(poses[:, :2]).max() <= 0.4 + 1e-9 and np.abs(poses[:, 5]).max() < math.expm1(0.11)
        for corner in ([0, 0, 1], [299, 0, 1], [0, 19, 1], [299, 19, 1]):
            for rho in (0.0, 4.0):
                assert (a[:, 2] @ np.array(corner, float) + rho * b[:, 2] > 0.2).all()
