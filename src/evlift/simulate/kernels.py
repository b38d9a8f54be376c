"""Compiled loops of the sensor: threshold crossings along each pixel's log intensity, and sorting what they emit.

An event under way is one int64 word: µs after the frame before << 33 | y << 17 | x << 1 | p.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _fire(words, n, pixel, reference, up, down, a, b, start, rate, span, t0, last, y, x, refractory):
    """Emit the crossings of a straight line from log intensity `a` to `b`; the new reference level and event count.

    `start` is where the line begins, in µs after the frame before, and `rate` = µs it takes / (b − a).
    """
    rise = b > a
    step = up if rise else -down
    crossing = reference + step
    while (crossing <= b) if rise else (crossing >= b):
        reference = crossing
        # A clocked sensor: the first tick at or after the crossing. The bounds catch no more than rounding.
        tick = min(max(np.int64(np.ceil(start + (crossing - a) * rate)), 1), span)
        crossing += step
        if refractory > 0:
            if t0 + tick - last[y, x] < refractory:
                continue
            last[y, x] = t0 + tick
        words[n] = tick << 33 | pixel | np.int64(rise)
        n += 1
    return reference, n


@njit(cache=True, nogil=True)
def _grow(words, n, need):
    """The buffer, or a larger one with the same first n words, that has room for `need` more."""
    if n + need <= words.size:
        return words
    grown = np.empty(2 * words.size + need, np.int64)
    grown[:n] = words[:n]
    return grown


@njit(cache=True, nogil=True, error_model="numpy")
def cross(before, after, level, on, off, last, t0, span, refractory, words):
    """Crossings between two frames, log intensity running straight from one to the other.

    Args:
        before, after: log intensity, float32 [H, W].
        level: log intensity at each pixel's last crossing, float64 [H, W]; brought up to date.
        on, off: thresholds, float32 [H, W].
        last: time of each pixel's last event, int64 µs [H, W]; brought up to date if `refractory` is over 0.
        t0, span, refractory: time of `before`, time from it to `after`, refractory time, in µs.
        words: int64 buffer to write to.

    Returns:
        The buffer (another one if it had to grow) and the number of events, which lie in pixel order.
    """
    height, width = after.shape
    n = 0
    for y in range(height):
        for x in range(width):
            b = np.float64(after[y, x])
            reference = level[y, x]
            up, down = np.float64(on[y, x]), np.float64(off[y, x])
            if -down < b - reference < up:  # nearly every pixel of nearly every frame
                continue
            a = np.float64(before[y, x])
            words = _grow(words, n, np.int64(abs(b - reference) / min(up, down)) + 2)
            pixel = y << 17 | x << 1
            rate = span / (b - a)
            level[y, x], n = _fire(
                words, n, pixel, reference, up, down, a, b, 0.0, rate, span, t0, last, y, x, refractory
            )
    return words, n


@njit(cache=True, nogil=True, inline="always")
def _sample(image, x, y):
    """Bilinear interpolation, clamped to the border."""
    height, width = image.shape
    x = min(max(x, np.float32(0)), np.float32(width - 1))
    y = min(max(y, np.float32(0)), np.float32(height - 1))
    left, top = np.int64(x), np.int64(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    fx, fy = x - np.float32(left), y - np.float32(top)
    upper = image[top, left] + fx * (image[top, right] - image[top, left])
    lower = image[bottom, left] + fx * (image[bottom, right] - image[bottom, left])
    return upper + fy * (lower - upper)


@njit(cache=True, nogil=True, inline="always")
def _between(before, after, x, y, fx, fy, bx, by, tau):
    """Log intensity of pixel (x, y) at share `tau` of the way from `before` to `after`, along the flow there."""
    rest = np.float32(1) - tau
    # Flow from the moment tau to either frame, from the two flows between these (Super SloMo, Jiang 2018, eq. 4).
    a = _sample(before, np.float32(x) + tau * (tau * bx - rest * fx), np.float32(y) + tau * (tau * by - rest * fy))
    b = _sample(after, np.float32(x) + rest * (rest * fx - tau * bx), np.float32(y) + rest * (rest * fy - tau * by))
    return rest * a + tau * b


@njit(cache=True, nogil=True, error_model="numpy")
def cross_along(
    before, after, forward, backward, step_px, max_steps, level, on, off, last, t0, span, refractory, words
):
    """As `cross`, but where things move by more than `step_px` log intensity follows the flow, rendered in between.

    Every pixel is rendered as often as the flow there needs: once every `step_px`, at most `max_steps` times.

    Args:
        forward, backward: optical flow from `before` to `after` and back, float32 [H, W, 2] in pixels.
    """
    height, width = after.shape
    lowest, highest = np.inf, -np.inf
    for y in range(height):
        for x in range(width):
            lowest = min(lowest, before[y, x], after[y, x])
            highest = max(highest, before[y, x], after[y, x])
    n = 0
    for y in range(height):
        for x in range(width):
            fx, fy = forward[y, x, 0], forward[y, x, 1]
            bx, by = backward[y, x, 0], backward[y, x, 1]
            motion = np.sqrt(max(fx * fx + fy * fy, bx * bx + by * by))
            steps = min(max(np.int64(np.ceil(motion / step_px)), 1), max_steps)
            b = np.float64(after[y, x])
            reference = level[y, x]
            up, down = np.float64(on[y, x]), np.float64(off[y, x])
            if steps == 1 and -down < b - reference < up:
                continue
            words = _grow(words, n, steps * (np.int64((highest - lowest) / min(up, down)) + 2))
            pixel = y << 17 | x << 1
            piece = span / steps
            a = np.float64(before[y, x])
            for k in range(1, steps + 1):
                if k < steps:
                    b = np.float64(_between(before, after, x, y, fx, fy, bx, by, np.float32(k) / np.float32(steps)))
                else:
                    b = np.float64(after[y, x])
                if not -down < b - reference < up:
                    start, rate = (k - 1) * piece, piece / (b - a)
                    reference, n = _fire(
                        words, n, pixel, reference, up, down, a, b, start, rate, span, t0, last, y, x, refractory
                    )
                a = b
            level[y, x] = reference
    return words, n


@njit(cache=True, nogil=True)
def sort(words, count, t0, span):
    """Columns x, y, t, p of the first `count` words, in order of time and, within a microsecond, as they came.

    A counting sort on the microsecond; above 65536 of them, a radix sort with digits of at most 16 bits.
    """
    total = 1
    while span >> total:
        total += 1
    passes = (total + 15) // 16
    bits = (total + passes - 1) // passes
    mask = (1 << bits) - 1
    source = words[:count]
    for k in range(passes):
        shift = 33 + k * bits
        start = np.zeros((1 << bits) + 1, np.int64)
        for i in range(count):
            start[((source[i] >> shift) & mask) + 1] += 1
        for digit in range(1 << bits):
            start[digit + 1] += start[digit]
        target = np.empty(count, np.int64)
        for i in range(count):
            word = source[i]
            digit = (word >> shift) & mask
            target[start[digit]] = word
            start[digit] += 1
        source = target
    x = np.empty(count, np.uint16)
    y = np.empty(count, np.uint16)
    t = np.empty(count, np.int64)
    p = np.empty(count, np.bool_)
    for i in range(count):
        word = source[i]
        p[i] = word & 1
        x[i] = (word >> 1) & 0xFFFF
        y[i] = (word >> 17) & 0xFFFF
        t[i] = t0 + (word >> 33)
    return x, y, t, p
