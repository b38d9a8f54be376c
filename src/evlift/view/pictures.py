"""Events as a picture, and pictures as files.

The colours are the field's habit: ON (brighter) blue, OFF (darker) red, on white. A picture is always uint8
[H, W, 3] RGB.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import write_atomic

Picture = NDArray[np.uint8]

# (background, ON, OFF) as RGB; on black the two are lighter, so that a single event still stands out.
PALETTES = {
    "white": ((255, 255, 255), (24, 78, 200), (208, 36, 36)),
    "black": ((0, 0, 0), (96, 160, 255), (255, 96, 84)),
}
# The count that gets the full colour, among the pixels that fired. Not the largest: a hot pixel must not pale the rest.
FULL_COLOUR_PERCENTILE = 98.0
# Below 1, so that a pixel with one event is seen beside one with ten.
GAMMA = 0.6


def as_array(values: Any) -> NDArray[Any]:
    """NumPy array of anything array-like; a torch tensor (any device, any float type, with gradient) included."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point():
            values = values.float()  # NumPy has no bfloat16
        return values.numpy()
    return np.asarray(values)


def polarity_counts(grid_or_events: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """ON and OFF counts a pixel, float32 [H, W] each.

    From Events (or a Window of a recording) they are exact. From a voxel grid [C, H, W] they are the sums of its
    positive and of its negative entries over the bins: what cancelled within one bin is gone.
    """
    if callable(getattr(grid_or_events, "events", None)):
        grid_or_events = grid_or_events.events()
    if hasattr(grid_or_events, "p") and hasattr(grid_or_events, "height"):
        e = grid_or_events
        height, width = int(e.height), int(e.width)
        pixel = e.y.astype(np.int64) * width + e.x.astype(np.int64)
        on = np.asarray(e.p).astype(np.int8) > 0
        counts = [np.bincount(pixel[which], minlength=height * width) for which in (on, ~on)]
        return counts[0].reshape(height, width).astype(np.float32), counts[1].reshape(height, width).astype(np.float32)
    grid = as_array(grid_or_events)
    if grid.ndim != 3 or grid.size == 0:
        raise InputError(
            f"a picture of events needs Events or a grid [C, H, W], not shape {grid.shape}; pass one sample"
        )
    grid = np.nan_to_num(grid.astype(np.float32, copy=False), nan=0.0, posinf=0.0, neginf=0.0)
    return np.maximum(grid, 0).sum(axis=0), np.maximum(-grid, 0).sum(axis=0)


def event_picture(
    grid_or_events: Any, height: int | None = None, width: int | None = None, background: str = "white"
) -> Picture:
    """Draw events: hue by the share of ON, strength by the count.

    grid_or_events: voxel grid float32 [C, H, W] (array or tensor), Events, or a Window
    height, width:  size of the picture; one of them keeps the shape of the pixel array, none keeps its size
    background:     "white" or "black"
    Returns uint8 [height, width, 3]. Raises InputError for another shape, size or background.
    """
    if background not in PALETTES:
        raise InputError(f"unknown background '{background}'; choose one of {', '.join(PALETTES)}")
    on, off = polarity_counts(grid_or_events)
    height, width = fitted_size(on.shape[0], on.shape[1], height, width)
    if (height, width) != on.shape:
        # Counts are resized, not colours: averaged colours would turn a busy edge grey.
        how = cv2.INTER_AREA if height * width < on.size else cv2.INTER_NEAREST
        on, off = (np.asarray(cv2.resize(a, (width, height), interpolation=how), np.float32) for a in (on, off))
    count = on + off
    fired = count > 0
    full = float(np.percentile(count[fired], FULL_COLOUR_PERCENTILE)) if fired.any() else 1.0
    strength = np.clip(count / full, 0, 1) ** GAMMA
    share = np.divide(on, count, out=np.zeros_like(on), where=fired)
    ground, blue, red = (np.asarray(c, np.float32) for c in PALETTES[background])
    ink = share[..., None] * blue + (1 - share[..., None]) * red
    return np.rint(ground + strength[..., None] * (ink - ground)).astype(np.uint8)


def fitted_size(height: int, width: int, to_height: int | None, to_width: int | None) -> tuple[int, int]:
    """(height, width) asked for, a missing one filled in so that the shape is kept."""
    for wanted in (to_height, to_width):
        if wanted is not None and wanted < 1:
            raise InputError(f"a picture cannot be {wanted} pixels high or wide; ask for at least 1")
    if to_height is None and to_width is None:
        return height, width
    if to_height is None:
        assert to_width is not None
        return max(1, round(height * to_width / width)), to_width
    return to_height, to_width if to_width is not None else max(1, round(width * to_height / height))


def check_picture(picture: Any, what: str = "picture") -> Picture:
    """The picture as uint8 [H, W, 3]; grey becomes RGB. Raises InputError for another type or shape."""
    picture = as_array(picture)
    if picture.dtype != np.uint8 or picture.size == 0:
        raise InputError(f"{what} is {picture.dtype} {picture.shape}; give a non-empty uint8 array [H, W, 3] in RGB")
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise InputError(f"{what} has shape {picture.shape}; give [H, W, 3] in RGB")
    return picture


def resize_picture(picture: Picture, height: int, width: int) -> Picture:
    """The picture at another size: area average when it shrinks, bicubic when it grows."""
    if picture.shape[:2] == (height, width):
        return picture
    how = cv2.INTER_AREA if height * width < picture.shape[0] * picture.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(picture, (width, height), interpolation=how).astype(np.uint8, copy=False)


def encode_picture(picture: Picture, suffix: str = ".png", quality: int = 90) -> bytes:
    """PNG or JPEG bytes of an RGB picture."""
    suffix = suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"cannot write pictures of type '{suffix}'; name the file .png or .jpg")
    options = [cv2.IMWRITE_PNG_COMPRESSION, 6] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(picture[..., ::-1]), options)
    if not done:
        raise InputError(f"a picture of shape {picture.shape} could not be encoded as {suffix}; make it smaller")
    return data.tobytes()


def save_picture(path: str | os.PathLike[str], picture: Any, quality: int = 92) -> Path:
    """Write uint8 [H, W, 3] RGB (or [H, W] grey) as .png or .jpg, whole or not at all; folders are made."""
    path = Path(path)
    write_atomic(path, encode_picture(check_picture(picture), path.suffix, quality))
    return path
