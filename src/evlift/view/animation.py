"""Pictures one after the other as a video file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError, RunError
from .pictures import Picture, fitted_size, resize_picture

MOST_GIF_FRAMES = 250
"""A GIF holds every frame in memory while it is written, and gets large."""

WIDEST_GIF = 720
"""Pixels: it hardly compresses."""


def save_animation(path: str | Path, pictures: Iterable[Picture], hz: float) -> Path:
    """Write uint8 RGB [H, W, 3] pictures of one size as .mp4 (MPEG-4) or .gif, whole or not at all; folders are made.

    An odd last row or column of an .mp4 is cut off, which the codec cannot keep. A .gif ends after `MOST_GIF_FRAMES`.

    Raises:
        InputError: no pictures, or another kind of file.
        RunError: the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".mp4", ".gif"):
        raise InputError(f"cannot write a video of type '{kind}'; name the file .mp4 or .gif")
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{kind}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = _write_mp4(part, pictures, hz) if kind == ".mp4" else _write_gif(part, pictures, hz)
        if not frames:
            raise InputError("there are no pictures to make a video of; see what was set aside")
        os.replace(part, path)
    except OSError as error:
        raise RunError(f"cannot write {path} ({error.strerror or error}); make room or choose another place") from error
    finally:
        if path.parent.is_dir():
            part.unlink(missing_ok=True)
    return path


def _within(picture: Picture, width: int) -> Picture:
    if picture.shape[1] <= width:
        return picture
    return resize_picture(picture, *fitted_size(picture.shape[0], picture.shape[1], None, width))


def _write_mp4(path: Path, pictures: Iterable[Picture], hz: float) -> int:
    writer, count = None, 0
    for picture in pictures:
        height, width = (side - side % 2 for side in picture.shape[:2])
        if writer is None:
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), hz, (width, height))
            if not writer.isOpened():
                raise RunError(f"OpenCV cannot write {path.suffix} files here; name the preview .gif or .png")
        writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))
        count += 1
    if writer is not None:
        writer.release()
    return count


def _write_gif(path: Path, pictures: Iterable[Picture], hz: float) -> int:
    from PIL import Image  # comes with matplotlib

    pictures = (_within(picture, WIDEST_GIF) for picture in pictures)
    frames = []
    for picture, _ in zip(pictures, range(MOST_GIF_FRAMES), strict=False):
        image = Image.fromarray(picture)
        # Pillow's own choice of 256 colours is by share of the pixels: red and blue events would turn brown.
        palette = image.quantize(256, method=Image.Quantize.FASTOCTREE)
        frames.append(image.quantize(256, palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
    if frames:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=round(1000 / hz), loop=0)
    return len(frames)
