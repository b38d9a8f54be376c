"""Packed recordings of simulated cameras, without pairs."""

import numpy as np
import pytest

from evlift.collection import build_from_video, record_images, record_video
from evlift.collection.pictures import read_picture
from evlift.errors import ConfigError, InputError, RunError
from evlift.events import open_recording
from evlift.simulate import pair_from_image


def columns(recording):
    e = recording.events()
    return np.stack([e.t, e.x, e.y, e.p])


def test_a_video_becomes_the_recordings_of_its_shots(video, tmp_path):
    recordings = record_video(video, tmp_path / "r", seed=7, shake_px=2.0, licence="CC0", progress=False)
    collection = build_from_video(video, tmp_path / "c", seed=7, shake_px=2.0, progress=False)
    assert [r.path.name for r in recordings] == ["shot-000", "shot-001", "shot-002"]
    for recording in recordings:
        other = collection.recording(recording.path.name)
        np.testing.assert_array_equal(columns(recording), columns(other))
        assert recording.frames.t_us.tolist() == other.frames.t_us.tolist()
        assert recording.info["licence"] == "CC0" and recording.info["sensor"] == "simulated: ideal"


def test_it_goes_on_where_it_stopped_and_mixes_nothing_in(video, tmp_path):
    out = tmp_path / "r"
    first = record_video(video, out, progress=False)
    stamps = {r.path.name: r.path.stat().st_ino for r in first}
    first[1].path.rename(tmp_path / "away")
    again = record_video(video, out, progress=False)
    assert {r.path.name: r.path.stat().st_ino == stamps[r.path.name] for r in again} == {
        "shot-000": True,
        "shot-001": False,
        "shot-002": True,
    }
    np.testing.assert_array_equal(columns(again[1]), columns(open_recording(tmp_path / "away")))
    with pytest.raises(RunError, match="other settings"):
        record_video(video, out, seed=1, progress=False)
    other = tmp_path / "other.avi"
    other.write_bytes(video.read_bytes() + b"\0")
    with pytest.raises(RunError, match="another source"):
        record_video(other, out, progress=False)
    (out / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match=r"holds thesis\.tex"):
        record_video(video, out, progress=False)


def test_a_picture_becomes_a_recording_that_ends_with_it(pictures, tmp_path, make, caplog):
    (pictures / "images" / "03.jpg").write_bytes(b"nothing")
    make.save_jpeg(pictures / "images" / "large.jpg", make.photograph(1, 30, 2100))  # no packed word has room for it
    make.save_jpeg(pictures / "images" / "05.jpeg", make.photograph(2, 60, 80))
    motion = {"motion_px": (3, 6), "duration_us": 20_000}
    recordings = record_images(pictures, tmp_path / "r", seed=3, motion=motion, progress=False)
    names = ["00", "01", "02", "04", "05", "05.jpg", "06", "07", "08", "09"]
    assert sorted(r.path.name for r in recordings) == names
    assert "set aside 03: " in caplog.text and "set aside large: " in caplog.text
    image = read_picture(pictures / "images" / "08.jpg")[0]
    drawn = int(np.random.default_rng([3, 0, *b"08.jpg"]).integers(2**31))
    events = pair_from_image(image, seed=drawn, **motion).events
    one = open_recording(tmp_path / "r" / "08")
    np.testing.assert_array_equal(columns(one), np.stack([events.t, events.x, events.y, events.p]))
    assert one.frames.t_us.tolist() == [20_000]
    assert np.abs(one.frame(0).astype(int) - image).mean() < 2
    several = record_images(pictures, tmp_path / "s", seed=3, motion=motion, variants=2, progress=False)
    assert {r.path.name for r in several} == {f"{name}-{k}" for name in names for k in (1, 2)}
    np.testing.assert_array_equal(columns(open_recording(tmp_path / "s" / "08-1")), columns(one))


def test_another_picture_of_the_same_name_is_not_taken_for_the_recorded_one(pictures, tmp_path):
    record_images(pictures, tmp_path / "r", size=(32, 48), progress=False)
    first, *_, last = sorted((pictures / "images").iterdir())
    first.write_bytes(last.read_bytes())
    with pytest.raises(RunError, match="another source"):
        record_images(pictures, tmp_path / "r", size=(32, 48), progress=False)


def test_what_cannot_be_recorded_is_refused(pictures, tmp_path, video):
    with pytest.raises(ConfigError, match="variants"):
        record_images(pictures, tmp_path / "r", variants=0)
    with pytest.raises(ConfigError, match="shake_px"):
        record_video(video, tmp_path / "r", shake_px=-1)
    with pytest.raises(InputError, match="does not exist"):
        record_video(tmp_path / "none.mp4", tmp_path / "r")
    for file in (pictures / "images").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match="none of the pictures"):
        record_images(pictures, tmp_path / "r", progress=False)
