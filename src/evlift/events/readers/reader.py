"""What a reader of a recording format is: columns out, in chunks, with every fault counted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from evlift.errors import ConfigError
from evlift.events.frames import Frame

CHUNK = 1 << 20
"""Events a chunk, at most: the working memory of whoever streams."""


class Columns(NamedTuple):
    """Events as decoded, not yet checked: order, bounds and duplicates are the business of `evlift.events.rules`.

    x, y: uint16 [N], pixels; a negative coordinate of a damaged file wraps to a large one and is found outside.
    t: int64 [N], µs. p: bool [N], True = brighter. done: share of the file that has been read after this chunk, 0…1.
    """

    x: np.ndarray
    y: np.ndarray
    t: np.ndarray
    p: np.ndarray
    done: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the user says where a file is silent, or which part of it is meant. Nothing here is ever guessed."""

    format: str | None = None
    """Name of the format, where content and name mislead."""
    size: tuple[int, int] | None = None
    """Height and width of the sensor in pixels."""
    time_unit: Literal["s", "ms", "us", "ns"] | None = None
    """Unit of the times, for formats that do not fix it (plain text, .npy, .npz)."""
    columns: str | None = None
    """Order of the columns, for the same formats, such as "t x y p"; "-" skips one."""
    stream: str | None = None
    """Which event stream, where there are several: a ROS topic, a group of an HDF5 file, a stream number."""
    image_stream: str | None = None
    """Which image stream, likewise."""

    def __post_init__(self) -> None:
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1 or max(self.size) > 65536):
            raise ConfigError(f"size is {self.size}; give the sensor's height and width in pixels, such as [480, 640]")
        if self.time_unit not in (None, "s", "ms", "us", "ns"):
            raise ConfigError(f"time_unit is {self.time_unit!r}; give s, ms, us or ns")

    def check(self, path: Path, format: str, uses: Collection[str]) -> None:
        """ConfigError when something is stated that means nothing to a format: it would be passed over in silence."""
        stated = [name for name, value in vars(self).items() if value is not None and name != "format"]
        if idle := [f"--{name}" for name in stated if name not in uses]:
            verb, it = ("means", "it") if len(idle) == 1 else ("mean", "them")
            raise ConfigError(f"{' and '.join(idle)} {verb} nothing to {path} ({format}); leave {it} out")


class Problems:
    """What was wrong with a recording, counted by kind in the order it was met."""

    def __init__(self) -> None:
        self._found: dict[str, list[Any]] = {}  # text → [count, byte offset of the first or None]

    def count(self, text: str, number: int | np.integer = 1, at: int | None = None) -> None:
        """Add `number` cases of `text` (singular, says what was done with it); `at`: byte offset of the first one."""
        if number > 0:
            entry = self._found.setdefault(text, [0, at])
            entry[0] += int(number)

    def say(self, text: str) -> None:
        """Add a fault that is no matter of counting; saying it twice is saying it once."""
        self._found.setdefault(text, [0, None])

    def number(self, text: str) -> int:
        """How many cases of `text` were counted."""
        return int(self._found.get(text, (0,))[0])

    def __len__(self) -> int:
        return len(self._found)

    def lines(self) -> list[str]:
        """One line a kind: ``12 × event outside the 640×480 sensor, set aside (first at byte 345)``."""
        lines = []
        for text, (number, at) in self._found.items():
            where = "" if at is None else f" (first at byte {at})" if number > 1 else f" (at byte {at})"
            lines.append((f"{number} × {text}" if number else text) + where)
        return lines


@runtime_checkable
class Reader(Protocol):
    """An opened file. Opening reads its header only; both iterators start from the beginning whenever they are called.

    A file that is cut short or damaged gives what is good of it, and the fault is counted in `problems` with its byte
    offset; where nothing can be read, InputError names the byte offset. Memory stays within a few chunks, whatever
    sizes the file claims: no length field is believed beyond the bytes that are there.
    """

    format: str
    """Name in the table of formats, such as "evt3"."""
    height: int | None
    """Of the sensor; None where neither the format nor the user says."""
    width: int | None
    sensor: str
    """The camera's name where the file has it, else ""."""
    clock: str
    """What time 0 is, in words, such as "camera start" or "Unix epoch"; "" where nobody says."""
    calibration: Any
    """What JSON holds, or None."""
    files: tuple[Path, ...]
    """The files that go into a recording, for checksums; a folder stands for the pictures in it."""

    def columns(self, problems: Problems) -> Iterator[Columns]:
        """The events in the file's order, at most CHUNK at a time."""
        ...

    def frames(self, problems: Problems) -> Iterator[Frame]:
        """The images in order of time, on the events' clock; none where the format has none."""
        ...


def say_not_read(streams: Iterable[str], problems: Problems) -> None:
    """Tell of event streams that are there beside the one that is read by default."""
    if names := ", ".join(streams):
        problems.say(f"also events of {names}, not read; name the ones you want with --stream")


def unwrap(t: np.ndarray, bits: int, offset: int, last: int, problems: Problems) -> tuple[np.ndarray, int, int]:
    """Undo the wrap of a counter of `bits` bits: a fall of more than half its range is a wrap, a smaller one is not.

    Args:
        t: unsigned counter values [N]; offset: what the chunks before have added (0 at first); last: the last counter
            value before `t` (that of the chunk before; at first the first value itself).
    Returns:
        (int64 [N] with the wraps undone, new offset, new last): hand the last two to the next call.
    """
    if not len(t):
        return t.astype(np.int64), offset, last
    t = t.astype(np.int64)
    period, half = 1 << bits, 1 << (bits - 1)
    steps = np.diff(t, prepend=np.int64(last))
    wraps = (steps < -half).astype(np.int64) - (steps > half)  # a late event just after a wrap steps back over it
    problems.count(f"wrap of the {bits}-bit clock, undone", int(np.count_nonzero(wraps > 0)))
    whole = t + offset + period * np.cumsum(wraps) if wraps.any() else t + offset
    return whole, int(whole[-1] - t[-1]), int(t[-1])
