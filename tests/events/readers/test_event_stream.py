"""Event Stream (.es) against a slow decoder and bytes worked out by hand from the specification, version 2.0
(https://github.com/neuromorphic-paris/event_stream), and against faery where it is installed."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import InputError
from evlift.events.readers import event_stream
from evlift.events.readers.reader import Problems, Stated

SAMPLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "formats" / "dvs.es"


def header(kind=1, width=320, height=240, version=(2, 0, 0)):
    return b"Event Stream" + bytes(version) + bytes([kind]) + struct.pack("<HH", width, height)


def write_dvs(t, x, y, p, height):
    """The bytes after the header; y runs down here and up in the file."""
    out, last = bytearray(), 0
    for ti, xi, yi, pi in zip(t, x, y, p, strict=True):
        wait, last = ti - last, ti
        out += b"\xff" * (wait // 127)
        out += struct.pack("<BHH", wait % 127 << 1 | pi, xi, height - 1 - yi)
    return bytes(out)


def slow(data):
    """Events of a DVS file as (t, x, y down, p), byte by byte."""
    height = int.from_bytes(data[18:20], "little")
    events, at, t = [], 20, 0
    while at < len(data):
        if data[at] == 0xFF:
            t, at = t + 127, at + 1
        elif data[at] == 0xFE:
            at += 1
        elif at + 5 <= len(data):
            t += data[at] >> 1
            y = height - 1 - (data[at + 3] + 256 * data[at + 4])
            events.append((t, data[at + 1] + 256 * data[at + 2], y % 65536, data[at] & 1))
            at += 5
        else:
            break
    return events


def read(path, stated=None):
    reader, problems = event_stream.open_reader(path, "es", stated or Stated()), Problems()
    chunks = list(reader.columns(problems))
    assert all(0 < len(c.t) <= event_stream.CHUNK for c in chunks)
    assert all(c.x.dtype == c.y.dtype == np.uint16 and c.t.dtype == np.int64 and c.p.dtype == bool for c in chunks)
    assert list(reader.frames(problems)) == []
    events = [tuple(map(int, e)) for c in chunks for e in zip(c.t, c.x, c.y, c.p, strict=True)]
    return reader, events, problems.lines(), [c.done for c in chunks]


def written(tmp_path, data):
    path = tmp_path / "a.es"
    path.write_bytes(data)
    return path


def test_bytes_worked_out_by_hand(tmp_path):
    events = bytes.fromhex("0b 3f01 ef00  ff ff fe fe 02 0000 0000  fd 0100 0200")
    reader, found, lines, done = read(written(tmp_path, header() + events))
    # 5 µs, ON, x 319, top row; 2 · 127 + 1 µs later OFF in the lower left corner; 126 µs later ON
    assert found == [(5, 319, 0, 1), (260, 0, 239, 0), (386, 1, 237, 1)]
    assert (reader.height, reader.width, reader.sensor, lines, done) == (240, 320, "", [], [1.0])
    assert event_stream.matches(tmp_path / "x", header()) == "es"
    assert event_stream.matches(tmp_path / "x", b"") is None


def test_an_atis_gives_its_events_and_counts_its_measurements(tmp_path):
    events = bytes.fromhex("fc 0e 0100 0200  09 0300 0400  fd fe ff  f8 0500 0600")
    # reset; 3 µs, bit 1 set: ON; 2 µs, a measurement; 63 + 126 + 189 µs; 62 µs, OFF
    reader, found, lines, _ = read(written(tmp_path, header(2, 304, 240) + events))
    assert found == [(3, 1, 237, 1), (445, 5, 233, 0)]
    assert lines == ["1 × measurement of exposure by the ATIS, left out"]
    assert (reader.sensor, reader.width) == ("ATIS", 304)


@st.composite
def streams(draw):
    height, width = draw(st.sampled_from([(240, 320), (1, 1), (720, 1280), (65535, 65535)]))
    gaps = draw(st.lists(st.sampled_from([0, 0, 1, 5, 126, 127, 128, 254, 1000]), max_size=60))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    n = len(gaps)
    x, y, p = (rng.integers(0, size, n).tolist() for size in (width, height, 2))
    return np.cumsum(gaps).tolist(), x, y, p, height, width


@settings(max_examples=80, deadline=None)
@given(streams(), st.sampled_from([1, 2, 3, 7, 1 << 20]), st.integers(0, 4))
def test_what_is_written_is_read_whatever_the_chunks(tmp_path_factory, stream, chunk, cut):
    t, x, y, p, height, width = stream
    data = header(1, width, height) + write_dvs(t, x, y, p, height)
    path = written(tmp_path_factory.mktemp("es"), data[: len(data) - cut] if t else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_stream, "CHUNK", chunk)
        _, found, lines, done = read(path)
    whole = list(zip(t, x, y, p, strict=True))
    assert found == slow(path.read_bytes()) == whole[: len(whole) - bool(cut and t)]
    assert done == sorted(done)
    if t and cut:
        assert lines == [f"1 × event cut short by the end of the file, set aside (at byte {len(data) - 5})"]
    else:
        assert lines == []


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_what_the_slow_decoder_gives(tmp_path_factory, data):
    path = written(tmp_path_factory.mktemp("es"), header() + data)
    assert read(path)[1] == slow(path.read_bytes())


def test_a_stated_size_is_taken_and_rows_still_turn_about_the_files_own(tmp_path):
    path = written(tmp_path, header() + write_dvs([1], [2], [3], [1], 240))
    reader, found, _, _ = read(path, Stated(size=(480, 640)))
    assert (reader.height, reader.width) == (480, 640)
    assert found == [(1, 2, 3, 1)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header()[:10], "no Event Stream header at byte 0"),
        (header()[:17], "ends at byte 17"),
        (header(version=(3, 0, 0)), r"version 3 \(byte 12\)"),
        (header(4), r"colour events \(byte 15\)"),
        (header(9), r"type 9 events \(byte 15\)"),
        (header(width=0), "0×240 pixels at byte 16"),
    ],
)
def test_headers_that_cannot_be_read_say_where(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        event_stream.open_reader(written(tmp_path, data), "es", Stated())


def test_a_file_without_events_has_none(tmp_path):
    assert read(written(tmp_path, header()))[1:3] == ([], [])


@pytest.fixture
def sample():
    if not SAMPLE.exists():
        pytest.skip(f"{SAMPLE} is not here")
    return SAMPLE


def test_the_sample_is_what_the_slow_decoder_reads(sample):
    reader, found, lines, _ = read(sample)
    assert (len(found), reader.height, reader.width, lines) == (473_225, 240, 320, [])
    assert found == slow(sample.read_bytes())
    assert found[-1][0] == 999_000


def test_the_sample_is_what_faery_reads(sample):
    faery = pytest.importorskip("faery")
    theirs = faery.events_stream_from_file(sample).to_array()
    columns = list(event_stream.open_reader(sample, "es", Stated()).columns(Problems()))
    for name, other in zip("txyp", ("t", "x", "y", "on"), strict=True):
        np.testing.assert_array_equal(np.concatenate([getattr(c, name) for c in columns]), theirs[other])
