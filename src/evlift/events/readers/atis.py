"""ATIS .bin: the recordings of N-MNIST and N-Caltech101, and whatever else was written by the same tools.

40 bits an event, most significant first, no header:

    bits 39…32  x     bits 31…24  y     bit 23  polarity, 1 = brighter     bits 22…0  time in µs

An event with y = 240, a row that the 304×240 sensor does not have, is no event: it marks an overflow of the clock, and
all that follows is 2^13 µs later. The file does not name its sensor's size: N-MNIST's is 34×34.

G. Orchard, A. Jayawant, G. Cohen, N. Thakor: Converting Static Image Datasets to Spiking Neuromorphic Datasets Using
Saccades, Frontiers in Neuroscience 2015; https://www.garrickorchard.com/datasets/n-mnist. The rule for overflows is
that of the published Python reader, https://github.com/gorchard/event-Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evlift.errors import InputError
from evlift.events.frames import Frame
from evlift.events.readers.reader import Columns, Problems, Stated, unwrap

FORMATS = {"atis": "ATIS .bin: N-MNIST, N-Caltech101"}
SUFFIXES = {".bin": "atis"}
USES = {name: ("size",) for name in FORMATS}

EVENT = 5  # bytes
BLOCK = 1 << 18  # events read at once
OVERFLOW_ROW, OVERFLOW_US = 240, 1 << 13
CLOCK_BITS = 23


def matches(path: Path, head: bytes) -> str | None:
    """Never: the format has no header. Files are found by their suffix."""
    return None


def open_reader(path: Path, format: str, stated: Stated) -> AtisReader:
    """Open a file. InputError where it is a folder or holds no whole event."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give one .bin file in it")
    if (size := path.stat().st_size) < EVENT:
        raise InputError(f"{path} ends at byte {size}, before its first event is whole; copy it again")
    height, width = stated.size or (None, None)
    return AtisReader(path, height, width)


@dataclass(eq=False)
class AtisReader:
    """A headerless file of 40-bit events."""

    path: Path
    height: int | None
    width: int | None
    format: str = "atis"
    sensor: str = "ATIS"
    clock: str = ""
    calibration: Any = None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def columns(self, problems: Problems) -> Iterator[Columns]:
        size = self.path.stat().st_size
        added, offset, last, at = 0, 0, None, 0
        with open(self.path, "rb") as file:
            while data := file.read(EVENT * BLOCK):
                words = np.frombuffer(data, np.uint8, len(data) // EVENT * EVENT).reshape(-1, EVENT)
                problems.count(
                    "event cut short at the end of the file, set aside", int(len(data) % EVENT > 0), at + words.size
                )
                mark = words[:, 1] == OVERFLOW_ROW
                if mark.any():
                    where = at + EVENT * int(mark.argmax())
                    problems.count("overflow of the clock marked in the file, 8192 µs added", int(mark.sum()), where)
                high, middle, low = words[:, 2:].astype(np.int64).T
                clock = ((high & 127) << 16 | middle << 8 | low)[~mark]
                kept = words[~mark]
                if len(kept):
                    last = int(clock[0]) if last is None else last
                    t, offset, last = unwrap(clock, CLOCK_BITS, offset, last, problems)
                    t += added + OVERFLOW_US * np.cumsum(mark)[~mark]
                    x, y = kept[:, 0].astype(np.uint16), kept[:, 1].astype(np.uint16)
                    yield Columns(x, y, t, kept[:, 2] >= 128, (at + len(data)) / size)
                added += OVERFLOW_US * int(mark.sum())
                at += len(data)

    def frames(self, problems: Problems) -> Iterator[Frame]:
        return iter(())
