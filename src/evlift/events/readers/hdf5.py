"""What the readers of HDF5 data sets share: opening, and rows that are really there.

HDF5 lets a dataset claim any length; what was never written reads as zeros. Here a dataset has as many rows as chunks
that are stored (or bytes that the file has), and a read is as large as its rows, so that no claim costs memory or time.
A chunk that cannot be decoded costs the events in it, not the recording.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from evlift.errors import InputError
from evlift.events.frames import Frame, one_line
from evlift.events.readers import blosc
from evlift.events.readers.reader import CHUNK, Problems

SIGNATURE = b"\x89HDF\r\n\x1a\n"
FAULTS = (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError)
"""What h5py raises on damaged files."""

_BLOSC = 32001  # the filter's registered number
_MOST_CHUNK = 1 << 26  # bytes; the data sets' own chunks are a twentieth of it at most


class Damaged(Exception):
    """A stretch of a dataset that cannot be read: ``str(error)`` says which, ``at`` is its byte offset, if known."""

    def __init__(self, text: str, at: int | None) -> None:
        super().__init__(text)
        self.at = at


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An h5py.File, open for reading; InputError when it cannot be opened, and for faults in the body."""
    file = stay_open(path)
    try:
        with file:
            yield file
    except FAULTS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged ({one_line(error)}); copy or download it again") from error


def stay_open(path: Path) -> Any:
    """An h5py.File that is closed when nobody holds it any longer. InputError when it cannot be opened."""
    import h5py
    import hdf5plugin  # noqa: F401  (tells HDF5 of Blosc)

    try:
        return h5py.File(path, "r")
    except FAULTS as error:
        raise InputError(_cannot_open(path, error)) from error


def holds(path: Path, head: bytes, *names: str) -> bool:
    """Whether the file is HDF5 and has all these groups or datasets; False for whatever cannot be read."""
    if not head.startswith(SIGNATURE):
        return False
    try:
        with opened(path) as file:
            return all(name in file for name in names)
    except InputError:
        return False


def fault(path: Path, head: bytes) -> str | None:
    """Why an HDF5 file cannot be opened; None when it can, or is none."""
    if not head.startswith(SIGNATURE):
        return None
    try:
        with opened(path):
            return None
    except InputError as error:
        return str(error)


