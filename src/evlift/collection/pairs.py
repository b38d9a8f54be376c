"""Pairs as PyTorch data sets: an image, the event grid before it, its labels, all seen through the same view.

An item is a pure function of (seed, epoch, index): it does not matter which worker makes it, or in which order. Ask
for `dataset[(epoch, index)]` from a batch sampler; `dataset[index]` is epoch 0. Without augmentation all epochs agree.
"""

from __future__ import annotations

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from ..errors import ConfigError, InputError
from ..events import Recording
from ..represent import Representation
from ..simulate import Sensor, get_sensor, pair_from_image
from .pictures import VOID, Picture, image_files, pictures_by_split, read_labels, read_picture, sort_out
from .store import SPLITS, Collection, is_collection, open_collection
from .transform import View, centre_view, check_scale, check_size, draw

logger = logging.getLogger(__name__)

OPEN_RECORDINGS = 64
"""Recordings that a worker keeps open: each holds file handles and a mapping."""


Item = dict[str, Any]
Key = int | tuple[int, int]


class PairDataset(Dataset):
    """The pairs of one split of a collection.

    An item is a dict: `image` float32 [3, h, w] in 0…1, `grid` float32 [C, h, w], `index` int, and `labels` int64
    [h, w] when any pair of the split has labels (255 = none).

    Args:
        collection: a collection, or its folder.
        split: `train`, `val` or `test`.
        representation: what makes a grid of the events. It sees the whole sensor; the view comes after it.
        size: height and width of an item; None keeps the recording's own.
        scale: range of the random crop's side, relative to the largest crop of `size`'s aspect.
        flip: mirror half of the items.
        augment: draw a view at random; without it the view is the largest crop in the middle.
        seed: of the views.
        ignore_label: this value of the label maps becomes 255, too.

    Raises:
        InputError: no collection, no such split, nothing in it.
        ConfigError: a size or scale that cannot be used.
    """

    def __init__(
        self,
        collection: Collection | str | Path,
        split: str,
        representation: Representation,
        size: tuple[int, int] | None = None,
        scale: tuple[float, float] = (0.5, 1.0),
        flip: bool = True,
        augment: bool = True,
        seed: int = 0,
        ignore_label: int | None = None,
    ):
        self.collection = collection if isinstance(collection, Collection) else open_collection(collection)
        self.representation = representation
        self.size = None if size is None else check_size(size)
        self.scale, self.flip, self.augment, self.seed = check_scale(scale), flip, augment, _check_seed(seed)
        self.ignore_label = ignore_label
        rows = self.collection.split(split)
        if rows.num_rows == 0 or split not in SPLITS:
            have = ", ".join(f"{name} ({n})" for name, n in self.collection.splits.items() if name in SPLITS) or "none"
            raise InputError(f"{self.collection.path} has no usable pairs in split {split!r}; it has {have}")
        # Arrays, not the table: an item needs one row of it, a thousand times a second.
        names = rows["recording"].combine_chunks().dictionary_encode()
        self._names: list[str] = names.dictionary.to_pylist()
        self._recording = names.indices.to_numpy(zero_copy_only=False)
        self._frame = rows["frame"].to_numpy()
        self._t0, self._t1 = rows["t0_us"].to_numpy(), rows["t1_us"].to_numpy()
        self._labels: list[str | None] = rows["labels"].to_pylist()
        self.labelled = any(self._labels)
        self._open: OrderedDict[str, Recording] = OrderedDict()
        self._buffer: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self._frame)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_buffer": None}

    def __getitem__(self, key: Key) -> Item:
        """One pair; `key` is an index, or (epoch, index). Raises IndexError past the end, InputError for bad files."""
        _prepare_worker()
        epoch, index = _epoch_and_index(key, len(self))
        recording = self._recording_of(index)
        frame = recording.frame(int(self._frame[index]))
        height, width = recording.height, recording.width
        if frame.shape[:2] != (height, width):
            raise InputError(
                f"{self._name(index)}: frame {self._frame[index]} is {frame.shape[1]}×{frame.shape[0]} but the events' "
                f"sensor is {width}×{height}; align the frames to the events first"
            )
        view = self._view(epoch, index, height, width)
        window = recording.window(int(self._t0[index]), int(self._t1[index]))
        shape = (self.representation.channels, height, width)
        if self._buffer is None or self._buffer.shape != shape:  # a new grid would cost as much as filling it
            self._buffer = np.empty(shape, np.float32)
        grid = self.representation(window, out=self._buffer)
        item = _item(index, view.image(_colour(frame)), view.grid(grid))
        if self.labelled:
            file = self._labels[index]
            path = None if file is None else self.collection.path / file
            item["labels"] = _label_item(path, view, (height, width), 1, self.ignore_label)
        return item

    def _view(self, epoch: int, index: int, height: int, width: int) -> View:
        size = self.size or (height, width)
        if not self.augment:
            return centre_view(height, width, size)
        rng = np.random.default_rng([self.seed, epoch, index])
        return draw(rng, self.scale, self.flip).view(height, width, size)

    def _name(self, index: int) -> str:
        return self._names[self._recording[index]]

    def _recording_of(self, index: int) -> Recording:
        name = self._name(index)
        if name in self._open:
            self._open.move_to_end(name)
        else:
            self._open[name] = self.collection.recording(name)
            if len(self._open) > OPEN_RECORDINGS:
                self._open.popitem(last=False)
        return self._open[name]


