"""Events from video: simulated between its frames, in one call or frame by frame."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..events import Events
from .motion import matrices, shake_poses
from .sensor import Columns, PixelArray, Seed, Sensor, get_sensor, to_grey

_LEAST_SIDE = 16  # pixels; DIS refuses pictures that are smaller than its patches


class VideoSimulator:
    """An event camera that watches a video, frame by frame; what it remembers does not grow with the video.

    Args:
        height, width: of the frames.
        sensor: preset or sensor.
        seed: of the sensor's mismatch and noise.
        interpolate: follow the optical flow between frames where things move by more than a pixel. Without it an edge
            that moves by several pixels fades out here and in there, and fires at all the wrong times.
    """

    def __init__(
        self, height: int, width: int, sensor: str | Sensor = "ideal", seed: Seed = 0, interpolate: bool = True
    ) -> None:
        self.sensor = get_sensor(sensor)
        self._pixels = PixelArray(height, width, self.sensor, seed)
        self.height, self.width = self._pixels.height, self._pixels.width
        # DIS at its fastest: on real DAVIS recordings slower presets gave events no more realistic.
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST) if interpolate else None
        self._grey: NDArray[np.uint8] | None = None

    def push(self, frame: NDArray[np.uint8], t_us: int) -> Events:
        """Events in (time of the frame before, t_us]; none for the first frame.

        Args:
            frame: uint8 RGB [H, W, 3] or grey [H, W].
            t_us: its time, later than the one before.

        Raises:
            InputError: a frame of another kind or size, or a time that does not rise.
        """
        columns = self.columns(frame, t_us)
        return Events(columns.x, columns.y, columns.t, columns.p, self.height, self.width)

    def columns(self, frame: NDArray[np.uint8], t_us: int) -> Columns:
        """As `push`, but bare columns."""
        if frame.dtype != np.uint8 or frame.shape not in ((self.height, self.width, 3), (self.height, self.width)):
            expected = f"uint8 [{self.height}, {self.width}, 3] or [{self.height}, {self.width}]"
            raise InputError(f"a frame is {frame.dtype} {list(frame.shape)}; give {expected}")
        grey = to_grey(frame)
        flows = None if self._flow is None or self._grey is None else self._flow_between(self._grey, grey)
        columns = self._pixels.step(self.sensor.log_intensity(grey), t_us, flows)
        self._grey = grey
        return columns

    def _flow_between(
        self, before: NDArray[np.uint8], after: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Optical flow forward and back, float32 [H, W, 2]; None where nothing moves or DIS cannot tell."""
        if min(before.shape) < _LEAST_SIDE or np.array_equal(before, after):
            return None
        forward = self._flow.calc(before, after, None)
        backward = self._flow.calc(after, before, None)
        return np.asarray(forward, np.float32), np.asarray(backward, np.float32)


def events_from_video(
    frames: NDArray[np.uint8],
    times_us: NDArray[np.int64],
    sensor: str | Sensor = "ideal",
    seed: Seed = 0,
    interpolate: bool = True,
) -> Events:
    """The events of an event camera that watches the whole video.

    Args:
        frames: uint8 RGB [T, H, W, 3] or grey [T, H, W].
        times_us: time of each frame, int64 [T], rising.
        sensor, seed, interpolate: as in `VideoSimulator`, whose events one after the other are exactly these.

    Raises:
        InputError: no frames, another kind or shape, or times that do not rise or do not match.
    """
    frames, times = np.asarray(frames), np.asarray(times_us)
    _check_frames(frames)
    if times.shape != (len(frames),) or not np.issubdtype(times.dtype, np.integer):
        given = f"{times.dtype} {list(times.shape)}"
        raise InputError(f"{len(frames)} frames come with times {given}; give one integer a frame")
    height, width = frames.shape[1:3]
    simulator = VideoSimulator(height, width, sensor, seed, interpolate)
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
