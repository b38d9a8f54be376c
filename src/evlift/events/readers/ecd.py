"""The layout of the Event Camera Dataset: a folder of text files and images.

    events.txt         t x y p              an event a line, t in seconds with decimals, p 1 = brighter
    images.txt         t images/frame_00000000.png
    images/            PNG or JPEG
    calib.txt          fx fy cx cy k1 k2 p1 p2 k3
    imu.txt, groundtruth.txt                not read here

E. Mueggler, H. Rebecq, G. Gallego, T. Delbruck, D. Scaramuzza: The Event-Camera Dataset and Simulator, IJRR 2017;
https://rpg.ifi.uzh.ch/davis_data.html. Only events.txt must be there. A first line ``240 180`` with the sensor's width
and height, as E2VID's text files have it, is understood. Frames carry no exposure time.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np

from evlift.errors import InputError
from evlift.events.frames import Frame
from evlift.events.readers.reader import Columns, Problems, Stated
from evlift.events.readers.table import preamble, read_lines

FORMATS = {"ecd": "Event Camera Dataset: events.txt in seconds, images.txt, calib.txt"}
SUFFIXES: dict[str, str] = {}
USES = {name: ("size",) for name in FORMATS}

CALIBRATION = ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3")
PIXELS = 1 << 24  # of an image at most: a damaged header must not claim the memory
BYTES = 1 << 26  # of an image file at most

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def matches(path: Path, head: bytes) -> str | None:
    """ "ecd" for events.txt, or a folder with it, whose first event is four numbers, the first with a decimal point."""
    events = path / "events.txt" if path.is_dir() else path
    if events.name != "events.txt" or not events.is_file():
        return None
    try:
        fields = preamble(events).fields
    except InputError:
        return None
    if len(fields) != 4 or b"." not in fields[0]:
        return None
    return "ecd" if all(_is_number(f) for f in fields) else None


def open_reader(path: Path, format: str, stated: Stated) -> EcdReader:
    """Open a folder or its events.txt. InputError where events.txt is missing, empty or unreadable."""
    events = path / "events.txt" if path.is_dir() else path
    if not events.is_file():
        raise InputError(f"{path} has no events.txt; give the folder that holds it")
    head = preamble(events)
    if not head.fields:
        raise InputError(f"{events} holds no events; copy it again")
    height, width = _first_image_size(events.parent) or stated.size or head.size or (None, None)
    return EcdReader(events, head.start, height, width, calibration=_calibration(events.parent / "calib.txt"))


@dataclass(eq=False)
class EcdReader:
    """A folder of text and images."""

    path: Path
    """Of the events."""
    start: int
    """Byte offset of the first event."""
    height: int | None
    width: int | None
    calibration: Any
    format: str = "ecd"
    sensor: str = ""
    clock: str = "recording start"

    @property
    def files(self) -> tuple[Path, ...]:
        """The texts, and the folders of the images."""
        folder = self.path.parent
        texts = [path for name in ("images.txt", "calib.txt") if (path := folder / name).is_file()]
        places = {(folder / name).parent for _, _, name in _image_lines(folder, Problems()) if _inside(name)}
        return (self.path, *texts, *sorted(place for place in places if place.is_dir()))

    def columns(self, problems: Problems) -> Iterator[Columns]:
        if self.calibration is None and (self.path.parent / "calib.txt").exists():
            problems.say(f"calib.txt is not the {len(CALIBRATION)} numbers {' '.join(CALIBRATION)}, left out")
        advice = 'for text that is not "t x y p" in seconds, use --format csv'
        return read_lines(self.path, self.start, ("t", "x", "y", "p"), "s", problems, advice)

    def frames(self, problems: Problems) -> Iterator[Frame]:
        last: int | None = None
        for at, t_us, name in _image_lines(self.path.parent, problems):
            if last is not None and t_us < last:
                problems.count("frame whose time goes back, left out", 1, at)
                continue
            image = _load(self.path.parent, name, at, problems)
            if image is not None:
                last = t_us
                yield Frame(t_us, image)


def _microseconds(text: str) -> int:
    """Seconds as whole µs, to the nearest, halves up; ValueError on what is no such time."""
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if len(text) > 100 or not seconds.is_finite() or abs(seconds.adjusted()) > 100:
        raise ValueError(text)
    exact = Context(prec=400)  # enough for the digits and powers let through above
    whole = exact.add(exact.scaleb(seconds, 6), Decimal("0.5")).to_integral_value(ROUND_FLOOR)
    if not -(2**63) <= whole < 2**63:
        raise ValueError(text)
    return int(whole)


def _image_lines(folder: Path, problems: Problems) -> Iterator[tuple[int, int, str]]:
    """(byte offset, time in µs, file) of the lines of images.txt; those that are no such line are counted."""
    path = folder / "images.txt"
    if not path.is_file():
        return
    with open(path, "rb") as file:
        while True:
            at = file.tell()
            line = file.readline(4096)
            if not line:
                return
            words = line.decode("utf-8", "replace").split(maxsplit=1)
            if not words or words[0].startswith("#"):
                continue
            try:
                t_us, name = _microseconds(words[0]), words[1].strip()
            except (ValueError, IndexError):
                problems.count("line of images.txt that is not a time and a file, left out", 1, at)
                continue
            yield at, t_us, name


def _load(folder: Path, name: str, at: int, problems: Problems) -> np.ndarray | None:
    """An image, uint8 [H, W] or [H, W, 3] RGB; None, counted, where it is missing or broken."""
    data = _image_bytes(folder, name)
    if data is None:
        problems.count("frame whose image file is missing, left out", 1, at)
        return None
    size = _image_size(data)
    image = None
    if size is not None and size[0] * size[1] <= PIXELS:
        image = _decode_png(data) if data.startswith(_PNG) else _decode_jpeg(data)
    if image is None:
        problems.count("frame whose image file is broken or no PNG or JPEG of 8 bits, left out", 1, at)
    return image


def _image_bytes(folder: Path, name: str) -> bytes | None:
    if not _inside(name):
        return None
    path = folder / name
    try:
        if not path.is_file() or path.stat().st_size > BYTES:
            return None
        return path.read_bytes()
    except OSError:
        return None


def _inside(name: str) -> bool:
    """Whether a path stays in its folder: a list of images has no business elsewhere."""
    return "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts


def _image_size(data: bytes) -> tuple[int, int] | None:
    """Height and width from the header of a PNG or JPEG; None where it has none."""
    if data.startswith(_PNG) and len(data) >= 24:
        size = int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    elif data.startswith(_JPEG):
        import simplejpeg

        try:
            size = simplejpeg.decode_jpeg_header(data)[:2]
        except ValueError:
            return None
    else:
        return None
    return size if min(size) >= 1 and max(size) <= 65536 else None


def _decode_png(data: bytes) -> np.ndarray | None:
    import cv2

    if not _png_is_whole(data):  # OpenCV would give the rows it found, the rest black
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if image is None or image.dtype != np.uint8:
        return None
    if image.ndim == 2:
        return image
    return np.ascontiguousarray(image[:, :, 2::-1])  # BGR or BGRA


def _png_is_whole(data: bytes) -> bool:
    """Whether every chunk up to the last is there with its checksum."""
    at = len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return False
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at = end
    return False


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    import simplejpeg

    try:
        grey = simplejpeg.decode_jpeg_header(data)[2] == "Gray"
        image = simplejpeg.decode_jpeg(data, colorspace="GRAY" if grey else "RGB")
    except ValueError:
        return None
    return image[:, :, 0] if grey else image


def _first_image_size(folder: Path) -> tuple[int, int] | None:
    """From the first image that has a readable header, among the first sixteen."""
    for (_, _, name), _ in zip(_image_lines(folder, Problems()), range(16), strict=False):
        data = _image_bytes(folder, name)
        if data is not None and (size := _image_size(data)):
            return size
    return None


def _calibration(path: Path) -> dict[str, float] | None:
    try:
        with open(path, "rb") as file:
            values = [float(word) for word in file.read(4096).split()]
    except (OSError, ValueError):
        return None
    if len(values) != len(CALIBRATION) or not all(math.isfinite(v) for v in values):
        return None
    return dict(zip(CALIBRATION, values, strict=True))


def _is_number(text: bytes) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
