"""Packed recordings: lossless, exact to the microsecond, all or nothing, and safe when damaged."""

import errno
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlift.errors import ConfigError, InputError
from evlift.events import Events, Frame, Recording, open_recording, write_recording, writing
from evlift.events.filters import Rectify
from evlift.events.readers import Problems
from evlift.represent import VoxelGrid, rectify

DATA = Path(__file__).parents[2] / "../shared/data"


def some_events(n=3000, seed=0, height=60, width=80, start=0, span=50_000):
    rng = np.random.default_rng(seed)
    t = start + np.sort(rng.integers(0, span, n))
    return Events(rng.integers(0, width, n), rng.integers(0, height, n), t, rng.integers(0, 2, n), height, width)


@st.composite
def streams(draw):
    """Streams with gaps, bursts at one time, negative and huge times, at any size that a word holds."""
    height, width = draw(st.sampled_from([(1, 1), (60, 80), (1024, 2048), (720, 1280)]))
    gaps = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 400, 999, 1000, 1001, 5000, 250_000]), max_size=120))
    start = draw(st.sampled_from([0, 999, 1000, -1, -1000, -1_234_567, 1_700_000_000_123_456]))
    n = len(gaps)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    t = start + np.cumsum(np.array(gaps, np.int64)) if n else []
    x = rng.choice([0, width - 1, width // 2], n)
    return Events(x, rng.integers(0, height, n), t, rng.integers(0, 2, n), height, width)


@settings(max_examples=60, deadline=None)
@given(streams(), st.integers(1, 50), st.randoms(use_true_random=False))
def test_packing_is_lossless_and_windows_are_exact(e, count, random):
    with tempfile.TemporaryDirectory() as folder:
        r = write_recording(Path(folder) / "r", e.chunks(count), height=e.height, width=e.width)
        assert (r.height, r.width, len(r)) == (e.height, e.width, len(e))
        assert (r.t_first, r.t_last, r.duration_us) == (e.t_first, e.t_last, e.duration_us)
        assert r.events() == e
        for _ in range(12):
            anchor = int(random.choice(e.t)) if len(e) else 0
            t0 = anchor + random.choice([-1001, -1, 0, 1, 500, 1000])
            t1 = t0 + random.choice([0, 1, 2, 999, 1000, 1001, 10**6])
            window, expected = r.window(t0, t1), e.between(t0, t1)
            assert window.events() == expected == r.events(t0, t1)
            assert len(window) == r.count(t0, t1) == len(expected)
            before = e.between(-(2**63), t1)
            last = r.last(count, t1)
            assert last.events() == before[max(0, len(before) - count) :]
            np.testing.assert_array_equal(r.window(t0 + 0.5, t1 + 0.5).events().t, e.between(t0 + 1, t1 + 1).t)
            if e.height <= 60:  # a grid of two million pixels a try would take the minute
                np.testing.assert_allclose(VoxelGrid(4)(last), VoxelGrid(4)(last.events()), rtol=1e-5, atol=1e-5)


def test_the_layout_is_the_documented_one(tmp_path):
    e = Events([2047, 5], [1023, 6], [-1, 2001], [1, 0], 1024, 2048)
    write_recording(tmp_path / "r", e)
    words = np.fromfile(tmp_path / "r" / "events.u32", "<u4")
    assert words.tolist() == [2047 | 1023 << 11 | 1 << 21 | 999 << 22, 5 | 6 << 11 | 0 << 21 | 1 << 22]
    assert np.load(tmp_path / "r" / "ms_index.npy").tolist() == [0, 1, 1, 1, 2]  # milliseconds -1, 0, 1, 2
    info = json.loads((tmp_path / "r" / "recording.json").read_text())
    assert (info["first_ms"], info["events"], info["t_first_us"], info["t_last_us"]) == (-1, 2, -1, 2001)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r"]


def test_large_chunks_and_gaps_are_written_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_BLOCK", 100)
    parts = [
        some_events(1000, 1, span=20_000),
        some_events(50, 2, start=900_000),
        some_events(1000, 3, start=2_000_000),
    ]
    r = write_recording(tmp_path / "r", parts)
    assert r.events() == Events.concatenate(parts)
    assert r.count(20_000, 900_000) == 0 and len(r.window(899_999, 950_001)) == 50
    described = r.describe()
    assert described["longest_gap_ms"] >= 1000 and "silence" in " ".join(described["problems"])


def test_an_empty_recording_needs_a_size_and_opens(tmp_path):
    with pytest.raises(InputError, match="size"):
        write_recording(tmp_path / "none", [])
    r = write_recording(tmp_path / "r", [], height=4, width=5)
    assert len(r) == 0 and r.events() == Events.empty(4, 5) == r.last(3, 10).events() == r.window(0, 9).events()
    assert r.count(0, 10) == 0 and r.describe()["t_first_us"] is None
    assert not VoxelGrid(3)(r.window(0, 1000)).any()


def test_what_is_known_of_a_recording_is_kept(tmp_path):
    source = tmp_path / "raw.bin"
    source.write_bytes(b"raw events")
    r = write_recording(
        *(tmp_path / "r", some_events()),
        sensor="davis240",
        source=source,
        licence="CC BY 4.0",
        clock="camera",
        tags={"split": "train"},
        calibration={"fx": 200.5},
    )
    assert (r.sensor, r.clock, r.calibration) == ("davis240", "camera", {"fx": 200.5})
    d = open_recording(tmp_path / "r").describe()
    assert d["source"] == {"name": "raw.bin", "sha256": hashlib.sha256(b"raw events").hexdigest(), "bytes": 10}
    assert (d["sensor"], d["licence"], d["clock"], d["tags"]) == ("davis240", "CC BY 4.0", "camera", {"split": "train"})
    assert d["calibration"] == {"fx": 200.5} and d["format"] == "packed" and d["problems"] == []
    e = some_events()
    assert (d["events"], d["on"], d["off"]) == (3000, int(e.p.sum()), int((~e.p).sum()))
    assert d["rate_hz"] == pytest.approx(3000 / (e.duration_us / 1e6))
    best = max(((e.t // 1000 >= k) & (e.t // 1000 < k + 10)).sum() for k in range(50))
    assert d["peak_rate_hz"] == best * 100
    assert str(tmp_path) not in json.dumps(r.info)
    for bad in ({"tags": {1, 2}}, {"calibration": np.zeros(3)}):
        with pytest.raises(InputError, match="JSON"):
            write_recording(tmp_path / "bad", some_events(), **bad)
    assert not (tmp_path / "bad").exists()


def test_frames_come_back(tmp_path):
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    colour = np.stack([np.tile(ramp, (48, 1)), np.full((48, 64), 40, np.uint8), np.tile(ramp[::-1], (48, 1))], -1)
    frames = [Frame(100, colour, 8), Frame(30_000, colour[..., 0]), Frame(99_000, colour[::2, ::2])]
    r = write_recording(tmp_path / "r", some_events(), frames=iter(frames))
    assert r.frames.t_us.tolist() == [100, 30_000, 99_000] and r.frames.exposure_us.tolist() == [8, 0, 0]
    assert r.frames.file.tolist() == ["000000.jpg", "000001.jpg", "000002.jpg"] and len(r.frames) == 3
    assert np.abs(r.frame(0).astype(int) - colour).max() <= 6
    assert np.abs(r.frame(1).astype(int) - colour[..., :1]).max() <= 6 and r.frame(1).shape == (48, 64, 3)
    assert r.frame(-1).shape == (24, 32, 3)
    assert r.describe()["frames"] == 3
    assert any("1 of 3 frames lie before" in p for p in r.describe()["problems"])
    with pytest.raises(InputError, match="no frame 3"):
        r.frame(3)
    again = list(r.images())
    assert [(f.t_us, f.exposure_us) for f in again] == [(100, 8), (30_000, 0), (99_000, 0)]
    assert all(np.array_equal(f.image, r.frame(i)) for i, f in enumerate(again))
    (tmp_path / "r" / "frames" / "000001.jpg").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"000001\.jpg"):
        r.frame(1)
    problems = Problems()
    assert [f.t_us for f in r.images(problems)] == [100, 99_000]
    assert problems.lines() == ["1 × frame that cannot be read, left out"]
    (tmp_path / "r" / "frames" / "000001.jpg").unlink()
    assert any("missing" in p for p in r.describe()["problems"])
    (tmp_path / "r" / "frames.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"frames\.parquet"):
        _ = open_recording(tmp_path / "r").frames
    assert any("frames.parquet" in p for p in open_recording(tmp_path / "r").describe()["problems"])


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(5, np.zeros((4, 4), np.uint8)), Frame(4, np.zeros((4, 4), np.uint8))],
        [Frame(5, np.zeros((4, 4)))],
        [Frame(5, np.zeros((4, 4, 4), np.uint8))],
        [Frame(5, np.zeros((0, 4), np.uint8))],
    ],
)
def test_frames_that_cannot_be_kept_leave_nothing(tmp_path, frames):
    with pytest.raises(InputError):
        write_recording(tmp_path / "r", some_events(), frames=frames)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("chunks", "says"),
    [
        ([some_events(start=60_000), some_events()], "order of time"),
        ([some_events(), some_events(height=61, start=60_000)], "one size"),
        ([some_events(), "events"], "not str"),
        (Events([0], [0], [0], [1], 1025, 10), "at most 2048×1024"),
        (Events([0, 0], [0, 0], [0, 10**12], [1, 1], 10, 10), "hours"),
    ],
)
def test_events_that_cannot_be_packed_leave_nothing(tmp_path, chunks, says):
    with pytest.raises(InputError, match=says) as error:
        write_recording(tmp_path / "r", chunks)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_path_is_refused_and_kept(tmp_path):
    write_recording(tmp_path / "r", some_events())
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("r", "file", "full", "link"):
        with pytest.raises(InputError, match="exists"):
            write_recording(tmp_path / name, some_events(10))
    assert len(open_recording(tmp_path / "r")) == 3000 and (tmp_path / "file").read_text() == "mine"

    def meanwhile():
        yield some_events()
        (tmp_path / "late").mkdir()
        (tmp_path / "late" / "note").write_text("theirs")

    with pytest.raises(InputError, match="exists"):
        write_recording(tmp_path / "late", meanwhile())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full", "late", "link", "r"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "mine").mkdir()
    assert write_recording(tmp_path / "mine", some_events()).events() == some_events()
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_rectify_map_comes_back_and_fits_what_takes_one(tmp_path):
    e = some_events(height=4, width=6)
    table = np.stack(np.meshgrid(np.arange(1.0, 7), np.arange(0.25, 4)), -1)  # float64: one column to the right
    r = write_recording(tmp_path / "r", e, rectify_map=table)
    assert r.rectify_map.dtype == np.float32 and np.array_equal(r.rectify_map, table)
    moved = Rectify(r.rectify_map)(r.events())
    assert np.array_equal(moved.x, e.x[e.x < 5] + 1) and np.array_equal(moved.y, e.y[e.x < 5])
    grid = np.zeros((1, 4, 6), np.float32)
    grid[0, 1, 2] = 8
    assert rectify(grid, r.rectify_map)[0, 1:3, 3].tolist() == [6, 2]
    assert r.describe()["rectify_map"] is True
    assert pickle.loads(pickle.dumps(r)).rectify_map.shape == (4, 6, 2)
    plain = write_recording(tmp_path / "plain", e)
    assert plain.rectify_map is None and plain.describe()["rectify_map"] is False
    for bad in (table[:3], table.astype(int), table[..., :1], np.array([[[b"x"] * 2] * 6] * 4, object)):
        with pytest.raises(InputError, match="rectify_map"):
            write_recording(tmp_path / "bad", e, rectify_map=bad)
    assert not (tmp_path / "bad").exists()
    file = tmp_path / "r" / "rectify_map.npy"
    for damaged in (None, file.read_bytes()[:-9], b"", npy(table), npy(np.array([[[{}] * 2] * 6] * 4))):
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"rectify_map\.npy"):
            _ = open_recording(tmp_path / "r").rectify_map
        assert "rectify_map.npy" in " ".join(open_recording(tmp_path / "r").describe()["problems"])
        file.write_bytes(b"")


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_what_is_stated_means_nothing_to_a_packed_recording(tmp_path):
    write_recording(tmp_path / "r", some_events())
    with pytest.raises(ConfigError, match=r"--size and --stream mean nothing to .*packed"):
        open_recording(tmp_path / "r", size=(60, 80), stream="left")


