"""Loops of blosc.py, compiled by numba. Every offset is checked before it is followed."""

from __future__ import annotations

import numpy as np
from numba import types as nb

from evlift.compiled import compiled

UNKNOWN, FULL = -1, -2
_BYTES = nb.Array(nb.uint8, 1, "C", readonly=True)
_BOUNDS = nb.Array(nb.int64, 1, "C", readonly=True)
_OUT = nb.uint8[::1]


@compiled(nb.int64(_BYTES, nb.int64))
def _u32(data, at):
    return (
        np.int64(data[at]) | np.int64(data[at + 1]) << 8 | np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 24
    )


@compiled(nb.UniTuple(nb.int64, 3)(_BYTES, _BOUNDS, nb.int64, nb.int64, nb.int64[:, ::1]))
def find_frames(chunks, bounds, nbytes, itemsize, places):
    """Where the zstd frames are, in chunks that lie one after another, chunk i in ``bounds[i] : bounds[i + 1]``.

    Returns how many were written to ``places`` [N, 2] (start, stop), block size, and flags & 7 (how bytes are
    shuffled); UNKNOWN for the first when a chunk is damaged or made otherwise than the first, FULL when N is too small.
    """
    found, block, shuffle = 0, np.int64(0), np.int64(0)
    for i in range(len(bounds) - 1):
        start, stop = bounds[i], bounds[i + 1]
        size = stop - start
        if size < 16 or chunks[start] != 2 or chunks[start + 3] != itemsize:
            return UNKNOWN, block, shuffle
        flags = np.int64(chunks[start + 2])
        if i == 0:
            block, shuffle = _u32(chunks, start + 8), flags & 7
        # flags: 0 bytes shuffled, 1 plainly copied, 2 bits shuffled, 4 blocks are not split, 5-7 codec (4: zstd)
        if flags >> 4 != 9 or flags & 2 or flags & 7 != shuffle or _u32(chunks, start + 8) != block:
            return UNKNOWN, block, shuffle
        if block < 1 or _u32(chunks, start + 4) != nbytes or _u32(chunks, start + 12) != size:
            return UNKNOWN, block, shuffle
        blocks = (nbytes + block - 1) // block
        if blocks * 4 > size - 16:
            return UNKNOWN, block, shuffle
        if found + blocks > len(places):
            return FULL, block, shuffle
        for j in range(blocks):
            at = _u32(chunks, start + 16 + 4 * j)
            if at + 4 > size:
                return UNKNOWN, block, shuffle
            length = _u32(chunks, start + at)
            at += start + 4
            # A block that zstd cannot shrink is stored as it is; its length tells.
            if length >= min(block, nbytes - j * block) or length > stop - at:
                return UNKNOWN, block, shuffle
            places[found, 0], places[found, 1] = at, at + length
            found += 1
    return found, block, shuffle


@compiled(nb.void(_BYTES, _OUT))
def unshuffle_bits(bits, out):
    """Bit planes to byte planes: 8 planes of n / 8 bytes each, bit k of all values, become n bytes."""
    eighth = len(bits) // 8
    words = out[: eighth * 8].view(np.uint64)
    p0, p1, p2, p3 = (
        bits[:eighth],
        bits[eighth : 2 * eighth],
        bits[2 * eighth : 3 * eighth],
        bits[3 * eighth : 4 * eighth],
    )
    high = bits[4 * eighth :]
    p4, p5, p6, p7 = (
        high[:eighth],
        high[eighth : 2 * eighth],
        high[2 * eighth : 3 * eighth],
        high[3 * eighth : 4 * eighth],
    )
    for j in range(eighth):
        low = np.uint64(p0[j]) | np.uint64(p1[j]) << np.uint64(8)
        low |= np.uint64(p2[j]) << np.uint64(16) | np.uint64(p3[j]) << np.uint64(24)
        top = np.uint64(p4[j]) << np.uint64(32) | np.uint64(p5[j]) << np.uint64(40)
        v = low | top | np.uint64(p6[j]) << np.uint64(48) | np.uint64(p7[j]) << np.uint64(56)
        # Transpose 8 × 8 bits by swapping ever larger squares.
        t = (v ^ (v >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
        v ^= t ^ (t << np.uint64(7))
        t = (v ^ (v >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
        v ^= t ^ (t << np.uint64(14))
        t = (v ^ (v >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
        words[j] = v ^ t ^ (t << np.uint64(28))


@compiled(nb.void(_BYTES, _OUT, nb.int64))
def unshuffle_bytes(planes, out, itemsize):
    """``itemsize`` planes of n bytes each, byte k of all values, become n values of ``itemsize`` bytes."""
    n = len(planes) // itemsize
    if itemsize == 2:
        a, b, halves = planes[:n], planes[n : 2 * n], out[: 2 * n].view(np.uint16)
        for i in range(n):
            halves[i] = np.uint16(a[i]) | np.uint16(b[i]) << np.uint16(8)
    elif itemsize == 4:
        a, b, c, d = planes[:n], planes[n : 2 * n], planes[2 * n : 3 * n], planes[3 * n : 4 * n]
        words = out[: 4 * n].view(np.uint32)
        for i in range(n):
            low = np.uint32(a[i]) | np.uint32(b[i]) << np.uint32(8)
            words[i] = low | np.uint32(c[i]) << np.uint32(16) | np.uint32(d[i]) << np.uint32(24)
    else:
        for k in range(itemsize):
            for i in range(n):
                out[i * itemsize + k] = planes[k * n + i]


@compiled(nb.boolean(_BYTES, nb.int64, nb.int64, nb.int64, nb.int64, _OUT, _OUT))
def unshuffle(planes, nbytes, block, itemsize, shuffle, spare, out):
    """All blocks of all chunks, each shuffled on its own; False (and no result) for sizes that do not fit."""
    bits, bytes_ = shuffle & 4 != 0, shuffle & 1 != 0
    if len(planes) != len(out) or (bits and len(spare) != len(out)) or nbytes < 1 or block < 1 or len(out) % nbytes:
        return False
    for start in range(0, len(planes), nbytes):
        for at in range(start, start + nbytes, block):
            size = min(block, start + nbytes - at)
            if size % itemsize or (bits and size // itemsize % 8):
                return False
            source = planes[at : at + size]
            if bits:
                n = size // itemsize
                for k in range(itemsize):
                    unshuffle_bits(source[k * n : (k + 1) * n], spare[at + k * n : at + (k + 1) * n])
                source = spare[at : at + size]
            if itemsize == 1 or not (bits or bytes_):
                out[at : at + size] = source
            else:
                unshuffle_bytes(source, out[at : at + size], itemsize)
    return True
