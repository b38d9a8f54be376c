"""The sensor in PyTorch: the pixels of a whole batch of cameras at once, on a CPU or a GPU.

    pixels = TorchPixels(batch=64, height=480, width=640, sensor="noisy-night", seed=0, device="cuda")
    for log, t_us in frames:                             # float32 [64, 480, 640] on that device
        grids = pixels.step(log, t_us).voxel_grid()      # float32 [64, 5, 480, 640], on that device

The model is the one of `evlift.simulate.sensor`, where every effect has its source. Without random effects the events
are those of `PixelArray`: the same counts a pixel, times to a microsecond. Random effects follow the same formulas with
other random numbers. The same seed on the same device gives the same events and the same grids, to the last bit.

In nearly every step nearly every pixel is silent. One pass over the pixels finds the others; their crossings, which lie
at equal distances of log intensity, are spread out into one list and treated all at once. The host asks the device for
two numbers a step: how many pixels fire, and how often.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, InputError
from .pixels import LONGEST_STEP_US
from .sensor import Sensor, get_sensor
from .torch_events import LATEST_US, NONE, EventBatch, Layout
from .torch_readout import read_out

_NEVER = -(2**62)  # µs: of a pixel that has not fired yet


_MOST = 1e6  # log intensity that is certainly a mistake, as NaN and infinity are


class TorchPixels:
    """The pixels of `batch` cameras of one make, and what they remember between frames.

    Args:
        batch, height, width: number of cameras and their size in pixels.
        sensor: preset or sensor.
        seed: of the mismatch and all noise, of all the cameras together.
        device: where it all happens.
        fuse: let `torch.compile` turn what is done to every pixel into one or two kernels: a first step takes much
            longer, the others less. It needs Triton on a GPU, a C++ compiler on a CPU.

    Attributes:
        on, off: thresholds, float32 [B, H, W]; without mismatch [1, 1, 1].
        hot: the hot pixels, int64 [P] as (sample · height + y) · width + x, and their rates in Hz, float64 [P]; arrays.
        lost: number of events that the readouts have lost so far.

    Raises:
        InputError: more pixels than an event's word has bits for.
        ConfigError: an unknown sensor, or one whose events come out more than LATEST_US late.
    """

    def __init__(
        self,
        batch: int,
        height: int,
        width: int,
        sensor: str | Sensor = "ideal",
        seed: int | Sequence[int] = 0,
        device: torch.device | str = "cpu",
        fuse: bool = False,
    ) -> None:
        self.batch, self.height, self.width = int(batch), int(height), int(width)
        self.layout = Layout(self.batch, self.height, self.width)
        self.sensor = get_sensor(sensor)
        self.device, self._fuse = torch.device(device), fuse
        if max(self.sensor.tick_us, self.sensor.readout_wait_us) > LATEST_US:
            raise ConfigError(f"sensor tick_us or readout_wait_us is over {LATEST_US}; give less")
        source = np.random.SeedSequence(seed)
        # How many random events there are is drawn on the host, so that nobody waits for the device to tell.
        self._host = np.random.default_rng(source)
        self._rng = torch.Generator(self.device).manual_seed(int(source.generate_state(1)[0]))
        self.on = self._thresholds(self.sensor.threshold_on)
        self.off = self._thresholds(self.sensor.threshold_off)
        self.hot = self._draw_hot()
        self.lost = 0
        self._edges = torch.as_tensor(np.cumsum(self.hot[1]), device=self.device)
        self._hot = torch.as_tensor(self.hot[0], device=self.device)
        self._last: Tensor | None = None  # int64 [B · H · W], µs: each pixel's last event
        self._level: Tensor | None = None  # float64 [B, H, W]: log intensity at each pixel's last crossing
        self._log: Tensor | None = None  # float32 [B, H, W] of the frame before
        self._seen: Tensor | None = None  # float32 [B, H, W]: the same after the low-pass
        self._t = self._start = np.zeros(self.batch, np.int64)
        self._free = torch.zeros(self.batch, dtype=torch.float64, device=self.device)
        self._late = torch.empty(0, dtype=torch.int64, device=self.device)  # words past the last frame's time

    def _thresholds(self, nominal: float) -> Tensor:
        shape = (self.batch, self.height, self.width)
        if not self.sensor.threshold_sigma:
            return torch.full((1, 1, 1), nominal, device=self.device)
        spread = torch.randn(shape, generator=self._rng, device=self.device)
        return spread.mul_(self.sensor.threshold_sigma).add_(nominal).clamp_(min=nominal / 4)

    def _draw_hot(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        if not (self.sensor.hot_share and self.sensor.hot_hz):
            return np.empty(0, np.int64), np.empty(0)
        pixels = self.batch * self.height * self.width
        number = self._host.binomial(pixels, self.sensor.hot_share)
        places = np.sort(self._host.choice(pixels, number, replace=False, shuffle=False))
        return places, self._host.exponential(self.sensor.hot_hz, number)

    @torch.no_grad()
    def step(self, log: Tensor, t_us: int | Sequence[int] | NDArray[np.int64]) -> EventBatch:
        """Events in (time of the frame before, t_us]. The first frame sets every pixel's level and gives none.

        Args:
            log: log intensity at `t_us`, float32 [B, H, W] on this device. Kept, not copied: the caller does not
                change it any more.
            t_us: time of this frame, one for all cameras or one for each, later than the one before.

        Raises:
            InputError: a time that does not rise, a gap over LONGEST_STEP_US, frames of another size or type, or
                such as are not finite.
        """
        if not (log.abs() < _MOST).all():
            raise InputError(
                "a frame's log intensity is not finite or beyond all measure; give pictures without NaN and infinity"
            )
        before, is_first = self._t, self._level is None
        words = self.words(log, np.broadcast_to(np.asarray(t_us, np.int64), (self.batch,)))
        words = words[words != NONE]
        if not is_first and (self.sensor.readout_hz or self.sensor.tick_us > 1):
            span = torch.as_tensor(self._t - before, device=self.device)
            words, free, lost = read_out(words, self.layout, self.sensor, before, self._free)
            self._free, self.lost = free - span, self.lost + lost
            words = torch.cat([self._late, words])
            gone = span[self.layout.sample(words)]
            late = self.layout.t(words) > gone
            self._late = words[late] - (gone[late] << self.layout.time_at)
            words = words[~late]
        return EventBatch(words, self.layout, before)

    @torch.no_grad()
    def words(self, log: Tensor, times: NDArray[np.int64]) -> Tensor:
        """As `step`, but words as they leave the pixels, int64 [N], some of them NONE; and of the first n cameras only.

        Args:
            log: as in `step`, float32 [n, H, W]. n never grows: the cameras after those have seen their last frame.
            times: int64 [n]. The times of the words count from the frame before.
        """
        n = len(times)
        if log.shape != (n, self.height, self.width) or log.dtype != torch.float32 or n > len(self._t):
            given = f"{log.dtype} {list(log.shape)}"
            raise InputError(f"frames are {given}; give torch.float32 {[n, self.height, self.width]}")
        if self._level is None:
            self._level = log.double()
            if self.sensor.leak_hz:  # as if it had been leaking for long: anywhere between an ON event and the next
                self._level -= torch.rand(log.shape, generator=self._rng, device=self.device) * self.on
            self._log = self._seen = log
            self._t = self._start = np.array(times)
            return torch.empty(0, dtype=torch.int64, device=self.device)
        spans = times - self._t[:n]
        if spans.min() <= 0:
            raise InputError("a frame is no later than the one before it; give frames with rising times")
        if spans.max() > LONGEST_STEP_US:
            raise InputError(f"{spans.max() / 1e6:.0f} s lie between two frames; cut the video there")
        span = self._upload(spans)
        seen = self._settle(log, span) if self.sensor.bandwidth_hz else log
        parts = [self._cross(seen, span, times), *self._noise(log, spans, span)]
        self._log, self._seen, self._t = log, seen, np.array(times)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _settle(self, log: Tensor, span: Tensor) -> Tensor:
        """What the photoreceptors give at `log`'s time, when their input runs straight there from the frame before."""
        assert self._log is not None and self._seen is not None
        before, y = self._log[: len(log)], self._seen[: len(log)]
        per_us = 2e-6 * math.pi * self.sensor.bandwidth_hz / 1.1 * span.float()[:, None, None]
        if self._fuse:
            return _fused(_settled)(log, before, y, per_us, self.sensor)
        return _settled(log, before, y, per_us, self.sensor)

    def _cross(self, seen: Tensor, span: Tensor, times: NDArray[np.int64]) -> Tensor:
        """Words of the crossings between the frame before and `seen`; brings the levels up to date."""
        assert self._level is not None and self._seen is not None
        n, pixels = len(seen), self.height * self.width
        level, on, off = self._level[:n], self.on[:n], self.off[:n]
        # That the level sinks is kept as log intensity that rises: the same for all pixels of a camera.
        lifts = [self._lift(t[:n]) for t in (self._t, times)] if self.sensor.leak_hz else None
        lift = None if lifts is None else lifts[1][:, None, None]
        fires = _fused(_fires)(seen, lift, level, on, off) if self._fuse else _fires(seen, lift, level, on, off)
        pixel = fires.view(-1).nonzero().squeeze(1)

        sample = pixel // pixels
        a, b = self._seen.view(-1)[pixel].double(), seen.view(-1)[pixel].double()
        up, down = _at(on, pixel), _at(off, pixel)
        reference = level.view(-1)[pixel]
        length = span[sample].double()
        if lifts is not None:
            a, b = a + lifts[0][sample], b + lifts[1][sample]
        rise = b > a
        move = torch.where(rise, up, -down)
        count = ((b - reference) / move).floor_()
        # Division rounds. Sums of thresholds, float32 by origin, do not: but for a leak they are exact in float64.
        beyond = torch.where(rise, reference + count * move > b, reference + count * move < b)
        count = count - beyond.double()
        short = torch.where(rise, reference + (count + 1) * move <= b, reference + (count + 1) * move >= b)
        count = (count + short.double()).clamp_(min=0)
        level.view(-1)[pixel] = reference + count * move

        number = count.long()
        total, most = torch.stack([number.sum(), number.max()]).tolist() if len(number) else (0, 0)
        owner = torch.repeat_interleave(number, output_size=total)  # of each crossing: which of the pixels that fire
        first = number.cumsum(0) - number
        nth = torch.arange(1, len(owner) + 1, device=self.device) - first[owner]
        way = (reference[owner] + nth * move[owner] - a[owner]) * (length / (b - a))[owner]
        span = span[sample][owner]
        # A clocked sensor: the first tick at or after the crossing. The bounds catch no more than rounding.
        t = way.ceil_().long().clamp_(min=1).minimum(span)
        rested = self._rested(pixel, sample, t, number, first, most) if self.sensor.refractory_us and total else None
        if self.sensor.jitter_us:
            t = self._shift(t, span)
        words = self.layout.pack(sample[owner], t, (pixel - sample * pixels)[owner], rise[owner])
        return words if rested is None else torch.where(rested, words, NONE)

    def _lift(self, times: NDArray[np.int64]) -> Tensor:
        """What leaking has added to the log intensity by then, float64 [n]."""
        pace = self.sensor.leak_hz * self.sensor.threshold_on * 1e-6
        return self._upload(pace * (times - self._start[: len(times)]))

    def _shift(self, t: Tensor, span: Tensor) -> Tensor:
        """Times with jitter, mirrored at either end of their step."""
        noise = torch.randn(len(t), generator=self._rng, device=self.device, dtype=torch.float64)
        t = t + noise.mul_(self.sensor.jitter_us).add_(0.5).floor_().long()
        t = torch.where(t < 1, 1 - t, t)
        t = torch.where(t > span, 2 * span + 1 - t, t)
        return t.clamp_(min=1).minimum(span)

    def _rested(self, pixel: Tensor, sample: Tensor, t: Tensor, number: Tensor, first: Tensor, most: int) -> Tensor:
        """Which crossings come no less than the refractory time after the pixel's last event, bool [N]."""
        if self._last is None:
            self._last = torch.full(
                (self.batch * self.height * self.width,), _NEVER, dtype=torch.int64, device=self.device
            )
        t0 = self._upload(self._t)[sample]
        last = self._last[pixel]
        rested = torch.zeros(len(t) + 1, dtype=torch.bool, device=self.device)  # one more, to write what is nobody's
        for k in range(most):
            here = k < number
            at = torch.where(here, first + k, len(t))
            now = t0 + t[at.clamp(max=len(t) - 1)]
            fires = here & (now - last >= int(self.sensor.refractory_us))
            last = torch.where(fires, now, last)
            rested[at] = fires
        self._last[pixel] = last
        return rested[:-1]

    def _noise(self, log: Tensor, spans: NDArray[np.int64], span: Tensor) -> list[Tensor]:
        """Words of the events that no contrast made. They leave the level and the refractory time alone."""
        made = []
        if self.sensor.noise_hz or self.sensor.shot_noise_hz:
            made.append(self._scatter(log, spans, span))
        if len(self._hot):
            made.append(self._spark(len(log), spans, span))
        return made

    def _scatter(self, log: Tensor, spans: NDArray[np.int64], span: Tensor) -> Tensor:
        """Random events of either polarity. As many as in the dark are drawn, of which light keeps some from happening:
        thinned, a Poisson process is one again (Lewis & Shedler 1979)."""
        pixels = self.height * self.width
        hz = self.sensor.noise_hz + self.sensor.shot_noise_hz
        numbers = self._host.poisson(hz * 1e-6 * pixels * spans)
        total = int(numbers.sum())
        sample = torch.repeat_interleave(self._upload(numbers), output_size=total)
        t = self._times(span[sample])
        side = torch.randint(2 * pixels, (total,), generator=self._rng, device=self.device)
        pixel, on = side >> 1, side & 1
        words = self.layout.pack(sample, t, pixel, on)
        if not self.sensor.shot_noise_hz:
            return words
        never = 0.75 * self.sensor.shot_noise_hz / hz * intensity(log.view(-1)[sample * pixels + pixel], self.sensor)
        return torch.where(torch.rand(total, generator=self._rng, device=self.device) < never, NONE, words)

    def _spark(self, n: int, spans: NDArray[np.int64], span: Tensor) -> Tensor:
        """Random ON events of the hot pixels of the first n cameras."""
        pixels = self.height * self.width
        edges = np.append(0.0, np.cumsum(self.hot[1]))[np.searchsorted(self.hot[0], np.arange(n + 1) * pixels)]
        numbers = self._host.poisson(np.diff(edges) * 1e-6 * spans)
        total = int(numbers.sum())
        sample = torch.repeat_interleave(self._upload(numbers), output_size=total)
        low, high = (self._upload(edge)[sample] for edge in (edges[:-1], edges[1:]))
        u = torch.rand(total, generator=self._rng, device=self.device, dtype=torch.float64)
        which = torch.searchsorted(self._edges, low + u * (high - low), right=True).clamp_(max=len(self._hot) - 1)
        t = self._times(span[sample])
        return self.layout.pack(sample, t, self._hot[which] - sample * pixels, torch.ones_like(t))

    def _times(self, span: Tensor) -> Tensor:
        """Random times in 1 … span, int64 µs."""
        u = torch.rand(len(span), generator=self._rng, device=self.device, dtype=torch.float64)
        return (u * span).long().add_(1).minimum(span)

    def _upload(self, array: NDArray[Any]) -> Tensor:
        """A few numbers, without waiting for the device to have done what it was asked for before."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)


def _settled(log: Tensor, before: Tensor, y: Tensor, per_us: Tensor, sensor: Sensor) -> Tensor:
    """The exact solution of dy/dt = a (x(t) − y), a = 2πf, at dt, for x straight from x0 to x1; with q = exp(−a dt):
    y1 = x1 − (x1 − x0) (1 − q) / (a dt) + (y0 − x0) q.

    Args:
        log, before, y: x1, x0 and y0, float32 [n, H, W].
        per_us: a dt at I = 255 over 1.1, float32 [n, 1, 1].
    """
    minus_z = intensity(log, sensor).add_(0.1).mul_(-per_us)  # −a dt
    gone = torch.expm1(minus_z)  # q − 1
    settled = torch.addcmul(log, log - before, minus_z.reciprocal_().mul_(gone), value=-1)
    return settled.addcmul_(y - before, gone.add_(1))


def _fires(seen: Tensor, lift: Tensor | None, level: Tensor, on: Tensor, off: Tensor) -> Tensor:
    """Which pixels have crossed a threshold, bool [n, H, W]."""
    offset = seen - level if lift is None else (seen + lift).sub_(level)
    return (offset >= on) | (offset <= -off)


def intensity(log: Tensor, sensor: Sensor) -> Tensor:
    """I / 255 of log intensities, float32, a new tensor: `Sensor.intensity`."""
    if sensor.response == "log":
        return torch.exp(log).sub_(sensor.log_offset).clamp_(0, 1)
    top = math.log(sensor.linlog_knee)
    grey = torch.where(log > top, torch.exp(log), log * (sensor.linlog_knee / top))
    return grey.div_(255).clamp_(0, 1)


@cache
def _fused(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function as one kernel that reads and writes every pixel once; compiled when it first runs."""
    compiled = torch.compile(function, dynamic=True)

    def run(*values: Any) -> Tensor:
        # `data` hides what a tensor is a view of, which would have the compiler begin anew at every other step.
        return compiled(*(value.data if isinstance(value, Tensor) else value for value in values))

    return run


def _at(values: Tensor, index: Tensor) -> Tensor:
    """Thresholds by flat index, float64."""
    if values.numel() == 1:
        return values.double().view(1).expand(len(index))
    return values.view(-1)[index].double()
