import cv2
import numpy as np
import pytest

from evlift.simulate.camera import draw_camera
from evlift.simulate.motion import Motion, draw_path
from evlift.simulate.scene import Flat, Layer, Layered, fill


def texture(seed=0, height=90, width=120):
    """Soft blobs: float32 [H, W] in 0…255 that bilinear interpolation follows closely."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


def straight(dx, dy):
    return Motion(float(np.hypot(dx, dy)), float(np.arctan2(dy, dx)), 0, 0, 0, 0, 0)


def view(scene, image, u):
    return next(iter(scene.views(image, np.array([u], float))))


def bring(image, places):
    return cv2.remap(image, places.astype(np.float32), None, cv2.INTER_LINEAR)


def assert_flow_brings_views_together(scene, picture, u, atol):
    """What either flow says of where it was seen in both, by looking there."""
    own = np.stack(np.meshgrid(np.arange(scene.width), np.arange(scene.height)), -1)
    shown = view(scene, picture, u)
    back, valid = scene.backward(u)
    assert back.dtype == np.float32 and valid.dtype == bool and valid.mean() > 0.5
    assert np.abs(bring(shown, own - back) - picture)[valid].max() < atol
    forth, valid = scene.forward(u)
    assert forth.dtype == np.float32 and valid.mean() > 0.5
    assert np.abs(bring(picture, own + forth) - shown)[valid].max() < atol


@pytest.mark.parametrize("in_space", [False, True])
@pytest.mark.parametrize("path", ["smooth", "shake"])
def test_a_flat_scene_and_its_flow(in_space, path):
    for seed in range(4):
        motion = draw_path(seed, 90, 120, path, (14, 14))
        camera = draw_camera(seed, motion, 90, 120, relief=False) if in_space else None
        scene = Flat(90, 120, motion if camera is None else camera.motion, camera)
        picture = texture(seed)
        np.testing.assert_allclose(view(scene, picture, 1), picture, atol=0.01)
        for u in (0, 0.4):
            assert_flow_brings_views_together(scene, picture, u, atol=5)


def test_the_flow_of_a_shift():
    scene = Flat(20, 30, straight(6, -2))
    back, valid = scene.backward()
    np.testing.assert_allclose(back, np.broadcast_to([6, -2], (20, 30, 2)), atol=1e-5)
    expected = np.zeros((20, 30), bool)
    expected[:18, 6:] = True  # the pixel was at (x − 6, y + 2)
    np.testing.assert_array_equal(valid, expected)
    forth, valid = scene.forward(0.5)
    np.testing.assert_allclose(forth, np.broadcast_to([3, -1], (20, 30, 2)), atol=1e-5)
    expected = np.zeros((20, 30), bool)
    expected[1:, :27] = True
    np.testing.assert_array_equal(valid, expected)


def boxes():
    one, other = np.zeros((2, 90, 120), bool)
    one[30:60, 40:70] = True
    other[20:35, 90:110] = True
    return one, other


def test_layers_move_by_themselves_over_a_moving_ground():
    one, other = boxes()
    scene = Layered(Flat(90, 120, straight(5, 0)), [Layer(one, straight(-9, 0)), Layer(other, straight(0, 7))])
    back, valid = scene.backward()
    np.testing.assert_allclose(back[0, 0], [5, 0], atol=1e-4)
    np.testing.assert_allclose(back[one], np.tile([-4, 0], (one.sum(), 1)), atol=1e-4)
    np.testing.assert_allclose(back[other], np.tile([5, 7], (other.sum(), 1)), atol=1e-4)
    # Ground at x was at x − 5; the first box was at 44…73 then: what is at 70…78 now was under it. The other one was
    # at 85…104 × 13…27.
    hidden = np.zeros((90, 120), bool)
    hidden[:, :5] = True  # outside
    hidden[30:60, 70:79] = True
    hidden[13:20, 90:110] = True
    np.testing.assert_array_equal(valid, ~hidden)
    # Forward: ground that the picture hides. Seen first at x, now at x + 5.
    _, valid = scene.forward()
    hidden = np.zeros((90, 120), bool)
    hidden[:, 115:] = True
    hidden[30:60, 35:44] = True  # now under the first box, then beside it
    hidden[28:35, 85:105] = True
    np.testing.assert_array_equal(valid, ~hidden)


@pytest.mark.parametrize("in_space", [False, True])
def test_layers_and_their_flow(in_space):
    for seed in range(4):
        motion = draw_path([seed, 0], 90, 120, "smooth", (8, 8))
        camera = draw_camera(seed, motion, 90, 120, relief=False) if in_space else None
        ground = Flat(90, 120, motion if camera is None else camera.motion, camera)
        layers = [Layer(m, draw_path([seed, k], 90, 120, "smooth", (12, 12))) for k, m in enumerate(boxes())]
        scene, picture = Layered(ground, layers), texture(seed)
        np.testing.assert_allclose(view(scene, picture, 1), picture, atol=0.02)
        own = np.stack(np.meshgrid(np.arange(120), np.arange(90)), -1)
        shown = view(scene, picture, 0)
        back, valid = scene.backward()
        error = np.abs(bring(shown, own - back) - picture)
        # At a silhouette bilinear interpolation mixes layer and ground, so the pixels next to one are left out.
        rims = sum(cv2.morphologyEx(m.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5))) for m in boxes())
        inner = cv2.erode(valid.astype(np.uint8), np.ones((5, 5))).astype(bool) & (rims == 0)
        assert inner.mean() > 0.5 and error[inner].max() < 5
        for mask in boxes():
            assert (inner & mask).sum() > 50
        forth, valid = scene.forward()
        error = np.abs(bring(picture, own + forth) - shown)
        assert np.percentile(error[valid], 95) < 5


def test_layers_of_colour_pictures_keep_their_type():
    one, other = boxes()
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    scene = Layered(Flat(90, 120, straight(4, 3)), [Layer(one, straight(9, 0)), Layer(other, straight(500, 0))])
    np.testing.assert_array_equal(view(scene, picture, 1), picture)
    shown = view(scene, picture, 0)
    assert shown.dtype == np.uint8 and shown.shape == picture.shape
    np.testing.assert_array_equal(shown[30:50, 30:50], picture[33:53, 43:63])  # within the box, moved by (13, 3)


def test_fill_takes_what_is_around():
    picture = np.full((40, 50), 3, np.float32)
    known = np.ones((40, 50), bool)
    known[10:30, 10:30] = False
    picture[10:30, 10:30] = 99
    np.testing.assert_allclose(fill(picture, known), 3, atol=1e-6)
    picture[:, 25:] = 7
    filled = fill(picture, known)
    np.testing.assert_array_equal(filled[known], picture[known])
    assert filled[20, 11] < 4 and filled[20, 29] > 6 and np.all((filled >= 3) & (filled <= 7))
    np.testing.assert_allclose(fill(np.full((5, 1, 3), 2, np.float32), np.arange(5)[:, None] > 3), 2)
    nothing = np.zeros((3, 4), np.float32)
    np.testing.assert_array_equal(fill(nothing, np.zeros((3, 4), bool)), nothing)
