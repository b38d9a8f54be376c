"""How a collection is put together: recording by recording, in steps that a kill cannot tear.

Each recording is written whole before `collection.json` lists it, so a build that is killed leaves the finished ones
usable, and the same call later goes on with the others; it refuses to mix in another source (by SHA-256) or other
settings.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import InputError, RunError
from ..events import Events, Frame, Recording, write_recording
from ..files import alone, holds_others
from ..simulate import Sensor
from .store import FORMAT, VERSION, Collection, open_collection, read_info, write_info, write_pairs


@dataclass(frozen=True)
class Made:
    """What goes into a recording. `chunks` and `frames` may be generators: they are written as they come."""

    chunks: Iterable[Events]
    frames: Iterable[Frame]
    height: int
    width: int
    rows: Callable[[Recording], tuple[list[dict[str, Any]], list[str]]]
    """The pairs in the recording that came of it, and a line on what was set aside."""


@dataclass(frozen=True)
class Job:
    """A recording of the plan, and what makes it."""

    name: str
    make: Callable[[], Made]


def assemble(out: Path, header: dict[str, Any], plan: Callable[[], list[Job]], progress: bool) -> Collection:
    """Go through the plan, leaving out what is finished. `plan` is called only when something is left to do."""
    if (whole := _finished(out, header)) is not None:  # without the lock: many processes may open it at once
        return whole
    with alone(out):
        if (whole := _finished(out, header)) is not None:  # another process was quicker
            return whole
        info = read_info(out)
        if info is None and holds_others(out):
            raise RunError(f"{out} is not empty and holds no collection; give another folder")
        jobs = plan()
        finished = {} if info is None else {k: v for k, v in info["recordings"].items() if _recording(out, k).is_dir()}
        place = {job.name: i for i, job in enumerate(jobs)}
        rows = [] if not finished else [r for r in open_collection(out).pairs.to_pylist() if r["recording"] in finished]
        problems = header.pop("problems", [])
        info = {
            "format": FORMAT,
            "version": VERSION,
            **header,
            "complete": False,
            "planned": [job.name for job in jobs],
        }
        info |= {"recordings": finished, "problems": problems}
        write_info(out, info)
        for job in shown(jobs, progress):
            if job.name in finished:
                continue
            _clear(out / "recordings", job.name)
            made = job.make()
            recording = write_recording(
                _recording(out, job.name),
                made.chunks,
                frames=made.frames,
                sensor=f"simulated: {header['sensor']}",
                source=header["source"],
                licence=header["licence"],
                clock="simulated; frames and events share it",
                tags={"collection": header["name"]},
                height=made.height,
                width=made.width,
            )
            pairs, lines = made.rows(recording)
            rows = sorted([*rows, *pairs], key=lambda row: place[row["recording"]])  # stable: frames stay in order
            finished[job.name] = {
                "pairs": len(pairs),
                "events": len(recording),
                "height": made.height,
                "width": made.width,
                "problems": lines,
            }
            write_pairs(out, rows)
            write_info(out, info)  # from here on the recording counts
        info["problems"] = problems + [line for made in finished.values() for line in made["problems"]]
        info["recordings"] = {job.name: finished[job.name] for job in jobs}
        info["complete"] = True
        info["counts"] = dict(open_collection(out).splits)
        write_info(out, info)
    return open_collection(out)


def _finished(out: Path, header: dict[str, Any]) -> Collection | None:
    """The collection, when the whole of this build is there. Raises RunError when it is another build."""
    info = read_info(out)
    if info is None:
        return None
    _check_same(out, info, header)
    there = info["complete"] and all(_recording(out, made).is_dir() for made in info["recordings"])
    return open_collection(out) if there else None


def _recording(out: Path, name: str) -> Path:
    return out / "recordings" / name


def _clear(recordings: Path, name: str) -> None:
    """Remove what a killed build left of a recording that is not listed."""
    recordings.mkdir(parents=True, exist_ok=True)
    for leaving in [recordings / name, *recordings.glob(f".{name}*")]:
        if leaving.is_dir():
            shutil.rmtree(leaving)


def _check_same(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    if (old["source"].get("kind"), old["source"].get("sha256")) != (new["source"]["kind"], new["source"]["sha256"]):
        raise RunError(
            f"{out} was built from another source ({old['source'].get('path')}, SHA-256 "
            f"{str(old['source'].get('sha256'))[:12]}…); give another folder"
        )
    before, now = (
        # What a sensor of an older evlift did not have is off. Told field by field: there are many.
        {**settings, **{f"sensor {k}": v for k, v in (asdict(Sensor()) | settings.get("sensor", {})).items()}}
        for settings in (old["settings"], new["settings"])
    )
    changed = [
        f"{k}: {before.get(k)} → {now.get(k)}"
        for k in sorted(before.keys() | now)
        if k != "sensor" and before.get(k) != now.get(k)
    ]
    if changed:
        raise RunError(
            f"{out} was built with other settings ({'; '.join(changed)}); give another folder or the same ones"
        )


def shown(jobs: Sequence[Any], progress: bool) -> Iterable[Any]:
    """The jobs one by one, with a progress bar where the output is a terminal."""
    if not (progress and sys.stderr.isatty()):
        return jobs
    from rich.console import Console
    from rich.progress import track

    return track(jobs, "recordings", console=Console(stderr=True))


def hash_files(files: Iterable[Path], folder: Path | None = None) -> str:
    """Of one file its SHA-256; of several, that of the list of their paths from `folder` and SHA-256."""
    listing, digest = sha256(), sha256()
    for file in files:
        digest = sha256()
        try:
            with open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            if folder is None:
                raise InputError(f"cannot read {file} ({error.strerror}); check the file") from error
            digest = sha256(b"unreadable")  # one bad file of many is set aside when its turn comes
        if folder is not None:
            # Relative, and maybe upwards: of `images/` itself the label maps lie in `../labels/`.
            name = Path(os.path.relpath(file, folder)).as_posix()
            listing.update(f"{name}\0{digest.hexdigest()}\n".encode())
    return digest.hexdigest() if folder is None else listing.hexdigest()
