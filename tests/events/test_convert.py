"""Conversion to packed recordings: the same events, whole or not there, and the same command goes on."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from evlift import Events, open_recording
from evlift.__main__ import main
from evlift.errors import InputError
from evlift.events import FileRecording, Recording, convert
from evlift.events.readers import Problems, Stated


def some_events(count=2000, seed=0, height=48, width=64):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, 400_000, count))
    return Events(
        rng.integers(0, width, count), rng.integers(0, height, count), t, rng.random(count) < 0.5, height, width
    )


def write_dat(path, events, size=True, tail=b""):
    """Prophesee DAT, version 2: header lines, event type and size, then (uint32 µs, x | y << 14 | p << 28)."""
    header = "% Data file containing CD events.\n% Version 2\n"
    if size:
        header += f"% Height {events.height}\n% Width {events.width}\n"
    data = np.empty((len(events), 2), "<u4")
    data[:, 0] = events.t
    data[:, 1] = events.x.astype("u4") | events.y.astype("u4") << 14 | events.p.astype("u4") << 28
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + b"\x0c\x08" + data.tobytes() + tail)
    return path


def test_one_file_becomes_the_folder_itself(tmp_path):
    e = some_events()
    (recording,) = convert(write_dat(tmp_path / "a.dat", e, tail=b"\0\0\0"), tmp_path / "rec")
    assert recording.path == tmp_path / "rec" and recording.events() == e
    info = recording.info
    assert info["source"]["name"] == "a.dat" and info["source"]["format"] == "dat"
    assert info["source"]["files"][0]["bytes"] == (tmp_path / "a.dat").stat().st_size
    assert len(info["problems"]) == 1 and "byte" in info["problems"][0]  # the cut last event
    assert recording.describe()["problems"] == info["problems"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.dat", "rec"]


def test_what_is_done_is_kept_and_nothing_else_is_overwritten(tmp_path):
    source = write_dat(tmp_path / "a.dat", some_events())
    convert(source, tmp_path / "rec")
    made = (tmp_path / "rec" / "recording.json").stat().st_mtime_ns
    os.utime(source)  # another time, the same content
    convert(source, tmp_path / "rec")
    assert (tmp_path / "rec" / "recording.json").stat().st_mtime_ns == made
    with pytest.raises(InputError, match="exists already"):
        convert(source, tmp_path / "rec", duplicates="drop")
    with pytest.raises(InputError, match="exists already"):
        convert(source, tmp_path / "rec", stated=Stated(size=(100, 100)))
    write_dat(source, some_events(seed=1))
    with pytest.raises(InputError, match="exists already"):
        convert(source, tmp_path / "rec")
    assert Recording(tmp_path / "rec").events() == some_events()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_becomes_a_folder_and_one_bad_file_stops_no_other(tmp_path, workers):
    events = {name: some_events(seed=i) for i, name in enumerate(["day/a", "day/b", "night"])}
    for name, e in events.items():
        write_dat(tmp_path / "in" / f"{name}.dat", e)
    (tmp_path / "in" / "notes.txt").write_text("not a recording")
    recordings = convert(tmp_path / "in", tmp_path / "out", workers=workers)
    assert [str(r.path.relative_to(tmp_path / "out")) for r in recordings] == list(events)
    assert all(r.events() == e for r, e in zip(recordings, events.values(), strict=True))

    (tmp_path / "in" / "bad.dat").write_bytes(b"% Version 7\n% Data file containing CD events.\n\x0c\x09")
    with pytest.raises(InputError, match=r"1 of 4 .*bad\.dat"):
        convert(tmp_path / "in", tmp_path / "out", workers=workers)


def test_names_that_would_meet_are_told_apart(tmp_path):
    a = write_dat(tmp_path / "1" / "a.dat", some_events())
    b = write_dat(tmp_path / "2" / "a.dat", some_events(seed=1))
    with pytest.raises(InputError, match="two folders"):
        convert([a, b], tmp_path / "out")
    c = write_dat(tmp_path / "1" / "a.raw", some_events(seed=2))
    convert([a, c], tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a-dat", "a-raw"]


def test_a_killed_conversion_leaves_nothing_that_opens_and_goes_on(tmp_path):
    e = some_events(3_000_000)
    write_dat(tmp_path / "a.dat", e)
    slow = "import evlift.events.rules as r, time\nkeep = r.apply_rules\n"
    slow += "def wait(*a, **k):\n for x in keep(*a, **k):\n  yield x\n  time.sleep(0.5)\n"
    slow += "import evlift.events.source as s\ns.apply_rules = wait\nimport evlift\n"
    code = slow + f"evlift.convert({str(tmp_path / 'a.dat')!r}, {str(tmp_path / 'rec')!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size for p in tmp_path.glob(".rec.partial-*/events.u32")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = tmp_path.glob(".rec.partial-*")
    assert not (tmp_path / "rec").exists()
    with pytest.raises(InputError):
        open_recording(left)
    (recording,) = convert(tmp_path / "a.dat", tmp_path / "rec")
    assert recording.events() == e
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.dat", "rec"]


def test_more_recordings_than_a_process_may_hold_open(tmp_path):
    resource = pytest.importorskip("resource")
    for i in range(40):
        write_dat(tmp_path / "in" / f"{i:02d}.dat", some_events(10, seed=i))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)  # the lowest number that is free
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 24, hard))
    try:
        recordings = convert(tmp_path / "in", tmp_path / "out")
        counts = [len(recording) for recording in recordings]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert counts == [10] * 40 and recordings[-1].events() == some_events(10, seed=39)
    assert [r.path.name for r in recordings[1:3]] == ["01", "02"]


def test_what_of_a_folder_is_taken(tmp_path):
    e = some_events(10)
    write_dat(tmp_path / "elsewhere" / "linked.dat", e)
    source = tmp_path / "in"
    write_dat(source / "run.1" / "a.dat", e)
    (source / "links").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(source)
    np.savez(source / "imagenet.npz", event_data=np.zeros(3, [("x", "u2"), ("y", "u2"), ("t", "i8"), ("p", "?")]))
    ecd = source / "seq.2026.11"
    ecd.mkdir()
    (ecd / "events.txt").write_text("0.001 1 2 1\n")
    (source / "labels.csv").write_text("t_us,x,y,p\n1,2,3,1\n")
    found = {r.path.relative_to(tmp_path / "out").as_posix() for r in convert(source, tmp_path / "out")}
    assert found == {"run.1/a", "links/linked", "imagenet", "seq.2026.11"}
    (table,) = convert(write_dat(source / "more" / "b.dat", e).parent.parent / "labels.csv", tmp_path / "table")
    assert len(table) == 1

    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "labels.csv").write_text("t_us,x,y,p\n1,2,3,1\n")
    with pytest.raises(InputError, match="holds no recording"):
        convert(tables, tmp_path / "none")
    (named,) = convert(tables, tmp_path / "named", stated=Stated(format="csv"))
    assert named.path.name == "labels"
    with pytest.raises(InputError, match="nothing to convert"):
        convert([], tmp_path / "none")


def test_a_folder_of_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    source = tmp_path / "in"
    source.mkdir()
    rows = np.array([[1, 2, 1.5, 1], [3, 4, 1.6, -1]])
    with h5py.File(source / "day_data.hdf5", "w") as file:
        file["davis/left/events"] = rows
    with h5py.File(source / "day_gt.hdf5", "w") as file:
        file["davis/left/depth_image_raw"] = np.zeros((1, 2, 2), "f4")
    with h5py.File(source / "rectify_map.h5", "w") as file:
        file["rectify_map"] = np.zeros((2, 2, 2), "f4")
    assert [r.path.name for r in convert(source, tmp_path / "out")] == ["day_data"]

    data = (source / "day_data.hdf5").read_bytes()
    (source / "night_data.hdf5").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"1 of 2 .*night_data\.hdf5 is cut short at byte"):
        convert(source, tmp_path / "out")


def test_the_busiest_stretch_begins_no_earlier_than_the_events(tmp_path):
    e = Events([1, 2], [1, 2], [7_000, 7_500], [True, False], 4, 4)
    assert open_recording(write_dat(tmp_path / "a.dat", e)).describe()["busiest_us"] == 7_000


def test_info_of_a_folder_of_recordings_says_so(tmp_path, capsys):
    for name in "ab":
        write_dat(tmp_path / "in" / f"{name}.dat", some_events(10))
    assert main(["info", str(tmp_path / "in")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "a.dat and 1 more" in error and "pictures" not in error


def test_every_failure_is_named(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.dat").write_bytes(b"% Version 7\n% Data file containing CD events.\n\x0c\x09")
    with pytest.raises(InputError, match=r"3 of 3 .*a\.dat.*b\.dat.*c\.dat"):
        convert(tmp_path, tmp_path / "out")


def workers_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_several_at_once_stop_with_their_parent(tmp_path, how):
    source = write_dat(tmp_path / "in" / "0.dat", some_events(3_000_000))
    for i in range(1, 30):
        os.link(source, tmp_path / "in" / f"{i}.dat")
    out = tmp_path / "made of it"
    command = [sys.executable, "-m", "evlift", "convert", str(tmp_path / "in"), "--out", str(out)]
    process = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.glob(".*.partial-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    workers = workers_of(process.pid)
    assert workers
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert sum(not path.name.startswith(".") for path in out.iterdir()) < 15
    if how == signal.SIGINT:
        assert process.returncode == 130 and errors.count("\n") == 1 and f"--out '{out}'" in errors
        assert not list(out.glob(".*"))


def test_a_size_that_nobody_states_is_told(tmp_path):
    e = some_events()
    path = write_dat(tmp_path / "a.dat", e, size=False)
    recording = open_recording(path)
    assert (recording.width, recording.height) == (int(e.x.max()) + 1, int(e.y.max()) + 1)
    assert any("size is not stated" in p for p in recording.describe()["problems"])
    stated = open_recording(path, size=(100, 200))
    assert (stated.height, stated.width, stated.describe()["problems"]) == (100, 200, [])


def test_a_file_gives_windows_and_chunks(tmp_path):
    e = some_events()
    recording = open_recording(write_dat(tmp_path / "a.dat", e))
    assert isinstance(recording, FileRecording) and recording.format == "dat"
    assert recording.events() == e and recording.events(1000, 200_000) == e.between(1000, 200_000)
    assert Events.concatenate(recording.chunks(problems=Problems())) == e


def test_the_commands(tmp_path, capsys):
    e = some_events()
    path = write_dat(tmp_path / "a.dat", e)
    assert main(["info", str(path), "--json", "--picture", str(tmp_path / "a.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["busiest_us"] >= e.t_first
    expected = {"format": "dat", "events": 2000, "on": int(e.p.sum()), "off": int((~e.p).sum()), "frames": 0}
    expected |= {"t_first_us": e.t_first, "t_last_us": e.t_last, "width": 64, "height": 48, "problems": []}
    assert expected.items() <= found.items()
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["convert", str(path), "--out", str(tmp_path / "rec")]) == 0
    assert "2,000 events, 64×48" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "rec"), "--json"]) == 0
    packed = json.loads(capsys.readouterr().out)
    assert {k: v for k, v in packed.items() if k not in ("format", "source")} == {
        k: v for k, v in found.items() if k not in ("format", "source")
    }
    assert main(["info", "--formats"]) == 0 and "evt3" in capsys.readouterr().out
    for wrong in (
        ["convert", str(tmp_path / "none"), "--out", str(tmp_path / "r")],
        ["info"],
        ["info", str(tmp_path / "x")],
    ):
        assert main(wrong) == 2 and capsys.readouterr().err.count("\n") == 1
