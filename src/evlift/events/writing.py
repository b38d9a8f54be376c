"""Write a packed recording: bounded memory, and all or nothing.

Everything is written into a hidden folder beside the target, flushed to the disk, and renamed into place as the last
step. A conversion that is killed, runs out of disk or meets bad events leaves the target absent; only the hidden
folder of a killed one may remain: ``open_recording`` refuses it, and the next conversion to that target removes it.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from evlift.errors import InputError, RunError
from evlift.events.frames import Frame, one_line, write_durably, write_frames
from evlift.events.packed import check_size, pack
from evlift.events.readers.reader import Problems
from evlift.events.recording import FORMAT, INDEX, INFO, MAP, PARTIAL, VERSION, WORDS, Recording
from evlift.events.stream import Events, _size
from evlift.files import alone

MAX_MILLISECONDS = 48 * 3600 * 1000
"""Longest span that is indexed, 48 h (1.4 GB of index): beyond it a stray time stamp is likelier than a recording."""

_BLOCK = 1 << 20  # events packed at a time, and index entries written at a time: the working memory


def write_recording(
    path: str | Path,
    chunks: Events | Iterable[Events],
    *,
    frames: Iterable[Frame] = (),
    sensor: str = "",
    source: str | Path | Mapping[str, Any] | None = None,
    licence: str = "",
    clock: str = "",
    tags: Any = None,
    calibration: Any = None,
    rectify_map: np.ndarray | None = None,
    height: int | None = None,
    width: int | None = None,
    problems: Problems | None = None,
) -> Recording:
    """Write events (and pictures) as a packed recording and open it.

    path: folder to make; must not exist. chunks: Events, or an iterable of them in order of time, all of one size.
    frames: pictures in order of time, written one by one. sensor, licence, clock: words kept with the data.
    source: the file this was converted from (kept as its name and SHA-256), or a dict or words of your own.
    tags, calibration: anything JSON holds. height, width: needed only when there may be no events at all.
    rectify_map: float [height, width, 2], where each pixel lies in the rectified picture; see `Recording.rectify_map`.
    problems: what was wrong with the source; read when all events and frames are written, and kept with the data.

    Raises InputError when the path exists (an empty folder is taken), when events are out of order, too large for the
    format or span more than 48 hours, and when the disk is full or not writable; the target is then absent.
    """
    path = Path(path)
    _refuse_existing(path)
    parts = iter((chunks,) if isinstance(chunks, Events) else chunks)
    with new_folder(path) as folder:
        packer = _Packer(folder, height, width)
        with packer:
            for events in parts:
                packer.add(events)
            packer.finish()
        written = write_frames(folder, frames)
        if rectify_map is not None:
            write_durably(folder / MAP, _map_file(rectify_map, packer.height, packer.width))
        info = {
            "format": FORMAT,
            "version": VERSION,
            "height": packer.height,
            "width": packer.width,
            "events": packer.events,
            "on": packer.on,
            "t_first_us": packer.t_first,
            "t_last_us": packer.t_last,
            "first_ms": packer.first_ms,
            "milliseconds": packer.milliseconds,
            "frames": written,
            "rectify_map": rectify_map is not None,
            "sensor": sensor,
            "clock": clock,
            "licence": licence,
            "source": _source(source),
            "calibration": calibration,
            "tags": tags,
            "problems": problems.lines() if problems else [],
        }
        try:
            text = json.dumps(info, indent=1, ensure_ascii=False)
        except (TypeError, ValueError) as e:
            raise InputError(f"tags, calibration or source are no JSON ({one_line(e)}); use what JSON holds") from e
        write_durably(folder / INFO, text.encode())  # last: without it a folder does not open
    return Recording(path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A hidden folder that becomes ``path`` when the block ends well, and vanishes when it does not.

    OSErrors from within (a full disk, no permission) become InputErrors that name the target.
    """
    folder = path.parent / f".{path.name}{PARTIAL}{uuid.uuid4().hex[:8]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        with alone(folder):  # says that its writer lives
            yield folder
            (folder / ".lock").unlink(missing_ok=True)
            for each in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
                _sync_folder(each)
            _refuse_existing(path)
            if os.name == "nt" and path.is_dir():  # an empty one, which other systems let a folder replace
                path.rmdir()
            os.rename(folder, path)
        _sync_folder(path.parent)
    except OSError as e:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"{path} cannot be written ({one_line(e)}); free the disk or choose another folder") from e
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _sweep(path: Path) -> None:
    """Remove what killed conversions to this target left behind; those of living ones are locked."""
    for old in path.parent.glob(f".{glob.escape(path.name)}{PARTIAL}*"):
        try:
            with alone(old):
                shutil.rmtree(old, ignore_errors=True)
        except RunError:
            continue


