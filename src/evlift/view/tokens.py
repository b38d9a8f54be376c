"""Tokens made visible: three principal components as colours, and similarity to one patch as a map.

Teacher and student are drawn in ONE basis with ONE range, both taken from the teacher. So equal tokens have equal
colours, and a student that has collapsed looks flat instead of being stretched to full contrast.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .pictures import Picture, as_array

# The share of the teacher's tokens, in percent, below and above the range that the colours span.
TAIL = 1.0
# Where a patch has too few events, its colour is drained and mixed with this grey. White would draw the eye to what is
# missing, and would be taken for a high similarity; dark would be taken for a low one.
VEIL = (128, 128, 128)
VEIL_DRAIN = 0.5
VEIL_STRENGTH = 0.5
# Luminance of an RGB pixel (ITU-R BT.601), in each of the three channels.
LUMA = np.repeat(np.array([[0.299], [0.587], [0.114]], np.float32), 3, axis=1)


@dataclass(frozen=True, eq=False)
class PCABasis:
    """Three leading principal components of a set of tokens, and the range that becomes 0…255.

    mean [D], components [3, D] (orthonormal rows; zero where the tokens span fewer dimensions), low and high [3] (the
    robust range along each), share [3] (of the variance that each explains). All float64.
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    share: NDArray[np.float64]

    @classmethod
    def fit(cls, tokens: Any, mask: Any = None) -> PCABasis:
        """From tokens [..., D], of which mask [...] (bool) says which count. Tokens that are not finite are left out.

        An eigenvector's sign is arbitrary; here the entry of the largest magnitude is positive, so that the same tokens
        give the same colours everywhere. Raises InputError when no token is left.
        """
        tokens = np.atleast_2d(as_array(tokens)).astype(np.float64)
        rows = tokens.reshape(-1, tokens.shape[-1])
        keep = np.isfinite(rows).all(axis=1)
        if mask is not None:
            mask = as_array(mask).astype(bool)
            if mask.shape != tokens.shape[:-1]:
                raise InputError(f"mask {mask.shape} does not fit tokens {tokens.shape}; give one value a token")
            keep &= mask.reshape(-1)
        rows = rows[keep]
        if len(rows) == 0:
            raise InputError("no token to take principal components of; widen the mask or check the tokens for NaN")
        mean = rows.mean(axis=0)
        centred = rows - mean
        if len(rows) > rows.shape[1]:  # the smaller of the two problems: D×D eigenvectors, or an SVD of few rows
            values, vectors = np.linalg.eigh(centred.T @ centred)
            power, directions = values[::-1].clip(min=0), vectors.T[::-1]
        else:
            _, singular, directions = np.linalg.svd(centred, full_matrices=False)
            power = singular**2
        total = power.sum()
        components, share = np.zeros((3, rows.shape[1])), np.zeros(3)
        for k in range(min(3, len(power))):
            if power[k] <= 1e-12 * max(total, 1e-300):
                break  # a direction in which nothing varies is rounding noise
            direction = directions[k]
            components[k] = direction * np.sign(direction[np.argmax(np.abs(direction))])
            share[k] = power[k] / total
        low, high = np.percentile(centred @ components.T, [TAIL, 100 - TAIL], axis=0)
        return cls(mean=mean, components=components, low=low, high=high, share=share)

    def project(self, tokens: Any) -> NDArray[np.float32]:
        """tokens [..., D] → coordinates [..., 3], the robust range being 0…1 (0.5 along a direction without extent)."""
        tokens = as_array(tokens)
        if tokens.shape[-1] != len(self.mean):
            raise InputError(
                f"tokens of width {tokens.shape[-1]} in a basis of width {len(self.mean)}; lift them first"
            )
        along = (tokens.astype(np.float64) - self.mean) @ self.components.T
        extent = self.high - self.low
        flat = extent <= 0
        scaled = np.where(flat, 0.5, (along - self.low) / np.where(flat, 1.0, extent))
        return np.nan_to_num(scaled, nan=0.5).clip(-10, 10).astype(np.float32)

    def colours(self, tokens: Any, size: tuple[int, int] | None = None) -> Picture:
        """tokens [h, w, D] → uint8 [h, w, 3]; with size=(H, W), interpolated between token centres, then clipped."""
        scaled = self.project(tokens)
        if scaled.ndim != 3:
            raise InputError(f"tokens of shape {as_array(tokens).shape} are no map; give [h, w, D]")
        if size is not None:
            scaled = spread(scaled, *size)
        return np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)


def spread(values: NDArray[np.float32], height: int, width: int, smooth: bool = True) -> NDArray[np.float32]:
    """Values a patch [h, w, …] → values a pixel [height, width, …], bilinear between patch centres or flat patches.

    A grid of h×w patches may reach beyond a picture that the patch does not divide. The patch is taken to be the
    smallest square one that covers the picture with h×w of them; where there is none (another shape), the grid is
    stretched.
    """
    h, w = values.shape[:2]
    patch = max(ceil(height / h), ceil(width / w))
    covered = (h * patch, w * patch) if (ceil(height / patch), ceil(width / patch)) == (h, w) else (height, width)
    how = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
    full = cv2.resize(np.ascontiguousarray(values), (covered[1], covered[0]), interpolation=how)
    return np.asarray(full, np.float32)[:height, :width]


