"""AEDAT 1.0, 2.0, 3.0 and 3.1 against slow decoders and addresses worked out by hand; no recording is at hand, so files
come from writers made from the specifications, https://docs.inivation.com/software/software-advanced-usage/file-formats/
aedat-2.0.html and aedat-3.1.html, and from what jAER does with an address (DVS128.java, DavisBaseCamera.java)."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import ConfigError, InputError
from evlift.events.readers import aedat, aedat3
from evlift.events.readers.reader import Problems, Reader, Stated

JAER = "#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# Timestamps tick is 1 us\r\n"
CHIPS = {  # as jAER writes them: height, width, DAVIS addresses
    "ch.unizh.ini.jaer.chip.retina.DVS128": (128, 128, False),
    "ch.unizh.ini.jaer.chip.retina.Tmpdiff128": (128, 128, False),
    "eu.seebetter.ini.chips.davis.DAVIS240C": (180, 240, True),
    "eu.seebetter.ini.chips.sbret10.SBret10": (180, 240, True),
    "eu.seebetter.ini.chips.davis.Davis346blue": (260, 346, True),
    "DAVI346": (260, 346, True),
    "eu.seebetter.ini.chips.davis.Davis208PixelParade": (192, 208, True),
    "eu.seebetter.ini.chips.davis.Davis128": (128, 128, True),
    "eu.seebetter.ini.chips.davis.Davis640": (480, 640, True),
}


def chip_header(chip):
    return f"{JAER}# AEChip: {chip}\r\n"


def write_aedat2(path, records, header):
    path.write_bytes(header.encode() + b"".join(struct.pack(">II", a, t % 2**32) for a, t in records))
    return path


def address(x, y, p, height, width, davis):
    """Of an event at x to the right and y down."""
    x, y = width - 1 - x, height - 1 - y
    return y << 22 | x << 12 | p << 11 if davis else y << 8 | x << 1 | (1 - p)


def read(path, format="aedat2", stated=None):
    reader, problems = aedat.open_reader(path, format, stated or Stated()), Problems()
    assert isinstance(reader, Reader)
    chunks = list(reader.columns(problems))
    assert all(c.x.dtype == c.y.dtype == np.uint16 and c.t.dtype == np.int64 and c.p.dtype == bool for c in chunks)
    assert [c.done for c in chunks] == sorted(c.done for c in chunks)
    return reader, [tuple(map(int, e)) for c in chunks for e in zip(c.t, c.x, c.y, c.p, strict=True)], problems.lines()


# AEDAT 1 and 2


def test_addresses_worked_out_by_hand(tmp_path):
    # DVS128: y 2 from below, x 3 from the right, bit 0 clear: ON
    path = write_aedat2(tmp_path / "a", [(2 << 8 | 3 << 1, 10), (0x7F01, 12)], chip_header("DVS128"))
    reader, events, lines = read(path)
    assert events == [(10, 124, 125, 1), (12, 127, 0, 0)]
    assert (reader.format, reader.sensor, reader.height, reader.width, lines) == ("aedat2", "DVS128", 128, 128, [])
    # DAVIS240: y 1 from below, x 2 from the right, ON; top row, x 239 from the right, OFF
    path = write_aedat2(tmp_path / "a", [(0x00402800, 10), (179 << 22 | 239 << 12, 12)], chip_header("DAVIS240C"))
    reader, events, lines = read(path)
    assert events == [(10, 237, 178, 1), (12, 0, 0, 0)]
    assert (reader.sensor, reader.height, reader.width, reader.clock) == ("DAVIS240C", 180, 240, "camera start")
    assert list(reader.frames(Problems())) == []


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(CHIPS)), st.integers(0, 2**32), st.sampled_from([1, 3, 64]), st.integers(0, 40))
def test_what_is_written_is_read_whatever_the_chip(tmp_path_factory, chip, seed, chunk, n):
    height, width, davis = CHIPS[chip]
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.choice([0, 1, 1000, 1 << 30], n)).tolist()  # over the ends of 31 and of 32 bits
    x, y, p = (rng.integers(0, size, n).tolist() for size in (width, height, 2))
    events = list(zip(t, x, y, p, strict=True))
    records = [(address(*e[1:], height, width, davis), e[0]) for e in events]
    path = write_aedat2(tmp_path_factory.mktemp("aedat2") / "a", records, chip_header(chip))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aedat, "CHUNK", chunk)
        reader, found, lines = read(path)
    assert (reader.height, reader.width) == (height, width)
    start = t[0] // 2**32 * 2**32 if t else 0
    assert found == [(ti - start, *rest) for ti, *rest in events]
    wraps = (t[-1] >> 32) - (t[0] >> 32) if t else 0
    assert lines == ([f"{wraps} × wrap of the 32-bit clock, undone"] if wraps else [])


def test_samples_and_signals_of_a_davis_are_counted_and_left_out(tmp_path):
    event = address(5, 6, 1, 260, 346, True)
    records = [
        (1 << 31 | 3 << 22 | 4 << 12 | 700, 1),  # reset read
        (1 << 31 | 3 << 22 | 4 << 12 | 1 << 10 | 500, 2),  # signal read
        (1 << 31 | 1 << 28 | 3 << 10, 3),  # inertial
        (event, 4),
        (1 << 10, 5),  # external signal
        (event | 1 << 11 | 1 << 10, 5),
        (event, 6),
    ]
    path = write_aedat2(tmp_path / "a", records, chip_header("Davis346blue"))
    start = path.stat().st_size - 8 * len(records)
    _, events, lines = read(path)
    assert events == [(4, 5, 6, 1), (6, 5, 6, 1)]
    assert lines == [
        f"2 × external signal, no event, left out (first at byte {start + 32})",
        f"1 × value of the inertial unit, left out (at byte {start + 16})",
        f"2 × sample of the image sensor, left out (evlift reads no frames of AEDAT 2.0) (first at byte {start})",
    ]


def test_signals_of_a_dvs128_are_counted_and_left_out(tmp_path):
    path = write_aedat2(tmp_path / "a", [(0x8000, 1), (0, 2), (1 << 31, 3)], chip_header("DVS128"))
    start = path.stat().st_size - 24
    _, events, lines = read(path)
    assert events == [(2, 127, 127, 1)]
    assert lines == [f"2 × external signal, no event, left out (first at byte {start})"]


def test_pixels_outside_the_sensor_are_handed_on_as_outside(tmp_path):
    path = write_aedat2(tmp_path / "a", [(200 << 22 | 240 << 12, 1)], chip_header("DAVIS240C"))
    assert read(path)[1] == [(1, 65535, 65535 - 20, 0)]


def test_a_first_record_that_starts_like_a_header_line_is_a_record(tmp_path):
    records = [(0x23000800 | 7 << 12, 0x0A), (address(1, 2, 0, 180, 240, True), 20)]  # "#", and a line's end at byte 8
    for header in (chip_header("DAVIS240C"), chip_header("DAVIS240C") + "#End Of ASCII Header\r\n"):
        _, events, lines = read(write_aedat2(tmp_path / "a", records, header))
        assert events == [(10, 232, 179 - 0x23000800 // (1 << 22), 1), (20, 1, 2, 0)]
        assert lines == []


def test_a_record_cut_short_is_told(tmp_path):
    path = write_aedat2(tmp_path / "a", [(0, 1), (0, 2)], chip_header("DVS128"))
    path.write_bytes(path.read_bytes()[:-3])
    _, events, lines = read(path)
    assert len(events) == 1
    assert lines == [f"1 × record cut short by the end of the file, set aside (at byte {path.stat().st_size - 5})"]


def test_a_header_without_a_chip_asks_for_one(tmp_path):
    path = write_aedat2(tmp_path / "a", [(0, 1)], JAER)
    with pytest.raises(InputError, match=r"names no chip; give --format aedat2-dvs128, or aedat2-davis with --size"):
        read(path)
    assert read(path, "aedat2-dvs128")[1] == [(1, 127, 127, 1)]
    with pytest.raises(InputError, match="give its height and width with --size"):
        read(path, "aedat2-davis")
    reader, events, _ = read(path, "aedat2-davis", Stated(size=(180, 240)))
    assert (events, reader.format) == ([(1, 239, 179, 0)], "aedat2")
    path = write_aedat2(tmp_path / "b", [(0, 1)], chip_header("eu.seebetter.ini.chips.davis.CDAVIS"))
    with pytest.raises(InputError, match="names the chip 'CDAVIS', whose addresses evlift does not know"):
        read(path)


def test_aedat_1(tmp_path):
    records = struct.pack(">HIHI", 2 << 8 | 3 << 1, 10, 0x8000, 11)
    for header in (b"", b"#!AER-DAT1.0\r\n# a line\r\n"):
        (tmp_path / "a").write_bytes(header + records)
        reader, events, lines = read(tmp_path / "a", "aedat1")
        assert (events, reader.format) == ([(10, 124, 125, 1)], "aedat1")
        assert lines == [f"1 × external signal, no event, left out (at byte {len(header) + 6})"]
    path = write_aedat2(tmp_path / "b", [(0, 1)], chip_header("DVS128"))
    with pytest.raises(InputError, match="says at byte 0 that it is AEDAT 2"):
        read(path, "aedat1")


def test_versions_are_told_apart():
    for head, format in (
        (b"#!AER-DAT1.0\r\n", "aedat1"),
        (b"#!AER-DAT2.0\r\n", "aedat2"),
        (b"#!AER-DAT3.0\r\n", "aedat3"),
        (b"#!AER-DAT3.1\r\n", "aedat3"),
        (b"#!AER-DAT4.0\r\n", None),
        (b"# AER", None),
        (b"", None),
    ):
        assert aedat.matches(None, head) == format


# AEDAT 3

HEADER3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-08-10 17:46:58 (TZ+0200)\r\n"
END3 = b"#!END-HEADER\r\n"


def packet(type, size, events, overflow=0, source=1, number=None, place=4):
    number = len(events) if number is None else number
    return struct.pack("<hhiiiiii", type, source, size, place, overflow, number, number, number) + b"".join(events)


def polarity(events, overflow=0, source=1, valid=1):
    """`events`: (t, x, y, p) each, y in the file's direction."""
    words = [struct.pack("<Ii", x << 17 | y << 2 | p << 1 | valid, t) for t, x, y, p in events]
    return packet(1, 8, words, overflow, source)


