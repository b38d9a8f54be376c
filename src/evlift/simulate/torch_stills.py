"""Events from a batch of pictures, on the device that trains.

    events = simulate_batch(pictures, "davis346", seeds=range(64))    # of pictures uint8 [64, 3, H, W]
    grids = events.voxel_grid(VoxelGrid(5))                           # float32 [64, 5, H, W]

Each camera moves as it does in `pair_from_image` for the same seed: the same path, the same times of the frames in
between. These are sampled in float32 as OpenCV does, but not to the last bit, so that here and there a crossing falls
into the next frame. The picture itself, which ends the window, is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from .course import Course
from .sensor import Seed, Sensor, get_sensor
from .torch_engine import TorchPixels
from .torch_events import NONE, EventBatch, Layout
from .torch_readout import read_out

MOST_PIXELS = 1 << 25
"""Of pictures that are simulated at once, at 100 to 150 bytes a pixel: 109 of 480×640 in under 5 GB."""


@torch.no_grad()
def simulate_batch(
    pictures: Tensor,
    sensor: str | Sensor = "ideal",
    seeds: Sequence[Seed] | None = None,
    *,
    kind: str = "planar",
    path: str = "smooth",
    motion_px: tuple[float, float] | None = None,
    rotation: float = 0.3,
    zoom: float = 0.5,
    duration_us: int = 50_000,
    step_px: float = 1.0,
    max_steps: int = 32,
    most_pixels: int = MOST_PIXELS,
    fuse: bool = False,
) -> EventBatch:
    """Events of cameras that moved over these pictures and ended there; where the pictures are, there are the events.

    Args:
        pictures: [B, 3, H, W] RGB or [B, 1, H, W] grey; uint8, or floating point in 0…1. What lies outside is the
            mirror image.
        sensor: preset or sensor.
        seeds: one a picture, 0 … B − 1 when left out. A camera's path depends on its own alone, its mismatch and noise
            on all of them.
        kind, path, motion_px, rotation, zoom, duration_us, step_px, max_steps: as in `pair_from_image`.
        most_pixels: a batch of more is simulated in parts.
        fuse: as in `TorchPixels`.

    Returns:
        Times in (0, duration_us]. The pictures are left as they are: exposure, gamma and dynamic range of a sensor are
        the business of `pair_from_image`.

    Raises:
        InputError: pictures of another shape or type, or another number of seeds.
        ConfigError: a setting out of its range.
    """
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or not pictures.numel():
        raise InputError(f"pictures are {list(pictures.shape)}; give [batch, 3, height, width] or one channel of grey")
    if pictures.dtype != torch.uint8 and not pictures.is_floating_point():
        raise InputError(f"pictures are {pictures.dtype}; give torch.uint8, or floating point in 0…1")
    if pictures.is_floating_point() and not torch.isfinite(pictures).all():
        raise InputError("pictures hold values that are not finite; give pictures without NaN and infinity")
    course = Course(kind, path, motion_px, rotation, zoom, duration_us, step_px, max_steps)
    batch, _, height, width = pictures.shape
    layout = Layout(batch, height, width)
    seeds = range(batch) if seeds is None else seeds
    if len(seeds) != batch:
        raise InputError(f"{batch} pictures come with {len(seeds)} seeds; give one a picture")
    sensor = get_sensor(sensor)
    views, noise = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        scene = course.draw(rng, height, width)  # as `pair_from_image` draws it
        times, u = course.moments(scene)
        views.append((times, np.linalg.inv(scene.maps(u)).astype(np.float64)))
        noise.append(int(rng.integers(1 << 63)))
    # Cameras with many frames come first, so that those that still move are always the first so many.
    order = sorted(range(batch), key=lambda i: -len(views[i][0]))
    size = max(1, most_pixels // (height * width))
    parts = []
    for begin in range(0, batch, size):
        mine = order[begin : begin + size]
        log = log_intensity(pictures[mine], sensor)
        pixels = TorchPixels(len(mine), height, width, sensor, [noise[i] for i in mine], pictures.device, fuse)
        words = _words(pixels, log, [views[i] for i in mine])
        words = words[pixels.layout.t(words) <= duration_us]  # what the readout gives later belongs to no window
        own = pixels.layout
        sample = torch.as_tensor(mine, device=words.device)[own.sample(words)]
        parts.append((words & ((1 << own.sample_at) - 1)) | (sample << layout.sample_at))
    return EventBatch(torch.cat(parts), layout, np.zeros(batch, np.int64))


_Views = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Times of the frames, µs [K], and for each the map [K, 3, 3] from its pixels back to those of the picture."""