def veil(picture: Picture, mask: NDArray[np.bool_]) -> Picture:
    """Grey out the patches [h, w] that are not active, in a copy of the picture [H, W, 3]."""
    inactive = 1 - spread(mask.astype(np.float32), picture.shape[0], picture.shape[1], smooth=False)[..., None]
    drained = picture + VEIL_DRAIN * (picture @ LUMA - picture)
    greyed = drained + VEIL_STRENGTH * (np.asarray(VEIL, np.float32) - drained)
    return np.rint(picture + inactive * (greyed - picture)).astype(np.uint8)


def similarity_map(tokens: Any, point: tuple[int, int]) -> NDArray[np.float32]:
    """Cosine similarity of every token [h, w, D] to the one at (row, column): float32 [h, w]. A zero token gives 0."""
    tokens = as_array(tokens)
    if tokens.ndim != 3:
        raise InputError(f"tokens of shape {tokens.shape} are no map; give [h, w, D]")
    row, column = int(point[0]), int(point[1])
    if not (0 <= row < tokens.shape[0] and 0 <= column < tokens.shape[1]):
        raise InputError(
            f"query point {row, column} is outside the {tokens.shape[0]}×{tokens.shape[1]} tokens; move it"
        )
    unit = unit_rows(tokens)
    return (unit @ unit[row, column]).astype(np.float32)


def unit_rows(tokens: NDArray[Any]) -> NDArray[np.float64]:
    """Tokens [..., D] at length 1; zero and not-finite tokens become 0."""
    tokens = np.nan_to_num(tokens.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    length = np.linalg.norm(tokens, axis=-1, keepdims=True)
    return tokens / np.where(length > 0, length, 1.0)


def query_points(tokens: Any, mask: Any = None, count: int = 3) -> list[tuple[int, int]]:
    """Up to `count` patches (row, column) that stand for different things: the medoids of spherical k-means.

    tokens [h, w, D] are the teacher's; mask [h, w] (bool) are the active patches, all when none is. Started from
    farthest points, with no random number: the same tokens give the same points. A farthest point alone would often be
    an odd patch; a medoid is a typical one.
    """
    tokens = as_array(tokens)
    if tokens.ndim != 3:
        raise InputError(f"tokens of shape {tokens.shape} are no map; give [h, w, D]")
    active = np.ones(tokens.shape[:2], bool) if mask is None else as_array(mask).astype(bool)
    if not active.any():
        active = np.ones_like(active)
    places = np.argwhere(active)
    unit = unit_rows(tokens)[active]  # [N, D]
    chosen = [int(np.argmax(unit @ unit.mean(axis=0)))]
    while len(chosen) < min(count, len(unit)):
        nearest = (unit @ unit[chosen].T).max(axis=1)
        nearest[chosen] = np.inf
        chosen.append(int(np.argmin(nearest)))
    centres = unit[chosen]
    for _ in range(10):
        owner = np.argmax(unit @ centres.T, axis=1)
        sums = np.stack(
            [unit[owner == k].sum(axis=0) if (owner == k).any() else centres[k] for k in range(len(centres))]
        )
        centres = unit_rows(sums)
    points: list[tuple[int, int]] = []
    for k in range(len(centres)):
        mine = np.flatnonzero(owner == k)
        if len(mine):
            row, column = places[mine[np.argmax(unit[mine] @ centres[k])]]
            points.append((int(row), int(column)))
    return points


def similarity_colours(similarity: NDArray[np.floating[Any]]) -> Picture:
    """Similarity 0…1 (below 0 counts as 0) → viridis, uint8 [..., 3]."""
    level = np.rint(np.clip(np.nan_to_num(similarity), 0, 1) * 255).astype(np.uint8)
    flat = cv2.applyColorMap(level.reshape(-1, 1), cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return np.ascontiguousarray(flat.reshape(*level.shape, 3))


def mark_patch(picture: Picture, point: tuple[int, int], grid: tuple[int, int]) -> Picture:
    """A copy of the picture with a ring at the centre of patch (row, column) of a grid [h, w]."""
    height, width = picture.shape[:2]
    where = np.zeros((*grid, 1), np.float32)
    where[point] = 1
    rows, columns = np.nonzero(spread(where, height, width, smooth=False).reshape(height, width))
    marked = picture.copy()
    if len(rows):
        centre = (round(float(columns.mean())), round(float(rows.mean())))
        radius = max(3, round(max(height, width) / 45))
        thick = max(1, round(radius / 4))
        cv2.circle(marked, centre, radius, (0, 0, 0), 3 * thick, cv2.LINE_AA)
        cv2.circle(marked, centre, radius, (255, 255, 255), thick, cv2.LINE_AA)
    return marked


def similarity_picture(
    tokens: Any, point: tuple[int, int], size: tuple[int, int], mask: NDArray[np.bool_] | None = None
) -> Picture:
    """The similarity map of a patch as a picture of size (H, W): inactive patches greyed, the query ringed."""
    similarity = similarity_map(tokens, point)
    picture = similarity_colours(spread(similarity, *size))
    if mask is not None:
        picture = veil(picture, mask)
    return mark_patch(picture, point, (similarity.shape[0], similarity.shape[1]))
