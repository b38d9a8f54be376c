"""Events of a batch of cameras on a device: one int64 word an event, in any order, until someone asks for an order.

A word is sample | µs | pixel | polarity, most significant first: sorted words are sorted by sample, then time, then
row, then column.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..events import Events
from ..represent import VoxelGrid

TIME_BITS = 31
LATEST_US = 1 << 29
"""Most µs that an event may come late: with it a time of the longest step still has room in its word."""

NONE = -1
"""Stands in a list of words for an event that was not: cheaper than to close the gap each time."""

_SLOTS = 1024
_ONE = 2.0**32


@dataclass(frozen=True)
class Layout:
    """Where a word keeps what, for `batch` samples of `height` × `width` pixels.

    Raises:
        InputError: an empty batch or picture, or more than 63 bits.
    """

    batch: int
    height: int
    width: int

    def __post_init__(self) -> None:
        given = f"a batch of {self.batch} of {self.height}×{self.width} pixels"
        if not (self.batch > 0 and 0 < self.height <= 65536 and 0 < self.width <= 65536):
            raise InputError(f"{given} cannot be simulated; give 1 or more, with sides of 1 to 65536")
        if self.sample_at + (self.batch - 1).bit_length() > 63:
            raise InputError(f"{given} has no room in an event's word; simulate fewer at once")

    @property
    def time_at(self) -> int:
        """Lowest bit of the time."""
        return 1 + (self.height * self.width - 1).bit_length()

    @property
    def sample_at(self) -> int:
        """Lowest bit of the sample."""
        return self.time_at + TIME_BITS

    def pack(self, sample: Tensor, t: Tensor, pixel: Tensor, p: Tensor) -> Tensor:
        """Words, int64 [N], of integer columns; `p` may be bool. `pixel` is y · width + x."""
        return (sample << self.sample_at) | (t << self.time_at) | (pixel << 1) | p

    def sample(self, words: Tensor) -> Tensor:
        """Sample of each word, int64 [N]."""
        return words >> self.sample_at

    def t(self, words: Tensor) -> Tensor:
        """Time of each word, int64 µs [N]."""
        return (words >> self.time_at) & ((1 << TIME_BITS) - 1)

    def pixel(self, words: Tensor) -> Tensor:
        """y · width + x of each word, int64 [N]."""
        return (words >> 1) & ((1 << (self.time_at - 1)) - 1)


@dataclass(frozen=True, eq=False)
class EventBatch:
    """The events of a batch, on the device that made them.

    words: int64 [N] in any order, none of them NONE. start_us: int64 [B], what each sample's times count from.
    """

    words: Tensor
    layout: Layout
    start_us: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of samples."""
        return self.layout.batch

    @property
    def total(self) -> int:
        """Number of events of all samples."""
        return len(self.words)

    def counts(self) -> Tensor:
        """Number of events of each sample, int64 [B]."""
        return torch.bincount(self.layout.sample(self.words), minlength=len(self))

    def voxel_grid(self, grid: VoxelGrid | None = None) -> Tensor:
        """The voxel grid of each sample's events, float32 [B, C, H, W]: `grid(events)` to 1e-4, VoxelGrid(5) if None.

        As there, time runs from each sample's own first event to its own last. The events are in no order and need
        none. Sums are taken in whole numbers of 2⁻³², so that they don't depend on the order that the device takes.
        """
        grid = grid or VoxelGrid(5)
        layout, words = self.layout, self.words
        pixels = layout.height * layout.width
        planes = torch.zeros(len(self) * grid.channels * pixels, dtype=torch.int64, device=words.device)
        if len(words):
            sample, t, on = layout.sample(words), layout.t(words), words & 1
            first, last = self._ends(sample, t)
            at = (t - first[sample]) * (grid.bins - 1) / (last - first).clamp_(min=1)[sample].double()
            k = at.long()
            share = ((at - k) * _ONE).long()
            rest = int(_ONE) - share
            if grid.polarity == "split":
                index = ((sample * 2 + on) * grid.bins + k) * pixels + layout.pixel(words)
            else:
                index = (sample * grid.bins + k) * pixels + layout.pixel(words)
                share, rest = share * (2 * on - 1), rest * (2 * on - 1)
            planes.index_add_(0, index, rest)
            index += pixels * (k < grid.bins - 1)  # on the last centre there is no next plane, and nothing to add
            planes.index_add_(0, index, share)
        return planes.float().mul_(1 / _ONE).view(len(self), grid.channels, layout.height, layout.width)

    def _ends(self, sample: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """First and last time of each sample, int64 µs [B]; anything where a sample has no events."""
        # Millions of atomic operations on one address would queue up: many addresses a sample, then one more step.
        slot = sample * _SLOTS + torch.arange(len(sample), device=sample.device) % _SLOTS
        ends = []
        for how, worst in (("amin", 1 << TIME_BITS), ("amax", 0)):
            found = torch.full((len(self) * _SLOTS,), worst, dtype=torch.int64, device=sample.device)
            found.scatter_reduce_(0, slot, t, how)
            found = found.view(len(self), _SLOTS)
            ends.append(found.amin(1) if how == "amin" else found.amax(1))
        return ends[0], ends[1]

    def columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Flat columns x, y, t (int64 µs), p (bool), each [N], and offsets, int64 [B + 1].

        The events of sample i are those in ``offsets[i] : offsets[i + 1]``, in order of time, then row, then column.
        """
        layout = self.layout
        words = torch.sort(self.words).values
        pixel, sample = layout.pixel(words), layout.sample(words)
        t = layout.t(words) + torch.as_tensor(self.start_us, device=words.device)[sample]
        bounds = torch.arange(len(self) + 1, device=words.device)
        offsets = torch.searchsorted(sample, bounds)
        return pixel % layout.width, pixel // layout.width, t, (words & 1).bool(), offsets

    def events(self) -> list[Events]:
        """The same as B `Events`, in the host's memory."""
        layout = self.layout
        x, y, t, p, offsets = (column.cpu().numpy() for column in self.columns())
        x, y = x.astype(np.uint16), y.astype(np.uint16)
        return [Events(x[i:j], y[i:j], t[i:j], p[i:j], layout.height, layout.width) for i, j in pairwise(offsets)]
