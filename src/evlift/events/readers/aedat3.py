"""AEDAT 3.0 and 3.1, of cAER (.aedat); among others, the recordings of DVS-Gesture.

Text lines "#!AER-DAT3.1", "#Format: RAW", "#Source 1: DVS128" for each camera, …, "#!END-HEADER" (not in 3.0), each
with "\\r\\n"; then packets of one type of event, all little-endian. A packet starts with 28 bytes:

    int16 type, int16 source, int32 bytes an event, int32 offset of the time in an event, int32 overflow,
    int32 capacity, int32 number of events, int32 how many of them are valid

    type 1     polarity event of 8 bytes: bit 0 valid, bit 1 ON, bits 2–16 y, bits 17–31 x; int32 time
    type 2     frame: uint32 with bit 0 valid and bits 1–3 channels (1 grey, 3 RGB, 4 RGBA); int32 times of the start
               and end of the frame and of the exposure; int32 width, height, x and y of its corner; uint16 pixels
    others     signals, inertial measurements…: passed over

Times are µs, 31 bits: an event's is overflow << 31 | time. x runs right; y down (in 3.0 up: turned here, frames too).
Specification: https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-3.1.html (and aedat-3.0).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events.frames import Frame
from evlift.events.readers.aedat_header import Chip, chip, header_lines
from evlift.events.readers.reader import CHUNK, Columns, Problems, Stated

POLARITY, FRAME = 1, 2
HEAD = struct.Struct("<hhiiiiii")
TIME_PLACE = re.compile(rb"\x04\x00\x00\x00")  # the offset of the time, 8 bytes into nearly every packet's header
EVENT_LIMIT = 1 << 26  # bytes: a frame of 5000×5000 pixels
OVERFLOW_LIMIT = 1 << 20  # times 36 minutes
BLOCK = 1 << 18  # bytes read at a time in search of the next packet
FIRST = 10_000  # packets that opening looks at for the first one of events


class Packet(NamedTuple):
    """A packet's header; `start` and `end` of its events in the file."""

    type: int
    source: int
    size: int
    overflow: int
    number: int
    start: int
    end: int


