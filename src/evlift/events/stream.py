"""Events in memory: four columns of one sensor, sorted by time.

Everything downstream (files, representations, simulators) speaks this type. It is checked once, when built, so that the
kernels need not check again; slices of it are views and are not checked a second time.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np

from evlift.errors import InputError

_INT64 = np.iinfo(np.int64)


def microseconds(t: Any) -> int:
    """A window's bound as whole µs. Event times are whole, so rounding a fractional bound up keeps ``[t0, t1)`` exact.

    Infinite bounds are the ends of time. Raises InputError on NaN and on what is no number.
    """
    try:
        return min(max(operator.index(t), int(_INT64.min)), int(_INT64.max))
    except TypeError:
        pass
    if not isinstance(t, Real):
        raise InputError(f"{t!r} is not a time; give microseconds as a number")
    value = float(t)
    if math.isnan(value):
        raise InputError("a window's bound is NaN; give microseconds as a number")
    if math.isinf(value):
        return int(_INT64.max if value > 0 else _INT64.min)
    return min(max(math.ceil(value), int(_INT64.min)), int(_INT64.max))


def window_bounds(t0_us: Any, t1_us: Any) -> tuple[int, int]:
    """The half-open window ``[t0, t1)`` in whole µs; InputError when it ends before it starts."""
    t0, t1 = microseconds(t0_us), microseconds(t1_us)
    if t1 < t0:
        raise InputError(f"the window ends ({t1} µs) before it starts ({t0} µs); swap the bounds")
    return t0, t1


@dataclass(frozen=True, eq=False, repr=False)
class Events:
    """A stretch of one event camera's output, sorted by time.

    x, y: uint16 [N], pixel column (to the right) and row (down); pixel centres are integers.
    t: int64 [N], µs, never decreasing. p: bool [N], True = brighter.
    height, width: the sensor's size in pixels, each 1..65536.

    Other integer dtypes (and polarity as {0, 1} or {-1, +1}) are converted when nothing is lost; arrays that already
    have the right dtype are kept as they are, not copied. Raises InputError when lengths differ, a coordinate lies
    outside the sensor, times go backwards or a value cannot be held.
    """

    x: np.ndarray
    y: np.ndarray
    t: np.ndarray
    p: np.ndarray
    height: int
    width: int

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            object.__setattr__(self, name, _size(name, getattr(self, name)))
        object.__setattr__(self, "x", _coordinate("x", self.x, self.width, "width"))
        object.__setattr__(self, "y", _coordinate("y", self.y, self.height, "height"))
        object.__setattr__(self, "t", _times(self.t))
        object.__setattr__(self, "p", _polarity(self.p))
        lengths = [len(self.x), len(self.y), len(self.t), len(self.p)]
        if len(set(lengths)) > 1:
            raise InputError(f"x, y, t, p have {lengths} values; give one of each for every event")

    @classmethod
    def _trusted(cls, x: Any, y: Any, t: Any, p: Any, height: int, width: int) -> Events:
        """Events whose columns are known to be right (parts of checked ones): no second check."""
        events = object.__new__(cls)
        for name, value in (("x", x), ("y", y), ("t", t), ("p", p), ("height", height), ("width", width)):
            object.__setattr__(events, name, value)
        return events

    @classmethod
    def empty(cls, height: int, width: int) -> Events:
        """No events on a sensor of this size."""
        none = np.zeros(0, np.uint16)
        return cls(none, none, np.zeros(0, np.int64), np.zeros(0, bool), height, width)

    @classmethod
    def concatenate(cls, parts: Iterable[Events]) -> Events:
        """Join stretches that follow one another in time; InputError on none, another sensor size, or overlap."""
        parts = list(parts)
        if not parts:
            raise InputError("there is nothing to concatenate; use Events.empty(height, width) for no events")
        height, width = parts[0].height, parts[0].width
        filled = [e for e in parts if len(e)]
        for e in parts:
            if (e.height, e.width) != (height, width):
                raise InputError(f"cannot join {e.width}×{e.height} to {width}×{height} events; crop them to one size")
        for a, b in pairwise(filled):
            if b.t[0] < a.t[-1]:
                raise InputError(f"events at {b.t[0]} µs follow {a.t[-1]} µs; join the parts in order of time")
        if len(filled) <= 1:
            return filled[0] if filled else parts[0]
        x, y, t, p = (np.concatenate([getattr(e, name) for e in filled]) for name in "xytp")
        return cls._trusted(x, y, t, p, height, width)

    def __len__(self) -> int:
        return len(self.t)

    def __repr__(self) -> str:
        size = f"{self.width}×{self.height}"
        if not len(self):
            return f"Events(none, {size})"
        return f"Events({len(self):,}, {size}, {self.t_first}..{self.t_last} µs, {self.p.mean():.0%} on)"

    def __eq__(self, other: object) -> bool:
        """The same sensor size and the same events in the same order."""
        if not isinstance(other, Events):
            return NotImplemented
        return (self.height, self.width) == (other.height, other.width) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in "xytp"
        )

    __hash__ = None  # type: ignore[assignment]  # equal by value and holding arrays: not hashable

    @property
    def t_first(self) -> int:
        """Time of the first event, µs; 0 when there is none."""
        return int(self.t[0]) if len(self.t) else 0

    @property
    def t_last(self) -> int:
        """Time of the last event, µs; 0 when there is none."""
        return int(self.t[-1]) if len(self.t) else 0

    @property
    def duration_us(self) -> int:
        """Time from the first event to the last, µs."""
        return self.t_last - self.t_first

    def __getitem__(self, part: slice) -> Events:
        """Events ``a:b`` by count, as views. Steps must be positive, so that time still runs forward."""
        if not isinstance(part, slice):
            raise TypeError("Events are sliced by count, e[a:b]; take single values from e.x, e.y, e.t, e.p")
        if part.step is not None and part.step < 1:
            raise InputError("events cannot be sliced backwards; use a positive step")
        return self._trusted(self.x[part], self.y[part], self.t[part], self.p[part], self.height, self.width)

    def between(self, t0_us: float, t1_us: float) -> Events:
        """Events in the half-open window ``[t0, t1)``, as views."""
        t0, t1 = window_bounds(t0_us, t1_us)
        a, b = np.searchsorted(self.t, np.array([t0, t1]))
        return self[a:b]

    def windows(self, duration_us: int, start: int | None = None, stop: int | None = None) -> Iterator[Events]:
        """Consecutive windows of ``duration_us`` that cover ``[start, stop)``; the last may be cut short by ``stop``.

        By default from the first event to just after the last. Windows without events are yielded too, empty.
        """
        step = microseconds(duration_us)
        if step < 1:
            raise InputError(f"a window of {duration_us} µs holds nothing; use 1 µs or more")
        if not len(self) and (start is None or stop is None):
            return
        t0 = self.t_first if start is None else microseconds(start)
        end = self.t_last + 1 if stop is None else microseconds(stop)
        while t0 < end:
            yield self.between(t0, min(t0 + step, end))
            t0 += step

    def chunks(self, count: int) -> Iterator[Events]:
        """Consecutive views of ``count`` events; the last may hold fewer."""
        if count < 1:
            raise InputError(f"chunks of {count} events hold nothing; use 1 or more")
        for start in range(0, len(self), count):
            yield self[start : start + count]

    def crop(self, x0: int, y0: int, width: int, height: int) -> Events:
        """Events inside the rectangle with its top left corner at (x0, y0), in the rectangle's own coordinates."""
        if width < 1 or height < 1 or x0 < 0 or y0 < 0 or x0 + width > self.width or y0 + height > self.height:
            raise InputError(
                f"a crop of {width}×{height} at ({x0}, {y0}) leaves {self.width}×{self.height}; choose one inside"
            )
        # Unsigned arithmetic wraps what lies left of or above the corner to large values: one comparison an axis.
        x, y = self.x - np.uint16(x0), self.y - np.uint16(y0)
        keep = (x < width) & (y < height)
        return self._trusted(x[keep], y[keep], self.t[keep], self.p[keep], int(height), int(width))

    def flip_x(self) -> Events:
        """Mirrored left to right."""
        return self._trusted(np.uint16(self.width - 1) - self.x, self.y, self.t, self.p, self.height, self.width)


