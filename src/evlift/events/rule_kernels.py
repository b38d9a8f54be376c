"""The loops of evlift.events.rules, compiled by numba on first use and cached beside this file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types as nb

from evlift.compiled import compiled

GOOD, LATE, STRAY = np.uint8(0), np.uint8(1), np.uint8(2)
NO, YES, UNKNOWN = 0, 1, 2


def _read(dtype: Any) -> Any:
    return nb.Array(dtype, 1, "C", readonly=True)


@compiled(nb.int64(_read(nb.uint16), _read(nb.uint16), nb.int64, nb.int64, nb.boolean[::1]))
def inside(x, y, height, width, keep):
    """Mark events inside the sensor; how many are not."""
    n = len(x)
    outside = 0
    for i in range(n):
        good = (x[i] < width) & (y[i] < height)
        keep[i] = good
        outside += not good
    return outside


@compiled(nb.int64(_read(nb.int64), nb.int64, nb.int64, nb.int64, nb.int64, nb.int64, nb.int64, nb.boolean))
def restarts(t, i, top, horizon, witnesses, fall, run, last):
    """Whether the clock restarts with event i, which lies more than `fall` behind: YES, NO, or UNKNOWN as yet.

    Most of its witnesses must lie near it (the first time of the new clock is to be relied on), and of `run` events
    all but a hundredth must lie as far behind as it.
    """
    n = len(t)
    near = far = 0
    for j in range(i + 1, min(i + 1 + witnesses, n)):
        close = (t[j] >= t[i] - horizon) & (t[j] <= t[i] + fall)
        near += close
        far += not close
    if 2 * far >= witnesses:
        return NO
    back = 0
    for j in range(i, min(i + run, n)):
        back += t[j] >= top - fall
        if back > run // 100:
            return NO
    if i + max(run, 1 + witnesses) > n:
        return NO if last else UNKNOWN
    return YES if 2 * near > witnesses else NO


@compiled(
    nb.Tuple((nb.int64, nb.int64, nb.boolean))(
        *(_read(nb.int64), nb.int64, nb.boolean, nb.int64, nb.int64, nb.int64, nb.int64),
        *(nb.int64, nb.int64, nb.boolean, nb.uint8[::1]),
    )
)
def classify(t, top, started, horizon, witnesses, fall, run, lowest, highest, last, fate):
    """Say of every event whether its time can be believed; see evlift.events.rules for the rule.

    t: int64 [N]. top: latest believed time, if `started`. fall, run: how far the clock falls back when it restarts, and
    how many events stay there. lowest, highest: bounds of the times from and to which it may. last: no more events
    follow. fate: uint8 [N], filled with GOOD, LATE or STRAY for the events that are decided.
    Returns (how many events from the front are decided, new top, whether the clock restarts with the next event).
    """
    n = len(t)
    i = 0
    while i < n:
        now = t[i]
        if started and now < top - horizon:
            if now < top - fall and now >= lowest and top <= highest:
                answer = restarts(t, i, top, horizon, witnesses, fall, run, last)
                if answer != NO:
                    return i, top, answer == YES
            fate[i] = LATE
            i += 1
        elif started and now <= top + horizon:
            fate[i] = GOOD
            top = max(top, now)
            i += 1
        else:  # a leap ahead, or the first event of all: most of the events that follow tell whether time went there
            stayed, returned, j = 0, 0, i + 1
            while j < n and j <= i + witnesses:
                if t[j] >= now - horizon:
                    stayed += 1
                elif not started or t[j] >= top - horizon:  # what lies even before that is late in any case
                    returned += 1
                j += 1
            if j == n and j <= i + witnesses and not last:
                return i, top, False  # too few have followed yet
            if returned > stayed or (j > i + 1 and not stayed):
                fate[i] = STRAY
            else:
                fate[i] = GOOD
                top, started = now, True
            i += 1
    return n, top, False


@compiled(nb.int64(_read(nb.int64)))
def most_at_once(t):
    """Length of the longest run of one time."""
    most = run = 0
    for i in range(len(t)):
        run = run + 1 if i and t[i] == t[i - 1] else 1
        most = max(most, run)
    return most


@compiled(
    nb.int64(_read(nb.uint16), _read(nb.uint16), _read(nb.int64), _read(nb.boolean), nb.int64[::1], nb.boolean[::1])
)
def repeats(x, y, t, p, table, first):
    """Mark the first of every set of equal events; how many are not. t is sorted.

    table: int64 [2^k], filled with -1, of at least twice as many cells as events share a time. It is a hash table of
    the pixels and polarities seen at the current time; what an earlier time left in it counts as empty.
    """
    count, run = 0, np.int64(0)
    mask = len(table) - 1
    for i in range(len(t)):
        run += i > 0 and t[i] != t[i - 1]
        key = np.int64(y[i]) << 17 | np.int64(x[i]) << 1 | np.int64(p[i])
        word = run << 33 | key
        cell = (key * 0x9E3779B1 >> 15) & mask
        while table[cell] >> 33 == run and table[cell] != word:
            cell = (cell + 1) & mask
        new = table[cell] != word
        table[cell] = word
        first[i] = new
        count += not new
    return count
