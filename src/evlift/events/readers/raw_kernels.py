"""The loops that turn Prophesee's words into columns, compiled by numba on first use and cached beside this file.

The EVT kernels have one shape. They take words, the state that earlier words have left and four output arrays, stop
when the words end or fewer than SLACK places are left, and return how many words they read and events they wrote.

A branch costs little where the next word can be guessed (EVT2: nearly all are events) and much where it cannot. So rows
and single events of EVT3, which take turns at random, are told apart by arithmetic: both write an event into the next
free place, and only an event moves the place on. A vector writes four events, whatever it holds, and moves on by as
many as it has. Hence the outputs need SLACK places more than there are events.

Nothing here trusts its input: no write goes beyond the shortest output, and each word is looked at once.
"""

# mypy: disable-error-code="assignment, call-arg"
# (numba's types are not Python's: numbers change their width, and intrinsics take no context when called)

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types as nb
from numba.extending import intrinsic

from evlift.compiled import compiled

SLACK = 64  # places that one word may write (32 in an EVT2.1 vector, and 4 beyond), rounded up

# What is carried from word to word, as int64:
KNOWN = 0  # bits 1: high time seen, 2: low time seen since (EVT3), 4: row seen (EVT3)
HIGH = 1  # payload of the last high time word
LOOPS = 2  # how often the high time has wrapped
LOW = 3  # the last low time (EVT3)
ROW = 4  # (EVT3)
BASE = 5  # x of the next vector, -1 before the first (EVT3)
SIGN = 6  # polarity of the next vector (EVT3)
# What a call tells about its own words:
EARLY = 7  # events set aside because their time, row or base was unknown
FIRST = 8  # index of the word with the first of them
WRAPS = 9  # wraps of the clock
SEEN = 10  # bit k: a word of type k was among them (EVT2, which needs no count before)
STATE = 11  # length of the array

TOP = (
    65535 - SLACK
)  # where the x of a damaged row of vectors stops growing: outside any sensor, and it never wraps to 0


def _read(dtype: Any) -> Any:
    return nb.Array(dtype, 1, "C", readonly=True)  # takes writable arrays, too


_STATE = nb.int64[::1]
_OUT = (nb.uint16[::1], nb.uint16[::1], nb.int64[::1], nb.uint8[::1])  # x, y, t, p
_PAIR = nb.UniTuple(nb.int64, 2)
_ONE = np.uint32(1)


@intrinsic
def _ones(_context, _word):
    """How many bits of a uint32 are set."""
    return nb.uint32(nb.uint32), lambda _, builder, __, args: builder.ctpop(args[0])


@intrinsic
def _lowest(_context, _word):
    """The number of the lowest bit of a uint32 that is set; 32 where none is."""
    return nb.uint32(nb.uint32), lambda _, builder, __, args: builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))


@compiled(nb.int64(nb.uint32, nb.int64, nb.int64, nb.int64, nb.uint8, nb.int64, *_OUT))
def _vector(mask, base, row, now, sign, n, x, y, t, p):
    """Write an event at ``base + k`` for every bit k of ``mask``; the next free place. Needs SLACK places from n on."""
    end = n + np.int64(_ones(mask))
    for j in range(4):  # most vectors hold fewer: no branch until here
        x[n + j] = base + np.int64(_lowest(mask))
        y[n + j] = row
        t[n + j] = now
        p[n + j] = sign
        mask &= mask - _ONE
    n += 4
    while mask:
        x[n] = base + np.int64(_lowest(mask))
        y[n] = row
        t[n] = now
        p[n] = sign
        mask &= mask - _ONE
        n += 1
    return end


@compiled(_PAIR(_read(nb.uint16)))
def evt3_count(words):
    """Events in these words, and which types: bit k for a word with k in its upper 5 bits."""
    n, seen = np.int64(0), np.uint32(0)
    for i in range(len(words)):
        kind = words[i] >> np.uint32(12)
        seen |= _ONE << np.uint32(words[i] >> np.uint32(11))
        mask = np.uint32(0xFFF) * np.uint32(kind == 4) | np.uint32(0xFF) * np.uint32(kind == 5)
        n += np.int64(_ones(words[i] & mask | np.uint32(kind == 2)))
    return n, np.int64(seen)


