"""AEDAT 4.0, what iniVation's DV and dv-processing write (.aedat4).

    "#!AER-DAT4.0\\r\\n"
    IOHeader      FlatBuffer "IOHE": compression int32, dataTablePosition int64 (-1: no table), infoNode string
    packets       int32 stream number, int32 size, then size bytes: one LZ4 or ZSTD frame, or as they are
    table         of packets, from dataTablePosition to the end; not needed to read a file from front to back

infoNode is XML that tells of each stream its number, its type (EVTS, FRME, IMUS, TRIG), sizeX, sizeY and source. A
packet holds one FlatBuffer with the stream's type as identifier; all are size-prefixed (see `aedat4_flatbuffers`):

    EVTS          vector of structs of 16 bytes: int64 time, int16 x, int16 y, bool brighter, 3 bytes of padding
    FRME          0…4 int64 times: middle of exposure, start and end of frame, start and end of exposure; 5 int8 format
                  (0 grey, 16 BGR, 24 BGRA); 6 7 int16 width, height; 8 9 int16 place of the top left corner on the
                  sensor; 10 vector of pixels; 11 int64 length of exposure (newer files; they leave 1…4 out)

Times are µs of the Unix epoch; x runs right, y down. Inertial measurements and triggers are passed over.
Specification: https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-4.0.html, and the
FlatBuffer schemas ioheader.fbs, events.fbs and frame.fbs that come with dv-processing.

What is damaged is counted and set aside packet by packet: the reader goes on at the next place that looks like one.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events.frames import Frame
from evlift.events.readers.aedat4_flatbuffers import Damaged, Table
from evlift.events.readers.reader import CHUNK, Columns, Problems, Stated

FORMATS = {"aedat4": "AEDAT 4.0 of iniVation's DV: events and frames"}
SUFFIXES: dict[str, str] = {}
USES = {name: ("size", "stream", "image_stream") for name in FORMATS}

MAGIC = b"#!AER-DAT4.0\r\n"
CODECS = (None, "lz4", "lz4", "zstd", "zstd")  # by IOHeader's compression: none, LZ4, LZ4 high, ZSTD, ZSTD high
MARKS = {None: rb"EVTS|FRME|IMUS|TRIG", "lz4": rb"\x04\x22\x4d\x18", "zstd": rb"\x28\xb5\x2f\xfd"}  # of a packet
EVENT = 16  # bytes
CHANNELS = {0: 1, 16: 3, 24: 4}  # of a frame, by its format
PIECE = CHUNK >> 4  # events a chunk: the memory of so small columns is used again, with no new pages to fault in
HEADER_LIMIT, PACKET_LIMIT = 1 << 24, 1 << 28  # bytes: DV's headers have some kilobytes, its packets some hundred
BLOCK = 1 << 18  # bytes read at a time in search of the next packet
PATIENCE = 8  # times the file's size that is read again in search of packets before the rest is given up


def matches(path: Path, head: bytes) -> str | None:
    return "aedat4" if head.startswith(MAGIC) else None


def open_reader(path: Path, format: str, stated: Stated) -> Aedat4:
    return Aedat4(path, stated)


@dataclass(frozen=True)
class Stream:
    """What the header's XML says of a stream; height and width are None where it is silent."""

    number: int
    type: str
    height: int | None
    width: int | None
    source: str


