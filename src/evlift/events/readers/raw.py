"""Prophesee RAW: what the sensor sent, as EVT2, EVT2.1 or EVT3 words.

A header of text lines, ``% keyword value``, up to ``% end`` or the first line of another kind; then words:

EVT2, 32 bits    type 28…31. 0 and 1: an event that is darker or brighter, low time 22…27, x 11…21, y 0…10.
                 8: high time 0…27.
EVT2.1, 64 bits  type 60…63. 0 and 1: low time 54…59, x 43…53, y 32…42, and an event at x + k for every bit k of 0…31.
                 8: high time 32…59.
EVT3, 16 bits    type 12…15. 0: y 0…10 (11: slave camera). 2: an event, x 0…10, polarity 11. 3: x and polarity of the
                 vectors that follow. 4 and 5: an event at x + k for every bit k of 12 or 8, then x grows by 12 or 8.
                 6: low time 0…11. 8: high time 0…11.
all              10: external trigger. 14, 15 (EVT3: 7, too): what only the maker reads. Others are reserved.

Time is high time << 6 (EVT3: << 12) | low time, in µs; high time wraps after 2^34 µs (EVT3: 2^24). The bytes of a word
are little-endian unless the header says ``endianness big``; EVT2.1 of sensors up to the IMX636 has the upper 32 bits
first ("legacy").

The time of EVT3 is what its last two time words say, no more. Several sources write low times into one stream, each in
order for itself, so that a low time may lie below the one before (by some 10 µs in recordings of the Gen4.1). That is
no carry: high times, repeated every 16 µs, count the carries themselves. A decoder that adds 4096 µs at each fall
drifts for ever. A new high time sets the low time to 0 until its own arrives, as the maker's decoder has it.

Specification: https://docs.prophesee.ai/stable/data/file_formats/raw.html and, beside it, encoding_formats/evt2.html,
evt21.html, evt3.html; what headers leave unsaid is taken from the system number, as the maker's OpenEB does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from evlift.errors import InputError
from evlift.events.frames import Frame, one_line
from evlift.events.readers.reader import CHUNK, Columns, Problems, Stated

FORMATS = {
    "evt2": "Prophesee RAW, EVT 2.0: 32-bit words",
    "evt21": "Prophesee RAW, EVT 2.1: 64-bit words, vectors of 32 pixels",
    "evt3": "Prophesee RAW, EVT 3.0: 16-bit words",
}
SUFFIXES: dict[str, str] = {}
USES = {name: ("size",) for name in FORMATS}

BLOCK = 1 << 18  # bytes read at a time, a multiple of any word's size: small enough that freed columns are used again
HEADER_LIMIT = 1 << 16  # bytes; real headers have some hundreds

_NAMES = {"EVT2": "evt2", "EVT21": "evt21", "EVT3": "evt3", "2.0": "evt2", "2.1": "evt21", "3.0": "evt3"}


class _System(NamedTuple):
    sensor: str
    encoding: str  # what headers without a word on it mean
    size: tuple[int, int]


_GEN30, _GEN31 = _System("Gen3.0", "evt2", (480, 640)), _System("Gen3.1", "evt2", (480, 640))
_GEN40, _GEN41 = _System("Gen4.0", "evt2", (720, 1280)), _System("Gen4.1", "evt2", (720, 1280))
_IMX636 = _System("IMX636", "evt3", (720, 1280))
_SYSTEMS = {  # by system_ID, for headers that do not give the size
    **dict.fromkeys((0x15, 0x17, 0x19, 0x1D, 0x21, 0x97, 0x99, 0xA1), _GEN30),
    **dict.fromkeys((0x1C, 0x22, 0x23, 0x29, 0xA2), _GEN31),
    0x28: _GEN31._replace(encoding="evt3"),
    **dict.fromkeys((0x1A, 0x1F), _GEN40),
    **dict.fromkeys((0x1E, 0x2E), _GEN40._replace(encoding="evt3")),
    0x27: _GEN41,
    0x30: _GEN41._replace(encoding="evt3"),
    **dict.fromkeys((0x31, 0x32), _IMX636),
}
_FIRST_WHOLE_WORDS = 0x37  # system_ID from which on EVT2.1 words are sent whole, not in two halves


class _Encoding(NamedTuple):
    size: int  # bytes a word
    shift: int  # of the type
    clock: int  # bits
    early: str
    notes: tuple[tuple[tuple[int, ...], str], ...]  # words worth a line: their types, what was done with them


_TRIGGER, _UNKNOWN = "external trigger, left out", "word of unknown type, skipped"
_NO_TIME = "event before the first high time word, set aside"
_NO_STATE = "event before the first words of time, row or vector, set aside"
_NOTES = ((10,), _TRIGGER), ((2, 3, 4, 5, 6, 7, 9, 11, 12, 13), _UNKNOWN)
_ENCODINGS = {
    "evt2": _Encoding(4, 28, 34, _NO_TIME, _NOTES),
    "evt21": _Encoding(8, 60, 34, _NO_TIME, _NOTES),
    "evt3": _Encoding(  # with the bit below the type, which tells slave from master
        *(2, 11, 24, _NO_STATE),
        (
            ((20, 21), _TRIGGER),
            ((2, 3, 18, 19, 22, 23, 24, 25, 26, 27), _UNKNOWN),
            ((1,), "row of a slave camera, read like the master's"),
        ),
    ),
}


class Decoder:
    """A stream of EVT words, decoded piece by piece: each piece goes on where the last one ended.

    encoding: "evt2", "evt21" or "evt3". endianness: "little", "big" or, for EVT2.1, "legacy".
    """

    def __init__(self, encoding: str, endianness: str = "little") -> None:
        from evlift.events.readers import raw_kernels as kernels

        legacy = encoding == "evt21" and endianness == "legacy"
        self._kernels = kernels
        self._what = _ENCODINGS[encoding]
        if legacy:
            self._what = self._what._replace(shift=28)
        self._dtype = np.dtype(f"{'>' if endianness == 'big' else '<'}u{self._what.size}")
        self._notable = sum(1 << kind for types, _ in self._what.notes for kind in types)
        self._state = np.zeros(kernels.STATE, np.int64)
        self._state[kernels.BASE] = -1
        swap = np.uint64(32 if legacy else 0)
        self._count: Any  # words → events at most, and a bit for each type of word
        self._run: Any
        self._count, self._run = {
            "evt2": (lambda words: (len(words), 0), kernels.evt2),
            "evt21": (partial(kernels.evt21_count, swap), partial(kernels.evt21, swap)),
            "evt3": (kernels.evt3_count, kernels.evt3),
        }[encoding]

    def decode(self, buffer: Any, problems: Problems, at: int | None = 0) -> Columns:
        """All events of a piece: bytes, or an array that lies in one stretch. at: byte offset of the piece, if known.

        Vectors hold up to 78 bytes of columns a byte: for pieces of any size there is `chunks`.
        """
        parts = list(self.chunks(buffer, problems, at))
        if len(parts) == 1:
            return parts[0]
        columns = ([part[k] for part in parts] for k in range(4))
        kinds = (np.uint16, np.uint16, np.int64, np.bool_)
        x, y, t, p = (np.concatenate([np.empty(0, kind), *each]) for kind, each in zip(kinds, columns, strict=True))
        return Columns(x, y, t, p)

    def chunks(self, buffer: Any, problems: Problems, at: int | None = 0) -> Iterator[Columns]:
        """The same, at most CHUNK events at a time. Bytes that are no whole word are taken for the stream's last."""
        data, size = memoryview(buffer).cast("B"), self._what.size
        count = len(data) // size
        problems.count("last word cut short, dropped", len(data) % size > 0, _plus(at, count * size))
        if not count:
            return
        words = np.frombuffer(data, self._dtype, count)
        words = words.astype(self._dtype.newbyteorder("="), copy=not words.flags.aligned)
        done = 0
        while done < count:
            rest = words[done : done + BLOCK // size]
            events, seen = self._count(rest)
            room = min(events + self._kernels.SLACK + 1, CHUNK)
            x, y = np.empty(room, np.uint16), np.empty(room, np.uint16)
            t, p = np.empty(room, np.int64), np.empty(room, np.uint8)
            read, n = self._run(rest, self._state, x, y, t, p)
            self._report(rest[:read], seen | int(self._state[self._kernels.SEEN]), problems, _plus(at, done * size))
            done += read
            if n:
                yield Columns(x[:n], y[:n], t[:n], p[:n].view(bool))

    def _report(self, words: np.ndarray, seen: int, problems: Problems, at: int | None) -> None:
        """Count what the kernel has met in these words; seen: bit k where a word of type k may be among them."""
        kernels, what, state = self._kernels, self._what, self._state
        if early := int(state[kernels.EARLY]):
            problems.count(what.early, early, _plus(at, int(state[kernels.FIRST]) * what.size))
        if wraps := int(state[kernels.WRAPS]):
            problems.count(f"wrap of the {what.clock}-bit clock, undone", wraps)
        if not seen & self._notable:
            return
        kinds = words >> what.shift & (31 if what.size == 2 else 15)
        for types, text in what.notes:
            found = np.flatnonzero(np.isin(kinds, types))
            if len(found):
                problems.count(text, len(found), _plus(at, int(found[0]) * what.size))


Evt3Decoder = partial(Decoder, "evt3")
"""For EVT3 that comes in packets: ``Evt3Decoder().decode(packet, problems, at=offset)``."""


def _plus(at: int | None, offset: int) -> int | None:
    return None if at is None else at + offset


def read_header(file: IO[bytes]) -> tuple[dict[str, str], int]:
    """The header's ``{keyword: value}`` and where it ends. The file is read from its start and left anywhere.

    A line that is not text ends the header, too: words may by chance begin as a line of the header does.
    """
    fields: dict[str, str] = {}
    end = 0
    while (line := file.readline(HEADER_LIMIT)).startswith(b"% "):
        text = line.rstrip(b"\r\n")
        if any(byte < 32 and byte != 9 for byte in text) or len(line) == HEADER_LIMIT:
            break
        end += len(line)
        keyword, _, value = text[2:].decode("utf-8", "replace").strip().partition(" ")
        if keyword == "end" and not value:
            break
        if end > HEADER_LIMIT:
            raise InputError(f"the header of {getattr(file, 'name', 'this file')} has not ended at byte {end}; cut it")
        fields.setdefault(keyword, value.strip())
    return fields, end


def matches(path: Path, head: bytes) -> str | None:
    if not head.startswith(b"% "):
        return None
    try:
        return _encoding(read_header(BytesIO(head))[0])
    except InputError:
        return None


def open_reader(path: Path, format: str, stated: Stated) -> RawReader:
    return RawReader(path, format, stated)


class RawReader:
    """See `Reader`. Chunks are those of some hundred KB of words."""

    clock = "camera start"
    calibration = None

    def __init__(self, path: Path, format: str, stated: Stated) -> None:
        try:
            with open(path, "rb") as file:
                fields, self._start = read_header(file)
                self._bytes = max(file.seek(0, 2) - self._start, 1)
        except OSError as e:
            raise InputError(f"{path} cannot be read ({one_line(e)}); check its permissions") from e
        self.path, self.format, self.files = path, format, (path,)
        self._faults: list[str] = []
        system = _system(fields)
        size = stated.size or self._size(fields) or (system.size if system else None)
        self.height: int | None = size[0] if size else None
        self.width: int | None = size[1] if size else None
        self.sensor = fields.get("sensor_name") or (system.sensor if system else "") or fields.get("plugin_name", "")
        self._endianness = _endianness(fields, format)
        if self._endianness not in ("little", "big", "legacy")[: 3 if format == "evt21" else 2]:
            known = "little, big or, for EVT2.1, legacy"
            raise InputError(
                f"{path}: endianness {self._endianness[:20]!r} in the header, before byte {self._start}; use {known}"
            )

    def columns(self, problems: Problems) -> Iterator[Columns]:
        for fault in self._faults:
            problems.say(fault)
        decoder = Decoder(self.format, self._endianness)
        block = memoryview(bytearray(BLOCK))
        at = self._start
        with open(self.path, "rb") as file:
            file.seek(at)
            while size := file.readinto(block):
                done = min((at - self._start + size) / self._bytes, 1.0)
                for columns in decoder.chunks(block[:size], problems, at):
                    yield columns._replace(done=done)
                at += size

    def frames(self, problems: Problems) -> Iterator[Frame]:
        return iter(())

    def _size(self, fields: dict[str, str]) -> tuple[int, int] | None:
        """Height and width as the header has them: in the format's options, or by themselves."""
        options = _options(fields)
        told = [(options.get("height"), options.get("width")), tuple(reversed(fields.get("geometry", "").split("x")))]
        told = [pair for pair in told if any(pair)]
        sizes = {_pair(pair) for pair in told}
        if len(sizes) > 1 or None in sizes:
            words = " and ".join("×".join(str(side) for side in reversed(pair)) for pair in told)
            self._faults.append(f"the header gives the sensor's size as {words[:80]}, which is no size; ignored")
            return None
        return sizes.pop() if sizes else None


def _pair(pair: tuple[str | None, ...]) -> tuple[int, int] | None:
    if len(pair) != 2 or not all(side and side.isascii() and side.isdigit() and len(side) < 6 for side in pair):
        return None
    height, width = (int(side or 0) for side in pair)
    return (height, width) if 1 <= min(height, width) and max(height, width) <= 2048 else None


def _options(fields: dict[str, str]) -> dict[str, str]:
    """Of a format such as ``EVT3;height=720;width=1280``."""
    return {key: value for key, _, value in (part.partition("=") for part in fields.get("format", "").split(";")[1:])}


def _encoding(fields: dict[str, str]) -> str | None:
    if "format" in fields:
        return _NAMES.get(fields["format"].split(";")[0])
    if "evt" in fields:
        return _NAMES.get(fields["evt"])
    system = _system(fields)
    return system.encoding if system else None


def _system_number(fields: dict[str, str]) -> int | None:
    """Numbers of systems mean something in Prophesee's own files only."""
    makers = {fields[key] for key in ("camera_integrator_name", "integrator_name") if key in fields}
    number = fields.get("system_ID", "")
    return (
        int(number) if makers <= {"Prophesee"} and number.isascii() and number.isdigit() and len(number) < 12 else None
    )


def _system(fields: dict[str, str]) -> _System | None:
    number = _system_number(fields)
    return None if number is None else _SYSTEMS.get(number)


def _endianness(fields: dict[str, str], format: str) -> str:
    if told := _options(fields).get("endianness") or fields.get("endianness"):
        return told
    halves = format == "evt21" and 0 < (_system_number(fields) or 0) < _FIRST_WHOLE_WORDS
    return "legacy" if halves else "little"