def test_the_share_that_is_read_ends_at_one(tmp_path):
    r = write_recording(tmp_path / "r", some_events())
    assert [c.done for c in r.columns(Problems())] == [1.0]


def test_a_failing_source_leaves_nothing_and_is_told(tmp_path):
    def broken():
        yield some_events()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_recording(tmp_path / "r", broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is always full")
@pytest.mark.parametrize("victim", ["events.u32", "ms_index.npy", "recording.json", "frames.parquet"])
def test_a_full_disk_leaves_nothing_and_says_so(tmp_path, monkeypatch, victim):
    real = open

    def full(path, *args, **kwargs):
        return real("/dev/full" if str(path).endswith(victim) else path, *args, **kwargs)

    for module in ("writing", "frames"):
        monkeypatch.setattr(f"evlift.events.{module}.open", full, raising=False)
    with pytest.raises(InputError) as error:
        write_recording(tmp_path / "r", some_events(), frames=[Frame(0, np.zeros((4, 4), np.uint8))])
    assert os.strerror(errno.ENOSPC) in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_recording(tmp_path / "file" / "r", some_events(10))


def test_a_killed_conversion_leaves_nothing_that_opens(tmp_path):
    code = """
import sys, time
import numpy as np
from evlift.events import Events, write_recording
def endless():
    t = 0
    while True:
        yield Events([1], [1], [t], [1], 4, 4)
        t += 10
        if t == 1000:
            print("writing", flush=True)
write_recording(sys.argv[1], endless())
"""
    target = tmp_path / "r"
    process = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, env=os.environ)
    assert process.stdout.readline() == b"writing\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists()
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    for path in left:
        with pytest.raises(InputError, match="cut short"):
            open_recording(path)
        path.rename(tmp_path / "renamed")
        with pytest.raises(InputError, match="not a packed recording"):
            open_recording(tmp_path / "renamed")
    assert len(write_recording(target, some_events())) == 3000


