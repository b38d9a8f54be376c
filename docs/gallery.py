"""Make docs/gallery.png: every representation of one moment.

python docs/gallery.py                                      # the packaged street video, through the simulator
python docs/gallery.py --recording REC --at 1.5 --out my.png         # a recording of yours, 1.5 s after its start
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import evlift
from evlift.represent import Histogram, TimeSurface, VoxelGrid, rectify
from evlift.simulate import events_from_video, packaged_video, read_video, shake
from evlift.view import event_picture

WINDOW_US = 40_000
BINS = 4
# A row: its title, and planes with their captions; a plane is a picture or float32 [H, W].
Row = tuple[str, list[tuple[str, np.ndarray]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", type=Path, help="a packed recording; without it, the packaged video")
    parser.add_argument("--at", type=float, help="seconds after its start")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    args = parser.parse_args()
    if args.recording:
        recording = evlift.open_recording(args.recording)
        start = recording.t_first + round((args.at or 0) * 1e6)
        frame, events = None, recording.window(start, start + WINDOW_US).events()
    else:
        frame, events = street(8.0 if args.at is None else max(args.at, 0.2))
    draw(rows(frame, events), args.out)


def street(at: float) -> tuple[np.ndarray, evlift.Events]:
    """A frame of the packaged video, as a hand-held camera takes it, and the events of the window that starts there."""
    start = round(at * 25)
    frames, times_us = read_video(packaged_video(), max_frames=start + 3)
    frames = shake(frames, 5, seed=0)
    events = events_from_video(frames[start - 5 :], times_us[start - 5 :], sensor="davis240", seed=0)
    t0 = int(times_us[start])
    return frames[start], events.between(t0, t0 + WINDOW_US)


def rows(frame: np.ndarray | None, events: evlift.Events) -> list[Row]:
    count = Histogram(1)(events)
    slow, fast = TimeSurface(15_000)(events), TimeSurface(3_000)(events)
    first = [] if frame is None else [("the image", frame)]
    first += [("the events, ON blue, OFF red", event_picture(events))]
    first += [("Histogram(1)   OFF", count[0]), ("ON", count[1])]
    grid, split = VoxelGrid(BINS)(events), VoxelGrid(BINS, polarity="split")(events)
    stacked = Histogram(BINS)(events)
    bent = rectify(grid, lens(events.height, events.width))
    bins = [f"bin {k}" for k in range(BINS)]
    return [
        ("", first),
        (
            "TimeSurface(15_000)",
            [("OFF", slow[0]), ("ON", slow[1]), ("TimeSurface(3_000)   OFF", fast[0]), ("ON", fast[1])],
        ),
        (f"VoxelGrid({BINS})", list(zip(bins, grid, strict=True))),
        (f"VoxelGrid({BINS}, polarity='split')", list(zip([f"OFF {b}" for b in bins], split[:BINS], strict=True))),
        ("", list(zip([f"ON {b}" for b in bins], split[BINS:], strict=True))),
        (f"Histogram({BINS})", list(zip([f"OFF {b}" for b in bins], stacked[:BINS], strict=True))),
        ("", list(zip([f"ON {b}" for b in bins], stacked[BINS:], strict=True))),
        (f"rectify(VoxelGrid({BINS})(events), places)", list(zip(bins, bent, strict=True))),
    ]


def lens(height: int, width: int) -> np.ndarray:
    """Rectified places of a strong barrel lens, float32 [H, W, 2]."""
    y, x = np.mgrid[:height, :width]
    dx, dy = (x - width / 2) / width, (y - height / 2) / width
    grow = 0.82 + 0.7 * (dx**2 + dy**2)
    return np.stack([width / 2 + dx * grow * width, height / 2 + dy * grow * width], -1).astype(np.float32)


def draw(rows: list[Row], path: Path) -> None:
    columns = max(len(planes) for _, planes in rows)
    height, width = rows[1][1][0][1].shape
    tile = 2.9  # inches
    figure = Figure(figsize=(tile * columns, len(rows) * (tile * height / width + 0.36)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (title, planes) in zip(axes, rows, strict=True):
        for axis in line:
            axis.set_visible(False)
        # One scale a row, and no hot pixel sets it.
        values = np.abs(np.stack([p for _, p in planes if p.ndim == 2])) if planes[-1][1].ndim == 2 else np.ones(1)
        top = float(np.percentile(values[values > 0], 99)) if (values > 0).any() else 1.0
        for i, (axis, (caption, plane)) in enumerate(zip(line, planes, strict=False)):
            axis.set_visible(True)
            axis.set_xticks([])
            axis.set_yticks([])
            for edge in axis.spines.values():
                edge.set(color="#cccccc", linewidth=0.6)
            signed = plane.ndim == 2 and bool((plane < 0).any())
            how = {"cmap": "RdBu", "vmin": -top, "vmax": top} if signed else {"cmap": "Greys", "vmin": 0, "vmax": top}
            axis.imshow(plane, interpolation="antialiased", **({} if plane.ndim == 3 else how))
            axis.set_title(f"{title}   {caption}" if i == 0 and title else caption, fontsize=8, loc="left")
    figure.savefig(path, dpi=100)
    print(path)


if __name__ == "__main__":
    main()
