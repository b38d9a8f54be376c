"""The loop of evlift.events.windows: walk outwards from a time until enough has happened.

Events are visited in order of the length of the shortest window that takes them in, so the walk looks at no more than
the window will hold. Packed words are read as they lie in the file.

Nothing here trusts its input: a pixel outside the sensor and a time out of order end the walk, and an index that does
not fit the words moves it nowhere outside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types as nb

from evlift.compiled import compiled

MET, LIMIT, END, OUTSIDE, DISORDER = 0, 1, 2, 3, 4
FAR = (1 << 63) - 1


def _read(dtype: Any) -> Any:
    return nb.Array(dtype, 1, "C", readonly=True)


_X, _T, _WORDS = _read(nb.uint16), _read(nb.int64), _read(nb.uint32)


@compiled(nb.UniTuple(nb.int64, 2)(_WORDS, _T, nb.int64, nb.int64, nb.int64))
def _earlier(words, index, i, ms, low):
    """Time of event i, which lies in millisecond `ms` or before, and its millisecond; −FAR when it is before `low`."""
    while index[ms] > i:
        if ms == 0 or ms * 1000 <= low:
            return -FAR, ms
        ms -= 1
    return ms * 1000 + np.int64(words[i] >> np.uint32(22)), ms


@compiled(nb.UniTuple(nb.int64, 2)(_WORDS, _T, nb.int64, nb.int64, nb.int64))
def _later(words, index, i, ms, high):
    """Time of event i, which lies in millisecond `ms` or after, and its millisecond; FAR when it is `high` or later."""
    while index[ms + 1] <= i:
        if ms + 2 >= len(index) or (ms + 1) * 1000 >= high:
            return FAR, ms
        ms += 1
    return ms * 1000 + np.int64(words[i] >> np.uint32(22)), ms


_PLACE = (nb.int64, nb.int64, nb.int64, nb.int64, nb.boolean)  # first … centred
_TARGET = (nb.int64, nb.int64, nb.int64, nb.int64, nb.int64, nb.int64, nb.int32[::1])  # height … counts


@compiled(nb.UniTuple(nb.int64, 2)(_X, _X, _T, _WORDS, _T, *_PLACE, *_TARGET))
def walk(
    x, y, t, words, index, first, middle, low, high, centred, height, width, patch, threshold, patches, events, counts
):
    """Length of the shortest window around a time that reaches a target, and how the walk ended.

    x, y, t: columns [N]; or, when `index` is not empty, words uint32 [N] and their whole millisecond index, whose
    millisecond 0 starts at time 0. first: number of the first event at or after the time `middle`. low, high: the
    longest window allowed, ``[low, high)``; as `low` ≤ `middle` ≤ `high` say, it lies before, after or around it.
    patches: how many patches of `patch`² pixels must have `threshold` events or more; events: how many events there
    must be; either will do. counts: int32 [h · w], zero.

    Returns (MET, length), or (LIMIT, 0) when the longest window does not do, or (END, length that takes in all events
    there are on the sides asked for); OUTSIDE or DISORDER when the data are damaged.
    """
    packed = len(index) > 0
    n = len(words) if packed else len(t)
    across = (width + patch - 1) // patch
    ms_left = ms_right = min(max(middle // 1000, 0), len(index) - 2)
    left = first - 1 if low < middle else -1  # next event to take in on either side; −1 and n: none is left
    right = first if high > middle else n
    back = ahead = FAR  # lengths that take in these two; FAR: beyond the limit
    new_left = new_right = True
    seen = active = length = 0
    while True:
        if new_left:
            back = FAR
            if left >= 0:
                if packed:
                    when, ms_left = _earlier(words, index, left, ms_left, low)
                else:
                    when = t[left]
                if when >= low:
                    back = (middle - when) * (2 if centred else 1)
        if new_right:
            ahead = FAR
            if right < n:
                if packed:
                    when, ms_right = _later(words, index, right, ms_right, high)
                else:
                    when = t[right]
                if when < high:
                    ahead = (when - middle) * (2 if centred else 1) + 1
        nearest = min(back, ahead)
        if nearest == FAR:
            return (END if left < 0 and right >= n else LIMIT), length
        if nearest < max(length, 1):
            return DISORDER, 0
        length = nearest
        new_left, new_right = back <= ahead, back > ahead
        i = left if new_left else right
        if packed:
            if words[i] >> np.uint32(22) > 999:
                return DISORDER, 0
            px, py = np.int64(words[i] & np.uint32(0x7FF)), np.int64((words[i] >> np.uint32(11)) & np.uint32(0x3FF))
        else:
            px, py = np.int64(x[i]), np.int64(y[i])
        if px >= width or py >= height:
            return OUTSIDE, 0
        cell = py // patch * across + px // patch
        counts[cell] += 1
        active += counts[cell] == threshold
        seen += 1
        if active >= patches or seen >= events:
            return MET, length
        if new_left:
            left -= 1
        else:
            right += 1
