"""DDD17 and DDD20: packets written here as record.py of SensorsINI/ddd20-utils stores them, headers by struct."""

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from evlift.errors import InputError
from evlift.events.readers import Problems, Stated, ddd

SYSTEM_US = 1_487_333_001_000_000


def header(kind: int, size: int, overflow: int, capacity: int, number: int) -> bytes:
    return struct.pack("<hhiiiiii", kind, 1, size, 4, overflow, capacity, number, number)


def polarity(
    events: list[tuple[int, int, int, int]], overflow: int = 0, spare: int = 0, invalid: int = 0
) -> tuple[bytes, bytes]:
    """A packet of (t, x, y, p), with ``spare`` unused places behind; the first ``invalid`` events are marked so."""
    body = b"".join(
        struct.pack("<Ii", x << 17 | y << 2 | p << 1 | (k >= invalid), t) for k, (t, x, y, p) in enumerate(events)
    )
    return header(1, 8, overflow, len(events) + spare, len(events)), body + bytes(8 * spare)


def frame(start: int, stop: int, pixels: np.ndarray, overflow: int = 0, channels: int = 1) -> tuple[bytes, bytes]:
    height, width = pixels.shape
    body = (
        struct.pack("<I8i", 1 | channels << 1, start - 5, stop + 5, start, stop, width, height, 0, 0) + pixels.tobytes()
    )
    return header(2, len(body), overflow, 1, 1), body


def write(path: Path, packets: list[tuple[bytes, bytes]], spare: int = 100) -> Path:
    """Rows as the recorder makes them: ``spare`` empty ones at the end."""
    row = h5py.special_dtype(vlen=np.uint8)
    with h5py.File(path, "w") as file:
        shape = (len(packets) + spare, 3)
        data = file.create_dataset("dvs/data", shape, row, maxshape=(None, 3), chunks=(128, 3))
        times = file.create_dataset("dvs/timestamp", shape[:1], np.int64)
        for i, (head, body) in enumerate(packets):
            for k, part in enumerate((str(SYSTEM_US + i).encode(), head, body)):
                data[i, k] = np.frombuffer(part, np.uint8)
            times[i] = SYSTEM_US + i
    return path


def read(path: Path, format: str = "ddd") -> tuple[list[tuple[int, int, int, int]], list[str]]:
    problems = Problems()
    parts = list(ddd.open_reader(path, format, Stated()).columns(problems))
    rows = [row for part in parts for row in zip(*(c.tolist() for c in (part.t, part.x, part.y, part.p)), strict=True)]
    return rows, problems.lines()


def test_events_of_many_packets_across_the_overflow_of_the_clock(tmp_path):
    a = [(100, 0, 0, 1), (100, 345, 259, 0), (2**31 - 1, 17, 3, 1)]
    b = [(5, 345, 0, 0), (6, 0, 259, 1)]
    imu = (header(3, 36, 0, 1, 1), bytes(36))
    special = (header(0, 8, 0, 1, 1), bytes(8))
    path = write(tmp_path / "rec.hdf5", [special, polarity(a, spare=4), imu, polarity(b, overflow=1)])
    expected = a + [(t + 2**31, x, y, p) for t, x, y, p in b]
    assert read(path) == (expected, [])
    reader = ddd.open_reader(path, "ddd", Stated())
    assert (reader.height, reader.width, reader.sensor) == (260, 346, "DAVIS346B")


def test_a_long_recording_comes_in_chunks(tmp_path):
    events = [(k, k % 346, k % 260, k & 1) for k in range(4000)]
    big = polarity(events)
    path = write(tmp_path / "rec.hdf5", [big] * 300, spare=0)
    parts = list(ddd.open_reader(path, "ddd", Stated()).columns(Problems()))
    assert len(parts) == 2 and max(len(part.t) for part in parts) <= 1 << 20
    assert sum(len(part.t) for part in parts) == 300 * 4000 and parts[-1].done == 1.0
    np.testing.assert_array_equal(np.concatenate([p.t for p in parts]), np.tile(np.arange(4000), 300))


