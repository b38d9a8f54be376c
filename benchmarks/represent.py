"""Every representation against plain C, one thread: from columns, from packed words, and from a recording's window.

    python benchmarks/represent.py                    # needs gcc, and the yardstick in ../shared/bench
    python benchmarks/represent.py --bench DIR --repeats 41

DIR holds the yardstick, as for voxel.py: ``plain.c`` has the voxel grid and the histogram; the loops that anyone would
write first for a grid bilinear in space and for a time surface are below. The contestants of a task take turns within
every repeat and are timed by the processor time of the thread; the ratio is that of the medians. Whatever is timed has
first been compared with the definition in float64.

The last table reads windows of 50 ms at random times of a one-second recording and makes voxel grids of them: packed
words, against columns in memory-mapped .npy files and the yardstick's loop.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from voxel import DURATION_US, STREAMS, compile_plain, interleaved, load_streams, processor, reference

from evlift.events import Events, write_recording
from evlift.represent import Histogram, TimeSurface, VoxelGrid, rectify

VOXEL_BINS, HISTOGRAM_BINS, DECAY_US = 5, 10, 20_000
TURN = 8  # windows a turn
Fill = Callable[[], object]

FIRST_LOOPS = r"""
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Voxel grid bilinear in time and space; places: x and y of every raw pixel.
void voxel_in_space(const uint16_t *x, const uint16_t *y, const uint8_t *p, const int64_t *t, int64_t n,
                    int C, int H, int W, float *out, const float *places) {
  size_t hw = (size_t)H * W;
  memset(out, 0, sizeof(float) * C * hw);
  if (!n) return;
  double span = (double)(t[n - 1] - t[0]);
  float scale = span > 0 ? (float)((C - 1) / span) : 0.f;
  for (int64_t i = 0; i < n; i++) {
    const float *place = places + 2 * ((size_t)y[i] * W + x[i]);
    float at = (float)(t[i] - t[0]) * scale, v = p[i] ? 1.f : -1.f;
    int b = (int)at, c0 = (int)floorf(place[0]), r0 = (int)floorf(place[1]);
    float wb[2] = {1 - (at - b), at - b}, wc[2] = {1 - (place[0] - c0), place[0] - c0};
    float wr[2] = {1 - (place[1] - r0), place[1] - r0};
    for (int k = 0; k < 2; k++)
      for (int r = 0; r < 2; r++)
        for (int c = 0; c < 2; c++)
          if (b + k < C && r0 + r >= 0 && r0 + r < H && c0 + c >= 0 && c0 + c < W)
            out[(b + k) * hw + (size_t)(r0 + r) * W + c0 + c] += v * wb[k] * wr[r] * wc[c];
  }
}

