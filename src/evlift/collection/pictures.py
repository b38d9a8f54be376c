"""Pictures, label maps and depth maps in a folder: finding them, their sizes without decoding, and reading them.

A folder holds pictures itself, or in `images/`; a label map lies in `labels/` beside them under the same stem, a depth
map in `depth/`. A folder of a million pictures is listed in seconds and kept in tens of megabytes.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, overload

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from ..errors import InputError
from .headers import JPEG, PNG, size_of

logger = logging.getLogger(__name__)

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
LABELS = (".png", ".tif", ".tiff", ".bmp", ".pgm")
DEPTHS = (".npy", ".png", ".tif", ".tiff")
VOID = 255
"""The class of a pixel without a label, in every item."""

LARGEST_PIXELS = 1 << 27
"""No picture is decoded to more pixels than this (134 million: 400 MB as RGB); a JPEG may be decoded smaller."""
HUGE_PIXELS = 1 << 25
"""From here on a JPEG is decoded smaller even if up to seven pixels at its right and bottom edge are lost by that."""
TOLD = 5
"""Of what is set aside, so many get a line in the log; the others are counted."""


class Picture(NamedTuple):
    """A picture file, and its label map and depth map where it has them."""

    path: Path
    labels: Path | None = None
    depth: Path | None = None


class Pictures(Sequence[Picture]):
    """The pictures of a folder, sorted by name. Indexing makes a `Picture`, slicing a shorter list.

    Names lie in one block of bytes: as objects a million of them would take a gigabyte, and be copied into every
    forked worker that counts references to them.
    """

    def __init__(self, place: Path, names: Sequence[str], labels: _Beside, depth: _Beside):
        encoded = [os.fsencode(name) for name in names]
        stops = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._place, self._sides = place, (labels.folder, depth.folder)
        self._text = b"".join(encoded)
        self._span = np.stack([np.concatenate([[0], stops[:-1]]), stops], axis=1)  # [N, 2]
        stems = [os.path.splitext(name)[0] for name in names]
        self._suffixes = ["", *sorted({*labels.suffixes.values(), *depth.suffixes.values()})]
        code = {suffix: i for i, suffix in enumerate(self._suffixes)}
        self._beside = np.array([[code[side.suffixes.get(s, "")] for side in (labels, depth)] for s in stems], np.uint8)

    def __len__(self) -> int:
        return len(self._span)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice | NDArray[np.int64]) -> Pictures: ...
    def __getitem__(self, index: Any) -> Picture | Pictures:
        if isinstance(index, (slice, np.ndarray)):
            part = object.__new__(Pictures)
            part.__dict__.update(self.__dict__, _span=self._span[index], _beside=self._beside[index])
            return part
        start, stop = self._span[index].tolist()
        name = os.fsdecode(self._text[start:stop])
        stem = os.path.splitext(name)[0]
        beside = [
            folder / f"{stem}{self._suffixes[code]}" if code else None
            for folder, code in zip(self._sides, self._beside[index].tolist(), strict=True)
        ]
        return Picture(self._place / name, *beside)

    @property
    def labelled(self) -> bool:
        """Whether any of them has a label map."""
        return bool(self._beside[:, 0].any())

    @property
    def deep(self) -> bool:
        """Whether any of them has a depth map."""
        return bool(self._beside[:, 1].any())


class _Beside(NamedTuple):
    """Maps beside the pictures: their folder, and the suffix of each by its stem."""

    folder: Path
    suffixes: dict[str, str]


def image_files(folder: str | Path) -> Pictures:
    """The pictures in `folder`, or in `folder/images`, sorted by name, each with the maps of the same stem.

    One look into each folder, none into a file.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one that holds pictures, or pictures in images/")
    for place in (folder, folder / "images"):
        found = sorted(_files(place, PICTURES))
        if found:
            beside = place.parent if place.name == "images" else place
            return Pictures(place, found, *(_maps(beside / name, kinds) for name, kinds in _MAPS))
    known = ", ".join(kind[1:] for kind in PICTURES)
    raise InputError(f"{folder} holds no pictures, nor does its images/; give a folder with files of a kind in {known}")


_MAPS = (("labels", LABELS), ("depth", DEPTHS))


def _maps(folder: Path, kinds: tuple[str, ...]) -> _Beside:
    return _Beside(folder, dict(os.path.splitext(name) for name in sorted(_files(folder, kinds))))