def test_frames_have_their_exposure_and_the_upper_byte_of_each_pixel(tmp_path):
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 65536, (260, 346)).astype(np.uint16) for _ in range(4)]
    packets = [
        frame(1000, 3500, pixels[0]),
        frame(500, 900, pixels[1]),  # an image that steps back
        frame(10, 30, pixels[2], overflow=1),
        frame(50, 60, pixels[3], overflow=1, channels=3),
        (header(2, 136, 1, 1, 1), bytes(136)),
    ]
    problems = Problems()
    frames = list(ddd.open_reader(write(tmp_path / "rec.hdf5", packets), "ddd", Stated()).frames(problems))
    assert [(f.t_us, f.exposure_us) for f in frames] == [(1000, 2500), (2**31 + 10, 20)]
    np.testing.assert_array_equal(frames[0].image, pixels[0] // 256)
    assert frames[0].image.dtype == np.uint8
    assert problems.lines() == [
        "1 × image that steps back in time, left out",
        "2 × image that is damaged or not grey, left out",
    ]


def test_damaged_packets_are_counted_and_the_rest_is_kept(tmp_path):
    good = [(1, 2, 3, 1)]
    packets = [
        polarity(good),
        (b"\x01\x00", b""),  # no header
        (header(1, 0, 0, 1, 1), bytes(8)),  # events of 0 bytes
        (header(1, 8, -1, 1, 1), bytes(8)),  # the clock before its start
        (header(1, 16, 0, 1, 1), bytes(16)),
        (header(1, 8, 0, 2**31 - 1, 2**31 - 1), struct.pack("<Ii", 9 << 17 | 1, 77)),  # more events than bytes
        polarity([(5, 1, 1, 1), (6, 1, 2, 0)], invalid=1),
    ]
    rows, lines = read(write(tmp_path / "rec.hdf5", packets))
    assert rows == [(1, 2, 3, 1), (77, 9, 0, 0), (6, 1, 2, 0)]
    assert lines == [
        "1 × packet without its header, left out",
        "2 × packet with a damaged header, left out",
        "1 × polarity packet with events of 16 bytes, left out",
        "2147483646 × event beyond the end of its packet, lost",
        "1 × event that is marked invalid, set aside",
    ]


def test_damage_to_the_heap_is_counted_with_its_place(tmp_path):
    packets = [polarity([(10 * k + j, j, k, 1) for j in range(400)]) for k in range(6)]
    path = write(tmp_path / "rec.hdf5", packets, spare=0)
    whole = path.read_bytes()
    second = whole.index(b"GCOL", whole.index(b"GCOL") + 4)
    path.write_bytes(whole[:second] + b"GONE" + whole[second + 4 :])
    rows, lines = read(path)
    expected, _ = read(write(tmp_path / "good.hdf5", packets, spare=0))
    assert 0 < len(rows) < len(expected) and set(rows) < set(expected)
    assert lines == [f"{6 - len(rows) // 400} × packet that cannot be read, left out (first at byte {second})"] or (
        lines == [f"1 × packet that cannot be read, left out (at byte {second})"]
    )
    # A heap that claims more bytes than the file has is refused.
    for size in (2**63, 2**40):
        path.write_bytes(whole[: second + 8] + size.to_bytes(8, "little") + whole[second + 16 :])
        assert "packet that cannot be read" in read(path)[1][0]


def test_the_export_is_unwrapped_and_says_how_exact_its_image_times_are(tmp_path):
    t = np.array([2**31 - 3, 2**31 - 1, 4, 9], np.uint32)
    with h5py.File(tmp_path / "rec.hdf5.exported.hdf5", "w") as file:
        file["event"] = np.stack([t, [0, 345, 1, 2], [259, 0, 3, 4], [1, 0, 1, 0]], axis=1).astype(np.uint32)
        file["frame"] = np.arange(2, dtype=np.uint8)[:, None, None] * np.ones((260, 346), np.uint8)
        file["frame_ts"] = np.array([[100.5], [100.53]], np.float32)
    path = tmp_path / "rec.hdf5.exported.hdf5"
    assert ddd.matches(path, path.read_bytes()[:4096]) == "ddd-export"
    rows, lines = read(path, "ddd-export")
    assert rows == [(2**31 - 3, 0, 259, 1), (2**31 - 1, 345, 0, 0), (2**31 + 4, 1, 3, 1), (2**31 + 9, 2, 4, 0)]
    assert lines == ["1 × wrap of the 31-bit clock, undone"]
    problems = Problems()
    frames = list(ddd.open_reader(path, "ddd-export", Stated()).frames(problems))
    assert [f.t_us for f in frames] == [100_500_000, round(float(np.float32(100.53)) * 1e6)]
    assert frames[1].image.max() == 1
    assert problems.lines() == ["image times are those of the export: end of the image, exact to 8 µs"]


def test_what_matches_and_what_is_refused(tmp_path):
    path = write(tmp_path / "rec.hdf5", [polarity([(1, 2, 3, 1)])])
    head = path.read_bytes()[:4096]
    assert ddd.matches(path, head) == "ddd"
    assert ddd.matches(path, b"") is None and ddd.matches(tmp_path, b"") is None
    with h5py.File(tmp_path / "text.hdf5", "w") as file:
        file.create_dataset("dvs/data", (2, 3), h5py.string_dtype())
        file["dvs/timestamp"] = [1, 2]
    with pytest.raises(InputError, match="does not hold bytes"):
        ddd.open_reader(tmp_path / "text.hdf5", "ddd", Stated())
    row = h5py.special_dtype(vlen=np.uint8)
    with h5py.File(tmp_path / "packed.hdf5", "w") as file:
        file.create_dataset("dvs/data", (200, 3), row, chunks=(128, 3), compression="gzip")
    with pytest.raises(InputError, match="h5repack"):
        ddd.open_reader(tmp_path / "packed.hdf5", "ddd", Stated())
    with pytest.raises(InputError, match="no dataset dvs/data"):
        ddd.open_reader(_empty(tmp_path / "none.hdf5"), "ddd", Stated())


def _empty(path: Path) -> Path:
    h5py.File(path, "w").close()
    return path
