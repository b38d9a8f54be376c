"""Voxel grid: events summed into time bins, each shared between its two nearest bins (Zhu et al., CVPR 2019).

Bins are scaled by C - 1, as there and in DSEC's code: the first event lies on the centre of bin 0, the last on that of
bin C - 1, and an event at time t adds its polarity ±1 to the two bins k around
``b = (t - t_first) / (t_last - t_first) · (C - 1)``, with shares 1 - |b - k|.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events import Events, Window

MAX_BINS = 1024
MAX_SPAN_US = 1 << 50  # 35 years: keeps span · bins within 64 bits
_scratch = threading.local()


@dataclass(frozen=True)
class VoxelGrid:
    """``VoxelGrid(bins)(events)``: float32 [bins, H, W], bilinear in time, polarity ±1.

    Events of a single time all go to bin 0; no events give zeros. Raises ConfigError when bins is not 1..1024.
    """

    bins: int = 5

    def __post_init__(self) -> None:
        if isinstance(self.bins, bool) or not isinstance(self.bins, int) or not 1 <= self.bins <= MAX_BINS:
            raise ConfigError(f"a voxel grid of {self.bins!r} bins cannot be made; use a whole number, 1 to {MAX_BINS}")

    @property
    def channels(self) -> int:
        """Planes of the output."""
        return self.bins

    def config(self) -> dict[str, Any]:
        """What ``represent.build`` needs to make this again."""
        return {"name": "voxel-grid", "bins": self.bins}

    def __call__(self, events: Events | Window, out: np.ndarray | None = None) -> np.ndarray:
        """The grid of these events, float32 [bins, H, W]; one thread, without holding Python's lock.

        out: an array of that shape and dtype to fill and return: a new one costs as much as filling it.
        Raises InputError when ``out`` does not fit, and when a window's words are damaged (``out`` then holds no grid).
        """
        shape = (self.bins, events.height, events.width)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous or not out.flags.writeable:
            raise InputError(
                f"out is {out.dtype} {out.shape}; give a writable, contiguous float32 array of shape {shape}"
            )
        if not len(events):
            out[:] = 0
            return out
        from evlift.represent import kernels

        flat = out.reshape(self.bins, -1)
        work = _work(flat.shape[1], kernels.BLOCK)
        status = kernels.INDEX
        try:
            status = (_from_words if isinstance(events, Window) else _from_columns)(events, flat, work)
        finally:
            if status != kernels.OK:
                work[0][:] = 0
        if status != kernels.OK:
            what = {kernels.OUTSIDE: "lie outside the sensor", kernels.DISORDER: "are out of order in time"}
            raise InputError(
                f"events {what.get(status, 'do not fit their index')}: damaged data; convert the recording again"
            )
        return out


def _from_columns(events: Any, out: np.ndarray, work: tuple[np.ndarray, ...]) -> int:
    from evlift.represent.kernels import voxel_columns

    if events.duration_us > MAX_SPAN_US:
        raise InputError(f"events span {events.duration_us} µs; cut a window of at most {MAX_SPAN_US} µs")
    x, y, p, t = (np.ascontiguousarray(c) for c in (events.x, events.y, events.p, events.t))
    return voxel_columns(x, y, p.view(np.uint8), t, events.width, out, *work)


def _from_words(window: Any, out: np.ndarray, work: tuple[np.ndarray, ...]) -> int:
    from evlift.represent.kernels import INDEX, voxel_words

    # The last word's millisecond: the last one that starts before the window's end.
    last = int(np.searchsorted(window.offsets, window.start + len(window))) - 1
    if not 0 <= last < len(window.offsets) - 1 or window.offsets[0] > window.start:
        return INDEX
    t_last = last * 1000 + int(window.words[-1] >> 22)
    return voxel_words(window.words, window.offsets, window.start, t_last, window.width, out, *work)


def _work(pixels: int, block: int) -> tuple[np.ndarray, ...]:
    """This thread's working memory: cells int64 [pixels] (all zero between calls), index and value of one block."""
    kept = getattr(_scratch, "kept", None)
    if kept is None or len(kept[0]) < pixels:
        kept = np.zeros(pixels, np.int64), np.empty(block, np.uint32), np.empty(block, np.int64)
        _scratch.kept = kept
    return kept[0][:pixels], kept[1], kept[2]