class _Packer:
    """Words and index of one recording, appended as the events arrive. Holds one block of each, never the recording."""

    def __init__(self, folder: Path, height: int | None, width: int | None) -> None:
        self.height = None if height is None else _size("height", height)
        self.width = None if width is None else _size("width", width)
        self.events = self.on = self.milliseconds = 0
        self.first_ms = 0
        self.t_first: int | None = None
        self.t_last: int | None = None
        self._words: IO[bytes] = open(folder / WORDS, "wb")
        self._index: IO[bytes] = open(folder / INDEX, "wb")
        self._index.write(_npy_header(0))

    def __enter__(self) -> _Packer:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._words.close()
        finally:
            self._index.close()

    def add(self, events: Events) -> None:
        if not isinstance(events, Events):
            raise InputError(f"a recording is made of Events, not {type(events).__name__}; build Events first")
        self.height = events.height if self.height is None else self.height
        self.width = events.width if self.width is None else self.width
        if (events.height, events.width) != (self.height, self.width):
            raise InputError(
                f"events of a {events.width}×{events.height} sensor follow {self.width}×{self.height}; give one size"
            )
        check_size(self.height, self.width)
        for part in events.chunks(_BLOCK):
            self._append(part)

    def _append(self, events: Events) -> None:
        if self.t_last is None:
            self.t_first = events.t_first
            self.first_ms = events.t_first // 1000
        elif events.t_first < self.t_last:
            raise InputError(f"events at {events.t_first} µs follow {self.t_last} µs; give the chunks in order of time")
        last_ms = events.t_last // 1000
        span = last_ms - self.first_ms
        if span >= MAX_MILLISECONDS:
            raise InputError(
                f"events span {span / 3.6e6:,.0f} hours, more than 48; check the times or write several recordings"
            )
        # Entry k counts the events before millisecond k: write those after the last millisecond seen, up to this one.
        for a in range(self.milliseconds, span + 1, _BLOCK):
            ms = np.arange(a, min(a + _BLOCK, span + 1), dtype=np.int64)
            before = np.searchsorted(events.t, (ms + self.first_ms) * 1000)
            self._index.write((before + self.events).astype("<i8").tobytes())
        self.milliseconds = span + 1
        self._words.write(pack(events).tobytes())
        self.events += len(events)
        self.on += int(np.count_nonzero(events.p))
        self.t_last = events.t_last

    def finish(self) -> None:
        if self.height is None or self.width is None:
            raise InputError("there are no events to tell the sensor's size; give height and width")
        check_size(self.height, self.width)
        self._index.write(np.array([self.events], "<i8").tobytes())
        self._index.seek(0)
        self._index.write(_npy_header(self.milliseconds + 1))
        for f in (self._words, self._index):
            f.flush()
            os.fsync(f.fileno())


def _npy_header(length: int) -> bytes:
    """The .npy header (format 1.0) of an int64 [length], always 128 bytes: it is written twice."""
    text = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({length},), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"


def _source(source: str | Path | Mapping[str, Any] | None) -> Any:
    if source is None:
        return None
    if isinstance(source, Mapping):
        return dict(source)
    path = Path(source)
    if not os.path.isfile(path):  # words, too long or odd for a file's name, are no error here
        return {"name": path.name if isinstance(source, Path) else source}
    return fingerprint([path])[0]


def fingerprint(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Name, SHA-256 and size in bytes of each file; of a folder of pictures, SHA-256 of their names, sizes, times."""
    found = []
    for path in files:
        if path.is_dir():
            pictures = sorted(p for p in path.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
            states = [(picture.name, picture.stat()) for picture in pictures]
            lines = [f"{name} {state.st_size} {state.st_mtime_ns}\n" for name, state in states]
            listing = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
            total = sum(state.st_size for _, state in states)
            found.append({"name": path.name, "listing_sha256": listing, "bytes": total})
            continue
        with open(path, "rb") as f:
            digest = hashlib.file_digest(f, "sha256") if hasattr(hashlib, "file_digest") else _digest(f)
        found.append({"name": path.name, "sha256": digest.hexdigest(), "bytes": path.stat().st_size})
    return found


def _digest(file: IO[bytes]) -> Any:  # Python 3.10 has no file_digest
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest


def _map_file(rectify_map: np.ndarray, height: int | None, width: int | None) -> bytes:
    table = np.asarray(rectify_map)
    if table.shape != (height, width, 2) or table.dtype.kind != "f":
        raise InputError(
            f"the rectify_map is {table.dtype} {list(table.shape)}; give floats [{height}, {width}, 2], x and y"
        )
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(table, "<f4"), allow_pickle=False)
    return file.getvalue()


def is_free(path: Path) -> bool:
    """Whether a recording may be written there: nothing is, or an empty folder."""
    if path.is_symlink() or not path.exists():
        return not path.is_symlink()
    return path.is_dir() and not any(path.iterdir())


def _refuse_existing(path: Path) -> None:
    if not is_free(path):
        raise InputError(f"{path} exists already; choose another name or delete it")


def _sync_folder(path: Path) -> None:
    """Ask the disk to keep a folder's entries; systems that cannot open folders (Windows) have no such call."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
