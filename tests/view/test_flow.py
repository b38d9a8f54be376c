"""Flow as colours, and pictures as videos."""

import cv2
import numpy as np
import pytest
from PIL import Image

from evlift.errors import InputError, RunError
from evlift.view import flow_key, flow_picture, save_animation
from evlift.view.flow import WHEEL, with_key


def test_the_wheel_is_baker_2011s():
    assert WHEEL.shape == (55, 3)
    for place, colour in ((0, "100"), (15, "110"), (21, "010"), (25, "011"), (36, "001"), (49, "101")):
        assert "".join(str(int(c)) for c in WHEEL[place]) == colour
    np.testing.assert_allclose(WHEEL[5], [1, 1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(WHEEL[52], [1, 0, 0.5], atol=1e-6)


def slow_colour(dx, dy, longest):
    """One pixel after the description of the paper, in plain Python."""
    length, angle = np.hypot(dx, dy) / longest, np.arctan2(-dy, -dx) / np.pi
    place = (angle + 1) / 2 * 55
    low, share = int(place), place - int(place)
    hue = (1 - share) * WHEEL[low % 55] + share * WHEEL[(low + 1) % 55]
    return [round(255 * (1 - length * (1 - c) if length <= 1 else 0.75 * c)) for c in hue]


def test_colours_of_directions_and_lengths():
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 3, (6, 7, 2)).astype(np.float32)
    drawn = flow_picture(flow, longest=4.0)
    expected = [[slow_colour(*flow[y, x], 4.0) for x in range(7)] for y in range(6)]
    assert np.abs(drawn.astype(int) - expected).max() <= 1
    right = flow_picture(np.array([[[2.0, 0], [0, 0], [1, 0]]]))
    assert right.tolist() == [[[255, 0, 0], [255, 255, 255], [255, 128, 128]]]  # the largest length is full red


def test_hues_have_no_seam():
    angles = np.linspace(-np.pi, np.pi, 721)
    ring = flow_picture(np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None], longest=1.0)[0].astype(int)
    assert np.abs(np.diff(ring, axis=0)).max() < 12 and (ring[0] == ring[-1]).all()
    nearly_right = flow_picture(np.array([[[1.0, 1e-4], [1.0, -1e-4]]]), longest=1.0)[0].astype(int)
    assert np.abs(nearly_right[0] - nearly_right[1]).max() <= 1


def test_the_length_stands_on_its_own_halo():
    for picture in (np.zeros((200, 300, 3), np.uint8), np.full((200, 300, 3), 255, np.uint8)):
        drawn = with_key(picture, 14.25)[150:, 150:240].mean(axis=2)
        dark = (drawn < 90).astype(np.uint8)
        near = cv2.dilate((drawn > 165).astype(np.uint8), np.ones((9, 9), np.uint8))
        assert near.any() and dark.any()
        if picture.max() == 0:  # white around every stroke: as wide as the letters, and 2 pixels more on each side
            ys, xs = np.nonzero(drawn > 60)
            on_white = with_key(np.full((200, 300, 3), 255, np.uint8), 14.25)[150:, 150:240].mean(axis=2)
            letters = np.nonzero(on_white < 200)[1]
            assert xs.min() >= letters.min() - 4 and xs.max() <= letters.max() + 4 and len(ys) > 0


def test_what_is_unknown_is_grey():
    flow = np.ones((2, 2, 2), np.float32)
    flow[0, 0] = np.nan
    flow[0, 1, 1] = np.inf
    drawn = flow_picture(flow, np.array([[True, True], [True, False]]))
    grey = [160, 160, 160]
    assert drawn[0].tolist() == [grey, grey] and drawn[1, 1].tolist() == grey and drawn[1, 0].tolist() != grey
    assert (flow_picture(np.zeros((3, 3, 2))) == 255).all()
    for wrong in (np.zeros((3, 3)), np.zeros((0, 3, 2)), np.zeros((3, 3, 3))):
        with pytest.raises(InputError, match="flow has shape"):
            flow_picture(wrong)
    with pytest.raises(InputError, match="mask"):
        flow_picture(flow, np.ones((3, 2), bool))
    with pytest.raises(InputError, match="longest"):
        flow_picture(flow, longest=0)


def test_the_key_shows_each_direction_where_it_points():
    key = flow_key(101)
    assert key[50, 50].min() > 245 and (key[0, 0] == 255).all()
    assert key[50, 100, 0] == 255 and key[50, 100, 1:].max() < 15  # to the right: red
    np.testing.assert_allclose(key[99, 50], slow_colour(0, 0.97, 1.0), atol=3)
    with pytest.raises(InputError, match="0 pixels"):
        flow_key(0)
    picture = flow_picture(np.ones((100, 120, 2)))
    drawn = with_key(picture, 3.0)
    assert (drawn[:60] == picture[:60]).all() and (drawn[75:, 92:] != picture[75:, 92:]).any()
    assert (with_key(picture[:20, :20], 3.0) == picture[:20, :20]).all()


def colours(count, height=33, width=47):
    return [np.full((height, width, 3), (60 * i % 256, 40, 200), np.uint8) for i in range(count)]


def test_a_video_has_its_pictures_in_order(tmp_path):
    pictures = colours(5)
    save_animation(tmp_path / "deep" / "v.mp4", iter(pictures), 10)
    capture = cv2.VideoCapture(str(tmp_path / "deep" / "v.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    read = []
    while (got := capture.read())[0]:
        read.append(got[1][..., ::-1])
    assert len(read) == 5 and read[0].shape == (32, 46, 3)
    assert all(np.abs(a[16, 20].astype(int) - b[16, 20]).max() < 12 for a, b in zip(read, pictures, strict=True))
    save_animation(tmp_path / "v.gif", iter(pictures), 8)
    with Image.open(tmp_path / "v.gif") as gif:
        assert gif.n_frames == 5 and gif.size == (47, 33) and gif.info["duration"] in (120, 125)
        gif.seek(3)
        assert np.abs(np.array(gif.convert("RGB"))[5, 5].astype(int) - pictures[3][5, 5]).max() < 12
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == ["v.gif", "v.mp4"]


def test_a_gif_keeps_the_colours_of_few_pixels(tmp_path):
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[:, None] // 2 + 60, ramp[None] // 2 + 50, np.uint8(70)), axis=-1)
    picture[:8, :8], picture[:8, 20:28] = (200, 20, 30), (20, 60, 200)  # events
    save_animation(tmp_path / "v.gif", iter([picture, picture]), 8)
    with Image.open(tmp_path / "v.gif") as gif:
        drawn = np.array(gif.convert("RGB")).astype(int)
    for place, colour in ((slice(1, 7), (200, 20, 30)), (slice(21, 27), (20, 60, 200))):
        assert np.abs(drawn[1:7, place].mean(axis=(0, 1)) - colour).max() < 25


def test_what_is_no_video_is_refused_and_leaves_nothing(tmp_path):
    for name, pictures, error, words in (
        ("v.avi", colours(2), InputError, r"type '\.avi'; name the file \.mp4"),
        ("v.mp4", [], InputError, "no pictures"),
        ("v.gif", [], InputError, "no pictures"),
        ("file/v.gif", colours(1), RunError, "cannot write"),
    ):
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(error, match=words):
            save_animation(tmp_path / name, iter(pictures), 10)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
