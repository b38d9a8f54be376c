"""Optical flow as colours: hue is the direction, strength the length, by the wheel of Baker 2011.

The wheel ("A Database and Evaluation Methodology for Optical Flow", IJCV 92, 2011) runs through red, yellow, green,
cyan, blue and magenta with more steps where the eye tells more hues apart. No flow is white; the full colour is the
largest length; what has no flow is grey.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .pictures import Picture

# Steps from each colour to the next: red → yellow → green → cyan → blue → magenta → red.
STEPS = (15, 6, 4, 11, 13, 6)
UNKNOWN = (160, 160, 160)


def _wheel() -> NDArray[np.float32]:
    """The colours, float32 [55, 3] in 0…1: of each two neighbouring corners one channel is full and one changes."""
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], np.float32)
    parts = [
        corners[k] + (corners[k + 1] - corners[k]) * (np.arange(steps, dtype=np.float32)[:, None] / steps)
        for k, steps in enumerate(STEPS)
    ]
    return np.concatenate(parts)


WHEEL = _wheel()


def flow_picture(
    flow: NDArray[np.floating], mask: NDArray[np.bool_] | None = None, longest: float | None = None
) -> Picture:
    """Flow [H, W, 2] (dx, dy) in pixels → uint8 RGB [H, W, 3].

    Args:
        mask: bool [H, W], where the flow holds; elsewhere, and where it is not finite, the picture is grey.
        longest: the length in pixels that gets the full colour; the largest one when left out. Longer is darker.

    Raises:
        InputError: another shape, or a length that is not positive.
    """
    flow = np.asarray(flow, np.float32)
    if flow.ndim != 3 or flow.shape[2] != 2 or not flow.size:
        raise InputError(f"flow has shape {flow.shape}; give [height, width, 2]")
    if longest is not None and not longest > 0:
        raise InputError(f"the longest flow is {longest} pixels; give a positive number")
    known = np.isfinite(flow).all(axis=2)
    if mask is not None:
        if mask.shape != known.shape:
            raise InputError(f"the flow's mask has shape {mask.shape}; give {known.shape}")
        known &= mask
    x, y = (np.where(known, part, 0) for part in (flow[..., 0], flow[..., 1]))
    length = np.hypot(x, y)
    length /= longest or max(float(length.max()), 1e-6)
    # Red is to the right, and the hues follow the angle as y grows: down is yellow, left is cyan.
    # All round and back to red, where the paper's code stops a step short: a seam in all that moves to the right.
    place = (np.arctan2(-y, -x) / np.pi + 1) / 2 * len(WHEEL)
    low = place.astype(np.int64)
    share = (place - low)[..., None]
    hue = (1 - share) * WHEEL[low % len(WHEEL)] + share * WHEEL[(low + 1) % len(WHEEL)]
    strength = length[..., None]
    colour = np.where(strength <= 1, 1 - strength * (1 - hue), hue * 0.75)
    return np.where(known[..., None], np.rint(colour * 255), UNKNOWN).astype(np.uint8)


def flow_key(side: int) -> Picture:
    """The wheel as a disc on white, uint8 [side, side, 3]: the colour at each place is that of the way from its centre
    to there, the rim being the longest. Raises InputError when it would be smaller than a pixel."""
    if side < 1:
        raise InputError(f"the key of the flow is {side} pixels wide; give 1 or more")
    radius = side / 2
    y, x = (np.mgrid[:side, :side] + 0.5 - radius) / radius
    disc = flow_picture(np.stack([x, y], axis=-1), longest=1.0)
    disc[np.hypot(x, y) > 1] = 255
    return disc


def with_key(picture: Picture, longest: float) -> Picture:
    """A copy of a flow picture with the wheel in its lower right corner, and the length in pixels at its rim."""
    height, width = picture.shape[:2]
    side = min(height, width) // 4
    if side < 12:  # nobody would see it
        return picture.copy()
    out = picture.copy()
    disc = flow_key(side)
    inside = np.hypot(*(np.mgrid[:side, :side] + 0.5 - side / 2)) <= side / 2
    out[height - side - 3 : height - 3, width - side - 3 : width - 3][inside] = disc[inside]
    text, scale = f"{longest:.3g} px", side / 110
    (across, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    where = (max(0, width - side - 8 - across), height - 8)
    ink = np.zeros((height, width), np.uint8)
    cv2.putText(ink, text, where, cv2.FONT_HERSHEY_SIMPLEX, scale, (255,), 1, cv2.LINE_AA)
    # A halo of the very letters: thicker ones would be wider, and lie beside them.
    for layer, colour in ((cv2.dilate(ink, np.ones((5, 5), np.uint8)), 255), (ink, 30)):
        share = layer[..., None] / np.float32(255)
        out = np.rint(out + share * (colour - out.astype(np.float32))).astype(np.uint8)
    return out
