"""`evlift info`: what a path holds, as plain values fit for JSON, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from .events import FileRecording, Recording
    from .events.readers import Stated

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


def kind_of(path: Path, stated: Stated | None = None) -> str:
    """`recording` (packed), `file` (another format), `collection`, `run`, `encoder`, `video` or `pictures`.

    Raises:
        InputError: it is none of them.
    """
    from .events.readers import detect
    from .events.recording import looks_packed

    if not path.exists():
        raise InputError(f"{path} does not exist; check the spelling")
    if stated is not None and stated.format is not None:
        return "recording" if stated.format == "packed" else "file"
    if path.is_file():
        if path.suffix.lower() in VIDEOS:
            return "video"
        detect(path)  # raises when nobody knows it
        return "file"
    for file, kind in (
        ("recording.json", "recording"),
        ("collection.json", "collection"),
        ("config.yaml", "run"),
        ("model.safetensors", "encoder"),
    ):
        if (path / file).is_file():
            return kind
    if looks_packed(path):  # a part of one: opening it says what is missing
        return "recording"
    try:
        detect(path)
    except InputError:
        return "pictures"
    return "file"


def describe(path: Path, stated: Stated | None = None, progress: bool = False) -> dict[str, Any]:
    """Facts about `path`; the key `format` says what it is.

    Args:
        stated: what a recording file does not say itself.
        progress: show a progress bar where every event has to be read.

    Raises:
        InputError: nothing there that evlift knows, or a damaged file.
    """
    kind = kind_of(path, stated)
    if kind in ("recording", "file"):
        from .events import inspection

        with _bar(progress) as report:
            return inspection.describe(_open(path, kind, stated), report)
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
        return _video(path)
    from .collection import image_files

    try:
        pictures = image_files(path)
    except InputError:
        from .events.convert import recordings_in
        from .events.readers import Stated

        packed = sorted(file.parent for file in path.glob("*/recording.json"))
        if inside := packed or recordings_in(path, stated or Stated()):
            first, more = inside[0], f" and {len(inside) - 1} more" if len(inside) > 1 else ""
            also = "" if packed else ", or convert them all"
            raise InputError(f"{path} is a folder of recordings, {first}{more}; look at one of them{also}") from None
        raise
    return {"format": "pictures", "pictures": len(pictures), "labelled": sum(p.labels is not None for p in pictures)}


def _video(path: Path) -> dict[str, Any]:
    from .simulate import find_shots, iter_video

    times: list[int] = []
    size = (0, 0)

    def frames() -> Iterator[Any]:  # one in memory at a time, however long the video is
        nonlocal size
        for frame, t_us in iter_video(path):
            times.append(t_us)
            size = frame.shape[:2]
            yield frame

    shots = find_shots(frames())
    return {
        "format": "video",
        "frames": len(times),
        "height": size[0],
        "width": size[1],
        "duration_us": times[-1] - times[0],
        "shots": [[int(start), int(stop)] for start, stop in shots],
    }


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


def draw(path: Path, file: Path, stated: Stated | None = None, busiest_us: int | None = None) -> None:
    """A PNG of what `path` holds: the busiest 50 ms of a recording, or some pairs of a collection.

    Args:
        busiest_us: where those 50 ms begin, if `describe` has said so already.

    Raises:
        InputError: it is something else, or holds nothing to draw.
    """
    from .view import event_picture, save_picture

    kind = kind_of(path, stated)
    if kind == "collection":
        from .collection import open_collection
        from .view.pairs import preview

        save_picture(file, preview(open_collection(path)))
    elif kind in ("recording", "file"):
        from .events.inspection import BUSY_MS

        if busiest_us is None:
            busiest_us = describe(path, stated)["busiest_us"]
        if busiest_us is None:
            raise InputError(f"{path} holds no events; there is nothing to draw")
        save_picture(file, event_picture(_open(path, kind, stated).events(busiest_us, busiest_us + BUSY_MS * 1000)))
    else:
        raise InputError(f"--picture draws recordings and collections, not {kind}; see report.html for a run")


def _open(path: Path, kind: str, stated: Stated | None) -> Recording | FileRecording:
    from .events import FileRecording, Recording

    if kind == "file":
        return FileRecording(path, stated)
    if stated is not None:
        stated.check(path, "packed", ())
    return Recording(path)


@contextmanager
def _bar(show: bool) -> Iterator[Callable[[float], None] | None]:
    """A progress bar on a terminal that answers a call with the share that is done, 0…1; nothing elsewhere."""
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("reading", total=1.0)
        yield lambda share: bar.update(task, completed=share)
