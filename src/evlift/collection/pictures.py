"""Pictures and label maps in a folder: finding them, their sizes without decoding, and reading them.

A folder holds pictures itself, or in `images/`; a label map lies in `labels/` beside them under the same stem.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from ..errors import InputError

logger = logging.getLogger(__name__)

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
LABELS = (".png", ".tif", ".tiff", ".bmp", ".pgm")
VOID = 255
"""The class of a pixel without a label, in every item."""

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """A picture file and its label map, if it has one."""

    path: Path
    labels: Path | None = None


def image_files(folder: str | Path) -> list[Picture]:
    """The pictures in `folder`, or in `folder/images`, sorted by name, each with the label map of the same stem.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one that holds pictures, or pictures in images/")
    for place in (folder, folder / "images"):
        found = sorted(_files(place, PICTURES), key=lambda path: path.name)
        if found:
            beside = place.parent if place.name == "images" else place
            labels = {path.stem: path for path in _files(beside / "labels", LABELS)}
            return [Picture(path, labels.get(path.stem)) for path in found]
    known = ", ".join(kind[1:] for kind in PICTURES)
    raise InputError(f"{folder} holds no pictures, nor does its images/; give a folder with files of a kind in {known}")


def _files(folder: Path, kinds: tuple[str, ...]) -> Iterable[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.suffix.lower() in kinds and not path.name.startswith(".")]


def pictures_by_split(folder: str | Path, val_fraction: float) -> dict[str, list[Picture]]:
    """The pictures of each split: `train/`, `val/` and `test/` where the folder has them, else its last share is `val`.

    The cut goes through the sorted names, so that of a video's frames only those beside the cut have a close relative
    on its other side; with `val_fraction` 0 everything is `train`.

    Raises:
        InputError: no such folder, no pictures, or too few to hold some out.
    """
    folder = Path(folder)
    parts = {split: folder / split for split in ("train", "val", "test") if (folder / split).is_dir()}
    try:
        found = image_files(folder)
    except InputError:
        if not parts:
            raise
        splits = {split: image_files(part) for split, part in parts.items()}
        if "val" in splits or "train" not in splits:
            return splits
        return {**splits, **_cut(splits["train"], folder, val_fraction)}
    return _cut(found, folder, val_fraction)


def _cut(found: list[Picture], folder: Path, val_fraction: float) -> dict[str, list[Picture]]:
    """The sorted pictures as `train`, and their last share as `val`."""
    held_out = round(len(found) * val_fraction)
    if val_fraction > 0:
        held_out = max(1, held_out)
        if held_out >= len(found):
            raise InputError(f"{folder} holds {len(found)} picture(s), too few to hold some out; add pictures")
    cut = len(found) - held_out
    return {"train": found[:cut], **({"val": found[cut:]} if held_out else {})}


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture, from its header for JPEG and PNG. Raises InputError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(26)
            if head[:8] == _PNG and len(head) == 26:
                width, height = struct.unpack(">II", head[16:24])
                if height and width:
                    return height, width
                raise InputError(f"{path} is no readable picture; replace or remove it")
            data = head + file.read(1 << 16 if head[:2] == _JPEG else -1)
            if head[:2] == _JPEG:
                try:
                    height, width = simplejpeg.decode_jpeg_header(data)[:2]
                    return height, width
                except ValueError:  # a long preamble, such as a thumbnail, or no JPEG after all
                    data += file.read()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check the file") from error
    if data[:2] == _JPEG:
        try:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            return height, width
        except ValueError as error:
            raise InputError(f"{path} is no readable JPEG ({error}); replace or remove it") from error
    height, width = _decode(data, path, cv2.IMREAD_UNCHANGED).shape[:2]
    return height, width


def read_picture(path: Path, smallest: tuple[int, int] | None = None) -> tuple[NDArray[np.uint8], int]:
    """A picture as uint8 RGB [H, W, 3], and the whole number by which its sides were divided.

    With `smallest` (height, width) a large JPEG is decoded at ½, ¼ or ⅛ of its size, which costs a fraction, while both
    sides stay at least that long and divide without remainder, so that its pixels are exact blocks of the full ones.

    Raises:
        InputError: the file cannot be read, or is no whole picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check the file") from error
    if data[:2] != _JPEG:
        return _decode_colour(data, path), 1
    try:
        height, width, space = simplejpeg.decode_jpeg_header(data)[:3]
        if space in ("CMYK", "YCCK"):  # print material: OpenCV converts it, simplejpeg does not
            return _decode_colour(data, path), 1
        for reduction in (8, 4, 2):
            if smallest is None:
                break
            if height % reduction == 0 and width % reduction == 0:
                if height // reduction >= smallest[0] and width // reduction >= smallest[1]:
                    small = simplejpeg.decode_jpeg(
                        data, min_height=height // reduction, min_width=width // reduction, min_factor=reduction
                    )
                    if small.shape[:2] == (height // reduction, width // reduction):
                        return small, reduction
        return simplejpeg.decode_jpeg(data), 1
    except ValueError as error:
        raise InputError(f"{path} is no readable JPEG ({error}); replace or remove it") from error


def read_labels(path: Path) -> NDArray[np.integer]:
    """A label map as integers [H, W], its values as they are in the file (of a palette PNG, the indices).

    Raises:
        InputError: the file cannot be read, or holds colours instead of classes.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check the file") from error
    if data[:8] == _PNG and data[25:26] == b"\x03":
        return _palette_indices(path)
    labels = _decode(data, path, cv2.IMREAD_UNCHANGED)
    if labels.ndim == 3 and labels.shape[2] >= 3 and (labels[..., :1] == labels[..., 1:3]).all():
        labels = labels[..., 0]  # grey, saved as colour
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise InputError(f"{path} holds colours, not classes; give one channel with a class number a pixel")
    return labels


def _palette_indices(path: Path) -> NDArray[np.integer]:
    # OpenCV turns a palette into colours; Pillow, which comes with matplotlib, keeps its indices: the class numbers.
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.array(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} is no readable picture ({error}); replace or remove it") from error


def _decode_colour(data: bytes, path: Path) -> NDArray[np.uint8]:
    # Not turned by a camera's orientation tag: label maps are not either.
    image = _decode(data, path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _decode(data: bytes, path: Path, flags: int) -> NDArray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{path} is no readable picture; replace or remove it")
    return image


def sort_out(pictures: Iterable[Picture]) -> tuple[list[Picture], list[tuple[int, int]], list[str]]:
    """The pictures whose headers can be read, their sizes (height, width), and a line on each that was set aside.

    Raises:
        InputError: a label map has another size than its picture. That is no accident of one file: the pairs are wrong.
    """
    good, sizes, problems = [], [], []
    for picture in pictures:
        try:
            size = picture_size(picture.path)
            labelled = size if picture.labels is None else picture_size(picture.labels)
        except InputError as error:
            problems.append(f"set aside {picture.path.name}: {error}")
            continue
        if labelled != size:
            raise InputError(
                f"{picture.labels} is {labelled[1]}×{labelled[0]} but its picture {picture.path.name} is "
                f"{size[1]}×{size[0]}; give labels of their picture's size"
            )
        good.append(picture)
        sizes.append(size)
    for problem in problems:
        logger.warning(problem)
    return good, sizes, problems