def _files(folder: Path, kinds: tuple[str, ...]) -> Iterator[str]:
    """Names of the files of these kinds. A link counts as a file unseen: to follow a million of them takes minutes."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(kinds) and not entry.name.startswith("."):
                    if entry.is_symlink() or entry.is_file(follow_symlinks=False):
                        yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(f"cannot look into {folder} ({error.strerror}); check its permissions") from error


def pictures_by_split(folder: str | Path, val_fraction: float) -> dict[str, Pictures]:
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


def _cut(found: Pictures, folder: Path, val_fraction: float) -> dict[str, Pictures]:
    """The sorted pictures as `train`, and their last share as `val`."""
    held_out = round(len(found) * val_fraction)
    if val_fraction > 0:
        held_out = max(1, held_out)
        if held_out >= len(found):
            raise InputError(f"{folder} holds {len(found)} picture(s), too few to hold some out; add pictures")
    cut = len(found) - held_out
    return {"train": found[:cut], **({"val": found[cut:]} if held_out else {})}


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture, from its header. Raises InputError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            size = size_of(file)
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check the file") from error
    if size is None:
        raise InputError(f"{path} is no readable picture; replace or remove it")
    return size


def _content(path: Path) -> tuple[bytes, int, int]:
    """All bytes of a picture file, and the height and width that its header gives; no more bytes than these can need.

    Raises:
        InputError: the file cannot be read, is no picture, or far longer than its pixels.
    """
    try:
        with open(path, "rb") as file:
            size = size_of(file)
            if size is None:
                raise InputError(f"{path} is no readable picture; replace or remove it")
            length = file.seek(0, os.SEEK_END)
            if length > 16 * size[0] * size[1] + (1 << 26):
                raise InputError(f"{path} has {length >> 20} MB for {size[1]}×{size[0]} pixels; save it anew")
            file.seek(0)
            return file.read(), *size
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check the file") from error


def read_picture(path: Path, smallest: tuple[int, int] | None = None) -> tuple[NDArray[np.uint8], int]:
    """A picture as uint8 RGB [H, W, 3], and the whole number by which its sides were divided.

    Any depth, palette or CMYK becomes 8-bit RGB; transparency is dropped; of an animation comes the first picture. The
    camera's orientation tag is not followed, since label maps do not have it.

    With `smallest` (height, width) a large JPEG is decoded at ½, ¼ or ⅛ of its size, which costs a fraction, while both
    sides stay at least that long and divide without remainder, so that its pixels are exact blocks of the full ones.
    Of one with more than `HUGE_PIXELS` the remainder is cut off instead.

    Raises:
        InputError: the file cannot be read, is no whole picture, or one of more than `LARGEST_PIXELS`.
    """
    data, height, width = _content(path)
    if data[:2] != JPEG:
        _refuse_largest(path, height, width)
        return _decode_colour(data, path), 1
    try:
        if simplejpeg.decode_jpeg_header(data)[2] in ("CMYK", "YCCK"):  # print material: OpenCV converts it
            _refuse_largest(path, height, width)
            return _decode_colour(data, path), 1
        for reduction in (8, 4, 2):
            if smallest is None:
                break
            small = (height // reduction, width // reduction)
            whole = height % reduction == 0 and width % reduction == 0
            if small[0] < smallest[0] or small[1] < smallest[1] or not (whole or height * width > HUGE_PIXELS):
                continue
            _refuse_largest(path, *small)
            decoded = simplejpeg.decode_jpeg(data, min_height=small[0], min_width=small[1], min_factor=reduction)
            if decoded.shape[:2] == (-(-height // reduction), -(-width // reduction)):
                return np.ascontiguousarray(decoded[: small[0], : small[1]]), reduction
        _refuse_largest(path, height, width)
        return simplejpeg.decode_jpeg(data), 1
    except ValueError as error:
        raise _unreadable(path, error, "JPEG") from error


def _open_npy(path: Path) -> NDArray[np.floating]:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)  # the header is read, not yet the values
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error, "depth map") from error
    if stored.ndim != 2 or stored.dtype.kind != "f" or not stored.size:
        raise InputError(f"{path} holds {stored.dtype} {list(stored.shape)}; give depth as floats [height, width]")
    return stored


def _refuse_largest(path: Path, height: int, width: int) -> None:
    if height * width > LARGEST_PIXELS:
        limit = f"{LARGEST_PIXELS / 1e6:.0f} million"
        raise InputError(f"{path} has {height * width / 1e6:.0f} million pixels, over the {limit} read; shrink it")


def _unreadable(path: Path, error: Exception, kind: str = "picture") -> InputError:
    return InputError(f"{path} is no readable {kind} ({' '.join(str(error).split())}); replace or remove it")


def read_labels(path: Path) -> NDArray[np.integer]:
    """A label map as integers [H, W], its values as they are in the file (of a palette PNG, the indices).

    Raises:
        InputError: the file cannot be read, or holds colours instead of classes.
    """
    data, height, width = _content(path)
    _refuse_largest(path, height, width)
    if data[:8] == PNG and data[25:26] == b"\x03":
        return _palette_indices(data, path)
    labels = _decode(data, path, cv2.IMREAD_UNCHANGED)
    if labels.ndim == 3 and labels.shape[2] >= 3 and (labels[..., :1] == labels[..., 1:3]).all():
        labels = labels[..., 0]  # grey, saved as colour
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise InputError(f"{path} holds colours, not classes; give one channel with a class number a pixel")
    return labels


def read_depth(path: Path) -> NDArray[np.float32]:
    """A depth map as float32 [H, W]: metres of a 16-bit picture in millimetres, or the values of a float `.npy`.

    Nothing is unpickled. 0 and NaN, which stand for unknown, come as they are.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    if path.suffix.lower() == ".npy":
        stored = _open_npy(path)
        _refuse_largest(path, *stored.shape)
        return np.array(stored, np.float32)
    data, height, width = _content(path)
    _refuse_largest(path, height, width)
    depth = _decode(data, path, cv2.IMREAD_UNCHANGED)
    if depth.ndim != 2 or depth.dtype != np.uint16:
        raise InputError(f"{path} holds {depth.dtype} {list(depth.shape)}; give depth in 16-bit grey, millimetres")
    return depth.astype(np.float32) / np.float32(1000)


