"""The loop that spreads the pixels of a grid over the four nearest of where a map puts them."""

from __future__ import annotations

import numpy as np
from numba import types as nb

from evlift.compiled import compiled
from evlift.represent.kernels import PLANES, read

_GIVEN = nb.Array(nb.float32, 2, "C", readonly=True)
_CORNERS, _WEIGHTS = nb.int32[:, ::1], nb.float32[:, ::1]


@compiled(nb.boolean(read(nb.float32), nb.int32, nb.int32, _CORNERS, _WEIGHTS))
def _corners(place, width, height, corner, weight):
    """Numbers and weights of the four pixels around each place of a row; True when a place is NaN."""
    nan = False
    for j in range(len(place) // 2):
        x, y = place[2 * j], place[2 * j + 1]
        nan |= (x != x) | (y != y)
        near = (x > -1) & (x < width) & (y > -1) & (y < height)
        x = x if near else np.float32(0)
        y = y if near else np.float32(0)
        left, top = np.int32(np.floor(x)), np.int32(np.floor(y))
        fx, fy = x - np.float32(left), y - np.float32(top)
        one = np.float32(1) if near else np.float32(0)
        wl = one - fx if left >= 0 else np.float32(0)
        wr = fx if left + 1 < width else np.float32(0)
        wt = one - fy if top >= 0 else np.float32(0)
        wb = fy if top + 1 < height else np.float32(0)
        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
        left, top = max(left, np.int32(0)), max(top, np.int32(0))
        corner[0, j], weight[0, j] = top * width + left, wt * wl
        corner[1, j], weight[1, j] = top * width + right, wt * wr
        corner[2, j], weight[2, j] = bottom * width + left, wb * wl
        corner[3, j], weight[3, j] = bottom * width + right, wb * wr
    return nan


@compiled(nb.boolean(_GIVEN, read(nb.float32), nb.int64, PLANES, _CORNERS, _WEIGHTS))
def rectify_planes(planes, places, width, out, corner, weight):
    """Fill ``out`` float32 [C, H·W] from ``planes`` of that shape; False when a place is NaN.

    places: float32 [H·W·2], x and y of each pixel. corner, weight: working memory, [4, W].
    """
    pixels = planes.shape[1]
    height = pixels // width
    out[:] = 0
    for row in range(height):
        first = row * width
        if _corners(places[2 * first : 2 * (first + width)], np.int32(width), np.int32(height), corner, weight):
            return False
        for k in range(len(planes)):
            given, made = planes[k, first : first + width], out[k]
            for j in range(width):
                v = given[j]  # most are 0; skipping them costs more in wrong guesses than it saves
                made[corner[0, j]] += v * weight[0, j]
                made[corner[1, j]] += v * weight[1, j]
                made[corner[2, j]] += v * weight[2, j]
                made[corner[3, j]] += v * weight[3, j]
    return True
