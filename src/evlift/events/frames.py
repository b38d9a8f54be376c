"""Pictures beside the events: JPEG files in ``frames/`` and one table of their times, ``frames.parquet``.

Columns: ``t_us`` int64 (start of exposure, on the events' clock), ``exposure_us`` int64 (0 = unknown), ``file`` string.
JPEG at quality 95 without chroma subsampling: it decodes twenty times as fast as PNG and a teacher sees no difference.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evlift.errors import InputError

FOLDER, TABLE = "frames", "frames.parquet"


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture to write: ``t_us`` start of exposure, ``image`` uint8 [H, W, 3] RGB or [H, W], ``exposure_us``."""

    t_us: int
    image: np.ndarray
    exposure_us: int = 0


@dataclass(frozen=True, eq=False)
class FrameTable:
    """Times of a recording's pictures: ``t_us`` and ``exposure_us`` int64 [F], ``file`` object [F] of names."""

    t_us: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    exposure_us: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    file: np.ndarray = field(default_factory=lambda: np.zeros(0, object))

    def __len__(self) -> int:
        return len(self.t_us)


def write_frames(root: Path, frames: Iterable[Frame]) -> int:
    """Write the pictures and their table under ``root``, one picture in memory at a time; how many there were.

    Raises InputError on an image that is not uint8 [H, W] or [H, W, 3], and on times that go backwards.
    """
    times: list[int] = []
    exposures: list[int] = []
    names: list[str] = []
    for frame in frames:
        if times and frame.t_us < times[-1]:
            raise InputError(f"a frame at {frame.t_us} µs follows one at {times[-1]} µs; sort the frames by time")
        name = f"{len(times):06d}.jpg"
        data = _encode(frame.image, len(times))
        (root / FOLDER).mkdir(exist_ok=True)
        write_durably(root / FOLDER / name, data)
        times.append(int(frame.t_us))
        exposures.append(int(frame.exposure_us))
        names.append(name)
    if times:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"t_us": pa.array(times, pa.int64()), "exposure_us": pa.array(exposures, pa.int64()), "file": names}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink)
        write_durably(root / TABLE, sink.getvalue().to_pybytes())
    return len(times)


def read_table(root: Path) -> FrameTable:
    """The table of pictures under ``root``; empty when there is none. InputError when it cannot be read."""
    path = root / TABLE
    if not path.exists():
        return FrameTable()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["t_us", "exposure_us", "file"])
        t_us, exposure_us = (table[c].to_numpy().astype(np.int64, copy=False) for c in ("t_us", "exposure_us"))
        return FrameTable(t_us, exposure_us, np.array(table["file"].to_pylist(), dtype=object))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as e:
        raise InputError(f"{path} cannot be read ({one_line(e)}); convert the recording again") from e


def read_frame(root: Path, name: str) -> np.ndarray:
    """One picture, uint8 [H, W, 3] RGB. InputError when it is missing, damaged or named outside the folder."""
    import simplejpeg

    if Path(name).name != name:
        raise InputError(f"frame name {name!r} leaves the recording's folder; convert the recording again")
    path = root / FOLDER / name
    try:
        return simplejpeg.decode_jpeg(path.read_bytes(), colorspace="RGB")
    except (OSError, ValueError) as e:
        raise InputError(f"{path} cannot be read ({one_line(e)}); convert the recording again") from e


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until it has reached the disk, so that a rename afterwards never publishes a torn one."""
    with open(path, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def one_line(error: BaseException) -> str:
    """An exception's reason for a one-line message: the system's words without the path, or the first line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


def _encode(image: np.ndarray, number: int) -> bytes:
    import simplejpeg

    image = np.asarray(image)
    grey = image.ndim == 2
    if image.dtype != np.uint8 or not (grey or (image.ndim == 3 and image.shape[2] == 3)) or 0 in image.shape:
        raise InputError(f"frame {number} is {image.dtype} {image.shape}; give uint8 [H, W, 3] RGB or [H, W]")
    image = np.ascontiguousarray(image[..., None] if grey else image)
    if grey:
        return simplejpeg.encode_jpeg(image, quality=95, colorspace="GRAY", colorsubsampling="Gray")
    return simplejpeg.encode_jpeg(image, quality=95, colorspace="RGB", colorsubsampling="444")
