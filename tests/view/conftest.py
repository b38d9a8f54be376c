"""A pair with tokens of known structure, for every test of the report."""

import numpy as np
import pytest

from evlift.view import PairPanel


@pytest.fixture
def make_panel():
    def make(name="pair", seed=0, h=6, w=8, patch=8, dim=12, **changes) -> PairPanel:
        rng = np.random.default_rng(seed)
        grid = np.zeros((3, h * patch, w * patch), np.float32)
        grid[1, :, : w * patch // 2] = 1.0
        grid[2, :, w * patch // 2 :] = -2.0
        given = dict(
            name=name,
            image=rng.integers(0, 256, (h * patch, w * patch, 3), dtype=np.uint8),
            grid=grid,
            teacher=rng.normal(size=(h, w, dim)).astype(np.float32),
            before=rng.normal(size=(h, w, dim)).astype(np.float32),
            after=rng.normal(size=(h, w, dim)).astype(np.float32),
            mask=rng.random((h, w)) < 0.7,
        )
        return PairPanel(**{**given, **changes})

    return make
