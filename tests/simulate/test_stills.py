import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from evlift.errors import ConfigError, InputError
from evlift.simulate import SENSORS, PixelArray, Sensor, draw_motion, matrices, pair_from_image
from evlift.simulate.stills import LONGEST_SIDE


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
    image, noisy = picture(), Sensor(threshold_sigma=0.03, refractory_us=500, noise_hz=1)
    one, same = (pair_from_image(image, sensor=noisy, seed=(5, 0, 7)).events for _ in range(2))
    other = pair_from_image(image, sensor=noisy, seed=(5, 1, 7)).events
    for name in "xytp":
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert len(other) != len(one) or (other.t != one.t).any()


def test_an_even_picture_gives_no_events():
    for value in (0, 128, 255):
        pair = pair_from_image(np.full((40, 56, 3), value, np.uint8))
        assert len(pair.events) == 0 and (pair.events.height, pair.events.width) == (40, 56)


def ball():
    """A near ball before a wall, with a hole in the map."""
    y, x = np.mgrid[:96, :128]
    depth = np.where(np.hypot(x - 60, y - 50) < 25, 2.0, 8.0)
    depth[:10, :10] = np.nan
    return depth


WAYS = {
    "planar": {},
    "saccade": {"path": "saccade"},
    "shake": {"path": "shake"},
    "mixed": {"path": "mixed", "kind": "camera"},
    "camera": {"kind": "camera"},
    "depth": {"depth": ball()},
    "layers": {"layers": 2},
    "layers and camera": {"layers": 1, "kind": "camera"},
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_moves_it_ends_at_the_picture(way):
    for seed in range(4):
        image = picture(seed)
        pair = pair_from_image(image, None, sensor=Sensor(0.1, 0.15), seed=seed, motion_px=(4, 20), **WAYS[way])
        log = np.log(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) / 255 + 0.1).astype(np.float32)
        first, last = (view.astype(np.float32) for view in pair.scene.views(log, np.array([0.0, 1.0])))
        np.testing.assert_allclose(last, log, atol=1e-4)
        e = pair.events
        np.add.at(first, (e.y, e.x), np.where(e.p, 0.1, -0.15))
        assert np.all(log - first < 0.1 + 1e-5) and np.all(log - first > -0.15 - 1e-5)
        assert len(e) > 0.1 * log.size and e.t.min() > 0 and e.t.max() <= pair.duration_us
        assert pair.flow.shape == pair.forward_flow.shape == (96, 128, 2) and pair.flow.dtype == np.float32
        assert pair.mask.shape == pair.forward_mask.shape == (96, 128) and pair.mask.dtype == bool
        assert pair.mask.mean() > 0.4 and pair.forward_mask.mean() > 0.4


