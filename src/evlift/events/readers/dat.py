"""Prophesee DAT: decoded events, 8 bytes each. Also N-Cars, Gen1 and 1 Mpx automotive recordings.

A header of text lines, ``% keyword value``; a byte for the type of the events (0: Event2d and 12: EventCD, which are
stored alike; 14: external triggers) and one for their size, 8; then for every event two little-endian words of 32 bits:

    time in µs, which wraps after 2^32 µs
    Version 2: x 0…13, y 14…27, polarity 28…31.  Version 1: x 0…8, y 9…16, polarity 17

The header must have ``Version``; ``Width`` and ``Height`` are often missing.

Specification: https://docs.prophesee.ai/stable/data/file_formats/dat.html. It knows Version 2 only; the layout of
Version 1 is that of ``load_atis_data``, the script that came with ATIS recordings.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np

from evlift.errors import InputError
from evlift.events.frames import Frame, one_line
from evlift.events.readers.raw import read_header
from evlift.events.readers.reader import Columns, Problems, Stated, unwrap

FORMATS = {"dat": "Prophesee DAT: decoded events of 8 bytes, as N-Cars and the automotive sets have them"}
SUFFIXES: dict[str, str] = {}
USES = {name: ("size",) for name in FORMATS}

BLOCK = 1 << 16  # events read at a time: small enough that freed columns are used again

_BITS = {"1": (9, 8), "2": (14, 14)}  # of x and y, by version
_EVENT_TYPES, _TRIGGERS = (0, 12), 14


def matches(path: Path, head: bytes) -> str | None:
    if not head.startswith(b"% "):
        return None
    try:
        fields, end = read_header(BytesIO(head))
    except InputError:
        return None
    told = fields.get("Data", "").startswith("file containing") or "Version" in fields
    return "dat" if told and head[end + 1 : end + 2] == b"\x08" else None


def open_reader(path: Path, format: str, stated: Stated) -> DatReader:
    return DatReader(path, stated)


class DatReader:
    """See `Reader`. Chunks hold BLOCK events."""

    format = "dat"
    sensor = ""
    clock = "camera start"
    calibration = None

    def __init__(self, path: Path, stated: Stated) -> None:
        try:
            with open(path, "rb") as file:
                fields, end = read_header(file)
                file.seek(end)
                kind = file.read(2)
                self._bytes = max(file.seek(0, 2) - end - 2, 1)
        except OSError as e:
            raise InputError(f"{path} cannot be read ({one_line(e)}); check its permissions") from e
        if len(kind) < 2:
            raise InputError(f"{path} ends at byte {end + len(kind)}, before its first event; copy or record it again")
        if kind[0] == _TRIGGERS:
            raise InputError(
                f"{path} holds external triggers (type 14 at byte {end}), no events; give the file of events"
            )
        if kind[0] not in _EVENT_TYPES or kind[1] != 8:
            told = f"events of type {kind[0]} and {kind[1]} bytes (byte {end})"
            raise InputError(f"{path} holds {told}, not of type 0 or 12 and 8 bytes; is it a DAT file of CD events?")
        version = fields.get("Version", "")
        if version not in _BITS:
            told = f"Version {version[:20]!r}" if version else "no Version"
            raise InputError(f"the header of {path} (up to byte {end}) has {told}; put in the line '% Version 2' or 1")
        self._start, self._layout = end + 2, _BITS[version]
        self._faults: list[str] = []
        size = stated.size or self._size(fields)
        self.height: int | None = size[0] if size else None
        self.width: int | None = size[1] if size else None
        self.path, self.files = path, (path,)

    def columns(self, problems: Problems) -> Iterator[Columns]:
        from evlift.events.readers.raw_kernels import dat

        for fault in self._faults:
            problems.say(fault)
        block = np.empty(BLOCK, "<u8")
        x_bits, y_bits = (np.uint32(bits) for bits in self._layout)
        at, offset, last = self._start, 0, None
        with open(self.path, "rb") as file:
            file.seek(at)
            while size := file.readinto(block.data.cast("B")):
                problems.count("last event cut short, dropped", size % 8 > 0, at + size // 8 * 8)
                records = block[: size // 8].astype(np.uint64, copy=False)
                if not len(records):
                    return
                n, first = len(records), int(records[0]) & 0xFFFFFFFF
                last = first if last is None else last
                x, y, t, p = (
                    np.empty(n, np.uint16),
                    np.empty(n, np.uint16),
                    np.empty(n, np.int64),
                    np.empty(n, np.uint8),
                )
                jumps, above = dat(records, np.uint32(last), offset, x_bits, y_bits, x, y, t, p)
                if jumps >> 31:  # the highest bit has changed: a wrap, or only its half
                    t, offset, last = unwrap(records & np.uint64(0xFFFFFFFF), 32, offset, last, problems)
                else:
                    last = int(t[-1]) - offset
                if above and self._layout == _BITS["2"]:
                    odd = np.flatnonzero(records >> np.uint64(61))
                    problems.count("polarity above 1, read by its lowest bit", len(odd), at + 8 * int(odd[0]))
                at += size
                yield Columns(x, y, t, p.view(bool), min((at - self._start) / self._bytes, 1.0))

    def frames(self, problems: Problems) -> Iterator[Frame]:
        return iter(())

    def _size(self, fields: dict[str, str]) -> tuple[int, int] | None:
        told = [fields.get(name, "") for name in ("Height", "Width")]
        if not any(told):
            return None
        if all(side.isascii() and side.isdigit() and len(side) < 6 and 1 <= int(side) <= 1 << 14 for side in told):
            return int(told[0]), int(told[1])
        self._faults.append(f"the header gives width {told[1][:20]!r} and height {told[0][:20]!r}; ignored")
        return None
