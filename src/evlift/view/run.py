"""The report of a pretraining run: its settings, curves and figures, and what its encoder makes of held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..config import PretrainConfig, to_dict
from ..encoder import Encoder, load_encoder
from ..objective import activation_mask, resample
from ..teachers import load_teacher
from ..train.loop import make_encoder
from ..train.run import read_log
from ..train.source import open_pairs
from .panel import PairPanel
from .report import write_report

SMALL_TEACHER = (
    "The teacher is EfficientNet-Lite0, a small network trained with ImageNet labels, not a foundation model: "
    "these results show that the method works, not how far it goes."
)


def notes_on(config: PretrainConfig) -> list[str]:
    """What a reader must know before believing the figures of a run with these settings."""
    return [SMALL_TEACHER] if config.teacher.name.startswith("efficientnet-lite") else []


@torch.no_grad()
def pair_panels(
    run: Path, config: PretrainConfig, *, others: Mapping[str, Path] | None = None, count: int = 6
) -> list[PairPanel]:
    """Panels of `count` held-out pairs, spread evenly: teacher, untrained student, trained student, other encoders.

    Args:
        run: the run folder; its encoder is the trained student.
        config: the run's settings.
        others: name → run or encoder folder, students of the same teacher.
    """
    trained = load_encoder(run).eval()
    teacher = load_teacher(config.teacher.name)
    untrained = make_encoder(config, teacher.dim).eval()
    untrained.set_teacher_statistics(trained.teacher_mean, trained.teacher_std)
    students: dict[str, Encoder] = {name: load_encoder(path).eval() for name, path in (others or {}).items()}
    _, held_out = open_pairs(config.data, trained.representation, run, seed=config.train.seed)
    pairs = held_out["val"]
    count = min(count, len(pairs))
    panels = []
    for i in (k * len(pairs) // count for k in range(count)):
        item = pairs[i]
        grid, image = item["grid"][None], item["image"][None]

        def lifted(encoder: Encoder, grid: torch.Tensor = grid) -> torch.Tensor:
            return encoder.lift(encoder(grid))[0]

        after = lifted(trained)
        target = trained.standardise_teacher(
            resample(
                teacher.features(image).float(), (after.shape[0], after.shape[1]), ratio=trained.patch / teacher.stride
            )
        )[0]
        panels.append(
            PairPanel(
                name=f"held-out pair {i + 1} of {len(pairs)}",
                image=(item["image"].permute(1, 2, 0) * 255).round().byte().numpy(),
                grid=item["grid"].numpy(),
                teacher=target.numpy(),
                before=lifted(untrained).numpy(),
                after=after.numpy(),
                mask=activation_mask(grid, trained.patch, config.objective.mask_threshold)[0].numpy(),
                extra={name: lifted(encoder).numpy() for name, encoder in students.items()},
            )
        )
    return panels


def _shown(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures in a reader's order and words: what was measured before and after training comes first."""
    first: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in figures.items():
        words = name.replace("_", " ")
        if isinstance(value, Mapping) and {"trained", "untrained"} <= value.keys():
            first[words] = {"before": value["untrained"], "after": value["trained"]}
            first |= {f"{words}, {other}": value[other] for other in value if other not in ("trained", "untrained")}
        else:
            rest[words] = value
    return first | rest


def report_run(
    run: Path,
    config: PretrainConfig,
    figures: Mapping[str, Any],
    *,
    title: str = "evlift pretrain",
    lead: str = "",
    others: Mapping[str, Path] | None = None,
    out: Path | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write `report.html` of a finished run (`out`: elsewhere than in the run folder); returns its path.

    Args:
        figures: what its `metrics.json` holds.
        others: further runs on the same pairs: their curves and tokens stand beside this one's.
    """
    curves: dict[str, list[dict[str, Any]]] = {config.objective.preset: read_log(run / "log.jsonl")}
    curves |= {name: read_log(path / "log.jsonl") for name, path in (others or {}).items()}
    return write_report(
        out or run / "report.html",
        title=title,
        lead=lead or f"An event encoder taught by {config.teacher.name} with the objective {config.objective.preset}.",
        figures=_shown(figures),
        curves=curves,
        panels=pair_panels(run, config, others=others),
        config=to_dict(config),
        notes=[*notes_on(config), *notes],
    )
