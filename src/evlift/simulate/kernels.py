"""Compiled loops of the pixels: the photoreceptor's low-pass, and threshold crossings along the log intensity.

An event under way is one int64 word: µs after the frame before << 33 | y << 17 | x << 1 | p.

What `cross` and `cross_along` share
    lift_before, lift_after: what leaking has added to all pixels' log intensity at the frame before and at this one.
    level: log intensity (with lift) at each pixel's last crossing, float64 [H, W]; brought up to date.
    lower, upper: between these a pixel surely stays silent, float32 [H, W]: its next OFF and ON crossing, a few
        roundings nearer to the level. One vector comparison then ends the work on nearly every pixel of nearly every
        frame. Brought up to date.
    on, off: thresholds, float32 [H, W]; `least` is the smallest of them all.
    last: time of each pixel's last event, int64 µs [H, W]; brought up to date if `refractory` is over 0.
    t0, span, refractory: time of the frame before, time from it to this one, refractory time, in µs.
    words: int64 buffer to write to.
They return the buffer (another one if it had to grow) and the number of events, which lie in pixel order; or −1 in
place of the number when a log intensity is not finite, or beyond all measure.
"""

from __future__ import annotations

import numpy as np

from ..compiled import compiled

_BLOCK = 32  # pixels tested at once: enough for the vector units, few enough that most blocks are silent
_MOST = 1e6  # change of log intensity that is certainly a mistake, as NaN and infinity are
_MARGIN = 2.4e-7  # 4 units in the last place of a float32: covers its rounding, and that of log intensity + lift


@compiled()
def set_bounds(level, on, off, lower, upper):
    """Set `lower` and `upper` of all pixels from their levels."""
    for y in range(level.shape[0]):
        for x in range(level.shape[1]):
            below, above = level[y, x] - np.float64(off[y, x]), level[y, x] + np.float64(on[y, x])
            lower[y, x] = np.float32(below + _MARGIN * abs(below))
            upper[y, x] = np.float32(above - _MARGIN * abs(above))


@compiled()
def _fire(words, n, pixel, reference, up, down, a, b, start, rate, span, t0, last, y, x, refractory):
    """Emit the crossings of a straight line from log intensity `a` to `b`; the new reference level and event count.

    `start` is where the line begins, in µs after the frame before, and `rate` = µs it takes / (b − a).
    """
    rise = b > a
    sign = 1.0 if rise else -1.0
    step = up if rise else -down
    pixel |= np.int64(rise)
    end = b * sign
    crossing = reference + step
    while crossing * sign <= end:
        reference = crossing
        # A clocked sensor: the first tick at or after the crossing. The bounds catch no more than rounding.
        tick = min(max(np.int64(np.ceil(start + (crossing - a) * rate)), 1), span)
        crossing += step
        if refractory > 0:
            if t0 + tick - last[y, x] < refractory:
                continue
            last[y, x] = t0 + tick
        words[n] = tick << 33 | pixel
        n += 1
    return reference, n


@compiled()
def _grow(words, n, need):
    """A larger buffer with the same first n words, that has room for `need` more."""
    grown = np.empty(2 * words.size + need, np.int64)
    grown[:n] = words[:n]
    return grown


