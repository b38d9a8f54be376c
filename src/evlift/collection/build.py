"""Collections from a video or from still pictures, with simulated events: what goes into each recording, and its pairs.

How the recordings get onto the disk, and how a stopped build goes on, is in `assemble`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, InputError
from ..events import Events, Frame, Recording
from ..events.packed import check_size as check_sensor_size
from ..files import write_atomic
from ..simulate import Sensor, get_sensor
from .assemble import Job, Made, assemble, hash_files
from .clips import boundary as first_held_out
from .clips import split_of
from .footage import Footage, check_video, read_still
from .items import check_seed
from .pictures import Picture, picture_size, pictures_by_split, sort_out
from .simulated import check_motion
from .store import Collection
from .transform import check_size

PICTURES_A_RECORDING = 32
"""Still pictures in one recording: enough that folders stay few, few enough that a kill loses seconds of work."""


def build_from_video(
    video: str | Path,
    out: str | Path,
    *,
    sensor: str | Sensor = "ideal",
    seed: int = 0,
    size: tuple[int, int] | None = None,
    shake_px: float = 6.0,
    window_us: int = 100_000,
    window_events: int | None = None,
    val_fraction: float = 0.2,
    held_out_shots: Sequence[int] = (),
    max_frames: int | None = None,
    name: str | None = None,
    licence: str = "",
    progress: bool = True,
) -> Collection:
    """Make a collection from a video: a recording a shot, a pair a frame that has a whole window before it.

    The last `val_fraction` of every shot's frames is held out: a pair is `val` when its window starts at or after the
    first of them, `train` when its image lies before it, and `gap` (kept, never used) when its window spans both. All
    pairs of `held_out_shots` are `test`. A pair without events is `empty`, and never used.

    Args:
        video: a file that OpenCV can read; of any length, since it is read frame by frame.
        out: the collection's folder; made, or continued when it holds the same build.
        sensor: the simulated sensor, or the name of one.
        seed: of the sensor and of the shake.
        size: height and width of the frames and of the sensor: the largest centre crop of that aspect, resized.
        shake_px: amplitude in pixels of a hand-held camera motion added to the video; 0 for a camera that moves itself.
        window_us: length of the event window before a frame. A frame needs that much of its shot before it.
        window_events: a window of the last so many events instead, no longer than `window_us` and cut off at the
            start of the shot, where it is kept as soon as it holds so many or reaches `window_us`.
        val_fraction: 0 holds nothing out.
        held_out_shots: shots, counted from 0.
        max_frames: leave out the frames after so many.
        name: of the collection; the video's stem by default.
        licence: of the video, in words, carried along.
        progress: show a bar where the output is a terminal.

    Raises:
        InputError: the video cannot be read.
        ConfigError: a setting that cannot be used.
        RunError: `out` holds another build, or something else, or cannot be written.
    """
    video, out = Path(video), Path(out)
    resolved = get_sensor(sensor)
    _check_share(val_fraction)
    _check_positive("window_us", window_us)
    if window_events is not None:
        _check_positive("window_events", window_events)
    if max_frames is not None:
        _check_positive("max_frames", max_frames)
    if not shake_px >= 0:
        raise ConfigError(f"shake_px is {shake_px}; give 0 or more pixels")
    size = None if size is None else check_size(size)
    held_out = sorted({int(shot) for shot in held_out_shots})
    settings: dict[str, Any] = {
        "seed": check_seed(seed),
        "size": None if size is None else list(size),
        "sensor": asdict(resolved),
        "shake_px": float(shake_px),
        "window_us": int(window_us),
        "window_events": window_events,
        "val_fraction": float(val_fraction),
        "held_out_shots": held_out,
        "max_frames": max_frames,
    }
    check_video(video)
    header: dict[str, Any] = {
        "name": video.stem if name is None else name,
        "licence": licence,
        "source": {"kind": "video", "path": str(video), "sha256": hash_files([video])},
        "sensor": sensor if isinstance(sensor, str) else "custom",
        "settings": settings,
    }

    def plan() -> list[Job]:
        footage = Footage(video, resolved, seed, size, shake_px, max_frames)
        header["problems"] = footage.problems
        shots = range(len(footage.shots))
        unknown = [shot for shot in held_out if shot not in shots]
        if unknown:
            raise ConfigError(
                f"held_out_shots has {unknown}, but {video} only shots 0…{len(shots) - 1}; choose of these"
            )

        def make(shot: int) -> Made:
            clock = footage.clock(shot)
            chunks, frames = footage.record(shot)
            boundary = None if shot in held_out else first_held_out(clock, val_fraction)
            rows = partial(_video_rows, shot, clock, boundary, window_us, window_events)
            return Made(chunks, frames, footage.height, footage.width, rows)

        return [Job(f"shot-{shot:03d}", partial(make, shot)) for shot in shots]

    return assemble(out, header, plan, progress)


def build_from_images(
    folder: str | Path,
    out: str | Path,
    *,
    variants: int = 1,
    sensor: str | Sensor = "ideal",
    seed: int = 0,
    size: tuple[int, int] | None = None,
    val_fraction: float = 0.2,
    motion: Mapping[str, Any] | None = None,
    name: str | None = None,
    licence: str = "",
    progress: bool = True,
) -> Collection:
    """Make a collection from still pictures: `variants` camera motions over each, which end in the picture itself.

    Splits are those of the folder's `train/`, `val/`, `test/`, or else the last `val_fraction` of the sorted pictures
    is `val`. Label maps (`labels/` beside `images/`) come along. What cannot be read is set aside and reported.

    Args:
        folder: see `image_files`.
        out: the collection's folder; made, or continued when it holds the same build.
        variants: pairs from each picture.
        sensor: the simulated sensor, or the name of one.
        seed: of the motion and of the sensor.
        size: height and width of picture and sensor: the largest centre crop of that aspect, resized; None: as it is.
        val_fraction: 0 holds nothing out.
        motion: further arguments of `simulate.pair_from_image` by name: `motion_px`, `rotation`, `duration_us`, …
        name, licence, progress: as in `build_from_video`.

    Raises:
        InputError: no pictures, or a label map of another size than its picture.
        ConfigError: a setting that cannot be used.
        RunError: `out` holds another build, or something else, or cannot be written.
    """
    folder, out = Path(folder), Path(out)
    resolved = get_sensor(sensor)
    _check_share(val_fraction)
    _check_positive("variants", variants)
    parts = pictures_by_split(folder, val_fraction)
    motion = check_motion(resolved, motion, any(part.deep for part in parts.values()))
    listed = [file for part in parts.values() for picture in part for file in picture if file is not None]
    size = None if size is None else check_size(size)
    settings: dict[str, Any] = {
        "seed": check_seed(seed),
        "size": None if size is None else list(size),
        "sensor": asdict(resolved),
        "variants": int(variants),
        "val_fraction": float(val_fraction),
        "motion": {key: list(value) if isinstance(value, tuple) else value for key, value in motion.items()},
    }
    header: dict[str, Any] = {
        "name": folder.resolve().name if name is None else name,
        "licence": licence,
        "source": {"kind": "images", "path": str(folder), "sha256": hash_files(listed, folder), "files": len(listed)},
        "sensor": sensor if isinstance(sensor, str) else "custom",
        "settings": settings,
    }

    def make(label: str, split: str, first: int, pictures: list[Picture]) -> Made:
        frames: list[Frame] = []
        rows: list[dict[str, Any]] = []
        problems: list[str] = []

        def chunks() -> Iterator[Events]:
            clock = 0
            for shot, picture in enumerate(pictures, first):
                try:
                    still = read_still(picture, size)
                except InputError as error:
                    problems.append(f"set aside {picture.path.name}: {error}")
                    continue
                kept = None if still.labels is None else _keep_labels(out, label, picture, still.labels)
                for variant in range(variants):
                    try:
                        pair = still.pair(variant, resolved, seed, motion)
                    except InputError as error:  # such as a depth map that cannot be
                        problems.append(f"set aside {picture.path.name}, variant {variant}: {error}")
                        continue
                    t0, t1 = clock, clock + pair.duration_us + 1  # half-open: an event at the very end is still in
                    events = pair.events
                    yield Events(events.x, events.y, events.t + t0, events.p, events.height, events.width)
                    held = split if len(events) else "empty"
                    if not len(events):
                        problems.append(
                            f"set aside {picture.path.name}, variant {variant}: no events, its picture is flat"
                        )
                    rows.append(_row(label, len(frames), t1 - 1, t0, t1, held, shot, len(events), kept))
                    frames.append(Frame(t1 - 1, pair.image))
                    clock = t1

        height, width = size or picture_size(pictures[0].path)
        return Made(chunks(), frames, height, width, lambda recording: (rows, problems))

    def plan() -> list[Job]:
        jobs: list[Job] = []
        first = 0
        for split, part in parts.items():
            good, sizes, problems = sort_out(part)
            groups: dict[tuple[int, int], list[Picture]] = {}
            for picture, own in zip(good, sizes, strict=True):
                try:
                    check_sensor_size(*(size or own))
                except InputError as error:
                    problems.append(f"set aside {picture.path.name}: {error}, or give a size")
                    continue
                groups.setdefault(size or own, []).append(picture)  # one sensor size a recording
            for group in groups.values():
                for start in range(0, len(group), PICTURES_A_RECORDING):
                    some = group[start : start + PICTURES_A_RECORDING]
                    label = f"{split}-{len(jobs):05d}"
                    jobs.append(Job(label, partial(make, label, split, first, some)))
                    first += len(some)
            header.setdefault("problems", []).extend(problems)
        if not jobs:
            reason = f" ({header['problems'][0]})" if header["problems"] else ""
            raise InputError(f"none of the pictures in {folder} can be used{reason}; give others")
        return jobs

    return assemble(out, header, plan, progress)


def _video_rows(
    shot: int,
    clock: NDArray[np.int64],
    boundary: int | None,
    window_us: int,
    window_events: int | None,
    recording: Recording,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The pairs of a shot, and a line on what gives none. `boundary` None: all are `test`."""
    rows, problems, label = [], [], recording.path.name
    for frame, t1 in enumerate(clock.tolist()):
        t0 = _window_start(recording, t1, int(clock[0]), window_us, window_events)
        if t0 is None:
            continue
        count = recording.count(t0, t1)
        split = "test" if boundary is None else split_of(t0, t1, boundary)
        if count == 0:
            split = "empty"
            problems.append(f"set aside frame {frame} of {label}: no events in the {t1 - t0} µs before it")
        rows.append(_row(label, frame, t1, t0, t1, split, shot, count))
    if not rows:
        problems.append(f"{label} gives no pairs: its {len(clock)} frames are shorter than a window")
    return rows, problems


