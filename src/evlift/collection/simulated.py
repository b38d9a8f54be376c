"""Pairs made on the fly, from pictures or a video: nothing is stored, and no two epochs see the same events.

An item is a pure function of (seed, epoch, index): it does not matter which worker makes it, or in which order, and a
run that was stopped goes on with the very same pairs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..errors import ConfigError, InputError
from ..events import Events
from ..represent import Representation
from ..simulate import Sensor, VideoSimulator, get_sensor, pair_from_image, shake
from .clips import Clips, choose_clips, open_film
from .items import Item, Key, check_seed, epoch_and_index, fit, label_item, make_item, prepare_worker
from .pictures import TOLD, Picture, Pictures, image_files, read_depth, read_picture, sort_out, tell
from .transform import Draw, View, centre_view, check_scale, check_size, draw

logger = logging.getLogger(__name__)

CHECKED = 4096
"""Headers that are read at the start: all of a folder's, or of a larger folder's so many, spread over it."""
PASSED_OVER = 1000
"""So many unreadable files in a row, and it is not the files."""


class SimulatedPairs(Dataset):
    """Pairs made on the fly: a picture, and the events of a camera whose random motion ends in that very picture.

    Items are those of `PairDataset`. The picture is cropped, scaled and mirrored first and the events are simulated at
    the item's own size, as a sensor of that size would see the scene. Of a video an item is a frame and the events of
    the window before it, within one shot; its camera is shaken anew in every epoch.

    Args:
        source: a folder of pictures (see `image_files`), the pictures themselves, a video file, or `Clips` of one.
        representation: what makes a grid of the events.
        size: height and width of an item.
        sensor: the simulated sensor, or the name of one.
        scale, flip, augment, seed, ignore_label: as in `PairDataset`; `seed` also draws the motion, and without
            `augment` a picture has the same motion in every epoch.
        motion: further arguments of `simulate.pair_from_image` by name: `motion_px`, `rotation`, `duration_us`, …
        flow: of pictures, give the exact optical flow over the window, too: `flow` float32 [2, h, w], and `flow_mask`
            bool [h, w] where it holds.

    Bad files never end a run. A small folder's headers are read at the start: what cannot be read is left out, with a
    line in `problems`. What turns out later (damaged pixels, a bad header in a folder of more than `CHECKED` pictures,
    or, with `augment`, a picture of one flat colour) gives its place to the next good one. `set_aside` counts both; the
    first few are warned of.

    Raises:
        InputError: no picture that can be read; a label or depth map of another size than its picture; no video.
        ConfigError: a size, scale or sensor that cannot be used.
    """

    def __init__(
        self,
        source: str | Path | Sequence[Picture] | Clips,
        representation: Representation,
        size: tuple[int, int] = (192, 256),
        sensor: str | Sensor = "ideal",
        scale: tuple[float, float] = (0.5, 1.0),
        flip: bool = True,
        augment: bool = True,
        seed: int = 0,
        ignore_label: int | None = None,
        motion: Mapping[str, Any] | None = None,
        flow: bool = False,
    ):
        self.representation = representation
        self.size, self.scale, self.seed = check_size(size), check_scale(scale), check_seed(seed)
        self.sensor, self.flip, self.augment, self.ignore_label = get_sensor(sensor), flip, augment, ignore_label
        self.flow = flow
        if isinstance(source, (str, Path)):
            if Path(source).is_file():
                source = choose_clips(open_film(source, size=self.size, scale=self.scale if augment else (1.0, 1.0)))
            else:
                source = image_files(source)
        self.clips = source if isinstance(source, Clips) else None
        self.pictures: Sequence[Picture] = []
        self.problems: list[str] = []
        self.labelled = False
        if isinstance(source, Clips):
            self.problems = list(source.film.problems)
            tell(self.problems)
            _compile_video(self.sensor)
            if flow:
                raise ConfigError("flow is exact for pictures only; of a video, leave it out")
        else:
            self.pictures, self.problems = _look_over(source)
            self.labelled = (
                self.pictures.labelled if isinstance(self.pictures, Pictures) else any(p.labels for p in self.pictures)
            )
        deep = self.pictures.deep if isinstance(self.pictures, Pictures) else any(p.depth for p in self.pictures)
        self.motion = check_motion(self.sensor, motion, deep)
        self._left_out = 0 if self.clips is not None else len(source) - len(self.pictures)
        # A byte a picture in memory that all workers share, so that what one of them meets is counted once.
        self._bad = torch.zeros(len(self), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.pictures) if self.clips is None else len(self.clips)

    @property
    def set_aside(self) -> int:
        """How many pictures could not be used so far, by any worker."""
        return self._left_out + int(self._bad.sum())

    def __getitem__(self, key: Key) -> Item:
        """One pair; `key` is an index, or (epoch, index). Raises IndexError past the end."""
        prepare_worker()
        epoch, index = epoch_and_index(key, len(self))
        rng = np.random.default_rng([self.seed, epoch if self.augment else 0, index])
        motion_seed = int(rng.integers(2**31))
        drawn = draw(rng, self.scale, self.flip) if self.augment else None
        for step in range(min(len(self), PASSED_OVER)):
            place = (index + step) % len(self)
            try:
                if self.clips is None:
                    image, events, more = self._from_picture(self.pictures[place], drawn, motion_seed)
                else:
                    image, events, more = *self._from_clip(self.clips, place, drawn, motion_seed), {}
            except InputError as error:
                self._pass_over(place, error)
                continue
            return make_item(index, image, self.representation(events)) | more
        count = "none of" if len(self) <= PASSED_OVER else "not one of the next"
        raise InputError(f"{count} {step + 1} pictures can be read any more; check the disk")

    def _from_picture(
        self, picture: Picture, drawn: Draw | None, motion_seed: int
    ) -> tuple[NDArray[np.uint8], Events, dict[str, torch.Tensor]]:
        # Decoded no smaller than what makes the crop at least an item's size.
        side = drawn.side if drawn else 1.0
        smallest = (math.ceil(self.size[0] / side), math.ceil(self.size[1] / side))
        image, reduction = read_picture(picture.path, smallest)
        if drawn and image.min() == image.max():  # nothing to learn from; where pairs are measured, each counts
            raise InputError(f"{picture.path} is of one flat colour, which gives no events; remove it")
        full = (image.shape[0] * reduction, image.shape[1] * reduction)
        view = self._view(drawn, *image.shape[:2])
        more: dict[str, torch.Tensor] = {}
        if self.labelled:
            more["labels"] = label_item(picture.labels, view, full, reduction, self.ignore_label)
        depth = None
        if picture.depth is not None and self.motion.get("kind") != "planar":
            depth = view.labels(fit(picture.depth, read_depth(picture.depth), full, reduction), reduction)
        pair = pair_from_image(
            view.image(image),
            None if picture.labels is None else more["labels"].numpy(),
            depth,
            self.sensor,
            motion_seed,
            **self.motion,
        )
        if self.flow:
            more["flow"] = torch.from_numpy(np.ascontiguousarray(pair.flow.transpose(2, 0, 1)))
            more["flow_mask"] = torch.from_numpy(pair.mask)
        return pair.image, pair.events, more

    def _from_clip(self, clips: Clips, place: int, drawn: Draw | None, seed: int) -> tuple[NDArray[np.uint8], Events]:
        """The frame, and the events of a camera that was switched on at the last frame before the window."""
        film, shot, last = clips.film, int(clips.shot[place]), int(clips.frame[place])
        view = self._view(drawn, film.height, film.width)
        simulator = VideoSimulator(*self.size, self.sensor, seed, cuts=False)  # it sees one shot
        began = film.times[film.shots[shot][0]]
        parts = []
        for k in range(int(clips.first[place]), last + 1):
            frame, t_us = film.frame(k), int(film.times[k] - began)
            if clips.shake_px:
                frame = shake(frame[None], clips.shake_px / film.reduction, seed, times_us=np.array([t_us]))[0]
            seen = view.image(frame)
            parts.append(simulator.push(seen, t_us))
        events = Events.concatenate(parts)
        inside = slice(*np.searchsorted(events.t, [t_us - clips.window_us, t_us]))
        return seen, Events(
            events.x[inside], events.y[inside], events.t[inside], events.p[inside], events.height, events.width
        )

    def _view(self, drawn: Draw | None, height: int, width: int) -> View:
        return drawn.view(height, width, self.size) if drawn else centre_view(height, width, self.size)

    def _pass_over(self, place: int, error: InputError) -> None:
        if self._bad[place]:
            return
        self._bad[place] = 1
        count = int(self._bad.sum())
        if count <= TOLD:
            name = self.pictures[place].path.name if self.clips is None else f"frame {self.clips.frame[place]}"
            further = "; further ones are only counted" if count == TOLD else ""
            logger.warning(f"set aside {name}, took the next picture: {error}{further}")


def _look_over(found: Sequence[Picture]) -> tuple[Sequence[Picture], list[str]]:
    """The pictures that can be used as far as their headers tell, and a line on each that is left out.

    Of many, those between the ones looked at are taken on trust: to read a million headers takes many minutes on a
    network disk. What was looked at then only shows whether the folder is what it should be.
    """
    if len(found) <= CHECKED:
        good, _, problems = sort_out(found)
        kept: Sequence[Picture] = good
    else:
        good, _, problems = sort_out(found[i * len(found) // CHECKED] for i in range(CHECKED))
        kept, problems = found, []
    if not good:
        reason = f" ({problems[0]})" if problems else ""
        raise InputError(f"none of {min(len(found), CHECKED)} pictures can be read{reason}; give others")
    return kept, problems


def _compile_video(sensor: Sensor) -> None:
    """Compile what follows a video's flow before workers are forked, once instead of in each."""
    camera = VideoSimulator(16, 16, sensor, cuts=False)
    for t_us in (0, 1000):
        camera.push(np.full((16, 16), t_us // 10, np.uint8), t_us)


def _motion_value(name: str, value: Any) -> Any:
    """One argument of `pair_from_image` as that takes it; from JSON and YAML come lists, and 1e5 as a fraction."""

    def number(value: Any) -> bool:
        return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)

    if value is None and name in ("kind", "motion_px"):  # as if left out
        return value
    if name in ("kind", "path"):
        if isinstance(value, str):
            return value
        wanted = "a word"
    elif name == "motion_px":
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(number, value)):
            return tuple(value)
        wanted = "two numbers, such as [2, 15]"
    elif name in ("layers", "duration_us", "max_steps"):
        if number(value) and value == int(value):
            return int(value)
        wanted = "a whole number"
    else:
        if number(value):
            return value
        wanted = "a number"
    raise ConfigError(f"motion {name} is {value!r}; give {wanted}")


def check_motion(sensor: Sensor, motion: Mapping[str, Any] | None, deep: bool = False) -> dict[str, Any]:
    """`motion` as a dict of what `pair_from_image` takes, once it has been tried, also with a depth map if `deep`.

    Raises:
        ConfigError: a name or value that cannot be used.
    """
    motion = dict(motion or {})
    known = [name for name, one in signature(pair_from_image).parameters.items() if one.kind is one.KEYWORD_ONLY]
    unknown = sorted(motion.keys() - set(known))
    if unknown:
        raise ConfigError(f"motion has no {', '.join(unknown)}; it has {', '.join(known)}")
    motion = {name: _motion_value(name, value) for name, value in motion.items()}
    # On a small picture; this also compiles the sensor's kernel before workers are forked, once instead of in each.
    for depth in (None, np.ones((8, 8), np.float32)) if deep else (None,):
        if depth is None or motion.get("kind") != "planar":
            pair_from_image(np.zeros((8, 8, 3), np.uint8), depth=depth, sensor=sensor, **motion)
    return motion
