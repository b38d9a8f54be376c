"""Pictures of events: the right colour at the right pixel, and files that come out as they went in."""

import importlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evlift.errors import InputError, RunError
from evlift.view import event_picture, save_picture
from evlift.view.pictures import polarity_counts

BLUE, RED, WHITE = [24, 78, 200], [208, 36, 36], [255, 255, 255]


def events(x, y, p, height=4, width=5):
    return SimpleNamespace(
        x=np.array(x, np.uint16), y=np.array(y, np.uint16), p=np.array(p, bool), height=height, width=width
    )


def test_on_is_blue_and_off_is_red_where_they_happened():
    picture = event_picture(events([1, 4], [0, 3], [True, False]))
    assert picture.shape == (4, 5, 3) and picture.dtype == np.uint8
    assert picture[0, 1].tolist() == BLUE
    assert picture[3, 4].tolist() == RED
    picture[0, 1] = picture[3, 4] = 255
    assert (picture == 255).all()


def test_grid_and_events_give_the_same_picture_when_nothing_cancels():
    e = events([0, 0, 3, 2], [0, 0, 1, 2], [True, True, False, True])
    grid = np.zeros((2, 4, 5), np.float32)
    grid[0, 0, 0], grid[1, 0, 0] = 0.5, 1.5  # two ON events between two bins
    grid[1, 1, 3], grid[0, 2, 2] = -1, 1
    assert np.array_equal(event_picture(e), event_picture(grid))
    assert np.array_equal(event_picture(grid), event_picture(torch.from_numpy(grid).requires_grad_()))


def test_the_real_events_are_drawn_too():
    from evlift.events import Events

    e = Events(x=np.array([2]), y=np.array([1]), t=np.array([7]), p=np.array([False]), height=3, width=4)
    picture = event_picture(e)
    assert picture[1, 2].tolist() == RED and (picture.reshape(-1, 3) == 255).all(axis=1).sum() == 11


def test_more_events_are_stronger_and_both_polarities_mix():
    grid = np.zeros((2, 1, 4), np.float32)
    grid[0, 0] = [1, 2, 4, 2]
    grid[1, 0, 3] = -2
    picture = event_picture(grid).astype(int)
    assert picture[0, 0, 0] > picture[0, 1, 0] > picture[0, 2, 0]  # less red, so bluer, with the count
    assert picture[0, 3].tolist() == [116, 57, 118]  # halfway between blue and red, at full strength


def test_a_hot_pixel_does_not_pale_the_rest():
    grid = np.zeros((1, 20, 20), np.float32)
    grid[0, :, :10] = 1
    calm = event_picture(grid)
    grid[0, 19, 19] = 1e6
    hot = event_picture(grid)
    assert np.array_equal(hot[:, :10], calm[:, :10]) and calm[0, 0].tolist() == BLUE


def test_no_events_leave_the_background():
    assert (event_picture(np.zeros((5, 3, 4), np.float32)) == 255).all()
    assert (event_picture(events([], [], []), background="black") == 0).all()


def test_sizes_keep_the_shape_unless_both_are_given():
    grid = np.zeros((1, 6, 8), np.float32)
    grid[0, :, :4] = 1
    assert event_picture(grid, height=12).shape == (12, 16, 3)
    assert event_picture(grid, width=4).shape == (3, 4, 3)
    assert event_picture(grid, 5, 5).shape == (5, 5, 3)
    smaller = event_picture(grid, 3, 4)
    assert smaller[0].tolist() == [BLUE, BLUE, WHITE, WHITE]
    assert event_picture(grid, 12, 16)[0, ::2].tolist() == [BLUE] * 4 + [WHITE] * 4


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, (3, 4, 5), elements=st.floats(-50, 50, width=32)))
def test_counts_of_a_grid_are_its_positive_and_negative_sums(grid):
    before = grid.copy()
    on, off = polarity_counts(grid)
    for y in range(4):
        for x in range(5):
            column = [float(v) for v in grid[:, y, x]]
            assert on[y, x] == pytest.approx(sum(v for v in column if v > 0), rel=1e-5)
            assert off[y, x] == pytest.approx(sum(-v for v in column if v < 0), rel=1e-5)
    event_picture(grid)
    assert np.array_equal(grid, before)


@pytest.mark.parametrize("shape", [(4, 5), (1, 2, 4, 5), (0, 4, 5)])
def test_another_shape_is_refused(shape):
    with pytest.raises(InputError, match="one sample"):
        event_picture(np.zeros(shape, np.float32))


def test_unknown_background_and_empty_size_are_refused():
    with pytest.raises(InputError, match="white, black"):
        event_picture(np.zeros((1, 2, 2)), background="grey")
    with pytest.raises(InputError, match="at least 1"):
        event_picture(np.zeros((1, 2, 2)), height=0)


def test_png_comes_back_as_it_went_in(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    path = save_picture(tmp_path / "new" / "a.png", picture)
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], picture)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]  # no temporary file is left


def test_jpeg_keeps_red_red(tmp_path):
    path = save_picture(tmp_path / "a.jpg", np.full((16, 16, 3), RED, np.uint8))
    assert np.abs(cv2.imread(str(path))[..., ::-1].astype(int) - RED).max() <= 3


def test_pictures_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="uint8"):
        save_picture(tmp_path / "a.png", np.zeros((2, 2, 3), np.float32))
    with pytest.raises(InputError, match=r"\.png or \.jpg"):
        save_picture(tmp_path / "a.gif", np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        save_picture(tmp_path / "file" / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_picture(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    old = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importlib.import_module("os"), "replace", fail)
    with pytest.raises(RunError, match="No space left"):
        save_picture(path, np.full((2, 2, 3), 9, np.uint8))
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]
