"""The rows of the table: what makes the tokens of each, and the figures that it got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import backbones, represent
from ..encoder import Encoder, load_encoder
from . import metrics
from .labels import LabelSet
from .metrics import IGNORE
from .segmentation import Features, ProbeResult, evaluate


@dataclass(eq=False)
class Row:
    """One line of the table before and after it is measured."""

    name: str
    kind: str
    features: Features
    patch: int | None
    encoder: Encoder | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    test_tokens: Tensor | None = None
    result: ProbeResult | None = None


def load_rows(
    encoders: Sequence[str], *, untrained: bool, teacher: str | None, seed: int, device: torch.device
) -> list[Row]:
    """Encoders, then an untrained twin of each architecture, then the teacher, loaded and ready.

    Raises:
        RunError: an encoder that cannot be read. ConfigError: an unknown teacher.
    """
    rows: list[Row] = []
    for path in encoders:
        encoder = load_encoder(path, device=device)
        rows.append(Row(path, "encoder", _event_tokens(encoder), encoder.patch, encoder))
    seen: list[Any] = []
    for row in list(rows) if untrained else []:
        assert row.encoder is not None
        fresh = _untrained(row.encoder, seed).to(device)
        architecture = {**fresh.config(), "teacher": None, "projector": None}
        if architecture not in seen:
            seen.append(architecture)
            rows.append(Row(f"untrained {row.name}", "untrained", _event_tokens(fresh), fresh.patch, fresh))
    if teacher is not None:
        from ..teachers import load_teacher

        learned = load_teacher(teacher).to(device)
        rows.append(
            Row(f"teacher {teacher}", "teacher", lambda batch: learned.features(batch["image"]), learned.stride)
        )
    return rows


def _untrained(encoder: Encoder, seed: int) -> Encoder:
    """The same architecture with fresh random weights."""
    config = encoder.config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = backbones.build(config["backbone"])
        return Encoder(represent.build(config["representation"]), backbone, stem=config["stem"]).eval()


def _event_tokens(encoder: Encoder) -> Features:
    return lambda batch: encoder(batch["grid"])


def with_zero_shot(rows: list[Row], teacher_name: str, test_labels: Tensor, device: torch.device) -> list[Row]:
    """The rows, with the teacher's head on each encoder that has a projection into this teacher's space after them."""
    teacher = next((row for row in rows if row.kind == "teacher"), None)
    if teacher is None or teacher.result is None:
        return rows
    head, added = teacher.result, []
    for row in rows:
        if row.kind != "encoder" or row.encoder is None or row.test_tokens is None:
            continue
        if row.encoder.teacher_name not in ("", teacher_name) or row.encoder.teacher_dim != head.weight.shape[1]:
            continue
        lifted = _lifted(row.encoder, row.test_tokens, device)
        confusion = evaluate(head.weight, head.bias, lifted, test_labels, patch=row.patch, device=device)
        found = ProbeResult(head.weight, head.bias, confusion, head.loss)
        added.append(Row(f"zero-shot {row.name}", "zero-shot", row.features, row.patch, notes=row.notes))
        added[-1].result, added[-1].test_tokens = found, lifted
    return [row for row in rows if row.kind == "encoder"] + added + [row for row in rows if row.kind != "encoder"]


def _lifted(encoder: Encoder, tokens: Tensor, device: torch.device) -> Tensor:
    """Tokens in the teacher's own space, not standardised: where the teacher's head expects them."""
    parts = []
    with torch.no_grad():
        for part in tokens.split(64):
            lifted = encoder.lift(part.to(device, torch.float32))
            parts.append((lifted * encoder.teacher_std + encoder.teacher_mean).to("cpu", torch.float16))
    return torch.cat(parts)


def scored(row: Row, classes: LabelSet) -> dict[str, Any]:
    """The row as it stands in `metrics.json`."""
    assert row.result is not None and row.test_tokens is not None
    size = {"tokens": list(row.test_tokens.shape[1:3]), "width": row.test_tokens.shape[3]}
    return {"name": row.name, "kind": row.kind, **_scores(row.result.confusion.sum(0), classes), **size, **row.notes}


def _scores(confusion: NDArray[np.int64], classes: LabelSet) -> dict[str, Any]:
    def named(values: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(classes.names, values.tolist(), strict=True))

    recall = metrics.class_accuracy(confusion)
    return {
        "miou": float(metrics.mean_iou(confusion)),
        "accuracy": float(metrics.pixel_accuracy(confusion)),
        "mean_class_accuracy": float(np.nanmean(recall)),
        "iou": named(metrics.class_iou(confusion)),
        "class_accuracy": named(recall),
    }


def constant(train: Tensor, test: Tensor, classes: LabelSet) -> dict[str, Any]:
    """The row of a prediction that is always the most frequent class of the training labels."""
    counts = torch.bincount(train[train != IGNORE].long(), minlength=len(classes.names))
    most = int(counts.argmax())
    confusion = metrics.confusion_matrix(torch.full_like(test, most).numpy(), test.numpy(), len(classes.names))
    return {"name": f"always {classes.names[most]}", "kind": "constant", **_scores(confusion, classes)}
