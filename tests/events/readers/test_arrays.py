"""NumPy arrays: the same events whatever the layout, nothing guessed, unpickled or believed."""

import ast
import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import InputError
from evlift.events.readers import arrays
from evlift.events.readers.reader import Problems, Reader, Stated

T, X, Y = np.array([5, 7, 7, 8, 1_468_123_456]), np.array([1, 2, 3, 0, 639]), np.array([4, 5, 6, 0, 479])
P = np.array([1, 0, 1, 0, 1])
EVENTS = np.stack([T, X, Y, P], 1)


def record(names="t x y p", types="<i8 <u2 <u2 |b1", order=(0, 1, 2, 3), **more):
    values = np.zeros(len(T), np.dtype({"names": names.split(), "formats": types.split(), **more}))
    for name, column in zip(names.split(), (EVENTS[:, j] for j in order), strict=True):
        values[name] = column
    return values


def read(path, format=None, **stated):
    """([N, 4] t, x, y, p, problem lines, reader)."""
    with open(path, "rb") as file:
        found = arrays.matches(path, file.read(4096))
    reader, problems = arrays.open_reader(path, format or found or path.suffix[1:], Stated(**stated)), Problems()
    assert isinstance(reader, Reader) and list(reader.frames(problems)) == []
    events = np.zeros((0, 4), np.int64)
    for c in reader.columns(problems):
        assert (c.x.dtype, c.y.dtype, c.t.dtype, c.p.dtype) == (np.uint16, np.uint16, np.int64, np.bool_)
        assert 0 < c.done <= 1 and 0 < len(c.t) <= arrays.CHUNK
        events = np.concatenate([events, np.stack([c.t, c.x, c.y, c.p], 1)])
    return events, problems.lines(), reader


def saved(tmp_path, values, **members):
    if members:
        (np.savez_compressed if values else np.savez)(tmp_path / "a.npz", **members)
        return tmp_path / "a.npz"
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    return tmp_path / "a.npy"


def npy(descr, shape, data, fortran=False, version=1):
    """An .npy by its specification, whatever it claims."""
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


