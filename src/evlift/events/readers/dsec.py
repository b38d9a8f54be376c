"""DSEC: events of a 640×480 Prophesee camera in HDF5, with images of a second camera beside it.

Layout (https://dsec.ifi.uzh.ch/data-format/), ``events.h5``, Blosc-compressed:

    events/x, events/y  uint16    pixel, as recorded: not rectified
    events/t            uint32    µs; the time on the images' clock is t + t_offset
    events/p            uint8     1 = brighter
    t_offset            int64     µs
    ms_to_idx           uint64    events before each millisecond: t[ms_to_idx[ms]] >= 1000 ms > t[ms_to_idx[ms] - 1]

``rectify_map.h5`` beside it holds ``rectify_map`` float32 [480, 640, 2]: where pixel (x, y) lies when rectified,
(x', y') at [y, x]. A sequence is a folder:

    events/left/events.h5, rectify_map.h5               (and right)
    images/left/rectified/000000.png …                  already rectified, of another size than the events' sensor
    images/left/exposure_timestamps.txt                 "start, end" of each exposure, µs; a line with # is a comment
    images/timestamps.txt                               the middle of the exposure, µs

The downloads call the last two ``…_image_exposure_timestamps_left.txt`` and ``…_image_timestamps.txt``; both names do.
Files of the same layout without t_offset or ms_to_idx (other cameras, converted) are read too; say their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events.frames import Frame
from evlift.events.readers import hdf5
from evlift.events.readers.reader import Columns, Problems, Stated, say_not_read
from evlift.events.stream import window_bounds

FORMATS = {"dsec": "DSEC: events.h5 (HDF5), or the folder of a sequence"}
SUFFIXES: dict[str, str] = {}
USES = {name: ("size", "stream", "image_stream") for name in FORMATS}

HEIGHT, WIDTH = 480, 640
EVENTS, MAP = "events.h5", "rectify_map.h5"
COLUMNS = ("events/x", "events/y", "events/t", "events/p")
SIDES = ("left", "right")
_MOST_PIXELS = 1 << 24  # of an image; DSEC's have a tenth


def matches(path: Path, head: bytes) -> str | None:
    """HDF5 with events/x, y, t, p, or a folder that holds it in DSEC's places."""
    if path.is_dir():
        return "dsec" if any((path / place / EVENTS).is_file() for place in ("", *_places())) else None
    return "dsec" if hdf5.holds(path, head, *COLUMNS) else None


def open_reader(path: Path, format: str, stated: Stated) -> DsecReader:
    """Open events.h5, its folder, or a sequence (stated.stream: "left", the default, or "right")."""
    side = stated.stream or "left"
    if side not in SIDES:
        raise ConfigError(f"DSEC has no event stream {side!r}; give left or right")
    if path.is_dir():
        places = [""] if (path / EVENTS).is_file() else [f"events/{side}", side]
        found = [path / place / EVENTS for place in places if (path / place / EVENTS).is_file()]
        if not found:
            there = [other for other in _sides(path) if other != side]
            advice = f"give --stream {there[0]}" if there else f"give a DSEC sequence or its {EVENTS}"
            raise InputError(f"{path} has no events/{side}/{EVENTS}; {advice}")
        reader = DsecReader(found[0], stated)
        if stated.stream is None:
            reader.others = [other for other in _sides(path) if other != side]
        return reader
    elif stated.stream is not None and path.parent.name in SIDES and path.parent.name != side:
        raise ConfigError(f"{path} is the {path.parent.name} stream, not {side}; give the other file or the sequence")
    return DsecReader(path, stated)


