"""The event sensor: pixels that fire whenever their log intensity has changed by a contrast threshold.

The model is the one of Lichtsteiner 2008 as ESIM (Rebecq 2018) and v2e (Hu 2021) simulate it. Every pixel remembers the
log intensity at its last event. Between two frames its log intensity runs along a straight line; each time the line
passes the remembered level plus `threshold_on` (or minus `threshold_off`) the pixel emits an event, stamped with the
first microsecond at or after the crossing, and the level moves by that threshold. What is left over stays for the next
frame, so that slow changes are neither lost nor counted twice.

What makes a real sensor differ from that can be switched on, each by itself: see the fields of `Sensor`. In the order
in which they act: the response, the photoreceptor's low-pass, leaking, the threshold and its mismatch, the refractory
time; then jitter; then the events that no light made (background, shot noise, hot pixels); then the readout's queue;
then the clock's ticks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

Seed = int | Sequence[int] | np.random.Generator
"""What `numpy.random.default_rng` takes; the same seed gives the same events."""

LEAST_THRESHOLD = 1e-4
"""A thousandth of any real sensor's; much finer ones would drown in rounding, their events in no memory."""


@dataclass(frozen=True)
class Sensor:
    """What makes one event camera differ from another. As built by default, nothing but the two thresholds acts.

    I is a grey value in 0…255, taken as linear.

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
    DAVIS240b: 0.1 to 1 Hz), whatever the light. They leave the level and the refractory time alone."""
    response: str = "log"
    """To light: "log", or "lin-log", which is log(I) above `linlog_knee` and a straight line from 0 to there below it
    (as in v2e, Hu 2021) and has no use for `log_offset`."""
    linlog_knee: float = 20.0
    """Grey value below which "lin-log" is linear; over 1."""
    bandwidth_hz: float = 0.0
    """Cut-off frequency of the photoreceptor at I = 255; 0: no limit. A first-order low-pass dy/dt = 2πf (x − y) whose
    cut-off is proportional to intensity (Lichtsteiner 2008), but for a floor, about v2e's: f = bandwidth_hz ·
    (I/255 + 0.1) / 1.1. It is solved exactly from frame to frame, with x running straight and I that of the later one;
    in between y is taken to run straight, too."""
    leak_hz: float = 0.0
    """Rate of ON events of a pixel at rest: charge leaks through the reset switch, so that the level sinks by leak_hz ·
    threshold_on a second (Nozaki & Delbruck 2017); a pixel with another threshold fires at another rate. These events
    have exact times as any others, and the pixels begin at random phases."""
    shot_noise_hz: float = 0.0
    """Rate of random events, both polarities together, of a pixel in the dark: shot_noise_hz · (1 − 0.75 · I / 255), a
    quarter of it at I = 255 (as in v2e, Hu 2021, where it depends on the pixel's threshold, too). They leave the level
    and the refractory time alone; those of `noise_hz` add to them."""
    hot_share: float = 0.0
    """Probability that a pixel is hot. Which ones are is drawn once a camera from its seed."""
    hot_hz: float = 0.0
    """Mean rate of a hot pixel's random ON events; the rates are exponentially distributed over the hot pixels."""
    jitter_us: float = 0.0
    """Standard deviation of a Gaussian added to the times of all events but the random ones. Mirrored at the frames'
    times, so that events stay between the frames that made them."""
    tick_us: int = 1
    """Time stamps are rounded up to a multiple of this. What gets past a frame's time comes with the next."""
    readout_hz: float = 0.0
    """Most events a second that the readout passes; 0: no limit. One bus, first come, first served: it sends an event
    every 1 / readout_hz, and an event's time is when it is sent. What gets past a frame's time comes with the next."""
    readout_wait_us: int = 1000
    """An event that would have to wait for the bus for longer than this is lost, and `PixelArray.lost` counts it."""
    exposure_us: int = 0
    """Of the paired picture: how long its shutter is open, which blurs what moves; see `exposure.expose`."""
    gamma: float = 1.0
    """Of the paired picture: its grey values are I^(1 / gamma), with I in 0…1."""
    dynamic_range_db: float = 0.0
    """Of the paired picture: what lies this far (20·log10) under white is black; 0: no limit."""

    def __post_init__(self) -> None:
        for name in ("log_offset", "gamma"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ConfigError(f"sensor {name} is {value}; give a positive number")
        for name in ("threshold_on", "threshold_off"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= LEAST_THRESHOLD):
                raise ConfigError(
                    f"sensor {name} is {value}; give {LEAST_THRESHOLD} or more; real sensors have 0.1 to 0.5"
                )
        for name in (
            *("threshold_sigma", "refractory_us", "noise_hz", "bandwidth_hz", "leak_hz", "shot_noise_hz", "hot_share"),
            *("hot_hz", "jitter_us", "readout_hz", "readout_wait_us", "exposure_us", "dynamic_range_db"),
        ):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"sensor {name} is {value}; give 0 or more")
        if self.response not in ("log", "lin-log"):
            raise ConfigError(f"sensor response is {self.response!r}; give 'log' or 'lin-log'")
        if not 1 < self.linlog_knee <= 255:
            raise ConfigError(f"sensor linlog_knee is {self.linlog_knee}; give a grey value over 1, at most 255")
        if self.hot_share > 1:
            raise ConfigError(f"sensor hot_share is {self.hot_share}; give a share of the pixels, 0 to 1")
        if int(self.tick_us) != self.tick_us or self.tick_us < 1:
            raise ConfigError(f"sensor tick_us is {self.tick_us}; give whole microseconds, 1 or more")

    def log_intensity(self, grey: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The response to grey values, by default log(I / 255 + log_offset): float32, the shape of `grey`."""
        grey_levels = np.arange(256.0)
        if self.response == "log":
            table = np.log(grey_levels / 255 + self.log_offset)
        else:
            slope = math.log(self.linlog_knee) / self.linlog_knee
            table = np.where(grey_levels > self.linlog_knee, np.log(np.maximum(grey_levels, 1)), slope * grey_levels)
        return np.asarray(cv2.LUT(grey, table.astype(np.float32)), np.float32)

    def intensity(self, log: NDArray[np.floating]) -> NDArray[np.float64]:
        """I / 255 of log intensities, cut off at 0 and 1; the inverse of `log_intensity`."""
        log = np.asarray(log, np.float64)
        if self.response == "log":
            return np.clip(np.exp(log) - self.log_offset, 0, 1)
        slope = math.log(self.linlog_knee) / self.linlog_knee
        grey = np.where(log > math.log(self.linlog_knee), np.exp(log), log / slope)
        return np.clip(grey / 255, 0, 1)


SENSORS: dict[str, Sensor] = {
    "ideal": Sensor(),
    "davis240": Sensor(threshold_on=0.15, threshold_off=0.32, noise_hz=0.05),
    "davis346": Sensor(
        threshold_on=0.20,
        threshold_off=0.25,
        threshold_sigma=0.03,
        refractory_us=500,
        bandwidth_hz=300,
        leak_hz=0.1,
        shot_noise_hz=1.0,
        hot_share=1e-4,
        hot_hz=20,
        jitter_us=50,
        readout_hz=12e6,
        exposure_us=10_000,
        dynamic_range_db=55,
    ),
    "gen3-vga": Sensor(
        threshold_on=0.20,
        threshold_off=0.20,
        threshold_sigma=0.03,
        refractory_us=300,
        bandwidth_hz=800,
        leak_hz=0.05,
        shot_noise_hz=0.5,
        hot_share=5e-5,
        hot_hz=20,
        jitter_us=40,
        readout_hz=66e6,
        exposure_us=10_000,
    ),
    "gen4-hd": Sensor(
        threshold_on=0.20,
        threshold_off=0.20,
        threshold_sigma=0.02,
        refractory_us=200,
        bandwidth_hz=1000,
        leak_hz=0.05,
        shot_noise_hz=0.5,
        hot_share=2e-5,
        hot_hz=20,
        jitter_us=30,
        readout_hz=1.066e9,
        exposure_us=10_000,
    ),
    "noisy-night": Sensor(
        threshold_sigma=0.05,
        refractory_us=500,
        bandwidth_hz=30,
        leak_hz=0.1,
        shot_noise_hz=5.0,
        hot_share=5e-4,
        hot_hz=50,
        jitter_us=200,
        exposure_us=30_000,
        dynamic_range_db=40,
    ),
}
"""Presets by name.

`davis240`: thresholds at which simulated events agree best with one real DAVIS240b recording; checked on another
(`benchmarks/realism.py`).

`davis346`, `gen3-vga`, `gen4-hd`: plausible sensors at usual biases, none of them measured here. The readouts' rates
(12, 66 and 1066 million events a second), and the contrasts and latencies that guided thresholds and bandwidths, follow
the survey of Gallego 2020 from memory; a bandwidth is 1 / (2π · latency), of 200 and 150 µs. Mismatch,
refractory time and bandwidth of the DAVIS346 are about what v2e's command line begins with; its leak is of the order
that Nozaki & Delbruck 2017 describe, its frames' dynamic range of the order that its maker states. Everything else is a
guess. The frames are a DAVIS346's own; the others pair with a camera beside them.

`noisy-night`: a dim scene, to train against imperfect cameras. Thresholds, mismatch, bandwidth, leak and shot noise are
those of v2e's model "noisy"; the rest is a guess."""


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
