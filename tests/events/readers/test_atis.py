"""ATIS .bin: 40 bits an event, most significant first (Orchard et al. 2015)."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evlift.errors import InputError
from evlift.events.readers import atis
from evlift.events.readers.reader import Problems, Reader, Stated

NMNIST = Path(__file__).resolve().parents[4] / "shared" / "data" / "formats" / "nmnist.bin"


def encode(rows):
    """Rows (t, x, y, p) by the published layout: x 8 bits, y 8, p 1, t 23."""
    return b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for t, x, y, p in rows)


def slow(data):
    """The published reader's rule, event by event."""
    rows, added = [], 0
    for i in range(0, len(data) // 5 * 5, 5):
        word = int.from_bytes(data[i : i + 5], "big")
        x, y, p, t = word >> 32, word >> 24 & 255, word >> 23 & 1, word & 0x7FFFFF
        if y == 240:
            added += 1 << 13
        else:
            rows.append([t + added, x, y, p])
    return rows


def read(path, **stated):
    reader, problems = atis.open_reader(path, "atis", Stated(**stated)), Problems()
    assert isinstance(reader, Reader) and list(reader.frames(problems)) == []
    chunks = [np.stack([c.t, c.x, c.y, c.p], 1) for c in reader.columns(problems)]
    return np.concatenate([np.zeros((0, 4), np.int64), *chunks]).tolist(), problems.lines(), reader


def test_a_real_recording():
    if not NMNIST.exists():
        pytest.skip(f"{NMNIST} is not here; it is a recording that the repository may not hold")
    events, problems, reader = read(NMNIST, size=(34, 34))
    assert events == slow(NMNIST.read_bytes())
    assert (len(events), problems, reader.height, reader.width) == (4325, [], 34, 34)
    assert events[0] == [654, *events[0][1:]] and events[-1][0] == 311_175


def test_bytes_by_hand(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes([3, 4, 0x80, 0x01, 0x02]) + bytes([239, 239, 0x3F, 0xFF, 0xFF]))
    events, problems, reader = read(path)
    assert events == [[258, 3, 4, 1], [0x3FFFFF, 239, 239, 0]]
    assert (problems, reader.height, reader.width, reader.files) == ([], None, None, (path,))


rows = st.lists(
    st.tuples(st.integers(0, 1 << 21), st.integers(0, 255), st.sampled_from([0, 33, 239, 240, 255]), st.integers(0, 1)),
    min_size=1,
    max_size=40,
)


@given(rows, st.integers(1, 7))
def test_overflow_marks_are_times_and_not_events(tmp_path_factory, rows, chunk):
    path = tmp_path_factory.mktemp("atis") / "a.bin"
    path.write_bytes(encode(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atis, "BLOCK", chunk)
        events, problems, _ = read(path)
    assert events == slow(encode(rows))
    marks = [i for i, row in enumerate(rows) if row[2] == 240]
    assert len(problems) == (len(marks) > 0)
    if marks:
        where = f"(first at byte {5 * marks[0]})" if len(marks) > 1 else f"(at byte {5 * marks[0]})"
        assert problems == [f"{len(marks)} × overflow of the clock marked in the file, 8192 µs added {where}"]


def test_the_23_bit_clock_may_wrap(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(encode([(8_388_600, 1, 2, 1), (5, 1, 2, 0), (8_388_604, 1, 2, 0), (9, 1, 2, 0)]))
    events, problems, _ = read(path)
    assert [e[0] for e in events] == [8_388_600, 8_388_613, 8_388_604, 8_388_617]
    assert problems == ["2 × wrap of the 23-bit clock, undone"]


def test_a_file_cut_short(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(encode([(1, 2, 3, 1), (2, 3, 4, 0)])[:-2])
    events, problems, _ = read(path)
    assert events == [[1, 2, 3, 1]]
    assert problems == ["1 × event cut short at the end of the file, set aside (at byte 5)"]
    path.write_bytes(b"\0\0\0\0")
    with pytest.raises(InputError, match="ends at byte 4, before its first event is whole"):
        read(path)
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
