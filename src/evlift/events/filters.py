"""Event filters: `Filter(...)(events) -> Events`, pure functions under small frozen dataclasses.

clean = BackgroundActivity(5_000)(Refractory(1_000)(events))
for part in filter_stream([HotPixels(hot), RateLimit(10_000_000)], recording.chunks()):     # any length, bounded memory
    ...

A filter never changes its input and keeps the order of what it keeps; how many it dropped is the difference of the
lengths. Filters that remember (a pixel's last event, the rate of the millisecond) carry that over from chunk to chunk
in `stream`, so that the events that come out do not depend on how the stream was cut.

Times are compared exactly, in whole µs. "Within d µs" means less than d: ``0 ≤ t − t' < d``, half-open like a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events.geometry import Crop, Flip, Rectify, Scale, rectify_map
from evlift.events.selection import MAX_US, check_whole, in_order, kept, select
from evlift.events.stream import Events

__all__ = [
    "BackgroundActivity",
    "Crop",
    "Flip",
    "HotPixels",
    "Polarity",
    "RateLimit",
    "Rectify",
    "Refractory",
    "Scale",
    "filter_stream",
    "find_hot_pixels",
    "hot_pixels",
    "rectify_map",
]

HOT_EVENTS, HOT_HZ, HOT_RATIO = 50, 50, 5
"""A hot pixel has at least so many events, so many a second, and so many times those of the pixels around it."""

_NEVER = np.iinfo(np.int64).min
_BLOCK = 1 << 16  # pixels whose surroundings are looked at together


def filter_stream(filters: Sequence[Callable[[Events], Events]], chunks: Iterable[Events]) -> Iterator[Events]:
    """Chunks of a stream through all filters in turn: joined up, what comes out is what the whole stream would give.

    filters: those of this module, or any function of events to events that forgets. chunks: consecutive Events.
    A filter may hold events back until it can decide, so chunks come out cut otherwise than they went in.

    Raises InputError when chunks are out of order in time or of several sizes.
    """
    for each in filters:
        chunks = each.stream(chunks) if hasattr(each, "stream") else map(each, chunks)
    return iter(chunks)


@dataclass(frozen=True)
class HotPixels:
    """Drop all events of some pixels: those given as (x, y), or by default those that `hot_pixels` finds in the events.

    A stream's hot pixels are known only at its end: find them first (`find_hot_pixels`) and give them here.
    """

    pixels: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        if self.pixels is not None:
            try:
                object.__setattr__(self, "pixels", tuple((int(x), int(y)) for x, y in self.pixels))
            except (TypeError, ValueError):
                raise ConfigError(f"hot pixels are {self.pixels!r}; give pairs of whole numbers (x, y)") from None

    def __call__(self, events: Events) -> Events:
        pixels = find_hot_pixels(events) if self.pixels is None else self.pixels
        marked = np.zeros((events.height, events.width), bool)
        for x, y in pixels:
            if not (0 <= x < events.width and 0 <= y < events.height):
                raise InputError(f"hot pixel ({x}, {y}) lies outside {events.width}×{events.height}; check the list")
            marked[y, x] = True
        from evlift.events.filter_kernels import unmarked

        return kept(events, unmarked, marked) if pixels else events

    def stream(self, chunks: Iterable[Events]) -> Iterator[Events]:
        if self.pixels is None:
            raise ConfigError(
                "a stream's hot pixels are known only at its end; give HotPixels(find_hot_pixels(chunks))"
            )
        return map(self, in_order(chunks))


def hot_pixels(counts: np.ndarray, duration_us: int) -> list[tuple[int, int]]:
    """Pixels that fire as no scene makes them, as (x, y), the busiest first.

    A pixel is hot when it has at least 50 events, at least 50 a second, and over 5 times (n + 1) of them, where n is
    the seventh highest count among the 24 pixels around it (5×5; a picture's border mirrors what is inside). What a
    scene does, it does to the neighbours, too; up to seven hot pixels side by side are still found. A lamp that
    flickers and is seen by one pixel only is hot by this rule.

    Args:
        counts: events of each pixel, whole numbers [H, W]. duration_us: time in which they fell.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.dtype.kind not in "iu":
        raise InputError(f"counts are {counts.dtype} {counts.shape}; give whole numbers [H, W], events of each pixel")
    if not counts.size:
        return []
    busy = np.argwhere((counts >= HOT_EVENTS) & (counts * 1e6 >= HOT_HZ * duration_us))
    wide = np.pad(counts, 2, mode="symmetric")  # so that pixels at the border have 24 neighbours as well
    down, right = np.divmod(np.delete(np.arange(25), 12), 5)
    hot: list[tuple[int, int]] = []
    for start in range(0, len(busy), _BLOCK):
        y, x = busy[start : start + _BLOCK].T
        around = np.partition(wide[y[:, None] + down, x[:, None] + right], 17, axis=1)[:, 17]
        found = counts[y, x] > HOT_RATIO * (around + 1)
        hot += zip(x[found].tolist(), y[found].tolist(), strict=True)
    return sorted(hot, key=lambda pixel: -int(counts[pixel[1], pixel[0]]))


def find_hot_pixels(chunks: Events | Iterable[Events]) -> list[tuple[int, int]]:
    """`hot_pixels` of events or of the consecutive chunks of a stream."""
    counts, first, last = np.zeros((0, 0), np.int64), None, 0
    for events in in_order([chunks] if isinstance(chunks, Events) else chunks):
        if not counts.size:
            counts = np.zeros((events.height, events.width), np.int64)
        if len(events):
            pixels = events.y * np.int64(events.width) + events.x
            counts += np.bincount(pixels, minlength=counts.size).reshape(counts.shape)
            first, last = events.t_first if first is None else first, events.t_last
    return hot_pixels(counts, 0 if first is None else last - first)


@dataclass(frozen=True)
class Refractory:
    """Drop an event when the last kept one of its pixel, of either polarity, was less than `us` ago.

    As a sensor does whose pixels are dead for a while after each event: dropped events do not prolong the dead time.
    """

    us: int

    def __post_init__(self) -> None:
        check_whole("the refractory time", self.us, "µs", MAX_US)

    def __call__(self, events: Events) -> Events:
        return next(self.stream([events]))

    def stream(self, chunks: Iterable[Events]) -> Iterator[Events]:
        from evlift.events.filter_kernels import refractory

        ready = None
        for events in in_order(chunks):
            ready = np.full((events.height, events.width), _NEVER) if ready is None else ready
            yield kept(events, refractory, events.t, self.us, ready)


@dataclass(frozen=True)
class BackgroundActivity:
    """Keep an event when one of its 8 neighbours fired less than `us` before it (or in the same µs, earlier in order).

    The nearest-neighbour filter of Delbruck, "Frame-free dynamic digital vision", 2008. Noise is lonely, edges are not.
    Neighbours count with all their events, of either polarity, kept or not, so that an edge's first events prepare the
    way for the next. The pixel itself does not count: a hot pixel cannot support itself.
    """

    us: int

    def __post_init__(self) -> None:
        check_whole("the support time", self.us, "µs", MAX_US)

    def __call__(self, events: Events) -> Events:
        return next(self.stream([events]))

    def stream(self, chunks: Iterable[Events]) -> Iterator[Events]:
        from evlift.events.filter_kernels import background

        until = None
        for events in in_order(chunks):
            until = np.full((events.height + 2, events.width + 2), _NEVER) if until is None else until
            yield kept(events, background, events.t, self.us, until)


@dataclass(frozen=True)
class RateLimit:
    """Keep at most `rate` events a second: in each period too full, as many as its share, evenly by count.

    Period k is ``[k · period_us, (k + 1) · period_us)`` on the recording's clock; its share is what the rate adds up to
    in it, ``⌊(k + 1) r⌋ − ⌊k r⌋`` for r = rate · period. When it has n events and n is more, those with
    ``j · share mod n < share`` are kept (j = 0…n−1): the first, and the others at equal distances. Nothing is random,
    and quiet periods lose nothing.

    In a stream, the events of the last period are held back until the next period begins.
    """

    rate: int
    period_us: int = 1000

    def __post_init__(self) -> None:
        check_whole("the rate limit", self.rate, "events a second", 10**12)
        check_whole("the period", self.period_us, "µs", 10**6)

    def __call__(self, events: Events) -> Events:
        from evlift.events.filter_kernels import thin

        keep = np.empty(len(events), bool)
        return select(events, keep, thin(np.ascontiguousarray(events.t), self.rate, self.period_us, keep))

    def stream(self, chunks: Iterable[Events]) -> Iterator[Events]:
        held: list[Events] = []  # the events so far of the last period
        for events in in_order(chunks):
            if not len(events):
                yield events
                continue
            start = events.t_last // self.period_us * self.period_us
            if not held or held[-1].t_last < start:
                cut = int(np.searchsorted(events.t, start))
                done = [*held, events[:cut]]
                held, events = [], events[cut:]
                yield self(Events.concatenate(done))
            held.append(events)
        if held:
            yield self(Events.concatenate(held))


@dataclass(frozen=True)
class Polarity:
    """Keep one polarity (``"on"``, ``"off"``), or all events with the polarities exchanged (``"swap"``) or all made on
    (``"merge"``)."""

    which: Literal["on", "off", "swap", "merge"]

    def __post_init__(self) -> None:
        if self.which not in ("on", "off", "swap", "merge"):
            raise ConfigError(f"polarity {self.which!r} is unknown; use on, off, swap or merge")

    def __call__(self, events: Events) -> Events:
        if self.which in ("on", "off"):
            keep = events.p if self.which == "on" else ~events.p
            return select(events, np.ascontiguousarray(keep), int(np.count_nonzero(keep)))
        p = ~events.p if self.which == "swap" else np.ones(len(events), bool)
        return Events._trusted(events.x, events.y, events.t, p, events.height, events.width)
