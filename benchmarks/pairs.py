"""Pairs a second from still pictures, by what moves and by sensor. One thread.

    python benchmarks/pairs.py                        # frames of the packaged video
    python benchmarks/pairs.py --pictures DIR --repeats 9 --height 256 --width 320

A pair is a picture and the events of 50 ms before it, in its own pixel grid; the picture is decoded and scaled before.
The contestants take turns within every repeat, on the same pictures, and are timed by the processor time of the thread.
Times are means over the pictures, as a training run meets them: paths differ in length. A median of repeats is shown.

The second table is about the longest paths only: what a step of each scene costs.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from voxel import processor

from evlift.represent import VoxelGrid
from evlift.simulate import SENSORS, packaged_video, pair_from_image, read_video

PICTURES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder of pictures; left out, the packaged video's frames")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=320)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    pictures = load(args.pictures, args.height, args.width)
    depth = street_depth(args.height, args.width)
    wide = {"motion_px": (0.5, 50.0)}
    print(f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, OpenCV {cv2.__version__}")
    print(f"{len(pictures)} pictures of {args.width}×{args.height}, {args.repeats} interleaved repeats, one thread\n")
    table(
        "what moves",
        pictures,
        {
            "default (planar, smooth, 2 to 15 px)": {},
            "planar, smooth, 0.5 to 50 px": wide,
            "planar, saccade": {"path": "saccade"},
            "planar, shake": {"path": "shake"},
            "camera in space over a plane": {"kind": "camera"},
            "one layer": {"layers": 1},
            "three layers": {"layers": 3},
            "depth": {"depth": depth},
        },
        args.repeats,
    )
    table("sensor (default motion)", pictures, {name: {"sensor": name} for name in SENSORS}, args.repeats)
    longest = {"motion_px": (40.0, 40.0), "max_steps": 32}
    table(
        "32 steps of",
        pictures,
        {
            "planar": longest,
            "camera over a plane": {"kind": "camera", **longest},
            "one layer": {"layers": 1, **longest},
            "depth": {"depth": depth, **longest},
        },
        args.repeats,
    )
    extras(pictures, depth)


def table(title: str, pictures: list[np.ndarray], contestants: dict[str, dict[str, Any]], repeats: int) -> None:
    """One line a contestant: pairs a second, milliseconds, events a pixel."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    events = dict.fromkeys(contestants, 0)
    for arguments in contestants.values():
        pair_from_image(pictures[0], **arguments)  # compiles
    for repeat in range(repeats):
        for name, arguments in contestants.items():
            start = time.thread_time()
            for k, picture in enumerate(pictures):
                events[name] += len(pair_from_image(picture, seed=(repeat, k), **arguments).events)
            times[name].append((time.thread_time() - start) / len(pictures))
    print(f"| {title} | pairs/s | ms a pair | events a pixel |\n|---|---|---|---|")
    for name, values in times.items():
        seconds = float(np.median(values))
        share = events[name] / (repeats * len(pictures) * pictures[0].shape[0] * pictures[0].shape[1])
        print(f"| {name} | {1 / seconds:.0f} | {1e3 * seconds:.1f} | {share:.2f} |")
    print()


def extras(pictures: list[np.ndarray], depth: np.ndarray) -> None:
    """What else one may ask of a pair."""
    print("| besides | ms |\n|---|---|")
    grid = VoxelGrid(5)
    out = np.empty((5, *pictures[0].shape[:2]), np.float32)
    for name, arguments in (("planar", {}), ("one layer", {"layers": 1}), ("depth", {"depth": depth})):
        spent = np.zeros(3)
        for k, picture in enumerate(pictures):
            pair = pair_from_image(picture, seed=(7, k), **arguments)
            marks = [time.thread_time()]
            for ask in (lambda: pair.flow, lambda: pair.forward_flow, lambda: grid(pair.events, out=out)):  # noqa: B023
                ask()
                marks.append(time.thread_time())
            spent += np.diff(marks)
        back, forth, voxels = 1e3 * spent / len(pictures)
        print(f"| flow and mask, {name} | {back:.1f} |\n| forward flow and mask, {name} | {forth:.1f} |")
    print(f"| voxel grid of 5 bins | {voxels:.1f} |")


def load(folder: Path | None, height: int, width: int) -> list[np.ndarray]:
    """Some pictures, uint8 RGB [height, width, 3]."""
    if folder is None:
        frames, _ = read_video(packaged_video(), size=(height, width))
        return [np.ascontiguousarray(frame) for frame in frames[:: max(len(frames) // PICTURES, 1)][:PICTURES]]
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = files[:: max(len(files) // PICTURES, 1)][:PICTURES]
    read = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in chosen]
    return [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in read]


def street_depth(height: int, width: int) -> np.ndarray:
    """A road, far walls and a near post, metres."""
    y, x = np.mgrid[:height, :width]
    depth = np.clip(1.5 * height / np.maximum(y - 0.45 * height, 1), 0, 60)
    depth = np.minimum(depth, 60 / (0.5 + 4 * np.abs(x / width - 0.5)))
    depth[height // 3 : 4 * height // 5, width // 3 : width // 2] = 4
    return depth


if __name__ == "__main__":
    main()
