"""The Event Camera Dataset's layout: real recordings line by line, and a small one made here."""

from fractions import Fraction
from math import floor
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from evlift.errors import InputError
from evlift.events.readers import ecd
from evlift.events.readers.reader import Problems, Reader, Stated

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
CALIBRATION = "335.419462958 335.352935612 129.924663379 99.1864303447 -0.1385 0.0933 -0.00033 0.00017 0.0\n"


def slow(path):
    """The events by the documented layout, a line at a time, in exact fractions: [N, 4] t, x, y, p."""
    rows = []
    for line in path.read_text().splitlines():
        if line:
            t, x, y, p = line.split()
            rows.append((floor(Fraction(t) * 10**6 + Fraction(1, 2)), int(x), int(y), int(p)))
    return np.array(rows)


def read(path, **stated):
    """([N, 4] t, x, y, p, frames, problem lines, reader)."""
    reader, problems = ecd.open_reader(path, "ecd", Stated(**stated)), Problems()
    assert isinstance(reader, Reader)
    events = np.concatenate([np.stack([c.t, c.x, c.y, c.p], 1) for c in reader.columns(problems)])
    return events, list(reader.frames(problems)), problems.lines(), reader


def written(folder, events="0.000001500 10 20 1\n0.000002499 11 21 0\n", images="", calibration=CALIBRATION):
    (folder / "images").mkdir()
    for name, text in (("events.txt", events), ("images.txt", images), ("calib.txt", calibration)):
        (folder / name).write_text(text, newline="")
    return folder


@pytest.mark.parametrize(
    ("name", "count", "frames"),
    [
        ("slider_depth", 50_000, 87),
        ("evbench/seq_0001", 132_784, 20),
        ("evbench/seq_0003", 321_343, 16),
        ("ecd_slices/boxes_rotation", 30_000, 0),
        ("ecd_slices/dynamic_rotation", 30_000, 0),
    ],
)
def test_real_recordings(name, count, frames):
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here; it holds real recordings that the repository may not")
    assert ecd.matches(folder, b"") == "ecd" == ecd.matches(folder / "events.txt", b"x")
    events, pictures, problems, reader = read(folder)
    np.testing.assert_array_equal(events, slow(folder / "events.txt"))
    assert (len(events), len(pictures), problems) == (count, frames, [])
    assert (reader.height, reader.width) == ((180, 240) if frames else (None, None))
    for frame, line in zip(pictures, (folder / "images.txt").read_text().splitlines() if frames else [], strict=True):
        t, file = line.split()
        assert frame.t_us == floor(Fraction(t) * 10**6 + Fraction(1, 2))
        np.testing.assert_array_equal(frame.image, cv2.imread(str(folder / file), cv2.IMREAD_GRAYSCALE))


def test_a_folder_made_by_hand(tmp_path):
    """Half a microsecond rounds up, less rounds down; a blank line, a comment and CRLF are no faults."""
    text = (
        "240 180\r\n# t x y p\r\n0.0000005 10 20 1\r\n\r\n0.0000024999999999999999999 11 21 0\r\n1468.123456 239 179 1"
    )
    folder = written(tmp_path, text)
    for path in (folder, folder / "events.txt"):
        assert ecd.matches(path, b"") == "ecd"
        events, frames, problems, reader = read(path)
        assert events.tolist() == [[1, 10, 20, 1], [2, 11, 21, 0], [1468123456, 239, 179, 1]]
        assert (frames, problems, reader.height, reader.width) == ([], [], 180, 240)
        assert reader.calibration == dict(zip(ecd.CALIBRATION, map(float, CALIBRATION.split()), strict=True))
        assert (reader.format, reader.clock) == ("ecd", "recording start")
        assert [file.name for file in reader.files] == ["events.txt", "images.txt", "calib.txt"]
    stated = ecd.open_reader(folder, "ecd", Stated(size=(260, 346)))
    assert (stated.height, stated.width) == (260, 346)


