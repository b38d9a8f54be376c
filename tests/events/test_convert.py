"""Conversion to packed recordings: the same events, whole or not there, and the same command goes on."""

import errno
import importlib
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
from evlift.errors import ConfigError, InputError
from evlift.events import FileRecording, Frame, Recording, convert
from evlift.events.readers import MODULES, Problems, Stated, formats


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


DSEC = some_events(100, height=480, width=640)


def write_dsec(folder, events, rectify_map=None):
    """A sequence of DSEC's layout (https://dsec.ifi.uzh.ch/data-format/): left events and images, right images."""
    h5py, cv2 = pytest.importorskip("h5py"), pytest.importorskip("cv2")
    left = folder / "events" / "left"
    left.mkdir(parents=True, exist_ok=True)
    with h5py.File(left / "events.h5", "w") as file:
        for name in "xy":
            file[f"events/{name}"] = getattr(events, name)
        file["events/t"], file["events/p"] = events.t.astype(np.uint32), events.p.astype(np.uint8)
        file["t_offset"], file["ms_to_idx"] = np.int64(0), np.zeros(1, np.uint64)
    if rectify_map is not None:
        with h5py.File(left / "rectify_map.h5", "w") as file:
            file["rectify_map"] = rectify_map
    for side in ("left", "right"):
        pictures = folder / "images" / side / "rectified"
        pictures.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(pictures / "000000.png"), np.zeros((4, 4, 3), np.uint8))
        (folder / "images" / side / "exposure_timestamps.txt").write_text("1000, 2000\n")
    return folder


def test_dsecs_rectification_is_kept(tmp_path):
    e = some_events(height=480, width=640)
    table = np.stack(np.meshgrid(np.arange(640.0), np.arange(480.0)), -1).astype(np.float32) + 0.5
    source = write_dsec(tmp_path / "seq", e, table)
    (packed,) = convert(source, tmp_path / "rec")
    assert packed.events() == e and packed.info["problems"] == []
    for recording in (packed, open_recording(source)):
        assert recording.rectify_map.dtype == np.float32 and np.array_equal(recording.rectify_map, table)
        assert recording.describe()["rectify_map"] is True
        assert (recording.sensor, recording.calibration) == ("Prophesee Gen3.1 (DSEC)", None)
        assert recording.clock.startswith("DSEC's clock")

    (smaller,) = convert(source, tmp_path / "smaller", stated=Stated(size=(480, 700)))
    assert smaller.rectify_map is None and len(smaller) == 2000
    assert any("rectification left out" in line and "640×480" in line for line in smaller.info["problems"])
    (source / "events/left/rectify_map.h5").write_bytes(b"nonsense")
    (damaged,) = convert(source, tmp_path / "damaged")
    assert damaged.rectify_map is None and damaged.events() == e
    assert any("rectification left out" in line for line in damaged.info["problems"])


def write_ecd(folder):
    (folder / "images").mkdir(parents=True)
    (folder / "events.txt").write_text("0.001 1 2 1\n0.002 1 2 0\n")
    (folder / "images.txt").write_text("0.001 images/0.png\n")
    (folder / "calib.txt").write_text("1 2 3 4 5 6 7 8 9\n")
    pytest.importorskip("cv2").imwrite(str(folder / "images" / "0.png"), np.zeros((4, 4), np.uint8))
    return folder


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (write_ecd, lambda folder: (folder / "calib.txt").write_text("1 2 3 4 5 6 7 8 0\n")),
        (write_ecd, lambda folder: (folder / "calib.txt").unlink()),
        (write_ecd, lambda folder: (folder / "images.txt").write_text("0.003 images/0.png\n")),
        (write_ecd, lambda folder: (folder / "images" / "0.png").write_bytes(b"")),
        (write_ecd, lambda folder: (folder / "images" / "1.png").write_bytes(b"")),
        (write_dsec, lambda folder: write_dsec(folder, DSEC, np.ones((480, 640, 2), np.float32))),
        (write_dsec, lambda folder: (folder / "images/left/exposure_timestamps.txt").write_text("1000, 3000\n")),
        (write_dsec, lambda folder: (folder / "images/left/rectified/000001.png").write_bytes(b"")),
    ],
)
def test_a_change_of_any_file_that_went_in_is_seen(tmp_path, make, change):
    source = make(tmp_path / "in", *([DSEC] if make is write_dsec else []))
    convert(source, tmp_path / "rec")
    convert(source, tmp_path / "rec")
    (source / "notes.txt").write_text("no part of it")
    (source / "events.txt" if make is write_ecd else source / "events/left/events.h5").touch()
    convert(source, tmp_path / "rec")
    change(source)
    with pytest.raises(InputError, match="exists already"):
        convert(source, tmp_path / "rec")


def test_an_empty_folder_of_the_users_own_is_taken(tmp_path):
    (tmp_path / "rec").mkdir()
    (recording,) = convert(write_dat(tmp_path / "a.dat", some_events()), tmp_path / "rec")
    assert recording.path == tmp_path / "rec" and recording.events() == some_events()


