"""Events decoded a second: evlift's readers against other libraries on the same files. One thread.

    python benchmarks/decode.py                       # all formats, real recordings of ../shared/data
    python benchmarks/decode.py evt3 dat --repeats 21 --data DIR

DIR holds the recordings (its ``formats`` folder is read). Each file is also made longer: what it holds is repeated with
the clock moved on. Every contestant starts at the path of a file that lies in the system's memory and ends with columns
x, y, t, p; "in pieces" means that they are let go piece by piece, as who streams does, else all are kept. They take
turns within every repeat, in any order, so that a busy machine slows all alike, and are timed by the processor time of
the process, so that threads are no advantage; the ratio is to the best peer that is right. What is right is a plain
loop over the words by the specification, here in Python. Libraries that are not installed are left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from voxel import processor

Contestant = Callable[[Path], Iterable[Any]]  # the path of a file → pieces; `gather` knows their names


@dataclass(frozen=True)
class Contest:
    """One file: what must come out (x, y, t, p), or None where the contestants judge each other, and who takes part."""

    name: str
    path: Path
    expected: tuple[np.ndarray, ...] | None
    contestants: dict[str, Contestant]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("formats", nargs="*", default=list(CONTESTS), help=f"of {', '.join(CONTESTS)}")
    parser.add_argument("--data", type=Path, default=here.parent / "shared" / "data", help="folder of the recordings")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    if unknown := set(args.formats) - set(CONTESTS):
        sys.exit(f"decode.py: there is no format {min(unknown)}; choose from {', '.join(CONTESTS)}")
    print(f"{processor()}, {os.cpu_count()} cores; {platform.python_implementation()} {platform.python_version()}")
    print(f"{args.repeats} interleaved repeats, medians of processor time\n")
    print("| file | events | contestant | M events/s | × best right peer | values |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.formats:
            for contest in CONTESTS[name](args.data, Path(folder)):
                run(contest, args.repeats)


def run(contest: Contest, repeats: int) -> None:
    """Check, time and print one table's part."""
    found = {label: gather(read(contest.path)) for label, read in contest.contestants.items()}
    expected = contest.expected or next(iter(found.values()))
    verdicts = {label: judge(columns, expected) for label, columns in found.items()}
    del found
    times = interleaved(contest, repeats)
    right = [seconds for label, seconds in times.items() if not verdicts[label] and not label.startswith("evlift")]
    for label, seconds in times.items():
        ratio = f"{min(right) / seconds:.2f}" if right and not verdicts[label] else "–"
        rate = f"{len(expected[0]) / seconds / 1e6:.0f}"
        cells = f"{contest.name} | {len(expected[0]):,} | {label} | {rate} | {ratio} | {verdicts[label] or 'right'}"
        print(f"| {cells} |", flush=True)


def gather(pieces: Iterable[Any]) -> tuple[np.ndarray, ...]:
    """x, y, t, p of all pieces as int64, whatever the library calls them."""
    names = (("x",), ("y",), ("t", "timestamp"), ("p", "polarity", "on"))
    parts: list[list[np.ndarray]] = [[], [], [], []]
    for piece in pieces:
        for part, aliases in zip(parts, names, strict=True):
            fields = getattr(getattr(piece, "dtype", None), "names", None)
            values = (piece[a] if fields else getattr(piece, a) for a in aliases if a in (fields or dir(piece)))
            part.append(np.asarray(next(values)).astype(np.int64))
    return tuple(np.concatenate(part) if part else np.zeros(0, np.int64) for part in parts)


