"""A video as a source of pairs: its frames where any worker can get at them, and which window belongs to which frame.

    DIR/frames.bin    the frames as JPEGs, one after the other
    DIR/clips.json    of which video, with which settings; their offsets and times; the shots. Written last

A video file is made to be played from the start: to seek to a frame takes up to a second. So it is decoded once, no
larger than the items need it, and then read at random.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from ..errors import ConfigError, InputError, RunError
from ..files import alone, holds_others, write_atomic
from ..simulate import find_shots, iter_video
from .transform import centre_view, check_scale, check_size

FORMAT, VERSION = "evlift-clips", 1
QUALITY = 95
"""Of the JPEGs, without chroma subsampling: their errors are of one grey level, far under any threshold."""
FEWEST = 0.98
"""A file that gives fewer than this share of the frames that it announces is called truncated."""


@dataclass(frozen=True, eq=False)
class Film:
    """The frames of a video on the disk, each a few milliseconds away. Made by `open_film`; picklable."""

    folder: Path
    height: int
    width: int
    reduction: float
    """How many pixels of the video make one of these."""
    times: NDArray[np.int64]
    """µs, of each frame."""
    offsets: NDArray[np.int64]
    """Where each frame begins in `frames.bin`, and where the last one ends."""
    shots: Sequence[tuple[int, int]]
    problems: Sequence[str]

    def frame(self, index: int) -> NDArray[np.uint8]:
        """One frame, uint8 RGB [height, width, 3]. Raises InputError when the file is damaged or gone."""
        path = self.folder / "frames.bin"
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        try:
            with open(path, "rb") as file:
                file.seek(start)
                return simplejpeg.decode_jpeg(file.read(stop - start))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} lacks frame {index} ({error}); remove {self.folder} and start again") from error


@dataclass(frozen=True, eq=False)
class Clips:
    """Pairs of a film: a frame, and the window of events that ends with it. Arrays [N]; see `choose_clips`."""

    film: Film
    frame: NDArray[np.int64]
    first: NDArray[np.int64]
    """The last frame at or before the window's start: from here on the camera watches."""
    shot: NDArray[np.int64]
    window_us: int
    shake_px: float

    def __len__(self) -> int:
        return len(self.frame)


def open_film(
    video: str | Path,
    folder: str | Path | None = None,
    size: tuple[int, int] | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
    max_frames: int | None = None,
) -> Film:
    """Decode a video once, or open what an earlier call has left in `folder`.

    Args:
        video: a file that OpenCV can read.
        folder: where the frames go; None: a temporary folder, gone with the film.
        size, scale: of the items and of their crops: frames are kept so large that the smallest crop has an item's
            pixels. None keeps them whole.
        max_frames: leave out the frames after so many.

    Raises:
        InputError: no video that can be read.
        RunError: `folder` holds another film or something else, or cannot be written.
    """
    video = Path(video)
    try:
        facts = os.stat(video)
    except OSError as error:
        raise InputError(f"cannot read {video} ({error.strerror}); check the path") from error
    settings = {
        "video": video.name,
        "bytes": facts.st_size,
        "modified_ns": facts.st_mtime_ns,
        "size": None if size is None else list(check_size(size)),
        "scale": check_scale(scale)[0],
        "max_frames": max_frames,
    }
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="evlift-clips-"))
        owner = partial(_remove, folder, os.getpid())
        try:
            film = _film(video, folder, settings)
        except BaseException:
            owner()
            raise
        weakref.finalize(film, owner)
        return film
    return _film(video, Path(folder), settings)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked worker has a copy of the film, but not the folder
        shutil.rmtree(folder, ignore_errors=True)


def _film(video: Path, folder: Path, settings: dict[str, Any]) -> Film:
    if (found := _read(folder, settings)) is not None:  # without the lock: many processes may open it at once
        return found
    with alone(folder):
        if (found := _read(folder, settings)) is None:
            if holds_others(folder, "frames.bin"):
                raise RunError(f"{folder} is not empty and holds no film; give another folder")
            _decode(video, folder, settings)
            found = _read(folder, settings)
    assert found is not None
    return found