@compiled()
def cross(
    before, after, lift_before, lift_after, level, lower, upper, on, off, least, last, t0, span, refractory, words
):
    """Crossings between two frames, log intensity running straight from one to the other.

    Args:
        before, after: log intensity, float32 [H, W].
        The others, and what it returns: see the module.
    """
    height, width = after.shape
    whole = width - width % _BLOCK
    slack = _MARGIN * lift_after
    low, high = np.float32(lift_after - slack), np.float32(lift_after + slack)
    finest = 1 / least
    found = np.empty(_BLOCK, np.int64)
    n = 0
    for y in range(height):
        row, floor, ceiling = after[y], lower[y], upper[y]
        for begin in range(0, width, _BLOCK):
            stop = min(begin + _BLOCK, width)
            if begin < whole:
                # Slices of a constant length: a vector loop. `not` lets a NaN through to where it is reported.
                r, f, c = row[begin : begin + _BLOCK], floor[begin : begin + _BLOCK], ceiling[begin : begin + _BLOCK]
                busy = np.int32(0)
                for j in range(_BLOCK):
                    busy |= np.int32(not (r[j] + low > f[j])) | np.int32(not (r[j] + high < c[j]))
                if busy == 0:
                    continue
            # Which of them: without a branch to mispredict.
            count = 0
            for x in range(begin, stop):
                found[count] = x
                count += not ((row[x] + low > floor[x]) & (row[x] + high < ceiling[x]))
            # Room for all their events at once: looking after it at each would slow down each.
            change = 0.0
            for k in range(count):
                change += abs(np.float64(row[found[k]]) + lift_after - level[y, found[k]])
            if not change < _MOST:
                return words, -1
            need = np.int64(change * finest) + 2 * count
            if n + need > words.size:
                words = _grow(words, n, need)
            for k in range(count):
                x = found[k]
                b = np.float64(row[x]) + lift_after
                reference = level[y, x]
                up, down = np.float64(on[y, x]), np.float64(off[y, x])
                if -down < b - reference < up:
                    continue
                a = np.float64(before[y, x]) + lift_before
                pixel = y << 17 | x << 1
                rate = span / (b - a)
                reference, n = _fire(
                    words, n, pixel, reference, up, down, a, b, 0.0, rate, span, t0, last, y, x, refractory
                )
                level[y, x] = reference
                below, above = reference - down, reference + up
                floor[x] = np.float32(below + _MARGIN * abs(below))
                ceiling[x] = np.float32(above - _MARGIN * abs(above))
    return words, n


@compiled()
def low_pass(before, after, seen, lowest, fineness, blend, lag, out):
    """A first-order low-pass whose input runs straight from frame to frame; its value at the later frame.

    Args:
        before, after: log intensity of the two frames, float32 [H, W].
        seen: the output at the frame before, float32 [H, W].
        lowest, fineness: entry i of the tables is for log intensity lowest + i / fineness of the later frame.
        blend, lag: float32 tables of 1 − q and 1 − (1 − q) / (a·dt), where q = exp(−a·dt). Solving dy/dt = a (x(t) − y)
            with x(t) = x0 + (x1 − x0) t / dt gives y1 = y0 + (x0 − y0) (1 − q) + (x1 − x0) (1 − (1 − q) / (a·dt)).
        out: float32 [H, W].
    """
    top = np.float32(blend.size - 1)
    for y in range(after.shape[0]):
        for x in range(after.shape[1]):
            x0, x1, y0 = before[y, x], after[y, x], seen[y, x]
            at = (x1 - lowest) * fineness + np.float32(0.5)
            i = np.int64(min(at, top)) if at > 0 else 0  # a NaN, too, is entry 0
            out[y, x] = y0 + (x0 - y0) * blend[i] + (x1 - x0) * lag[i]