def judge(columns: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> str:
    """What is wrong, or "" where nothing is."""
    if len(columns[0]) != len(expected[0]):
        return f"wrong: {len(columns[0]):,} events"
    wrong = [name for name, a, b in zip("xytp", columns, expected, strict=True) if not np.array_equal(a, b)]
    if not wrong:
        return ""
    late = f", up to {np.abs(columns[2] - expected[2]).max():,} µs" if "t" in wrong else ""
    share = np.mean([a != b for a, b in zip(columns, expected, strict=True)], axis=1).max()
    return f"wrong: {', '.join(wrong)} of {share:.0%}{late}"


def interleaved(contest: Contest, repeats: int) -> dict[str, float]:
    """Median processor seconds of each, one call of every contestant a repeat."""
    times: dict[str, list[float]] = {label: [] for label in contest.contestants}
    shuffled = np.random.default_rng(0).permutation  # what one leaves of memory and cache, another finds
    for _ in range(repeats):
        for label in shuffled(list(contest.contestants)).tolist():
            read = contest.contestants[label]
            start = time.process_time()
            kept = None if "pieces" in label else list(read(contest.path))
            if kept is None:
                for _piece in read(contest.path):
                    pass
            times[label].append(time.process_time() - start)
            del kept
    return {label: float(np.median(values)) for label, values in times.items()}


# What takes part: each function yields pieces of columns


def evlift(module: str) -> dict[str, Contestant]:
    """The reader of a format, from the path on; {} where this copy of evlift has none."""
    try:
        room = import_module(f"evlift.events.readers.{module}")
        base = import_module("evlift.events.readers.reader")
    except ImportError:
        return {}

    def read(path: Path) -> Iterator[Any]:
        with open(path, "rb") as file:
            name = room.matches(path, file.read(4096))
        return room.open_reader(path, name, base.Stated()).columns(base.Problems())

    return {"evlift, in pieces": read, "evlift": read}


def expelliarmus(encoding: str) -> dict[str, Contestant]:
    try:
        Wizard = import_module("expelliarmus").Wizard
    except ImportError:
        return {}

    def pieces(path: Path) -> Iterator[Any]:
        wizard = Wizard(encoding=encoding, chunk_size=1 << 16)
        wizard.set_file(path)
        return wizard.read_chunk()

    whole: Contestant = lambda path: [Wizard(encoding=encoding).read(path)]  # noqa: E731
    return {"expelliarmus": whole, "expelliarmus, in pieces": pieces}


def evutils() -> dict[str, Contestant]:
    try:
        Reader = import_module("evutils.io").EventReader
    except ImportError:
        return {}

    def whole(path: Path) -> list[Any]:
        with Reader(path) as reader:
            return [reader.read_all()]

    def pieces(path: Path) -> Iterator[Any]:
        with Reader(path, n_events=1 << 16) as reader:
            yield from reader

    return {"evutils": whole, "evutils, in pieces": pieces}


def evt3() -> dict[str, Contestant]:
    try:
        library = import_module("evt3")
    except ImportError:
        return {}
    return {
        "evt3": lambda path: [library.decode_file(str(path))],
        "evt3, in pieces": lambda path: library.decode_file_batches(str(path), batch_bytes=1 << 18),
    }


def aedat() -> dict[str, Contestant]:
    try:
        library = import_module("aedat")
    except ImportError:
        return {}
    return {"aedat, in pieces": lambda path: (p["events"] for p in library.Decoder(str(path)) if "events" in p)}


def loadtxt(path: Path) -> list[Any]:
    t, x, y, p = np.loadtxt(path, unpack=True)
    fields = [("x", "u2"), ("y", "u2"), ("t", "i8"), ("p", "?")]
    out = np.empty(len(t), fields)
    out["x"], out["y"], out["t"], out["p"] = x, y, np.rint(t * 1e6), p
    return [out]


# The files


def evt3_contests(data: Path, folder: Path) -> Iterator[Contest]:
    contestants = {**evlift("raw"), **evt3(), **evutils(), **expelliarmus("evt3")}
    if path := sample(data, "gen4_evt3.raw"):
        start, words = words_of(path, "<u2")
        expected = plain_evt3(words)
        yield Contest("EVT3, Gen4.1", path, expected, contestants)
        highs = words >> 12 == 8
        span = int(words[highs][-1]) - int(words[highs][0]) + 1
        longer = [words + np.where(highs, np.uint16(k * span), np.uint16(0)) for k in range(20)]
        path = put(folder / "long.raw", start, longer)
        yield Contest("EVT3, 20 times that", path, repeat(expected, 20, span << 12), contestants)
    header = b"% evt 3.0\n% format EVT3;height=720;width=1280\n% geometry 1280x720\n% end\n"
    for share in (0.1, 0.5):
        words = vectors(share)
        path = put(folder / f"vectors{share}.raw", header, [words])
        yield Contest(f"EVT3, vectors {share:.0%} full", path, plain_evt3(words), contestants)


def evt2_contests(data: Path, folder: Path) -> Iterator[Contest]:
    contestants = {**evlift("raw"), **evutils(), **expelliarmus("evt2")}
    if path := sample(data, "gen3_evt2.raw"):
        start, words = words_of(path, "<u4")
        expected = plain_evt2(words)
        yield Contest("EVT2, Gen3.0", path, expected, contestants)
        highs = words >> 28 == 8
        span = int(words[highs][-1]) - int(words[highs][0]) + 1
        longer = [words + np.where(highs, np.uint32(k * span), np.uint32(0)) for k in range(8)]
        path = put(folder / "long.raw", start, longer)
        yield Contest("EVT2, 8 times that", path, repeat(expected, 8, span << 6), contestants)


def dat_contests(data: Path, folder: Path) -> Iterator[Contest]:
    contestants = {**evlift("dat"), **evutils(), **expelliarmus("dat")}
    if path := sample(data, "sample.dat"):
        start, words = words_of(path, "<u4", skip=2)
        t, word = words[::2].astype(np.int64), words[1::2]
        expected = tuple(c.astype(np.int64) for c in (word & 0x3FFF, word >> 14 & 0x3FFF, t, word >> 28 & 1))
        yield Contest("DAT, ATIS", path, expected, contestants)
        span, clock = int(t[-1] - t[0]) + 1, np.arange(len(words)) % 2 == 0
        longer = [words + np.where(clock, np.uint32(k * span), np.uint32(0)) for k in range(1000)]
        path = put(folder / "long.dat", start, longer)
        yield Contest("DAT, 1000 times that", path, repeat(expected, 1000, span), contestants)


def aedat4_contests(data: Path, folder: Path) -> Iterator[Contest]:
    contestants = {**evlift("aedat4"), **aedat(), **evutils()}
    if "evlift" in contestants and (path := sample(data, "davis346.aedat4")):
        yield Contest("AEDAT4, DAVIS346", path, None, contestants)


def text_contests(data: Path, folder: Path) -> Iterator[Contest]:
    contestants = {**evlift("ecd"), "numpy.loadtxt": loadtxt}
    path = data / "slider_depth" / "events.txt"
    if "evlift" in contestants and path.is_file():
        yield Contest("text, DAVIS240C", path, gather(loadtxt(path)), contestants)


CONTESTS: dict[str, Callable[[Path, Path], Iterator[Contest]]] = {
    "evt3": evt3_contests,
    "evt2": evt2_contests,
    "dat": dat_contests,
    "aedat4": aedat4_contests,
    "text": text_contests,
}


def sample(data: Path, name: str) -> Path | None:
    path = data / "formats" / name
    if not path.is_file():
        print(f"decode.py: {path} is missing; give its folder with --data DIR", file=sys.stderr)
        return None
    return path


def words_of(path: Path, kind: str, skip: int = 0) -> tuple[bytes, np.ndarray]:
    """The bytes before the first word, and the words."""
    data = path.read_bytes()
    start = 0
    while data[start : start + 2] == b"% ":
        start = data.index(b"\n", start) + 1
    start += skip
    return data[:start], np.frombuffer(data, kind, (len(data) - start) // np.dtype(kind).itemsize, start)


def put(path: Path, start: bytes, parts: Iterable[np.ndarray]) -> Path:
    with open(path, "wb") as file:
        file.write(start)
        for part in parts:
            file.write(part.tobytes())
    return path


def repeat(columns: tuple[np.ndarray, ...], times: int, span: int) -> tuple[np.ndarray, ...]:
    x, y, t, p = columns
    return np.tile(x, times), np.tile(y, times), np.concatenate([t + k * span for k in range(times)]), np.tile(p, times)


def vectors(share: float) -> np.ndarray:
    """EVT3 of a busy 1280×720 sensor: rows of 128 pixels as vectors, in which this share of the pixels fires."""
    rng = np.random.default_rng(0)
    rows, vector = 20_000, np.array([0x4000, 0x4000, 0x5000] * 4, np.uint16)
    bits = rng.random((rows, len(vector), 12)) < share
    masks = (bits << np.arange(12)).sum(-1).astype(np.uint16)
    masks[:, 2::3] &= 0xFF
    words = np.empty((rows, 4 + len(vector)), np.uint16)
    t = np.arange(rows) * 4
    words[:, 0], words[:, 1] = 0x8000 | t >> 12, 0x6000 | t & 0xFFF
    words[:, 2], words[:, 3] = rng.integers(0, 720, rows), 0x3000 | rng.integers(0, 2, rows) << 11
    words[:, 3] += (rng.integers(0, 36, rows) * 32).astype(np.uint16)
    words[:, 4:] = vector | masks
    return words.reshape(-1)


def plain_evt3(words: np.ndarray) -> tuple[np.ndarray, ...]:
    events = []
    high = low = row = base = sign = 0
    for word in words.tolist():
        kind, value = word >> 12, word & 0xFFF
        if kind == 0:
            row = value & 0x7FF
        elif kind == 2:
            events.append((value & 0x7FF, row, high << 12 | low, value >> 11))
        elif kind == 3:
            base, sign = value & 0x7FF, value >> 11
        elif kind in (4, 5):
            width = 12 if kind == 4 else 8
            events += [(base + k, row, high << 12 | low, sign) for k in range(width) if value >> k & 1]
            base += width
        elif kind == 6:
            low = value
        elif kind == 8:
            high, low = value, low if value == high else 0
    return tuple(np.array(events, np.int64).T)


def plain_evt2(words: np.ndarray) -> tuple[np.ndarray, ...]:
    events, high = [], 0
    for word in words.tolist():
        if word >> 28 == 8:
            high = word & 0xFFFFFFF
        elif word >> 28 < 2:
            events.append((word >> 11 & 0x7FF, word & 0x7FF, high << 6 | word >> 22 & 0x3F, word >> 28))
    return tuple(np.array(events, np.int64).T)


if __name__ == "__main__":
    main()
