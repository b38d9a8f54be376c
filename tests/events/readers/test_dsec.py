"""DSEC's layout, written here as https://dsec.ifi.uzh.ch/data-format/ has it; expected: the arrays written."""

import pickle
from pathlib import Path

import cv2
import h5py
import hdf5plugin
import numpy as np
import pytest

from evlift.errors import ConfigError, InputError
from evlift.events.readers import Problems, Stated, dsec
from evlift.events.readers.reader import Columns

OFFSET = 49_599_300_523  # µs of the day, as in the data set: t is relative to it
BYTES, BITS = hdf5plugin.Blosc.SHUFFLE, hdf5plugin.Blosc.BITSHUFFLE


def made(count: int = 150_000, seconds: float = 0.2, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, int(seconds * 1e6), count)).astype(np.uint32)
    return {
        "x": rng.integers(0, 640, count).astype(np.uint16),
        "y": rng.integers(0, 480, count).astype(np.uint16),
        "t": t,
        "p": rng.integers(0, 2, count).astype(np.uint8),
    }


def write(path: Path, events: dict[str, np.ndarray], chunk: int = 8192, offset: int | None = OFFSET, **blosc) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    filters = hdf5plugin.Blosc(**({"cname": "zstd", "clevel": 1, "shuffle": BYTES} | blosc))
    with h5py.File(path, "w") as file:
        for name, values in events.items():
            file.create_dataset(f"events/{name}", data=values, chunks=(chunk,), maxshape=(None,), **filters)
        t = events["t"].astype(np.int64)
        ends = np.arange(int(t[-1]) // 1000 + 2) * 1000 if len(t) else np.zeros(1)
        file["ms_to_idx"] = np.array([np.count_nonzero(t < end) for end in ends], np.uint64)
        if offset is not None:
            file["t_offset"] = np.int64(offset)
    return path


def read(reader, problems: Problems | None = None) -> Columns:
    problems = Problems() if problems is None else problems
    parts = list(reader.columns(problems))
    assert all(len(part.t) <= 1 << 20 for part in parts)
    assert [part.done for part in parts] == sorted(part.done for part in parts)
    if not parts:
        return Columns(*(np.zeros(0, dtype) for dtype in (np.uint16, np.uint16, np.int64, bool)))
    return Columns(*(np.concatenate([part[k] for part in parts]) for k in range(4)))


def assert_equal(columns: Columns, events: dict[str, np.ndarray], keep=slice(None), offset: int = OFFSET) -> None:
    assert [c.dtype for c in columns[:4]] == [np.uint16, np.uint16, np.int64, np.bool_]
    np.testing.assert_array_equal(columns.x, events["x"][keep])
    np.testing.assert_array_equal(columns.y, events["y"][keep])
    np.testing.assert_array_equal(columns.t, events["t"][keep].astype(np.int64) + offset)
    np.testing.assert_array_equal(columns.p, events["p"][keep] == 1)


@pytest.mark.parametrize("shuffle", [BYTES, BITS, hdf5plugin.Blosc.NOSHUFFLE])
@pytest.mark.parametrize("chunk", [1000, 2048, 65536])
def test_every_event_comes_out_as_it_was_written(tmp_path, chunk, shuffle):
    events = made(100_000)
    reader = dsec.open_reader(write(tmp_path / "events.h5", events, chunk, shuffle=shuffle), "dsec", Stated())
    problems = Problems()
    assert_equal(read(reader, problems), events)
    assert problems.lines() == []
    assert (reader.height, reader.width, reader.format) == (480, 640, "dsec")
    assert reader.files == (tmp_path / "events.h5",)


@pytest.mark.parametrize("codec", ["lz4", "blosclz", "zlib"])
def test_other_codecs_of_blosc_are_left_to_its_filter(tmp_path, codec):
    events = made(30_000)
    assert_equal(read(dsec.open_reader(write(tmp_path / "e.h5", events, cname=codec), "dsec", Stated())), events)


def test_values_that_cannot_be_compressed_are_read_too(tmp_path):
    rng = np.random.default_rng(3)
    events = made(30_000) | {"x": rng.integers(0, 65536, 30_000).astype(np.uint16)}
    assert_equal(read(dsec.open_reader(write(tmp_path / "e.h5", events), "dsec", Stated())), events)


def test_uncompressed_and_gzip_datasets_are_read_too(tmp_path):
    events = made(5000)
    for name, options in (("plain.h5", {}), ("gzip.h5", {"compression": "gzip", "chunks": (777,)})):
        with h5py.File(tmp_path / name, "w") as file:
            for key, values in events.items():
                file.create_dataset(f"events/{key}", data=values, **options)
            file["t_offset"], file["ms_to_idx"] = np.int64(OFFSET), np.zeros(1, np.uint64)
        assert_equal(read(dsec.open_reader(tmp_path / name, "dsec", Stated())), events)


@pytest.mark.parametrize("shuffle", [BYTES, BITS])
def test_windows_are_those_of_a_mask_over_all_events(tmp_path, shuffle):
    events = made()
    t = events["t"].astype(np.int64)
    reader = dsec.open_reader(write(tmp_path / "events.h5", events, shuffle=shuffle), "dsec", Stated())
    rng = np.random.default_rng(1)
    bounds = [
        (0, 0),
        (-5000, 10),
        (0, 1),
        (199_000, 900_000),
        (300_000, 400_000),
        (1000, 2000),
        (999, 2001),
        (0, 1 << 40),
    ]
    bounds += [tuple(sorted(rng.integers(-1000, 201_000, 2).tolist())) for _ in range(30)]
    for t0, t1 in bounds:
        window = reader.window(OFFSET + t0, OFFSET + t1)
        assert_equal(window, events, (t >= t0) & (t < t1))
    with pytest.raises(InputError, match="ends"):
        reader.window(2, 1)


def test_a_reader_travels_to_a_worker_process(tmp_path):
    events = made(9000)
    reader = dsec.open_reader(write(tmp_path / "events.h5", events), "dsec", Stated())
    before = reader.window(OFFSET, OFFSET + 50_000)
    after = pickle.loads(pickle.dumps(reader)).window(OFFSET, OFFSET + 50_000)
    np.testing.assert_array_equal(before.t, after.t)


def test_an_empty_recording_gives_no_events(tmp_path):
    reader = dsec.open_reader(write(tmp_path / "events.h5", made(0)), "dsec", Stated())
    assert len(read(reader).t) == 0 and len(reader.window(OFFSET, OFFSET + 1000).t) == 0


def test_a_sequence_gives_its_stream_its_map_and_its_images_with_their_exposure(tmp_path):
    left, right = made(4000, seed=1), made(4000, seed=2)
    sequence = tmp_path / "zurich_city_09_a"
    write(sequence / "events/left/events.h5", left)
    write(sequence / "events/right/events.h5", right)
    grid = np.stack(np.meshgrid(np.arange(640.0), np.arange(480.0)), axis=-1).astype(np.float32) + 0.25
    with h5py.File(sequence / "events/left/rectify_map.h5", "w") as file:
        file["rectify_map"] = grid
    pictures = sequence / "images/left/rectified"
    pictures.mkdir(parents=True)
    colour = np.zeros((6, 8, 3), np.uint8)
    colour[..., 0], colour[..., 1] = 200, 30  # red, some green
    for k in range(3):
        cv2.imwrite(str(pictures / f"{k:06d}.png"), colour[..., ::-1])
    (sequence / "images/left/exposure_timestamps.txt").write_text(
        "# exposure_start_timestamp_us, exposure_end_timestamp_us\n"
        + "".join(f"{OFFSET + 50_000 * k}, {OFFSET + 50_000 * k + 4_000 + k}\n" for k in range(3))
    )
    assert dsec.matches(sequence, b"") == "dsec"
    reader = dsec.open_reader(sequence, "dsec", Stated())
    assert_equal(read(reader), left)
    assert_equal(read(dsec.open_reader(sequence, "dsec", Stated(stream="right"))), right)
    assert [file.name for file in reader.files] == [
        *("events.h5", "rectify_map.h5", "exposure_timestamps.txt", "rectified"),
    ]
    np.testing.assert_array_equal(reader.rectify_map, grid)
    assert dsec.open_reader(sequence, "dsec", Stated(stream="right")).rectify_map is None
    frames = list(reader.frames(Problems()))
    assert [(f.t_us - OFFSET, f.exposure_us) for f in frames] == [(0, 4000), (50_000, 4001), (100_000, 4002)]
    np.testing.assert_array_equal(frames[0].image, colour)
    # Without exposures the file of image times serves: the middle of each, so the exposure is unknown.
    (sequence / "images/left/exposure_timestamps.txt").unlink()
    with pytest.raises(InputError, match="timestamps"):
        list(reader.frames(Problems()))
    (sequence / "images/timestamps.txt").write_text(f"{OFFSET + 7}\n{OFFSET + 50_007}\n")
    (pictures / "000001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    problems = Problems()
    assert [(f.t_us - OFFSET, f.exposure_us) for f in reader.frames(problems)] == [(7, 0)]
    assert problems.lines() == [
        "1 × image or time without its other half, left out",
        "1 × image that cannot be read, left out",
    ]
    (sequence / "images/timestamps.txt").write_text("# t\nfour\n")
    with pytest.raises(InputError, match=r"timestamps\.txt, line 2"):
        list(reader.frames(Problems()))


def test_a_folder_of_one_side_and_a_file_on_its_own_have_no_images(tmp_path):
    events = made(100)
    path = write(tmp_path / "side/events.h5", events)
    assert dsec.matches(tmp_path / "side", b"") == "dsec"
    reader = dsec.open_reader(tmp_path / "side", "dsec", Stated())
    assert reader.path == path and list(reader.frames(Problems())) == []
    with pytest.raises(InputError, match="no events/right"):
        dsec.open_reader(path.parent.parent, "dsec", Stated(stream="right"))
    with pytest.raises(ConfigError, match="left or right"):
        dsec.open_reader(path, "dsec", Stated(stream="middle"))


def test_the_same_layout_of_another_camera_needs_its_size(tmp_path):
    events = made(100)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        for name, values in events.items():
            file[f"events/{name}"] = values
    reader = dsec.open_reader(tmp_path / "other.h5", "dsec", Stated())
    assert (reader.height, reader.width, reader.sensor) == (None, None, "")
    assert_equal(read(reader), events, offset=0)
    assert dsec.open_reader(tmp_path / "other.h5", "dsec", Stated(size=(720, 1280))).width == 1280
    with pytest.raises(InputError, match="ms_to_idx"):
        reader.window(0, 1000)


def test_what_matches_is_what_has_the_columns(tmp_path):
    path = write(tmp_path / "events.h5", made(10))
    head = path.read_bytes()[:4096]
    assert dsec.matches(path, head) == "dsec"
    assert dsec.matches(path, b"not HDF5") is None
    assert dsec.matches(tmp_path, b"") == "dsec" and dsec.matches(tmp_path / "none", b"") is None
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["events/x"] = [1]
    assert dsec.matches(tmp_path / "other.h5", head) is None
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:3000])
    assert dsec.matches(tmp_path / "cut.h5", head) is None


