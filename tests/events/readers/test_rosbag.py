"""ROS bags. The library rosbags writes and serialises them, so that expected values never pass through our decoders."""

import struct
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest

from evlift.errors import ConfigError, InputError
from evlift.events.readers import rosbag
from evlift.events.readers.reader import CHUNK, Problems, Reader, Stated
from evlift.events.readers.ros_messages import Cursor, PacketDecoder, dvs_events, read_packet

pytest.importorskip("rosbags", reason="ROS bags need the extra evlift[ros]")

from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

SAMPLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "formats" / "evt3_ros1.bag"
CONTAINERS = ("bag", "db3", "mcap")

DEFINITIONS = {  # github.com/uzh-rpg/rpg_dvs_ros (dvs_msgs) and github.com/ros-event-camera/event_camera_msgs
    "dvs_msgs/msg/Event": "uint16 x\nuint16 y\n{time} ts\nbool polarity",
    "dvs_msgs/msg/EventArray": "std_msgs/Header header\nuint32 height\nuint32 width\ndvs_msgs/Event[] events",
    "prophesee_event_msgs/msg/EventArray": "std_msgs/Header header\nuint32 height\nuint32 width\n"
    "dvs_msgs/Event[] events",
    "event_camera_msgs/msg/EventPacket": "std_msgs/Header header\nuint32 height\nuint32 width\nuint64 seq\n"
    "uint64 time_base\nstring encoding\nbool is_bigendian\nuint8[] events",
}


def make_store(ros1: bool):
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    for name, text in DEFINITIONS.items():
        store.register(get_types_from_msg(text.format(time="time" if ros1 else "builtin_interfaces/Time"), name))
    return store


STORES = {True: make_store(True), False: make_store(False)}


