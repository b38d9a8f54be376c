import math

import cv2
import numpy as np
import pytest

from evlift.errors import InputError
from evlift.simulate.camera import Camera, draw_camera
from evlift.simulate.course import Course
from evlift.simulate.motion import Motion, draw_path
from evlift.simulate.relief import Relief, relative_inverse_depth
from evlift.simulate.relief_kernels import close_rows, heal
from evlift.simulate.scene import Flat

H, W = 70, 100


def texture(seed=0):
    noise = np.random.default_rng(seed).normal(0, 1, (H, W)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


def sideways(dx, dy=0.0, share=1.0):
    """A camera whose picture's ρ = 1 moves by (dx, dy) px while it moves sideways only."""
    motion = Motion(math.hypot(dx, dy), math.atan2(dy, dx), 0, 0, 0, 0, 0)
    return Camera(motion, share, 100.0)


def view(scene, image, u=0.0):
    return next(iter(scene.views(image, np.array([u], float))))


def post():
    """A near post before a far wall: ρ 2 and 0.5; columns 40 to 59."""
    rho = np.full((H, W), 0.5, np.float32)
    rho[:, 40:60] = 2
    return rho


def test_relative_inverse_depth():
    depth = np.array([[1.0, 2.0], [4.0, 4.0]])
    np.testing.assert_allclose(relative_inverse_depth(depth, 2, 2), [[2, 1], [0.5, 0.5]])
    millimetres = (1000 * depth).astype(np.uint16)
    np.testing.assert_allclose(relative_inverse_depth(millimetres, 2, 2), [[2, 1], [0.5, 0.5]])
    depth = np.array([[1.0, np.nan, 0.0], [np.inf, 2.0, 1e-320]])
    np.testing.assert_allclose(relative_inverse_depth(depth, 2, 3), [[4 / 3, 0, 0], [0, 2 / 3, 0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int32])
def test_any_real_type_down_to_its_least_value(dtype):
    least = 1 if np.issubdtype(dtype, np.integer) else np.finfo(dtype).smallest_subnormal
    depth = np.full((50, 50), 2, dtype)
    depth[3, 3] = least
    rho = relative_inverse_depth(depth, 50, 50)
    np.testing.assert_allclose(np.delete(rho.ravel(), 3 * 50 + 3), 1, rtol=1e-6)
    assert np.isfinite(rho).all()


def test_depth_that_says_nothing_is_a_plane():
    for value in (0, np.nan, np.inf):
        np.testing.assert_array_equal(relative_inverse_depth(np.full((3, 4), value), 3, 4), np.ones((3, 4)))


def test_a_few_pixels_too_near_do_not_set_the_scale():
    depth = np.full((100, 100), 10.0)
    depth[0, 0] = 1e-9
    rho = relative_inverse_depth(depth, 100, 100)
    assert rho[0, 0] == 4
    np.testing.assert_allclose(rho.ravel()[1:], 1)
    depth[:2] = 0.001  # two hundredths: now they do
    rho = relative_inverse_depth(depth, 100, 100)
    np.testing.assert_allclose(rho[:2], 4)
    np.testing.assert_allclose(rho[2:], 4e-4, rtol=1e-5)


def test_mistakes():
    with pytest.raises(InputError, match="a depth map is 3×4, its picture 4×3; resize"):
        relative_inverse_depth(np.ones((3, 4)), 4, 3)
    with pytest.raises(InputError, match="a depth map is 4×3×1"):
        relative_inverse_depth(np.ones((4, 3, 1)), 4, 3)
    with pytest.raises(InputError, match="negative"):
        relative_inverse_depth(np.array([[1.0, -1.0]]), 1, 2)
    with pytest.raises(InputError, match="complex128"):
        relative_inverse_depth(np.ones((2, 2), complex), 2, 2)


def test_even_depth_is_a_plane():
    """The views and flows of a plane drawn pixel by pixel are those of its homography."""
    for seed in range(5):
        camera = draw_camera(seed, draw_path(seed, H, W, "smooth", (10, 10)), H, W, relief=True)
        relief, flat = Relief(camera, np.ones((H, W), np.float32)), Flat(H, W, camera.motion, camera)
        picture = texture(seed)
        for u in (0, 0.5, 1):
            seen = flat.forward(u)[1]  # beyond the border the fillings differ
            difference = np.abs(view(relief, picture, u) - view(flat, picture, u))[seen]
            assert difference.max() < 2 and difference.mean() < 0.2
        for ours, theirs in ((relief.backward(), flat.backward()), (relief.forward(), flat.forward())):
            both = ours[1] & theirs[1]
            np.testing.assert_allclose(ours[0][both], theirs[0][both], atol=0.01)
            assert (ours[1] != theirs[1]).mean() < 0.03


def test_near_things_move_more_and_hide_what_is_behind():
    """First view, by hand: the wall is 4 px further left, the post 16 px."""
    scene, picture = Relief(sideways(8), post()), texture()
    back, valid = scene.backward()
    np.testing.assert_allclose(back[:, :40], np.broadcast_to([4, 0], (H, 40, 2)), atol=1e-4)
    np.testing.assert_allclose(back[:, 40:60], np.broadcast_to([16, 0], (H, 20, 2)), atol=1e-4)
    # The post was at 24…43: wall now at 28…47 was behind it (of which 40…47 is behind it now). Wall at 0…3 was outside.
    expected = np.ones((H, W), bool)
    expected[:, :4] = expected[:, 28:40] = False
    wrong = valid != expected
    assert not np.delete(wrong, [27, 28, 39, 40, 59, 60], axis=1).any()  # at the rims a pixel either way
    shown = view(scene, picture)
    np.testing.assert_allclose(shown[:, 24:44], picture[:, 40:60], atol=0.1)
    np.testing.assert_allclose(shown[:, :24], picture[:, 4:28], atol=0.1)
    np.testing.assert_allclose(shown[:, 56:96], picture[:, 60:], atol=0.1)
    # What the post uncovered at 44…55 mirrors the wall right of it, at 56, 57, …
    np.testing.assert_allclose(shown[:, 44:56], shown[:, 67:55:-1], atol=0.1)
    _, valid = scene.forward()
    expected = np.ones((H, W), bool)
    expected[:, 44:56] = expected[:, 96:] = False
    np.testing.assert_array_equal(valid, expected)


@pytest.mark.parametrize("width", [2, 3, 8])
def test_a_thin_post_leaves_no_ghost_where_the_picture_has_it(width):
    """A post that moves by more than its width: the wall is on both sides of the gap that it leaves."""
    rho, picture = np.full((H, W), 0.5, np.float32), texture()
    rho[:, 40 : 40 + width] = 2
    picture[:, 40 : 40 + width] = 600
    for scene, shown in (
        (Relief(sideways(8), rho), lambda scene: view(scene, picture)),
        (Relief(sideways(0, 8), rho.T.copy()), lambda scene: view(scene, picture.T.copy()).T),
    ):
        bright = np.flatnonzero((shown(scene) > 400).all(axis=0))
        assert bright.tolist() == list(range(24, 24 + width))
        valid = scene.forward()[1]
        valid = valid if valid.shape == (H, W) else valid.T
        expected = np.ones((H, W), bool)
        expected[:, 36 : 36 + width] = expected[:, 96:] = False  # wall that the post hides in the picture
        np.testing.assert_array_equal(valid, expected)


def test_up_and_down_is_sideways_turned():
    rho, picture = post(), texture()
    for dx in (8, -8):
        scene, turned = Relief(sideways(dx), rho), Relief(sideways(0, dx), rho.T)
        np.testing.assert_allclose(view(turned, picture.T.copy()).T, view(scene, picture), atol=0.2)
        for ours, theirs in ((turned.backward(), scene.backward()), (turned.forward(), scene.forward())):
            np.testing.assert_array_equal(ours[1].T, theirs[1])
            np.testing.assert_allclose(
                ours[0].transpose(1, 0, 2)[..., ::-1][theirs[1]], theirs[0][theirs[1]], atol=0.01
            )


def test_cracks_of_one_pixel_are_closed_and_wider_gaps_are_not():
    z = np.full((6, 9), 1.0, np.float32)
    z[:, 2] = -1  # nothing reached it
    z[:, 4] = 0.2  # the ground shines through
    z[:, 6:8] = -1
    heal(z, np.float32(0.3))
    expected = np.ones((6, 9), np.float32)
    expected[:, 6:8] = -1
    np.testing.assert_array_equal(z, expected)


def test_gaps_of_a_row():
    def closed(row, hides=None):
        hides = np.zeros((1, len(row)), np.float32) if hides is None else np.array([hides], np.float32)
        z, source = np.array([row], np.float32), np.arange(len(row), dtype=np.int32)[None]
        seen = np.ones(z.shape, bool)
        close_rows(np.eye(3), np.zeros(3), hides, z, np.float32(0.3), source, seen)
        return z[0].tolist(), source[0].tolist(), seen[0].tolist()

    # Within one surface: a bridge.
    z, source, seen = closed([1, -1, -1, 1.3])
    np.testing.assert_allclose(z, [1, 1.1, 1.2, 1.3])
    assert source == [0, 1, 2, 3] and all(seen)
    # The same surface on both sides, but the picture shows something nearer there: no bridge.
    behind = closed([1, 1, -1, -1, 1, 1, 1], [1, 1, 1, 2, 1, 1, 1])
    assert behind == ([1] * 7, [0, 1, 5, 4, 4, 5, 6], [True, True, False, False, True, True, True])
    # At the border: the outermost surface goes on.
    assert closed([-1, 1, 2, -1]) == ([1, 1, 2, 2], [0, 1, 2, 3], [False, True, True, False])
    # Beside something nearer: the mirror image of the farther side, then its last pixel again.
    near_right = closed([0.5, 0.5, -1, -1, -1, 2])
    assert near_right == ([0.5] * 5 + [2], [0, 1, 1, 0, 0, 5], [True, True, False, False, False, True])
    near_left = closed([2, -1, -1, 0.5, 0.5, 0.5])
    assert near_left == ([2] + [0.5] * 5, [0, 4, 3, 3, 4, 5], [True, False, False, True, True, True])
    # An empty row is left to the columns.
    assert closed([-1, -1]) == ([-1, -1], [0, 1], [True, True])


def test_views_against_a_slow_search():
    """Whatever the depth: a view's pixel shows the nearest of all places in the picture that are seen within it."""
    rng = np.random.default_rng(3)
    for seed in range(3):
        rho = cv2.resize(rng.uniform(0.5, 1.5, (3, 4)).astype(np.float32), (W, H), interpolation=cv2.INTER_LINEAR)
        top, left = rng.integers(10, 40, 2)
        rho[top : top + 20, left : left + 25] += 1
        camera = draw_camera(seed, draw_path(seed, H, W, "smooth", (10, 10), zoom=0.1), H, W, relief=True)
        scene = Relief(camera, rho)
        (a,), (b,) = scene.maps(np.zeros(1))
        places, seen = scene.forward()[0] + np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1), scene.forward()[1]
        best = np.full((H, W), -1.0)
        expected = np.zeros((H, W, 2))
        for y in range(H):
            for x in range(W):
                u, v, w = a @ [x, y, 1] + rho[y, x] * b
                column, row = math.floor(u / w + 0.5), math.floor(v / w + 0.5)
                if 0 <= row < H and 0 <= column < W and rho[y, x] / w > best[row, column]:
                    best[row, column], expected[row, column] = rho[y, x] / w, (x, y)
        known = (best >= 0) & seen
        distance = np.abs(places - expected).max(-1)[known]
        # The search answers in whole pixels; the few that differ by more are cracks, through which it sees the ground.
        assert known.mean() > 0.7 and np.percentile(distance, 99) < 1 and (distance > 2).mean() < 0.01


def test_flow_brings_views_of_a_relief_together():
    own = np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        rho = cv2.resize(rng.uniform(0.2, 2, (3, 4)).astype(np.float32), (W, H), interpolation=cv2.INTER_LINEAR)
        camera = draw_camera(seed, draw_path(seed, H, W, "smooth", (8, 8)), H, W, relief=True)
        scene, picture = Relief(camera, rho), texture(seed)
        np.testing.assert_allclose(view(scene, picture, 1), picture, atol=0.01)
        shown = view(scene, picture)
        for (flow, valid), sign, one, other in (
            (scene.backward(), -1, shown, picture),
            (scene.forward(), 1, picture, shown),
        ):
            brought = cv2.remap(one, (own + sign * flow).astype(np.float32), None, cv2.INTER_LINEAR)
            error, unmoved = np.abs(brought - other)[valid], np.abs(one - other)[valid]
            assert valid.mean() > 0.6 and np.percentile(error, 99) < 8 and error.mean() < 0.1 * unmoved.mean()
            assert flow.dtype == np.float32 and valid.dtype == bool


def test_a_camera_that_looks_past_a_tiny_picture():
    scene = Relief(sideways(50), np.ones((1, 1), np.float32))
    assert view(scene, np.full((1, 1), 7, np.float32)) == 7
    assert not scene.backward()[1].any() and not scene.forward()[1].any()


@pytest.mark.parametrize("seed", [0, 1, 8])
def test_a_wild_path_reads_nothing_from_outside_the_picture(seed):
    """OpenCV's remap overflows at places that are billions of pixels away."""
    depth = np.random.default_rng(0).random((100, 120)) + 0.1
    course = Course("camera", "smooth", (10_000, 10_000), 0.3, 0.5, 50_000, 1.0, 32)
    camera = course.draw(np.random.default_rng(seed), 100, 120, relief=True).camera
    scene = Relief(camera, relative_inverse_depth(depth, 100, 120))
    picture = np.random.default_rng(1).uniform(5, 6, (100, 120)).astype(np.float32)
    for shown in scene.views(picture, course.moments(scene)[1]):
        assert 5 <= shown.min() and shown.max() <= 6
    assert np.isfinite(scene.backward()[0]).all() and np.isfinite(scene.forward()[0]).all()