def test_a_file_that_is_cut_short_says_at_which_byte(tmp_path):
    path = write(tmp_path / "events.h5", made(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    with pytest.raises(InputError, match=f"cut short at byte 5000 of {len(whole)}"):
        dsec.open_reader(path, "dsec", Stated())
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be opened as HDF5"):
        dsec.open_reader(path, "dsec", Stated())


@pytest.mark.parametrize("part", ["header", "frame"])
def test_a_damaged_chunk_costs_its_own_events_and_is_counted(tmp_path, part):
    events = made(80_000)
    path = write(tmp_path / "events.h5", events, 8192)
    with h5py.File(path) as file:
        chunk = file["events/y"].id.get_chunk_info_by_coord((3 * 8192,))
    data = bytearray(path.read_bytes())
    first_block = int.from_bytes(data[chunk.byte_offset + 16 : chunk.byte_offset + 20], "little")
    at = chunk.byte_offset + (4 if part == "header" else first_block + 4)  # bytes when decoded, or zstd's magic number
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)
    problems = Problems()
    reader = dsec.open_reader(path, "dsec", Stated())
    keep = np.ones(80_000, bool)
    keep[3 * 8192 : 4 * 8192] = False
    assert_equal(read(reader, problems), events, keep)
    assert problems.lines()[0] == (
        f"8192 × event in a damaged part of the file, left out (first at byte {chunk.byte_offset})"
    )
    assert "events/y from row 24576" in problems.lines()[1]
    middle = OFFSET + int(events["t"][3 * 8192 + 100])
    with pytest.raises(InputError, match=f"byte {chunk.byte_offset}"):
        reader.window(middle, middle + 1000)


def test_lengths_that_differ_and_claims_that_nothing_backs_are_cut_and_counted(tmp_path):
    events = made(20_000)
    path = write(tmp_path / "events.h5", events, 1000)
    with h5py.File(path, "a") as file:
        file["events/p"].resize((15_500,))
        for name in "xyt":
            file[f"events/{name}"].resize((10**15,))
    problems = Problems()
    assert_equal(read(dsec.open_reader(path, "dsec", Stated()), problems), events, slice(15_500))
    assert problems.lines()[0].startswith(f"{10**15 - 15_500} × row that is claimed but not stored")


def test_a_hole_between_chunks_is_a_loss_not_zeros(tmp_path):
    events = made(9000)
    path = tmp_path / "events.h5"
    with h5py.File(path, "w") as file:
        for name, values in events.items():
            dataset = file.create_dataset(f"events/{name}", (9000,), values.dtype, chunks=(1000,))
            dataset[:4000], dataset[5000:] = values[:4000], values[5000:]
        file["t_offset"], file["ms_to_idx"] = np.int64(OFFSET), np.zeros(1, np.uint64)
    problems = Problems()
    keep = np.r_[0:4000, 5000:8000]  # nine chunks are claimed and eight stored: the last is taken for lost, too
    assert_equal(read(dsec.open_reader(path, "dsec", Stated()), problems), events, keep)
    lines = "\n".join(problems.lines())
    assert (
        "1000 × event in a damaged part of the file" in lines and "1000 × row that is claimed but not stored" in lines
    )


def test_an_index_that_does_not_fit_is_refused(tmp_path):
    path = write(tmp_path / "events.h5", made(20_000))
    for damage, message in (
        (lambda i: i + 10**9, "outside the events"),
        (lambda i: i[::-1], "ms_to_idx"),
        (lambda i: i // 2, "does not fit"),
    ):
        with h5py.File(path, "a") as file:
            index = file["ms_to_idx"][:]
            file["ms_to_idx"][:] = damage(index)
        with pytest.raises(InputError, match=message):
            dsec.open_reader(path, "dsec", Stated()).window(OFFSET + 50_000, OFFSET + 60_000)
        with h5py.File(path, "a") as file:
            file["ms_to_idx"][:] = index


@pytest.mark.parametrize("what", ["shape", "kind", "group", "offset"])
def test_datasets_of_another_make_are_refused_in_one_line(tmp_path, what):
    path = write(tmp_path / "events.h5", made(100))
    with h5py.File(path, "a") as file:
        if what == "offset":
            del file["t_offset"]
            file["t_offset"] = 1.5
        else:
            del file["events/t"]
            if what == "group":
                file.create_group("events/t")
            else:
                file["events/t"] = np.zeros((100, 2), np.uint32) if what == "shape" else np.zeros(100)
    with pytest.raises(InputError, match="t_offset" if what == "offset" else "events/t") as caught:
        dsec.open_reader(path, "dsec", Stated())
    assert "\n" not in str(caught.value) and "; " in str(caught.value)


def test_the_other_camera_is_told_of(tmp_path):
    events = {side: made(1000 + k) for k, side in enumerate(("left", "right"))}
    for side in events:
        write(tmp_path / "events" / side / "events.h5", events[side])
    for stream, side, expected in ((None, "left", 1), ("left", "left", 0), ("right", "right", 0)):
        problems = Problems()
        assert_equal(read(dsec.open_reader(tmp_path, "dsec", Stated(stream=stream)), problems), events[side])
        assert len(problems) == expected and all("right, not read" in line for line in problems.lines())
    (tmp_path / "events" / "left" / "events.h5").unlink()
    with pytest.raises(InputError, match="give --stream right"):
        dsec.open_reader(tmp_path, "dsec", Stated())
