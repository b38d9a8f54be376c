"""Packed recordings of simulated cameras, without pairs or splits: for those who want events and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError, InputError, RunError
from ..events import Events, Frame, Recording, write_recording
from ..events.packed import check_size as check_sensor_size
from ..files import alone
from ..simulate import Sensor, get_sensor
from .assemble import hash_files, shown
from .footage import Footage, check_video, read_still
from .items import check_seed
from .pictures import Picture, pictures_by_split, tell
from .simulated import check_motion
from .transform import check_size

logger = logging.getLogger(__name__)

Material = tuple[Iterable[Events], Iterable[Frame], int, int]  # events, frames, height, width


class Job(NamedTuple):
    """A recording to make: its name in the folder, what it is of, and what makes it."""

    name: str
    source: Callable[[], dict[str, Any]]
    make: Callable[[], Material]


def record_video(
    video: str | Path,
    out: str | Path,
    *,
    sensor: str | Sensor = "ideal",
    seed: int = 0,
    size: tuple[int, int] | None = None,
    shake_px: float = 0.0,
    max_frames: int | None = None,
    licence: str = "",
    progress: bool = True,
) -> list[Recording]:
    """Write a packed recording of each shot of a video, `out/shot-000` and so on, with the video's frames in it.

    The same call goes on where an earlier one stopped.

    Args: as in `build_from_video`.

    Raises:
        InputError: the video cannot be read, or its frames are larger than a recording holds.
        ConfigError: a setting that cannot be used.
        RunError: `out` holds recordings of another video or with other settings, or something else.
    """
    video, resolved = Path(video), get_sensor(sensor)
    check_video(video)
    if not shake_px >= 0:
        raise ConfigError(f"shake_px is {shake_px}; give 0 or more pixels")
    size = None if size is None else check_size(size)
    settings: dict[str, Any] = {"seed": check_seed(seed), "size": size and list(size), "sensor": asdict(resolved)}
    settings |= {"shake_px": float(shake_px), "max_frames": max_frames}
    source = {"kind": "video", "path": str(video), "sha256": hash_files([video])}

    def told() -> dict[str, Any]:
        return source

    footage = Footage(video, resolved, seed, size, shake_px, max_frames)
    tell(footage.problems)

    def film(shot: int) -> Material:
        return *footage.record(shot), footage.height, footage.width

    jobs = [Job(f"shot-{shot:03d}", told, partial(film, shot)) for shot in range(len(footage.shots))]
    return _record(Path(out), jobs, video, settings, _name(sensor), licence, progress)[0]


def record_images(
    folder: str | Path,
    out: str | Path,
    *,
    variants: int = 1,
    sensor: str | Sensor = "ideal",
    seed: int = 0,
    size: tuple[int, int] | None = None,
    motion: Mapping[str, Any] | None = None,
    licence: str = "",
    progress: bool = True,
) -> list[Recording]:
    """Write a packed recording of each picture of a folder, named like it, that ends with the picture as its frame.

    A picture that cannot be used is set aside with a warning. The same call goes on where an earlier one stopped.

    Args: as in `build_from_images`; of several variants each is a recording, `NAME-1` and so on.

    Raises:
        InputError: no pictures, or none that can be used.
        ConfigError: a setting that cannot be used.
        RunError: `out` holds recordings of other pictures or with other settings, or something else.
    """
    folder, resolved = Path(folder), get_sensor(sensor)
    if variants < 1:
        raise ConfigError(f"variants is {variants}; give 1 or more")
    parts = pictures_by_split(folder, 0)
    motion = check_motion(resolved, motion, any(part.deep for part in parts.values()))
    size = None if size is None else check_size(size)
    settings: dict[str, Any] = {"seed": check_seed(seed), "size": size and list(size), "sensor": asdict(resolved)}
    settings["motion"] = {key: list(value) if isinstance(value, tuple) else value for key, value in motion.items()}

    def still(picture: Picture, variant: int) -> Material:
        pair = read_still(picture, size).pair(variant, resolved, seed, motion)
        return [pair.events], [Frame(pair.duration_us, pair.image)], pair.events.height, pair.events.width

    def told(picture: Picture) -> dict[str, Any]:
        files = [file for file in (picture.path, picture.depth) if file is not None]
        return {"kind": "images", "path": str(picture.path), "sha256": hash_files(files, folder)}

    def jobs() -> Iterator[Job]:
        for split, pictures in parts.items():
            taken: set[str] = set()
            for picture in pictures:
                name = picture.path.stem if picture.path.stem not in taken else picture.path.name
                taken.add(name)
                for variant in range(variants):
                    own = f"{name}-{variant + 1}" if variants > 1 else name
                    where = f"{split}/{own}" if len(parts) > 1 else own
                    yield Job(where, partial(told, picture), partial(still, picture, variant))

    made, problems = _record(Path(out), list(jobs()), folder, settings, _name(sensor), licence, progress)
    if not made:
        raise InputError(f"none of the pictures in {folder} can be used ({problems[0]}); give others")
    return made


def _record(
    out: Path,
    jobs: Sequence[Job],
    origin: Path,
    settings: dict[str, Any],
    sensor: str,
    licence: str,
    progress: bool,
) -> tuple[list[Recording], list[str]]:
    """The recordings, and a line on each that was set aside."""
    ours = {job.name.split("/")[0] for job in jobs}
    tags = {"simulated": settings}
    recordings: list[Recording] = []
    problems: list[str] = []
    with alone(out):
        strange = sorted(file.name for file in out.iterdir() if file.name not in ours and file.name[0] != ".")
        if strange:
            raise RunError(f"{out} holds {strange[0]}, which is no recording of {origin}; give another folder")
        for job in shown(jobs, progress):
            path, source = out / job.name, job.source()
            if path.exists():
                recordings.append(_same(path, source, tags))
                continue
            try:
                chunks, frames, height, width = job.make()
                check_sensor_size(height, width)
            except InputError as error:
                if source["kind"] == "video":
                    raise
                problems.append(f"set aside {job.name}: {error}")
                continue
            recording = write_recording(
                path,
                chunks,
                frames=frames,
                sensor=f"simulated: {sensor}",
                source=source,
                licence=licence,
                clock="simulated; frames and events share it",
                tags=tags,
                height=height,
                width=width,
            )
            recordings.append(recording)
    tell(problems)
    return recordings, problems


def _same(path: Path, source: dict[str, Any], tags: dict[str, Any]) -> Recording:
    """The recording that an earlier call has left. Raises RunError when it is of something else."""
    recording = Recording(path)
    told = recording.info.get("source")
    if not isinstance(told, dict) or {**told, "path": None} != {**source, "path": None}:
        raise RunError(f"{path} was recorded from another source; give another folder")
    if recording.info.get("tags") != tags:
        raise RunError(f"{path} was recorded with other settings; give another folder or the same ones")
    return recording


def _name(sensor: str | Sensor) -> str:
    return sensor if isinstance(sensor, str) else "custom"