def test_a_stated_size_that_most_events_lie_outside_is_refused(tmp_path):
    e = some_events(height=48, width=64)
    path = write_dat(tmp_path / "a.dat", e, size=False)
    lost = int(((e.x >= 9) | (e.y >= 9)).sum())
    with pytest.raises(InputError, match=f"{lost:,} of 2,000 events lie outside the 9×9 sensor that was stated; give"):
        convert(path, tmp_path / "rec", stated=Stated(size=(9, 9)))
    assert not (tmp_path / "rec").exists()
    lost = int((e.x >= 40).sum())
    assert 0 < lost < 1000
    (recording,) = convert(path, tmp_path / "rec", stated=Stated(size=(48, 40)))
    assert recording.info["problems"] == [f"{lost} × event outside the 40×48 sensor, set aside"]
    small = Events(e.x % 8, e.y % 8, e.t, e.p, 8, 8)  # a damaged file says its size itself: the count is enough
    damaged = write_dat(tmp_path / "b.dat", small)
    damaged.write_bytes(damaged.read_bytes().replace(b"Height 8", b"Height 1"))
    (recording,) = convert(damaged, tmp_path / "b")
    assert recording.info["problems"][0].startswith(f"{int((small.y >= 1).sum())} × event outside the 8×1 sensor")


@pytest.mark.parametrize("where", ["columns", "frames", "opening"])
def test_a_source_that_cannot_be_read_on_is_no_full_disk(tmp_path, monkeypatch, where):
    from evlift.events.readers import dat

    path = write_dat(tmp_path / "in" / "a.dat", some_events())
    write_dat(tmp_path / "in" / "b.dat", some_events())

    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
        yield

    def opens(path, format, stated):
        if path.name == "a.dat":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return dat.DatReader(path, stated)

    if where == "opening":
        monkeypatch.setattr(dat, "open_reader", opens)
        with pytest.raises(InputError, match=r"1 of 2 .*a\.dat cannot be read \(No such file"):
            convert(tmp_path / "in", tmp_path / "rec")
        return
    monkeypatch.setattr(dat.DatReader, where, fails)
    with pytest.raises(InputError) as error:
        convert(path, tmp_path / "rec")
    assert f"{path} cannot be read ({os.strerror(errno.EIO)})" in str(error.value) and "rec" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_what_is_stated_in_vain_is_refused(tmp_path, capsys):
    path = write_dat(tmp_path / "a.dat", some_events())
    for flag, value in (("stream", "1"), ("image_stream", "1"), ("time_unit", "us"), ("columns", "t x y p")):
        with pytest.raises(ConfigError, match=f"--{flag} means nothing to .*a.dat .dat.; leave it out"):
            open_recording(path, **{flag: value})
        assert main(["info", str(path), f"--{flag}", value]) == 2
        assert f"--{flag} means nothing" in capsys.readouterr().err
    for module in MODULES:
        reader = importlib.import_module(f"evlift.events.readers.{module}")
        assert reader.USES.keys() == reader.FORMATS.keys()
        assert {name for uses in reader.USES.values() for name in uses} <= Stated.__dataclass_fields__.keys()


@pytest.mark.parametrize("format", formats())
def test_a_format_of_files_says_that_a_folder_is_none(tmp_path, format):
    with pytest.raises(InputError) as error:
        open_recording(tmp_path, format=format)
    assert "permission" not in str(error.value)
    if format not in ("dsec", "ecd", "rosbag2"):
        assert f"is a folder, and {format} is a file; give the file" in str(error.value)


def test_a_clock_that_restarts_is_told_and_what_follows_kept(tmp_path):
    t = np.r_[5_000_000 + 100 * np.arange(1500), 9 + 100 * np.arange(1500)]
    e = Events._trusted(np.arange(3000) % 64, np.arange(3000) % 48, t, np.ones(3000, bool), 48, 64)
    (recording,) = convert(write_dat(tmp_path / "a.dat", e), tmp_path / "rec")
    assert recording.events().t.tolist() == [*t[:1500], *(5_149_901 + 100 * np.arange(1500))]
    assert recording.info["problems"] == [
        "the clock restarts after 0.149900 s: later events are shifted by 5.149892 s, images are not"
    ]


def test_images_whose_time_goes_back_are_left_out_and_counted(tmp_path, monkeypatch):
    from evlift.events.readers import dat

    frames = [Frame(t, np.full((4, 4), t % 251, np.uint8)) for t in (10, 500, 20, 500, 600)]
    monkeypatch.setattr(dat.DatReader, "frames", lambda self, problems: iter(frames))
    (recording,) = convert(write_dat(tmp_path / "a.dat", some_events()), tmp_path / "rec")
    assert recording.frames.t_us.tolist() == [10, 500, 500, 600]
    assert recording.info["problems"] == ["1 × image whose time goes back, left out"]


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
