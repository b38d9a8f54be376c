"""Collections on disk: what is in them, what a kill leaves, what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evlift.collection import build_from_images, build_from_video, footage, open_collection
from evlift.collection.clips import split_of
from evlift.collection.pictures import read_labels
from evlift.errors import ConfigError, InputError, RunError
from evlift.simulate import events_from_video, read_video, shake

CAMVID = Path(__file__).parents[2] / "../shared/data/camvid"


def files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by its name in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.fixture(scope="module")
def built(video, tmp_path_factory):
    """The whole build of the small video, and its settings."""
    options = {"shake_px": 3.0, "window_us": 80_000, "val_fraction": 0.25, "seed": 7, "progress": False}
    out = tmp_path_factory.mktemp("built") / "c"
    return build_from_video(video, out, **options), options


def test_every_pair_is_its_frame_and_the_events_before_it(built, video):
    collection, _ = built
    frames, times = read_video(video)
    rows = collection.pairs.to_pylist()
    assert {row["shot"] for row in rows} == {0, 1}
    for shot, (start, stop) in enumerate(((0, 20), (20, 34))):
        seed = int(np.random.default_rng([7, shot]).integers(2**31))
        clock = times[start:stop] - times[start]
        moved = shake(frames[start:stop], 3.0, seed, times_us=clock)
        events = events_from_video(moved, clock, seed=seed)
        recording = collection.recording(f"shot-{shot:03d}")
        stored = recording.events()
        for name in ("x", "y", "t", "p"):
            np.testing.assert_array_equal(getattr(stored, name), getattr(events, name))
        np.testing.assert_array_equal(recording.frames.t_us, clock)
        for i, image in enumerate(moved):
            assert np.abs(recording.frame(i).astype(int) - image).mean() < 3
        mine = [row for row in rows if row["shot"] == shot]
        # 80 ms are two frames: the third frame is the first with a whole window before it.
        assert [row["frame"] for row in mine] == list(range(2, stop - start))
        for row in mine:
            t = int(clock[row["frame"]])
            assert (row["t_image_us"], row["t0_us"], row["t1_us"]) == (t, t - 80_000, t)
            assert row["events"] == ((events.t >= t - 80_000) & (events.t < t)).sum() > 0
            assert row["recording"] == f"shot-{shot:03d}" and row["labels"] is None


def test_the_last_share_of_every_shot_is_apart_from_what_trains(built):
    collection, _ = built
    rows = collection.pairs.to_pylist()
    for shot, frames, held_out in ((0, 20, 5), (1, 14, 4)):  # 3.5 of 14 frames round to 4
        mine = [row for row in rows if row["shot"] == shot]
        first = frames - held_out
        expected = ["train" if f < first else "gap" if f < first + 2 else "val" for f in range(2, frames)]
        assert [row["split"] for row in mine] == expected
        train_ends = max(row["t1_us"] for row in mine if row["split"] == "train")
        assert all(row["t0_us"] > train_ends for row in mine if row["split"] == "val")
    assert collection.splits == {"train": 13 + 8, "val": 3 + 2, "gap": 4}


@given(
    st.integers(0, 10**6), st.integers(1, 10**5), st.integers(0, 10**6), st.integers(1, 10**5), st.integers(0, 10**6)
)
def test_no_held_out_pair_touches_a_training_pair(t0, span, other_t0, other_span, boundary):
    a, b = (t0, t0 + span), (other_t0, other_t0 + other_span)
    if split_of(*a, boundary) == "train" and split_of(*b, boundary) == "val":
        assert a[1] < b[0]


def test_a_shot_too_short_for_a_window_is_reported(built):
    collection, _ = built
    assert any("shot-002 gives no pairs" in line for line in collection.describe()["problems"])
    assert len(collection.recording("shot-002").frames) == 2


def test_describe_tells_counts_and_origin(built, video):
    collection, _ = built
    told = json.loads(json.dumps(collection.describe()))
    assert told["recordings"] == told["planned"] == 3 and told["complete"]
    assert told["pairs"] == {"train": 21, "val": 5, "gap": 4} and told["labelled"] == 0
    assert told["events"] == sum(len(collection.recording(f"shot-{i:03d}")) for i in range(3))
    assert told["sizes"] == {"48×64": 3} and told["sensor"] == "ideal" and told["name"] == "slides"
    train = [row["events"] for row in collection.pairs.to_pylist() if row["split"] == "train"]
    assert told["events_per_pair"]["train"] == pytest.approx(np.mean(train))
    from hashlib import sha256

    assert told["source"]["sha256"] == sha256(video.read_bytes()).hexdigest()


def test_held_out_shots_are_test_as_a_whole(video, tmp_path, built):
    collection = build_from_video(video, tmp_path / "c", **{**built[1], "held_out_shots": [1]})
    rows = collection.pairs.to_pylist()
    assert {row["split"] for row in rows if row["shot"] == 1} == {"test"}
    assert {row["split"] for row in rows if row["shot"] == 0} == {"train", "gap", "val"}
    with pytest.raises(ConfigError, match=r"held_out_shots has \[5\]"):
        build_from_video(video, tmp_path / "d", held_out_shots=[5])


def test_windows_of_a_count_hold_that_many_or_a_whole_span(video, tmp_path, built):
    count = 2500
    collection = build_from_video(video, tmp_path / "c", **{**built[1], "window_events": count})
    reached = 0
    for row in collection.pairs.to_pylist():
        assert row["t1_us"] - row["t0_us"] <= 80_000 and row["t0_us"] >= 0
        if row["t1_us"] - row["t0_us"] < 80_000:
            # All events of the first one's microsecond are in, so there may be a few more.
            recording = collection.recording(row["recording"])
            assert row["events"] >= count > row["events"] - recording.count(row["t0_us"], row["t0_us"] + 1)
            reached += 1
        else:
            assert row["events"] <= count + 50
    assert reached > 5


def test_a_smaller_size_is_cut_from_the_middle(video, tmp_path, built):
    collection = build_from_video(video, tmp_path / "c", **{**built[1], "size": (24, 24), "max_frames": 12})
    recording = collection.recording("shot-000")
    assert (recording.height, recording.width) == (24, 24)
    assert recording.frame(3).shape == (24, 24, 3) and len(recording.frames) == 12


def test_a_still_camera_gives_empty_pairs_that_are_set_aside(tmp_path):
    import cv2

    path = tmp_path / "still.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 32))
    for _ in range(6):
        writer.write(np.full((32, 32, 3), 90, np.uint8))
    writer.release()
    collection = build_from_video(path, tmp_path / "c", shake_px=0, window_us=40_000, progress=False)
    assert collection.splits == {"empty": 5}
    assert sum("no events" in line for line in collection.describe()["problems"]) == 5


def test_the_same_build_again_changes_nothing_and_reads_no_video(built, video, monkeypatch):
    collection, options = built
    before = files(collection.path)
    monkeypatch.setattr(footage, "iter_video", None)
    again = build_from_video(video, collection.path, **options)
    assert again.pairs.equals(collection.pairs) and files(collection.path) == before


def test_other_settings_or_another_source_are_refused(built, video, tmp_path):
    collection, options = built
    with pytest.raises(RunError, match=r"other settings .*seed: 7 → 8"):
        build_from_video(video, collection.path, **{**options, "seed": 8})
    with pytest.raises(RunError, match="sensor"):
        build_from_video(video, collection.path, **options, sensor="davis240")
    other = tmp_path / "other.avi"
    other.write_bytes(video.read_bytes() + b"\0")
    with pytest.raises(RunError, match="another source"):
        build_from_video(other, collection.path, **options)
    moved = tmp_path / "moved.avi"  # the same video under another name is the same source
    shutil.copy(video, moved)
    assert build_from_video(moved, collection.path, **options).complete
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="not empty"):
        build_from_video(video, tmp_path / "taken", **options)
    assert (tmp_path / "taken" / "thesis.tex").exists()


@pytest.mark.parametrize("moment", ["in a recording", "before its rows", "before it is listed"])
def test_a_killed_build_keeps_what_was_finished_and_goes_on(built, video, tmp_path, moment):
    whole, options = built
    out = tmp_path / "c"
    script = f"""
