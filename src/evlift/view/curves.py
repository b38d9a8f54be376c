"""Training logs as small line charts: one chart a quantity, one line a run, as SVG that takes on the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

# After Okabe & Ito, made a little darker: told apart by colour-blind readers, on white and on near-black.
COLOURS = ("#2f7ed8", "#dd7a1f", "#1f9d74", "#b5559f", "#b8930f", "#6f7f91", "#c8443f", "#55a4d6")
# Each stands for the page's text colour in matplotlib's output; replaced by currentColor, so that dark mode works.
INK = "#010203"
# More points than this are averaged in bins of steps, and the bin's extent drawn as a band.
POINTS = 240

Series = tuple[NDArray[np.float64], NDArray[np.float64]]


def series(rows: Iterable[Any]) -> dict[str, Series]:
    """Parsed log.jsonl rows → quantity → (steps, values), both float64 and sorted by step.

    Nested mappings are named by their path (`losses/token`, `eval/effective_rank`). Of a step written twice (a run that
    went on from its checkpoint) the later row counts. Rows without a step are left out, and so are values that are not
    finite numbers.
    """
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        step = row.get("step") if isinstance(row, Mapping) else None
        if not _is_number(step):
            continue
        for name, value in _leaves(row):
            if name != "step":
                found.setdefault(name, {})[float(step)] = value  # type: ignore[arg-type]
    out = {}
    for name, values in found.items():
        steps = sorted(values)
        out[name] = (np.array(steps), np.array([values[step] for step in steps]))
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and isfinite(float(value))


def _leaves(row: Mapping[Any, Any], path: str = "") -> Iterable[tuple[str, float]]:
    for key, value in row.items():
        name = f"{path}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}/")
        elif _is_number(value):
            yield name, float(value)


def condense(
    steps: NDArray[np.float64], values: NDArray[np.float64], points: int = POINTS
) -> tuple[NDArray[np.float64], ...]:
    """(steps, mean, low, high) of `points` bins of about equal numbers of rows; the values themselves when few."""
    if len(steps) <= points:
        return steps, values, values, values
    edges = np.linspace(0, len(steps), points + 1).round().astype(int)
    counts = np.diff(edges)
    starts = edges[:-1]
    return (
        np.add.reduceat(steps, starts) / counts,
        np.add.reduceat(values, starts) / counts,
        np.minimum.reduceat(values, starts),
        np.maximum.reduceat(values, starts),
    )


def line_chart(name: str, runs: Mapping[str, Series], colours: Mapping[str, str]) -> str:
    """One quantity of several runs over the steps, as an inline <svg> that scales with its place.

    The scale is logarithmic where all values are positive and span more than a factor of 50. The name is used only to
    keep the drawing's ids apart from other charts'; the page writes it above.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(4.4, 2.7), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    for run, (steps, values) in runs.items():
        at, mean, low, high = condense(steps, values)
        if len(steps) > POINTS:
            axes.fill_between(at, low, high, color=colours[run], alpha=0.16, linewidth=0)
        marker = "o" if len(at) <= 12 else None
        axes.plot(at, mean, color=colours[run], linewidth=1.7, marker=marker, markersize=3.5, solid_joinstyle="round")
    everything = np.concatenate([values for _, values in runs.values()])
    if everything.min() > 0 and everything.max() > 50 * everything.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=True))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        formatter = ScalarFormatter(useOffset=False)
        formatter.set_powerlimits((-3, 5))
        axes.yaxis.set_major_formatter(formatter)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.set_xlim(left=0)
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=INK, alpha=0.4)
    axes.tick_params(which="both", length=0, labelsize=10, colors=INK)
    axes.yaxis.get_offset_text().set(color=INK, fontsize=9)
    axes.set_xlabel("step", color=INK, fontsize=10)
    out = io.StringIO()
    # Text stays text (the page's own font); the salt makes ids that differ from chart to chart and not from run to run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})
    return _inline(out.getvalue())


def _inline(svg: str) -> str:
    """The <svg> element alone, without XML prologue, namespaces, metadata and fixed size, in the page's text colour."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    return f'<svg {box.group()} aria-hidden="true">' + body.replace(INK, "currentColor").strip()
