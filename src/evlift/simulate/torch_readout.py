"""The readout and the clock of a batch of cameras: `evlift.simulate.readout` for words on a device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .readout import queue
from .sensor import Sensor
from .torch_events import Layout

_ROUNDING = 1e-6  # µs; sums of service times are taken in another order than one event after the other


def read_out(
    words: Tensor, layout: Layout, sensor: Sensor, start_us: NDArray[np.int64], free: Tensor
) -> tuple[Tensor, Tensor, int]:
    """Events as the bus and the clock give them: at other times, and without those that the bus lost.

    Args:
        words: int64 [N] in any order, without NONE.
        start_us: int64 [B], what each sample's times count from.
        free: float64 [B], when each camera's bus is free, µs after that.

    Returns:
        The words, `free` after them, and how many events were lost.
    """
    lost = 0
    if sensor.readout_hz and len(words):
        words = torch.sort(words).values
        out, kept, free = _send(words, layout, sensor, free)
        words = words + ((out - layout.t(words)) << layout.time_at)
        if kept is not None:
            lost = len(words) - int(kept.sum())
            words = words[kept]
    if sensor.tick_us > 1:
        start = torch.as_tensor(start_us, device=words.device)[layout.sample(words)]
        early = (-(layout.t(words) + start)) % int(sensor.tick_us)
        words = words + (early << layout.time_at)
    return words, free, lost


def _send(words: Tensor, layout: Layout, sensor: Sensor, free: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """When each of the sorted events goes out, int64 µs [N]; which do at all, bool [N] (None: all); and `free`."""
    service, patience = 1e6 / sensor.readout_hz, float(sensor.readout_wait_us)
    at = layout.t(words)
    out = at.clone()
    bounds = torch.searchsorted(words, torch.arange(layout.batch + 1, device=words.device) << layout.sample_at).tolist()
    places = [(i, slice(bounds[i], bounds[i + 1])) for i in range(layout.batch) if bounds[i] < bounds[i + 1]]
    waits, ends = [], []
    for i, here in places:
        # If none is lost: event k goes out at max(free + k s, at_j + (k − j) s for all j ≤ k) (Lindley 1952).
        mine = at[here].double()
        before = torch.arange(len(mine), device=words.device) * service
        sent = (mine - before).cummax(0).values.clamp_(min=free[i]).add_(before)
        out[here] = (sent - _ROUNDING).ceil_().long()
        waits.append((sent - mine).amax())
        ends.append(sent[-1] + service)
    crowded = (torch.stack(waits) > patience + _ROUNDING).tolist()
    free = free.clone()
    kept = torch.ones(len(words), dtype=torch.bool, device=words.device) if any(crowded) else None
    for (i, here), end, is_crowded in zip(places, ends, crowded, strict=True):
        if not is_crowded:
            free[i] = end
            continue
        # Who is lost depends on who was lost before: one after the other, on the host. It is rare.
        t = at[here].cpu().numpy().copy()
        index = np.arange(len(t))
        passed, stop = queue(index, index.copy(), t, index.copy(), 0, float(free[i]), service, patience)
        went = here.start + torch.as_tensor(index[:passed], device=words.device)
        assert kept is not None
        kept[here] = False
        kept[went] = True
        out[went] = torch.as_tensor(t[:passed], device=words.device)
        free[i] = stop
    return out, kept, free
