"""Voxel grid: events summed into time bins, each shared between its two nearest bins (Zhu et al., CVPR 2019).

Bins are scaled by C - 1, as there and in DSEC's code: the first event lies on the centre of bin 0, the last on that of
bin C - 1, and an event at time t adds to the two bins k around
``b = (t - t_first) / (t_last - t_first) · (C - 1)``, with shares 1 - |b - k|. Nothing is normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evlift.errors import ConfigError
from evlift.events import Events, Window
from evlift.represent.fill import block, check_bins, fill, memory, output


@dataclass(frozen=True)
class VoxelGrid:
    """``VoxelGrid(bins)(events)``: float32 [C, H, W], bilinear in time.

    polarity: "signed", C = bins planes to which an event adds its polarity ±1 times its share; or "split",
    C = 2 · bins planes of plain shares, first those of OFF in order of time, then those of ON.

    Events of a single time all go to bin 0; no events give zeros. For shares in space too, as DSEC's grids of rectified
    events have them, see :func:`evlift.represent.rectify`. Raises ConfigError when bins is not 1..1024 or the polarity
    is neither.
    """

    bins: int = 5
    polarity: str = "signed"

    def __post_init__(self) -> None:
        check_bins("voxel grid", self.bins)
        if self.polarity not in ("signed", "split"):
            raise ConfigError(f"a voxel grid cannot have polarity {self.polarity!r}; use 'signed' or 'split'")

    @property
    def channels(self) -> int:
        """Planes of the output."""
        return self.bins if self.polarity == "signed" else 2 * self.bins

    def config(self) -> dict[str, Any]:
        """What ``represent.build`` needs to make this again."""
        config: dict[str, Any] = {"name": "voxel-grid", "bins": self.bins}
        return config if self.polarity == "signed" else {**config, "polarity": self.polarity}

    def __call__(self, events: Events | Window, out: np.ndarray | None = None) -> np.ndarray:
        """The grid of these events, float32 [C, H, W]; one thread, without holding Python's lock.

        out: an array of that shape and dtype to fill and return: a new one costs as much as filling it.
        Raises InputError when ``out`` does not fit, and when a window's words are damaged (``out`` then holds no grid).
        """
        out = output(out, (self.channels, events.height, events.width))
        if not len(events):
            out[:] = 0
            return out
        from evlift.represent.kernels import BLOCK, voxel_columns, voxel_words

        halves = self.channels // self.bins
        cells, value = memory(np.int64, halves * events.height * events.width, "cells"), memory(np.int64, BLOCK)
        fill(events, out, (voxel_columns, voxel_words), halves, *block(), cells, value, cells=cells)
        return out
