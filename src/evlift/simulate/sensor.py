"""The event sensor: pixels that fire whenever their log intensity has changed by a contrast threshold.

The model is the one of Lichtsteiner 2008 as ESIM (Rebecq 2018) and v2e (Hu 2021) simulate it. Every pixel remembers the
log intensity at its last event. Between two frames its log intensity runs along a straight line; each time the line
passes the remembered level plus `threshold_on` (or minus `threshold_off`) the pixel emits an event, stamped with the
first microsecond at or after the crossing, and the level moves by that threshold. What is left over stays for the next
frame, so that slow changes are neither lost nor counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, InputError
from .kernels import cross, cross_along, sort

Seed = int | Sequence[int] | np.random.Generator
"""What `numpy.random.default_rng` takes; the same seed gives the same events."""

LONGEST_STEP_US = 2**30 - 1
"""Most microseconds (about 18 minutes) between two frames: the time within a step has 30 bits of an event's word."""

_NEVER = -(2**62)  # of a pixel that has not fired yet; far enough in the past, and no overflow when subtracted


@dataclass(frozen=True)
class Sensor:
    """What makes one event camera differ from another.

    Raises:
        ConfigError: a value outside its range.
    """

    threshold_on: float = 0.2
    """Rise of log intensity that makes an ON event (p = True)."""
    threshold_off: float = 0.2
    """Fall of log intensity that makes an OFF event (p = False)."""
    threshold_sigma: float = 0.0
    """Standard deviation of both thresholds from pixel to pixel, in log intensity (v2e: 0.03). Drawn once a camera from
    its seed; no pixel goes under a quarter of the nominal threshold."""
    refractory_us: int = 0
    """A crossing less than this many microseconds after the pixel's last event emits nothing. The pixel's level moves
    on with the suppressed crossing, as in ESIM: contrast that passes in the refractory time is lost, not postponed."""
    log_offset: float = 0.1
    """Log intensity is log(I / 255 + log_offset): keeps dark pixels quiet. 0.1 agrees best with a DAVIS240b."""
    noise_hz: float = 0.0
    """Background activity: mean rate of random events a pixel, ON or OFF alike, spread evenly over time (a real
    DAVIS240b: 0.1 to 1 Hz). They leave the level and the refractory time alone."""

    def __post_init__(self) -> None:
        for name in ("threshold_on", "threshold_off", "log_offset"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ConfigError(f"sensor {name} is {value}; give a positive number")
        for name in ("threshold_sigma", "refractory_us", "noise_hz"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"sensor {name} is {value}; give 0 or more")

    def log_intensity(self, grey: NDArray[np.uint8]) -> NDArray[np.float32]:
        """log(I / 255 + log_offset) of grey values, float32, the shape of `grey`. Grey values are taken as linear."""
        table = np.log(np.arange(256) / 255 + self.log_offset).astype(np.float32)
        return np.asarray(cv2.LUT(grey, table), np.float32)


SENSORS: dict[str, Sensor] = {
    "ideal": Sensor(),
    "davis240": Sensor(threshold_on=0.17, threshold_off=0.40, noise_hz=0.2),
    "noisy": Sensor(threshold_sigma=0.03, refractory_us=500, noise_hz=1.0),
}
"""Presets by name. `davis240`: thresholds at which simulated events agree best with two real DAVIS240b recordings.
`noisy`: the mismatch of v2e with a moderate noise floor, to train against imperfect cameras."""


def get_sensor(sensor: str | Sensor) -> Sensor:
    """The preset of that name, or the sensor itself. Raises ConfigError for an unknown name."""
    if isinstance(sensor, Sensor):
        return sensor
    if sensor not in SENSORS:
        raise ConfigError(f"there is no sensor {sensor!r}; choose one of {', '.join(SENSORS)}")
    return SENSORS[sensor]


def to_grey(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey values uint8 [H, W] of a frame uint8 RGB [H, W, 3] or grey [H, W]; always a new array."""
    if frame.ndim == 2:
        return frame.copy()
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY), np.uint8)


@dataclass(frozen=True)
class Columns:
    """Events as bare columns, sorted by time: x, y uint16, t int64 µs, p bool, each [N]."""

    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    t: NDArray[np.int64]
    p: NDArray[np.bool_]

    @staticmethod
    def join(parts: Sequence[Columns]) -> Columns:
        """One after the other, in the order given."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return Columns(np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.int64), np.empty(0, np.bool_))
        return Columns(
            np.concatenate([part.x for part in parts]),
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.t for part in parts]),
            np.concatenate([part.p for part in parts]),
        )


