"""Which value of a label picture is which class: the one table of class names, and the files that can name them.

A labelled folder may say it itself, in `classes.txt` (a name a line, line 0 for value 0; the name `void` marks a value
that is not a class) or in `labels.json` (`{"names": [...], "void": [11]}`, `void` optional, a value or a list of them).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, InputError
from .metrics import IGNORE

UNKNOWN = 254
"""What `LabelSet.table` gives a value that is neither a class nor void."""


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set: value `values[i]` means class i, called `names[i]`; `void` values are ignored."""

    names: tuple[str, ...]
    values: tuple[int, ...]
    void: tuple[int, ...] = (IGNORE,)

    def __post_init__(self) -> None:
        if not self.names:
            raise InputError("there is not a single class; name one or more, or check which values are void")
        if len(self.names) > UNKNOWN:
            raise InputError(f"{len(self.names)} classes are more than the {UNKNOWN} of an 8-bit label; merge some")
        if len(set(self.names)) != len(self.names):
            twice = next(n for n in self.names if self.names.count(n) > 1)
            raise InputError(f"class name {twice!r} occurs twice; give every class a name of its own")

    def table(self) -> NDArray[np.uint8]:
        """uint8 [256]: label value → class index, 255 for void values, 254 for unknown ones."""
        table = np.full(256, UNKNOWN, np.uint8)
        table[list(self.values)] = np.arange(len(self.values))
        table[list(self.void)] = IGNORE
        table[IGNORE] = IGNORE
        return table


def _consecutive(names: tuple[str, ...] | list[str], void: tuple[int, ...] = ()) -> LabelSet:
    """`names[v]` is the class of value v, except where v is in `void` or the name itself is 'void'."""
    void = tuple(sorted({*void, IGNORE, *(v for v, name in enumerate(names) if name.lower() == "void")}))
    kept = [(name, v) for v, name in enumerate(names) if v not in void]
    return LabelSet(tuple(name for name, _ in kept), tuple(v for _, v in kept), void)


CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
LABEL_SETS = {
    # The 11 classes of SegNet's tutorial and most papers since; 11 is what nobody labelled.
    "camvid": _consecutive(CAMVID, void=(11,)),
}
"""Data sets whose labels are known by name."""


def check_void(void: int | None) -> None:
    """Raises ConfigError unless `void` is None or 0…255."""
    if void is not None and not 0 <= void <= 255:
        raise ConfigError(f"void is {void}; give the label value to ignore, 0 to 255")


def read_label_set(folder: str | Path, labels: str | None = None, void: int | None = None) -> LabelSet | None:
    """What is known about the labels under `folder` before one of them is read.

    Args:
        folder: the labelled folder; its `labels.json` or `classes.txt` is read if there.
        labels: a name in `LABEL_SETS`, which wins over the files.
        void: one more value to ignore, besides 255.
    Returns:
        The label set, or None if nothing names the classes; `found_label_set` then makes one from the values.
    Raises:
        ConfigError: `labels` is not in the table.
        InputError: a file that cannot be read, is empty, or names a class twice.
    """
    check_void(void)
    extra = () if void is None else (void,)
    if labels is not None:
        if labels not in LABEL_SETS:
            raise ConfigError(f"unknown labels {labels!r}; known are {', '.join(LABEL_SETS)}, or write a classes.txt")
        known = LABEL_SETS[labels]
        return _without(known, extra)
    as_json, as_text = Path(folder) / "labels.json", Path(folder) / "classes.txt"
    if as_json.is_file():
        return _from_json(as_json, extra)
    if as_text.is_file():
        try:
            names = [line.strip() for line in as_text.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {as_text} ({error}); write one class name a line, as UTF-8") from error
        names = [name for name in names if name]
        for known in LABEL_SETS.values():  # a known set brings its void value along
            if tuple(name.lower() for name in names) == known.names:
                return _without(known, extra)
        return _consecutive(names, extra)
    return None


def _from_json(path: Path, extra: tuple[int, ...]) -> LabelSet:
    form = 'write {"names": ["road", ...], "void": 11}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({error}); {form}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} has no list of class names; {form}")
    void = content.get("void", [])
    void = [void] if isinstance(void, int) else void
    if not isinstance(void, list) or not all(isinstance(v, int) and 0 <= v <= 255 for v in void):
        raise InputError(f"{path} gives void as {content['void']!r}; {form}")
    return _consecutive(names, (*void, *extra))


def _without(known: LabelSet, extra: tuple[int, ...]) -> LabelSet:
    kept = [(n, v) for n, v in zip(known.names, known.values, strict=True) if v not in extra]
    return LabelSet(tuple(n for n, _ in kept), tuple(v for _, v in kept), tuple(sorted({*known.void, *extra})))


def found_label_set(values: NDArray, void: int | None = None) -> LabelSet:
    """The label set of unnamed labels: every value 0…the largest found is a class, except `void` and 255.

    Raises:
        InputError: no pixel has a class.
    """
    check_void(void)
    found = [int(v) for v in np.unique(values) if v not in (IGNORE, void)]
    if not found:
        raise InputError("every label pixel is void; check the label pictures and the void value")
    return _consecutive([f"class {v}" for v in range(max(found) + 1)], () if void is None else (void,))
