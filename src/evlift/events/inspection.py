"""Look a packed recording over: count what it holds and list what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evlift.errors import InputError

if TYPE_CHECKING:
    from evlift.events.recording import Recording

_BLOCK = 1 << 22  # words looked at together
_GAP_MS = 1000  # a silence this long is worth a line


def describe(recording: Recording) -> dict[str, Any]:
    """See ``Recording.describe``."""
    words, index, info = recording._words, recording._index, recording.info
    problems: list[str] = []
    on = outside = late = 0
    pixels = np.zeros(recording.height << 11, np.int64)  # numbered as the word's low 21 bits number them
    for a in range(0, len(words), _BLOCK):
        block = words[a : a + _BLOCK]
        on += int(np.count_nonzero(block & (1 << 21)))
        x, y = block & 0x7FF, block >> 11 & 0x3FF
        inside = (x < recording.width) & (y < recording.height)
        outside += len(block) - int(np.count_nonzero(inside))
        late += int(np.count_nonzero(block >> 22 > 999))
        pixels += np.bincount(block[inside] & 0x1FFFFF, minlength=len(pixels))
    if outside:
        problems.append(f"{outside} events lie outside the {recording.width}×{recording.height} sensor")
    if late:
        problems.append(f"{late} events lie outside their millisecond")
    if on != info.get("on", on):
        problems.append(f"{on} events are brighter, {info['on']} were written")

    counts = np.diff(index)
    gap = 0
    if (counts < 0).any():
        problems.append("the millisecond index goes backwards")
    elif len(words):
        backwards = _backwards(words, index)
        if backwards:
            problems.append(f"{backwards} events are earlier than the one before")
        filled = np.flatnonzero(counts)
        gap = int(np.diff(filled).max(initial=1)) - 1
        if gap >= _GAP_MS:
            problems.append(f"the longest silence lasts {gap / 1000:.1f} s")
        hot = _hot(pixels, recording)
        if hot:
            named = ", ".join(map(str, hot[:8])) + (" …" if len(hot) > 8 else "")
            problems.append(f"{len(hot)} hot pixels, (x, y): {named}")

    frames = 0
    try:
        frames = len(recording.frames)
        problems += _frame_problems(recording)
    except InputError as e:
        problems.append(str(e))
    seconds = recording.duration_us / 1e6
    kept = {key: info.get(key) for key in ("sensor", "clock", "licence", "source", "calibration", "tags")}
    return {
        "format": "packed",
        "width": recording.width,
        "height": recording.height,
        "events": len(words),
        "on": on,
        "off": len(words) - on,
        "t_first_us": info["t_first_us"],
        "t_last_us": info["t_last_us"],
        "duration_us": recording.duration_us,
        "rate_hz": len(words) / seconds if seconds > 0 else 0.0,
        "peak_rate_hz": _peak(index) * 100.0,
        "longest_gap_ms": gap,
        "frames": frames,
        **kept,
        "problems": problems,
    }


def _peak(index: np.ndarray) -> int:
    """Most events in any 10 consecutive milliseconds (in all of them when there are fewer)."""
    return int((index[10:] - index[:-10]).max()) if len(index) > 10 else int(index[-1])


def _backwards(words: np.ndarray, index: np.ndarray) -> int:
    """Events earlier than the one before, within a millisecond: between milliseconds order is the index's own."""
    count = 0
    for a in range(0, len(words), _BLOCK):
        sub = words[max(a - 1, 0) : a + _BLOCK] >> 22
        first = max(a - 1, 0) + 1  # number of the event that sub[1] is
        back = np.flatnonzero(sub[1:] < sub[:-1]) + first
        if len(back):
            at = np.searchsorted(index, back)
            count += int(np.count_nonzero(index[np.minimum(at, len(index) - 1)] != back))
    return count


def _hot(pixels: np.ndarray, recording: Recording) -> list[tuple[int, int]]:
    """Pixels that fire far more than any scene makes them: over 100 times the mean of those that fire, and over 1 kHz.

    A pixel stuck at its refractory limit is the usual cause; it dominates every representation it is part of.
    """
    fired = pixels[pixels > 0]
    seconds = max(recording.duration_us / 1e6, 1e-3)
    limit = max(100 * fired.mean(), 1000 * seconds, 100)
    hot = np.flatnonzero(pixels > limit)
    hot = hot[np.argsort(-pixels[hot])]
    return [(int(p & 0x7FF), int(p >> 11)) for p in hot]


def _frame_problems(recording: Recording) -> list[str]:
    frames = recording.frames
    problems = []
    if len(frames) != recording.info.get("frames", len(frames)):
        problems.append(f"{len(frames)} frames are listed, {recording.info['frames']} were written")
    missing = sum(not (recording.path / "frames" / str(name)).is_file() for name in frames.file)
    if missing:
        problems.append(f"{missing} frame files are missing")
    away = int(np.count_nonzero((frames.t_us < recording.t_first) | (frames.t_us > recording.t_last)))
    if away and len(recording):
        problems.append(f"{away} of {len(frames)} frames lie before the first or after the last event")
    return problems