def test_it_reopens_in_another_process(tmp_path):
    r = write_recording(tmp_path / "r", some_events())
    assert len(pickle.dumps(r)) < 1000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(Recording.count, (r, 10_000, 20_000)) == r.count(10_000, 20_000) > 0


def test_windows_are_views(tmp_path):
    r = write_recording(tmp_path / "r", some_events())
    window = r.window(10_000, 20_000)
    assert window.words.base is not None and np.shares_memory(window.words, r.window(0, 50_000).words)
    assert not window.words.flags.writeable
    assert "Window(" in repr(window) and "80×60" in repr(window) and "3,000 events" in repr(r)


def damage(path, name, how):
    file = path / name
    if how == "missing":
        file.unlink()
    elif how == "short":
        file.write_bytes(file.read_bytes()[:-3])
    elif how == "empty":
        file.write_bytes(b"")
    else:
        file.write_bytes(how(file.read_bytes()))


@pytest.mark.parametrize("name", ["events.u32", "ms_index.npy", "recording.json"])
@pytest.mark.parametrize("how", ["missing", "short", "empty", lambda b: b + b"\0\0\0\0", lambda b: b"\0" * len(b)])
def test_damaged_files_do_not_open_or_are_reported(tmp_path, name, how):
    write_recording(tmp_path / "r", some_events())
    damage(tmp_path / "r", name, how)
    if name == "ms_index.npy" and callable(how) and len(how(b"12345")) > 5:
        assert open_recording(tmp_path / "r").events() == some_events()  # bytes after an array are no part of it
        return
    if name == "events.u32" and callable(how) and len(how(b"12345")) == 5:
        assert open_recording(tmp_path / "r").describe()["problems"]  # all zero: only the counts can tell
        return
    with pytest.raises(InputError) as error:
        open_recording(tmp_path / "r")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"height": 0},
        {"width": "80"},
        {"width": 1e9},
        {"events": -1},
        {"events": None},
        {"milliseconds": 2**50},
        {"first_ms": 2**70},
        {"t_first_us": "0"},
        {"version": 99},
        {"format": "x"},
    ],
)
def test_a_wrong_description_does_not_open(tmp_path, change):
    write_recording(tmp_path / "r", some_events())
    file = tmp_path / "r" / "recording.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match="recording"):
        open_recording(tmp_path / "r")


