"""Parts of a picture that could be things: regions of its labels, or blobs."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .sensor import Seed

_UNLABELLED = 255  # as in most data sets: no thing
_LEAST, _MOST = 0.003, 0.3  # shares of the picture that a cut-out may take; more than that is scenery


def draw_cutouts(
    seed: Seed, height: int, width: int, number: int, labels: NDArray[Any] | None = None
) -> list[NDArray[np.bool_]]:
    """Up to `number` masks [H, W] that do not overlap, each between 0.3 % and 30 % of the picture.

    Args:
        labels: integers [H, W]: a mask is a connected region of one value other than 255, drawn among all that have the
            right size; blobs are taken only where there are too few. Without labels all are blobs: circles with a wavy
            rim.

    Raises:
        InputError: labels of another shape or type.
    """
    rng = np.random.default_rng(seed)
    masks = [] if labels is None else _regions(rng, np.asarray(labels), height, width)[:number]
    free = np.ones((height, width), np.bool_)
    for mask in masks:
        free &= ~mask
    while len(masks) < number:
        blob = _blob(rng, height, width) & free
        if not blob.any():  # the picture is full
            break
        masks.append(blob)
        free &= ~blob
    return masks


def _regions(rng: np.random.Generator, labels: NDArray[Any], height: int, width: int) -> list[NDArray[np.bool_]]:
    """Connected regions of equal labels that have the right size, in random order."""
    if labels.shape != (height, width) or labels.dtype.kind not in "iub":
        given = f"{labels.dtype} {list(labels.shape)}"
        raise InputError(f"labels are {given}; give integers [{height}, {width}] to cut layers from, or no labels")
    masks = []
    for value in np.setdiff1d(labels, [_UNLABELLED]):
        _, index, stats, _ = cv2.connectedComponentsWithStats((labels == value).astype(np.uint8), connectivity=4)
        shares = stats[1:, cv2.CC_STAT_AREA] / labels.size
        masks += [index == k + 1 for k in np.flatnonzero((shares >= _LEAST) & (shares <= _MOST))]
    return [masks[k] for k in rng.permutation(len(masks))]


def _blob(rng: np.random.Generator, height: int, width: int) -> NDArray[np.bool_]:
    radius = math.sqrt(height * width * rng.uniform(0.01, 0.1) / math.pi)
    around = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    waves = np.arange(2, 6)
    rim = rng.normal(0, 0.25, 4) / waves @ np.cos(waves[:, None] * around + rng.uniform(0, 2 * math.pi, (4, 1)))
    centre = rng.uniform(0.1, 0.9, 2) * [width - 1, height - 1]
    outline = centre + (radius * (1 + np.maximum(rim, -0.5)))[:, None] * np.stack([np.cos(around), np.sin(around)], 1)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], 1)
    return mask.astype(np.bool_)
