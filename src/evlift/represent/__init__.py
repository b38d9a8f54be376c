"""Events → arrays: what a network sees.

grid = VoxelGrid(bins=5)(events)                     # Events or Window -> float32 [5, H, W]
same = build(VoxelGrid(5).config())                  # a saved encoder carries its representation so
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from evlift.errors import ConfigError
from evlift.events import Events, Window
from evlift.represent.histogram import Histogram
from evlift.represent.rectify import rectify
from evlift.represent.surface import TimeSurface
from evlift.represent.voxel import VoxelGrid


class Representation(Protocol):
    """Events → float32 [channels, H, W], and the settings that make it again."""

    @property
    def channels(self) -> int: ...

    def config(self) -> dict[str, Any]: ...

    def __call__(self, events: Events | Window, out: np.ndarray | None = None) -> np.ndarray: ...


REPRESENTATIONS: dict[str, Callable[..., Representation]] = {
    "voxel-grid": VoxelGrid,
    "histogram": Histogram,
    "time-surface": TimeSurface,
}
"""Every representation by the name that configs and saved encoders use."""

__all__ = ["REPRESENTATIONS", "Histogram", "Representation", "TimeSurface", "VoxelGrid", "build", "rectify"]


def build(config: Mapping[str, Any]) -> Representation:
    """The representation that ``config`` names, e.g. ``{"name": "voxel-grid", "bins": 5}``.

    Raises ConfigError on an unknown name or setting.
    """
    settings = dict(config)
    name = settings.pop("name", None)
    if not isinstance(name, str) or name not in REPRESENTATIONS:
        raise ConfigError(f"there is no representation {name!r}; use one of: {', '.join(REPRESENTATIONS)}")
    try:
        return REPRESENTATIONS[name](**settings)
    except TypeError:
        raise ConfigError(f"representation {name!r} does not take {', '.join(settings)}; check its settings") from None
