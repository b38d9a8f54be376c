"""Batched representations on a GPU from packed words: events a second, against the card's memory and the CPU's workers.

    python benchmarks/voxelise_gpu.py                     # CPU: a toy of seconds, to see that it runs
    python benchmarks/voxelise_gpu.py --batch 32          # GPU: 32 windows of VGA, 600,000 events each

The floor is what must cross the card's memory whatever the kernel: 4 bytes of every word read, and every float32 of
the output written once. The card's bandwidth is measured here, by copying a large tensor. Besides the batch that lies
on the device it times the whole road (windows in memory-mapped files → pinned buffer → card → grids), and the same
grids made by worker processes on the CPU, each with one thread. Values are compared with the CPU's first. Events are
drawn uniformly; real ones crowd on edges, which asks more of atomic additions and less of the caches.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from evlift.events import Events, open_recording, write_recording
from evlift.represent import Histogram, Representation, TimeSurface, VoxelGrid
from evlift.represent.torch_batch import pack_windows, represent_batch

WINDOW_US = 50_000
KINDS: dict[str, Representation] = {
    "voxel grid, 5 bins": VoxelGrid(5),
    "histogram, 2×10": Histogram(10),
    "time surface": TimeSurface(20_000),
}


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32 if cuda else 2, help="windows a batch")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640) if cuda else (120, 160), help="height, width")
    parser.add_argument("--events", type=int, default=600_000 if cuda else 20_000, help="a window")
    parser.add_argument("--repeats", type=int, default=30 if cuda else 5)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="CPU processes to compare with")
    args = parser.parse_args()
    device = torch.device("cuda" if cuda else "cpu")
    height, width = args.size
    name = torch.cuda.get_device_name() if cuda else "CPU (a toy: says nothing of a GPU)"
    bandwidth = copy_bandwidth(device, 1 << 30 if cuda else 1 << 24)
    print(f"{name}, {bandwidth / 1e9:.0f} GB/s copying; torch {torch.__version__}; {args.workers} CPU workers")
    print(f"{args.batch} windows of {args.events} events, {width}×{height}; medians of {args.repeats}\n")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        write_recording(path, uniform(height, width, args.events * args.batch, WINDOW_US * args.batch))
        recording = open_recording(path)
        windows = [recording.window(i * WINDOW_US, (i + 1) * WINDOW_US) for i in range(args.batch)]
        count = sum(len(w) for w in windows)
        batch = pack_windows(windows).to(device)
        print("| representation | what | ms | M events/s | floor, ms | share of the floor |\n|---|---|---|---|---|---|")
        for label, kind in KINDS.items():
            out = torch.empty((args.batch, kind.channels, height, width), device=device)
            represent_batch(kind, batch, out=out)
            for i in range(min(args.batch, 2)):
                np.testing.assert_allclose(out[i].cpu().numpy(), kind(windows[i]), rtol=1e-5, atol=1e-4)
            floor = (4 * count + 4 * out.numel()) / bandwidth

            def whole(kind=kind, out=out):
                represent_batch(kind, pack_windows(windows).to(device, non_blocking=True), out=out)

            def kernel(kind=kind, out=out):
                represent_batch(kind, batch, out=out)

            rows = {"batch on the device": timed(kernel, args.repeats), "from files": timed(whole, args.repeats)}
            with ProcessPoolExecutor(args.workers, get_context("spawn"), prepare, (path, kind)) as pool:
                list(pool.map(one, range(args.batch)))
                rows[f"{args.workers} CPU workers"] = timed(
                    lambda p=pool: list(p.map(one, range(args.batch))), args.repeats
                )
            for what, seconds in rows.items():
                share = f"{floor / seconds:.1%}" if what == "batch on the device" else ""
                cells = f"{seconds * 1e3:.3f} | {count / seconds / 1e6:.0f} | {floor * 1e3:.3f}"
                print(f"| {label} | {what} | {cells} | {share} |", flush=True)


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, to the end of what it queued on the card."""
    sync = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    seconds = []
    for _ in range(repeats + 2):
        sync()
        start = time.perf_counter()
        work()
        sync()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second that a copy within the device's memory reads and writes."""
    a, b = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / timed(lambda: b.copy_(a), 10)


def uniform(height: int, width: int, count: int, duration_us: int) -> Events:
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, duration_us, count))
    x, y = rng.integers(0, width, count, np.uint16), rng.integers(0, height, count, np.uint16)
    return Events(x, y, t, rng.integers(0, 2, count).astype(bool), height, width)


def prepare(path: Path, kind: Representation) -> None:
    """Set a worker up: its own view of the recording, its own output."""
    global work
    recording = open_recording(path)
    work = recording, kind, np.empty((kind.channels, recording.height, recording.width), np.float32)


def one(i: int) -> None:
    """One window to one grid, which stays in the worker's memory: moving it would cost the workers more still."""
    recording, kind, out = work
    kind(recording.window(i * WINDOW_US, (i + 1) * WINDOW_US), out=out)


if __name__ == "__main__":
    main()