def _window_start(recording: Recording, t1: int, begin: int, window_us: int, window_events: int | None) -> int | None:
    """Where the window before `t1` starts; None when the shot, from `begin` on, does not hold a whole one."""
    if window_events is not None:
        last = recording.last(window_events, t1)
        if len(last) == window_events:
            return max(last.t0_us, t1 - window_us)
    return t1 - window_us if t1 - window_us >= begin else None


def _keep_labels(out: Path, recording: str, picture: Picture, labels: NDArray) -> str:
    file = f"labels/{recording}/{picture.path.stem}.png"
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(".png", labels)
    if not good:
        raise InputError(f"{picture.labels} cannot be written as PNG; give classes of 8 or 16 bits")
    write_atomic(out / file, data.tobytes())
    return file


def _row(
    recording: str,
    frame: int,
    t_image: int,
    t0: int,
    t1: int,
    split: str,
    shot: int,
    events: int,
    labels: str | None = None,
) -> dict[str, Any]:
    return {
        "recording": recording,
        "frame": frame,
        "t_image_us": t_image,
        "t0_us": t0,
        "t1_us": t1,
        "split": split,
        "shot": shot,
        "events": events,
        "labels": labels,
    }


def _check_share(val_fraction: float) -> None:
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"val_fraction is {val_fraction}; give a share from 0 up to 1")


def _check_positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ConfigError(f"{name} is {value!r}; give a whole number, 1 or more")
