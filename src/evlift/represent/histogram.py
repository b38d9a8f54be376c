"""Stacked histogram: events counted by polarity and time bin (Gehrig & Scaramuzza, RVT, CVPR 2023).

An event at time t counts in bin ``min(⌊(t - t_first) · B / (t_last - t_first)⌋, B - 1)``, computed in whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evlift.errors import ConfigError
from evlift.events import Events, Window
from evlift.represent.fill import block, check_bins, fill, memory, output

MAX_COUNT = 1 << 24  # float32 holds every whole number up to here


@dataclass(frozen=True)
class Histogram:
    """``Histogram(bins)(events)``: counts, float32 [2 · bins, H, W]: bins of OFF in order of time, then those of ON.

    max_count: where counts end. The default is the largest that RVT's 8 bits hold; there they may wrap, here they stay.
    None lets them grow to 2^24, the last whole number that float32 counts to. Nothing else is normalised.

    ``Histogram(1)`` is the event count image. Events of a single time all go to the first bin; no events give zeros.
    Raises ConfigError when bins is not 1..1024 or max_count not 1..2^24.
    """

    bins: int = 10
    max_count: int | None = 255

    def __post_init__(self) -> None:
        check_bins("histogram", self.bins)
        most = self.max_count
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MAX_COUNT):
            raise ConfigError(f"a histogram cannot end at {most!r} events; use 1 to {MAX_COUNT}, or None")

    @property
    def channels(self) -> int:
        """Planes of the output."""
        return 2 * self.bins

    def config(self) -> dict[str, Any]:
        """What ``represent.build`` needs to make this again."""
        return {"name": "histogram", "bins": self.bins, "max_count": self.max_count}

    def __call__(self, events: Events | Window, out: np.ndarray | None = None) -> np.ndarray:
        """The counts of these events, float32 [2 · bins, H, W]; one thread, without holding Python's lock.

        out, errors: as for :class:`VoxelGrid`.
        """
        out = output(out, (self.channels, events.height, events.width))
        if not len(events):
            out[:] = 0
            return out
        from evlift.represent.kernels import BLOCK, histogram_columns, histogram_words

        most = np.float32(MAX_COUNT if self.max_count is None else self.max_count)
        cells = memory(np.uint32, events.height * events.width, "cells")
        index, value = block()[0], memory(np.uint32, BLOCK)
        fill(events, out, (histogram_columns, histogram_words), most, index, value, cells, cells=cells)
        return out
