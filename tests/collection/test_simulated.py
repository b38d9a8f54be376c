"""Pairs made on the fly: of a video, with depth and flow, and with files that cannot be used."""

import gc
import json
import os
import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import evlift.collection.simulated as simulated
from evlift.collection import SimulatedPairs, build_from_video, choose_clips, image_files, open_film, open_source
from evlift.collection.transform import centre_view, draw
from evlift.errors import ConfigError, InputError, RunError
from evlift.simulate import VideoSimulator, find_shots, pair_from_image, read_video, shake


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


@pytest.fixture(scope="module")
def film(video, tmp_path_factory):
    return open_film(video, tmp_path_factory.mktemp("film") / "f")


def test_a_film_is_its_video(film, video):
    frames, times = read_video(video)
    assert film.times.tolist() == times.tolist() and film.shots == find_shots(frames)
    assert (film.height, film.width, film.reduction) == (48, 64, 1) and not film.problems
    for i in (35, 0, 20):  # in any order
        assert np.abs(film.frame(i).astype(int) - frames[i]).mean() < 2.5


def test_frames_are_kept_as_large_as_the_smallest_crop_needs_them(video, tmp_path):
    small = open_film(video, tmp_path / "f", size=(12, 16), scale=(0.5, 1.0))
    assert (small.height, small.width, small.reduction) == (24, 32, 2)
    whole = read_video(video)[0][7]
    assert np.abs(small.frame(7).astype(int) - whole.reshape(24, 2, 32, 2, 3).mean((1, 3))).mean() < 2.5
    assert open_film(video, tmp_path / "g", size=(100, 100)).height == 48  # never enlarged


