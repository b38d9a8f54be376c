"""Representations of many windows at once, on the device that trains.

    batch = pack_windows([recording.window(t, t + 50_000) for t in times]).to("cuda", non_blocking=True)
    grids = represent_batch(VoxelGrid(5), batch)         # float32 [B, 5, H, W], on that device

Packed words are four bytes an event, a grid of a VGA window some megabytes: it is cheaper to move the words and to make
the grid where it is used. A batch is one buffer, so that it takes one copy to the device.

Values are those of the representation on the CPU, to 1e-5 (3e-5 where a million events crowd one pixel). Sums are added
up in float32 in whatever order the device takes them, so that grids of one batch may differ in the last digits from run
to run on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from evlift.errors import InputError
from evlift.events import Window
from evlift.represent import Representation
from evlift.represent.fill import last_time, refuse
from evlift.represent.histogram import MAX_COUNT, Histogram
from evlift.represent.surface import TimeSurface
from evlift.represent.voxel import VoxelGrid


@dataclass(frozen=True, eq=False)
class WordBatch:
    """B windows of one sensor size, M milliseconds and N words in all, as ``pack_windows`` made them.

    buffer: int32, the tables below (int64) followed by the words.
    """

    buffer: Tensor
    windows: int
    milliseconds: int
    height: int
    width: int

    def __len__(self) -> int:
        return self.windows

    def to(self, device: torch.device | str, non_blocking: bool = False) -> WordBatch:
        """The same on another device; ``non_blocking`` as in ``Tensor.to``, of use where the buffer is pinned."""
        return replace(self, buffer=self.buffer.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> WordBatch:
        """The same in page-locked memory: what a ``DataLoader(pin_memory=True)`` asks of a batch from its workers."""
        return replace(self, buffer=self.buffer.pin_memory())

    @property
    def words(self) -> Tensor:
        """int32 [N]: the packed words of all windows."""
        return self.buffer[2 * _table_length(self.windows, self.milliseconds) :]

    def tables(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Views of the tables, int64.

        starts [M + 1]: the words of millisecond m are ``starts[m] : starts[m + 1]``.
        base [M]: its time, µs from the first event of its window. window [M]: whose it is, 0..B - 1.
        span [B]: µs from a window's first event to its last.
        """
        m, b = self.milliseconds, self.windows
        numbers = self.buffer[: 2 * _table_length(b, m)].view(torch.int64)
        starts, base, window, span = numbers.split([m + 1, m, m, b])
        return starts, base, window, span


def _table_length(windows: int, milliseconds: int) -> int:
    return 3 * milliseconds + 1 + windows


def pack_windows(windows: Sequence[Window], pin_memory: bool | None = None) -> WordBatch:
    """Collect windows into one buffer that goes to a device in one copy.

    Args:
        windows: of one sensor size; empty ones are welcome.
        pin_memory: page-locked memory, which copies faster and in the background; by default where CUDA is, save in
            the workers of a DataLoader: a forked one cannot use CUDA, others would each take memory of the card. There
            ``DataLoader(pin_memory=True)`` does it. PyTorch keeps such memory for the next batch once the copy is done.
    Raises:
        InputError: no windows, unlike sensor sizes, or damaged words.
    """
    from evlift.represent.batch_kernel import copy_window

    if not windows:
        raise InputError("there are no windows to pack; give one or more")
    height, width = windows[0].height, windows[0].width
    for w in windows:
        if (w.height, w.width) != (height, width):
            raise InputError(f"windows of {w.width}×{w.height} and {width}×{height} cannot share a batch; crop them")
    counts = [max(len(w.offsets) - 1, 0) if len(w) else 0 for w in windows]
    m, b, n = sum(counts), len(windows), sum(len(w) for w in windows)
    pin = get_worker_info() is None and torch.cuda.is_available() if pin_memory is None else pin_memory
    batch = WordBatch(torch.empty(2 * _table_length(b, m) + n, dtype=torch.int32, pin_memory=pin), b, m, height, width)
    words = batch.words.numpy().view(np.uint32)
    starts, base, owner, span = (table.numpy() for table in batch.tables())
    at, first = 0, 0
    for i, (w, count) in enumerate(zip(windows, counts, strict=True)):
        span[i] = 0
        if not len(w):
            continue
        here = slice(at, at + count)
        refuse(copy_window(w.words, w.offsets, w.start, width, height, words[first : first + len(w)], starts[here]))
        t_first, t_last = int(w.words[0] >> 22), last_time(w)
        assert t_last is not None  # the copy checked the index
        starts[here] += first
        base[here] = np.arange(count) * 1000 - t_first
        owner[here] = i
        span[i] = t_last - t_first
        at, first = at + count, first + len(w)
    starts[m] = n
    return batch


