"""The voxel grid's loops, compiled by numba on first use and cached beside this file.

Why they are fast. A grid of C bins has C - 1 intervals between bin centres. Times are sorted, so all events of an
interval come together and touch the same two planes, k and k + 1. While an interval runs, both planes live in one array
of 64-bit cells, one cell a pixel, so that an event costs one load, one add and one store in one cache line. Pixel
numbers and weights are worked out a block of events at a time in loops the compiler turns into vector code; a second
loop only adds. At the end of the interval the cells are spread over the two planes of the output and zeroed.

A cell holds two sums in fixed point. An event of polarity v = ±1 and weight w (its share of plane
k + 1) adds

    v · 2^44 + v · round(w · 2^24)

The low 44 bits, read as a signed number, are S = Σ v·w; what is above them is N = Σ v; plane k gets N - S and plane
k + 1 gets S. Cells are spread at least every 2^19 - 1 events, so neither sum can run over. Sums of whole numbers are
exact: crowded pixels come out closer to the true value than by adding up float32.

Nothing here trusts its input: a pixel outside the sensor, a time outside its interval or an index that does not fit
ends the loop with a status before anything is written out of bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba import types as nb

OK, OUTSIDE, DISORDER, INDEX = 0, 1, 2, 3
BLOCK = 1024  # events a block: index and value buffers (12 KB) stay in the first-level cache
LIMIT = (1 << 19) - 1  # events between two spreads
SHIFT = 44
ONE, HALF = np.float32(1 << 24), np.float32(0.5)
UNIT = np.float32(1.0 / (1 << 24))
SLACK = np.int32(1 << 10)  # a weight this far (6e-5) outside 0..1 is rounding, farther is damaged data
RANGE = np.uint32((1 << 24) + (1 << 11))


def _compile(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """njit for one signature, cached on disk where a cache can be written, else compiled anew by each process."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        try:
            return njit(signature, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder to keep its cache in
            return njit(signature, **options)(function)

    return wrap


def _read(dtype: Any) -> Any:
    return nb.Array(dtype, 1, "C", readonly=True)  # takes writable arrays, too


_OUT = nb.float32[:, ::1]  # [C, H·W]
_CELLS, _INDEX, _VALUE = nb.int64[::1], nb.uint32[::1], nb.int64[::1]


@_compile(nb.void(_CELLS, _INDEX, _VALUE, nb.int64))
def _add(cells, index, value, m):
    for j in range(m):
        cells[index[j]] += value[j]


@_compile(nb.UniTuple(nb.float32, 2)(nb.int64))
def _sums(cell):
    """N and S of a cell. S in two halves of 32 bits: of those, vector code converts many at once."""
    low = (cell << (64 - SHIFT)) >> (64 - SHIFT)
    whole, part = np.float32(np.int32(low >> 24)), np.float32(np.int32(low) & np.int32(0xFFFFFF))
    return np.float32(np.int32((cell - low) >> SHIFT)), whole + part * UNIT


@_compile(nb.void(_CELLS, _OUT, nb.int64, nb.boolean))
def _spread(cells, out, k, first):
    """Add the cells' sums to planes k and k + 1 and zero them; ``first``: plane k + 1 holds nothing yet and is set."""
    here = out[k]
    if k + 1 == len(out):  # the only bin of a grid of one: every weight is 0
        for i in range(len(here)):
            here[i] += np.float32(cells[i] >> SHIFT)
            cells[i] = 0
        return
    there = out[k + 1]
    if first:
        for i in range(len(here)):
            n, s = _sums(cells[i])
            here[i] += n - s
            there[i] = s
            cells[i] = 0
    else:
        for i in range(len(here)):
            n, s = _sums(cells[i])
            here[i] += n - s
            there[i] += s
            cells[i] = 0


@_compile(
    nb.int64(
        *(_read(nb.uint16), _read(nb.uint16), _read(nb.uint8), _read(nb.int64), nb.int64),
        *(_OUT, _CELLS, _INDEX, _VALUE),
    )
)
def voxel_columns(x, y, p, t, width, out, cells, index, value):
    """Fill ``out`` float32 [C, H·W] from N ≥ 1 events; ``cells`` int64 [H·W] must be zero and is so again after OK."""
    n, bins = len(t), len(out)
    w32, h32 = np.uint32(width), np.uint32(out.shape[1] // width)
    t0 = t[0]
    span = t[n - 1] - t0
    scale = (bins - 1) / span if span > 0 else 0.0
    scale32 = np.float32(scale)
    out[0] = 0
    start = 0
    for k in range(max(bins - 1, 1)):
        stop = n
        if k < bins - 2 and span > 0:
            bound = t0 - (-(k + 1) * span) // (bins - 1)  # rounded up: the first whole µs of the next interval
            low = start
            while low < stop:
                middle = (low + stop) >> 1
                if t[middle] < bound:
                    low = middle + 1
                else:
                    stop = middle
        if start >= stop and k + 1 < bins:
            out[k + 1] = 0
        first = True
        while start < stop:
            end = min(start + LIMIT, stop)
            for i in range(start, end, BLOCK):
                m = min(BLOCK, end - i)
                bx, by, bp, bt = x[i : i + m], y[i : i + m], p[i : i + m], t[i : i + m]
                outside = np.uint32(0)
                for j in range(m):
                    px, py = np.uint32(bx[j]), np.uint32(by[j])
                    outside |= np.uint32(px >= w32) | np.uint32(py >= h32)
                    index[j] = py * w32 + px
                if outside:
                    return OUTSIDE
                # Times from the block's first event on fit 32 bits (exactly) unless a block lasts over half an hour.
                base = (bt[0] - t0) * scale - k
                base32 = np.float32(base)
                away = np.uint32(0)
                if bt[m - 1] - bt[0] < 1 << 31:
                    for j in range(m):
                        w = np.float32(np.int32(bt[j] - bt[0])) * scale32 + base32
                        share = np.int32(w * ONE + HALF)
                        away |= np.uint32(np.uint32(share + SLACK) > RANGE)
                        v = np.int32(2) * np.int32(bp[j] != 0) - np.int32(1)
                        value[j] = (np.int64(v) << SHIFT) + np.int64(v * share)
                else:
                    for j in range(m):
                        w = np.float32((bt[j] - bt[0]) * scale + base)
                        share = np.int32(w * ONE + HALF)
                        away |= np.uint32(np.uint32(share + SLACK) > RANGE)
                        v = np.int32(2) * np.int32(bp[j] != 0) - np.int32(1)
                        value[j] = (np.int64(v) << SHIFT) + np.int64(v * share)
                if away:
                    return DISORDER
                _add(cells, index, value, m)
            _spread(cells, out, k, first)
            first = False
            start = end
    return OK


@_compile(
    nb.int64(
        *(_read(nb.uint32), _read(nb.int64), nb.int64, nb.int64, nb.int64),
        *(_OUT, _CELLS, _INDEX, _VALUE),
    )
)
def voxel_words(words, offsets, start_word, t_last, width, out, cells, index, value):
    """The same from N ≥ 1 packed words, read as they lie in the file.

    offsets: int64 [M + 1], index of the milliseconds the words lie in; millisecond 0 holds ``words[0]``. start_word:
    the number that ``offsets`` gives ``words[0]``. t_last: time of the last word in µs from the start of millisecond 0.
    """
    n, bins = len(words), len(out)
    milliseconds = len(offsets) - 1
    w32, h32 = np.uint32(width), np.uint32(out.shape[1] // width)
    t0 = np.int64(words[0] >> 22)
    span = t_last - t0
    if span < 0:
        return DISORDER
    scale = (bins - 1) / span if span > 0 else 0.0
    scale32 = np.float32(scale)
    out[0] = 0
    start, ms = 0, 0
    for k in range(max(bins - 1, 1)):
        stop = n
        if k < bins - 2 and span > 0:
            bound = t0 - (-(k + 1) * span) // (bins - 1)
            at = bound // 1000
            if at < milliseconds:
                low = max(offsets[at] - start_word, start)
                stop = min(offsets[at + 1] - start_word, n)
                if low > stop:
                    return INDEX
                sub = np.uint32(bound - at * 1000)
                while low < stop:
                    middle = (low + stop) >> 1
                    if words[middle] >> 22 < sub:
                        low = middle + 1
                    else:
                        stop = middle
        if start >= stop and k + 1 < bins:
            out[k + 1] = 0
        first = True
        held = 0
        while start < stop:
            while ms < milliseconds and offsets[ms + 1] - start_word <= start:
                ms += 1
            if ms == milliseconds or offsets[ms] - start_word > start:
                return INDEX
            m = min(BLOCK, stop - start, offsets[ms + 1] - start_word - start)
            block = words[start : start + m]
            outside = np.uint32(0)
            early = np.int32(block[0] >> np.uint32(22))
            base = np.float32((ms * 1000 + early - t0) * scale - k)
            away = np.uint32(0)
            for j in range(m):
                word = block[j]
                px, py = word & np.uint32(0x7FF), (word >> np.uint32(11)) & np.uint32(0x3FF)
                outside |= np.uint32(px >= w32) | np.uint32(py >= h32)
                index[j] = py * w32 + px
            if outside:
                return OUTSIDE
            for j in range(m):
                word = block[j]
                w = np.float32(np.int32(word >> np.uint32(22)) - early) * scale32 + base
                share = np.int32(w * ONE + HALF)
                away |= np.uint32(np.uint32(share + SLACK) > RANGE)
                v = np.int32((word >> np.uint32(20)) & np.uint32(2)) - np.int32(1)
                value[j] = (np.int64(v) << SHIFT) + np.int64(v * share)
            if away:
                return DISORDER
            if held + m > LIMIT:
                _spread(cells, out, k, first)
                first = False
                held = 0
            _add(cells, index, value, m)
            held += m
            start += m
        if held:
            _spread(cells, out, k, first)
    return OK
