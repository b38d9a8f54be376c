"""The loops of the representations, compiled by numba on first use and cached beside this file.

Why they are fast. Times are sorted, so all events of a time bin come together. A kernel works bin by bin: it finds
where the bin ends (for packed words two look-ups in the millisecond index, then a search within that millisecond),
works out pixel numbers and values for a block of events at a time in loops the compiler turns into vector code, and in
a last loop only adds, to working memory small enough for the caches: one cell a pixel, so that an event costs one load,
one add and one store in one cache line. At the bin's end the cells are moved to the planes of the output and zeroed.

Nothing here trusts its input: a pixel outside the sensor, a time outside its bin or an index that does not fit ends
the loop with a status before anything is written out of bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types as nb
from numba.core import cgutils
from numba.extending import intrinsic

from evlift.compiled import compiled

OK, OUTSIDE, DISORDER, INDEX = 0, 1, 2, 3
BLOCK = 512  # events a block: its buffers (9 KB) stay in the first-level cache
AHEAD = 4 * BLOCK  # how far ahead events are fetched: while the adding waits for cells, the memory has time for them


def read(dtype: Any) -> Any:
    """The type of a column that is only read."""
    return nb.Array(dtype, 1, "C", readonly=True)  # takes writable arrays, too


PLANES = nb.float32[:, ::1]  # the output, [C, H·W]
COLUMNS = read(nb.uint16), read(nb.uint16), read(nb.uint8), read(nb.int64)  # x, y, p, t
# words: uint32 [N], N ≥ 1. offsets: int64 [M + 1], index of the milliseconds the words lie in; millisecond 0 holds
# ``words[0]``. start_word: the number that ``offsets`` gives ``words[0]``. t_last: time of the last word in µs from the
# start of millisecond 0.
WORDS = read(nb.uint32), read(nb.int64), nb.int64, nb.int64
INDICES, SINCE, ON = nb.uint32[::1], nb.int32[::1], nb.uint8[::1]
BUFFERS = INDICES, SINCE, ON  # of one block: pixel number, time since the block's first event, polarity


@intrinsic
def prefetch(_, array, index):
    """Ask for the cache line of ``array[index]``. Nothing is read, so the index may lie anywhere."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        line = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [line, number(0), number(3), number(1)])  # to read; keep in all caches; data
        return context.get_dummy_value()

    return nb.void(array, nb.int64), generate


@compiled(nb.void(*COLUMNS, nb.int64))
def prefetch_columns(x, y, p, t, start):
    """Ask for a block's columns."""
    for i in range(start, start + BLOCK, 64):
        prefetch(p, i)  # type: ignore[call-arg]
    for i in range(start, start + BLOCK, 32):
        prefetch(x, i)  # type: ignore[call-arg]
        prefetch(y, i)
    for i in range(start, start + BLOCK, 8):
        prefetch(t, i)  # type: ignore[call-arg]


@compiled(nb.void(WORDS[0], nb.int64, nb.int64))
def prefetch_words(words, start, m):
    """Ask for the m words from ``start`` on."""
    for i in range(start, start + m, 16):
        prefetch(words, i)  # type: ignore[call-arg]


@compiled(nb.int64(COLUMNS[3], nb.int64, nb.int64, nb.int64))
def first_at_columns(t, bound, low, high):
    """The first event of ``low..high`` at ``bound`` or later."""
    while low < high:
        middle = (low + high) >> 1
        if t[middle] < bound:
            low = middle + 1
        else:
            high = middle
    return low


@compiled(nb.int64(*WORDS[:3], nb.int64, nb.int64))
def first_at_words(words, offsets, start_word, bound, start):
    """The first word from ``start`` on at ``bound`` (µs from millisecond 0) or later; -1: the index does not fit."""
    ms = bound // 1000
    if ms >= len(offsets) - 1:
        return len(words)
    low, high = max(offsets[ms] - start_word, start), min(offsets[ms + 1] - start_word, len(words))
    if low > high:
        return -1
    sub = np.uint32(bound - ms * 1000)
    while low < high:
        middle = (low + high) >> 1
        if words[middle] >> 22 < sub:
            low = middle + 1
        else:
            high = middle
    return low


