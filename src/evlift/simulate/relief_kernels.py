"""Compiled loops that draw a picture with depth as a camera elsewhere sees it.

A view is where pixel r = (x, y, 1) at inverse depth ρ is seen: A r + ρ b (see camera.py). Its inverse depth there is
ρ' = ρ / (A r + ρ b)₃, and the way back has the same form: r is A⁻¹ p + ρ' c with c = −A⁻¹ b.
"""

from __future__ import annotations

import numpy as np
from numba import types as nb

from ..compiled import compiled

_F, _D, _I = nb.float32[:, ::1], nb.float64[:, ::1], nb.int32[:, ::1]
_EMPTY = np.float32(-1)


@compiled(nb.boolean(_D, nb.float64[::1], _F, _F))
def splat(a, b, rho, z):
    """Draw every pixel where it is seen; the nearest one stays.

    Args:
        a, b: A [3, 3] and b [3].
        rho: relative inverse depth of the picture, [H, W], 0 or more.
        z: written: that of the view [H, W]; -1 where nothing is seen.

    Returns:
        Whether anything is seen at all.
    """
    height, width = rho.shape
    z[:] = _EMPTY
    bx, by, bw = np.float32(b[0]), np.float32(b[1]), np.float32(b[2])
    half, any_seen = np.float32(0.5), False
    for y in range(height):
        u, v, w = np.float32(a[0, 1] * y + a[0, 2]), np.float32(a[1, 1] * y + a[1, 2]), a[2, 1] * y + a[2, 2]
        ax, ay, aw, w = np.float32(a[0, 0]), np.float32(a[1, 0]), np.float32(a[2, 0]), np.float32(w)
        for x in range(width):
            near, along = rho[y, x], np.float32(x)
            scale = np.float32(1) / (aw * along + w + near * bw)
            px, py = (ax * along + u + near * bx) * scale + half, (ay * along + v + near * by) * scale + half
            if px >= 0 and py >= 0 and px < width and py < height:
                column, row = np.int64(px), np.int64(py)
                z[row, column] = max(z[row, column], near * scale)
                any_seen = True
    return any_seen


@compiled(nb.void(_F, nb.float32))
def heal(z, tolerance):
    """Close cracks one pixel wide: where both neighbours of a row or column are one surface that is nearer."""
    height, width = z.shape
    for y in range(height):
        for x in range(width):
            least = z[y, x] + tolerance if z[y, x] >= 0 else np.float32(0)
            if 0 < x < width - 1:
                one, other = z[y, x - 1], z[y, x + 1]
                if one >= least and other >= least and abs(one - other) <= tolerance:
                    z[y, x] = (one + other) / 2
                    continue
            if 0 < y < height - 1:
                one, other = z[y - 1, x], z[y + 1, x]
                if one >= least and other >= least and abs(one - other) <= tolerance:
                    z[y, x] = (one + other) / 2


@compiled(nb.boolean(_D, nb.float64[::1], _F, nb.float64, nb.float64, nb.float64, nb.float64))
def _hides(a, c, rho, x, y, near, tolerance):
    """Whether the picture shows something nearer where pixel (x, y) of a view, at inverse depth `near`, comes from."""
    w = a[2, 0] * x + a[2, 1] * y + a[2, 2] + near * c[2]
    px = (a[0, 0] * x + a[0, 1] * y + a[0, 2] + near * c[0]) / w + 0.5
    py = (a[1, 0] * x + a[1, 1] * y + a[1, 2] + near * c[1]) / w + 0.5
    if not (px >= 0 and py >= 0 and px < rho.shape[1] and py < rho.shape[0]):
        return False
    return rho[np.int64(py), np.int64(px)] > near / w + tolerance


@compiled(nb.void(_D, nb.float64[::1], _F, _F, nb.float32, _I, nb.boolean[:, ::1]))
def close_rows(a, c, rho, z, tolerance, source, seen):
    """Fill what no pixel of the picture reached, row by row.

    A gap within one surface is bridged. Where a nearer object hid the surface behind in the picture, that goes on: its
    mirror image about the gap's edge, so that the filling has its texture and moves with it. (Such a gap has that
    surface on both sides where the object moved by more than its width.) At the frame's border the outermost goes on.

    Args:
        a, c: as in `look_back`.
        rho: as in `splat`.
        z: relative inverse depth of the view [H, W], -1 where nothing is seen; filled.
        tolerance: most difference in it within one surface.
        source: for each pixel, the index of the view's pixel whose texture it shows, [H, W]; brought up to date.
        seen: False where a pixel shows what the picture hides, [H, W]; brought up to date.
    """
    height, width = z.shape
    filled = np.empty(width, np.float32)
    for y in range(height):
        filled[:] = _EMPTY
        x = 0
        while x < width:
            if z[y, x] >= 0:
                x += 1
                continue
            start = x
            while x < width and z[y, x] < 0:
                x += 1
            left, right = start - 1, x
            if left < 0 and right == width:
                continue
            at_border = left < 0 or right == width
            first = z[y, left] if left >= 0 else z[y, right]
            last = z[y, right] if right < width else z[y, left]
            bridged = at_border or abs(first - last) <= tolerance
            if bridged and not at_border:
                for k in range(start, x):
                    bridged &= not _hides(a, c, rho, k, y, (first + last) / 2, tolerance)
            if bridged:
                for k in range(start, x):
                    z[y, k] = first + (last - first) * np.float32(k - left) / np.float32(right - left)
                    seen[y, k] = not at_border
                continue
            from_left = z[y, left] < z[y, right]
            edge = left if from_left else right
            far, mirrored = z[y, edge], source[y, edge]
            for k in range(1, x - start + 1):
                there, here = (edge - k + 1, edge + k) if from_left else (edge + k - 1, edge - k)
                if 0 <= there < width and z[y, there] >= 0 and abs(z[y, there] - far) <= tolerance:
                    mirrored = source[y, there]
                source[y, here], seen[y, here], filled[here] = mirrored, False, far
        for k in range(width):  # only now: nothing filled is to be mirrored in turn
            if filled[k] >= 0:
                z[y, k] = filled[k]


@compiled(nb.void(_D, nb.float64[::1], _F, _I, nb.float32[:, :, ::1]))
def look_back(a, c, z, source, places):
    """Where in the picture each pixel of a view comes from, float32 [H, W, 2] (x, y).

    Args:
        a, c: A⁻¹ [3, 3] and −A⁻¹ b [3].
        z, source: as `close_rows` leaves them.
    """
    height, width = z.shape
    for y in range(height):
        for x in range(width):
            at = source[y, x]
            row, column = at // width, at % width
            near = np.float64(z[row, column])
            w = a[2, 0] * column + a[2, 1] * row + a[2, 2] + near * c[2]
            places[y, x, 0] = (a[0, 0] * column + a[0, 1] * row + a[0, 2] + near * c[0]) / w
            places[y, x, 1] = (a[1, 0] * column + a[1, 1] * row + a[1, 2] + near * c[1]) / w
