"""The loops of evlift.events.filters, compiled by numba on first use and cached beside this file.

A filter that only drops events fills a mask `keep` (bool [N]); `copy_marked` then copies what is kept. The kernels that
look up pixels end with a status, and write nothing, when an event lies outside the sensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types as nb

from evlift.compiled import compiled

OK, OUTSIDE = 0, 1
MICROSECONDS = 1_000_000  # in a second


def _read(dtype: Any, dimensions: int = 1) -> Any:
    return nb.Array(dtype, dimensions, "C", readonly=True)  # takes writable arrays, too


_X, _T, _P, _KEEP = _read(nb.uint16), _read(nb.int64), _read(nb.boolean), nb.boolean[::1]


@compiled(nb.int64(_X, _X, _T, nb.int64, nb.int64[:, ::1], _KEEP))
def refractory(x, y, t, us, ready, keep):
    """Keep events of pixels that have rested. ready: int64 [H, W], when each may fire again; brought up to date."""
    height, width = ready.shape
    for i in range(len(t)):
        px, py, now = np.int64(x[i]), np.int64(y[i]), t[i]
        if px >= width or py >= height:
            return OUTSIDE
        when = ready[py, px]
        rested = now >= when
        ready[py, px] = now + us if rested else when
        keep[i] = rested
    return OK


@compiled(nb.int64(_X, _X, _T, nb.int64, nb.int64[:, ::1], _KEEP))
def background(x, y, t, us, until, keep):
    """Keep events that a neighbour supports. until: int64 [H + 2, W + 2], when each pixel's support for its neighbours
    ends, with a border that never fires; brought up to date by every event, kept or not."""
    height, width = until.shape
    for i in range(len(t)):
        px, py, now = np.int64(x[i]), np.int64(y[i]), t[i]
        if px >= width - 2 or py >= height - 2:
            return OUTSIDE
        above, here, below = until[py], until[py + 1], until[py + 2]
        row0 = max(above[px], above[px + 1], above[px + 2])
        row2 = max(below[px], below[px + 1], below[px + 2])
        keep[i] = max(row0, here[px], here[px + 2], row2) > now
        here[px + 1] = now + us
    return OK


@compiled(nb.int64(_X, _X, _read(nb.boolean, 2), _KEEP))
def unmarked(x, y, marked, keep):
    """Keep events of pixels that are not marked, bool [H, W]."""
    height, width = marked.shape
    for i in range(len(x)):
        px, py = np.int64(x[i]), np.int64(y[i])
        if px >= width or py >= height:
            return OUTSIDE
        keep[i] = not marked[py, px]
    return OK


@compiled(nb.int64(_T, nb.int64, nb.int64, _KEEP))
def thin(t, rate, period, keep):
    """Keep each period's share of `rate` events a second, evenly by count; see `RateLimit`. How many are kept."""
    whole, part = rate * period // MICROSECONDS, rate * period % MICROSECONDS
    n, start, kept = len(t), 0, 0
    while start < n:
        number = t[start] // period
        stop = start + 1
        while stop < n and t[stop] // period == number:
            stop += 1
        # ⌊(k + 1) r⌋ − ⌊k r⌋ events for period k at r = rate · period, without the large products
        budget = whole + ((number % MICROSECONDS) * part % MICROSECONDS + part >= MICROSECONDS)
        found = stop - start
        share = min(budget, found)
        phase = np.int64(0)
        for i in range(start, stop):  # keep event j when j · share mod found < share: `share` of them, evenly
            keep[i] = phase < share
            phase += share
            if phase >= found:
                phase -= found
        kept += share
        start = stop
    return kept


@compiled(nb.int64(_X, _X, _P, _read(nb.uint16), _read(nb.uint16), _read(nb.int32), _read(nb.int32),
                   nb.int32[:, ::1], _KEEP))  # fmt: skip
def integrate(x, y, p, column, row, columns, rows, level, keep):
    """Keep the events at which a large pixel's mean contrast reaches a threshold; see `Scale`.

    column, row: the large pixel of each x and y. columns, rows: how many small ones lie in each. level: int32 [h, w],
    sum of polarities since the last event; brought up to date.
    """
    for i in range(len(x)):
        px, py = np.int64(x[i]), np.int64(y[i])
        if px >= len(column) or py >= len(row):
            return OUTSIDE
        a, b = np.int64(row[py]), np.int64(column[px])
        sign = np.int32(1) if p[i] else np.int32(-1)
        area = rows[a] * columns[b]
        value = level[a, b] + sign
        fires = value * sign >= area
        level[a, b] = 0 if fires else value
        keep[i] = fires
    return OK


@compiled(nb.int64(_X, _X, _read(nb.int64, 2), nb.uint16[::1], nb.uint16[::1], _KEEP))
def remap(x, y, target, new_x, new_y, keep):
    """Send each pixel to `target`, int64 [H, W]: row << 16 | column in the new picture, or −1 for nowhere."""
    for i in range(len(x)):
        px, py = np.int64(x[i]), np.int64(y[i])
        if py >= target.shape[0] or px >= target.shape[1]:
            return OUTSIDE
        to = target[py, px]
        keep[i] = to >= 0
        new_x[i], new_y[i] = to & 0xFFFF, to >> 16 & 0xFFFF
    return OK


@compiled(nb.void(_X, _X, _T, _P, _read(nb.boolean), nb.uint16[::1], nb.uint16[::1], nb.int64[::1], nb.boolean[::1]))
def copy_marked(x, y, t, p, keep, to_x, to_y, to_t, to_p):
    """Copy the events that are kept. The outputs have room for one more: each event is written, then kept or not."""
    n = 0
    for i in range(len(t)):
        if n >= len(to_t):
            return
        to_x[n], to_y[n], to_t[n], to_p[n] = x[i], y[i], t[i], p[i]
        n += keep[i]