class SimulatedPairs(Dataset):
    """Pairs made on the fly from still pictures: each gets a random camera motion that ends in the picture itself.

    Items are those of `PairDataset`. The picture is cropped, scaled and mirrored first and the events are simulated at
    the item's own size, as a sensor of that size would see the scene.

    Args:
        pictures: a folder (see `image_files`), or the pictures themselves.
        representation: what makes a grid of the events.
        size: height and width of an item.
        sensor: the simulated sensor, or the name of one.
        scale, flip, augment, seed, ignore_label: as in `PairDataset`; `seed` also draws the motion, and without
            `augment` a picture has the same motion in every epoch.
        motion: further arguments of `simulate.pair_from_image` by name: `motion_px`, `rotation`, `duration_us`, …

    A picture that cannot be read is set aside: `problems` has a line on each, and `logging` warns. One whose header is
    good but whose pixels turn out damaged gives its place to the next good one, with a warning.

    Raises:
        InputError: no picture that can be read; a label map of another size than its picture.
        ConfigError: a size, scale or sensor that cannot be used.
    """

    def __init__(
        self,
        pictures: str | Path | Sequence[Picture],
        representation: Representation,
        size: tuple[int, int] = (192, 256),
        sensor: str | Sensor = "ideal",
        scale: tuple[float, float] = (0.5, 1.0),
        flip: bool = True,
        augment: bool = True,
        seed: int = 0,
        ignore_label: int | None = None,
        motion: Mapping[str, Any] | None = None,
    ):
        self.representation = representation
        self.size, self.scale, self.seed = check_size(size), check_scale(scale), _check_seed(seed)
        self.sensor, self.flip, self.augment, self.ignore_label = get_sensor(sensor), flip, augment, ignore_label
        self.motion = check_motion(self.sensor, motion)
        found = image_files(pictures) if isinstance(pictures, (str, Path)) else list(pictures)
        self.pictures, _, self.problems = sort_out(found)
        if not self.pictures:
            reason = f" ({self.problems[0]})" if self.problems else ""
            raise InputError(f"none of {len(found)} pictures can be read{reason}; give others")
        self.labelled = any(picture.labels is not None for picture in self.pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: Key) -> Item:
        """One pair; `key` is an index, or (epoch, index). Raises IndexError past the end."""
        _prepare_worker()
        epoch, index = _epoch_and_index(key, len(self))
        rng = np.random.default_rng([self.seed, epoch if self.augment else 0, index])
        motion_seed = int(rng.integers(2**31))
        drawn = draw(rng, self.scale, self.flip) if self.augment else None
        for step in range(len(self)):
            picture = self.pictures[(index + step) % len(self)]
            # Decoded no smaller than what makes the crop at least an item's size.
            side = drawn.side if drawn else 1.0
            try:
                smallest = (math.ceil(self.size[0] / side), math.ceil(self.size[1] / side))
                image, reduction = read_picture(picture.path, smallest)
                height, width = image.shape[:2]
                full = (height * reduction, width * reduction)
                view = drawn.view(height, width, self.size) if drawn else centre_view(height, width, self.size)
                labels = (
                    _label_item(picture.labels, view, full, reduction, self.ignore_label) if self.labelled else None
                )
            except InputError as error:
                logger.warning(f"set aside {picture.path.name}, took the next picture: {error}")
                continue
            seen = view.image(image)
            events = pair_from_image(seen, sensor=self.sensor, seed=motion_seed, **self.motion).events
            item = _item(index, seen, self.representation(events))
            if labels is not None:
                item["labels"] = labels
            return item
        raise InputError(f"none of {len(self)} pictures can be read any more; check the disk")


