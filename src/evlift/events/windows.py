"""Windows: which stretch of time to look at. One rule for the whole package.

rule = Adaptive(share=0.5)                             # or ByTime(50_000), ByCount(100_000)
window = recording.window(*rule.around(recording, t))  # ends at t
for t0, t1 in cover(recording, ByTime(50_000)):        # consecutive windows
    ...

Every rule takes a packed `Recording` (by look-ups; nothing is decoded) or `Events`, and gives the bounds ``(t0, t1)``
of a half-open window ``[t0, t1)`` in whole µs. A window of length d around t is

    before     [t − d, t)
    centred    [t − ⌊d / 2⌋, t + ⌈d / 2⌉)
    after      [t, t + d)

so a longer window always holds a shorter one, and "the shortest window that …" is well defined. A recording may have
too few events to meet a rule: then the window reaches to its last event on the sides asked for, or as far as the rule
lets it, and `met` says no. A time outside the recording is no error: its window holds what there is, maybe nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events.recording import Recording
from evlift.events.selection import MAX_US, check_whole
from evlift.events.stream import Events, microseconds, window_bounds

Where = Literal["before", "centred", "after"]


class Rule(Protocol):
    """What says how long a window is."""

    def around(self, source: Recording | Events, t_us: float, where: Where = "before") -> tuple[int, int]:
        """Bounds of the window that ends at, surrounds or starts at a time, µs."""
        ...

    def met(self, source: Recording | Events, t0_us: float, t1_us: float) -> bool:
        """Whether the window ``[t0, t1)`` is long enough by this rule."""
        ...


def cover(
    source: Recording | Events,
    rule: Rule,
    stride_us: int | None = None,
    *,
    where: Where = "after",
    start_us: float | None = None,
    stop_us: float | None = None,
) -> Iterator[tuple[int, int]]:
    """Windows over ``[start, stop)``, by default from the first event to just after the last.

    Without a stride each begins where the one before ended, and the last is cut at `stop`: each event in the stretch
    lies in exactly one. With a stride there is one around each of start, start + stride, … < stop, not cut.
    """
    _check(source)
    if not len(source) and (start_us is None or stop_us is None):
        return
    start, stop = window_bounds(
        source.t_first if start_us is None else start_us, source.t_last + 1 if stop_us is None else stop_us
    )
    if stride_us is not None:
        check_whole("the stride", stride_us, "µs", MAX_US)
        for t in range(start, stop, stride_us):
            yield rule.around(source, t, where)
        return
    if where != "after":
        raise ConfigError(f"windows {where} a time cannot follow one another without a stride; give stride_us")
    while start < stop:
        _, end = rule.around(source, start, "after")
        if end == start:  # a rule by count, and no event is left
            return
        yield start, min(end, stop)
        start = end


@dataclass(frozen=True)
class ByTime:
    """Windows of a fixed length."""

    duration_us: int

    def __post_init__(self) -> None:
        check_whole("a window's duration", self.duration_us, "µs", MAX_US)

    def around(self, source: Recording | Events, t_us: float, where: Where = "before") -> tuple[int, int]:
        """Bounds of the window around a time; they depend on nothing else."""
        return _bounds(microseconds(t_us), self.duration_us, where)

    def met(self, source: Recording | Events, t0_us: float, t1_us: float) -> bool:
        """Whether the window is as long."""
        t0, t1 = window_bounds(t0_us, t1_us)
        return t1 - t0 >= self.duration_us


@dataclass(frozen=True)
class ByCount:
    """The shortest windows that hold `count` events or more: more only where several share the last microsecond."""

    count: int

    def __post_init__(self) -> None:
        check_whole("a window's count", self.count, "events", MAX_US)

    def around(self, source: Recording | Events, t_us: float, where: Where = "before") -> tuple[int, int]:
        """Bounds of the window around a time; empty when there are no events on the sides asked for."""
        t, scale = microseconds(t_us), 2 if where == "centred" else 1
        first = _earlier_than(source, t)
        earlier = 0 if where == "after" else first
        later = 0 if where == "before" else len(source) - first
        count = min(self.count, earlier + later)

        def back(k: int) -> int:
            """Length of the window that holds the k events before t that are nearest; `ahead` the same from t on."""
            return scale * (t - _time(source, first - k)) if k else 0

        def ahead(k: int) -> int:
            return scale * (_time(source, first + k - 1) - t) + 1 if k else 0

        # How many lie before t: the fewest such that the next one before t is no nearer than the last one from t on.
        fewest, most = max(0, count - later), min(count, earlier)
        k = bisect_left(range(most), True, lo=fewest, key=lambda k: ahead(count - k) <= back(k + 1))
        return _bounds(t, max(back(k), ahead(count - k)), where)

    def met(self, source: Recording | Events, t0_us: float, t1_us: float) -> bool:
        """Whether the window holds as many events."""
        t0, t1 = window_bounds(t0_us, t1_us)
        return _earlier_than(source, t1) - _earlier_than(source, t0) >= self.count


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Windows that adapt to motion: the shortest, from `min_us` to `max_us`, in which enough has happened.

    Enough is when a share of all patches is active, or when there are so many events, whichever comes first. A patch is
    active when it has `threshold` events or more, ScaleEvent's rule Σ|E| ≥ τ = 64 at 16×16 for its activation mask; at
    the right and bottom, patches may be cut by the sensor's border, and count.

    The cost is one look at each event of the window.
    """

    share: float | None = 0.5
    """Share of the patches, over 0 and at most 1; None: only events count."""
    events: int | None = None
    """Number of events; None: only patches count."""
    patch: int = 16
    """Side of a patch, pixels."""
    threshold: int = 64
    """Events that make a patch active."""
    min_us: int = 1_000
    """Shortest window."""
    max_us: int = 1_000_000
    """Longest window."""

    def __post_init__(self) -> None:
        share = self.share
        if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1):
            raise ConfigError(f"the share of active patches is {share!r}; give a number over 0 and at most 1")
        if self.events is not None:
            check_whole("the number of events", self.events, "events", MAX_US)
        elif share is None:
            raise ConfigError("a window that grows without a target never stops; give share or events")
        check_whole("the patch", self.patch, "pixels", 65536)
        check_whole("the threshold", self.threshold, "events", 1 << 30)
        check_whole("the longest window", self.max_us, "µs", MAX_US)
        check_whole("the shortest window", self.min_us, "µs", self.max_us)

    def around(self, source: Recording | Events, t_us: float, where: Where = "before") -> tuple[int, int]:
        """Bounds of the window around a time. InputError when the recording is damaged."""
        from evlift.events.window_kernels import LIMIT

        t = microseconds(t_us)
        end, length = self._walk(source, t, *_bounds(t, self.max_us, where), centred=where == "centred")
        return _bounds(t, self.max_us if end == LIMIT else max(self.min_us, length), where)

    def met(self, source: Recording | Events, t0_us: float, t1_us: float) -> bool:
        """Whether enough happens in the window."""
        from evlift.events.window_kernels import MET

        t0, t1 = window_bounds(t0_us, t1_us)
        t0, t1 = max(t0, source.t_first), min(t1, source.t_last + 1)
        return t0 < t1 and self._walk(source, t0, t0, t1, centred=False)[0] == MET

    def _walk(self, source: Recording | Events, t: int, low: int, high: int, *, centred: bool) -> tuple[int, int]:
        from evlift.events.window_kernels import DISORDER, FAR, OUTSIDE, walk

        cells = -(-source.height // self.patch) * -(-source.width // self.patch)
        # The share as the fraction it stands for: a tenth of 30 patches is 3, not 3.0000000000000004 rounded up to 4.
        share = None if self.share is None else math.ceil(Fraction(self.share).limit_denominator(10**6) * cells)
        if isinstance(source, Recording):
            x = y = np.zeros(0, np.uint16)
            arrays: tuple[Any, ...] = (x, y, np.zeros(0, np.int64), source._words, source._index)
            zero = source._first_ms * 1000
        else:
            none = np.zeros(0, np.uint32), np.zeros(0, np.int64)
            arrays = (*(np.ascontiguousarray(c) for c in (source.x, source.y, source.t)), *none)
            zero = 0
        end, length = walk(
            *arrays,
            _earlier_than(source, t),
            *(microseconds(v - zero) for v in (t, low, high)),
            centred,
            source.height,
            source.width,
            self.patch,
            self.threshold,
            FAR if share is None else max(share, 1),
            FAR if self.events is None else self.events,
            np.zeros(cells, np.int32),
        )
        if end in (OUTSIDE, DISORDER):
            what = "lie outside the sensor" if end == OUTSIDE else "are out of order in time"
            raise InputError(f"events {what}: damaged data; convert the recording again")
        return end, length


def _bounds(t: int, length: int, where: str) -> tuple[int, int]:
    """The window of a length around t; see above."""
    if where not in ("before", "centred", "after"):
        raise ConfigError(f"a window cannot lie {where!r} a time; use before, centred or after")
    left = {"before": length, "centred": length // 2, "after": 0}[where]
    return microseconds(t - left), microseconds(t - left + length)


def _check(source: Any) -> None:
    if not isinstance(source, Recording | Events):
        raise InputError(
            f"windows are looked up in a packed recording or in Events, not in {type(source).__name__}; "
            "convert the recording, or read its events first"
        )


def _earlier_than(source: Recording | Events, t: int) -> int:
    """How many events are earlier than t."""
    _check(source)
    return source._before(t) if isinstance(source, Recording) else int(np.searchsorted(source.t, t))


def _time(source: Recording | Events, i: int) -> int:
    """Time of event i, µs."""
    return source._time(i) if isinstance(source, Recording) else int(source.t[i])
