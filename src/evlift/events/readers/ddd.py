"""DDD17 and DDD20: driving recordings of a DAVIS346B in HDF5, raw or exported.

Raw (record.py, datasets.py and interfaces/caer.py of SensorsINI/ddd20-utils write and read it): each row is a packet of
cAER, as it came over the network. Rows are made ahead in groups; those that never came are empty.

    dvs/data       uint8 of any length [N, 3]   system time in µs as text | 28-byte header | body
    dvs/timestamp  int64 [N]                    the system time again (not the camera's clock: not needed here)

    header   i16 type (1 polarity, 2 frame, others skipped), i16 source, i32 bytes an event, i32 offset of its time,
             i32 overflow of the 31-bit clock, i32 capacity, i32 number of events, i32 number of valid ones
    polarity u32: bit 0 valid, bit 1 polarity (1 = brighter), bits 2-16 y, bits 17-31 x; i32 time in µs
    frame    u32: bit 0 valid, bits 1-3 channels; i32 × 4 start and end of the frame, start and end of the exposure, µs;
             i32 × 4 width, height, x, y; then uint16 [height, width], of which the upper 8 bits are kept

Times are the camera's: overflow · 2^31 + time. Exported (export_ddd20_hdf.py of the same, ``*.exported.hdf5``):

    event     uint32 [N, 4]            time in µs (31 bits, wraps), x, y, polarity
    frame     uint8 [F, 260, 346]
    frame_ts  float32 [F, 1]           end of the frame in s, as exact as float32: 8 µs after 64 s, 61 µs after 512 s

y runs down, as the rows of the frames do. In some recordings the camera is mounted upside down; nothing is turned here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evlift.errors import InputError
from evlift.events.frames import Frame
from evlift.events.readers import hdf5, vlen
from evlift.events.readers.reader import CHUNK, Columns, Problems, Stated, unwrap

FORMATS = {"ddd": "DDD17, DDD20: recorded HDF5", "ddd-export": "DDD20: HDF5 exported by its own tools"}
SUFFIXES: dict[str, str] = {}
USES = {name: ("size",) for name in FORMATS}

HEIGHT, WIDTH = 260, 346
POLARITY, FRAME = 1, 2
HEADER = np.dtype(
    [("type", "<i2"), ("source", "<i2")]
    + [(name, "<i4") for name in "size offset overflow capacity number valid".split()]
)
FRAME_HEADER = np.dtype([("info", "<u4")] + [(name, "<i4") for name in "start end open close width height x y".split()])


def matches(path: Path, head: bytes) -> str | None:
    """HDF5 with cAER's packets, or with the datasets of the export."""
    if hdf5.holds(path, head, "dvs/data", "dvs/timestamp"):
        return "ddd"
    return "ddd-export" if hdf5.holds(path, head, "event", "frame_ts") else None


def open_reader(path: Path, format: str, stated: Stated) -> DddReader | DddExportReader:
    """Open a recording."""
    return DddExportReader(path, stated) if format == "ddd-export" else DddReader(path, stated)


class Packet(NamedTuple):
    """A packet of cAER: bytes an event, what to add to its times, how many events there are, and their bytes."""

    size: int
    epoch: int
    number: int
    body: np.ndarray


class DddReader:
    """A reader, see `Reader`."""

    format = "ddd"
    sensor = "DAVIS346B"
    clock = "camera start"
    calibration = None

    def __init__(self, path: Path, stated: Stated) -> None:
        self.path = path
        self.files = (path,)
        self.height, self.width = stated.size or (HEIGHT, WIDTH)
        with hdf5.opened(path) as file:
            _packet_rows(file)

    def columns(self, problems: Problems) -> Iterator[Columns]:
        """All polarity events, in the order of the packets."""
        waiting: list[np.ndarray] = []
        done = 0.0
        for done, packet in self._packets(POLARITY, problems):
            if packet.size != 8:
                problems.count(f"polarity packet with events of {packet.size} bytes, left out")
                continue
            events = packet.body[: packet.number * 8].view("<u4").reshape(-1, 2).astype(np.int64)
            valid = (events[:, 0] & 1).astype(bool)
            problems.count("event that is marked invalid, set aside", len(valid) - int(valid.sum()))
            events = events[valid]
            events[:, 1] += packet.epoch
            for start in range(0, len(events), CHUNK):
                waiting.append(events[start : start + CHUNK])
                if sum(map(len, waiting)) > CHUNK:
                    yield _columns(waiting[:-1], done)
                    waiting = waiting[-1:]
        if waiting:
            yield _columns(waiting, 1.0)

    def frames(self, problems: Problems) -> Iterator[Frame]:
        """The images, 16 bits reduced to 8, at the start of their exposure."""
        last = None
        for _, packet in self._packets(FRAME, problems):
            for k in range(packet.number):
                frame = _frame(packet.body[k * packet.size : (k + 1) * packet.size], packet.epoch)
                if frame is None:
                    problems.count("image that is damaged or not grey, left out")
                elif last is not None and frame.t_us < last:
                    problems.count("image that steps back in time, left out")
                else:
                    last = frame.t_us
                    yield frame

    def _packets(self, kind: int, problems: Problems) -> Iterator[tuple[float, Packet]]:
        """The packets of one type, each with the share of the file that has been read."""
        with hdf5.opened(self.path) as file:
            rows = _packet_rows(file)
            heaps = vlen.Heaps(self.path)
            for i in range(len(rows)):
                try:
                    row = vlen.read_row(rows, heaps, i)
                except hdf5.Damaged as damage:
                    problems.count("packet that cannot be read, left out", 1, damage.at)
                    continue
                packet = _packet(row, kind, problems)
                if packet is not None:
                    yield (i + 1) / len(rows), packet


