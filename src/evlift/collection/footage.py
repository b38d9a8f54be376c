"""What a simulated camera records: of a video shot by shot, and of a still picture on a random path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..events import Events, Frame
from ..simulate import Pair, Sensor, VideoSimulator, find_shots, iter_video, pair_from_image, shake
from .clips import truncation
from .items import fit
from .pictures import Picture, read_depth, read_labels, read_picture
from .transform import centre_view


class Footage:
    """A video seen by a simulated camera, a recording a shot. Its frames are read as needed, never all at once.

    Args: as in `build_from_video`. Raises InputError when the video cannot be read.
    """

    def __init__(
        self,
        video: Path,
        sensor: Sensor,
        seed: int,
        size: tuple[int, int] | None,
        shake_px: float,
        max_frames: int | None,
    ):
        times: list[int] = []

        def watched() -> Iterator[NDArray[np.uint8]]:
            for frame, t_us in iter_video(video, max_frames):
                times.append(t_us)
                yield frame

        self.shots = find_shots(watched())
        """Half-open frame ranges."""
        problem = truncation(video, len(times)) if max_frames is None else None
        self.problems = [problem] if problem else []
        self._times, self._sensor, self._seed, self._shake_px = np.array(times), sensor, int(seed), shake_px
        # Events and frames are written one after the other, and a long shot's do not fit in memory: hence two readers.
        self._seen, self._kept = _Reel(video, size), _Reel(video, size)
        self.height, self.width = self._seen.size

    def clock(self, shot: int) -> NDArray[np.int64]:
        """Times of a shot's frames in µs, the first at 0."""
        start, stop = self.shots[shot]
        return self._times[start:stop] - self._times[start]

    def record(self, shot: int) -> tuple[Iterable[Events], Iterable[Frame]]:
        """Events in order of time, and frames, made as they are asked for: first all of the one, then of the other."""
        drawn = int(np.random.default_rng([self._seed, shot]).integers(2**31))
        simulator = VideoSimulator(self.height, self.width, self._sensor, drawn, cuts=False)  # it sees one shot
        way = (self.shots[shot][0], self.clock(shot), self._shake_px, drawn)
        chunks = (simulator.push(frame, t) for frame, t in self._seen.clip(*way))
        return chunks, (Frame(t, frame) for frame, t in self._kept.clip(*way))


class _Reel:
    """A video that is read forwards, so that going through it shot by shot decodes it once."""

    def __init__(self, video: Path, size: tuple[int, int] | None):
        self._video, self._size = video, size
        self._frames, self._at = iter_video(video, size=size), 0
        first, _ = next(iter_video(video, 1, size))
        self.size = first.shape[:2]

    def clip(
        self, start: int, clock: NDArray[np.int64], shake_px: float, seed: int
    ) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """The frames from `start` on with the times `clock`, shaken by a hand."""
        if start < self._at:
            self._frames, self._at = iter_video(self._video, size=self._size), 0
        for t_us in clock.tolist():
            frame, _ = next(islice(self._frames, max(0, start - self._at), None))
            start = self._at = max(start, self._at) + 1
            yield (shake(frame[None], shake_px, seed, times_us=np.array([t_us]))[0] if shake_px else frame), t_us


def check_video(path: Path) -> None:
    """Raises InputError when there is no file of that name."""
    if not path.exists():
        raise InputError(f"{path} does not exist; give a video, or a folder of pictures")
    if not path.is_file():
        raise InputError(f"{path} is no file; give a video")


@dataclass(frozen=True)
class Still:
    """A picture and what lies beside it, cut and scaled to the sensor."""

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.integer] | None
    depth: NDArray[np.float32] | None

    def pair(self, variant: int, sensor: Sensor, seed: int, motion: Mapping[str, Any]) -> Pair:
        """The picture, and the events of a camera on the `variant`-th path to it."""
        drawn = int(np.random.default_rng([int(seed), variant, *self.name.encode()]).integers(2**31))
        depth = None if motion.get("kind") == "planar" else self.depth
        return pair_from_image(self.image, self.labels, depth, sensor, drawn, **motion)


def read_still(picture: Picture, size: tuple[int, int] | None) -> Still:
    """A picture with its maps: the largest centre crop of the aspect of `size`, resized to it; None: as it is.

    Raises:
        InputError: a file cannot be read, or a map has another size than the picture.
    """
    image, _ = read_picture(picture.path)
    height, width = full = image.shape[:2]
    labels = None if picture.labels is None else fit(picture.labels, read_labels(picture.labels), full, 1)
    depth = None if picture.depth is None else fit(picture.depth, read_depth(picture.depth), full, 1)
    if labels is not None and labels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{picture.labels} holds {labels.dtype} values; give classes of 8 or 16 bits")
    if size is not None:
        view = centre_view(height, width, size)
        image = view.image(image)
        labels = None if labels is None else view.labels(labels)
        depth = None if depth is None else view.labels(depth)
    return Still(picture.path.name, image, labels, depth)