def specks(seed, height=128, width=160):
    """Small discs, bright and dark, on grey."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 60, np.uint8)
    for _ in range(height * width // 400):
        cv2.circle(image, (int(rng.integers(width)), int(rng.integers(height))), 2, int(rng.choice([10, 200, 250])), -1)
    return image


def gathered(pair, sign=1, slices=32):
    """Variance of the image of warped events, by that of the unwarped one, a margin left out."""
    e = pair.events
    raw, warped = np.zeros((2, e.height, e.width))
    np.add.at(raw, (e.y, e.x), 1)
    for k in range(slices):
        part = e.between(k * pair.duration_us // slices + 1, (k + 1) * pair.duration_us // slices + 1)
        flow, _ = pair.scene.forward((k + 0.5) / slices)
        x, y = (np.stack([part.x, part.y], 1) + sign * flow[part.y, part.x]).T
        inside = (x >= 0) & (y >= 0) & (x < e.width - 1) & (y < e.height - 1)
        x, y = x[inside], y[inside]
        left, top = x.astype(int), y.astype(int)
        for dy in (0, 1):
            for dx in (0, 1):
                weight = (1 - np.abs(y - top - dy)) * (1 - np.abs(x - left - dx))
                np.add.at(warped, (top + dy, left + dx), weight)
    return warped[20:-20, 20:-20].var() / raw[20:-20, 20:-20].var()


@pytest.mark.parametrize("way", ["planar", "camera", "depth", "layers"])
def test_flow_gathers_the_events_on_what_made_them(way):
    more = {"depth": np.kron(ball()[:64, :80], np.ones((2, 2)))} if way == "depth" else WAYS[way]
    pairs = [pair_from_image(specks(seed), seed=seed, motion_px=(24, 24), **more) for seed in range(8)]
    right, wrong = [gathered(pair) for pair in pairs], [gathered(pair, -1) for pair in pairs]
    assert np.median(right) >= 3 and min(right) > 1.5 and max(wrong) < 1, (right, wrong)


def test_near_things_move_more():
    depth = ball()
    for seed in range(5):
        pair = pair_from_image(picture(), depth=depth, seed=seed, motion_px=(12, 12), rotation=0, zoom=0)
        near, far = pair.flow[50, 60], pair.flow[90, 110]
        moving = pair.motion.share
        # Both from turning; from moving in proportion to inverse depth, 4 : 1.
        assert np.hypot(*(near - far)) == pytest.approx(12 * moving * 3 * far_inverse(depth), rel=0.15)
        hidden = ~pair.mask[15:-15, 15:-15]
        assert 20 < hidden.sum() < 0.3 * hidden.size


def far_inverse(depth):
    inverse = 1 / depth[np.isfinite(depth)]
    return (1 / 8) / inverse.mean()


def test_a_layer_of_labels_moves_by_itself():
    labels = np.zeros((96, 128), np.uint8)
    labels[30:60, 50:90] = 7
    pair = pair_from_image(picture(1), labels, seed=3, layers=1, motion_px=(10, 10), rotation=0, zoom=0)
    assert pair.labels is labels and labels.sum() == 7 * 1200
    inside, outside = pair.flow[labels == 7], pair.flow[labels == 0]
    np.testing.assert_allclose(outside, np.broadcast_to(outside[0], outside.shape), atol=1e-3)
    np.testing.assert_allclose(inside, np.broadcast_to(inside[0], inside.shape), atol=1e-3)
    assert np.hypot(*(inside[0] - outside[0])) > 2
    assert not pair.mask[labels == 0].all()


def test_labels_lie_where_the_events_are():
    """Late events lie on the edges of the labels; on labels that are shifted they don't."""
    image, labels = np.full((120, 160, 3), 60, np.uint8), np.zeros((120, 160), np.uint8)
    cv2.circle(image, (60, 60), 30, (220, 200, 180), -1)
    cv2.circle(labels, (60, 60), 30, 1, -1)
    cv2.rectangle(image, (105, 30), (140, 80), (150, 10, 10), -1)
    cv2.rectangle(labels, (105, 30), (140, 80), 2, -1)
    for way in ({}, {"kind": "camera"}, {"path": "shake"}, {"layers": 1}, {"depth": np.where(labels == 1, 1.0, 3.0)}):
        density = np.zeros(5)
        for seed in range(4):
            pair = pair_from_image(image, labels, seed=seed, motion_px=(12, 12), **way)
            late = pair.events.between(int(0.9 * pair.duration_us), pair.duration_us + 1)
            edges = cv2.morphologyEx(pair.labels, cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
            edges = cv2.dilate(edges.astype(np.uint8), np.ones((3, 3))) > 0
            shifted = [edges, *(np.roll(edges, step, axis) for step in (-8, 8) for axis in (0, 1))]
            density += [mask[late.y, late.x].sum() for mask in shifted]
        assert density[0] > 3 * density[1:].max(), (way, density)


def test_the_frame_camera_blurs_the_picture_and_leaves_the_rest():
    image, labels = picture(), np.zeros((96, 128), np.uint8)
    before = image.copy()
    plain = pair_from_image(image, labels, sensor=Sensor(), seed=2, motion_px=(12, 12))
    blurred = pair_from_image(image, labels, sensor=Sensor(exposure_us=15_000), seed=2, motion_px=(12, 12))
    assert plain.image is image and blurred.labels is labels
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(plain.events.t, blurred.events.t)
    np.testing.assert_array_equal(plain.flow, blurred.flow)
    assert blurred.image.shape == image.shape and (blurred.image != image).any()
    sharp, soft = (np.abs(np.diff(one.astype(float), axis=1)).max() for one in (image, blurred.image))
    assert soft < sharp


@pytest.mark.parametrize("sensor", list(SENSORS))
@pytest.mark.parametrize("way", ["planar", "depth", "layers"])
def test_every_preset_with_every_scene(sensor, way):
    one, same = (pair_from_image(picture(), sensor=sensor, seed=1, **WAYS[way]) for _ in range(2))
    np.testing.assert_array_equal(one.events.t, same.events.t)
    np.testing.assert_array_equal(one.image, same.image)
    assert len(one.events) and one.events.t.min() > 0 and one.events.t.max() <= 50_000


def test_depth_that_is_partly_or_wholly_unknown():
    image = picture()
    flat = pair_from_image(image, depth=np.full((96, 128), np.nan), seed=4)
    assert np.isfinite(flat.flow).all() and len(flat.events) > 100
    depth = np.random.default_rng(0).uniform(1, 9, (96, 128)).astype(np.float32)
    depth[::3] = np.inf
    depth[1::3, ::2] = 0
    pair = pair_from_image(image, depth=depth, seed=4)
    assert np.isfinite(pair.flow).all() and np.isfinite(pair.forward_flow).all()
    far = pair_from_image(image, depth=1000 * depth, seed=4)  # the unit does not matter
    np.testing.assert_allclose(far.flow, pair.flow, atol=1e-4)


@pytest.mark.parametrize("way", ["planar", "shake", "camera", "depth", "layers"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (300, 2)])
def test_small_pictures_of_every_kind(way, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    more = {"depth": np.full(shape, 2.0)} if way == "depth" else WAYS[way]
    for seed in range(3):
        pair = pair_from_image(image, seed=seed, motion_px=(0.5, 50), **more)
        assert (pair.events.height, pair.events.width) == shape
        assert pair.flow.shape == pair.forward_flow.shape == (*shape, 2)
        assert np.isfinite(pair.flow).all() and np.isfinite(pair.forward_flow).all()


def test_the_longest_picture():
    image = np.zeros((2, LONGEST_SIDE), np.uint8)
    image[:, ::7] = 200
    for more in ({}, {"kind": "camera"}, {"depth": np.ones(image.shape)}, {"layers": 1}):
        assert pair_from_image(image, motion_px=(3, 3), **more).events.x.max() > LONGEST_SIDE - 50


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
    for step in (0, math.nan):
        with pytest.raises(ConfigError, match="step_px"):
            pair_from_image(picture(), step_px=step)
    with pytest.raises(ConfigError, match="duration_us"):
        pair_from_image(picture(), duration_us=3)
    with pytest.raises(InputError, match="32767×1; give sides of at most 32766"):
        pair_from_image(np.zeros((1, 32767), np.uint8))
    with pytest.raises(InputError, match="a depth map is 96×127, its picture 96×128"):
        pair_from_image(picture(), depth=np.ones((96, 127)))
    with pytest.raises(InputError, match=r"labels are int64 \[4, 4\]"):
        pair_from_image(picture(), np.zeros((4, 4), np.int64), layers=1)
    with pytest.raises(ConfigError, match="a depth map is given; choose 'camera'"):
        pair_from_image(picture(), depth=ball(), kind="planar")
    with pytest.raises(ConfigError, match="layers is 1 with a depth map; give 0"):
        pair_from_image(picture(), depth=ball(), layers=1)
    with pytest.raises(ConfigError, match="layers is -1; give 0"):
        pair_from_image(picture(), layers=-1)
    with pytest.raises(ConfigError, match="no kind of motion 'round'; choose one of planar, camera"):
        pair_from_image(picture(), kind="round")
    with pytest.raises(ConfigError, match="no path 'round'"):
        pair_from_image(picture(), path="round")
    with pytest.raises(ConfigError, match="motion_px"):
        pair_from_image(picture(), motion_px=(0, 1))
    with pytest.raises(ConfigError, match="no sensor"):
        pair_from_image(picture(), sensor="none")


def test_the_default_is_the_plain_loop():
    """Evenly spread times, affine views, the picture last: recipes rest on its every bit."""
    image = picture(5)
    pair = pair_from_image(image, seed=(8, 1))
    rng = np.random.default_rng((8, 1))
    motion = draw_motion(rng, 96, 128)
    assert pair.motion == motion
    steps = max(int(np.ceil(motion.corner_way(96, 128))), 4)
    u = np.arange(steps + 1) / steps
    log = np.log(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) / 255 + 0.1).astype(np.float32)
    pixels = PixelArray(96, 128, "ideal", rng)
    parts = []
    for way, t in zip(matrices(motion.poses(u), 96, 128), np.round(u * 50_000).astype(int), strict=True):
        seen = cv2.warpAffine(log, way, (128, 96), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        parts.append(pixels.step(seen if t < 50_000 else log, int(t)))
    for name in "xytp":
        np.testing.assert_array_equal(getattr(pair.events, name), np.concatenate([getattr(e, name) for e in parts]))


CAMVID = Path(__file__).parents[2] / "../shared/data/camvid/train"


@pytest.mark.skipif(not CAMVID.is_dir(), reason="the shared pictures are not here")
def test_labels_of_real_streets_lie_where_the_events_are():
    files = sorted((CAMVID / "images").glob("*.jpg"))[::60]
    for way in ({}, {"kind": "camera", "path": "shake"}, {"layers": 2}):
        density = np.zeros(5)
        for k, file in enumerate(files):
            image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
            labels = cv2.imread(str(CAMVID / "labels" / f"{file.stem}.png"), cv2.IMREAD_GRAYSCALE)
            late = pair_from_image(image, labels, seed=k, **way).events.between(45_000, 50_001)
            edges = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
            shifted = [edges, *(np.roll(edges, step, axis) for step in (-12, 12) for axis in (0, 1))]
            density += [mask[late.y, late.x].sum() for mask in shifted]
        assert density[0] > 1.25 * density[1:].max(), (way, density)
