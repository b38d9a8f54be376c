"""AEDAT4 against the `aedat` package on a real recording and on files of a writer made from the specification
(https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-4.0.html, ioheader.fbs, events.fbs,
frame.fbs of dv-processing, and https://flatbuffers.dev/internals)."""

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import ConfigError, InputError
from evlift.events.readers import aedat4
from evlift.events.readers.reader import Problems, Stated

SAMPLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "formats" / "davis346.aedat4"
MAGIC = b"#!AER-DAT4.0\r\n"
EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("on", "?"), ("_", "V3")])
COMPRESSION = {"none": 0, "lz4": 1, "lz4_high": 2, "zstd": 3, "zstd_high": 4}


def flatbuffer(identifier, fields):
    """A size-prefixed FlatBuffer of one table. Fields: (letter of struct, number), (bytes, elements) or None."""
    inline, place = [0] * len(fields), 4
    for i, field in enumerate(fields):
        if field is not None:
            size = 4 if isinstance(field[0], bytes) else struct.calcsize("<" + field[0])
            place = -(-place // size) * size
            inline[i], place = place, place + size
    vtable = struct.pack(f"<HH{len(fields)}H", 4 + 2 * len(fields), place, *inline)
    table = 8 + len(vtable)
    table += -(table + 4) % 8  # multiples of 8 from the prefix on
    out = bytearray(struct.pack("<I4s", table, identifier) + vtable)
    out += bytes(table - len(out)) + struct.pack("<i", table - 8) + bytes(place - 4)
    for i, field in enumerate(fields):
        if field is None:
            continue
        at = table + inline[i]
        if isinstance(field[0], bytes):
            out += bytes(-len(out) % 8)  # prefix, length and padding: elements lie at multiples of 8
            struct.pack_into("<I", out, at, len(out) - at)
            out += struct.pack("<I", field[1]) + field[0]
        else:
            struct.pack_into("<" + field[0], out, at, field[1])
    return struct.pack("<I", len(out)) + bytes(out)


def event_packet(t, x, y, p):
    events = np.zeros(len(t), EVENT)
    events["t"], events["x"], events["y"], events["on"] = t, x, y, p
    return flatbuffer(b"EVTS", [(events.tobytes(), len(t))])


def frame_packet(image, start=0, end=0, middle=0, format=None, x=0, y=0, exposure=None):
    """`image` in the file's order of channels."""
    height, width = image.shape[:2]
    if format is None:
        format = {2: 0, 3: 16}[image.ndim] if image.shape[2:] != (4,) else 24
    times = [("q", v) if v else None for v in (middle, start, end, start, end)]
    numbers = [("b", format), ("h", width), ("h", height), ("h", x), ("h", y)]
    tail = [] if exposure is None else [("q", exposure)]
    return flatbuffer(b"FRME", [*times, *numbers, (image.tobytes(), image.size), *tail])


def pack(content, compression):
    codec = compression.partition("_")[0]
    return content if codec == "none" else pa.Codec(codec).compress(content).to_pybytes()


def header_xml(streams):
    """`streams`: {number: (type, height, width, source)}; a height of None leaves the size out."""
    nodes = ""
    for number, (type, height, width, source) in streams.items():
        size = "" if height is None else (
            f'<attr key="sizeX" type="int">{width}</attr><attr key="sizeY" type="int">{height}</attr>'
        )  # fmt: skip
        nodes += (
            f'<node name="{number}" path="/mainloop/Recorder/outInfo/{number}/">'
            f'<attr key="typeIdentifier" type="string">{type}</attr><node name="info" path="/">'
            f'{size}<attr key="source" type="string">{source}</attr></node></node>'
        )
    return f'<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">{nodes}</node></dv>'


STREAMS = {0: ("EVTS", 260, 346, "DAVIS346_1"), 1: ("FRME", 260, 346, "DAVIS346_1"), 2: ("IMUS", None, None, "")}


def write_aedat4(path, packets, compression="lz4", streams=STREAMS, table=True, xml=None):
    """`packets`: (stream, size-prefixed FlatBuffer) each; returns the byte offsets of the packets and of the end."""
    xml = (header_xml(streams) if xml is None else xml).encode()
    packed = [(stream, pack(content, compression)) for stream, content in packets]
    for position in (-1, 0):  # the second time with the table's place, which needs the header's length
        fields = [("i", COMPRESSION[compression]), ("q", position), (xml + b"\0", len(xml))]
        head = MAGIC + flatbuffer(b"IOHE", fields)
        places = np.cumsum([len(head), *(8 + len(content) for _, content in packed)]).tolist()
        if not table:
            break
        fields[1] = ("q", places[-1])
        head = MAGIC + flatbuffer(b"IOHE", fields)
    with open(path, "wb") as file:
        file.write(head)
        for stream, content in packed:
            file.write(struct.pack("<ii", stream, len(content)) + content)
        if table:
            file.write(pack(flatbuffer(b"FTAB", [None]), compression))
    return places


def write_events(path, n, packet=8192, seed=0, compression="lz4"):
    """A recording of `n` events like a moving scene's, for timing: they compress about 2:1, as the real ones do."""
    rng = np.random.default_rng(seed)
    packets = []
    for start in range(0, n, packet):
        m = min(packet, n - start)
        t = 1_600_000_000_000_000 + start + np.sort(rng.integers(0, m, m))
        x = np.clip(rng.normal(170, 60, m), 0, 345).astype(int)
        y = np.clip(rng.normal(130, 40, m), 0, 259).astype(int)
        packets.append((0, event_packet(t, x, y, rng.integers(0, 2, m))))
    return write_aedat4(path, packets, compression)


def some_events(n, seed=0, start=1_600_000_000_000_000):
    rng = np.random.default_rng(seed)
    return (
        start + np.sort(rng.integers(0, 50_000, n)),
        rng.integers(0, 346, n),
        rng.integers(0, 260, n),
        rng.random(n) < 0.5,
    )


def read(path, stated=None):
    reader, problems = aedat4.open_reader(path, "aedat4", stated or Stated()), Problems()
    chunks = list(reader.columns(problems))
    assert all(0 < len(c.t) <= aedat4.PIECE for c in chunks)
    assert all(c.x.dtype == c.y.dtype == np.uint16 and c.t.dtype == np.int64 and c.p.dtype == bool for c in chunks)
    assert [c.done for c in chunks] == sorted(c.done for c in chunks)
    columns = tuple(np.concatenate([getattr(c, name) for c in chunks] or [[]]) for name in "txyp")
    return columns, problems.lines()


def read_frames(path, stated=None):
    problems = Problems()
    return list(aedat4.open_reader(path, "aedat4", stated or Stated()).frames(problems)), problems.lines()


def assert_events(found, *parts):
    for column, name in zip(found, range(4), strict=True):
        np.testing.assert_array_equal(column, np.concatenate([part[name] for part in parts] or [[]]))


@pytest.fixture
def sample():
    if not SAMPLE.exists():
        pytest.skip(f"{SAMPLE} is not here")
    return SAMPLE


def compare_with_aedat(path):
    """Every event and every pixel of the `aedat` package; how many events and frames there were."""
    aedat = pytest.importorskip("aedat")
    packets = list(aedat.Decoder(path))
    events = np.concatenate([p["events"] for p in packets if "events" in p])
    found, lines = read(path)
    assert lines == []
    assert_events(found, [events[name] for name in ("t", "x", "y", "on")])
    frames, lines = read_frames(path)
    assert lines == []
    theirs = [p["frame"] for p in packets if "frame" in p]
    assert len(frames) == len(theirs)
    for mine, other in zip(frames, theirs, strict=True):
        np.testing.assert_array_equal(
            mine.image, other["pixels"][..., :3] if other["pixels"].ndim == 3 else other["pixels"]
        )
        assert (mine.t_us, mine.t_us + mine.exposure_us) == (other["exposure_begin_t"], other["exposure_end_t"])
    return len(events), len(frames)


def test_the_sample_equals_the_aedat_package(sample):
    assert compare_with_aedat(sample) == (117_667, 3)
    reader = aedat4.open_reader(sample, "aedat4", Stated())
    assert (reader.height, reader.width, reader.sensor) == (260, 346, "DAVIS346_00000104")
    assert (reader.clock, reader.format, reader.files) == ("Unix epoch", "aedat4", (sample,))
    frames = [(f.t_us, f.exposure_us, f.image.shape) for f in read_frames(sample)[0]]
    assert frames == [(1_633_953_690_976_518 + t, 4773, (260, 346)) for t in (0, 40_000, 80_000)]
    assert aedat4.matches(sample, sample.read_bytes()[:4096]) == "aedat4"
    assert aedat4.matches(sample, b"#!AER-DAT3.1\r\n") is None


@pytest.mark.parametrize("compression", COMPRESSION)
@pytest.mark.parametrize("table", [True, False])
def test_what_is_written_is_read_and_is_what_the_aedat_package_reads(tmp_path, compression, table):
    rng = np.random.default_rng(1)
    parts = [some_events(n, seed=n) for n in (1000, 1, 0, 4000)]
    grey, colour = rng.integers(0, 256, (260, 346), np.uint8), rng.integers(0, 256, (260, 346, 3), np.uint8)
    packets = [(0, event_packet(*part)) for part in parts]
    packets.insert(1, (1, frame_packet(grey, 100, 150)))
    packets.insert(2, (2, flatbuffer(b"IMUS", [(b"", 0)])))
    packets.append((1, frame_packet(colour, 200, 290)))
    write_aedat4(tmp_path / "a", packets, compression, table=table)
    found, lines = read(tmp_path / "a")
    assert lines == []
    assert_events(found, *parts)
    frames, lines = read_frames(tmp_path / "a")
    assert lines == []
    assert [(f.t_us, f.exposure_us) for f in frames] == [(100, 50), (200, 90)]
    np.testing.assert_array_equal(frames[0].image, grey)
    np.testing.assert_array_equal(frames[1].image, colour[..., ::-1])  # BGR in the file
    compare_with_aedat(tmp_path / "a")


def test_chunks_end_where_they_must(tmp_path, monkeypatch):
    parts = [some_events(n, seed=n) for n in (10, 23, 1, 7)]
    write_aedat4(tmp_path / "a", [(0, event_packet(*part)) for part in parts])
    for chunk in (1, 4, 10, 41, 100):
        monkeypatch.setattr(aedat4, "PIECE", chunk)
        assert_events(read(tmp_path / "a")[0], *parts)


def test_coordinates_outside_and_odd_polarities_are_handed_on(tmp_path):
    write_aedat4(tmp_path / "a", [(0, event_packet([5, 3], [-1, 400], [0, -2], [1, 0]))])
    found, lines = read(tmp_path / "a")
    assert [c.tolist() for c in found] == [[5, 3], [65535, 400], [0, 65534], [True, False]]
    assert lines == []


def test_frames_of_every_kind(tmp_path):
    rng = np.random.default_rng(2)
    bgra = rng.integers(0, 256, (260, 346, 4), np.uint8)
    part = rng.integers(1, 256, (20, 30), np.uint8)
    packets = [
        frame_packet(bgra, 100, 120),
        frame_packet(part, 200, 200, x=316, y=7),
        frame_packet(part, middle=1000, exposure=301, x=1),  # a newer file: middle and length of exposure
        frame_packet(part, middle=2000),
        frame_packet(part, 150, 160),
        frame_packet(np.zeros((260, 346, 2), np.uint8), 3000, 3000, format=2),
        frame_packet(part, 3000, 3000, x=317),
        frame_packet(part, 3000, 3000, format=16),
    ]
    places = write_aedat4(tmp_path / "a", [(1, packet) for packet in packets])
    frames, lines = read_frames(tmp_path / "a")
    assert [(f.t_us, f.exposure_us) for f in frames] == [(100, 20), (200, 0), (850, 301), (2000, 0)]
    np.testing.assert_array_equal(frames[0].image, bgra[..., [2, 1, 0]])
    whole = np.zeros((260, 346), np.uint8)
    whole[7:27, 316:346] = part
    np.testing.assert_array_equal(frames[1].image, whole)
    assert lines == [
        f"1 × frame earlier than the one before it, set aside (at byte {places[4]})",
        f"1 × frame in pixel format 2, of which evlift reads 0, 16 and 24, set aside (at byte {places[5]})",
        f"1 × frame that reaches outside the sensor, set aside (at byte {places[6]})",
        f"1 × frame that is damaged, set aside (at byte {places[7]})",
    ]


def test_one_of_several_streams_is_chosen_and_the_others_are_told(tmp_path):
    streams = {
        0: ("FRME", 10, 20, "a"),
        3: ("EVTS", 480, 640, "left"),
        5: ("EVTS", 260, 346, "right"),
        7: ("FRME", 10, 20, ""),
    }
    one, two = some_events(10, 1), some_events(20, 2)
    image = np.full((10, 20), 9, np.uint8)
    packets = [(3, event_packet(*one)), (5, event_packet(*two)), (7, frame_packet(image, 5, 5))]
    write_aedat4(tmp_path / "a", packets, streams=streams)
    found, lines = read(tmp_path / "a")
    assert_events(found, one)
    assert lines == ["event stream 5 (right) left out; choose it with --stream 5"]
    found, lines = read(tmp_path / "a", Stated(stream="5"))
    assert_events(found, two)
    assert lines == ["event stream 3 (left) left out; choose it with --stream 3"]
    reader = aedat4.open_reader(tmp_path / "a", "aedat4", Stated(stream="5"))
    assert (reader.height, reader.width, reader.sensor) == (260, 346, "right")
    frames, lines = read_frames(tmp_path / "a", Stated(image_stream="7"))
    assert (len(frames), lines) == (1, ["image stream 0 (a) left out; choose it with --image_stream 0"])
    with pytest.raises(ConfigError, match=r"no EVTS stream '7'; choose 3 or 5"):
        read(tmp_path / "a", Stated(stream="7"))
    with pytest.raises(ConfigError, match=r"no FRME stream 'x'; choose 0 or 7"):
        read(tmp_path / "a", Stated(image_stream="x"))


def test_sizes_come_from_the_user_or_the_file_or_stay_unknown(tmp_path):
    write_aedat4(tmp_path / "a", [], streams={0: ("EVTS", None, None, "")})
    for stated, size in ((Stated(), (None, None)), (Stated(size=(4, 5)), (4, 5))):
        reader = aedat4.open_reader(tmp_path / "a", "aedat4", stated)
        assert (reader.height, reader.width) == size
    assert read(tmp_path / "a")[1] == []


def test_a_file_with_frames_only(tmp_path):
    places = write_aedat4(
        tmp_path / "a",
        [(1, frame_packet(np.ones((2, 2), np.uint8), 1, 2))],
        streams={1: ("FRME", 2, 2, "")},
        table=False,
    )
    assert read(tmp_path / "a")[1] == ["there is no event stream"]
    data = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(data[: places[0]] + b"gap" + data[places[0] :])
    frames, lines = read_frames(tmp_path / "a")
    assert len(frames) == 1
    assert lines == [f"1 × stretch that is no whole packet, passed over (at byte {places[0]})"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d[:16], "header at byte 14 that the file is too short for"),
        (lambda d: d[:14] + b"\xff\xff\xff\x7f" + d[18:], "header at byte 14 that the file is too short for"),
        (lambda d: d[:22] + b"XXXX" + d[26:], "damaged header at byte 14"),
        (lambda d: d[:18] + b"\xff\xff\xff\xff" + d[22:], "damaged header at byte 14"),
        (lambda d: d.replace(b"</dv>", b"</dx>"), "damaged list of streams"),
        (lambda d: d.replace(b'<dv version="2.0">', b"<!DOCTYPE x[ ]>   "), "damaged list of streams"),
        (lambda d: d.replace(b">346<", b">3x6<"), "damaged list of streams"),
        (lambda d: d.replace(b"EVTS", b"XXXX").replace(b"FRME", b"XXXX"), "neither an event nor a frame stream"),
    ],
)
def test_headers_that_cannot_be_read_say_where(tmp_path, damage, message):
    write_aedat4(tmp_path / "a", [])
    (tmp_path / "a").write_bytes(damage((tmp_path / "a").read_bytes()))
    with pytest.raises(InputError, match=message):
        aedat4.open_reader(tmp_path / "a", "aedat4", Stated())


