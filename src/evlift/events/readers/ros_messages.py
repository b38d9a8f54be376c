"""ROS messages as bytes: events, their packets and camera_info, in both serialisations.

ROS 1 packs fields without gaps, little-endian (wiki.ros.org/msg). ROS 2 writes CDR (OMG DDS-XTypes, plain XCDR1): two
bytes 0x0000 (big-endian) or 0x0001 (little-endian), two of options, then the body, in which a number of n bytes stands
at a multiple of n, counted from the body's start. Both put a uint32 length before strings and arrays; a string of CDR
counts its final NUL.

    std_msgs/Header
        uint32 seq (ROS 1 only), stamp {sec, nanosec}, string frame_id
    dvs_msgs/EventArray, prophesee_event_msgs/EventArray
        Header, uint32 height, uint32 width, Event[]: uint16 x, uint16 y, ts {sec, nanosec}, bool p; ts is ROS time
    event_camera_msgs/EventPacket, once called event_array_msgs/EventArray
        Header, uint32 height, uint32 width, uint64 seq, uint64 time_base [ns], string encoding, bool is_bigendian,
        uint8[] events

An Event takes 13 bytes in ROS 1. In CDR it takes 16, but the first one 13: only after an event of odd size is there a
gap before `ts`. So x and y of event k ≥ 1 stand at 16k - 2 and 16k, ts and p of any event at 16k + 4 and 16k + 12.

Encodings of EventPacket (github.com/ros-event-camera/event_camera_msgs and event_camera_codecs):

    evt3          16-bit words of the sensor (see raw.py), a stream that runs on from packet to packet; sensor time
    mono          64-bit words: dt [ns] 32 bits | x 16 | y 15 | p 1; sensor time is time_base + dt
    libcaer       32-bit pairs: valid 1 bit | p 1 | y 15 | x 15, then µs; ROS time is time_base + µs
    libcaer_cmp   16-bit words with a code in the top 4 bits. 0, 1: time [µs] since time_base, its upper and lower 12
                  bits, both 0 when a packet begins. 2: x, 11 bits. 3: an event at y (11 bits) with p (bit 11).
                  4: base y (11 bits) and p (bit 11). 5: an event at base y + i for each bit i of 8, after which the
                  base moves up by 8. x, base y and p stay from packet to packet. ROS time.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from evlift.events.readers.reader import CHUNK, Columns, Problems, unwrap

DVS = ("dvs_msgs/EventArray", "prophesee_event_msgs/EventArray")
PACKET = ("event_camera_msgs/EventPacket", "event_array_msgs/EventArray")
CAMERA_INFO = "sensor_msgs/CameraInfo"

ON_ROS_TIME = ("libcaer", "libcaer_cmp")  # the driver has added the host's time at its start to time_base
PIECE = 1 << 17  # bytes of libcaer_cmp decoded at once: at 8 events a word, less than CHUNK events


class Damaged(Exception):
    """A message that does not hold what its type promises; the text says what."""


class Cursor:
    """Reads the fields of one message in their order; Damaged at the first that is not all there."""

    def __init__(self, data: bytes, cdr: bool) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise Damaged("no bytes")
        self.data, self.cdr, self.order, self.at, self._start = memoryview(data), cdr, "<", 0, 0
        if cdr:
            kind = bytes(self.take(4))[:2]
            if kind not in (b"\0\0", b"\0\1"):
                raise Damaged(f"encapsulation 0x{kind.hex()}")
            self.order, self._start = "><"[kind[1]], 4

    def take(self, size: int) -> memoryview:
        if size > len(self.data) - self.at:
            raise Damaged("ends early")
        self.at += size
        return self.data[self.at - size : self.at]

    def numbers(self, code: str, count: int) -> tuple[Any, ...]:
        """`count` numbers of one struct code, such as "I"."""
        size = struct.calcsize("=" + code)
        if self.cdr and count:
            self.at += -(self.at - self._start) % size
        return struct.unpack(f"{self.order}{count}{code}", self.take(count * size))

    def number(self, code: str) -> Any:
        return self.numbers(code, 1)[0]

    def string(self) -> str:
        return bytes(self.take(self.number("I"))).rstrip(b"\0").decode(errors="replace")

    def header(self) -> int:
        """std_msgs/Header: its stamp in ns; 0 where nobody set it."""
        if not self.cdr:
            self.number("I")
        stamp = self.number("i" if self.cdr else "I") * 10**9 + self.number("I")
        self.string()
        return stamp

    def rest(self, problems: Problems, at: int | None) -> memoryview:
        """The bytes of a uint8[] that ends the message; what is there of it when it is cut short."""
        count, left = self.number("I"), len(self.data) - self.at
        _check_end(count - left, problems, at)
        return self.take(min(count, left))


def dvs_events(cursor: Cursor, problems: Problems, at: int | None) -> Iterator[Columns]:
    """The events of an EventArray; the cursor has read the message up to them."""
    count, left = cursor.number("I"), len(cursor.data) - cursor.at
    stride = 16 if cursor.cdr else 13
    whole = min(count, (left + stride - 13) // stride)  # the last event has no gap after it
    _check_end(count * stride - (stride - 13) - left if count else -left, problems, at)
    u2, u4, seconds = (cursor.order + code for code in ("u2", "u4", "i4" if cursor.cdr else "u4"))

    for start in range(0, whole, CHUNK):
        n = min(CHUNK, whole - start)
        first = cursor.at + start * stride

        def column(kind: str, offset: int, n: int = n, first: int = first) -> np.ndarray:
            return np.ndarray((n,), kind, cursor.data, first + offset, (stride,))

        x, y = np.empty(n, np.uint16), np.empty(n, np.uint16)
        if cursor.cdr:
            x[:1], y[:1] = column(u2, -2 if start else 0, 1), column(u2, 0 if start else 2, 1)
            if n > 1:
                x[1:], y[1:] = column(u2, 14, n - 1), column(u2, 16, n - 1)
        else:
            x[:], y[:] = column(u2, 0), column(u2, 2)
        t = column(seconds, 4).astype(np.int64) * 1_000_000
        t += column(u4, 8) // 1000
        yield Columns(x, y, t, column("u1", 12) != 0)


class Packet(NamedTuple):
    """An EventPacket; stamp and time_base in ns."""

    stamp: int
    height: int
    width: int
    seq: int
    time_base: int
    encoding: str
    big_endian: bool
    payload: memoryview


def read_packet(cursor: Cursor, problems: Problems, at: int | None) -> Packet:
    stamp, height, width = cursor.header(), cursor.number("I"), cursor.number("I")
    seq, time_base, encoding = cursor.number("Q"), cursor.number("Q"), cursor.string()
    big_endian = bool(cursor.number("B"))
    return Packet(stamp, height, width, seq, time_base, encoding, big_endian, cursor.rest(problems, at))


class PacketDecoder:
    """The packets of one topic, in their order. Keeps what an encoding carries on from packet to packet."""

    def __init__(self) -> None:
        self._seq: int | None = None
        self._evt3: Any = None
        self._cmp = np.zeros(0, np.uint16)  # words that restore x, base y and polarity

    def decode(self, packet: Packet, problems: Problems, at: int | None) -> Iterator[Columns]:
        """The events of a packet. Raises Damaged on an encoding that is not read here."""
        self._count_lost(packet.seq, problems, at)
        match packet.encoding:
            case "evt3":
                yield from self._decode_evt3(packet, problems, at)
            case "libcaer_cmp":
                yield from self._decode_cmp(packet, problems, at)
            case "mono" | "libcaer":
                words = _words(packet, "u8", problems, at)
                if len(words):
                    decode = _mono if packet.encoding == "mono" else _libcaer
                    yield decode(words, _time_base(packet), problems)
            case other:
                raise Damaged(f"encoding {other[:20]!r}, which evlift does not read")

    def _count_lost(self, seq: int, problems: Problems, at: int | None) -> None:
        if self._seq is not None and seq != self._seq + 1:
            problems.count("jump in the event packets' sequence numbers: packets lost or out of order", at=at)
        self._seq = seq

    def _decode_evt3(self, packet: Packet, problems: Problems, at: int | None) -> Iterator[Columns]:
        if self._evt3 is None:
            from evlift.events.readers.raw import Evt3Decoder

            self._evt3 = Evt3Decoder()
        yield from self._evt3.chunks(_words(packet, "u2", problems, at), problems, at=None)

    def _decode_cmp(self, packet: Packet, problems: Problems, at: int | None) -> Iterator[Columns]:
        base = _time_base(packet)
        state = np.append(np.array([0x0000, 0x1000], np.uint16), self._cmp)  # a packet starts at 0 µs
        payload, size = _words(packet, "u2", problems, at), PIECE // 2
        for words in (payload[start : start + size] for start in range(0, len(payload), size)):
            columns, state = _libcaer_cmp(np.append(state, words), base, problems, at)
            self._cmp = state[2:]
            yield columns


def _words(packet: Packet, kind: str, problems: Problems, at: int | None) -> np.ndarray:
    """The payload as native words of a kind such as "u2"."""
    dtype = np.dtype((">" if packet.big_endian else "<") + kind)
    odd = len(packet.payload) % dtype.itemsize
    problems.count("event packet that ends within a word, its last bytes set aside", int(odd > 0), at)
    return np.frombuffer(packet.payload[: len(packet.payload) - odd], dtype).astype(dtype.newbyteorder("="), copy=False)


def _time_base(packet: Packet) -> int:
    if packet.time_base >= 1 << 62:
        raise Damaged("time_base beyond any time")
    return packet.time_base


def _mono(words: np.ndarray, base: int, _: Problems) -> Columns:
    t = ((words & np.uint64(0xFFFFFFFF)).astype(np.int64) + base) // 1000
    x, y = (words >> np.uint64(32)).astype(np.uint16), (words >> np.uint64(48)).astype(np.uint16) & np.uint16(0x7FFF)
    return Columns(x, y, t, words >> np.uint64(63) != 0)


def _libcaer(words: np.ndarray, base: int, problems: Problems) -> Columns:
    data, ticks = words.astype(np.uint32), (words >> np.uint64(32)).astype(np.uint32) & np.uint32(0x7FFFFFFF)
    t, _, _ = unwrap(ticks, 31, 0, int(ticks[0]), problems)
    x, y = (data >> np.uint32(17)).astype(np.uint16), (data >> np.uint32(2)).astype(np.uint16) & np.uint16(0x7FFF)
    return Columns(x, y, t + base // 1000, (data & np.uint32(2)) != 0)


def _libcaer_cmp(words: np.ndarray, base: int, problems: Problems, at: int | None) -> tuple[Columns, np.ndarray]:
    """Events of words that start with a time, and the words that restore the state after them."""
    code, value = words >> np.uint16(12), words & np.uint16(0xFFF)
    index = np.arange(len(words))

    def last(wanted: int) -> np.ndarray:
        """For each word the index of the last one of a code, itself included; -1 before the first."""
        return np.maximum.accumulate(np.where(code == wanted, index, -1))

    high, low, column, row = last(0), last(1), last(2), last(4)
    vectors = np.cumsum(code == 5)
    above = (vectors - vectors[row] - (code == 5)) * 8  # how far the base has moved since it was set
    base_y = np.where(row >= 0, (value[row] & 0x7FF).astype(np.int64) + above, 0)

    single = code == 3
    known = (column >= 0) & (single | (row >= 0))
    marks = np.where(single, 1, np.where(code == 5, value & 0xFF, 0)).astype(np.uint8)
    problems.count("word of events before the first address, set aside", int(np.count_nonzero(marks[~known])), at)
    problems.count("word that is no libcaer_cmp code, set aside", int(np.count_nonzero(code > 5)), at)
    marks[~known] = 0

    word, bit = np.nonzero(np.unpackbits(marks[:, None], axis=1, bitorder="little"))
    polarity = np.where(single, value, value[row]) >> np.uint16(11) != 0
    y = np.where(single, value & 0x7FF, base_y)
    ticks = (value[high].astype(np.int64) << 12) + value[low] + base // 1000
    columns = Columns(
        (value[column] & np.uint16(0x7FF))[word], (y[word] + bit).astype(np.uint16), ticks[word], polarity[word]
    )
    state = [words[high[-1]], words[low[-1]]]
    if column[-1] >= 0:
        state.append(words[column[-1]])
    if row[-1] >= 0:
        moved = min(int(base_y[-1]) + 8 * int(code[-1] == 5), 0x7FF)
        state.append(np.uint16((int(words[row[-1]]) & 0xF800) | moved))
    return columns, np.array(state, np.uint16)


def camera_info(cursor: Cursor) -> dict[str, Any] | None:
    """sensor_msgs/CameraInfo as what JSON holds: K 3×3, R 3×3, P 3×4 row by row, D of its model; None if not finite."""
    cursor.header()
    height, width, model = cursor.number("I"), cursor.number("I"), cursor.string()
    d = cursor.numbers("d", cursor.number("I"))
    k, r, p = (cursor.numbers("d", count) for count in (9, 9, 12))
    if not all(math.isfinite(value) for value in (*d, *k, *r, *p)):
        return None
    found = {"model": model, "width": width, "height": height, "K": list(k), "D": list(d), "R": list(r), "P": list(p)}
    return found


def _check_end(missing: int, problems: Problems, at: int | None) -> None:
    if missing > 0:
        problems.count("event message that ends before its last event, kept up to there", at=at)
    elif missing < -3:  # CDR may fill up the last four bytes
        problems.count("event message with bytes after its last event, left unread", at=at)
