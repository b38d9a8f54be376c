"""Checkpoints: everything a run needs to go on exactly, written so that a kill or a full disk costs nothing.

`checkpoints/step-00000400.pt` is a `torch.save` of tensors, numbers and strings, read with `weights_only=True`. It is
written under another name, synced and renamed; the one before it is kept until the new one stands.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ..errors import RunError

KEEP = 2  # the newest and, should that one be lost with its disk block, the one before


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*.pt"))


def save(run: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the checkpoint of `step`, then remove all but the newest `KEEP`.

    Raises:
        RunError: the disk is full or refuses; the earlier checkpoints are as they were.
    """
    folder = run / "checkpoints"
    path = folder / f"step-{step:08d}.pt"
    temporary = folder / f".{path.name}.part"
    try:
        folder.mkdir(exist_ok=True)
        for leftover in folder.glob(".*.part"):
            leftover.unlink()
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        temporary.unlink(missing_ok=True)
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):  # torch's own words hide the system's behind them
            cause = cause.__context__
        reason = (cause.strerror if cause is not None else None) or str(error).splitlines()[0]
        raise RunError(
            f"cannot write checkpoint {path} ({reason}); make room and run the same command again: "
            "it goes on from the checkpoint before"
        ) from error
    for old in checkpoints(run)[:-KEEP]:
        old.unlink()
    return path


def load_newest(run: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a run on the CPU, or None when it has none yet.

    Raises:
        RunError: the file cannot be read; the message says what is left to go on from.
    """
    found = checkpoints(run)
    if not found:
        return None
    path = found[-1]
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, EOF and OS errors alike: the file is not what `save` wrote
        rest = f"go on from {found[-2].name}" if len(found) > 1 else "start this run from its first step"
        raise RunError(f"checkpoint {path} is damaged; remove that file and run the same command to {rest}") from error
