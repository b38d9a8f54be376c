"""A recording in somebody else's format, read in chunks: `evlift.open_recording` on anything but a packed recording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evlift.errors import InputError
from evlift.events.frames import Frame, one_line
from evlift.events.readers import Columns, Problems, Stated, open_reader
from evlift.events.rules import apply_rules, outside
from evlift.events.stream import Events, window_bounds

MOST_PIXELS = 1 << 24
"""The largest sensor that is believed: sixteen times the largest there is."""


class FileRecording:
    """An opened recording file. Opening reads its header; events are decoded whenever they are asked for.

    path, format: what it is. height, width: the sensor's, pixels. sensor, clock, calibration: what the file says of
    them ("" and None where it is silent). For what takes an index (length, first and last time, windows, counts, any
    frame) without decoding the file again, convert it: `evlift.convert` gives a `Recording`, which has all of this too.
    """

    def __init__(self, path: str | Path, stated: Stated | None = None) -> None:
        self.path = Path(path)
        with reading(self.path):
            self.reader = open_reader(path, stated)
        self.format: str = self.reader.format
        self.sensor, self.clock, self.calibration = self.reader.sensor, self.reader.clock, self.reader.calibration
        self._size: tuple[int, int] | None = None
        self._size_problem: str | None = None
        self._size_stated = stated is not None and stated.size is not None
        if stated is not None and stated.size is not None:
            self._size = (int(stated.size[0]), int(stated.size[1]))
        elif self.reader.height is not None and self.reader.width is not None:
            self._size = (self.reader.height, self.reader.width)
        if self._size is not None and self._size[0] * self._size[1] > MOST_PIXELS:
            raise InputError(
                f"{path} says that its sensor has {self._size[1]}×{self._size[0]} pixels, which none has; give --size"
            )

    def __repr__(self) -> str:
        return f"FileRecording({self.path.name!r}, {self.format})"

    @property
    def height(self) -> int:
        """Of the sensor, pixels. Where neither the file nor the user says, the largest coordinate + 1 (one pass)."""
        return self._sensor_size()[0]

    @property
    def width(self) -> int:
        """As `height`."""
        return self._sensor_size()[1]

    @property
    def rectify_map(self) -> np.ndarray | None:
        """Where each pixel lies in the rectified picture, float32 [H, W, 2]; None without a map (DSEC's have one).

        It fits `evlift.events.filters.Rectify` and `evlift.represent.rectify`. InputError when it is damaged or of
        another size than the sensor.
        """
        with reading(self.path):
            table = getattr(self.reader, "rectify_map", None)
        if table is not None and table.shape[:2] != self._sensor_size():
            raise InputError(
                f"{self.path}: the rectify_map is for {table.shape[1]}×{table.shape[0]} pixels, the sensor has "
                f"{self.width}×{self.height}; download it again or leave out --size"
            )
        return table

    def chunks(
        self, *, duplicates: Literal["keep", "drop"] = "keep", problems: Problems | None = None
    ) -> Iterator[Events]:
        """The events in order of time, some hundred thousand at a time, checked by `evlift.events.rules`.

        problems: is told, with counts, what was wrong and what was done about it.
        """
        for events, _ in self.progressing(duplicates=duplicates, problems=problems):
            yield events

    def progressing(
        self, *, duplicates: Literal["keep", "drop"] = "keep", problems: Problems | None = None
    ) -> Iterator[tuple[Events, float]]:
        """As `chunks`, each with the share of the file that has been read, 0…1.

        Raises InputError at the end when most of the events lay outside a sensor of the size that the user stated.
        """
        problems = Problems() if problems is None else problems
        height, width = self._sensor_size()
        if self._size_problem:
            problems.say(self._size_problem)
        lost, seen = -problems.number(outside(height, width)), 0

        def columns() -> Iterator[Columns]:
            nonlocal seen
            for each in self._columns(problems):
                seen += len(each.t)
                yield each

        yield from apply_rules(columns(), height, width, problems, duplicates=duplicates)
        lost += problems.number(outside(height, width))
        if self._size_stated and 2 * lost > seen:
            raise InputError(
                f"{self.path}: {lost:,} of {seen:,} events lie outside the {width}×{height} sensor that was stated; "
                "give its size as [height, width], or leave it out"
            )

    def _columns(self, problems: Problems) -> Iterator[Columns]:
        with reading(self.path):
            yield from self.reader.columns(problems)

    def images(self, problems: Problems | None = None) -> Iterator[Frame]:
        """The images in order of time; see `Frame`. Those whose time goes back, as after a restart, are left out."""
        problems = Problems() if problems is None else problems
        last: int | None = None
        with reading(self.path):
            for frame in self.reader.frames(problems):
                if last is not None and frame.t_us < last:
                    problems.count("image whose time goes back, left out")
                else:
                    last = frame.t_us
                    yield frame

    def events(self, t0_us: float | None = None, t1_us: float | None = None) -> Events:
        """All events, or those in the half-open window ``[t0, t1)``, in memory. Decodes the file up to t1."""
        t0, t1 = window_bounds(float("-inf") if t0_us is None else t0_us, float("inf") if t1_us is None else t1_us)
        parts = [Events.empty(self.height, self.width)]
        for events in self.chunks():
            inside = events.between(t0, t1)
            if len(inside):
                parts.append(inside)
            if t1_us is not None and len(events) and events.t_first >= t1:
                break
        return Events.concatenate(parts)

    def describe(self) -> dict[str, Any]:
        """What the file holds, counted, and what is wrong with it; see `evlift.events.inspection.describe`."""
        from evlift.events.inspection import describe

        return describe(self)

    def _sensor_size(self) -> tuple[int, int]:
        if self._size is None:
            height = width = 1
            for columns in self._columns(Problems()):
                if len(columns.t):
                    width, height = max(width, int(columns.x.max()) + 1), max(height, int(columns.y.max()) + 1)
            self._size = (height, width)
            self._size_problem = (
                f"the sensor's size is not stated: {width}×{height} is that of the largest coordinates; give --size"
            )
        return self._size


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """The system's errors while a recording is read (the disk fails, the file went) as InputErrors that name it."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or path} cannot be read ({one_line(error)}); check the file, its permissions and its disk"
        ) from error
