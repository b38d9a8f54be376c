import cv2
import numpy as np
import pytest

from evlift.errors import ConfigError, InputError
from evlift.simulate import Sensor, matrices, pair_from_image


def picture(seed=0, height=96, width=128):
    """Smooth coloured blobs with edges."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        centre, radius = (int(rng.integers(width)), int(rng.integers(height))), int(rng.integers(6, 25))
        cv2.circle(image, centre, radius, [int(v) for v in rng.integers(0, 256, 3)], -1, cv2.LINE_AA)
    return image


def test_events_carry_the_first_view_to_the_picture():
    """Added to the log intensity that the path began with, they leave less than a threshold to the picture's own."""
    for seed in range(5):
        image = picture(seed)
        sensor = Sensor(threshold_on=0.1, threshold_off=0.15)
        pair = pair_from_image(image, sensor=sensor, seed=seed)
        log = np.log(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) / 255 + 0.1).astype(np.float32)
        m = matrices(pair.motion.poses(np.zeros(1)), *log.shape)[0]
        first = cv2.warpAffine(log, m, log.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        e = pair.events
        np.add.at(first, (e.y, e.x), np.where(e.p, 0.1, -0.15))
        assert np.all(log - first < 0.1 + 1e-5) and np.all(log - first > -0.15 - 1e-5)
        assert len(e) > 0.2 * log.size


def test_the_picture_and_labels_are_what_was_given():
    image, labels = picture(), np.arange(96 * 128).reshape(96, 128)
    before = image.copy()
    pair = pair_from_image(image, labels, seed=1)
    assert pair.image is image and pair.labels is labels
    np.testing.assert_array_equal(image, before)
    assert (pair.events.height, pair.events.width) == (96, 128)


def test_edges_fire_on_the_final_grid():
    """A bright square on a dark ground: after the window, events lie where the square's edge came through."""
    image = np.full((80, 80, 3), 40, np.uint8)
    image[30:50, 30:50] = 220
    pair = pair_from_image(image, seed=4, motion_px=(6, 6), rotation=0, zoom=0)
    e = pair.events
    late = e.between(int(0.85 * pair.duration_us), pair.duration_us + 1)
    distance = np.minimum(np.abs(late.x - 29.5), np.abs(late.x - 49.5))
    distance = np.minimum(distance, np.minimum(np.abs(late.y - 29.5), np.abs(late.y - 49.5)))
    assert len(late) > 30 and distance.max() <= 2.5
    early = e.between(0, int(0.15 * pair.duration_us))
    moved = np.stack([early.x, early.y], 1) + pair.flow[0, 0]
    late_fit, early_fit = (
        np.minimum(np.abs(v - 29.5), np.abs(v - 49.5)).min(1) for v in (moved, np.stack([early.x, early.y], 1))
    )
    assert np.mean(late_fit) < 0.7 * np.mean(early_fit)  # moved by the flow, early events lie on the edge as well


def test_flow_brings_the_first_view_to_the_picture():
    image = picture(3)
    pair = pair_from_image(image, seed=2, motion_px=(8, 8))
    y, x = np.mgrid[:96, :128]
    start = np.stack([x, y], -1) - pair.flow
    m = matrices(pair.motion.poses(np.zeros(1)), 96, 128)[0]
    for i, j in ((0, 0), (95, 127), (40, 3)):
        np.testing.assert_allclose(start[i, j], m @ [j, i, 1], atol=1e-4)
    assert pair.flow.dtype == np.float32 and pair.flow.shape == (96, 128, 2)


def test_times_fill_the_window():
    events = pair_from_image(picture(), seed=3, duration_us=30_000, motion_px=(12, 12)).events
    assert events.t.min() > 0 and events.t.max() <= 30_000
    parts, _ = np.histogram(events.t, 10, (0, 30_000))
    assert parts.min() > 0.03 * len(events)


def test_most_edges_get_events():
    covered = []
    for seed in range(20):
        image = picture(seed)
        events = pair_from_image(image, seed=seed).events
        grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (3, 3), 0)
        log = np.log(grey / 255 + 0.1)
        edges = np.hypot(np.gradient(log, axis=0), np.gradient(log, axis=1))[4:-4, 4:-4] > 0.15
        hit = np.zeros(log.shape, np.uint8)
        hit[events.y, events.x] = 1
        covered.append(cv2.dilate(hit, np.ones((3, 3), np.uint8))[4:-4, 4:-4][edges].mean())
    assert np.median(covered) > 0.9 and min(covered) > 0.6


def test_seeds():
    image = picture()
    one, same = (pair_from_image(image, sensor="noisy", seed=(5, 0, 7)).events for _ in range(2))
    other = pair_from_image(image, sensor="noisy", seed=(5, 1, 7)).events
    for name in "xytp":
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert len(other) != len(one) or (other.t != one.t).any()


def test_an_even_picture_gives_no_events():
    for value in (0, 128, 255):
        pair = pair_from_image(np.full((40, 56, 3), value, np.uint8))
        assert len(pair.events) == 0 and (pair.events.height, pair.events.width) == (40, 56)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9), (2, 2), (31, 17)])
def test_small_and_grey_pictures(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert pair_from_image(image, seed=1).events.width == shape[1]


def test_a_turned_view_of_an_array_will_do():
    image = picture()[:, ::-1]
    np.testing.assert_array_equal(
        pair_from_image(image, seed=1).events.t, pair_from_image(np.ascontiguousarray(image), seed=1).events.t
    )


def test_mistakes():
    with pytest.raises(InputError, match="float64"):
        pair_from_image(np.zeros((4, 4, 3)))
    with pytest.raises(InputError, match="uint8"):
        pair_from_image(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(InputError, match="give uint8"):
        pair_from_image(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(ConfigError, match="step_px"):
        pair_from_image(picture(), step_px=0)
    with pytest.raises(ConfigError, match="duration_us"):
        pair_from_image(picture(), duration_us=3)
    with pytest.raises(ConfigError, match="no sensor"):
        pair_from_image(picture(), sensor="none")
