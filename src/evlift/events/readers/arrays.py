"""NumPy arrays of events, .npy and .npz, read a block at a time and never unpickled.

    .npy   one array: structured, with fields t, x, y, p in any order and under usual names (ts, pol, polarity …), or
           [N, K] or [K, N] numbers whose K columns must be stated ("t x y p"; "-" skips one)
    .npz   a zip of .npy members, stored or deflated: arrays x, y, t, p of one length, or one array as above

The unit of time comes from `Stated.time_unit`, else from a field's name (``t_us``): where neither says, opening fails.
Float times are rounded to the nearest µs, halves up; nanoseconds are rounded down. Polarity: bool, {0, 1} or {-1, 1}.
For the layout of an array's file see npy_header.py.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from evlift.errors import InputError
from evlift.events.frames import Frame, one_line
from evlift.events.readers.npy_header import MAGIC, Header, read_header
from evlift.events.readers.reader import CHUNK, Columns, Problems, Stated
from evlift.events.readers.table import (
    BAD_COORDINATE,
    BAD_POLARITY,
    MIXED_POLARITY,
    NOT_FINITE,
    SHIFTS,
    TOO_LARGE,
    Names,
    named,
    stated_columns,
    unit_of_time,
)

FORMATS = {
    "npy": "NumPy array of events (unit of time stated; columns stated unless its fields are named)",
    "npz": "NumPy archive of events: arrays x, y, t, p, or one array (unit of time stated)",
}
SUFFIXES = {".npy": "npy", ".npz": "npz"}
USES = {"npy": ("size", "time_unit", "columns"), "npz": ("size", "time_unit", "columns", "stream")}

BLOCK = 1 << 23  # bytes of values read at once
PIECE = 1 << 16  # bytes asked of a compressed member at once: what is lost where it breaks off
MEMBERS = 64  # arrays of an archive looked at, at most

_ZIP = b"PK\x03\x04"
# NotImplementedError, which zipfile raises on what it cannot decompress, is a RuntimeError.
_BROKEN = (OSError, EOFError, ValueError, OverflowError, RuntimeError, zlib.error, zipfile.BadZipFile)


class Part(NamedTuple):
    """Rows of one or more of the four columns that lie together."""

    member: str  # of the archive; "" in an .npy
    start: int  # byte of the first row
    letters: tuple[str, ...]  # which of them
    dtype: np.dtype  # a row: fields by those letters
    rows: int  # as the header claims
    where: int | None  # what a fault is reported at: byte in the file; None: count rows from start


@dataclass(eq=False)
class ArrayReader:
    """Parts of one file that together hold t, x, y and p."""

    path: Path
    format: str
    parts: list[Part]
    unit: str
    height: int | None
    width: int | None
    sensor: str = ""
    clock: str = ""
    calibration: Any = None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def columns(self, problems: Problems) -> Iterator[Columns]:
        total = min(part.rows for part in self.parts)
        extra = max(part.rows for part in self.parts) - total
        problems.count("value without a partner in a shorter array, left out", extra)
        step = max(1, min(CHUNK, BLOCK // sum(part.dtype.itemsize for part in self.parts)))
        signs: set[int] = set()
        done = 0
        with ExitStack() as stack:
            files = _open(self.path, self.parts, stack)
            while done < total:
                wanted = min(step, total - done)
                blocks, faults = [], []
                for part, file in zip(self.parts, files, strict=True):
                    block, fault = _rows(file, part.dtype, wanted)
                    blocks.append(block)
                    if len(block) < wanted:
                        faults.append((part, len(block), fault))
                n = min(len(block) for block in blocks)
                values = {
                    name: block[name][:n]
                    for part, block in zip(self.parts, blocks, strict=True)
                    for name in part.letters
                }
                if n:
                    place = next(part for part in self.parts if "t" in part.letters)
                    events = _checked(values, self.unit, place, done, signs, problems)
                    if len(events.t):
                        yield events._replace(done=(done + n) / total)
                done += n
                if n < wanted:
                    part, short, fault = min(faults, key=lambda f: f[1])
                    at = part.start + (done - n + short) * part.dtype.itemsize if part.where is None else part.where
                    if not done:
                        raise InputError(
                            f"{self.path} {fault or 'ends'} before its first event (byte {at}); copy it again"
                        )
                    problems.count(f"event claimed but not there, the file {fault or 'is cut short'}", total - done, at)
                    break
            else:
                self._look_behind(files, total, problems)
        if {0, -1} <= signs:
            problems.say(MIXED_POLARITY)

    def _look_behind(self, files: list[IO[bytes]], total: int, problems: Problems) -> None:
        """Whether anything follows the values; in an archive, reading on also compares the checksum."""
        ends = {part.member: part.start for part in sorted(self.parts, key=lambda part: part.start)}
        for part, file in zip(self.parts, files, strict=True):
            if part.rows != total or part.start != ends[part.member]:
                continue
            more, fault = _rows(file, np.dtype("u1"), 1)
            at = part.start + total * part.dtype.itemsize if part.where is None else part.where
            if fault:
                problems.count(f"array whose file {fault}, its events are kept", 1, at)
            elif len(more):
                problems.count("array with bytes after its last value, left out", 1, at)

    def frames(self, problems: Problems) -> Iterator[Frame]:
        return iter(())


def matches(path: Path, head: bytes) -> str | None:
    """By the magic of .npy, or a zip whose first member is an .npy."""
    if head.startswith(MAGIC):
        return "npy"
    return "npz" if (first_member(head) or "").endswith(".npy") else None


def first_member(head: bytes) -> str | None:
    """Name of the first member of a zip; None where this is none."""
    if not head.startswith(_ZIP) or len(head) < 30:
        return None
    return head[30 : 30 + int.from_bytes(head[26:28], "little")].decode("latin-1")


def open_reader(path: Path, format: str, stated: Stated) -> ArrayReader:
    """Open an array or archive.

    Raises:
        InputError: it is damaged, holds Python objects, or neither it nor `stated` says its columns or unit of time.
        ConfigError: the stated columns are not t, x, y and p.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the array's file in it")
    columns = stated_columns(stated.columns) if stated.columns else None
    if format == "npy":
        try:
            with open(path, "rb") as file:
                header = read_header(file, str(path))
        except OSError as error:
            raise InputError(f"{path} cannot be read ({one_line(error)}); check its permissions") from error
        parts, names = _layout(header, "", None, str(path), columns)
    else:
        parts, names = _archive(path, stated.stream, columns)
    height, width = stated.size or (None, None)
    return ArrayReader(path, format, parts, unit_of_time(path, stated, names), height, width)