def test_an_unknown_compression_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(COMPRESSION, "none", 5)
    write_aedat4(tmp_path / "a", [], "none")
    with pytest.raises(InputError, match="compression 5"):
        aedat4.open_reader(tmp_path / "a", "aedat4", Stated())


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_damage_costs_the_packets_it_is_in_and_is_told(tmp_path, compression):
    parts = [some_events(100, seed=n) for n in range(6)]
    packets = [(0, event_packet(*part)) for part in parts]
    packets.insert(2, (2, flatbuffer(b"IMUS", [(bytes(400), 100)])))  # at places[2]
    places = write_aedat4(tmp_path / "a", packets, compression)
    data = (tmp_path / "a").read_bytes()

    def damaged(at, new):
        (tmp_path / "a").write_bytes(data[:at] + new + data[at + len(new) :])
        return read(tmp_path / "a")

    a, b, c, d, e, f = parts
    size = struct.pack("<i", struct.unpack_from("<i", data, places[3] + 4)[0])

    found, lines = damaged(places[3] + 8, bytes(24))  # no mark of a packet: everything to the next one is passed over
    assert_events(found, a, b, d, e, f)
    assert lines == [f"1 × stretch that is no whole packet, passed over (at byte {places[3]})"]

    found, lines = damaged(places[3], struct.pack("<i", 77))  # a stream that is not in the header
    assert_events(found, a, b, d, e, f)
    assert lines == [f"1 × stretch that is no whole packet, passed over (at byte {places[3]})"]

    for wrong in (-1, 0, 13, len(data), 2**31 - 1):
        found, lines = damaged(places[3] + 4, struct.pack("<i", wrong))
        assert_events(found, a, b, d, e, f)
        assert len(lines) == 1 and lines[0].endswith(f"(at byte {places[3]})")

    if compression != "none":  # there the size is in the packet twice, so that it cannot be wrong unnoticed
        wrong = struct.unpack("<i", size)[0] + 50
        found, lines = damaged(places[3] + 4, struct.pack("<i", wrong))
        assert_events(found, a, b, d, e, f)
        assert lines == [f"1 × packet that cannot be unpacked, set aside (at byte {places[3]})"]
        found, lines = damaged(
            places[2] + 4, struct.pack("<i", places[4] + 3 - places[2])
        )  # an IMU packet that swallows
        assert_events(found, a, b, c, d, e, f)
        assert lines == [f"1 × stretch that is no whole packet, passed over (at byte {places[4] + 11})"]

    for cut in (places[-1], places[-2] + 30, places[-2] + 5, places[-2]):
        (tmp_path / "a").write_bytes(data[:cut])
        found, lines = read(tmp_path / "a")
        assert_events(found, a, b, c, d, e, *([f] if cut == places[-1] else []))
        told = [f"1 × stretch that is no whole packet, passed over (at byte {places[-2]})"] if cut not in places else []
        if cut < places[-1]:
            told.append(f"the header says that the packets end at byte {places[-1]}, they end at byte {cut}")
        assert lines == told


