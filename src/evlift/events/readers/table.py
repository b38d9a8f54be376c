"""Plain text, an event a line: CSV, TSV and space-separated columns, in an order and a unit that must be said.

    # timestamp_us, x, y, polarity        comments (#, %) and blank lines anywhere
    timestamp_us,x,y,polarity             names of the columns: optional
    240 180                               width and height of the sensor: optional, as in the text files of E2VID
    1511,96,133,0                         one event a line, between spaces, tabs, commas or semicolons

There is no specification. The columns come from `Stated.columns`, else from a line of names; the unit of time from
`Stated.time_unit`, else from a unit in the time's name (``t_us``, ``timestamp [ns]``): where neither says, opening
fails. Numbers may have decimals and exponents, as `numpy.savetxt` writes them; times are rounded to the nearest µs,
halves up, except that nanoseconds are rounded down. Polarity: 0 or -1, false = darker; 1, true = brighter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events.frames import Frame, one_line
from evlift.events.readers.reader import Columns, Problems, Stated

FORMATS = {"csv": "plain text, an event a line: CSV, TSV or spaces (columns and unit of time stated)"}
SUFFIXES = {".csv": "csv", ".tsv": "csv", ".txt": "csv"}
USES = {name: ("size", "time_unit", "columns") for name in FORMATS}

BLOCK = 1 << 22  # bytes of text parsed at once
SHIFTS = {"s": 6, "ms": 3, "us": 0, "ns": -3}  # unit of time → power of ten that makes it µs

NOT_AN_EVENT = "line that is not an event, set aside"
BAD_COORDINATE = "event whose coordinate is no whole number from 0 to 65535, set aside"
BAD_POLARITY = "event whose polarity is not 0, 1, -1, true or false, set aside"
NOT_FINITE = "event whose time is NaN or infinite, set aside"
TOO_LARGE = "event whose time in µs does not fit 64 bits, set aside"
MIXED_POLARITY = "polarity has both 0 and -1, both taken as darker"

_ALIASES = {
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "x": ("x", "xs", "x_pos"),
    "y": ("y", "ys", "y_pos"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
_LETTERS = {alias: letter for letter, aliases in _ALIASES.items() for alias in aliases}
_UNITS = {"s": "s", "sec": "s", "seconds": "s", "ms": "ms", "us": "us", "µs": "us", "ns": "ns"}
_WITH_UNIT = re.compile(r"(\w+?)[_ ]?[_ (\[](" + "|".join(_UNITS) + r")[)\]]?")
_NUMBER = re.compile(rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf)", re.IGNORECASE)


class Names(NamedTuple):
    """What the columns hold, each a letter of "txyp" or "-", and the unit of time where a name tells it."""

    order: tuple[str, ...]
    unit: str | None


def named(names: list[str]) -> Names | None:
    """Columns by their names in a file; None where these are not t, x, y and p once each among others."""
    order: list[str] = []
    unit = None
    for name in names:
        name = name.strip().strip("\"'").lower()
        letter, found = _LETTERS.get(name), None
        if letter is None and (match := _WITH_UNIT.fullmatch(name)) and _LETTERS.get(match[1]) == "t":
            letter, found = "t", _UNITS[match[2]]
        order.append(letter or "-")
        unit = unit or found
    return Names(tuple(order), unit) if sorted(c for c in order if c != "-") == ["p", "t", "x", "y"] else None


def stated_columns(columns: str) -> Names:
    """Columns as the user states them; ConfigError on anything but t, x, y, p once each and "-"."""
    words = columns.replace(",", " ").split()
    found = named(words)
    if found is None or any(c == "-" != word for c, word in zip(found.order, words, strict=True)):
        raise ConfigError(f'columns is {columns!r}; name t, x, y and p once each in their order, "-" skips: "t x y p"')
    return found


def unit_of_time(path: Path, stated: Stated, names: Names) -> str:
    """The unit that the user states, else the file; InputError where nobody says."""
    unit = stated.time_unit or names.unit
    if unit is None:
        raise InputError(f"{path} does not say the unit of its times; add --time_unit us (or s, ms, ns)")
    return unit


class Preamble(NamedTuple):
    """What comes before the first event of a text file."""

    start: int  # byte offset of the first event
    fields: tuple[bytes, ...]  # of the first event; () where there is none
    names: Names | None
    size: tuple[int, int] | None  # height and width


def preamble(path: Path) -> Preamble:
    """Read up to the first event; InputError where the file cannot be read."""
    names, size, header = None, None, False
    start = 0
    try:
        with open(path, "rb") as file:
            if file.read(3) != b"\xef\xbb\xbf":  # a byte order mark
                file.seek(0)
            for _ in range(1000):
                start = file.tell()
                line = file.readline(1 << 16)
                if not line:
                    break
                text = line.strip()
                fields = _split(text.lstrip(b"#% \t"))
                if not text or text[:1] in b"#%":
                    names = named([f.decode("utf-8", "replace") for f in fields]) or names
                elif not header and not any(_NUMBER.fullmatch(f) for f in fields):
                    header = True
                    names = named([f.decode("utf-8", "replace") for f in fields]) or names
                elif (
                    size is None and len(fields) == 2 and all(f.isdigit() and 1 <= int(f[:6]) <= 65536 for f in fields)
                ):
                    size = (int(fields[1]), int(fields[0]))
                else:
                    return Preamble(start, tuple(fields), names, size)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({one_line(error)}); check its permissions") from error
    return Preamble(start, (), names, size)


def read_lines(
    path: Path, start: int, order: tuple[str, ...], unit: str, problems: Problems, advice: str
) -> Iterator[Columns]:
    """Events from the text after byte ``start``. InputError, ending in ``advice``, where lines are and none is one."""
    from evlift.events.readers import text_kernels as kernels

    roles = np.array(
        [{"t": kernels.T, "x": kernels.X, "y": kernels.Y, "p": kernels.P}.get(c, kernels.SKIP) for c in order]
    )
    kinds = {
        kernels.LINE: NOT_AN_EVENT,
        kernels.COORDINATE: BAD_COORDINATE,
        kernels.POLARITY: BAD_POLARITY,
        kernels.INFINITE: NOT_FINITE,
        kernels.TOO_LARGE: TOO_LARGE,
    }
    size = max(path.stat().st_size, 1)
    buffer = np.empty(BLOCK + 1, np.uint8)  # one more, for the line feed that the last line may lack
    room = len(buffer) // 8 + 1  # no event takes less than 8 bytes: "0 0 0 0\n"
    base, held, kept, lost = start, 0, 0, 0  # base: where in the file the buffer begins
    first: int | None = None
    polarities = np.zeros(2, bool)
    too_long, ended = False, False
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while not ended:
            got = file.readinto(memoryview(buffer)[held:BLOCK])  # type: ignore[arg-type]
            held += got
            ended = got == 0 or base + held >= size
            if ended and held and buffer[held - 1] != 10:
                if order[-1] != "p" and not too_long:  # a polarity of one digit cannot be cut
                    problems.count("last line without an end, kept as it is; the file may be cut short", 1, base + held)
                buffer[held] = 10
                held += 1
            if too_long:  # the rest of a line that has been counted
                skipped = _after_line_feed(buffer[:held])
                too_long = skipped == 0
                base, held = _drop(buffer, base, held, skipped or held)
                if too_long:
                    continue
            counts, firsts = np.zeros((2, kernels.COUNTS), np.int64)
            x, y, t, p = (np.empty(room, d) for d in (np.uint16, np.uint16, np.int64, np.uint8))
            n, used = kernels.parse_lines(buffer[:held], roles, SHIFTS[unit], unit == "ns", x, y, t, p, counts, firsts)
            for kind, text in kinds.items():
                problems.count(text, int(counts[kind]), base + int(firsts[kind]))
                lost += int(counts[kind])
                if counts[kind] and first is None:
                    first = base + int(firsts[kind])
            polarities |= counts[[kernels.MINUS, kernels.ZERO]] > 0
            if used == 0 and held == BLOCK:
                problems.count(NOT_AN_EVENT, 1, base)
                first = base if first is None else first
                lost += 1
                too_long, used = True, held
            base, held = _drop(buffer, base, held, used)
            kept += n
            if n:
                yield Columns(x[:n], y[:n], t[:n], p[:n].view(bool), min(base / size, 1.0))
    if polarities.all():
        problems.say(MIXED_POLARITY)
    if lost and not kept:
        raise InputError(f"{path} has no line that is an event (the first other one at byte {first}); {advice}")


@dataclass(eq=False)
class TableReader:
    """A text file in an order and a unit that are known."""

    path: Path
    order: tuple[str, ...]
    unit: str
    start: int
    """Byte offset of the first event."""
    fields: int
    """How many columns the first event has."""
    height: int | None
    width: int | None
    format: str = "csv"
    sensor: str = ""
    clock: str = ""
    calibration: Any = None
    files: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.files = (self.path,)

    def columns(self, problems: Problems) -> Iterator[Columns]:
        order = " ".join(self.order)
        advice = f'lines of {self.fields} columns were read as "{order}", name each with --columns, "-" for one to skip'
        return read_lines(self.path, self.start, self.order, self.unit, problems, advice)

    def frames(self, problems: Problems) -> Iterator[Frame]:
        return iter(())


def matches(path: Path, head: bytes) -> str | None:
    """Never: text has no mark of its own. Files are found by their suffix."""
    return None


def open_reader(path: Path, format: str, stated: Stated) -> TableReader:
    """Open a text file of events.

    Raises:
        InputError: it cannot be read, holds no data, or neither it nor `stated` says its columns or unit of time.
        ConfigError: the stated columns are not t, x, y and p.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the text file in it")
    head = preamble(path)
    names = stated_columns(stated.columns) if stated.columns else head.names
    if names is None:
        raise InputError(f'{path} does not name its columns; add --columns "t x y p" in their order and --time_unit us')
    unit = unit_of_time(path, stated, names)
    if not head.fields:
        raise InputError(f"{path} holds no events; copy or record it again")
    height, width = stated.size or head.size or (None, None)
    return TableReader(path, names.order, unit, head.start, len(head.fields), height, width)


def _split(text: bytes) -> list[bytes]:
    """Fields of a line, as the kernel sees them: empty ones are only between commas or semicolons."""
    if re.search(rb"[,;]", text):
        fields = [part.strip() for part in re.split(rb"[,;]", text)]
        return fields[:-1] if fields[-1] == b"" else fields
    return text.split()


def _after_line_feed(data: np.ndarray) -> int:
    """Index after the first line feed; 0 where there is none."""
    found = np.flatnonzero(data == 10)
    return int(found[0]) + 1 if len(found) else 0


def _drop(buffer: np.ndarray, base: int, held: int, used: int) -> tuple[int, int]:
    """Move what is left of the buffer to its front: (its new place in the file, its new length)."""
    left = held - used
    buffer[:left] = buffer[used:held].copy()
    return base + used, left
