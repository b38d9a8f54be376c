"""Filters that move events: crop, flip, scale, undistort and rectify.

`evlift.events.filters` offers them beside the filters that drop events by time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events.selection import in_order, kept, mask, select
from evlift.events.stream import Events


@dataclass(frozen=True)
class Crop:
    """Keep the rectangle with its top left corner at (x0, y0), in its own coordinates; see `Events.crop`."""

    x0: int
    y0: int
    width: int
    height: int

    def __call__(self, events: Events) -> Events:
        return events.crop(self.x0, self.y0, self.width, self.height)


@dataclass(frozen=True)
class Flip:
    """Mirror left to right (``"x"``) or top to bottom (``"y"``)."""

    axis: Literal["x", "y"] = "x"

    def __post_init__(self) -> None:
        if self.axis not in ("x", "y"):
            raise ConfigError(f"events cannot be flipped along {self.axis!r}; use x or y")

    def __call__(self, events: Events) -> Events:
        if self.axis == "x":
            return events.flip_x()
        y = np.uint16(events.height - 1) - events.y
        return Events._trusted(events.x, y, events.t, events.p, events.height, events.width)


@dataclass(frozen=True)
class Scale:
    """A smaller sensor: pixel (x, y) becomes (⌊x · factor⌋, ⌊y · factor⌋), 0 < factor ≤ 1.

    The factor is read as the fraction it stands for (0.1 is 1/10), so that no pixel is lost to rounding; the new size
    is that of the largest coordinate. By default every event stays, and a large pixel fires as often as all its small
    ones together. With ``integrate`` it fires as a large pixel would: each event adds its polarity to a sum, the event
    at which the sum reaches ± the number of small pixels in the large one is kept, and the sum starts again from 0.
    That is when the mean of the small pixels' log intensities has changed by the contrast threshold.
    """

    factor: float
    integrate: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.factor, bool) or not isinstance(self.factor, int | float) or not 0 < self.factor <= 1:
            raise ConfigError(f"events cannot be scaled by {self.factor!r}; use a factor over 0 and at most 1")
        if not self._fraction:
            raise ConfigError(f"scaling by {self.factor} leaves no more than a pixel; use a larger factor")

    @cached_property
    def _fraction(self) -> Fraction:
        return Fraction(self.factor).limit_denominator(1 << 16)

    def _axis(self, size: int) -> np.ndarray:
        """The new coordinate of each old one, uint16 [size]."""
        return (np.arange(size) * self._fraction.numerator // self._fraction.denominator).astype(np.uint16)

    def __call__(self, events: Events) -> Events:
        return next(self.stream([events]))

    def stream(self, chunks: Iterable[Events]) -> Iterator[Events]:
        from evlift.events.filter_kernels import integrate

        level = None
        for events in in_order(chunks):
            if level is None:
                column, row = self._axis(events.width), self._axis(events.height)
                columns, rows = np.bincount(column).astype(np.int32), np.bincount(row).astype(np.int32)
                level = np.zeros((len(rows), len(columns)), np.int32)
            if self.integrate:
                events = kept(events, integrate, events.p, column, row, columns, rows, level)
            yield Events._trusted(column[events.x], row[events.y], events.t, events.p, len(rows), len(columns))


@dataclass(frozen=True, eq=False)
class Rectify:
    """Move each pixel's events to the nearest pixel of an undistorted or rectified picture; drop those outside it.

    map: float [H, W, 2], where pixel (x, y) of the sensor lies in the new picture, ``map[y, x] = (x', y')``, as
    `rectify_map` makes it and as DSEC's ``rectify_map.h5`` holds it. Values that are not finite are outside.
    size: height and width of the new picture, by default the sensor's. The nearest pixel is ⌊x' + ½⌋, ⌊y' + ½⌋.
    """

    map: np.ndarray
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "map", np.asarray(self.map))
        shape = self.map.shape
        if len(shape) != 3 or shape[2] != 2 or self.map.dtype.kind != "f":
            raise InputError(f"a rectification map of shape {shape} cannot be used; give floats [H, W, 2] of (x', y')")
        height, width = self.size or shape[:2]
        if not (1 <= height <= 65536 and 1 <= width <= 65536):
            raise ConfigError(f"a picture of {width}×{height} cannot be made; give height and width, 1 to 65536 each")

    @cached_property
    def _target(self) -> np.ndarray:
        """int64 [H, W]: row << 16 | column of the new pixel, −1 where there is none."""
        height, width = self.size or self.map.shape[:2]
        x, y = (np.floor(self.map[..., i].astype(np.float64) + 0.5) for i in (0, 1))
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # false for NaN
        x, y = (np.where(inside, v, 0).astype(np.int64) for v in (x, y))
        return np.where(inside, y << 16 | x, -1)

    @property
    def lost(self) -> int:
        """How many of the sensor's pixels have no place in the new picture."""
        return int(np.count_nonzero(self._target < 0))

    def __call__(self, events: Events) -> Events:
        if (events.height, events.width) != self._target.shape:
            height, width = self._target.shape
            raise InputError(
                f"the map is for {width}×{height}, the events are {events.width}×{events.height}; use theirs"
            )
        from evlift.events.filter_kernels import remap

        x, y = np.empty(len(events), np.uint16), np.empty(len(events), np.uint16)
        keep = mask(events, remap, self._target, x, y)
        height, width = self.size or self._target.shape
        moved = Events._trusted(x, y, events.t, events.p, height, width)
        return select(moved, keep, int(np.count_nonzero(keep)))


def rectify_map(
    K: Any, D: Any, R: Any, P: Any, size: tuple[int, int], model: Literal["radtan", "equidistant"] = "radtan"
) -> np.ndarray:
    """Where each pixel of a distorted picture lies in the undistorted, rectified one: float32 [H, W, 2], (x', y').

    Args:
        K: camera matrix, 3×3. D: distortion, as OpenCV orders it: k1 k2 p1 p2 [k3 …] for radtan, k1 k2 k3 k4 for
            equidistant (fisheye). R: rotation into the rectified frame, 3×3, or None. P: camera matrix of the new
            picture, 3×3 or 3×4, or None for K. size: height and width of the distorted picture.
        model: "radtan" (pinhole with radial and tangential distortion) or "equidistant" (Kannala and Brandt).
    """
    import cv2

    K, D = np.asarray(K, np.float64), np.asarray(D, np.float64).ravel()
    R, P = (np.eye(3) if R is None else np.asarray(R, np.float64)), (K if P is None else np.asarray(P, np.float64))
    lengths = {"radtan": (4, 5, 8, 12, 14), "equidistant": (4,)}
    if model not in lengths:
        raise ConfigError(f"there is no distortion model {model!r}; use radtan or equidistant")
    if K.shape != (3, 3) or R.shape != (3, 3) or P.shape not in ((3, 3), (3, 4)) or len(D) not in lengths[model]:
        raise InputError(
            f"K {K.shape}, D ({len(D)},), R {R.shape}, P {P.shape} do not fit {model}; "
            f"give K and R 3×3, P 3×3 or 3×4, and {' or '.join(map(str, lengths[model]))} numbers for D"
        )
    height, width = size
    pixels = np.stack(np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)), -1)
    # OpenCV's default of 5 rounds leaves whole pixels of error near the corners of a wide lens.
    until = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-10)
    undistort = cv2.fisheye.undistortPoints if model == "equidistant" else cv2.undistortPoints
    points = undistort(pixels.reshape(-1, 1, 2), K, D, R=R, P=P, criteria=until)
    return points.reshape(height, width, 2).astype(np.float32)
