"""N-ImageNet: an .npz a recording, 640×480, from a Samsung DVS Gen3 before a screen that shows an ImageNet picture.

One member, ``event_data``, a structured array with fields x, y, t (µs) and p (bool, True = brighter).

J. Kim, J. Bae, G. Park, D. Zhang, Y. M. Kim: N-ImageNet: Towards Robust, Fine-Grained Object Recognition with Event
Cameras, ICCV 2021; the layout is that of the data set's own loader, https://github.com/82magnolia/n_imagenet.
"""

from __future__ import annotations

from pathlib import Path

from evlift.events.readers.arrays import ArrayReader, first_member, open_member
from evlift.events.readers.reader import Stated

FORMATS = {"n-imagenet": "N-ImageNet .npz: event_data in µs, 640×480"}
SUFFIXES: dict[str, str] = {}
USES: dict[str, tuple[str, ...]] = {name: () for name in FORMATS}

MEMBER, SIZE = "event_data", (480, 640)


def matches(path: Path, head: bytes) -> str | None:
    """By the name of the archive's first member."""
    return "n-imagenet" if first_member(head) == f"{MEMBER}.npy" else None


def open_reader(path: Path, format: str, stated: Stated) -> ArrayReader:
    """Open an archive. InputError where it is damaged or its event_data is not as above."""
    return open_member(path, format, MEMBER, "us", SIZE)
