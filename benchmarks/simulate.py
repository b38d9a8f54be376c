"""The event sensor: nanoseconds a pixel a frame and events a second, ideal and with all noise, one core.

    python benchmarks/simulate.py                           # needs the sample data in ../shared/data
    python benchmarks/simulate.py --data DIR --repeats 9 --frames 60

Real frames: a highway video at 640×480, and the 15 Hz street video of CamVid's `val` at 480×360. From grey uint8 frames
to sorted events, the logarithm included, without interpolation; then from the colour video, with interpolation along
the optical flow. Beside it, each where it can be imported: eventcv, evlib (needs torch) and eventify (pip install
eventify-dvs); if they have an environment of their own, set PYTHONPATH to its site-packages.

All take turns within every repeat and are timed by processor time, one thread each, medians of the repeats. Thresholds
of the others are set so that each gives about as many events as evlift, so that nobody works less. Two columns tell
what an event of theirs is worth. Remainders: a brightness that rises by less than a threshold a frame still makes its
events. Exact times: a larger jump crosses its first threshold earlier. The last column is the share of this machine's
memory bandwidth (a copy, read and written) that evlift's arrays need at least, 17 bytes a pixel: the frame, the log
intensity out and in, and the two bounds that it is compared with.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from voxel import processor

from evlift.simulate import SENSORS, PixelArray, Sensor, VideoSimulator, get_sensor

Simulate = Callable[[np.ndarray, int, float], np.ndarray]  # frames [T, H, W], µs apart, threshold → times of the events
TRAFFIC = 17  # bytes a pixel a frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--data", type=Path, default=here.parent / "shared" / "data", help="folder of the sample data")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--frames", type=int, default=40)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")  # of the others
    video, stills = args.data / "video" / "solidWhiteRight.mp4", args.data / "camvid" / "val" / "images"
    for path in (video, stills):
        if not path.exists():
            sys.exit(f"simulate.py: {path} is missing; give the folder of the sample data with --data DIR")
    colour = read_video(video, args.frames)
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in colour])
    camvid = np.stack([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in sorted(stills.glob("*.jpg"))])
    sources = {"video 640×480": (grey, 40_000), "CamVid 480×360": (camvid[: args.frames], 66_667)}

    speed = bandwidth()
    print(f"{processor()}, {os.cpu_count()} cores; {platform.python_implementation()} {platform.python_version()}")
    print(f"{args.repeats} interleaved repeats, medians of processor time, one thread; memory {speed / 1e9:.1f} GB/s\n")
    others = find_others()
    contestants: dict[str, Simulate] = {"evlift ideal": evlift("ideal"), **others}
    noisy: dict[str, Simulate] = {f"evlift {name}": evlift(name) for name in SENSORS if name != "ideal"}
    every = replace(SENSORS["noisy-night"], noise_hz=0.5, readout_hz=66e6, tick_us=2)
    noisy["evlift, every effect"] = evlift(every)
    print(
        "| frames | simulator | ns/pixel/frame | M events/s | events/pixel/frame | × evlift ideal | remainders", end=""
    )
    print(" | exact times | of memory bandwidth |\n|---|---|---|---|---|---|---|---|---|")
    for label, (frames, gap) in sources.items():
        target = len(evlift("ideal")(frames[:8], gap, 0.2))
        thresholds = {name: match(simulate, frames[:8], gap, target) for name, simulate in others.items()}
        tasks = {**contestants, **noisy}
        times, counts = interleaved(tasks, frames, gap, thresholds, args.repeats)
        pixels = frames[1:].size
        for name, seconds in times.items():
            cells = f"{label} | {name} | {seconds / pixels * 1e9:.2f} | {counts[name] / seconds / 1e6:.1f}"
            cells += f" | {counts[name] / pixels:.3f} | {seconds / times['evlift ideal']:.1f}"
            kept, exact = ("", "") if name in noisy else (keeps_remainders(tasks[name]), is_exact(tasks[name]))
            share = f"{TRAFFIC * pixels / seconds / speed:.0%}" if name == "evlift ideal" else ""
            print(f"| {cells} | {kept} | {exact} | {share} |")
    print("\n| 640×480 video along the optical flow | frames/s | ms/frame | M events/s |\n|---|---|---|---|")
    for name in ("ideal", "noisy-night"):
        seconds, count = min(along(colour, name) for _ in range(3))
        per_frame = seconds / (len(colour) - 2)  # two warm it up
        print(f"| {name} | {1 / per_frame:.0f} | {per_frame * 1e3:.1f} | {count / seconds / 1e6:.1f} |")
    print(f"\nsteps from frame to frame there: {steps(grey):.1f} a pixel on average")


def read_video(path: Path, count: int) -> np.ndarray:
    """Its first frames, uint8 RGB [T, 480, 640, 3]."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while len(frames) < count:
        good, frame = capture.read()
        if not good:
            break
        frame = cv2.resize(frame, (640, 480), interpolation=cv2.INTER_AREA)
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return np.stack(frames)


def bandwidth() -> float:
    """Bytes a second that a copy between arrays larger than the caches reads and writes; the best of ten."""
    source = np.ones(2**27, np.uint8)
    target = np.zeros_like(source)
    best = math.inf
    for _ in range(10):
        start = time.process_time()
        np.copyto(target, source)
        best = min(best, time.process_time() - start)
    return 2 * source.size / best


