"""What the filters share: run a kernel that marks events, copy the marked ones, check the chunks of a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events.stream import Events

MAX_US = 1 << 61
"""Latest time and longest duration that filters take, 73,000 years: it keeps their sums within 64 bits."""


def mask(events: Events, kernel: Callable[..., int], *rest: Any) -> np.ndarray:
    """Run ``kernel(x, y, *rest, keep)``, which marks the events to keep: bool [N].

    Arrays in `rest` that the kernel brings up to date must be contiguous: of others it gets a copy.
    """
    from evlift.events.filter_kernels import OK

    keep = np.empty(len(events), bool)
    arguments = (np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a for a in (events.x, events.y, *rest))
    if kernel(*arguments, keep) != OK:
        raise InputError(
            f"events lie outside {events.width}×{events.height}: their arrays were changed; build them anew"
        )
    return keep


def kept(events: Events, kernel: Callable[..., int], *rest: Any) -> Events:
    """The events that a kernel marks; `rest` goes between the coordinates and the mark."""
    keep = mask(events, kernel, *rest)
    return select(events, keep, int(np.count_nonzero(keep)))


def select(events: Events, keep: np.ndarray, count: int) -> Events:
    """The events whose mark is set, `count` of them; the very same object when that is all."""
    if count == len(events):
        return events
    from evlift.events.filter_kernels import copy_marked

    columns = [np.ascontiguousarray(c) for c in (events.x, events.y, events.t, events.p)]
    chosen = [np.empty(count + 1, c.dtype) for c in columns]
    copy_marked(*columns, keep, *chosen)
    x, y, t, p = (c[:count] for c in chosen)
    return Events._trusted(x, y, t, p, events.height, events.width)


def in_order(chunks: Iterable[Events]) -> Iterator[Events]:
    """The chunks, checked: one size, time never going back, and no time at which sums would overflow."""
    size, last = None, None
    for events in chunks:
        size = size or (events.height, events.width)
        if (events.height, events.width) != size:
            raise InputError(
                f"events of {events.width}×{events.height} follow {size[1]}×{size[0]}; crop them to one size"
            )
        if len(events):
            if last is not None and events.t_first < last:
                raise InputError(f"events at {events.t_first} µs follow {last} µs; give the chunks in order of time")
            last = events.t_last
            if last > MAX_US:
                raise InputError(f"an event lies at {last} µs, {last // 31_557_600_000_000:,} years; check the times")
        yield events


def check_whole(name: str, value: Any, unit: str, most: int) -> None:
    """ConfigError when a setting is no whole number from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f"{name} is {value!r}; give whole {unit}, 1 to {most}")
