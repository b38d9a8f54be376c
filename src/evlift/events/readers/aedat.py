"""AEDAT 1.0 and 2.0 of jAER; AEDAT 3.0 and 3.1, of cAER, in `aedat3` (.aedat).

A text header of lines that start with "#", the first one "#!AER-DAT2.0" (a 1.0 file may have none), then records to the
end, all big-endian: an address of 32 bits (1.0: of 16) and a time of 32 bits in µs. What an address means depends on
the chip, which the header names in a line such as "# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C":

    DVS128     bit 0 polarity, 0 = ON; bits 1–7 x; bits 8–14 y; any higher bit: an external signal, no event
    DAVIS      bit 31: 0 = event, 1 = sample of the image sensor or of the inertial unit (bits 10–11 both set); of an
               event: bit 10 an external signal, no event; bit 11 polarity, 1 = ON; bits 12–21 x; bits 22–30 y

Addresses count from the lower right as the picture is seen: jAER shows width − 1 − x, and y upwards. This reader turns
both, so that x runs right and y down. Specification:
https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-2.0.html. Where that page and jAER differ
jAER is followed, which wrote the files: the page for AEDAT 1.0 has 1 = ON for the DVS128, jAER (DVS128.java) and
iniVation's own dv-processing have 0 = ON, and the page does not say that x is mirrored.

Samples of the image sensor come as single reset and signal reads without exposure times: they are counted and left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evlift.errors import InputError
from evlift.events.frames import Frame
from evlift.events.readers.aedat3 import Aedat3
from evlift.events.readers.aedat_header import chip, header_lines
from evlift.events.readers.reader import CHUNK, Columns, Problems, Reader, Stated, unwrap

FORMATS = {
    "aedat1": "AEDAT 1.0 of jAER, DVS128",
    "aedat2": "AEDAT 2.0 of jAER: events of the chip that the header names",
    "aedat2-dvs128": "AEDAT 2.0 whose header names no chip, of a DVS128",
    "aedat2-davis": "AEDAT 2.0 whose header names no chip, of a DAVIS; state its size",
    "aedat3": "AEDAT 3.0 and 3.1 of cAER: events and frames",
}
SUFFIXES: dict[str, str] = {}
USES = {name: ("size", "stream", "image_stream") if name == "aedat3" else ("size",) for name in FORMATS}
VERSION = re.compile(rb"#!AER-DAT([123])\.")


def matches(path: Path, head: bytes) -> str | None:
    version = VERSION.match(head)
    return f"aedat{version[1].decode()}" if version else None


def open_reader(path: Path, format: str, stated: Stated) -> Reader:
    return Aedat3(path, stated) if format == "aedat3" else Aedat2(path, format, stated)


class Layout(NamedTuple):
    """Where an address has what: first bit and width of x and y, the polarity's bit and its value for ON."""

    x: tuple[int, int]
    y: tuple[int, int]
    p: int
    on: int


DVS128 = Layout((1, 7), (8, 7), 0, 0)
DAVIS = Layout((12, 10), (22, 9), 11, 1)


class Aedat2:
    """See `evlift.events.readers.reader.Reader`."""

    clock = "camera start"
    calibration = None

    def __init__(self, path: Path, format: str, stated: Stated) -> None:
        self._path = path
        self.files: tuple[Path, ...] = (path,)
        self.format = format.partition("-")[0]
        with open(path, "rb") as file:
            self._size = os.fstat(file.fileno()).st_size
            lines, self._start = header_lines(file)
        version = VERSION.match(lines[0]) if lines else None
        if version and b"aedat" + version[1] != self.format.encode():
            raise InputError(
                f"{path} says at byte 0 that it is AEDAT {version[1].decode()}; leave out --format {format}"
            )
        named = re.search(rb"(?m)^#\s*AEChip:\s*([^\r\n]+)", b"\n".join(lines))
        self.sensor = named[1].decode("latin-1").strip().rpartition(".")[2] if named else ""
        known = chip(self.sensor)
        if format in ("aedat1", "aedat2-dvs128"):
            layout, rows, width = DVS128, 128, 128
        elif format == "aedat2-davis":
            size = stated.size or (known and (known.height, known.width))
            if not size:
                raise InputError(f"{path} does not say how large its sensor is; give its height and width with --size")
            layout, (rows, width) = DAVIS, size
        elif known is None:
            name = (
                f"names the chip {self.sensor!r}, whose addresses evlift does not know"
                if self.sensor
                else "names no chip"
            )
            raise InputError(f"{path} {name}; give --format aedat2-dvs128, or aedat2-davis with --size")
        else:
            layout, rows, width = DAVIS if known.davis else DVS128, known.height, known.width
        self._layout, self._rows, self._columns = layout, rows, width
        self.height: int | None
        self.width: int | None
        self.height, self.width = stated.size or (rows, width)

    def columns(self, problems: Problems) -> Iterator[Columns]:
        """See `Reader.columns`."""
        record = np.dtype([("address", ">u2" if self.format == "aedat1" else ">u4"), ("t", ">u4")])
        offset, last = 0, None
        with open(self._path, "rb") as file:
            file.seek(self._start)
            while piece := file.read(CHUNK * record.itemsize):
                whole = len(piece) // record.itemsize
                at = file.tell() - len(piece)
                if whole * record.itemsize < len(piece):
                    cut = at + whole * record.itemsize
                    problems.count("record cut short by the end of the file, set aside", at=cut)
                records = np.frombuffer(piece, record, whole)
                address, ticks = records["address"].astype(np.uint32), records["t"].astype(np.uint32)
                events = self._select(address, problems, at, record.itemsize)
                if events is not None:
                    address, ticks = address[events], ticks[events]
                if not len(address):
                    continue
                t, offset, last = unwrap(ticks, 32, offset, int(ticks[0]) if last is None else last, problems)
                x = np.uint32(self._columns - 1) - _field(address, *self._layout.x)
                y = np.uint32(self._rows - 1) - _field(address, *self._layout.y)
                p = _field(address, self._layout.p, 1) == self._layout.on
                yield Columns(x.astype(np.uint16), y.astype(np.uint16), t, p, file.tell() / self._size)

    def frames(self, problems: Problems) -> Iterator[Frame]:
        """None: see the module's docstring."""
        return iter(())

    def _select(self, address: np.ndarray, problems: Problems, at: int, size: int) -> np.ndarray | None:
        """Which records are events, None for all; the others are counted."""
        davis = self._layout is DAVIS
        events = address & np.uint32(0x80000400 if davis else 0xFFFF8000) == 0
        if events.all():
            return None
        other = address >> np.uint32(31) == 1 if davis else np.zeros_like(events)
        inertial = other & (address >> np.uint32(10) & np.uint32(3) == 3)
        for text, found in (
            ("external signal, no event, left out", ~events & ~other),
            ("value of the inertial unit, left out", inertial),
            ("sample of the image sensor, left out (evlift reads no frames of AEDAT 2.0)", other & ~inertial),
        ):
            if found.any():
                problems.count(text, int(np.count_nonzero(found)), at=at + size * int(found.argmax()))
        return events


def _field(address: np.ndarray, first: int, bits: int) -> np.ndarray:
    return address >> np.uint32(first) & np.uint32((1 << bits) - 1)
