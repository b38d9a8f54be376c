"""Pairs as pictures: what `evlift simulate --preview` and `evlift info --picture` draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..collection import Collection, PairDataset
from ..collection.footage import read_still
from ..collection.pictures import Picture as PictureFile
from ..collection.pictures import pictures_by_split
from ..errors import InputError
from ..events import Events, Recording
from ..represent import VoxelGrid
from ..simulate import Sensor, get_sensor
from .animation import save_animation
from .flow import flow_picture, with_key
from .panel import beside, pair_grid
from .pictures import Picture, event_picture, resize_picture, save_picture

WIDEST = 480
"""Pixels of one picture in a preview; larger ones are shrunk."""
SLICES = 12
"""In how many steps the events of a still picture's window are shown."""
STILLS_HZ, VIDEO_HZ = 8, 25
"""Frames a second of an animated preview."""
SHEETS, MOVING = (".png", ".jpg"), (".mp4", ".gif")


@dataclass(frozen=True, eq=False)
class Cell:
    """One pair of a preview: the picture [H, W, 3] or [H, W], the events before it, and the flow [H, W, 2] of them."""

    image: NDArray[np.uint8]
    events: Events
    flow: NDArray[np.floating]
    mask: NDArray[np.bool_] | None = None


def preview(collection: Collection, count: int = 8) -> NDArray[np.uint8]:
    """`count` pairs of the collection's largest split, spread evenly, image beside events; uint8 RGB."""
    splits = {name: pairs for name, pairs in collection.splits.items() if name in ("train", "val", "test")}
    if not splits:
        raise InputError(f"{collection.path} holds no pairs; there is nothing to draw")
    pairs = PairDataset(collection, max(splits, key=lambda name: splits[name]), VoxelGrid(5), augment=False)
    count = min(count, len(pairs))
    items = [pairs[i * len(pairs) // count] for i in range(count)]
    pictures = [((item["image"].permute(1, 2, 0) * 255).byte().numpy(), item["grid"].numpy()) for item in items]
    return pair_grid(pictures, columns=2)


def check_preview(path: str | Path) -> None:
    """Raises InputError when no preview can be written under that name."""
    if Path(path).suffix.lower() not in (*MOVING, *SHEETS):
        raise InputError(f"cannot draw a preview into {path}; name it {', '.join((*SHEETS, *MOVING))}")


def preview_images(
    path: str | Path,
    folder: str | Path,
    size: tuple[int, int] | None,
    sensor: str | Sensor,
    seed: int,
    motion: Mapping[str, Any],
    count: int = 8,
) -> Path:
    """Draw image | events | flow of `count` pictures of a folder, spread evenly, as `build_from_images` makes pairs of
    them: a sheet (.png, .jpg), or a video (.mp4, .gif) in which the events come slice by slice. The flow is exact.

    Raises:
        InputError: no pictures that can be read, or another kind of file.
    """
    check_preview(path)
    parts = pictures_by_split(folder, 0).values()
    return _save(
        Path(path), (cell for part in parts for cell in _stills(part, size, sensor, seed, motion, count)), True
    )


def preview_video(path: str | Path, recordings: Iterable[Recording], count: int = 8) -> Path:
    """Draw frame | events since the frame before | flow between the two, estimated by DIS: `count` frames spread over
    the recordings as a sheet (.png, .jpg), or all of them as a video (.mp4, .gif).

    Raises:
        InputError: recordings without frames, or another kind of file.
    """
    check_preview(path)
    moving = Path(path).suffix.lower() in MOVING
    return _save(Path(path), _frames(list(recordings), None if moving else count), False)


def _save(path: Path, cells: Iterable[Cell], still: bool) -> Path:
    if path.suffix.lower() in MOVING:
        rows = _in_slices(cells) if still else (_row(cell) for cell in cells)
        return save_animation(path, _alike(rows), STILLS_HZ if still else VIDEO_HZ)
    sheet = list(_alike(_row(cell) for cell in cells))
    if not sheet:
        raise InputError("there are no pairs to draw; see what was set aside")
    gap = np.full((8, sheet[0].shape[1], 3), 255, np.uint8)
    return save_picture(path, np.concatenate([part for row in sheet for part in (row, gap)][:-1]))


def _stills(
    pictures: Sequence[PictureFile],
    size: tuple[int, int] | None,
    sensor: str | Sensor,
    seed: int,
    motion: Mapping[str, Any],
    count: int,
) -> Iterator[Cell]:
    count = min(count, len(pictures))
    for i in range(count):
        try:
            pair = read_still(pictures[i * len(pictures) // count], size).pair(0, get_sensor(sensor), seed, motion)
        except InputError:  # told when the pairs were made
            continue
        yield Cell(pair.image, pair.events, pair.flow, pair.mask)


def _frames(recordings: Sequence[Recording], count: int | None) -> Iterator[Cell]:
    places = [(r, k) for r in recordings for k in range(1, len(r.frames))]
    if count is not None:
        count = min(count, len(places))
        places = [places[i * len(places) // count] for i in range(count)]
    estimate: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for recording, k in places:
        before, after = (_grey(recording.frame(i)) for i in (k - 1, k))
        times = recording.frames.t_us
        flow = np.zeros((*after.shape, 2), np.float32)
        if min(after.shape) >= 16:  # DIS refuses smaller ones
            flow = -estimate.calc(after, before, None)
        yield Cell(recording.frame(k), recording.events(int(times[k - 1]), int(times[k])), flow)


def _grey(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return frame if frame.ndim == 2 else np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)


def _row(cell: Cell, events: Events | None = None) -> Picture:
    """image | events | flow, uint8 [h, w, 3]."""
    height, width = cell.image.shape[:2]
    shrunk = min(1.0, WIDEST / width)
    height, width = max(1, round(height * shrunk)), max(1, round(width * shrunk))
    image = cell.image if cell.image.ndim == 3 else np.repeat(cell.image[..., None], 3, axis=2)
    known = np.linalg.norm(cell.flow, axis=2)[... if cell.mask is None else cell.mask]
    longest = max(float(known.max()) if known.size else 0.0, 1e-3)
    flow = resize_picture(flow_picture(cell.flow, cell.mask, longest), height, width)
    drawn = event_picture(cell.events if events is None else events, height, width)
    return beside([resize_picture(image, height, width), drawn, with_key(flow, longest)], 4)


def _in_slices(cells: Iterable[Cell]) -> Iterator[Picture]:
    for cell in cells:
        e = cell.events
        if not len(e):
            yield _row(cell)
            continue
        edges = np.linspace(int(e.t[0]), int(e.t[-1]) + 1, SLICES + 1)
        for start, stop in zip(*(np.searchsorted(e.t, part) for part in (edges[:-1], edges[1:])), strict=True):
            part = slice(int(start), int(stop))
            yield _row(cell, Events(e.x[part], e.y[part], e.t[part], e.p[part], e.height, e.width))


def _alike(rows: Iterable[Picture]) -> Iterator[Picture]:
    """All of the first one's size: a video cannot change it, and a sheet looks better."""
    rows = iter(rows)
    for first in islice(rows, 1):
        yield first
        for row in rows:
            yield resize_picture(row, *first.shape[:2])
