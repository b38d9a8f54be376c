"""From settings to data sets."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from evlift.config import DataConfig
from evlift.errors import ConfigError
from evlift.represent import VoxelGrid
from evlift.train.source import open_pairs


def pictures(folder, count=4):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (64, 48)))
    return folder


def test_motion_settings_reach_the_simulator(tmp_path):
    data = DataConfig(source=str(pictures(tmp_path / "p")), size=(32, 48), val_fraction=0.5)
    plain, _ = open_pairs(data, VoxelGrid(3), tmp_path, seed=0)
    layered, held_out = open_pairs(replace(data, motion={"layers": 2}), VoxelGrid(3), tmp_path, seed=0)
    assert layered.motion["layers"] == 2 and held_out["val"].motion["layers"] == 2
    assert not np.array_equal(plain[0]["grid"], layered[0]["grid"])
    with pytest.raises(ConfigError, match="layer"):
        open_pairs(replace(data, motion={"layer": 2}), VoxelGrid(3), tmp_path, seed=0)


def video(path, frames=24):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    big = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 24, 3), np.uint8), (160, 48))
    for i in range(frames):
        writer.write(np.ascontiguousarray(big[:, 3 * i : 3 * i + 64]))
    writer.release()
    return path


def test_a_video_on_the_fly_has_the_splits_of_its_collection(tmp_path):
    data = DataConfig(source=str(video(tmp_path / "v.mp4")), size=(32, 48), window_us=80_000)
    stored, stored_val = open_pairs(data, VoxelGrid(3), tmp_path / "a", seed=0)
    live, live_val = open_pairs(replace(data, on_the_fly=True), VoxelGrid(3), tmp_path / "b", seed=0)
    assert (len(live), len(live_val["val"])) == (len(stored), len(stored_val["val"]))
    assert (tmp_path / "a" / "collection").is_dir() and not (tmp_path / "b" / "collection").exists()
    assert np.array_equal(live_val["val"][0]["grid"], live_val["val"][(0, 0)]["grid"])
    assert float(live_val["val"][0]["grid"].abs().sum()) > 0
