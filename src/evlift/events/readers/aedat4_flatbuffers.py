"""FlatBuffers read by hand, as far as AEDAT4 uses them, with every offset checked against the bytes that are there.

A buffer is: uint32 offset of the root table, counted from its own place; four letters that name the type; then
tables. A table starts with an int32 that, taken from the table's place, gives its vtable: uint16 size of the vtable,
uint16 size of the table, and for each field a uint16 offset in the table (0: the field has its default). A field that
is a string or vector holds a uint32 offset, counted from its own place, of a uint32 length and the elements. All
numbers are little-endian. Specification: https://flatbuffers.dev/internals
"""

from __future__ import annotations

import struct


class Damaged(ValueError):
    """The bytes are no such FlatBuffer, or hold nothing of use; the message, if any, says what was found."""


class Table:
    """The root table of a FlatBuffer without its size prefix. Raises Damaged where an offset leaves the buffer."""

    def __init__(self, data: memoryview | bytes, identifier: bytes) -> None:
        self._data = memoryview(data)
        if bytes(self._data[4:8]) != identifier:
            raise Damaged
        self._table = self._read("<I", 0)
        self._vtable = self._table - self._read("<i", self._table)
        self._fields = (self._read("<H", self._vtable) - 4) // 2

    def number(self, field: int, code: str, default: int = 0) -> int:
        """A field that is a number; `code`: its letter in `struct`."""
        at = self._place(field)
        return default if at is None else self._read("<" + code, at)

    def vector(self, field: int, size: int) -> memoryview:
        """The bytes of a field that is a vector (or string) whose elements have `size` bytes; empty where absent."""
        at = self._place(field)
        if at is None:
            return self._data[:0]
        at += self._read("<I", at)
        start, length = at + 4, self._read("<I", at) * size
        if start + length > len(self._data):
            raise Damaged
        return self._data[start : start + length]

    def _place(self, field: int) -> int | None:
        offset = self._read("<H", self._vtable + 4 + 2 * field) if field < self._fields else 0
        return self._table + offset if offset else None

    def _read(self, code: str, at: int) -> int:
        if at < 0:  # struct would count from the end
            raise Damaged
        try:
            return struct.unpack_from(code, self._data, at)[0]
        except struct.error:
            raise Damaged from None
