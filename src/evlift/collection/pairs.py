"""Pairs as PyTorch data sets: an image, the event grid before it, its labels, all seen through the same view.

An item is a pure function of (seed, epoch, index): it does not matter which worker makes it, or in which order. Ask
for `dataset[(epoch, index)]` from a batch sampler; `dataset[index]` is epoch 0. Without augmentation all epochs agree.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..errors import InputError
from ..events import Recording
from ..represent import Representation
from ..simulate import Sensor
from .clips import choose_clips, open_film
from .items import Item, Key, check_seed, epoch_and_index, label_item, make_item, prepare_worker
from .pictures import pictures_by_split
from .simulated import SimulatedPairs
from .store import SPLITS, Collection, is_collection, open_collection
from .transform import View, centre_view, check_scale, check_size, draw

OPEN_RECORDINGS = 64
"""Recordings that a worker keeps open: each holds file handles and a mapping."""


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
        self.scale, self.flip, self.augment, self.seed = check_scale(scale), flip, augment, check_seed(seed)
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
        prepare_worker()
        epoch, index = epoch_and_index(key, len(self))
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
        item = make_item(index, view.image(_colour(frame)), view.grid(grid))
        if self.labelled:
            file = self._labels[index]
            path = None if file is None else self.collection.path / file
            item["labels"] = label_item(path, view, (height, width), 1, self.ignore_label)
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
    shake_px: float = 6.0,
    window_us: int = 100_000,
    held_out_shots: Sequence[int] = (),
    frames: str | Path | None = None,
) -> PairDataset | SimulatedPairs:
    """The pairs of one split of whatever `path` is: a collection, a folder of pictures, or a video.

    A folder of pictures has the splits that its `train/`, `val/`, `test/` give, or else `train` and `val`, the last
    `val_fraction` of the sorted pictures (0: all are `train`). A video has those of `build_from_video`, with the same
    `shake_px`, `window_us` and `held_out_shots`; its frames are decoded into the folder `frames` (see `open_film`). A
    collection was made with its own sensor, motion and splits: these settings do not touch it.

    Raises:
        InputError: nothing there that can be used, or no such split.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a collection, a folder of pictures or a video")
    if path.is_file():
        # As large as the training split needs it, so that all splits share one film.
        clips = choose_clips(
            open_film(path, frames, size, scale),
            split,
            window_us=window_us,
            shake_px=shake_px,
            val_fraction=val_fraction,
            held_out_shots=held_out_shots,
        )
        return SimulatedPairs(clips, representation, size, sensor, scale, flip, augment, seed, motion=motion)
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


def _colour(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return frame if frame.ndim == 3 else np.repeat(frame[:, :, None], 3, axis=2)
