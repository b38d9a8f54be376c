"""What a moving camera sees of a picture that is flat, or flat with cut-outs of it that move by themselves.

A scene is made for one path. It renders views at times u (0 = start of the window, 1 = the picture itself), and knows
the exact optical flow between any view and the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from .camera import Camera, planes, project, through
from .motion import Motion, SampledMotion, matrices

Flow = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""float32 [H, W, 2] in pixels (dx, dy), and bool [H, W]: where it is known to be seen at both times."""


class Scene(Protocol):
    """Something to look at along a path."""

    def views(self, image: NDArray[Any], u: NDArray[np.float64]) -> Iterator[NDArray[Any]]:
        """The views of `image`, uint8 or float32 [H, W] or [H, W, C], at the times `u`: of its shape and dtype."""

    def tracks(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where the points that move most are seen at the times `u` [K]: [K, P, 2]."""

    def backward(self, u: float = 0.0) -> Flow:
        """On the picture's grid: what is at r was at r − flow(r) in the view at `u`. True: it was seen there."""

    def forward(self, u: float = 0.0) -> Flow:
        """On the grid of the view at `u`: what is at p will be at p + flow(p) in the picture. True: seen there, too."""


class Flat:
    """A picture on a plane, before a camera in poses of `motion`."""

    def __init__(self, height: int, width: int, motion: Motion | SampledMotion, camera: Camera | None = None) -> None:
        self.height, self.width = height, width
        self.motion, self.camera = motion, camera

    def maps(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Homographies [K, 3, 3] from the picture to the views."""
        return planes(self.camera or self.motion, through(self.motion, u), self.height, self.width)

    def views(self, image: NDArray[Any], u: NDArray[np.float64]) -> Iterator[NDArray[Any]]:
        for way in self.maps(u):
            yield warp(image, way, self.camera is None)

    def tracks(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        return project(self.maps(u)[:, None], corners(0, 0, self.width, self.height))

    def backward(self, u: float = 0.0) -> Flow:
        points = grid(self.height, self.width)
        start = project(self.maps(np.array([u]))[0], points)
        return (points - start).astype(np.float32), inside(start, self.height, self.width)

    def forward(self, u: float = 0.0) -> Flow:
        points = grid(self.height, self.width)
        end = project(np.linalg.inv(self.maps(np.array([u]))[0]), points)
        return (end - points).astype(np.float32), inside(end, self.height, self.width)


@dataclass(frozen=True, eq=False)
class Layer:
    """A cut-out of the picture that moves over its ground, and turns and grows about its own middle."""

    mask: NDArray[np.bool_]
    """[H, W]; not empty."""
    motion: Motion | SampledMotion

    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the mask, the latter two exclusive."""
        columns, rows = np.flatnonzero(self.mask.any(axis=0)), np.flatnonzero(self.mask.any(axis=1))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def maps(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Affine maps [K, 3, 3] on the ground's pixels."""
        left, top, right, bottom = self.box()
        ways = np.tile(np.eye(3), (len(u), 1, 1))
        ways[:, :2] = matrices(through(self.motion, u), bottom - top, right - left)
        return shift(left, top) @ ways @ shift(-left, -top)


class Layered:
    """Layers over a flat ground, the last on top. The ground behind them is a blur of what surrounds them.

    Their masks must not overlap. A layer takes part in the ground's motion and adds its own.
    """

    def __init__(self, ground: Flat, layers: list[Layer]) -> None:
        self.ground, self.layers = ground, layers
        self.height, self.width = ground.height, ground.width
        self._owner = np.full((self.height, self.width), -1, np.int16)  # the layer of each pixel; -1 is the ground
        for k, layer in enumerate(layers):
            self._owner[layer.mask] = k

    def _ways(self, u: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
        ground = self.ground.maps(u)
        return ground, [ground @ layer.maps(u) for layer in self.layers]

    def views(self, image: NDArray[Any], u: NDArray[np.float64]) -> Iterator[NDArray[Any]]:
        picture = np.asarray(image, np.float32)
        behind = fill(picture, self._owner < 0)
        affine = self.ground.camera is None
        cuts = [_Cut(picture, layer) for layer in self.layers]
        ground, ways = self._ways(u)
        for k in range(len(u)):
            view = warp(behind, ground[k], affine)
            for cut, way in zip(cuts, ways, strict=True):
                cut.paste(view, way[k])
            yield np.rint(view).astype(image.dtype) if image.dtype == np.uint8 else view

    def tracks(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        _, ways = self._ways(u)
        layers = [project(way[:, None], corners(*layer.box())) for layer, way in zip(self.layers, ways, strict=True)]
        return np.concatenate([self.ground.tracks(u), *layers], axis=1)

    def _view(self, u: float) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
        """Maps [1 + layers, 3, 3] to a view, the ground's first, and whose each of its pixels is, [H, W]."""
        ground, ways = self._ways(np.array([u]))
        owner = np.full((self.height, self.width), -1, np.int16)
        for k, (layer, way) in enumerate(zip(self.layers, ways, strict=True)):
            cover = np.zeros((self.height, self.width), np.float32)
            _Cut(np.ones_like(cover), layer).paste(cover, way[0])
            owner[cover >= 0.5] = k
        return np.concatenate([ground, *ways]), owner

    def backward(self, u: float = 0.0) -> Flow:
        maps, owner = self._view(u)
        points = grid(self.height, self.width)
        start = project(maps[self._owner + 1], points)
        return (points - start).astype(np.float32), self._met(start, owner, self._owner)

    def forward(self, u: float = 0.0) -> Flow:
        maps, owner = self._view(u)
        points = grid(self.height, self.width)
        end = project(np.linalg.inv(maps)[owner + 1], points)
        return (end - points).astype(np.float32), self._met(end, self._owner, owner)

    def _met(self, points: NDArray[np.float64], there: NDArray[np.int16], here: NDArray[np.int16]) -> NDArray[np.bool_]:
        """Whether the pixel that a point lies in belongs there to what it belongs to here."""
        x, y = nearest(points, self.height, self.width)
        return inside(points, self.height, self.width) & (there[y, x] == here)


class _Cut:
    """A layer's part of a picture, ready to be pasted into views."""

    def __init__(self, picture: NDArray[np.float32], layer: Layer) -> None:
        self.box = left, top, right, bottom = layer.box()
        mask = layer.mask[top:bottom, left:right].astype(np.float32)
        part = picture[top:bottom, left:right]
        channels = part[..., None] if part.ndim == 2 else part
        # Colour times cover, then cover: so it stays right when both are interpolated. The rim of zeros keeps them so.
        stack = np.concatenate([channels * mask[..., None], mask[..., None]], axis=2)
        self.stack = np.pad(stack, ((1, 1), (1, 1), (0, 0)))

    def paste(self, view: NDArray[np.float32], way: NDArray[np.float64]) -> None:
        """Draw it into `view` [H, W] or [H, W, C], moved by `way` [3, 3]."""
        left, top, right, bottom = self.box
        seen = project(way, corners(left - 1, top - 1, right + 1, bottom + 1))
        x0, y0 = np.maximum(np.floor(seen.min(0)).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(seen.max(0)).astype(int) + 1, [view.shape[1], view.shape[0]])
        if x1 <= x0 or y1 <= y0:
            return
        moved = shift(-x0, -y0) @ way @ shift(left - 1, top - 1)
        size = (int(x1 - x0), int(y1 - y0))
        drawn = cv2.warpPerspective(self.stack, moved, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        part = view[y0:y1, x0:x1]
        colour, cover = (drawn[..., 0], drawn[..., -1]) if view.ndim == 2 else (drawn[..., :-1], drawn[..., -1:])
        part *= 1 - cover
        part += colour


def warp(image: NDArray[Any], way: NDArray[np.float64], affine: bool) -> NDArray[Any]:
    """`image` [H, W] or [H, W, C] moved by `way` [3, 3]; beyond the border lies its mirror image."""
    size = (image.shape[1], image.shape[0])
    if affine:
        return np.asarray(
            cv2.warpAffine(image, way[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        )
    return np.asarray(cv2.warpPerspective(image, way, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))


def fill(picture: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """`picture` [H, W] or [H, W, C] with a blur of what is known around where `known` [H, W] is False.

    Averages of known pixels over ever larger squares, then back to fine (pull-push, Gortler 1996).
    """
    if known.all():
        return picture
    weight = known.astype(np.float32)
    shown = weight if picture.ndim == 2 else weight[..., None]
    coarse_size = ((picture.shape[1] + 1) // 2, (picture.shape[0] + 1) // 2)
    if not known.any() or coarse_size == (picture.shape[1], picture.shape[0]):
        return picture
    total = cv2.resize(picture * shown, coarse_size, interpolation=cv2.INTER_AREA)
    share = cv2.resize(weight, coarse_size, interpolation=cv2.INTER_AREA)
    divisor = np.maximum(share, np.float32(1e-6))
    mean = np.asarray(total / (divisor if picture.ndim == 2 else divisor[..., None]), np.float32)
    blur = cv2.resize(fill(mean, share > 0), (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.where(shown > 0, picture, blur)


def shift(dx: float, dy: float) -> NDArray[np.float64]:
    """A translation as a map [3, 3]."""
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]], np.float64)


def grid(height: int, width: int) -> NDArray[np.float64]:
    """The pixels' own coordinates (x, y), [H, W, 2]."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return np.stack([x, y], axis=-1)


def corners(left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
    """Corner pixels and middle of a box whose right and bottom are exclusive, [5, 2]."""
    right, bottom = right - 1, bottom - 1
    middle = ((left + right) / 2, (top + bottom) / 2)
    return np.array([(left, top), (right, top), (left, bottom), (right, bottom), middle], np.float64)


def inside(points: NDArray[Any], height: int, width: int) -> NDArray[np.bool_]:
    """Whether points [..., 2] lie between the first and last pixel, to a thousandth of a pixel."""
    slack = 1e-3
    x, y = points[..., 0], points[..., 1]
    return (x >= -slack) & (x <= width - 1 + slack) & (y >= -slack) & (y <= height - 1 + slack)


def nearest(points: NDArray[np.float64], height: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Column and row of the pixels nearest to points [..., 2]."""
    x = np.clip(np.rint(points[..., 0]), 0, width - 1).astype(np.intp)
    y = np.clip(np.rint(points[..., 1]), 0, height - 1).astype(np.intp)
    return x, y
