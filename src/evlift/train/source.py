"""From the data settings to data sets: training pairs, and the pairs held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..collection import PairDataset, SimulatedPairs, build_from_video, is_collection, open_collection, open_source
from ..config import DataConfig
from ..errors import ConfigError
from ..represent import Representation

Pairs = PairDataset | SimulatedPairs


def open_pairs(
    data: DataConfig, representation: Representation, out: Path, *, seed: int
) -> tuple[Pairs, dict[str, Pairs]]:
    """The training pairs, and the held-out ones by split: `val`, and `test` where whole shots are held out.

    A video is first made into `out/collection`, or with `data.on_the_fly` its frames are decoded into `out/frames`;
    that is done once and goes on after a kill.

    Raises:
        ConfigError: no source given.
        InputError: the source cannot be read, or has nothing for a split.
    """
    if data.source is None:
        raise ConfigError("no data source; name a collection, a folder of pictures or a video")
    source = Path(data.source)
    video: dict[str, Any] = {
        "shake_px": data.shake_px,
        "window_us": data.window_us,
        "held_out_shots": data.held_out_shots,
    }
    if source.is_file() and not data.on_the_fly:
        source = build_from_video(
            source,
            out / "collection",
            sensor=data.sensor,
            seed=seed,
            val_fraction=data.val_fraction,
            **video,
        ).path

    def split(name: str, augment: bool) -> Pairs:
        return open_source(
            source,
            name,
            representation,
            data.size,
            sensor=data.sensor,
            scale=data.scale,
            flip=data.flip,
            augment=augment,
            seed=seed,
            val_fraction=data.val_fraction,
            motion=None if source.is_file() else {"motion_px": data.motion_px, **data.motion},
            frames=out / "frames" if source.is_file() else None,
            **video,
        )

    held_out = {"val": split("val", False)}
    shots = (
        data.held_out_shots
        if source.is_file()
        else is_collection(source) and open_collection(source).splits.get("test")
    )
    if shots:
        held_out["test"] = split("test", False)
    return split("train", True), held_out
