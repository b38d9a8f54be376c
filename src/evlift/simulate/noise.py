"""What is random in a sensor's times, and the events that no contrast made.

How many events there are in a step is one draw from a Poisson distribution; only these are then placed. No pixel draws
a number of its own, so that noise costs by the event. Events are words, as in `kernels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled


class Noise:
    """Random events of one camera.

    Args:
        rng: source of all randomness; shared with the camera.
        background_hz: rate of a pixel's events, whatever its log intensity.
        light_hz: rate of further ones at log intensity lowest + i / fineness, float64 [K].
        lowest, fineness: see `light_hz`.
        hot_share, hot_hz: probability that a pixel is hot, and the mean of the hot pixels' rates.

    Attributes:
        places, rates: the hot pixels, int64 [P] as y · width + x, and the rate of each in Hz, float64 [P].
    """

    def __init__(
        self,
        rng: np.random.Generator,
        height: int,
        width: int,
        background_hz: float,
        light_hz: NDArray[np.float64],
        lowest: np.float32,
        fineness: np.float32,
        hot_share: float,
        hot_hz: float,
    ) -> None:
        self._rng, self._scale = rng, (lowest, fineness)
        self._pixels, self._width = height * width, width
        self._most_hz = float(background_hz + light_hz.max())
        self._stays = ((background_hz + light_hz) / (self._most_hz or 1)).astype(np.float32)
        self.places, self.rates = np.empty(0, np.int64), np.empty(0)
        if hot_share and hot_hz:
            number = rng.binomial(self._pixels, hot_share)
            self.places = np.sort(rng.choice(self._pixels, number, replace=False, shuffle=False))
            self.rates = rng.exponential(hot_hz, number)
        self._edges = np.cumsum(self.rates)

    def __bool__(self) -> bool:
        return bool(self._most_hz or self.places.size)

    def add(
        self, words: NDArray[np.int64], count: int, log: NDArray[np.float32], span: int
    ) -> tuple[NDArray[np.int64], int]:
        """Write the events of a step of `span` µs after the first `count` words; the buffer and the new count.

        Args:
            log: log intensity of the pixels, float32 [H, W].
        """
        candidates = int(self._rng.poisson(self._most_hz * span * 1e-6 * self._pixels))
        sparks = int(self._rng.poisson(self._edges[-1] * span * 1e-6)) if self.places.size else 0
        need = count + candidates + sparks + 1  # `scatter` writes a candidate before it knows whether it stays
        if need > len(words):
            words = np.concatenate([words[:count], np.empty(need, np.int64)])
        count = scatter(words, count, candidates, self._rng, log, *self._scale, self._stays, span)
        return words, int(spark(words, count, sparks, self._rng, self.places, self._edges, self._width, span))


@compiled()
def shift(words: Any, count: int, rng: Any, sigma: float, span: int) -> None:
    """Add a Gaussian of standard deviation `sigma` µs to the times of the first `count` words.

    What would leave the step of `span` µs at either end is mirrored there.
    """
    for k in range(count):
        t = (words[k] >> 33) + np.int64(np.floor(sigma * rng.standard_normal() + 0.5))
        if t < 1:
            t = 1 - t
        elif t > span:
            t = 2 * span + 1 - t
        words[k] = min(max(t, 1), span) << 33 | words[k] & 0x1FFFFFFFF


@compiled()
def scatter(
    words: Any, n: int, candidates: int, rng: Any, log: Any, lowest: float, fineness: float, stays: Any, span: int
) -> Any:
    """Write events of either polarity at random pixels and times after the first n words; the new count.

    Args:
        candidates: number of events drawn. One at a pixel of log intensity x stays with a probability of
            stays[(x − lowest) · fineness]: thinned, a Poisson process is one again (Lewis & Shedler 1979).
        log: float32 [H, W].
        stays: float32 table.
    """
    height, width = log.shape
    top = np.float32(stays.size - 1)
    sides = 2.0 * height * width
    for _ in range(candidates):
        place = rng.random() * sides
        side = np.int64(place)
        t = 1 + np.int64(rng.random() * span)
        y = (side >> 1) // width
        x = (side >> 1) - y * width
        at = (log[y, x] - lowest) * fineness + np.float32(0.5)
        share = stays[np.int64(min(at, top)) if at > 0 else 0]
        words[n] = t << 33 | y << 17 | x << 1 | side & 1
        n += place - side < share  # what is behind the point of `place` is as random as what is before it
    return n


@compiled()
def spark(words: Any, n: int, count: int, rng: Any, places: Any, edges: Any, width: int, span: int) -> Any:
    """Write `count` ON events of hot pixels at random times after the first n words; the new count.

    Args:
        places: the hot pixels, int64 [P], y · width + x.
        edges: sum of their rates up to and including each, float64 [P].
    """
    for _ in range(count):
        k = min(np.searchsorted(edges, rng.random() * edges[-1], side="right"), places.size - 1)
        t = 1 + np.int64(rng.random() * span)
        y = places[k] // width
        words[n] = t << 33 | y << 17 | (places[k] - y * width) << 1 | 1
        n += 1
    return n
