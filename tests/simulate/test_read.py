import struct
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from evlift.errors import InputError
from evlift.simulate import find_shots, iter_video, packaged_video, read_video
from evlift.simulate.read import CutFinder

DATA = Path(__file__).parents[2] / "../shared/data"


def write_video(path, frames, fps=25.0, codec="mp4v"):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def scene(seed, height=120, width=640):
    """A wide picture of coloured patches to pan over."""
    rng = np.random.default_rng(seed)
    mood = rng.integers(30, 226, 3)
    coarse = np.clip(mood + rng.normal(0, 45, (6, 24, 3)), 0, 255).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def pan(seed, frames, speed, width=160):
    wide = scene(seed)
    return [wide[:, int(speed * k) : int(speed * k) + width] for k in range(frames)]


def cuts(frames):
    shots = find_shots(frames)
    assert shots[0][0] == 0 and all(a[1] == b[0] for a, b in pairwise(shots))
    return [start for start, _ in shots[1:]]


def cuts_as_they_come(frames):
    finder = CutFinder()
    return [k for k, frame in enumerate(frames) if finder.push(frame)]


def test_packaged_video():
    frames, times = read_video(packaged_video())
    assert frames.shape == (250, 272, 640, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(times, np.arange(250) * 40_000)
    assert times.dtype == np.int64
    assert find_shots(frames) == [(0, 30), (30, 76), (76, 137), (137, 187), (187, 242), (242, 250)]
    assert find_shots(iter(frames[:40])) == [(0, 30), (30, 40)]
    assert [start for start, _ in find_shots(frames[..., 1])[1:]] == [30, 76, 137, 187, 242]  # grey will do


def test_channels_are_rgb_and_frames_in_order(tmp_path):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 220)]
    path = write_video(tmp_path / "a.mp4", [np.full((48, 64, 3), c, np.uint8) for c in colours], fps=10)
    frames, times = read_video(path)
    np.testing.assert_allclose(frames.mean((1, 2)), colours, atol=14)
    np.testing.assert_array_equal(times, [0, 100_000, 200_000, 300_000])
    some, times = read_video(path, max_frames=2)
    np.testing.assert_array_equal(some, frames[:2])
    assert len(times) == 2
    pairs = list(iter_video(path))
    assert [t for _, t in pairs] == [0, 100_000, 200_000, 300_000]
    np.testing.assert_array_equal(pairs[2][0], frames[2])


def test_frame_times_rise_in_other_containers(tmp_path):
    path = write_video(tmp_path / "a.avi", pan(0, 12, 4), fps=29.97, codec="MJPG")
    _, times = read_video(path)
    np.testing.assert_allclose(times, np.arange(12) * 1e6 / 29.97, atol=1000)
    assert np.all(np.diff(times) > 0)


def box(kind, *content):
    """A box of an MP4 file (ISO/IEC 14496-12, 4.2): its size, its type, what is in it."""
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def with_durations(mp4, durations):
    """An MP4 file with other times between its frames: a new `stts` box (8.6.1.2) and the boxes around it.

    Their sum stays, and `moov` lies behind the pictures, so that nothing else moves.
    """
    around = [b"moov", b"trak", b"mdia", b"minf", b"stbl"]

    def rebuilt(data, path):
        out, at = [], 0
        while at < len(data):
            size, kind = struct.unpack_from(">I4s", data, at)
            content = data[at + 8 : at + size]
            if kind == b"stts" and not path:
                entries = struct.iter_unpack(">II", content[8:])
                assert sum(count * delta for count, delta in entries) == sum(durations)
                content = struct.pack(">II", 0, len(durations)) + b"".join(struct.pack(">II", 1, d) for d in durations)
            elif path and kind == path[0]:
                content = rebuilt(content, path[1:])
            out.append(box(kind, content))
            at += size
        return b"".join(out)

    assert mp4.index(b"mdat") < mp4.index(b"moov")
    return rebuilt(mp4, around)


