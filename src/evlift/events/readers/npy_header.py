"""The header of a NumPy array's file, read without believing it.

    \\x93NUMPY      magic
    2 bytes         version
    2 or 4 bytes    length of the header, little-endian (4 from version 2 on)
    header          a Python dict of descr, fortran_order and shape
    values

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Python objects are refused, nothing is
unpickled, and the shape is what the header claims: whoever reads the values counts them.
"""

from __future__ import annotations

import ast
import re
from math import prod
from typing import IO, Any, NamedTuple

import numpy as np

from evlift.errors import InputError

MAGIC = b"\x93NUMPY"
LONGEST = 1 << 16  # bytes of a header, and of an event, at most

_TYPE = re.compile(r"[<>|=]?[biufcSUVmM]\d{1,5}(\[\w+\])?")


class Header(NamedTuple):
    """What the header of an array says."""

    fields: tuple[str, ...]  # names; ("",) for plain numbers
    dtype: np.dtype  # of a value: always with fields, numbered
    offsets: tuple[int, ...]  # of the fields, bytes
    columnwise: bool  # Fortran's order
    shape: tuple[int, ...]
    start: int  # of the values, in bytes from the start of the array's file


def read_header(file: IO[bytes], what: str) -> Header:
    """Read up to the first value. InputError, which calls the array `what`, where it is damaged or holds objects."""
    start = file.read(10)
    version = start[6] if len(start) == 10 else 0
    if not start.startswith(MAGIC) or version not in (1, 2, 3):
        raise InputError(f"{what} does not begin as a NumPy array does (byte 0); save it again with numpy.save")
    length = start[8:] if version == 1 else start[8:] + file.read(2)
    size, begin = int.from_bytes(length, "little"), 8 + len(length)
    text = file.read(min(size, LONGEST))
    try:
        if len(text) < size:
            raise ValueError
        said = ast.literal_eval(text.decode("utf-8" if version == 3 else "latin-1"))
        shape, columnwise = said["shape"], said["fortran_order"]
        if not (isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 1 << 63 for n in shape)):
            raise ValueError
        if isinstance(columnwise, bool):
            return Header(*_record(said["descr"], what), columnwise, shape, begin + size)
    except (
        ValueError,
        TypeError,
        SyntaxError,
        KeyError,
        IndexError,
        RecursionError,
        MemoryError,
        OverflowError,
    ) as error:
        if isinstance(error, InputError):
            raise
    raise InputError(f"{what} has a damaged array header (byte {begin}); copy it or save it again")


def _record(descr: Any, what: str) -> tuple[tuple[str, ...], np.dtype, tuple[int, ...]]:
    """(Names of the fields, dtype with them, offsets) of a header's `descr`; ValueError on what none is."""
    if isinstance(descr, str):
        descr = [("", descr)]
        plain = True
    else:
        plain = False
    names: list[str] = []
    types: list[np.dtype] = []
    offsets: list[int] = []
    size = 0
    for entry in descr:
        name, kind = entry[0], entry[1]
        if "O" in kind:
            raise InputError(f"{what} holds Python objects, which are not unpickled; save t, x, y, p as numbers")
        if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
            raise ValueError
        dtype = np.dtype(kind)
        if len(entry) > 2:  # a field of several values: never t, x, y or p
            dtype = np.dtype(f"V{dtype.itemsize * prod(entry[2])}")
        if plain or name:  # nameless: padding
            names.append(name[1] if isinstance(name, tuple) else name)
            types.append(dtype)
            offsets.append(size)
        size += dtype.itemsize
    if not 0 < size <= LONGEST or not all(isinstance(name, str) for name in names):
        raise ValueError
    numbered = [str(j) for j in range(len(names))]
    record = np.dtype({"names": numbered, "formats": types, "offsets": offsets, "itemsize": size})
    return tuple(names), record, tuple(offsets)
