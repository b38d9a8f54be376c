"""Previews of simulated pairs: the pairs that were written, with their flow."""

import cv2
import numpy as np
import pytest

from evlift.collection import build_from_images, record_video
from evlift.errors import InputError
from evlift.view import event_picture, flow_picture
from evlift.view.pairs import check_preview, preview_images, preview_video


@pytest.fixture
def texture():
    coarse = np.random.default_rng(0).integers(0, 256, (10, 16, 3), np.uint8)
    return cv2.resize(coarse, (64, 40), interpolation=cv2.INTER_CUBIC)


def test_a_sheet_shows_the_pairs_of_the_collection(texture, tmp_path):
    (tmp_path / "s").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / "s" / f"{i}.png"), np.roll(texture, 9 * i, axis=1)[..., ::-1])
    (tmp_path / "s" / "1.png").write_bytes(b"nothing")
    collection = build_from_images(tmp_path / "s", tmp_path / "c", seed=4, val_fraction=0, progress=False)
    sheet = cv2.imread(str(preview_images(tmp_path / "p.png", tmp_path / "s", None, "ideal", 4, {})))[..., ::-1]
    assert sheet.shape == (40 + 8 + 40, 3 * 64 + 2 * 4, 3)
    for place, row in enumerate(collection.pairs.to_pylist()):
        shown = sheet[48 * place : 48 * place + 40]
        np.testing.assert_array_equal(shown[:, :64], np.roll(texture, 18 * place, axis=1))
        events = collection.recording(row["recording"]).events(row["t0_us"], row["t1_us"])
        np.testing.assert_array_equal(shown[:, 68:132], event_picture(events))


def test_the_flow_between_video_frames_points_where_things_go(texture, tmp_path):
    wide = cv2.resize(texture, (160, 80), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 80))
    for i in range(6):
        writer.write(np.ascontiguousarray(wide[:, 30 - 3 * i : 126 - 3 * i]))  # moves to the right
    writer.release()
    recordings = record_video(tmp_path / "v.avi", tmp_path / "r", progress=False)
    sheet = cv2.imread(str(preview_video(tmp_path / "p.png", recordings, count=2)))[..., ::-1]
    assert sheet.shape == (80 + 8 + 80, 3 * 96 + 2 * 4, 3)
    right = flow_picture(np.full((1, 1, 2), (3.0, 0.0)))[0, 0]
    middle = np.median(sheet[20:50, 230:270].reshape(-1, 3), axis=0)
    assert np.abs(middle - right).max() < 60
    video = cv2.VideoCapture(str(preview_video(tmp_path / "p.mp4", recordings)))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 5


def test_a_preview_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"p\.bmp; name it \.png"):
        check_preview("p.bmp")
    with pytest.raises(InputError, match="no pairs to draw"):
        preview_video(tmp_path / "p.png", [])