def test_variable_frame_rate(tmp_path):
    path = write_video(tmp_path / "a.mp4", pan(0, 6, 4), fps=25)
    data = path.read_bytes()
    at = data.index(b"mdhd")
    scale = struct.unpack_from(">I", data, at + 16)[0]  # ticks a second (8.4.2)
    gaps = np.array([40, 10, 110, 25, 20, 35])  # ms; their sum is that of six of 40 ms
    path.write_bytes(with_durations(data, [int(gap) * scale // 1000 for gap in gaps]))
    frames, times = read_video(path)
    assert len(frames) == 6
    np.testing.assert_allclose(times, np.cumsum([0, *gaps[:-1]]) * 1000, atol=1000 * 1000 / scale + 1)


def test_size_cuts_out_the_centre(tmp_path):
    frame = np.zeros((60, 120, 3), np.uint8)
    frame[:, 30:90] = 200
    path = write_video(tmp_path / "a.mp4", [frame] * 2)
    frames, _ = read_video(path, size=(30, 30))
    assert frames.shape == (2, 30, 30, 3) and frames.mean() == pytest.approx(200, abs=6)
    frames, _ = read_video(path, size=(30, 60))
    assert frames[0, :, :13].mean() < 20 and frames[0, :, 17:43].mean() > 185


def test_files_that_are_no_video(tmp_path, capfd):
    with pytest.raises(InputError, match="there is no video"):
        read_video(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="is a folder"):
        read_video(tmp_path)
    text = tmp_path / "text.mp4"
    text.write_text("a diary\n" * 50)
    with pytest.raises(InputError, match=r"text\.mp4 is no video"):
        read_video(text)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(InputError, match="is no video"):
        iter_video(tmp_path / "empty.mp4")  # at once, not at the first frame
    good = write_video(tmp_path / "good.avi", pan(0, 5, 2), codec="MJPG").read_bytes()
    headers = tmp_path / "headers.avi"
    headers.write_bytes(good[: good.index(b"movi") + 4])
    with pytest.raises(InputError, match=r"no frame|is no video"):
        read_video(headers)
    with pytest.raises(InputError, match="max_frames is 0"):
        read_video(tmp_path / "good.avi", max_frames=0)
    with pytest.raises(InputError, match="size is"):
        read_video(tmp_path / "good.avi", size=(0, 5))
    capfd.readouterr()  # what FFmpeg says itself


def test_cuts_between_pans():
    frames = pan(1, 20, 2) + pan(2, 15, 8) + pan(3, 9, 20) + pan(4, 30, 1)
    assert cuts(frames) == [20, 35, 44]
    assert cuts(np.stack(frames)) == [20, 35, 44]


def test_pans_fades_and_flashes_are_no_cuts():
    assert cuts(pan(1, 24, 20)) == []
    a, b = (np.asarray(frames, float) for frames in (pan(1, 40, 1), pan(2, 40, 1)))
    share = np.clip((np.arange(40) - 10) / 20, 0, 1)[:, None, None, None]
    assert cuts(((1 - share) * a + share * b).astype(np.uint8)) == []
    flash = pan(1, 30, 2)
    flash[12] = np.full_like(flash[12], 250)
    assert cuts(flash) == []


def test_something_large_that_passes_fast_is_no_cut():
    frames = [frame.copy() for frame in pan(1, 30, 1)]
    for k in range(10, 22):  # covers half the picture and is gone in half a second
        left = 160 - 22 * (k - 9)
        frames[k][:, max(left, 0) : max(left + 80, 0)] = (20, 20, 140)
    assert cuts(frames) == []


def test_cut_to_a_still_and_noise():
    rng = np.random.default_rng(0)
    frames = np.stack([*pan(1, 12, 0), *pan(5, 12, 0)]).astype(np.int16)
    noisy = np.clip(frames + rng.normal(0, 6, frames.shape), 0, 255).astype(np.uint8)
    assert cuts(noisy) == [12]


def test_cuts_frame_by_frame():
    frames, _ = read_video(packaged_video())
    assert cuts_as_they_come(frames) == cuts_as_they_come(frames[..., 1]) == [30, 76, 137, 187, 242]
    assert cuts_as_they_come(pan(1, 20, 2) + pan(2, 15, 8) + pan(3, 9, 20) + pan(4, 30, 1)) == [20, 35, 44]
    assert cuts_as_they_come(pan(1, 24, 20)) == []
    lit = pan(1, 24, 2)
    assert cuts_as_they_come([frame // 2 for frame in lit[:12]] + lit[12:]) == []  # light that goes on
    dark = [np.zeros((120, 160, 3), np.uint8)] * 5
    assert cuts_as_they_come(dark + pan(1, 12, 2)[:1] + dark) == []  # no structure to compare with
    assert cuts_as_they_come(pan(1, 2, 0) + pan(2, 2, 0)) == [2]
    assert cuts_as_they_come([]) == cuts_as_they_come(pan(1, 1, 0) + pan(2, 1, 0)) == []
    assert cuts_as_they_come(np.zeros((5, 1, 1), np.uint8)) == []


def test_short_videos():
    assert find_shots([]) == []
    assert find_shots(np.zeros((1, 4, 5, 3), np.uint8)) == [(0, 1)]
    assert find_shots(np.zeros((2, 4, 5, 3), np.uint8)) == [(0, 2)]
    assert find_shots(pan(1, 2, 1) + pan(2, 2, 1)) == [(0, 2), (2, 4)]


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared recordings are not here")
def test_one_long_shot_is_one_shot():
    frames = (frame for frame, _ in iter_video(DATA / "video/solidWhiteRight.mp4", size=(270, 480)))
    assert find_shots(frames) == [(0, 221)]