class DsecReader:
    """A reader, see `Reader`; besides, `rectify_map` and `window` (any stretch of time without reading the rest)."""

    format = "dsec"
    sensor = "Prophesee Gen3.1 (DSEC)"
    others: Sequence[str] = ()
    """Sides of the sequence that nobody has asked for, and that are not read."""
    clock = "DSEC's clock of a sequence, common to events and images"
    calibration = None

    def __init__(self, path: Path, stated: Stated) -> None:
        self.path, self._stated = path, stated
        with hdf5.opened(path) as file:
            for name in COLUMNS:
                hdf5.Rows(file, name)
            official = "t_offset" in file and "ms_to_idx" in file
            self.t_offset = _scalar(file, path, "t_offset") if "t_offset" in file else 0
        if not official:
            self.sensor = self.clock = ""
        size = stated.size or ((HEIGHT, WIDTH) if official else (None, None))
        self.height: int | None = size[0]
        self.width: int | None = size[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return DsecReader, (self.path, self._stated)  # a worker process opens the file itself

    @property
    def files(self) -> tuple[Path, ...]:
        """The events, the map beside them, and the images with their times."""
        found = [self.path, self.path.with_name(MAP)]
        if (images := self._images) is not None:
            found += [*_files_of_times(*images)[:1], _pictures(*images)]
        return tuple(path for path in found if path.exists())

    @cached_property
    def rectify_map(self) -> np.ndarray | None:
        """Rectified (x', y') of each pixel, float32 [H, W, 2]; None without a rectify_map.h5 beside the events."""
        if not self.path.with_name(MAP).is_file():
            return None
        with hdf5.opened(self.path.with_name(MAP)) as file:
            rows = hdf5.Rows(file, "rectify_map", "f", (None, 2))
            if rows.claimed > 65536 or rows.row_bytes > 65536 * 8 or len(rows) != rows.claimed:
                raise InputError(f"{file.filename} holds no whole rectify_map; download it again")
            return np.ascontiguousarray(hdf5.whole(rows, Problems()), np.float32)

    def columns(self, problems: Problems) -> Iterator[Columns]:
        """All events, in the file's order."""
        with hdf5.opened(self.path) as file:
            rows = [hdf5.Rows(file, name) for name in COLUMNS]
            total = max(min(map(len, rows)), 1)
            for stop, (x, y, t, p) in hdf5.blocks(rows, problems):
                yield self._columns(x, y, t, p, stop / total)
        say_not_read(self.others, problems)

    def window(self, t0_us: float, t1_us: float) -> Columns:
        """The events in the half-open window ``[t0, t1)`` on the images' clock, found by ms_to_idx.

        Only the chunks that hold them are read; the file stays open for the next window. InputError when the file is
        damaged there or has no ms_to_idx.
        """
        bounds = window_bounds(t0_us, t1_us)
        t0, t1 = (bound - self.t_offset for bound in bounds)
        if t0 >= t1:
            none = np.zeros(0, np.uint16)
            return self._columns(none, none, none, none, 1.0)
        rows, index = self._random_access
        total = min(map(len, rows))
        first_ms, last_ms = max(t0 // 1000, 0), max(-(-t1 // 1000), 0)
        a, b = (int(index[ms]) if ms < len(index) else total for ms in (first_ms, last_ms))
        if not 0 <= a <= b <= total:
            raise InputError(f"{self.path}: ms_to_idx points outside the events; download it again")
        try:
            t = rows[2].read(a, b)
            if len(t) and first_ms < len(index) and (t[0] < first_ms * 1000 or (b < total and t[-1] >= last_ms * 1000)):
                raise InputError(f"{self.path}: ms_to_idx does not fit events/t at row {a}; download it again")
            start, stop = _before(t, t0), _before(t, t1)
            x, y, p = (rows[k].read(a + start, a + stop) for k in (0, 1, 3))
        except hdf5.Damaged as damage:
            raise InputError(f"{self.path}: {damage}{_at(damage)}; download it again") from damage
        return self._columns(x, y, t[start:stop], p, b / max(total, 1))

    def frames(self, problems: Problems) -> Iterator[Frame]:
        """The rectified images of the same side (or stated.image_stream), with their exposure; none elsewhere."""
        if self._images is None:
            return
        sequence, side = self._images
        pictures = sorted(_pictures(sequence, side).glob("*.png"))
        if not pictures:
            return
        times = _image_times(sequence, side)
        count = min(len(times), len(pictures))
        problems.count("image or time without its other half, left out", max(len(times), len(pictures)) - count)
        for (t_us, exposure_us), picture in zip(times, pictures, strict=False):
            image = _read_png(picture)
            if image is None:
                problems.count("image that cannot be read, left out")
            else:
                yield Frame(t_us, image, exposure_us)

    @property
    def _images(self) -> tuple[Path, str] | None:
        """The sequence and the side of its images; None for a file that lies in no sequence."""
        side = self._stated.image_stream or (self.path.parent.name if self.path.parent.name in SIDES else "left")
        if side not in SIDES:
            raise ConfigError(f"DSEC has no image stream {side!r}; give left or right")
        if self.path.parent.name not in SIDES or self.path.parent.parent.name != "events":
            return None
        return self.path.parent.parent.parent, side

    @cached_property
    def _random_access(self) -> tuple[list[hdf5.Rows], np.ndarray]:
        """The open file's columns and its index of milliseconds, int64."""
        file = hdf5.stay_open(self.path)
        rows = [hdf5.Rows(file, name) for name in COLUMNS]
        return rows, hdf5.whole(hdf5.Rows(file, "ms_to_idx"), Problems()).astype(np.int64)

    def _columns(self, x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray, done: float) -> Columns:
        t = np.add(t, self.t_offset, dtype=np.int64)
        return Columns(x.astype(np.uint16, copy=False), y.astype(np.uint16, copy=False), t, p > 0, done)


def _before(t: np.ndarray, bound: int) -> int:
    """How many of the sorted times lie before the bound; in the dtype of t, so that t is not converted."""
    if bound > np.iinfo(t.dtype).max:
        return len(t)
    return int(np.searchsorted(t, t.dtype.type(max(bound, 0))))


def _sides(sequence: Path) -> list[str]:
    """The sides of a sequence that have events."""
    return [side for side in SIDES if any((sequence / f / side / EVENTS).is_file() for f in ("events", ""))]


def _places() -> list[str]:
    return [f"{folder}{side}" for folder in ("events/", "") for side in SIDES]


def _at(damage: hdf5.Damaged) -> str:
    return "" if damage.at is None else f" (at byte {damage.at})"


def _scalar(file: Any, path: Path, name: str) -> int:
    value = np.asarray(file[name][()]) if getattr(file[name], "size", None) == 1 else np.zeros(0)
    if value.size != 1 or value.dtype.kind not in "iu" or abs(int(value.reshape(()))) > 1 << 60:
        raise InputError(f"{path}: {name} is no whole number of µs; download it again")
    return int(value.reshape(()))


def _pictures(sequence: Path, side: str) -> Path:
    return sequence / "images" / side / "rectified"


def _files_of_times(sequence: Path, side: str) -> list[Path]:
    """Those that may hold the images' times, the best first."""
    images = sequence / "images"
    found = [images / side / "exposure_timestamps.txt", images / f"exposure_timestamps_{side}.txt"]
    for folder in (images / side, images, sequence):
        found += sorted(folder.glob(f"*exposure_timestamps_{side}.txt"))
    for folder in (images, images / side, sequence):
        found += [folder / "timestamps.txt", *sorted(folder.glob("*image_timestamps.txt"))]
    return [path for path in found if path.is_file()]


def _image_times(sequence: Path, side: str) -> list[tuple[int, int]]:
    """(µs, exposure in µs) of each image: start of the exposure, else its middle with exposure 0 (unknown)."""
    for path in _files_of_times(sequence, side):
        if "exposure_timestamps" in path.name:
            return [(start, end - start) for start, end in _numbers(path, 2)]
        return [(t, 0) for (t,) in _numbers(path, 1)]
    raise InputError(
        f"{sequence / 'images'} has images but neither exposure_timestamps.txt nor timestamps.txt; download them"
    )


def _numbers(path: Path, columns: int) -> list[list[int]]:
    rows, number = [], 0
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                number += 1
                text = line.strip()
                if not text or text.startswith("#"):
                    continue
                values = [int(part) for part in text.split(",")]
                if (
                    len(values) != columns
                    or (columns == 2 and values[1] < values[0])
                    or max(map(abs, values)) > 1 << 60
                ):
                    raise ValueError
                rows.append(values)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except ValueError:
        want = "start, end" if columns == 2 else "one time"
        raise InputError(f"{path}, line {number}: this is not {want} in µs; download it again") from None
    return rows


def _read_png(path: Path) -> np.ndarray | None:
    """uint8 [H, W, 3] RGB; None when it is damaged, or larger than any image of DSEC."""
    import cv2

    try:
        data = path.read_bytes()
    except OSError:
        return None
    # Size, from the header: the decoder would take memory for whatever it claims.
    if len(data) < 24 or int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big") > _MOST_PIXELS:
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
