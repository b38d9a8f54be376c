"""Events from a single picture: a camera moves over it on a smooth random path that ends at the picture itself.

The picture is then exactly what the camera sees when the window ends, so that picture, labels and events share one
pixel grid. It runs inside the training loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, InputError
from ..events import Events
from .motion import Motion, draw_motion, matrices
from .sensor import Columns, PixelArray, Seed, Sensor, get_sensor, to_grey


@dataclass(frozen=True)
class Pair:
    """A picture, its labels and the events up to the moment of the picture."""

    image: NDArray[np.uint8]
    """The picture as given, [H, W, 3] or [H, W]."""
    labels: NDArray[np.generic] | None
    """The labels as given: the very same array."""
    events: Events
    """Times in (0, duration_us], in the picture's pixel grid."""
    motion: Motion
    duration_us: int

    @property
    def flow(self) -> NDArray[np.float32]:
        """Optical flow over the window, float32 [H, W, 2] (dx, dy): what the picture shows at pixel r was at
        r − flow(r) when the window began."""
        height, width = self.image.shape[:2]
        m = matrices(self.motion.poses(np.zeros(1)), height, width)[0]
        y, x = np.mgrid[:height, :width].astype(np.float64)
        start = np.stack([m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2]], axis=-1)
        return (np.stack([x, y], axis=-1) - start).astype(np.float32)


def pair_from_image(
    image: NDArray[np.uint8],
    labels: NDArray[np.generic] | None = None,
    sensor: str | Sensor = "ideal",
    seed: Seed = 0,
    *,
    motion_px: tuple[float, float] = (2.0, 15.0),
    rotation: float = 0.3,
    zoom: float = 0.5,
    duration_us: int = 50_000,
    step_px: float = 1.0,
    max_steps: int = 32,
) -> Pair:
    """A picture and the events of a camera that moved over it and ended there.

    Args:
        image: uint8 RGB [H, W, 3] or grey [H, W]. What lies outside is its mirror image.
        labels: anything that belongs to the picture; carried along untouched.
        sensor: preset or sensor.
        seed: of the path and the sensor; the same seed gives the same events.
        motion_px: range of the path's length in pixels of this picture, drawn log-uniformly.
        rotation, zoom: as in `draw_motion`.
        duration_us: length of the window; only refractory time and noise feel it.
        step_px: about the most pixels that anything moves between two rendered frames.
        max_steps: most rendered frames, whatever the path's length.

    Raises:
        InputError: the picture is no uint8 array of that shape.
        ConfigError: a setting out of its range.
    """
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
        raise InputError(f"a picture is {image.dtype} {image.shape}; give uint8 [height, width, 3] or [height, width]")
    if step_px <= 0 or max_steps < 2:
        raise ConfigError(f"step_px is {step_px} and max_steps is {max_steps}; give a positive step and 2 or more")
    if duration_us < max_steps:
        raise ConfigError(f"duration_us is {duration_us}; give {max_steps} microseconds or more")
    sensor = get_sensor(sensor)
    height, width = image.shape[:2]
    rng = np.random.default_rng(seed)
    motion = draw_motion(rng, height, width, motion_px, rotation, zoom)
    steps = min(max(math.ceil(motion.corner_way(height, width) / step_px), 4), max_steps)
    u = np.arange(steps + 1) / steps
    ways = matrices(motion.poses(u), height, width)
    times = np.round(u * duration_us).astype(np.int64)
    log = sensor.log_intensity(to_grey(image))
    pixels = PixelArray(height, width, sensor, rng)
    parts = []
    for way, t in zip(ways[:-1], times[:-1], strict=True):
        seen = cv2.warpAffine(log, way, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        parts.append(pixels.step(np.asarray(seen, np.float32), int(t)))
    parts.append(pixels.step(log, int(times[-1])))  # at rest: the picture itself, to the last bit
    events = Columns.join(parts)
    return Pair(image, labels, Events(events.x, events.y, events.t, events.p, height, width), motion, int(duration_us))