def open_member(path: Path, format: str, member: str, unit: str, size: tuple[int, int]) -> ArrayReader:
    """Open one structured array of an archive whose format fixes the unit and the sensor. InputError as above."""
    parts, _ = _archive(path, member, None)
    return ArrayReader(path, format, parts, unit, *size)


def _archive(path: Path, wanted: str | None, columns: Names | None) -> tuple[list[Part], Names]:
    """Which members of an .npz hold the events."""
    names = None
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {i.filename.removesuffix(".npy"): i for i in archive.infolist() if i.filename.endswith(".npy")}
            listed = ", ".join(list(infos)[:8])
            if wanted is not None:
                if wanted not in infos:
                    raise InputError(f"{path} has no array {wanted!r}; name one of {listed} with --stream")
                chosen = [wanted]
            else:
                names = named(list(infos))
                letters = dict(zip(infos, names.order, strict=True)) if names else {}
                chosen = [name for name in infos if letters.get(name, "-") != "-"] or list(infos)[:MEMBERS]
            headers: dict[str, Header] = {}
            reason: InputError | None = None
            for name in chosen:
                try:
                    headers[name] = _member_header(archive, infos[name], path)
                except InputError as error:
                    if names or len(chosen) == 1:
                        raise
                    reason = error  # another array may be the one
    except InputError:
        raise
    except _BROKEN as error:
        size = path.stat().st_size
        raise InputError(
            f"{path} is no whole zip archive of {size} bytes ({one_line(error)}, byte {size}); copy it again"
        ) from error
    if wanted is None and names:
        parts = []
        for name in chosen:
            if headers[name].fields != ("",) or _length(headers[name].shape) is None:
                raise InputError(f"{path} has an array {name} of shape {headers[name].shape}; give one value an event")
            parts += _parts(headers[name], (letters[name],), infos[name].filename, infos[name].header_offset, str(path))
        return parts, names
    found = []
    for name, header in headers.items():
        try:
            found.append(_layout(header, infos[name].filename, infos[name].header_offset, f"{path}: {name}", columns))
        except InputError as error:
            reason = error
    if len(found) == 1:
        return found[0]
    if len(chosen) == 1 and reason is not None:
        raise reason
    raise InputError(f"{path} has no arrays x, y, t, p but {listed or 'none'}; name the one of events with --stream")