class Rows:
    """A dataset, read by rows.

    file: an open h5py.File. name: of the dataset. kinds: NumPy's letters of the types it may have ("iu": integers).
    shape: of one row, None = any length. Raises InputError when there is no such dataset.
    """

    def __init__(self, file: Any, name: str, kinds: str = "iu", shape: tuple[int | None, ...] = ()) -> None:
        import h5py

        self.name, self.path = name, Path(os.fsdecode(file.filename))
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(f"{self.path} has no dataset {name}; download the recording again or name its --format")
        self.dataset, self.dtype, whole = dataset, dataset.dtype, dataset.shape
        fits = whole is not None and len(whole) == 1 + len(shape) and self.dtype.kind in kinds
        if not fits or any(want not in (None, has) for want, has in zip(shape, whole[1:], strict=True)):
            raise InputError(
                f"{self.path}: {name} is {self.dtype} {whole}, which this format cannot be; name its --format"
            )
        self.row_bytes = self.dtype.itemsize * int(np.prod(whole[1:], dtype=object))
        self.claimed = int(whole[0])
        self._file_bytes = self.path.stat().st_size
        self.chunk = CHUNK
        self._fd = -1  # the file's descriptor, where chunks are Blosc's alone
        self._at = self._size = np.zeros(0, np.int64)  # byte offset (-1: nowhere) and length of each chunk
        self.rows = min(self.claimed, self._stored())

    def __len__(self) -> int:
        return self.rows

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start : stop``. Raises Damaged."""
        start, stop = max(start, 0), min(stop, self.rows)
        if start >= stop:
            return np.empty((0, *self.dataset.shape[1:]), self.dtype)
        first, last = start // self.chunk, -(-stop // self.chunk)
        if (missing := self._at[first:last] < 0).any():
            row = (first + int(missing.argmax())) * self.chunk
            raise Damaged(f"{self.name} from row {row} on is not in the file", None)
        if self._fd >= 0 and (values := self._read_blosc(first, last)) is not None:
            return values[start - first * self.chunk : stop - first * self.chunk]
        try:
            return self.dataset[start:stop]
        except FAULTS as error:
            at = int(self._at[first]) if first < len(self._at) else None
            raise Damaged(f"{self.name} from row {start} on cannot be read ({one_line(error)})", at) from error

    def place(self, chunk: int, start: int, count: int) -> int:
        """Byte offset in the file of byte ``start`` of an unfiltered chunk. Damaged when ``count`` are not there."""
        at = int(self._at[chunk]) if chunk < len(self._at) else -1
        if at < 0 or start + count > self._size[chunk]:
            raise Damaged(f"{self.name} from row {chunk * self.chunk} on is not in the file", at if at >= 0 else None)
        return at + start

    def _stored(self) -> int:
        """How many rows there are bytes or chunks for; where the chunks are goes to _at and _size."""
        dataset = self.dataset
        if self.row_bytes == 0:
            return 0
        if dataset.chunks is None:
            at = dataset.id.get_offset()
            if at is None:  # in the header (compact), or never written
                return int(dataset.id.get_storage_size()) // self.row_bytes
            return max(self._file_bytes - at, 0) // self.row_bytes
        self.chunk = int(dataset.chunks[0])
        if self.chunk * self.row_bytes > _MOST_CHUNK:
            raise InputError(
                f"{self.path}: {self.name} has chunks of {self.chunk * self.row_bytes} bytes; download it again"
            )
        across = int(
            np.prod([-(-n // c) for n, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)], dtype=object)
        )
        # A chunk takes a byte of the file at least: there are no more than that, whatever the index says.
        count = min(dataset.id.get_num_chunks(), self._file_bytes) // max(across, 1)
        self._at, self._size = np.full(count, -1, np.int64), np.zeros(count, np.int64)
        unfiltered = 0

        def note(chunk: Any) -> None:
            nonlocal unfiltered
            i = chunk.chunk_offset[0] // self.chunk
            if i < count and 0 <= chunk.byte_offset <= self._file_bytes - chunk.size:
                self._at[i], self._size[i] = chunk.byte_offset, chunk.size
                unfiltered |= chunk.filter_mask

        dataset.id.chunk_iter(note)
        filters = dataset.id.get_create_plist()
        if filters.get_nfilters() == 1 and filters.get_filter(0)[0] == _BLOSC and dataset.ndim == 1 and not unfiltered:
            self._fd = _descriptor(dataset.file)
        return count * self.chunk

    def _read_blosc(self, first: int, last: int) -> np.ndarray | None:
        """The rows of these chunks, decoded together; None when that is left to HDF5."""
        at, nbytes = self._at[first:last], self.chunk * self.row_bytes
        bounds = np.concatenate([[0], np.cumsum(self._size[first:last])])
        if bounds[-1] > 2 * nbytes * len(at) + 4096:  # more than Blosc ever makes of them
            return None
        raw = blosc.buffer("raw", int(bounds[-1]))
        for place, a, b in zip(at.tolist(), bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if os.preadv(self._fd, [raw.data[a:b]], place) != b - a:
                raise Damaged(f"{self.name} cannot be read", place)
        values = blosc.decode(raw, bounds, nbytes, self.dtype)
        if values is None:
            for i, place in enumerate(at.tolist()):
                if not blosc.sound(raw[bounds[i] : bounds[i + 1]].tobytes(), nbytes):
                    raise Damaged(f"{self.name} from row {(first + i) * self.chunk} on is damaged", place)
        return values


def common(columns: Sequence[Rows], problems: Problems) -> int:
    """How many rows all of the columns have; what some of them have or claim beyond is counted as lost."""
    rows = min(column.rows for column in columns)
    lost = max(column.claimed for column in columns) - rows
    names = ", ".join(column.name for column in columns)
    problems.count(f"row that is claimed but not stored in all of {names}, left out", lost)
    return rows


def blocks(columns: Sequence[Rows], problems: Problems) -> Iterator[tuple[int, list[np.ndarray]]]:
    """All columns in step, a block of rows at a time, with the number of its last row + 1.

    A block is at most CHUNK rows and some tens of MB. Rows that cannot be read are left out and counted.
    """
    rows = common(columns, problems)
    step = min(CHUNK, max((1 << 24) // max(column.row_bytes for column in columns), 1))
    chunk = max((column.chunk for column in columns if column.dataset.chunks), default=step)
    step = max(step // chunk, 1) * chunk if chunk <= CHUNK else step
    for start in range(0, rows, step):
        yield from _rescued(columns, start, min(start + step, rows), chunk, problems)


def _rescued(
    columns: Sequence[Rows], start: int, stop: int, chunk: int, problems: Problems
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Rows ``start : stop``; when some cannot be read, both halves on their own, down to a chunk."""
    try:
        block = [column.read(start, stop) for column in columns]
    except Damaged as damage:
        middle = (start // chunk + max((stop - start) // chunk // 2, 1)) * chunk
        if start < middle < stop:
            yield from _rescued(columns, start, middle, chunk, problems)
            yield from _rescued(columns, middle, stop, chunk, problems)
        else:
            problems.count("event in a damaged part of the file, left out", stop - start, damage.at)
            problems.say(f"damaged: {damage}")
        return
    yield stop, block


def whole(rows: Rows, problems: Problems) -> np.ndarray:
    """All rows of a small dataset. InputError when some of it cannot be read."""
    problems.count(f"row of {rows.name} that is claimed but not stored, left out", rows.claimed - len(rows))
    try:
        return rows.read(0, len(rows))
    except Damaged as damage:
        where = "" if damage.at is None else f" (at byte {damage.at})"
        raise InputError(f"{rows.path}: {damage}{where}; download it again") from damage


def frames(images: Rows, times_us: np.ndarray, problems: Problems) -> Iterator[Frame]:
    """Images uint8 [F, H, W] or [F, H, W, 1 or 3] with their times, one in memory at a time, in order of time."""
    count = min(len(images), len(times_us))
    problems.count(
        f"image or time without its other half in {images.name}, left out", max(images.claimed, len(times_us)) - count
    )
    for i in np.argsort(times_us[:count], kind="stable"):
        try:
            image = images.read(int(i), int(i) + 1)[0]
        except Damaged as damage:
            problems.count("image that cannot be read, left out", 1, damage.at)
            continue
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        yield Frame(int(times_us[i]), image)


def _descriptor(file: Any) -> int:
    """The file's descriptor where HDF5 reads it plainly, else -1."""
    try:
        return int(file.id.get_vfd_handle()) if file.driver == "sec2" and not file.userblock_size else -1
    except FAULTS:
        return -1


def _cannot_open(path: Path, error: BaseException) -> str:
    if cut := re.search(r"eof = (\d+).*stored_eof = (\d+)", str(error)):
        return f"{path} is cut short at byte {cut[1]} of {cut[2]}; copy or download it again"
    return f"{path} cannot be opened as HDF5 ({one_line(error)}); copy or download it again"