def _size(name: str, value: Any) -> int:
    try:
        size = operator.index(value)
    except TypeError:
        size = 0
    if not 1 <= size <= 65536:
        raise InputError(f"{name} is {value!r}; give the sensor's {name} in pixels, 1 to 65536")
    return size


def _integers(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}; give one value for every event")
    if array.dtype.kind not in "iub" and array.size:
        raise InputError(f"{name} has dtype {array.dtype}; give whole numbers")
    return array


def _coordinate(name: str, values: Any, size: int, extent: str) -> np.ndarray:
    array = _integers(name, values)
    if array.size and (array.min() < 0 or array.max() >= size):
        low, high = array.min(), array.max()
        raise InputError(f"{name} runs from {low} to {high}, the {extent} is {size}; check the sensor size")
    return array.astype(np.uint16, copy=False)


def _times(values: Any) -> np.ndarray:
    array = _integers("t", values)
    if array.dtype.kind == "u" and array.size and array.max() > _INT64.max:
        raise InputError(f"t reaches {array.max()} µs, beyond 64 bits; subtract the recording's start")
    array = array.astype(np.int64, copy=False)
    backwards = array[1:] < array[:-1]
    if backwards.any():
        i = int(backwards.argmax())
        raise InputError(f"time goes back from {array[i]} to {array[i + 1]} µs at event {i + 1}; sort the events")
    return array


def _polarity(values: Any) -> np.ndarray:
    array = _integers("p", values)
    if array.dtype == bool:
        return array
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if not (low >= -1 and high <= 1) or (low == -1 and (array == 0).any()):
        raise InputError(f"polarity runs from {low} to {high}; give bool, {{0, 1}} or {{-1, +1}}")
    return array > 0