class PixelArray:
    """The pixels of one camera and what they remember between frames.

    Args:
        height, width: size in pixels, at most 65536 each.
        sensor: thresholds, refractory time and noise.
        seed: of the thresholds' mismatch and the noise.
    """

    def __init__(self, height: int, width: int, sensor: str | Sensor = "ideal", seed: Seed = 0) -> None:
        if not (0 < height <= 65536 and 0 < width <= 65536):
            raise InputError(f"a sensor of {height}×{width} pixels cannot be simulated; give sides of 1 to 65536")
        self.height, self.width = int(height), int(width)
        self.sensor = get_sensor(sensor)
        self._rng = np.random.default_rng(seed)
        self.on = self._thresholds(self.sensor.threshold_on)  # float32 [H, W]
        self.off = self._thresholds(self.sensor.threshold_off)  # float32 [H, W]
        self._last = np.full((height, width) if self.sensor.refractory_us else (1, 1), _NEVER, np.int64)
        self._level: NDArray[np.float64] | None = None  # [H, W]; float64: ten thousand thresholds add up
        self._log: NDArray[np.float32] | None = None  # [H, W] of the frame before
        self._t = 0
        self._words = np.empty(max(1024, height * width // 4), np.int64)

    def _thresholds(self, nominal: float) -> NDArray[np.float32]:
        shape = (self.height, self.width)
        if not self.sensor.threshold_sigma:
            return np.full(shape, nominal, np.float32)
        spread = np.float32(self.sensor.threshold_sigma) * self._rng.standard_normal(shape, dtype=np.float32)
        return np.maximum(np.float32(nominal) + spread, np.float32(nominal / 4))

    def step(
        self,
        log: NDArray[np.float32],
        t_us: int,
        flows: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
        step_px: float = 1.0,
        max_steps: int = 32,
    ) -> Columns:
        """Events in (time of the frame before, t_us]. The first frame sets every pixel's level and gives none.

        Log intensity runs straight from frame to frame. With `flows`, it follows what moves by more than `step_px`.

        Args:
            log: log intensity at `t_us`, float32 [H, W]. Kept, not copied: the caller does not change it any more.
            t_us: time of this frame, later than the one before.
            flows: optical flow from the frame before to this one and back, each float32 [H, W, 2] in pixels.
            step_px: a pixel is rendered in between once for every so many pixels of flow there …
            max_steps: … and no more often than this.

        Raises:
            InputError: a time that does not rise, a gap over LONGEST_STEP_US, or a frame of another size.
        """
        if log.shape != (self.height, self.width):
            raise InputError(f"a frame has shape {log.shape}, the sensor {self.height}×{self.width}; resize it first")
        log = np.ascontiguousarray(log, np.float32)
        t_us = int(t_us)
        if self._level is None or self._log is None:
            self._level, self._log, self._t = log.astype(np.float64), log, t_us
            return Columns.join([])
        span = t_us - self._t
        if span <= 0:
            raise InputError(f"a frame at {t_us} µs follows one at {self._t} µs; give frames with rising times")
        if span > LONGEST_STEP_US:
            raise InputError(f"{span / 1e6:.0f} s lie between two frames; cut the video there")
        pixels = (
            self._level,
            self.on,
            self.off,
            self._last,
            self._t,
            span,
            int(self.sensor.refractory_us),
            self._words,
        )
        if flows is None:
            self._words, count = cross(self._log, log, *pixels)
        else:
            self._words, count = cross_along(self._log, log, *flows, float(step_px), int(max_steps), *pixels)
        if self.sensor.noise_hz:
            count = self._add_noise(count, span)
        columns = Columns(*sort(self._words, count, self._t, span))
        self._log, self._t = log, t_us
        return columns

    def _add_noise(self, count: int, span: int) -> int:
        number = int(self._rng.poisson(self.sensor.noise_hz * span * 1e-6 * self.height * self.width))
        if count + number > len(self._words):
            self._words = np.concatenate([self._words, np.empty(count + number, np.int64)])
        t = self._rng.integers(1, span + 1, number)
        y = self._rng.integers(0, self.height, number)
        x = self._rng.integers(0, self.width, number)
        p = self._rng.integers(0, 2, number)
        self._words[count : count + number] = t << 33 | y << 17 | x << 1 | p
        return count + number
