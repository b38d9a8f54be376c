"""Events → arrays: what a network sees.

grid = VoxelGrid(bins=5)(events)                     # Events or Window -> float32 [5, H, W]
same = build(VoxelGrid(5).config())                  # a saved encoder carries its representation so
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evlift.errors import ConfigError
from evlift.represent.voxel import VoxelGrid

REPRESENTATIONS: dict[str, Callable[..., VoxelGrid]] = {"voxel-grid": VoxelGrid}
"""Every representation by the name that configs and saved encoders use."""

__all__ = ["REPRESENTATIONS", "VoxelGrid", "build"]


def build(config: Mapping[str, Any]) -> VoxelGrid:
    """The representation that ``config`` names, e.g. ``{"name": "voxel-grid", "bins": 5}``.

    Raises ConfigError on an unknown name or setting.
    """
    settings = dict(config)
    name = settings.pop("name", None)
    if name not in REPRESENTATIONS:
        raise ConfigError(f"there is no representation {name!r}; use one of: {', '.join(REPRESENTATIONS)}")
    try:
        return REPRESENTATIONS[name](**settings)
    except TypeError:
        raise ConfigError(f"representation {name!r} does not take {', '.join(settings)}; check its settings") from None
