"""DAT against a plain decoder written from the specification, and against other libraries.

https://docs.prophesee.ai/stable/data/file_formats/dat.html
"""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import InputError
from evlift.events.readers import dat, raw
from evlift.events.readers.reader import Problems, Reader, Stated

SAMPLES = Path(__file__).resolve().parents[4] / "shared" / "data" / "formats"
HEADER = "% Data file containing CD events\n% Date 2020-09-14 14:18:29\n% Version 2\n% Width 640\n% Height 480\n"


def write(path: Path, events: list[tuple[int, int, int, int]], header: str = HEADER, kind: bytes = b"\x0c\x08") -> Path:
    """Events as (x, y, t, p), Version 2."""
    body = b"".join(struct.pack("<II", t % (1 << 32), x | y << 14 | p << 28) for x, y, t, p in events)
    path.write_bytes(header.encode() + kind + body)
    return path


def read(path: Path, stated: Stated | None = None) -> tuple[dat.DatReader, list, list[str]]:
    with open(path, "rb") as file:
        head = file.read(4096)
    assert dat.matches(path, head) == "dat" and raw.matches(path, head) is None
    reader, problems, rows = dat.open_reader(path, "dat", stated or Stated()), Problems(), []
    assert isinstance(reader, Reader) and reader.format == "dat"
    for part in reader.columns(problems):
        assert (part.x.dtype, part.y.dtype, part.t.dtype, part.p.dtype) == (np.uint16, np.uint16, np.int64, np.bool_)
        rows += zip(*(c.tolist() for c in part[:4]), strict=True)
    return reader, [(x, y, t, int(p)) for x, y, t, p in rows], problems.lines()


def test_sample_is_the_reference_array_and_what_two_other_decoders_read() -> None:
    path = SAMPLES / "sample.dat"
    if not path.is_file():
        pytest.skip(f"the real recording sample.dat is not here ({SAMPLES})")
    reader, events, problems = read(path)
    assert problems == [] and len(events) == 4407
    assert (reader.height, reader.width) == (None, None)  # its header does not say
    reference = np.load(SAMPLES / "sample_dat.npy")
    assert events == list(zip(*(reference[name].tolist() for name in "xytp"), strict=True))
    wizard = pytest.importorskip("expelliarmus").Wizard(encoding="dat").read(path)
    assert events == list(zip(*(wizard[name].tolist() for name in "xytp"), strict=True))
    with pytest.importorskip("evutils.io").EventReader(path) as other:
        array = other.read_all()
    assert events == list(zip(*(np.asarray(getattr(array, name)).tolist() for name in "xytp"), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 16383), st.integers(0, 16383), st.integers(0, (1 << 32) - 1), st.integers(0, 1)),
        max_size=20,
    )
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, events: list) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any.dat", events)
    expected, last, turns = [], None, 0
    for x, y, t, p in events:  # a step of more than half the counter's range is a wrap
        turns += 0 if last is None else (last - t > 1 << 31) - (t - last > 1 << 31)
        last = t
        expected.append((x, y, t + (turns << 32), p))
    assert read(path)[1] == expected


@pytest.mark.parametrize("count", [dat.BLOCK - 1, dat.BLOCK, dat.BLOCK + 1, 2 * dat.BLOCK + 7])
def test_the_clock_wraps_anywhere_also_between_blocks(tmp_path: Path, count: int) -> None:
    """100 ms an event from 10 s before the half of the counter on: it passes 2^31, then 2^32, then 2^31 again …"""
    t = (1 << 31) - 10_000_000 + 100_000 * np.arange(count)
    words = np.zeros((count, 2), "<u4")
    words[:, 0], words[:, 1] = t % (1 << 32), np.arange(count) % 640
    path = tmp_path / "a.dat"
    path.write_bytes(HEADER.encode() + b"\x0c\x08" + words.tobytes())
    problems = Problems()
    parts = list(dat.open_reader(path, "dat", Stated()).columns(problems))
    assert np.array_equal(np.concatenate([part.t for part in parts]), t)
    assert np.array_equal(np.concatenate([part.x for part in parts]), np.arange(count) % 640)
    assert problems.lines() == [f"{t[-1] >> 32} × wrap of the 32-bit clock, undone"]
    assert parts[-1].done == 1


