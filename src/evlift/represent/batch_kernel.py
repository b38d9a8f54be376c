"""The loop that copies a window's words into a batch, and checks them on the way."""

from __future__ import annotations

import numpy as np
from numba import types as nb

from evlift.compiled import compiled
from evlift.represent.kernels import BLOCK, DISORDER, INDEX, INDICES, OK, OUTSIDE, WORDS


@compiled(nb.int64(*WORDS[:3], nb.int64, nb.int64, INDICES, nb.int64[::1]))
def copy_window(words, offsets, start_word, width, height, into, starts):
    """Copy N words to ``into`` and write where each of the M milliseconds begins among them to ``starts`` [M].

    A card cannot say where its input is wrong without being waited for: words that pass here lie inside the sensor and
    their milliseconds, in order of time.
    """
    n, stop = len(words), 0
    w32, h32 = np.uint32(width), np.uint32(height)
    for ms in range(len(starts)):
        start = stop
        stop = min(max(offsets[ms + 1] - start_word, 0), n)
        if stop < start or offsets[ms] > offsets[ms + 1]:
            return INDEX
        starts[ms] = start
        before = np.uint32(0)
        for i in range(start, stop, BLOCK):
            end = min(i + BLOCK, stop)
            outside, away = np.uint32(0), np.uint32((words[i] >> 22) < before)
            for j in range(i, end):
                word = words[j]
                outside |= np.uint32((word & np.uint32(0x7FF)) >= w32)
                outside |= np.uint32(((word >> np.uint32(11)) & np.uint32(0x3FF)) >= h32)
                away |= np.uint32((word >> np.uint32(22)) > np.uint32(999))
                into[j] = word
            for j in range(i + 1, end):
                away |= np.uint32((words[j] >> np.uint32(22)) < (words[j - 1] >> np.uint32(22)))
            if outside:
                return OUTSIDE
            if away:
                return DISORDER
            before = np.uint32(words[end - 1] >> 22)
    return OK if stop == n and (n == 0 or offsets[0] <= start_word < offsets[1]) else INDEX