@compiled(_PAIR(_read(nb.uint16), _STATE, *_OUT))
def evt3(words, state, x, y, t, p):
    count, room = len(words), min(len(x), len(y), len(t), len(p)) - SLACK
    known, high, loops, low = state[KNOWN], state[HIGH], state[LOOPS], state[LOW]
    row, base, sign = state[ROW], state[BASE], np.uint8(state[SIGN])
    early, first, wraps = np.int64(0), np.int64(0), np.int64(0)
    i, n = 0, 0
    while i < count and known != 7:  # until time and row are known
        word = np.int64(words[i])
        kind, value = word >> 12, word & 0xFFF
        first = i if early == 0 else first
        if kind == 0:
            row = value & 0x7FF
            known |= 4
        elif kind == 2:
            early += 1
        elif kind == 3:
            base, sign = value & 0x7FF, np.uint8(value >> 11)
        elif kind == 4 or kind == 5:
            mask, step = (value, 12) if kind == 4 else (value & 0xFF, 8)
            early += np.int64(_ones(np.uint32(mask)))
            base = min(base + step, TOP) if base >= 0 else base
        elif kind == 6:
            low = value
            known |= (known & 1) << 1
        elif kind == 8:
            known = known | 1 if value == high else known & 4 | 1
            high = value
        i += 1
    start = ((loops << 12) + high) << 12
    now = start + low
    while i < count and n < room:
        word = np.uint32(words[i])
        kind, value = word >> np.uint32(12), word & np.uint32(0xFFF)
        place, sign_of = value & np.uint32(0x7FF), np.uint8(value >> np.uint32(11))
        i += 1
        if kind == 0 or kind == 2:
            x[n] = place
            y[n] = row
            t[n] = now
            p[n] = sign_of
            n += np.int64(kind == 2)
            row = row if kind == 2 else np.int64(place)
        elif kind == 4 or kind == 5:
            mask, step = (value, 12) if kind == 4 else (value & np.uint32(0xFF), 8)
            if kind == 4 and i + 1 < count and words[i] >> 12 == 4 and words[i + 1] >> 12 == 5:  # the usual three
                mask |= np.uint32(words[i] & 0xFFF) << np.uint32(12) | np.uint32(words[i + 1] & 0xFF) << np.uint32(24)
                step = 32
                i += 2
            if base < 0:
                first = i - 1 if early == 0 else first
                early += np.int64(_ones(mask))
            else:
                n = _vector(mask, base, row, now, sign, n, x, y, t, p)
                base = min(base + step, TOP)
        elif kind == 3:
            base, sign = np.int64(place), sign_of
        elif kind == 6:
            now = start + np.int64(value)
        elif kind == 8:
            new = np.int64(value)
            if new != high:  # it is repeated every 16 µs
                if high - new > 1 << 11:
                    loops += 1
                    wraps += 1
                elif new - high > 1 << 11:
                    loops -= 1
                high = new
                start = ((loops << 12) + high) << 12
                now = start  # as the makers' decoder has it, until the next low time, which follows at once
    state[KNOWN], state[HIGH], state[LOOPS], state[LOW] = known, high, loops, now - start
    state[ROW], state[BASE], state[SIGN] = row, base, sign
    state[EARLY], state[FIRST], state[WRAPS] = early, first, wraps
    return i, n


@compiled(_PAIR(_read(nb.uint32), _STATE, *_OUT))
def evt2(words, state, x, y, t, p):
    count, room = len(words), min(len(x), len(y), len(t), len(p)) - SLACK
    known, high, loops = state[KNOWN], state[HIGH], state[LOOPS]
    early, first, wraps, seen = np.int64(0), np.int64(0), np.int64(0), np.uint32(0)
    i, n = 0, 0
    while i < count and known == 0:
        kind = words[i] >> np.uint32(28)
        seen |= _ONE << kind
        first = i if early == 0 else first
        early += np.int64(kind < 2)
        if kind == 8:
            known = 1
            high = np.int64(words[i] & np.uint32(0xFFFFFFF))
        i += 1
    start = ((loops << 28) + high) << 6
    while i < count and n < room:
        word = words[i]
        kind = word >> np.uint32(28)
        i += 1
        if kind < 2:
            x[n] = (word >> np.uint32(11)) & np.uint32(0x7FF)
            y[n] = word & np.uint32(0x7FF)
            t[n] = start + np.int64((word >> np.uint32(22)) & np.uint32(0x3F))
            p[n] = kind
            n += 1
            continue
        seen |= _ONE << kind
        if kind == 8:
            new = np.int64(word & np.uint32(0xFFFFFFF))
            if high - new > 1 << 27:
                loops += 1
                wraps += 1
            elif new - high > 1 << 27:
                loops -= 1
            high = new
            start = ((loops << 28) + high) << 6
    state[KNOWN], state[HIGH], state[LOOPS] = known, high, loops
    state[EARLY], state[FIRST], state[WRAPS], state[SEEN] = early, first, wraps, np.int64(seen)
    return i, n