def frame(image, start, end, x=0, y=0, valid=1):
    height, width = image.shape[:2]
    channels = image.shape[2] if image.ndim == 3 else 1
    head = struct.pack("<Iiiiiiiii", channels << 1 | valid, start - 2, end + 2, start, end, width, height, x, y)
    return head + image.astype("<u2").tobytes()


def write_aedat3(path, packets, header=HEADER3 + END3):
    path.write_bytes(header + b"".join(packets))
    return path, np.cumsum([len(header), *map(len, packets)]).tolist()


def slow3(data):
    """Valid events of a sound 3.1 file as (t, x, y, p), number by number."""
    at, events = data.index(END3) + len(END3), []
    while at < len(data):
        type, size = int.from_bytes(data[at : at + 2], "little"), int.from_bytes(data[at + 4 : at + 8], "little")
        overflow, number = (int.from_bytes(data[at + k : at + k + 4], "little") for k in (12, 20))
        at += 28
        for _ in range(number):
            word, t = (int.from_bytes(data[at + k : at + k + 4], "little") for k in (0, 4))
            if type == 1 and word % 2:
                events.append((overflow * 2**31 + t, word // 2**17, word // 4 % 2**15, word // 2 % 2))
            at += size
    return events


def test_polarity_worked_out_by_hand(tmp_path):
    events = bytes.fromhex("05000a00 e8030000 ff01fe00 ffffff7f")
    # word 0x000a0005: valid, OFF, y 1, x 5, 1000 µs; word 0x00fe01ff: valid, ON, y 127, x 127, in the last µs before
    path, _ = write_aedat3(tmp_path / "a", [packet(1, 8, [events[:8], events[8:]], overflow=1)])
    reader, found, lines = read(path, "aedat3")
    assert found == [(2**31 + 1000, 5, 1, 0), (2**32 - 1, 127, 127, 1)]
    assert (reader.format, reader.sensor, reader.height, reader.width, lines) == ("aedat3", "DVS128", 128, 128, [])
    assert reader.clock == "camera start"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 3, 64]), st.lists(st.integers(0, 20), max_size=6))
