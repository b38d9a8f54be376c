"""What happens between two frames of a video: the small interface behind which any interpolator can be put.

    simulator = VideoSimulator(480, 640, interpolate="python:mine.between")   # a learned network of your own

An interpolator is a function `between(before, after)` of two frames, uint8 [H, W, 3] or [H, W] as the video gives them.
It returns one of

- optical flow from `before` to `after` and back, a tuple of two float32 [H, W, 2] (dx, dy) in pixels: each pixel then
  follows its flow, rendered in between as often as things move there (see `PixelArray.step`);
- frames between the two, uint8 [K, H, W, 3] or [K, H, W], evenly spaced in time: as many as it finds the motion needs;
- None: nothing moves; brightness runs straight from one frame to the other.
"""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..from_python import load_function
from .sensor import to_grey

Flows = tuple[NDArray[np.float32], NDArray[np.float32]]
Between = Flows | NDArray[np.uint8] | None
"""Flow forward and backward, frames in between, or nothing."""

_LEAST_SIDE = 16  # pixels; DIS refuses pictures that are smaller than its patches


class Interpolator(Protocol):
    """The interface; see the head of this module."""

    def __call__(self, before: NDArray[np.uint8], after: NDArray[np.uint8], /) -> Between:
        """What lies between two frames of one shot."""
        ...


class FlowInterpolator:
    """Dense inverse search (DIS; Kroeger 2016), both ways.

    Args:
        preset: OpenCV's. The fastest is the default: on real DAVIS recordings the slower ones change the agreement of
            the events by less than 0.002.
    """

    def __init__(self, preset: int = cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST) -> None:
        self._preset = preset
        self.forget()

    def forget(self) -> None:
        """Begin anew: OpenCV's DIS carries a little over from one pair of frames to the next."""
        self._dis: Any = cv2.DISOpticalFlow.create(self._preset)

    def __call__(self, before: NDArray[np.uint8], after: NDArray[np.uint8], /) -> Flows | None:
        """Flow forward and back, float32 [H, W, 2]; None where nothing moves or the picture is too small to tell."""
        before, after = to_grey(before), to_grey(after)
        if min(before.shape) < _LEAST_SIDE or np.array_equal(before, after):
            return None
        forward = self._dis.calc(before, after, None)
        backward = self._dis.calc(after, before, None)
        return np.asarray(forward, np.float32), np.asarray(backward, np.float32)


def get_interpolator(choice: bool | str | Interpolator) -> Interpolator | None:
    """The interpolator of that choice: True is optical flow, False none, a string `python:module.function` your own.

    Raises:
        ConfigError: a string of another form, or a function that cannot be imported.
    """
    if choice is True:
        return FlowInterpolator()
    if choice is False:
        return None
    return load_function(choice, "interpolator") if isinstance(choice, str) else choice


def check_between(between: Between, frame: NDArray[np.uint8]) -> Between:
    """What an interpolator gave, if it fits the frame [H, W, 3] or [H, W]; flows as float32.

    Raises:
        ConfigError: it gave something else; the message says what.
    """
    if between is None:
        return None
    height, width = frame.shape[:2]
    wanted = f"give two flows [{height}, {width}, 2], frames uint8 [K, {height}, {width}, 3] or None"
    if isinstance(between, tuple):
        flows = [np.ascontiguousarray(flow, np.float32) for flow in between]
        if len(flows) != 2 or any(flow.shape != (height, width, 2) for flow in flows):
            raise ConfigError(f"the interpolator gave flows of {[list(flow.shape) for flow in flows]}; {wanted}")
        if not all(np.isfinite(flow).all() for flow in flows):
            raise ConfigError("the interpolator gave a flow that is not finite; put 0 where it knows none")
        return flows[0], flows[1]
    if not (
        isinstance(between, np.ndarray)
        and between.dtype == np.uint8
        and between.shape[1:] in ((height, width), (height, width, 3))
    ):
        given = f"{between.dtype} {list(between.shape)}" if isinstance(between, np.ndarray) else type(between).__name__
        raise ConfigError(f"the interpolator gave {given}; {wanted}")
    return between
