"""MVSEC: events and images of two mDAVIS-346B cameras in HDF5 (``*_data.hdf5``).

Layout (https://daniilidis-group.github.io/mvsec/, "Data Format", and its loaders mvsec_h5py.py), for left and right:

    davis/left/events                float64 [N, 4]   x, y, time in s since the Unix epoch, polarity ±1
    davis/left/image_raw             uint8 [F, 260, 346]
    davis/left/image_raw_ts          float64 [F]      s since the Unix epoch
    davis/left/image_raw_event_inds  int64 [F]        number of the event nearest to the image (not needed here)

float64 seconds of this era are exact to a quarter of a µs: times are rounded to the nearest µs. ``*_gt.hdf5`` holds
ground truth only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events.frames import Frame
from evlift.events.readers import hdf5
from evlift.events.readers.reader import Columns, Problems, Stated, say_not_read

FORMATS = {"mvsec": "MVSEC: *_data.hdf5"}
SUFFIXES: dict[str, str] = {}
USES = {name: ("size", "stream", "image_stream") for name in FORMATS}

HEIGHT, WIDTH = 260, 346
STREAMS = ("davis/left", "davis/right")
_LATEST_S = 1e11  # year 5138: what lies beyond is no time


def matches(path: Path, head: bytes) -> str | None:
    """HDF5 with a group davis/left or davis/right (also the ground truth, so that it gets a clear answer)."""
    return "mvsec" if any(hdf5.holds(path, head, stream) for stream in STREAMS) else None


def open_reader(path: Path, format: str, stated: Stated) -> MvsecReader:
    """Open a recording. stated.stream: "davis/left" (the default) or "davis/right"; stated.image_stream likewise."""
    return MvsecReader(path, stated)


class MvsecReader:
    """A reader, see `Reader`."""

    format = "mvsec"
    sensor = "mDAVIS-346B"
    clock = "Unix epoch"
    calibration = None

    def __init__(self, path: Path, stated: Stated) -> None:
        self.path = path
        self.files = (path,)
        self.height, self.width = stated.size or (HEIGHT, WIDTH)
        self._stream = _stream(stated.stream, "event stream") or STREAMS[0]
        self._chosen = stated.stream is not None
        self._images = _stream(stated.image_stream, "image stream") or self._stream
        with hdf5.opened(path) as file:
            name = f"{self._stream}/events"
            if name not in file:
                others = [other for other in STREAMS if f"{other}/events" in file]
                what = (
                    f"give --stream {others[0]}"
                    if others
                    else "give the sequence's *_data.hdf5 (*_gt.hdf5 is ground truth)"
                )
                raise InputError(f"{path} has no events in {self._stream}; {what}")
            hdf5.Rows(file, name, "f", (4,))

    def columns(self, problems: Problems) -> Iterator[Columns]:
        """All events, in the file's order."""
        with hdf5.opened(self.path) as file:
            rows = hdf5.Rows(file, f"{self._stream}/events", "f", (4,))
            for stop, (block,) in hdf5.blocks([rows], problems):
                good = np.abs(block[:, 2]) < _LATEST_S  # False for NaN
                problems.count(
                    "event without a time (not a number, or out of all bounds), set aside", len(block) - int(good.sum())
                )
                block = block if good.all() else block[good]
                t = np.rint(block[:, 2] * 1e6).astype(np.int64)
                yield Columns(_pixel(block[:, 0]), _pixel(block[:, 1]), t, block[:, 3] > 0, stop / max(len(rows), 1))
            if not self._chosen:
                others = [name for name in STREAMS if name != self._stream and f"{name}/events" in file]
                say_not_read(others, problems)

    def frames(self, problems: Problems) -> Iterator[Frame]:
        """The images; their exposure is not known."""
        with hdf5.opened(self.path) as file:
            if f"{self._images}/image_raw" not in file:
                return
            images = hdf5.Rows(file, f"{self._images}/image_raw", "u", (None, None))
            times = hdf5.whole(hdf5.Rows(file, f"{self._images}/image_raw_ts", "f"), problems)
            if (~(np.abs(times) < _LATEST_S)).any():
                raise InputError(f"{self.path}: {self._images}/image_raw_ts holds what is no time; download it again")
            yield from hdf5.frames(images, np.rint(times * 1e6).astype(np.int64), problems)


def _stream(name: str | None, what: str) -> str | None:
    """ "left" and "/davis/left" are "davis/left"."""
    if name is None:
        return None
    full = name.strip("/")
    full = full if full.startswith("davis/") else f"davis/{full}"
    if full not in STREAMS:
        raise ConfigError(f"MVSEC has no {what} {name!r}; give {STREAMS[0]} or {STREAMS[1]}")
    return full


def _pixel(values: np.ndarray) -> np.ndarray:
    """float64 pixels as uint16; what is no pixel becomes 65535, which is outside every sensor."""
    return np.where((values >= 0) & (values < 65535), values, 65535).astype(np.uint16)
