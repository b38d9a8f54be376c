"""What a moving camera sees of a picture with depth: parallax, and things that hide one another.

A view is drawn in four steps: every pixel of the picture is put where it is seen, the nearest on top; what nothing
reached is closed; each pixel of the view looks back to where in the picture it comes from; and the picture is sampled
there. The picture is interpolated once, however it moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .camera import NEAREST, Camera, through
from .scene import Flow, corners, grid, inside

_SAME_SURFACE_PX = 1.5  # neighbours that the motion pulls apart by no more than this belong to one surface
_SAME_PLACE_PX = 2.0  # how far from itself a visible pixel may end that goes to a view and back
_FARTHEST_PX = 32_766.0  # OpenCV's remap counts in int16, and reads who knows what for places past an int32
_NONE: Any = None  # OpenCV's second map, which its types do not let go


def relative_inverse_depth(depth: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Z₀ / Z of a depth map, float32 [H, W]; 0 where it is unknown, and at most `camera.NEAREST`.

    Z₀ is the harmonic mean of the known depths, so that the mean of the result over known pixels is 1. The nearest
    hundredth of the pixels counts there as near as the rest; and if the rest would pass `NEAREST`, Z₀ is made smaller
    until it does not.

    Args:
        depth: real numbers [H, W] in any unit; 0, NaN and infinity are unknown and count as infinitely far.

    Raises:
        InputError: another shape, no numbers, or negative ones.
    """
    depth = np.asarray(depth)
    if depth.shape != (height, width):
        given = "×".join(map(str, depth.shape))
        raise InputError(f"a depth map is {given}, its picture {height}×{width}; resize one of them")
    if depth.dtype.kind not in "fiu":
        raise InputError(f"a depth map holds {depth.dtype}; give metres, or other real numbers in proportion to them")
    depth = depth.astype(np.float64)
    if (depth < 0).any():
        raise InputError("a depth map has negative values; give distances, with 0 or NaN where they are unknown")
    inverse = np.zeros((height, width))
    # Numbers so small that their inverse is no float64 are as unknown as 0.
    np.divide(1, depth, out=inverse, where=np.isfinite(depth) & (depth > 1e-300))
    some = inverse[inverse > 0]
    if not some.size:
        return np.ones((height, width), np.float32)  # nothing known: a plane, as without a map
    rank = math.ceil(0.99 * (some.size - 1))
    near = np.partition(some, rank)[rank]
    unit = max(float(np.minimum(some, near).mean()), float(near) / NEAREST)
    return np.minimum(inverse / unit, NEAREST).astype(np.float32)


class Relief:
    """A picture with depth before a camera.

    Args:
        camera: the camera and its path.
        rho: relative inverse depth, float32 [H, W], as of `relative_inverse_depth`.
    """

    def __init__(self, camera: Camera, rho: NDArray[np.float32]) -> None:
        self.camera, self.rho = camera, np.ascontiguousarray(rho, np.float32)
        self.height, self.width = rho.shape

    def maps(self, u: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A [K, 3, 3] and b [K, 3] of the views at the times `u` [K]."""
        return self.camera.maps(through(self.camera.motion, u), self.height, self.width)

    def views(self, image: NDArray[Any], u: NDArray[np.float64]) -> Iterator[NDArray[Any]]:
        for a, b in zip(*self.maps(u), strict=True):
            places, _ = self._draw(a, b)
            near = np.clip(places, -_FARTHEST_PX, _FARTHEST_PX)
            yield np.asarray(cv2.remap(image, near, _NONE, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))

    def tracks(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        points = corners(0, 0, self.width, self.height)
        a, b = self.maps(u)
        least, most = float(self.rho.min()), float(self.rho.max())
        return np.concatenate([_seen(a[:, None], b[:, None], points, rho) for rho in (least, most)], axis=1)

    def _draw(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Of one view: where in the picture each pixel comes from [H, W, 2], and whether the picture shows it."""
        from .relief_kernels import close_rows, heal, look_back, splat

        z = np.empty((self.height, self.width), np.float32)
        source = np.arange(z.size, dtype=np.int32).reshape(z.shape)
        seen = np.ones(z.shape, np.bool_)
        back = np.linalg.inv(a)
        c = -back @ b
        if splat(a, b, self.rho, z):
            tolerance = np.float32(self._tolerance(b))
            heal(z, tolerance)
            sideways = abs(b[0] - b[2] * (self.width - 1) / 2) >= abs(b[1] - b[2] * (self.height - 1) / 2)
            # Gaps are closed along the motion first: there, one of their two sides is the surface behind.
            for along_rows in (sideways, not sideways):
                if (z >= 0).all():
                    break
                if along_rows:
                    close_rows(back, c, self.rho, z, tolerance, source, seen)
                else:  # the same with x for y
                    swap = [1, 0, 2]
                    turned = [np.ascontiguousarray(one.T) for one in (self.rho, z, source, seen)]
                    close_rows(back[swap][:, swap].copy(), c[swap], *turned[:2], tolerance, *turned[2:])
                    z, source, seen = (np.ascontiguousarray(one.T) for one in turned[1:])
        else:  # the camera looks past the picture: mirror images all over, as if it were flat
            z.fill(1)
            seen.fill(False)
        places = np.empty((self.height, self.width, 2), np.float32)
        look_back(back, c, z, source, places)
        return places, seen

    def _tolerance(self, b: NDArray[np.float64]) -> float:
        """Most difference in inverse depth between neighbours of one surface."""
        points = corners(0, 0, self.width, self.height)
        parallax = np.hypot(b[0] - b[2] * points[:, 0], b[1] - b[2] * points[:, 1]).max()  # pixels per unit of ρ
        return _SAME_SURFACE_PX / max(float(parallax), 1e-6)

    def backward(self, u: float = 0.0) -> Flow:
        (a,), (b,) = self.maps(np.array([u]))
        points = grid(self.height, self.width)
        start = _seen(a, b, points, self.rho)
        places, _ = self._draw(a, b)
        # There and back: what is hidden leads to what hides it.
        near = np.clip(start, -_FARTHEST_PX, _FARTHEST_PX).astype(np.float32)
        back = cv2.remap(places, near, _NONE, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        met = np.abs(back - points).max(axis=-1) <= _SAME_PLACE_PX
        return (points - start).astype(np.float32), inside(start, self.height, self.width) & met

    def forward(self, u: float = 0.0) -> Flow:
        (a,), (b,) = self.maps(np.array([u]))
        places, seen = self._draw(a, b)
        flow = places - grid(self.height, self.width)
        return flow.astype(np.float32), seen & inside(places, self.height, self.width)


def _seen(a: NDArray[np.float64], b: NDArray[np.float64], points: NDArray[np.float64], rho: Any) -> NDArray[np.float64]:
    """Where the points [..., 2] of the picture at inverse depth `rho` are seen by maps [..., 3, 3] and [..., 3]."""
    x, y = points[..., 0], points[..., 1]
    px, py, w = (a[..., i, 0] * x + a[..., i, 1] * y + a[..., i, 2] + rho * b[..., i] for i in range(3))
    return np.stack([px / w, py / w], axis=-1)
