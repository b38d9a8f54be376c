"""Frames in one scale of brightness: undoing the sudden changes that a video's own camera makes.

A camera that resets its exposure or black level between two frames, or stretches every frame to its own darkest and
brightest value, makes the whole picture jump. An event sensor that watches the scene sees none of it: without this,
every pixel would fire. (In two real DAVIS240b recordings of 20 and 16 frames 1 and 4 frames are off, by 30 to 60 grey
levels of 255.)

A jump is found by a straight line between the grey values of two coarse, hence nearly motionless, versions of the
frames, which explains most of what changed. It is then undone by a tone curve, measured along the optical flow: the
median grey value of one frame in every bin of grey values of the other. The frame of lower contrast takes the other's
scale, so that the shades which either still tells apart are not lost. Image columns far off the curve (a readout that
failed) are filled in from the other frame, along the flow.

A lamp that goes on in the scene looks the same to a camera, and to this: leave it out where light changes suddenly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .sensor import to_grey

Frame = NDArray[np.uint8]

_CELL = 6  # pixels; side of a cell of the coarse frames
_LEAST_CELLS = 60  # fewer tell nothing
_JUMP = 6.0  # grey levels; the least median change of a cell that counts
_EXPLAINED = 3.0  # … and how many times less of it the line must leave
_MOST_GAIN = 4.0  # of the line, either way
_LOW, _HIGH = 5, 250  # grey values below and above are clipped, or near it
_BIN = 8  # grey levels; width of a bin of the tone curve
_FULL = 0.0025  # share of the pixels that a bin needs
_COLUMN = 10.0  # grey levels; the median error of a column that failed
_MOST_COLUMNS = 0.25  # share of the columns beyond which they did not fail: the curve is wrong


@dataclass(frozen=True)
class Curve:
    """Grey values of one frame in another's scale."""

    table: NDArray[np.uint8]
    """[256]"""
    gain: float
    """Slope of the line that fits it; over 1 raises contrast."""

    def __call__(self, frame: Frame) -> Frame:
        """The frame, grey or RGB, in the other scale."""
        return np.asarray(cv2.LUT(frame, self.table), np.uint8)


