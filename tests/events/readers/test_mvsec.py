"""MVSEC's layout, written here as its loaders read it; expected values are computed from what was written."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from evlift.errors import ConfigError, InputError
from evlift.events.readers import Problems, Stated, mvsec

START = 1_506_117_912  # s since the epoch, as in outdoor_day


def write(path: Path, count: int = 5000, seed: int = 0, sides=("left", "right")) -> dict[str, np.ndarray]:
    """Events and images of both cameras; returns the left camera's events in whole µs."""
    kept = {}
    with h5py.File(path, "w") as file:
        for k, side in enumerate(sides):
            rng = np.random.default_rng(seed + k)
            us = np.sort(rng.integers(0, 2_000_000, count)) + START * 1_000_000
            events = np.stack(
                [rng.integers(0, 346, count), rng.integers(0, 260, count), us / 1e6, rng.choice([-1.0, 1.0], count)],
                axis=1,
            )
            group = file.create_group(f"davis/{side}")
            group.create_dataset("events", data=events, chunks=(1024, 4), compression="gzip")
            group["image_raw"] = np.arange(3 * 260 * 346, dtype=np.uint64).reshape(3, 260, 346).astype(
                np.uint8
            ) + np.uint8(k)
            group["image_raw_ts"] = START + np.array([0.1, 0.2, 0.3])
            group["image_raw_event_inds"] = np.searchsorted(us, (START + np.array([0.1, 0.2, 0.3])) * 1e6)
            kept[side] = np.concatenate([events[:, :2].astype(np.int64), us[:, None], events[:, 3:] > 0], axis=1)
    return kept


def test_events_come_out_to_the_microsecond(tmp_path):
    kept = write(tmp_path / "day_data.hdf5")
    for side in ("left", "right"):
        reader = mvsec.open_reader(tmp_path / "day_data.hdf5", "mvsec", Stated(stream=f"davis/{side}"))
        problems = Problems()
        parts = list(reader.columns(problems))
        x, y, t, p = (np.concatenate([part[k] for part in parts]) for k in range(4))
        assert (x.dtype, y.dtype, t.dtype, p.dtype) == (np.uint16, np.uint16, np.int64, np.bool_)
        np.testing.assert_array_equal(np.stack([x, y, t, p], axis=1), kept[side])
        assert problems.lines() == [] and parts[-1].done == 1.0
    assert (reader.height, reader.width, reader.clock) == (260, 346, "Unix epoch")


def test_times_are_rounded_to_the_nearest_microsecond_not_down(tmp_path):
    with h5py.File(tmp_path / "a_data.hdf5", "w") as file:
        seconds = np.array([1_506_117_912.123456, 1_506_117_912.123457, 1_506_117_912.999999])
        file["davis/left/events"] = np.stack([np.ones(3), np.ones(3), seconds, np.ones(3)], axis=1)
    (part,) = mvsec.open_reader(tmp_path / "a_data.hdf5", "mvsec", Stated()).columns(Problems())
    assert part.t.tolist() == [1_506_117_912_123_456, 1_506_117_912_123_457, 1_506_117_912_999_999]


def test_images_of_the_stream_or_the_one_asked_for(tmp_path):
    write(tmp_path / "a_data.hdf5")
    frames = list(mvsec.open_reader(tmp_path / "a_data.hdf5", "mvsec", Stated()).frames(Problems()))
    assert [f.t_us - START * 1_000_000 for f in frames] == [100_000, 200_000, 300_000]
    assert frames[0].image.shape == (260, 346) and frames[0].image[0, :5].tolist() == [0, 1, 2, 3, 4]
    right = mvsec.open_reader(tmp_path / "a_data.hdf5", "mvsec", Stated(image_stream="right")).frames(Problems())
    assert next(iter(right)).image[0, :5].tolist() == [1, 2, 3, 4, 5]


