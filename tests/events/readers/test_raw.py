"""Prophesee RAW against plain decoders written from the specification, word by word, and against other libraries.

https://docs.prophesee.ai/stable/data/encoding_formats/evt2.html, evt21.html and evt3.html
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import InputError
from evlift.events.readers import raw
from evlift.events.readers.reader import CHUNK, Columns, Problems, Reader, Stated

SAMPLES = Path(__file__).resolve().parents[4] / "shared" / "data" / "formats"
SIZES = {"evt2": 4, "evt21": 8, "evt3": 2}


def sample(name: str) -> Path:
    if not (SAMPLES / name).is_file():
        pytest.skip(f"the real recording {name} is not here ({SAMPLES})")
    return SAMPLES / name


def words_of(path: Path, kind: str) -> list[int]:
    data = path.read_bytes()
    start = 0
    while data[start : start + 2] == b"% ":
        start = data.index(b"\n", start) + 1
    return np.frombuffer(data[start : len(data) - (len(data) - start) % np.dtype(kind).itemsize], kind).tolist()


class Clock:
    """Time high words in a row: their wraps undone, each way."""

    def __init__(self, bits: int) -> None:
        self.bits, self.last, self.turns, self.wraps = bits, None, 0, 0

    def set(self, high: int) -> int:
        half = 1 << (self.bits - 1)
        if self.last is not None and self.last - high > half:
            self.turns, self.wraps = self.turns + 1, self.wraps + 1
        elif self.last is not None and high - self.last > half:
            self.turns -= 1
        self.last = high
        return (self.turns << self.bits) + high


def plain_evt2(words: list[int]) -> tuple[list, int, int]:
    clock, high, events, early = Clock(28), None, [], 0
    for word in words:
        kind = word >> 28
        if kind == 8:
            high = clock.set(word & 0xFFFFFFF)
        elif kind < 2 and high is None:
            early += 1
        elif kind < 2:
            events.append(((word >> 11) & 0x7FF, word & 0x7FF, high << 6 | (word >> 22) & 0x3F, kind))
    return events, early, clock.wraps


def plain_evt21(words: list[int]) -> tuple[list, int, int]:
    clock, high, events, early = Clock(28), None, [], 0
    for word in words:
        kind = word >> 60
        if kind == 8:
            high = clock.set(word >> 32 & 0xFFFFFFF)
        elif kind < 2:
            bits = [k for k in range(32) if word >> k & 1]
            if high is None:
                early += len(bits)
            else:
                t = high << 6 | word >> 54 & 0x3F
                events += [((word >> 43 & 0x7FF) + k, word >> 32 & 0x7FF, t, kind) for k in bits]
    return events, early, clock.wraps


def plain_evt3(words: list[int], falls: list[int] | None = None) -> tuple[list, int, int]:
    """`falls` gets, for each event, how often a low time has been below the one before it until then."""
    clock, events, early = Clock(12), [], 0
    high = low = row = base = sign = None
    started, fallen, lows = False, 0, -1
    for word in words:
        kind, value = word >> 12, word & 0xFFF
        xs = []
        if kind == 0:
            row = value & 0x7FF
        elif kind == 2:
            xs, p = [value & 0x7FF], value >> 11
        elif kind == 3:
            base, sign = value & 0x7FF, value >> 11
        elif kind in (4, 5):
            width = 12 if kind == 4 else 8
            # the x of vectors without a base is unknown; that of endless ones stops beyond any sensor
            xs, p = [None if base is None else base + k for k in range(width) if value >> k & 1], sign
            base = None if base is None else min(base + width, 65535 - 64)
        elif kind == 6:
            fallen, lows = fallen + (value < lows), value
            low = None if high is None else value
        elif kind == 8:
            if clock.last != value:
                low = 0 if started else None
            high = clock.set(value) if started or clock.last is None else value
            clock.last = value
        started = started or None not in (high, low, row)
        for x in xs:
            if started and x is not None:
                events.append((x, row, (high << 12) + low, p))
                if falls is not None:
                    falls.append(fallen)
            else:
                early += 1
    return events, early, clock.wraps


PLAIN = {"evt2": plain_evt2, "evt21": plain_evt21, "evt3": plain_evt3}


def rows(parts: list[Columns]) -> list[tuple[int, int, int, int]]:
    for part in parts:
        assert (part.x.dtype, part.y.dtype, part.t.dtype, part.p.dtype) == (np.uint16, np.uint16, np.int64, np.bool_)
        assert 0 < len(part.t) <= CHUNK
    return [(*each[:3], int(each[3])) for part in parts for each in zip(*(c.tolist() for c in part[:4]), strict=True)]


def read(path: Path, stated: Stated | None = None, format: str | None = None) -> tuple[raw.RawReader, list, list[str]]:
    with open(path, "rb") as file:
        format = format or raw.matches(path, file.read(4096))
    assert format is not None
    reader, problems = raw.open_reader(path, format, stated or Stated()), Problems()
    assert isinstance(reader, Reader)
    return reader, rows(list(reader.columns(problems))), problems.lines()


def write(path: Path, encoding: str, words: list[int], header: str = "", order: str = "<") -> Path:
    number = {"evt2": "2.0", "evt21": "2.1", "evt3": "3.0"}[encoding]
    body = np.array(words, f"{order}u{SIZES[encoding]}").tobytes()
    path.write_bytes(f"% evt {number}\n{header}% end\n".encode() + body)
    return path


# Real recordings


def test_evt3_sample_is_what_an_independent_decoder_and_the_plain_one_read() -> None:
    oracle = pytest.importorskip("evt3")
    path = sample("gen4_evt3.raw")
    reader, events, problems = read(path)
    assert (reader.format, reader.height, reader.width, reader.sensor) == ("evt3", 720, 1280, "Gen4.1")
    assert problems == [] and len(events) == 219_596
    assert events == plain_evt3(words_of(path, "<u2"))[0]
    other = oracle.decode_file(str(path))
    columns = (other.x, other.y, other.timestamp, other.polarity)
    assert events == list(zip(*(np.asarray(c).tolist() for c in columns), strict=True))
    # The clock says itself how long this recording is: high time is sent every 16 µs, 551 times here.
    assert sum(word >> 12 == 8 for word in words_of(path, "<u2")) * 16 == 8816
    assert (events[0][2], events[-1][2]) == (2861 << 12, (2863 << 12) + 609)


def test_evt3_reference_array_differs_by_a_carry_at_each_fall_of_low_time_and_in_nothing_else() -> None:
    """The array beside the sample has 4096 µs added at each fall of low time, on top of what high time says.

    It lasts 53.9 ms, in which a sensor sends 3366 high times; the sample has 551, one every 16 µs: 8.8 ms.
    """
    words, reference = words_of(sample("gen4_evt3.raw"), "<u2"), np.load(sample("gen4_evt3.npy"))
    falls: list[int] = []
    x, y, t, p = zip(*plain_evt3(words, falls)[0], strict=True)
    for name, ours in zip("xyp", (x, y, p), strict=True):
        assert np.array_equal(reference[name], ours)
    drift = reference["t"] - np.array(t)
    assert np.array_equal(drift, 4096 * np.array(falls))
    assert drift[-1] == 11 * 4096  # 2 carries that high time has counted already, 9 falls that are none


def test_evt2_sample_is_what_two_other_decoders_and_the_plain_one_read() -> None:
    path = sample("gen3_evt2.raw")
    reader, events, problems = read(path)
    assert (reader.format, reader.height, reader.width, reader.sensor) == ("evt2", 480, 640, "Gen3.0")
    assert problems == [] and len(events) == 521_252
    assert events == plain_evt2(words_of(path, "<u4"))[0]
    wizard = pytest.importorskip("expelliarmus").Wizard(encoding="evt2").read(path)
    assert events == list(zip(*(wizard[name].tolist() for name in "xytp"), strict=True))
    with pytest.importorskip("evutils.io").EventReader(path) as other:
        array = other.read_all()
    assert events == list(zip(*(np.asarray(getattr(array, name)).tolist() for name in "xytp"), strict=True))


# Any words, cut anywhere


def evt3_words() -> st.SearchStrategy[list[int]]:
    kinds = st.sampled_from([0, 0, 2, 2, 2, 3, 4, 4, 5, 6, 6, 8, 8, 1, 7, 9, 10, 14, 15])
    highs = st.sampled_from([0x000, 0x001, 0x7FE, 0x7FF, 0x800, 0x801, 0xFFE, 0xFFF])
    word = st.builds(lambda kind, value: kind << 12 | value, kinds, st.one_of(st.integers(0, 0xFFF), highs))
    start = st.sampled_from([[], [0x8FFF, 0x6005, 0x0010, 0x3820], [0x8001, 0x6001, 0x0001]])
    return st.builds(lambda a, b: a + b, start, st.lists(word, max_size=60))


def evt2_words() -> st.SearchStrategy[list[int]]:
    kinds = st.sampled_from([0, 1, 0, 1, 0, 8, 8, 10, 14, 15, 3])
    highs = st.sampled_from([0, 1, (1 << 27) - 1, 1 << 27, (1 << 27) + 1, (1 << 28) - 1])
    word = st.builds(lambda kind, value: kind << 28 | value, kinds, st.one_of(st.integers(0, (1 << 28) - 1), highs))
    return st.lists(word, max_size=60)


def evt21_words() -> st.SearchStrategy[list[int]]:
    masks = st.one_of(st.integers(0, (1 << 32) - 1), st.sampled_from([0, 1, 1 << 31, (1 << 32) - 1]))
    return st.builds(
        lambda up, low: [u << 32 | m for u, m in zip(up, low, strict=False)], evt2_words(), st.lists(masks)
    )


WORDS = {"evt2": evt2_words(), "evt21": evt21_words(), "evt3": evt3_words()}
UNKNOWN = {
    "evt2": {2, 3, 4, 5, 6, 7, 9, 11, 12, 13},
    "evt21": {2, 3, 4, 5, 6, 7, 9, 11, 12, 13},
    "evt3": {1, 9, 11, 12, 13},
}


def counts(problems: Problems) -> dict[str, int]:
    return {text: number for text, (number, _) in problems._found.items()}


@pytest.mark.parametrize("encoding", SIZES)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_words_in_any_pieces_are_what_the_plain_decoder_reads(encoding: str, data: st.DataObject) -> None:
    words = data.draw(WORDS[encoding])
    order = data.draw(st.sampled_from(["little", "big"] + ["legacy"] * (encoding == "evt21")))
    size = SIZES[encoding]
    if order == "legacy":
        body = b"".join((w >> 32).to_bytes(4, "little") + (w & 0xFFFFFFFF).to_bytes(4, "little") for w in words)
    else:
        body = b"".join(w.to_bytes(size, order) for w in words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(words)), max_size=4)))
    decoder, problems = raw.Decoder(encoding, order), Problems()
    parts = []
    for a, b in zip([0, *cuts], [*cuts, len(words)], strict=True):
        part = decoder.decode(body[a * size : b * size], problems, at=100 + a * size)
        parts += [part] if len(part.t) else []
    events, early, wraps = PLAIN[encoding](words)
    assert rows(parts) == events
    kinds = [word >> (8 * size - 4) for word in words]
    expected = {
        "event before the first": early,
        "wrap of the": wraps,
        "external trigger": kinds.count(10),
        "word of unknown type": sum(kind in UNKNOWN[encoding] for kind in kinds),
        "row of a slave": sum(word >> 11 == 1 for word in words) if encoding == "evt3" else 0,
    }
    found = counts(problems)
    assert {start: sum(n for text, n in found.items() if text.startswith(start)) for start in expected} == expected
    assert len(problems) == sum(number > 0 for number in expected.values())


@pytest.mark.parametrize("encoding", SIZES)
@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=400))
def test_any_bytes_are_read_in_one_go_as_in_two(encoding: str, body: bytes) -> None:
    size = SIZES[encoding]
    half = len(body) // 2 // size * size
    whole = raw.Decoder(encoding).decode(body, Problems())
    decoder = raw.Decoder(encoding)
    first, second = decoder.decode(body[:half], Problems()), decoder.decode(body[half:], Problems())
    for a, b, c in zip(whole[:4], first[:4], second[:4], strict=True):
        assert np.array_equal(a, np.concatenate([b, c]))


def test_pieces_of_every_kind_of_buffer() -> None:
    words = np.array([0x8001, 0x6002, 0x0003, 0x2804, 0x3805, 0x4005], np.uint16)
    expected = [(4, 3, 4098, 1), (5, 3, 4098, 1), (7, 3, 4098, 1)]
    odd = memoryview(b"?" + words.tobytes())[1:]  # words that lie at odd addresses
    fixed = np.frombuffer(words.tobytes(), np.uint16)  # cannot be written
    for buffer in (words, words.tobytes(), bytearray(words.tobytes()), odd, fixed):
        assert rows([raw.Evt3Decoder().decode(buffer, Problems())]) == expected
    nothing = raw.Evt3Decoder().decode(b"", Problems())
    assert [(len(c), c.dtype) for c in nothing[:4]] == [(0, np.uint16), (0, np.uint16), (0, np.int64), (0, np.bool_)]


def test_evt3_vectors_go_on_where_the_last_one_ended_in_threes_or_not() -> None:
    start = [0x8001, 0x6000, 0x0007, 0x3864]  # row 7, from x = 100 on, brighter
    vectors = [0x4801, 0x4001, 0x5F81, 0x4001, 0x4800, 0x5001, 0x4002, 0x5080, 0x5001, 0x4004, 0x4001]
    x = [100, 111, 112, 124, 131, 132, 155, 156, 165, 183, 184, 194, 204]
    for cut in range(len(vectors)):  # also where the pieces end within three
        decoder = raw.Evt3Decoder()
        parts = [decoder.decode(np.array(w, np.uint16), Problems()) for w in (start + vectors[:cut], vectors[cut:])]
        assert np.concatenate([part.x for part in parts]).tolist() == x


# Time


def test_evt3_high_time_wraps_after_16_seconds_and_a_late_one_steps_back() -> None:
    words = [0x8FFF, 0x6FFE, 0x0001, 0x2001, 0x8000, 0x6001, 0x2002, 0x8FFF, 0x6FFF, 0x2003, 0x8000, 0x6002, 0x2004]
    problems = Problems()
    events = rows([raw.Evt3Decoder().decode(np.array(words, np.uint16), problems)])
    assert [t for _, _, t, _ in events] == [(1 << 24) - 2, (1 << 24) + 1, (1 << 24) - 1, (1 << 24) + 2]
    assert problems.lines() == ["2 × wrap of the 24-bit clock, undone"]


def test_evt3_low_time_that_falls_is_no_carry_and_a_new_high_time_starts_at_0() -> None:
    words = [0x8002, 0x632B, 0x0001, 0x2001, 0x6320, 0x2002, 0x8002, 0x2003, 0x8003, 0x2004, 0x6005, 0x2005]
    events = rows([raw.Evt3Decoder().decode(np.array(words, np.uint16), Problems())])
    assert [t - 0x2000 for _, _, t, _ in events] == [0x32B, 0x320, 0x320, 0x1000, 0x1005]


def test_evt2_clock_wraps_after_4_hours_46_minutes() -> None:
    words = [0x8FFFFFFF, 0x0FC00801, 0x80000000, 0x10400801]  # low times 63 and 1, pixel (1, 1)
    problems = Problems()
    events = rows([raw.Decoder("evt2").decode(np.array(words, np.uint32), problems)])
    assert events == [(1, 1, (1 << 34) - 1, 0), (1, 1, (1 << 34) + 1, 1)]
    assert problems.lines() == ["1 × wrap of the 34-bit clock, undone"]


# Files


EVT3 = [0x8001, 0x6002, 0x0003, 0x2804, 0x2005]
EVT3_EVENTS = [(4, 3, 4098, 1), (5, 3, 4098, 0)]


@pytest.mark.parametrize(
    ("header", "size", "sensor"),
    [
        ("% geometry 640x480\n", (480, 640), ""),
        ("% format EVT3;height=720;width=1280\n% sensor_name IMX636\n", (720, 1280), "IMX636"),
        ("% format EVT3;height=720;width=1280\n% geometry 1280x720\n% plugin_name hal_x\n", (720, 1280), "hal_x"),
        ("% integrator_name Prophesee\n% system_ID 40\n", (480, 640), "Gen3.1"),
        ("% integrator_name Someone\n% system_ID 40\n", (None, None), ""),
        ("% system_ID 9999\n", (None, None), ""),
        ("", (None, None), ""),
    ],
)
def test_size_and_sensor_are_what_the_header_says_or_the_system(
    tmp_path: Path, header: str, size: tuple, sensor: str
) -> None:
    reader, events, problems = read(write(tmp_path / "a.raw", "evt3", EVT3, header))
    assert ((reader.height, reader.width), reader.sensor) == (size, sensor)
    assert events == EVT3_EVENTS and problems == []
    stated, _, _ = read(tmp_path / "a.raw", Stated(size=(100, 200)))
    assert (stated.height, stated.width) == (100, 200)


@pytest.mark.parametrize(
    "header", ["% geometry 0x480\n", "% geometry wide\n", "% format EVT3;height=9;width=9\n% geometry 640x480\n"]
)
def test_a_size_that_is_none_is_told_and_ignored(tmp_path: Path, header: str) -> None:
    reader, events, problems = read(write(tmp_path / "a.raw", "evt3", EVT3, header))
    assert (reader.height, reader.width) == (None, None) and events == EVT3_EVENTS
    assert len(problems) == 1 and "which is no size; ignored" in problems[0]


def test_headers_name_the_encoding_in_three_ways_and_others_are_not_ours(tmp_path: Path) -> None:
    def named(text: str) -> str | None:
        return raw.matches(tmp_path, text.encode() + b"\x00\x80")

    assert named("% evt 2.0\n") == "evt2" and named("% evt 2.1\n") == "evt21" and named("% evt 3.0\n% end\n") == "evt3"
    assert named("% format EVT21;height=1;width=1\n% evt 3.0\n") == "evt21"
    assert named("% integrator_name Prophesee\n% system_ID 49\n") == "evt3"
    assert named("% format HISTO3D;height=320;width=320\n") is None
    assert named("% Data file containing Event2D events.\n% Version 2\n") is None
    assert named("t x y p\n") is None and raw.matches(tmp_path, b"") is None
    assert raw.matches(tmp_path, b"% a b\n" * 20_000) is None


def test_a_header_ends_where_text_ends_even_if_words_look_like_one(tmp_path: Path) -> None:
    body = np.array([0x2025, *EVT3], "<u2").tobytes()  # the first word reads "% "
    (tmp_path / "a.raw").write_bytes(b"% evt 3.0\n" + body + b"\x0a\x70")
    _, events, problems = read(tmp_path / "a.raw")
    assert events == EVT3_EVENTS
    assert problems == ["1 × event before the first words of time, row or vector, set aside (at byte 10)"]


def test_a_file_without_header_is_read_as_the_user_says(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(np.array(EVT3, "<u2").tobytes())
    _, events, problems = read(tmp_path / "a.bin", format="evt3")
    assert events == EVT3_EVENTS and problems == []


def test_evt21_halves_come_in_the_order_the_header_or_the_system_says(tmp_path: Path) -> None:
    high, event = 8 << 60 | 5 << 32, 1 << 60 | 3 << 54 | 64 << 43 | 7 << 32 | 0x80000001
    expected = [(64, 7, 323, 1), (95, 7, 323, 1)]
    whole, halves = [high, event], [half for word in (high, event) for half in (word >> 32, word & 0xFFFFFFFF)]
    for header, order in (
        ("% endianness little\n", "<u8"),
        ("% endianness big\n", ">u8"),
        ("% endianness legacy\n", "<u4"),
        ("% format EVT21;endianness=legacy;height=720;width=1280\n", "<u4"),
        ("% integrator_name Prophesee\n% system_ID 49\n", "<u4"),  # IMX636
        ("% integrator_name Prophesee\n% system_ID 64\n", "<u8"),  # GenX320
        ("", "<u8"),
    ):
        body = np.array(halves if order == "<u4" else whole, order).tobytes()
        (tmp_path / "a.raw").write_bytes(f"% evt 2.1\n{header}% end\n".encode() + body)
        assert read(tmp_path / "a.raw")[1] == expected, header
    (tmp_path / "a.raw").write_bytes(b"% evt 2.1\n% endianness middle\n% end\n")
    with pytest.raises(InputError, match="endianness 'middle' in the header, before byte 36; use little"):
        read(tmp_path / "a.raw")


def test_evt21_is_what_another_decoder_reads(tmp_path: Path) -> None:
    evutils = pytest.importorskip("evutils.io")
    rng = np.random.default_rng(1)
    words = []
    for high in range(40):
        words.append(8 << 60 | (1000 + high) << 32)
        for low in sorted(rng.integers(0, 64, 5).tolist()):
            x, y, mask = int(rng.integers(0, 40)) * 32, int(rng.integers(0, 720)), int(rng.integers(1, 1 << 32))
            words.append(int(rng.integers(0, 2)) << 60 | low << 54 | x << 43 | y << 32 | mask)
    halves = [half for word in words for half in (word >> 32, word & 0xFFFFFFFF)]
    header = b"% endianness legacy\n% evt 2.1\n% format EVT21;height=720;width=1280\n% geometry 1280x720\n% end\n"
    (tmp_path / "a.raw").write_bytes(header + np.array(halves, "<u4").tobytes())
    _, events, problems = read(tmp_path / "a.raw")
    assert problems == [] and events == plain_evt21(words)[0] and len(events) > 2000
    with evutils.EventReader(tmp_path / "a.raw") as other:
        array = other.read_all()
    assert events == list(zip(*(np.asarray(getattr(array, name)).tolist() for name in "xytp"), strict=True))


# Damage


def test_what_is_wrong_is_counted_with_its_place(tmp_path: Path) -> None:
    words = [0x2001, 0x4003, 0x8001, 0x6002, 0x0003, 0x5003, 0xA101, 0x1000, 0x2804, 0xC000, 0x0803, 0xE001, 0xF001]
    path = write(tmp_path / "a.raw", "evt3", words)
    path.write_bytes(path.read_bytes() + b"\x20")
    _, events, problems = read(path)
    start = len(b"% evt 3.0\n% end\n")
    assert events == [(4, 3, 4098, 1)]
    assert problems == [
        f"1 × last word cut short, dropped (at byte {start + 26})",
        f"5 × event before the first words of time, row or vector, set aside (first at byte {start})",
        f"1 × external trigger, left out (at byte {start + 12})",
        f"2 × word of unknown type, skipped (first at byte {start + 14})",
        f"1 × row of a slave camera, read like the master's (at byte {start + 20})",
    ]


def test_vectors_that_run_past_the_sensor_never_come_back_inside(tmp_path: Path) -> None:
    words = [0x8001, 0x6001, 0x0001, 0x3800] + [0x4FFF] * 200_000
    path = write(tmp_path / "a.raw", "evt3", words, "% geometry 640x480\n")
    reader, problems = raw.open_reader(path, "evt3", Stated()), Problems()
    parts = list(reader.columns(problems))
    assert sum(len(part.t) for part in parts) == 2_400_000 and max(len(part.t) for part in parts) <= CHUNK
    x = np.concatenate([part.x for part in parts])
    assert np.array_equal(x[:65_460], np.arange(65_460)) and x[65_460:].min() > 65_000
    assert [part.done for part in parts] == sorted(part.done for part in parts) and parts[-1].done == 1
    at_once = raw.Evt3Decoder().decode(np.array(words, np.uint16), Problems())
    assert np.array_equal(at_once.x, x)
    early = np.array([0x3800] + [0x4FFF] * 6000 + [0x8001, 0x6001, 0x0001, 0x4FFF], np.uint16)
    assert raw.Evt3Decoder().decode(early, Problems()).x.min() > 65_000


@pytest.mark.parametrize("encoding", SIZES)
def test_every_cut_gives_the_events_before_it(tmp_path: Path, encoding: str) -> None:
    words = {
        "evt3": EVT3,
        "evt2": [0x80000001, 0x00000801, 0x10000802],
        "evt21": [8 << 60 | 1 << 32, 1 << 60 | 3, 5],
    }[encoding]
    data = write(tmp_path / "a.raw", encoding, words).read_bytes()
    start = len(data) - len(words) * SIZES[encoding]
    for end in range(start, len(data) + 1):
        (tmp_path / "b.raw").write_bytes(data[:end])
        _, events, problems = read(tmp_path / "b.raw", format=encoding)
        whole = (end - start) // SIZES[encoding]
        assert events == PLAIN[encoding](words[:whole])[0]
        assert bool(problems) == bool((end - start) % SIZES[encoding])


def test_a_header_without_end_and_a_file_that_is_not_there_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"% evt 3.0\n" + b"% a b\n" * 20_000)
    with pytest.raises(InputError, match=r"the header of .*a\.raw has not ended at byte 655"):
        raw.open_reader(tmp_path / "a.raw", "evt3", Stated())
    with pytest.raises(InputError, match="cannot be read"):
        raw.open_reader(tmp_path / "b.raw", "evt3", Stated())


def test_both_iterators_start_anew(tmp_path: Path) -> None:
    reader = raw.open_reader(write(tmp_path / "a.raw", "evt3", EVT3), "evt3", Stated())
    assert rows(list(reader.columns(Problems()))) == rows(list(reader.columns(Problems()))) == EVT3_EVENTS
    assert list(reader.frames(Problems())) == [] and reader.files == (tmp_path / "a.raw",)
