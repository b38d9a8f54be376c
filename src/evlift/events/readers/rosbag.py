"""ROS bags: ROS 1 (.bag), ROS 2 (a folder with metadata.yaml, or one .db3) and MCAP, by way of the `rosbags` library.

    rosbag1   begins "#ROSBAG V2.0" (wiki.ros.org/Bags/Format/2.0); chunks of messages, and an index at the end
    rosbag2   a folder whose metadata.yaml names .db3 (SQLite) or .mcap files, or one .db3 (github.com/ros2/rosbag2)
    mcap      begins and ends 0x89 "MCAP0" CR LF (mcap.dev/spec)

The library finds the messages; ros_messages.py and ros_images.py decode their bytes. Messages come in the order in
which they were recorded. A topic of events is known by its type, and the camera_info beside it is the calibration.
Images of the events' own namespace go before others.

Clocks. Events of dvs_msgs, and of event_camera_msgs from libcaer, carry ROS time, as images do: time 0 is the Unix
epoch. Packets of evt3 and mono carry the sensor's own clock, and `header.stamp` says in ROS time when the driver got
the first bytes of a packet. Such events keep the sensor's exact times, and the images are brought over to them: ROS
time is ahead of the sensor's by at most stamp - t for any packet and its first event t, since nothing arrives before it
has happened. The least of these differences within 5 s of an image is taken from its stamp, so that clocks that drift
apart do no harm. What is left is the driver's least delay, 0.1 to 4 ms by the size of its transfers: the images come
that much too early. A stamp is the time of acquisition; how long the exposure was, ROS does not say.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events.frames import Frame
from evlift.events.readers.reader import CHUNK, Columns, Problems, Stated
from evlift.events.readers.ros_containers import Container, Message, kind_of, storage
from evlift.events.readers.ros_images import COMPRESSED, IMAGE, decode_image
from evlift.events.readers.ros_messages import (
    CAMERA_INFO,
    DVS,
    ON_ROS_TIME,
    PACKET,
    Cursor,
    Damaged,
    PacketDecoder,
    camera_info,
    dvs_events,
    read_packet,
)

FORMATS = {
    "rosbag1": "ROS 1 bag (.bag) with dvs_msgs or event_camera_msgs",
    "rosbag2": "ROS 2 bag (folder or .db3) with dvs_msgs or event_camera_msgs",
    "mcap": "MCAP file of ROS 2 with dvs_msgs or event_camera_msgs",
}
SUFFIXES: dict[str, str] = {}
USES = {name: ("size", "stream", "image_stream") for name in FORMATS}

_BATCH = 1 << 16  # events to collect from small messages before they are handed on
_AHEAD = 8  # images held back to put late ones in order
_NEAR = 5  # seconds around an image in which the clocks are compared


def matches(path: Path, head: bytes) -> str | None:
    if head.startswith(b"#ROSBAG V"):
        return "rosbag1"
    if head.startswith(b"\x89MCAP0\r\n"):
        return "mcap"
    if head.startswith(b"SQLite format 3\0") and path.suffix == ".db3":
        return "rosbag2"
    try:
        if path.is_dir() and (_is_bag(path / "metadata.yaml") or storage(path)):
            return "rosbag2"
    except OSError:
        pass
    return None


def open_reader(path: Path, format: str, stated: Stated) -> BagReader:
    return BagReader(path, format, stated)


def _is_bag(metadata: Path) -> bool:
    if not metadata.is_file():
        return False
    with open(metadata, "rb") as file:
        return b"rosbag2_bagfile_information" in file.read(4096)


class BagReader:
    """A `Reader` of a bag: one topic of events, and at most one of images."""

    sensor = ""

    def __init__(self, path: Path, format: str, stated: Stated) -> None:
        self.path, self.format, self._cdr = path, format, format != "rosbag1"
        self._bag = Container(path, format)
        self.files = self._bag.files
        with self._bag.opened() as bag:
            kinds = {link.topic: kind_of(link) for link in bag.connections}
            topics = sorted(topic for topic, kind in kinds.items() if kind in DVS + PACKET)
            if not topics:
                found = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(kinds.items()))
                raise InputError(f"{path} has no topic of events, only {found or 'none at all'}; {_TYPES}")
            self._topic = _chosen(stated.stream, topics, "topic of events")
            self._others = [topic for topic in topics if topic != self._topic]
            beside = _parent(self._topic)
            images = [topic for topic, kind in kinds.items() if kind in (IMAGE, COMPRESSED)]
            images.sort(key=lambda topic: (_parent(topic) != beside, topic))
            self._image_topic = _chosen(stated.image_stream, images, "topic of images")
            self._other_images = [topic for topic in images if topic != self._image_topic]

            self.height, self.width, ros_time = self._peek(bag)
            if stated.size is not None and not (self.height and self.width):
                self.height, self.width = stated.size
            self.calibration = self._calibration(bag, [topic for topic in kinds if _parent(topic) == beside])
        self._ros_time = ros_time
        self.clock = "Unix epoch" if ros_time else "camera start"

    def columns(self, problems: Problems) -> Iterator[Columns]:
        if self._others:
            problems.say(f"also topics of events, not read: {', '.join(self._others)}; name one as the stream")
        return _grouped(columns for columns, _ in self._events(problems))

    def frames(self, problems: Problems) -> Iterator[Frame]:
        if self._image_topic is None:
            return
        if self._other_images:
            others = ", ".join(self._other_images)
            problems.say(f"also topics of images, not read: {others}; name one as the image stream")
        clocks = None if self._ros_time else self._compare_clocks()
        last = -(1 << 62)
        for stamp, message in self._stamped_images(problems):
            offset = 0 if clocks is None else clocks.offset(stamp)
            if offset is None:
                problems.count("image without packets to compare clocks with, set aside", at=message.at)
                continue
            if stamp - offset < last:
                problems.count("image earlier than the one before it, set aside", at=message.at)
                continue
            try:
                cursor = Cursor(message.data, self._cdr)
                cursor.header()
                image = decode_image(message.kind, cursor)
            except Damaged as error:
                problems.count(f"image that cannot be decoded ({error}), set aside", at=message.at)
                continue
            last = stamp - offset
            yield Frame(last, image)

    def _events(self, problems: Problems) -> Iterator[tuple[Columns, int]]:
        """Events with the stamp, in µs of ROS time, of the message that they begin (else 0)."""
        decoder, good, bad = PacketDecoder(), 0, ""
        with self._bag.opened() as bag:
            for message in self._bag.messages(bag, [self._topic], problems):
                try:
                    for columns, stamp in self._decode(message, decoder, problems):
                        yield columns._replace(done=message.done), stamp
                    good += 1
                except Damaged as error:
                    problems.count(f"event message that cannot be decoded ({error}), set aside", at=message.at)
                    bad = bad or str(error) + (f", at byte {message.at}" if message.at is not None else "")
        if bad and not good:
            raise InputError(f"{self.path}: no message of {self._topic} can be decoded ({bad}); record it again")

    def _decode(self, message: Message, decoder: PacketDecoder, problems: Problems) -> Iterator[tuple[Columns, int]]:
        cursor = Cursor(message.data, self._cdr)
        if message.kind in DVS:
            stamp, height, width = cursor.header(), cursor.number("I"), cursor.number("I")
            found = dvs_events(cursor, problems, message.at)
        else:
            packet = read_packet(cursor, problems, message.at)
            stamp, height, width = packet.stamp, packet.height, packet.width
            found = decoder.decode(packet, problems, message.at)
        if (height, width) != (self.height, self.width) and height and width:
            problems.count(f"event message of another sensor than {self.width}×{self.height}, kept", at=message.at)
        stamp //= 1000
        for columns in found:
            yield columns, stamp
            stamp = 0  # what comes later in a message may be younger than its stamp

    def _compare_clocks(self) -> Clocks:
        clocks = Clocks()
        with suppress(InputError):  # the pass over the events reports what is wrong with them
            for columns, stamp in self._events(Problems()):
                if len(columns.t) and stamp:
                    clocks.add(stamp, int(columns.t[0]))
        return clocks

    def _stamped_images(self, problems: Problems) -> Iterator[tuple[int, Message]]:
        """Images by their stamps in µs; a few are held back, since recording can swap them."""
        waiting: list[tuple[int, int, Message]] = []
        with self._bag.opened() as bag:
            for number, message in enumerate(self._bag.messages(bag, [self._image_topic], problems)):
                try:
                    stamp = Cursor(message.data, self._cdr).header() // 1000
                except Damaged as error:
                    problems.count(f"image that cannot be decoded ({error}), set aside", at=message.at)
                    continue
                if not stamp:
                    problems.count("image without a time stamp, given the time of its recording", at=message.at)
                    stamp = message.recorded
                heapq.heappush(waiting, (stamp, number, message))
                if len(waiting) > _AHEAD:
                    stamp, _, message = heapq.heappop(waiting)
                    yield stamp, message
            while waiting:
                stamp, _, message = heapq.heappop(waiting)
                yield stamp, message

    def _peek(self, bag: Any) -> tuple[int | None, int | None, bool]:
        """Height, width, and whether events are on ROS time, of the first message that says so."""
        for _, message in zip(range(32), self._bag.messages(bag, [self._topic], Problems()), strict=False):
            with suppress(Damaged):
                cursor = Cursor(message.data, self._cdr)
                if message.kind in DVS:
                    _, height, width = cursor.header(), cursor.number("I"), cursor.number("I")
                    return *_plausible(height, width), True
                packet = read_packet(cursor, Problems(), None)
                return *_plausible(packet.height, packet.width), packet.encoding in ON_ROS_TIME
        return None, None, True

    def _calibration(self, bag: Any, topics: list[str]) -> dict[str, Any] | None:
        links = [link.topic for link in bag.connections if link.topic in topics and kind_of(link) == CAMERA_INFO]
        with suppress(InputError):  # events can do without
            for message in self._bag.messages(bag, links[:1], Problems()):
                with suppress(Damaged):
                    return camera_info(Cursor(message.data, self._cdr))
        return None


class Clocks:
    """How far ROS time is ahead of the sensor's: the least difference that any packet shows, second by second."""

    def __init__(self) -> None:
        self._least: dict[int, int] = {}

    def add(self, stamp: int, first: int) -> None:
        second = stamp // 1_000_000
        self._least[second] = min(self._least.get(second, 1 << 62), stamp - first)

    def offset(self, stamp: int) -> int | None:
        """ROS time minus sensor time in µs around a ROS time; None where no packet ever showed it."""
        second = stamp // 1_000_000
        near = [self._least[s] for s in range(second - _NEAR, second + _NEAR + 1) if s in self._least]
        if near or not self._least:
            return min(near, default=None)
        return self._least[min(self._least, key=lambda s: abs(s - second))]


