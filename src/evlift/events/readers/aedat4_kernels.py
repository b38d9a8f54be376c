"""The loop of the AEDAT4 reader, compiled by numba on first use and cached beside this file."""

from __future__ import annotations

import numpy as np
from numba import types as nb

from evlift.compiled import compiled


@compiled(
    nb.void(
        nb.Array(nb.uint32, 1, "C", readonly=True), *(nb.uint16[::1], nb.uint16[::1], nb.int64[::1], nb.boolean[::1])
    )
)
def split(words, x, y, t, p):
    """Events of four words (time, low half first; x and y; polarity) to columns, as many as fit all of them."""
    for i in range(min(len(words) // 4, len(x), len(y), len(t), len(p))):
        t[i] = np.int64(np.uint64(words[4 * i]) | np.uint64(words[4 * i + 1]) << np.uint64(32))
        place = words[4 * i + 2]
        x[i] = np.uint16(place & np.uint32(0xFFFF))
        y[i] = np.uint16(place >> np.uint32(16))
        p[i] = words[4 * i + 3] & np.uint32(0xFF) != 0