class Ros:
    """Builds and serialises messages of one generation of ROS."""

    def __init__(self, ros1: bool, little: bool = True):
        self.ros1, self.little, self.store, self.types = ros1, little, STORES[ros1], STORES[ros1].types

    def time(self, ns: int):
        return self.types["builtin_interfaces/msg/Time"](sec=ns // 10**9, nanosec=ns % 10**9)

    def header(self, ns: int):
        seq = {"seq": 7} if self.ros1 else {}
        return self.types["std_msgs/msg/Header"](stamp=self.time(ns), frame_id="cam", **seq)

    def data(self, kind: str, **fields) -> tuple[str, bytes]:
        message = self.types[kind](**fields)
        if self.ros1:
            return kind, bytes(self.store.serialize_ros1(message, kind))
        return kind, bytes(self.store.serialize_cdr(message, kind, little_endian=self.little))

    def dvs(self, events, stamp=0, height=480, width=640, package="dvs_msgs"):
        make = self.types["dvs_msgs/msg/Event"]
        array = [make(x=x, y=y, ts=self.time(ns), polarity=p) for x, y, ns, p in events]
        kind = f"{package}/msg/EventArray"
        return self.data(kind, header=self.header(stamp), height=height, width=width, events=array)

    def packet(self, payload: bytes, encoding="evt3", stamp=0, seq=0, time_base=0, big=False, height=480, width=640):
        fields = dict(header=self.header(stamp), height=height, width=width, seq=seq, time_base=time_base)
        events = np.frombuffer(payload, np.uint8)
        kind = "event_camera_msgs/msg/EventPacket"
        return self.data(kind, **fields, encoding=encoding, is_bigendian=big, events=events)

    def image(self, data: bytes, height, width, encoding, step, stamp=0, big=0):
        fields = dict(header=self.header(stamp), height=height, width=width, encoding=encoding, is_bigendian=big)
        return self.data("sensor_msgs/msg/Image", **fields, step=step, data=np.frombuffer(data, np.uint8))

    def compressed(self, data: bytes, format="jpeg", stamp=0):
        kind = "sensor_msgs/msg/CompressedImage"
        return self.data(kind, header=self.header(stamp), format=format, data=np.frombuffer(data, np.uint8))

    def camera_info(self, k, d, r, p, model="plumb_bob"):
        roi = self.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        names = "DKRP" if self.ros1 else "dkrp"
        matrices = dict(zip(names, (np.array(values, float) for values in (d, k, r, p)), strict=True))
        fields = dict(header=self.header(5), height=480, width=640, distortion_model=model, **matrices)
        return self.data("sensor_msgs/msg/CameraInfo", **fields, binning_x=0, binning_y=0, roi=roi)


def write_bag(path: Path, container: str, messages, compression=None) -> Path:
    """messages: (topic, time of recording in ns, (kind, bytes)); the file or folder to open."""
    ros1 = container == "bag"
    if ros1:
        path = path.with_suffix(".bag")
        writer = Writer1(path)
        if compression:
            writer.set_compression(compression)
    else:
        plugin = StoragePlugin.MCAP if container == "mcap" else StoragePlugin.SQLITE3
        writer = Writer2(path, version=9, storage_plugin=plugin)
    with writer:
        links = {}
        for topic, recorded, (kind, data) in messages:
            if topic not in links:
                links[topic] = writer.add_connection(topic, kind, typestore=STORES[ros1])
            writer.write(links[topic], recorded, data)
    return path


def opened(path: Path, **stated):
    head = b"" if path.is_dir() else path.read_bytes()[:4096]
    return rosbag.open_reader(path, rosbag.matches(path, head), Stated(**stated))


def read(reader, problems=None):
    """x, y, t, p of all events in one array each."""
    problems = Problems() if problems is None else problems
    pieces = list(reader.columns(problems))
    assert all(0 < len(piece.t) <= CHUNK for piece in pieces)
    assert [a.dtype for piece in pieces[:1] for a in piece[:4]] == [np.uint16, np.uint16, np.int64, bool][
        : 4 * bool(pieces)
    ]
    return tuple(np.concatenate([piece[i] for piece in pieces]) if pieces else np.zeros(0) for i in range(4))


def same(found, events):
    """Whether columns hold exactly these events (x, y, µs, p)."""
    x, y, t, p = (a.tolist() for a in found)
    return list(zip(x, y, t, p, strict=True)) == list(events)


def some_events(count: int, seed=0, start=1_600_000_000_123_456_789):
    random = np.random.default_rng(seed)
    t = start + np.cumsum(random.integers(0, 5000, count))
    x, y, p = random.integers(0, 640, count), random.integers(0, 480, count), random.integers(0, 2, count)
    return [(int(a), int(b), int(c), bool(d)) for a, b, c, d in zip(x, y, t, p, strict=True)]


def in_us(events):
    return [(x, y, ns // 1000, p) for x, y, ns, p in events]


# ---- containers and events of dvs_msgs


@pytest.mark.parametrize("container", CONTAINERS)
def test_dvs_events_are_those_written(tmp_path, container):
    ros, events = Ros(container == "bag"), some_events(500)
    parts = [events[:1], events[1:3], [], events[3:100], events[100:]]
    messages = [("/dvs/events", 10**9 * (i + 1), ros.dvs(part)) for i, part in enumerate(parts)]
    reader = opened(write_bag(tmp_path / "rec", container, messages))
    assert isinstance(reader, Reader)
    assert reader.format == ("rosbag1" if container == "bag" else "rosbag2")
    assert (reader.height, reader.width, reader.clock, reader.calibration) == (480, 640, "Unix epoch", None)
    assert [file.suffix for file in reader.files] == ["." + container]
    problems = Problems()
    assert same(read(reader, problems), in_us(events))
    assert same(read(reader, problems), in_us(events))  # starts from the beginning
    assert problems.lines() == []
    assert list(reader.columns(problems))[-1].done == 1.0
    assert list(reader.frames(problems)) == []


@pytest.mark.parametrize("compression", [Writer1.CompressionFormat.BZ2, Writer1.CompressionFormat.LZ4])
def test_compressed_chunks(tmp_path, compression):
    events = some_events(200)
    path = write_bag(tmp_path / "rec", "bag", [("/e", 5, Ros(True).dvs(events))], compression)
    assert same(read(opened(path)), in_us(events))


@pytest.mark.parametrize("container", ["db3", "mcap"])
def test_one_file_without_its_folder(tmp_path, container):
    events = some_events(50)
    folder = write_bag(tmp_path / "rec", container, [("/e", 5, Ros(False).dvs(events))])
    reader = opened(folder / f"rec.{container}")
    assert reader.format == ("mcap" if container == "mcap" else "rosbag2")
    assert reader.files == (folder / f"rec.{container}",)
    assert same(read(reader), in_us(events))


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("frame", ["", "a", "ab", "abc", "abcd"])
def test_cdr_alignment_and_byte_order(little, frame):
    """Whatever the length of the string in front, events stand where the serialiser has put them."""
    ros, events = Ros(False, little), some_events(9)
    make = ros.types["dvs_msgs/msg/Event"]
    header = ros.types["std_msgs/msg/Header"](stamp=ros.time(1), frame_id=frame)
    array = [make(x=x, y=y, ts=ros.time(ns), polarity=p) for x, y, ns, p in events]
    for n in (0, 1, 2, 9):
        _, data = ros.data("dvs_msgs/msg/EventArray", header=header, height=3, width=4, events=array[:n])
        cursor, problems = Cursor(data, cdr=True), Problems()
        assert (cursor.header(), cursor.number("I"), cursor.number("I")) == (1, 3, 4)
        pieces = list(dvs_events(cursor, problems, None))
        assert sum(len(piece.t) for piece in pieces) == n and problems.lines() == []
        assert n == 0 or same(pieces[0][:4], in_us(events[:n]))


@pytest.mark.parametrize("cdr", [False, True])
def test_a_message_larger_than_a_chunk(cdr, monkeypatch):
    from evlift.events.readers import ros_messages

    monkeypatch.setattr(ros_messages, "CHUNK", 64)
    events = some_events(200)
    _, data = Ros(not cdr).dvs(events)
    cursor = Cursor(data, cdr)
    cursor.header(), cursor.number("I"), cursor.number("I")
    pieces = list(dvs_events(cursor, Problems(), None))
    assert [len(piece.t) for piece in pieces] == [64, 64, 64, 8]
    assert same([np.concatenate([piece[i] for piece in pieces]) for i in range(4)], in_us(events))


def test_a_prophesee_driver_writes_the_same_message(tmp_path):
    events = some_events(20)
    path = write_bag(tmp_path / "rec", "bag", [("/e", 5, Ros(True).dvs(events, package="prophesee_event_msgs"))])
    assert same(read(opened(path)), in_us(events))


def test_nanoseconds_are_floored(tmp_path):
    events = [(1, 2, 10**18 + 999, True), (3, 4, 10**18 + 1000, False), (5, 6, 10**18 + 1_999_999_999, True)]
    path = write_bag(tmp_path / "rec", "bag", [("/e", 5, Ros(True).dvs(events))])
    assert read(opened(path))[2].tolist() == [10**15, 10**15 + 1, 10**15 + 1_999_999]


# ---- packets of event_camera_msgs


def slow_evt3(payload: bytes):
    """EVT3 word by word (docs.prophesee.ai, EVT 3.0): events (x, y, µs, p) once time and row are known."""
    high = low = y = base = None
    sign, loops, events = 0, 0, []
    for (word,) in struct.iter_unpack("<H", payload):
        code, value = word >> 12, word & 0xFFF
        if code == 0x8:
            loops += high is not None and high - value > 2048
            high, low = value, low if high is not None else None
        elif code == 0x6 and high is not None:
            low = value
        elif code == 0x0:
            y = value & 0x7FF
        elif code == 0x3:
            base, sign = value & 0x7FF, value >> 11
        elif code in (0x2, 0x4, 0x5):
            width = {0x2: 1, 0x4: 12, 0x5: 8}[code]
            if low is not None and y is not None:
                t = (loops << 24) + (high << 12) + low
                if code == 0x2:
                    events.append((value & 0x7FF, y, t, bool(value >> 11)))
                else:
                    events += [(base + i, y, t, bool(sign)) for i in range(width) if value >> i & 1]
            base = base + width if code != 0x2 else base
    return events


def evt3_words(events):
    """EVT3 of single events (x, y, µs, p): time, row and column, each only when it changes."""
    words, high, low, row = [], None, None, None
    for x, y, t, p in events:
        if t >> 12 != high:
            high, low = t >> 12, None
            words.append(0x8000 | high & 0xFFF)
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(0x6000 | low)
        if y != row:
            row = y
            words.append(row)
        words.append(0x2000 | p << 11 | x)
    return struct.pack(f"<{len(words)}H", *words)


@pytest.mark.parametrize("container", CONTAINERS)
def test_evt3_runs_on_from_packet_to_packet(tmp_path, container):
    events = [(x, y, ns // 1000 % 10**7 + 10**6, p) for x, y, ns, p in some_events(400)]
    payload = evt3_words(events)
    assert slow_evt3(payload) == events
    ros, cuts = Ros(container == "bag"), [0, 10, 12, 300, 302, len(payload)]  # an event is cut off its time and row
    messages = [
        ("/event_camera/events", 10**9 + i, ros.packet(payload[a:b], seq=40 + i))
        for i, (a, b) in enumerate(pairwise(cuts))
    ]
    reader, problems = opened(write_bag(tmp_path / "rec", container, messages)), Problems()
    assert (reader.height, reader.width, reader.clock) == (480, 640, "camera start")
    assert same(read(reader, problems), events)
    assert problems.lines() == []


def test_lost_packets_and_odd_bytes_are_told(tmp_path):
    events = [(1, 2, 5000 + i, True) for i in range(4)]
    ros = Ros(True)
    payloads = [(0, evt3_words(events[:2])), (3, evt3_words(events[2:3]) + b"\x01"), (4, evt3_words(events[3:]))]
    path = write_bag(tmp_path / "rec", "bag", [("/e", 9, ros.packet(part, seq=seq)) for seq, part in payloads])
    problems = Problems()
    assert same(read(opened(path), problems), events)
    lost, odd = problems.lines()
    assert lost.startswith("1 × jump in the event packets' sequence numbers") and "(at byte 4109)" in lost
    assert odd.startswith("1 × event packet that ends within a word")


@pytest.mark.parametrize("big", [False, True])
def test_mono(tmp_path, big):
    """dt 32 bits, x 16, y 15, p 1; sensor time in ns is time_base + dt."""
    base, events = 7_000_000_555, [(3, 4, 0, True), (65535, 32767, 444, False), (639, 479, 2**32 - 1, True)]
    order = ">" if big else "<"
    payload = b"".join(struct.pack(order + "Q", p << 63 | y << 48 | x << 32 | dt) for x, y, dt, p in events)
    message = Ros(False).packet(payload, "mono", time_base=base, big=big)
    reader = opened(write_bag(tmp_path / "rec", "db3", [("/e", 9, message)]))
    assert reader.clock == "camera start"
    assert same(read(reader), [(x, y, (base + dt) // 1000, p) for x, y, dt, p in events])


def test_libcaer_with_a_wrap_of_its_clock(tmp_path):
    base, ticks = 1_700_000_000_000_000_999, [2**31 - 2, 2**31 - 1, 1]
    words = [(1 | 1 << 1 | 259 << 2 | 345 << 17, ticks[0]), (1 | 0 | 2 << 17, ticks[1]), (1 | 2 | 4, ticks[2])]
    payload = b"".join(struct.pack("<II", *word) for word in words)
    message = Ros(False).packet(payload, "libcaer", time_base=base)
    reader, problems = opened(write_bag(tmp_path / "rec", "mcap", [("/e", 9, message)])), Problems()
    start = base // 1000
    expected = [(345, 259, start + 2**31 - 2, True), (2, 0, start + 2**31 - 1, False), (0, 1, start + 2**31 + 1, True)]
    assert reader.clock == "Unix epoch"
    assert same(read(reader, problems), expected)
    assert problems.lines() == ["1 × wrap of the 31-bit clock, undone"]


def slow_libcaer_cmp(packets):
    """Word by word, as the table in ros_messages.py has it; packets: (time_base ns, words)."""
    x = base_y = sign = None
    events = []
    for base, words in packets:
        high = low = 0
        for word in words:
            code, value = word >> 12, word & 0xFFF
            t = base // 1000 + (high << 12) + low
            if code == 0:
                high = value
            elif code == 1:
                low = value
            elif code == 2:
                x = value & 0x7FF
            elif code == 3 and x is not None:
                events.append((x, value & 0x7FF, t, bool(value >> 11)))
            elif code == 4:
                base_y, sign = value & 0x7FF, value >> 11
            elif code == 5 and base_y is not None:
                if x is not None:
                    events += [(x, base_y + i, t, bool(sign)) for i in range(8) if value >> i & 1]
                base_y += 8
    return events


@pytest.mark.parametrize("piece", [8, 1 << 17])
def test_libcaer_cmp_equals_a_word_by_word_decoder(monkeypatch, piece):
    from evlift.events.readers import ros_messages

    monkeypatch.setattr(ros_messages, "PIECE", piece)
    random = np.random.default_rng(3)
    packets = [(10**18 + 10**6 * i + 7, []) for i in range(20)]
    for _, words in packets:
        for _ in range(random.integers(1, 120)):
            code = int(random.choice(6, p=[0.1, 0.1, 0.2, 0.2, 0.2, 0.2]))
            limit = {2: 346, 3: 260, 4: 64, 5: 256}.get(code, 4096)
            sign = int(random.integers(0, 2)) << 11 if code in (3, 4) else 0
            words.append(code << 12 | sign | int(random.integers(0, limit)))
    decoder, found = PacketDecoder(), []
    for seq, (base, words) in enumerate(packets):
        payload = struct.pack(f"<{len(words)}H", *words)
        _, data = Ros(False).packet(payload, "libcaer_cmp", seq=seq, time_base=base)
        packet = read_packet(Cursor(data, True), Problems(), None)
        found += decoder.decode(packet, Problems(), None)
    columns = [np.concatenate([piece[i] for piece in found]) for i in range(4)]
    expected = slow_libcaer_cmp(packets)
    assert len(expected) > 500
    assert same(columns, expected)


def test_an_encoding_that_is_not_read(tmp_path):
    path = write_bag(tmp_path / "rec", "bag", [("/e", 9, Ros(True).packet(b"\0" * 8, "trigger"))])
    with pytest.raises(
        InputError, match=r"no message of /e can be decoded \(encoding 'trigger', which .* at byte 4109"
    ):
        read(opened(path))


def test_the_real_sample_equals_an_independent_decoder():
    if not SAMPLE.exists():
        pytest.skip("needs ../shared/data/formats/evt3_ros1.bag")
    evt3 = pytest.importorskip("evt3")
    from rosbags.highlevel import AnyReader

    with AnyReader([SAMPLE]) as bag:
        payload = b"".join(bag.deserialize(data, link.msgtype).events.tobytes() for link, _, data in bag.messages())
    reader, problems = opened(SAMPLE), Problems()
    x, y, t, p = read(reader, problems)
    slow = slow_evt3(payload)
    assert (reader.height, reader.width, reader.clock) == (480, 640, "camera start")
    assert same((x, y, t, p), slow)
    triggers = np.count_nonzero(np.frombuffer(payload, "<u2") >> 12 == 0xA)
    assert problems.lines() == [f"{triggers} × external trigger, left out"]
    decoder = evt3.Decoder(sensor_width=640, sensor_height=480)
    events = [decoder.feed(payload), decoder.finish()]
    for ours, name in ((x, "x"), (y, "y"), (t, "timestamp"), (p, "polarity")):
        theirs = np.concatenate([np.asarray(getattr(part, name)) for part in events if part is not None])
        np.testing.assert_array_equal(ours, theirs.astype(ours.dtype))
    assert 2.07e6 < t[-1] - t[0] < 2.09e6


# ---- topics, calibration, sizes


def test_topics_are_chosen_and_the_others_named(tmp_path):
    ros, one, two = Ros(True), some_events(5, seed=1), some_events(7, seed=2)
    grey = ros.image(bytes(4), 2, 2, "mono8", 2, stamp=9000)
    light = ros.image(bytes([9] * 4), 2, 2, "mono8", 2, stamp=9000)
    messages = [
        ("/b/events", 1, ros.dvs(two)),
        ("/a/events", 2, ros.dvs(one)),
        ("/aa/image", 3, light),
        ("/a/z_image", 4, grey),
    ]
    path = write_bag(tmp_path / "rec", "bag", messages)
    reader, problems = opened(path), Problems()
    assert same(read(reader, problems), in_us(one))
    assert next(iter(reader.frames(problems))).image.tolist() == [[0, 0], [0, 0]]  # the one beside the events
    assert problems.lines() == [
        "also topics of events, not read: /b/events; name one as the stream",
        "also topics of images, not read: /aa/image; name one as the image stream",
    ]
    reader = opened(path, stream="/b/events", image_stream="/aa/image")
    assert same(read(reader), in_us(two))
    assert next(iter(reader.frames(Problems()))).image.tolist() == [[9, 9], [9, 9]]
    with pytest.raises(ConfigError, match=r"no topic of events '/c'; the bag has /a/events, /b/events"):
        opened(path, stream="/c")
    with pytest.raises(ConfigError, match=r"no topic of images '/c'"):
        opened(path, image_stream="/c")


def test_a_bag_without_events(tmp_path):
    path = write_bag(tmp_path / "rec", "bag", [("/im", 3, Ros(True).image(bytes(4), 2, 2, "mono8", 2))])
    with pytest.raises(
        InputError, match=r"has no topic of events, only /im \(sensor_msgs/Image\); evlift reads dvs_msgs"
    ):
        opened(path)


@pytest.mark.parametrize("container", ["bag", "mcap"])
@pytest.mark.parametrize("d", [[], [0.1, -0.2, 0.3, 0.4, 0.5]])
def test_calibration(tmp_path, container, d):
    ros = Ros(container == "bag")
    k, r, p = [1.5 * i for i in range(9)], [float(i) for i in range(9)], [0.25 * i for i in range(12)]
    messages = [
        ("/left/camera_info", 1, ros.camera_info([0.0] * 9, d, r, p)),
        ("/cam/camera_info", 2, ros.camera_info(k, d, r, p)),
        ("/cam/events", 3, ros.dvs(some_events(2))),
    ]
    reader = opened(write_bag(tmp_path / "rec", container, messages))
    expected = {"model": "plumb_bob", "width": 640, "height": 480, "K": k, "D": d, "R": r, "P": p}
    assert reader.calibration == expected


def test_a_size_that_only_the_user_knows(tmp_path):
    path = write_bag(tmp_path / "rec", "bag", [("/e", 3, Ros(True).dvs(some_events(2), height=0, width=0))])
    assert (opened(path).height, opened(path).width) == (None, None)
    assert (opened(path, size=(180, 240)).height, opened(path, size=(180, 240)).width) == (180, 240)


# ---- images


def one_image(tmp_path, message):
    ros = Ros(False)
    path = write_bag(tmp_path / "rec", "db3", [("/c/events", 1, ros.dvs(some_events(2))), ("/c/image", 2, message)])
    problems = Problems()
    return [frame.image for frame in opened(path).frames(problems)], problems.lines()


RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
ALPHA = np.full((2, 3, 1), 77, np.uint8)


@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("mono8", RGB[..., 0], RGB[..., 0]),
        ("8UC1", RGB[..., 0], RGB[..., 0]),
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgba8", np.concatenate([RGB, ALPHA], 2), RGB),
        ("bgra8", np.concatenate([RGB[..., ::-1], ALPHA], 2), RGB),
        ("mono16", RGB[..., 0].astype("<u2") * 256 + 255, RGB[..., 0]),
        ("bgr16", RGB[..., ::-1].astype("<u2") * 256 + 1, RGB),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_encodings_of_images(tmp_path, encoding, pixels, expected, padding):
    rows = [np.ascontiguousarray(row).tobytes() + b"\xee" * padding for row in pixels]
    message = Ros(False).image(b"".join(rows), 2, 3, encoding, len(rows[0]))
    images, problems = one_image(tmp_path, message)
    assert problems == ["1 × image without a time stamp, given the time of its recording"]
    assert images[0].dtype == np.uint8 and images[0].flags.c_contiguous
    np.testing.assert_array_equal(images[0], expected)


def test_big_endian_samples(tmp_path):
    message = Ros(False).image(bytes([1, 2, 3, 4]), 1, 2, "mono16", 4, big=1)
    assert one_image(tmp_path, message)[0][0].tolist() == [[1, 3]]


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("depth", [8, 16])
def test_mosaics(tmp_path, pattern, depth):
    """A mosaic of one colour: its rows start with the letters of its name."""
    colour = dict(r=200, g=100, b=50)
    tile = np.array([[colour[pattern[0]], colour[pattern[1]]], [colour[pattern[2]], colour[pattern[3]]]])
    mosaic = np.tile(tile, (4, 5)).astype("u1" if depth == 8 else "<u2") * (1 if depth == 8 else 256)
    message = Ros(False).image(mosaic.tobytes(), 8, 10, f"bayer_{pattern}{depth}", 10 * depth // 8)
    (image,), _ = one_image(tmp_path, message)
    assert image.shape == (8, 10, 3)
    assert np.unique(image.reshape(-1, 3), axis=0).tolist() == [[200, 100, 50]]


@pytest.mark.parametrize(("encoding", "cell"), [("yuv422", (128, 90, 128, 90)), ("yuv422_yuy2", (90, 128, 90, 128))])
def test_yuv422(tmp_path, encoding, cell):
    """Grey: U = V = 128, and Y 16…235 is 0…255."""
    message = Ros(False).image(bytes(cell) * 8, 4, 4, encoding, 8)
    (image,), _ = one_image(tmp_path, message)
    assert image.shape == (4, 4, 3)
    assert np.abs(image.astype(int) - round((90 - 16) * 255 / 219)).max() <= 1


def test_compressed_images(tmp_path):
    import cv2
    import simplejpeg

    colour, grey = np.full((16, 24, 3), (200, 100, 50), np.uint8), np.full((16, 24), 80, np.uint8)
    jpeg = simplejpeg.encode_jpeg(colour, quality=100, colorspace="RGB", colorsubsampling="444")
    jpeg_grey = simplejpeg.encode_jpeg(grey[..., None], quality=100, colorspace="GRAY", colorsubsampling="Gray")
    png = cv2.imencode(".png", np.ascontiguousarray(colour[..., ::-1]))[1].tobytes()
    png16 = cv2.imencode(".png", grey.astype(np.uint16) * 256 + 7)[1].tobytes()
    mosaic = np.tile(np.array([[200, 100], [100, 50]], np.uint8), (4, 4))
    png_mosaic = cv2.imencode(".png", mosaic)[1].tobytes()
    ros = Ros(True)
    files = [(jpeg, "rgb8; jpeg compressed bgr8"), (jpeg_grey, "jpeg"), (png, "png"), (png16, "mono16; png compressed")]
    files += [(png_mosaic, "bayer_rggb8; png compressed")]
    messages = [("/e", 1, ros.dvs(some_events(2)))]
    for i, (data, format) in enumerate(files):
        messages.append(("/image", 2 + i, ros.compressed(data, format, stamp=10**9 + i)))
    bad = [png[:-20], png[:60] + b"\x00\x00" + png[62:], jpeg[:90], b"", b"GIF89a", claim_png(60000, 60000)]
    messages += [("/image", 20 + i, ros.compressed(data, "png", stamp=2 * 10**9 + i)) for i, data in enumerate(bad)]
    problems = Problems()
    images = [frame.image for frame in opened(write_bag(tmp_path / "rec", "bag", messages)).frames(problems)]
    assert len(images) == 5
    assert np.abs(images[0].astype(int) - (200, 100, 50)).max() <= 2
    assert images[1].shape == (16, 24) and np.abs(images[1].astype(int) - 80).max() <= 1
    np.testing.assert_array_equal(images[2], colour)
    np.testing.assert_array_equal(images[3], grey)
    assert np.unique(images[4].reshape(-1, 3), axis=0).tolist() == [[200, 100, 50]]
    lines = problems.lines()
    assert sum(int(line.split(" ×")[0]) for line in lines) == len(bad)
    assert any("claim 60000×60000 pixels" in line for line in lines)


def claim_png(width, height):
    """A PNG of a few bytes whose header, checksum and end are right."""
    import zlib

    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (dict(height=2, width=3, encoding="mono8", step=2), "for 3×2 mono8 with a step of 2"),
        (dict(height=4, width=3, encoding="mono8", step=3), "9 bytes of data for 3×4"),
        (dict(height=0, width=3, encoding="mono8", step=3), "for 3×0"),
        (dict(height=2, width=2**31, encoding="rgb8", step=9), "for 2147483648×2"),
        (dict(height=2, width=3, encoding="32FC1", step=3), "encoding '32FC1', which evlift does not read"),
        (dict(height=2, width=3, encoding="mono", step=3), "encoding 'mono', which"),
        (dict(height=3, width=3, encoding="bayer_xxxx8", step=3), "encoding 'bayer_xxxx', which"),
        (dict(height=2, width=2, encoding="bayer_rggb8", step=2), "too few for bayer_rggb"),
    ],
)
def test_images_that_cannot_be(tmp_path, fields, reason):
    images, lines = one_image(tmp_path, Ros(False).image(bytes(9), stamp=5000, **fields))
    assert images == []
    assert len(lines) == 1 and reason in lines[0] and lines[0].endswith("set aside")


def test_image_times_and_order(tmp_path):
    """dvs_msgs: both on ROS time. A few late images are put in order; one that is far too late is set aside."""
    ros = Ros(True)
    stamps = [30, 10, 20, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 5, 140]
    messages = [("/events", 1, ros.dvs(some_events(2)))]
    messages += [
        ("/image", 10 + i, ros.image(bytes([s]), 1, 1, "mono8", 1, stamp=10**18 + s * 1000 + 999))
        for i, s in enumerate(stamps)
    ]
    problems = Problems()
    frames = list(opened(write_bag(tmp_path / "rec", "bag", messages)).frames(problems))
    assert [frame.t_us - 10**15 for frame in frames] == sorted(set(stamps) - {5})
    assert [frame.image[0, 0] for frame in frames] == sorted(set(stamps) - {5})
    assert [frame.exposure_us for frame in frames] == [0] * 14
    assert [line.split(" (")[0] for line in problems.lines()] == ["1 × image earlier than the one before it, set aside"]


def test_images_are_brought_to_the_sensor_clock(tmp_path):
    """ROS time runs 5e14 µs ahead and gains 100 ppm; packets arrive 200 µs late at best, images are stamped exactly."""
    ros, random = Ros(False), np.random.default_rng(0)

    def ros_time(t):  # µs of the sensor → ns
        return (500_000_000_000_000 + t) * 1000 + t // 10

    messages = []
    for i, t in enumerate(range(1_000_000, 61_000_000, 50_000)):
        late = 200 if i % 20 == 0 else int(random.integers(200, 9000))
        packet = ros.packet(evt3_words([(1, 2, t, True), (1, 2, t + 900, True)]), seq=i, stamp=ros_time(t + late))
        messages.append(("/cam/events", ros_time(t + late), packet))
    times = list(range(2_000_000, 60_000_000, 700_000))
    messages += [("/cam/image", ros_time(t), ros.image(b"a", 1, 1, "mono8", 1, stamp=ros_time(t))) for t in times]
    messages.sort(key=lambda message: message[1])
    reader, problems = opened(write_bag(tmp_path / "rec", "mcap", messages)), Problems()
    found = np.array([frame.t_us for frame in reader.frames(problems)])
    assert problems.lines() == []
    early = np.array(times) - found  # the least delay, less what the clocks drift apart within 5 s
    assert -600 < early.min() <= early.max() < 800
    assert read(reader)[2][:2].tolist() == [1_000_000, 1_000_900]


# ---- damage


def test_no_index_and_a_cut(tmp_path):
    path = write_bag(tmp_path / "rec", "bag", [("/e", 1, Ros(True).dvs(some_events(100)))])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"the file ends at byte {len(whole) // 2}\); .*'rosbag reindex'"):
        opened(path)
    start = whole.index(b"index_pos=") + len("index_pos=")
    path.write_bytes(whole[:start] + bytes(8) + whole[start + 8 :])
    with pytest.raises(InputError, match=r"not indexed.*run 'rosbag reindex' on a copy"):
        opened(path)
    path.write_bytes(whole.replace(b"#ROSBAG V2.0", b"#ROSBAG V1.2"))
    with pytest.raises(InputError, match=r"version 102"):
        opened(path)


def test_a_cut_mcap_and_a_folder_without_metadata(tmp_path):
    folder = write_bag(tmp_path / "rec", "mcap", [("/e", 1, Ros(False).dvs(some_events(100)))])
    (folder / "metadata.yaml").unlink()
    with pytest.raises(InputError, match=r"metadata.*'ros2 bag reindex'"):
        opened(folder)
    path = folder / "rec.mcap"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"ends at byte \d+\); .*'mcap recover'"):
        opened(path)


def test_a_damaged_chunk_costs_no_more_than_its_neighbourhood(tmp_path):
    ros, events = Ros(True), some_events(4000)
    parts = [events[i : i + 400] for i in range(0, 4000, 400)]
    path = tmp_path / "rec.bag"
    writer = Writer1(path)
    writer.set_compression(Writer1.CompressionFormat.LZ4)
    with writer:
        writer.chunk_threshold = 3000  # a chunk a message
        link = writer.add_connection("/e", "dvs_msgs/msg/EventArray", typestore=ros.store)
        for i, part in enumerate(parts):
            writer.write(link, 10**9 * (i + 1), ros.dvs(part)[1])
    data = bytearray(path.read_bytes())
    chunks = [at for at in range(len(data)) if data.startswith(b"\x04\x22\x4d\x18", at)]  # magic of an LZ4 frame
    assert len(chunks) == 10
    data[chunks[4]] ^= 1
    path.write_bytes(data)
    problems = Problems()
    found = read(opened(path), problems)
    assert same(found, in_us(chain(*parts[:4], *parts[5:])))
    stretch, counted = problems.lines()
    assert "stretch of the bag that cannot be read" in stretch
    at = int(stretch.rpartition("byte ")[2].rstrip(")"))
    assert chunks[3] < at < chunks[4]  # where that chunk's record begins
    assert counted == "10 messages of /e in the bag's index, 9 of them found"


def test_losses_that_the_library_passes_over(tmp_path):
    events, ros = some_events(400), Ros(False)
    messages = [("/e", 10**9 + i, ros.dvs(events[i * 100 : i * 100 + 100])) for i in range(4)]
    path = write_bag(tmp_path / "sql", "db3", messages) / "sql.db3"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    said, _ = read_all(path, "rosbag2", None)
    assert f"sql.db3 ends at byte {len(whole) - 100} before its last page: messages are lost" in said

    path = write_bag(tmp_path / "mc", "mcap", messages) / "mc.mcap"
    whole = path.read_bytes()
    path.write_bytes(whole[:-28] + bytes(8) + whole[-20:])  # the footer's summary_start
    problems = Problems()
    assert same(read(opened(path), problems), in_us(events))
    assert problems.lines() == ["mc.mcap has no index of chunks: a loss after a damaged place goes unnoticed"]

    path = write_bag(tmp_path / "one", "bag", [("/e", 1, Ros(True).dvs(events))])
    whole = path.read_bytes()
    at = whole.rindex(b"conn=")  # of the connection record in the index
    assert whole[at + 5 : at + 9] == bytes(4)
    path.write_bytes(whole[: at + 5] + b"\x09" + whole[at + 6 :])
    said, _ = read_all(path, "rosbag1", None)
    assert said == ["1 messages of no topic that the bag names, left out"]


def test_arrays_that_claim_more_or_less_than_there_is(tmp_path):
    ros, events = Ros(True), some_events(10)
    kind, data = ros.dvs(events)
    at = len(data) - 13 * 10 - 4
    more = data[:at] + struct.pack("<I", 2**32 - 1) + data[at + 4 :]
    less = data[:at] + struct.pack("<I", 4) + data[at + 4 :]
    messages = [("/e", 1, (kind, more)), ("/e", 2, (kind, less)), ("/e", 3, (kind, data[:20])), ("/e", 4, (kind, data))]
    problems = Problems()
    found = read(opened(write_bag(tmp_path / "rec", "bag", messages)), problems)
    assert same(found, in_us(events + events[:4] + events))
    assert [line.split(" (at")[0] for line in problems.lines()] == [
        "1 × event message that ends before its last event, kept up to there",
        "1 × event message with bytes after its last event, left unread",
        "1 × event message that cannot be decoded (ends early), set aside",
    ]


def mixed_messages(ros):
    """Both sorts of events, an image and a camera_info."""
    events = some_events(300)
    payload = evt3_words([(x, y, ns // 1000 % 10**6, p) for x, y, ns, p in events])
    messages = []
    for i in range(4):
        messages.append(("/a/events", 10**9 + i, ros.packet(payload[i * 600 : i * 600 + 600], seq=i, stamp=10**9 + i)))
        messages.append(("/b/events", 10**9 + i, ros.dvs(events[i * 70 : i * 70 + 70])))
        messages.append(("/a/image", 10**9 + i, ros.image(bytes(range(48)), 4, 4, "rgb8", 12, stamp=10**9 + i)))
    messages.append(("/a/camera_info", 10**9 + 9, ros.camera_info([1.0] * 9, [0.1] * 5, [1.0] * 9, [1.0] * 12)))
    return messages


def read_all(path, format, stream):
    """The fault that was raised, or what was wrong; how many events and images."""
    problems = Problems()
    try:
        reader = rosbag.open_reader(path, format, Stated(stream=stream))
        events = sum(len(piece.t) for piece in reader.columns(problems))
        frames = sum(1 for _ in reader.frames(problems))
    except (InputError, ConfigError) as error:  # ConfigError: damage to a topic's name
        assert "\n" not in str(error)
        return str(error), None
    return [line for line in problems.lines() if not line.startswith("also topics")], (events, frames)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("way", ["cut", "flip"])
def test_damage_anywhere_is_an_input_error_or_is_counted(tmp_path, container, way):
    folder = write_bag(tmp_path / "rec", container, mixed_messages(Ros(container == "bag")))
    path = folder if container == "bag" else folder / f"rec.{container}"
    format = {"bag": "rosbag1", "db3": "rosbag2", "mcap": "mcap"}[container]
    whole = path.read_bytes()
    streams = ("/a/events", "/b/events")
    expected = {stream: read_all(path, format, stream)[1] for stream in streams}
    assert expected["/b/events"] == (280, 4) and expected["/a/events"][1] == 4
    random = np.random.default_rng(11)
    for trial in range(35):
        data = bytearray(whole)
        if way == "cut":
            del data[int(random.integers(0, len(whole))) :]
        else:
            for at in random.integers(0, len(whole), 3):
                data[at] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(data)
        stream = streams[trial % 2]
        said, counts = read_all(path, format, stream)
        if way == "cut":
            assert counts is None or said or counts == expected[stream]
        elif stream == "/b/events":  # a flip within a packet makes other events: nothing in it could tell
            assert counts is None or said or counts[0] == expected[stream][0]


def test_payloads_of_noise():
    """No bytes of a message make anything but Damaged, whatever the serialisation and type."""
    from evlift.events.readers.ros_images import COMPRESSED, IMAGE, decode_image
    from evlift.events.readers.ros_messages import Damaged, camera_info

    random = np.random.default_rng(5)
    for ros1 in (True, False):
        ros = Ros(ros1)
        pick = {kind: data for _, _, (kind, data) in mixed_messages(ros)}
        pick["sensor_msgs/msg/CompressedImage"] = ros.compressed(claim_png(3, 3), "png")[1]
        for kind, data in pick.items():
            for _ in range(60):
                noise = bytearray(data[: int(random.integers(0, len(data) + 1))])
                for at in random.integers(0, max(len(noise), 1), 4 * bool(noise)):
                    noise[at] = int(random.integers(0, 256))
                try:
                    cursor = Cursor(bytes(noise), not ros1)
                    if kind.endswith("CameraInfo"):
                        camera_info(cursor)
                    elif kind.endswith("EventPacket"):
                        list(PacketDecoder().decode(read_packet(cursor, Problems(), 0), Problems(), 0))
                    elif kind.endswith("EventArray"):
                        cursor.header(), cursor.number("I"), cursor.number("I")
                        list(dvs_events(cursor, Problems(), 0))
                    else:
                        cursor.header()
                        decode_image(IMAGE if kind.endswith("/Image") else COMPRESSED, cursor)
                except Damaged as error:
                    assert str(error)


def test_without_the_extra(tmp_path, monkeypatch):
    path = write_bag(tmp_path / "rec", "bag", [("/e", 1, Ros(True).dvs(some_events(1)))])
    monkeypatch.setitem(__import__("sys").modules, "rosbags.rosbag1", None)
    with pytest.raises(ConfigError, match=r"pip install 'evlift\[ros\]'"):
        opened(path)


def test_matches_leaves_others_alone(tmp_path):
    assert rosbag.matches(tmp_path / "a.raw", b"% evt 3.0\n") is None
    assert rosbag.matches(tmp_path, b"") is None
    assert rosbag.matches(tmp_path / "a.sqlite", b"SQLite format 3\0") is None
    (tmp_path / "metadata.yaml").write_text("name: something else\n")
    assert rosbag.matches(tmp_path, b"") is None
