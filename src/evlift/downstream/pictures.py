"""Label maps in colour, and a test picture beside what each probe made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ..view import event_picture
from .metrics import IGNORE

# CamVid's own colours, which a reader of driving papers knows by heart.
KNOWN_COLOURS = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
VOID_COLOUR = (0, 0, 0)
CAPTION = 18
"""Height of a line of text in pixels."""


def palette(names: Sequence[str]) -> NDArray[np.uint8]:
    """One colour a class, uint8 [256, 3] RGB: a known one by name, else hues a golden angle apart; void is black."""
    table = np.zeros((256, 3), np.uint8)
    for i, name in enumerate(names):
        if name in KNOWN_COLOURS:
            table[i] = KNOWN_COLOURS[name]
        else:
            hue = int(i * 180 * 0.618034) % 180  # OpenCV's hues go from 0 to 179
            hsv = np.array([[[hue, 230 - 60 * (i // 8 % 2), 220 - 70 * (i // 4 % 2)]]], np.uint8)
            table[i] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]
    table[IGNORE] = VOID_COLOUR
    return table


def strip(
    image: NDArray[np.float32],
    grid: NDArray[np.float32],
    label: NDArray[np.uint8],
    predictions: Mapping[str, NDArray[np.uint8]],
    names: Sequence[str],
) -> NDArray[np.uint8]:
    """image | events | label | a prediction each, with captions above and the colours' meaning below.

    Args:
        image: float32 [3, H, W] in 0…1. grid: voxel grid float32 [C, H, W]. label: uint8 [H, W].
        predictions: caption → uint8 [H, W].
        names: the classes.
    Returns:
        uint8 [_, _, 3] RGB.
    """
    colours = palette(names)
    panels = {
        "image": np.rint(image.transpose(1, 2, 0) * 255).clip(0, 255).astype(np.uint8),
        "events": event_picture(grid),
        "label": colours[label],
        # A prediction where nobody labelled is shown, too: there is nothing to hide in it.
        **{caption: colours[prediction] for caption, prediction in predictions.items()},
    }
    columns = []
    for caption, panel in panels.items():
        columns.append(np.concatenate([_text(caption, panel.shape[1]), panel]))
        columns.append(np.full((len(columns[-1]), 4, 3), 255, np.uint8))
    row = np.concatenate(columns[:-1], axis=1)
    return np.concatenate([row, _legend(names, colours, row.shape[1])])


def _text(text: str, width: int) -> NDArray[np.uint8]:
    """Black text on white, [CAPTION, width, 3]; its end where it is too long, since names differ there."""
    line = np.full((CAPTION, width, 3), 255, np.uint8)
    most = max(1, width // 7)
    _put(line, text if len(text) <= most else "..." + text[-max(1, most - 3) :], 2)
    return line


def _put(line: NDArray[np.uint8], text: str, x: int) -> None:
    plain = text.encode("ascii", "replace").decode()  # OpenCV's fonts have no other letters
    cv2.putText(line, plain, (x, CAPTION - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)


def _legend(names: Sequence[str], colours: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Squares of colour with the class names after them, on as many lines as they need."""
    lines = [np.full((CAPTION, width, 3), 255, np.uint8)]
    x = 2
    for i, name in enumerate(names):
        needed = 24 + 7 * len(name)
        if x + needed > width and x > 2:
            lines.append(np.full((CAPTION, width, 3), 255, np.uint8))
            x = 2
        lines[-1][4:-4, x : x + 10] = colours[i]
        _put(lines[-1], name, x + 14)
        x += needed
    return np.concatenate(lines)
