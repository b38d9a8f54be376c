"""Byte strings of any length in an HDF5 file, followed by hand.

HDF5's own reading of them believes what the file says of lengths and can run for ever on a damaged one; here every step
stays within the file, and a fault has its byte offset. Layout (HDF5 File Format Specification, "Global Heap" and
"Variable-length types"), little-endian, for files with 8-byte offsets:

    a reference, in place of it   u32 length, u64 address of a heap, u32 number of the object in it
    a heap                        "GCOL", u8 version 1, 3 bytes, u64 size of the heap with this header; then its objects
    an object                     u16 number (0: free space, the last), u16 uses, 4 bytes, u64 size; bytes, padded to 8
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from evlift.events.readers.hdf5 import Damaged, Rows

_KEPT = 64  # heaps whose objects are known at a time; HDF5 fills 16 in turns
REFERENCE, _HEAP, _OBJECT = struct.Struct("<IQI"), struct.Struct("<4sBxxxQ"), struct.Struct("<HHxxxxQ")


class Heaps:
    """Byte strings of a file by where their reference stands: views of the mapped file."""

    def __init__(self, path: Path) -> None:
        self._file = np.memmap(path, np.uint8, mode="r")
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self._walked = 0  # bytes: heaps that overlap would be walked again and again

    def value(self, at: int) -> np.ndarray:
        """The bytes, uint8 [N], that the reference at byte ``at`` of the file leads to. Raises Damaged."""
        length, address, number = self._unpack(REFERENCE, at)
        if length == 0:
            return self._file[:0].view(np.ndarray)
        objects = self._heaps.get(address)
        if objects is None:
            objects = self._heaps[address] = self._walk(address)
            if len(self._heaps) > _KEPT:
                self._heaps.pop(next(iter(self._heaps)))
        start, size = objects.get(number, (0, -1))
        if size < length:
            raise Damaged("a reference leads to bytes that are not there", at)
        return self._file[start : start + length].view(np.ndarray)

    def _walk(self, address: int) -> dict[int, tuple[int, int]]:
        """Where the objects of a heap are: {number: (start, size)}."""
        signature, version, size = self._unpack(_HEAP, address)
        self._walked += size
        if signature != b"GCOL" or version != 1 or size > len(self._file) - address:
            raise Damaged("a reference leads to a heap that is not there", address)
        if self._walked > 4 * len(self._file):
            raise Damaged("heaps overlap", address)
        objects, at, stop = {}, address + _HEAP.size, address + size
        while at + _OBJECT.size <= stop:
            number, _, length = self._unpack(_OBJECT, at)
            if number == 0:
                break
            at += _OBJECT.size
            if length > stop - at:
                break  # what was found before is good
            objects[number] = (at, length)
            at += length + -length % 8
        return objects

    def _unpack(self, layout: struct.Struct, at: int) -> tuple[Any, ...]:
        if not 0 <= at <= len(self._file) - layout.size:
            raise Damaged("a reference points outside the file", at)
        return layout.unpack_from(self._file.data, at)


def fits(rows: Rows) -> bool:
    """Whether the dataset's chunks are plain, hold whole rows, and hold references of this layout."""
    dataset = rows.dataset
    if dataset.chunks is None or dataset.chunks[1:] != dataset.shape[1:] or dataset.file.userblock_size:
        return False
    return dataset.id.get_create_plist().get_nfilters() == 0 and dataset.id.get_type().get_size() == REFERENCE.size


def read_row(rows: Rows, heaps: Heaps, i: int) -> list[np.ndarray]:
    """The K byte strings of row i of a dataset [N, K] that fits. Raises Damaged."""
    width = rows.dataset.shape[1]
    chunk, within = divmod(i, rows.chunk)
    at = rows.place(chunk, within * width * REFERENCE.size, width * REFERENCE.size)
    return [heaps.value(at + k * REFERENCE.size) for k in range(width)]
