"""Open a packed recording: memory-mapped words, windows by two look-ups.

    events.u32        one word an event (see evlift.events.packed)
    ms_index.npy      int64 [milliseconds + 1], events before each millisecond
    recording.json    size, counts, first and last time, sensor, clock, source, licence, calibration, tags
    frames/           JPEG pictures; frames.parquet holds their times
    rectify_map.npy   float32 [H, W, 2], where there is one: (x', y') of each pixel in the rectified picture

Sizes are checked on opening, the stretch of the index that a window uses when the window is cut, and every word when it
is decoded or voxelised: a damaged file raises InputError and is never followed outside its bounds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evlift.errors import InputError
from evlift.events.frames import Frame, FrameTable, one_line, read_frame, read_table
from evlift.events.packed import MAX_HEIGHT, MAX_WIDTH, WORD, unpack
from evlift.events.stream import Events, microseconds, window_bounds

if TYPE_CHECKING:
    from evlift.events.readers.reader import Columns, Problems
    from evlift.events.source import FileRecording

FORMAT, VERSION = "evlift-recording", 1
WORDS, INDEX, INFO, MAP = "events.u32", "ms_index.npy", "recording.json", "rectify_map.npy"
PARTIAL = ".partial-"


@dataclass(frozen=True, eq=False, repr=False)
class Window:
    """A stretch of a packed recording, not decoded: views of the mapped files.

    words: uint32 [N]. offsets: int64 [M + 1], the recording's index over the M milliseconds the window touches;
    ``start`` is the recording's number of ``words[0]``, so that millisecond ``first_ms + k`` of the window holds
    ``words[max(offsets[k] - start, 0) : min(offsets[k + 1] - start, N)]``.
    t0_us, t1_us: the half-open window asked for. height, width: the sensor's size.
    """

    words: np.ndarray
    offsets: np.ndarray
    start: int
    first_ms: int
    t0_us: int
    t1_us: int
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"Window({len(self):,} events, {self.width}×{self.height}, [{self.t0_us}, {self.t1_us}) µs)"

    def events(self) -> Events:
        """Decoded to columns. InputError when a word is outside the sensor or out of order (a damaged file)."""
        bounds = np.clip(self.offsets, self.start, self.start + len(self))
        return unpack(self.words, np.diff(bounds), self.first_ms, self.height, self.width)


class Recording:
    """A packed recording, opened. Cheap to open, safe to pickle (a worker process opens it again by its path).

    As a `FileRecording`: path, format, height, width, sensor, clock, calibration, rectify_map, events, chunks, images,
    describe. Only here, since it takes an index: len, t_first, t_last, duration_us, window, last, count, frames,
    frame(i). info: recording.json as it is.
    """

    format = "packed"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info = _read_info(self.path)
        self.height, self.width = self.info["height"], self.info["width"]
        self.sensor, self.clock = (str(self.info.get(key) or "") for key in ("sensor", "clock"))
        self.calibration: Any = self.info.get("calibration")
        self._first_ms: int = self.info["first_ms"]
        count, milliseconds = self.info["events"], self.info["milliseconds"]
        self._words = _map_words(self.path / WORDS, count)
        self._index = _map_index(self.path / INDEX, milliseconds, count)

    def __len__(self) -> int:
        return len(self._words)

    def __repr__(self) -> str:
        size, seconds = f"{self.width}×{self.height}", self.duration_us / 1e6
        return f"Recording({self.path.name!r}, {len(self):,} events, {size}, {seconds:.3f} s)"

    def __reduce__(self) -> tuple[Any, ...]:
        return Recording, (self.path,)

    @property
    def t_first(self) -> int:
        """Time of the first event, µs; 0 when there is none."""
        return self.info["t_first_us"] or 0

    @property
    def t_last(self) -> int:
        """Time of the last event, µs; 0 when there is none."""
        return self.info["t_last_us"] or 0

    @property
    def duration_us(self) -> int:
        """Time from the first event to the last, µs."""
        return self.t_last - self.t_first

    @cached_property
    def rectify_map(self) -> np.ndarray | None:
        """Where each pixel lies in the rectified picture, float32 [H, W, 2], mapped from the disk; None without a map.

        It fits `evlift.events.filters.Rectify` and `evlift.represent.rectify`. InputError when it is damaged.
        """
        if not self.info.get("rectify_map"):
            return None
        path = self.path / MAP
        try:
            table = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        except (OSError, ValueError, EOFError) as e:
            raise InputError(f"{path} cannot be read ({one_line(e)}); convert the recording again") from e
        if table.dtype != np.dtype("<f4") or table.shape != (self.height, self.width, 2):
            raise InputError(f"{path} does not fit the sensor: the recording is damaged; convert it again")
        return table

    @cached_property
    def frames(self) -> FrameTable:
        """Times and names of the pictures: arrays ``t_us``, ``exposure_us``, ``file``; empty when there are none."""
        return read_table(self.path)

    def frame(self, i: int) -> np.ndarray:
        """Picture i, uint8 [H, W, 3] RGB. InputError when there is no such picture or it cannot be read."""
        if not -len(self.frames) <= i < len(self.frames):
            raise InputError(f"{self.path} has {len(self.frames)} frames, there is no frame {i}; choose one of them")
        return read_frame(self.path, self.frames.file[i])

    def images(self, problems: Problems | None = None) -> Iterator[Frame]:
        """The pictures in order of time, as a `FileRecording` gives them; those that cannot be read are counted."""
        from evlift.events.readers.reader import Problems

        problems = Problems() if problems is None else problems
        for i, (t_us, exposure_us) in enumerate(zip(self.frames.t_us, self.frames.exposure_us, strict=True)):
            try:
                image = self.frame(i)
            except InputError:
                problems.count("frame that cannot be read, left out")
                continue
            yield Frame(int(t_us), image, int(exposure_us))

    def window(self, t0_us: float, t1_us: float) -> Window:
        """Events in the half-open window ``[t0, t1)``, exact to the µs, without decoding or copying."""
        t0, t1 = window_bounds(t0_us, t1_us)
        return self._cut(self._before(t0), self._before(t1), t0, t1)

    def last(self, count: int, t1_us: float) -> Window:
        """The last ``count`` events before ``t1`` (fewer when there are not as many)."""
        if count < 0:
            raise InputError(f"{count} events cannot be taken; use 0 or more")
        t1 = microseconds(t1_us)
        stop = self._before(t1)
        start = max(0, stop - count)
        if start == stop:
            return self._cut(stop, stop, t1, t1)
        return self._cut(start, stop, self._time(start), t1)

    def events(self, t0_us: float | None = None, t1_us: float | None = None) -> Events:
        """Events in ``[t0, t1)`` as columns; without bounds from the first and to the last."""
        t0 = self.t_first if t0_us is None else t0_us
        t1 = self.t_last + 1 if t1_us is None else t1_us
        return self.window(t0, max(t0, t1) if t0_us is None or t1_us is None else t1).events()

    def count(self, t0_us: float, t1_us: float) -> int:
        """How many events lie in ``[t0, t1)``."""
        t0, t1 = window_bounds(t0_us, t1_us)
        return self._before(t1) - self._before(t0)

    def describe(self) -> dict[str, Any]:
        """What the files hold, counted from the words themselves, and what is wrong with them (``problems``).

        Reads every word, a block at a time; for the keys see ``evlift.events.inspection.describe``. Never raises on
        damaged words: it reports them.
        """
        from evlift.events.inspection import describe

        return describe(self)

    def columns(self, problems: Problems) -> Iterator[Columns]:
        """Every event as it lies in the words, damaged or not, in chunks; what cannot be an event is counted."""
        from evlift.events.readers.reader import CHUNK, Columns

        for a in range(0, len(self._words), CHUNK):
            words = self._words[a : a + CHUNK]
            first, ms = self._milliseconds(a, a + len(words), problems)
            sub = words >> 22
            late = sub > 999
            if late.any():
                problems.count("event outside its millisecond, set aside", np.count_nonzero(late))
                words, ms, sub = words[~late], ms[~late], sub[~late]
            x, y = (words & 0x7FF).astype(np.uint16), (words >> 11 & 0x3FF).astype(np.uint16)
            t = (ms + first) * 1000 + sub
            done = min((a + CHUNK) / len(self._words), 1.0)
            yield Columns(x, y, t, (words >> 21 & 1).astype(bool), done)

    def chunks(
        self, *, duplicates: Literal["keep", "drop"] = "keep", problems: Problems | None = None
    ) -> Iterator[Events]:
        """The events in order of time, some hundred thousand at a time; damaged ones are set aside and counted."""
        for events, _ in self.progressing(duplicates=duplicates, problems=problems):
            yield events

    def progressing(
        self, *, duplicates: Literal["keep", "drop"] = "keep", problems: Problems | None = None
    ) -> Iterator[tuple[Events, float]]:
        """As ``chunks``, each with the share of the recording that has been read, 0…1."""
        from evlift.events.readers.reader import Problems
        from evlift.events.rules import apply_rules

        problems = Problems() if problems is None else problems
        yield from apply_rules(self.columns(problems), self.height, self.width, problems, duplicates=duplicates)

    def _milliseconds(self, a: int, b: int, problems: Problems) -> tuple[int, np.ndarray]:
        """Milliseconds of the events a…b: (a first one, int64 [b - a] relative to it)."""
        i, j = (int(np.searchsorted(self._index, event, side="right")) - 1 for event in (a, b - 1))
        i, j = max(i, 0), max(i, j, 0)
        if j - i > 4 * (b - a):  # a long silence: look the events up one by one, rather than list its milliseconds
            return self._first_ms + i, np.searchsorted(self._index, np.arange(a, b), side="right") - 1 - i
        bounds = np.clip(self._index[i : j + 2], a, b)
        bounds[0], bounds[-1] = a, b
        if (bounds[1:] < bounds[:-1]).any():
            problems.say("the millisecond index goes backwards; convert the recording again")
            bounds = np.maximum.accumulate(bounds)
        return self._first_ms + i, np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))

    def _before(self, t: int) -> int:
        """Number of events earlier than t: look up its millisecond, then search within it."""
        ms = t // 1000 - self._first_ms
        if ms < 0 or not len(self._words):
            return 0
        if ms >= len(self._index) - 1:
            return len(self._words)
        a, b = self._bounds(ms)
        return a + int(np.searchsorted(self._words[a:b] >> 22, t % 1000))

    def _bounds(self, ms: int) -> tuple[int, int]:
        a, b = int(self._index[ms]), int(self._index[ms + 1])
        if not 0 <= a <= b <= len(self._words):
            raise self._damaged()
        return a, b

    def _time(self, i: int) -> int:
        """Time of event i, µs."""
        ms = self._millisecond(i)
        return (self._first_ms + ms) * 1000 + int(self._words[i] >> 22)

    def _millisecond(self, i: int) -> int:
        """Which millisecond of the index event i lies in: the last that starts at or before it."""
        ms = int(np.searchsorted(self._index, i, side="right")) - 1
        if not (0 <= ms < len(self._index) - 1 and self._index[ms] <= i < self._index[ms + 1]):
            raise self._damaged()
        return ms

    def _cut(self, start: int, stop: int, t0: int, t1: int) -> Window:
        if start > stop:
            raise self._damaged()
        if start == stop:
            none = self._words[:0]
            return Window(none, self._index[:0], start, t0 // 1000, t0, t1, self.height, self.width)
        a = self._millisecond(start)
        b = a + 1 + int(np.searchsorted(self._index[a + 1 :], stop))
        offsets = self._index[a : b + 1]
        if offsets[-1] < stop or (offsets[1:] < offsets[:-1]).any():
            raise self._damaged()
        return Window(self._words[start:stop], offsets, start, self._first_ms + a, t0, t1, self.height, self.width)

    def _damaged(self) -> InputError:
        return InputError(f"{self.path / INDEX} does not fit the events: the recording is damaged; convert it again")


def open_recording(
    path: str | Path,
    *,
    format: str | None = None,
    size: tuple[int, int] | None = None,
    time_unit: Literal["s", "ms", "us", "ns"] | None = None,
    columns: str | None = None,
    stream: str | None = None,
    image_stream: str | None = None,
) -> Recording | FileRecording:
    """Open a recording: a packed one (a folder that ``write_recording`` or ``convert`` made), or a file in any format.

    The keyword arguments say what a foreign file does not say itself, or which part of it is meant; see
    ``evlift.events.readers.Stated``. A packed recording gives windows by two look-ups; a file is decoded in chunks.

    Raises InputError when it is neither, when it was cut short, or when its parts do not fit together, and ConfigError
    when something is stated that means nothing to its format.
    """
    from evlift.events.readers.reader import Stated

    stated = Stated(
        format=format, size=size, time_unit=time_unit, columns=columns, stream=stream, image_stream=image_stream
    )
    path = Path(path)
    if format in (None, "packed") and looks_packed(path):
        stated.check(path, "packed", ())
        return Recording(path)
    from evlift.events.source import FileRecording

    return FileRecording(path, stated)


def looks_packed(path: Path) -> bool:
    """Whether a path is, or was meant to be, a packed recording."""
    return path.is_dir() and ((path / INFO).exists() or (path / WORDS).exists() or PARTIAL in path.name)


def _read_info(path: Path) -> dict[str, Any]:
    if PARTIAL in path.name and path.name.startswith("."):
        raise InputError(f"{path} was left by a conversion that was cut short; delete it and convert again")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if not (path / INFO).is_file():
        raise InputError(f"{path} is not a packed recording (it has no {INFO}); convert the recording first")
    try:
        info = json.loads((path / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise InputError(f"{path / INFO} cannot be read ({one_line(e)}); convert the recording again") from e
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise InputError(f"{path / INFO} does not describe a packed recording; convert the recording first")
    if info.get("version") != VERSION:
        raise InputError(
            f"{path} is a recording of format version {info.get('version')}, this evlift reads {VERSION}; update evlift"
        )
    for key, low, high in (
        ("height", 1, MAX_HEIGHT),
        ("width", 1, MAX_WIDTH),
        ("events", 0, 1 << 62),
        ("milliseconds", 0, 1 << 40),
        ("first_ms", -(1 << 60), 1 << 60),
    ):
        value = info.get(key)
        if not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"{path / INFO} has {key} = {value!r}; convert the recording again")
    for key in ("t_first_us", "t_last_us"):
        if not isinstance(info.get(key), int) and info["events"]:
            raise InputError(f"{path / INFO} has {key} = {info.get(key)!r}; convert the recording again")
    return info


def _map_words(path: Path, count: int) -> np.ndarray:
    try:
        size = path.stat().st_size
        if size != count * WORD.itemsize:
            need = count * WORD.itemsize
            raise InputError(f"{path} has {size} bytes, {count} events need {need}; convert the recording again")
        # A plain ndarray over the map: it keeps the map alive, and kernels need not know the subclass.
        return np.memmap(path, WORD, mode="r").view(np.ndarray) if count else np.zeros(0, WORD)
    except OSError as e:
        raise InputError(f"{path} cannot be read ({one_line(e)}); convert the recording again") from e


def _map_index(path: Path, milliseconds: int, count: int) -> np.ndarray:
    try:
        index = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except (OSError, ValueError, EOFError) as e:
        raise InputError(f"{path} cannot be read ({one_line(e)}); convert the recording again") from e
    fits = index.dtype == np.dtype("<i8") and index.shape == (milliseconds + 1,)
    if not fits or index[0] != 0 or index[-1] != count:
        raise InputError(f"{path} does not fit the events: the recording is damaged; convert it again")
    return index
