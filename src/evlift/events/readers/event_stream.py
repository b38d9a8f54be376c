"""Event Stream (.es), version 2: what faery, aestream and the libraries of the Paris Vision Institute write.

    12 bytes   "Event Stream"
    3 bytes    version: major (2), minor, patch
    1 byte     type: 0 generic, 1 DVS, 2 ATIS, 3 display, 4 colour; evlift reads 1 and 2
    2 × uint16 width and height of the sensor, little-endian

A DVS event has five bytes: t << 1 | brighter, then x and y as little-endian uint16. t is the time since the event
before, 0 to 126 µs. Two bytes are no event: 0xFF lets 127 µs pass, 0xFE (reset) comes in fives so that a reader that
lost its place finds it again. An ATIS event has t << 2 | polarity << 1 | is_tc, with t from 0 to 62 µs; 0xFD to 0xFF
let 63, 126 and 189 µs pass, 0xFC is the reset. With is_tc it is half a measurement of exposure, no change of
brightness, and is left out. Specification: https://github.com/neuromorphic-paris/event_stream (version 2.0).

The specification names no origin. Its authors' cameras and tools put it at the lower left, and faery turns y on reading
and on writing; so does this reader: the file's y runs up, evlift's runs down. Times start at 0 with the recording.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evlift.errors import InputError
from evlift.events.frames import Frame
from evlift.events.readers.reader import CHUNK, Columns, Problems, Stated

FORMATS = {"es": "Event Stream (.es), version 2: DVS and ATIS events"}
SUFFIXES: dict[str, str] = {}
USES = {name: ("size",) for name in FORMATS}

MAGIC = b"Event Stream"
TYPES = ("generic", "DVS", "ATIS", "display", "colour")
HEADER = 20  # bytes


def matches(path: Path, head: bytes) -> str | None:
    return "es" if head.startswith(MAGIC) else None


def open_reader(path: Path, format: str, stated: Stated) -> EventStream:
    return EventStream(path, stated)


class EventStream:
    """See `evlift.events.readers.reader.Reader`."""

    format = "es"
    clock = "start of the recording"
    calibration = None

    def __init__(self, path: Path, stated: Stated) -> None:
        self._path = path
        self.files: tuple[Path, ...] = (path,)
        with open(path, "rb") as file:
            self._size = os.fstat(file.fileno()).st_size
            head = file.read(HEADER)
        if not head.startswith(MAGIC) or len(head) < 16:
            raise InputError(f"{path} has no Event Stream header at byte 0; name its format with --format")
        major, kind = head[12], head[15]
        if major != 2:
            raise InputError(f"{path} is Event Stream version {major} (byte 12), evlift reads 2; convert it with faery")
        if kind not in (1, 2):
            what = TYPES[kind] if kind < len(TYPES) else f"type {kind}"
            raise InputError(
                f"{path} holds {what} events (byte 15), evlift reads DVS and ATIS; choose another recording"
            )
        if len(head) < HEADER:
            raise InputError(f"{path} ends at byte {len(head)}, within its header; copy it again")
        width, height = struct.unpack_from("<HH", head, 16)
        if not width or not height:
            raise InputError(f"{path} has a sensor of {width}×{height} pixels at byte 16; copy it again")
        self._atis, self._rows = kind == 2, height
        self.sensor = "ATIS" if self._atis else ""
        self.height: int | None
        self.width: int | None
        self.height, self.width = stated.size or (height, width)

    def columns(self, problems: Problems) -> Iterator[Columns]:
        """See `Reader.columns`."""
        from evlift.events.readers.event_stream_kernels import decode

        at, now = HEADER, 0
        with open(self._path, "rb") as file:
            file.seek(at)
            kept = b""  # the start of an event whose end comes with the next piece
            while True:
                piece = file.read(5 * CHUNK - len(kept))
                data = np.frombuffer(kept + piece, np.uint8)
                x, y = np.empty(CHUNK, np.uint16), np.empty(CHUNK, np.uint16)
                t, p = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.uint8)
                used, n, now, passed = decode(data, now, self._atis, self._rows, x, y, t, p)
                problems.count("measurement of exposure by the ATIS, left out", passed)
                at, kept = at + used, data[used:].tobytes()
                if n:
                    yield Columns(x[:n], y[:n], t[:n], p[:n].view(bool), at / self._size)
                if not piece:
                    break
        problems.count("event cut short by the end of the file, set aside", bool(kept), at=at)

    def frames(self, problems: Problems) -> Iterator[Frame]:
        """None: the format has no images."""
        return iter(())