class Aedat4:
    """See `evlift.events.readers.reader.Reader`."""

    format = "aedat4"
    clock = "Unix epoch"
    calibration = None

    def __init__(self, path: Path, stated: Stated) -> None:
        self._path = path
        self.files: tuple[Path, ...] = (path,)
        with open(path, "rb") as file:
            self._size = os.fstat(file.fileno()).st_size
            header, self._start = _header(path, file, self._size)
        try:
            compression, self._table, xml = header.number(0, "i"), header.number(1, "q", -1), bytes(header.vector(2, 1))
        except Damaged:
            raise InputError(f"{path} has a damaged header at byte {len(MAGIC)}; copy it again") from None
        if not 0 <= compression < len(CODECS):
            raise InputError(
                f"{path} says at byte {len(MAGIC)} compression {compression}, which AEDAT 4.0 has not; copy it again"
            )
        self._codec = CODECS[compression]
        self._streams = _streams(path, xml)
        self._events = _choose(path, self._streams, "EVTS", stated.stream)
        self._frames = _choose(path, self._streams, "FRME", stated.image_stream)
        sized = self._events or self._frames
        if sized is None:
            raise InputError(f"{path} has neither an event nor a frame stream; choose a recording that has one")
        self.height, self.width = stated.size or (sized.height, sized.width)
        self.sensor = sized.source

    def columns(self, problems: Problems) -> Iterator[Columns]:
        """See `Reader.columns`."""
        from evlift.events.readers.aedat4_kernels import split

        if self._events is None:
            problems.say("there is no event stream")
            return
        self._tell_others(self._events, "event stream", "--stream", problems)
        buffers, filled = _buffers(), 0
        for at, packet in self._packets(self._events, problems, problems):
            try:
                words = np.frombuffer(Table(packet, b"EVTS").vector(0, EVENT), "<u4")
            except Damaged:
                problems.count("packet of events that is damaged, set aside", at=at)
                continue
            words = np.require(words, requirements="A")  # FlatBuffers are aligned, damaged ones perhaps not
            while len(words):
                part, words = words[: 4 * (PIECE - filled)], words[4 * (PIECE - filled) :]
                split(part, *(buffer[filled:] for buffer in buffers))
                filled += len(part) // 4
                if filled == PIECE:
                    yield _columns(buffers, filled, at / self._size)
                    buffers, filled = _buffers(), 0
        if filled:
            yield _columns(buffers, filled, 1.0)

    def frames(self, problems: Problems) -> Iterator[Frame]:
        """See `Reader.frames`. A frame of a part of the sensor lies at its place in a black picture."""
        if self._frames is None:
            return
        self._tell_others(self._frames, "image stream", "--image_stream", problems)
        told = problems if self._events is None else Problems()  # what lies between packets is told with the events
        last = None
        for at, packet in self._packets(self._frames, problems, told):
            try:
                frame = _frame(Table(packet, b"FRME"), self._frames)
                if last is not None and frame.t_us < last:
                    raise Damaged("frame earlier than the one before it, set aside")
            except Damaged as damage:
                problems.count(str(damage) or "frame that is damaged, set aside", at=at)
                continue
            last = frame.t_us
            yield frame

    def _tell_others(self, chosen: Stream, noun: str, option: str, problems: Problems) -> None:
        for stream in self._streams:
            if stream.type == chosen.type and stream is not chosen:
                source = f" ({stream.source})" if stream.source else ""
                problems.say(f"{noun} {stream.number}{source} left out; choose it with {option} {stream.number}")

    def _packets(self, stream: Stream, problems: Problems, between: Problems) -> Iterator[tuple[int, memoryview]]:
        """Byte offset and FlatBuffer of the stream's packets in the file's order.

        A packet that cannot be unpacked is counted in `problems`, bytes that belong to no packet in `between`.
        """
        with open(self._path, "rb") as file:
            at, doubtful, again = self._start, None, 0
            while at < self._size:
                head = self._head(file, at)
                if head is None and at == self._table:
                    break
                if (
                    head is None
                ):  # the bytes here are damaged, or the size of the packet before, of which nothing else was read
                    between.count("stretch that is no whole packet, passed over", at=at)
                    start = at if doubtful is None else doubtful
                else:
                    number, size = head
                    end, start = at + 8 + size, None
                    if number != stream.number:
                        at, doubtful = end, at
                        continue
                    try:
                        file.seek(at + 8)
                        yield at, _unpack(file.read(size), self._codec)
                    except Damaged:
                        problems.count("packet that cannot be unpacked, set aside", at=at)
                        if end not in (self._size, self._table) and self._head(file, end) is None:
                            start = at  # its size is damaged, too
                if start is None:
                    at, doubtful = end, None
                    continue
                again += max(at - start, 0) + (head[1] if head else 0)
                if again > PATIENCE * self._size:
                    between.count("rest of a file too damaged to go on, left out", at=at)
                    return
                at, doubtful = self._search(file, start + 1), None
        if self._table != -1 and at != self._table:
            between.say(f"the header says that the packets end at byte {self._table}, they end at byte {at}")

    def _head(self, file: BinaryIO, at: int) -> tuple[int, int] | None:
        """Stream and size of the packet at `at`; None when there is none that fits into the file."""
        file.seek(at)
        head = file.read(20)
        if len(head) < 20:
            return None
        number, size = struct.unpack_from("<ii", head)
        if not 12 <= size <= min(self._size - at - 8, PACKET_LIMIT) or all(number != s.number for s in self._streams):
            return None
        mark = 16 if self._codec is None else 8
        return (number, size) if re.match(MARKS[self._codec], head[mark:]) else None

    def _search(self, file: BinaryIO, at: int) -> int:
        """Where the first packet from `at` on starts; when there is none, where packets end."""
        mark = 16 if self._codec is None else 8
        stop = self._table if at <= self._table < self._size else self._size
        while at < stop:
            file.seek(at)
            for found in re.finditer(MARKS[self._codec], file.read(BLOCK + mark + 4)):
                start = at + found.start() - mark
                if at <= start < min(at + BLOCK + 1, stop) and self._head(file, start):
                    return start
            at += BLOCK
        return stop


def _buffers() -> tuple[np.ndarray, ...]:
    return tuple(np.empty(PIECE, dtype) for dtype in (np.uint16, np.uint16, np.int64, np.bool_))


def _columns(buffers: tuple[np.ndarray, ...], filled: int, done: float) -> Columns:
    x, y, t, p = (buffer[:filled] for buffer in buffers)
    return Columns(x, y, t, p, done)