def test_a_damaged_flatbuffer_is_set_aside(tmp_path):
    good = some_events(50)
    bad = bytearray(event_packet(*good))
    struct.pack_into("<I", bad, bad.index(struct.pack("<I", 50), 20), 51)  # one event more than there are
    huge = bytearray(event_packet(*good))
    struct.pack_into("<I", huge, 4, 0xFFFFFF00)
    places = write_aedat4(tmp_path / "a", [(0, bytes(bad)), (0, event_packet(*good)), (0, bytes(huge))])
    found, lines = read(tmp_path / "a")
    assert_events(found, good)
    assert lines == [f"2 × packet of events that is damaged, set aside (first at byte {places[0]})"]


def test_a_packet_that_unpacks_to_far_more_than_it_may_is_not_unpacked(tmp_path):
    bomb = struct.pack("<I", 1 << 26) + bytes(1 << 26)
    good = some_events(5)
    places = write_aedat4(tmp_path / "a", [(0, bomb), (0, event_packet(*good))], "zstd")
    found, lines = read(tmp_path / "a")
    assert_events(found, good)
    assert lines == [f"1 × packet that cannot be unpacked, set aside (at byte {places[0]})"]


def test_a_file_of_nothing_but_false_packets_is_given_up(tmp_path):
    fake = struct.pack("<ii", 0, 1 << 15) + b"\x04\x22\x4d\x18" + bytes(8)
    places = write_aedat4(tmp_path / "a", [(0, event_packet(*some_events(5)))], table=False)
    with open(tmp_path / "a", "ab") as file:
        file.write(fake * 20_000)
    found, lines = read(tmp_path / "a")
    assert len(found[0]) == 5
    assert any("too damaged to go on" in line for line in lines)
    assert places


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_does_more_than_raise_or_be_counted(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("aedat4") / "a"
    image = np.arange(40, dtype=np.uint8).reshape(5, 8)
    packets = [(0, event_packet(*some_events(30, n))) for n in range(3)] + [(1, frame_packet(image, 5, 9, x=2))]
    write_aedat4(path, packets, data.draw(st.sampled_from(["none", "lz4", "zstd"])))
    content = bytearray(path.read_bytes())
    xml = content.index(b"<dv"), content.index(b"</dv>")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1).filter(lambda at: not xml[0] <= at < xml[1]))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        found, _ = read(path)
        frames, _ = read_frames(path)
    except InputError as error:
        assert "byte" in str(error) and "\n" not in str(error)
    else:
        assert len(found[0]) <= 90 and len(frames) <= 1
