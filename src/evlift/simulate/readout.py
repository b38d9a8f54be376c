"""Events on their way out of a sensor: into the order of time, through a bus of limited rate, and onto the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled


@dataclass(frozen=True)
class Columns:
    """Events as bare columns, sorted by time: x, y uint16, t int64 µs, p bool, each [N]."""

    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    t: NDArray[np.int64]
    p: NDArray[np.bool_]

    @staticmethod
    def join(parts: Sequence[Columns]) -> Columns:
        """One after the other, in the order given."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return Columns(np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.int64), np.empty(0, np.bool_))
        return Columns(
            np.concatenate([part.x for part in parts]),
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.t for part in parts]),
            np.concatenate([part.p for part in parts]),
        )


class Readout:
    """A bus that sends one event every 1 / `hz`, first come, first served, and a clock that stamps what it sends.

    Args:
        hz: most events a second; 0: no limit.
        wait_us: an event that would have to wait for longer than this is lost and takes no time of the bus.
        tick_us: times are rounded up to a multiple of it.

    Attributes:
        lost: number of events lost so far.
    """

    def __init__(self, hz: float, wait_us: float, tick_us: int) -> None:
        self._service = 1e6 / hz if hz else 0.0
        self._wait, self._tick = float(wait_us), int(tick_us)
        self._free = 0.0  # when the bus is free, in µs after the last frame
        self._late = Columns.join([])  # got past the last frame's time
        self.lost = 0

    def __bool__(self) -> bool:
        return bool(self._service or self._tick > 1)

    def send(self, events: Columns, t0: int, t_us: int) -> Columns:
        """What is sent up to `t_us` of the events in (t0, t_us], whose columns are changed, and of those before.

        The others wait for the next call.
        """
        x, y, t, p = events.x, events.y, events.t, events.p
        if self._service:
            passed, free = queue(x, y, t, p, t0, self._free, self._service, self._wait)
            self.lost += len(t) - passed
            x, y, t, p = x[:passed], y[:passed], t[:passed], p[:passed]
            self._free = free - (t_us - t0)
        t = -(-t // self._tick) * self._tick
        sent = Columns.join([self._late, Columns(x, y, t, p)])
        n = int(np.searchsorted(sent.t, t_us, side="right"))
        self._late = Columns(sent.x[n:], sent.y[n:], sent.t[n:], sent.p[n:])
        return Columns(sent.x[:n], sent.y[:n], sent.t[:n], sent.p[:n])


@compiled()
def queue(x: Any, y: Any, t: Any, p: Any, t0: int, free: float, service: float, wait: float) -> Any:
    """Send sorted events over a bus, one every `service` µs; the first elements of the columns become what passes.

    An event's time becomes the one at which it is sent, in whole µs, rounded up.

    Args:
        free: when the bus is free, in µs after t0.

    Returns:
        How many pass, and when the bus is free after them.
    """
    passed = 0
    for i in range(t.size):
        at = np.float64(t[i] - t0)
        sent = max(at, free)
        if sent - at > wait:
            continue
        free = sent + service
        x[passed], y[passed], p[passed] = x[i], y[i], p[i]
        t[passed] = t0 + np.int64(np.ceil(sent))
        passed += 1
    return passed, free


@compiled()
def sort(words: Any, count: int, t0: int, span: int) -> Any:
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
