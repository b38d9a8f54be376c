"""Text with stated columns: exact times, every fault counted, nothing guessed."""

from fractions import Fraction
from itertools import pairwise
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import ConfigError, InputError
from evlift.events.readers import table, text_kernels
from evlift.events.readers.reader import Problems, Stated


def read(path, **stated):
    """(x, y, t, p as lists, problem lines, reader)."""
    reader, problems = table.open_reader(path, "csv", Stated(**stated)), Problems()
    chunks = list(reader.columns(problems))
    columns = [np.concatenate([np.zeros(0, d), *(c[i] for c in chunks)]) for i, d in enumerate(("u2", "u2", "i8", "?"))]
    assert [c.dtype.str for c in columns] == ["<u2", "<u2", "<i8", "|b1"]
    return *(c.tolist() for c in columns), problems.lines(), reader


def written(tmp_path, text, name="events.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("5,10,20,1\n7,11,21,0\n", {"columns": "t x y p", "time_unit": "us"}),
        ("10 20 1 5\r\n11 21 -1 7\r\n", {"columns": "x,y,p,t", "time_unit": "us"}),
        ("true;10;20;5000\nFalse;11;21;7999\n", {"columns": "p x y t", "time_unit": "ns"}),
        ("9\t10\t20\t1\t0.000005\n9\t11\t21\t0\t7e-6\n", {"columns": "- x y p t", "time_unit": "s"}),
        ("timestamp_us,x,y,polarity\n5,10,20,1\n7,11,21,0\n", {}),
        ("\ufeff x , y, on, time (ms)\n\n10, 20, 1, 0.005\n11, 21, 0, .0074999\n", {}),
        (",t[us],x,y,pol\n0,5,10,20,1\n1,7,11,21,0\n", {}),
        ("# ts_ns x y p\n# a comment\n5000 10 20 1\n7000 11 21 0\n", {}),
        ("240 180\n5 10 20 1\n7 11 21 0", {"columns": "t_us x y p"}),
        (
            "5.000000000000000000e+00 1.0e1 2.000000000000000000e+01 1.0e+00\n7e0 11.0 21 -0.0\n",
            {"columns": "t x y p", "time_unit": "us"},
        ),
    ],
)
def test_columns_and_units_come_from_the_user_or_the_names(tmp_path, text, stated):
    x, y, t, p, problems, reader = read(written(tmp_path, text), **stated)
    assert (x, y, t, p) == ([10, 11], [20, 21], [5, 7], [True, False])
    assert (reader.height, reader.width) == ((180, 240) if text.startswith("240") else (None, None))
    assert problems == []


def test_nothing_is_guessed(tmp_path):
    plain = written(tmp_path, "5,10,20,1\n")
    with pytest.raises(InputError, match=r'does not name its columns; add --columns "t x y p" .* --time_unit us'):
        read(plain)
    with pytest.raises(InputError, match="does not say the unit of its times; add --time_unit us"):
        read(plain, columns="t x y p")
    with pytest.raises(InputError, match=r"does not say the unit"):
        read(written(tmp_path, "ts,x,y,p\n5,10,20,1\n"))
    with pytest.raises(InputError, match=r'lines of 4 columns were read as "t x y p -", name each with --columns'):
        read(plain, columns="t x y p -", time_unit="us")
    for columns in ("t x y", "t x y p p", "t x y q", "t x y p label"):
        with pytest.raises(ConfigError, match="name t, x, y and p once each"):
            read(plain, columns=columns, time_unit="us")
    with pytest.raises(InputError, match="holds no events"):
        read(written(tmp_path, "t_us x y p\n"))
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)


def test_what_the_user_states_outranks_the_names(tmp_path):
    path = written(tmp_path, "t_us,x,y,p\n5,10,20,1\n")
    assert read(path, time_unit="ms")[2] == [5000]
    assert read(path, columns="x y t_us p")[:3] == ([5], [10], [20])


def test_a_line_that_is_no_event_is_counted_where_it_is(tmp_path):
    lines = [
        b"1,2,3,1",
        b"1,2,3",  # a field too few
        b"1,2,3,1,5",  # too many
        b"one,2,3,1",
        b"1,2.5,3,1",
        b"1,-2,3,1",
        b"1,2,65536,1",
        b"1,2,3,2",
        b"1,2,3,yes",
        b"nan,2,3,1",
        b"-inf,2,3,0",
        b"9223372036854775808,2,3,0",
        b"1e99,2,3,0",
        b"\x00\xff\xfe,2,3,1",
        b"1,,3,1",
        b"1-,2,3,1",
        b"-,2,3,1",
        b"1e,2,3,1",
        b"  # a comment, no fault",
        b"",
        b"-5, 65535, 0, -1",
    ]
    at = np.cumsum([0] + [len(line) + 1 for line in lines])
    path = written(tmp_path, b"\n".join(lines) + b"\n")
    x, y, t, p, problems, _ = read(path, columns="t x y p", time_unit="us")
    assert (x, y, t, p) == ([2, 65535], [3, 0], [1, -5], [True, False])
    assert problems == [
        f"8 × line that is not an event, set aside (first at byte {at[1]})",
        f"3 × event whose coordinate is no whole number from 0 to 65535, set aside (first at byte {at[4]})",
        f"2 × event whose polarity is not 0, 1, -1, true or false, set aside (first at byte {at[7]})",
        f"2 × event whose time is NaN or infinite, set aside (first at byte {at[9]})",
        f"2 × event whose time in µs does not fit 64 bits, set aside (first at byte {at[11]})",
    ]


