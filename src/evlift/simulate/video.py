"""Events from video: simulated between its frames, in one call or frame by frame."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..events import Events
from .interpolate import FlowInterpolator, Interpolator, check_between, get_interpolator
from .motion import matrices, shake_poses
from .pixels import PixelArray
from .read import CutFinder
from .readout import Columns
from .sensor import SENSORS, Seed, Sensor, get_sensor, to_grey
from .steady import Steady


class VideoSimulator:
    """An event camera that watches a video, frame by frame; what it remembers does not grow with the video.

    Args:
        height, width: of the frames.
        sensor: preset or sensor.
        seed: of the sensor's mismatch and noise.
        interpolate: what lies between two frames. True follows the optical flow where things move by more than a pixel;
            `python:module.function`, or the function itself, is an interpolator of your own (see `interpolate`). With
            False brightness runs straight from one frame to the other: an edge that moves by several pixels fades out
            here and in there, and fires at all the wrong times.
        cuts: find where another shot begins, and start anew there: its first frame has no events, like the video's.
        steady: undo jumps of exposure and black level, which the video's own camera made and an event sensor would not
            have seen (see `steady`). None: for the presets that model a camera, not for `ideal` or your own sensor.

    Raises:
        ConfigError: no such sensor or interpolator.
    """

    def __init__(
        self,
        height: int,
        width: int,
        sensor: str | Sensor = "ideal",
        seed: Seed = 0,
        interpolate: bool | str | Interpolator = True,
        *,
        cuts: bool = True,
        steady: bool | None = None,
    ) -> None:
        self.sensor = get_sensor(sensor)
        self._pixels = PixelArray(height, width, self.sensor, seed)
        self.height, self.width = self._pixels.height, self._pixels.width
        self._between = get_interpolator(interpolate)
        if steady is None:
            steady = self.sensor in [preset for name, preset in SENSORS.items() if name != "ideal"]
        self._steady = Steady() if steady else None
        self._cuts = CutFinder() if cuts else None
        self._before: NDArray[np.uint8] | None = None  # the frame before, in the scale of brightness that is kept
        self._t = 0

    def push(self, frame: NDArray[np.uint8], t_us: int, cut: bool | None = None) -> Events:
        """Events in (time of the frame before, t_us]; none for the first frame of a shot.

        Args:
            frame: uint8 RGB [H, W, 3] or grey [H, W].
            t_us: its time, later than the one before; any spacing.
            cut: whether a shot begins with this frame, when you know better (`find_shots` does).

        Raises:
            InputError: a frame of another kind or size, or a time that does not rise.
            ConfigError: an interpolator of your own gave what cannot be used.
        """
        columns = self.columns(frame, t_us, cut)
        return Events(columns.x, columns.y, columns.t, columns.p, self.height, self.width)

    def columns(self, frame: NDArray[np.uint8], t_us: int, cut: bool | None = None) -> Columns:
        """As `push`, but bare columns."""
        if frame.dtype != np.uint8 or frame.shape not in ((self.height, self.width, 3), (self.height, self.width)):
            expected = f"uint8 [{self.height}, {self.width}, 3] or [{self.height}, {self.width}]"
            raise InputError(f"a frame is {frame.dtype} {list(frame.shape)}; give {expected}")
        frame, t_us = frame.copy(), int(t_us)  # a reader may reuse its buffer
        before = self._before
        found = self._cuts.push(frame) if self._cuts else False
        if before is None or (found if cut is None else cut):
            return self._begin(frame, t_us)
        return self._watch(before, frame, t_us)

    def _begin(self, frame: NDArray[np.uint8], t_us: int) -> Columns:
        if self._before is not None and t_us <= self._t:
            raise InputError(f"a frame at {t_us} µs follows one at {self._t} µs; give frames with rising times")
        self._pixels.reset()
        if self._steady:
            self._steady = Steady()
        if isinstance(self._between, FlowInterpolator):
            self._between.forget()
        self._before, self._t = frame, t_us
        return self._pixels.step(self._log(frame), t_us)

    def _watch(self, before: NDArray[np.uint8], frame: NDArray[np.uint8], t_us: int) -> Columns:
        """Events from the frame before to this one."""
        parts = []
        if self._steady and before.ndim == frame.ndim:
            scaled, frame = self._steady(before, frame)
            if scaled is not before and t_us > self._t + 1:  # all that the pixels remember is in the other scale
                before = scaled
                self._t += 1
                self._pixels.reset()
                parts.append(self._pixels.step(self._log(before), self._t))
        between = None
        if self._between:
            between = self._between(before, frame)
            if not isinstance(self._between, FlowInterpolator):
                between = check_between(between, frame)
        if isinstance(between, np.ndarray):
            # Evenly spaced; where a frame falls on the microsecond of its neighbour, the later one counts.
            times = self._t + (t_us - self._t) * np.arange(1, len(between) + 1) // (len(between) + 1)
            last = np.append(np.diff(times) > 0, times[-1:] < t_us) & (times > self._t)
            parts += [self._pixels.step(self._log(between[k]), int(times[k])) for k in np.flatnonzero(last)]
        flows = between if isinstance(between, tuple) else None
        parts.append(self._pixels.step(self._log(frame), t_us, flows))
        self._before, self._t = frame, t_us
        return Columns.join(parts)

    def _log(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.sensor.log_intensity(to_grey(frame))


def events_from_video(
    frames: NDArray[np.uint8],
    times_us: NDArray[np.int64],
    sensor: str | Sensor = "ideal",
    seed: Seed = 0,
    interpolate: bool | str | Interpolator = True,
    *,
    cuts: bool = True,
    steady: bool | None = None,
) -> Events:
    """The events of an event camera that watches the whole video.

    Args:
        frames: uint8 RGB [T, H, W, 3] or grey [T, H, W].
        times_us: time of each frame, int64 [T], rising.
        sensor, seed, interpolate, cuts, steady: as in `VideoSimulator`, whose events one after the other are these.

    Raises:
        InputError: no frames, another kind or shape, or times that do not rise or do not match.
        ConfigError: no such sensor or interpolator, or one that gave what cannot be used.
    """
    frames, times = np.asarray(frames), np.asarray(times_us)
    _check_frames(frames)
    if times.shape != (len(frames),) or not np.issubdtype(times.dtype, np.integer):
        given = f"{times.dtype} {list(times.shape)}"
        raise InputError(f"{len(frames)} frames come with times {given}; give one integer a frame")
    height, width = frames.shape[1:3]
    simulator = VideoSimulator(height, width, sensor, seed, interpolate, cuts=cuts, steady=steady)
    events = Columns.join([simulator.columns(frame, int(t)) for frame, t in zip(frames, times, strict=True)])
    return Events(events.x, events.y, events.t, events.p, height, width)


def shake(
    frames: NDArray[np.uint8],
    pixels: float,
    seed: Seed = 0,
    *,
    hz: float = 2.0,
    times_us: NDArray[np.int64] | None = None,
) -> NDArray[np.uint8]:
    """The video as a hand-held camera would have taken it: a camera at rest makes events only where things move.

    Args:
        frames: uint8 [T, H, W, 3] or [T, H, W].
        pixels: amplitude of the motion in x and y.
        seed: of the motion.
        hz: its middle frequency.
        times_us: time of each frame, int64 [T]; 25 frames a second when left out.

    Returns:
        uint8, the shape of `frames`; what comes in over the border is a mirror image.

    Raises:
        InputError: no frames, or times that do not match them.
    """
    frames = np.asarray(frames)
    _check_frames(frames)
    times = np.arange(len(frames)) * 40_000 if times_us is None else np.asarray(times_us)
    if times.shape != (len(frames),):
        raise InputError(f"{len(frames)} frames come with {times.size} times; give one a frame")
    height, width = frames.shape[1:3]
    out = np.empty_like(frames)
    ways = matrices(shake_poses(times, pixels, seed, hz), height, width)
    for frame, way, target in zip(frames, ways, out, strict=True):
        target[...] = cv2.warpAffine(
            frame, way, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
    return out


def _check_frames(frames: NDArray[np.uint8]) -> None:
    grey, colour = frames.ndim == 3, frames.ndim == 4 and frames.shape[3] == 3
    if frames.dtype != np.uint8 or not (grey or colour) or not frames.size:
        given = f"{frames.dtype} {list(frames.shape)}"
        raise InputError(f"a video is {given}; give uint8 [T, H, W, 3] or [T, H, W] with at least one frame")