def test_a_film_is_decoded_once_and_belongs_to_its_video(video, tmp_path, monkeypatch):
    folder = tmp_path / "f"
    first = open_film(video, folder)
    stamp = os.stat(folder / "frames.bin").st_ino
    again = open_film(video, folder)
    assert os.stat(folder / "frames.bin").st_ino == stamp and again.times.tolist() == first.times.tolist()
    with pytest.raises(RunError, match=r"another video or size \(size\)"):
        open_film(video, folder, size=(12, 16))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="not empty"):
        open_film(video, tmp_path / "other")
    (folder / "clips.json").unlink()  # as a kill leaves it
    (folder / "frames.bin").write_bytes(b"half")
    assert np.array_equal(open_film(video, folder).frame(3), first.frame(3))
    (folder / "frames.bin").write_bytes((folder / "frames.bin").read_bytes()[:5000])
    with pytest.raises(InputError, match="lacks frame 30"):
        first.frame(30)
    (folder / "clips.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        open_film(video, folder)


def test_a_film_without_a_folder_leaves_nothing(video, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = open_film(video)
    assert made.folder.parent == tmp_path and made.folder.is_dir()
    copy = pickle.loads(pickle.dumps(made))
    del copy
    gc.collect()
    assert made.folder.is_dir()  # the copy of a worker does not own it
    del made
    gc.collect()
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"text\.mp4 is no video"):
        open_film(tmp_path / "text.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["text.mp4"]


@pytest.mark.parametrize("options", [{}, {"val_fraction": 0}, {"held_out_shots": [1]}, {"window_us": 70_000}])
def test_splits_are_those_of_a_collection(film, video, tmp_path, options):
    options = {"window_us": 100_000, "val_fraction": 0.2, **options}
    rows = build_from_video(video, tmp_path / "c", shake_px=0, **options, progress=False).pairs.to_pylist()
    starts = [start for start, _ in film.shots]
    for split in ("train", "val", "test"):
        expected = [(r["shot"], starts[r["shot"]] + r["frame"]) for r in rows if r["split"] == split]
        if not expected:
            with pytest.raises(InputError, match=f"no pairs for split '{split}'"):
                choose_clips(film, split, **options)
            continue
        clips = choose_clips(film, split, **options)
        assert list(zip(clips.shot.tolist(), clips.frame.tolist(), strict=True)) == expected
    everything = choose_clips(film, **options)
    assert len(everything) == len(rows)
    for first, frame, shot in zip(everything.first, everything.frame, everything.shot, strict=True):
        begins = film.times[frame] - options["window_us"]
        assert film.times[first] <= begins < film.times[first + 1] and first >= starts[shot]


def test_a_pair_of_a_video_is_the_simulator_on_the_view(film, counts):
    clips = choose_clips(film, "train", window_us=100_000, shake_px=3.0)
    data = SimulatedPairs(clips, counts, (24, 32), scale=(0.6, 0.9), seed=5)
    assert not data.labelled and len(data) == len(clips)
    for epoch, index in ((0, 0), (3, 12)):
        rng = np.random.default_rng([5, epoch, index])
        motion = int(rng.integers(2**31))
        view = draw(rng, (0.6, 0.9), True).view(48, 64, (24, 32))
        frame, start = int(clips.frame[index]), film.shots[int(clips.shot[index])][0]
        camera = VideoSimulator(24, 32, seed=motion)
        events = []
        for k in range(frame - 3, frame + 1):  # the window is 2.5 frame periods long
            t = int(film.times[k] - film.times[start])
            seen = view.image(shake(film.frame(k)[None], 3.0, motion, times_us=np.array([t]))[0])
            events.append(camera.push(seen, t))
        expected = np.zeros((2, 24, 32), np.float32)
        for part in events:
            inside = (part.t >= t - 100_000) & (part.t < t)
            np.add.at(expected, (part.p[inside].astype(int), part.y[inside], part.x[inside]), 1)
        item = data[(epoch, index)]
        assert expected.sum() > 50
        np.testing.assert_array_equal(item["grid"].numpy(), expected)
        np.testing.assert_array_equal(np.round(item["image"].numpy() * 255), seen.transpose(2, 0, 1))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_make_the_same_pairs_of_a_video(film, counts):
    data = SimulatedPairs(choose_clips(film), counts, (24, 32), seed=1)
    keys = [[(epoch, i) for i in (5, 0, 3)] for epoch in (0, 1)]
    alone = list(DataLoader(data, batch_sampler=keys))
    two = list(DataLoader(data, batch_sampler=keys, num_workers=2, timeout=60))
    assert all(same(a, b) for a, b in zip(alone, two, strict=True))
    assert same(pickle.loads(pickle.dumps(data))[(1, 3)], data[(1, 3)])
    assert not torch.equal(data[(0, 3)]["grid"], data[(1, 3)]["grid"])
    still = SimulatedPairs(choose_clips(film), counts, (24, 32), seed=1, augment=False)
    assert same(still[(0, 3)], still[(1, 3)])


def test_a_video_is_a_source_by_its_name(video, counts, tmp_path):
    by_name = SimulatedPairs(video, counts, (24, 32))
    assert len(by_name) == len(choose_clips(by_name.clips.film))
    parts = {
        split: open_source(video, split, counts, (24, 32), frames=tmp_path / "f", window_us=70_000)
        for split in ("train", "val")
    }
    assert {split: len(part) for split, part in parts.items()} == {"train": 23, "val": 3}  # by hand: 14 + 9 and 2 + 1
    assert sorted(file.name for file in (tmp_path / "f").iterdir()) == [".lock", "clips.json", "frames.bin"]
    with pytest.raises(ConfigError, match="pictures only"):
        SimulatedPairs(video, counts, (24, 32), flow=True)


def test_settings_of_clips_that_cannot_be_used_are_refused(film):
    with pytest.raises(ConfigError, match=r"held_out_shots has \[3\], but there are only shots 0…2"):
        choose_clips(film, held_out_shots=[3])
    for options in ({"window_us": 0}, {"shake_px": -1}, {"val_fraction": 1}, {"shake_px": float("nan")}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            choose_clips(film, **options)
    with pytest.raises(InputError, match="shorter window_us"):
        choose_clips(film, window_us=10**7)


def test_a_truncated_video_is_told_and_its_start_is_used(video, tmp_path, counts):
    path = tmp_path / "cut.avi"
    path.write_bytes(video.read_bytes()[: video.stat().st_size * 6 // 10])
    film = open_film(path)
    assert 10 < len(film.times) < 36
    collection = build_from_video(path, tmp_path / "c", progress=False)
    expected = f"cut.avi stops after {len(film.times)} of 36 frames: it is damaged or cut off there"
    assert film.problems == [expected] == SimulatedPairs(choose_clips(film), counts, (24, 32)).problems
    assert expected in collection.describe()["problems"]


def test_depth_beside_a_picture_is_seen_through_the_same_view(pictures, counts):
    (pictures / "depth").mkdir()
    depth = np.random.default_rng(0).uniform(1, 5, (60, 80)).astype(np.float32)
    depth = cv2.GaussianBlur(depth, (0, 0), 5)
    np.save(pictures / "depth" / "02.npy", depth)
    data = SimulatedPairs(pictures, counts, (24, 32), augment=False, seed=3)
    rng = np.random.default_rng([3, 0, 2])
    motion = int(rng.integers(2**31))
    view = centre_view(60, 80, (24, 32))
    from evlift.collection.pictures import read_picture

    seen = view.image(read_picture(image_files(pictures)[2].path, (24, 32))[0])
    flat = pair_from_image(seen, seed=motion).events
    deep = pair_from_image(seen, depth=view.labels(depth), seed=motion).events
    np.testing.assert_array_equal(data[2]["grid"].numpy(), counts(deep))
    assert not np.array_equal(counts(flat), counts(deep))
    planar = SimulatedPairs(pictures, counts, (24, 32), augment=False, seed=3, motion={"kind": "planar"})
    np.testing.assert_array_equal(planar[2]["grid"].numpy(), counts(flat))  # the depth is left alone


def test_the_flow_of_a_pair_comes_with_it(pictures, counts):
    data = SimulatedPairs(pictures, counts, (24, 32), augment=False, seed=3, flow=True)
    item = data[1]
    seen = np.ascontiguousarray(np.round(item["image"].numpy() * 255).astype(np.uint8).transpose(1, 2, 0))
    pair = pair_from_image(seen, seed=int(np.random.default_rng([3, 0, 1]).integers(2**31)))
    np.testing.assert_array_equal(counts(pair.events), item["grid"].numpy())
    np.testing.assert_array_equal(item["flow"].numpy(), pair.flow.transpose(2, 0, 1))
    np.testing.assert_array_equal(item["flow_mask"].numpy(), pair.mask)
    assert item["flow"].abs().max() > 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_any_worker_sets_aside_is_counted_once(pictures, counts, caplog):
    images = pictures / "images"
    (images / "00.jpg").write_bytes(b"nothing")  # its header tells
    whole = (images / "03.jpg").read_bytes()
    (images / "03.jpg").write_bytes(whole[:900])  # only its pixels tell
    cv2.imwrite(str(images / "06.png"), np.full((60, 80, 3), 77, np.uint8))  # no contrast
    (images / "06.jpg").unlink()
    cv2.imwrite(str(images / "07.png"), np.full((1, 1, 3), 77, np.uint8))
    (images / "07.jpg").unlink()
    for name in ("06.png", "07.png"):
        (pictures / "labels" / name).unlink()
    data = SimulatedPairs(pictures, counts, (24, 32), seed=1)
    assert data.set_aside == 1 and len(data) == 9 and "00.jpg" in data.problems[0]
    keys = [[(epoch, i) for i in range(9)] for epoch in (0, 1, 2)]
    batches = list(DataLoader(data, batch_sampler=keys, num_workers=2, timeout=60))
    assert data.set_aside == 4  # as the main process sees it, once each however often they were met
    assert all(torch.isfinite(batch["grid"]).all() and (batch["grid"].sum((1, 2, 3)) > 0).all() for batch in batches)
    caplog.clear()
    again = SimulatedPairs(pictures, counts, (24, 32), seed=1)
    assert same(again[(2, 5)], {k: v[5] for k, v in batches[2].items()})
    assert [r.message.split(",")[0] for r in caplog.records if "took the next" in r.message] == [
        "set aside 06.png",
        "set aside 07.png",
    ]
    assert "one flat colour" in caplog.text
    measured = SimulatedPairs(pictures, counts, (24, 32), seed=1, augment=False)
    item = measured[5]  # where pairs are measured, none stands in for another
    assert (item["image"] == item["image"][0, 0, 0]).all() and item["grid"].sum() == 0 and measured.set_aside == 1


def test_a_flood_of_bad_files_is_told_in_a_few_lines(tmp_path, make, counts, caplog):
    for i in range(30):
        make.save_jpeg(tmp_path / f"{i:02d}.jpg", make.photograph(i, 40, 50))
    for i in range(29):
        path = tmp_path / f"{i:02d}.jpg"
        path.write_bytes(path.read_bytes()[:700])
    data = SimulatedPairs(tmp_path, counts, (24, 32), seed=1)
    first = data[0]
    assert data.set_aside == 29 and first["index"] == 0 and first["grid"].sum() > 0
    assert len(caplog.records) == 5 and "further ones are only counted" in caplog.records[-1].message
    (tmp_path / "29.jpg").unlink()  # as when the disk goes away
    with pytest.raises(InputError, match="none of 30 pictures can be read any more; check the disk"):
        data[0]


def test_of_a_large_folder_only_some_headers_are_read(pictures, counts, monkeypatch):
    (pictures / "images" / "03.jpg").write_bytes(b"nothing")
    small = SimulatedPairs(pictures, counts, (24, 32), augment=False)
    assert len(small) == 9 and small.set_aside == 1
    monkeypatch.setattr(simulated, "CHECKED", 5)  # 00, 02, 04, 06, 08
    large = SimulatedPairs(pictures, counts, (24, 32), augment=False)
    assert len(large) == 10 and large.set_aside == 0 and not large.problems
    assert large.labelled
    item = large[3]
    assert large.set_aside == 1 and torch.equal(item["image"], large[4]["image"])
    cv2.imwrite(str(pictures / "labels" / "06.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match=r"06\.png is 9×9"):
        SimulatedPairs(pictures, counts, (24, 32))
    for i in (0, 2, 4, 6, 8):
        (pictures / "images" / f"{i:02d}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="none of 5 pictures can be read"):
        SimulatedPairs(pictures, counts, (24, 32))


def test_videos_that_cannot_be_used_are_refused_in_one_line(tmp_path, counts, video):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "head.avi").write_bytes(video.read_bytes()[:3000])
    for name in ("empty.mp4", "text.mp4", "head.avi"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
            SimulatedPairs(tmp_path / name, counts, (24, 32))
        assert "\n" not in str(caught.value)


def test_frame_times_are_honoured_where_they_are_uneven(film, counts, tmp_path):
    folder = tmp_path / "f"
    shutil.copytree(film.folder, folder)
    info = json.loads((folder / "clips.json").read_text())
    times = np.cumsum([0, *([10_000, 70_000] * 18)])[:36]
    info["times_us"] = times.tolist()
    (folder / "clips.json").write_text(json.dumps(info))
    from evlift.collection.clips import _read

    uneven = _read(folder, info["settings"])
    clips = choose_clips(uneven, window_us=100_000, shake_px=0)
    for first, frame in zip(clips.first, clips.frame, strict=True):
        assert times[first] <= times[frame] - 100_000 < times[first + 1]
    assert SimulatedPairs(clips, counts, (24, 32))[0]["grid"].sum() > 0