def test_what_is_written_in_3_1_is_read(tmp_path_factory, seed, chunk, sizes):
    rng = np.random.default_rng(seed)
    packets = []
    for k, n in enumerate(sizes):
        t, x, y = np.sort(rng.integers(0, 2**31, n)), rng.integers(0, 2**15, n), rng.integers(0, 2**15, n)
        events = zip(t.tolist(), x.tolist(), y.tolist(), rng.integers(0, 2, n).tolist(), strict=True)
        packets += [polarity(list(events), overflow=k), packet(3, 36, [bytes(36)] * 2), packet(0, 8, [bytes(8)])]
    path, _ = write_aedat3(tmp_path_factory.mktemp("aedat3") / "a", packets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aedat3, "CHUNK", chunk)
        _, found, lines = read(path, "aedat3")
    assert (found, lines) == (slow3(path.read_bytes()), [])
    assert len(found) == sum(sizes)


def test_bad_events_are_counted_and_set_aside(tmp_path):
    packets = [
        polarity([(1, 2, 3, 1)]),
        polarity([(2, 2, 3, 1), (3, 2, 3, 1)], valid=0),
        polarity([(4, 1, 1, 0), (-5, 1, 1, 0)]),
    ]
    path, places = write_aedat3(tmp_path / "a", packets)
    _, found, lines = read(path, "aedat3")
    assert found == [(1, 2, 3, 1), (4, 1, 1, 0)]
    assert lines == [
        f"2 × event marked as invalid, set aside (first at byte {places[1] + 28})",
        f"1 × event with a negative time, set aside (at byte {places[2] + 36})",
    ]


