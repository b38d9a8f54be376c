"""The loop of the Event Stream reader, compiled by numba on first use and cached beside this file."""

from __future__ import annotations

import numpy as np
from numba import types as nb

from evlift.compiled import compiled


@compiled(
    nb.UniTuple(nb.int64, 4)(
        *(nb.Array(nb.uint8, 1, "C", readonly=True), nb.int64, nb.boolean, nb.int64),
        *(nb.uint16[::1], nb.uint16[::1], nb.int64[::1], nb.uint8[::1]),
    )
)
def decode(data, t0, atis, height, x, y, t, p):
    """Events from the bytes of whole and, at the end, cut events; `data` starts between two events.

    t0: time of the event before, µs. height: of the sensor; y is turned so that it runs down. x, y, t, p: for as many
    events as are wanted, at most. Returns bytes used, events written, time reached and measurements passed over.
    """
    size, room = len(data), len(t)
    at, n, now, passed = 0, 0, t0, 0
    shift = 2 if atis else 1  # the time lies above the flags
    longest = np.int64(0x3F if atis else 0x7F)
    while at < size:
        first = np.int64(data[at])
        wait = first >> shift
        if wait == longest:  # no event: the time runs on by this, or it is a reset, which adds nothing
            now += longest * (first & (3 if atis else 1))
            at += 1
            continue
        if size - at < 5 or n == room:
            break
        now += wait
        if atis and first & 1:
            passed += 1
        else:
            x[n] = np.uint16(data[at + 1]) | np.uint16(data[at + 2]) << np.uint16(8)
            row = np.int64(data[at + 3]) | np.int64(data[at + 4]) << 8
            y[n] = np.uint16((height - 1 - row) & 0xFFFF)
            t[n] = now
            p[n] = (first >> 1 if atis else first) & 1
            n += 1
        at += 5
    return at, n, now, passed