def test_time_that_runs_back_a_little_is_left_to_others(tmp_path: Path) -> None:
    events = [(1, 2, 1000, 0), (1, 2, 900, 1), (1, 2, 1100, 0)]
    assert read(write(tmp_path / "a.dat", events))[1:] == (events, [])


def test_version_1_has_narrower_fields(tmp_path: Path) -> None:
    words = [(7, 303 | 239 << 9 | 1 << 17), (8, 511 | 255 << 9), (9, 0xFFFC0000)]  # what lies above is not read
    body = b"".join(struct.pack("<II", *word) for word in words)
    (tmp_path / "a.dat").write_bytes(b"% Data file containing Event2d events\n% Version 1\n\x00\x08" + body)
    assert read(tmp_path / "a.dat")[1:] == ([(303, 239, 7, 1), (511, 255, 8, 0), (0, 0, 9, 0)], [])


def test_size_is_what_the_user_says_or_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dat", [(1, 2, 3, 1)])
    reader, _, problems = read(path)
    assert (reader.height, reader.width, problems) == (480, 640, [])
    reader, _, _ = read(path, Stated(size=(240, 304)))
    assert (reader.height, reader.width) == (240, 304)
    reader, events, problems = read(write(path, [(1, 2, 3, 1)], HEADER.replace("640", "-1")))
    assert (reader.height, reader.width, events) == (None, None, [(1, 2, 3, 1)])
    assert problems == ["the header gives width '-1' and height '480'; ignored"]


def test_odd_polarity_and_a_cut_event_are_counted_with_their_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dat", [(1, 2, 3, 1), (1, 2, 4, 15), (1, 2, 5, 2)])
    path.write_bytes(path.read_bytes() + b"\x01\x02\x03")
    start = len(HEADER) + 2
    _, events, problems = read(path)
    assert events == [(1, 2, 3, 1), (1, 2, 4, 1), (1, 2, 5, 0)]
    assert problems == [
        f"1 × last event cut short, dropped (at byte {start + 24})",
        f"2 × polarity above 1, read by its lowest bit (first at byte {start + 8})",
    ]


def test_every_cut_gives_the_events_before_it(tmp_path: Path) -> None:
    events = [(1, 2, 3, 1), (4, 5, 6, 0)]
    data = write(tmp_path / "a.dat", events).read_bytes()
    start = len(HEADER) + 2
    for end in range(start, len(data) + 1):
        (tmp_path / "a.dat").write_bytes(data[:end])
        _, found, problems = read(tmp_path / "a.dat")
        assert found == events[: (end - start) // 8] and bool(problems) == bool((end - start) % 8)
    for end in range(start):
        (tmp_path / "a.dat").write_bytes(data[:end])
        with pytest.raises(InputError, match=r"at byte \d+|\(byte \d+\)"):
            dat.open_reader(tmp_path / "a.dat", "dat", Stated())


@pytest.mark.parametrize(
    ("header", "kind", "message"),
    [
        (HEADER, b"\x0e\x08", "external triggers"),
        (HEADER, b"\x0c\x10", "type 12 and 16 bytes"),
        (HEADER, b"\x28\x08", "type 40 and 8 bytes"),
        (HEADER.replace("Version 2", "Version 7"), b"\x0c\x08", "has Version '7'"),
        (HEADER.replace("% Version 2\n", ""), b"\x0c\x08", "has no Version"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, header: str, kind: bytes, message: str) -> None:
    path = write(tmp_path / "a.dat", [(1, 2, 3, 1)], header, kind)
    with pytest.raises(InputError, match=message) as caught:
        dat.open_reader(path, "dat", Stated())
    assert "byte" in str(caught.value) and ";" in str(caught.value)


def test_foreign_content_is_not_ours(tmp_path: Path) -> None:
    for head in (b"", b"% ", b"% evt 3.0\n\x00\x80", b"x y t p\n", b"% a b\n" * 20_000, HEADER.encode()):
        assert dat.matches(tmp_path, head) is None
    with pytest.raises(InputError, match="cannot be read"):
        dat.open_reader(tmp_path / "none.dat", "dat", Stated())