def _member_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Header:
    name = info.filename.removesuffix(".npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile bounds what these swell to
        raise InputError(f"{path} has {name} in a compression that NumPy does not write; save it again")
    with archive.open(info) as file:
        return read_header(file, f"{path}: {name}, at byte {info.header_offset},")


def _layout(
    header: Header, member: str, where: int | None, what: str, columns: Names | None
) -> tuple[list[Part], Names]:
    """Where the four columns lie in one array."""
    if header.fields != ("",):
        names = columns or named(list(header.fields))
        if names is None or len(names.order) != len(header.fields):
            raise InputError(
                f"{what} has the fields {', '.join(header.fields)}; name each with --columns, "
                '"-" for one to skip, and the unit with --time_unit'
            )
        if _length(header.shape) is None:
            raise InputError(f"{what} has shape {header.shape}; give one record an event")
        return _parts(header, names.order, member, where, what), names
    shape = header.shape
    if columns is None:
        raise InputError(
            f"{what} does not name its columns (shape {shape}); "
            'add --columns "t x y p" in their order and --time_unit us'
        )
    k = len(columns.order)
    if len(shape) != 2 or k not in shape:
        raise InputError(
            f'{what} has shape {shape}, not the {k} columns of "{" ".join(columns.order)}"; name each of them'
        )
    upright = shape[1] == k  # [N, K]
    rows, item = shape[0] if upright else shape[1], header.dtype.itemsize
    if upright != header.columnwise:  # an event's values lie together
        dtype = np.dtype([(str(j), header.dtype[0]) for j in range(k)])
        together = header._replace(
            fields=tuple(map(str, range(k))), dtype=dtype, offsets=tuple(j * item for j in range(k)), shape=(rows,)
        )
        return _parts(together, columns.order, member, where, what), columns
    parts = []
    for j, letter in enumerate(columns.order):
        column = header._replace(shape=(rows,), start=header.start + j * rows * item)
        parts += _parts(column, (letter,), member, where, what)
    return parts, columns


def _parts(header: Header, letters: tuple[str, ...], member: str, where: int | None, what: str) -> list[Part]:
    """One part with the columns that `letters` names; none where all are skipped."""
    kept = [(letter, j) for j, letter in enumerate(letters) if letter != "-"]
    for letter, j in kept:
        kind = header.dtype[j]
        if kind.kind not in ("biuf" if letter == "p" else "iuf") or kind.itemsize > 8:
            raise InputError(f"{what} has {letter} as {kind}; save it as numbers of up to 64 bits")
    if not kept:
        return []
    dtype = np.dtype(
        {
            "names": [letter for letter, _ in kept],
            "formats": [header.dtype[j] for _, j in kept],
            "offsets": [header.offsets[j] for _, j in kept],
            "itemsize": header.dtype.itemsize,
        }
    )
    letters = tuple(letter for letter, _ in kept)
    return [Part(member, header.start, letters, dtype, _length(header.shape) or 0, where)]


def _length(shape: tuple[int, ...]) -> int | None:
    """Number of values in an array with one axis; None where it has more."""
    return prod(shape) if sum(n != 1 for n in shape) <= 1 and shape else None


def _open(path: Path, parts: list[Part], stack: ExitStack) -> list[IO[bytes]]:
    """A stream for each part, at its first row: parts are read side by side."""
    files: list[IO[bytes]] = []
    try:
        archive = stack.enter_context(zipfile.ZipFile(path)) if parts[0].member else None
        for part in parts:
            file: IO[bytes] = archive.open(part.member) if archive else open(path, "rb")
            files.append(stack.enter_context(file))
            if archive:
                file.read(part.start)  # a seek would switch the checksum off
            else:
                file.seek(part.start)
    except (*_BROKEN, KeyError) as error:
        where = max(part.where if part.where is not None else part.start for part in parts)
        raise InputError(f"{path} cannot be read ({one_line(error)}, byte {where}); copy it again") from error
    return files


def _rows(file: IO[bytes], dtype: np.dtype, wanted: int) -> tuple[np.ndarray, str]:
    """Up to `wanted` rows, and why there are not more: "" where the file just ends."""
    data, left, fault = bytearray(), wanted * dtype.itemsize, ""
    piece = PIECE if isinstance(file, zipfile.ZipExtFile) else left
    try:
        while left and (more := file.read(min(left, piece))):
            data += more
            left -= len(more)
    except _BROKEN as error:
        fault = f"is damaged ({one_line(error)})"
    return np.frombuffer(data, dtype, len(data) // dtype.itemsize), fault


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity are expected here
def _checked(
    values: dict[str, np.ndarray], unit: str, place: Part, done: int, signs: set[int], problems: Problems
) -> Columns:
    """Events of one block as they should be; others are counted and set aside. signs: polarities met so far."""
    t, faults = _times(values["t"], unit)
    x, bad_x = _coordinates(values["x"])
    y, bad_y = _coordinates(values["y"])
    p, bad_p = _polarities(values["p"])
    faults += [(BAD_COORDINATE, bad_x | bad_y), (BAD_POLARITY, bad_p)]
    keep = np.ones(len(t), bool)
    for text, bad in faults:
        bad &= keep
        if bad.any():
            row = done + int(bad.argmax())
            at = place.start + row * place.dtype.itemsize if place.where is None else place.where
            problems.count(text, int(bad.sum()), at)
            keep &= ~bad
    if values["p"].dtype.kind in "if":
        kept = values["p"][keep]
        signs.update(sign for sign in (0, -1) if sign not in signs and (kept == sign).any())
    if values["t"].dtype.kind == "f" and values["t"].dtype.itemsize < 8 and keep.any():
        step = float(np.spacing(np.abs(values["t"][keep]).max())) * 10.0 ** SHIFTS[unit]
        if step > 1:
            problems.say(f"times are {values['t'].dtype.name}, too coarse for single microseconds")
    return Columns(x, y, t, p) if keep.all() else Columns(x[keep], y[keep], t[keep], p[keep])


def _times(t: np.ndarray, unit: str) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Times as int64 µs, 0 where that is impossible, and the masks of those."""
    scale = 10 ** SHIFTS[unit] if unit != "ns" else 1
    if t.dtype.kind == "f":
        us = t.astype(np.float64)
        endless = ~np.isfinite(us)
        us = np.floor(us / 1000) if unit == "ns" else np.floor(us * scale + 0.5)
        large = ~endless & ~(np.abs(us) < 2.0**63)
        return np.where(endless | large, 0, us).astype(np.int64), [(NOT_FINITE, endless), (TOO_LARGE, large)]
    limit = (2**63 - 1) // scale
    large = np.zeros(len(t), bool)
    if t.dtype.itemsize == 8 and (t.dtype.kind == "u" or scale > 1):
        large = t > limit
        if t.dtype.kind == "i":
            large |= t < -limit
        t = np.where(large, 0, t)
    us = t.astype(np.int64)
    return (us // 1000 if unit == "ns" else us * scale), [(TOO_LARGE, large)]


def _coordinates(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels as uint16, 0 where that is impossible, and the mask of those."""
    if v.dtype.kind == "u" and v.dtype.itemsize <= 2:
        return v.astype(np.uint16), np.zeros(len(v), bool)
    bad = ~((v >= 0) & (v <= 65535))
    if v.dtype.kind == "f":
        bad |= ~(np.floor(v) == v)
    return np.where(bad, 0, v).astype(np.uint16), bad


def _polarities(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polarities as bool, and the mask of values that are none."""
    if p.dtype.kind == "b":
        return p.view(np.uint8) != 0, np.zeros(len(p), bool)  # a damaged bool may hold any byte
    bad = ~((p == 0) | (p == 1))
    return p > 0, bad & (p != -1) if p.dtype.kind != "u" else bad