LAYOUTS = {
    "structured": (record(), {"time_unit": "us"}),
    "other names and order": (record("pol y x timestamp", "i1 >i4 f8 u8", (3, 2, 1, 0)), {"time_unit": "us"}),
    "unit in a name": (record("t_us x y on"), {}),
    "padded": (record("y x t p", "u2 u2 i8 ?", (2, 1, 0, 3), offsets=[0, 6, 8, 20], itemsize=24), {"time_unit": "us"}),
    "nameless fields": (record("f0 f1 f2 f3", "u2 u2 i8 f4", (1, 2, 0, 3)), {"columns": "x y t_us p"}),
    "rows": (EVENTS, {"columns": "t x y p", "time_unit": "us"}),
    "columns": (np.ascontiguousarray(EVENTS.T), {"columns": "t x y p", "time_unit": "us"}),
    "rows in Fortran's order": (np.asfortranarray(np.c_[EVENTS, EVENTS]), {"columns": "- x y - t_us - - p"}),
    "rows of floats": (EVENTS[:, [1, 2, 0, 3]].astype(float), {"columns": "x y t p", "time_unit": "us"}),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("form", ["npy", "stored", "deflated"])
@pytest.mark.parametrize("step", [1, 3, 1 << 20])
def test_layouts(tmp_path, monkeypatch, name, form, step):
    monkeypatch.setattr(arrays, "CHUNK", step)
    values, stated = LAYOUTS[name]
    members = {} if form == "npy" else {"events": values}
    path = saved(tmp_path, values if form == "npy" else form == "deflated", **members)
    events, problems, reader = read(path, size=(480, 640), **stated)
    np.testing.assert_array_equal(events, EVENTS)
    assert problems == []
    assert (reader.format, reader.height, reader.width) == (path.suffix[1:], 480, 640)


@pytest.mark.parametrize("deflated", [False, True])
def test_an_archive_of_columns(tmp_path, deflated):
    columns = {"polarity": np.where(P, 1, -1).astype(np.int8), "x": X.astype("u2"), "y": Y.astype("f4"), "label": 3}
    path = saved(tmp_path, deflated, **columns, timestamps=T[:, None])
    events, problems, reader = read(path, time_unit="us")
    np.testing.assert_array_equal(events, EVENTS)
    assert (problems, reader.height, reader.files) == ([], None, (path,))
    assert read(saved(tmp_path, deflated, **columns, t_ms=T))[0][:, 0].tolist() == (T * 1000).tolist()


@pytest.mark.parametrize(
    ("times", "unit", "expected"),
    [
        (np.array([1.5, -1.5, 0.0000015, 1468.123456]), "s", [1_500_000, -1_500_000, 2, 1_468_123_456]),
        (np.array([3, -3], np.int32), "s", [3_000_000, -3_000_000]),
        (np.array([1.0005, 2.0004999]), "ms", [1001, 2000]),
        (np.array([1999, -1, 2**63 - 1]), "ns", [1, -1, (2**63 - 1) // 1000]),
        (np.array([1999.0, -0.5]), "ns", [1, -1]),
        (np.array([0, 2**64 - 1], np.uint64), "ns", None),
    ],
)
def test_units(tmp_path, times, unit, expected):
    path = saved(tmp_path, True, t=times, x=times * 0, y=times * 0, p=np.ones(len(times)))
    events, problems, _ = read(path, time_unit=unit)
    if expected is None:
        assert events[:, 0].tolist() == [0] and problems[0].startswith(
            "1 × event whose time in µs does not fit 64 bits"
        )
    else:
        assert events[:, 0].tolist() == expected and problems == []


def test_bad_values_are_counted_where_they_are(tmp_path):
    nan, inf = np.nan, np.inf
    rows = [
        [1, 2, 3, 1],
        [nan, 2, 3, 1],
        [inf, 2, 3, 0],
        [1e300, 2, 3, 0],
        [1, 2.5, 3, 1],
        [1, 2, -1, 1],
        [1, 2, 65536, 1],
        [1, nan, 2, 1],
        [1, 2, 3, 2],
        [1, 2, 3, 0.5],
        [1, 2, 3, nan],
        [2, 65535, 0, 0],
        [3, 1, 1, -1],
    ]
    path = saved(tmp_path, np.array(rows))
    events, problems, _ = read(path, columns="t x y p", time_unit="s")
    assert events.tolist() == [[1_000_000, 2, 3, 1], [2_000_000, 65535, 0, 0], [3_000_000, 1, 1, 0]]
    start = path.stat().st_size - 32 * len(rows)
    assert problems == [
        f"2 × event whose time is NaN or infinite, set aside (first at byte {start + 32})",
        f"1 × event whose time in µs does not fit 64 bits, set aside (at byte {start + 3 * 32})",
        f"4 × event whose coordinate is no whole number from 0 to 65535, set aside (first at byte {start + 4 * 32})",
        f"3 × event whose polarity is not 0, 1, -1, true or false, set aside (first at byte {start + 8 * 32})",
        "polarity has both 0 and -1, both taken as darker",
    ]
    path = saved(tmp_path, record(types="i8 i4 i2 u1"))
    values = np.load(path)
    values["y"][1], values["p"][2], values["x"][3] = -1, 255, 70_000
    np.save(path, values)
    events, problems, _ = read(path, time_unit="us")
    assert events.tolist() == EVENTS[[0, 4]].tolist() and [line[0] for line in problems] == ["2", "1"]


def test_coarse_float_times_are_said(tmp_path):
    path = saved(tmp_path, True, t=np.array([1, 1000], "f4"), x=[1, 1], y=[1, 1], p=[True, False])
    events, problems, _ = read(path, time_unit="s")
    assert events[:, 0].tolist() == [1_000_000, 1_000_000_000]
    assert problems == ["times are float32, too coarse for single microseconds"]


def test_nothing_is_guessed(tmp_path):
    with pytest.raises(InputError, match="does not say the unit of its times; add --time_unit us"):
        read(saved(tmp_path, record()))
    with pytest.raises(InputError, match=r'does not name its columns .* add --columns "t x y p"'):
        read(saved(tmp_path, EVENTS))
    with pytest.raises(InputError, match="has the fields a, x, y, p; name each with --columns"):
        read(saved(tmp_path, record("a x y p")))
    with pytest.raises(InputError, match=r"has shape \(5, 4\), not the 6 columns"):
        read(saved(tmp_path, EVENTS), columns="t x y p - -", time_unit="us")
    with pytest.raises(InputError, match="has no arrays x, y, t, p but a, b; name the one of events with --stream"):
        read(saved(tmp_path, True, a=EVENTS, b=EVENTS), columns="t x y p", time_unit="us")
    with pytest.raises(InputError, match="has no array 'c'; name one of a, b with --stream"):
        read(saved(tmp_path, True, a=EVENTS, b=EVENTS), columns="t x y p", time_unit="us", stream="c")
    chosen = read(saved(tmp_path, True, a=EVENTS * 0, b=EVENTS), columns="t x y p", time_unit="us", stream="b")
    np.testing.assert_array_equal(chosen[0], EVENTS)
    with pytest.raises(InputError, match="has t as bool; save it as numbers"):
        read(saved(tmp_path, record(types="?  u2 u2 u1")), time_unit="us")


def test_python_objects_are_refused(tmp_path):
    for path in (
        saved(tmp_path, np.array({"t": 1}, dtype=object)),
        saved(tmp_path, record(types="O u2 u2 u1")),
        saved(tmp_path, True, event_data=np.array({"t": 1}, dtype=object)),
    ):
        with pytest.raises(InputError, match="holds Python objects, which are not unpickled"):
            read(path, time_unit="us")


def test_other_arrays_do_not_disturb(tmp_path):
    label = np.array({"class": 3}, dtype=object)
    events, problems, _ = read(saved(tmp_path, True, label=label, e=EVENTS), columns="t x y p", time_unit="us")
    assert events.tolist() == EVENTS.tolist() and problems == []
    events, problems, _ = read(saved(tmp_path, True, label=label, t_us=T, x=X, y=Y, p=P))
    assert events.tolist() == EVENTS.tolist() and problems == []


def test_arrays_of_other_lengths(tmp_path):
    path = saved(tmp_path, True, t=T, x=X[:3], y=Y, p=P[:2])
    events, problems, _ = read(path, time_unit="us")
    np.testing.assert_array_equal(events, EVENTS[:2])
    assert problems == ["3 × value without a partner in a shorter array, left out"]
    with pytest.raises(InputError, match=r"array x of shape \(2, 2\); give one value an event"):
        read(saved(tmp_path, True, t=T, x=np.zeros((2, 2)), y=Y, p=P), time_unit="us")


FIELDS = ast.literal_eval(repr(record().dtype.descr))
ROW = record().dtype.itemsize


@pytest.mark.parametrize("rows", [6, 10**6, 2**62])
def test_claims_beyond_the_file_are_not_believed(tmp_path, rows):
    path = tmp_path / "a.npy"
    path.write_bytes(npy(FIELDS, (rows,), record().tobytes() + b"\1\2", version=1 + rows % 2))
    events, problems, _ = read(path, time_unit="us")
    np.testing.assert_array_equal(events, EVENTS)
    end = path.stat().st_size - 2
    assert problems == [
        f"{rows - 5} × event claimed but not there, the file is cut short ({'first ' * (rows > 6)}at byte {end})"
    ]
    path.write_bytes(npy("<i8", (4, rows), EVENTS.T.tobytes()))
    if rows > 6:  # t, x, y would end beyond the file
        with pytest.raises(InputError, match=r"ends before its first event \(byte|cannot be read \(.*byte"):
            read(path, columns="t x y p", time_unit="us")
    else:  # the last column lacks two of its values
        events, problems, _ = read(path, columns="t x y p", time_unit="us")
        assert len(events) == 2 and problems[-1].startswith("4 × event claimed but not there")
    path.write_bytes(npy(FIELDS, (4,), record().tobytes()))
    events, problems, _ = read(path, time_unit="us")
    assert len(events) == 4 and problems == [
        f"1 × array with bytes after its last value, left out (at byte {path.stat().st_size - ROW})"
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"\x93NUMPY",
        b"\x93NUMPY\x09\0\x10\0" + b" " * 16,
        b"\x93NUMPY\x01\0\xff\xff{'descr'",
        npy("<i8", (-1, 4), b""),
        npy("<i8", (True, 4), b""),
        npy("<i8", 4, b""),
        npy("<q9", (1, 4), b""),
        npy("<i3", (1, 4), b""),
        npy("<i8", (1, 4), b"", fortran=2),
        npy(["<i8"], (1,), b""),
        npy([("t", "<i8"), ("x", [("y", "<i8")]), ("p", "|b1")], (1,), b""),
        npy([("t", "<i8", 10**9)], (1,), b""),
        npy([("t", "<i8", (10**9,))], (1,), b""),
        npy([(1, "<i8")], (1,), b""),
        npy([("t", "V70000")], (1,), b""),
        npy([], (1,), b""),
        npy(3, (1,), b""),
        b"\x93NUMPY\x01\0" + struct.pack("<H", 60_000) + b"-" * 60_000,
        b"\x93NUMPY\x01\0" + struct.pack("<H", 60_000) + b"(" * 60_000,
        b"\x93NUMPY\x01\0" + struct.pack("<H", 20) + b"__import__('os').abc",
    ],
)
def test_damaged_headers(tmp_path, data):
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"(damaged array header|does not begin as a NumPy array does) \(byte \d+\)"):
        read(path, columns="t x y p", time_unit="us")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("events.npy", data)
    with pytest.raises(InputError, match=r"events, at byte 0, (has a damaged array header|does not begin)"):
        read(tmp_path / "a.npz", columns="t x y p", time_unit="us")


def test_damaged_archives(tmp_path):
    rng = np.random.default_rng(0)
    n = 50_000
    many = np.stack([np.sort(rng.integers(0, 10**9, n)), *rng.integers(0, 180, (2, n)), rng.integers(0, 2, n)], 1)
    path = saved(tmp_path, True, t=many[:, 0], x=many[:, 1], y=many[:, 2], p=many[:, 3])
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("t.npy")
    path.write_bytes(whole[:-30])
    with pytest.raises(InputError, match=rf"is no whole zip archive of {len(whole) - 30} bytes"):
        read(path, time_unit="us")
    broken = bytearray(whole)
    at = member.header_offset + member.compress_size // 2
    broken[at : at + 64] = b"\xff" * 64  # the deflated stream breaks off here, or its checksum is wrong
    path.write_bytes(broken)
    events, problems, _ = read(path, time_unit="us")
    assert 0 < len(events) <= n and len(problems) >= 1 and f"at byte {member.header_offset})" in problems[-1]
    stored = saved(tmp_path, False, t=many[:, 0], x=many[:, 1], y=many[:, 2], p=many[:, 3])
    broken = bytearray(stored.read_bytes())
    broken[5000] ^= 1  # a stored value: only the checksum tells
    stored.write_bytes(broken)
    events, problems, _ = read(stored, time_unit="us")
    kept = n // (arrays.PIECE // 8) * (arrays.PIECE // 8)  # the piece in which the checksum fails is lost
    assert len(events) == kept and (events != many[:kept]).sum() == 1
    fault = "the file is damaged (Bad CRC-32 for file 't.npy')"
    assert problems == [f"{n - kept} × event claimed but not there, {fault} (first at byte 0)"]


def test_a_member_in_a_compression_that_may_swell_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, record())
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("events.npy", buffer.getvalue())
    with pytest.raises(InputError, match="in a compression that NumPy does not write"):
        read(tmp_path / "a.npz", time_unit="us")