def test_what_is_no_number_is_set_aside_and_no_pixel_is_outside(tmp_path):
    rows = np.array(
        [
            [1, 2, START, 1],
            [3, 4, np.nan, 1],
            [5, 6, np.inf, -1],
            [-1, 2, START, 1],
            [7, 1e9, START, -1],
            [np.nan, 1, START, 1],
        ]
    )
    with h5py.File(tmp_path / "a_data.hdf5", "w") as file:
        file["davis/left/events"] = rows
    problems = Problems()
    (part,) = mvsec.open_reader(tmp_path / "a_data.hdf5", "mvsec", Stated()).columns(problems)
    assert part.x.tolist() == [1, 65535, 7, 65535] and part.y.tolist() == [2, 2, 65535, 1]
    assert problems.lines() == ["2 × event without a time (not a number, or out of all bounds), set aside"]


def test_ground_truth_and_absent_streams_say_what_to_give(tmp_path):
    with h5py.File(tmp_path / "day_gt.hdf5", "w") as file:
        file["davis/left/depth_image_raw"] = np.zeros((1, 260, 346), np.float32)
    head = (tmp_path / "day_gt.hdf5").read_bytes()[:4096]
    assert mvsec.matches(tmp_path / "day_gt.hdf5", head) == "mvsec"
    with pytest.raises(InputError, match=r"\*_data\.hdf5"):
        mvsec.open_reader(tmp_path / "day_gt.hdf5", "mvsec", Stated())
    write(tmp_path / "left_data.hdf5", sides=("left",))
    with pytest.raises(InputError, match="--stream davis/left"):
        mvsec.open_reader(tmp_path / "left_data.hdf5", "mvsec", Stated(stream="right"))
    with pytest.raises(ConfigError, match="davis/left or davis/right"):
        mvsec.open_reader(tmp_path / "left_data.hdf5", "mvsec", Stated(stream="visensor"))
    assert mvsec.matches(tmp_path / "left_data.hdf5", b"text") is None


def test_a_damaged_chunk_costs_its_own_events(tmp_path):
    kept = write(tmp_path / "a_data.hdf5")
    with h5py.File(tmp_path / "a_data.hdf5") as file:
        chunk = file["davis/left/events"].id.get_chunk_info_by_coord((2048, 0))
    data = bytearray((tmp_path / "a_data.hdf5").read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + 40] = b"\0" * 40
    (tmp_path / "a_data.hdf5").write_bytes(data)
    problems = Problems()
    parts = list(mvsec.open_reader(tmp_path / "a_data.hdf5", "mvsec", Stated()).columns(problems))
    t = np.concatenate([part.t for part in parts])
    np.testing.assert_array_equal(t, np.delete(kept["left"][:, 2], np.s_[2048:3072]))
    assert (
        problems.lines()[0]
        == f"1024 × event in a damaged part of the file, left out (first at byte {chunk.byte_offset})"
    )


def test_damaged_image_times_and_unequal_lengths(tmp_path):
    write(tmp_path / "a_data.hdf5")
    with h5py.File(tmp_path / "a_data.hdf5", "a") as file:
        del file["davis/left/image_raw_ts"]
        file["davis/left/image_raw_ts"] = START + np.array([0.2, 0.1])
    problems = Problems()
    frames = list(mvsec.open_reader(tmp_path / "a_data.hdf5", "mvsec", Stated()).frames(problems))
    assert [f.t_us - START * 1_000_000 for f in frames] == [100_000, 200_000]
    assert frames[0].image[0, 0] == (260 * 346) % 256  # the second image, whose time comes first
    assert problems.lines() == ["1 × image or time without its other half in davis/left/image_raw, left out"]
    with h5py.File(tmp_path / "a_data.hdf5", "a") as file:
        file["davis/left/image_raw_ts"][0] = np.nan
    with pytest.raises(InputError, match="no time"):
        list(mvsec.open_reader(tmp_path / "a_data.hdf5", "mvsec", Stated()).frames(Problems()))


def test_the_other_camera_is_told_of(tmp_path):
    write(tmp_path / "day_data.hdf5")
    for stream, expected in ((None, 1), ("left", 0)):
        problems = Problems()
        for _ in mvsec.open_reader(tmp_path / "day_data.hdf5", "mvsec", Stated(stream=stream)).columns(problems):
            pass
        assert len(problems) == expected and all("davis/right, not read" in line for line in problems.lines())