def evlift(given: str | Sensor) -> Simulate:
    def simulate(frames: np.ndarray, gap: int, threshold: float) -> np.ndarray:
        sensor = Sensor(threshold, threshold) if given == "ideal" else get_sensor(given)
        pixels = PixelArray(*frames.shape[1:], sensor, 0)
        return np.concatenate([pixels.step(sensor.log_intensity(f), k * gap).t for k, f in enumerate(frames)])

    return simulate


def find_others() -> dict[str, Simulate]:
    """Those of the peers that are installed, without noise."""
    os.environ |= {"RAYON_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    found: dict[str, Simulate] = {}
    try:
        import eventcv

        def with_eventcv(frames: np.ndarray, gap: int, threshold: float) -> np.ndarray:
            silent = {"sigma_thres": 0.0, "refractory_us": 0, "cutoff_hz": 0.0, "leak_rate_hz": 0.0}
            events = eventcv.simulate(
                frames,
                fps=1e6 / gap,
                pos_thres=threshold,
                neg_thres=threshold,
                shot_noise_rate_hz=0.0,
                upsample="off",
                **silent,
            )
            return _Lazily(len(events), lambda: events.numpy()[:, 2])

        found["eventcv"] = with_eventcv
    except ImportError as error:
        print(f"eventcv is left out: {error}")
    try:
        import torch
        from evlib.simulation.config import ESIMConfig
        from evlib.simulation.esim import ESIMSimulator

        torch.set_num_threads(1)

        def with_evlib(frames: np.ndarray, gap: int, threshold: float) -> np.ndarray:
            config = ESIMConfig(threshold, threshold, refractory_period_ms=0.0, device="cpu", dtype="float32")
            simulator = ESIMSimulator(config)
            return np.concatenate([simulator.process_frame(f, k * gap * 1e-6)[2] for k, f in enumerate(frames)])

        found["evlib"] = with_evlib
    except ImportError as error:
        print(f"evlib is left out: {error}")
    try:
        from eventify import frame_to_event_tuples

        def with_eventify(frames: np.ndarray, gap: int, threshold: float) -> np.ndarray:
            parts = [
                frame_to_event_tuples(frames[k], frames[k + 1], k * gap, (k + 1) * gap, threshold)["t"]
                for k in range(len(frames) - 1)
            ]
            return np.concatenate(parts)

        found["eventify"] = with_eventify
    except ImportError as error:
        print(f"eventify is left out: {error}")
    return found


def match(simulate: Simulate, frames: np.ndarray, gap: int, target: int) -> float:
    """The threshold at which a simulator gives about `target` events."""
    low, high = math.log(0.02), math.log(3)
    for _ in range(9):
        middle = (low + high) / 2
        if len(simulate(frames, gap, math.exp(middle))) > target:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def interleaved(
    tasks: dict[str, Simulate], frames: np.ndarray, gap: int, thresholds: dict[str, float], repeats: int
) -> tuple[dict[str, float], dict[str, int]]:
    """Median processor seconds of each, and its number of events."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    counts = {}
    for simulate in tasks.values():
        simulate(frames[:3], gap, 0.2)  # compiles
    for _ in range(repeats):
        for name, simulate in tasks.items():
            start = time.process_time()
            events = simulate(frames, gap, thresholds.get(name, 0.2))
            times[name].append(time.process_time() - start)
            counts[name] = len(events)
    return {name: float(np.median(values)) for name, values in times.items()}, counts


def keeps_remainders(simulate: Simulate) -> str:
    """Whether 120 frames that each are a grey level brighter make as many events as one jump of 120."""
    ramp = np.arange(60, 181, dtype=np.uint8)[:, None, None] * np.ones((1, 16, 16), np.uint8)
    return yes(len(simulate(ramp, 40_000, 0.2)) >= 0.9 * len(simulate(ramp[[0, -1]], 40_000, 0.2)) > 0)


def is_exact(simulate: Simulate) -> str:
    """Whether a pixel that makes one event makes it the earlier, the larger the jump is: up to twice as early."""
    seen = []
    for grey in range(62, 140):
        jump = np.stack([np.full((16, 16), 60, np.uint8), np.full((16, 16), grey, np.uint8)])
        t = np.asarray(simulate(jump, 40_000, 0.2), np.float64)
        if len(t) == 256:
            seen.append(t.mean())
    return yes(bool(seen) and max(seen) / min(seen) > 1.5)


def yes(value: bool) -> str:
    return "yes" if value else "no"


def along(frames: np.ndarray, name: str) -> tuple[float, int]:
    """Processor seconds and number of events of the video with interpolation."""
    simulator = VideoSimulator(*frames.shape[1:3], name)
    simulator.columns(frames[0], -80_000)
    simulator.columns(frames[1], -40_000)
    start, count = time.process_time(), 0
    for k, frame in enumerate(frames[2:]):
        count += len(simulator.columns(frame, k * 40_000).t)
    return time.process_time() - start, count


def steps(grey: np.ndarray) -> float:
    """Mean number of steps from frame to frame: one for every pixel of flow, either way."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    means = []
    for before, after in itertools.pairwise(grey[:9]):
        ways = [np.linalg.norm(dis.calc(*pair, None), axis=-1) for pair in ((before, after), (after, before))]
        means.append(np.clip(np.ceil(np.maximum(*ways)), 1, 32).mean())
    return float(np.mean(means))


class _Lazily:
    """Times of events that are taken out only where someone looks at them."""

    def __init__(self, count: int, take: Callable[[], np.ndarray]) -> None:
        self._count, self._take = count, take

    def __len__(self) -> int:
        return self._count

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self._take(), dtype)


if __name__ == "__main__":
    main()