@compiled()
def _sample(image, x, y):
    """Bilinear interpolation, clamped to the border."""
    height, width = image.shape
    x = min(x, np.float32(width - 1)) if x > 0 else np.float32(0)  # a NaN, too, is at the border
    y = min(y, np.float32(height - 1)) if y > 0 else np.float32(0)
    left, top = np.int64(x), np.int64(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    fx, fy = x - np.float32(left), y - np.float32(top)
    upper = image[top, left] + fx * (image[top, right] - image[top, left])
    lower = image[bottom, left] + fx * (image[bottom, right] - image[bottom, left])
    return upper + fy * (lower - upper)


@compiled()
def _sample_inside(image, x, y):
    """As `_sample`, of a point that has pixels on all sides."""
    left, top = np.uint64(x), np.uint64(y)
    fx, fy = x - np.float32(left), y - np.float32(top)
    right, bottom = left + np.uint64(1), top + np.uint64(1)
    upper = image[top, left] + fx * (image[top, right] - image[top, left])
    lower = image[bottom, left] + fx * (image[bottom, right] - image[bottom, left])
    return upper + fy * (lower - upper)


@compiled()
def _render(before, after, x, y, fx, fy, bx, by, steps, line):
    """Log intensity of pixel (x, y) along the flow there, at shares 0, 1 / steps … 1 of the way to `after`."""
    height, width = after.shape
    reach_x, reach_y = abs(fx) + abs(bx), abs(fy) + abs(by)
    inside = x - reach_x > 0 and x + reach_x < width - 2 and y - reach_y > 0 and y + reach_y < height - 2
    line[0] = before[y, x]
    line[steps] = after[y, x]
    px, py = np.float32(x), np.float32(y)
    for k in range(1, steps):
        tau = np.float32(k) / np.float32(steps)
        rest = np.float32(1) - tau
        # Flow from the moment tau to either frame, from the two flows between these (Super SloMo, Jiang 2018, eq. 4).
        ax, ay = px + tau * (tau * bx - rest * fx), py + tau * (tau * by - rest * fy)
        cx, cy = px + rest * (rest * fx - tau * bx), py + rest * (rest * fy - tau * by)
        if inside:
            a, c = _sample_inside(before, ax, ay), _sample_inside(after, cx, cy)
        else:
            a, c = _sample(before, ax, ay), _sample(after, cx, cy)
        line[k] = rest * a + tau * c


@compiled()
def cross_along(
    before,
    after,
    forward,
    backward,
    step_px,
    max_steps,
    seen,
    lowest,
    fineness,
    blend,
    lag,
    lift_before,
    lift_after,
    level,
    lower,
    upper,
    on,
    off,
    least,
    last,
    t0,
    span,
    refractory,
    words,
):
    """As `cross`, but where things move by more than `step_px` log intensity follows the flow, rendered in between.

    Every pixel is rendered as often as the flow there needs: once every `step_px`, at most `max_steps` times.

    Args:
        forward, backward: optical flow from `before` to `after` and back, float32 [H, W, 2] in pixels.
        seen: output of the low-pass at the frame before, float32 [H, W]; brought up to date if there is one.
        lowest, fineness, blend, lag: as in `low_pass`, with a row of the tables for each number of steps, float32
            [max_steps, K]; no rows: no low-pass.
    """
    height, width = after.shape
    top = np.float32(blend.shape[1] - 1)
    slack = _MARGIN * lift_after
    low, high = np.float32(min(lift_before, lift_after) - slack), np.float32(lift_after + slack)
    finest = 1 / least
    line = np.empty(max_steps + 1, np.float32)
    n = 0
    for y in range(height):
        for x in range(width):
            fx, fy = forward[y, x, 0], forward[y, x, 1]
            bx, by = backward[y, x, 0], backward[y, x, 1]
            motion = np.sqrt(max(fx * fx + fy * fy, bx * bx + by * by))
            steps = min(max(np.int64(np.ceil(motion / step_px)), 1), max_steps)
            _render(before, after, x, y, fx, fy, bx, by, steps, line)
            if blend.shape[0] > 0:  # as `low_pass` has it
                x0, y0 = line[0], seen[y, x]
                line[0] = y0
                for k in range(1, steps + 1):
                    x1 = line[k]
                    at = (x1 - lowest) * fineness + np.float32(0.5)
                    i = np.int64(min(at, top)) if at > 0 else 0
                    y0 += (x0 - y0) * blend[steps - 1, i] + (x1 - x0) * lag[steps - 1, i]
                    line[k] = y0
                    x0 = x1
                seen[y, x] = y0
            floor, ceiling = lower[y, x], upper[y, x]
            busy = np.int32(0)
            for k in range(1, steps + 1):
                busy |= np.int32(not (line[k] + low > floor)) | np.int32(not (line[k] + high < ceiling))
            if busy == 0:
                continue
            reference = level[y, x]
            up, down = np.float64(on[y, x]), np.float64(off[y, x])
            piece, lift_piece = span / steps, (lift_after - lift_before) / steps
            pixel = y << 17 | x << 1
            a = np.float64(line[0]) + lift_before
            change = abs(a - reference) + lift_after - lift_before
            for k in range(steps):
                change += abs(np.float64(line[k + 1]) - np.float64(line[k]))
            if not change < _MOST:
                return words, -1
            need = np.int64(change * finest) + 2 * steps
            if n + need > words.size:
                words = _grow(words, n, need)
            for k in range(1, steps + 1):
                b = np.float64(line[k]) + (lift_before + k * lift_piece)
                if not -down < b - reference < up:
                    start, rate = (k - 1) * piece, piece / (b - a)
                    reference, n = _fire(
                        words, n, pixel, reference, up, down, a, b, start, rate, span, t0, last, y, x, refractory
                    )
                a = b
            level[y, x] = reference
            below, above = reference - down, reference + up
            lower[y, x] = np.float32(below + _MARGIN * abs(below))
            upper[y, x] = np.float32(above - _MARGIN * abs(above))
    return words, n