def open_source(
    path: str | Path,
    split: str,
    representation: Representation,
    size: tuple[int, int] = (192, 256),
    *,
    sensor: str | Sensor = "ideal",
    scale: tuple[float, float] = (0.5, 1.0),
    flip: bool = True,
    augment: bool = True,
    seed: int = 0,
    val_fraction: float = 0.2,
    ignore_label: int | None = None,
    motion: Mapping[str, Any] | None = None,
) -> PairDataset | SimulatedPairs:
    """The pairs of one split of whatever `path` is: a collection, or a folder of pictures.

    A folder of pictures has the splits that its `train/`, `val/`, `test/` give, or else `train` and `val`, the last
    `val_fraction` of the sorted pictures (0: all are `train`). `sensor`, `val_fraction` and `motion` do not touch a
    collection, which was made with its own.

    Raises:
        InputError: nothing there that can be used, or no such split.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a collection or a folder of pictures")
    if path.is_file():
        raise InputError(f"{path} is a file; give a folder of pictures, or build a collection from a video first")
    if is_collection(path):
        return PairDataset(
            path,
            split,
            representation,
            size,
            scale=scale,
            flip=flip,
            augment=augment,
            seed=seed,
            ignore_label=ignore_label,
        )
    parts = pictures_by_split(path, val_fraction)
    if split not in parts:
        raise InputError(f"{path} has no pictures for split {split!r}, only for {', '.join(parts)}; choose one of them")
    return SimulatedPairs(parts[split], representation, size, sensor, scale, flip, augment, seed, ignore_label, motion)


def check_motion(sensor: Sensor, motion: Mapping[str, Any] | None) -> dict[str, Any]:
    """`motion` as a dict, once it has been tried. Raises ConfigError for a name or value that cannot be used."""
    motion = dict(motion or {})
    known = [name for name, one in signature(pair_from_image).parameters.items() if one.kind is one.KEYWORD_ONLY]
    unknown = sorted(motion.keys() - set(known))
    if unknown:
        raise ConfigError(f"motion has no {', '.join(unknown)}; it has {', '.join(known)}")
    # On a small picture; this also compiles the sensor's kernel before workers are forked, once instead of in each.
    pair_from_image(np.zeros((8, 8, 3), np.uint8), sensor=sensor, **motion)
    return motion


def _item(index: int, image: NDArray[np.uint8], grid: NDArray[np.float32]) -> Item:
    planes = np.empty((3, *image.shape[:2]), np.float32)
    np.multiply(image.transpose(2, 0, 1), np.float32(1 / 255), out=planes)
    return {"image": torch.from_numpy(planes), "grid": torch.from_numpy(grid), "index": index}


def _label_item(
    path: Path | None, view: View, full: tuple[int, int], reduction: int, ignore_label: int | None
) -> torch.Tensor:
    if path is None:
        return torch.full((view.height, view.width), VOID, dtype=torch.int64)
    labels = read_labels(path)
    if labels.shape != full:
        raise InputError(
            f"{path} is {labels.shape[1]}×{labels.shape[0]}, its picture {full[1]}×{full[0]}; make them agree"
        )
    seen = view.labels(labels, reduction).astype(np.int64)
    if ignore_label is not None:
        seen[seen == ignore_label] = VOID
    return torch.from_numpy(seen)


def _colour(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return frame if frame.ndim == 3 else np.repeat(frame[:, :, None], 3, axis=2)


def _epoch_and_index(key: Key, length: int) -> tuple[int, int]:
    epoch, index = key if isinstance(key, tuple) else (0, key)
    epoch, index = int(epoch), int(index)
    if not 0 <= index < length:
        raise IndexError(f"index {index} of {length} pairs")
    if epoch < 0:
        raise ConfigError(f"epoch is {epoch}; give 0 or more")
    return epoch, index


def _check_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ConfigError(f"seed is {seed!r}; give a whole number, 0 or more")
    return int(seed)


def _prepare_worker() -> None:
    if get_worker_info() is not None and cv2.getNumThreads() != 1:  # a worker has one core to itself
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
