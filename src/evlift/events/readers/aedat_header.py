"""What the headers of AEDAT 1 to 3 say: their lines, and the chips by the names that they use."""

from __future__ import annotations

import re
from typing import BinaryIO, NamedTuple

HEADER_LIMIT = 1 << 24  # bytes: jAER puts all its settings there


class Chip(NamedTuple):
    height: int
    width: int
    davis: bool
    """Whether its AEDAT 2.0 addresses are those of the DAVIS family, not the DVS128's."""


CHIPS = {  # names are searched without regard to case: jAER has DAVIS240C and Davis346blue, and old names beside
    "dvs128|tmpdiff128": Chip(128, 128, False),
    "davis240|sbret[12]": Chip(180, 240, True),
    "davis?346": Chip(260, 346, True),  # converters from AEDAT4 write DAVI346
    "davis128": Chip(128, 128, True),
    "davis208": Chip(192, 208, True),
    "davis640": Chip(480, 640, True),
}


def chip(name: str) -> Chip | None:
    """The chip in a name such as ``DAVIS240C``; None when it is not one of these."""
    return next((found for pattern, found in CHIPS.items() if re.search(f"(?i)(?<![a-z])(?:{pattern})", name)), None)


def header_lines(file: BinaryIO) -> tuple[list[bytes], int]:
    """The lines of text that start with "#", and the offset behind them.

    A first record may start with the byte "#", too. It is told from a line by its control characters.
    """
    lines: list[bytes] = []
    start = 0
    while start < HEADER_LIMIT:
        line = file.readline(1 << 16)
        if (
            not line.startswith(b"#")
            or not line.endswith(b"\n")
            or re.search(rb"[\x00-\x08\x0b-\x1f]", line.rstrip(b"\r\n"))
        ):
            break
        start += len(line)
        lines.append(line.rstrip(b"\r\n"))
        if re.match(rb"(?i)#!END-HEADER|#\s*End of ASCII Header", line):
            break
    return lines, start
