"""M3ED: events of two Prophesee EVK4 and images of the OVC 3B in HDF5 (``*_data.h5``).

Layout (https://m3ed.io/data_overview/datafiles/, and rosbag2hdf5.py of daniilidis-group/m3ed, which writes it), for
left and right:

    prophesee/left/x, y      uint16 [N]   pixel
    prophesee/left/t         int64 [N]    µs from the start of all sensors
    prophesee/left/p         int8 [N]     1 = brighter
    prophesee/left/ms_map_idx uint64      events before each millisecond
    prophesee/left/calib     intrinsics [4], distortion_coeffs [4], resolution [2] (width, height), camera_model,
                             distortion_model, T_to_prophesee_left [4, 4]
    ovc/left/data            uint8 [F, 800, 1280, 1]; ovc/right the same, ovc/rgb [F, 800, 1280, 3] in the order BGR
    ovc/ts                   int64 [F]    µs, on the events' clock, of all three
    ovc/ts_map_prophesee_left_t uint64 [F]  number of the first event at or after each image

The exposure of the images is not in the file. ``*_depth_gt.h5``, ``*_semantics.h5`` and the like have no events.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events.frames import Frame
from evlift.events.readers import hdf5, vlen
from evlift.events.readers.reader import Columns, Problems, Stated, say_not_read

FORMATS = {"m3ed": "M3ED: *_data.h5"}
SUFFIXES: dict[str, str] = {}
USES = {name: ("size", "stream", "image_stream") for name in FORMATS}

HEIGHT, WIDTH = 720, 1280
STREAMS = ("prophesee/left", "prophesee/right")
IMAGES = ("ovc/left", "ovc/right", "ovc/rgb")
CALIBRATION = (
    "intrinsics",
    "distortion_coeffs",
    "resolution",
    "camera_model",
    "distortion_model",
    "T_to_prophesee_left",
)


def matches(path: Path, head: bytes) -> str | None:
    """HDF5 with the events of a Prophesee camera in M3ED's place."""
    return "m3ed" if any(hdf5.holds(path, head, f"{stream}/t") for stream in STREAMS) else None


def open_reader(path: Path, format: str, stated: Stated) -> M3edReader:
    """Open a recording.

    stated.stream: "prophesee/left" (the default) or "prophesee/right"; stated.image_stream: "ovc/left" (the default),
    "ovc/right" or "ovc/rgb".
    """
    return M3edReader(path, stated)


class M3edReader:
    """A reader, see `Reader`."""

    format = "m3ed"
    sensor = "Prophesee EVK4 (IMX636)"
    clock = "start of all sensors"

    def __init__(self, path: Path, stated: Stated) -> None:
        self.path = path
        self.files = (path,)
        self._stream = _stream(stated.stream, STREAMS, "event stream")
        self._chosen = stated.stream is not None
        self._images = _stream(stated.image_stream, IMAGES, "image stream")
        with hdf5.opened(path) as file:
            if f"{self._stream}/t" not in file:
                raise InputError(f"{path} has no events in {self._stream}; give another --stream or the *_data.h5")
            for rows in self._rows(file):
                del rows
            self.calibration = _calibration(file, path, f"{self._stream}/calib")
            self._expected = f"{self._stream}/calib" in file
        self.height, self.width = stated.size or self._resolution()

    def columns(self, problems: Problems) -> Iterator[Columns]:
        """All events, in the file's order."""
        absent = [name for name in CALIBRATION if name not in (self.calibration or {})]
        if self._expected and absent:
            problems.say(f"calibration without {', '.join(absent)}: not in the file, or damaged")
        with hdf5.opened(self.path) as file:
            rows = self._rows(file)
            total = max(min(map(len, rows)), 1)
            for stop, (x, y, t, p) in hdf5.blocks(rows, problems):
                x, y = x.astype(np.uint16, copy=False), y.astype(np.uint16, copy=False)
                yield Columns(x, y, t.astype(np.int64, copy=False), p > 0, stop / total)
            if not self._chosen:
                say_not_read([name for name in STREAMS if name != self._stream and f"{name}/t" in file], problems)

    def frames(self, problems: Problems) -> Iterator[Frame]:
        """The images; their exposure is not known."""
        with hdf5.opened(self.path) as file:
            if f"{self._images}/data" not in file:
                return
            images = hdf5.Rows(file, f"{self._images}/data", "u", (None, None, None))
            times = hdf5.whole(hdf5.Rows(file, "ovc/ts"), problems)
            for frame in hdf5.frames(images, times, problems):
                image = frame.image[..., ::-1] if frame.image.ndim == 3 else frame.image
                yield Frame(frame.t_us, image, frame.exposure_us)

    def _rows(self, file: Any) -> list[hdf5.Rows]:
        return [hdf5.Rows(file, f"{self._stream}/{name}") for name in "xytp"]

    def _resolution(self) -> tuple[int, int]:
        resolution = (self.calibration or {}).get("resolution")
        if isinstance(resolution, list) and len(resolution) == 2 and all(0 < n <= 65536 for n in resolution):
            return int(resolution[1]), int(resolution[0])
        return HEIGHT, WIDTH


def _stream(name: str | None, known: tuple[str, ...], what: str) -> str:
    """The full name: "left" is short for "prophesee/left" or "ovc/left"."""
    if name is None:
        return known[0]
    for full in known:
        if name.strip("/") in (full, full.split("/")[1]):
            return full
    raise ConfigError(f"M3ED has no {what} {name!r}; give one of {', '.join(known)}")


def _calibration(file: Any, path: Path, group: str) -> dict[str, Any] | None:
    """What the group holds; a value that is damaged or of another kind is absent."""
    values = {}
    for name in CALIBRATION:
        try:
            dataset = file.get(f"{group}/{name}")
            if dataset is None or not 1 <= dataset.size <= 64:
                continue
            if dataset.dtype.kind in "iuf":
                values[name] = dataset[()].tolist()
            elif dataset.dtype.kind == "S":
                values[name] = dataset[()].decode("utf-8")
            elif dataset.dtype.kind == "O" and dataset.shape == () and (at := dataset.id.get_offset()) is not None:
                values[name] = vlen.Heaps(path).value(at).tobytes().decode("utf-8")
        except (*hdf5.FAULTS, AttributeError, hdf5.Damaged):
            continue
    return values or None