def represent_batch(representation: Representation, batch: WordBatch, out: Tensor | None = None) -> Tensor:
    """The representation of every window of a batch, on the batch's device.

    Args:
        representation: a VoxelGrid, Histogram or TimeSurface.
        out: float32 [B, C, H, W] to fill and return.
    Returns:
        float32 [B, C, H, W].
    Raises:
        InputError: ``out`` does not fit, or the representation is of another kind.
    """
    shape = (batch.windows, representation.channels, batch.height, batch.width)
    device = batch.buffer.device
    if out is None:
        out = torch.empty(shape, dtype=torch.float32, device=device)
    elif out.shape != shape or out.dtype != torch.float32 or out.device != device or not out.is_contiguous():
        given = f"{out.dtype} {tuple(out.shape)} on {out.device}"
        raise InputError(f"out is {given}; give a contiguous float32 tensor of shape {shape} on {device}")
    flat = out.view(-1)
    if isinstance(representation, VoxelGrid):
        _voxel_grid(representation, batch, flat)
    elif isinstance(representation, Histogram):
        _histogram(representation, batch, flat)
    elif isinstance(representation, TimeSurface):
        _time_surface(representation, batch, flat)
    else:
        raise InputError(f"{representation!r} has no batched form; use a VoxelGrid, Histogram or TimeSurface")
    return out


def _unpack(batch: WordBatch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of every event: window, its span, time from its first event (all int64), pixel number and polarity (int32)."""
    words = batch.words
    starts, base, window, span = batch.tables()
    index = torch.arange(batch.milliseconds, device=words.device)
    ms = torch.repeat_interleave(index, starts.diff(), output_size=len(words))
    mine = window[ms]
    t = base[ms] + ((words >> 22) & 0x3FF)
    pixel = ((words >> 11) & 0x3FF) * batch.width + (words & 0x7FF)
    return mine, span[mine], t, pixel, (words >> 21) & 1


def _voxel_grid(grid: VoxelGrid, batch: WordBatch, flat: Tensor) -> None:
    pixels = batch.height * batch.width
    window, span, t, pixel, on = _unpack(batch)
    at = t * (grid.bins - 1) / span.clamp_(min=1).double()
    k = at.long()
    share = (at - k).float()
    if grid.polarity == "split":
        index = ((window * 2 + on) * grid.bins + k) * pixels + pixel
        rest = 1 - share
    else:
        index = (window * grid.bins + k) * pixels + pixel
        sign = 2 * on - 1
        share, rest = share * sign, (1 - share) * sign
    flat.zero_()
    flat.index_add_(0, index, rest)
    index += pixels * (k < grid.bins - 1)  # on the last centre there is no next plane, and nothing left to add
    flat.index_add_(0, index, share)


def _histogram(histogram: Histogram, batch: WordBatch, flat: Tensor) -> None:
    window, span, t, pixel, on = _unpack(batch)
    k = (t * histogram.bins).div_(span.clamp_(min=1), rounding_mode="floor").clamp_(max=histogram.bins - 1)
    index = ((window * 2 + on) * histogram.bins + k) * (batch.height * batch.width) + pixel
    flat.zero_()
    flat.index_add_(0, index, torch.ones_like(index, dtype=torch.float32))
    flat.clamp_(max=MAX_COUNT if histogram.max_count is None else histogram.max_count)


def _time_surface(surface: TimeSurface, batch: WordBatch, flat: Tensor) -> None:
    window, span, t, pixel, on = _unpack(batch)
    index = (window * 2 + on) * (batch.height * batch.width) + pixel
    flat.fill_(-torch.inf)
    flat.scatter_reduce_(0, index, ((t - span) / surface.decay_us).float(), "amax")
    flat.exp_()
