"""The paired picture as a frame camera beside the event sensor takes it: blurred by motion, with a tone curve."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scene import Scene
from .sensor import Sensor

_MOST_VIEWS = 16  # averaged into one exposure


def expose(image: NDArray[np.uint8], scene: Scene, sensor: Sensor, duration_us: int) -> NDArray[np.uint8]:
    """The picture that a frame camera takes at the end of the window; `image` itself where the sensor has no such side.

    The exposure lasts `sensor.exposure_us`, at most twice the window, and the scene's final pose is its *middle*: the
    blur spreads evenly to both sides of the picture's own grid, so that labels stay where they are. After the window
    the camera goes on as it came. Then, with I in 0…1 and D = `sensor.dynamic_range_db`, the least intensity that the
    frame tells from black is d = 10^(−D/20), and the grey level is (max(I − d, 0) / (1 − d))^(1/gamma). There is no
    noise.

    Args:
        image: uint8 [H, W] or [H, W, 3].
    """
    share = min(sensor.exposure_us / duration_us, 2.0)
    blurred: NDArray[Any] = image
    if share > 0:
        fine = np.linspace(1 - share / 2, 1 + share / 2, 17)
        ways = np.linalg.norm(np.diff(scene.tracks(fine), axis=0), axis=-1).sum(0)
        number = min(max(math.ceil(float(ways.max())), 1), _MOST_VIEWS)
        if number > 1:
            times = 1 + share * ((np.arange(number) + 0.5) / number - 0.5)
            blurred = np.zeros(image.shape, np.float32)
            for view in scene.views(np.ascontiguousarray(image), times):
                blurred += view
            blurred /= number
    if sensor.gamma == 1 and sensor.dynamic_range_db <= 0:
        return image if blurred is image else np.rint(blurred).astype(np.uint8)
    least = 10 ** (-sensor.dynamic_range_db / 20) if sensor.dynamic_range_db > 0 else 0.0
    intensity = np.maximum(blurred.astype(np.float32) / 255 - least, 0) / (1 - least)
    return np.rint(255 * intensity ** (1 / sensor.gamma)).astype(np.uint8)
