"""The loop that reads events from text, compiled by numba on first use and cached beside this file.

A line holds one event: fields between spaces, tabs, commas or semicolons, in an order that the caller gives. Times are
read exactly: a decimal is taken as an integer times a power of ten and rounded once, half up; no float is involved.

Why it is fast: the last byte that is parsed is always a line feed, and every inner loop stops at a byte that is no
digit, so no loop needs to look for the end of the data. Numbers of up to 19 plain digits, with or without a point, are
read in that loop; signs, exponents and longer ones go to `_number`, which is slower and takes them all.

Nothing here trusts its input: a line that is not an event is counted and set aside, whatever its bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types as nb

from evlift.compiled import compiled

SKIP, T, X, Y, P = 0, 1, 2, 3, 4  # what a column holds
# Places in `counts` and `firsts`: why lines were set aside, then which polarities were met.
LINE, COORDINATE, POLARITY, INFINITE, TOO_LARGE, MINUS, ZERO = 0, 1, 2, 3, 4, 5, 6
COUNTS = 7

_LF, _CR, _TAB, _SPACE, _COMMA, _SEMICOLON = 10, 13, 9, 32, 44, 59
_HASH, _PERCENT, _POINT, _PLUS, _HYPHEN = 35, 37, 46, 43, 45
_TEN = np.array([10**i for i in range(20)], np.uint64)
_MAX = np.uint64(2**63 - 1)
_FULL = np.uint64(10**18)  # below it, another digit fits
_FALSE, _TRUE = np.frombuffer(b"false", np.uint8), np.frombuffer(b"true", np.uint8)
_GOOD, _BAD, _NOT_FINITE = 0, 1, 2


def _read(dtype: Any) -> Any:
    return nb.Array(dtype, 1, "C", readonly=True)  # takes writable arrays, too


_BYTES = _read(nb.uint8)


@compiled(nb.boolean(nb.uint8))
def _ends(c):
    """Whether a byte ends a field."""
    return c == _SPACE or c == _LF or c == _COMMA or c == _TAB or c == _CR or c == _SEMICOLON


@compiled(nb.Tuple((nb.int64, nb.boolean, nb.uint64, nb.int64, nb.boolean, nb.int64))(_BYTES, nb.int64))
def _number(data, i):
    """Any decimal number at ``data[i]``: (status, negative, m, e, more, next i); its value is ± m · 10^e.

    ``more``: digits that are not all zero were left out after the 19 that m holds.
    """
    negative = data[i] == _HYPHEN
    if negative or data[i] == _PLUS:
        i += 1
    c = data[i] | 32  # lower case
    if c == 105 or c == 110:  # inf, infinity, nan
        return _NOT_FINITE, negative, np.uint64(0), 0, False, i
    m, e, more, digits, point = np.uint64(0), np.int64(0), False, 0, False
    while True:
        c = data[i]
        if c == _POINT and not point:
            point = True
        elif 48 <= c <= 57:
            digits += 1
            if m < _FULL:
                m = m * np.uint64(10) + np.uint64(c - 48)
                if point:
                    e -= 1
            else:
                more = more or c != 48
                if not point:
                    e += 1
        else:
            break
        i += 1
    if digits == 0:
        return _BAD, negative, m, e, more, i
    if c == 101 or c == 69:  # e, E
        i += 1
        minus = data[i] == _HYPHEN
        if minus or data[i] == _PLUS:
            i += 1
        power, digits = np.int64(0), 0
        while 48 <= data[i] <= 57:
            if power < 1 << 40:
                power = power * 10 + np.int64(data[i] - 48)
            digits += 1
            i += 1
        if digits == 0:
            return _BAD, negative, m, e, more, i
        e += -power if minus else power
    return (_GOOD if _ends(data[i]) else _BAD), negative, m, e, more, i


@compiled(nb.Tuple((nb.boolean, nb.int64))(nb.uint64, nb.int64, nb.boolean, nb.boolean, nb.boolean))
def _rounded(m, e, negative, more, floor):
    """± m · 10^e (and more digits) as a whole number: (whether it fits int64, the number).

    ``floor``: rounded down; else to the nearest, halves up.
    """
    if e >= 0:
        if m == 0:
            return True, 0
        if more or e > 18 or m > _MAX // _TEN[e]:  # more: 10^18 and above, with digits that 64 bits cannot round
            return False, 0
        m *= _TEN[e]
        up = False
    elif e < -19:
        up = floor and negative and (m != 0 or more)  # m < 10^19: less than half of one
        m = np.uint64(0)
    else:
        power = _TEN[-e]
        rest = m % power
        m //= power
        half = power - rest  # what is missing to one: where the rest is no smaller, it is half of one or more
        if floor:
            up = negative and (rest != 0 or more)
        elif negative:
            up = rest > half or (rest == half and more)
        else:
            up = rest >= half
    if up:
        m += np.uint64(1)
    if m > _MAX:
        return False, 0
    return True, -np.int64(m) if negative else np.int64(m)


@compiled(nb.Tuple((nb.boolean, nb.int64))(nb.uint64, nb.int64, nb.boolean))
def _whole(m, e, more):
    """m · 10^e as a whole number of 16 bits: (whether it is one, the number)."""
    if m == 0 and not more:
        return True, 0
    if e < -19 or e > 5 or more:
        return False, 0
    if e < 0:
        if m % _TEN[-e] != 0:
            return False, 0
        m //= _TEN[-e]
    if m > 65535:
        return False, 0
    if e > 0:
        m *= _TEN[e]
    return m <= 65535, np.int64(m)


@compiled(nb.int64(_BYTES, nb.int64, _BYTES))
def _word(data, i, word):
    """Index after ``word`` at ``data[i]`` in any case, where a field ends with it; else -1."""
    for c in word:
        if data[i] | 32 != c:
            return -1
        i += 1
    return i if _ends(data[i]) else -1


@compiled(
    nb.UniTuple(nb.int64, 2)(
        *(_BYTES, _read(nb.int64), nb.int64, nb.boolean),
        *(nb.uint16[::1], nb.uint16[::1], nb.int64[::1], nb.uint8[::1], nb.int64[::1], nb.int64[::1]),
    )
)
def parse_lines(data, columns, shift, floor, x, y, t, p, counts, firsts):
    """Read the whole lines in ``data`` into x, y, t, p until these are full: (events, bytes consumed).

    columns: what each field of a line holds (SKIP, T, X, Y, P). shift: power of ten that turns a time into µs. counts,
    firsts: int64 [COUNTS]; lines set aside by reason, added up, and where in ``data`` the first of this call begins.
    """
    end = len(data)
    while end > 0 and data[end - 1] != _LF:
        end -= 1
    n, i, room, fields = 0, 0, min(len(x), len(y), len(t), len(p)), len(columns)
    while i < end and n < room:
        start = i
        c = data[i]
        while c == _SPACE or c == _TAB or c == _CR:
            i += 1
            c = data[i]
        if c == _LF:
            i += 1
            continue
        fault = -1
        if c == _HASH or c == _PERCENT:
            while data[i] != _LF:
                i += 1
            i += 1
            continue
        for j in range(fields):
            role = columns[j]
            if role == SKIP:
                while not _ends(data[i]):
                    i += 1
            else:
                first = i
                m, e = np.uint64(0), 0
                c = data[i] - np.uint8(48)
                while c < 10:
                    m = m * np.uint64(10) + np.uint64(c)
                    i += 1
                    c = data[i] - np.uint8(48)
                digits = i - first
                if data[i] == _POINT:
                    i += 1
                    point = i
                    c = data[i] - np.uint8(48)
                    while c < 10:
                        m = m * np.uint64(10) + np.uint64(c)
                        i += 1
                        c = data[i] - np.uint8(48)
                    e = point - i
                    digits -= e
                negative, more, status = False, False, _GOOD
                if digits == 0 or digits > 19 or not _ends(data[i]):
                    status, negative, m, e, more, i = _number(data, first)
                if role == P:
                    if status == _GOOD and e == 0 and m <= 1 and not more:
                        value = np.int64(m)
                        good = True
                    elif status == _GOOD:
                        good, value = _whole(m, e, more)
                    else:
                        value = np.int64(1)
                        i = _word(data, first, _TRUE)
                        if i < 0:
                            value = np.int64(0)
                            i = _word(data, first, _FALSE)
                        good = i >= 0
                        negative = False
                        i = max(i, first)
                    if not good or value > 1:
                        fault = POLARITY
                        break
                    p[n] = np.uint8(value == 1 and not negative)
                    if value == 0:
                        counts[ZERO] |= 1
                    elif negative:
                        counts[MINUS] |= 1
                elif role == T:
                    if status != _GOOD:
                        fault = INFINITE if status == _NOT_FINITE else LINE
                        break
                    good, value = _rounded(m, e + shift, negative, more, floor)
                    if not good:
                        fault = TOO_LARGE
                        break
                    t[n] = value
                else:
                    if status == _BAD:
                        fault = LINE
                        break
                    if status == _GOOD and e == 0 and m <= 65535 and not more:
                        value = np.int64(m)
                        good = True
                    else:
                        good, value = _whole(m, e, more)
                        good = good and status == _GOOD
                    if not good or (negative and value != 0):
                        fault = COORDINATE
                        break
                    if role == X:
                        x[n] = value
                    else:
                        y[n] = value
            c = data[i]
            while c == _SPACE or c == _TAB or c == _CR:
                i += 1
                c = data[i]
            if c == _COMMA or c == _SEMICOLON:
                i += 1
                c = data[i]
                while c == _SPACE or c == _TAB or c == _CR:
                    i += 1
                    c = data[i]
            if c == _LF and j < fields - 1:
                fault = LINE
                break
        if fault < 0 and data[i] != _LF:
            fault = LINE
        if fault >= 0:
            if counts[fault] == 0:
                firsts[fault] = start
            counts[fault] += 1
            while data[i] != _LF:
                i += 1
        else:
            n += 1
        i += 1
    return n, i
