"""Which pair comes when: a pure function of the seed and the step, so that a run can go on anywhere.

Step `s` of a run takes the pairs at positions `s·batch … (s+1)·batch` of an endless sequence: a new permutation of all
pairs for every epoch. Each process takes every `world`-th of a step's pairs; together they see what one process would.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)


def keys_of_step(step: int, *, length: int, batch: int, seed: int) -> list[tuple[int, int]]:
    """The `batch` keys (epoch, index) of one step over a data set of `length` pairs."""
    keys = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, length)
        keys.append((epoch, int(_permutation(seed, epoch, length)[place])))
    return keys


class StepSampler:
    """A batch sampler from step `start` up to step `stop`; rank `rank` of `world` processes takes its share of each."""

    def __init__(self, start: int, stop: int, *, length: int, batch: int, seed: int, rank: int = 0, world: int = 1):
        self.start, self.stop, self.length, self.batch = start, stop, length, batch
        self.seed, self.rank, self.world = seed, rank, world

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.stop):
            yield keys_of_step(step, length=self.length, batch=self.batch, seed=self.seed)[self.rank :: self.world]