@compiled(nb.UniTuple(nb.int64, 2)(WORDS[1], nb.int64, nb.int64, nb.int64, nb.int64))
def next_words(offsets, start_word, ms, start, stop):
    """Millisecond of word ``start`` (``ms`` or later), and how many words from there make a block; 0: wrong index."""
    while ms < len(offsets) - 1 and offsets[ms + 1] - start_word <= start:
        ms += 1
    if ms >= len(offsets) - 1 or offsets[ms] - start_word > start:
        return ms, 0
    return ms, min(BLOCK, stop - start, offsets[ms + 1] - start_word - start)


@compiled(nb.uint32(*COLUMNS, nb.uint32, nb.uint32, nb.int64, *BUFFERS))
def unpack_columns(x, y, p, t, width, height, shift, index, since, on):
    """A block into its buffers, times in units of ``2^shift`` µs; not 0 when a pixel lies outside the sensor."""
    # One loop for each width of numbers: mixed, the compiler makes half as fast code of them.
    outside = np.uint32(0)
    for j in range(len(x)):
        px, py = np.uint32(x[j]), np.uint32(y[j])
        outside |= np.uint32(px >= width) | np.uint32(py >= height)
        index[j] = py * width + px
    start = t[0]
    for j in range(len(t)):
        since[j] = np.int32((t[j] - start) >> shift)
    for j in range(len(p)):
        on[j] = np.uint8(p[j] != 0)
    return outside


@compiled(nb.uint32(WORDS[0], nb.uint32, nb.uint32, *BUFFERS))
def unpack_words(words, width, height, index, since, on):
    """The same from packed words of one millisecond; bit 1 of the result: a time lies outside it."""
    outside, latest = np.uint32(0), np.uint32(0)
    for j in range(len(words)):
        word = words[j]
        latest = max(latest, word)
        px, py = word & np.uint32(0x7FF), (word >> np.uint32(11)) & np.uint32(0x3FF)
        outside |= np.uint32(px >= width) | np.uint32(py >= height)
        index[j] = py * width + px
    start = np.int32(words[0] >> np.uint32(22))
    for j in range(len(words)):
        since[j] = np.int32(words[j] >> np.uint32(22)) - start
        on[j] = np.uint8((words[j] >> np.uint32(21)) & np.uint32(1))
    return outside | np.uint32(2) * np.uint32(latest >> np.uint32(22) > np.uint32(999))


# Voxel grid.
#
# A grid of C bins has C - 1 intervals between bin centres, and all events of an interval touch the same two planes, k
# and k + 1. While an interval runs, both planes live in one array of 64-bit cells.
#
# A cell holds two sums in fixed point. An event of sign v = ±1 and weight w (its share of plane k + 1) adds
#
#     v · 2^44 + v · round(w · 2^24)
#
# The low 44 bits, read as a signed number, are S = Σ v·w; what is above them is N = Σ v; plane k gets N - S and plane
# k + 1 gets S. Cells are spread at least every 2^19 - 1 events, so neither sum can run over. Sums of whole numbers are
# exact: crowded pixels come out closer to the true value than by adding up float32.
#
# Split by polarity there are twice the cells and the planes, first those of OFF, then those of ON, and v is always 1.

LIMIT = (1 << 19) - 1  # events between two spreads
SHIFT = 44
ONE, HALF = np.float32(1 << 24), np.float32(0.5)
UNIT = np.float32(1.0 / (1 << 24))
SLACK = np.int32(1 << 10)  # a weight this far (6e-5) outside 0..1 is rounding, farther is damaged data
RANGE = np.uint32((1 << 24) + (1 << 11))

_SUMS, _ADDENDS = nb.int64[::1], nb.int64[::1]


