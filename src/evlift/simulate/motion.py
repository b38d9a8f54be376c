"""Smooth random camera motion in the picture plane: paths over a still, and the shake of a hand.

A pose is (dx, dy, angle, log zoom): a point of the picture at offset r from its centre c is seen at
c + exp(log zoom) · R(angle) · r + (dx, dy). Pixels, radians; x right, y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .sensor import Seed

_FINE = 128  # samples of a path for its integral; its curvature is low, the error well under a hundredth of a pixel

MOST_PX = 10_000.0
"""Most pixels of a path's length: longer ones lead nowhere new, and coordinates overflow."""

_MOST_LOG_ZOOM = 5.0  # a path that is far longer than its picture would take it in a thousand times over

PATHS = ("smooth", "saccade", "shake", "mixed")
"""Ways to move: an even sweep (`Motion`); drift and jumps, as of an eye, or of a hand that jerks; to and fro, as of a
hand or a vehicle; any of these by chance."""


@dataclass(frozen=True)
class Motion:
    """A camera path over a still that ends at the picture itself: the pose at u = 1 is the identity.

    The camera keeps turning its heading, so that edges of every direction cross it at some time, and its speed swings.
    """

    length_px: float
    """Length of the centre's way, in pixels."""
    heading: float
    """Direction of the way at u = 0, in radians."""
    turn: float
    """Change of heading from u = 0 to u = 1, in radians."""
    swing: float
    """The speed is 1 + swing · sin(2πu + phase), relative to its mean; |swing| < 1."""
    phase: float
    angle: float
    """Rotation at u = 0, in radians."""
    log_zoom: float
    """Logarithm of the zoom at u = 0."""

    def poses(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Poses [K, 4] at the times `u` [K] in 0…1."""
        fine = np.linspace(0, 1, _FINE + 1)
        speed = 1 + self.swing * np.sin(2 * math.pi * fine + self.phase)
        heading = self.heading + self.turn * fine
        rates = np.stack([speed, speed * np.cos(heading), speed * np.sin(heading), speed], axis=1)
        return _poses(rates, u, self.length_px, self.angle, self.log_zoom)

    def corner_way(self, height: int, width: int) -> float:
        """Upper bound of the way that any pixel of the picture goes, in pixels."""
        radius = math.hypot(height, width) / 2 * math.exp(abs(self.log_zoom))
        return self.length_px + radius * (abs(self.angle) + abs(self.log_zoom))


@dataclass(frozen=True, eq=False)
class SampledMotion:
    """Any other path over a still that ends at the picture itself, by samples of its speed."""

    length_px: float
    """Length of the centre's way, in pixels."""
    rates: NDArray[np.float64]
    """Speed, velocity in x and y, and the pace of rotation and zoom, at times evenly spread over u = 0…1: [K, 4], in
    units of the mean speed."""
    angle: float
    """Rotation at u = 0 were its mean pace 1, in radians."""
    log_zoom: float
    """Logarithm of the zoom at u = 0 were its mean pace 1."""

    def poses(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Poses [K, 4] at the times `u` [K] in 0…1."""
        return _poses(self.rates, u, self.length_px, self.angle, self.log_zoom)


def _poses(
    rates: NDArray[np.float64], u: NDArray[np.float64], length_px: float, angle: float, log_zoom: float
) -> NDArray[np.float64]:
    fine = np.linspace(0, 1, len(rates))
    way = np.concatenate([np.zeros((1, 4)), np.cumsum((rates[1:] + rates[:-1]) / 2, axis=0)])
    way /= way[-1, 0]  # the mean speed is 1 by construction
    _, x, y, turned = (np.interp(u, fine, column) for column in (way - way[-1]).T)
    return np.stack([length_px * x, length_px * y, -angle * turned, -log_zoom * turned], axis=1)


def draw_motion(
    seed: Seed,
    height: int,
    width: int,
    motion_px: tuple[float, float] = (2.0, 15.0),
    rotation: float = 0.3,
    zoom: float = 0.5,
) -> Motion:
    """A random path over a picture of that size.

    Args:
        motion_px: range of the path's length in pixels, drawn log-uniformly.
        rotation, zoom: how far rotation and zoom move the picture's corners, relative to the path's length (standard
            deviation of a normal draw, cut off at twice that). 0 turns them off.

    Raises:
        ConfigError: a range that is empty, not positive or past `MOST_PX`, or a negative rotation or zoom.
    """
    lo, hi = motion_px
    if not 0 < lo <= hi <= MOST_PX:
        raise ConfigError(f"motion_px is {motion_px}; give a range of pixels over 0 and up to {MOST_PX:.0f}: (2, 15)")
    if not (0 <= rotation < math.inf and 0 <= zoom < math.inf):
        raise ConfigError(f"rotation is {rotation} and zoom is {zoom}; give 0 or more")
    rng = np.random.default_rng(seed)
    length = math.exp(rng.uniform(math.log(lo), math.log(hi)))
    corner = length / (math.hypot(height, width) / 2)
    return Motion(  # the draws in this very order: recipes rest on their paths
        length_px=length,
        heading=rng.uniform(0, 2 * math.pi),
        turn=rng.normal(0, 0.8),
        swing=rng.uniform(0, 0.5),
        phase=rng.uniform(0, 2 * math.pi),
        angle=_clipped(rng, rotation) * corner,
        log_zoom=float(np.clip(_clipped(rng, zoom) * corner, -_MOST_LOG_ZOOM, _MOST_LOG_ZOOM)),
    )


def _clipped(rng: np.random.Generator, sigma: float) -> float:
    return float(np.clip(rng.normal(0, sigma), -2 * sigma, 2 * sigma))


def draw_path(
    seed: Seed,
    height: int,
    width: int,
    path: str = "smooth",
    motion_px: tuple[float, float] = (2.0, 15.0),
    rotation: float = 0.3,
    zoom: float = 0.5,
) -> Motion | SampledMotion:
    """A random path of a kind in `PATHS` over a picture of that size; further arguments as in `draw_motion`.

    * `saccade`: one to three jumps over a slow drift that has a tenth of the way. A jump's speed is a raised cosine,
      close to the minimum-jerk profile of eye movements (Hogan 1984), and lasts 10 to 40 % of the window.
    * `shake`: velocities in x, y and turn are each two sinusoids of half to three cycles in the window; 10 to 60 Hz in
      50 ms, from a hand's tremor to an engine.

    Raises:
        ConfigError: an unknown path, or as `draw_motion`.
    """
    if path not in PATHS:
        raise ConfigError(f"there is no path {path!r}; choose one of {', '.join(PATHS)}")
    rng = np.random.default_rng(seed)
    if path == "mixed":
        path = PATHS[int(rng.integers(3))]
    smooth = draw_motion(rng, height, width, motion_px, rotation, zoom)
    if path == "smooth":
        return smooth
    fine = np.linspace(0, 1, _FINE + 1)
    if path == "saccade":
        velocity = np.tile([0.1 * math.cos(smooth.heading), 0.1 * math.sin(smooth.heading)], (_FINE + 1, 1))
        for share in rng.dirichlet(np.full(int(rng.integers(1, 4)), 2.0)):
            lasts = rng.uniform(0.1, 0.4)
            at, heading = rng.uniform(lasts / 2, 1 - lasts / 2), rng.uniform(0, 2 * math.pi)
            jump = np.where(np.abs(fine - at) < lasts / 2, 1 + np.cos(2 * math.pi * (fine - at) / lasts), 0) / lasts
            velocity += 0.9 * share * jump[:, None] * [math.cos(heading), math.sin(heading)]
        turn = np.hypot(*velocity.T)
    else:
        cycles = np.exp(rng.uniform(math.log(0.5), math.log(3), (3, 2)))
        phase, weight = rng.uniform(0, 2 * math.pi, (3, 2)), rng.uniform(0.3, 1, (3, 2))
        waves = (weight * np.cos(2 * math.pi * cycles * fine[:, None, None] + phase)).sum(-1)  # [F, 3]
        velocity, turn = waves[:, :2], waves[:, 2]
    speed = np.hypot(*velocity.T)
    rates = np.column_stack([speed, velocity, turn]) / ((speed[1:] + speed[:-1]) / 2).mean()
    return SampledMotion(smooth.length_px, rates, smooth.angle, smooth.log_zoom)


def shake_poses(times_us: NDArray[np.int64], pixels: float, seed: Seed = 0, hz: float = 2.0) -> NDArray[np.float64]:
    """Poses [T, 4] of a hand-held camera: dx and dy within ±`pixels`, a slight roll, no zoom.

    Each coordinate is a sum of four sinusoids of random phase between hz / 4 and 2 hz, the slow ones the largest.
    The poses at given times do not depend on which other times are asked for.

    Raises:
        ConfigError: a negative amplitude or a frequency that is not positive.
    """
    if not (pixels >= 0 and hz > 0):
        raise ConfigError(f"shake of {pixels} pixels at {hz} Hz; give 0 pixels or more and a positive frequency")
    rng = np.random.default_rng(seed)
    band = hz * np.array([0.25, 0.5, 1.0, 2.0])
    frequency = band * rng.uniform(0.8, 1.25, (3, 4))
    phase = rng.uniform(0, 2 * math.pi, (3, 4))
    weight = 1 / np.sqrt(band / band[0])
    seconds = np.asarray(times_us, np.float64)[:, None, None] * 1e-6
    unit = (weight * np.sin(2 * math.pi * frequency * seconds + phase)).sum(-1) / weight.sum()  # [T, 3] in ±1
    roll = unit[:, 2] * pixels * 1e-3  # a third of a pixel at a corner 300 px away, for each pixel of shake
    return np.stack([pixels * unit[:, 0], pixels * unit[:, 1], roll, np.zeros(len(unit))], axis=1)


def matrices(poses: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Affine maps [K, 2, 3] from the picture's pixel coordinates to where a camera in those poses [K, 4] sees them."""
    dx, dy, angle, log_zoom = np.asarray(poses, np.float64).T
    cos, sin = np.exp(log_zoom) * np.cos(angle), np.exp(log_zoom) * np.sin(angle)
    cx, cy = (width - 1) / 2, (height - 1) / 2
    rows = [cos, -sin, cx + dx - cos * cx + sin * cy, sin, cos, cy + dy - sin * cx - cos * cy]
    return np.stack(rows, axis=1).reshape(-1, 2, 3)
