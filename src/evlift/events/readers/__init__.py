"""Recording formats, one file each, found by content first and by name second.

Every module here has the same five names:

    FORMATS                    {format name: one line that says what it is}
    SUFFIXES                   {file suffix: format name}, for formats that content cannot tell; {} if it can
    USES                       {format name: which of Stated's fields, but for `format`, mean anything to it}
    matches(path, head)        the format's name when the content says so, else None; head: the first 4096 bytes,
                               b"" for a folder. Never raises on foreign content.
    open_reader(path, format, stated)    a Reader (see reader.py)
"""

from __future__ import annotations

import difflib
from importlib import import_module
from pathlib import Path
from types import ModuleType

from evlift.errors import ConfigError, InputError
from evlift.events.readers import hdf5
from evlift.events.readers.reader import CHUNK, Columns, Problems, Reader, Stated

MODULES = (  # in the order they are asked: the most telling content first
    "raw",  # Prophesee RAW: EVT2, EVT2.1, EVT3
    "dat",  # Prophesee DAT, N-Cars
    "aedat4",
    "aedat",  # AEDAT 2 and 3.1
    "event_stream",  # .es
    "rosbag",  # ROS 1 bags, ROS 2 bags, MCAP
    "dsec",
    "mvsec",
    "m3ed",
    "ddd",  # DDD17, DDD20
    "n_imagenet",
    "arrays",  # .npz, .npy
    "ecd",  # text with images
    "table",  # CSV and other text
    "atis",  # N-MNIST, N-Caltech101
)

FOLDERS = ("rosbag2", "dsec", "ecd")
"""Formats of which a folder may be one recording."""

__all__ = ["CHUNK", "Columns", "Problems", "Reader", "Stated", "detect", "formats", "open_reader"]


def formats() -> dict[str, str]:
    """Every format by name, with a line that says what it is."""
    return {name: line for module in _modules() for name, line in module.FORMATS.items()}


def detect(path: Path) -> str:
    """The format of a file or folder, by its content, then by its name.

    Raises:
        InputError: nothing there, not readable, or no format that evlift knows.
    """
    return _find(path, None)[1]


def open_reader(path: str | Path, stated: Stated | None = None) -> Reader:
    """Open a recording in any format.

    Raises:
        InputError: see `detect`; the header is damaged; something that only the user can say is missing.
        ConfigError: `stated.format` is no format, or something is stated that means nothing to the format.
    """
    path, stated = Path(path), stated or Stated()
    module, name = _find(path, stated.format)
    stated.check(path, name, module.USES[name])
    if stated.format is not None and path.is_dir() and name not in FOLDERS:
        raise InputError(f"{path} is a folder, and {name} is a file; give the file, or leave out --format")
    return module.open_reader(path, name, stated)


def _find(path: Path, wanted: str | None) -> tuple[ModuleType, str]:
    if not path.exists():
        raise InputError(f"{path} does not exist; check the spelling")
    try:
        head = b"" if path.is_dir() else _head(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if wanted is not None:
        for module in _modules():
            if wanted in module.FORMATS:
                return module, wanted
        near = difflib.get_close_matches(wanted, formats(), n=1)
        raise ConfigError(
            f"there is no format {wanted!r}; " + (f"did you mean {near[0]}?" if near else "see evlift info --formats")
        )
    if not head and path.is_file():
        raise InputError(f"{path} is empty; copy or record it again")
    modules = list(_modules())
    for module in modules:
        if found := module.matches(path, head):
            return module, found
    for module in modules:
        if path.suffix.lower() in module.SUFFIXES:
            return module, module.SUFFIXES[path.suffix.lower()]
    if fault := hdf5.fault(path, head):  # nobody could look into it
        raise InputError(fault)
    raise InputError(f"{path} is in no format that evlift knows; name it with --format, or see evlift info --formats")


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(4096)


def _modules():
    for name in MODULES:
        yield import_module(f"evlift.events.readers.{name}")