def test_one_of_several_sources_is_chosen_and_the_others_are_counted(tmp_path):
    header = HEADER3.replace(b"#Source 1: DVS128", b"#-Source 9: DVS128\r\n#Source 1: DVS128\r\n#Source 2: DAVIS240C")
    packets = [packet(0, 8, [bytes(8)]), polarity([(1, 2, 3, 1)] * 2, source=2), polarity([(4, 1, 1, 0)], source=1)]
    path, _ = write_aedat3(tmp_path / "a", packets, header + END3)
    reader, found, lines = read(path, "aedat3")
    assert (found, reader.sensor, reader.width) == ([(1, 2, 3, 1)] * 2, "DAVIS240C", 240)
    assert lines == ["1 × event of source 1 left out; choose it with --stream 1"]
    reader, found, lines = read(path, "aedat3", Stated(stream="1"))
    assert (found, reader.sensor) == ([(4, 1, 1, 0)], "DVS128")
    assert lines == ["2 × event of source 2 left out; choose it with --stream 2"]
    with pytest.raises(ConfigError, match=r"no source '9'; choose 1 \(DVS128\) or 2 \(DAVIS240C\)"):
        read(path, "aedat3", Stated(stream="9"))


def test_the_only_camera_may_have_another_number_in_the_header(tmp_path):
    path, _ = write_aedat3(tmp_path / "a", [polarity([(1, 2, 3, 1)], source=7)])
    reader, found, lines = read(path, "aedat3")
    assert (found, reader.sensor, lines) == ([(1, 2, 3, 1)], "DVS128", [])


