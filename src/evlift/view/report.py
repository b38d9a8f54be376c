"""`report.html`: a run in one file that opens anywhere: figures, what was learned (in pictures), curves, settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..files import write_atomic
from . import page
from .curves import COLOURS, line_chart, series
from .panel import PairPanel, panel_basis, panel_pictures
from .pictures import PALETTES, Picture, event_picture, resize_picture
from .tokens import VEIL, PCABasis, mark_patch, query_points, similarity_colours, similarity_picture

# Pictures wider or higher than this are shrunk: a row holds five or more of them.
LONGEST_SIDE = 480
# Pairs whose similarity maps are open when the report is; the others open by a click.
OPEN_PAIRS = 2
# What a reader needs to know about a curve; others go by their name alone.
MEANING = {
    "eval/relation_fidelity": "correlation with the teacher's token similarities; 1 is best",
    "eval/effective_rank": "dimensions the tokens really use; it falls when they collapse",
}


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    lead: str,
    figures: Mapping[str, object],
    curves: Mapping[str, list[dict[str, Any]]],
    panels: Sequence[PairPanel],
    config: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Path:
    """Write one self-contained HTML file, whole or not at all; returns its path.

    title, lead: what this is, and the one thing to take away from it
    figures:     numbers that matter. A plain value, or {"before": a, "after": b}, is shown large; any other mapping
                 (nested or not) and any list of mappings becomes a table. None and NaN are shown as a dash.
    curves:      run name → rows of its log.jsonl; see evlift.view.curves.series
    panels:      held-out pairs, all with tokens of one width; one colour basis is fitted to the teacher's tokens of all
    config:      the resolved configuration
    notes:       what a reader must know before believing the figures; shown right beneath them
    Raises InputError for panels that do not fit together, RunError when the file cannot be written.
    """
    basis = panel_basis(panels)
    parts = [
        f"<header><h1>{page.text(title)}</h1>{_paragraphs(lead)}</header>\n<main>",
        _figures(figures),
        _notes(notes),
    ]
    if basis is not None:
        parts += [_tokens(panels, basis), _similarities(panels)]
    parts.append(_curves(curves))
    if config:
        parts.append(f"<h2>Configuration</h2>\n{_folded('Every setting of this run', page.settings(config))}")
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    made = f"Written by evlift {page.text(__version__)}, {now}. Nothing here is loaded from outside this file."
    parts.append(f"</main>\n<footer>{made}</footer>")
    write_atomic(Path(path), page.document(title, "\n".join(part for part in parts if part)).encode())
    return Path(path)


def _paragraphs(lead: str) -> str:
    return "".join(f'<p class="lead">{page.text(part)}</p>' for part in lead.split("\n\n") if part.strip())


def _figures(figures: Mapping[str, object]) -> str:
    tiles = [page.tile(name, value) for name, value in figures.items() if page.is_tile(value)]
    tables = [page.table(name, value) for name, value in figures.items() if not page.is_tile(value)]
    out = f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""
    return out + (f'\n<div class="tables">{"".join(tables)}</div>' if tables else "")


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return f'<aside class="notes"><ul>{"".join(f"<li>{page.text(note)}</li>" for note in notes)}</ul></aside>'


def _folded(summary: str, content: str, opened: bool = False) -> str:
    """Content that opens by a click, under a summary already escaped."""
    return f"<details{' open' if opened else ''}><summary>{summary}</summary>{content}</details>"


def _shown_size(panel: PairPanel) -> tuple[int, int]:
    height, width = panel.image.shape[:2]
    shrink = min(1.0, LONGEST_SIDE / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{int(c):02x}" for c in colour)


def _key(colour: Sequence[int], words: str) -> str:
    return f'<span><span class="key" style="background:{_hex(colour)}"></span>{words}</span>'


def _active(panel: PairPanel) -> str:
    return f"<small>{panel.mask.mean():.0%} of the patches active</small>"


def _fidelities(panel: PairPanel) -> dict[str, float]:
    """Relation fidelity of each student on this pair: the objective's own definition."""
    import torch

    from ..objective import relation_fidelity

    width = panel.teacher.shape[2]
    teacher = torch.from_numpy(panel.teacher.reshape(1, -1, width).copy())
    mask = torch.from_numpy(panel.mask.reshape(1, -1).copy())
    return {
        name: float(relation_fidelity(torch.from_numpy(tokens.reshape(1, -1, width).copy()), teacher, mask)[0])
        for name, tokens in panel.students().items()
    }


def _figure(drawn: Picture, caption: str, alt: str, kind: str = "") -> str:
    # Events are dots on white: JPEG would smear them and would not be smaller.
    image = page.picture(drawn, alt, ".png" if kind == "events" else ".jpg")
    return f"<figure>{image}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"


