"""Windows of a DSEC recording as voxel grids a second: evlift against DSEC's own way (h5py and torch). One thread.

    python benchmarks/hdf5.py                         # needs the streams in ../shared/bench
    python benchmarks/hdf5.py --bench DIR --seconds 2 --windows 24 --bins 5

What is timed is all of it: find the window of 50 ms in ``events.h5``, read it, voxelise it (with raw coordinates, and
with rectified ones, as DSEC's example does), normalise over the cells that are not 0. DSEC's way is written anew here
from what its example does (EventSlicer, rectify_events, VoxelGrid.convert): slices of h5py datasets by ms_to_idx,
then ``put_(accumulate=True)`` eight times, for the corners of the cell that an event falls into. evlift's:
``DsecReader.window``, ``VoxelGrid``, ``rectify``; and the same from a packed recording, converted once
(``evlift convert``).

How DSEC's files are chunked is not documented; three ways are tried. The last is that of the data set's own tools
(H5Writer of dsec-det: Blosc zstd level 1, bits shuffled, chunks as h5py guesses them).

All contestants do a window in turn, so that a busy machine slows all alike; processor time of the thread; ratios are of
the sums over the windows. The grids are compared first.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["BLOSC_NTHREADS"] = "1"

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import torch
from voxel import load_streams, processor

from evlift.events import Events, open_recording, write_recording
from evlift.events.readers import Stated, dsec
from evlift.represent import VoxelGrid, rectify

HEIGHT, WIDTH, RATE, WINDOW_US, OFFSET = 480, 640, 12_000_000, 50_000, 49_599_300_000
BYTES, BITS = hdf5plugin.Blosc.SHUFFLE, hdf5plugin.Blosc.BITSHUFFLE
LAYOUTS: dict[str, tuple[int, int | None]] = {  # shuffle, rows a chunk
    "chunks of 65,536, bytes shuffled": (BYTES, 65536),
    "chunks of 65,536, bits shuffled": (BITS, 65536),
    "as dsec-det writes: chunks of 2,048 to 8,192, bits shuffled": (BITS, None),
}
TYPES = {"x": "u2", "y": "u2", "t": "u4", "p": "u1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--bench", type=Path, default=here.parent / "shared" / "bench", help="folder of streams.py")
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--bins", type=int, default=5)
    args = parser.parse_args()
    if not (args.bench / "streams.py").is_file():
        sys.exit(f"hdf5.py: {args.bench / 'streams.py'} is missing; give its folder with --bench DIR")
    torch.set_num_threads(1)
    print(
        f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, torch {torch.__version__}, ",
        end="",
    )
    print(f"h5py {h5py.__version__}")
    print(f"{args.bins} bins, {WIDTH}×{HEIGHT}, windows of 50 ms, {RATE / 1e6:g}M events/s, normalised, one thread\n")
    print("| events.h5 | coordinates | bytes an event | contestant | read, ms | all, ms | windows/s | × DSEC's way |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = [second(load_streams(args.bench / "streams.py"), k) for k in range(args.seconds)]
        write_recording(folder / "packed", (Events(x, y, t + OFFSET, p, HEIGHT, WIDTH) for x, y, t, p in seconds))
        for label, (shuffle, rows) in LAYOUTS.items():
            path = write(folder / "events.h5", seconds, shuffle, rows)
            for places in (None, lens()):
                contest(label, path, folder / "packed", places, args.bins, args.windows)
            path.unlink()


def contest(label: str, path: Path, packed: Path, places: np.ndarray | None, bins: int, windows: int) -> None:
    """Time all contestants on one file and print their rows of the table."""
    voxel, raw, out = VoxelGrid(bins), *(np.empty((bins, HEIGHT, WIDTH), np.float32) for _ in range(2))
    reader, recording, theirs = dsec.open_reader(path, "dsec", Stated()), open_recording(packed), TheirWay(path, places)

    def ours(events: Any) -> np.ndarray:
        grid = voxel(events, out=raw)
        return normalised(grid if places is None else rectify(grid, places, out=out))

    def from_hdf5(t0: int) -> Iterator[np.ndarray | None]:
        x, y, t, p, _ = reader.window(t0, t0 + WINDOW_US)
        yield None  # read
        yield ours(Events(x, y, t, p, HEIGHT, WIDTH))

    def from_packed(t0: int) -> Iterator[np.ndarray | None]:
        window = recording.window(t0, t0 + WINDOW_US)
        yield None
        yield ours(window)

    def from_torch(t0: int) -> Iterator[np.ndarray | None]:
        columns = theirs.read(t0, t0 + WINDOW_US)
        yield None
        yield theirs.grid(*columns, bins)

    contestants: dict[str, Callable[[int], Iterator[np.ndarray | None]]] = {
        "DSEC's way: h5py, torch": from_torch,
        "evlift, events.h5": from_hdf5,
        "evlift, packed recording": from_packed,
    }
    starts = [OFFSET + k * WINDOW_US for k in range((recording.t_last - OFFSET) // WINDOW_US)][:windows]
    expected: np.ndarray | None = None
    for name, work in contestants.items():  # the first call also compiles and opens
        _, got = work(starts[0])
        assert got is not None
        expected = got.copy() if expected is None else expected
        if not np.allclose(got, expected, rtol=1e-3, atol=1e-2):  # theirs sums in float32, with times of 24 bits
            sys.exit(f"hdf5.py: {name} is off by {np.abs(got - expected).max():.3g}; not timed")
    spent = {name: np.zeros(2) for name in contestants}
    for t0 in starts:
        for name, work in contestants.items():
            begin = time.thread_time()
            steps = work(t0)
            next(steps)
            read = time.thread_time()
            next(steps)
            spent[name] += (read - begin, time.thread_time() - begin)
    base = spent["DSEC's way: h5py, torch"][1]
    for name, (read, whole) in spent.items():
        size = 4.0 if "packed" in name else path.stat().st_size / len(theirs.file["events/t"])
        each = whole / len(starts)
        print(f"| {label} | {'raw' if places is None else 'rectified'} | {size:.1f} | {name} | ", end="")
        print(f"{read / len(starts) * 1e3:.1f} | {each * 1e3:.1f} | {1 / each:.1f} | {base / whole:.1f} |", flush=True)


def normalised(grid: np.ndarray) -> np.ndarray:
    """To mean 0 and (unbiased) deviation 1 over the cells that are not 0, in place."""
    flat = grid.reshape(-1)
    filled = flat != 0
    count = int(np.count_nonzero(filled))
    mean = float(flat.sum()) / max(count, 1)
    variance = max(float(np.dot(flat, flat)) - count * mean * mean, 0.0) / max(count - 1, 1)
    flat -= np.float32(mean)
    flat *= np.float32(1 / variance**0.5 if variance > 0 else 1)
    flat *= filled
    return grid


class TheirWay:
    """What DSEC's example does for a window."""

    def __init__(self, path: Path, places: np.ndarray | None) -> None:
        self.file, self.places = h5py.File(path, "r"), places
        self.columns = {name: self.file[f"events/{name}"] for name in TYPES}
        self.index = self.file["ms_to_idx"][:].astype(np.int64)
        self.offset = int(self.file["t_offset"][()])

    def read(self, t0: int, t1: int) -> tuple[np.ndarray, ...]:
        """Columns x, y, t, p of the window, t in µs on the images' clock."""
        t0, t1 = t0 - self.offset, t1 - self.offset
        a, b = int(self.index[t0 // 1000]), int(self.index[-(-t1 // 1000)])
        t = self.columns["t"][a:b]
        first, last = (int(i) for i in np.searchsorted(t, np.array([t0, t1], t.dtype)))
        x, y, p = (self.columns[name][a + first : a + last] for name in "xyp")
        return x, y, t[first:last].astype(np.int64) + self.offset, p

    def grid(self, x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray, bins: int) -> np.ndarray:
        """The normalised voxel grid of the events, rectified when there are places."""
        since = (t - t[0]).astype(np.float32)
        if self.places is None:
            u, v = (torch.from_numpy(c.astype(np.float32)) for c in (x, y))
        else:
            u, v = torch.from_numpy(self.places[y, x]).unbind(1)
        sign = 2 * torch.from_numpy(p.astype(np.float32)) - 1
        at = torch.from_numpy(since / since[-1]) * (bins - 1)
        grid = torch.zeros(bins, HEIGHT, WIDTH)
        column, row, plane = u.int(), v.int(), at.int()
        for i in (column, column + 1):
            for j in (row, row + 1):
                for k in (plane, plane + 1):
                    inside = (i >= 0) & (i < WIDTH) & (j >= 0) & (j < HEIGHT) & (k >= 0) & (k < bins)
                    share = sign * (1 - (i - u).abs()) * (1 - (j - v).abs()) * (1 - (k - at).abs())
                    cell = (k.long() * HEIGHT + j.long()) * WIDTH + i.long()
                    grid.put_(cell[inside], share[inside], accumulate=True)
        filled = torch.nonzero(grid, as_tuple=True)
        mean, deviation = grid[filled].mean(), grid[filled].std()
        grid[filled] = (grid[filled] - mean) / deviation
        return grid.numpy()


def second(streams: ModuleType, k: int) -> tuple[np.ndarray, ...]:
    """Second k of the recording: columns x, y, t in µs from its start, p."""
    x, y, p, t = streams.stream(WIDTH, HEIGHT, RATE, seed=k)
    return x, y, t + k * 1_000_000, p


def write(path: Path, seconds: list[tuple[np.ndarray, ...]], shuffle: int, rows: int | None) -> Path:
    """An events.h5 of these events."""
    with h5py.File(path, "w") as file:
        for k, name in enumerate("xytp"):
            options = {
                **hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=shuffle),
                "chunks": True if rows is None else (rows,),
            }
            column = file.create_dataset(f"events/{name}", (65536,), TYPES[name], maxshape=(None,), **options)
            column.resize((sum(len(part[k]) for part in seconds),))
            start = 0
            for part in seconds:
                column[start : start + len(part[k])] = part[k]
                start += len(part[k])
        times = np.concatenate([part[2] for part in seconds])
        file["ms_to_idx"] = np.searchsorted(times, np.arange(len(seconds) * 1000 + 1) * 1000).astype(np.uint64)
        file["t_offset"] = np.int64(OFFSET)
    return path


def lens() -> np.ndarray:
    """A rectify_map, float32 [H, W, 2]: a distortion undone, to places inside the picture.

    Inside, because DSEC's code rounds towards 0, which gives places between -1 and 0 weights below 0.
    """
    x, y = np.meshgrid(np.arange(WIDTH) - WIDTH / 2, np.arange(HEIGHT) - HEIGHT / 2)
    shrink = 0.99 - 0.1 * (x**2 + y**2) / (WIDTH / 2) ** 2
    return np.stack([x * shrink + WIDTH / 2, y * shrink + HEIGHT / 2], axis=-1).astype(np.float32)


if __name__ == "__main__":
    main()