class Steady:
    """Keeps the frames of one shot in one scale of brightness; remembers no more than the last curve."""

    def __init__(self) -> None:
        self._curve: Curve | None = None
        self._dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def __call__(self, before: Frame, after: Frame) -> tuple[Frame, Frame]:
        """Both frames in one scale.

        Args:
            before: the frame before, in the scale that this gave it; uint8 [H, W, 3] or [H, W].
            after: the next frame as the video gives it, of the same shape.

        Returns:
            `before` and `after`, the very arrays where nothing jumps. `before` is another one only where `after` shows
            more contrast: the frames from there on keep the scale of `after`.
        """
        coarse_before, coarse_after = _coarse(before), _coarse(after)
        if len(coarse_before) < _LEAST_CELLS or _change(coarse_after, coarse_before) < _JUMP:
            self._curve = None
            return before, after
        # A change for good is measured once: curves on curves would drift.
        if self._curve and _change(_coarse(self._curve(after)), coarse_before) < _JUMP:
            return before, self._mend(self._curve(after), before)
        gain, offset = _line(coarse_after, coarse_before)
        left = _change(gain * coarse_after + offset, coarse_before)
        if not 1 / _MOST_GAIN < gain < _MOST_GAIN or left > _change(coarse_after, coarse_before) / _EXPLAINED:
            self._curve = None
            return before, after
        if gain < 1:
            self._curve = None
            curve = self._measure(before, after, 1 / gain, -offset / gain)
            return self._mend(curve(before), after), after
        self._curve = self._measure(after, before, gain, offset)
        return before, self._mend(self._curve(after), before)

    def _measure(self, source: Frame, target: Frame, gain: float, offset: float) -> Curve:
        """The tone curve from `source` to `target`, from a first line between them."""
        source, target = to_grey(source), to_grey(target)
        for _ in range(2):  # the better the line, the better the flow, and the other way round
            near = np.clip(gain * source.astype(np.float32) + offset, 0, 255).astype(np.uint8)
            there = self._warp(target, near)
            gain, offset = _line(source.ravel().astype(np.float64), there.ravel().astype(np.float64))
        good = ~_failed(gain * source.astype(np.float32) + offset, there)
        x, y = source[:, good].ravel(), there[:, good].ravel()
        kept = (x < _HIGH) | (y >= _HIGH)
        x, y = x[kept], y[kept]
        levels, values = [], []
        for low in range(0, 256, _BIN):
            inside = (x >= low) & (x < low + _BIN)
            if np.count_nonzero(inside) > _FULL * x.size:
                levels.append(float(np.median(x[inside])))
                values.append(float(np.median(y[inside])))
        if not levels:
            levels, values = [0.0], [offset]
        # Past the ends it goes on as the line does.
        knots = np.array([levels[0] - 255, *levels, levels[-1] + 255])
        heights = np.maximum.accumulate([values[0] - 255 * gain, *values, values[-1] + 255 * gain])
        return Curve(np.clip(np.round(np.interp(np.arange(256), knots, heights)), 0, 255).astype(np.uint8), gain)

    def _mend(self, frame: Frame, other: Frame) -> Frame:
        """The frame with failed columns filled in from the other one; both in one scale."""
        there = self._warp(other, frame)
        failed = _failed(to_grey(frame).astype(np.float32), to_grey(there))
        return np.where(failed[:, None] if frame.ndim == 3 else failed, there, frame)

    def _warp(self, frame: Frame, onto: Frame) -> Frame:
        """`frame` as it looks from where `onto` was taken; both in one scale."""
        flow = np.asarray(self._dis.calc(to_grey(onto), to_grey(frame), None), np.float32)
        height, width = flow.shape[:2]
        x = flow[..., 0] + np.arange(width, dtype=np.float32)
        y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        return np.asarray(cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _coarse(frame: Frame) -> NDArray[np.float64]:
    """Mean grey values of the cells, [N]; none of a small frame, of which they would tell nothing."""
    height, width = frame.shape[0] // _CELL, frame.shape[1] // _CELL
    if height * width < _LEAST_CELLS or min(height, width) < 3:
        return np.empty(0)
    small = np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return to_grey(small).ravel().astype(np.float64)


def _change(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.median(np.abs(a - b)))


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Gain and offset of the line from x to y [N]; (0, 0) where there is none.

    The reduced major axis, which treats x and y alike (least squares flattens when x is noisy), each point weighed by
    the inverse of its distance and those far off not at all: edges that moved are outliers.
    """
    kept = (x > _LOW) & (x < _HIGH) & (y > _LOW) & (y < _HIGH)
    x, y = x[kept], y[kept]
    if x.size < _LEAST_CELLS // 2:
        return 0.0, 0.0
    weight = np.ones_like(x)
    gain = offset = 0.0
    for _ in range(10):
        total = weight.sum()
        mean_x, mean_y = (weight * x).sum() / total, (weight * y).sum() / total
        var_x, var_y = (weight * (x - mean_x) ** 2).sum(), (weight * (y - mean_y) ** 2).sum()
        together = (weight * (x - mean_x) * (y - mean_y)).sum()
        if var_x < 1 * total or var_y < 1 * total or together <= 0:  # less than a grey level: nothing to fit
            return 0.0, 0.0
        gain = float(np.sqrt(var_y / var_x))
        offset = float(mean_y - gain * mean_x)
        distance = np.abs(y - gain * x - offset) / np.sqrt(gain)
        weight = np.where(distance > 3 * np.median(distance) + 1, 0, 1 / np.maximum(distance, 0.5))
    return gain, offset


def _failed(frame: NDArray[np.float32], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Columns [W] in which the frame is far from the other one; none when they are many."""
    failed = np.abs(np.median(frame - other, axis=0)) > _COLUMN
    return failed if failed.mean() <= _MOST_COLUMNS else np.zeros_like(failed)
