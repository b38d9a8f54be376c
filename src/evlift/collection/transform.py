"""One geometry for both sensors: the same crop, scale and mirror of picture, event grid and labels.

Pixel centres are integers, so the pixel at 0 covers [-0.5, 0.5). A `View` maps the box it cuts out onto its output so
that the *edges* of the two meet; what lay on one another in picture, events and labels therefore stays so.
Pictures and grids shrink by averaging over areas: an output pixel is the mean of what it covers. A grid is then
multiplied by the area that its pixels cover, so that the sum of the events in the box is kept whatever the scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError


@dataclass(frozen=True)
class View:
    """The box [y0, y0 + box_height) × [x0, x0 + box_width) of a picture, seen as height × width, mirrored or not."""

    x0: int
    y0: int
    box_width: int
    box_height: int
    height: int
    width: int
    flip: bool = False

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] or [H, W] → uint8 [height, width, …], contiguous. Enlarging is bilinear."""
        box = image[self.y0 : self.y0 + self.box_height, self.x0 : self.x0 + self.box_width]
        seen = _shrink(box, self.height, self.width)
        if seen.shape[:2] != (self.height, self.width):
            seen = cv2.resize(seen, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(seen[:, ::-1] if self.flip else seen)

    def grid(self, grid: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [C, H, W] → float32 [C, height, width]; the sum over the box is kept in every channel."""
        box = grid[:, self.y0 : self.y0 + self.box_height, self.x0 : self.x0 + self.box_width]
        shrunk = np.stack([_shrink(plane, self.height, self.width) for plane in box])
        seen = _spread(_spread(shrunk, self.height, axis=1), self.width, axis=2)
        area = np.float32(self.box_height * self.box_width / (self.height * self.width))
        return np.multiply(seen[:, :, ::-1] if self.flip else seen, area, order="C")

    def labels(self, labels: NDArray[np.integer], reduction: int = 1) -> NDArray[np.integer]:
        """Integers [H, W] → the same dtype [height, width], nearest: the class under each output pixel's centre.

        `reduction`: how many label pixels make a side of one of the picture's (a picture that was decoded smaller).
        """
        rows = self._nearest(self.y0, self.box_height, self.height, reduction)
        columns = self._nearest(self.x0, self.box_width, self.width, reduction)
        return labels[rows[:, None], columns[::-1] if self.flip else columns]

    @staticmethod
    def _nearest(start: int, box: int, size: int, reduction: int) -> NDArray[np.int64]:
        # floor((i + ½) · box / size) in whole numbers: no rounding can pick a neighbour outside the box.
        return start * reduction + (2 * np.arange(size) + 1) * (box * reduction) // (2 * size)

    def points(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[NDArray, NDArray]:
        """Where points of the picture lie in the view; pixel centres are integers in both."""
        seen_x = (np.asarray(x) + 0.5 - self.x0) * (self.width / self.box_width) - 0.5
        seen_y = (np.asarray(y) + 0.5 - self.y0) * (self.height / self.box_height) - 0.5
        return (self.width - 1 - seen_x if self.flip else seen_x), seen_y


def _shrink(plane: NDArray, height: int, width: int) -> NDArray:
    """Each side that is longer than asked for made as long, by the mean over each output pixel's area."""
    height, width = min(height, plane.shape[0]), min(width, plane.shape[1])
    if plane.shape[:2] == (height, width):
        return plane
    return cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA)


def _spread(grid: NDArray[np.float32], size: int, axis: int) -> NDArray[np.float32]:
    """An axis that is shorter than `size` made as long, by the mean over each output pixel's area.

    OpenCV's INTER_AREA means to do so, too, but where the edges of an output and an input pixel meet, its rounding can
    pick the wrong neighbour. Whole numbers cannot.
    """
    length = grid.shape[axis]
    if length >= size:
        return grid
    out = np.arange(size)
    first = out * length // size  # output pixel i covers [i, i + 1) · length / size, so at most two inputs
    second = np.minimum(first + 1, length - 1)
    share = np.maximum(0, (out + 1) * length - (first + 1) * size) / length
    share = share.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(grid.ndim)])
    near = grid.take(first, axis)
    return near + share * (grid.take(second, axis) - near)


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """`size` as two whole positive numbers (height, width). Raises ConfigError for anything else."""
    try:
        height, width = (int(side) for side in size)
    except (TypeError, ValueError):
        raise ConfigError(f"size is {size!r}; give height and width, such as (192, 256)") from None
    if height < 1 or width < 1:
        raise ConfigError(f"size is {size!r}; give a height and a width of 1 or more")
    return height, width


def check_scale(scale: tuple[float, float]) -> tuple[float, float]:
    """`scale` as a range within 0…1. Raises ConfigError for anything else."""
    try:
        low, high = (float(side) for side in scale)
    except (TypeError, ValueError):
        raise ConfigError(f"scale is {scale!r}; give a range within 0…1, such as (0.5, 1.0)") from None
    if not 0 < low <= high <= 1:
        raise ConfigError(f"scale is {scale!r}; give a range within 0…1, such as (0.5, 1.0)")
    return low, high


def largest_box(height: int, width: int, size: tuple[int, int], side: float = 1.0) -> tuple[int, int]:
    """Height and width of the largest box of `size`'s aspect in a picture, its sides then times `side`."""
    fit = side * min(height / size[0], width / size[1])
    return min(height, max(1, round(size[0] * fit))), min(width, max(1, round(size[1] * fit)))


def centre_view(height: int, width: int, size: tuple[int, int]) -> View:
    """The largest box of `size`'s aspect, in the middle of a picture of `height × width`, not mirrored."""
    box_height, box_width = largest_box(height, width, size)
    return View((width - box_width) // 2, (height - box_height) // 2, box_width, box_height, *size)


@dataclass(frozen=True)
class Draw:
    """The random part of a view, free of any picture's size: relative side, place in the slack, mirrored or not."""

    side: float
    along_x: float
    along_y: float
    flip: bool

    def view(self, height: int, width: int, size: tuple[int, int]) -> View:
        """This draw in a picture of `height × width`, seen at `size`."""
        box_height, box_width = largest_box(height, width, size, self.side)
        x0 = min(int(self.along_x * (width - box_width + 1)), width - box_width)
        y0 = min(int(self.along_y * (height - box_height + 1)), height - box_height)
        return View(x0, y0, box_width, box_height, *size, flip=self.flip)


def draw(rng: np.random.Generator, scale: tuple[float, float], flip: bool) -> Draw:
    """Draw a side uniformly from `scale`, a place uniformly, and with `flip` a mirror half of the time."""
    side, along_x, along_y, coin = rng.random(4)
    return Draw(scale[0] + (scale[1] - scale[0]) * side, along_x, along_y, bool(flip and coin < 0.5))