def test_text_without_a_single_event_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no line that is an event \(the first other one at byte 0\).*--columns"):
        read(written(tmp_path, "300 0.5 20 1\n" * 3), columns="t x y p", time_unit="us")
    with pytest.raises(InputError, match="no line that is an event"):
        read(written(tmp_path, bytes(range(1, 256)) + b"\na b c d"), columns="t x y p", time_unit="us")


def test_both_zero_and_minus_one_are_said(tmp_path):
    stated = {"columns": "t x y p", "time_unit": "us"}
    assert read(written(tmp_path, "1 2 3 0\n1 2 3 -1\n1 2 3 1\n"), **stated)[3:5] == (
        [False, False, True],
        ["polarity has both 0 and -1, both taken as darker"],
    )
    assert read(written(tmp_path, "1 2 3 1\n1 2 3 -1\n"), **stated)[4] == []


def test_a_last_line_that_may_be_cut_is_said(tmp_path):
    text = "2 3 1 1000\n2 3 1 1200"
    assert read(written(tmp_path, text), columns="x y p t", time_unit="us")[4] == [
        f"1 × last line without an end, kept as it is; the file may be cut short (at byte {len(text)})"
    ]


def test_blocks_and_endless_lines(tmp_path, monkeypatch):
    """Whatever the block's size, the events and faults are the same, and a line longer than it is one fault."""
    monkeypatch.setattr(table, "BLOCK", 64)
    good = [f"{7 * i},{i % 200},{i % 100},{i % 2}" for i in range(100)]
    endless = "9" * 500
    path = written(tmp_path, "\n".join([*good[:50], endless, *good[50:], endless]))
    x, y, t, p, problems, _ = read(path, columns="t x y p", time_unit="us")
    assert t == [7 * i for i in range(100)]
    assert (x, y, p) == ([i % 200 for i in range(100)], [i % 100 for i in range(100)], [i % 2 == 1 for i in range(100)])
    assert problems == [f"2 × line that is not an event, set aside (first at byte {len(chr(10).join(good[:50])) + 1})"]
    chunks = list(table.open_reader(path, "csv", Stated(columns="t x y p", time_unit="us")).columns(Problems()))
    assert len(chunks) >= 20 and all(0 < a.done <= b.done <= 1 for a, b in pairwise(chunks))


def exact(text, unit):
    """The rule, in exact arithmetic: nearest µs, halves up; nanoseconds down. None outside 64 bits."""
    us = Fraction(text) * {"s": 10**6, "ms": 1000, "us": 1, "ns": Fraction(1, 1000)}[unit]
    value = floor(us) if unit == "ns" else floor(us + Fraction(1, 2))
    return value if -(2**63) < value < 2**63 else None


@st.composite
def decimals(draw):
    whole = draw(st.one_of(st.integers(0, 10**7), st.integers(0, 10**30))) if draw(st.booleans()) else 0
    text = draw(st.sampled_from(["", "-", "+"])) + "0" * draw(st.integers(0, 2)) + str(whole)
    if draw(st.booleans()):
        text += "." + draw(
            st.sampled_from(["", "5", "0000005", "00000149999999999999999999", "0015000000000000000000001"])
        )
        text += str(draw(st.integers(0, 10**12))) if draw(st.booleans()) else ""
    if draw(st.integers(0, 4)) == 0:
        text += f"{draw(st.sampled_from('eE'))}{draw(st.integers(-25, 25))}"
    return text


@settings(max_examples=300, deadline=None)
@given(st.lists(decimals(), min_size=1, max_size=8), st.sampled_from(["s", "ms", "us", "ns"]))
def test_times_are_exact(texts, unit):
    lines = np.frombuffer("".join(f"{t} 1 2 1\n" for t in texts).encode(), np.uint8)
    n = len(texts) + 1
    x, y, t, p = np.empty(n, np.uint16), np.empty(n, np.uint16), np.empty(n, np.int64), np.empty(n, np.uint8)
    counts, firsts = np.zeros((2, text_kernels.COUNTS), np.int64)
    columns = np.array([text_kernels.T, text_kernels.X, text_kernels.Y, text_kernels.P])
    shift, floored = table.SHIFTS[unit], unit == "ns"
    n, used = text_kernels.parse_lines(lines, columns, shift, floored, x, y, t, p, counts, firsts)
    expected = [exact(text, unit) for text in texts]
    # Of over 19 digits, with a value of 10^18 µs and more, a time may be set aside though it would just fit.
    kept = [v for v in expected if v is not None and abs(v) < 10**18]
    got = [int(v) for v in t[:n] if abs(int(v)) < 10**18]
    assert got == kept and used == len(lines)
    assert n + counts[text_kernels.TOO_LARGE] == len(texts)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.lists(st.sampled_from([0, 1, 2, 3, 4]), min_size=1, max_size=6))
def test_any_bytes_end_within_the_data(data, columns):
    """Every line is an event, a fault, a comment or blank, whatever it holds."""
    lines = np.frombuffer(data + b"\n", np.uint8)
    x, y, t, p = (np.zeros(64, d) for d in (np.uint16, np.uint16, np.int64, np.uint8))
    counts, firsts = np.zeros((2, text_kernels.COUNTS), np.int64)
    n, used = text_kernels.parse_lines(lines, np.array(columns), 6, False, x, y, t, p, counts, firsts)
    assert 0 <= n <= 64 and used <= len(lines) and (n == 64 or used == len(lines))
    assert all(0 <= at < len(lines) for at in firsts)
    bare = [line.strip(b" \t\r") for line in data.split(b"\n")]
    assert n == 64 or n + counts[:5].sum() == sum(line != b"" and line[:1] not in b"#%" for line in bare)