class Aedat3:
    """See `evlift.events.readers.reader.Reader`."""

    format = "aedat3"
    clock = "camera start"
    calibration = None

    def __init__(self, path: Path, stated: Stated) -> None:
        self._path = path
        self.files: tuple[Path, ...] = (path,)
        with open(path, "rb") as file:
            self._size = os.fstat(file.fileno()).st_size
            lines, self._start = header_lines(file)
            if not lines or not lines[0].startswith(b"#!AER-DAT3."):
                raise InputError(f"{path} does not start with #!AER-DAT3. at byte 0; name its format with --format")
            self._up = lines[0].startswith(b"#!AER-DAT3.0")
            if not self._up and not lines[-1].startswith(b"#!END-HEADER"):
                raise InputError(f"{path} has no end of its header at byte {self._start}; copy it again")
            names = (re.match(rb"#Source (\d{1,5}): *(.*)", line) for line in lines)
            self._names = {int(name[1]): name[2].decode("latin-1").strip() for name in names if name}
            self._source = self._wanted(stated.stream)
            if self._source is None:
                self._source = self._first(file)
            images = self._wanted(stated.image_stream)
            self._images = self._source if images is None else images
        self.sensor = self._name(self._source)
        known = chip(self.sensor)
        self._rows = known.height if known else (stated.size or (0, 0))[0]
        self.height: int | None
        self.width: int | None
        self.height, self.width = stated.size or ((known.height, known.width) if known else (None, None))
        if self._up and not self._rows:
            raise InputError(f"{path} does not say how large its sensor is; give its height and width with --size")

    def columns(self, problems: Problems) -> Iterator[Columns]:
        """See `Reader.columns`."""
        held: list[tuple[bytes, int, int]] = []  # events of a packet as they lie in the file, overflow, byte offset
        room = CHUNK
        with open(self._path, "rb") as file:
            for packet in self._packets(file, problems):
                if packet.type != POLARITY:
                    continue
                if packet.source != self._source:
                    self._count_other("event", packet, "--stream", problems)
                    continue
                file.seek(packet.start)
                left = (packet.end - packet.start) // 8
                while left:
                    piece = file.read(8 * min(left, room))
                    if len(piece) < 8:  # the file has shrunk
                        break
                    held.append((piece, packet.overflow, file.tell() - len(piece)))
                    left -= len(piece) // 8
                    room -= len(piece) // 8
                    if room == 0:
                        yield self._decode(held, packet.start / self._size, problems)
                        held, room = [], CHUNK
        if held:
            yield self._decode(held, 1.0, problems)

    def frames(self, problems: Problems) -> Iterator[Frame]:
        """See `Reader.frames`. Pixels of 16 bits are cut to their upper 8."""
        last = None
        with open(self._path, "rb") as file:
            for packet in self._packets(file, Problems()):  # what lies between packets is told with the events
                if packet.type != FRAME:
                    continue
                if packet.source != self._images:
                    self._count_other("frame", packet, "--image_stream", problems)
                    continue
                for at in range(packet.start, packet.end - packet.size + 1, packet.size):
                    file.seek(at)
                    frame = _frame(file.read(packet.size), packet.overflow, chip(self._name(packet.source)), self._up)
                    if isinstance(frame, str):
                        problems.count(frame, at=at)
                    elif last is not None and frame.t_us < last:
                        problems.count("frame earlier than the one before it, set aside", at=at)
                    else:
                        last = frame.t_us
                        yield frame

    def _decode(self, held: list[tuple[bytes, int, int]], done: float, problems: Problems) -> Columns:
        words = np.frombuffer(b"".join(piece for piece, _, _ in held), "<u4").reshape(-1, 2)
        counts = np.array([len(piece) // 8 for piece, _, _ in held])
        overflow = np.repeat(np.array([overflow for _, overflow, _ in held], np.int64), counts)
        data, ticks = words[:, 0], words[:, 1].view("<i4")
        invalid, negative = data & np.uint32(1) == 0, ticks < 0
        for text, bad in (("marked as invalid", invalid), ("with a negative time", negative & ~invalid)):
            if bad.any():
                first, piece = int(bad.argmax()), 0
                while first >= counts[piece]:
                    first, piece = first - int(counts[piece]), piece + 1
                number = int(np.count_nonzero(bad))
                problems.count(f"event {text}, set aside", number, at=held[piece][2] + 8 * first)
        bad = invalid | negative
        if bad.any():
            data, ticks, overflow = data[~bad], ticks[~bad], overflow[~bad]
        x, y = data >> np.uint32(17), data >> np.uint32(2) & np.uint32(0x7FFF)
        if self._up:
            y = np.uint32(self._rows - 1) - y
        t = (overflow << 31) + ticks
        return Columns(x.astype(np.uint16), y.astype(np.uint16), t, data & np.uint32(2) != 0, done)

    def _wanted(self, stream: str | None) -> int | None:
        """The source that the user names by its number."""
        if stream is None:
            return None
        if not stream.isdecimal() or (self._names and int(stream) not in self._names):
            choice = " or ".join(f"{number} ({name})" for number, name in self._names.items())
            raise ConfigError(f"{self._path} has no source {stream!r}; choose {choice or 'a number'}")
        return int(stream)

    def _first(self, file: BinaryIO) -> int:
        """The source of the first events, or frames, or that the header has."""
        frames = None
        for packet, _ in zip(self._packets(file, Problems()), range(FIRST), strict=False):
            if packet.type == POLARITY:
                return packet.source
            if packet.type == FRAME and frames is None:
                frames = packet.source
        return next(iter(self._names), 0) if frames is None else frames

    def _name(self, source: int) -> str:
        """The camera's name; a file's only camera may have another number in its header than in its packets."""
        if source not in self._names and len(self._names) == 1:
            return next(iter(self._names.values()))
        return self._names.get(source, "")

    def _count_other(self, noun: str, packet: Packet, option: str, problems: Problems) -> None:
        text = f"{noun} of source {packet.source} left out; choose it with {option} {packet.source}"
        problems.count(text, (packet.end - packet.start) // packet.size)

    def _packets(self, file: BinaryIO, problems: Problems) -> Iterator[Packet]:
        """The packets in the file's order. What is damaged is passed over, to the next place that looks like one."""
        at = self._start
        while at < self._size:
            packet = self._head(file, at)
            if packet is None:
                problems.count("stretch that is no packet, passed over", at=at)
                at = self._search(file, at + 1)
                continue
            if packet.end != self._size and (packet.end > self._size or self._head(file, packet.end) is None):
                following = self._search(file, packet.start)
                if following < min(packet.end, self._size):  # another packet starts inside this one
                    problems.count("packet of a wrong size, set aside", at=at)
                    at = following
                    continue
                if packet.end > self._size:
                    problems.count("packet cut short by the end of the file, its whole events kept", at=at)
                    packet = packet._replace(end=self._size)
            yield packet
            at = packet.end

    def _head(self, file: BinaryIO, at: int) -> Packet | None:
        """The packet whose header is at `at`; None when no such header is possible."""
        file.seek(at)
        head = file.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        type, source, size, place, overflow, capacity, number, valid = HEAD.unpack(head)
        if not (
            0 <= type < 32 and 4 <= size <= EVENT_LIMIT and 0 <= place <= size - 4 and (type != POLARITY or size == 8)
        ):
            return None
        if not (0 <= overflow < OVERFLOW_LIMIT and 0 <= valid <= number <= capacity and source >= 0):
            return None
        start = at + HEAD.size
        return Packet(type, source, size, overflow, number, start, start + number * size)

    def _search(self, file: BinaryIO, at: int) -> int:
        """Where the first packet from `at` on starts, the end of the file when there is none."""
        while at < self._size:
            file.seek(at)
            for found in TIME_PLACE.finditer(file.read(BLOCK + 12)):
                start = at + found.start() - 8
                if at <= start <= at + BLOCK and self._head(file, start):
                    return start
            at += BLOCK
        return self._size


def _frame(data: bytes, overflow: int, known: Chip | None, up: bool) -> Frame | str:
    """A frame, or what is wrong with it."""
    if len(data) < 36:
        return "frame that is cut short, set aside"
    info, _, _, start, end, width, height, x, y = struct.unpack_from("<Iiiiiiiii", data)
    channels = info >> 1 & 7
    if not info & 1:
        return "frame marked as invalid, set aside"
    if (
        channels not in (1, 3, 4)
        or min(width, height, x, y, start) < 0
        or not 0 < 2 * width * height * channels <= len(data) - 36
    ):
        return "frame that is damaged, set aside"
    image = (np.frombuffer(data, "<u2", width * height * channels, 36) >> 8).astype(np.uint8)
    image = image.reshape(height, width, channels)
    image = image[..., 0] if channels == 1 else image[..., :3]
    if known and (height, width) != (known.height, known.width):
        if y + height > known.height or x + width > known.width:
            return "frame that reaches outside the sensor, set aside"
        whole = np.zeros((known.height, known.width, *image.shape[2:]), np.uint8)
        whole[y : y + height, x : x + width] = image
        image = whole
    if up:
        image = image[::-1]
    if end < start:  # the clock overflowed during the exposure
        end += 1 << 31
    return Frame((overflow << 31) + start, np.ascontiguousarray(image), end - start)
