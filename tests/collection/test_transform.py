"""One geometry for picture, events and labels, against area averages computed in float64."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.collection.transform import View, centre_view, check_scale, check_size, draw, largest_box
from evlift.errors import ConfigError

sides = st.integers(3, 60)


def areas(length: int, size: int) -> np.ndarray:
    """[size, length]: the share of each input pixel in each output pixel, by intersecting their intervals."""
    edges = np.arange(size + 1) * length / size
    near = np.clip(edges[1:, None] - np.arange(length), 0, 1) - np.clip(edges[:-1, None] - np.arange(length), 0, 1)
    return near * size / length


@st.composite
def views(draw_):
    """A picture's size and a random view of it."""
    height, width = draw_(sides), draw_(sides)
    size = (draw_(sides), draw_(sides))
    scale = sorted((draw_(st.floats(0.2, 1)), draw_(st.floats(0.2, 1))))
    rng = np.random.default_rng(draw_(st.integers(0, 2**32)))
    return height, width, draw(rng, (scale[0], scale[1]), draw_(st.booleans())).view(height, width, size)


@given(views(), st.integers(0, 2**32))
def test_a_grid_is_the_area_average_times_the_area_and_keeps_its_sum(case, seed):
    height, width, view = case
    grid = np.random.default_rng(seed).normal(size=(2, height, width)).astype(np.float32)
    before = grid.copy()
    box = grid[:, view.y0 : view.y0 + view.box_height, view.x0 : view.x0 + view.box_width].astype(np.float64)
    assert box.shape[1:] == (view.box_height, view.box_width)  # the box lies inside the picture
    area = box[0].size / (view.height * view.width)
    expected = areas(view.box_height, view.height) @ box @ areas(view.box_width, view.width).T * area
    seen = view.grid(grid)
    np.testing.assert_allclose(seen, expected[..., ::-1] if view.flip else expected, atol=1e-5 * max(1, area))
    np.testing.assert_allclose(seen.sum((1, 2)), box.sum((1, 2)), atol=1e-3 * max(1.0, np.abs(box).sum() ** 0.5))
    assert seen.dtype == np.float32 and seen.flags.c_contiguous
    np.testing.assert_array_equal(grid, before)


@settings(max_examples=200)
@given(views(), st.data())
def test_a_pixel_and_its_events_land_on_the_same_place(case, data):
    height, width, view = case
    x = data.draw(st.integers(view.x0, view.x0 + view.box_width - 1))
    y = data.draw(st.integers(view.y0, view.y0 + view.box_height - 1))
    image = np.zeros((height, width, 3), np.uint8)
    image[y, x] = 255
    grid = np.zeros((1, height, width), np.float32)
    grid[0, y, x] = 100
    seen, events = view.image(image)[..., 0].astype(np.float64), view.grid(grid)[0].astype(np.float64)
    rows, columns = np.mgrid[: view.height, : view.width]

    # The events' centre of mass is where the formula puts the pixel, to within the pixels that it is spread over.
    place_x, place_y = view.points(np.array(x), np.array(y))
    assert events.sum() == pytest.approx(100, rel=1e-5)
    assert abs((events * columns).sum() / 100 - place_x) <= 0.51
    assert abs((events * rows).sum() / 100 - place_y) <= 0.51

    shrinks = view.box_height >= view.height and view.box_width >= view.width
    if shrinks:  # both are the same average, so the picture is the grid up to its own rounding to 8 bits
        area = view.box_height * view.box_width / (view.height * view.width)
        np.testing.assert_allclose(seen / 255, events / 100 / area, atol=1.01 / 255)
    inside = view.x0 < x < view.x0 + view.box_width - 1 and view.y0 < y < view.y0 + view.box_height - 1
    if view.box_height < view.height and view.box_width < view.width and inside:
        centre = (seen * columns).sum() / seen.sum(), (seen * rows).sum() / seen.sum()
        assert abs(centre[0] - place_x) < 0.1 and abs(centre[1] - place_y) < 0.1


@given(views(), st.sampled_from([1, 2, 4]))
def test_labels_are_those_under_the_pixel_centres(case, reduction):
    height, width, view = case
    labels = np.arange(height * width * reduction**2).reshape(height * reduction, width * reduction)
    seen = view.labels(labels, reduction)
    assert seen.shape == (view.height, view.width)
    for i in range(view.height):
        for j in range(0, view.width, 3):
            column = view.width - 1 - j if view.flip else j
            y = (view.y0 + Fraction(2 * i + 1, 2) * view.box_height / view.height) * reduction
            x = (view.x0 + Fraction(2 * column + 1, 2) * view.box_width / view.width) * reduction
            assert seen[i, j] == labels[floor(y), floor(x)]


@given(views())
def test_a_label_lies_on_its_events(case):
    height, width, view = case
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (height, width))
    grid = (labels[None] == np.arange(3)[:, None, None]).astype(np.float32)
    seen = view.labels(labels)
    share = np.take_along_axis(view.grid(grid), seen[None], 0)[0]
    assert (share > 0).all()  # a label's own class has part in the grid of its class at the same place


def test_the_middle_of_camvid_at_the_training_size():
    view = centre_view(360, 480, (192, 256))
    assert (view.box_height, view.box_width, view.x0, view.y0) == (360, 480, 0, 0)
    view = centre_view(272, 640, (192, 256))
    assert (view.box_height, view.box_width, view.y0) == (272, 363, 0)
    assert view.x0 == (640 - 363) // 2


@given(sides, sides, st.tuples(sides, sides), st.floats(0.1, 1))
def test_boxes_have_the_aspect_asked_for(height, width, size, side):
    box = largest_box(height, width, size, side)
    assert 1 <= box[0] <= height and 1 <= box[1] <= width
    fit = side * min(height / size[0], width / size[1])
    assert abs(box[0] - size[0] * fit) <= 1 and abs(box[1] - size[1] * fit) <= 1


def test_draws_fill_the_range_of_scales_and_places():
    rng = np.random.default_rng(0)
    seen = [draw(rng, (0.5, 1.0), True) for _ in range(400)]
    assert min(d.side for d in seen) < 0.52 and max(d.side for d in seen) > 0.98
    assert all(0.5 <= d.side <= 1 for d in seen)
    assert 0.4 < np.mean([d.flip for d in seen]) < 0.6
    corners = {(v.x0, v.y0) for v in (draw(rng, (0.8, 0.8), False).view(10, 10, (10, 10)) for _ in range(300))}
    assert corners == {(x, y) for x in range(3) for y in range(3)}


@pytest.mark.parametrize("size", [(0, 4), (4,), "ab", None, (4, 5, 6)])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ConfigError, match="height"):
        check_size(size)


@pytest.mark.parametrize("scale", [(0, 1), (0.6, 0.5), (0.5, 1.5), 0.5, (float("nan"), 1)])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ConfigError, match="range within"):
        check_scale(scale)


def test_a_view_is_a_value():
    assert View(1, 2, 3, 4, 5, 6) == View(1, 2, 3, 4, 5, 6, flip=False)