def test_paths_that_are_no_recording(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError):
            open_recording(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="empty"):
        open_recording(tmp_path / "file")


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_damaged_contents_raise_or_decode_but_never_crash(seed):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r"
        write_recording(path, some_events(600))
        words = np.memmap(path / "events.u32", "<u4", mode="r+")
        index = np.load(path / "ms_index.npy", mmap_mode="r+")
        if rng.random() < 0.5:
            words[rng.integers(0, len(words), 5)] = rng.integers(0, 2**32, 5)
        if rng.random() < 0.7:
            index[rng.integers(1, len(index) - 1, 3)] = rng.integers(-(2**40), 2**40, 3) >> rng.integers(0, 40)
        del words, index
        r = open_recording(path)
        for use in (
            lambda: r.window(*np.sort(rng.integers(-1000, 52_000, 2))),
            lambda: r.last(int(rng.integers(0, 700)), int(rng.integers(0, 52_000))),
        ):
            for read in (lambda w: w.events(), VoxelGrid(5)):
                try:
                    read(use())
                except InputError as e:
                    assert "damaged" in str(e) or "check" in str(e) or "sort" in str(e)
        assert isinstance(r.describe()["problems"], list)


def test_describe_names_what_is_wrong(tmp_path):
    e = some_events(2000)
    hot = Events(np.full(9000, 7), np.full(9000, 9), np.arange(9000) * 5, np.ones(9000, bool), 60, 80)
    order = np.argsort(np.concatenate([e.t, hot.t]), kind="stable")
    both = [np.concatenate([getattr(e, c), getattr(hot, c)])[order] for c in "xytp"]
    r = write_recording(tmp_path / "r", Events(*both, 60, 80))
    assert [p for p in r.describe()["problems"] if "hot" in p] == ["1 hot pixel, (x, y): (7, 9)"]
    words = np.memmap(tmp_path / "r" / "events.u32", "<u4", mode="r+")
    words[100] |= 0x7FF
    words[200] |= 0x3FF << 22
    del words
    problems = " · ".join(open_recording(tmp_path / "r").describe()["problems"])
    assert "1 × event outside the 80×60 sensor" in problems and "1 × event outside its millisecond" in problems


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_real_davis_events_survive_packing(tmp_path):
    table = np.loadtxt(DATA / "slider_depth" / "events.txt", max_rows=20_000)
    t = np.round(table[:, 0] * 1e6).astype(np.int64)
    x, y, p = (table[:, i].astype(int) for i in (1, 2, 3))
    e = Events(x, y, t, p, 180, 240)
    r = write_recording(tmp_path / "r", e.chunks(1234))
    assert r.events() == e
    middle = (r.t_first + r.t_last) // 2
    assert r.window(middle, middle + 10_000).events() == e.between(middle, middle + 10_000)
