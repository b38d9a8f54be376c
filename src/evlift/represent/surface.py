"""Time surface: how long ago each pixel last fired (Lagorce et al., HOTS, TPAMI 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from evlift.errors import ConfigError
from evlift.events import Events, Window
from evlift.represent.fill import block, fill, memory, output


@dataclass(frozen=True)
class TimeSurface:
    """``TimeSurface(decay_us)(events)``: float32 [2, H, W], OFF then ON: ``exp(-(t_last - t) / decay)``, 0 to 1.

    t is the time of the pixel's last event of that polarity, t_last that of the last event of all: a pixel that fired
    then has 1, one that did not fire at all has 0. No events give zeros.
    Raises ConfigError when the decay is not a positive number of microseconds.
    """

    decay_us: float = 50_000.0

    def __post_init__(self) -> None:
        decay = self.decay_us
        if isinstance(decay, bool) or not isinstance(decay, Real) or not 1e-6 <= float(decay) < math.inf:
            raise ConfigError(f"a time surface cannot decay in {decay!r} µs; use a positive number")
        object.__setattr__(self, "decay_us", float(decay))

    @property
    def channels(self) -> int:
        """Planes of the output."""
        return 2

    def config(self) -> dict[str, Any]:
        """What ``represent.build`` needs to make this again."""
        return {"name": "time-surface", "decay_us": self.decay_us}

    def __call__(self, events: Events | Window, out: np.ndarray | None = None) -> np.ndarray:
        """The surface of these events, float32 [2, H, W]; one thread.

        out, errors: as for :class:`VoxelGrid`.
        """
        out = output(out, (2, events.height, events.width))
        if not len(events):
            out[:] = 0
            return out
        from evlift.represent.kernels import BLOCK, surface_columns, surface_words

        fill(events, out, (surface_columns, surface_words), 1 / self.decay_us, *block(), memory(np.float32, BLOCK))
        with np.errstate(under="ignore"):
            return np.exp(out, out=out)