class DddExportReader:
    """A reader, see `Reader`."""

    format = "ddd-export"
    sensor = "DAVIS346B"
    clock = "camera start"
    calibration = None

    def __init__(self, path: Path, stated: Stated) -> None:
        self.path = path
        self.files = (path,)
        self.height, self.width = stated.size or (HEIGHT, WIDTH)
        with hdf5.opened(path) as file:
            hdf5.Rows(file, "event", "iu", (4,))

    def columns(self, problems: Problems) -> Iterator[Columns]:
        """All events, in the file's order."""
        with hdf5.opened(self.path) as file:
            rows = hdf5.Rows(file, "event", "iu", (4,))
            offset, last = 0, None
            for stop, (block,) in hdf5.blocks([rows], problems):
                t = block[:, 0]
                t, offset, last = unwrap(t, 31, offset, int(t[0]) if last is None else last, problems)
                x, y = (np.minimum(block[:, k], 65535).astype(np.uint16) for k in (1, 2))
                yield Columns(x, y, t, block[:, 3] > 0, stop / max(len(rows), 1))

    def frames(self, problems: Problems) -> Iterator[Frame]:
        """The images, at the end of their readout: the export keeps no exposure."""
        with hdf5.opened(self.path) as file:
            if "frame" not in file:
                return
            images = hdf5.Rows(file, "frame", "u", (None, None))
            seconds = hdf5.whole(hdf5.Rows(file, "frame_ts", "f", (1,)), problems)[:, 0]
            if not (np.abs(seconds) < 1e9).all():
                raise InputError(f"{self.path}: frame_ts holds what is no time; export the recording again")
            if len(seconds):
                exact = float(np.spacing(seconds.max())) * 1e6
                problems.say(f"image times are those of the export: end of the image, exact to {exact:.0f} µs")
            yield from hdf5.frames(images, np.rint(seconds.astype(np.float64) * 1e6).astype(np.int64), problems)


def _packet_rows(file: Any) -> hdf5.Rows:
    import h5py

    rows = hdf5.Rows(file, "dvs/data", "O", (3,))
    if h5py.check_vlen_dtype(rows.dtype) != np.uint8:
        raise InputError(f"{rows.path}: dvs/data does not hold bytes; download the recording again")
    if not vlen.fits(rows):
        raise InputError(f"{rows.path}: dvs/data is not as it was recorded; undo its repacking (h5repack -f NONE)")
    return rows


def _packet(row: Any, kind: int, problems: Problems) -> Packet | None:
    """The packet in a row when it is of this type, with as many events as its bytes hold."""
    _, head, body = row
    if not len(head) and not len(body):
        return None  # made ahead, never filled
    if len(head) != HEADER.itemsize:
        problems.count("packet without its header, left out")
        return None
    header = head.view(HEADER)[0]
    if header["type"] != kind:
        return None
    size, number, overflow = int(header["size"]), int(header["number"]), int(header["overflow"])
    if size < 8 or number < 0 or overflow < 0:
        problems.count("packet with a damaged header, left out")
        return None
    held = len(body) // size
    problems.count("event beyond the end of its packet, lost", max(number - held, 0))
    return Packet(size, overflow << 31, min(number, held), body)


def _frame(data: np.ndarray, epoch: int) -> Frame | None:
    start = FRAME_HEADER.itemsize
    if len(data) < start:
        return None
    header = data[:start].view(FRAME_HEADER)[0]
    width, height = int(header["width"]), int(header["height"])
    if not (0 < width <= 65536 and 0 < height <= 65536 and start + 2 * width * height <= len(data)):
        return None
    if not header["info"] & 1 or header["info"] >> 1 & 7 != 1:
        return None
    pixels = data[start : start + 2 * width * height].view("<u2").reshape(height, width)
    t = int(header["open"])
    return Frame(epoch + t, (pixels >> 8).astype(np.uint8), max(int(header["close"]) - t, 0))


def _columns(parts: list[np.ndarray], done: float) -> Columns:
    events = np.concatenate(parts)
    address = events[:, 0]
    x, y = (address >> 17).astype(np.uint16), (address >> 2 & 0x7FFF).astype(np.uint16)
    return Columns(x, y, events[:, 1].copy(), (address & 2) != 0, done)