@compiled(_PAIR(nb.uint64, _read(nb.uint64)))
def evt21_count(swap, words):
    """Events, and bit k for a word of type k; ``swap``: 32 where the halves of each word are exchanged, else 0."""
    n, seen = np.int64(0), np.uint32(0)
    back = (np.uint64(64) - swap) & np.uint64(63)
    for i in range(len(words)):
        word = words[i] << swap | words[i] >> back
        seen |= _ONE << np.uint32(word >> np.uint64(60))
        n += np.int64(_ones(np.uint32(word & np.uint64(0xFFFFFFFF)))) * np.int64(word < np.uint64(1 << 61))
    return n, np.int64(seen)


@compiled(_PAIR(nb.uint64, _read(nb.uint64), _STATE, *_OUT))
def evt21(swap, words, state, x, y, t, p):
    count, room = len(words), min(len(x), len(y), len(t), len(p)) - SLACK
    known, high, loops = state[KNOWN], state[HIGH], state[LOOPS]
    early, first, wraps = np.int64(0), np.int64(0), np.int64(0)
    back = (np.uint64(64) - swap) & np.uint64(63)
    i, n = 0, 0
    while i < count and n < room:
        word = words[i] << swap | words[i] >> back
        kind = np.uint32(word >> np.uint64(60))
        i += 1
        if kind < 2:
            mask = np.uint32(word & np.uint64(0xFFFFFFFF))
            if known == 0:
                first = i - 1 if early == 0 else first
                early += np.int64(_ones(mask))
            else:
                now = (((loops << 28) + high) << 6) + np.int64((word >> np.uint64(54)) & np.uint64(0x3F))
                base, row = np.int64((word >> np.uint64(43)) & np.uint64(0x7FF)), np.int64(word >> np.uint64(32))
                n = _vector(mask, base, row & 0x7FF, now, np.uint8(kind), n, x, y, t, p)
        elif kind == 8:
            new = np.int64((word >> np.uint64(32)) & np.uint64(0xFFFFFFF))
            if known and high - new > 1 << 27:
                loops += 1
                wraps += 1
            elif known and new - high > 1 << 27:
                loops -= 1
            known = 1
            high = new
    state[KNOWN], state[HIGH], state[LOOPS] = known, high, loops
    state[EARLY], state[FIRST], state[WRAPS] = early, first, wraps
    return i, n


@compiled(nb.UniTuple(nb.uint32, 2)(_read(nb.uint64), nb.uint32, nb.int64, nb.uint32, nb.uint32, *_OUT))
def dat(records, last, offset, x_bits, y_bits, x, y, t, p):
    """Split DAT records of 64 bits: time, then from the lowest bit on x, y and polarity.

    last: the counter before the first record; offset: added to all times.
    Returns two words: bit 31 of the first says that the clock may have wrapped (then the times are to be done again);
    the second is not 0 where a bit above the polarity is set.
    """
    jumps, above = np.uint32(0), np.uint32(0)
    x_mask, y_mask = (_ONE << x_bits) - _ONE, (_ONE << y_bits) - _ONE
    p_at = x_bits + y_bits
    for i in range(min(len(records), len(x), len(y), len(t), len(p))):
        time, word = np.uint32(records[i]), np.uint32(records[i] >> np.uint64(32))
        before = np.uint32(records[i - 1]) if i > 0 else last
        jumps |= time ^ before
        above |= word >> (p_at + _ONE)
        x[i] = word & x_mask
        y[i] = (word >> x_bits) & y_mask
        t[i] = np.int64(time) + offset
        p[i] = (word >> p_at) & _ONE
    return jumps, above
