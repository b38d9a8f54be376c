"""`evlift info`: what a path holds, as plain values fit for JSON, and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import InputError

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


def kind_of(path: Path) -> str:
    """`recording`, `collection`, `run`, `encoder`, `video` or `pictures`. Raises InputError when it is none of them."""
    if not path.exists():
        raise InputError(f"{path} does not exist; check the spelling")
    if path.is_file():
        if path.suffix.lower() in VIDEOS:
            return "video"
        raise InputError(f"{path} is no video and no folder that evlift made; give one of those")
    for file, kind in (
        ("recording.json", "recording"),
        ("collection.json", "collection"),
        ("config.yaml", "run"),
        ("model.safetensors", "encoder"),
    ):
        if (path / file).is_file():
            return kind
    return "pictures"


def describe(path: Path) -> dict[str, Any]:
    """Facts about `path`; the key `format` says what it is.

    Raises:
        InputError: nothing there that evlift knows, or a damaged file.
    """
    kind = kind_of(path)
    if kind == "recording":
        from .events import open_recording

        return open_recording(path).describe()
    if kind == "collection":
        from .collection import open_collection

        return open_collection(path).describe()
    if kind == "run":
        return _run(path)
    if kind == "encoder":
        from .encoder import load_encoder

        encoder = load_encoder(path)
        parameters = sum(p.numel() for p in encoder.parameters())
        return {"format": "evlift-encoder", "width": encoder.dim, "patch": encoder.patch, "parameters": parameters}
    if kind == "video":
        from .simulate import find_shots, read_video

        frames, times = read_video(path)
        shots = find_shots(frames)
        return {
            "format": "video",
            "frames": len(frames),
            "height": frames.shape[1],
            "width": frames.shape[2],
            "duration_us": int(times[-1] - times[0]),
            "shots": [[int(start), int(stop)] for start, stop in shots],
        }
    from .collection import image_files

    pictures = image_files(path)
    return {"format": "pictures", "pictures": len(pictures), "labelled": sum(p.labels is not None for p in pictures)}


def _run(path: Path) -> dict[str, Any]:
    from .config import read_yaml
    from .train.checkpoint import checkpoints
    from .train.run import read_log

    settings = read_yaml(path / "config.yaml")
    found = checkpoints(path)
    steps = settings.get("train", {}).get("steps")
    facts: dict[str, Any] = {"format": "evlift-run", "finished": (path / "metrics.json").is_file(), "steps": steps}
    facts["checkpoint_step"] = int(found[-1].stem.split("-")[1]) if found else 0
    rows = [row for row in read_log(path / "log.jsonl") if "loss" in row]
    facts |= {"logged_steps": len(rows), "loss": rows[-1]["loss"] if rows else None, "settings": settings}
    if facts["finished"]:
        try:
            facts["metrics"] = json.loads((path / "metrics.json").read_text())
        except ValueError as error:
            raise InputError(f"{path / 'metrics.json'} is damaged; remove it and run the same command again") from error
    return facts


def draw(path: Path, file: Path) -> None:
    """A PNG of what `path` holds: the busiest 50 ms of a recording, or some pairs of a collection.

    Raises:
        InputError: it is something else, or holds nothing to draw.
    """
    from .view import event_picture, save_picture

    kind = kind_of(path)
    if kind == "collection":
        from .collection import open_collection
        from .view.pairs import preview

        save_picture(file, preview(open_collection(path)))
    elif kind == "recording":
        import numpy as np

        from .events import open_recording

        recording = open_recording(path)
        if not len(recording):
            raise InputError(f"{path} holds no events; there is nothing to draw")
        starts = np.arange(recording.t_first, recording.t_last + 1, 50_000)
        busiest = max(starts.tolist(), key=lambda t: recording.count(t, t + 50_000))
        save_picture(file, event_picture(recording.events(busiest, busiest + 50_000)))
    else:
        raise InputError(f"--picture draws recordings and collections, not {kind}; see report.html for a run")
