"""M3ED's layout, written here as https://m3ed.io/data_overview/datafiles/ and its rosbag2hdf5.py have it."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from evlift.errors import ConfigError, InputError
from evlift.events.readers import Problems, Stated, m3ed


def write(path: Path, count: int = 90_000) -> dict[str, np.ndarray]:
    """Both cameras, three images of each imager; returns the left camera's events."""
    kept = {}
    with h5py.File(path, "w") as file:
        for k, side in enumerate(("left", "right")):
            rng = np.random.default_rng(k)
            events = {
                "x": rng.integers(0, 1280, count).astype(np.uint16),
                "y": rng.integers(0, 720, count).astype(np.uint16),
                "t": np.sort(rng.integers(0, 120_000, count)).astype(np.int64),
                "p": rng.integers(0, 2, count).astype(np.int8),
            }
            group = file.create_group(f"prophesee/{side}")
            for name, values in events.items():
                group.create_dataset(name, data=values, compression="lzf", chunks=(40_000,), maxshape=(None,))
            group["ms_map_idx"] = np.searchsorted(events["t"], np.arange(120) * 1000).astype(np.uint64)
            calib = group.create_group("calib")
            calib["intrinsics"], calib["distortion_coeffs"] = [1000.0, 1001.0, 640.0, 360.0], [0.1, -0.2, 0.0, 0.0]
            calib["resolution"], calib["camera_model"], calib["distortion_model"] = [1280, 720], "pinhole", "radtan"
            calib["T_to_prophesee_left"] = np.eye(4)
            kept[side] = events
        file["ovc/ts"] = np.array([0, 40_000, 80_000], np.int64)
        file["ovc/ts_map_prophesee_left_t"] = np.searchsorted(kept["left"]["t"], [0, 40_000, 80_000]).astype(np.uint64)
        for name, channels in (("left", 1), ("right", 1), ("rgb", 3)):
            images = np.zeros((3, 80, 128, channels), np.uint8)
            images += np.arange(3, dtype=np.uint8)[:, None, None, None] * 10 + np.arange(channels, dtype=np.uint8)
            file.create_dataset(f"ovc/{name}/data", data=images, compression="lzf", chunks=(1, 80, 128, channels))
    return kept


@pytest.mark.parametrize("side", ["left", "right"])
def test_events_come_out_as_they_were_written(tmp_path, side):
    kept = write(tmp_path / "car_data.h5")[side]
    reader = m3ed.open_reader(tmp_path / "car_data.h5", "m3ed", Stated(stream=f"prophesee/{side}"))
    problems = Problems()
    parts = list(reader.columns(problems))
    for k, (name, dtype) in enumerate((("x", np.uint16), ("y", np.uint16), ("t", np.int64), ("p", np.bool_))):
        got = np.concatenate([part[k] for part in parts])
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, kept[name])
    assert problems.lines() == [] and parts[-1].done == 1.0
    assert (reader.height, reader.width) == (720, 1280)
    assert reader.calibration == {
        "intrinsics": [1000.0, 1001.0, 640.0, 360.0],
        "distortion_coeffs": [0.1, -0.2, 0.0, 0.0],
        "resolution": [1280, 720],
        "camera_model": "pinhole",
        "distortion_model": "radtan",
        "T_to_prophesee_left": np.eye(4).tolist(),
    }


def test_images_are_grey_by_default_and_the_colour_camera_is_put_in_order(tmp_path):
    write(tmp_path / "car_data.h5")
    frames = list(m3ed.open_reader(tmp_path / "car_data.h5", "m3ed", Stated()).frames(Problems()))
    assert [f.t_us for f in frames] == [0, 40_000, 80_000] and [f.image[3, 5] for f in frames] == [0, 10, 20]
    assert frames[0].image.shape == (80, 128) and frames[0].exposure_us == 0
    colour = m3ed.open_reader(tmp_path / "car_data.h5", "m3ed", Stated(image_stream="ovc/rgb")).frames(Problems())
    assert [f.image[0, 0].tolist() for f in colour] == [[2, 1, 0], [12, 11, 10], [22, 21, 20]]  # written as BGR


def test_a_damaged_chunk_of_one_column_costs_its_own_events(tmp_path):
    kept = write(tmp_path / "car_data.h5")["left"]
    with h5py.File(tmp_path / "car_data.h5") as file:
        chunk = file["prophesee/left/t"].id.get_chunk_info_by_coord((40_000,))
    data = bytearray((tmp_path / "car_data.h5").read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    (tmp_path / "car_data.h5").write_bytes(data)
    problems = Problems()
    parts = list(m3ed.open_reader(tmp_path / "car_data.h5", "m3ed", Stated()).columns(problems))
    np.testing.assert_array_equal(np.concatenate([p.x for p in parts]), np.delete(kept["x"], np.s_[40_000:80_000]))
    assert problems.lines()[0].startswith("40000 × event in a damaged part of the file, left out (first at byte")


def test_what_matches_and_what_is_refused(tmp_path):
    write(tmp_path / "car_data.h5", 100)
    head = (tmp_path / "car_data.h5").read_bytes()[:4096]
    assert m3ed.matches(tmp_path / "car_data.h5", head) == "m3ed"
    with h5py.File(tmp_path / "car_depth_gt.h5", "w") as file:
        file["depth/prophesee/left"] = np.zeros((1, 4, 4), np.float32)
    assert m3ed.matches(tmp_path / "car_depth_gt.h5", head) is None and m3ed.matches(tmp_path, b"") is None
    with pytest.raises(InputError, match=r"\*_data\.h5"):
        m3ed.open_reader(tmp_path / "car_depth_gt.h5", "m3ed", Stated())
    with pytest.raises(ConfigError, match="prophesee/left, prophesee/right"):
        m3ed.open_reader(tmp_path / "car_data.h5", "m3ed", Stated(stream="middle"))
    with h5py.File(tmp_path / "car_data.h5", "a") as file:
        del file["prophesee/left/calib"], file["ovc"]
    reader = m3ed.open_reader(tmp_path / "car_data.h5", "m3ed", Stated(stream="left"))
    assert reader.calibration is None and (reader.height, reader.width) == (720, 1280)
    assert list(reader.frames(Problems())) == []


def test_the_other_camera_is_told_of(tmp_path):
    write(tmp_path / "car_data.h5")
    for stream, expected in ((None, 1), ("left", 0)):
        problems = Problems()
        for _ in m3ed.open_reader(tmp_path / "car_data.h5", "m3ed", Stated(stream=stream)).columns(problems):
            pass
        assert len(problems) == expected and all("prophesee/right, not read" in line for line in problems.lines())
