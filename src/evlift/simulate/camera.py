"""A pin-hole camera that turns and moves in space.

A point at pixel r = (x, y, 1) of the picture and at depth Z has inverse depth ρ = Z₀ / Z relative to the scene's depth
Z₀. After the camera has turned by R and moved by Z₀·T the point is at K (R K⁻¹ r + ρ T), up to scale (Hartley and
Zisserman 2004, eq. 9.7 with their t/Z written as ρ T). All views are therefore of the form A r + ρ b. A picture without
depth is a plane, ρ = 1, and its views are the homographies A + b (0, 0, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .motion import Motion, SampledMotion, matrices
from .sensor import Seed

FOCAL = 1.0
"""Focal length by the picture's longer side: 53° across it, as cameras in phones and cars have 40° to 90°."""

NEAREST = 4.0
"""Largest relative inverse depth: what is nearer (less than 1 % of the picture) counts as this near."""


_MOST_TURNING = 0.4  # radians: the picture's rim stays before the camera
_MOST_ZOOM = 0.1  # log zoom at ρ = 1: by it the nearest things grow to almost twice, and stay before the camera


@dataclass(frozen=True)
class Camera:
    """A camera that turns and moves on a path and ends where the picture was taken."""

    motion: Motion | SampledMotion
    """The way that the middle of the picture goes at ρ = 1, its roll, and its growth by moving ahead."""
    share: float
    """Part of that way that comes from moving sideways; the rest is from turning. Over 1: it turns against its motion,
    as when something at half the depth is kept in view."""
    focal_px: float

    def poses(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Poses [K, 6] at the times `u` [K]: a rotation vector in radians, and a translation in units of Z₀."""
        return self._in_space(self.motion.poses(u))

    def _in_space(self, planar: NDArray[np.float64]) -> NDArray[np.float64]:
        dx, dy, roll, log_zoom = planar.T
        turning, moving = (1 - self.share) / self.focal_px, self.share / self.focal_px
        return np.stack([-turning * dy, turning * dx, roll, moving * dx, moving * dy, np.exp(-log_zoom) - 1], axis=1)

    def maps(
        self, planar: NDArray[np.float64], height: int, width: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A [K, 3, 3] and b [K, 3] for poses [K, 4] of the path: pixel r is seen at A r + ρ b."""
        poses = self._in_space(planar)
        k = np.array([[self.focal_px, 0, (width - 1) / 2], [0, self.focal_px, (height - 1) / 2], [0, 0, 1]])
        return k @ rotations(poses[:, :3]) @ np.linalg.inv(k), poses[:, 3:] @ k.T


def draw_camera(seed: Seed, motion: Motion | SampledMotion, height: int, width: int, relief: bool) -> Camera:
    """A camera that takes a path over a picture by turning and moving, in parts drawn at random.

    Args:
        relief: the picture has depth: at least half of the way is moving (share 0.5 to 1.5). Else 0 to 1.
    """
    rng = np.random.default_rng(seed)
    focal = FOCAL * max(height, width)
    limit = _MOST_TURNING * focal / motion.length_px
    share = 1 - float(np.clip(rng.uniform(-0.5, 0.5) if relief else rng.uniform(0, 1), -limit, limit))
    zoomed = float(np.abs(motion.poses(np.linspace(0, 1, 33))[:, 3]).max())
    if zoomed > _MOST_ZOOM:
        motion = replace(motion, log_zoom=motion.log_zoom * _MOST_ZOOM / zoomed)
    return Camera(motion, share, focal)


def rotations(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrices [K, 3, 3] of rotation vectors [K, 3] in radians (Rodrigues 1840)."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    # sin(a)/a and (1 − cos a)/a², both finite at 0.
    first = np.sinc(angle / math.pi)
    second = np.sinc(angle / (2 * math.pi)) ** 2 / 2
    return np.eye(3) + first * cross + second * (cross @ cross)


def planes(
    camera: Camera | Motion | SampledMotion, planar: NDArray[np.float64], height: int, width: int
) -> NDArray[np.float64]:
    """Homographies [K, 3, 3] from pixels of a flat picture to where a camera in poses [K, 4] of its path sees them."""
    if isinstance(camera, Camera):
        a, b = camera.maps(planar, height, width)
        a[:, :, 2] += b
        return a
    affine = matrices(planar, height, width)
    return np.concatenate([affine, np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(affine), 1, 3))], axis=1)


def through(motion: Motion | SampledMotion, u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poses [K, 4] at the times `u` [K], which may lie after 1: there the path goes on as it came, turned by 180°."""
    after = u > 1
    poses = motion.poses(np.where(after, 2 - u, u))
    poses[after] *= -1
    return poses


def project(maps: NDArray[Any], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where homographies [..., 3, 3] take points [..., 2], in pixels."""
    x, y = points[..., 0], points[..., 1]
    px, py, w = (maps[..., i, 0] * x + maps[..., i, 1] * y + maps[..., i, 2] for i in range(3))
    return np.stack([px / w, py / w], axis=-1)