def _header(path: Path, file: BinaryIO, size: int) -> tuple[Table, int]:
    """The IOHeader and the offset of the first packet."""
    at = len(MAGIC)
    file.seek(at)
    prefix = file.read(4)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 4 or length > min(size - at - 4, HEADER_LIMIT):
        raise InputError(f"{path} has a header at byte {at} that the file is too short for; copy it again")
    try:
        return Table(file.read(length), b"IOHE"), at + 4 + length
    except Damaged:
        raise InputError(f"{path} has a damaged header at byte {at}; copy it again") from None


def _streams(path: Path, xml: bytes) -> list[Stream]:
    """The streams, by number, of `<node name="outInfo">` and its `<node name="0">`…"""
    try:
        if b"<!" in xml:  # no such file declares entities, which may expand without end
            raise ElementTree.ParseError
        root = ElementTree.fromstring(xml.rstrip(b"\0"))
        nodes = [node for node in root.iterfind(".//node[@name='outInfo']/node")]
        return sorted((_stream(node) for node in nodes), key=lambda stream: stream.number)
    except (ElementTree.ParseError, ValueError):
        raise InputError(f"{path} has a damaged list of streams after byte {len(MAGIC)}; copy it again") from None


def _stream(node: ElementTree.Element) -> Stream:
    own = {attr.get("key"): attr.text or "" for attr in node.iterfind("attr")}
    info = {attr.get("key"): attr.text or "" for attr in node.iterfind("node[@name='info']/attr")}
    height, width = (int(info[key]) if key in info else 0 for key in ("sizeY", "sizeX"))
    sized = 1 <= height <= 65536 and 1 <= width <= 65536
    return Stream(
        int(node.get("name", "")),
        own.get("typeIdentifier", ""),
        height if sized else None,
        width if sized else None,
        info.get("source", ""),
    )


def _choose(path: Path, streams: list[Stream], type: str, wanted: str | None) -> Stream | None:
    """The stream that the user names by its number, by default the first of its type."""
    numbers = {str(stream.number): stream for stream in streams if stream.type == type}
    if wanted is None:
        return next(iter(numbers.values()), None)
    if wanted not in numbers:
        choice = " or ".join(numbers) or "none"
        raise ConfigError(f"{path} has no {type} stream {wanted!r}; choose {choice}")
    return numbers[wanted]


def _unpack(packed: bytes, codec: str | None) -> memoryview:
    """The FlatBuffer in a packet, without its size prefix; Damaged when the packet holds less, more, or other things.

    The size that the prefix claims is believed up to 32 MB, or 20 times the packet where that is more.
    """
    if codec is None:
        if int.from_bytes(packed[:4], "little") != len(packed) - 4:
            raise Damaged
        return memoryview(packed)[4:]
    import pyarrow as pa

    try:
        stream = pa.CompressedInputStream(pa.BufferReader(packed), codec)
        prefix = stream.read(4)
        size = int.from_bytes(prefix, "little")
        if len(prefix) < 4 or size > min(max(1 << 25, 20 * len(packed)), 1 << 29):
            raise Damaged
        content = stream.read_buffer(size)
        if len(content) < size or stream.read(1):
            raise Damaged
    except OSError:  # what pyarrow makes of the codec's complaints
        raise Damaged from None
    return memoryview(content)


def _frame(table: Table, stream: Stream) -> Frame:
    shape = table.number(7, "h"), table.number(6, "h")
    format = table.number(5, "b")
    if format not in CHANNELS:
        raise Damaged(f"frame in pixel format {format}, of which evlift reads 0, 16 and 24, set aside")
    pixels = np.frombuffer(table.vector(10, 1), np.uint8)
    if min(shape) < 1 or len(pixels) != shape[0] * shape[1] * CHANNELS[format]:
        raise Damaged
    image = pixels.reshape(*shape, -1)
    image = image[..., 0] if format == 0 else image[..., 2::-1]  # BGR and BGRA to RGB
    image = _placed(image, table.number(9, "h"), table.number(8, "h"), stream)
    start, end, exposure = table.number(3, "q"), table.number(4, "q"), table.number(11, "q")
    if start > 0 and end >= start:
        return Frame(start, image, end - start)
    return Frame(table.number(0, "q") - max(exposure, 0) // 2, image, max(exposure, 0))


def _placed(image: np.ndarray, y: int, x: int, stream: Stream) -> np.ndarray:
    """The image as large as the sensor, with zeros around it where it covers a part only."""
    height, width = image.shape[:2]
    if stream.height is None or stream.width is None or (height, width) == (stream.height, stream.width):
        return image.copy()
    if min(x, y) < 0 or y + height > stream.height or x + width > stream.width:
        raise Damaged("frame that reaches outside the sensor, set aside")
    if stream.height * stream.width > max(1 << 24, 20 * image.size):  # no camera has as many pixels: the header lies
        raise Damaged
    whole = np.zeros((stream.height, stream.width, *image.shape[2:]), np.uint8)
    whole[y : y + height, x : x + width] = image
    return whole
