"""What holds ROS messages: the `rosbags` library behind a wall that nothing of it gets through but messages."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from evlift.errors import ConfigError, InputError
from evlift.events.frames import one_line
from evlift.events.readers.reader import Problems

_MEND = {
    "rosbag1": "if it was cut short, run 'rosbag reindex' on a copy",
    "rosbag2": "if it was cut short, run 'ros2 bag reindex' on a copy",
    "mcap": "if it was cut short, run 'mcap recover' on a copy",
}


class Message(NamedTuple):
    """A message as recorded: its type, the time of recording in µs, and where its chunk begins, if known."""

    kind: str
    recorded: int
    data: bytes
    at: int | None
    done: float


def kind_of(link: Any) -> str:
    """The type of a connection's messages, as ROS 1 writes it: "sensor_msgs/Image"."""
    return str(link.msgtype).replace("/msg/", "/")


def storage(folder: Path) -> list[Path]:
    """The files of a ROS 2 bag's folder that hold messages."""
    return sorted(file for pattern in ("*.db3", "*.mcap", "*.db3.zstd", "*.mcap.zstd") for file in folder.glob(pattern))


class Container:
    """A bag on the disk, not open yet. files: those that hold messages."""

    def __init__(self, path: Path, format: str) -> None:
        self.path, self.format = path, format
        self.files = tuple(storage(path)) if path.is_dir() else (path,)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The library's reader. Raises InputError when it will not open the bag, ConfigError where it is missing."""
        try:
            from rosbags.rosbag1 import Reader as Reader1
            from rosbags.rosbag2 import Reader as Reader2
        except ImportError as error:
            raise ConfigError("reading ROS bags takes the package rosbags; pip install 'evlift[ros]'") from error
        try:
            bag: Any = Reader1(self.path) if self.format == "rosbag1" else Reader2(self.path)
            if self.path.is_file():
                part: Any = bag if self.format == "rosbag1" else bag.storage
                part.path = _Whole(part.path)
            bag.open()
        except Exception as error:
            raise InputError(f"{self.path} cannot be opened ({self._fault(error)}); {_MEND[self.format]}") from error
        try:
            yield bag
        finally:
            with suppress(Exception):
                bag.close()

    def messages(self, bag: Any, topics: list[str | None], problems: Problems) -> Iterator[Message]:
        """The messages of some topics as they were recorded.

        What the library stumbles over is stepped over: it starts anew a millisecond later, then two, four, and so on.
        Raises InputError when it finds nothing but faults.
        """
        links = [link for link in bag.connections if link.topic in topics]
        if not links:
            return
        totals = bag.topics  # ROS 1 counts twice: here its chunks, in the links its index
        expected, number = sum(totals[topic].msgcount for topic in {link.topic for link in links}), 0
        expected = max(expected, sum(link.msgcount for link in links))
        start: int | None = None
        stride = 1_000_000  # ns
        fault = ""
        while True:
            try:
                for link, recorded, data in _guarded(bag.messages(links, start=start)):
                    number, start = number + 1, recorded
                    done = min(number / expected, 1.0) if expected > 0 else 1.0
                    yield Message(kind_of(link), recorded // 1000, data, _chunk(bag), done)
                break
            except _Fault as error:
                at = _chunk(bag)
                fault = fault or self._fault(error.cause, at)
                problems.count(f"stretch of the bag that cannot be read ({_reason(error.cause)}), left out", at=at)
                if self.format == "rosbag1":
                    bag.current_chunk = (-1, BytesIO())  # else the library goes on in a chunk that it has closed
                start, stride = (bag.start_time if start is None else start) + stride, 2 * stride
                if start >= bag.end_time:
                    break
        if fault and not number:
            raise InputError(f"{self.path} holds no message that can be read ({fault}); {_MEND[self.format]}")
        self._say_unnoticed(bag, problems)
        if number < expected:
            problems.say(f"{expected} messages of {links[0].topic} in the bag's index, {number} of them found")

    def _say_unnoticed(self, bag: Any, problems: Problems) -> None:
        """Losses that the library passes over."""
        if self.format == "rosbag1":
            known = {link.id for link in bag.connections}
            counts = [item for chunk in bag.chunk_infos for item in chunk.connection_counts.items()]
            if strays := sum(count for number, count in counts if number not in known):
                problems.say(f"{strays} messages of no topic that the bag names, left out")
            return
        for part in getattr(bag.storage, "storages", [bag.storage]):
            if getattr(part, "chunks", None) == [] and bag.message_count:
                name = part.path.name
                problems.say(f"{name} has no index of chunks: a loss after a damaged place goes unnoticed")
        for file in self.files:
            _say_lost_pages(file, problems)

    def _fault(self, error: Exception, at: int | None = None) -> str:
        if at is not None:
            return f"{_reason(error)}, at byte {at}"
        if self.path.is_file():
            return f"{_reason(error)}; the file ends at byte {self.path.stat().st_size}"
        return _reason(error)


class _Whole:
    """A path whose file is never asked for more than it holds: a damaged length must not reserve memory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path, name)

    def __str__(self) -> str:
        return str(self._path)

    def open(self, mode: str) -> BufferedReader:
        return _WholeFile(open(self._path, mode, buffering=0))


class _WholeFile(BufferedReader):
    def __init__(self, raw: Any) -> None:
        super().__init__(raw)
        self._size = raw.seek(0, 2)
        raw.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size > (rest := max(self._size - self.tell(), 0)):
            size = -1 if size is None else rest
        return super().read(size)


class _Fault(Exception):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


def _guarded(stream: Iterator[Any]) -> Iterator[tuple[Any, int, bytes]]:
    """The same, but whatever fails inside the library is a _Fault; what fails outside of it stays what it is."""
    while True:
        try:
            link, recorded, data = next(stream)
            recorded = int(recorded)
        except StopIteration:
            return
        except Exception as error:
            raise _Fault(error) from error
        yield link, recorded, data


def _chunk(bag: Any) -> int | None:
    """The byte at which the chunk at hand begins. Only of ROS 1 bags does the library tell."""
    at, chunk = getattr(bag, "current_chunk", (-1, None))
    if chunk is not None and chunk.closed:  # it failed on its way into the next chunk
        return min((position for position in bag.chunks if position > at), default=None)
    return at if at >= 0 else None


def _say_lost_pages(file: Path, problems: Problems) -> None:
    """What a cut has taken from a .db3 file: SQLite takes it for empty pages."""
    with suppress(OSError, struct.error), open(file, "rb") as source:
        head, size = source.read(100), source.seek(0, 2)
        if head.startswith(b"SQLite format 3\0"):
            (page,), (pages,) = struct.unpack_from(">H", head, 16), struct.unpack_from(">I", head, 28)
            if size < (65536 if page == 1 else page) * pages:
                problems.say(f"{file.name} ends at byte {size} before its last page: messages are lost")


def _reason(error: Exception) -> str:
    """An exception's reason in a line, never so long as to hide the rest."""
    return one_line(error)[:200] or type(error).__name__
