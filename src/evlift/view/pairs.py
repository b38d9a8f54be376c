"""Some pairs of a collection as one picture: what `evlift simulate --preview` and `evlift info --picture` draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..collection import Collection, PairDataset
from ..errors import InputError
from ..represent import VoxelGrid
from .panel import pair_grid


def preview(collection: Collection, count: int = 8) -> NDArray[np.uint8]:
    """`count` pairs of the collection's largest split, spread evenly, image beside events; uint8 RGB."""
    splits = {name: pairs for name, pairs in collection.splits.items() if name in ("train", "val", "test")}
    if not splits:
        raise InputError(f"{collection.path} holds no pairs; there is nothing to draw")
    pairs = PairDataset(collection, max(splits, key=lambda name: splits[name]), VoxelGrid(5), augment=False)
    count = min(count, len(pairs))
    items = [pairs[i * len(pairs) // count] for i in range(count)]
    pictures = [((item["image"].permute(1, 2, 0) * 255).byte().numpy(), item["grid"].numpy()) for item in items]
    return pair_grid(pictures, columns=2)
