"""From decoded columns to Events: what a recording may get wrong, what is done about it, and how often it was.

    outside      A coordinate outside the sensor: the event is set aside.
    order        Events may come up to 10 ms late (several readout threads, several packets): they are put in their
                 place, and events of one time keep their order. What comes later than that is set aside as late.
    strays       A time that leaps ahead by more than 10 ms is believed unless most of the 16 events after it are back
                 where the leap began, or none stays: then it was damaged, and the event is set aside. (The first time
                 of a recording is tried likewise.)
    restarts     When times fall back by more than 1 s and stay there for 1000 events, the clock was started again: time
                 goes on 1 µs after the latest that was believed, and what follows is shifted by one number of µs, which
                 is told. A single damaged time is no restart, nor does it hide one: one event in a hundred may lie
                 elsewhere, and most of the 16 events after the first must lie within 1 s of it. A shorter run stays
                 late. Images are not shifted: they keep the file's clock.
    duplicates   The same pixel, polarity and microsecond as an event before: counted, and kept unless told to drop them
                 (some simulators and millisecond clocks make them in good faith).

How a stream was cut into chunks changes nothing, but where more than four million events lie within 10 ms: then the
earliest go on, so that memory stays bounded, what comes later than they is set aside, and duplicates may be missed.
Everything set aside is counted in `Problems`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from evlift.events.readers.reader import CHUNK, Columns, Problems
from evlift.events.stream import Events

HORIZON_US = 10_000
WITNESSES = 16
RESTART_US, RESTART_EVENTS = 1_000_000, 1000
_MOST_HELD = 4 * CHUNK  # a stream whose times hardly move must not pile up in memory
_MOST_TOLD = 8  # restarts that are told one by one
_FARTHEST = 1 << 61  # µs: a clock out there is never taken to restart, so that no sum leaves 64 bits
_END = np.iinfo(np.int64).max


def apply_rules(
    chunks: Iterable[Columns],
    height: int,
    width: int,
    problems: Problems,
    *,
    duplicates: Literal["keep", "drop"] = "keep",
) -> Iterator[tuple[Events, float]]:
    """Checked Events, in order of time over all chunks, each with the share of the file that has been read, 0…1.

    chunks: from a reader's `columns`. height, width: of the sensor, pixels. Never raises on what the columns hold.
    """
    from evlift.events import rule_kernels as kernels

    held = _none()  # good events, sorted, not old enough to be out of reach of late ones
    open_ = _none()  # events after a leap, waiting for witnesses
    top, started = 0, False  # the latest believed time, on the clock as it runs now
    shift = 0  # from that clock to that of the recording, which never restarts
    beginning = 0  # the first believed time
    starts = 0  # restarts so far
    gone: int | None = None  # time of the last event that went on before its 10 ms were over

    def finished(events: Columns, done: float) -> Iterator[tuple[Events, float]]:
        if not len(events.t):
            return
        first = np.empty(len(events.t), bool)
        table = np.full(2 << int(kernels.most_at_once(events.t)).bit_length(), -1, np.int64)
        again = kernels.repeats(events.x, events.y, events.t, events.p, table, first)
        if again:
            dropped = duplicates == "drop"
            problems.count(
                "duplicate event, " + ("dropped" if dropped else "kept (drop them with --duplicates drop)"), again
            )
            if dropped:
                events = _take(events, first)
        yield Events._trusted(events.x, events.y, events.t, events.p, height, width), done

    def decide(columns: Columns, last: bool) -> tuple[Columns, Columns]:
        """The believed events of the decided front, on the recording's clock, and the rest on the file's."""
        nonlocal top, started, beginning
        parts = []
        while True:
            fate = np.empty(len(columns.t), np.uint8)
            decided, latest, restarts = kernels.classify(
                *(columns.t, top, started, HORIZON_US, WITNESSES),
                *(RESTART_US, RESTART_EVENTS, -_FARTHEST, _FARTHEST - shift, last, fate),
            )
            front, rest, fate = _take(columns, slice(decided)), _take(columns, slice(decided, None)), fate[:decided]
            if fate.any():
                problems.count("event over 10 ms late, set aside", np.count_nonzero(fate == kernels.LATE))
                problems.count(
                    "event whose time leaps ahead and back, set aside", np.count_nonzero(fate == kernels.STRAY)
                )
                front = _take(front, fate == kernels.GOOD)
            if not started and len(front.t):
                started, beginning = True, int(front.t[0])
            top = latest
            if shift:
                front = front._replace(t=np.minimum(front.t, _END - shift) + shift)
            parts.append(front)
            if not restarts:
                return _joined(parts), rest
            restart(int(rest.t[0]))
            columns = rest

    def restart(first: int) -> None:
        nonlocal top, shift, starts
        after_s = (top + shift - beginning) / 1e6
        shift, top, starts = shift + top + 1 - first, first, starts + 1
        if starts <= _MOST_TOLD:
            problems.say(
                f"the clock restarts after {after_s:.6f} s: "
                f"later events are shifted by {shift / 1e6:.6f} s, images are not"
            )
        else:
            problems.count("further restart of the clock, time goes on likewise")

    def in_time(front: Columns) -> Columns:
        """Those that do not come before an event that has gone on already."""
        if gone is None or not (passed := front.t < gone).any():
            return front
        problems.count("event late among more than four million in 10 ms, set aside", np.count_nonzero(passed))
        return _take(front, ~passed)

    done = 0.0
    for columns in chunks:
        done = columns.done
        columns = _contiguous(columns)
        keep = np.empty(len(columns.t), bool)
        lost = kernels.inside(columns.x, columns.y, height, width, keep)
        if lost:
            problems.count(outside(height, width), lost)
            columns = _take(columns, keep)
        front, open_ = decide(_join(open_, columns), last=False)
        held = _sorted(_join(held, in_time(front)), problems)
        ready = int(np.searchsorted(held.t, min(top + shift, _END) - HORIZON_US)) if started else 0
        if len(held.t) - ready > _MOST_HELD:
            ready = len(held.t) - _MOST_HELD
            gone = int(held.t[ready - 1])
        if ready:
            yield from finished(_take(held, slice(ready)), done)
            held = _take(held, slice(ready, None))
    front, _ = decide(open_, last=True)
    yield from finished(_sorted(_join(held, in_time(front)), problems), 1.0)


def outside(height: int, width: int) -> str:
    """How events outside the sensor are called in `Problems`."""
    return f"event outside the {width}×{height} sensor, set aside"


def _none() -> Columns:
    return Columns(np.zeros(0, np.uint16), np.zeros(0, np.uint16), np.zeros(0, np.int64), np.zeros(0, bool))


def _take(columns: Columns, part) -> Columns:
    return Columns(columns.x[part], columns.y[part], columns.t[part], columns.p[part], columns.done)


def _join(a: Columns, b: Columns) -> Columns:
    return _joined([a, b])


def _joined(parts: list[Columns]) -> Columns:
    filled = [part for part in parts if len(part.t)]
    if len(filled) < 2:
        return filled[0] if filled else parts[-1]
    x, y, t, p = (np.concatenate(columns) for columns in list(zip(*filled, strict=True))[:4])
    return Columns(x, y, t, p, parts[-1].done)


def _contiguous(columns: Columns) -> Columns:
    dtypes = (np.uint16, np.uint16, np.int64, bool)
    x, y, t, p = (np.ascontiguousarray(c, d) for c, d in zip(columns[:4], dtypes, strict=True))
    return Columns(x, y, t, p, columns.done)


def _sorted(columns: Columns, problems: Problems) -> Columns:
    back = columns.t[1:] < columns.t[:-1]
    if not back.any():
        return columns
    problems.count("step back in time of up to 10 ms, put in order", np.count_nonzero(back))
    return _take(columns, np.argsort(columns.t, kind="stable"))
