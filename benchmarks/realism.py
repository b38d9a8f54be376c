"""Realism: simulated events against those of a real DAVIS240b that saw the same frames.

    python benchmarks/realism.py [FOLDER …]      # by default ../shared/data/evbench/seq_*
    python benchmarks/realism.py --sensitivity   # and what each setting of ours is worth

Each folder holds `events.txt` (t[s] x y p) and `images.txt` (t[s] file), the layout of the Event Camera Dataset.
Between every two consecutive frames events are simulated and compared with the real ones of the same interval:

- correlation: Pearson's, of the number of events of a pixel in an interval, over all pixels and intervals at once;
- in 10 ms: the same, with each interval in five parts;
- polarity: share of the pixels and intervals with more ON than OFF events in reality that have so in the simulation and
  the other way round, where both have a majority;
- rate: simulated events for a real one.

Left out are the five pixels that fire most in the real recording (hot ones) and the columns from x = 190 on, where
these recordings have no events. The settings of `davis240` were chosen on seq_0001. The times of the frames are known
to ±5 ms only, so that a second line moves the real events by one constant lag, the best one of the first folder.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from evlift.simulate import SENSORS, Sensor, VideoSimulator
from evlift.simulate.interpolate import FlowInterpolator

HERE = Path(__file__).resolve().parents[1]
LAGS_MS = range(-10, 11)
OURS = {"sensor": "davis240"}
PLAIN = {"sensor": Sensor(0.2, 0.2, log_offset=0.001), "interpolate": False, "steady": False}


@dataclass(frozen=True)
class Sequence:
    """A real recording: its frames [T, H, W] and their times, and its events' µs, pixel (y · W + x) and polarity."""

    name: str
    frames: list[Any]
    times: Any
    t: Any
    pixel: Any
    p: Any
    usable: Any


def load(folder: Path) -> Sequence:
    rows = np.loadtxt(folder / "events.txt")
    listed = [line.split() for line in (folder / "images.txt").read_text().splitlines() if line.strip()]
    frames = [cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE) for _, name in listed]
    height, width = frames[0].shape
    pixel = rows[:, 2].astype(int) * width + rows[:, 1].astype(int)
    usable = np.ones((height, width), bool)
    usable[:, 190:] = False
    usable.ravel()[np.argsort(-np.bincount(pixel, minlength=height * width))[:5]] = False
    times = np.round([float(at) * 1e6 for at, _ in listed]).astype(np.int64)
    return Sequence(folder.name, frames, times, np.round(rows[:, 0] * 1e6), pixel, rows[:, 3].astype(int), usable)


def simulate(sequence: Sequence, sensor: str | Sensor, **settings: Any) -> tuple[Any, Any, Any]:
    height, width = sequence.frames[0].shape
    camera = VideoSimulator(height, width, sensor, seed=0, **settings)
    parts = [camera.push(frame, t) for frame, t in zip(sequence.frames, sequence.times.tolist(), strict=True)]
    t, y, x, p = (np.concatenate([getattr(part, name) for part in parts]).astype(np.int64) for name in "tyxp")
    return t, y * width + x, p


def counts(sequence: Sequence, t: Any, pixel: Any, p: Any, parts: int = 1) -> Any:
    """Events in each interval (or part of it), usable pixel and polarity, [K, N, 2]."""
    edges = np.interp(
        np.arange((len(sequence.times) - 1) * parts + 1) / parts, range(len(sequence.times)), sequence.times
    )
    k = np.searchsorted(edges, t) - 1  # intervals (from, to], as the simulator's
    inside = (k >= 0) & (k < len(edges) - 1)
    index = (k[inside] * sequence.usable.size + pixel[inside]) * 2 + p[inside]
    volume = np.bincount(index, minlength=(len(edges) - 1) * sequence.usable.size * 2)
    return volume.reshape(len(edges) - 1, sequence.usable.size, 2)[:, sequence.usable.ravel()]


def correlation(a: Any, b: Any) -> float:
    return float(np.corrcoef(a.sum(-1).ravel(), b.sum(-1).ravel())[0, 1])