def test_frames_and_their_faults(tmp_path):
    rng = np.random.default_rng(0)
    grey, rgb = rng.integers(0, 256, (12, 16), np.uint8), rng.integers(0, 256, (12, 16, 3), np.uint8)
    smooth = np.tile(np.arange(16, dtype=np.uint8) * 4, (12, 1))
    lines = [
        "0.000000000 images/missing.png",
        "0.0400004 images/grey.png",
        "0.03 images/grey.png",
        "# a comment",
        "0.0400005 images/colour.png",
        "soon images/grey.png",
        "0.05",
        "1e99999999 images/grey.png",
        "0.06 ../outside.png",
        "0.07 images/cut.png",
        "0.08 images/flipped.png",
        "0.09 images/deep.png",
        "0.10 images/smooth.jpg",
        "0.11 images/cut.jpg",
        "0.12 images/huge.png",
        "0.13 images",
        "0.2 images/grey.png",
    ]
    at = np.cumsum([0] + [len(line) + 1 for line in lines])
    (tmp_path / "recording").mkdir()
    folder = written(tmp_path / "recording", images="\n".join(lines) + "\n")
    png = cv2.imencode(".png", grey)[1].tobytes()
    jpeg = simplejpeg.encode_jpeg(smooth[..., None], quality=98, colorspace="GRAY", colorsubsampling="Gray")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 4
    files = {
        "grey.png": png,
        "colour.png": cv2.imencode(".png", rgb[..., ::-1])[1].tobytes(),
        "cut.png": png[: len(png) // 2],
        "flipped.png": bytes(flipped),
        "deep.png": cv2.imencode(".png", grey.astype(np.uint16))[1].tobytes(),
        "smooth.jpg": jpeg,
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "huge.png": png[:16] + (60_000).to_bytes(4, "big") * 2 + png[24:],
    }
    for name, data in files.items():
        (folder / "images" / name).write_bytes(data)
    (tmp_path / "outside.png").write_bytes(png)
    _, frames, problems, reader = read(folder)
    assert (reader.height, reader.width) == (12, 16)  # from the first image that is there
    assert [f.t_us for f in frames] == [40_000, 40_001, 100_000, 200_000]
    np.testing.assert_array_equal(frames[0].image, grey)
    np.testing.assert_array_equal(frames[1].image, rgb)
    assert frames[2].image.shape == (12, 16) and np.abs(frames[2].image.astype(int) - smooth).max() <= 3
    np.testing.assert_array_equal(frames[3].image, grey)
    assert problems == [
        f"3 × frame whose image file is missing, left out (first at byte {at[0]})",
        f"1 × frame whose time goes back, left out (at byte {at[2]})",
        f"3 × line of images.txt that is not a time and a file, left out (first at byte {at[5]})",
        f"5 × frame whose image file is broken or no PNG or JPEG of 8 bits, left out (first at byte {at[9]})",
    ]


def test_what_is_not_this_layout(tmp_path):
    folder = written(tmp_path)
    for text in ("5 10 20 1\n", "0.5 10 20\n", "0.5 10 20 on\n", "", "10 20 1 0.5\n"):
        (folder / "events.txt").write_text(text)
        assert ecd.matches(folder, b"") is None and ecd.matches(folder / "events.txt", text[:1].encode()) is None
    (folder / "other.txt").write_text("0.5 10 20 1\n")
    assert ecd.matches(folder / "other.txt", b"0.5") is None
    assert ecd.matches(folder / "images", b"") is None
    with pytest.raises(InputError, match=r"has no events\.txt; give the folder"):
        ecd.open_reader(folder / "images", "ecd", Stated())
    (folder / "events.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="holds no events"):
        ecd.open_reader(folder, "ecd", Stated())


def test_damage_is_counted(tmp_path):
    folder = written(tmp_path, "0.1 1 2 1\n0.2 x 2 1\n0.3 1 2 0\n0.4 1", calibration="1 2 3\n")
    events, _, problems, reader = read(folder)
    assert events.tolist() == [[100_000, 1, 2, 1], [300_000, 1, 2, 0]]
    assert reader.calibration is None
    assert problems == [
        "calib.txt is not the 9 numbers fx fy cx cy k1 k2 p1 p2 k3, left out",
        "2 × line that is not an event, set aside (first at byte 10)",
    ]
