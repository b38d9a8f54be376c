"""Bilinear in space: a grid of raw pixels brought to rectified, fractional coordinates, as DSEC's voxel grids are.

DSEC looks up the rectified coordinates of every event and shares it among the four pixels around them. All events of a
pixel go to the same place, so sharing out the pixel's sum gives the same grid: the order of two sums is exchanged, and
the work no longer grows with the number of events. One difference: DSEC's code rounds towards 0, which gives places
between -1 and 0 weights below 0 in row or column 1; here they have those of the formula.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evlift.errors import InputError
from evlift.represent.fill import memory, output


def rectify(grid: np.ndarray, places: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Each pixel's value shared among the four pixels around its place, with weights (1 - |Δx|) · (1 - |Δy|).

        rectify(VoxelGrid(15)(events), recording_map)        # DSEC's voxel grid of rectified events, not normalised

    It is for what is a sum over events: voxel grids, and histograms (whose saturation then comes first).

    Args:
        grid: float32 [C, H, W].
        places: float32 [H, W, 2], rectified x and y of each raw pixel, as DSEC's ``rectify_map``. What falls outside
            the picture is dropped.
        out: float32 [C, H, W] to fill and return; not ``grid`` itself.
    Returns:
        float32 [C, H, W].
    Raises:
        InputError: shapes or types that do not fit together, or a place that is NaN.
    """
    grid = np.asarray(grid)
    if grid.ndim != 3 or grid.dtype != np.float32 or not grid.size:
        raise InputError(
            f"the grid is {grid.dtype} {grid.shape}; give float32 [C, H, W], what a representation returns"
        )
    channels, height, width = grid.shape
    table: Any = np.asarray(places)
    if table.shape != (height, width, 2) or table.dtype.kind != "f":
        raise InputError(f"the places are {table.dtype} {table.shape}; give float32 [{height}, {width}, 2], x and y")
    out = output(out, (channels, height, width))
    if np.may_share_memory(grid, out):
        raise InputError("rectify cannot write over its own grid; give another array as out")
    from evlift.represent.rectify_kernel import rectify_planes

    planes = np.ascontiguousarray(grid).reshape(channels, -1)
    with np.errstate(over="ignore"):  # of float64: what is too far for 32 bits falls outside the picture, too
        flat = np.ascontiguousarray(table, np.float32).reshape(-1)
    corner = memory(np.int32, 4 * width, "corner").reshape(4, width)
    weight = memory(np.float32, 4 * width, "weight").reshape(4, width)
    if not rectify_planes(planes, flat, width, out.reshape(channels, -1), corner, weight):
        raise InputError("a rectified place is NaN; give every pixel a place, outside the picture where it has none")
    return out
