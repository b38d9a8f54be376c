"""The packed word: one event in 32 bits, and the millisecond index that restores its time.

    bits   0–10   x           0..2047
    bits  11–20   y           0..1023
    bit   21      polarity    1 = brighter
    bits  22–31   µs within the event's millisecond, 0..999

``ms_index[k]`` is the number of events before millisecond ``first_ms + k``; it has one entry more than there are
milliseconds: those of millisecond k are ``words[ms_index[k] : ms_index[k + 1]]``, and any window is two look-ups.
Milliseconds are ``floor(t / 1000)``, so times before zero pack like any other.
"""

from __future__ import annotations

import numpy as np

from evlift.errors import InputError
from evlift.events.stream import Events

MAX_WIDTH, MAX_HEIGHT = 2048, 1024
WORD = np.dtype("<u4")


def check_size(height: int, width: int) -> None:
    """InputError when a sensor is too large for the packed word."""
    if width > MAX_WIDTH or height > MAX_HEIGHT:
        raise InputError(
            f"a packed recording holds at most {MAX_WIDTH}×{MAX_HEIGHT} pixels, this sensor has {width}×{height}; "
            "crop the events first"
        )


def pack(events: Events) -> np.ndarray:
    """Events as words, uint32 [N]. The milliseconds themselves are not in the words: keep ``events.t // 1000``."""
    check_size(events.height, events.width)
    words = (events.t % 1000).astype(np.uint32)
    words <<= 22
    words |= events.p.astype(np.uint32) << 21
    words |= events.y.astype(np.uint32) << 11
    words |= events.x
    return words.astype(WORD, copy=False)


def unpack(words: np.ndarray, counts: np.ndarray, first_ms: int, height: int, width: int) -> Events:
    """Words back to columns.

    words: uint32 [N]; counts: int [M], events in each millisecond from ``first_ms`` on, summing to N.
    Raises InputError when a word lies outside the sensor or out of order, as in a damaged file.
    """
    milliseconds = np.arange(first_ms, first_ms + len(counts), dtype=np.int64) * 1000
    sub = words >> 22
    if sub.size and sub.max() > 999:
        raise InputError("an event lies outside its millisecond: the recording is damaged; convert it again")
    t = np.repeat(milliseconds, counts)
    t += sub
    x, y = (words & 0x7FF).astype(np.uint16), (words >> 11 & 0x3FF).astype(np.uint16)
    return Events(x, y, t, (words >> 21 & 1).astype(bool), height, width)
