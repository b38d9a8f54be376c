"""Voxel grids a second: evlift's kernel, from columns and from packed words, against plain C. One thread.

    python benchmarks/voxel.py                        # needs gcc, and the yardstick in ../shared/bench
    python benchmarks/voxel.py --bench DIR --repeats 41 --bins 5

DIR holds the yardstick: ``plain.c`` (the loop anyone would write first, compiled here with gcc -O3 -march=native) and
``streams.py`` (seeded synthetic streams). All contestants fill a buffer made beforehand. They take turns within every
repeat, so that a busy machine slows all alike, and are timed by the processor time of the thread, which leaves out the
turns of other programs; the ratio is that of the medians. Every grid is first compared with the definition in float64:
a fast wrong kernel is no contestant.
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
from types import ModuleType

import numpy as np

from evlift.events import Events, write_recording
from evlift.represent import VoxelGrid

STREAMS = {"VGA": (640, 480, 600_000), "HD": (1280, 720, 2_000_000)}  # width, height, events in 50 ms
DURATION_US = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--bench", type=Path, default=here.parent / "shared" / "bench", help="folder of the yardstick")
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--bins", type=int, default=5)
    args = parser.parse_args()
    for name in ("plain.c", "streams.py"):
        if not (args.bench / name).is_file():
            sys.exit(f"voxel.py: {args.bench / name} is missing; give the yardstick's folder with --bench DIR")

    with tempfile.TemporaryDirectory() as folder:
        plain = compile_plain(args.bench / "plain.c", Path(folder))
        streams = load_streams(args.bench / "streams.py")
        print(f"{processor()}, {os.cpu_count()} cores; {platform.python_implementation()} {platform.python_version()}")
        print(f"{args.bins} bins, {args.repeats} interleaved repeats, medians of processor time, one thread\n")
        print("| stream | contestant | ms | M events/s | × plain C | off by at most |")
        print("|---|---|---|---|---|---|")
        for name, (width, height, count) in STREAMS.items():
            x, y, p, t = streams.stream(width, height, count, duration_us=DURATION_US)
            events = Events(x, y, t, p, height, width)
            window = write_recording(Path(folder) / name, events).window(0, DURATION_US)
            out = np.empty((args.bins, height, width), np.float32)
            grid = VoxelGrid(args.bins)
            contestants: dict[str, Callable[[], object]] = {
                "plain C": lambda x=x, y=y, p=p, t=t, out=out: plain(x, y, p, t, out),
                "evlift, columns": lambda events=events, out=out, grid=grid: grid(events, out=out),
                "evlift, packed words": lambda window=window, out=out, grid=grid: grid(window, out=out),
            }
            expected = reference(x, y, p, t, out.shape)
            error = {}
            for label, fill in contestants.items():
                out.fill(np.nan)
                fill()
                error[label] = float(np.abs(out - expected).max())
                if not np.allclose(out, expected, rtol=1e-5, atol=1e-4):
                    sys.exit(f"voxel.py: {label} is wrong by up to {error[label]:.3g} on {name}; not timed")
            times = interleaved(contestants, args.repeats)
            base = times["plain C"]
            for label, seconds in times.items():
                cells = f"{name} {count / 1e6:g}M | {label} | {seconds * 1e3:.2f} | {count / seconds / 1e6:.0f}"
                print(f"| {cells} | {base / seconds:.2f} | {error[label]:.1e} |")


def interleaved(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median processor seconds of each, one call of every contestant a repeat."""
    times: dict[str, list[float]] = {label: [] for label in contestants}
    for _ in range(repeats):
        for label, fill in contestants.items():
            start = time.thread_time()
            fill()
            times[label].append(time.thread_time() - start)
    return {label: float(np.median(values)) for label, values in times.items()}


def reference(x: np.ndarray, y: np.ndarray, p: np.ndarray, t: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The definition in float64, by bincount."""
    bins, height, width = shape
    at = (t - t[0]) * ((bins - 1) / max(int(t[-1] - t[0]), 1))
    low = np.floor(at).astype(np.int64)
    share, sign = at - low, np.where(p, 1.0, -1.0)
    cell = (low * height + y) * width + x
    size = (bins + 1) * height * width  # the last event's upper share, which is 0, falls into one plane too many
    grid = np.bincount(cell, sign * (1 - share), size) + np.bincount(cell + height * width, sign * share, size)
    return grid[: bins * height * width].reshape(shape)


def compile_plain(source: Path, folder: Path) -> Callable[..., None]:
    """The yardstick's voxel(), as a function of columns and output."""
    library = folder / "libplain.so"
    command = ["gcc", "-O3", "-march=native", "-shared", "-fPIC", str(source), "-o", str(library)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("voxel.py: gcc is not installed; install it, the yardstick is C")
    except subprocess.CalledProcessError as e:
        sys.exit(f"voxel.py: gcc cannot compile {source}: {e.stderr.strip().splitlines()[0]}")
    voxel = ctypes.CDLL(str(library)).voxel
    voxel.restype = None
    pointer, number = ctypes.c_void_p, ctypes.c_int
    voxel.argtypes = [pointer, pointer, pointer, pointer, ctypes.c_int64, number, number, number, pointer]

    def plain(x: np.ndarray, y: np.ndarray, p: np.ndarray, t: np.ndarray, out: np.ndarray) -> None:
        voxel(x.ctypes.data, y.ctypes.data, p.ctypes.data, t.ctypes.data, len(t), *out.shape, out.ctypes.data)

    return plain


def load_streams(path: Path) -> ModuleType:
    """The module that makes the streams; nothing is written beside it."""
    module = ModuleType("streams")
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    return module


def processor() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
