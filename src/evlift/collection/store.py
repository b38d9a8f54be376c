"""The folder of a collection: its layout, how it is opened, how it is written in steps that a kill cannot tear.

    DIR/collection.json            what it was made from and how, which recordings are finished, what was set aside
    DIR/pairs.parquet              a row a pair: image, event window, split
    DIR/recordings/<name>/         packed recordings
    DIR/labels/<recording>/*.png   label maps, where the source had any

A recording counts once `collection.json` lists it, which is the last thing that is written about it. Rows and folders
that it does not list are leavings of a build that was killed; they are never read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import InputError
from ..events import Recording
from ..files import write_atomic

FORMAT = "evlift-collection"
VERSION = 1

PAIRS = pa.schema(
    [
        pa.field("recording", pa.string(), nullable=False),
        pa.field("frame", pa.int32(), nullable=False),  # its place among the recording's frames
        pa.field("t_image_us", pa.int64(), nullable=False),
        pa.field("t0_us", pa.int64(), nullable=False),  # the window is half-open: [t0_us, t1_us)
        pa.field("t1_us", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # train, val, test; gap and empty are kept but never used
        pa.field("shot", pa.int32(), nullable=False),
        pa.field("events", pa.int64(), nullable=False),
        pa.field("labels", pa.string()),  # path inside the collection
    ]
)
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Collection:
    """Pairs of an image and the events before it, on a disk. Made by `open_collection`; picklable."""

    path: Path
    info: Mapping[str, Any]
    """What `collection.json` says."""
    pairs: pa.Table
    """A row a pair, with the columns of `PAIRS`, those of finished recordings only."""

    @cached_property
    def splits(self) -> dict[str, int]:
        """Number of pairs of each split, `gap` and `empty` among them."""
        counts = Counter(self.pairs["split"].to_pylist())
        order = [*SPLITS, *sorted(counts.keys() - set(SPLITS))]
        return {split: counts[split] for split in order if counts[split]}

    @property
    def complete(self) -> bool:
        """False while recordings of the plan are missing: the build was stopped."""
        return bool(self.info["complete"])

    def split(self, name: str) -> pa.Table:
        """The pairs of one split."""
        return self.pairs.filter(pc.equal(self.pairs["split"], name))

    def recording(self, name: str) -> Recording:
        """Open one of its recordings. Raises InputError when it is missing or damaged."""
        return Recording(self.path / "recordings" / name)

    def describe(self) -> dict[str, Any]:
        """Counts, sizes and origin, as plain values fit for JSON."""
        events: Counter[str] = Counter()
        for split, count in zip(self.pairs["split"].to_pylist(), self.pairs["events"].to_pylist(), strict=True):
            events[split] += count
        recordings = self.info["recordings"]
        sizes = Counter(f"{made['height']}×{made['width']}" for made in recordings.values())
        return {
            "format": FORMAT,
            "name": self.info["name"],
            "complete": self.complete,
            "recordings": len(recordings),
            "planned": len(self.info["planned"]),
            "pairs": self.splits,
            "labelled": self.pairs.num_rows - self.pairs["labels"].null_count,
            "events": sum(made["events"] for made in recordings.values()),
            "events_per_pair": {split: events[split] / count for split, count in self.splits.items()},
            "sizes": dict(sizes),
            "sensor": self.info["sensor"],
            "source": self.info["source"],
            "licence": self.info["licence"],
            "settings": self.info["settings"],
            "problems": list(self.info["problems"]),
        }


def open_collection(path: str | Path) -> Collection:
    """Open the collection in folder `path`; of a build that was stopped, the recordings that were finished.

    Raises:
        InputError: no collection is there, or its files are damaged.
    """
    path = Path(path)
    info = read_info(path)
    if info is None:
        raise InputError(f"{path} is no collection (it has no collection.json); build one, or give another folder")
    if not info["recordings"]:
        pairs = PAIRS.empty_table()
    else:
        try:
            pairs = pq.read_table(path / "pairs.parquet").cast(PAIRS)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise InputError(
                f"{path / 'pairs.parquet'} is damaged ({_line(error)}); build the collection anew"
            ) from error
    finished = pa.array(list(info["recordings"]), pa.string())
    pairs = pairs.filter(pc.is_in(pairs["recording"], value_set=finished))
    if pairs.num_rows != sum(made["pairs"] for made in info["recordings"].values()):
        raise InputError(f"{path / 'pairs.parquet'} lacks pairs that collection.json counts; build the collection anew")
    return Collection(path, info, pairs)


def is_collection(path: str | Path) -> bool:
    """Whether a collection, finished or not, is in folder `path`."""
    return (Path(path) / "collection.json").is_file()


_KEYS = {
    "name": str,
    "complete": bool,
    "licence": str,
    "source": dict,
    "sensor": str,
    "settings": dict,
    "planned": list,
    "recordings": dict,
    "problems": list,
}


def read_info(path: Path) -> dict[str, Any] | None:
    """`collection.json`, checked; None where there is none. Raises InputError when it cannot be used."""
    file = path / "collection.json"
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is damaged ({_line(error)}); build the collection anew") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise InputError(f"{file} is not of an evlift collection; give another folder")
    if info.get("version") != VERSION:
        raise InputError(f"{file} has version {info.get('version')}, not {VERSION}; build it anew with this evlift")
    wrong = [key for key, kind in _KEYS.items() if not isinstance(info.get(key), kind)]
    made = {} if wrong else info["recordings"]
    keys = ("pairs", "events", "height", "width")
    if wrong or not all(isinstance(m, dict) and all(isinstance(m.get(k), int) for k in keys) for m in made.values()):
        raise InputError(f"{file} is damaged (no usable {wrong or ['recordings']}); build the collection anew")
    return info


def write_info(path: Path, info: Mapping[str, Any]) -> None:
    """Replace `collection.json` in one step."""
    write_atomic(path / "collection.json", (json.dumps(info, indent=2, ensure_ascii=False) + "\n").encode())


def write_pairs(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace `pairs.parquet` in one step."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=PAIRS), sink)
    write_atomic(path / "pairs.parquet", sink.getvalue().to_pybytes())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