def test_a_zip_bomb_is_read_in_bounded_pieces(tmp_path):
    """A member of 1 GB of zeros in 1 MB: its first events come at once, in a few MB."""
    import tracemalloc

    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("e.npy", "w") as member,
    ):
        member.write(npy(FIELDS, (10**9,), b""))
        for _ in range(64):
            member.write(bytes(1 << 20))
    reader = arrays.open_reader(tmp_path / "a.npz", "npz", Stated(time_unit="us"))
    tracemalloc.start()
    try:
        first = next(reader.columns(Problems()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(first.t) == arrays.BLOCK // ROW and peak < 12 * arrays.BLOCK


SEEDS = []


def seeds(folder):
    if not SEEDS:
        for values, stated in LAYOUTS.values():
            SEEDS.append((saved(folder, values).read_bytes(), "npy", stated))
            SEEDS.append((saved(folder, True, events=values).read_bytes(), "npz", stated))
        SEEDS.append((saved(folder, False, t=T, x=X, y=Y, p=P).read_bytes(), "npz", {"time_unit": "us"}))
    return SEEDS


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 18), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=4), st.floats(0.3, 1))
def test_any_damage_ends_in_an_error_or_events(tmp_path_factory, seed, flips, share):
    folder = tmp_path_factory.mktemp("arrays")
    data, format, stated = seeds(folder)[seed]
    damaged = bytearray(data)
    for place, bit in flips:
        damaged[int(place * (len(damaged) - 1))] ^= 1 << bit
    cut = damaged if share > 0.7 else damaged[: int(share * len(damaged))]
    path = folder / f"damaged.{format}"
    path.write_bytes(cut)
    try:
        events, problems, _ = read(path, format, **stated)
    except InputError as error:
        assert "\n" not in str(error) and "; " in str(error)
    else:
        assert len(events) <= len(EVENTS)
        if format == "npz" and bytes(cut) != data and not np.array_equal(events, EVENTS):
            assert problems  # an archive has checksums: it never is wrong in silence
