"""Look a recording over, packed or in any other format: count what it holds and list what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from evlift.errors import InputError
from evlift.events.readers.reader import Problems
from evlift.events.stream import Events

if TYPE_CHECKING:
    from evlift.events.recording import Recording
    from evlift.events.source import FileRecording

GAP_MS = 1000
"""A silence this long is worth a line."""
BUSY_MS = 50
"""Length of the busiest stretch, which a picture shows."""


def describe(recording: Recording | FileRecording, progress: Callable[[float], None] | None = None) -> dict[str, Any]:
    """Count every event of a recording, in one pass and bounded memory, after the rules of `evlift.events.rules`.

    progress: called with the share that has been read, 0…1.

    Returns a dict that JSON holds:
        format, width, height; events, on, off: those that are good; t_first_us, t_last_us: None without events;
        duration_us; rate_hz, on_hz, off_hz: means over it; peak_rate_hz: of the best 10 ms; longest_gap_ms;
        busiest_us: start of the 50 ms with most events, no earlier than they; hot_pixels: [[x, y], …], the worst first;
        frames, frames_in_events: how many lie between the first and the last event; frame_first_us, frame_last_us;
        sensor, clock, licence, source, calibration, tags: as kept, "" or None where nobody said; rectify_map: whether
        there is one;
        problems: a line for each kind of fault, with counts.

    Never raises on damaged contents of a packed recording: it reports them. A file that cannot be read at all raises
    InputError.
    """
    from evlift.events.recording import Recording

    problems = Problems()
    tally = Tally(recording.height, recording.width)
    for events, done in recording.progressing(problems=problems):
        tally.add(events)
        if progress:
            progress(done)
    hot = tally.hot_pixels()
    if tally.longest_gap_ms >= GAP_MS:
        problems.say(f"the longest silence lasts {tally.longest_gap_ms / 1000:.1f} s")
    if hot:
        named = ", ".join(map(str, hot[:8])) + (" …" if len(hot) > 8 else "")
        problems.say(f"{len(hot)} hot pixel{'s' if len(hot) > 1 else ''}, (x, y): {named}")
    if isinstance(recording, Recording):
        info = recording.info
        times = _packed_frames(recording, tally, problems)
    else:
        info = {key: getattr(recording, key) for key in ("sensor", "clock", "calibration")}
        times = np.fromiter((frame.t_us for frame in recording.images(problems)), np.int64)
    within = int(np.count_nonzero((times >= tally.t_first) & (times <= tally.t_last))) if tally.events else 0
    if tally.events and within < len(times):
        problems.say(f"{len(times) - within} of {len(times)} frames lie before the first or after the last event")
    seconds = tally.duration_us / 1e6
    rate = 1 / seconds if seconds > 0 else 0.0
    return {
        "format": recording.format,
        "width": recording.width,
        "height": recording.height,
        "events": tally.events,
        "on": tally.on,
        "off": tally.events - tally.on,
        "t_first_us": tally.t_first if tally.events else None,
        "t_last_us": tally.t_last if tally.events else None,
        "duration_us": tally.duration_us,
        "rate_hz": tally.events * rate,
        "on_hz": tally.on * rate,
        "off_hz": (tally.events - tally.on) * rate,
        "peak_rate_hz": tally.peak * 100.0,
        "longest_gap_ms": tally.longest_gap_ms,
        "busiest_us": max(tally.busiest_ms * 1000, tally.t_first) if tally.events else None,
        "hot_pixels": [list(pixel) for pixel in hot],
        "frames": len(times),
        "frames_in_events": within,
        "frame_first_us": int(times[0]) if len(times) else None,
        "frame_last_us": int(times[-1]) if len(times) else None,
        **{key: info.get(key, "") for key in ("sensor", "clock", "licence")},
        **{key: info.get(key) for key in ("source", "calibration", "tags")},
        "rectify_map": _has_map(recording, problems),
        "problems": list(info.get("problems") or []) + problems.lines(),
    }


class Tally:
    """Counts over a stream of Events of one sensor, in memory that does not grow with the stream."""

    def __init__(self, height: int, width: int) -> None:
        self.events = self.on = 0
        self.t_first = self.t_last = 0
        self.longest_gap_ms = 0
        self.peak = 0  # most events in any 10 consecutive milliseconds
        self.busiest_ms = 0
        self.pixels = np.zeros((height, width), np.int64)
        self._most = 0
        self._ms = np.zeros(0, np.int64)  # the last milliseconds that hold events, and how many each
        self._counts = np.zeros(0, np.int64)

    @property
    def duration_us(self) -> int:
        return self.t_last - self.t_first

    def add(self, events: Events) -> None:
        if not len(events):
            return
        if not self.events:
            self.t_first = events.t_first
        self.t_last = events.t_last
        self.events += len(events)
        self.on += int(np.count_nonzero(events.p))
        flat = events.y.astype(np.int64) * events.width + events.x
        self.pixels += np.bincount(flat, minlength=self.pixels.size).reshape(self.pixels.shape)

        # Only milliseconds with events are listed, so that a silence of hours takes no memory.
        ms = events.t // 1000
        starts = np.flatnonzero(np.diff(ms, prepend=ms[0] - 1))
        ms, counts = ms[starts], np.diff(starts, append=len(ms))
        if len(self._ms) and self._ms[-1] == ms[0]:
            self._counts[-1] += counts[0]
            ms, counts = ms[1:], counts[1:]
        ms, counts = np.concatenate([self._ms, ms]), np.concatenate([self._counts, counts])
        self.longest_gap_ms = max(self.longest_gap_ms, int(np.diff(ms).max(initial=1)) - 1)
        before = np.concatenate([[0], np.cumsum(counts)])
        ends = np.arange(1, len(ms) + 1)
        self.peak = max(self.peak, int((before[ends] - before[np.searchsorted(ms, ms - 9)]).max()))
        busy = before[ends] - before[np.searchsorted(ms, ms - (BUSY_MS - 1))]
        if busy.max() > self._most:
            self._most = int(busy.max())
            self.busiest_ms = int(ms[busy.argmax()]) - (BUSY_MS - 1)
        recent = int(np.searchsorted(ms, ms[-1] - BUSY_MS))
        self._ms, self._counts = ms[recent:], counts[recent:]

    def hot_pixels(self) -> list[tuple[int, int]]:
        """See `evlift.events.filters.hot_pixels`: (x, y), the worst first."""
        from evlift.events.filters import hot_pixels

        return [(int(x), int(y)) for x, y in hot_pixels(self.pixels, self.duration_us)]


def _has_map(recording: Recording | FileRecording, problems: Problems) -> bool:
    try:
        return recording.rectify_map is not None
    except InputError as error:
        problems.say(str(error))
        return False


def _packed_frames(recording: Any, tally: Tally, problems: Problems) -> np.ndarray:
    """Times of a packed recording's frames; tells what does not fit its description."""
    info = recording.info
    if tally.on != info.get("on", tally.on):
        problems.say(f"{tally.on} events are brighter, {info['on']} were written")
    try:
        frames = recording.frames
    except InputError as error:
        problems.say(str(error))
        return np.zeros(0, np.int64)
    if len(frames) != info.get("frames", len(frames)):
        problems.say(f"{len(frames)} frames are listed, {info['frames']} were written")
    missing = sum(not (recording.path / "frames" / str(name)).is_file() for name in frames.file)
    if missing:
        problems.say(f"{missing} frame files are missing")
    return frames.t_us
