"""How large a picture is, from its first bytes: known before its pixels are decoded, and before they fill the memory.

JPEG  simplejpeg (libjpeg-turbo)
PNG   IHDR, the first chunk: width and height at 16, big-endian (W3C PNG, 11.2.2)
BMP   info header at 14: its length, width, height (negative: rows from the top), little-endian
GIF   logical screen at 6: width, height, little-endian (GIF89a)
WebP  VP8 (14 bits each after the start code), VP8L (14 bits each, less 1) or VP8X (24 bits each, less 1): RFC 9649
PNM   "P1" … "P6", then width and height as text, with comments between
TIFF  tags 256 and 257 of the first directory, either byte order (TIFF 6.0)
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

import simplejpeg

JPEG = b"\xff\xd8"
PNG = b"\x89PNG\r\n\x1a\n"

_HEAD = 1 << 16  # of a JPEG: enough unless a thumbnail or a profile comes first
_LONGEST_DIRECTORY = 4096  # tags; a TIFF has dozens
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")


def size_of(file: BinaryIO) -> tuple[int, int] | None:
    """Height and width that the picture in `file` (seekable, at its start) says it has; None when it says none."""
    head = file.read(64)
    if head[:2] == JPEG:
        return _jpeg(file, head)
    try:
        if head[:8] == PNG:
            width, height = struct.unpack_from(">II", head, 16)
        elif head[:2] == b"BM":
            width, height = _bmp(head)
        elif head[:4] == b"GIF8":
            width, height = struct.unpack_from("<HH", head, 6)
        elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            width, height = _webp(head)
        elif head[:4] in (b"II*\0", b"MM\0*"):
            width, height = _tiff(file, "<" if head[:2] == b"II" else ">")
        elif found := _PNM.match(head + file.read(4096)):
            width, height = int(found[1]), int(found[2])
        else:
            return None
    except (struct.error, KeyError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _jpeg(file: BinaryIO, data: bytes) -> tuple[int, int] | None:
    for length in (_HEAD, -1):
        data += file.read(length)
        try:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
        except ValueError:
            continue
        return int(height), int(width)
    return None


def _bmp(head: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", head, 14)[0] == 12:  # OS/2's old header
        width, height = struct.unpack_from("<HH", head, 18)
        return width, height
    width, height = struct.unpack_from("<ii", head, 18)
    return width, abs(height)


def _webp(head: bytes) -> tuple[int, int]:
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise KeyError(kind)


def _tiff(file: BinaryIO, order: str) -> tuple[int, int]:
    unpack = struct.unpack_from
    file.seek(4)
    file.seek(unpack(order + "I", file.read(4))[0])
    (count,) = unpack(order + "H", file.read(2))
    sides = {}
    for _ in range(min(count, _LONGEST_DIRECTORY)):
        entry = file.read(12)
        tag, kind = unpack(order + "HH", entry)
        if tag in (256, 257):
            sides[tag] = unpack(order + ("H" if kind == 3 else "I"), entry, 8)[0]
    return sides[256], sides[257]