def _palette_indices(data: bytes, path: Path) -> NDArray[np.integer]:
    # OpenCV turns a palette into colours; Pillow, which comes with matplotlib, keeps its indices: the class numbers.
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have our own limit
            with Image.open(BytesIO(data)) as image:
                return np.array(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from error


def _decode_colour(data: bytes, path: Path) -> NDArray[np.uint8]:
    # Not turned by a camera's orientation tag: label maps are not either.
    image = _decode(data, path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _decode(data: bytes, path: Path, flags: int) -> NDArray:
    with _quiet():
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
        except cv2.error:
            image = None
    if image is None:
        raise InputError(f"{path} is no readable picture; replace or remove it")
    return image


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV says of each damaged file several lines on its own; one line of ours is enough."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def sort_out(pictures: Iterable[Picture]) -> tuple[list[Picture], list[tuple[int, int]], list[str]]:
    """The pictures whose headers can be read, their sizes (height, width), and a line on each that was set aside.

    Raises:
        InputError: a label or depth map has another size than its picture. That is no accident of one file: the pairs
            are wrong.
    """
    good, sizes, problems = [], [], []
    for picture in pictures:
        try:
            size = picture_size(picture.path)
            others = {file: _map_size(file) for file in picture[1:] if file is not None}
        except InputError as error:
            problems.append(f"set aside {picture.path.name}: {error}")
            continue
        for file, other in others.items():
            if other != size:
                raise InputError(
                    f"{file} is {other[1]}×{other[0]} but its picture {picture.path.name} is {size[1]}×{size[0]}; "
                    f"give {file.parent.name} of their picture's size"
                )
        good.append(picture)
        sizes.append(size)
    tell(problems)
    return good, sizes, problems


def _map_size(path: Path) -> tuple[int, int]:
    if path.suffix.lower() != ".npy":
        return picture_size(path)
    height, width = _open_npy(path).shape
    return height, width


def tell(problems: Sequence[str]) -> None:
    """The first few problems as warnings, the number of the others as one more."""
    for problem in problems[:TOLD]:
        logger.warning(problem)
    if len(problems) > TOLD:
        logger.warning(f"… and set aside {len(problems) - TOLD} more")