def _decode(video: Path, folder: Path, settings: dict[str, Any]) -> None:
    times: list[int] = []
    offsets = [0]
    height = width = 0
    reduction = 1.0
    size = settings["size"]

    def kept(file) -> Iterator[NDArray[np.uint8]]:
        nonlocal height, width, reduction
        for frame, t_us in iter_video(video, settings["max_frames"]):
            full = frame.shape[:2]
            # The largest box of the items' aspect, times the smallest side of a crop, is to have an item's pixels.
            share = 1.0 if size is None else min(1.0, max(size[0] / full[0], size[1] / full[1]) / settings["scale"])
            height, width = (math.ceil(side * share) for side in full)
            reduction = full[0] / height
            small = centre_view(full[0], full[1], (height, width)).image(frame)
            data = simplejpeg.encode_jpeg(small, quality=QUALITY, colorsubsampling="444")
            file.write(data)
            times.append(t_us)
            offsets.append(offsets[-1] + len(data))
            yield small

    part = folder / f".frames.bin.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            shots = find_shots(kept(file))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, folder / "frames.bin")
    except OSError as error:
        raise RunError(f"cannot write the frames of {video} in {folder} ({error.strerror}); make room") from error
    finally:
        part.unlink(missing_ok=True)
    problem = truncation(video, len(times)) if settings["max_frames"] is None else None
    info = {"format": FORMAT, "version": VERSION, "settings": settings, "height": height, "width": width}
    info |= {"reduction": reduction, "shots": shots, "problems": [problem] if problem else []}
    info |= {"times_us": times, "offsets": offsets}
    write_atomic(folder / "clips.json", json.dumps(info).encode())


def _read(folder: Path, settings: dict[str, Any]) -> Film | None:
    file = folder / "clips.json"
    try:
        info = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{file} is damaged; remove {folder} and start again") from error
    if not isinstance(info, dict) or (info.get("format"), info.get("version")) != (FORMAT, VERSION):
        raise RunError(f"{file} is not of this version of evlift; give another folder")
    if info["settings"] != settings:
        changed = [k for k in settings if info["settings"].get(k) != settings[k]]
        raise RunError(
            f"{folder} holds the frames of another video or size ({', '.join(changed)}); give another folder"
        )
    arrays = (np.array(info["times_us"], np.int64), np.array(info["offsets"], np.int64))
    shots = [(int(start), int(stop)) for start, stop in info["shots"]]
    problems = list(info["problems"])
    return Film(folder, info["height"], info["width"], info["reduction"], *arrays, shots, problems)


def truncation(video: Path, frames: int) -> str | None:
    """A line on a video that stops before the number of frames that its header announces; None for a whole one."""
    capture = cv2.VideoCapture(str(video))
    announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    if not (math.isfinite(announced) and frames < FEWEST * announced):
        return None
    return f"{video.name} stops after {frames} of {announced:.0f} frames: it is damaged or cut off there"


def choose_clips(
    film: Film,
    split: str | None = None,
    *,
    window_us: int = 100_000,
    shake_px: float = 6.0,
    val_fraction: float = 0.2,
    held_out_shots: Sequence[int] = (),
) -> Clips:
    """The pairs of one split, by the rule of `build_from_video`; None: all of them, whatever their split.

    A pair is a frame that has a whole window before it within its shot.

    Raises:
        ConfigError: a setting that cannot be used, or a shot that is not there.
        InputError: no such pairs.
    """
    held_out = set(held_out_shots)
    unknown = sorted(shot for shot in held_out if not 0 <= shot < len(film.shots))
    if unknown:
        raise ConfigError(
            f"held_out_shots has {unknown}, but there are only shots 0…{len(film.shots) - 1}; choose of these"
        )
    if not (window_us >= 1 and shake_px >= 0 and 0 <= val_fraction < 1):
        raise ConfigError(
            f"window_us is {window_us}, shake_px {shake_px}, val_fraction {val_fraction}; "
            "give a positive window, 0 pixels or more, and a share from 0 up to 1"
        )
    rows: list[tuple[int, int, int]] = []
    counts: dict[str, int] = {}
    for shot, (start, stop) in enumerate(film.shots):
        clock = film.times[start:stop] - film.times[start]
        limit = None if shot in held_out else boundary(clock, val_fraction)
        for place, t1 in enumerate(clock.tolist()):
            if t1 < window_us:
                continue
            own = "test" if limit is None else split_of(t1 - window_us, t1, limit)
            counts[own] = counts.get(own, 0) + 1
            if split in (None, own):
                first = int(np.searchsorted(clock, t1 - window_us, side="right")) - 1
                rows.append((start + place, start + first, shot))
    if not rows:
        have = ", ".join(f"{name} ({n})" for name, n in sorted(counts.items()) if name != "gap") or "none"
        raise InputError(f"the video has no pairs for split {split!r}; it has {have}; try a shorter window_us")
    columns = np.array(rows, np.int64).T
    return Clips(film, columns[0], columns[1], columns[2], int(window_us), float(shake_px))


def split_of(t0_us: int, t_image_us: int, boundary_us: int) -> str:
    """The split of the pair with this window start and image time, when all from `boundary_us` on is held out."""
    if t0_us >= boundary_us:
        return "val"
    return "train" if t_image_us < boundary_us else "gap"


def boundary(clock: NDArray[np.int64], val_fraction: float) -> int:
    """The time of the first held-out frame; past the end when none is."""
    held_out = round(val_fraction * len(clock))
    return int(clock[-held_out]) if held_out else int(clock[-1]) + 1