import os, sys
from evlift.collection import assemble, build_from_video, footage
calls = 0
def die_at(name, module, count):
    real = getattr(module, name)
    def called(*args, **more):
        global calls
        calls += 1
        if calls == count:
            os._exit(9)
        return real(*args, **more)
    setattr(module, name, called)
moment = {moment!r}
if moment == "in a recording":
    die_at("Frame", footage, 25)
elif moment == "before its rows":
    die_at("write_pairs", assemble, 2)
else:
    die_at("write_info", assemble, 3)  # the plan, shot 0, shot 1
build_from_video({str(video)!r}, {str(out)!r}, **{options!r})
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
    partial = open_collection(out)
    assert not partial.complete and list(partial.info["recordings"]) == ["shot-000"]
    expected = [row for row in whole.pairs.to_pylist() if row["shot"] == 0]
    assert partial.pairs.to_pylist() == expected
    first = out / "recordings" / "shot-000"
    stamp = os.stat(first).st_ino

    again = build_from_video(video, out, **options)
    assert again.complete and again.pairs.equals(whole.pairs) and os.stat(first).st_ino == stamp
    assert files(out) == files(whole.path)  # to the last bit, and no leavings


def test_two_builds_do_not_mix(built, video, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    collection, options = built
    with open(collection.path / ".lock") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert build_from_video(video, collection.path, **options).complete  # what is finished needs no lock
        shutil.copytree(collection.path, tmp_path / "c")
        shutil.rmtree(tmp_path / "c" / "recordings" / "shot-000")
        with open(tmp_path / "c" / ".lock") as inner:
            fcntl.flock(inner, fcntl.LOCK_EX)
            with pytest.raises(RunError, match="another evlift process"):
                build_from_video(video, tmp_path / "c", **options)


def test_a_lost_recording_is_made_again(built, video, tmp_path):
    collection, options = built
    out = tmp_path / "c"
    shutil.copytree(collection.path, out)
    shutil.rmtree(out / "recordings" / "shot-000")
    with pytest.raises(InputError, match="shot-000"):
        open_collection(out).recording("shot-000")
    again = build_from_video(video, out, **options)
    assert again.complete and again.pairs.equals(collection.pairs)
    assert files(out)["pairs.parquet"] == files(collection.path)["pairs.parquet"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("collection.json", b"{"),
        ("collection.json", b"[]"),
        ("collection.json", b'{"format": "evlift-collection", "version": 99}'),
        ("collection.json", b'{"format": "evlift-collection", "version": 1}'),
        ("collection.json", b"\xff\xfe\x00"),
        ("pairs.parquet", b"PAR1 nothing"),
        ("pairs.parquet", b""),
        ("pairs.parquet", None),
    ],
)
def test_damage_is_told_in_one_line(built, tmp_path, file, content):
    out = tmp_path / "c"
    shutil.copytree(built[0].path, out)
    (out / file).unlink()
    if content is not None:
        (out / file).write_bytes(content)
    with pytest.raises(InputError, match=file) as caught:
        open_collection(out)
    assert "\n" not in str(caught.value) and "; " in str(caught.value)


