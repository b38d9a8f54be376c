"""The pixels of a simulated event camera: frames in, events out.

The model is told in evlift.simulate.sensor; here is what its pixels remember from frame to frame.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .kernels import cross, cross_along, low_pass, set_bounds
from .noise import Noise, shift
from .readout import Columns, Readout, sort
from .sensor import Seed, Sensor, get_sensor

LONGEST_STEP_US = 2**30 - 1
"""Most microseconds (about 18 minutes) between two frames: the time within a step has 30 bits of an event's word."""

_NEVER = -(2**62)  # of a pixel that has not fired yet; far enough in the past, and no overflow when subtracted
_ENTRIES = 1024  # of a table over log intensity: steps of a few thousandths of the intensity


class PixelArray:
    """The pixels of one camera and what they remember between frames.

    Args:
        height, width: size in pixels, at most 65536 each.
        sensor: preset or sensor.
        seed: of the mismatch and of all noise.

    Attributes:
        on, off: thresholds, float32 [H, W].
        noise: what makes random events; knows the hot pixels.
    """

    def __init__(self, height: int, width: int, sensor: str | Sensor = "ideal", seed: Seed = 0) -> None:
        if not (0 < height <= 65536 and 0 < width <= 65536):
            raise InputError(f"a sensor of {height}×{width} pixels cannot be simulated; give sides of 1 to 65536")
        self.height, self.width = int(height), int(width)
        self.sensor = sensor = get_sensor(sensor)
        self._rng = np.random.default_rng(seed)
        self.on = self._thresholds(sensor.threshold_on)
        self.off = self._thresholds(sensor.threshold_off)
        self._least = float(min(self.on.min(), self.off.min()))
        self._last = np.full((height, width) if sensor.refractory_us else (1, 1), _NEVER, np.int64)
        self._level: NDArray[np.float64] | None = None  # [H, W]; float64: ten thousand thresholds add up
        self._lower, self._upper = np.empty((2, self.height, self.width), np.float32)  # see kernels
        self._log: NDArray[np.float32] | None = None  # [H, W] of the frame before
        self._seen: NDArray[np.float32] | None = None  # [H, W]: the same after the low-pass
        self._spare: NDArray[np.float32] | None = None  # [H, W]: its next place
        self._t = self._start = 0
        self._words = np.empty(max(1024, height * width // 4), np.int64)
        # What depends on the light is looked up in tables over log intensity.
        ends = sensor.log_intensity(np.array([[0, 255]], np.uint8))[0]
        self._scale = ends[0], np.float32((_ENTRIES - 1) / (ends[1] - ends[0]))
        light = sensor.intensity(np.linspace(ends[0], ends[1], _ENTRIES))
        self._corner = 2e-6 * math.pi * sensor.bandwidth_hz * (light + 0.1) / 1.1  # 2πf in 1/µs, float64 [K]
        self._curves_of, self._curves = (0, 0), (np.empty((0, 1), np.float32), np.empty((0, 1), np.float32))
        shot_hz = sensor.shot_noise_hz * (1 - 0.75 * light)
        hot = sensor.hot_share, sensor.hot_hz
        self.noise = Noise(self._rng, self.height, self.width, sensor.noise_hz, shot_hz, *self._scale, *hot)
        self._readout = Readout(sensor.readout_hz, sensor.readout_wait_us, sensor.tick_us)

    @property
    def lost(self) -> int:
        """Number of events that the readout has lost so far."""
        return self._readout.lost

    def _thresholds(self, nominal: float) -> NDArray[np.float32]:
        shape = (self.height, self.width)
        if not self.sensor.threshold_sigma:
            return np.full(shape, nominal, np.float32)
        spread = np.float32(self.sensor.threshold_sigma) * self._rng.standard_normal(shape, dtype=np.float32)
        return np.maximum(np.float32(nominal) + spread, np.float32(nominal / 4))

    def reset(self) -> None:
        """Forget the scene, as at a cut: the next frame is a first one again, at a time that is later.

        The camera stays the same: thresholds, hot pixels, and where its random numbers have got to.
        """
        self._level = None

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
            InputError: a time that does not rise, a gap over LONGEST_STEP_US, a frame or flow of another size, no
                positive step_px, or a frame that is not finite, after which the pixels are of no use until `reset`.
        """
        if log.shape != (self.height, self.width):
            raise InputError(f"a frame has shape {log.shape}, the sensor {self.height}×{self.width}; resize it first")
        log = np.ascontiguousarray(log, np.float32)
        t_us = int(t_us)
        if self._log is not None and t_us <= self._t:
            raise InputError(f"a frame at {t_us} µs follows one at {self._t} µs; give frames with rising times")
        if flows is not None and any(flow.shape != (*log.shape, 2) for flow in flows):
            raise InputError(f"flows have shapes {[flow.shape for flow in flows]}; give two of {(*log.shape, 2)}")
        if not step_px > 0:
            raise InputError(f"step_px is {step_px}; give a positive number of pixels")
        if self._level is None:
            return self._begin(log, t_us)
        span = t_us - self._t
        if span > LONGEST_STEP_US:
            raise InputError(f"{span / 1e6:.0f} s lie between two frames; cut the video there")
        count = self._cross(log, span, flows, float(step_px), max(int(max_steps), 1))
        if count < 0:
            raise _not_finite()
        if self.sensor.jitter_us:
            shift(self._words, count, self._rng, float(self.sensor.jitter_us), span)
        if self.noise:
            self._words, count = self.noise.add(self._words, count, log, span)
        columns = Columns(*sort(self._words, count, self._t, span))
        if self._readout:
            columns = self._readout.send(columns, self._t, t_us)
        self._log, self._t = log, t_us
        return columns

    def _begin(self, log: NDArray[np.float32], t_us: int) -> Columns:
        if not np.isfinite(log).all():
            raise _not_finite()
        self._level = log.astype(np.float64)
        if self.sensor.leak_hz:  # as if it had leaked for long: anywhere between one ON event and the next
            self._level -= self._rng.random(log.shape, np.float32) * self.on
        set_bounds(self._level, self.on, self.off, self._lower, self._upper)
        columns = Columns.join([])
        if self._readout and self._log is not None:  # a cut: what was late comes now
            columns = self._readout.send(columns, self._t, t_us)
        self._log = self._seen = log
        if self.sensor.bandwidth_hz:
            self._seen, self._spare = log.copy(), np.empty_like(log)
        self._t = self._start = t_us
        return columns

    def _cross(
        self,
        log: NDArray[np.float32],
        span: int,
        flows: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
        step_px: float,
        max_steps: int,
    ) -> int:
        """Write the crossings up to `log` to the buffer of words, and bring the pixels up to date; their number."""
        lifts = self._lift(self._t), self._lift(self._t + span)
        bounds = self._level, self._lower, self._upper, self.on, self.off, self._least
        pixels = *lifts, *bounds, self._last, self._t, span, int(self.sensor.refractory_us), self._words
        slow = bool(self.sensor.bandwidth_hz)
        if flows is not None:
            tables = self._low_pass(span, max_steps if slow else 0)
            path = *flows, step_px, max_steps, self._seen, *self._scale, *tables
            self._words, count = cross_along(self._log, log, *path, *pixels)
            self._seen = self._seen if slow else log
        elif slow:
            blend, lag = self._low_pass(span, 1)
            low_pass(self._log, log, self._seen, *self._scale, blend[0], lag[0], self._spare)
            self._words, count = cross(self._seen, self._spare, *pixels)
            self._seen, self._spare = self._spare, self._seen
        else:
            self._words, count = cross(self._log, log, *pixels)
            self._seen = log
        return int(count)

    def _lift(self, t_us: int) -> float:
        """What leaking has added by then: a level that sinks is kept as log intensity that rises, alike for all."""
        return self.sensor.leak_hz * self.sensor.threshold_on * 1e-6 * (t_us - self._start)

    def _low_pass(self, span: int, most: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The tables that `kernels.low_pass` takes, for 1 … `most` equal parts of `span` µs: float32 [most, K] each."""
        if (span, most) != self._curves_of:
            turn = self._corner * (span / np.arange(1, most + 1)[:, None])
            gone = -np.expm1(-turn)
            self._curves = gone.astype(np.float32), (1 - gone / turn).astype(np.float32)
            self._curves_of = span, most
        return self._curves


def _not_finite() -> InputError:
    return InputError(
        "a frame's log intensity is not finite or beyond all measure; give pictures without NaN and infinity"
    )