// Time surface, OFF then ON.
void surface(const uint16_t *x, const uint16_t *y, const uint8_t *p, const int64_t *t, int64_t n,
             int C, int H, int W, float *out, const float *decay) {
  size_t hw = (size_t)H * W;
  int64_t *last = malloc(sizeof(int64_t) * 2 * hw);
  for (size_t i = 0; i < 2 * hw; i++) last[i] = INT64_MIN;
  for (int64_t i = 0; i < n; i++) last[(p[i] != 0) * hw + (size_t)y[i] * W + x[i]] = t[i];
  for (size_t i = 0; i < 2 * hw; i++) out[i] = last[i] == INT64_MIN ? 0.f : expf((last[i] - t[n - 1]) / *decay);
  free(last);
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--bench", type=Path, default=here.parent / "shared" / "bench", help="folder of the yardstick")
    parser.add_argument("--repeats", type=int, default=21)
    args = parser.parse_args()
    for name in ("plain.c", "streams.py"):
        if not (args.bench / name).is_file():
            sys.exit(f"represent.py: {args.bench / name} is missing; give the yardstick's folder with --bench DIR")

    streams = load_streams(args.bench / "streams.py")
    print(f"{processor()}, {os.cpu_count()} cores; {platform.python_implementation()} {platform.python_version()}")
    print(f"{args.repeats} interleaved repeats, medians of processor time, one thread\n")
    with tempfile.TemporaryDirectory() as folder:
        plain_voxel = compile_plain(args.bench / "plain.c", Path(folder))
        plain_histogram = bind(Path(folder) / "libplain.so", "histogram")
        source = Path(folder) / "first.c"
        source.write_text(FIRST_LOOPS)
        library = Path(folder) / "libfirst.so"
        command = ["gcc", "-O3", "-march=native", "-shared", "-fPIC", str(source), "-o", str(library), "-lm"]
        subprocess.run(command, check=True)
        plain_space, plain_surface = bind(library, "voxel_in_space"), bind(library, "surface")

        print("| representation | stream | contestant | ms | M events/s | × plain C | off by at most |")
        print("|---|---|---|---|---|---|---|")
        for name, (width, height, count) in STREAMS.items():
            columns = streams.stream(width, height, count, duration_us=DURATION_US)
            x, y, p, t = columns
            events = Events(x, y, t, p, height, width)
            window = write_recording(Path(folder) / name, events).window(0, DURATION_US)
            grid, histogram, surface = VoxelGrid(VOXEL_BINS), Histogram(HISTOGRAM_BINS, None), TimeSurface(DECAY_US)

            out = np.empty((VOXEL_BINS, height, width), np.float32)
            voxel = {
                "plain C": lambda c=columns, o=out: plain_voxel(*c, o),
                "evlift, columns": lambda e=events, o=out, r=grid: r(e, out=o),
                "evlift, packed words": lambda w=window, o=out, r=grid: r(w, out=o),
            }
            compare(f"voxel grid, {VOXEL_BINS} bins", name, voxel, out, reference(*columns, out.shape), args.repeats)

            out = np.empty((2 * HISTOGRAM_BINS, height, width), np.float32)
            counts = {
                "plain C": lambda c=columns, o=out, b=HISTOGRAM_BINS: plain_histogram(*c, b, o),
                "evlift, columns": lambda e=events, o=out, r=histogram: r(e, out=o),
                "evlift, packed words": lambda w=window, o=out, r=histogram: r(w, out=o),
            }
            task = f"histogram, 2×{HISTOGRAM_BINS}"
            compare(task, name, counts, out, histogram_reference(*columns, out.shape), args.repeats)

            out, raw = (np.empty((VOXEL_BINS, height, width), np.float32) for _ in range(2))
            places = lens(height, width)
            space = {
                "plain C": lambda c=columns, o=out, m=places: plain_space(*c, VOXEL_BINS, o, m),
                "evlift, columns": lambda e=events, o=out, r=grid, a=raw, m=places: rectify(r(e, out=a), m, out=o),
                "evlift, packed words": lambda w=window, o=out, r=grid, a=raw, m=places: rectify(r(w, out=a), m, out=o),
            }
            task = f"voxel grid, {VOXEL_BINS} bins, bilinear in space"
            compare(task, name, space, out, space_reference(*columns, places, out.shape), args.repeats)

            out, decay = np.empty((2, height, width), np.float32), np.array([DECAY_US], np.float32)
            last = {
                "plain C": lambda c=columns, o=out, d=decay: plain_surface(*c, 2, o, d),
                "evlift, columns": lambda e=events, o=out, r=surface: r(e, out=o),
                "evlift, packed words": lambda w=window, o=out, r=surface: r(w, out=o),
            }
            compare("time surface", name, last, out, surface_reference(*columns, out.shape), args.repeats)
        windows(streams, plain_voxel, Path(folder), args.repeats)


def compare(task: str, stream: str, contestants: dict[str, Fill], out: np.ndarray, expected: np.ndarray, repeats: int):
    """Check every contestant against the definition, then time them all and print their rows."""
    error = {}
    for label, fill in contestants.items():
        out.fill(np.nan)
        fill()
        error[label] = float(np.abs(out - expected).max())
        if not np.allclose(out, expected, rtol=1e-5, atol=2e-4):
            sys.exit(f"represent.py: {label} is wrong by up to {error[label]:.3g} ({task}, {stream}); not timed")
    times = interleaved(contestants, repeats)
    count = STREAMS[stream][2]
    for label, seconds in times.items():
        cells = f"{stream} {count / 1e6:g}M | {label} | {seconds * 1e3:.2f} | {count / seconds / 1e6:.0f}"
        print(f"| {task} | {cells} | {times['plain C'] / seconds:.2f} | {error[label]:.1e} |", flush=True)


def windows(streams, plain: Callable[..., None], folder: Path, repeats: int) -> None:
    """Windows a second from a recording of one second, VGA: read and voxelise."""
    width, height, per_window = STREAMS["VGA"]
    count = per_window * 1_000_000 // DURATION_US
    columns = dict(zip("xypt", streams.stream(width, height, count), strict=True))
    recording = write_recording(folder / "second", Events(**columns, height=height, width=width))
    for name, column in columns.items():
        np.save(folder / f"{name}.npy", column)
    x, y, p, t = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xypt")
    out, grid = np.empty((VOXEL_BINS, height, width), np.float32), VoxelGrid(VOXEL_BINS)
    rng = np.random.default_rng(0)

    def from_columns(t0: int) -> None:
        a, b = np.searchsorted(t, (t0, t0 + DURATION_US))
        plain(x[a:b], y[a:b], p[a:b], t[a:b], out)

    def from_words(t0: int) -> None:
        grid(recording.window(t0, t0 + DURATION_US), out=out)

    # Each reads TURN windows before the other does: alternating by the window, each would find the other's data in the
    # caches, which a loader does not.
    contestants = {"columns in .npy, plain C": from_columns, "packed words, evlift": from_words}
    times: dict[str, list[float]] = {label: [] for label in contestants}
    for _ in range(repeats):
        starts = [int(t0) for t0 in rng.integers(0, 1_000_000 - DURATION_US, TURN)]
        made = []
        for label, read in contestants.items():
            begin = time.thread_time()
            for t0 in starts:
                read(t0)
            times[label].append((time.thread_time() - begin) / TURN)
            made.append(out.copy())
        if not np.allclose(*made, rtol=1e-5, atol=2e-4):
            sys.exit("represent.py: the window of words gives another grid than the columns; not timed")
    print(f"\n| VGA window of {DURATION_US // 1000} ms to {VOXEL_BINS} bins | windows/s a core | × |\n|---|---|---|")
    base = np.median(times["columns in .npy, plain C"])
    for label, seconds in times.items():
        print(f"| {label} | {1 / np.median(seconds):.0f} | {base / np.median(seconds):.2f} |")


def bind(library: Path, name: str) -> Callable[..., None]:
    """A loop of a library as a function of columns, bins, output and one more array where it takes one."""
    function = getattr(ctypes.CDLL(str(library)), name)
    function.restype = None
    pointer, number = ctypes.c_void_p, ctypes.c_int
    function.argtypes = [pointer, pointer, pointer, pointer, ctypes.c_int64, number, number, number, pointer]

    def call(x, y, p, t, bins: int, out: np.ndarray, *more: np.ndarray) -> None:
        pointers = [pointer(array.ctypes.data) for array in more]
        arrays = (array.ctypes.data for array in (x, y, p, t))
        function(*arrays, len(t), bins, *out.shape[1:], out.ctypes.data, *pointers)

    return call


def lens(height: int, width: int) -> np.ndarray:
    """Rectified places as of a wide lens: x and y of every pixel, float32 [H, W, 2]."""
    y, x = np.mgrid[:height, :width]
    dx, dy = (x - width / 2) / width, (y - height / 2) / width
    grow = 1 + 0.2 * (dx**2 + dy**2)
    return np.stack([width / 2 + dx * grow * width, height / 2 + dy * grow * width], -1).astype(np.float32)


def histogram_reference(x, y, p, t, shape: tuple[int, ...]) -> np.ndarray:
    channels, height, width = shape
    bins = channels // 2
    k = np.minimum((t - t[0]) * bins // max(int(t[-1] - t[0]), 1), bins - 1)
    cell = ((p.astype(np.int64) * bins + k) * height + y) * width + x
    return np.bincount(cell, minlength=channels * height * width).reshape(shape).astype(float)


def space_reference(x, y, p, t, places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    bins, height, width = shape
    at = (t - t[0]) * ((bins - 1) / max(int(t[-1] - t[0]), 1))
    place = places[y, x].astype(float)
    grid = np.zeros(bins * height * width)
    low, left, top = (np.floor(a).astype(np.int64) for a in (at, place[:, 0], place[:, 1]))
    for corner in range(8):
        k, r, c = low + (corner & 1), top + (corner >> 1 & 1), left + (corner >> 2)
        share = (1 - abs(k - at)) * (1 - abs(r - place[:, 1])) * (1 - abs(c - place[:, 0])) * np.where(p, 1.0, -1.0)
        inside = (k < bins) & (r >= 0) & (r < height) & (c >= 0) & (c < width)
        grid += np.bincount(((k * height + r) * width + c)[inside], share[inside], grid.size)
    return grid.reshape(shape)


def surface_reference(x, y, p, t, shape: tuple[int, ...]) -> np.ndarray:
    age = np.full(shape, np.inf)
    age[p.astype(int), y, x] = t[-1] - t  # of repeated places NumPy keeps the last
    return np.exp(-age / DECAY_US)


if __name__ == "__main__":
    main()