@compiled(nb.void(_SUMS, INDICES, _ADDENDS, nb.int64))
def _add_sums(cells, index, value, m):
    for j in range(m):
        cells[index[j]] += value[j]


@compiled(nb.UniTuple(nb.float32, 2)(nb.int64))
def _sums(cell):
    """N and S of a cell. S in two halves of 32 bits: of those, vector code converts many at once."""
    low = (cell << (64 - SHIFT)) >> (64 - SHIFT)
    whole, part = np.float32(np.int32(low >> 24)), np.float32(np.int32(low) & np.int32(0xFFFFFF))
    return np.float32(np.int32((cell - low) >> SHIFT)), whole + part * UNIT


@compiled(nb.void(_SUMS, PLANES, nb.int64, nb.boolean))
def _spread_half(cells, out, k, first):
    here = out[k]
    fresh = first and k == 0
    if k + 1 == len(out):  # the only bin of a grid of one: every weight is 0
        for i in range(len(here)):
            n = np.float32(cells[i] >> SHIFT)
            here[i] = n if fresh else here[i] + n
            cells[i] = 0
        return
    there = out[k + 1]
    for i in range(len(here)):
        n, s = _sums(cells[i])
        here[i] = n - s if fresh else here[i] + (n - s)
        there[i] = s if first else there[i] + s
        cells[i] = 0


@compiled(nb.void(_SUMS, PLANES, nb.int64, nb.int64, nb.boolean))
def _spread(cells, out, halves, k, first):
    """Add the cells' sums to planes k and k + 1 and zero them; ``first``: plane k + 1 holds nothing yet."""
    bins, pixels = len(out) // halves, out.shape[1]
    for half in range(halves):
        _spread_half(cells[half * pixels : (half + 1) * pixels], out[half * bins : (half + 1) * bins], k, first)


@compiled(nb.void(PLANES, nb.int64, nb.int64))
def _no_events(out, halves, k):
    """Interval k has none: its plane k + 1 starts with zeros, and so does plane 0."""
    bins = len(out) // halves
    for half in range(halves):
        if k == 0:
            out[half * bins] = 0
        if k + 1 < bins:
            out[half * bins + k + 1] = 0


@compiled(nb.uint32(SINCE, ON, nb.boolean, nb.float32, nb.float32, _ADDENDS, nb.int64))
def _values(since, on, split, scale, base, value, m):
    """What each event of a block adds to its cell; not 0 when a time lies outside the interval."""
    low, rise = (np.int32(1), np.int32(0)) if split else (np.int32(-1), np.int32(2))
    away = np.uint32(0)
    for j in range(m):
        share = np.int32((np.float32(since[j]) * scale + base) * ONE + HALF)
        away |= np.uint32(np.uint32(share + SLACK) > RANGE)
        v = low + rise * np.int32(on[j])
        value[j] = (np.int64(v) << SHIFT) + np.int64(v * share)
    return away


@compiled(nb.void(ON, nb.uint32, INDICES, nb.int64))
def _second_half(on, pixels, index, m):
    for j in range(m):
        index[j] += np.uint32(on[j]) * pixels