def test_what_is_no_collection_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="is no collection"):
            open_collection(path)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"val_fraction": 1}, ConfigError, "val_fraction"),
        ({"window_us": 0}, ConfigError, "window_us"),
        ({"window_events": 2.5}, ConfigError, "window_events"),
        ({"shake_px": -1}, ConfigError, "shake_px"),
        ({"size": (0, 5)}, ConfigError, "size"),
        ({"sensor": "eye"}, ConfigError, "eye"),
    ],
)
def test_settings_that_cannot_be_used_leave_nothing(video, tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        build_from_video(video, tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"text")
    with pytest.raises(InputError):
        build_from_video(tmp_path / "v.mp4", tmp_path / "c")
    with pytest.raises(InputError, match="does not exist"):
        build_from_video(tmp_path / "none.mp4", tmp_path / "c")


def test_pictures_become_pairs_with_their_labels(pictures, tmp_path):
    collection = build_from_images(pictures, tmp_path / "c", variants=2, licence="CC0", progress=False)
    assert collection.splits == {"train": 16, "val": 4} and collection.describe()["labelled"] == 18
    assert collection.describe()["licence"] == "CC0"
    rows = collection.pairs.to_pylist()
    for row in rows:
        recording = collection.recording(row["recording"])
        assert row["events"] == recording.count(row["t0_us"], row["t1_us"]) > 0
        assert recording.frames.t_us[row["frame"]] == row["t_image_us"] == row["t1_us"] - 1
        name = f"{row['shot']:02d}"
        assert (row["labels"] is None) == (name == "04")
        if row["labels"]:
            stored = read_labels(collection.path / row["labels"])
            np.testing.assert_array_equal(stored, read_labels(pictures / "labels" / f"{name}.png"))
    assert sum(row["events"] for row in rows) == collection.describe()["events"]  # windows cover every event once
    one, two = (collection.recording("train-00000").window(r["t0_us"], r["t1_us"]).events() for r in rows[:2])
    assert rows[0]["shot"] == rows[1]["shot"] and not np.array_equal(one.x, two.x)


def test_pictures_of_several_sizes_and_a_bad_one(pictures, tmp_path, make):
    make.save_jpeg(pictures / "images" / "10.jpg", make.photograph(3, 40, 50))
    (pictures / "images" / "01.jpg").write_bytes(b"nothing")
    whole = (pictures / "images" / "02.jpg").read_bytes()
    (pictures / "images" / "02.jpg").write_bytes(whole[:900])  # a good header, damaged pixels
    collection = build_from_images(pictures, tmp_path / "c", progress=False)
    told = collection.describe()
    assert told["pairs"] == {"train": 7, "val": 2} and told["sizes"] == {"60×80": 2, "40×50": 1}
    assert sorted(line.split(":")[0] for line in told["problems"]) == ["set aside 01.jpg", "set aside 02.jpg"]
    again = build_from_images(pictures, tmp_path / "c", progress=False)
    assert again.describe() == told


def test_what_one_picture_cannot_be_used_for_never_ends_a_build(pictures, tmp_path, make):
    make.save_jpeg(pictures / "images" / "10.jpg", make.photograph(3, 20, 2100))  # a recording has no room for it
    (pictures / "depth").mkdir()
    np.save(pictures / "depth" / "03.npy", np.full((60, 80), -1.0))
    np.save(pictures / "depth" / "05.npy", np.linspace(1, 5, 4800).reshape(60, 80))
    make.save_labels(pictures / "labels" / "06.png", make.photograph(1, 60, 80))  # colours
    (pictures / "images" / "07.jpg").unlink()
    (pictures / "images" / "07.jpg").symlink_to(tmp_path / "gone.jpg")
    flat = build_from_images(pictures, tmp_path / "c", motion={"kind": "planar"}, progress=False)
    collection = build_from_images(pictures, tmp_path / "d", progress=False)
    told = {line.split(":")[0].split(",")[0]: line for line in collection.describe()["problems"]}
    assert sorted(told) == [f"set aside {name}.jpg" for name in ("03", "06", "07", "10")]
    assert "2048×1024" in told["set aside 10.jpg"] and "colours" in told["set aside 06.jpg"]
    assert collection.describe()["complete"] and sum(collection.splits.values()) == 7
    assert sum(flat.splits.values()) == 8  # planar motion leaves depth alone
    counts = [{r["shot"]: r["events"] for r in c.pairs.to_pylist()} for c in (flat, collection)]
    assert [shot for shot in counts[1] if counts[0][shot] != counts[1][shot]] == [5]


def test_pictures_of_one_size(pictures, tmp_path):
    collection = build_from_images(pictures, tmp_path / "c", size=(20, 20), progress=False)
    recording = collection.recording("train-00000")
    assert (recording.height, recording.width) == (20, 20)
    labels = read_labels(collection.path / collection.pairs["labels"][0].as_py())
    original = read_labels(pictures / "labels" / "00.png")
    np.testing.assert_array_equal(labels, original[1::3, 10:70][:, 1::3])  # 60×60 from the middle, every third


def test_a_changed_picture_is_another_source(pictures, tmp_path, make):
    build_from_images(pictures, tmp_path / "c", progress=False)
    make.save_jpeg(pictures / "images" / "00.jpg", make.photograph(99, 60, 80))
    with pytest.raises(RunError, match="another source"):
        build_from_images(pictures, tmp_path / "c", progress=False)


def test_wrong_pictures_are_refused(pictures, tmp_path, make):
    with pytest.raises(InputError, match="is not a folder"):
        build_from_images(tmp_path / "none", tmp_path / "c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        build_from_images(tmp_path / "empty", tmp_path / "c")
    make.save_labels(pictures / "labels" / "05.png", np.zeros((30, 40), np.uint8))
    with pytest.raises(InputError, match=r"05\.png is 40×30"):
        build_from_images(pictures, tmp_path / "c", progress=False)


@pytest.mark.skipif(not CAMVID.is_dir(), reason="real photographs (shared/data/camvid) are not here")
def test_real_photographs_become_a_collection(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / "some" / part).mkdir(parents=True)
        for file in sorted((CAMVID / "train" / part).iterdir())[:12]:
            shutil.copy(file, tmp_path / "some" / part)
    collection = build_from_images(tmp_path / "some", tmp_path / "c", size=(120, 160), progress=False)
    told = collection.describe()
    assert told["pairs"] == {"train": 10, "val": 2} and told["labelled"] == 12 and not told["problems"]
    assert told["events_per_pair"]["train"] > 3000
