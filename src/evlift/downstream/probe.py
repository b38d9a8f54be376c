"""`evlift probe segmentation`: encoders, their baselines and their ceiling under one linear probe.

Every row sees the same pictures, the same simulated events, the same steps of the same head:

    encoder     the frozen event tokens of a saved encoder
    zero-shot   a head trained on the teacher's image tokens, applied to the encoder's tokens lifted to its space:
                that head has seen no event
    untrained   the encoder's own architecture with fresh random weights: what the architecture gives by itself
    teacher     the image tokens of the teacher: the ceiling
    constant    the most frequent training class everywhere: the floor
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from ..collection import open_source
from ..config import differences, read_yaml
from ..errors import ConfigError, InputError, RunError
from ..files import alone, holds_others, write_atomic, write_json
from ..view import save_picture
from . import metrics
from .labels import LabelSet
from .pictures import strip
from .report import Report
from .rows import Row, constant, load_rows, scored, with_zero_shot
from .segmentation import ProbeResult, evaluate, extract, fit, predict
from .sources import agree_on_classes, choose_splits, known_labels, provenance, trained_size

DEFAULT_SIZE = (192, 256)
RULES = {
    "unit": "fractions of 1",
    "miou": "mean over the classes that occur in the ground truth or the prediction of the whole test set",
    "head": "linear: tokens standardised by the training set, one matrix, logits upsampled bilinearly",
}


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What decides the figures; an output folder belongs to one of these."""

    task: str = "segmentation"
    encoders: list[str]
    train: str
    test: str
    size: list[int]
    labels: str | None
    void: int | None
    sensor: str
    motion_px: list[float]
    variants: int
    steps: int
    batch: int
    lr: float
    seed: int
    untrained: bool
    teacher: str | None

    def __post_init__(self) -> None:
        if not self.encoders:
            raise ConfigError("no encoder to measure; give one or more run or encoder folders")
        if len(set(self.encoders)) < len(self.encoders):
            raise ConfigError("an encoder is given twice; name each one once")
        for name in ("variants", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.lr <= 0:
            raise ConfigError(f"lr is {self.lr}; give a positive learning rate, such as 0.01")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; give 0 or more")


def probe_segmentation(
    encoders: Sequence[str | Path],
    train: str | Path,
    test: str | Path,
    out: str | Path,
    *,
    size: tuple[int, int] | None = None,
    labels: str | None = None,
    void: int | None = None,
    sensor: str = "ideal",
    motion_px: tuple[float, float] = (2.0, 12.0),
    variants: int = 2,
    steps: int = 1000,
    batch: int = 16,
    lr: float = 0.01,
    seed: int = 0,
    untrained: bool = False,
    teacher: str | None = None,
    workers: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Measure frozen encoders with a linear head for semantic segmentation; write `out/metrics.json` and pictures.

    Args:
        encoders: run folders or encoder folders; the first one's figures stand at the top of `metrics.json`.
        train, test: folders with `images/` and `labels/`, or labelled collections. Of what has splits, `train` gives
            its `train` and `test` its `test`, else its `val`; one plain folder for both is tested on its last fifth.
        out: folder for the results; one with results of other settings is refused.
        size: height and width of the input, and of the labels that are scored. None: what the first encoder was trained
            at, else 192×256.
        labels: name of a label set; None: `labels.json` or `classes.txt` in `train` or `test`, else all values found.
        void: a label value to ignore besides 255.
        sensor, motion_px: of the simulator, where the source is still pictures.
        variants: simulated motions and mirrorings of every training picture that the head sees.
        steps, batch, lr, seed: of the head; `seed` also draws the motions.
        untrained: add a row for each architecture with random weights.
        teacher: add a row for this teacher on the images, and a zero-shot row for each encoder that learned from it.
        workers: processes that prepare the data.
        device: `auto` takes a GPU if there is one. Neither changes the result by more than rounding; the same command
            on the same machine gives the same bytes.
    Returns:
        What `out/metrics.json` holds.
    Raises:
        ConfigError, InputError, RunError: with one line on what is wrong and what to do.
    """
    given = [encoders] if isinstance(encoders, (str, Path)) else list(encoders)
    out = Path(out)
    settings = _Settings(
        encoders=[str(path) for path in given],
        train=str(train),
        test=str(test),
        size=list(size or trained_size(given) or DEFAULT_SIZE),
        labels=labels,
        void=void,
        sensor=sensor,
        motion_px=list(motion_px),
        variants=variants,
        steps=steps,
        batch=batch,
        lr=lr,
        seed=seed,
        untrained=untrained,
        teacher=teacher,
    )
    place = _device(device)
    known = known_labels(train, test, labels, void)
    rows = load_rows(settings.encoders, untrained=untrained, teacher=teacher, seed=seed, device=place)
    for row in rows:
        if row.kind == "encoder":
            row.notes = provenance(row.name, train, test)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {out} ({error.strerror}); give another --out folder") from error
    with alone(out):
        _check_out(out, settings)
        with Report(out, progress) as report:
            return _measure(settings, rows, known, out, report, workers, place)


def _measure(
    settings: _Settings,
    rows: list[Row],
    known: LabelSet | None,
    out: Path,
    report: Report,
    workers: int,
    device: torch.device,
) -> dict[str, Any]:
    splits = choose_splits(settings.train, settings.test)
    passes = dict.fromkeys(_representation_of(row) for row in rows if row.encoder)
    train_tokens: dict[str, Tensor] = {}
    test_tokens: dict[str, Tensor] = {}
    train_labels = test_labels = torch.empty(0, dtype=torch.uint8)
    table = known.table() if known else None
    test_set: Any = None
    for turn, key in enumerate(passes):
        # Rows with one representation share one pass; the teacher's images are the same in all, so it joins the first.
        group = [row for row in rows if row.encoder and _representation_of(row) == key]
        representation = next(row.encoder for row in group if row.encoder).representation
        group += [row for row in rows if row.kind == "teacher"] if turn == 0 else []
        functions = {row.name: row.features for row in group}
        options: dict[str, Any] = {
            "representation": representation,
            "size": tuple(settings.size),
            "sensor": settings.sensor,
            "motion": {"motion_px": tuple(settings.motion_px)},
            "val_fraction": splits.val_fraction,
            "seed": settings.seed,
        }
        # The whole picture, mirrored or not: crops would train the head on a scale that the test never shows.
        train_set = open_source(settings.train, splits.train, scale=(1.0, 1.0), flip=True, augment=True, **options)
        held_out = open_source(settings.test, splits.test, augment=False, **options)
        for path, dataset in ((settings.train, train_set), (settings.test, held_out)):
            if not dataset.labelled:
                raise InputError(f"{path} has no labels; put a label picture for each picture into {path}/labels")
        common: dict[str, Any] = {"table": table, "workers": workers, "device": device, "progress": report.bar}
        began = time.perf_counter()
        found, train_labels = extract(
            functions, train_set, variants=settings.variants, what="training tokens", **common
        )
        train_tokens |= found
        found, test_labels = extract(functions, held_out, what="test tokens", **common)
        test_tokens |= found
        test_set = test_set or held_out
        report.log(event="extract", rows=list(functions), seconds=round(time.perf_counter() - began, 3))

    classes, train_labels, test_labels, remarks = agree_on_classes(
        known, train_labels, test_labels, (settings.train, settings.test), settings.void
    )
    for remark in remarks:
        report.remark(remark)
    write_atomic(out / "probe.yaml", yaml.safe_dump(asdict(settings), sort_keys=False, allow_unicode=True).encode())
    for row in rows:
        row.test_tokens = test_tokens[row.name]
        began = time.perf_counter()
        weight, bias, loss = fit(
            train_tokens.pop(row.name),
            train_labels,
            classes=len(classes.names),
            steps=settings.steps,
            batch=settings.batch,
            lr=settings.lr,
            seed=settings.seed,
            patch=row.patch,
            device=device,
            progress=report.bar,
            what=f"head of {row.name}",
        )
        confusion = evaluate(weight, bias, row.test_tokens, test_labels, patch=row.patch, device=device)
        row.result = ProbeResult(weight, bias, confusion, loss)
        for step in range(0, settings.steps, max(1, settings.steps // 50)):
            report.log(row=row.name, step=step, loss=loss[step])
        report.log(row=row.name, miou=row.result.miou, seconds=round(time.perf_counter() - began, 3))
    if settings.teacher is not None:
        rows = with_zero_shot(rows, settings.teacher, test_labels, device)

    figures = [scored(row, classes) for row in rows]
    figures.append(constant(train_labels, test_labels, classes))
    result: dict[str, Any] = {"task": settings.task, "protocol": "linear probe on frozen tokens"}
    result |= {name: figures[0][name] for name in ("miou", "accuracy", "mean_class_accuracy", "iou", "class_accuracy")}
    result |= {
        "encoder": settings.encoders[0],
        "classes": list(classes.names),
        "evaluated_at": list(test_labels.shape[1:]),
        "train": settings.train,
        "train_pictures": len(train_labels) // settings.variants,
        "test": settings.test,
        "test_pictures": len(test_labels),
        "splits": splits._asdict(),
    }
    result |= {"rows": figures, "rules": RULES, "settings": asdict(settings)}
    result["pictures"] = _draw(rows, test_set, test_labels, classes, out / "pictures", device)
    write_json(out / "metrics.json", _rounded(result))
    report.table(figures, classes.names)
    return _rounded(result)


def _representation_of(row: Row) -> str:
    assert row.encoder is not None
    return json.dumps(row.encoder.config()["representation"], sort_keys=True)


def _draw(
    rows: list[Row], test_set: Any, labels: Tensor, classes: LabelSet, folder: Path, device: torch.device
) -> dict[str, Any]:
    """The first row's best, median and worst test picture, with every row's prediction, as PNG files."""
    assert rows[0].result is not None
    scores = metrics.mean_iou(rows[0].result.confusion)
    order = [int(i) for i in np.argsort(scores, kind="stable") if np.isfinite(scores[i])]
    notes: dict[str, Any] = {}
    for name, place in (("best", -1), ("median", len(order) // 2), ("worst", 0)):
        i = order[place]
        item, size = test_set[i], (labels.shape[1], labels.shape[2])
        predictions = {}
        for row in rows:
            assert row.result is not None and row.test_tokens is not None
            head, tokens = row.result, row.test_tokens[i : i + 1]
            made = predict(head.weight, head.bias, tokens, size, patch=row.patch, device=device)
            predictions[row.name] = made[0].numpy()
        picture = strip(item["image"].numpy(), item["grid"].numpy(), labels[i].numpy(), predictions, classes.names)
        save_picture(folder / f"{name}.png", picture)
        notes[name] = {"file": f"pictures/{name}.png", "item": i, "miou": float(scores[i])}
        if hasattr(test_set, "pictures"):
            notes[name]["of"] = test_set.pictures[i].path.name
    return notes


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # PyTorch's words for hardware that is not there
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used ({reason}); give cpu, or auto") from error


def _check_out(out: Path, settings: _Settings) -> None:
    """Refuse a folder that holds something else. A probe that stopped before it had settings leaves only its log."""
    file = out / "probe.yaml"
    if file.exists():
        changed = differences(read_yaml(file), asdict(settings))
        if changed:
            shown = "; ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
            raise RunError(
                f"{out} holds a probe with other settings ({shown}); give another --out, or the same settings"
            )
        return
    if holds_others(out, "log.jsonl"):
        raise RunError(f"{out} is not empty and holds no probe; give another --out folder")


def _rounded(value: Any) -> Any:
    """Floats to six digits, NaN to None: what is left is what the measures can tell apart."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return None if value != value else float(f"{value:.6g}")
    return value
