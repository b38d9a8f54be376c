"""What a probe is made with: splits, class names, and what the run behind an encoder tells of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..collection import is_collection, open_collection
from ..collection.pictures import pictures_by_split
from ..config import read_yaml
from ..errors import InputError
from .labels import LabelSet, found_label_set, read_label_set
from .metrics import IGNORE

HELD_OUT = 0.2
"""Share of the pictures that are tested when train and test are one plain folder."""


def trained_size(encoders: Sequence[str | Path]) -> tuple[int, int] | None:
    """The input size in the `config.yaml` of the first encoder's run, if there is one."""
    data = _run_settings(encoders[0]).get("data", {}) if encoders else {}
    size = data.get("size") if isinstance(data, dict) else None
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size):
        return size[0], size[1]
    return None


def _run_settings(encoder: str | Path) -> dict[str, Any]:
    for folder in (Path(encoder), Path(encoder).parent):
        if (folder / "config.yaml").is_file():
            found = read_yaml(folder / "config.yaml")
            return found if isinstance(found, dict) else {}
    return {}


def provenance(encoder: str | Path, train: str | Path, test: str | Path) -> dict[str, Any]:
    """Which weights these are, and whether they were pretrained on the pictures of the test."""
    notes: dict[str, Any] = {"encoder": str(encoder)}
    for file in (Path(encoder) / "model.safetensors", Path(encoder) / "encoder" / "model.safetensors"):
        if file.is_file():
            digest = hashlib.sha256()
            with open(file, "rb") as weights:
                while part := weights.read(1 << 20):
                    digest.update(part)
            notes["sha256"] = digest.hexdigest()
            break
    data = _run_settings(encoder).get("data", {})
    source = data.get("source") if isinstance(data, dict) else None
    if source is not None:
        same = Path(source).resolve() == Path(test).resolve()
        notes["pretrained_on_test_pictures"] = same and choose_splits(train, test).test == "train"
    return notes


def known_labels(train: str | Path, test: str | Path, labels: str | None, void: int | None) -> LabelSet | None:
    """What names or files say about the labels of both folders; None if nothing does. See `read_label_set`.

    Raises:
        InputError: the two folders contradict each other.
    """
    of_train, of_test = (read_label_set(path, labels, void) for path in (train, test))
    if of_train and of_test and of_train != of_test:
        raise InputError(f"{train} and {test} name different classes; make their classes.txt or labels.json agree")
    return of_train or of_test


class Splits(NamedTuple):
    """Which split of the training and of the test folder is read, and the share of a plain folder that is held out."""

    train: str
    test: str
    val_fraction: float


def choose_splits(train: str | Path, test: str | Path) -> Splits:
    """`train`, and `test` or else `val` of what has splits; all of a plain folder, unless it is to serve as both.

    Raises:
        InputError: one source for both, with nothing held out.
    """
    same = Path(train).resolve() == Path(test).resolve()
    share = HELD_OUT if same else 0.0
    if is_collection(test):
        have = {name for name, count in open_collection(test).splits.items() if count}
    else:
        have = set(pictures_by_split(test, share))
    for split in ("test", "val"):
        if split in have:
            return Splits("train", split, share)
    if same:
        raise InputError(f"{test} has no held-out split; test on another folder, or build it with one")
    return Splits("train", "train", share)


def agree_on_classes(
    known: LabelSet | None, train: Tensor, test: Tensor, paths: tuple[str, str], void: int | None
) -> tuple[LabelSet, Tensor, Tensor, list[str]]:
    """Settle which classes there are, now that the labels are read.

    Args:
        known: what was known before; None: the labels hold plain values, and these become the classes.
        train, test: uint8 [N, H, W]. paths: where they are from.
        void: a value to ignore, if `known` is None.
    Returns:
        The label set, both labels as its classes, and remarks that a reader should see.
    Raises:
        InputError: no labelled pixel, or no class that both have.
    """
    remarks = []
    if known is None:
        known = found_label_set(np.union1d(train.unique().numpy(), test.unique().numpy()), void)
        ignored = "255" if void in (None, IGNORE) else f"{void} and 255"
        remarks.append(
            f"nothing names the classes: every value from 0 to {max(known.values)} is one, {ignored} void; "
            "give --labels or --void, or write a classes.txt, to change that"
        )
        table = torch.from_numpy(known.table())
        train, test = table[train.long()], table[test.long()]
    seen = [set(labels.unique().tolist()) - {IGNORE} for labels in (train, test)]
    for labels, found, path in zip((train, test), seen, paths, strict=True):
        if not found:
            raise InputError(f"every label pixel of {path} is void; check the label pictures and the void value")
        empty = int((labels == IGNORE).flatten(1).all(1).sum())
        if empty:
            remarks.append(f"{empty} of {len(labels)} label maps read from {path} are void throughout")
    if not seen[0] & seen[1]:
        raise InputError(f"{paths[0]} and {paths[1]} have no class in common; give labels of one kind")
    remarks += [f"class {known.names[i]!r} is tested but never seen in training" for i in sorted(seen[1] - seen[0])]
    return known, train, test, remarks
