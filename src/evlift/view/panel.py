"""One held-out pair, side by side: the image, the events, and what teacher and student make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .pictures import Picture, as_array, check_picture, event_picture, resize_picture
from .tokens import PCABasis, veil


@dataclass(frozen=True, eq=False)
class PairPanel:
    """What the report shows of one pair. Tensors are taken too, and kept as NumPy arrays.

    Teacher, before and after are in one space (the teacher's, standardised), so that one basis of colours serves all.
    """

    name: str
    image: NDArray[np.uint8]
    """[H, W, 3] RGB"""
    grid: NDArray[np.float32]
    """[C, H, W] voxel grid"""
    teacher: NDArray[np.float32]
    """[h, w, D] of the image"""
    before: NDArray[np.float32]
    """[h, w, D] of the events, student untrained"""
    after: NDArray[np.float32]
    """[h, w, D] of the events, student trained"""
    mask: NDArray[np.bool_]
    """[h, w] patches with enough events"""
    extra: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """further students by name, [h, w, D]"""
    queries: Sequence[tuple[int, int]] = ()
    """patches (row, column) whose similarity maps are shown; none: chosen automatically"""

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("image", check_picture(self.image, f"image of pair '{self.name}'"))
        put("grid", as_array(self.grid).astype(np.float32, copy=False))
        put("teacher", as_array(self.teacher).astype(np.float32, copy=False))
        put("before", as_array(self.before).astype(np.float32, copy=False))
        put("after", as_array(self.after).astype(np.float32, copy=False))
        put("mask", as_array(self.mask).astype(bool))
        put("extra", {str(name): as_array(t).astype(np.float32, copy=False) for name, t in self.extra.items()})
        put("queries", tuple((int(row), int(column)) for row, column in self.queries))
        if self.grid.ndim != 3:
            raise InputError(f"grid of pair '{self.name}' has shape {self.grid.shape}; give [C, H, W]")
        if self.teacher.ndim != 3:
            raise InputError(f"teacher tokens of pair '{self.name}' have shape {self.teacher.shape}; give [h, w, D]")
        for name, tokens in self.students().items():
            if tokens.shape != self.teacher.shape:
                raise InputError(
                    f"tokens '{name}' of pair '{self.name}' have shape {tokens.shape}, the teacher's have "
                    f"{self.teacher.shape}; lift and resample them"
                )
        if self.mask.shape != self.teacher.shape[:2]:
            raise InputError(
                f"mask of pair '{self.name}' has shape {self.mask.shape}; give {self.teacher.shape[:2]} as the tokens"
            )

    def students(self) -> dict[str, NDArray[np.float32]]:
        """Event tokens by the name the report gives them, in the order it shows them."""
        return {"student before": self.before, "student after": self.after, **self.extra}


def panel_basis(panels: Sequence[PairPanel]) -> PCABasis | None:
    """One basis for all panels, from the teacher's tokens: a colour means the same in every row. None without panels.

    All patches count, active or not: the teacher is shown whole, and a sky left out of the fit would saturate.
    """
    if not panels:
        return None
    width = panels[0].teacher.shape[2]
    for panel in panels:
        if panel.teacher.shape[2] != width:
            raise InputError(
                f"pair '{panel.name}' has tokens of width {panel.teacher.shape[2]}, others {width}; use one teacher"
            )
    return PCABasis.fit(np.concatenate([panel.teacher.reshape(-1, width) for panel in panels]))


def panel_pictures(panel: PairPanel, basis: PCABasis, size: tuple[int, int] | None = None) -> dict[str, Picture]:
    """Caption → picture, all of one size (the image's, unless `size` = (H, W) is given): the columns of the report."""
    full = panel.image.shape[:2]
    height, width = full if size is None else size
    pictures = {"image": resize_picture(panel.image, height, width), "events": event_picture(panel.grid, height, width)}
    for name, tokens in {"teacher": panel.teacher, **panel.students()}.items():
        drawn = basis.colours(tokens, (full[0], full[1]))
        if name != "teacher":  # it saw the image, and its tokens hold everywhere
            drawn = veil(drawn, panel.mask)
        pictures[name] = resize_picture(drawn, height, width)
    return pictures


def pair_strip(panel: PairPanel, basis: PCABasis, *, labels: bool = True, gap: int = 8) -> Picture:
    """One row as a single picture: image | events | teacher | student before | student after | extras, on white.

    basis: from `panel_basis` or PCABasis.fit of the teacher's tokens; labels: the names above; gap: pixels between.
    """
    pictures = panel_pictures(panel, basis)
    rows = [beside(list(pictures.values()), gap)]
    if labels:
        height, width = panel.image.shape[:2]
        rows.insert(0, beside([_label(name, width, max(16, height // 9)) for name in pictures], gap))
    return np.concatenate(rows)


def pair_grid(pairs: Sequence[tuple[Any, Any]], columns: int = 2, *, width: int | None = None, gap: int = 8) -> Picture:
    """Pairs as a contact sheet: each image with its events on its right, `columns` pairs a row, on white.

    pairs: (image uint8 [H, W, 3], Events or grid [C, H, W]); width: of one picture, the first image's unless given.
    Every picture gets the first image's shape. Raises InputError without pairs.
    """
    if not pairs or columns < 1:
        raise InputError("no pairs to draw, or no column to draw them in; give at least one of each")
    images = [check_picture(image, f"image {k}") for k, (image, _) in enumerate(pairs)]
    across = width or images[0].shape[1]
    down = max(1, round(images[0].shape[0] * across / images[0].shape[1]))
    cells = [
        beside([resize_picture(image, down, across), event_picture(events, down, across)], 2)
        for image, (_, events) in zip(images, pairs, strict=True)
    ]
    columns = min(columns, len(cells))
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % columns)
    rows = [beside(cells[k : k + columns], gap) for k in range(0, len(cells), columns)]
    between = np.full((gap, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (row, between)][:-1])


def beside(pictures: Sequence[Picture], gap: int) -> Picture:
    """Pictures of one height from left to right, with white between."""
    between = np.full((pictures[0].shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, between)][:-1], axis=1)


def _label(text: str, width: int, height: int) -> Picture:
    """Centred text on white, as a picture [height, width, 3]; set smaller where it would not fit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    points = min(0.45 * height, 1.5 * width / max(len(text), 1)) * 0.72
    figure.text(0.5, 0.45, text, ha="center", va="center", fontsize=points, color="#333333", parse_math=False)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    out = np.full((height, width, 3), 255, np.uint8)  # a figure's size may round to one pixel off
    rows, columns = min(height, drawn.shape[0]), min(width, drawn.shape[1])
    out[:rows, :columns] = drawn[:rows, :columns]
    return out
