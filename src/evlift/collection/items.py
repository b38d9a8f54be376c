"""What a data set of pairs gives: the dict of one item, its key, and what has to be right in a worker.

An item is a pure function of (seed, epoch, index): it does not matter which worker makes it, or in which order.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from ..errors import ConfigError, InputError
from .pictures import VOID, read_labels
from .transform import View

Item = dict[str, Any]
Key = int | tuple[int, int]


def make_item(index: int, image: NDArray[np.uint8], grid: NDArray[np.float32]) -> Item:
    """`image` uint8 [h, w, 3] → float32 [3, h, w] in 0…1, `grid` float32 [C, h, w], and `index`."""
    planes = np.empty((3, *image.shape[:2]), np.float32)
    np.multiply(image.transpose(2, 0, 1), np.float32(1 / 255), out=planes)
    return {"image": torch.from_numpy(planes), "grid": torch.from_numpy(grid), "index": index}


def label_item(
    path: Path | None, view: View, full: tuple[int, int], reduction: int, ignore_label: int | None
) -> torch.Tensor:
    """The label map of a picture of `full` size, decoded `reduction` times smaller, in the view: int64 [h, w]."""
    if path is None:
        return torch.full((view.height, view.width), VOID, dtype=torch.int64)
    labels = read_labels(path)
    labels = fit(path, labels, full, reduction)
    seen = view.labels(labels, reduction).astype(np.int64)
    if ignore_label is not None:
        seen[seen == ignore_label] = VOID
    return torch.from_numpy(seen)


def fit(path: Path, values: NDArray, full: tuple[int, int], reduction: int) -> NDArray:
    """A map [H, W] over a picture of `full` size; of one decoded smaller without its last pixels, these cut off, too.

    Raises:
        InputError: a map of another size.
    """
    height, width = values.shape
    if not (0 <= height - full[0] < reduction and 0 <= width - full[1] < reduction):
        raise InputError(f"{path} is {width}×{height}, its picture {full[1]}×{full[0]}; make them agree")
    return values[: full[0], : full[1]]


def epoch_and_index(key: Key, length: int) -> tuple[int, int]:
    """Raises IndexError past the end."""
    epoch, index = key if isinstance(key, tuple) else (0, key)
    epoch, index = int(epoch), int(index)
    if not 0 <= index < length:
        raise IndexError(f"index {index} of {length} pairs")
    if epoch < 0:
        raise ConfigError(f"epoch is {epoch}; give 0 or more")
    return epoch, index


def check_seed(seed: int) -> int:
    """The seed as a plain int. Raises ConfigError for anything but a whole number from 0 on."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ConfigError(f"seed is {seed!r}; give a whole number, 0 or more")
    return int(seed)


def prepare_worker() -> None:
    """Give OpenCV one thread in a worker process: it has one core to itself."""
    if get_worker_info() is not None and cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)


def _fork_without_opencv_threads() -> None:
    """Let OpenCV end its threads before each fork, and have them again in the parent after it.

    A fork copies the pool's locks but none of its threads: once the parent has used the pool (simulating a video does),
    the child would wait for them for ever at the first call that is split, and also in `setNumThreads` itself.
    """
    before: list[int] = []

    def stop() -> None:
        before.append(cv2.getNumThreads())
        cv2.setNumThreads(1)

    def go_on() -> None:
        cv2.setNumThreads(before.pop())

    if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
        os.register_at_fork(before=stop, after_in_parent=go_on)


_fork_without_opencv_threads()
