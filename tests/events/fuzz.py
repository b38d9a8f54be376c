"""Damaged recordings by the thousand: every binary reader against truncated, bit-flipped and spliced files.

    python tests/events/fuzz.py --count 100000 --seed 1            # a longer run by hand; prints a table
    python tests/events/fuzz.py --format aedat4 --count 20000

Each input is a small sound recording of one format, damaged in one of five ways. Reading it, events and images, must
end in the good events (damage that can be told is counted) or in one of evlift's errors; never in another exception, a
crash, more than a second a megabyte (two seconds at least: the machine may be busy), or memory beyond 20 times the file
plus a fixed working memory. Of a file that is cut short, what is read must be what the whole file begins with.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import struct
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evlift.errors import EvliftError
from evlift.events import FileRecording
from evlift.events.readers import Problems, Stated

HERE = Path(__file__).resolve().parent
WORKING_BYTES = 96 << 20
"""Chunks, decode buffers and libraries' caches that do not grow with the file."""


def writers(name: str) -> Any:
    """The module of tests of one reader, for its writer."""
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", HERE / "readers" / f"test_{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def evt3(path: Path, rng: np.random.Generator) -> Path:
    words = []
    for us in np.sort(rng.integers(0, 9000, 300)).tolist():
        words += [0x8000 | us >> 12, 0x6000 | us & 0xFFF, int(rng.integers(0, 480))]
        if rng.random() < 0.3:
            words += [0x3000 | int(rng.integers(0, 608)), 0x4000 | int(rng.integers(0, 4096)), 0x5000 | 0x0F]
        words += [0x2000 | int(rng.integers(0, 2)) << 11 | int(rng.integers(0, 640))]
    head = b"% evt 3.0\n% format EVT3;height=480;width=640\n% end\n"
    path.write_bytes(head + np.array(words, "<u2").tobytes())
    return path


def evt2(path: Path, rng: np.random.Generator) -> Path:
    words = []
    for us in np.sort(rng.integers(0, 900, 300)).tolist():
        words.append(8 << 28 | us >> 6)
        words.append(
            int(rng.integers(0, 2)) << 28
            | (us & 63) << 22
            | int(rng.integers(0, 640)) << 11
            | int(rng.integers(0, 480))
        )
    head = b"% evt 2.0\n% format EVT2;height=480;width=640\n% end\n"
    path.write_bytes(head + np.array(words, "<u4").tobytes())
    return path


def evt21(path: Path, rng: np.random.Generator) -> Path:
    words = []
    for us in np.sort(rng.integers(0, 900, 200)).tolist():
        words.append(8 << 60 | (us >> 6) << 32)
        x, y = int(rng.integers(0, 20)) * 32, int(rng.integers(0, 480))
        words.append(
            int(rng.integers(0, 2)) << 60 | (us & 63) << 54 | x << 43 | y << 32 | int(rng.integers(0, 1 << 32))
        )
    head = b"% evt 2.1\n% format EVT21;height=480;width=640;endianness=little\n% end\n"
    path.write_bytes(head + np.array(words, "<u8").tobytes())
    return path


def dat(path: Path, rng: np.random.Generator) -> Path:
    data = np.empty((400, 2), "<u4")
    data[:, 0] = np.sort(rng.integers(0, 50_000, 400))
    data[:, 1] = rng.integers(0, 640, 400) | rng.integers(0, 480, 400) << 14 | rng.integers(0, 2, 400) << 28
    path.write_bytes(b"% Version 2\n% Height 480\n% Width 640\n\x0c\x08" + data.tobytes())
    return path


def aedat4(path: Path, rng: np.random.Generator, compression: str = "lz4") -> Path:
    writers("aedat4").write_events(path, 500, packet=100, seed=int(rng.integers(1000)), compression=compression)
    return path


def aedat2(path: Path, rng: np.random.Generator) -> Path:
    module, t = writers("aedat"), 0
    records = []
    for _ in range(400):
        t += int(rng.integers(0, 50))
        where = int(rng.integers(0, 240)), int(rng.integers(0, 180)), int(rng.integers(0, 2))
        records.append((module.address(*where, 180, 240, True), t))
    return module.write_aedat2(path, records, module.chip_header("eu.seebetter.ini.chips.davis.DAVIS240C"))


def aedat3(path: Path, rng: np.random.Generator) -> Path:
    module, packets = writers("aedat"), []
    for k in range(6):
        t = np.sort(rng.integers(0, 1000, 60)) + 1000 * k
        events = [(int(a), int(rng.integers(0, 128)), int(rng.integers(0, 128)), int(rng.integers(0, 2))) for a in t]
        packets.append(module.polarity(events))
    return module.write_aedat3(path, packets)[0]


def es(path: Path, rng: np.random.Generator) -> Path:
    module = writers("event_stream")
    t = np.cumsum(rng.integers(0, 300, 400)).tolist()
    x, y, p = (rng.integers(0, n, 400).tolist() for n in (320, 240, 2))
    path.write_bytes(module.header() + module.write_dvs(t, x, y, p, 240))
    return path


def atis(path: Path, rng: np.random.Generator) -> Path:
    out = bytearray()
    for t in np.sort(rng.integers(0, 300_000, 400)).tolist():
        x, y, p = int(rng.integers(0, 34)), int(rng.integers(0, 34)), int(rng.integers(0, 2))
        out += struct.pack(">BB", x, y) + (p << 23 | t).to_bytes(3, "big")
    path.write_bytes(out)
    return path


def npz(path: Path, rng: np.random.Generator) -> Path:
    t = np.sort(rng.integers(0, 50_000, 300))
    np.savez(path, x=rng.integers(0, 64, 300), y=rng.integers(0, 48, 300), t_us=t, p=rng.integers(0, 2, 300))
    return path


def npy(path: Path, rng: np.random.Generator) -> Path:
    rows = np.zeros(300, [("t_us", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "?")])
    rows["t_us"], rows["x"] = np.sort(rng.integers(0, 50_000, 300)), rng.integers(0, 64, 300)
    np.save(path, rows)
    return path


def bag(path: Path, rng: np.random.Generator) -> Path:
    return _bag(path, rng, "bag")


def mcap(path: Path, rng: np.random.Generator) -> Path:
    return next(_bag(path.with_suffix(""), rng, "mcap").glob("*.mcap"))


def _bag(path: Path, rng: np.random.Generator, container: str) -> Path:
    module = writers("rosbag")
    ros, t = module.Ros(container == "bag"), 1_600_000_000_000_000_000
    messages = []
    for _ in range(4):
        events = []
        for _ in range(30):
            t += int(rng.integers(0, 100_000))
            events.append((int(rng.integers(0, 640)), int(rng.integers(0, 480)), t, bool(rng.integers(0, 2))))
        messages.append(("/dvs/events", t, ros.dvs(events, stamp=t)))
        messages.append(("/dvs/image_raw", t, ros.image(bytes(range(12)), 3, 4, "mono8", 4, stamp=t)))
    return module.write_bag(path, container, messages)


def dsec(path: Path, rng: np.random.Generator) -> Path:
    module = writers("dsec")
    return module.write(path, module.made(2000, 0.05, int(rng.integers(1000))), chunk=512)


def mvsec(path: Path, rng: np.random.Generator) -> Path:
    writers("mvsec").write(path, 1100, int(rng.integers(1000)), sides=("left",))
    return path


def ddd(path: Path, rng: np.random.Generator) -> Path:
    module, packets = writers("ddd"), []
    for k in range(6):
        t = np.sort(rng.integers(0, 1000, 60)) + 1000 * k
        events = [(int(a), int(rng.integers(0, 346)), int(rng.integers(0, 260)), int(rng.integers(0, 2))) for a in t]
        packets.append(module.polarity(events))
    return module.write(path, packets, spare=4)


SEEDS: dict[str, tuple[str, Callable[..., Path]]] = {
    # format → (file suffix, writer of a small sound recording)
    "evt2": (".raw", evt2),
    "evt21": (".raw", evt21),
    "evt3": (".raw", evt3),
    "dat": (".dat", dat),
    "aedat4": (".aedat4", aedat4),
    "aedat2": (".aedat", aedat2),
    "aedat3": (".aedat", aedat3),
    "es": (".es", es),
    "atis": (".bin", atis),
    "npy": (".npy", npy),
    "npz": (".npz", npz),
    "rosbag1": (".bag", bag),
    "mcap": (".mcap", mcap),
    "dsec": (".h5", dsec),
    "mvsec": (".hdf5", mvsec),
    "ddd": (".hdf5", ddd),
}
SILENT = {"atis", "npy", "npz"}
"""Formats that do not say how large the sensor is."""
LIBRARIES = {"rosbag1", "mcap", "dsec", "mvsec", "ddd", "npz"}
"""Formats that a library takes apart: slower, and a cut file may be refused rather than read as far as it goes."""


def damage(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """One of five ways, and what came of it."""
    how = ("cut", "flip", "burst", "splice", "swap")[rng.integers(0, 5)]
    n = len(data)
    if how == "cut":
        return how, data[: int(rng.integers(0, n))]
    changed = bytearray(data)
    if how == "flip":
        for _ in range(int(rng.integers(1, 9))):
            changed[int(rng.integers(0, n))] ^= 1 << int(rng.integers(0, 8))
    elif how == "burst":
        a = int(rng.integers(0, n))
        b = min(n, a + int(rng.integers(1, 64)))
        changed[a:b] = rng.bytes(b - a) if rng.random() < 0.7 else bytes([int(rng.choice([0, 255]))]) * (b - a)
    elif how == "splice":  # a stretch is lost, or comes twice
        a, b = sorted(int(v) for v in rng.integers(0, n, 2))
        changed = changed[:a] + changed[b:] if rng.random() < 0.5 else changed[:b] + changed[a:]
    else:
        a, b = (int(v) for v in rng.integers(0, n, 2))
        m = min(int(rng.integers(1, 256)), n - max(a, b))
        changed[a : a + m], changed[b : b + m] = changed[b : b + m], changed[a : a + m]
    return how, bytes(changed)


def read(path: Path, format: str) -> tuple[list[np.ndarray], list[str]]:
    """Events (x, y, t, p) and problems; images are decoded and let go."""
    problems = Problems()
    recording = FileRecording(path, Stated(format=format, size=(48, 64) if format in SILENT else None))
    parts = [[e.x, e.y, e.t, e.p] for e in recording.chunks(problems=problems)]
    for _ in recording.images(problems):
        pass
    return [np.concatenate(c) for c in zip(*parts, strict=True)] if parts else [np.zeros(0)] * 4, problems.lines()


def one(path: Path, format: str, seed: bytes, sound: list[np.ndarray], rng: np.random.Generator, traced: bool) -> str:
    """Damage, read, judge: what became of it. Raises AssertionError on what must not be."""
    how, data = damage(seed, rng)
    path.write_bytes(data)
    if traced:
        tracemalloc.start()
    began = time.perf_counter()
    try:
        events, problems = read(path, format)
        outcome = "told" if problems else "read"
    except EvliftError as error:
        assert "\n" not in str(error), "an error of more than one line"
        return "refused"
    finally:
        seconds = time.perf_counter() - began
        peak = tracemalloc.get_traced_memory()[1] if traced else 0
        if traced:
            tracemalloc.stop()
        else:
            assert seconds < max(0.5, len(data) / 1e6) * 4, f"{seconds:.1f} s for {len(data)} bytes"
        assert peak < 20 * len(data) + WORKING_BYTES, f"{peak >> 20} MiB for {len(data)} bytes"
    if how == "cut" and format not in LIBRARIES:
        kept = len(events[2])
        assert kept <= len(sound[2])
        assert all(np.array_equal(a, b[:kept]) for a, b in zip(events, sound, strict=True)), "not the file's beginning"
    return outcome


def fuzz(format: str, count: int, seed: int, folder: Path, traced_share: float = 0.02) -> Counter[str]:
    """`count` damaged recordings of one format; how many were read, told of damage, or refused.

    A failure raises, and leaves the input in `folder`/failed with the number that makes it again.
    """
    suffix, write = SEEDS[format]
    rng = np.random.default_rng([seed, sorted(SEEDS).index(format)])
    path = folder / f"damaged{suffix}"
    outcomes: Counter[str] = Counter()
    data, sound = b"", []
    for number in range(count):
        if number % 500 == 0:
            whole = folder / f"sound{suffix}"
            shutil.rmtree(whole.with_suffix(""), ignore_errors=True)
            whole.unlink(missing_ok=True)
            whole = write(whole, rng)
            data, (sound, problems) = whole.read_bytes(), read(whole, format)
            assert len(sound[2]) and all("duplicate" in line for line in problems), (format, problems)
        try:
            outcomes[one(path, format, data, sound, rng, rng.random() < traced_share)] += 1
        except Exception as error:
            failed = folder / "failed" / f"{format}-{seed}-{number}{suffix}"
            failed.parent.mkdir(exist_ok=True)
            shutil.copy(path, failed)
            raise AssertionError(f"{format}, seed {seed}, input {number} ({failed}): {error!r}") from error
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="inputs over all formats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=list(SEEDS), action="append", help="only this one; may be given again")
    parser.add_argument("--keep", type=Path, default=None, help="folder to work in, which keeps inputs that failed")
    args = parser.parse_args()
    names = args.format or list(SEEDS)
    print("| format | inputs | read without a word | read, damage told | refused | s |\n|---|---|---|---|---|---|")
    failures = []
    with tempfile.TemporaryDirectory() as made:
        folder = args.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            began = time.perf_counter()
            try:
                found = fuzz(name, args.count // len(names), args.seed, folder)
            except AssertionError as error:
                failures.append(str(error))
                print(f"| {name} | failed | | | | |", flush=True)
                continue
            cells = [str(found[key]) for key in ("read", "told", "refused")]
            print(f"| {name} | {found.total()} | {' | '.join(cells)} | {time.perf_counter() - began:.0f} |", flush=True)
    sys.exit("\n".join(failures) or 0)


if __name__ == "__main__":
    main()