def _grouped(pieces: Iterator[Columns]) -> Iterator[Columns]:
    """The same events in pieces of at least _BATCH, but for the last, and of at most CHUNK."""
    waiting: list[Columns] = []
    count = 0
    for piece in pieces:
        waiting.append(piece)
        count += len(piece.t)
        if count >= _BATCH:
            yield from _joined(waiting)
            waiting, count = [], 0
    if count:
        yield from _joined(waiting)


def _joined(pieces: list[Columns]) -> Iterator[Columns]:
    x, y, t, p = (np.concatenate([piece[i] for piece in pieces]) for i in range(4))
    for start in range(0, len(t), CHUNK):
        cut = slice(start, start + CHUNK)
        yield Columns(x[cut], y[cut], t[cut], p[cut], pieces[-1].done)


_TYPES = f"evlift reads {', '.join(DVS + PACKET[:1])}"


def _plausible(height: int, width: int) -> tuple[int | None, int | None]:
    return (height, width) if 0 < height <= 65536 and 0 < width <= 65536 else (None, None)


def _parent(topic: str) -> str:
    return topic.rpartition("/")[0]


def _chosen(wanted: str | None, topics: list[str], what: str) -> Any:
    if wanted is None:
        return topics[0] if topics else None
    if wanted not in topics:
        raise ConfigError(f"there is no {what} {wanted!r}; the bag has {', '.join(topics) or 'none'}")
    return wanted
