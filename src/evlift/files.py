"""Files that are whole or not there, and folders that one process writes at a time.

Everything evlift keeps is written beside its place, synced and renamed: a kill or a full disk leaves the old file or
the new one, never half of one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import RunError


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step; folders above it are made.

    Raises:
        RunError: the disk is full or refuses; what was there is kept.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise RunError(
            f"cannot write {path} ({reason}); make room or choose another place, and run it again"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, in one step; NaN and infinities become null."""
    write_atomic(path, (json.dumps(finite(value), indent=2, allow_nan=False) + "\n").encode())


def finite(value: Any) -> Any:
    """The same nested value with None for floats that JSON has no word for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))) else value


def holds_others(folder: Path, *ours: str) -> bool:
    """Whether `folder` holds anything but a lock, what a killed write left, and files named `ours`."""
    known = {".lock", *ours}
    return any(file.name not in known and not file.name.endswith(".part") for file in folder.iterdir())


_HELD: set[IO[str]] = set()


def _let_go() -> None:
    # A worker that outlives a killed parent by seconds would hold the parent's lock that long: a lock belongs to an
    # open file, and a forked child has it open too.
    for handle in _HELD:
        handle.close()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made, while it is written, so that a second start of a command does not mix in.

    Raises:
        RunError: another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "w")
    except OSError as error:
        raise RunError(f"cannot write in {folder} ({error.strerror}); give another folder") from error
    with handle:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows has no such lock; what is finished is whole all the same
            pass
        except OSError as error:
            message = f"{folder} is in use by another evlift process; wait for it or give another folder"
            raise RunError(message) from error
        _HELD.add(handle)
        try:
            yield
        finally:
            _HELD.discard(handle)