def test_frames_with_their_exposure(tmp_path):
    header = HEADER3.replace(b"DVS128", b"DAVIS240C") + END3
    rng = np.random.default_rng(0)
    grey, colour, part = (rng.integers(0, 65536, shape) for shape in ((180, 240), (180, 240, 4), (10, 20)))
    full = [frame(grey, 100, 150), frame(grey, 200, 210, valid=0)]
    packets = [
        packet(2, len(full[0]), full, overflow=1),
        polarity([(1, 2, 3, 1)]),
        packet(2, len(full[0]), [frame(part, 300, 310, x=220, y=3).ljust(len(full[0]), b"\0")], overflow=1),
        packet(2, 36 + 2 * colour.size, [frame(colour, 2**31 - 1, -(2**31) + 5 + 2**31)], overflow=1),
        packet(2, 36 + 2 * part.size, [frame(part, 400, 410, x=221)], overflow=2),
        packet(2, 36 + 2 * part.size, [frame(part, 400, 410)], overflow=1),
        packet(2, 36 + 2 * part.size, [frame(rng.integers(0, 9, (10, 20, 2)), 1, 2)[: 36 + 2 * part.size]], overflow=3),
    ]
    path, places = write_aedat3(tmp_path / "a", packets, header)
    problems = Problems()
    frames = list(aedat.open_reader(path, "aedat3", Stated()).frames(problems))
    assert [(f.t_us, f.exposure_us) for f in frames] == [(2**31 + 100, 50), (2**31 + 300, 10), (2**32 - 1, 6)]
    np.testing.assert_array_equal(frames[0].image, grey // 256)
    whole = np.zeros((180, 240), np.uint8)
    whole[3:13, 220:240] = part // 256
    np.testing.assert_array_equal(frames[1].image, whole)
    np.testing.assert_array_equal(frames[2].image, colour[..., :3] // 256)
    assert problems.lines() == [
        f"1 × frame marked as invalid, set aside (at byte {places[0] + 28 + len(full[0])})",
        f"1 × frame that reaches outside the sensor, set aside (at byte {places[4] + 28})",
        f"1 × frame earlier than the one before it, set aside (at byte {places[5] + 28})",
        f"1 × frame that is damaged, set aside (at byte {places[6] + 28})",
    ]


def test_3_0_counts_rows_from_below_and_has_no_end_of_its_header(tmp_path):
    header = HEADER3.replace(b"3.1", b"3.0")
    image = np.arange(128 * 128).reshape(128, 128)
    packets = [polarity([(1, 2, 3, 1)]), packet(2, 36 + 2 * image.size, [frame(image, 5, 6)])]
    path, _ = write_aedat3(tmp_path / "a", packets, header)
    reader, found, _ = read(path, "aedat3")
    assert found == [(1, 2, 124, 1)]
    np.testing.assert_array_equal(next(reader.frames(Problems())).image, image[::-1] // 256)
    path, _ = write_aedat3(tmp_path / "b", packets, header.replace(b"DVS128", b"File"))
    with pytest.raises(InputError, match="give its height and width with --size"):
        read(path, "aedat3")
    assert read(path, "aedat3", Stated(size=(100, 100)))[1] == [(1, 2, 96, 1)]


def test_an_unknown_camera_has_no_size(tmp_path):
    path, _ = write_aedat3(tmp_path / "a", [polarity([(1, 2, 3, 1)])], HEADER3.replace(b"DVS128", b"File") + END3)
    for stated, size in ((Stated(), (None, None)), (Stated(size=(4, 5)), (4, 5))):
        reader = aedat.open_reader(path, "aedat3", stated)
        assert (reader.height, reader.width) == size


def test_headers_that_cannot_be_read_say_where(tmp_path):
    for header, message in ((b"\x01\x00\x01\x00", "at byte 0"), (HEADER3, f"end of its header at byte {len(HEADER3)}")):
        path, _ = write_aedat3(tmp_path / "a", [polarity([(1, 2, 3, 1)])], header)
        with pytest.raises(InputError, match=message):
            aedat.open_reader(path, "aedat3", Stated())


def test_damage_costs_the_packets_it_is_in_and_is_told(tmp_path):
    parts = [[(10 * k + i, i, k, 1) for i in range(10)] for k in range(5)]
    packets = [polarity(part) for part in parts]
    path, places = write_aedat3(tmp_path / "a", packets)
    data = path.read_bytes()

    def damaged(at, new):
        path.write_bytes(data[:at] + new + data[at + len(new) :])
        return read(path, "aedat3")[1:]

    a, b, c, d, e = parts
    for at, new in ((0, b"\xff\xff"), (4, b"\x09"), (8, b"\x05"), (12, bytes(3) + b"\x80"), (24, b"\x0b")):
        assert damaged(places[2] + at, new) == (
            a + b + d + e,
            [f"1 × stretch that is no packet, passed over (at byte {places[2]})"],
        )
    for wrong in (9, 11, 1000, 2**31 - 1):  # in number and capacity: other packets would be read as events
        found, lines = damaged(places[2] + 16, struct.pack("<iii", wrong, wrong, 9))
        if wrong == 9:  # too small a packet: nine of its events are right, the tenth is passed over
            assert found == a + b + c[:9] + d + e
            assert lines == [f"1 × stretch that is no packet, passed over (at byte {places[3] - 8})"]
        else:
            assert found == a + b + d + e
            assert lines == [f"1 × packet of a wrong size, set aside (at byte {places[2]})"]
    path.write_bytes(data[:-13])
    assert read(path, "aedat3")[1:] == (
        a + b + c + d + e[:8],
        [f"1 × packet cut short by the end of the file, its whole events kept (at byte {places[4]})"],
    )
    path.write_bytes(data[: places[4] + 20])
    assert read(path, "aedat3")[1:] == (
        a + b + c + d,
        [f"1 × stretch that is no packet, passed over (at byte {places[4]})"],
    )


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_damage_does_more_than_raise_or_be_counted(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("aedat") / "a"
    format = data.draw(st.sampled_from(["aedat2", "aedat3"]))
    if format == "aedat2":
        write_aedat2(path, [(address(k, k, 1, 180, 240, True), k) for k in range(40)], chip_header("DAVIS240C"))
    else:
        image = frame(np.ones((4, 5)), 7, 8)
        write_aedat3(path, [polarity([(k, k, k, 1) for k in range(20)]), packet(2, len(image), [image])] * 2)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        reader, found, _ = read(path, format)
        frames = list(reader.frames(Problems()))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(found) <= len(content) // 8 and len(frames) <= 2