@compiled(nb.int64(*COLUMNS, nb.int64, PLANES, nb.int64, *BUFFERS, _SUMS, _ADDENDS))
def voxel_columns(x, y, p, t, width, out, halves, index, since, on, cells, value):
    """Fill ``out`` float32 [C, H·W] from N ≥ 1 events.

    halves: 1 for signed planes, 2 for those of OFF and of ON. cells: int64 [halves·H·W], must be zero and is so again
    after OK.
    """
    n, bins, pixels = len(t), len(out) // halves, out.shape[1]
    w32, h32 = np.uint32(width), np.uint32(pixels // width)
    t0 = t[0]
    span = t[n - 1] - t0
    scale = (bins - 1) / span if span > 0 else 0.0
    start = 0
    for k in range(max(bins - 1, 1)):
        stop = n
        if k < bins - 2 and span > 0:
            bound = t0 - (-(k + 1) * span) // (bins - 1)  # rounded up: the first whole µs of the next interval
            stop = first_at_columns(t, bound, start, n)
        if start >= stop:
            _no_events(out, halves, k)
        first = True
        while start < stop:
            end = min(start + LIMIT, stop)
            for i in range(start, end, BLOCK):
                m = min(BLOCK, end - i)
                base, shift = np.float32((t[i] - t0) * scale - k), 0
                while (t[i + m - 1] - t[i]) >> shift >= 1 << 31:  # a block of over half an hour: whole µs do not fit
                    shift += 1
                if unpack_columns(
                    x[i : i + m], y[i : i + m], p[i : i + m], t[i : i + m], w32, h32, shift, index, since, on
                ):
                    return OUTSIDE
                if _values(since, on, halves == 2, np.float32(scale * (1 << shift)), base, value, m):
                    return DISORDER
                if halves == 2:
                    _second_half(on, pixels, index, m)
                prefetch_columns(x, y, p, t, i + AHEAD)
                _add_sums(cells, index, value, m)
            _spread(cells, out, halves, k, first)
            first = False
            start = end
    return OK


@compiled(nb.int64(*WORDS, nb.int64, PLANES, nb.int64, *BUFFERS, _SUMS, _ADDENDS))
def voxel_words(words, offsets, start_word, t_last, width, out, halves, index, since, on, cells, value):
    """The same from N ≥ 1 packed words, read as they lie in the file."""
    n, bins, pixels = len(words), len(out) // halves, out.shape[1]
    w32, h32 = np.uint32(width), np.uint32(pixels // width)
    t0 = np.int64(words[0] >> 22)
    span = t_last - t0
    if span < 0:
        return DISORDER
    scale = (bins - 1) / span if span > 0 else 0.0
    scale32 = np.float32(scale)
    start, ms = 0, 0
    for k in range(max(bins - 1, 1)):
        stop = n
        if k < bins - 2 and span > 0:
            stop = first_at_words(words, offsets, start_word, t0 - (-(k + 1) * span) // (bins - 1), start)
            if stop < 0:
                return INDEX
        if start >= stop:
            _no_events(out, halves, k)
        first = True
        held = 0
        while start < stop:
            ms, m = next_words(offsets, start_word, ms, start, stop)
            if m == 0:
                return INDEX
            base = np.float32((ms * 1000 + np.int64(words[start] >> 22) - t0) * scale - k)
            wrong = unpack_words(words[start : start + m], w32, h32, index, since, on)
            if wrong:
                return OUTSIDE if wrong & 1 else DISORDER
            if _values(since, on, halves == 2, scale32, base, value, m):
                return DISORDER
            if halves == 2:
                _second_half(on, pixels, index, m)
            if held + m > LIMIT:
                _spread(cells, out, halves, k, first)
                first = False
                held = 0
            prefetch_words(words, start + AHEAD, m)
            _add_sums(cells, index, value, m)
            held += m
            start += m
        if held:
            _spread(cells, out, halves, k, first)
    return OK


# Stacked histogram.
#
# All events of a time bin touch the same two planes, OFF and ON. While a bin runs, both live in one array of 32-bit
# cells, the count of OFF in the low half and that of ON in the high half. Cells are read out before a count can leave
# its half: a block adds at most 512 to a count, and after each block a look at the bits that were set tells whether any
# count passed 2^15. Of columns, times are only read to find where a bin ends.

FULL = np.uint32(0x8000_8000)

_COUNTS, _ONES = nb.uint32[::1], nb.uint32[::1]


@compiled(nb.uint32(_COUNTS, INDICES, _ONES, nb.int64))
def _add_counts(cells, index, value, m):
    """Adds a block; not 0 when a count is so high that the cells must be read out before the next."""
    seen = np.uint32(0)
    for j in range(m):
        count = cells[index[j]] + value[j]
        cells[index[j]] = count
        seen |= count
    return seen & FULL


@compiled(nb.void(_COUNTS, PLANES, nb.int64, nb.float32, nb.boolean))
def _read_out(cells, out, k, most, first):
    """Move the counts to planes k (OFF) and B + k (ON), which hold nothing yet if ``first``, and zero the cells."""
    off, on = out[k], out[len(out) // 2 + k]
    if first:
        for i in range(len(cells)):
            off[i] = min(np.float32(np.int32(cells[i] & np.uint32(0xFFFF))), most)
            on[i] = min(np.float32(np.int32(cells[i] >> np.uint32(16))), most)
            cells[i] = 0
    else:
        for i in range(len(cells)):
            off[i] = min(off[i] + np.float32(np.int32(cells[i] & np.uint32(0xFFFF))), most)
            on[i] = min(on[i] + np.float32(np.int32(cells[i] >> np.uint32(16))), most)
            cells[i] = 0


@compiled(nb.void(PLANES, nb.int64))
def _clear_bin(out, k):
    out[k] = 0
    out[len(out) // 2 + k] = 0


@compiled(nb.uint32(*COLUMNS[:3], nb.uint32, nb.uint32, INDICES, _ONES))
def _ones_of_columns(x, y, p, width, height, index, value):
    """Cell numbers of a block and what is added to each; not 0 when a pixel lies outside the sensor."""
    outside = np.uint32(0)
    for j in range(len(x)):
        px, py = np.uint32(x[j]), np.uint32(y[j])
        outside |= np.uint32(px >= width) | np.uint32(py >= height)
        index[j] = py * width + px
    for j in range(len(p)):
        value[j] = np.uint32(0x1_0000) if p[j] != 0 else np.uint32(1)
    return outside


@compiled(nb.UniTuple(nb.uint32, 2)(WORDS[0], nb.uint32, nb.uint32, nb.uint32, nb.uint32, INDICES, _ONES))
def _ones_of_words(words, width, height, early, length, index, value):
    """The same; the second is not 0 when a time lies outside ``early .. early + length`` µs of its millisecond."""
    outside, away = np.uint32(0), np.uint32(0)
    for j in range(len(words)):
        word = words[j]
        px, py = word & np.uint32(0x7FF), (word >> np.uint32(11)) & np.uint32(0x3FF)
        outside |= np.uint32(px >= width) | np.uint32(py >= height)
        away |= np.uint32((word >> np.uint32(22)) - early >= length)
        index[j] = py * width + px
        value[j] = np.uint32(1) + np.uint32(0xFFFF) * ((word >> np.uint32(21)) & np.uint32(1))
    return outside, away


@compiled(nb.int64(*COLUMNS, nb.int64, PLANES, nb.float32, INDICES, _ONES, _COUNTS))
def histogram_columns(x, y, p, t, width, out, most, index, value, cells):
    """Fill ``out`` float32 [2·B, H·W] from N ≥ 1 events.

    most: counts end there. cells: uint32 [H·W], must be zero and is so again after OK.
    """
    n, bins = len(t), len(out) // 2
    w32, h32 = np.uint32(width), np.uint32(out.shape[1] // width)
    span = max(t[n - 1] - t[0], 1)
    start = 0
    for k in range(bins):
        stop = n
        if k < bins - 1:
            bound = t[0] - (-(k + 1) * span) // bins  # rounded up: the first whole µs of the next bin
            stop = first_at_columns(t, bound, start, n)
        if start >= stop:
            _clear_bin(out, k)
            continue
        first = True
        for i in range(start, stop, BLOCK):
            m = min(BLOCK, stop - i)
            if _ones_of_columns(x[i : i + m], y[i : i + m], p[i : i + m], w32, h32, index, value):
                return OUTSIDE
            if _add_counts(cells, index, value, m):
                _read_out(cells, out, k, most, first)
                first = False
        _read_out(cells, out, k, most, first)
        start = stop
    return OK


@compiled(nb.int64(*WORDS, nb.int64, PLANES, nb.float32, INDICES, _ONES, _COUNTS))
def histogram_words(words, offsets, start_word, t_last, width, out, most, index, value, cells):
    """The same from N ≥ 1 packed words, read as they lie in the file."""
    n, bins = len(words), len(out) // 2
    w32, h32 = np.uint32(width), np.uint32(out.shape[1] // width)
    t0 = np.int64(words[0] >> 22)
    if t_last < t0:
        return DISORDER
    span = max(t_last - t0, 1)
    low = t0
    start, ms = 0, 0
    for k in range(bins):
        stop, high = n, t_last + 1
        if k < bins - 1:
            high = t0 - (-(k + 1) * span) // bins
            stop = first_at_words(words, offsets, start_word, high, start)
            if stop < 0:
                return INDEX
        if start >= stop:
            _clear_bin(out, k)
            low = high
            continue
        first = True
        while start < stop:
            ms, m = next_words(offsets, start_word, ms, start, stop)
            if m == 0:
                return INDEX
            early, late = max(low - ms * 1000, 0), min(high - ms * 1000, 1000)
            if early >= late:
                return DISORDER
            outside, away = _ones_of_words(
                words[start : start + m], w32, h32, np.uint32(early), np.uint32(late - early), index, value
            )
            if outside:
                return OUTSIDE
            if away:
                return DISORDER
            if _add_counts(cells, index, value, m):
                _read_out(cells, out, k, most, first)
                first = False
            start += m
        _read_out(cells, out, k, most, first)
        low = high
    return OK


# Time surface.
#
# Each event writes ``(t - t_last) / decay``, the exponent, and the last one to do so at its pixel stays; minus infinity
# is left where nothing fired.

_AGES = nb.float32[::1]


@compiled(nb.void(PLANES, INDICES, ON, _AGES, nb.int64))
def _write(out, index, on, value, m):
    off_plane, on_plane = out[0], out[1]
    for j in range(m):
        if on[j]:
            on_plane[index[j]] = value[j]
        else:
            off_plane[index[j]] = value[j]


@compiled(nb.int64(*COLUMNS, nb.int64, PLANES, nb.float64, *BUFFERS, _AGES))
def surface_columns(x, y, p, t, width, out, rate, index, since, on, value):
    """Fill ``out`` float32 [2, H·W] with exponents from N ≥ 1 events; rate: 1 / decay, per µs."""
    n = len(t)
    w32, h32 = np.uint32(width), np.uint32(out.shape[1] // width)
    out[:] = -np.inf
    for i in range(0, n, BLOCK):
        m = min(BLOCK, n - i)
        bt = t[i : i + m]
        if unpack_columns(x[i : i + m], y[i : i + m], p[i : i + m], bt, w32, h32, 0, index, since, on):
            return OUTSIDE
        for j in range(m):  # in float64 from whole µs, as 32 bits do not hold every time
            value[j] = np.float32((bt[j] - t[n - 1]) * rate)
        _write(out, index, on, value, m)
    return OK


@compiled(nb.int64(*WORDS, nb.int64, PLANES, nb.float64, *BUFFERS, _AGES))
def surface_words(words, offsets, start_word, t_last, width, out, rate, index, since, on, value):
    """The same from N ≥ 1 packed words, read as they lie in the file."""
    n = len(words)
    w32, h32 = np.uint32(width), np.uint32(out.shape[1] // width)
    out[:] = -np.inf
    start, ms = 0, 0
    while start < n:
        ms, m = next_words(offsets, start_word, ms, start, n)
        if m == 0:
            return INDEX
        wrong = unpack_words(words[start : start + m], w32, h32, index, since, on)
        if wrong:
            return OUTSIDE if wrong & 1 else DISORDER
        early = np.int32(words[start] >> np.uint32(22))
        room = np.int32(min(999, t_last - ms * 1000)) - early
        base = (ms * 1000 + early - t_last) * rate
        away = np.uint32(0)
        for j in range(m):
            away |= np.uint32(since[j] > room)
            value[j] = np.float32(since[j] * rate + base)
        if away:
            return DISORDER
        _write(out, index, on, value, m)
        start += m
    return OK