def compare(sequence: Sequence, events: tuple[Any, Any, Any], lag_us: float = 0) -> dict[str, float]:
    real = (sequence.t + lag_us, sequence.pixel, sequence.p)
    a, b = counts(sequence, *real), counts(sequence, *events)
    signs = np.sign(a[..., 1] - a[..., 0]), np.sign(b[..., 1] - b[..., 0])
    both = (signs[0] != 0) & (signs[1] != 0)
    return {
        "correlation": correlation(a, b),
        "in 10 ms": correlation(counts(sequence, *real, 5), counts(sequence, *events, 5)),
        "polarity": float((signs[0] == signs[1])[both].mean()),
        "rate": float(b.sum() / a.sum()),
    }


def best_lag(sequence: Sequence) -> int:
    """The lag in ms at which ours agrees best, and which it keeps for all sequences."""
    events = simulate(sequence, **OURS)
    return max(LAGS_MS, key=lambda ms: compare(sequence, events, 1000 * ms)["correlation"])


def variants() -> dict[str, dict[str, Any]]:
    """Ours with one thing changed."""
    ours = SENSORS["davis240"]
    sensors = {
        "thresholds × 0.8": replace(ours, threshold_on=0.8 * ours.threshold_on, threshold_off=0.8 * ours.threshold_off),
        "thresholds × 1.25": replace(
            ours, threshold_on=1.25 * ours.threshold_on, threshold_off=1.25 * ours.threshold_off
        ),
        "ON threshold × 1.25": replace(ours, threshold_on=1.25 * ours.threshold_on),
        "OFF threshold × 1.25": replace(ours, threshold_off=1.25 * ours.threshold_off),
        "both thresholds alike (0.2)": replace(ours, threshold_on=0.2, threshold_off=0.2),
        "log offset 0.05": replace(ours, log_offset=0.05),
        "log offset 0.2": replace(ours, log_offset=0.2),
        "log offset 0.001": replace(ours, log_offset=0.001),
        "mismatch 0.03": replace(ours, threshold_sigma=0.03),
        "refractory 1 ms": replace(ours, refractory_us=1000),
        "no noise": replace(ours, noise_hz=0),
        "noise 0.5 Hz": replace(ours, noise_hz=0.5),
        "leak 0.1 Hz": replace(ours, leak_hz=0.1),
        "bandwidth 300 Hz": replace(ours, bandwidth_hz=300),
        "bandwidth 50 Hz": replace(ours, bandwidth_hz=50),
        "lin-log": replace(ours, response="lin-log"),
    }
    return {
        **{name: {"sensor": sensor, "steady": True} for name, sensor in sensors.items()},
        "no interpolation": OURS | {"interpolate": False},
        "DIS fast": OURS | {"interpolate": FlowInterpolator(cv2.DISOPTICAL_FLOW_PRESET_FAST)},
        "DIS medium": OURS | {"interpolate": FlowInterpolator(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)},
        "jumps of exposure left in": OURS | {"steady": False},
    }


def table(sequences: list[Sequence], rows: list[tuple[str, dict[str, Any], int]]) -> None:
    names = ("correlation", "in 10 ms", "polarity", "rate")
    print("| model | " + " | ".join(f"{s.name}: {names[0]} | {' | '.join(names[1:])}" for s in sequences) + " |")
    print("|---|" + "---|" * (len(names) * len(sequences)))
    for label, settings, lag in rows:
        scores = [compare(s, simulate(s, **settings), 1000 * lag) for s in sequences]
        print(
            f"| {label} | " + " | ".join(f"{score[name]:.3f}" for score in scores for name in names) + " |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--sensitivity", action="store_true", help="also print what each setting is worth")
    args = parser.parse_args()
    folders = args.folders or sorted((HERE / "../shared/data/evbench").glob("seq_*"))
    if not folders:
        parser.error("there are no recordings; name their folders")
    sequences = [load(folder) for folder in folders]
    lag = best_lag(sequences[0])
    table(
        sequences,
        [
            ("davis240", OURS, 0),
            (f"davis240, real events {lag:+d} ms", OURS, lag),
            ("plain: no interpolation, C = 0.2, log(I/255 + 0.001)", PLAIN, 0),
            (f"plain, real events {lag:+d} ms", PLAIN, lag),
        ],
    )
    if args.sensitivity:
        print("\ndavis240, real events as they are, and one thing changed:\n")
        table(sequences, [("davis240", OURS, 0), *((name, settings, 0) for name, settings in variants().items())])


if __name__ == "__main__":
    main()
