"""What representations share around their loops: checks of settings and output, working memory, and the call itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from evlift.errors import ConfigError, InputError
from evlift.events import Events, Window

MAX_BINS = 1024
MAX_SPAN_US = 1 << 50  # 35 years: keeps span · bins within 64 bits
_memory = threading.local()


def check_bins(what: str, bins: Any) -> None:
    """ConfigError when bins is not a whole number, 1..1024."""
    if isinstance(bins, bool) or not isinstance(bins, int) or not 1 <= bins <= MAX_BINS:
        raise ConfigError(f"a {what} of {bins!r} bins cannot be made; use a whole number, 1 to {MAX_BINS}")


def output(out: np.ndarray | None, shape: tuple[int, int, int]) -> np.ndarray:
    """``out`` when it can be filled with planes of this shape, a new array when there is none; else InputError."""
    if out is None:
        return np.empty(shape, np.float32)
    if out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous or not out.flags.writeable:
        raise InputError(f"out is {out.dtype} {out.shape}; give a writable, contiguous float32 array of shape {shape}")
    return out


def memory(dtype: type, count: int, use: str = "") -> np.ndarray:
    """This thread's working memory for one use, ``count`` numbers: zero at first, then as its last user left it."""
    kept = _memory.__dict__
    key = f"{dtype.__name__} {use}"
    if key not in kept or len(kept[key]) < count:
        kept[key] = np.zeros(count, dtype)
    return kept[key][:count]


def block() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The buffers of one block: pixel number, time, polarity."""
    from evlift.represent.kernels import BLOCK

    return memory(np.uint32, BLOCK, "index"), memory(np.int32, BLOCK, "since"), memory(np.uint8, BLOCK, "on")


def fill(
    events: Events | Window,
    out: np.ndarray,
    kernels: tuple[Callable[..., int], Callable[..., int]],
    *arguments: Any,
    cells: np.ndarray | None = None,
) -> None:
    """Run the kernel for columns or the one for words over at least one event.

    out: float32 [C, H, W]. arguments: the kernel's, after its output. cells: those of them that must be zero between
    calls. Raises InputError when the events span too long a time or the words are damaged.
    """
    from evlift.represent.kernels import INDEX, OK

    planes = out.reshape(len(out), -1)
    columns, words = kernels
    status = INDEX
    try:
        if isinstance(events, Window):
            t_last = last_time(events)
            if t_last is not None:
                given = events.words, events.offsets, events.start, t_last
                status = words(*given, events.width, planes, *arguments)
        else:
            if events.duration_us > MAX_SPAN_US:
                raise InputError(f"events span {events.duration_us} µs; cut a window of at most {MAX_SPAN_US} µs")
            x, y, p, t = (np.ascontiguousarray(c) for c in (events.x, events.y, events.p, events.t))
            status = columns(x, y, p.view(np.uint8), t, events.width, planes, *arguments)
    finally:
        if status != OK and cells is not None:
            cells[:] = 0
    refuse(status)


def refuse(status: int) -> None:
    """InputError for a kernel's status, unless it is OK."""
    from evlift.represent.kernels import DISORDER, OK, OUTSIDE

    if status != OK:
        what = {OUTSIDE: "lie outside the sensor", DISORDER: "are out of order in time"}
        raise InputError(
            f"events {what.get(status, 'do not fit their index')}: damaged data; convert the recording again"
        )


def last_time(window: Window) -> int | None:
    """Time of the last word in µs from the start of the window's first millisecond; None when the index is wrong."""
    last = int(np.searchsorted(window.offsets, window.start + len(window))) - 1
    if not 0 <= last < len(window.offsets) - 1 or not window.offsets[0] <= window.start < window.offsets[1]:
        return None
    return last * 1000 + int(window.words[-1] >> 22)