def _words(pixels: TorchPixels, log: Tensor, views: Sequence[_Views]) -> Tensor:
    """Words of all events of cameras over these pictures, those with most frames first, int64 [N]."""
    height, width = log.shape[1:]
    frames = np.array([len(times) for times, _ in views])
    most = int(frames[0])
    times = np.stack([np.pad(t, (0, most - len(t)), "edge") for t, _ in views], axis=1)  # [K, B]
    # From pixels of the picture to the coordinates of `grid_sample`, which run from −1 to 1.
    scale = np.diag([2 / max(width - 1, 1), 2 / max(height - 1, 1), 1])
    scale[:2, 2] = -1
    maps = np.zeros((most, len(views), 3, 3), np.float32)
    for i, (_, back) in enumerate(views):
        maps[: len(back), i] = scale @ back
    flat = bool((maps[..., 2, :2] == 0).all())
    places = torch.as_tensor(maps, device=log.device)
    origin = torch.as_tensor(times, device=log.device) << pixels.layout.time_at
    parts = []
    for k in range(most):
        moving, there = int((frames > k + 1).sum()), int((frames > k).sum())
        seen = [warp(log[:moving], places[k, :moving], flat)] if moving else []
        if moving < there:
            seen.append(log[moving:there])  # at rest: the picture itself, to the last bit
        words = pixels.words(torch.cat(seen) if len(seen) > 1 else seen[0], times[k, :there])
        if k:
            shifted = words + origin[k - 1][pixels.layout.sample(words).clamp_(min=0)]
            parts.append(torch.where(words == NONE, NONE, shifted))
    words = torch.cat(parts)
    words = words[words != NONE]
    if pixels.sensor.readout_hz or pixels.sensor.tick_us > 1:
        free = torch.zeros(len(views), dtype=torch.float64, device=log.device)
        words, _, _ = read_out(words, pixels.layout, pixels.sensor, np.zeros(len(views), np.int64), free)
    return words


def warp(pictures: Tensor, maps: Tensor, flat: bool) -> Tensor:
    """Pictures float32 [B, H, W] as seen through maps float32 [B, 3, 3], from pixels of what is seen to coordinates of
    `grid_sample`; bilinear, mirrored at the borders. `flat`: the maps' last row is (0, 0, 1)."""
    batch, height, width = pictures.shape
    x = torch.arange(width, dtype=torch.float32, device=pictures.device)
    y = torch.arange(height, dtype=torch.float32, device=pictures.device)[:, None]
    rows = [[c[:, None, None] for c in maps[:, row].unbind(1)] for row in range(3)]
    # Not by affine_grid: its matrix product may be rounded to 10 bits on a GPU.
    places = torch.empty((batch, height, width, 2), device=pictures.device)
    for axis, (a, b, c) in enumerate(rows[:2]):
        torch.add(a * x, b * y + c, out=places[..., axis])
    if not flat:
        a, b, c = rows[2]
        places.div_((a * x + (b * y + c))[..., None])
    with torch.autocast(pictures.device.type, enabled=False):
        sampled = F.grid_sample(pictures[:, None], places, "bilinear", "reflection", align_corners=True)
    return sampled[:, 0]


def log_intensity(pictures: Tensor, sensor: Sensor) -> Tensor:
    """The sensor's log intensity of pictures [B, 3 or 1, H, W], float32 [B, H, W].

    Of uint8 pictures the very values of `Sensor.log_intensity(to_grey(picture))`; of others, in 0…1, what lies between.
    """
    table = torch.as_tensor(sensor.log_intensity(np.arange(256, dtype=np.uint8).reshape(16, 16)).ravel())
    table = table.to(pictures.device)
    if pictures.dtype == torch.uint8:
        if pictures.shape[1] == 3:
            # ITU-R BT.601 in whole numbers of 2⁻¹⁵, rounded as OpenCV does.
            r, g, b = pictures.int().unbind(1)
            return table[(9798 * r + 19235 * g + 3735 * b + (1 << 14)) >> 15]
        return table[pictures[:, 0].int()]
    colours = pictures.float()
    if colours.shape[1] == 3:
        r, g, b = colours.unbind(1)
        grey = 0.299 * r + 0.587 * g + 0.114 * b
    else:
        grey = colours[:, 0]
    grey = grey.clamp(0, 1) * 255
    below = grey.int().clamp_(max=254)
    return torch.lerp(table[below], table[below + 1], grey - below)