def _tokens(panels: Sequence[PairPanel], basis: PCABasis) -> str:
    _, on, off = PALETTES["white"]
    out = [
        "<h2>Tokens of held-out pairs</h2>",
        '<p class="quiet">Colours are the three leading principal components of the teacher’s tokens '
        f"({basis.share.sum():.0%} of their variance), with one range for every picture: where a "
        "student’s colours equal the teacher’s, so do its tokens along these directions.</p>",
        f'<div class="legend">{_key(on, "brighter (ON)")}{_key(off, "darker (OFF)")}'
        f"{_key(VEIL, 'greyed: patches with too few events, neither trained nor measured')}</div>",
    ]
    for panel in panels:
        pictures = panel_pictures(panel, basis, _shown_size(panel))
        scores = _fidelities(panel)
        cells = []
        for name, drawn in pictures.items():
            caption = page.label(name)
            if isfinite(scores.get(name, float("nan"))):
                caption += f' <span class="score" title="relation fidelity">{page.number(scores[name])}</span>'
            cells.append(_figure(drawn, caption, f"{name}: {panel.name}", name))
        out.append(
            f'<section class="pair"><h3>{page.text(panel.name)}{_active(panel)}</h3>'
            f'<div class="row" style="--columns:{len(cells)}">{"".join(cells)}</div></section>'
        )
    out.append(
        '<p class="quiet">The number beside a student is its relation fidelity on that pair: 1 when its tokens relate '
        "to each other as the teacher’s do.</p>"
    )
    return "\n".join(out)


def _similarities(panels: Sequence[PairPanel]) -> str:
    stops = ", ".join(_hex(c) for c in similarity_colours(np.linspace(0, 1, 9)))
    out = [
        "<h2>Similarity to one patch</h2>",
        '<p class="quiet">Cosine similarity of every token to the one under the ring. A student that has learned the '
        "teacher’s structure lights up the same things; one that has collapsed lights up everything.</p>",
        f'<div class="legend"><span>0 or less<span class="key bar" style="background:linear-gradient(90deg, {stops})">'
        f"</span>1</span>{_key(VEIL, 'greyed: patches with too few events')}</div>",
    ]
    for k, panel in enumerate(panels):
        full = (panel.image.shape[0], panel.image.shape[1])
        size, grid = _shown_size(panel), (panel.teacher.shape[0], panel.teacher.shape[1])
        events = event_picture(panel.grid, *full)
        rows: list[str] = []
        for point in panel.queries or query_points(panel.teacher, panel.mask):
            shown = {"image": mark_patch(panel.image, point, grid), "events": mark_patch(events, point, grid)}
            shown["teacher"] = similarity_picture(panel.teacher, point, full)
            for name, tokens in panel.students().items():
                shown[name] = similarity_picture(tokens, point, full, panel.mask)
            shown = {name: resize_picture(drawn, *size) for name, drawn in shown.items()}
            first = not rows
            cells = [
                _figure(drawn, page.label(name) if first else "", f"{name}, ringed: {panel.name}", name)
                for name, drawn in shown.items()
            ]
            rows.append(f'<div class="row" style="--columns:{len(cells)}">{"".join(cells)}</div>')
        out.append(_folded(page.text(panel.name) + _active(panel), "".join(rows), opened=k < OPEN_PAIRS))
    return "\n".join(out)


def _curves(curves: Mapping[str, list[dict[str, Any]]]) -> str:
    logged = {str(run): series(rows) for run, rows in curves.items()}
    logged = {run: found for run, found in logged.items() if found}
    if not logged:
        return ""
    colours = {run: COLOURS[k % len(COLOURS)] for k, run in enumerate(logged)}
    names = sorted(dict.fromkeys(name for found in logged.values() for name in found), key=_place)
    main = [name for name in names if _place(name) < OTHER]
    charts = {
        name: _chart(name, {run: found[name] for run, found in logged.items() if name in found}, colours)
        for name in names
    }
    legend = "".join(
        f'<span><span class="key line" style="background:{colour}"></span>{page.text(run)}</span>'
        for run, colour in colours.items()
    )
    out = f'<h2>Training</h2>\n<div class="legend">{legend}</div>\n{_charts([charts[name] for name in main])}'
    rest = [charts[name] for name in names if name not in main]
    return out + (_folded("Learning rate, gradients and the rest of the log", _charts(rest)) if rest else "")


def _charts(drawn: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(drawn)}</div>'


OTHER = 9


def _place(name: str) -> int:
    """Where a curve stands: what is measured first, then the loss and its parts, then the machinery."""
    if name in MEANING:
        return list(MEANING).index(name)
    return 3 if name.startswith("eval/") else 4 if name == "loss" else 5 if name.startswith("losses/") else OTHER


def _chart(name: str, runs: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    shown = page.label(name.removeprefix("eval/").replace("losses/", "loss: "))
    meaning = f" <small>{page.text(MEANING[name])}</small>" if name in MEANING else ""
    return f"<figure><figcaption>{shown}{meaning}</figcaption>{line_chart(name, runs, colours)}</figure>"
